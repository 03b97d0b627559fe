//! The life of streams: accepted or dialled, authenticated, timed out, closed.

use super::close::CloseReason;
use super::session::{ArrivalStage, Part, Receiving, Session, UNREAD_BYTES_MAX};
use crate::identity::Identity;
use crate::io::{DialId, DiskError, StreamId};
use crate::time::Instant;
use crate::transfer::downloads::download::Phase;
use crate::transfer::events::{PushError, StreamOutput, TransferEvent};
use crate::transfer::replicas::possession;
use crate::transfer::uploads::serve;
use crate::transfer::{Pieces, Transfer};
use crate::wire::contact::{Contact, canonical};
use crate::wire::frame::{Frame, Hello, Parsed};
use core::net::SocketAddr;

/// Inputs from the driver about streams.
impl Transfer {
    /// A node connected to this one. The stream is refused when every place is taken and none can be freed.
    pub fn handle_accepted(
        &mut self,
        now: Instant,
        stream: StreamId,
        remote: SocketAddr,
        identity: &Identity,
    ) {
        let unauthenticated_max = self.common.config.limits.streams_unauthenticated_max;
        if let Some(oldest) = self.common.streams.unauthenticated_beyond(unauthenticated_max) {
            self.drop_stream(now, oldest, CloseReason::UnauthenticatedDisplaced);
        }
        let most = self.common.config.limits.streams_max;
        if self.common.streams.is_full_of_accepted(most) && !self.make_room(now) {
            if let Some(crowding) = self.common.streams.crowding_out(remote) {
                self.drop_stream(now, crowding, CloseReason::Crowded);
            }
        }
        if self.common.streams.is_full_of_accepted(most) {
            self.common.out.counters.stream_refused += 1;
            self.common.out.outputs.push_back(StreamOutput::Close { stream });
        } else {
            self.open(now, stream, canonical(remote), None, identity);
        }
        self.settle(now);
    }

    /// An attempt to connect succeeded.
    pub fn handle_connected(&mut self, now: Instant, dial: DialId, stream: StreamId, identity: &Identity) {
        match self.common.streams.dialled(dial) {
            Some(contact) => self.open(now, stream, contact.addr, Some(contact), identity),
            None => self.common.out.outputs.push_back(StreamOutput::Close { stream }),
        }
        self.settle(now);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId) {
        if let Some(contact) = self.common.streams.dialled(dial) {
            self.common.out.counters.dial_failed += 1;
            self.unreachable(now, contact);
        }
        self.settle(now);
    }

    /// Takes arrived bytes: at most one frame, or a part of a piece that is collected in memory. Returns how many bytes it took;
    /// 0 means that the next frame needs more.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        stream: StreamId,
        bytes: &[u8],
        identity: &Identity,
        pieces: &mut dyn Pieces,
    ) -> usize {
        let used = self.take_bytes(now, stream, bytes, identity, pieces);
        self.settle(now);
        self.uploads.look_up(now, pieces, &mut self.common);
        used
    }

    /// All bytes that were written to the stream have left.
    pub fn handle_drained(&mut self, now: Instant, stream: StreamId, pieces: &mut dyn Pieces) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        if session.ending {
            self.drop_stream(now, stream, CloseReason::Shunned);
            self.settle(now);
            return self.uploads.look_up(now, pieces, &mut self.common);
        }
        session.last_active = now;
        session.unread = 0;
        for sending in session.sending.drain(..) {
            self.common.out.uploaded += u64::from(sending.length);
            if let Some(push) = sending.push {
                self.pushes.sent(now, push, &self.common.config.timing);
            }
        }
        self.uploads.send_next(now, stream, &mut self.common);
        self.tell_more(stream);
        self.uploads.take_turns(now, &mut self.common);
        self.settle(now);
        self.uploads.look_up(now, pieces, &mut self.common);
    }

    /// The driver could not read content that it was told to send. Its length was announced, so the stream is closed.
    pub fn handle_send_failed(&mut self, now: Instant, stream: StreamId, error: &DiskError) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let sending = core::mem::take(&mut session.sending);
        let pushes: Vec<_> = sending.iter().filter_map(|sending| sending.push).collect();
        session.pushes.retain(|_, push| !pushes.contains(push));
        for push in pushes {
            self.pushes.end(push, Err(PushError::Source(error.clone())), &mut self.common.out);
        }
        if let Some(place) = sending.into_iter().find_map(|sending| sending.place) {
            self.common.out.event(TransferEvent::SendFailed { place, error: error.clone() });
        }
        self.drop_stream(now, stream, CloseReason::SendFailed);
        self.settle(now);
    }

    /// The stream broke, or the other end closed it.
    pub fn handle_closed(&mut self, now: Instant, stream: StreamId) {
        if let Some(session) = self.common.streams.remove(stream) {
            self.common.out.counters.stream_closed += 1;
            self.release(now, stream, session, true);
        }
        self.settle(now);
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (stream, reason) in self.common.streams.late(now, &self.common.config.timing) {
            self.drop_stream(now, stream, reason);
        }
        for push in self.pushes.late(now) {
            if let Some(stream) = self.pushes.expire(push, &mut self.common.out) {
                self.drop_stream(now, stream, CloseReason::PushSilent);
            }
        }
        self.inspections.expire(now, &mut self.common);
        self.uploads.choke(now, &mut self.common);
        self.uploads.take_turns(now, &mut self.common);
        if core::mem::take(&mut self.common.streams.crowded) {
            // A dial that still finds no room sets `crowded` again.
            self.everything_changed();
        }
        for (&id, download) in &mut self.downloads {
            if download.wake.is_some_and(|at| at <= now) {
                download.wake = None;
                self.changed.insert(id);
            }
        }
        if self.common.blame.has_ended(now) {
            self.review_bans(now);
        }
        self.settle(now);
    }
}

impl Transfer {
    /// Handles all pending changes, until none is left.
    pub(in crate::transfer) fn settle(&mut self, now: Instant) {
        loop {
            if let Some(download) = self.changed.pop_first() {
                self.pump(now, download);
            } else if self.pushes.take_change() {
                self.pushes.pump(now, &mut self.common);
            } else if self.inspections.take_change() {
                self.inspections.pump(now, &mut self.common);
            } else if self.common.streams.crowded && self.make_room(now) {
                self.common.streams.crowded = false;
            } else {
                return;
            }
        }
    }

    /// A stream opened or closed: that may matter to every download, push and inspection.
    pub(in crate::transfer) fn everything_changed(&mut self) {
        self.changed.extend(self.downloads.keys());
        self.pushes.note_change();
        self.inspections.note_change();
    }

    /// Closes a stream.
    pub(in crate::transfer) fn drop_stream(&mut self, now: Instant, stream: StreamId, reason: CloseReason) {
        if let Some(session) = self.common.streams.remove(stream) {
            *self.common.out.counters.closed(reason) += 1;
            self.common.out.outputs.push_back(StreamOutput::Close { stream });
            self.release(now, stream, session, reason.blames_peer());
        }
    }

    /// Closes the stream that has been unused longest, to make room for another. False when all are in use.
    pub(in crate::transfer) fn make_room(&mut self, now: Instant) -> bool {
        let unused = self.common.streams.longest_unused(now);
        if let Some(stream) = unused {
            self.drop_stream(now, stream, CloseReason::Displaced);
        }
        unused.is_some()
    }

    fn open(
        &mut self,
        now: Instant,
        stream: StreamId,
        remote: SocketAddr,
        dialled: Option<Contact>,
        identity: &Identity,
    ) {
        let hello = (identity, self.common.rng.bytes());
        let replaced = self.common.streams.open(
            now,
            stream,
            (remote, dialled),
            hello,
            &self.common.config,
            &mut self.common.out,
        );
        if let Some(replaced) = replaced {
            // The driver broke its contract and used a number twice. State of the first stream is discarded.
            debug_assert!(false, "stream number used twice");
            self.release(now, stream, replaced, false);
        }
    }

    fn take_bytes(
        &mut self,
        now: Instant,
        stream: StreamId,
        bytes: &[u8],
        identity: &Identity,
        pieces: &dyn Pieces,
    ) -> usize {
        let Some(session) = self.common.streams.get_mut(&stream) else { return bytes.len() };
        if session.ending {
            return bytes.len();
        }
        match &mut session.receiving {
            Receiving::Sink { .. } => 0,
            Receiving::Memory { rest, bytes: collected, .. } => {
                let used = bytes.len().min(*rest as usize);
                collected.extend_from_slice(&bytes[..used]);
                *rest -= used as u32;
                let full = *rest == 0;
                session.progress(now, used as u64);
                self.common.out.downloaded += used as u64;
                if full {
                    self.piece_collected(now, stream);
                }
                used
            }
            Receiving::Discard { rest } => {
                let used = bytes.len().min(*rest as usize);
                *rest -= used as u32;
                if *rest == 0 {
                    session.receiving = Receiving::Frames;
                }
                session.progress(now, used as u64);
                self.common.out.downloaded += used as u64;
                used
            }
            Receiving::Frames => match Frame::parse(bytes) {
                Ok(Parsed::Frame(frame, used)) => {
                    session.last_active = now;
                    self.handle_frame(now, stream, &frame, identity, pieces);
                    used
                }
                Ok(Parsed::Incomplete) => 0,
                Err(refused) => {
                    self.drop_stream(now, stream, CloseReason::Malformed(refused));
                    bytes.len()
                }
            },
        }
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        stream: StreamId,
        frame: &Frame<'_>,
        identity: &Identity,
        pieces: &dyn Pieces,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        if session.unread > UNREAD_BYTES_MAX {
            return self.drop_stream(now, stream, CloseReason::Unread);
        }
        if session.handshake.is_some() {
            return match self.common.streams.shake_hands(stream, frame, identity, &mut self.common.out) {
                Ok(Some(hello)) => self.authenticated(now, stream, &hello),
                Ok(None) => {}
                Err(error) => self.drop_stream(now, stream, CloseReason::Handshake(error)),
            };
        }
        let common = &mut self.common;
        let handled = match *frame {
            Frame::Hello(_) | Frame::Proof { .. } => Err(CloseReason::Unexpected),
            Frame::Request { request, key } => self.uploads.on_request(now, stream, request, key, common),
            Frame::Cancel { request } => {
                self.uploads.on_cancel(now, stream, request, common);
                Ok(())
            }
            Frame::Which { question, keys } => serve::on_which(stream, question, keys, pieces, common),
            Frame::Have { question, bitmap } => return self.on_have(now, stream, question, &bitmap),
            Frame::Block { request, content, length, mode } => {
                return self.on_block(now, stream, request, (content, length), mode);
            }
            Frame::Refuse { request, reason } => return self.on_refuse(now, stream, request, reason),
            Frame::Store { request, offer } => return self.on_store(now, stream, request, &offer),
            Frame::Accept { request, have } => {
                let queued = self.pushes.on_accept(now, stream, request, have, common);
                if let Ok(true) = queued {
                    self.uploads.send_next(now, stream, common);
                }
                queued.map(|_| ())
            }
            Frame::StoreData { request, length } => return self.on_store_data(now, stream, request, length),
            Frame::Stored { request } => self.pushes.on_stored(now, stream, request, common),
            Frame::Inspect { question, keys } => possession::on_inspect(stream, question, keys, common),
            Frame::Inspected { question, entries } => {
                self.inspections.on_inspected(stream, question, entries, common)
            }
            Frame::Follow { file, over } => return self.on_follow(now, stream, file, over),
            Frame::Gained { file, chunks } => return self.on_gained(now, stream, file, chunks),
            Frame::Sources { file, contacts } => return self.on_sources(now, stream, file, contacts),
            Frame::Unverified { key } => return self.on_unverified(now, stream, key),
        };
        self.conclude(now, stream, handled);
    }

    /// Closes a stream when what came over it is a reason to.
    pub(in crate::transfer) fn conclude(
        &mut self,
        now: Instant,
        stream: StreamId,
        handled: Result<(), CloseReason>,
    ) {
        if let Err(reason) = handled {
            self.drop_stream(now, stream, reason);
        }
    }

    /// The peer sent a well-formed frame that the state of the stream does not allow.
    pub(in crate::transfer) fn violated(&mut self, now: Instant, stream: StreamId) {
        self.drop_stream(now, stream, CloseReason::Unexpected);
    }

    fn authenticated(&mut self, now: Instant, stream: StreamId, hello: &Hello) {
        let id = hello.public.node_id();
        if self.is_shunned(now, &id) {
            return self.drop_stream(now, stream, CloseReason::Shunned);
        }
        if let Some(surplus) = self.common.streams.surplus_of(&id) {
            self.drop_stream(now, surplus, CloseReason::Surplus);
        }
        let Some(contact) = self.common.streams.authenticate(stream, hello) else { return };
        self.common.out.counters.stream_proven += 1;
        if contact.addr.port() != 0 {
            self.common.out.event(TransferEvent::Peer { contact, leaf: hello.is_leaf(), alive: true });
        }
        self.everything_changed();
    }

    /// A node could not be reached, or another node answered at its address.
    fn unreachable(&mut self, now: Instant, contact: Contact) {
        self.common.out.event(TransferEvent::Peer { contact, leaf: false, alive: false });
        if self.common.streams.to(&contact.id).is_none() {
            for download in self.downloads.values_mut() {
                if let Some(source) = download.sources.get_mut(&contact.id) {
                    source.fail(now, &self.common.config.timing);
                }
            }
            self.pushes.unreachable(&contact.id, &mut self.common.out);
            self.inspections.unreachable(&contact.id, &mut self.common.out);
        }
        self.everything_changed();
    }

    /// Releases everything that a closed stream was used for. `blame` tells whether sources of downloads that are still owed
    /// something count this as a failure.
    fn release(&mut self, now: Instant, stream: StreamId, session: Session, blame: bool) {
        for arrival in session.arrivals.values() {
            if let ArrivalStage::Accepted { incoming, .. } | ArrivalStage::Receiving { incoming } =
                arrival.stage
            {
                self.common.out.event(TransferEvent::ArrivalFailed { incoming });
            }
        }
        self.pushes.lost(&session, &mut self.common.out);
        self.inspections.lost(&session, &mut self.common.out);
        self.uploads.forget(stream);
        let Some(peer) = session.peer_id() else {
            if let Some(contact) = session.dialled {
                self.unreachable(now, contact);
            }
            return;
        };
        self.common.streams.disown(&peer, stream);
        self.uploads.take_turns(now, &mut self.common);
        let still_there = self.common.streams.is_connected(&peer);
        let live = session.requests.iter().filter(|(_, request)| !request.cancelled);
        let mut needed = session.questions.values().map(|question| question.download).collect::<Vec<_>>();
        for (&number, request) in live {
            needed.push(request.download);
            let Some(download) = self.downloads.get_mut(&request.download) else { continue };
            if let (Part::Chunk(index), Phase::Chunks(chunks)) = (request.part, &mut download.phase) {
                chunks.release(index, stream, number);
            }
        }
        for (id, download) in &mut self.downloads {
            if !download.sources.contains_key(&peer) {
                continue;
            }
            download.forget_holdings(&peer);
            let source = download.sources.get_mut(&peer).expect("it was just there");
            if still_there {
                continue;
            }
            match (needed.contains(id), blame) {
                (true, true) => source.fail(now, &self.common.config.timing),
                (true, false) => source.retry_at = now,
                (false, _) => source.retry_at = now + source.ask_delay,
            }
        }
        self.everything_changed();
    }
}

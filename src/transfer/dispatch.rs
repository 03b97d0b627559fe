//! Dispatch: from an input of the driver, or from a frame of a peer, to the wing that it is for, and from the end of a stream to all
//! that it was used for.
//!
//! [`Transfer::settle`] defines the order: what has happened is told to every wing before the wings go on.

use super::common::Closed;
use super::downloads::receive::Announced;
use super::downloads::swarm;
use super::events::{PushError, StreamOutput, TransferEvent};
use super::replicas::{inbound, possession};
use super::streams::close::CloseReason;
use super::streams::session::{Collected, Purpose, UNREAD_BYTES_MAX};
use super::uploads::serve;
use super::{Pieces, Transfer, reports};
use crate::id::Key;
use crate::identity::Identity;
use crate::io::{DialId, DiskError, StreamId};
use crate::time::Instant;
use crate::wire::Refused;
use crate::wire::contact::{Contact, canonical};
use crate::wire::frame::{Frame, Hello, Parsed, StreamKeys};
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
        if self.common.streams.tried(dial) {
            self.common.out.outputs.push_back(StreamOutput::Close { stream });
            return self.common.out.event(TransferEvent::Tried { dial, connected: true });
        }
        match self.common.streams.dialled(dial) {
            Some(contact) => self.open(now, stream, contact.addr, Some(contact), identity),
            None => self.common.out.outputs.push_back(StreamOutput::Close { stream }),
        }
        self.settle(now);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId) {
        if self.common.streams.tried(dial) {
            return self.common.out.event(TransferEvent::Tried { dial, connected: false });
        }
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
        for sending in session.outgoing.sending.drain(..) {
            self.common.out.uploaded += u64::from(sending.length);
            if let Some(push) = sending.push {
                self.pushes.sent(now, push, &self.common.config.timing);
            }
        }
        self.uploads.send_next(now, stream, &mut self.common);
        swarm::tell_more(stream, &mut self.common);
        self.uploads.take_turns(now, &mut self.common);
        self.settle(now);
        self.uploads.look_up(now, pieces, &mut self.common);
    }

    /// The driver could not read content that it was told to send. Its length was announced, so the stream is closed.
    pub fn handle_send_failed(&mut self, now: Instant, stream: StreamId, error: &DiskError) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let sending = core::mem::take(&mut session.outgoing.sending);
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
        self.common.broke(stream);
        self.settle(now);
    }

    /// Content arrived on a stream and went into its sink.
    pub fn handle_progress(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.progress(now, bytes);
        if let Some(peer) = session.peer_id() {
            self.uploads.given(now, peer, bytes);
        }
        if let Some(download) = session.downloading() {
            self.downloads.note_progress(now, download);
        }
    }

    /// Content from a file left on a stream. This is no progress on what the other end owes.
    pub fn handle_sent(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        if let Some(session) = self.common.streams.get_mut(&stream) {
            session.sent(now, bytes);
            if let Some(peer) = session.peer_id() {
                self.uploads.taken(now, peer, bytes);
            }
        }
    }

    /// A sink is full, and its content has this hash; or writing failed.
    pub fn handle_sunk(&mut self, now: Instant, stream: StreamId, result: Result<Key, DiskError>) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some((purpose, length)) = session.end_sink(now) else { return };
        self.common.out.downloaded += u64::from(length);
        match purpose {
            Purpose::Request(number) => {
                self.downloads.sunk(now, stream, number, result, &mut self.common);
            }
            Purpose::Arrival(number) => inbound::sunk(now, stream, number, result, &mut self.common),
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
        self.proofs.expire(now, &mut self.pushes, &mut self.common);
        self.uploads.choke(now, &mut self.common);
        self.uploads.take_turns(now, &mut self.common);
        if core::mem::take(&mut self.common.streams.crowded) {
            // A dial that still finds no room sets `crowded` again.
            self.common.unsettled.streams = true;
        }
        self.downloads.wake(now);
        if self.common.blame.has_ended(now) {
            self.downloads.review_bans(now, &mut self.common);
        }
        self.settle(now);
    }
}

impl Transfer {
    /// Tells the wings what has happened, and lets them do what follows, until nothing is left.
    pub(in crate::transfer) fn settle(&mut self, now: Instant) {
        loop {
            self.release_closed(now);
            if let Some(ban) = self.common.unsettled.bans.pop_front() {
                self.downloads.review_bans(now, &mut self.common);
                if ban.file.is_none() {
                    self.common.shun(&ban.peer.id);
                }
            } else if core::mem::take(&mut self.common.unsettled.streams) {
                self.downloads.note_change();
                self.pushes.note_change();
                self.inspections.note_change();
                self.proofs.note_change();
            } else if self.downloads.pump_next(now, &mut self.common) {
                // Each may close streams, so each is pumped on its own.
            } else if self.pushes.pump(now, &mut self.common)
                || self.inspections.pump(now, &mut self.common)
                || self.proofs.pump(now, &mut self.pushes, &mut self.common)
            {
                // The same holds for these.
            } else if self.common.streams.crowded && self.make_room(now) {
                self.common.streams.crowded = false;
            } else {
                return;
            }
        }
    }

    /// Closes a stream, and releases everything that it was used for.
    pub(in crate::transfer) fn drop_stream(&mut self, now: Instant, stream: StreamId, reason: CloseReason) {
        self.common.close(stream, reason);
        self.release_closed(now);
    }

    fn release_closed(&mut self, now: Instant) {
        while let Some(closed) = self.common.unsettled.closed.pop_front() {
            self.release(now, closed);
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
        let end = (identity, self.common.rng.bytes());
        let replaced = self.common.streams.open(
            now,
            stream,
            (remote, dialled),
            end,
            &self.common.config,
            &mut self.common.out,
        );
        if let Some(replaced) = replaced {
            // The driver broke its contract and used a number twice. State of the first stream is discarded.
            debug_assert!(false, "stream number used twice");
            self.release(now, Closed { stream, session: replaced, blames_peer: false });
        }
    }

    fn take_bytes(
        &mut self,
        now: Instant,
        stream: StreamId,
        bytes: &[u8],
        identity: &Identity,
        pieces: &mut dyn Pieces,
    ) -> usize {
        let Some(session) = self.common.streams.get_mut(&stream) else { return bytes.len() };
        if session.ending {
            return bytes.len();
        }
        if let Some((used, piece)) = session.collect(now, bytes) {
            self.common.out.downloaded += used as u64;
            if let Some(piece) = piece {
                self.collected(now, stream, piece);
            }
            return used;
        }
        match session.parse(bytes) {
            Ok(Parsed::Frame(frame, used)) => {
                session.last_active = now;
                self.handle_frame(now, stream, &frame, identity, pieces);
                used
            }
            Ok(Parsed::Incomplete) => 0,
            Err(refused) => {
                let reason = match refused {
                    Refused::Mac => CloseReason::Tampered,
                    refused => CloseReason::Malformed(refused),
                };
                self.drop_stream(now, stream, reason);
                bytes.len()
            }
        }
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        stream: StreamId,
        frame: &Frame<'_>,
        identity: &Identity,
        pieces: &mut dyn Pieces,
    ) {
        let Some(session) = self.common.streams.heard_on(stream) else { return };
        if session.unread > UNREAD_BYTES_MAX {
            return self.drop_stream(now, stream, CloseReason::Unread);
        }
        if session.handshake.is_some() {
            return match self.common.streams.shake_hands(stream, frame, identity, &mut self.common.out) {
                Ok(Some((hello, keys))) => self.authenticated(now, stream, &hello, keys),
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
            Frame::Have { question, bitmap } => {
                self.downloads.on_have(now, stream, question, &bitmap, common)
            }
            Frame::Block { request, content, length, mode } => {
                let block = Announced { request, content, length, mode };
                self.downloads.on_block(now, stream, block, common)
            }
            // A refusal answers an offer or a request of this end: their numbers are from one sequence.
            Frame::Refuse { request, reason } if common.is_offer(stream, request) => {
                self.pushes.on_refuse(now, stream, request, reason, common)
            }
            Frame::Refuse { request, reason } => {
                self.downloads.on_refuse(now, stream, request, reason, common)
            }
            Frame::Store { request, offer } => {
                inbound::on_store(now, stream, request, &offer, pieces, common)
            }
            Frame::Accept { request, have } => {
                let queued = self.pushes.on_accept(now, stream, request, have, &mut self.proofs, common);
                if let Ok(true) = queued {
                    self.uploads.send_next(now, stream, common);
                }
                queued.map(|_| ())
            }
            Frame::StoreData { request, length } => {
                inbound::on_store_data(now, stream, request, length, pieces, common)
            }
            Frame::Stored { request } => {
                self.pushes.on_stored(now, stream, request, &mut self.proofs, common)
            }
            Frame::Challenge { question, key, nonce } => {
                self.proofs.on_challenge(stream, question, (key, nonce), pieces, common)
            }
            Frame::Possession { question, proof } => {
                self.proofs.on_possession(now, stream, question, proof, &mut self.pushes, common)
            }
            Frame::Inspect { question, keys } => {
                possession::on_inspect(stream, question, keys, pieces, common)
            }
            Frame::Inspected { question, entries } => {
                self.inspections.on_inspected(stream, question, entries, common)
            }
            Frame::Follow { file, over } => {
                self.downloads.on_follow(now, stream, (file, over), common);
                Ok(())
            }
            Frame::Gained { file, chunks } => self.downloads.on_gained(stream, file, chunks, common),
            Frame::Sources { file, contacts } => {
                self.downloads.on_sources(now, stream, file, contacts, common);
                Ok(())
            }
            Frame::Unverified { key } => {
                reports::on_unverified(now, stream, key, common);
                Ok(())
            }
        };
        if let Err(reason) = handled {
            self.drop_stream(now, stream, reason);
        }
    }

    /// A piece that is collected in memory is complete.
    fn collected(&mut self, now: Instant, stream: StreamId, piece: Collected) {
        let Collected { purpose, content, mode, bytes } = piece;
        let common = &mut self.common;
        match purpose {
            Purpose::Request(number) => {
                self.downloads.root_collected(now, stream, number, (content, mode), bytes, common);
            }
            Purpose::Arrival(number) => inbound::collected(now, stream, number, bytes, common),
        }
    }

    fn authenticated(&mut self, now: Instant, stream: StreamId, hello: &Hello, keys: StreamKeys) {
        let id = hello.public.node_id();
        if self.is_shunned(now, &id) {
            return self.drop_stream(now, stream, CloseReason::Shunned);
        }
        if let Some(surplus) = self.common.streams.surplus_of(&id) {
            self.drop_stream(now, surplus, CloseReason::Surplus);
        }
        let Some(contact) = self.common.streams.authenticate(stream, hello, keys) else { return };
        self.common.out.counters.stream_proven += 1;
        if contact.addr.port() != 0 {
            self.common.out.event(TransferEvent::Peer { contact, leaf: hello.is_leaf(), alive: true });
        }
        self.common.unsettled.streams = true;
    }

    /// A node could not be reached, or another node answered at its address.
    fn unreachable(&mut self, now: Instant, contact: Contact) {
        self.common.out.event(TransferEvent::Peer { contact, leaf: false, alive: false });
        if self.common.streams.to(&contact.id).is_none() {
            self.downloads.unreachable(now, &contact.id, &self.common.config.timing);
            self.pushes.unreachable(&contact.id, &mut self.common.out);
            self.inspections.unreachable(&contact.id, &mut self.common.out);
            self.proofs.unreachable(&contact.id, &mut self.pushes, &mut self.common);
        }
        self.common.unsettled.streams = true;
    }

    /// Releases everything that a closed stream was used for.
    fn release(&mut self, now: Instant, closed: Closed) {
        let Closed { stream, session, .. } = &closed;
        inbound::lost(session, &mut self.common.out);
        self.pushes.lost(session, &mut self.common.out);
        self.inspections.lost(session, &mut self.common.out);
        self.proofs.lost(*stream, session, &mut self.pushes, &mut self.common);
        self.uploads.forget(*stream);
        let Some(peer) = session.peer_id() else {
            if let Some(contact) = session.dialled {
                self.unreachable(now, contact);
            }
            return;
        };
        self.uploads.take_turns(now, &mut self.common);
        let connected = self.common.streams.is_connected(&peer);
        self.downloads.lost(now, &closed, &peer, connected, &self.common.config.timing);
        self.common.unsettled.streams = true;
    }
}

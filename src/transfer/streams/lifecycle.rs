//! The life of streams: accepted or dialled, authenticated, timed out, closed.

use super::close::CloseReason;
use super::handshake::{Handshake, Step};
use super::session::{ArrivalStage, Part, Receiving, Session, UNREAD_BYTES_MAX};
use crate::id::NodeId;
use crate::identity::Identity;
use crate::io::{DialId, StreamId};
use crate::peers::party::Party;
use crate::time::{Duration, Instant};
use crate::transfer::Transfer;
use crate::transfer::downloads::download::Phase;
use crate::transfer::events::{StreamOutput, TransferEvent};
use crate::wire::contact::{Contact, canonical};
use crate::wire::frame::{Frame, Hello, Parsed};
use core::cmp::Reverse;
use core::net::SocketAddr;

/// Streams to one peer. Two nodes that dial each other at the same time have two.
const STREAMS_PER_PEER_MAX: usize = 2;
/// How long a stream must be idle before it may be closed to make room. Short, because a file that is copied to hundreds of
/// nodes goes through all of them; long enough for the other end to send its next request.
pub(in crate::transfer) const UNUSED: Duration = Duration::from_millis(250);

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
        let limits = &self.config.limits;
        let unauthenticated = |session: &&Session| session.handshake.is_some() && session.dialled.is_none();
        if self.streams.values().filter(unauthenticated).count() >= limits.streams_unauthenticated_max {
            if let Some((oldest, _)) =
                self.most_crowded(|session| unauthenticated(&session).then_some(session.opened))
            {
                self.drop_stream(now, oldest, CloseReason::UnauthenticatedDisplaced);
            }
        }
        if self.is_full_of_accepted() && !self.make_room(now) {
            self.share_places(now, remote);
        }
        if self.is_full_of_accepted() {
            self.out.counters.stream_refused += 1;
            self.out.outputs.push_back(StreamOutput::Close { stream });
        } else {
            self.open(now, stream, canonical(remote), None, identity);
        }
        self.settle(now);
    }

    /// An attempt to connect succeeded.
    pub fn handle_connected(&mut self, now: Instant, dial: DialId, stream: StreamId, identity: &Identity) {
        match self.dials.remove(&dial) {
            Some(contact) => self.open(now, stream, contact.addr, Some(contact), identity),
            None => self.out.outputs.push_back(StreamOutput::Close { stream }),
        }
        self.settle(now);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId) {
        if let Some(contact) = self.dials.remove(&dial) {
            self.out.counters.dial_failed += 1;
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
    ) -> usize {
        let used = self.take_bytes(now, stream, bytes, identity);
        self.settle(now);
        used
    }

    /// The stream broke, or the other end closed it.
    pub fn handle_closed(&mut self, now: Instant, stream: StreamId) {
        if let Some(session) = self.streams.remove(&stream) {
            self.out.counters.stream_closed += 1;
            self.release(now, stream, session, true);
        }
        self.settle(now);
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |(&id, session): (&StreamId, &Session)| {
            let (at, reason) = session.deadline(&self.config.timing);
            (at <= now).then_some((id, reason))
        };
        for (stream, reason) in self.streams.iter().filter_map(late).collect::<Vec<_>>() {
            self.drop_stream(now, stream, reason);
        }
        self.time_pushes(now);
        self.time_inspections(now);
        self.choke(now);
        self.take_turns(now);
        if core::mem::take(&mut self.crowded) {
            // A dial that still finds no room sets `crowded` again.
            self.everything_changed();
        }
        for (&id, download) in &mut self.downloads {
            if download.wake.is_some_and(|at| at <= now) {
                download.wake = None;
                self.changed.insert(id);
            }
        }
        if self.blame.has_ended(now) {
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
            } else if core::mem::take(&mut self.pushes_changed) {
                self.pump_pushes(now);
            } else if core::mem::take(&mut self.inspections_changed) {
                self.pump_inspections(now);
            } else if self.crowded && self.make_room(now) {
                self.crowded = false;
            } else {
                return;
            }
        }
    }

    /// A stream opened or closed: that may matter to every download, push and inspection.
    pub(in crate::transfer) fn everything_changed(&mut self) {
        self.changed.extend(self.downloads.keys());
        self.pushes_changed = true;
        self.inspections_changed = true;
    }

    /// The stream that is used for a peer: the one that was authenticated first.
    pub(in crate::transfer) fn stream_to(&self, peer: &NodeId) -> Option<StreamId> {
        self.peers.get(peer).and_then(|streams| streams.first()).copied()
    }

    /// Whether a stream to this peer is being dialled, or dialled and not authenticated yet.
    pub(in crate::transfer) fn is_dialling(&self, peer: &NodeId) -> bool {
        let expected = |session: &Session| session.handshake.is_some().then_some(session.dialled).flatten();
        self.dials.values().any(|contact| contact.id == *peer)
            || self.streams.values().filter_map(expected).any(|contact| contact.id == *peer)
    }

    /// Connects to a node unless a stream to it exists or is being dialled. False when there is no room.
    pub(in crate::transfer) fn dial(&mut self, now: Instant, contact: Contact) -> bool {
        if self.stream_to(&contact.id).is_some() || self.is_dialling(&contact.id) {
            return true;
        }
        if self.is_full() {
            self.crowded = true;
            return false;
        }
        self.next_dial += 1;
        let dial = DialId(self.next_dial);
        self.dials.insert(dial, contact);
        let until = now + self.config.timing.dial;
        self.out.outputs.push_back(StreamOutput::Connect { dial, contact, until });
        true
    }

    /// Closes a stream.
    pub(in crate::transfer) fn drop_stream(&mut self, now: Instant, stream: StreamId, reason: CloseReason) {
        if let Some(session) = self.streams.remove(&stream) {
            *self.out.counters.closed(reason) += 1;
            self.out.outputs.push_back(StreamOutput::Close { stream });
            self.release(now, stream, session, reason.blames_peer());
        }
    }

    pub(in crate::transfer) fn is_over_full(&self) -> bool {
        self.streams.len() + self.dials.len() > self.config.limits.streams_max
    }

    fn is_full(&self) -> bool {
        self.streams.len() + self.dials.len() >= self.config.limits.streams_max
    }

    /// Whether accepted streams have all their places. A quarter of all places is kept for the streams that this node dials.
    fn is_full_of_accepted(&self) -> bool {
        let most = self.config.limits.streams_max - self.config.limits.streams_max / 4;
        let accepted = self.streams.values().filter(|session| session.dialled.is_none()).count();
        self.is_full() || accepted >= most
    }

    /// Frees a place for a new stream when every place is taken: the party with the most accepted streams gives one up, unless
    /// the newcomer's party would then have more than it.
    fn share_places(&mut self, now: Instant, remote: SocketAddr) {
        let accepted = |session: &Session| session.dialled.is_none().then_some(session.last_active);
        let crowd = self.most_crowded(accepted);
        let party = Party::host(remote.ip());
        let theirs =
            self.streams.values().filter(|s| accepted(s).is_some() && Party::host(s.remote.ip()) == party);
        if let Some((stream, _)) = crowd.filter(|(_, count)| *count > theirs.count() + 1) {
            self.drop_stream(now, stream, CloseReason::Crowded);
        }
    }

    /// Considers the streams for which `age` returns an instant. Returns the oldest stream of the party that has most of them, and
    /// how many it has.
    fn most_crowded(&self, age: impl Fn(&Session) -> Option<Instant>) -> Option<(StreamId, usize)> {
        let some =
            || self.streams.iter().filter_map(|(&id, s)| Some((id, Party::host(s.remote.ip()), age(s)?)));
        let count = |party: Party| some().filter(|(_, other, _)| *other == party).count();
        let crowds = some().map(|(id, party, age)| (count(party), Reverse(age), id));
        crowds.max().map(|(count, _, id)| (id, count))
    }

    /// Closes the authenticated stream that has been idle longest, if that is at least [`UNUSED`].
    pub(in crate::transfer) fn make_room(&mut self, now: Instant) -> bool {
        let unused = self
            .streams
            .iter()
            .filter(|(_, session)| session.is_displaceable() && session.last_active + UNUSED <= now);
        let oldest = unused.min_by_key(|(_, session)| session.last_active).map(|(&id, _)| id);
        if let Some(stream) = oldest {
            self.drop_stream(now, stream, CloseReason::Displaced);
        }
        oldest.is_some()
    }

    fn open(
        &mut self,
        now: Instant,
        stream: StreamId,
        remote: SocketAddr,
        dialled: Option<Contact>,
        identity: &Identity,
    ) {
        match dialled {
            Some(_) => self.out.counters.stream_connected += 1,
            None => self.out.counters.stream_accepted += 1,
        }
        self.own = Some(identity.id());
        let (network, nonce) = (self.network.id(), self.rng.bytes());
        let hello = Hello::new(network, identity.public(), nonce, self.config.port, self.config.leaf);
        let handshake = Handshake::new(dialled.is_some(), hello);
        let mut session = Session::new(now, remote, dialled, handshake);
        self.out.write(stream, &mut session, &Frame::Hello(&hello));
        if let Some(replaced) = self.streams.insert(stream, session) {
            // The driver broke its contract and used a number twice. State of the first stream is discarded.
            debug_assert!(false, "stream number used twice");
            self.release(now, stream, replaced, false);
        }
    }

    fn take_bytes(&mut self, now: Instant, stream: StreamId, bytes: &[u8], identity: &Identity) -> usize {
        let Some(session) = self.streams.get_mut(&stream) else { return bytes.len() };
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
                self.out.downloaded += used as u64;
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
                self.out.downloaded += used as u64;
                used
            }
            Receiving::Frames => match Frame::parse(bytes) {
                Ok(Parsed::Frame(frame, used)) => {
                    session.last_active = now;
                    self.handle_frame(now, stream, &frame, identity);
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

    fn handle_frame(&mut self, now: Instant, stream: StreamId, frame: &Frame<'_>, identity: &Identity) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        if session.unread > UNREAD_BYTES_MAX {
            return self.drop_stream(now, stream, CloseReason::Unread);
        }
        if let Some(handshake) = &mut session.handshake {
            let expected = session.dialled.map(|contact| contact.id);
            return match handshake.handle(frame, &self.network, identity, expected.as_ref()) {
                Ok(Step::Prove(signature)) => {
                    self.out.write(stream, session, &Frame::Proof { signature: &signature });
                }
                Ok(Step::Authenticated(hello)) => self.authenticated(now, stream, &hello),
                Err(error) => self.drop_stream(now, stream, CloseReason::Handshake(error)),
            };
        }
        match *frame {
            Frame::Hello(_) | Frame::Proof { .. } => self.violated(now, stream),
            Frame::Request { request, key } => self.on_request(now, stream, request, key),
            Frame::Cancel { request } => self.on_cancel(now, stream, request),
            Frame::Which { question, keys } => self.on_which(now, stream, question, keys),
            Frame::Have { question, bitmap } => self.on_have(now, stream, question, &bitmap),
            Frame::Block { request, content, length, mode } => {
                self.on_block(now, stream, request, (content, length), mode);
            }
            Frame::Refuse { request, reason } => self.on_refuse(now, stream, request, reason),
            Frame::Store { request, offer } => self.on_store(now, stream, request, &offer),
            Frame::Accept { request, have } => self.on_accept(now, stream, request, have),
            Frame::StoreData { request, length } => self.on_store_data(now, stream, request, length),
            Frame::Stored { request } => self.on_stored(now, stream, request),
            Frame::Inspect { question, keys } => self.on_inspect(now, stream, question, keys),
            Frame::Inspected { question, entries } => self.on_inspected(now, stream, question, entries),
            Frame::Follow { file, over } => self.on_follow(now, stream, file, over),
            Frame::Gained { file, chunks } => self.on_gained(now, stream, file, chunks),
            Frame::Sources { file, contacts } => self.on_sources(now, stream, file, contacts),
            Frame::Unverified { key } => self.on_unverified(now, stream, key),
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
        let streams = self.peers.get(&id).map(Vec::as_slice).unwrap_or_default();
        if streams.len() >= STREAMS_PER_PEER_MAX {
            // The peer may have lost its end of the older ones, so the newest stays.
            let active = |stream: &&StreamId| self.streams.get(stream).map(|session| session.last_active);
            if let Some(quietest) = streams.iter().min_by_key(active).copied() {
                self.drop_stream(now, quietest, CloseReason::Surplus);
            }
        }
        let Some(session) = self.streams.get_mut(&stream) else { return };
        // A dialled node listens where it was dialled. One that connected says in its hello on which port it listens.
        let addr = session.dialled.map(|contact| contact.addr);
        let addr = addr.unwrap_or_else(|| SocketAddr::new(session.remote.ip(), hello.port.get()));
        let contact = Contact::new(hello.public, addr);
        (session.handshake, session.peer) = (None, Some(contact));
        self.peers.entry(id).or_default().push(stream);
        self.out.counters.stream_proven += 1;
        if addr.port() != 0 {
            self.out.event(TransferEvent::Peer { contact, leaf: hello.is_leaf(), alive: true });
        }
        self.everything_changed();
    }

    /// A node could not be reached, or another node answered at its address.
    fn unreachable(&mut self, now: Instant, contact: Contact) {
        self.out.event(TransferEvent::Peer { contact, leaf: false, alive: false });
        if self.stream_to(&contact.id).is_none() {
            for download in self.downloads.values_mut() {
                if let Some(source) = download.sources.get_mut(&contact.id) {
                    source.fail(now, &self.config.timing);
                }
            }
            self.pushes_unreachable(&contact.id);
            self.inspections_unreachable(&contact.id);
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
                self.out.event(TransferEvent::ArrivalFailed { incoming });
            }
        }
        self.pushes_lost(&session);
        self.inspections_lost(&session);
        self.slots.forget(stream);
        let Some(peer) = session.peer_id() else {
            if let Some(contact) = session.dialled {
                self.unreachable(now, contact);
            }
            return;
        };
        if let Some(streams) = self.peers.get_mut(&peer) {
            streams.retain(|other| *other != stream);
            if streams.is_empty() {
                self.peers.remove(&peer);
            }
        }
        self.take_turns(now);
        let still_there = self.peers.contains_key(&peer);
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
                (true, true) => source.fail(now, &self.config.timing),
                (true, false) => source.retry_at = now,
                (false, _) => source.retry_at = now + source.ask_delay,
            }
        }
        self.everything_changed();
    }
}

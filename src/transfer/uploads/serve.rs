//! Serving: the pieces that peers request, one after the other, and their questions which pieces are here.

use super::slots::Slots;
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::events::StreamOutput;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Item, Lookup, Sending};
use crate::transfer::{Bytes, Common, Located, Pieces};
use crate::wire::frame::{Frame, Refusal, WHICH_KEYS_MAX};
use std::collections::VecDeque;

/// What peers request from this node, and in which order they get it.
pub(in crate::transfer) struct Uploads {
    slots: Slots,
    /// Requests whose piece is to be looked up now, each with its stream and number.
    due: VecDeque<(StreamId, u32, Key)>,
}

impl Uploads {
    /// Uploads under a limit of `rate` bytes per second; 0 is unlimited.
    pub(in crate::transfer) fn with_rate(rate: u64) -> Uploads {
        Uploads { slots: Slots::with_rate(rate), due: VecDeque::new() }
    }

    pub(in crate::transfer) fn set_rate(&mut self, rate: u64) {
        self.slots.rate = rate;
    }

    /// A peer sent content.
    pub(in crate::transfer) fn given(&mut self, now: Instant, peer: NodeId, bytes: u64) {
        self.slots.given(now, peer, bytes);
    }

    /// Content was sent to a peer.
    pub(in crate::transfer) fn taken(&mut self, now: Instant, peer: NodeId, bytes: u64) {
        self.slots.taken(now, peer, bytes);
    }

    /// A stream closed.
    pub(in crate::transfer) fn forget(&mut self, stream: StreamId) {
        self.slots.forget(stream);
    }

    /// When, with time alone, a slot becomes free or a stream has waited too long.
    pub(in crate::transfer) fn next_deadline(&self, common: &Common) -> Option<Instant> {
        let config = &common.config;
        self.slots.next_turn(&common.streams, config.limits.uploads_max, config.timing.choke)
    }

    /// A peer requests a piece.
    pub(in crate::transfer) fn on_request(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        key: Key,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let most = common.config.limits.requests_per_stream_max;
        let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
        if session.wanted(request).is_some() {
            return Err(CloseReason::Unexpected);
        }
        if session.requests_waiting() >= most {
            common.out.counters.request_busy += 1;
            common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Busy });
            return Ok(());
        }
        session.queue.push_back(Item::Wanted { request, key, lookup: Lookup::Waiting });
        self.send_next(now, stream, common);
        Ok(())
    }

    /// A cancelled request is answered, too, so that both ends agree on what is still to come. If its block is on the way, that is
    /// the answer.
    pub(in crate::transfer) fn on_cancel(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        common: &mut Common,
    ) {
        let Some(session) = common.streams.get_mut(&stream) else { return };
        if let Some(position) = session.wanted(request) {
            session.queue.remove(position);
            common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::NotFound });
            self.send_next(now, stream, common);
        }
    }

    /// Whether pieces are to be looked up now.
    pub(in crate::transfer) fn has_lookups(&self) -> bool {
        !self.due.is_empty()
    }

    /// Looks up the pieces that are due, and sends or refuses them. It is the last step of an input, after slots have been
    /// assigned: a stream whose piece is found must not take the slot of one that waits.
    pub(in crate::transfer) fn look_up(
        &mut self,
        now: Instant,
        pieces: &mut dyn Pieces,
        common: &mut Common,
    ) {
        while let Some((stream, request, key)) = self.due.pop_front() {
            let found = pieces.locate(&key);
            self.found(now, stream, request, found, common);
        }
    }

    fn found(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        found: Result<Located, Refusal>,
        common: &mut Common,
    ) {
        let Some(session) = common.streams.get_mut(&stream) else { return };
        let Some(position) = session.wanted(request) else { return };
        match (found, session.queue.get_mut(position)) {
            (Ok(found), Some(Item::Wanted { lookup, .. })) => *lookup = Lookup::Found(found),
            (Ok(_), _) => {}
            (Err(reason), _) => {
                session.queue.remove(position);
                common.out.counters.request_refused += 1;
                common.out.write(stream, session, &Frame::Refuse { request, reason });
            }
        }
        self.send_next(now, stream, common);
    }

    /// Hands the driver the next content for a stream while the driver has fewer than two blocks of it and the stream has a slot.
    /// Enters the following pieces for [`look_up`](Uploads::look_up).
    pub(in crate::transfer) fn send_next(&mut self, now: Instant, stream: StreamId, common: &mut Common) {
        let turn = self.slots.has_turn(now, stream, &common.streams, common.config.limits.uploads_max);
        let Some(session) = common.streams.get_mut(&stream) else { return };
        let mut handed = 0;
        while let Some(item) = if turn { session.next_item() } else { None } {
            session.last_active = now;
            handed += item.length();
            let (frame, extent, push) = match item {
                Item::Wanted { request, key, lookup: Lookup::Found(Located { content, mode, bytes }) } => {
                    let extent = match bytes {
                        Bytes::File(extent) => extent,
                        Bytes::Memory(bytes) => {
                            let length = bytes.len() as u32;
                            let block = Frame::Block { request, content, length, mode };
                            common.out.write(stream, session, &block);
                            session.send(now, Sending { place: None, length, push: None });
                            common.out.outputs.push_back(StreamOutput::Write { stream, bytes });
                            continue;
                        }
                    };
                    session.sent.push(key);
                    (Frame::Block { request, content, length: extent.length, mode }, extent, None)
                }
                Item::Wanted { .. } => unreachable!("only what was found is next"),
                Item::Push { request, push, extent } => {
                    (Frame::StoreData { request, length: extent.length }, extent, Some(push))
                }
            };
            common.out.write(stream, session, &frame);
            session.send(now, Sending { place: Some(extent.place.clone()), length: extent.length, push });
            if extent.length > 0 {
                common.out.outputs.push_back(StreamOutput::SendFile { stream, extent });
            }
        }
        let Some(from) = session.peer_id() else { return };
        for (request, key) in session.lookups() {
            self.due.push_back((stream, request, key));
        }
        if handed > 0 {
            self.slots.charge(now, from, handed);
        }
    }

    /// Assigns the slots that have become free.
    pub(in crate::transfer) fn take_turns(&mut self, now: Instant, common: &mut Common) {
        self.slots.review(now, &common.streams);
        while let Some(first) = self.slots.first(&common.streams) {
            self.send_next(now, first, common);
            if self.slots.is_waiting(first) {
                return;
            }
        }
    }

    /// Refuses, as busy, the requests that have waited too long. Accepted offers of this node go on waiting.
    pub(in crate::transfer) fn choke(&mut self, now: Instant, common: &mut Common) {
        for stream in self.slots.late(now, common.config.timing.choke) {
            let Some(session) = common.streams.get_mut(&stream) else { continue };
            let mut choked = Vec::new();
            session.queue.retain(|item| match item {
                Item::Wanted { request, .. } => {
                    choked.push(*request);
                    false
                }
                Item::Push { .. } => true,
            });
            for request in choked {
                common.out.counters.request_choked += 1;
                common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Busy });
            }
        }
    }
}

/// A peer asks which of these pieces are here: bit `i` of the answer (of byte `i / 8`, lowest bit first) is for piece `i`.
pub(in crate::transfer) fn on_which(
    stream: StreamId,
    question: u32,
    keys: &[Key],
    pieces: &dyn Pieces,
    common: &mut Common,
) -> Result<(), CloseReason> {
    let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
    if keys.is_empty() || keys.len() > WHICH_KEYS_MAX {
        return Err(CloseReason::Unexpected);
    }
    let mut bitmap = [0; WHICH_KEYS_MAX / 8];
    for (index, _) in keys.iter().enumerate().filter(|(_, key)| pieces.has(key)) {
        bitmap[index / 8] |= 1 << (index % 8);
    }
    common.out.write(stream, session, &Frame::Have { question, bitmap });
    Ok(())
}

//! Serving: the pieces that peers request, one after the other, and their questions which pieces are here.

use super::slots::Slots;
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::events::StreamOutput;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::outgoing::{Item, Lookup, Sending};
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
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        if session.outgoing.wanted(request).is_some() {
            return Err(CloseReason::Unexpected);
        }
        if session.requests_waiting() >= most {
            common.out.counters.request_busy += 1;
            common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Busy });
            return Ok(());
        }
        session.outgoing.queue.push_back(Item::Wanted { request, key, lookup: Lookup::Waiting });
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
        let Some(session) = common.streams.heard_on(stream) else { return };
        if let Some(position) = session.outgoing.wanted(request) {
            session.outgoing.queue.remove(position);
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
        let Some(position) = session.outgoing.wanted(request) else { return };
        match (found, session.outgoing.queue.get_mut(position)) {
            (Ok(found), Some(Item::Wanted { lookup, .. })) => *lookup = Lookup::Found(found),
            (Ok(_), _) => {}
            (Err(reason), _) => {
                session.outgoing.queue.remove(position);
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
        while let Some(item) = if turn { session.outgoing.next_item() } else { None } {
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
        for (request, key) in session.outgoing.lookups() {
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
            session.outgoing.queue.retain(|item| match item {
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
    let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Extent, Place};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::time::Duration;
    use crate::transfer::Transfer;
    use crate::transfer::testing::{NOW, OnePiece, connected, stream};

    const KEY: Key = Key([1; 32]);

    /// The pieces of a node that has every requested piece.
    fn all() -> OnePiece {
        let extent = Extent { place: Place::Piece(KEY), offset: 0, length: 9, stamp: None };
        OnePiece(Some((Content::File, extent)))
    }

    fn machine(peers: u8, uploads_max: usize) -> Transfer {
        connected(peers, Limits { uploads_max, ..Limits::default() })
    }

    /// A peer requests a piece, which is looked up at once.
    fn request(machine: &mut Transfer, peer: u8, number: u32) {
        let Transfer { uploads, common, .. } = machine;
        assert_eq!(uploads.on_request(NOW, stream(peer), number, KEY, common), Ok(()));
        uploads.look_up(NOW, &mut all(), common);
    }

    /// The streams to which content was handed since the last call, in order.
    fn handed(machine: &mut Transfer) -> Vec<StreamId> {
        let content = |output| match output {
            StreamOutput::SendFile { stream, .. } => Some(stream),
            _ => None,
        };
        machine.common.outputs().into_iter().filter_map(content).collect()
    }

    /// All content that a stream was handed has left.
    fn drain(machine: &mut Transfer, peer: u8) {
        let Transfer { uploads, common, .. } = machine;
        common.streams.get_mut(&stream(peer)).unwrap().outgoing.sending.clear();
        uploads.send_next(NOW, stream(peer), common);
        uploads.take_turns(NOW, common);
        uploads.look_up(NOW, &mut all(), common);
    }

    #[test]
    fn a_requested_piece_is_sent_from_its_file() {
        let mut machine = machine(1, 4);
        request(&mut machine, 1, 1);
        assert_eq!(handed(&mut machine), [stream(1)]);
        assert!(!machine.uploads.has_lookups());
    }

    #[test]
    fn a_piece_that_is_not_here_is_refused() {
        let Transfer { mut uploads, mut common, .. } = machine(1, 4);
        assert_eq!(uploads.on_request(NOW, stream(1), 1, KEY, &mut common), Ok(()));
        uploads.look_up(NOW, &mut OnePiece::default(), &mut common);
        assert_eq!(common.out.counters.request_refused, 1);
        assert!(common.streams.get(&stream(1)).unwrap().outgoing.queue.is_empty());
    }

    #[test]
    fn the_driver_has_at_most_two_blocks_of_a_stream() {
        let mut machine = machine(1, 4);
        (1..=5).for_each(|number| request(&mut machine, 1, number));
        assert_eq!(handed(&mut machine).len(), 2);
        drain(&mut machine, 1);
        assert_eq!(handed(&mut machine).len(), 2);
        drain(&mut machine, 1);
        assert_eq!(handed(&mut machine).len(), 1);
    }

    #[test]
    fn a_request_that_was_cancelled_before_its_piece_was_found_is_not_sent() {
        let Transfer { mut uploads, mut common, .. } = machine(1, 4);
        assert_eq!(uploads.on_request(NOW, stream(1), 1, KEY, &mut common), Ok(()));
        assert!(uploads.has_lookups());
        uploads.on_cancel(NOW, stream(1), 1, &mut common);
        uploads.look_up(NOW, &mut all(), &mut common);
        assert!(!common.outputs().iter().any(|output| matches!(output, StreamOutput::SendFile { .. })));
        assert!(common.streams.get(&stream(1)).unwrap().outgoing.queue.is_empty());
    }

    #[test]
    fn the_number_of_an_open_request_must_not_be_used_again() {
        let Transfer { mut uploads, mut common, .. } = machine(1, 4);
        assert_eq!(uploads.on_request(NOW, stream(1), 1, KEY, &mut common), Ok(()));
        let again = uploads.on_request(NOW, stream(1), 1, KEY, &mut common);
        assert_eq!(again, Err(CloseReason::Unexpected));
    }

    #[test]
    fn requests_beyond_the_bound_of_a_stream_are_refused_as_busy() {
        let limits = Limits { requests_per_stream_max: 3, ..Limits::default() };
        let Transfer { mut uploads, mut common, .. } = connected(1, limits);
        for number in 1..=5 {
            assert_eq!(uploads.on_request(NOW, stream(1), number, KEY, &mut common), Ok(()));
        }
        assert_eq!(common.out.counters.request_busy, 2);
        assert_eq!(common.streams.get(&stream(1)).unwrap().outgoing.queue.len(), 3);
    }

    #[test]
    fn a_peer_without_a_slot_is_served_when_the_other_has_its_content() {
        let mut machine = machine(2, 1);
        request(&mut machine, 1, 1);
        request(&mut machine, 2, 1);
        assert_eq!(handed(&mut machine), [stream(1)], "the second waits");
        drain(&mut machine, 1);
        assert_eq!(handed(&mut machine), [stream(2)]);
    }

    #[test]
    fn a_peer_that_waits_too_long_for_a_slot_is_told_that_this_node_is_busy() {
        let mut machine = machine(2, 1);
        request(&mut machine, 1, 1);
        request(&mut machine, 2, 1);
        let Transfer { uploads, common, .. } = &mut machine;
        let patience = common.config.timing.choke;
        assert!(uploads.next_deadline(common).is_some_and(|due| due <= NOW + patience));
        uploads.choke(NOW + patience - Duration::from_millis(1), common);
        assert_eq!(common.out.counters.request_choked, 0);
        uploads.choke(NOW + patience, common);
        assert_eq!(common.out.counters.request_choked, 1);
        drain(&mut machine, 1);
        assert_eq!(handed(&mut machine), [stream(1)], "the refused request is not served any more");
    }

    #[test]
    fn a_slow_peer_loses_its_slot_to_one_that_waits() {
        let mut machine = machine(2, 1);
        request(&mut machine, 1, 1);
        request(&mut machine, 2, 1);
        let Transfer { uploads, common, .. } = &mut machine;
        let due = uploads.next_deadline(common).expect("the slot ends, or the second peer has waited");
        uploads.take_turns(due, common);
        assert_eq!(handed(&mut machine), [stream(1), stream(2)]);
    }

    #[test]
    fn a_question_without_keys_or_with_too_many_is_a_violation() {
        let Transfer { mut common, .. } = machine(1, 1);
        let ask = |keys: &[Key], common: &mut Common| on_which(stream(1), 1, keys, &all(), common);
        assert_eq!(ask(&[], &mut common), Err(CloseReason::Unexpected));
        assert_eq!(ask(&[KEY; WHICH_KEYS_MAX + 1], &mut common), Err(CloseReason::Unexpected));
        assert_eq!(ask(&[KEY; WHICH_KEYS_MAX], &mut common), Ok(()));
    }
}

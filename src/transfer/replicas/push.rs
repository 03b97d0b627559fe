//! Copies of pieces to other nodes: offered, sent when accepted, done when the other node has proven that it has them.

use super::outgoing::{Outgoing, Queue, Route};
use super::proof::{For, Proofs};
use crate::id::NodeId;
use crate::io::{Extent, StreamId};
use crate::time::{Duration, Instant};
use crate::transfer::events::{PushError, PushId, PushOutcome, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::outgoing::Item;
use crate::transfer::streams::session::Session;
use crate::transfer::{Common, Out, Timing};
use crate::wire::contact::Contact;
use crate::wire::frame::{Frame, Offer, Refusal};

/// Offers to one peer that are not done.
const OFFERS_AHEAD_MAX: usize = 4;

/// A target that has not answered an offer, or has not been reached, after this time is slow.
const SLOW_ANSWER: Duration = Duration::from_secs(2);
/// The same for a target that has accepted the piece: it may have to wait for its disk.
const SLOW_STORE: Duration = Duration::from_secs(5);

/// The copies to other nodes that are under way or queued.
#[derive(Default)]
pub(in crate::transfer) struct Pushes {
    queue: Queue<PushId, Push>,
}

/// A copy to another node.
struct Push {
    target: Contact,
    /// When its stage last changed.
    since: Instant,
    offer: Offer,
    extent: Extent,
    /// Whether the target accepted the offer.
    accepted: bool,
    stage: Stage,
}

/// The stage of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It waits for a stream.
    Queued { due: Instant },
    /// It was offered. `due` is `None` while its content is being sent: then the stream's own deadlines apply.
    Offered { stream: StreamId, due: Option<Instant> },
    /// The target says that it has the piece: it is challenged to prove it, and the challenge's own deadlines apply.
    Proving,
}

impl Outgoing for Push {
    fn target(&self) -> Contact {
        self.target
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Queued { .. })
    }
}

impl Push {
    /// When it ends as failed.
    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Queued { due } => Some(due),
            Stage::Offered { due, .. } => due,
            Stage::Proving => None,
        }
    }

    fn enter(&mut self, now: Instant, stage: Stage) {
        (self.stage, self.since) = (stage, now);
    }

    /// The target owes an answer from now on.
    fn wait(&mut self, now: Instant, timing: &Timing) {
        if let Stage::Offered { due, .. } = &mut self.stage {
            *due = Some(now + timing.answer);
            self.since = now;
        }
    }
}

impl Pushes {
    #[cfg(test)]
    pub(in crate::transfer) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the next copy ends as failed, or its stream as silent.
    pub(in crate::transfer) fn next_deadline(&self) -> Option<Instant> {
        self.queue.values().filter_map(Push::deadline).min()
    }

    /// Whether nothing has been heard from a copy's target for a while, although the target owes something. A copy may then be made
    /// elsewhere; this one goes on until its deadline.
    pub(in crate::transfer) fn is_slow(&self, now: Instant, push: PushId, common: &Common) -> bool {
        let Some(push) = self.queue.get(push) else { return false };
        let session = common.streams.session_to(&push.target.id);
        // Other copies and answers on the same stream are signs of life, and so is content that leaves.
        let moved = session.map(|session| match push.stage {
            Stage::Offered { due: None, .. } => session.last_active,
            _ => session.received_at,
        });
        let heard = moved.map_or(push.since, |moved| moved.max(push.since));
        let patience = match push.stage {
            Stage::Queued { .. } => SLOW_ANSWER,
            Stage::Offered { due: Some(_), .. } if !push.accepted => SLOW_ANSWER,
            Stage::Offered { .. } | Stage::Proving => SLOW_STORE,
        };
        heard + patience <= now
    }

    /// Whether a copy to this node is slow: see [`is_slow`](Pushes::is_slow).
    pub(in crate::transfer) fn is_target_slow(&self, now: Instant, target: &NodeId, common: &Common) -> bool {
        let theirs = self.queue.ids(|push| push.target.id == *target);
        theirs.into_iter().any(|push| self.is_slow(now, push, common))
    }

    /// Something changed that may let a waiting copy proceed.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.queue.note_change();
    }

    /// Queues a copy. False when too many are under way, or one with this number.
    pub(in crate::transfer) fn queue(
        &mut self,
        now: Instant,
        push: PushId,
        target: Contact,
        (offer, extent): (Offer, Extent),
        common: &Common,
    ) -> bool {
        let stage = Stage::Queued { due: now + common.config.timing.push };
        let copy = Push { target, since: now, offer, extent, accepted: false, stage };
        self.queue.add(push, copy, common.config.limits.pushes_max)
    }

    /// Offers the copies that wait for a stream, or dials their targets. False when nothing has changed for them.
    pub(in crate::transfer) fn pump(&mut self, now: Instant, common: &mut Common) -> bool {
        let Some(waiting) = self.queue.take_due() else { return false };
        for id in waiting {
            match self.queue.route(now, id, common) {
                Route::Stream(stream) => self.offer(now, id, stream, common),
                Route::Shunned => self.end(id, Err(PushError::Unreachable), &mut common.out),
                Route::Waits => {}
            }
        }
        true
    }

    fn offer(&mut self, now: Instant, id: PushId, stream: StreamId, common: &mut Common) {
        let (Some(session), Some(push)) = (common.streams.get_mut(&stream), self.queue.get_mut(id)) else {
            return debug_assert!(false, "a route leads from a copy to an open stream");
        };
        if session.pushes.len() >= OFFERS_AHEAD_MAX {
            return;
        }
        let request = session.number();
        session.pushes.insert(request, id);
        push.enter(now, Stage::Offered { stream, due: Some(now + common.config.timing.answer) });
        common.out.write(stream, session, &Frame::Store { request, offer: push.offer });
    }

    /// The target accepted an offer, or has the piece (`have`). Returns whether content was queued for the stream.
    pub(in crate::transfer) fn on_accept(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        have: bool,
        proofs: &mut Proofs,
        common: &mut Common,
    ) -> Result<bool, CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(false) };
        session.answered(now);
        let id = session.pushes.get(&request).copied();
        let push = id.and_then(|id| Some((id, self.queue.get_mut(id)?)));
        let (id, push) = push.ok_or(CloseReason::Unexpected)?;
        // A second answer to the same offer violates the protocol.
        if session.accepted.contains(&request) {
            return Err(CloseReason::Unexpected);
        }
        if have {
            session.pushes.remove(&request);
            self.challenge(now, id, PushOutcome::Had, proofs, common);
            return Ok(false);
        }
        session.accepted.insert(request);
        push.accepted = true;
        push.enter(now, Stage::Offered { stream, due: None });
        session.outgoing.queue.push_back(Item::Push { request, push: id, extent: push.extent.clone() });
        Ok(true)
    }

    /// The target made a piece durable.
    pub(in crate::transfer) fn on_stored(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        proofs: &mut Proofs,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        session.answered(now);
        let on_its_way = session.outgoing.queue.iter().any(|item| item.is_push(request));
        if on_its_way || !session.accepted.remove(&request) {
            return Err(CloseReason::Unexpected);
        }
        if let Some(id) = session.pushes.remove(&request) {
            self.challenge(now, id, PushOutcome::Stored, proofs, common);
        }
        self.wait_longer(now, stream, &common.config.timing);
        Ok(())
    }

    /// The target says that it has a piece on disk: that counts once it is proven. The next copy may be offered meanwhile.
    fn challenge(
        &mut self,
        now: Instant,
        id: PushId,
        outcome: PushOutcome,
        proofs: &mut Proofs,
        common: &mut Common,
    ) {
        let Some(push) = self.queue.get_mut(id) else { return };
        push.enter(now, Stage::Proving);
        let piece = (push.offer.key, push.extent.clone());
        proofs.begin(now, For::Push(id, outcome), push.target, piece, common);
        self.queue.note_change();
    }

    /// The target refused a piece, before or after its content.
    pub(in crate::transfer) fn on_refuse(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        reason: Refusal,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        session.answered(now);
        if session.outgoing.queue.iter().any(|item| item.is_push(request)) {
            return Err(CloseReason::Unexpected);
        }
        let sent = session.accepted.remove(&request);
        let peer = session.peer_id();
        if let Some(id) = session.pushes.remove(&request) {
            let key = self.queue.get(id).map(|push| push.offer.key);
            // Other content arrived at the target than was offered: the copy here is suspect.
            if let (Some(peer), Some(key), true, Refusal::Mismatch) = (peer, key, sent, reason) {
                common.out.counters.report_received += 1;
                common.out.event(TransferEvent::Reported { peer, key });
            }
            self.end(id, Err(PushError::Refused(reason)), &mut common.out);
        }
        self.wait_longer(now, stream, &common.config.timing);
        Ok(())
    }

    /// The content of a copy has left: the target owes an answer from now on.
    pub(in crate::transfer) fn sent(&mut self, now: Instant, push: PushId, timing: &Timing) {
        if let Some(push) = self.queue.get_mut(push) {
            push.wait(now, timing);
        }
    }

    /// The target makes pieces durable one after the other, so each that is done extends the deadline of the rest.
    fn wait_longer(&mut self, now: Instant, stream: StreamId, timing: &Timing) {
        for push in self.queue.values_mut() {
            if matches!(push.stage, Stage::Offered { stream: its, due: Some(_) } if its == stream) {
                push.wait(now, timing);
            }
        }
    }

    /// The copies whose deadline has passed.
    pub(in crate::transfer) fn late(&self, now: Instant) -> Vec<PushId> {
        self.queue.ids(|push| push.deadline().is_some_and(|due| due <= now))
    }

    /// Ends a late copy that waits for a stream. Returns the stream of one that was offered: it is to be closed, which ends the
    /// copy. Also `None` when the copy has ended, together with the stream of another.
    pub(in crate::transfer) fn expire(&mut self, push: PushId, out: &mut Out) -> Option<StreamId> {
        match self.queue.get(push)?.stage {
            Stage::Queued { .. } => {
                self.end(push, Err(PushError::Unreachable), out);
                None
            }
            Stage::Offered { stream, .. } => Some(stream),
            Stage::Proving => None,
        }
    }

    /// A node could not be reached.
    pub(in crate::transfer) fn unreachable(&mut self, peer: &NodeId, out: &mut Out) {
        let theirs = self.queue.waiting_for(peer);
        theirs.into_iter().for_each(|id| self.end(id, Err(PushError::Unreachable), out));
    }

    /// A stream closed: the copies that were offered over it end.
    pub(in crate::transfer) fn lost(&mut self, session: &Session, out: &mut Out) {
        session.pushes.values().for_each(|&id| self.end(id, Err(PushError::Lost), out));
    }

    pub(in crate::transfer) fn end(
        &mut self,
        push: PushId,
        result: Result<PushOutcome, PushError>,
        out: &mut Out,
    ) {
        if let Some(done) = self.queue.remove(push) {
            match result {
                Ok(_) => out.counters.push_done += 1,
                Err(_) => out.counters.push_failed += 1,
            }
            out.event(TransferEvent::PushDone { push, target: done.target.id, result });
            // The peer may be offered the next copy.
            self.queue.note_change();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, PublicKey};
    use crate::io::{Mode, Place};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::transfer::testing::{connected, peer, stream};
    use crate::transfer::{Transfer, TransferConfig};
    use crate::wire::network::Network;

    const NOW: Instant = Instant::from_secs(100);

    fn common(pushes_max: usize) -> Common {
        let limits = Limits { pushes_max, ..Limits::default() };
        Common::new(TransferConfig::new(limits, false, 1), Network::new("test"), [0; 32])
    }

    fn target(seed: u8) -> Contact {
        Contact::new(PublicKey([seed; 32]), ([127, 0, 0, 1], 1).into())
    }

    fn piece() -> (Offer, Extent) {
        let offer = Offer {
            key: Key([7; 32]),
            content: Content::File,
            length: 5,
            input_offset: 0,
            replicas: 3,
            lifetime: 9,
            mode: Mode::UNKNOWN,
            claim: None,
        };
        (offer, Extent { place: Place::Piece(Key([7; 32])), offset: 0, length: 5, stamp: None })
    }

    fn done(common: &mut Common) -> Vec<(PushId, Result<PushOutcome, PushError>)> {
        let ended = common.out.events.drain(..).filter_map(|event| match event {
            TransferEvent::PushDone { push, result, .. } => Some((push, result)),
            _ => None,
        });
        ended.collect()
    }

    #[test]
    fn a_copy_dials_its_target_and_ends_as_unreachable_when_that_takes_too_long() {
        let (mut pushes, mut common) = (Pushes::default(), common(4));
        assert!(pushes.queue(NOW, PushId(1), target(1), piece(), &common));
        assert!(pushes.pump(NOW, &mut common) && !pushes.pump(NOW, &mut common));
        assert!(common.streams.is_dialling(&target(1).id));
        let due = pushes.next_deadline().expect("the copy waits");
        assert_eq!(pushes.late(due - Duration::from_millis(1)), []);
        assert_eq!(pushes.late(due), [PushId(1)]);
        assert_eq!(pushes.expire(PushId(1), &mut common.out), None, "there is no stream to close");
        assert_eq!(done(&mut common), [(PushId(1), Err(PushError::Unreachable))]);
        assert_eq!(pushes.len(), 0);
        assert_eq!(pushes.next_deadline(), None);
    }

    #[test]
    fn a_target_that_is_not_reached_or_does_not_answer_soon_is_slow() {
        let Transfer { mut pushes, mut common, .. } = connected(1, Limits::default());
        for (number, seed) in [(1, 1), (2, 9)] {
            assert!(pushes.queue(NOW, PushId(number), peer(seed), piece(), &common));
        }
        pushes.pump(NOW, &mut common);
        for push in [PushId(1), PushId(2)] {
            let slow = |after| pushes.is_slow(NOW + after, push, &common);
            assert!(!slow(SLOW_ANSWER - Duration::from_millis(1)));
            assert!(slow(SLOW_ANSWER));
        }
        assert!(!pushes.is_slow(NOW + SLOW_ANSWER, PushId(3), &common), "there is no such copy");
        let later = NOW + SLOW_ANSWER;
        common.streams.get_mut(&stream(1)).unwrap().answered(later);
        assert!(!pushes.is_slow(later, PushId(1), &common), "it answered something else");
    }

    #[test]
    fn a_target_that_accepted_a_piece_may_take_longer_to_store_it() {
        let Transfer { mut pushes, mut proofs, mut common, .. } = connected(1, Limits::default());
        assert!(pushes.queue(NOW, PushId(1), peer(1), piece(), &common));
        pushes.pump(NOW, &mut common);
        let request = *common.streams.get(&stream(1)).unwrap().pushes.keys().next().unwrap();
        pushes.on_accept(NOW, stream(1), request, false, &mut proofs, &mut common).unwrap();
        let sent = NOW + SLOW_STORE;
        common.streams.get_mut(&stream(1)).unwrap().last_active = sent;
        assert!(!pushes.is_slow(sent, PushId(1), &common), "content is leaving");
        pushes.sent(sent, PushId(1), &common.config.timing);
        assert!(!pushes.is_slow(sent + SLOW_ANSWER, PushId(1), &common));
        assert!(pushes.is_slow(sent + SLOW_STORE, PushId(1), &common));
    }

    #[test]
    fn an_unreachable_node_ends_only_the_copies_to_it() {
        let (mut pushes, mut common) = (Pushes::default(), common(4));
        for number in 1..=2 {
            assert!(pushes.queue(NOW, PushId(number.into()), target(number), piece(), &common));
        }
        pushes.unreachable(&target(1).id, &mut common.out);
        assert_eq!(done(&mut common), [(PushId(1), Err(PushError::Unreachable))]);
        assert_eq!(pushes.len(), 1);
    }

    #[test]
    fn copies_are_bounded_in_number_and_each_number_is_used_once() {
        let (mut pushes, common) = (Pushes::default(), common(2));
        assert!(pushes.queue(NOW, PushId(1), target(1), piece(), &common));
        assert!(!pushes.queue(NOW, PushId(1), target(1), piece(), &common));
        assert!(pushes.queue(NOW, PushId(2), target(1), piece(), &common));
        assert!(!pushes.queue(NOW, PushId(3), target(1), piece(), &common));
    }
}

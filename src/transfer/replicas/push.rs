//! Copies of pieces to other nodes: offered, sent when accepted, done when the other node has proven that it has them.

use super::outgoing::{Outgoing, Queue, Route};
use super::proof::{For, Proofs};
use crate::id::NodeId;
use crate::io::{Extent, StreamId};
use crate::time::Instant;
use crate::transfer::events::{PushError, PushId, PushOutcome, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Item, Session};
use crate::transfer::{Common, Out, Timing};
use crate::wire::contact::Contact;
use crate::wire::frame::{Frame, Offer, Refusal};

/// Offers to one peer that are not done.
const OFFERS_AHEAD_MAX: usize = 4;

/// The copies to other nodes that are under way or queued.
#[derive(Default)]
pub(in crate::transfer) struct Pushes {
    queue: Queue<PushId, Push>,
}

/// A copy to another node.
struct Push {
    target: Contact,
    offer: Offer,
    extent: Extent,
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

    /// The target owes an answer from now on.
    fn wait(&mut self, now: Instant, timing: &Timing) {
        if let Stage::Offered { due, .. } = &mut self.stage {
            *due = Some(now + timing.answer);
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

    /// Something changed that may let a waiting copy proceed.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.queue.note_change();
    }

    /// Whether something changed since the last call: then [`pump`](Pushes::pump) is due.
    pub(in crate::transfer) fn take_change(&mut self) -> bool {
        self.queue.take_change()
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
        self.queue.add(push, Push { target, offer, extent, stage }, common.config.limits.pushes_max)
    }

    /// Offers the copies that wait for a stream, or dials their targets.
    pub(in crate::transfer) fn pump(&mut self, now: Instant, common: &mut Common) {
        for id in self.queue.ids(Push::is_waiting) {
            match self.queue.route(now, id, common) {
                Route::Stream(stream) => self.offer(now, id, stream, common),
                Route::Shunned => self.end(id, Err(PushError::Unreachable), &mut common.out),
                Route::Waits => {}
            }
        }
    }

    fn offer(&mut self, now: Instant, id: PushId, stream: StreamId, common: &mut Common) {
        let (Some(session), Some(push)) = (common.streams.get_mut(&stream), self.queue.get_mut(id)) else {
            return;
        };
        if session.pushes.len() >= OFFERS_AHEAD_MAX {
            return;
        }
        let request = session.number();
        session.pushes.insert(request, id);
        push.stage = Stage::Offered { stream, due: Some(now + common.config.timing.answer) };
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
        push.stage = Stage::Offered { stream, due: None };
        session.queue.push_back(Item::Push { request, push: id, extent: push.extent.clone() });
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
        let on_its_way = session.queue.iter().any(|item| item.is_push(request));
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
        push.stage = Stage::Proving;
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
        if session.queue.iter().any(|item| item.is_push(request)) {
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
    use crate::time::Duration;
    use crate::transfer::TransferConfig;
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
        assert!(pushes.take_change() && !pushes.take_change());
        pushes.pump(NOW, &mut common);
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

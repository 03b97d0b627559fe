//! Copies of pieces to other nodes: offered, sent when accepted, done when they are durable there.

use crate::id::NodeId;
use crate::io::{Extent, StreamId};
use crate::time::Instant;
use crate::transfer::events::{PushError, PushId, PushOutcome, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Item, Session};
use crate::transfer::{Timing, Transfer};
use crate::wire::contact::Contact;
use crate::wire::frame::{Frame, Offer, Refusal};

/// Offers to one peer that are not done.
const OFFERS_AHEAD_MAX: usize = 4;

/// A copy to another node.
pub(in crate::transfer) struct Push {
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
}

impl Push {
    /// When it ends as failed.
    pub(in crate::transfer) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Queued { due } => Some(due),
            Stage::Offered { due, .. } => due,
        }
    }

    /// The target owes an answer from now on.
    pub(in crate::transfer) fn wait(&mut self, now: Instant, timing: &Timing) {
        if let Stage::Offered { due, .. } = &mut self.stage {
            *due = Some(now + timing.answer);
        }
    }
}

/// Copies.
impl Transfer {
    /// Copies a piece, all of which is in `extent`, to a node. False when too many copies are under way, or one with this number;
    /// else [`TransferEvent::PushDone`] tells how it ended.
    pub fn push(
        &mut self,
        now: Instant,
        push: PushId,
        target: Contact,
        offer: Offer,
        extent: Extent,
    ) -> bool {
        debug_assert_eq!(offer.length, extent.length, "a piece is offered and sent whole");
        if self.pushes.len() >= self.config.limits.pushes_max || self.pushes.contains_key(&push) {
            return false;
        }
        let stage = Stage::Queued { due: now + self.config.timing.push };
        self.pushes.insert(push, Push { target, offer, extent, stage });
        self.pushes_changed = true;
        self.settle(now);
        true
    }
}

impl Transfer {
    /// Offers the copies that wait for a stream, or dials their targets.
    pub(in crate::transfer) fn pump_pushes(&mut self, now: Instant) {
        let queued: Vec<PushId> = self
            .pushes
            .iter()
            .filter(|(_, push)| matches!(push.stage, Stage::Queued { .. }))
            .map(|(&id, _)| id)
            .collect();
        for id in queued {
            let Some(push) = self.pushes.get(&id) else { continue };
            let target = push.target;
            match self.streams.to(&target.id) {
                Some(stream) => self.offer(now, id, stream),
                None if self.is_shunned(now, &target.id) => {
                    self.push_done(id, Err(PushError::Unreachable));
                }
                // Without room the copy waits until there is some, or its deadline passes.
                None => _ = self.streams.dial(now, target, &self.config, &mut self.out),
            }
        }
    }

    fn offer(&mut self, now: Instant, id: PushId, stream: StreamId) {
        let (Some(session), Some(push)) = (self.streams.get_mut(&stream), self.pushes.get_mut(&id)) else {
            return;
        };
        if session.pushes.len() >= OFFERS_AHEAD_MAX {
            return;
        }
        let request = session.number();
        session.pushes.insert(request, id);
        push.stage = Stage::Offered { stream, due: Some(now + self.config.timing.answer) };
        self.out.write(stream, session, &Frame::Store { request, offer: push.offer });
    }

    pub(in crate::transfer) fn on_accept(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        have: bool,
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        session.answered(now);
        let id = session.pushes.get(&request).copied();
        let Some((id, push)) = id.and_then(|id| Some((id, self.pushes.get_mut(&id)?))) else {
            return self.violated(now, stream);
        };
        // A second answer to the same offer violates the protocol.
        if session.accepted.contains(&request) {
            return self.violated(now, stream);
        }
        if have {
            session.pushes.remove(&request);
            return self.push_done(id, Ok(PushOutcome::Had));
        }
        session.accepted.insert(request);
        push.stage = Stage::Offered { stream, due: None };
        session.queue.push_back(Item::Push { request, push: id, extent: push.extent.clone() });
        self.send_next(now, stream);
    }

    pub(in crate::transfer) fn on_stored(&mut self, now: Instant, stream: StreamId, request: u32) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        session.answered(now);
        let on_its_way = session.queue.iter().any(|item| item.is_push(request));
        if on_its_way || !session.accepted.remove(&request) {
            return self.violated(now, stream);
        }
        if let Some(id) = session.pushes.remove(&request) {
            self.push_done(id, Ok(PushOutcome::Stored));
        }
        self.wait_longer(now, stream);
    }

    /// The target refused the piece, before or after its content.
    pub(in crate::transfer) fn push_refused(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        reason: Refusal,
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        session.answered(now);
        if session.queue.iter().any(|item| item.is_push(request)) {
            return self.violated(now, stream);
        }
        let sent = session.accepted.remove(&request);
        let peer = session.peer_id();
        if let Some(id) = session.pushes.remove(&request) {
            let key = self.pushes.get(&id).map(|push| push.offer.key);
            // Other content arrived at the target than was offered: the copy here is suspect.
            if let (Some(peer), Some(key), true, Refusal::Mismatch) = (peer, key, sent, reason) {
                self.out.counters.report_received += 1;
                self.out.event(TransferEvent::Reported { peer, key });
            }
            self.push_done(id, Err(PushError::Refused(reason)));
        }
        self.wait_longer(now, stream);
    }

    /// The target makes pieces durable one after the other, so each that is done extends the deadline of the rest.
    fn wait_longer(&mut self, now: Instant, stream: StreamId) {
        let timing = &self.config.timing;
        for push in self.pushes.values_mut() {
            if matches!(push.stage, Stage::Offered { stream: its, due: Some(_) } if its == stream) {
                push.wait(now, timing);
            }
        }
    }

    /// Ends the copies whose deadline has passed.
    pub(in crate::transfer) fn time_pushes(&mut self, now: Instant) {
        let late = |push: &Push| push.deadline().is_some_and(|due| due <= now);
        let late: Vec<PushId> =
            self.pushes.iter().filter(|(_, push)| late(push)).map(|(&id, _)| id).collect();
        for id in late {
            match self.pushes.get(&id).map(|push| push.stage) {
                Some(Stage::Queued { .. }) => self.push_done(id, Err(PushError::Unreachable)),
                Some(Stage::Offered { stream, .. }) => self.drop_stream(now, stream, CloseReason::PushSilent),
                // It ended together with the stream of the copy before.
                None => {}
            }
        }
    }

    pub(in crate::transfer) fn pushes_unreachable(&mut self, peer: &NodeId) {
        let theirs = |push: &Push| push.target.id == *peer && matches!(push.stage, Stage::Queued { .. });
        let theirs: Vec<PushId> =
            self.pushes.iter().filter(|(_, push)| theirs(push)).map(|(&id, _)| id).collect();
        theirs.into_iter().for_each(|id| self.push_done(id, Err(PushError::Unreachable)));
    }

    /// The stream that these copies were offered over closed.
    pub(in crate::transfer) fn pushes_lost(&mut self, session: &Session) {
        session.pushes.values().for_each(|&id| self.push_done(id, Err(PushError::Lost)));
    }

    pub(in crate::transfer) fn push_done(&mut self, push: PushId, result: Result<PushOutcome, PushError>) {
        if let Some(done) = self.pushes.remove(&push) {
            match result {
                Ok(_) => self.out.counters.push_done += 1,
                Err(_) => self.out.counters.push_failed += 1,
            }
            self.out.event(TransferEvent::PushDone { push, target: done.target.id, result });
            // The peer may be offered the next copy.
            self.pushes_changed = true;
        }
    }
}

//! Proofs of possession: challenges to holders, and this node's answers to challenges.
//!
//! A copy counts after its holder has proven that it has the bytes on disk: after a push, and before a surplus copy is dropped. Both
//! ends read the same few leaves, so each challenge costs two short reads and a round trip; the challenge waits for neither
//! downloads nor uploads. A holder that answers wrongly, or not in time, has not proven anything. Nothing is held against it: its
//! disk may rot, or the piece may have expired.

use super::outgoing::{Outgoing, Queue, Route, Wait};
use super::push::Pushes;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, Extent, StreamId};
use crate::time::Instant;
use crate::transfer::events::{ProofId, PushError, PushId, PushOutcome, SampleId, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::Session;
use crate::transfer::{Common, Pieces, Timing};
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::possession::{Nonce, Proof, proof, selected};
use std::collections::BTreeMap;

/// Challenges of this node that follow no push, at a time.
const ASKED_MAX: usize = 64;
/// Unanswered challenges to one peer.
const CHALLENGES_AHEAD_MAX: usize = 8;
/// Unanswered challenges of one peer.
const CHALLENGED_MAX: usize = 16;

const _: () = assert!(CHALLENGES_AHEAD_MAX <= CHALLENGED_MAX, "an honest peer stays below the bound");

/// What a challenge is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum For {
    /// A copy that was just made, or that the target says that it had.
    Push(PushId, PushOutcome),
    /// A question of the node.
    Node(ProofId),
}

/// The challenges that are under way, in both directions.
#[derive(Default)]
pub(in crate::transfer) struct Proofs {
    challenges: Queue<SampleId, Challenge>,
    /// The challenges of peers whose leaves are being read.
    answers: BTreeMap<SampleId, Answer>,
    last: u64,
}

/// A challenge to another node.
struct Challenge {
    purpose: For,
    target: Contact,
    key: Key,
    nonce: Nonce,
    /// The leaves of this node's own copy; `None` while they are read.
    sample: Option<Vec<u8>>,
    /// The proof that it gave.
    given: Option<Proof>,
    wait: Wait,
}

/// A challenge of a peer.
struct Answer {
    stream: StreamId,
    question: u32,
    key: Key,
    nonce: Nonce,
}

impl Outgoing for Challenge {
    fn target(&self) -> Contact {
        self.target
    }

    fn is_waiting(&self) -> bool {
        self.wait.is_for_stream()
    }
}

impl Challenge {
    /// Whether the target has proven to this node that it has the piece; `None` while something is missing for the decision.
    fn result(&self, own: &NodeId) -> Option<Result<(), PushError>> {
        let (sample, given) = (self.sample.as_ref()?, self.given?);
        let expected = proof(&self.nonce, &self.target.id, own, &self.key, sample);
        Some(if expected == given { Ok(()) } else { Err(PushError::Unproven) })
    }
}

impl Proofs {
    #[cfg(test)]
    pub(in crate::transfer) fn len(&self) -> usize {
        self.challenges.len() + self.answers.len()
    }

    /// When the next challenge ends without a proof.
    pub(in crate::transfer) fn next_deadline(&self, timing: &Timing) -> Option<Instant> {
        self.challenges.values().map(|challenge| challenge.wait.deadline(timing)).min()
    }

    /// Something changed that may let a waiting challenge proceed.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.challenges.note_change();
    }

    /// Whether one more challenge may begin for the node.
    pub(in crate::transfer) fn has_room(&self) -> bool {
        self.challenges.ids(|challenge| matches!(challenge.purpose, For::Node(_))).len() < ASKED_MAX
    }

    /// Challenges a node about a piece, of which this node's own copy is in `extent`. Pushes are bounded, and so are the challenges
    /// that follow them.
    pub(in crate::transfer) fn begin(
        &mut self,
        now: Instant,
        purpose: For,
        target: Contact,
        (key, extent): (Key, Extent),
        common: &mut Common,
    ) {
        let nonce = common.rng.bytes();
        let sample = self.next_sample();
        let wait = Wait::Stream { since: now };
        let challenge = Challenge { purpose, target, key, nonce, sample: None, given: None, wait };
        self.challenges.add(sample, challenge, usize::MAX);
        let runs = selected(&nonce, extent.length);
        common.out.event(TransferEvent::SampleNeeded { sample, extent, runs });
    }

    fn next_sample(&mut self) -> SampleId {
        self.last += 1;
        SampleId(self.last)
    }

    /// Sends the challenges that wait for a stream, or dials their targets. False when nothing has changed for them.
    pub(in crate::transfer) fn pump(
        &mut self,
        now: Instant,
        pushes: &mut Pushes,
        common: &mut Common,
    ) -> bool {
        let Some(waiting) = self.challenges.take_due() else { return false };
        for id in waiting {
            match self.challenges.route(now, id, common) {
                Route::Stream(stream) => self.send(now, id, stream, common),
                Route::Shunned => self.end(id, Err(PushError::Unreachable), pushes, common),
                Route::Waits => {}
            }
        }
        true
    }

    fn send(&mut self, now: Instant, id: SampleId, stream: StreamId, common: &mut Common) {
        let (Some(session), Some(challenge)) = (common.streams.get_mut(&stream), self.challenges.get_mut(id))
        else {
            return debug_assert!(false, "a route leads from a challenge to an open stream");
        };
        if session.challenges.len() >= CHALLENGES_AHEAD_MAX {
            return;
        }
        let question = session.number();
        session.challenges.insert(question, id);
        challenge.wait = Wait::Answer { since: now };
        session.last_active = now;
        let (key, nonce) = (challenge.key, challenge.nonce);
        common.out.write(stream, session, &Frame::Challenge { question, key, nonce });
    }

    /// A peer answered a challenge of this node.
    pub(in crate::transfer) fn on_possession(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        given: Option<Proof>,
        pushes: &mut Pushes,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        let id = session.challenges.remove(&question).ok_or(CloseReason::Unexpected)?;
        session.answered(now);
        // The peer may be sent the next challenge.
        self.challenges.note_change();
        // An answer may come after its challenge has ended.
        let Some(challenge) = self.challenges.get_mut(id) else { return Ok(()) };
        challenge.given = given;
        match given {
            Some(_) => self.decide(id, pushes, common),
            None => self.end(id, Err(PushError::Unproven), pushes, common),
        }
        Ok(())
    }

    /// A peer challenges this node.
    pub(in crate::transfer) fn on_challenge(
        &mut self,
        stream: StreamId,
        question: u32,
        (key, nonce): (Key, Nonce),
        pieces: &dyn Pieces,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        if session.challenged.len() >= CHALLENGED_MAX || !session.challenged.insert(question) {
            return Err(CloseReason::Unexpected);
        }
        common.out.counters.proof_asked += 1;
        match pieces.kept(&key) {
            Some(extent) => {
                let sample = self.next_sample();
                let runs = selected(&nonce, extent.length);
                self.answers.insert(sample, Answer { stream, question, key, nonce });
                common.out.event(TransferEvent::SampleNeeded { sample, extent, runs });
            }
            None => answer(stream, question, None, common),
        }
        Ok(())
    }

    /// The leaves of a [`TransferEvent::SampleNeeded`] were read, or cannot be.
    pub(in crate::transfer) fn sampled(
        &mut self,
        sample: SampleId,
        result: Result<Vec<u8>, DiskError>,
        pushes: &mut Pushes,
        common: &mut Common,
    ) {
        if let Some(Answer { stream, question, key, nonce }) = self.answers.remove(&sample) {
            let peer = common.streams.get(&stream).and_then(Session::peer_id);
            let ends = common.streams.own().zip(peer);
            let shown = result.ok().zip(ends);
            let shown = shown.map(|(bytes, (own, peer))| proof(&nonce, &own, &peer, &key, &bytes));
            return answer(stream, question, shown, common);
        }
        let Some(challenge) = self.challenges.get_mut(sample) else { return };
        match result {
            Ok(bytes) => {
                challenge.sample = Some(bytes);
                self.decide(sample, pushes, common);
            }
            Err(error) => self.end(sample, Err(PushError::Source(error)), pushes, common),
        }
    }

    /// Ends the challenges whose deadline has passed.
    pub(in crate::transfer) fn expire(&mut self, now: Instant, pushes: &mut Pushes, common: &mut Common) {
        let timing = &common.config.timing;
        for id in self.challenges.ids(|challenge| challenge.wait.deadline(timing) <= now) {
            let waited = self.challenges.get(id).is_some_and(Challenge::is_waiting);
            let error = if waited { PushError::Unreachable } else { PushError::Lost };
            self.end(id, Err(error), pushes, common);
        }
    }

    /// A node could not be reached.
    pub(in crate::transfer) fn unreachable(
        &mut self,
        peer: &NodeId,
        pushes: &mut Pushes,
        common: &mut Common,
    ) {
        let theirs = self.challenges.waiting_for(peer);
        theirs.into_iter().for_each(|id| self.end(id, Err(PushError::Unreachable), pushes, common));
    }

    /// A stream closed: the challenges that were sent over it end, and those of its peer are not answered.
    pub(in crate::transfer) fn lost(
        &mut self,
        stream: StreamId,
        session: &Session,
        pushes: &mut Pushes,
        common: &mut Common,
    ) {
        session.challenges.values().for_each(|&id| self.end(id, Err(PushError::Lost), pushes, common));
        self.answers.retain(|_, answer| answer.stream != stream);
    }

    fn decide(&mut self, id: SampleId, pushes: &mut Pushes, common: &mut Common) {
        let own = common.streams.own();
        let result = self.challenges.get(id).zip(own).and_then(|(challenge, own)| challenge.result(&own));
        if let Some(result) = result {
            self.end(id, result, pushes, common);
        }
    }

    fn end(&mut self, id: SampleId, result: Result<(), PushError>, pushes: &mut Pushes, common: &mut Common) {
        let Some(challenge) = self.challenges.remove(id) else { return };
        match result {
            Ok(()) => common.out.counters.proof_done += 1,
            Err(PushError::Unproven) => common.out.counters.proof_wrong += 1,
            Err(_) => common.out.counters.proof_failed += 1,
        }
        match challenge.purpose {
            For::Push(push, outcome) => pushes.end(push, result.map(|()| outcome), &mut common.out),
            For::Node(proof) => {
                let (target, proven) = (challenge.target.id, result.is_ok());
                common.out.event(TransferEvent::Proven { proof, target, proven });
            }
        }
    }
}

/// Answers a challenge of a peer, if it still waits for the answer.
fn answer(stream: StreamId, question: u32, proof: Option<Proof>, common: &mut Common) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    if session.challenged.remove(&question) {
        common.out.write(stream, session, &Frame::Possession { question, proof });
    }
}

//! Inspections: questions to other nodes about their copies of pieces, and this node's answers.
//!
//! An inspection is one question to one node. It moves no content, so it neither waits for downloads nor delays them. One that
//! is not answered in time ends as lost. Its stream stays open, because content may be on its way before the answer.

use super::outgoing::{Outgoing, Queue, Route, Wait};
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::events::{InspectError, InspectId, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{QUESTIONS_MAX, Session};
use crate::transfer::{Common, Out, Pieces, Timing};
use crate::wire::Refused;
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry, WireInspectEntry};

/// Inspections under way at a time.
pub const INSPECTIONS_MAX: usize = 64;
/// Unanswered inspections of one peer.
const INSPECTIONS_AHEAD_MAX: usize = 4;

/// The inspections that wait for a stream or for their answer.
#[derive(Default)]
pub(in crate::transfer) struct Inspections {
    queue: Queue<InspectId, Inspection>,
}

/// A question to another node.
struct Inspection {
    target: Contact,
    keys: Vec<Key>,
    wait: Wait,
}

impl Outgoing for Inspection {
    fn target(&self) -> Contact {
        self.target
    }

    fn is_waiting(&self) -> bool {
        self.wait.is_for_stream()
    }
}

impl Inspections {
    #[cfg(test)]
    pub(in crate::transfer) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the next inspection ends as unreachable or lost.
    pub(in crate::transfer) fn next_deadline(&self, timing: &Timing) -> Option<Instant> {
        self.queue.values().map(|inspection| inspection.wait.deadline(timing)).min()
    }

    /// Something changed that may let a waiting inspection proceed.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.queue.note_change();
    }

    /// Queues a question. False when too many are under way, or one with this number, or when the number of keys is impossible.
    pub(in crate::transfer) fn queue(
        &mut self,
        now: Instant,
        inspection: InspectId,
        target: Contact,
        keys: Vec<Key>,
    ) -> bool {
        let possible = (1..=INSPECT_KEYS_MAX).contains(&keys.len());
        debug_assert!(possible, "{} keys in one inspection", keys.len());
        let question = Inspection { target, keys, wait: Wait::Stream { since: now } };
        possible && self.queue.add(inspection, question, INSPECTIONS_MAX)
    }

    /// Ends an inspection without an event.
    pub(in crate::transfer) fn forget(&mut self, inspection: InspectId) {
        self.queue.remove(inspection);
    }

    /// Sends the questions that wait for a stream, or dials their targets. False when nothing has changed for them.
    pub(in crate::transfer) fn pump(&mut self, now: Instant, common: &mut Common) -> bool {
        let Some(waiting) = self.queue.take_due() else { return false };
        for id in waiting {
            match self.queue.route(now, id, common) {
                Route::Stream(stream) => self.ask(now, id, stream, common),
                Route::Shunned => self.end(id, Err(InspectError::Unreachable), &mut common.out),
                Route::Waits => {}
            }
        }
        true
    }

    fn ask(&mut self, now: Instant, id: InspectId, stream: StreamId, common: &mut Common) {
        let (Some(session), Some(inspection)) = (common.streams.get_mut(&stream), self.queue.get_mut(id))
        else {
            return debug_assert!(false, "a route leads from an inspection to an open stream");
        };
        if session.inspections.len() >= INSPECTIONS_AHEAD_MAX {
            return;
        }
        let question = session.number();
        session.inspections.insert(question, id);
        inspection.wait = Wait::Answer { since: now };
        session.last_active = now;
        common.out.write(stream, session, &Frame::Inspect { question, keys: &inspection.keys });
    }

    /// A peer answered a question of this node.
    pub(in crate::transfer) fn on_inspected(
        &mut self,
        stream: StreamId,
        question: u32,
        entries: &[WireInspectEntry],
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        let &id = session.inspections.get(&question).ok_or(CloseReason::Unexpected)?;
        let keys = self.queue.get(id).map(|inspection| inspection.keys.len());
        // An answer may arrive after its inspection ended.
        if keys.is_some_and(|keys| keys != entries.len()) {
            return Err(CloseReason::Unexpected);
        }
        // Entries answer keys by their positions: leaving one out would move the others to wrong keys.
        let entries: Option<Vec<InspectEntry>> = entries.iter().map(WireInspectEntry::get).collect();
        let entries = entries.ok_or(CloseReason::Malformed(Refused::Value))?;
        session.inspections.remove(&question);
        self.end(id, Ok(entries), &mut common.out);
        // The peer may be sent the next question.
        self.queue.note_change();
        Ok(())
    }

    /// Ends the inspections whose deadline has passed.
    pub(in crate::transfer) fn expire(&mut self, now: Instant, common: &mut Common) {
        let timing = &common.config.timing;
        for id in self.queue.ids(|inspection| inspection.wait.deadline(timing) <= now) {
            let waited = self.queue.get(id).is_some_and(Inspection::is_waiting);
            let error = if waited { InspectError::Unreachable } else { InspectError::Lost };
            self.end(id, Err(error), &mut common.out);
        }
    }

    /// A node could not be reached.
    pub(in crate::transfer) fn unreachable(&mut self, peer: &NodeId, out: &mut Out) {
        let theirs = self.queue.waiting_for(peer);
        theirs.into_iter().for_each(|id| self.end(id, Err(InspectError::Unreachable), out));
    }

    /// A stream closed: the questions that were sent over it end.
    pub(in crate::transfer) fn lost(&mut self, session: &Session, out: &mut Out) {
        session.inspections.values().for_each(|&id| self.end(id, Err(InspectError::Lost), out));
    }

    fn end(&mut self, inspection: InspectId, result: Result<Vec<InspectEntry>, InspectError>, out: &mut Out) {
        if let Some(ended) = self.queue.remove(inspection) {
            match result {
                Ok(_) => out.counters.inspect_done += 1,
                Err(_) => out.counters.inspect_failed += 1,
            }
            out.event(TransferEvent::Inspected { inspection, target: ended.target.id, result });
        }
    }
}

/// A peer asks this node about its copies.
pub(in crate::transfer) fn on_inspect(
    stream: StreamId,
    question: u32,
    keys: &[Key],
    pieces: &mut dyn Pieces,
    common: &mut Common,
) -> Result<(), CloseReason> {
    let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
    let many = session.inspected.len() >= QUESTIONS_MAX;
    if keys.is_empty() || many || !session.inspected.insert(question) {
        return Err(CloseReason::Unexpected);
    }
    common.out.counters.inspect_asked += 1;
    if let Some(entries) = pieces.inspect(stream, question, keys) {
        answer(stream, question, &entries, common);
    }
    Ok(())
}

/// Sends this node's answer to a peer, if it still waits for one.
pub(in crate::transfer) fn answer(
    stream: StreamId,
    question: u32,
    entries: &[InspectEntry],
    common: &mut Common,
) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    if session.inspected.remove(&question) {
        let entries: Vec<WireInspectEntry> = entries.iter().map(WireInspectEntry::new).collect();
        common.out.write(stream, session, &Frame::Inspected { question, entries: &entries });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Extent, Place};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::time::Duration;
    use crate::transfer::testing::{NOW, OnePiece, connected, peer, stream};
    use crate::transfer::{StreamOutput, Transfer};
    use zerocopy::FromBytes;

    const KEY: Key = Key([1; 32]);

    fn machine() -> (Inspections, Common) {
        let Transfer { inspections, common, .. } = connected(1, Limits::default());
        (inspections, common)
    }

    /// How the inspections ended since the last call: with the number of entries, or without an answer.
    fn ended(common: &mut Common) -> Vec<(u64, Result<usize, InspectError>)> {
        let ended = |event| match event {
            TransferEvent::Inspected { inspection, result, .. } => {
                Some((inspection.0, result.map(|entries| entries.len())))
            }
            _ => None,
        };
        common.events().into_iter().filter_map(ended).collect()
    }

    /// The questions that peer 1 was asked and has not answered.
    fn asked(common: &Common) -> Vec<u32> {
        common.streams.get(&stream(1)).unwrap().inspections.keys().copied().collect()
    }

    fn entries(count: usize) -> Vec<WireInspectEntry> {
        vec![WireInspectEntry::new(&InspectEntry::default()); count]
    }

    #[test]
    fn a_question_dials_its_target_and_ends_as_unreachable_when_that_takes_too_long() {
        let (mut inspections, mut common) = machine();
        assert!(inspections.queue(NOW, InspectId(1), peer(9), vec![KEY]));
        assert!(inspections.pump(NOW, &mut common));
        assert!(common.streams.is_dialling(&peer(9).id));
        let due = inspections.next_deadline(&common.config.timing).expect("it waits for a stream");
        inspections.expire(due - Duration::from_millis(1), &mut common);
        assert_eq!(ended(&mut common), []);
        inspections.expire(due, &mut common);
        assert_eq!(ended(&mut common), [(1, Err(InspectError::Unreachable))]);
        assert_eq!(inspections.len(), 0);
    }

    #[test]
    fn an_answer_must_have_one_entry_for_each_piece() {
        let (mut inspections, mut common) = machine();
        assert!(inspections.queue(NOW, InspectId(1), peer(1), vec![KEY; 2]));
        inspections.pump(NOW, &mut common);
        let question = asked(&common)[0];
        let short = inspections.on_inspected(stream(1), question, &entries(1), &mut common);
        assert_eq!(short, Err(CloseReason::Unexpected));
        let whole = inspections.on_inspected(stream(1), question, &entries(2), &mut common);
        assert_eq!(whole, Ok(()));
        assert_eq!(ended(&mut common), [(1, Ok(2))]);
    }

    #[test]
    fn an_answer_with_an_entry_that_says_nothing_is_refused_as_a_whole() {
        let (mut inspections, mut common) = machine();
        assert!(inspections.queue(NOW, InspectId(1), peer(1), vec![KEY; 3]));
        inspections.pump(NOW, &mut common);
        let question = asked(&common)[0];
        let mut answer = entries(3);
        // An unknown way to hold a piece.
        answer[1] = WireInspectEntry::read_from_bytes(&[9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let odd = inspections.on_inspected(stream(1), question, &answer, &mut common);
        assert_eq!(odd, Err(CloseReason::Malformed(Refused::Value)));
        assert_eq!(ended(&mut common), [], "no entry is taken for that of another piece");
        let whole = inspections.on_inspected(stream(1), question, &entries(3), &mut common);
        assert_eq!(whole, Ok(()));
        assert_eq!(ended(&mut common), [(1, Ok(3))]);
    }

    #[test]
    fn an_answer_to_no_question_is_a_violation() {
        let (mut inspections, mut common) = machine();
        let answer = inspections.on_inspected(stream(1), 77, &entries(1), &mut common);
        assert_eq!(answer, Err(CloseReason::Unexpected));
    }

    #[test]
    fn a_peer_is_asked_the_next_question_when_it_has_answered_one() {
        let (mut inspections, mut common) = machine();
        for number in 1..=INSPECTIONS_AHEAD_MAX as u64 + 1 {
            assert!(inspections.queue(NOW, InspectId(number), peer(1), vec![KEY]));
        }
        inspections.pump(NOW, &mut common);
        let questions = asked(&common);
        assert_eq!(questions.len(), INSPECTIONS_AHEAD_MAX);
        assert!(!inspections.pump(NOW, &mut common));
        assert_eq!(inspections.on_inspected(stream(1), questions[0], &entries(1), &mut common), Ok(()));
        assert!(inspections.pump(NOW, &mut common), "there is one to send");
        assert_eq!(asked(&common).len(), INSPECTIONS_AHEAD_MAX);
    }

    #[test]
    fn a_question_that_is_not_answered_in_time_is_lost_and_its_late_answer_ignored() {
        let (mut inspections, mut common) = machine();
        assert!(inspections.queue(NOW, InspectId(1), peer(1), vec![KEY]));
        inspections.pump(NOW, &mut common);
        let question = asked(&common)[0];
        inspections.expire(NOW + common.config.timing.answer, &mut common);
        assert_eq!(ended(&mut common), [(1, Err(InspectError::Lost))]);
        assert_eq!(inspections.on_inspected(stream(1), question, &entries(1), &mut common), Ok(()));
        assert_eq!(ended(&mut common), []);
    }

    #[test]
    fn the_questions_that_were_sent_over_a_stream_are_lost_with_it() {
        let (mut inspections, mut common) = machine();
        assert!(inspections.queue(NOW, InspectId(1), peer(1), vec![KEY]));
        assert!(inspections.queue(NOW, InspectId(2), peer(9), vec![KEY]));
        inspections.pump(NOW, &mut common);
        common.broke(stream(1));
        let closed = common.unsettled.closed.pop_front().unwrap();
        inspections.lost(&closed.session, &mut common.out);
        assert_eq!(ended(&mut common), [(1, Err(InspectError::Lost))]);
        assert_eq!(inspections.len(), 1, "the other waits for its stream");
    }

    #[test]
    fn inspections_are_bounded_in_number_and_each_number_is_used_once() {
        let (mut inspections, _) = machine();
        for number in 0..INSPECTIONS_MAX as u64 {
            assert!(inspections.queue(NOW, InspectId(number), peer(9), vec![KEY]));
            assert!(!inspections.queue(NOW, InspectId(number), peer(9), vec![KEY]));
        }
        assert!(!inspections.queue(NOW, InspectId(9999), peer(9), vec![KEY]));
        inspections.forget(InspectId(0));
        assert!(inspections.queue(NOW, InspectId(9999), peer(9), vec![KEY]));
    }

    #[test]
    fn questions_of_a_peer_are_bounded_and_each_number_is_open_once() {
        let (_, mut common) = machine();
        let ask = |question, keys: &[Key], common: &mut Common| {
            on_inspect(stream(1), question, keys, &mut OnePiece::default(), common)
        };
        assert_eq!(ask(1, &[], &mut common), Err(CloseReason::Unexpected));
        for question in 1..=QUESTIONS_MAX as u32 {
            assert_eq!(ask(question, &[KEY], &mut common), Ok(()));
        }
        assert_eq!(ask(99, &[KEY], &mut common), Err(CloseReason::Unexpected));
        answer(stream(1), 1, &[InspectEntry::default()], &mut common);
        assert_eq!(ask(2, &[KEY], &mut common), Err(CloseReason::Unexpected));
        assert_eq!(ask(1, &[KEY], &mut common), Ok(()));
    }

    #[test]
    fn a_question_that_needs_no_disk_is_answered_at_once() {
        let (_, mut common) = machine();
        common.outputs();
        let extent = Extent { place: Place::Piece(KEY), offset: 0, length: 9, stamp: None };
        let mut pieces = OnePiece(Some((Content::File, extent)));
        assert_eq!(on_inspect(stream(1), 1, &[KEY], &mut pieces, &mut common), Ok(()));
        assert!(matches!(common.outputs()[..], [StreamOutput::Write { .. }]));
        assert!(common.streams.get(&stream(1)).unwrap().inspected.is_empty());
    }
}

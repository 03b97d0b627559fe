//! Inspections: questions to other nodes about their copies of pieces, and this node's answers.
//!
//! An inspection is one question to one node. It moves no content, so it neither waits for downloads nor delays them. One that
//! is not answered in time ends as lost. Its stream stays open, because content may be on its way before the answer.

use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::events::{InspectError, InspectId, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{QUESTIONS_MAX, Session};
use crate::transfer::{Common, Out, Timing};
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry, WireInspectEntry};
use std::collections::BTreeMap;

/// Inspections under way at a time.
pub const INSPECTIONS_MAX: usize = 64;
/// Unanswered inspections of one peer.
const INSPECTIONS_AHEAD_MAX: usize = 4;

/// The inspections that wait for a stream or for their answer.
#[derive(Default)]
pub(in crate::transfer) struct Inspections {
    under_way: BTreeMap<InspectId, Inspection>,
    /// Whether something changed for the inspections that wait for a stream.
    changed: bool,
}

/// A question to another node.
struct Inspection {
    target: Contact,
    keys: Vec<Key>,
    /// The stream that it was sent over; `None` while it waits for one.
    stream: Option<StreamId>,
    since: Instant,
}

impl Inspection {
    /// When it ends as unreachable or lost.
    fn deadline(&self, timing: &Timing) -> Instant {
        self.since
            + match self.stream {
                None => timing.push,
                Some(_) => timing.answer,
            }
    }
}

impl Inspections {
    #[cfg(test)]
    pub(in crate::transfer) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// When the next inspection ends as unreachable or lost.
    pub(in crate::transfer) fn next_deadline(&self, timing: &Timing) -> Option<Instant> {
        self.under_way.values().map(|inspection| inspection.deadline(timing)).min()
    }

    /// Something changed that may let a waiting inspection proceed.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.changed = true;
    }

    /// Whether something changed since the last call: then [`pump`](Inspections::pump) is due.
    pub(in crate::transfer) fn take_change(&mut self) -> bool {
        core::mem::take(&mut self.changed)
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
        let full = self.under_way.len() >= INSPECTIONS_MAX || self.under_way.contains_key(&inspection);
        if full || !possible {
            return false;
        }
        self.under_way.insert(inspection, Inspection { target, keys, stream: None, since: now });
        self.changed = true;
        true
    }

    /// Ends an inspection without an event.
    pub(in crate::transfer) fn forget(&mut self, inspection: InspectId) {
        self.under_way.remove(&inspection);
    }

    /// Sends the questions that wait for a stream, or dials their targets.
    pub(in crate::transfer) fn pump(&mut self, now: Instant, common: &mut Common) {
        let waiting = self.under_way.iter().filter(|(_, inspection)| inspection.stream.is_none());
        let waiting: Vec<InspectId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            let Some(target) = self.under_way.get(&id).map(|inspection| inspection.target) else {
                continue;
            };
            match common.streams.to(&target.id) {
                Some(stream) => self.ask(now, id, stream, common),
                None if common.blame.is_shunned(now, &target.id) => {
                    self.end(id, Err(InspectError::Unreachable), &mut common.out);
                }
                // Without room the question waits until there is some, or its deadline passes.
                None => _ = common.dial(now, target),
            }
        }
    }

    fn ask(&mut self, now: Instant, id: InspectId, stream: StreamId, common: &mut Common) {
        let Some(session) = common.streams.get_mut(&stream) else { return };
        let Some(inspection) = self.under_way.get_mut(&id) else { return };
        if session.inspections.len() >= INSPECTIONS_AHEAD_MAX {
            return;
        }
        let question = session.number();
        session.inspections.insert(question, id);
        (inspection.stream, inspection.since) = (Some(stream), now);
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
        let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
        let &id = session.inspections.get(&question).ok_or(CloseReason::Unexpected)?;
        let keys = self.under_way.get(&id).map(|inspection| inspection.keys.len());
        // An answer may arrive after its inspection ended.
        if keys.is_some_and(|keys| keys != entries.len()) {
            return Err(CloseReason::Unexpected);
        }
        session.inspections.remove(&question);
        let entries = entries.iter().filter_map(WireInspectEntry::get).collect();
        self.end(id, Ok(entries), &mut common.out);
        // The peer may be sent the next question.
        self.changed = true;
        Ok(())
    }

    /// Ends the inspections whose deadline has passed.
    pub(in crate::transfer) fn expire(&mut self, now: Instant, common: &mut Common) {
        let timing = &common.config.timing;
        let late = self.under_way.iter().filter(|(_, inspection)| inspection.deadline(timing) <= now);
        let late: Vec<(InspectId, bool)> =
            late.map(|(&id, inspection)| (id, inspection.stream.is_some())).collect();
        for (id, asked) in late {
            let error = if asked { InspectError::Lost } else { InspectError::Unreachable };
            self.end(id, Err(error), &mut common.out);
        }
    }

    /// A node could not be reached.
    pub(in crate::transfer) fn unreachable(&mut self, peer: &NodeId, out: &mut Out) {
        let theirs = |inspection: &Inspection| inspection.target.id == *peer && inspection.stream.is_none();
        let theirs: Vec<InspectId> =
            self.under_way.iter().filter(|(_, inspection)| theirs(inspection)).map(|(&id, _)| id).collect();
        theirs.into_iter().for_each(|id| self.end(id, Err(InspectError::Unreachable), out));
    }

    /// A stream closed: the questions that were sent over it end.
    pub(in crate::transfer) fn lost(&mut self, session: &Session, out: &mut Out) {
        session.inspections.values().for_each(|&id| self.end(id, Err(InspectError::Lost), out));
    }

    fn end(&mut self, inspection: InspectId, result: Result<Vec<InspectEntry>, InspectError>, out: &mut Out) {
        if let Some(ended) = self.under_way.remove(&inspection) {
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
    common: &mut Common,
) -> Result<(), CloseReason> {
    let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
    let many = session.inspected.len() >= QUESTIONS_MAX;
    if keys.is_empty() || many || !session.inspected.insert(question) {
        return Err(CloseReason::Unexpected);
    }
    common.out.counters.inspect_asked += 1;
    common.out.event(TransferEvent::InspectAsked { stream, question, keys: keys.to_vec() });
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

//! Inspections: questions to other nodes about their copies of pieces, and this node's answers.
//!
//! An inspection is one question to one node. It moves no content, so it neither waits for downloads nor delays them. One that
//! is not answered in time ends as lost. Its stream stays open, because content may be on its way before the answer.

use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::events::{InspectError, InspectId, TransferEvent};
use crate::transfer::streams::session::{QUESTIONS_MAX, Session};
use crate::transfer::{Timing, Transfer};
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry, WireInspectEntry};

/// Inspections under way at a time.
pub const INSPECTIONS_MAX: usize = 64;
/// Unanswered inspections of one peer.
const INSPECTIONS_AHEAD_MAX: usize = 4;

/// A question to another node.
pub(in crate::transfer) struct Inspection {
    target: Contact,
    keys: Vec<Key>,
    /// The stream that it was sent over; `None` while it waits for one.
    stream: Option<StreamId>,
    since: Instant,
}

impl Inspection {
    /// When it ends as unreachable or lost.
    pub(in crate::transfer) fn deadline(&self, timing: &Timing) -> Instant {
        self.since
            + match self.stream {
                None => timing.push,
                Some(_) => timing.answer,
            }
    }
}

/// Inspections.
impl Transfer {
    /// Asks a node about its copies of up to [`INSPECT_KEYS_MAX`] pieces, and about the copies that it knows elsewhere. False when
    /// too many inspections are under way, or one with this number, or when `keys` is empty; else [`TransferEvent::Inspected`]
    /// tells how it ended.
    pub fn inspect(&mut self, now: Instant, inspection: InspectId, target: Contact, keys: Vec<Key>) -> bool {
        let possible = (1..=INSPECT_KEYS_MAX).contains(&keys.len());
        debug_assert!(possible, "{} keys in one inspection", keys.len());
        let full = self.inspections.len() >= INSPECTIONS_MAX || self.inspections.contains_key(&inspection);
        if full || !possible {
            return false;
        }
        self.inspections.insert(inspection, Inspection { target, keys, stream: None, since: now });
        self.inspections_changed = true;
        self.settle(now);
        true
    }

    /// Ends an inspection without an event.
    pub fn forget_inspection(&mut self, inspection: InspectId) {
        self.inspections.remove(&inspection);
    }

    /// Answers a [`TransferEvent::InspectAsked`], with one entry for each piece in the order of the question.
    ///
    /// # Panics
    /// When there are more than [`INSPECT_KEYS_MAX`] entries.
    pub fn inspected(&mut self, now: Instant, stream: StreamId, question: u32, entries: &[InspectEntry]) {
        if let Some(session) = self.streams.get_mut(&stream) {
            if session.inspected.remove(&question) {
                let entries: Vec<WireInspectEntry> = entries.iter().map(WireInspectEntry::new).collect();
                self.out.write(stream, session, &Frame::Inspected { question, entries: &entries });
            }
        }
        self.settle(now);
    }
}

impl Transfer {
    /// Sends the questions that wait for a stream, or dials their targets.
    pub(in crate::transfer) fn pump_inspections(&mut self, now: Instant) {
        let waiting = self.inspections.iter().filter(|(_, inspection)| inspection.stream.is_none());
        let waiting: Vec<InspectId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            let Some(target) = self.inspections.get(&id).map(|inspection| inspection.target) else {
                continue;
            };
            match self.streams.to(&target.id) {
                Some(stream) => self.ask_inspection(now, id, stream),
                None if self.is_shunned(now, &target.id) => {
                    self.end_inspection(id, Err(InspectError::Unreachable));
                }
                // Without room the question waits until there is some, or its deadline passes.
                None => _ = self.streams.dial(now, target, &self.config, &mut self.out),
            }
        }
    }

    fn ask_inspection(&mut self, now: Instant, id: InspectId, stream: StreamId) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let Some(inspection) = self.inspections.get_mut(&id) else { return };
        if session.inspections.len() >= INSPECTIONS_AHEAD_MAX {
            return;
        }
        let question = session.number();
        session.inspections.insert(question, id);
        (inspection.stream, inspection.since) = (Some(stream), now);
        session.last_active = now;
        self.out.write(stream, session, &Frame::Inspect { question, keys: &inspection.keys });
    }

    pub(in crate::transfer) fn on_inspect(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        keys: &[Key],
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let many = session.inspected.len() >= QUESTIONS_MAX;
        if keys.is_empty() || many || !session.inspected.insert(question) {
            return self.violated(now, stream);
        }
        self.out.counters.inspect_asked += 1;
        self.out.event(TransferEvent::InspectAsked { stream, question, keys: keys.to_vec() });
    }

    pub(in crate::transfer) fn on_inspected(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        entries: &[WireInspectEntry],
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let Some(&id) = session.inspections.get(&question) else { return self.violated(now, stream) };
        let keys = self.inspections.get(&id).map(|inspection| inspection.keys.len());
        // An answer may arrive after its inspection ended.
        if keys.is_some_and(|keys| keys != entries.len()) {
            return self.violated(now, stream);
        }
        session.inspections.remove(&question);
        let entries = entries.iter().filter_map(WireInspectEntry::get).collect();
        self.end_inspection(id, Ok(entries));
        // The peer may be sent the next question.
        self.inspections_changed = true;
    }

    /// Ends the inspections whose deadline has passed.
    pub(in crate::transfer) fn time_inspections(&mut self, now: Instant) {
        let timing = &self.config.timing;
        let late = self.inspections.iter().filter(|(_, inspection)| inspection.deadline(timing) <= now);
        let late: Vec<(InspectId, bool)> =
            late.map(|(&id, inspection)| (id, inspection.stream.is_some())).collect();
        for (id, asked) in late {
            let error = if asked { InspectError::Lost } else { InspectError::Unreachable };
            self.end_inspection(id, Err(error));
        }
    }

    pub(in crate::transfer) fn inspections_unreachable(&mut self, peer: &NodeId) {
        let theirs = |inspection: &Inspection| inspection.target.id == *peer && inspection.stream.is_none();
        let theirs: Vec<InspectId> =
            self.inspections.iter().filter(|(_, inspection)| theirs(inspection)).map(|(&id, _)| id).collect();
        theirs.into_iter().for_each(|id| self.end_inspection(id, Err(InspectError::Unreachable)));
    }

    /// The stream that these questions were sent over closed.
    pub(in crate::transfer) fn inspections_lost(&mut self, session: &Session) {
        session.inspections.values().for_each(|&id| self.end_inspection(id, Err(InspectError::Lost)));
    }

    fn end_inspection(&mut self, inspection: InspectId, result: Result<Vec<InspectEntry>, InspectError>) {
        if let Some(ended) = self.inspections.remove(&inspection) {
            match result {
                Ok(_) => self.out.counters.inspect_done += 1,
                Err(_) => self.out.counters.inspect_failed += 1,
            }
            self.out.event(TransferEvent::Inspected { inspection, target: ended.target.id, result });
        }
    }
}

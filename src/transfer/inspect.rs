//! How safe pieces are: what other nodes say of their copies when they are asked, and what this one says.
//!
//! An inspection is one question to one node. It moves no content, so it neither waits for downloads nor makes them wait.
//! Who does not answer in time is told as lost; its stream is left alone, for there may be content on its way before
//! the answer.

use super::events::{InspectError, InspectId, TransferEvent};
use super::session::{QUESTIONS_MAX, Session};
use super::{Timing, Transfer};
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry, WireInspectEntry};

/// Inspections under way at a time.
pub const INSPECTIONS_MAX: usize = 64;
/// Inspections of one peer that it has not answered.
const INSPECTIONS_AHEAD_MAX: usize = 4;

/// A question to another node.
pub(super) struct Inspection {
    target: Contact,
    keys: Vec<Key>,
    /// Over which stream it was asked; `None` while there is none.
    stream: Option<StreamId>,
    since: Instant,
}

impl Inspection {
    /// When it has been waited for long enough.
    pub(super) fn deadline(&self, timing: &Timing) -> Instant {
        self.since
            + match self.stream {
                None => timing.push,
                Some(_) => timing.answer,
            }
    }
}

/// Inspections.
impl Transfer {
    /// Asks a node what it has of up to [`INSPECT_KEYS_MAX`] pieces, and what it knows of other copies. False when too
    /// many inspections are under way, or one of this number, or when there is nothing to ask;
    /// else [`TransferEvent::Inspected`] tells how it ended.
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

    /// Nobody wants to know any more. Nothing more is heard of the inspection.
    pub fn forget_inspection(&mut self, inspection: InspectId) {
        self.inspections.remove(&inspection);
    }

    /// What there is of the pieces that [`TransferEvent::InspectAsked`] asks about, in their order.
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
    /// Asks the questions that wait for a stream, or connects to their targets.
    pub(super) fn pump_inspections(&mut self, now: Instant) {
        let waiting = self.inspections.iter().filter(|(_, inspection)| inspection.stream.is_none());
        let waiting: Vec<InspectId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            let Some(target) = self.inspections.get(&id).map(|inspection| inspection.target) else {
                continue;
            };
            match self.stream_to(&target.id) {
                Some(stream) => self.ask_inspection(now, id, stream),
                None if self.is_shunned(now, &target.id) => {
                    self.end_inspection(id, Err(InspectError::Unreachable));
                }
                // Without room it waits until there is some, or its time is over.
                None => _ = self.dial(now, target),
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

    pub(super) fn on_inspect(&mut self, now: Instant, stream: StreamId, question: u32, keys: &[Key]) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let many = session.inspected.len() >= QUESTIONS_MAX;
        if keys.is_empty() || many || !session.inspected.insert(question) {
            return self.violated(now, stream);
        }
        self.out.counters.inspect_asked += 1;
        self.out.event(TransferEvent::InspectAsked { stream, question, keys: keys.to_vec() });
    }

    pub(super) fn on_inspected(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        entries: &[WireInspectEntry],
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let Some(&id) = session.inspections.get(&question) else { return self.violated(now, stream) };
        let keys = self.inspections.get(&id).map(|inspection| inspection.keys.len());
        // One that nobody waits for any more may still be answered.
        if keys.is_some_and(|keys| keys != entries.len()) {
            return self.violated(now, stream);
        }
        session.inspections.remove(&question);
        let entries = entries.iter().filter_map(WireInspectEntry::get).collect();
        self.end_inspection(id, Ok(entries));
        // Its place at the peer is free for the next.
        self.inspections_changed = true;
    }

    /// Ends what has been waited for long enough.
    pub(super) fn time_inspections(&mut self, now: Instant) {
        let timing = &self.config.timing;
        let late = self.inspections.iter().filter(|(_, inspection)| inspection.deadline(timing) <= now);
        let late: Vec<(InspectId, bool)> =
            late.map(|(&id, inspection)| (id, inspection.stream.is_some())).collect();
        for (id, asked) in late {
            let error = if asked { InspectError::Lost } else { InspectError::Unreachable };
            self.end_inspection(id, Err(error));
        }
    }

    pub(super) fn inspections_unreachable(&mut self, peer: &NodeId) {
        let theirs = |inspection: &Inspection| inspection.target.id == *peer && inspection.stream.is_none();
        let theirs: Vec<InspectId> =
            self.inspections.iter().filter(|(_, inspection)| theirs(inspection)).map(|(&id, _)| id).collect();
        theirs.into_iter().for_each(|id| self.end_inspection(id, Err(InspectError::Unreachable)));
    }

    /// The stream that these questions were asked over is gone.
    pub(super) fn inspections_lost(&mut self, session: &Session) {
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

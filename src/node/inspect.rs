//! This node's answers to inspections: what it knows about copies of pieces.

use super::shelf;
use super::{Node, Waiting};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Extent, Place, StreamId};
use crate::replication::Phase;
use crate::time::Instant;
use crate::wire::inspect::{Held, InspectEntry, RepairPhase};

/// Files that are checked for one question. The answer for further files relies on what is known.
const FILES_LOOKED_AT_MAX: usize = 4;

/// A question that is answered when its files have been checked.
pub(super) struct Question {
    stream: StreamId,
    number: u32,
    keys: Vec<Key>,
    files: Vec<Extent>,
}

impl Node {
    /// This node's copy of a piece, and what it knows about other copies.
    pub fn inspect_piece(&self, now: Instant, key: &Key) -> InspectEntry {
        let (held, replicas) = match (self.machines.store.piece(key), self.machines.store.lasting_share(key))
        {
            (Some(meta), _) => (Held::Stored, meta.replicas),
            (None, Some((shared, _))) => (Held::Shared, shared.replicas),
            (None, None) if shelf::is_served(&self.machines.store, key) => (Held::Cached, 0),
            (None, None) => (Held::Nothing, 0),
        };
        let entry = InspectEntry { held, replicas, ..InspectEntry::default() };
        match self.machines.replication.inspect(key) {
            Some(status) if held.is_durable() => InspectEntry {
                live: status.live,
                phase: match status.phase {
                    Phase::Whole => RepairPhase::Whole,
                    Phase::Waiting => RepairPhase::Waiting,
                    Phase::Copying => RepairPhase::Copying,
                    Phase::CutOff => RepairPhase::CutOff,
                },
                since: match status.phase {
                    Phase::Whole => 0,
                    _ => status.since.map_or(0, |since| now.since(since).as_secs() as u32),
                },
                ..entry
            },
            _ => entry,
        }
    }

    /// A peer asks about pieces. Files that are shared in place are checked first.
    pub(super) fn inspect_asked(&mut self, now: Instant, stream: StreamId, number: u32, keys: Vec<Key>) {
        let mut files: Vec<Extent> = Vec::new();
        for key in keys.iter().filter(|key| self.machines.store.piece(key).is_none()) {
            let Some((shared, claim)) = self.machines.store.lasting_share(key) else { continue };
            let place = claim.place(&shared.hash);
            if files.len() < FILES_LOOKED_AT_MAX && !files.iter().any(|file| file.place == place) {
                files.push(nothing_of(place, claim.stamp));
            }
        }
        self.answer_inspection(now, Question { stream, number, keys, files });
    }

    pub(super) fn inspect_disk(
        &mut self,
        now: Instant,
        question: Question,
        place: &Place,
        result: Result<DiskReply, DiskError>,
    ) {
        if let Err(error) = result {
            self.watch.look_failed(now, place, &error, &mut self.machines);
        }
        self.answer_inspection(now, question);
    }

    fn answer_inspection(&mut self, now: Instant, mut question: Question) {
        if let Some(file) = question.files.pop() {
            let place = file.place.clone();
            return self.machines.disk(DiskOp::Read(file), Waiting::Inspect(question, place));
        }
        let entries: Vec<InspectEntry> =
            question.keys.iter().map(|key| self.inspect_piece(now, key)).collect();
        self.machines.transfer.inspected(now, question.stream, question.number, &entries);
    }
}

/// An empty extent: reading it only checks the file's stamp.
pub(super) fn nothing_of(place: Place, stamp: crate::io::FileStamp) -> Extent {
    Extent { place, offset: 0, length: 0, stamp: Some(stamp) }
}

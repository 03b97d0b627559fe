//! This node's answers to the questions of audits: what it knows about copies of pieces.

use crate::id::Key;
use crate::io::{FileStamp, Place, StreamId};
use crate::node::machines::Machines;
use crate::node::{Looker, shelf};
use crate::replication::{Phase, Replication};
use crate::store::Store;
use crate::time::Instant;
use crate::wire::inspect::{Held, InspectEntry, RepairPhase};

/// Files that are checked for one question. The answer for further files relies on what is known.
const FILES_LOOKED_AT_MAX: usize = 4;

/// A question of a peer, which is answered when its files have been checked.
pub(in crate::node) struct Question {
    stream: StreamId,
    number: u32,
    keys: Vec<Key>,
    /// Shared files that are still to be checked.
    files: Vec<(Place, FileStamp)>,
}

impl Question {
    /// A peer asks about pieces, in the question with this number on its stream. Files that are shared in place are checked first.
    pub(in crate::node) fn new(stream: StreamId, number: u32, keys: &[Key], store: &Store) -> Self {
        let mut files: Vec<(Place, FileStamp)> = Vec::new();
        for key in keys.iter().filter(|key| store.piece(key).is_none()) {
            let Some((shared, claim)) = store.lasting_share(key) else { continue };
            let place = claim.place(&shared.hash);
            if files.len() < FILES_LOOKED_AT_MAX && !files.iter().any(|(known, _)| *known == place) {
                files.push((place, claim.stamp));
            }
        }
        Question { stream, number, keys: keys.to_vec(), files }
    }

    /// Whether a file must be checked before the answer.
    pub(in crate::node) fn needs_the_disk(&self) -> bool {
        !self.files.is_empty()
    }

    /// Has the next file checked. The question is answered when none is left.
    pub(in crate::node) fn go_on(mut self, now: Instant, machines: &mut Machines) {
        if let Some((place, stamp)) = self.files.pop() {
            return machines.look_at(place, stamp, Looker::Question(self));
        }
        let Machines { store, replication, .. } = machines;
        let copy = |key| copy_of(now, key, store, replication);
        let entries: Vec<InspectEntry> = self.keys.iter().map(copy).collect();
        machines.transfer.inspected(now, self.stream, self.number, &entries);
    }
}

/// This node's copy of a piece, and what it knows about other copies.
pub(in crate::node) fn copy_of(
    now: Instant,
    key: &Key,
    store: &Store,
    replication: &Replication,
) -> InspectEntry {
    let (held, replicas) = match (store.piece(key), store.lasting_share(key)) {
        (Some(meta), _) => (Held::Stored, meta.replicas),
        (None, Some((shared, _))) => (Held::Shared, shared.replicas),
        (None, None) if shelf::is_served(store, key) => (Held::Cached, 0),
        (None, None) => (Held::Nothing, 0),
    };
    let entry = InspectEntry { held, replicas, ..InspectEntry::default() };
    let Some(status) = replication.inspect(key).filter(|_| held.is_durable()) else {
        return entry;
    };
    let (phase, since) = match status.phase {
        Phase::Whole => (RepairPhase::Whole, None),
        Phase::Waiting => (RepairPhase::Waiting, status.since),
        Phase::Copying => (RepairPhase::Copying, status.since),
        Phase::CutOff => (RepairPhase::CutOff, status.since),
    };
    let since = since.map_or(0, |since| now.since(since).as_secs() as u32);
    InspectEntry { live: status.live, phase, since, ..entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{DiskOp, Recovered, Share, ShareState};
    use crate::limits::Limits;
    use crate::node::{Output, Waiting};
    use std::path::PathBuf;

    const START: Instant = Instant::from_secs(100);

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    /// A node that shares `count` files of one chunk at paths of their own.
    fn machines(count: u8) -> Machines {
        let share = |number: u8| Share {
            hash: key(number),
            length: 1,
            place: Place::File(PathBuf::from(format!("/u/{number}")).as_path().into()),
            stamp: FileStamp::default(),
            state: ShareState::Present,
            replicas: 3,
            lifetime: 1,
            replicated: true,
            synced: true,
        };
        let mut machines = Machines::alone(START);
        let recovered = Recovered { shares: (1..=count).map(share).collect(), ..Recovered::default() };
        machines.store = Store::new(&Limits::default(), &recovered, 1, START);
        machines
    }

    /// The file that is being checked, and the question that waits for it.
    fn looked_at(machines: &mut Machines) -> Option<(Place, Question)> {
        let output = machines.outputs.pop_front()?;
        let Output::Disk { id, op: DiskOp::Read(file) } = output else { panic!("{output:?}") };
        assert_eq!(file.length, 0, "nothing of the file is read");
        match machines.disk_waiting.remove(&id) {
            Some(Waiting::Stamp(place, Looker::Question(question))) => Some((place, question)),
            _ => panic!("no question waits for it"),
        }
    }

    #[test]
    fn a_few_shared_files_are_checked_before_a_question_about_them_is_answered() {
        let mut machines = machines(6);
        let keys: Vec<Key> = (1..=6).chain(1..=6).map(key).collect();
        Question::new(StreamId(1), 1, &keys, &machines.store).go_on(START, &mut machines);
        let mut places = Vec::new();
        while let Some((place, question)) = looked_at(&mut machines) {
            places.push(place);
            question.go_on(START, &mut machines);
        }
        places.dedup();
        assert_eq!(places.len(), FILES_LOOKED_AT_MAX);
    }

    #[test]
    fn a_question_about_pieces_that_are_not_shared_needs_no_disk() {
        assert!(!Question::new(StreamId(1), 1, &[key(1)], &machines(0).store).needs_the_disk());
        assert!(Question::new(StreamId(1), 1, &[key(1)], &machines(1).store).needs_the_disk());
    }

    #[test]
    fn a_shared_file_counts_as_a_copy_and_an_unknown_piece_does_not() {
        let Machines { store, replication, .. } = machines(1);
        let shared = copy_of(START, &key(1), &store, &replication);
        assert_eq!(shared.held, Held::Shared);
        assert_eq!(shared.replicas, 3);
        assert_eq!(copy_of(START, &key(9), &store, &replication), InspectEntry::default());
    }
}

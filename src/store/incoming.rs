//! Pieces that were offered and admitted and are not yet on disk.
//!
//! A *promise* costs its maker nothing, so it takes nothing away from anybody: it counts only against other promises.
//! When its first bytes come, room is made and reserved for it, and from then on it counts like what is stored.

use crate::id::Key;
use crate::io::PieceMeta;
use std::collections::BTreeMap;

struct Entry {
    meta: PieceMeta,
    /// What it will take of the file system.
    cost: u64,
    /// Whether its bytes are coming.
    arrives: bool,
}

/// The pieces that are to come.
#[derive(Default)]
pub(super) struct Incoming {
    table: BTreeMap<u64, Entry>,
    next: u64,
    promised: u64,
    reserved: u64,
    arriving: usize,
}

impl Incoming {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What those take together that have not begun to arrive.
    pub(super) fn promised_bytes(&self) -> u64 {
        self.promised
    }

    /// What is reserved for those that have.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved
    }

    /// How many of them there are.
    pub(super) fn arriving_count(&self) -> usize {
        self.arriving
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.table.values().any(|entry| entry.meta.key == *key)
    }

    pub(super) fn get(&self, number: u64) -> Option<PieceMeta> {
        self.table.get(&number).map(|entry| entry.meta)
    }

    /// Notes a promise. Its number never comes again in this run.
    pub(super) fn promise(&mut self, meta: PieceMeta, cost: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.promised += cost;
        self.table.insert(number, Entry { meta, cost, arrives: false });
        number
    }

    /// What a promise takes when its bytes come now; `None` when they have begun to come before, or there is none.
    pub(super) fn cost_of_promise(&self, number: u64) -> Option<u64> {
        self.table.get(&number).filter(|entry| !entry.arrives).map(|entry| entry.cost)
    }

    /// The bytes of a promise begin to come.
    pub(super) fn arrive(&mut self, number: u64) {
        if let Some(entry) = self.table.get_mut(&number).filter(|entry| !entry.arrives) {
            entry.arrives = true;
            self.promised -= entry.cost;
            self.reserved += entry.cost;
            self.arriving += 1;
        }
    }

    /// It is on disk, or will not come.
    pub(super) fn end(&mut self, number: u64) -> Option<PieceMeta> {
        let entry = self.table.remove(&number)?;
        if entry.arrives {
            self.reserved -= entry.cost;
            self.arriving -= 1;
        } else {
            self.promised -= entry.cost;
        }
        Some(entry.meta)
    }
}

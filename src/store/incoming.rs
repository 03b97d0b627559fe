//! Inbound stores: pieces that were admitted and are not on disk yet.
//!
//! A *promise* is an admitted piece without bytes. An offer costs its sender nothing, so a promise reserves no space and counts only
//! against other promises. When its first bytes come, the store makes room and reserves its space.

use crate::id::Key;
use crate::io::PieceMeta;
use std::collections::BTreeMap;

struct Entry {
    meta: PieceMeta,
    /// The bytes that it will take on disk.
    cost: u64,
    /// Whether its first bytes have come.
    arrives: bool,
}

/// The admitted pieces that are not on disk yet.
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

    /// The bytes of all promises.
    pub(super) fn promised_bytes(&self) -> u64 {
        self.promised
    }

    /// The bytes reserved for arriving pieces.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved
    }

    /// The number of arriving pieces.
    pub(super) fn arriving_count(&self) -> usize {
        self.arriving
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.table.values().any(|entry| entry.meta.key == *key)
    }

    pub(super) fn get(&self, number: u64) -> Option<PieceMeta> {
        self.table.get(&number).map(|entry| entry.meta)
    }

    /// Adds a promise, and returns its number, unique in this run.
    pub(super) fn promise(&mut self, meta: PieceMeta, cost: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.promised += cost;
        self.table.insert(number, Entry { meta, cost, arrives: false });
        number
    }

    /// The bytes that a promise will take on disk; `None` when it is arriving already, or there is none.
    pub(super) fn cost_of_promise(&self, number: u64) -> Option<u64> {
        self.table.get(&number).filter(|entry| !entry.arrives).map(|entry| entry.cost)
    }

    /// Turns a promise into an arriving piece.
    pub(super) fn arrive(&mut self, number: u64) {
        if let Some(entry) = self.table.get_mut(&number).filter(|entry| !entry.arrives) {
            entry.arrives = true;
            self.promised -= entry.cost;
            self.reserved += entry.cost;
            self.arriving += 1;
        }
    }

    /// Removes a piece that is on disk, or that will not come.
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

//! Inbound stores: pieces that were admitted and are not on disk yet.
//!
//! A *promise* is an admitted piece without bytes. An offer costs its sender nothing, so a promise reserves no space: it counts only
//! against other offers of its party, and in a full table the promises of the party that has most give way. When its first bytes come,
//! the store makes room and reserves its space.

use crate::id::Key;
use crate::io::PieceMeta;
use crate::peers::contest::{Holder, gives_way};
use crate::peers::party::Level;
use std::collections::BTreeMap;

struct Entry {
    meta: PieceMeta,
    /// The node that offers it.
    from: Holder,
    /// The bytes that it will take on disk.
    cost: u64,
    /// Whether its first bytes have come.
    arrives: bool,
    /// Whether stored pieces gave way to it.
    displaces: bool,
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

    /// The number of promises to the party of `from`, and their bytes.
    pub(super) fn promised_to(&self, from: &Holder) -> (usize, u64) {
        let site = |holder: &Holder| holder.party.at(Level::Site);
        let theirs = self.table.values().filter(|entry| !entry.arrives && site(&entry.from) == site(from));
        theirs.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.cost))
    }

    /// The number of pieces of the party of `from` that are promised or arriving, their bytes, and whether there are some of others.
    pub(super) fn load_of(&self, from: &Holder) -> (usize, u64, bool) {
        let site = |holder: &Holder| holder.party.at(Level::Site);
        let theirs = self.table.values().filter(|entry| site(&entry.from) == site(from));
        let (count, bytes) = theirs.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.cost));
        (count, bytes, count < self.table.len())
    }

    /// Makes room for one more promise in a full table: of the party that has most promises, the oldest one ends. False when the
    /// newcomer's would have most, or every piece is arriving. Bytes that come for a promise that has ended are refused.
    pub(super) fn make_room(&mut self, newcomer: Holder) -> bool {
        let promises = self.table.iter().filter(|(_, entry)| !entry.arrives);
        let mut entries: Vec<(Holder, Option<u64>)> =
            promises.map(|(number, entry)| (entry.from, Some(*number))).collect();
        entries.push((newcomer, None));
        let loser = gives_way(&entries).and_then(|loser| entries[loser].1);
        loser.is_some_and(|number| self.end(number).is_some())
    }

    /// Adds a promise, and returns its number, unique in this run.
    pub(super) fn promise(&mut self, meta: PieceMeta, cost: u64, from: Holder) -> u64 {
        let number = self.next;
        self.next += 1;
        self.promised += cost;
        self.table.insert(number, Entry { meta, from, cost, arrives: false, displaces: false });
        number
    }

    /// Whether a piece is arriving already, and the bytes that it takes on disk. `None`: there is no such admission.
    pub(super) fn cost_of(&self, number: u64) -> Option<(bool, u64)> {
        self.table.get(&number).map(|entry| (entry.arrives, entry.cost))
    }

    /// Stored pieces give way to an admitted piece.
    pub(super) fn displaces(&mut self, number: u64) {
        if let Some(entry) = self.table.get_mut(&number) {
            entry.displaces = true;
        }
    }

    /// Whether stored pieces gave way to an admitted piece.
    pub(super) fn has_displaced(&self, number: u64) -> bool {
        self.table.get(&number).is_some_and(|entry| entry.displaces)
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

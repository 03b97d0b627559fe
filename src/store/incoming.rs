//! Inbound stores: pieces that were admitted and are not on disk yet.
//!
//! A *promise* is an admitted piece without bytes. An offer costs its sender nothing, so a promise reserves no space: it counts only
//! against other offers of its party, and in a full table the promises of the party that has most give way. When its first bytes come,
//! the store makes room and reserves its space.

use super::parties::{Newcomer, holder_of};
use crate::id::Key;
use crate::io::PieceMeta;
use crate::peers::contest::{Holder, gives_way};
use crate::peers::party::Level;
use std::collections::BTreeMap;

/// An admitted piece.
#[derive(Clone, Copy)]
pub(super) struct Promise {
    pub(super) meta: PieceMeta,
    /// The node that offers it.
    pub(super) from: Holder,
    /// The bytes that it will take on disk.
    pub(super) cost: u64,
    /// Whether its first bytes have come.
    pub(super) arrives: bool,
    /// Whether stored pieces gave way to it.
    pub(super) displaces: bool,
}

impl Promise {
    /// The piece as it contests a place.
    pub(super) fn newcomer(&self) -> Newcomer {
        let holder = holder_of(&self.meta.brought, self.meta.claim.as_ref());
        Newcomer { holder, from: self.from.party }
    }
}

/// The admitted pieces that are not on disk yet.
#[derive(Default)]
pub(super) struct Incoming {
    table: BTreeMap<u64, Promise>,
    next: u64,
    promised: u64,
}

impl Incoming {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The bytes of all promises.
    pub(super) fn promised_bytes(&self) -> u64 {
        self.promised
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.table.values().any(|promise| promise.meta.key == *key)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Promise> {
        self.table.get(&number)
    }

    /// The number of promises to the party of `from`, and their bytes.
    pub(super) fn promised_to(&self, from: &Holder) -> (usize, u64) {
        let site = |holder: &Holder| holder.party.at(Level::Site);
        let theirs =
            self.table.values().filter(|promise| !promise.arrives && site(&promise.from) == site(from));
        theirs.fold((0, 0), |(count, bytes), promise| (count + 1, bytes + promise.cost))
    }

    /// The number of pieces of the party of `from` that are promised or arriving, their bytes, and whether there are some of others.
    pub(super) fn load_of(&self, from: &Holder) -> (usize, u64, bool) {
        let site = |holder: &Holder| holder.party.at(Level::Site);
        let theirs = self.table.values().filter(|promise| site(&promise.from) == site(from));
        let (count, bytes) = theirs.fold((0, 0), |(count, bytes), promise| (count + 1, bytes + promise.cost));
        (count, bytes, count < self.table.len())
    }

    /// Makes room for one more promise in a full table: of the party that has most promises, the oldest one ends. False when the
    /// newcomer's would have most, or every piece is arriving. Bytes that come for a promise that has ended are refused.
    pub(super) fn make_room(&mut self, newcomer: Holder) -> bool {
        let promises = self.table.iter().filter(|(_, promise)| !promise.arrives);
        let mut entries: Vec<(Holder, Option<u64>)> =
            promises.map(|(number, promise)| (promise.from, Some(*number))).collect();
        entries.push((newcomer, None));
        let loser = gives_way(&entries).and_then(|loser| entries[loser].1);
        loser.is_some_and(|number| self.end(number).is_some())
    }

    /// Adds a promise, and returns its number, unique in this run.
    pub(super) fn promise(&mut self, meta: PieceMeta, cost: u64, from: Holder) -> u64 {
        let number = self.next;
        self.next += 1;
        self.promised += cost;
        self.table.insert(number, Promise { meta, from, cost, arrives: false, displaces: false });
        number
    }

    /// Stored pieces give way to an admitted piece.
    pub(super) fn displaces(&mut self, number: u64) {
        if let Some(promise) = self.table.get_mut(&number) {
            promise.displaces = true;
        }
    }

    /// Turns a promise into an arriving piece.
    pub(super) fn arrive(&mut self, number: u64) {
        if let Some(promise) = self.table.get_mut(&number).filter(|promise| !promise.arrives) {
            promise.arrives = true;
            self.promised -= promise.cost;
        }
    }

    /// Removes a piece that is on disk, or that will not come.
    pub(super) fn end(&mut self, number: u64) -> Option<Promise> {
        let promise = self.table.remove(&number)?;
        if !promise.arrives {
            self.promised -= promise.cost;
        }
        Some(promise)
    }
}

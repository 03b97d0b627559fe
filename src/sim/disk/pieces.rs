//! Stored pieces, and their changes, by which the world counts copies.

use super::missing;
use super::room::Room;
use crate::claim::PieceClaim;
use crate::id::Key;
use crate::io::{DiskError, PieceMeta};
use crate::manifest::Manifest;
use crate::sim::blob::Slice;
use std::collections::BTreeMap;

/// A change of the stored pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The piece has become durable here.
    Stored(PieceMeta),
    /// The piece was removed.
    Gone(Key),
}

/// The stored pieces of one disk: all of them are durable.
#[derive(Default)]
pub(super) struct Pieces {
    stored: BTreeMap<Key, (PieceMeta, Slice)>,
    changes: Vec<Change>,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        self.stored.contains_key(key)
    }

    pub(super) fn metas(&self) -> impl Iterator<Item = &PieceMeta> {
        self.stored.values().map(|(meta, _)| meta)
    }

    pub(super) fn content(&self, key: &Key) -> Result<&Slice, DiskError> {
        self.stored.get(key).map(|(_, slice)| slice).ok_or_else(missing)
    }

    /// Stores a piece. It replaces one with the same key.
    pub(super) fn store(&mut self, meta: PieceMeta, slice: Slice, room: &mut Room) -> Result<(), DiskError> {
        let length = slice.len() as u64;
        room.check(length)?;
        room.take(length);
        let old = self.stored.insert(meta.key, (meta, slice));
        room.give(old.map_or(0, |(_, old)| old.len() as u64));
        self.changes.push(Change::Stored(meta));
        Ok(())
    }

    pub(super) fn raise(
        &mut self,
        key: &Key,
        replicas: u8,
        expires: u64,
        claim: Option<PieceClaim>,
    ) -> Result<(), DiskError> {
        let (meta, _) = self.stored.get_mut(key).ok_or_else(missing)?;
        meta.replicas = meta.replicas.max(replicas);
        meta.expires = meta.expires.max(expires);
        meta.claim = claim.or(meta.claim);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &Key, room: &mut Room) {
        if let Some((_, slice)) = self.stored.remove(key) {
            room.give(slice.len() as u64);
            self.changes.push(Change::Gone(*key));
        }
    }

    /// Loses all pieces. The node is not told, and the room stays taken.
    pub(super) fn forget(&mut self) {
        let gone = core::mem::take(&mut self.stored).into_keys();
        self.changes.extend(gone.map(Change::Gone));
    }

    /// Flips a bit of a piece. False when the piece is not stored here.
    pub(super) fn rot(&mut self, key: &Key) -> bool {
        let Some((_, slice)) = self.stored.get_mut(key) else { return false };
        *slice = slice.damaged();
        true
    }

    /// The number of pieces whose content does not match their key.
    pub(super) fn count_wrong(&self) -> usize {
        let wrong = |(meta, slice): &&(PieceMeta, Slice)| match meta.content.hash_as(meta.input_offset) {
            Some(hash_as) => slice.key(hash_as) != meta.key,
            None => Manifest::decode(slice.bytes(), &meta.key).is_err(),
        };
        self.stored.values().filter(wrong).count()
    }

    /// The changes since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.changes)
    }
}

//! The files that are served where they lie: shares, and downloads whose first chunks have arrived.

use super::index::ChunkIndex;
use crate::id::Key;
use crate::io::{Extent, Place, Share};
use crate::manifest::{Content, Manifest};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole file.
struct Whole {
    share: Arc<Share>,
    /// Length of the encoded manifest; 0 when the file is one chunk.
    manifest_bytes: u32,
    /// When it was last used, as a count of uses.
    used: u64,
}

/// A file of which some chunks are there.
struct Partial {
    manifest: Arc<Manifest>,
    place: Place,
    /// One bit for each chunk.
    good: Vec<u64>,
}

enum Held {
    Whole(Whole),
    Partial(Partial),
}

/// Shares and downloads, found by file hash and by chunk.
pub(super) struct Files {
    slots: Vec<Option<Held>>,
    shares: BTreeMap<Key, u32>,
    partials: BTreeMap<Key, u32>,
    index: ChunkIndex,
    uses: u64,
    cached_bytes: u64,
    arriving_bytes: u64,
}

/// Whether a place lies in the node's own cache and counts against its quota.
pub(super) fn is_cached(place: &Place) -> bool {
    matches!(place, Place::Cache(_))
}

fn cached_length(place: &Place, manifest: &Manifest) -> u64 {
    if is_cached(place) { manifest.length() } else { 0 }
}

impl Files {
    pub(super) fn new(seed: u64) -> Self {
        Files {
            slots: Vec::new(),
            shares: BTreeMap::new(),
            partials: BTreeMap::new(),
            index: ChunkIndex::new(seed),
            uses: 0,
            cached_bytes: 0,
            arriving_bytes: 0,
        }
    }

    /// Bytes of shares in the cache.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Bytes that downloads into the cache have or will have.
    pub(super) fn arriving_bytes(&self) -> u64 {
        self.arriving_bytes
    }

    /// Files in the cache.
    pub(super) fn cached_count(&self) -> usize {
        self.shares.values().filter(|slot| is_cached(&self.whole(**slot).share.place)).count()
    }

    /// Downloads into the cache.
    pub(super) fn arriving_count(&self) -> usize {
        let partials = self.partials.keys().filter_map(|hash| self.partial(hash));
        partials.filter(|(_, place)| is_cached(place)).count()
    }

    pub(super) fn share_count(&self) -> usize {
        self.shares.len()
    }

    pub(super) fn partial_count(&self) -> usize {
        self.partials.len()
    }

    pub(super) fn share(&self, hash: &Key) -> Option<&Arc<Share>> {
        self.shares.get(hash).map(|slot| &self.whole(*slot).share)
    }

    /// In the order of their hashes.
    pub(super) fn shares(&self) -> impl Iterator<Item = &Arc<Share>> {
        self.shares.values().map(|slot| &self.whole(*slot).share)
    }

    /// Adds a share, in place of one with the same hash, which is returned.
    pub(super) fn add_share(&mut self, share: Arc<Share>) -> Option<Arc<Share>> {
        let hash = share.manifest.hash();
        self.uses += 1;
        let used = self.uses;
        self.cached_bytes += cached_length(&share.place, &share.manifest);
        if let Some(&slot) = self.shares.get(&hash) {
            // The same hash has the same chunks: the index stays as it is.
            let whole = self.whole_mut(slot);
            let old = core::mem::replace(&mut whole.share, share);
            whole.used = used;
            self.cached_bytes -= cached_length(&old.place, &old.manifest);
            return Some(old);
        }
        let manifest = share.manifest.clone();
        let manifest_bytes = if manifest.is_single() { 0 } else { manifest.encode().len() as u32 };
        let slot = self.occupy(Held::Whole(Whole { share, manifest_bytes, used }), &manifest);
        self.shares.insert(hash, slot);
        None
    }

    pub(super) fn remove_share(&mut self, hash: &Key) -> Option<Arc<Share>> {
        let slot = self.shares.remove(hash)?;
        let Some(Held::Whole(whole)) = self.vacate(slot) else {
            unreachable!("a share's slot holds a share");
        };
        self.cached_bytes -= cached_length(&whole.share.place, &whole.share.manifest);
        Some(whole.share)
    }

    /// The hashes of the shares that lie at `place`: one file can be shared as what it was and as what it is.
    pub(super) fn shares_at(&self, place: &Place) -> Vec<Key> {
        self.shares().filter(|share| share.place == *place).map(|share| share.manifest.hash()).collect()
    }

    /// The cached share that has not been used for the longest time.
    pub(super) fn oldest_cached(&self) -> Option<Key> {
        let wholes = self.shares.iter().map(|(hash, slot)| (hash, self.whole(*slot)));
        wholes
            .filter(|(_, whole)| is_cached(&whole.share.place))
            .min_by_key(|(_, whole)| whole.used)
            .map(|(hash, _)| *hash)
    }

    /// Notes that a share with this chunk or hash has been used.
    pub(super) fn touch(&mut self, key: &Key) {
        self.uses += 1;
        let used = self.uses;
        if let Some(slot) = self.slot_with(key) {
            if let Some(Some(Held::Whole(whole))) = self.slots.get_mut(slot as usize) {
                whole.used = used;
            }
        }
    }

    /// The share with this chunk or hash.
    pub(super) fn share_with(&self, key: &Key) -> Option<&Arc<Share>> {
        match self.slots.get(self.slot_with(key)? as usize)? {
            Some(Held::Whole(whole)) => Some(&whole.share),
            _ => None,
        }
    }

    pub(super) fn begin_partial(&mut self, hash: Key, manifest: Arc<Manifest>, place: Place) {
        self.end_partial(&hash);
        self.arriving_bytes += cached_length(&place, &manifest);
        let good = vec![0; manifest.keys().len().div_ceil(64)];
        let partial = Partial { manifest: manifest.clone(), place, good };
        let slot = self.occupy(Held::Partial(partial), &manifest);
        self.partials.insert(hash, slot);
    }

    pub(super) fn chunk_done(&mut self, hash: &Key, chunk: u32) {
        let Some(slot) = self.partials.get(hash) else {
            return;
        };
        if let Some(Some(Held::Partial(partial))) = self.slots.get_mut(*slot as usize) {
            if let Some(word) = partial.good.get_mut(chunk as usize / 64) {
                *word |= 1 << (chunk % 64);
            }
        }
    }

    /// A chunk of downloads is not there any more.
    pub(super) fn chunk_lost(&mut self, key: &Key) {
        let found: Vec<(u32, u32)> = self.index.candidates(key).collect();
        for (slot, chunk) in found {
            let Some(Some(Held::Partial(partial))) = self.slots.get_mut(slot as usize) else { continue };
            if partial.manifest.keys().get(chunk as usize) == Some(key) {
                partial.good[chunk as usize / 64] &= !(1 << (chunk % 64));
            }
        }
    }

    pub(super) fn end_partial(&mut self, hash: &Key) {
        let Some(slot) = self.partials.remove(hash) else {
            return;
        };
        if let Some(Held::Partial(partial)) = self.vacate(slot) {
            self.arriving_bytes -= cached_length(&partial.place, &partial.manifest);
        }
    }

    /// The manifest of a download, and where it goes.
    pub(super) fn partial(&self, hash: &Key) -> Option<(&Arc<Manifest>, &Place)> {
        match self.slots.get(*self.partials.get(hash)? as usize)? {
            Some(Held::Partial(partial)) => Some((&partial.manifest, &partial.place)),
            _ => None,
        }
    }

    /// A share's manifest, or a chunk (or one-chunk file) that is there. Shares come before downloads.
    pub(super) fn locate(&self, key: &Key) -> Option<(Content, Extent)> {
        if let Some(&slot) = self.shares.get(key) {
            let whole = self.whole(slot);
            if whole.manifest_bytes > 0 {
                let (place, length) = (Place::ShareManifest(*key), whole.manifest_bytes);
                return Some((Content::Manifest, Extent { place, offset: 0, length, stamp: None }));
            }
        }
        let (slot, chunk) = self.find_chunk(key)?;
        let (manifest, place, stamp) = match self.slots.get(slot as usize)?.as_ref()? {
            Held::Whole(Whole { share, .. }) => (&share.manifest, &share.place, Some(share.stamp)),
            Held::Partial(partial) => (&partial.manifest, &partial.place, None),
        };
        let content = if manifest.is_single() { Content::File } else { Content::Chunk };
        let (offset, length) = (manifest.chunk_offset(chunk), manifest.chunk_length(chunk));
        Some((content, Extent { place: place.clone(), offset, length, stamp }))
    }

    /// The slot and the number of a chunk that is there, in a share when there is one.
    fn find_chunk(&self, key: &Key) -> Option<(u32, u32)> {
        let present = self.index.candidates(key).filter_map(|(slot, chunk)| {
            let (keys, partial) = match self.slots.get(slot as usize)?.as_ref()? {
                Held::Whole(whole) => (whole.share.manifest.keys(), None),
                Held::Partial(partial) => (partial.manifest.keys(), Some(&partial.good)),
            };
            let here = partial.is_none_or(|good| good[chunk as usize / 64] >> (chunk % 64) & 1 == 1);
            (here && keys.get(chunk as usize) == Some(key)).then_some((partial.is_some(), slot, chunk))
        });
        present.min().map(|(_, slot, chunk)| (slot, chunk))
    }

    fn slot_with(&self, key: &Key) -> Option<u32> {
        self.shares.get(key).copied().or_else(|| self.find_chunk(key).map(|(slot, _)| slot))
    }

    fn occupy(&mut self, held: Held, manifest: &Manifest) -> u32 {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(held);
        self.index.insert(slot as u32, manifest.keys());
        slot as u32
    }

    fn vacate(&mut self, slot: u32) -> Option<Held> {
        self.index.remove(slot);
        self.slots[slot as usize].take()
    }

    fn whole(&self, slot: u32) -> &Whole {
        match &self.slots[slot as usize] {
            Some(Held::Whole(whole)) => whole,
            _ => unreachable!("a share's slot holds a share"),
        }
    }

    fn whole_mut(&mut self, slot: u32) -> &mut Whole {
        match &mut self.slots[slot as usize] {
            Some(Held::Whole(whole)) => whole,
            _ => unreachable!("a share's slot holds a share"),
        }
    }
}

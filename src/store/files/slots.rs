//! The slots of files: of each file that is shared or downloaded, and of the chunks that these have.

use super::claims::{Claim, Claims, Shared};
use crate::id::Key;
use crate::io::{Place, Share, ShareState};
use crate::manifest::Manifest;
use crate::store::index::ChunkIndex;
use std::sync::Arc;

/// The least number of vacated slots before their entries are removed from the index.
const VACATED_MIN: usize = 64;

/// A shared file.
pub(super) struct Whole {
    pub(super) shared: Shared,
    /// In the order in which they were made.
    pub(super) claims: Claims,
    /// Whether its chunks are in the index. Then its manifest is on disk.
    pub(super) indexed: bool,
    /// The count of uses at its last use.
    pub(super) used: u64,
}

const _: () = assert!(size_of::<Option<Held>>() <= 136, "there is one for each shared file");

impl Whole {
    /// The claim from which the file is served.
    pub(super) fn source(&self) -> Option<&Claim> {
        self.claims().iter().find(|claim| claim.state == ShareState::Present).filter(|_| self.indexed)
    }

    pub(super) fn cached(&self) -> Option<&Claim> {
        self.claims().iter().find(|claim| claim.is_cached())
    }

    pub(super) fn claims(&self) -> &[Claim] {
        self.claims.as_slice()
    }

    pub(super) fn record(&self, claim: &Claim) -> Share {
        let Shared { hash, layout, replicas, lifetime, replicated } = self.shared;
        let Claim { stamp, state, synced, .. } = *claim;
        let (place, length) = (claim.place(&hash), layout.length());
        Share { hash, length, place, stamp, state, replicas, lifetime, replicated, synced }
    }
}

/// The target of a download.
pub(super) struct Partial {
    pub(super) manifest: Arc<Manifest>,
    pub(super) place: Place,
    /// One bit for each chunk that is verified.
    good: Vec<u64>,
}

impl Partial {
    /// A target without a verified chunk.
    pub(super) fn new(manifest: Arc<Manifest>, place: Place) -> Self {
        let good = vec![0; manifest.keys().len().div_ceil(64)];
        Partial { manifest, place, good }
    }

    /// A chunk is verified, if the file has it.
    pub(super) fn done(&mut self, chunk: u32) {
        if let Some(word) = self.good.get_mut(chunk as usize / 64) {
            *word |= 1 << (chunk % 64);
        }
    }

    /// A chunk with this key no longer matches it.
    fn lost(&mut self, chunk: u32, key: &Key) {
        if self.manifest.keys().get(chunk as usize) == Some(key) {
            self.good[chunk as usize / 64] &= !(1 << (chunk % 64));
        }
    }

    /// Whether a chunk is verified and has this key.
    fn has(&self, chunk: u32, key: &Key) -> bool {
        let good = self.good.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1);
        good && self.manifest.keys().get(chunk as usize) == Some(key)
    }
}

/// A file in a slot.
pub(super) enum Held {
    Whole(Whole),
    Partial(Box<Partial>),
}

/// The files by their slots, and the index of their chunks.
pub(super) struct Slots {
    slots: Vec<Option<Held>>,
    /// Slots that may be used again.
    free: Vec<u32>,
    /// Empty slots that still have entries in the index.
    vacated: Vec<u32>,
    index: ChunkIndex,
}

impl Slots {
    /// No files. `seed` must be a secret random number.
    pub(super) fn new(seed: u64) -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), vacated: Vec::new(), index: ChunkIndex::new(seed) }
    }

    // Getters.

    /// The number of slots, empty ones included.
    pub(super) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The shared files.
    pub(super) fn shares(&self) -> impl Iterator<Item = &Whole> {
        let held = self.slots.iter().flatten();
        held.filter_map(|held| match held {
            Held::Whole(whole) => Some(whole),
            Held::Partial(_) => None,
        })
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Held> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The shared file in a slot.
    pub(super) fn whole(&self, slot: u32) -> Option<&Whole> {
        match self.get(slot)? {
            Held::Whole(whole) => Some(whole),
            Held::Partial(_) => None,
        }
    }

    pub(super) fn whole_mut(&mut self, slot: u32) -> Option<&mut Whole> {
        match self.slots.get_mut(slot as usize)? {
            Some(Held::Whole(whole)) => Some(whole),
            _ => None,
        }
    }

    /// The download in a slot.
    pub(super) fn partial(&self, slot: u32) -> Option<&Partial> {
        match self.get(slot)? {
            Held::Partial(partial) => Some(partial),
            Held::Whole(_) => None,
        }
    }

    pub(super) fn partial_mut(&mut self, slot: u32) -> Option<&mut Partial> {
        match self.slots.get_mut(slot as usize)? {
            Some(Held::Partial(partial)) => Some(partial),
            _ => None,
        }
    }

    /// A file that has a chunk, and the chunk's index in it. Shares come before downloads.
    pub(super) fn with_chunk(&self, key: &Key) -> Option<(u32, u32)> {
        let present = self.index.candidates(key).filter_map(|(slot, chunk)| {
            let rank = match self.get(slot)? {
                Held::Whole(whole) => {
                    whole.source()?;
                    (chunk < whole.shared.layout.chunk_count()).then_some(1)?
                }
                Held::Partial(partial) => partial.has(chunk, key).then_some(2)?,
            };
            Some((rank, slot, chunk))
        });
        present.min().map(|(_, slot, chunk)| (slot, chunk))
    }

    // Changes.

    /// Puts a file into a slot that is free.
    pub(super) fn occupy(&mut self, held: Held) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(held);
        slot
    }

    /// Enters the chunks of the file in a slot into the index.
    pub(super) fn index(&mut self, slot: u32, manifest: &Manifest) {
        self.index.insert(slot, (0..).zip(manifest.keys().iter().copied()));
    }

    /// Empties a slot. The index drops the entries of vacated slots once these are a quarter of all slots, so that the cost per slot
    /// is constant.
    pub(super) fn vacate(&mut self, slot: u32) -> Option<Held> {
        let held = self.slots[slot as usize].take();
        self.vacated.push(slot);
        if self.vacated.len() > VACATED_MIN.max(self.slots.len() / 4) {
            self.index.retain(|slot| self.slots[slot as usize].is_some());
            self.free.append(&mut self.vacated);
        }
        held
    }

    /// A chunk in the targets of downloads no longer matches its key.
    pub(super) fn chunk_lost(&mut self, key: &Key) {
        let found: Vec<(u32, u32)> = self.index.candidates(key).collect();
        for (slot, chunk) in found {
            if let Some(partial) = self.partial_mut(slot) {
                partial.lost(chunk, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};

    fn partial(fill: u8, chunks: u64) -> (Held, Arc<Manifest>) {
        let length = chunks * CHUNK_BYTES_MIN;
        let mut builder = ManifestBuilder::new(length).unwrap();
        builder.update(&vec![fill; length as usize]);
        let manifest = Arc::new(builder.finish().unwrap());
        let place = Place::Cache(manifest.hash());
        (Held::Partial(Box::new(Partial::new(manifest.clone(), place))), manifest)
    }

    #[test]
    fn a_chunk_of_a_download_is_found_while_it_is_verified() {
        let mut slots = Slots::new(1);
        let (held, manifest) = partial(1, 2);
        let slot = slots.occupy(held);
        slots.index(slot, &manifest);
        let key = manifest.keys()[1];
        assert_eq!(slots.with_chunk(&key), None);
        slots.partial_mut(slot).unwrap().done(1);
        slots.partial_mut(slot).unwrap().done(4000);
        assert_eq!(slots.with_chunk(&key), Some((slot, 1)));
        slots.chunk_lost(&key);
        assert_eq!(slots.with_chunk(&key), None);
    }

    #[test]
    fn a_slot_is_used_again_only_after_the_index_has_forgotten_its_chunks() {
        let mut slots = Slots::new(1);
        let (first, manifest) = partial(1, 2);
        let slot = slots.occupy(first);
        slots.index(slot, &manifest);
        slots.vacate(slot);
        let others: Vec<u32> = (0..VACATED_MIN as u32).map(|_| slots.occupy(partial(2, 2).0)).collect();
        assert!(!others.contains(&slot));
        others.iter().for_each(|other| _ = slots.vacate(*other));
        assert_eq!(slots.index.candidates(&manifest.keys()[0]).count(), 0);
        assert!(slots.occupy(partial(3, 2).0) <= VACATED_MIN as u32, "an old slot");
    }
}

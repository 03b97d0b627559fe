//! Which file of this node holds which chunk, in 16 bytes a chunk.
//!
//! The full keys are in the manifests, which are in memory anyway. The index keeps a fingerprint of each in a sorted
//! vector, and whoever finds a fingerprint compares the key. Fingerprints are made under a secret seed, so nobody can make
//! files whose chunks all meet in one place.

use crate::id::Key;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A chunk of a file in one of the caller's slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fingerprint: u64,
    slot: u32,
    chunk: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// The chunks of every file here, in the order of their fingerprints.
pub(super) struct ChunkIndex {
    seed: u64,
    entries: Vec<Entry>,
}

impl ChunkIndex {
    pub(super) fn new(seed: u64) -> Self {
        ChunkIndex { seed, entries: Vec::new() }
    }

    /// Adds the chunks of the file in `slot`, in time linear in what is there.
    pub(super) fn insert(&mut self, slot: u32, keys: &[Key]) {
        let mut new: Vec<Entry> = (0..)
            .zip(keys)
            .map(|(chunk, key)| Entry { fingerprint: self.fingerprint(key), slot, chunk })
            .collect();
        new.sort_unstable();
        // Merges from the back, so that every entry moves once and no second vector is needed.
        let mut old = self.entries.len();
        self.entries.reserve_exact(new.len());
        self.entries.extend_from_slice(&new);
        let mut at = self.entries.len();
        while let Some(&last) = new.last() {
            at -= 1;
            if old > 0 && self.entries[old - 1] > last {
                old -= 1;
                self.entries[at] = self.entries[old];
            } else {
                self.entries[at] = last;
                new.pop();
            }
        }
    }

    /// Removes the chunks of the file in `slot`.
    pub(super) fn remove(&mut self, slot: u32) {
        self.entries.retain(|entry| entry.slot != slot);
        if self.entries.len() < self.entries.capacity() / 2 {
            self.entries.shrink_to_fit();
        }
    }

    /// The slots and chunks whose key may be `key`.
    pub(super) fn candidates(&self, key: &Key) -> impl Iterator<Item = (u32, u32)> + '_ {
        let fingerprint = self.fingerprint(key);
        let first = self.entries.partition_point(|entry| entry.fingerprint < fingerprint);
        self.entries[first..]
            .iter()
            .take_while(move |entry| entry.fingerprint == fingerprint)
            .map(|entry| (entry.slot, entry.chunk))
    }

    fn fingerprint(&self, key: &Key) -> u64 {
        xxh3_64_with_seed(&key.0, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_chunk_is_found_until_its_file_is_removed() {
        let mut rng = Rng::new([1; 32]);
        let files: Vec<Vec<Key>> = [1, 100, 3, 0, 57]
            .into_iter()
            .map(|count| (0..count).map(|_| Key(rng.bytes())).collect())
            .collect();
        let mut index = ChunkIndex::new(7);
        for (slot, keys) in (0..).zip(&files) {
            index.insert(slot, keys);
            assert!(index.entries.is_sorted());
        }
        index.remove(1);
        for (slot, keys) in (0..).zip(&files) {
            for (chunk, key) in (0..).zip(keys) {
                assert_eq!(index.candidates(key).any(|found| found == (slot, chunk)), slot != 1);
            }
        }
    }

    #[test]
    fn a_chunk_of_two_files_is_found_in_both() {
        let mut index = ChunkIndex::new(7);
        let keys = [Key([1; 32]), Key([2; 32])];
        index.insert(4, &keys);
        index.insert(2, &keys[1..]);
        assert_eq!(index.candidates(&keys[1]).collect::<Vec<_>>(), [(2, 0), (4, 1)]);
        assert_eq!(index.candidates(&Key([3; 32])).count(), 0);
    }
}

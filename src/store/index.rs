//! The index from chunks to the files that have them, in 16 bytes a chunk.
//!
//! The keys themselves are not in memory: those of 100,000 files of several chunks would not fit a router. The index keeps a 64-bit
//! fingerprint of each under a secret (keyed BLAKE3), so an attacker cannot make chunks whose fingerprints collide. An accidental
//! collision is less likely than an error of the medium, and the receiver of a chunk verifies it anyway.
//!
//! Entries are in two sorted runs. New ones enter the short run, which is merged into the long run when it reaches a fraction of
//! it. So adding a file costs little whether there are ten files or a hundred thousand.

use crate::id::Key;

/// A chunk of the file in one of the caller's slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fingerprint: u64,
    slot: u32,
    chunk: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// The short run is not merged below this number of entries,
const FRESH_MIN: usize = 1024;
/// nor below this fraction (1/32) of the long run.
const FRESH_PART: usize = 32;

/// The chunks of all files, in the order of their fingerprints.
pub(super) struct ChunkIndex {
    secret: [u8; 32],
    settled: Vec<Entry>,
    fresh: Vec<Entry>,
}

impl ChunkIndex {
    pub(super) fn new(seed: u64) -> Self {
        let secret = blake3::derive_key("elver store index fingerprints", &seed.to_le_bytes());
        ChunkIndex { secret, settled: Vec::new(), fresh: Vec::new() }
    }

    /// Adds the chunks of the file in `slot`, each with its index and key.
    pub(super) fn insert(&mut self, slot: u32, keys: impl Iterator<Item = (u32, Key)>) {
        let entries = keys.map(|(chunk, key)| Entry { fingerprint: self.fingerprint(&key), slot, chunk });
        let mut new: Vec<Entry> = entries.collect();
        new.sort_unstable();
        merge(&mut self.fresh, &new);
        if self.fresh.len() > FRESH_MIN.max(self.settled.len() / FRESH_PART) {
            merge(&mut self.settled, &self.fresh);
            self.fresh.clear();
            self.fresh.shrink_to(FRESH_MIN);
        }
    }

    /// Drops the entries of slots for which `is_live` is false. Only then may such a slot be used again.
    pub(super) fn retain(&mut self, is_live: impl Fn(u32) -> bool) {
        self.fresh.retain(|entry| is_live(entry.slot));
        self.settled.retain(|entry| is_live(entry.slot));
        if self.settled.len() < self.settled.capacity() / 2 {
            self.settled.shrink_to_fit();
        }
    }

    /// The slots and chunks that may have the key `key`, by its fingerprint. Vacated slots may be among them.
    pub(super) fn candidates(&self, key: &Key) -> impl Iterator<Item = (u32, u32)> + '_ {
        let fingerprint = self.fingerprint(key);
        [&self.settled, &self.fresh].into_iter().flat_map(move |run| {
            let first = run.partition_point(|entry| entry.fingerprint < fingerprint);
            let same = run[first..].iter().take_while(move |entry| entry.fingerprint == fingerprint);
            same.map(|entry| (entry.slot, entry.chunk))
        })
    }

    fn fingerprint(&self, key: &Key) -> u64 {
        let hash = blake3::keyed_hash(&self.secret, &key.0);
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
    }
}

/// Merges a sorted run into another, from the back: each entry moves at most once, and no third run is allocated.
fn merge(run: &mut Vec<Entry>, new: &[Entry]) {
    let mut old = run.len();
    run.reserve_exact(new.len());
    run.extend_from_slice(new);
    let (mut at, mut left) = (run.len(), new.len());
    while let Some(last) = left.checked_sub(1).map(|last| new[last]) {
        at -= 1;
        if old > 0 && run[old - 1] > last {
            old -= 1;
            run[at] = run[old];
        } else {
            run[at] = last;
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn add(index: &mut ChunkIndex, slot: u32, keys: &[Key]) {
        index.insert(slot, (0..).zip(keys.iter().copied()));
        assert!(index.settled.is_sorted() && index.fresh.is_sorted());
    }

    #[test]
    fn every_chunk_is_found_until_its_file_is_removed() {
        let mut rng = Rng::new([1; 32]);
        let files: Vec<Vec<Key>> = [1, 100, 3, 0, 57, 2000, 1, 3000]
            .into_iter()
            .map(|count| (0..count).map(|_| Key(rng.bytes())).collect())
            .collect();
        let mut index = ChunkIndex::new(7);
        for (slot, keys) in (0..).zip(&files) {
            add(&mut index, slot, keys);
        }
        index.retain(|slot| slot != 1);
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
        add(&mut index, 4, &keys);
        add(&mut index, 2, &keys[1..]);
        assert_eq!(index.candidates(&keys[1]).collect::<Vec<_>>(), [(2, 0), (4, 1)]);
        assert_eq!(index.candidates(&Key([3; 32])).count(), 0);
    }
}

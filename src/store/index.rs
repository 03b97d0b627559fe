//! Which file of this node holds which chunk, in 16 bytes a chunk.
//!
//! The keys themselves are not in memory: 100,000 files of several chunks would not fit a router. The index keeps 64 bits
//! of each, under a secret (BLAKE3, keyed), so that nobody can make a file whose chunks are taken for another's; that two
//! keys meet by chance is less likely than that the medium alters the chunk, and who receives a chunk checks it anyway.
//!
//! Entries lie in two sorted runs. New ones enter the short run, which is merged into the long one when it has grown to a
//! part of it: so adding a file costs little whether there are ten or a hundred thousand.

use crate::id::Key;

/// A chunk of a file in one of the caller's slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fingerprint: u64,
    slot: u32,
    chunk: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// The short run may have this many entries, whatever the long one has.
const FRESH_MIN: usize = 1024;
/// And this part of what the long one has.
const FRESH_PART: usize = 32;

/// The chunks of every file here, in the order of their fingerprints.
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

    /// Adds keys of the file in `slot`, each with its number.
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

    /// Keeps the entries of the slots that `is_live` holds for. A slot must not be used again before.
    pub(super) fn retain(&mut self, is_live: impl Fn(u32) -> bool) {
        self.fresh.retain(|entry| is_live(entry.slot));
        self.settled.retain(|entry| is_live(entry.slot));
        if self.settled.len() < self.settled.capacity() / 2 {
            self.settled.shrink_to_fit();
        }
    }

    /// The slots and chunks whose key is `key`. Those of slots that have been vacated may be among them.
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

/// Merges a sorted run into another, from the back: every entry moves once at most, and no third run is needed.
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

//! A file: the written parts, by reference, with holes between them.

use super::error;
use crate::io::{DiskError, DiskErrorKind, FileStamp, Mode};
use crate::manifest::Manifest;
use crate::sim::blob::{Blob, Slice, joined};
use crate::sim::chance::Chance;
use std::collections::BTreeMap;

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    parts: BTreeMap<u64, Slice>,
    length: u64,
    /// Whether its content survives a power cut.
    pub(super) synced: bool,
    pub(super) stamp: FileStamp,
}

impl File {
    /// A file that is one hole. `number` makes its stamp unlike those of other files.
    pub(super) fn new(number: u64, length: u64) -> Self {
        let stamp = FileStamp { length, modified: number as i64, changed: 0, mode: Mode::of(0o644) };
        File { parts: BTreeMap::new(), length, synced: false, stamp }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The bytes that it takes on the disk. Holes take none.
    pub(super) fn held(&self) -> u64 {
        self.parts.values().map(|part| part.len() as u64).sum()
    }

    /// A run of its bytes. Holes read as zeros.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<Slice>, DiskError> {
        let end = offset + length as u64;
        if end > self.length {
            return Err(error(DiskErrorKind::Changed, "the file is shorter"));
        }
        let first = self.parts.range(..=offset).next_back().map_or(offset, |(at, _)| *at);
        let (mut at, mut parts) = (offset, Vec::new());
        let zeros = |count: u64| Slice::whole(Blob::new(vec![0; count as usize]));
        for (from, part) in self.parts.range(first..end) {
            let part_end = from + part.len() as u64;
            if part_end <= at {
                continue;
            }
            if *from > at {
                parts.push(zeros(from - at));
                at = *from;
            }
            let until = part_end.min(end);
            parts.push(part.part((at - from) as usize, (until - at) as usize));
            at = until;
        }
        if at < end {
            parts.push(zeros(end - at));
        }
        Ok(parts)
    }

    /// The whole content.
    pub(super) fn content(&self) -> Result<Slice, DiskError> {
        self.read(0, self.length as usize).map(joined)
    }

    /// Writes a slice, and grows the file if necessary. Returns the number of bytes that the slice replaced.
    pub(super) fn write(&mut self, offset: u64, slice: Slice) -> u64 {
        let length = slice.len() as u64;
        self.length = self.length.max(offset + length);
        self.stamp.length = self.length;
        let old = if length > 0 { self.parts.insert(offset, slice) } else { None };
        old.map_or(0, |old| old.len() as u64)
    }

    /// For each chunk, whether its content has the key in the manifest. A chunk that was never written has not.
    pub(super) fn good_chunks(&self, manifest: &Manifest) -> Vec<bool> {
        let good = |index: u32| {
            let (from, length) = (manifest.chunk_offset(index), manifest.chunk_length(index) as usize);
            let whole = self.parts.range(from..from + length.max(1) as u64).next().is_some();
            let parts = if whole { self.read(from, length).ok() } else { None };
            parts.is_some_and(|parts| {
                joined(parts).key(manifest.hash_as(index)) == manifest.keys()[index as usize]
            })
        };
        (0..manifest.chunk_count()).map(good).collect()
    }

    /// Flips a bit of every part. The stamp stays the same.
    pub(super) fn rot(&mut self) {
        self.parts.values_mut().for_each(|part| *part = part.damaged());
    }

    /// A power cut: each part is lost with probability 1/2, unless the file was synced.
    pub(super) fn tear(&mut self, chance: &mut Chance) {
        if !self.synced {
            self.parts.retain(|_, _| chance.happens(0.5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(file: &File, offset: u64, length: usize) -> Vec<u8> {
        joined(file.read(offset, length).unwrap()).bytes().to_vec()
    }

    #[test]
    fn holes_are_zeros_and_a_read_past_the_end_is_refused() {
        let mut file = File::new(1, 10);
        assert_eq!(file.write(4, Slice::whole(Blob::new(vec![7; 3]))), 0);
        assert_eq!(bytes(&file, 0, 10), [0, 0, 0, 0, 7, 7, 7, 0, 0, 0]);
        assert_eq!(bytes(&file, 5, 3), [7, 7, 0]);
        assert_eq!(file.read(5, 6).unwrap_err().kind, DiskErrorKind::Changed);
        assert_eq!(file.held(), 3);
        assert_eq!(file.length(), 10);
        assert_eq!(file.write(4, Slice::whole(Blob::new(vec![8; 9]))), 3, "it took the place of three");
        assert_eq!(file.length(), 13);
        assert_eq!(file.stamp.length, 13);
    }

    #[test]
    fn a_power_cut_tears_a_file_that_was_not_synced_and_no_other() {
        let mut file = File::new(1, 0);
        for at in 0..64 {
            file.write(at, Slice::whole(Blob::new(vec![1])));
        }
        let mut synced = File { synced: true, ..file.clone() };
        file.tear(&mut Chance::new(1, 1));
        synced.tear(&mut Chance::new(1, 1));
        assert!((1..64).contains(&file.held()));
        assert_eq!(synced.held(), 64);
    }

    #[test]
    fn a_chunk_is_good_when_it_was_written_and_is_what_the_manifest_says() {
        let blob = Blob::random(600_000, 3);
        let (manifest, whole) = (blob.manifest(), Slice::whole(blob));
        let mut file = File::new(1, 600_000);
        assert!(file.good_chunks(&manifest).iter().all(|good| !good));
        file.write(0, whole.part(0, 1 << 18));
        assert_eq!(file.good_chunks(&manifest), [true, false, false]);
        file.write(1 << 18, whole.part(1 << 18, 1 << 18));
        file.write(2 << 18, whole.part(2 << 18, 600_000 - (2 << 18)));
        assert_eq!(file.good_chunks(&manifest), [true; 3]);
        file.rot();
        assert!(!file.good_chunks(&manifest)[0]);
    }
}

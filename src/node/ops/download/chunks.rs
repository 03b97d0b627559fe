//! The chunks of a file that a download has.

use crate::io::{Extent, Place, Sink};
use crate::manifest::Manifest;
use std::sync::Arc;

/// The chunks of a file that is being downloaded.
pub(super) struct Chunks {
    manifest: Arc<Manifest>,
    have: Vec<bool>,
    have_bytes: u64,
    /// All chunks before this one are present.
    prefix: u32,
}

impl Chunks {
    /// No chunk is present yet.
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        let have = vec![false; manifest.chunk_count() as usize];
        Chunks { manifest, have, have_bytes: 0, prefix: 0 }
    }

    pub(super) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// For each chunk, whether it is present.
    pub(super) fn have(&self) -> &[bool] {
        &self.have
    }

    /// The bytes of the chunks that are present.
    pub(super) fn have_bytes(&self) -> u64 {
        self.have_bytes
    }

    /// The indices of the chunks that are present.
    pub(super) fn present(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.have).filter(|(_, have)| **have).map(|(index, _)| index)
    }

    /// The bytes from the start of the file that are present, without a gap.
    pub(super) fn prefix_bytes(&self) -> u64 {
        self.manifest.chunk_offset(self.prefix).min(self.manifest.length())
    }

    /// Whether this is a chunk of the file, and is missing.
    pub(super) fn lacks(&self, index: u32) -> bool {
        self.have.get(index as usize) == Some(&false)
    }

    /// The number of missing chunks.
    pub(super) fn missing(&self) -> usize {
        self.have.iter().filter(|have| !**have).count()
    }

    /// Enters a chunk as present.
    pub(super) fn mark(&mut self, index: u32) {
        if let Some(have @ false) = self.have.get_mut(index as usize) {
            *have = true;
            self.have_bytes += u64::from(self.manifest.chunk_length(index));
        }
        while self.have.get(self.prefix as usize) == Some(&true) {
            self.prefix += 1;
        }
    }

    /// Keeps only those chunks present for which `good` is set.
    pub(super) fn keep_only(&mut self, good: &[bool]) {
        let kept: Vec<u32> =
            self.present().filter(|index| good.get(*index as usize) == Some(&true)).collect();
        self.have.fill(false);
        (self.have_bytes, self.prefix) = (0, 0);
        kept.into_iter().for_each(|index| self.mark(index));
    }

    /// The extent of a chunk in a file with the same content.
    pub(super) fn extent(&self, index: u32, place: Place) -> Extent {
        let (offset, length) = (self.manifest.chunk_offset(index), self.manifest.chunk_length(index));
        Extent { place, offset, length, stamp: None }
    }

    /// The sink of a chunk in the target.
    pub(super) fn sink(&self, index: u32, place: Place) -> Sink {
        let (offset, length) = (self.manifest.chunk_offset(index), self.manifest.chunk_length(index));
        Sink { place, offset, length, hash_as: self.manifest.hash_as(index) }
    }
}

//! Getters of the machine for tests only.

use crate::id::{Key, NodeId};
use crate::time::Instant;
use crate::transfer::downloads::swarm;
use crate::transfer::{DownloadId, Transfer};

impl Transfer {
    /// The number of downloads under way.
    pub(crate) fn downloads(&self) -> usize {
        self.downloads.len()
    }

    /// The number of copies to other nodes that are under way or queued.
    pub(crate) fn pushes(&self) -> usize {
        self.pushes.len()
    }

    /// The number of inspections that wait for a stream or for their answer.
    pub(crate) fn inspections(&self) -> usize {
        self.inspections.len()
    }

    /// The challenges under way, in both directions.
    pub(crate) fn proofs(&self) -> usize {
        self.proofs.len()
    }

    /// The sources that are banned from a download's file now.
    pub(crate) fn download_banned(&self, download: DownloadId) -> Vec<NodeId> {
        self.downloads.banned(download)
    }

    /// Up to `max` pieces that a download misses: chunks, or the file's hash while its root is missing.
    pub(crate) fn download_missing(&self, download: DownloadId, max: usize) -> Vec<Key> {
        self.downloads.missing(download, max)
    }

    /// Whether a chunk of a download is verified and in its place.
    pub(crate) fn download_has(&self, download: DownloadId, index: u32) -> bool {
        self.downloads.has(download, index)
    }

    /// Whether a peer is banned from a file.
    pub(crate) fn is_banned(&self, now: Instant, peer: &NodeId, file: &Key) -> bool {
        self.common.blame.is_banned(now, peer, file)
    }

    /// The number of chunks of a download that have been requested; 0 before it has chunks.
    pub(crate) fn download_in_flight(&self, download: DownloadId) -> usize {
        self.downloads.in_flight(download)
    }

    /// The number of chunks of a download that are verified and in their places.
    pub(crate) fn download_have(&self, download: DownloadId) -> u32 {
        self.downloads.have(download)
    }

    /// This node gains a chunk of a file.
    pub(super) fn tell_gained(&mut self, file: &Key, chunk: u32) {
        swarm::tell_gained(file, chunk, &mut self.common);
    }
}

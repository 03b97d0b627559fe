//! What only tests ask of the machine.

use crate::id::{Key, NodeId};
use crate::time::Instant;
use crate::transfer::downloads::chunks::Chunks;
use crate::transfer::downloads::download::Download;
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

    /// The sources that are banned from a download's file now.
    pub(crate) fn download_banned(&self, download: DownloadId) -> Vec<NodeId> {
        let Some(download) = self.downloads.get(&download) else { return Vec::new() };
        download.sources.values().filter(|source| source.banned).map(|source| source.contact.id).collect()
    }

    /// Up to `max` pieces that a download misses: chunks, or the file's hash while its root is missing.
    pub(crate) fn download_missing(&self, download: DownloadId, max: usize) -> Vec<Key> {
        match self.downloads.get(&download) {
            Some(download) => match download.chunks() {
                Some(chunks) => chunks.missing_keys().take(max).collect(),
                None => vec![download.hash],
            },
            None => Vec::new(),
        }
    }

    /// Whether a chunk of a download is verified and in its place.
    pub(crate) fn download_has(&self, download: DownloadId, index: u32) -> bool {
        let chunks = self.downloads.get(&download).and_then(Download::chunks);
        chunks.is_some_and(|chunks| index < chunks.count() && !chunks.is_missing(index))
    }

    /// Whether a peer is banned from a file.
    pub(crate) fn is_banned(&self, now: Instant, peer: &NodeId, file: &Key) -> bool {
        self.common.blame.is_banned(now, peer, file)
    }

    /// The number of chunks of a download that have been requested; 0 before it has chunks.
    pub(crate) fn download_in_flight(&self, download: DownloadId) -> usize {
        self.chunks_of(download).map_or(0, |chunks| chunks.in_flight().len())
    }

    /// The number of chunks of a download that are verified and in their places.
    pub(crate) fn download_have(&self, download: DownloadId) -> u32 {
        self.chunks_of(download).map_or(0, |chunks| chunks.count() - chunks.missing())
    }

    fn chunks_of(&self, download: DownloadId) -> Option<&Chunks> {
        self.downloads.get(&download).and_then(Download::chunks)
    }
}

//! What only tests ask of downloads.

use super::chunks::Chunks;
use super::download::Download;
use super::table::Downloads;
use crate::id::{Key, NodeId};
use crate::transfer::events::DownloadId;

impl Downloads {
    pub(in crate::transfer) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// The sources that are banned from a download's file now.
    pub(in crate::transfer) fn banned(&self, id: DownloadId) -> Vec<NodeId> {
        let sources = self.get(id).into_iter().flat_map(|download| download.sources.values());
        sources.filter(|source| source.banned).map(|source| source.contact.id).collect()
    }

    /// Up to `max` pieces that a download misses: chunks, or the file's hash while its root is missing.
    pub(in crate::transfer) fn missing(&self, id: DownloadId, max: usize) -> Vec<Key> {
        match (self.get(id), self.chunks_of(id)) {
            (_, Some(chunks)) => chunks.missing_keys().take(max).collect(),
            (Some(download), None) => vec![download.hash],
            (None, None) => Vec::new(),
        }
    }

    /// Whether a chunk is verified and in its place.
    pub(in crate::transfer) fn has(&self, id: DownloadId, index: u32) -> bool {
        self.chunks_of(id).is_some_and(|chunks| index < chunks.count() && !chunks.is_missing(index))
    }

    /// The number of chunks that are verified and in their places; 0 before the download has chunks.
    pub(in crate::transfer) fn have(&self, id: DownloadId) -> u32 {
        self.chunks_of(id).map_or(0, |chunks| chunks.count() - chunks.missing())
    }

    /// The number of chunks that have been requested.
    pub(in crate::transfer) fn in_flight(&self, id: DownloadId) -> usize {
        self.chunks_of(id).map_or(0, |chunks| chunks.in_flight().len())
    }

    fn chunks_of(&self, id: DownloadId) -> Option<&Chunks> {
        self.get(id).and_then(Download::chunks)
    }
}

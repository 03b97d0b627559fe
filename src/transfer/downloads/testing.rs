//! Helpers for the unit tests of downloads, and getters for other tests.

use super::chunks::Chunks;
use super::download::Download;
use super::table::Downloads;
use crate::id::{Key, NodeId};
use crate::io::Place;
use crate::limits::Limits;
use crate::time::Instant;
use crate::transfer::Transfer;
use crate::transfer::common::Common;
use crate::transfer::events::DownloadId;
use crate::transfer::streams::session::Request;
use crate::transfer::testing::{NOW, connected, manifest, peer, stream};

/// The download of [`fetching`].
pub(super) const ID: DownloadId = DownloadId(1);

/// The download of a file of `chunks` chunks, with two connected peers as sources. The `holders` among them are known to have
/// every chunk. Nothing has been requested.
pub(super) fn fetching(chunks: u32, holders: &[u8]) -> (Downloads, Common) {
    let Transfer { mut downloads, mut common, .. } = connected(2, Limits::default());
    let (file, have) = (manifest(chunks.into()), vec![false; chunks as usize]);
    let place = Place::Partial(std::path::Path::new("/target").into());
    assert!(downloads.begin(NOW, ID, file, (place, &have), &mut common));
    for seed in 1..=2 {
        assert!(downloads.add_source(NOW, ID, peer(seed), None, &mut common));
    }
    holders.iter().for_each(|&seed| downloads.has_all(seed));
    (downloads, common)
}

/// The requests over the stream of a peer, the oldest first.
pub(super) fn requests(common: &Common, seed: u8) -> Vec<Request> {
    common.streams.get(&stream(seed)).unwrap().requests.values().copied().collect()
}

/// The number of the oldest request over the stream of a peer.
pub(super) fn first_request(common: &Common, seed: u8) -> u32 {
    *common.streams.get(&stream(seed)).unwrap().requests.keys().next().unwrap()
}

impl Downloads {
    /// A peer announces every chunk of the download.
    pub(super) fn has_all(&mut self, seed: u8) {
        let download = self.the_one();
        let count = download.chunks().map_or(0, Chunks::count);
        (0..count).for_each(|index| download.note_holding(&peer(seed).id, index, true));
    }

    /// The download [`ID`].
    pub(super) fn the_one(&mut self) -> &mut Download {
        self.under_way.get_mut(&ID).unwrap()
    }

    /// Lets every download do what it can.
    pub(super) fn pump_all(&mut self, now: Instant, common: &mut Common) {
        self.note_change();
        while self.pump_next(now, common) {}
    }

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

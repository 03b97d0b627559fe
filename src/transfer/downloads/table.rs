//! The downloads under way: how they begin, change and end.

use super::chunks::Chunks;
use super::download::{Download, Phase};
use super::requests::withdraw;
use super::sources::Source;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskErrorKind, Place};
use crate::manifest::Manifest;
use crate::time::Instant;
use crate::transfer::common::{Closed, Common};
use crate::transfer::config::Timing;
use crate::transfer::events::{DownloadError, DownloadId, DownloadState, TransferEvent};
use crate::transfer::streams::session::Part;
use crate::wire::contact::Contact;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The downloads under way.
#[derive(Default)]
pub(in crate::transfer) struct Downloads {
    pub(super) under_way: BTreeMap<DownloadId, Download>,
    /// Downloads to be pumped, because something changed for them.
    pub(super) changed: BTreeSet<DownloadId>,
}

/// Getters.
impl Downloads {
    pub(in crate::transfer) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn get(&self, id: DownloadId) -> Option<&Download> {
        self.under_way.get(&id)
    }

    /// The state of a download's sources; `None` when there is no such download (any more).
    pub(in crate::transfer) fn state(&self, id: DownloadId, common: &Common) -> Option<DownloadState> {
        Some(self.get(id)?.state(|peer| common.streams.is_connected(peer)))
    }

    /// How many of these sources of a download were given up because they could not be reached.
    pub(in crate::transfer) fn unreached(&self, id: DownloadId, sources: &[Contact], common: &Common) -> u32 {
        let Some(download) = self.get(id) else { return 0 };
        let connected = |peer: &NodeId| common.streams.is_connected(peer);
        sources.iter().filter(|source| download.is_unreached(&source.id, connected)).count() as u32
    }

    /// When, with time alone, a download has something to do.
    pub(in crate::transfer) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().filter_map(|download| download.wake).min()
    }

    /// The downloads of a file.
    pub(super) fn of_file(&self, file: &Key) -> impl Iterator<Item = DownloadId> {
        self.under_way.iter().filter(move |(_, download)| download.hash == *file).map(|(&id, _)| id)
    }

    /// The number of downloads that take from a peer. Its capacity is divided among them, so that all advance together.
    pub(super) fn count_from(&self, peer: &NodeId) -> usize {
        let from = |download: &&Download| {
            download.chunks().is_some_and(|chunks| {
                download.sources.get(peer).is_some_and(|source| chunks.lacks_of(&source.has))
            })
        };
        self.under_way.values().filter(from).count()
    }
}

/// The node's orders.
impl Downloads {
    /// Starts a download with the piece under the file's own hash. False when there are too many downloads, or one with this
    /// number. A download that is not `shared` is not announced to peers.
    pub(in crate::transfer) fn fetch(
        &mut self,
        now: Instant,
        id: DownloadId,
        hash: Key,
        shared: bool,
        common: &mut Common,
    ) -> bool {
        let added = self.enter(now, id, hash, Phase::Root, common);
        if let Some(download) = self.under_way.get_mut(&id).filter(|_| added) {
            download.is_shared = shared;
        }
        added
    }

    /// Goes on with the chunks of a file, or starts with them, each to its place in `place`. False when there are too many
    /// downloads.
    pub(in crate::transfer) fn begin(
        &mut self,
        now: Instant,
        id: DownloadId,
        manifest: Arc<Manifest>,
        (place, have): (Place, &[bool]),
        common: &mut Common,
    ) -> bool {
        if !self.is_known_or_entered(now, id, manifest.hash(), common) {
            return false;
        }
        // A file in the cache is read while it arrives, from the start.
        let is_read = matches!(place, Place::Cache(_));
        let mut chunks = Chunks::new(manifest, place, have, common.rng.u64());
        if is_read {
            chunks.read_ahead();
        }
        self.begin_chunks(id, chunks, common);
        true
    }

    /// Goes on with the chunks of a file through a window, or starts with them. False when there are too many downloads.
    pub(in crate::transfer) fn begin_window(
        &mut self,
        now: Instant,
        id: DownloadId,
        manifest: Arc<Manifest>,
        (window, have, edge): (u64, &[bool], u32),
        common: &mut Common,
    ) -> bool {
        if !self.is_known_or_entered(now, id, manifest.hash(), common) {
            return false;
        }
        if let Some(download) = self.under_way.get_mut(&id) {
            download.is_shared = false;
        }
        self.begin_chunks(id, Chunks::in_window(manifest, window, have, edge), common);
        true
    }

    fn is_known_or_entered(&mut self, now: Instant, id: DownloadId, hash: Key, common: &mut Common) -> bool {
        self.under_way.contains_key(&id) || self.enter(now, id, hash, Phase::Prepare, common)
    }

    fn enter(&mut self, now: Instant, id: DownloadId, hash: Key, phase: Phase, common: &mut Common) -> bool {
        let limits = &common.config.limits;
        // An audit, too, fetches a root: it must not take the place of a download.
        let most = limits.downloads_max + limits.reads_max + limits.explains_max;
        if self.under_way.len() >= most || self.under_way.contains_key(&id) {
            return false;
        }
        if common.blame.has_ended(now) {
            self.review_bans(now, common);
        }
        self.under_way.insert(id, Download::new(now, id, hash, phase));
        self.changed.insert(id);
        true
    }

    fn begin_chunks(&mut self, id: DownloadId, chunks: Chunks, common: &mut Common) {
        withdraw(id, common);
        if let Some(download) = self.under_way.get_mut(&id) {
            download.begin(chunks);
        }
        self.changed.insert(id);
    }

    /// Adds a node that may have some of the file. `hearsay` is the peer that named it, if one did. False when there is no room.
    pub(in crate::transfer) fn add_source(
        &mut self,
        now: Instant,
        id: DownloadId,
        contact: Contact,
        hearsay: Option<NodeId>,
        common: &mut Common,
    ) -> bool {
        let mut source = Source::new(now, contact, common.rng.u64(), &common.config.timing);
        source.hearsay = hearsay;
        let most = common.config.limits.sources_per_download_max;
        let Some(download) = self.under_way.get_mut(&id) else { return true };
        source.banned = common.blame.is_banned(now, &contact.id, &download.hash);
        self.changed.insert(id);
        download.add_source(now, source, most, |id| common.streams.is_connected(id))
    }

    /// The window of a download moved: its chunks before `edge` may be requested.
    pub(in crate::transfer) fn advance(&mut self, id: DownloadId, edge: u32) {
        let Some(chunks) = self.under_way.get_mut(&id).and_then(Download::chunks_mut) else { return };
        debug_assert!(chunks.is_windowed(), "a download without a window has no edge");
        chunks.advance(edge);
        self.changed.insert(id);
    }

    /// A chunk is missing after all. False when there is no such download (any more).
    pub(in crate::transfer) fn want(&mut self, id: DownloadId, index: u32) -> bool {
        let Some(chunks) = self.under_way.get_mut(&id).and_then(Download::chunks_mut) else { return false };
        chunks.lose(index);
        self.changed.insert(id);
        true
    }

    /// Aborts a download. Nothing more is written to its target.
    pub(in crate::transfer) fn abort(&mut self, id: DownloadId, common: &mut Common) {
        withdraw(id, common);
        self.forget(id, common);
    }

    /// A download's target failed.
    pub(super) fn fail(&mut self, id: DownloadId, error: DiskError, common: &mut Common) {
        withdraw(id, common);
        if self.forget(id, common) {
            let error = match error.kind {
                DiskErrorKind::NoSpace => DownloadError::NoSpace(error),
                _ => DownloadError::Disk(error),
            };
            common.out.event(TransferEvent::DownloadFailed { download: id, error });
        }
    }

    /// Removes a download, and no longer follows its file. False when there is no such download.
    pub(super) fn forget(&mut self, id: DownloadId, common: &mut Common) -> bool {
        let removed = self.under_way.remove(&id);
        if let Some(download) = &removed {
            self.unfollow(download, common);
        }
        removed.is_some()
    }
}

/// Changes.
impl Downloads {
    /// Something changed that may matter to every download.
    pub(in crate::transfer) fn note_change(&mut self) {
        self.changed.extend(self.under_way.keys());
    }

    /// Lets the first of the changed downloads do everything that it can at this time. False when nothing changed for any.
    pub(in crate::transfer) fn pump_next(&mut self, now: Instant, common: &mut Common) -> bool {
        let Some(id) = self.changed.pop_first() else { return false };
        // It is not in the table meanwhile, so that it can look at the others.
        let Some(mut download) = self.under_way.remove(&id) else { return true };
        download.pump(now, self, common);
        if download.is_complete() {
            let sources = download.contributors.len() as u32;
            self.unfollow(&download, common);
            common.out.event(TransferEvent::Complete { download: id, sources });
        } else {
            self.under_way.insert(id, download);
        }
        true
    }

    /// Marks the downloads that have something to do by now.
    pub(in crate::transfer) fn wake(&mut self, now: Instant) {
        for (&id, download) in &mut self.under_way {
            if download.wake.is_some_and(|at| at <= now) {
                download.wake = None;
                self.changed.insert(id);
            }
        }
    }

    /// Content of a download is arriving.
    pub(in crate::transfer) fn note_progress(&mut self, now: Instant, id: DownloadId) {
        if let Some(download) = self.under_way.get_mut(&id) {
            download.last_progress = now;
        }
    }

    /// A node could not be reached.
    pub(in crate::transfer) fn unreachable(&mut self, now: Instant, peer: &NodeId, timing: &Timing) {
        for download in self.under_way.values_mut() {
            if let Some(source) = download.sources.get_mut(peer) {
                source.fail(now, timing);
            }
        }
    }

    /// A stream to a peer closed. What was requested over it is requested anew. `connected` tells whether there is another
    /// stream to the peer; else its sources are dialled again, later if they still owed something and are blamed for the end.
    pub(in crate::transfer) fn lost(
        &mut self,
        now: Instant,
        closed: &Closed,
        peer: &NodeId,
        connected: bool,
        timing: &Timing,
    ) {
        let session = &closed.session;
        let live = session.requests.iter().filter(|(_, request)| !request.cancelled);
        let mut needed: Vec<DownloadId> =
            session.questions.values().map(|question| question.download).collect();
        for (&number, request) in live {
            needed.push(request.download);
            let chunks = self.under_way.get_mut(&request.download).and_then(Download::chunks_mut);
            if let (Part::Chunk(index), Some(chunks)) = (request.part, chunks) {
                chunks.release(index, closed.stream, number);
            }
        }
        for (id, download) in &mut self.under_way {
            download.forget_holdings(peer);
            let Some(source) = download.sources.get_mut(peer).filter(|_| !connected) else { continue };
            match (needed.contains(id), closed.blames_peer) {
                (true, true) => source.fail(now, timing),
                (true, false) => source.retry_at = now,
                (false, _) => source.retry_at = now + source.ask_delay,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching, first_request, requests};
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::Transfer;
    use crate::transfer::streams::close::CloseReason;
    use crate::transfer::streams::session::{Purpose, Receiving};
    use crate::transfer::testing::{NOW, connected, manifest, peer, stream};

    fn start(downloads: &mut Downloads, id: u64, common: &mut Common) -> bool {
        downloads.fetch(NOW, DownloadId(id), Key([id as u8; 32]), true, common)
    }

    #[test]
    fn downloads_are_bounded_and_each_has_a_number_of_its_own() {
        let limits = Limits { downloads_max: 1, reads_max: 1, explains_max: 0, ..Limits::default() };
        let Transfer { mut downloads, mut common, .. } = connected(0, limits);
        assert!(start(&mut downloads, 1, &mut common));
        assert!(!start(&mut downloads, 1, &mut common));
        assert!(start(&mut downloads, 2, &mut common));
        assert!(!start(&mut downloads, 3, &mut common));
        downloads.abort(DownloadId(1), &mut common);
        assert!(start(&mut downloads, 3, &mut common));
    }

    #[test]
    fn a_download_that_lacks_nothing_is_complete_at_once() {
        let Transfer { mut downloads, mut common, .. } = connected(0, Limits::default());
        let place = Place::Cache(Key([1; 32]));
        assert!(downloads.begin(NOW, ID, manifest(2), (place, &[true, true]), &mut common));
        assert!(downloads.pump_next(NOW, &mut common));
        assert_eq!(common.events(), [TransferEvent::Complete { download: ID, sources: 0 }]);
        assert!(downloads.is_empty());
        assert!(!downloads.pump_next(NOW, &mut common));
    }

    #[test]
    fn an_aborted_download_cancels_its_requests() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 1).len(), 2);
        downloads.abort(ID, &mut common);
        assert!(requests(&common, 1).iter().all(|request| request.cancelled));
        assert!(common.unsettled.closed.is_empty(), "the stream stays");
    }

    #[test]
    fn a_stream_that_writes_to_the_target_is_closed_when_the_download_is_aborted() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let purpose = Purpose::Request(first_request(&common, 1));
        let session = common.streams.get_mut(&stream(1)).unwrap();
        session.receiving = Receiving::Sink { purpose, length: 9, begun: NOW, received: 0 };
        downloads.abort(ID, &mut common);
        assert_eq!(common.out.counters.stream_withdrawn, 1);
        assert!(common.streams.get(&stream(1)).is_none());
    }

    /// The source whose stream closes for this reason while it owes two chunks.
    fn source_after(reason: CloseReason) -> (u8, Instant) {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        common.close(stream(1), reason);
        let closed = common.unsettled.closed.pop_front().unwrap();
        downloads.lost(NOW, &closed, &peer(1).id, false, &common.config.timing);
        assert_eq!(downloads.in_flight(ID), 0, "the chunks may be requested from others");
        let source = &downloads.the_one().sources[&peer(1).id];
        (source.failures, source.retry_at)
    }

    #[test]
    fn a_source_that_is_to_blame_for_the_end_of_its_stream_is_dialled_again_later() {
        let (failures, retry_at) = source_after(CloseReason::Stalled);
        assert_eq!(failures, 1);
        assert_eq!(retry_at, NOW + Timing::default().retry_first);
    }

    #[test]
    fn a_source_whose_stream_this_node_gave_up_is_dialled_again_at_once() {
        let (failures, retry_at) = source_after(CloseReason::Displaced);
        assert_eq!(failures, 0);
        assert_eq!(retry_at, NOW);
    }

    #[test]
    fn a_download_is_woken_once_when_its_time_has_come() {
        let (mut downloads, mut common) = fetching(2, &[]);
        let due = NOW + Timing::default().pause;
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().pause = due;
        downloads.pump_all(NOW, &mut common);
        assert_eq!(downloads.next_deadline(), Some(due));
        downloads.wake(due);
        assert_eq!(downloads.next_deadline(), None, "a deadline that fired is disarmed");
        assert!(downloads.pump_next(due, &mut common));
        assert!(!downloads.pump_next(due, &mut common));
    }
}

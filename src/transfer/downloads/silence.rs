//! Sources that fell silent, and their return.
//!
//! A source from which nothing arrives any more may be behind a link that is down. A download gives it up after a few dials, and
//! later dials come rarely. So the node probes such sources with datagrams ([`Transfer::silent_sources`](crate::transfer::Transfer)),
//! and the first sign of life has the source dialled at once.

use super::download::{Download, Phase};
use super::sources::Source;
use super::table::Downloads;
use crate::id::NodeId;
use crate::io::StreamId;
use crate::time::{Duration, Instant};
use crate::transfer::common::Common;
use crate::transfer::events::{DownloadId, SilentSource};
use std::collections::BTreeMap;

/// A stream is silent when requested content makes no progress for this long.
const SILENT_AFTER: Duration = Duration::from_secs(2);

impl Downloads {
    /// The sources that downloads have met and hear nothing from, at most `most` of them. Those that have sent content come first.
    pub(in crate::transfer) fn silent_sources(
        &self,
        now: Instant,
        most: usize,
        common: &Common,
    ) -> Vec<SilentSource> {
        let mut silent: BTreeMap<(bool, NodeId), SilentSource> = BTreeMap::new();
        for download in self.under_way.values().filter(|download| download.needs_sources()) {
            for source in download.sources.values().filter(|source| source.met && !source.banned) {
                let id = source.contact.id;
                let stream = common.streams.to(&id);
                let is_silent = match stream {
                    Some(stream) => is_stalled(now, stream, common),
                    None => source.failures > 0,
                };
                if is_silent {
                    let found = SilentSource { contact: source.contact, connected: stream.is_some() };
                    silent.insert((!download.contributors.contains(&id), id), found);
                }
            }
        }
        silent.into_values().take(most).collect()
    }

    /// The streams to a peer over which requested content makes no progress.
    pub(in crate::transfer) fn stalled_streams(
        &self,
        now: Instant,
        peer: &NodeId,
        common: &Common,
    ) -> Vec<StreamId> {
        common.streams.all_to(peer).iter().copied().filter(|id| is_stalled(now, *id, common)).collect()
    }

    /// A silent source gave a sign of life: it may be dialled at once. Returns the downloads that it is a source of.
    pub(in crate::transfer) fn source_returned(&mut self, now: Instant, peer: &NodeId) -> Vec<DownloadId> {
        let mut back = Vec::new();
        for (&id, download) in &mut self.under_way {
            if let Some(source) = download.sources.get_mut(peer).filter(|source| !source.banned) {
                source.revive(now);
                self.changed.insert(id);
                back.push(id);
            }
        }
        back
    }
}

impl Download {
    /// Whether it misses pieces that a source may have.
    fn needs_sources(&self) -> bool {
        match &self.phase {
            Phase::Root => true,
            Phase::Prepare => false,
            Phase::Chunks(chunks) => chunks.missing() > 0,
        }
    }

    /// Notes which sources have authenticated themselves.
    pub(super) fn note_met(&mut self, common: &Common) {
        for source in self.sources.values_mut().filter(|source| !source.met) {
            source.met = common.streams.is_connected(&source.contact.id);
        }
    }
}

impl Source {
    /// It gave a sign of life: its failures are forgotten.
    fn revive(&mut self, now: Instant) {
        (self.failures, self.retry_at) = (0, now);
    }
}

fn is_stalled(now: Instant, stream: StreamId, common: &Common) -> bool {
    common.streams.get(&stream).is_some_and(|session| {
        session.requests.values().any(|request| !request.cancelled)
            && session.received_at + SILENT_AFTER <= now
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching, requests};
    use super::*;
    use crate::transfer::streams::close::CloseReason;
    use crate::transfer::testing::{NOW, peer, stream};

    /// A download with requests to its first source.
    fn requesting() -> (Downloads, Common) {
        let (mut downloads, mut common) = fetching(4, &[1]);
        downloads.pump_all(NOW, &mut common);
        assert!(!requests(&common, 1).is_empty());
        (downloads, common)
    }

    fn silent(downloads: &Downloads, now: Instant, common: &Common) -> Vec<NodeId> {
        downloads.silent_sources(now, 8, common).iter().map(|silent| silent.contact.id).collect()
    }

    #[test]
    fn a_source_is_silent_when_requested_content_makes_no_progress() {
        let (downloads, common) = requesting();
        assert_eq!(silent(&downloads, NOW, &common), []);
        let later = NOW + SILENT_AFTER;
        assert_eq!(silent(&downloads, later, &common), [peer(1).id], "nothing was requested from the other");
        assert!(downloads.silent_sources(later, 8, &common)[0].connected);
        assert_eq!(downloads.stalled_streams(later, &peer(1).id, &common), [stream(1)]);
    }

    #[test]
    fn a_source_whose_stream_broke_is_silent_and_returns_with_a_clean_record() {
        let (mut downloads, mut common) = requesting();
        common.close(stream(1), CloseReason::Stalled);
        let closed = common.unsettled.closed.pop_front().unwrap();
        downloads.lost(NOW, &closed, &peer(1).id, false, &common.config.timing);
        assert_eq!(silent(&downloads, NOW, &common), [peer(1).id]);
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().failures = 9;
        assert_eq!(downloads.source_returned(NOW, &peer(1).id), [ID]);
        let source = &downloads.the_one().sources[&peer(1).id];
        assert!(!source.given_up());
        assert_eq!(source.retry_at, NOW);
        assert_eq!(silent(&downloads, NOW, &common), []);
    }

    #[test]
    fn a_source_that_was_never_met_is_not_probed() {
        let (mut downloads, mut common) = requesting();
        assert!(downloads.add_source(NOW, ID, peer(9), None, &mut common));
        downloads.the_one().sources.get_mut(&peer(9).id).unwrap().failures = 9;
        assert_eq!(silent(&downloads, NOW, &common), []);
    }

    #[test]
    fn a_banned_source_does_not_return() {
        let (mut downloads, _) = requesting();
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().banned = true;
        assert_eq!(downloads.source_returned(NOW, &peer(1).id), []);
    }

    #[test]
    fn sources_that_sent_content_are_probed_before_others() {
        let (mut downloads, mut common) = fetching(4, &[1, 2]);
        downloads.pump_all(NOW, &mut common);
        let later = NOW + SILENT_AFTER;
        for seed in [1, 2] {
            downloads.the_one().contributors = [peer(seed).id].into();
            assert_eq!(downloads.silent_sources(later, 1, &common)[0].contact.id, peer(seed).id);
        }
    }
}

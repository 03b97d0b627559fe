//! One download: its sources, and what each of them has been asked.

use super::chunks::{Bits, Chunks};
use super::sources::{RootState, Source};
use crate::id::{Key, NodeId};
use crate::time::{Duration, Instant};
use crate::transfer::events::{DownloadId, DownloadState};
use std::collections::{BTreeMap, BTreeSet};

/// Connected and useful sources that are enough for a root: no more are dialled.
const ROOT_SOURCES: usize = 4;
/// Connected and useful sources that are enough for the last few chunks: no more are dialled.
const SOURCES_MIN: usize = 4;

/// One download.
pub(super) struct Download {
    pub(super) id: DownloadId,
    pub(super) hash: Key,
    pub(super) phase: Phase,
    /// Whether peers may fetch from here what has arrived, and hear of it. False when the file passes through a window.
    pub(super) is_shared: bool,
    pub(super) sources: BTreeMap<NodeId, Source>,
    /// The co-downloaders that the order of chunks takes into account.
    pub(super) co_downloaders: Vec<NodeId>,
    /// The number of banned sources whose places others have taken.
    banned_before: u32,
    /// Whether a source found no room. It may be named again, so the download is not over yet.
    turned_away: bool,
    pub(super) contributors: BTreeSet<NodeId>,
    pub(super) last_progress: Instant,
    /// When the node may next be asked for more sources.
    pub(super) needed_at: Instant,
    /// When to pump the download again, unless something happens before.
    pub(super) wake: Option<Instant>,
}

/// The phase of a download.
pub(super) enum Phase {
    /// The piece under the file's own hash.
    Root,
    /// No request: the node prepares the target.
    Prepare,
    /// The chunks.
    Chunks(Chunks),
}

impl Download {
    pub(super) fn new(now: Instant, id: DownloadId, hash: Key, phase: Phase) -> Self {
        Download {
            id,
            hash,
            phase,
            is_shared: true,
            sources: BTreeMap::new(),
            co_downloaders: Vec::new(),
            banned_before: 0,
            turned_away: false,
            contributors: BTreeSet::new(),
            last_progress: now,
            needed_at: now,
            wake: None,
        }
    }

    pub(super) fn chunks(&self) -> Option<&Chunks> {
        match &self.phase {
            Phase::Chunks(chunks) => Some(chunks),
            _ => None,
        }
    }

    pub(super) fn chunks_mut(&mut self) -> Option<&mut Chunks> {
        match &mut self.phase {
            Phase::Chunks(chunks) => Some(chunks),
            _ => None,
        }
    }

    /// Whether every chunk is verified and in its place.
    pub(super) fn is_complete(&self) -> bool {
        self.chunks().is_some_and(|chunks| chunks.missing() == 0)
    }

    /// Enters the phase of chunks. No source has announced any yet.
    pub(super) fn begin(&mut self, chunks: Chunks) {
        for source in self.sources.values_mut() {
            source.has = Bits::new(chunks.count());
            source.asked_once = false;
            source.start_round();
        }
        self.co_downloaders.clear();
        debug_assert_eq!(self.is_shared, !chunks.is_windowed());
        self.phase = Phase::Chunks(chunks);
    }

    /// Adds a source. When there are `sources_max`, it takes the place of a useless one. A known source that was given up is tried
    /// again if its retry time has passed. `connected` tells which sources are connected. False when there is no room.
    pub(super) fn add_source(
        &mut self,
        now: Instant,
        mut source: Source,
        sources_max: usize,
        connected: impl Fn(&NodeId) -> bool,
    ) -> bool {
        let id = source.contact.id;
        if let Some(known) = self.sources.get_mut(&id) {
            // That it could not be reached at its old address says nothing about the new one.
            let has_moved = known.contact.addr != source.contact.addr;
            known.contact.addr = source.contact.addr;
            if has_moved {
                known.retry_at = now;
            }
            if known.given_up() && !known.banned && known.retry_at <= now {
                known.failures = 0;
            }
            return true;
        }
        if self.sources.len() >= sources_max {
            if source.banned {
                return true;
            }
            let useless = |(_, source): &(&NodeId, &Source)| {
                source.given_up() || connected(&source.contact.id) && self.is_exhausted(source)
            };
            match self.sources.iter().find(useless).map(|(id, _)| *id) {
                Some(useless) => {
                    self.banned_before += u32::from(self.sources[&useless].banned);
                    self.remove_source(&useless);
                    self.turned_away = false;
                }
                None => {
                    self.turned_away = true;
                    return false;
                }
            }
        }
        if let Some(chunks) = self.chunks() {
            source.has = Bits::new(chunks.count());
            source.start_round();
        }
        self.sources.insert(id, source);
        true
    }

    fn remove_source(&mut self, id: &NodeId) {
        self.forget_holdings(id);
        self.sources.remove(id);
    }

    /// Discards what a source announced, because its stream closed.
    pub(super) fn forget_holdings(&mut self, id: &NodeId) {
        let Some(source) = self.sources.get_mut(id) else { return };
        let count = if let Phase::Chunks(chunks) = &mut self.phase {
            source.has.ones().for_each(|index| chunks.count_source(index, false));
            chunks.count()
        } else {
            0
        };
        source.has = Bits::new(count);
        (source.asked_once, source.questions) = (false, 0);
        source.start_round();
        if let RootState::Asked { .. } = source.root {
            source.root = RootState::Unasked;
        }
    }

    /// Enters that a source has a chunk, or no longer has it.
    pub(super) fn note_holding(&mut self, id: &NodeId, index: u32, has: bool) {
        let (Some(source), Phase::Chunks(chunks)) = (self.sources.get_mut(id), &mut self.phase) else {
            return;
        };
        if index < chunks.count() && source.has.put(index, has) {
            chunks.count_source(index, has);
            source.news |= has;
        }
    }

    /// A ban of a source began or ended. After a ban the source is asked anew.
    pub(super) fn set_banned(&mut self, now: Instant, id: &NodeId, banned: bool) {
        let Some(source) = self.sources.get_mut(id).filter(|source| source.banned != banned) else { return };
        source.banned = banned;
        if !banned {
            (source.failures, source.retry_at) = (0, now);
        }
        source.root = RootState::Unasked;
        self.forget_holdings(id);
    }

    /// Whether a connected source has answered that it has none of the missing pieces.
    pub(super) fn is_exhausted(&self, source: &Source) -> bool {
        match &self.phase {
            Phase::Root => matches!(source.root, RootState::NotFound { .. }),
            Phase::Prepare => false,
            Phase::Chunks(chunks) => {
                source.asked_once && source.questions == 0 && !chunks.lacks_of(&source.has)
            }
        }
    }

    /// The number of connected and useful sources that are enough.
    pub(super) fn sources_wanted(&self) -> usize {
        match &self.phase {
            Phase::Root => ROOT_SOURCES,
            Phase::Prepare => 0,
            Phase::Chunks(chunks) => (chunks.missing() as usize).max(SOURCES_MIN),
        }
    }

    /// Whether a source may still turn out to have missing pieces: it is being dialled or will be, or it has not answered yet.
    pub(super) fn is_pending(&self, connected: impl Fn(&NodeId) -> bool) -> bool {
        self.waits_for(connected, |source| !source.given_up())
    }

    /// Whether to wait for the present sources before others are looked for. A source that was not reached within `hope` no longer
    /// counts: it may be dead, and only the last attempt to dial it will tell.
    pub(super) fn is_hopeful(
        &self,
        now: Instant,
        hope: Duration,
        connected: impl Fn(&NodeId) -> bool,
    ) -> bool {
        self.waits_for(connected, |source| source.failures == 0 && now < source.retry_at + hope)
    }

    fn waits_for(&self, connected: impl Fn(&NodeId) -> bool, unreached: impl Fn(&Source) -> bool) -> bool {
        self.sources.values().filter(|source| !source.banned).any(|source| {
            match (connected(&source.contact.id), &self.phase) {
                (false, _) => unreached(source),
                (true, Phase::Root) => !matches!(source.root, RootState::NotFound { .. }),
                (true, Phase::Prepare) => false,
                (true, Phase::Chunks(_)) => !source.asked_once || source.questions > 0,
            }
        })
    }

    /// Whether a source was given up because it could not be reached.
    pub(super) fn is_unreached(&self, id: &NodeId, connected: impl Fn(&NodeId) -> bool) -> bool {
        self.sources.get(id).is_some_and(|source| source.given_up() && !source.banned && !connected(id))
    }

    pub(super) fn state(&self, connected: impl Fn(&NodeId) -> bool) -> DownloadState {
        let count = |test: &dyn Fn(&Source) -> bool| {
            self.sources.values().filter(|source| test(source)).count() as u32
        };
        let is_connected = |source: &Source| !source.banned && connected(&source.contact.id);
        let busy = match &self.phase {
            Phase::Root => false,
            Phase::Prepare => true,
            Phase::Chunks(chunks) => {
                let some = |source: &Source| is_connected(source) && chunks.lacks_of(&source.has);
                !chunks.in_flight().is_empty() || self.sources.values().any(some)
            }
        };
        DownloadState {
            sources: self.sources.len() as u32,
            failed: count(&|source| source.given_up() && !source.banned && !is_connected(source)),
            connected: count(&is_connected),
            not_found: count(&|source| is_connected(source) && self.is_exhausted(source)),
            banned: self.banned_before + count(&|source| source.banned),
            last_progress: self.last_progress,
            idle: !busy && !self.turned_away && !self.is_pending(&connected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Timing;
    use crate::transfer::testing::{NOW, peer};

    fn download() -> Download {
        Download::new(NOW, DownloadId(1), Key([1; 32]), Phase::Root)
    }

    fn source(seed: u8) -> Source {
        Source::new(NOW, peer(seed), seed.into(), &Timing::default())
    }

    #[test]
    fn a_source_that_was_given_up_makes_room_for_another() {
        let mut download = download();
        assert!(download.add_source(NOW, source(1), 1, |_| false));
        assert!(!download.add_source(NOW, source(2), 1, |_| false), "the first may still be reached");
        download.sources.get_mut(&peer(1).id).unwrap().failures = 9;
        assert!(download.add_source(NOW, source(2), 1, |_| false));
        assert_eq!(download.sources.keys().collect::<Vec<_>>(), [&peer(2).id]);
    }

    #[test]
    fn a_download_is_not_idle_while_a_source_was_turned_away() {
        let mut download = download();
        let mut useless = source(1);
        useless.root = RootState::NotFound { again: NOW };
        assert!(download.add_source(NOW, useless, 1, |_| true));
        assert!(download.state(|_| true).idle);
        download.sources.get_mut(&peer(1).id).unwrap().root = RootState::Unasked;
        assert!(!download.add_source(NOW, source(2), 1, |_| true));
        download.sources.get_mut(&peer(1).id).unwrap().root = RootState::NotFound { again: NOW };
        assert!(!download.state(|_| true).idle, "it may be named again");
    }

    #[test]
    fn a_source_that_was_given_up_is_tried_again_when_it_is_named_after_its_time() {
        let mut download = download();
        assert!(download.add_source(NOW, source(1), 4, |_| false));
        let later = NOW + Duration::from_secs(60);
        let known = download.sources.get_mut(&peer(1).id).unwrap();
        (known.failures, known.retry_at) = (9, later);
        assert!(download.add_source(NOW, source(1), 4, |_| false));
        assert!(download.sources[&peer(1).id].given_up(), "too early");
        assert!(download.add_source(later, source(1), 4, |_| false));
        assert!(!download.sources[&peer(1).id].given_up());
    }

    #[test]
    fn a_source_that_has_another_address_is_tried_there_at_once() {
        let mut download = download();
        assert!(download.add_source(NOW, source(1), 4, |_| false));
        let known = download.sources.get_mut(&peer(1).id).unwrap();
        (known.failures, known.retry_at) = (9, NOW + Duration::from_secs(60));
        assert!(download.is_unreached(&peer(1).id, |_| false));
        let mut moved = source(1);
        moved.contact.addr.set_port(moved.contact.addr.port() ^ 1);
        assert!(download.add_source(NOW, moved, 4, |_| false));
        assert!(!download.is_unreached(&peer(1).id, |_| false));
    }

    #[test]
    fn a_source_that_was_not_reached_in_time_gives_no_more_hope() {
        let mut download = download();
        assert!(download.add_source(NOW, source(1), 4, |_| false));
        let hope = Duration::from_secs(1);
        assert!(download.is_hopeful(NOW, hope, |_| false));
        assert!(!download.is_hopeful(NOW + hope, hope, |_| false));
        assert!(download.is_pending(|_| false), "but its dial has not failed yet");
    }
}

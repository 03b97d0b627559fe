//! Everything that one download can do at a time, and when it next has something to do.

use super::download::{Download, Phase};
use super::sources::RootState;
use super::table::Downloads;
use crate::id::Key;
use crate::time::{Instant, earliest};
use crate::transfer::common::Common;
use crate::transfer::events::TransferEvent;

impl Download {
    /// Dials, asks and requests whatever the download can at this time. `others` are the other downloads.
    pub(super) fn pump(&mut self, now: Instant, others: &Downloads, common: &mut Common) {
        self.note_met(common);
        self.connect_sources(now, common);
        if self.is_shared {
            self.follow(common);
            self.update_co_downloaders(common);
        }
        match self.phase {
            Phase::Root => self.ask_root(now, common),
            Phase::Prepare => {}
            Phase::Chunks(_) => {
                self.ask_chunks(now, others, common);
                self.ask_again(now, common);
                self.ask_which(now, common);
            }
        }
        if !self.is_complete() {
            self.need_sources(now, common);
            self.wake = self.next_wake(now, common);
        }
    }

    /// Asks the node for sources when no present source has the missing pieces.
    fn need_sources(&mut self, now: Instant, common: &mut Common) {
        let hope = common.config.timing.hope;
        if now < self.needed_at || self.is_hopeful(now, hope, |id| common.streams.is_connected(id)) {
            return;
        }
        let keys: Vec<Key> = match &self.phase {
            Phase::Root => vec![self.hash],
            Phase::Prepare => Vec::new(),
            Phase::Chunks(chunks) => chunks.orphans().filter_map(|index| chunks.key(index)).collect(),
        };
        if !keys.is_empty() {
            self.needed_at = now + common.config.timing.needed;
            common.out.event(TransferEvent::SourcesNeeded { download: self.id, keys });
        }
    }

    /// When time alone gives the download something to do. A past instant does not count: its action is done, or waits for an event.
    fn next_wake(&self, now: Instant, common: &Common) -> Option<Instant> {
        let timing = &common.config.timing;
        let mut wake = (self.needed_at > now).then_some(self.needed_at);
        let mut at = |due: Instant| {
            if due > now {
                wake = earliest(wake, Some(due));
            }
        };
        let mut some_idle = false;
        for source in self.sources.values().filter(|source| !source.banned) {
            let Some(stream) = common.streams.to(&source.contact.id) else {
                if source.failures == 0 {
                    at(source.retry_at + timing.hope);
                }
                if !source.given_up() {
                    at(source.retry_at);
                }
                continue;
            };
            at(source.pause);
            if !self.co_downloaders.is_empty() {
                super::swarm::silent_at(stream, common).map(&mut at);
            }
            some_idle |= super::endgame::idle_stream(now, source, common).is_some();
            match (&self.phase, source.root) {
                (Phase::Root, RootState::Asked { since }) => {
                    at(since + timing.patience);
                    at(since + timing.stall);
                }
                (Phase::Root, RootState::NotFound { again }) => at(again),
                (Phase::Chunks(_), _) if source.cursor.is_none() => at(source.ask_at),
                _ => {}
            }
        }
        if let (true, Some(chunks)) = (some_idle, self.chunks()) {
            let owners = chunks.in_flight().values().flatten();
            owners.for_each(|owner| at(super::endgame::stale_at(owner, common)));
        }
        wake
    }
}

//! Finding who has what a download lacks: the file's providers, the nodes near its hash, and the nodes near each chunk.

use super::command::Stage;
use super::get::Phase;
use super::{Node, Purpose};
use crate::dht::LookupId;
use crate::id::Key;
use crate::time::{Duration, Instant};
use crate::transfer::DownloadId;
use crate::wire::contact::Contact;
use crate::wire::message::Want;
use std::collections::{BTreeMap, VecDeque};

/// A lookup for more sources is repeated after this, then after twice as long, and so on up to the maximum.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// While content flows there is no hurry to find more sources than there are.
const LOOK_AGAIN_FLOWING: Duration = Duration::from_secs(15);
/// When nothing has come for so long, whoever waits is told.
const SILENT: Duration = Duration::from_secs(4);
/// Nodes near a key that are asked for a piece nobody is known to have.
const HOLDERS_ASKED: usize = 6;
/// A chunk whose closest nodes had nothing is not looked for again before this.
const SEEK_AGAIN: Duration = Duration::from_secs(15);
/// Lookups under way at a time for chunks that nobody known has.
const SEEKING_MAX: usize = 4;

/// What a download knows about who has its content.
pub(super) struct Search {
    /// The lookup for providers that is under way.
    pub(super) lookup: Option<LookupId>,
    /// How many have ended.
    pub(super) lookups: u32,
    /// When the next one begins.
    pub(super) look_again: Option<Instant>,
    look_delay: Duration,
    /// Nodes that were asked in one lookup, at the most.
    pub(super) asked: u32,
    /// Provider records that were found.
    pub(super) providers: u32,
    /// Chunks that nobody known has: the nodes closest to them are looked for.
    orphans: VecDeque<Key>,
    /// When each was last looked for.
    sought: BTreeMap<Key, Instant>,
    /// Lookups for them under way.
    seeking: usize,
}

impl Default for Search {
    fn default() -> Self {
        Search {
            lookup: None,
            lookups: 0,
            look_again: None,
            look_delay: LOOK_AGAIN_MIN,
            asked: 0,
            providers: 0,
            orphans: VecDeque::new(),
            sought: BTreeMap::new(),
            seeking: 0,
        }
    }
}

impl Search {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.look_again.is_some_and(|at| at <= now)
    }

    /// Something came: when it stops coming, the search begins afresh.
    pub(super) fn begin_afresh(&mut self) {
        self.look_delay = LOOK_AGAIN_MIN;
    }
}

impl Node {
    /// The time for another lookup has come.
    pub(super) fn look_again(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.search.look_again = None;
        if get.phase == Phase::Chunks && now.since(get.progress_at) < LOOK_AGAIN_MIN {
            get.search.look_again = Some(now + LOOK_AGAIN_FLOWING);
        } else if matches!(get.phase, Phase::Root | Phase::Chunks) {
            if get.phase == Phase::Chunks && now.since(get.progress_at) >= SILENT {
                self.report_get(download, Stage::Waiting);
            }
            self.look_up_providers(now, download);
        }
    }

    pub(super) fn look_up_providers(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        if get.search.lookup.is_some() {
            return;
        }
        get.search.look_again = None;
        match self.machines.dht.find(now, get.hash, Want::Providers, &mut self.machines.outbox) {
            Some(lookup) => {
                get.search.lookup = Some(lookup);
                self.machines.lookups.insert(lookup, Purpose::Providers(download));
            }
            None => get.search.look_again = Some(now + Duration::from_secs(1)),
        }
    }

    pub(super) fn providers_found(&mut self, now: Instant, lookup: LookupId, contacts: &[(Contact, bool)]) {
        let Some(Purpose::Providers(download)) = self.machines.lookups.get(&lookup) else { return };
        let download = *download;
        let contacts: Vec<Contact> =
            contacts.iter().map(|(contact, _)| *contact).filter(|contact| contact.id != self.id).collect();
        if let Some(get) = self.gets.get_mut(&download) {
            get.search.providers += contacts.len() as u32;
            self.machines.transfer.add_sources(now, download, &contacts);
        }
    }

    /// The nodes near the hash keep copies of the root.
    pub(super) fn providers_looked_up(
        &mut self,
        now: Instant,
        download: DownloadId,
        closest: &[Contact],
        asked: u32,
    ) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.search.lookup = None;
        get.search.lookups += 1;
        get.search.asked = get.search.asked.max(asked);
        get.search.look_again = Some(now + get.search.look_delay);
        get.search.look_delay = (get.search.look_delay * 2).min(LOOK_AGAIN_MAX);
        self.machines.transfer.add_sources(now, download, &closest[..closest.len().min(HOLDERS_ASKED)]);
    }

    /// Chunks that nobody has who is known: the nodes closest to each may keep it.
    pub(super) fn sources_needed(&mut self, now: Instant, download: DownloadId, keys: &[Key]) {
        let Some(get) = self.gets.get_mut(&download).filter(|get| get.phase == Phase::Chunks) else { return };
        get.search.sought.retain(|_, at| now.since(*at) < SEEK_AGAIN);
        get.search.orphans =
            keys.iter().copied().filter(|key| !get.search.sought.contains_key(key)).collect();
        self.seek_holders(now, download);
    }

    /// Asks who is closest to the chunks that nobody known has. What one lookup finds answers for other keys in its
    /// region too.
    fn seek_holders(&mut self, now: Instant, download: DownloadId) {
        while let Some(get) = self.gets.get_mut(&download) {
            let Some(key) = get.search.orphans.pop_front() else { return };
            if let Some(closest) = self.machines.dht.region(now, &key, HOLDERS_ASKED) {
                if !self.machines.transfer.add_sources(now, download, &closest) {
                    // The next call for sources comes when those that are there have been asked.
                    return get.search.orphans.clear();
                }
                get.search.sought.insert(key, now);
                continue;
            }
            if get.search.seeking >= SEEKING_MAX {
                return get.search.orphans.push_front(key);
            }
            let Some(lookup) = self.machines.dht.find(now, key, Want::Nodes, &mut self.machines.outbox)
            else {
                return;
            };
            get.search.seeking += 1;
            self.machines.lookups.insert(lookup, Purpose::Holders(download, key));
        }
    }

    pub(super) fn holders_looked_up(
        &mut self,
        now: Instant,
        download: DownloadId,
        key: Key,
        closest: &[Contact],
    ) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.search.seeking -= 1;
        if self.machines.transfer.add_sources(now, download, &closest[..closest.len().min(HOLDERS_ASKED)]) {
            get.search.sought.insert(key, now);
        }
        self.seek_holders(now, download);
    }
}

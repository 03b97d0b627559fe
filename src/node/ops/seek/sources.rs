//! Source discovery: the file's providers, the nodes near its hash, and the nodes near each chunk that no known source has.

use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::node::Purpose;
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use crate::transfer::DownloadId;
use crate::wire::contact::Contact;
use crate::wire::message::Want;
use std::collections::{BTreeMap, VecDeque};

/// The first pause between two lookups for sources. Each further pause is twice as long, up to the maximum.
pub(in crate::node) const LOOK_AGAIN_MIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// The pause while content flows: more sources are not urgent then.
const LOOK_AGAIN_FLOWING: Duration = Duration::from_secs(15);
/// The pause after a lookup for which there was no room.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Nodes near a key that are asked for a piece that no known source has.
const HOLDERS_ASKED: usize = 6;
/// The least time between two lookups for the same chunk.
const SEEK_AGAIN: Duration = Duration::from_secs(15);
/// Lookups at a time for chunks that no known source has.
const SEEKING_MAX: usize = 4;

/// Providers that are remembered.
const PROVIDERS_MAX: usize = 32;

/// Source discovery of one file. It passes the sources on to the transfer machine.
pub(in crate::node) struct Search {
    /// The operation that needs the file. A download with this number fetches its root.
    download: DownloadId,
    hash: Key,
    /// Whether the content passes through a window, so that the file is not announced to peers.
    windowed: bool,
    /// The lookup for providers, while it is under way.
    lookup: Option<LookupId>,
    /// The number of lookups for providers that have ended.
    lookups: u32,
    /// When the next one is due.
    look_again: Option<Instant>,
    look_delay: Duration,
    /// The largest number of nodes that answered one lookup.
    answered: u32,
    /// The first providers, and the nodes nearest to the hash, that were found: a fetch that begins later asks them.
    providers: Vec<Contact>,
    near: Vec<Contact>,
    /// Chunks that no known source has: their closest nodes will be looked up.
    orphans: VecDeque<Key>,
    /// When each chunk was last looked up.
    sought: BTreeMap<Key, Instant>,
    /// The number of lookups for chunks under way.
    seeking: usize,
}

impl Search {
    /// A new search for the file `hash`.
    pub(in crate::node) fn new(download: DownloadId, hash: Key) -> Self {
        Search {
            download,
            hash,
            windowed: false,
            lookup: None,
            lookups: 0,
            look_again: None,
            look_delay: LOOK_AGAIN_MIN,
            answered: 0,
            providers: Vec::new(),
            near: Vec::new(),
            orphans: VecDeque::new(),
            sought: BTreeMap::new(),
            seeking: 0,
        }
    }

    /// The same for a file whose content passes through a window.
    pub(in crate::node) fn windowed(download: DownloadId, hash: Key) -> Self {
        Search { windowed: true, ..Search::new(download, hash) }
    }

    // Getters.

    /// The number of the operation that needs the file.
    pub(in crate::node) fn download(&self) -> DownloadId {
        self.download
    }

    /// The file's address.
    pub(in crate::node) fn hash(&self) -> Key {
        self.hash
    }

    /// Whether the content passes through a window.
    pub(in crate::node) fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// Whether a lookup for providers is under way.
    pub(in crate::node) fn is_looking(&self) -> bool {
        self.lookup.is_some()
    }

    /// The number of lookups for providers that have ended.
    pub(in crate::node) fn lookups(&self) -> u32 {
        self.lookups
    }

    /// The largest number of nodes that answered one lookup.
    pub(in crate::node) fn answered(&self) -> u32 {
        self.answered
    }

    /// The number of remembered providers that were given up because they could not be reached.
    pub(in crate::node) fn unreached(&self, machines: &Machines) -> u32 {
        machines.transfer.unreached(self.download, &self.providers)
    }

    /// The first providers that were found.
    pub(in crate::node) fn providers(&self) -> &[Contact] {
        &self.providers
    }

    /// When the next lookup is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.look_again
    }

    /// Whether the next lookup is due.
    pub(in crate::node) fn is_due(&self, now: Instant) -> bool {
        self.look_again.is_some_and(|at| at <= now)
    }

    // Inputs.

    /// Content arrived: if it stops, lookups come at short intervals again.
    pub(in crate::node) fn begin_afresh(&mut self) {
        self.look_delay = LOOK_AGAIN_MIN;
    }

    /// The network can be reached again: a lookup comes soon.
    pub(in crate::node) fn hurry(&mut self, now: Instant) {
        self.begin_afresh();
        self.look_again = self.look_again.map(|at| at.min(now + LOOK_AGAIN_MIN));
    }

    /// Postpones the next lookup, because content flows.
    pub(in crate::node) fn postpone(&mut self, now: Instant) {
        self.look_again = Some(now + LOOK_AGAIN_FLOWING);
    }

    /// Cancels the next lookup.
    pub(in crate::node) fn rest(&mut self) {
        self.look_again = None;
    }

    /// The root is fetched from now on: the sources found so far are passed on. The first lookup begins, if there was none.
    pub(in crate::node) fn begin(&mut self, now: Instant, machines: &mut Machines) {
        if self.lookup.is_none() && self.lookups == 0 {
            return self.look_up(now, machines);
        }
        machines.transfer.add_sources(now, self.download, &self.providers);
        machines.transfer.add_sources(now, self.download, &self.near);
    }

    /// Looks up providers, unless a lookup is under way.
    pub(in crate::node) fn look_up(&mut self, now: Instant, machines: &mut Machines) {
        if self.lookup.is_some() {
            return;
        }
        self.lookup = machines.dht.find(now, self.hash, Want::Providers, &mut machines.outbox);
        self.look_again = match self.lookup {
            Some(lookup) => {
                machines.lookups.insert(lookup, Purpose::Providers(self.download));
                None
            }
            None => Some(now + NO_ROOM_PAUSE),
        };
    }

    /// Providers were found. `own` is this node.
    pub(in crate::node) fn providers_found(
        &mut self,
        now: Instant,
        own: NodeId,
        contacts: &[(Contact, bool)],
        machines: &mut Machines,
    ) {
        let others = contacts.iter().map(|(contact, _)| *contact).filter(|contact| contact.id != own);
        let others: Vec<Contact> = others.collect();
        for other in &others {
            match self.providers.iter().position(|known| known.id == other.id) {
                Some(known) => self.providers[known] = *other,
                None if self.providers.len() < PROVIDERS_MAX => self.providers.push(*other),
                None => {}
            }
        }
        machines.transfer.add_sources(now, self.download, &others);
    }

    /// The lookup for providers ended. The nodes near the hash are holders of the root.
    pub(in crate::node) fn providers_looked_up(
        &mut self,
        now: Instant,
        closest: &[Contact],
        answered: u32,
        machines: &mut Machines,
    ) {
        self.lookup = None;
        self.lookups += 1;
        self.answered = self.answered.max(answered);
        self.look_again = Some(now + self.look_delay);
        self.look_delay = (self.look_delay * 2).min(LOOK_AGAIN_MAX);
        self.near = closest[..closest.len().min(HOLDERS_ASKED)].to_vec();
        machines.transfer.add_sources(now, self.download, &self.near);
    }

    /// No known source has these chunks: the nodes closest to each may hold it.
    pub(in crate::node) fn sources_needed(&mut self, now: Instant, keys: &[Key], machines: &mut Machines) {
        self.sought.retain(|_, at| now.since(*at) < SEEK_AGAIN);
        self.orphans = keys.iter().copied().filter(|key| !self.sought.contains_key(key)).collect();
        self.seek_holders(now, machines);
    }

    /// Looks up the nodes closest to the orphans. One lookup answers for nearby keys, too.
    fn seek_holders(&mut self, now: Instant, machines: &mut Machines) {
        while let Some(key) = self.orphans.pop_front() {
            if let Some(closest) = machines.dht.region(now, &key, HOLDERS_ASKED) {
                if !machines.transfer.add_sources(now, self.download, &closest) {
                    // Too many lookups are under way: the transfer machine will report these chunks again.
                    return self.orphans.clear();
                }
                self.sought.insert(key, now);
                continue;
            }
            if self.seeking >= SEEKING_MAX {
                return self.orphans.push_front(key);
            }
            let Some(lookup) = machines.dht.find(now, key, Want::Nodes, &mut machines.outbox) else { return };
            self.seeking += 1;
            machines.lookups.insert(lookup, Purpose::Holders(self.download, key));
        }
    }

    /// The lookup of the nodes closest to a chunk ended.
    pub(in crate::node) fn holders_looked_up(
        &mut self,
        now: Instant,
        key: Key,
        closest: &[Contact],
        machines: &mut Machines,
    ) {
        debug_assert!(self.seeking > 0, "a lookup that ends was begun");
        self.seeking = self.seeking.saturating_sub(1);
        let closest = &closest[..closest.len().min(HOLDERS_ASKED)];
        if machines.transfer.add_sources(now, self.download, closest) {
            self.sought.insert(key, now);
        }
        self.seek_holders(now, machines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);
    const ID: DownloadId = DownloadId(1);
    const HASH: Key = Key([1; 32]);
    const OWN: NodeId = NodeId([9; 32]);

    fn contact(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([127, 0, 0, number], 1).into())
    }

    fn found(numbers: core::ops::Range<u8>) -> Vec<(Contact, bool)> {
        numbers.map(|number| (contact(number), false)).collect()
    }

    /// The chunks whose closest nodes are being looked up.
    fn sought(machines: &Machines) -> Vec<Key> {
        let key = |purpose: &Purpose| match purpose {
            Purpose::Holders(ID, key) => Some(*key),
            _ => None,
        };
        machines.lookups.values().filter_map(key).collect()
    }

    #[test]
    fn sources_that_were_found_before_the_fetch_begins_are_passed_on_when_it_does() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        search.look_up(START, &mut machines);
        search.providers_found(START, OWN, &found(1..3), &mut machines);
        search.providers_looked_up(START, &[contact(5)], 1, &mut machines);
        assert!(machines.transfer.fetch(START, ID, HASH, &[]));
        search.begin(START, &mut machines);
        assert_eq!(machines.transfer.download_state(ID).unwrap().sources, 3);
        assert!(!search.is_looking(), "one lookup was enough");
    }

    #[test]
    fn a_provider_that_is_found_again_is_remembered_once_at_its_latest_address() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        search.providers_found(START, OWN, &found(1..3), &mut machines);
        let mut moved = contact(1);
        moved.addr.set_port(2);
        search.providers_found(START, OWN, &[(moved, false)], &mut machines);
        assert_eq!(search.providers(), [moved, contact(2)]);
    }

    #[test]
    fn this_node_is_no_source() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        search.providers_found(START, contact(1).id, &found(1..3), &mut machines);
        assert_eq!(search.providers(), [contact(2)]);
    }

    #[test]
    fn the_number_of_remembered_providers_is_bounded() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        search.providers_found(START, contact(200).id, &found(1..100), &mut machines);
        assert_eq!(search.providers().len(), PROVIDERS_MAX);
    }

    #[test]
    fn lookups_come_at_growing_intervals_until_content_arrives() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        let mut pause = || {
            search.providers_looked_up(START, &[], 1, &mut machines);
            search.next_deadline().unwrap().since(START)
        };
        let pauses: Vec<u64> = (0..7).map(|_| pause().as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        search.begin_afresh();
        search.providers_looked_up(START, &[], 1, &mut machines);
        assert_eq!(search.next_deadline(), Some(START + LOOK_AGAIN_MIN));
        search.rest();
        assert_eq!(search.next_deadline(), None);
    }

    #[test]
    fn a_lookup_that_is_far_off_comes_soon_when_the_network_can_be_reached_again() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        (0..6).for_each(|_| search.providers_looked_up(START, &[], 1, &mut machines));
        let later = START + Duration::from_secs(10);
        search.hurry(later);
        assert_eq!(search.next_deadline(), Some(later + LOOK_AGAIN_MIN));
        search.rest();
        search.hurry(later);
        assert_eq!(search.next_deadline(), None, "no lookup was to come");
    }

    #[test]
    fn chunks_without_a_source_are_looked_up_a_few_at_a_time_and_not_again_soon() {
        let (mut search, mut machines) = (Search::new(ID, HASH), Machines::alone(START));
        let keys: Vec<Key> = (10..16).map(|number| Key([number; 32])).collect();
        search.sources_needed(START, &keys, &mut machines);
        assert_eq!(sought(&machines).len(), SEEKING_MAX);
        for key in keys.clone() {
            machines.lookups.retain(|_, purpose| !matches!(purpose, Purpose::Holders(_, its) if *its == key));
            search.holders_looked_up(START, key, &[], &mut machines);
        }
        assert!(sought(&machines).is_empty());
        search.sources_needed(START + Duration::from_secs(14), &keys, &mut machines);
        assert!(sought(&machines).is_empty());
        search.sources_needed(START + SEEK_AGAIN, &keys, &mut machines);
        assert_eq!(sought(&machines).len(), SEEKING_MAX);
    }
}

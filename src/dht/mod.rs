//! The distributed hash table: the nodes closest to a key, the providers of a file, the value of a name.
//!
//! Kademlia (Maymounkov and Mazières, 2002) as a state machine. The caller hands in verified datagrams and the time, takes
//! datagrams out of an [`Outbox`] and events out of [`Dht::poll_event`], and calls [`Dht::handle_timeout`] when
//! [`Dht::next_deadline`] has come.
//!
//! - Contacts: [`routing_table`], [`closest`](mod@closest), `address`, `origin` (how this node learned of one).
//! - Requests: `lookup` (which node to ask next), `agreement` (when a value is certain), `hedge` (whether to ask one more),
//!   `questions` (outstanding requests), `queries` (sending requests, handling answers), `lookup_cache` (results of earlier lookups).
//! - Answers: `serve`, `values` and `providers` (records kept for others).
//! - Publishing: `announce` and `announcements` (files), `publish` (values), `placement` (rounds of storing one record), `pace` (a
//!   rate limit), `cache` (values that were found).
//! - Maintenance: `bootstrap` (joining, and joining again), `former` (contacts of earlier times), `maintenance` (refreshing, checking,
//!   expiry), `observed` (this node's own address).

mod address;
mod agreement;
mod announce;
mod announcements;
mod bootstrap;
mod cache;
pub mod closest;
mod contradictions;
mod counters;
mod former;
mod hedge;
mod lookup;
mod lookup_cache;
mod maintenance;
mod observed;
mod origin;
mod pace;
mod placement;
mod providers;
mod publish;
mod queries;
mod questions;
pub mod routing_table;
mod serve;
#[cfg(test)]
mod tests;
mod values;

pub use crate::wire::message::Want;
pub use bootstrap::BootstrapRound;
pub use closest::closest;
pub use origin::Origin;
pub use publish::Unpublished;
pub use routing_table::K;

use crate::id::{Key, NodeId};
use crate::limits::Limits;
use crate::peers::outbox::Outbox;
use crate::peers::party::Parties;
use crate::peers::requests::Challenge;
use crate::peers::standing::Standing;
use crate::peers::table::Peers;
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;
pub use counters::DhtCounters;
use lookup::{Lookup, Reason};
use std::collections::{BTreeMap, VecDeque};

/// The configuration of a [`Dht`].
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// Whether the node is a leaf: it is in no routing table, and keeps no records for others.
    pub leaf: bool,
    /// The bounds.
    pub limits: Limits,
    /// How parties are told apart.
    pub parties: Parties,
    /// Contacts of the last run.
    pub remembered: Vec<Contact>,
    /// Addresses to join through while the routing table is empty.
    pub bootstrap: Vec<SocketAddr>,
    /// A number above every sequence number that earlier runs gave to records of this node.
    pub sequence: u64,
    /// The address of the socket. A specified IP is the own address until other nodes agree on another.
    pub listen: SocketAddr,
    /// The lifetime of this node's provider records, in seconds.
    pub provider_lifetime: u32,
    /// The longest time between two announcements of a file.
    pub announce_interval: Duration,
    /// The longest time between two publications of a value record.
    pub republish_interval: Duration,
    /// A bucket through which no lookup has gone for this long is refreshed.
    pub refresh_interval: Duration,
    /// The time between two lookups of the node's own neighbourhood.
    pub neighbourhood_interval: Duration,
}

impl Default for DhtConfig {
    fn default() -> Self {
        DhtConfig {
            leaf: false,
            limits: Limits::default(),
            parties: Parties::default(),
            remembered: Vec::new(),
            bootstrap: Vec::new(),
            sequence: 0,
            listen: SocketAddr::from(([0, 0, 0, 0], 3583)),
            provider_lifetime: 24 * 3600,
            announce_interval: Duration::from_secs(12 * 3600),
            republish_interval: Duration::from_secs(3600),
            refresh_interval: Duration::from_secs(3600),
            neighbourhood_interval: Duration::from_secs(15 * 60),
        }
    }
}

/// A lookup under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LookupId(pub u64);

/// A publication under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublishId(pub u64);

/// How many nodes a lookup asked, and how many answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turnout {
    /// The number of nodes asked.
    pub asked: u32,
    /// The number of nodes that answered.
    pub answered: u32,
}

impl Turnout {
    /// Whether too few nodes answered to speak for the network: none, or fewer than half of those asked.
    pub fn is_poor(&self) -> bool {
        self.answered * 2 < self.asked.max(1)
    }
}

/// An event for the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DhtEvent {
    /// A lookup found nodes that serve the file. Each is reported once, as soon as it is found. Its signature verifies.
    Providers {
        /// The lookup.
        lookup: LookupId,
        /// The providers, and whether each has only a part of the file yet.
        contacts: Vec<(Contact, bool)>,
    },
    /// A lookup ended.
    Finished {
        /// The lookup.
        lookup: LookupId,
        /// The key that was looked up.
        target: Key,
        /// The k closest nodes that answered, nearest first, without this node.
        closest: Vec<Contact>,
        /// The value record with the highest sequence number. Its signature verifies.
        record: Option<Vec<u8>>,
        /// The nodes asked, and those that answered.
        turnout: Turnout,
    },
    /// A value was published.
    Published {
        /// The publication.
        publish: PublishId,
        /// The record's key.
        key: Key,
        /// Its sequence number.
        sequence: u64,
        /// The number of nodes that keep it, including this one if it is among the closest.
        copies: u32,
        /// The record.
        record: Vec<u8>,
        /// The number of nodes that the lookup for its place asked.
        asked: u32,
    },
    /// Half of the nodes that should keep the announcement of a file do so in this round: lookups find it.
    Findable {
        /// The file.
        file: Key,
    },
    /// A round of announcements of a file ended.
    Announced {
        /// The file.
        file: Key,
        /// The number of nodes that keep the announcement, including this one if it is among the closest.
        copies: u32,
    },
    /// The node has joined: it knows its own neighbourhood.
    Joined {
        /// The number of its contacts.
        contacts: u32,
    },
    /// A request to a node failed: neither it nor its repetition was answered.
    Unanswered {
        /// The node.
        id: NodeId,
    },
    /// A round of bootstrapping got no answer.
    BootstrapFailed {
        /// The time until the next round.
        retry_in: Duration,
        /// The numbers of addresses that it asked.
        round: BootstrapRound,
    },
}

/// A contact, for display.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Its id, key and address.
    pub contact: Contact,
    /// How this node learned of it.
    pub origin: Origin,
    /// Whether it was heard from recently and owes no answer.
    pub good: bool,
    /// The time since it was last heard from.
    pub silent_for: Duration,
}

/// Statistics of the DHT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Contacts in the routing table.
    pub contacts: usize,
    /// Lookups under way.
    pub lookups: usize,
    /// Value records kept for others.
    pub records: usize,
    /// Provider records kept for others.
    pub providers: usize,
    /// Files announced.
    pub announcements: usize,
    /// Outstanding requests.
    pub transactions: usize,
    /// The counters.
    pub counters: DhtCounters,
}

/// One node's part of the DHT.
pub struct Dht {
    config: DhtConfig,
    own: NodeId,
    rng: Rng,
    reach: address::Reach,
    table: routing_table::RoutingTable,
    transactions: questions::Requests,
    lookups: BTreeMap<LookupId, Lookup>,
    hedge: hedge::Hedge,
    /// Whether a lookup waits for room among the outstanding requests.
    starved: bool,
    /// The last number given to a lookup or a publication.
    numbered: u64,
    values: values::Values,
    providers: providers::Providers,
    lookup_cache: lookup_cache::LookupCache,
    cache: cache::Cache,
    observed: observed::Observed,
    contradictions: contradictions::Contradictions,
    announcements: announcements::Announcements,
    publications: publish::Publications,
    bootstrap: bootstrap::Bootstrap,
    maintenance: maintenance::Maintenance,
    counters: DhtCounters,
    events: VecDeque<DhtEvent>,
}

impl Dht {
    /// The DHT of the node `own`, which knows no other node yet. `seed` is entropy, or fixed in a simulation. The first deadline
    /// is `now`.
    pub fn new(config: DhtConfig, own: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let limits = &config.limits;
        Dht {
            own,
            reach: address::Reach::of(config.listen),
            table: routing_table::RoutingTable::new(own, config.parties),
            transactions: questions::Requests::new(limits.transactions_max),
            lookups: BTreeMap::new(),
            hedge: hedge::Hedge::default(),
            starved: false,
            numbered: 0,
            values: values::Values::new(own, limits.records_max),
            providers: providers::Providers::new(own, limits.providers_max, limits.providers_per_file_max),
            lookup_cache: lookup_cache::LookupCache::default(),
            cache: cache::Cache::default(),
            observed: observed::Observed::new(config.listen, config.parties),
            contradictions: contradictions::Contradictions::default(),
            announcements: announcements::Announcements::default(),
            publications: publish::Publications::new(config.sequence),
            bootstrap: bootstrap::Bootstrap::new(now, &config),
            maintenance: maintenance::Maintenance::new(now),
            counters: DhtCounters::default(),
            events: VecDeque::new(),
            rng: Rng::new(seed),
            config,
        }
    }

    // Inputs.

    /// Whether the signature of a datagram is worth checking: an answer must match an outstanding request to its sender.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        !kind.is_answer() || self.transactions.is_expected(kind, transaction, from)
    }

    /// A challenge arrived. If it is to a request of this machine, the request is sent again, with a signature and the token.
    pub fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        if let Some(ask) = self.transactions.challenged(challenge) {
            self.transmit(now, ask, outbox);
        }
    }

    /// Takes a datagram. Requests are answered at once.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
        outbox: &mut Outbox,
    ) {
        let from = canonical(from);
        if datagram.id() == self.own {
            return;
        }
        match datagram.message() {
            Message::Pong { .. } | Message::Found { .. } | Message::Stored { .. } => {
                self.handle_answer(now, from, datagram, outbox);
            }
            Message::Leave { .. } if standing.is_fresh() => self.gone(now, &datagram.id()),
            Message::Leave { .. } => {}
            _ => self.serve(now, from, datagram, standing, outbox),
        }
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.expire_requests(now, outbox);
        self.bootstrap(now, outbox);
        self.maintain(now, outbox);
        self.announcements.fire(now);
        self.publications.fire(now);
        self.drive(now, outbox);
    }

    /// When [`handle_timeout`](Dht::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let lookups = self.lookups.values().map(|lookup| lookup.until).min();
        let kept = self.values.len() + self.providers.len() > 0
            || !(self.cache.is_empty() && self.lookup_cache.is_empty());
        [
            self.transactions.next_deadline(),
            lookups,
            self.announcements.next_deadline(),
            self.publications.next_deadline(),
            self.bootstrap.next_deadline(),
            self.maintenance.next_deadline(kept),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<DhtEvent> {
        self.events.pop_front()
    }

    // Commands.

    /// Starts a lookup of `target`. `None` when too many lookups are under way.
    pub fn find(&mut self, now: Instant, target: Key, want: Want, outbox: &mut Outbox) -> Option<LookupId> {
        if self.lookups.len() >= self.config.limits.lookups_max {
            self.counters.lookup_refused += 1;
            return None;
        }
        let lookup = self.start_lookup(now, target, want, Reason::Caller, outbox);
        self.drive(now, outbox);
        Some(lookup)
    }

    /// Ends a lookup without an event.
    pub fn stop(&mut self, lookup: LookupId) {
        if self.lookups.get(&lookup).is_some_and(|lookup| lookup.reason == Reason::Caller) {
            self.lookups.remove(&lookup);
        }
    }

    /// Another machine exchanged authenticated messages with a node that is not a leaf. A stream authenticates the node, but does
    /// not validate its address for datagrams: an unknown node is checked before it enters the routing table.
    pub fn note_alive(&mut self, now: Instant, contact: Contact, peers: &mut Peers) {
        if !self.table.is_at(&contact.id, contact.addr) {
            if self.is_worth_a_ping(now, &contact, peers) {
                self.maintenance.check_at(now, contact);
            }
            return;
        }
        peers.note_reached(now, &contact.id);
        // Contacts to be checked are checked at the next deadline.
        for check in self.alive(now, contact, Origin::Told, peers) {
            self.maintenance.check_at(now, check);
        }
    }

    /// A node told a link of this machine that it is there. Returns whether it is a contact at this address.
    pub fn note_on_link(&mut self, contact: &Contact) -> bool {
        let known = self.table.is_at(&contact.id, contact.addr);
        if known {
            self.table.note_on_link(&contact.id);
        }
        known
    }

    /// Checks at `at` a node that told a link of this machine that it is there, unless the table has no use for it. Returns whether
    /// it will be checked.
    pub fn check_on_link(&mut self, at: Instant, contact: Contact, peers: &Peers) -> bool {
        self.is_worth_a_ping(at, &contact, peers) && self.maintenance.check_as(at, contact, Origin::Link)
    }

    /// Sets whether this node is a leaf: a leaf keeps no records of others, and no table of theirs names it.
    pub fn set_leaf(&mut self, leaf: bool) {
        self.config.leaf = leaf;
    }

    /// Sets the bootstrap addresses. If the node knows no other, it asks them at once.
    pub fn set_bootstrap(&mut self, now: Instant, addresses: impl Iterator<Item = SocketAddr>) {
        self.bootstrap.set_addresses(now, addresses, self.table.is_empty());
    }

    /// Another machine could not reach a node.
    pub fn note_unreachable(&mut self, now: Instant, id: &NodeId, peers: &mut Peers) {
        match self.table.get(id).map(|entry| entry.contact) {
            Some(contact) => self.failed(now, &contact, peers),
            None => self.lookup_cache.remove(id),
        }
    }

    /// Another machine knows that a node departed: it said goodbye, or was silent for too long.
    pub fn forget(&mut self, now: Instant, id: &NodeId) {
        self.gone(now, id);
    }

    /// Says goodbye to the nearest contacts, as many as the outbox has room for.
    /// `sequence` is the number of the state that says so.
    pub fn leave(&mut self, now: Instant, for_good: bool, sequence: u64, outbox: &mut Outbox) {
        const TOLD: usize = 32;
        for contact in self.closest_known(outbox.peers(), &self.own.key(), TOLD) {
            let message = Message::Leave { for_good, sequence };
            if outbox.goodbye(now, contact.addr, contact.id, &message).is_none() {
                break;
            }
        }
    }

    // Getters.

    /// The `n` contacts closest to `key` that owe no answer, nearest first, from the routing table.
    pub fn closest_known(&self, peers: &Peers, key: &Key, n: usize) -> Vec<Contact> {
        let mut slots = vec![None; n];
        let nearest = self.table.nearest(key, &mut slots, |entry| entry.owes_nothing(peers));
        nearest.iter().map(|entry| entry.contact).collect()
    }

    /// Whether a node is in the routing table.
    pub fn is_contact(&self, id: &NodeId) -> bool {
        self.table.get(id).is_some()
    }

    /// Whether the first attempt to join the network is under way. It ends with the first contact, or after some seconds.
    pub fn is_joining(&self) -> bool {
        self.bootstrap.is_joining()
    }

    /// The number of contacts that are closer to `key` than this node, and owe no answer.
    pub fn closer_than_self(&self, peers: &Peers, key: &Key) -> usize {
        let own = self.own.distance(key);
        let closer = |entry: &&routing_table::Entry| entry.contact.id.distance(key) < own;
        self.table.iter().filter(closer).filter(|entry| entry.owes_nothing(peers)).count()
    }

    /// The `n` live nodes closest to `key`, nearest first, without this node. `None` unless a lookup of the last ten minutes covers
    /// the key. Fewer than `n` when the network has no more.
    pub fn region(&self, now: Instant, key: &Key, n: usize) -> Option<Vec<Contact>> {
        self.lookup_cache.closest(now, key, n)
    }

    /// How parties are told apart.
    pub fn parties(&self) -> Parties {
        self.config.parties
    }

    /// The address at which other nodes reach this one, if it is known.
    pub fn own_addr(&self) -> Option<SocketAddr> {
        self.observed.own()
    }

    /// The contacts, nearest first.
    pub fn peers(&self, now: Instant, peers: &Peers) -> Vec<PeerInfo> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|entry| entry.contact.id.distance(&self.own.key()));
        let info = |entry: &routing_table::Entry| PeerInfo {
            contact: entry.contact,
            origin: entry.origin,
            good: entry.is_good(now, peers),
            silent_for: now.since(entry.heard(peers)),
        };
        entries.into_iter().map(info).collect()
    }

    /// Statistics of the DHT.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            contacts: self.table.len(),
            lookups: self.lookups.len(),
            records: self.values.len(),
            providers: self.providers.len(),
            announcements: self.announcements.len(),
            transactions: self.transactions.len(),
            counters: self.counters,
        }
    }

    /// Up to 64 contacts for the next start. Contacts that owe no answer come first; of those, the oldest first, because they are
    /// the likeliest to stay (Maymounkov and Mazières, §2.2).
    pub fn contacts_to_remember(&self, peers: &Peers) -> Vec<Contact> {
        const REMEMBERED_MAX: usize = 64;
        let mut entries: Vec<_> = self.table.iter().collect();
        let unanswered = |entry: &routing_table::Entry| peers.unanswered(&entry.contact.id);
        entries.sort_by_cached_key(|entry| (unanswered(entry), entry.since, entry.contact.id));
        let live = entries.into_iter().map(|entry| entry.contact);
        let former = self.bootstrap.former.iter().filter(|contact| self.table.get(&contact.id).is_none());
        live.chain(former).take(REMEMBERED_MAX).collect()
    }

    fn drive(&mut self, now: Instant, outbox: &mut Outbox) {
        // The end of a lookup may advance a publication, which may start another lookup.
        loop {
            let finished = self.drive_lookups(now, outbox);
            let announced = self.drive_announcements(now, outbox);
            let published = self.drive_publications(now, outbox);
            if !finished && !announced && !published {
                break;
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }
}

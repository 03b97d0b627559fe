//! Staying in touch: joining the network, refreshing buckets, checking on contacts, forgetting what has expired.

use super::address::is_meaningful;
use super::lookup::Reason;
use super::transactions::Purpose;
use super::{Dht, DhtConfig, DhtEvent, Want};
use crate::id::NodeId;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::{Contact, WireContact, canonical};
use crate::wire::outbox::Outbox;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// The first pause between two lookups of the own neighbourhood after joining; each is four times the one before. Those
/// who join at the same moment are in nobody's table yet when they look for each other the first time.
const SETTLING_MIN: Duration = Duration::from_secs(1);
/// The first pause between two rounds of bootstrapping; each is twice the one before.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause between two rounds of bootstrapping.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a round of bootstrapping waits for an answer before it counts as failed.
const ROUND: Duration = Duration::from_secs(2);
/// Addresses that one round of bootstrapping tries, and contacts of old besides.
const BOOTSTRAP_MAX: usize = 16;
/// Contacts that were there once and are not in the table.
const FALLEN_MAX: usize = 64;
/// Contacts that wait to be checked.
const CHECKS_MAX: usize = 64;
/// Nodes that did not answer lately.
const SILENT_MAX: usize = 128;
/// How long what others say about a silent node is not believed.
const SILENT_FOR: Duration = Duration::from_secs(120);
/// How often expired things are looked for, when there is anything that could expire.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
/// The pause between two refreshes of buckets that are both due.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bootstrap {
    /// There is somebody in the table, or nobody to ask.
    Idle,
    /// Somebody was asked.
    Trying(Instant),
    /// Somebody will be asked.
    Waiting(Instant),
}

/// The timers and the notes of upkeep.
pub(super) struct Upkeep {
    bootstrap: Bootstrap,
    backoff: Duration,
    tried: u32,
    addresses: Vec<SocketAddr>,
    fallen: VecDeque<Contact>,
    joined: bool,
    neighbourhood_at: Option<Instant>,
    settling: Duration,
    refresh_at: Option<Instant>,
    tidy_at: Instant,
    checks: BTreeMap<(Instant, NodeId), Contact>,
    silent: BTreeMap<NodeId, Instant>,
}

impl Upkeep {
    pub(super) fn new(now: Instant, config: &DhtConfig) -> Self {
        let mut addresses = Vec::new();
        for address in config.bootstrap.iter().map(|address| canonical(*address)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Upkeep {
            bootstrap: Bootstrap::Waiting(now),
            backoff: BACKOFF_MIN,
            tried: 0,
            addresses,
            fallen: config.remembered.iter().take(FALLEN_MAX).copied().collect(),
            joined: false,
            neighbourhood_at: None,
            settling: SETTLING_MIN,
            refresh_at: None,
            tidy_at: now + TIDY_INTERVAL,
            checks: BTreeMap::new(),
            silent: BTreeMap::new(),
        }
    }

    /// `kept`: whether there is anything that could expire.
    pub(super) fn next_deadline(&self, kept: bool) -> Option<Instant> {
        let bootstrap = match self.bootstrap {
            Bootstrap::Idle => None,
            Bootstrap::Trying(at) | Bootstrap::Waiting(at) => Some(at),
        };
        let check = self.checks.keys().next().map(|(at, _)| *at);
        let tidy = (kept || !self.silent.is_empty()).then_some(self.tidy_at);
        [bootstrap, self.neighbourhood_at, self.refresh_at, check, tidy].into_iter().fold(None, earliest)
    }

    /// Contacts that were there once, the latest first.
    pub(super) fn fallen(&self) -> impl Iterator<Item = Contact> {
        self.fallen.iter().copied()
    }

    /// A contact was dropped because it did not answer. It may be us who were cut off.
    pub(super) fn fell(&mut self, contact: Contact) {
        self.fallen.retain(|fallen| fallen.id != contact.id);
        self.fallen.truncate(FALLEN_MAX - 1);
        self.fallen.push_front(contact);
    }

    /// Whether the first attempt to join is still under way: there are nodes to join through, and nothing is known of them
    /// yet.
    pub(super) fn is_joining(&self) -> bool {
        let under_way = !matches!(self.bootstrap, Bootstrap::Idle) && self.backoff == BACKOFF_MIN;
        under_way && self.addresses.len() + self.fallen.len() > 0
    }

    /// The table is not empty any more.
    pub(super) fn first_contact(&mut self, now: Instant) {
        self.bootstrap = Bootstrap::Idle;
        self.backoff = BACKOFF_MIN;
        self.neighbourhood_at = Some(now);
        self.settling = SETTLING_MIN;
    }

    /// The table is empty.
    pub(super) fn last_contact_lost(&mut self, now: Instant) {
        self.bootstrap = Bootstrap::Waiting(now + BACKOFF_MIN);
        (self.neighbourhood_at, self.refresh_at) = (None, None);
    }

    /// A contact is to be asked at `at` whether it is there.
    pub(super) fn check_at(&mut self, at: Instant, contact: Contact) {
        if self.checks.len() < CHECKS_MAX && !self.checks.keys().any(|(_, id)| *id == contact.id) {
            self.checks.insert((at, contact.id), contact);
        }
    }

    /// A node did not answer.
    pub(super) fn silent(&mut self, now: Instant, id: NodeId) {
        if self.silent.len() >= SILENT_MAX && !self.silent.contains_key(&id) {
            let first = self.silent.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id);
            first.and_then(|first| self.silent.remove(&first));
        }
        self.silent.insert(id, now);
    }

    /// A node answered.
    pub(super) fn not_silent(&mut self, id: &NodeId) {
        self.silent.remove(id);
    }

    /// Whether a node did not answer lately.
    pub(super) fn is_silent(&self, now: Instant, id: &NodeId) -> bool {
        self.silent.get(id).is_some_and(|at| now.since(*at) < SILENT_FOR)
    }
}

impl Dht {
    /// Does what is due.
    pub(super) fn maintain(&mut self, now: Instant, outbox: &mut Outbox) {
        self.bootstrap(now, outbox);
        while let Some(entry) = self.upkeep.checks.first_entry().filter(|entry| entry.key().0 <= now) {
            let contact = entry.remove();
            self.check(now, contact, outbox);
        }
        if self.upkeep.neighbourhood_at.is_some_and(|at| at <= now) {
            self.look_around(now, outbox);
        }
        if self.upkeep.refresh_at.is_some_and(|at| at <= now) {
            self.refresh(now, outbox);
        }
        if self.upkeep.tidy_at <= now {
            self.upkeep.tidy_at = now + TIDY_INTERVAL;
            self.upkeep.silent.retain(|_, at| now.since(*at) < SILENT_FOR);
            self.values.expire(now);
            self.providers.expire(now);
            self.regions.expire(now);
            self.cache.expire(now);
            self.book.expire(now);
        }
    }

    /// The lookup for the own neighbourhood is over.
    pub(super) fn found_neighbourhood(&mut self) {
        if !self.upkeep.joined && !self.table.is_empty() {
            self.upkeep.joined = true;
            self.events.push_back(DhtEvent::Joined { contacts: self.table.len() as u32 });
        }
    }

    /// An address answered. When who is there cannot enter the table, those whom it names may.
    pub(super) fn handle_bootstrap(
        &mut self,
        now: Instant,
        from: SocketAddr,
        contacts: &[WireContact],
        outbox: &mut Outbox,
    ) {
        const ASKED_MAX: usize = 8;
        if !self.table.is_empty() {
            return;
        }
        for contact in contacts.iter().filter_map(WireContact::get).take(ASKED_MAX) {
            if contact.id != self.own && is_meaningful(contact.addr, from) {
                self.check(now, contact, outbox);
            }
        }
    }

    fn bootstrap(&mut self, now: Instant, outbox: &mut Outbox) {
        match self.upkeep.bootstrap {
            Bootstrap::Trying(at) if at <= now => {
                let pause = self.upkeep.backoff;
                let retry_in = self.rng.duration(pause * 3 / 4, pause * 5 / 4);
                self.upkeep.bootstrap = Bootstrap::Waiting(now + retry_in);
                self.upkeep.backoff = (pause * 2).min(BACKOFF_MAX);
                self.counters.bootstrap_failed += 1;
                self.events.push_back(DhtEvent::BootstrapFailed { retry_in, tried: self.upkeep.tried });
            }
            Bootstrap::Waiting(at) if at <= now => {
                self.upkeep.tried = self.ask_anybody(now, outbox);
                self.upkeep.bootstrap = match self.upkeep.addresses.len() + self.upkeep.fallen.len() {
                    0 => Bootstrap::Idle,
                    _ => Bootstrap::Trying(now + ROUND),
                };
            }
            _ => {}
        }
    }

    /// Asks the bootstrap addresses and contacts of old, and says how many.
    fn ask_anybody(&mut self, now: Instant, outbox: &mut Outbox) -> u32 {
        let mut tried = 0;
        for _ in 0..self.upkeep.addresses.len().min(BOOTSTRAP_MAX) {
            // In turn, when there are more than one round takes.
            self.upkeep.addresses.rotate_left(1);
            let Some(&address) = self.upkeep.addresses.last() else { break };
            tried += u32::from(self.ask(now, address, None, Purpose::Bootstrap, outbox));
        }
        for _ in 0..self.upkeep.fallen.len().min(BOOTSTRAP_MAX) {
            self.upkeep.fallen.rotate_left(1);
            let Some(&contact) = self.upkeep.fallen.back() else { break };
            let idle = !self.transactions.is_asking(&contact.id, contact.addr) && contact.id != self.own;
            let asked = idle && self.ask(now, contact.addr, Some(contact), Purpose::Check, outbox);
            tried += u32::from(asked);
        }
        tried
    }

    /// Looks for the own neighbourhood, asks how others see this node, and whether those it started from are back.
    fn look_around(&mut self, now: Instant, outbox: &mut Outbox) {
        const OBSERVERS: usize = 3;
        let interval = self.config.neighbourhood_interval.min(self.upkeep.settling);
        self.upkeep.settling = (self.upkeep.settling * 4).min(self.config.neighbourhood_interval);
        let first = self.upkeep.refresh_at.is_none();
        self.upkeep.neighbourhood_at = Some(now + self.rng.duration(interval * 9 / 10, interval * 11 / 10));
        if first {
            self.upkeep.refresh_at = Some(now + REFRESH_PAUSE);
        } else {
            for contact in self.closest_known(&self.own.key(), OBSERVERS) {
                self.check(now, contact, outbox);
            }
            let known = |address: &SocketAddr| self.table.iter().any(|e| e.contact.addr == *address);
            let lost: Vec<_> = self.upkeep.addresses.iter().filter(|a| !known(a)).copied().collect();
            if let Some(&address) = lost.get(self.rng.below(lost.len() as u64) as usize) {
                self.ask(now, address, None, Purpose::Bootstrap, outbox);
            }
        }
        let already = self.lookups.values().any(|lookup| lookup.reason == Reason::Neighbourhood);
        if !already && self.own_lookups_room() > 0 {
            self.start_lookup(now, self.own.key(), Want::Nodes, Reason::Neighbourhood, outbox);
        }
    }

    fn refresh(&mut self, now: Instant, outbox: &Outbox) {
        let interval = self.config.refresh_interval;
        let Some((bucket, touched)) = self.table.longest_untouched() else {
            self.upkeep.refresh_at = None;
            return;
        };
        let due = touched.map(|touched| touched + interval).filter(|due| *due > now);
        self.upkeep.refresh_at = Some(match due {
            Some(due) => due + self.rng.duration(Duration::ZERO, interval / 10),
            None => {
                if self.own_lookups_room() > 0 {
                    let key = self.table.random_key(bucket, &mut self.rng);
                    self.start_lookup(now, key, Want::Nodes, Reason::Refresh, outbox);
                }
                now + REFRESH_PAUSE
            }
        });
    }
}

//! This node's own value records: choosing the next sequence number, storing them at the closest nodes, and storing them again every
//! hour.

use super::lookup::{Lookup, Reason};
use super::placement::{List, Placement, Stage, Tick};
use super::questions::Purpose;
use super::{Dht, DhtEvent, LookupId, PublishId, Want};
use crate::id::{Key, NodeId};
use crate::peers::contest::Holder;
use crate::peers::outbox::Outbox;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::message::NotStored;
use crate::wire::network::Network;
use crate::wire::record::{LIFETIME_MAX, Record, VALUE_BYTES_MAX, is_name, record_key, sign_record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Outstanding store requests.
const IN_FLIGHT_MAX: usize = 16;
/// Records in one turn that are skipped because they need a lookup and none can begin. The records behind them wait, too.
const SKIPPED_PER_TURN_MAX: usize = 64;

/// The result of [`Dht::unpublish`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unpublished {
    /// The seconds for which other nodes may still keep the value; 0 if there was none.
    pub lifetime: u32,
    /// Publications of the name that were under way. No event follows for them.
    pub cancelled: Vec<PublishId>,
}

/// The own records, and the queue of stores to be sent.
pub(super) struct Publications {
    /// The highest sequence number used. Each record of this node gets a higher one than the record before.
    sequence: u64,
    records: BTreeMap<Key, OwnRecord>,
    agenda: Agenda,
    under_way: BTreeMap<LookupId, Publishing>,
    queue: VecDeque<(Key, u64, Contact)>,
    in_flight: usize,
}

/// The own records by what is to be done with them next. A turn looks only at those for which there is something to do.
#[derive(Default)]
struct Agenda {
    scheduled: BTreeSet<(Tick, Key)>,
    due: BTreeSet<Key>,
    settled: BTreeSet<Key>,
}

impl Agenda {
    fn enter(&mut self, key: Key, list: List) {
        _ = match list {
            List::Scheduled(at) => self.scheduled.insert((at, key)),
            List::Due => self.due.insert(key),
            List::Settled => self.settled.insert(key),
            List::None => return,
        };
    }

    fn leave(&mut self, key: Key, list: List) {
        _ = match list {
            List::Scheduled(at) => self.scheduled.remove(&(at, key)),
            List::Due => self.due.remove(&key),
            List::Settled => self.settled.remove(&key),
            List::None => return,
        };
    }

    /// Changes the placement of a record that is on a list.
    fn change<T>(
        &mut self,
        key: Key,
        placement: &mut Placement,
        change: impl FnOnce(&mut Placement) -> T,
    ) -> T {
        let before = placement.list();
        let changed = change(placement);
        let after = placement.list();
        if before != after {
            self.leave(key, before);
            self.enter(key, after);
        }
        changed
    }
}

struct OwnRecord {
    bytes: Vec<u8>,
    sequence: u64,
    placement: Placement,
    /// The publication that waits for the present round, and the number of nodes that its lookup asked.
    awaited: Option<(PublishId, u32)>,
}

/// A value that waits for its sequence number.
struct Publishing {
    id: PublishId,
    name: String,
    value: Vec<u8>,
    lifetime: u32,
}

impl Publications {
    pub(super) fn new(sequence: u64) -> Self {
        let (records, agenda, under_way, queue) = Default::default();
        Publications { sequence, records, agenda, under_way, queue, in_flight: 0 }
    }

    /// A number above all that this node has used.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The bytes of the own record under `key`.
    pub(super) fn record(&self, key: &Key) -> Option<&[u8]> {
        self.records.get(key).map(|own| &own.bytes[..])
    }

    /// Adds an own record, in the place of an older one.
    fn insert(&mut self, key: Key, own: OwnRecord) {
        self.remove(&key);
        self.agenda.enter(key, own.placement.list());
        self.records.insert(key, own);
    }

    fn remove(&mut self, key: &Key) -> Option<OwnRecord> {
        let own = self.records.remove(key)?;
        self.agenda.leave(*key, own.placement.list());
        Some(own)
    }

    /// Changes the placement of an own record, and moves the record to the list that it then belongs to.
    fn change<T>(&mut self, key: &Key, change: impl FnOnce(&mut Placement) -> T) -> Option<T> {
        let Publications { records, agenda, .. } = self;
        let placement = &mut records.get_mut(key)?.placement;
        Some(agenda.change(*key, placement, change))
    }

    /// Changes the placements of all own records.
    fn change_all(&mut self, change: impl Fn(&Key, &mut Placement)) {
        let Publications { records, agenda, .. } = self;
        for (key, own) in records {
            agenda.change(*key, &mut own.placement, |placement| change(key, placement));
        }
    }

    /// Makes the records due whose time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.agenda.scheduled.pop_first() else { return };
            self.change(&key, |placement| placement.fire(now));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.scheduled.first().map(|(at, _)| at.instant())
    }

    /// A node is alive: it may be among the closest to some records.
    pub(super) fn consider(&mut self, node: &NodeId, soon: Instant) {
        let soon = Tick::not_before(soon);
        self.change_all(|key, placement| placement.consider(key, node, soon));
    }

    /// A node departed: it may have kept records.
    pub(super) fn lost(&mut self, id: &NodeId, soon: Instant) {
        let soon = Tick::not_before(soon);
        self.change_all(|_, placement| placement.lost(id, soon));
    }

    /// A store request succeeded or failed.
    pub(super) fn settle(&mut self, id: &NodeId, key: &Key, sequence: u64, kept: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.records.get(key).is_some_and(|own| own.sequence == sequence) {
            self.change(key, |placement| placement.settle(id, kept));
        }
    }
}

impl Dht {
    /// Publishes a value under this node's key and `name`. A lookup of the highest sequence number comes first;
    /// [`DhtEvent::Published`] follows at the end. `None` when the name, the value or the lifetime is invalid, or too much is under
    /// way.
    pub fn publish(
        &mut self,
        now: Instant,
        name: &str,
        value: &[u8],
        lifetime: u32,
        outbox: &mut Outbox,
    ) -> Option<PublishId> {
        if !is_name(name) || value.len() > VALUE_BYTES_MAX || lifetime > LIFETIME_MAX {
            return None;
        }
        let key = record_key(&outbox.identity().public(), name);
        let names = self.publications.records.len() + self.publications.under_way.len();
        let room = names < self.config.limits.values_max || self.publications.records.contains_key(&key);
        if !room || self.lookups.len() >= self.config.limits.lookups_max {
            self.counters.lookup_refused += 1;
            return None;
        }
        let id = PublishId(self.number());
        let lookup = self.start_lookup(now, key, Want::Value, Reason::Publish, outbox);
        let publishing = Publishing { id, name: name.to_owned(), value: value.to_vec(), lifetime };
        self.publications.under_way.insert(lookup, publishing);
        self.drive(now, outbox);
        Some(id)
    }

    /// Whether `name` can be published: it is already, or there is room for one more.
    pub fn has_room_to_publish(&self, name: &str, outbox: &Outbox) -> bool {
        let key = record_key(&outbox.identity().public(), name);
        let names = self.publications.records.len() + self.publications.under_way.len();
        names < self.config.limits.values_max || self.publications.records.contains_key(&key)
    }

    /// Stops publishing the value under `name`, even one that waits for its sequence number. The nodes that keep it drop it at the
    /// end of its lifetime. `None` when there is no such value.
    pub fn unpublish(&mut self, name: &str, outbox: &Outbox) -> Option<Unpublished> {
        let key = record_key(&outbox.identity().public(), name);
        self.publish_superseded(&key);
        let waiting = |lookup: &&Lookup| lookup.reason == Reason::Publish && lookup.target == key;
        let waiting: Vec<LookupId> = self.lookups.values().filter(waiting).map(|lookup| lookup.id).collect();
        let mut cancelled = Vec::new();
        for lookup in waiting {
            self.lookups.remove(&lookup);
            cancelled.extend(self.publications.under_way.remove(&lookup).map(|publishing| publishing.id));
        }
        let own = self.publications.remove(&key);
        self.publications.queue.retain(|(queued, ..)| *queued != key);
        let record = own.as_ref().and_then(|own| Record::parse(&own.bytes).ok());
        let lifetime = record.map_or(0, |record| record.lifetime());
        (own.is_some() || !cancelled.is_empty()).then_some(Unpublished { lifetime, cancelled })
    }

    /// This node's own records. The caller saves them, and passes them to [`restore_record`](Dht::restore_record) after a restart.
    pub fn own_records(&self) -> impl Iterator<Item = &[u8]> {
        self.publications.records.values().map(|own| &own.bytes[..])
    }

    /// Restores a record that this node published in an earlier run. It is published again within a minute. False when it is not a
    /// valid record of this node.
    pub fn restore_record(&mut self, now: Instant, bytes: &[u8], network: &Network) -> bool {
        let Ok(record) = Record::parse(bytes) else { return false };
        let own = record.publisher().node_id() == self.own && record.verify(network).is_ok();
        // A record that a user published is kept, even if the limit is smaller now.
        if !own {
            return false;
        }
        let at = now + self.rng.duration(Duration::from_secs(10), Duration::from_secs(60));
        self.publications.sequence = self.publications.sequence.max(record.sequence());
        let placement = Placement::new(at);
        let own = OwnRecord { bytes: bytes.to_vec(), sequence: record.sequence(), placement, awaited: None };
        self.publications.insert(record.key(), own);
        true
    }

    /// A number above all that this node has given to something it signed.
    pub fn next_sequence(&mut self) -> u64 {
        self.publications.next_sequence()
    }

    /// The bytes of the record that this node publishes under `key`. Nothing newer exists.
    pub fn published_value(&self, key: &Key) -> Option<&[u8]> {
        self.publications.record(key)
    }

    /// The bytes of the newest record under `key` that lookups found within the last hour.
    pub fn remembered_value(&self, now: Instant, key: &Key) -> Option<&[u8]> {
        self.cache.get(now, key)
    }

    /// The lookup for a publication ended: the record gets its sequence number.
    pub(super) fn publish_found(&mut self, now: Instant, lookup: Lookup, outbox: &Outbox) {
        let keepers = lookup.keepers();
        let Some(publishing) = self.publications.under_way.remove(&lookup.id) else { return };
        let found = lookup.found.sequence().unwrap_or(0);
        // No number is used twice. A record with the highest possible number could never be superseded.
        self.publications.sequence = self.publications.sequence.max(found.min(u64::MAX - (1 << 32)));
        let sequence = self.publications.next_sequence();
        let Publishing { id, name, value, lifetime } = publishing;
        let signed = sign_record(outbox.network(), outbox.identity(), &name, &value, lifetime, sequence);
        let Some(bytes) = signed else { return };
        let awaited = Some((id, lookup.asked));
        let own = OwnRecord { bytes, sequence, placement: Placement::new(now), awaited };
        self.publications.queue.retain(|(key, ..)| *key != lookup.target);
        self.publish_superseded(&lookup.target);
        self.publications.insert(lookup.target, own);
        self.place_record(now, &lookup.target, &keepers);
    }

    /// Advances every own record as far as possible. Returns whether a lookup started.
    pub(super) fn drive_publications(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let (mut started, mut skipped) = (false, 0);
        let due: Vec<Key> = self.publications.agenda.due.iter().copied().collect();
        for key in due {
            if let Some(targets) = self.known_keepers(now, &key) {
                self.counters.region_used += 1;
                self.place_record(now, &key, &targets);
            } else if self.own_lookups_room() > 0 {
                self.start_lookup(now, key, Want::Nodes, Reason::Republish, outbox);
                self.publications.change(&key, |placement| placement.stage = Stage::Looking);
                started = true;
            } else {
                skipped += 1;
                if skipped == SKIPPED_PER_TURN_MAX {
                    break;
                }
            }
        }
        while self.publications.in_flight < IN_FLIGHT_MAX && self.transactions.room() > 0 {
            let Some((key, sequence, contact)) = self.publications.queue.pop_front() else { break };
            self.publications.in_flight += 1;
            if !self.ask(now, contact.addr, Some(contact), Purpose::Store(key, sequence), outbox) {
                self.publications.settle(&contact.id, &key, sequence, false);
            }
        }
        self.finish_publications(now);
        started
    }

    /// The nodes closest to an own record are known: stores it there, and here if this node is one of them.
    pub(super) fn place_record(&mut self, now: Instant, key: &Key, closest: &[Contact]) {
        let (targets, here) = self.keepers(key, closest);
        let Some(own) = self.publications.records.get(key) else { return };
        let sequence = own.sequence;
        let holder = Holder::node(self.config.parties, &self.own, self.config.listen);
        let keep = |record| self.values.store(now, &record, holder, true) == NotStored::Nothing;
        let here = here && Record::parse(&own.bytes).is_ok_and(keep);
        self.publications.change(key, |placement| placement.begin(key, targets, here));
        self.publications.queue.extend(targets.iter().map(|contact| (*key, sequence, *contact)));
    }

    /// A newer value supersedes one whose round has not ended: the publication that waits for the round ends now.
    fn publish_superseded(&mut self, key: &Key) {
        let Some(old) = self.publications.records.get_mut(key) else { return };
        if old.placement.stage == Stage::Looking {
            self.lookups.retain(|_, lookup| lookup.reason != Reason::Republish || lookup.target != *key);
        }
        if let Some(event) = old.published(key) {
            self.events.push_back(event);
        }
    }

    fn finish_publications(&mut self, now: Instant) {
        let pause = self.config.republish_interval;
        for key in core::mem::take(&mut self.publications.agenda.settled) {
            // An own record never changes: a new one replaces it.
            let rng = &mut self.rng;
            let again = self.publications.change(&key, |placement| placement.finish(now, pause, rng));
            debug_assert_eq!(again, Some(false));
            let own = self.publications.records.get_mut(&key);
            self.events.extend(own.and_then(|own| own.published(&key)));
        }
    }
}

impl OwnRecord {
    fn published(&mut self, key: &Key) -> Option<DhtEvent> {
        let (publish, asked) = self.awaited.take()?;
        let (copies, record) = (self.placement.copies(), self.bytes.clone());
        Some(DhtEvent::Published { publish, key: *key, sequence: self.sequence, copies, record, asked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(100);

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn publications(due: &[(u8, u64)]) -> Publications {
        let mut publications = Publications::new(0);
        for &(number, seconds) in due {
            let placement = Placement::new(START + Duration::from_secs(seconds));
            let own = OwnRecord { bytes: Vec::new(), sequence: 1, placement, awaited: None };
            publications.insert(key(number), own);
        }
        publications
    }

    #[test]
    fn records_become_due_in_the_order_of_their_deadlines() {
        let mut publications = publications(&[(1, 30), (2, 10), (3, 20)]);
        let mut order = Vec::new();
        while let Some(at) = publications.next_deadline() {
            publications.fire(at);
            let due: Vec<Key> = publications.agenda.due.iter().copied().collect();
            assert_eq!(due.len(), 1, "the others wait");
            publications.change(&due[0], |placement| placement.stage = Stage::Looking);
            order.push((at.since(START).as_secs(), due[0].0[0]));
        }
        assert_eq!(order, [(10, 2), (20, 3), (30, 1)]);
    }

    #[test]
    fn a_record_is_on_the_list_of_its_stage_until_it_is_removed() {
        let mut publications = publications(&[(1, 10)]);
        let node = Contact::new(crate::id::PublicKey([9; 32]), ([10, 0, 0, 1], 1).into());
        publications.fire(START + Duration::from_secs(10));
        publications.change(&key(1), |placement| placement.begin(&key(1), &[node], false));
        assert!(publications.agenda.due.is_empty() && publications.agenda.settled.is_empty());
        publications.settle(&node.id, &key(1), 2, true);
        assert!(publications.agenda.settled.is_empty(), "the answer is about another record");
        publications.settle(&node.id, &key(1), 1, true);
        assert!(publications.agenda.settled.contains(&key(1)));
        assert!(publications.remove(&key(1)).is_some());
        assert!(publications.agenda.settled.is_empty() && publications.next_deadline().is_none());
    }

    #[test]
    fn a_record_that_replaces_another_takes_its_place_on_the_lists() {
        let mut publications = publications(&[(1, 10), (1, 500)]);
        assert_eq!(publications.agenda.scheduled.len(), 1);
        let soon = START + Duration::from_secs(5);
        publications.consider(&NodeId([1; 32]), soon);
        assert!(publications.next_deadline().is_some_and(|at| at <= soon + Duration::from_secs(1)));
        assert_eq!(publications.agenda.scheduled.len(), 1);
    }
}

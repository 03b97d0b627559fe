//! The files that this node announces: that it serves them, to the nodes closest to their hashes.
//!
//! Announcements that are due and whose closest nodes are known from one region go out together, up to six in a datagram:
//! the cost of announcing grows with the number of regions, not of files.

use super::counters::Counter;
use super::lookup::Reason;
use super::placement::{COPIES, Placement, Stage};
use super::transactions::Purpose;
use super::{Dht, DhtEvent, Want};
use crate::id::{Key, NodeId};
use crate::time::{Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::message::{ANNOUNCEMENTS_MAX, Announcement, NotStored};
use crate::wire::outbox::Outbox;
use crate::wire::provider::ProviderRecord;
use std::collections::BTreeMap;

/// Announcements on their way at a time.
const IN_FLIGHT_MAX: usize = 16;
/// Files that one turn finds places for: each costs a signature.
const PLACED_PER_TURN_MAX: usize = 32;

/// What is announced, and what waits to be sent.
#[derive(Default)]
pub(super) struct Announcements {
    files: BTreeMap<Key, Announced>,
    queue: BTreeMap<NodeId, (Contact, Vec<Key>)>,
    in_flight: usize,
    /// Since when files wait for the next turn.
    more: Option<Instant>,
}

struct Announced {
    placement: Placement,
    partial: bool,
    withdrawn: bool,
    record: Option<ProviderRecord>,
}

impl Announcements {
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Makes due what is.
    pub(super) fn fire(&mut self, now: Instant) {
        self.files.values_mut().for_each(|file| file.placement.fire(now));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = self.files.values().filter_map(|file| file.placement.deadline()).min();
        earliest(self.more, due)
    }

    /// The own address is another now: everybody must hear.
    pub(super) fn address_changed(&mut self) {
        self.files.values_mut().for_each(|file| file.placement.changed());
    }

    /// A node is there.
    pub(super) fn consider(&mut self, contact: &Contact, soon: Instant) {
        self.files.iter_mut().for_each(|(key, file)| file.placement.consider(key, contact, soon));
    }

    /// A node is gone.
    pub(super) fn lost(&mut self, id: &NodeId, soon: Instant) {
        self.files.values_mut().for_each(|file| file.placement.lost(id, soon));
    }

    /// What a request carries.
    pub(super) fn records(&self, files: &[Key]) -> Vec<Announcement> {
        let record = |file: &Key| {
            let provider = self.files.get(file)?.record?;
            Some(Announcement { file: *file, provider })
        };
        files.iter().filter_map(record).take(ANNOUNCEMENTS_MAX).collect()
    }

    /// A request was answered, or not: so many of its records are kept.
    pub(super) fn settle(&mut self, id: &NodeId, files: &[Key], accepted: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for (index, file) in files.iter().enumerate() {
            if let Some(file) = self.files.get_mut(file) {
                file.placement.settle(id, index < accepted);
            }
        }
    }

    fn enqueue(&mut self, file: &Key, targets: &[Contact]) {
        for contact in targets {
            self.queue.entry(contact.id).or_insert_with(|| (*contact, Vec::new())).1.push(*file);
        }
    }

    fn dequeue(&mut self) -> Option<(Contact, Vec<Key>)> {
        let mut entry = self.queue.first_entry()?;
        let (contact, files) = entry.get_mut();
        let rest = files.split_off(files.len().min(ANNOUNCEMENTS_MAX));
        let batch = (*contact, core::mem::replace(files, rest));
        if files.is_empty() {
            entry.remove();
        }
        Some(batch)
    }
}

impl Dht {
    /// Announces that this node serves `file` (`partial`: only a part of it yet), now and again until
    /// [`unprovide`](Dht::unprovide). Each round ends with [`DhtEvent::Announced`]. More files than
    /// [`Limits::shares_max`](crate::limits::Limits::shares_max) are not announced.
    pub fn provide(&mut self, now: Instant, file: Key, partial: bool, outbox: &mut Outbox) {
        let files = &mut self.announcements.files;
        if files.len() >= self.config.limits.shares_max && !files.contains_key(&file) {
            return;
        }
        let new = || Announced { placement: Placement::new(now), partial, withdrawn: false, record: None };
        let announced = files.entry(file).or_insert_with(new);
        if announced.partial != partial || announced.withdrawn {
            (announced.partial, announced.withdrawn) = (partial, false);
            announced.placement.changed();
        }
        announced.placement.fire(now);
        self.drive(now, outbox);
    }

    /// Takes an announcement back, as far as those who heard it can be reached.
    pub fn unprovide(&mut self, now: Instant, file: &Key, outbox: &mut Outbox) {
        self.providers.remove(file, &outbox.identity().public());
        let Some(announced) = self.announcements.files.get_mut(file) else { return };
        if let Stage::Looking(lookup) = announced.placement.stage {
            self.lookups.remove(&lookup);
        }
        let told = announced.placement.told().to_vec();
        let Some(addr) = self.observed.own().filter(|_| !told.is_empty()) else {
            self.announcements.files.remove(file);
            return;
        };
        announced.withdrawn = true;
        let sequence = self.publications.next_sequence();
        let (network, identity) = (outbox.network(), outbox.identity());
        announced.record = Some(ProviderRecord::new(network, identity, file, addr, false, 0, sequence));
        // What waits to be sent would only say twice what is said now.
        let mut unsent = 0;
        self.announcements.queue.retain(|_, (_, files)| {
            let before = files.len();
            files.retain(|waiting| waiting != file);
            unsent += before - files.len();
            !files.is_empty()
        });
        if let Some(announced) = self.announcements.files.get_mut(file) {
            announced.placement.begin_withdrawal(unsent);
        }
        self.announcements.enqueue(file, &told);
        self.drive(now, outbox);
    }

    /// Moves every announcement on as far as it goes. True when there is more to do at once.
    pub(super) fn drive_announcements(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let mut started = false;
        self.announcements.more = None;
        let due = |file: &Announced| file.placement.stage == Stage::Due;
        let due: Vec<Key> =
            self.announcements.files.iter().filter(|(_, file)| due(file)).map(|(key, _)| *key).collect();
        let mut budget = PLACED_PER_TURN_MAX;
        for file in due {
            if budget == 0 {
                self.announcements.more = Some(now);
                break;
            }
            if self.observed.own().is_none() {
                self.place_file(now, &file, &[], outbox);
            } else if let Some(targets) = self.regions.closest(now, &file, COPIES) {
                self.counters.count(Counter::RegionUsed);
                self.place_file(now, &file, &targets, outbox);
                budget -= 1;
            } else if self.own_lookups_room() > 0 {
                let lookup = self.start_lookup(now, file, Want::Nodes, Reason::Announce, outbox);
                if let Some(announced) = self.announcements.files.get_mut(&file) {
                    announced.placement.stage = Stage::Looking(lookup);
                }
                started = true;
            }
        }
        while self.announcements.in_flight < IN_FLIGHT_MAX && self.transactions.room() > 0 {
            let Some((contact, files)) = self.announcements.dequeue() else { break };
            self.announcements.in_flight += 1;
            debug_assert!(!self.announcements.records(&files).is_empty());
            let purpose = Purpose::Announce(files.clone());
            if !self.ask(now, contact.addr, Some(contact), purpose, outbox) {
                self.announcements.settle(&contact.id, &files, 0);
            }
        }
        self.finish_announcements(now) || started
    }

    /// The nodes closest to a file are known: announces it to them, and to itself when this node is one of them.
    pub(super) fn place_file(&mut self, now: Instant, file: &Key, closest: &[Contact], outbox: &Outbox) {
        let own = self.own.distance(file);
        let nearer = closest.iter().filter(|contact| contact.id.distance(file) < own).count();
        let here = !self.config.leaf && nearer < COPIES;
        let targets = &closest[..closest.len().min(COPIES - usize::from(here))];
        let Some(announced) = self.announcements.files.get_mut(file) else { return };
        let Some(addr) = self.observed.own() else {
            // Without an address there is nothing to say. The first pong brings one and makes this due again.
            announced.placement.begin(file, &[], false);
            return;
        };
        let sequence = self.publications.next_sequence();
        let (network, identity) = (outbox.network(), outbox.identity());
        let (partial, lifetime) = (announced.partial, self.config.provider_lifetime);
        let record = ProviderRecord::new(network, identity, file, addr, partial, lifetime, sequence);
        announced.record = Some(record);
        let here = here && self.providers.store(now, file, &record) == NotStored::Nothing;
        announced.placement.begin(file, targets, here);
        self.announcements.enqueue(file, targets);
    }

    fn finish_announcements(&mut self, now: Instant) -> bool {
        let pause = self.config.announce_interval;
        let (rng, events) = (&mut self.rng, &mut self.events);
        let mut again = false;
        self.announcements.files.retain(|key, file| {
            if !file.placement.is_settled() {
                return true;
            }
            if !file.withdrawn {
                // One that was taken back and then provided again goes out once more before anybody hears of it.
                if file.record.is_none_or(|record| record.lifetime() > 0) {
                    events.push_back(DhtEvent::Announced { file: *key, copies: file.placement.copies() });
                }
                again |= file.placement.finish(now, pause, rng);
            }
            !file.withdrawn
        });
        again
    }
}

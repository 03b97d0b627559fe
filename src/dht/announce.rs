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
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// Announcements on their way at a time.
const IN_FLIGHT_MAX: usize = 16;
/// Files that one turn finds places for: each costs a signature.
const PLACED_PER_TURN_MAX: usize = 32;
/// Files in a turn for which no place is known and no lookup can begin, before those behind them have to wait too.
const SKIPPED_PER_TURN_MAX: usize = 64;

/// What is announced, and what waits to be sent.
#[derive(Default)]
pub(super) struct Announcements {
    files: BTreeMap<Key, Announced>,
    /// Where each file stands, so that a turn costs what is to be done and not what is shared.
    due: BTreeSet<Key>,
    scheduled: BTreeSet<(Instant, Key)>,
    settled: BTreeSet<Key>,
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

/// The list that a file is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Due,
    Scheduled(Instant),
    Settled,
    /// It waits for a lookup or for answers.
    None,
}

impl Announced {
    fn list(&self) -> List {
        match self.placement.stage {
            Stage::Due => List::Due,
            Stage::Scheduled(at) => List::Scheduled(at),
            _ if self.placement.is_settled() => List::Settled,
            Stage::Looking(_) | Stage::Sending => List::None,
        }
    }
}

impl Announcements {
    /// Adds a file that is not announced yet.
    fn add(&mut self, file: Key, announced: Announced) {
        let list = announced.list();
        self.files.insert(file, announced);
        self.enter(file, list);
    }

    fn remove(&mut self, file: &Key) {
        if let Some(announced) = self.files.remove(file) {
            self.leave(*file, announced.list());
        }
    }

    /// Changes a file, and the list that it is on accordingly.
    fn change<T>(&mut self, file: &Key, change: impl FnOnce(&mut Announced) -> T) -> Option<T> {
        let announced = self.files.get_mut(file)?;
        let before = announced.list();
        let changed = change(announced);
        let after = announced.list();
        if before != after {
            self.leave(*file, before);
            self.enter(*file, after);
        }
        Some(changed)
    }

    fn change_all(&mut self, mut change: impl FnMut(&Key, &mut Placement)) {
        let mut moved = Vec::new();
        for (key, file) in &mut self.files {
            let before = file.list();
            change(key, &mut file.placement);
            let after = file.list();
            if before != after {
                moved.push((*key, before, after));
            }
        }
        for (key, before, after) in moved {
            self.leave(key, before);
            self.enter(key, after);
        }
    }

    fn enter(&mut self, file: Key, list: List) {
        match list {
            List::Due => _ = self.due.insert(file),
            List::Scheduled(at) => _ = self.scheduled.insert((at, file)),
            List::Settled => _ = self.settled.insert(file),
            List::None => {}
        }
    }

    fn leave(&mut self, file: Key, list: List) {
        match list {
            List::Due => _ = self.due.remove(&file),
            List::Scheduled(at) => _ = self.scheduled.remove(&(at, file)),
            List::Settled => _ = self.settled.remove(&file),
            List::None => {}
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Makes due what is.
    pub(super) fn fire(&mut self, now: Instant) {
        while let Some(&(_, file)) = self.scheduled.first().filter(|(at, _)| *at <= now) {
            self.change(&file, |file| file.placement.fire(now));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.more, self.scheduled.first().map(|(at, _)| *at))
    }

    /// The own address is another now: everybody must hear.
    pub(super) fn address_changed(&mut self) {
        self.change_all(|_, placement| placement.changed());
    }

    /// A node is there.
    pub(super) fn consider(&mut self, contact: &Contact, soon: Instant) {
        self.change_all(|key, placement| placement.consider(key, contact, soon));
    }

    /// A node is gone.
    pub(super) fn lost(&mut self, id: &NodeId, soon: Instant) {
        self.change_all(|_, placement| placement.lost(id, soon));
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
            self.change(file, |file| file.placement.settle(id, index < accepted));
        }
    }

    /// The first file that is due behind `last`.
    fn next_due(&self, last: Option<Key>) -> Option<Key> {
        match last {
            Some(last) => self.due.range((Bound::Excluded(last), Bound::Unbounded)).next().copied(),
            None => self.due.first().copied(),
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
        let announcements = &mut self.announcements;
        if !announcements.files.contains_key(&file) {
            if announcements.files.len() >= self.config.limits.shares_max {
                return;
            }
            let placement = Placement::new(now);
            announcements.add(file, Announced { placement, partial, withdrawn: false, record: None });
        }
        announcements.change(&file, |announced| {
            if announced.partial != partial || announced.withdrawn {
                (announced.partial, announced.withdrawn) = (partial, false);
                announced.placement.changed();
            }
            announced.placement.fire(now);
        });
        self.drive(now, outbox);
    }

    /// Whether the latest round of announcing a file has ended: [`DhtEvent::Announced`] has told of it, and the next one is
    /// far away.
    pub fn has_announced(&self, file: &Key) -> bool {
        let announced = self.announcements.files.get(file).filter(|announced| !announced.withdrawn);
        announced.is_some_and(|announced| announced.placement.has_ended_round())
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
            self.announcements.remove(file);
            return;
        };
        let sequence = self.publications.next_sequence();
        let (network, identity) = (outbox.network(), outbox.identity());
        let record = ProviderRecord::new(network, identity, file, addr, false, 0, sequence);
        // What waits to be sent would only say twice what is said now.
        let mut unsent = 0;
        self.announcements.queue.retain(|_, (_, files)| {
            let before = files.len();
            files.retain(|waiting| waiting != file);
            unsent += before - files.len();
            !files.is_empty()
        });
        self.announcements.change(file, |announced| {
            (announced.withdrawn, announced.record) = (true, Some(record));
            announced.placement.begin_withdrawal(unsent);
        });
        self.announcements.enqueue(file, &told);
        self.drive(now, outbox);
    }

    /// Moves every announcement on as far as it goes. True when there is more to do at once.
    pub(super) fn drive_announcements(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let mut started = false;
        self.announcements.more = None;
        let (mut budget, mut skipped) = (PLACED_PER_TURN_MAX, 0);
        let mut last = None;
        while let Some(file) = self.announcements.next_due(last) {
            last = Some(file);
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
                self.announcements
                    .change(&file, |announced| announced.placement.stage = Stage::Looking(lookup));
                started = true;
            } else {
                skipped += 1;
                if skipped == SKIPPED_PER_TURN_MAX {
                    break;
                }
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
        let Some(announced) = self.announcements.files.get(file) else { return };
        let Some(addr) = self.observed.own() else {
            // Without an address there is nothing to say. The first pong brings one and makes this due again.
            self.announcements.change(file, |announced| announced.placement.begin(file, &[], false));
            return;
        };
        let sequence = self.publications.next_sequence();
        let (network, identity) = (outbox.network(), outbox.identity());
        let (partial, lifetime) = (announced.partial, self.config.provider_lifetime);
        let record = ProviderRecord::new(network, identity, file, addr, partial, lifetime, sequence);
        let here = here && self.providers.store(now, file, &record) == NotStored::Nothing;
        self.announcements.change(file, |announced| {
            announced.record = Some(record);
            announced.placement.begin(file, targets, here);
        });
        self.announcements.enqueue(file, targets);
    }

    fn finish_announcements(&mut self, now: Instant) -> bool {
        let pause = self.config.announce_interval;
        let (rng, events) = (&mut self.rng, &mut self.events);
        let mut again = false;
        for key in core::mem::take(&mut self.announcements.settled) {
            let goes_on = self.announcements.change(&key, |file| {
                if !file.withdrawn {
                    // One that was taken back and then provided again goes out once more before anybody hears of it.
                    if file.record.is_none_or(|record| record.lifetime() > 0) {
                        events.push_back(DhtEvent::Announced { file: key, copies: file.placement.copies() });
                    }
                    again |= file.placement.finish(now, pause, rng);
                }
                !file.withdrawn
            });
            if goes_on == Some(false) {
                self.announcements.remove(&key);
            }
        }
        again
    }
}

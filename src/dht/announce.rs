//! Announcements of this node's files: provider records at the nodes closest to the files' hashes.
//!
//! Due announcements whose closest nodes are in the lookup cache go out together, up to six in a datagram. So the cost of announcing
//! grows with the number of regions, not of files.
//!
//! A file that a user waits for is announced at once. All other rounds take turns at a steady rate, the longest due first. A start
//! with a hundred thousand files, a new address of this node, or a node that joins a small network makes all of them due at the same
//! time. The queue of announcements is bounded, and so is the work of one turn.

use super::announcements::Announced;
use super::lookup::Reason;
use super::placement::{COPIES, Placement, Stage, Tick};
use super::questions::Purpose;
use super::{Dht, DhtEvent, Want};
use crate::id::Key;
use crate::peers::outbox::Outbox;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::provider::ProviderRecord;

/// Outstanding requests.
const IN_FLIGHT_MAX: usize = 16;
/// Files that are placed in one turn: each costs a signature.
const PLACED_PER_TURN_MAX: usize = 32;
/// Files in one turn that are skipped because they need a lookup and none can begin. After these, the files behind them wait, too.
const SKIPPED_PER_TURN_MAX: usize = 64;
/// Queued announcements, each of one file to one node. While the queue is longer, further files wait.
const QUEUED_MAX: usize = 2048;

impl Dht {
    /// Announces that this node serves `file` (`partial`: only a part of it yet), now and in regular rounds until
    /// [`unprovide`](Dht::unprovide). Each round ends with [`DhtEvent::Announced`]. Files beyond
    /// [`Limits::shares_max`](crate::limits::Limits::shares_max) and the downloads are not announced.
    pub fn provide(&mut self, now: Instant, file: Key, partial: bool, outbox: &mut Outbox) {
        let announcements = &mut self.announcements;
        if announcements.files.contains_key(&file) {
            announcements.change(&file, |announced| {
                if announced.partial != partial || announced.withdrawn {
                    (announced.partial, announced.withdrawn) = (partial, false);
                    announced.placement.changed(Stage::Due);
                }
                announced.placement.fire(now);
            });
        } else if self.has_room_to_provide() {
            let placement = Placement::due();
            self.announcements.add(file, Announced::new(placement, partial));
        }
        self.drive(now, outbox);
    }

    /// Announces a file that this node already served in its last run. Other nodes still have its record, so it takes its turn like
    /// a regular round. Call this before any other method.
    pub fn provide_again(&mut self, now: Instant, file: Key) {
        if self.has_room_to_provide() && !self.announcements.files.contains_key(&file) {
            let placement = Placement::at(Stage::Scheduled(Tick::passed(now)));
            self.announcements.add(file, Announced::new(placement, false));
        }
    }

    fn has_room_to_provide(&self) -> bool {
        let limits = &self.config.limits;
        let served = self.announcements.files.len() - self.announcements.withdrawn;
        served < limits.shares_max.saturating_add(limits.downloads_max)
    }

    /// Whether the latest round of a file has ended with [`DhtEvent::Announced`] and the next one has not begun, or the present round
    /// has come to [`DhtEvent::Findable`].
    pub fn has_announced(&self, file: &Key) -> bool {
        let announced = self.announcements.files.get(file).filter(|announced| !announced.withdrawn);
        announced.is_some_and(|announced| {
            announced.placement.has_ended_round() || announced.placement.is_findable()
        })
    }

    /// This node's own provider record of a file, for the answer to a requester; `None` unless this node announces the file and is
    /// one of the closest to it. It is signed on request: kept in the table it would take more memory than the rest of a share.
    pub(super) fn own_provider(&mut self, file: &Key, outbox: &Outbox) -> Option<ProviderRecord> {
        let announced = self.announcements.files.get(file).filter(|announced| !announced.withdrawn)?;
        let (partial, addr) = (announced.partial, self.observed.own().filter(|_| announced.placement.here)?);
        let lifetime = self.config.provider_lifetime;
        // The record must equal the one that other nodes keep; otherwise requesters would take it for a newer one.
        let sequence = match announced.sequence {
            0 => self.publications.next_sequence(),
            number => self.config.sequence + u64::from(number),
        };
        let (network, identity) = (outbox.network(), outbox.identity());
        Some(ProviderRecord::new(network, identity, file, addr, partial, lifetime, sequence))
    }

    /// Withdraws an announcement. In its turn, the withdrawal goes to the nodes that are closest to the file at that time. At
    /// nodes that are not reached, the record expires with its lifetime.
    pub fn unprovide(&mut self, now: Instant, file: &Key, outbox: &mut Outbox) {
        let Some(announced) = self.announcements.files.get(file) else { return };
        if announced.withdrawn {
            return;
        }
        let untold = self.observed.own().is_none() || !announced.placement.was_told();
        if untold || self.announcements.withdrawn >= self.config.limits.shares_max {
            self.lookups.retain(|_, lookup| lookup.reason != Reason::Announce || lookup.target != *file);
            return self.announcements.remove(file);
        }
        self.announcements.change(file, |announced| {
            announced.withdrawn = true;
            announced.placement.changed(Stage::Scheduled(Tick::passed(now)));
        });
        self.announcements.fire(now);
        self.drive(now, outbox);
    }

    /// Advances every announcement as far as possible. Returns whether there is more to do at once.
    pub(super) fn drive_announcements(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let mut started = false;
        self.announcements.more = self.announcements.review().then_some(now);
        let (mut budget, mut skipped) = (PLACED_PER_TURN_MAX, 0);
        for _ in 0..self.announcements.due.len() {
            if self.announcements.queued >= QUEUED_MAX || skipped == SKIPPED_PER_TURN_MAX {
                break;
            }
            let Some(file) = self.announcements.next_due() else { break };
            if budget == 0 {
                self.announcements.more = Some(now);
                break;
            }
            self.announcements.last = Some(file);
            if self.observed.own().is_none() {
                self.place_file(&file, &[], outbox);
            } else if let Some(targets) = self.known_keepers(now, &file) {
                self.counters.region_used += 1;
                self.place_file(&file, &targets, outbox);
                budget -= 1;
            } else if self.own_lookups_room() > 0 {
                self.start_lookup(now, file, Want::Nodes, Reason::Announce, outbox);
                self.announcements.change(&file, |announced| announced.placement.stage = Stage::Looking);
                started = true;
            } else {
                skipped += 1;
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

    /// The nodes closest to a file are known: announces the file to them, and counts this node if it is one of them. For a withdrawn
    /// file, tells them that instead.
    pub(super) fn place_file(&mut self, file: &Key, closest: &[Contact], outbox: &Outbox) {
        let (keepers, here) = self.keepers(file, closest);
        let Some(&Announced { partial, withdrawn, .. }) = self.announcements.files.get(file) else { return };
        let Some(addr) = self.observed.own() else {
            // Without a known address there is nothing to announce. The first pong reveals it and makes the file due again.
            self.announcements.change(file, |announced| match withdrawn {
                true => announced.placement.begin_withdrawal(0),
                false => announced.placement.begin(file, &[], false),
            });
            return;
        };
        let targets = match withdrawn {
            // Twice as many as usual: newer nodes may have pushed some keepers of the record out of the closest.
            true => &closest[..closest.len().min(2 * COPIES)],
            false => keepers,
        };
        let lifetime = if withdrawn { 0 } else { self.config.provider_lifetime };
        let sequence = self.publications.next_sequence();
        let (network, identity) = (outbox.network(), outbox.identity());
        let record = ProviderRecord::new(network, identity, file, addr, partial, lifetime, sequence);
        self.announcements.records.insert(*file, record);
        let number = u32::try_from(sequence.saturating_sub(self.config.sequence)).unwrap_or(0);
        self.announcements.change(file, |announced| match withdrawn {
            true => announced.placement.begin_withdrawal(targets.len()),
            false => {
                announced.sequence = number;
                announced.placement.begin(file, targets, here);
            }
        });
        self.announcements.enqueue(file, targets);
    }

    fn finish_announcements(&mut self, now: Instant) -> bool {
        let pause = self.config.announce_interval;
        let mut again = false;
        for file in core::mem::take(&mut self.announcements.findable) {
            let announced = self.announcements.files.get(&file);
            if announced.is_some_and(|it| it.placement.is_findable() && !it.withdrawn) {
                self.events.push_back(DhtEvent::Findable { file });
            }
        }
        for key in core::mem::take(&mut self.announcements.settled) {
            let record = self.announcements.records.remove(&key);
            let told = record.is_none_or(|record| record.lifetime() > 0);
            let Some(announced) = self.announcements.files.get(&key) else { continue };
            // Without a known address there was no record, even for a withdrawal.
            if announced.withdrawn && (!told || self.observed.own().is_none()) {
                self.announcements.remove(&key);
                continue;
            }
            // A file that was withdrawn and provided again is announced once more before the caller is told.
            if told && !announced.withdrawn {
                let copies = announced.placement.copies();
                self.events.push_back(DhtEvent::Announced { file: key, copies });
            }
            let rng = &mut self.rng;
            again |=
                self.announcements.change(&key, |file| file.placement.finish(now, pause, rng)) == Some(true);
        }
        again
    }
}

//! Keeping the routing table current: refreshing buckets, checking contacts, removing expired entries.

use super::lookup::Reason;
use super::questions::Purpose;
use super::{Dht, Origin, Want};
use crate::id::NodeId;
use crate::peers::outbox::Outbox;
use crate::peers::table::Peers;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// The first pause between two lookups of the own neighbourhood after joining. Each further pause is four times as long. Nodes that
/// join at the same moment are in no table yet when they look for each other the first time.
const SETTLING_MIN: Duration = Duration::from_secs(1);
/// The least time between two lookups of the own neighbourhood because a former contact answered.
const REUNION_PAUSE: Duration = Duration::from_secs(30);
/// Contacts that are queued for a check.
const CHECKS_MAX: usize = 64;
/// The pause between two searches for expired entries, while there are entries that can expire.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
/// The pause between two refreshes of buckets that are both due.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);
/// Contacts that are pinged with each lookup of the own neighbourhood, to observe this node's address.
const OBSERVERS: usize = 3;
/// The same when this machine's addresses have changed.
const OBSERVERS_MANY: usize = 8;

/// The timers of maintenance, and the contacts to check.
pub(super) struct Maintenance {
    neighbourhood_at: Option<Instant>,
    reunion_at: Instant,
    settling: Duration,
    refresh_at: Option<Instant>,
    tidy_at: Instant,
    checks: BTreeMap<(Instant, NodeId), (Contact, Origin)>,
}

impl Maintenance {
    pub(super) fn new(now: Instant) -> Self {
        Maintenance {
            neighbourhood_at: None,
            reunion_at: now,
            settling: SETTLING_MIN,
            refresh_at: None,
            tidy_at: now + TIDY_INTERVAL,
            checks: BTreeMap::new(),
        }
    }

    /// `kept`: whether there are entries that could expire.
    pub(super) fn next_deadline(&self, kept: bool) -> Option<Instant> {
        let check = self.checks.keys().next().map(|(at, _)| *at);
        let tidy = kept.then_some(self.tidy_at);
        [self.neighbourhood_at, self.refresh_at, check, tidy].into_iter().fold(None, earliest)
    }

    /// The table has its first contact: the own neighbourhood is looked up.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.neighbourhood_at, self.settling) = (Some(now), SETTLING_MIN);
    }

    /// A former contact answered. Behind it there may be a part of the network from which this node was cut off, so the own
    /// neighbourhood is looked up again.
    pub(super) fn reunite(&mut self, now: Instant) {
        let at = self.reunion_at.max(now);
        if self.neighbourhood_at.is_some_and(|planned| at < planned) {
            (self.neighbourhood_at, self.reunion_at) = (Some(at), at + REUNION_PAUSE);
        }
    }

    /// The table is empty: there are no nodes to look up.
    pub(super) fn stop(&mut self) {
        (self.neighbourhood_at, self.refresh_at) = (None, None);
    }

    /// Schedules a check of a contact.
    pub(super) fn check_at(&mut self, at: Instant, contact: Contact) {
        self.check_as(at, contact, Origin::Told);
    }

    /// Schedules a check of a node that was learned of in this way. Returns whether there was room.
    pub(super) fn check_as(&mut self, at: Instant, contact: Contact, origin: Origin) -> bool {
        let has_room = self.checks.len() < CHECKS_MAX && !self.checks.keys().any(|(_, id)| *id == contact.id);
        if has_room {
            self.checks.insert((at, contact.id), (contact, origin));
        }
        has_room
    }

    fn next_check(&mut self, now: Instant) -> Option<(Contact, Origin)> {
        let entry = self.checks.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

impl Dht {
    /// Does everything that is due.
    pub(super) fn maintain(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some((contact, origin)) = self.maintenance.next_check(now) {
            self.check_of(now, contact, origin, outbox);
        }
        if self.maintenance.neighbourhood_at.is_some_and(|at| at <= now) {
            self.look_around(now, outbox);
        }
        if self.maintenance.refresh_at.is_some_and(|at| at <= now) {
            self.refresh(now, outbox);
        }
        if self.maintenance.tidy_at <= now {
            self.maintenance.tidy_at = now + TIDY_INTERVAL;
            self.values.expire(now);
            self.providers.expire(now);
            self.lookup_cache.expire(now);
            self.cache.expire(now);
        }
    }

    /// This machine may have another address than before: earlier observations no longer count, and the nearest contacts are asked
    /// for theirs.
    pub fn ask_observers(&mut self, now: Instant, peers: &Peers) {
        self.observed.forget();
        self.bootstrap.hurry(now);
        for contact in self.closest_known(peers, &self.own.key(), OBSERVERS_MANY) {
            self.maintenance.check_at(now, contact);
        }
    }

    /// Looks up the own neighbourhood, pings contacts to observe this node's address, and asks a bootstrap address that is not in the
    /// table whether a node is there again.
    fn look_around(&mut self, now: Instant, outbox: &mut Outbox) {
        let interval = self.config.neighbourhood_interval.min(self.maintenance.settling);
        self.maintenance.settling = (self.maintenance.settling * 4).min(self.config.neighbourhood_interval);
        let first = self.maintenance.refresh_at.is_none();
        self.maintenance.neighbourhood_at =
            Some(now + self.rng.duration(interval * 9 / 10, interval * 11 / 10));
        if first {
            self.maintenance.refresh_at = Some(now + REFRESH_PAUSE);
        } else {
            for contact in self.closest_known(outbox.peers(), &self.own.key(), OBSERVERS) {
                self.check(now, contact, outbox);
            }
            let known = |address: &SocketAddr| self.table.iter().any(|e| e.contact.addr == *address);
            let lost: Vec<_> = self.bootstrap.addresses().iter().filter(|a| !known(a)).copied().collect();
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
            self.maintenance.refresh_at = None;
            return;
        };
        let due = touched.map(|touched| touched + interval).filter(|due| *due > now);
        self.maintenance.refresh_at = Some(match due {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);

    fn contact(number: u32) -> Contact {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Contact::new(PublicKey(key), ([10, 0, 0, 1], 3583).into())
    }

    #[test]
    fn checks_come_in_order_once_for_each_node_and_up_to_a_bound() {
        let mut maintenance = Maintenance::new(START);
        let at = |seconds| START + Duration::from_secs(seconds);
        maintenance.check_at(at(5), contact(1));
        maintenance.check_at(at(2), contact(2));
        maintenance.check_at(at(1), contact(1));
        assert_eq!(maintenance.next_deadline(false), Some(at(2)));
        assert_eq!(maintenance.next_check(at(1)), None);
        assert_eq!(maintenance.next_check(at(9)).map(|(contact, _)| contact), Some(contact(2)));
        assert_eq!(maintenance.next_check(at(9)).map(|(contact, _)| contact), Some(contact(1)));
        assert_eq!(maintenance.next_check(at(9)), None);
        assert_eq!(maintenance.next_deadline(false), None);
        (0..1000).for_each(|number| maintenance.check_at(at(1), contact(number)));
        assert_eq!(maintenance.checks.len(), CHECKS_MAX);
    }

    #[test]
    fn former_contacts_that_answer_together_cause_one_lookup_of_the_own_neighbourhood() {
        let mut maintenance = Maintenance::new(START);
        maintenance.reunite(START);
        assert_eq!(maintenance.neighbourhood_at, None, "the table is empty");
        maintenance.neighbourhood_at = Some(START + Duration::from_secs(900));
        maintenance.reunite(START);
        assert_eq!(maintenance.neighbourhood_at, Some(START));
        maintenance.neighbourhood_at = Some(START + Duration::from_secs(900));
        (0..40).for_each(|_| maintenance.reunite(START));
        assert_eq!(maintenance.neighbourhood_at, Some(START + REUNION_PAUSE));
    }
}

//! Results of earlier lookups that answer for nearby keys.
//!
//! A lookup of key T that converged knows the nodes closest to T. Let p be the length of the shortest prefix that one of them shares
//! with T. Every node that shares more than p bits with T is among them. So for every key that shares more than p bits with T, the
//! closest nodes are known without a lookup. A lookup that found few nodes found the whole network.
//!
//! The number of nodes that are certain is bounded by the contacts in an answer, dead ones included: each node names the nearest
//! contacts that it knows, so beyond the [`CERTAIN`] nearest the result may be incomplete.

use super::closest::closest;
use crate::id::{Key, NodeId};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use std::collections::VecDeque;

/// Contacts that every full answer names, even one to an unvalidated address.
pub(super) const CERTAIN: usize = 17;
/// Cached regions.
const REGIONS_MAX: usize = 256;
/// How long a region is valid.
const REGION_LIFETIME: Duration = Duration::from_secs(600);
/// Nodes may join a cached region. A region with more members than this is dropped.
const MEMBERS_MAX: usize = 2 * CERTAIN;

/// The cached regions, oldest first.
#[derive(Default)]
pub(super) struct LookupCache {
    regions: VecDeque<Region>,
}

struct Region {
    target: Key,
    /// The region covers keys that share at least this many bits with the target; 0 covers every key.
    bits: u32,
    members: Vec<Contact>,
    expires: Instant,
}

impl Region {
    fn covers(&self, key: &Key) -> bool {
        self.target.common_prefix(key) >= self.bits
    }
}

impl LookupCache {
    /// Adds the result of a lookup of `target` that converged: the live ones of the [`CERTAIN`] closest nodes, or of the `whole`
    /// network.
    pub(super) fn insert(&mut self, now: Instant, target: Key, closest: &[Contact], whole: bool) {
        let shared = closest.iter().map(|contact| target.common_prefix(&contact.id.key()));
        let Some(shortest) = shared.min() else { return };
        let bits = if whole { 0 } else { shortest + 1 };
        let members: Vec<_> =
            closest.iter().filter(|c| target.common_prefix(&c.id.key()) >= bits).copied().collect();
        if members.is_empty() {
            return;
        }
        // The new region replaces those inside it. A region that covered the whole network is wrong if there are more nodes.
        let outside = |old: &Region| old.bits < bits || target.common_prefix(&old.target) < bits;
        self.regions.retain(|old| outside(old) && (whole || old.bits > 0));
        if self.regions.len() == REGIONS_MAX {
            self.regions.pop_front();
        }
        self.regions.push_back(Region { target, bits, members, expires: now + REGION_LIFETIME });
    }

    /// The `n` live nodes closest to `key`, nearest first; fewer when the network has no more. `None` when no region covers the key.
    pub(super) fn closest(&self, now: Instant, key: &Key, n: usize) -> Option<Vec<Contact>> {
        let known = |region: &&Region| {
            let enough = region.bits == 0 || region.members.len() >= n;
            region.expires > now && enough && !region.members.is_empty() && region.covers(key)
        };
        let region = self.regions.iter().rev().find(known)?;
        Some(closest(region.members.iter(), key, n))
    }

    /// A node is alive: adds it to the regions that it belongs to.
    pub(super) fn add(&mut self, contact: Contact) {
        let place = contact.id.key();
        self.regions.retain_mut(|region| {
            if !region.covers(&place) {
                return true;
            }
            match region.members.iter_mut().find(|member| member.id == contact.id) {
                Some(member) => *member = contact,
                None => region.members.push(contact),
            }
            let whole = region.bits == 0;
            region.members.len() < if whole { CERTAIN } else { MEMBERS_MAX }
        });
    }

    /// A node departed: removes it from all regions.
    pub(super) fn remove(&mut self, id: &NodeId) {
        for region in &mut self.regions {
            region.members.retain(|member| member.id != *id);
        }
    }

    /// Drops expired regions.
    pub(super) fn expire(&mut self, now: Instant) {
        self.regions.retain(|region| region.expires > now);
    }

    /// Whether no region is cached.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::rng::Rng;

    fn network(count: usize) -> Vec<Contact> {
        let mut rng = Rng::new([4; 32]);
        (0..count).map(|_| Contact::new(PublicKey(rng.bytes()), ([127, 0, 0, 1], 1).into())).collect()
    }

    #[test]
    fn a_region_answers_exactly_as_a_lookup_would() {
        let (all, mut rng) = (network(2000), Rng::new([5; 32]));
        let (mut regions, mut answered) = (LookupCache::default(), 0);
        for _ in 0..200 {
            let target = Key(rng.bytes());
            regions.insert(Instant::ZERO, target, &closest(all.iter(), &target, CERTAIN), false);
        }
        for _ in 0..2000 {
            let key = Key(rng.bytes());
            if let Some(found) = regions.closest(Instant::ZERO, &key, 8) {
                assert_eq!(found, closest(all.iter(), &key, 8));
                answered += 1;
            }
        }
        assert!(answered > 100, "{answered}");
    }

    #[test]
    fn a_small_network_is_one_region_that_follows_its_members() {
        let all = network(12);
        let mut regions = LookupCache::default();
        regions.insert(Instant::ZERO, Key([1; 32]), &all[..10], true);
        regions.add(all[10]);
        regions.remove(&all[0].id);
        let found = regions.closest(Instant::ZERO, &Key([200; 32]), 20).unwrap();
        assert_eq!(found, closest(all[1..11].iter(), &Key([200; 32]), 20));
        assert!(regions.closest(Instant::from_secs(600), &Key([200; 32]), 20).is_none());
        regions.expire(Instant::from_secs(600));
        assert!(regions.is_empty());
    }

    #[test]
    fn an_empty_result_is_no_region_and_a_grown_network_is_not_whole() {
        let mut regions = LookupCache::default();
        regions.insert(Instant::ZERO, Key([1; 32]), &[], true);
        assert!(regions.is_empty());
        let all = network(30);
        regions.insert(Instant::ZERO, Key([1; 32]), &all[..10], true);
        all.iter().for_each(|contact| regions.add(*contact));
        assert!(regions.closest(Instant::ZERO, &Key([1; 32]), 1).is_none());
    }
}

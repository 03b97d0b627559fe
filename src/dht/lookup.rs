//! One iterative lookup: from known contacts to the k live nodes nearest to a key.
//!
//! Each candidate belongs to one of two disjoint paths, the first that named it, and each path asks only its own candidates
//! (Baumgart and Mies, S/Kademlia, 2007): a node that misleads one path does not affect the other. A path has α requests
//! outstanding. It asks the nearest candidate that belongs to the k nearest of all or to the path's own nearest k/2. The lookup ends
//! when all of those have answered. A caller's lookup of a value ends earlier, as soon as a majority of the closest nodes agree on it.

use super::agreement::Agreement;
use super::lookup_cache::CERTAIN;
use super::placement::COPIES;
use super::routing_table::K;
use super::{LookupId, Want};
use crate::id::{Distance, Key, NodeId, PublicKey};
use crate::peers::party::Party;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;

/// The number of disjoint paths: d of S/Kademlia.
pub(super) const PATHS: usize = 2;
/// Outstanding requests of each path: Kademlia's α.
const ALPHA: usize = 3;
/// The longest duration of a lookup.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// Candidates that a lookup remembers.
const CANDIDATES_MAX: usize = 128;
/// Candidates of one IP prefix on one path.
const PREFIX_PATH_MAX: usize = 8;
/// Providers that a lookup reports.
const PROVIDERS_MAX: usize = 256;

/// The purpose of a lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// The caller of [`find`](super::Dht::find).
    Caller,
    /// The node's own neighbourhood.
    Neighbourhood,
    /// A bucket through which no lookup has gone for long.
    Refresh,
    /// The place of a provider record.
    Announce,
    /// The place of a value record, and its highest sequence number.
    Publish,
    /// The place of a value record that is published again.
    Republish,
}

/// Why a lookup ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Every relevant candidate has answered.
    Converged,
    /// A majority of the closest nodes agree on the value.
    Agreed,
    /// It took longer than [`LOOKUP_TIME_MAX`].
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    /// Asked; it occupies one of its path's slots.
    Asked,
    /// Asked; its slot is free again.
    Late,
    Answered,
    /// It counts as dead.
    Silent,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    contact: Contact,
    distance: Distance,
    path: usize,
    state: State,
}

/// A lookup under way.
pub(super) struct Lookup {
    pub(super) id: LookupId,
    pub(super) target: Key,
    pub(super) want: Want,
    pub(super) reason: Reason,
    /// When it ends in any case.
    pub(super) until: Instant,
    /// The number of nodes asked.
    pub(super) asked: u32,
    /// The number of nodes that answered.
    pub(super) answered: u32,
    /// The best record found, and its holders.
    pub(super) found: Agreement,
    /// Whether an answer carried records, which leave less room for contacts.
    pub(super) crowded: bool,
    own: NodeId,
    candidates: Vec<Candidate>,
    providers: BTreeMap<PublicKey, u64>,
    /// The number of initial candidates, which are dealt to the paths in turn.
    dealt: usize,
}

impl Lookup {
    /// A lookup of the node `own` that has not asked any node yet.
    pub(super) fn new(
        now: Instant,
        own: NodeId,
        id: LookupId,
        target: Key,
        want: Want,
        reason: Reason,
    ) -> Self {
        Lookup {
            id,
            target,
            want,
            reason,
            until: now + LOOKUP_TIME_MAX,
            asked: 0,
            answered: 0,
            found: Agreement::default(),
            crowded: false,
            own,
            candidates: Vec::new(),
            providers: BTreeMap::new(),
            dealt: 0,
        }
    }

    /// Adds a contact that was known before the lookup.
    pub(super) fn seed(&mut self, contact: Contact) {
        self.learn(contact, self.dealt % PATHS);
        self.dealt += 1;
    }

    /// Adds a contact that `from` named.
    pub(super) fn told(&mut self, contact: Contact, from: &NodeId) {
        if let Some(path) = self.position(from).map(|index| self.candidates[index].path) {
            self.learn(contact, path);
        }
    }

    /// The next node to ask, which then counts as asked.
    pub(super) fn next(&mut self) -> Option<Contact> {
        let mut slots = [ALPHA; PATHS];
        for candidate in self.candidates.iter().filter(|candidate| candidate.state == State::Asked) {
            slots[candidate.path] = slots[candidate.path].saturating_sub(1);
        }
        let index = self.relevant().find(|&index| {
            let candidate = &self.candidates[index];
            candidate.state == State::New && slots[candidate.path] > 0
        })?;
        self.candidates[index].state = State::Asked;
        self.asked += 1;
        Some(self.candidates[index].contact)
    }

    /// An answer is late: frees its slot.
    pub(super) fn late(&mut self, id: &NodeId) {
        self.set(id, State::Late, &[State::Asked]);
    }

    /// The lookup goes on without an answer.
    pub(super) fn silent(&mut self, id: &NodeId) {
        self.set(id, State::Silent, &[State::New, State::Asked, State::Late]);
    }

    /// A node answered, in time or late. A leaf's answer counts, but a leaf is no result.
    pub(super) fn answer(&mut self, id: &NodeId, leaf: bool) {
        self.answered += 1;
        let state = if leaf { State::Silent } else { State::Answered };
        self.set(id, state, &[State::Asked, State::Late, State::Silent]);
    }

    /// Whether a provider record is news: its provider was not reported before, or it is newer.
    pub(super) fn is_new_provider(&self, provider: &PublicKey, sequence: u64) -> bool {
        match self.providers.get(provider) {
            Some(known) => sequence > *known,
            None => self.providers.len() < PROVIDERS_MAX,
        }
    }

    /// A provider is reported.
    pub(super) fn note_provider(&mut self, provider: PublicKey, sequence: u64) {
        self.providers.insert(provider, sequence);
    }

    /// Whether a majority of the living nodes closest to the key, known so far, hold the best record. Only a lookup for a caller
    /// ends by that: a publication must find every one of the closest nodes.
    fn is_agreed(&self) -> bool {
        if self.reason != Reason::Caller || self.want != Want::Value {
            return false;
        }
        let living = self.candidates.iter().filter(|candidate| candidate.state != State::Silent);
        let own = self.own.distance(&self.target);
        let keeps = self.found.is_held_by(&self.own);
        let nearer = self.candidates.partition_point(|candidate| candidate.distance < own);
        let keeper = (keeps && nearer < COPIES).then_some(&self.own);
        self.found.is_settled(keeper.into_iter().chain(living.map(|candidate| &candidate.contact.id)))
    }

    /// Why the lookup is over, if it is.
    pub(super) fn end(&self, now: Instant) -> Option<End> {
        if self.is_agreed() {
            Some(End::Agreed)
        } else if self.is_converged() {
            Some(End::Converged)
        } else {
            (self.until <= now).then_some(End::TimedOut)
        }
    }

    /// Whether every relevant candidate has answered.
    fn is_converged(&self) -> bool {
        self.relevant().all(|index| self.candidates[index].state == State::Answered)
    }

    /// The k nearest nodes that answered, nearest first.
    pub(super) fn closest(&self) -> Vec<Contact> {
        let answered = self.candidates.iter().filter(|candidate| candidate.state == State::Answered);
        answered.take(K).map(|candidate| candidate.contact).collect()
    }

    /// What a converged lookup knows for certain: the live ones of the [`CERTAIN`] closest nodes, and whether these are the whole
    /// network. `None` when records took room for contacts in some answer.
    pub(super) fn neighbourhood(&self) -> Option<(Vec<Contact>, bool)> {
        let answered = self.candidates.iter().take(CERTAIN).filter(|c| c.state == State::Answered);
        let members = answered.map(|candidate| candidate.contact).collect();
        (!self.crowded).then_some((members, self.candidates.len() < CERTAIN))
    }

    /// The candidates that are not silent and belong to the k nearest of all or to their path's nearest k/2.
    fn relevant(&self) -> impl Iterator<Item = usize> {
        let (mut rank, mut path_rank) = (0, [0; PATHS]);
        let living = self.candidates.iter().enumerate().filter(|(_, c)| c.state != State::Silent);
        living.filter_map(move |(index, candidate)| {
            let matters = rank < K || path_rank[candidate.path] < K / PATHS;
            rank += 1;
            path_rank[candidate.path] += 1;
            matters.then_some(index)
        })
    }

    fn learn(&mut self, contact: Contact, path: usize) {
        if contact.id == self.own || self.position(&contact.id).is_some() {
            return;
        }
        if let Some(prefix) = Party::network(contact.addr) {
            let shares = |c: &&Candidate| c.path == path && Party::network(c.contact.addr) == Some(prefix);
            if self.candidates.iter().filter(shares).count() >= PREFIX_PATH_MAX {
                return;
            }
        }
        let distance = contact.id.distance(&self.target);
        let index = self.candidates.partition_point(|candidate| candidate.distance < distance);
        self.candidates.insert(index, Candidate { contact, distance, path, state: State::New });
        if self.candidates.len() > CANDIDATES_MAX {
            // Candidates that were asked are kept if possible, so that they are not asked again.
            let unasked = self.candidates.iter().rposition(|c| c.state == State::New);
            self.candidates.remove(unasked.unwrap_or(CANDIDATES_MAX));
        }
    }

    fn set(&mut self, id: &NodeId, state: State, from: &[State]) {
        if let Some(index) = self.position(id).filter(|&index| from.contains(&self.candidates[index].state)) {
            self.candidates[index].state = state;
        }
    }

    fn position(&self, id: &NodeId) -> Option<usize> {
        let distance = id.distance(&self.target);
        self.candidates.binary_search_by(|candidate| candidate.distance.cmp(&distance)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::closest::closest;
    use crate::rng::Rng;

    const TARGET: Key = Key([0x55; 32]);

    fn contacts(count: usize) -> Vec<Contact> {
        let mut rng = Rng::new([6; 32]);
        (0..count).map(|_| Contact::new(PublicKey(rng.bytes()), ([127, 0, 0, 1], 1).into())).collect()
    }

    fn lookup() -> Lookup {
        Lookup::new(Instant::ZERO, NodeId([0; 32]), LookupId(1), TARGET, Want::Nodes, Reason::Caller)
    }

    #[test]
    fn a_lookup_without_candidates_ends_at_once() {
        assert!(lookup().is_converged() && lookup().next().is_none());
    }

    #[test]
    fn each_path_has_three_requests_and_late_ones_free_their_slots() {
        let mut lookup = lookup();
        contacts(40).into_iter().for_each(|contact| lookup.seed(contact));
        let asked: Vec<_> = core::iter::from_fn(|| lookup.next()).collect();
        assert_eq!(asked.len(), ALPHA * PATHS);
        lookup.late(&asked[0].id);
        assert!(lookup.next().is_some() && lookup.next().is_none());
        lookup.answer(&asked[0].id, false);
        assert!(!lookup.is_converged());
        assert_eq!(lookup.closest(), [asked[0]]);
    }

    #[test]
    fn a_lookup_ends_with_the_k_nearest_live_nodes() {
        let all = contacts(300);
        let dead: Vec<_> = closest(all.iter(), &TARGET, 5);
        let mut lookup = lookup();
        all[..10].iter().for_each(|contact| lookup.seed(*contact));
        while let Some(contact) = lookup.next() {
            if dead.contains(&contact) {
                lookup.late(&contact.id);
                lookup.silent(&contact.id);
                continue;
            }
            lookup.answer(&contact.id, false);
            // Each node knows its own neighbourhood, and that of the target including its dead nodes.
            for told in closest(all.iter(), &contact.id.key(), 5) {
                lookup.told(told, &contact.id);
            }
            for told in closest(all.iter(), &TARGET, K + dead.len()) {
                lookup.told(told, &contact.id);
            }
        }
        assert!(lookup.is_converged());
        let living: Vec<_> = all.iter().filter(|contact| !dead.contains(contact)).copied().collect();
        assert_eq!(lookup.closest(), closest(living.iter(), &TARGET, K));
        assert!(lookup.asked < 80, "{}", lookup.asked);
    }

    #[test]
    fn candidates_are_bounded_in_all_and_for_each_prefix() {
        let mut lookup = lookup();
        for (index, contact) in contacts(400).into_iter().enumerate() {
            let addr = ([8, 8, 8, index as u8], 1).into();
            lookup.seed(if index < 100 { Contact { addr, ..contact } } else { contact });
        }
        let strangers = lookup.candidates.iter().filter(|c| Party::network(c.contact.addr).is_some()).count();
        assert!(strangers <= PREFIX_PATH_MAX * PATHS);
        assert_eq!(lookup.candidates.len(), CANDIDATES_MAX);
    }

    #[test]
    fn a_provider_is_reported_once_unless_its_record_is_newer() {
        let mut lookup = lookup();
        let provider = PublicKey([1; 32]);
        assert!(lookup.is_new_provider(&provider, 3));
        lookup.note_provider(provider, 3);
        assert!(!lookup.is_new_provider(&provider, 3) && lookup.is_new_provider(&provider, 4));
    }
}

//! One iterative lookup: from what is known towards the k live nodes nearest to a key.
//!
//! Candidates belong to one of two disjoint paths, the one that heard of them first, and each path asks its own (Baumgart
//! and Mies, S/Kademlia, 2007): whoever misleads one path does not steer the other. A path asks α at a time, whoever
//! is nearest and belongs to the k nearest of all or to the path's own nearest k/2. The lookup is over when all of those
//! have answered.

use super::lookup_cache::CERTAIN;
use super::routing_table::K;
use super::{LookupId, Want};
use crate::id::{Distance, Key, NodeId, PublicKey};
use crate::peers::party::Party;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;

/// Disjoint paths of a lookup: d of S/Kademlia.
pub(super) const PATHS: usize = 2;
/// Requests at a time on each path: Kademlia's α.
const ALPHA: usize = 3;
/// How long a lookup may take.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// Candidates that a lookup keeps in mind.
const CANDIDATES_MAX: usize = 128;
/// Candidates of one IP prefix on one path.
const PREFIX_PATH_MAX: usize = 8;
/// Providers that a lookup tells of.
const PROVIDERS_MAX: usize = 256;

/// Who asked for a lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// The caller of [`find`](super::Dht::find).
    Caller,
    /// The node looks for its own neighbourhood.
    Neighbourhood,
    /// A bucket that no lookup has gone through for long.
    Refresh,
    /// A file to announce.
    Announce,
    /// A name to publish.
    Publish,
    /// A record to store again.
    Republish,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    /// Asked, and taking up one of its path's slots.
    Asked,
    /// Asked, and its slot is free.
    Late,
    Answered,
    /// It counts as not living.
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
    /// When it ends whatever happened.
    pub(super) until: Instant,
    /// How many nodes were asked.
    pub(super) asked: u32,
    /// How many answered.
    pub(super) answered: u32,
    /// The best record found: its sequence number and its bytes.
    pub(super) record: Option<(u64, Vec<u8>)>,
    /// Whether an answer carried more than contacts.
    pub(super) crowded: bool,
    own: NodeId,
    candidates: Vec<Candidate>,
    providers: BTreeMap<PublicKey, u64>,
    /// New candidates from nowhere are dealt to the paths in turn.
    dealt: usize,
}

impl Lookup {
    /// A lookup of the node `own` that has not asked anybody.
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
            record: None,
            crowded: false,
            own,
            candidates: Vec::new(),
            providers: BTreeMap::new(),
            dealt: 0,
        }
    }

    /// Takes a node that was known before the lookup.
    pub(super) fn seed(&mut self, contact: Contact) {
        self.learn(contact, self.dealt % PATHS);
        self.dealt += 1;
    }

    /// Takes a node that `from` told of.
    pub(super) fn told(&mut self, contact: Contact, from: &NodeId) {
        if let Some(path) = self.position(from).map(|index| self.candidates[index].path) {
            self.learn(contact, path);
        }
    }

    /// Whom to ask next. Whoever is returned counts as asked.
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

    /// An answer is late: its slot is free.
    pub(super) fn late(&mut self, id: &NodeId) {
        self.set(id, State::Late, &[State::Asked]);
    }

    /// An answer will not be waited for.
    pub(super) fn silent(&mut self, id: &NodeId) {
        self.set(id, State::Silent, &[State::New, State::Asked, State::Late]);
    }

    /// A node answered, be it late. A leaf tells what it knows but is not one of those that are looked for.
    pub(super) fn answer(&mut self, id: &NodeId, leaf: bool) {
        self.answered += 1;
        let state = if leaf { State::Silent } else { State::Answered };
        self.set(id, state, &[State::Asked, State::Late, State::Silent]);
    }

    /// Whether a provider's record is news: of a provider that was not told of, or a newer one.
    pub(super) fn is_new_provider(&self, provider: &PublicKey, sequence: u64) -> bool {
        match self.providers.get(provider) {
            Some(known) => sequence > *known,
            None => self.providers.len() < PROVIDERS_MAX,
        }
    }

    /// A provider was told of.
    pub(super) fn note_provider(&mut self, provider: PublicKey, sequence: u64) {
        self.providers.insert(provider, sequence);
    }

    /// Whether a record with this sequence number is better than what was found.
    pub(super) fn is_better(&self, sequence: u64) -> bool {
        self.record.as_ref().is_none_or(|(best, _)| sequence > *best)
    }

    /// Whether everybody who matters has answered or is silent.
    pub(super) fn is_converged(&self) -> bool {
        self.relevant().all(|index| self.candidates[index].state == State::Answered)
    }

    /// The k nearest that answered, nearest first.
    pub(super) fn closest(&self) -> Vec<Contact> {
        let answered = self.candidates.iter().filter(|candidate| candidate.state == State::Answered);
        answered.take(K).map(|candidate| candidate.contact).collect()
    }

    /// What a lookup that converged knows for certain: those that live of the [`CERTAIN`] closest nodes, and whether these
    /// are all nodes there are. `None` when answers had room for other things than contacts only.
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
            // Silent ones are remembered while there is room, so as not to be asked again.
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
    fn nobody_to_ask_is_the_end() {
        assert!(lookup().is_converged() && lookup().next().is_none());
    }

    #[test]
    fn three_on_each_path_are_asked_at_a_time_and_late_ones_make_room() {
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
    fn it_ends_with_the_k_nearest_that_live() {
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
            // Everybody knows its own neighbourhood, and that of the target with its dead.
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
    fn candidates_of_one_prefix_and_in_all_are_bounded() {
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
    fn a_provider_is_told_of_once_unless_it_says_more() {
        let mut lookup = lookup();
        let provider = PublicKey([1; 32]);
        assert!(lookup.is_new_provider(&provider, 3));
        lookup.note_provider(provider, 3);
        assert!(!lookup.is_new_provider(&provider, 3) && lookup.is_new_provider(&provider, 4));
    }
}

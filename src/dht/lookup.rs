//! One iterative lookup: from known contacts to the k live nodes nearest to a key.
//!
//! Each candidate belongs to one of two disjoint paths, the first that named it, and each path asks only its own candidates
//! (Baumgart and Mies, S/Kademlia, 2007): a node that misleads one path does not affect the other. A path has α requests
//! outstanding. It asks the nearest candidate that belongs to the k nearest of all, or to the path's own nearest k/2, or to the k nearest
//! that are left when the parties with most candidates give way: many nodes of one party, placed around the key, do not hide the
//! others. Where the parties are all alike these are the k nearest of all. The lookup ends when all of those have answered. A caller's
//! lookup of a value ends earlier, as soon as a majority of the nodes that should keep it agree on it.

use super::agreement::{Agreement, MAJORITY};
use super::lookup_cache::CERTAIN;
use super::placement::COPIES;
use super::routing_table::K;
use super::{LookupId, Want};
use crate::id::{Distance, Key, NodeId, PublicKey};
use crate::peers::contest::{Holder, give_way};
use crate::peers::party::{Level, Parties};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use core::cmp::Reverse;
use std::collections::BTreeMap;

/// The number of disjoint paths: d of S/Kademlia.
pub(super) const PATHS: usize = 2;
/// Outstanding requests of each path: Kademlia's α.
const ALPHA: usize = 3;
/// The longest duration of a lookup.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// Candidates that a lookup keeps. At twice this number they are cut down to it.
const CANDIDATES_MAX: usize = 128;
/// Of the nodes that keep a record, this many are the nearest whatever their parties.
/// With one more of their party they are no [`MAJORITY`].
const KEEPERS_BY_DISTANCE: usize = MAJORITY - 2;
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
    holder: Holder,
    /// Whether it is one of the k nearest that are left when the parties with most candidates give way.
    spread: bool,
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
    parties: Parties,
    candidates: Vec<Candidate>,
    /// Whether `spread` is to be determined anew.
    stale: bool,
    /// Whether one party has several of the nodes nearest to the key, and others have nodes there, too.
    varied: bool,
    /// Whether one party has most of those.
    crowded_out: bool,
    providers: BTreeMap<PublicKey, u64>,
    /// The number of initial candidates, which are dealt to the paths in turn.
    dealt: usize,
}

impl Lookup {
    /// A lookup of the node `own` that has not asked any node yet.
    pub(super) fn new(
        now: Instant,
        (own, parties): (NodeId, Parties),
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
            parties,
            candidates: Vec::new(),
            stale: false,
            varied: false,
            crowded_out: false,
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

    /// The next node to ask, which then counts as asked. A lookup that seeks agreement asks no more nodes than it needs, and `spare`
    /// ones.
    pub(super) fn next(&mut self, spare: usize) -> Option<Contact> {
        self.spread();
        if self.may_be_agreed_soon(spare) {
            return None;
        }
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

    /// Whether the lookup ends by agreement. A publication must find every one of the closest nodes.
    fn seeks_agreement(&self) -> bool {
        self.reason == Reason::Caller && self.want == Want::Value
    }

    /// Whether the answers that are due, and those that have come, can make a majority with `spare` more. Then no further node is
    /// asked: without this, each answer on the way to the majority would cost one more request.
    fn may_be_agreed_soon(&self, spare: usize) -> bool {
        let living = self.candidates.iter().filter(|candidate| candidate.state != State::Silent);
        let promising = |candidate: &&&Candidate| {
            candidate.state == State::Asked || self.found.is_held_by(&candidate.contact.id)
        };
        self.seeks_agreement()
            && self.keepers_first(living).iter().take(COPIES).filter(promising).count() >= MAJORITY + spare
    }

    /// Whether a majority of the living nodes that should keep the record, known so far, hold the best one.
    fn is_agreed(&self) -> bool {
        if !self.seeks_agreement() {
            return false;
        }
        let living = self.candidates.iter().filter(|candidate| candidate.state != State::Silent);
        let own = self.own.distance(&self.target);
        let keeps = self.found.is_held_by(&self.own);
        let nearer = self.candidates.partition_point(|candidate| candidate.distance < own);
        let keeper = (keeps && nearer < COPIES).then_some(&self.own);
        let keepers = self.keepers_first(living);
        self.found.is_settled(keeper.into_iter().chain(keepers.iter().map(|candidate| &candidate.contact.id)))
    }

    /// Why the lookup is over, if it is.
    pub(super) fn end(&mut self, now: Instant) -> Option<End> {
        self.spread();
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

    /// The k nearest nodes that answered, those first that are to keep a record under the key.
    pub(super) fn keepers(&self) -> Vec<Contact> {
        let answered = self.candidates.iter().filter(|candidate| candidate.state == State::Answered);
        self.keepers_first(answered).into_iter().take(K).map(|candidate| candidate.contact).collect()
    }

    /// Candidates, which are in the order of their distance, with those first that are to keep a record under the key: some of the
    /// nearest, and of the others the nearest that are left when the parties with most of them give way. Where parties are alike, the
    /// order does not change.
    fn keepers_first<'a>(&self, candidates: impl Iterator<Item = &'a Candidate>) -> Vec<&'a Candidate> {
        let mut keepers: Vec<&Candidate> = candidates.collect();
        if !self.varied || keepers.len() <= COPIES {
            return keepers;
        }
        let rest = keepers.split_off(KEEPERS_BY_DISTANCE);
        let places = rest.iter().enumerate().map(|(rank, other)| (other.holder, Reverse(rank)));
        let places: Vec<_> = places.collect();
        let mut losers = give_way(&places, rest.len() - (COPIES - KEEPERS_BY_DISTANCE));
        losers.sort_unstable();
        let stays = |rank: usize| losers.binary_search(&rank).is_err();
        keepers.extend((0..rest.len()).filter(|rank| stays(*rank)).map(|rank| rest[rank]));
        keepers.extend(losers.iter().map(|rank| rest[*rank]));
        keepers
    }

    /// What a converged lookup knows for certain: the live ones of the [`CERTAIN`] closest nodes, and whether these are the whole
    /// network. `None` when records took room for contacts in some answer, and when one party crowds the others out: what is stored
    /// there needs a lookup of its own.
    pub(super) fn neighbourhood(&self) -> Option<(Vec<Contact>, bool)> {
        let answered = self.candidates.iter().take(CERTAIN).filter(|c| c.state == State::Answered);
        let members = answered.map(|candidate| candidate.contact).collect();
        (!self.crowded && !self.crowded_out).then_some((members, self.candidates.len() < CERTAIN))
    }

    /// The candidates that are not silent and belong to the k nearest of all, to their path's nearest k/2, or to the spread ones.
    fn relevant(&self) -> impl Iterator<Item = usize> {
        let (mut rank, mut path_rank) = (0, [0; PATHS]);
        let living = self.candidates.iter().enumerate().filter(|(_, c)| c.state != State::Silent);
        living.filter_map(move |(index, candidate)| {
            let matters = rank < K || path_rank[candidate.path] < K / PATHS || candidate.spread;
            rank += 1;
            path_rank[candidate.path] += 1;
            matters.then_some(index)
        })
    }

    /// Determines the k nearest candidates that are left when the parties with most candidates give way. Without a party that has
    /// several of the k nearest, these are the k nearest.
    fn spread(&mut self) {
        if !core::mem::take(&mut self.stale) {
            return;
        }
        (self.varied, self.crowded_out) = (false, false);
        self.candidates.iter_mut().for_each(|candidate| candidate.spread = false);
        let living = || self.candidates.iter().enumerate().filter(|(_, c)| c.state != State::Silent);
        let site = |candidate: &Candidate| candidate.holder.party.at(Level::Site);
        let mut nearest: Vec<_> = living().take(K).map(|(_, candidate)| site(candidate)).collect();
        nearest.sort_unstable();
        let most = nearest.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
        if most < 2 || living().all(|(_, candidate)| site(candidate) == nearest[0]) {
            return;
        }
        self.varied = true;
        let places: Vec<_> = living().map(|(index, candidate)| (candidate.holder, Reverse(index))).collect();
        let losers = give_way(&places, places.len().saturating_sub(K));
        let mut stays = vec![true; places.len()];
        losers.into_iter().for_each(|loser| stays[loser] = false);
        self.crowded_out = most > K / 2 && stays.iter().skip(K).any(|stays| *stays);
        for ((_, Reverse(index)), stays) in places.into_iter().zip(stays) {
            self.candidates[index].spread = stays;
        }
    }

    fn learn(&mut self, contact: Contact, path: usize) {
        if contact.id == self.own || self.position(&contact.id).is_some() {
            return;
        }
        // One address has one node. What is named there besides makes this node send to an address that others chose.
        let same =
            |c: &Candidate| c.contact.addr == contact.addr && c.path == path && c.state != State::Silent;
        if self.candidates.iter().any(same) {
            return;
        }
        let distance = contact.id.distance(&self.target);
        let index = self.candidates.partition_point(|candidate| candidate.distance < distance);
        let holder = Holder::node(self.parties, &contact.id, contact.addr);
        let state = State::New;
        self.candidates.insert(index, Candidate { contact, distance, path, state, holder, spread: false });
        self.stale = true;
        if self.candidates.len() >= 2 * CANDIDATES_MAX {
            self.forget_some();
        }
    }

    /// Cuts the candidates down. Those that were asked stay if possible, so that they are not asked again; of the others the parties
    /// with most give way.
    fn forget_some(&mut self) {
        let surplus = self.candidates.len() - CANDIDATES_MAX;
        let places = self.candidates.iter().enumerate();
        let worth = |(index, c): (usize, &Candidate)| (c.holder, (c.state != State::New, Reverse(index)));
        let new: Vec<_> = places.map(worth).filter(|(_, (asked, _))| !asked).collect();
        let mut losers: Vec<usize> =
            give_way(&new, surplus).into_iter().map(|loser| new[loser].1.1.0).collect();
        losers.sort_unstable();
        let mut index = 0;
        self.candidates.retain(|_| {
            index += 1;
            losers.binary_search(&(index - 1)).is_err()
        });
        self.candidates.truncate(CANDIDATES_MAX);
    }

    fn set(&mut self, id: &NodeId, state: State, from: &[State]) {
        if let Some(index) = self.position(id).filter(|&index| from.contains(&self.candidates[index].state)) {
            let silent = |state: State| state == State::Silent;
            self.stale |= silent(self.candidates[index].state) != silent(state);
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
        let port = |index| 1000 + index as u16;
        (0..count)
            .map(|index| Contact::new(PublicKey(rng.bytes()), ([127, 0, 0, 1], port(index)).into()))
            .collect()
    }

    fn lookup() -> Lookup {
        let own = (NodeId([0; 32]), Parties::ByAddress);
        Lookup::new(Instant::ZERO, own, LookupId(1), TARGET, Want::Nodes, Reason::Caller)
    }

    #[test]
    fn a_lookup_without_candidates_ends_at_once() {
        assert!(lookup().is_converged() && lookup().next(1).is_none());
    }

    #[test]
    fn each_path_has_three_requests_and_late_ones_free_their_slots() {
        let mut lookup = lookup();
        contacts(40).into_iter().for_each(|contact| lookup.seed(contact));
        let asked: Vec<_> = core::iter::from_fn(|| lookup.next(1)).collect();
        assert_eq!(asked.len(), ALPHA * PATHS);
        lookup.late(&asked[0].id);
        assert!(lookup.next(1).is_some() && lookup.next(1).is_none());
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
        while let Some(contact) = lookup.next(1) {
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
    fn candidates_are_bounded_and_the_nearest_stay() {
        let mut lookup = lookup();
        let all = contacts(1000);
        all.iter().for_each(|contact| lookup.seed(*contact));
        assert!(lookup.candidates.len() < 2 * CANDIDATES_MAX);
        let nearest = closest(all.iter(), &TARGET, 20);
        assert!(nearest.iter().all(|contact| lookup.position(&contact.id).is_some()));
    }

    /// Answers what a lookup asks, without a word of others, and returns the nodes asked.
    fn answer_all(lookup: &mut Lookup) -> Vec<Contact> {
        let mut asked = Vec::new();
        while let Some(contact) = lookup.next(1) {
            lookup.answer(&contact.id, false);
            asked.push(contact);
        }
        assert_eq!(lookup.end(Instant::ZERO), Some(End::Converged));
        asked
    }

    /// Contacts of a public prefix, the nearest to the target first.
    fn in_prefix(count: usize, prefix: [u8; 3]) -> Vec<Contact> {
        let [a, b, c] = prefix;
        let mut all = closest(contacts(400).iter(), &TARGET, count);
        for (index, contact) in all.iter_mut().enumerate() {
            contact.addr = ([a, b, c, index as u8], 1).into();
        }
        all
    }

    #[test]
    fn in_a_network_in_one_prefix_the_k_nearest_are_asked_as_in_any_other() {
        let mut lookup = lookup();
        let all = in_prefix(60, [8, 8, 8]);
        all.iter().for_each(|contact| lookup.seed(*contact));
        let asked = answer_all(&mut lookup);
        assert_eq!(lookup.closest(), all[..K]);
        assert_eq!(lookup.keepers(), all[..K]);
        assert!(asked.len() <= K + 4, "{} were asked", asked.len());
        assert!(lookup.neighbourhood().is_some());
    }

    #[test]
    fn forty_nodes_of_one_party_around_the_key_do_not_hide_the_others() {
        let mut lookup = lookup();
        let all = in_prefix(70, [8, 8, 8]);
        let mut others = all[40..].to_vec();
        for (index, contact) in others.iter_mut().enumerate() {
            contact.addr = ([9, 9, index as u8, 1], 1).into();
        }
        all[..40].iter().chain(&others).for_each(|contact| lookup.seed(*contact));
        let asked = answer_all(&mut lookup);
        let honest = others.iter().filter(|contact| asked.contains(contact)).count();
        assert!(honest >= K - 1, "{honest} others were asked");
        let keepers = lookup.keepers();
        let keep = others.iter().filter(|contact| keepers[..COPIES].contains(contact)).count();
        assert!(keep >= COPIES - KEEPERS_BY_DISTANCE - 1, "{keep} others keep the record");
        assert!(lookup.neighbourhood().is_none());
    }

    #[test]
    fn one_address_is_asked_once_on_a_path_whatever_nodes_are_said_to_be_there() {
        let mut lookup = lookup();
        let all = contacts(40);
        let victim = ([8, 8, 8, 8], 53).into();
        lookup.seed(Contact { addr: ([9, 9, 9, 9], 1).into(), ..all[0] });
        let liar = lookup.next(1).unwrap();
        for contact in &all[1..] {
            lookup.told(Contact { addr: victim, ..*contact }, &liar.id);
        }
        assert_eq!(
            core::iter::from_fn(|| lookup.next(1)).filter(|contact| contact.addr == victim).count(),
            1
        );
    }

    /// A lookup of a value that knows 40 nodes.
    fn lookup_of_a_value() -> Lookup {
        let (id, own) = (LookupId(1), (NodeId([0; 32]), Parties::ByAddress));
        let mut lookup = Lookup::new(Instant::ZERO, own, id, TARGET, Want::Value, Reason::Caller);
        contacts(40).into_iter().for_each(|contact| lookup.seed(contact));
        lookup
    }

    #[test]
    fn a_lookup_of_a_value_without_a_spare_request_asks_a_majority() {
        let mut lookup = lookup_of_a_value();
        let asked: Vec<_> = core::iter::from_fn(|| lookup.next(0)).collect();
        assert_eq!(asked.len(), MAJORITY);
        lookup.late(&asked[0].id);
        assert!(lookup.next(0).is_some() && lookup.next(0).is_none());
    }

    #[test]
    fn a_lookup_of_a_value_asks_no_further_node_while_a_majority_may_still_answer() {
        let mut lookup = lookup_of_a_value();
        let asked: Vec<_> = core::iter::from_fn(|| lookup.next(1)).collect();
        assert_eq!(asked.len(), MAJORITY + 1);
        // The first says that it has no value: one more node is needed, and no other.
        lookup.answer(&asked[0].id, false);
        assert!(lookup.next(1).is_some() && lookup.next(1).is_none());
        lookup.late(&asked[1].id);
        assert!(lookup.next(1).is_some() && lookup.next(1).is_none());
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

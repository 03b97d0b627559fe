//! Placing one piece: from its key to synced copies on the nodes closest to it. Uploads, repairs and departures all do it this way.
//!
//! The closest nodes come from the lookup cache or from a lookup. As many of them as copies are missing are offered the piece, the
//! nearest first. A node that refuses, fails or is avoided is replaced by the next nearest one. While a node has enough copies under
//! way, or transfer has no room, the piece waits. A node that says that it is busy is asked again a few times. Placing is over when
//! enough nodes have the piece, or none is left to offer it to.

use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::node::machines::Machines;
use crate::node::{Copying, Purpose};
use crate::replication::Placed;
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::message::Want;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The pause before the next attempt when there was no room for a copy.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// Busy answers of one node after which it is asked again. The pauses are 1, 2, 4 and 8 times [`ROOM_WAIT`]. A node that is busy even
/// then counts as one that refused: one that is about to leave is busy for good.
const BUSY_MAX: u32 = 4;

/// The operation that a piece is placed for. It gets the events of the lookup and of the copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum PlaceFor {
    /// An upload: a piece of a file that a user put, and its index.
    Upload { file: Key, piece: usize },
    /// A relocation: a piece that this node hands to nodes closer to it.
    Relocation { key: Key },
}

/// The number of copies to make, and of nodes to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) struct Aim {
    /// The number of nodes that should hold the piece.
    pub(in crate::node) holders: usize,
    /// Whether this node counts as one of them if it is close enough.
    pub(in crate::node) counts_own: bool,
    /// The number of closest nodes that the lookup cache must know to make a lookup unnecessary.
    pub(in crate::node) known_min: usize,
    /// The most nodes that are tried.
    pub(in crate::node) tried_max: usize,
}

/// One piece that is being copied to the nodes closest to its key.
pub(in crate::node) struct PlacePiece {
    purpose: PlaceFor,
    aim: Aim,
    offer: Offer,
    /// The lookup under way.
    lookup: Option<LookupId>,
    /// Nodes to offer it to, nearest first.
    candidates: VecDeque<Contact>,
    /// Copies that are still needed, not counting those under way.
    missing: usize,
    under_way: BTreeMap<PushId, Contact>,
    /// Those of them whose targets are silent, so that further nodes were offered the piece in their place. They may still succeed.
    replaced: BTreeSet<PushId>,
    /// Candidates that were busy: how often, and when each is asked again.
    busy: BTreeMap<NodeId, (u32, Instant)>,
    /// The other nodes that have it.
    holders: Vec<Placed>,
    /// When to try again, because there was no room for a copy.
    room_at: Option<Instant>,
    /// Whether this node has lost the piece.
    is_gone: bool,
}

impl PlacePiece {
    /// Begins to place a piece. `None` when too many lookups are under way.
    pub(in crate::node) fn begin(
        now: Instant,
        purpose: PlaceFor,
        offer: Offer,
        aim: Aim,
        avoided: &BTreeSet<NodeId>,
        machines: &mut Machines,
    ) -> Option<PlacePiece> {
        let mut place = PlacePiece {
            purpose,
            aim,
            offer,
            lookup: None,
            candidates: VecDeque::new(),
            missing: 0,
            under_way: BTreeMap::new(),
            replaced: BTreeSet::new(),
            busy: BTreeMap::new(),
            holders: Vec::new(),
            room_at: None,
            is_gone: false,
        };
        if let Some(closest) = machines.dht.region(now, &offer.key, aim.known_min) {
            place.closest_known(now, &closest, avoided, machines);
            return Some(place);
        }
        let lookup = machines.dht.find(now, offer.key, Want::Nodes, &mut machines.outbox)?;
        machines.lookups.insert(lookup, Purpose::Place(purpose));
        place.lookup = Some(lookup);
        Some(place)
    }

    // Getters.

    /// Whether the nodes closest to the piece are being looked up.
    pub(in crate::node) fn is_looking_up(&self) -> bool {
        self.lookup.is_some()
    }

    /// The other nodes that have the piece: copies that were made, and those that existed.
    pub(in crate::node) fn holders(&self) -> &[Placed] {
        &self.holders
    }

    /// Whether nothing is left to do.
    pub(in crate::node) fn is_over(&self) -> bool {
        let waits = self.missing > 0 && !self.candidates.is_empty();
        self.lookup.is_none() && self.under_way.is_empty() && (!waits || self.is_gone)
    }

    /// Whether copies are missing after all candidates were tried.
    pub(in crate::node) fn is_short(&self) -> bool {
        self.missing > 0
    }

    /// Whether this node has lost the piece, so that no further copy can be made.
    pub(in crate::node) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether this node is one of the next that the piece will be offered to, and has no room for a further copy now.
    pub(in crate::node) fn waits_for(&self, node: &NodeId) -> bool {
        self.candidates.iter().take(self.missing).any(|contact| contact.id == *node)
    }

    /// When [`advance`](PlacePiece::advance) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.room_at
    }

    // Inputs.

    /// The lookup ended with these nodes.
    pub(in crate::node) fn handle_looked_up(
        &mut self,
        now: Instant,
        closest: &[Contact],
        avoided: &BTreeSet<NodeId>,
        machines: &mut Machines,
    ) {
        let looked_up = self.lookup.take();
        debug_assert!(looked_up.is_some(), "a lookup ends once");
        if looked_up.is_some() {
            self.closest_known(now, closest, avoided, machines);
        }
    }

    /// A copy succeeded or failed.
    pub(in crate::node) fn handle_copied(
        &mut self,
        now: Instant,
        push: PushId,
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        let ended = self.under_way.remove(&push);
        debug_assert!(ended.is_some(), "a copy ends once");
        let Some(target) = ended else { return };
        let was_replaced = self.replaced.remove(&push);
        match result {
            Ok(outcome) => {
                self.holders.push(Placed { id: target.id, had: *outcome == PushOutcome::Had });
                machines.replication.confirmed(now, &self.offer.key, &target.id);
            }
            Err(error) => {
                if *error == PushError::Refused(Refusal::Busy) {
                    self.ask_again(now, target);
                }
                self.missing += usize::from(!was_replaced);
            }
        }
        if was_replaced && result.is_ok() {
            self.missing = self.missing.saturating_sub(1);
        }
        self.advance(now, machines);
    }

    /// A node is busy: it keeps its place, and is asked again later.
    fn ask_again(&mut self, now: Instant, target: Contact) {
        let (times, at) = self.busy.entry(target.id).or_insert((0, now));
        if *times < BUSY_MAX {
            (*times, *at) = (*times + 1, now + ROOM_WAIT * (1 << *times));
            self.candidates.push_front(target);
        }
    }

    /// Offers the piece to further nodes in place of targets that are silent, if the other copies under way are fewer than the
    /// `needed` ones. Nodes that are silent or busy, and at which the piece would only wait, come last then.
    pub(in crate::node) fn replace_slow(&mut self, now: Instant, needed: usize, machines: &mut Machines) {
        let unreplaced = self.under_way.keys().filter(|push| !self.replaced.contains(push)).copied();
        let is_slow = |push: &PushId| machines.transfer.is_push_slow(now, *push);
        let (slow, hopeful): (Vec<PushId>, Vec<PushId>) = unreplaced.partition(is_slow);
        for push in slow.into_iter().take(needed.saturating_sub(hopeful.len())) {
            self.replaced.insert(push);
            self.missing += 1;
        }
        if hopeful.len() < needed {
            let busy = &self.busy;
            let is_slow = |contact: &Contact| {
                busy.contains_key(&contact.id) || machines.transfer.is_target_slow(now, &contact.id)
            };
            self.candidates.make_contiguous().sort_by_key(is_slow);
        }
        self.advance(now, machines);
    }

    /// Offers the piece to this node no more. Returns whether it was one of the next: then [`advance`](PlacePiece::advance) is due,
    /// because another takes its place.
    pub(in crate::node) fn avoid(&mut self, node: &NodeId) -> bool {
        let waited = self.waits_for(node);
        self.candidates.retain(|contact| contact.id != *node);
        waited
    }

    /// Makes the copies for which there is room.
    pub(in crate::node) fn advance(&mut self, now: Instant, machines: &mut Machines) {
        self.room_at = None;
        while self.missing > 0 && !self.candidates.is_empty() {
            let Some((_, extent)) = machines.store.locate(&self.offer.key) else {
                self.is_gone = true;
                return;
            };
            // Only from the nodes that should hold it: a farther node replaces one that failed, not one that is busy.
            let next = self.candidates.iter().take(self.missing);
            let is_free = |contact: &Contact| {
                let is_busy = self.busy.get(&contact.id).is_some_and(|(_, until)| *until > now);
                !is_busy && machines.takes_copy(&contact.id)
            };
            let free = next.enumerate().find(|(_, contact)| is_free(contact));
            let target = free.map(|(position, _)| position).and_then(|at| self.candidates.remove(at));
            let Some(target) = target else {
                self.room_at = Some(now + ROOM_WAIT);
                return;
            };
            let copying = Copying::Place(self.purpose);
            let Some(push) = machines.push(now, copying, target, self.offer, extent) else {
                self.candidates.push_front(target);
                self.room_at = Some(now + ROOM_WAIT);
                return;
            };
            self.missing -= 1;
            self.under_way.insert(push, target);
        }
    }

    /// Ends the lookup, and forgets the copies under way: their results no longer matter.
    pub(in crate::node) fn cancel(self, machines: &mut Machines) {
        if let Some(lookup) = self.lookup {
            machines.lookups.remove(&lookup);
            machines.dht.stop(lookup);
        }
        for push in self.under_way.keys() {
            machines.pushes.remove(push);
        }
    }

    fn closest_known(
        &mut self,
        now: Instant,
        closest: &[Contact],
        avoided: &BTreeSet<NodeId>,
        machines: &mut Machines,
    ) {
        let (own, key) = (machines.id(), &self.offer.key);
        let closer = closest.iter().filter(|contact| contact.id.distance(key) < own.distance(key)).count();
        let own_place = self.aim.counts_own && closer < self.aim.holders;
        let mut likeliest = machines.likeliest_first(closest);
        // What is known of a node since its last copy is newer than what membership knows.
        likeliest.sort_by_key(|contact| machines.transfer.is_target_slow(now, &contact.id));
        likeliest.truncate(self.aim.tried_max);
        likeliest.retain(|contact| !avoided.contains(&contact.id));
        self.candidates = likeliest.into();
        self.missing = self.aim.holders.saturating_sub(usize::from(own_place));
        self.advance(now, machines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::io::{Brought, DiskError, DiskErrorKind, Extent, Mode, Place, Recovered};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::node::machines::COPIES_PER_NODE_MAX;
    use crate::store::Store;

    const START: Instant = Instant::from_secs(1000);
    const KEY: Key = Key([9; 32]);
    const OFFER: Offer = Offer {
        key: KEY,
        content: Content::File,
        length: 100,
        input_offset: 0,
        replicas: 2,
        mode: Mode::UNKNOWN,
        lifetime: 60,
        claim: None,
    };
    /// Two other nodes should hold the piece; two more may take their places.
    const AIM: Aim = Aim { holders: 2, counts_own: false, known_min: 4, tried_max: 4 };

    const STORED: Result<PushOutcome, PushError> = Ok(PushOutcome::Stored);
    const HAD: Result<PushOutcome, PushError> = Ok(PushOutcome::Had);
    const FULL: Result<PushOutcome, PushError> = Err(PushError::Refused(Refusal::NoSpace));
    const BUSY: Result<PushOutcome, PushError> = Err(PushError::Refused(Refusal::Busy));
    const NOT_CLOSE: Result<PushOutcome, PushError> = Err(PushError::Refused(Refusal::NotClose));
    const SILENT: Result<PushOutcome, PushError> = Err(PushError::Lost);
    const UNREACHABLE: Result<PushOutcome, PushError> = Err(PushError::Unreachable);

    fn node(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([127, 0, 0, number], 3583).into())
    }

    /// A node with a piece that it places.
    struct Bench {
        now: Instant,
        machines: Machines,
        place: PlacePiece,
    }

    impl Bench {
        fn new(aim: Aim) -> Bench {
            let mut machines = Machines::alone(START);
            let piece = OFFER.stored(Brought::default(), u64::MAX);
            let recovered = Recovered { pieces: vec![piece], ..Recovered::default() };
            machines.store = Store::new(&Limits::default(), &recovered, 1, START);
            let place = begin(aim, &mut machines).expect("there is room for a lookup");
            Bench { now: START, machines, place }
        }

        /// A placement whose lookup found the nodes 1 to `nodes`.
        fn looked_up(aim: Aim, nodes: u8) -> Bench {
            let mut bench = Bench::new(aim);
            bench.find(nodes);
            bench
        }

        fn find(&mut self, nodes: u8) {
            let closest: Vec<Contact> = (1..=nodes).map(node).collect();
            self.place.handle_looked_up(self.now, &closest, &BTreeSet::new(), &mut self.machines);
        }

        /// The nodes to which a copy is under way.
        fn targets(&self) -> Vec<u8> {
            let number = |id: &NodeId| (1..=20).find(|number| node(*number).id == *id).unwrap_or(0);
            self.machines.pushes.values().map(|(_, target)| number(target)).collect()
        }

        /// The copy to a node ends.
        fn end(&mut self, target: u8, result: &Result<PushOutcome, PushError>) {
            let id = node(target).id;
            let push = self.machines.pushes.iter().find(|(_, (_, to))| *to == id).map(|(push, _)| *push);
            let push = push.expect("a copy to it is under way");
            self.machines.pushes.remove(&push);
            self.place.handle_copied(self.now, push, result, &mut self.machines);
        }

        /// Advances the time to the next deadline.
        fn wait(&mut self) {
            self.now = self.place.next_deadline().expect("it waits for room");
            self.place.advance(self.now, &mut self.machines);
        }

        /// Occupies all places for copies to a node.
        fn fill(&mut self, target: u8) {
            for number in 0..COPIES_PER_NODE_MAX as u64 {
                let copying = (Copying::Repair(KEY), node(target).id);
                self.machines.pushes.insert(PushId(1000 * u64::from(target) + number), copying);
            }
        }

        /// Ends one of the copies that occupy the places of a node.
        fn free(&mut self, target: u8) {
            self.machines.pushes.remove(&PushId(1000 * u64::from(target)));
        }
    }

    fn begin(aim: Aim, machines: &mut Machines) -> Option<PlacePiece> {
        PlacePiece::begin(START, PlaceFor::Relocation { key: KEY }, OFFER, aim, &BTreeSet::new(), machines)
    }

    #[test]
    fn the_nearest_nodes_get_the_piece_and_then_it_is_over() {
        let mut bench = Bench::new(AIM);
        assert!(bench.place.is_looking_up() && !bench.place.is_over());
        bench.find(4);
        assert_eq!(bench.targets(), [1, 2]);
        bench.end(1, &STORED);
        assert!(!bench.place.is_over());
        bench.end(2, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 2);
        assert_eq!(bench.place.next_deadline(), None);
    }

    #[test]
    fn a_node_that_has_the_piece_counts_like_one_that_it_was_sent_to() {
        let mut bench = Bench::looked_up(AIM, 4);
        bench.end(1, &HAD);
        bench.end(2, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 2);
    }

    #[test]
    fn the_next_nearest_nodes_replace_those_that_refuse_or_are_silent() {
        let mut bench = Bench::looked_up(AIM, 4);
        bench.end(1, &NOT_CLOSE);
        assert_eq!(bench.targets(), [2, 3]);
        bench.end(2, &SILENT);
        assert_eq!(bench.targets(), [3, 4]);
        bench.end(3, &STORED);
        bench.end(4, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
    }

    /// The time after which every target that has not answered is silent.
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn silent_targets_are_replaced_as_far_as_copies_are_needed() {
        let mut bench = Bench::looked_up(AIM, 4);
        bench.place.replace_slow(START, 2, &mut bench.machines);
        assert_eq!(bench.targets(), [1, 2], "they have had no time to answer");
        bench.place.replace_slow(START + LONG, 1, &mut bench.machines);
        assert_eq!(bench.targets(), [1, 2, 3]);
        bench.end(3, &STORED);
        bench.place.replace_slow(START + LONG, 0, &mut bench.machines);
        assert_eq!(bench.targets(), [1, 2], "no further copy is needed at once");
        bench.end(1, &SILENT);
        assert_eq!(bench.targets(), [2], "it has been replaced already");
        bench.end(2, &SILENT);
        assert_eq!(bench.targets(), [4]);
        bench.end(4, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
    }

    #[test]
    fn a_piece_does_not_wait_for_room_at_a_silent_node() {
        let mut bench = Bench::new(Aim { holders: 1, ..AIM });
        let extent = Extent { place: Place::Piece(KEY), offset: 0, length: OFFER.length, stamp: None };
        for _ in 0..COPIES_PER_NODE_MAX {
            let copying = Copying::Repair(KEY);
            bench.machines.push(START, copying, node(1), OFFER, extent.clone()).expect("there is room");
        }
        bench.find(3);
        bench.place.replace_slow(START, 1, &mut bench.machines);
        assert_eq!(bench.targets(), [1; COPIES_PER_NODE_MAX], "it has had no time to answer");
        bench.place.replace_slow(START + LONG, 1, &mut bench.machines);
        assert_eq!(bench.targets().last(), Some(&2));
    }

    #[test]
    fn a_replaced_target_that_stores_the_piece_after_all_makes_another_copy_unnecessary() {
        let mut bench = Bench::looked_up(AIM, 2);
        bench.place.replace_slow(START + LONG, 2, &mut bench.machines);
        assert_eq!(bench.targets(), [1, 2], "there is no further node");
        bench.end(1, &STORED);
        bench.end(2, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 2);
    }

    #[test]
    fn a_piece_that_too_few_nodes_take_is_over_and_short() {
        let mut bench = Bench::looked_up(AIM, 4);
        for (target, result) in [(1, FULL), (2, UNREACHABLE), (3, STORED)] {
            bench.end(target, &result);
            assert!(!bench.place.is_over());
        }
        let unreadable = DiskError { kind: DiskErrorKind::Failed, message: String::new() };
        bench.end(4, &Err(PushError::Source(unreadable)));
        assert!(bench.place.is_over() && bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 1);
    }

    #[test]
    fn fewer_nodes_than_holders_get_the_piece_and_it_is_short() {
        let mut bench = Bench::looked_up(AIM, 1);
        bench.end(1, &STORED);
        assert!(bench.place.is_over() && bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 1);
    }

    #[test]
    fn a_lookup_that_finds_no_node_ends_the_placement_at_once() {
        let bench = Bench::looked_up(AIM, 0);
        assert!(bench.place.is_over() && bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 0);
    }

    #[test]
    fn nodes_beyond_the_limit_are_not_tried() {
        let mut bench = Bench::looked_up(AIM, 6);
        (1..=4).for_each(|target| bench.end(target, &FULL));
        assert!(bench.place.is_over());
        assert_eq!(bench.targets(), Vec::<u8>::new());
    }

    #[test]
    fn a_node_that_is_close_enough_counts_itself_as_a_holder() {
        let own = Aim { counts_own: true, ..AIM };
        let few = Bench::looked_up(own, 1);
        assert_eq!(few.targets(), [1], "one other node and this one are all there are");
        let none = Bench::looked_up(Aim { holders: 1, ..own }, 0);
        assert!(none.place.is_over() && !none.place.is_short());
    }

    #[test]
    fn a_busy_node_is_waited_for_and_no_farther_one_replaces_it() {
        let mut bench = Bench::new(AIM);
        bench.fill(1);
        bench.find(4);
        assert!(bench.place.waits_for(&node(1).id) && !bench.place.waits_for(&node(3).id));
        bench.end(2, &STORED);
        assert!(!bench.place.is_over());
        bench.wait();
        assert_eq!(bench.now, START + ROOM_WAIT);
        assert!(bench.place.waits_for(&node(1).id), "the node is still busy");
        bench.free(1);
        bench.wait();
        assert!(!bench.place.waits_for(&node(1).id));
        assert_eq!(bench.place.next_deadline(), None);
    }

    #[test]
    fn a_node_that_says_that_it_is_busy_is_asked_again_and_not_replaced() {
        let mut bench = Bench::looked_up(AIM, 4);
        bench.end(1, &BUSY);
        assert_eq!(bench.targets(), [2], "node 1 keeps its place");
        bench.end(2, &STORED);
        assert!(!bench.place.is_over());
        bench.wait();
        assert_eq!(bench.targets(), [1]);
        bench.end(1, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
    }

    #[test]
    fn a_node_that_stays_busy_is_replaced_after_fifteen_seconds() {
        let mut bench = Bench::looked_up(Aim { holders: 1, ..AIM }, 2);
        for pause in [1, 2, 4, 8] {
            let asked = bench.now;
            bench.end(1, &BUSY);
            while bench.targets().is_empty() {
                bench.wait();
            }
            assert_eq!((bench.targets(), bench.now.since(asked)), (vec![1], ROOM_WAIT * pause));
        }
        bench.end(1, &BUSY);
        assert_eq!(bench.targets(), [2]);
    }

    #[test]
    fn a_busy_node_is_replaced_at_once_where_a_copy_is_needed() {
        let mut bench = Bench::looked_up(Aim { holders: 1, ..AIM }, 3);
        bench.end(1, &BUSY);
        bench.place.replace_slow(START, 1, &mut bench.machines);
        assert_eq!(bench.targets(), [2]);
    }

    #[test]
    fn a_copy_that_transfer_has_no_room_for_is_tried_again_later() {
        let mut bench = Bench::new(AIM);
        let extent = bench.machines.store.locate(&KEY).expect("the piece is here").1;
        let mut other = 0;
        let full = |other: &mut u64, machines: &mut Machines| {
            *other += 1;
            machines.transfer.push(START, PushId(5000 + *other), node(20), OFFER, extent.clone())
        };
        while full(&mut other, &mut bench.machines) {}
        bench.find(4);
        assert_eq!(bench.targets(), Vec::<u8>::new());
        assert!(!bench.place.is_over());
        bench.wait();
        assert_eq!(bench.place.next_deadline(), Some(START + ROOM_WAIT * 2));
    }

    #[test]
    fn an_avoided_node_makes_room_for_the_next_nearest_one() {
        let mut bench = Bench::new(AIM);
        bench.fill(1);
        bench.find(4);
        assert!(!bench.place.avoid(&node(4).id), "it was a spare one");
        assert!(bench.place.avoid(&node(1).id));
        bench.place.advance(bench.now, &mut bench.machines);
        bench.end(2, &STORED);
        bench.end(3, &STORED);
        assert!(bench.place.is_over() && !bench.place.is_short());
    }

    #[test]
    fn nodes_avoided_before_the_lookup_ended_are_left_out() {
        let mut bench = Bench::new(AIM);
        let (closest, avoided) = ([1, 2, 3].map(node), BTreeSet::from([node(1).id]));
        bench.place.handle_looked_up(START, &closest, &avoided, &mut bench.machines);
        assert_eq!(bench.targets(), [2, 3]);
    }

    #[test]
    fn a_piece_that_is_gone_from_this_node_ends_the_placement_after_the_copies_under_way() {
        let mut bench = Bench::looked_up(AIM, 4);
        bench.machines.store.remove_piece(&KEY);
        bench.end(1, &SILENT);
        assert!(bench.place.is_gone() && !bench.place.is_over());
        bench.end(2, &STORED);
        assert!(bench.place.is_over() && bench.place.is_short());
        assert_eq!(bench.place.holders().len(), 1);
    }

    #[test]
    fn cancelling_ends_the_lookup_and_forgets_the_copies() {
        let mut bench = Bench::new(AIM);
        assert_eq!(bench.machines.lookups.len(), 1);
        bench.place.cancel(&mut bench.machines);
        assert_eq!(bench.machines.lookups.len(), 0);
        let mut bench = Bench::looked_up(AIM, 4);
        bench.place.cancel(&mut bench.machines);
        assert_eq!(bench.machines.pushes.len(), 0);
    }
}

//! Attacks: requests, answers and identities that must not harm a node.

use super::*;
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, write};
use crate::wire::reconcile::RANGES_MAX;

/// One machine that holds `count` pieces and knows one neighbour.
struct Alone {
    machine: Replication,
    outbox: Outbox,
    network: Network,
    now: Instant,
    sequence: u64,
}

impl Alone {
    fn new(count: usize) -> Self {
        let (network, now) = (Network::new("test"), Instant::from_secs(1000));
        let own = identity(0).id();
        let mut machine = Replication::new(ReplicationConfig::default(), own, [1; 32], now);
        let outbox = crate::peers::testing::outbox(&network, identity(0), false, 1);
        let mut rng = Rng::new([6; 32]);
        for _ in 0..count {
            machine.piece_added(now, Held { key: Key(rng.bytes()), replicas: 2, length: 9, keep: false });
        }
        let mut alone = Alone { machine, outbox, network, now, sequence: 0 };
        for _ in 0..100 {
            alone.now = alone.now + seconds(1);
            let contact = Contact::new(identity(1).public(), address(1));
            let (liveness, since) = (Liveness::Live, Instant::from_secs(1000));
            alone.machine.set_neighbourhood(alone.now, &[Neighbour { contact, liveness, since }], true);
            while alone.machine.next_deadline().is_some_and(|at| at <= alone.now) {
                alone.machine.handle_timeout(alone.now, &mut alone.outbox);
            }
        }
        while alone.outbox.poll().is_some() {}
        alone
    }

    /// Hands in a message of node `sender`. Returns its length in bytes, and the answer.
    fn ask(&mut self, sender: usize, message: &Message<'_>, validated: bool) -> (usize, Option<Vec<u8>>) {
        self.sequence += 1;
        let envelope = Envelope {
            recipient: Some(identity(0).id()),
            leaf: false,
            epoch: Epoch::new(1),
            sequence: self.sequence,
            transaction: 77,
            token: 0,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &self.network, &identity(sender), &envelope, message).expect("it fits");
        let datagram = Unverified::parse(&out[..length], &self.network).expect("it is sound");
        let datagram = datagram.verify(&self.network, &identity(0).id()).expect("it is signed");
        self.machine.handle_datagram(self.now, address(sender), &datagram, validated, &mut self.outbox);
        let answer = self.outbox.poll().map(|datagram| datagram.bytes().to_vec());
        (length, answer)
    }

    fn answers(&self, bytes: &[u8]) -> Vec<String> {
        let datagram = Unverified::parse(bytes, &self.network).expect("it is sound");
        let datagram = datagram.verify(&self.network, &identity(1).id()).or_else(|_| {
            let datagram = Unverified::parse(bytes, &self.network).expect("it is sound");
            datagram.verify(&self.network, &identity(2).id())
        });
        let Message::Reconciled { answers } = datagram.expect("it is signed").message() else {
            panic!("it answers something else")
        };
        answers.iter().map(|answer| format!("{answer:?}").chars().take(7).collect()).collect()
    }
}

fn ranges(count: u64) -> Vec<WireRange> {
    let width = u64::MAX / count;
    (0..count)
        .map(|index| {
            WireRange::new(index * width, index * width + width - 1, Scope::Kept, Summary::default())
        })
        .collect()
}

#[test]
fn a_node_that_is_no_neighbour_gets_no_answers() {
    let mut alone = Alone::new(500);
    let message = Message::Reconcile { salt: 1, ranges: &ranges(3) };
    let (_, answer) = alone.ask(2, &message, true);
    assert_eq!(alone.answers(&answer.expect("an answer")), ["Refused"]);
    assert_eq!(alone.machine.counters.not_neighbour, 1);
    let work = alone.machine.work;
    alone.ask(2, &message, true);
    assert_eq!(alone.machine.work, work, "it costs nothing");
}

#[test]
fn an_unvalidated_address_is_sent_at_most_three_times_what_came_from_it() {
    let mut alone = Alone::new(5000);
    for count in [1, 2, 5, RANGES_MAX as u64] {
        let message = Message::Reconcile { salt: 1, ranges: &ranges(count) };
        let (sent, answer) = alone.ask(1, &message, false);
        let answer = answer.expect("an answer");
        assert!(answer.len() <= 3 * sent, "{} bytes for {sent}", answer.len());
        assert!(answer.len() > 300, "and still a useful one");
        let (_, validated) = alone.ask(1, &message, true);
        assert!(validated.expect("an answer").len() >= answer.len());
    }
}

#[test]
fn a_neighbour_that_asks_without_end_is_put_off() {
    let mut alone = Alone::new(20_000);
    let message = Message::Reconcile { salt: 1, ranges: &ranges(RANGES_MAX as u64) };
    let before = alone.machine.work;
    for _ in 0..2000 {
        alone.ask(1, &message, true);
    }
    let work = alone.machine.work - before;
    assert!(work < 400_000, "{work} pieces looked at in no time");
    let (_, answer) = alone.ask(1, &message, true);
    assert_eq!(alone.answers(&answer.expect("an answer")), ["Later"]);
    alone.now = alone.now + seconds(1);
    let (_, answer) = alone.ask(1, &message, true);
    assert_ne!(alone.answers(&answer.expect("an answer")), ["Later"]);
}

#[test]
fn answers_without_a_request_change_nothing() {
    let mut alone = Alone::new(100);
    let answers = Answers::parse(&[0; 8]).expect("an equal");
    let before = alone.machine.short_of(1).count();
    let (_, answer) = alone.ask(1, &Message::Reconciled { answers }, true);
    assert_eq!(answer, None);
    assert_eq!(alone.machine.short_of(1).count(), before);
    assert_eq!(alone.machine.counters.unexpected, 1);
    assert!(!alone.machine.is_expected(Kind::Reconciled, 77, address(1)));
    assert!(!alone.machine.is_expected(Kind::Ping, 77, address(1)));
}

#[test]
fn a_comparison_with_a_neighbour_that_only_divides_is_given_up() {
    let mut world = World::new(2, ReplicationConfig::default());
    world.liar = Some(1);
    for _ in 0..3000 {
        let key = Key(world.rng.bytes());
        world.give(0, Held { key, replicas: 2, length: 1000, keep: false });
    }
    world.run(seconds(3600));
    let machine = &world.nodes[0].machine;
    assert!(machine.counters.reconcile_failed >= 3);
    assert!(world.air.sent < 30_000, "{} datagrams", world.air.sent);
    assert!(world.air.sent_bytes < 20_000_000, "{} bytes", world.air.sent_bytes);
}

#[test]
fn a_neighbour_that_asks_about_all_pieces_at_once_goes_into_debt() {
    let mut alone = Alone::new(20_000);
    let everything = [WireRange::new(0, u64::MAX, Scope::Kept, Summary::default())];
    let before = alone.machine.work;
    for _ in 0..200 {
        alone.now = alone.now + Duration::from_millis(10);
        alone.ask(1, &Message::Reconcile { salt: 1, ranges: &everything }, true);
    }
    let work = alone.machine.work - before;
    assert!(work < 4 * 131_072 + 50_000, "{work} pieces looked at in two seconds");
}

/// Eight nodes hold pieces. A ninth comes and `does` something; then one of the eight crashes. Returns whether the others restore the
/// copies of its pieces.
fn is_repaired_in_spite_of(does: impl Fn(&mut World, usize)) -> bool {
    let (mut world, keys) = World::settled(8, 1500);
    let hostile = world.join();
    does(&mut world, hostile);
    world.run(seconds(600));
    world.leave(3);
    world.run(seconds(1500));
    let honest = |world: &World, key: &Key| {
        let mut closest = world.closest(key, 3);
        closest.retain(|index| *index != hostile);
        closest
    };
    let lacking = keys.iter().filter(|key| {
        let holders = world.holders(key);
        honest(&world, key).iter().any(|index| !holders.contains(index))
    });
    lacking.count() == 0
}

#[test]
fn a_neighbour_that_puts_off_every_question_does_not_delay_copies_to_others() {
    assert!(is_repaired_in_spite_of(|world, hostile| {
        world.evasive = Some(hostile);
        world.unwilling.insert(hostile, CopyOutcome::Busy);
    }));
}

#[test]
fn a_neighbour_that_is_always_busy_does_not_delay_copies_to_others() {
    assert!(is_repaired_in_spite_of(|world, hostile| {
        world.unwilling.insert(hostile, CopyOutcome::Busy);
    }));
}

/// A machine whose 40 neighbours have settled, each at its `address_of`.
fn among_neighbours(address_of: impl Fn(usize) -> SocketAddr) -> (Replication, Vec<Neighbour>, Instant) {
    let start = Instant::from_secs(1000);
    let mut machine = Replication::new(ReplicationConfig::default(), identity(0).id(), [1; 32], start);
    let neighbour = |index| {
        let contact = Contact::new(identity(index).public(), address_of(index));
        Neighbour { contact, liveness: Liveness::Live, since: start }
    };
    let mut all: Vec<Neighbour> = (1..=40).map(neighbour).collect();
    let own = identity(0).id().key();
    all.sort_by_key(|neighbour| neighbour.contact.id.distance(&own));
    let mut outbox = crate::peers::testing::outbox(&Network::new("test"), identity(0), false, 1);
    let mut now = start;
    for _ in 0..400 {
        now = now + seconds(1);
        machine.set_neighbourhood(now, &all, true);
        while machine.next_deadline().is_some_and(|at| at <= now) {
            machine.handle_timeout(now, &mut outbox);
        }
    }
    (machine, all, now)
}

#[test]
fn new_identities_that_vanish_do_not_make_a_node_suspect_a_partition() {
    let (mut machine, mut all, now) = among_neighbours(address);
    for index in 50..62 {
        let contact = Contact::new(identity(index).public(), address(index));
        all.push(Neighbour { contact, liveness: Liveness::Live, since: now });
    }
    machine.set_neighbourhood(now, &all, true);
    let later = now + seconds(50);
    for neighbour in &mut all[40..] {
        (neighbour.liveness, neighbour.since) = (Liveness::Unresponsive, later);
    }
    machine.set_neighbourhood(later, &all, true);
    assert_eq!(machine.statistics().partition, None);
    for neighbour in &mut all[..12] {
        (neighbour.liveness, neighbour.since) = (Liveness::Unresponsive, later);
    }
    machine.set_neighbourhood(later, &all, true);
    let since = machine.statistics().partition.map(|suspicion| suspicion.since);
    assert_eq!(since, Some(later), "neighbours that had settled count");
}

#[test]
fn a_piece_is_not_dropped_because_one_party_of_several_claims_all_copies() {
    let need = |address_of: &dyn Fn(usize) -> SocketAddr| {
        let (mut machine, all, now) = among_neighbours(address_of);
        let far = all.last().expect("one is farthest").contact.id;
        let key = far.key();
        machine.piece_added(now, Held { key, replicas: 3, length: 9, keep: false });
        for neighbour in &all {
            machine.confirmed(now, &key, &neighbour.contact.id);
        }
        machine.assess(&key, machine.pieces.get(&key).expect("it was added")).need
    };
    let (_, all, _) = among_neighbours(address);
    let key = all.last().expect("one is farthest").contact.id.key();
    let mut ids: Vec<_> = all.iter().map(|neighbour| neighbour.contact.id).collect();
    ids.sort_by_key(|id| id.distance(&key));
    let crowd = |index: usize| match ids[..3].contains(&identity(index).id()) {
        true => SocketAddr::from(([8, 8, 8, index as u8], 1)),
        false => SocketAddr::from(([8, 8, 9 + index as u8, 8], 1)),
    };
    assert_eq!(need(&crowd), pieces::Need::Whole, "its holders are of one party, and there are others");
    assert_eq!(need(&|index| SocketAddr::from(([8, 8, index as u8, 8], 1))), pieces::Need::Surplus);
    let one = |index| SocketAddr::from(([8, 8, 8, index as u8], 1));
    assert_eq!(need(&one), pieces::Need::Surplus, "the whole network is of one party");
    assert_eq!(need(&address), pieces::Need::Surplus, "in a private network each address counts");
}

#[test]
fn a_copy_is_dropped_only_when_all_that_should_hold_it_have_proven_it_and_are_old_enough() {
    let is_dropped = |young: bool, proven: usize| {
        let (mut machine, mut all, now) = among_neighbours(address);
        let key = all.last().expect("one is farthest").contact.id.key();
        machine.piece_added(now, Held { key, replicas: 3, length: 9, keep: false });
        all.sort_by_key(|neighbour| neighbour.contact.id.distance(&key));
        // Each was compared with, and has the piece.
        let compare = |machine: &mut Replication, at: Instant, all: &[Neighbour]| {
            machine.set_neighbourhood(at, all, true);
            for neighbour in all {
                let slot = machine.neighbours.find(&neighbour.contact.id).expect("a neighbour");
                let slot = machine.neighbours.get_mut(slot).expect("a neighbour");
                (slot.stale, slot.checked) = (false, true);
                machine.neighbours.refresh(at);
                machine.confirmed(at, &key, &neighbour.contact.id);
            }
        };
        let (later, aged) = (now + seconds(3600), now + seconds(3 * 3600));
        compare(&mut machine, later, &all);
        if young {
            all[0].since = aged - seconds(600);
            compare(&mut machine, aged - seconds(500), &all);
        }
        let ids: Vec<NodeId> = all.iter().map(|neighbour| neighbour.contact.id).collect();
        machine.challenge_last(&key, &ids[2], &ids[..proven]);
        machine.proven(aged, &key, &ids[2], true);
        core::iter::from_fn(|| machine.poll_action()).any(|action| action == Action::Drop { key })
    };
    assert!(is_dropped(false, 2));
    assert!(!is_dropped(false, 1), "one of the three was never challenged");
    assert!(!is_dropped(true, 2), "one of the three came a short time ago");
}

#[test]
fn a_misplaced_copy_is_dropped_only_when_the_same_nodes_have_kept_it() {
    let (mut machine, all, now) = among_neighbours(address);
    machine.set_neighbourhood(now, &all, false);
    let mut key = machine.own.key();
    key.0[0] ^= 0x80;
    machine.piece_added(now, Held { key, replicas: 3, length: 9, keep: false });
    let mut place = |ids: [usize; 3], had: bool| {
        machine.placing.insert(key);
        machine.placed(now, &key, &ids.map(|index| Placed { id: identity(index).id(), had }));
        core::iter::from_fn(|| machine.poll_action()).any(|action| action == Action::Drop { key })
    };
    assert!(!place([1, 2, 3], true), "these have it for as long as this node knows");
    assert!(!place([1, 2, 4], true), "a lookup names another node that has it");
    assert!(!place([4, 2, 1], false), "one of them has lost it meanwhile");
    assert!(place([2, 4, 1], true), "the same nodes have kept it");
}

#[test]
fn an_offer_cannot_have_a_piece_copied_to_the_whole_network() {
    let (mut machine, _, now) = among_neighbours(address);
    let key = identity(0).id().key();
    machine.piece_added(now, Held { key, replicas: 3, length: 9, keep: false });
    machine.piece_added(now, Held { key, replicas: 255, length: 9, keep: false });
    let status = machine.inspect(&key).expect("it is looked after");
    assert_eq!(status.replicas, REPLICAS_MAX);
    assert_eq!(status.holders.len(), usize::from(REPLICAS_MAX));
}

#[test]
fn newcomers_that_claim_copies_and_keep_none_do_not_make_their_holders_drop_them() {
    let (mut world, keys) = World::settled(9, 60);
    let before: Vec<Vec<usize>> = keys.iter().map(|key| world.holders(key)).collect();
    for _ in 0..3 {
        let index = world.join();
        world.hollow.insert(index);
    }
    world.run(seconds(3 * 3600));
    let displaced = keys.iter().filter(|key| world.closest(key, 3).iter().any(|index| *index >= 9)).count();
    assert!(displaced > 10, "the newcomers are holders of many pieces");
    assert!(world.counted(|counters| counters.unproven) > 0);
    for (key, holders) in keys.iter().zip(before) {
        let honest = world.closest(key, 3).iter().all(|index| *index < 9);
        let kept = holders.iter().all(|index| world.nodes[*index].held.contains_key(key));
        assert!(honest || kept, "{key} was dropped for a newcomer");
    }
}

#[test]
fn a_copy_is_kept_until_those_that_replace_it_have_been_live_for_as_long_as_surplus_is_kept() {
    let (mut world, _) = World::settled(9, 60);
    let newcomer = world.join();
    let joined = world.now;
    world.run(seconds(3600 - 60));
    assert_eq!(world.dropped, []);
    world.restart(newcomer);
    world.run(seconds(3000));
    assert_eq!(world.dropped, [], "after {:?}", world.now.since(joined));
    world.run(seconds(3600));
    assert!(!world.dropped.is_empty());
}

#[test]
fn a_node_that_loses_its_pieces_again_and_again_is_refilled_ever_more_slowly() {
    let (mut world, keys) = World::settled(9, 60);
    let affected = world.holds(4);
    let lose = |world: &mut World| {
        world.crash(4);
        world.run(seconds(60));
        world.nodes[4].held.clear();
        world.restart(4);
        world.run(seconds(400));
        world.holds(4)
    };
    assert_eq!(lose(&mut world), affected, "once is an accident");
    for _ in 0..6 {
        lose(&mut world);
        world.run(seconds(2000));
        assert_eq!(world.holds(4), affected);
    }
    assert_eq!(lose(&mut world), 0, "it waits");
    world.run(seconds(2400));
    assert!(world.is_whole(&keys, 3), "it is refilled in the end");
}

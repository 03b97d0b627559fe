//! Networks larger than a neighbourhood, and nodes with different views.

use super::*;

/// `count` nodes, more than a neighbourhood has, with `pieces` pieces at the nodes closest to them.
fn large(count: usize, pieces: usize) -> (World, Vec<Key>) {
    let mut world = World::new(count, ReplicationConfig::default());
    world.tick_every = seconds(5);
    let keys = world.scatter(pieces, 3);
    world.run(seconds(400));
    (world, keys)
}

#[test]
fn a_crash_is_repaired_in_a_network_larger_than_a_neighbourhood() {
    let (mut world, keys) = large(64, 120);
    assert_eq!(world.offers, 0);
    assert_eq!(world.dropped.len(), 0);
    let gone = (0..64).max_by_key(|index| world.holds(*index)).expect("a node");
    let affected = world.holds(gone);
    world.crash(gone);
    world.run(seconds(400));
    assert!(world.is_whole(&keys, 3));
    let copies = world.copied.len();
    assert!((affected..=affected + 1).contains(&copies), "{copies} copies for {affected}");
}

#[test]
fn a_piece_from_far_away_is_placed_and_dropped_late() {
    let (mut world, keys) = large(64, 20);
    let far = |key: &Key| world.closest(key, 64)[63];
    let strays: Vec<(usize, Key)> = keys.iter().map(|key| (far(key), *key)).collect();
    for (index, key) in &strays {
        world.give(*index, Held { key: *key, replicas: 3, length: 10, keep: false });
    }
    world.run(seconds(900));
    assert!(world.places >= 20, "{} placed", world.places);
    assert_eq!(world.dropped.len(), 0);
    world.run(seconds(4500));
    assert_eq!(world.dropped.len(), 20);
    assert!(keys.iter().all(|key| world.holders(key).len() == 3));
}

#[test]
fn a_piece_that_only_a_far_node_has_reaches_its_holders() {
    let (mut world, _) = large(64, 0);
    let key = Key(world.rng.bytes());
    let far = world.closest(&key, 64)[63];
    world.give(far, Held { key, replicas: 3, length: 10, keep: false });
    world.run(seconds(900));
    assert!(world.is_whole(&[key], 3));
}

/// A network in which a node far from a piece is its publisher, the publisher, and the key.
fn published_from_far() -> (World, usize, Key) {
    let (mut world, keys) = large(64, 1);
    let far = world.closest(&keys[0], 64)[63];
    world.give(far, Held { key: keys[0], replicas: 3, length: 10, keep: true });
    world.run(seconds(100));
    assert_eq!(world.places, 0);
    (world, far, keys[0])
}

/// The `count` holders nearest to the piece crash, and the membership of the publisher notices it.
fn crash_holders(world: &mut World, count: usize, publisher: usize, key: &Key) {
    for index in world.closest(key, count) {
        let id = world.nodes[index].contact.id;
        world.crash(index);
        world.nodes[publisher].machine.member_silent(world.now, &id, 64);
    }
}

#[test]
fn a_piece_whose_holders_all_fall_silent_comes_back_from_its_far_publisher() {
    let (mut world, far, key) = published_from_far();
    crash_holders(&mut world, 3, far, &key);
    assert_eq!(world.holders(&key), [far]);
    world.run(seconds(200));
    assert!(world.holders(&key).len() > 1);
    world.run(seconds(300));
    assert!(world.is_whole(&[key], 3));
    assert_eq!(world.places, 1, "the publisher makes one holder, which makes the others");
}

#[test]
fn the_publisher_of_a_piece_of_which_a_holder_is_left_looks_once_and_copies_nothing() {
    let (mut world, far, key) = published_from_far();
    crash_holders(&mut world, 2, far, &key);
    let before = world.holders(&key);
    world.run(seconds(50));
    assert_eq!((world.holders(&key), world.places), (before, 0), "the holders act first");
    world.run(seconds(4000));
    assert_eq!(world.places, 1);
    assert!(world.copied.iter().all(|copied| copied.from != far));
}

#[test]
fn randomly_different_views_settle_without_lost_or_surplus_copies() {
    let (mut world, keys) = World::settled(14, 60);
    world.tick_every = seconds(3);
    // For twenty minutes each node fails to see some others, different ones each time, but too few to suspect a partition.
    for _ in 0..8 {
        for index in 0..14 {
            let other = world.rng.below(14) as usize;
            if other != index {
                world.cut(index, &[other]);
            }
        }
        world.run(seconds(100));
        world.mend();
        world.run(seconds(50));
    }
    world.run(seconds(8000));
    assert!(world.is_whole(&keys, 3));
    let copies: Vec<usize> = keys.iter().map(|key| world.holders(key).len()).collect();
    assert!(copies.iter().all(|copies| *copies == 3), "{copies:?}");
}

#[test]
fn a_node_that_leaves_must_hand_over_pieces_with_too_few_known_copies() {
    let (mut world, keys) = World::settled(6, 30);
    let machine = &world.nodes[0].machine;
    assert_eq!(machine.short_of(1).count(), 0);
    assert_eq!(machine.short_of(3).count(), world.holds(0), "no piece is meant to be at three others");
    let key = keys[0];
    let held = Held { key: Key([1; 32]), replicas: 3, length: 1, keep: false };
    world.give(0, held);
    assert!(world.nodes[0].machine.short_of(1).eq([held.key]));
    assert!(world.nodes[0].machine.inspect(&key).is_none_or(|status| status.live == 3));
    let two: Vec<NodeId> = [1, 2].map(|index| world.nodes[index].contact.id).to_vec();
    let now = world.now;
    two.iter().for_each(|id| world.nodes[0].machine.confirmed(now, &held.key, id));
    assert_eq!(world.nodes[0].machine.short_of(2).count(), 0);
}

#[test]
fn more_changes_than_slots_are_handled_one_after_the_other() {
    let now = Instant::from_secs(1000);
    let mut machine = Replication::new(ReplicationConfig::default(), identity(0).id(), [1; 32], now);
    let mut outbox = crate::peers::testing::outbox(&Network::new("test"), identity(0), false, 1);
    let neighbours = |from: usize| -> Vec<Neighbour> {
        (from..from + 40)
            .map(|index| Neighbour {
                contact: Contact::new(identity(index).public(), address(index)),
                liveness: Liveness::Live,
                since: now,
            })
            .collect()
    };
    for (second, from) in [1, 101, 201, 301].into_iter().enumerate() {
        machine.set_neighbourhood(now + seconds(second as u64), &neighbours(from), false);
    }
    let last = now + seconds(4);
    for _ in 0..20 {
        if machine.next_deadline().is_some_and(|at| at <= last) {
            machine.handle_timeout(last, &mut outbox);
        }
    }
    assert_eq!(machine.neighbours.iter().count(), 40);
    assert!(neighbours(301).iter().all(|neighbour| machine.neighbours.find(&neighbour.contact.id).is_some()));
}

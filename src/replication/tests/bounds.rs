//! Tables and queues stay within their bounds, and no call takes long.

use super::*;

/// A machine that holds `count` pieces, in the middle of `neighbours` live neighbours.
fn crowded(count: usize, neighbours: usize) -> (Replication, Outbox, Vec<Neighbour>, Instant) {
    let now = Instant::from_secs(1000);
    let own = identity(0).id();
    let mut machine = Replication::new(ReplicationConfig::default(), own, [1; 32], now);
    let mut rng = Rng::new([6; 32]);
    for _ in 0..count {
        machine.piece_added(now, Held { key: Key(rng.bytes()), replicas: 3, length: MEGABYTE, keep: false });
    }
    let neighbour = |index| {
        let contact = Contact::new(identity(index).public(), address(index));
        Neighbour { contact, liveness: Liveness::Live, since: now }
    };
    let mut all: Vec<Neighbour> = (1..=neighbours).map(neighbour).collect();
    all.sort_by_key(|neighbour| neighbour.contact.id.distance(&own.key()));
    (machine, crate::peers::testing::outbox(&Network::new("test"), identity(0), false, 1), all, now)
}

#[test]
fn with_a_full_table_no_call_visits_more_than_a_slice() {
    let (mut machine, mut outbox, mut neighbours, mut now) = crowded(65_536, 40);
    let extra = Held { key: Key([0; 32]), replicas: 3, length: 1, keep: false };
    assert!(!machine.piece_added(now, extra), "one more finds no room");
    assert_eq!(machine.counters.not_tracked, 1);
    let mut worst = 0;
    let mut turns = 0;
    for second in 0..120 {
        now = now + seconds(1);
        if second == 60 {
            (neighbours[3].liveness, neighbours[3].since) = (Liveness::Unresponsive, now);
        }
        let before = machine.work;
        machine.set_neighbourhood(now, &neighbours, true);
        assert_eq!(machine.work, before, "the change itself costs nothing");
        let mut here = 0;
        while machine.next_deadline().is_some_and(|at| at <= now) {
            let sessions = machine.neighbours.iter().filter(|(_, slot)| slot.session.is_some()).count();
            let before = machine.work;
            machine.handle_timeout(now, &mut outbox);
            turns += 1;
            here += 1;
            assert!(here < 4000, "it spins");
            // A comparison looks at every piece once when it begins.
            let begun = machine.neighbours.iter().filter(|(_, slot)| slot.session.is_some()).count();
            if begun == sessions {
                worst = worst.max(machine.work - before);
            }
            while outbox.poll().is_some() {}
        }
        while machine.poll_action().is_some() {}
    }
    println!("worst turn: {worst} pieces; {turns} turns in 120 seconds");
    assert!(worst <= 1000, "{worst} pieces in one turn");
}

#[test]
fn a_piece_takes_about_a_hundred_bytes() {
    let (mut machine, ..) = crowded(0, 0);
    let mut rng = Rng::new([6; 32]);
    let keys: Vec<Key> = (0..65_536).map(|_| Key(rng.bytes())).collect();
    let used = allocation_counter::measure(|| {
        for key in &keys {
            machine.pieces.insert(Instant::ZERO, *key, 3, MEGABYTE, false);
        }
    });
    let each = used.bytes_current / 65_536;
    println!("{each} bytes a piece, {} without the tree", size_of::<Key>() + size_of::<pieces::Piece>());
    assert!(each <= 160, "{each} bytes");
}

#[test]
fn copies_keep_to_the_budget_and_to_the_number_of_transfers() {
    let rate = 200_000;
    let config = ReplicationConfig { bytes_per_second: rate, transfers_max: 2, ..Default::default() };
    let mut world = World::new(5, config);
    let keys = world.scatter(100, 3);
    world.run(seconds(400));
    assert_eq!(world.offers, 0);
    world.leave(2);
    world.run(seconds(100));
    let span = 100 - 4;
    let senders: BTreeSet<usize> = world.copied.iter().map(|copy| copy.from).collect();
    assert!(!senders.is_empty());
    for sender in senders {
        let sent = world.copied.iter().filter(|copy| copy.from == sender).count() as u64;
        assert!((sent - 1) * u64::from(MEGABYTE) <= rate * (span + 1), "{sent} copies by {sender}");
    }
    assert!(!world.is_whole(&keys, 3), "the budget holds it up");
    world.run(seconds(600));
    assert!(world.is_whole(&keys, 3));
    assert!(world.under_way_max <= 2);
}

#[test]
fn pieces_with_the_fewest_live_copies_go_first() {
    let config = ReplicationConfig { bytes_per_second: 100_000, transfers_max: 1, ..Default::default() };
    let mut world = World::new(11, config);
    let keys = world.scatter(120, 4);
    world.run(seconds(400));
    // Two nodes that share many pieces, each with many that the other lacks.
    let shared = |pair: &(usize, usize)| {
        let held = |key: &Key| {
            let holders = world.holders(key);
            [pair.0, pair.1].iter().filter(|index| holders.contains(index)).count()
        };
        let with = |count: usize| keys.iter().filter(|key| held(key) == count).count();
        with(2).min(with(1))
    };
    let pairs = (0..11).flat_map(|one| (0..one).map(move |other| (one, other)));
    let (one, other) = pairs.max_by_key(shared).expect("a pair");
    world.crash(one);
    world.crash(other);
    world.run(seconds(60));
    let live: BTreeMap<Key, usize> = keys.iter().map(|key| (*key, world.holders(key).len())).collect();
    world.run(seconds(2000));
    assert!(world.is_whole(&keys, 4));
    // When the first copy of each was made, on average.
    let mean = |count: usize| {
        let firsts: BTreeMap<Key, u64> = world
            .copied
            .iter()
            .rev()
            .filter(|copy| live[&copy.key] == count)
            .map(|copy| (copy.key, copy.at.as_secs()))
            .collect();
        assert!(firsts.len() > 5, "{} pieces with {count} live copies", firsts.len());
        firsts.values().sum::<u64>() / firsts.len() as u64
    };
    assert!(mean(2) + 60 < mean(3), "{} and {}", mean(2), mean(3));
}

#[test]
fn pieces_survive_random_events_and_replication_settles() {
    for seed in 0..3 {
        let mut world =
            World::new(10, ReplicationConfig { surplus_after: seconds(400), ..Default::default() });
        world.rng = Rng::new([seed; 32]);
        world.air.loss_percent = 5;
        world.tick_every = seconds(3);
        let mut keys = world.scatter(40, 3);
        world.run(seconds(300));
        for _ in 0..40 {
            let index = world.rng.below(world.nodes.len() as u64) as usize;
            let down = (0..world.nodes.len()).filter(|index| !world.is_up(*index)).count();
            match world.rng.below(7) {
                // At most two at a time, or the last copy of a piece may be lost.
                0 | 1 if world.is_up(index) && down < 2 => world.crash(index),
                2 | 3 if !world.is_up(index) => world.restart(index),
                4 if world.nodes.len() < 20 => _ = world.join(),
                5 => keys.extend(world.scatter(3, 3)),
                6 => {
                    let key = keys[world.rng.below(keys.len() as u64) as usize];
                    let holders = world.holders(&key);
                    if let (true, Some(holder)) = (holders.len() > 2, holders.first()) {
                        // The disk loses it.
                        world.nodes[*holder].held.remove(&key);
                        world.nodes[*holder].machine.piece_removed(&key);
                    }
                }
                _ => {}
            }
            let pause = world.rng.below(200);
            world.run(seconds(pause));
            for node in &world.nodes {
                assert!(node.machine.actions.len() <= 128 && node.machine.jobs.len() <= 64 + 5);
                assert!(node.machine.placing.len() <= 2);
            }
        }
        for index in 0..world.nodes.len() {
            if !world.is_up(index) {
                world.restart(index);
            }
        }
        world.air.loss_percent = 0;
        world.run(seconds(4000));
        assert!(world.is_whole(&keys, 3), "seed {seed}");
        let copies: Vec<usize> = keys.iter().map(|key| world.holders(key).len()).collect();
        assert!(copies.iter().all(|copies| *copies == 3), "seed {seed}: {copies:?}");
        for node in &world.nodes {
            let next = node.machine.next_deadline();
            assert!(next.is_none_or(|at| at > world.now), "seed {seed}: {next:?} is due");
        }
    }
}

//! The cost of comparisons, and that they find every difference.

use super::*;

/// Two nodes that hold `count` pieces together. With `every` > 0, every `every`-th piece is missing at one of them, in turn.
fn pair(count: usize, every: usize) -> (World, Vec<Key>) {
    let config = ReplicationConfig { pieces_max: 1 << 17, ..Default::default() };
    let mut world = World::new(2, config);
    let keys: Vec<Key> = (0..count).map(|_| Key(world.rng.bytes())).collect();
    for (index, key) in keys.iter().enumerate() {
        let held = Held { key: *key, replicas: 2, length: 1000, keep: false };
        for node in 0..2 {
            // Every other difference is at the other node.
            let lacks = every > 0 && index % (2 * every) == node * every;
            if !lacks {
                world.give(node, held);
            }
        }
    }
    (world, keys)
}

/// Runs until both have compared. Returns the bytes of one comparison.
fn bytes_each(world: &mut World) -> u64 {
    world.run(seconds(110));
    let done = world.counted(|counters| counters.reconciled);
    assert!((2..=3).contains(&done), "{done} comparisons");
    assert_eq!(world.counted(|counters| counters.reconcile_failed), 0);
    assert_eq!(world.air.sent_bytes, world.counted(|counters| counters.datagram_bytes));
    assert_eq!(world.air.sent, world.counted(|counters| counters.datagrams));
    world.air.sent_bytes / done
}

#[test]
fn equal_sets_cost_about_three_hundred_bytes() {
    for count in [1, 100, 10_000] {
        let (mut world, keys) = pair(count, 0);
        assert_eq!(bytes_each(&mut world), 344, "{count} pieces");
        let status = world.nodes[0].machine.inspect(&keys[0]).expect("it is here");
        assert_eq!(status.live, 2);
        assert_eq!(status.phase, Phase::Whole);
    }
}

#[test]
fn one_difference_in_ten_thousand_costs_a_few_datagrams() {
    let (mut world, keys) = pair(10_000, 10_000);
    let bytes = bytes_each(&mut world);
    println!("one of 10,000: {bytes} bytes, {} datagrams for both", world.air.sent);
    assert!(bytes < 4_000, "{bytes} bytes");
    let lacks = |node: usize, key: &Key| world.nodes[node].machine.inspect(key).is_none();
    assert!(lacks(0, &keys[0]));
}

#[test]
fn one_percent_of_ten_thousand_costs_about_what_the_theory_says() {
    let (mut world, keys) = pair(10_000, 100);
    let bytes = bytes_each(&mut world);
    println!("1 % of 10,000: {bytes} bytes a comparison, {} datagrams for both", world.air.sent);
    // Each of a hundred differences costs a few summaries of 32 to 40 bytes on the way down, and a list of about ten
    // prefixes of 16 bytes.
    assert!((20_000..70_000).contains(&bytes), "{bytes} bytes");
    for (index, key) in keys.iter().enumerate() {
        let copies = if index % 200 == 0 || index % 200 == 100 { 1 } else { 2 };
        for node in 0..2 {
            if let Some(status) = world.nodes[node].machine.inspect(key) {
                assert_eq!(status.live, copies, "piece {index} at {node}");
            }
        }
    }
}

#[test]
fn differences_are_copied_both_ways_and_nothing_else() {
    let (mut world, keys) = pair(2_000, 100);
    world.run(seconds(400));
    assert_eq!(world.copied.len(), 20);
    assert_eq!(world.offers, 20);
    assert!(world.is_whole(&keys, 2));
}

#[test]
fn sets_that_share_nothing_are_compared_too() {
    let config = ReplicationConfig::default();
    let mut world = World::new(2, config);
    for index in 0..2000 {
        let key = Key(world.rng.bytes());
        world.give(index % 2, Held { key, replicas: 2, length: 1000, keep: false });
    }
    let bytes = bytes_each(&mut world);
    println!("1,000 and 1,000 others: {bytes} bytes");
    assert!(bytes < 150_000, "{bytes} bytes");
    assert_eq!(world.nodes[0].machine.short_of(1).count(), 1000);
}

#[test]
fn one_request_detects_an_empty_disk() {
    let mut world = World::new(2, ReplicationConfig::default());
    for _ in 0..5000 {
        let key = Key(world.rng.bytes());
        world.give(0, Held { key, replicas: 2, length: 1000, keep: false });
    }
    world.run(seconds(80));
    assert!(world.air.sent_bytes < 1000, "{} bytes", world.air.sent_bytes);
    assert_eq!(world.counted(|counters| counters.reconciled), 1);
}

#[test]
fn lost_requests_are_repeated() {
    let (mut world, keys) = pair(2_000, 100);
    world.air.loss_percent = 30;
    world.run(seconds(1500));
    assert!(world.is_whole(&keys, 2));
    assert!(world.counted(|counters| counters.reconciled) >= 2);
    world.air.loss_percent = 100;
    world.run(seconds(1000));
    assert!(world.counted(|counters| counters.unanswered) > 0);
    let before = world.counted(|counters| counters.reconciled);
    world.air.loss_percent = 0;
    world.run(seconds(1300));
    assert!(world.counted(|counters| counters.reconciled) >= before + 2);
}

#[test]
fn pieces_that_arrive_during_a_comparison_do_not_count_as_held() {
    let (mut world, _) = pair(500, 0);
    // In each step of the world one piece comes, to the first node only.
    let mut late = Vec::new();
    for _ in 0..200 {
        world.run(Duration::from_millis(500));
        let key = Key(world.rng.bytes());
        world.give(0, Held { key, replicas: 2, length: 1, keep: false });
        late.push(key);
        for key in &late {
            let believed = world.nodes[0].machine.inspect(key).is_some_and(|status| status.live == 2);
            assert!(!believed || world.nodes[1].held.contains_key(key));
        }
    }
}

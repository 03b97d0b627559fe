//! Nodes come and go.

use super::*;

/// Each missing copy was made once, and nothing else was copied.
fn made_once(copied: &[Copied]) {
    let mut made: Vec<_> = copied.iter().map(|copy| (copy.key, copy.to)).collect();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), copied.len(), "a copy was made twice");
}

#[test]
fn after_a_crash_each_missing_copy_is_made_once_by_one_node() {
    let (mut world, keys) = World::settled(9, 60);
    let affected = world.holds(4);
    assert!(affected >= 5);
    world.crash(4);
    let crashed = world.now;
    world.run(seconds(100));
    assert_eq!(world.copied.len(), 0, "45 seconds until it is unresponsive, 60 while it is urgent");
    world.run(seconds(300));
    assert_eq!(world.copied.len(), affected);
    assert_eq!(world.offers, affected as u64, "no node offered a piece that was there already");
    made_once(&world.copied);
    assert!(world.is_whole(&keys, 3));
    assert!(world.copied.iter().all(|copy| copy.at.since(crashed) >= seconds(105)));
    world.run(seconds(3000));
    assert_eq!(world.copied.len(), affected, "the eviction moves nothing more");
}

#[test]
fn the_nearest_holder_makes_the_copy() {
    let (mut world, _) = World::settled(9, 60);
    world.crash(4);
    world.run(seconds(400));
    assert!(!world.copied.is_empty());
    for Copied { key, from, to, .. } in &world.copied {
        let others = world.closest(key, 9).into_iter().filter(|index| index != to);
        assert_eq!(others.take(1).next(), Some(*from));
    }
}

#[test]
fn with_five_replicas_one_crash_waits_for_the_eviction() {
    let mut world = World::new(9, ReplicationConfig::default());
    let keys = world.scatter(30, 5);
    world.run(seconds(400));
    assert_eq!(world.offers, 0);
    let affected = world.holds(3);
    world.crash(3);
    world.run(seconds(850));
    assert_eq!(world.offers, 0, "four of five copies are more than a quorum");
    world.run(seconds(250));
    assert_eq!(world.copied.len(), affected);
    assert_eq!(world.offers, affected as u64);
    made_once(&world.copied);
    assert!(world.is_whole(&keys, 5));
}

#[test]
fn a_reboot_of_one_minute_moves_nothing() {
    let (mut world, keys) = World::settled(9, 60);
    let before = world.counted(|counters| counters.reconciled);
    world.crash(4);
    world.run(seconds(60));
    world.restart(4);
    world.run(seconds(550));
    assert_eq!(world.offers, 0);
    assert!(world.counted(|counters| counters.reconciled) > before + 10, "it was compared with");
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn rolling_reboots_move_nothing() {
    let (mut world, keys) = World::settled(8, 40);
    for index in 0..8 {
        world.crash(index);
        world.run(seconds(60));
        world.restart(index);
        world.run(seconds(120));
    }
    world.run(seconds(600));
    assert_eq!(world.offers, 0);
    assert_eq!(world.dropped.len(), 0);
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn a_node_that_lost_its_disk_gets_its_pieces_back() {
    let (mut world, keys) = World::settled(9, 60);
    let affected = world.holds(4);
    world.crash(4);
    world.run(seconds(60));
    world.nodes[4].held.clear();
    world.restart(4);
    world.run(seconds(400));
    assert_eq!(world.holds(4), affected);
    assert_eq!(world.copied.len(), affected);
    made_once(&world.copied);
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn when_half_of_the_neighbourhood_vanishes_repair_is_suspended_and_nothing_moves_when_it_returns() {
    let (mut world, keys) = World::settled(16, 60);
    let far: Vec<usize> = (8..16).collect();
    for index in 0..8 {
        world.cut(index, &far);
    }
    world.run(seconds(800));
    assert_eq!(world.offers, 0);
    assert!(world.nodes.iter().all(|node| node.machine.statistics().partition.is_some()));
    let waits = keys.iter().filter_map(|key| world.nodes[0].machine.inspect(key));
    assert!(waits.clone().any(|status| status.phase == Phase::CutOff));
    world.mend();
    world.run(seconds(900));
    assert!(world.nodes.iter().all(|node| node.machine.statistics().partition.is_none()));
    assert_eq!(world.offers, 0, "all returned, nothing moved");
    assert_eq!(world.dropped.len(), 0, "all returned, nothing moved");
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn nodes_that_do_not_return_are_replaced_last_copies_first() {
    let (mut world, keys) = World::settled(16, 60);
    (8..16).for_each(|index| world.crash(index));
    let crashed = world.now;
    let left = |world: &World, key: &Key| world.holders(key).len();
    let lonely: Vec<Key> = keys.iter().filter(|key| left(&world, key) == 1).copied().collect();
    assert!(lonely.len() > 5);
    world.run(seconds(940));
    assert_eq!(world.offers, 0);
    world.run(seconds(600));
    assert!(lonely.iter().all(|key| left(&world, key) >= 2), "they wait only a quarter of the time");
    world.run(seconds(3600));
    let alive: Vec<Key> = keys.iter().filter(|key| left(&world, key) > 0).copied().collect();
    assert!(world.is_whole(&alive, 3), "after {:?}", world.now.since(crashed));
    made_once(&world.copied);
}

#[test]
fn a_last_copy_is_doubled_within_minutes_of_a_disaster_that_most_of_the_network_survives() {
    let (mut world, keys) = World::settled(30, 120);
    world.most_answer = true;
    let left = |world: &World, key: &Key| world.holders(key).len();
    (20..30).for_each(|index| world.crash(index));
    let of = |world: &World, count: usize| -> Vec<Key> {
        keys.iter().filter(|key| left(world, key) == count).copied().collect()
    };
    let (lonely, pairs) = (of(&world, 1), of(&world, 2));
    assert!(lonely.len() > 5 && pairs.len() > 5);
    world.run(seconds(240));
    assert!(lonely.iter().all(|key| left(&world, key) == 2), "once each");
    assert!(pairs.iter().all(|key| left(&world, key) == 2), "a partition is still suspected");
    made_once(&world.copied);
    world.run(seconds(360));
    let copied = world.copied.len();
    assert_eq!(copied, lonely.len());
    (20..30).for_each(|index| world.restart(index));
    world.run(seconds(1200));
    assert!(world.nodes.iter().all(|node| !node.machine.is_suspicious()));
    assert_eq!(world.copied.len(), copied, "the copies that returned are not made again");
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn in_a_small_network_one_crash_is_no_partition() {
    let (mut world, keys) = World::settled(4, 20);
    world.crash(2);
    world.run(seconds(400));
    assert!(world.is_whole(&keys, 3));
    assert_eq!(world.counted(|counters| counters.cut_off), 0);
    made_once(&world.copied);
}

#[test]
fn with_as_many_nodes_as_replicas_a_crash_leaves_nothing_to_do() {
    let (mut world, keys) = World::settled(3, 20);
    world.crash(2);
    world.run(seconds(2000));
    assert_eq!(world.offers, 0);
    let status = world.nodes[0].machine.inspect(&keys[0]).expect("it is here");
    assert_eq!(status.live, 2);
    assert_eq!(status.replicas, 3);
    world.restart(2);
    world.run(seconds(400));
    assert_eq!(world.offers, 0);
}

#[test]
fn a_node_that_leaves_for_good_is_replaced_without_the_urgent_wait() {
    let (mut world, keys) = World::settled(9, 60);
    let affected = world.holds(4);
    world.leave(4);
    world.run(seconds(60));
    assert_eq!(world.copied.len(), affected);
    made_once(&world.copied);
    assert!(world.is_whole(&keys, 3));
}

#[test]
fn a_newcomer_gets_its_pieces_and_surplus_copies_are_dropped_late() {
    let (mut world, keys) = World::settled(8, 60);
    let newcomer = world.join();
    world.run(seconds(55));
    assert_eq!(world.offers, 0, "it has not settled");
    world.run(seconds(300));
    assert!(world.is_whole(&keys, 3));
    assert_eq!(world.copied.len(), world.holds(newcomer));
    made_once(&world.copied);
    let newcomers = world.copied.len();
    world.run(seconds(2900));
    assert_eq!(world.dropped.len(), 0, "surplus is kept for an hour");
    world.run(seconds(1500));
    assert_eq!(world.dropped.len(), newcomers);
    assert!(keys.iter().all(|key| world.holders(key).len() == 3));
    world.run(seconds(2000));
    assert_eq!(world.offers as usize, newcomers, "nothing goes back and forth");
}

#[test]
fn pieces_of_files_shared_in_place_are_never_dropped() {
    let mut world = World::new(8, ReplicationConfig::default());
    let keys = world.scatter(10, 3);
    let far: Vec<usize> = keys.iter().map(|key| world.closest(key, 8)[7]).collect();
    for (key, index) in keys.iter().zip(&far) {
        world.give(*index, Held { key: *key, replicas: 3, length: 10, keep: true });
    }
    world.run(seconds(9000));
    assert_eq!(world.offers, 0);
    assert_eq!(world.dropped.len(), 0);
}

#[test]
fn a_holder_that_returns_before_the_drop_keeps_its_copy() {
    let (mut world, keys) = World::settled(9, 60);
    let affected = world.holds(4);
    world.crash(4);
    world.run(seconds(500));
    assert_eq!(world.copied.len(), affected);
    world.restart(4);
    world.run(seconds(6000));
    assert_eq!(world.offers as usize, affected, "the copy that returned was kept");
    assert_eq!(world.dropped.len(), affected, "the copies made in its place are surplus");
    assert!(keys.iter().all(|key| world.holders(key).len() == 3));
}

#[test]
fn a_repair_whose_cause_is_gone_is_abandoned() {
    let (mut world, _) = World::settled(9, 60);
    world.crash(4);
    world.run(seconds(95));
    assert!(world.nodes.iter().any(|node| node.machine.statistics().urgent > 0));
    world.restart(4);
    world.run(seconds(600));
    assert_eq!(world.offers, 0);
    assert!(world.nodes.iter().all(|node| node.machine.statistics().urgent == 0));
    assert!(world.counted(|counters| counters.abandoned) > 0);
}

#[test]
fn a_node_without_space_is_passed_over_for_the_next_closest() {
    let (mut world, keys) = World::settled(9, 60);
    let crashed = 4;
    world.crash(crashed);
    world.run(seconds(20));
    let heir = world.closest(&keys[0], 9)[3.min(keys.len())];
    world.unwilling.insert(heir, CopyOutcome::Refused);
    world.run(seconds(1200));
    assert!(keys.iter().all(|key| world.holders(key).len() >= 3), "other nodes took them");
    let refused = world.counted(|counters| counters.copy_refused);
    assert!((1..=40).contains(&refused), "it was asked {refused} times");
}

#[test]
fn a_node_that_is_busy_or_breaks_off_is_tried_again_later() {
    for outcome in [CopyOutcome::Busy, CopyOutcome::Failed] {
        let (mut world, keys) = World::settled(5, 20);
        (0..5).for_each(|index| _ = world.unwilling.insert(index, outcome));
        world.crash(1);
        world.run(seconds(300));
        let offers = world.offers;
        assert!(world.copied.is_empty() && offers > 0 && offers < 400, "{offers}");
        world.unwilling.clear();
        world.run(seconds(600));
        assert!(world.is_whole(&keys, 3), "{outcome:?}");
    }
}

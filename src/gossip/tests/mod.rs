//! Whole networks of machines in memory, and single machines under attack.

mod hostile;
mod net;

use super::*;
use crate::time::Duration;
use net::{Net, address};

fn config() -> GossipConfig {
    GossipConfig::default()
}

fn is_about(event: &GossipEvent, id: NodeId) -> bool {
    use GossipEvent::*;
    match event {
        Met { contact, .. } | Suspected { contact } | Unresponsive { contact } => contact.id == id,
        Evicted { contact } | Left { contact, .. } | Returned { contact, .. } => contact.id == id,
        Moved { contact, .. } | DialBack { contact, .. } => contact.id == id,
        Outdone { .. } => false,
    }
}

fn blames(event: &GossipEvent) -> bool {
    matches!(event, GossipEvent::Unresponsive { .. } | GossipEvent::Evicted { .. })
}

#[test]
fn nodes_that_know_one_other_find_their_whole_neighbourhood() {
    let mut net = Net::of(60, &config());
    for index in 1..60 {
        net.meet(index, index / 2);
        net.run(Duration::from_millis(200));
    }
    net.run_secs(120);
    for index in 0..60 {
        let found: Vec<_> = net.nodes[index].gossip.neighbourhood().map(|member| member.contact).collect();
        let truth: Vec<_> = net.nearest(index, 40).iter().map(|&near| net.nodes[near].contact).collect();
        assert_eq!(found, truth, "node {index}");
        assert!(net.nodes[index].gossip.neighbourhood().all(|member| member.state.is_some()));
        assert!(!net.nodes[index].gossip.is_whole_network());
    }
}

#[test]
fn nodes_that_start_together_through_one_see_each_other_within_half_a_minute() {
    const NODES: usize = 70;
    let mut net = Net::of(NODES, &config());
    for index in 1..NODES {
        net.meet(index, 0);
    }
    net.run_secs(30);
    for node in 0..NODES {
        let live = (0..NODES).filter(|&other| net.liveness(node, other) == Some(Liveness::Live)).count();
        assert_eq!(live, NODES - 1, "node {node}");
    }
}

#[test]
fn the_nearest_twenty_detect_a_crash_within_a_minute() {
    let mut net = Net::settled(60, &config());
    net.air.loss_percent = 5;
    net.run_secs(60);
    let mut took = Vec::new();
    for victim in [3, 17, 44] {
        net.nodes.iter_mut().for_each(|node| node.events.clear());
        let (at, id) = (net.now, net.nodes[victim].contact.id);
        net.crash(victim);
        net.run_secs(90);
        for near in net.nearest(victim, 20) {
            let known = net
                .when(near, |event| matches!(event, GossipEvent::Unresponsive { .. }) && is_about(event, id));
            took.push(known.expect("the crash is detected").since(at));
        }
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(worst <= Duration::from_secs(60), "median {median:?}, worst {worst:?}");
    let false_alarms = net.events(|event| {
        blames(event) && ![3, 17, 44].iter().any(|&victim| is_about(event, net.nodes[victim].contact.id))
    });
    assert_eq!(false_alarms, 0);
}

#[test]
fn a_crashed_node_is_evicted_and_returns_after_a_restart() {
    let mut net = Net::settled(12, &config());
    net.crash(5);
    net.run_secs(16 * 60);
    assert!((0..12).filter(|&node| node != 5).all(|node| net.liveness(node, 5) == Some(Liveness::Evicted)));
    assert!(net.nodes[0].gossip.neighbourhood().all(|member| member.contact.id != net.nodes[5].contact.id));
    net.nodes[5].up = true;
    net.run_secs(90);
    assert!((0..12).filter(|&node| node != 5).all(|node| net.liveness(node, 5) == Some(Liveness::Live)));
}

#[test]
fn no_live_node_is_evicted() {
    let mut net = Net::settled(16, &config());
    net.air.loss_percent = 5;
    net.run_secs(1800);
    assert_eq!(net.events(blames), 0);
}

#[test]
fn a_paused_node_suspects_no_member_and_returns_after_its_eviction() {
    let mut net = Net::settled(12, &config());
    net.air.loss_percent = 5;
    net.pause(7, Duration::from_secs(30));
    net.run_secs(120);
    assert_eq!(net.events(blames), 0);
    assert_eq!(net.nodes[7].gossip.counters.asleep, 1);
    // The pause is so long that the others have evicted the node. The node has not evicted them.
    net.nodes.iter_mut().for_each(|node| node.events.clear());
    net.pause(7, Duration::from_secs(1200));
    assert!(net.events(blames) >= 11);
    net.run_secs(120);
    assert_eq!(net.nodes[7].events.iter().filter(|(_, event)| blames(event)).count(), 0);
    assert!((0..12).filter(|&n| n != 7).all(|node| net.liveness(node, 7) == Some(Liveness::Live)));
}

#[test]
fn two_halves_merge_after_a_partition_of_half_an_hour() {
    let mut net = Net::settled(24, &config());
    for index in 0..12 {
        net.nodes[index].side = 1;
    }
    net.cut = true;
    net.run_secs(30 * 60);
    assert_eq!(net.liveness(0, 23), Some(Liveness::Evicted));
    net.cut = false;
    net.run_secs(90);
    for node in 0..24 {
        let live = (0..24).filter(|&other| net.liveness(node, other) == Some(Liveness::Live)).count();
        assert_eq!(live, 23, "node {node}");
    }
}

/// The epoch of every node in [`Net`].
const EPOCH: Epoch = Epoch::new(1);

#[test]
fn a_goodbye_takes_effect_at_once_and_an_old_one_is_ignored() {
    let mut net = Net::settled(10, &config());
    let (now, id) = (net.now, net.nodes[4].contact.id);
    let gossip = &mut net.nodes[0].gossip;
    gossip.note_leave(now, &id, EPOCH, true, 1);
    assert_eq!(gossip.member(&id).unwrap().liveness, Liveness::Live, "the goodbye has an old number");
    gossip.note_leave(now, &id, EPOCH, true, 1 << 40);
    assert_eq!(gossip.member(&id).unwrap().liveness, Liveness::Left { for_good: true });
    assert!(gossip.neighbourhood().all(|member| member.contact.id != id));
    let contact = net.nodes[4].contact;
    net.nodes[0].gossip.note_alive(now, contact);
    assert_eq!(
        net.liveness(0, 4),
        Some(Liveness::Left { for_good: true }),
        "the datagram was sent before the goodbye"
    );
    net.collect(0);
    assert!(net.when(0, |event| matches!(event, GossipEvent::Left { for_good: true, .. })).is_some());
    let other = net.nodes[5].contact.id;
    net.nodes[0].gossip.note_leave(now, &other, EPOCH, false, 1 << 40);
    net.crash(4);
    net.crash(5);
    assert!(net.nodes[0].gossip.neighbourhood().any(|member| member.contact.id == other));
    net.run_secs(1000);
    assert_eq!(net.liveness(0, 4), Some(Liveness::Left { for_good: true }));
    assert_eq!(net.liveness(0, 5), Some(Liveness::Evicted));
}

#[test]
fn a_member_that_another_machine_could_not_reach_is_probed_at_once() {
    let mut net = Net::settled(10, &config());
    net.run_secs(3);
    net.crash(6);
    let (now, id) = (net.now, net.nodes[6].contact.id);
    net.nodes[2].gossip.note_failed(now, &id);
    net.collect(2);
    net.run_secs(8);
    assert_eq!(net.liveness(2, 6), Some(Liveness::Suspect));
}

#[test]
fn a_member_that_moves_is_followed_when_its_old_address_is_silent() {
    let mut net = Net::settled(10, &config());
    let new = SocketAddr::from(([10, 9, 9, 9], 3583));
    net.move_node(3, new);
    net.run_secs(60);
    for node in (0..10).filter(|&node| node != 3) {
        let member = net.nodes[node].gossip.member(&net.nodes[3].contact.id).unwrap();
        assert_eq!(member.liveness, Liveness::Live, "node {node}");
        assert_eq!(member.contact.addr, new, "node {node}");
    }
    assert!(net.events(|event| matches!(event, GossipEvent::Moved { .. })) >= 9);
}

fn rounds_to_spread(count: usize, loss_percent: u64) -> f64 {
    let mut net = Net::settled(count, &config());
    net.air.loss_percent = loss_percent;
    // All nodes have just started, and each start is news: in a large network it spreads for minutes.
    net.run_secs(60 + count as u64);
    let now = net.now;
    let addrs = [Some(address(0)), None];
    net.nodes[0].gossip.set_own(now, OwnState { addrs, version: [9; 4], ..OwnState::default() });
    let sequence = net.nodes[0].gossip.sequence();
    for second in 1..300 {
        net.run_secs(1);
        let know = (1..count).filter(|&node| net.knows(node, 0, sequence)).count();
        if know * 1000 >= (count - 1) * 999 {
            return second as f64 / 5.0;
        }
    }
    panic!("the state does not spread");
}

#[test]
fn a_new_state_reaches_nearly_all_nodes_in_logarithmic_time() {
    for (count, loss) in [(80, 0), (80, 10)] {
        let rounds = rounds_to_spread(count, loss);
        let bound = (1.5 * (count as f64).log2()).ceil();
        assert!(rounds <= bound, "{rounds} rounds, at most {bound}; {count} nodes, {loss} % loss");
    }
}

#[test]
fn an_idle_node_sends_little_and_wakes_up_rarely() {
    let mut net = Net::settled(100, &config());
    net.nodes.iter_mut().for_each(|node| (node.sent, node.sent_bytes, node.wakeups) = (0, 0, 0));
    net.run_secs(300);
    let sent = net.nodes.iter().map(|node| node.sent).sum::<u64>() as f64 / 30_000.0;
    let bytes = net.nodes.iter().map(|node| node.sent_bytes).sum::<u64>() as f64 / 30_000.0;
    let wakeups = net.nodes.iter().map(|node| node.wakeups).sum::<u64>() as f64 / 30_000.0;
    println!("{sent} datagrams, {bytes} bytes, {wakeups} wake-ups a second and node");
    assert!(sent <= 4.0 && wakeups <= 1.0 && bytes <= 4096.0);
}

#[test]
fn a_smaller_configuration_runs_the_whole_cycle_faster() {
    let config = GossipConfig {
        interval: Duration::from_millis(250),
        silent_after: Duration::from_millis(750),
        unresponsive_after: Duration::from_millis(2250),
        evicted_after: Duration::from_secs(30),
        tell_interval: Duration::from_secs(15),
        ..GossipConfig::default()
    };
    assert_eq!(config.validate(), Ok(()));
    let mut net = Net::settled(12, &config);
    net.run_secs(60);
    assert_eq!(net.events(blames), 0);
    net.crash(5);
    net.run_secs(8);
    assert_eq!(net.liveness(0, 5), Some(Liveness::Unresponsive));
    net.run_secs(30);
    assert_eq!(net.liveness(0, 5), Some(Liveness::Evicted));
    net.nodes[5].up = true;
    net.run_secs(10);
    assert_eq!(net.liveness(0, 5), Some(Liveness::Live));
}

#[test]
fn a_crash_is_detected_even_if_every_round_finds_a_probe_under_way() {
    let config = GossipConfig {
        interval: Duration::from_millis(500),
        silent_after: Duration::from_millis(1500),
        unresponsive_after: Duration::from_secs(4),
        evicted_after: Duration::from_secs(12),
        ..GossipConfig::default()
    };
    assert_eq!(config.validate(), Ok(()));
    let mut net = Net::settled(8, &config);
    net.run_secs(10);
    net.crash(5);
    net.run_secs(8);
    assert!((0..8).filter(|&n| n != 5).all(|n| net.liveness(n, 5) == Some(Liveness::Unresponsive)));
    net.run_secs(8);
    assert!((0..8).filter(|&n| n != 5).all(|n| net.liveness(n, 5) == Some(Liveness::Evicted)));
}

#[test]
fn local_health_recovers_when_others_answer() {
    let mut net = Net::settled(8, &config());
    (0..20).for_each(|_| net.nodes[3].gossip.health.worse());
    net.run_secs(60);
    assert_eq!(net.nodes[3].gossip.statistics().local_health, 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = Net::settled(20, &config());
        net.air.loss_percent = 10;
        net.crash(3);
        net.run_secs(60);
        let events: Vec<_> = net.nodes.iter().map(|node| node.events.clone()).collect();
        (events, net.nodes.iter().map(|node| node.sent_bytes).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

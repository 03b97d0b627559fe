//! Joining the network, leaving it, and what an idle node does.

use super::*;

#[test]
fn nodes_that_join_at_the_same_moment_find_each_other() {
    let mut net = Net::joined(1);
    for _ in 0..9 {
        net.start(DhtConfig { bootstrap: vec![address(0)], ..DhtConfig::default() });
    }
    net.run(Duration::from_secs(30));
    for node in &net.nodes {
        assert_eq!(node.dht.statistics().contacts, 9);
    }
}

#[test]
fn a_leaf_finds_and_publishes_but_is_in_no_table() {
    let mut net = Net::joined(10);
    let leaf =
        net.start(DhtConfig { leaf: true, bootstrap: vec![address(0), address(1)], ..DhtConfig::default() });
    net.run(Duration::from_secs(30));
    let target = net.nodes[leaf].contact.id.key();
    assert_eq!(net.find(leaf, target, Want::Nodes).0, net.truth(leaf, &target, K));
    assert_eq!(net.publish(leaf, "name", b"value", 3600).1, 8);
    let file = net.key();
    assert_eq!(net.provide(leaf, file, false), 8);
    net.run(Duration::from_secs(3600));
    assert_eq!(net.providers(3, file), [(net.nodes[leaf].contact, false)]);
    for node in 0..10 {
        let id = net.nodes[leaf].contact.id;
        assert!(net.nodes[node].peers(net.now).iter().all(|peer| peer.contact.id != id));
    }
    let statistics = net.nodes[leaf].dht.statistics();
    assert_eq!(statistics.records, 0);
    assert_eq!(statistics.providers, 0);
}

#[test]
fn a_node_that_leaves_is_forgotten_at_once() {
    let mut net = Net::joined(10);
    let target = net.key();
    net.find(0, target, Want::Nodes);
    assert_eq!(net.nodes[0].dht.region(net.now, &target, 20).unwrap().len(), 9);
    let Node { dht, outbox, .. } = &mut net.nodes[4];
    dht.leave(net.now, true, 1, outbox);
    net.collect(4);
    net.nodes[4].up = false;
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[0].dht.statistics().contacts, 8);
    assert_eq!(net.nodes[0].dht.region(net.now, &target, 20).unwrap(), net.truth(0, &target, 20));
}

#[test]
fn nodes_learn_their_own_address_from_others() {
    let net = Net::joined(5);
    for node in &net.nodes {
        assert_eq!(node.dht.own_addr(), Some(node.contact.addr));
    }
}

#[test]
fn an_unreachable_bootstrap_node_is_retried_with_growing_pauses() {
    let mut net = Net::empty();
    net.start(DhtConfig { bootstrap: vec![address(9)], ..DhtConfig::default() });
    net.run(Duration::from_secs(3600));
    let pauses: Vec<_> = (net.nodes[0].events.iter())
        .map(|event| match event {
            DhtEvent::BootstrapFailed { retry_in, round } => {
                assert_eq!(*round, BootstrapRound { addresses: 1, contacts: 0, out_of_reach: 0 });
                retry_in.as_secs_f64()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(pauses[0] < 1.5 && (55..75).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 75.0));
    while net.nodes.len() < 10 {
        net.start(DhtConfig::default());
    }
    net.run(Duration::from_secs(80));
    assert!(net.nodes[0].events.contains(&DhtEvent::Joined { contacts: 1 }));
}

#[test]
fn a_bootstrap_node_that_lost_its_state_joins_its_old_network() {
    let mut net = Net::joined(6);
    net.nodes[0].up = false;
    net.run(Duration::from_secs(3 * 3600));
    assert!(net.nodes[3].dht.statistics().contacts == 4);
    net.nodes[0].dht = Dht::new(DhtConfig::default(), net.nodes[0].contact.id, [3; 32], net.now);
    net.nodes[0].up = true;
    net.run(Duration::from_secs(3600));
    assert!(net.nodes[0].dht.statistics().contacts == 5);
}

#[test]
fn an_idle_node_wakes_up_rarely_and_sends_little() {
    let mut net = Net::joined(30);
    net.run(Duration::from_secs(600));
    let (wakeups, sent) = (net.wakeups, net.air.sent);
    net.run(Duration::from_secs(3600));
    assert!((net.wakeups - wakeups) / 30 < 900, "{} wake-ups an hour", (net.wakeups - wakeups) / 30);
    assert!((net.air.sent - sent) / 30 < 1800, "{} datagrams an hour", (net.air.sent - sent) / 30);
}

#[test]
fn deadlines_that_fired_are_disarmed() {
    let mut net = Net::joined(8);
    let file = net.key();
    net.provide(3, file, false);
    net.publish(3, "name", b"value", 3600);
    for _ in 0..500 {
        let Node { dht, outbox, .. } = &mut net.nodes[3];
        let Some(at) = dht.next_deadline() else { break };
        net.now = net.now.max(at);
        dht.handle_timeout(net.now, outbox);
        while outbox.poll().is_some() {}
        assert!(dht.next_deadline().is_none_or(|next| next > net.now || dht.statistics().lookups > 0));
    }
}

#[test]
fn a_node_that_moved_is_found_at_its_new_address() {
    let mut net = Net::joined(6);
    net.nodes[5].contact.addr = address(200);
    let target = net.key();
    net.find(5, target, Want::Nodes);
    net.run(Duration::from_secs(3600));
    let (moved, id) = (net.nodes[5].contact, net.nodes[5].contact.id);
    let known = net.nodes[0].peers(net.now).into_iter().find(|peer| peer.contact.id == id);
    assert_eq!(known.map(|peer| peer.contact), Some(moved));
    assert_eq!(net.nodes[5].dht.own_addr(), Some(moved.addr));
}

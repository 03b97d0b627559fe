//! Lookups of nodes.

use super::*;

#[test]
fn a_lookup_of_a_node_alone_ends_at_once() {
    let mut net = Net::joined(1);
    let target = net.key();
    assert_eq!(net.find(0, target, Want::Value), (vec![], None, 0));
    assert_eq!(net.publish(0, "name", b"value", 3600).1, 1);
    assert!(net.nodes[0].dht.statistics().lookups == 0);
}

#[test]
fn lookups_find_the_closest_in_networks_of_every_size() {
    for count in [2, 8, 50] {
        let mut net = Net::joined(count);
        for node in 0..count.min(8) {
            assert!(
                net.nodes[node].events.iter().any(|event| matches!(event, DhtEvent::Joined { .. })),
                "node {node} of {count} has not joined"
            );
            let target = net.key();
            let (closest, _, asked) = net.find(node, target, Want::Nodes);
            assert_eq!(closest, net.truth(node, &target, K), "node {node} of {count}");
            assert!(asked as usize <= 2 * K && asked as usize >= closest.len());
        }
    }
}

#[test]
fn lookups_survive_loss_and_dead_nodes_are_replaced() {
    let mut net = Net::joined(40);
    net.air.loss_percent = 5;
    for dead in [3, 7, 11, 15, 19, 23] {
        net.nodes[dead].up = false;
    }
    for node in [0, 1, 2] {
        let target = net.key();
        let (closest, ..) = net.find(node, target, Want::Nodes);
        let truth = net.truth(node, &target, K);
        let found = truth.iter().filter(|contact| closest.contains(contact)).count();
        assert!(found >= K - 2, "{found}");
    }
    net.air.loss_percent = 0;
    net.run(Duration::from_secs(2 * 3600));
    for node in [0, 1, 2] {
        let peers = net.nodes[node].peers(net.now);
        for dead in [3, 7, 11, 15, 19, 23] {
            let dead = net.nodes[dead].contact.id;
            assert!(peers.iter().all(|peer| peer.contact.id != dead), "node {node} keeps a dead contact");
        }
        assert!(peers.len() >= 30);
    }
}

#[test]
fn the_lookup_cache_agrees_with_lookups() {
    let mut net = Net::joined(60);
    let mut answered = 0;
    for _ in 0..20 {
        let target = net.key();
        net.find(0, target, Want::Nodes);
    }
    for _ in 0..100 {
        let key = net.key();
        if let Some(region) = net.nodes[0].dht.region(net.now, &key, 3) {
            assert_eq!(region, net.truth(0, &key, 3));
            answered += 1;
        }
    }
    assert!(answered > 30, "{answered}");
}

//! Records: values and announcements, published and found.

use super::*;

#[test]
fn the_value_with_the_higher_sequence_wins_at_every_node() {
    let mut net = Net::joined(30);
    let key = record_key(&net.nodes[4].contact.public, "name");
    let (first, copies) = net.publish(4, "name", b"one", 3600);
    assert_eq!(copies, 8);
    let (second, copies) = net.publish(4, "name", b"two", 3600);
    assert!(second > first);
    assert_eq!(copies, 8);
    for node in [0, 9, 20] {
        let record = net.find(node, key, Want::Value).1.unwrap();
        assert_eq!(Record::parse(&record).unwrap().value(), b"two");
        assert_eq!(net.nodes[node].dht.remembered_value(net.now, &key), Some(&record[..]));
    }
}

#[test]
fn a_lookup_of_a_value_asks_fewer_nodes_than_a_publication_and_finds_what_it_stored() {
    let mut net = Net::joined(50);
    let key = record_key(&net.nodes[4].contact.public, "name");
    for round in 0..4 {
        net.publish(4, "name", &[round], 3600);
        for node in [0, 9, 20, 33, 49] {
            let (_, record, asked) = net.find(node, key, Want::Value);
            assert_eq!(Record::parse(&record.unwrap()).unwrap().value(), [round], "node {node}");
            assert!((asked as usize) < K, "node {node} asked {asked}");
        }
    }
}

#[test]
fn copies_that_fell_behind_do_not_hide_a_newer_value() {
    let mut net = Net::joined(30);
    let key = record_key(&net.nodes[4].contact.public, "name");
    net.publish(4, "name", b"one", 3600);
    let keepers: Vec<usize> = net.keepers(&key);
    assert_eq!(keepers.len(), 8);
    let behind = &keepers[..3];
    behind.iter().for_each(|&node| net.nodes[node].up = false);
    net.publish(4, "name", b"two", 3600);
    behind.iter().for_each(|&node| net.nodes[node].up = true);
    for node in (0..30).filter(|node| !keepers.contains(node)) {
        let record = net.find(node, key, Want::Value).1.unwrap();
        assert_eq!(Record::parse(&record).unwrap().value(), b"two", "node {node}");
    }
}

#[test]
fn a_publisher_that_lost_its_state_continues_the_sequence() {
    let mut net = Net::joined(12);
    let first = (0..5).map(|round| net.publish(4, "name", &[round], 3600).0).max().unwrap();
    let config = DhtConfig { bootstrap: vec![address(0)], ..DhtConfig::default() };
    let fresh = Dht::new(config, net.nodes[4].contact.id, [1; 32], net.now);
    net.nodes[4].dht = fresh;
    net.run(Duration::from_secs(10));
    assert!(net.publish(4, "name", b"again", 3600).0 > first);
}

#[test]
fn records_live_while_their_publisher_does_and_then_expire() {
    let mut net = Net::joined(12);
    let key = record_key(&net.nodes[4].contact.public, "name");
    net.publish(4, "name", b"one", 2 * 3600);
    net.run(Duration::from_secs(5 * 3600));
    assert!(net.find(1, key, Want::Value).1.is_some());
    net.nodes[4].up = false;
    net.run(Duration::from_secs(2 * 3600 + 60));
    assert_eq!(net.find(2, key, Want::Value).1, None);
    assert!((0..12).filter(|&node| node != 4).all(|node| net.nodes[node].dht.statistics().records == 0));
}

#[test]
fn own_records_are_restored_after_a_restart_and_published_again() {
    let mut net = Net::joined(10);
    net.publish(4, "name", b"one", 24 * 3600);
    let kept: Vec<u8> = net.nodes[4].dht.own_records().next().unwrap().to_vec();
    let remembered = net.nodes[4].dht.contacts_to_remember(net.nodes[4].outbox.peers());
    assert_eq!(remembered.len(), 9);
    let config = DhtConfig { remembered, ..DhtConfig::default() };
    let mut fresh = Dht::new(config, net.nodes[4].contact.id, [1; 32], net.now);
    assert!(fresh.restore_record(net.now, &kept, &net.network));
    assert!(!fresh.restore_record(net.now, &kept[1..], &net.network));
    net.nodes[4].dht = fresh;
    for node in &mut net.nodes {
        node.dht.values = values::Values::new(node.contact.id, 16);
    }
    net.run(Duration::from_secs(90));
    let holders = net.nodes.iter().filter(|node| node.dht.statistics().records == 1).count();
    assert_eq!(holders, 8);
}

#[test]
fn providers_are_found_until_they_withdraw() {
    let mut net = Net::joined(40);
    let file = net.key();
    assert_eq!(net.provide(5, file, false), 8);
    assert_eq!(net.provide(6, file, true), 8);
    let (five, six) = (net.nodes[5].contact, net.nodes[6].contact);
    for node in [0, 17, 33] {
        let mut expected = vec![(five, false), (six, true)];
        expected.sort_by_key(|(contact, _)| contact.id);
        assert_eq!(net.providers(node, file), expected);
    }
    assert_eq!(net.providers(5, file), [(six, true)], "no node is told of itself");
    let Node { dht, outbox, .. } = &mut net.nodes[5];
    dht.unprovide(net.now, &file, outbox);
    net.collect(5);
    net.run(Duration::from_secs(1));
    assert_eq!(net.providers(0, file), [(six, true)]);
    assert_eq!(net.nodes[5].dht.statistics().announcements, 0);
    net.provide(6, file, false);
    assert_eq!(net.providers(0, file), [(six, false)]);
}

#[test]
fn announcements_outlive_the_nodes_that_kept_them() {
    let mut net = Net::joined(40);
    let file = net.key();
    net.provide(5, file, false);
    for holder in net.truth(5, &file, 8) {
        net.nodes.iter_mut().find(|node| node.contact == holder).unwrap().up = false;
    }
    net.run(Duration::from_secs(3600));
    let reader = (6..40).find(|&index| net.nodes[index].up).unwrap();
    assert_eq!(net.providers(reader, file).len(), 1);
}

#[test]
fn many_announcements_cost_few_lookups_and_datagrams() {
    let mut net = Net::joined(15);
    net.find(3, Key([1; 32]), Want::Nodes);
    let before = net.air.sent;
    let files: Vec<Key> = (0..60).map(|_| net.key()).collect();
    for file in &files {
        let Node { dht, outbox, .. } = &mut net.nodes[3];
        dht.provide(net.now, *file, false, outbox);
    }
    net.collect(3);
    net.run(Duration::from_secs(5));
    let done = net.nodes[3].events.iter().filter(|e| matches!(e, DhtEvent::Announced { copies: 8, .. }));
    assert_eq!(done.count(), 60);
    // 60 files at 7 or 8 nodes each, one by one, would be over 900 datagrams with their answers.
    assert!(net.air.sent - before < 350, "{}", net.air.sent - before);
}

#[test]
fn a_file_announced_without_contacts_is_announced_to_the_first_ones() {
    let mut net = Net::joined(1);
    let file = net.key();
    assert_eq!(net.provide(0, file, false), 0);
    for _ in 0..3 {
        net.start(DhtConfig { bootstrap: vec![address(0)], ..DhtConfig::default() });
    }
    net.run(Duration::from_secs(60));
    assert_eq!(net.providers(2, file), [(net.nodes[0].contact, false)]);
    let kept: usize = (0..4).map(|node| net.nodes[node].dht.statistics().providers).sum();
    assert_eq!(kept, 3, "the node that serves it needs no record of that");
}

#[test]
fn a_name_that_is_unset_while_it_is_being_published_is_not_published_afterwards() {
    let mut net = Net::joined(20);
    net.publish(5, "kept", b"one", 3600);
    let Node { dht, outbox, contact, .. } = &mut net.nodes[5];
    let ids = [("new", b"value"), ("new", b"other"), ("kept", b"two!!")]
        .map(|(name, value)| dht.publish(net.now, name, value, 3600, outbox).unwrap());
    let unset = dht.unpublish("new", outbox);
    assert_eq!(unset, Some(Unpublished { lifetime: 0, cancelled: ids[..2].to_vec() }));
    assert_eq!(dht.unpublish("new", outbox), None);
    assert_eq!(
        dht.unpublish("kept", outbox),
        Some(Unpublished { lifetime: 3600, cancelled: ids[2..].to_vec() })
    );
    let key = record_key(&contact.public, "new");
    net.collect(5);
    net.run(Duration::from_secs(7200));
    assert_eq!(net.nodes[5].dht.own_records().count(), 0);
    assert!(net.nodes[5].events.iter().all(|event| !matches!(event, DhtEvent::Published { .. })));
    assert_eq!(net.find(0, key, Want::Value).1, None, "no node keeps it");
}

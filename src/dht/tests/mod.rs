//! Whole networks of machines in memory: datagrams go through a queue, time is a number.

use super::*;
use crate::identity::Identity;
use crate::peers::table::Received;
use crate::peers::testing::{self, Air, Flight};
use crate::wire::datagram::{Envelope, Epoch, Unverified, write};
use crate::wire::message::{Announcement, NotStored, PADDING_BYTES};
use crate::wire::network::Network;
use crate::wire::provider::ProviderRecord;
use crate::wire::record::{Record, record_key};

const DATAGRAM: usize = crate::wire::datagram::DATAGRAM_BYTES_MAX;

struct Node {
    dht: Dht,
    outbox: Outbox,
    contact: Contact,
    up: bool,
    events: Vec<DhtEvent>,
}

impl Node {
    fn peers(&self, now: Instant) -> Vec<PeerInfo> {
        self.dht.peers(now, self.outbox.peers())
    }
}

/// A network in which node `i` listens at 10.0.0.1 + `i`.
struct Net {
    network: Network,
    now: Instant,
    rng: Rng,
    nodes: Vec<Node>,
    air: Air,
    wakeups: u64,
}

fn identity(index: usize) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&index.to_le_bytes());
    Identity::from_secret(&secret)
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 3583))
}

impl Net {
    fn empty() -> Self {
        let (now, rng) = (Instant::from_secs(100), Rng::new([9; 32]));
        let network = Network::new("test");
        let air = Air::new(Duration::from_millis(40));
        Net { network, now, rng, nodes: Vec::new(), air, wakeups: 0 }
    }

    /// `count` nodes that have joined through the first.
    fn joined(count: usize) -> Self {
        let mut net = Net::empty();
        for index in 0..count {
            let bootstrap = if index == 0 { vec![] } else { vec![address(0)] };
            net.start(DhtConfig { bootstrap, ..DhtConfig::default() });
            net.run(Duration::from_millis(300));
        }
        net.run(Duration::from_secs(60));
        net
    }

    fn start(&mut self, config: DhtConfig) -> usize {
        let index = self.nodes.len();
        let identity = identity(index);
        let contact = Contact::new(identity.public(), address(index));
        let outbox = testing::outbox(&self.network, identity, config.leaf, self.now.as_nanos());
        let dht = Dht::new(config, contact.id, self.rng.bytes(), self.now);
        self.nodes.push(Node { dht, outbox, contact, up: true, events: Vec::new() });
        index
    }

    fn collect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.events.extend(core::iter::from_fn(|| node.dht.poll_event()));
        self.air.send(self.now, &mut self.rng, node.contact.addr, &mut node.outbox);
    }

    fn step(&mut self, until: Instant) -> bool {
        let timer = (0..self.nodes.len())
            .filter(|&index| self.nodes[index].up)
            .filter_map(|index| Some((self.nodes[index].dht.next_deadline()?, index)))
            .min();
        match (timer, self.air.next()) {
            (timer, Some(at)) if at <= until && timer.is_none_or(|(due, _)| at <= due) => {
                let Flight { to, from, bytes } = self.air.pop().unwrap();
                self.now = self.now.max(at);
                self.deliver(to, from, &bytes);
            }
            (Some((due, index)), _) if due <= until => {
                self.now = self.now.max(due);
                self.wakeups += 1;
                let node = &mut self.nodes[index];
                node.dht.handle_timeout(self.now, &mut node.outbox);
                self.collect(index);
            }
            _ => {
                self.now = until;
                return false;
            }
        }
        true
    }

    fn deliver(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let node = self.nodes.iter_mut().enumerate().find(|(_, node)| node.contact.addr == to && node.up);
        let Some((index, node)) = node else { return };
        let datagram = Unverified::parse(bytes, &self.network).unwrap();
        if datagram.challenged().is_some() {
            let (transaction, token) = (datagram.transaction(), datagram.token());
            node.dht.handle_challenge(self.now, from, transaction, token, &mut node.outbox);
        } else if node.dht.is_expected(datagram.kind(), datagram.transaction(), from) {
            if let Some(received) = testing::receive(&mut node.outbox, self.now, from, datagram) {
                let Received { datagram, standing } = received;
                node.dht.handle_datagram(self.now, from, &datagram, standing, &mut node.outbox);
            }
        }
        self.collect(index);
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    /// Runs until `node` has an event that `pick` takes, for a minute at most.
    fn wait<T>(&mut self, node: usize, pick: impl Fn(&DhtEvent) -> Option<T>) -> T {
        let until = self.now + Duration::from_secs(60);
        loop {
            if let Some(index) = self.nodes[node].events.iter().position(|event| pick(event).is_some()) {
                let event = self.nodes[node].events.remove(index);
                return pick(&event).unwrap();
            }
            assert!(self.step(until), "the event did not come: {:?}", self.nodes[node].events);
        }
    }

    fn find(&mut self, node: usize, target: Key, want: Want) -> (Vec<Contact>, Option<Vec<u8>>, u32) {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        let id = dht.find(self.now, target, want, outbox).unwrap();
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Finished { lookup, closest, record, asked, .. } if *lookup == id => {
                Some((closest.clone(), record.clone(), *asked))
            }
            _ => None,
        })
    }

    fn provide(&mut self, node: usize, file: Key, partial: bool) -> u32 {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        dht.provide(self.now, file, partial, outbox);
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Announced { file: announced, copies } if *announced == file => Some(*copies),
            _ => None,
        })
    }

    fn publish(&mut self, node: usize, name: &str, value: &[u8], lifetime: u32) -> (u64, u32) {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        let id = dht.publish(self.now, name, value, lifetime, outbox).unwrap();
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Published { publish, sequence, copies, .. } if *publish == id => {
                Some((*sequence, *copies))
            }
            _ => None,
        })
    }

    /// The providers of `file` that a lookup at `node` finds.
    fn providers(&mut self, node: usize, file: Key) -> Vec<(Contact, bool)> {
        self.nodes[node].events.clear();
        self.find(node, file, Want::Providers);
        let mut found: Vec<_> = (self.nodes[node].events.drain(..))
            .flat_map(|event| match event {
                DhtEvent::Providers { contacts, .. } => contacts,
                _ => Vec::new(),
            })
            .collect();
        found.sort_by_key(|(contact, _)| contact.id);
        found
    }

    /// The result of a perfect lookup at `node`.
    fn truth(&self, node: usize, target: &Key, n: usize) -> Vec<Contact> {
        let others = self.nodes.iter().enumerate().filter(|(index, other)| *index != node && other.up);
        closest(others.filter(|(_, o)| !o.dht.config.leaf).map(|(_, other)| &other.contact), target, n)
    }

    fn key(&mut self) -> Key {
        Key(self.rng.bytes())
    }

    /// The nodes that keep the record under `key`, nearest first.
    fn keepers(&self, key: &Key) -> Vec<usize> {
        let keeps = |node: &usize| self.nodes[*node].dht.values.get(self.now, key).is_some();
        let mut keepers: Vec<usize> = (0..self.nodes.len()).filter(keeps).collect();
        keepers.sort_by_key(|&node| self.nodes[node].contact.id.distance(key));
        keepers
    }
}

/// The datagrams that a machine sends in return for one datagram.
fn hand_in(
    dht: &mut Dht,
    outbox: &mut Outbox,
    now: Instant,
    sender: &Identity,
    from: SocketAddr,
    (token, sequence, message): (u64, u64, Message<'_>),
) -> Vec<(u64, Vec<u8>)> {
    let network = outbox.network().clone();
    let mut bytes = [0; DATAGRAM];
    let recipient = Some(dht.own);
    let envelope = Envelope { recipient, leaf: false, epoch: Epoch::new(1), sequence, transaction: 1, token };
    let length = write(&mut bytes, &network, sender, &envelope, &message).unwrap();
    let datagram = Unverified::parse(&bytes[..length], &network).unwrap();
    let Received { datagram, standing } = testing::receive(outbox, now, from, datagram).unwrap();
    dht.handle_datagram(now, from, &datagram, standing, outbox);
    let answer = |sent: &crate::peers::outbox::Datagram| {
        let token = Unverified::parse(sent.bytes(), &network).unwrap().token();
        (token, sent.bytes().to_vec())
    };
    core::iter::from_fn(|| outbox.poll().map(answer)).collect()
}

fn stored(bytes: &[u8], recipient: &Identity) -> (u8, NotStored) {
    let network = Network::new("test");
    let answer = Unverified::parse(bytes, &network).unwrap().verify(&network, &recipient.id()).unwrap();
    match answer.message() {
        Message::Stored { accepted, reason } => (accepted, reason),
        other => panic!("{other:?}"),
    }
}

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
fn an_unvalidated_address_is_sent_at_most_three_times_what_it_sent() {
    let mut net = Net::joined(40);
    let now = net.now;
    let file = net.key();
    net.provide(1, file, false);
    net.provide(2, file, false);
    let holder = (0..40).find(|&node| net.nodes[node].dht.providers.of(now, &file).count() == 2).unwrap();
    let Node { dht, outbox, .. } = &mut net.nodes[holder];
    let from = SocketAddr::from(([10, 9, 9, 9], 1));
    let mut sequence = 0;
    for padding in [0, 1, 100, PADDING_BYTES] {
        for want in [Want::Nodes, Want::Value, Want::Providers] {
            // Each request comes from a new node, so that the machine pings it.
            sequence += 1;
            let stranger = identity(1000 + sequence as usize);
            let find = Message::Find { target: file, want, padding };
            let sent = hand_in(dht, outbox, now, &stranger, from, (0, sequence, find));
            let bytes: usize = sent.iter().map(|(_, bytes)| bytes.len()).sum();
            let received = 48 + 40 + padding + 96;
            assert!(!sent.is_empty() && bytes <= 3 * received, "{bytes} for {received}");
            // With the token, the full answer.
            let from = SocketAddr::from(([10, 9, 9, 9], 1));
            let sent = hand_in(dht, outbox, now, &stranger, from, (sent[0].0, sequence, find));
            assert!(sent[0].1.len() > 1050, "{}", sent[0].1.len());
        }
    }
}

#[test]
fn a_store_needs_a_valid_token_and_signature() {
    let mut net = Net::joined(3);
    let now = net.now;
    let (stranger, other) = (identity(50), identity(51));
    let network = net.network.clone();
    let Node { dht, outbox, .. } = &mut net.nodes[0];
    let (here, there) = (address(50), address(51));
    let file = Key([1; 32]);
    let announce = |provider: &Identity| {
        let provider = ProviderRecord::new(&network, provider, &file, here, false, 100, 1);
        [Announcement { file, provider }]
    };
    let mut sequence = 0;
    let mut send = |dht: &mut Dht, token: u64, from: SocketAddr, announcements: &[Announcement]| {
        sequence += 1;
        let message = Message::Announce { announcements };
        let sent = hand_in(dht, outbox, now, &stranger, from, (token, sequence, message));
        (sent[0].0, stored(&sent[0].1, &stranger))
    };
    let own = announce(&stranger);
    let (token, answer) = send(dht, 0, here, &own);
    assert_eq!(answer, (0, NotStored::Token));
    assert_ne!(token, 0);
    assert_eq!(send(dht, token, there, &own).1, (0, NotStored::Token));
    assert_eq!(send(dht, token, here, &announce(&other)).1, (0, NotStored::Signature));
    let wrong_file = [Announcement { file: Key([2; 32]), provider: own[0].provider }];
    assert_eq!(send(dht, token, here, &wrong_file).1, (0, NotStored::Signature));
    assert_eq!(dht.statistics().providers, 0);
    assert_eq!(send(dht, token, here, &own).1, (1, NotStored::Nothing));
    assert_eq!(dht.statistics().providers, 1);
}

#[test]
fn a_refused_token_is_replaced_by_the_one_in_the_refusal() {
    let mut net = Net::joined(4);
    let file = net.key();
    net.find(1, file, Want::Nodes);
    // The next run of the node has no tokens of the others.
    net.nodes[1].outbox = testing::outbox(&net.network, identity(1), false, 77);
    assert_eq!(net.provide(1, file, false), 4);
    let refused: u64 = (net.nodes.iter()).map(|node| node.dht.counters.token_refused).sum();
    assert_eq!(refused, 3);
}

#[test]
fn nodes_that_know_each_other_need_no_signatures() {
    let mut net = Net::joined(12);
    let keyed = |net: &Net| {
        let ids: Vec<NodeId> = net.nodes.iter().map(|node| node.contact.id).collect();
        let known = |node: &Node| ids.iter().filter(|id| node.outbox.peers().is_keyed(id)).count();
        net.nodes.iter().map(known).sum::<usize>()
    };
    assert_eq!(keyed(&net), 12 * 11, "every node has a key for every other");
    let verified = |net: &Net| -> u64 {
        net.nodes.iter().map(|node| node.outbox.peers().counters().macs_verified).sum()
    };
    let before = (verified(&net), net.air.sent);
    let target = net.key();
    net.find(0, target, Want::Nodes);
    assert_eq!(verified(&net) - before.0, net.air.sent - before.1, "requests and answers alike");
}

#[test]
fn a_node_that_lost_its_peers_challenges_them_and_loses_no_request() {
    let mut net = Net::joined(4);
    let file = net.key();
    net.find(1, file, Want::Nodes);
    for index in [0, 2, 3] {
        net.nodes[index].outbox = testing::outbox(&net.network, identity(index), false, 100 + index as u64);
    }
    let (asked, start) = (net.nodes[1].dht.counters.repeated, net.now);
    assert_eq!(net.provide(1, file, false), 4);
    let challenges = |node: &Node| node.outbox.peers().counters().challenges;
    assert_eq!(net.nodes.iter().map(challenges).sum::<u64>(), 3);
    assert_eq!(net.nodes[1].dht.counters.repeated, asked, "no request timed out");
    assert!(net.now.since(start) < Duration::from_secs(1));
}

#[test]
fn answers_without_a_request_change_nothing() {
    let mut net = Net::joined(3);
    let now = net.now;
    let Node { dht, outbox, .. } = &mut net.nodes[0];
    let before = dht.statistics().contacts;
    let pong = Message::Pong { observed: address(77) };
    assert!(!dht.is_expected(Kind::Pong, 1, address(60)));
    assert!(hand_in(dht, outbox, now, &identity(60), address(60), (5, 1, pong)).is_empty());
    assert_eq!(dht.statistics().contacts, before);
    assert_eq!(dht.own_addr(), Some(address(0)));
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

#[test]
fn memory_stays_bounded_under_a_flood_of_strangers() {
    let mut net = Net::joined(2);
    let now = net.now;
    let Node { dht, outbox, .. } = &mut net.nodes[0];
    for index in 0..300 {
        let from = SocketAddr::from(([9, 9, (index / 200) as u8, (index % 200) as u8], 1));
        let ping = Message::Ping { padding: 0 };
        hand_in(dht, outbox, now, &identity(2000 + index), from, (0, 1, ping));
    }
    assert!(dht.statistics().transactions <= 17);
    assert_eq!(dht.statistics().contacts, 1);
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

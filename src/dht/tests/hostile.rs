//! One machine under attack, and how requests and answers are authenticated.

use super::*;

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

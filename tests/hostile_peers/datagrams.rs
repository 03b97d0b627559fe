//! Hostile datagrams: floods, replays, forged records and forged goodbyes.

use crate::puppets::*;
use crate::support::{Node, wait_for};
use elver::id::Key;
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write};
use elver::wire::message::{Announcement, Message, NotStored, Want};
use elver::wire::network::Network;
use elver::wire::provider::ProviderRecord;
use elver::wire::record::sign_record;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_flood_of_forged_signatures_leaves_known_peers_their_answers() {
    let node = Node::alone(&[]);
    let mut known = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    known.ask(&Message::Ping { padding: 0 }).expect("a pong");
    flood(&node, &mut known, false);
}

#[test]
fn a_flood_from_one_address_that_has_proven_itself_leaves_others_their_answers() {
    let node = Node::alone(&[]);
    let mut known = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    known.ask(&Message::Ping { padding: 0 }).expect("a pong");
    flood(&node, &mut known, true);
}

/// Floods the node with forged signatures, with or without a valid token, while a known peer pings the node.
fn flood(node: &Node, known: &mut Datagrams, with_token: bool) {
    let mut flooder = Datagrams::new([127, 0, 3, 1], Arc::new(new_identity()), node);
    if with_token {
        flooder.ask(&Message::Ping { padding: 0 }).expect("a pong");
    }
    let mut forged = flooder.compose(&Message::Ping { padding: 0 });
    *forged.last_mut().unwrap() ^= 1;
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let flooding = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            for _ in 0..20 {
                let _ = flooder.socket.send_to(&forged, flooder.to);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    wait_for_counter(node, "datagrams_over_budget", 1);
    known.socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let answered = (0..20).filter(|_| known.ask(&Message::Ping { padding: 0 }).is_some()).count();
    over.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    assert!(answered >= 15, "{answered} of 20 answered: {}", node.status_json());
}

#[test]
fn an_address_that_has_proven_nothing_gets_at_most_three_times_what_came_from_it() {
    let node = Node::alone(&[]);
    // Other nodes to name in answers, so that the answers are as long as possible.
    let _others: Vec<Node> = (0..3).map(|_| Node::join(&node, &[])).collect();
    for message in [
        Message::Ping { padding: 0 },
        Message::Find { target: Key([1; 32]), want: Want::Nodes, padding: 0 },
        Message::Find { target: Key([1; 32]), want: Want::Providers, padding: 240 },
        Message::Leave { for_good: true, sequence: 1 },
    ] {
        let mut victim = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
        let sent = {
            victim.sequence += 1;
            let envelope = Envelope {
                recipient: Some(victim.node),
                leaf: false,
                epoch: Epoch::new(1),
                sequence: victim.sequence,
                transaction: 1,
                token: 0,
            };
            let mut out = [0; DATAGRAM_BYTES_MAX];
            let length = write(&mut out, &network(), &victim.identity, &envelope, &message).unwrap();
            victim.socket.send_to(&out[..length], victim.to).unwrap();
            length
        };
        // Stop after a silence longer than any interval at which a request is repeated.
        let mut received = 0;
        victim.socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        while let Ok(length) = victim.socket.recv(&mut [0; 2048]) {
            received += length;
        }
        assert!(received <= 3 * sent, "{message:?}: {sent} bytes brought {received}");
    }
}

#[test]
fn replays_and_foreign_tokens_and_records_have_no_effect() {
    let node = Node::alone(&[]);
    let mut peer = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    let file = Key([5; 32]);
    peer.announce(file, "127.0.0.1:9".parse().unwrap());

    // The same datagram again, from the same address and from another.
    let ping = peer.compose(&Message::Ping { padding: 0 });
    peer.socket.send_to(&ping, peer.to).unwrap();
    peer.answer().expect("a pong");
    let replayed = counter(&node, "datagrams_replayed");
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.socket.send_to(&ping, peer.to).unwrap();
    other.send_to(&ping, peer.to).unwrap();
    wait_for_counter(&node, "datagrams_replayed", replayed + 2);

    // A token that the node issued to another address.
    let mut thief = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    thief.token = peer.token;
    let own = ProviderRecord::new(&network(), &thief.identity, &file, thief.to, false, 60, 1);
    let answer = thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: own }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Token }));

    // A provider record of another provider, and one whose signature is for another file.
    let theirs = ProviderRecord::new(&network(), &peer.identity, &file, thief.to, false, 60, 9);
    let answer = thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: theirs }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));
    let elsewhere = ProviderRecord::new(&network(), &thief.identity, &Key([6; 32]), thief.to, false, 60, 9);
    let answer =
        thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: elsewhere }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));

    // A record under another publisher's key: that publisher did not sign it.
    let mut forged = sign_record(&network(), &thief.identity, "name", b"value", 60, 99).unwrap();
    forged[..32].copy_from_slice(&peer.identity.public().0);
    let record = elver::wire::record::Record::parse(&forged).unwrap();
    let answer = thief.ask(&Message::StoreRecord { record });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));
    assert_eq!(node.status_json()["records"], 0);
    assert_eq!(node.status_json()["providers"], 1);
}

#[test]
fn ten_thousand_records_and_providers_stay_within_bounds() {
    let node = Node::alone(&["--records", "1024", "--providers", "4096"]);
    let mut peer = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    peer.ask(&Message::Ping { padding: 0 }).expect("a pong");
    peer.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let before = node.peak_bytes();
    let identity = Arc::clone(&peer.identity);
    let value = vec![7; 896];
    for number in 0..2000u64 {
        let name = format!("{number:064}");
        let bytes = sign_record(&network(), &identity, &name, &value, 3600, 1).unwrap();
        let record = elver::wire::record::Record::parse(&bytes).unwrap();
        // The node drops requests over its limit per second. The peer repeats them.
        wait_for("an answer", || peer.ask(&Message::StoreRecord { record }).map(|_| ()));
    }
    for number in 0..1700u64 {
        let announcements: Vec<Announcement> = (0..6)
            .map(|part| {
                let file = Key(*blake3::hash(&(number * 6 + part).to_le_bytes()).as_bytes());
                let address = "127.0.0.1:9".parse().unwrap();
                let provider = ProviderRecord::new(&network(), &identity, &file, address, false, 3600, 1);
                Announcement { file, provider }
            })
            .collect();
        wait_for("an answer", || peer.ask(&Message::Announce { announcements: &announcements }).map(|_| ()));
    }
    let status = node.status_json();
    assert_eq!(status["records"], 1024);
    assert_eq!(status["providers"], 4096);
    let growth = node.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

#[test]
fn a_node_that_names_nodes_that_are_not_there_delays_a_lookup_and_does_not_stop_it() {
    let node = Node::alone(&[]);
    let honest = Node::join(&node, &[]);
    let address = honest.elver(["set", "channel", "stable"]).expect(0).text().trim().to_owned();
    // The liar enters the routing table by shaking hands and answering. Then it names only nodes that do not exist.
    let identity = Arc::new(new_identity());
    let liar = Datagrams::new([127, 0, 0, 1], Arc::clone(&identity), &node);
    let own = liar.socket.local_addr().unwrap();
    let (to, id) = (liar.to, liar.node);
    liar.socket.set_read_timeout(None).unwrap();
    let socket = liar.socket.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut sequence = 1000;
        loop {
            let mut buffer = [0; 2048];
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            let Ok(parsed) = Unverified::parse(&buffer[..length], &network()) else { continue };
            let Ok(request) = parsed.verify(&network(), &identity.id()) else { continue };
            sequence += 1;
            let lies: Vec<WireContact> = (0..17u8)
                .map(|n| {
                    let addr = SocketAddr::from(([127, 0, 0, 1], 9 + u16::from(n)));
                    WireContact::new(&Contact::new(new_identity().public(), addr), 1)
                })
                .collect();
            let answer = match request.message() {
                Message::Ping { .. } => Message::Pong { observed: from },
                Message::Find { .. } => Message::Found { contacts: &lies, providers: &[], record: None },
                _ => continue,
            };
            let envelope = Envelope {
                recipient: Some(request.id()),
                leaf: false,
                epoch: Epoch::new(1),
                sequence,
                transaction: request.transaction(),
                token: 7,
            };
            let mut out = [0; DATAGRAM_BYTES_MAX];
            let length = write(&mut out, &network(), &identity, &envelope, &answer).unwrap();
            let _ = socket.send_to(&out[..length], from);
        }
    });
    let envelope = Envelope {
        recipient: Some(id),
        leaf: false,
        epoch: Epoch::new(1),
        sequence: 1,
        transaction: 1,
        token: 0,
    };
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let find = Message::Find { target: Key([1; 32]), want: Want::Nodes, padding: 240 };
    let length = write(&mut out, &network(), &liar.identity, &envelope, &find).unwrap();
    liar.socket.send_to(&out[..length], to).unwrap();
    node.wait_for_peers(2);
    assert!(own.port() != 0);
    let found = node.elver(["lookup", "--fresh", &address]).expect(0);
    assert_eq!(found.text().trim(), "stable");
}

#[test]
fn a_goodbye_that_is_forged_or_old_removes_nobody() {
    let node = Node::alone(&[]);
    let _other = Node::join(&node, &[]);
    let mut stranger = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &node);
    let mut forged = stranger.compose(&Message::Leave { for_good: true, sequence: 1 });
    let refused = counter(&node, "datagrams_refused_signature");
    *forged.last_mut().unwrap() ^= 1;
    stranger.socket.send_to(&forged, stranger.to).unwrap();
    stranger.send(&Message::Leave { for_good: true, sequence: 1 });
    wait_for_counter(&node, "datagrams_refused_signature", refused + 1);
    assert_eq!(node.status_json()["peers"], 1);
    let elsewhere = Network::new("museum");
    let envelope = Envelope {
        recipient: None,
        leaf: false,
        epoch: Epoch::new(1),
        sequence: 1,
        transaction: 1,
        token: 0,
    };
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let ping = Message::Ping { padding: 0 };
    let length = write(&mut out, &elsewhere, &stranger.identity, &envelope, &ping).unwrap();
    stranger.socket.send_to(&out[..length], stranger.to).unwrap();
    wait_for_counter(&node, "datagrams_refused_network", 1);
}

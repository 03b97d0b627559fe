//! Attacks on a small network by authenticated strangers at one address. Its users publish, find and fetch meanwhile as ever.

use crate::crew::*;
use crate::puppets::*;
use crate::support::{Node, wait_for};
use elver::id::{Key, NodeId, PublicKey};
use elver::manifest::Content;
use elver::wire::frame::{Frame, Offer, Parsed};
use elver::wire::message::{ANNOUNCEMENTS_MAX, Announcement, Message, NotStored, Want};
use elver::wire::provider::ProviderRecord;
use elver::wire::record::{Record, record_key, sign_record};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key that shares its first byte with the node's id: of two keys, a node used to keep the nearer one.
fn key_near(node: &Datagrams, number: u64) -> Key {
    let mut key = Key(*blake3::hash(&number.to_le_bytes()).as_bytes());
    key.0[0] = node.node.0[0];
    key
}

/// Fills the node's tables of records and providers several times over, each time under another identity.
fn flood_tables(stranger: &mut Datagrams, records: u64, providers: u64) {
    stranger.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for number in 0..records {
        stranger.identity = Arc::new(new_identity());
        let identity = stranger.identity.clone();
        let mut names = (0..).map(|part: u64| format!("{number} {part}"));
        let near = |name: &String| record_key(&identity.public(), name).0[0] >> 5 == stranger.node.0[0] >> 5;
        let name = names.find(near).expect("one in eight");
        let bytes = sign_record(&network(), &identity, &name, b"junk", 3600, 1).unwrap();
        let record = Record::parse(&bytes).unwrap();
        is_answered(stranger, &Message::StoreRecord { record });
    }
    for number in 0..providers / ANNOUNCEMENTS_MAX as u64 {
        stranger.identity = Arc::new(new_identity());
        let identity = stranger.identity.clone();
        let announcements: Vec<Announcement> = (0..ANNOUNCEMENTS_MAX as u64)
            .map(|part| {
                let file = key_near(stranger, number * ANNOUNCEMENTS_MAX as u64 + part);
                let own = stranger.socket.local_addr().unwrap();
                let provider = ProviderRecord::new(&network(), &identity, &file, own, false, 3600, 1);
                Announcement { file, provider }
            })
            .collect();
        is_answered(stranger, &Message::Announce { announcements: &announcements });
    }
}

/// Sends a request that needs a token until the node answers.
fn is_answered(stranger: &mut Datagrams, message: &Message<'_>) {
    wait_for("an answer", || {
        stranger.ask(&Message::Ping { padding: 0 })?;
        stranger.ask(message).map(|_| ())
    });
}

/// Whether a node has the value of this address, and the announcement that this node provides a file.
fn has_both(asker: &mut Datagrams, value: &Key, file: &Key, provider: &PublicKey) -> Option<()> {
    let find = |target: &Key, want| Message::Find { target: *target, want, padding: 240 };
    let Some(Message::Found { record: Some(_), .. }) = asker.ask(&find(value, Want::Value)) else {
        return None;
    };
    match asker.ask(&find(file, Want::Providers)) {
        Some(Message::Found { providers, .. }) => {
            providers.iter().any(|record| record.provider() == *provider).then_some(())
        }
        _ => None,
    }
}

#[test]
fn one_address_that_fills_all_tables_erases_no_record_of_another() {
    const RECORDS: u64 = 16;
    const PROVIDERS: u64 = 64;
    let town = Town::new(3, &["--records", "16", "--providers", "64"]);
    let bytes = content(71, 50_000);
    // Without copies, only its origin provides the file.
    let (address, hash) = (town.set(0, "channel", "stable"), town.put(0, &bytes, "0"));
    let publisher = publisher_of(&address);
    let (value, file) = (record_key(&publisher, "channel"), manifest(&bytes).hash());
    let mut askers: Vec<Datagrams> = town.nodes[1..]
        .iter()
        .map(|node| Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), node))
        .collect();
    for asker in &mut askers {
        wait_for("both records", || has_both(asker, &value, &file, &publisher));
    }
    std::thread::scope(|scope| {
        for mut stranger in town.strangers() {
            scope.spawn(move || flood_tables(&mut stranger, 3 * RECORDS, 3 * PROVIDERS));
        }
    });
    for node in &town.nodes {
        let status = node.status_json();
        assert_eq!(status["records"], RECORDS, "the flood fills the table: {status}");
        assert_eq!(status["providers"], PROVIDERS, "the flood fills the table: {status}");
    }
    for asker in &mut askers {
        assert!(has_both(asker, &value, &file, &publisher).is_some());
    }
    town.looks_up(2, &address, "stable");
    town.gets(2, &hash, &bytes);
    town.is_used(1);
}

#[test]
fn twenty_ids_of_one_address_around_two_keys_hide_neither_a_value_nor_a_file() {
    let town = Town::new(5, &[]);
    let publisher = publisher_of(&town.set(0, "another", "value"));
    let bytes = content(72, 50_000);
    let hash = manifest(&bytes).hash();
    sybils(&town, &hash, 20);
    sybils(&town, &record_key(&publisher, "channel"), 20);
    // The nodes take the sybils for nodes.
    wait_for("the sybils in routing tables", || {
        town.nodes.iter().all(|node| node.status().peers >= 20).then_some(())
    });
    let address = town.set(0, "channel", "stable");
    assert_eq!(town.put(0, &bytes, "0"), hash.to_string());
    for node in [1, 4] {
        town.looks_up(node, &address, "stable");
        town.gets(node, &hash.to_string(), &bytes);
    }
}

#[test]
fn a_victim_that_a_stranger_names_gets_three_bytes_for_one_at_the_most() {
    let town = Town::new(6, &[]);
    let victim = UdpSocket::bind(SocketAddr::from(([127, 0, 8, 1], 0))).unwrap();
    let addr = victim.local_addr().unwrap();
    let mut stranger = Datagrams::new(CREW, Arc::new(new_identity()), &town.nodes[0]);
    let mut states = vec![state(&stranger.identity, stranger.socket.local_addr().unwrap())];
    states.extend((1..STATES).map(|_| state(&new_identity(), addr)));
    let gossip = gossip(&mut stranger, &states);
    stranger.socket.send_to(&gossip, stranger.to).unwrap();
    town.is_used(2);
    // A node that believed the stranger would tell others within a round of 5 s, and all of them would ping again and again.
    let (mut received, end) = (0, Instant::now() + Duration::from_secs(7));
    victim.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while Instant::now() < end {
        received += victim.recv(&mut [0; 2048]).unwrap_or(0);
    }
    assert!(received > 0, "the node tries the addresses that were named");
    assert!(received <= 3 * gossip.len(), "{} bytes brought the victim {received}", gossip.len());
}

/// Holds a stream to a node: offers a piece of 1 MiB, and begins to send it if it is accepted.
fn reserve(node: &Node, number: u8) -> Stream {
    let mut stream = Stream::new(socket_from(CREW, node.addr));
    stream.shake_hands(&new_identity(), true).expect("the node shakes hands");
    let invented = offer(Content::Chunk, Key([number; 32]), MIB as u32);
    let offer = Offer { input_offset: MIB as u64, ..invented };
    stream.send(&Frame::Store { request: 1, offer }).unwrap();
    let answer = stream.frame().expect("an answer");
    if let Ok(Parsed::Frame(Frame::Accept { request, have: false }, _)) = Frame::parse(&answer) {
        stream.send(&Frame::StoreData { request, length: MIB as u32 }).unwrap();
        stream.socket.write_all(&[0]).unwrap();
    }
    stream
}

#[test]
fn one_address_that_reserves_quotas_leaves_others_room() {
    let town = Town::new(3, &["--quota", "8MiB"]);
    let mut held = Vec::new();
    for node in &town.nodes {
        held.extend((0..12).map(|number| reserve(node, number)));
        wait_for_counter(node, "refused_over_share", 1);
    }
    let bytes = content(73, 1_500_000);
    let hash = town.put(0, &bytes, "3");
    wait_for("the copies", || {
        let files = town.nodes[0].files();
        files.iter().any(|file| file.hash.to_string() == hash && file.copies >= 3).then_some(())
    });
    town.gets(2, &hash, &bytes);
    town.is_used(3);
    drop(held);
}

#[test]
fn announcements_with_wrong_signatures_inside_leave_others_their_answers() {
    let town = Town::new(3, &[]);
    let mut known = Datagrams::new([127, 0, 0, 1], Arc::new(new_identity()), &town.nodes[0]);
    known.ask(&Message::Ping { padding: 0 }).expect("a pong");
    /// An announcement of the stranger itself, with a record that is signed for a file.
    fn announcement(stranger: &Datagrams, file: Key, signed: Key) -> Announcement {
        let own = stranger.socket.local_addr().unwrap();
        let provider = ProviderRecord::new(&network(), &stranger.identity, &signed, own, false, 60, 1);
        Announcement { file, provider }
    }
    let mut floods = Vec::new();
    for mut stranger in town.strangers() {
        stranger.ask(&Message::Ping { padding: 0 }).expect("a pong");
        // The datagram's own signature is right. That of the first record is for another file: the others cost the node nothing.
        let (file, other) = (Key([99; 32]), Key([0; 32]));
        let mixed = [announcement(&stranger, file, other), announcement(&stranger, file, file)];
        let answer = stranger.ask(&Message::Announce { announcements: &mixed });
        assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));
        floods.push(Flood::begin(move || {
            let wrong = |number| announcement(&stranger, Key([number; 32]), other);
            let announcements: Vec<Announcement> = (1..=ANNOUNCEMENTS_MAX as u8).map(wrong).collect();
            stranger.send(&Message::Announce { announcements: &announcements });
        }));
    }
    wait_for_counter(&town.nodes[0], "datagrams_over_budget", 1);
    known.socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let answered = (0..20).filter(|_| known.ask(&Message::Ping { padding: 0 }).is_some()).count();
    assert!(answered >= 15, "{answered} of 20 answered: {}", town.nodes[0].status_json());
    town.is_used(4);
    drop(floods);
}

#[test]
fn a_flood_of_states_hides_neither_a_node_that_joins_meanwhile_nor_what_it_says_of_itself() {
    let mut town = Town::new(3, &[]);
    let mut floods = Vec::new();
    for mut stranger in town.strangers().into_iter().chain(town.strangers()) {
        stranger.ask(&Message::Ping { padding: 0 }).expect("a pong");
        let invented: Vec<_> = (0..600u32)
            .map(|number| {
                let ip = [127, 1, (number >> 8) as u8, number as u8];
                state(&new_identity(), SocketAddr::from((ip, 9)))
            })
            .collect();
        let mut next = 0;
        floods.push(Flood::begin(move || {
            let own = stranger.socket.local_addr().unwrap();
            let mut states = vec![state(&stranger.identity, own)];
            states.extend((0..STATES - 1).map(|part| invented[(next + part) % invented.len()]));
            next += STATES - 1;
            let gossip = gossip(&mut stranger, &states);
            let _ = stranger.socket.send_to(&gossip, stranger.to);
        }));
    }
    wait_for_counter(&town.nodes[0], "gossip_state_over_budget", 1);
    town.join();
    wait_for("every node to see every other", || {
        let live = |node: &Node| node.status().gossip.map_or(0, |gossip| gossip.live);
        town.nodes.iter().all(|node| live(node) >= 3).then_some(())
    });
    let ids: Vec<NodeId> = town.nodes.iter().map(id_of).collect();
    wait_for("every node to know the state of every other", || {
        let known = |node: &Node| ids.iter().filter(|id| has_state_of(node, id)).count();
        town.nodes.iter().all(|node| known(node) >= 3).then_some(())
    });
    town.is_used(5);
    drop(floods);
}

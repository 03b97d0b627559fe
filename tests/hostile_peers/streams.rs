//! Hostile peers over streams: handshakes, requests and offers.

use crate::puppets::*;
use crate::support::{Node, Scratch, wait_for};
use elver::id::Key;
use elver::identity::Identity;
use elver::manifest::Content;
use elver::wire::claim::sign_claim;
use elver::wire::frame::{FRAME_HEAD_BYTES, Frame, Hello, Offer, Parsed, Refusal};
use elver::wire::network::Network;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use zerocopy::IntoBytes;

#[test]
fn handshakes_that_prove_nothing_are_refused_and_counted() {
    let node = Node::alone(&[]);
    let connect = || Stream::new(TcpStream::connect(node.addr).unwrap());
    let hello = |network: u32, public| Hello::new(network, public, ephemeral().public(), 1, false);
    let own = network().id();

    // A PROOF with a signature that no key made.
    let mut forger = connect();
    forger.send(&Frame::Hello(&hello(own, new_identity().public()))).unwrap();
    forger.send(&Frame::Proof { signature: &[1; 64] }).unwrap();
    forger.closed();
    wait_for_counter(&node, "handshake_signature", 1);

    let mut stranger = connect();
    stranger.send(&Frame::Hello(&hello(Network::new("museum").id(), new_identity().public()))).unwrap();
    stranger.closed();
    wait_for_counter(&node, "handshake_network", 1);

    // The node's own HELLO, reflected to it.
    let mut mirror = connect();
    let theirs = mirror.frame().unwrap();
    mirror.socket.write_all(&theirs).unwrap();
    mirror.closed();
    wait_for_counter(&node, "handshake_self", 1);

    // A replay of what an honest peer sent on another stream.
    let honest = new_identity();
    let mut first = connect();
    let ours = hello(own, honest.public());
    first.send(&Frame::Hello(&ours)).unwrap();
    let theirs = first.frame().unwrap();
    let Ok(Parsed::Frame(Frame::Hello(theirs), _)) = Frame::parse(&theirs) else { panic!("no hello") };
    let digest = network().handshake_digest(true, ours.as_bytes(), theirs.as_bytes());
    let proof = honest.sign(&digest);
    first.send(&Frame::Proof { signature: &proof }).unwrap();
    wait_for_counter(&node, "stream_proven", 1);
    let mut replayer = connect();
    replayer.send(&Frame::Hello(&ours)).unwrap();
    replayer.send(&Frame::Proof { signature: &proof }).unwrap();
    replayer.closed();
    wait_for_counter(&node, "handshake_signature", 2);

    // A well-formed frame of another kind before the PROOF.
    let mut eager = connect();
    eager.send(&Frame::Request { request: 1, key: Key([1; 32]) }).unwrap();
    eager.closed();
    wait_for_counter(&node, "handshake_order", 1);

    let mut giant = connect();
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 1]);
    giant.socket.write_all(&head).unwrap();
    giant.closed();
    wait_for_counter(&node, "frame_length", 1);

    // Part of a HELLO, then silence.
    let mut silent = connect();
    silent.socket.write_all(&[80, 0, 0, 0, 1, 0]).unwrap();
    silent.closed();
    wait_for_counter(&node, "handshake_silent", 1);
    assert_eq!(counter(&node, "stream_proven"), 1);
}

#[test]
fn peers_that_ask_and_never_read_cost_little_and_are_closed() {
    let node = Node::alone(&[]);
    let bytes = content(1, 2 * MIB);
    let scratch = Scratch::new();
    let file = scratch.path().join("shared");
    std::fs::write(&file, &bytes).unwrap();
    let address = node.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let key = manifest(&bytes).keys()[0];
    assert!(address.text().contains(&manifest(&bytes).hash().to_string()));
    let before = node.peak_bytes();

    // Requests with the smallest answers, from as many peers as the node admits.
    let mut batch = Vec::new();
    for request in 0..500 {
        batch.extend([Frame::Request { request, key: Key([9; 32]) }, Frame::Cancel { request }]);
    }
    let mut peers = Vec::new();
    for _ in 0..24 {
        let mut stream = Stream::proven(&node, &new_identity());
        stream.push_until_stuck(&batch, 16 * MIB);
        peers.push(stream);
    }
    let asking = new_identity();
    let mut stream = Stream::proven(&node, &asking);
    let batch: Vec<_> = (0..1000).map(|request| Frame::Request { request, key }).collect();
    stream.push_until_stuck(&batch, MIB);
    let mut stream = Stream::proven(&node, &new_identity());
    let keys = [key; 128];
    stream.push_until_stuck(&[Frame::Which { question: 1, keys: &keys }], 16 * MIB);

    let growth = node.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
    wait_for_counter(&node, "stream_unread", 20);
    drop(peers);
}

#[test]
fn one_address_cannot_take_every_place() {
    let node = Node::alone(&[]);
    // Authenticated peers that keep their streams busy: each makes an offer and does not read the answer.
    let mut crowd: Vec<Stream> = (0..60)
        .filter_map(|_| {
            let mut stream = Stream::new(TcpStream::connect(node.addr).unwrap());
            stream.shake_hands(&new_identity(), true)?;
            stream.send(&Frame::Store { request: 1, offer: offer(Content::File, Key([3; 32]), 100) }).ok()?;
            Some(stream)
        })
        .collect();
    // Connections that never start a handshake.
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(node.addr)).collect();
    let socket = socket_from([127, 0, 2, 1], node.addr);
    let mut other = Stream::new(socket);
    assert!(other.shake_hands(&new_identity(), true).is_some(), "{}", node.status_json());
    other.send(&Frame::Which { question: 1, keys: &[Key([1; 32])] }).unwrap();
    assert!(other.frame().is_some());
    drop((silent, crowd.pop()));
}

#[test]
fn offers_that_lie_are_refused_and_those_that_only_promise_make_room_again() {
    let node = Node::alone(&["--quota", "8MiB"]);
    let piece = content(3, 1000);
    let key = Key(*blake3::hash(&piece).as_bytes());

    // The peer sends other bytes than it offered, three times. After that, the node closes its streams.
    let liar = new_identity();
    let mut stream = Stream::proven(&node, &liar);
    for request in 0..3 {
        // Each offer is of another file: after a lie, the node refuses the peer's offers of that file for a while.
        let claimed = Key(*blake3::hash(&content(30 + u64::from(request), 1000)).as_bytes());
        stream.send(&Frame::Store { request, offer: offer(Content::File, claimed, 1000) }).unwrap();
        let answer = stream.frame().unwrap();
        assert!(matches!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Accept { have: false, .. }, _))));
        stream.send(&Frame::StoreData { request, length: 1000 }).unwrap();
        stream.socket.write_all(&[request as u8; 1000]).unwrap();
        let answer = stream.frame();
        if request < 2 {
            let mismatch = Frame::Refuse { request, reason: Refusal::Mismatch };
            assert_eq!(Frame::parse(&answer.unwrap()), Ok(Parsed::Frame(mismatch, FRAME_HEAD_BYTES + 8)));
        }
    }
    stream.closed();
    assert_eq!(counter(&node, "offer_mismatch"), 3);
    let mut again = Stream::new(TcpStream::connect(node.addr).unwrap());
    again.shake_hands(&liar, true);
    again.closed();

    // More bytes than the offer announced.
    let mut stream = Stream::proven(&node, &new_identity());
    stream.send(&Frame::Store { request: 1, offer: offer(Content::File, key, 1000) }).unwrap();
    stream.frame().unwrap();
    stream.send(&Frame::StoreData { request: 1, length: 1001 }).unwrap();
    stream.closed();
    wait_for_counter(&node, "frame_unexpected", 1);

    // Offers for the whole quota whose content never comes.
    let mut greedy = Stream::proven(&node, &new_identity());
    let chunk = |n: u8| Offer { input_offset: 1 << 20, ..offer(Content::Chunk, Key([n; 32]), 1 << 20) };
    for n in 0..20 {
        greedy.send(&Frame::Store { request: n.into(), offer: chunk(n) }).unwrap();
    }
    wait_for_counter(&node, "offer_refused", 1);
    drop(greedy);
    let mut honest = Stream::proven(&node, &new_identity());
    wait_for("the promised room", || {
        honest.send(&Frame::Store { request: 1, offer: offer(Content::File, key, 1000) }).unwrap();
        let answer = honest.frame().unwrap();
        matches!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Accept { have: false, .. }, _))).then_some(())
    });
    honest.send(&Frame::StoreData { request: 1, length: 1000 }).unwrap();
    honest.socket.write_all(&piece).unwrap();
    let answer = honest.frame().unwrap();
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Stored { request: 1 }, FRAME_HEAD_BYTES + 8)));
}

#[test]
fn promises_of_one_address_keep_no_piece_of_another_out() {
    let node = Node::alone(&["--quota", "8MiB"]);
    let chunk = |n: u8| Offer { input_offset: 1 << 20, ..offer(Content::Chunk, Key([n; 32]), 1 << 20) };
    // Offers for the whole quota, then for every place for arriving pieces, under several identities.
    let mut crowd = Vec::new();
    for peer in 0..6u8 {
        let mut stream = Stream::new(socket_from([127, 0, 2, 1], node.addr));
        stream.shake_hands(&new_identity(), true).expect("the node shakes hands");
        for n in 0..14u8 {
            let key = Key([peer * 16 + n; 32]);
            let offer = if peer == 0 { chunk(n) } else { offer(Content::File, key, 100) };
            stream.send(&Frame::Store { request: n.into(), offer }).unwrap();
        }
        // With the answer to the last offer, the node has decided on all of them.
        (0..14).for_each(|_| _ = stream.frame().unwrap());
        crowd.push(stream);
    }
    let bytes = content(5, 1000);
    let key = Key(*blake3::hash(&bytes).as_bytes());
    let mut honest = Stream::new(socket_from([127, 0, 3, 1], node.addr));
    honest.shake_hands(&new_identity(), true).expect("the node shakes hands");
    honest.send(&Frame::Store { request: 1, offer: offer(Content::File, key, 1000) }).unwrap();
    let answer = honest.frame().unwrap();
    let accepted = Frame::Accept { request: 1, have: false };
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(accepted, answer.len())), "{}", node.status_json());
    honest.send(&Frame::StoreData { request: 1, length: 1000 }).unwrap();
    honest.socket.write_all(&bytes).unwrap();
    let answer = honest.frame().unwrap();
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Stored { request: 1 }, answer.len())));
    drop(crowd);
}

/// Offers a file of two bytes and sends it when the node accepts. Returns whether the node stored it.
fn store_tiny(stream: &mut Stream, number: u32) -> bool {
    let bytes = [number as u8, (number >> 8) as u8];
    let key = Key(*blake3::hash(&bytes).as_bytes());
    stream.send(&Frame::Store { request: number, offer: offer(Content::File, key, 2) }).unwrap();
    let answer = stream.frame().unwrap();
    if !matches!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Accept { have: false, .. }, _))) {
        let refused = Frame::Refuse { request: number, reason: Refusal::NoSpace };
        assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(refused, FRAME_HEAD_BYTES + 8)));
        return false;
    }
    stream.send(&Frame::StoreData { request: number, length: 2 }).unwrap();
    stream.socket.write_all(&bytes).unwrap();
    let answer = stream.frame().unwrap();
    assert_eq!(
        Frame::parse(&answer),
        Ok(Parsed::Frame(Frame::Stored { request: number }, FRAME_HEAD_BYTES + 8))
    );
    true
}

#[test]
fn tiny_pieces_take_no_more_of_the_disk_than_the_quota() {
    let node = Node::alone(&["--quota", "1MiB"]);
    let mut stream = Stream::proven(&node, &new_identity());
    let stored = (0..1000).take_while(|number| store_tiny(&mut stream, *number)).count();
    assert!((50..1000).contains(&stored), "{stored} were stored");
    // Sum the disk blocks, as `du` does.
    let mut blocks = 0;
    let mut directories = vec![node.dir.join("pieces")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            blocks += metadata.blocks();
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    assert!(blocks * 512 <= 1 << 20, "{stored} pieces of 2 bytes take {} bytes", blocks * 512);
    let told = node.status_json()["stored_bytes"].as_u64().unwrap();
    assert!(told >= blocks * 512 && told <= 1 << 20, "{told} bytes are told");
    assert!(counter(&node, "refused_over_quota") > 0);
}

#[test]
fn what_is_left_to_the_host_is_never_filled_up() {
    let node = Node::alone(&["--keep-free", "1000TiB"]);
    let mut stream = Stream::proven(&node, &new_identity());
    assert!(!store_tiny(&mut stream, 1), "there is no disk with so much left");
    assert!(counter(&node, "refused_keep_free") > 0);
    let status = node.status_json();
    assert_eq!(status["keep_free_bytes"].as_u64(), Some(1000 << 40));
    assert!(status["free_bytes"].as_u64().is_some());
    let node = Node::alone(&["--keep-free", "0"]);
    let mut stream = Stream::proven(&node, &new_identity());
    assert!(store_tiny(&mut stream, 1));
}

/// The offer with a claim that `publisher` signed.
fn claimed(offer: Offer, publisher: &Identity, sequence: u64) -> Offer {
    let asked = (offer.replicas, offer.lifetime);
    Offer { claim: Some(sign_claim(&network(), publisher, &offer.key, asked, sequence)), ..offer }
}

/// The number of copies that the piece is to have, as the node reports it.
fn replicas_of(stream: &mut Stream, key: Key) -> Option<u8> {
    stream.send(&Frame::Inspect { question: 1, keys: &[key] }).unwrap();
    let answer = stream.frame().unwrap();
    let Ok(Parsed::Frame(Frame::Inspected { entries, .. }, _)) = Frame::parse(&answer) else {
        panic!("{answer:?}");
    };
    entries[0].get().map(|entry| entry.replicas)
}

#[test]
fn an_offer_without_its_publishers_claim_raises_nothing_and_a_forged_one_is_refused() {
    let node = Node::alone(&[]);
    let key = Key(*blake3::hash(&[1, 0]).as_bytes());
    let mut stream = Stream::proven(&node, &new_identity());
    assert!(store_tiny(&mut stream, 1));
    assert_eq!(replicas_of(&mut stream, key), Some(1));
    let more = Offer { replicas: 20, lifetime: 365 * 24 * 3600, ..offer(Content::File, key, 2) };
    stream.send(&Frame::Store { request: 2, offer: more }).unwrap();
    let answer = stream.frame().unwrap();
    let had = Frame::Accept { request: 2, have: true };
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(had, answer.len())));
    assert_eq!(replicas_of(&mut stream, key), Some(1));
    let signed = claimed(more, &new_identity(), 1);
    let forged =
        Offer { claim: claimed(Offer { key: Key([9; 32]), ..more }, &new_identity(), 1).claim, ..signed };
    stream.send(&Frame::Store { request: 3, offer: forged }).unwrap();
    let answer = stream.frame().unwrap();
    let refused = Frame::Refuse { request: 3, reason: Refusal::Invalid };
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(refused, answer.len())));
    assert_eq!(replicas_of(&mut stream, key), Some(1));
    assert_eq!(counter(&node, "claims_forged"), 1);
    assert!(!node.dir.join("raises").metadata().is_ok_and(|raises| raises.len() > 0));
}

#[test]
fn more_copies_and_a_longer_life_than_a_piece_was_stored_with_outlive_a_kill() {
    let mut node = Node::alone(&[]);
    let bytes = [1, 0];
    let key = Key(*blake3::hash(&bytes).as_bytes());
    let mut stream = Stream::proven(&node, &new_identity());
    assert!(store_tiny(&mut stream, 1));
    let more = Offer { replicas: 9, lifetime: 30 * 24 * 3600, ..offer(Content::File, key, 2) };
    let more = claimed(more, &new_identity(), 1);
    stream.send(&Frame::Store { request: 2, offer: more }).unwrap();
    let answer = stream.frame().unwrap();
    let had = Frame::Accept { request: 2, have: true };
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(had, answer.len())));
    // The node acknowledged the raise, so the raise is on disk.
    node.signal(rustix::process::Signal::KILL);
    let (_, scratch) = node.ended();
    let node = Node::start_in(scratch, &[]);
    let mut stream = Stream::proven(&node, &new_identity());
    assert_eq!(replicas_of(&mut stream, key), Some(9));
    // The node writes nothing for an offer that raises nothing.
    let length = std::fs::metadata(node.dir.join("raises")).unwrap().len();
    stream.send(&Frame::Store { request: 2, offer: more }).unwrap();
    stream.frame().unwrap();
    assert_eq!(std::fs::metadata(node.dir.join("raises")).unwrap().len(), length);
}

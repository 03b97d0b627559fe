//! The checked-in vectors of the wire format: each parses, verifies and writes back unchanged. Altered vectors fail.

mod common;
#[path = "common/compose.rs"]
mod compose;

use common::{mac_key, network, recipient, vectors};
use compose::Vector;
use elver::id::Key;
use elver::identity::verify;
use elver::manifest::Manifest;
use elver::wire::Refused;
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Unverified, Verified, write, write_mac};
use elver::wire::frame::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Frame, FrameKey, Parsed};
use elver::wire::header::{Auth, flags};
use elver::wire::message::Message;
use elver::wire::network::Network;
use elver::wire::provider::ProviderRecord;
use elver::wire::record::Record;
use elver::wire::state::NodeState;
use std::fs;
use zerocopy::{FromBytes, IntoBytes};

/// Reads a datagram as `recipient` in `network` does.
fn receive<'a>(bytes: &'a [u8], network: &Network, recipient: &Key) -> Result<Verified<'a>, Refused> {
    let (recipient, sender) = (elver::id::NodeId(recipient.0), common::sender());
    let datagram = Unverified::parse(bytes, network)?;
    match datagram.auth() {
        Auth::Mac => datagram.authenticate(network, &mac_key(), &sender.public(), &sender.id()),
        Auth::Signed | Auth::Bare => datagram.verify(network, &recipient),
    }
}

/// The datagrams that authenticate their sender, by signature or by MAC.
fn authenticated() -> impl Iterator<Item = (String, Vec<u8>)> {
    vectors("datagrams").into_iter().chain(vectors("datagrams-mac"))
}

/// Every way to change one bit of `bytes`.
fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit, changed)
    })
}

fn all() -> [(&'static str, Vec<Vector>); 6] {
    [
        ("datagrams", compose::datagrams()),
        ("datagrams-mac", compose::datagrams_with_mac()),
        ("challenges", compose::challenges()),
        ("frames", compose::frames()),
        ("manifests", compose::manifests()),
        ("records", compose::records()),
    ]
}

#[test]
fn the_vectors_are_what_this_version_writes() {
    for (folder, composed) in all() {
        if std::env::var_os("ELVER_WRITE_VECTORS").is_some() {
            composed.iter().for_each(|vector| save(folder, vector));
        }
        let mut composed: Vec<_> =
            composed.into_iter().map(|vector| (vector.name.to_owned(), vector.bytes)).collect();
        composed.sort();
        let saved = vectors(folder);
        let names =
            |list: &[(String, Vec<u8>)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&saved), names(&composed), "the vectors in {folder}");
        for ((name, saved), (_, composed)) in saved.iter().zip(&composed) {
            assert_eq!(saved, composed, "{folder}/{name}: the wire changed; that takes a new version number");
        }
    }
}

fn save(folder: &str, vector: &Vector) {
    let path = common::folder(folder);
    fs::create_dir_all(&path).expect("a folder for the vectors");
    let digits: String = vector.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = digits.as_bytes().chunks(96).map(|line| String::from_utf8_lossy(line).into_owned());
    let text = [format!("# {}", vector.about)].into_iter().chain(lines).collect::<Vec<_>>().join("\n");
    fs::write(path.join(format!("{}.hex", vector.name)), text + "\n").expect("the vector is written");
}

#[test]
fn each_datagram_verifies_and_writes_back_as_the_same_bytes() {
    for (name, bytes) in authenticated() {
        let verified = receive(&bytes, &network(), &recipient().id().key()).expect(&name);
        assert_eq!(verified.public(), common::sender().public());
        assert_eq!(verified.datagram_bytes(), bytes.len());
        let first = bytes[3] & flags::RECIPIENT_UNKNOWN != 0;
        let envelope = Envelope {
            recipient: (!first).then(|| recipient().id()),
            leaf: verified.is_leaf(),
            epoch: verified.epoch(),
            sequence: verified.sequence(),
            transaction: verified.transaction(),
            token: verified.token(),
        };
        let mut out = [0xaa; DATAGRAM_BYTES_MAX];
        let (network, sender, message) = (network(), common::sender(), verified.message());
        let length = match verified.auth() {
            Auth::Mac => write_mac(&mut out, &network, &sender, &mac_key(), &envelope, &message),
            Auth::Signed | Auth::Bare => write(&mut out, &network, &sender, &envelope, &message),
        };
        assert_eq!(length.map(|length| &out[..length]), Some(&bytes[..]), "{name}");
    }
}

#[test]
fn every_truncation_of_a_datagram_and_anything_after_it_is_refused() {
    for (name, bytes) in authenticated() {
        for length in 0..bytes.len() {
            assert!(
                receive(&bytes[..length], &network(), &recipient().id().key()).is_err(),
                "{name} cut at {length}"
            );
        }
        for garbage in [&[0][..], &[0xff], &[0; 16], &[0; 80], &[0; 96], &bytes] {
            let longer = [&bytes, garbage].concat();
            assert!(receive(&longer, &network(), &recipient().id().key()).is_err(), "{name} with garbage");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_datagram_is_refused() {
    for (name, bytes) in authenticated() {
        for (bit, changed) in flips(&bytes) {
            assert!(receive(&changed, &network(), &recipient().id().key()).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_datagram_with_a_mac_is_refused_under_any_other_key() {
    let (network, sender) = (network(), common::sender());
    for (name, bytes) in vectors("datagrams-mac") {
        let datagram = Unverified::parse(&bytes, &network).expect(&name);
        for bit in 0..256 {
            let mut key = mac_key();
            key.0[bit / 8] ^= 1 << (bit % 8);
            let refused = datagram.authenticate(&network, &key, &sender.public(), &sender.id()).err();
            assert_eq!(refused, Some(Refused::Mac), "{name}, bit {bit} of the key");
        }
    }
}

#[test]
fn a_challenge_parses_and_authenticates_nothing() {
    let (network, ours) = (network(), common::sender().id());
    for (name, bytes) in vectors("challenges") {
        let datagram = Unverified::parse(&bytes, &network).expect(&name);
        assert_eq!(datagram.challenged(), Some(ours.short()), "{name}");
        assert_eq!(datagram.verify(&network, &ours).err(), Some(Refused::Auth), "{name}");
        for length in 0..bytes.len() {
            assert!(Unverified::parse(&bytes[..length], &network).is_err(), "{name} cut at {length}");
        }
        for (bit, changed) in flips(&bytes) {
            let refused = receive(&changed, &network, &ours.key());
            assert!(refused.is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_datagram_for_another_network_or_another_node_is_refused() {
    let other = Network::new("another");
    for (name, bytes) in vectors("datagrams") {
        let ours = recipient().id().key();
        assert_eq!(receive(&bytes, &other, &ours).err(), Some(Refused::Network), "{name}");
        let mut readdressed = bytes.clone();
        readdressed[4..8].copy_from_slice(&other.id().to_le_bytes());
        assert_eq!(receive(&readdressed, &other, &ours).err(), Some(Refused::Signature), "{name}");
        let stranger = receive(&bytes, &network(), &Key([9; 32])).err();
        let first = bytes[3] & flags::RECIPIENT_UNKNOWN != 0;
        assert_eq!(stranger, (!first).then_some(Refused::Signature), "{name}");
    }
}

#[test]
fn a_relay_cannot_change_a_record_without_breaking_its_signature() {
    let network = network();
    let check = |name: &str, bytes: &[u8]| match name.split('-').next() {
        Some("value") => Record::parse(bytes)?.verify(&network),
        Some("state") => NodeState::read_from_bytes(bytes).map_err(|_| Refused::Length)?.verify(&network),
        _ => ProviderRecord::read_from_bytes(bytes)
            .map_err(|_| Refused::Length)?
            .verify(&network, &compose::provided_file()),
    };
    for (name, bytes) in vectors("records") {
        assert_eq!(check(&name, &bytes), Ok(()), "{name}");
        for (bit, changed) in flips(&bytes) {
            assert!(check(&name, &changed).is_err(), "{name}, bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(check(&name, &bytes[..length]).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_record_of_another_network_or_for_another_file_is_refused() {
    let other = Network::new("another");
    for (name, bytes) in vectors("records") {
        if name.starts_with("value") {
            let record = Record::parse(&bytes).expect(&name);
            assert_eq!(record.verify(&other), Err(Refused::Signature), "{name}");
        } else if name.starts_with("state") {
            let state = NodeState::read_from_bytes(&bytes[..]).expect(&name);
            assert_eq!(state.verify(&other), Err(Refused::Signature), "{name}");
        } else {
            let record = ProviderRecord::read_from_bytes(&bytes[..]).expect(&name);
            assert_eq!(record.verify(&other, &compose::provided_file()), Err(Refused::Signature), "{name}");
            assert_eq!(record.verify(&network(), &Key([9; 32])), Err(Refused::Signature), "{name}");
        }
    }
}

/// Reads a frame as the accepting end does. `key` opens the connecting end's frames. Frames of the handshake are not sealed.
fn read<'a>(name: &str, bytes: &'a [u8], key: &FrameKey) -> Result<Parsed<'a>, Refused> {
    if name.starts_with("hello") || name.starts_with("proof") {
        return Frame::parse(bytes);
    }
    Frame::open(bytes, &mut key.clone())
}

#[test]
fn each_frame_reads_with_bytes_after_it_and_writes_back_as_the_same_bytes() {
    let (connector, acceptor) = compose::stream_keys();
    for (name, bytes) in vectors("frames") {
        let more = [&bytes[..], &[0xff; 40]].concat();
        let Ok(Parsed::Frame(frame, length)) = read(&name, &more, &acceptor.theirs) else {
            panic!("{name} does not read")
        };
        assert_eq!(length, bytes.len(), "{name}");
        let mut out = Vec::new();
        match frame {
            Frame::Hello(_) | Frame::Proof { .. } => frame.write(&mut out),
            _ => frame.write_sealed(&mut out, &mut connector.ours.clone()),
        }
        assert_eq!(out, bytes, "{name}");
    }
}

#[test]
fn every_truncation_of_a_frame_waits_for_more() {
    let (_, acceptor) = compose::stream_keys();
    for (name, bytes) in vectors("frames") {
        for length in 0..bytes.len() {
            let read = read(&name, &bytes[..length], &acceptor.theirs);
            assert_eq!(read, Ok(Parsed::Incomplete), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_flipped_bit_of_a_frame_never_passes_unseen() {
    let (_, acceptor) = compose::stream_keys();
    for (name, bytes) in vectors("frames") {
        let Ok(Parsed::Frame(original, _)) = read(&name, &bytes, &acceptor.theirs) else {
            panic!("{name} does not read")
        };
        for (bit, changed) in flips(&bytes) {
            let Ok(Parsed::Frame(frame, length)) = read(&name, &changed, &acceptor.theirs) else { continue };
            // The PROOF authenticates the whole handshake, so its frames have no MAC of their own.
            assert!(matches!(frame, Frame::Hello(_) | Frame::Proof { .. }), "{name}, bit {bit}");
            assert!(length <= bytes.len() && length >= FRAME_HEAD_BYTES);
            assert_ne!(frame, original, "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_frame_that_announces_more_than_its_kind_may_have_is_refused_at_its_head() {
    let (_, acceptor) = compose::stream_keys();
    for (name, bytes) in vectors("frames") {
        for length in [FRAME_BYTES_MAX as u32, 1 << 20, u32::MAX] {
            let head = [&length.to_le_bytes(), &bytes[4..FRAME_HEAD_BYTES]].concat();
            let read = read(&name, &head, &acceptor.theirs);
            assert_eq!(read, Err(Refused::Length), "{name} of {length} bytes");
        }
    }
}

/// Whether a connecting end's hello and proof convince the accepting end of the vectors.
fn convinces(hello: &[u8], proof: &[u8]) -> bool {
    let Ok(Parsed::Frame(Frame::Hello(hello), _)) = Frame::parse(hello) else { return false };
    let Ok(Parsed::Frame(Frame::Proof { signature }, _)) = Frame::parse(proof) else { return false };
    let (_, acceptor) = compose::hellos();
    let digest = network().handshake_digest(true, hello.as_bytes(), acceptor.as_bytes());
    hello.network() == network().id() && verify(&hello.public, &digest, signature)
}

#[test]
fn every_flipped_bit_of_a_hello_or_a_proof_fails_the_handshake() {
    let frames: std::collections::BTreeMap<_, _> = vectors("frames").into_iter().collect();
    let (hello, proof) = (&frames["hello"], &frames["proof"]);
    assert!(convinces(hello, proof));
    for (bit, changed) in flips(hello) {
        assert!(!convinces(&changed, proof), "hello, bit {bit}");
    }
    for (bit, changed) in flips(proof) {
        assert!(!convinces(hello, &changed), "proof, bit {bit}");
    }
}

#[test]
fn a_proof_cannot_be_sent_back_to_who_made_it() {
    let frames: std::collections::BTreeMap<_, _> = vectors("frames").into_iter().collect();
    assert!(!convinces(&frames["hello-leaf"], &frames["proof-acceptor"]));
    assert!(!convinces(&frames["hello"], &frames["proof-acceptor"]));
    let Ok(Parsed::Frame(Frame::Proof { signature }, _)) = Frame::parse(&frames["proof-acceptor"]) else {
        panic!("the acceptor's proof does not read")
    };
    assert!(verify(&recipient().public(), &compose::handshake_digest(false), signature));
    assert!(!verify(&recipient().public(), &compose::handshake_digest(true), signature));
}

#[test]
fn each_manifest_decodes_for_its_own_file_only_and_not_with_a_flipped_bit() {
    for ((name, bytes), (_, length)) in vectors("manifests").iter().zip(sorted_manifests()) {
        let hash = compose::manifest(length).hash();
        let manifest = Manifest::decode(bytes, &hash).expect(name);
        assert_eq!(manifest.length(), length, "{name}");
        assert_eq!(manifest.encode(), bytes.clone(), "{name}");
        assert!(Manifest::decode(bytes, &Key([9; 32])).is_err(), "{name}");
        assert!(Manifest::decode(&[&bytes[..], &[0]].concat(), &hash).is_err(), "{name} with garbage");
        for (bit, changed) in flips(bytes) {
            assert!(Manifest::decode(&changed, &hash).is_err(), "{name}, bit {bit}");
        }
    }
}

fn sorted_manifests() -> [(&'static str, u64); 3] {
    let mut manifests = compose::MANIFESTS;
    manifests.sort_unstable();
    manifests
}

#[test]
fn a_payload_of_the_largest_record_fills_the_datagram() {
    let largest =
        vectors("datagrams").into_iter().find(|(name, _)| name == "found-largest-value").expect("the vector");
    assert_eq!(largest.1.len(), DATAGRAM_BYTES_MAX);
    let verified = receive(&largest.1, &network(), &recipient().id().key()).expect("it verifies");
    assert!(matches!(verified.message(), Message::Found { record: Some(_), .. }));
}

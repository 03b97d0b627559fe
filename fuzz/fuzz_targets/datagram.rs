//! Datagrams: raw bytes from an unauthenticated sender, and payloads that the fuzzer makes and a valid key signs.
#![no_main]

use elver::id::{Key, NodeId};
use elver::identity::Identity;
use elver::wire::datagram::{
    DATAGRAM_BYTES_MAX, Envelope, Epoch, MacKey, PAYLOAD_BYTES_MAX, Unverified, Verified, write, write_mac,
};
use elver::wire::header::{Auth, HEADER_BYTES, Kind, VERSION, flags};
use elver::wire::message::Message;
use elver::wire::network::Network;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

struct Fixture {
    network: Network,
    sender: Identity,
    recipient: NodeId,
}

/// The network and the identities of the test vectors.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| Fixture {
    network: Network::new("vectors"),
    sender: Identity::from_secret(&[1; 32]),
    recipient: Identity::from_secret(&[2; 32]).id(),
});

/// The key of the test vectors.
const MAC_KEY: MacKey = MacKey([7; 32]);

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    match Kind::from_number(first & 0x0f) {
        Some(kind) => signed(kind, first & 0xf0 != 0, rest),
        None => anybody(rest),
    }
});

/// Raw bytes. Almost no input verifies, and none may cause a panic.
fn anybody(bytes: &[u8]) {
    let Fixture { network, sender, recipient } = &*FIXTURE;
    if let Ok(datagram) = Unverified::parse(bytes, network) {
        let payload = usize::from(u16::from_le_bytes([bytes[40], bytes[41]]));
        assert_eq!(bytes.len(), HEADER_BYTES + payload + datagram.auth().tail_bytes());
        assert_eq!(datagram.challenged().is_some(), datagram.auth() == Auth::Bare);
        if let Ok(verified) = datagram.verify(network, recipient) {
            rewrites(&verified, bytes);
        }
        if let Ok(verified) = datagram.authenticate(network, &MAC_KEY, &sender.public(), &sender.id()) {
            rewrites(&verified, bytes);
        }
    }
}

/// A payload from a hostile peer with a valid key. The peer signs it, or uses a MAC if it is too long to sign.
fn signed(kind: Kind, leaf: bool, payload: &[u8]) {
    let Fixture { network, sender, recipient } = &*FIXTURE;
    // Sign only payloads that can pass: signing is costly.
    let Ok(message) = Message::parse(kind, payload) else { return };
    let auth = if payload.len() > PAYLOAD_BYTES_MAX { Auth::Mac } else { Auth::Signed };
    if payload.len() > auth.payload_bytes_max() || !kind.allows(auth) {
        return;
    }
    look_at(&message, network);
    if auth == Auth::Mac {
        return with_mac(&message, leaf);
    }
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&[VERSION, kind as u8, auth as u8, if leaf { flags::LEAF } else { 0 }]);
    bytes[4..8].copy_from_slice(&network.id().to_le_bytes());
    bytes[8..16].copy_from_slice(&sender.id().short());
    bytes[16] = 1;
    bytes[40..42].copy_from_slice(&(payload.len() as u16).to_le_bytes());
    bytes[42] = 1;
    bytes.extend_from_slice(payload);
    let digest = network.datagram_digest(&bytes, &sender.public(), &recipient.key());
    bytes.extend_from_slice(&sender.public().0);
    bytes.extend_from_slice(&sender.sign(&digest));

    let datagram = Unverified::parse(&bytes, network).expect("its payload parses");
    let verified = datagram.verify(network, recipient).expect("it is signed");
    assert_eq!(verified.is_leaf(), leaf);
    rewrites(&verified, &bytes);
}

/// A message that is too long for a signature.
fn with_mac(message: &Message<'_>, leaf: bool) {
    let Fixture { network, sender, recipient } = &*FIXTURE;
    let (recipient, epoch) = (Some(*recipient), Epoch::new(1));
    let envelope = Envelope { recipient, leaf, epoch, sequence: 1, transaction: 0, token: 0 };
    let mut out = [0xaa; DATAGRAM_BYTES_MAX];
    let length = write_mac(&mut out, network, sender, &MAC_KEY, &envelope, message).expect("it fits");
    let datagram = Unverified::parse(&out[..length], network).expect("its payload parses");
    let verified = datagram.authenticate(network, &MAC_KEY, &sender.public(), &sender.id());
    rewrites(&verified.expect("it has a MAC"), &out[..length]);
}

/// Asserts that a message from the fixture's sender encodes to the bytes that it was read from.
fn rewrites(verified: &Verified<'_>, bytes: &[u8]) {
    let Fixture { network, sender, recipient } = &*FIXTURE;
    if verified.public() != sender.public() {
        return;
    }
    let envelope = Envelope {
        recipient: (bytes[3] & flags::RECIPIENT_UNKNOWN == 0).then_some(*recipient),
        leaf: verified.is_leaf(),
        epoch: verified.epoch(),
        sequence: verified.sequence(),
        transaction: verified.transaction(),
        token: verified.token(),
    };
    let mut out = [0xaa; DATAGRAM_BYTES_MAX];
    let length = match verified.auth() {
        Auth::Mac => write_mac(&mut out, network, sender, &MAC_KEY, &envelope, &verified.message()),
        Auth::Signed | Auth::Bare => write(&mut out, network, sender, &envelope, &verified.message()),
    };
    assert_eq!(length.map(|length| &out[..length]), Some(bytes));
}

/// Calls every accessor that the node's state machines use on a message.
fn look_at(message: &Message<'_>, network: &Network) {
    match message {
        Message::Found { contacts, providers, record } => {
            for contact in *contacts {
                let _ = (contact.get(), contact.age_seconds());
            }
            for provider in *providers {
                assert!(provider.contact().is_some(), "a provider's address was checked");
                let _ = (provider.is_partial(), provider.lifetime(), provider.sequence());
            }
            if let [provider, ..] = providers {
                let _ = provider.verify(network, &Key([0x66; 32]));
            }
            if let Some(record) = record {
                look_at(&Message::StoreRecord { record: *record }, network);
            }
        }
        Message::StoreRecord { record } => {
            assert!(elver::wire::record::is_name(record.name()));
            assert_eq!(record.bytes().len(), 112 + record.name().len() + record.value().len());
            let _ = (record.key(), record.lifetime(), record.sequence());
            let _ = record.verify(network);
        }
        Message::Announce { announcements } => {
            assert!((1..=6).contains(&announcements.len()));
            let _ = announcements[0].provider.verify(network, &announcements[0].file);
        }
        Message::Gossip(body) | Message::GossipReply(body) => {
            assert!(usize::from(body.nearest) <= body.digest.len());
            for state in body.states {
                assert!(state.sequence() > 0 && state.load() <= 1000);
                let _ = (state.addrs().count(), state.chunks(), state.free_bytes(), state.version());
                let _ = (state.is_leaf(), state.is_away(), state.is_gone());
            }
            let _ = body.states[0].verify(network);
            let _ = body.digest.iter().chain(body.suspicions).map(|mark| mark.sequence()).max();
        }
        Message::Reconcile { ranges, .. } => {
            assert!((1..=27).contains(&ranges.len()));
            assert!(ranges.iter().all(|range| range.first() <= range.last()));
            assert!(ranges.windows(2).all(|two| two[0].last() < two[1].first()));
            let _ = ranges.iter().map(|range| (range.scope(), range.summary())).count();
        }
        Message::Reconciled { answers } => {
            let bytes: usize = answers.iter().map(|answer| answer.bytes()).sum();
            assert_eq!(bytes, answers.bytes().len());
            assert!((1..=27).contains(&answers.iter().count()));
        }
        Message::Pong { observed } => assert_ne!(observed.port(), 0),
        Message::Challenge { .. }
        | Message::Ping { .. }
        | Message::Find { .. }
        | Message::Stored { .. }
        | Message::Leave { .. } => {}
        Message::Probe { .. } | Message::ProbeReply { .. } | Message::Here { .. } => {}
    }
}

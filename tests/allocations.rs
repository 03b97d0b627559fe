//! What is handled for every packet takes no memory from the allocator.

mod common;

use allocation_counter::measure;
use common::{network, recipient, sender, vectors};
use elver::wire::datagram::Unverified;
use elver::wire::frame::Frame;
use elver::wire::message::Message;
use elver::wire::outbox::Outbox;
use std::net::SocketAddr;

#[test]
fn reading_and_verifying_a_datagram_allocates_nothing() {
    let (network, node) = (network(), recipient().id());
    for (name, bytes) in vectors("datagrams") {
        let used = measure(|| {
            let verified =
                Unverified::parse(&bytes, &network).and_then(|datagram| datagram.verify(&network, &node));
            assert!(verified.is_ok());
        });
        assert_eq!(used.count_total, 0, "{name}: {used:?}");
    }
}

#[test]
fn refusing_a_forged_datagram_allocates_nothing() {
    let (network, node) = (network(), recipient().id());
    for (name, mut bytes) in vectors("datagrams") {
        *bytes.last_mut().expect("a byte") ^= 1;
        let used = measure(|| {
            let verified =
                Unverified::parse(&bytes, &network).and_then(|datagram| datagram.verify(&network, &node));
            assert!(verified.is_err());
        });
        assert_eq!(used.count_total, 0, "{name}: {used:?}");
    }
}

#[test]
fn reading_a_frame_allocates_nothing() {
    for (name, bytes) in vectors("frames") {
        let used = measure(|| assert!(Frame::parse(&bytes).is_ok()));
        assert_eq!(used.count_total, 0, "{name}: {used:?}");
    }
}

#[test]
fn sending_allocates_nothing_whether_there_is_room_or_not() {
    let (network, node) = (network(), recipient().id());
    let to = SocketAddr::from(([192, 0, 2, 7], 3583));
    let received = vectors("datagrams");
    let messages: Vec<Message<'_>> = received
        .iter()
        .map(|(_, bytes)| {
            Unverified::parse(bytes, &network).and_then(|datagram| datagram.verify(&network, &node))
        })
        .map(|verified| verified.expect("a vector that verifies").message())
        .collect();
    let mut outbox = Outbox::new(network.clone(), sender(), false, 1, 8);
    let used = measure(|| {
        for _ in 0..2 {
            for message in &messages {
                outbox.send(to, Some(node), 7, 0, message);
            }
            assert_eq!(outbox.len(), 8);
            while let Some(datagram) = outbox.poll() {
                assert!(!datagram.bytes().is_empty());
            }
        }
    });
    assert_eq!(used.count_total, 0, "{used:?}");
    assert_eq!(outbox.dropped(), 2 * (messages.len() as u64 - 8));
}

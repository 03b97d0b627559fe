//! A relay between two nodes: it forwards datagrams and handshakes, then sends forged frames in the name of the node behind it.

use crate::puppets::wait_for_counter;
use crate::support::{Node, Scratch};
use elver::node::command::{Command, Reply, Response};
use elver::wire::frame::{FRAME_HEAD_BYTES, Frame, Parsed, Refusal};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

/// The relay's forged answer to an offer, in the name of the node behind it.
type Lie = fn(u32) -> Frame<'static>;

/// Starts a relay in front of `node` and returns the relay's address. Another node knows `node` by that address.
fn relay(node: SocketAddr, lie: Lie) -> SocketAddr {
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let addr = tcp.local_addr().unwrap();
    std::thread::spawn(move || forward_datagrams(&udp, node));
    std::thread::spawn(move || {
        for asker in tcp.incoming() {
            // The two nodes judge how the stream ends.
            std::thread::spawn(move || interpose(asker.ok()?, TcpStream::connect(node).ok()?, lie));
        }
        Some(())
    });
    addr
}

fn forward_datagrams(udp: &UdpSocket, node: SocketAddr) -> Option<()> {
    let (mut buffer, mut asker) = ([0; 2048], None);
    loop {
        let (length, from) = udp.recv_from(&mut buffer).ok()?;
        let to = if from == node { asker } else { Some(node) };
        if from != node {
            asker = Some(from);
        }
        // Drop datagrams of the node until the asker's address is known.
        to.map(|to| udp.send_to(&buffer[..length], to));
    }
}

/// Forwards a stream until both ends have authenticated themselves; then it swallows offers and answers them itself.
fn interpose(mut asker: TcpStream, mut node: TcpStream, lie: Lie) -> Option<()> {
    let (mut back_from, mut back_to) = (node.try_clone().ok()?, asker.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    let mut inbox = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = asker.read(&mut buffer).ok().filter(|length| *length > 0)?;
        inbox.extend_from_slice(&buffer[..length]);
        // The relay can read sealed frames but cannot write them.
        while let Some(frame) = inbox.get(..FRAME_HEAD_BYTES).map(|head| head.to_vec()) {
            let body = u32::from_le_bytes(frame[..4].try_into().ok()?) as usize;
            let Some(mut frame) = inbox.get(..FRAME_HEAD_BYTES + body).map(<[u8]>::to_vec) else { break };
            inbox.drain(..frame.len());
            frame[8..FRAME_HEAD_BYTES].fill(0);
            match Frame::parse(&frame) {
                Ok(Parsed::Frame(Frame::Hello(_) | Frame::Proof { .. }, _)) => node.write_all(&frame).ok()?,
                Ok(Parsed::Frame(Frame::Store { request, .. }, _)) => {
                    let mut said = Vec::new();
                    lie(request).write(&mut said);
                    asker.write_all(&said).ok()?;
                }
                _ => {}
            }
        }
    }
}

fn put(node: &Node, path: &Path) -> (u32, bool) {
    let command = Command::Put { path: path.to_owned(), replicas: Some(2), lifetime: None };
    match node.request(&command) {
        Some(Response::Done(Reply::Put { copies, quorum, .. })) => (copies, quorum),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relay_that_acknowledges_copies_is_not_believed() {
    let lies: [Lie; 3] = [
        |request| Frame::Accept { request, have: true },
        |request| Frame::Stored { request },
        |request| Frame::Refuse { request, reason: Refusal::Mismatch },
    ];
    for lie in lies {
        let (holder, scratch) = (Node::alone(&[]), Scratch::new());
        let relay = relay(holder.addr, lie).to_string();
        let publisher = Node::alone(&["--bootstrap", &relay]);
        publisher.wait_for_peers(1);
        let (copies, quorum) = put(&publisher, &scratch.file("file", b"a file of one piece"));
        wait_for_counter(&publisher, "frame_mac", 1);
        // The two nodes may have found each other without the relay. Then the copy exists.
        let there = 1 + holder.piece_files().len() as u32;
        assert!(copies <= there, "{copies} copies are told, {there} are there");
        assert_eq!(quorum, copies == 2);
        assert_eq!(publisher.counter("source_bad"), 0, "nothing is held against the holder's content");
        assert_eq!(publisher.counter("report_received"), 0);
    }
}

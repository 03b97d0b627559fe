//! Peers that violate the protocol.

use super::world::World;
use crate::id::Key;
use crate::identity::Identity;
use crate::io::Mode;
use crate::io::{Extent, Place, Sink, StreamId};
use crate::limits::Limits;
use crate::manifest::{CHUNK_BYTES_MIN, Content};
use crate::time::{Duration, Instant};
use crate::transfer::streams::handshake::{Handshake, Step};
use crate::transfer::*;
use crate::wire::contact::Contact;
use crate::wire::frame::{Ephemeral, FRAME_HEAD_BYTES, Frame, Hello, Offer, Parsed, Refusal, StreamKeys};
use crate::wire::inspect::InspectEntry;
use core::net::SocketAddr;

/// A peer that sends the frames that the test gives it.
pub(in crate::transfer) struct Puppet {
    identity: Identity,
    pub(super) stream: StreamId,
    keys: Option<StreamKeys>,
    /// The frames that the machine wrote and the test has not read yet, opened.
    pub(super) heard: Vec<u8>,
    /// The sink for the next raw bytes.
    pub(super) sink: Option<Sink>,
    pub(super) closed: bool,
    /// The pieces that the machine has for the puppet's requests.
    pub(super) pieces: OnePiece,
}

/// The pieces of a node that has the same content for every key, or none at all.
#[derive(Clone, Default)]
pub(in crate::transfer) struct OnePiece(pub(in crate::transfer) Option<(Content, Extent)>);

impl Pieces for OnePiece {
    fn locate(&mut self, _: &Key) -> Result<Located, Refusal> {
        let (content, extent) = self.0.clone().ok_or(Refusal::NotFound)?;
        Ok(Located { content, mode: Mode::UNKNOWN, bytes: Bytes::File(extent) })
    }

    fn has(&self, _: &Key) -> bool {
        self.0.is_some()
    }

    fn admit(&mut self, _: StreamId, request: u32, _: &Offer, _: &Contact) -> Option<Verdict> {
        Some(Verdict::Send { incoming: u64::from(request) })
    }

    fn make_room(&mut self, _: u64) -> bool {
        true
    }

    fn kept(&self, _: &Key) -> Option<Extent> {
        self.0.clone().map(|(_, extent)| extent)
    }

    /// Without content the node has to look first.
    fn inspect(&mut self, _: StreamId, _: u32, keys: &[Key]) -> Option<Vec<InspectEntry>> {
        self.0.as_ref().map(|_| vec![InspectEntry::default(); keys.len()])
    }
}

pub(in crate::transfer) const NOW: Instant = Instant::from_secs(50);

pub(super) fn machine() -> (Transfer, Identity) {
    machine_with(Limits::default())
}

pub(in crate::transfer) fn machine_with(limits: Limits) -> (Transfer, Identity) {
    let config = TransferConfig::new(limits, false, 1);
    (Transfer::new(config, Network::new("test"), [0; 32]), Identity::from_secret(&[100; 32]))
}

/// An address whose party has no other node.
fn alone(seed: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 1, seed], 999))
}

impl Puppet {
    fn connect(seed: u8, remote: SocketAddr, machine: &mut (Transfer, Identity)) -> Puppet {
        let stream = StreamId(u64::from(seed));
        let identity = Identity::from_secret(&[seed; 32]);
        machine.0.handle_accepted(NOW, stream, remote, &machine.1);
        let mut puppet = Puppet {
            identity,
            stream,
            keys: None,
            heard: Vec::new(),
            sink: None,
            closed: false,
            pieces: OnePiece::default(),
        };
        puppet.listen(machine);
        puppet
    }

    pub(in crate::transfer) fn authenticated(seed: u8, machine: &mut (Transfer, Identity)) -> Puppet {
        Puppet::authenticated_from(seed, alone(seed), machine)
    }

    fn authenticated_from(seed: u8, remote: SocketAddr, machine: &mut (Transfer, Identity)) -> Puppet {
        let mut puppet = Puppet::connect(seed, remote, machine);
        let network = Network::new("test");
        let ephemeral = Ephemeral::new(&network, [seed; 32]);
        let hello = Hello::new(network.id(), puppet.identity.public(), ephemeral.public(), 5, false);
        let mut handshake = Handshake::new(true, ephemeral, hello);
        puppet.say(machine, &Frame::Hello(&hello));
        for _ in 0..2 {
            let heard = core::mem::take(&mut puppet.heard);
            let Ok(Parsed::Frame(frame, used)) = Frame::parse(&heard) else { panic!("no frame") };
            match handshake.handle(&frame, &network, &puppet.identity, None) {
                Ok(Step::Prove(signature)) => {
                    puppet.heard = heard[used..].to_vec();
                    puppet.say(machine, &Frame::Proof { signature: &signature });
                }
                Ok(Step::Authenticated(_, keys)) => {
                    puppet.keys = Some(keys);
                    assert_eq!(used, heard.len(), "nothing else is said before the proof");
                    puppet.listen(machine);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(!puppet.closed);
        puppet
    }

    pub(super) fn contact(&self) -> Contact {
        Contact::new(self.identity.public(), SocketAddr::from(([10, 1, 1, 1], 5)))
    }

    pub(super) fn listen(&mut self, machine: &mut (Transfer, Identity)) {
        while let Some(output) = machine.0.poll_output() {
            match output {
                StreamOutput::Write { stream, bytes } if stream == self.stream => self.hear(&bytes),
                StreamOutput::Close { stream } if stream == self.stream => self.closed = true,
                StreamOutput::Sink { stream, sink } if stream == self.stream => self.sink = Some(sink),
                _ => {}
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Some(keys) = &mut self.keys else { return self.heard.extend(bytes) };
        match Frame::open(bytes, &mut keys.theirs) {
            Ok(Parsed::Frame(frame, _)) => frame.write(&mut self.heard),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn say(&mut self, machine: &mut (Transfer, Identity), frame: &Frame<'_>) {
        let bytes = self.written(frame);
        self.say_bytes(machine, &bytes);
    }

    /// The bytes of the puppet's next frame.
    pub(super) fn written(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &mut self.keys {
            Some(keys) => frame.write_sealed(&mut bytes, &mut keys.ours),
            None => frame.write(&mut bytes),
        }
        bytes
    }

    pub(super) fn say_bytes(&mut self, machine: &mut (Transfer, Identity), bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match machine.0.handle_bytes(NOW, self.stream, &bytes[at..], &machine.1, &mut self.pieces) {
                0 => break,
                used => at += used,
            }
        }
        self.listen(machine);
    }
}

#[test]
fn a_frame_of_four_gibibytes_and_one_of_no_known_kind_end_the_stream() {
    let none = TransferCounters::default();
    for (start, expected) in [
        ([255, 255, 255, 255, 3, 0, 0, 0], TransferCounters { frame_length: 1, ..none }),
        ([0, 0, 0, 0, 99, 0, 0, 0], TransferCounters { frame_kind: 1, ..none }),
        ([0, 0, 0, 0, 3, 0, 1, 0], TransferCounters { frame_reserved: 1, ..none }),
    ] {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        bytes[..8].copy_from_slice(&start);
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        puppet.say_bytes(&mut machine, &bytes);
        assert!(puppet.closed);
        let counted = TransferCounters { stream_accepted: 1, stream_proven: 1, ..expected };
        assert_eq!(*machine.0.counters(), counted);
        assert_eq!(machine.0.streams(), 0);
    }
}

#[test]
fn silence_in_the_handshake_or_in_the_middle_of_a_frame_ends_the_stream() {
    let mut machine = machine();
    let mut silent = Puppet::connect(1, alone(1), &mut machine);
    let mut slow = Puppet::authenticated(2, &mut machine);
    slow.say_bytes(&mut machine, &[40, 0, 0, 0, 3, 0, 0, 0, 1]);
    let at = machine.0.next_deadline().unwrap();
    assert_eq!(at.since(NOW).as_secs(), 5);
    machine.0.handle_timeout(at);
    silent.listen(&mut machine);
    assert!(silent.closed && machine.0.counters().handshake_silent == 1);
    let at = machine.0.next_deadline().unwrap();
    machine.0.handle_timeout(at);
    slow.listen(&mut machine);
    assert!(slow.closed && machine.0.counters().stream_idle == 1);
    assert_eq!(machine.0.next_deadline(), None);
}

#[test]
fn only_handshake_frames_are_accepted_before_it_is_over() {
    let mut machine = machine();
    let mut puppet = Puppet::connect(1, alone(1), &mut machine);
    puppet.say(&mut machine, &Frame::Request { request: 1, key: Key([1; 32]) });
    assert!(puppet.closed);
    assert_eq!(machine.0.counters().handshake_order, 1);
    assert_eq!(machine.0.poll_event(), None);
}

#[test]
fn every_truncation_and_every_flipped_bit_of_the_handshake_is_refused() {
    let network = Network::new("test");
    let identity = Identity::from_secret(&[1; 32]);
    let ephemeral = Ephemeral::new(&network, [1; 32]);
    let hello = Hello::new(network.id(), identity.public(), ephemeral.public(), 5, false);
    let mut bytes = Vec::new();
    Frame::Hello(&hello).write(&mut bytes);
    Frame::Proof { signature: &[3; 64] }.write(&mut bytes);
    for bit in 0..bytes.len() * 8 {
        let mut machine = machine();
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut puppet = Puppet::connect(1, alone(1), &mut machine);
        puppet.say_bytes(&mut machine, &wrong[..bit / 8]);
        puppet.say_bytes(&mut machine, &wrong);
        assert_eq!(machine.0.counters().stream_proven, 0);
    }
}

#[test]
fn a_frame_that_the_peer_did_not_write_ends_the_stream_without_effect_or_blame() {
    let chunk = (Content::Chunk, CHUNK_BYTES_MIN as u32);
    let offer = |machine: &mut (Transfer, Identity), puppet: &mut Puppet| {
        let (key, (content, length)) = (Key([1; 32]), chunk);
        let (input_offset, replicas, lifetime) = (CHUNK_BYTES_MIN, 3, 60);
        let offer = Offer {
            key,
            content,
            length,
            input_offset,
            replicas,
            mode: Mode::UNKNOWN,
            lifetime,
            claim: None,
        };
        let extent = Extent { place: Place::Piece(key), offset: 0, length, stamp: None };
        assert!(machine.0.push(NOW, PushId(1), puppet.contact(), offer, extent));
        puppet.listen(machine);
        let heard = core::mem::take(&mut puppet.heard);
        let Ok(Parsed::Frame(Frame::Store { request, .. }, _)) = Frame::parse(&heard) else {
            panic!("nothing offered")
        };
        request
    };
    // Frames that a relay could forge to feign a copy, to cast doubt on the piece, or to have the peer banned.
    let inventions: [fn(u32) -> Frame<'static>; 5] = [
        |request| Frame::Accept { request, have: true },
        |request| Frame::Stored { request },
        |_| Frame::Possession { question: 1, proof: Some([1; 32]) },
        |request| Frame::Refuse { request, reason: Refusal::Mismatch },
        |_| Frame::Unverified { key: Key([1; 32]) },
    ];
    for invention in inventions {
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        let request = offer(&mut machine, &mut puppet);
        let mut bytes = Vec::new();
        invention(request).write(&mut bytes);
        puppet.say_bytes(&mut machine, &bytes);
        assert!(puppet.closed, "{:?}", invention(request));
        assert_eq!(machine.0.counters().frame_mac, 1);
        assert_eq!(machine.0.bans(NOW), []);
        let events: Vec<_> = core::iter::from_fn(|| machine.0.poll_event()).collect();
        let lost = |event: &TransferEvent| {
            matches!(event, TransferEvent::PushDone { result: Err(PushError::Lost), .. })
        };
        assert!(events.iter().any(lost), "{events:?}");
        let told = |event: &TransferEvent| {
            matches!(event, TransferEvent::Reported { .. } | TransferEvent::SourceBad { .. })
        };
        assert!(!events.iter().any(told), "{events:?}");
    }
}

#[test]
fn a_repeated_frame_ends_the_stream() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    let bytes = puppet.written(&Frame::Which { question: 1, keys: &[Key([1; 32])] });
    puppet.say_bytes(&mut machine, &bytes);
    assert!(!puppet.closed);
    puppet.say_bytes(&mut machine, &bytes);
    assert!(puppet.closed);
    assert_eq!(machine.0.counters().frame_mac, 1);
}

#[test]
fn an_answer_without_a_request_ends_the_stream() {
    let answers = [
        Frame::Block { request: 7, content: Content::Chunk, length: 5, mode: Mode::UNKNOWN },
        Frame::Refuse { request: 7, reason: Refusal::Busy },
        Frame::Have { question: 7, bitmap: [255; 16] },
        Frame::Accept { request: 7, have: false },
        Frame::Accept { request: 7, have: true },
        Frame::StoreData { request: 7, length: 5 },
        Frame::Stored { request: 7 },
        Frame::Possession { question: 7, proof: None },
        Frame::Proof { signature: &[0; 64] },
        Frame::Which { question: 1, keys: &[] },
    ];
    for frame in answers {
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        puppet.say(&mut machine, &frame);
        assert!(puppet.closed, "{frame:?}");
        assert_eq!(machine.0.counters().frame_unexpected, 1);
    }
}

#[test]
fn requests_over_the_bound_are_refused_and_cancelled_ones_are_answered_exactly_once() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    let extent = Extent { place: Place::Cache(Key([1; 32])), offset: 0, length: 5, stamp: None };
    puppet.pieces = OnePiece(Some((Content::File, extent)));
    let most = Limits::default().requests_per_stream_max as u32;
    // The driver has the first two and sends them.
    (0..2 + most)
        .for_each(|request| puppet.say(&mut machine, &Frame::Request { request, key: Key([1; 32]) }));
    puppet.heard.clear();
    puppet.say(&mut machine, &Frame::Request { request: 2 + most, key: Key([1; 32]) });
    let busy = Frame::parse(&puppet.heard).unwrap();
    assert!(
        matches!(busy, Parsed::Frame(Frame::Refuse { request, reason: Refusal::Busy }, _) if request == 2 + most)
    );
    puppet.heard.clear();
    puppet.say(&mut machine, &Frame::Cancel { request: 2 });
    puppet.say(&mut machine, &Frame::Cancel { request: 2 });
    puppet.say(&mut machine, &Frame::Cancel { request: 4444 });
    let Ok(Parsed::Frame(Frame::Refuse { request: 2, .. }, used)) = Frame::parse(&puppet.heard) else {
        panic!("not refused")
    };
    assert_eq!(used, puppet.heard.len());
    puppet.say(&mut machine, &Frame::Request { request: 3, key: Key([1; 32]) });
    assert!(puppet.closed, "a number twice");
}

#[test]
fn the_stream_of_a_peer_that_does_not_read_the_answers_is_closed() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    for question in 0..100_000 {
        puppet.say(&mut machine, &Frame::Which { question, keys: &[Key([1; 32])] });
        if puppet.closed {
            break;
        }
    }
    assert_eq!(machine.0.counters().stream_unread, 1);
}

#[test]
fn unauthenticated_streams_displace_each_other_but_no_authenticated_ones() {
    let mut machine = machine();
    let mut honest = Puppet::authenticated(1, &mut machine);
    for seed in 2..60 {
        Puppet::connect(seed, alone(seed), &mut machine);
    }
    assert_eq!(machine.0.streams(), 1 + Limits::default().streams_unauthenticated_max);
    honest.listen(&mut machine);
    assert!(!honest.closed);
    let mut newest = Puppet::authenticated(70, &mut machine);
    newest.say(&mut machine, &Frame::Request { request: 1, key: Key([1; 32]) });
    assert!(!newest.closed);
}

#[test]
fn authenticated_streams_are_bounded_too_and_leave_places_for_this_nodes_own() {
    let mut machine = machine();
    for seed in 1..=48 {
        Puppet::authenticated(seed, &mut machine);
    }
    let refused = Puppet::connect(99, alone(99), &mut machine);
    assert!(refused.closed);
    assert_eq!(machine.0.streams(), 48);
    assert_eq!(machine.0.counters().stream_refused, 1);
}

#[test]
fn another_node_at_the_dialled_address_fails_the_handshake() {
    let mut world = World::new(3);
    let mut contact = world.nodes[1].contact;
    contact.addr = world.nodes[2].contact.addr;
    let now = world.now;
    world.nodes[0].transfer.fetch(now, DownloadId(1), Key([1; 32]), &[contact]);
    world.settle();
    assert_eq!(world.counters(0).handshake_identity, 1);
    assert_eq!(world.counters(0).stream_proven + world.counters(2).stream_proven, 0);
    assert!(world.run(30, |world| world.nodes[0].transfer.download_state(DownloadId(1)).unwrap().idle));
    assert_eq!(world.nodes[0].transfer.download_state(DownloadId(1)).unwrap().failed, 1);
}

#[test]
fn nodes_of_different_networks_refuse_each_other() {
    let mut world = World::new(2);
    let config = TransferConfig::new(Limits::default(), false, 3583);
    world.nodes[1].transfer = Transfer::new(config, Network::new("other"), [5; 32]);
    world.fetch(0, 1, Key([1; 32]), &[1]);
    world.settle();
    assert!(world.counters(0).handshake_network + world.counters(1).handshake_network > 0);
    assert_eq!(world.nodes[0].transfer.streams(), 0);
    assert_eq!(world.nodes[1].transfer.streams(), 0);
}

#[test]
fn a_peer_that_takes_content_but_stalls_on_a_request_is_closed() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    machine.0.fetch(NOW, DownloadId(1), Key([1; 32]), &[puppet.contact()]);
    puppet.listen(&mut machine);
    assert!(!puppet.heard.is_empty(), "it was asked for the root");
    let stall = Timing::default().stall;
    machine.0.handle_sent(NOW + stall / 2, puppet.stream, 1 << 20);
    machine.0.handle_timeout(NOW + stall);
    puppet.listen(&mut machine);
    assert!(puppet.closed && machine.0.counters().stream_stalled == 1);
}

#[test]
fn a_target_that_takes_a_copy_too_slowly_is_closed() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    let length = 256 << 10;
    let (key, content) = (Key([1; 32]), Content::Chunk);
    let offer = Offer {
        key,
        content,
        length,
        input_offset: 1 << 20,
        replicas: 3,
        mode: Mode::UNKNOWN,
        lifetime: 60,
        claim: None,
    };
    let extent = Extent { place: Place::Piece(key), offset: 0, length, stamp: None };
    assert!(machine.0.push(NOW, PushId(1), puppet.contact(), offer, extent));
    puppet.listen(&mut machine);
    let Ok(Parsed::Frame(Frame::Store { request, .. }, _)) = Frame::parse(&puppet.heard) else {
        panic!("nothing offered")
    };
    puppet.say(&mut machine, &Frame::Accept { request, have: false });
    let mut now = NOW;
    while !puppet.closed && now < NOW + Duration::from_secs(600) {
        now = now + Duration::from_secs(1);
        machine.0.handle_sent(now, puppet.stream, 100);
        machine.0.handle_timeout(now);
        puppet.listen(&mut machine);
    }
    assert_eq!(machine.0.counters().stream_slow, 1);
    let lost = |event| matches!(event, TransferEvent::PushDone { result: Err(PushError::Lost), .. });
    assert!(core::iter::from_fn(|| machine.0.poll_event()).any(lost));
}

#[test]
fn an_address_that_takes_every_place_gives_one_up_for_another() {
    let mut machine = machine();
    let everywhere = |seed: u8| SocketAddr::from(([10, 1, 1, seed % 2], 999));
    for seed in 1..=48 {
        Puppet::authenticated_from(seed, everywhere(seed), &mut machine);
    }
    let other = Puppet::authenticated_from(99, SocketAddr::from(([10, 1, 2, 1], 999)), &mut machine);
    assert!(!other.closed);
    assert_eq!(machine.0.streams(), 48);
    assert_eq!(machine.0.counters().stream_crowded, 1);
    let more = Puppet::connect(100, everywhere(0), &mut machine);
    assert!(more.closed, "its party has the most streams already");
}

#[test]
fn banned_sources_that_fill_a_download_give_their_places_to_others() {
    let most = Limits::default().sources_per_download_max;
    let mut world = World::new(most + 2);
    let manifest = world.nodes[most + 1].share(&super::world::content(600_000, 1));
    for liar in 1..=most {
        world.nodes[liar].share(&super::world::content(600_000, 1));
        world.nodes[liar].corrupt = true;
    }
    let all: Vec<usize> = (1..=most + 1).collect();
    world.fetch(0, 1, manifest.hash(), &all);
    assert!(!world.nodes[0].transfer.download_state(DownloadId(1)).unwrap().idle);
    world
        .run(60, |world| world.nodes[0].transfer.download_state(DownloadId(1)).is_some_and(|s| s.banned > 0));
    let state = world.nodes[0].transfer.download_state(DownloadId(1)).unwrap();
    assert!(!state.idle, "a source was turned away, so the download is not over");
    let contacts = world.contacts(&all);
    let now = world.now;
    world.nodes[0].transfer.add_sources(now, DownloadId(1), &contacts);
    assert!(world.run(120, |world| world.is_complete(0, 1)));
}

#[test]
fn the_driver_enforces_the_dial_deadline() {
    let mut machine = machine();
    let identity = Identity::from_secret(&[7; 32]);
    let source = Contact::new(identity.public(), SocketAddr::from(([10, 1, 1, 1], 5)));
    assert!(machine.0.fetch(NOW, DownloadId(1), Key([1; 32]), &[source]));
    let Some(StreamOutput::Connect { dial, contact, until }) = machine.0.poll_output() else {
        panic!("no connection is attempted")
    };
    assert_eq!(contact, source);
    assert_eq!(until, NOW + Duration::from_secs(5));
    machine.0.handle_timeout(until);
    assert_eq!(machine.0.counters().dial_failed, 0);
    machine.0.handle_dial_failed(until, dial);
    assert_eq!(machine.0.counters().dial_failed, 1);
}

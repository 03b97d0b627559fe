//! The node handles a packet without allocating, and keeps few bytes for each share and each piece.

mod common;

use allocation_counter::measure;
use common::{mac_key, network, recipient, sender, vectors};
use elver::disk::{Disk, Intake, Way};
use elver::gossip::GossipConfig;
use elver::id::{IdWork, Key};
use elver::identity::Identity;
use elver::io::{Brought, FileStamp, Mode, PieceMeta, Place, Recovered, Share, ShareState, Sink};
use elver::limits::Limits;
use elver::manifest::{Content, HashAs};
use elver::node::{Node, NodeConfig};
use elver::peers::inbox;
use elver::peers::outbox::{Ask, Attempt, Outbox};
use elver::peers::table::Hold;
use elver::replication::ReplicationConfig;
use elver::time::{Duration, Instant};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Epoch, Unverified};
use elver::wire::frame::{Ephemeral, FRAME_HEAD_BYTES, Frame, Hello, Parsed};
use elver::wire::header::Auth;
use elver::wire::message::{Message, Want};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tempfile::TempDir;

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
fn reading_a_datagram_and_checking_its_mac_allocates_nothing() {
    let (network, sender) = (network(), sender());
    let (public, id) = (sender.public(), sender.id());
    for (name, bytes) in vectors("datagrams-mac") {
        let used = measure(|| {
            let verified = Unverified::parse(&bytes, &network)
                .and_then(|datagram| datagram.authenticate(&network, &mac_key(), &public, &id));
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
    let network = network();
    let ephemeral = Ephemeral::new(&network, [1; 32]);
    let hello = Hello::new(network.id(), recipient().public(), ephemeral.public(), 1, false);
    let keys = ephemeral.agree(&network, true, &hello, &hello).expect("an honest key");
    for (name, mut bytes) in vectors("frames") {
        // Undo the seal for the stream of the vectors.
        bytes[8..FRAME_HEAD_BYTES].fill(0);
        let used = measure(|| assert!(Frame::parse(&bytes).is_ok()));
        assert_eq!(used.count_total, 0, "{name}: {used:?}");
        let Ok(Parsed::Frame(frame, _)) = Frame::parse(&bytes) else { panic!("{name} does not read") };
        let (mut sealed, mut key) = (Vec::new(), keys.ours.clone());
        frame.write_sealed(&mut sealed, &mut keys.ours.clone());
        let used = measure(|| assert!(Frame::open(&sealed, &mut key).is_ok()));
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
    let now = Instant::from_secs(1);
    let limits = Limits { datagrams_queued_max: 8, ..Limits::default() };
    let mut outbox = Outbox::new(network.clone(), sender(), false, Epoch::new(1), &limits, [1; 32]);
    let ask = Ask { to, recipient: Some(node), transaction: 7, attempt: Attempt::First };
    let used = measure(|| {
        for _ in 0..2 {
            for message in &messages {
                outbox.request(now, ask, message);
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

/// Two nodes that exchange datagrams in memory, in virtual time, until they know each other.
struct Pair {
    nodes: [Node; 2],
    now: Instant,
}

const ADDRESSES: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 3583), ([192, 0, 2, 2], 3583)];

fn config(index: usize) -> NodeConfig {
    NodeConfig {
        limits: Limits::default(),
        leaf: false,
        network: "vectors".to_owned(),
        network_secret: None,
        id_work: IdWork::NONE,
        listen: ADDRESSES[index].into(),
        bootstrap: vec![ADDRESSES[1 - index].into()],
        bootstrap_names: Vec::new(),
        lan: false,
        replicas: NodeConfig::REPLICAS,
        lifetime: NodeConfig::LIFETIME,
        cache_dir: "/cache".into(),
        gossip: GossipConfig::default(),
        replication: ReplicationConfig::default(),
    }
}

/// The number of shares, or of pieces, that a node starts with.
const MANY: u64 = 100_000;

fn key(number: u64) -> Key {
    Key(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The bytes of memory that a node keeps for each of [`MANY`] items that it finds when it starts.
fn bytes_each(recovered: impl FnOnce() -> Recovered) -> u64 {
    let mut node = None;
    let used = measure(|| {
        let recovered = recovered();
        let identity = Identity::from_secret(&[1; 32]);
        let mut started =
            Node::new(config(0), identity, &recovered, [1; 32], Instant::from_secs(1)).expect("valid");
        while started.poll_stream().is_some() || started.poll_output().is_some() {}
        node = Some(started);
    });
    drop(node);
    used.bytes_current as u64 / MANY
}

fn shares(replicas: u8) -> Recovered {
    let share = |number: u64| Share {
        hash: key(number),
        length: 4096,
        place: Place::File(Path::new(&format!("/srv/files/{:04}/{number:07}", number / 1000)).into()),
        stamp: FileStamp { length: 4096, modified: 1, changed: 1, ..FileStamp::default() },
        state: ShareState::Present,
        replicas,
        lifetime: NodeConfig::LIFETIME,
        replicated: true,
        synced: true,
    };
    Recovered { shares: (0..MANY).map(share).collect(), ..Recovered::default() }
}

#[test]
fn a_share_takes_as_many_bytes_as_the_limits_say() {
    let only_shared = bytes_each(|| shares(0));
    assert!(only_shared <= Limits::SHARE_BYTES, "{only_shared} bytes a share without copies");
    println!("{only_shared} bytes a share without copies");
    let copied = bytes_each(|| shares(3));
    assert!(
        copied <= Limits::SHARE_BYTES + Limits::CARE_BYTES,
        "{copied} bytes a share whose copies are looked after"
    );
}

#[test]
fn a_piece_takes_as_many_bytes_as_the_limits_say() {
    let piece = |number: u64| PieceMeta {
        key: key(number),
        content: Content::File,
        length: 4096,
        input_offset: 0,
        replicas: 3,
        mode: Mode::UNKNOWN,
        expires: 365 * 86_400,
        claim: None,
        brought: Brought::default(),
    };
    let pieces = || Recovered { pieces: (0..MANY).map(piece).collect(), ..Recovered::default() };
    let bytes = bytes_each(pieces);
    println!("{bytes} bytes a piece");
    assert!(bytes <= Limits::PIECE_BYTES, "{bytes} bytes a piece");
}

impl Pair {
    fn acquainted() -> Pair {
        let now = Instant::from_secs(1);
        let node = |index: usize| {
            let identity = Identity::from_secret(&[1 + index as u8; 32]);
            let recovered = Recovered::default();
            Node::new(config(index), identity, &recovered, [index as u8; 32], now).expect("valid limits")
        };
        let mut pair = Pair { nodes: [node(0), node(1)], now };
        for _ in 0..20 {
            pair.now = pair.now + Duration::from_secs(1);
            let now = pair.now;
            pair.nodes.iter_mut().for_each(|node| node.handle_timeout(now));
            while pair.carry(0) | pair.carry(1) {}
        }
        pair
    }

    /// Carries one node's datagrams to the other. Returns whether there were any.
    fn carry(&mut self, from: usize) -> bool {
        let mut some = false;
        while let Some(bytes) = self.nodes[from].poll_datagram().map(|datagram| datagram.bytes().to_vec()) {
            self.nodes[1 - from].handle_datagram(self.now, ADDRESSES[from].into(), &bytes);
            some = true;
        }
        some
    }
}

#[test]
fn a_node_takes_a_datagram_from_bytes_to_its_answer_without_allocating() {
    let mut pair = Pair::acquainted();
    let now = pair.now;
    let [node, _] = &mut pair.nodes;
    let id = node.id();
    // The next run of the other node. It signs its first two requests; the others have a MAC.
    let (network, identity) = (network(), Identity::from_secret(&[2; 32]));
    let epoch = Epoch::new(77);
    let mut other = Outbox::new(network.clone(), identity, false, epoch, &Limits::default(), [2; 32]);
    let target = Key([7; 32]);
    let questions =
        [Want::Nodes, Want::Value, Want::Providers].map(|want| Message::Find { target, want, padding: 0 });
    // Drain the output of the node's start: it is not part of answering.
    while node.poll_stream().is_some() || node.poll_output().is_some() {}
    for round in 0..3 {
        for message in [Message::Ping { padding: 0 }].iter().chain(&questions) {
            let to = ADDRESSES[0].into();
            let ask = Ask { to, recipient: Some(id), transaction: 5, attempt: Attempt::First };
            other.request(now, ask, message);
            let bytes = other.poll().expect("a request").bytes().to_vec();
            let mut answer = [0; DATAGRAM_BYTES_MAX];
            let mut length = 0;
            let mut answers = 0;
            let used = measure(|| {
                node.handle_datagram(now, ADDRESSES[1].into(), &bytes);
                while let Some(sent) = node.poll_datagram() {
                    length = sent.bytes().len();
                    answer[..length].copy_from_slice(sent.bytes());
                    answers += 1;
                }
                assert!(node.poll_stream().is_none() && node.poll_output().is_none());
            });
            assert_eq!(answers, 1, "each is answered");
            // The first round fills buffers that later rounds reuse.
            assert!(round == 0 || used.count_total == 0, "round {round}: {used:?}");
            let datagram = Unverified::parse(&answer[..length], &network).expect("a sound answer");
            let auth = if round == 0 { datagram.auth() } else { Auth::Mac };
            assert_eq!(datagram.auth(), auth, "nodes that know each other need no signatures");
            assert!(inbox::receive(&mut other, now, to, datagram, true, |_| Hold::Loose).is_ok());
        }
    }
}

#[test]
fn content_gets_from_a_socket_into_its_file_without_allocating() {
    let dir = TempDir::new().expect("a directory");
    let (disk, ..) = Disk::open(&dir.path().join("node")).expect("a directory");
    let bytes = vec![7; 300_000];
    for way in [Way::Spliced, Way::Copied] {
        let (near, mut far) = UnixStream::pair().expect("two ends");
        let place = Place::Incoming(way as u64);
        let sink = Sink { place, offset: 0, length: 300_000, hash_as: HashAs::Root };
        let mut open = disk.open_sink(&sink).expect("a file");
        let mut intake = Intake::new(way);
        let mut take = |part: &[u8]| {
            far.write_all(part).expect("the socket has room");
            let before = open.remaining();
            while (before - open.remaining()) < part.len() as u32 {
                assert!(open.receive(&near, &mut intake).expect("more bytes") > 0);
            }
        };
        // The first use makes the pipe.
        take(&bytes[..50_000]);
        let used = measure(|| bytes[50_000..].chunks(50_000).for_each(&mut take));
        assert_eq!(used.count_total, 0, "{way:?}: {used:?}");
        assert_eq!(open.finish().expect("all is there").0, *blake3::hash(&bytes).as_bytes());
    }
}

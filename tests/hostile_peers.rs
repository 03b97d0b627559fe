//! Real nodes against peers that speak the protocol and mean harm, over real sockets: what they send is refused and
//! counted, costs a bounded amount of memory, and keeps nobody from getting what others have.

#[path = "support/mod.rs"]
mod support;

use elver::id::{Key, NodeId};
use elver::identity::Identity;
use elver::manifest::{Content, Manifest, ManifestBuilder};
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Unverified, write};
use elver::wire::frame::{Frame, Hello, Offer, Parsed, Refusal};
use elver::wire::message::{Announcement, Message, NotStored, Want};
use elver::wire::network::Network;
use elver::wire::provider::ProviderRecord;
use elver::wire::record::sign_record;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{Node, wait_for};
use zerocopy::IntoBytes;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a node may grow by under any of these attacks: a router has 64 MiB.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

fn network() -> Network {
    Network::new("elver test")
}

/// An identity that nobody has had before in this process.
fn somebody() -> Identity {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Identity::from_secret(blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Bytes that no two files share, the same for the same seed.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn manifest(bytes: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new(bytes.len() as u64).expect("a file of a possible length");
    builder.update(bytes);
    builder.finish().expect("all of it")
}

fn counter(node: &Node, name: &str) -> u64 {
    node.status()["counters"][name].as_u64().unwrap_or(0)
}

fn wait_for_counter(node: &Node, name: &str, least: u64) {
    wait_for(name, || (counter(node, name) >= least).then_some(()));
}

// Streams.

/// A hostile peer's end of a stream.
struct Stream {
    socket: TcpStream,
    inbox: Vec<u8>,
}

impl Stream {
    fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(support::LIMIT)).unwrap();
        Stream { socket, inbox: Vec::new() }
    }

    /// Connects and proves to be `identity`.
    fn proven(node: &Node, identity: &Identity) -> Self {
        let mut stream = Stream::new(TcpStream::connect(node.address()).unwrap());
        stream.shake_hands(identity, true).expect("the node shakes hands");
        stream
    }

    fn send(&mut self, frame: &Frame<'_>) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        self.socket.write_all(&bytes)
    }

    /// The bytes of the next frame; `None` when the node has closed the stream.
    fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Parsed::Frame(_, length) = Frame::parse(&self.inbox).expect("the node sends frames") {
                return Some(self.inbox.drain(..length).collect());
            }
            let mut buffer = [0; 16 * KIB];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.inbox.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn shake_hands(&mut self, identity: &Identity, dialled: bool) -> Option<()> {
        let ours = Hello::new(network().id(), identity.public(), [7; 32], 0, false);
        self.send(&Frame::Hello(&ours)).ok()?;
        let theirs = self.frame()?;
        let Ok(Parsed::Frame(Frame::Hello(theirs), _)) = Frame::parse(&theirs) else { return None };
        let (first, second) = if dialled { (&ours, theirs) } else { (theirs, &ours) };
        let digest = network().handshake_digest(dialled, first.as_bytes(), second.as_bytes());
        self.send(&Frame::Proof { signature: &identity.sign(&digest) }).ok()?;
        self.frame().map(|_| ())
    }

    /// Waits until the node has closed the stream.
    fn closed(mut self) {
        while self.frame().is_some() {}
    }
}

/// Sends until the node neither reads nor closes, and says how much it took.
fn push_until_stuck(socket: &mut TcpStream, bytes: &[u8], most: usize) -> usize {
    socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < most {
        match socket.write(bytes) {
            Ok(length) if length == bytes.len() => sent += length,
            // A frame that was cut is of no use to whoever goes on.
            _ => break,
        }
    }
    sent
}

#[test]
fn handshakes_that_prove_nothing_are_refused_and_counted() {
    let node = Node::start(&[]);
    let connect = || Stream::new(TcpStream::connect(node.address()).unwrap());
    let hello = |network: u32, public| Hello::new(network, public, [7; 32], 1, false);
    let own = network().id();

    // A proof that is nobody's.
    let mut forger = connect();
    forger.send(&Frame::Hello(&hello(own, somebody().public()))).unwrap();
    forger.send(&Frame::Proof { signature: &[1; 64] }).unwrap();
    forger.closed();
    wait_for_counter(&node, "handshake_signature", 1);

    let mut stranger = connect();
    stranger.send(&Frame::Hello(&hello(Network::new("museum").id(), somebody().public()))).unwrap();
    stranger.closed();
    wait_for_counter(&node, "handshake_network", 1);

    // The node's own hello, and then its own proof, sent back to it.
    let mut mirror = connect();
    let theirs = mirror.frame().unwrap();
    mirror.socket.write_all(&theirs).unwrap();
    mirror.closed();
    wait_for_counter(&node, "handshake_self", 1);

    // What an honest peer sent on another stream.
    let honest = somebody();
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

    // Anything else before the proof, however well-formed.
    let mut eager = connect();
    eager.send(&Frame::Request { request: 1, key: Key([1; 32]) }).unwrap();
    eager.closed();
    wait_for_counter(&node, "handshake_order", 1);

    let mut giant = connect();
    giant.socket.write_all(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]).unwrap();
    giant.closed();
    wait_for_counter(&node, "frame_length", 1);

    // Half a hello, then silence.
    let mut silent = connect();
    silent.socket.write_all(&[80, 0, 0, 0, 1, 0]).unwrap();
    silent.closed();
    wait_for_counter(&node, "handshake_silent", 1);
    assert_eq!(counter(&node, "stream_proven"), 1);
}

#[test]
fn peers_that_ask_and_never_read_cost_little_and_are_closed() {
    let node = Node::start(&[]);
    let bytes = content(1, 2 * MIB);
    let file = node.dir().join("shared");
    std::fs::write(&file, &bytes).unwrap();
    let address = node.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let key = manifest(&bytes).keys()[0];
    assert!(address.text().contains(&manifest(&bytes).hash().to_string()));
    let before = node.peak_bytes();

    // Of every answer the smallest there is, from as many peers as get in.
    let mut batch = Vec::new();
    for request in 0..500 {
        Frame::Request { request, key: Key([9; 32]) }.write(&mut batch);
        Frame::Cancel { request }.write(&mut batch);
    }
    let mut peers = Vec::new();
    for _ in 0..24 {
        let mut stream = Stream::proven(&node, &somebody());
        push_until_stuck(&mut stream.socket, &batch, 16 * MIB);
        peers.push(stream);
    }
    let asking = somebody();
    let mut stream = Stream::proven(&node, &asking);
    let mut batch = Vec::new();
    for request in 0..1000 {
        Frame::Request { request, key }.write(&mut batch);
    }
    let _ = push_until_stuck(&mut stream.socket, &batch, MIB);
    let mut stream = Stream::proven(&node, &somebody());
    let keys = [key; 128];
    let mut batch = Vec::new();
    Frame::Which { question: 1, keys: &keys }.write(&mut batch);
    let _ = push_until_stuck(&mut stream.socket, &batch, 16 * MIB);

    let growth = node.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
    wait_for_counter(&node, "stream_unread", 20);
    drop(peers);
}

#[test]
fn one_address_cannot_take_every_place() {
    let node = Node::start(&[]);
    // Proven peers that keep their streams busy: each wants something and reads nothing of it.
    let mut crowd: Vec<Stream> = (0..60)
        .filter_map(|_| {
            let mut stream = Stream::new(TcpStream::connect(node.address()).unwrap());
            stream.shake_hands(&somebody(), true)?;
            stream.send(&Frame::Store { request: 1, offer: offer(Content::File, Key([3; 32]), 100) }).ok()?;
            Some(stream)
        })
        .collect();
    // And some that prove nothing, again and again.
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(node.address())).collect();
    let socket = socket_from([127, 0, 2, 1], node.address());
    let mut other = Stream::new(socket);
    assert!(other.shake_hands(&somebody(), true).is_some(), "{}", node.status());
    other.send(&Frame::Which { question: 1, keys: &[Key([1; 32])] }).unwrap();
    assert!(other.frame().is_some());
    drop((silent, crowd.pop()));
}

fn socket_from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn offer(content: Content, key: Key, length: u32) -> Offer {
    Offer { key, content, length, input_offset: 0, replicas: 3, lifetime: 3600 }
}

#[test]
fn offers_that_lie_are_refused_and_those_that_only_promise_make_room_again() {
    let node = Node::start(&["--quota", "8MiB"]);
    let piece = content(3, 1000);
    let key = Key(*blake3::hash(&piece).as_bytes());

    // Other bytes than were offered, three times: nobody listens after that.
    let liar = somebody();
    let mut stream = Stream::proven(&node, &liar);
    for request in 0..3 {
        stream.send(&Frame::Store { request, offer: offer(Content::File, key, 1000) }).unwrap();
        let answer = stream.frame().unwrap();
        assert!(matches!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Accept { have: false, .. }, _))));
        stream.send(&Frame::StoreData { request, length: 1000 }).unwrap();
        stream.socket.write_all(&[request as u8; 1000]).unwrap();
        let answer = stream.frame();
        if request < 2 {
            let mismatch = Frame::Refuse { request, reason: Refusal::Mismatch };
            assert_eq!(Frame::parse(&answer.unwrap()), Ok(Parsed::Frame(mismatch, 16)));
        }
    }
    stream.closed();
    assert_eq!(counter(&node, "offer_mismatch"), 3);
    let mut again = Stream::new(TcpStream::connect(node.address()).unwrap());
    again.shake_hands(&liar, true);
    again.closed();

    // More than was announced.
    let mut stream = Stream::proven(&node, &somebody());
    stream.send(&Frame::Store { request: 1, offer: offer(Content::File, key, 1000) }).unwrap();
    stream.frame().unwrap();
    stream.send(&Frame::StoreData { request: 1, length: 1001 }).unwrap();
    stream.closed();
    wait_for_counter(&node, "frame_unexpected", 1);

    // The whole quota, promised and never sent.
    let mut greedy = Stream::proven(&node, &somebody());
    let chunk = |n: u8| Offer { input_offset: 1 << 20, ..offer(Content::Chunk, Key([n; 32]), 1 << 20) };
    for n in 0..20 {
        greedy.send(&Frame::Store { request: n.into(), offer: chunk(n) }).unwrap();
    }
    wait_for_counter(&node, "offer_refused", 1);
    drop(greedy);
    let mut honest = Stream::proven(&node, &somebody());
    wait_for("the promised room", || {
        honest.send(&Frame::Store { request: 1, offer: offer(Content::File, key, 1000) }).unwrap();
        let answer = honest.frame().unwrap();
        matches!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Accept { have: false, .. }, _))).then_some(())
    });
    honest.send(&Frame::StoreData { request: 1, length: 1000 }).unwrap();
    honest.socket.write_all(&piece).unwrap();
    let answer = honest.frame().unwrap();
    assert_eq!(Frame::parse(&answer), Ok(Parsed::Frame(Frame::Stored { request: 1 }, 16)));
}

// Sources.

/// What a hostile source does with whoever fetches from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Takes the connection and says nothing.
    Mute,
    /// Shakes hands and says nothing more.
    Silent,
    /// Hands out a manifest that is not the file's.
    WrongManifest,
    /// Hands out the file's manifest with another length in it.
    OtherLength,
    /// Hands out the manifest and says that it has every chunk; what it sends is something else.
    WrongChunks,
    /// Closes in the middle of a chunk.
    Breaks,
    /// Sends a half of each chunk and then nothing.
    Stalls,
    /// Sends the root and every chunk a few bytes at a time.
    Drips,
    /// Says that it has everything, and that it is busy.
    Busy,
    /// Says that it has everything, and that it has nothing.
    Denies,
    /// Sends chunks that are longer than they may be.
    TooLong,
}

/// Listens as `identity`, with this habit, until the test program ends.
fn source(identity: Identity, habit: Habit, bytes: &Arc<Vec<u8>>) -> (Arc<Identity>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (identity, bytes) = (Arc::new(identity), Arc::clone(bytes));
    let ours = Arc::clone(&identity);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (identity, bytes) = (Arc::clone(&identity), Arc::clone(&bytes));
            // How it ends is the node's to say.
            std::thread::spawn(move || mislead(Stream::new(socket.ok()?), &identity, habit, &bytes));
        }
        Some(())
    });
    (ours, address)
}

fn mislead(mut stream: Stream, identity: &Identity, habit: Habit, bytes: &[u8]) -> Option<()> {
    if habit == Habit::Mute {
        stream.closed();
        return None;
    }
    stream.shake_hands(identity, false)?;
    let manifest = manifest(bytes);
    loop {
        let frame = stream.frame()?;
        let Ok(Parsed::Frame(frame, _)) = Frame::parse(&frame) else { return None };
        match frame {
            _ if habit == Habit::Silent => {}
            Frame::Which { question, keys } => {
                let mut bitmap = [0; 16];
                (0..keys.len()).for_each(|i| bitmap[i / 8] |= 1 << (i % 8));
                stream.send(&Frame::Have { question, bitmap }).ok()?;
            }
            Frame::Request { request, .. } if habit == Habit::Busy => {
                stream.send(&Frame::Refuse { request, reason: Refusal::Busy }).ok()?;
            }
            Frame::Request { request, .. } if habit == Habit::Denies => {
                stream.send(&Frame::Refuse { request, reason: Refusal::NotFound }).ok()?;
            }
            Frame::Request { request, key } if key == manifest.hash() => {
                let mut encoded = manifest.encode();
                match habit {
                    Habit::WrongManifest => *encoded.last_mut()? ^= 1,
                    Habit::OtherLength => encoded[8] ^= 1,
                    _ => {}
                }
                let length = encoded.len() as u32;
                stream.send(&Frame::Block { request, content: Content::Manifest, length }).ok()?;
                match habit {
                    Habit::Drips => drip(&mut stream, &encoded)?,
                    _ => stream.socket.write_all(&encoded).ok()?,
                }
            }
            Frame::Request { request, key } => {
                let index = manifest.keys().iter().position(|other| *other == key)? as u32;
                let (start, length) = (manifest.chunk_offset(index) as usize, manifest.chunk_length(index));
                let chunk = &bytes[start..start + length as usize];
                let more = u32::from(habit == Habit::TooLong);
                stream
                    .send(&Frame::Block { request, content: Content::Chunk, length: length + more })
                    .ok()?;
                match habit {
                    Habit::Breaks => return stream.socket.write_all(&chunk[..chunk.len() / 2]).ok(),
                    Habit::Stalls => stream.socket.write_all(&chunk[..chunk.len() / 2]).ok()?,
                    Habit::Drips => drip(&mut stream, chunk)?,
                    _ => stream.socket.write_all(&vec![0; (length + more) as usize]).ok()?,
                }
            }
            _ => {}
        }
    }
}

/// Just enough to look alive.
fn drip(stream: &mut Stream, bytes: &[u8]) -> Option<()> {
    for part in bytes.chunks(4200) {
        stream.socket.write_all(part).ok()?;
        std::thread::sleep(Duration::from_millis(1500));
    }
    Some(())
}

/// A node's datagrams, as a hostile peer sends and receives them.
struct Datagrams {
    socket: UdpSocket,
    identity: Arc<Identity>,
    to: SocketAddr,
    node: NodeId,
    sequence: u64,
    token: u64,
    received: Vec<u8>,
}

impl Datagrams {
    fn new(ip: [u8; 4], identity: Arc<Identity>, node: &Node) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (to, id) = (node.address(), node.status()["id"].as_str().unwrap().parse::<Key>().unwrap());
        let (node, received) = (NodeId(id.0), Vec::new());
        Datagrams { socket, identity, to, node, sequence: 0, token: 0, received }
    }

    fn compose(&mut self, message: &Message<'_>) -> Vec<u8> {
        self.sequence += 1;
        let envelope = Envelope {
            recipient: Some(self.node),
            leaf: true,
            sequence: self.sequence,
            transaction: self.sequence,
            token: self.token,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &network(), &self.identity, &envelope, message).expect("it fits");
        out[..length].to_vec()
    }

    fn send(&mut self, message: &Message<'_>) {
        let datagram = self.compose(message);
        self.socket.send_to(&datagram, self.to).unwrap();
    }

    /// The next answer, with its token taken; `None` when none comes.
    fn answer(&mut self) -> Option<Message<'_>> {
        loop {
            let mut buffer = vec![0; 2048];
            let length = self.socket.recv(&mut buffer).ok()?;
            self.received = buffer[..length].to_vec();
            let parsed = Unverified::parse(&self.received, &network()).unwrap();
            if parsed.kind().is_answer() && parsed.transaction() == self.sequence {
                break;
            }
        }
        let parsed = Unverified::parse(&self.received, &network()).unwrap();
        let verified = parsed.verify(&network(), &self.identity.id()).unwrap();
        self.token = verified.token();
        Some(verified.message())
    }

    fn ask(&mut self, message: &Message<'_>) -> Option<Message<'_>> {
        self.send(message);
        self.answer()
    }

    /// Tells the node that this identity serves a file at `address`.
    fn announce(&mut self, file: Key, address: SocketAddr) {
        self.ask(&Message::Ping { padding: 0 }).expect("a pong");
        let provider = ProviderRecord::new(&network(), &self.identity, &file, address, false, 3600, 1);
        let announcements = [Announcement { file, provider }];
        let answer = self.ask(&Message::Announce { announcements: &announcements });
        assert_eq!(answer, Some(Message::Stored { accepted: 1, reason: NotStored::Nothing }));
    }
}

/// Fetches a file from an honest node and so many hostile ones, of which the reader hears first.
fn fetch_among(habit: Habit, count: usize) {
    let honest = Node::start(&[]);
    let bytes = Arc::new(content(habit as u64 + 100, 2 * MIB + 5));
    let file = honest.dir().join("shared");
    std::fs::write(&file, &*bytes).unwrap();
    honest.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = manifest(&bytes).hash();
    let reader = Node::join(&honest, &[]);
    for _ in 0..count {
        let (identity, address) = source(somebody(), habit, &bytes);
        Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
    }
    let before = reader.peak_bytes();
    let target = reader.dir().join("target");
    let ended = reader.elver(["get", &hash.to_string(), "-o", target.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{habit:?}: {}\n{}", ended.stderr, reader.status());
    assert!(std::fs::read(&target).unwrap() == *bytes, "{habit:?}");
    let growth = reader.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{habit:?}: grew by {growth} bytes");
}

#[test]
fn sources_that_say_nothing_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Mute, 6);
    fetch_among(Habit::Silent, 6);
}

#[test]
fn sources_with_wrong_roots_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongManifest, 6);
    fetch_among(Habit::OtherLength, 6);
}

#[test]
fn sources_with_wrong_chunks_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongChunks, 6);
    fetch_among(Habit::TooLong, 6);
}

#[test]
fn sources_that_break_off_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Breaks, 6);
}

#[test]
fn sources_that_stall_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Stalls, 6);
}

#[test]
fn sources_that_drip_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Drips, 6);
}

#[test]
fn sources_that_refuse_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Busy, 6);
    fetch_among(Habit::Denies, 6);
}

#[test]
fn more_liars_than_a_download_has_places_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongManifest, 40);
}

#[test]
fn wrong_content_from_everybody_ends_with_6_and_without_a_file() {
    for habit in [Habit::WrongManifest, Habit::OtherLength, Habit::WrongChunks] {
        let reader = Node::start(&[]);
        let bytes = Arc::new(content(habit as u64 + 200, 2 * MIB + 5));
        let hash = manifest(&bytes).hash();
        for _ in 0..3 {
            let (identity, address) = source(somebody(), habit, &bytes);
            Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
        }
        let target = reader.dir().join("target");
        let ended =
            reader.elver(["get", "--timeout", "15s", &hash.to_string(), "-o", target.to_str().unwrap()]);
        assert_eq!(ended.code, Some(6), "{habit:?}: {}\n{}", ended.stderr, reader.status());
        assert!(!target.exists(), "{habit:?}");
        assert!(counter(&reader, "sources_bad") >= 3, "{habit:?}");
    }
}

// Datagrams.

#[test]
fn a_flood_of_forged_signatures_leaves_known_peers_their_answers() {
    let node = Node::start(&[]);
    let mut known = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
    known.ask(&Message::Ping { padding: 0 }).expect("a pong");
    flood(&node, &mut known, false);
}

#[test]
fn a_flood_from_one_address_that_has_proven_itself_leaves_others_their_answers() {
    let node = Node::start(&[]);
    let mut known = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
    known.ask(&Message::Ping { padding: 0 }).expect("a pong");
    flood(&node, &mut known, true);
}

/// Forged signatures, with a good token or without, while a peer that is known asks whether the node is there.
fn flood(node: &Node, known: &mut Datagrams, with_token: bool) {
    let mut flooder = Datagrams::new([127, 0, 3, 1], Arc::new(somebody()), node);
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
    assert!(answered >= 15, "{answered} of 20 answered: {}", node.status());
}

#[test]
fn an_address_that_has_proven_nothing_gets_at_most_three_times_what_came_from_it() {
    let node = Node::start(&[]);
    // Somebody to tell of, so that answers are as long as they get.
    let _others: Vec<Node> = (0..3).map(|_| Node::join(&node, &[])).collect();
    for message in [
        Message::Ping { padding: 0 },
        Message::Find { target: Key([1; 32]), want: Want::Nodes, padding: 0 },
        Message::Find { target: Key([1; 32]), want: Want::Providers, padding: 240 },
        Message::Leave { for_good: true },
    ] {
        let mut victim = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
        let sent = {
            victim.sequence += 1;
            let envelope = Envelope {
                recipient: Some(victim.node),
                leaf: false,
                sequence: victim.sequence,
                transaction: 1,
                token: 0,
            };
            let mut out = [0; DATAGRAM_BYTES_MAX];
            let length = write(&mut out, &network(), &victim.identity, &envelope, &message).unwrap();
            victim.socket.send_to(&out[..length], victim.to).unwrap();
            length
        };
        // Until nothing has come for longer than any request is repeated after.
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
    let node = Node::start(&[]);
    let mut peer = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
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

    // A token that was given to another address.
    let mut thief = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
    thief.token = peer.token;
    let own = ProviderRecord::new(&network(), &thief.identity, &file, thief.to, false, 60, 1);
    let answer = thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: own }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Token }));

    // What another provider says, and what nobody has signed.
    let theirs = ProviderRecord::new(&network(), &peer.identity, &file, thief.to, false, 60, 9);
    let answer = thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: theirs }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));
    let elsewhere = ProviderRecord::new(&network(), &thief.identity, &Key([6; 32]), thief.to, false, 60, 9);
    let answer =
        thief.ask(&Message::Announce { announcements: &[Announcement { file, provider: elsewhere }] });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));

    // A record under another's key: the signature is not theirs.
    let mut forged = sign_record(&network(), &thief.identity, "name", b"value", 60, 99).unwrap();
    forged[..32].copy_from_slice(&peer.identity.public().0);
    let record = elver::wire::record::Record::parse(&forged).unwrap();
    let answer = thief.ask(&Message::StoreRecord { record });
    assert_eq!(answer, Some(Message::Stored { accepted: 0, reason: NotStored::Signature }));
    assert_eq!(node.status()["records"], 0);
    assert_eq!(node.status()["providers"], 1);
}

#[test]
fn ten_thousand_records_and_providers_stay_within_bounds() {
    let node = Node::start(&[]);
    let mut peer = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
    peer.ask(&Message::Ping { padding: 0 }).expect("a pong");
    peer.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let before = node.peak_bytes();
    let identity = Arc::clone(&peer.identity);
    let value = vec![7; 896];
    for number in 0..2000u64 {
        let name = format!("{number:064}");
        let bytes = sign_record(&network(), &identity, &name, &value, 3600, 1).unwrap();
        let record = elver::wire::record::Record::parse(&bytes).unwrap();
        // What is too much for one second is not answered, and said again.
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
    let status = node.status();
    assert_eq!(status["records"], 1024);
    assert_eq!(status["providers"], 4096);
    let growth = node.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

#[test]
fn a_node_that_names_nodes_that_are_not_there_delays_a_lookup_and_does_not_stop_it() {
    let node = Node::start(&[]);
    let honest = Node::join(&node, &[]);
    let address = honest.elver(["set", "channel", "stable"]).expect(0).text().trim().to_owned();
    // It enters the table by shaking hands and answering, and then speaks of nobody.
    let identity = Arc::new(somebody());
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
                    WireContact::new(&Contact::new(somebody().public(), addr), 1)
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
                sequence,
                transaction: request.transaction(),
                token: 7,
            };
            let mut out = [0; DATAGRAM_BYTES_MAX];
            let length = write(&mut out, &network(), &identity, &envelope, &answer).unwrap();
            let _ = socket.send_to(&out[..length], from);
        }
    });
    let envelope = Envelope { recipient: Some(id), leaf: false, sequence: 1, transaction: 1, token: 0 };
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
    let node = Node::start(&[]);
    let _other = Node::join(&node, &[]);
    let mut stranger = Datagrams::new([127, 0, 0, 1], Arc::new(somebody()), &node);
    let mut forged = stranger.compose(&Message::Leave { for_good: true });
    let refused = counter(&node, "datagrams_refused_signature");
    *forged.last_mut().unwrap() ^= 1;
    stranger.socket.send_to(&forged, stranger.to).unwrap();
    stranger.send(&Message::Leave { for_good: true });
    wait_for_counter(&node, "datagrams_refused_signature", refused + 1);
    assert_eq!(node.status()["peers"], 1);
    let elsewhere = Network::new("museum");
    let envelope = Envelope { recipient: None, leaf: false, sequence: 1, transaction: 1, token: 0 };
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let ping = Message::Ping { padding: 0 };
    let length = write(&mut out, &elsewhere, &stranger.identity, &envelope, &ping).unwrap();
    stranger.socket.send_to(&out[..length], stranger.to).unwrap();
    wait_for_counter(&node, "datagrams_refused_network", 1);
}

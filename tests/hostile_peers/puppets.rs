//! Hostile peers: ends of streams, sources that misbehave, and senders of datagrams.

use crate::support::{Node, wait_for};
use elver::id::{Key, NodeId};
use elver::identity::Identity;
use elver::io::Mode;
use elver::manifest::{Content, Manifest, ManifestBuilder};
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write};
use elver::wire::frame::{Ephemeral, Frame, Hello, Offer, Parsed, Refusal, StreamKeys};
use elver::wire::message::{Announcement, Message, NotStored};
use elver::wire::network::Network;
use elver::wire::provider::ProviderRecord;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

/// The most bytes that a node's memory may grow by under any of these attacks: a router has 64 MiB.
pub(crate) const GROWTH_BYTES_MAX: u64 = 24 << 20;

pub(crate) fn network() -> Network {
    Network::new("elver test")
}

/// A fresh identity, different from every other one in this process.
pub(crate) fn new_identity() -> Identity {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Identity::from_secret(blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Content that depends only on the seed and differs between seeds.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn manifest(bytes: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new(bytes.len() as u64).expect("a file of a possible length");
    builder.update(bytes);
    builder.finish().expect("all of it")
}

pub(crate) fn counter(node: &Node, name: &str) -> u64 {
    node.status_json()["counters"][name].as_u64().unwrap_or(0)
}

pub(crate) fn wait_for_counter(node: &Node, name: &str, least: u64) {
    wait_for(name, || (counter(node, name) >= least).then_some(()));
}

/// A hostile peer's end of a stream.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    inbox: Vec<u8>,
    keys: Option<StreamKeys>,
}

/// The ephemeral key of every hostile peer. A node draws its own, so no two streams have the same keys.
pub(crate) fn ephemeral() -> Ephemeral {
    Ephemeral::new(&network(), [7; 32])
}

impl Stream {
    pub(crate) fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
        Stream { socket, inbox: Vec::new(), keys: None }
    }

    /// Connects and completes the handshake as `identity`.
    pub(crate) fn proven(node: &Node, identity: &Identity) -> Self {
        let mut stream = Stream::new(TcpStream::connect(node.addr).unwrap());
        stream.shake_hands(identity, true).expect("the node shakes hands");
        stream
    }

    /// The bytes of frames, sealed once the handshake is over.
    fn written(&mut self, frames: &[Frame<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            match &mut self.keys {
                Some(keys) => frame.write_sealed(&mut bytes, &mut keys.ours),
                None => frame.write(&mut bytes),
            }
        }
        bytes
    }

    pub(crate) fn send(&mut self, frame: &Frame<'_>) -> std::io::Result<()> {
        let bytes = self.written(core::slice::from_ref(frame));
        self.socket.write_all(&bytes)
    }

    /// The bytes of the next frame, opened; `None` when the node has closed the stream.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            let next = match &mut self.keys {
                Some(keys) => Frame::open(&self.inbox, &mut keys.theirs),
                None => Frame::parse(&self.inbox),
            };
            if let Parsed::Frame(frame, length) = next.expect("the node sends frames") {
                let mut opened = Vec::new();
                frame.write(&mut opened);
                self.inbox.drain(..length);
                return Some(opened);
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

    pub(crate) fn shake_hands(&mut self, identity: &Identity, dialled: bool) -> Option<()> {
        let ours = Hello::new(network().id(), identity.public(), ephemeral().public(), 0, false);
        self.send(&Frame::Hello(&ours)).ok()?;
        let theirs = self.frame()?;
        let Ok(Parsed::Frame(Frame::Hello(theirs), _)) = Frame::parse(&theirs) else { return None };
        let (first, second) = if dialled { (&ours, theirs) } else { (theirs, &ours) };
        let digest = network().handshake_digest(dialled, first.as_bytes(), second.as_bytes());
        self.send(&Frame::Proof { signature: &identity.sign(&digest) }).ok()?;
        let keys = ephemeral().agree(&network(), dialled, &ours, theirs);
        let proof = self.frame();
        self.keys = keys;
        proof.map(|_| ())
    }

    /// Repeats frames until a write blocks or fails, or until `most` bytes are sent.
    pub(crate) fn push_until_stuck(&mut self, frames: &[Frame<'_>], most: usize) {
        self.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut sent = 0;
        while sent < most {
            let bytes = self.written(frames);
            match self.socket.write(&bytes) {
                Ok(length) if length == bytes.len() => sent += length,
                // After a partial write the stream ends in a cut frame, so nothing can follow it.
                _ => break,
            }
        }
    }

    /// Waits until the node has closed the stream.
    pub(crate) fn closed(mut self) {
        while self.frame().is_some() {}
    }
}

pub(crate) fn socket_from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

pub(crate) fn offer(content: Content, key: Key, length: u32) -> Offer {
    Offer {
        key,
        content,
        length,
        input_offset: 0,
        replicas: 3,
        mode: Mode::UNKNOWN,
        lifetime: 3600,
        claim: None,
    }
}

/// How a hostile source treats a peer that fetches from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// Accepts the connection and sends nothing.
    Mute,
    /// Completes the handshake and sends nothing more.
    Silent,
    /// Sends a manifest that is not the file's.
    WrongManifest,
    /// Sends the file's manifest with another length in it.
    OtherLength,
    /// Sends the manifest, claims every chunk, and sends wrong bytes for the chunks.
    WrongChunks,
    /// Closes the stream in the middle of a chunk.
    Breaks,
    /// Sends half of each chunk and then nothing.
    Stalls,
    /// Sends the root and every chunk a few bytes at a time.
    Drips,
    /// Claims every chunk, then answers that it is busy.
    Busy,
    /// Claims every chunk, then answers that it has none.
    Denies,
    /// Sends chunks that are longer than allowed.
    TooLong,
    /// Announces every chunk repeatedly, names sources that do not exist, and sends no chunk.
    Boasts,
}

/// Listens as `identity` and behaves by `habit` until the test program ends.
pub(crate) fn source(identity: Identity, habit: Habit, bytes: &Arc<Vec<u8>>) -> (Arc<Identity>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (identity, bytes) = (Arc::new(identity), Arc::clone(bytes));
    let ours = Arc::clone(&identity);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (identity, bytes) = (Arc::clone(&identity), Arc::clone(&bytes));
            // The node judges how the stream ends.
            std::thread::spawn(move || mislead(Stream::new(socket.ok()?), &identity, habit, &bytes));
        }
        Some(())
    });
    (ours, address)
}

pub(crate) fn mislead(mut stream: Stream, identity: &Identity, habit: Habit, bytes: &[u8]) -> Option<()> {
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
            Frame::Follow { file, over: false } if habit == Habit::Boasts => {
                boast(&mut stream, file, &manifest)?
            }
            Frame::Request { request, .. } if matches!(habit, Habit::Denies | Habit::Boasts) => {
                stream.send(&Frame::Refuse { request, reason: Refusal::NotFound }).ok()?;
                if habit == Habit::Boasts {
                    boast(&mut stream, manifest.hash(), &manifest)?;
                }
            }
            Frame::Request { request, key } if key == manifest.hash() => {
                let mut encoded = manifest.encode();
                match habit {
                    Habit::WrongManifest => *encoded.last_mut()? ^= 1,
                    Habit::OtherLength => encoded[8] ^= 1,
                    _ => {}
                }
                let length = encoded.len() as u32;
                stream
                    .send(&Frame::Block { request, content: Content::Manifest, length, mode: Mode::UNKNOWN })
                    .ok()?;
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
                    .send(&Frame::Block {
                        request,
                        content: Content::Chunk,
                        length: length + more,
                        mode: Mode::UNKNOWN,
                    })
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

/// Listens as `identity`. Serves the file `wrong` with zeros for chunks and the file `right` unchanged. Sends to `told` the
/// pieces that a peer reports as not verifying.
pub(crate) fn source_of_two(
    identity: Identity,
    wrong: &Arc<Vec<u8>>,
    right: &Arc<Vec<u8>>,
    told: Sender<Key>,
) -> (Arc<Identity>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (identity, wrong, right) = (Arc::new(identity), Arc::clone(wrong), Arc::clone(right));
    let ours = Arc::clone(&identity);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { return };
            let (identity, wrong, right) = (Arc::clone(&identity), Arc::clone(&wrong), Arc::clone(&right));
            let told = told.clone();
            std::thread::spawn(move || serve_two(Stream::new(socket), &identity, &[&wrong, &right], &told));
        }
    });
    (ours, address)
}

/// Serves the first of two files with zeros for chunks.
fn serve_two(
    mut stream: Stream,
    identity: &Identity,
    files: &[&Vec<u8>; 2],
    told: &Sender<Key>,
) -> Option<()> {
    stream.shake_hands(identity, false)?;
    let manifests = files.map(|bytes| manifest(bytes));
    loop {
        let frame = stream.frame()?;
        let Ok(Parsed::Frame(frame, _)) = Frame::parse(&frame) else { return None };
        match frame {
            Frame::Unverified { key } => told.send(key).ok()?,
            Frame::Which { question, keys } => {
                let mut bitmap = [0; 16];
                let has = |key: &Key| manifests.iter().any(|manifest| manifest.keys().contains(key));
                (0..keys.len()).filter(|&i| has(&keys[i])).for_each(|i| bitmap[i / 8] |= 1 << (i % 8));
                stream.send(&Frame::Have { question, bitmap }).ok()?;
            }
            Frame::Request { request, key } => {
                let file = manifests.iter().position(|it| it.hash() == key || it.keys().contains(&key));
                let Some(file) = file else {
                    stream.send(&Frame::Refuse { request, reason: Refusal::NotFound }).ok()?;
                    continue;
                };
                let manifest = &manifests[file];
                let (content, bytes) = match manifest.keys().iter().position(|chunk| *chunk == key) {
                    None => (Content::Manifest, manifest.encode()),
                    Some(index) => {
                        let index = index as u32;
                        let (start, length) = (manifest.chunk_offset(index), manifest.chunk_length(index));
                        let chunk = files[file][start as usize..][..length as usize].to_vec();
                        (Content::Chunk, if file == 0 { vec![0; chunk.len()] } else { chunk })
                    }
                };
                let length = bytes.len() as u32;
                stream.send(&Frame::Block { request, content, length, mode: Mode::UNKNOWN }).ok()?;
                stream.socket.write_all(&bytes).ok()?;
            }
            // A request is fully answered before its cancellation arrives.
            _ => {}
        }
    }
}

/// Announces every chunk once more, and names sixteen sources at an address where no node listens.
fn boast(stream: &mut Stream, file: Key, manifest: &Manifest) -> Option<()> {
    let chunks: Vec<U32> = (0..manifest.chunk_count()).map(U32::new).collect();
    stream.send(&Frame::Gained { file, chunks: &chunks }).ok()?;
    let nowhere = || Contact::new(new_identity().public(), SocketAddr::from(([127, 0, 0, 77], 9)));
    let contacts: Vec<WireContact> = (0..16).map(|_| WireContact::new(&nowhere(), 0)).collect();
    stream.send(&Frame::Sources { file, contacts: &contacts }).ok()
}

/// Sends `bytes` just fast enough to look alive.
pub(crate) fn drip(stream: &mut Stream, bytes: &[u8]) -> Option<()> {
    for part in bytes.chunks(4200) {
        stream.socket.write_all(part).ok()?;
        std::thread::sleep(Duration::from_millis(1500));
    }
    Some(())
}

/// A hostile peer that exchanges datagrams with a node.
pub(crate) struct Datagrams {
    pub(crate) socket: UdpSocket,
    pub(crate) identity: Arc<Identity>,
    pub(crate) to: SocketAddr,
    pub(crate) node: NodeId,
    pub(crate) sequence: u64,
    pub(crate) token: u64,
    pub(crate) received: Vec<u8>,
}

impl Datagrams {
    pub(crate) fn new(ip: [u8; 4], identity: Arc<Identity>, node: &Node) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (to, id) = (node.addr, node.status_json()["id"].as_str().unwrap().parse::<Key>().unwrap());
        let (node, received) = (NodeId(id.0), Vec::new());
        Datagrams { socket, identity, to, node, sequence: 0, token: 0, received }
    }

    pub(crate) fn compose(&mut self, message: &Message<'_>) -> Vec<u8> {
        self.sequence += 1;
        let envelope = Envelope {
            recipient: Some(self.node),
            leaf: true,
            epoch: Epoch::new(1),
            sequence: self.sequence,
            transaction: self.sequence,
            token: self.token,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &network(), &self.identity, &envelope, message).expect("it fits");
        out[..length].to_vec()
    }

    pub(crate) fn send(&mut self, message: &Message<'_>) {
        let datagram = self.compose(message);
        self.socket.send_to(&datagram, self.to).unwrap();
    }

    /// The next answer; `None` when none comes. The peer keeps the token in it.
    pub(crate) fn answer(&mut self) -> Option<Message<'_>> {
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

    pub(crate) fn ask(&mut self, message: &Message<'_>) -> Option<Message<'_>> {
        self.send(message);
        self.answer()
    }

    /// Announces to the node that this identity provides the file at `address`.
    pub(crate) fn announce(&mut self, file: Key, address: SocketAddr) {
        self.ask(&Message::Ping { padding: 0 }).expect("a pong");
        let provider = ProviderRecord::new(&network(), &self.identity, &file, address, false, 3600, 1);
        let announcements = [Announcement { file, provider }];
        let answer = self.ask(&Message::Announce { announcements: &announcements });
        assert_eq!(answer, Some(Message::Stored { accepted: 1, reason: NotStored::Nothing }));
    }
}

//! Composes every vector from fixed keys and values.

use crate::common::{mac_key, network, recipient, sender};
use elver::id::{Key, PublicKey};
use elver::identity::{Digest, Identity};
use elver::io::Mode;
use elver::manifest::{CHUNK_BYTES_MIN, Content, Manifest, ManifestBuilder};
use elver::wire::claim::sign_claim;
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{
    DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write, write_challenge, write_mac,
};
use elver::wire::frame::{
    Ephemeral, Frame, GAINED_CHUNKS_MAX, Hello, Offer, Refusal, SOURCES_MAX, StreamKeys, WHICH_KEYS_MAX,
};
use elver::wire::gossip::{GossipBody, Hops};
use elver::wire::header::{Auth, flags};
use elver::wire::inspect::{Held, INSPECT_KEYS_MAX, InspectEntry, RepairPhase, WireInspectEntry};
use elver::wire::message::{Announcement, Message, NotStored, PADDING_BYTES, ProbeOutcome, Want};
use elver::wire::provider::ProviderRecord;
use elver::wire::reconcile::{
    Answer, AnswerWriter, Answers, RANGES_MAX, Scope, Summary, WirePart, WireRange, prefix,
};
use elver::wire::record::{NAME_BYTES_MAX, Record, VALUE_BYTES_MAX, sign_record};
use elver::wire::state::{About, NodeState, StateMark};
use std::net::SocketAddr;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

/// A message in its wire form.
pub(crate) struct Vector {
    /// The name of its file.
    pub(crate) name: &'static str,
    /// A description for readers of the file.
    pub(crate) about: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Vector {
    fn new(name: &'static str, about: impl Into<String>, bytes: Vec<u8>) -> Self {
        Vector { name, about: about.into(), bytes }
    }
}

/// The publisher of the value records.
pub(crate) fn publisher() -> Identity {
    Identity::from_secret(&[3; 32])
}

fn key(byte: u8) -> Key {
    Key([byte; 32])
}

fn ipv4() -> SocketAddr {
    "192.0.2.7:3583".parse().expect("an address")
}

fn ipv6() -> SocketAddr {
    "[2001:db8::7]:3583".parse().expect("an address")
}

/// The file that the provider records of the vectors are about.
pub(crate) fn provided_file() -> Key {
    key(0x66)
}

fn provider(number: u8) -> ProviderRecord {
    let identity = Identity::from_secret(&[4 + number; 32]);
    let addr = SocketAddr::new(ipv4().ip(), 3583 + u16::from(number));
    ProviderRecord::new(&network(), &identity, &provided_file(), addr, number % 2 == 1, 3600, 40)
}

fn record(name: &str, value: &[u8]) -> Vec<u8> {
    sign_record(&network(), &publisher(), name, value, 86_400, 12).expect("an allowed record")
}

fn small_record() -> Vec<u8> {
    record("greeting", "Grüße".as_bytes())
}

fn largest_record() -> Vec<u8> {
    record(&"n".repeat(NAME_BYTES_MAX), &[0xee; VALUE_BYTES_MAX])
}

fn contacts(count: u8) -> Vec<WireContact> {
    let contact = |number: u8| {
        let public = Identity::from_secret(&[100 + number; 32]).public();
        let ip = if number % 3 == 2 { ipv6().ip() } else { ipv4().ip() };
        let addr = SocketAddr::new(ip, 4000 + u16::from(number));
        WireContact::new(&Contact::new(public, addr), u32::from(number) * 10)
    };
    (0..count).map(contact).collect()
}

fn state(number: u8) -> NodeState {
    let about = About {
        addrs: [Some(ipv4()), (number % 2 == 1).then(ipv6)],
        leaf: number == 3,
        away: number == 4,
        gone: number == 5,
        load: 10 * u16::from(number),
        chunks: 1000 + u32::from(number),
        version: [0, 1, 0, 0],
        free_bytes: 1 << 30,
    };
    NodeState::new(&network(), &Identity::from_secret(&[4 + number; 32]), &about, 1 << 32 | 7)
}

/// The hop counts of a message with `states` new states. The last of them travelled over `hops` nodes.
fn told(states: usize, hops: u8) -> Hops {
    let mut all = Hops::NO_NEWS;
    (0..states).for_each(|index| all.set(index, 0));
    all.set(states - 1, hops);
    all
}

fn marks(first: u8, count: u8) -> Vec<StateMark> {
    (first..first + count).map(|number| StateMark::new([number; 8], 1 << 32 | u64::from(number))).collect()
}

/// The sender's epoch.
fn epoch() -> Epoch {
    Epoch::new(0x4142_4344_4546)
}

fn envelope(first: bool, leaf: bool) -> Envelope {
    Envelope {
        recipient: (!first).then(|| recipient().id()),
        leaf,
        epoch: epoch(),
        sequence: 0x0102_0304_0506_0708,
        transaction: 0x1112_1314_1516_1718,
        token: if first { 0 } else { 0x2122_2324_2526_2728 },
    }
}

fn datagram(message: &Message<'_>, first: bool, leaf: bool) -> Vec<u8> {
    let envelope = envelope(first, leaf);
    let mut bytes = [0; DATAGRAM_BYTES_MAX];
    let length = write(&mut bytes, &network(), &sender(), &envelope, message).expect("a message that fits");
    bytes[..length].to_vec()
}

fn datagram_with_mac(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = [0; DATAGRAM_BYTES_MAX];
    let envelope = envelope(false, false);
    let length = write_mac(&mut bytes, &network(), &sender(), &mac_key(), &envelope, message);
    bytes[..length.expect("a message that fits")].to_vec()
}

fn parsed(record: &[u8]) -> Record<'_> {
    Record::parse(record).expect("a well-formed record")
}

/// At least one datagram of each kind.
pub(crate) fn datagrams() -> Vec<Vector> {
    let mut vectors = requests();
    vectors.extend(answers());
    vectors.extend(membership());
    vectors.push(here());
    vectors
}

/// What a node tells its link.
fn here() -> Vector {
    let envelope = Envelope { token: 0, ..envelope(true, false) };
    let mark = network().presence_mark(&sender().id().short(), envelope.epoch, envelope.sequence);
    Vector::new(
        "here",
        "a node tells its link that it is there",
        datagram(&Message::Here { mark }, true, false),
    )
}

/// One datagram of each kind that may have a MAC, and the longest.
pub(crate) fn datagrams_with_mac() -> Vec<Vector> {
    let (network, node) = (network(), recipient().id());
    let mut vectors: Vec<Vector> = Vec::new();
    let mut kinds = Vec::new();
    for signed in datagrams() {
        let datagram = Unverified::parse(&signed.bytes, &network).expect(signed.name);
        let message = datagram.verify(&network, &node).expect(signed.name).message();
        let first = signed.bytes[3] & flags::RECIPIENT_UNKNOWN != 0;
        if !first && datagram.kind().allows(Auth::Mac) && !kinds.contains(&signed.bytes[1]) {
            kinds.push(signed.bytes[1]);
            vectors.push(Vector::new(signed.name, signed.about, datagram_with_mac(&message)));
        }
    }
    let twenty = contacts(20);
    let found = Message::Found { contacts: &twenty, providers: &[], record: None };
    let about = "a found of as many contacts as fit";
    vectors.push(Vector::new("found-twenty-nodes", about, datagram_with_mac(&found)));
    vectors
}

/// The answer to a ping with a MAC that its recipient cannot check.
pub(crate) fn challenges() -> Vec<Vector> {
    let (network, ping) = (network(), datagram_with_mac(&Message::Ping { padding: 0 }));
    let request = Unverified::parse(&ping, &network).expect("a ping");
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let token = 0x3132_3334_3536_3738;
    let length = write_challenge(&mut out, &network, &recipient(), epoch(), token, &request);
    let bytes = out[..length.expect("a challenge")].to_vec();
    vec![Vector::new("challenge", "the recipient's challenge of the ping with a MAC", bytes)]
}

/// Gossips, probes and their replies.
fn membership() -> Vec<Vector> {
    let known =
        |name, about: &str, message: &Message<'_>| Vector::new(name, about, datagram(message, false, false));
    let states: Vec<NodeState> = (0..6).map(state).collect();
    let (digest, suspicions) = (marks(10, 48), marks(200, 6));
    let alone = GossipBody {
        states: &states[..1],
        digest: &[],
        nearest: 0,
        whole: true,
        hops: told(1, 0),
        suspicions: &[],
    };
    let part = GossipBody {
        states: &states[..2],
        digest: &digest[..32],
        nearest: 16,
        whole: false,
        hops: told(2, 3),
        suspicions: &suspicions[..1],
    };
    let full = GossipBody {
        states: &states,
        digest: &[],
        nearest: 0,
        whole: false,
        hops: told(6, 14),
        suspicions: &suspicions,
    };
    let target = recipient().id();
    let reply = |outcome| Message::ProbeReply { target: target.short(), outcome };
    vec![
        known("gossip-alone", "a gossip of a node that knows nobody", &Message::Gossip(alone)),
        known("gossip", "a gossip with a rumour, a digest and a suspicion", &Message::Gossip(part)),
        known("gossip-reply", "a reply that has nothing to add", &Message::GossipReply(alone)),
        known("gossip-reply-full", "a reply of as many states as fit", &Message::GossipReply(full)),
        known("probe", "a probe of a member through the recipient", &Message::Probe { target }),
        known("probe-reply-silent", "the member did not answer", &reply(ProbeOutcome::Silent)),
        known("probe-reply-answered", "the member answered", &reply(ProbeOutcome::Answered)),
        known("probe-reply-unknown", "the member was not asked", &reply(ProbeOutcome::Unknown)),
    ]
}

fn requests() -> Vec<Vector> {
    let known =
        |name, about: &str, message: &Message<'_>| Vector::new(name, about, datagram(message, false, false));
    let first =
        |name, about: &str, message: &Message<'_>| Vector::new(name, about, datagram(message, true, false));
    let (small, largest) = (small_record(), largest_record());
    let announcements: Vec<Announcement> =
        (0..6).map(|number| Announcement { file: provided_file(), provider: provider(number) }).collect();
    let find = |want, padding| Message::Find { target: key(0x55), want, padding };
    let leaf_ping = datagram(&Message::Ping { padding: 0 }, false, true);
    vec![
        known("ping", "a ping to a known node", &Message::Ping { padding: 0 }),
        first("ping-first", "a padded ping to an unknown node", &Message::Ping { padding: PADDING_BYTES }),
        Vector::new("ping-leaf", "a ping of a leaf", leaf_ping),
        known("find-nodes", "a find that wants contacts only", &find(Want::Nodes, 0)),
        known("find-value", "a find that wants a value record", &find(Want::Value, 0)),
        first(
            "find-providers-first",
            "a padded find for providers to an unknown node",
            &find(Want::Providers, PADDING_BYTES),
        ),
        known("store-record", "a value record", &Message::StoreRecord { record: parsed(&small) }),
        known(
            "store-record-largest",
            "the largest value record",
            &Message::StoreRecord { record: parsed(&largest) },
        ),
        known("announce", "one announcement", &Message::Announce { announcements: &announcements[..1] }),
        known(
            "announce-six",
            "as many announcements as fit",
            &Message::Announce { announcements: &announcements },
        ),
        known("leave", "a leave for a while", &Message::Leave { for_good: false, sequence: 1 << 32 | 8 }),
        known(
            "leave-for-good",
            "a leave for good",
            &Message::Leave { for_good: true, sequence: 1 << 32 | 9 },
        ),
        known(
            "reconcile",
            "the first question of a reconciliation: one range, the whole key space",
            &Message::Reconcile { salt: 0x3132_3334_3536_3738, ranges: &ranges(1) },
        ),
        known(
            "reconcile-full",
            "a reconcile of as many ranges as fit",
            &Message::Reconcile { salt: 0x3132_3334_3536_3738, ranges: &ranges(RANGES_MAX as u64) },
        ),
    ]
}

/// The key space in `count` ranges of about the same width. Every other range has the scope `Kept`.
fn ranges(count: u64) -> Vec<WireRange> {
    let width = u64::MAX / count;
    let range = |index: u64| {
        let last = if index + 1 == count { u64::MAX } else { (index + 1) * width - 1 };
        let scope = if index % 2 == 0 { Scope::Shared } else { Scope::Kept };
        WireRange::new(index * width, last, scope, summary(index as u8))
    };
    (0..count).map(range).collect()
}

/// The summary of a range with `3 + number` keys.
fn summary(number: u8) -> Summary {
    let mut summary = Summary::default();
    (0..3 + number).for_each(|index| summary.add(&key(index), 0x3132_3334_3536_3738));
    summary
}

/// One answer of each kind.
fn reconciled(out: &mut [u8]) -> Answers<'_> {
    let parts = [WirePart::new(0x0fff_ffff_ffff_ffff, summary(1)), WirePart::new(u64::MAX, summary(2))];
    let keys = [prefix(&key(0x21)), prefix(&key(0x22)), prefix(&key(0x23))];
    let mut writer = AnswerWriter::new(out);
    for answer in [
        Answer::Equal,
        Answer::Split(&parts),
        Answer::Keys(&keys),
        Answer::Keys(&[]),
        Answer::Later,
        Answer::Refused,
    ] {
        assert!(writer.put(&answer));
    }
    writer.finish().expect("sound answers")
}

fn answers() -> Vec<Vector> {
    let known =
        |name, about: &str, message: &Message<'_>| Vector::new(name, about, datagram(message, false, false));
    let (small, largest) = (small_record(), largest_record());
    let contacts = contacts(19);
    let providers = [provider(0), provider(1)];
    let nothing = Message::Found { contacts: &[], providers: &[], record: None };
    let nodes = Message::Found { contacts: &contacts, providers: &[], record: None };
    let mixed =
        Message::Found { contacts: &contacts[..4], providers: &providers, record: Some(parsed(&small)) };
    let value = Message::Found { contacts: &[], providers: &[], record: Some(parsed(&largest)) };
    vec![
        known("pong-ipv4", "a pong to an IPv4 address", &Message::Pong { observed: ipv4() }),
        known("pong-ipv6", "a pong to an IPv6 address", &Message::Pong { observed: ipv6() }),
        known("found-nothing", "a found of nothing", &nothing),
        known("found-nodes", "a found of as many contacts as fit", &nodes),
        known("found-mixed", "a found of contacts, providers and a value record", &mixed),
        known("found-largest-value", "a found of the largest value record", &value),
        known("stored", "two records stored", &Message::Stored { accepted: 2, reason: NotStored::Nothing }),
        known(
            "stored-not",
            "none stored for want of a token",
            &Message::Stored { accepted: 0, reason: NotStored::Token },
        ),
        known(
            "reconciled",
            "an answer of each sort to a reconcile",
            &Message::Reconciled { answers: reconciled(&mut [0; 256]) },
        ),
        known(
            "reconciled-equal",
            "the end of a reconciliation of equal sets",
            &Message::Reconciled { answers: Answers::parse(&[0; 8]).expect("an equal") },
        ),
    ]
}

/// The ephemeral keys of the connecting end and of the accepting end.
fn ephemerals() -> (Ephemeral, Ephemeral) {
    (Ephemeral::new(&network(), [0xa1; 32]), Ephemeral::new(&network(), [0xb2; 32]))
}

/// The hellos of one stream: the connecting end's and the accepting end's.
pub(crate) fn hellos() -> (Hello, Hello) {
    let hello = |identity: Identity, ephemeral: Ephemeral, leaf| {
        Hello::new(network().id(), identity.public(), ephemeral.public(), 3583, leaf)
    };
    let (connector, acceptor) = ephemerals();
    (hello(sender(), connector, false), hello(recipient(), acceptor, true))
}

/// The keys of that stream: the connecting end's and the accepting end's.
pub(crate) fn stream_keys() -> (StreamKeys, StreamKeys) {
    let ((connector, acceptor), (first, second)) = (ephemerals(), hellos());
    let ours = connector.agree(&network(), true, &first, &second).expect("an honest key");
    let theirs = acceptor.agree(&network(), false, &second, &first).expect("an honest key");
    (ours, theirs)
}

/// The digest that one end of that stream signs.
pub(crate) fn handshake_digest(connected: bool) -> Digest {
    let (connector, acceptor) = hellos();
    network().handshake_digest(connected, connector.as_bytes(), acceptor.as_bytes())
}

/// At least one frame of each kind.
pub(crate) fn frames() -> Vec<Vector> {
    let (connector, acceptor) = hellos();
    let proof_connector = sender().sign(&handshake_digest(true));
    let proof_acceptor = recipient().sign(&handshake_digest(false));
    let unsealed = |name, about: &str, frame: &Frame<'_>| {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        Vector::new(name, about, bytes)
    };
    let mut vectors = vec![
        unsealed("hello", "the hello of the end that connected", &Frame::Hello(&connector)),
        unsealed("hello-leaf", "the hello of the end that accepted, a leaf", &Frame::Hello(&acceptor)),
        unsealed(
            "proof",
            "the proof of the end that connected",
            &Frame::Proof { signature: &proof_connector },
        ),
        unsealed(
            "proof-acceptor",
            "the proof of the end that accepted",
            &Frame::Proof { signature: &proof_acceptor },
        ),
    ];
    vectors.extend(exchanges());
    vectors
}

/// A vector of the first frame that the connecting end sends after the handshake.
fn frame(name: &'static str, about: &str, frame: &Frame<'_>) -> Vector {
    let mut bytes = Vec::new();
    frame.write_sealed(&mut bytes, &mut stream_keys().0.ours);
    Vector::new(name, about, bytes)
}

fn exchanges() -> Vec<Vector> {
    let keys: Vec<Key> = (0..WHICH_KEYS_MAX).map(|number| key(number as u8)).collect();
    let block = |content, length| Frame::Block { request: 7, content, length, mode: Mode::UNKNOWN };
    let offer = Offer {
        key: key(0x77),
        content: Content::Chunk,
        length: CHUNK_BYTES_MIN as u32,
        input_offset: 3 * CHUNK_BYTES_MIN,
        replicas: 3,
        mode: Mode::UNKNOWN,
        lifetime: 86_400,
        claim: None,
    };
    let claim = sign_claim(&network(), &publisher(), &offer.key, (offer.replicas, 90_000), 5);
    let claimed = Offer { claim: Some(claim), ..offer };
    let manifest = Offer { content: Content::Manifest, length: 1140, input_offset: 0, ..offer };
    let entry = |held, live, phase, since| {
        WireInspectEntry::new(&InspectEntry { held, replicas: 3, live, phase, since })
    };
    let entries = [
        entry(Held::Stored, 3, RepairPhase::Whole, 0),
        WireInspectEntry::new(&InspectEntry::default()),
        entry(Held::Shared, 2, RepairPhase::Waiting, 61),
    ];
    let most = [entry(Held::Cached, 1, RepairPhase::CutOff, u32::MAX); INSPECT_KEYS_MAX];
    let mut vectors = vec![
        frame("request", "a request for a piece", &Frame::Request { request: 7, key: key(0x77) }),
        frame(
            "block-chunk",
            "the head of a chunk of 256 KiB",
            &block(Content::Chunk, CHUNK_BYTES_MIN as u32),
        ),
        frame("block-manifest", "the head of a manifest", &block(Content::Manifest, 1140)),
        frame(
            "block-manifest-mode",
            "the head of a manifest of a file with mode 755",
            &Frame::Block { request: 7, content: Content::Manifest, length: 1140, mode: Mode::of(0o755) },
        ),
        frame("block-empty-file", "the head of an empty file", &block(Content::File, 0)),
        frame("refuse", "a refusal: not found", &Frame::Refuse { request: 7, reason: Refusal::NotFound }),
        frame("cancel", "a cancelled request", &Frame::Cancel { request: 7 }),
        frame("which", "a question about three pieces", &Frame::Which { question: 8, keys: &keys[..3] }),
        frame("which-largest", "a question about 128 pieces", &Frame::Which { question: 8, keys: &keys }),
        frame("have", "two of three pieces are there", &Frame::Have { question: 8, bitmap: bitmap(0b101) }),
        frame("store-chunk", "an offer of a chunk", &Frame::Store { request: 9, offer }),
        frame("store-manifest", "an offer of a manifest", &Frame::Store { request: 9, offer: manifest }),
        frame(
            "store-manifest-mode",
            "an offer of a manifest of a file with mode 600",
            &Frame::Store { request: 9, offer: Offer { mode: Mode::of(0o600), ..manifest } },
        ),
        frame(
            "store-chunk-claimed",
            "an offer of a chunk with its publisher's claim",
            &Frame::Store { request: 9, offer: claimed },
        ),
        frame("accept", "an offer is accepted", &Frame::Accept { request: 9, have: false }),
        frame("accept-have", "an offered piece is there already", &Frame::Accept { request: 9, have: true }),
        frame(
            "store-data",
            "the head of an offered chunk",
            &Frame::StoreData { request: 9, length: offer.length },
        ),
        frame("stored", "an offered piece is on disk", &Frame::Stored { request: 9 }),
        frame(
            "challenge",
            "a challenge to prove that a piece is there",
            &Frame::Challenge { question: 11, key: key(0x77), nonce: [0x88; 32] },
        ),
        frame("possession", "a proof", &Frame::Possession { question: 11, proof: Some([0x99; 32]) }),
        frame("possession-not", "the piece is not there", &Frame::Possession { question: 11, proof: None }),
    ];
    let inspect = |keys| Frame::Inspect { question: 10, keys };
    let inspected = |entries| Frame::Inspected { question: 10, entries };
    vectors.extend([
        frame("inspect", "how safe are three pieces", &inspect(&keys[..3])),
        frame("inspect-largest", "how safe are 64 pieces", &inspect(&keys[..INSPECT_KEYS_MAX])),
        frame("inspected", "one piece is stored, one is not here, one is shared", &inspected(&entries)),
        frame("inspected-largest", "64 pieces are in the cache", &inspected(&most)),
    ]);
    vectors.extend(news());
    vectors
}

/// Frames about a file that a node fetches.
fn news() -> Vec<Vector> {
    let file = key(0x66);
    let chunks: Vec<U32> = (0..GAINED_CHUNKS_MAX as u32).map(|chunk| U32::new(chunk * 31)).collect();
    let contact = |seed: u8, addr| WireContact::new(&Contact::new(PublicKey([seed; 32]), addr), 0);
    let contacts = [contact(1, ipv4()), contact(2, ipv6())];
    let many: Vec<WireContact> = (0..SOURCES_MAX).map(|seed| contact(seed as u8, ipv4())).collect();
    vec![
        frame("follow", "a file is being fetched", &Frame::Follow { file, over: false }),
        frame("follow-over", "a file has been fetched", &Frame::Follow { file, over: true }),
        frame("gained", "two more chunks are there", &Frame::Gained { file, chunks: &chunks[1..3] }),
        frame("gained-largest", "128 more chunks are there", &Frame::Gained { file, chunks: &chunks }),
        frame("sources", "two nodes fetch a file", &Frame::Sources { file, contacts: &contacts }),
        frame("sources-largest", "16 nodes fetch a file", &Frame::Sources { file, contacts: &many }),
        frame("unverified", "a piece that came does not verify", &Frame::Unverified { key: file }),
    ]
}

fn bitmap(first: u8) -> [u8; WHICH_KEYS_MAX / 8] {
    let mut bitmap = [0; WHICH_KEYS_MAX / 8];
    bitmap[0] = first;
    bitmap
}

/// The manifest of a file of `length` bytes, in which byte `i` is `i mod 251`.
pub(crate) fn manifest(length: u64) -> Manifest {
    let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let mut builder = ManifestBuilder::new(length).expect("an allowed length");
    builder.update(&bytes);
    builder.finish().expect("all bytes were fed")
}

/// The name of each manifest vector, and the length of its file.
pub(crate) const MANIFESTS: [(&str, u64); 3] = [
    ("one-byte-over-a-chunk", CHUNK_BYTES_MIN + 1),
    ("two-chunks", 2 * CHUNK_BYTES_MIN),
    ("three-chunks-the-last-odd", 2 * CHUNK_BYTES_MIN + 100_000),
];

/// Manifests at the boundaries of chunks and leaves.
pub(crate) fn manifests() -> Vec<Vector> {
    let vector = |(name, length)| {
        let manifest = manifest(length);
        Vector::new(name, format!("a file of {length} bytes, {}", manifest.hash()), manifest.encode())
    };
    MANIFESTS.into_iter().map(vector).collect()
}

/// Records in the form in which nodes relay them, without a datagram around them.
pub(crate) fn records() -> Vec<Vector> {
    vec![
        Vector::new("value", "a value record called greeting", small_record()),
        Vector::new("value-largest", "the largest value record", largest_record()),
        Vector::new("value-empty", "a value record of no bytes called x", record("x", b"")),
        Vector::new("provider", "a provider record for the file 6666…", provider(0).as_bytes().to_vec()),
        Vector::new(
            "provider-partial",
            "that of a node that is still downloading",
            provider(1).as_bytes().to_vec(),
        ),
        Vector::new("state", "the state of a node", state(0).as_bytes().to_vec()),
        Vector::new("state-gone", "that of a node that leaves for good", state(5).as_bytes().to_vec()),
    ]
}

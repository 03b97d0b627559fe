//! Frames: what goes over a TCP stream between two nodes.
//!
//! Each end first sends a hello, then a proof: its signature over both hellos, nonces included. Before both proofs
//! are checked no other frame is accepted. Then either end may ask the other for pieces and offer it pieces. A
//! *piece* is what has a key of its own: a chunk, a manifest, or a file of one chunk.
//!
//! Content is not part of a frame: [`Frame::Block`] and [`Frame::StoreData`] announce how many raw bytes follow them,
//! so that those can go from file to socket to file without passing through a parser.

use super::Refused;
use super::contact::WireContact;
use super::inspect::{INSPECT_KEYS_MAX, WireInspectEntry};
use crate::id::{Key, PublicKey};
use crate::io::Mode;
use crate::manifest::{CHUNK_BYTES_MAX, Content};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What each frame starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHead {
    length: U32,
    kind: u8,
    reserved: [u8; 3],
}

/// The size of a [`FrameHead`].
pub const FRAME_HEAD_BYTES: usize = 8;
const _: () = assert!(size_of::<FrameHead>() == FRAME_HEAD_BYTES);

/// The most keys in one question.
pub const WHICH_KEYS_MAX: usize = 128;

/// The most chunks that one frame says to have been gained.
pub const GAINED_CHUNKS_MAX: usize = 128;

/// The most contacts in one frame.
pub const SOURCES_MAX: usize = 16;

/// The most bytes of a frame, head included.
pub const FRAME_BYTES_MAX: usize = FRAME_HEAD_BYTES + size_of::<WhichHead>() + WHICH_KEYS_MAX * 32;

/// The size of the shortest frames. No raw bytes follow a shorter one.
const FRAME_BYTES_MIN: usize = FRAME_HEAD_BYTES + size_of::<AnswerBody>();

/// Frame numbers. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Who I am.
    Hello = 1,
    /// That I am.
    Proof = 2,
    /// Send me a piece.
    Request = 3,
    /// Here it comes.
    Block = 4,
    /// No.
    Refuse = 5,
    /// I do not need it any more.
    Cancel = 6,
    /// Which of these do you have?
    Which = 7,
    /// These.
    Have = 8,
    /// Will you keep a piece?
    Store = 9,
    /// Yes; or: I have it.
    Accept = 10,
    /// Here it comes.
    StoreData = 11,
    /// It is on disk.
    Stored = 12,
    /// How safe are these?
    Inspect = 13,
    /// So safe.
    Inspected = 14,
    /// I am fetching this file: tell me what you gain, and who else is.
    Follow = 15,
    /// I have these chunks now.
    Gained = 16,
    /// These fetch or serve it, too.
    Sources = 17,
    /// A piece that came from you does not verify.
    Unverified = 18,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<Self> {
        use FrameKind::*;
        let kinds = [
            Hello, Proof, Request, Block, Refuse, Cancel, Which, Have, Store, Accept, StoreData, Stored,
            Inspect, Inspected, Follow, Gained, Sources, Unverified,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }

    fn body_bytes_max(self) -> usize {
        match self {
            FrameKind::Hello => size_of::<Hello>(),
            FrameKind::Proof => 64,
            FrameKind::Request => size_of::<RequestBody>(),
            FrameKind::Block => size_of::<BlockBody>(),
            FrameKind::Which => size_of::<WhichHead>() + WHICH_KEYS_MAX * 32,
            FrameKind::Inspect => size_of::<WhichHead>() + INSPECT_KEYS_MAX * 32,
            FrameKind::Inspected => size_of::<WhichHead>() + INSPECT_KEYS_MAX * size_of::<WireInspectEntry>(),
            FrameKind::Have => size_of::<HaveBody>(),
            FrameKind::Store => size_of::<StoreBody>(),
            FrameKind::Refuse | FrameKind::Cancel | FrameKind::Accept => size_of::<AnswerBody>(),
            FrameKind::StoreData | FrameKind::Stored => size_of::<AnswerBody>(),
            FrameKind::Follow => size_of::<FollowBody>(),
            FrameKind::Gained => size_of::<Key>() + GAINED_CHUNKS_MAX * size_of::<U32>(),
            FrameKind::Sources => size_of::<Key>() + SOURCES_MAX * size_of::<WireContact>(),
            FrameKind::Unverified => size_of::<UnverifiedBody>(),
        }
    }
}

/// Why a request or an offer is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// No such piece here (any more).
    NotFound = 1,
    /// Too much is going on; try again later.
    Busy = 2,
    /// No space, or the quota is used up.
    NoSpace = 3,
    /// Too many nodes are closer to the key.
    NotClose = 4,
    /// The offer makes no sense: a length or an offset that no piece has.
    Invalid = 5,
    /// The disk failed.
    Disk = 6,
    /// What arrived is not what was offered.
    Mismatch = 7,
}

impl Refusal {
    fn from_number(number: u8) -> Option<Self> {
        use Refusal::*;
        [NotFound, Busy, NoSpace, NotClose, Invalid, Disk, Mismatch]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

/// The first frame of either end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    /// The port that the sender listens on; with the address that it connects from, that is where it answers.
    pub port: U16,
    network: U32,
    reserved: [u8; 4],
    /// Who the sender is.
    pub public: PublicKey,
    /// Fresh for each stream.
    pub nonce: [u8; 32],
}

const MAGIC: [u8; 4] = *b"ELVS";
const VERSION: u8 = 1;
const LEAF: u8 = 1;

impl Hello {
    /// A hello of this version.
    pub fn new(network: u32, public: PublicKey, nonce: [u8; 32], port: u16, leaf: bool) -> Self {
        Hello {
            magic: MAGIC,
            version: VERSION,
            flags: if leaf { LEAF } else { 0 },
            port: U16::new(port),
            network: U32::new(network),
            reserved: [0; 4],
            public,
            nonce,
        }
    }

    /// The network that the sender is in.
    pub fn network(&self) -> u32 {
        self.network.get()
    }

    /// Whether the sender is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.flags & LEAF != 0
    }

    fn check(&self) -> Result<(), Refused> {
        if self.magic != MAGIC || self.version != VERSION {
            return Err(Refused::Version);
        }
        if self.flags & !LEAF != 0 || self.reserved != [0; 4] {
            return Err(Refused::Reserved);
        }
        Ok(())
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestBody {
    request: U32,
    reserved: [u8; 4],
    key: Key,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockBody {
    request: U32,
    length: U32,
    content: u8,
    reserved: u8,
    mode: U16,
    reserved_rest: [u8; 4],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WhichHead {
    question: U32,
    reserved: [u8; 4],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HaveBody {
    question: U32,
    reserved: [u8; 4],
    bitmap: [u8; WHICH_KEYS_MAX / 8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoreBody {
    request: U32,
    length: U32,
    input_offset: U64,
    lifetime: U32,
    content: u8,
    replicas: u8,
    mode: U16,
    reserved: [u8; 8],
    key: Key,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AnswerBody {
    request: U32,
    detail: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FollowBody {
    file: Key,
    over: u8,
    reserved: [u8; 7],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct UnverifiedBody {
    key: Key,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<UnverifiedBody>() == 40);
const _: () = assert!(size_of::<FollowBody>() == 40);
const _: () = assert!(size_of::<Hello>() == 80);
const _: () = assert!(size_of::<RequestBody>() == 40);
const _: () = assert!(size_of::<BlockBody>() == 16);
const _: () = assert!(size_of::<WhichHead>() == 8);
const _: () = assert!(size_of::<HaveBody>() == 24);
const _: () = assert!(size_of::<StoreBody>() == 64);
const _: () = assert!(size_of::<AnswerBody>() == 8);

/// An offer to keep a piece, as [`Frame::Store`] carries it. Whether there can be such a piece ([`Content::fits`]) is not
/// checked when it is parsed: that has an answer of its own, [`Refusal::Invalid`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The piece.
    pub key: Key,
    /// What it is.
    pub content: Content,
    /// Its length in bytes.
    pub length: u32,
    /// Where a chunk starts in its file; zero for manifests and files.
    pub input_offset: u64,
    /// How many nodes are to keep it.
    pub replicas: u8,
    /// Of the piece under a file's own hash: the file's mode. A hint.
    pub mode: Mode,
    /// Seconds that it is to be kept.
    pub lifetime: u32,
}

/// A frame, parsed in place or to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Who the sender is.
    Hello(&'a Hello),
    /// The sender's signature over both hellos.
    Proof {
        /// See [`Network::handshake_digest`](super::network::Network::handshake_digest).
        signature: &'a [u8; 64],
    },
    /// Send me the piece with this key, whatever it is.
    Request {
        /// Chosen by who asks; repeated in the answer.
        request: u32,
        /// The piece.
        key: Key,
    },
    /// `length` raw bytes of the piece follow: all of it, and no more than a piece of its kind may have.
    Block {
        /// The request that this answers.
        request: u32,
        /// What the piece is.
        content: Content,
        /// Its length.
        length: u32,
        /// Of the piece under a file's own hash: the file's mode. A hint.
        mode: Mode,
    },
    /// A request or an offer is refused.
    Refuse {
        /// The request.
        request: u32,
        /// Why.
        reason: Refusal,
    },
    /// The sender does not need the piece any more. A block that is on its way still arrives.
    Cancel {
        /// The request.
        request: u32,
    },
    /// Which of these pieces do you have? At most [`WHICH_KEYS_MAX`].
    Which {
        /// Chosen by who asks; repeated in the answer.
        question: u32,
        /// The pieces.
        keys: &'a [Key],
    },
    /// Bit `i` (of byte `i / 8`, the lowest first) is set when piece `i` of the question is here.
    Have {
        /// The question.
        question: u32,
        /// One bit for each key; the others are zero.
        bitmap: [u8; WHICH_KEYS_MAX / 8],
    },
    /// Will you keep this piece?
    Store {
        /// Chosen by who offers; repeated in the answers.
        request: u32,
        /// The piece.
        offer: Offer,
    },
    /// Send it; or, when `have` is set, it is here and on disk already.
    Accept {
        /// The offer.
        request: u32,
        /// No need to send it.
        have: bool,
    },
    /// `length` raw bytes of the piece follow: all of it, at most [`CHUNK_BYTES_MAX`].
    StoreData {
        /// The offer.
        request: u32,
        /// The piece's length.
        length: u32,
    },
    /// The piece is on disk and will survive a power cut.
    Stored {
        /// The offer.
        request: u32,
    },
    /// How safe are these pieces? At most [`INSPECT_KEYS_MAX`].
    Inspect {
        /// Chosen by who asks; repeated in the answer.
        question: u32,
        /// The pieces.
        keys: &'a [Key],
    },
    /// What the sender has of each piece of the question, in its order, and what it knows of other copies.
    Inspected {
        /// The question.
        question: u32,
        /// Each of them has a value when it was parsed.
        entries: &'a [WireInspectEntry],
    },
    /// The sender is fetching this file. It wants to know which chunks of it the other end gains, and who else fetches or
    /// serves it. There is no answer as such.
    Follow {
        /// The file.
        file: Key,
        /// It has all of it now, and wants to hear no more.
        over: bool,
    },
    /// The sender has these chunks of a file that the other end follows; at most [`GAINED_CHUNKS_MAX`].
    Gained {
        /// The file.
        file: Key,
        /// The chunks, by their place in the file.
        chunks: &'a [U32],
    },
    /// These nodes fetch or serve a file that the other end follows; at most [`SOURCES_MAX`]. The sender has streams to
    /// them, but whoever is told takes them for what they are, addresses that somebody named.
    Sources {
        /// The file.
        file: Key,
        /// The nodes. Their ages are zero.
        contacts: &'a [WireContact],
    },
    /// A piece that the other end has sent over this stream does not verify. It is a hint to look at its own copy, and there
    /// is no answer.
    Unverified {
        /// The piece.
        key: Key,
    },
}

/// What the start of a stream's bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// A frame, and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame: there must be more bytes.
    Incomplete,
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes`. An announced length over what its kind may have is refused at once, before
    /// anything is waited for.
    pub fn parse(bytes: &'a [u8]) -> Result<Parsed<'a>, Refused> {
        let Ok((head, rest)) = FrameHead::ref_from_prefix(bytes) else {
            return Ok(Parsed::Incomplete);
        };
        let kind = FrameKind::from_number(head.kind).ok_or(Refused::Kind)?;
        if head.reserved != [0; 3] {
            return Err(Refused::Reserved);
        }
        let length = head.length.get() as usize;
        if length > kind.body_bytes_max() {
            return Err(Refused::Length);
        }
        match rest.get(..length) {
            Some(body) => Ok(Parsed::Frame(Frame::parse_body(kind, body)?, FRAME_HEAD_BYTES + length)),
            None => Ok(Parsed::Incomplete),
        }
    }

    /// How many bytes the frame lacks at least of which `bytes` are the start. Who reads no more than that never reads into
    /// the raw bytes that may follow it.
    pub fn lacking(bytes: &[u8]) -> usize {
        let whole = match FrameHead::ref_from_prefix(bytes) {
            Ok((head, _)) => FRAME_HEAD_BYTES + (head.length.get() as usize).min(FRAME_BYTES_MAX),
            Err(_) => FRAME_BYTES_MIN,
        };
        whole.saturating_sub(bytes.len()).max(1)
    }

    fn parse_body(kind: FrameKind, body: &'a [u8]) -> Result<Self, Refused> {
        Ok(match kind {
            FrameKind::Hello => {
                let hello: &Hello = exactly(body)?;
                hello.check()?;
                Frame::Hello(hello)
            }
            FrameKind::Proof => Frame::Proof { signature: body.try_into().map_err(|_| Refused::Length)? },
            FrameKind::Request => {
                let body: &RequestBody = exactly(body)?;
                reserved(&body.reserved)?;
                Frame::Request { request: body.request.get(), key: body.key }
            }
            FrameKind::Block => {
                let body: &BlockBody = exactly(body)?;
                reserved(&[body.reserved])?;
                reserved(&body.reserved_rest)?;
                let content = Content::from_number(body.content).ok_or(Refused::Value)?;
                let length = body.length.get();
                if !content.has_length(length) {
                    return Err(Refused::Value);
                }
                let mode = mode_of(content, body.mode)?;
                Frame::Block { request: body.request.get(), content, length, mode }
            }
            FrameKind::Which => {
                let (head, keys) = WhichHead::ref_from_prefix(body).map_err(|_| Refused::Length)?;
                reserved(&head.reserved)?;
                let keys = <[Key]>::ref_from_bytes(keys).map_err(|_| Refused::Length)?;
                Frame::Which { question: head.question.get(), keys }
            }
            FrameKind::Inspect => {
                let (head, keys) = WhichHead::ref_from_prefix(body).map_err(|_| Refused::Length)?;
                reserved(&head.reserved)?;
                let keys = <[Key]>::ref_from_bytes(keys).map_err(|_| Refused::Length)?;
                Frame::Inspect { question: head.question.get(), keys }
            }
            FrameKind::Inspected => {
                let (head, entries) = WhichHead::ref_from_prefix(body).map_err(|_| Refused::Length)?;
                reserved(&head.reserved)?;
                let entries = <[WireInspectEntry]>::ref_from_bytes(entries).map_err(|_| Refused::Length)?;
                if entries.iter().any(|entry| entry.get().is_none()) {
                    return Err(Refused::Value);
                }
                Frame::Inspected { question: head.question.get(), entries }
            }
            FrameKind::Have => {
                let body: &HaveBody = exactly(body)?;
                reserved(&body.reserved)?;
                Frame::Have { question: body.question.get(), bitmap: body.bitmap }
            }
            FrameKind::Store => {
                let body: &StoreBody = exactly(body)?;
                reserved(&body.reserved)?;
                let content = Content::from_number(body.content).ok_or(Refused::Value)?;
                let offer = Offer {
                    key: body.key,
                    content,
                    length: body.length.get(),
                    input_offset: body.input_offset.get(),
                    replicas: body.replicas,
                    mode: mode_of(content, body.mode)?,
                    lifetime: body.lifetime.get(),
                };
                Frame::Store { request: body.request.get(), offer }
            }
            FrameKind::Follow => {
                let body: &FollowBody = exactly(body)?;
                reserved(&body.reserved)?;
                if body.over > 1 {
                    return Err(Refused::Value);
                }
                Frame::Follow { file: body.file, over: body.over == 1 }
            }
            FrameKind::Gained => {
                let (file, chunks) = Key::ref_from_prefix(body).map_err(|_| Refused::Length)?;
                let chunks = <[U32]>::ref_from_bytes(chunks).map_err(|_| Refused::Length)?;
                Frame::Gained { file: *file, chunks }
            }
            FrameKind::Sources => {
                let (file, contacts) = Key::ref_from_prefix(body).map_err(|_| Refused::Length)?;
                let contacts = <[WireContact]>::ref_from_bytes(contacts).map_err(|_| Refused::Length)?;
                if !contacts.iter().all(WireContact::is_well_formed) {
                    return Err(Refused::Reserved);
                }
                Frame::Sources { file: *file, contacts }
            }
            FrameKind::Unverified => {
                let body: &UnverifiedBody = exactly(body)?;
                reserved(&body.reserved)?;
                Frame::Unverified { key: body.key }
            }
            FrameKind::Refuse
            | FrameKind::Cancel
            | FrameKind::Accept
            | FrameKind::StoreData
            | FrameKind::Stored => {
                let body: &AnswerBody = exactly(body)?;
                Frame::from_answer(kind, body.request.get(), body.detail.get())?
            }
        })
    }

    fn from_answer(kind: FrameKind, request: u32, detail: u32) -> Result<Frame<'a>, Refused> {
        let small = u8::try_from(detail);
        Ok(match kind {
            FrameKind::Refuse => {
                let reason = small.ok().and_then(Refusal::from_number).ok_or(Refused::Value)?;
                Frame::Refuse { request, reason }
            }
            FrameKind::StoreData if u64::from(detail) > CHUNK_BYTES_MAX => return Err(Refused::Value),
            FrameKind::StoreData => Frame::StoreData { request, length: detail },
            FrameKind::Accept if detail < 2 => Frame::Accept { request, have: detail == 1 },
            FrameKind::Cancel if detail == 0 => Frame::Cancel { request },
            FrameKind::Stored if detail == 0 => Frame::Stored { request },
            _ => return Err(Refused::Reserved),
        })
    }

    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// When it has more keys, entries, chunks or contacts than its kind may have.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Frame::Hello(hello) => put(out, FrameKind::Hello, &[hello.as_bytes()]),
            Frame::Proof { signature } => put(out, FrameKind::Proof, &[signature]),
            Frame::Request { request, key } => {
                let body = RequestBody { request: U32::new(request), reserved: [0; 4], key };
                put(out, FrameKind::Request, &[body.as_bytes()]);
            }
            Frame::Block { request, content, length, mode } => {
                let body = BlockBody {
                    request: U32::new(request),
                    length: U32::new(length),
                    content: content as u8,
                    reserved: 0,
                    mode: U16::new(mode.encode()),
                    reserved_rest: [0; 4],
                };
                put(out, FrameKind::Block, &[body.as_bytes()]);
            }
            Frame::Which { question, keys } => {
                assert!(keys.len() <= WHICH_KEYS_MAX, "{} keys in one question", keys.len());
                let head = WhichHead { question: U32::new(question), reserved: [0; 4] };
                put(out, FrameKind::Which, &[head.as_bytes(), keys.as_bytes()]);
            }
            Frame::Have { question, bitmap } => {
                let body = HaveBody { question: U32::new(question), reserved: [0; 4], bitmap };
                put(out, FrameKind::Have, &[body.as_bytes()]);
            }
            Frame::Store { request, offer } => {
                let body = StoreBody {
                    request: U32::new(request),
                    length: U32::new(offer.length),
                    input_offset: U64::new(offer.input_offset),
                    lifetime: U32::new(offer.lifetime),
                    content: offer.content as u8,
                    replicas: offer.replicas,
                    mode: U16::new(offer.mode.encode()),
                    reserved: [0; 8],
                    key: offer.key,
                };
                put(out, FrameKind::Store, &[body.as_bytes()]);
            }
            Frame::Refuse { request, reason } => answer(out, FrameKind::Refuse, request, reason as u32),
            Frame::Cancel { request } => answer(out, FrameKind::Cancel, request, 0),
            Frame::Accept { request, have } => answer(out, FrameKind::Accept, request, u32::from(have)),
            Frame::StoreData { request, length } => answer(out, FrameKind::StoreData, request, length),
            Frame::Stored { request } => answer(out, FrameKind::Stored, request, 0),
            Frame::Inspect { question, keys } => {
                assert!(keys.len() <= INSPECT_KEYS_MAX, "{} keys in one inspection", keys.len());
                let head = WhichHead { question: U32::new(question), reserved: [0; 4] };
                put(out, FrameKind::Inspect, &[head.as_bytes(), keys.as_bytes()]);
            }
            Frame::Inspected { question, entries } => {
                assert!(entries.len() <= INSPECT_KEYS_MAX, "{} entries in one answer", entries.len());
                let head = WhichHead { question: U32::new(question), reserved: [0; 4] };
                put(out, FrameKind::Inspected, &[head.as_bytes(), entries.as_bytes()]);
            }
            Frame::Follow { file, over } => {
                let body = FollowBody { file, over: u8::from(over), reserved: [0; 7] };
                put(out, FrameKind::Follow, &[body.as_bytes()]);
            }
            Frame::Gained { file, chunks } => {
                assert!(chunks.len() <= GAINED_CHUNKS_MAX, "{} chunks in one frame", chunks.len());
                put(out, FrameKind::Gained, &[file.as_bytes(), chunks.as_bytes()]);
            }
            Frame::Sources { file, contacts } => {
                assert!(contacts.len() <= SOURCES_MAX, "{} contacts in one frame", contacts.len());
                put(out, FrameKind::Sources, &[file.as_bytes(), contacts.as_bytes()]);
            }
            Frame::Unverified { key } => {
                put(out, FrameKind::Unverified, &[UnverifiedBody { key, reserved: [0; 8] }.as_bytes()]);
            }
        }
    }
}

fn exactly<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> Result<&T, Refused> {
    T::ref_from_bytes(body).map_err(|_| Refused::Length)
}

fn reserved(bytes: &[u8]) -> Result<(), Refused> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(Refused::Reserved) }
}

/// The mode that comes with a piece. A chunk has none: what it is a chunk of has.
fn mode_of(content: Content, encoded: U16) -> Result<Mode, Refused> {
    let mode = Mode::decode(encoded.get()).ok_or(Refused::Reserved)?;
    if content == Content::Chunk && mode != Mode::UNKNOWN { Err(Refused::Reserved) } else { Ok(mode) }
}

fn put(out: &mut Vec<u8>, kind: FrameKind, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let head = FrameHead { length: U32::new(length as u32), kind: kind as u8, reserved: [0; 3] };
    out.extend_from_slice(head.as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn answer(out: &mut Vec<u8>, kind: FrameKind, request: u32, detail: u32) {
    let body = AnswerBody { request: U32::new(request), detail: U32::new(detail) };
    put(out, kind, &[body.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(frame: &Frame<'_>) -> Result<(), Refused> {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        Frame::parse(&bytes).map(|parsed| assert_eq!(parsed, Parsed::Frame(*frame, bytes.len())))
    }

    #[test]
    fn an_announced_length_that_no_piece_has_is_refused_before_its_bytes_come() {
        let mode = Mode::UNKNOWN;
        let block = |content, length| parse(&Frame::Block { request: 1, content, length, mode });
        for content in [Content::Chunk, Content::Manifest, Content::File] {
            assert_eq!(block(content, content.bytes_max()), Ok(()));
            assert_eq!(block(content, content.bytes_max() + 1), Err(Refused::Value));
            assert_eq!(block(content, u32::MAX), Err(Refused::Value));
        }
        assert_eq!(block(Content::File, 0), Ok(()));
        assert_eq!(block(Content::Chunk, 0), Err(Refused::Value));
        assert_eq!(parse(&Frame::StoreData { request: 1, length: CHUNK_BYTES_MAX as u32 }), Ok(()));
        assert_eq!(parse(&Frame::StoreData { request: 1, length: u32::MAX }), Err(Refused::Value));
    }

    #[test]
    fn a_mode_comes_with_the_piece_of_a_whole_file_and_with_no_chunk() {
        let block = |content, mode| parse(&Frame::Block { request: 1, content, length: 90, mode });
        for mode in [Mode::UNKNOWN, Mode::of(0), Mode::of(0o755)] {
            assert_eq!(block(Content::Manifest, mode), Ok(()));
            assert_eq!(block(Content::File, mode), Ok(()));
        }
        assert_eq!(block(Content::Chunk, Mode::of(0o755)), Err(Refused::Reserved));
        let mut bytes = Vec::new();
        Frame::Block { request: 1, content: Content::File, length: 90, mode: Mode::of(0o755) }
            .write(&mut bytes);
        // Set-user-id is no bit that a mode has here.
        bytes[FRAME_HEAD_BYTES + 11] |= 0o4000_u16.to_le_bytes()[1];
        assert_eq!(Frame::parse(&bytes), Err(Refused::Reserved));
    }

    #[test]
    fn an_inspection_is_answered_with_entries_that_a_node_would_say() {
        let keys = [Key([7; 32]); INSPECT_KEYS_MAX + 1];
        assert_eq!(parse(&Frame::Inspect { question: 1, keys: &keys[1..] }), Ok(()));
        let entry = |bytes: [u8; 8]| WireInspectEntry::read_from_bytes(&bytes).unwrap();
        let answer =
            |bytes| parse(&Frame::Inspected { question: 1, entries: &[entry([0; 8]), entry(bytes)] });
        assert_eq!(answer([1, 3, 3, 0, 9, 0, 0, 0]), Ok(()));
        assert_eq!(answer([4, 3, 3, 0, 9, 0, 0, 0]), Err(Refused::Value));
        assert_eq!(answer([0, 3, 3, 0, 9, 0, 0, 0]), Err(Refused::Value));
        let mut bytes = Vec::new();
        Frame::Inspect { question: 1, keys: &keys[1..] }.write(&mut bytes);
        // One key more than there may be is refused at the head.
        bytes[..4].copy_from_slice(&(8 + 65 * 32_u32).to_le_bytes());
        assert_eq!(Frame::parse(&bytes), Err(Refused::Length));
        for length in [7_u8, 8 + 31, 8 + 33] {
            let bytes = [&[length, 0, 0, 0, 13, 0, 0, 0][..], &vec![0; usize::from(length)]].concat();
            assert_eq!(Frame::parse(&bytes), Err(Refused::Length), "{length}");
        }
    }

    #[test]
    fn who_reads_only_what_is_lacking_ends_exactly_where_the_frame_does() {
        let frames = [
            Frame::Block { request: 1, content: Content::Chunk, length: 5, mode: Mode::UNKNOWN },
            Frame::StoreData { request: 1, length: 5 },
            Frame::Request { request: 1, key: Key([1; 32]) },
            Frame::Which { question: 1, keys: &[Key([1; 32]); WHICH_KEYS_MAX] },
        ];
        for frame in frames {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            let mut read = 0;
            while Frame::parse(&bytes[..read]) == Ok(Parsed::Incomplete) {
                read += Frame::lacking(&bytes[..read]);
            }
            assert_eq!(read, bytes.len(), "{frame:?}");
        }
        assert_eq!(Frame::lacking(&[0xff; 20]), FRAME_BYTES_MAX + FRAME_HEAD_BYTES - 20);
    }

    #[test]
    fn numbers_that_this_version_does_not_know_are_refused() {
        let head = |kind: u8| [8, 0, 0, 0, kind, 0, 0, 0];
        assert_eq!(Frame::parse(&head(0)), Err(Refused::Kind));
        assert_eq!(Frame::parse(&head(19)), Err(Refused::Kind));
        for (kind, detail) in [(FrameKind::Refuse, 0), (FrameKind::Refuse, 8), (FrameKind::Refuse, 257)] {
            let bytes = [&head(kind as u8)[..], &[0; 4], &u32::to_le_bytes(detail)].concat();
            assert_eq!(Frame::parse(&bytes), Err(Refused::Value), "{kind:?} {detail}");
        }
        for (kind, detail) in [(FrameKind::Accept, 2), (FrameKind::Cancel, 1), (FrameKind::Stored, 1)] {
            let bytes = [&head(kind as u8)[..], &[0; 4], &u32::to_le_bytes(detail)].concat();
            assert_eq!(Frame::parse(&bytes), Err(Refused::Reserved), "{kind:?} {detail}");
        }
    }

    #[test]
    fn what_is_said_about_a_file_has_its_bounds() {
        let head = |kind: FrameKind, length: usize| {
            let mut bytes = (length as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
            bytes.resize(FRAME_HEAD_BYTES + length, 0);
            bytes
        };
        for (kind, one, most) in
            [(FrameKind::Gained, 4, GAINED_CHUNKS_MAX), (FrameKind::Sources, 56, SOURCES_MAX)]
        {
            for count in [0, 1, most] {
                let bytes = head(kind, 32 + count * one);
                assert!(matches!(Frame::parse(&bytes), Ok(Parsed::Frame(..))), "{kind:?} {count}");
            }
            for length in [31, 33, 32 + (most + 1) * one] {
                assert_eq!(Frame::parse(&head(kind, length)), Err(Refused::Length), "{kind:?} {length}");
            }
        }
        let mut follow = head(FrameKind::Follow, 40);
        follow[FRAME_HEAD_BYTES + 32] = 2;
        assert_eq!(Frame::parse(&follow), Err(Refused::Value));
        let mut sources = head(FrameKind::Sources, 32 + 56);
        sources[FRAME_HEAD_BYTES + 32 + 50] = 1;
        assert_eq!(Frame::parse(&sources), Err(Refused::Reserved));
    }
}

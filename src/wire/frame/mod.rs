//! Frames: the messages on a TCP stream between two nodes.
//!
//! Each end first sends a hello, then a proof: its signature over both hellos, which include keys that are fresh for the stream.
//! No other frame is accepted before both proofs are verified. From then on every frame is sealed: its head carries a tag that
//! only the two ends can compute. Either end may request pieces from the other and offer pieces to it. A *piece* is content with
//! a key of its own: a chunk, a manifest, or a file of one chunk.
//!
//! Content is not part of a frame: [`Frame::Block`] and [`Frame::StoreData`] announce the number of raw bytes that follow, so
//! that these can go from file to socket to file without a parser.
//!
//! [`Frame`] is the table of kinds. Each line has a kind's number, its fields and its body, a fixed layout in the file of its
//! family. The known numbers, the bounds on lengths, and the tests that every kind must pass follow from the table.
//!
//! - `hello`: the handshake; `seal`: the keys that follow from it, and the tags.
//! - `piece`: requests for pieces, and their answers; `refusal`: the reasons to refuse a request or an offer.
//! - `store`: offers of pieces to their holders.
//! - `inspect`: the audit of pieces; `possess`: the proof that a node has one.
//! - `swarm`: the exchange of co-downloaders.

mod hello;
mod inspect;
mod piece;
mod possess;
mod refusal;
mod seal;
mod store;
mod swarm;

pub use hello::Hello;
pub use piece::WHICH_KEYS_MAX;
pub use refusal::Refusal;
pub use seal::{Ephemeral, FrameKey, StreamKeys};
pub use store::Offer;
pub use swarm::{GAINED_CHUNKS_MAX, SOURCES_MAX};

use super::Refused;
use super::contact::WireContact;
use super::inspect::WireInspectEntry;
use super::layout::reserved;
use super::possession::{Nonce, Proof};
use crate::id::Key;
use crate::io::Mode;
use crate::manifest::Content;
use seal::TAG_BYTES;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The start of every frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FrameHead {
    /// Bytes of the body.
    length: U32,
    kind: u8,
    reserved: [u8; 3],
    /// Zero in a frame that is not sealed.
    tag: [u8; TAG_BYTES],
}

/// The size of a frame's head: the body's length, the kind's number, three zeros, and the tag.
pub const FRAME_HEAD_BYTES: usize = 24;
const _: () = assert!(size_of::<FrameHead>() == FRAME_HEAD_BYTES);

/// The longest frame in bytes, head included.
pub const FRAME_BYTES_MAX: usize = FRAME_HEAD_BYTES + longest_body();
const _: () = assert!(FRAME_BYTES_MAX == 4128, "a stream's buffer is as large as the largest frame");

/// The length in bytes of the shortest frame that raw bytes can follow.
const FRAME_BYTES_MIN: usize = FRAME_HEAD_BYTES + 8;

/// The body of one kind of frame. Each body also has a function `write`, whose parameters are the fields of its kind.
trait Body {
    /// The longest body in bytes.
    const BYTES_MAX: usize;

    /// Parses a body of at most [`BYTES_MAX`](Body::BYTES_MAX) bytes.
    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused>;

    /// Frames of the kind, for the tests of all kinds. A longest one must be among them.
    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>>;
}

/// A line of the table of kinds.
struct Kind {
    number: u8,
    body_bytes_max: usize,
    parse: for<'a> fn(&'a [u8]) -> Result<Frame<'a>, Refused>,
}

/// Declares every kind of frame once: `number => Kind { fields } as body`.
macro_rules! kinds {
    (
        $(#[$about_frame:meta])*
        pub enum $Frame:ident<$life:lifetime> {$(
            $(#[$about:meta])*
            $number:literal => $Kind:ident
                $( ( $whole:ident: $Whole:ty ) )?
                $( { $( $(#[$what:meta])* $field:ident: $Field:ty, )+ } )?
                as $Body:ty,
        )+}
    ) => {
        $(#[$about_frame])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $Frame<$life> {$(
            $(#[$about])*
            $Kind $( ($Whole) )? $( { $( $(#[$what])* $field: $Field, )+ } )?,
        )+}

        const KINDS: &[Kind] = &[$(
            Kind { number: $number, body_bytes_max: <$Body>::BYTES_MAX, parse: <$Body as Body>::parse },
        )+];

        impl $Frame<'_> {
            /// Appends the body to `out`; returns the kind's number.
            fn write_body(&self, out: &mut Vec<u8>) -> u8 {
                match *self {$(
                    $Frame::$Kind $( ($whole) )? $( { $($field),+ } )? => {
                        <$Body>::write(out $(, $whole)? $( $(, $field)+ )?);
                        $number
                    }
                )+}
            }
        }

        #[cfg(test)]
        fn examples() -> Vec<(u8, Vec<Frame<'static>>)> {
            vec![$( ($number, <$Body>::examples()) ),+]
        }
    };
}

kinds! {
    /// A frame, parsed in place or to be written. Numbers are never reused.
    pub enum Frame<'a> {
        /// HELLO: the sender's key and network (handshake, step 1).
        1 => Hello(hello: &'a Hello) as Hello,

        /// PROOF: the sender's signature over both hellos (handshake, step 2).
        2 => Proof {
            /// See [`Network::handshake_digest`](super::network::Network::handshake_digest).
            signature: &'a [u8; 64],
        } as hello::ProofBody,

        /// REQUEST: the sender requests the piece with this key, of any kind.
        3 => Request {
            /// Chosen by the sender; repeated in the answer.
            request: u32,
            /// The piece.
            key: Key,
        } as piece::RequestBody,

        /// BLOCK: the whole requested piece follows, `length` raw bytes.
        4 => Block {
            /// The request that this answers.
            request: u32,
            /// The kind of the piece.
            content: Content,
            /// Its length in bytes, at most that of the longest piece of its kind.
            length: u32,
            /// For a piece whose key is a file's hash: the file's mode. A hint.
            mode: Mode,
        } as piece::BlockBody,

        /// REFUSE: the sender refuses a request or an offer.
        5 => Refuse {
            /// The request.
            request: u32,
            /// Why.
            reason: Refusal,
        } as refusal::RefuseBody,

        /// CANCEL: the sender no longer needs the piece. A block that has begun still arrives.
        6 => Cancel {
            /// The request.
            request: u32,
        } as piece::CancelBody,

        /// WHICH: the sender asks which of these pieces the other end has. At most [`WHICH_KEYS_MAX`].
        7 => Which {
            /// Chosen by the sender; repeated in the answer.
            question: u32,
            /// The pieces.
            keys: &'a [Key],
        } as piece::WhichBody,

        /// HAVE: bit `i` (of byte `i / 8`, the lowest first) is set when the sender has piece `i` of the question.
        8 => Have {
            /// The question.
            question: u32,
            /// One bit for each key; the others are zero.
            bitmap: [u8; WHICH_KEYS_MAX / 8],
        } as piece::HaveBody,

        /// STORE: the sender offers a piece for the other end to keep.
        9 => Store {
            /// Chosen by the sender; repeated in the answers.
            request: u32,
            /// The piece.
            offer: Offer,
        } as store::StoreBody,

        /// ACCEPT: the sender accepts the offered piece, or has it already.
        10 => Accept {
            /// The offer.
            request: u32,
            /// Whether the sender has the piece on disk, so that it need not be sent.
            have: bool,
        } as store::AcceptBody,

        /// STORE DATA: the whole offered piece follows, `length` raw bytes.
        11 => StoreData {
            /// The offer.
            request: u32,
            /// The piece's length in bytes, at most [`CHUNK_BYTES_MAX`](crate::manifest::CHUNK_BYTES_MAX).
            length: u32,
        } as store::StoreDataBody,

        /// STORED: the piece is synced to the sender's disk and survives a power cut.
        12 => Stored {
            /// The offer.
            request: u32,
        } as store::StoredBody,

        /// INSPECT: the sender audits these pieces. At most [`INSPECT_KEYS_MAX`](super::inspect::INSPECT_KEYS_MAX).
        13 => Inspect {
            /// Chosen by the sender; repeated in the answer.
            question: u32,
            /// The pieces.
            keys: &'a [Key],
        } as inspect::InspectBody,

        /// INSPECTED: the sender's report on each piece of the question, in its order.
        14 => Inspected {
            /// The question.
            question: u32,
            /// The reports. In a parsed frame each has a value.
            entries: &'a [WireInspectEntry],
        } as inspect::InspectedBody,

        /// FOLLOW: the sender downloads this file, and asks to be told the chunks that the other end gains and other nodes that
        /// download or serve it. It has no direct answer.
        15 => Follow {
            /// The file.
            file: Key,
            /// Whether the following ends, because the sender has the whole file.
            over: bool,
        } as swarm::FollowBody,

        /// GAINED: the sender has these chunks of a file that the other end follows; at most [`GAINED_CHUNKS_MAX`].
        16 => Gained {
            /// The file.
            file: Key,
            /// The chunks, by their index in the file.
            chunks: &'a [U32],
        } as swarm::GainedBody,

        /// SOURCES: these nodes download or serve a file that the other end follows; at most [`SOURCES_MAX`]. The sender has
        /// streams to them. To the receiver their addresses are unvalidated.
        17 => Sources {
            /// The file.
            file: Key,
            /// The nodes. Their ages are zero.
            contacts: &'a [WireContact],
        } as swarm::SourcesBody,

        /// UNVERIFIED: a piece that the other end sent over this stream does not match its key. A hint to the other end to check
        /// its own copy. It has no answer.
        18 => Unverified {
            /// The piece.
            key: Key,
        } as piece::UnverifiedBody,

        /// CHALLENGE: the sender asks the other end to prove that it has this piece on disk.
        19 => Challenge {
            /// Chosen by the sender; repeated in the answer.
            question: u32,
            /// The piece.
            key: Key,
            /// What selects the leaves that the proof is over. Random, and used once.
            nonce: Nonce,
        } as possess::ChallengeBody,

        /// POSSESSION: the answer to a challenge.
        20 => Possession {
            /// The challenge.
            question: u32,
            /// See [`possession::proof`](super::possession::proof); `None` when the sender does not have the piece.
            proof: Option<Proof>,
        } as possess::PossessionBody,
    }
}

/// The longest body in the table.
const fn longest_body() -> usize {
    let (mut longest, mut line) = (0, 0);
    while line < KINDS.len() {
        if KINDS[line].body_bytes_max > longest {
            longest = KINDS[line].body_bytes_max;
        }
        line += 1;
    }
    longest
}

/// The result of parsing the start of a stream's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// A frame, and its length in bytes.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame: more bytes are needed.
    Incomplete,
}

/// A complete frame whose body has not been parsed.
struct Whole<'a> {
    kind: &'static Kind,
    head: &'a FrameHead,
    body: &'a [u8],
    /// Head and body.
    bytes: &'a [u8],
}

impl<'a> Whole<'a> {
    /// The frame at the start of `bytes`; `None` when more bytes are needed.
    fn first(bytes: &'a [u8]) -> Result<Option<Self>, Refused> {
        let Ok((head, rest)) = FrameHead::ref_from_prefix(bytes) else { return Ok(None) };
        let kind = KINDS.iter().find(|kind| kind.number == head.kind).ok_or(Refused::Kind)?;
        reserved(&head.reserved)?;
        let length = head.length.get() as usize;
        if length > kind.body_bytes_max {
            return Err(Refused::Length);
        }
        let whole = |body| Whole { kind, head, body, bytes: &bytes[..FRAME_HEAD_BYTES + length] };
        Ok(rest.get(..length).map(whole))
    }

    fn parse(&self) -> Result<Parsed<'a>, Refused> {
        Ok(Parsed::Frame((self.kind.parse)(self.body)?, self.bytes.len()))
    }
}

impl<'a> Frame<'a> {
    /// Parses the frame at the start of `bytes`, which is not sealed. A length above the bound of the frame's kind is refused as
    /// soon as the head is complete.
    pub fn parse(bytes: &'a [u8]) -> Result<Parsed<'a>, Refused> {
        let Some(whole) = Whole::first(bytes)? else { return Ok(Parsed::Incomplete) };
        reserved(&whole.head.tag)?;
        whole.parse()
    }

    /// Checks and parses the sealed frame at the start of `bytes`, the next one in the direction of `key`. The error is
    /// [`Refused::Mac`] when the other end did not write this frame, or wrote it as another number.
    pub fn open(bytes: &'a [u8], key: &mut FrameKey) -> Result<Parsed<'a>, Refused> {
        let Some(whole) = Whole::first(bytes)? else { return Ok(Parsed::Incomplete) };
        if !key.open(whole.bytes) {
            return Err(Refused::Mac);
        }
        whole.parse()
    }

    /// The number of further bytes needed before `bytes` can be a whole frame. A caller that reads no more than that never
    /// reads into the raw bytes that may follow the frame.
    pub fn lacking(bytes: &[u8]) -> usize {
        let whole = match FrameHead::ref_from_prefix(bytes) {
            Ok((head, _)) => FRAME_HEAD_BYTES + (head.length.get() as usize).min(FRAME_BYTES_MAX),
            Err(_) => FRAME_BYTES_MIN,
        };
        whole.saturating_sub(bytes.len()).max(1)
    }

    /// Appends the frame to `out`, sealed as the next one in the direction of `key`.
    ///
    /// # Panics
    /// As [`write`](Frame::write).
    pub fn write_sealed(&self, out: &mut Vec<u8>, key: &mut FrameKey) {
        let start = out.len();
        self.write(out);
        key.seal(&mut out[start..]);
    }

    /// Appends the frame to `out`, not sealed.
    ///
    /// # Panics
    /// When it has more keys, entries, chunks or contacts than the bound of its kind.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        let number = self.write_body(out);
        let length = out.len() - start - FRAME_HEAD_BYTES;
        let kind = KINDS.iter().find(|kind| kind.number == number);
        assert!(kind.is_some_and(|kind| length <= kind.body_bytes_max), "too much for one frame: {self:?}");
        let (reserved, tag) = ([0; 3], [0; TAG_BYTES]);
        let head = FrameHead { length: U32::new(length as u32), kind: number, reserved, tag };
        out[start..start + FRAME_HEAD_BYTES].copy_from_slice(head.as_bytes());
    }
}

/// Helpers for the tests of the families.
#[cfg(test)]
mod testing {
    use super::*;

    pub(super) fn written(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        bytes
    }

    /// Writes the frame and parses it again. If it is not refused, it must be the same frame.
    pub(super) fn reread(frame: &Frame<'_>) -> Result<(), Refused> {
        let bytes = written(frame);
        Frame::parse(&bytes).map(|parsed| assert_eq!(parsed, Parsed::Frame(*frame, bytes.len())))
    }

    /// Parses the frame after byte `at` of its body was replaced by `byte`.
    pub(super) fn with_byte(frame: &Frame<'_>, at: usize, byte: u8) -> Result<(), Refused> {
        let mut bytes = written(frame);
        bytes[FRAME_HEAD_BYTES + at] = byte;
        Frame::parse(&bytes).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use std::collections::BTreeSet;

    fn each_example(mut check: impl FnMut(u8, &Frame<'static>)) {
        for (number, frames) in examples() {
            assert!(!frames.is_empty(), "kind {number} has no example");
            frames.iter().for_each(|frame| check(number, frame));
        }
    }

    #[test]
    fn no_number_stands_for_two_kinds() {
        let numbers: BTreeSet<u8> = KINDS.iter().map(|kind| kind.number).collect();
        assert_eq!(numbers.len(), KINDS.len());
    }

    #[test]
    fn an_unknown_number_is_refused() {
        for number in 0..=u8::MAX {
            let known = KINDS.iter().any(|kind| kind.number == number);
            let mut head = [0; FRAME_HEAD_BYTES];
            (head[3], head[4]) = (1, number);
            let expected = if known { Refused::Length } else { Refused::Kind };
            assert_eq!(Frame::parse(&head), Err(expected), "{number}");
        }
    }

    #[test]
    fn every_kind_survives_encoding() {
        each_example(|number, frame| {
            assert_eq!(reread(frame), Ok(()), "{frame:?}");
            assert_eq!(written(frame)[4], number, "{frame:?}");
        });
    }

    #[test]
    fn every_kind_reads_with_bytes_of_the_next_frame_after_it() {
        each_example(|_, frame| {
            let bytes = written(frame);
            let more = [&bytes[..], &[0xff; 40]].concat();
            assert_eq!(Frame::parse(&more), Ok(Parsed::Frame(*frame, bytes.len())));
        });
    }

    #[test]
    fn every_kind_can_be_as_long_as_its_bound() {
        for ((number, frames), kind) in examples().iter().zip(KINDS) {
            let longest = frames.iter().map(|frame| written(frame).len()).max();
            assert_eq!(longest, Some(FRAME_HEAD_BYTES + kind.body_bytes_max), "kind {number}");
        }
    }

    #[test]
    fn every_kind_above_its_bound_is_refused_at_the_head() {
        for kind in KINDS {
            let head = |length: usize| {
                let mut head = [0; FRAME_HEAD_BYTES];
                head[..4].copy_from_slice(&(length as u32).to_le_bytes());
                head[4] = kind.number;
                head
            };
            let bound = kind.body_bytes_max;
            assert_eq!(Frame::parse(&head(bound)), Ok(Parsed::Incomplete), "kind {}", kind.number);
            for length in [bound + 1, FRAME_BYTES_MAX, u32::MAX as usize] {
                assert_eq!(Frame::parse(&head(length)), Err(Refused::Length), "kind {}", kind.number);
            }
        }
    }

    #[test]
    fn every_truncation_of_every_kind_is_incomplete() {
        each_example(|_, frame| {
            let bytes = written(frame);
            for length in 0..bytes.len() {
                assert_eq!(Frame::parse(&bytes[..length]), Ok(Parsed::Incomplete), "{length} of {frame:?}");
            }
        });
    }

    #[test]
    fn a_body_that_is_announced_one_byte_shorter_or_longer_is_refused() {
        each_example(|_, frame| {
            let bytes = written(frame);
            let length = bytes.len() - FRAME_HEAD_BYTES;
            for changed in [length - 1, length + 1] {
                let mut bytes = [&bytes[..], &[0]].concat();
                bytes[..4].copy_from_slice(&(changed as u32).to_le_bytes());
                assert_eq!(Frame::parse(&bytes), Err(Refused::Length), "{changed} bytes of {frame:?}");
            }
        });
    }

    #[test]
    fn no_bit_of_any_kind_is_ignored() {
        each_example(|_, frame| {
            let bytes = written(frame);
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let Ok(Parsed::Frame(other, length)) = Frame::parse(&changed) else { continue };
                assert_ne!(other, *frame, "bit {bit}");
                assert_eq!(written(&other), changed[..length], "bit {bit} of {frame:?}");
            }
        });
    }

    #[test]
    fn reading_only_the_lacking_bytes_ends_exactly_with_the_frame() {
        let (mut shortest, mut checked) = (usize::MAX, 0);
        each_example(|_, frame| {
            let bytes = written(frame);
            // Raw bytes follow no frame that is shorter than the first read.
            if bytes.len() < FRAME_BYTES_MIN {
                return;
            }
            shortest = shortest.min(bytes.len());
            let mut read = 0;
            while Frame::parse(&bytes[..read]) == Ok(Parsed::Incomplete) {
                read += Frame::lacking(&bytes[..read]);
            }
            assert_eq!(read, bytes.len(), "{frame:?}");
            checked += 1;
        });
        assert_eq!(shortest, FRAME_BYTES_MIN);
        assert!(checked >= KINDS.len());
    }

    #[test]
    fn a_hostile_length_does_not_make_a_reader_ask_for_more_than_the_largest_frame() {
        assert_eq!(Frame::lacking(&[0xff; 30]), FRAME_BYTES_MAX + FRAME_HEAD_BYTES - 30);
    }

    #[test]
    #[should_panic(expected = "too much for one frame")]
    fn writing_a_frame_above_its_bound_panics() {
        written(&Frame::Inspect { question: 1, keys: &[Key([7; 32]); 65] });
    }
}

//! Range-based set reconciliation of the keys that two nodes hold (Aljoscha Meyer, "Range-Based Set Reconciliation", SRDS 2023).
//!
//! The requester sends a salt and ranges, each with the count and the fingerprint of its keys there. The responder answers the
//! ranges in order: [equal](Answer::Equal), its own [sub-ranges](Answer::Split) with their fingerprints, its
//! [keys](Answer::Keys), or a refusal. Ranges that find no room in the answer are left out at its end; the requester asks again.
//!
//! The first eight bytes of a key, its [`number`], determine its range; its first sixteen name it. The fingerprint of a set is the
//! sum, modulo 2^128, of the 128-bit XXH3 hashes of its keys under the salt. It detects accidental differences, and the salt
//! keeps an attacker that chooses keys from choosing collisions.

use super::Refused;
use super::header::PAYLOAD_BYTES_MAX;
use super::layout::reserved;
use crate::id::Key;
use xxhash_rust::xxh3::xxh3_128_with_seed;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most ranges in one datagram, which they and the salt fill.
pub const RANGES_MAX: usize = 27;
/// The most keys in one answer.
pub const KEYS_MAX: usize = 64;
/// The most sub-ranges in one answer.
pub const PARTS_MAX: usize = 32;

/// The first sixteen bytes of a key.
pub type KeyPrefix = [u8; 16];

/// The keys that the responder compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Scope {
    /// The keys of which, by its own view, both nodes are holders.
    Shared = 0,
    /// The keys of the pieces that it intends to keep: those that are neither surplus nor misplaced.
    Kept = 1,
}

/// A range of the key space with a summary of the sender's keys in it: 40 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireRange {
    first: U64,
    last: U64,
    count: U32,
    scope: u8,
    reserved: [u8; 3],
    fingerprint: U128,
}

/// A part of a requested range with a summary of the responder's keys in it: 32 bytes. It begins after the previous part; the
/// first part begins with the range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WirePart {
    last: U64,
    count: U32,
    reserved: [u8; 4],
    fingerprint: U128,
}

/// The head of an answer; its parts or keys follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AnswerHead {
    verdict: u8,
    count: u8,
    reserved: [u8; 6],
}

/// The head of a reconcile; the ranges follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ReconcileHead {
    pub(super) salt: U64,
}

const _: () = assert!(size_of::<WireRange>() == 40);
const _: () = assert!(size_of::<WirePart>() == 32);
const _: () = assert!(size_of::<AnswerHead>() == 8);
const _: () = assert!(size_of::<ReconcileHead>() == 8);
const _: () = assert!(
    size_of::<ReconcileHead>() + RANGES_MAX * size_of::<WireRange>() <= PAYLOAD_BYTES_MAX,
    "a full reconcile fits a datagram"
);
const _: () = assert!(
    size_of::<AnswerHead>() + KEYS_MAX * size_of::<KeyPrefix>() <= PAYLOAD_BYTES_MAX
        && size_of::<AnswerHead>() + PARTS_MAX * size_of::<WirePart>() <= PAYLOAD_BYTES_MAX,
    "the largest answer to one range fits a datagram"
);

/// The number of a key, by which ranges order keys: its first eight bytes, big-endian.
pub fn number(key: &Key) -> u64 {
    key.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The prefix that names a key in an answer.
pub fn prefix(key: &Key) -> KeyPrefix {
    core::array::from_fn(|index| key.0[index])
}

/// A summary of a set of keys. Different sets have different summaries, except by a negligible accident.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The number of keys.
    pub count: u32,
    /// The sum of the keys' hashes modulo 2^128.
    pub fingerprint: u128,
}

impl Summary {
    /// Adds a key to the set.
    #[inline]
    pub fn add(&mut self, key: &Key, salt: u64) {
        self.count = self.count.saturating_add(1);
        self.fingerprint = self.fingerprint.wrapping_add(xxh3_128_with_seed(&key.0, salt));
    }
}

impl WireRange {
    /// The range from `first` to `last`, both included, with a summary of the sender's keys in it.
    pub fn new(first: u64, last: u64, scope: Scope, summary: Summary) -> Self {
        WireRange {
            first: U64::new(first),
            last: U64::new(last),
            count: U32::new(summary.count),
            scope: scope as u8,
            reserved: [0; 3],
            fingerprint: U128::new(summary.fingerprint),
        }
    }

    /// The smallest number in it.
    pub fn first(&self) -> u64 {
        self.first.get()
    }

    /// The largest number in it.
    pub fn last(&self) -> u64 {
        self.last.get()
    }

    /// The keys that it covers.
    pub fn scope(&self) -> Scope {
        if self.scope == Scope::Kept as u8 { Scope::Kept } else { Scope::Shared }
    }

    /// The summary of the sender's keys in it.
    pub fn summary(&self) -> Summary {
        Summary { count: self.count.get(), fingerprint: self.fingerprint.get() }
    }
}

impl WirePart {
    /// The part that ends with `last`, with a summary of the sender's keys in it.
    pub fn new(last: u64, summary: Summary) -> Self {
        WirePart {
            last: U64::new(last),
            count: U32::new(summary.count),
            reserved: [0; 4],
            fingerprint: U128::new(summary.fingerprint),
        }
    }

    /// The largest number in it.
    pub fn last(&self) -> u64 {
        self.last.get()
    }

    /// The summary of the sender's keys in it.
    pub fn summary(&self) -> Summary {
        Summary { count: self.count.get(), fingerprint: self.fingerprint.get() }
    }
}

/// Checks the ranges of a reconcile: one to [`RANGES_MAX`], ascending and without overlap, so that the responder visits no key
/// twice.
pub(super) fn check_ranges(ranges: &[WireRange]) -> Result<(), Refused> {
    if !(1..=RANGES_MAX).contains(&ranges.len()) {
        return Err(Refused::Length);
    }
    let mut after: Option<u64> = None;
    for range in ranges {
        reserved(&range.reserved)?;
        let (first, last) = (range.first(), range.last());
        if range.scope > Scope::Kept as u8 || first > last || after.is_some_and(|after| first <= after) {
            return Err(Refused::Value);
        }
        after = Some(last);
    }
    Ok(())
}

/// The answer to one range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// Both nodes have the same keys there.
    Equal,
    /// The keys differ: a summary of the responder's keys for each part of the range. There are two to [`PARTS_MAX`] parts,
    /// ascending. The requester checks that the last part ends with the range.
    Split(&'a [WirePart]),
    /// The keys differ: all keys of the responder there, ascending.
    Keys(&'a [KeyPrefix]),
    /// The responder has spent its budget; the requester may ask again in some seconds.
    Later,
    /// The responder does not reconcile with the requester.
    Refused,
}

impl<'a> Answer<'a> {
    const EQUAL: u8 = 0;
    const SPLIT: u8 = 1;
    const KEYS: u8 = 2;
    const LATER: u8 = 3;
    const REFUSED: u8 = 4;

    /// Its length in a datagram, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<AnswerHead>()
            + match self {
                Answer::Split(parts) => size_of_val(*parts),
                Answer::Keys(keys) => size_of_val(*keys),
                Answer::Equal | Answer::Later | Answer::Refused => 0,
            }
    }

    /// Parses the answer at the start of `bytes`, and returns it with the bytes that follow.
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Refused> {
        let (head, rest) = AnswerHead::ref_from_prefix(bytes).map_err(|_| Refused::Length)?;
        reserved(&head.reserved)?;
        let count = usize::from(head.count);
        match head.verdict {
            Answer::SPLIT => {
                let (parts, rest) =
                    <[WirePart]>::ref_from_prefix_with_elems(rest, count).map_err(|_| Refused::Length)?;
                parts.iter().try_for_each(|part| reserved(&part.reserved))?;
                let ascending = parts.windows(2).all(|two| two[0].last() < two[1].last());
                let fits = (2..=PARTS_MAX).contains(&count);
                if fits && ascending { Ok((Answer::Split(parts), rest)) } else { Err(Refused::Value) }
            }
            Answer::KEYS => {
                let (keys, rest) =
                    <[KeyPrefix]>::ref_from_prefix_with_elems(rest, count).map_err(|_| Refused::Length)?;
                let ascending = keys.windows(2).all(|two| two[0] < two[1]);
                if count <= KEYS_MAX && ascending {
                    Ok((Answer::Keys(keys), rest))
                } else {
                    Err(Refused::Value)
                }
            }
            _ if count != 0 => Err(Refused::Value),
            Answer::EQUAL => Ok((Answer::Equal, rest)),
            Answer::LATER => Ok((Answer::Later, rest)),
            Answer::REFUSED => Ok((Answer::Refused, rest)),
            _ => Err(Refused::Value),
        }
    }
}

/// The well-formed answers of one datagram: one to [`RANGES_MAX`], in the order of the ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answers<'a> {
    bytes: &'a [u8],
}

impl<'a> Answers<'a> {
    /// Parses answers that must fill `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        let (mut rest, mut count) = (bytes, 0);
        while !rest.is_empty() {
            rest = Answer::parse(rest)?.1;
            count += 1;
        }
        if (1..=RANGES_MAX).contains(&count) { Ok(Answers { bytes }) } else { Err(Refused::Length) }
    }

    /// The answers, in the order of the requested ranges.
    pub fn iter(&self) -> impl Iterator<Item = Answer<'a>> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (answer, after) = Answer::parse(rest).ok()?;
            rest = after;
            Some(answer)
        })
    }

    /// The answers in their wire form.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Composes [`Answers`] in a buffer, whose length bounds them.
pub struct AnswerWriter<'b> {
    out: &'b mut [u8],
    length: usize,
}

impl<'b> AnswerWriter<'b> {
    /// A writer without answers, into `out`.
    pub fn new(out: &'b mut [u8]) -> Self {
        AnswerWriter { out, length: 0 }
    }

    /// The bytes left in the buffer.
    pub fn room(&self) -> usize {
        self.out.len() - self.length
    }

    /// Whether it has no answers.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an answer; `false` when there is no room for it.
    pub fn put(&mut self, answer: &Answer<'_>) -> bool {
        if answer.bytes() > self.room() {
            return false;
        }
        let (verdict, count, body) = match answer {
            Answer::Equal => (Answer::EQUAL, 0, &[][..]),
            Answer::Split(parts) => (Answer::SPLIT, parts.len(), parts.as_bytes()),
            Answer::Keys(keys) => (Answer::KEYS, keys.len(), keys.as_bytes()),
            Answer::Later => (Answer::LATER, 0, &[][..]),
            Answer::Refused => (Answer::REFUSED, 0, &[][..]),
        };
        let Ok(count) = u8::try_from(count) else { return false };
        for bytes in [AnswerHead { verdict, count, reserved: [0; 6] }.as_bytes(), body] {
            self.out[self.length..self.length + bytes.len()].copy_from_slice(bytes);
            self.length += bytes.len();
        }
        true
    }

    /// The answers; `None` when every recipient would refuse them.
    pub fn finish(self) -> Option<Answers<'b>> {
        Answers::parse(&self.out[..self.length]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(count: u32) -> Summary {
        Summary { count, fingerprint: u128::from(count) << 100 }
    }

    #[test]
    fn the_fingerprint_of_a_set_depends_on_the_salt_and_not_on_the_order() {
        let keys = [Key([1; 32]), Key([2; 32]), Key([3; 32])];
        let of = |keys: &mut dyn Iterator<Item = &Key>, salt| {
            let mut summary = Summary::default();
            keys.for_each(|key| summary.add(key, salt));
            summary
        };
        let there = of(&mut keys.iter(), 7);
        assert_eq!(there, of(&mut keys.iter().rev(), 7));
        assert_ne!(there, of(&mut keys.iter(), 8));
        assert_ne!(there, of(&mut keys[1..].iter(), 7));
    }

    #[test]
    fn ranges_that_overlap_or_run_backwards_are_refused() {
        let range = |first, last| WireRange::new(first, last, Scope::Shared, summary(1));
        assert_eq!(check_ranges(&[]), Err(Refused::Length));
        assert_eq!(check_ranges(&[range(0, 1); RANGES_MAX + 1]), Err(Refused::Length));
        assert_eq!(check_ranges(&[range(2, 1)]), Err(Refused::Value));
        assert_eq!(check_ranges(&[range(0, 5), range(5, 9)]), Err(Refused::Value));
        assert_eq!(check_ranges(&[range(6, 9), range(0, 5)]), Err(Refused::Value));
        assert_eq!(check_ranges(&[range(0, 5), range(6, u64::MAX)]), Ok(()));
        let mut unknown = range(0, 5);
        unknown.scope = 2;
        assert_eq!(check_ranges(&[unknown]), Err(Refused::Value));
    }

    #[test]
    fn answers_read_as_they_were_written_and_one_without_room_is_refused() {
        let parts = [WirePart::new(9, summary(4)), WirePart::new(u64::MAX, summary(5))];
        let keys = [[1; 16], [2; 16]];
        let all = [
            Answer::Equal,
            Answer::Split(&parts),
            Answer::Keys(&keys),
            Answer::Keys(&[]),
            Answer::Later,
            Answer::Refused,
        ];
        let mut out = [0xff; 300];
        let mut writer = AnswerWriter::new(&mut out);
        assert!(all.iter().all(|answer| writer.put(answer)));
        let answers = writer.finish().expect("they are sound");
        assert!(answers.iter().eq(all));
        let mut small = [0; 12];
        let mut writer = AnswerWriter::new(&mut small);
        assert!(writer.put(&Answer::Equal) && !writer.put(&Answer::Equal) && writer.room() == 4);
    }

    #[test]
    fn invalid_answers_are_refused() {
        let parse = |bytes: &[u8]| Answers::parse(bytes).err();
        assert_eq!(parse(&[]), Some(Refused::Length));
        assert_eq!(parse(&[0; 7]), Some(Refused::Length));
        assert_eq!(parse(&[0; 8 * (RANGES_MAX + 1)]), Some(Refused::Length));
        assert_eq!(parse(&[5, 0, 0, 0, 0, 0, 0, 0]), Some(Refused::Value));
        assert_eq!(parse(&[0, 1, 0, 0, 0, 0, 0, 0]), Some(Refused::Value));
        assert_eq!(parse(&[0, 0, 0, 0, 0, 1, 0, 0]), Some(Refused::Reserved));
        assert_eq!(parse(&[2, 1, 0, 0, 0, 0, 0, 0]), Some(Refused::Length));
        let twice = [[2, 2, 0, 0, 0, 0, 0, 0].as_slice(), &[7; 32]].concat();
        assert_eq!(parse(&twice), Some(Refused::Value));
        let one_part = [[1, 1, 0, 0, 0, 0, 0, 0].as_slice(), &[0; 32]].concat();
        assert_eq!(parse(&one_part), Some(Refused::Value));
    }
}

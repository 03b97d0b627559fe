//! A publisher's signed claim on a piece: how many copies the network keeps of it, and for how long.
//!
//! Only a claim makes a node keep a piece longer than a day, or repair it. Each piece of a file has a claim of its own, signed
//! when the publisher offers it: that costs 17 µs beside the transfer of up to 16 MiB, and a holder needs neither the file's
//! manifest nor a proof that the piece belongs to the file. The holder keeps the claim beside the piece and hands it on with every
//! copy. `wire::claim` signs and verifies it.

use crate::id::PublicKey;
use crate::limits::LIFETIME_SECONDS_MAX;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest time for which a node keeps a piece without a claim, in seconds.
pub const UNCLAIMED_SECONDS_MAX: u32 = 24 * 3600;

/// A claim: 112 bytes. It does not contain its piece's key, which its signature covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PieceClaim {
    publisher: PublicKey,
    sequence: U64,
    lifetime: U32,
    replicas: u8,
    reserved: [u8; 3],
    /// Over the piece's key and the fields above.
    pub(crate) signature: [u8; 64],
}

/// The bytes of a claim.
pub const CLAIM_BYTES: usize = size_of::<PieceClaim>();
const _: () = assert!(CLAIM_BYTES == 112);
/// The bytes that the signature covers, besides the piece's key.
const COVERED: usize = CLAIM_BYTES - 64;

impl PieceClaim {
    /// A claim without a signature. `lifetime` is in seconds from the time at which a holder first hears of this `sequence`.
    pub fn unsigned(publisher: PublicKey, replicas: u8, lifetime: u32, sequence: u64) -> Self {
        PieceClaim {
            publisher,
            sequence: U64::new(sequence),
            lifetime: U32::new(lifetime),
            replicas,
            reserved: [0; 3],
            signature: [0; 64],
        }
    }

    /// The claim in these bytes, which are all zero when there is none. The outer `None` is for bytes that are no claim.
    pub fn decode(bytes: &[u8; CLAIM_BYTES]) -> Option<Option<Self>> {
        if *bytes == [0; CLAIM_BYTES] {
            return Some(None);
        }
        let claim = PieceClaim::read_from_bytes(bytes).ok()?;
        let in_range = claim.replicas > 0 && (1..=LIFETIME_SECONDS_MAX).contains(&claim.lifetime.get());
        (in_range && claim.reserved == [0; 3]).then_some(Some(claim))
    }

    /// The bytes of a claim, all zero for none.
    pub fn encode(claim: Option<Self>) -> [u8; CLAIM_BYTES] {
        let mut bytes = [0; CLAIM_BYTES];
        bytes.copy_from_slice(claim.unwrap_or_else(PieceClaim::new_zeroed).as_bytes());
        bytes
    }

    /// Whether it replaces `other`, a claim on the same piece: the same publisher signed it later, or another publisher wants a longer
    /// lifetime, or more copies for as long. The claims of different publishers are in one order, so that no two of them, repeated in
    /// turns, replace each other for ever.
    pub fn supersedes(&self, other: &PieceClaim) -> bool {
        match self.publisher == other.publisher {
            true => self.sequence() > other.sequence(),
            false => (self.lifetime(), self.replicas) > (other.lifetime(), other.replicas),
        }
    }

    /// The publisher's key.
    pub fn publisher(&self) -> PublicKey {
        self.publisher
    }

    /// The number of copies that the network keeps; at least 1.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The lifetime in seconds; 1 to [`LIFETIME_SECONDS_MAX`].
    pub fn lifetime(&self) -> u32 {
        self.lifetime.get()
    }

    /// The sequence number. Each claim of a publisher has a higher one than the claims before.
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// The bytes that the signature covers, besides the piece's key.
    pub(crate) fn covered(&self) -> &[u8] {
        &self.as_bytes()[..COVERED]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(publisher: u8, replicas: u8, lifetime: u32, sequence: u64) -> PieceClaim {
        PieceClaim::unsigned(PublicKey([publisher; 32]), replicas, lifetime, sequence)
    }

    #[test]
    fn a_claim_survives_its_bytes_and_zeros_are_none() {
        for one in [None, Some(claim(1, 3, 60, 9))] {
            assert_eq!(PieceClaim::decode(&PieceClaim::encode(one)), Some(one));
        }
    }

    #[test]
    fn a_claim_out_of_range_is_refused() {
        for wrong in [claim(1, 0, 60, 9), claim(1, 3, 0, 9), claim(1, 3, LIFETIME_SECONDS_MAX + 1, 9)] {
            assert_eq!(PieceClaim::decode(&PieceClaim::encode(Some(wrong))), None);
        }
        let mut bytes = PieceClaim::encode(Some(claim(1, 3, 60, 9)));
        bytes[45] = 1;
        assert_eq!(PieceClaim::decode(&bytes), None, "a reserved byte");
    }

    #[test]
    fn a_publisher_replaces_its_own_claim_with_a_later_one_only() {
        let kept = claim(1, 3, 60, 9);
        assert!(claim(1, 2, 30, 10).supersedes(&kept));
        assert!(!kept.supersedes(&kept));
        assert!(!claim(1, 9, 90, 8).supersedes(&kept));
    }

    #[test]
    fn two_claims_of_two_publishers_never_replace_each_other_in_turns() {
        let (one, other) = (claim(1, 3, 60, 9), claim(2, 3, 90, 1));
        assert!(other.supersedes(&one));
        assert!(!one.supersedes(&other));
        assert!(!claim(2, 3, 60, 99).supersedes(&one), "it wants no more than there is");
        for (replicas, lifetime) in [(2, 90), (9, 30), (2, 30), (9, 90), (9, 60)] {
            let other = claim(2, replicas, lifetime, 1);
            assert!(other.supersedes(&one) != one.supersedes(&other), "{replicas} copies, {lifetime} s");
        }
    }
}

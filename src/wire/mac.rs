//! The MACs of datagrams and frames, under keys that two nodes share.

use crate::identity::Scheme;
use core::fmt;

/// The length of a MAC in bytes.
pub const MAC_BYTES: usize = 16;

/// The key under which one node authenticates its datagrams to one other node, for one epoch of each, or its frames on one stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey(pub [u8; 32]);

impl MacKey {
    /// The MAC over header and payload (`covered`): the first 16 bytes of keyed BLAKE3.
    pub(super) fn tag(&self, scheme: Scheme, covered: &[u8]) -> [u8; MAC_BYTES] {
        let mut tag = [0; MAC_BYTES];
        match scheme {
            Scheme::Ed25519 => {
                tag.copy_from_slice(&blake3::keyed_hash(&self.0, covered).as_bytes()[..MAC_BYTES]);
            }
            // A checksum, as for the signatures of simulations.
            #[cfg(feature = "sim")]
            Scheme::StandIn => {
                use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
                tag[..8].copy_from_slice(&xxh3_64_with_seed(covered, xxh3_64(&self.0)).to_le_bytes());
            }
        }
        tag
    }

    /// The MAC over parts that lie apart, one after the other.
    pub(super) fn tag_over(&self, scheme: Scheme, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut tag = [0; MAC_BYTES];
        match scheme {
            Scheme::Ed25519 => {
                let mut hasher = blake3::Hasher::new_keyed(&self.0);
                parts.iter().for_each(|part| _ = hasher.update(part));
                tag.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
            }
            #[cfg(feature = "sim")]
            Scheme::StandIn => {
                use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
                let sum = parts.iter().fold(xxh3_64(&self.0), |sum, part| xxh3_64_with_seed(part, sum));
                tag[..8].copy_from_slice(&sum.to_le_bytes());
            }
        }
        tag
    }

    /// Whether `tag` is the MAC over `covered`. Takes the same time wherever the two differ.
    pub(super) fn verify(&self, scheme: Scheme, covered: &[u8], tag: &[u8; MAC_BYTES]) -> bool {
        equal(&self.tag(scheme, covered), tag)
    }
}

/// Whether two MACs are equal. Takes the same time wherever they differ.
pub(super) fn equal(one: &[u8; MAC_BYTES], other: &[u8; MAC_BYTES]) -> bool {
    // Comparing two BLAKE3 hashes takes constant time.
    let widened = |tag: &[u8; MAC_BYTES]| {
        let mut hash = [0; blake3::OUT_LEN];
        hash[..MAC_BYTES].copy_from_slice(tag);
        blake3::Hash::from_bytes(hash)
    };
    widened(one) == widened(other)
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes() -> Vec<Scheme> {
        vec![
            Scheme::Ed25519,
            #[cfg(feature = "sim")]
            Scheme::StandIn,
        ]
    }

    #[test]
    fn a_mac_is_valid_for_its_key_and_its_bytes_only() {
        let (key, covered) = (MacKey([7; 32]), [5; 300]);
        for scheme in schemes() {
            let tag = key.tag(scheme, &covered);
            assert!(key.verify(scheme, &covered, &tag));
            assert!(!MacKey([8; 32]).verify(scheme, &covered, &tag));
            assert!(!key.verify(scheme, &covered[1..], &tag));
            let parts = key.tag_over(scheme, &[&covered[..100], &covered[100..]]);
            assert_ne!(parts, key.tag_over(scheme, &[&covered[..100], &covered[101..]]));
            assert_eq!(equal(&parts, &tag), scheme == Scheme::Ed25519, "a checksum tells parts apart");
            for bit in 0..MAC_BYTES * 8 {
                let mut wrong = tag;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.verify(scheme, &covered, &wrong), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_key_is_not_shown_by_its_debug_output() {
        assert_eq!(format!("{:?}", MacKey([0xab; 32])), "MacKey(…)");
    }
}

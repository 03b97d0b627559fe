//! Proofs of possession: how a holder shows that it has a piece, without sending it.
//!
//! The challenger draws a nonce. It selects leaves of the piece, and the proof is a hash over them, the nonce, the piece's key and
//! the ids of both nodes. So a holder needs the bytes to answer, a recorded proof answers no other challenge, and a node that has
//! nothing cannot pass the challenge on to an honest holder, which would prove its own possession. A node that lacks a share *s*
//! of the leaves passes with a probability of about (1 − *s*)^[`LEAVES`].
//!
//! The nonce is sent after the piece, so a node cannot compute the proof while it discards the bytes.

use crate::id::{Key, NodeId};
use crate::io::Run;
use crate::rng::Rng;
use std::collections::BTreeSet;

/// What selects the leaves of one challenge. Random, and used once.
pub type Nonce = [u8; 32];

/// The answer to a challenge.
pub type Proof = [u8; 32];

/// The size of a leaf, as BLAKE3 has it. The last leaf of a piece may be shorter.
const LEAF_BYTES: u32 = 1024;

/// The leaves that a challenge selects. A piece with no more is read whole.
pub const LEAVES: usize = 8;

/// The most bytes that a challenge selects.
pub const SAMPLE_BYTES_MAX: usize = LEAVES * LEAF_BYTES as usize;

/// The parts of a piece of `length` bytes that the nonce selects, in ascending order and apart from each other.
pub fn selected(nonce: &Nonce, length: u32) -> Vec<Run> {
    let count = length.div_ceil(LEAF_BYTES);
    if count as usize <= LEAVES {
        return vec![Run { offset: 0, length }];
    }
    let (mut rng, mut leaves) = (Rng::new(*nonce), BTreeSet::new());
    while leaves.len() < LEAVES {
        leaves.insert(rng.below(u64::from(count)) as u32);
    }
    let run = |leaf: u32| {
        let offset = leaf * LEAF_BYTES;
        Run { offset, length: LEAF_BYTES.min(length - offset) }
    };
    leaves.into_iter().map(run).collect()
}

/// The proof of `holder` for `challenger`, from the bytes that the nonce selects.
pub fn proof(nonce: &Nonce, holder: &NodeId, challenger: &NodeId, key: &Key, bytes: &[u8]) -> Proof {
    let mut hasher = blake3::Hasher::new_derive_key("elver 2026-11 proof of possession v2");
    hasher.update(nonce).update(&holder.0).update(&challenger.0).update(&key.0).update(bytes);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_piece_is_read_whole() {
        for length in [0, 1, LEAF_BYTES, SAMPLE_BYTES_MAX as u32] {
            assert_eq!(selected(&[1; 32], length), [Run { offset: 0, length }]);
        }
    }

    #[test]
    fn a_long_piece_is_read_in_as_many_leaves_that_do_not_overlap_and_lie_inside_it() {
        for (seed, length) in (0..200).flat_map(|seed| [(seed, 8193), (seed, 262_144), (seed, 16 << 20)]) {
            let runs = selected(&[seed; 32], length);
            assert_eq!(runs.len(), LEAVES);
            assert!(runs.windows(2).all(|pair| pair[0].offset + pair[0].length <= pair[1].offset));
            assert!(runs.iter().all(|run| run.length > 0 && run.offset + run.length <= length));
        }
    }

    #[test]
    fn every_leaf_is_selected_by_some_nonce() {
        let length = 20 * LEAF_BYTES - 5;
        let all: BTreeSet<u32> =
            (0..100).flat_map(|seed| selected(&[seed; 32], length)).map(|run| run.offset).collect();
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn a_proof_is_for_one_nonce_one_holder_one_challenger_one_piece_and_these_bytes() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut proofs = vec![
            proof(&[5; 32], &a, &b, &Key([9; 32]), b"bytes"),
            proof(&[6; 32], &a, &b, &Key([9; 32]), b"bytes"),
            proof(&[5; 32], &b, &a, &Key([9; 32]), b"bytes"),
            proof(&[5; 32], &a, &b, &Key([8; 32]), b"bytes"),
            proof(&[5; 32], &a, &b, &Key([9; 32]), b"bytez"),
            proof(&[5; 32], &a, &b, &Key([9; 32]), b""),
        ];
        proofs.sort_unstable();
        proofs.dedup();
        assert_eq!(proofs.len(), 6);
    }
}

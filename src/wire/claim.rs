//! Signing and verifying claims on pieces.

use super::network::Network;
use crate::claim::PieceClaim;
use crate::id::Key;
use crate::identity::Identity;

/// A signed claim on the piece `key` (17 µs): see [`PieceClaim::unsigned`].
pub fn sign_claim(
    network: &Network,
    identity: &Identity,
    key: &Key,
    (replicas, lifetime): (u8, u32),
    sequence: u64,
) -> PieceClaim {
    let mut claim = PieceClaim::unsigned(identity.public(), replicas, lifetime, sequence);
    claim.signature = identity.sign(&network.claim_digest(key, claim.covered()));
    claim
}

/// Whether the claim's publisher signed it for this piece, in this network (50 µs).
pub fn verify_claim(network: &Network, key: &Key, claim: &PieceClaim) -> bool {
    let digest = network.claim_digest(key, claim.covered());
    network.verify(&claim.publisher(), &digest, &claim.signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_valid_for_its_piece_and_network_and_with_every_bit_as_signed() {
        let (network, identity, key) = (Network::new("test"), Identity::from_secret(&[1; 32]), Key([7; 32]));
        let claim = sign_claim(&network, &identity, &key, (3, 3600), 9);
        assert!(verify_claim(&network, &key, &claim));
        assert!(!verify_claim(&network, &Key([8; 32]), &claim));
        assert!(!verify_claim(&Network::new("other"), &key, &claim));
        let bytes = PieceClaim::encode(Some(claim));
        for bit in (0..8 * bytes.len()).step_by(7) {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            if let Some(Some(wrong)) = PieceClaim::decode(&wrong) {
                assert!(!verify_claim(&network, &key, &wrong), "bit {bit}");
            }
        }
    }
}

//! A node's key pair: making and checking signatures.
//!
//! A node signs only 32-byte [`Digest`]s, each made under a domain string and a network (see
//! [`wire::network`](crate::wire::network)), so a signature made for one purpose is not valid for another.

use crate::id::{NodeId, PublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroize;

/// The signed message: a BLAKE3 output under a domain.
pub type Digest = [u8; 32];

/// An Ed25519 signature in its 64-byte form (RFC 8032).
pub type Signature = [u8; 64];

/// A node's secret key, with its public key and id.
pub struct Identity {
    secret: Secret,
    public: PublicKey,
    id: NodeId,
}

/// What two nodes compute from each other's public key and their own secret, and no third node can. Overwritten when dropped.
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// The secret, as input to a key derivation; it is never used as a key itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for SharedSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The secret, for each scheme.
enum Secret {
    Ed25519(Box<SigningKey>),
    #[cfg(feature = "sim")]
    StandIn,
}

/// The signature scheme of a network. Outside simulations there is only [`Scheme::Ed25519`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// Ed25519 over BLAKE3 digests.
    Ed25519,
    /// Keyed checksums: see [`Identity::stand_in`].
    #[cfg(feature = "sim")]
    StandIn,
}

impl Identity {
    /// The identity of a 32-byte Ed25519 secret key (RFC 8032). The caller stores the secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(secret);
        let public = PublicKey(signing.verifying_key().to_bytes());
        Identity { secret: Secret::Ed25519(Box::new(signing)), public, id: public.node_id() }
    }

    /// An identity for simulations, where signatures would take nearly all of the time. It signs with a checksum keyed by the
    /// public key, which is no secret. Only a network of such identities accepts it (see
    /// [`Network::of`](crate::wire::network::Network::of)).
    #[cfg(feature = "sim")]
    pub fn stand_in(secret: &[u8; 32]) -> Self {
        let public = PublicKey(blake3::derive_key("elver 2026-11 simulated identity", secret));
        Identity { secret: Secret::StandIn, public, id: public.node_id() }
    }

    /// Its signature scheme.
    pub fn scheme(&self) -> Scheme {
        match self.secret {
            Secret::Ed25519(_) => Scheme::Ed25519,
            #[cfg(feature = "sim")]
            Secret::StandIn => Scheme::StandIn,
        }
    }

    /// The public key that others check signatures with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Signs a digest (about 25 µs on a desktop, more on a router).
    pub fn sign(&self, digest: &Digest) -> Signature {
        match &self.secret {
            Secret::Ed25519(signing) => signing.sign(digest).to_bytes(),
            #[cfg(feature = "sim")]
            Secret::StandIn => stand_in_signature(&self.public, digest),
        }
    }

    /// The static Diffie–Hellman secret of this node and the one with this public key (about 50 µs): X25519 (RFC 7748) over the same
    /// keys that sign, which is sound together with Ed25519 (Thormarker, eprint 2021/509). `None` for a key that is no point or of
    /// low order, whose secret anyone would know. Public keys that differ by a point of low order share a secret: what is derived
    /// from it must contain the keys themselves.
    pub fn agree(&self, peer: &PublicKey) -> Option<SharedSecret> {
        match &self.secret {
            Secret::Ed25519(signing) => {
                let peer = VerifyingKey::from_bytes(&peer.0).ok().filter(|key| !key.is_weak())?;
                let mut scalar = signing.to_scalar_bytes();
                let shared = SharedSecret(peer.to_montgomery().mul_clamped(scalar).to_bytes());
                scalar.zeroize();
                (*shared.as_bytes() != [0; 32]).then_some(shared)
            }
            #[cfg(feature = "sim")]
            Secret::StandIn => Some(stand_in_secret(&self.public, peer)),
        }
    }
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

/// Whether `signature` over `digest` was made with the secret of `public`. Strict in the sense of
/// "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko 2020): low-order keys and malleable signatures fail.
pub fn verify(public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&public.0)
        .and_then(|key| key.verify_strict(digest, &ed25519_dalek::Signature::from_bytes(signature)))
        .is_ok()
}

/// Whether `signature` is the checksum that stands in for one in simulations.
#[cfg(feature = "sim")]
pub(crate) fn verify_stand_in(public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
    stand_in_signature(public, digest) == *signature
}

#[cfg(feature = "sim")]
fn stand_in_signature(public: &PublicKey, digest: &Digest) -> Signature {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    let mut signature = [0x51; 64];
    signature[..8].copy_from_slice(&xxh3_64_with_seed(digest, xxh3_64(&public.0)).to_le_bytes());
    signature
}

/// The secret of two simulated nodes: the same from both ends, and different for each pair.
#[cfg(feature = "sim")]
fn stand_in_secret(own: &PublicKey, peer: &PublicKey) -> SharedSecret {
    use xxhash_rust::xxh3::xxh3_64;
    let sum = xxh3_64(&own.0).wrapping_add(xxh3_64(&peer.0));
    let mut secret = [0x51; 32];
    secret[..8].copy_from_slice(&sum.to_le_bytes());
    SharedSecret(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compressed form of a point of order 8; its multiples are all eight points of low order.
    const LOW_ORDER: [[u8; 32]; 8] = low_order();

    const fn low_order() -> [[u8; 32]; 8] {
        // Hexadecimal of the canonical encodings, as in "Taming the many EdDSAs", table 1, and of RFC 8032 point decoding.
        const T: [u8; 32] = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        const U: [u8; 32] = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ];
        const fn with_sign(mut point: [u8; 32]) -> [u8; 32] {
            point[31] |= 0x80;
            point
        }
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let zero = [0; 32];
        [one, minus_one, zero, with_sign(zero), T, with_sign(T), U, with_sign(U)]
    }

    #[test]
    fn two_nodes_agree_on_a_secret_that_no_third_one_computes() {
        let [a, b, c] = [1, 2, 3].map(|secret| Identity::from_secret(&[secret; 32]));
        let agreed =
            |own: &Identity, peer: &Identity| *own.agree(&peer.public()).expect("a sound key").as_bytes();
        assert_eq!(agreed(&a, &b), agreed(&b, &a));
        assert_ne!(agreed(&a, &b), agreed(&a, &c));
        assert_ne!(agreed(&a, &b), agreed(&c, &b));
    }

    #[test]
    fn a_key_of_low_order_or_no_point_gets_no_secret() {
        let ours = Identity::from_secret(&[1; 32]);
        for point in LOW_ORDER {
            assert!(
                VerifyingKey::from_bytes(&point).is_ok_and(|key| key.is_weak()),
                "{point:02x?} is of low order"
            );
            assert!(ours.agree(&PublicKey(point)).is_none(), "{point:02x?}");
        }
        let no_point =
            (0..=255).map(|byte| [byte; 32]).find(|bytes| VerifyingKey::from_bytes(bytes).is_err());
        assert!(ours.agree(&PublicKey(no_point.expect("half of all values are no point"))).is_none());
    }

    #[test]
    fn a_signature_is_valid_only_for_its_digest_and_its_key() {
        let (ours, theirs) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
        let signature = ours.sign(&[5; 32]);
        assert!(verify(&ours.public(), &[5; 32], &signature));
        assert!(!verify(&ours.public(), &[6; 32], &signature));
        assert!(!verify(&theirs.public(), &[5; 32], &signature));
        assert!(!verify(&PublicKey([0; 32]), &[5; 32], &signature));
    }
}

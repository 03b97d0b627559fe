//! A node's key pair: making and checking signatures.
//!
//! A node signs only 32-byte [`Digest`]s, each made under a domain string and a network (see
//! [`wire::network`](crate::wire::network)), so a signature made for one purpose is not valid for another.

use crate::id::{NodeId, PublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

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

#[cfg(test)]
mod tests {
    use super::*;

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

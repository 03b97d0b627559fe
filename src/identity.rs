//! A node's own key, and what anybody can check with another's.
//!
//! Nothing is signed but a 32-byte [`Digest`] that was made under a domain string and a network (see
//! [`wire::network`](crate::wire::network)), so a signature made for one purpose is worthless for another.

use crate::id::{NodeId, PublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

/// What is signed: a BLAKE3 output under a domain.
pub type Digest = [u8; 32];

/// An Ed25519 signature in its 64-byte form (RFC 8032).
pub type Signature = [u8; 64];

/// A node's secret key with what follows from it.
pub struct Identity {
    signing: SigningKey,
    public: PublicKey,
    id: NodeId,
}

impl Identity {
    /// The identity that belongs to a 32-byte Ed25519 secret key. The caller keeps the secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(secret);
        let public = PublicKey(signing.verifying_key().to_bytes());
        Identity { signing, public, id: public.node_id() }
    }

    /// The public key that others check signatures with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// This node's place in the key space.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Signs a digest (about 25 µs on a desktop, more on a router).
    pub fn sign(&self, digest: &Digest) -> Signature {
        self.signing.sign(digest).to_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_its_digest_and_its_key_only() {
        let (ours, theirs) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
        let signature = ours.sign(&[5; 32]);
        assert!(verify(&ours.public(), &[5; 32], &signature));
        assert!(!verify(&ours.public(), &[6; 32], &signature));
        assert!(!verify(&theirs.public(), &[5; 32], &signature));
        assert!(!verify(&PublicKey([0; 32]), &[5; 32], &signature));
    }
}

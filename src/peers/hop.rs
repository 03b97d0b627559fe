//! Hop keys: the secrets by which two neighbours authenticate each other's datagrams without signatures.
//!
//! Two nodes that know each other's public keys compute a static Diffie–Hellman secret ([`Identity::agree`]), from which a [`Root`]
//! follows, bound to the network and to both keys. Each direction and each pair of epochs has a key of its own:
//!
//! ```text
//! root   = BLAKE3-derive("elver hop root v2", network secret ‖ shared secret ‖ both public keys, sorted)
//! k(A→B) = BLAKE3-derive("elver hop key v2", root ‖ id A ‖ id B ‖ epoch A ‖ epoch B)
//! ```
//!
//! The root costs one Diffie–Hellman a peer; the restart of either end costs two derivations. The ids inside the derivations separate
//! public keys that differ only by a point of low order and so share a secret. A hop key proves a neighbour to its neighbour alone:
//! either end could have made any tag, so what third parties relay stays signed.

use crate::id::{NodeId, PublicKey};
use crate::identity::Identity;
use crate::wire::datagram::{Epoch, MacKey};
use crate::wire::network::Network;
use zeroize::Zeroize;

/// The root of the hop keys of this node and one peer. Overwritten when dropped.
pub struct Root([u8; 32]);

impl Drop for Root {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// One end of a hop: a node in one of its epochs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The node.
    pub id: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
}

impl Root {
    /// The root of this node and the peer with this public key (about 50 µs). `None` for a key that no honest node has: see
    /// [`Identity::agree`].
    pub fn of(network: &Network, identity: &Identity, peer: &PublicKey) -> Option<Root> {
        let shared = identity.agree(peer)?;
        let own = identity.public();
        let (low, high) = if own < *peer { (&own, peer) } else { (peer, &own) };
        Some(Root(network.hop_root(shared.as_bytes(), low, high)))
    }

    /// The key under which `from` authenticates datagrams to `to`.
    pub fn key(&self, network: &Network, from: End, to: End) -> MacKey {
        MacKey(network.hop_key(&[&self.0, &from.id.0, &to.id.0, &from.epoch.bytes(), &to.epoch.bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::VerifyingKey;

    fn identity(secret: u8) -> Identity {
        Identity::from_secret(&[secret; 32])
    }

    /// The keys of a pair of nodes, from A to B and from B to A, as A computes them.
    fn keys(network: &Network, own: (&Identity, u64), peer: (&Identity, u64)) -> [[u8; 32]; 2] {
        let root = Root::of(network, own.0, &peer.0.public()).expect("a sound key");
        let end = |(identity, epoch): (&Identity, u64)| End { id: identity.id(), epoch: Epoch::new(epoch) };
        let (own, peer) = (end(own), end(peer));
        [root.key(network, own, peer).0, root.key(network, peer, own).0]
    }

    #[test]
    fn both_ends_derive_the_same_two_keys_one_for_each_direction() {
        let (network, a, b) = (Network::new("test"), identity(1), identity(2));
        let [out, back] = keys(&network, (&a, 7), (&b, 9));
        assert_eq!(keys(&network, (&b, 9), (&a, 7)), [back, out]);
        assert_ne!(out, back, "a datagram cannot be reflected to its sender");
    }

    #[test]
    fn the_restart_of_either_end_or_of_both_changes_every_key() {
        let (network, a, b) = (Network::new("test"), identity(1), identity(2));
        let mut all: Vec<[u8; 32]> = Vec::new();
        for (own, peer) in [(7, 9), (8, 9), (7, 10), (8, 10), (9, 7)] {
            all.extend(keys(&network, (&a, own), (&b, peer)));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no key comes twice");
    }

    #[test]
    fn a_key_belongs_to_one_network_and_one_pair() {
        let (a, b, c) = (identity(1), identity(2), identity(3));
        let (ours, theirs) = (Network::new("ours"), Network::new("theirs"));
        let key = keys(&ours, (&a, 1), (&b, 1));
        assert_ne!(keys(&theirs, (&a, 1), (&b, 1)), key);
        assert_ne!(keys(&ours, (&a, 1), (&c, 1)), key);
        assert_ne!(keys(&ours, (&c, 1), (&b, 1)), key);
    }

    /// Public keys of one shared secret: the second is the first plus a point of order 8, whose secret key no node has.
    fn twins() -> [PublicKey; 2] {
        let order_8 = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        let point = |bytes: &[u8; 32]| VerifyingKey::from_bytes(bytes).expect("a point").to_edwards();
        let public = identity(2).public();
        [public, PublicKey((point(&public.0) + point(&order_8)).compress().to_bytes())]
    }

    #[test]
    fn keys_that_share_a_secret_have_different_roots() {
        let (network, ours) = (Network::new("test"), identity(1));
        let [public, twin] = twins();
        let secret = |key: &PublicKey| *ours.agree(key).expect("not of low order").as_bytes();
        assert_eq!(secret(&public), secret(&twin), "the shift by a point of low order changes no secret");
        let root = |key: &PublicKey| Root::of(&network, &ours, key).expect("a sound key").0;
        assert_ne!(root(&public), root(&twin));
    }

    #[cfg(feature = "sim")]
    #[test]
    fn simulated_nodes_have_keys_with_the_same_properties() {
        let [a, b, c] = [1, 2, 3].map(|secret| Identity::stand_in(&[secret; 32]));
        let network = Network::of("test", &a);
        let [out, back] = keys(&network, (&a, 7), (&b, 9));
        assert_eq!(keys(&network, (&b, 9), (&a, 7)), [back, out]);
        assert_ne!(out, back);
        assert_ne!(keys(&network, (&a, 8), (&b, 9))[0], out);
        assert_ne!(keys(&network, (&a, 7), (&c, 9))[0], out);
    }
}

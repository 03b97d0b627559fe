//! The network's name and the domains that its signatures are made under.

use crate::id::{Key, PublicKey};
use crate::identity::Digest;
use blake3::Hasher;

/// A network: nodes of different networks refuse each other's packets. What is signed is always a BLAKE3 output
/// derived for one purpose *and* one network, so that no signature can be carried from one to another.
#[derive(Clone)]
pub struct Network {
    id: u32,
    datagram: Hasher,
    handshake: Hasher,
    provider: Hasher,
    record: Hasher,
    state: Hasher,
}

impl Network {
    /// The network that everybody is in who names none.
    pub const DEFAULT_NAME: &'static str = "elver";

    /// The network called `name`.
    pub fn new(name: &str) -> Self {
        let secret = blake3::derive_key("elver 2026-11 network name", name.as_bytes());
        // Not a part of the secret: it goes out in the clear with every datagram.
        let number = blake3::derive_key("elver 2026-11 network number", name.as_bytes());
        let domain = |context: &str| {
            let mut hasher = Hasher::new_derive_key(context);
            hasher.update(&secret);
            hasher
        };
        Network {
            id: u32::from_le_bytes([number[0], number[1], number[2], number[3]]),
            datagram: domain("elver 2026-11 datagram signature v1"),
            handshake: domain("elver 2026-11 stream handshake v1"),
            provider: domain("elver 2026-11 provider record v1"),
            record: domain("elver 2026-11 value record v1"),
            state: domain("elver 2026-11 node state v1"),
        }
    }

    /// The number that headers carry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the signature on a datagram covers: header and payload (`covered`), and both identities. `recipient` is
    /// the node that it is meant for; all zeros when the sender does not know who that is.
    pub fn datagram_digest(&self, covered: &[u8], sender: &PublicKey, recipient: &Key) -> Digest {
        digest(&self.datagram, &[covered, &sender.0, &recipient.0])
    }

    /// What each end of a stream signs: its role, then the hellos of both, that of the end that connected first.
    pub fn handshake_digest(&self, connected: bool, hello_connector: &[u8], hello_acceptor: &[u8]) -> Digest {
        digest(&self.handshake, &[&[u8::from(connected)], hello_connector, hello_acceptor])
    }

    /// What a provider record's signature covers: the file, then the record up to its signature.
    pub fn provider_digest(&self, file: &Key, covered: &[u8]) -> Digest {
        digest(&self.provider, &[&file.0, covered])
    }

    /// What a value record's signature covers: its head without the signature, then name and value.
    pub fn record_digest(&self, head: &[u8], name_and_value: &[u8]) -> Digest {
        digest(&self.record, &[head, name_and_value])
    }

    /// What a node state's signature covers: the state up to its signature.
    pub fn state_digest(&self, covered: &[u8]) -> Digest {
        digest(&self.state, &[covered])
    }
}

fn digest(domain: &Hasher, parts: &[&[u8]]) -> Digest {
    let mut hasher = domain.clone();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_belongs_to_one_purpose_and_one_network() {
        let (ours, theirs) = (Network::new("ours"), Network::new("theirs"));
        assert_ne!(ours.id(), theirs.id());
        let (key, public) = (Key([1; 32]), PublicKey([1; 32]));
        let digests = |network: &Network| {
            [
                network.datagram_digest(&[1; 32], &public, &key),
                network.handshake_digest(true, &[1; 32], &[1; 32]),
                network.handshake_digest(false, &[1; 32], &[1; 32]),
                network.provider_digest(&key, &[1; 64]),
                network.record_digest(&[1; 32], &[1; 64]),
                network.state_digest(&[1; 96]),
            ]
        };
        let mut all = [digests(&ours), digests(&theirs)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12);
    }
}

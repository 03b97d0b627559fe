//! The network's name and secret, and the domains of its signatures.

use super::header::Epoch;
use super::mac::MAC_BYTES;
use crate::id::{IdWork, Key, PublicKey, ShortId};
use crate::identity::{Digest, Identity, Scheme, Signature, verify};
use blake3::Hasher;
use core::fmt;
use std::sync::Arc;

/// The secret of a closed network: 128 random bits, which all of its nodes have and no other node. It goes into the network's number
/// and into everything that its nodes sign or authenticate.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkSecret(pub [u8; 16]);

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(…)")
    }
}

/// A network: nodes of different networks refuse each other's packets. A node signs only BLAKE3 outputs derived for one purpose
/// *and* one network, so a signature is not valid for another purpose or in another network.
#[derive(Clone)]
pub struct Network {
    id: u32,
    scheme: Scheme,
    id_work: IdWork,
    /// Shared between clones, because the hashers' states are large.
    domains: Arc<Domains>,
}

struct Domains {
    datagram: Domain,
    handshake: Domain,
    stream: Domain,
    provider: Domain,
    record: Domain,
    state: Domain,
    hop_root: Domain,
    hop_key: Domain,
    claim: Domain,
    presence: Domain,
}

/// The initial state of the digests for one purpose.
enum Domain {
    Blake3(Box<Hasher>),
    /// The seed of a checksum, for simulations, where hashing every datagram twice would take most of the time.
    #[cfg(feature = "sim")]
    Checksum(u64),
}

impl Network {
    /// The network of nodes whose configuration names none.
    pub const DEFAULT_NAME: &'static str = "elver";

    /// The open network called `name`: every node that knows or guesses the name can join it.
    pub fn new(name: &str) -> Self {
        Network::derived(
            blake3::derive_key("elver 2026-11 network name", name.as_bytes()),
            // Derived separately from the secret, because every datagram carries it in the clear.
            blake3::derive_key("elver 2026-11 network number", name.as_bytes()),
        )
    }

    /// The closed network called `name`. Its number tells nothing about name or secret to a node without the secret.
    pub fn closed(name: &str, secret: &NetworkSecret) -> Self {
        let material = [&secret.0, name.as_bytes()].concat();
        Network::derived(
            blake3::derive_key("elver 2026-11 closed network", &material),
            blake3::derive_key("elver 2026-11 closed network number", &material),
        )
    }

    fn derived(secret: [u8; 32], number: [u8; 32]) -> Self {
        let domain = |context: &str| {
            let mut hasher = Hasher::new_derive_key(context);
            hasher.update(&secret);
            Domain::Blake3(Box::new(hasher))
        };
        let domains = Domains {
            datagram: domain("elver 2026-11 datagram signature v1"),
            handshake: domain("elver 2026-11 stream handshake v2"),
            stream: domain("elver 2026-11 stream key v2"),
            provider: domain("elver 2026-11 provider record v1"),
            record: domain("elver 2026-11 value record v1"),
            state: domain("elver 2026-11 node state v1"),
            hop_root: domain("elver hop root v2"),
            // The root, which is its first input, contains the network's secret.
            hop_key: Domain::Blake3(Box::new(Hasher::new_derive_key("elver hop key v2"))),
            claim: domain("elver 2026-11 piece claim v1"),
            presence: domain("elver 2026-11 presence mark v1"),
        };
        let id = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        Network { id, scheme: Scheme::Ed25519, id_work: IdWork::NONE, domains: Arc::new(domains) }
    }

    /// The open network called `name` with the signature scheme of `identity`. Identities of different schemes are never in the same
    /// network.
    pub fn of(name: &str, identity: &Identity) -> Self {
        Network::with_secret(name, None, identity)
    }

    /// The network called `name` with the signature scheme of `identity`: closed when there is a secret, else open.
    pub fn with_secret(name: &str, secret: Option<&NetworkSecret>, identity: &Identity) -> Self {
        match (identity.scheme(), secret) {
            (Scheme::Ed25519, Some(secret)) => Network::closed(name, secret),
            (Scheme::Ed25519, None) => Network::new(name),
            #[cfg(feature = "sim")]
            (Scheme::StandIn, secret) => Network::stand_in(name, secret),
        }
    }

    /// The network called `name` of a simulation. Its number and domains differ from those of the real network.
    #[cfg(feature = "sim")]
    fn stand_in(name: &str, secret: Option<&NetworkSecret>) -> Self {
        let material = [secret.map_or(&[][..], |secret| &secret.0), name.as_bytes()].concat();
        let secret = blake3::derive_key("elver 2026-11 simulated network", &material);
        let domain = |number| Domain::Checksum(xxhash_rust::xxh3::xxh3_64_with_seed(&secret, number));
        let domains = Domains {
            datagram: domain(1),
            handshake: domain(2),
            provider: domain(3),
            record: domain(4),
            state: domain(5),
            hop_root: domain(6),
            hop_key: domain(7),
            stream: domain(8),
            claim: domain(9),
            presence: domain(10),
        };
        let id = xxhash_rust::xxh3::xxh3_64(&secret) as u32;
        Network { id, scheme: Scheme::StandIn, id_work: IdWork::NONE, domains: Arc::new(domains) }
    }

    /// The network, whose identities have to show this work. It is no part of the network's number: nodes that ask for more and nodes
    /// that ask for less understand each other, so a network can ask for more step by step.
    pub fn with_id_work(self, id_work: IdWork) -> Self {
        Network { id_work, ..self }
    }

    /// Whether an identity shows the work that this network asks for. A node deals with no other: it reads none of their packets, and
    /// enters them into no table.
    pub fn admits(&self, public: &PublicKey) -> bool {
        self.id_work.is_shown_by(public)
    }

    /// The network's number, as headers carry it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The scheme of its signatures and MACs.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether `signature` over `digest` was made in this network with the secret of `public` (about 50 µs).
    pub fn verify(&self, public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        match self.scheme {
            Scheme::Ed25519 => verify(public, digest, signature),
            #[cfg(feature = "sim")]
            Scheme::StandIn => crate::identity::verify_stand_in(public, digest, signature),
        }
    }

    /// The digest under a datagram's signature, over header and payload (`covered`), the sender's key and the recipient's id.
    /// `recipient` is all zeros when the sender does not know the recipient.
    pub fn datagram_digest(&self, covered: &[u8], sender: &PublicKey, recipient: &Key) -> Digest {
        self.domains.datagram.digest(&[covered, &sender.0, &recipient.0])
    }

    /// The digest that an end of a stream signs, over its role (`connected` for the end that dialled) and both hellos, the
    /// dialling end's first.
    pub fn handshake_digest(&self, connected: bool, hello_connector: &[u8], hello_acceptor: &[u8]) -> Digest {
        self.domains.handshake.digest(&[&[u8::from(connected)], hello_connector, hello_acceptor])
    }

    /// The key of one direction of a stream, from the secret that both ends share and both hellos, the dialling end's first.
    /// `connected` says that the dialling end sends in this direction.
    pub(super) fn stream_key(
        &self,
        connected: bool,
        shared: &[u8; 32],
        hello_connector: &[u8],
        hello_acceptor: &[u8],
    ) -> Digest {
        self.domains.stream.digest(&[&[u8::from(connected)], shared, hello_connector, hello_acceptor])
    }

    /// The digest under a provider record's signature, over the file's key and the record up to its signature.
    pub fn provider_digest(&self, file: &Key, covered: &[u8]) -> Digest {
        self.domains.provider.digest(&[&file.0, covered])
    }

    /// The digest under a value record's signature, over its head without the signature, its name and its value.
    pub fn record_digest(&self, head: &[u8], name_and_value: &[u8]) -> Digest {
        self.domains.record.digest(&[head, name_and_value])
    }

    /// The root of the hop keys of two nodes with these public keys, in their order, that share this secret.
    pub fn hop_root(&self, shared: &[u8; 32], low: &PublicKey, high: &PublicKey) -> [u8; 32] {
        self.domains.hop_root.digest(&[shared, &low.0, &high.0])
    }

    /// The hop key that is derived from these parts: see [`peers::hop`](crate::peers::hop).
    pub fn hop_key(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.domains.hop_key.digest(parts)
    }

    /// The digest under a claim's signature, over the piece's key and the claim up to its signature.
    pub fn claim_digest(&self, key: &Key, covered: &[u8]) -> Digest {
        self.domains.claim.digest(&[&key.0, covered])
    }

    /// The mark of the here with this number that a node sends in this epoch. Only nodes that know the network's secret can make or
    /// check it; that costs 1 µs, and a signature 50 µs.
    pub fn presence_mark(&self, sender: &ShortId, epoch: Epoch, sequence: u64) -> [u8; MAC_BYTES] {
        let digest = self.domains.presence.digest(&[sender, &epoch.bytes(), &sequence.to_le_bytes()]);
        core::array::from_fn(|index| digest[index])
    }

    /// The digest under a node state's signature, over the state up to its signature.
    pub fn state_digest(&self, covered: &[u8]) -> Digest {
        self.domains.state.digest(&[covered])
    }
}

impl Domain {
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        match self {
            Domain::Blake3(domain) => {
                let mut hasher = Hasher::clone(domain);
                for part in parts {
                    hasher.update(part);
                }
                *hasher.finalize().as_bytes()
            }
            #[cfg(feature = "sim")]
            Domain::Checksum(seed) => {
                let fold = |sum, part: &&[u8]| xxhash_rust::xxh3::xxh3_64_with_seed(part, sum);
                let sum = parts.iter().fold(*seed, fold);
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&sum.to_le_bytes());
                digest
            }
        }
    }
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
                network.stream_key(true, &[1; 32], &[1; 32], &[1; 32]),
                network.stream_key(false, &[1; 32], &[1; 32], &[1; 32]),
                network.provider_digest(&key, &[1; 64]),
                network.record_digest(&[1; 32], &[1; 64]),
                network.state_digest(&[1; 96]),
                network.claim_digest(&key, &[1; 48]),
            ]
        };
        let mut all = [digests(&ours), digests(&theirs)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 18);
    }

    #[test]
    fn a_closed_network_has_nothing_in_common_with_an_open_one_of_its_name() {
        let networks = [
            Network::new("ours"),
            Network::closed("ours", &NetworkSecret([1; 16])),
            Network::closed("ours", &NetworkSecret([2; 16])),
            Network::closed("theirs", &NetworkSecret([1; 16])),
        ];
        let mut numbers = networks.each_ref().map(Network::id);
        let mut digests = networks.each_ref().map(|network| network.state_digest(&[1; 96]));
        numbers.sort_unstable();
        digests.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
        assert!(digests.windows(2).all(|pair| pair[0] != pair[1]), "{digests:?}");
    }

    #[test]
    fn a_secret_is_not_shown_by_its_debug_output() {
        assert_eq!(format!("{:?}", NetworkSecret([0xab; 16])), "NetworkSecret(…)");
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_simulated_network_and_a_real_one_of_the_same_name_refuse_each_other() {
        let (real, simulated) = (Identity::from_secret(&[1; 32]), Identity::stand_in(&[1; 32]));
        let (network, world) = (Network::of("test", &real), Network::of("test", &simulated));
        assert_eq!(network.id(), Network::new("test").id());
        assert_ne!(network.id(), world.id());
        assert_ne!(real.public(), simulated.public());
        let digest = world.datagram_digest(&[1; 600], &simulated.public(), &Key([1; 32]));
        assert_ne!(digest, network.datagram_digest(&[1; 600], &simulated.public(), &Key([1; 32])));
        assert_ne!(digest, world.datagram_digest(&[2; 600], &simulated.public(), &Key([1; 32])));
        assert_ne!(digest, world.record_digest(&[1; 600], &[0; 64]));
        let signature = simulated.sign(&digest);
        assert!(world.verify(&simulated.public(), &digest, &signature));
        assert!(!network.verify(&simulated.public(), &digest, &signature));
        assert!(!world.verify(&real.public(), &digest, &real.sign(&digest)));
        assert!(!world.verify(&real.public(), &digest, &signature));
        for byte in 0..64 {
            let mut wrong = signature;
            wrong[byte] ^= 1;
            assert!(!world.verify(&simulated.public(), &digest, &wrong), "byte {byte}");
        }
    }
}

//! Node states: a node's signed statement about itself, as others relay it.

use super::Refused;
use super::contact::WireAddr;
use super::network::Network;
use crate::id::{PublicKey, ShortId};
use crate::identity::Identity;
use core::net::SocketAddr;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A node's state: 160 bytes. Only the node itself can sign one, so a relay can neither change it nor make a newer one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NodeState {
    public: PublicKey,
    addrs: [WireAddr; 2],
    flags: U16,
    load: U16,
    sequence: U64,
    chunks: U32,
    version: [u8; 4],
    free_bytes: U64,
    signature: [u8; 64],
}

const _: () = assert!(size_of::<NodeState>() == 160);
const COVERED: usize = 96;

/// Bits of a state's flags.
mod flags {
    pub(super) const LEAF: u16 = 1;
    pub(super) const AWAY: u16 = 2;
    pub(super) const GONE: u16 = 4;
    pub(super) const ALL: u16 = LEAF | AWAY | GONE;
}

/// The content of a node's state, before it is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// The node's addresses: at most one of each family.
    pub addrs: [Option<SocketAddr>; 2],
    /// Whether the node is a leaf and must not enter tables.
    pub leaf: bool,
    /// Whether it is leaving for a while.
    pub away: bool,
    /// Whether it is leaving for good.
    pub gone: bool,
    /// Its load, per mille.
    pub load: u16,
    /// The number of pieces that it stores for the network.
    pub chunks: u32,
    /// The version of its program: major, minor, patch, and a byte without meaning.
    pub version: [u8; 4],
    /// The bytes that it would still store for the network.
    pub free_bytes: u64,
}

impl NodeState {
    /// The highest load, per mille.
    pub const LOAD_MAX: u16 = 1000;

    /// A signed state. The one with the higher sequence number replaces the other; zero is not allowed.
    pub fn new(network: &Network, identity: &Identity, about: &About, sequence: u64) -> Self {
        let bit = |set: bool, bit: u16| if set { bit } else { 0 };
        let addr = |addr: Option<SocketAddr>| addr.map_or(WireAddr::UNKNOWN, WireAddr::new);
        let mut state = NodeState {
            public: identity.public(),
            addrs: about.addrs.map(addr),
            flags: U16::new(
                bit(about.leaf, flags::LEAF) | bit(about.away, flags::AWAY) | bit(about.gone, flags::GONE),
            ),
            load: U16::new(about.load.min(Self::LOAD_MAX)),
            sequence: U64::new(sequence),
            chunks: U32::new(about.chunks),
            version: about.version,
            free_bytes: U64::new(about.free_bytes),
            signature: [0; 64],
        };
        state.signature = identity.sign(&state.digest(network));
        state
    }

    /// A placeholder for a node of which only the key is known. Its sequence number is zero, and it is never sent.
    pub fn unknown(public: PublicKey) -> Self {
        NodeState {
            public,
            addrs: [WireAddr::UNKNOWN; 2],
            flags: U16::ZERO,
            load: U16::ZERO,
            sequence: U64::ZERO,
            chunks: U32::ZERO,
            version: [0; 4],
            free_bytes: U64::ZERO,
            signature: [0; 64],
        }
    }

    /// Checks values and signature (about 50 µs).
    pub fn verify(&self, network: &Network) -> Result<(), Refused> {
        self.check()?;
        match network.verify(&self.public, &self.digest(network), &self.signature) {
            true => Ok(()),
            false => Err(Refused::Signature),
        }
    }

    /// Checks the values, without cryptography.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.flags.get() & !flags::ALL != 0 {
            return Err(Refused::Reserved);
        }
        let known_or_not = |addr: &WireAddr| addr.is_unknown() || addr.get().is_some();
        if self.load.get() > Self::LOAD_MAX
            || self.sequence.get() == 0
            || !self.addrs.iter().all(known_or_not)
        {
            return Err(Refused::Value);
        }
        Ok(())
    }

    /// The node's public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The node's addresses, as it claims them.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.addrs.into_iter().filter_map(|addr| addr.get())
    }

    /// Whether the node is a leaf and must stay out of tables.
    pub fn is_leaf(&self) -> bool {
        self.flags.get() & flags::LEAF != 0
    }

    /// Whether the node has left for a while.
    pub fn is_away(&self) -> bool {
        self.flags.get() & flags::AWAY != 0
    }

    /// Whether the node has left for good.
    pub fn is_gone(&self) -> bool {
        self.flags.get() & flags::GONE != 0
    }

    /// The node's load, per mille.
    pub fn load(&self) -> u16 {
        self.load.get()
    }

    /// The sequence number. The higher one wins; zero is [unknown](NodeState::unknown).
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// The number of pieces that it stores for the network.
    pub fn chunks(&self) -> u32 {
        self.chunks.get()
    }

    /// The version of its program.
    pub fn version(&self) -> [u8; 4] {
        self.version
    }

    /// The bytes that it would still store for the network.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.get()
    }

    fn digest(&self, network: &Network) -> [u8; 32] {
        network.state_digest(&self.as_bytes()[..COVERED])
    }
}

/// Names one state of one node: 16 bytes. A digest consists of the marks of known states, suspicions of the marks of silent
/// members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StateMark {
    /// The first bytes of the node's id.
    pub short: ShortId,
    sequence: U64,
}

const _: () = assert!(size_of::<StateMark>() == 16);

impl StateMark {
    /// The mark of a node's state with this sequence number.
    pub fn new(short: ShortId, sequence: u64) -> Self {
        StateMark { short, sequence: U64::new(sequence) }
    }

    /// The state's sequence number; zero when the node is known and its state is not.
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let addrs = [Some(([192, 0, 2, 7], 3583).into()), None];
        About { addrs, load: 250, chunks: 7, version: [0, 1, 0, 0], free_bytes: 1 << 30, ..About::default() }
    }

    #[test]
    fn a_state_reads_as_it_was_signed_and_is_valid_in_one_network_only() {
        let (ours, theirs) = (Network::new("ours"), Network::new("theirs"));
        let identity = Identity::from_secret(&[1; 32]);
        let state = NodeState::new(&ours, &identity, &about(), 9);
        assert_eq!(state.verify(&ours), Ok(()));
        assert_eq!(state.verify(&theirs), Err(Refused::Signature));
        assert_eq!(state.addrs().collect::<Vec<_>>(), [([192, 0, 2, 7], 3583).into()]);
        assert_eq!(state.public(), identity.public());
        assert_eq!(state.sequence(), 9);
        assert_eq!(state.chunks(), 7);
        assert_eq!(state.load(), 250);
        assert_eq!(state.version(), [0, 1, 0, 0]);
        assert_eq!(state.free_bytes(), 1 << 30);
        assert!(!state.is_leaf() && !state.is_away() && !state.is_gone());
        let gone = NodeState::new(&ours, &identity, &About { gone: true, leaf: true, ..about() }, 10);
        assert!(gone.is_gone() && gone.is_leaf() && !gone.is_away());
    }

    #[test]
    fn invalid_values_are_refused_without_a_signature_check() {
        let (network, identity) = (Network::new("ours"), Identity::from_secret(&[1; 32]));
        let good = NodeState::new(&network, &identity, &about(), 9);
        assert_eq!(good.check(), Ok(()));
        assert_eq!(NodeState { flags: U16::new(8), ..good }.check(), Err(Refused::Reserved));
        assert_eq!(NodeState { load: U16::new(1001), ..good }.check(), Err(Refused::Value));
        assert_eq!(NodeState { sequence: U64::ZERO, ..good }.check(), Err(Refused::Value));
        let nowhere = WireAddr::new(([224, 0, 0, 1], 5).into());
        assert_eq!(NodeState { addrs: [nowhere; 2], ..good }.check(), Err(Refused::Value));
        assert_eq!(NodeState::unknown(identity.public()).check(), Err(Refused::Value));
    }
}

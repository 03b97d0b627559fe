//! The header of every datagram: 48 bytes.

use super::Refused;
use super::layout::reserved;
use crate::id::ShortId;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 2;

/// The number of one run of a node: 48 random bits, never zero. A restart, a restored backup or a copied directory gives a new one,
/// so a datagram's sequence number needs no memory of earlier runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Epoch([u8; 6]);

impl Epoch {
    /// The epoch of the low 48 bits of a random number.
    pub const fn new(random: u64) -> Self {
        let [a, b, c, d, e, f, ..] = random.to_le_bytes();
        if random << 16 == 0 { Epoch([1, 0, 0, 0, 0, 0]) } else { Epoch([a, b, c, d, e, f]) }
    }

    /// Its six bytes, as the header carries them.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }

    fn is_zero(&self) -> bool {
        self.0 == [0; 6]
    }
}

/// The header of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// The protocol's version: [`VERSION`].
    pub version: u8,
    /// The kind of the payload: a number of [`Kind`].
    pub kind: u8,
    /// The form of the tail: a number of [`Auth`].
    pub auth: u8,
    /// Bits of [`flags`]; all others are zero.
    pub flags: u8,
    /// The network's number.
    pub network: U32,
    /// The first bytes of the sender's id.
    pub sender: ShortId,
    /// Counts the sender's datagrams in its epoch, from 1. Zero in a datagram without authentication.
    pub sequence: U64,
    /// Chosen by the requester and repeated in the answer.
    pub transaction: U64,
    /// In a request: the token that the recipient last gave the sender, which validates the sender's address; or zero. In an
    /// answer: a fresh token for the requester.
    pub token: U64,
    /// Bytes between header and tail.
    pub payload_length: U16,
    /// The sender's run.
    pub epoch: Epoch,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// The size of a [`Header`].
pub const HEADER_BYTES: usize = 48;

/// The longest UDP payload: it fits the IPv6 minimum MTU of 1,280 bytes (RFC 8200 §5) with the IPv6 and UDP headers.
pub const DATAGRAM_BYTES_MAX: usize = 1232;

/// The length of a signed datagram without its payload, which is also the length of a ping.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + Auth::Signed.tail_bytes();

/// The longest payload of a signed datagram, in bytes. A datagram with a MAC has room for more: see [`Auth::payload_bytes_max`].
pub const PAYLOAD_BYTES_MAX: usize = Auth::Signed.payload_bytes_max();

/// Bits of [`Header::flags`].
pub mod flags {
    /// The sender does not know the node at this address, so the signature names no recipient. Allowed in a ping and a find, and
    /// required in a here.
    pub const RECIPIENT_UNKNOWN: u8 = 1;
    /// The sender is a leaf and must not enter routing tables.
    pub const LEAF: u8 = 2;

    /// All defined bits.
    pub const ALL: u8 = RECIPIENT_UNKNOWN | LEAF;
}

/// Message numbers, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// PING: asks for a sign of life.
    Ping = 1,
    /// PONG: the answer to a ping, with the address that the ping came from.
    Pong = 2,
    /// FIND: asks for the contacts nearest to a key, and for the record or the providers there.
    Find = 3,
    /// FOUND: the answer to a find.
    Found = 4,
    /// STORE RECORD: asks the recipient to keep a value record.
    StoreRecord = 5,
    /// ANNOUNCE: asks the recipient to keep provider records.
    Announce = 6,
    /// STORED: the answer to a store or an announce: the number of records kept.
    Stored = 7,
    /// CHALLENGE: the recipient of a request with a MAC cannot check it, and asks for the same request with a signature. Not
    /// authenticated.
    Challenge = 8,
    /// LEAVE: the sender's goodbye.
    Leave = 9,
    /// GOSSIP: the sender's state, rumours, and a digest of the states that it knows.
    Gossip = 10,
    /// GOSSIP REPLY: the states that the sender of a gossip lacks.
    GossipReply = 11,
    /// PROBE: asks the recipient to ping a member.
    Probe = 12,
    /// PROBE REPLY: whether that member answered.
    ProbeReply = 13,
    /// RECONCILE: ranges of keys with fingerprints of what the sender holds.
    Reconcile = 14,
    /// RECONCILED: the comparison of those ranges with what the recipient holds.
    Reconciled = 15,
    /// HERE: the sender is on this link, told to a multicast group. Its source address is where the sender receives datagrams.
    Here = 16,
}

impl Kind {
    /// The kind with this number; `None` for an unknown number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Kind::Ping,
            2 => Kind::Pong,
            3 => Kind::Find,
            4 => Kind::Found,
            5 => Kind::StoreRecord,
            6 => Kind::Announce,
            7 => Kind::Stored,
            8 => Kind::Challenge,
            9 => Kind::Leave,
            10 => Kind::Gossip,
            11 => Kind::GossipReply,
            12 => Kind::Probe,
            13 => Kind::ProbeReply,
            14 => Kind::Reconcile,
            15 => Kind::Reconciled,
            16 => Kind::Here,
            _ => return None,
        })
    }

    /// Whether it answers a request: its transaction must then be one of this node's.
    pub fn is_answer(self) -> bool {
        use Kind::{Found, GossipReply, Pong, ProbeReply, Reconciled, Stored};
        matches!(self, Pong | Found | Stored | GossipReply | ProbeReply | Reconciled)
    }

    /// Whether it may go to an address whose node is unknown.
    pub fn may_be_first(self) -> bool {
        matches!(self, Kind::Ping | Kind::Find | Kind::Here)
    }

    /// Whether a datagram of this kind may have this authentication. A goodbye is signed, because no answer would show that its
    /// MAC was wrong, and so is what goes to a multicast group, whose members share no key. Only a challenge goes without
    /// authentication, and it always does.
    pub fn allows(self, auth: Auth) -> bool {
        match self {
            Kind::Challenge => auth == Auth::Bare,
            Kind::Leave | Kind::Here => auth == Auth::Signed,
            _ => auth != Auth::Bare,
        }
    }
}

/// How a datagram is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Auth {
    /// The tail is the sender's public key and its Ed25519 signature: 96 bytes.
    Signed = 1,
    /// The tail is a 16-byte MAC under a key that both ends share (see [`MacKey`](super::mac::MacKey)).
    Mac = 2,
    /// There is no tail. Only for a [challenge](Kind::Challenge).
    Bare = 3,
}

impl Auth {
    /// The form with this number; `None` for an unknown number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Auth::Signed),
            2 => Some(Auth::Mac),
            3 => Some(Auth::Bare),
            _ => None,
        }
    }

    /// The length of the tail, in bytes.
    pub const fn tail_bytes(self) -> usize {
        match self {
            Auth::Signed => 96,
            Auth::Mac => 16,
            Auth::Bare => 0,
        }
    }

    /// The longest payload of a datagram with this tail, in bytes.
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Auth::Signed | Auth::Mac => DATAGRAM_BYTES_MAX - HEADER_BYTES - self.tail_bytes(),
            Auth::Bare => CHALLENGE_BYTES - HEADER_BYTES,
        }
    }
}

/// The length of a challenge in bytes: less than that of any datagram with a MAC, so it amplifies nothing.
pub const CHALLENGE_BYTES: usize = HEADER_BYTES + 8;

const _: () = assert!(CHALLENGE_BYTES < HEADER_BYTES + Auth::Mac.tail_bytes());

impl Header {
    /// Parses the header at the start of a datagram. Checks everything that needs neither cryptography nor state, including the
    /// datagram's length.
    #[inline]
    pub fn parse(bytes: &[u8], network: u32) -> Result<(&Header, Kind, Auth), Refused> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Refused::Length)?;
        if header.version != VERSION {
            return Err(Refused::Version);
        }
        if header.network.get() != network {
            return Err(Refused::Network);
        }
        let kind = Kind::from_number(header.kind).ok_or(Refused::Kind)?;
        let auth = Auth::from_number(header.auth).ok_or(Refused::Auth)?;
        if !kind.allows(auth) {
            return Err(Refused::Auth);
        }
        reserved(&[header.flags & !flags::ALL])?;
        match auth {
            Auth::Signed => {}
            // A MAC names its recipient: it is made under a key for the two nodes.
            Auth::Mac => reserved(&[header.flags & flags::RECIPIENT_UNKNOWN])?,
            Auth::Bare => reserved(&[header.flags])?,
        }
        let is_to_unknown = header.flags & flags::RECIPIENT_UNKNOWN != 0;
        if is_to_unknown && !kind.may_be_first() || !is_to_unknown && kind == Kind::Here {
            return Err(Refused::Reserved);
        }
        if header.epoch.is_zero() || (header.sequence.get() == 0) != (auth == Auth::Bare) {
            return Err(Refused::Value);
        }
        if rest.len() != usize::from(header.payload_length.get()) + auth.tail_bytes() {
            return Err(Refused::Length);
        }
        Ok((header, kind, auth))
    }
}

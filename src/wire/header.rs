//! The 48 bytes that every datagram starts with.

use super::Refused;
use super::layout::reserved;
use crate::id::ShortId;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The header of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// The protocol's version: [`VERSION`].
    pub version: u8,
    /// What the payload is: a number of [`Kind`].
    pub kind: u8,
    /// What the tail is: a number of [`Auth`].
    pub auth: u8,
    /// Bits of [`flags`]; the others are zero.
    pub flags: u8,
    /// The network's number.
    pub network: U32,
    /// The first bytes of the sender's id.
    pub sender: ShortId,
    /// Counts the sender's datagrams. It only grows, over restarts too.
    pub sequence: U64,
    /// Chosen by who asks and repeated in the answer.
    pub transaction: U64,
    /// In a request: what the recipient last gave the sender as proof of its address, or zero. In an answer: what
    /// the recipient may prove its address with from now on.
    pub token: U64,
    /// Bytes between header and tail.
    pub payload_length: U16,
    /// Zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// The size of a [`Header`].
pub const HEADER_BYTES: usize = 48;

/// The most bytes of UDP payload: what fits the IPv6 minimum MTU of 1,280 bytes (RFC 8200 §5) with its headers.
pub const DATAGRAM_BYTES_MAX: usize = 1232;

/// A signed datagram without its payload; also the size of a ping.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + Auth::Signed.tail_bytes();

/// Room for the payload of a signed datagram.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES;

/// Bits of [`Header::flags`].
pub mod flags {
    /// The sender does not know who is at this address: the signature names no recipient. Only a ping or a find may.
    pub const RECIPIENT_UNKNOWN: u8 = 1;
    /// The sender is a leaf: it asks, but must not enter routing tables.
    pub const LEAF: u8 = 2;

    /// Every bit that means something.
    pub const ALL: u8 = RECIPIENT_UNKNOWN | LEAF;
}

/// Message numbers. Never reused; 8 is kept for the challenge that comes with MAC'd datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Are you there?
    Ping = 1,
    /// Yes, and this is the address that you came from.
    Pong = 2,
    /// Who or what is near this key?
    Find = 3,
    /// What is there.
    Found = 4,
    /// Keep this value record.
    StoreRecord = 5,
    /// Keep these provider records.
    Announce = 6,
    /// What was kept.
    Stored = 7,
    /// The sender is going.
    Leave = 9,
    /// Who I am, whom I know, and what I heard lately. What do you know that I do not?
    Gossip = 10,
    /// This.
    GossipReply = 11,
    /// Does that member answer you?
    Probe = 12,
    /// Whether it does.
    ProbeReply = 13,
    /// Do we hold the same?
    Reconcile = 14,
    /// This is the same, and this is not.
    Reconciled = 15,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Kind::Ping,
            2 => Kind::Pong,
            3 => Kind::Find,
            4 => Kind::Found,
            5 => Kind::StoreRecord,
            6 => Kind::Announce,
            7 => Kind::Stored,
            9 => Kind::Leave,
            10 => Kind::Gossip,
            11 => Kind::GossipReply,
            12 => Kind::Probe,
            13 => Kind::ProbeReply,
            14 => Kind::Reconcile,
            15 => Kind::Reconciled,
            _ => return None,
        })
    }

    /// Whether it answers a request, so that its transaction must be one of ours.
    pub fn is_answer(self) -> bool {
        use Kind::{Found, GossipReply, Pong, ProbeReply, Reconciled, Stored};
        matches!(self, Pong | Found | Stored | GossipReply | ProbeReply | Reconciled)
    }

    /// Whether it may be sent to an address whose owner is not known yet.
    pub fn may_be_first(self) -> bool {
        matches!(self, Kind::Ping | Kind::Find)
    }
}

/// How a datagram is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Auth {
    /// The tail is the sender's public key and its Ed25519 signature: 96 bytes.
    Signed = 1,
    /// The tail is a 16-byte MAC under the key that both ends share. The number and the size are fixed; this
    /// version neither sends nor accepts it.
    Mac = 2,
}

impl Auth {
    /// The form with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Auth::Signed),
            2 => Some(Auth::Mac),
            _ => None,
        }
    }

    /// Bytes after the payload.
    pub const fn tail_bytes(self) -> usize {
        match self {
            Auth::Signed => 96,
            Auth::Mac => 16,
        }
    }
}

impl Header {
    /// Reads the header at the start of a datagram and checks everything that needs no cryptography and no memory
    /// of earlier packets. What follows the header has the announced length.
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
        reserved(&header.reserved)?;
        reserved(&[header.flags & !flags::ALL])?;
        if header.flags & flags::RECIPIENT_UNKNOWN != 0 && !kind.may_be_first() {
            return Err(Refused::Reserved);
        }
        if rest.len() != usize::from(header.payload_length.get()) + auth.tail_bytes() {
            return Err(Refused::Length);
        }
        Ok((header, kind, auth))
    }
}

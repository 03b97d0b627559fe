//! A contact: a node's public key and its address.

use crate::id::{NodeId, PublicKey};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An address on the wire: IPv6, or IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2), and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireAddr {
    ip: [u8; 16],
    port: U16,
}

const _: () = assert!(size_of::<WireAddr>() == 18);

impl WireAddr {
    /// No address is known.
    pub const UNKNOWN: WireAddr = WireAddr { ip: [0; 16], port: U16::ZERO };

    /// An address, without its flow label and scope.
    pub fn new(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        WireAddr { ip: ip.octets(), port: U16::new(addr.port()) }
    }

    /// Whether it is [`UNKNOWN`](WireAddr::UNKNOWN).
    pub fn is_unknown(&self) -> bool {
        *self == Self::UNKNOWN
    }

    /// The address, mapped IPv4 as IPv4; `None` when no node can be there: an unspecified, multicast or broadcast address, or
    /// port 0.
    pub fn get(&self) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        let usable = self.port.get() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast;
        usable.then(|| SocketAddr::new(ip, self.port.get()))
    }
}

/// A contact in a datagram: 56 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireContact {
    /// The node's public key; its id is the key's hash.
    pub public: PublicKey,
    addr: WireAddr,
    flags: U16,
    age: U32,
}

const _: () = assert!(size_of::<WireContact>() == 56);

impl WireContact {
    /// A contact that this node last heard from `age_seconds` ago.
    pub fn new(contact: &Contact, age_seconds: u32) -> Self {
        let addr = WireAddr::new(contact.addr);
        WireContact { public: contact.public, addr, flags: U16::ZERO, age: U32::new(age_seconds) }
    }

    /// Whether the reserved bits are zero.
    pub(super) fn is_well_formed(&self) -> bool {
        self.flags.get() == 0
    }

    /// Seconds since the sender last heard from the node.
    pub fn age_seconds(&self) -> u32 {
        self.age.get()
    }

    /// The contact, with its id computed; `None` when no node can be at its address.
    pub fn get(&self) -> Option<Contact> {
        self.addr.get().map(|addr| Contact::new(self.public, addr))
    }
}

/// A node with its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contact {
    /// The node's id: the hash of its public key.
    pub id: NodeId,
    /// Its public key.
    pub public: PublicKey,
    /// Its address, for UDP and TCP alike.
    pub addr: SocketAddr,
}

impl Contact {
    /// The contact of the node with this key at this address.
    pub fn new(public: PublicKey, addr: SocketAddr) -> Self {
        Contact { id: public.node_id(), public, addr: canonical(addr) }
    }
}

/// The canonical form of an address: mapped IPv4 as IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

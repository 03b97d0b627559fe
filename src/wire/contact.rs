//! A contact: who a node is and where it answers.

use crate::id::{NodeId, PublicKey};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An address as it is carried: IPv6, or IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2), and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireAddr {
    ip: [u8; 16],
    port: U16,
}

const _: () = assert!(size_of::<WireAddr>() == 18);

impl WireAddr {
    /// "No address known."
    pub const UNKNOWN: WireAddr = WireAddr { ip: [0; 16], port: U16::ZERO };

    /// The carried form of an address. Flow labels and scopes are not carried.
    pub fn new(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        WireAddr { ip: ip.octets(), port: U16::new(addr.port()) }
    }

    /// Whether it says that no address is known, rather than naming one.
    pub fn is_unknown(&self) -> bool {
        *self == Self::UNKNOWN
    }

    /// The address, mapped IPv4 as IPv4; `None` when nobody can be reached there: an unspecified, multicast or
    /// broadcast address, or port 0.
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
    /// The node's public key; its id is the hash of that.
    pub public: PublicKey,
    addr: WireAddr,
    flags: U16,
    age: U32,
}

const _: () = assert!(size_of::<WireContact>() == 56);

impl WireContact {
    /// The carried form of a contact that was last heard from `age_seconds` ago.
    pub fn new(contact: &Contact, age_seconds: u32) -> Self {
        let addr = WireAddr::new(contact.addr);
        WireContact { public: contact.public, addr, flags: U16::ZERO, age: U32::new(age_seconds) }
    }

    /// Reserved bits are zero.
    pub(super) fn is_well_formed(&self) -> bool {
        self.flags.get() == 0
    }

    /// Seconds since the one who tells last heard from this node.
    pub fn age_seconds(&self) -> u32 {
        self.age.get()
    }

    /// The contact, its id computed; `None` when its address is nobody's.
    pub fn get(&self) -> Option<Contact> {
        self.addr.get().map(|addr| Contact::new(self.public, addr))
    }
}

/// A node that can be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contact {
    /// Where it is in the key space: the hash of its public key.
    pub id: NodeId,
    /// Its public key.
    pub public: PublicKey,
    /// Where it answers, UDP and TCP alike.
    pub addr: SocketAddr,
}

impl Contact {
    /// The contact of the node with this key at this address.
    pub fn new(public: PublicKey, addr: SocketAddr) -> Self {
        Contact { id: public.node_id(), public, addr: canonical(addr) }
    }
}

/// An address in its one form: mapped IPv4 as IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

//! A contact: a node's public key and its address.

use crate::id::{NodeId, PublicKey};
use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
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

    /// The address, mapped IPv4 as IPv4; `None` when no node can be there: an unspecified, multicast or broadcast address, port 0, or
    /// a link-local address with a subnet (RFC 4291 §2.5.6).
    pub fn get(&self) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        let subnet =
            matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() && v6.to_bits() << 16 >> 80 != 0);
        let nowhere = ip.is_unspecified() || ip.is_multicast() || broadcast || subnet;
        let usable = self.port.get() != 0 && !nowhere;
        usable.then(|| SocketAddr::new(ip, self.port.get()))
    }
}

/// An address as this node keeps it in memory and on disk: a link-local address with the number of its interface, which takes the
/// place of the first 16 of the 54 bits that are always zero. The bytes of a kept address never go to other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct KeptAddr(WireAddr);

impl KeptAddr {
    /// An address, with its scope if it is link-local. A scope of more than 16 bits is lost.
    pub fn new(addr: SocketAddr) -> Self {
        let mut kept = WireAddr::new(addr);
        if let Some(scope) = scope_of(addr).and_then(|scope| u16::try_from(scope).ok()) {
            kept.ip[2..4].copy_from_slice(&scope.to_be_bytes());
        }
        KeptAddr(kept)
    }

    /// The address; `None` when no node can be there: see [`WireAddr::get`].
    pub fn get(&self) -> Option<SocketAddr> {
        if !Ipv6Addr::from(self.0.ip).is_unicast_link_local() {
            return self.0.get();
        }
        let scope = u16::from_be_bytes([self.0.ip[2], self.0.ip[3]]);
        let mut plain = self.0;
        plain.ip[2..4].fill(0);
        plain.get().map(|addr| with_scope(addr, u32::from(scope)))
    }
}

/// The number of the interface of a link-local address of IPv6; `None` for other addresses.
pub fn scope_of(addr: SocketAddr) -> Option<u32> {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.scope_id()),
        _ => None,
    }
}

/// A link-local address of IPv6 on the interface with this number. Other addresses stay as they are.
pub fn with_scope(addr: SocketAddr, scope: u32) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope))
        }
        other => other,
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

    /// A contact for this node's own next run, with the scope of its address: see [`KeptAddr`].
    pub fn kept(contact: &Contact) -> Self {
        WireContact { addr: KeptAddr::new(contact.addr).0, ..WireContact::new(contact, 0) }
    }

    /// The contact that an earlier run of this node [kept](WireContact::kept).
    pub fn get_kept(&self) -> Option<Contact> {
        KeptAddr(self.addr).get().map(|addr| Contact::new(self.public, addr))
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

/// The canonical form of an address: mapped IPv4 as IPv4, and no flow label. Only a link-local address keeps its scope.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    scope_of(addr).map_or(plain, |scope| with_scope(plain, scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_link_local_address_has_a_scope() {
        assert_eq!(canonical(addr("[fe80::1%3]:5")), addr("[fe80::1%3]:5"));
        assert_eq!(canonical(addr("[2001:db8::1%3]:5")), addr("[2001:db8::1]:5"));
        assert_eq!(canonical(addr("[::ffff:10.0.0.1]:5")), addr("10.0.0.1:5"));
    }

    #[test]
    fn a_kept_address_keeps_its_scope_and_one_on_the_wire_has_none() {
        for text in [
            "[fe80::1%3]:5",
            "[fe80::1]:5",
            "[fe80::ffff:ffff:ffff:ffff%65535]:5",
            "[2001:db8::1]:5",
            "10.0.0.1:5",
        ] {
            assert_eq!(KeptAddr::new(addr(text)).get(), Some(addr(text)), "{text}");
        }
        assert_eq!(KeptAddr::new(addr("[fe80::1%65536]:5")).get(), Some(addr("[fe80::1]:5")));
        assert_eq!(WireAddr::new(addr("[fe80::1%3]:5")).get(), Some(addr("[fe80::1]:5")));
    }

    #[test]
    fn another_node_cannot_name_an_interface() {
        let named = WireAddr { ip: KeptAddr::new(addr("[fe80::1%3]:5")).0.ip, port: U16::new(5) };
        assert_eq!(named.get(), None);
    }
}

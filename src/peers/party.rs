//! Parties: the owners of addresses. An identity is free and an address is not, so a contested resource is divided among parties.
//!
//! A party is an IPv4 /24, or an IPv6 /64. The /64s of one /56, and the /56s of one /48, may have one owner, too: [`Level`] says
//! how much of an address counts. In private, shared (RFC 6598), link-local and loopback ranges, where all addresses have one
//! owner, and in a network with a secret, where members are no strangers, each address or node is a party of its own.
//!
//! A party has no limit of its own. It only decides which entry [gives way](super::contest) when the entries contest a place.

use crate::id::NodeId;
use crate::wire::contact::{scope_of, with_scope};
use crate::wire::network::NetworkSecret;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The owner of an address, as far as the address tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Party([u8; 16]);

/// How much of an address counts. The levels are nested: parties that are the same at one level are the same at each level before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// A /48 of IPv6: a site.
    Site,
    /// A /56 of IPv6: a home.
    Home,
    /// A /64 of IPv6: a link. The whole party.
    Link,
}

/// How the parties of one network are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Parties {
    /// By the addresses of nodes: the network is open to strangers.
    #[default]
    ByAddress,
    /// Each node is a party: the network has a secret.
    ByNode,
}

impl Parties {
    /// How the parties of a network with this secret are told apart.
    pub fn of_network(secret: Option<&NetworkSecret>) -> Parties {
        match secret {
            Some(_) => Parties::ByNode,
            None => Parties::ByAddress,
        }
    }

    /// The party of a node at an address.
    pub fn of(self, id: &NodeId, addr: SocketAddr) -> Party {
        match self {
            Parties::ByAddress => Party::of(addr.ip()),
            Parties::ByNode => Party::node(id),
        }
    }
}

/// The first byte of a party that is a node. No node has such an address: it would be multicast.
const NODE: u8 = 0xff;

impl Party {
    /// The party that owns an address.
    pub fn of(ip: IpAddr) -> Party {
        match plain(ip) {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                let last = if is_local(IpAddr::V4(ip)) { d } else { 0 };
                Party(Ipv4Addr::new(a, b, c, last).to_ipv6_mapped().octets())
            }
            IpAddr::V6(ip) if is_local(IpAddr::V6(ip)) => Party(ip.octets()),
            IpAddr::V6(ip) => Party(u128::to_be_bytes(ip.to_bits() >> 64 << 64)),
        }
    }

    /// A node as a party of its own.
    pub fn node(id: &NodeId) -> Party {
        let mut bytes = [NODE; 16];
        bytes[1..].copy_from_slice(&id.0[..15]);
        Party(bytes)
    }

    /// One host: an IPv4 address, or a /64 of IPv6.
    pub fn host(ip: IpAddr) -> Party {
        match plain(ip) {
            IpAddr::V4(ip) => Party(ip.to_ipv6_mapped().octets()),
            ip => Party::of(ip),
        }
    }

    /// One site: the party of an address at the widest level.
    pub fn site(ip: IpAddr) -> Party {
        Party::of(ip).at(Level::Site)
    }

    /// The party at a level.
    pub fn at(self, level: Level) -> Party {
        let bytes = match level {
            _ if self.is_single() => return self,
            Level::Site => 6,
            Level::Home => 7,
            Level::Link => return self,
        };
        Party(core::array::from_fn(|index| if index < bytes { self.0[index] } else { 0 }))
    }

    /// Whether the party is the same at every level.
    fn is_single(&self) -> bool {
        let ip = Ipv6Addr::from(self.0);
        self.0[0] == NODE || ip.to_ipv4_mapped().is_some() || is_local(IpAddr::V6(ip))
    }

    /// The party of these bytes, which [`as_bytes`](Party::as_bytes) gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Party {
        Party(bytes)
    }

    /// The party as bytes, to be hashed or kept.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The address with IPv4 as IPv4, whether it is mapped (RFC 4291) or translated (RFC 6052).
fn plain(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() as u32))
        }
        ip => ip,
    }
}

/// Whether an address has a meaning only near its node: it is private, shared, link-local or loopback.
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            shared || ip.is_private() || ip.is_link_local() || ip.is_loopback()
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

/// Whether `addr` has a meaning when `teller` names it. A loopback address has a meaning on the teller's own host only, and any
/// other local address only near a teller that is itself reached at a local address.
pub fn is_meaningful(addr: SocketAddr, teller: SocketAddr) -> bool {
    let (addr, teller) = (addr.ip().to_canonical(), teller.ip().to_canonical());
    !is_local(addr) || is_local(teller) && (teller.is_loopback() || !addr.is_loopback())
}

/// `addr` as this node reaches it when `teller` names it; `None` when it has no meaning. A link-local address of IPv6 counts on the
/// link on which the teller itself is reached.
pub fn as_told(addr: SocketAddr, teller: SocketAddr) -> Option<SocketAddr> {
    if scope_of(addr).is_some() {
        return scope_of(teller).map(|scope| with_scope(addr, scope));
    }
    is_meaningful(addr, teller).then_some(addr)
}

/// Whether a node that is reached at `listener` may be told `addr`. A link-local address means nothing on another link.
pub fn may_tell(addr: SocketAddr, listener: SocketAddr) -> bool {
    match (addr, listener) {
        (SocketAddr::V4(addr), listener) if addr.ip().is_link_local() => {
            matches!(listener, SocketAddr::V4(listener) if listener.ip().is_link_local())
        }
        _ => scope_of(addr).is_none_or(|scope| scope_of(listener) == Some(scope)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn party(text: &str) -> Party {
        Party::of(text.parse().unwrap())
    }

    fn at(level: Level, text: &str) -> Party {
        party(text).at(level)
    }

    #[test]
    fn a_public_ipv4_party_is_a_24_however_the_address_is_written() {
        assert_eq!(party("8.8.8.1"), party("8.8.8.200"));
        assert_ne!(party("8.8.8.1"), party("8.8.9.1"));
        assert_eq!(party("8.8.8.1"), party("::ffff:8.8.8.2"));
        assert_eq!(party("8.8.8.1"), party("64:ff9b::8.8.8.2"));
        assert_eq!(at(Level::Site, "8.8.8.1"), party("8.8.8.1"), "IPv4 has one level");
    }

    #[test]
    fn the_64s_of_one_48_are_parties_of_one_site() {
        assert_eq!(party("2001:db8::1"), party("2001:db8::ffff:1"));
        assert_ne!(party("2001:db8::1"), party("2001:db8:0:1::1"));
        assert_eq!(at(Level::Home, "2001:db8::1"), at(Level::Home, "2001:db8:0:ff::1"));
        assert_ne!(at(Level::Home, "2001:db8::1"), at(Level::Home, "2001:db8:0:100::1"));
        assert_eq!(at(Level::Site, "2001:db8::1"), at(Level::Site, "2001:db8:0:ffff::1"));
        assert_ne!(at(Level::Site, "2001:db8::1"), at(Level::Site, "2001:db8:1::1"));
        assert_eq!(at(Level::Link, "2001:db8::1"), party("2001:db8::1"));
    }

    #[test]
    fn each_address_of_a_local_range_is_a_party_at_every_level() {
        let ranges = ["127.0.0", "10.1.2", "172.16.0", "192.168.1", "169.254.1", "100.64.0", "100.127.9"];
        for range in ranges {
            assert_ne!(party(&format!("{range}.1")), party(&format!("{range}.2")), "{range}");
        }
        for range in ["fd00::", "fe80::", "fd12:3456:789a:1::"] {
            let (one, other) = (format!("{range}1"), format!("{range}2"));
            assert_ne!(at(Level::Site, &one), at(Level::Site, &other), "{range}");
        }
        assert_eq!(party("100.63.0.1"), party("100.63.0.2"), "next to the shared range");
        assert_eq!(party("100.128.0.1"), party("100.128.0.2"), "next to the shared range");
    }

    #[test]
    fn the_members_of_a_network_with_a_secret_are_parties_of_their_own() {
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let home = addr("[2001:db8::1]:1");
        assert_ne!(Parties::ByNode.of(&one, home), Parties::ByNode.of(&other, home));
        assert_ne!(
            Parties::ByNode.of(&one, home).at(Level::Site),
            Parties::ByNode.of(&other, home).at(Level::Site)
        );
        assert_eq!(Parties::ByAddress.of(&one, home), Parties::ByAddress.of(&other, home));
        assert_eq!(Parties::of_network(Some(&NetworkSecret([1; 16]))), Parties::ByNode);
        assert_eq!(Parties::of_network(None), Parties::ByAddress);
    }

    #[test]
    fn a_host_is_one_ipv4_address_or_a_64() {
        let host = |text: &str| Party::host(text.parse().unwrap());
        assert_ne!(host("8.8.8.1"), host("8.8.8.2"));
        assert_eq!(host("2001:db8::1"), host("2001:db8::2"));
    }

    #[test]
    fn a_local_address_is_believed_only_from_a_local_teller() {
        for local in ["10.0.0.1:1", "100.64.0.1:1", "192.168.0.1:1", "[fd00::1]:1"] {
            assert!(!is_meaningful(addr(local), addr("8.8.8.8:1")), "{local} from a public address");
            assert!(is_meaningful(addr(local), addr("10.9.9.9:1")), "{local} from a private address");
            assert!(is_meaningful(addr(local), addr("127.0.0.1:1")), "{local} from the own host");
        }
        assert!(!is_meaningful(addr("[::ffff:10.0.0.1]:1"), addr("8.8.8.8:1")), "a mapped address");
        assert!(is_meaningful(addr("8.8.4.4:1"), addr("8.8.8.8:1")));
        assert!(is_meaningful(addr("8.8.4.4:1"), addr("10.0.0.1:1")));
    }

    #[test]
    fn a_link_local_address_counts_on_the_link_of_its_teller_and_is_told_on_no_other() {
        let (named, near) = (addr("[fe80::1]:1"), addr("[fe80::1%3]:1"));
        assert_eq!(as_told(named, addr("[fe80::9%3]:1")), Some(near));
        for teller in ["10.0.0.1:1", "[2001:db8::1]:1", "[fd00::1]:1", "[::1]:1"] {
            assert_eq!(as_told(named, addr(teller)), None, "{teller}");
        }
        assert_eq!(as_told(addr("10.0.0.1:1"), addr("10.0.0.2:1")), Some(addr("10.0.0.1:1")));
        assert_eq!(as_told(addr("10.0.0.1:1"), addr("8.8.8.8:1")), None);
        assert!(may_tell(near, addr("[fe80::9%3]:7")));
        for listener in ["[fe80::9%4]:7", "10.0.0.1:7", "[2001:db8::1]:7"] {
            assert!(!may_tell(near, addr(listener)), "{listener}");
        }
        assert!(may_tell(addr("10.0.0.1:1"), addr("[fe80::9%4]:7")));
        assert!(may_tell(addr("169.254.7.7:1"), addr("169.254.9.9:1")));
        assert!(!may_tell(addr("169.254.7.7:1"), addr("10.0.0.1:1")));
    }

    #[test]
    fn a_loopback_address_is_believed_only_from_the_own_host() {
        assert!(!is_meaningful(addr("127.0.0.1:1"), addr("8.8.8.8:1")));
        assert!(!is_meaningful(addr("127.0.0.1:1"), addr("10.0.0.1:1")));
        assert!(is_meaningful(addr("127.0.0.1:1"), addr("127.0.0.1:2")));
    }
}

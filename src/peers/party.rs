//! Parties: who owns an address. Ids are free, addresses less so, therefore bounds are shared out among parties.
//!
//! Which level counts depends on what is shared: a [host](Party::host) is one address (a /64 of IPv6, which one machine has at
//! least), a [network](Party::network) what one owner usually has in one place, a [site](Party::site) what one owner may have
//! altogether.

use core::net::{IpAddr, SocketAddr};

/// The owner of an address, as far as the address tells. Only parties of one level can be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Party([u8; 8]);

/// The first byte of a party of IPv4: no IPv6 address that is in use begins with it.
const V4: u8 = 4;

impl Party {
    /// One host: an IPv4 address, or a /64 of IPv6.
    pub fn host(ip: IpAddr) -> Party {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                Party([V4, a, b, c, d, 0, 0, 0])
            }
            IpAddr::V6(ip) => Party(core::array::from_fn(|i| ip.octets()[i])),
        }
    }

    /// One network: a /24 of IPv4, a /64 of IPv6. `None` for loopback, link-local and private addresses, where a fleet of one
    /// owner is what is expected.
    pub fn network(addr: SocketAddr) -> Option<Party> {
        match addr.ip() {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Party([V4, a, b, c, 0, 0, 0, 0]))
            }
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
            IpAddr::V6(ip) => Some(Party(core::array::from_fn(|i| ip.octets()[i]))),
        }
    }

    /// One site: a /24 of IPv4, a /48 of IPv6, private ranges included.
    pub fn site(ip: IpAddr) -> Party {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Party([V4, a, b, c, 0, 0, 0, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Party([a, b, c, d, e, f, 0, 0])
            }
        }
    }

    /// The party as bytes, to be hashed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether `teller` may speak of `addr`: a loopback address means something on the teller's own host only.
pub fn is_meaningful(addr: SocketAddr, teller: SocketAddr) -> bool {
    !addr.ip().is_loopback() || teller.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_share_a_network_and_fleets_do_not() {
        let network = |text| Party::network(addr(text));
        assert_eq!(network("8.8.8.1:1"), network("8.8.8.200:9"));
        assert_ne!(network("8.8.8.1:1"), network("8.8.9.1:1"));
        assert_eq!(network("[2001:db8::1]:1"), network("[2001:db8::ffff:1]:1"));
        assert_ne!(network("[2001:db8::1]:1"), network("[2001:db8:0:1::1]:1"));
        for private in ["127.0.0.1:1", "10.1.2.3:1", "169.254.1.1:1", "[::1]:1", "[fd00::1]:1", "[fe80::1]:1"]
        {
            assert_eq!(network(private), None, "{private}");
        }
    }

    #[test]
    fn a_host_is_one_address_or_a_64_and_a_site_a_24_or_a_48() {
        assert_ne!(Party::host(ip("10.0.0.1")), Party::host(ip("10.0.0.2")));
        assert_eq!(Party::host(ip("2001:db8::1")), Party::host(ip("2001:db8::2")));
        assert_ne!(Party::host(ip("2001:db8::1")), Party::host(ip("2001:db8:0:1::1")));
        assert_eq!(Party::site(ip("10.0.0.1")), Party::site(ip("10.0.0.2")));
        assert_ne!(Party::site(ip("10.0.0.1")), Party::site(ip("10.0.1.1")));
        assert_eq!(Party::site(ip("2001:db8:0:1::1")), Party::site(ip("2001:db8:0:2::1")));
        assert_ne!(Party::site(ip("2001:db8:1::1")), Party::site(ip("2001:db8:2::1")));
    }

    #[test]
    fn nobody_elsewhere_may_speak_of_our_loopback() {
        assert!(!is_meaningful(addr("127.0.0.1:1"), addr("8.8.8.8:1")));
        assert!(is_meaningful(addr("127.0.0.1:1"), addr("127.0.0.1:2")));
    }
}

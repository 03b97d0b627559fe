//! What can be told about an address without sending to it.

use core::net::{IpAddr, SocketAddr};

/// Whether `teller` may speak of `addr`: a loopback address means something on the teller's own host only.
pub fn is_meaningful(addr: SocketAddr, teller: SocketAddr) -> bool {
    !addr.ip().is_loopback() || teller.ip().is_loopback()
}

/// The part of an address that one party usually owns: /24 of IPv4, /64 of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Prefix([u8; 8]);

impl Prefix {
    /// The prefix of an address; `None` for loopback, link-local and private addresses, where a fleet of one owner
    /// is what is expected.
    pub fn of(addr: SocketAddr) -> Option<Self> {
        match addr.ip() {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Prefix([4, a, b, c, 0, 0, 0, 0]))
            }
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
            IpAddr::V6(ip) => Some(Prefix(core::array::from_fn(|i| ip.octets()[i]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_share_a_prefix_and_fleets_do_not() {
        assert_eq!(Prefix::of(addr("8.8.8.1:1")), Prefix::of(addr("8.8.8.200:9")));
        assert_ne!(Prefix::of(addr("8.8.8.1:1")), Prefix::of(addr("8.8.9.1:1")));
        assert_eq!(Prefix::of(addr("[2001:db8::1]:1")), Prefix::of(addr("[2001:db8::ffff:1]:1")));
        for private in ["127.0.0.1:1", "10.1.2.3:1", "[::1]:1", "[fd00::1]:1"] {
            assert_eq!(Prefix::of(addr(private)), None, "{private}");
        }
    }

    #[test]
    fn nobody_elsewhere_may_speak_of_our_loopback() {
        assert!(!is_meaningful(addr("127.0.0.1:1"), addr("8.8.8.8:1")));
        assert!(is_meaningful(addr("127.0.0.1:1"), addr("127.0.0.1:2")));
    }
}

//! What can be told about an address without sending to it.

use crate::wire::contact::canonical;
use core::net::{IpAddr, SocketAddr};

/// Which addresses our own socket can send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// A socket bound to an IPv4 address.
    V4,
    /// A socket bound to one IPv6 address.
    V6,
    /// A socket bound to `[::]`, which carries IPv4 too.
    Both,
}

impl Reach {
    /// What a socket that listens at `listen` reaches.
    pub(super) fn of(listen: SocketAddr) -> Self {
        match canonical(listen).ip() {
            IpAddr::V4(_) => Reach::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Reach::Both,
            IpAddr::V6(_) => Reach::V6,
        }
    }

    /// Whether a datagram can be sent to `addr`.
    pub(super) fn contains(self, addr: SocketAddr) -> bool {
        match self {
            Reach::V4 => addr.is_ipv4(),
            Reach::V6 => addr.is_ipv6(),
            Reach::Both => true,
        }
    }
}

/// Whether `teller` may speak of `addr`: a loopback address means something on the teller's own host only.
pub(super) fn is_meaningful(addr: SocketAddr, teller: SocketAddr) -> bool {
    !addr.ip().is_loopback() || teller.ip().is_loopback()
}

/// Whether who sends from `sender` may announce that it serves at `addr`. Everybody who wants the file will connect there, so
/// the address must be the sender's own as far as that can be seen: another family tells nothing, and inside one
/// owner's network a node may go by the address that the outside knows it by.
pub(super) fn may_announce(addr: SocketAddr, sender: SocketAddr) -> bool {
    addr.ip() == sender.ip() || addr.is_ipv4() != sender.is_ipv4() || Prefix::of(sender).is_none()
}

/// The part of an address that one party usually owns: /24 of IPv4, /64 of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Prefix([u8; 8]);

impl Prefix {
    /// The prefix of an address; `None` for loopback, link-local and private addresses, where a fleet of one owner
    /// is what is expected.
    pub(super) fn of(addr: SocketAddr) -> Option<Self> {
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
    fn nobody_announces_an_address_that_is_plainly_not_its_own() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (ours, victim) = (addr("192.0.2.7:3583"), addr("198.51.100.9:443"));
        assert!(may_announce(ours, addr("192.0.2.7:50000")));
        assert!(!may_announce(victim, ours));
        assert!(may_announce(addr("[2001:db8::7]:3583"), ours), "another family tells nothing");
        assert!(may_announce(victim, addr("10.0.0.7:3583")), "one owner's network");
    }

    #[test]
    fn a_socket_reaches_its_own_family() {
        assert!(!Reach::of(addr("0.0.0.0:1")).contains(addr("[2001:db8::1]:1")));
        assert!(Reach::of(addr("[::]:1")).contains(addr("1.2.3.4:1")));
        assert!(!Reach::of(addr("[::1]:1")).contains(addr("127.0.0.1:1")));
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

//! Checks of addresses that need no datagram.

use crate::peers::party::is_local;
use crate::wire::contact::{canonical, scope_of};
use core::net::{IpAddr, SocketAddr};

/// The addresses that this node's socket can send to.
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
    /// The reach of a socket that is bound to `listen`.
    pub(super) fn of(listen: SocketAddr) -> Self {
        match canonical(listen).ip() {
            IpAddr::V4(_) => Reach::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Reach::Both,
            IpAddr::V6(_) => Reach::V6,
        }
    }

    /// Whether a datagram can be sent to `addr`.
    pub(super) fn contains(self, addr: SocketAddr) -> bool {
        if scope_of(addr) == Some(0) {
            // The link is unknown.
            return false;
        }
        match self {
            Reach::V4 => addr.is_ipv4(),
            Reach::V6 => addr.is_ipv6(),
            Reach::Both => true,
        }
    }
}

/// Whether a node that sends from `sender` may announce that it serves at `addr`. Every node that wants the file will connect there,
/// so the address must be the sender's own as far as that can be judged: nothing is known about an address of the other family, and
/// inside one owner's network a node may announce the address by which the outside knows it.
pub(super) fn may_announce(addr: SocketAddr, sender: SocketAddr) -> bool {
    addr.ip() == sender.ip() || addr.is_ipv4() != sender.is_ipv4() || is_local(sender.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_is_plainly_not_the_senders_own_is_refused() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (ours, victim) = (addr("192.0.2.7:3583"), addr("198.51.100.9:443"));
        assert!(may_announce(ours, addr("192.0.2.7:50000")));
        assert!(!may_announce(victim, ours));
        assert!(may_announce(addr("[2001:db8::7]:3583"), ours), "the other family says nothing");
        assert!(may_announce(victim, addr("10.0.0.7:3583")), "one owner's network");
    }

    #[test]
    fn a_socket_reaches_its_own_family() {
        assert!(!Reach::of(addr("0.0.0.0:1")).contains(addr("[2001:db8::1]:1")));
        assert!(Reach::of(addr("[::]:1")).contains(addr("1.2.3.4:1")));
        assert!(!Reach::of(addr("[::1]:1")).contains(addr("127.0.0.1:1")));
        assert!(Reach::of(addr("[::]:1")).contains(addr("[fe80::1%2]:1")));
        assert!(!Reach::of(addr("[::]:1")).contains(addr("[fe80::1]:1")), "the link is unknown");
    }
}

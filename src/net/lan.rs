//! The multicast groups of discovery: the links of this machine, what the node sends there, and what comes from there.
//!
//! A datagram to a group leaves from the node's own UDP socket, so its source is the address at which the node receives. What comes
//! arrives on a socket for each IP family, which shares its port with other nodes on the same machine. The time to live is 1, so
//! routers pass nothing on. Where both families work, IPv4 goes first: the first copy counts.
//!
//! The source of a datagram must be an address of one of the links. A forged source can then only be that of a neighbour on the link,
//! who gets a ping.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use std::collections::BTreeSet;
use std::io;

/// The port of discovery, besides the node's own.
pub const LAN_PORT: u16 = 3585;
/// The group of IPv4: in the local scope of RFC 2365.
pub const LAN_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 35, 83);
/// The group of IPv6. It has site scope, so the source is an address that has a meaning beyond the link, if there is one (RFC 6724
/// §5, rule 2). The hop limit keeps the datagram on the link.
pub const LAN_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x3583, 1);

/// Links that are used. Linux lets a socket join 20 groups by default.
const LINKS_MAX: usize = 16;
/// The longest datagram that is read whole. A here has 160 bytes.
const BUFFER_BYTES: usize = 256;

/// A link of this machine: an interface that can carry multicast.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Link {
    name: String,
    index: u32,
    /// The addresses of this machine on the link, with the lengths of their prefixes.
    prefixes: Vec<(IpAddr, u32)>,
}

/// The sockets of discovery.
pub(super) struct Lan {
    listen: IpAddr,
    links: Vec<Link>,
    groups: Vec<Group>,
    buffer: [u8; BUFFER_BYTES],
    /// The group that is read next: none waits for the other.
    next: usize,
    /// Datagrams whose source was not an address of a link.
    pub(super) off_link: u64,
}

/// The socket of one IP family.
struct Group {
    token: Token,
    address: IpAddr,
    socket: UdpSocket,
    readable: bool,
    /// The numbers of the interfaces on which the group was joined.
    joined: BTreeSet<u32>,
}

impl Lan {
    /// Joins the groups on the links that a node at `listen` can use.
    pub(super) fn start(listen: IpAddr, registry: &Registry, tokens: [Token; 2]) -> Self {
        let families: &[IpAddr] = match listen {
            IpAddr::V4(_) => &[IpAddr::V4(LAN_GROUP_V4)],
            IpAddr::V6(ip) if ip.is_unspecified() => &[IpAddr::V4(LAN_GROUP_V4), IpAddr::V6(LAN_GROUP_V6)],
            IpAddr::V6(_) => &[IpAddr::V6(LAN_GROUP_V6)],
        };
        let mut groups = Vec::new();
        for (address, token) in families.iter().zip(tokens) {
            match Group::open(*address, token, registry) {
                Ok(group) => groups.push(group),
                Err(error) => log::warn!(
                    "nodes of this LAN are not found at {address}: cannot listen on UDP port {LAN_PORT} ({error}); \
                     --bootstrap joins through a node"
                ),
            }
        }
        let buffer = [0; BUFFER_BYTES];
        let mut lan = Lan { listen, links: Vec::new(), groups, buffer, next: 0, off_link: 0 };
        lan.look();
        lan
    }

    /// Whether datagrams may wait.
    pub(super) fn is_ready(&self) -> bool {
        self.groups.iter().any(|group| group.readable)
    }

    /// A socket became readable.
    pub(super) fn note_readable(&mut self, token: Token) {
        self.groups.iter_mut().filter(|group| group.token == token).for_each(|group| group.readable = true);
    }

    /// Reads the links again, and joins the groups on new ones.
    pub(super) fn look(&mut self) {
        match links(self.listen) {
            Ok(links) => self.links = links,
            Err(error) => log::debug!("cannot read the interfaces of this machine: {error}"),
        }
        for group in &mut self.groups {
            group.join(&self.links);
        }
    }

    /// Sends a datagram to the groups on every link, from the node's socket. Returns whether it left on any.
    pub(super) fn tell(&mut self, socket: &UdpSocket, bytes: &[u8]) -> bool {
        self.look();
        let mut left = false;
        let options = SockRef::from(socket);
        for link in &self.links {
            for group in &self.groups {
                let Some(ip) = link.address(group.address.is_ipv4()) else { continue };
                let to = match (group.address, self.listen) {
                    (IpAddr::V4(group), IpAddr::V6(_)) => IpAddr::V6(group.to_ipv6_mapped()),
                    (group, _) => group,
                };
                let chosen = match ip {
                    IpAddr::V4(ip) => options.set_multicast_if_v4(&ip),
                    IpAddr::V6(_) => options.set_multicast_if_v6(link.index),
                };
                let sent = chosen.and_then(|()| socket.send_to(bytes, SocketAddr::new(to, LAN_PORT)));
                match sent {
                    Ok(_) => left = true,
                    Err(error) => log::debug!(
                        "telling {} on {} that this node is there: {error}",
                        group.address,
                        link.name
                    ),
                }
            }
        }
        left
    }

    /// The next datagram that came from a link, with its sender. Each one that is read, whatever its sender, costs one of `budget`.
    pub(super) fn receive(&mut self, budget: &mut usize) -> Option<(SocketAddr, &[u8])> {
        while self.is_ready() && *budget > 0 {
            self.next = (self.next + 1) % self.groups.len();
            let group = &mut self.groups[self.next];
            if !group.readable {
                continue;
            }
            *budget -= 1;
            match group.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) if is_on_link(&self.links, from.ip()) => {
                    return Some((from, &self.buffer[..length]));
                }
                Ok(_) => self.off_link += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => group.readable = false,
            }
        }
        None
    }
}

impl Group {
    fn open(address: IpAddr, token: Token, registry: &Registry) -> io::Result<Group> {
        let at = SocketAddr::new(address, LAN_PORT);
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        // Several nodes on one machine hear the same group.
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Bound to the group itself, the socket receives nothing that is sent to an address of this machine.
        socket.bind(&at.into())?;
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Group { token, address, socket, readable: true, joined: BTreeSet::new() })
    }

    /// Leaves the group on links that are gone. Their memberships would count against the kernel's limit for as long as the node runs.
    fn leave(&mut self, links: &[Link]) {
        let socket = SockRef::from(&self.socket);
        let address = self.address;
        self.joined.retain(|index| {
            let stays = links.iter().any(|link| link.index == *index);
            if !stays {
                // The kernel may have ended the membership with the interface.
                let _ = match address {
                    IpAddr::V4(group) => {
                        socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(*index))
                    }
                    IpAddr::V6(group) => socket.leave_multicast_v6(&group, *index),
                };
            }
            stays
        });
    }

    /// Joins the group on each link that has an address of its family.
    fn join(&mut self, links: &[Link]) {
        self.leave(links);
        for link in links.iter().filter(|link| link.address(self.address.is_ipv4()).is_some()) {
            if self.joined.contains(&link.index) {
                continue;
            }
            let socket = SockRef::from(&self.socket);
            let joined = match self.address {
                IpAddr::V4(group) => {
                    socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(link.index))
                }
                IpAddr::V6(group) => socket.join_multicast_v6(&group, link.index),
            };
            match joined {
                Ok(()) => _ = self.joined.insert(link.index),
                // Joined already: the interface was away for a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => _ = self.joined.insert(link.index),
                Err(error) => log::debug!("joining {} on {}: {error}", self.address, link.name),
            }
        }
    }
}

impl Link {
    /// An address of this machine on the link.
    fn address(&self, v4: bool) -> Option<IpAddr> {
        self.prefixes.iter().map(|(ip, _)| *ip).find(|ip| ip.is_ipv4() == v4)
    }
}

/// The links that a node at `listen` can use: those with that address, or all when it listens on every address.
fn links(listen: IpAddr) -> io::Result<Vec<Link>> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
    let mut links: Vec<Link> = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let usable =
            interface.flags.contains(wanted) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(ip) = interface.address.as_ref().and_then(ip_of).filter(|_| usable) else { continue };
        if !listen.is_unspecified() && ip != listen {
            continue;
        }
        let length = interface.netmask.as_ref().and_then(ip_of).map_or(u32::MAX, prefix_length);
        let has_room = links.len() < LINKS_MAX;
        match links.iter_mut().find(|link| link.name == interface.interface_name) {
            Some(link) => link.prefixes.push((ip, length)),
            None if has_room => {
                let Ok(index) = if_nametoindex(interface.interface_name.as_str()) else { continue };
                links.push(Link { name: interface.interface_name, index, prefixes: vec![(ip, length)] });
            }
            None => {}
        }
    }
    Ok(links)
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| Ipv6Addr::from(v6.ip().octets()).into())
}

/// The number of leading ones of a netmask.
fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    }
}

/// Whether an address is in a prefix of one of the links.
fn is_on_link(links: &[Link], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let covers = |(own, length): &(IpAddr, u32)| match (*own, ip) {
        (IpAddr::V4(own), IpAddr::V4(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros() >= *length,
        (IpAddr::V6(own), IpAddr::V6(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros() >= *length,
        _ => false,
    };
    links.iter().flat_map(|link| &link.prefixes).any(covers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    fn link(prefixes: &[(&str, u32)]) -> Link {
        let prefixes = prefixes.iter().map(|(ip, length)| (ip.parse().unwrap(), *length)).collect();
        Link { prefixes, ..Link::default() }
    }

    #[test]
    fn a_source_is_on_a_link_if_a_prefix_of_the_link_covers_it() {
        let links =
            [link(&[("192.168.7.1", 24), ("fe80::1", 64)]), link(&[("10.1.0.9", 16), ("2001:db8::9", 64)])];
        for ip in ["192.168.7.200", "10.1.255.1", "fe80::abcd", "2001:db8::1", "::ffff:10.1.2.3"] {
            assert!(is_on_link(&links, ip.parse().unwrap()), "{ip}");
        }
        for ip in ["192.168.8.1", "10.2.0.1", "2001:db8:0:1::1", "8.8.8.8", "127.0.0.1"] {
            assert!(!is_on_link(&links, ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_on_link(&[link(&[("10.0.0.1", u32::MAX)])], [10, 0, 0, 2].into()), "no netmask");
    }

    #[test]
    fn a_node_at_a_loopback_address_has_no_links() {
        assert_eq!(links([127, 0, 0, 1].into()).unwrap(), []);
        assert_eq!(links(Ipv6Addr::LOCALHOST.into()).unwrap(), []);
    }

    #[test]
    fn several_nodes_on_one_machine_hear_the_same_group() {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let start = |first: usize| {
            Lan::start(Ipv4Addr::LOCALHOST.into(), poll.registry(), [Token(first), Token(first + 1)])
        };
        let mut lans = [start(1), start(3)];
        // The test needs no other link than loopback.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        for lan in &mut lans {
            lan.links = vec![link(&[("127.0.0.1", 8)])];
            let interface = InterfaceIndexOrAddress::Address(Ipv4Addr::LOCALHOST);
            SockRef::from(&lan.groups[0].socket).join_multicast_v4_n(&LAN_GROUP_V4, &interface).unwrap();
            assert_eq!(lan.receive(&mut 9), None);
            assert!(!lan.is_ready());
        }
        socket.send_to(b"here", &SocketAddr::from((LAN_GROUP_V4, LAN_PORT)).into()).unwrap();
        for _ in 0..50 {
            if lans.iter().all(Lan::is_ready) {
                break;
            }
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            for event in &events {
                lans.iter_mut().for_each(|lan| lan.note_readable(event.token()));
            }
        }
        for lan in &mut lans {
            assert_eq!(lan.receive(&mut 9).map(|(_, bytes)| bytes.to_vec()), Some(b"here".to_vec()));
        }
    }

    #[test]
    fn what_comes_from_no_link_costs_a_turn_no_more_than_its_budget() {
        let poll = Poll::new().unwrap();
        let mut lan = Lan::start(Ipv4Addr::LOCALHOST.into(), poll.registry(), [Token(1), Token(2)]);
        let interface = InterfaceIndexOrAddress::Address(Ipv4Addr::LOCALHOST);
        SockRef::from(&lan.groups[0].socket).join_multicast_v4_n(&LAN_GROUP_V4, &interface).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let to = SocketAddr::from((LAN_GROUP_V4, LAN_PORT)).into();
        (0..40).for_each(|_| _ = socket.send_to(b"far", &to).unwrap());
        let mut budget = 16;
        assert_eq!(lan.receive(&mut budget), None);
        assert_eq!((budget, lan.off_link), (0, 16));
        assert!(lan.is_ready(), "the rest waits for the next turn");
    }
}

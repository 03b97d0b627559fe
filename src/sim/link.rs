//! The network between the hosts: their addresses, the delay and loss of packets, NATs, and partitions.

use super::chance::Chance;
use crate::time::{Duration, Instant};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

/// The addresses that hosts get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Addressing {
    /// Each host is in an IPv4 /24 of its own.
    #[default]
    Apart,
    /// All hosts are in one public IPv4 /24, which has room for 254.
    OnePrefix,
    /// All hosts are in one /24 of the shared address space for carrier-grade NAT (RFC 6598).
    OneShared,
    /// All hosts are in one IPv6 /64.
    OneLink,
}

impl Addressing {
    /// The IP address of the host `index`.
    pub(super) fn ip(self, index: u32) -> IpAddr {
        match self {
            Addressing::Apart => Ipv4Addr::from(0x1000_0001 + (index << 8)).into(),
            Addressing::OnePrefix => Ipv4Addr::from(0x1f00_0001 + index).into(),
            Addressing::OneShared => Ipv4Addr::from(0x6440_0001 + index).into(),
            Addressing::OneLink => Ipv6Addr::from((0x2001_0db8 << 96) + 1 + u128::from(index)).into(),
        }
    }

    /// The most hosts that the scheme has addresses for.
    pub const fn hosts_max(self) -> usize {
        match self {
            Addressing::OnePrefix | Addressing::OneShared => 254,
            Addressing::Apart | Addressing::OneLink => 100_000,
        }
    }
}

/// The properties of links.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// The addresses of hosts.
    pub addressing: Addressing,
    /// The least one-way delay.
    pub delay: Duration,
    /// The most that distance adds to the delay. Hosts have random places in a unit square.
    pub span: Duration,
    /// Random extra delay, up to this share of the rest of the delay.
    pub jitter: f64,
    /// The probability that a packet is lost.
    pub loss: f64,
    /// The probability that a packet arrives twice.
    pub duplicate: f64,
    /// The probability that a packet is late by up to [`LATE`], so that others overtake it.
    pub reorder: f64,
    /// The bandwidth for sending, in bytes per second.
    pub up: u64,
    /// The bandwidth for receiving, in bytes per second.
    pub down: u64,
}

impl Default for LinkPlan {
    /// Home connections and small servers on one continent.
    fn default() -> Self {
        LinkPlan {
            addressing: Addressing::Apart,
            delay: Duration::from_millis(4),
            span: Duration::from_millis(50),
            jitter: 0.2,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            up: 5_000_000,
            down: 12_500_000,
        }
    }
}

/// The most extra delay of a reordered or duplicated packet.
pub const LATE: Duration = Duration::from_millis(80);
/// The longest that a datagram waits before a full link. A datagram that would wait longer is dropped.
const QUEUE: Duration = Duration::from_millis(250);
/// How long a NAT lets packets in from an address after the host last sent to it.
const NAT_TIME: Duration = Duration::from_secs(120);
/// The bytes of the IPv4 and UDP headers of a datagram.
const HEADERS: usize = 28;
/// The port that every node listens on.
pub const PORT: u16 = 3583;

/// Parts of the network that can be cut off from each other.
pub const SIDES: usize = 4;

/// Where a host is attached.
#[derive(Clone, Debug)]
pub struct Port {
    /// The address that other hosts see, and the source of the host's datagrams.
    pub addr: SocketAddr,
    /// The part of the network that the host is in.
    pub side: u8,
    /// From when until when the host last could not receive.
    pub(super) deaf: (Instant, Instant),
    /// The bandwidth for sending, in bytes per second.
    pub up: u64,
    /// The bandwidth for receiving, in bytes per second.
    pub down: u64,
    place: (f64, f64),
    up_free: Instant,
    down_free: Instant,
    /// For a host behind a NAT: the addresses that it sent to, and when it last did. No other address reaches the host.
    nat: Option<BTreeMap<SocketAddr, Instant>>,
    /// Whether the host began behind a NAT.
    began_hidden: bool,
}

/// All links.
pub struct Links {
    /// The properties of the links.
    pub plan: LinkPlan,
    ports: Vec<Port>,
    /// The hosts at each IP address. Several hosts can share an address, with different ports.
    at: BTreeMap<IpAddr, Vec<usize>>,
    blocked: [[bool; SIDES]; SIDES],
    /// The LAN of each host that is on one. Hosts on one LAN hear what each tells its link.
    pub lans: BTreeMap<usize, u32>,
    /// The host names that resolve, in lower case, and their addresses.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    /// Packets lost to chance, to cuts, and to full queues.
    pub lost: [u64; 3],
}

/// The arrival times of a packet, which arrives once, twice or never.
pub(super) type Arrivals = [Option<Instant>; 2];

const NEVER: Arrivals = [None, None];

impl Links {
    pub(super) fn new(plan: LinkPlan) -> Self {
        Links {
            plan,
            ports: Vec::new(),
            at: BTreeMap::new(),
            blocked: [[false; SIDES]; SIDES],
            lans: BTreeMap::new(),
            names: BTreeMap::new(),
            lost: [0; 3],
        }
    }

    /// Attaches another host, at its own address.
    pub(super) fn attach(&mut self, nat: bool, chance: &mut Chance) -> SocketAddr {
        let index = self.ports.len() as u32;
        let port = if nat { 40_000 } else { PORT };
        let addr = SocketAddr::new(self.plan.addressing.ip(index), port);
        self.at.entry(addr.ip()).or_default().push(self.ports.len());
        self.ports.push(Port {
            addr,
            side: 0,
            deaf: (Instant::ZERO, Instant::ZERO),
            up: self.plan.up,
            down: self.plan.down,
            place: (chance.unit(), chance.unit()),
            up_free: Instant::ZERO,
            down_free: Instant::ZERO,
            nat: nat.then(BTreeMap::new),
            began_hidden: nat,
        });
        addr
    }

    /// Gives a host another address. Other hosts may share the IP address, with other ports. Call this before the node starts.
    pub fn readdress(&mut self, host: usize, addr: SocketAddr) {
        let old = self.ports[host].addr.ip();
        self.at.entry(old).or_default().retain(|other| *other != host);
        self.at.entry(addr.ip()).or_default().push(host);
        self.ports[host].addr = addr;
    }

    /// Where a host is attached.
    pub fn port(&self, host: usize) -> &Port {
        &self.ports[host]
    }

    /// Where a host is attached, mutable.
    pub fn port_mut(&mut self, host: usize) -> &mut Port {
        &mut self.ports[host]
    }

    /// The host at an address or, if no host has its port, the first host at its IP address.
    pub(super) fn host_of(&self, addr: SocketAddr) -> Option<usize> {
        let hosts = self.at.get(&addr.ip())?;
        hosts.iter().find(|host| self.ports[**host].addr == addr).or(hosts.first()).copied()
    }

    /// A host's NAT gives it another port. Packets to the old port are lost.
    pub fn rebind(&mut self, host: usize, chance: &mut Chance) {
        let port = &mut self.ports[host];
        port.addr.set_port(40_001 + chance.below(20_000) as u16);
        if let Some(nat) = &mut port.nat {
            nat.clear();
        }
    }

    /// A host's NAT lets all packets in from now on.
    pub fn open(&mut self, host: usize) {
        self.ports[host].nat = None;
    }

    /// Blocks or unblocks all packets from one side to another, in this direction.
    pub fn block(&mut self, from: u8, to: u8, blocked: bool) {
        self.blocked[usize::from(from)][usize::from(to)] = blocked;
    }

    /// Whether packets pass from one host to another.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        !self.blocked[usize::from(self.ports[from].side)][usize::from(self.ports[to].side)]
    }

    /// Whether a host takes connections from any address: it is not behind a NAT.
    pub(super) fn is_public(&self, host: usize) -> bool {
        self.ports[host].nat.is_none()
    }

    /// Whether a host has never been behind a NAT.
    pub fn was_always_public(&self, host: usize) -> bool {
        !self.ports[host].began_hidden
    }

    /// The delay from one host to another, without jitter.
    pub fn delay(&self, from: usize, to: usize) -> Duration {
        let ((ax, ay), (bx, by)) = (self.ports[from].place, self.ports[to].place);
        // Manhattan distance is good enough. Without a square root, the result is the same on every machine.
        let distance = ((ax - bx).abs() + (ay - by).abs()) / 2.0;
        self.plan.delay + self.plan.span.mul_f64(distance)
    }

    /// Sends a datagram to an address. Returns the receiving host, or `from` if there is none, and the arrivals.
    pub(super) fn send(
        &mut self,
        now: Instant,
        from: usize,
        to: SocketAddr,
        length: usize,
        chance: &mut Chance,
    ) -> (usize, Arrivals) {
        if let Some(nat) = &mut self.ports[from].nat {
            nat.insert(to, now);
        }
        let Some(host) = self.host_of(to).filter(|host| self.ports[*host].addr == to) else {
            return (from, NEVER);
        };
        if let Some(nat) = &self.ports[host].nat {
            let known = nat.get(&self.ports[from].addr).is_some_and(|at| now.since(*at) < NAT_TIME);
            if !known {
                return (host, NEVER);
            }
        }
        if !self.is_open(from, host) {
            self.lost[1] += 1;
            return (host, NEVER);
        }
        if chance.happens(self.plan.loss) {
            self.lost[0] += 1;
            return (host, NEVER);
        }
        let Some(arrival) = self.carry(now, from, host, length + HEADERS, QUEUE, chance) else {
            self.lost[2] += 1;
            return (host, NEVER);
        };
        let late = if chance.happens(self.plan.reorder) { chance.duration(LATE) } else { Duration::ZERO };
        let again = chance.happens(self.plan.duplicate).then(|| arrival + chance.duration(LATE));
        (host, [Some(arrival + late), again])
    }

    /// When bytes sent now arrive. `None` when the wait at either link is longer than `queue`.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        bytes: usize,
        queue: Duration,
        chance: &mut Chance,
    ) -> Option<Instant> {
        let delay = self.delay(from, to);
        let jitter =
            Duration::from_nanos((delay.as_nanos() as f64 * self.plan.jitter * chance.unit()) as u64);
        let port = &mut self.ports[from];
        let start = port.up_free.max(now);
        if start.since(now) > queue {
            return None;
        }
        port.up_free = start + passing(bytes, port.up);
        let sent = port.up_free;
        // The receiver's queue is ordered by the time of sending, without the delay. Otherwise a packet from a near host would
        // wait for one from a far host that is still on its way.
        let port = &mut self.ports[to];
        let start = port.down_free.max(sent);
        if start.since(sent) > queue {
            return None;
        }
        port.down_free = start + passing(bytes, port.down);
        Some(port.down_free + delay + jitter)
    }

    /// When a host's link is free to send again.
    pub(super) fn free_at(&self, host: usize) -> Instant {
        self.ports[host].up_free
    }
}

fn passing(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(plan: LinkPlan) -> (Links, SocketAddr, Chance) {
        let mut chance = Chance::new(1, 1);
        let mut links = Links::new(plan);
        links.attach(false, &mut chance);
        let to = links.attach(false, &mut chance);
        (links, to, chance)
    }

    fn arrived(links: &mut Links, to: SocketAddr, chance: &mut Chance, second: u64) -> usize {
        let (_, arrivals) = links.send(Instant::from_secs(second), 0, to, 100, chance);
        arrivals.into_iter().flatten().count()
    }

    #[test]
    fn packets_are_lost_doubled_and_delayed_as_often_as_was_asked() {
        let (mut links, to, mut chance) = two(LinkPlan { loss: 0.1, ..LinkPlan::default() });
        let there: usize = (0..10_000).map(|s| arrived(&mut links, to, &mut chance, s)).sum();
        assert!((8_900..9_100).contains(&there), "{there}");
        let (mut links, to, mut chance) = two(LinkPlan { duplicate: 0.1, ..LinkPlan::default() });
        let there: usize = (0..10_000).map(|s| arrived(&mut links, to, &mut chance, s)).sum();
        assert!((10_900..11_100).contains(&there), "{there}");
        let (mut links, to, mut chance) = two(LinkPlan::default());
        let now = Instant::from_secs(1);
        let (_, [at, _]) = links.send(now, 0, to, 100, &mut chance);
        let took = at.unwrap().since(now);
        let delay = links.delay(0, 1);
        assert!(took >= delay && took <= delay.mul_f64(1.3), "{took:?} of {delay:?}");
    }

    #[test]
    fn a_full_link_makes_packets_wait_and_then_drops_them() {
        let plan = LinkPlan { up: 10_000, ..LinkPlan::default() };
        let (mut links, to, mut chance) = two(plan);
        let there: usize = (0..1000).map(|_| arrived(&mut links, to, &mut chance, 1)).sum();
        assert!((18..24).contains(&there), "{there} packets of 128 bytes fit into 250 ms of 10 kB/s");
        assert_eq!(arrived(&mut links, to, &mut chance, 2), 1);
    }

    #[test]
    fn a_cut_can_go_one_way_and_heals() {
        let (mut links, to, mut chance) = two(LinkPlan::default());
        let back = links.port(0).addr;
        links.port_mut(1).side = 1;
        links.block(0, 1, true);
        assert_eq!(arrived(&mut links, to, &mut chance, 1), 0);
        let (_, arrivals) = links.send(Instant::from_secs(1), 1, back, 100, &mut chance);
        assert!(arrivals[0].is_some());
        links.block(0, 1, false);
        assert_eq!(arrived(&mut links, to, &mut chance, 2), 1);
    }

    #[test]
    fn a_translator_lets_in_answers_only_and_a_new_port_loses_what_goes_to_the_old_one() {
        let mut chance = Chance::new(1, 1);
        let mut links = Links::new(LinkPlan::default());
        let outside = links.attach(false, &mut chance);
        let inside = links.attach(true, &mut chance);
        assert_eq!(arrived(&mut links, inside, &mut chance, 1), 0);
        links.send(Instant::from_secs(2), 1, outside, 100, &mut chance);
        assert_eq!(arrived(&mut links, inside, &mut chance, 3), 1);
        links.rebind(1, &mut chance);
        assert_eq!(arrived(&mut links, inside, &mut chance, 4), 0);
        assert_eq!(arrived(&mut links, inside, &mut chance, 300), 0);
    }
}

//! A network of machines in memory: datagrams go through a queue, time is a number.

use super::super::{Gossip, GossipConfig, GossipEvent, Liveness, OwnState};
use crate::identity::Identity;
use crate::peers::outbox::{Asker, Outbox};
use crate::peers::requests::Challenge;
use crate::peers::testing::{self, Air, Flight};
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Unverified;
use crate::wire::message::Message;
use crate::wire::network::Network;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Node {
    pub(super) gossip: Gossip,
    pub(super) outbox: Outbox,
    pub(super) contact: Contact,
    pub(super) up: bool,
    /// The datagrams that arrive while it is paused, as in a socket's buffer. `None` while it runs.
    pub(super) paused: Option<Vec<(SocketAddr, Vec<u8>)>>,
    pub(super) side: u8,
    pub(super) events: Vec<(Instant, GossipEvent)>,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) wakeups: u64,
    alarm: Option<Instant>,
}

pub(super) struct Net {
    pub(super) network: Network,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) air: Air,
    /// Whether nodes on different sides reach each other.
    pub(super) cut: bool,
    /// The nodes that have a deadline, by that.
    alarms: BTreeSet<(Instant, u64, usize)>,
    addresses: BTreeMap<SocketAddr, usize>,
    count: u64,
}

pub(super) fn identity(index: usize) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&index.to_le_bytes());
    Identity::from_secret(&secret)
}

pub(super) fn address(index: usize) -> SocketAddr {
    SocketAddr::from((
        [10, 1 + (index / 62_500) as u8, (index / 250 % 250) as u8, (index % 250) as u8 + 1],
        3583,
    ))
}

impl Net {
    /// A network of `count` nodes that do not know each other.
    pub(super) fn of(count: usize, config: &GossipConfig) -> Self {
        let mut net = Net {
            network: Network::new("test"),
            now: Instant::from_secs(100),
            rng: Rng::new([9; 32]),
            nodes: Vec::new(),
            air: Air::new(Duration::from_millis(80)),
            cut: false,
            alarms: BTreeSet::new(),
            addresses: BTreeMap::new(),
            count: 0,
        };
        for _ in 0..count {
            net.start(config.clone());
        }
        net
    }

    /// A network of `count` nodes that know their nearest nodes and some others, as from routing tables, and have gossiped.
    pub(super) fn settled(count: usize, config: &GossipConfig) -> Self {
        let mut net = Net::of(count, config);
        let contacts: Vec<Contact> = net.nodes.iter().map(|node| node.contact).collect();
        for index in 0..count {
            let own = contacts[index].id.key();
            let mut nearest = contacts.clone();
            nearest.sort_by_key(|contact| contact.id.distance(&own));
            let others: Vec<_> = (0..20).map(|_| contacts[net.rng.below(count as u64) as usize]).collect();
            for contact in nearest.iter().skip(1).take(24).chain(&others) {
                let now = net.now;
                net.nodes[index].gossip.note_alive(now, *contact);
            }
            net.collect(index);
        }
        net.run(Duration::from_secs(120));
        net.nodes.iter_mut().for_each(|node| node.events.clear());
        net
    }

    pub(super) fn start(&mut self, config: GossipConfig) -> usize {
        let index = self.nodes.len();
        let identity = identity(index);
        let contact = Contact::new(identity.public(), address(index));
        let mut gossip = Gossip::new(config, identity.public(), false, 1 << 32, self.rng.bytes(), self.now);
        let own = OwnState { addrs: [Some(contact.addr), None], ..OwnState::default() };
        gossip.set_own(self.now, own);
        let outbox = testing::outbox(&self.network, identity, false, 1 + index as u64);
        self.addresses.insert(contact.addr, index);
        self.nodes.push(Node {
            gossip,
            outbox,
            contact,
            up: true,
            paused: None,
            side: 0,
            events: Vec::new(),
            sent: 0,
            sent_bytes: 0,
            wakeups: 0,
            alarm: None,
        });
        index
    }

    pub(super) fn meet(&mut self, node: usize, other: usize) {
        let contact = self.nodes[other].contact;
        self.nodes[node].gossip.note_alive(self.now, contact);
        self.collect(node);
    }

    pub(super) fn collect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        while let Some(event) = node.gossip.poll_event() {
            node.events.push((self.now, event));
        }
        let (sent, bytes) = self.air.send(self.now, &mut self.rng, node.contact.addr, &mut node.outbox);
        node.sent += sent;
        node.sent_bytes += bytes;
        let due = node.gossip.next_deadline();
        if let Some(due) = due.filter(|due| node.alarm.is_none_or(|alarm| *due < alarm)) {
            node.alarm = Some(due);
            self.count += 1;
            self.alarms.insert((due.max(self.now), self.count, index));
        }
    }

    fn step(&mut self, until: Instant) -> bool {
        let alarm = self.alarms.first().map(|(at, ..)| *at);
        let arrival = self.air.next();
        let Some(at) = earliest(alarm, arrival).filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if arrival == Some(at) {
            let flight = self.air.pop().expect("it arrives now");
            self.arrive(flight);
        } else if let Some((_, _, index)) = self.alarms.pop_first() {
            self.wake(index);
        }
        true
    }

    fn arrive(&mut self, flight: Flight) {
        let Flight { to, from, bytes } = flight;
        let Some(&to) = self.addresses.get(&to) else { return };
        // A datagram of a node that has moved comes from where it was, and from the same side.
        let sender = self.addresses.get(&from).map(|&from| self.nodes[from].side);
        let apart = self.cut && sender.is_some_and(|side| side != self.nodes[to].side);
        if !apart && self.nodes[to].up {
            match &mut self.nodes[to].paused {
                Some(waiting) => waiting.push((from, bytes)),
                None => self.deliver(to, from, &bytes),
            }
        }
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.alarm = None;
        if !node.up || node.paused.is_some() {
            return;
        }
        if node.gossip.next_deadline().is_some_and(|due| due <= self.now) {
            node.wakeups += 1;
            node.gossip.handle_timeout(self.now, &mut node.outbox);
            let next = node.gossip.next_deadline();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that fired is armed again at once");
        }
        self.collect(index);
    }

    pub(super) fn deliver(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let (node, now) = (&mut self.nodes[to], self.now);
        let datagram = Unverified::parse(bytes, &self.network).unwrap();
        if datagram.kind().is_answer()
            && !node.gossip.is_expected(datagram.kind(), datagram.transaction(), from)
        {
            return;
        }
        if datagram.challenged().is_some() {
            let challenge = Challenge::new(from, &datagram);
            node.gossip.handle_challenge(now, &challenge, &mut node.outbox);
            return self.collect(to);
        }
        let Some(received) = testing::receive(&mut node.outbox, now, from, datagram) else {
            return self.collect(to);
        };
        let datagram = received.datagram;
        if let Message::Ping { .. } = datagram.message() {
            // The DHT answers pings, and tells the membership about the contact.
            let pong = Message::Pong { observed: from };
            node.outbox.answer(now, Asker::of(from, &datagram), &pong);
            node.gossip.note_contact(now, Contact::new(datagram.public(), from));
        }
        node.gossip.handle_datagram(now, from, &datagram, received.standing, &mut node.outbox);
        self.collect(to);
    }

    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    pub(super) fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Pauses a node for `span`, as SIGSTOP and SIGCONT do.
    pub(super) fn pause(&mut self, index: usize, span: Duration) {
        self.nodes[index].paused = Some(Vec::new());
        self.run(span);
        let waiting = self.nodes[index].paused.take().unwrap();
        for (from, bytes) in waiting {
            self.deliver(index, from, &bytes);
        }
        self.wake(index);
    }

    /// Gives a node another address, and announces that in its state.
    pub(super) fn move_node(&mut self, index: usize, addr: SocketAddr) {
        let now = self.now;
        let node = &mut self.nodes[index];
        self.addresses.remove(&node.contact.addr);
        self.addresses.insert(addr, index);
        node.contact.addr = addr;
        node.gossip.set_own(now, OwnState { addrs: [Some(addr), None], ..OwnState::default() });
    }

    pub(super) fn crash(&mut self, index: usize) {
        self.nodes[index].up = false;
    }

    /// The liveness of `other` in the view of `node`.
    pub(super) fn liveness(&self, node: usize, other: usize) -> Option<Liveness> {
        self.nodes[node].gossip.member(&self.nodes[other].contact.id).map(|member| member.liveness)
    }

    /// The running nodes nearest to `index`, nearest first.
    pub(super) fn nearest(&self, index: usize, count: usize) -> Vec<usize> {
        let own = self.nodes[index].contact.id.key();
        let mut others: Vec<usize> =
            (0..self.nodes.len()).filter(|&other| other != index && self.nodes[other].up).collect();
        others.sort_by_key(|&other| self.nodes[other].contact.id.distance(&own));
        others.truncate(count);
        others
    }

    /// Whether `node` knows the state of `other` with this number.
    pub(super) fn knows(&self, node: usize, other: usize, sequence: u64) -> bool {
        let (gossip, short) = (&self.nodes[node].gossip, self.nodes[other].contact.id.short());
        let in_view = gossip.members.find(short);
        gossip.rumours.is_seen(short, sequence)
            || in_view.is_some_and(|position| gossip.members.entry(position).state.sequence() >= sequence)
    }

    /// When `node` first raised an event for which `is` holds.
    pub(super) fn when(&self, node: usize, is: impl Fn(&GossipEvent) -> bool) -> Option<Instant> {
        self.nodes[node].events.iter().find(|(_, event)| is(event)).map(|(at, _)| *at)
    }

    /// The number of events of all nodes for which `is` holds.
    pub(super) fn events(&self, is: impl Fn(&GossipEvent) -> bool) -> usize {
        self.nodes.iter().flat_map(|node| &node.events).filter(|(_, event)| is(event)).count()
    }
}

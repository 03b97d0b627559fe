//! Whole networks of machines in memory: datagrams go through a queue, time is a number.

mod hostile;
mod joining;
mod lookups;
mod records;

use super::*;
use crate::identity::Identity;
use crate::peers::table::Received;
use crate::peers::testing::{self, Air, Flight};
use crate::wire::datagram::{Envelope, Epoch, Unverified, write};
use crate::wire::message::{Announcement, NotStored, PADDING_BYTES};
use crate::wire::network::Network;
use crate::wire::provider::ProviderRecord;
use crate::wire::record::{Record, record_key};

const DATAGRAM: usize = crate::wire::datagram::DATAGRAM_BYTES_MAX;

struct Node {
    dht: Dht,
    outbox: Outbox,
    contact: Contact,
    up: bool,
    events: Vec<DhtEvent>,
}

impl Node {
    fn peers(&self, now: Instant) -> Vec<PeerInfo> {
        self.dht.peers(now, self.outbox.peers())
    }
}

/// A network in which node `i` listens at 10.0.0.1 + `i`.
struct Net {
    network: Network,
    now: Instant,
    rng: Rng,
    nodes: Vec<Node>,
    air: Air,
    wakeups: u64,
}

fn identity(index: usize) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&index.to_le_bytes());
    Identity::from_secret(&secret)
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 3583))
}

impl Net {
    fn empty() -> Self {
        let (now, rng) = (Instant::from_secs(100), Rng::new([9; 32]));
        let network = Network::new("test");
        let air = Air::new(Duration::from_millis(40));
        Net { network, now, rng, nodes: Vec::new(), air, wakeups: 0 }
    }

    /// `count` nodes that have joined through the first.
    fn joined(count: usize) -> Self {
        let mut net = Net::empty();
        for index in 0..count {
            let bootstrap = if index == 0 { vec![] } else { vec![address(0)] };
            net.start(DhtConfig { bootstrap, ..DhtConfig::default() });
            net.run(Duration::from_millis(300));
        }
        net.run(Duration::from_secs(60));
        net
    }

    fn start(&mut self, config: DhtConfig) -> usize {
        let index = self.nodes.len();
        let identity = identity(index);
        let contact = Contact::new(identity.public(), address(index));
        let outbox = testing::outbox(&self.network, identity, config.leaf, self.now.as_nanos());
        let dht = Dht::new(config, contact.id, self.rng.bytes(), self.now);
        self.nodes.push(Node { dht, outbox, contact, up: true, events: Vec::new() });
        index
    }

    fn collect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.events.extend(core::iter::from_fn(|| node.dht.poll_event()));
        self.air.send(self.now, &mut self.rng, node.contact.addr, &mut node.outbox);
    }

    fn step(&mut self, until: Instant) -> bool {
        let timer = (0..self.nodes.len())
            .filter(|&index| self.nodes[index].up)
            .filter_map(|index| Some((self.nodes[index].dht.next_deadline()?, index)))
            .min();
        match (timer, self.air.next()) {
            (timer, Some(at)) if at <= until && timer.is_none_or(|(due, _)| at <= due) => {
                let Flight { to, from, bytes } = self.air.pop().unwrap();
                self.now = self.now.max(at);
                self.deliver(to, from, &bytes);
            }
            (Some((due, index)), _) if due <= until => {
                self.now = self.now.max(due);
                self.wakeups += 1;
                let node = &mut self.nodes[index];
                node.dht.handle_timeout(self.now, &mut node.outbox);
                self.collect(index);
            }
            _ => {
                self.now = until;
                return false;
            }
        }
        true
    }

    fn deliver(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let node = self.nodes.iter_mut().enumerate().find(|(_, node)| node.contact.addr == to && node.up);
        let Some((index, node)) = node else { return };
        let datagram = Unverified::parse(bytes, &self.network).unwrap();
        if datagram.challenged().is_some() {
            let challenge = Challenge::new(from, &datagram);
            node.dht.handle_challenge(self.now, &challenge, &mut node.outbox);
        } else if node.dht.is_expected(datagram.kind(), datagram.transaction(), from) {
            if let Some(received) = testing::receive(&mut node.outbox, self.now, from, datagram) {
                let Received { datagram, standing } = received;
                node.dht.handle_datagram(self.now, from, &datagram, standing, &mut node.outbox);
            }
        }
        self.collect(index);
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    /// Runs until `node` has an event that `pick` takes, for a minute at most.
    fn wait<T>(&mut self, node: usize, pick: impl Fn(&DhtEvent) -> Option<T>) -> T {
        let until = self.now + Duration::from_secs(60);
        loop {
            if let Some(index) = self.nodes[node].events.iter().position(|event| pick(event).is_some()) {
                let event = self.nodes[node].events.remove(index);
                return pick(&event).unwrap();
            }
            assert!(self.step(until), "the event did not come: {:?}", self.nodes[node].events);
        }
    }

    fn find(&mut self, node: usize, target: Key, want: Want) -> (Vec<Contact>, Option<Vec<u8>>, u32) {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        let id = dht.find(self.now, target, want, outbox).unwrap();
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Finished { lookup, closest, record, turnout, .. } if *lookup == id => {
                Some((closest.clone(), record.clone(), turnout.asked))
            }
            _ => None,
        })
    }

    fn provide(&mut self, node: usize, file: Key, partial: bool) -> u32 {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        dht.provide(self.now, file, partial, outbox);
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Announced { file: announced, copies } if *announced == file => Some(*copies),
            _ => None,
        })
    }

    fn publish(&mut self, node: usize, name: &str, value: &[u8], lifetime: u32) -> (u64, u32) {
        let Node { dht, outbox, .. } = &mut self.nodes[node];
        let id = dht.publish(self.now, name, value, lifetime, outbox).unwrap();
        self.collect(node);
        self.wait(node, |event| match event {
            DhtEvent::Published { publish, sequence, copies, .. } if *publish == id => {
                Some((*sequence, *copies))
            }
            _ => None,
        })
    }

    /// The providers of `file` that a lookup at `node` finds.
    fn providers(&mut self, node: usize, file: Key) -> Vec<(Contact, bool)> {
        self.nodes[node].events.clear();
        self.find(node, file, Want::Providers);
        let mut found: Vec<_> = (self.nodes[node].events.drain(..))
            .flat_map(|event| match event {
                DhtEvent::Providers { contacts, .. } => contacts,
                _ => Vec::new(),
            })
            .collect();
        found.sort_by_key(|(contact, _)| contact.id);
        found
    }

    /// The result of a perfect lookup at `node`.
    fn truth(&self, node: usize, target: &Key, n: usize) -> Vec<Contact> {
        let others = self.nodes.iter().enumerate().filter(|(index, other)| *index != node && other.up);
        closest(others.filter(|(_, o)| !o.dht.config.leaf).map(|(_, other)| &other.contact), target, n)
    }

    fn key(&mut self) -> Key {
        Key(self.rng.bytes())
    }

    /// The nodes that keep the record under `key`, nearest first.
    fn keepers(&self, key: &Key) -> Vec<usize> {
        let keeps = |node: &usize| self.nodes[*node].dht.values.get(self.now, key).is_some();
        let mut keepers: Vec<usize> = (0..self.nodes.len()).filter(keeps).collect();
        keepers.sort_by_key(|&node| self.nodes[node].contact.id.distance(key));
        keepers
    }
}

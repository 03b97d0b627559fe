//! Whole neighbourhoods of machines in memory: membership is an oracle with a delay, datagrams and copies take time.

mod bounds;
mod hostile;
mod neighbourhood;
mod reconciliation;
mod repairs;

use super::*;
use crate::identity::Identity;
use crate::peers::liveness::Liveness;
use crate::peers::outbox::Asker;
use crate::peers::testing::{self, Air, Flight};
use crate::time::Duration;
use crate::wire::datagram::{PAYLOAD_BYTES_MAX, Unverified};
use crate::wire::network::Network;
use crate::wire::reconcile::{Answer, AnswerWriter, Scope, Summary, WirePart, WireRange};

const MEGABYTE: u32 = 1 << 20;

pub(super) struct Node {
    pub(super) machine: Replication,
    outbox: Outbox,
    pub(super) contact: Contact,
    held: BTreeMap<Key, Held>,
    up_since: Option<Instant>,
    down_since: Instant,
    left: bool,
    /// The nodes that this node cannot see: the other side of a partition.
    unseen: BTreeSet<usize>,
    /// The liveness of each node that its membership last reported.
    told: Vec<Option<(Liveness, Instant)>>,
    turns: (Instant, u32),
}

/// A completed copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Copied {
    pub(super) key: Key,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) at: Instant,
}

struct Push {
    key: Key,
    from: usize,
    to: usize,
    outcome: CopyOutcome,
}

pub(super) struct World {
    network: Network,
    config: ReplicationConfig,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) air: Air,
    pushes: BTreeMap<(Instant, u64), Push>,
    arriving: BTreeSet<(usize, Key)>,
    tick: Instant,
    pub(super) tick_every: Duration,
    numbered: u64,
    /// A node that answers every comparison with parts that match no pieces.
    pub(super) liar: Option<usize>,
    /// A node that compares correctly, but puts off every question about single pieces.
    pub(super) evasive: Option<usize>,
    /// Nodes that accept copies and claim to have them, and keep none.
    pub(super) hollow: BTreeSet<usize>,
    /// Nodes that accept no copies, and the outcome that they cause.
    pub(super) unwilling: BTreeMap<usize, CopyOutcome>,
    pub(super) copied: Vec<Copied>,
    /// What surveys of the network find, on each node that suspects that it is partitioned.
    pub(super) most_answer: bool,
    pub(super) offers: u64,
    pub(super) dropped: Vec<(usize, Key)>,
    pub(super) places: u64,
    pub(super) under_way_max: usize,
}

fn identity(index: usize) -> Identity {
    let mut secret = [9; 32];
    secret[..8].copy_from_slice(&index.to_le_bytes());
    Identity::from_secret(&secret)
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 3583))
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    pub(super) fn new(count: usize, config: ReplicationConfig) -> Self {
        let now = Instant::from_secs(1000);
        let mut world = World {
            network: Network::new("test"),
            config,
            now,
            rng: Rng::new([4; 32]),
            nodes: Vec::new(),
            air: Air::new(Duration::from_millis(40)),
            pushes: BTreeMap::new(),
            arriving: BTreeSet::new(),
            tick: now,
            tick_every: seconds(1),
            numbered: 0,
            liar: None,
            evasive: None,
            hollow: BTreeSet::new(),
            unwilling: BTreeMap::new(),
            copied: Vec::new(),
            most_answer: false,
            offers: 0,
            dropped: Vec::new(),
            places: 0,
            under_way_max: 0,
        };
        (0..count).for_each(|_| _ = world.join());
        world
    }

    /// `count` settled nodes that hold `pieces` pieces of 1 MiB, three copies of each.
    pub(super) fn settled(count: usize, pieces: usize) -> (Self, Vec<Key>) {
        let mut world = World::new(count, ReplicationConfig::default());
        let keys = world.scatter(pieces, 3);
        world.run(seconds(400));
        assert_eq!(world.copied.len(), 0, "everything is where it belongs");
        assert_eq!(world.offers, 0, "everything is where it belongs");
        (world, keys)
    }

    pub(super) fn join(&mut self) -> usize {
        let index = self.nodes.len();
        let identity = identity(index);
        let contact = Contact::new(identity.public(), address(index));
        let outbox = testing::outbox(&self.network, identity, false, 1 + index as u64);
        let machine = Replication::new(self.config.clone(), contact.id, self.rng.bytes(), self.now);
        self.nodes.push(Node {
            machine,
            outbox,
            contact,
            held: BTreeMap::new(),
            up_since: Some(self.now),
            down_since: self.now,
            left: false,
            unseen: BTreeSet::new(),
            told: Vec::new(),
            turns: (self.now, 0),
        });
        index
    }

    /// Adds `count` new pieces at the nodes closest to them.
    pub(super) fn scatter(&mut self, count: usize, replicas: u8) -> Vec<Key> {
        let keys: Vec<Key> = (0..count).map(|_| Key(self.rng.bytes())).collect();
        for key in &keys {
            for index in self.closest(key, usize::from(replicas)) {
                self.give(index, Held { key: *key, replicas, length: MEGABYTE, keep: false });
            }
        }
        keys
    }

    pub(super) fn give(&mut self, index: usize, held: Held) {
        self.nodes[index].held.insert(held.key, held);
        self.nodes[index].machine.piece_added(self.now, held);
    }

    /// The running nodes closest to a key, nearest first.
    pub(super) fn closest(&self, key: &Key, count: usize) -> Vec<usize> {
        let mut up: Vec<usize> = (0..self.nodes.len()).filter(|index| self.is_up(*index)).collect();
        up.sort_by_key(|index| self.nodes[*index].contact.id.distance(key));
        up.truncate(count);
        up
    }

    pub(super) fn is_up(&self, index: usize) -> bool {
        self.nodes[index].up_since.is_some()
    }

    /// The running nodes that hold a piece.
    pub(super) fn holders(&self, key: &Key) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|index| self.is_up(*index) && self.nodes[*index].held.contains_key(key))
            .collect()
    }

    pub(super) fn holds(&self, index: usize) -> usize {
        self.nodes[index].held.len()
    }

    pub(super) fn crash(&mut self, index: usize) {
        self.nodes[index].up_since = None;
        self.nodes[index].down_since = self.now;
    }

    pub(super) fn leave(&mut self, index: usize) {
        self.crash(index);
        self.nodes[index].left = true;
    }

    /// Restarts a node: it keeps its disk, and loses its memory.
    pub(super) fn restart(&mut self, index: usize) {
        let seed = self.rng.bytes();
        let node = &mut self.nodes[index];
        node.machine = Replication::new(self.config.clone(), node.contact.id, seed, self.now);
        node.up_since = Some(self.now);
        node.told.clear();
        for held in node.held.values() {
            node.machine.piece_added(self.now, *held);
        }
    }

    /// Cuts the link of `index` to the nodes in `others`, in both directions.
    pub(super) fn cut(&mut self, index: usize, others: &[usize]) {
        for other in others {
            self.nodes[index].unseen.insert(*other);
            self.nodes[*other].unseen.insert(index);
            for end in [index, *other] {
                self.nodes[end].down_since = self.now;
            }
        }
    }

    pub(super) fn mend(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.unseen.clear());
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.is_up(to) && !self.nodes[from].unseen.contains(&to)
    }

    /// The liveness of node `index` in the view of `observer`, and since when it has had that: the truth, with a delay of some
    /// seconds.
    fn liveness(&self, observer: usize, index: usize) -> Option<(Liveness, Instant)> {
        let node = &self.nodes[index];
        if node.left {
            return None;
        }
        match node.up_since {
            Some(since) if self.reaches(observer, index) => Some((Liveness::Live, since + seconds(1))),
            _ => {
                let late = seconds(((observer * 7 + index * 3) % 12) as u64);
                let down = node.down_since + late;
                match self.now.since(down).as_secs() {
                    0..15 => Some((Liveness::Live, Instant::from_secs(1001))),
                    15..45 => Some((Liveness::Suspect, down + seconds(15))),
                    45..900 => Some((Liveness::Unresponsive, down + seconds(45))),
                    _ => None,
                }
            }
        }
    }

    fn tell_membership(&mut self) {
        const NEIGHBOURS: usize = 40;
        for observer in 0..self.nodes.len() {
            if !self.is_up(observer) {
                continue;
            }
            let seen: Vec<Option<(Liveness, Instant)>> = (0..self.nodes.len())
                .map(|index| self.liveness(observer, index).filter(|_| index != observer))
                .collect();
            if seen == self.nodes[observer].told {
                continue;
            }
            let member = |(index, seen): (usize, &Option<(Liveness, Instant)>)| {
                let (liveness, since) = (*seen)?;
                Some(Neighbour { contact: self.nodes[index].contact, liveness, since })
            };
            let mut members: Vec<Neighbour> = seen.iter().enumerate().filter_map(member).collect();
            self.nodes[observer].told = seen;
            let own = self.nodes[observer].contact.id.key();
            members.sort_by_key(|member| member.contact.id.distance(&own));
            let complete = members.len() < NEIGHBOURS;
            members.truncate(NEIGHBOURS);
            let machine = &mut self.nodes[observer].machine;
            machine.set_neighbourhood(self.now, &members, complete);
            if machine.is_suspicious() {
                machine.surveyed(self.now, self.most_answer);
            }
        }
    }

    fn collect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        self.air.send(self.now, &mut self.rng, node.contact.addr, &mut node.outbox);
        while let Some(action) = self.nodes[index].machine.poll_action() {
            match action {
                Action::Copy { key, target } => self.begin_push(index, key, &target),
                Action::Prove { key, target } => {
                    let to = self.nodes.iter().position(|node| node.contact.id == target.id).expect("a node");
                    let has = self.nodes[to].held.contains_key(&key) && !self.hollow.contains(&to);
                    let proven = has && self.reaches(index, to);
                    self.nodes[index].machine.proven(self.now, &key, &target.id, proven);
                }
                Action::Place { key, copies } => self.place(index, &key, copies),
                Action::Drop { key } => self.drop_piece(index, &key),
            }
        }
        let under_way = self.nodes[index].machine.copying();
        self.under_way_max = self.under_way_max.max(under_way);
    }

    fn begin_push(&mut self, from: usize, key: Key, target: &Contact) {
        let to = self.nodes.iter().position(|node| node.contact.id == target.id).expect("a node");
        self.offers += 1;
        let twice = self.pushes.values().any(|push| (push.from, push.to, push.key) == (from, to, key));
        assert!(!twice, "a piece goes to a node once at a time");
        let (outcome, takes) = if !self.reaches(from, to) {
            (CopyOutcome::Failed, seconds(5))
        } else if self.nodes[to].held.contains_key(&key) {
            (CopyOutcome::Had, Duration::from_millis(100))
        } else if let Some(outcome) = self.unwilling.get(&to) {
            (*outcome, Duration::from_millis(100))
        } else if self.arriving.insert((to, key)) {
            (CopyOutcome::Stored, seconds(2))
        } else {
            (CopyOutcome::Busy, Duration::from_millis(100))
        };
        self.numbered += 1;
        self.pushes.insert((self.now + takes, self.numbered), Push { key, from, to, outcome });
    }

    fn end_push(&mut self, push: Push) {
        let Push { key, from, to, mut outcome } = push;
        if outcome == CopyOutcome::Stored {
            self.arriving.remove(&(to, key));
            match self.nodes[from]
                .held
                .get(&key)
                .copied()
                .filter(|_| self.reaches(from, to) && self.is_up(from))
            {
                Some(held) => {
                    self.copied.push(Copied { key, from, to, at: self.now });
                    self.give(to, Held { keep: false, ..held });
                }
                None => outcome = CopyOutcome::Failed,
            }
        }
        let target = self.nodes[to].contact.id;
        self.nodes[from].machine.copy_done(self.now, &key, &target, outcome);
    }

    fn place(&mut self, index: usize, key: &Key, copies: u8) {
        self.places += 1;
        let held = self.nodes[index].held[key];
        let replicas = usize::from(held.replicas.min(copies));
        let closest: Vec<usize> = self
            .closest(key, replicas + 1)
            .into_iter()
            .filter(|other| *other != index)
            .take(replicas)
            .collect();
        let placed = |other: &usize| {
            let node = &self.nodes[*other];
            Placed { id: node.contact.id, had: node.held.contains_key(key) }
        };
        let placed: Vec<Placed> = closest.iter().map(placed).collect();
        for other in &closest {
            if !self.nodes[*other].held.contains_key(key) {
                self.give(*other, Held { keep: false, ..held });
            }
        }
        self.nodes[index].machine.placed(self.now, key, &placed);
    }

    fn drop_piece(&mut self, index: usize, key: &Key) {
        let held = self.nodes[index].held.remove(key).expect("it was here");
        assert!(!held.keep, "what is shared in place is never dropped");
        let elsewhere = self.holders(key).len();
        assert!(elsewhere >= usize::from(held.replicas), "dropped with {elsewhere} copies elsewhere");
        self.dropped.push((index, *key));
    }

    fn step(&mut self, until: Instant) -> bool {
        let timer = (0..self.nodes.len())
            .filter(|index| self.is_up(*index))
            .filter_map(|index| Some((self.nodes[index].machine.next_deadline()?.max(self.now), index)))
            .min();
        let flight = self.air.next();
        let push = self.pushes.keys().next().map(|(at, _)| *at);
        let due = [Some(self.tick), timer.map(|(at, _)| at), flight, push].into_iter().fold(None, earliest);
        let Some(at) = due.filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if self.tick <= at {
            self.tick = at + self.tick_every;
            self.tell_membership();
        } else if push.is_some_and(|due| due <= at) {
            let (_, push) = self.pushes.pop_first().expect("it is due");
            self.end_push(push);
        } else if flight.is_some_and(|due| due <= at) {
            let Flight { to, from, bytes } = self.air.pop().expect("it is due");
            if let Some(to) = self.nodes.iter().position(|node| node.contact.addr == to) {
                self.deliver(to, from, &bytes);
            }
        } else if let Some((_, index)) = timer {
            self.turn(index);
        }
        true
    }

    fn turn(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        node.turns = if node.turns.0 == now { (now, node.turns.1 + 1) } else { (now, 1) };
        assert!(node.turns.1 < 1000, "it spins: {:?}", node.machine.statistics());
        node.machine.handle_timeout(now, &mut node.outbox);
        self.collect(index);
    }

    fn deliver(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let sender = self.nodes.iter().position(|node| node.contact.addr == from).expect("a node");
        if !self.reaches(to, sender) || !self.is_up(to) {
            return;
        }
        let node = &mut self.nodes[to];
        let datagram = Unverified::parse(bytes, &self.network).expect("it was written by a node");
        if !node.machine.is_expected(datagram.kind(), datagram.transaction(), from) {
            return;
        }
        if datagram.challenged().is_some() {
            let challenge = Challenge::new(from, &datagram);
            node.machine.handle_challenge(self.now, &challenge, &mut node.outbox);
            return self.collect(to);
        }
        let Some(received) = testing::receive(&mut node.outbox, self.now, from, datagram) else {
            return self.collect(to);
        };
        let datagram = received.datagram;
        let asker = Asker::of(from, &datagram);
        match datagram.message() {
            Message::Reconcile { ranges, .. } if self.liar == Some(to) => {
                lie(&mut node.outbox, self.now, asker, ranges);
            }
            Message::Reconcile { ranges, .. }
                if self.evasive == Some(to) && ranges[0].scope() == Scope::Kept =>
            {
                let mut out = [0; PAYLOAD_BYTES_MAX];
                let mut writer = AnswerWriter::new(&mut out);
                writer.put(&Answer::Later);
                let answers = writer.finish().expect("it is well formed");
                let message = Message::Reconciled { answers };
                node.outbox.answer(self.now, asker, &message);
            }
            _ => node.machine.handle_datagram(self.now, from, &datagram, true, &mut node.outbox),
        }
        self.collect(to);
    }

    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    /// The sum of a counter over all nodes.
    pub(super) fn counted(&self, count: impl Fn(&ReplicationCounters) -> u64) -> u64 {
        self.nodes.iter().map(|node| count(&node.machine.counters)).sum()
    }

    /// Whether each piece is on all nodes closest to it.
    pub(super) fn is_whole(&self, keys: &[Key], replicas: usize) -> bool {
        keys.iter().all(|key| {
            let holders = self.holders(key);
            self.closest(key, replicas).iter().all(|index| holders.contains(index))
        })
    }
}

/// Answers with the narrowest possible parts, none of which matches any pieces.
fn lie(outbox: &mut Outbox, now: Instant, asker: Asker, ranges: &[WireRange]) {
    let wrong = |number| Summary { count: 1000, fingerprint: u128::from(number) };
    let mut out = [0; PAYLOAD_BYTES_MAX];
    let mut writer = AnswerWriter::new(&mut out);
    for range in ranges {
        let (first, last) = (range.first(), range.last());
        let step = ((last - first) / 16).max(1);
        let mut parts: Vec<WirePart> = (1..16u64)
            .map(|index| first.saturating_add(step * index))
            .filter(|end| *end < last)
            .map(|end| WirePart::new(end, wrong(end)))
            .collect();
        parts.push(WirePart::new(last, wrong(last)));
        let told = if parts.len() < 2 { Answer::Keys(&[]) } else { Answer::Split(&parts) };
        if !writer.put(&told) {
            break;
        }
    }
    let answers = writer.finish().expect("it is well formed");
    outbox.answer(now, asker, &Message::Reconciled { answers });
}

//! The world: hosts, links, and the event loop.

use super::adversary::Adversary;
use super::chance::Chance;
use super::disk::{Change, Crash, Disk, DiskPlan};
use super::event::{Event, WorldEvent};
use super::fabric::Fabric;
use super::host::{BACKLOG, Host, Life, identity_of};
use super::link::{Addressing, LinkPlan, Links, PORT};
use super::packets::Packets;
use super::peek::Peeked;
use super::queue::Queue;
use super::streams::Streams;
use super::trace::Trace;
use super::watch::Watch;
use crate::gossip::GossipConfig;
use crate::id::{IdWork, NodeId};
use crate::io::Recovered;
use crate::limits::Limits;
use crate::node::command::{Command, CommandId, Reply, Response, Status};
use crate::node::{Node, NodeConfig};
use crate::replication::ReplicationConfig;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::VecDeque;

/// The configuration of a world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all random choices.
    pub seed: u64,
    /// Whether nodes use real signatures, at fifty times the cost.
    pub real_signatures: bool,
    /// The work that the network asks of identities. The hosts have such identities.
    pub id_work: IdWork,
    /// The properties of links.
    pub links: LinkPlan,
    /// The properties of disks.
    pub disks: DiskPlan,
    /// The limits of each node.
    pub limits: Limits,
}

impl Plan {
    /// The default plan, with this seed.
    pub fn new(seed: u64) -> Plan {
        Plan {
            seed,
            real_signatures: false,
            id_work: IdWork::NONE,
            links: LinkPlan::default(),
            disks: DiskPlan::default(),
            limits: small_limits(),
        }
    }
}

/// Limits that let thousands of nodes share one machine's memory. They suffice for the scenarios.
pub fn small_limits() -> Limits {
    Limits {
        datagrams_queued_max: 48,
        transactions_max: 128,
        streams_max: 32,
        streams_unauthenticated_max: 8,
        sources_per_download_max: 16,
        records_max: 256,
        providers_max: 1024,
        pieces_max: 8192,
        shares_max: 64,
        ..Limits::default()
    }
}

/// The world. See the [module](super).
pub struct World {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    queue: Queue<Event>,
    packets: Packets,
    /// The hosts, by their numbers.
    pub hosts: Vec<Host>,
    /// The network between them.
    pub links: Links,
    streams: Streams,
    /// The random generator of the world.
    pub chance: Chance,
    pub(super) trace: Trace,
    /// The checks that are made with every event.
    pub watch: Watch,
    pub(super) world_events: VecDeque<WorldEvent>,
    pub(super) changes: Vec<(usize, Change)>,
    commands: u64,
    datagrams: u64,
    events: u64,
    /// The most datagrams to record, 0 for none, and the latest datagrams that passed to nodes.
    recording: (usize, VecDeque<Recorded>),
}

/// A delivered datagram: the receiving host, the source address, and the bytes.
pub type Recorded = (usize, SocketAddr, Vec<u8>);

impl World {
    /// An empty world.
    pub fn new(plan: Plan) -> World {
        World {
            now: Instant::ZERO,
            queue: Queue::new(),
            packets: Packets::default(),
            hosts: Vec::new(),
            links: Links::new(plan.links.clone()),
            streams: Streams::default(),
            chance: Chance::new(plan.seed, 1),
            trace: Trace::default(),
            watch: Watch::default(),
            world_events: VecDeque::new(),
            changes: Vec::new(),
            commands: 0,
            datagrams: 0,
            events: 0,
            recording: (0, VecDeque::new()),
            plan,
        }
    }

    // Queries.

    /// The current virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The hash over all events so far.
    pub fn trace(&self) -> u64 {
        self.trace.value()
    }

    /// The number of delivered datagrams, and of all events.
    pub fn counts(&self) -> (u64, u64) {
        (self.datagrams, self.events)
    }

    /// The contact of a host: its public key and its address.
    pub fn contact(&self, host: usize) -> Contact {
        Contact::new(self.hosts[host].public, self.links.port(host).addr)
    }

    /// The node id of a host.
    pub fn id(&self, host: usize) -> NodeId {
        self.hosts[host].id
    }

    /// The hosts whose nodes run.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up())
    }

    /// The running hosts without an adversary.
    pub fn honest(&self) -> Vec<usize> {
        self.up().filter(|host| self.hosts[*host].is_honest()).collect()
    }

    // Adding and starting hosts.

    /// Attaches a machine whose node does not run yet. A leaf is behind a NAT.
    pub fn add_host(&mut self, leaf: bool) -> usize {
        let secret = self.secret();
        self.add_host_as(secret, leaf)
    }

    /// A secret of an identity that shows the work that the network asks for.
    fn secret(&mut self) -> [u8; 32] {
        loop {
            let secret = self.chance.bytes();
            if self.plan.id_work.is_shown_by(&identity_of(&secret, self.plan.real_signatures).public()) {
                return secret;
            }
        }
    }

    /// Attaches a machine with this secret. If its identity shows too little work, the machine asks others for none.
    pub fn add_host_as(&mut self, secret: [u8; 32], leaf: bool) -> usize {
        let unspecified: IpAddr = match self.plan.links.addressing {
            Addressing::OneLink => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        let real = self.plan.real_signatures;
        let shows_work = self.plan.id_work.is_shown_by(&identity_of(&secret, real).public());
        let config = NodeConfig {
            limits: self.plan.limits.clone(),
            leaf,
            network: "simulation".to_owned(),
            network_secret: None,
            id_work: if shows_work { self.plan.id_work } else { IdWork::NONE },
            listen: SocketAddr::new(unspecified, PORT),
            bootstrap: Vec::new(),
            bootstrap_names: Vec::new(),
            lan: false,
            replicas: NodeConfig::REPLICAS,
            lifetime: NodeConfig::LIFETIME,
            cache_dir: "/cache".into(),
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        };
        self.links.attach(leaf, &mut self.chance);
        self.hosts.push(Host::new(config, secret, real, Disk::new(self.plan.disks.clone())));
        self.hosts.len() - 1
    }

    /// Starts a host's node, with the state that its disk recovers and with these addresses to join through. An empty
    /// `bootstrap` keeps the addresses of the last start.
    pub fn start(&mut self, host: usize, bootstrap: &[SocketAddr]) {
        let seed = self.chance.bytes();
        let it = &mut self.hosts[host];
        assert!(it.life == Life::Down, "a node runs once at a time");
        if !bootstrap.is_empty() {
            it.config.bootstrap = bootstrap.to_vec();
        }
        let recovered: Recovered = it.disk.recover();
        let now = it.clock(self.now);
        let node = Node::new(it.config.clone(), it.identity(), &recovered, seed, now);
        it.node = Some(node.expect("the limits of simulated nodes are valid"));
        (it.life, it.since, it.active_since, it.armed) = (Life::Up, self.now, self.now, None);
        it.run += 1;
        self.note(host, b'+', 0, 0);
        self.settle(host);
    }

    /// Puts an adversary between a host's node and the network.
    pub fn set_adversary(&mut self, host: usize, adversary: Box<dyn Adversary>) {
        self.hosts[host].adversary = Some(adversary);
    }

    /// Gives a host to an adversary, without a node. The adversary receives every datagram to the host.
    pub fn start_puppet(&mut self, host: usize, adversary: Box<dyn Adversary>) {
        let it = &mut self.hosts[host];
        (it.life, it.since) = (Life::Up, self.now);
        it.adversary = Some(adversary);
    }

    /// Sends a datagram from a host.
    pub fn send_from(&mut self, host: usize, to: SocketAddr, bytes: &[u8]) {
        self.parts().1.transmit(host, to, bytes);
    }

    /// Removes a host's adversary.
    pub fn clear_adversary(&mut self, host: usize) {
        self.hosts[host].adversary = None;
    }

    // Stopping and interrupting hosts.

    /// Ends a node without a goodbye.
    pub fn crash(&mut self, host: usize, crash: Crash) {
        self.note(host, b'x', 0, 0);
        let it = &mut self.hosts[host];
        it.disk.crash(crash, &mut self.chance);
        self.end(host, crash == Crash::Kill);
    }

    /// Shuts a node down: it says goodbye as for a temporary absence, and its disk completes all writes.
    pub fn shut_down(&mut self, host: usize) {
        self.note(host, b'-', 0, 0);
        let it = &mut self.hosts[host];
        let now = it.clock(self.now);
        let Some(node) = &mut it.node else { return };
        node.shut_down(now);
        let ages = node.ages(now);
        self.settle(host);
        self.hosts[host].disk.shut_down(ages, &mut self.chance);
        self.end(host, true);
    }

    /// Destroys the disk of a host whose node does not run.
    pub fn wipe(&mut self, host: usize) {
        assert!(self.hosts[host].life == Life::Down, "nobody takes the disk of a running machine");
        self.hosts[host].disk.wipe();
        self.collect_changes(host);
    }

    fn end(&mut self, host: usize, resets: bool) {
        self.collect_changes(host);
        let it = &mut self.hosts[host];
        (it.node, it.life, it.armed, it.down_since) = (None, Life::Down, None, self.now);
        it.backlog.clear();
        it.commands.clear();
        self.watch.forget(host);
        let (streams, mut fabric) = self.parts();
        streams.abandon_host(host, resets, &mut fabric);
    }

    /// Pauses the process of a host. The host's clock runs on.
    pub fn pause(&mut self, host: usize) {
        self.interrupt(host, Life::Paused);
    }

    /// Suspends a host's machine. The host's clock stops.
    pub fn suspend(&mut self, host: usize) {
        self.interrupt(host, Life::Suspended);
    }

    fn interrupt(&mut self, host: usize, life: Life) {
        let it = &mut self.hosts[host];
        if it.life == Life::Up {
            (it.life, it.slept_at) = (life, self.now);
            if life == Life::Suspended {
                it.down_since = self.now;
            }
            self.note(host, b'p', 0, 0);
        }
    }

    /// Resumes a paused or suspended host.
    pub fn resume(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.life == Life::Suspended {
            it.lag += self.now.since(it.slept_at);
            it.since = self.now;
        }
        if matches!(it.life, Life::Paused | Life::Suspended) {
            (it.life, it.active_since, it.armed) = (Life::Up, self.now, None);
            self.note(host, b'r', 0, 0);
            for (from, bytes) in core::mem::take(&mut self.hosts[host].backlog) {
                self.receive(host, from, &bytes);
            }
            for (id, command) in core::mem::take(&mut self.hosts[host].commands) {
                self.carry_out(host, id, command);
            }
            self.rearm(host);
            let (streams, mut fabric) = self.parts();
            streams.resume_host(host, &mut fabric);
        }
    }

    // Commands to nodes.

    /// Tells each running node how many signatures its processor checks per second.
    pub fn calibrate(&mut self, checks_per_second: u32) {
        let nodes = self.hosts.iter_mut().filter_map(|host| host.node.as_mut());
        nodes.for_each(|node| node.calibrate(checks_per_second));
    }

    /// Gives a command to a node. [`next`](World::next) returns the answer. The command of a paused or suspended host waits until
    /// the host resumes, as that of a client that has connected does. Where no node runs, the command gets no answer.
    pub fn command(&mut self, host: usize, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        match self.hosts[host].life {
            Life::Up => self.carry_out(host, id, command),
            Life::Paused | Life::Suspended => self.hosts[host].commands.push((id, command)),
            Life::Down => {}
        }
        id
    }

    fn carry_out(&mut self, host: usize, id: CommandId, command: Command) {
        let it = &mut self.hosts[host];
        let now = it.clock(self.now);
        if let Some(node) = &mut it.node {
            node.handle_command(now, id, command);
            self.settle(host);
        }
    }

    /// Cancels a command: its client stops waiting for the answer.
    pub fn cancel(&mut self, host: usize, id: CommandId) {
        let it = &mut self.hosts[host];
        let now = it.clock(self.now);
        if let Some(node) = it.node.as_mut().filter(|_| it.life == Life::Up) {
            node.handle_cancel(now, id);
            self.settle(host);
        }
    }

    /// Asks a running node for its status.
    pub fn status(&mut self, host: usize) -> Option<Status> {
        if !self.hosts[host].is_up() {
            return None;
        }
        let id = self.command(host, Command::Status);
        let mine =
            |event: &WorldEvent| matches!(event, WorldEvent::Answer(_, answered, _) if *answered == id);
        let index = self.world_events.iter().position(mine)?;
        match self.world_events.remove(index)? {
            WorldEvent::Answer(_, _, Response::Done(Reply::Status(status))) => Some(*status),
            _ => None,
        }
    }

    /// Starts to record. The latest `count` datagrams delivered from now on are kept.
    pub fn record(&mut self, count: usize) {
        self.recording = (count, VecDeque::with_capacity(count));
    }

    /// Stops recording and returns the recorded datagrams.
    pub fn recorded(&mut self) -> Vec<Recorded> {
        core::mem::take(&mut self.recording).1.into()
    }

    /// Delivers a datagram to a host now, with `from` as its source address.
    pub fn inject(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        self.deliver(host, from, bytes);
    }

    /// Sets an alarm. At `at`, [`next`](World::next) returns [`WorldEvent::Alarm`] with this name.
    pub fn alarm(&mut self, at: Instant, name: u64) {
        self.queue.push(at.max(self.now), Event::Alarm(name));
    }

    // Time.

    /// Runs the world up to its next world event and returns the event. `None` when there is none up to `until`.
    pub fn next(&mut self, until: Instant) -> Option<WorldEvent> {
        loop {
            if let Some(event) = self.world_events.pop_front() {
                return Some(event);
            }
            match self.queue.pop(until) {
                Some((at, event)) => {
                    self.now = at;
                    self.events += 1;
                    self.happen(event);
                }
                None => {
                    self.now = self.now.max(until);
                    return None;
                }
            }
        }
    }

    /// Runs the world for a duration and discards all world events.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.next(until).is_some() {}
    }

    /// The pieces stored on and deleted from all disks since the last call.
    pub fn take_changes(&mut self) -> Vec<(usize, Change)> {
        core::mem::take(&mut self.changes)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram(slot) => {
                // Copy the packet out of its slot first: the node's answer may reuse that slot.
                let packet = self.packets.take(slot);
                self.deliver(packet.to as usize, packet.from, packet.bytes());
            }
            Event::Here(slot) => {
                let packet = self.packets.take(slot);
                self.deliver_here(packet.to as usize, packet.from, packet.bytes());
            }
            Event::Wake(host) => self.wake(host as usize),
            Event::Disk { host, run } => self.disk_done(host as usize, run),
            Event::Stream(event) => {
                let (streams, mut fabric) = self.parts();
                streams.handle(event, &mut fabric);
            }
            Event::Alarm(name) => self.world_events.push_back(WorldEvent::Alarm(name)),
        }
    }

    fn wake(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        // A timer that was rearmed meanwhile has another entry in the queue.
        if it.armed != Some(self.now) || it.life != Life::Up {
            return;
        }
        it.armed = None;
        let now = it.clock(self.now);
        let Some(node) = &mut it.node else { return };
        if node.next_deadline().is_some_and(|at| at <= now) {
            node.handle_timeout(now);
            self.note(host, b't', 0, 0);
            self.settle(host);
            self.watch.spin(
                self.now,
                host,
                self.hosts[host].node.as_ref().and_then(Node::next_deadline),
                now,
            );
        } else {
            self.rearm(host);
        }
    }

    fn deliver(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        let it = &mut self.hosts[host];
        match it.life {
            Life::Up => {}
            Life::Paused if it.backlog.len() < BACKLOG => return it.backlog.push((from, bytes.to_vec())),
            _ => return,
        }
        self.receive(host, from, bytes);
    }

    /// A host hears what another told their LAN. It counts for the bound on amplification as any other datagram.
    fn deliver_here(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        if self.hosts[host].life != Life::Up {
            return;
        }
        self.datagrams += 1;
        self.note(host, b'h', bytes.len(), Peeked::checksum(bytes));
        self.watch.received(host, from, bytes);
        let it = &mut self.hosts[host];
        it.traffic.datagrams_in += 1;
        let now = it.clock(self.now);
        if let Some(node) = &mut it.node {
            node.handle_here(now, from, bytes);
            self.settle(host);
        }
    }

    fn receive(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        self.datagrams += 1;
        self.note(host, b'd', bytes.len(), Peeked::checksum(bytes));
        let it = &mut self.hosts[host];
        it.traffic.datagrams_in += 1;
        if let Some(mut adversary) = it.adversary.take() {
            let mut out = Vec::new();
            let passes = adversary.incoming(self.now, from, bytes, &mut out);
            self.hosts[host].adversary = Some(adversary);
            for (to, bytes) in out {
                self.parts().1.transmit(host, to, &bytes);
            }
            if !passes {
                return;
            }
        }
        self.watch.received(host, from, bytes);
        if self.recording.0 > 0 {
            if self.recording.1.len() == self.recording.0 {
                self.recording.1.pop_front();
            }
            self.recording.1.push_back((host, from, bytes.to_vec()));
        }
        let it = &mut self.hosts[host];
        let now = it.clock(self.now);
        if let Some(node) = &mut it.node {
            node.handle_datagram(now, from, bytes);
            self.settle(host);
        }
    }

    fn disk_done(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run || it.node.is_none() {
            return;
        }
        if it.life != Life::Up {
            // The operation is complete, but the process is not running. Try again until it resumes.
            self.queue.push(self.now + Duration::from_secs(1), Event::Disk { host: host as u32, run });
            return;
        }
        let Some(done) = it.disk.complete(&mut self.chance) else { return };
        if it.adversary.as_ref().is_some_and(|adversary| !adversary.keeps_pieces()) {
            it.disk.forget_pieces();
        }
        let now = it.clock(self.now);
        if let Some(node) = &mut it.node {
            node.handle_disk(now, done);
        }
        self.note(host, b'o', 0, 0);
        self.collect_changes(host);
        self.settle(host);
    }

    fn collect_changes(&mut self, host: usize) {
        let changes = self.hosts[host].disk.take_changes();
        self.changes.extend(changes.into_iter().map(|change| (host, change)));
    }

    // Borrows of the parts that one event touches.

    /// The streams, and the rest of the world as the fabric that they need.
    fn parts(&mut self) -> (&mut Streams, Fabric<'_>) {
        let fabric = Fabric {
            now: self.now,
            hosts: &mut self.hosts,
            links: &mut self.links,
            chance: &mut self.chance,
            queue: &mut self.queue,
            packets: &mut self.packets,
            trace: &mut self.trace,
            watch: &mut self.watch,
            world_events: &mut self.world_events,
        };
        (&mut self.streams, fabric)
    }

    /// Carries out a node's outputs until it has none left.
    fn settle(&mut self, host: usize) {
        let (streams, mut fabric) = self.parts();
        streams.settle(host, &mut fabric);
    }

    fn rearm(&mut self, host: usize) {
        self.parts().1.rearm(host);
    }

    fn note(&mut self, host: usize, kind: u8, length: usize, detail: u64) {
        self.trace.note(self.now, host, kind, length, detail);
    }
}

//! The node: the composition of the machines.
//!
//! A [`Node`] takes inputs (a datagram, a stream's bytes, a disk operation that ended, a command, the passing of time) and
//! gives outputs. It reads no clock, no socket, no file and no entropy, so the same node runs on the mio loop and
//! in a simulated world.
//!
//! The driver's part of the contract:
//! 1. Call one `handle_*` with an input and the present [`Instant`].
//! 2. Call [`Node::poll_datagram`] (or [`Node::queued_datagrams`]), [`Node::poll_stream`] and [`Node::poll_output`] until all are
//!    empty, and carry out the outputs of each in order. Those of [`Node::poll_stream`] come before those of [`Node::poll_output`]:
//!    an extent that was queued on a stream is opened before its file is deleted ([`DiskOp::vacates`](crate::io::DiskOp::vacates)).
//! 3. Call [`Node::handle_timeout`] when [`Node::next_deadline`] has come. Ask for the deadline again after each call, because it
//!    follows from the state.
//!
//! The machines do not know each other: the [`Dht`] finds nodes, [`Transfer`] moves pieces, [`Store`] knows what is on disk. This module
//! joins them:
//!
//! | file | what it does |
//! |---|---|
//! | `config` | the configuration |
//! | `presence` | the node's own place: its addresses, whether others are there and can connect to it, another process with its key |
//! | [`command`] | the commands and their answers, as data |
//! | `output` | what the driver is to do |
//! | `machines` | the machines, and all that an operation may use |
//! | `dispatch` | from a command, or from an event of a machine, to the one component that it is for |
//! | `bridge` | what membership tells the other machines, and they tell it |
//! | `shelf` | what transfer is told about the pieces of this node, and about those that peers offer it |
//! | `source_probes` | pings to sources of downloads that fell silent |
//! | `survey` | pings to members all over the network while this node suspects that it is partitioned |
//! | `ops` | the operations: work over several events, each a component of its own |
//! | `waiting` | which operation a disk operation, a lookup, or a copy is for |
//! | `early`, `joining` | commands that wait until the node has joined the network; what the log says about joining |
//! | `names` | host names of bootstrap nodes: when they are resolved, and what they resolved to |
//! | `health` | the health of the disk that holds the node's directory |
//! | `housekeeping` | saving what the next run needs |
//! | `lan` | finding the nodes of the same link |
//! | `limit` | changing limits while the node runs |
//! | `list`, `status` | what `ls`, `status` and `peers` show |
//!
//! # Three walks through the files
//!
//! A driver calls the node and takes what it outputs, so it stands at both ends of a walk. Every file between the ends is passed once.
//!
//! A datagram, from the socket to its answer: `net/udp` receives a batch, and `net/mod` hands each datagram to [`Node`] →
//! `wire/datagram` parses it → `peers/inbox` authenticates it → `dispatch` → the machine, such as `dht/mod` and `dht/serve` →
//! `peers/outbox`, which `net/mod` empties into `net/udp`.
//!
//! A chunk request, from the stream to sendfile(2): `net/serve` reads → [`Node`] → `transfer/dispatch` takes one frame →
//! `wire/frame` parses it → `transfer/uploads/serve` decides whose turn it is → `shelf` → `store/mod` locates the chunk; `net/serve`
//! polls the extent and queues it → `net/outbox` → `disk/outflow`. These are nine files. Of the state on the way, that of the stream is
//! in `transfer/streams/{session,outgoing}`, and the place of the chunk in `store/pieces` or `store/files`.
//!
//! A departure, from the silence to a new copy: `gossip/detect` suspects a member → `dispatch` → `bridge` tells the neighbourhood →
//! `replication/neighbours` waits, `replication/assess` counts copies, `replication/repair` decides → `ops/follow_up` → `ops/repair`
//! → `transfer/replicas/push` offers the piece to another node. There `transfer/replicas/inbound` takes the offer → `shelf` →
//! `store/admission` admits it; the piece arrives in `disk/sink` → `ops/inbound` → `disk/commit` makes it durable.

mod bridge;
pub mod command;
mod config;
mod dispatch;
mod early;
mod health;
mod housekeeping;
mod joining;
mod lan;
mod limit;
mod list;
mod machines;
mod names;
mod ops;
mod output;
mod presence;
mod shelf;
mod source_probes;
mod status;
mod survey;
#[cfg(test)]
mod tests;
mod waiting;

pub use crate::transfer::StreamOutput;
pub use config::{InvalidConfig, NodeConfig};
pub use names::{ADDRESSES_PER_NAME_MAX, BootstrapNode, DEFAULT_PORT, HostName, InvalidHost};
pub use output::Output;

use waiting::{Copying, Looker, Purpose, Waiting};

use crate::dht::{Dht, DhtConfig};
use crate::gossip::{Gossip, GossipConfig};
use crate::id::{IdWork, Key, NodeId, PublicKey};
use crate::identity::Identity;
use crate::io::{Ages, DialId, DiskDone, DiskError, DiskLook, DiskReply, Recovered, Space, StreamId};
use crate::limits::Limits;
use crate::peers::inbox::{self, Rejected};
use crate::peers::outbox::{Datagram, Outbox};
use crate::peers::party::Parties;
use crate::peers::requests::Challenge;
use crate::peers::table::Hold;
use crate::replication::{Replication, ReplicationConfig};
use crate::rng::Rng;
use crate::store::Store;
use crate::time::{Duration, Instant, earliest};
use crate::transfer::{Transfer, TransferConfig};
use crate::wire::Refused;
use crate::wire::contact::canonical;
use crate::wire::datagram::{Epoch, Unverified};
use crate::wire::header::Kind;
use crate::wire::inspect::InspectEntry;
use crate::wire::network::Network;
use bridge::Bridge;
use command::{Command, CommandId, Status};
use core::net::{IpAddr, SocketAddr};
use early::Early;
use housekeeping::Housekeeping;
use lan::Lan;
use machines::Machines;
use names::Names;
use ops::Ops;
use ops::audit::answer;
use ops::values;
use presence::Presence;
use shelf::Shelf;
use source_probes::SourceProbes;
use status::NodeCounters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use survey::Survey;

/// A node of the network: see the [module](self).
pub struct Node {
    config: NodeConfig,
    started: Instant,
    machines: Machines,
    ops: Ops,
    counters: NodeCounters,
    bridge: Bridge,
    presence: Presence,
    source_probes: SourceProbes,
    survey: Survey,
    housekeeping: Housekeeping,
    early: Early,
    names: Names,
    lan: Lan,
}

impl Node {
    /// A node with its identity and the content of its directory. `seed` is entropy, or fixed in a simulation. Tokens and transaction
    /// numbers follow from it, so it must be secret and used once.
    pub fn new(
        config: NodeConfig,
        identity: Identity,
        recovered: &Recovered,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Node, InvalidConfig> {
        config.validate()?;
        let mut rng = Rng::new(seed);
        let network = Network::with_secret(&config.network, config.network_secret.as_ref(), &identity);
        let network = network.with_id_work(config.id_work);
        if !network.admits(&identity.public()) {
            let (asked, shown) = (config.id_work, IdWork::shown(&identity.public()));
            return Err(InvalidConfig::IdWork { asked, shown });
        }
        let (public, id, boots) = (identity.public(), identity.id(), recovered.ages.boots);
        // Records and states of a run have numbers from a higher base than those of the runs before.
        let sequence = boots << 32;
        let epoch = Epoch::new(rng.u64());
        let outbox = Outbox::new(network.clone(), identity, config.leaf, epoch, &config.limits, rng.bytes());
        let parties = Parties::of_network(config.network_secret.as_ref());
        let dht_config = DhtConfig {
            leaf: config.leaf,
            limits: config.limits.clone(),
            parties,
            remembered: housekeeping::decode_contacts(&recovered.peers, &network),
            bootstrap: config.bootstrap.iter().copied().map(canonical).collect(),
            sequence,
            listen: config.listen,
            ..DhtConfig::default()
        };
        let mut dht = Dht::new(dht_config, id, rng.bytes(), now);
        values::restore(&mut dht, &recovered.records, &network, now);
        let transfer_config = TransferConfig {
            parties,
            ..TransferConfig::new(config.limits.clone(), config.leaf, config.listen.port())
        };
        let gossip = GossipConfig { parties, ..config.gossip.clone() };
        // The numbers of two processes with one key differ, so that each notices the states of the other.
        let states = sequence | rng.below(1 << 31);
        let gossip = Gossip::new(gossip, public, config.leaf, states, rng.bytes(), now);
        // Replication has room for all pieces that the limits allow.
        let limits = &config.limits;
        let pieces_max = config.replication.pieces_max.max(limits.pieces_max + limits.shares_max);
        let replication_config = ReplicationConfig { pieces_max, parties, ..config.replication.clone() };
        let replication = Replication::new(replication_config, id, rng.bytes(), now);
        let transfer = Transfer::new(transfer_config, network.clone(), rng.bytes());
        let mut store = Store::new(&config.limits, recovered, rng.u64(), now);
        store.set_contested(config.network_secret.is_none());
        let machines = Machines {
            dht,
            transfer,
            store,
            gossip,
            replication,
            outbox,
            outputs: VecDeque::with_capacity(64),
            disk_waiting: BTreeMap::new(),
            lookups: BTreeMap::new(),
            pushes: BTreeMap::new(),
            share_events: VecDeque::new(),
            last_id: 0,
            cache_dir: config.cache_dir.clone(),
            lifetime: config.lifetime,
        };
        let ops = Ops::new(&config, &recovered.scrub, &machines, rng.u64(), now);
        let mut node = Node {
            started: now,
            machines,
            ops,
            presence: Presence::new(now, &config, &mut rng),
            source_probes: SourceProbes::new(now, rng.bytes()),
            survey: Survey::new(now, rng.bytes()),
            counters: NodeCounters::default(),
            bridge: Bridge::new(config.gossip.unresponsive_after),
            housekeeping: Housekeeping::new(boots, now),
            early: Early::new(config.limits.commands_max),
            lan: Lan::new(now, config.lan, rng.bytes()),
            names: Names::new(now, &config.bootstrap_names, config.bootstrap.clone()),
            config,
        };
        node.ops.resume(now, recovered, &mut node.machines);
        node.settle(now);
        Ok(node)
    }

    // Getters.

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.machines.id()
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// This node's public key.
    pub fn public(&self) -> PublicKey {
        self.machines.outbox.identity().public()
    }

    /// The membership machine.
    pub fn membership(&self) -> &Gossip {
        &self.machines.gossip
    }

    /// The replication machine.
    pub fn replication(&self) -> &Replication {
        &self.machines.replication
    }

    /// The store machine.
    pub fn store(&self) -> &Store {
        &self.machines.store
    }

    /// This node's copy of a piece, and what it knows about other copies.
    pub fn inspect_piece(&self, now: Instant, key: &Key) -> InspectEntry {
        answer::copy_of(now, key, &self.machines.store, &self.machines.replication)
    }

    /// The DHT machine.
    pub fn dht(&self) -> &Dht {
        &self.machines.dht
    }

    /// Whether this node shares keys with another node, so that it need not sign what it sends there.
    pub fn has_peer(&self, id: &NodeId) -> bool {
        self.machines.outbox.peers().is_keyed(id)
    }

    /// Whether no other node can connect to this one, as far as it knows.
    pub fn is_unreachable(&self) -> bool {
        self.presence.is_unreachable()
    }

    fn status(&self, now: Instant) -> Status {
        status::status(now, self)
    }

    /// When [`handle_timeout`](Node::handle_timeout) is due; `None` is never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.machines.dht.next_deadline(),
            self.machines.transfer.next_deadline(),
            self.machines.store.next_deadline(),
            self.machines.gossip.next_deadline(),
            self.machines.replication.next_deadline(),
            self.ops.next_deadline(&self.machines),
            self.presence.next_deadline(),
            self.source_probes.next_deadline(&self.machines.transfer),
            self.survey.next_deadline(&self.machines.replication),
            self.names.next_deadline(),
            self.lan.next_deadline(),
            Some(self.housekeeping.next_deadline()),
        ];
        deadlines.into_iter().fold(None, earliest)
    }

    // Inputs.

    /// A datagram arrived.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let from = canonical(from);
        self.counters.datagrams_in += 1;
        let unverified = match Unverified::parse(bytes, self.machines.outbox.network()) {
            Ok(unverified) => unverified,
            Err(reason) => return self.refuse(reason),
        };
        if unverified.kind() == Kind::Here {
            return self.refuse(Refused::Kind);
        }
        if let Some(asker) = unverified.challenged() {
            if asker == self.id().short() {
                self.challenged(now, &Challenge::new(from, &unverified));
            }
            return;
        }
        if unverified.sender() == self.id().short() {
            self.own_key_used(now, from, unverified);
            return self.settle(now);
        }
        let answers = unverified.kind().is_answer();
        if answers && !self.is_expected(unverified.kind(), unverified.transaction(), from) {
            self.counters.unexpected_answers += 1;
            return;
        }
        let Machines { dht, gossip, outbox, .. } = &mut self.machines;
        let hold = |id: &NodeId| match dht.is_contact(id) {
            true => Hold::Contact,
            false if gossip.is_live(id) => Hold::Member,
            false => Hold::Loose,
        };
        match inbox::receive(outbox, now, from, unverified, answers, hold) {
            Ok(received) => {
                self.deliver(now, from, &received.datagram, received.standing);
                self.settle(now);
            }
            Err(rejected) => self.reject(rejected),
        }
    }

    /// A peer connected to this node.
    pub fn handle_accepted(&mut self, now: Instant, stream: StreamId, remote: SocketAddr) {
        let (remote, identity) = (canonical(remote), self.machines.outbox.identity());
        self.machines.transfer.handle_accepted(now, stream, remote, identity);
        self.presence.handle_accepted(now, remote, &self.machines.dht);
        self.settle(now);
    }

    /// A dial succeeded.
    pub fn handle_connected(&mut self, now: Instant, dial: DialId, stream: StreamId) {
        self.machines.transfer.handle_connected(now, dial, stream, self.machines.outbox.identity());
        self.settle(now);
    }

    /// A dial failed.
    pub fn handle_dial_failed(&mut self, now: Instant, dial: DialId) {
        self.machines.transfer.handle_dial_failed(now, dial);
        self.settle(now);
    }

    /// Bytes arrived on a stream. Takes at most one frame, and returns how many bytes it took; 0 means that the rest of the frame must
    /// arrive first. If the outputs after this call contain a [`StreamOutput::Sink`] for the stream, the bytes that follow go to the
    /// sink.
    pub fn handle_stream_bytes(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        let taken = self.at_the_shelf(now, |transfer, identity, shelf| {
            transfer.handle_bytes(now, stream, bytes, identity, shelf)
        });
        self.settle(now);
        taken
    }

    /// Raw bytes of a stream were written to a file.
    pub fn handle_stream_progress(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        self.machines.transfer.handle_progress(now, stream, bytes);
    }

    /// Raw bytes of a file left on a stream.
    pub fn handle_stream_sent(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        self.machines.transfer.handle_sent(now, stream, bytes);
    }

    /// All queued bytes of a stream have left.
    pub fn handle_drained(&mut self, now: Instant, stream: StreamId) {
        self.at_the_shelf(now, |transfer, _, shelf| transfer.handle_drained(now, stream, shelf));
        self.settle(now);
    }

    /// A sink is full, and its content has this hash; or the disk failed.
    pub fn handle_sunk(&mut self, now: Instant, stream: StreamId, result: Result<Key, DiskError>) {
        self.machines.transfer.handle_sunk(now, stream, result);
        self.settle(now);
    }

    /// The driver could not read a part of a file that it was sending.
    pub fn handle_send_failed(&mut self, now: Instant, stream: StreamId, error: &DiskError) {
        self.machines.transfer.handle_send_failed(now, stream, error);
        self.settle(now);
    }

    /// A stream closed.
    pub fn handle_closed(&mut self, now: Instant, stream: StreamId) {
        self.machines.transfer.handle_closed(now, stream);
        self.settle(now);
    }

    /// A disk operation ended, or made progress.
    pub fn handle_disk(&mut self, now: Instant, done: DiskDone) {
        let goes_on = matches!(done.result, Ok(DiskReply::Progress { .. }));
        let waiting = match goes_on {
            true => match self.machines.disk_waiting.get(&done.id) {
                Some(Waiting::Put(command)) => Waiting::Put(*command),
                Some(Waiting::Download(download, step)) => Waiting::Download(*download, *step),
                _ => return,
            },
            false => match self.machines.disk_waiting.remove(&done.id) {
                Some(waiting) => waiting,
                None => return,
            },
        };
        self.ops.handle_disk(now, waiting, done.result, &mut self.machines);
        self.settle(now);
    }

    /// The machine has these addresses. Call this at the start, and whenever they change.
    pub fn handle_addresses(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) {
        if self.presence.handle_addresses(now, addresses, &mut self.machines) {
            self.lan.tell_soon(now);
            self.names.hurry(now, self.machines.dht.statistics().contacts == 0);
        }
        self.settle(now);
    }

    /// The last here left on no link: none had an address. The next one need not wait for its minute.
    pub fn here_was_lost(&mut self) {
        self.lan.here_was_lost();
    }

    /// The driver checked the node's directory, or failed to: see [`look_interval`](Node::look_interval).
    pub fn handle_disk_look(&mut self, now: Instant, look: Result<DiskLook, DiskError>) {
        self.ops.health.note_look(now, look);
    }

    /// The time between two checks of the node's directory by the driver.
    pub fn look_interval(&self) -> Duration {
        self.ops.health.look_interval()
    }

    /// Whether the disk is well. While it is not, a check includes a trial write.
    pub fn disk_is_well(&self) -> bool {
        self.ops.health.is_well()
    }

    /// The free space of the file system of the node's directory. Call this once a second while content arrives, and at the start
    /// ([`Recovered::space`]).
    pub fn handle_space(&mut self, now: Instant, space: Space) {
        self.machines.store.set_space(space);
        self.settle(now);
    }

    /// A command. [`Output::Respond`] answers it. A command that needs the network waits while the node joins.
    pub fn handle_command(&mut self, now: Instant, id: CommandId, command: Command) {
        let command = match self.is_joining() {
            true => self.early.wait(id, command),
            false => Some(command),
        };
        if let Some(command) = command {
            self.obey(now, id, command);
        }
        self.settle(now);
    }

    /// Bytes of a command's content ([`Output::Content`]) have left to the client.
    pub fn handle_content_sent(&mut self, now: Instant, command: CommandId, bytes: u64) {
        self.ops.seekers.reads.handle_sent(now, command, bytes, &mut self.machines);
        self.settle(now);
    }

    /// The client no longer waits for a command. A read ends, and a download without another waiting command ends; all other commands
    /// go on.
    pub fn handle_cancel(&mut self, now: Instant, id: CommandId) {
        self.early.cancel(id);
        self.ops.cancel(now, id, &mut self.machines);
        self.settle(now);
    }

    /// The deadline of [`next_deadline`](Node::next_deadline) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.names.handle_timeout(now, &mut self.machines);
        let lonely = self.machines.dht.statistics().contacts == 0;
        self.lan.handle_timeout(now, lonely, &mut self.machines);
        self.machines.dht.handle_timeout(now, &mut self.machines.outbox);
        self.machines.transfer.handle_timeout(now);
        self.machines.store.handle_timeout(now);
        bridge::update_own_state(now, &mut self.machines);
        self.machines.gossip.handle_timeout(now, &mut self.machines.outbox);
        // Replication paces its copies by the uplink that repair measures.
        self.ops.repair.handle_timeout(now, &mut self.machines);
        self.machines.replication.handle_timeout(now, &mut self.machines.outbox);
        self.ops.handle_timeout(now, &mut self.machines);
        self.housekeeping.handle_timeout(now, &self.ops.scrub, &mut self.machines);
        self.source_probes.handle_timeout(now, &self.machines.transfer, &mut self.machines.outbox);
        self.survey.handle_timeout(now, &mut self.machines);
        self.presence.handle_timeout(now, &mut self.machines);
        self.settle(now);
    }

    /// The age of the node, which its directory keeps across runs.
    pub fn ages(&self, now: Instant) -> Ages {
        self.housekeeping.ages(now, &self.machines)
    }

    /// The program will end: says goodbye to the neighbours, and saves what the next run needs. The driver carries out the outputs
    /// and then stops.
    pub fn shut_down(&mut self, now: Instant) {
        self.say_goodbye(now, false);
        self.settle(now);
    }

    // Outputs.

    /// The datagrams to send, oldest first. The driver reports with [`datagrams_sent`](Node::datagrams_sent) how many it sent.
    pub fn queued_datagrams(&self) -> impl Iterator<Item = &Datagram> {
        self.machines.outbox.queued()
    }

    /// The `count` oldest datagrams were sent.
    pub fn datagrams_sent(&mut self, count: usize) {
        self.machines.outbox.remove(count);
        self.counters.datagrams_out += count as u64;
    }

    /// Takes the next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<&Datagram> {
        let datagram = self.machines.outbox.poll();
        self.counters.datagrams_out += u64::from(datagram.is_some());
        datagram
    }

    /// The next thing to do on a stream. After [`StreamOutput::Connect`] call [`handle_connected`](Node::handle_connected) or
    /// [`handle_dial_failed`](Node::handle_dial_failed), after [`StreamOutput::Sink`] call [`handle_sunk`](Node::handle_sunk).
    pub fn poll_stream(&mut self) -> Option<StreamOutput> {
        self.machines.transfer.poll_output()
    }

    /// The next other thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.machines.outputs.pop_front()
    }

    /// Says goodbye to the neighbours, and saves what the next run needs.
    fn say_goodbye(&mut self, now: Instant, for_good: bool) {
        // Contacts are saved first, because the goodbye may drop them.
        self.housekeeping.remember_peers(&mut self.machines);
        self.housekeeping.remember_scrub(&self.ops.scrub, &mut self.machines);
        self.machines.gossip.leave(now, for_good, &mut self.machines.outbox);
        let sequence = self.machines.gossip.sequence();
        self.machines.dht.leave(now, for_good, sequence, &mut self.machines.outbox);
    }

    /// Sets how many signatures this processor checks in a second, which the driver has measured. Half of these are the node's budget.
    pub fn calibrate(&mut self, checks_per_second: u32) {
        self.machines.outbox.calibrate(checks_per_second);
    }

    /// Gives transfer an input together with the shelf, from which it answers peers at once.
    fn at_the_shelf<T>(
        &mut self,
        now: Instant,
        input: impl FnOnce(&mut Transfer, &Identity, &mut Shelf<'_>) -> T,
    ) -> T {
        let Machines { transfer, store, dht, replication, outbox, .. } = &mut self.machines;
        let mut shelf = Shelf { now, store, dht, replication, outbox, ops: &mut self.ops };
        input(transfer, outbox.identity(), &mut shelf)
    }

    fn reject(&mut self, rejected: Rejected) {
        match rejected {
            Rejected::Replayed => self.counters.replayed += 1,
            Rejected::OverBudget => self.counters.over_budget += 1,
            Rejected::Refused(reason) => self.refuse(reason),
        }
    }

    fn refuse(&mut self, reason: Refused) {
        *self.counters.refused(reason) += 1;
    }
}

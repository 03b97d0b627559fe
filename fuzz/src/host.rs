//! The node under test, on a simulated disk, among fuzzed peers, in virtual time; and the checks after each input.

use crate::fixture::Fixture;
use crate::peer::{self, Peer};
use crate::stream::{Stream, is_file};
use elver::gossip::GossipConfig;
use elver::id::{IdWork, Key, NodeId};
use elver::identity::Identity;
use elver::io::{DialId, DiskDone, DiskError, DiskErrorKind, DiskId, DiskOp, Extent, StreamId};
use elver::limits::Limits;
use elver::node::command::{Command, CommandId, Reply, Response, Status};
use elver::node::{Node, NodeConfig, Output, StreamOutput};
use elver::replication::ReplicationConfig;
use elver::sim::blob::{Blob, Slice};
use elver::sim::chance::Chance;
use elver::sim::disk::{Disk, DiskPlan};
use elver::sim::world::small_limits;
use elver::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The number of fuzzed peers.
pub const PEERS: usize = 4;
/// The node's address.
pub const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 1], 3583);
/// The most outputs that one input may cause.
const OUTPUTS_MAX: usize = 20_000;
/// A node that is due this many times in a row at one moment spins.
const SPINS_MAX: u32 = 64;
/// The most deadlines met in one step of time.
const DEADLINES_MAX: usize = 128;
/// The most operations on the disk that the node may have under way.
const DISK_OPS_MAX: usize = 20_000;

/// The node and everything around it.
pub struct Host {
    pub now: Instant,
    pub node: Node,
    pub peers: Vec<Peer>,
    pub streams: BTreeMap<StreamId, Stream>,
    pub fixture: Rc<Fixture>,
    limits: Limits,
    disk: Disk,
    chance: Chance,
    ops: VecDeque<(DiskId, DiskOp)>,
    dials: VecDeque<(DialId, usize, Instant)>,
    streams_made: u64,
    /// Commands without a final answer, each with the end of the content it got.
    commands: BTreeMap<CommandId, Option<u64>>,
    commands_made: u64,
    /// Content that is on its way to clients.
    content: VecDeque<(CommandId, u64)>,
    status: Option<Box<Status>>,
    stopped: bool,
}

/// Limits so tight that few inputs fill the tables.
fn tight_limits() -> Limits {
    Limits {
        datagrams_queued_max: 32,
        transactions_max: 32,
        lookups_max: 4,
        records_max: 4,
        providers_max: 6,
        providers_per_file_max: 2,
        streams_max: 6,
        streams_unauthenticated_max: 2,
        downloads_max: 1,
        reads_max: 1,
        downloads_queued_max: 1,
        sources_per_download_max: 2,
        uploads_max: 1,
        blamed_peers_max: 2,
        pushes_max: 1,
        pieces_max: 3,
        shares_max: 2,
        values_max: 2,
        quota_bytes: 1 << 20,
        commands_max: 6,
        explains_max: 1,
        ..small_limits()
    }
}

impl Host {
    /// A new node. Bits of `kind`: 1 a leaf, 2 tight limits, 4 no address to join through.
    pub fn new(kind: u8) -> Host {
        let fixture = Fixture::get();
        let limits = if kind & 2 != 0 { tight_limits() } else { small_limits() };
        let mut disk = Disk::new(DiskPlan::default());
        for (index, file) in fixture.files.iter().enumerate() {
            disk.write_file(&Fixture::path(index), Rc::clone(file));
        }
        let bootstrap = if kind & 4 != 0 { Vec::new() } else { vec![peer::address(0), peer::address(1)] };
        let config = NodeConfig { leaf: kind & 1 != 0, bootstrap, ..config(limits.clone(), "/cache".into()) };
        let now = Instant::from_secs(1);
        let node = Node::new(config, Identity::stand_in(&[1; 32]), &disk.recover(), [7; 32], now);
        let mut host = Host {
            now,
            node: node.expect("valid limits"),
            peers: (0..PEERS).map(Peer::new).collect(),
            streams: BTreeMap::new(),
            fixture,
            limits,
            disk,
            chance: Chance::new(1, 1),
            ops: VecDeque::new(),
            dials: VecDeque::new(),
            streams_made: 0,
            commands: BTreeMap::new(),
            commands_made: 0,
            content: VecDeque::new(),
            status: None,
            stopped: false,
        };
        host.settle();
        host
    }

    /// The node's address and id.
    pub fn contact(&self) -> (SocketAddr, NodeId) {
        (ADDRESS.into(), self.node.id())
    }

    // Inputs.

    /// A datagram arrives at the node.
    pub fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.node.handle_datagram(self.now, from, bytes);
        self.settle();
    }

    /// What the peers have to say arrives. Bits of `flip`: a byte of each datagram to change; 0 changes none.
    pub fn deliver(&mut self, peer: usize, flip: u8) {
        let from = self.peers[peer].addr;
        for mut bytes in self.peers[peer].take() {
            if flip != 0 {
                let at = usize::from(flip) * 7 % bytes.len();
                bytes[at] ^= flip;
            }
            self.datagram(from, &bytes);
        }
    }

    /// A peer connects.
    pub fn accept(&mut self, peer: usize) {
        if self.streams.len() > 64 {
            return;
        }
        let id = self.next_stream(peer, false);
        let from = SocketAddr::new(self.peers[peer].addr.ip(), 50_000);
        self.node.handle_accepted(self.now, id, from);
        self.settle();
    }

    /// The oldest dial of the node ends.
    pub fn dial(&mut self, succeeds: bool) {
        let Some((dial, peer, _)) = self.dials.pop_front() else { return };
        if succeeds && peer < PEERS {
            let id = self.next_stream(peer, true);
            self.node.handle_connected(self.now, dial, id);
        } else {
            self.node.handle_dial_failed(self.now, dial);
        }
        self.settle();
    }

    /// A stream closes.
    pub fn close(&mut self, stream: StreamId) {
        if self.streams.remove(&stream).is_some() {
            self.node.handle_closed(self.now, stream);
            self.settle();
        }
    }

    /// The disk cannot write what arrives on a stream.
    pub fn fail_sink(&mut self, stream: StreamId, kind: DiskErrorKind) {
        if self.streams.get_mut(&stream).is_some_and(|stream| stream.sinking.take().is_some()) {
            self.node.handle_sunk(self.now, stream, Err(disk_error(kind)));
            self.settle();
        }
    }

    /// The operation with this number ends; with an error, it has not happened.
    pub fn disk(&mut self, which: usize, error: Option<DiskErrorKind>) {
        // What reads takes turns; everything else ends in order.
        let may_overtake = |op: &DiskOp| {
            matches!(
                op,
                DiskOp::Hash { .. } | DiskOp::Read(_) | DiskOp::Sample { .. } | DiskOp::Verify { .. }
            )
        };
        let which = which % self.ops.len().max(1);
        let which = if self.ops.get(which).is_some_and(|(_, op)| may_overtake(op)) { which } else { 0 };
        let Some((id, op)) = self.ops.remove(which) else { return };
        let done = match error {
            Some(kind) => DiskDone { id, result: Err(disk_error(kind)) },
            None => {
                self.disk.submit(self.now, id, op);
                self.disk.complete(&mut self.chance).expect("an operation was submitted")
            }
        };
        self.node.handle_disk(self.now, done);
        self.settle();
    }

    /// The number of disk operations under way.
    pub fn disk_ops(&self) -> usize {
        self.ops.len()
    }

    /// A client gives a command.
    pub fn command(&mut self, command: Command) -> CommandId {
        self.commands_made += 1;
        let id = CommandId(self.commands_made);
        self.commands.insert(id, None);
        self.node.handle_command(self.now, id, command);
        self.settle();
        id
    }

    /// The client of one of the latest commands goes away.
    pub fn cancel(&mut self, back: u64) {
        let id = CommandId(self.commands_made.saturating_sub(back));
        self.node.handle_cancel(self.now, id);
        self.settle();
    }

    /// A client takes content.
    pub fn take_content(&mut self, most: u64) {
        let Some((command, left)) = self.content.front_mut() else { return };
        let (command, taken) = (*command, most.clamp(1, *left));
        *left -= taken;
        if *left == 0 {
            self.content.pop_front();
        }
        self.node.handle_content_sent(self.now, command, taken);
        self.settle();
    }

    /// Time passes. The node meets its deadlines, up to a bound: after more of them it has slept.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut spins = (self.now, 0);
        for _ in 0..DEADLINES_MAX {
            let Some(at) = self.node.next_deadline().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            self.time_out();
            spins = if spins.0 == self.now { (self.now, spins.1 + 1) } else { (self.now, 1) };
            assert!(spins.1 < SPINS_MAX, "the node is due again and again at one moment");
        }
        self.now = until;
        self.time_out();
    }

    /// Time passes up to the node's next deadline.
    pub fn pass_to_deadline(&mut self) {
        let Some(at) = self.node.next_deadline() else { return };
        let ahead = at.since(self.now);
        self.pass(ahead);
    }

    fn time_out(&mut self) {
        while self.dials.front().is_some_and(|(_, _, until)| *until <= self.now) {
            self.dial(false);
        }
        self.node.handle_timeout(self.now);
        self.settle();
    }

    // Outputs.

    /// Carries out all outputs, and lets flow what flows on streams.
    pub fn settle(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            self.drain();
            if !self.flow() {
                return assert!(self.ops.len() <= DISK_OPS_MAX, "operations on the disk have a bound");
            }
        }
        panic!("streams come to rest");
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            let sent = self.node.poll_datagram().map(|sent| (sent.to(), sent.bytes().to_vec()));
            if let Some((to, bytes)) = sent {
                if let Some(peer) = self.peers.iter_mut().find(|peer| peer.addr == to) {
                    peer.hear(self.now, ADDRESS.into(), &bytes);
                }
                continue;
            }
            // An extent that goes to a stream is opened before its file is deleted.
            if let Some(output) = self.node.poll_stream() {
                self.on_stream(output);
                continue;
            }
            let Some(output) = self.node.poll_output() else { return };
            self.carry_out(output);
        }
        panic!("the outputs of one input have a bound");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Disk { id, op } => self.ops.push_back((id, op)),
            Output::Respond { command, response } => self.respond(command, response),
            Output::Opened { command, .. } => {
                assert!(self.commands.contains_key(&command), "a file is opened for a command under way");
            }
            Output::Content { command, content, extent } => {
                let end = self.commands.get_mut(&command).expect("content goes to commands under way");
                assert!(end.is_none_or(|end| end == content.offset), "content comes in order");
                *end = Some(content.offset + u64::from(content.length));
                let read = self.disk.read(&extent).expect("a window stays until it is sent");
                assert_eq!(read.iter().map(Slice::len).sum::<usize>(), content.length as usize);
                self.check_content(content.offset, content.file_length, &read);
                self.content.push_back((command, u64::from(content.length)));
            }
            // The fixture's nodes have no names to resolve, and no discovery.
            Output::Here { .. } | Output::Resolve { .. } => {}
            Output::Stop => self.stopped = true,
        }
    }

    /// Content that a client reads is that of a file of the fixture: no other file verifies.
    fn check_content(&self, offset: u64, file_length: u64, read: &[Slice]) {
        let bytes: Vec<u8> = read.iter().flat_map(|slice| slice.bytes()).copied().collect();
        let fits = |file: &Rc<Blob>| {
            let part = file.bytes().get(offset as usize..offset as usize + bytes.len());
            file.bytes().len() as u64 == file_length && part == Some(&bytes[..])
        };
        assert!(self.fixture.files.iter().any(fits), "no unverified byte reaches a client");
    }

    fn on_stream(&mut self, output: StreamOutput) {
        match output {
            StreamOutput::Connect { dial, contact, until } => {
                let peer = self.peers.iter().position(|peer| peer.addr == contact.addr);
                self.dials.push_back((dial, peer.unwrap_or(PEERS), until));
            }
            StreamOutput::Write { stream, bytes } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.hear(&bytes);
                }
            }
            StreamOutput::SendFile { stream, extent } => self.send_file(stream, &extent),
            StreamOutput::Sink { stream, sink } => {
                let opened = self.disk.open_sink(&sink);
                let Some(it) = self.streams.get_mut(&stream) else { return };
                assert!(it.sinking.is_none(), "a stream has one sink at a time");
                match opened {
                    Ok(()) => it.sinking = Some((sink, Vec::new())),
                    Err(error) => self.node.handle_sunk(self.now, stream, Err(error)),
                }
            }
            StreamOutput::Close { stream } => _ = self.streams.remove(&stream),
        }
    }

    fn send_file(&mut self, stream: StreamId, extent: &Extent) {
        let read = self.disk.read(extent);
        let Some(it) = self.streams.get_mut(&stream) else { return };
        match read {
            Ok(slices) => slices.iter().for_each(|slice| it.hear_file(slice.bytes())),
            Err(error) => self.node.handle_send_failed(self.now, stream, &error),
        }
    }

    fn respond(&mut self, id: CommandId, response: Response) {
        assert!(self.commands.contains_key(&id), "a command gets no answer after its last");
        match response {
            Response::Progress(_) | Response::Content(_) => return,
            Response::Done(Reply::Status(status)) => self.status = Some(status),
            Response::Done(Reply::Get { hash, path, .. }) => {
                let file = fetched(&self.disk, &hash, &path).expect("a fetched file is there");
                assert!(is_file(&hash, file.bytes()), "a fetched file verifies");
            }
            Response::Done(_) | Response::Failed(_) => {}
        }
        self.commands.remove(&id);
    }

    /// Moves bytes from the peers' pipes to the node, and reports what was sent. Returns whether anything moved.
    fn flow(&mut self) -> bool {
        let mut moved = false;
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            moved |= self.flow_in(id) | self.flow_out(id);
        }
        moved
    }

    fn flow_in(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if let Some((sink, bytes)) = &mut stream.sinking {
            let taken = (sink.length as usize - bytes.len()).min(stream.pipe.len());
            bytes.extend(stream.pipe.drain(..taken));
            let full = bytes.len() == sink.length as usize;
            if taken > 0 {
                self.node.handle_stream_progress(self.now, id, taken as u64);
            }
            if full {
                self.finish_sink(id);
            }
            return taken > 0 || full;
        }
        if stream.pipe.is_empty() {
            return false;
        }
        let pipe = core::mem::take(&mut stream.pipe);
        let taken = self.node.handle_stream_bytes(self.now, id, &pipe);
        assert!(taken <= pipe.len(), "the node takes what there is");
        // The outputs come before the next bytes: they may open a sink for those, or close the stream.
        self.drain();
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.pipe.splice(0..0, pipe[taken..].iter().copied());
        }
        taken > 0
    }

    fn finish_sink(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some((sink, bytes)) = stream.sinking.take() else { return };
        let content = Slice::whole(Blob::new(bytes));
        let key = content.key(sink.hash_as);
        let written = self.disk.write(&sink.place, sink.offset, content);
        self.node.handle_sunk(self.now, id, written.map(|()| key));
    }

    fn flow_out(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.stalled) else { return false };
        let (sent, drained) =
            (core::mem::take(&mut stream.unreported), core::mem::take(&mut stream.undrained));
        if sent > 0 {
            self.node.handle_stream_sent(self.now, id, sent);
        }
        if drained {
            self.node.handle_drained(self.now, id);
        }
        sent > 0 || drained
    }

    fn next_stream(&mut self, peer: usize, dialled: bool) -> StreamId {
        self.streams_made += 1;
        let id = StreamId(self.streams_made);
        self.streams.insert(id, Stream::new(peer, dialled, self.streams_made));
        id
    }

    // Checks.

    /// Whether the node has stopped, and takes no more input.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Asserts that tables keep to their bounds.
    pub fn check_tables(&mut self) {
        self.status = None;
        self.command(Command::Status);
        let Some(status) = self.status.take() else { return };
        let limits = &self.limits;
        let tables = [
            ("records", u64::from(status.records), limits.records_max as u64),
            ("providers", u64::from(status.providers), limits.providers_max as u64),
            ("streams", u64::from(status.streams), limits.streams_max as u64),
            ("pieces", u64::from(status.pieces), limits.pieces_max as u64),
            ("shares", u64::from(status.shares), limits.shares_max as u64),
            ("lookups", u64::from(status.lookups), limits.lookups_max as u64),
            ("stored bytes", status.stored_bytes, limits.quota_bytes),
        ];
        for (name, has, most) in tables {
            assert!(has <= most, "{has} {name}, at most {most}");
        }
        assert!(self.commands.len() <= self.commands_made as usize);
    }

    /// Ends the run: everything on the disk verifies.
    pub fn finish(mut self) {
        self.check_tables();
        while self.disk_ops() > 0 && self.commands_made < 10_000 {
            self.disk(0, None);
            self.commands_made += 1;
        }
        self.node.shut_down(self.now);
        self.settle();
        let (_, wrong) = self.disk.verify_pieces();
        assert_eq!(wrong, 0, "only verified pieces are stored");
    }
}

/// The content of a file that a node says it fetched.
pub fn fetched(disk: &Disk, hash: &Key, path: &Path) -> Option<Slice> {
    if path.starts_with("/cache") { disk.cached(hash) } else { disk.file(path) }
}

/// The error of a disk.
pub fn disk_error(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, message: "the fuzzed disk".to_owned() }
}

/// Every kind of error of a disk.
pub const DISK_ERRORS: [DiskErrorKind; 11] = [
    DiskErrorKind::NoSpace,
    DiskErrorKind::NotFound,
    DiskErrorKind::Denied,
    DiskErrorKind::Changed,
    DiskErrorKind::Unsuitable,
    DiskErrorKind::Busy,
    DiskErrorKind::Gone,
    DiskErrorKind::Locked,
    DiskErrorKind::Exists,
    DiskErrorKind::Lost,
    DiskErrorKind::Failed,
];

/// The configuration of a node under test: a full node of an open network that knows no other.
pub fn config(limits: Limits, cache_dir: PathBuf) -> NodeConfig {
    NodeConfig {
        limits,
        leaf: false,
        network: peer::NETWORK.to_owned(),
        network_secret: None,
        id_work: IdWork::NONE,
        listen: ADDRESS.into(),
        bootstrap: Vec::new(),
        bootstrap_names: Vec::new(),
        lan: false,
        replicas: NodeConfig::REPLICAS,
        lifetime: NodeConfig::LIFETIME,
        cache_dir,
        gossip: GossipConfig::default(),
        replication: ReplicationConfig::default(),
    }
}

//! The mio driver: one thread, one poll, every socket, timer and file operation of a node.
//!
//! mio is edge-triggered: it tells that a socket has become ready, once. So each source remembers whether it is ready and is
//! drained until it says `WouldBlock`; when its budget for this turn is used up before that, it stays on the list of
//! ready sources and the next poll does not wait. A turn is: poll, note what became ready, serve it within budgets, give the
//! disk its share, fire the timer, carry out what the node wants, send its datagrams. What the node wants is carried out
//! after every single input, in order, before the next input is given.
//!
//! Streams and control clients are named by numbers that are never used again, so an event that was meant for a
//! connection that is gone reaches nobody.

mod acceptor;
mod clock;
mod control;
mod histogram;
mod outbox;
mod passed;
mod stream;
mod streams;
#[cfg(test)]
mod testing;
mod throttle;
mod udp;

use crate::disk::{Disk, OpenError, OpenExtent, Outflow, Way};
use crate::gossip::GossipConfig;
use crate::id::NodeId;
use crate::identity::Identity;
use crate::io::{DiskError, Extent, Place, Space};
use crate::limits::Limits;
use crate::node::command::{Command, CommandId, Reply, Response, Status};
use crate::node::{InvalidConfig, Node, NodeConfig, Output, StreamOutput};
use crate::replication::ReplicationConfig;
use crate::time::{Duration, Instant};
use crate::wire::network::Network;
use acceptor::Acceptor;
use clock::Clock;
use control::{Control, Request};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use histogram::Histogram;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use passed::Passed;
use signal_hook_mio::v1_0::Signals;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use streams::Streams;
use udp::Udp;

/// The control socket's name in the node's directory.
pub const CONTROL_SOCKET: &str = "control.sock";

pub use control::address::connect as connect_control;

/// The port that a node listens on, UDP and TCP alike, when it is not told otherwise.
pub const DEFAULT_PORT: u16 = 3583;

/// What a node on this machine is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node keeps everything; made when it is not there.
    pub dir: PathBuf,
    /// Where to listen; `None` is every address, IPv6 and IPv4, port 3583. Port 0 is any free one.
    pub listen: Option<SocketAddr>,
    /// Nodes to join through.
    pub bootstrap: Vec<SocketAddr>,
    /// Copies that the network keeps of a file when `put` does not say.
    pub replicas: u8,
    /// Seconds that copies are kept when `put` does not say.
    pub lifetime_seconds: u32,
    /// The node's bounds.
    pub limits: Limits,
    /// A leaf asks and fetches, but neither enters routing tables nor keeps anything for others.
    pub leaf: bool,
    /// The network's name.
    pub network: String,
    /// How content gets from streams into files.
    pub way: Way,
    /// Whether SIGTERM and SIGINT end [`Driver::run`]. A program with signal handlers of its own says no.
    pub handle_signals: bool,
    /// How the node learns who is there.
    pub gossip: GossipConfig,
    /// How it keeps enough copies of what is stored.
    pub replication: ReplicationConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: PathBuf::from("."),
            listen: None,
            bootstrap: Vec::new(),
            replicas: NodeConfig::REPLICAS,
            lifetime_seconds: NodeConfig::LIFETIME,
            limits: Limits::default(),
            leaf: false,
            network: Network::DEFAULT_NAME.to_owned(),
            way: Way::default(),
            handle_signals: true,
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        }
    }
}

/// Why a node could not be started.
#[derive(Debug)]
pub enum StartError {
    /// Its directory cannot be used.
    Directory(OpenError),
    /// Its address cannot be listened on.
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Its control socket cannot be made.
    Control {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Values that it was told contradict each other.
    Config(InvalidConfig),
    /// The system refused something that every program needs.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory(error) => error.fmt(f),
            StartError::Listen { addr, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "port {} is taken: {error} ({addr}); choose another with --listen IP:PORT",
                    addr.port()
                )
            }
            StartError::Listen { addr, error } => write!(f, "cannot listen on {addr}: {error}"),
            // Only a path that does not fit into a socket's address is refused like this.
            StartError::Control { path, error } if error.kind() == io::ErrorKind::InvalidInput => write!(
                f,
                "the path of the control socket {} is too long for a socket; choose a directory with a shorter path",
                path.display()
            ),
            StartError::Control { path, error } => {
                write!(f, "cannot make the control socket {}: {error}", path.display())
            }
            StartError::Config(error) => error.fmt(f),
            StartError::System(error) => write!(f, "the system refused what the node needs: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}

/// Events taken in one turn.
const EVENTS_PER_TURN: usize = 256;
/// Datagrams taken in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Bytes that the disk driver moves in one turn.
const DISK_BYTES_PER_TURN: u64 = 1 << 20;
/// While other things happen, the time between two slices of what the disk does in its idle time.
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// How old what is known of the free space may be when something happens.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// How long the medium is given to bring what the disk needs in its idle time.
const IDLE_WAIT: Duration = Duration::from_millis(1);
/// Ports that are tried when any that is free for both protocols will do.
const FREE_PORT_TRIES: usize = 32;
/// How long a node that was told to stop goes on to finish what it has begun.
const STOPPING_TIME: Duration = Duration::from_secs(2);

/// Set in the numbers of commands that the embedding program gave.
const EMBEDDED: u64 = 1 << 63;

const UDP: Token = Token(0);
const LISTENER: Token = Token(4);
const CONTROL: Token = Token(8);
const SIGNALS: Token = Token(12);

/// The token of a stream: the classes share the number space by their lowest two bits.
fn stream_token(id: u64) -> Token {
    Token((id << 2 | 1) as usize)
}

fn client_token(id: u64) -> Token {
    Token((id << 2 | 2) as usize)
}

/// A node with everything that it runs on.
pub struct Driver {
    poll: Poll,
    events: Events,
    clock: Clock,
    node: Node,
    disk: Disk,
    udp: Udp,
    listener: TcpListener,
    acceptor: Acceptor,
    streams: Streams,
    outflow: Outflow,
    control: Control,
    requests: Vec<Request>,
    passed: Passed,
    signals: Option<Signals>,
    addr: SocketAddr,
    turns: Histogram,
    /// Commands given through [`command`](Driver::command), and what was answered to them.
    commands: u64,
    responses: VecDeque<(CommandId, Response)>,
    /// Content for the embedding program, in order: as much as the windows of its reads hold.
    contents: VecDeque<(CommandId, Reading)>,
    /// When it was told to stop, the time at which it stops whatever is unfinished.
    stop_at: Option<Instant>,
    /// When it last looked at the node's directory.
    looked_at: Instant,
    /// When the disk may next do what can wait.
    idle_at: Instant,
    /// When the file system was last looked at, and what it had.
    space_at: Instant,
    space: Option<Space>,
}

impl Driver {
    /// Opens directory and sockets. The node is in business as soon as [`run`](Driver::run) is called.
    pub fn start(config: Config) -> Result<Driver, StartError> {
        let (mut disk, recovered, secret) = Disk::open(&config.dir).map_err(StartError::Directory)?;
        disk.keep_open_at_most(config.limits.descriptors_shared_max);
        let (udp, listener, addr) = listen(config.listen)?;
        let control = Control::bind(&config.dir, config.limits.clients_max)?;
        let poll = Poll::new()?;
        let registry = poll.registry();
        let (mut udp, mut listener, mut control) = (udp, TcpListener::from_std(listener), control);
        registry.register(&mut udp.socket, UDP, Interest::READABLE | Interest::WRITABLE)?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        control.register(registry, CONTROL)?;
        let signals = match config.handle_signals {
            true => {
                let ends = [rustix::process::Signal::TERM, rustix::process::Signal::INT];
                let mut signals = Signals::new(ends.map(|signal| signal.as_raw()))?;
                registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
                Some(signals)
            }
            false => None,
        };
        let clock = Clock::start();
        let node_config = NodeConfig {
            limits: config.limits,
            leaf: config.leaf,
            network: config.network,
            listen: addr,
            bootstrap: config.bootstrap,
            replicas: config.replicas,
            lifetime: config.lifetime_seconds,
            cache_dir: disk
                .path_of(&Place::Cache(crate::id::Key([0; 32])))
                .parent()
                .map(PathBuf::from)
                .unwrap_or_default(),
            gossip: config.gossip,
            replication: config.replication,
        };
        let identity = Identity::from_secret(&secret);
        let node = Node::new(node_config, identity, &recovered, clock::entropy()?, clock.now());
        let mut driver = Driver {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            streams: Streams::new(clock.now(), addr, config.way),
            outflow: Outflow::default(),
            clock,
            node: node.map_err(StartError::Config)?,
            disk,
            udp,
            listener,
            acceptor: Acceptor::new(),
            control,
            requests: Vec::new(),
            passed: Passed::default(),
            signals,
            addr,
            turns: Histogram::default(),
            commands: 0,
            responses: VecDeque::new(),
            contents: VecDeque::new(),
            stop_at: None,
            looked_at: Instant::ZERO,
            idle_at: Instant::ZERO,
            space_at: Instant::ZERO,
            space: Some(recovered.space),
        };
        driver.carry_out(driver.clock.now());
        driver.look_at_disk(driver.clock.now());
        Ok(driver)
    }

    /// Where the node listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Who the node is.
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// The node that is driven.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs until SIGTERM, SIGINT or `elver leave`, then leaves in order: the neighbours are told, what is being written is
    /// finished (for two seconds at the most), and the directory is marked as left in order.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_stopped() {
            self.turn(None)?;
        }
        let ages = self.node.ages(self.clock.now());
        if let Err(error) = self.disk.clean_shutdown(ages) {
            // Nothing that was acknowledged hangs on it: the next start looks closer.
            log::warn!("the orderly end could not be written down: {error}");
        }
        Ok(())
    }

    /// One turn of the loop, for programs that have other things to do on the same thread: waits for at most `wait` (for
    /// as long as nothing happens when it is `None`).
    pub fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let timeout = [wait, self.time_left()].into_iter().flatten().min();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        let began = self.clock.now();
        let events = core::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter() {
            self.note(event);
        }
        self.events = events;
        self.receive_datagrams(began);
        self.accept_streams(began);
        self.streams.set_rates(began, self.node.limits().rates);
        self.streams.wake(began);
        self.look_at_space(began);
        self.serve_streams();
        self.serve_clients(began);
        self.run_disk(began);
        self.run_disk_idle(began);
        let now = self.clock.now();
        if self.node.next_deadline().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
            self.carry_out(now);
        }
        self.expire_dials(now);
        if self.looked_at + self.node.look_interval() <= now {
            self.look_at_disk(now);
        }
        self.control.tell(now);
        // What this turn found for clients leaves with it.
        self.serve_clients(now);
        self.send_datagrams();
        self.turns.record(self.clock.now().since(began));
        Ok(())
    }

    /// Gives the node a command of the embedding program's own. Its answers come out of
    /// [`poll_response`](Driver::poll_response).
    pub fn command(&mut self, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(EMBEDDED | self.commands);
        let now = self.clock.now();
        self.node.handle_command(now, id, command);
        self.carry_out(now);
        self.send_datagrams();
        id
    }

    /// The next answer to a command of the embedding program's.
    pub fn poll_response(&mut self) -> Option<(CommandId, Response)> {
        self.responses.pop_front()
    }

    /// Takes the next bytes of a file that the embedding program reads ([`Command::Read`]) into the start of `buffer`; 0 when
    /// none are here. How many have come is said by [`Response::Content`]. More are fetched as these are taken. After an
    /// error the read is over.
    pub fn read_content(&mut self, command: CommandId, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let Some(at) = self.contents.iter().position(|(id, _)| *id == command) else { return Ok(0) };
        let read = match &mut self.contents[at].1 {
            Reading::Open(open) => open.read(buffer).map(|read| (read, open.remaining() == 0)),
            Reading::Waiting(extent) => match self.disk.open_extent(extent) {
                Ok(mut open) => {
                    let read = open.read(buffer);
                    let over = open.remaining() == 0;
                    self.contents[at].1 = Reading::Open(open);
                    read.map(|read| (read, over))
                }
                Err(error) => Err(error),
            },
        };
        match read {
            Ok((read, over)) => {
                if over {
                    self.contents.remove(at);
                }
                let now = self.clock.now();
                self.node.handle_content_sent(now, command, read as u64);
                self.carry_out(now);
                self.send_datagrams();
                Ok(read)
            }
            Err(error) => {
                self.cancel(command);
                Err(error)
            }
        }
    }

    /// Takes a command of the embedding program's back: a download or a read that nobody else waits for ends.
    pub fn cancel(&mut self, command: CommandId) {
        self.contents.retain(|(id, _)| *id != command);
        let now = self.clock.now();
        self.node.handle_cancel(now, command);
        self.carry_out(now);
        self.send_datagrams();
    }

    /// Asks the loop to end in order. A program that turns it itself calls this and then [`run`](Driver::run), which returns
    /// when what was begun is finished.
    pub fn stop(&mut self) {
        if self.stop_at.is_none() {
            let now = self.clock.now();
            self.node.shut_down(now);
            self.begin_stopping(now);
            self.carry_out(now);
            self.send_datagrams();
        }
    }

    /// Whether it was told to stop: what remains is to call [`run`](Driver::run).
    pub fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    fn begin_stopping(&mut self, now: Instant) {
        self.stop_at.get_or_insert(now + STOPPING_TIME);
    }

    fn is_stopped(&mut self) -> bool {
        let Some(at) = self.stop_at else { return false };
        let finished = !self.disk.has_work() && !self.control.has_backlog() && self.udp.is_writable();
        finished || self.clock.now() >= at
    }

    /// How long the poll may wait; `None` is until something happens.
    fn time_left(&self) -> Option<Duration> {
        let ready = (self.udp.readable && self.stop_at.is_none())
            || self.acceptor.is_ready()
            || self.streams.has_ready()
            || self.control.has_ready(self.node.limits(), &self.disk)
            || self.disk.has_work();
        if ready {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.node.next_deadline(),
            self.streams.next_dial_deadline(),
            self.control.next_deadline(),
            self.streams.next_wake(),
            self.acceptor.next_deadline(),
            self.streams.next_dial_retry(),
            self.stop_at,
            Some(self.looked_at + self.node.look_interval()),
            self.disk.has_idle_work().then_some(self.idle_at),
        ];
        deadlines.into_iter().flatten().min().map(|at| at.since(self.clock.now()))
    }

    fn note(&mut self, event: &mio::event::Event) {
        let token = event.token();
        match token {
            UDP => {
                self.udp.readable |= event.is_readable();
                if event.is_writable() {
                    self.udp.set_writable();
                }
            }
            LISTENER => self.acceptor.note_ready(),
            CONTROL => self.control.note_listener(),
            SIGNALS => {
                if self.signals.as_mut().is_some_and(|signals| signals.pending().next().is_some()) {
                    self.stop();
                }
            }
            Token(number) if number & 3 == 1 => {
                // Errors and hang-ups show when the stream is read or written.
                let broken = event.is_error() || event.is_read_closed() || event.is_write_closed();
                self.streams.note(number >> 2, event.is_readable() || broken, event.is_writable() || broken);
            }
            Token(number) => {
                let hung_up = event.is_write_closed();
                self.control.note(number >> 2, hung_up, client_token);
            }
        }
    }

    fn receive_datagrams(&mut self, now: Instant) {
        // After its goodbye a node answers no more: an answer would say that it is back.
        if self.stop_at.is_some() {
            return;
        }
        let mut buffer = [0; crate::wire::datagram::DATAGRAM_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some((length, from)) = self.udp.receive(&mut buffer) else { break };
            self.node.handle_datagram(now, from, &buffer[..length]);
            self.carry_out(now);
            self.send_datagrams();
        }
    }

    fn send_datagrams(&mut self) {
        while self.udp.is_writable() {
            let Some(datagram) = self.node.poll_datagram() else { break };
            self.udp.send(datagram.to(), datagram.bytes());
        }
    }

    fn serve_clients(&mut self, now: Instant) {
        let registry = self.poll.registry();
        self.control.accept(now, registry, client_token);
        let limits = self.node.limits();
        self.control.serve(limits, &self.disk, &mut self.outflow, registry, &mut self.requests);
        for request in core::mem::take(&mut self.requests) {
            match request {
                Request::Command(id, command, descriptor) => {
                    log::debug!("command {id:?}: {}", name_of(&command));
                    if let Some(descriptor) = descriptor {
                        self.passed.take(id, &command, descriptor, &mut self.disk);
                    }
                    self.node.handle_command(now, id, command);
                }
                Request::Cancel(id) => self.node.handle_cancel(now, id),
                Request::Sent(id, bytes) => self.node.handle_content_sent(now, id, bytes),
            }
            self.carry_out(now);
        }
    }

    fn run_disk(&mut self, now: Instant) {
        if self.disk.has_work() {
            self.disk.run(DISK_BYTES_PER_TURN);
        }
        while let Some(done) = self.disk.poll_done() {
            self.node.handle_disk(now, done);
            self.carry_out(now);
        }
    }

    /// Tells the node what the file system has left, before what comes in this turn is judged by it.
    fn look_at_space(&mut self, now: Instant) {
        if now < self.space_at + SPACE_EVERY {
            return;
        }
        self.space_at = now;
        let space = self.disk.space();
        if space != self.space {
            self.space = space;
            if let Some(space) = space {
                self.node.handle_space(now, space);
                self.carry_out(now);
            }
        }
    }

    /// Gives what can wait its turn: one after the other while nothing else happens, rarely while something does.
    fn run_disk_idle(&mut self, now: Instant) {
        if !self.disk.has_idle_work() || now < self.idle_at {
            return;
        }
        let busy = self.disk.has_work() || self.streams.has_ready() || !self.events.is_empty();
        let read = self.disk.run_idle();
        self.idle_at = match (busy, read) {
            (true, _) => now + IDLE_PAUSE,
            (false, true) => now,
            (false, false) => now + IDLE_WAIT,
        };
        while let Some(done) = self.disk.poll_done() {
            self.node.handle_disk(now, done);
            self.carry_out(now);
        }
    }

    fn look_at_disk(&mut self, now: Instant) {
        self.looked_at = now;
        self.disk.tend();
        self.control.tend(self.poll.registry(), CONTROL);
        let look = self.disk.look(!self.node.disk_is_well());
        self.node.handle_disk_look(now, look);
        self.carry_out(now);
    }

    /// Carries out what the node wants, until it wants nothing more.
    fn carry_out(&mut self, now: Instant) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Stream(output) => match output {
                    StreamOutput::Connect { dial, contact, until } => {
                        self.connect(now, dial, contact.addr, until)
                    }
                    StreamOutput::Write { stream, bytes } => self.queue_bytes(stream, &bytes),
                    StreamOutput::SendFile { stream, extent } => self.queue_extent(stream, extent),
                    StreamOutput::Sink { stream, sink } => self.open_sink(now, stream, &sink),
                    StreamOutput::Close { stream } => self.close(stream),
                },
                Output::Disk { id, op } => self.disk.submit(id, op),
                Output::Respond { command, mut response } => {
                    if let Response::Done(Reply::Status(status)) = &mut response {
                        self.add_turns(status);
                    }
                    self.passed.answered(command, &mut response, &mut self.disk);
                    match command.0 & EMBEDDED {
                        0 => self.control.respond(now, command, response),
                        _ => self.responses.push_back((command, response)),
                    }
                }
                Output::Content { command, content, extent } => match command.0 & EMBEDDED {
                    0 => self.control.send_content(command, content, extent, &self.disk),
                    _ => {
                        self.contents.push_back((command, Reading::Waiting(extent)));
                        self.responses.push_back((command, Response::Content(content)));
                    }
                },
                Output::Stop => self.begin_stopping(now),
            }
        }
    }

    fn add_turns(&self, status: &mut Status) {
        let turns = [
            ("streams_turned_away", self.acceptor.turned_away()),
            ("turns", self.turns.count()),
            ("turn_micros_p50", self.turns.quantile_micros(500)),
            ("turn_micros_p99", self.turns.quantile_micros(990)),
            ("turn_micros_max", self.turns.max_micros()),
        ];
        status.counters.extend(turns.map(|(name, value)| (name.to_owned(), value)));
    }
}

/// Content for the embedding program.
enum Reading {
    /// Not opened yet.
    Waiting(Extent),
    /// What is left of it.
    Open(OpenExtent),
}

fn name_of(command: &Command) -> &'static str {
    match command {
        Command::Put { .. } => "put",
        Command::Get { .. } => "get",
        Command::Explain { .. } => "explain",
        Command::Remove { .. } => "rm",
        Command::List { .. } => "ls",
        Command::Set { .. } => "set",
        Command::Unset { .. } => "unset",
        Command::Values => "values",
        Command::Lookup { .. } => "lookup",
        Command::Peers => "peers",
        Command::Status => "status",
        Command::Scrub { .. } => "scrub",
        Command::Id => "id",
        Command::Leave { .. } => "leave",
        Command::Limit { .. } => "limit",
        Command::Read { .. } => "read",
        Command::Forgive { .. } => "forgive",
    }
}

/// Binds UDP and TCP to one port. Without an address, to every address that the system has.
fn listen(addr: Option<SocketAddr>) -> Result<(Udp, std::net::TcpListener, SocketAddr), StartError> {
    let bind = |addr: SocketAddr| bind_both(addr).map_err(|error| StartError::Listen { addr, error });
    match addr {
        Some(addr) => bind(addr),
        None => {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
            match bind(any) {
                // Linux without IPv6.
                Err(StartError::Listen { error, .. }) if error.kind() != io::ErrorKind::AddrInUse => {
                    bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)))
                }
                bound => bound,
            }
        }
    }
}

/// With port 0, a port that is free for both: the system chooses one that is free for UDP, which may be taken for TCP.
fn bind_both(addr: SocketAddr) -> io::Result<(Udp, std::net::TcpListener, SocketAddr)> {
    let tries = if addr.port() == 0 { FREE_PORT_TRIES } else { 1 };
    for _ in 1..tries {
        match bind_once(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    bind_once(addr)
}

fn bind_once(mut addr: SocketAddr) -> io::Result<(Udp, std::net::TcpListener, SocketAddr)> {
    let open = |addr: SocketAddr, kind: Type, protocol: Protocol| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if kind == Type::STREAM {
            // A node that was killed may come back at once to the port that it had.
            socket.set_reuse_address(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let udp = open(addr, Type::DGRAM, Protocol::UDP)?;
    let udp = std::net::UdpSocket::from(udp);
    addr.set_port(udp.local_addr()?.port());
    let tcp = open(addr, Type::STREAM, Protocol::TCP)?;
    tcp.listen(128)?;
    let udp = Udp::new(mio::net::UdpSocket::from_std(udp), addr.is_ipv6());
    Ok((udp, tcp.into(), addr))
}

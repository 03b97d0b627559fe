//! The mio driver: one thread, one poll, every socket, timer and file operation of a node.
//!
//! mio is edge-triggered: it reports once that a socket has become ready. So each source remembers whether it is ready and is
//! drained until it returns `WouldBlock`. A source that uses up its budget for this turn before that stays on the list of
//! ready sources, and the next poll does not wait. A turn polls, notes which sources became ready, serves them within budgets,
//! gives the disk its budget, fires the timer, carries out the node's outputs and sends its datagrams. The node's outputs are
//! carried out after every single input, in order, before the next input is given.
//!
//! The numbers of streams and control clients are never used again, so an event for a connection that is closed is dropped.
//!
//! - Streams to peers: `streams` is their table, `stream` one of them, `serve` serves them, `dials` opens them.
//! - `acceptor` accepts connections, also when descriptors run out; `outbox` sends bytes and files; `throttle` limits rates.
//! - `listen` binds the sockets. `udp`: datagrams. `control`: the clients on the control socket. `passed`: files that they pass as
//!   descriptors.
//! - `http`: the HTTP gateway.
//! - `config`: what a program decides.
//! - `resolver`: host names of bootstrap nodes.
//! - `addresses`: the addresses of this machine, and when they change.
//! - `lan`: the multicast groups on which nodes of one link find each other.
//! - `events`: what happened, for clients that watch.
//! - `embedded`: the commands of the program that embeds the driver. `clock`, `histogram`: the time, and how long turns take.

mod acceptor;
mod addresses;
mod calibration;
mod clock;
mod config;
mod control;
mod dials;
mod embedded;
mod error;
mod events;
mod histogram;
mod http;
mod lan;
mod listen;
mod outbox;
mod passed;
mod resolver;
mod serve;
mod stream;
mod streams;
#[cfg(test)]
mod testing;
mod throttle;
mod udp;

use crate::disk::{Disk, Outflow};
use crate::id::NodeId;
use crate::identity::Identity;
use crate::io::{Place, Space};
use crate::node::command::{Event, Reply, Response, Status};
use crate::node::{Node, NodeConfig, Output};
use crate::time::{Duration, Instant};
use acceptor::Acceptor;
use addresses::Addresses;
use clock::Clock;
pub(crate) use clock::entropy;
pub use config::{Config, ControlSocket, HttpConfig};
use control::{Control, Request};
use core::net::SocketAddr;
use dials::Dials;
use embedded::Embedded;
pub use error::StartError;
use events::Feed;
use histogram::Histogram;
use http::Http;
pub use http::HttpToken;
#[cfg(feature = "sim")]
pub use http::try_requests;
use lan::Lan;
use listen::listen;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use passed::Passed;
use resolver::Resolver;
use signal_hook_mio::v1_0::Signals;
use std::io;
use std::path::PathBuf;
use streams::Streams;
use udp::{Batch, Udp};

/// The control socket's name in the node's directory.
pub const CONTROL_SOCKET: &str = "control.sock";

pub use control::address::{connect as connect_control, is_of_other_user};

pub use crate::node::{BootstrapNode, DEFAULT_PORT};
pub use lan::{LAN_GROUP_V4, LAN_GROUP_V6, LAN_PORT};

/// Events that one poll returns at most.
const EVENTS_PER_TURN: usize = 256;
/// Datagrams received in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Datagrams received from the links' groups in one turn.
const HERES_PER_TURN: usize = 16;
/// Bytes that the disk driver moves in one turn.
const DISK_BYTES_PER_TURN: u64 = 1 << 20;
/// The time between two slices of idle work while the node is busy.
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// The time after which a turn reads the free space again.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// The pause after a slice of idle work that read nothing: the medium has time to complete the read-ahead.
const IDLE_WAIT: Duration = Duration::from_millis(1);
/// The time that a node has to finish pending writes after it was told to stop.
const STOPPING_TIME: Duration = Duration::from_secs(2);

const UDP: Token = Token(0);
const LISTENER: Token = Token(4);
const CONTROL: Token = Token(8);
const SIGNALS: Token = Token(12);
const ADDRESSES: Token = Token(16);
const HTTP: Token = Token(20);
const RESOLVED: Token = Token(24);
const LAN: [Token; 2] = [Token(28), Token(32)];

/// The token of a stream. The lowest two bits tell the classes of tokens apart.
fn stream_token(id: u64) -> Token {
    Token((id << 2 | 1) as usize)
}

fn client_token(id: u64) -> Token {
    Token((id << 2 | 2) as usize)
}

fn http_token(id: u64) -> Token {
    Token((id << 2 | 3) as usize)
}

/// A node with its sockets, its disk and its clock.
pub struct Driver {
    poll: Poll,
    events: Events,
    clock: Clock,
    node: Node,
    disk: Disk,
    udp: Udp,
    batch: Batch,
    listener: TcpListener,
    acceptor: Acceptor,
    streams: Streams,
    dials: Dials,
    outflow: Outflow,
    control: Control,
    http: Option<Http>,
    requests: Vec<Request>,
    passed: Passed,
    signals: Option<Signals>,
    /// Whether SIGHUP has come since the program asked.
    hung_up: bool,
    addr: SocketAddr,
    addresses: Addresses,
    resolver: Resolver,
    /// `None` while discovery is off.
    lan: Option<Lan>,
    turns: Histogram,
    /// The commands given through [`command`](Driver::command).
    embedded: Embedded,
    feed: Feed,
    /// After an order to stop: when the loop ends, even if work is unfinished.
    stop_at: Option<Instant>,
    /// When the node's directory was last checked.
    looked_at: Instant,
    /// When the disk may next do idle work.
    idle_at: Instant,
    /// When the free space was last read, and the result.
    space_at: Instant,
    space: Option<Space>,
}

impl Driver {
    /// Opens directory and sockets. The node works once [`run`](Driver::run) or [`turn`](Driver::turn) is called.
    pub fn start(config: Config) -> Result<Driver, StartError> {
        let (mut disk, recovered, secret) =
            Disk::open_with(&config.dir, config.id_work).map_err(StartError::Directory)?;
        disk.keep_open_at_most(config.limits.descriptors_shared_max);
        let (udp, listener, addr) = listen(config.listen)?;
        let control = Control::bind(&config.dir, config.control, config.limits.clients_max)?;
        let http_clients_max = config.limits.http_clients_max;
        let mut http = config.http.map(|http| Http::bind(&http, http_clients_max)).transpose()?;
        let poll = Poll::new()?;
        let registry = poll.registry();
        let (mut udp, mut listener, mut control) = (udp, TcpListener::from_std(listener), control);
        registry.register(&mut udp.socket, UDP, Interest::READABLE | Interest::WRITABLE)?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        control.register(registry, CONTROL)?;
        if let Some(http) = &mut http {
            http.register(registry, HTTP)?;
            log::info!("the HTTP gateway is at http://{}/", http.addr());
        }
        let signals = match config.handle_signals {
            true => {
                use rustix::process::Signal;
                let handled = [Signal::TERM, Signal::INT, Signal::HUP];
                let mut signals = Signals::new(handled.map(Signal::as_raw))?;
                registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
                Some(signals)
            }
            false => None,
        };
        let clock = Clock::start();
        let (mut bootstrap, mut bootstrap_names) = (Vec::new(), Vec::new());
        for node in config.bootstrap {
            match node {
                BootstrapNode::At(addr) => bootstrap.push(addr),
                BootstrapNode::Named(name) => bootstrap_names.push(name),
            }
        }
        let addresses = Addresses::watch(clock.now(), registry, ADDRESSES);
        // A loopback address is on no link, so commands need not wait for answers from there.
        let on_links = config.lan && !addr.ip().is_loopback();
        let lan = on_links.then(|| Lan::start(addr.ip(), registry, LAN));
        let node_config = NodeConfig {
            limits: config.limits,
            leaf: config.leaf,
            network: config.network,
            network_secret: config.network_secret,
            id_work: config.id_work,
            listen: addr,
            bootstrap,
            bootstrap_names,
            lan: on_links,
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
        let node = Node::new(node_config, identity, &recovered, entropy()?, clock.now());
        let mut driver = Driver {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            streams: Streams::new(clock.now(), config.way),
            dials: Dials::new(addr),
            outflow: Outflow::default(),
            clock,
            node: node.map_err(StartError::Config)?,
            disk,
            udp,
            batch: Batch::new(),
            listener,
            acceptor: Acceptor::new(),
            control,
            http,
            requests: Vec::new(),
            passed: Passed::default(),
            signals,
            hung_up: false,
            addr,
            addresses,
            resolver: Resolver::new(),
            lan,
            turns: Histogram::default(),
            embedded: Embedded::default(),
            feed: Feed::new(),
            stop_at: None,
            looked_at: Instant::ZERO,
            idle_at: Instant::ZERO,
            space_at: Instant::ZERO,
            space: Some(recovered.space),
        };
        driver.node.calibrate(calibration::checks_per_second(&driver.clock));
        driver.carry_out(driver.clock.now());
        driver.look_at_disk(driver.clock.now());
        Ok(driver)
    }

    /// The address that the node listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// The node that this driver runs.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs until SIGTERM, SIGINT or `elver leave`, then stops in order: the node says goodbye to its neighbours, finishes
    /// pending writes (for at most two seconds) and records the clean shutdown in its directory.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_stopped() {
            self.turn(None)?;
        }
        let ages = self.node.ages(self.clock.now());
        if let Err(error) = self.disk.clean_shutdown(ages) {
            // Without the record the next start checks more. No acknowledged byte depends on it.
            log::warn!("cannot record the clean shutdown: {error}; the next start checks the directory");
        }
        Ok(())
    }

    /// Runs one turn of the loop, for programs that do other work on the same thread. Waits for at most `wait`; `None` waits
    /// until an event or a deadline.
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
        self.receive_heres(began);
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
        self.tend_dials(now);
        self.look_at_addresses(now);
        self.take_resolved(now);
        if self.looked_at + self.node.look_interval() <= now {
            self.look_at_disk(now);
        }
        self.tell_events(now);
        self.control.tell(now);
        // The responses of this turn leave in this turn.
        self.serve_clients(now);
        self.send_datagrams();
        self.turns.record(self.clock.now().since(began));
        Ok(())
    }

    /// Begins an orderly stop. A program that calls [`turn`](Driver::turn) itself calls this and then [`run`](Driver::run),
    /// which returns when pending writes are finished.
    pub fn stop(&mut self) {
        if self.stop_at.is_none() {
            let now = self.clock.now();
            self.node.shut_down(now);
            self.begin_stopping(now);
            self.carry_out(now);
            self.send_datagrams();
        }
    }

    /// Whether the node was told to stop. The program then calls [`run`](Driver::run) to finish.
    pub fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    /// Whether SIGHUP has come since the last call: the program may read its configuration again. Without
    /// [`Config::handle_signals`] it never comes here.
    pub fn take_hangup(&mut self) -> bool {
        core::mem::take(&mut self.hung_up)
    }

    fn begin_stopping(&mut self, now: Instant) {
        self.stop_at.get_or_insert(now + STOPPING_TIME);
    }

    fn is_stopped(&mut self) -> bool {
        let Some(at) = self.stop_at else { return false };
        let finished = !self.disk.has_work()
            && !self.control.has_backlog()
            && self.node.queued_datagrams().next().is_none();
        finished || self.clock.now() >= at
    }

    /// How long the poll may wait; `None` is until an event.
    fn time_left(&self) -> Option<Duration> {
        let receives = self.udp.readable || self.lan.as_ref().is_some_and(Lan::is_ready);
        let ready = (receives && self.stop_at.is_none())
            || self.acceptor.is_ready()
            || self.streams.has_ready()
            || self.control.has_ready(self.node.limits(), &self.disk)
            || self.http.as_ref().is_some_and(Http::has_ready)
            || self.disk.has_work();
        if ready {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.node.next_deadline(),
            self.streams.next_dial_deadline(),
            self.control.next_deadline(),
            self.http.as_ref().and_then(Http::next_deadline),
            self.streams.next_wake(),
            self.acceptor.next_deadline(),
            self.dials.next_retry(),
            self.stop_at,
            self.addresses.next_deadline(),
            Some(self.looked_at + self.node.look_interval()),
            self.disk.has_idle_work().then_some(self.idle_at),
            self.feed.next_look(self.clock.now()),
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
            token if LAN.contains(&token) => {
                self.lan.iter_mut().for_each(|lan| lan.note_readable(token));
            }
            LISTENER => self.acceptor.note_ready(),
            CONTROL => self.control.note_listener(),
            HTTP => {
                if let Some(http) = &mut self.http {
                    http.note_listener();
                }
            }
            // The results are taken in each turn.
            RESOLVED => {}
            ADDRESSES => self.addresses.note_announced(self.clock.now()),
            SIGNALS => self.take_signals(),
            Token(number) if number & 3 == 1 => {
                // Reading or writing the stream returns the error.
                let broken = event.is_error() || event.is_read_closed() || event.is_write_closed();
                self.streams.note(number >> 2, event.is_readable() || broken, event.is_writable() || broken);
            }
            Token(number) if number & 3 == 3 => {
                let hung_up = event.is_write_closed() || event.is_error();
                if let Some(http) = &mut self.http {
                    http.note(number >> 2, hung_up, http_token);
                }
            }
            Token(number) => {
                let hung_up = event.is_write_closed();
                self.control.note(number >> 2, hung_up, client_token);
            }
        }
    }

    fn take_signals(&mut self) {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(|signals| signals.pending()).collect();
        let (hangups, ends): (Vec<i32>, Vec<i32>) =
            pending.into_iter().partition(|&signal| signal == rustix::process::Signal::HUP.as_raw());
        self.hung_up |= !hangups.is_empty();
        if !ends.is_empty() {
            self.stop();
        }
    }

    fn receive_datagrams(&mut self, now: Instant) {
        // After its goodbye a node sends no answers: an answer would tell its neighbours that it is back.
        if self.stop_at.is_some() {
            return;
        }
        for _ in 0..DATAGRAMS_PER_TURN / udp::BATCH {
            self.udp.receive(&mut self.batch);
            if self.batch.len() == 0 {
                break;
            }
            for index in 0..self.batch.len() {
                let Some((from, bytes)) = self.batch.get(index) else { break };
                self.node.handle_datagram(now, from, bytes);
                self.carry_out(now);
                // The answers to one batch leave together, unless they would not fit the queue.
                if self.node.queued_datagrams().nth(udp::BATCH).is_some() {
                    self.send_datagrams();
                }
            }
            self.send_datagrams();
        }
    }

    /// Receives what other nodes tell the links of this machine.
    fn receive_heres(&mut self, now: Instant) {
        let mut budget = HERES_PER_TURN;
        loop {
            let lan = self.lan.as_mut().filter(|_| self.stop_at.is_none());
            let Some((from, bytes)) = lan.and_then(|lan| lan.receive(&mut budget)) else { return };
            self.node.handle_here(now, from, bytes);
            self.carry_out(now);
        }
    }

    fn send_datagrams(&mut self) {
        while self.udp.is_writable() {
            let sent = self.udp.send(self.node.queued_datagrams());
            if sent == 0 {
                break;
            }
            self.node.datagrams_sent(sent);
        }
    }

    fn serve_clients(&mut self, now: Instant) {
        let registry = self.poll.registry();
        self.control.accept(now, registry, client_token);
        let limits = self.node.limits();
        self.control.serve(now, limits, &self.disk, &mut self.outflow, registry, &mut self.requests);
        if let Some(http) = &mut self.http {
            http.accept(now, registry, http_token);
            http.tend(now, registry, &mut self.requests);
            http.serve(now, &self.disk, &mut self.outflow, registry, &mut self.requests);
        }
        for request in core::mem::take(&mut self.requests) {
            match request {
                Request::Command(id, command, descriptor) => {
                    log::debug!("command {id:?}: {}", command.name());
                    if let Some(descriptor) = descriptor {
                        self.passed.take(id, &command, descriptor, &mut self.disk);
                    }
                    self.obey(now, id, command);
                }
                Request::Cancel(id) if self.feed.cancel(id) => {}
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

    /// Tells the node the free space, before it admits anything that arrives in this turn.
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

    /// Runs a slice of the disk's idle work, such as scrub: one after the other while the node is idle, one every
    /// [`IDLE_PAUSE`] while it is busy.
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

    /// Tells the node the addresses of this machine when they have changed.
    fn look_at_addresses(&mut self, now: Instant) {
        if let Some(addresses) = self.addresses.look(now) {
            self.lan.iter_mut().for_each(Lan::look);
            self.node.handle_addresses(now, addresses);
            self.carry_out(now);
        }
    }

    /// Tells the node the addresses of the names that were resolved.
    fn take_resolved(&mut self, now: Instant) {
        while let Some((name, result)) = self.resolver.poll_resolved(self.poll.registry(), RESOLVED) {
            self.node.handle_resolved(now, &name, result);
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

    /// Carries out an output of the node that is not for a stream.
    fn carry_out_other(&mut self, now: Instant, output: Output) {
        match output {
            Output::Disk { id, op } => {
                if let Some(place) = op.vacates() {
                    self.streams.open_extents_at(place, &self.disk);
                }
                self.disk.submit(id, op);
            }
            Output::Respond { command, mut response } => {
                if let Response::Done(Reply::Status(status)) = &mut response {
                    self.add_loop_counters(status);
                }
                self.passed.answered(command, &mut response, &mut self.disk);
                if let Some(event) = Event::of(&response) {
                    self.feed.add(event);
                }
                self.respond(now, command, response);
            }
            Output::Opened { command, file_length } => {
                if let Some(http) = self.http.as_mut().filter(|_| Http::is_own(command)) {
                    http.open(command, file_length);
                }
            }
            Output::Content { command, content, extent } => match (&mut self.http, Embedded::is_own(command))
            {
                (_, true) => self.embedded.send_content(command, content, extent),
                (Some(http), _) if Http::is_own(command) => http.send_content(command, extent, &self.disk),
                _ => self.control.send_content(command, content, extent, &self.disk),
            },
            Output::Here { bytes } => {
                if !self.lan.iter_mut().any(|lan| lan.tell(&self.udp.socket, &bytes)) {
                    self.node.here_was_lost();
                }
            }
            Output::Resolve { name } => self.resolver.submit(name, self.poll.registry(), RESOLVED),
            Output::Stop => self.begin_stopping(now),
        }
    }

    fn add_loop_counters(&self, status: &mut Status) {
        let turns = [
            ("streams_turned_away", self.acceptor.turned_away()),
            ("turns", self.turns.count()),
            ("lan_off_link", self.lan.as_ref().map_or(0, |lan| lan.off_link)),
            ("turn_micros_p50", self.turns.quantile_micros(500)),
            ("turn_micros_p99", self.turns.quantile_micros(990)),
            ("turn_micros_max", self.turns.max_micros()),
        ];
        let http = self.http.iter().flat_map(|http| http.counters().named());
        status.counters.extend(turns.into_iter().chain(http).map(|(name, value)| (name.to_owned(), value)));
        status.http = self.http.as_ref().map(Http::addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_streams_of_clients_and_of_the_loop_itself_differ() {
        for id in [0, 1, 2, 3, 4, 5, 1 << 40] {
            assert_eq!(stream_token(id).0 & 3, 1);
            assert_eq!(client_token(id).0 & 3, 2);
            assert_eq!(http_token(id).0 & 3, 3);
        }
        for token in [UDP, LISTENER, CONTROL, SIGNALS, ADDRESSES, HTTP, RESOLVED, LAN[0], LAN[1]] {
            assert_eq!(token.0 & 3, 0);
        }
    }
}

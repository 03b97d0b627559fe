//! The HTTP gateway: files by their addresses, for clients that know nothing of Elver.
//!
//! `GET /HASH` streams a file, or a range of it, while it arrives. The bytes come from a read of the node (`Command::Read`), so they
//! are verified, pass through a window, and leave by sendfile(2). The gateway keeps nothing of them.
//!
//! [`Http`] owns the listener and the [`connection`]s and maps commands to connections. Pure code decides what a request means:
//! [`request`] parses, [`access`] allows, [`route`] and [`api`] decide, [`range`] selects bytes, [`media`] names types, [`answer`]
//! writes heads, [`metrics`] what Prometheus reads, [`page`] is what a browser shows. [`pace`] tells which readers are too slow; [`counters`] counts.
//!
//! Everything is bounded: connections, bytes of a request, requests under way of a connection (one), answers in memory, and the time
//! of every wait.

mod access;
mod answer;
mod api;
mod connection;
mod counters;
mod media;
mod metrics;
mod pace;
mod page;
mod range;
mod request;
mod route;
#[cfg(test)]
mod tests;
#[cfg(feature = "sim")]
mod trial;

pub use access::HttpToken;
#[cfg(feature = "sim")]
pub use trial::try_requests;

use super::acceptor::{Accepted, Acceptor, SHORTAGE_PAUSE};
use super::control::Request;
use super::{HttpConfig, StartError};
use crate::disk::{Disk, Outflow};
use crate::io::Extent;
use crate::limits::Limits;
use crate::node::command::{CommandId, Failure, FailureReason, Response};
use crate::time::{Instant, earliest};
use access::Access;
use connection::{Connection, Expired, Served};
use core::net::SocketAddr;
use counters::Counters;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;

/// The low bits of the number of a connection, and of its commands, that hold the connection's index in the slab.
const INDEX_BITS: u32 = 12;
/// This bit is set in the ids of the gateway's commands.
const HTTP: u64 = 1 << 62;
/// Connections beyond the limit that are accepted to be told so. More wait until one of these leaves.
const SURPLUS_MAX: usize = 8;
/// Unsent bytes of content that the kernel holds for one connection. With more, the gateway would not see how slowly a client reads.
const UNSENT_BYTES: u32 = 128 << 10;

const _: () = assert!(crate::limits::CLIENTS_MAX <= 1 << INDEX_BITS);

/// The gateway's listener and its connections.
pub(super) struct Http {
    listener: TcpListener,
    addr: SocketAddr,
    access: Access,
    acceptor: Acceptor,
    connections: Slab<Connection>,
    connections_max: usize,
    /// Counts connections and commands together: no two have the same number.
    counter: u64,
    /// Connections that may be able to read, write or take a request.
    ready: VecDeque<usize>,
    /// When connections are served again that wait for a descriptor.
    short_until: Option<Instant>,
    counters: Counters,
}

fn index_of(number: u64) -> usize {
    (number & ((1 << INDEX_BITS) - 1)) as usize
}

impl Http {
    /// Listens. An address that other machines reach is refused without a token.
    pub(super) fn bind(config: &HttpConfig, connections_max: usize) -> Result<Http, StartError> {
        let addr = config.listen;
        let access = Access::new(addr, config.token).ok_or(StartError::HttpExposed(addr))?;
        let listen = || {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            let addr = listener.local_addr()?;
            Ok((TcpListener::from_std(listener), addr))
        };
        let (listener, addr) = listen().map_err(|error| StartError::Http { addr, error })?;
        Ok(Http {
            listener,
            addr,
            access,
            acceptor: Acceptor::new(),
            connections: Slab::new(),
            connections_max,
            counter: 0,
            ready: VecDeque::new(),
            short_until: None,
            counters: Counters::default(),
        })
    }

    // Getters.

    /// The address that it listens on.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether a command is the gateway's.
    pub(super) fn is_own(command: CommandId) -> bool {
        command.0 & HTTP != 0
    }

    /// What it has counted.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether [`serve`](Http::serve) or [`accept`](Http::accept) has something to do.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || self.acceptor.is_ready() && self.has_room()
    }

    /// When [`tend`](Http::tend) or [`accept`](Http::accept) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = self.connections.iter().filter_map(|(_, connection)| connection.next_deadline()).min();
        let own = earliest(own, self.short_until);
        earliest(own, self.acceptor.next_deadline().filter(|_| self.has_room()))
    }

    /// Whether a further connection can at least be told that there is no room.
    fn has_room(&self) -> bool {
        self.connections.len() < self.connections_max + SURPLUS_MAX
    }

    // Inputs.

    /// Registers the listener with the poll.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        registry.register(&mut self.listener, token, Interest::READABLE)
    }

    /// Notes that the listener became ready.
    pub(super) fn note_listener(&mut self) {
        self.acceptor.note_ready();
    }

    /// Notes that a connection's socket became ready, or that the client has `hung_up`. `number` is the connection's number, truncated
    /// to the width of mio's tokens; `token` makes the connection's token, for comparison.
    pub(super) fn note(&mut self, number: usize, hung_up: bool, token: impl Fn(u64) -> Token) {
        let index = index_of(number as u64);
        let connection = self.connections.get_mut(index);
        let Some(connection) = connection.filter(|connection| token(connection.id).0 >> 2 == number) else {
            return;
        };
        if hung_up {
            connection.hang_up();
        }
        self.enqueue(index);
    }

    /// Accepts connections. `token` makes a connection's token from its number.
    pub(super) fn accept(&mut self, now: Instant, registry: &Registry, token: impl Fn(u64) -> Token) {
        while self.has_room() {
            match self.acceptor.accept(now, "an HTTP connection", || self.listener.accept()) {
                Accepted::New((mut socket, _)) => {
                    let surplus =
                        self.connections.len() >= self.connections_max && !self.replace_idle(registry);
                    let id = self.fresh_number(self.connections.vacant_key());
                    let options = socket2::SockRef::from(&socket);
                    // A kernel without these options serves slower.
                    let _ = options.set_tcp_nodelay(true).and(options.set_tcp_notsent_lowat(UNSENT_BYTES));
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = registry.register(&mut socket, token(id), interest) {
                        log::warn!("cannot serve an HTTP connection: {error}");
                        continue;
                    }
                    self.counters.connections += 1;
                    self.connections.insert(Connection::new(now, id, socket, surplus));
                }
                // It is closed.
                Accepted::Surplus(_) => self.counters.turned_away += 1,
                Accepted::None => return,
            }
        }
    }

    /// Closes the connection that has been idle, to make room. False when there is none.
    fn replace_idle(&mut self, registry: &Registry) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| connection.is_idle());
        // The one whose time ends first has been idle for the longest.
        let oldest = idle.min_by_key(|(_, connection)| connection.next_deadline()).map(|(index, _)| index);
        let Some(index) = oldest else { return false };
        self.counters.connections_replaced += 1;
        self.remove(index, registry);
        true
    }

    /// Serves each ready connection once.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        disk: &Disk,
        outflow: &mut Outflow,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.queued = false;
            let served = connection.serve(now, disk, outflow, &self.access, &mut self.counters);
            requests.extend(connection.take_sent().map(|(command, bytes)| Request::Sent(command, bytes)));
            match served {
                Served::Dry => {}
                Served::More => self.enqueue(index),
                Served::Asked(command) => {
                    let id = CommandId(HTTP | self.fresh_number(index));
                    let Some(connection) = self.connections.get_mut(index) else { continue };
                    connection.begin(id);
                    if connection.awaits_reply() && self.held_bytes() > Limits::HTTP_ANSWER_BYTES {
                        let Some(connection) = self.connections.get_mut(index) else { continue };
                        let message = "too many answers wait for their clients: try later".to_owned();
                        let busy = Response::Failed(Failure { reason: FailureReason::Busy, message });
                        connection.respond(now, &busy, &mut self.counters);
                    } else {
                        requests.push(Request::Command(id, command, None));
                    }
                    // The client may have hung up already, and no further event would report it.
                    self.enqueue(index);
                }
                Served::Short => self.short_until = Some(now + SHORTAGE_PAUSE),
                Served::Gone => {
                    requests.extend(connection.command().map(Request::Cancel));
                    self.remove(index, registry);
                }
            }
        }
    }

    /// The file that a command reads is found.
    pub(super) fn open(&mut self, command: CommandId, length: u64) {
        if let Some(index) = self.asker(command) {
            self.connections[index].open(length, &mut self.counters);
            self.enqueue(index);
        }
    }

    /// Queues content for the connection that asked for it, if it is still there.
    pub(super) fn send_content(&mut self, command: CommandId, extent: Extent, disk: &Disk) {
        if let Some(index) = self.asker(command) {
            self.connections[index].send_content(extent, disk);
            self.enqueue(index);
        }
    }

    /// Queues the answer for the connection that asked for it, if it is still there.
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: &Response) {
        if let Some(index) = self.asker(command) {
            self.connections[index].respond(now, response, &mut self.counters);
            self.enqueue(index);
        }
    }

    /// Ends the connections whose time is over, and serves those again that waited for a descriptor.
    pub(super) fn tend(&mut self, now: Instant, registry: &Registry, requests: &mut Vec<Request>) {
        if self.short_until.take_if(|until| *until <= now).is_some() {
            let short = self.connections.iter().filter(|(_, connection)| connection.is_short());
            let short: Vec<usize> = short.map(|(index, _)| index).collect();
            short.into_iter().for_each(|index| self.enqueue(index));
        }
        let is_due = |connection: &Connection| connection.next_deadline().is_some_and(|at| at <= now);
        let due = self.connections.iter().filter(|(_, connection)| is_due(connection));
        for index in due.map(|(index, _)| index).collect::<Vec<_>>() {
            let connection = &mut self.connections[index];
            match connection.expire(now, &mut self.counters) {
                Expired::Answered => self.enqueue(index),
                Expired::Cancelled(command) => {
                    requests.push(Request::Cancel(command));
                    self.enqueue(index);
                }
                Expired::Gone => {
                    requests.extend(connection.command().map(Request::Cancel));
                    self.remove(index, registry);
                }
            }
        }
    }

    // Helpers.

    /// The index of the connection that waits for a command.
    fn asker(&self, command: CommandId) -> Option<usize> {
        let index = index_of(command.0);
        self.connections.get(index).filter(|connection| connection.command() == Some(command)).map(|_| index)
    }

    fn held_bytes(&self) -> usize {
        self.connections.iter().map(|(_, connection)| connection.held_bytes()).sum()
    }

    fn remove(&mut self, index: usize, registry: &Registry) {
        let mut connection = self.connections.remove(index);
        let _ = registry.deregister(&mut connection.socket);
    }

    fn enqueue(&mut self, index: usize) {
        if let Some(connection) = self.connections.get_mut(index).filter(|connection| !connection.queued) {
            connection.queued = true;
            self.ready.push_back(index);
        }
    }

    /// A new unique number for the connection in this slot of the slab, or for its command.
    fn fresh_number(&mut self, index: usize) -> u64 {
        self.counter += 1;
        self.counter << INDEX_BITS | index as u64
    }
}

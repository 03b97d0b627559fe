//! The control socket. Clients send commands and receive responses, each a line of JSON. The content of a file that a client
//! reads comes as raw bytes, each run after the line that announces it.
//!
//! Commands with numbers run concurrently on one connection. A command beyond a limit stays unread in its connection until
//! there is room. Connections are served round-robin.
//!
//! [`Control`] owns the socket and its clients and maps commands to clients; a [`client`] owns one connection.

pub(super) mod address;
mod client;
mod lines;
mod place;

use super::acceptor::{Accepted, Acceptor, SHORTAGE_PAUSE};
use super::{ControlSocket, StartError};
use crate::disk::{Disk, Outflow};
use crate::io::Extent;
use crate::limits::Limits;
use crate::node::command::{Command, CommandId, Content, Failure, FailureReason, Response};
use crate::time::{Instant, earliest};
use client::{Client, Lack, Room, Served};
use mio::{Interest, Registry, Token};
use place::Place;
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Commands taken from one client in one turn.
const COMMANDS_PER_TURN: usize = 32;
/// The low bits of the number of a client, and of a command, that hold the client's index in the slab.
const INDEX_BITS: u32 = 12;

const _: () = assert!(crate::limits::CLIENTS_MAX <= 1 << INDEX_BITS);

pub(super) struct Control {
    place: Place,
    clients: Slab<Client>,
    acceptor: Acceptor,
    clients_max: usize,
    /// Counts clients and commands together: no two have the same number.
    counter: u64,
    /// Clients that may be able to read, write or give a command.
    ready: VecDeque<usize>,
    /// Clients whose next command waits for room, in order.
    waiting: VecDeque<(usize, Lack)>,
    /// When clients are served again that wait for a descriptor.
    short_until: Option<Instant>,
}

/// A request of a client to the node.
pub(super) enum Request {
    /// A command, with the descriptor that came with it.
    Command(CommandId, Command, Option<OwnedFd>),
    /// Cancels a command whose client is gone.
    Cancel(CommandId),
    /// The number of content bytes of a command that have left.
    Sent(CommandId, u64),
}

fn index_of(number: u64) -> usize {
    (number & ((1 << INDEX_BITS) - 1)) as usize
}

impl Control {
    /// Binds the socket file, or where the node's directory can hold none the abstract address that clients try next.
    /// It serves at most `clients_max` clients at a time; the others wait in the listener's backlog until one leaves.
    pub(super) fn bind(dir: &Path, socket: ControlSocket, clients_max: usize) -> Result<Self, StartError> {
        let path = socket.path.clone().unwrap_or_else(|| address::socket_in(dir));
        let place = Place::bind(dir, socket).map_err(|error| StartError::Control { path, error })?;
        let (clients, acceptor) = (Slab::new(), Acceptor::new());
        let (ready, waiting) = (VecDeque::new(), VecDeque::new());
        Ok(Control { place, clients, acceptor, clients_max, counter: 0, ready, waiting, short_until: None })
    }

    /// Registers the listener with the poll.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.place.listener, token, Interest::READABLE)
    }

    /// Binds the socket again when its file, or the whole directory, was deleted.
    pub(super) fn tend(&mut self, registry: &Registry, token: Token) {
        if self.place.tend() {
            if let Err(error) = self.register(registry, token) {
                log::warn!("cannot poll the new control socket: {error}");
            }
            self.acceptor.note_ready();
        }
    }

    /// Notes that the listener became ready.
    pub(super) fn note_listener(&mut self) {
        self.acceptor.note_ready();
    }

    /// Accepts new clients while there is room. `token` makes a client's token from its number.
    pub(super) fn accept(&mut self, now: Instant, registry: &Registry, token: impl Fn(u64) -> Token) {
        while self.has_room() {
            match self.acceptor.accept(now, "a control client", || self.place.listener.accept()) {
                Accepted::New((socket, _)) if self.place.is_abstract() && !address::is_served(&socket) => {
                    log::warn!("a control client of another user was turned away");
                }
                Accepted::New((mut socket, _)) => {
                    let key = self.clients.vacant_key();
                    let id = self.fresh_number(key);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = registry.register(&mut socket, token(id), interest) {
                        log::warn!("cannot serve a control client: {error}");
                        continue;
                    }
                    self.clients.insert(Client::new(id, socket));
                }
                Accepted::Surplus((mut socket, _)) => {
                    let message =
                        "the node has no file descriptor left for this client; try later, or raise its limit (ulimit -n)"
                            .to_owned();
                    let refusal = Response::Failed(Failure { reason: FailureReason::Busy, message });
                    let _ = socket.write(&client::line_of(None, &refusal));
                }
                Accepted::None => return,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.clients.len() < self.clients_max
    }

    /// Notes that a client's socket became ready, or that the client has `hung_up`. `number` is the client's number, truncated
    /// to the width of mio's tokens; `token` makes the client's token, for comparison.
    pub(super) fn note(&mut self, number: usize, hung_up: bool, token: impl Fn(u64) -> Token) {
        let index = index_of(number as u64);
        let Some(client) = self.clients.get_mut(index).filter(|client| token(client.id).0 >> 2 == number)
        else {
            return;
        };
        if hung_up {
            client.hang_up();
        }
        self.enqueue(index);
    }

    /// Serves each ready client, and takes up to [`COMMANDS_PER_TURN`] commands from each.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        limits: &Limits,
        disk: &Disk,
        outflow: &mut Outflow,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) {
        self.wake_waiting(limits, disk);
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            let Some(client) = self.clients.get_mut(index) else { continue };
            client.queued = false;
            for _ in 0..COMMANDS_PER_TURN {
                let room = self.room(limits, disk, requests);
                let Some(client) = self.clients.get_mut(index) else { break };
                let served = client.serve(now, disk, outflow, room);
                let sent = client.take_sent().into_iter();
                requests.extend(sent.map(|(command, bytes)| Request::Sent(command, bytes)));
                match served {
                    Served::Dry => break,
                    Served::More => {
                        self.enqueue(index);
                        break;
                    }
                    Served::Asked(asked) => {
                        let id = CommandId(self.fresh_number(index));
                        if let Some(client) = self.clients.get_mut(index) {
                            client.begin(id, &asked);
                        }
                        requests.push(Request::Command(id, asked.command, asked.descriptor));
                        // The client may have hung up already, and no further event would report it.
                        self.enqueue(index);
                    }
                    Served::Short => {
                        self.short_until = Some(now + SHORTAGE_PAUSE);
                        break;
                    }
                    Served::Waits(lack) => {
                        if !core::mem::replace(&mut client.waits, true) {
                            self.waiting.push_back((index, lack));
                        }
                        break;
                    }
                    Served::Gone => {
                        requests.extend(client.running().map(Request::Cancel));
                        let mut client = self.clients.remove(index);
                        let _ = registry.deregister(&mut client.socket);
                        break;
                    }
                }
            }
        }
    }

    /// The room for further commands and descriptors, after the `requests` that this turn has taken.
    fn room(&self, limits: &Limits, disk: &Disk, requests: &[Request]) -> Room {
        let running: usize = self.clients.iter().map(|(_, client)| client.running_count()).sum();
        let queued: usize = self.clients.iter().map(|(_, client)| client.descriptor_count()).sum();
        let asked =
            requests.iter().filter(|request| matches!(request, Request::Command(_, _, Some(_)))).count();
        Room {
            commands_per_client: limits.commands_per_client_max,
            commands: limits.commands_max.saturating_sub(running),
            descriptors: disk.passed_room(limits.descriptors_passed_max).saturating_sub(queued + asked),
        }
    }

    /// Queues a response for the client that gave the command, if it is still connected.
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        let index = index_of(command.0);
        let client = self.clients.get_mut(index).filter(|client| client.awaits(command));
        let Some(client) = client else { return };
        client.respond(now, command, response);
        self.enqueue_backlog(index);
    }

    /// Queues content for the client that gave the command, if it is still connected.
    pub(super) fn send_content(&mut self, command: CommandId, content: Content, extent: Extent, disk: &Disk) {
        let index = index_of(command.0);
        let client = self.clients.get_mut(index).filter(|client| client.awaits(command));
        if let Some(client) = client {
            client.send_content(command, content, extent, disk);
            self.enqueue(index);
        }
    }

    /// When delayed progress is due, or clients may be accepted again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let telling = self.clients.iter().filter_map(|(_, client)| client.next_deadline()).min();
        let telling = earliest(telling, self.short_until);
        earliest(telling, self.acceptor.next_deadline().filter(|_| self.has_room()))
    }

    /// Queues the progress that is due, and serves those clients again that waited for a descriptor.
    pub(super) fn tell(&mut self, now: Instant) {
        if self.short_until.take_if(|until| *until <= now).is_some() {
            let short = self.clients.iter().filter(|(_, client)| client.is_short());
            let short: Vec<usize> = short.map(|(index, _)| index).collect();
            short.into_iter().for_each(|index| self.enqueue(index));
        }
        let due = self.clients.iter_mut().filter(|(_, client)| client.next_deadline().is_some());
        let told = due.map(|(index, client)| {
            client.tell(now);
            index
        });
        for index in told.collect::<Vec<_>>() {
            self.enqueue_backlog(index);
        }
    }

    /// Whether [`serve`](Control::serve) or [`accept`](Control::accept) has something to do.
    pub(super) fn has_ready(&self, limits: &Limits, disk: &Disk) -> bool {
        let can_go_on = || {
            let room = self.room(limits, disk, &[]);
            self.waiting.iter().any(|(_, lack)| room.has(*lack))
        };
        !self.waiting.is_empty() && can_go_on()
            || !self.ready.is_empty()
            || self.acceptor.is_ready() && self.has_room()
    }

    /// Whether a response has not left yet.
    pub(super) fn has_backlog(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.has_backlog())
    }

    /// Puts the waiting clients for which there is room again on the ready list.
    fn wake_waiting(&mut self, limits: &Limits, disk: &Disk) {
        if self.waiting.is_empty() {
            return;
        }
        let room = self.room(limits, disk, &[]);
        for (index, lack) in core::mem::take(&mut self.waiting) {
            if !room.has(lack) {
                self.waiting.push_back((index, lack));
                continue;
            }
            if let Some(client) = self.clients.get_mut(index) {
                client.waits = false;
            }
            self.enqueue(index);
        }
    }

    fn enqueue(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index).filter(|client| !client.queued) {
            client.queued = true;
            self.ready.push_back(index);
        }
    }

    fn enqueue_backlog(&mut self, index: usize) {
        if self.clients.get(index).is_some_and(Client::has_backlog) {
            self.enqueue(index);
        }
    }

    /// A new unique number for the client in this slot of the slab, or for its command.
    fn fresh_number(&mut self, index: usize) -> u64 {
        self.counter += 1;
        self.counter << INDEX_BITS | index as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::CONTROL_SOCKET;
    use crate::net::testing::TestDir;
    use mio::Poll;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn token(id: u64) -> Token {
        Token((id << 2 | 2) as usize)
    }

    /// Serves every client until none is ready, and returns their requests.
    fn serve(control: &mut Control, disk: &Disk, poll: &Poll) -> Vec<Request> {
        let mut requests = Vec::new();
        (0..control.clients.capacity()).for_each(|index| control.enqueue(index));
        let limits = Limits::default();
        while control.has_ready(&limits, disk) {
            control.accept(Instant::ZERO, poll.registry(), token);
            (0..control.clients.capacity()).for_each(|index| {
                if control.clients.get(index).is_some_and(|client| client.running_count() == 0) {
                    control.enqueue(index);
                }
            });
            control.serve(
                Instant::ZERO,
                &limits,
                disk,
                &mut Outflow::default(),
                poll.registry(),
                &mut requests,
            );
        }
        requests
    }

    #[test]
    fn clients_beyond_the_limit_wait_until_one_leaves() {
        let (dir, poll) = (TestDir::new(), Poll::new().unwrap());
        let disk = dir.disk();
        let mut control = Control::bind(&dir.path(""), ControlSocket::default(), 2).unwrap();
        let mut clients: Vec<UnixStream> =
            (0..3).map(|_| UnixStream::connect(dir.path(CONTROL_SOCKET)).unwrap()).collect();
        for client in &mut clients {
            client.write_all(b"{\"command\":\"id\"}\n").unwrap();
        }
        let ids: Vec<CommandId> = serve(&mut control, &disk, &poll)
            .into_iter()
            .map(|request| match request {
                Request::Command(id, Command::Id, _) => id,
                _ => panic!("the clients gave no other request"),
            })
            .collect();
        let ready = control.has_ready(&Limits::default(), &disk);
        assert_eq!(ids.len(), 2);
        assert_eq!(control.clients.len(), 2);
        assert!(!ready);
        drop(clients.remove(0));
        let gone = control.clients.iter().next().map(|(_, client)| client.id).unwrap();
        control.note(token(gone).0 >> 2, true, token);
        let requests = serve(&mut control, &disk, &poll);
        assert!(matches!(requests[0], Request::Cancel(id) if id == ids[0]));
        assert!(matches!(requests[1], Request::Command(_, Command::Id, _)), "the third has its turn");
    }

    #[test]
    fn a_response_reaches_only_the_client_that_waits_for_it() {
        let (dir, poll) = (TestDir::new(), Poll::new().unwrap());
        let disk = dir.disk();
        let mut control = Control::bind(&dir.path(""), ControlSocket::default(), 9).unwrap();
        let mut far = UnixStream::connect(dir.path(CONTROL_SOCKET)).unwrap();
        far.write_all(b"{\"command\":\"id\"}\n").unwrap();
        let requests = serve(&mut control, &disk, &poll);
        let Some(Request::Command(id, _, _)) = requests.into_iter().next() else { panic!("no command") };
        let left = || Response::Done(crate::node::command::Reply::Leave { handed_over: 0, left_behind: 0 });
        control.respond(Instant::ZERO, CommandId(id.0 + (1 << INDEX_BITS)), left());
        assert!(!control.has_backlog());
        control.respond(Instant::ZERO, id, left());
        serve(&mut control, &disk, &poll);
        control.respond(Instant::ZERO, id, left());
        assert!(!control.has_backlog(), "it was answered already");
        drop(control);
        let mut answer = String::new();
        far.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.lines().count(), 1, "{answer}");
        assert!(!dir.path(CONTROL_SOCKET).exists());
    }
}

//! The control socket: one command a line in, answers as lines out, both JSON.
//!
//! [`Control`] owns the socket and its clients and knows which command is which client's; a [`client`] owns one
//! connection.

mod client;

use super::acceptor::{Accepted, Acceptor};
use super::{CONTROL_SOCKET, StartError};
use crate::disk::{Disk, Outflow};
use crate::node::command::{Command, CommandId, Failure, FailureReason, Response};
use crate::time::{Instant, earliest};
use client::{Client, Served};
use mio::net::UnixListener;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Clients at a time. More wait, in order, until one leaves.
const CLIENTS_MAX: usize = 256;
/// Room in the number of a client, and of its command, for its place in the slab.
const INDEX_BITS: u32 = 12;

pub(super) struct Control {
    pub(super) listener: UnixListener,
    path: PathBuf,
    clients: Slab<Client>,
    acceptor: Acceptor,
    /// Clients and commands are counted together: no two have the same number.
    counter: u64,
    /// Clients that may have something to do.
    ready: VecDeque<usize>,
}

/// What clients want.
pub(super) enum Request {
    Command(CommandId, Command),
    Cancel(CommandId),
}

fn index_of(number: u64) -> usize {
    (number & ((1 << INDEX_BITS) - 1)) as usize
}

impl Control {
    /// Binds the socket in the node's directory. The directory is locked by this process: a socket that is there is a
    /// leftover.
    pub(super) fn bind(dir: &Path) -> Result<Self, StartError> {
        let path = dir.join(CONTROL_SOCKET);
        let failed = |error: io::Error| StartError::Control { path: path.clone(), error };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner_only).map_err(failed)?;
        let (clients, acceptor, ready) = (Slab::new(), Acceptor::new(), VecDeque::new());
        Ok(Control { listener, path, clients, acceptor, counter: 0, ready })
    }

    /// Clients may wait to be taken.
    pub(super) fn note_listener(&mut self) {
        self.acceptor.note_ready();
    }

    /// Takes new clients while there is room. `token` names a client from its number.
    pub(super) fn accept(&mut self, now: Instant, registry: &Registry, token: impl Fn(u64) -> Token) {
        while self.clients.len() < CLIENTS_MAX {
            match self.acceptor.accept(now, "a control client", || self.listener.accept()) {
                Accepted::New((mut socket, _)) => {
                    let key = self.clients.vacant_key();
                    let id = self.fresh_number(key);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = registry.register(&mut socket, token(id), interest) {
                        log::warn!("a control client could not be served: {error}");
                        continue;
                    }
                    self.clients.insert(Client::new(id, socket));
                }
                Accepted::Surplus((mut socket, _)) => {
                    let message = "the node has no descriptor left for another command: try again".to_owned();
                    let refusal = Response::Failed(Failure { reason: FailureReason::Failed, message });
                    let _ = socket.write(&client::line_of(&refusal));
                }
                Accepted::None => return,
            }
        }
    }

    /// A client's socket became ready, or the client has `hung_up`. `number` is the client's, as far as the machine's
    /// tokens can hold it, and `token` tells how far that is.
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

    /// Serves each client once that may have something to do.
    pub(super) fn serve(
        &mut self,
        disk: &Disk,
        outflow: &mut Outflow,
        registry: &Registry,
        requests: &mut Vec<Request>,
    ) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            let Some(client) = self.clients.get_mut(index) else { continue };
            client.queued = false;
            match client.serve(disk, outflow) {
                Served::Dry => {}
                Served::More => self.enqueue(index),
                Served::Asked(command) => {
                    let id = CommandId(self.fresh_number(index));
                    if let Some(client) = self.clients.get_mut(index) {
                        client.begin(id);
                    }
                    requests.push(Request::Command(id, command));
                    // It may be gone already, of which no event tells any more.
                    self.enqueue(index);
                }
                Served::Gone => {
                    requests.extend(client.running().map(Request::Cancel));
                    let mut client = self.clients.remove(index);
                    let _ = registry.deregister(&mut client.socket);
                }
            }
        }
    }

    /// Takes an answer for the client that asked, if it is still there.
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        let index = index_of(command.0);
        let client = self.clients.get_mut(index).filter(|client| client.running() == Some(command));
        let Some(client) = client else { return };
        client.respond(now, response);
        self.enqueue_backlog(index);
    }

    /// When progress is to be told that has waited, or clients are to be taken again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let telling = self.clients.iter().filter_map(|(_, client)| client.next_deadline()).min();
        let has_room = self.clients.len() < CLIENTS_MAX;
        earliest(telling, self.acceptor.next_deadline().filter(|_| has_room))
    }

    /// Tells the progress that is due.
    pub(super) fn tell(&mut self, now: Instant) {
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
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || self.acceptor.is_ready() && self.clients.len() < CLIENTS_MAX
    }

    /// Whether an answer waits to be read.
    pub(super) fn has_backlog(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.has_backlog())
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

    /// A number that nothing else has, for what belongs to the client at this place.
    fn fresh_number(&mut self, index: usize) -> u64 {
        self.counter += 1;
        self.counter << INDEX_BITS | index as u64
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

//! The control socket: one command a line in, answers as lines out, both JSON.

use super::{CONTROL_SOCKET, StartError};
use crate::node::command::{Command, CommandId, Failure, FailureReason, Response};
use crate::time::{Duration, Instant};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The longest line that is taken: a `set` with its value written as numbers fits, a flood does not.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Progress is left out while so much waits to be read: the next one says more.
const BACKLOG_BYTES: usize = 8 << 10;
/// How long a client waits at least between two lines of progress; of those between, it hears the last. A client that is
/// told of each chunk takes a tenth of the processor time of a fast download.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// Clients at a time.
const CLIENTS_MAX: usize = 64;

pub(super) struct Control {
    pub(super) listener: UnixListener,
    path: PathBuf,
    clients: Slab<Client>,
    counter: u64,
    /// Clients to be looked after although nothing came: their command has ended and the next one may be here already,
    /// or they are gone.
    again: Vec<u64>,
}

struct Client {
    socket: UnixStream,
    /// Tells this client from the one that had its place before.
    generation: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    running: Option<CommandId>,
    /// What is to be told when the next line of progress is due.
    progress: Option<Response>,
    progress_at: Instant,
    /// It has said all that it is going to say.
    ended: bool,
}

/// What clients want.
pub(super) enum Request {
    Command(CommandId, Command),
    Cancel(CommandId),
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
        Ok(Control { listener, path, clients: Slab::new(), counter: 0, again: Vec::new() })
    }

    /// Takes new clients. `token` names a client from its number.
    pub(super) fn accept(&mut self, registry: &Registry, token: impl Fn(u64) -> Token) {
        loop {
            match self.listener.accept() {
                Ok((mut socket, _)) if self.clients.len() >= CLIENTS_MAX => {
                    log::warn!("a control client was turned away: {CLIENTS_MAX} are connected");
                    let message =
                        format!("{CLIENTS_MAX} commands are under way, and no more are allowed: try again");
                    let refusal = Response::Failed(Failure { reason: FailureReason::Failed, message });
                    let _ = socket.write_all(&line_of(&refusal));
                }
                Ok((mut socket, _)) => {
                    self.counter += 1;
                    let entry = self.clients.vacant_entry();
                    let id = self.counter << 8 | entry.key() as u64;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = registry.register(&mut socket, token(id), interest) {
                        log::warn!("a control client could not be served: {error}");
                        continue;
                    }
                    let generation = self.counter;
                    let (inbox, outbox) = (Vec::new(), Vec::new());
                    entry.insert(Client {
                        socket,
                        generation,
                        inbox,
                        outbox,
                        sent: 0,
                        running: None,
                        progress: None,
                        progress_at: Instant::default(),
                        ended: false,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return log::warn!("accepting a control client: {error}"),
            }
        }
    }

    /// Looks after clients of whose state no event tells.
    pub(super) fn serve_again(&mut self, registry: &Registry, requests: &mut Vec<Request>) {
        for id in core::mem::take(&mut self.again) {
            self.serve(id, false, registry, requests);
        }
    }

    /// A client's socket is ready: writes what waits and reads what is there. A client that has `hung_up` is gone; one
    /// that only has nothing more to say still waits for its answer.
    pub(super) fn serve(&mut self, id: u64, hung_up: bool, registry: &Registry, requests: &mut Vec<Request>) {
        let index = (id & 0xff) as usize;
        let Some(client) = self.clients.get_mut(index).filter(|client| client.generation == id >> 8) else {
            return;
        };
        let alive = !hung_up && client.write() && client.read() && client.take_lines(id, requests);
        if !alive || client.ended && client.running.is_none() && client.outbox.is_empty() {
            requests.extend(client.running.map(Request::Cancel));
            self.remove(index, registry);
        }
    }

    /// Sends an answer, if who asked is still there. Progress may wait for [`tell`](Control::tell).
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        let index = (command.0 & 0xff) as usize;
        let client = self.clients.get_mut(index).filter(|client| client.running == Some(command));
        let Some(client) = client else { return };
        if matches!(response, Response::Progress(_)) {
            client.progress = Some(response);
            if client.progress_at <= now {
                self.tell(now);
            }
            return;
        }
        client.running = None;
        client.progress = None;
        client.put(&response);
        client.write();
        // Its next command may be here already; or it is gone, which is noticed when it is looked after.
        self.again.push(command.0);
    }

    /// When progress is to be told that has waited.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.clients.iter().filter(|(_, client)| client.progress.is_some());
        waiting.map(|(_, client)| client.progress_at).min()
    }

    /// Tells the progress that is due.
    pub(super) fn tell(&mut self, now: Instant) {
        for (_, client) in self.clients.iter_mut().filter(|(_, client)| client.progress_at <= now) {
            let Some(progress) = client.progress.take() else { continue };
            client.progress_at = now + PROGRESS_INTERVAL;
            if client.outbox.len() - client.sent > BACKLOG_BYTES {
                continue;
            }
            client.put(&progress);
            if !client.write() {
                // It is gone. What it waited for is taken back when it is looked after.
                self.again.extend(client.running.map(|command| command.0));
            }
        }
    }

    /// Whether [`serve_again`](Control::serve_again) has something to do.
    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Whether an answer waits to be read.
    pub(super) fn has_backlog(&self) -> bool {
        self.clients.iter().any(|(_, client)| !client.outbox.is_empty())
    }

    fn remove(&mut self, index: usize, registry: &Registry) {
        let mut client = self.clients.remove(index);
        let _ = registry.deregister(&mut client.socket);
    }
}

/// An answer as it goes over the socket.
fn line_of(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response)
        .expect("an answer has no maps but with names, and no number that JSON lacks");
    line.push(b'\n');
    line
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// Reads until there is nothing more; false when the client is gone or says too much at a time.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        while !self.ended && self.inbox.len() <= LINE_BYTES_MAX {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => self.inbox.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes the next command when none is running; false when the client does not speak our language.
    fn take_lines(&mut self, id: u64, requests: &mut Vec<Request>) -> bool {
        // Who does not read its answers gives no more commands.
        if self.running.is_some() || !self.outbox.is_empty() {
            return self.inbox.len() <= LINE_BYTES_MAX;
        }
        let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') else {
            return self.inbox.len() <= LINE_BYTES_MAX;
        };
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        match serde_json::from_slice::<Command>(&line) {
            Ok(command) => {
                self.running = Some(CommandId(id));
                requests.push(Request::Command(CommandId(id), command));
                true
            }
            Err(error) => {
                let message = format!("not a command: {error}");
                self.put(&Response::Failed(Failure { reason: FailureReason::Usage, message }));
                self.ended = true;
                self.write()
            }
        }
    }

    fn put(&mut self, response: &Response) {
        self.outbox.extend(line_of(response));
    }

    /// Writes what the socket takes; false when the client is gone.
    fn write(&mut self) -> bool {
        while self.sent < self.outbox.len() {
            match self.socket.write(&self.outbox[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        (self.sent, self.outbox) = (0, Vec::new());
        true
    }
}

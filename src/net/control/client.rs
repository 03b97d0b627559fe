//! One client of the control socket: its running commands, and the responses that wait to be sent.
//!
//! A command without a number has the connection for itself: the next line is taken after its response. Commands with numbers
//! (`"id"`) run concurrently, as many as there is room for, and each response carries its command's number. A line with
//! `"descriptor": true` comes with a descriptor (SCM_RIGHTS), which goes to the command.

use super::lines::{DESCRIPTORS_PER_READ, Gone, Lines};
use crate::disk::{Disk, Outflow};
use crate::io::{DiskError, DiskErrorKind, Extent};
use crate::net::acceptor::SHORTAGE_MAX;
use crate::net::outbox::{Moved, Outbox, SendError};
use crate::node::command::{
    Command, CommandId, Content, Failure, FailureReason, Response, Wrapping, parse_line,
};
use crate::time::{Duration, Instant};
use mio::net::UnixStream;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

/// Above this backlog of unsent bytes a client gets no progress (later progress supersedes it) and gives no commands.
const BACKLOG_BYTES: usize = 8 << 10;
/// The shortest time between two lines of progress. The last progress of each interval is sent. A line for each chunk would
/// take a tenth of the processor time of a fast download.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes written to one client in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// A connected client.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    /// Unique, so that an event for an earlier client in this slot of the slab is recognised.
    pub(super) id: u64,
    /// Whether it is on the list of ready clients.
    pub(super) queued: bool,
    /// Whether it is on the list of clients that wait for room.
    pub(super) waits: bool,
    /// What it has said and has not been taken.
    lines: Lines,
    outbox: Outbox,
    /// The running commands, with the client's numbers for them.
    running: BTreeMap<CommandId, Option<u64>>,
    /// The content in the outbox, in order: its command, and the number of bytes that have not left.
    contents: VecDeque<(CommandId, u64)>,
    /// The content that has left and has not been reported.
    sent: Vec<(CommandId, u64)>,
    /// Since when there has been no descriptor for the content that is next.
    short_since: Option<Instant>,
    /// The latest progress of any command, until it is due.
    progress: Option<(CommandId, Response)>,
    progress_at: Instant,
    /// The client closed the connection.
    hung_up: bool,
}

/// A command as a client gave it.
pub(super) struct Asked {
    pub(super) command: Command,
    /// The client's number for it.
    number: Option<u64>,
    pub(super) descriptor: Option<OwnedFd>,
}

/// The room for further commands.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Commands that one client may run at a time.
    pub(super) commands_per_client: usize,
    /// Further commands with numbers, over all clients.
    pub(super) commands: usize,
    /// Further descriptors, over all clients.
    pub(super) descriptors: usize,
}

/// The shared resource that a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lack {
    Commands,
    Descriptors,
}

impl Room {
    /// Whether a client that waits for this resource can go on.
    pub(super) fn has(&self, lack: Lack) -> bool {
        match lack {
            Lack::Commands => self.commands > 0,
            Lack::Descriptors => self.descriptors >= DESCRIPTORS_PER_READ,
        }
    }
}

/// The result of serving a client.
pub(super) enum Served {
    /// The client can do no more until its socket is ready again or a command ends.
    Dry,
    /// This turn's budget is used up.
    More,
    /// The client gave a command.
    Asked(Asked),
    /// The client's next command waits for a shared resource.
    Waits(Lack),
    /// The content that is next waits for a descriptor.
    Short,
    /// The client hung up, has finished, or broke the protocol.
    Gone,
}

impl Client {
    pub(super) fn new(id: u64, socket: UnixStream) -> Self {
        Client {
            socket,
            id,
            queued: false,
            waits: false,
            lines: Lines::default(),
            outbox: Outbox::default(),
            running: BTreeMap::new(),
            contents: VecDeque::new(),
            sent: Vec::new(),
            short_since: None,
            progress: None,
            progress_at: Instant::default(),
            hung_up: false,
        }
    }

    /// The running commands.
    pub(super) fn running(&self) -> impl Iterator<Item = CommandId> {
        self.running.keys().copied()
    }

    /// The number of running commands.
    pub(super) fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Whether this command of the client is running.
    pub(super) fn awaits(&self, command: CommandId) -> bool {
        self.running.contains_key(&command)
    }

    /// The number of descriptors whose lines have not been taken yet.
    pub(super) fn descriptor_count(&self) -> usize {
        self.lines.descriptor_count()
    }

    /// Whether a response has not left yet.
    pub(super) fn has_backlog(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Notes that the client closed the connection, which cancels its commands. A half-closed connection is different: its
    /// client still waits for responses.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Notes that a command runs under this id.
    pub(super) fn begin(&mut self, command: CommandId, asked: &Asked) {
        self.running.insert(command, asked.number);
    }

    /// Writes the outbox, reads the socket, and takes the next command if it may run now.
    pub(super) fn serve(&mut self, now: Instant, disk: &Disk, outflow: &mut Outflow, room: Room) -> Served {
        if self.hung_up {
            return Served::Gone;
        }
        match self.write(now, disk, outflow) {
            Served::Dry => {}
            other => return other,
        }
        let starved = match self.lines.read(&self.socket, room.descriptors) {
            Ok(starved) => starved,
            Err(Gone) => return Served::Gone,
        };
        let served = self.take_line(room);
        match served {
            Served::Dry if starved => Served::Waits(Lack::Descriptors),
            Served::Dry if self.lines.have_ended() && self.running.is_empty() && self.outbox.is_empty() => {
                Served::Gone
            }
            // The error for an invalid line has to leave first.
            Served::Dry if self.lines.have_ended() && self.running.is_empty() => {
                match self.write(now, disk, outflow) {
                    Served::Dry if self.outbox.is_empty() => Served::Gone,
                    other => other,
                }
            }
            served => served,
        }
    }

    /// Queues a response to a command. Progress may wait for [`tell`](Client::tell).
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        if matches!(response, Response::Progress(_)) {
            self.progress = Some((command, response));
            return self.tell(now);
        }
        let number = self.running.remove(&command).flatten();
        self.progress.take_if(|(about, _)| *about == command);
        self.put(number, &response);
    }

    /// Queues content for a command: the line that announces it, then its bytes.
    pub(super) fn send_content(&mut self, command: CommandId, content: Content, extent: Extent, disk: &Disk) {
        let number = self.running.get(&command).copied().flatten();
        self.put(number, &Response::Content(content));
        self.contents.push_back((command, u64::from(extent.length)));
        self.outbox.push_extent(extent, disk);
    }

    /// The content bytes that have left since the last call, by command.
    pub(super) fn take_sent(&mut self) -> Vec<(CommandId, u64)> {
        core::mem::take(&mut self.sent)
    }

    /// Counts bytes of the first content that have left.
    fn count_sent(&mut self, bytes: u64) {
        let Some((command, rest)) = self.contents.front_mut() else {
            return debug_assert!(false, "content left that is not on the list");
        };
        *rest = rest.saturating_sub(bytes);
        let (command, over) = (*command, *rest == 0);
        match self.sent.last_mut().filter(|(last, _)| *last == command) {
            Some((_, sent)) => *sent += bytes,
            None => self.sent.push((command, bytes)),
        }
        if over {
            self.contents.pop_front();
        }
    }

    /// Whether content waits for a descriptor.
    pub(super) fn is_short(&self) -> bool {
        self.short_since.is_some()
    }

    /// When delayed progress is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.progress.as_ref().map(|_| self.progress_at)
    }

    /// Queues the progress that is due.
    pub(super) fn tell(&mut self, now: Instant) {
        if self.progress_at > now {
            return;
        }
        let Some((command, progress)) = self.progress.take() else { return };
        self.progress_at = now + PROGRESS_INTERVAL;
        if self.outbox.held_bytes() <= BACKLOG_BYTES {
            let number = self.running.get(&command).copied().flatten();
            self.put(number, &progress);
        }
    }

    /// Takes the next command, if it may run beside the running ones.
    fn take_line(&mut self, room: Room) -> Served {
        let Some(line) = self.lines.first() else {
            return if self.lines.are_a_flood() { Served::Gone } else { Served::Dry };
        };
        // A command without a number has the connection for itself, and a client that does not read its responses gives no
        // further commands.
        let alone = self.running.values().any(Option::is_none);
        let held = self.outbox.held_bytes() > BACKLOG_BYTES;
        if alone || held || self.running.len() >= room.commands_per_client {
            return Served::Dry;
        }
        let (Wrapping { number, descriptor }, command) = match parse_line(line) {
            Ok(line) => line,
            Err((number, error)) => {
                let message = format!("the line is not a command: {error}");
                self.put(number, &Response::Failed(Failure { reason: FailureReason::Usage, message }));
                self.lines.end();
                return Served::Dry;
            }
        };
        match number {
            None if !self.running.is_empty() || !self.outbox.is_empty() => return Served::Dry,
            Some(_) if room.commands == 0 => return Served::Waits(Lack::Commands),
            _ => {}
        }
        let descriptor = self.lines.take(descriptor);
        Served::Asked(Asked { command, number, descriptor })
    }

    /// Whether content that could not be opened is tried again: descriptors may be free in a moment.
    fn may_wait(&mut self, now: Instant, error: &DiskError) -> bool {
        if error.kind != DiskErrorKind::Busy {
            return false;
        }
        if self.short_since.is_none() {
            log::warn!("content for a client waits for a descriptor: {error}");
        }
        now < *self.short_since.get_or_insert(now) + SHORTAGE_MAX
    }

    fn put(&mut self, number: Option<u64>, response: &Response) {
        self.outbox.push_bytes(&line_of(number, response));
    }

    /// Writes the outbox until the socket is full or this turn's budget is used up.
    fn write(&mut self, now: Instant, disk: &Disk, outflow: &mut Outflow) -> Served {
        let mut budget = WRITE_BYTES_PER_TURN;
        while !self.outbox.is_empty() {
            if budget == 0 {
                return Served::More;
            }
            match self.outbox.send(&mut self.socket, disk, outflow, budget) {
                Ok(moved) => {
                    if let Moved::Content(bytes) = moved {
                        self.short_since = None;
                        self.count_sent(bytes as u64);
                    }
                    budget = budget.saturating_sub(moved.bytes().max(1));
                }
                Err(SendError::Socket(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(SendError::Socket(_)) => return Served::Gone,
                // Its line has been sent, so the content has to follow: it waits for a descriptor.
                Err(SendError::File(error)) if self.may_wait(now, &error) => return Served::Short,
                Err(SendError::File(error)) => {
                    log::warn!("sending a file to a control client: {error}");
                    return Served::Gone;
                }
            }
        }
        Served::Dry
    }
}

/// The line of JSON of a response to the command with this number.
pub(super) fn line_of(number: Option<u64>, response: &Response) -> Vec<u8> {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        #[serde(flatten)]
        response: &'a Response,
    }
    let mut line = serde_json::to_vec(&Answer { id: number, response })
        .expect("a response has only string keys, and only numbers that JSON has");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;

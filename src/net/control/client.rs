//! One client of the control socket: what it asked, and what waits to be told to it.
//!
//! A command without a number has the connection for itself: the next line is taken once it is answered. Commands with
//! numbers (`"id"`) run side by side, as many as there is room for, and each answer carries its command's number. A line that
//! says `"descriptor": true` comes with a descriptor (SCM_RIGHTS), which goes to the command.

use crate::disk::{Disk, Outflow};
use crate::io::Extent;
use crate::net::outbox::{Moved, Outbox, SendError};
use crate::node::command::{Command, CommandId, Content, Failure, FailureReason, Response};
use crate::time::{Duration, Instant};
use mio::net::UnixStream;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// The longest line that is taken: a `set` with its value written as numbers fits, a flood does not.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Progress is left out while so much waits to be read: the next one says more.
const BACKLOG_BYTES: usize = 8 << 10;
/// How long a client waits at least between two lines of progress; of those between, it hears the last. A client that is
/// told of each chunk takes a tenth of the processor time of a fast download.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How much is read at a time.
const READ_BYTES: usize = 4096;
/// Descriptors taken with what is read at a time. A client sends one with a line.
const DESCRIPTORS_PER_READ: usize = 2;
/// Descriptors of one client that wait for their lines to be taken.
const DESCRIPTORS_AHEAD_MAX: usize = 8;
/// Bytes written to one client in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// A client that is connected.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    /// Tells this client from the one that had its place before.
    pub(super) id: u64,
    /// Whether it is on the list of clients to be served.
    pub(super) queued: bool,
    /// Whether it is on the list of clients that wait for room.
    pub(super) waits: bool,
    inbox: Vec<u8>,
    /// Descriptors that came and whose lines have not been taken, in order.
    descriptors: VecDeque<OwnedFd>,
    /// A descriptor was lost on the way: which line the others belong to cannot be told any more, and they are closed.
    lost: bool,
    outbox: Outbox,
    /// The commands that it waits for, with the numbers that it gave them.
    running: BTreeMap<CommandId, Option<u64>>,
    /// The content in the outbox, in order: the command that it is for, and how many bytes of it have not left.
    contents: VecDeque<(CommandId, u64)>,
    /// Content that has left and has not been reported.
    sent: Vec<(CommandId, u64)>,
    /// What is to be told when the next line of progress is due: the last that came, of whichever command.
    progress: Option<(CommandId, Response)>,
    progress_at: Instant,
    /// It has said all that it is going to say.
    ended: bool,
    /// The other end is gone.
    hung_up: bool,
}

/// A command as a client gave it.
pub(super) struct Asked {
    pub(super) command: Command,
    /// The client's number for it.
    number: Option<u64>,
    pub(super) descriptor: Option<OwnedFd>,
}

/// What may be taken from clients now.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Commands that one client may have under way.
    pub(super) commands_per_client: usize,
    /// Commands with numbers, from all clients together.
    pub(super) commands: usize,
    /// Descriptors.
    pub(super) descriptors: usize,
}

/// What a client waits for that all clients share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lack {
    Commands,
    Descriptors,
}

impl Room {
    /// Whether a client that lacked this can go on.
    pub(super) fn has(&self, lack: Lack) -> bool {
        match lack {
            Lack::Commands => self.commands > 0,
            Lack::Descriptors => self.descriptors >= DESCRIPTORS_PER_READ,
        }
    }
}

/// What serving a client found.
pub(super) enum Served {
    /// There is nothing more to do until its socket is ready again.
    Dry,
    /// This turn's budget is used up.
    More,
    /// It gave a command.
    Asked(Asked),
    /// It has more to say than there is room for in all.
    Waits(Lack),
    /// It is gone, has ended, or does not speak the language.
    Gone,
}

impl Client {
    pub(super) fn new(id: u64, socket: UnixStream) -> Self {
        Client {
            socket,
            id,
            queued: false,
            waits: false,
            inbox: Vec::new(),
            descriptors: VecDeque::new(),
            lost: false,
            outbox: Outbox::default(),
            running: BTreeMap::new(),
            contents: VecDeque::new(),
            sent: Vec::new(),
            progress: None,
            progress_at: Instant::default(),
            ended: false,
            hung_up: false,
        }
    }

    /// The commands that it waits for.
    pub(super) fn running(&self) -> impl Iterator<Item = CommandId> {
        self.running.keys().copied()
    }

    /// How many commands it waits for.
    pub(super) fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Whether it waits for this command.
    pub(super) fn awaits(&self, command: CommandId) -> bool {
        self.running.contains_key(&command)
    }

    /// Descriptors that came and wait for their lines.
    pub(super) fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether an answer waits to be read.
    pub(super) fn has_backlog(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The other end is gone: whatever it waits for is in vain. One that only has nothing more to say still waits for its
    /// answer.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// The command that it gave is under this number.
    pub(super) fn begin(&mut self, command: CommandId, asked: &Asked) {
        self.running.insert(command, asked.number);
    }

    /// Writes what waits, reads what is there, and takes the next command if it may run now.
    pub(super) fn serve(&mut self, disk: &Disk, outflow: &mut Outflow, room: Room) -> Served {
        if self.hung_up {
            return Served::Gone;
        }
        match self.write(disk, outflow) {
            Served::Dry => {}
            other => return other,
        }
        let starved = match self.read(room.descriptors) {
            Ok(starved) => starved,
            Err(Gone) => return Served::Gone,
        };
        let served = self.take_line(room);
        match served {
            Served::Dry if starved => Served::Waits(Lack::Descriptors),
            Served::Dry if self.ended && self.running.is_empty() && self.outbox.is_empty() => Served::Gone,
            // What was wrong with the line is to be said.
            Served::Dry if self.ended && self.running.is_empty() => match self.write(disk, outflow) {
                Served::Dry if self.outbox.is_empty() => Served::Gone,
                other => other,
            },
            served => served,
        }
    }

    /// Takes the answer to a command. Progress may wait for [`tell`](Client::tell).
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        if matches!(response, Response::Progress(_)) {
            self.progress = Some((command, response));
            return self.tell(now);
        }
        let number = self.running.remove(&command).flatten();
        self.progress.take_if(|(about, _)| *about == command);
        self.put(number, &response);
    }

    /// Takes content for a command: a line that says what it is, then its bytes.
    pub(super) fn send_content(&mut self, command: CommandId, content: Content, extent: Extent, disk: &Disk) {
        let number = self.running.get(&command).copied().flatten();
        self.put(number, &Response::Content(content));
        self.contents.push_back((command, u64::from(extent.length)));
        self.outbox.push_extent(extent, disk);
    }

    /// How many bytes of content have left for which commands since the last call.
    pub(super) fn take_sent(&mut self) -> Vec<(CommandId, u64)> {
        core::mem::take(&mut self.sent)
    }

    /// Bytes of the content that comes first have left.
    fn count_sent(&mut self, bytes: u64) {
        let Some((command, rest)) = self.contents.front_mut() else {
            return debug_assert!(false, "content is on the list");
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

    /// When progress is to be told that has waited.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.progress.as_ref().map(|_| self.progress_at)
    }

    /// Tells the progress that is due.
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

    /// Reads until there is nothing more, or enough for now. Whether it stopped for want of room for descriptors.
    fn read(&mut self, mut room: usize) -> Result<bool, Gone> {
        let mut buffer = [0; READ_BYTES];
        while !self.ended && self.inbox.len() <= LINE_BYTES_MAX {
            if self.descriptors.len() >= DESCRIPTORS_AHEAD_MAX {
                break;
            }
            if room < DESCRIPTORS_PER_READ {
                return Ok(true);
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_READ))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Ok(received) => received,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            // Some that came did not fit, or this process may open no more.
            self.lost |= received.flags.contains(ReturnFlags::CTRUNC);
            if self.lost {
                self.descriptors.clear();
            }
            room = room.saturating_sub(DESCRIPTORS_PER_READ);
            self.ended = received.bytes == 0;
            self.inbox.extend_from_slice(&buffer[..received.bytes]);
        }
        Ok(false)
    }

    /// Takes the next command, if it may run beside those that do.
    fn take_line(&mut self, room: Room) -> Served {
        let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') else {
            let flood = self.inbox.len() > LINE_BYTES_MAX || self.descriptors.len() >= DESCRIPTORS_AHEAD_MAX;
            return if flood { Served::Gone } else { Served::Dry };
        };
        // One without a number has the connection for itself, and a client that does not read its answers gives no more
        // commands.
        let alone = self.running.values().any(Option::is_none);
        let held = self.outbox.held_bytes() > BACKLOG_BYTES;
        if alone || held || self.running.len() >= room.commands_per_client {
            return Served::Dry;
        }
        let (Wrapping { number, descriptor }, command) = match parse(&self.inbox[..end]) {
            Ok(line) => line,
            Err((number, error)) => {
                let message = format!("not a command: {error}");
                self.put(number, &Response::Failed(Failure { reason: FailureReason::Usage, message }));
                self.ended = true;
                self.inbox.clear();
                return Served::Dry;
            }
        };
        match number {
            None if !self.running.is_empty() || !self.outbox.is_empty() => return Served::Dry,
            Some(_) if room.commands == 0 => return Served::Waits(Lack::Commands),
            _ => {}
        }
        self.inbox.drain(..=end);
        let descriptor = if descriptor { self.descriptors.pop_front() } else { None };
        Served::Asked(Asked { command, number, descriptor })
    }

    fn put(&mut self, number: Option<u64>, response: &Response) {
        self.outbox.push_bytes(&line_of(number, response));
    }

    /// Writes what the socket takes, within this turn's budget.
    fn write(&mut self, disk: &Disk, outflow: &mut Outflow) -> Served {
        let mut budget = WRITE_BYTES_PER_TURN;
        while !self.outbox.is_empty() {
            if budget == 0 {
                return Served::More;
            }
            match self.outbox.send(&mut self.socket, disk, outflow, budget) {
                Ok(moved) => {
                    if let Moved::Content(bytes) = moved {
                        self.count_sent(bytes as u64);
                    }
                    budget = budget.saturating_sub(moved.bytes().max(1));
                }
                Err(SendError::Socket(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(SendError::Socket(_)) => return Served::Gone,
                Err(SendError::File(error)) => {
                    log::warn!("{error}");
                    return Served::Gone;
                }
            }
        }
        Served::Dry
    }
}

/// The client does not listen any more.
struct Gone;

/// What a line says beside its command.
#[derive(Clone, Copy, Default)]
struct Wrapping {
    number: Option<u64>,
    /// Whether a descriptor comes with it.
    descriptor: bool,
}

/// A line taken apart. What is wrong with one is said under its number, if that can be read.
fn parse(line: &[u8]) -> Result<(Wrapping, Command), (Option<u64>, serde_json::Error)> {
    let mut line: Value = serde_json::from_slice(line).map_err(|error| (None, error))?;
    let mut wrapping = Wrapping::default();
    if let Some(fields) = line.as_object_mut() {
        let number = fields.remove("id").unwrap_or_default();
        wrapping.number = serde_json::from_value(number).map_err(|error| (None, error))?;
        let descriptor = fields.remove("descriptor").unwrap_or_default();
        let descriptor: Option<bool> =
            serde_json::from_value(descriptor).map_err(|error| (wrapping.number, error))?;
        wrapping.descriptor = descriptor.unwrap_or(false);
    }
    let command = serde_json::from_value(line).map_err(|error| (wrapping.number, error))?;
    Ok((wrapping, command))
}

/// An answer as it goes over the socket, to a command with this number.
pub(super) fn line_of(number: Option<u64>, response: &Response) -> Vec<u8> {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        #[serde(flatten)]
        response: &'a Response,
    }
    let mut line = serde_json::to_vec(&Answer { id: number, response })
        .expect("an answer has no maps but with names, and no number that JSON lacks");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TestDir;
    use crate::node::command::{Progress, Reply, Stage};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;

    fn pair() -> (Client, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Client::new(1, near), far)
    }

    const ROOM: Room = Room { commands_per_client: 3, commands: 9, descriptors: 9 };

    fn begin(client: &mut Client) {
        client.begin(CommandId(5), &Asked { command: Command::Id, number: None, descriptor: None });
    }

    fn said(far: &mut UnixStream) -> String {
        let mut bytes = Vec::new();
        match far.read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            _ => String::from_utf8(bytes).unwrap(),
        }
    }

    fn left() -> Response {
        Response::Done(Reply::Leave { handed_over: 0, left_behind: 0 })
    }

    fn progress(done: u64) -> Response {
        Response::Progress(Progress { stage: Stage::Downloading, done, total: 9, prefix: 0, path: None })
    }

    #[test]
    fn commands_are_taken_one_at_a_time_and_the_next_when_the_answer_has_been_read() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        far.write_all(b"{\"command\":\"id\"}\n{\"command\":\"pe").unwrap();
        assert!(matches!(
            client.serve(&disk, &mut Outflow::default(), ROOM),
            Served::Asked(Asked { command: Command::Id, .. })
        ));
        begin(&mut client);
        far.write_all(b"ers\"}\n").unwrap();
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Dry));
        client.respond(Instant::ZERO, CommandId(5), left());
        assert!(client.has_backlog() && client.running_count() == 0);
        assert!(matches!(
            client.serve(&disk, &mut Outflow::default(), ROOM),
            Served::Asked(Asked { command: Command::Peers, .. })
        ));
        assert!(said(&mut far).starts_with("{\"event\":\"done\""));
    }

    #[test]
    fn one_that_has_nothing_more_to_say_still_gets_its_answer() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        far.write_all(b"{\"command\":\"id\"}\n").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(
            client.serve(&disk, &mut Outflow::default(), ROOM),
            Served::Asked(Asked { command: Command::Id, .. })
        ));
        begin(&mut client);
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Dry));
        client.respond(Instant::ZERO, CommandId(5), left());
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Gone));
        assert!(said(&mut far).ends_with("}\n"));
        let (mut client, far) = pair();
        begin(&mut client);
        drop(far);
        client.hang_up();
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Gone));
        assert!(client.awaits(CommandId(5)));
    }

    #[test]
    fn what_is_no_command_is_answered_and_a_flood_is_not() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        far.write_all(b"{\"command\":\"explode\"}\n").unwrap();
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Gone));
        assert!(said(&mut far).contains("not a command"));
        let (mut client, mut far) = pair();
        let mut sent = 0;
        loop {
            if matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Gone) {
                break;
            }
            assert!(sent < 4 * LINE_BYTES_MAX, "a line without an end is taken");
            sent += far.write(&[b' '; 4096]).unwrap_or(0);
        }
    }

    #[test]
    fn of_frequent_progress_the_last_is_told_when_it_is_due() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        begin(&mut client);
        let now = Instant::from_secs(9);
        (1..=3).for_each(|done| client.respond(now, CommandId(5), progress(done)));
        assert_eq!(client.next_deadline(), Some(now + PROGRESS_INTERVAL));
        client.serve(&disk, &mut Outflow::default(), ROOM);
        assert!(said(&mut far).contains("\"done\":1"));
        client.tell(now + PROGRESS_INTERVAL);
        assert_eq!(client.next_deadline(), None);
        client.serve(&disk, &mut Outflow::default(), ROOM);
        let text = said(&mut far);
        assert!(text.contains("\"done\":3") && !text.contains("\"done\":2"), "{text}");
    }

    #[test]
    fn content_follows_its_line_and_what_has_left_is_counted() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let (disk, path) = (dir.disk(), dir.file("file", b"0123456789"));
        for number in [5, 6] {
            client.begin(
                CommandId(number),
                &Asked { command: Command::Id, number: Some(number), descriptor: None },
            );
        }
        for (command, offset, length) in [(5, 0, 4), (6, 4, 5), (5, 9, 1)] {
            let place = crate::io::Place::File(path.as_path().into());
            let extent = Extent { place, offset, length, stamp: None };
            client.send_content(
                CommandId(command),
                Content { offset, length, file_length: 10 },
                extent,
                &disk,
            );
        }
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Dry));
        let sent = [(5, 4), (6, 5), (5, 1)].map(|(command, bytes)| (CommandId(command), bytes));
        assert_eq!((client.take_sent(), client.take_sent()), (sent.to_vec(), vec![]));
        let line = |id, offset, length| {
            format!(
                "{{\"id\":{id},\"event\":\"content\",\"offset\":{offset},\"length\":{length},\"file_length\":10}}\n"
            )
        };
        assert_eq!(said(&mut far), format!("{}0123{}45678{}9", line(5, 0, 4), line(6, 4, 5), line(5, 9, 1)));
    }

    #[test]
    fn a_client_whose_content_cannot_be_read_is_given_up() {
        let (dir, (mut client, _far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        begin(&mut client);
        let place = crate::io::Place::File(dir.path("none").into());
        let extent = Extent { place, offset: 0, length: 1, stamp: None };
        client.send_content(CommandId(5), Content { offset: 0, length: 1, file_length: 1 }, extent, &disk);
        assert!(matches!(client.serve(&disk, &mut Outflow::default(), ROOM), Served::Gone));
        assert!(client.awaits(CommandId(5)));
    }

    #[test]
    fn progress_that_nobody_reads_does_not_pile_up() {
        let (mut client, _far) = pair();
        begin(&mut client);
        for second in 0..1000 {
            client.respond(Instant::from_secs(9 + second), CommandId(5), progress(second));
        }
        assert!(client.outbox.held_bytes() < BACKLOG_BYTES + 1024);
    }

    #[test]
    fn commands_with_numbers_run_side_by_side_as_many_as_there_is_room_for() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        let serve = |client: &mut Client, room: Room| client.serve(&disk, &mut Outflow::default(), room);
        for number in 1..=5 {
            writeln!(far, "{{\"command\":\"id\",\"id\":{number}}}").unwrap();
        }
        let none = Room { commands: 0, ..ROOM };
        assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Commands)));
        for id in 1..=3 {
            let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("there is room for {id}") };
            assert_eq!(asked.number, Some(id));
            client.begin(CommandId(id), &asked);
        }
        // As many as one client may have.
        assert!(matches!(serve(&mut client, ROOM), Served::Dry));
        client.respond(Instant::ZERO, CommandId(2), left());
        let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("one has ended") };
        assert_eq!(asked.number, Some(4));
        client.begin(CommandId(4), &asked);
        client.respond(Instant::ZERO, CommandId(1), progress(1));
        client.respond(Instant::ZERO, CommandId(3), left());
        assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Commands)));
        let text = said(&mut far);
        let ids: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| (line["id"].as_u64().unwrap(), line["event"].as_str().unwrap().to_owned()))
            .collect();
        let expected = [(2, "done"), (1, "progress"), (3, "done")];
        assert_eq!(ids, expected.map(|(id, event)| (id, event.to_owned())));
    }

    #[test]
    fn a_command_without_a_number_has_the_connection_for_itself() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        let serve = |client: &mut Client| client.serve(&disk, &mut Outflow::default(), ROOM);
        far.write_all(
            b"{\"command\":\"id\",\"id\":7}\n{\"command\":\"id\"}\n{\"command\":\"id\",\"id\":8}\n",
        )
        .unwrap();
        let Served::Asked(asked) = serve(&mut client) else { panic!("the first") };
        client.begin(CommandId(1), &asked);
        assert!(matches!(serve(&mut client), Served::Dry));
        client.respond(Instant::ZERO, CommandId(1), left());
        let Served::Asked(asked) = serve(&mut client) else { panic!("the second") };
        assert_eq!(asked.number, None);
        client.begin(CommandId(2), &asked);
        assert!(matches!(serve(&mut client), Served::Dry));
        client.respond(Instant::ZERO, CommandId(2), left());
        assert!(matches!(serve(&mut client), Served::Asked(Asked { number: Some(8), .. })));
        let text = said(&mut far);
        assert!(
            text.starts_with("{\"id\":7,") && text.lines().nth(1).unwrap().starts_with("{\"event\""),
            "{text}"
        );
    }

    /// Sends a line, and descriptors with its first byte.
    fn pass(far: &UnixStream, line: &str, descriptors: usize) {
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let files = vec![file.as_fd(); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(far, &[IoSlice::new(line.as_bytes())], &mut rights, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_descriptor_goes_to_the_command_whose_line_it_came_with() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        let serve = |client: &mut Client, room: Room| client.serve(&disk, &mut Outflow::default(), room);
        far.write_all(b"{\"command\":\"id\",\"id\":1}\n").unwrap();
        pass(&far, "{\"command\":\"id\",\"id\":2,\"descriptor\":true}\n", 1);
        far.write_all(b"{\"command\":\"id\",\"id\":3,\"descriptor\":true}\n").unwrap();
        let mut passed = Vec::new();
        for id in 1..=3 {
            let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("line {id}") };
            client.begin(CommandId(id), &asked);
            passed.push(asked.descriptor.is_some());
        }
        // The third one says that one comes, and none does.
        assert_eq!((passed, client.descriptor_count()), (vec![false, true, false], 0));
        pass(&far, "{\"command\":\"id\",\"id\":4}\n", 1);
        let none = Room { descriptors: 1, ..ROOM };
        client.respond(Instant::ZERO, CommandId(1), left());
        assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Descriptors)));
        assert!(matches!(serve(&mut client, ROOM), Served::Asked(_)));
    }

    #[test]
    fn surplus_descriptors_are_closed_and_those_without_lines_end_the_connection() {
        let (dir, (mut client, far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        let serve = |client: &mut Client| client.serve(&disk, &mut Outflow::default(), ROOM);
        pass(&far, "{\"command\":\"id\",\"id\":1,\"descriptor\":true}\n", 9);
        let Served::Asked(asked) = serve(&mut client) else { panic!("the line is sound") };
        // Which of them was meant cannot be told.
        assert!(asked.descriptor.is_none() && client.descriptor_count() == 0);
        let (mut client, far) = pair();
        let ended = (0..2 * DESCRIPTORS_AHEAD_MAX).any(|_| {
            pass(&far, " ", 1);
            matches!(serve(&mut client), Served::Gone)
        });
        assert!(ended && client.descriptor_count() <= DESCRIPTORS_AHEAD_MAX);
    }
}

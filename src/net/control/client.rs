//! One client of the control socket: what it asked, and what waits to be told to it.

use crate::disk::{Disk, Outflow};
use crate::net::outbox::{Outbox, SendError};
use crate::node::command::{Command, CommandId, Failure, FailureReason, Response};
use crate::time::{Duration, Instant};
use mio::net::UnixStream;
use std::io::{ErrorKind, Read};

/// The longest line that is taken: a `set` with its value written as numbers fits, a flood does not.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Progress is left out while so much waits to be read: the next one says more.
const BACKLOG_BYTES: usize = 8 << 10;
/// How long a client waits at least between two lines of progress; of those between, it hears the last. A client that is
/// told of each chunk takes a tenth of the processor time of a fast download.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes written to one client in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// A client that is connected.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    /// Tells this client from the one that had its place before.
    pub(super) id: u64,
    /// Whether it is on the list of clients to be served.
    pub(super) queued: bool,
    inbox: Vec<u8>,
    outbox: Outbox,
    running: Option<CommandId>,
    /// What is to be told when the next line of progress is due.
    progress: Option<Response>,
    progress_at: Instant,
    /// It has said all that it is going to say.
    ended: bool,
    /// The other end is gone.
    hung_up: bool,
}

/// What serving a client found.
pub(super) enum Served {
    /// There is nothing more to do until its socket is ready again.
    Dry,
    /// This turn's budget is used up.
    More,
    /// It gave a command.
    Asked(Command),
    /// It is gone, has ended, or does not speak the language.
    Gone,
}

impl Client {
    pub(super) fn new(id: u64, socket: UnixStream) -> Self {
        Client {
            socket,
            id,
            queued: false,
            inbox: Vec::new(),
            outbox: Outbox::default(),
            running: None,
            progress: None,
            progress_at: Instant::default(),
            ended: false,
            hung_up: false,
        }
    }

    /// The command that it waits for.
    pub(super) fn running(&self) -> Option<CommandId> {
        self.running
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
    pub(super) fn begin(&mut self, command: CommandId) {
        debug_assert!(self.running.is_none(), "a client has one command at a time");
        self.running = Some(command);
    }

    /// Writes what waits, reads what is there, and takes the next command when none is running.
    pub(super) fn serve(&mut self, disk: &Disk, outflow: &mut Outflow) -> Served {
        if self.hung_up {
            return Served::Gone;
        }
        match self.write(disk, outflow) {
            Served::Dry => {}
            other => return other,
        }
        if !self.read() {
            return Served::Gone;
        }
        let served = self.take_line();
        match served {
            Served::Dry if self.ended && self.running.is_none() && self.outbox.is_empty() => Served::Gone,
            // What was wrong with the line is to be said.
            Served::Dry if self.ended && self.running.is_none() => match self.write(disk, outflow) {
                Served::Dry if self.outbox.is_empty() => Served::Gone,
                other => other,
            },
            served => served,
        }
    }

    /// Takes the answer to a command. Progress may wait for [`tell`](Client::tell).
    pub(super) fn respond(&mut self, now: Instant, response: Response) {
        if matches!(response, Response::Progress(_)) {
            self.progress = Some(response);
            return self.tell(now);
        }
        (self.running, self.progress) = (None, None);
        self.put(&response);
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
        let Some(progress) = self.progress.take() else { return };
        self.progress_at = now + PROGRESS_INTERVAL;
        if self.outbox.held_bytes() <= BACKLOG_BYTES {
            self.put(&progress);
        }
    }

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

    /// Takes the next command when none is running.
    fn take_line(&mut self) -> Served {
        let end = self.inbox.iter().position(|&byte| byte == b'\n');
        // A client that does not read its answers gives no more commands.
        let end = end.filter(|_| self.running.is_none() && self.outbox.is_empty());
        let Some(end) = end else {
            return if self.inbox.len() <= LINE_BYTES_MAX { Served::Dry } else { Served::Gone };
        };
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        match serde_json::from_slice(&line) {
            Ok(command) => Served::Asked(command),
            Err(error) => {
                let message = format!("not a command: {error}");
                self.put(&Response::Failed(Failure { reason: FailureReason::Usage, message }));
                self.ended = true;
                Served::Dry
            }
        }
    }

    fn put(&mut self, response: &Response) {
        self.outbox.push_bytes(&line_of(response));
    }

    /// Writes what the socket takes, within this turn's budget.
    fn write(&mut self, disk: &Disk, outflow: &mut Outflow) -> Served {
        let mut budget = WRITE_BYTES_PER_TURN;
        while !self.outbox.is_empty() {
            if budget == 0 {
                return Served::More;
            }
            match self.outbox.send(&mut self.socket, disk, outflow, budget) {
                Ok(moved) => budget = budget.saturating_sub(moved.bytes().max(1)),
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

/// An answer as it goes over the socket.
pub(super) fn line_of(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response)
        .expect("an answer has no maps but with names, and no number that JSON lacks");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TestDir;
    use crate::node::command::{Progress, Reply, Stage};
    use std::io::Write;

    fn pair() -> (Client, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Client::new(1, near), far)
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
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Asked(Command::Id)));
        client.begin(CommandId(5));
        far.write_all(b"ers\"}\n").unwrap();
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Dry));
        client.respond(Instant::ZERO, left());
        assert!(client.has_backlog() && client.running().is_none());
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Asked(Command::Peers)));
        assert!(said(&mut far).starts_with("{\"event\":\"done\""));
    }

    #[test]
    fn one_that_has_nothing_more_to_say_still_gets_its_answer() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        far.write_all(b"{\"command\":\"id\"}\n").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Asked(Command::Id)));
        client.begin(CommandId(5));
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Dry));
        client.respond(Instant::ZERO, left());
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Gone));
        assert!(said(&mut far).ends_with("}\n"));
        let (mut client, far) = pair();
        client.begin(CommandId(5));
        drop(far);
        client.hang_up();
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Gone));
        assert_eq!(client.running(), Some(CommandId(5)));
    }

    #[test]
    fn what_is_no_command_is_answered_and_a_flood_is_not() {
        let (dir, (mut client, mut far)) = (TestDir::new(), pair());
        let disk = dir.disk();
        far.write_all(b"{\"command\":\"explode\"}\n").unwrap();
        assert!(matches!(client.serve(&disk, &mut Outflow::default()), Served::Gone));
        assert!(said(&mut far).contains("not a command"));
        let (mut client, mut far) = pair();
        let mut sent = 0;
        loop {
            if matches!(client.serve(&disk, &mut Outflow::default()), Served::Gone) {
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
        client.begin(CommandId(5));
        let now = Instant::from_secs(9);
        (1..=3).for_each(|done| client.respond(now, progress(done)));
        assert_eq!(client.next_deadline(), Some(now + PROGRESS_INTERVAL));
        client.serve(&disk, &mut Outflow::default());
        assert!(said(&mut far).contains("\"done\":1"));
        client.tell(now + PROGRESS_INTERVAL);
        assert_eq!(client.next_deadline(), None);
        client.serve(&disk, &mut Outflow::default());
        let text = said(&mut far);
        assert!(text.contains("\"done\":3") && !text.contains("\"done\":2"), "{text}");
    }

    #[test]
    fn progress_that_nobody_reads_does_not_pile_up() {
        let (mut client, _far) = pair();
        client.begin(CommandId(5));
        for second in 0..1000 {
            client.respond(Instant::from_secs(9 + second), progress(second));
        }
        assert!(client.outbox.held_bytes() < BACKLOG_BYTES + 1024);
    }
}

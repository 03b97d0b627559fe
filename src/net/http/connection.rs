//! One connection of the gateway: its requests, one after the other, and the answer that is under way.
//!
//! The next request is parsed when the answer before it has left. Until then it waits in the buffer and, beyond that, in the
//! socket: a client that sends requests without reading answers fills nothing of the node's.

use super::access::Access;
use super::answer::{Answer, Head, Status};
use super::counters::Counters;
use super::pace::Pace;
use super::range::{Selected, select};
use super::request::{self, HEAD_BYTES_MAX, Parsed, Request, end_of_head, parse};
use super::route::{self, CACHE, Content, Form, Plan, tag};
use super::{api, media, metrics};
use crate::disk::{Disk, Outflow};
use crate::io::{DiskError, DiskErrorKind, Extent};
use crate::limits::Limits;
use crate::net::acceptor::SHORTAGE_MAX;
use crate::net::outbox::{Moved, Outbox, SendError};
use crate::node::command::{Command, CommandId, FailureReason, Part, Reply, Response};
use crate::time::{Duration, Instant, earliest};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;

/// The time for a request, from its first byte to its last.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The time that a connection is kept without a request.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// The time in which content must be found and its turn must come.
const CONTENT_TIME: Duration = Duration::from_secs(60);
/// The time in which the node must answer any other command. Without it, commands that never end (a client may close in a way that
/// looks like one that only sends no more) would take all the room for answers.
const REPLY_TIME: Duration = Duration::from_secs(60);
/// Seconds without progress after which the node gives up content.
const CONTENT_TIMEOUT: u32 = 30;
/// The time for which a connection is drained after its last answer: what the client still sends would else reset the connection,
/// and the answer with it (RFC 9112, section 9.6).
const LINGER_TIME: Duration = Duration::from_secs(2);
/// The bytes that are drained.
const LINGER_BYTES: usize = 256 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 4096;
/// Bytes written to one connection in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// A connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    /// Unique, so that an event for an earlier connection in this slot of the slab is recognised.
    pub(super) id: u64,
    /// Whether it is on the list of ready connections.
    pub(super) queued: bool,
    /// Whether there was no room for it: it gets a refusal.
    surplus: bool,
    /// What the client has sent and has not been taken.
    buffer: Vec<u8>,
    /// The first bytes of the buffer that contain no end of a head.
    searched: usize,
    /// The head that was parsed, and its length, until its body is here.
    head: Option<(Box<Request>, usize)>,
    outbox: Outbox,
    /// The content bytes that have left and have not been reported.
    sent: u64,
    state: State,
    pace: Pace,
    /// Since when there has been no descriptor for the content that is next.
    short_since: Option<Instant>,
    /// The client closed the connection.
    hung_up: bool,
}

/// A request with its body.
type Whole = (Box<Request>, Vec<u8>);

enum State {
    /// The last answer leaves, and a request is waited for until this time.
    Waiting(Instant),
    /// The node answers a request.
    Asking(Exchange),
    /// The last answer leaves; then the connection is closed.
    Closing,
    /// What the client sends is dropped until this time, or until this number of bytes.
    Lingering(Instant, usize),
}

/// A request that the node answers.
struct Exchange {
    /// The command; `None` until it has a number.
    command: Option<CommandId>,
    subject: Subject,
    only_head: bool,
    keep_alive: bool,
    since: Instant,
    /// Whether the answer's head is on its way.
    begun: bool,
    /// The bytes of content that the head promised and that were not handed out yet.
    promised: u64,
}

enum Subject {
    Content(Content),
    Reply(Form),
}

/// The result of serving a connection.
pub(super) enum Served {
    /// It can do no more until its socket is ready again or the node answers.
    Dry,
    /// There is more to do: this turn's budget is used up, or an answer was made.
    More,
    /// The client asks for what the node answers.
    Asked(Command),
    /// The content that is next waits for a descriptor.
    Short,
    /// It is over.
    Gone,
}

/// What is due when the time of a connection is over.
pub(super) enum Expired {
    /// It has an answer to write.
    Answered,
    /// The same, and this command is cancelled.
    Cancelled(CommandId),
    /// It is over.
    Gone,
}

impl Connection {
    /// A connection that was accepted. `surplus` when there is no room for it.
    pub(super) fn new(now: Instant, id: u64, socket: TcpStream, surplus: bool) -> Self {
        Connection {
            socket,
            id,
            queued: false,
            surplus,
            buffer: Vec::new(),
            searched: 0,
            head: None,
            outbox: Outbox::default(),
            sent: 0,
            state: State::Waiting(now + IDLE_TIME),
            pace: Pace::default(),
            short_since: None,
            hung_up: false,
        }
    }

    // Getters.

    /// The command that is under way.
    pub(super) fn command(&self) -> Option<CommandId> {
        match &self.state {
            State::Asking(exchange) => exchange.command,
            _ => None,
        }
    }

    /// Whether it waits for a request of which nothing has come. Such a connection may be closed at any time.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Waiting(_)) && self.buffer.is_empty() && self.outbox.is_empty()
    }

    /// Whether content waits for a descriptor.
    pub(super) fn is_short(&self) -> bool {
        self.short_since.is_some()
    }

    /// The bytes of answers in memory, and of the one that the node is about to give.
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.held_bytes() + if self.awaits_reply() { Limits::HTTP_REPLY_BYTES } else { 0 }
    }

    /// Whether the node is asked for something else than content.
    pub(super) fn awaits_reply(&self) -> bool {
        matches!(&self.state, State::Asking(Exchange { subject: Subject::Reply(_), .. }))
    }

    /// When [`expire`](Connection::expire) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Waiting(until) => self.outbox.is_empty().then_some(*until),
            State::Asking(exchange) => exchange.waits_until(),
            State::Closing => None,
            State::Lingering(until, _) => Some(*until),
        };
        earliest(own, self.pace.deadline())
    }

    // Inputs.

    /// Notes that the client closed the connection. One that only sends no more is different: it still waits for answers.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Notes that a command runs under this number.
    pub(super) fn begin(&mut self, id: CommandId) {
        if let State::Asking(exchange) = &mut self.state {
            exchange.command = Some(id);
        }
    }

    /// Writes the answer that is under way, or reads and takes the next request.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        disk: &Disk,
        outflow: &mut Outflow,
        access: &Access,
        counters: &mut Counters,
    ) -> Served {
        if self.hung_up {
            return Served::Gone;
        }
        match self.write(now, disk, outflow, counters) {
            Served::Dry => {}
            other => return other,
        }
        if !self.outbox.is_empty() {
            return Served::Dry;
        }
        match self.state {
            State::Asking(_) => Served::Dry,
            State::Waiting(_) => self.take_request(now, access, counters),
            State::Closing => {
                let _ = self.socket.shutdown(Shutdown::Write);
                self.state = State::Lingering(now + LINGER_TIME, LINGER_BYTES);
                self.drain()
            }
            State::Lingering(..) => self.drain(),
        }
    }

    /// The file that is asked for is found: the head of the answer leaves.
    pub(super) fn open(&mut self, length: u64, counters: &mut Counters) {
        let State::Asking(exchange) = &mut self.state else { return };
        let Subject::Content(content) = exchange.subject else { return };
        exchange.begun = true;
        let selected = select(content.part, length);
        let (status, bytes) = match &selected {
            Selected::Whole => (Status::OK, length),
            Selected::Some(bytes) => (Status::PARTIAL, bytes.end - bytes.start),
            Selected::Unsatisfiable => {
                let message = format!("the file has only {length} bytes");
                let answer = Answer::text(Status::UNSATISFIABLE, &message)
                    .with("Content-Range", format!("bytes */{length}"))
                    .with("Accept-Ranges", "bytes");
                let keep_alive = exchange.keep_alive;
                return self.put(&answer, false, keep_alive, counters);
            }
        };
        let head = head_of(&content, &selected, length);
        exchange.promised = if exchange.only_head { 0 } else { bytes };
        counters.count_answer(status);
        self.outbox.push_bytes(&head.finish(exchange.keep_alive));
    }

    /// Queues content of the file. It comes in order.
    pub(super) fn send_content(&mut self, extent: Extent, disk: &Disk) {
        let State::Asking(exchange) = &mut self.state else { return };
        debug_assert!(exchange.begun, "content of a file that was not opened");
        exchange.promised = exchange.promised.saturating_sub(u64::from(extent.length));
        self.outbox.push_extent(extent, disk);
    }

    /// The node answered the command.
    pub(super) fn respond(&mut self, now: Instant, response: &Response, counters: &mut Counters) {
        let State::Asking(exchange) = &mut self.state else { return };
        let (keep_alive, only_head, begun) = (exchange.keep_alive, exchange.only_head, exchange.begun);
        let answer = match (response, &exchange.subject) {
            (Response::Progress(_) | Response::Content(_), _) => return,
            (_, Subject::Content(_)) if begun => {
                // Without the bytes that were promised, the client has to see that the answer was cut off.
                if exchange.promised > 0 {
                    counters.answers_cut += 1;
                    self.hung_up = true;
                }
                return self.end(now, keep_alive);
            }
            (Response::Done(Reply::Status(status)), Subject::Reply(Form::Metrics)) => metrics::answer(status),
            (Response::Done(reply), Subject::Reply(_)) => api::reply(reply),
            (Response::Failed(failure), Subject::Content(_)) => {
                let answer = Answer::text(api::status_of(failure.reason), &failure.message);
                api::retry(answer, failure.reason)
            }
            (Response::Failed(failure), Subject::Reply(_)) => api::failure(failure),
            (Response::Done(_), Subject::Content(_)) => {
                debug_assert!(false, "a file was read that was not opened");
                Answer::text(Status::FAILED, "the node read a file that it did not open")
            }
        };
        self.put(&answer, only_head, keep_alive, counters);
        self.end(now, keep_alive);
    }

    /// The time of [`next_deadline`](Connection::next_deadline) has come.
    pub(super) fn expire(&mut self, now: Instant, counters: &mut Counters) -> Expired {
        if self.pace.deadline().is_some_and(|at| at <= now) {
            counters.readers_slow += 1;
            return Expired::Gone;
        }
        match &self.state {
            State::Waiting(_) if self.buffer.is_empty() => Expired::Gone,
            State::Waiting(_) => {
                counters.requests_slow += 1;
                let why = "the request took too long: send it within ten seconds";
                self.close_with(&Answer::text(Status::TIMEOUT, why), counters);
                Expired::Answered
            }
            State::Asking(exchange) => {
                let (command, keep_alive, only_head) =
                    (exchange.command, exchange.keep_alive, exchange.only_head);
                let why = match exchange.subject {
                    Subject::Content(_) => {
                        "the node streams as many files as it can (`--reads`), or does not find this one in time: try later"
                    }
                    Subject::Reply(_) => {
                        "the command was not done within a minute and is cancelled: run `elver` at the node for what takes longer"
                    }
                };
                let answer = Answer::text(Status::UNAVAILABLE, why);
                self.put(&api::retry(answer, FailureReason::Busy), only_head, keep_alive, counters);
                self.end(now, keep_alive);
                command.map_or(Expired::Answered, Expired::Cancelled)
            }
            State::Closing | State::Lingering(..) => Expired::Gone,
        }
    }

    /// The content bytes that have left since the last call, and their command.
    pub(super) fn take_sent(&mut self) -> Option<(CommandId, u64)> {
        let sent = core::mem::take(&mut self.sent);
        self.command().filter(|_| sent > 0).map(|command| (command, sent))
    }

    // Requests.

    fn take_request(&mut self, now: Instant, access: &Access, counters: &mut Counters) -> Served {
        loop {
            match self.next_request() {
                Ok(Some((request, body))) => return self.handle(now, &request, &body, access, counters),
                Ok(None) => {}
                Err(refusal) => {
                    counters.count_refusal(refusal);
                    let (status, why) = refusal.answer();
                    self.close_with(&Answer::text(status, why), counters);
                    return Served::More;
                }
            }
            let was_empty = self.buffer.is_empty();
            match self.read() {
                Ok(0) => return Served::Gone,
                Ok(_) if was_empty => self.state = State::Waiting(now + REQUEST_TIME),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Served::Dry,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Served::Gone,
            }
        }
    }

    /// Takes a request with its body out of the buffer, if it is complete.
    fn next_request(&mut self) -> Result<Option<Whole>, request::Refusal> {
        if self.head.is_none() {
            // Empty lines before a request are allowed.
            let blank = self.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.buffer.drain(..blank);
            self.searched = self.searched.min(self.buffer.len());
            let within = &self.buffer[..self.buffer.len().min(HEAD_BYTES_MAX)];
            match end_of_head(within, self.searched) {
                None if self.buffer.len() >= HEAD_BYTES_MAX => return Err(request::Refusal::HeadTooLarge),
                None => {
                    self.searched = self.buffer.len();
                    return Ok(None);
                }
                Some(end) => match parse(&self.buffer[..end]) {
                    Parsed::Whole(request, length) => self.head = Some((request, length)),
                    Parsed::Partial => {
                        return Err(request::Refusal::Malformed("the request's head ends early"));
                    }
                    Parsed::Refused(refusal) => return Err(refusal),
                },
            }
        }
        let needed = |(request, length): &mut (Box<Request>, usize)| *length + request.body_bytes;
        let Some((request, length)) = self.head.take_if(|head| needed(head) <= self.buffer.len()) else {
            return Ok(None);
        };
        let body = self.buffer[length..length + request.body_bytes].to_vec();
        self.buffer.drain(..length + request.body_bytes);
        self.searched = 0;
        Ok(Some((request, body)))
    }

    /// Reads on, but no more than the longest request. Returns the number of bytes.
    fn read(&mut self) -> std::io::Result<usize> {
        let most = match &self.head {
            None => HEAD_BYTES_MAX,
            Some((request, length)) => length + request.body_bytes,
        };
        let mut bytes = [0; READ_BYTES];
        let room = most.saturating_sub(self.buffer.len()).min(READ_BYTES);
        debug_assert!(room > 0, "a full buffer has a request");
        let length = self.socket.read(&mut bytes[..room])?;
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn handle(
        &mut self,
        now: Instant,
        request: &Request,
        body: &[u8],
        access: &Access,
        counters: &mut Counters,
    ) -> Served {
        counters.requests += 1;
        let (keep_alive, only_head) = (request.keep_alive, request.method == request::Method::Head);
        if self.surplus {
            counters.turned_away += 1;
            let answer =
                Answer::text(Status::UNAVAILABLE, "the gateway has too many connections (`--http-clients`)");
            self.close_with(&api::retry(answer, FailureReason::Busy), counters);
            return Served::More;
        }
        let (command, subject) = match route::plan(request, body, access) {
            Plan::Answer(answer) => {
                counters.count_denial(answer.status);
                self.put(&answer, only_head, keep_alive, counters);
                self.end(now, keep_alive);
                return Served::More;
            }
            Plan::Content(content) => {
                // The head of an answer needs the file's length alone.
                let part =
                    if only_head { Some(Part::Between { start: 0, end: Some(0) }) } else { content.part };
                let read = Command::Read { hash: content.hash, part, timeout: Some(CONTENT_TIMEOUT) };
                (read, Subject::Content(content))
            }
            Plan::Ask(command, form) => (command, Subject::Reply(form)),
        };
        let (command_id, begun, promised) = (None, false, 0);
        self.state = State::Asking(Exchange {
            command: command_id,
            subject,
            only_head,
            keep_alive,
            since: now,
            begun,
            promised,
        });
        Served::Asked(command)
    }

    // Answers.

    fn put(&mut self, answer: &Answer, only_head: bool, keep_alive: bool, counters: &mut Counters) {
        counters.count_answer(answer.status);
        self.outbox.push_bytes(&answer.bytes(only_head, keep_alive));
    }

    fn close_with(&mut self, answer: &Answer, counters: &mut Counters) {
        self.put(answer, false, false, counters);
        self.state = State::Closing;
    }

    /// The answer is complete.
    fn end(&mut self, now: Instant, keep_alive: bool) {
        let time = if self.buffer.is_empty() { IDLE_TIME } else { REQUEST_TIME };
        self.state = if keep_alive { State::Waiting(now + time) } else { State::Closing };
    }

    /// Drops what the client sends.
    fn drain(&mut self) -> Served {
        self.buffer = Vec::new();
        let mut scrap = [0; READ_BYTES];
        loop {
            let State::Lingering(_, left) = &mut self.state else { return Served::Gone };
            match self.socket.read(&mut scrap) {
                Ok(length) if length > 0 && length < *left => *left -= length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Served::Dry,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Served::Gone,
            }
        }
    }

    /// Whether content that could not be opened is tried again: descriptors may be free in a moment.
    fn may_wait(&mut self, now: Instant, error: &DiskError) -> bool {
        error.kind == DiskErrorKind::Busy && now < *self.short_since.get_or_insert(now) + SHORTAGE_MAX
    }

    /// Writes the outbox until the socket is full or this turn's budget is used up.
    fn write(&mut self, now: Instant, disk: &Disk, outflow: &mut Outflow, counters: &mut Counters) -> Served {
        let mut left = WRITE_BYTES_PER_TURN;
        let held_before = !self.outbox.is_empty();
        let served = loop {
            if self.outbox.is_empty() {
                break Served::Dry;
            }
            if left == 0 {
                break Served::More;
            }
            match self.outbox.send(&mut self.socket, disk, outflow, left) {
                Ok(moved) => {
                    if let Moved::Content(bytes) = moved {
                        self.short_since = None;
                        self.sent += bytes as u64;
                        counters.content_bytes += bytes as u64;
                    }
                    left = left.saturating_sub(moved.bytes().max(1));
                }
                Err(SendError::Socket(error)) if error.kind() == ErrorKind::WouldBlock => break Served::Dry,
                Err(SendError::Socket(_)) => break Served::Gone,
                Err(SendError::File(error)) if self.may_wait(now, &error) => break Served::Short,
                Err(SendError::File(error)) => {
                    log::warn!("sending a file over HTTP: {error}");
                    counters.answers_cut += 1;
                    break Served::Gone;
                }
            }
        };
        let moved = (WRITE_BYTES_PER_TURN - left) as u64;
        self.pace.note(now, moved, !self.outbox.is_empty());
        if let (true, true, State::Waiting(until)) = (held_before, self.outbox.is_empty(), &mut self.state) {
            // The client had no reason to send before it had its answer.
            *until = now + if self.buffer.is_empty() { IDLE_TIME } else { REQUEST_TIME };
        }
        served
    }
}

/// The head of an answer with content of a file of `length` bytes.
pub(super) fn head_of(content: &Content, selected: &Selected, length: u64) -> Head {
    let head = match selected {
        Selected::Some(bytes) => Head::new(Status::PARTIAL)
            .with("Content-Length", bytes.end - bytes.start)
            .with("Content-Range", format_args!("bytes {}-{}/{length}", bytes.start, bytes.end - 1)),
        Selected::Whole | Selected::Unsatisfiable => Head::new(Status::OK).with("Content-Length", length),
    };
    let head = head
        .with("Content-Type", content.media)
        .with("Accept-Ranges", "bytes")
        .with("ETag", tag(content.hash))
        .with("Cache-Control", CACHE)
        .with("Cross-Origin-Resource-Policy", "same-origin");
    match media::can_script(content.media) {
        // Content comes from strangers and must not act as the gateway's own page.
        true => head.with("Content-Security-Policy", "sandbox"),
        false => head,
    }
}

impl Exchange {
    /// When content that is neither found nor begun, or another answer, is given up.
    fn waits_until(&self) -> Option<Instant> {
        let time = match self.subject {
            Subject::Content(_) => CONTENT_TIME,
            Subject::Reply(_) => REPLY_TIME,
        };
        (!self.begun).then_some(self.since + time)
    }
}

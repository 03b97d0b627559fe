//! Serving the streams to peers, one after the other, within budgets.

use super::Driver;
use super::acceptor::{Accepted, SHORTAGE_MAX, SHORTAGE_PAUSE};
use super::dials::Dial;
use super::outbox::{Moved, Outbox, SendError};
use super::stream::{Coming, State, Unopened};
use crate::disk::{Disk, Intake, OpenSink};
use crate::io::{DiskError, DiskErrorKind, Sink, StreamId};
#[cfg(doc)]
use crate::node::Node;
use crate::node::StreamOutput;
use crate::time::Instant;
use crate::wire::contact::canonical;
use mio::net::TcpStream;
use rustix::fd::AsFd;
use std::io::{self, ErrorKind, Read};

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Bytes read from one stream in one turn; the last read may exceed it.
const READ_BYTES_PER_TURN: usize = 512 << 10;
/// Bytes written to one stream in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;
/// Bytes moved on all streams together in one turn. The streams that are left are served first in the next turn.
const BYTES_PER_TURN: u64 = 4 << 20;

/// The result of serving a stream.
enum Served {
    /// The stream can do no more now.
    Dry,
    /// The budget is used up.
    More,
    /// The stream failed, or the peer closed it.
    Gone,
}

impl Driver {
    /// Carries out the node's outputs until there are none, those on streams first: see [`Node::poll_stream`].
    pub(super) fn carry_out(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.node.poll_stream() {
                self.carry_out_on_stream(now, output);
            }
            match self.node.poll_output() {
                Some(output) => self.carry_out_other(now, output),
                None => return,
            }
        }
    }

    fn carry_out_on_stream(&mut self, now: Instant, output: StreamOutput) {
        match output {
            StreamOutput::Connect { dial, contact, until } => {
                self.dial(now, Dial { id: dial, to: contact.addr, until });
            }
            StreamOutput::Write { stream, bytes } => {
                self.queue(stream, |outbox, _| outbox.push_bytes(&bytes))
            }
            StreamOutput::SendFile { stream, extent } => {
                self.queue(stream, |outbox, disk| outbox.push_extent(extent, disk));
            }
            StreamOutput::Sink { stream, sink } => self.open_sink(now, stream, &sink),
            StreamOutput::Close { stream } => self.close(stream),
        }
    }

    /// Adds to the send queue of a stream.
    fn queue(&mut self, id: StreamId, add: impl FnOnce(&mut Outbox, &Disk)) {
        let Some(stream) = self.streams.get(id) else { return };
        add(&mut stream.outbox, &self.disk);
        self.streams.enqueue(id);
    }

    pub(super) fn accept_streams(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.acceptor.accept(now, "a connection", || self.listener.accept()) {
                Accepted::New((socket, remote)) => {
                    let _ = socket.set_nodelay(true);
                    match self.streams.insert(now, socket, State::Open, self.poll.registry()) {
                        Ok(id) => {
                            self.node.handle_accepted(now, id, canonical(remote));
                            self.carry_out(now);
                        }
                        Err(error) => log::warn!("accepting a connection from {remote}: {error}"),
                    }
                }
                // Dropping the socket closes it, so the peer learns at once.
                Accepted::Surplus(_) => {}
                Accepted::None => return,
            }
        }
    }

    fn dial(&mut self, now: Instant, dial: Dial) {
        let opened = self.dials.open(dial.to);
        self.dial_opened(now, dial, opened);
    }

    /// A dial has begun, or failed to.
    fn dial_opened(&mut self, now: Instant, dial: Dial, opened: io::Result<TcpStream>) {
        let state = State::Connecting { dial: dial.id, until: dial.until };
        let inserted =
            opened.and_then(|socket| self.streams.insert(now, socket, state, self.poll.registry()));
        if let Err(error) = inserted {
            if !self.dials.put_off(now, dial, &error) {
                log::debug!("connecting to {}: {error}", dial.to);
                self.node.handle_dial_failed(now, dial.id);
            }
        }
    }

    /// Repeats the dials that found no free descriptor, and ends those that took too long.
    pub(super) fn tend_dials(&mut self, now: Instant) {
        while let Some(dial) = self.dials.take_due(now) {
            self.dial(now, dial);
            self.carry_out(now);
        }
        while let Some((id, dial)) = self.streams.late_dial(now) {
            self.streams.remove(id, self.poll.registry());
            self.node.handle_dial_failed(now, dial);
            self.carry_out(now);
        }
    }

    fn open_sink(&mut self, now: Instant, id: StreamId, sink: &Sink) {
        self.try_sink(now, id, Unopened { sink: sink.clone(), until: now + SHORTAGE_MAX });
        if self.streams.get(id).is_some_and(|stream| stream.unopened.is_some()) {
            log::info!("content that comes waits for a descriptor");
        }
    }

    /// Opens a sink. Where descriptors have run out it is tried again a little later: the shortage says nothing of the file, nor
    /// of the peer whose bytes are on their way.
    fn try_sink(&mut self, now: Instant, id: StreamId, unopened: Unopened) {
        let Some(stream) = self.streams.get(id) else { return };
        match self.disk.open_sink(&unopened.sink) {
            Ok(open) => {
                stream.sink = Some(open);
                // An empty piece is complete already.
                self.finish_sink(now, id);
            }
            Err(error) if error.kind == DiskErrorKind::Busy && now < unopened.until => {
                stream.reads_at = Some(now + SHORTAGE_PAUSE);
                stream.unopened = Some(unopened);
            }
            Err(error) => self.node.handle_sunk(now, id, Err(error)),
        }
    }

    /// Tries again to open the sink that a stream waits for. What came with its announcement goes into it.
    fn retry_sink(&mut self, now: Instant, id: StreamId) {
        let waiting = self.streams.get(id).and_then(|stream| stream.unopened.take());
        let Some(unopened) = waiting else { return };
        self.try_sink(now, id, unopened);
        self.carry_out(now);
        if let Some(stream) = self.streams.get(id).filter(|stream| stream.unopened.is_none()) {
            let held = core::mem::take(&mut stream.inbox);
            self.feed(now, id, &held);
        }
    }

    fn close(&mut self, id: StreamId) {
        // A last frame, such as a refusal, leaves if the socket takes it now.
        if let Some(stream) = self.streams.get(id) {
            stream.outbox.send_last_frame(&mut stream.socket);
        }
        self.streams.remove(id, self.poll.registry());
    }

    /// Serves each ready stream once.
    pub(super) fn serve_streams(&mut self) {
        let full = self.streams.moved + BYTES_PER_TURN;
        for _ in 0..self.streams.ready_count() {
            if self.streams.moved >= full {
                return;
            }
            let Some(id) = self.streams.take_ready() else { return };
            let Some(stream) = self.streams.get(id) else { continue };
            let now = self.clock.now();
            if matches!(stream.state, State::Connecting { .. }) && !self.finish_dial(now, id) {
                continue;
            }
            self.retry_sink(now, id);
            let served = match self.write_stream(now, id) {
                Served::Gone => Served::Gone,
                written => match (written, self.read_stream(now, id)) {
                    (_, Served::Gone) => Served::Gone,
                    (Served::Dry, Served::Dry) => Served::Dry,
                    _ => Served::More,
                },
            };
            match served {
                Served::Gone => {
                    if self.streams.remove(id, self.poll.registry()).is_some() {
                        self.node.handle_closed(now, id);
                        self.carry_out(now);
                    }
                }
                Served::More => self.streams.enqueue(id),
                Served::Dry => {
                    if self.streams.get(id).is_some_and(|stream| stream.has_work()) {
                        self.streams.enqueue(id);
                    }
                }
            }
        }
    }

    /// Completes a dial: `true` when the stream is open. It is not while connect(2) is still under way or has failed.
    fn finish_dial(&mut self, now: Instant, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let State::Connecting { dial, .. } = stream.state else { return true };
        let failed = match (stream.socket.take_error(), stream.socket.peer_addr()) {
            (Ok(None), Ok(_)) => None,
            (Ok(None), Err(error)) if error.kind() == ErrorKind::NotConnected => return false,
            (Ok(Some(error)) | Err(error), _) | (_, Err(error)) => Some(error),
        };
        if let Some(error) = failed {
            log::debug!("connecting: {error}");
            self.streams.remove(id, self.poll.registry());
            self.node.handle_dial_failed(now, dial);
            self.carry_out(now);
            return false;
        }
        stream.state = State::Open;
        let _ = stream.socket.set_nodelay(true);
        self.node.handle_connected(now, dial, id);
        self.carry_out(now);
        true
    }

    fn write_stream(&mut self, now: Instant, id: StreamId) -> Served {
        let mut budget = WRITE_BYTES_PER_TURN;
        loop {
            let Some(stream) = self.streams.get(id) else { return Served::Dry };
            if !stream.writable || stream.outbox.is_empty() {
                return Served::Dry;
            }
            if budget == 0 {
                return Served::More;
            }
            let allowed = match stream.outbox.starts_with_content() {
                true => self.streams.may_send(now, id),
                false => budget,
            };
            let Some(stream) = self.streams.get(id).filter(|_| allowed > 0) else { return Served::Dry };
            match stream.outbox.send(&mut stream.socket, &self.disk, &mut self.outflow, budget.min(allowed)) {
                Ok(moved) => {
                    if let Moved::Content(length) = moved {
                        self.node.handle_stream_sent(now, id, length as u64);
                    }
                    budget = budget.saturating_sub(moved.bytes().max(1));
                    self.streams.count(now, id, 0, moved.bytes());
                }
                Err(SendError::File(error)) if error.kind == DiskErrorKind::Busy => {
                    // The frame that announces the content may have left already, so the content waits for a descriptor.
                    stream.writes_at = Some(now + SHORTAGE_PAUSE);
                    return Served::Dry;
                }
                Err(SendError::File(error)) => {
                    self.node.handle_send_failed(now, id, &error);
                    self.carry_out(now);
                    return Served::Dry;
                }
                Err(SendError::Socket(error)) if error.kind() == ErrorKind::WouldBlock => {
                    stream.writable = false;
                    return Served::Dry;
                }
                Err(SendError::Socket(_)) => return Served::Gone,
            }
            if self.streams.get(id).is_some_and(|stream| stream.outbox.is_empty()) {
                self.node.handle_drained(now, id);
                self.carry_out(now);
            }
        }
    }

    fn read_stream(&mut self, now: Instant, id: StreamId) -> Served {
        // Taken out for the time of the read: `read_with` needs `self` while it passes on bytes of the intake's buffer.
        let mut intake = core::mem::replace(&mut self.streams.intake, Intake::none());
        let served = self.read_with(now, id, &mut intake);
        self.streams.intake = intake;
        served
    }

    fn read_with(&mut self, now: Instant, id: StreamId, intake: &mut Intake) -> Served {
        let mut budget = READ_BYTES_PER_TURN;
        loop {
            let Some(stream) = self.streams.get(id) else { return Served::Dry };
            if !stream.readable || stream.unopened.is_some() {
                return Served::Dry;
            }
            if budget == 0 {
                return Served::More;
            }
            let allowed = self.streams.may_read(now, id);
            let Some(stream) = self.streams.get(id).filter(|_| allowed > 0) else { return Served::Dry };
            let taken = match &mut stream.sink {
                Some(sink) => sink.receive_some(stream.socket.as_fd(), intake, allowed),
                None => {
                    let buffer = intake.buffer();
                    let most = stream.coming.frame_bytes(&stream.inbox, buffer.len());
                    stream.socket.read(&mut buffer[..most])
                }
            };
            let sinking = stream.sink.is_some();
            match taken {
                Ok(0) => return Served::Gone,
                Ok(length) => {
                    budget = budget.saturating_sub(length);
                    self.streams.count(now, id, length, 0);
                    match sinking {
                        true => self.content_taken(now, id, length),
                        false => self.feed(now, id, &intake.buffer()[..length]),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stream.readable = false;
                    return Served::Dry;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => match OpenSink::disk_error(&error) {
                    None => return Served::Gone,
                    Some(error) => {
                        self.fail_sink(now, id, error.clone());
                        return Served::Dry;
                    }
                },
            }
        }
    }

    /// Passes on the bytes of one read: raw bytes to the stream's sink, frames to the node.
    fn feed(&mut self, now: Instant, id: StreamId, bytes: &[u8]) {
        let Some(stream) = self.streams.get(id) else { return };
        let joined;
        let mut rest = bytes;
        if !stream.inbox.is_empty() {
            let mut inbox = core::mem::take(&mut stream.inbox);
            inbox.extend_from_slice(bytes);
            joined = inbox;
            rest = &joined;
        }
        while !rest.is_empty() {
            let Some(stream) = self.streams.get(id) else { return };
            if let Some(sink) = &mut stream.sink {
                let taken = match sink.write(rest) {
                    Ok(taken) => taken,
                    Err(error) => return self.fail_sink(now, id, error),
                };
                rest = &rest[taken..];
                self.content_taken(now, id, taken);
                continue;
            }
            let taken = self.node.handle_stream_bytes(now, id, rest);
            self.carry_out(now);
            rest = &rest[taken..];
            let Some(stream) = self.streams.get(id) else { return };
            if taken == 0 || stream.unopened.is_some() {
                stream.inbox.extend_from_slice(rest);
                return;
            }
            if stream.sink.is_none() && stream.coming == Coming::Content {
                stream.coming = Coming::Either;
            }
        }
    }

    /// Drops a sink that failed. The node then closes the stream, whose further raw bytes have no target.
    fn fail_sink(&mut self, now: Instant, id: StreamId, error: DiskError) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.sink = None;
        self.node.handle_sunk(now, id, Err(error));
        self.carry_out(now);
    }

    /// Tells the node that the sink took raw bytes, and finishes the sink when it is full.
    fn content_taken(&mut self, now: Instant, id: StreamId, length: usize) {
        self.node.handle_stream_progress(now, id, length as u64);
        self.finish_sink(now, id);
    }

    fn finish_sink(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get(id) else { return };
        if let Some(full) = stream.sink.take_if(|sink| sink.remaining() == 0) {
            stream.coming = Coming::Content;
            let result = full.finish();
            self.node.handle_sunk(now, id, result);
            self.carry_out(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestDir;
    use super::super::{Config, Driver};
    use super::*;
    use crate::io::{DialId, Place};
    use crate::manifest::HashAs;
    use crate::time::Duration;
    use core::net::SocketAddr;
    use rustix::io::Errno;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream as StdStream};

    /// Turns after which a condition that does not come true fails the test.
    const TURNS_MAX: usize = 500;

    fn driver(dir: &TestDir) -> Driver {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = Config { dir: dir.path("node"), listen, handle_signals: false, ..Config::default() };
        Driver::start(config).unwrap()
    }

    /// Runs the loop until `done` holds.
    fn run(driver: &mut Driver, what: &str, done: impl Fn(&mut Driver) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(driver) {
                return;
            }
            driver.turn(Some(Duration::from_millis(20))).unwrap();
        }
        panic!("never: {what}");
    }

    /// A peer that connects to the driver, and the driver's stream to it.
    fn connected(driver: &mut Driver) -> (StdStream, StreamId) {
        let peer = StdStream::connect(driver.local_addr()).unwrap();
        let before = driver.streams.len();
        run(driver, "the connection is accepted", |driver| driver.streams.len() > before);
        let id = driver.streams.newest();
        (peer, id)
    }

    /// Raw bytes of this stream go into a file.
    fn sink_into(driver: &mut Driver, id: StreamId, length: u32) {
        let place = Place::Incoming(1);
        let sink = Sink { place, offset: 0, length, hash_as: HashAs::Root };
        let now = driver.clock.now();
        driver.open_sink(now, id, &sink);
        assert!(driver.streams.get(id).unwrap().sink.is_some());
    }

    #[test]
    fn a_stream_whose_other_end_sends_no_more_is_closed() {
        let dir = TestDir::new();
        let mut driver = driver(&dir);
        let (peer, _) = connected(&mut driver);
        peer.shutdown(Shutdown::Write).unwrap();
        run(&mut driver, "the stream is closed", |driver| driver.streams.len() == 0);
        let mut rest = Vec::new();
        (&peer).read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty(), "this node had said hello");
    }

    #[test]
    fn a_stream_reads_no_more_than_its_budget_in_a_turn_and_stays_ready() {
        let dir = TestDir::new();
        let mut driver = driver(&dir);
        let (mut peer, id) = connected(&mut driver);
        sink_into(&mut driver, id, 64 << 20);
        peer.set_nonblocking(true).unwrap();
        let (bytes, mut most) = (vec![1; 1 << 20], 0);
        for _ in 0..64 {
            while peer.write(&bytes).is_ok() {}
            driver.streams.note(super::super::stream_token(id.0).0 >> 2, true, false);
            let before = driver.streams.moved;
            driver.serve_streams();
            let moved = driver.streams.moved - before;
            most = most.max(moved);
            if moved >= READ_BYTES_PER_TURN as u64 {
                assert!(driver.streams.has_ready(), "the rest follows in the next turn");
            }
        }
        let read_max = driver.streams.intake.buffer().len() as u64;
        assert!(most >= READ_BYTES_PER_TURN as u64, "never more than {most} bytes waited");
        assert!(most < READ_BYTES_PER_TURN as u64 + read_max, "{most} bytes in one turn");
    }

    #[test]
    fn a_dial_that_takes_too_long_is_given_up() {
        let dir = TestDir::new();
        let mut driver = driver(&dir);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let now = driver.clock.now();
        let until = now + Duration::from_secs(5);
        driver.dial(now, Dial { id: DialId(1), to: listener.local_addr().unwrap(), until });
        driver.tend_dials(until - Duration::from_millis(1));
        assert_eq!(driver.streams.len(), 1);
        driver.tend_dials(until);
        assert_eq!(driver.streams.len(), 0);
    }

    #[test]
    fn a_dial_without_a_descriptor_begins_when_it_is_repeated() {
        let dir = TestDir::new();
        let mut driver = driver(&dir);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let now = driver.clock.now();
        let (to, until) = (listener.local_addr().unwrap(), now + Duration::from_secs(5));
        driver.dial_opened(now, Dial { id: DialId(1), to, until }, Err(Errno::MFILE.into()));
        assert_eq!(driver.streams.len(), 0);
        let due = driver.dials.next_retry().expect("it waits");
        assert!(driver.time_left().is_some_and(|left| left <= SHORTAGE_PAUSE), "the poll ends in time");
        driver.tend_dials(due);
        assert_eq!(driver.streams.len(), 1);
        assert_eq!(driver.dials.next_retry(), None);
    }

    #[test]
    fn content_that_waited_for_a_descriptor_goes_into_its_file() {
        let dir = TestDir::new();
        let mut driver = driver(&dir);
        let (_peer, id) = connected(&mut driver);
        let sink = Sink { place: Place::Incoming(1), offset: 0, length: 9, hash_as: HashAs::Root };
        let now = driver.clock.now();
        let until = now + SHORTAGE_MAX;
        driver.streams.get(id).unwrap().unopened = Some(Unopened { sink, until });
        driver.retry_sink(now, id);
        assert!(driver.streams.get(id).unwrap().sink.is_some(), "there is one now");
    }
}

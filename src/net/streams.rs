//! The TCP connections to peers, in a slab, served round-robin within budgets.

use super::acceptor::{Accepted, is_shortage};
use super::outbox::{Moved, SendError};
use super::stream::{Coming, State, Stream, Unopened};
use super::throttle::{Bucket, Pair};
use super::{Driver, stream_token};
use crate::disk::{Intake, OpenSink, Way};
use crate::io::{DialId, DiskError, DiskErrorKind, Extent, Sink, StreamId};
use crate::limits::Rates;
use crate::time::{Duration, Instant};
use crate::wire::contact::canonical;
use core::net::SocketAddr;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::fd::AsFd;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Bytes read from one stream in one turn; the last read may exceed it.
const READ_BYTES_PER_TURN: usize = 512 << 10;
/// Bytes written to one stream in one turn.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;
/// Bytes moved on all streams together in one turn. The streams that are left are served first in the next turn.
const BYTES_PER_TURN: u64 = 4 << 20;
/// The pause before content or a dial is tried again when descriptors have run out.
pub(super) const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait of content for a descriptor: after that it fails.
pub(super) const SHORTAGE_MAX: Duration = Duration::from_secs(10);
/// The low bits of a stream's number that hold its index in the slab.
const INDEX_BITS: u32 = 12;

pub(super) struct Streams {
    slab: Slab<Stream>,
    counter: u64,
    /// Streams that may be able to read or write.
    ready: VecDeque<StreamId>,
    intake: Intake,
    /// Bytes moved so far, in both directions.
    moved: u64,
    rates: Rates,
    /// The rate limits of all streams together, in and out.
    incoming: Bucket,
    outgoing: Bucket,
    /// The source address of dials: the address that the node listens on, so that peers see that address.
    local: SocketAddr,
    /// Dials that found no free descriptor. The core bounds the number of its dials.
    waiting: VecDeque<Waiting>,
}

/// A dial that has not begun.
struct Waiting {
    dial: DialId,
    to: SocketAddr,
    until: Instant,
    retry_at: Instant,
}

impl Streams {
    pub(super) fn new(now: Instant, local: SocketAddr, way: Way) -> Self {
        Streams {
            slab: Slab::new(),
            counter: 0,
            ready: VecDeque::new(),
            intake: Intake::new(way),
            moved: 0,
            rates: Rates::default(),
            incoming: Bucket::new(now, 0),
            outgoing: Bucket::new(now, 0),
            local,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn next_dial_deadline(&self) -> Option<Instant> {
        let untils = self.slab.iter().filter_map(|(_, stream)| match stream.state {
            State::Connecting { until, .. } => Some(until),
            State::Open => None,
        });
        untils.min()
    }

    /// When to repeat a dial that found no free descriptor.
    pub(super) fn next_dial_retry(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.retry_at).min()
    }

    /// Changes the rate limits. Streams that wait for one are served again at once.
    pub(super) fn set_rates(&mut self, now: Instant, rates: Rates) {
        if rates == self.rates {
            return;
        }
        self.rates = rates;
        self.incoming.set_rate(now, rates.download);
        self.outgoing.set_rate(now, rates.upload);
        for (_, stream) in &mut self.slab {
            stream.incoming.set_rate(now, rates.peer_download);
            stream.outgoing.set_rate(now, rates.peer_upload);
            stream.reads_at = stream.reads_at.and(Some(now));
            stream.writes_at = stream.writes_at.and(Some(now));
        }
    }

    /// When a stream that a rate limit stopped may go on.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.slab.iter().flat_map(|(_, stream)| [stream.reads_at, stream.writes_at]).flatten().min()
    }

    /// Puts the streams whose rate limit lets them go on back on the ready list, the longest idle first: the common limit may
    /// not be enough for all of them.
    pub(super) fn wake(&mut self, now: Instant) {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let woken = self.slab.iter_mut().filter_map(|(_, stream)| {
            let woken = due(&mut stream.reads_at) | due(&mut stream.writes_at);
            woken.then_some((stream.moved_at, stream.id))
        });
        let mut woken: Vec<(Instant, StreamId)> = woken.collect();
        woken.sort_unstable_by_key(|&(at, id)| (at, id.0));
        woken.into_iter().for_each(|(_, id)| self.enqueue(id));
    }

    /// The number of content bytes that a stream may send now. At 0 the stream is woken when it may go on.
    fn may_send(&mut self, now: Instant, id: StreamId) -> usize {
        let index = (id.0 & ((1 << INDEX_BITS) - 1)) as usize;
        let Some(stream) = self.slab.get_mut(index).filter(|stream| stream.id == id) else { return 0 };
        if stream.writes_at.is_some_and(|at| now < at) {
            // A different event has woken the stream. Sending a few bytes at a time would waste system calls.
            return 0;
        }
        let allowed = Pair(&mut stream.outgoing, &mut self.outgoing).allowed(now);
        stream.writes_at = allowed.err();
        allowed.unwrap_or(0)
    }

    /// The number of bytes that a stream may read now. Only content is limited.
    fn may_read(&mut self, now: Instant, id: StreamId) -> usize {
        let index = (id.0 & ((1 << INDEX_BITS) - 1)) as usize;
        let Some(stream) = self.slab.get_mut(index).filter(|stream| stream.id == id) else { return 0 };
        if stream.sink.is_none() {
            return usize::MAX;
        }
        if stream.reads_at.is_some_and(|at| now < at) {
            return 0;
        }
        let allowed = Pair(&mut stream.incoming, &mut self.incoming).allowed(now);
        stream.reads_at = allowed.err();
        allowed.unwrap_or(0)
    }

    /// Counts the bytes that a stream moved, and charges them to its rate limits.
    fn count(&mut self, now: Instant, id: StreamId, read: usize, written: usize) {
        self.moved += (read + written) as u64;
        let index = (id.0 & ((1 << INDEX_BITS) - 1)) as usize;
        let Some(stream) = self.slab.get_mut(index).filter(|stream| stream.id == id) else { return };
        stream.moved_at = now;
        Pair(&mut stream.incoming, &mut self.incoming).take(now, read);
        Pair(&mut stream.outgoing, &mut self.outgoing).take(now, written);
    }

    /// Notes that a socket became ready. `token` is the stream's number, truncated to the width of mio's tokens.
    pub(super) fn note(&mut self, token: usize, readable: bool, writable: bool) {
        let Some(stream) = self.slab.get_mut(token & ((1 << INDEX_BITS) - 1)) else { return };
        if stream_token(stream.id.0).0 >> 2 != token {
            return;
        }
        stream.readable |= readable;
        stream.writable |= writable;
        let id = stream.id;
        self.enqueue(id);
    }

    fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        let index = (id.0 & ((1 << INDEX_BITS) - 1)) as usize;
        self.slab.get_mut(index).filter(|stream| stream.id == id)
    }

    fn enqueue(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id).filter(|stream| !stream.queued) {
            stream.queued = true;
            self.ready.push_back(id);
        }
    }

    fn insert(
        &mut self,
        now: Instant,
        socket: TcpStream,
        state: State,
        registry: &Registry,
    ) -> io::Result<StreamId> {
        if self.slab.len() >= 1 << INDEX_BITS {
            return Err(io::Error::other("too many streams"));
        }
        self.counter += 1;
        let entry = self.slab.vacant_entry();
        let id = StreamId(self.counter << INDEX_BITS | entry.key() as u64);
        let mut stream = Stream::new(now, id, socket, state, self.rates);
        registry.register(&mut stream.socket, stream_token(id.0), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(stream);
        Ok(id)
    }

    fn remove(&mut self, id: StreamId, registry: &Registry) -> Option<Stream> {
        self.get(id)?;
        let mut stream = self.slab.remove((id.0 & ((1 << INDEX_BITS) - 1)) as usize);
        let _ = registry.deregister(&mut stream.socket);
        Some(stream)
    }

    fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = match (self.local, to) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => to,
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if !self.local.ip().is_unspecified() {
            socket.bind(&SocketAddr::new(self.local.ip(), 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}

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

    pub(super) fn connect(&mut self, now: Instant, dial: DialId, to: SocketAddr, until: Instant) {
        self.dial(now, Waiting { dial, to, until, retry_at: now });
    }

    fn dial(&mut self, now: Instant, waiting: Waiting) {
        let Waiting { dial, to, until, .. } = waiting;
        let dialled = self.streams.dial(to);
        let state = State::Connecting { dial, until };
        let inserted =
            dialled.and_then(|socket| self.streams.insert(now, socket, state, self.poll.registry()));
        match inserted {
            Ok(_) => {}
            // The shortage is local: the peer must not count as unreachable.
            Err(error) if is_shortage(&error) && now < until => {
                let retry_at = now + SHORTAGE_PAUSE;
                self.streams.waiting.push_back(Waiting { retry_at, ..waiting });
            }
            Err(error) => {
                log::debug!("connecting to {to}: {error}");
                self.node.handle_dial_failed(now, dial);
            }
        }
    }

    /// Repeats the dials that found no free descriptor.
    fn retry_dials(&mut self, now: Instant) {
        for _ in 0..self.streams.waiting.len() {
            let Some(waiting) = self.streams.waiting.pop_front() else { return };
            if waiting.retry_at <= now {
                self.dial(now, waiting);
                self.carry_out(now);
            } else {
                self.streams.waiting.push_back(waiting);
            }
        }
    }

    pub(super) fn expire_dials(&mut self, now: Instant) {
        self.retry_dials(now);
        while self.streams.next_dial_deadline().is_some_and(|until| until <= now) {
            let late = self.streams.slab.iter().find_map(|(_, stream)| match stream.state {
                State::Connecting { dial, until } if until <= now => Some((stream.id, dial)),
                _ => None,
            });
            let Some((id, dial)) = late else { return };
            self.streams.remove(id, self.poll.registry());
            self.node.handle_dial_failed(now, dial);
            self.carry_out(now);
        }
    }

    pub(super) fn queue_bytes(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.outbox.push_bytes(bytes);
        self.streams.enqueue(id);
    }

    pub(super) fn queue_extent(&mut self, id: StreamId, extent: Extent) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.outbox.push_extent(extent, &self.disk);
        self.streams.enqueue(id);
    }

    pub(super) fn open_sink(&mut self, now: Instant, id: StreamId, sink: &Sink) {
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

    pub(super) fn close(&mut self, id: StreamId) {
        // A last frame, such as a refusal, leaves if the socket takes it now.
        if let Some(stream) = self.streams.get(id) {
            stream.outbox.send_last_frame(&mut stream.socket);
        }
        self.streams.remove(id, self.poll.registry());
    }

    /// Serves each ready stream once.
    pub(super) fn serve_streams(&mut self) {
        let full = self.streams.moved + BYTES_PER_TURN;
        for _ in 0..self.streams.ready.len() {
            if self.streams.moved >= full {
                return;
            }
            let Some(id) = self.streams.ready.pop_front() else { return };
            let Some(stream) = self.streams.get(id) else { continue };
            stream.queued = false;
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

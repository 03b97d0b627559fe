//! The table of TCP connections to peers: which may be ready, and which wait for a rate limit.
//!
//! A stream's number consists of its place in the table and a number that is never used again, so that an event for a stream that
//! is closed does not reach the one that has its place.

use super::stream::{State, Stream};
use super::stream_token;
use super::throttle::{Bucket, Pair};
use crate::disk::{Disk, Intake, Way};
use crate::io::{DialId, Place, StreamId};
use crate::limits::Rates;
use crate::time::Instant;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use slab::Slab;
use std::collections::VecDeque;
use std::io;

/// The low bits of a stream's number that hold its index in the slab.
const INDEX_BITS: u32 = 12;

/// The index in the slab of the stream with this number.
fn index_of(number: u64) -> usize {
    (number & ((1 << INDEX_BITS) - 1)) as usize
}

/// The streams to peers.
pub(super) struct Streams {
    slab: Slab<Stream>,
    counter: u64,
    /// Streams that may be able to read or write.
    ready: VecDeque<StreamId>,
    /// What reads the sockets, for all streams in turn.
    pub(super) intake: Intake,
    /// Bytes moved so far, in both directions.
    pub(super) moved: u64,
    rates: Rates,
    /// The rate limits of all streams together, in and out.
    incoming: Bucket,
    outgoing: Bucket,
}

impl Streams {
    pub(super) fn new(now: Instant, way: Way) -> Self {
        Streams {
            slab: Slab::new(),
            counter: 0,
            ready: VecDeque::new(),
            intake: Intake::new(way),
            moved: 0,
            rates: Rates::default(),
            incoming: Bucket::new(now, 0),
            outgoing: Bucket::new(now, 0),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The stream that was opened last.
    #[cfg(test)]
    pub(super) fn newest(&self) -> StreamId {
        self.slab.iter().map(|(_, stream)| stream.id).max_by_key(|id| id.0).expect("a stream is open")
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

    /// A dial whose deadline has passed.
    pub(super) fn late_dial(&self, now: Instant) -> Option<(StreamId, DialId)> {
        self.slab.iter().find_map(|(_, stream)| match stream.state {
            State::Connecting { dial, until } if until <= now => Some((stream.id, dial)),
            _ => None,
        })
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
    pub(super) fn may_send(&mut self, now: Instant, id: StreamId) -> usize {
        let Some(stream) = self.slab.get_mut(index_of(id.0)).filter(|stream| stream.id == id) else {
            return 0;
        };
        if stream.writes_at.is_some_and(|at| now < at) {
            // A different event has woken the stream. Sending a few bytes at a time would waste system calls.
            return 0;
        }
        let allowed = Pair(&mut stream.outgoing, &mut self.outgoing).allowed(now);
        stream.writes_at = allowed.err();
        allowed.unwrap_or(0)
    }

    /// The number of bytes that a stream may read now. Only content is limited.
    pub(super) fn may_read(&mut self, now: Instant, id: StreamId) -> usize {
        let Some(stream) = self.slab.get_mut(index_of(id.0)).filter(|stream| stream.id == id) else {
            return 0;
        };
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
    pub(super) fn count(&mut self, now: Instant, id: StreamId, read: usize, written: usize) {
        self.moved += (read + written) as u64;
        let Some(stream) = self.slab.get_mut(index_of(id.0)).filter(|stream| stream.id == id) else { return };
        stream.moved_at = now;
        Pair(&mut stream.incoming, &mut self.incoming).take(now, read);
        Pair(&mut stream.outgoing, &mut self.outgoing).take(now, written);
    }

    /// Notes that a socket became ready. `token` is the stream's number, truncated to the width of mio's tokens.
    pub(super) fn note(&mut self, token: usize, readable: bool, writable: bool) {
        let Some(stream) = self.slab.get_mut(index_of(token as u64)) else { return };
        if stream_token(stream.id.0).0 >> 2 != token {
            return;
        }
        stream.readable |= readable;
        stream.writable |= writable;
        let id = stream.id;
        self.enqueue(id);
    }

    /// The number of streams that may be able to read or write.
    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Takes the stream that has been ready longest off the list.
    pub(super) fn take_ready(&mut self) -> Option<StreamId> {
        let id = self.ready.pop_front()?;
        if let Some(stream) = self.get(id) {
            stream.queued = false;
        }
        Some(id)
    }

    pub(super) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slab.get_mut(index_of(id.0)).filter(|stream| stream.id == id)
    }

    /// A disk operation takes the file at this place away: the extents of it that are queued on streams are opened before.
    pub(super) fn open_extents_at(&mut self, place: &Place, disk: &Disk) {
        for (_, stream) in &mut self.slab {
            stream.outbox.open_extents_at(place, disk);
        }
    }

    pub(super) fn enqueue(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id).filter(|stream| !stream.queued) {
            stream.queued = true;
            self.ready.push_back(id);
        }
    }

    pub(super) fn insert(
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

    pub(super) fn remove(&mut self, id: StreamId, registry: &Registry) -> Option<Stream> {
        self.get(id)?;
        let mut stream = self.slab.remove(index_of(id.0));
        let _ = registry.deregister(&mut stream.socket);
        Some(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use mio::Poll;
    use std::net::{TcpListener, TcpStream as StdStream};

    const NOW: Instant = Instant::from_secs(100);

    /// A table with a poll and a listener, so that its streams have sockets.
    struct Bench {
        streams: Streams,
        poll: Poll,
        listener: TcpListener,
        /// The other ends.
        others: Vec<StdStream>,
    }

    impl Bench {
        fn new() -> Bench {
            let streams = Streams::new(NOW, Way::default());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Bench { streams, poll: Poll::new().unwrap(), listener, others: Vec::new() }
        }

        fn open(&mut self, state: State) -> StreamId {
            self.others.push(StdStream::connect(self.listener.local_addr().unwrap()).unwrap());
            let (socket, _) = self.listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            self.streams.insert(NOW, TcpStream::from_std(socket), state, self.poll.registry()).unwrap()
        }

        fn ready(&mut self) -> Vec<StreamId> {
            core::iter::from_fn(|| self.streams.take_ready()).collect()
        }
    }

    /// What the poll reports about a stream.
    fn event_of(id: StreamId) -> usize {
        stream_token(id.0).0 >> 2
    }

    fn rates(peer_upload: u64) -> Rates {
        Rates { peer_upload, ..Rates::default() }
    }

    #[test]
    fn an_event_for_a_closed_stream_does_not_reach_the_one_in_its_place() {
        let mut bench = Bench::new();
        let old = bench.open(State::Open);
        assert!(bench.streams.remove(old, bench.poll.registry()).is_some());
        let new = bench.open(State::Open);
        assert_eq!(index_of(old.0), index_of(new.0), "the place is used again");
        bench.streams.note(event_of(old), true, true);
        assert_eq!(bench.ready(), []);
        assert!(bench.streams.get(old).is_none());
        assert!(bench.streams.remove(old, bench.poll.registry()).is_none());
        bench.streams.note(event_of(new), true, false);
        assert_eq!(bench.ready(), [new]);
    }

    #[test]
    fn an_event_for_a_place_that_was_never_used_is_dropped() {
        let mut bench = Bench::new();
        bench.streams.note(77, true, true);
        assert_eq!(bench.ready(), []);
    }

    #[test]
    fn a_stream_is_listed_once_however_often_it_becomes_ready() {
        let mut bench = Bench::new();
        let (first, second) = (bench.open(State::Open), bench.open(State::Open));
        for id in [first, second, first, first] {
            bench.streams.note(event_of(id), true, false);
        }
        assert_eq!(bench.ready(), [first, second], "the one that was ready first is served first");
        bench.streams.note(event_of(first), false, true);
        assert_eq!(bench.ready(), [first], "it may be listed again after it was served");
    }

    #[test]
    fn the_dial_that_is_late_first_is_the_next_deadline() {
        let mut bench = Bench::new();
        let until = |seconds| NOW + Duration::from_secs(seconds);
        bench.open(State::Open);
        bench.open(State::Connecting { dial: DialId(1), until: until(9) });
        let late = bench.open(State::Connecting { dial: DialId(2), until: until(5) });
        assert_eq!(bench.streams.next_dial_deadline(), Some(until(5)));
        assert_eq!(bench.streams.late_dial(until(4)), None);
        assert_eq!(bench.streams.late_dial(until(5)), Some((late, DialId(2))));
    }

    #[test]
    fn a_stream_over_its_rate_is_woken_when_it_may_go_on() {
        let mut bench = Bench::new();
        let id = bench.open(State::Open);
        bench.streams.set_rates(NOW, rates(10_000));
        let mut sent = 0;
        while let allowed @ 1.. = bench.streams.may_send(NOW, id) {
            bench.streams.count(NOW, id, 0, allowed);
            sent += allowed;
            assert!(sent < 1 << 20, "the limit never applies");
        }
        let due = bench.streams.next_wake().expect("it waits for its rate");
        assert!(due > NOW);
        assert_eq!(bench.streams.may_send(NOW, id), 0, "another event does not help it");
        bench.streams.wake(NOW);
        assert_eq!(bench.ready(), []);
        bench.streams.wake(due);
        assert_eq!(bench.ready(), [id]);
        assert!(bench.streams.may_send(due, id) > 0);
    }

    #[test]
    fn a_stream_that_waits_for_its_rate_goes_on_at_once_when_the_limit_is_lifted() {
        let mut bench = Bench::new();
        let id = bench.open(State::Open);
        bench.streams.set_rates(NOW, rates(10_000));
        bench.streams.count(NOW, id, 0, 1 << 20);
        assert_eq!(bench.streams.may_send(NOW, id), 0);
        bench.streams.set_rates(NOW, rates(0));
        bench.streams.wake(NOW);
        assert_eq!(bench.ready(), [id]);
        assert!(bench.streams.may_send(NOW, id) > 0);
    }

    #[test]
    fn frames_are_read_without_a_limit() {
        let mut bench = Bench::new();
        let id = bench.open(State::Open);
        bench.streams.set_rates(NOW, Rates { peer_download: 1, download: 1, ..Rates::default() });
        bench.streams.count(NOW, id, 1 << 20, 0);
        assert_eq!(bench.streams.may_read(NOW, id), usize::MAX);
    }
}

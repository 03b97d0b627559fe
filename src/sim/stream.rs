//! Simulated TCP: bytes in order, at the speed of the links, stalled by what cuts the network and broken by what lasts.
//!
//! Content moves by reference. A stream is served in segments: the next one leaves when the sender's link is free, so
//! streams of one host share it in turn.

use super::blob::{Slice, joined};
use super::link::PORT;
use super::world::{Event, World};
use crate::io::{DialId, Extent, Sink, StreamId};
use crate::node::{Node, StreamOutput};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use std::collections::{BTreeMap, VecDeque};

/// Bytes that leave at a time.
const SEGMENT: usize = 64 << 10;
/// What packets add to every segment: 40 bytes for 1,448.
const OVERHEAD: f64 = 1.03;
/// How often a stalled end looks whether the way is free again.
const RETRY: Duration = Duration::from_secs(1);
/// How long it does so before the connection counts as broken.
const BROKEN_AFTER: Duration = Duration::from_secs(120);
/// What a lost packet delays a segment by, beyond a round trip.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// A stream waits as long as it takes for its turn at a link.
const PATIENT: Duration = Duration::from_secs(3600);

/// One of the two ends: which stream, and whether it is the end that connected.
pub(super) type EndId = (u32, bool);

#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEvent {
    /// The connection is there, for one end and then the other.
    Opened(u32),
    Connected(u32),
    /// It could not be made.
    Refused(u32),
    /// An end may send its next segment.
    Pump(EndId),
    /// A segment arrives at an end.
    Arrive(EndId),
    /// An end learns that the other is gone.
    Reset(EndId),
}

#[derive(Default)]
pub(super) struct Streams {
    connections: BTreeMap<u32, Connection>,
    next: u32,
}

struct Connection {
    dial: DialId,
    /// The end that was connected to, and the end that connected.
    ends: [End; 2],
}

struct End {
    host: usize,
    run: u32,
    /// The node knows of it and has not closed it.
    open: bool,
    /// The machine that it was on has rebooted or the process is gone: the other end will hear of it when it sends.
    gone: bool,
    outbox: VecDeque<Outgoing>,
    pumping: bool,
    stalled_since: Option<Instant>,
    /// What is on its way to this end.
    arriving: VecDeque<Segment>,
    arrives_last: Instant,
    inbox: Vec<u8>,
    sink: Option<(Sink, u32, Vec<Slice>)>,
}

enum Outgoing {
    Bytes(Vec<u8>),
    Extent(Extent),
    File(VecDeque<Slice>),
}

enum Segment {
    Bytes(Vec<u8>),
    Content(Slice),
    End,
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Bytes(bytes) => bytes.len(),
            Segment::Content(slice) => slice.len(),
            Segment::End => 0,
        }
    }
}

fn name((number, connected): EndId) -> StreamId {
    StreamId(u64::from(number) << 1 | u64::from(connected))
}

fn end_of(stream: StreamId) -> EndId {
    ((stream.0 >> 1) as u32, stream.0 & 1 == 1)
}

impl Streams {
    fn end(&mut self, (number, connected): EndId) -> Option<&mut End> {
        Some(&mut self.connections.get_mut(&number)?.ends[usize::from(connected)])
    }

    /// The end, while the node knows of it.
    fn open(&mut self, end: EndId) -> Option<&mut End> {
        self.end(end).filter(|end| end.open)
    }

    fn tidy(&mut self, number: u32) {
        let over = |end: &End| !end.open;
        if self.connections.get(&number).is_some_and(|connection| connection.ends.iter().all(over)) {
            self.connections.remove(&number);
        }
    }
}

impl World {
    pub(super) fn stream_output(&mut self, host: usize, output: StreamOutput) {
        match output {
            StreamOutput::Connect { dial, contact, until } => self.connect(host, dial, contact, until),
            StreamOutput::Write { stream, mut bytes } => {
                if let Some(conduct) = &mut self.hosts[host].conduct {
                    conduct.said(stream, &mut bytes);
                }
                self.write(stream, Outgoing::Bytes(bytes));
            }
            StreamOutput::SendFile { stream, extent } => self.write(stream, Outgoing::Extent(extent)),
            StreamOutput::Sink { stream, sink } => self.open_sink(host, stream, sink),
            StreamOutput::Close { stream } => self.close(end_of(stream)),
        }
    }

    pub(super) fn stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened(number) => self.opened(number),
            StreamEvent::Connected(number) => self.connected(number),
            StreamEvent::Refused(number) => self.refused(number),
            StreamEvent::Pump(end) => self.pump(end),
            StreamEvent::Arrive(end) => self.arrive(end),
            StreamEvent::Reset(end) => self.reset(end),
        }
    }

    fn later(&mut self, at: Instant, event: StreamEvent) {
        self.queue.push(at, Event::Stream(event));
    }

    // Connecting.

    fn connect(&mut self, host: usize, dial: DialId, contact: Contact, until: Instant) {
        let target = self.links.host_of(contact.addr).filter(|_| contact.addr.port() == PORT);
        let number = self.streams.next;
        self.streams.next += 1;
        let other = target.unwrap_or(host);
        let end = |host: usize, run: u32| End {
            host,
            run,
            open: false,
            gone: false,
            outbox: VecDeque::new(),
            pumping: false,
            stalled_since: None,
            arriving: VecDeque::new(),
            arrives_last: Instant::ZERO,
            inbox: Vec::new(),
            sink: None,
        };
        let ends = [end(other, self.hosts[other].run), end(host, self.hosts[host].run)];
        self.streams.connections.insert(number, Connection { dial, ends });
        let way = match target {
            Some(target) if target != host => {
                self.links.is_public(target) && self.is_way_open(host, target) && self.hosts[target].is_up()
            }
            _ => false,
        };
        let lost =
            if self.chance.happens(self.links.plan.loss) { Duration::from_secs(1) } else { Duration::ZERO };
        let (at, event) = match way {
            true => (self.now + lost + self.links.delay(host, other), StreamEvent::Opened(number)),
            false => (until, StreamEvent::Refused(number)),
        };
        self.later(at, event);
    }

    fn is_way_open(&self, a: usize, b: usize) -> bool {
        self.links.is_open(a, b) && self.links.is_open(b, a)
    }

    fn is_same_run(&self, end: EndId) -> bool {
        let Some(connection) = self.streams.connections.get(&end.0) else { return false };
        let end = &connection.ends[usize::from(end.1)];
        let host = &self.hosts[end.host];
        host.run == end.run && host.node.is_some()
    }

    fn opened(&mut self, number: u32) {
        let Some(connection) = self.streams.connections.get(&number) else { return };
        let (host, other) = (connection.ends[0].host, connection.ends[1].host);
        let back = self.now + self.links.delay(host, other);
        if !self.is_same_run((number, false)) {
            return self.later(back, StreamEvent::Refused(number));
        }
        self.later(back, StreamEvent::Connected(number));
        if let Some(end) = self.streams.end((number, false)) {
            end.open = true;
        }
        let remote = core::net::SocketAddr::new(self.links.port(other).addr.ip(), 50_000);
        self.with_node(host, |node, now| node.handle_accepted(now, name((number, false)), remote));
    }

    fn connected(&mut self, number: u32) {
        let Some(connection) = self.streams.connections.get(&number) else { return };
        let (host, dial) = (connection.ends[1].host, connection.dial);
        if !self.is_same_run((number, true)) {
            return self.abandon((number, true), true);
        }
        if let Some(end) = self.streams.end((number, true)) {
            end.open = true;
        }
        // The one that was connected to may have closed already; then this end hears of it by a reset.
        self.with_node(host, |node, now| node.handle_connected(now, dial, name((number, true))));
    }

    fn refused(&mut self, number: u32) {
        let same = self.is_same_run((number, true));
        let Some(connection) = self.streams.connections.remove(&number) else { return };
        let host = connection.ends[1].host;
        if same {
            self.with_node(host, |node, now| node.handle_dial_failed(now, connection.dial));
        }
    }

    // Sending.

    fn write(&mut self, stream: StreamId, outgoing: Outgoing) {
        let id = end_of(stream);
        let now = self.now;
        let Some(end) = self.streams.open(id) else { return };
        match (end.outbox.back_mut(), outgoing) {
            (Some(Outgoing::Bytes(last)), Outgoing::Bytes(more)) => last.extend_from_slice(&more),
            (_, outgoing) => end.outbox.push_back(outgoing),
        }
        if !core::mem::replace(&mut end.pumping, true) {
            self.later(now, StreamEvent::Pump(id));
        }
    }

    /// Sends one segment, and comes back when the link is free for the next.
    fn pump(&mut self, id: EndId) {
        let Some(end) = self.streams.open(id) else { return };
        let host = end.host;
        end.pumping = false;
        if end.outbox.is_empty() {
            return;
        }
        if self.hosts[host].is_up() && !self.is_ready(id) {
            return;
        }
        if !self.hosts[host].is_up() {
            return self.pump_again(id, RETRY);
        }
        let segment = match self.next_segment(id) {
            Some(segment) => segment,
            None => return,
        };
        let length = segment.len();
        let content = matches!(segment, Segment::Content(_));
        self.send_segment(id, segment);
        let free = self.links.free_at(host).max(self.now);
        if let Some(end) = self.streams.open(id) {
            let more = !end.outbox.is_empty();
            end.pumping = more;
            if more {
                self.later(free, StreamEvent::Pump(id));
            }
            self.with_node(host, |node, now| {
                if content {
                    node.handle_stream_sent(now, name(id), length as u64);
                }
                if !more {
                    node.handle_drained(now, name(id));
                }
            });
        }
    }

    /// Whether what this end sends gets through. When it does not, the end tries again, and after a while gives up.
    fn is_ready(&mut self, id: EndId) -> bool {
        let other_id = (id.0, !id.1);
        let Some(other) = self.streams.end(other_id) else { return false };
        let (other_host, gone) = (other.host, other.gone);
        let Some(host) = self.streams.open(id).map(|end| end.host) else { return false };
        let alive = self.hosts[other_host].life != super::host::Life::Suspended;
        if gone && self.hosts[other_host].is_up() && self.is_way_open(host, other_host) {
            // Another run answers what it knows nothing of.
            let at = self.now + self.links.delay(host, other_host) * 2;
            self.later(at, StreamEvent::Reset(id));
            return false;
        }
        let now = self.now;
        let clear = !gone && alive && self.is_way_open(host, other_host);
        let Some(end) = self.streams.open(id) else { return false };
        if clear {
            end.stalled_since = None;
            return true;
        }
        let since = *end.stalled_since.get_or_insert(now);
        if now.since(since) >= BROKEN_AFTER {
            self.reset(id);
        } else {
            self.pump_again(id, RETRY);
        }
        false
    }

    fn pump_again(&mut self, id: EndId, after: Duration) {
        let at = self.now + after;
        if let Some(end) = self.streams.open(id) {
            end.pumping = true;
            self.later(at, StreamEvent::Pump(id));
        }
    }

    /// The next bytes of an end. A file that cannot be read is told to the node, and nothing is sent.
    fn next_segment(&mut self, id: EndId) -> Option<Segment> {
        let end = self.streams.open(id)?;
        let host = end.host;
        if let Some(Outgoing::Extent(extent)) = end.outbox.front() {
            match self.hosts[host].disk.read(extent) {
                Ok(slices) => {
                    let mut slices: VecDeque<Slice> = slices.into();
                    if let Some(conduct) = &mut self.hosts[host].conduct {
                        slices = slices.into_iter().map(|slice| conduct.content(slice)).collect();
                    }
                    self.streams.open(id)?.outbox[0] = Outgoing::File(slices);
                }
                Err(error) => {
                    self.with_node(host, |node, now| node.handle_send_failed(now, name(id), &error));
                    return None;
                }
            }
        }
        let end = self.streams.open(id)?;
        match end.outbox.front_mut()? {
            Outgoing::Bytes(bytes) => {
                let rest = bytes.split_off(bytes.len().min(SEGMENT));
                let bytes = core::mem::replace(bytes, rest);
                if matches!(end.outbox.front(), Some(Outgoing::Bytes(rest)) if rest.is_empty()) {
                    end.outbox.pop_front();
                }
                Some(Segment::Bytes(bytes))
            }
            Outgoing::File(slices) => {
                let taken = slices.front_mut().map(|slice| slice.take(slice.len().min(SEGMENT)));
                if slices.front().is_some_and(Slice::is_empty) {
                    slices.pop_front();
                }
                if slices.is_empty() {
                    end.outbox.pop_front();
                }
                taken.map(Segment::Content).or(Some(Segment::Bytes(Vec::new())))
            }
            Outgoing::Extent(_) => None,
        }
    }

    fn send_segment(&mut self, id: EndId, segment: Segment) {
        let other_id = (id.0, !id.1);
        let (Some(host), Some(other)) =
            (self.streams.end(id).map(|end| end.host), self.streams.end(other_id).map(|end| end.host))
        else {
            return;
        };
        let bytes = (segment.len() as f64 * OVERHEAD) as usize + 40;
        let carried = self.links.carry(self.now, host, other, bytes, PATIENT, &mut self.chance);
        let loss = 1.0 - (1.0 - self.links.plan.loss).powi(1 + segment.len() as i32 / 1448);
        let mut at = carried.unwrap_or(self.now + PATIENT);
        if self.chance.happens(loss) {
            at = at + RETRANSMIT + self.links.delay(host, other) * 2;
        }
        self.hosts[host].traffic.stream_bytes_out += bytes as u64;
        let Some(end) = self.streams.end(other_id) else { return };
        end.arriving.push_back(segment);
        end.arrives_last = end.arrives_last.max(at);
        let at = end.arrives_last;
        self.later(at, StreamEvent::Arrive(other_id));
    }

    // Receiving.

    fn arrive(&mut self, id: EndId) {
        let Some(end) = self.streams.end(id) else { return };
        let host = end.host;
        if !self.hosts[host].is_up() && self.is_same_run(id) {
            // The process stands still: what came waits for it.
            let at = self.now + RETRY;
            return self.later(at, StreamEvent::Arrive(id));
        }
        let Some(segment) = self.streams.end(id).and_then(|end| end.arriving.pop_front()) else { return };
        if self.streams.open(id).is_none_or(|end| end.gone) || !self.is_same_run(id) {
            return;
        }
        self.note(host, b's', segment.len(), u64::from(id.0));
        self.hosts[host].traffic.stream_bytes_in += segment.len() as u64;
        match segment {
            Segment::Bytes(bytes) => self.feed(host, id, bytes),
            Segment::Content(slice) => self.feed_content(host, id, slice),
            Segment::End => self.reset(id),
        }
    }

    /// Gives bytes to where they belong: raw bytes to the stream's sink, frames to the node.
    fn feed(&mut self, host: usize, id: EndId, bytes: Vec<u8>) {
        let Some(end) = self.streams.open(id) else { return };
        let mut inbox = core::mem::take(&mut end.inbox);
        inbox.extend_from_slice(&bytes);
        let mut at = 0;
        while at < inbox.len() {
            let Some(end) = self.streams.open(id) else { return };
            if let Some((_, left, _)) = &end.sink {
                let taken = (*left as usize).min(inbox.len() - at);
                let content = Slice::whole(super::blob::Blob::new(inbox[at..at + taken].to_vec()));
                at += taken;
                self.sink(host, id, content);
                continue;
            }
            let mut taken = 0;
            self.with_node(host, |node, now| taken = node.handle_stream_bytes(now, name(id), &inbox[at..]));
            if taken == 0 {
                break;
            }
            at += taken;
        }
        inbox.drain(..at);
        if let Some(end) = self.streams.open(id) {
            end.inbox = inbox;
        }
    }

    fn feed_content(&mut self, host: usize, id: EndId, mut content: Slice) {
        let Some(end) = self.streams.open(id) else { return };
        match &end.sink {
            Some((_, left, _)) if end.inbox.is_empty() => {
                let fits = content.take(content.len().min(*left as usize));
                self.sink(host, id, fits);
                if !content.is_empty() {
                    self.feed(host, id, content.bytes().to_vec());
                }
            }
            _ => self.feed(host, id, content.bytes().to_vec()),
        }
    }

    fn sink(&mut self, host: usize, id: EndId, content: Slice) {
        let Some((_, left, slices)) = self.streams.open(id).and_then(|end| end.sink.as_mut()) else { return };
        let length = content.len();
        *left -= length as u32;
        slices.push(content);
        let full = *left == 0;
        self.with_node(host, |node, now| node.handle_stream_progress(now, name(id), length as u64));
        if full {
            self.finish_sink(host, id);
        }
    }

    fn open_sink(&mut self, host: usize, stream: StreamId, sink: Sink) {
        let id = end_of(stream);
        if self.streams.open(id).is_none() {
            return;
        }
        if let Err(error) = self.hosts[host].disk.open_sink(&sink) {
            return self.with_node(host, |node, now| node.handle_sunk(now, stream, Err(error)));
        }
        let length = sink.length;
        if let Some(end) = self.streams.open(id) {
            end.sink = Some((sink, length, Vec::new()));
        }
        if length == 0 {
            self.finish_sink(host, id);
        }
    }

    fn finish_sink(&mut self, host: usize, id: EndId) {
        let Some((sink, _, slices)) = self.streams.open(id).and_then(|end| end.sink.take()) else { return };
        let content = joined(slices);
        let key = content.key(sink.hash_as);
        let written = self.hosts[host].disk.write(&sink.place, sink.offset, content);
        let result = written.map(|()| key);
        self.with_node(host, |node, now| node.handle_sunk(now, name(id), result));
    }

    // Ending.

    /// The node closes its end. What it had sent before still arrives.
    fn close(&mut self, id: EndId) {
        let Some(end) = self.streams.open(id) else { return };
        // A last word, such as a refusal, leaves if the link takes it now.
        let last = match end.outbox.pop_front() {
            Some(Outgoing::Bytes(bytes)) => Some(Segment::Bytes(bytes)),
            _ => None,
        };
        if let Some(last) = last {
            self.send_segment(id, last);
        }
        self.abandon(id, true);
    }

    /// An end is no more. The other hears of it, unless nobody is there to say so.
    fn abandon(&mut self, id: EndId, told: bool) {
        let Some(end) = self.streams.end(id) else { return };
        (end.open, end.gone) = (false, true);
        end.outbox.clear();
        end.sink = None;
        let host = end.host;
        let other = (id.0, !id.1);
        let open = self.streams.end(other).map(|end| (end.host, end.open));
        if let Some((other_host, _)) = open.filter(|_| told) {
            if self.is_way_open(host, other_host) {
                self.send_segment(id, Segment::End);
            }
        }
        if !matches!(open, Some((_, true))) && !self.is_opening(id.0) {
            self.streams.tidy(id.0);
        }
    }

    /// Whether the end that connected has yet to hear that the connection is there.
    fn is_opening(&self, number: u32) -> bool {
        let Some(connection) = self.streams.connections.get(&number) else { return false };
        let dialler = &connection.ends[1];
        !dialler.open && !dialler.gone
    }

    /// An end learns that the connection is broken.
    fn reset(&mut self, id: EndId) {
        let same = self.is_same_run(id);
        let Some(end) = self.streams.open(id) else {
            // It may be told before it has heard that the connection is there.
            if same && self.is_opening(id.0) && id.1 {
                let at = self.now + Duration::from_millis(1);
                self.later(at, StreamEvent::Reset(id));
            }
            return;
        };
        let host = end.host;
        if !self.hosts[host].is_up() && same {
            let at = self.now + RETRY;
            return self.later(at, StreamEvent::Reset(id));
        }
        self.abandon(id, false);
        if same {
            self.with_node(host, |node, now| node.handle_closed(now, name(id)));
        }
    }

    /// A host's node is gone: its ends are nobody's. When its machine goes on it says so to the others at once.
    pub(super) fn abandon_streams(&mut self, host: usize, told: bool) {
        let ends: Vec<EndId> = self
            .streams
            .connections
            .iter()
            .flat_map(|(number, connection)| {
                let mine = |connected: &bool| connection.ends[usize::from(*connected)].host == host;
                [false, true]
                    .into_iter()
                    .filter(mine)
                    .map(|connected| (*number, connected))
                    .collect::<Vec<_>>()
            })
            .collect();
        for end in ends {
            self.abandon(end, told);
        }
    }

    /// A host goes on: what waited for it goes on.
    pub(super) fn resume_streams(&mut self, host: usize) {
        let mine = |end: &End| end.host == host && end.open && !end.outbox.is_empty() && !end.pumping;
        let ends: Vec<EndId> = self
            .streams
            .connections
            .iter()
            .flat_map(|(number, c)| {
                [(*number, false), (*number, true)].map(|id| (id, mine(&c.ends[usize::from(id.1)])))
            })
            .filter(|(_, waits)| *waits)
            .map(|(id, _)| id)
            .collect();
        for end in ends {
            self.pump_again(end, Duration::ZERO);
        }
    }

    /// Tells a node something, then does what it wants.
    fn with_node(&mut self, host: usize, tell: impl FnOnce(&mut Node, Instant)) {
        let it = &mut self.hosts[host];
        let now = it.clock(self.now);
        if let Some(node) = &mut it.node {
            tell(node, now);
            self.settle(host);
        }
    }

    /// Connections that exist, made or being made.
    pub fn connections(&self) -> usize {
        self.streams.connections.len()
    }
}

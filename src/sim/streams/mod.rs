//! Simulated TCP: bytes in order, at the speed of the links. A short partition stalls a connection, a long one breaks it.
//!
//! Content moves by reference. An end sends segments. The next one leaves when the sender's link is free, so the streams of
//! one host take turns.

mod end;

use super::blob::{Blob, Slice};
use super::event::{EndId, Event, StreamEvent};
use super::fabric::Fabric;
use super::host::Life;
use super::link::PORT;
use crate::io::{DialId, Sink, StreamId};
use crate::node::{Node, StreamOutput};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use core::net::SocketAddr;
use end::{End, Outgoing, Segment, Sinking};
use std::collections::{BTreeMap, VecDeque};

/// The factor by which packet headers lengthen a segment: 40 bytes for every 1,448.
const OVERHEAD: f64 = 1.03;
/// The time after which a stalled end tries again.
const RETRY: Duration = Duration::from_secs(1);
/// The time after which a stalled connection is broken.
const BROKEN_AFTER: Duration = Duration::from_secs(120);
/// The delay of a segment that lost a packet, added to a round trip.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The longest time that a segment waits for a link.
const PATIENT: Duration = Duration::from_secs(3600);

/// Every connection between hosts.
#[derive(Default)]
pub(super) struct Streams {
    connections: BTreeMap<u32, Connection>,
    next: u32,
}

struct Connection {
    dial: DialId,
    /// The end that accepted, and the end that connected.
    ends: [End; 2],
}

fn name((number, connected): EndId) -> StreamId {
    StreamId(u64::from(number) << 1 | u64::from(connected))
}

/// Whether this end of a stream is the one that connected.
pub(super) fn is_dialled(stream: StreamId) -> bool {
    end_of(stream).1
}

fn end_of(stream: StreamId) -> EndId {
    ((stream.0 >> 1) as u32, stream.0 & 1 == 1)
}

fn later(at: Instant, event: StreamEvent, fabric: &mut Fabric<'_>) {
    fabric.queue.push(at, Event::Stream(event));
}

impl Streams {
    /// Handles an event of a connection.
    pub(super) fn handle(&mut self, event: StreamEvent, fabric: &mut Fabric<'_>) {
        match event {
            StreamEvent::Opened(number) => self.opened(number, fabric),
            StreamEvent::Connected(number) => self.connected(number, fabric),
            StreamEvent::Refused(number) => self.refused(number, fabric),
            StreamEvent::Pump(end) => self.pump(end, fabric),
            StreamEvent::Arrive(end) => self.arrive(end, fabric),
            StreamEvent::Reset(end) => self.reset(end, fabric),
        }
    }

    /// Carries out the stream outputs of a host's node until there are none left.
    pub(super) fn settle(&mut self, host: usize, fabric: &mut Fabric<'_>) {
        while let Some(output) = fabric.poll(host) {
            self.carry_out(host, output, fabric);
        }
    }

    fn carry_out(&mut self, host: usize, output: StreamOutput, fabric: &mut Fabric<'_>) {
        match output {
            StreamOutput::Connect { dial, contact, until } => {
                self.connect(host, dial, contact, until, fabric)
            }
            StreamOutput::Write { stream, mut bytes } => {
                if let Some(adversary) = &mut fabric.hosts[host].adversary {
                    adversary.said(stream, &mut bytes);
                    if bytes.is_empty() {
                        return;
                    }
                }
                self.write(end_of(stream), Outgoing::Bytes(bytes), fabric);
            }
            StreamOutput::SendFile { stream, extent } => {
                self.write(end_of(stream), Outgoing::Extent(extent), fabric)
            }
            StreamOutput::Sink { stream, sink } => self.open_sink(host, end_of(stream), sink, fabric),
            StreamOutput::Close { stream } => self.close(end_of(stream), fabric),
        }
    }

    /// Gives a node an input, then carries out its outputs.
    fn with_node(&mut self, host: usize, fabric: &mut Fabric<'_>, tell: impl FnOnce(&mut Node, Instant)) {
        let it = &mut fabric.hosts[host];
        let now = it.clock(fabric.now);
        if let Some(node) = &mut it.node {
            tell(node, now);
            self.settle(host, fabric);
        }
    }

    /// A host's node is gone, and with it its ends. `told`: the machine still runs, and tells the other ends at once.
    pub(super) fn abandon_host(&mut self, host: usize, told: bool, fabric: &mut Fabric<'_>) {
        for end in self.ends_where(|end| end.host == host) {
            self.abandon(end, told, fabric);
        }
    }

    /// A suspended host resumes. Its ends send again.
    pub(super) fn resume_host(&mut self, host: usize, fabric: &mut Fabric<'_>) {
        for end in self.ends_where(|end| end.host == host && end.open && end.has_more() && !end.pumping) {
            self.pump_again(end, Duration::ZERO, fabric);
        }
    }

    fn ends_where(&self, is: impl Fn(&End) -> bool) -> Vec<EndId> {
        let ids = self.connections.keys().flat_map(|number| [(*number, false), (*number, true)]);
        ids.filter(|(number, connected)| is(&self.connections[number].ends[usize::from(*connected)]))
            .collect()
    }

    fn end(&mut self, (number, connected): EndId) -> Option<&mut End> {
        Some(&mut self.connections.get_mut(&number)?.ends[usize::from(connected)])
    }

    /// The end, if it is open.
    fn open(&mut self, end: EndId) -> Option<&mut End> {
        self.end(end).filter(|end| end.open)
    }

    fn is_same_run(&self, end: EndId, fabric: &Fabric<'_>) -> bool {
        let Some(connection) = self.connections.get(&end.0) else { return false };
        let end = &connection.ends[usize::from(end.1)];
        let host = &fabric.hosts[end.host];
        host.run == end.run && host.node.is_some()
    }

    // Connecting.

    fn connect(
        &mut self,
        host: usize,
        dial: DialId,
        contact: Contact,
        until: Instant,
        fabric: &mut Fabric<'_>,
    ) {
        let is_there = |target: &usize| {
            let port = contact.addr.port();
            port == PORT || fabric.links.port(*target).addr.port() == port
        };
        let target = fabric.links.host_of(contact.addr).filter(is_there);
        let number = self.next;
        self.next += 1;
        let other = target.unwrap_or(host);
        let ends = [other, host].map(|host| End::new(host, fabric.hosts[host].run));
        self.connections.insert(number, Connection { dial, ends });
        let way = target.is_some_and(|target| {
            target != host
                && fabric.links.is_public(target)
                && fabric.is_way_open(host, target)
                && fabric.hosts[target].is_up()
                && fabric.hosts[host].adversary.as_ref().is_none_or(|adversary| adversary.dials())
        });
        let lost = match fabric.chance.happens(fabric.links.plan.loss) {
            true => Duration::from_secs(1),
            false => Duration::ZERO,
        };
        let (at, event) = match way {
            true => (fabric.now + lost + fabric.links.delay(host, other), StreamEvent::Opened(number)),
            false => (until, StreamEvent::Refused(number)),
        };
        later(at, event, fabric);
    }

    fn opened(&mut self, number: u32, fabric: &mut Fabric<'_>) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (host, other) = (connection.ends[0].host, connection.ends[1].host);
        let back = fabric.now + fabric.links.delay(host, other);
        if !self.is_same_run((number, false), fabric) {
            return later(back, StreamEvent::Refused(number), fabric);
        }
        later(back, StreamEvent::Connected(number), fabric);
        if let Some(end) = self.end((number, false)) {
            end.open = true;
        }
        let remote = SocketAddr::new(fabric.links.port(other).addr.ip(), 50_000);
        self.with_node(host, fabric, |node, now| node.handle_accepted(now, name((number, false)), remote));
    }

    fn connected(&mut self, number: u32, fabric: &mut Fabric<'_>) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (host, dial) = (connection.ends[1].host, connection.dial);
        if !self.is_same_run((number, true), fabric) {
            return self.abandon((number, true), true, fabric);
        }
        if let Some(end) = self.end((number, true)) {
            end.open = true;
        }
        // The end that accepted may have closed already. A reset then tells this end.
        self.with_node(host, fabric, |node, now| node.handle_connected(now, dial, name((number, true))));
    }

    fn refused(&mut self, number: u32, fabric: &mut Fabric<'_>) {
        let same = self.is_same_run((number, true), fabric);
        let Some(connection) = self.connections.remove(&number) else { return };
        let host = connection.ends[1].host;
        if same {
            self.with_node(host, fabric, |node, now| node.handle_dial_failed(now, connection.dial));
        }
    }

    // Sending.

    fn write(&mut self, id: EndId, outgoing: Outgoing, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        end.push(outgoing);
        if !core::mem::replace(&mut end.pumping, true) {
            later(fabric.now, StreamEvent::Pump(id), fabric);
        }
    }

    /// Sends one segment, and queues the next for when the link is free.
    fn pump(&mut self, id: EndId, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        let host = end.host;
        end.pumping = false;
        if !end.has_more() {
            return;
        }
        if !fabric.hosts[host].is_up() {
            return self.pump_again(id, RETRY, fabric);
        }
        if !self.is_ready(id, fabric) || !self.read_file(id, fabric) {
            return;
        }
        let Some(segment) = self.open(id).and_then(End::next_segment) else { return };
        let length = segment.len();
        let content = matches!(segment, Segment::Content(_));
        self.send(id, segment, fabric);
        let free = fabric.links.free_at(host).max(fabric.now);
        let Some(end) = self.open(id) else { return };
        let more = end.has_more();
        end.pumping = more;
        if more {
            later(free, StreamEvent::Pump(id), fabric);
        }
        self.with_node(host, fabric, |node, now| {
            if content {
                node.handle_stream_sent(now, name(id), length as u64);
            }
            if !more {
                node.handle_drained(now, name(id));
            }
        });
    }

    /// Whether this end can send now. If it cannot, it tries again later, and after [`BROKEN_AFTER`] the connection is reset.
    fn is_ready(&mut self, id: EndId, fabric: &mut Fabric<'_>) -> bool {
        let Some(other) = self.end((id.0, !id.1)) else { return false };
        let (other_host, gone) = (other.host, other.gone);
        let Some(host) = self.open(id).map(|end| end.host) else { return false };
        let way = fabric.is_way_open(host, other_host);
        if gone && fabric.hosts[other_host].is_up() && way {
            // The other host runs, but does not know the connection. It answers with a reset.
            let at = fabric.now + fabric.links.delay(host, other_host) * 2;
            later(at, StreamEvent::Reset(id), fabric);
            return false;
        }
        let clear = !gone && fabric.hosts[other_host].life != Life::Suspended && way;
        let Some(end) = self.open(id) else { return false };
        if clear {
            end.is_clear();
            return true;
        }
        if end.stall(fabric.now) >= BROKEN_AFTER {
            self.reset(id, fabric);
        } else {
            self.pump_again(id, RETRY, fabric);
        }
        false
    }

    fn pump_again(&mut self, id: EndId, after: Duration, fabric: &mut Fabric<'_>) {
        if let Some(end) = self.open(id) {
            end.pumping = true;
            later(fabric.now + after, StreamEvent::Pump(id), fabric);
        }
    }

    /// Reads the file that is to be sent next, if any. False when reading fails; the node is told.
    fn read_file(&mut self, id: EndId, fabric: &mut Fabric<'_>) -> bool {
        let Some(end) = self.open(id) else { return false };
        let host = end.host;
        let Some(extent) = end.unread() else { return true };
        match fabric.hosts[host].disk.read(extent) {
            Ok(slices) => {
                let mut slices = VecDeque::from(slices);
                if let Some(adversary) = &mut fabric.hosts[host].adversary {
                    slices = slices.into_iter().map(|slice| adversary.content(slice)).collect();
                }
                end.was_read(slices);
                true
            }
            Err(error) => {
                self.with_node(host, fabric, |node, now| node.handle_send_failed(now, name(id), &error));
                false
            }
        }
    }

    fn send(&mut self, id: EndId, segment: Segment, fabric: &mut Fabric<'_>) {
        let other_id = (id.0, !id.1);
        let (Some(host), Some(other)) =
            (self.end(id).map(|end| end.host), self.end(other_id).map(|end| end.host))
        else {
            return;
        };
        let bytes = (segment.len() as f64 * OVERHEAD) as usize + 40;
        let carried = fabric.links.carry(fabric.now, host, other, bytes, PATIENT, fabric.chance);
        let loss = 1.0 - (1.0 - fabric.links.plan.loss).powi(1 + segment.len() as i32 / 1448);
        let mut at = carried.unwrap_or(fabric.now + PATIENT);
        if fabric.chance.happens(loss) {
            at = at + RETRANSMIT + fabric.links.delay(host, other) * 2;
        }
        fabric.hosts[host].traffic.stream_bytes_out += bytes as u64;
        let Some(end) = self.end(other_id) else { return };
        let at = end.expect(segment, at);
        later(at, StreamEvent::Arrive(other_id), fabric);
    }

    // Receiving.

    fn arrive(&mut self, id: EndId, fabric: &mut Fabric<'_>) {
        let same = self.is_same_run(id, fabric);
        let Some(end) = self.end(id) else { return };
        let host = end.host;
        if !fabric.hosts[host].is_up() && same {
            // The process is suspended. The segment waits for it.
            let at = fabric.now + RETRY;
            return later(at, StreamEvent::Arrive(id), fabric);
        }
        let Some(segment) = end.arrived() else { return };
        if !end.open || end.gone || !same {
            return;
        }
        fabric.note(host, b's', segment.len(), u64::from(id.0));
        fabric.hosts[host].traffic.stream_bytes_in += segment.len() as u64;
        match segment {
            Segment::Bytes(mut bytes) => {
                let mut back = Vec::new();
                if let Some(adversary) = &mut fabric.hosts[host].adversary {
                    adversary.heard(name(id), &mut bytes, &mut back);
                }
                if !back.is_empty() {
                    self.write(id, Outgoing::Bytes(back), fabric);
                }
                self.feed(host, id, bytes, fabric);
            }
            Segment::Content(slice) => self.feed_content(host, id, slice, fabric),
            Segment::End => self.reset(id, fabric),
        }
    }

    /// Passes bytes to the stream's sink while there is one, and otherwise to the node as frames.
    fn feed(&mut self, host: usize, id: EndId, bytes: Vec<u8>, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        let mut inbox = core::mem::take(&mut end.inbox);
        inbox.extend_from_slice(&bytes);
        let mut at = 0;
        while at < inbox.len() {
            let Some(end) = self.open(id) else { return };
            if let Some(sinking) = &end.sinking {
                let taken = sinking.left().min(inbox.len() - at);
                let content = Slice::whole(Blob::new(inbox[at..at + taken].to_vec()));
                at += taken;
                self.sink(host, id, content, fabric);
                continue;
            }
            let mut taken = 0;
            self.with_node(host, fabric, |node, now| {
                taken = node.handle_stream_bytes(now, name(id), &inbox[at..]);
            });
            if taken == 0 {
                break;
            }
            at += taken;
        }
        inbox.drain(..at);
        if let Some(end) = self.open(id) {
            end.inbox = inbox;
        }
    }

    fn feed_content(&mut self, host: usize, id: EndId, mut content: Slice, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        match &end.sinking {
            Some(sinking) if end.inbox.is_empty() => {
                let fits = content.take(content.len().min(sinking.left()));
                self.sink(host, id, fits, fabric);
                if !content.is_empty() {
                    self.feed(host, id, content.bytes().to_vec(), fabric);
                }
            }
            _ => self.feed(host, id, content.bytes().to_vec(), fabric),
        }
    }

    fn sink(&mut self, host: usize, id: EndId, content: Slice, fabric: &mut Fabric<'_>) {
        let Some(sinking) = self.open(id).and_then(|end| end.sinking.as_mut()) else { return };
        let length = content.len() as u64;
        sinking.take(content);
        let full = sinking.left() == 0;
        self.with_node(host, fabric, |node, now| node.handle_stream_progress(now, name(id), length));
        if full {
            self.finish_sink(host, id, fabric);
        }
    }

    fn open_sink(&mut self, host: usize, id: EndId, sink: Sink, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        if let Err(error) = fabric.hosts[host].disk.open_sink(&sink) {
            return self.with_node(host, fabric, |node, now| node.handle_sunk(now, name(id), Err(error)));
        }
        let empty = sink.length == 0;
        end.sinking = Some(Sinking::new(sink));
        if empty {
            self.finish_sink(host, id, fabric);
        }
    }

    fn finish_sink(&mut self, host: usize, id: EndId, fabric: &mut Fabric<'_>) {
        let Some(sinking) = self.open(id).and_then(|end| end.sinking.take()) else { return };
        let (sink, content) = sinking.finish();
        let key = content.key(sink.hash_as);
        let written = fabric.hosts[host].disk.write(&sink.place, sink.offset, content);
        let result = written.map(|()| key);
        self.with_node(host, fabric, |node, now| node.handle_sunk(now, name(id), result));
    }

    // Ending.

    /// The node closes its end. What it sent before still arrives, and the bytes at the head of its queue are still sent.
    fn close(&mut self, id: EndId, fabric: &mut Fabric<'_>) {
        let Some(end) = self.open(id) else { return };
        if let Some(last) = end.last_word() {
            self.send(id, last, fabric);
        }
        self.abandon(id, true, fabric);
    }

    /// Gives up an end. `told`: the other end is told.
    fn abandon(&mut self, id: EndId, told: bool, fabric: &mut Fabric<'_>) {
        let Some(end) = self.end(id) else { return };
        end.give_up();
        let host = end.host;
        let other = self.end((id.0, !id.1)).map(|end| (end.host, end.open));
        if let Some((other_host, _)) = other.filter(|_| told) {
            if fabric.is_way_open(host, other_host) {
                self.send(id, Segment::End, fabric);
            }
        }
        if !matches!(other, Some((_, true))) && !self.is_opening(id.0) {
            self.tidy(id.0);
        }
    }

    /// Whether the connecting end has yet to learn that the connection is established.
    fn is_opening(&self, number: u32) -> bool {
        let Some(connection) = self.connections.get(&number) else { return false };
        let dialler = &connection.ends[1];
        !dialler.open && !dialler.gone
    }

    fn tidy(&mut self, number: u32) {
        let over = |end: &End| !end.open;
        if self.connections.get(&number).is_some_and(|connection| connection.ends.iter().all(over)) {
            self.connections.remove(&number);
        }
    }

    /// An end learns that the connection is broken.
    fn reset(&mut self, id: EndId, fabric: &mut Fabric<'_>) {
        let same = self.is_same_run(id, fabric);
        let Some(end) = self.open(id) else {
            // The reset may come before the end has learned that the connection is established.
            if same && self.is_opening(id.0) && id.1 {
                let at = fabric.now + Duration::from_millis(1);
                later(at, StreamEvent::Reset(id), fabric);
            }
            return;
        };
        let host = end.host;
        if !fabric.hosts[host].is_up() && same {
            let at = fabric.now + RETRY;
            return later(at, StreamEvent::Reset(id), fabric);
        }
        self.abandon(id, false, fabric);
        if same {
            self.with_node(host, fabric, |node, now| node.handle_closed(now, name(id)));
        }
    }
}

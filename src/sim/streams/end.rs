//! One end of a connection: the data that it has yet to send, the segments in flight to it, and the sink of arriving content.

use crate::io::{Extent, Sink};
use crate::sim::blob::{Slice, joined};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// The most bytes in one segment.
pub(super) const SEGMENT: usize = 64 << 10;

/// Data that the node gave its driver to send.
pub(super) enum Outgoing {
    Bytes(Vec<u8>),
    /// A run of a file that has not been read yet.
    Extent(Extent),
    File(VecDeque<Slice>),
}

/// The data that arrives in one event.
pub(super) enum Segment {
    Bytes(Vec<u8>),
    Content(Slice),
    /// The sender has ended the connection.
    End,
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        match self {
            Segment::Bytes(bytes) => bytes.len(),
            Segment::Content(slice) => slice.len(),
            Segment::End => 0,
        }
    }
}

/// A run of bytes that goes to a file, not to the node.
pub(super) struct Sinking {
    sink: Sink,
    left: u32,
    slices: Vec<Slice>,
}

impl Sinking {
    pub(super) fn new(sink: Sink) -> Self {
        Sinking { left: sink.length, sink, slices: Vec::new() }
    }

    /// The bytes that have yet to arrive.
    pub(super) fn left(&self) -> usize {
        self.left as usize
    }

    /// Takes content that arrived: at most as many bytes as are [left](Sinking::left).
    pub(super) fn take(&mut self, content: Slice) {
        self.left -= content.len() as u32;
        self.slices.push(content);
    }

    /// The sink, and all content that arrived for it.
    pub(super) fn finish(self) -> (Sink, Slice) {
        (self.sink, joined(self.slices))
    }
}

/// One end of a connection.
pub(super) struct End {
    pub(super) host: usize,
    /// The run of the host's node that the end belongs to.
    pub(super) run: u32,
    /// The node knows of the end and has not closed it.
    pub(super) open: bool,
    /// The end is closed, or its process or machine is gone. The other end learns of it at the latest when it sends.
    pub(super) gone: bool,
    /// The event that sends the next segment is queued.
    pub(super) pumping: bool,
    pub(super) sinking: Option<Sinking>,
    /// Bytes that arrived and that the node has not taken.
    pub(super) inbox: Vec<u8>,
    outbox: VecDeque<Outgoing>,
    stalled_since: Option<Instant>,
    arriving: VecDeque<Segment>,
    arrives_last: Instant,
}

impl End {
    pub(super) fn new(host: usize, run: u32) -> Self {
        End {
            host,
            run,
            open: false,
            gone: false,
            pumping: false,
            sinking: None,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            stalled_since: None,
            arriving: VecDeque::new(),
            arrives_last: Instant::ZERO,
        }
    }

    // Sending.

    /// Queues data to send. Bytes are appended to bytes at the end of the queue.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        match (self.outbox.back_mut(), outgoing) {
            (Some(Outgoing::Bytes(last)), Outgoing::Bytes(more)) => last.extend_from_slice(&more),
            (_, outgoing) => self.outbox.push_back(outgoing),
        }
    }

    /// Whether anything is left to send.
    pub(super) fn has_more(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The run of a file that must be read before the next segment can leave.
    pub(super) fn unread(&self) -> Option<&Extent> {
        match self.outbox.front() {
            Some(Outgoing::Extent(extent)) => Some(extent),
            _ => None,
        }
    }

    /// Replaces the [unread](End::unread) run by its content.
    pub(super) fn was_read(&mut self, slices: VecDeque<Slice>) {
        debug_assert!(self.unread().is_some(), "only what was to be read is");
        self.outbox[0] = Outgoing::File(slices);
    }

    /// The next segment. `None` when the queue is empty or a file must be read first.
    pub(super) fn next_segment(&mut self) -> Option<Segment> {
        match self.outbox.front_mut()? {
            Outgoing::Bytes(bytes) => {
                let rest = bytes.split_off(bytes.len().min(SEGMENT));
                let bytes = core::mem::replace(bytes, rest);
                if matches!(self.outbox.front(), Some(Outgoing::Bytes(rest)) if rest.is_empty()) {
                    self.outbox.pop_front();
                }
                Some(Segment::Bytes(bytes))
            }
            Outgoing::File(slices) => {
                let taken = slices.front_mut().map(|slice| slice.take(slice.len().min(SEGMENT)));
                if slices.front().is_some_and(Slice::is_empty) {
                    slices.pop_front();
                }
                if slices.is_empty() {
                    self.outbox.pop_front();
                }
                taken.map(Segment::Content).or(Some(Segment::Bytes(Vec::new())))
            }
            Outgoing::Extent(_) => None,
        }
    }

    /// The bytes at the head of the queue, such as a refusal. They are sent before the end closes.
    pub(super) fn last_word(&mut self) -> Option<Segment> {
        match self.outbox.pop_front() {
            Some(Outgoing::Bytes(bytes)) => Some(Segment::Bytes(bytes)),
            _ => None,
        }
    }

    /// The way to the other end is open: it is not stalled.
    pub(super) fn is_clear(&mut self) {
        self.stalled_since = None;
    }

    /// The way to the other end is blocked. Returns how long it has been.
    pub(super) fn stall(&mut self, now: Instant) -> Duration {
        now.since(*self.stalled_since.get_or_insert(now))
    }

    /// Closes the end for good, and drops what it has yet to send.
    pub(super) fn give_up(&mut self) {
        (self.open, self.gone) = (false, true);
        self.outbox.clear();
        self.sinking = None;
    }

    // Receiving.

    /// A segment is in flight to this end, and would arrive at `at`. Returns when it does arrive: it overtakes no earlier one.
    pub(super) fn expect(&mut self, segment: Segment, at: Instant) -> Instant {
        self.arriving.push_back(segment);
        self.arrives_last = self.arrives_last.max(at);
        self.arrives_last
    }

    /// The segment that arrives now.
    pub(super) fn arrived(&mut self) -> Option<Segment> {
        self.arriving.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::io::Place;
    use crate::manifest::HashAs;
    use crate::sim::blob::Blob;

    fn lengths(end: &mut End) -> Vec<(bool, usize)> {
        let segments = core::iter::from_fn(|| end.next_segment());
        segments.map(|segment| (matches!(segment, Segment::Content(_)), segment.len())).collect()
    }

    #[test]
    fn bytes_join_and_leave_in_segments_and_content_waits_until_its_file_is_read() {
        let mut end = End::new(0, 1);
        end.push(Outgoing::Bytes(vec![1; SEGMENT]));
        end.push(Outgoing::Bytes(vec![2; 10]));
        let extent = Extent { place: Place::Piece(Key([1; 32])), offset: 0, length: 5, stamp: None };
        end.push(Outgoing::Extent(extent));
        end.push(Outgoing::Bytes(vec![3; 7]));
        assert!(end.unread().is_none(), "the bytes leave first");
        assert_eq!(lengths(&mut end), [(false, SEGMENT), (false, 10)]);
        assert!(end.unread().is_some() && end.has_more());
        let content = Slice::whole(Blob::random(SEGMENT + 1, 1));
        end.was_read(VecDeque::from([content]));
        assert_eq!(lengths(&mut end), [(true, SEGMENT), (true, 1), (false, 7)]);
        assert!(!end.has_more());
    }

    #[test]
    fn a_segment_overtakes_none_and_stalls_are_measured_from_their_start() {
        let mut end = End::new(0, 1);
        let at = Instant::from_secs;
        assert_eq!(end.expect(Segment::Bytes(vec![1]), at(5)), at(5));
        assert_eq!(end.expect(Segment::End, at(3)), at(5));
        assert_eq!(end.arrived().map(|segment| segment.len()), Some(1));
        assert_eq!(end.stall(at(10)), Duration::ZERO);
        assert_eq!(end.stall(at(12)), Duration::from_secs(2));
        end.is_clear();
        assert_eq!(end.stall(at(20)), Duration::ZERO);
    }

    #[test]
    fn a_sink_counts_what_is_left_and_gives_all_that_came() {
        let content = Slice::whole(Blob::random(100, 1));
        let sink = Sink { place: Place::Incoming(1), offset: 0, length: 100, hash_as: HashAs::Root };
        let mut sinking = Sinking::new(sink);
        for (at, length) in [(0, 60), (60, 40)] {
            assert!(sinking.left() > 0);
            sinking.take(content.part(at, length));
        }
        assert_eq!(sinking.left(), 0);
        assert_eq!(sinking.finish().1.bytes(), content.bytes());
    }
}

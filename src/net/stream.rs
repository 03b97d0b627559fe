//! One TCP stream: its readiness, its buffers and its rate limits.

use super::outbox::Outbox;
use super::throttle::Bucket;
use crate::disk::OpenSink;
use crate::io::{DialId, Sink, StreamId};
use crate::limits::Rates;
use crate::time::Instant;
use crate::wire::frame::{FRAME_BYTES_MAX, Frame};
use bytes::BytesMut;
use mio::net::TcpStream;

/// A stream in the slab.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) socket: TcpStream,
    pub(super) state: State,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether it is on the list of ready streams.
    pub(super) queued: bool,
    /// The beginning of a frame whose rest has not come.
    pub(super) inbox: BytesMut,
    /// What its next bytes are likely to be.
    pub(super) coming: Coming,
    /// The target of raw bytes.
    pub(super) sink: Option<OpenSink>,
    /// The sink that waits for a descriptor. Nothing is read meanwhile.
    pub(super) unopened: Option<Unopened>,
    /// The rate limits of its content, in and out.
    pub(super) incoming: Bucket,
    pub(super) outgoing: Bucket,
    /// While a rate limit stops it: when it may read content again, and when it may send content again.
    pub(super) reads_at: Option<Instant>,
    pub(super) writes_at: Option<Instant>,
    /// When it last moved a byte.
    pub(super) moved_at: Instant,
    pub(super) outbox: Outbox,
}

/// What a stream's next bytes are likely to be. It decides how many bytes a read asks for: raw bytes that are read together
/// with a frame can no longer be spliced into their file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coming {
    /// Frames: no raw bytes have come so far.
    Frames,
    /// A frame that announces raw bytes: a run of raw bytes has just ended.
    Content,
    /// Frames or an announcement of raw bytes: raw bytes have come before.
    Either,
}

impl Coming {
    /// The number of bytes to read, at most `most`, when `inbox` holds the beginning of a frame.
    pub(super) fn frame_bytes(self, inbox: &[u8], most: usize) -> usize {
        match self {
            Coming::Frames => most,
            Coming::Content => most.min(Frame::lacking(inbox)),
            Coming::Either => most.min(FRAME_BYTES_MAX),
        }
    }
}

/// A sink that waits for a descriptor.
pub(super) struct Unopened {
    pub(super) sink: Sink,
    /// When it fails.
    pub(super) until: Instant,
}

/// The state of a stream's connection.
pub(super) enum State {
    /// connect(2) is under way; the dial fails at `until`.
    Connecting { dial: DialId, until: Instant },
    /// Open.
    Open,
}

impl Stream {
    pub(super) fn new(now: Instant, id: StreamId, socket: TcpStream, state: State, rates: Rates) -> Self {
        Stream {
            id,
            socket,
            state,
            readable: false,
            writable: false,
            queued: false,
            inbox: BytesMut::new(),
            coming: Coming::Frames,
            sink: None,
            unopened: None,
            incoming: Bucket::new(now, rates.peer_download),
            outgoing: Bucket::new(now, rates.peer_upload),
            reads_at: None,
            writes_at: None,
            moved_at: now,
            outbox: Outbox::default(),
        }
    }

    /// Whether it can read or write now.
    pub(super) fn has_work(&self) -> bool {
        let reads = self.readable && self.reads_at.is_none();
        let writes = self.writable && !self.outbox.is_empty() && self.writes_at.is_none();
        matches!(self.state, State::Open) && (reads || writes)
    }
}

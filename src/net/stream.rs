//! One TCP stream: what is known of its readiness, and what waits on it.

use super::outbox::Outbox;
use super::throttle::Bucket;
use crate::disk::OpenSink;
use crate::io::{DialId, StreamId};
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
    /// Whether it is on the list of streams to be served.
    pub(super) queued: bool,
    /// The beginning of a frame.
    pub(super) inbox: BytesMut,
    /// What is to be expected after it.
    pub(super) coming: Coming,
    /// Where raw bytes go.
    pub(super) sink: Option<OpenSink>,
    /// What it may still move, in and out.
    pub(super) incoming: Bucket,
    pub(super) outgoing: Bucket,
    /// Until when it may read no content, and send none.
    pub(super) reads_at: Option<Instant>,
    pub(super) writes_at: Option<Instant>,
    /// When it last moved anything.
    pub(super) moved_at: Instant,
    /// What waits to be sent, in order.
    pub(super) outbox: Outbox,
}

/// What a stream's next bytes are likely to be, from what came last. Raw bytes that are read together with a frame cannot
/// be spliced any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coming {
    /// Frames, and nobody knows what follows them.
    Frames,
    /// A frame that announces raw bytes: some have just ended.
    Content,
    /// Frames, although raw bytes have come before and may come again.
    Either,
}

impl Coming {
    /// How many bytes to read, of `most`, when the beginning of a frame is here already.
    pub(super) fn frame_bytes(self, inbox: &[u8], most: usize) -> usize {
        match self {
            Coming::Frames => most,
            Coming::Content => most.min(Frame::lacking(inbox)),
            Coming::Either => most.min(FRAME_BYTES_MAX),
        }
    }
}

/// How far a stream has come.
pub(super) enum State {
    /// The other end has not answered; given up at `until`.
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
            incoming: Bucket::new(now, rates.peer_download),
            outgoing: Bucket::new(now, rates.peer_upload),
            reads_at: None,
            writes_at: None,
            moved_at: now,
            outbox: Outbox::default(),
        }
    }

    /// Whether serving it now would do something.
    pub(super) fn has_work(&self) -> bool {
        let reads = self.readable && self.reads_at.is_none();
        let writes = self.writable && !self.outbox.is_empty() && self.writes_at.is_none();
        matches!(self.state, State::Open) && (reads || writes)
    }
}

//! The outputs of the transfer machine: to the driver, and to the node that owns it.

use crate::id::{Key, NodeId};
use crate::io::{DiskError, Extent, Mode, Place, Run, Sink, StreamId};
use crate::manifest::Manifest;
use crate::peers::blame::Ban;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::InspectEntry;
use std::sync::Arc;

pub use crate::io::DialId;

/// A download under way. The node chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DownloadId(pub u64);

/// A copy of a piece to another node. The node chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PushId(pub u64);

/// A question to a node about its copies. The node chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InspectId(pub u64);

/// A question to a node whether it has a piece. The node chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProofId(pub u64);

/// Leaves of a piece that are read for a proof of possession. The machine chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SampleId(pub u64);

/// An action of the driver on a stream. The driver carries actions out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamOutput {
    /// Connect to this node, and report success or failure by `until`.
    Connect {
        /// The attempt.
        dial: DialId,
        /// The node that is expected there.
        contact: Contact,
        /// The deadline: an attempt that has not succeeded by then has failed.
        until: Instant,
    },
    /// Send these bytes.
    Write {
        /// The stream.
        stream: StreamId,
        /// One frame.
        bytes: Vec<u8>,
    },
    /// Send all bytes of this extent: their number has been announced to the peer.
    SendFile {
        /// The stream.
        stream: StreamId,
        /// The part of a file.
        extent: Extent,
    },
    /// The next raw bytes of this stream go to this sink.
    Sink {
        /// The stream.
        stream: StreamId,
        /// The sink.
        sink: Sink,
    },
    /// Close the stream. The driver may drop unsent bytes, and a sink on the stream ends where it is.
    Close {
        /// The stream.
        stream: StreamId,
    },
}

/// An event for the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferEvent {
    /// An inspection ended: the node answered, or failed to.
    Inspected {
        /// The inspection.
        inspection: InspectId,
        /// The node that was asked.
        target: NodeId,
        /// One entry for each piece, in the order of the question.
        result: Result<Vec<InspectEntry>, InspectError>,
    },
    /// An offered piece has arrived and verifies. Make it durable, then call
    /// [`stored`](super::Transfer::stored).
    Arrived {
        /// The stream.
        stream: StreamId,
        /// The peer's number for the offer.
        request: u32,
        /// The offer.
        offer: Offer,
        /// The number of the [`Place::Incoming`] that holds it, unless `bytes` is set.
        incoming: u64,
        /// The content, if the piece is a manifest or an empty file: those are not written to a file.
        bytes: Option<Vec<u8>>,
    },
    /// An offered piece will not arrive, or does not verify: discard what was written of it.
    ArrivalFailed {
        /// The number of the [`Place::Incoming`].
        incoming: u64,
    },
    /// This node could not write a piece that a peer was sending. [`ArrivalFailed`](TransferEvent::ArrivalFailed) follows.
    ArrivalUnwritten {
        /// The disk's error.
        error: DiskError,
    },
    /// The piece under the file's own hash has arrived and verifies. After a [`Root::File`] the download is over, and the
    /// machine has forgotten it. After a [`Root::Manifest`] the download waits for [`begin`](super::Transfer::begin).
    Root {
        /// The download.
        download: DownloadId,
        /// The root.
        root: Root,
        /// The file's mode as the source reports it: a hint, because no hash covers it.
        mode: Mode,
    },
    /// A chunk is verified and in its place.
    ChunkDone {
        /// The download.
        download: DownloadId,
        /// The chunk's index.
        index: u32,
    },
    /// Every chunk is verified and in its place. The machine has forgotten the download.
    Complete {
        /// The download.
        download: DownloadId,
        /// The number of nodes that sent content.
        sources: u32,
    },
    /// No source that is known and reachable has these pieces.
    SourcesNeeded {
        /// The download.
        download: DownloadId,
        /// The file's hash while its root is missing, else the hashes of chunks.
        keys: Vec<Key>,
    },
    /// A download failed. The machine has forgotten it.
    DownloadFailed {
        /// The download.
        download: DownloadId,
        /// The cause.
        error: DownloadError,
    },
    /// Read these parts of a piece that is here, and pass them to [`sampled`](super::Transfer::sampled).
    SampleNeeded {
        /// The number of the sample.
        sample: SampleId,
        /// The piece.
        extent: Extent,
        /// The parts.
        runs: Vec<Run>,
    },
    /// A question whether a node has a piece ended.
    Proven {
        /// The question.
        proof: ProofId,
        /// The node that was asked.
        target: NodeId,
        /// Whether it proved that it has the piece on disk. False also when it did not answer.
        proven: bool,
    },
    /// A copy to another node succeeded, and the node proved that it has the copy; or it failed.
    PushDone {
        /// The copy.
        push: PushId,
        /// Its target.
        target: NodeId,
        /// The result.
        result: Result<PushOutcome, PushError>,
    },
    /// The end of a [`Transfer::try_dial`](super::Transfer::try_dial).
    Tried {
        /// The attempt.
        dial: DialId,
        /// Whether a connection came about.
        connected: bool,
    },
    /// A peer sent wrong content. This node reports it to the peer, and bans the peer from the file or from everything.
    SourceBad {
        /// The ban that follows.
        ban: Ban,
        /// The file that the piece was requested for, or the piece itself if it was offered.
        file: Key,
        /// The piece.
        key: Key,
    },
    /// A peer reports that a piece which this node sent to it recently does not verify. The report is not evidence.
    Reported {
        /// The peer.
        peer: NodeId,
        /// The piece.
        key: Key,
    },
    /// The other end of a stream authenticated itself, or could not be reached.
    Peer {
        /// The node, and the address where it accepts connections.
        contact: Contact,
        /// Whether the node says that it is a leaf.
        leaf: bool,
        /// Whether the node authenticated itself; false when it could not be reached.
        alive: bool,
    },
    /// This node could not read a piece that it had begun to send.
    SendFailed {
        /// Where the piece was expected.
        place: Place,
        /// The disk's error.
        error: DiskError,
    },
}

/// The piece under a file's own hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// A file of several chunks: its manifest, decoded and as received.
    Manifest(Arc<Manifest>, Vec<u8>),
    /// A file of one chunk: its content.
    File(Vec<u8>),
}

/// Why a download failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownloadError {
    /// The target's disk is full.
    NoSpace(DiskError),
    /// The target's disk failed.
    Disk(DiskError),
}

/// How a copy succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushOutcome {
    /// It was sent, and the target made it durable.
    Stored,
    /// The target had it already, durable.
    Had,
}

/// Why a copy failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PushError {
    /// The target could not be reached, or another node answered at its address.
    Unreachable,
    /// The target refused the piece.
    Refused(Refusal),
    /// The stream broke or fell silent before the target proved that the piece is durable.
    Lost,
    /// The target says that it has the piece, and does not prove it.
    Unproven,
    /// This node could not read the piece.
    Source(DiskError),
}

/// Why an inspection got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InspectError {
    /// The node could not be reached, or another node answered at its address.
    Unreachable,
    /// The stream broke or fell silent before the answer.
    Lost,
}

/// A source of a download from which nothing arrives any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SilentSource {
    /// The source.
    pub contact: Contact,
    /// Whether there is a stream to it. If not, it could not be dialled, or its stream broke.
    pub connected: bool,
}

/// The state of a download's sources: enough to tell "not found", "unreachable" and "does not verify" apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DownloadState {
    /// Known sources.
    pub sources: u32,
    /// Of those: given up after failed attempts to connect, or after broken streams.
    pub failed: u32,
    /// Of those: connected by an authenticated stream.
    pub connected: u32,
    /// Of those: answered that they have none of the missing pieces.
    pub not_found: u32,
    /// Sources that sent wrong content and are banned from the file now, including those whose places others have taken.
    pub banned: u32,
    /// When content last arrived; before the first, when the download started.
    pub last_progress: Instant,
    /// Whether nothing is in flight and no source is left to ask or to dial.
    pub idle: bool,
}

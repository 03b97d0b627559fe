//! What the transfer machine says: to the driver, and to the node that it is a part of.

use super::blame::Ban;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, Extent, Mode, Place, Sink, StreamId};
use crate::manifest::Manifest;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::InspectEntry;
use std::sync::Arc;

pub use crate::io::DialId;

/// A download under way, named by the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DownloadId(pub u64);

/// A copy of a piece to another node, named by the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PushId(pub u64);

/// A question to a node about its copies, named by the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InspectId(pub u64);

/// What the driver is to do with streams, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamOutput {
    /// Connect to this node and tell how it went, at `until` at the latest.
    Connect {
        /// The attempt.
        dial: DialId,
        /// Who is expected there.
        contact: Contact,
        /// When the attempt has failed unless it has succeeded.
        until: Instant,
    },
    /// Send these bytes.
    Write {
        /// To whom.
        stream: StreamId,
        /// One frame.
        bytes: Vec<u8>,
    },
    /// Send this run of a file, all of it: its length has been promised.
    SendFile {
        /// To whom.
        stream: StreamId,
        /// What.
        extent: Extent,
    },
    /// The next raw bytes of this stream go there.
    Sink {
        /// From whom.
        stream: StreamId,
        /// Where to.
        sink: Sink,
    },
    /// Close it. What waits to be written may be dropped, and a sink on it stops where it is.
    Close {
        /// Which.
        stream: StreamId,
    },
}

/// What the node hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferEvent {
    /// A peer wants a piece: answer with [`serve`](super::Transfer::serve), soon, for what it asked for after that waits.
    Wanted {
        /// Over which stream.
        stream: StreamId,
        /// Its number for the request.
        request: u32,
        /// The piece.
        key: Key,
        /// Who asks.
        from: NodeId,
    },
    /// A peer wants to know which of these pieces are here: answer with [`answer`](super::Transfer::answer).
    Asked {
        /// Over which stream.
        stream: StreamId,
        /// Its number for the question.
        question: u32,
        /// 1 to 128 pieces.
        keys: Vec<Key>,
    },
    /// A peer wants to know how safe these pieces are: answer with [`inspected`](super::Transfer::inspected).
    InspectAsked {
        /// Over which stream.
        stream: StreamId,
        /// Its number for the question.
        question: u32,
        /// 1 to 64 pieces.
        keys: Vec<Key>,
    },
    /// A node said what it has of the pieces that it was asked about, or did not.
    Inspected {
        /// Which inspection.
        inspection: InspectId,
        /// Who.
        target: NodeId,
        /// One entry for each piece, in their order.
        result: Result<Vec<InspectEntry>, InspectError>,
    },
    /// A peer offers a piece whose form makes sense: answer with [`admit`](super::Transfer::admit).
    Offered {
        /// Over which stream.
        stream: StreamId,
        /// Its number for the offer.
        request: u32,
        /// What it offers.
        offer: Offer,
        /// Who offers.
        from: Contact,
    },
    /// The bytes of an offered piece begin to come. When there is no room for them, [`Transfer::refuse_arriving`] says so.
    ///
    /// [`Transfer::refuse_arriving`]: super::Transfer::refuse_arriving
    Arriving {
        /// Over which stream.
        stream: StreamId,
        /// Which offer.
        request: u32,
        /// Its number.
        incoming: u64,
    },
    /// An offered piece is here and is what was offered. Make it durable, then call
    /// [`stored`](super::Transfer::stored).
    Arrived {
        /// Over which stream.
        stream: StreamId,
        /// The peer's number for the offer.
        request: u32,
        /// What it is.
        offer: Offer,
        /// The number of the [`Place::Incoming`] that it is in, unless `bytes` is set.
        incoming: u64,
        /// Manifests and empty files are not in a file: this is their content.
        bytes: Option<Vec<u8>>,
    },
    /// An offered piece will not arrive, or is not what was offered: discard what is there of it.
    ArrivalFailed {
        /// The number of the [`Place::Incoming`].
        incoming: u64,
    },
    /// A piece that a peer was sending could not be written. [`ArrivalFailed`](TransferEvent::ArrivalFailed) follows.
    ArrivalUnwritten {
        /// What the disk said.
        error: DiskError,
    },
    /// The piece under the file's own hash is here and verified. After a [`Root::File`] there is nothing left to
    /// download, and the machine has forgotten the download; after a [`Root::Manifest`] it waits for
    /// [`begin`](super::Transfer::begin).
    Root {
        /// Of which download.
        download: DownloadId,
        /// What it is.
        root: Root,
        /// The file's mode, as the source says: a hint.
        mode: Mode,
    },
    /// A chunk is in its place and verified.
    ChunkDone {
        /// Of which download.
        download: DownloadId,
        /// Which chunk.
        index: u32,
    },
    /// Every chunk is in its place and verified. The machine has forgotten the download.
    Complete {
        /// Which download.
        download: DownloadId,
        /// How many nodes content came from.
        sources: u32,
    },
    /// Nobody who is known and reachable has these pieces.
    SourcesNeeded {
        /// Of which download.
        download: DownloadId,
        /// The file's hash while its root is missing, else its chunks.
        keys: Vec<Key>,
    },
    /// A download cannot go on. The machine has forgotten it.
    DownloadFailed {
        /// Which download.
        download: DownloadId,
        /// Why.
        error: DownloadError,
    },
    /// A copy to another node was made, or not.
    PushDone {
        /// Which.
        push: PushId,
        /// To whom.
        target: NodeId,
        /// How it ended.
        result: Result<PushOutcome, PushError>,
    },
    /// A peer sent wrong content. It is told so, and not asked for the file for a while, or for anything.
    SourceBad {
        /// The ban that follows.
        ban: Ban,
        /// The file that the piece was asked for, or the piece itself when it was offered.
        file: Key,
        /// The piece.
        key: Key,
    },
    /// A peer says that a piece which this node has sent it lately does not verify. Nothing proves that.
    Reported {
        /// Who says so.
        peer: NodeId,
        /// The piece.
        key: Key,
    },
    /// The other end of a stream proved who it is, or could not be reached.
    Peer {
        /// Who, and where it answers.
        contact: Contact,
        /// Whether it says that it is a leaf.
        leaf: bool,
        /// Whether it proved itself; false when it could not be reached.
        alive: bool,
    },
    /// A piece that had been promised to a peer could not be read.
    SendFailed {
        /// Where it should have been.
        place: Place,
        /// Why.
        error: DiskError,
    },
}

/// The piece under a file's own hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// A file of several chunks: its manifest, decoded and as it came.
    Manifest(Arc<Manifest>, Vec<u8>),
    /// A file of one chunk: its content.
    File(Vec<u8>),
}

/// What the node says to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The piece is here and durable.
    Have,
    /// Send it.
    Send {
        /// The number of the [`Place::Incoming`] to put it into. Never used before.
        incoming: u64,
    },
    /// No.
    Refuse(Refusal),
}

/// Why a download cannot go on.
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
    /// It was sent, and is durable there.
    Stored,
    /// It was there and durable already.
    Had,
}

/// Why a copy failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PushError {
    /// The node could not be reached, or is not who it should be.
    Unreachable,
    /// It does not want the piece.
    Refused(Refusal),
    /// The stream broke or fell silent before it said that the piece is durable.
    Lost,
    /// The piece could not be read here.
    Source(DiskError),
}

/// Why a node did not say what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InspectError {
    /// It could not be reached, or is not who it should be.
    Unreachable,
    /// The stream broke or fell silent before it answered.
    Lost,
}

/// How a download's sources are doing: enough to tell "not found", "unreachable" and "does not verify" apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DownloadState {
    /// Nodes that are known to the download.
    pub sources: u32,
    /// Of those: given up after failed attempts to connect, or after streams that broke.
    pub failed: u32,
    /// Of those: on a proven stream.
    pub connected: u32,
    /// Of those: said that they have nothing of what is missing.
    pub not_found: u32,
    /// Nodes that sent wrong content of the file and are not asked for it now, or have given their places to others.
    pub banned: u32,
    /// When content last came; before the first, when the download started.
    pub last_progress: Instant,
    /// Nothing is in flight, and nobody is left to ask or to connect to, be it for want of room.
    pub idle: bool,
}

/// How far a download has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DownloadProgress {
    /// How many chunks the file has; 0 before [`begin`](super::Transfer::begin).
    pub chunks: u32,
    /// How many are in place and verified.
    pub chunks_have: u32,
    /// How many have been asked for.
    pub chunks_in_flight: u32,
    /// Bytes in place and verified.
    pub bytes_have: u64,
    /// The file's length.
    pub bytes: u64,
    /// Bytes from the start of the file that are in place and verified without a gap.
    pub prefix: u64,
    /// Nodes that content came from so far.
    pub sources: u32,
}

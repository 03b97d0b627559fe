//! Waits for the disk, for lookups, and for copies: each names the operation that its end is for.

use super::command::{CommandId, Reply};
use super::ops::audit::answer::Question;
use super::ops::place_piece::PlaceFor;
use super::ops::{download, inbound, read, values};
use crate::id::Key;
use crate::io::Place;
use crate::store::Shared;
use crate::transfer::{DownloadId, SampleId};

/// The operation that a disk operation belongs to.
pub(super) enum Waiting {
    /// None; the file is the node's own.
    Nothing,
    /// None; the file is the user's, so an error on it says nothing about the node's disk.
    UsersFile,
    Put(CommandId),
    /// A share is being ended.
    Unshare(CommandId),
    /// A share is checked again.
    Examine,
    /// The manifest of a file that is to be uploaded.
    Upload(Key),
    /// The manifest of a served file whose pieces replication is to keep.
    Stock(Key),
    /// The manifest of a file that is no longer served.
    Forget(Shared),
    /// The stamp of the shared file at this place is checked.
    Stamp(Place, Looker),
    /// The root of a file that is sought.
    Root(DownloadId),
    Download(DownloadId, download::Step),
    Read(DownloadId, read::Step),
    /// A piece that another node sends or offers.
    Inbound(inbound::Step),
    Record(CommandId, Reply),
    /// A check of a piece that a peer reported.
    Recheck,
    /// A piece or a file that the scrub reads.
    Scrub,
    /// Parts of a piece, for a proof of possession.
    Sample(SampleId, Place),
}

/// The operation that waits for the check of a shared file's stamp.
pub(super) enum Looker {
    /// A download or an audit of the file.
    Seeker(DownloadId),
    /// A peer's question about its pieces.
    Question(Question),
}

/// The operation that a lookup belongs to.
pub(super) enum Purpose {
    /// The providers of a file, and the nodes closest to its hash.
    Providers(DownloadId),
    /// The holders of a piece: of a chunk that no known source has, or of a piece that is audited.
    Holders(DownloadId, Key),
    /// The nodes that should hold a piece which this node places.
    Place(PlaceFor),
    /// A value.
    Value(values::Question),
}

/// The operation that a copy to another node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copying {
    /// Placing a piece on the nodes closest to it.
    Place(PlaceFor),
    /// Repair: a neighbour lacks this piece.
    Repair(Key),
}

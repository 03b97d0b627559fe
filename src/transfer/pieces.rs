//! The machine's questions about the pieces of this node.

use crate::id::Key;
use crate::io::{Extent, Mode, StreamId};
use crate::manifest::Content;
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::InspectEntry;

/// The pieces of this node, as the machine sees them. The node implements it, so that requests and offers are answered where they
/// arrive.
pub trait Pieces {
    /// Finds a piece that a peer requests: a whole one, or the reason for a refusal.
    fn locate(&mut self, key: &Key) -> Result<Located, Refusal>;

    /// Whether a piece is here and can be sent.
    fn has(&self, key: &Key) -> bool;

    /// Where a piece is that this node counts as a holder of: one that it stores, or that a user shares in place with copies. Its
    /// bytes are synced.
    fn kept(&self, key: &Key) -> Option<Extent>;

    /// Decides on a piece that the peer `from` offers. `None` when something must be made durable first: then the node calls
    /// [`Transfer::admit`](super::Transfer::admit) with the same stream and number later.
    fn admit(&mut self, stream: StreamId, request: u32, offer: &Offer, from: &Contact) -> Option<Verdict>;

    /// Makes room for an accepted piece, whose content begins to arrive. False when there is none: then the piece is forgotten,
    /// and its content is discarded.
    fn make_room(&mut self, incoming: u64) -> bool;

    /// What this node knows about the copies of these pieces, of which a peer asks: one entry for each, in their order. `None` when
    /// files must be checked first: then the node calls [`Transfer::inspected`](super::Transfer::inspected) with the same stream and
    /// number later.
    fn inspect(&mut self, stream: StreamId, question: u32, keys: &[Key]) -> Option<Vec<InspectEntry>>;
}

/// The answer to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The piece is here already and durable.
    Have,
    /// The peer may send it.
    Send {
        /// The number of the [`Place::Incoming`](crate::io::Place::Incoming) to write it to. Each number is used once.
        incoming: u64,
    },
    /// The node refuses the piece.
    Refuse(Refusal),
}

/// A piece that is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// Its kind.
    pub content: Content,
    /// The mode of the file whose hash is the piece's key. A hint.
    pub mode: Mode,
    /// Where its bytes are.
    pub bytes: Bytes,
}

/// Where the bytes of a piece are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// In a file: the driver sends them from there.
    File(Extent),
    /// In no file: these.
    Memory(Vec<u8>),
}

//! What the machine asks about the pieces of this node.

use crate::id::Key;
use crate::io::{Extent, Mode};
use crate::manifest::Content;
use crate::wire::frame::Refusal;

/// The pieces of this node, as the machine sees them. The node implements it, so that a request is answered where it arrives.
pub trait Pieces {
    /// Finds a piece that a peer requests: a whole one, or the reason for a refusal.
    fn locate(&mut self, key: &Key) -> Result<Located, Refusal>;

    /// Whether a piece is here and can be sent.
    fn has(&self, key: &Key) -> bool;
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

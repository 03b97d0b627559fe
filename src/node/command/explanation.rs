//! The result of an audit (`explain`).

use crate::id::{Key, NodeId};
use crate::wire::inspect::RepairPhase;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// The result of an audit: what every node that could be asked reports about its own disk now. A *piece* is a chunk, or the manifest
/// of a file of several chunks. A copy counts if its holder says, over an authenticated stream, that it keeps the piece: stored and
/// synced, or shared in place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The file's address.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// The number of chunks.
    pub chunks: u32,
    /// The size of each chunk but the last, in bytes.
    pub chunk_bytes: u64,
    /// The number of pieces: the chunks, and the manifest if there is one.
    pub pieces: u32,
    /// Copies requested; 0 when the file is only shared, or no holder says.
    pub replicas: u8,
    /// The quorum, ⌊replicas/2⌋+1; 0 when `replicas` is 0.
    pub quorum: u8,
    /// The copies of the piece with the fewest.
    pub copies_min: u32,
    /// The median number of copies of a piece.
    pub copies_median: u32,
    /// The copies of the piece with the most.
    pub copies_max: u32,
    /// Pieces with fewer copies than the quorum, or none at all.
    pub below_quorum: u32,
    /// Pieces without a copy that counts.
    pub missing: u32,
    /// Pieces that a holder is copying, or is about to copy.
    pub under_repair: u32,
    /// The number of other nodes that were asked.
    pub nodes_asked: u32,
    /// Of those: how many answered everything.
    pub nodes_answered: u32,
    /// Whether every node could be asked, and answered or had the time to.
    pub complete: bool,
    /// The pieces, grouped by equal holders, those with the fewest copies first.
    pub groups: Vec<CopiesOf>,
    /// The nodes that have pieces, and those that did not answer: this node first, then those with most pieces.
    pub nodes: Vec<ExplainedNode>,
    /// What would be lost with which nodes: the smallest sets of nodes first, at most 8.
    pub losses: Vec<Loss>,
}

/// Pieces with equal holders. Nodes are indices into [`Explanation::nodes`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopiesOf {
    /// The number of pieces.
    pub pieces: u32,
    /// The chunks among them, by index.
    pub chunks: Vec<Run>,
    /// Whether the manifest is one of them.
    pub manifest: bool,
    /// Their size in bytes.
    pub bytes: u64,
    /// The copies of each.
    pub copies: u32,
    /// The nodes that hold them.
    pub holders: Vec<u32>,
    /// The nodes that have them only in a cache, until the space is needed: these do not count.
    pub cached: Vec<u32>,
    /// The repair that is under way.
    pub repair: Option<UnderRepair>,
}

/// A run of chunks, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The first chunk.
    pub first: u32,
    /// The last chunk.
    pub last: u32,
}

/// A repair.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnderRepair {
    /// Its phase.
    pub phase: Repair,
    /// The node that does it.
    pub node: u32,
    /// Since how many seconds; 0 when that node does not know.
    pub since_seconds: u32,
}

/// The phase of a holder's repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Healthy: no copy is missing.
    Whole,
    /// Waiting: missing holders may return, or another holder may make the copies.
    Waiting,
    /// Copying.
    Copying,
    /// Suspended: the holder suspects that it is partitioned.
    CutOff,
}

impl From<RepairPhase> for Repair {
    fn from(phase: RepairPhase) -> Self {
        match phase {
            RepairPhase::Whole => Repair::Whole,
            RepairPhase::Waiting => Repair::Waiting,
            RepairPhase::Copying => Repair::Copying,
            RepairPhase::CutOff => Repair::CutOff,
        }
    }
}

/// A node that was asked about a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedNode {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub addr: SocketAddr,
    /// Whether it is the node that does the audit.
    pub own: bool,
    /// Whether it answered every question.
    pub answered: bool,
    /// Whether it could not be reached at all.
    pub unreachable: bool,
    /// The number of pieces that it holds.
    pub pieces: u32,
    /// Their size in bytes.
    pub bytes: u64,
    /// The number of pieces that it has only in a cache.
    pub cached: u32,
}

impl ExplainedNode {
    /// A node that has nothing and has not answered.
    pub fn new(id: NodeId) -> Self {
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        let (own, answered, unreachable) = (false, false, false);
        ExplainedNode { id, addr, own, answered, unreachable, pieces: 0, bytes: 0, cached: 0 }
    }
}

/// The loss if certain nodes vanished together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Loss {
    /// The nodes: indices into [`Explanation::nodes`].
    pub nodes: Vec<u32>,
    /// Chunks of which no other node has a copy.
    pub chunks: u32,
    /// Whether no other node has the manifest: without it the file cannot be fetched.
    pub manifest: bool,
    /// The size of all these pieces in bytes.
    pub bytes: u64,
}

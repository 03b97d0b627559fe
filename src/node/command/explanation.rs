//! What `explain` answers.

use crate::id::{Key, NodeId};
use crate::wire::inspect::RepairPhase;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// How safe a file is: what every node that could be asked said of its own disk, just now. A *piece* is a chunk, or the
/// manifest of a file of several chunks. A copy is counted when its holder said over a proven stream that it has it for
/// good: stored and synced, or shared from where it lies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The file's address.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// Bytes of each chunk but the last.
    pub chunk_bytes: u64,
    /// How many pieces: the chunks, and the manifest when there is one.
    pub pieces: u32,
    /// Copies asked for; 0 when the file is only shared, or nobody said.
    pub replicas: u8,
    /// Copies that make a piece stored: ⌊replicas/2⌋+1; 0 when `replicas` is.
    pub quorum: u8,
    /// Copies of the piece with the fewest.
    pub copies_min: u32,
    /// Copies of the piece in the middle.
    pub copies_median: u32,
    /// Copies of the piece with the most.
    pub copies_max: u32,
    /// Pieces with fewer copies than the quorum, or none at all.
    pub below_quorum: u32,
    /// Pieces of which nobody has a copy to count on.
    pub missing: u32,
    /// Pieces that a holder is about to copy, or waits to.
    pub under_repair: u32,
    /// Other nodes that were asked.
    pub nodes_asked: u32,
    /// Of those: answered everything.
    pub nodes_answered: u32,
    /// Whether everybody could be asked, and had the time to answer.
    pub complete: bool,
    /// The pieces, those with equal holders together, those with the fewest copies first.
    pub groups: Vec<CopiesOf>,
    /// The nodes that have something, and those that did not answer: this node first, then those that have most.
    pub nodes: Vec<ExplainedNode>,
    /// What would be lost if which nodes went: the smallest sets first, at most 8.
    pub losses: Vec<Loss>,
}

/// Pieces with equal holders. Nodes are numbers in [`Explanation::nodes`], counted from 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopiesOf {
    /// How many pieces.
    pub pieces: u32,
    /// The chunks among them, counted from 0.
    pub chunks: Vec<Run>,
    /// Whether the manifest is one of them.
    pub manifest: bool,
    /// Their bytes.
    pub bytes: u64,
    /// Copies of each.
    pub copies: u32,
    /// Who has them.
    pub holders: Vec<u32>,
    /// Who has them only until the space is needed: not counted.
    pub cached: Vec<u32>,
    /// What is being done about them.
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
    /// What is done.
    pub phase: Repair,
    /// By which node.
    pub node: u32,
    /// For how many seconds; 0 when that node does not know.
    pub since_seconds: u32,
}

/// What a holder does about missing copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Nothing: none is missing.
    Whole,
    /// It waits whether holders come back, or another makes the copies.
    Waiting,
    /// It is making one.
    Copying,
    /// It takes itself for cut off, and makes none.
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

/// A node that was asked what it has of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedNode {
    /// Its place in the key space.
    pub id: NodeId,
    /// Where it answers.
    pub addr: SocketAddr,
    /// Whether it is the node that was asked for the explanation.
    pub own: bool,
    /// Whether it answered everything that it was asked.
    pub answered: bool,
    /// Whether it could not even be reached.
    pub unreachable: bool,
    /// Pieces that it has for good.
    pub pieces: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Pieces that it has until the space is needed.
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

/// What would be lost if all of some nodes went at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Loss {
    /// Those nodes: numbers in [`Explanation::nodes`].
    pub nodes: Vec<u32>,
    /// Chunks of which nobody else has a copy.
    pub chunks: u32,
    /// Whether nobody else has the manifest: without it the file cannot be fetched.
    pub manifest: bool,
    /// Bytes of all that.
    pub bytes: u64,
}

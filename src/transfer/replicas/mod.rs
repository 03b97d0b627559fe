//! Copies of pieces that the network keeps.
//!
//! - `push`: copies to other nodes.
//! - `inbound`: copies from them.
//! - `possession`: questions about copies of pieces, asked and answered.
//! - `proof`: challenges to prove that a copy is there, and this node's proofs.
//! - `outgoing`: the common part of copies, questions and challenges to other nodes: they wait for a stream.

pub(super) mod inbound;
mod outgoing;
pub(super) mod possession;
pub(super) mod proof;
pub(super) mod push;

//! Copies of pieces that the network keeps.
//!
//! - `push`: copies to other nodes.
//! - `inbound`: copies from them.
//! - `possession`: questions about copies of pieces, asked and answered.

pub(super) mod inbound;
pub(super) mod possession;
pub(super) mod push;

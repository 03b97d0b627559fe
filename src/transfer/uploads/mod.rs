//! Uploads: pieces that peers request from this node.
//!
//! - `serve`: requests, and questions which pieces are here.
//! - `slots`: which peer is sent content first.

pub(super) mod serve;
mod slots;

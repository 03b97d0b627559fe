//! Downloads: a file's root, then its chunks, each from a source that has it.
//!
//! - `download`: one download as data: its phase and its sources; `sources`: one of them; `chunks`: which chunks are here, which
//!   are requested, and how rare each is.
//! - `requests`: which sources to dial, and which piece to request from which source.
//! - `receive`: answers and content from peers, and the verification of content.
//! - `swarm`: what co-downloaders, the nodes that fetch the same file, tell each other.

pub(super) mod chunks;
pub(super) mod download;
pub(super) mod receive;
pub(super) mod requests;
pub(super) mod sources;
pub(super) mod swarm;

//! Downloads: a file's root, then its chunks, each from a source that has it.
//!
//! The machine gives its inputs to [`Downloads`](table::Downloads), which finds the download that each is for:
//!
//! - `table`: the downloads under way: how they begin, change and end.
//! - `download`: one download: its phase and its sources. `sources`: one of them. `chunks`: which chunks are here, which are
//!   requested, and how rare each is.
//! - `pump`: everything that a download can do at a time: `dial` connects to sources, `requests` requests pieces from them,
//!   `endgame` requests the last chunks a second time, `questions` asks sources what they have.
//! - `receive`: content and refusals from peers, and the verification of content.
//! - `bans`: sources that sent wrong content. `silence`: sources from which nothing arrives any more.
//! - `swarm`: what co-downloaders, the nodes that fetch the same file, tell each other.

mod bans;
mod chunks;
mod dial;
mod download;
mod endgame;
mod pump;
mod questions;
pub(super) mod receive;
mod requests;
mod silence;
mod sources;
pub(super) mod swarm;
pub(super) mod table;
#[cfg(test)]
mod testing;

//! What the fuzz targets share.
//!
//! - [`tape`]: the fuzzer's bytes as a sequence of steps.
//! - [`fixture`]: files whose content and keys both sides know.
//! - [`peer`]: a peer whose messages the fuzzer chooses, and whose keys this side holds.
//! - [`stream`]: the peer's end of a connection.
//! - [`host`]: the node under test with its simulated disk, and the checks.
//! - [`steps`]: what one step of the target `node` does.

pub mod fixture;
pub mod host;
pub mod peer;
pub mod steps;
pub mod stream;
pub mod tape;

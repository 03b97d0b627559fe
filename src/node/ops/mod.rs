//! Operations: what goes on over several events on behalf of a command. Each owns its state and gets [`Machines`] with
//! every event, so it reaches no other operation.
//!
//! [`Machines`]: super::machines::Machines

pub(super) mod audit;
pub(super) mod download;
pub(super) mod fetch;
pub(super) mod inbound;
pub(super) mod leave;
pub(super) mod place_piece;
pub(super) mod queue;
pub(super) mod read;
pub(super) mod recheck;
pub(super) mod repair;
pub(super) mod scrub;
pub(super) mod seek;
pub(super) mod share;
pub(super) mod shrink;
pub(super) mod stock;
pub(super) mod table;
pub(super) mod upload;
pub(super) mod values;

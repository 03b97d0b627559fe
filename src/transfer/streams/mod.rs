//! Streams to other nodes: one to a peer serves both directions and every purpose.
//!
//! - `handshake`: the proof of identity at both ends.
//! - `session`: the state of one stream: what is being received, what each end has asked of the other, and the deadlines for it.
//! - `outgoing`: the content that waits to be sent to the other end, or is being sent.
//! - `pace`: the rate at which a peer sends.
//! - `table`: which streams are open, to which peer, which nodes are being dialled, and whether there is room for more.
//! - `close`: the reasons for closing, and which of them blame the peer.

pub(super) mod close;
pub(super) mod handshake;
pub(super) mod outgoing;
mod pace;
pub(super) mod session;
pub(super) mod table;

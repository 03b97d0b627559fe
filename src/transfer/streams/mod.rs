//! Streams to other nodes: one to a peer serves both directions and every purpose.
//!
//! - `lifecycle`: a stream is accepted or dialled, authenticated, timed out, closed; its frames go to the wing that they are for.
//! - `handshake`: the proof of identity at both ends.
//! - `session`: the state of one stream: what each end has asked of the other, and the deadlines for it.
//! - `close`: the reasons for closing, and which of them blame the peer.

pub(super) mod close;
pub(super) mod handshake;
pub(super) mod lifecycle;
pub(super) mod session;

//! Hosts that break the protocol: a hook over the traffic of a real node.

use super::blob::Slice;
use crate::io::StreamId;
use crate::time::Instant;
use core::net::SocketAddr;

/// A datagram that the host sends, and its destination.
pub type Sent = (SocketAddr, Vec<u8>);

/// Stands between a real node and the network. The default methods do what an honest host does.
pub trait Adversary {
    /// A datagram arrives. The host sends what the adversary adds to `out`. False keeps the datagram from the node.
    fn incoming(&mut self, _now: Instant, _from: SocketAddr, _bytes: &[u8], _out: &mut Vec<Sent>) -> bool {
        true
    }

    /// The node sends a datagram. The adversary may change it. False drops it.
    fn outgoing(&mut self, _now: Instant, _to: SocketAddr, _bytes: &mut Vec<u8>) -> bool {
        true
    }

    /// The node writes a frame to a stream. The adversary may change it or put others before it. After the handshake, frames are
    /// sealed: a `Reseal` opens them and seals them again.
    fn said(&mut self, _stream: StreamId, _frame: &mut Vec<u8>) {}

    /// Bytes of frames arrive for the node. The adversary may change them. The host sends back what the adversary adds to `back`.
    fn heard(&mut self, _stream: StreamId, _bytes: &mut Vec<u8>, _back: &mut Vec<u8>) {}

    /// The node sends content from a file; the host sends the returned content instead.
    fn content(&mut self, content: Slice) -> Slice {
        content
    }

    /// Whether the host lets its node connect to others.
    fn dials(&self) -> bool {
        true
    }

    /// Whether the adversary is on the path to the host: then the host's node and its users are honest.
    fn is_on_path(&self) -> bool {
        false
    }

    /// Whether the host keeps the pieces that it acknowledged.
    fn keeps_pieces(&self) -> bool {
        true
    }
}

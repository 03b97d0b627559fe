//! What a host does that no honest node would: a hook over its traffic.

use super::blob::Slice;
use crate::io::StreamId;
use crate::time::Instant;
use core::net::SocketAddr;

/// A datagram on its way out.
pub type Sent = (SocketAddr, Vec<u8>);

/// Stands between a real node and the network. Whatever is not overridden is what an honest host does.
pub trait Conduct {
    /// A datagram came. What is put into `out` is sent in the host's name; false keeps the datagram from the node.
    fn incoming(&mut self, _now: Instant, _from: SocketAddr, _bytes: &[u8], _out: &mut Vec<Sent>) -> bool {
        true
    }

    /// The node sends a datagram, which may be changed first; false keeps it from being sent.
    fn outgoing(&mut self, _now: Instant, _to: SocketAddr, _bytes: &mut Vec<u8>) -> bool {
        true
    }

    /// The node writes a frame to a stream; what is put before it is sent in its name.
    fn said(&mut self, _stream: StreamId, _frame: &mut Vec<u8>) {}

    /// The node sends content from a file.
    fn content(&mut self, content: Slice) -> Slice {
        content
    }

    /// Whether pieces that were acknowledged are kept.
    fn keeps_pieces(&self) -> bool {
        true
    }
}

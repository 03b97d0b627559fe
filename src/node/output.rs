//! What a node wants done.

use super::command::{CommandId, Response};
use crate::io::{DialId, DiskId, DiskOp, Extent, Sink, StreamId};
use core::net::SocketAddr;

/// Something that the driver does for the node. Outputs are carried out in the order in which they come.
#[derive(Debug)]
pub enum Output {
    /// Open a TCP stream; then call [`handle_connected`](super::Node::handle_connected) or
    /// [`handle_dial_failed`](super::Node::handle_dial_failed).
    Connect {
        /// What to call it in the answer.
        dial: DialId,
        /// Where to.
        to: SocketAddr,
    },
    /// Queue bytes on a stream.
    Write {
        /// Which.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Queue a part of a file on a stream, after what is queued already.
    SendFile {
        /// Which.
        stream: StreamId,
        /// What.
        extent: Extent,
    },
    /// Put the next raw bytes of a stream into a file, then call [`handle_sunk`](super::Node::handle_sunk).
    Sink {
        /// Which.
        stream: StreamId,
        /// Where to.
        sink: Sink,
    },
    /// Close a stream, once what is queued on it has had a chance to leave. No call answers this.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// Do something on disk, then call [`handle_disk`](super::Node::handle_disk).
    Disk {
        /// What to call it in the answer.
        id: DiskId,
        /// What.
        op: DiskOp,
    },
    /// Answer a command.
    Respond {
        /// Which.
        command: CommandId,
        /// With what.
        response: Response,
    },
    /// The node has left the network and wants to be stopped.
    Stop,
}

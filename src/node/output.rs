//! What a node wants done.

use super::command::{CommandId, Content, Response};
use crate::io::{DiskId, DiskOp, Extent};
use crate::transfer::StreamOutput;

/// Something that the driver does for the node. Outputs are carried out in the order in which they come.
#[derive(Debug)]
pub enum Output {
    /// Do something with a stream. After [`Connect`](StreamOutput::Connect) call
    /// [`handle_connected`](super::Node::handle_connected) or [`handle_dial_failed`](super::Node::handle_dial_failed), after
    /// [`Sink`](StreamOutput::Sink) [`handle_sunk`](super::Node::handle_sunk).
    Stream(StreamOutput),
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
    /// Send this run of a file to the client that gave a command, with a head that says what it is; then call
    /// [`handle_content_sent`](super::Node::handle_content_sent), once or in parts as it leaves. What is sent is
    /// [`Place::Window`](crate::io::Place::Window) and stays until all of it has left.
    Content {
        /// The command.
        command: CommandId,
        /// What it is.
        content: Content,
        /// Where it is.
        extent: Extent,
    },
    /// The node has left the network and wants to be stopped.
    Stop,
}

//! The outputs of a node.

use super::command::{CommandId, Content, Response};
use super::names::HostName;
use crate::io::{DiskId, DiskOp, Extent};

/// An action for the driver, other than on a stream ([`StreamOutput`](super::StreamOutput)). The driver carries outputs out in order.
#[derive(Debug)]
pub enum Output {
    /// Do something on disk, then call [`handle_disk`](super::Node::handle_disk).
    Disk {
        /// The number to pass to [`handle_disk`](super::Node::handle_disk).
        id: DiskId,
        /// The operation.
        op: DiskOp,
    },
    /// Answer a command.
    Respond {
        /// The command.
        command: CommandId,
        /// The answer.
        response: Response,
    },
    /// The file that a command reads is found, and there is room for its window. It comes once, before the first
    /// [`Content`](Output::Content), and also when the file ends before the requested part begins, which is answered next.
    Opened {
        /// The command.
        command: CommandId,
        /// The length of the file in bytes.
        file_length: u64,
    },
    /// Send this extent to the client of a command, after a head that describes it. Call
    /// [`handle_content_sent`](super::Node::handle_content_sent) as its bytes leave, once or in parts. The file is a
    /// [`Place::Window`](crate::io::Place::Window), and stays until all of it has left.
    Content {
        /// The command.
        command: CommandId,
        /// Its description.
        content: Content,
        /// The extent.
        extent: Extent,
    },
    /// Send this datagram from the node's UDP socket to the group of discovery, on each link of this machine. What other nodes send
    /// there goes to [`handle_here`](super::Node::handle_here).
    Here {
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Resolve the name of a bootstrap node without blocking, then call [`handle_resolved`](super::Node::handle_resolved).
    Resolve {
        /// The name.
        name: HostName,
    },
    /// The node has left the network: stop the program.
    Stop,
}

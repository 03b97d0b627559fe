//! The events of a world. The queue holds each one until its time.

use crate::node::command::{CommandId, Content, Response};

/// An event inside the world.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The packet with this number arrives.
    Datagram(u32),
    /// The packet with this number arrives through the group of the host's LAN.
    Here(u32),
    /// The deadline of a host's node may be due.
    Wake(u32),
    /// The oldest operation of a host's disk ends.
    Disk {
        /// The host.
        host: u32,
        /// The run of the host that submitted the operation. Operations of earlier runs are lost.
        run: u32,
    },
    /// An event of a connection.
    Stream(StreamEvent),
    /// An alarm that [`World::alarm`](super::World::alarm) set, with its name.
    Alarm(u64),
}

/// One end of a connection: the connection's number, and whether it is the end that connected.
pub(super) type EndId = (u32, bool);

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEvent {
    /// The accepting end sees the new connection.
    Opened(u32),
    /// The connecting end sees that the connection is established.
    Connected(u32),
    /// The connection could not be made.
    Refused(u32),
    /// An end may send its next segment.
    Pump(EndId),
    /// A segment arrives at an end.
    Arrive(EndId),
    /// An end sees that the other end is gone.
    Reset(EndId),
}

/// An event that the world reports to its caller.
#[derive(Clone, PartialEq, Debug)]
pub enum WorldEvent {
    /// An alarm that [`World::alarm`](super::World::alarm) set is due.
    Alarm(u64),
    /// A command is answered: the host, the command, the answer.
    Answer(usize, CommandId, Response),
    /// A node delivers content for a command: the host, the command, the range, and the bytes if the disk could read them.
    Content(usize, CommandId, Content, Option<Vec<u8>>),
    /// A node has left the network and asks to be stopped.
    Stopped(usize),
}

//! Everything that will happen in a world: the queue holds it until its time comes.

use crate::node::command::{CommandId, Content, Response};

/// An event inside the world.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The packet with this number arrives.
    Datagram(u32),
    /// A host's deadline may have come.
    Wake(u32),
    /// The oldest operation of a host's disk ends.
    Disk {
        /// The host.
        host: u32,
        /// Its run: what an earlier run began is lost.
        run: u32,
    },
    /// Something happens to a connection.
    Stream(StreamEvent),
    /// The time that [`World::alarm`](super::World::alarm) named.
    Alarm(u64),
}

/// One end of a connection: the connection's number, and whether it is the end that connected.
pub(super) type EndId = (u32, bool);

/// An event of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEvent {
    /// The accepting end learns of the connection.
    Opened(u32),
    /// The connecting end learns that the connection is there.
    Connected(u32),
    /// The connection could not be made.
    Refused(u32),
    /// An end may send its next segment.
    Pump(EndId),
    /// A segment arrives at an end.
    Arrive(EndId),
    /// An end learns that the other is gone.
    Reset(EndId),
}

/// An event that the world reports to its caller.
#[derive(Clone, PartialEq, Debug)]
pub enum WorldEvent {
    /// A time has come that [`World::alarm`](super::World::alarm) named.
    Alarm(u64),
    /// A command is answered: the host, the command, the answer.
    Answer(usize, CommandId, Response),
    /// Content came for a command: the host, the command, the range, and the bytes when the disk gave them.
    Content(usize, CommandId, Content, Option<Vec<u8>>),
    /// A node has left the network and asks to be stopped.
    Stopped(usize),
}

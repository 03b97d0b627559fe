//! What happens at a node, for programs that watch it.

use super::{MemberState, Response, TroubleKind, path};
use crate::id::{Key, NodeId};
use crate::node::command::Reply;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Something that happened at a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A file was fetched for a client.
    Downloaded {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// Its path.
        #[serde(with = "path")]
        path: PathBuf,
        /// The number of nodes that sent content.
        sources: u32,
    },
    /// A file was put by a client, and copied.
    Stored {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// The copies of the piece with the fewest.
        copies: u32,
        /// The number of copies requested.
        replicas: u8,
        /// Whether the copies are a quorum.
        quorum: bool,
    },
    /// A file is no longer shared.
    Removed {
        /// Its address.
        hash: Key,
    },
    /// A member was met, or is back.
    Joined {
        /// The member.
        id: NodeId,
        /// Its address.
        address: SocketAddr,
    },
    /// A member does not answer any more, or said goodbye.
    Departed {
        /// The member.
        id: NodeId,
        /// Its address.
        address: SocketAddr,
        /// Its state: unresponsive, evicted or left.
        state: MemberState,
    },
    /// Pieces that this node had stored no longer verified, and were dropped so that repair replaces them.
    Lost {
        /// The number of pieces.
        pieces: u64,
    },
    /// Something is wrong with the node.
    Alarm {
        /// What it is.
        kind: TroubleKind,
        /// The same in words.
        message: String,
    },
    /// It is not wrong any more.
    AlarmOver {
        /// What it was.
        kind: TroubleKind,
    },
}

/// An event with its number: they are counted from 1 while a node runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Numbered {
    /// The number.
    pub number: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl Event {
    /// The event that an answer to a client's command is, if it is one.
    pub fn of(response: &Response) -> Option<Event> {
        match response {
            Response::Done(Reply::Get { hash, length, path, sources }) => Some(Event::Downloaded {
                hash: *hash,
                length: *length,
                path: path.clone(),
                sources: *sources,
            }),
            &Response::Done(Reply::Put { hash, length, copies, replicas, quorum, .. }) => {
                Some(Event::Stored { hash, length, copies, replicas, quorum })
            }
            &Response::Done(Reply::Remove { hash }) => Some(Event::Removed { hash }),
            _ => None,
        }
    }
}

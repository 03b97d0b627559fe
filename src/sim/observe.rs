//! The state of a node that checks read beyond its datagrams and its disk. Checks read it only through this file.

use crate::gossip::Liveness;
use crate::id::NodeId;
use crate::node::Node;

/// A node's view of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// The member is not contacted: it has not answered this node yet.
    Unproven,
    /// The member is live.
    Live,
    /// The member has been silent for a short time.
    Suspect,
    /// The member is silent, and probes failed.
    Unresponsive,
    /// The node gave the member up.
    Evicted,
    /// The member said goodbye.
    Left,
}

/// Functions that read a node. `None` means that the node does not tell. Checks that need the answer then count nothing.
#[derive(Clone, Copy)]
pub struct Observer {
    /// The node's view of a member.
    pub view: fn(&Node, &NodeId) -> Option<View>,
    /// The sequence number of the newest state of a member that the node has.
    pub known_sequence: fn(&Node, &NodeId) -> Option<u64>,
    /// The sequence number of the node's own state.
    pub own_sequence: fn(&Node) -> Option<u64>,
}

impl Observer {
    /// The observer for the present node implementation.
    pub const fn present() -> Observer {
        Observer { view, known_sequence, own_sequence: |node| Some(node.membership().sequence()) }
    }
}

fn view(node: &Node, id: &NodeId) -> Option<View> {
    let member = node.membership().member(id)?;
    Some(match member.liveness {
        Liveness::Unproven => View::Unproven,
        Liveness::Live => View::Live,
        Liveness::Suspect => View::Suspect,
        Liveness::Unresponsive => View::Unresponsive,
        Liveness::Evicted => View::Evicted,
        Liveness::Left { .. } => View::Left,
    })
}

fn known_sequence(node: &Node, id: &NodeId) -> Option<u64> {
    node.membership().member(id)?.state.map(|state| state.sequence())
}

//! What the checks have to know of a node beyond its datagrams and its disk: the one place that reads it.

use crate::gossip::Liveness;
use crate::id::NodeId;
use crate::node::Node;

/// What a node thinks of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// It was told of it and never exchanged anything with it.
    Unproven,
    /// It is there.
    Live,
    /// It is silent, not yet long.
    Suspect,
    /// It is silent, and probes failed.
    Unresponsive,
    /// It was given up.
    Evicted,
    /// It said goodbye.
    Left,
}

/// How a node is asked. `None` in an answer is "this node does not tell", and checks that need it count nothing.
#[derive(Clone, Copy)]
pub struct Observer {
    /// What the node thinks of a member.
    pub view: fn(&Node, &NodeId) -> Option<View>,
    /// The sequence number of the newest state that the node has of a member.
    pub known_sequence: fn(&Node, &NodeId) -> Option<u64>,
    /// The sequence number of the node's own state.
    pub own_sequence: fn(&Node) -> Option<u64>,
}

impl Observer {
    /// The observer for the node as it is.
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

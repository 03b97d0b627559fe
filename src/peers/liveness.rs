//! The liveness of a node. The failure detector of membership decides it; the other machines are told.

/// Whether a node is alive, as far as this node has found out by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// Not contacted: others named it, or it sent a request, but it has not answered this node yet.
    Unproven,
    /// It answers.
    Live,
    /// It is silent, and answered neither this node nor the relays.
    Suspect,
    /// It has been a silent suspect for too long.
    Unresponsive,
    /// It has been silent for so long that it counts as gone.
    Evicted,
    /// It said goodbye.
    Left {
        /// Whether it will not come back.
        for_good: bool,
    },
}

impl Liveness {
    /// Whether it counts as present: it answers, or has been silent for a short time.
    pub fn is_there(self) -> bool {
        matches!(self, Liveness::Live | Liveness::Suspect)
    }

    /// Whether it has a place in the neighbourhood: it was contacted, and has neither been evicted nor left for good.
    pub fn is_neighbour(self) -> bool {
        use Liveness::*;
        matches!(self, Live | Suspect | Unresponsive | Left { for_good: false })
    }

    /// Whether it was contacted, and is silent or has left since: it is probed only rarely.
    pub fn is_away(self) -> bool {
        !self.is_there() && self != Liveness::Unproven
    }

    /// Whether it counts as gone for good.
    pub fn is_over(self) -> bool {
        matches!(self, Liveness::Evicted | Liveness::Left { for_good: true })
    }
}

//! What this node knows of an authenticated datagram besides its sender.

/// Whether a datagram is fresh, and whether its sender receives at the address that it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It answers a request of this node, or carries a valid token: it is fresh, and its address is validated.
    Validated,
    /// It has a new number in the sender's present epoch: it is fresh, from an address that is not validated.
    Fresh,
    /// It has no token and is of an epoch that this node does not know. It may be the first request of a new run, or a recording of
    /// an old one. It is answered, but says nothing about its sender.
    Unproven,
}

impl Standing {
    /// Whether it is no recording of an earlier datagram.
    pub fn is_fresh(self) -> bool {
        self != Standing::Unproven
    }

    /// Whether its sender receives at the address that it came from.
    pub fn is_validated(self) -> bool {
        self == Standing::Validated
    }
}

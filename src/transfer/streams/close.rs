//! Why this node closes a stream, and whether the peer is blamed for it.

use crate::wire::Refused;

/// Why this node closes a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum CloseReason {
    /// A frame that cannot be parsed.
    Malformed(Refused),
    /// A frame that the peer did not write, or not as the next one: something on the path changed the stream. It says no more
    /// about the peer than a stream that breaks.
    Tampered,
    /// The handshake failed.
    Handshake(HandshakeError),
    /// A well-formed frame that the state of the stream does not allow.
    Unexpected,
    /// The handshake took too long.
    HandshakeSilent,
    /// Nothing has moved on the stream for too long.
    Idle,
    /// A requested piece makes no progress.
    Stalled,
    /// Content moves too slowly, in either direction.
    Slow,
    /// The other end does not read.
    Unread,
    /// The content of an accepted offer does not arrive.
    OfferSilent,
    /// The peer does not answer an offer of this node.
    PushSilent,
    /// The peer is banned from everything.
    Shunned,
    /// Another source sends the same piece sooner.
    Overtaken,
    /// A piece is arriving for a download that has ended.
    Withdrawn,
    /// The stream is idle, and another needs its place.
    Displaced,
    /// The other end has not authenticated itself, and another stream needs the place.
    UnauthenticatedDisplaced,
    /// The other end's party has the most streams, and another party needs a place.
    Crowded,
    /// The peer has opened a newer stream.
    Surplus,
    /// This node could not write what arrived.
    SinkFailed,
    /// This node could not read what it had begun to send.
    SendFailed,
}

impl CloseReason {
    /// Whether this counts as a failure of the peer: a download that still waited for it asks it later than others.
    pub(in crate::transfer) fn blames_peer(self) -> bool {
        use CloseReason::*;
        match self {
            Withdrawn | Displaced | Crowded | Surplus | SinkFailed => false,
            Malformed(_)
            | Tampered
            | Handshake(_)
            | Unexpected
            | HandshakeSilent
            | Idle
            | Stalled
            | Slow
            | Unread
            | OfferSilent
            | PushSilent
            | Shunned
            | Overtaken
            | UnauthenticatedDisplaced
            | SendFailed => true,
        }
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum HandshakeError {
    /// The other end is in another network.
    Network,
    /// The other end has this node's own key.
    OwnKey,
    /// The other end is another node than the one that was dialled.
    Identity,
    /// The signature does not verify.
    Signature,
    /// The ephemeral key gives no secret.
    Key,
    /// A frame out of order.
    Order,
    /// The other end's key does not show the work that the network asks for.
    Work,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_blamed_for_closes_that_this_node_caused() {
        use CloseReason::*;
        for reason in [Withdrawn, Displaced, Crowded, Surplus, SinkFailed] {
            assert!(!reason.blames_peer(), "{reason:?}");
        }
        for reason in [Malformed(Refused::Kind), Handshake(HandshakeError::Order), Unexpected, Stalled, Slow]
        {
            assert!(reason.blames_peer(), "{reason:?}");
        }
    }
}

//! Why streams are closed, and whether that speaks against the peer.

use crate::wire::Refused;

/// Why this node closes a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseReason {
    /// A frame that cannot be parsed.
    Malformed(Refused),
    /// The handshake failed.
    Handshake(HandshakeError),
    /// A frame that is well-formed and has no place in what is going on.
    Unexpected,
    /// The handshake took too long.
    HandshakeSilent,
    /// Nothing has happened on the stream for long.
    Idle,
    /// A piece that was asked for makes no progress.
    Stalled,
    /// Content goes too slowly, either way.
    Slow,
    /// The other end does not read.
    Unread,
    /// The content of an accepted offer does not come.
    OfferSilent,
    /// An offer of this node is not answered.
    PushSilent,
    /// The peer is banned from everything.
    Shunned,
    /// Another source brings the same piece sooner.
    Overtaken,
    /// A piece is coming for a download that has ended.
    Withdrawn,
    /// Others need the place, and nothing is going on here.
    Displaced,
    /// Others need the place, and the other end has not proven its identity.
    UnprovenDisplaced,
    /// Others need the place, and the other end's party has the most streams.
    Crowded,
    /// The peer has opened a newer stream.
    Surplus,
    /// What came could not be written here.
    SinkFailed,
    /// What was promised could not be read here.
    SendFailed,
}

impl CloseReason {
    /// Whether the peer is asked later than others for what it still owed over the stream.
    pub(super) fn blames_peer(self) -> bool {
        use CloseReason::*;
        match self {
            Withdrawn | Displaced | Crowded | Surplus | SinkFailed => false,
            Malformed(_) | Handshake(_) | Unexpected | HandshakeSilent | Idle | Stalled | Slow | Unread
            | OfferSilent | PushSilent | Shunned | Overtaken | UnprovenDisplaced | SendFailed => true,
        }
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandshakeError {
    /// The other end is in another network.
    Network,
    /// The other end has this node's own key.
    OwnKey,
    /// The other end is another node than the one that was dialled.
    Identity,
    /// The proof does not fit.
    Signature,
    /// A frame came out of turn.
    Order,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_blamed_for_what_this_node_needed_or_failed_to_write() {
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

//! What the transfer machine counts.

use super::close::{CloseReason, HandshakeError};
use crate::counters::counters;
use crate::wire::Refused;

counters! {
    /// What the transfer machine counts.
    pub struct TransferCounters {
        /// Frames refused for their length.
        frame_length = "frame_length",
        /// Frames of another version of the protocol.
        frame_version = "frame_version",
        /// Frames of another network.
        frame_network = "frame_network",
        /// Frames of an unknown kind.
        frame_kind = "frame_kind",
        /// Frames with an authentication that is unknown or not allowed.
        frame_auth = "frame_auth",
        /// Frames with a reserved bit that is set.
        frame_reserved = "frame_reserved",
        /// Frames with a value that no node would send.
        frame_value = "frame_value",
        /// Frames whose sender is another node than it says, or this node.
        frame_sender = "frame_sender",
        /// Frames whose signature does not fit.
        frame_signature = "frame_signature",
        /// Frames that are well-formed and have no place in what is going on.
        frame_unexpected = "frame_unexpected",
        /// Handshakes with a node of another network.
        handshake_network = "handshake_network",
        /// Handshakes of this node with itself.
        handshake_self = "handshake_self",
        /// Handshakes with another node than the one that was dialled.
        handshake_identity = "handshake_identity",
        /// Handshakes whose proof does not fit.
        handshake_signature = "handshake_signature",
        /// Handshakes with a frame out of turn.
        handshake_order = "handshake_order",
        /// Handshakes that took too long.
        handshake_silent = "handshake_silent",
        /// Streams that other nodes opened.
        stream_accepted = "stream_accepted",
        /// Streams that this node opened.
        stream_connected = "stream_connected",
        /// Streams whose other end proved its identity.
        stream_proven = "stream_proven",
        /// Streams that found no place.
        stream_refused = "stream_refused",
        /// Streams that broke or that the other end closed.
        stream_closed = "stream_closed",
        /// Streams closed because nothing happened on them.
        stream_idle = "stream_idle",
        /// Streams closed because a piece that was asked for made no progress.
        stream_stalled = "stream_stalled",
        /// Streams closed because content went too slowly.
        stream_slow = "stream_slow",
        /// Streams closed because the other end did not read.
        stream_unread = "stream_unread",
        /// Streams closed because a piece was coming for a download that had ended.
        stream_withdrawn = "stream_withdrawn",
        /// Streams closed because another source brought the same piece sooner.
        stream_overtaken = "stream_overtaken",
        /// Streams closed to make room for others.
        stream_displaced = "stream_displaced",
        /// Streams closed because their party had the most of them.
        stream_crowded = "stream_crowded",
        /// Streams closed because the peer had opened a newer one.
        stream_surplus = "stream_surplus",
        /// Streams closed before the proof to make room for others.
        unproven_displaced = "unproven_displaced",
        /// Streams closed because content could not be written.
        sink_failed = "sink_failed",
        /// Streams closed because content could not be read.
        send_failed = "send_failed",
        /// Streams closed because the peer is banned from everything.
        peer_shunned = "peer_shunned",
        /// Attempts to connect that failed.
        dial_failed = "dial_failed",
        /// Requests of peers for pieces that are not here.
        request_refused = "request_refused",
        /// Requests of peers refused because they had too many.
        request_busy = "request_busy",
        /// Requests of peers refused because others came first for too long.
        request_choked = "request_choked",
        /// Requests of this node that a busy peer refused.
        source_busy = "source_busy",
        /// Requests of this node that a peer refused for another reason.
        source_refused = "source_refused",
        /// Pieces of wrong content that peers sent.
        source_bad = "source_bad",
        /// Chunks that came and verified.
        chunk_received = "chunk_received",
        /// Chunks that another program may have changed while they were written.
        chunk_doubtful = "chunk_doubtful",
        /// Chunks asked of a second source because the first made no progress.
        chunk_asked_again = "chunk_asked_again",
        /// Chunks asked of another source because many others came before them.
        chunk_asked_elsewhere = "chunk_asked_elsewhere",
        /// Pieces that came and that nothing needed any more.
        block_unneeded = "block_unneeded",
        /// Offers of pieces that no file has.
        offer_invalid = "offer_invalid",
        /// Offers of pieces of which the peer last sent other content.
        offer_banned = "offer_banned",
        /// Offers refused because the peer had too many under way.
        offer_busy = "offer_busy",
        /// Offers that the node refused.
        offer_refused = "offer_refused",
        /// Streams closed because an accepted offer was not followed by its content.
        offer_silent = "offer_silent",
        /// Offered pieces that came and verified.
        offer_arrived = "offer_arrived",
        /// Offered pieces that came and were other content.
        offer_mismatch = "offer_mismatch",
        /// Copies that other nodes have.
        push_done = "push_done",
        /// Copies that failed.
        push_failed = "push_failed",
        /// Streams closed because an offer of this node was not answered.
        push_silent = "push_silent",
        /// Questions of peers about copies.
        inspect_asked = "inspect_asked",
        /// Questions about copies that were answered.
        inspect_done = "inspect_done",
        /// Questions about copies that were not.
        inspect_failed = "inspect_failed",
        /// Announcements of peers that they follow a file, or no longer do, which were known.
        follow_repeated = "follow_repeated",
        /// Announcements of peers that they follow a file, over their bound.
        follow_refused = "follow_refused",
        /// Contacts of peers for a file that this node does not follow there.
        sources_unasked = "sources_unasked",
        /// Reports to peers that a piece does not verify.
        report_sent = "report_sent",
        /// Reports of peers that a piece does not verify.
        report_received = "report_received",
        /// Reports of peers about pieces that were not sent to them lately.
        report_unfounded = "report_unfounded",
        /// Reports of peers over their bound.
        report_over_budget = "report_over_budget",
    }
}

impl TransferCounters {
    /// The count of streams closed for this reason.
    pub(super) fn closed(&mut self, reason: CloseReason) -> &mut u64 {
        match reason {
            CloseReason::Malformed(refused) => self.malformed(refused),
            CloseReason::Handshake(error) => self.handshake(error),
            CloseReason::Unexpected => &mut self.frame_unexpected,
            CloseReason::HandshakeSilent => &mut self.handshake_silent,
            CloseReason::Idle => &mut self.stream_idle,
            CloseReason::Stalled => &mut self.stream_stalled,
            CloseReason::Slow => &mut self.stream_slow,
            CloseReason::Unread => &mut self.stream_unread,
            CloseReason::OfferSilent => &mut self.offer_silent,
            CloseReason::PushSilent => &mut self.push_silent,
            CloseReason::Shunned => &mut self.peer_shunned,
            CloseReason::Overtaken => &mut self.stream_overtaken,
            CloseReason::Withdrawn => &mut self.stream_withdrawn,
            CloseReason::Displaced => &mut self.stream_displaced,
            CloseReason::UnprovenDisplaced => &mut self.unproven_displaced,
            CloseReason::Crowded => &mut self.stream_crowded,
            CloseReason::Surplus => &mut self.stream_surplus,
            CloseReason::SinkFailed => &mut self.sink_failed,
            CloseReason::SendFailed => &mut self.send_failed,
        }
    }

    fn malformed(&mut self, refused: Refused) -> &mut u64 {
        match refused {
            Refused::Length => &mut self.frame_length,
            Refused::Version => &mut self.frame_version,
            Refused::Network => &mut self.frame_network,
            Refused::Kind => &mut self.frame_kind,
            Refused::Auth => &mut self.frame_auth,
            Refused::Reserved => &mut self.frame_reserved,
            Refused::Value => &mut self.frame_value,
            Refused::Sender => &mut self.frame_sender,
            Refused::Signature => &mut self.frame_signature,
        }
    }

    fn handshake(&mut self, error: HandshakeError) -> &mut u64 {
        match error {
            HandshakeError::Network => &mut self.handshake_network,
            HandshakeError::OwnKey => &mut self.handshake_self,
            HandshakeError::Identity => &mut self.handshake_identity,
            HandshakeError::Signature => &mut self.handshake_signature,
            HandshakeError::Order => &mut self.handshake_order,
        }
    }
}

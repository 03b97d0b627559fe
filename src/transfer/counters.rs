//! The counters of the transfer machine.

use super::streams::close::{CloseReason, HandshakeError};
use crate::counters::counters;
use crate::wire::Refused;

counters! {
    /// The counters of the transfer machine.
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
        /// Frames whose sender is another node than it claims to be, or this node itself.
        frame_sender = "frame_sender",
        /// Frames whose signature does not verify.
        frame_signature = "frame_signature",
        /// Frames whose MAC does not verify: something on the path changed, repeated, left out or invented them.
        frame_mac = "frame_mac",
        /// Well-formed frames that the state of the stream does not allow.
        frame_unexpected = "frame_unexpected",
        /// Handshakes with a node of another network.
        handshake_network = "handshake_network",
        /// Handshakes of this node with itself.
        handshake_self = "handshake_self",
        /// Handshakes with another node than the one that was dialled.
        handshake_identity = "handshake_identity",
        /// Handshakes whose signature does not verify.
        handshake_signature = "handshake_signature",
        /// Handshakes with a key that gives no secret.
        handshake_key = "handshake_key",
        /// Handshakes with a frame out of order.
        handshake_order = "handshake_order",
        /// Streams closed because the other end's key does not show the work that the network asks for.
        handshake_work = "handshake_work",
        /// Handshakes that took too long.
        handshake_silent = "handshake_silent",
        /// Streams that other nodes opened.
        stream_accepted = "stream_accepted",
        /// Streams that this node opened.
        stream_connected = "stream_connected",
        /// Streams whose other end authenticated itself.
        stream_proven = "stream_proven",
        /// Streams refused for want of a place.
        stream_refused = "stream_refused",
        /// Streams that broke or that the other end closed.
        stream_closed = "stream_closed",
        /// Streams closed because they were idle.
        stream_idle = "stream_idle",
        /// Streams closed because a requested piece made no progress.
        stream_stalled = "stream_stalled",
        /// Streams closed because content moved too slowly.
        stream_slow = "stream_slow",
        /// Streams closed because the other end did not read.
        stream_unread = "stream_unread",
        /// Streams closed because a piece was arriving for a download that had ended.
        stream_withdrawn = "stream_withdrawn",
        /// Streams closed because another source sent the same piece sooner.
        stream_overtaken = "stream_overtaken",
        /// Idle streams closed to make room for others.
        stream_displaced = "stream_displaced",
        /// Streams closed because their party had the most streams.
        stream_crowded = "stream_crowded",
        /// Streams closed because the peer had opened a newer one.
        stream_surplus = "stream_surplus",
        /// Streams closed before they were authenticated, to make room for others.
        unproven_displaced = "unproven_displaced",
        /// Streams closed because this node could not write content.
        sink_failed = "sink_failed",
        /// Streams closed because this node could not read content.
        send_failed = "send_failed",
        /// Streams closed because the peer is banned from everything.
        peer_shunned = "peer_shunned",
        /// Attempts to connect that failed.
        dial_failed = "dial_failed",
        /// Requests of peers for pieces that are not here.
        request_refused = "request_refused",
        /// Requests of peers refused because the peer had too many.
        request_busy = "request_busy",
        /// Requests of peers refused because they waited too long for a slot.
        request_choked = "request_choked",
        /// Requests of this node that a peer refused because it was busy.
        source_busy = "source_busy",
        /// Requests of this node that a peer refused for another reason.
        source_refused = "source_refused",
        /// Pieces from peers that do not verify.
        source_bad = "source_bad",
        /// Chunks that arrived and verify.
        chunk_received = "chunk_received",
        /// Chunks that another program may have changed while they were written.
        chunk_doubtful = "chunk_doubtful",
        /// Chunks requested from a second source because the first made no progress.
        chunk_asked_again = "chunk_asked_again",
        /// Chunks requested from another source because too many others were before them.
        chunk_asked_elsewhere = "chunk_asked_elsewhere",
        /// Pieces that arrived and were not needed any more.
        block_unneeded = "block_unneeded",
        /// Offers of pieces that no file can have.
        offer_invalid = "offer_invalid",
        /// Offers of pieces for which the peer last sent other content.
        offer_banned = "offer_banned",
        /// Offers of peers refused because the peer had too many under way.
        offer_busy = "offer_busy",
        /// Offers that the node refused.
        offer_refused = "offer_refused",
        /// Streams closed because the content of an accepted offer did not arrive.
        offer_silent = "offer_silent",
        /// Offered pieces that arrived and verify.
        offer_arrived = "offer_arrived",
        /// Offered pieces that arrived and do not verify.
        offer_mismatch = "offer_mismatch",
        /// Copies that other nodes have made durable.
        push_done = "push_done",
        /// Copies that failed.
        push_failed = "push_failed",
        /// Streams closed because an offer of this node was not answered.
        push_silent = "push_silent",
        /// Inspections by peers.
        inspect_asked = "inspect_asked",
        /// Inspections of this node that were answered.
        inspect_done = "inspect_done",
        /// Inspections of this node that were not answered.
        inspect_failed = "inspect_failed",
        /// Challenges of peers to prove that a piece is here.
        proof_asked = "proof_asked",
        /// Challenges of this node that were answered with the right proof.
        proof_done = "proof_done",
        /// Challenges of this node that were answered with a wrong proof or none.
        proof_wrong = "proof_wrong",
        /// Challenges of this node that were not answered, or about pieces that could not be read here.
        proof_failed = "proof_failed",
        /// Messages of peers that they follow a file, or no longer do, that changed nothing.
        follow_repeated = "follow_repeated",
        /// Messages of peers that they follow a file, over the bound.
        follow_refused = "follow_refused",
        /// Sources that peers named and whose keys do not show the work that the network asks for.
        sources_without_work = "sources_without_work",
        /// Sources that peers named for a file that this node does not follow there.
        sources_unasked = "sources_unasked",
        /// Reports to peers that a piece does not verify.
        report_sent = "report_sent",
        /// Reports of peers that a piece does not verify.
        report_received = "report_received",
        /// Reports of peers about pieces that were not sent to them recently.
        report_unfounded = "report_unfounded",
        /// Reports of peers over the bound.
        report_over_budget = "report_over_budget",
    }
}

impl TransferCounters {
    /// The counter of streams closed for this reason.
    pub(super) fn closed(&mut self, reason: CloseReason) -> &mut u64 {
        match reason {
            CloseReason::Malformed(refused) => self.malformed(refused),
            CloseReason::Tampered => &mut self.frame_mac,
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
            CloseReason::UnauthenticatedDisplaced => &mut self.unproven_displaced,
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
            Refused::Mac => &mut self.frame_mac,
            // Frames carry no identity: the handshake looks at it.
            Refused::Work => &mut self.handshake_work,
        }
    }

    fn handshake(&mut self, error: HandshakeError) -> &mut u64 {
        match error {
            HandshakeError::Network => &mut self.handshake_network,
            HandshakeError::OwnKey => &mut self.handshake_self,
            HandshakeError::Identity => &mut self.handshake_identity,
            HandshakeError::Signature => &mut self.handshake_signature,
            HandshakeError::Key => &mut self.handshake_key,
            HandshakeError::Order => &mut self.handshake_order,
            HandshakeError::Work => &mut self.handshake_work,
        }
    }
}

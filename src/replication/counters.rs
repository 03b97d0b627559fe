//! What replication counts.

use crate::counters::counters;

counters! {
    /// What replication counts.
    pub struct ReplicationCounters {
        /// Copies that other nodes took and wrote.
        copied = "repair_copied",
        /// Bytes of those.
        copied_bytes = "repair_copied_bytes",
        /// Copies that the other node had already.
        copy_had = "repair_copy_had",
        /// Copies put off because the piece was already arriving there.
        copy_busy = "repair_copy_busy",
        /// Copies refused.
        copy_refused = "repair_copy_refused",
        /// Copies that broke off.
        copy_failed = "repair_copy_failed",
        /// Repairs given up because their cause was gone.
        abandoned = "repair_abandoned",
        /// Pieces handed to the nodes closest to them, far from this one.
        placed = "repair_placed",
        /// Surplus pieces dropped.
        dropped = "repair_dropped",
        /// Comparisons with a neighbour that came to their end.
        reconciled = "reconcile_done",
        /// Comparisons that were given up: no answer, or answers without an end.
        reconcile_failed = "reconcile_failed",
        /// Keys that a comparison showed to be missing at a neighbour that was taken for a holder.
        lost = "reconcile_lost",
        /// Datagrams of comparisons sent, answers included.
        datagrams = "reconcile_datagrams",
        /// Bytes of those.
        datagram_bytes = "reconcile_bytes",
        /// Requests of neighbours answered.
        answered = "reconcile_answered",
        /// Requests refused: not from a neighbour.
        not_neighbour = "reconcile_not_neighbour",
        /// Requests put off: the neighbour has asked for enough.
        answer_later = "reconcile_later",
        /// Answers that belong to no request, or contradict it.
        unexpected = "reconcile_unexpected",
        /// Requests that were never answered.
        unanswered = "reconcile_unanswered",
        /// Pieces that found no place in the table.
        not_tracked = "repair_not_tracked",
        /// Times that this node took itself for cut off.
        cut_off = "repair_cut_off",
    }
}

//! The counters of replication.

use crate::counters::counters;

counters! {
    /// The counters of replication.
    pub struct ReplicationCounters {
        /// Copies that other nodes accepted and made durable.
        copied = "repair_copied",
        /// Bytes of these copies.
        copied_bytes = "repair_copied_bytes",
        /// Copies that the other node had already.
        copy_had = "repair_copy_had",
        /// Copies put off because the piece was already arriving there.
        copy_busy = "repair_copy_busy",
        /// Copies that the other node refused.
        copy_refused = "repair_copy_refused",
        /// Copies that broke off.
        copy_failed = "repair_copy_failed",
        /// Repairs abandoned because their cause was gone.
        abandoned = "repair_abandoned",
        /// Misplaced pieces that were placed at the nodes closest to them.
        placed = "repair_placed",
        /// Holders of surplus pieces that did not prove that they have them.
        unproven = "repair_unproven",
        /// Surplus pieces dropped.
        dropped = "repair_dropped",
        /// Comparisons with a neighbour that completed.
        reconciled = "reconcile_done",
        /// Comparisons that failed: no answer, or answers without end.
        reconcile_failed = "reconcile_failed",
        /// Keys that a comparison found missing at a neighbour that counted as a holder.
        lost = "reconcile_lost",
        /// Datagrams of comparisons sent, including answers.
        datagrams = "reconcile_datagrams",
        /// Bytes of these datagrams.
        datagram_bytes = "reconcile_bytes",
        /// Requests of neighbours answered.
        answered = "reconcile_answered",
        /// Requests refused because the sender is no neighbour.
        not_neighbour = "reconcile_not_neighbour",
        /// Requests put off because the neighbour had used up its work budget.
        answer_later = "reconcile_later",
        /// Answers that match no outstanding request, or contradict it.
        unexpected = "reconcile_unexpected",
        /// Requests that were never answered.
        unanswered = "reconcile_unanswered",
        /// Pieces for which the table had no room.
        not_tracked = "repair_not_tracked",
        /// Times that this node suspected that it is partitioned.
        cut_off = "repair_cut_off",
    }
}

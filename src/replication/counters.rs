//! What the machine counts.

/// The things that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// Copies that other nodes took and wrote.
    Copied,
    /// Bytes of those.
    CopiedBytes,
    /// Copies that the other node had already.
    CopyHad,
    /// Copies put off because the piece was already arriving there.
    CopyBusy,
    /// Copies refused.
    CopyRefused,
    /// Copies that broke off.
    CopyFailed,
    /// Repairs given up because their cause was gone.
    Abandoned,
    /// Pieces handed to the nodes closest to them, far from this one.
    Placed,
    /// Surplus pieces dropped.
    Dropped,
    /// Comparisons with a neighbour that came to their end.
    Reconciled,
    /// Comparisons that were given up: no answer, or answers without an end.
    ReconcileFailed,
    /// Keys that a comparison showed to be missing at a neighbour that was taken for a holder.
    Lost,
    /// Datagrams of comparisons sent, answers included.
    Datagrams,
    /// Bytes of those.
    DatagramBytes,
    /// Requests of neighbours answered.
    Answered,
    /// Requests refused: not from a neighbour.
    NotNeighbour,
    /// Requests put off: the neighbour has asked for enough.
    AnswerLater,
    /// Answers that belong to no request, or contradict it.
    Unexpected,
    /// Requests that were never answered.
    Unanswered,
    /// Pieces that found no place in the table.
    NotTracked,
    /// Times that this node took itself for cut off.
    CutOff,
}

const NAMES: [&str; 21] = [
    "repair_copied",
    "repair_copied_bytes",
    "repair_copy_had",
    "repair_copy_busy",
    "repair_copy_refused",
    "repair_copy_failed",
    "repair_abandoned",
    "repair_placed",
    "repair_dropped",
    "reconcile_done",
    "reconcile_failed",
    "reconcile_lost",
    "reconcile_datagrams",
    "reconcile_bytes",
    "reconcile_answered",
    "reconcile_not_neighbour",
    "reconcile_later",
    "reconcile_unexpected",
    "reconcile_unanswered",
    "repair_not_tracked",
    "repair_cut_off",
];

const _: () = assert!(Counter::CutOff as usize + 1 == NAMES.len());

/// One number for each [`Counter`].
#[derive(Default)]
pub(super) struct Counters([u64; NAMES.len()]);

impl Counters {
    /// Counts one.
    pub(super) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub(super) fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// Every counter with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }
}

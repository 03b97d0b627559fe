//! Questions to neighbours that wait for an answer: at most one to each neighbour at a time.

use crate::id::Key;
use crate::time::{Duration, Instant};
use crate::wire::reconcile::WireRange;
use core::net::SocketAddr;

/// The first answer is waited for so long, each further one twice as long as the one before.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A question is sent so many times at most.
const TRIES_MAX: u32 = 4;

/// What a question is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A step of a comparison.
    Compare,
    /// To see whether the neighbour has these pieces, one for each range.
    Look(Vec<Key>),
}

/// A question on its way.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) transaction: u64,
    pub(super) to: SocketAddr,
    pub(super) purpose: Purpose,
    pub(super) salt: u64,
    pub(super) ranges: Vec<WireRange>,
    tries: u32,
    due: Instant,
}

impl Exchange {
    /// A question that is sent now.
    pub(super) fn new(
        now: Instant,
        transaction: u64,
        to: SocketAddr,
        purpose: Purpose,
        salt: u64,
        ranges: Vec<WireRange>,
    ) -> Self {
        Exchange { transaction, to, purpose, salt, ranges, tries: 1, due: now + TIMEOUT }
    }

    /// When it is sent again, or given up.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// It was not answered in time. Whether it is sent again.
    pub(super) fn is_repeated(&mut self, now: Instant) -> bool {
        if self.tries >= TRIES_MAX {
            return false;
        }
        self.due = now + TIMEOUT * (1 << self.tries);
        self.tries += 1;
        true
    }
}

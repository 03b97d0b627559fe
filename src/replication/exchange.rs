//! Outstanding requests: at most one to each neighbour.

use crate::id::Key;
use crate::time::{Duration, Instant};
use crate::wire::reconcile::WireRange;
use core::net::SocketAddr;

/// The timeout of the first attempt. Each further one is twice as long.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Attempts to send a request.
const TRIES_MAX: u32 = 4;

/// The purpose of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A step of a comparison.
    Compare,
    /// To ask whether the neighbour has these pieces, one for each range.
    Look(Vec<Key>),
}

/// An outstanding request.
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
    /// A request that is sent now.
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

    /// When it is repeated or given up.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The attempt timed out. Returns whether the request is repeated.
    pub(super) fn is_repeated(&mut self, now: Instant) -> bool {
        if self.tries >= TRIES_MAX {
            return false;
        }
        self.due = now + TIMEOUT * (1 << self.tries);
        self.tries += 1;
        true
    }
}

//! Each teller's share of the signature checks of states: a member that tells of many nodes, or of nodes that do not exist, uses up
//! its own share and not that of the others.

use crate::id::NodeId;
use crate::peers::rate::{Bucket, Rate};
use crate::time::Instant;

/// Buckets of tellers. Two may share one; which ones is secret.
const BUCKETS: usize = 128;

/// The buckets.
pub(super) struct Tellers {
    rate: Rate,
    buckets: Vec<Bucket>,
    secret: u64,
}

impl Tellers {
    /// A share of `per_second` checks for each teller.
    pub(super) fn new(per_second: u32, secret: u64) -> Self {
        Tellers { rate: Rate::per_second(per_second), buckets: vec![Bucket::FULL; BUCKETS], secret }
    }

    /// Whether a state that this node tells of is checked; then it counts.
    pub(super) fn take(&mut self, now: Instant, teller: &NodeId) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&teller.0, self.secret);
        self.buckets[hash as usize % BUCKETS].take(now, &self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_teller_uses_up_its_own_share_only() {
        let (mut tellers, now) = (Tellers::new(100, 7), Instant::from_secs(5));
        let taken = (0..600).filter(|_| tellers.take(now, &NodeId([1; 32]))).count();
        assert_eq!(taken, 100);
        let others = (2..42).filter(|id| tellers.take(now, &NodeId([*id; 32]))).count();
        assert!(others >= 38, "{others} of 40; the rest share a bucket with the first");
    }
}

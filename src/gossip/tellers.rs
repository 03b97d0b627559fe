//! Shares of the signature checks of states. A member that tells of many nodes, or of nodes that do not exist, uses up its own share,
//! and a party with any number of identities uses up that of one member as soon as checks are contested.

use crate::id::NodeId;
use crate::peers::party::Party;
use crate::peers::rate::{Bucket, Limiter, PartyLimiter, Rate};
use crate::time::Instant;

/// Buckets of tellers. Two may share one; which ones is secret.
const BUCKETS: usize = 128;
/// Checks are contested when tellers have taken more than half of this many shares.
const SHARES: u32 = 4;

/// The shares.
pub(super) struct Tellers {
    /// A teller's share.
    rate: Rate,
    buckets: Vec<Bucket>,
    secret: u64,
    /// What all tellers take. It tells whether checks are contested, and refuses none.
    all: Limiter,
    contested_below: u64,
    /// The parties' shares, while checks are contested.
    parties: PartyLimiter,
}

impl Tellers {
    /// A share of `per_second` checks for each teller, and for each party while checks are contested.
    pub(super) fn new(per_second: u32, secret: u64) -> Self {
        let (rate, all) = (Rate::per_second(per_second), per_second.saturating_mul(SHARES));
        Tellers {
            rate,
            buckets: vec![Bucket::FULL; BUCKETS],
            secret,
            all: Limiter::new(Rate::per_second(all)),
            contested_below: u64::from(all / 2),
            parties: PartyLimiter::new(rate, secret),
        }
    }

    /// Whether a state that this node of this party tells of is checked; then it counts.
    pub(super) fn take(&mut self, now: Instant, teller: &NodeId, party: Party) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&teller.0, self.secret);
        let bucket = &mut self.buckets[hash as usize % BUCKETS];
        let contested = self.all.available(now) < self.contested_below;
        if bucket.available(now, &self.rate) == 0 || contested && !self.parties.take(now, party) {
            return false;
        }
        self.all.take(now);
        bucket.take(now, &self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const NOW: Instant = Instant::from_secs(5);

    /// Of `count` states that each of these tellers in 9.9.`net` tells of, the number that is checked.
    fn taken(tellers: &mut Tellers, ids: core::ops::Range<u8>, net: u8, count: usize) -> usize {
        let party = Party::of([9, 9, net, 1].into());
        let mut takes = |id| (0..count).filter(|_| tellers.take(NOW, &NodeId([id; 32]), party)).count();
        ids.map(&mut takes).sum()
    }

    #[test]
    fn one_teller_uses_up_its_own_share_only() {
        let mut tellers = Tellers::new(100, 7);
        assert_eq!(taken(&mut tellers, 1..2, 1, 600), 100);
        let others = taken(&mut tellers, 2..42, 2, 1);
        assert!(others >= 38, "{others} of 40; the rest share a bucket with the first");
    }

    #[test]
    fn many_tellers_of_one_party_leave_another_party_its_share() {
        let mut tellers = Tellers::new(100, 7);
        let flood = taken(&mut tellers, 1..100, 1, 100);
        assert!((300..=301).contains(&flood), "{flood}: until checks are contested, and then one share");
        assert_eq!(taken(&mut tellers, 1..100, 1, 10), 0);
        let other = taken(&mut tellers, 100..130, 2, 10);
        assert_eq!(other, 100, "its whole share");
    }

    #[test]
    fn a_party_alone_takes_more_than_a_share_as_time_passes() {
        let (mut tellers, party) = (Tellers::new(100, 7), Party::of([9, 9, 1, 1].into()));
        let mut checked = 0;
        for millis in 0..10_000 {
            let now = NOW + Duration::from_millis(millis);
            checked += usize::from(tellers.take(now, &NodeId([millis as u8; 32]), party));
        }
        assert!(checked >= 3000, "{checked} in ten seconds");
    }
}

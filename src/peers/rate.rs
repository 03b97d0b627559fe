//! The rate of an event: a token bucket whose state is one instant.
//!
//! A bucket holds the instant up to which everything taken from it is paid for. Taking a unit moves that instant on by the
//! unit's cost; when it would come to lie further ahead than the burst, the bucket is empty. That is the virtual scheduling form
//! of the generic cell rate algorithm (ITU-T I.371), and as exact as time is: nothing has to be refilled.

use super::party::{Level, Party};
use crate::time::{Duration, Instant};

/// A rate: the amount that may be taken in the long run, and the amount that may be taken at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    units: u64,
    period: Duration,
    burst: Duration,
}

impl Rate {
    /// One unit each `period`, and `burst` of them at once when none was taken for long.
    pub const fn every(period: Duration, burst: u32) -> Rate {
        Rate { units: 1, period, burst: period.saturating_mul(burst) }
    }

    /// `count` units in a second, all of them at once when none was taken for long; at least one.
    pub fn per_second(count: u32) -> Rate {
        let count = count.max(1);
        Rate::every(Duration::from_secs(1) / count, count)
    }

    /// `units` in a second, for amounts that are taken in bulk. After a pause, the units of up to `burst` can be taken at once.
    pub const fn flow(units: u64, burst: Duration) -> Rate {
        Rate { units: if units > 0 { units } else { 1 }, period: Duration::from_secs(1), burst }
    }

    /// The time in which this many units come in.
    fn cost(&self, units: u64) -> Duration {
        let nanos =
            (u128::from(units).saturating_mul(self.period.as_nanos())).div_ceil(u128::from(self.units));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The units that come in within this time.
    fn units_in(&self, time: Duration) -> u64 {
        let units = time.as_nanos().saturating_mul(u128::from(self.units)) / self.period.as_nanos().max(1);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

/// The state of one token bucket: eight bytes, for where there are many of one [`Rate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// What was taken is paid for up to this instant.
    paid: Instant,
}

impl Bucket {
    /// A full bucket, whatever the time.
    pub const FULL: Bucket = Bucket { paid: Instant::ZERO };

    /// An empty bucket.
    pub fn empty(now: Instant, rate: &Rate) -> Bucket {
        Bucket { paid: now + rate.burst }
    }

    /// Whether the bucket is full, so that it need not be remembered.
    pub fn is_full(&self, now: Instant) -> bool {
        self.paid <= now
    }

    /// The units in the bucket.
    pub fn available(&self, now: Instant, rate: &Rate) -> u64 {
        rate.units_in((now + rate.burst).since(self.paid.max(now)))
    }

    /// Whether everything taken is paid for. Then an amount larger than the content of the bucket may be [spent](Bucket::spend).
    pub fn is_clear(&self, now: Instant, rate: &Rate) -> bool {
        self.clear_at(rate) <= now
    }

    /// The time at which everything taken is paid for.
    pub fn clear_at(&self, rate: &Rate) -> Instant {
        self.paid - rate.burst
    }

    /// When there will be `units` in the bucket.
    pub fn ready_at(&self, rate: &Rate, units: u64) -> Instant {
        (self.paid + rate.cost(units)) - rate.burst
    }

    /// Takes one unit, when there is one.
    pub fn take(&mut self, now: Instant, rate: &Rate) -> bool {
        let paid = self.paid.max(now) + rate.cost(1);
        let enough = paid <= now + rate.burst;
        if enough {
            self.paid = paid;
        }
        enough
    }

    /// Takes `units`, even if the bucket has fewer. The missing ones are owed.
    pub fn spend(&mut self, now: Instant, rate: &Rate, units: u64) {
        self.paid = self.paid.max(now) + rate.cost(units);
    }

    /// Puts back `units` that were taken and not used.
    pub fn give_back(&mut self, rate: &Rate, units: u64) {
        self.paid = self.paid - rate.cost(units);
    }
}

/// A bucket with its rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limiter {
    rate: Rate,
    bucket: Bucket,
}

impl Limiter {
    /// A full bucket of this rate.
    pub const fn new(rate: Rate) -> Limiter {
        Limiter { rate, bucket: Bucket::FULL }
    }

    /// An empty bucket of this rate.
    pub fn empty(now: Instant, rate: Rate) -> Limiter {
        Limiter { rate, bucket: Bucket::empty(now, &rate) }
    }

    /// The units in the bucket.
    pub fn available(&self, now: Instant) -> u64 {
        self.bucket.available(now, &self.rate)
    }

    /// When there will be `units` in the bucket.
    pub fn ready_at(&self, units: u64) -> Instant {
        self.bucket.ready_at(&self.rate, units)
    }

    /// Takes one unit, when there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.bucket.take(now, &self.rate)
    }

    /// Takes `units`, even if the bucket has fewer.
    pub fn spend(&mut self, now: Instant, units: u64) {
        self.bucket.spend(now, &self.rate, units);
    }
}

/// The number of buckets of a [`PartyLimiter`]. Parties that share one have one share.
const PARTY_BUCKETS: usize = 256;

/// A bucket for each party, in a table of fixed size. A party is counted at its widest level.
#[derive(Clone, Debug)]
pub struct PartyLimiter {
    rate: Rate,
    buckets: Box<[Bucket; PARTY_BUCKETS]>,
    secret: u64,
}

impl PartyLimiter {
    /// Full buckets of this rate. `secret` hides which parties share a bucket.
    pub fn new(rate: Rate, secret: u64) -> PartyLimiter {
        PartyLimiter { rate, buckets: Box::new([Bucket::FULL; PARTY_BUCKETS]), secret }
    }

    /// Takes one unit of the party's share, when there is one.
    pub fn take(&mut self, now: Instant, party: Party) -> bool {
        let site = party.at(Level::Site);
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(site.as_bytes(), self.secret);
        self.buckets[hash as usize % PARTY_BUCKETS].take(now, &self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(1000);

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    #[test]
    fn a_limiter_fills_up_with_time_and_not_over_its_burst() {
        let mut limiter = Limiter::new(Rate::every(Duration::from_secs(2), 3));
        let taken =
            |limiter: &mut Limiter, seconds: u64| (0..10).filter(|_| limiter.take(at(seconds))).count();
        assert_eq!(taken(&mut limiter, 10), 3);
        assert_eq!(taken(&mut limiter, 11), 0);
        assert_eq!(taken(&mut limiter, 14), 2);
        assert_eq!(taken(&mut limiter, 1000), 3);
        assert_eq!(taken(&mut limiter, 5), 0, "time that goes back gives nothing");
    }

    #[test]
    fn as_many_as_the_rate_says_may_be_taken_in_a_second_also_when_they_do_not_divide_it() {
        for count in [0, 1, 3, 7, 1000, 131_072, 999_999_999] {
            let rate = Rate::per_second(count);
            let mut bucket = Bucket::FULL;
            let taken = (0..2000).filter(|_| bucket.take(START, &rate)).count();
            assert_eq!(taken, (count.max(1) as usize).min(2000), "{count}");
        }
    }

    #[test]
    fn no_more_flows_than_the_rate_and_nearly_all_of_it() {
        for units in [16 << 10, 1 << 20, 1 << 40, u64::MAX] {
            let rate = Rate::flow(units, Duration::from_millis(125));
            let mut bucket = Bucket::empty(START, &rate);
            let mut moved = 0_u128;
            for millis in 1..=10_000 {
                let now = START + Duration::from_millis(millis);
                let available = bucket.available(now, &rate);
                bucket.spend(now, &rate, available);
                moved += u128::from(available);
            }
            let most = u128::from(units) * 10;
            assert!(moved <= most && moved >= most * 9 / 10, "{moved} of {most}");
        }
    }

    #[test]
    fn a_caller_that_looks_all_the_time_gets_as_much_as_one_that_comes_when_told() {
        let rate = Rate::flow(16 << 10, Duration::from_millis(125));
        let mut bucket = Bucket::empty(START, &rate);
        let mut moved = 0;
        for micros in (0..10_000_000).step_by(119) {
            let now = START + Duration::from_micros(micros);
            let available = bucket.available(now, &rate);
            bucket.spend(now, &rate, available);
            moved += available;
        }
        assert!(moved > (160 << 10) * 99 / 100, "{moved}");
    }

    #[test]
    fn what_is_owed_is_paid_with_time_and_what_is_given_back_is_there_at_once() {
        let rate = Rate::flow(1000, Duration::from_secs(1));
        let mut bucket = Bucket::empty(START, &rate);
        assert!(bucket.is_clear(START, &rate) && bucket.available(START, &rate) == 0);
        bucket.spend(START, &rate, 500);
        assert!(!bucket.is_clear(START, &rate));
        assert_eq!(bucket.clear_at(&rate), START + Duration::from_millis(500));
        assert_eq!(bucket.ready_at(&rate, 31), START + Duration::from_millis(531));
        bucket.give_back(&rate, 500);
        assert!(bucket.is_clear(START, &rate));
        let much_later = START + Duration::from_secs(3600);
        assert_eq!(bucket.available(much_later, &rate), 1000, "no more than the burst is saved up");
    }

    #[test]
    fn numbers_beyond_all_measure_do_not_overflow() {
        let rate = Rate::flow(1, Duration::MAX);
        let mut bucket = Bucket::FULL;
        bucket.spend(START, &rate, u64::MAX);
        assert_eq!(bucket.available(START, &rate), 0);
        let fast = Rate::flow(u64::MAX, Duration::from_secs(1));
        assert_eq!(Bucket::FULL.available(START, &fast), u64::MAX);
        assert!(!Limiter::new(Rate::every(Duration::from_secs(1), 0)).take(START));
    }

    #[test]
    fn each_party_has_its_own_share() {
        let mut limiter = PartyLimiter::new(Rate::every(Duration::from_secs(1), 4), 7);
        let party = |ip: [u8; 4]| Party::of(ip.into());
        let taken =
            |limiter: &mut PartyLimiter, ip| (0..20).filter(|_| limiter.take(START, party(ip))).count();
        assert_eq!(taken(&mut limiter, [8, 8, 8, 1]), 4);
        assert_eq!(taken(&mut limiter, [8, 8, 8, 2]), 0, "the same party");
        let others = (0..8).map(|net| taken(&mut limiter, [9, net, 1, 1])).sum::<usize>();
        assert!(others >= 28, "{others}: hardly any of them share a bucket");
    }
}

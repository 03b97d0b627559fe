//! The bandwidth of repair: a share of the uplink, so that users keep the rest.

use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};

/// The bandwidth of repair while the uplink's rate is not known, in bytes per second.
const UNMEASURED: u64 = 1 << 20;
/// The least bandwidth of repair, in bytes per second, so that it goes on. It is less than a quarter of any uplink that is of use.
const LEAST: u64 = 512;
/// The burst: repair may make up for a pause of this length at once.
const BURST: Duration = Duration::from_secs(1);

/// The bytes that copies may take. A copy may begin when those before it have been paid for; its own bytes are then owed, so
/// that a piece larger than the bucket passes too.
pub(super) struct Budget {
    fixed: u64,
    uplink: u64,
    bucket: Bucket,
}

impl Budget {
    /// `fixed` bytes per second; 0 means a quarter of the uplink.
    pub(super) fn new(fixed: u64, now: Instant) -> Self {
        let mut budget = Budget { fixed, uplink: 0, bucket: Bucket::FULL };
        budget.bucket = Bucket::empty(now, &budget.flow());
        budget
    }

    /// Sets the measured rate of the uplink, in bytes per second.
    pub(super) fn set_uplink(&mut self, bytes_per_second: u64) {
        self.uplink = bytes_per_second;
    }

    /// The bandwidth of repair, in bytes per second. Also of a slow uplink it is no more than a quarter.
    pub(super) fn rate(&self) -> u64 {
        match (self.fixed, self.uplink) {
            (0, 0) => UNMEASURED,
            (0, uplink) => (uplink / 4).max(LEAST),
            (fixed, _) => fixed,
        }
    }

    /// When the next copy may begin.
    pub(super) fn free_at(&self) -> Instant {
        self.bucket.clear_at(&self.flow())
    }

    /// A copy of `bytes` begins.
    pub(super) fn spend(&mut self, now: Instant, bytes: u64) {
        let flow = self.flow();
        self.bucket.spend(now, &flow, bytes);
    }

    /// A copy of `bytes` was refused before any of them was sent.
    pub(super) fn give_back(&mut self, bytes: u64) {
        let flow = self.flow();
        self.bucket.give_back(&flow, bytes);
    }

    fn flow(&self) -> Rate {
        Rate::flow(self.rate(), BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_copies_take_no_more_than_the_rate_and_one_burst() {
        let mut now = Instant::from_secs(100);
        let mut budget = Budget::new(1000, now);
        let mut sent = 0;
        while now < Instant::from_secs(160) {
            if budget.free_at() <= now {
                budget.spend(now, 400);
                sent += 400;
            }
            now = now + Duration::from_millis(10);
        }
        assert!((60_000..=61_800).contains(&sent), "{sent}");
    }

    #[test]
    fn the_rate_is_a_quarter_of_the_uplink_however_slow_that_is() {
        let mut budget = Budget::new(0, Instant::ZERO);
        assert_eq!(budget.rate(), UNMEASURED);
        for uplink in [100 << 20, 1 << 20, 100_000, 4_000] {
            budget.set_uplink(uplink);
            assert_eq!(budget.rate(), uplink / 4);
        }
        budget.set_uplink(1);
        assert_eq!(budget.rate(), LEAST, "repair goes on");
        assert_eq!(Budget::new(5000, Instant::ZERO).rate(), 5000);
    }
}

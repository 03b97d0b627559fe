//! How fast repair may copy: a bucket of bytes, so that users keep the rest of the uplink.

use crate::time::{Duration, Instant};

/// The least that repair may use when the rate follows the uplink, in bytes a second.
const FLOOR: u64 = 1 << 20;
/// A pause of so long may be made up for at once.
const BURST: Duration = Duration::from_secs(1);

/// When the next copy may begin. A copy may begin when those before it have been paid for; its own bytes are then
/// owed, so that a piece larger than the bucket passes too.
pub(super) struct Budget {
    fixed: u64,
    uplink: u64,
    free_at: Instant,
}

impl Budget {
    /// `fixed` bytes a second; 0 is a quarter of the uplink.
    pub(super) fn new(fixed: u64, now: Instant) -> Self {
        Budget { fixed, uplink: 0, free_at: now }
    }

    /// What the uplink was seen to carry, in bytes a second.
    pub(super) fn set_uplink(&mut self, bytes_per_second: u64) {
        self.uplink = bytes_per_second;
    }

    /// Bytes a second that repair may use.
    pub(super) fn rate(&self) -> u64 {
        if self.fixed > 0 { self.fixed } else { (self.uplink / 4).max(FLOOR) }
    }

    /// When the next copy may begin.
    pub(super) fn free_at(&self) -> Instant {
        self.free_at
    }

    /// A copy of `bytes` begins.
    pub(super) fn spend(&mut self, now: Instant, bytes: u64) {
        self.free_at = self.free_at.max(now - BURST) + self.cost(bytes);
    }

    /// A copy of `bytes` was refused before any of them went.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.free_at = self.free_at - self.cost(bytes);
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_goes_than_the_rate_and_one_burst() {
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
    fn the_rate_follows_the_uplink_down_to_a_floor() {
        let mut budget = Budget::new(0, Instant::ZERO);
        assert_eq!(budget.rate(), FLOOR);
        budget.set_uplink(100 << 20);
        assert_eq!(budget.rate(), 25 << 20);
    }
}

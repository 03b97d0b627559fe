//! A rate limiter, and the local health of this node.

use crate::time::{Duration, Instant};

/// A token bucket. Tokens come at a steady rate, up to a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// The saved tokens, in nanoseconds.
    saved: u64,
    /// The cost of one token, in nanoseconds.
    cost: u64,
    /// The most that can be saved, in nanoseconds.
    most: u64,
    filled: Instant,
}

impl Allowance {
    /// A full bucket of `burst` tokens. A new token comes `every` so often.
    pub(super) fn new(now: Instant, burst: u32, every: Duration) -> Self {
        let cost = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
        let most = cost.saturating_mul(u64::from(burst));
        Allowance { saved: most, cost, most, filled: now }
    }

    /// A full bucket of `count` tokens, with as many new ones in a second.
    pub(super) fn per_second(now: Instant, count: u32) -> Self {
        Allowance::new(now, count.max(1), Duration::from_secs(1) / count.max(1))
    }

    /// Takes a token. False when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        self.saved = self.saved.saturating_add(passed).min(self.most);
        self.filled = self.filled.max(now);
        let enough = self.saved >= self.cost;
        if enough {
            self.saved -= self.cost;
        }
        enough
    }
}

/// Local health: 0 is well, [`Health::WORST`] is worst. A node that receives nothing should suspect itself before it suspects all
/// others (the local health multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Health(u8);

impl Health {
    /// The worst score.
    pub(super) const WORST: u8 = 8;
    /// The worst score that the word of others can cause. Liars must not make this node slow to detect failures.
    const WORST_HEARSAY: u8 = 2;

    /// Evidence of bad health: a timer that fired late, relays that did not answer.
    pub(super) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(Self::WORST);
    }

    /// Another node says that others reach a member which this node does not reach, or that it does not reach this node.
    pub(super) fn doubted(&mut self) {
        if self.0 < Self::WORST_HEARSAY {
            self.worse();
        }
    }

    /// Evidence of good health: an answer in time.
    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// The score, 0 to [`Health::WORST`].
    pub(super) fn score(self) -> u8 {
        self.0
    }

    /// A timeout of `time`, extended by bad health.
    pub(super) fn stretch(self, time: Duration) -> Duration {
        time * (1 + u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_fills_with_time_up_to_its_burst() {
        let start = Instant::from_secs(10);
        let mut allowance = Allowance::new(start, 3, Duration::from_secs(2));
        let taken = |allowance: &mut Allowance, at: u64| {
            (0..10).filter(|_| allowance.take(Instant::from_secs(at))).count()
        };
        assert_eq!(taken(&mut allowance, 10), 3);
        assert_eq!(taken(&mut allowance, 11), 0);
        assert_eq!(taken(&mut allowance, 14), 2);
        assert_eq!(taken(&mut allowance, 1000), 3);
        assert_eq!(taken(&mut allowance, 5), 0, "a clock that goes back gives no tokens");
    }

    #[test]
    fn bad_health_extends_timeouts_and_is_bounded() {
        let mut health = Health::default();
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45));
        (0..100).for_each(|_| health.worse());
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45 * 9));
        (0..100).for_each(|_| health.better());
        assert_eq!(health.score(), 0);
    }
}

//! Things that may be done only so often, and how well this node itself is doing.

use crate::time::{Duration, Instant};

/// An allowance that fills up with time (a token bucket): `per_second` of something, saved up for at most a second or
/// for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Nanoseconds of saved-up time.
    saved: u64,
    /// Nanoseconds that one costs.
    cost: u64,
    /// Nanoseconds that can be saved.
    most: u64,
    filled: Instant,
}

impl Allowance {
    /// A full allowance of `burst` at once and one more every `every`.
    pub(super) fn new(now: Instant, burst: u32, every: Duration) -> Self {
        let cost = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
        let most = cost.saturating_mul(u64::from(burst));
        Allowance { saved: most, cost, most, filled: now }
    }

    /// An allowance of so many in a second.
    pub(super) fn per_second(now: Instant, count: u32) -> Self {
        Allowance::new(now, count.max(1), Duration::from_secs(1) / count.max(1))
    }

    /// Takes one, when there is one.
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

/// How badly this node itself is doing: 0 is well, [`Health::WORST`] is worst. A node that hears nothing from anybody should
/// rather doubt itself than everybody else (the local health multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Health(u8);

impl Health {
    /// As bad as it gets.
    pub(super) const WORST: u8 = 8;
    /// As bad as it gets by what others say. Liars must not make this node patient with the dead.
    const WORST_HEARSAY: u8 = 2;

    /// Something speaks against this node: a timer that fired late, helpers that did not answer.
    pub(super) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(Self::WORST);
    }

    /// Somebody says that others reach whom this node does not reach, or do not reach this node.
    pub(super) fn doubted(&mut self) {
        if self.0 < Self::WORST_HEARSAY {
            self.worse();
        }
    }

    /// Somebody answered in time.
    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// The score.
    pub(super) fn score(self) -> u8 {
        self.0
    }

    /// How long to wait instead of `time`.
    pub(super) fn stretch(self, time: Duration) -> Duration {
        time * (1 + u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_fills_up_with_time_and_not_over_its_burst() {
        let start = Instant::from_secs(10);
        let mut allowance = Allowance::new(start, 3, Duration::from_secs(2));
        let taken = |allowance: &mut Allowance, at: u64| {
            (0..10).filter(|_| allowance.take(Instant::from_secs(at))).count()
        };
        assert_eq!(taken(&mut allowance, 10), 3);
        assert_eq!(taken(&mut allowance, 11), 0);
        assert_eq!(taken(&mut allowance, 14), 2);
        assert_eq!(taken(&mut allowance, 1000), 3);
        assert_eq!(taken(&mut allowance, 5), 0, "time that goes back gives nothing");
    }

    #[test]
    fn bad_health_stretches_patience_and_is_bounded() {
        let mut health = Health::default();
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45));
        (0..100).for_each(|_| health.worse());
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45 * 9));
        (0..100).for_each(|_| health.better());
        assert_eq!(health.score(), 0);
    }
}

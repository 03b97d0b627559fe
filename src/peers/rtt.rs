//! Round-trip times, and the timeouts that follow from them (the estimator of RFC 6298 with other bounds).

use crate::time::Duration;

/// The least timeout.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// The largest timeout.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// The smoothed round-trip time to one peer in eight bytes: microseconds, zero before the first sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rtt {
    smoothed: u32,
    variation: u32,
}

impl Rtt {
    /// Adds a sample. It must be of a request that was not repeated (Karn's algorithm).
    pub fn sample(&mut self, sample: Duration) {
        // Nothing over a minute is a round-trip time.
        let sample = (sample.as_micros().min(60_000_000) as u32).max(1);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (sample, sample / 2);
        } else {
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = ((self.smoothed * 7 + sample) / 8).max(1);
        }
    }

    /// The smoothed time; `None` before the first sample.
    pub fn smoothed(self) -> Option<Duration> {
        (self.smoothed > 0).then(|| Duration::from_micros(u64::from(self.smoothed)))
    }

    /// The timeout of a request; `first` before the first sample.
    pub fn timeout(self, first: Duration) -> Duration {
        let micros = u64::from(self.smoothed) + 4 * u64::from(self.variation);
        match self.smoothed {
            0 => first,
            _ => Duration::from_micros(micros).clamp(TIMEOUT_MIN, TIMEOUT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_samples_within_its_bounds() {
        let (mut rtt, first) = (Rtt::default(), Duration::from_millis(700));
        assert_eq!(rtt.timeout(first), first);
        assert_eq!(rtt.smoothed(), None);
        (0..50).for_each(|_| rtt.sample(Duration::from_millis(1)));
        assert_eq!(rtt.timeout(first), TIMEOUT_MIN);
        rtt.sample(Duration::from_millis(400));
        assert!(rtt.timeout(first) > Duration::from_millis(400));
        (0..50).for_each(|_| rtt.sample(Duration::MAX));
        assert_eq!(rtt.timeout(first), TIMEOUT_MAX);
    }

    #[test]
    fn one_slow_answer_does_not_change_the_smoothed_time_much() {
        let mut rtt = Rtt::default();
        (0..50).for_each(|_| rtt.sample(Duration::from_millis(40)));
        rtt.sample(Duration::from_millis(120));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(50)));
        assert_eq!(size_of::<Rtt>(), 8);
    }
}

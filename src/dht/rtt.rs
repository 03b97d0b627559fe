//! Round-trip times, and the timeouts that follow from them (the estimator of RFC 6298 with other bounds).

use crate::time::Duration;

/// The timeout before the first sample.
pub(super) const TIMEOUT_FIRST: Duration = Duration::from_millis(700);
/// The least timeout.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// The largest timeout.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// The smoothed round-trip time to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Rtt {
    /// Adds a sample. It must be of a request that was not repeated (Karn's algorithm).
    pub(super) fn sample(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// The smoothed time; `None` before the first sample.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How long a lookup waits for an answer before it gives the slot to another node.
    pub(super) fn timeout(&self) -> Duration {
        match self.smoothed {
            None => TIMEOUT_FIRST,
            Some(smoothed) => (smoothed + self.variation * 4).clamp(TIMEOUT_MIN, TIMEOUT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_samples_within_its_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), TIMEOUT_FIRST);
        for _ in 0..50 {
            rtt.sample(Duration::from_millis(1));
        }
        assert_eq!(rtt.timeout(), TIMEOUT_MIN);
        rtt.sample(Duration::from_millis(400));
        assert!(rtt.timeout() > Duration::from_millis(400));
        for _ in 0..50 {
            rtt.sample(Duration::from_secs(30));
        }
        assert_eq!(rtt.timeout(), TIMEOUT_MAX);
    }
}

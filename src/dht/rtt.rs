//! Round-trip times, and how long to wait for an answer (the estimator of RFC 6298 with bounds of our own).

use crate::time::Duration;

/// Before the first sample.
pub(super) const TIMEOUT_FIRST: Duration = Duration::from_millis(700);
/// However near the peer is.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// However far it is.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// The smoothed round-trip time to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Rtt {
    /// Takes a measurement of an exchange that was not repeated (Karn's rule is the caller's to keep).
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

    /// How long an answer may take before its slot is given to somebody else.
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

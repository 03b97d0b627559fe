//! The uplink's measured rate: replication repairs with a part of it.

use crate::time::{Duration, Instant};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples of the bytes sent. The highest rate is a lower bound of the uplink's capacity.
pub(super) struct Uplink {
    sampled: Instant,
    uploaded: u64,
    /// In bytes per second.
    best: u64,
}

impl Uplink {
    /// No bytes have been sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Uplink { sampled: now, uploaded: 0, best: 0 }
    }

    /// `uploaded` bytes have been sent since the start. Returns the rate in bytes per second if it is higher than all before. A
    /// sample within a second of the last one is left out.
    pub(super) fn sample(&mut self, now: Instant, uploaded: u64) -> Option<u64> {
        let elapsed = now.since(self.sampled);
        if elapsed < INTERVAL {
            return None;
        }
        let rate = (uploaded.saturating_sub(self.uploaded)) as f64 / elapsed.as_secs_f64();
        (self.sampled, self.uploaded) = (now, uploaded);
        let is_best = rate as u64 > self.best;
        self.best = self.best.max(rate as u64);
        is_best.then_some(self.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_secs(100) + Duration::from_millis(millis)
    }

    #[test]
    fn only_a_higher_rate_is_reported() {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.sample(at(1000), 5000), Some(5000));
        assert_eq!(uplink.sample(at(2000), 9000), None, "4000 a second is less");
        assert_eq!(uplink.sample(at(4000), 21_000), Some(6000), "12000 in two seconds");
        assert_eq!(uplink.sample(at(6000), 33_000), None, "the same again");
    }

    #[test]
    fn a_burst_within_a_second_counts_with_the_whole_second() {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.sample(at(10), 8000), None);
        assert_eq!(uplink.sample(at(1000), 8000), Some(8000));
        assert_eq!(uplink.sample(at(1500), 100_000), None);
    }

    #[test]
    fn an_idle_node_has_no_rate() {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.sample(at(60_000), 0), None);
    }
}

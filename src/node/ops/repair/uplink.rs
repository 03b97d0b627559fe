//! The uplink's measured rate: replication repairs with a part of it.

use crate::time::{Duration, Instant};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples of the bytes sent. Only while there is always something to send do they tell what the uplink can carry.
pub(super) struct Uplink {
    sampled: Instant,
    uploaded: u64,
    /// Whether there was something to send at the last sample.
    busy: bool,
    /// The highest rate measured, in bytes per second.
    best: u64,
}

impl Uplink {
    /// No bytes have been sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Uplink { sampled: now, uploaded: 0, busy: false, best: 0 }
    }

    /// `uploaded` bytes have been sent since the start, and `busy` says whether more wait to leave. Returns the rate in bytes per
    /// second if the uplink was busy since the last sample and the rate is higher than all before. A sample within a second of the
    /// last one is left out.
    pub(super) fn sample(&mut self, now: Instant, uploaded: u64, busy: bool) -> Option<u64> {
        let elapsed = now.since(self.sampled);
        if elapsed < INTERVAL {
            return None;
        }
        let rate = (uploaded.saturating_sub(self.uploaded)) as f64 / elapsed.as_secs_f64();
        let full = self.busy && busy && elapsed < INTERVAL * 2;
        (self.sampled, self.uploaded, self.busy) = (now, uploaded, busy);
        let is_best = full && rate as u64 > self.best;
        if is_best {
            self.best = rate as u64;
        }
        is_best.then_some(self.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_secs(100) + Duration::from_millis(millis)
    }

    fn busy() -> Uplink {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.sample(at(1000), 0, true), None);
        uplink
    }

    #[test]
    fn only_a_higher_rate_is_reported() {
        let mut uplink = busy();
        assert_eq!(uplink.sample(at(2000), 5000, true), Some(5000));
        assert_eq!(uplink.sample(at(3000), 9000, true), None, "4000 a second is less");
        assert_eq!(uplink.sample(at(4500), 18_000, true), Some(6000), "9000 in one and a half");
        assert_eq!(uplink.sample(at(5500), 24_000, true), None, "the same again");
    }

    #[test]
    fn a_burst_within_a_second_counts_with_the_whole_second() {
        let mut uplink = busy();
        assert_eq!(uplink.sample(at(1010), 8000, true), None);
        assert_eq!(uplink.sample(at(2000), 8000, true), Some(8000));
        assert_eq!(uplink.sample(at(2500), 100_000, true), None);
    }

    #[test]
    fn what_is_sent_while_the_uplink_has_nothing_more_to_do_says_nothing_about_it() {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.sample(at(1000), 5000, false), None);
        assert_eq!(uplink.sample(at(2000), 9000, true), None, "it was idle a second ago");
        assert_eq!(uplink.sample(at(3000), 12_000, false), None, "it is idle now");
        assert_eq!(uplink.sample(at(63_000), 90_000, true), None);
        assert_eq!(uplink.sample(at(70_000), 99_000, true), None, "seven seconds are too long to know");
    }
}

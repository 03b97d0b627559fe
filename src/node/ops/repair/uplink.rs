//! The uplink's measured rate: replication repairs with a part of it.

use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The samples that count: the latest of the seconds in which the uplink was busy.
const SAMPLES: usize = 30;

/// Samples of the bytes sent, one a second while content flows. Only while there is always something to send do they tell what the
/// uplink can carry; one slow reader tells less, so the best of the latest samples counts. An uplink that has become slower is known as
/// such after half a minute of sending.
pub(super) struct Uplink {
    sampled: Instant,
    uploaded: u64,
    /// Whether there was something to send at the last sample.
    busy: bool,
    /// Bytes per second of the latest busy seconds, the oldest first.
    rates: VecDeque<u64>,
    /// The best of them, as last reported.
    best: u64,
}

impl Uplink {
    /// No bytes have been sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Uplink { sampled: now, uploaded: 0, busy: false, rates: VecDeque::new(), best: 0 }
    }

    /// When the next sample is due: a second after the last one, while there is something to send.
    pub(super) fn next_deadline(&self, busy: bool) -> Option<Instant> {
        (busy || self.busy).then(|| self.sampled + INTERVAL)
    }

    /// `uploaded` bytes have been sent since the start, and `busy` says whether more wait to leave. Returns the rate in bytes per
    /// second when it changes. A sample within a second of the last one is left out. So is the first one of a time in which the uplink is
    /// busy: what leaves then may only have filled the system's buffers.
    pub(super) fn sample(&mut self, now: Instant, uploaded: u64, busy: bool) -> Option<u64> {
        let elapsed = now.since(self.sampled);
        if elapsed < INTERVAL {
            return None;
        }
        let rate = (uploaded.saturating_sub(self.uploaded)) as f64 / elapsed.as_secs_f64();
        let full = self.busy && busy && elapsed < INTERVAL * 2;
        (self.sampled, self.uploaded, self.busy) = (now, uploaded, busy);
        if !full {
            return None;
        }
        if self.rates.len() >= SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back(rate as u64);
        let best = self.rates.iter().copied().max().unwrap_or(0);
        let changed = best != self.best;
        self.best = best;
        changed.then_some(best)
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
    fn the_best_of_the_latest_seconds_is_reported_when_it_changes() {
        let mut uplink = busy();
        assert_eq!(uplink.sample(at(2000), 5000, true), Some(5000));
        assert_eq!(uplink.sample(at(3000), 9000, true), None, "4000 a second is less");
        assert_eq!(uplink.sample(at(4500), 18_000, true), Some(6000), "9000 in one and a half");
        assert_eq!(uplink.sample(at(5500), 24_000, true), None, "the same again");
    }

    #[test]
    fn an_uplink_that_becomes_slower_is_known_as_such_after_half_a_minute() {
        let mut uplink = busy();
        assert_eq!(uplink.sample(at(2000), 1_000_000, true), Some(1_000_000));
        let mut reported = Vec::new();
        for second in 3..=40 {
            reported.extend(uplink.sample(at(second * 1000), 1_000_000 + second * 10_000 - 20_000, true));
        }
        assert_eq!(reported, [10_000]);
    }

    #[test]
    fn a_sample_is_due_each_second_while_content_flows_and_once_more_at_its_end() {
        let mut uplink = Uplink::new(at(0));
        assert_eq!(uplink.next_deadline(false), None);
        assert_eq!(uplink.next_deadline(true), Some(at(1000)));
        uplink.sample(at(9000), 100, true);
        assert_eq!(uplink.next_deadline(true), Some(at(10_000)));
        assert_eq!(uplink.next_deadline(false), Some(at(10_000)));
        uplink.sample(at(10_000), 100, false);
        assert_eq!(uplink.next_deadline(false), None);
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

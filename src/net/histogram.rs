//! A histogram of the durations of the loop's turns.

use core::time::Duration;

/// Counts of durations. Bucket *i* counts those below 2^*i* microseconds that no smaller bucket counts; the last has no bound.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [u64; 32],
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(super) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()).min(31) as usize;
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(duration);
    }

    /// The number of durations recorded.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest duration, in microseconds.
    pub(super) fn max_micros(&self) -> u64 {
        u64::try_from(self.max.as_micros()).unwrap_or(u64::MAX)
    }

    /// The quantile at `permille` thousandths, in microseconds: the upper edge of its bucket, so at most twice the true value.
    pub(super) fn quantile_micros(&self, permille: u64) -> u64 {
        let rank = (self.count * permille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return ((1u64 << bucket) - 1).min(self.max_micros());
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bucket_edges_and_never_over_the_maximum() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_micros(500), 0);
        for micros in [1, 2, 3, 100, 1000] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.quantile_micros(500), 3);
        assert_eq!(histogram.quantile_micros(990), 1000);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.max_micros(), 1000);
    }
}

//! Rate limits for content: how many bytes may move now, and when more may.

use crate::time::{Duration, Instant};

/// The burst: a bucket holds at most the bytes of 1/8 second.
const BURST_PARTS: u64 = 8;
/// A stream waits until at least the bytes of 1/32 second may move.
const SLICE_PARTS: i64 = 32;

/// A token bucket for bytes. Bytes that moved before the driver could tell that they were content make it negative: later
/// content pays them back.
pub(super) struct Bucket {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    tokens: i64,
    /// The time up to which tokens have been added.
    at: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant, rate: u64) -> Bucket {
        Bucket { rate, tokens: 0, at: now }
    }

    /// Changes the rate. A debt at the old rate is forgiven.
    pub(super) fn set_rate(&mut self, now: Instant, rate: u64) {
        if rate != self.rate {
            *self = Bucket::new(now, rate);
        }
    }

    /// The number of bytes that may move now.
    pub(super) fn available(&mut self, now: Instant) -> usize {
        if self.rate == 0 {
            return usize::MAX;
        }
        let flown = u128::from(self.rate) * now.since(self.at).as_nanos() / 1_000_000_000;
        if flown > 0 {
            let tokens = self.tokens.saturating_add(i64::try_from(flown).unwrap_or(i64::MAX));
            self.tokens = tokens.min(self.full());
            // `at` advances by whole bytes only: the fraction of a byte is not lost, however often this is called.
            let counted = (flown * 1_000_000_000).div_ceil(u128::from(self.rate));
            self.at = match tokens < self.full() {
                true => self.at + Duration::from_nanos(u64::try_from(counted).unwrap_or(u64::MAX)),
                false => now,
            };
        }
        usize::try_from(self.tokens).unwrap_or(0)
    }

    /// Takes the tokens of bytes that moved, whether they were allowed or not.
    pub(super) fn take(&mut self, bytes: usize) {
        if self.rate > 0 {
            self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// When a slice of bytes ([`SLICE_PARTS`]) may move.
    pub(super) fn ready_at(&self) -> Instant {
        if self.rate == 0 {
            return self.at;
        }
        let slice = (i64::try_from(self.rate).unwrap_or(i64::MAX) / SLICE_PARTS).max(1);
        let lacking = u128::try_from(slice.saturating_sub(self.tokens)).unwrap_or(0);
        let nanos = (lacking * 1_000_000_000).div_ceil(u128::from(self.rate));
        self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn full(&self) -> i64 {
        i64::try_from(self.rate / BURST_PARTS).unwrap_or(i64::MAX).max(1)
    }
}

/// The two buckets that limit one direction of a stream: its own, and the one of all streams together.
pub(super) struct Pair<'a>(pub(super) &'a mut Bucket, pub(super) &'a mut Bucket);

impl Pair<'_> {
    /// The number of bytes that may move now; when it is 0, the time to try again as the error.
    pub(super) fn allowed(&mut self, now: Instant) -> Result<usize, Instant> {
        match self.0.available(now).min(self.1.available(now)) {
            // The bucket that has tokens returns a time in the past, so the other decides.
            0 => Err(self.0.ready_at().max(self.1.ready_at())),
            bytes => Ok(bytes),
        }
    }

    /// Takes the tokens of bytes that moved from both buckets.
    pub(super) fn take(&mut self, bytes: usize) {
        self.0.take(bytes);
        self.1.take(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(1000);

    #[test]
    fn no_more_than_the_rate_and_one_burst_may_move() {
        for rate in [16 << 10, 1 << 20, 1 << 40, u64::MAX] {
            let mut bucket = Bucket::new(START, rate);
            let mut moved = 0_u128;
            for millis in 1..=10_000 {
                let now = START + Duration::from_millis(millis);
                let bytes = bucket.available(now);
                bucket.take(bytes);
                moved += bytes as u128;
            }
            let most = u128::from(rate) * 10 + u128::from(rate / BURST_PARTS);
            assert!(moved <= most && moved >= most.min(i64::MAX as u128) * 9 / 10, "{moved} of {most}");
        }
    }

    #[test]
    fn a_debt_delays_further_bytes_by_a_finite_time() {
        let mut bucket = Bucket::new(START, 1000);
        assert_eq!(bucket.available(START), 0);
        bucket.take(500);
        let mut other = Bucket::new(START, 0);
        let at = Pair(&mut bucket, &mut other).allowed(START).unwrap_err();
        assert_eq!(at.since(START).as_millis(), 531, "500 bytes owed and a slice of 31");
        assert!(Pair(&mut bucket, &mut other).allowed(at).is_ok_and(|bytes| bytes >= 31));
        assert_eq!(other.available(at), usize::MAX);
    }

    #[test]
    fn a_caller_that_polls_all_the_time_gets_the_full_rate() {
        let mut bucket = Bucket::new(START, 16 << 10);
        let mut moved = 0;
        for micros in (0..10_000_000).step_by(119) {
            let bytes = bucket.available(START + Duration::from_micros(micros));
            bucket.take(bytes);
            moved += bytes;
        }
        assert!(moved > (160 << 10) * 99 / 100, "{moved}");
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut bucket = Bucket::new(START, 1000);
        bucket.take(1 << 40);
        bucket.set_rate(START, 0);
        assert_eq!(bucket.available(START), usize::MAX);
        bucket.set_rate(START, 8000);
        assert_eq!(bucket.available(START + Duration::from_secs(60)), 1000, "an eighth of a second's");
    }
}

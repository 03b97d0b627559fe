//! Rate limits for content: how many bytes may move now, and when more may.

use crate::peers::rate::{Limiter, Rate};
use crate::time::{Duration, Instant};

/// The burst: a bucket holds at most the bytes of this time.
const BURST: Duration = Duration::from_millis(125);
/// A stream waits until at least the bytes of 1/32 second may move.
const SLICE_PARTS: u64 = 32;

/// The bytes of content that may move, where there is a limit. Bytes that moved before the driver could tell that they were content
/// are owed: later content pays them back.
pub(super) struct Bucket {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    limiter: Option<Limiter>,
}

impl Bucket {
    pub(super) fn new(now: Instant, rate: u64) -> Bucket {
        Bucket { rate, limiter: (rate > 0).then(|| Limiter::empty(now, Rate::flow(rate, BURST))) }
    }

    /// Changes the rate. A debt at the old rate is forgiven.
    pub(super) fn set_rate(&mut self, now: Instant, rate: u64) {
        if rate != self.rate {
            *self = Bucket::new(now, rate);
        }
    }

    /// The bytes that may move now.
    pub(super) fn available(&self, now: Instant) -> usize {
        let available = self.limiter.map_or(u64::MAX, |limiter| limiter.available(now));
        usize::try_from(available).unwrap_or(usize::MAX)
    }

    /// Counts bytes that moved, whether or not they were allowed to.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        if let Some(limiter) = &mut self.limiter {
            limiter.spend(now, bytes as u64);
        }
    }

    /// When a slice of bytes may move.
    pub(super) fn ready_at(&self) -> Instant {
        self.limiter.map_or(Instant::ZERO, |limiter| limiter.ready_at((self.rate / SLICE_PARTS).max(1)))
    }
}

/// The two buckets that limit one direction of a stream: its own, and the one of all streams together.
pub(super) struct Pair<'a>(pub(super) &'a mut Bucket, pub(super) &'a mut Bucket);

impl Pair<'_> {
    /// The number of bytes that may move now; when it is 0, the time to try again as the error.
    pub(super) fn allowed(&self, now: Instant) -> Result<usize, Instant> {
        match self.0.available(now).min(self.1.available(now)) {
            // The bucket that has tokens returns a time in the past, so the other decides.
            0 => Err(self.0.ready_at().max(self.1.ready_at())),
            bytes => Ok(bytes),
        }
    }

    /// Takes the tokens of bytes that moved from both buckets.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        self.0.take(now, bytes);
        self.1.take(now, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(1000);

    #[test]
    fn a_debt_delays_further_bytes_by_a_finite_time() {
        let mut bucket = Bucket::new(START, 1000);
        assert_eq!(bucket.available(START), 0);
        bucket.take(START, 500);
        let mut other = Bucket::new(START, 0);
        let at = Pair(&mut bucket, &mut other).allowed(START).unwrap_err();
        assert_eq!(at.since(START).as_millis(), 531, "500 bytes owed and a slice of 31");
        assert!(Pair(&mut bucket, &mut other).allowed(at).is_ok_and(|bytes| bytes >= 31));
        assert_eq!(other.available(at), usize::MAX);
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut bucket = Bucket::new(START, 1000);
        bucket.take(START, 1 << 40);
        bucket.set_rate(START, 0);
        assert_eq!(bucket.available(START), usize::MAX);
        bucket.set_rate(START, 8000);
        assert_eq!(bucket.available(START + Duration::from_secs(60)), 1000, "an eighth of a second's");
    }
}

//! The rate at which a peer sends.

use crate::time::Duration;

/// The averaging period of a peer's measured rate.
const PACE_PERIOD: Duration = Duration::from_secs(1);

/// A moving average of a rate: bytes and the time that they took, both halved when the time exceeds [`PACE_PERIOD`].
#[derive(Default)]
pub(super) struct Flow {
    bytes: u64,
    nanos: u64,
}

impl Flow {
    /// Adds bytes that took this time.
    pub(super) fn add(&mut self, bytes: u64, time: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.nanos = self.nanos.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        while u128::from(self.nanos) > PACE_PERIOD.as_nanos() {
            (self.bytes, self.nanos) = (self.bytes / 2, self.nanos / 2);
        }
    }

    /// Bytes per second; `None` before any have been added.
    pub(super) fn pace(&self) -> Option<u64> {
        let pace = u128::from(self.bytes) * 1_000_000_000 / u128::from(self.nanos.max(1));
        (self.bytes > 0).then(|| u64::try_from(pace).unwrap_or(u64::MAX))
    }
}

/// Bytes per second.
pub(super) fn pace(bytes: u64, time: Duration) -> u64 {
    bytes.saturating_mul(1000) / (time.as_millis() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_came_lately() {
        let mut flow = Flow::default();
        assert_eq!(flow.pace(), None, "nothing has come");
        (0..10).for_each(|_| flow.add(1000, Duration::from_millis(100)));
        assert_eq!(flow.pace(), Some(10_000));
        (0..50).for_each(|_| flow.add(100, Duration::from_millis(100)));
        assert!(flow.pace().is_some_and(|pace| pace < 1200), "{:?}", flow.pace());
    }

    #[test]
    fn two_pieces_in_a_row_after_a_long_wait_do_not_raise_the_rate() {
        let mut flow = Flow::default();
        for _ in 0..10 {
            flow.add(256 << 10, Duration::from_millis(1900));
            flow.add(256 << 10, Duration::from_millis(1));
        }
        assert!(flow.pace().is_some_and(|pace| pace < 1 << 20), "{:?}", flow.pace());
    }
}

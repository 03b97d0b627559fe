//! The least pace of a reader: a client that hardly takes its answer must not hold a place, a window and a file for ever.

use crate::time::{Duration, Instant};

/// The bytes that have to leave in each [`PERIOD`] while an answer waits.
const BYTES_MIN: u64 = 16 << 10;
/// The time in which they have to leave.
const PERIOD: Duration = Duration::from_secs(30);

/// Whether a reader keeps the least pace.
#[derive(Default)]
pub(super) struct Pace {
    /// The beginning of the present period; `None` while nothing waits to leave.
    since: Option<Instant>,
    /// The bytes that have left in it.
    bytes: u64,
}

impl Pace {
    /// Bytes have left, and whether others wait.
    pub(super) fn note(&mut self, now: Instant, bytes: u64, waits: bool) {
        self.bytes = self.bytes.saturating_add(bytes);
        if !waits {
            *self = Pace::default();
        } else if self.since.is_none() || self.bytes >= BYTES_MIN {
            (self.since, self.bytes) = (Some(now), 0);
        }
    }

    /// When the reader is too slow, unless more leaves.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_too_slow_when_little_leaves_in_a_period() {
        let at = Instant::from_secs;
        let mut pace = Pace::default();
        assert_eq!(pace.deadline(), None);
        pace.note(at(100), 0, true);
        assert_eq!(pace.deadline(), Some(at(130)));
        pace.note(at(110), BYTES_MIN - 1, true);
        assert_eq!(pace.deadline(), Some(at(130)), "a trickle does not count");
        pace.note(at(129), 1, true);
        assert_eq!(pace.deadline(), Some(at(159)));
        pace.note(at(140), 1, false);
        assert_eq!(pace.deadline(), None, "nothing waits");
        pace.note(at(300), 0, true);
        assert_eq!(pace.deadline(), Some(at(330)));
    }
}

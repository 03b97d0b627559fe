//! The rate of announcements that no user waits for.

use crate::time::{Duration, Instant};

/// The least rate, in files a second: with full datagrams about 40 of these, each of 1.2 KB.
const FILES_PER_SECOND: u64 = 32;
/// All files take their turns within this time, however many there are: a quarter of the lifetime of their records.
const EVERY_FILE_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// Files that may be announced at once after a pause.
const BURST: u64 = 512;

/// A token bucket of files.
pub(super) struct Pace {
    files_per_second: u64,
    tokens: u64,
    /// When the last token came in.
    since: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { files_per_second: FILES_PER_SECOND, tokens: BURST, since: Instant::ZERO }
    }
}

impl Pace {
    /// Sets the number of files.
    pub(super) fn set_files(&mut self, files: usize) {
        self.files_per_second = FILES_PER_SECOND.max(files as u64 / EVERY_FILE_WITHIN.as_secs());
    }

    /// Takes a token: whether the next file may be announced now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let interval = self.interval();
        let new = now.since(self.since).as_nanos() as u64 / interval.as_nanos() as u64;
        self.tokens = self.tokens.saturating_add(new).min(BURST);
        self.since = self.since + Duration::from_nanos(interval.as_nanos() as u64 * new);
        let free = self.tokens > 0;
        self.tokens -= u64::from(free);
        free
    }

    /// When the next file may be announced.
    pub(super) fn free_at(&self) -> Instant {
        if self.tokens > 0 { Instant::ZERO } else { self.since + self.interval() }
    }

    fn interval(&self) -> Duration {
        Duration::from_nanos(1_000_000_000 / self.files_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_steady_rate() {
        let mut pace = Pace::default();
        let mut now = Instant::from_secs(1000);
        assert_eq!((0..10_000).filter(|_| pace.take(now)).count() as u64, BURST);
        let mut taken = 0;
        let end = now + Duration::from_secs(10);
        while now <= end {
            now = now.max(pace.free_at());
            taken += u64::from(pace.take(now));
        }
        assert!(taken.abs_diff(10 * FILES_PER_SECOND) <= 2, "{taken}");
    }

    #[test]
    fn the_rate_grows_with_the_number_of_files() {
        let mut pace = Pace::default();
        pace.set_files(10_000_000);
        let per_pass = EVERY_FILE_WITHIN.as_secs() * pace.files_per_second;
        assert!(per_pass > 9_900_000, "{per_pass}");
    }
}

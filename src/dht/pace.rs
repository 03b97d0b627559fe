//! The rate of announcements that no user waits for.

use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};

/// The least rate, in files a second: with full datagrams about 40 of these, each of 1.2 KB.
const FILES_PER_SECOND: u64 = 32;
/// All files take their turns within this time, however many there are: a quarter of the lifetime of their records.
const EVERY_FILE_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// Files that may be announced at once after a pause.
const BURST: u32 = 512;

/// A token bucket of files.
pub(super) struct Pace {
    files_per_second: u64,
    bucket: Bucket,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { files_per_second: FILES_PER_SECOND, bucket: Bucket::FULL }
    }
}

impl Pace {
    /// Sets the number of files that there are.
    pub(super) fn set_files(&mut self, files: usize) {
        self.files_per_second = FILES_PER_SECOND.max(files as u64 / EVERY_FILE_WITHIN.as_secs());
    }

    /// Whether the next file may be announced now; then it counts as announced.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let rate = self.rate();
        self.bucket.take(now, &rate)
    }

    /// When the next file may be announced.
    pub(super) fn free_at(&self) -> Instant {
        self.bucket.ready_at(&self.rate(), 1)
    }

    fn rate(&self) -> Rate {
        Rate::every(Duration::from_nanos(1_000_000_000 / self.files_per_second), BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_steady_rate() {
        let mut pace = Pace::default();
        let mut now = Instant::from_secs(1000);
        assert_eq!((0..10_000).filter(|_| pace.take(now)).count() as u32, BURST);
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

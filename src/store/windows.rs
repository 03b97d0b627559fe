//! Room for the windows of streams: what passes through the node on its way to clients.
//!
//! Nothing of it is kept, so the quota has no part in it. It lies on the disk all the same for a moment, so it counts against
//! what is left to the host. A window counts whole while it is open, although some of it may have been written already and is
//! missing in the file system's own count too: it errs by no more than the windows that are open.

use std::collections::BTreeMap;

/// The windows that are open, at most as many as there are streams at a time.
#[derive(Default)]
pub(super) struct Windows {
    /// Bytes and files of each.
    open: BTreeMap<u64, (u64, u64)>,
    bytes: u64,
    files: u64,
}

impl Windows {
    /// What all of them may take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// In how many files.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    pub(super) fn open(&mut self, window: u64, bytes: u64, files: u64) {
        self.close(window);
        self.open.insert(window, (bytes, files));
        self.bytes += bytes;
        self.files += files;
    }

    /// Closes one. Nothing happens when it is not open.
    pub(super) fn close(&mut self, window: u64) {
        if let Some((bytes, files)) = self.open.remove(&window) {
            self.bytes -= bytes;
            self.files -= files;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_counts_once_and_what_is_closed_not_at_all() {
        let mut windows = Windows::default();
        windows.open(1, 100, 2);
        windows.open(2, 50, 1);
        windows.open(1, 70, 1);
        assert_eq!((windows.bytes(), windows.files()), (120, 2));
        windows.close(1);
        windows.close(1);
        assert_eq!((windows.bytes(), windows.files()), (50, 1));
    }
}

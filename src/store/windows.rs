//! The reservations of windows: the content on disk that is being streamed to clients.
//!
//! A window is temporary, so it does not count against the quota, but against the free space that is left to the host. An open
//! window counts in full. The bytes of it that are written already are also missing from the file system's free space, so the
//! count errs by at most the open windows.

use std::collections::BTreeMap;

/// The open windows, at most as many as files are streamed at a time.
#[derive(Default)]
pub(super) struct Windows {
    /// The bytes and the number of files of each.
    open: BTreeMap<u64, (u64, u64)>,
    bytes: u64,
    files: u64,
}

impl Windows {
    /// The bytes of all open windows.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of files of all open windows.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    pub(super) fn open(&mut self, window: u64, bytes: u64, files: u64) {
        self.close(window);
        self.open.insert(window, (bytes, files));
        self.bytes += bytes;
        self.files += files;
    }

    /// Closes a window, if it is open.
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
    fn only_an_open_window_counts() {
        let mut windows = Windows::default();
        windows.open(1, 100, 2);
        windows.open(2, 50, 1);
        windows.open(1, 70, 1);
        assert_eq!(windows.bytes(), 120);
        assert_eq!(windows.files(), 2);
        windows.close(1);
        windows.close(1);
        assert_eq!(windows.bytes(), 50);
        assert_eq!(windows.files(), 1);
    }
}

//! A file that reserves a little space: on a full disk the node deletes it, so that it can record the end of a share.
//!
//! Ending a share appends a record, which needs space. Without the reserve `elver rm` would fail when it is needed most.

use super::files::{Open, open, remove, write_at};
use super::layout::Layout;
use rustix::fs::OFlags;
use std::io;
use std::path::PathBuf;

/// The size of the file: a few blocks of any file system.
const BYTES: usize = 64 << 10;

/// The file `reserve`.
pub(super) struct Reserve {
    path: PathBuf,
    there: bool,
}

impl Reserve {
    pub(super) fn new(layout: &Layout) -> Self {
        let path = layout.file("reserve");
        let there = path.metadata().is_ok_and(|metadata| metadata.len() == BYTES as u64);
        Reserve { path, there }
    }

    /// Creates the file if it is missing. The caller has checked that there is more space than it needs.
    pub(super) fn keep(&mut self) {
        if !self.there {
            self.there = self.make().is_ok();
            if !self.there {
                let _ = remove(&self.path);
            }
        }
    }

    /// Deletes the file to free its space. `false` when there is none.
    pub(super) fn give_up(&mut self) -> bool {
        let given = core::mem::take(&mut self.there) && remove(&self.path).is_ok();
        if given {
            log::info!(
                "the disk is full: its reserve was deleted to save a record, and is created again when there is space"
            );
        }
        given
    }

    fn make(&self) -> io::Result<()> {
        // Not zeros, which some file systems do not store. The file need not survive a power cut.
        let bytes: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
        let file = open(&self.path, Open::Empty, 0o600, OFlags::NOFOLLOW)?;
        write_at(&file, &self.path, &bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::power_loss::record::{self, Fault, Kind};
    use tempfile::TempDir;

    #[test]
    fn the_reserve_is_given_up_once_and_created_again() {
        let root = TempDir::new().unwrap();
        let layout = Layout::new(root.path().to_owned());
        let mut reserve = Reserve::new(&layout);
        assert!(!reserve.give_up());
        reserve.keep();
        assert!(Reserve::new(&layout).give_up(), "the next start finds it");
        let mut reserve = Reserve::new(&layout);
        record::plan(|attempt| (attempt.kind == Kind::Write).then_some(Fault::Full(1000)));
        reserve.keep();
        record::end_plan();
        assert!(!reserve.give_up() && !root.path().join("reserve").exists(), "half a file is no reserve");
        reserve.keep();
        assert!(reserve.give_up() && !reserve.give_up());
    }
}

//! A little room that the node keeps for itself: on a full disk it is given up, so that what makes room can be written down.
//!
//! A share is ended by a record, and a record needs room. Without it `elver rm` would be refused just when it is needed.

use super::files::{Open, open, remove, write_at};
use super::layout::Layout;
use rustix::fs::OFlags;
use std::io;
use std::path::PathBuf;

/// What is kept: a few blocks of any file system, and the inode.
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

    /// Makes it, unless it is there. The caller knows that there is more room than that.
    pub(super) fn keep(&mut self) {
        if !self.there {
            self.there = self.make().is_ok();
            if !self.there {
                let _ = remove(&self.path);
            }
        }
    }

    /// Gives the room up. `false` when there is none to be given.
    pub(super) fn give_up(&mut self) -> bool {
        let given = core::mem::take(&mut self.there) && remove(&self.path).is_ok();
        if given {
            log::info!("the room that is kept for a full disk is used up, and made again when there is more");
        }
        given
    }

    fn make(&self) -> io::Result<()> {
        // Not zeros, which some file systems do not store. Whether a power cut spares it does not matter.
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
    fn it_is_given_up_once_and_kept_again() {
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
        assert!(!reserve.give_up() && !root.path().join("reserve").exists(), "half of it is no room");
        reserve.keep();
        assert!(reserve.give_up() && !reserve.give_up());
    }
}

//! The space of a file system.

use crate::io::Space;
use rustix::fs::statvfs;
use std::path::Path;

/// The space of the file system of a directory; `None` when the system does not report it.
pub(super) fn of(directory: &Path) -> Option<Space> {
    let told = statvfs(directory).ok()?;
    // Sizes are in fragments; where the fragment size is 0, in blocks.
    let unit = if told.f_frsize > 0 { told.f_frsize } else { told.f_bsize };
    Some(Space {
        block_bytes: u32::try_from(unit).unwrap_or(u32::MAX),
        total_bytes: told.f_blocks.saturating_mul(unit),
        free_bytes: told.f_bavail.saturating_mul(unit),
        total_files: told.f_files,
        free_files: told.f_favail,
    })
}

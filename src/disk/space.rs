//! What the file system has left.

use crate::io::Space;
use rustix::fs::statvfs;
use std::path::Path;

/// What the file system that a directory lies on has; `None` when it does not tell.
pub(super) fn of(directory: &Path) -> Option<Space> {
    let told = statvfs(directory).ok()?;
    // Sizes are counted in fragments; where there are none of those, in blocks.
    let unit = if told.f_frsize > 0 { told.f_frsize } else { told.f_bsize };
    Some(Space {
        block_bytes: u32::try_from(unit).unwrap_or(u32::MAX),
        total_bytes: told.f_blocks.saturating_mul(unit),
        free_bytes: told.f_bavail.saturating_mul(unit),
        total_files: told.f_files,
        free_files: told.f_favail,
    })
}

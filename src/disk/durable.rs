//! The three steps that make a file survive a power cut, always in this order: sync its data, give it its name, sync
//! the directory that has the name. After a failed sync the file is deleted, because the kernel may have dropped the
//! pages and would report success for the next sync (Rebello et al., "Can Applications Recover from fsync Failures?",
//! 2020).

use super::files::{Open, open, remove, rename, sync_data, sync_directory, write_at};
use super::layout::temporary;
use rustix::fs::OFlags;
use std::io;
use std::path::Path;

/// How a file is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    /// With all three steps: the new content survives a power cut.
    Durably,
    /// Only by the rename: after a power cut the file may have the old content, the new, or a torn one.
    Lightly,
}

/// Replaces the file at `path` by one with the content of `parts`, one after the other, readable by this user only.
pub(super) fn replace(path: &Path, parts: &[&[u8]], how: Replace) -> io::Result<()> {
    let fresh = temporary(path);
    let result = write_and_rename(&fresh, path, parts, how);
    if result.is_err() {
        let _ = remove(&fresh);
    }
    result
}

fn write_and_rename(fresh: &Path, path: &Path, parts: &[&[u8]], how: Replace) -> io::Result<()> {
    let file = open(fresh, Open::Empty, 0o600, OFlags::empty())?;
    let mut offset = 0;
    for part in parts {
        write_at(&file, fresh, part, offset)?;
        offset += part.len() as u64;
    }
    if how == Replace::Durably {
        sync_data(&file, fresh)?;
    }
    rename(fresh, path)?;
    match path.parent() {
        Some(parent) if how == Replace::Durably => sync_directory(parent),
        _ => Ok(()),
    }
}

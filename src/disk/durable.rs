//! The three steps that make a file survive a power cut, always in this order: sync its data, give it its name, sync
//! the directory that has the name. A fourth undoes: after a failed sync, what it covered is deleted, because the
//! kernel may have dropped the pages and would call the next sync a success (Rebello et al., "Can Applications
//! Recover from fsync Failures?", 2020).

use super::files::{Open, open, remove, rename, sync_data, sync_directory, write_at};
use super::layout::temporary;
use rustix::fs::OFlags;
use std::io;
use std::path::Path;

/// How a file is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    /// All three steps: afterwards the new content is there for good.
    Durably,
    /// Only the name: after a power cut there may be the old content, the new, or a torn one.
    Lightly,
}

/// Replaces what is at `path` by `parts`, one after the other. The file is nobody else's to read.
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

//! What a node finds when it starts, and what it clears away.
//!
//! Whatever was acknowledged has its final name, and everything behind a final name was synced before it got that. So
//! what has no final name is deleted, and what has one and is damaged all the same was damaged by the medium: it is
//! deleted too, with a line in the log.

use super::error::OpenError;
use super::extent::{open_regular, stamp_of};
use super::files::{self, remove, sync_directory};
use super::layout::{Layout, is_temporary};
use super::state::{LastRun, read_sealed, read_small};
use super::{piece_file, share_file};
use crate::id::Key;
use crate::io::{Ages, PieceMeta, Place, Recovered, Share};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a directory that only this user enters, and those that it lies in, unless it is there.
pub(super) fn make_directory(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_directory(parent)?,
        _ => {}
    }
    files::make_directory(path).map_err(OpenError::at(path))
}

/// Clears away what the last run left unfinished and takes stock of the rest. `ages` are this run's.
pub(super) fn recover(layout: &Layout, last: &LastRun, ages: Ages) -> Result<Recovered, OpenError> {
    for path in [layout.pieces(), layout.incoming(), layout.shares(), layout.cache()] {
        make_directory(&path)?;
    }
    for name in ["identity.key", "ages", "peers", "records"] {
        let path = super::layout::temporary(&layout.file(name));
        remove(&path).map_err(OpenError::at(&path))?;
    }
    for path in files_in(&layout.incoming())? {
        delete(&path)?;
    }
    let pieces = pieces(layout, last.ages.clean)?;
    let shares = shares(layout, last)?;
    let kept: BTreeSet<PathBuf> = shares.iter().map(|share| layout.path(&share.place)).collect();
    for path in files_in(&layout.cache())? {
        if !kept.contains(&path) {
            delete(&path)?;
        }
    }
    if !last.ages.clean {
        // A process that was killed may have named what it had no time to make the medium remember. It will be counted
        // on from now on. The root is synced when this start is counted, whatever the last run was.
        for path in [layout.pieces(), layout.shares()] {
            sync_directory(&path).map_err(OpenError::at(&path))?;
        }
    }
    let (peers, records) = (read_sealed(&layout.file("peers")), read_sealed(&layout.file("records")));
    Ok(Recovered { ages, pieces, shares, peers, records })
}

/// The stored pieces that are whole.
fn pieces(layout: &Layout, clean: bool) -> Result<Vec<PieceMeta>, OpenError> {
    let mut pieces = Vec::new();
    let mut dropped = 0;
    for directory in entries_in(&layout.pieces())?.into_iter().filter(|path| path.is_dir()) {
        for path in files_in(&directory)? {
            let found = piece_at(layout, &path).map_err(OpenError::at(&path))?;
            match found {
                Some(meta) => pieces.push(meta),
                None => {
                    log::warn!("the stored piece {} is damaged and is deleted", path.display());
                    delete(&path)?;
                    dropped += 1;
                }
            }
        }
        if !clean {
            sync_directory(&directory).map_err(OpenError::at(&directory))?;
        }
    }
    if dropped > 0 {
        log::warn!("{dropped} damaged pieces were deleted; other nodes will be asked for copies");
    }
    Ok(pieces)
}

fn piece_at(layout: &Layout, path: &Path) -> io::Result<Option<PieceMeta>> {
    match key_of(path).filter(|key| layout.path(&Place::Piece(*key)) == path) {
        Some(key) => piece_file::read(&fs::File::open(path)?, &key),
        None => Ok(None),
    }
}

/// The shares whose files are what they were.
fn shares(layout: &Layout, last: &LastRun) -> Result<Vec<Share>, OpenError> {
    let mut shares = Vec::new();
    for path in files_in(&layout.shares())? {
        match share_at(layout, &path, last) {
            Ok(share) => shares.push(share),
            Err(why) => {
                if !is_temporary(&path) {
                    log::warn!("{why}");
                }
                delete(&path)?;
            }
        }
    }
    Ok(shares)
}

fn share_at(layout: &Layout, path: &Path, last: &LastRun) -> Result<Share, String> {
    let damaged = || format!("the share {} is damaged: its file must be put in again", path.display());
    let hash = key_of(path).ok_or_else(damaged)?;
    let length = path.metadata().map_err(|_| damaged())?.len();
    let bytes = if length <= share_file::SHARE_BYTES_MAX { read_small(path).ok() } else { None };
    let share = bytes.and_then(|bytes| share_file::parse(&bytes, &hash)).ok_or_else(damaged)?;
    let file = layout.path(&share.place);
    let gone = |why: &str| format!("{} is no longer shared: {why}", file.display());
    match open_regular(&file) {
        Ok((_, metadata)) if stamp_of(&metadata) == share.stamp => {}
        Ok(_) => return Err(gone("it has changed since it was put in")),
        Err(error) => return Err(gone(&error.message)),
    }
    if !(share.synced || last.same_machine_boot) {
        return Err(gone("it was fetched shortly before the power went, and may not be whole"));
    }
    Ok(share)
}

/// The key that a file is named after.
fn key_of(path: &Path) -> Option<Key> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The regular files in a directory. What else is there is not the node's.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut paths = entries_in(directory)?;
    paths.retain(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()));
    Ok(paths)
}

fn entries_in(directory: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        paths
    });
    let mut paths = entries.map_err(OpenError::at(directory))?;
    paths.sort_unstable();
    Ok(paths)
}

fn delete(path: &Path) -> Result<(), OpenError> {
    remove(path).map_err(OpenError::at(path))
}

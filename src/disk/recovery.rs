//! Recovers the node's content at a start, and deletes what the last run left unfinished.
//!
//! An acknowledged piece has its final name, and it was synced before it got the name. So a file without a final name is deleted.
//! A damaged file with a final name was damaged by the medium: it is deleted too, with a line in the log. Files of a later version
//! stay.
//!
//! No error here keeps a node from starting: on a disk that is full, read-only or failing, it serves the content that it can read.
//! A start that could not delete everything must not count as one that did ([`Stock::cleared`]).

use super::ages::LastRun;
use super::claims;
use super::damaged::Damaged;
use super::error::OpenError;
use super::files::{self, remove, sync_directory};
use super::layout::Layout;
use super::piece_file::{self, Found};
use super::raises::Raises;
use super::shares::ShareLog;
use super::state::read_sealed;
use super::watch;
use crate::id::Key;
use crate::io::{Ages, PieceMeta, Place, Recovered};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The result of recovery.
pub(super) struct Stock {
    /// The recovered content, for the node.
    pub(super) recovered: Recovered,
    /// Whether all files that the last run left unfinished are deleted, and all names are on the medium.
    pub(super) cleared: bool,
    /// Whether every subdirectory exists.
    pub(super) has_directories: bool,
}

/// The logs, which continue those of the last run.
pub(super) struct Logs {
    pub(super) raises: Raises,
    pub(super) shares: ShareLog,
}

impl Logs {
    pub(super) fn new(layout: &Layout) -> Self {
        Logs { raises: Raises::default(), shares: ShareLog::new(layout) }
    }
}

/// Creates a directory that only this user may enter, and its parents, if they are missing.
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

/// Creates the subdirectories; `false` when one cannot be created.
pub(super) fn make_subdirectories(layout: &Layout) -> bool {
    let rooms = [layout.pieces(), layout.incoming(), layout.shares(), layout.cache()];
    let made = rooms.map(|path| make_directory(&path).map_err(|error| log::warn!("{error}")));
    made.iter().all(Result::is_ok)
}

/// Deletes what the last run left unfinished and recovers the rest. `ages` are this run's. Afterwards the logs can be appended to.
pub(super) fn recover(
    layout: &Layout,
    logs: &mut Logs,
    last: &LastRun,
    ages: Ages,
    damaged: &Damaged,
) -> Stock {
    let mut clearing = Clearing { failures: 0 };
    let has_directories = make_subdirectories(layout);
    let names = [
        "identity.key",
        "identity.key.old",
        "ages",
        "ages.copy",
        "peers",
        "records",
        "scrub",
        "raises",
        "shares.log",
        watch::TRIAL,
    ];
    for name in names {
        clearing.remove(&super::layout::temporary(&layout.file(name)));
    }
    clearing.remove(&layout.file(watch::TRIAL));
    for path in clearing.files_in(&layout.incoming()) {
        clearing.remove(&path);
    }
    let mut pieces = pieces(layout, &mut clearing, last.ages.clean);
    let complete = clearing.is_done();
    if let Err(error) = logs.raises.recover(layout, &mut pieces, last.ages.clean, complete) {
        clearing.failed("use", &layout.file("raises"), &error);
    }
    let ended = (last.ages.clean, last.same_machine_boot);
    let (shares, manifests) = claims::recover(layout, &mut logs.shares, &mut clearing, damaged, ended);
    let kept: BTreeSet<PathBuf> = shares.iter().map(|share| layout.path(&share.place)).collect();
    for path in clearing.files_in(&layout.cache()) {
        if !kept.contains(&path) {
            clearing.remove(&path);
        }
    }
    if !last.ages.clean {
        // A process that was killed may have left names that are not on the medium, and the node relies on them from now on. The
        // root directory is synced when this start is counted.
        for path in [layout.pieces(), layout.shares()] {
            clearing.sync(&path);
        }
    }
    let peers = read_sealed(&layout.file("peers"), damaged);
    let records = read_sealed(&layout.file("records"), damaged);
    let scrub = read_sealed(&layout.file("scrub"), damaged);
    let recovered = Recovered {
        ages,
        pieces,
        shares,
        manifests,
        peers,
        records,
        scrub,
        space: super::space::of(layout.root()).unwrap_or_default(),
    };
    Stock { recovered, cleared: clearing.is_done(), has_directories }
}

/// Deletes leftovers, and continues after a failure.
pub(super) struct Clearing {
    failures: u32,
}

impl Clearing {
    fn is_done(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn failed(&mut self, tried: &str, path: &Path, error: &io::Error) {
        // A disk that fails once fails often. One warning is enough.
        let level = if self.failures == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "cannot {tried} {}: {error}; the node starts anyway", path.display());
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        // A read-only file system refuses the deletion even of a missing file.
        let absent = path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if absent {
            return;
        }
        if let Err(error) = remove(path) {
            self.failed("delete", path, &error);
        }
    }

    fn sync(&mut self, directory: &Path) {
        if let Err(error) = sync_directory(directory) {
            self.failed("sync", directory, &error);
        }
    }

    /// The regular files in a directory. The node creates no others.
    pub(super) fn files_in(&mut self, directory: &Path) -> Vec<PathBuf> {
        let mut paths = self.entries_in(directory);
        paths.retain(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()));
        paths
    }

    fn entries_in(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.failed("read", directory, &error);
                return Vec::new();
            }
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => {
                    // The entries read so far are used. A failing directory may return errors for ever.
                    self.failed("read", directory, &error);
                    break;
                }
            }
        }
        paths.sort_unstable();
        paths
    }
}

/// The intact stored pieces.
fn pieces(layout: &Layout, clearing: &mut Clearing, clean: bool) -> Vec<PieceMeta> {
    let mut pieces = Vec::new();
    let (mut dropped, mut newer) = (0, 0);
    for directory in clearing.entries_in(&layout.pieces()).into_iter().filter(|path| path.is_dir()) {
        for path in clearing.files_in(&directory) {
            match piece_at(layout, &path) {
                Ok(Found::Piece(meta, _)) => pieces.push(meta),
                Ok(Found::Newer) => newer += 1,
                Ok(Found::Damaged) => {
                    log::warn!("the stored piece {} is damaged and is deleted", path.display());
                    clearing.remove(&path);
                    dropped += 1;
                }
                Err(error) => clearing.failed("read", &path, &error),
            }
        }
        if !clean {
            clearing.sync(&directory);
        }
    }
    match dropped {
        0 => {}
        1 => log::warn!("1 damaged piece was deleted; the node will ask other nodes for a copy"),
        _ => log::warn!("{dropped} damaged pieces were deleted; the node will ask other nodes for copies"),
    }
    match newer {
        0 => {}
        1 => {
            log::warn!("1 stored piece is of a later version of elver: it stays until that version runs here")
        }
        _ => log::warn!(
            "{newer} stored pieces are of a later version of elver: they stay until that version runs here"
        ),
    }
    pieces
}

fn piece_at(layout: &Layout, path: &Path) -> io::Result<Found> {
    match key_of(path).filter(|key| layout.path(&Place::Piece(*key)) == path) {
        Some(key) => piece_file::read(&fs::File::open(path)?, &key),
        None => Ok(Found::Damaged),
    }
}

/// The key in a file's name.
pub(super) fn key_of(path: &Path) -> Option<Key> {
    path.file_name()?.to_str()?.parse().ok()
}

//! What a node finds when it starts, and what it clears away.
//!
//! Whatever was acknowledged has its final name, and everything behind a final name was synced before it got that. So
//! what has no final name is deleted, and what has one and is damaged all the same was damaged by the medium: it is
//! deleted too, with a line in the log. What a later version wrote is left for that.
//!
//! Nothing here keeps a node from starting: on a disk that is full, can only be read or fails, it serves what can be read.
//! What could not be cleared away is no worse than before, but this start must not count as one that has done it
//! ([`Stock::cleared`]).

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

/// What is there.
pub(super) struct Stock {
    /// What the node hears of.
    pub(super) recovered: Recovered,
    /// Whether everything that the last run left unfinished is gone, and every name is on the medium.
    pub(super) cleared: bool,
    /// Whether every directory that something is to lie in is there.
    pub(super) has_directories: bool,
}

/// The logs that go on from where the last run left them.
pub(super) struct Logs {
    pub(super) raises: Raises,
    pub(super) shares: ShareLog,
}

impl Logs {
    pub(super) fn new(layout: &Layout) -> Self {
        Logs { raises: Raises::default(), shares: ShareLog::new(layout) }
    }
}

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

/// Makes the directories that everything lies in; `false` when there is no room for them.
pub(super) fn make_rooms(layout: &Layout) -> bool {
    let rooms = [layout.pieces(), layout.incoming(), layout.shares(), layout.cache()];
    let made = rooms.map(|path| make_directory(&path).map_err(|error| log::warn!("{error}")));
    made.iter().all(Result::is_ok)
}

/// Clears away what the last run left unfinished and takes stock of the rest. `ages` are this run's. The logs are
/// ready to be appended to afterwards.
pub(super) fn recover(
    layout: &Layout,
    logs: &mut Logs,
    last: &LastRun,
    ages: Ages,
    damaged: &Damaged,
) -> Stock {
    let mut clearing = Clearing { failures: 0 };
    let has_directories = make_rooms(layout);
    let names = [
        "identity.key",
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
        // A process that was killed may have named what it had no time to make the medium remember. It will be counted
        // on from now on. The root is synced when this start is counted, whatever the last run was.
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

/// Clearing away, which goes on past what fails.
pub(super) struct Clearing {
    failures: u32,
}

impl Clearing {
    fn is_done(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn failed(&mut self, tried: &str, path: &Path, error: &io::Error) {
        // A disk that fails once fails often: one line is enough.
        let level = if self.failures == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "cannot {tried} {}: {error}; the node starts all the same", path.display());
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        // On a read-only file system the deletion even of what is not there is refused.
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

    /// The regular files in a directory. What else is there is not the node's.
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
                    // What was listed before is used. A directory that fails may do so for ever.
                    self.failed("read", directory, &error);
                    break;
                }
            }
        }
        paths.sort_unstable();
        paths
    }
}

/// The stored pieces that are whole.
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
    if dropped > 0 {
        log::warn!("{dropped} damaged pieces were deleted; other nodes will be asked for copies");
    }
    if newer > 0 {
        log::warn!(
            "{newer} stored pieces are of a later version of elver: they are left alone until that runs here"
        );
    }
    pieces
}

fn piece_at(layout: &Layout, path: &Path) -> io::Result<Found> {
    match key_of(path).filter(|key| layout.path(&Place::Piece(*key)) == path) {
        Some(key) => piece_file::read(&fs::File::open(path)?, &key),
        None => Ok(Found::Damaged),
    }
}

/// The key that a file is named after.
pub(super) fn key_of(path: &Path) -> Option<Key> {
    path.file_name()?.to_str()?.parse().ok()
}

//! Hashed files that are not known to be on the medium. Files that are hashed at the same time share a sync.
//!
//! Every sync makes the medium flush its write cache, even for a clean file, which takes milliseconds. syncfs(2) does it once for any
//! number of files. It also writes the dirty data of other programs, so it is used only when that is little compared with the cost
//! of single syncs.

use super::error::{failed, refused};
use super::extent::stamp_of;
use super::files::{self, sync_all, sync_directory_of_others};
use super::kept::Kept;
use super::source::Source;
use super::tasks::dirty_bytes;
use crate::io::{DiskDone, DiskError, DiskErrorKind, DiskId, DiskReply};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;

/// The most turns that the first file of a group waits while others join.
const TURNS_MAX: u32 = 4;
/// Fewer files than this are synced one by one.
const GROUP_MIN: usize = 4;
/// The dirty bytes for each file of a group up to which a sync of the whole file system costs no more than single syncs.
const DIRTY_BYTES_PER_FILE: u64 = 1 << 20;
/// The files that are open to be hashed or synced: this fraction (1/8) of the descriptors that this process may open.
const OPEN_PART: u64 = 8;
const OPEN_MIN: u64 = 2;
const OPEN_MAX: u64 = 128;

/// The files that wait to be synced, each with the answer to its operation.
pub(super) struct Settling {
    group: Vec<(DiskId, Source, DiskReply)>,
    turns: u32,
    most: usize,
}

impl Settling {
    pub(super) fn new() -> Self {
        let open = getrlimit(Resource::Nofile).current.map_or(OPEN_MAX, |files| files / OPEN_PART);
        Settling { group: Vec::new(), turns: 0, most: open.clamp(OPEN_MIN, OPEN_MAX) as usize }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// The number of files that may be open to be hashed or synced, by this process's limit of descriptors.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether another file may be opened beside the `open` ones that are being read.
    pub(super) fn has_room(&self, open: usize) -> bool {
        self.group.len() + open < self.most
    }

    /// The number of waiting files.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.group.len()
    }

    /// Drops the waiting files.
    pub(super) fn clear(&mut self) {
        self.group.clear();
    }

    /// Adds a file that was hashed to its end.
    pub(super) fn push(&mut self, id: DiskId, source: Source, reply: DiskReply) {
        self.group.push((id, source, reply));
    }

    /// Syncs the group unless it waits for others. `open` files are being hashed and may still join.
    pub(super) fn flush(&mut self, open: usize, kept: &mut Kept, done: &mut VecDeque<DiskDone>) {
        if self.group.is_empty() {
            return;
        }
        self.turns += 1;
        if open > 0 && self.turns < TURNS_MAX && self.has_room(open) {
            return;
        }
        self.turns = 0;
        let group = core::mem::take(&mut self.group);
        let together = sync_together(&group);
        for (id, source, reply) in group {
            let synced = if together.contains_key(&source.metadata.dev()) { Ok(()) } else { sync(&source) };
            let result = synced.and_then(|()| check(&source)).and_then(|()| kept.hashed(&source));
            done.push_back(DiskDone { id, result: result.map(|()| reply) });
        }
    }
}

/// Syncs the file systems that have many files of the group, and returns their devices.
fn sync_together(group: &[(DiskId, Source, DiskReply)]) -> BTreeMap<u64, usize> {
    let mut systems: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, source, _) in group {
        *systems.entry(source.metadata.dev()).or_default() += 1;
    }
    systems.retain(|_, files| *files >= GROUP_MIN);
    let files: usize = systems.values().sum();
    if systems.is_empty() || dirty_bytes().is_none_or(|dirty| dirty > files as u64 * DIRTY_BYTES_PER_FILE) {
        return BTreeMap::new();
    }
    systems.retain(|device, _| {
        let first = group.iter().find(|(_, source, _)| source.metadata.dev() == *device);
        first.is_some_and(|(_, source, _)| files::sync_file_system(&source.file).is_ok())
    });
    systems
}

/// Syncs one file and its name.
fn sync(source: &Source) -> Result<(), DiskError> {
    let path = &source.path;
    match sync_all(&source.file, path) {
        // A file that cannot be synced because nothing can be written there needs no sync.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::ROFS)) => {}
        result => result.map_err(|error: io::Error| failed("sync", path, error))?,
    }
    let named = path.parent().map_or(Ok(()), sync_directory_of_others);
    named.map_err(|error| failed("sync the directory of", path, error))
}

/// Checks that the file still has the stamp of its hashing.
fn check(source: &Source) -> Result<(), DiskError> {
    match source.stamp_by_name()? == stamp_of(&source.metadata) {
        true => Ok(()),
        false => Err(refused(DiskErrorKind::Changed, &source.path, "changed while it was read")),
    }
}

//! Files that have been hashed and are not known to be on the medium: those that come together are synced together.
//!
//! Every sync has the medium empty its write cache, even when the file is clean, which takes milliseconds. `syncfs` does so
//! once for any number of files. It also writes what other programs left in memory, so it is used only when that is little
//! beside what the single syncs would cost.

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

/// How many turns the first of a group waits for others while they keep coming.
const TURNS_MAX: u32 = 4;
/// Fewer files than this are synced one by one.
const GROUP_MIN: usize = 4;
/// What the kernel may have to write for each file of a group, for a sync of everything to cost no more than theirs.
const DIRTY_BYTES_PER_FILE: u64 = 1 << 20;
/// Files that are open to be hashed or synced, as a part of all that this process may open.
const OPEN_PART: u64 = 8;
const OPEN_MIN: u64 = 2;
const OPEN_MAX: u64 = 128;

/// Files that wait to be synced, each with the answer to its operation.
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

    /// How many files may be open to be hashed or synced, by what this process may open in all.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether another file may be opened beside the `open` ones that are being read.
    pub(super) fn has_room(&self, open: usize) -> bool {
        self.group.len() + open < self.most
    }

    /// How many files wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.group.len()
    }

    /// Abandons what waits.
    pub(super) fn clear(&mut self) {
        self.group.clear();
    }

    /// A file was read to its end.
    pub(super) fn push(&mut self, id: DiskId, source: Source, reply: DiskReply) {
        self.group.push((id, source, reply));
    }

    /// Syncs what waits, if it need not wait any more. `open` files are being read and may still join.
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

/// Syncs the file systems that many files of the group lie on, and says which those are.
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

/// Has one file and its name on the medium.
fn sync(source: &Source) -> Result<(), DiskError> {
    let path = &source.path;
    match sync_all(&source.file, path) {
        // What cannot be synced because nothing can be written there is as durable as it will ever be.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::ROFS)) => {}
        result => result.map_err(|error: io::Error| failed("sync", path, error))?,
    }
    let named = path.parent().map_or(Ok(()), sync_directory_of_others);
    named.map_err(|error| failed("sync the directory of", path, error))
}

/// Whether the file is still what was read.
fn check(source: &Source) -> Result<(), DiskError> {
    match source.stamp_by_name()? == stamp_of(&source.metadata) {
        true => Ok(()),
        false => Err(refused(DiskErrorKind::Changed, &source.path, "changed while it was read")),
    }
}

//! Commits: arrived pieces become durable, several at a time.
//!
//! A piece passes four stages. It is *read* back from the page cache for its checksum, gets its trailer, and its write-out is
//! started. It *waits* for others to join its group, so that the medium writes them together. Its data is *synced*, a bounded
//! number of bytes in each turn. Then all pieces of the group get their names, each directory with new names is synced once, and
//! the pieces are reported as done.

use super::error::{failed, refused};
use super::files::{
    self, Open, make_directory, remove, remove_directory, rename, sync_data, sync_directory, write_at,
};
use super::layout::Layout;
use super::piece_file::Trailer;
use crate::io::{DiskDone, DiskError, DiskErrorKind, DiskId, DiskReply, PieceMeta, Place};
use rustix::fs::{Advice, OFlags, fadvise};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};
use zerocopy::IntoBytes;

/// A group of this many commits waits for no more,
const GROUP_MAX: usize = 16;
/// nor does a group of this many bytes.
const GROUP_BYTES_MAX: u64 = 16 << 20;
/// The most turns that the first commit of a group waits while others join.
const TURNS_MAX: u32 = 4;

/// A piece that is to be committed.
struct Pending {
    id: DiskId,
    path: PathBuf,
    meta: PieceMeta,
}

/// A piece that is being read back.
struct Reading {
    pending: Pending,
    file: File,
    position: u64,
    checksum: Box<Xxh3>,
}

/// A piece whose file is written.
struct Written {
    pending: Pending,
    file: File,
}

/// The running commits.
#[derive(Default)]
pub(super) struct Commits {
    arrived: VecDeque<Pending>,
    reading: Option<Reading>,
    group: Vec<Written>,
    group_bytes: u64,
    /// The number of pieces at the start of the group that are synced. Syncing has begun when it is not zero.
    synced: usize,
    turns: u32,
    /// New directories of pieces, whose own names may not be on the medium.
    new_directories: Vec<PathBuf>,
}

impl Commits {
    pub(super) fn has_work(&self) -> bool {
        !self.arrived.is_empty() || self.reading.is_some() || !self.group.is_empty()
    }

    /// Whether further pieces are about to join the group.
    pub(super) fn is_reading(&self) -> bool {
        !self.arrived.is_empty() || self.reading.is_some()
    }

    /// Whether the group takes no more pieces before it has been synced.
    pub(super) fn is_full(&self) -> bool {
        self.group.len() >= GROUP_MAX
    }

    /// Begins the commit of an arrived piece.
    pub(super) fn push(&mut self, layout: &Layout, id: DiskId, incoming: u64, meta: PieceMeta) {
        let path = layout.path(&Place::Incoming(incoming));
        self.arrived.push_back(Pending { id, path, meta });
    }

    /// Begins the commit of a piece in memory.
    pub(super) fn push_bytes(
        &mut self,
        id: DiskId,
        path: PathBuf,
        meta: PieceMeta,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        assert_eq!(bytes.len(), meta.length as usize, "a piece is as long as its description says");
        let pending = Pending { id, path, meta };
        let opened = files::open(&pending.path, Open::Empty, 0o600, OFlags::empty());
        let written = opened.and_then(|file| {
            write_at(&file, &pending.path, bytes, 0)?;
            Ok(file)
        });
        match written {
            Ok(file) => self.complete(pending, file, xxh3_64(bytes)),
            Err(error) => Err(abandon(&pending.path, error)),
        }
    }

    /// Reads pieces back, at most `left` bytes, as long as the group has room.
    pub(super) fn read(&mut self, buffer: &mut [u8], left: &mut u64, done: &mut VecDeque<DiskDone>) {
        while *left > 0 && !self.is_full() {
            let reading = match self.reading.take() {
                Some(reading) => reading,
                None => match self.arrived.pop_front() {
                    Some(pending) => match open(pending) {
                        Ok(reading) => reading,
                        Err(failure) => {
                            done.push_back(failure);
                            continue;
                        }
                    },
                    None => return,
                },
            };
            let id = reading.pending.id;
            if let Err(error) = self.read_slice(reading, buffer, left) {
                done.push_back(DiskDone { id, result: Err(error) });
            }
        }
    }

    fn read_slice(
        &mut self,
        mut reading: Reading,
        buffer: &mut [u8],
        left: &mut u64,
    ) -> Result<(), DiskError> {
        let missing = u64::from(reading.pending.meta.length) - reading.position;
        let most = missing.min(*left).min(buffer.len() as u64) as usize;
        let read = match reading.file.read_at(&mut buffer[..most], reading.position) {
            Ok(0) if most > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            result => result,
        };
        let read = read.map_err(|error| abandon(&reading.pending.path, error))?;
        reading.checksum.update(&buffer[..read]);
        reading.position += read as u64;
        *left = left.saturating_sub((read as u64).max(1));
        if read as u64 == missing {
            let checksum = reading.checksum.digest();
            return self.complete(reading.pending, reading.file, checksum);
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// Appends the trailer to a piece's file and starts its write-out.
    fn complete(&mut self, pending: Pending, file: File, checksum: u64) -> Result<(), DiskError> {
        let trailer = Trailer::new(&pending.meta, checksum);
        let written = write_at(&file, &pending.path, trailer.as_bytes(), u64::from(pending.meta.length));
        written.map_err(|error| abandon(&pending.path, error))?;
        // Linux starts to write out the dirty pages of a range that is marked as not needed. Otherwise the sync writes them.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        self.group_bytes += u64::from(pending.meta.length);
        self.group.push(Written { pending, file });
        Ok(())
    }

    /// Continues with the group unless it waits: syncs files until more than `bytes` are synced, and names them when all are.
    /// `more` tells that others may still join.
    pub(super) fn flush(&mut self, layout: &Layout, bytes: u64, more: bool, done: &mut VecDeque<DiskDone>) {
        if self.group.is_empty() {
            return;
        }
        self.turns += 1;
        let full = self.is_full() || self.group_bytes >= GROUP_BYTES_MAX;
        let begun = self.synced > 0;
        if more && !full && !begun && self.turns < TURNS_MAX {
            return;
        }
        let mut spent = 0;
        while self.synced < self.group.len() && spent <= bytes {
            let Written { pending, file } = &self.group[self.synced];
            spent += u64::from(pending.meta.length).max(1);
            match sync_data(file, &pending.path) {
                Ok(()) => self.synced += 1,
                Err(error) => {
                    let Written { pending, .. } = self.group.remove(self.synced);
                    let result = Err(abandon(&pending.path, error));
                    done.push_back(DiskDone { id: pending.id, result });
                }
            }
        }
        if self.synced == self.group.len() {
            self.name(layout, done);
        }
    }

    /// Names the synced group, and syncs the names.
    fn name(&mut self, layout: &Layout, done: &mut VecDeque<DiskDone>) {
        let mut named: BTreeMap<PathBuf, Vec<(DiskId, PathBuf)>> = BTreeMap::new();
        for Written { pending, .. } in self.group.drain(..) {
            let target = layout.path(&Place::Piece(pending.meta.key));
            let directory = target.parent().expect("a piece lies in a directory").to_owned();
            let made = match make_directory(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Ok(()) => {
                    self.new_directories.push(directory.clone());
                    Ok(())
                }
                Err(error) => Err(error),
            };
            match made.and_then(|()| rename(&pending.path, &target)) {
                Ok(()) => named.entry(directory).or_default().push((pending.id, target)),
                Err(error) => {
                    let result = Err(abandon(&pending.path, error));
                    done.push_back(DiskDone { id: pending.id, result });
                }
            }
        }
        (self.group_bytes, self.synced, self.turns) = (0, 0, 0);
        let parent = match self.new_directories.is_empty() {
            true => Ok(()),
            false => sync_directory(&layout.pieces()),
        };
        for (directory, pieces) in named {
            let synced = match &parent {
                Ok(()) => sync_directory(&directory),
                Err(error) => Err(same(error)),
            };
            for (id, target) in pieces {
                let result = match &synced {
                    Ok(()) => Ok(DiskReply::Done),
                    Err(error) => Err(abandon(&target, same(error))),
                };
                done.push_back(DiskDone { id, result });
            }
        }
        match parent {
            Ok(()) => self.new_directories.clear(),
            // The directories are empty by now. After the failed sync their names are not trusted: they are removed, and created
            // again when they are needed.
            Err(_) => self.new_directories.retain(|directory| remove_directory(directory).is_err()),
        }
    }
}

fn open(pending: Pending) -> Result<Reading, DiskDone> {
    // No byte of an empty piece arrives, so its file may not exist.
    let how = if pending.meta.length == 0 { Open::Keep } else { Open::Existing };
    let opened = files::open(&pending.path, how, 0o600, OFlags::empty());
    let checked = opened.map_err(|error| failed("commit", &pending.path, error)).and_then(|file| {
        let metadata = file.metadata().map_err(|error| failed("commit", &pending.path, error))?;
        match metadata.len() == u64::from(pending.meta.length) {
            true => Ok(file),
            false => {
                let _ = remove(&pending.path);
                Err(refused(DiskErrorKind::Changed, &pending.path, "does not have the length of its piece"))
            }
        }
    });
    match checked {
        Ok(file) => Ok(Reading { pending, file, position: 0, checksum: Box::new(Xxh3::new()) }),
        Err(error) => Err(DiskDone { id: pending.id, result: Err(error) }),
    }
}

/// A copy of an error: one failed sync fails several commits.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Deletes a file that cannot be trusted, and returns the error.
fn abandon(path: &Path, error: io::Error) -> DiskError {
    let _ = remove(path);
    failed("store", path, error)
}

//! Open extents: runs of bytes that go from a file to a socket.

use super::error::{changed, disk_error, failed, refused};
use super::outflow::Source;
use crate::io::{DiskError, DiskErrorKind, Extent, FileStamp, Mode, Run};
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The stamp of a file.
pub(super) fn stamp_of(metadata: &Metadata) -> FileStamp {
    let nanoseconds = |seconds: i64, rest| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
    // No program can set the time of change, so runs that must be reproducible leave it out.
    #[cfg(any(test, feature = "sim"))]
    let changed = if super::power_loss::record::is_active() { 0 } else { changed };
    FileStamp { length: metadata.len(), modified, changed, mode: Mode::of(metadata.mode()) }
}

/// Opens a regular file for reading, and refuses any other. Opening a named pipe does not block.
pub(super) fn open_regular(path: &Path) -> Result<(File, Metadata), DiskError> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let file = opened.map_err(|error| failed("open", path, error))?;
    let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(refused(DiskErrorKind::Unsuitable, path, "is not a regular file")),
    }
}

/// A run of bytes of an open file, which is sent or read in order.
pub struct OpenExtent {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    remaining: u32,
    stamp: Option<FileStamp>,
    /// Whether it is read and written, because sendfile(2) is refused.
    copied: bool,
}

impl OpenExtent {
    /// Checks the extent against its open file, whose path is `path`.
    pub(super) fn new(
        (file, metadata): (Arc<File>, Metadata),
        path: PathBuf,
        extent: &Extent,
    ) -> Result<Self, DiskError> {
        if extent.stamp.is_some_and(|stamp| stamp != stamp_of(&metadata)) {
            return Err(changed(&path));
        }
        if extent.offset.saturating_add(u64::from(extent.length)) > metadata.len() {
            return Err(refused(DiskErrorKind::Changed, &path, "is too short: it was changed"));
        }
        let Extent { offset, length, stamp, .. } = *extent;
        Ok(OpenExtent { file, path, offset, remaining: length, stamp, copied: false })
    }

    /// The number of bytes left.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// The error of the file, if an error of [`send`](OpenExtent::send) is one.
    pub fn disk_error(error: &io::Error) -> Option<&DiskError> {
        disk_error(error)
    }

    /// Reads the next bytes into the start of `buffer`; 0 when there are no more.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.check()?;
        let count = buffer.len().min(self.remaining as usize);
        let read = self.file.read_at(&mut buffer[..count], self.offset);
        let read = read.map_err(|error| failed("read", &self.path, error))?;
        if read == 0 && count > 0 {
            return Err(self.short());
        }
        self.advance(read);
        Ok(read)
    }

    /// A part of it, to be read on its own. It must lie inside.
    pub(super) fn part(&self, run: Run) -> OpenExtent {
        debug_assert!(run.offset.saturating_add(run.length) <= self.remaining, "a part of the extent");
        OpenExtent {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            offset: self.offset + u64::from(run.offset),
            remaining: run.length.min(self.remaining.saturating_sub(run.offset)),
            stamp: self.stamp,
            copied: self.copied,
        }
    }

    /// Checks that the file still has the expected stamp.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        let Some(stamp) = self.stamp else {
            return Ok(());
        };
        let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
        if stamp_of(&metadata) == stamp { Ok(()) } else { Err(changed(&self.path)) }
    }

    /// Has the kernel read the extent ahead.
    pub(super) fn announce(&self) {
        let length = NonZeroU64::new(u64::from(self.remaining));
        if length.is_some() {
            // A hint only: without it the kernel reads the bytes when they are sent.
            let _ = fadvise(&self.file, self.offset, length, Advice::WillNeed);
        }
    }

    /// The source of the next bytes.
    pub(super) fn source(&mut self) -> Source<'_> {
        let OpenExtent { file, path, offset, copied, .. } = self;
        Source { file, path, offset: *offset, copied }
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.offset += count as u64;
        self.remaining -= count as u32;
    }

    pub(super) fn short(&self) -> DiskError {
        match self.stamp {
            Some(_) => changed(&self.path),
            None => refused(DiskErrorKind::Changed, &self.path, "is too short: it was changed"),
        }
    }
}

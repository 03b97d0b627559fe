//! Reading: runs of bytes that go to a socket without passing through the process.

use super::error::{changed, disk_error, failed, refused};
use super::outflow::Source;
use crate::io::{DiskError, DiskErrorKind, Extent, FileStamp, Mode};
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file looks like.
pub(super) fn stamp_of(metadata: &Metadata) -> FileStamp {
    let nanoseconds = |seconds: i64, rest| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
    // No program can set it, so where files are to look the same in every run it is left out.
    #[cfg(any(test, feature = "sim"))]
    let changed = if super::power_loss::record::is_active() { 0 } else { changed };
    FileStamp { length: metadata.len(), modified, changed, mode: Mode::of(metadata.mode()) }
}

/// Opens a regular file for reading. What is not one is refused, and a pipe does not block whoever opens it.
pub(super) fn open_regular(path: &Path) -> Result<(File, Metadata), DiskError> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let file = opened.map_err(|error| failed("open", path, error))?;
    let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(refused(DiskErrorKind::Unsuitable, path, "is not a regular file")),
    }
}

/// A run of bytes of an open file, sent or read from its start to its end.
pub struct OpenExtent {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    remaining: u32,
    stamp: Option<FileStamp>,
    /// Whether it is read and written, because it cannot be sent from where it lies.
    copied: bool,
}

impl OpenExtent {
    /// `opened` is the extent's file, which lies at `path`.
    pub(super) fn new(
        (file, metadata): (Arc<File>, Metadata),
        path: PathBuf,
        extent: &Extent,
    ) -> Result<Self, DiskError> {
        if extent.stamp.is_some_and(|stamp| stamp != stamp_of(&metadata)) {
            return Err(changed(&path));
        }
        if extent.offset.saturating_add(u64::from(extent.length)) > metadata.len() {
            return Err(refused(DiskErrorKind::Changed, &path, "is shorter than it should be"));
        }
        let Extent { offset, length, stamp, .. } = *extent;
        Ok(OpenExtent { file, path, offset, remaining: length, stamp, copied: false })
    }

    /// Bytes that have not been sent.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// What [`send`](OpenExtent::send) has to say about the file, when its error is about that.
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

    /// Whether the file is still what it was, so that what has been read is what was asked for.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        let Some(stamp) = self.stamp else {
            return Ok(());
        };
        let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
        if stamp_of(&metadata) == stamp { Ok(()) } else { Err(changed(&self.path)) }
    }

    /// Has the kernel read ahead what will be sent.
    pub(super) fn announce(&self) {
        let length = NonZeroU64::new(u64::from(self.remaining));
        if length.is_some() {
            // Only a hint: where the file system does not take it, the bytes are read when they are sent.
            let _ = fadvise(&self.file, self.offset, length, Advice::WillNeed);
        }
    }

    /// Where the next byte comes from.
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
            None => refused(DiskErrorKind::Changed, &self.path, "is shorter than it should be"),
        }
    }
}

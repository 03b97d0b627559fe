//! Tasks: operations that read much, a slice at a time, so that none stalls the loop.

use super::error::{failed, refused};
use super::extent::{OpenExtent, stamp_of};
use super::sink::OpenSink;
use super::source::Source;
use super::target::Targets;
use crate::io::{DiskError, DiskErrorKind, DiskReply, FileStamp, Place, Run};
use crate::manifest::{CHUNK_BYTES_MAX, FILE_BYTES_MAX, ManifestBuilder};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 16 << 20;
/// A file written within this time may have pages that the kernel has not begun to write out.
const DIRTY_AGE: Duration = Duration::from_secs(120);
/// The most dirty bytes that one sync may write at once.
const DIRTY_BYTES: u64 = 32 << 20;

/// The resources and the results of one step of a task.
pub(super) struct Slice<'a> {
    /// The buffer to read into.
    pub(super) buffer: &'a mut [u8],
    /// The number of bytes read.
    pub(super) read: usize,
    /// A report of progress.
    pub(super) progress: Option<DiskReply>,
    /// Whether the task waits for the medium.
    pub(super) waits: bool,
}

/// An operation over several turns.
pub(super) trait Task: Send {
    /// Reads at most as many bytes as the buffer has. Returns the answer when the task is done.
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError>;

    /// After the end of the task: changes the open targets, such as by adding one.
    fn keep(&mut self, _: &mut Targets) -> Result<(), DiskError> {
        Ok(())
    }

    /// The file that must be on the medium before the answer is given.
    fn unsettled(&self) -> Option<Source> {
        None
    }

    /// Whether it opens or finishes the target of the download at this place.
    fn is_about(&self, _: &Place) -> bool {
        false
    }
}

/// Decides when to report progress.
pub(super) struct Reports {
    next: u64,
}

impl Reports {
    /// The first report comes after [`PROGRESS_BYTES`].
    pub(super) fn new() -> Self {
        Reports { next: PROGRESS_BYTES }
    }

    pub(super) fn at(&mut self, done: u64, total: u64) -> Option<DiskReply> {
        (done >= self.next).then(|| {
            self.next = done + PROGRESS_BYTES;
            DiskReply::Progress { done, total }
        })
    }
}

/// Hashes a file of the user.
pub(super) struct Hash {
    source: Source,
    stamp: FileStamp,
    builder: Option<ManifestBuilder>,
    dirty: bool,
    /// Whether the file takes less space than its length, so that it has holes.
    sparse: bool,
    reports: Reports,
}

impl Hash {
    pub(super) fn new(source: Source) -> Result<Self, DiskError> {
        let Source { path, file, metadata, .. } = &source;
        let Some(builder) = ManifestBuilder::new(metadata.len()) else {
            let limit = FILE_BYTES_MAX >> 30;
            return Err(refused(DiskErrorKind::Unsuitable, path, format_args!("is over {limit} GiB")));
        };
        let _ = fadvise(file, 0, None, Advice::Sequential);
        let dirty = may_be_dirty(metadata);
        let sparse = metadata.blocks().saturating_mul(512) < metadata.len();
        let reports = Reports::new();
        let stamp = stamp_of(metadata);
        Ok(Hash { source, stamp, builder: Some(builder), dirty, sparse, reports })
    }

    /// Reads the next bytes. Those in a hole are zeros, which need not go through the page cache.
    fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let hole = if self.sparse { hole_bytes(&self.source.file, from) } else { 0 };
        if hole == 0 {
            return self.source.file.read_at(buffer, from);
        }
        let count = hole.min(buffer.len() as u64) as usize;
        buffer[..count].fill(0);
        Ok(count)
    }

    fn finish(&mut self) -> Result<DiskReply, DiskError> {
        self.source.check_end()?;
        let manifest = self.builder.take().and_then(ManifestBuilder::finish).expect("every byte was fed");
        let (manifest, kept_open) = (Arc::new(manifest), self.source.only_passed);
        Ok(DiskReply::Hashed { manifest, stamp: self.stamp, kept_open })
    }
}

/// Whether a sync of this file may write more than the loop can wait for.
fn may_be_dirty(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    let fresh = age.is_none_or(|age| age < DIRTY_AGE) && metadata.len() > DIRTY_BYTES;
    fresh && dirty_bytes().is_none_or(|bytes| bytes > DIRTY_BYTES)
}

/// The dirty bytes of all file systems; `None` when the kernel does not report them.
pub(super) fn dirty_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Dirty:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

impl Task for Hash {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        let builder = self.builder.as_ref().expect("a task that is done takes no more steps");
        let (from, total) = (builder.position(), self.stamp.length);
        if from == total {
            return self.finish().map(Some);
        }
        let most = (total - from).min(slice.buffer.len() as u64) as usize;
        let read = self.read(&mut slice.buffer[..most], from);
        slice.read = read.map_err(|error| failed("read", &self.source.path, error))?;
        if slice.read == 0 {
            return Err(self.source.misfit("shorter"));
        }
        let builder = self.builder.as_mut().expect("a task that is done takes no more steps");
        builder.update(&slice.buffer[..slice.read]);
        if self.dirty {
            // Starts the write-out of dirty pages here, so that little is left for the sync at the end: after 1 GiB just written
            // it takes 20 ms instead of 570 ms (measured on one machine). Clean pages leave the page cache, so this is done only
            // for recently written files, and only while the kernel has much to write.
            let _ = fadvise(&self.source.file, from, NonZeroU64::new(slice.read as u64), Advice::DontNeed);
        }
        slice.progress = self.reports.at(from + slice.read as u64, total);
        Ok(None)
    }

    fn unsettled(&self) -> Option<Source> {
        Some(self.source.clone())
    }
}

/// The length of the hole at an offset; 0 where there is data, or where the file system does not tell. A hole at the end extends to
/// the end of the file.
fn hole_bytes(file: &File, from: u64) -> u64 {
    let end = match seek(file, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => seek(file, SeekFrom::End(0)),
        result => result,
    };
    end.map_or(0, |end| end.saturating_sub(from))
}

/// Copies a piece and hashes it.
pub(super) struct Copy {
    from: OpenExtent,
    /// `None` when it is done.
    to: Option<OpenSink>,
}

impl Copy {
    pub(super) fn new(from: OpenExtent, to: OpenSink) -> Self {
        Copy { from, to: Some(to) }
    }
}

impl Task for Copy {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        let to = self.to.as_mut().expect("a task that is done takes no more steps");
        slice.read = self.from.read(slice.buffer)?;
        let taken = to.write(&slice.buffer[..slice.read])?;
        if taken == slice.read && self.from.remaining() > 0 && to.remaining() > 0 {
            return Ok(None);
        }
        self.from.check()?;
        match self.to.take() {
            Some(to) if to.remaining() == 0 => Ok(Some(DiskReply::Copied { key: to.finish()? })),
            _ => Err(short_copy()),
        }
    }
}

fn short_copy() -> DiskError {
    let message = "the piece to copy is shorter than its place".to_owned();
    DiskError { kind: DiskErrorKind::Failed, message }
}

/// Reads a part of a file into memory.
pub(super) struct Read {
    from: OpenExtent,
    bytes: Vec<u8>,
}

impl Read {
    pub(super) fn new(from: OpenExtent, path: &Path) -> Result<Self, DiskError> {
        let length = from.remaining();
        if u64::from(length) > CHUNK_BYTES_MAX {
            return Err(refused(DiskErrorKind::Unsuitable, path, "is too long to be read into memory"));
        }
        Ok(Read { from, bytes: Vec::with_capacity(length as usize) })
    }
}

impl Task for Read {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        slice.read = self.from.read(slice.buffer)?;
        self.bytes.extend_from_slice(&slice.buffer[..slice.read]);
        if self.from.remaining() > 0 {
            return Ok(None);
        }
        self.from.check()?;
        Ok(Some(DiskReply::Bytes(core::mem::take(&mut self.bytes))))
    }
}

/// Reads parts of an extent into memory, one part a step: on a medium that seeks each takes its time.
pub(super) struct Sample {
    from: OpenExtent,
    /// The parts that are left.
    runs: VecDeque<Run>,
    part: Option<OpenExtent>,
    bytes: Vec<u8>,
}

impl Sample {
    pub(super) fn new(from: OpenExtent, runs: Vec<Run>) -> Self {
        Sample { from, runs: runs.into(), part: None, bytes: Vec::new() }
    }
}

impl Task for Sample {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if self.part.is_none() {
            self.part = self.runs.pop_front().map(|run| self.from.part(run));
        }
        if let Some(part) = &mut self.part {
            slice.read = part.read(slice.buffer)?;
            self.bytes.extend_from_slice(&slice.buffer[..slice.read]);
            if part.remaining() == 0 {
                self.part = None;
            }
        }
        if self.part.is_some() || !self.runs.is_empty() {
            return Ok(None);
        }
        self.from.check()?;
        Ok(Some(DiskReply::Bytes(core::mem::take(&mut self.bytes))))
    }
}

//! Checks which chunks of a file match its manifest.

use super::error::failed;
use super::tasks::{Reports, Slice, Task};
use crate::io::{DiskError, DiskReply};
use crate::manifest::Manifest;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Hashes every chunk of a file, a slice at a time.
pub(super) struct Check {
    file: Arc<File>,
    path: PathBuf,
    manifest: Arc<Manifest>,
    good: Vec<bool>,
    holes: Holes,
    /// The current chunk, the number of its bytes hashed, and their hasher.
    chunk: u32,
    position: u64,
    hasher: blake3::Hasher,
    reports: Reports,
}

/// The meaning of a chunk that consists of a hole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    /// It has zeros.
    Zeros,
    /// It was never written. If it should have zeros, it is fetched once more.
    Unwritten,
}

/// The result of a step.
pub(super) enum Step {
    /// There is more to hash.
    Goes,
    /// The end: for each chunk, whether it is good.
    Done(Vec<bool>),
}

impl Check {
    pub(super) fn new(file: Arc<File>, path: PathBuf, manifest: Arc<Manifest>, holes: Holes) -> Self {
        let good = vec![false; manifest.chunk_count() as usize];
        let hasher = manifest.hash_as(0).hasher();
        Check { file, path, manifest, good, holes, chunk: 0, position: 0, hasher, reports: Reports::new() }
    }

    /// Advances to the next chunk that has to be hashed. `false` when there is none.
    fn seek_data(&mut self) -> Result<bool, DiskError> {
        if self.chunk >= self.manifest.chunk_count() {
            return Ok(false);
        }
        if self.holes == Holes::Zeros {
            return Ok(true);
        }
        let from = self.manifest.chunk_offset(self.chunk);
        match seek(&self.file, SeekFrom::Data(from)) {
            Ok(data) if data >= self.manifest.length() => Ok(false),
            Ok(data) => {
                self.begin((data / self.manifest.chunk_bytes()) as u32);
                Ok(true)
            }
            Err(Errno::NXIO) => Ok(false),
            // The file system does not support holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(true),
            Err(errno) => Err(failed("read", &self.path, errno)),
        }
    }

    fn begin(&mut self, chunk: u32) {
        (self.chunk, self.position) = (chunk, 0);
        if chunk < self.manifest.chunk_count() {
            self.hasher = self.manifest.hash_as(chunk).hasher();
        }
    }

    fn end_chunk(&mut self) {
        let key = self.manifest.hash_as(self.chunk).key(&self.hasher);
        self.good[self.chunk as usize] = key == self.manifest.keys()[self.chunk as usize];
        self.begin(self.chunk + 1);
    }

    fn over(&mut self) -> Step {
        Step::Done(core::mem::take(&mut self.good))
    }

    /// Hashes at most as many bytes as the slice's buffer has.
    pub(super) fn advance(&mut self, slice: &mut Slice<'_>) -> Result<Step, DiskError> {
        if self.manifest.length() == 0 && self.chunk == 0 {
            // An empty file is complete.
            self.end_chunk();
        }
        if self.position == 0 && !self.seek_data()? {
            return Ok(self.over());
        }
        let length = u64::from(self.manifest.chunk_length(self.chunk));
        let at = self.manifest.chunk_offset(self.chunk) + self.position;
        let most = (length - self.position).min(slice.buffer.len() as u64) as usize;
        let read = self.file.read_at(&mut slice.buffer[..most], at);
        slice.read = read.map_err(|error| failed("read", &self.path, error))?;
        if slice.read == 0 {
            // The file ends here, so the chunks that follow are missing.
            return Ok(self.over());
        }
        self.hasher.update(&slice.buffer[..slice.read]);
        self.position += slice.read as u64;
        slice.progress = self.reports.at(at + slice.read as u64, self.manifest.length());
        if self.position == length {
            self.end_chunk();
        }
        Ok(Step::Goes)
    }
}

impl Task for Check {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        match self.advance(slice)? {
            Step::Goes => Ok(None),
            Step::Done(good) => Ok(Some(DiskReply::Checked { good })),
        }
    }
}

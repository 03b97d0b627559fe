//! From a socket into a file without a detour through the process: the kernel moves what arrived into a pipe and from the
//! pipe into the page cache (splice(2)), and what is hashed is read back from there while it is hot. That costs a copy less
//! than reading and writing, and the bytes that are checked are the bytes that are stored.
//!
//! Where the kernel, a socket or a file system refuses to splice, content is read and written instead.

use super::error::is_call_refused;
use super::files::splice_at;
#[cfg(any(test, feature = "sim"))]
use super::power_loss::record::{self, Kind};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::fs::File;
use std::io;
use std::path::Path;

/// The most content that is taken from a socket at a time. It is still in the processor's cache when it is hashed, and
/// large enough for the file system to use large folios.
const TAKEN_BYTES_MAX: usize = 256 << 10;
/// What is hashed at a time.
pub(super) const HASHED_BYTES: usize = 64 << 10;
/// What the pipe is asked to hold. A slot of it holds what one packet brought, so it must have more room than is taken.
const PIPE_BYTES: usize = 1 << 20;
/// Takes smaller than this are cheaper read and written than spliced: two calls instead of three.
const SPLICED_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(HASHED_BYTES <= TAKEN_BYTES_MAX);

/// How content gets from sockets into files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// Through a pipe, where that is possible.
    #[default]
    Spliced,
    /// Through the process.
    Copied,
}

/// What the sinks of all streams share: whatever is taken from one stream is in its file before the next has its turn.
pub struct Intake {
    way: Way,
    /// Made when it is first needed. Empty whenever nobody is at it.
    pipe: Option<Pipe>,
    buffer: Box<[u8]>,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// What came of an attempt to move bytes through the pipe.
pub(super) enum Spliced {
    /// So many bytes went on their way.
    Bytes(usize),
    /// It cannot be done like this. Nothing was moved.
    Refused,
}

impl Intake {
    /// An intake that goes this way.
    pub fn new(way: Way) -> Self {
        Intake { way, pipe: None, buffer: vec![0; TAKEN_BYTES_MAX].into_boxed_slice() }
    }

    /// An intake that takes nothing: it holds the place of one that is in use.
    pub fn none() -> Self {
        Intake { way: Way::Copied, pipe: None, buffer: Box::default() }
    }

    /// Room for what is read through the process.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Whether splicing is worth a try when so many bytes are expected.
    pub(super) fn is_splicing(&self, expected: usize) -> bool {
        self.way == Way::Spliced && expected >= SPLICED_BYTES_MIN
    }

    /// Moves at most `max` bytes from a socket into the pipe; 0 bytes when the other end has closed it. The pipe must be
    /// emptied before it is filled again.
    pub(super) fn fill(&mut self, socket: impl AsFd, max: usize) -> Result<Spliced, Errno> {
        // Descriptors may have run out for a moment: the next take tries again.
        let Some(pipe) = self.pipe() else { return Ok(Spliced::Refused) };
        match fill(socket, pipe, max.min(TAKEN_BYTES_MAX)) {
            Ok(bytes) => Ok(Spliced::Bytes(bytes)),
            // No socket of this kind can be spliced from, or nothing may be spliced at all.
            Err(errno) if is_call_refused(errno) => {
                self.way = Way::Copied;
                Ok(Spliced::Refused)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Moves at most `max` bytes of what is in the pipe into a file.
    pub(super) fn empty(&self, file: &File, path: &Path, offset: u64, max: usize) -> io::Result<Spliced> {
        let Some(pipe) = &self.pipe else { return Ok(Spliced::Refused) };
        match splice_at(&pipe.reader, file, path, offset, max) {
            Ok(bytes) => Ok(Spliced::Bytes(bytes)),
            Err(error) => match Errno::from_io_error(&error) {
                // This file system cannot.
                Some(errno) if is_call_refused(errno) => Ok(Spliced::Refused),
                _ => Err(error),
            },
        }
    }

    /// Reads at most `max` bytes of what is in the pipe.
    pub(super) fn read(&mut self, max: usize) -> Result<&[u8], Errno> {
        let Some(pipe) = &self.pipe else { return Ok(&[]) };
        let most = max.min(self.buffer.len());
        let read = rustix::io::read(&pipe.reader, &mut self.buffer[..most])?;
        Ok(&self.buffer[..read])
    }

    /// Throws away what is in the pipe.
    pub(super) fn discard(&mut self) {
        self.pipe = None;
    }

    fn pipe(&mut self) -> Option<&Pipe> {
        if self.pipe.is_none() {
            // Nobody ever waits at it: a pipe that is not as full as it should be is an error, not a loop that stands still.
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // Where it may not be as large, less fits into it at a time.
            let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
            self.pipe = Some(Pipe { reader, writer });
        }
        self.pipe.as_ref()
    }
}

fn fill(socket: impl AsFd, pipe: &Pipe, max: usize) -> Result<usize, Errno> {
    #[cfg(any(test, feature = "sim"))]
    if let Err(error) = record::attempt(Kind::Fill, Path::new("")) {
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    splice(socket, None, &pipe.writer, None, max, SpliceFlags::NONBLOCK)
}

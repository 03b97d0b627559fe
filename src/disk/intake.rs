//! Moves content from a socket into a file with splice(2): the kernel moves the bytes into a pipe, and from the pipe into the page
//! cache. The driver reads them back from there to hash them, while they are in the processor's cache. That saves a copy, and the
//! bytes that are verified are those in the file.
//!
//! Where the kernel, a socket or a file system refuses to splice, the driver reads and writes instead.

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

/// The most bytes taken from a socket at a time: few enough to be in the processor's cache when they are hashed, and enough for
/// the file system to use large folios.
const TAKEN_BYTES_MAX: usize = 256 << 10;
/// Bytes hashed at a time.
pub(super) const HASHED_BYTES: usize = 64 << 10;
/// The requested capacity of the pipe. Each of its slots holds the bytes of one packet, so it needs more capacity than is taken.
const PIPE_BYTES: usize = 1 << 20;
/// Below this number of bytes, reading and writing (two calls) is cheaper than splicing (three calls).
const SPLICED_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(HASHED_BYTES <= TAKEN_BYTES_MAX);

/// How content is moved from sockets into files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// With splice(2), where possible.
    #[default]
    Spliced,
    /// With read(2) and write(2).
    Copied,
}

/// The pipe and the buffer that the sinks of all streams share. The bytes of one stream are in its file before the next stream has
/// its turn.
pub struct Intake {
    way: Way,
    /// Created when first needed. Empty between two streams.
    pipe: Option<Pipe>,
    buffer: Box<[u8]>,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// The result of an attempt to splice.
pub(super) enum Spliced {
    /// This number of bytes was moved.
    Bytes(usize),
    /// Splicing is impossible here. No byte was moved.
    Refused,
}

impl Intake {
    /// An intake that moves content in this way.
    pub fn new(way: Way) -> Self {
        Intake { way, pipe: None, buffer: vec![0; TAKEN_BYTES_MAX].into_boxed_slice() }
    }

    /// A placeholder for an intake that is in use.
    pub fn none() -> Self {
        Intake { way: Way::Copied, pipe: None, buffer: Box::default() }
    }

    /// The buffer for bytes that are read into memory.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Whether splicing is worthwhile for this number of expected bytes.
    pub(super) fn is_splicing(&self, expected: usize) -> bool {
        self.way == Way::Spliced && expected >= SPLICED_BYTES_MIN
    }

    /// Moves at most `max` bytes from a socket into the pipe; 0 bytes when the other end has closed it. The caller empties the pipe
    /// before it fills it again.
    pub(super) fn fill(&mut self, socket: impl AsFd, max: usize) -> Result<Spliced, Errno> {
        // Descriptors may have run out. The next call tries again.
        let Some(pipe) = self.pipe() else { return Ok(Spliced::Refused) };
        match fill(socket, pipe, max.min(TAKEN_BYTES_MAX)) {
            Ok(bytes) => Ok(Spliced::Bytes(bytes)),
            // Sockets of this kind cannot be spliced, or a filter forbids splice(2).
            Err(errno) if is_call_refused(errno) => {
                self.way = Way::Copied;
                Ok(Spliced::Refused)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Moves at most `max` bytes from the pipe into a file.
    pub(super) fn empty(&self, file: &File, path: &Path, offset: u64, max: usize) -> io::Result<Spliced> {
        let Some(pipe) = &self.pipe else { return Ok(Spliced::Refused) };
        match splice_at(&pipe.reader, file, path, offset, max) {
            Ok(bytes) => Ok(Spliced::Bytes(bytes)),
            Err(error) => match Errno::from_io_error(&error) {
                // The file system cannot splice.
                Some(errno) if is_call_refused(errno) => Ok(Spliced::Refused),
                _ => Err(error),
            },
        }
    }

    /// Reads at most `max` bytes from the pipe.
    pub(super) fn read(&mut self, max: usize) -> Result<&[u8], Errno> {
        let Some(pipe) = &self.pipe else { return Ok(&[]) };
        let most = max.min(self.buffer.len());
        let read = rustix::io::read(&pipe.reader, &mut self.buffer[..most])?;
        Ok(&self.buffer[..read])
    }

    /// Discards the pipe's content.
    pub(super) fn discard(&mut self) {
        self.pipe = None;
    }

    fn pipe(&mut self) -> Option<&Pipe> {
        if self.pipe.is_none() {
            // Non-blocking: a pipe with fewer bytes than expected must be an error, and not block the loop.
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // If the capacity is refused, each call moves less.
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

//! Open sinks: arriving bytes go into their file and are hashed.

use super::error::{disk_error, failed, refused};
use super::files::{self, Open, write_at};
use super::intake::{HASHED_BYTES, Intake, Spliced};
use super::layout::Layout;
use super::target::{Target, Targets};
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, Place, Sink};
use crate::manifest::HashAs;
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The shortest run of zeros that becomes a hole.
const HOLE_BYTES_MIN: u64 = 64 << 10;
/// The usual allocation unit of file systems.
const PAGE_BYTES: u64 = 4096;

/// A part of a file that is being written.
pub struct OpenSink {
    output: Output,
    zeros: Option<Zeros>,
    /// Whether bytes were read back from the file to hash them.
    read_back: bool,
    offset: u64,
    remaining: u32,
    hash_as: HashAs,
    hasher: blake3::Hasher,
}

impl OpenSink {
    pub(super) fn open(layout: &Layout, targets: &Targets, sink: &Sink) -> Result<Self, DiskError> {
        let path = layout.path(&sink.place);
        let (output, zeros) = match sink.place {
            Place::Incoming(_) | Place::Window { .. } => (open_piece(path)?, None),
            Place::Cache(_) | Place::Partial(_) => {
                (Output::Target(targets.to_fill(&sink.place, &path)?), Some(Zeros::new(sink)))
            }
            _ => {
                let what = "is no file that arriving content is written into";
                return Err(refused(DiskErrorKind::Unsuitable, &path, what));
            }
        };
        let Sink { offset, length, hash_as, .. } = *sink;
        let hasher = hash_as.hasher();
        Ok(OpenSink { output, zeros, read_back: false, offset, remaining: length, hash_as, hasher })
    }

    /// The number of bytes that are still to come.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Writes and hashes the start of `bytes`, and returns the number of bytes taken: at most those that are still to come.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, DiskError> {
        let taken = &bytes[..bytes.len().min(self.remaining as usize)];
        let (offset, zeros, last) = (self.offset, &mut self.zeros, taken.len() == self.remaining as usize);
        self.output.change(|file, path| {
            write_at(file, path, taken, offset).map_err(|error| failed("write", path, error))?;
            if let Some(zeros) = zeros {
                let blocks = (offset..).step_by(HASHED_BYTES).zip(taken.chunks(HASHED_BYTES));
                blocks.for_each(|(at, block)| zeros.wrote(block, at, file));
                if last {
                    zeros.end(offset + taken.len() as u64, file);
                }
            }
            Ok(())
        })?;
        self.hasher.update(taken);
        self.offset += taken.len() as u64;
        self.remaining -= taken.len() as u32;
        Ok(taken.len())
    }

    /// Takes up to 256 KiB of the bytes that are still to come from a socket, and returns their number; 0 when the other end has
    /// closed it, or when nothing is to come. The error is `WouldBlock` when there are none now, or another error of the socket. An
    /// error of the file is one that [`OpenSink::disk_error`] recognises.
    pub fn receive(&mut self, from: impl AsFd, intake: &mut Intake) -> io::Result<usize> {
        self.receive_some(from, intake, usize::MAX)
    }

    /// Like [`receive`](OpenSink::receive), but takes at most `most` bytes.
    pub fn receive_some(&mut self, from: impl AsFd, intake: &mut Intake, most: usize) -> io::Result<usize> {
        let most = most.min(self.remaining as usize);
        if most == 0 {
            return Ok(0);
        }
        if intake.is_splicing(most) && !self.output.has_others() {
            self.read_back = true;
            if let Spliced::Bytes(bytes) = retry(|| intake.fill(&from, most))? {
                let written = self.write_spliced(intake, bytes);
                if written.is_err() {
                    intake.discard();
                }
                return written.map(|()| bytes).map_err(io::Error::other);
            }
        }
        let buffer = intake.buffer();
        let most = most.min(buffer.len());
        let read = retry(|| rustix::io::read(&from, &mut buffer[..most]))?;
        self.write(&buffer[..read]).map_err(io::Error::other)
    }

    /// The error of the file, if an error of [`receive`](OpenSink::receive) is one.
    pub fn disk_error(error: &io::Error) -> Option<&DiskError> {
        disk_error(error)
    }

    /// Writes the content of the pipe, and hashes it.
    fn write_spliced(&mut self, intake: &mut Intake, bytes: usize) -> Result<(), DiskError> {
        let is_target = matches!(self.output, Output::Target(_));
        let OpenSink { output, zeros, offset, remaining, hasher, .. } = self;
        output.change(|file, path| {
            empty(intake, file, path, *offset, bytes)?;
            let end = *offset + bytes as u64;
            while *offset < end {
                let block = match read_back(intake, file, path, *offset, end)? {
                    // Another program truncated the file, which `finish` reports.
                    [] if is_target => &vec![0; (end - *offset).min(HASHED_BYTES as u64) as usize],
                    [] => {
                        let what = "became shorter while it was written";
                        return Err(refused(DiskErrorKind::Changed, path, what));
                    }
                    block => block,
                };
                hasher.update(block);
                if let Some(zeros) = zeros {
                    zeros.wrote(block, *offset, file);
                }
                *offset += block.len() as u64;
                *remaining -= block.len() as u32;
            }
            if let (Some(zeros), 0) = (zeros, *remaining) {
                zeros.end(end, file);
            }
            Ok(())
        })
    }

    /// The key of the bytes. The error is [`DiskErrorKind::Changed`] when another program may have written into the file before they
    /// were hashed; then they must be fetched again.
    ///
    /// # Panics
    /// When bytes are missing.
    pub fn finish(self) -> Result<Key, DiskError> {
        assert_eq!(self.remaining, 0, "bytes of {} are missing", self.output.path().display());
        if self.read_back && self.output.has_others() {
            let what = "was changed by another program while a part of it arrived";
            return Err(refused(DiskErrorKind::Changed, self.output.path(), what));
        }
        Ok(self.hash_as.key(&self.hasher))
    }
}

/// Writes the content of the pipe.
fn empty(intake: &mut Intake, file: &File, path: &Path, start: u64, bytes: usize) -> Result<(), DiskError> {
    let tried = |errno: Errno| failed("write", path, errno);
    let mut done = 0;
    while done < bytes {
        let offset = start + done as u64;
        match intake.empty(file, path, offset, bytes - done) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("write", path, error)),
            Ok(Spliced::Bytes(0)) => return Err(tried(Errno::IO)),
            Ok(Spliced::Bytes(written)) => done += written,
            Ok(Spliced::Refused) => {
                let read = retry(|| intake.read(bytes - done).map(<[u8]>::len)).map_err(tried)?;
                let written = write_at(file, path, &intake.buffer()[..read], offset);
                written.map_err(|error| failed("write", path, error))?;
                done += read;
            }
        }
    }
    Ok(())
}

/// Reads back the bytes that were just written: the next from `from` on, at most up to `end`; none at the end of the file.
fn read_back<'a>(
    intake: &'a mut Intake,
    file: &File,
    path: &Path,
    from: u64,
    end: u64,
) -> Result<&'a [u8], DiskError> {
    let most = (end - from).min(HASHED_BYTES as u64) as usize;
    let buffer = &mut intake.buffer()[..most];
    let read = file.read_at(buffer, from).map_err(|error| failed("read", path, error))?;
    Ok(&buffer[..read])
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The file of a sink: a piece's, or the open target of a download.
enum Output {
    Piece(File, PathBuf),
    Target(Arc<Target>),
}

impl Output {
    fn path(&self) -> &Path {
        match self {
            Output::Piece(_, path) => path,
            Output::Target(target) => target.path(),
        }
    }

    /// Whether another program may write into the file.
    fn has_others(&self) -> bool {
        matches!(self, Output::Target(target) if target.has_others())
    }

    fn change<T>(&self, change: impl FnOnce(&File, &Path) -> Result<T, DiskError>) -> Result<T, DiskError> {
        match self {
            Output::Piece(file, path) => change(file, path),
            Output::Target(target) => target.change(change),
        }
    }
}

/// Turns runs of zeros into holes. The last page of a sink is never part of a hole: a chunk that consists of a hole counts as not
/// written.
struct Zeros {
    /// The start of the current run.
    from: Option<u64>,
    /// The start of the sink's last page.
    until: u64,
}

impl Zeros {
    fn new(sink: &Sink) -> Self {
        let end = sink.offset + u64::from(sink.length);
        Zeros { from: None, until: end.saturating_sub(1) / PAGE_BYTES * PAGE_BYTES }
    }

    /// Notes the bytes written at `offset`.
    fn wrote(&mut self, bytes: &[u8], offset: u64, file: &File) {
        if bytes.iter().all(|byte| *byte == 0) {
            self.from.get_or_insert(offset);
        } else {
            self.end(offset, file);
        }
    }

    /// Ends the current run, if any, at `offset`.
    fn end(&mut self, offset: u64, file: &File) {
        let Some(from) = self.from.take() else { return };
        let (from, to) =
            (from.next_multiple_of(PAGE_BYTES), offset.min(self.until) / PAGE_BYTES * PAGE_BYTES);
        if to.saturating_sub(from) >= HOLE_BYTES_MIN {
            files::punch(file, from, to - from);
        }
    }
}

fn open_piece(path: PathBuf) -> Result<Output, DiskError> {
    let file = files::open(&path, Open::Keep, 0o600, OFlags::NONBLOCK | OFlags::NOFOLLOW);
    let file = file.map_err(|error| failed("write", &path, error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Output::Piece(file, path)),
        Ok(_) => Err(refused(DiskErrorKind::Unsuitable, &path, "is not a regular file")),
        Err(error) => Err(failed("write", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Way;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use tempfile::TempDir;

    fn sink(file: File, length: u32) -> OpenSink {
        let hash_as = HashAs::Root;
        let path = PathBuf::from("/the/target");
        let output = Output::Piece(file, path);
        let hasher = hash_as.hasher();
        OpenSink { output, zeros: None, read_back: false, offset: 0, remaining: length, hash_as, hasher }
    }

    fn filled(bytes: &[u8]) -> UnixStream {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        near
    }

    #[test]
    fn content_is_written_when_the_file_cannot_be_spliced_into() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("appended");
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number / 7) as u8).collect();
        let socket = filled(&bytes);
        // Linux splices into no file that is opened for appending.
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).unwrap();
        let (mut sink, mut intake) = (sink(file, 100_000), Intake::new(Way::Spliced));
        while sink.remaining() > 0 {
            assert!(sink.receive(&socket, &mut intake).unwrap() > 0);
        }
        assert_eq!(sink.finish().unwrap().0, *blake3::hash(&bytes).as_bytes());
        assert!(std::fs::read(&path).unwrap() == bytes);
    }

    #[test]
    fn a_full_disk_has_its_own_error_and_leaves_no_bytes_for_the_next_file() {
        for way in [Way::Spliced, Way::Copied] {
            let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
            let (mut sink, mut intake) = (sink(full, 100_000), Intake::new(way));
            let error = sink.receive(filled(&[1; 50_000]), &mut intake).unwrap_err();
            assert_eq!(OpenSink::disk_error(&error).unwrap().kind, DiskErrorKind::NoSpace, "{way:?}");
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("next");
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            let mut sink = self::sink(file, 50_000);
            assert_eq!(sink.receive(filled(&[2; 50_000]), &mut intake).unwrap(), 50_000);
            assert!(std::fs::read(&path).unwrap() == [2; 50_000]);
        }
    }
}

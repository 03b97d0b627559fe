//! Writing: what arrives goes into its file and is hashed on the way.

use super::error::{disk_error, failed, refused};
use super::files::{self, Open, write_at};
use super::intake::{HASHED_BYTES, Intake, Spliced};
use super::layout::Layout;
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

/// The part of a file that is being written.
pub struct OpenSink {
    file: File,
    path: PathBuf,
    offset: u64,
    remaining: u32,
    hash_as: HashAs,
    hasher: blake3::Hasher,
}

impl OpenSink {
    pub(super) fn open(layout: &Layout, sink: &Sink) -> Result<Self, DiskError> {
        let path = layout.path(&sink.place);
        let file = open_target(&sink.place, &path)?;
        let Sink { offset, length, hash_as, .. } = *sink;
        Ok(OpenSink { file, path, offset, remaining: length, hash_as, hasher: hash_as.hasher() })
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Writes and hashes the start of `bytes`, and returns how many it took: never more than are still to come.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, DiskError> {
        let taken = &bytes[..bytes.len().min(self.remaining as usize)];
        let written = write_at(&self.file, &self.path, taken, self.offset);
        written.map_err(|error| failed("write", &self.path, error))?;
        self.hasher.update(taken);
        self.offset += taken.len() as u64;
        self.remaining -= taken.len() as u32;
        Ok(taken.len())
    }

    /// Takes up to 256 KiB of the bytes that are still to come from a socket, and returns how many it took; 0 when the other
    /// end has closed it, or nothing is to come. The error is `WouldBlock` when there are none now, the socket's own when it
    /// is broken, and one that [`OpenSink::disk_error`] tells apart when the file is to blame.
    pub fn receive(&mut self, from: impl AsFd, intake: &mut Intake) -> io::Result<usize> {
        self.receive_some(from, intake, usize::MAX)
    }

    /// Like [`receive`](OpenSink::receive), but takes at most so many bytes.
    pub fn receive_some(&mut self, from: impl AsFd, intake: &mut Intake, most: usize) -> io::Result<usize> {
        let most = most.min(self.remaining as usize);
        if most == 0 {
            return Ok(0);
        }
        if intake.is_splicing(most) {
            if let Spliced::Bytes(bytes) = retry(|| intake.fill(&from, most))? {
                let written = self.empty(intake, bytes).and_then(|()| self.hash_back(intake, bytes));
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

    /// What [`receive`](OpenSink::receive) has to say about the file, when its error is about that.
    pub fn disk_error(error: &io::Error) -> Option<&DiskError> {
        disk_error(error)
    }

    /// Writes what is in the pipe.
    fn empty(&self, intake: &mut Intake, bytes: usize) -> Result<(), DiskError> {
        let tried = |errno: Errno| failed("write", &self.path, errno);
        let mut done = 0;
        while done < bytes {
            let offset = self.offset + done as u64;
            match intake.empty(&self.file, &self.path, offset, bytes - done) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("write", &self.path, error)),
                Ok(Spliced::Bytes(0)) => return Err(tried(Errno::IO)),
                Ok(Spliced::Bytes(written)) => done += written,
                Ok(Spliced::Refused) => {
                    let read = retry(|| intake.read(bytes - done).map(<[u8]>::len)).map_err(tried)?;
                    let written = write_at(&self.file, &self.path, &intake.buffer()[..read], offset);
                    written.map_err(|error| failed("write", &self.path, error))?;
                    done += read;
                }
            }
        }
        Ok(())
    }

    /// Hashes what was just written, as the file has it.
    fn hash_back(&mut self, intake: &mut Intake, bytes: usize) -> Result<(), DiskError> {
        let end = self.offset + bytes as u64;
        let buffer = intake.buffer();
        while self.offset < end {
            let most = (end - self.offset).min(HASHED_BYTES as u64) as usize;
            let read = self.file.read_at(&mut buffer[..most], self.offset);
            let read = match read.map_err(|error| failed("read", &self.path, error))? {
                0 => {
                    return Err(refused(
                        DiskErrorKind::Changed,
                        &self.path,
                        "became shorter while it was written",
                    ));
                }
                read => read,
            };
            self.hasher.update(&buffer[..read]);
            self.offset += read as u64;
            self.remaining -= read as u32;
        }
        Ok(())
    }

    /// What the bytes hashed to.
    ///
    /// # Panics
    /// When bytes are missing.
    pub fn finish(self) -> Result<Key, DiskError> {
        assert_eq!(self.remaining, 0, "bytes of {} are missing", self.path.display());
        Ok(self.hash_as.key(&self.hasher))
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens a file that the node is filling; it is created when it is not there.
pub(super) fn open_target(place: &Place, path: &Path) -> Result<File, DiskError> {
    let mode = match place {
        Place::Incoming(_) | Place::Cache(_) => 0o600,
        // It will be the user's: the umask decides.
        Place::Partial(_) => 0o666,
        _ => return Err(refused(DiskErrorKind::Unsuitable, path, "is nothing that a node writes into")),
    };
    let file = files::open(path, Open::Keep, mode, OFlags::NONBLOCK | OFlags::NOFOLLOW);
    let file = file.map_err(|error| failed("write", path, error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(refused(DiskErrorKind::Unsuitable, path, "is not a regular file")),
        Err(error) => Err(failed("write", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Way;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn sink(file: File, length: u32) -> OpenSink {
        let hash_as = HashAs::Root;
        let path = PathBuf::from("/the/target");
        OpenSink { file, path, offset: 0, remaining: length, hash_as, hasher: hash_as.hasher() }
    }

    fn filled(bytes: &[u8]) -> UnixStream {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        near
    }

    #[test]
    fn where_a_file_cannot_be_spliced_into_it_is_written() {
        let path = std::env::temp_dir().join(format!("elver-sink-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number / 7) as u8).collect();
        let socket = filled(&bytes);
        // Linux splices into no file that is opened for appending.
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).unwrap();
        let (mut sink, mut intake) = (sink(file, 100_000), Intake::new(Way::Spliced));
        while sink.remaining() > 0 {
            assert!(sink.receive(&socket, &mut intake).unwrap() > 0);
        }
        assert_eq!(sink.finish().unwrap().0, *blake3::hash(&bytes).as_bytes());
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written == bytes);
    }

    #[test]
    fn a_full_disk_is_told_apart_and_nothing_of_it_reaches_the_next_file() {
        for way in [Way::Spliced, Way::Copied] {
            let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
            let (mut sink, mut intake) = (sink(full, 100_000), Intake::new(way));
            let error = sink.receive(filled(&[1; 50_000]), &mut intake).unwrap_err();
            assert_eq!(OpenSink::disk_error(&error).unwrap().kind, DiskErrorKind::NoSpace, "{way:?}");
            let path = std::env::temp_dir().join(format!("elver-full-{way:?}-{}", std::process::id()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            let mut sink = self::sink(file, 50_000);
            assert_eq!(sink.receive(filled(&[2; 50_000]), &mut intake).unwrap(), 50_000);
            let written = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(written == [2; 50_000]);
        }
    }
}

//! Moves content from a file into a socket with sendfile(2). Where the kernel, a filter or a file system refuses that, the driver
//! reads and writes instead.

use super::error::{failed, is_call_refused, is_refused_for_all};
use super::extent::OpenExtent;
#[cfg(any(test, feature = "sim"))]
use super::power_loss::record::{self, Kind};
use crate::io::DiskError;
use rustix::fs::sendfile;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read and written at a time without sendfile(2).
const COPIED_BYTES: usize = 64 << 10;

/// The state that the sends of all streams share: whether the kernel allows sendfile(2), and a buffer for when it does not.
#[derive(Default)]
pub struct Outflow {
    /// Whether sendfile(2) was refused for a reason that holds for all files.
    refused: bool,
    /// Allocated when it is first needed.
    buffer: Box<[u8]>,
}

/// The file from which content is sent.
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) offset: u64,
    /// Whether sendfile(2) was refused for this file, so that it is not tried again.
    pub(super) copied: &'a mut bool,
}

impl Outflow {
    /// Sends at most `max` bytes; 0 at the end of the file. For errors see [`OpenExtent::send`].
    pub(super) fn send(&mut self, source: Source<'_>, to: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        if self.refused || *source.copied {
            return self.copy(&source, to, max);
        }
        match send_file(&source, to, max) {
            Ok(sent) => Ok(sent),
            Err(errno) if is_call_refused(errno) => {
                if is_refused_for_all(errno) {
                    log::info!("sendfile is not allowed ({errno}): the node reads and writes files instead");
                    self.refused = true;
                }
                *source.copied = true;
                self.copy(&source, to, max)
            }
            Err(errno) => Err(self.blame(&source, errno)),
        }
    }

    fn copy(&mut self, source: &Source<'_>, to: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; COPIED_BYTES].into_boxed_slice();
        }
        let most = max.min(self.buffer.len());
        let read = source.read(&mut self.buffer[..most]).map_err(io::Error::other)?;
        if read == 0 {
            return Ok(0);
        }
        loop {
            match rustix::io::write(to, &self.buffer[..read]) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Attributes an error of sendfile(2) to the file or the socket. The call does not tell which one failed, but a read of the
    /// file does.
    fn blame(&mut self, source: &Source<'_>, errno: Errno) -> io::Error {
        let ours = [Errno::AGAIN, Errno::PIPE, Errno::CONNRESET];
        match ours.contains(&errno) {
            true => errno.into(),
            false => match source.read(&mut [0]) {
                Err(error) => io::Error::other(error),
                Ok(_) if errno == Errno::IO => io::Error::other(failed("read", source.path, errno)),
                Ok(_) => errno.into(),
            },
        }
    }
}

impl Source<'_> {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read_at(buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| failed("read", self.path, error)),
            }
        }
    }
}

fn send_file(source: &Source<'_>, to: BorrowedFd<'_>, max: usize) -> Result<usize, Errno> {
    #[cfg(any(test, feature = "sim"))]
    if let Err(error) = record::attempt(Kind::SendFile, source.path) {
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    let mut offset = source.offset;
    loop {
        match sendfile(to, source.file, Some(&mut offset), max) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

impl OpenExtent {
    /// Sends at most `max` of the remaining bytes. The error is `WouldBlock` when `to` takes no more now, or another error of the
    /// socket. An error of the file (it changed, it is too short, the medium failed) is one that [`OpenExtent::disk_error`]
    /// recognises.
    pub fn send(&mut self, to: BorrowedFd<'_>, max: usize, outflow: &mut Outflow) -> io::Result<usize> {
        self.check().map_err(io::Error::other)?;
        let count = max.min(self.remaining() as usize);
        if count == 0 {
            return Ok(0);
        }
        match outflow.send(self.source(), to, count)? {
            0 => Err(io::Error::other(self.short())),
            sent => {
                self.advance(sent);
                Ok(sent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::power_loss::record::Fault;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use tempfile::TempDir;

    struct Sent {
        path: PathBuf,
        _removed_at_the_end: TempDir,
        file: File,
        copied: bool,
    }

    impl Sent {
        fn new(bytes: &[u8]) -> Self {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("content");
            std::fs::write(&path, bytes).unwrap();
            let file = File::open(&path).unwrap();
            Sent { path, _removed_at_the_end: dir, file, copied: false }
        }

        fn source(&mut self, offset: u64) -> Source<'_> {
            Source { file: &self.file, path: &self.path, offset, copied: &mut self.copied }
        }
    }

    #[test]
    fn content_is_read_and_written_when_sendfile_is_refused() {
        let bytes: Vec<u8> = (0..50_000_u32).map(|number| (number / 3) as u8).collect();
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP] {
            let mut sent = Sent::new(&bytes);
            let mut outflow = Outflow::default();
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut calls = 0;
            record::plan(move |attempt| {
                assert_eq!(attempt.kind, Kind::SendFile);
                calls += 1;
                assert_eq!(calls, 1, "a refusal is remembered");
                Some(Fault::Fail(errno))
            });
            let mut offset = 0;
            while offset < bytes.len() {
                let most = (bytes.len() - offset).min(20_000);
                offset += outflow.send(sent.source(offset as u64), near.as_fd(), most).unwrap();
            }
            record::end_plan();
            drop(near);
            let mut received = Vec::new();
            far.read_to_end(&mut received).unwrap();
            assert!(received == bytes, "{errno}");
            assert_eq!(outflow.refused, is_refused_for_all(errno));
        }
    }

    #[test]
    fn an_error_is_attributed_to_the_file_or_to_the_socket() {
        let mut sent = Sent::new(&[7; 100]);
        let mut outflow = Outflow::default();
        let (near, far) = UnixStream::pair().unwrap();
        record::plan(|_| Some(Fault::Fail(Errno::IO)));
        let error = outflow.send(sent.source(0), near.as_fd(), 10).unwrap_err();
        record::end_plan();
        assert!(OpenExtent::disk_error(&error).is_some());
        drop(far);
        for refused in [false, true] {
            outflow.refused = refused;
            let error = outflow.send(sent.source(0), near.as_fd(), 10).unwrap_err();
            assert!(OpenExtent::disk_error(&error).is_none(), "{error}");
        }
        assert_eq!(outflow.send(sent.source(100), near.as_fd(), 10).unwrap(), 0, "the file ends there");
    }
}

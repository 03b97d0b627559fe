//! The send queue of a socket: bytes from memory, and extents of files that the kernel moves from the page cache to the
//! socket.
//!
//! Each stream to a peer and each control client has one. An outbox does not interpret the bytes.

use crate::disk::{Disk, OpenExtent, Outflow};
use crate::io::{DiskError, Extent, Place};
use bytes::{Buf, BytesMut};
use rustix::fd::AsFd;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

/// Bytes that one call of sendfile(2) sends at most.
const SEND_BYTES: usize = 256 << 10;

/// The send queue of one socket.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    /// Bytes in memory, over the whole queue.
    held: usize,
}

/// An entry of the send queue.
enum Outgoing {
    /// The bytes that are left to send.
    Bytes(BytesMut),
    /// An extent whose file is not open yet.
    Extent(Extent),
    /// An extent of which a part may have been sent.
    File(OpenExtent),
}

/// The bytes that one call of [`Outbox::send`] moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    /// Bytes from memory; 0 when the queue is empty.
    Bytes(usize),
    /// Bytes of a file.
    Content(usize),
}

impl Moved {
    /// The number of bytes, of either kind.
    pub(super) fn bytes(self) -> usize {
        match self {
            Moved::Bytes(bytes) | Moved::Content(bytes) => bytes,
        }
    }
}

/// Why a call of [`Outbox::send`] moved nothing.
#[derive(Debug)]
pub(super) enum SendError {
    /// The socket takes no more now (`WouldBlock`), or failed.
    Socket(io::Error),
    /// The file cannot be read, or has changed.
    File(DiskError),
}

impl Outbox {
    /// Whether the queue is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of queued bytes in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Whether the first entry is an extent of a file.
    pub(super) fn starts_with_content(&self) -> bool {
        matches!(self.queue.front(), Some(Outgoing::Extent(_) | Outgoing::File(_)))
    }

    /// Appends bytes.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.held += bytes.len();
        match self.queue.back_mut() {
            // Small frames share a buffer: a buffer each would cost several times their bytes.
            Some(Outgoing::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.queue.push_back(Outgoing::Bytes(bytes.into())),
        }
    }

    /// Appends an extent of at least one byte. Its file is opened when it becomes the first entry.
    pub(super) fn push_extent(&mut self, extent: Extent, disk: &Disk) {
        if self.queue.iter().any(|before| !matches!(before, Outgoing::Bytes(_))) {
            // The kernel reads a cold file ahead while earlier entries are sent.
            disk.announce(&extent);
        }
        self.queue.push_back(Outgoing::Extent(extent));
    }

    /// Opens the queued extents of a file that its place is about to lose. An extent that cannot be opened now stays as it is.
    pub(super) fn open_extents_at(&mut self, place: &Place, disk: &Disk) {
        for entry in &mut self.queue {
            match entry {
                Outgoing::Extent(extent) if extent.place == *place => {
                    if let Ok(open) = disk.open_extent(extent) {
                        *entry = Outgoing::File(open);
                    }
                }
                _ => {}
            }
        }
    }

    /// Makes one call to the socket for the first entry. Of a file it sends at most `most` bytes.
    pub(super) fn send(
        &mut self,
        socket: &mut (impl Write + AsFd),
        disk: &Disk,
        outflow: &mut Outflow,
        most: usize,
    ) -> Result<Moved, SendError> {
        loop {
            let sent = match self.queue.front_mut() {
                None => return Ok(Moved::Bytes(0)),
                Some(Outgoing::Bytes(bytes)) => socket.write(bytes).map(|length| {
                    bytes.advance(length);
                    self.held -= length;
                    (Moved::Bytes(length), bytes.is_empty())
                }),
                Some(Outgoing::Extent(extent)) => {
                    let open = disk.open_extent(extent).map_err(SendError::File)?;
                    self.queue[0] = Outgoing::File(open);
                    continue;
                }
                Some(Outgoing::File(file)) => {
                    match file.send(socket.as_fd(), most.min(SEND_BYTES), outflow) {
                        Ok(length) => Ok((Moved::Content(length), file.remaining() == 0)),
                        Err(error) => match OpenExtent::disk_error(&error) {
                            Some(error) => return Err(SendError::File(error.clone())),
                            None => Err(error),
                        },
                    }
                }
            };
            match sent {
                Ok((moved, over)) => {
                    if over {
                        self.queue.pop_front();
                    }
                    return Ok(moved);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(SendError::Socket(error)),
            }
        }
    }

    /// Before the socket is closed, sends the first entry if it is in memory and the socket takes it now.
    pub(super) fn send_last_frame(&mut self, socket: &mut impl Write) {
        if let Some(Outgoing::Bytes(bytes)) = self.queue.front() {
            let _ = socket.write(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TestDir;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn extent(path: &std::path::Path, offset: u64, length: u32) -> Extent {
        Extent { place: Place::File(path.into()), offset, length, stamp: None }
    }

    #[test]
    fn bytes_and_extents_leave_in_order() {
        let dir = TestDir::new();
        let disk = dir.disk();
        let path = dir.file("file", b"0123456789");
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let (mut outbox, mut outflow) = (Outbox::default(), Outflow::default());
        outbox.push_bytes(b"a");
        outbox.push_bytes(b"b");
        outbox.push_extent(extent(&path, 2, 3), &disk);
        outbox.push_bytes(b"c");
        outbox.push_extent(extent(&path, 9, 1), &disk);
        assert_eq!(outbox.held_bytes(), 3);
        let mut moved = Vec::new();
        while !outbox.is_empty() {
            moved.push(outbox.send(&mut near, &disk, &mut outflow, 2).unwrap());
        }
        let content = Moved::Content;
        assert_eq!(moved, [Moved::Bytes(2), content(2), content(1), Moved::Bytes(1), content(1)]);
        assert_eq!(outbox.held_bytes(), 0);
        assert_eq!(outbox.send(&mut near, &disk, &mut outflow, 2).unwrap().bytes(), 0);
        drop(near);
        let mut arrived = String::new();
        far.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, "ab234c9");
    }

    #[test]
    fn an_extent_that_was_opened_in_time_leaves_after_its_file_was_deleted() {
        let dir = TestDir::new();
        let disk = dir.disk();
        let (path, other) = (dir.file("file", b"0123456789"), dir.file("other", b"abc"));
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let (mut outbox, mut outflow) = (Outbox::default(), Outflow::default());
        for (path, length) in [(&path, 3), (&other, 3), (&path, 10)] {
            outbox.push_extent(extent(path, 0, length), &disk);
        }
        outbox.open_extents_at(&Place::File(path.as_path().into()), &disk);
        assert!(matches!(outbox.queue[1], Outgoing::Extent(_)), "the other file is not touched");
        std::fs::remove_file(&path).unwrap();
        while !outbox.is_empty() {
            outbox.send(&mut near, &disk, &mut outflow, usize::MAX).unwrap();
        }
        drop(near);
        let mut arrived = String::new();
        far.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, "012abc0123456789");
    }

    #[test]
    fn a_full_socket_and_a_missing_file_are_different_errors() {
        let dir = TestDir::new();
        let disk = dir.disk();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut outbox, mut outflow) = (Outbox::default(), Outflow::default());
        outbox.push_bytes(&vec![7; 4 << 20]);
        let error = loop {
            match outbox.send(&mut near, &disk, &mut outflow, usize::MAX) {
                Ok(moved) => assert!(moved.bytes() > 0),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SendError::Socket(error) if error.kind() == ErrorKind::WouldBlock));
        drop(far);
        let mut outbox = Outbox::default();
        outbox.push_extent(extent(&dir.path("none"), 0, 1), &disk);
        assert!(matches!(outbox.send(&mut near, &disk, &mut outflow, 1), Err(SendError::File(_))));
    }
}

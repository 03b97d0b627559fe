//! The lines of a control client: read from its socket, together with the descriptors that come with them.

use mio::net::UnixStream;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// The longest line: a `set` fits with its value written as an array of numbers.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 4096;
/// Descriptors accepted with one read. A client sends one descriptor with a line.
pub(super) const DESCRIPTORS_PER_READ: usize = 2;
/// Descriptors of one client whose lines have not been taken yet.
pub(super) const DESCRIPTORS_AHEAD_MAX: usize = 8;

/// What a client has said and has not been taken.
#[derive(Default)]
pub(super) struct Lines {
    inbox: Vec<u8>,
    /// Descriptors whose lines have not been taken yet, in order.
    descriptors: VecDeque<OwnedFd>,
    /// Whether the kernel dropped a descriptor. The lines of the others are unknown from then on, so all are closed.
    lost: bool,
    /// The client sends no more (half-closed), or sent an invalid line.
    ended: bool,
}

impl Lines {
    /// The number of descriptors whose lines have not been taken yet.
    pub(super) fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether no further line will come.
    pub(super) fn have_ended(&self) -> bool {
        self.ended
    }

    /// Whether the client has sent more than the beginning of a line can be.
    pub(super) fn are_a_flood(&self) -> bool {
        self.inbox.len() > LINE_BYTES_MAX || self.descriptors.len() >= DESCRIPTORS_AHEAD_MAX
    }

    /// Reads until the socket is empty or the inbox holds a longest line. `true` when it stopped because there is no room for
    /// further descriptors.
    pub(super) fn read(&mut self, socket: &UnixStream, mut room: usize) -> Result<bool, Gone> {
        let mut buffer = [0; READ_BYTES];
        while !self.ended && self.inbox.len() <= LINE_BYTES_MAX {
            if self.descriptors.len() >= DESCRIPTORS_AHEAD_MAX {
                break;
            }
            if room < DESCRIPTORS_PER_READ {
                return Ok(true);
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_READ))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(socket, &mut parts, &mut ancillary, flags) {
                Ok(received) => received,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            // The kernel dropped descriptors: they did not fit the buffer, or this process may open no more.
            self.lost |= received.flags.contains(ReturnFlags::CTRUNC);
            if self.lost {
                self.descriptors.clear();
            }
            room = room.saturating_sub(DESCRIPTORS_PER_READ);
            self.ended = received.bytes == 0;
            self.inbox.extend_from_slice(&buffer[..received.bytes]);
        }
        Ok(false)
    }

    /// The next line without its end; `None` while a part of it is missing.
    pub(super) fn first(&self) -> Option<&[u8]> {
        let end = self.inbox.iter().position(|&byte| byte == b'\n')?;
        Some(&self.inbox[..end])
    }

    /// Takes the next line off, and the descriptor that comes with it if it has one.
    pub(super) fn take(&mut self, descriptor: bool) -> Option<OwnedFd> {
        if let Some(length) = self.first().map(<[u8]>::len) {
            self.inbox.drain(..=length);
        }
        if descriptor { self.descriptors.pop_front() } else { None }
    }

    /// The client broke the protocol: the rest of what it said is dropped, and nothing more is read.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.inbox.clear();
    }
}

/// The connection failed.
#[derive(Debug)]
pub(super) struct Gone;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The room for descriptors in these tests: no test lacks it.
    const ROOM: usize = 1 << 20;

    fn pair() -> (Lines, UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Lines::default(), near, far)
    }

    #[test]
    fn lines_are_taken_one_after_the_other_once_they_are_whole() {
        let (mut lines, near, mut far) = pair();
        far.write_all(b"one\ntwo").unwrap();
        assert!(!lines.read(&near, ROOM).unwrap());
        assert_eq!(lines.first(), Some(&b"one"[..]));
        assert!(lines.take(false).is_none());
        assert_eq!(lines.first(), None);
        far.write_all(b"\n").unwrap();
        assert!(!lines.read(&near, ROOM).unwrap());
        assert_eq!(lines.first(), Some(&b"two"[..]));
    }

    #[test]
    fn a_client_that_closed_its_half_has_ended_but_its_lines_are_still_there() {
        let (mut lines, near, mut far) = pair();
        far.write_all(b"one\n").unwrap();
        drop(far);
        lines.read(&near, ROOM).unwrap();
        assert!(lines.have_ended());
        assert_eq!(lines.first(), Some(&b"one"[..]));
        lines.end();
        assert_eq!(lines.first(), None);
    }

    #[test]
    fn no_more_is_read_of_a_line_without_an_end() {
        let (mut lines, near, mut far) = pair();
        for _ in 0..64 {
            let _ = far.write(&[b'x'; READ_BYTES]);
            lines.read(&near, ROOM).unwrap();
        }
        assert!(lines.are_a_flood());
        assert!(lines.inbox.len() <= LINE_BYTES_MAX + READ_BYTES);
    }

    #[test]
    fn nothing_is_read_without_room_for_the_descriptors_that_might_come_with_it() {
        let (mut lines, near, mut far) = pair();
        far.write_all(b"one\n").unwrap();
        assert!(lines.read(&near, DESCRIPTORS_PER_READ - 1).unwrap(), "it starves");
        assert_eq!(lines.first(), None);
        assert!(!lines.read(&near, ROOM).unwrap());
        assert_eq!(lines.first(), Some(&b"one"[..]));
    }
}

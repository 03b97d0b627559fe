//! Concurrent commands on one connection to the daemon.
//!
//! Each command is a line with a number (`"id"`), and each response carries the number of its command. A command may pass a
//! file: its line has `"descriptor": true`, and the descriptor goes with the line's first byte (SCM_RIGHTS). The daemon takes
//! the commands for which it has room; the others wait in the socket.

use super::client::{ClientError, Door};
use crate::node::command::{Command, Response};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The longest response.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The most bytes of responses that may arrive while a command is being sent.
const INBOX_BYTES_MAX: usize = 1 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// A connection that carries concurrent commands.
pub(super) struct Pipeline {
    stream: UnixStream,
    socket: PathBuf,
    /// The number of the last command.
    numbered: u64,
    /// The numbers of the commands without a final response.
    waiting: BTreeSet<u64>,
    /// The bytes of the last line that the socket has not taken.
    unsent: Vec<u8>,
    /// The bytes that have arrived and are not taken as lines yet.
    inbox: Vec<u8>,
}

/// A response with the number of its command.
#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    #[serde(flatten)]
    response: Response,
}

impl Pipeline {
    /// Connects to the daemon behind this door.
    pub(super) fn connect(door: &Door) -> Result<Self, ClientError> {
        let (stream, socket) = door.open()?;
        Ok(Pipeline {
            stream,
            socket,
            numbered: 0,
            waiting: BTreeSet::new(),
            unsent: Vec::new(),
            inbox: Vec::new(),
        })
    }

    /// Whether a command can be sent now: the socket has taken the whole last line.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends a command, with a file if the daemon needs one, and returns its number, which its responses carry. The bytes that
    /// the socket does not take now leave with the next [`receive`](Pipeline::receive).
    pub(super) fn send(
        &mut self,
        command: &Command,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<u64, ClientError> {
        debug_assert!(self.has_room(), "one line at a time");
        self.numbered += 1;
        let mut line = serde_json::to_value(command).map_err(ClientError::Command)?;
        if let Value::Object(fields) = &mut line {
            fields.insert("id".to_owned(), self.numbered.into());
            if file.is_some() {
                fields.insert("descriptor".to_owned(), true.into());
            }
        }
        self.unsent = line.to_string().into_bytes();
        self.unsent.push(b'\n');
        self.waiting.insert(self.numbered);
        match file {
            Some(file) => self.send_with(file)?,
            None => self.push()?,
        }
        Ok(self.numbered)
    }

    /// Sends the line's first bytes with the descriptor, and waits until the socket takes them: then the file may be closed.
    fn send_with(&mut self, file: BorrowedFd<'_>) -> Result<(), ClientError> {
        let files = [file];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&files));
            let line = [IoSlice::new(&self.unsent)];
            match sendmsg(&self.stream, &line, &mut rights, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    self.unsent.drain(..sent);
                    return Ok(());
                }
                // The socket is full, or as many descriptors are in flight as this user may have open.
                Err(Errno::AGAIN | Errno::TOOMANYREFS) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                // A daemon without room for a client writes a refusal and closes the connection; the refusal is still readable.
                Err(Errno::PIPE) => {
                    self.unsent.clear();
                    return Ok(());
                }
                Err(errno) => return Err(self.gone(Some(errno.into()))),
            }
        }
    }

    /// Sends the rest of the last line until the socket is full.
    fn push(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            let line = [IoSlice::new(&self.unsent)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.stream, &line, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => self.unsent.clear(),
                Err(errno) => return Err(self.gone(Some(errno.into()))),
            }
        }
        Ok(())
    }

    /// Waits until the socket is ready for one of these. It reads what arrives meanwhile: otherwise the daemon could wait for
    /// this end to read while this end waits for the daemon.
    fn wait(&mut self, flags: PollFlags) -> Result<(), ClientError> {
        let mut fds = [PollFd::from_borrowed_fd(self.stream.as_fd(), flags | PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(self.gone(Some(errno.into()))),
        }
        match fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            true => self.take_in(),
            false => Ok(()),
        }
    }

    fn take_in(&mut self) -> Result<(), ClientError> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.gone(None)),
            Ok(_) if self.inbox.len() > INBOX_BYTES_MAX => {
                Err(self.invalid(format!("more than {INBOX_BYTES_MAX} unexpected bytes")))
            }
            Ok(read) => {
                self.inbox.extend_from_slice(&buffer[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.gone(Some(error))),
        }
    }

    /// Waits for the next response. `None` when the socket has room for another command first.
    pub(super) fn receive(&mut self) -> Result<Option<(u64, Response)>, ClientError> {
        loop {
            if let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.inbox.drain(..=end).collect();
                return self.answer(&line).map(Some);
            }
            if self.inbox.len() > LINE_BYTES_MAX {
                return Err(self.invalid(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            if self.unsent.is_empty() {
                self.take_in()?;
                continue;
            }
            self.wait(PollFlags::OUT)?;
            self.push()?;
            if self.unsent.is_empty() {
                return Ok(None);
            }
        }
    }

    fn answer(&mut self, line: &[u8]) -> Result<(u64, Response), ClientError> {
        let answer: Answer = serde_json::from_slice(line).map_err(|error| self.invalid(error.to_string()))?;
        // A response without a number is to a line that the daemon could not parse: the oldest.
        let id = answer.id.or(self.waiting.first().copied()).filter(|id| self.waiting.contains(id));
        let Some(id) = id else {
            return Err(self.invalid("a response to an unknown command".to_owned()));
        };
        if !matches!(answer.response, Response::Progress(_)) {
            self.waiting.remove(&id);
        }
        Ok((id, answer.response))
    }

    fn gone(&self, error: Option<io::Error>) -> ClientError {
        ClientError::Gone { socket: self.socket.clone(), error }
    }

    fn invalid(&self, reason: String) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), reason }
    }
}

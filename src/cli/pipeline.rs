//! Several commands under way on one connection to the daemon.
//!
//! Each command is a line with a number (`"id"`), and each answer carries the number of its command. A command may pass a
//! file: its line says so (`"descriptor": true`), and the descriptor goes with the line's first byte (SCM_RIGHTS). The
//! daemon takes what it has room for; the rest waits in the socket.

use super::client::ClientError;
use crate::net::{CONTROL_SOCKET, connect_control};
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
use std::path::{Path, PathBuf};

/// The longest answer.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The most that arrives while a command is being given.
const INBOX_BYTES_MAX: usize = 1 << 20;
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// A connection on which commands are given before earlier ones are answered.
pub(super) struct Pipeline {
    stream: UnixStream,
    socket: PathBuf,
    numbered: u64,
    /// The numbers of the commands that have not been answered for good.
    waiting: BTreeSet<u64>,
    /// What the socket has not taken yet of the last line.
    unsent: Vec<u8>,
    /// What has arrived and is not a whole line.
    inbox: Vec<u8>,
}

/// An answer and the command that it belongs to.
#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    #[serde(flatten)]
    response: Response,
}

impl Pipeline {
    /// Connects to the daemon whose directory this is.
    pub(super) fn connect(dir: &Path) -> Result<Self, ClientError> {
        let socket = dir.join(CONTROL_SOCKET);
        match connect_control(dir) {
            Ok(stream) => Ok(Pipeline {
                stream,
                socket,
                numbered: 0,
                waiting: BTreeSet::new(),
                unsent: Vec::new(),
                inbox: Vec::new(),
            }),
            Err(error) => Err(ClientError::NoDaemon { socket, error }),
        }
    }

    /// Whether a command can be given now: the one before has left.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Gives a command, with a file when the daemon is to have one. Its number comes back in the answers. What the socket
    /// does not take now leaves with the next [`receive`](Pipeline::receive).
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

    /// Sends the line's start with the descriptor, and waits for the socket to take that: the file need not stay open.
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
                // Full; or there are as many descriptors on their way as this user may have open.
                Err(Errno::AGAIN | Errno::TOOMANYREFS) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                // A daemon that turns clients away has said why: that is still to be read.
                Err(Errno::PIPE) => {
                    self.unsent.clear();
                    return Ok(());
                }
                Err(errno) => return Err(self.gone(Some(errno.into()))),
            }
        }
    }

    /// Sends what is left of the last line, as far as the socket takes it.
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

    /// Waits until the socket is ready for one of these. What arrives meanwhile is taken in, so that the daemon never waits
    /// for this end to read while this end waits for it.
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
                Err(self.nonsense(format!("more than {INBOX_BYTES_MAX} bytes that were not asked for")))
            }
            Ok(read) => {
                self.inbox.extend_from_slice(&buffer[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.gone(Some(error))),
        }
    }

    /// Waits for the next answer, or until there is room for another command: `None`.
    pub(super) fn receive(&mut self) -> Result<Option<(u64, Response)>, ClientError> {
        loop {
            if let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.inbox.drain(..=end).collect();
                return self.answer(&line).map(Some);
            }
            if self.inbox.len() > LINE_BYTES_MAX {
                return Err(self.nonsense(format!("a line of more than {LINE_BYTES_MAX} bytes")));
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
        let answer: Answer =
            serde_json::from_slice(line).map_err(|error| self.nonsense(error.to_string()))?;
        // An answer without a number is to a line that the daemon did not understand: the oldest.
        let id = answer.id.or(self.waiting.first().copied()).filter(|id| self.waiting.contains(id));
        let Some(id) = id else {
            return Err(self.nonsense("an answer to a command that was not given".to_owned()));
        };
        if !matches!(answer.response, Response::Progress(_)) {
            self.waiting.remove(&id);
        }
        Ok((id, answer.response))
    }

    fn gone(&self, error: Option<io::Error>) -> ClientError {
        ClientError::Gone { socket: self.socket.clone(), error }
    }

    fn nonsense(&self, reason: String) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), reason }
    }
}

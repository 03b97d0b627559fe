//! The commands of the program that embeds the driver: their numbers, and what waits for the program to take it.

use super::Driver;
use crate::disk::{Disk, OpenExtent};
use crate::io::{DiskError, DiskErrorKind, Extent};
use crate::node::command::{Command, CommandId, Content, Response};
use std::collections::VecDeque;

/// This bit is set in the ids of the embedding program's commands.
const EMBEDDED: u64 = 1 << 63;

/// The embedding program's commands.
#[derive(Default)]
pub(super) struct Embedded {
    /// The number of commands so far.
    commands: u64,
    responses: VecDeque<(CommandId, Response)>,
    /// Content for the program, in order. The windows of its reads bound it.
    contents: VecDeque<(CommandId, Reading)>,
}

/// Content for the embedding program.
enum Reading {
    /// Its file is not open yet.
    Waiting(Extent),
    /// Its file is open at the first byte that is left.
    Open(OpenExtent),
}

impl Embedded {
    /// Whether a command is the embedding program's, not a client's.
    pub(super) fn is_own(command: CommandId) -> bool {
        command.0 & EMBEDDED != 0
    }

    /// The number of a new command.
    pub(super) fn next_id(&mut self) -> CommandId {
        self.commands += 1;
        CommandId(EMBEDDED | self.commands)
    }

    pub(super) fn respond(&mut self, command: CommandId, response: Response) {
        self.responses.push_back((command, response));
    }

    /// Content that the program may read from now on.
    pub(super) fn send_content(&mut self, command: CommandId, content: Content, extent: Extent) {
        self.contents.push_back((command, Reading::Waiting(extent)));
        self.responses.push_back((command, Response::Content(content)));
    }

    pub(super) fn poll_response(&mut self) -> Option<(CommandId, Response)> {
        self.responses.pop_front()
    }

    /// Copies the next content of a command into the start of `buffer`, and returns the number of bytes; `None` when none is here,
    /// or when descriptors have run out.
    pub(super) fn read(
        &mut self,
        command: CommandId,
        buffer: &mut [u8],
        disk: &Disk,
    ) -> Result<Option<usize>, DiskError> {
        let Some(at) = self.contents.iter().position(|(id, _)| *id == command) else { return Ok(None) };
        let reading = &mut self.contents[at].1;
        if let Reading::Waiting(extent) = reading {
            match disk.open_extent(extent) {
                Ok(open) => *reading = Reading::Open(open),
                // It says nothing of the file.
                Err(error) if error.kind == DiskErrorKind::Busy => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Reading::Open(open) = reading else { return Ok(None) };
        let read = open.read(buffer)?;
        if open.remaining() == 0 {
            self.contents.remove(at);
        }
        Ok(Some(read))
    }

    /// The command's content is not read any more.
    pub(super) fn cancel(&mut self, command: CommandId) {
        self.contents.retain(|(id, _)| *id != command);
    }
}

impl Driver {
    /// Gives the node a command of the embedding program. [`poll_response`](Driver::poll_response) returns the responses.
    pub fn command(&mut self, command: Command) -> CommandId {
        let id = self.embedded.next_id();
        let now = self.clock.now();
        self.obey(now, id, command);
        self.carry_out(now);
        self.tell_events(now);
        self.send_datagrams();
        id
    }

    /// The next response to a command of the embedding program.
    pub fn poll_response(&mut self) -> Option<(CommandId, Response)> {
        self.embedded.poll_response()
    }

    /// Copies the next bytes of a file that the embedding program reads ([`Command::Read`]) into the start of `buffer`, and
    /// returns their number; 0 when none are here yet. [`Response::Content`] announces bytes that have come. The node fetches
    /// more as these are taken. An error ends the read.
    pub fn read_content(&mut self, command: CommandId, buffer: &mut [u8]) -> Result<usize, DiskError> {
        match self.embedded.read(command, buffer, &self.disk) {
            Ok(Some(read)) => {
                let now = self.clock.now();
                self.node.handle_content_sent(now, command, read as u64);
                self.carry_out(now);
                self.send_datagrams();
                Ok(read)
            }
            Ok(None) => Ok(0),
            Err(error) => {
                self.cancel(command);
                Err(error)
            }
        }
    }

    /// Cancels a command of the embedding program. A download or a read for which no other command waits ends.
    pub fn cancel(&mut self, command: CommandId) {
        self.embedded.cancel(command);
        self.feed.cancel(command);
        let now = self.clock.now();
        self.node.handle_cancel(now, command);
        self.carry_out(now);
        self.send_datagrams();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestDir;
    use super::*;
    use crate::io::Place;

    const CONTENT: Content = Content { offset: 0, length: 1, file_length: 1 };

    fn extent(dir: &TestDir, name: &str, bytes: &[u8]) -> Extent {
        let place = Place::File(dir.file(name, bytes).into());
        Extent { place, offset: 0, length: bytes.len() as u32, stamp: None }
    }

    #[test]
    fn the_contents_of_a_command_are_read_one_after_the_other_through_a_buffer_of_any_size() {
        let dir = TestDir::new();
        let (disk, mut embedded) = (dir.disk(), Embedded::default());
        let (id, other) = (embedded.next_id(), embedded.next_id());
        embedded.send_content(id, CONTENT, extent(&dir, "a", b"hello "));
        embedded.send_content(other, CONTENT, extent(&dir, "c", b"other"));
        embedded.send_content(id, CONTENT, extent(&dir, "b", b"world"));
        let (mut read, mut buffer) = (Vec::new(), [0; 4]);
        while let Some(length) = embedded.read(id, &mut buffer, &disk).unwrap() {
            read.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(read, b"hello world");
        assert_eq!(embedded.read(other, &mut buffer, &disk), Ok(Some(4)));
        assert_eq!(embedded.contents.len(), 1, "the rest of the other command's");
    }

    #[test]
    fn content_that_is_not_here_yet_is_no_error_but_a_file_that_is_gone_is() {
        let dir = TestDir::new();
        let (disk, mut embedded) = (dir.disk(), Embedded::default());
        let id = embedded.next_id();
        assert_eq!(embedded.read(id, &mut [0; 4], &disk), Ok(None));
        let gone = extent(&dir, "gone", b"hello");
        std::fs::remove_file(dir.path("gone")).unwrap();
        embedded.send_content(id, CONTENT, gone);
        let error = embedded.read(id, &mut [0; 4], &disk).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::NotFound);
    }

    #[test]
    fn the_content_of_a_cancelled_command_is_dropped() {
        let dir = TestDir::new();
        let (disk, mut embedded) = (dir.disk(), Embedded::default());
        let id = embedded.next_id();
        embedded.send_content(id, CONTENT, extent(&dir, "a", b"hello"));
        embedded.cancel(id);
        assert_eq!(embedded.read(id, &mut [0; 4], &disk), Ok(None));
    }

    #[test]
    fn the_numbers_of_embedded_commands_are_told_from_those_of_clients() {
        let mut embedded = Embedded::default();
        let (first, second) = (embedded.next_id(), embedded.next_id());
        assert_ne!(first, second);
        assert!(Embedded::is_own(first) && Embedded::is_own(second));
        assert!(!Embedded::is_own(CommandId(1)));
    }

    #[test]
    fn content_is_announced_by_a_response() {
        let dir = TestDir::new();
        let mut embedded = Embedded::default();
        let id = embedded.next_id();
        embedded.send_content(id, CONTENT, extent(&dir, "a", b"hello"));
        assert_eq!(embedded.poll_response(), Some((id, Response::Content(CONTENT))));
        assert_eq!(embedded.poll_response(), None);
    }
}

//! The control socket's client.
//!
//! A connection carries one command: the client sends a line of JSON ([`Command`]), the daemon answers with lines of JSON
//! ([`Response`]), the last of them [`Response::Done`] or [`Response::Failed`]. Closing the connection cancels the command.
//! A [`Response::Content`] is followed by `length` raw bytes.

use crate::net::{CONTROL_SOCKET, connect_control, is_of_other_user};
use crate::node::command::{Command, Content, Failure, Progress, Reply, Response};
use core::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest response. A page of `ls` and the longest explanation are well below it.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes read from the daemon at a time.
const READ_BYTES: usize = 256 << 10;

/// The control socket of the node that belongs to the system, not to one user: where the unit file of systemd puts it.
pub const SYSTEM_SOCKET: &str = "/run/elver/control.sock";

/// The directory of that node, as the unit file of systemd puts it.
const SYSTEM_DIR: &str = "/var/lib/elver";

/// Where a client looks for the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Door {
    /// In a directory.
    Dir(PathBuf),
    /// At a socket.
    Socket(PathBuf),
    /// In the user's own directory, and if no daemon answers there, at the system's socket.
    OwnOrSystem {
        /// The user's own directory.
        own: PathBuf,
        /// The system's socket.
        system: PathBuf,
    },
}

impl Door {
    /// Connects to the first daemon that answers. Returns the connection and the socket's path.
    pub fn open(&self) -> Result<(UnixStream, PathBuf), ClientError> {
        let in_dir = |dir: &Path| {
            let socket = dir.join(CONTROL_SOCKET);
            match connect_control(dir) {
                Ok(stream) => Ok((stream, socket)),
                Err(error) => Err(ClientError::NoDaemon { socket, error, system: None }),
            }
        };
        match self {
            Door::Dir(dir) => in_dir(dir),
            Door::Socket(path) => match UnixStream::connect(path) {
                Ok(stream) => Ok((stream, path.clone())),
                Err(error) => Err(ClientError::NoDaemon { socket: path.clone(), error, system: None }),
            },
            Door::OwnOrSystem { own, system } => {
                in_dir(own).or_else(|missing| match (UnixStream::connect(system), missing) {
                    (Ok(stream), _) => Ok((stream, system.clone())),
                    (Err(reason), ClientError::NoDaemon { socket, error, .. }) => {
                        Err(ClientError::NoDaemon { socket, error, system: Some((system.clone(), reason)) })
                    }
                    (Err(_), other) => Err(other),
                })
            }
        }
    }

    /// The door without the system's node, for what only its owner decides.
    pub fn without_system(&self) -> Door {
        match self {
            Door::OwnOrSystem { own, .. } => Door::Dir(own.clone()),
            other => other.clone(),
        }
    }

    /// The directories that may be those of the node behind it. The directory of a socket is taken for one.
    pub fn directories(&self) -> Vec<PathBuf> {
        let around = |socket: &Path| {
            let socket = std::path::absolute(socket).ok();
            socket.and_then(|socket| socket.parent().map(Path::to_owned))
        };
        match self {
            Door::Dir(dir) => vec![dir.clone()],
            Door::Socket(path) => around(path).into_iter().collect(),
            Door::OwnOrSystem { own, system } => {
                [own.clone(), PathBuf::from(SYSTEM_DIR)].into_iter().chain(around(system)).collect()
            }
        }
    }

    /// The path of the socket that is tried first.
    fn socket(&self) -> PathBuf {
        match self {
            Door::Dir(dir) | Door::OwnOrSystem { own: dir, .. } => dir.join(CONTROL_SOCKET),
            Door::Socket(path) => path.clone(),
        }
    }

    /// The error for a reply that belongs to another command.
    pub fn unexpected(&self, reply: &Reply) -> ClientError {
        let name = serde_json::to_value(reply).ok();
        let name = name.as_ref().and_then(|value| value.get("reply")).and_then(|name| name.as_str());
        ClientError::Answer {
            socket: self.socket(),
            reason: format!("a reply to another command (`{}`)", name.unwrap_or("?")),
        }
    }
}

/// A connection to a daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    /// The part of a line that has arrived. It is kept when a timeout passes.
    line: Vec<u8>,
}

/// Why a command has no reply.
#[derive(Debug)]
pub enum ClientError {
    /// No daemon listens on the socket.
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// The operating system's error.
        error: io::Error,
        /// The socket of the system's node, if it was tried too, and the error there.
        system: Option<(PathBuf, io::Error)>,
    },
    /// The connection ended before the reply.
    Gone {
        /// The socket.
        socket: PathBuf,
        /// The system's error; `None` when the daemon closed the connection.
        error: Option<io::Error>,
    },
    /// The command cannot be written as JSON: a path in it is not UTF-8.
    Command(serde_json::Error),
    /// The daemon's answer is invalid, as from another version of the program.
    Answer {
        /// The socket.
        socket: PathBuf,
        /// The fault, for a person to read.
        reason: String,
    },
    /// The daemon reported that the command failed.
    Refused(Failure),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoDaemon { socket, error, system } => {
                write!(f, "no node answers on {} ({error})", socket.display())?;
                if let Some((system, error)) = system {
                    write!(f, ", and none on {} ({error})", system.display())?;
                }
                let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
                match (error.kind(), system) {
                    (_, Some((system, error))) if denied(error) => write!(
                        f,
                        "; the second is the system's node: run the command as a member of the group that owns {}",
                        system.display()
                    ),
                    (io::ErrorKind::PermissionDenied, _) => f.write_str(
                        "; it belongs to another user: run the command as that user, or have the node's --socket-group \
                         and --socket-mode admit you",
                    ),
                    (io::ErrorKind::InvalidInput, _) => f.write_str("; use a directory with a shorter path"),
                    _ => write!(
                        f,
                        "; start one with `elver node --dir {}`, or name the directory of one that runs with --dir",
                        socket.parent().unwrap_or(socket).display()
                    ),
                }
            }
            ClientError::Gone { socket, error } => {
                write!(f, "the node on {} ended before it answered", socket.display())?;
                match error {
                    Some(error) => write!(f, " ({error})"),
                    None => Ok(()),
                }?;
                f.write_str("; read its log, start it again and repeat the command")
            }
            ClientError::Command(error) => write!(f, "cannot send the command to the node: {error}"),
            ClientError::Answer { socket, reason } => write!(
                f,
                "the answer from {} is invalid: {reason}; check that the node runs the same version of elver",
                socket.display()
            ),
            ClientError::Refused(failure) => f.write_str(&failure.message),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects to the daemon of this directory.
    pub fn connect(dir: &Path) -> Result<Client, ClientError> {
        Client::open(&Door::Dir(dir.to_owned()))
    }

    /// Connects to the daemon behind this door.
    pub fn open(door: &Door) -> Result<Client, ClientError> {
        let (stream, socket) = door.open()?;
        Ok(Client { stream: BufReader::with_capacity(READ_BYTES, stream), socket, line: Vec::new() })
    }

    /// Whether the daemon runs as another user: it may be able to open less than this user can, or more.
    pub fn is_of_other_user(&self) -> bool {
        is_of_other_user(self.stream.get_ref())
    }

    /// Sends the command. A connection takes only one.
    pub fn send(&mut self, command: &Command) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(command).map_err(ClientError::Command)?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            // A daemon without room for a client writes a refusal and closes the connection; the refusal is still readable.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.gone(Some(error))),
            Ok(()) => Ok(()),
        }
    }

    /// Waits for the next response.
    pub fn receive(&mut self) -> Result<Response, ClientError> {
        loop {
            if let Some(response) = self.receive_within(None)? {
                return Ok(response);
            }
        }
    }

    /// Waits for the next response; returns `None` when `limit` passes without a byte from the daemon. A limit of `None` or
    /// zero waits for ever.
    pub fn receive_within(&mut self, limit: Option<Duration>) -> Result<Option<Response>, ClientError> {
        let limit = limit.filter(|limit| !limit.is_zero());
        self.stream.get_ref().set_read_timeout(limit).map_err(|error| self.gone(Some(error)))?;
        while !self.line.ends_with(b"\n") {
            let arrived = match self.stream.fill_buf() {
                Ok([]) => return Err(self.gone(None)),
                Ok(arrived) => arrived,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(self.gone(Some(error))),
            };
            let taken = arrived.iter().position(|&byte| byte == b'\n').map_or(arrived.len(), |end| end + 1);
            self.line.extend_from_slice(arrived.get(..taken).unwrap_or(arrived));
            self.stream.consume(taken);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(self.invalid(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
        }
        let response = serde_json::from_slice(&self.line);
        self.line.clear();
        response.map(Some).map_err(|error| self.invalid(error.to_string()))
    }

    /// Passes the content that follows a [`Response::Content`] to `take` as it arrives. Ends early when `take` fails.
    pub fn receive_content<E: From<ClientError>>(
        &mut self,
        content: Content,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = content.length as usize;
        while rest > 0 {
            let arrived = match self.stream.fill_buf() {
                Ok([]) => return Err(self.gone(None).into()),
                Ok(arrived) => arrived,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.gone(Some(error)).into()),
            };
            let count = rest.min(arrived.len());
            take(&arrived[..count])?;
            self.stream.consume(count);
            rest -= count;
        }
        Ok(())
    }

    /// Sends a command and waits for its reply. Progress before the reply goes to `on_progress`.
    pub fn request(
        dir: &Path,
        command: &Command,
        on_progress: impl FnMut(&Progress),
    ) -> Result<Reply, ClientError> {
        Client::connect(dir)?.ask(command, on_progress)
    }

    /// Sends the command and waits for its reply. Progress before the reply goes to `on_progress`.
    pub fn ask(
        mut self,
        command: &Command,
        mut on_progress: impl FnMut(&Progress),
    ) -> Result<Reply, ClientError> {
        self.send(command)?;
        loop {
            match self.receive()? {
                Response::Progress(progress) => on_progress(&progress),
                Response::Done(reply) => return Ok(reply),
                Response::Failed(failure) => return Err(ClientError::Refused(failure)),
                Response::Content(_) => {
                    return Err(self.invalid("content that the command did not ask for".to_owned()));
                }
            }
        }
    }

    /// Waits until the daemon closes the connection. `false` when `limit` passes without a byte from the daemon.
    pub fn wait_until_closed(mut self, limit: Duration) -> bool {
        loop {
            match self.receive_within(Some(limit)) {
                Ok(Some(_)) | Err(ClientError::Answer { .. }) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// The error for a reply of the daemon of this directory that belongs to another command.
    pub fn unexpected(dir: &Path, reply: &Reply) -> ClientError {
        Door::Dir(dir.to_owned()).unexpected(reply)
    }

    fn gone(&self, error: Option<io::Error>) -> ClientError {
        ClientError::Gone { socket: self.socket.clone(), error }
    }

    fn invalid(&mut self, reason: String) -> ClientError {
        self.line.clear();
        ClientError::Answer { socket: self.socket.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::{CommandError, Exit};
    use crate::cli::testing::{FakeDaemon, Scratch};
    use crate::node::command::{FailureReason, Stage};

    fn left() -> Reply {
        Reply::Leave { handed_over: 0, left_behind: 0 }
    }

    fn request(daemon: &FakeDaemon) -> Result<Reply, ClientError> {
        Client::request(daemon.dir(), &Command::Id, |_| {})
    }

    fn exit(daemon: &FakeDaemon) -> Exit {
        CommandError::from(request(daemon).unwrap_err()).exit
    }

    #[test]
    fn progress_is_reported_until_the_reply_comes() {
        let progress =
            Progress { stage: Stage::Hashing, done: 1, total: 2, prefix: 0, path: Some("/x".into()) };
        let daemon = FakeDaemon::answering(&[Response::Progress(progress.clone()), Response::Done(left())]);
        let mut heard = Vec::new();
        let reply = Client::request(daemon.dir(), &Command::Id, |progress| heard.push(progress.clone()));
        assert_eq!(reply.unwrap(), left());
        assert_eq!(heard, vec![progress]);
        assert_eq!(daemon.heard(), vec![Command::Id]);
    }

    #[test]
    fn every_failure_has_its_exit_code() {
        for (reason, expected) in [
            (FailureReason::Failed, Exit::Failed),
            (FailureReason::Usage, Exit::Usage),
            (FailureReason::NotFound, Exit::NotFound),
            (FailureReason::Unreachable, Exit::Unreachable),
            (FailureReason::Unverified, Exit::Unverified),
            (FailureReason::NoSpace, Exit::NoSpace),
        ] {
            let failure = Failure { reason, message: "so it is".to_owned() };
            let daemon = FakeDaemon::answering(&[Response::Failed(failure)]);
            let error = CommandError::from(request(&daemon).unwrap_err());
            assert_eq!(error.exit, expected);
            assert_eq!(error.message.as_str(), "so it is");
        }
    }

    #[test]
    fn without_a_daemon_the_error_names_the_socket_and_says_how_to_start_one() {
        let scratch = Scratch::new();
        let error = Client::connect(scratch.path()).err().unwrap();
        let message = error.to_string();
        assert!(message.contains(&scratch.path().join(CONTROL_SOCKET).display().to_string()), "{message}");
        assert!(message.contains(&format!("elver node --dir {}", scratch.path().display())), "{message}");
        assert_eq!(CommandError::from(error).exit, Exit::Unreachable);
    }

    #[test]
    fn the_system_node_answers_where_the_user_has_none_and_an_error_names_both() {
        let (scratch, daemon) = (Scratch::new(), FakeDaemon::answering(&[Response::Done(left())]));
        let (own, system) = (scratch.path().to_owned(), daemon.dir().join(CONTROL_SOCKET));
        let door = Door::OwnOrSystem { own: own.clone(), system: system.clone() };
        let ask = |door: &Door| Client::open(door).and_then(|client| client.ask(&Command::Id, |_| {}));
        assert_eq!(ask(&door).unwrap(), left());
        assert_eq!(ask(&Door::Socket(system.clone())).unwrap(), left());
        let own_daemon = FakeDaemon::answering(&[Response::Done(left())]);
        let both = Door::OwnOrSystem { own: own_daemon.dir().to_owned(), system: system.clone() };
        drop(daemon.heard());
        assert_eq!(ask(&both).unwrap(), left());
        assert_eq!((own_daemon.heard().len(), daemon.heard().len()), (1, 0), "the user's own comes first");
        drop(daemon);
        let message = ask(&door).unwrap_err().to_string();
        let own_socket = own.join(CONTROL_SOCKET).display().to_string();
        assert!(
            message.contains(&own_socket) && message.contains(&system.display().to_string()),
            "{message}"
        );
    }

    #[test]
    fn the_error_for_a_path_too_long_for_a_socket_asks_for_a_shorter_one() {
        let message = Client::connect(&Path::new("/").join("x".repeat(200))).err().unwrap().to_string();
        assert!(message.contains("shorter path"), "{message}");
    }

    #[test]
    fn a_connection_that_ends_before_or_within_a_response_is_an_error() {
        for bytes in [
            &b""[..],
            b"{\"event\":\"do",
            b"{\"event\":\"done\",\"reply\":\"leave\",\"handed_over\":0,\"left_behind\":0}",
        ] {
            let daemon = FakeDaemon::writing(bytes);
            assert_eq!(exit(&daemon), Exit::Unreachable, "{bytes:?}");
        }
    }

    #[test]
    fn invalid_responses_are_refused_without_a_panic() {
        for bytes in [
            &b"\n"[..],
            b"\xff\xfe\n",
            b"[]\n",
            b"{\"event\":\"done\"}\n",
            b"{\"event\":\"done\",\"reply\":\"id\",\"id\":\"00\",\"public\":\"00\"}\n",
            b"HTTP/1.1 400 Bad Request\n",
        ] {
            let daemon = FakeDaemon::writing(bytes);
            assert!(matches!(request(&daemon), Err(ClientError::Answer { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let daemon = FakeDaemon::writing(&vec![b' '; LINE_BYTES_MAX + 4096]);
        assert!(matches!(request(&daemon), Err(ClientError::Answer { .. })));
    }

    #[test]
    fn half_a_line_is_kept_when_a_timeout_passes() {
        let mut daemon = FakeDaemon::holding(
            b"{\"event\":\"done\",",
            b"\"reply\":\"leave\",\"handed_over\":0,\"left_behind\":0}\n",
        );
        let mut client = Client::connect(daemon.dir()).unwrap();
        client.send(&Command::Id).unwrap();
        assert_eq!(client.receive_within(Some(Duration::from_millis(1))).unwrap(), None);
        daemon.release();
        assert_eq!(client.receive().unwrap(), Response::Done(left()));
        assert!(client.wait_until_closed(Duration::from_secs(60)));
    }
}

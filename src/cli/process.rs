//! Nodes in processes of their own, each behind the control socket in its directory. The demo, the tools and the tests build
//! networks of them.

use super::client::{Client, ClientError};
use crate::node::command::{Command, Reply, Status};
use core::net::SocketAddr;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The time between two checks of a node that is about to start or to end.
const LOOK: Duration = Duration::from_millis(5);

/// A node's process. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    dir: PathBuf,
    child: Child,
}

/// Why a node did not start.
#[derive(Debug)]
pub enum StartError {
    /// The system could not start it, or could not make its directory.
    System(io::Error),
    /// It ended by itself. Its log has the reason.
    Ended(ExitStatus),
    /// It does not answer.
    Silent(ClientError),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StartError::System(error) => write!(f, "cannot be started: {error}"),
            StartError::Ended(status) => write!(f, "ended by itself ({status})"),
            StartError::Silent(error) => write!(f, "cannot be reached: {error}"),
        }
    }
}

impl core::error::Error for StartError {}

/// The program at this path, without the environment variables that configure the user's own node.
pub fn program(path: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"ELVER_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a node and does not wait for it. `command` is the [`program`], or another program that runs it with the given
    /// arguments. A missing directory is made; `log` is appended to.
    pub fn spawn(
        mut command: std::process::Command,
        dir: &Path,
        log: &Path,
        listen: SocketAddr,
        bootstrap: &[SocketAddr],
        extra: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> io::Result<Process> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        command.arg("--dir").arg(dir).args(["node", "--listen", &listen.to_string()]);
        for address in bootstrap {
            command.args(["--bootstrap", &address.to_string()]);
        }
        let log = File::options().create(true).append(true).open(log)?;
        command.args(extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Process { dir: dir.to_owned(), child: command.spawn()? })
    }

    /// Waits until the node answers, for `limit` at most. Returns its status.
    pub fn wait_until_up(&mut self, limit: Duration) -> Result<Status, StartError> {
        let began = Instant::now();
        loop {
            match self.status() {
                Ok(status) => return Ok(status),
                Err(error) if began.elapsed() > limit => return Err(StartError::Silent(error)),
                Err(_) => {}
            }
            if let Some(status) = self.ended() {
                return Err(StartError::Ended(status));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The node's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a command and waits for the reply.
    pub fn request(&self, command: &Command) -> Result<Reply, ClientError> {
        Client::request(&self.dir, command, |_| {})
    }

    /// The node's status.
    pub fn status(&self) -> Result<Status, ClientError> {
        match self.request(&Command::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(Client::unexpected(&self.dir, &other)),
        }
    }

    /// Sends the process a signal, unless it has ended: its id may then belong to another process.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // It fails if the process ends at this moment.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Kills the process, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Asks the process to end, and waits for `limit` at most. After that it is killed. Returns the exit status.
    pub fn terminate(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails if the process has ended already.
        let _ = self.kill();
    }
}

/// Loopback addresses whose ports are free for TCP and UDP, all different. Each port is held until all are found.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let mut held = Vec::with_capacity(count);
    let mut attempts = 0;
    while held.len() < count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        match UdpSocket::bind(address) {
            Ok(socket) => held.push((address, listener, socket)),
            Err(error) if attempts > 100 => return Err(error),
            Err(_) => attempts += 1,
        }
    }
    Ok(held.into_iter().map(|(address, ..)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A shell instead of a node: it ignores the node's arguments.
    fn shell(script: &str) -> (TempDir, Process) {
        let dir = TempDir::new().unwrap();
        let mut command = program(Path::new("sh"));
        command.args(["-c", script]);
        let log = dir.path().join("log");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let process = Process::spawn(command, &dir.path().join("node"), &log, listen, &[], ["-v"]).unwrap();
        (dir, process)
    }

    #[test]
    fn every_node_gets_a_port_of_its_own() {
        let mut addresses = free_addresses(20).unwrap();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
    }

    #[test]
    fn a_node_that_ends_instead_of_starting_says_how_and_leaves_its_log() {
        let (dir, mut process) = shell("echo broken >&2; exit 3");
        let error = process.wait_until_up(Duration::from_secs(60)).unwrap_err();
        assert!(matches!(&error, StartError::Ended(status) if status.code() == Some(3)), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "broken\n");
    }

    #[test]
    fn a_node_that_never_answers_is_given_up() {
        let (_dir, mut process) = shell("exec sleep 600");
        let error = process.wait_until_up(Duration::ZERO).unwrap_err();
        assert!(matches!(error, StartError::Silent(ClientError::NoDaemon { .. })), "{error}");
        assert!(process.ended().is_none());
    }

    #[test]
    fn a_node_that_does_not_end_in_time_is_killed() {
        let (dir, mut process) = shell("trap '' TERM; echo ready >&2; while :; do sleep 0.05; done");
        let began = Instant::now();
        while std::fs::read(dir.path().join("log")).unwrap().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "the shell starts");
            std::thread::sleep(LOOK);
        }
        assert_eq!(process.terminate(Duration::from_millis(100)).unwrap().code(), None);
    }

    #[test]
    fn a_dropped_node_is_gone() {
        let (_dir, process) = shell("exec sleep 600");
        let pid = Pid::from_child(&process.child);
        drop(process);
        assert!(kill_process(pid, Signal::CONT).is_err());
    }
}

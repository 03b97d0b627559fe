//! The demo's node processes on loopback, which end with the demo.

use crate::cli::client::{Client, ClientError};
use crate::cli::exit::CommandError;
use crate::cli::output::shown;
use crate::cli::process::{self, Process};
use crate::node::command::{Command, Reply, Response};
use rustix::process::Signal;
use signal_hook_mio::v1_0::Signals;
use std::cell::RefCell;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time that a node has from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The time between two checks of a condition.
const LOOK: Duration = Duration::from_millis(50);

/// Lines of a node's log that go into an error message.
const LOG_LINES: usize = 5;

/// Node processes in one directory. Dropping it kills the processes and removes the directory, unless `keep` is set.
pub(super) struct Swarm {
    dir: PathBuf,
    keep: bool,
    members: Vec<Member>,
    /// SIGINT, SIGTERM and SIGHUP end the demo in order, so that it cleans up.
    signals: RefCell<Signals>,
}

struct Member {
    dir: PathBuf,
    address: SocketAddr,
    /// `None` once the node was killed.
    process: Option<RefCell<Process>>,
}

impl Swarm {
    /// A swarm without nodes, in a new directory that only this user can read.
    pub(super) fn new(keep: bool) -> Result<Self, CommandError> {
        let signals = Signals::new([Signal::INT, Signal::TERM, Signal::HUP].map(Signal::as_raw))
            .map_err(|error| CommandError::failed(format!("cannot watch for signals: {error}")))?;
        // Process ids repeat, so the name may exist.
        let dir = (0..1000)
            .map(|attempt| std::env::temp_dir().join(format!("elver-demo-{}-{attempt}", std::process::id())))
            .find_map(|dir| match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => Some(Ok(dir)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err((dir, error))),
            });
        match dir {
            Some(Ok(dir)) => Ok(Swarm { dir, keep, members: Vec::new(), signals: RefCell::new(signals) }),
            Some(Err((dir, error))) => Err(CommandError::failed(format!(
                "cannot create the directory {}: {error}; set TMPDIR to a writable directory",
                shown(&dir)
            ))),
            None => Err(CommandError::failed(
                "every name for the demo's directory is taken; remove old ones from TMPDIR",
            )),
        }
    }

    /// The directory of all nodes.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of nodes started.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The lowest and the highest port.
    pub(super) fn ports(&self) -> (u16, u16) {
        let ports = || self.members.iter().map(|member| member.address.port());
        (ports().min().unwrap_or(0), ports().max().unwrap_or(0))
    }

    /// The nodes that were not killed.
    pub(super) fn living(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.members.len()).filter(|&node| self.members[node].process.is_some())
    }

    /// Starts `count` nodes and waits until each answers. The quota of each has room for `length` bytes.
    pub(super) fn start(&mut self, count: usize, replicas: u8, length: u64) -> Result<(), CommandError> {
        let cannot = |error: io::Error| CommandError::failed(format!("cannot start a node: {error}"));
        let executable = std::env::current_exe().map_err(cannot)?;
        let addresses = process::free_addresses(count).map_err(cannot)?;
        let quota = length.saturating_mul(2).max(1 << 30);
        for (node, &address) in addresses.iter().enumerate() {
            let dir = self.dir.join(format!("node-{}", node + 1));
            // A process group of its own: Ctrl-C must reach only the demo, which then ends the nodes.
            let mut command = process::program(&executable);
            command.process_group(0);
            let bootstrap = if node > 0 { &addresses[..1] } else { &[] };
            let (replicas, quota) = (replicas.to_string(), quota.to_string());
            let extra = ["--verbose", "--network", "elver demo", "--replicas", &replicas, "--quota", &quota];
            let started = Process::spawn(command, &dir, &dir.join("log"), address, bootstrap, extra);
            let process = Some(RefCell::new(started.map_err(cannot)?));
            self.members.push(Member { dir, address, process });
        }
        (0..count).try_for_each(|node| self.wait_until_up(node))
    }

    fn wait_until_up(&self, node: usize) -> Result<(), CommandError> {
        let start = Instant::now();
        while let Err(ClientError::NoDaemon { error, .. }) = Client::connect(&self.members[node].dir) {
            self.check_alive(node)?;
            if start.elapsed() > START_LIMIT {
                return Err(self.trouble(node, &format!("it cannot be reached: {error}")));
            }
            self.pause()?;
        }
        Ok(())
    }

    /// Sends a command to a node and waits for the reply. It is an error when the node sends nothing for `limit`, or ends.
    pub(super) fn ask(&self, node: usize, command: &Command, limit: Duration) -> Result<Reply, CommandError> {
        let wrong = |error: ClientError| match error {
            ClientError::Refused(failure) => CommandError::new(
                failure.reason.into(),
                format!("node {} says: {}", node + 1, failure.message),
            ),
            error => self.trouble(node, &error.to_string()),
        };
        let mut client = Client::connect(&self.members[node].dir).map_err(wrong)?;
        client.send(command).map_err(wrong)?;
        let mut heard = Instant::now();
        loop {
            self.check_interrupted()?;
            match client.receive_within(Some(LOOK)).map_err(wrong)? {
                Some(Response::Done(reply)) => return Ok(reply),
                Some(Response::Failed(failure)) => return Err(wrong(ClientError::Refused(failure))),
                Some(Response::Progress(_) | Response::Content(_)) => heard = Instant::now(),
                None if heard.elapsed() > limit => {
                    let silent = format!("it has not answered for {} s", limit.as_secs());
                    return Err(self.trouble(node, &silent));
                }
                None => {}
            }
        }
    }

    /// The error for a reply that belongs to another command.
    pub(super) fn unexpected(&self, node: usize, reply: &Reply) -> CommandError {
        self.trouble(node, &Client::unexpected(&self.members[node].dir, reply).to_string())
    }

    /// Kills a node as a power cut would, and waits until it is gone.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), CommandError> {
        let Some(process) = self.members[node].process.take() else { return Ok(()) };
        process
            .into_inner()
            .kill()
            .map_err(|error| CommandError::failed(format!("cannot kill node {}: {error}", node + 1)))
    }

    /// Waits a moment before a condition is checked again.
    pub(super) fn pause(&self) -> Result<(), CommandError> {
        std::thread::sleep(LOOK);
        self.check_interrupted()
    }

    fn check_interrupted(&self) -> Result<(), CommandError> {
        match self.signals.borrow_mut().pending().next() {
            Some(_) => Err(CommandError::failed("interrupted; every node was stopped")),
            None => Ok(()),
        }
    }

    fn check_alive(&self, node: usize) -> Result<(), CommandError> {
        let Some(process) = &self.members[node].process else { return Ok(()) };
        match process.borrow_mut().ended() {
            Some(status) => Err(self.trouble(node, &format!("it ended unexpectedly ({status})"))),
            None => Ok(()),
        }
    }

    /// An error with the last lines of the node's log, which is about to be removed.
    fn trouble(&self, node: usize, what: &str) -> CommandError {
        let log = std::fs::read(self.members[node].dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let said = match last {
            [] => "Its log is empty.".to_owned(),
            _ => format!("Its log ends with:\n  {}", last.join("\n  ")),
        };
        CommandError::failed(format!("node {}: {what}. {said}", node + 1))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // All are killed before the first wait, which is where a process is dropped.
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            process.borrow_mut().signal(Signal::KILL);
        }
        self.members.clear();
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_swarm_removes_its_directory_unless_it_is_kept() {
        let swarm = Swarm::new(false).unwrap();
        let dir = swarm.dir().to_owned();
        assert!(dir.is_dir());
        drop(swarm);
        assert!(!dir.exists());
        let swarm = Swarm::new(true).unwrap();
        let dir = swarm.dir().to_owned();
        drop(swarm);
        assert!(dir.is_dir());
        std::fs::remove_dir(&dir).unwrap();
    }
}

//! A node process on loopback, and its resource usage according to the system.

use crate::Outcome;
use elver::cli::process::{self, Process};
use elver::id::PublicKey;
use elver::node::command::{Command, Listed, Reply, Status};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time limits for a node to start, and to shut down cleanly.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// The `elver` binary that cargo has built beside this program.
pub(crate) fn default_binary() -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("elver");
    match path.exists() {
        true => Ok(path),
        false => {
            Err(format!("no {}: build it with `cargo build --release`, or use --elver", path.display())
                .into())
        }
    }
}

/// A directory that is removed at the end.
pub(crate) struct WorkDir(tempfile::TempDir);

impl WorkDir {
    pub(crate) fn new(parent: Option<&Path>) -> Outcome<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        fs::create_dir_all(&parent)?;
        Ok(WorkDir(tempfile::Builder::new().prefix("elver-tools-").tempdir_in(parent)?))
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A running node. Dropping it ends the process.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) addr: SocketAddr,
    process: Process,
}

/// The resources that a process has used so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time, user and system.
    pub(crate) cpu: f64,
    /// Resident memory in KiB, the anonymous part of it, and the peak.
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
    /// KiB that the process caused to be written to disk.
    pub(crate) written: u64,
    /// How often the process slept and was woken.
    pub(crate) wakeups: u64,
}

impl Node {
    pub(crate) fn start(
        binary: &Path,
        dir: PathBuf,
        bootstrap: Option<SocketAddr>,
        extra: &[&str],
    ) -> Outcome<Node> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let command = process::program(binary);
        let log = dir.join("log");
        fs::create_dir_all(&dir)?;
        let process = Process::spawn(command, &dir, &log, listen, bootstrap.as_slice(), extra)?;
        let mut node = Node { dir, addr: listen, process };
        match node.process.wait_until_up(START_LIMIT) {
            Ok(status) => node.addr = status.listen.parse()?,
            Err(error) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("the node in {} {error}: {said}", node.dir.display()).into());
            }
        }
        Ok(node)
    }

    pub(crate) fn request(&self, command: &Command) -> Outcome<Reply> {
        Ok(self.process.request(command)?)
    }

    /// Its process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Its public key.
    pub(crate) fn public(&self) -> Outcome<PublicKey> {
        match self.request(&Command::Id)? {
            Reply::Id { public, .. } => Ok(public),
            _ => Err("id was answered with something else".into()),
        }
    }

    pub(crate) fn status(&self) -> Outcome<Status> {
        Ok(self.process.status()?)
    }

    /// The number of files that the node lists, page by page.
    pub(crate) fn count_listed(&self) -> Outcome<usize> {
        let (mut count, mut after) = (0, None);
        loop {
            let Reply::List { files, more } = self.request(&Command::List { after })? else {
                return Err("ls was answered with something else".into());
            };
            count += files.len();
            after =
                files.last().filter(|_| more).map(|last| Listed { hash: last.hash, path: last.path.clone() });
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Waits until the node knows `count` peers.
    pub(crate) fn wait_for_peers(&self, count: u32) -> Outcome<()> {
        let began = Instant::now();
        while self.status()?.peers < count {
            if began.elapsed() > Duration::from_secs(30) {
                return Err(
                    format!("the node in {} found fewer than {count} others", self.dir.display()).into()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Outcome<Usage> {
        Usage::of(self.process.id())
    }
}

impl Usage {
    /// What a process has used so far.
    pub(crate) fn of(process: u32) -> Outcome<Usage> {
        let process = PathBuf::from(format!("/proc/{process}"));
        let stat = fs::read_to_string(process.join("stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = fs::read_to_string(process.join("status"))?;
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1))
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        let io = fs::read_to_string(process.join("io")).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok());
        Ok(Usage {
            cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident: value("VmRSS:"),
            anonymous: value("RssAnon:"),
            peak: value("VmHWM:"),
            written: written.unwrap_or(0) / 1024,
            wakeups: value("voluntary_ctxt_switches:"),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A clean shutdown, so that the node's state is on the disk. It fails only for a process that has ended already.
        let _ = self.process.terminate(STOP_LIMIT);
    }
}

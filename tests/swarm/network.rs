//! Real node processes on loopback, each in a directory of its own, all gone when the test ends.

use crate::support::{self, Ended, LIMIT, Scratch, finish, program};
use elver::node::command::{Command, Reply, Response, SharedFile, Status};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

pub(crate) const MIB: usize = 1 << 20;

/// A running node.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) addr: SocketAddr,
    child: Child,
}

impl Node {
    /// Starts a node in `dir` on a free port of 127.0.0.1 and waits until it answers.
    pub(crate) fn start(dir: PathBuf, bootstrap: &[SocketAddr], extra: &[&str]) -> Node {
        Node::start_at(dir, "127.0.0.1:0".parse().unwrap(), bootstrap, extra)
    }

    pub(crate) fn start_at(
        dir: PathBuf,
        listen: SocketAddr,
        bootstrap: &[SocketAddr],
        extra: &[&str],
    ) -> Node {
        Node::start_as(program(), dir, listen, bootstrap, extra)
    }

    /// Starts a node that has a file system of `bytes` in memory, at `small` beside its directory, that only it sees by that path.
    ///
    /// # Panics
    /// Where this user may mount nothing, not even in a namespace.
    pub(crate) fn start_beside_small_disk(dir: PathBuf, bytes: u64, bootstrap: &[SocketAddr]) -> Node {
        let small = dir.with_file_name("small");
        fs::create_dir_all(&small).unwrap();
        let program = program();
        let mut command = std::process::Command::new("unshare");
        command.args(["-rm", "sh", "-c", "mount -t tmpfs -o size=$0 none \"$1\" && shift && exec \"$@\""]);
        command.arg(bytes.to_string()).arg(small).arg(program.get_program());
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        Node::start_as(command, dir, "127.0.0.1:0".parse().unwrap(), bootstrap, &[])
    }

    pub(crate) fn start_as(
        mut command: std::process::Command,
        dir: PathBuf,
        listen: SocketAddr,
        bootstrap: &[SocketAddr],
        extra: &[&str],
    ) -> Node {
        fs::create_dir_all(&dir).unwrap();
        command.arg("--dir").arg(&dir).args(["node", "--listen", &listen.to_string()]);
        for addr in bootstrap {
            command.args(["--bootstrap", &addr.to_string()]);
        }
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        command.args(extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let mut node = Node { dir, addr: listen, child };
        wait_for("the node to answer", || {
            if let Some(status) = node.child.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", fs::read_to_string(node.dir.join("log")).unwrap());
            }
            node.try_status().is_some()
        });
        node.addr = node.status().listen.parse().unwrap();
        node
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a chance to do anything more.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and says how it ended.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn request(&self, command: &Command) -> Option<Response> {
        let mut answer = None;
        self.request_with(command, |response| {
            let over = !matches!(response, Response::Progress(_));
            answer = over.then_some(response);
            !over
        });
        answer
    }

    /// Sends a command over the control socket and hands over its answers while `go_on` says so.
    pub(crate) fn request_with(&self, command: &Command, mut go_on: impl FnMut(Response) -> bool) {
        let Ok(mut socket) = UnixStream::connect(self.dir.join("control.sock")) else { return };
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let line = serde_json::to_string(command).unwrap() + "\n";
        if socket.write_all(line.as_bytes()).is_err() {
            return;
        }
        for line in BufReader::new(socket).lines() {
            let Ok(line) = line else { return };
            if !go_on(serde_json::from_str(&line).unwrap()) {
                return;
            }
        }
    }

    pub(crate) fn try_status(&self) -> Option<Status> {
        match self.request(&Command::Status)? {
            Response::Done(Reply::Status(status)) => Some(*status),
            other => panic!("status answered {other:?}"),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.try_status().expect("the node answers")
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        *status.counters.get(name).unwrap_or_else(|| panic!("no counter {name} in {:?}", status.counters))
    }

    pub(crate) fn files(&self) -> Vec<SharedFile> {
        match self.request(&Command::List { after: None }) {
            Some(Response::Done(Reply::List { files, more: false })) => files,
            other => panic!("ls answered {other:?}"),
        }
    }

    /// Runs the client against this node.
    pub(crate) fn elver(&self, args: &[&str]) -> Ended {
        finish(program().arg("--dir").arg(&self.dir).args(args))
    }

    /// Puts a file and says its address.
    pub(crate) fn put(&self, path: &Path, args: &[&str]) -> String {
        let output = self.elver(&[&["put", path.to_str().unwrap()], args].concat());
        assert_eq!(output.code, Some(0), "put: {}", output.stderr);
        output.text().split_whitespace().next().unwrap().to_owned()
    }

    /// Gets a file and says the exit code and what was said on standard error.
    pub(crate) fn get(&self, hash: &str, target: &Path, args: &[&str]) -> (Option<i32>, String) {
        let output = self.elver(&[&["get", hash, "-o", target.to_str().unwrap()], args].concat());
        (output.code, output.stderr)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The files of stored pieces.
    pub(crate) fn piece_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in fs::read_dir(self.dir.join("pieces")).into_iter().flatten().flatten() {
            files.extend(fs::read_dir(dir.path()).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        files
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nodes that know each other.
pub(crate) struct Swarm {
    pub(crate) nodes: Vec<Node>,
    pub(crate) dir: Scratch,
}

impl Swarm {
    pub(crate) fn start(count: usize) -> Swarm {
        Swarm::start_with(count, &[])
    }

    pub(crate) fn start_with(count: usize, extra: &[&str]) -> Swarm {
        let dir = Scratch::new();
        let first = Node::start(dir.path().join("n0"), &[], extra);
        let bootstrap = [first.addr];
        let mut nodes = vec![first];
        for index in 1..count {
            nodes.push(Node::start(dir.path().join(format!("n{index}")), &bootstrap, extra));
        }
        let swarm = Swarm { nodes, dir };
        wait_for("every node to know every other", || {
            swarm.nodes.iter().all(|node| node.status().peers as usize >= count - 1)
        });
        swarm
    }

    /// Waits until every piece of a file has as many copies as were asked for.
    pub(crate) fn wait_for_copies(&self, publisher: usize, hash: &str) {
        wait_for("the copies", || {
            let files = self.nodes[publisher].files();
            files.iter().any(|file| file.hash.to_string() == hash && file.copies >= u32::from(file.replicas))
        });
    }
}

/// Waits for a condition, with a limit.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    support::wait_for(what, || condition().then_some(()));
}

/// Bytes that no two files share, the same for the same seed.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file with that content and says where.
pub(crate) fn file(dir: &Scratch, name: &str, seed: u64, length: usize) -> PathBuf {
    dir.file(name, &content(seed, length))
}

//! A node in a process of its own, as every test of real nodes uses it.

use super::{Ended, LIMIT, Scratch, finish, program, wait_for};
use elver::cli::client::Client;
use elver::cli::process::Process;
use elver::node::command::{Command, Reply, Response, SharedFile, Status};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A running node. The end of the test kills it, and prints its log if the test failed.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) addr: SocketAddr,
    process: Process,
    /// The directory, if it is deleted with the node.
    scratch: Option<Scratch>,
}

impl Node {
    /// Starts a node in `dir` on a free port of 127.0.0.1 and waits until it answers.
    pub(crate) fn start(dir: PathBuf, bootstrap: &[SocketAddr], extra: &[&str]) -> Node {
        Node::start_at(dir, loopback(), bootstrap, extra)
    }

    pub(crate) fn start_at(
        dir: PathBuf,
        listen: SocketAddr,
        bootstrap: &[SocketAddr],
        extra: &[&str],
    ) -> Node {
        Node::start_as(program(), dir, listen, bootstrap, extra)
    }

    /// Starts a node by a command that runs the program.
    pub(crate) fn start_as(
        command: std::process::Command,
        dir: PathBuf,
        listen: SocketAddr,
        bootstrap: &[SocketAddr],
        extra: &[&str],
    ) -> Node {
        let log = dir.join("log");
        fs::create_dir_all(&dir).unwrap();
        let process = Process::spawn(command, &dir, &log, listen, bootstrap, extra).expect("a node");
        let mut node = Node { dir, addr: listen, process, scratch: None };
        match node.process.wait_until_up(LIMIT) {
            Ok(status) => node.addr = status.listen.parse().unwrap(),
            Err(error) => panic!("the node in {} {error}", node.dir.display()),
        }
        node
    }

    /// Starts a node with an in-memory file system of `bytes`, mounted at `small` beside its directory. Only this node sees the
    /// mount at that path.
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
        Node::start_as(command, dir, loopback(), bootstrap, &[])
    }

    /// Starts a node in a directory and a network of the test's own.
    pub(crate) fn alone(extra: &[&str]) -> Node {
        Node::start_in(Scratch::new(), extra)
    }

    /// Starts a node that knows another, and waits until the two know each other.
    pub(crate) fn join(other: &Node, extra: &[&str]) -> Node {
        let bootstrap = other.addr.to_string();
        let node = Node::alone(&[&["--bootstrap", &bootstrap], extra].concat());
        node.wait_for_peers(1);
        other.wait_for_peers(1);
        node
    }

    /// Starts a node in the directory of an earlier one.
    pub(crate) fn start_in(scratch: Scratch, extra: &[&str]) -> Node {
        let extra = [&["-v", "--network", "elver test"], extra].concat();
        let mut node = Node::start(scratch.path().to_owned(), &[], &extra);
        node.scratch = Some(scratch);
        node
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills the node, which gets no chance to clean up.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks the node to end (SIGTERM) and returns its exit status.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.process.terminate(LIMIT).unwrap()
    }

    /// Waits until the node has ended. Returns its exit code (`None` after a signal) and its directory.
    pub(crate) fn ended(mut self) -> (Option<i32>, Scratch) {
        let status = wait_for("the node's end", || self.process.ended());
        (status.code(), self.scratch.take().expect("a directory of its own"))
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

    /// Sends a command over the control socket and passes each answer to `go_on` until that returns false.
    pub(crate) fn request_with(&self, command: &Command, mut go_on: impl FnMut(Response) -> bool) {
        let Ok(mut client) = Client::connect(&self.dir) else { return };
        if client.send(command).is_err() {
            return;
        }
        while let Ok(Some(response)) = client.receive_within(Some(LIMIT)) {
            if !go_on(response) {
                return;
            }
        }
    }

    pub(crate) fn try_status(&self) -> Option<Status> {
        self.process.status().ok()
    }

    pub(crate) fn status(&self) -> Status {
        self.process.status().expect("the node answers")
    }

    /// The status as a client prints it, whether the node is well or not.
    pub(crate) fn status_json(&self) -> serde_json::Value {
        let answer = self.elver(["status", "--json"]);
        assert!(matches!(answer.code, Some(0 | 9)), "{}", answer.stderr);
        answer.objects().remove(0)
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        *status.counters.get(name).unwrap_or_else(|| panic!("no counter {name} in {:?}", status.counters))
    }

    pub(crate) fn files(&self) -> Vec<SharedFile> {
        match self.process.request(&Command::List { after: None }) {
            Ok(Reply::List { files, more: false }) => files,
            other => panic!("ls answered {other:?}"),
        }
    }

    /// The node's peak memory.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Waits until the node's routing table has at least `count` contacts.
    pub(crate) fn wait_for_peers(&self, count: u32) {
        wait_for("peers", || (self.status().peers >= count).then_some(()));
    }

    /// Runs the client against this node.
    pub(crate) fn elver<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        finish(program().arg("--dir").arg(&self.dir).args(arguments))
    }

    /// Puts a file and returns its address.
    pub(crate) fn put(&self, path: &Path, args: &[&str]) -> String {
        let output = self.elver([&["put", path.to_str().unwrap()], args].concat());
        assert_eq!(output.code, Some(0), "put: {}", output.stderr);
        output.text().split_whitespace().next().unwrap().to_owned()
    }

    /// Gets a file and returns the exit code and the standard error.
    pub(crate) fn get(&self, hash: &str, target: &Path, args: &[&str]) -> (Option<i32>, String) {
        let output = self.elver([&["get", hash, "-o", target.to_str().unwrap()], args].concat());
        (output.code, output.stderr)
    }

    /// The node's log so far.
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
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.addr, self.log());
        }
    }
}

/// Any free port of 127.0.0.1.
fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

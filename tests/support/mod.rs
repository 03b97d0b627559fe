//! Real nodes for tests that see only the public face: processes of the built program, in directories of their own,
//! on loopback ports of their own, all gone when the test ends, however it ends.

#![allow(dead_code, reason = "every test program uses its own part of this")]

mod node;

pub(crate) use node::Node;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest that a test waits for anything. It bounds the wait and claims nothing about speed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(20);

/// Waits until the condition returns a value.
///
/// # Panics
/// When it has returned none after [`LIMIT`].
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_until(what, LIMIT, condition)
}

/// Waits until the condition returns a value, where [`LIMIT`] is no bound: what many processes do takes longer on few processors.
///
/// # Panics
/// When it has returned none after `limit`.
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

/// A directory that is deleted when this is dropped.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch(TempDir::new().expect("a directory for the test"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file with this content into the directory.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("a file for the test");
        path
    }
}

/// The built program, without the environment that the tests run in.
pub(crate) fn program() -> Command {
    elver::cli::process::program(Path::new(env!("CARGO_BIN_EXE_elver")))
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ended { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The objects on standard output.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.text().lines().map(parse).collect()
    }

    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.text(), self.stderr);
        // A panic has an exit code of its own, but not when it happens in a thread.
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// Runs the program to its end.
pub(crate) fn elver<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    finish(program().args(arguments))
}

/// Runs a command to its end. Fails the test when the command does not end in time.
pub(crate) fn finish(command: &mut Command) -> Ended {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let id = rustix::process::Pid::from_child(&child);
    let (tell, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match ended.recv_timeout(LIMIT * 3) {
        Ok(output) => Ended::new(output.expect("its output can be read")),
        Err(_) => {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
            panic!("{command:?} does not end");
        }
    }
}

/// An address on loopback whose port is free for TCP and UDP, and the sockets that hold it.
pub(crate) fn hold_address() -> (SocketAddr, TcpListener, UdpSocket) {
    wait_for("a free port", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let address = listener.local_addr().ok()?;
        UdpSocket::bind(address).ok().map(|socket| (address, listener, socket))
    })
}

/// A daemon that gives every client the same answer, for cases that a real daemon rarely reaches.
pub(crate) struct FakeDaemon {
    scratch: Scratch,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    pub(crate) fn answering(answer: &serde_json::Value) -> Self {
        Self::writing(format!("{answer}\n").into_bytes())
    }

    /// A daemon that answers with these bytes.
    pub(crate) fn writing(answer: Vec<u8>) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path().join("control.sock")).expect("a control socket");
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut command = String::new();
                // A connection without a command tells this thread to end.
                match BufReader::new(&stream).read_line(&mut command) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => drop(stream.write_all(&answer)),
                }
            }
        });
        FakeDaemon { scratch, thread: Some(thread) }
    }

    pub(crate) fn elver<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        finish(program().arg("--dir").arg(self.scratch.path()).args(arguments))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        let _ = UnixStream::connect(self.scratch.path().join("control.sock"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

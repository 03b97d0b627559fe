//! Helpers for the command line's tests: a temporary directory, and a daemon with prepared answers.

use super::Context;
use super::client::Door;
use super::exit::{CommandError, Exit};
use super::output::tests::{Kept, kept};
use crate::net::CONTROL_SOCKET;
use crate::node::command::{Command, Reply, Response};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// The directory of one test, removed with this value.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> Self {
        Scratch(TempDir::new().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A thread behind a control socket that gives prepared answers and records the commands.
pub(super) struct FakeDaemon {
    scratch: Scratch,
    heard: Receiver<Command>,
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// A daemon that gives these answers on every connection and then closes it.
    pub(super) fn answering(responses: &[Response]) -> Self {
        FakeDaemon::writing(&lines(responses))
    }

    /// A daemon that writes these bytes on every connection and then closes it.
    pub(super) fn writing(bytes: &[u8]) -> Self {
        FakeDaemon::start(bytes.to_vec(), None, false)
    }

    /// A daemon that gives these answers to its first client and then stops.
    pub(super) fn leaving(responses: &[Response]) -> Self {
        FakeDaemon::start(lines(responses), None, true)
    }

    /// A daemon that writes the first bytes, waits for [`FakeDaemon::release`], writes the others and closes.
    pub(super) fn holding(first: &[u8], then: &[u8]) -> Self {
        FakeDaemon::start(first.to_vec(), Some(then.to_vec()), false)
    }

    /// A daemon that answers every command of every connection with this.
    pub(super) fn answering_each(response: &Response) -> Self {
        FakeDaemon::answering_in_turn(core::slice::from_ref(response))
    }

    /// A daemon that gives each command, on any connection, the next answer. The last answer repeats.
    pub(super) fn answering_in_turn(responses: &[Response]) -> Self {
        let mut answers: VecDeque<Response> = responses.iter().cloned().collect();
        FakeDaemon::answering_by(move |_| match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        })
    }

    /// A daemon that makes an answer to each command, on any connection.
    pub(super) fn answering_by(mut answer: impl FnMut(&Command) -> Response + Send + 'static) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path().join(CONTROL_SOCKET)).unwrap();
        let (tell, heard) = channel();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut commands = 0;
                for line in lines.map_while(Result::ok) {
                    let (Some(command), id) = command_of(&line) else { break };
                    let mut answer = serde_json::to_value(answer(&command)).unwrap();
                    answer["id"] = id;
                    let _ = tell.send(command);
                    let _ = writeln!(stream, "{answer}");
                    commands += 1;
                }
                // A connection without a command is the one that ends the thread.
                if commands == 0 {
                    return;
                }
            }
        });
        FakeDaemon { scratch, heard, release: None, thread: Some(thread) }
    }

    /// The context of a command for this daemon, and its output: results and remarks.
    pub(super) fn context(&self, json: bool) -> (Context, Kept, Kept) {
        let (output, results, remarks) = kept(json);
        (
            Context {
                dir: self.dir().to_owned(),
                door: Door::Dir(self.dir().to_owned()),
                output,
                progress: None,
            },
            results,
            remarks,
        )
    }

    pub(super) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The commands received since the last call.
    pub(super) fn heard(&self) -> Vec<Command> {
        self.heard.try_iter().collect()
    }

    pub(super) fn release(&mut self) {
        self.release = None;
    }

    fn start(first: Vec<u8>, then: Option<Vec<u8>>, once: bool) -> Self {
        let scratch = Scratch::new();
        let listener = UnixListener::bind(scratch.path().join(CONTROL_SOCKET)).unwrap();
        let (tell, heard) = channel();
        let (release, wait) = channel::<()>();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                // A connection without a command is the one that ends the thread.
                let (Some(command), _) = command_of(&line) else { return };
                let _ = tell.send(command);
                let _ = stream.write_all(&first);
                if let Some(then) = &then {
                    // It returns when `release` drops the sender.
                    let _ = wait.recv();
                    let _ = stream.write_all(then);
                }
                if once {
                    return;
                }
            }
        });
        FakeDaemon { scratch, heard, release: Some(release), thread: Some(thread) }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.release = None;
        let _ = UnixStream::connect(self.scratch.path().join(CONTROL_SOCKET));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The command in a line, and its number.
fn command_of(line: &str) -> (Option<Command>, Value) {
    let mut line: Value = serde_json::from_str(line).unwrap_or_default();
    let Some(fields) = line.as_object_mut() else { return (None, Value::Null) };
    let id = fields.remove("id").unwrap_or_default();
    fields.remove("descriptor");
    (serde_json::from_value(line).ok(), id)
}

/// The answers as lines of JSON.
pub(super) fn lines(responses: &[Response]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for response in responses {
        serde_json::to_writer(&mut bytes, response).unwrap();
        bytes.push(b'\n');
    }
    bytes
}

/// What a command writes when the daemon gives this reply, or the exit code of its failure.
pub(super) fn answer(
    command: fn(&mut Context) -> Result<Exit, CommandError>,
    json: bool,
    reply: Reply,
) -> Result<String, Exit> {
    let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
    let (mut context, results, _) = daemon.context(json);
    command(&mut context).map(|_| results.text()).map_err(|error| error.exit)
}

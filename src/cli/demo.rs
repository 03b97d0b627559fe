//! `demo`: starts a swarm on this machine, kills the publisher of a file and a holder of copies, and gets the file from the rest.

mod swarm;

use super::exit::{CommandError, Exit};
use super::output::{Output, counted, shown};
use crate::config::units::format_size;
use crate::id::Key;
use crate::node::command::{Command, Reply, SharedFile, Status};
use crate::rng::Rng;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swarm::Swarm;

pub(super) const AFTER_HELP: &str = "\
Each node is a process with its own directory and listens on 127.0.0.1 only. The demo removes all of them at its end, also after
Ctrl-C. The exit code is 0 only if the file came back byte for byte.

Examples:
  elver demo                            with a generated file of 8 MiB
  elver demo holiday.tar --nodes 16     with a file of yours, which is only read";

/// The length of the generated file, in bytes.
const MADE_BYTES: u64 = 8 << 20;

/// The longest time without an answer or progress of a node.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The time that the nodes have to find each other.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// The time for the copies that are missing when `put` returns: this, and a second for each MiB.
const COPY_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub(super) struct DemoArguments {
    /// The file to put [default: 8 MiB of generated content, the same every time]
    file: Option<PathBuf>,
    /// The number of nodes: 5 to 64
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(5..=64))]
    nodes: u8,
    /// The number of copies that the swarm keeps: at least 3, so that two can be lost, and fewer than nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..))]
    replicas: u8,
    /// Keep the directory with the nodes' data and logs
    #[arg(long)]
    keep: bool,
}

/// Prints a line for each step, with the time since the start.
struct Story<'a> {
    output: &'a mut Output,
    start: Instant,
}

impl Story<'_> {
    fn tell(&mut self, step: &str, message: &str) -> Result<(), CommandError> {
        let seconds = self.start.elapsed().as_secs_f64();
        match self.output.json {
            true => self.output.object(&json!({ "step": step, "seconds": seconds, "message": message }))?,
            false if self.output.quiet => {}
            false => self.output.line(&format!("[{seconds:6.2} s] {message}"))?,
        }
        self.output.flush()
    }
}

/// Runs the demo from the first node to the last byte.
pub(super) fn run(output: &mut Output, arguments: &DemoArguments) -> Result<Exit, CommandError> {
    if arguments.replicas >= arguments.nodes {
        let message = format!(
            "--replicas {} needs more than {} nodes: one node has to be without a copy, to get the file",
            arguments.replicas, arguments.nodes
        );
        return Err(CommandError::new(Exit::Usage, message));
    }
    let mut story = Story { output, start: Instant::now() };
    let mut swarm = Swarm::new(arguments.keep)?;
    let result = perform(&mut story, &mut swarm, arguments);
    if arguments.keep {
        let message = format!("the nodes' data and logs are in {}", shown(swarm.dir()));
        story.tell("kept", &message)?;
    }
    result
}

fn perform(
    story: &mut Story<'_>,
    swarm: &mut Swarm,
    arguments: &DemoArguments,
) -> Result<Exit, CommandError> {
    let file = match &arguments.file {
        Some(file) => std::path::absolute(file)
            .map_err(|error| CommandError::failed(format!("cannot use {}: {error}", shown(file))))?,
        None => make_file(&swarm.dir().join("file"))?,
    };
    let length = std::fs::metadata(&file)
        .map_err(|error| CommandError::failed(format!("cannot read {}: {error}", shown(&file))))?
        .len();
    start_nodes(story, swarm, arguments, length)?;

    // Not node 0, through which the others joined: the swarm must not depend on it.
    let publisher = 1;
    let hash = put(story, swarm, publisher, &file, arguments.replicas)?;
    wait_for_copies(story, swarm, publisher, hash, length)?;

    let holder = kill_two(story, swarm, publisher)?;
    let (copy, sources) = get(story, swarm, hash)?;

    if !equal(&file, &copy).map_err(|error| CommandError::failed(format!("cannot compare: {error}")))? {
        return Err(CommandError::new(
            Exit::Unverified,
            format!("{} differs from {}: this is a bug, please report it", shown(&copy), shown(&file)),
        ));
    }
    story.tell("compared", "both files are equal, byte for byte.")?;
    let message = format!(
        "Done: {} survived the loss of nodes {} and {}, and came back from {sources} of the {} nodes left.",
        format_size(length),
        publisher + 1,
        holder + 1,
        swarm.len() - 2,
    );
    match story.output.json {
        true => story.tell("done", &message)?,
        false => story.output.line(&message)?,
    }
    Ok(Exit::Done)
}

/// Starts the nodes and waits until all of them know each other.
fn start_nodes(
    story: &mut Story<'_>,
    swarm: &mut Swarm,
    arguments: &DemoArguments,
    length: u64,
) -> Result<(), CommandError> {
    let count = usize::from(arguments.nodes);
    swarm.start(count, arguments.replicas, length)?;
    let (first, last) = swarm.ports();
    story.tell(
        "started",
        &format!("started {count} nodes, each a process, on 127.0.0.1, ports {first} to {last}."),
    )?;
    let start = Instant::now();
    // After the time limit, as many peers as copies are enough.
    let needed = u32::from(arguments.replicas);
    let fewest = loop {
        let mut fewest = u32::MAX;
        for node in 0..count {
            fewest = fewest.min(status(swarm, node)?.peers);
        }
        let patient = start.elapsed() < JOIN_LIMIT;
        if fewest as usize >= count - 1 || (!patient && fewest >= needed) {
            break fewest;
        }
        if !patient {
            return Err(CommandError::new(
                Exit::Unreachable,
                format!(
                    "after {} s a node knows only {}; check whether a firewall blocks 127.0.0.1",
                    JOIN_LIMIT.as_secs(),
                    counted(fewest, "other")
                ),
            ));
        }
        swarm.pause()?;
    };
    story.tell("joined", &format!("the nodes found each other: each knows at least {fewest} others."))
}

fn put(
    story: &mut Story<'_>,
    swarm: &Swarm,
    publisher: usize,
    file: &Path,
    replicas: u8,
) -> Result<Key, CommandError> {
    let command = Command::Put { path: file.to_owned(), replicas: Some(replicas), lifetime: None };
    let reply = swarm.ask(publisher, &command, ANSWER_LIMIT)?;
    let Reply::Put { hash, length, copies, replicas, .. } = reply else {
        return Err(swarm.unexpected(publisher, &reply));
    };
    story.tell(
        "put",
        &format!(
            "put {} ({}) at node {}; {copies} of {replicas} copies are on disk. Its address, as b3sum prints it: {hash}",
            shown(file),
            format_size(length),
            publisher + 1,
        ),
    )?;
    Ok(hash)
}

/// Waits until every piece of the file has `replicas` copies.
fn wait_for_copies(
    story: &mut Story<'_>,
    swarm: &Swarm,
    publisher: usize,
    hash: Key,
    length: u64,
) -> Result<(), CommandError> {
    let limit = COPY_LIMIT + Duration::from_secs(length >> 20);
    let start = Instant::now();
    loop {
        let file = shared(swarm, publisher, hash)?;
        if file.copies >= u32::from(file.replicas) {
            let message = format!("every piece has {} copies now, including the publisher's.", file.copies);
            return story.tell("copied", &message);
        }
        if start.elapsed() > limit {
            return Err(CommandError::new(
                Exit::BelowQuorum,
                format!(
                    "after {} s a piece has only {} of {} copies",
                    limit.as_secs(),
                    file.copies,
                    file.replicas
                ),
            ));
        }
        swarm.pause()?;
    }
}

/// Kills the publisher and the node that holds the most pieces, and returns the latter.
fn kill_two(story: &mut Story<'_>, swarm: &mut Swarm, publisher: usize) -> Result<usize, CommandError> {
    let mut holder = None;
    for node in (0..swarm.len()).filter(|&node| node != publisher) {
        let pieces = status(swarm, node)?.pieces;
        if pieces > holder.map_or(0, |(_, most)| most) {
            holder = Some((node, pieces));
        }
    }
    let Some((holder, pieces)) = holder else {
        return Err(CommandError::failed(
            "no node reports a stored piece, although put reported copies; this is a bug",
        ));
    };
    swarm.kill(publisher)?;
    swarm.kill(holder)?;
    story.tell(
        "killed",
        &format!(
            "killed (SIGKILL) node {}, which published the file, and node {}, which held {pieces} of its pieces.",
            publisher + 1,
            holder + 1,
        ),
    )?;
    Ok(holder)
}

/// Gets the file at the living node that holds the fewest pieces of it.
fn get(story: &mut Story<'_>, swarm: &Swarm, hash: Key) -> Result<(PathBuf, u32), CommandError> {
    let mut getter = None;
    for node in swarm.living() {
        let pieces = status(swarm, node)?.pieces;
        if getter.is_none_or(|(_, fewest)| pieces < fewest) {
            getter = Some((node, pieces));
        }
    }
    let Some((node, _)) = getter else {
        return Err(CommandError::failed("no node is left"));
    };
    let target = swarm.dir().join("copy");
    let start = Instant::now();
    let command = Command::Get {
        hash,
        target: Some(target),
        force: false,
        mode: None,
        timeout: Some(ANSWER_LIMIT.as_secs() as u32),
    };
    // The node's own timeout passes first: its error names the cause.
    let reply = swarm.ask(node, &command, ANSWER_LIMIT * 2)?;
    let Reply::Get { length, path, sources, .. } = reply else {
        return Err(swarm.unexpected(node, &reply));
    };
    story.tell(
        "got",
        &format!(
            "got it at node {}: {} from {} in {:.2} s, each piece verified on arrival.",
            node + 1,
            format_size(length),
            counted(sources, "node"),
            start.elapsed().as_secs_f64(),
        ),
    )?;
    Ok((path, sources))
}

fn status(swarm: &Swarm, node: usize) -> Result<Status, CommandError> {
    match swarm.ask(node, &Command::Status, ANSWER_LIMIT)? {
        Reply::Status(status) => Ok(*status),
        reply => Err(swarm.unexpected(node, &reply)),
    }
}

fn shared(swarm: &Swarm, node: usize, hash: Key) -> Result<SharedFile, CommandError> {
    match swarm.ask(node, &Command::List { after: None }, ANSWER_LIMIT)? {
        Reply::List { files, .. } => files
            .into_iter()
            .find(|file| file.hash == hash)
            .ok_or_else(|| CommandError::failed(format!("node {} no longer shares the file", node + 1))),
        reply => Err(swarm.unexpected(node, &reply)),
    }
}

/// Writes a file of incompressible content that is the same every time.
fn make_file(path: &Path) -> Result<PathBuf, CommandError> {
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut rng = Rng::new(*b"elver demo: a file of eight MiB.");
        for _ in 0..MADE_BYTES / 4096 {
            file.write_all(&rng.bytes::<4096>())?;
        }
        file.flush()
    };
    write().map_err(|error| CommandError::failed(format!("cannot write {}: {error}", shown(path))))?;
    Ok(path.to_owned())
}

/// Whether two files have the same content.
fn equal(a: &Path, b: &Path) -> io::Result<bool> {
    let mut files = [BufReader::new(File::open(a)?), BufReader::new(File::open(b)?)];
    let mut buffers = [vec![0; 64 << 10], vec![0; 64 << 10]];
    loop {
        let mut lengths = [0; 2];
        for index in 0..2 {
            lengths[index] = fill(&mut files[index], &mut buffers[index])?;
        }
        if lengths[0] != lengths[1] || buffers[0][..lengths[0]] != buffers[1][..lengths[1]] {
            return Ok(false);
        }
        if lengths[0] == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends, and returns the number of bytes.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;

    #[test]
    fn files_are_equal_only_if_every_byte_is() {
        let scratch = Scratch::new();
        let file = |name: &str, content: &[u8]| {
            let path = scratch.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let long = vec![7; 100_000];
        let mut other = long.clone();
        other[99_999] = 8;
        let (a, b, c) = (file("a", &long), file("b", &long), file("c", &other));
        let (shorter, empty) = (file("d", &long[..99_999]), file("e", b""));
        assert!(equal(&a, &b).unwrap() && equal(&empty, &empty).unwrap());
        for different in [&c, &shorter, &empty] {
            assert!(!equal(&a, different).unwrap() && !equal(different, &a).unwrap());
        }
    }

    #[test]
    fn the_made_file_is_the_same_every_time() {
        let scratch = Scratch::new();
        let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
        make_file(&a).unwrap();
        make_file(&b).unwrap();
        assert!(equal(&a, &b).unwrap());
        assert_eq!(std::fs::metadata(&a).unwrap().len(), MADE_BYTES);
    }
}

//! `put DIR`: shares every file of a directory, then the list.
//!
//! Files are given to the node in the order of the list, many at a time. Their entries wait in a queue until the node has told their
//! addresses, and then go into the list. The list is a file in `sets/` in the node's directory, and is shared from there.
//!
//! Receivers take a file of the same length and time for the same. So no two contents of a file may come with one time: a file that
//! changed until the node's answer is put again, and one that was written in the last two seconds is only read when these are over
//! (after that, a write gives it another time). Files of a tree that was just written cost this pause once, not each.

use super::walk::{Found, Opened, Source, Stamp, Walk};
use crate::cli::Context;
use crate::cli::client::ClientError;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::opened::real_directory;
use crate::cli::output::{counted, shown, sum_line};
use crate::cli::pipeline::Pipeline;
use crate::cli::progress::Meter;
use crate::config;
use crate::config::units::format_size;
use crate::id::Key;
use crate::node::command::{Command, Reply, Response};
use crate::set::{Encoder, Record, SetFile};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Files given to the node at a time, before the earlier ones are done.
const UNDER_WAY_MAX: usize = 256;
/// How often a file is read that changes meanwhile.
const TRIES_MAX: u32 = 3;
/// Entries that wait for the address of a file before them.
const QUEUE_MAX: usize = 4096;
/// The entries that are told one by one when they are left out or fail; more are counted.
const TOLD_MAX: u64 = 20;
/// The directory of lists in a node's directory.
const LISTS: &str = "sets";

/// What `put` was asked for.
pub(in crate::cli) struct PutSet<'a> {
    /// The directory.
    pub(in crate::cli) directory: &'a Path,
    /// The number of copies of each file; `None` is the node's default.
    pub(in crate::cli) replicas: Option<u8>,
    /// The lifetime of the copies in seconds; `None` is the node's default.
    pub(in crate::cli) lifetime: Option<u32>,
    /// Whether what symbolic links lead to is put in their place.
    pub(in crate::cli) follow: bool,
    /// Whether the list has the files' times of modification.
    pub(in crate::cli) times: bool,
}

/// Puts a set.
pub(in crate::cli) fn put(context: &mut Context, order: &PutSet<'_>) -> Result<Exit, CommandError> {
    let cannot = |why: String| CommandError::failed(format!("cannot put {}: {why}", shown(order.directory)));
    let root = real_directory(order.directory).map_err(cannot)?;
    let walk = Walk::new(&root, order.follow, &context.dir).map_err(cannot)?;
    let mut run = Run {
        order,
        walk,
        pipeline: Pipeline::connect(&context.door)?,
        queue: VecDeque::new(),
        taken: 0,
        under_way: BTreeMap::new(),
        list: ListFile::create(context, order.times)?,
        tally: Tally::default(),
        exit: Exit::Done,
        meter: Meter::new(context.progress(), &shown(order.directory)),
    };
    run.files(context)?;
    run.finish(context)
}

/// The path of a list in a node's directory.
pub(in crate::cli) fn list_path(dir: &Path, hash: &Key) -> PathBuf {
    dir.join(LISTS).join(hash.to_string())
}

struct Run<'a> {
    order: &'a PutSet<'a>,
    walk: Walk,
    pipeline: Pipeline,
    /// The entries that are not in the list yet.
    queue: VecDeque<Entry>,
    /// The number of entries that left the queue.
    taken: u64,
    /// The places in the queue of the files that the node works on, counted from the first entry of all.
    under_way: BTreeMap<u64, u64>,
    list: ListFile,
    tally: Tally,
    exit: Exit,
    meter: Meter,
}

enum Entry {
    Directory { name: Vec<u8>, mode: u16 },
    Link { name: Vec<u8>, target: Vec<u8> },
    File(Box<Given>),
    End,
}

/// A file that was given to the node.
struct Given {
    name: Vec<u8>,
    path: PathBuf,
    file: SetFile,
    /// `None` when the node has answered.
    reading: Option<Reading>,
}

/// What is needed to see whether a file changes while the node reads it.
struct Reading {
    source: Source,
    stamp: Stamp,
    tries: u32,
}

#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    directories: u64,
    links: u64,
    left_out: u64,
    failed: u64,
    below_quorum: u64,
}

impl Run<'_> {
    /// Shares the files and writes the list.
    fn files(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let mut walks = true;
        while walks || !self.queue.is_empty() {
            while walks
                && self.queue.len() < QUEUE_MAX
                && self.under_way.len() < UNDER_WAY_MAX
                && self.pipeline.has_room()
            {
                match self.walk.next() {
                    Some(found) => self.found(context, found)?,
                    None => walks = false,
                }
            }
            self.write()?;
            if !self.under_way.is_empty() {
                self.hear(context)?;
            }
        }
        Ok(())
    }

    fn found(&mut self, context: &mut Context, found: Found) -> Result<(), CommandError> {
        let entry = match found {
            Found::Directory { name, mode } => Entry::Directory { name, mode },
            Found::Link { name, target } => Entry::Link { name, target },
            Found::End => Entry::End,
            Found::File { path, source, opened } => {
                let name = source.name().to_vec();
                let place = self.taken + self.queue.len() as u64;
                match self.give(place, &path, source, opened, 1) {
                    Ok((file, reading)) => {
                        Entry::File(Box::new(Given { name, path, file, reading: Some(reading) }))
                    }
                    Err(Refusal::File(why)) => {
                        self.failed(context, &cannot_put(&path, &why));
                        return Ok(());
                    }
                    Err(Refusal::Node(error)) => return Err(error.into()),
                }
            }
            Found::LeftOut { path, why } => {
                self.tally.left_out += 1;
                if self.tally.left_out <= TOLD_MAX {
                    let what = format!("{}: left out: {why}", shown(&path));
                    self.meter.aside(|| context.output.warn(&what));
                }
                return Ok(());
            }
            Found::Failed { path, why } => {
                self.failed(context, &cannot_put(&path, &why));
                return Ok(());
            }
        };
        self.queue.push_back(entry);
        Ok(())
    }

    /// Gives a file to the node, as soon as another write would give it another time of modification.
    fn give(
        &mut self,
        place: u64,
        path: &Path,
        source: Source,
        mut opened: Opened,
        mut tries: u32,
    ) -> Result<(SetFile, Reading), Refusal> {
        let PutSet { replicas, lifetime, times, .. } = *self.order;
        let pause = |stamp: Stamp| match times {
            true => stamp.stays_fresh(SystemTime::now()),
            false => Duration::ZERO,
        };
        let mut left = pause(opened.stamp);
        while left > Duration::ZERO {
            std::thread::sleep(left);
            let before = core::mem::replace(&mut opened, source.open().map_err(Refusal::File)?).stamp;
            if before != opened.stamp {
                tries = next_try(tries).map_err(Refusal::File)?;
            }
            left = pause(opened.stamp);
        }
        let Opened { file, mode, stamp } = opened;
        let command = Command::Put { path: path.to_owned(), replicas, lifetime };
        let id = self.pipeline.send(&command, file.as_ref().map(File::as_fd)).map_err(Refusal::Node)?;
        self.under_way.insert(id, place);
        let modified = if times { stamp.modified() } else { 0 };
        let file = SetFile { hash: Key([0; 32]), length: 0, modified, mode };
        Ok((file, Reading { source, stamp, tries }))
    }

    /// Takes the node's next answer.
    fn hear(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let Some((id, response)) = self.pipeline.receive()? else { return Ok(()) };
        if matches!(response, Response::Progress(_)) {
            return Ok(());
        }
        let Some(place) = self.under_way.remove(&id) else { return Ok(()) };
        let index = usize::try_from(place - self.taken).unwrap_or(usize::MAX);
        let Some(Entry::File(given)) = self.queue.get_mut(index) else { return Ok(()) };
        let Some(Reading { source, stamp, tries }) = given.reading.take() else { return Ok(()) };
        if !source.is_still(stamp) {
            let path = given.path.clone();
            return self.give_again(context, index, &path, source, tries);
        }
        let Given { file, path, .. } = &mut **given;
        match response {
            Response::Done(Reply::Put { hash, length, quorum, kept_open, .. }) => {
                (file.hash, file.length) = (hash, length);
                self.tally.files += 1;
                self.tally.bytes += length;
                self.tally.below_quorum += u64::from(!quorum);
                if kept_open {
                    let what = format!(
                        "{}: the node's user may not read it; it is shared until the node stops, and has to be put again then",
                        shown(path)
                    );
                    self.meter.aside(|| context.output.warn(&what));
                }
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            Response::Failed(failure) => {
                self.failed(context, &CommandError::new(failure.reason.into(), failure.message));
            }
            _ => return Err(CommandError::failed("the node sent content that was not asked for")),
        }
        Ok(())
    }

    /// Gives a file to the node once more, because it changed.
    fn give_again(
        &mut self,
        context: &mut Context,
        index: usize,
        path: &Path,
        source: Source,
        tries: u32,
    ) -> Result<(), CommandError> {
        while !self.pipeline.has_room() {
            self.hear(context)?;
        }
        let place = self.taken + index as u64;
        let again = next_try(tries)
            .and_then(|tries| Ok((tries, source.open()?)))
            .map_err(Refusal::File)
            .and_then(|(tries, opened)| self.give(place, path, source, opened, tries));
        match again {
            Ok((file, reading)) => {
                if let Some(Entry::File(given)) = self.queue.get_mut(index) {
                    (given.file, given.reading) = (file, Some(reading));
                }
            }
            Err(Refusal::File(why)) => self.failed(context, &cannot_put(path, &why)),
            Err(Refusal::Node(error)) => return Err(error.into()),
        }
        Ok(())
    }

    fn failed(&mut self, context: &mut Context, error: &CommandError) {
        self.tally.failed += 1;
        self.exit = self.exit.or(error.exit);
        if self.tally.failed <= TOLD_MAX {
            self.meter.aside(|| context.output.error(error));
        }
    }

    /// Writes the entries whose turn it is into the list.
    fn write(&mut self) -> Result<(), CommandError> {
        while let Some(entry) = self.queue.front() {
            match entry {
                Entry::File(given) if given.reading.is_some() => break,
                Entry::Directory { name, mode } => {
                    self.tally.directories += 1;
                    self.list.push(&Record::Directory { name, mode: *mode })?;
                }
                Entry::Link { name, target } => {
                    self.tally.links += 1;
                    self.list.push(&Record::Link { name, target })?;
                }
                Entry::File(given) => {
                    self.list.push(&Record::File { name: &given.name, file: given.file })?;
                }
                Entry::End => self.list.push(&Record::End)?,
            }
            self.queue.pop_front();
            self.taken += 1;
        }
        let done = usize::try_from(self.tally.files).unwrap_or(usize::MAX);
        self.meter.show_files(done, done + self.under_way.len());
        Ok(())
    }

    /// Shares the list, and prints its address.
    fn finish(self, context: &mut Context) -> Result<Exit, CommandError> {
        let Run { order, walk, mut pipeline, list, tally, mut exit, meter, .. } = self;
        let Tally { files, bytes, directories, links, left_out, failed, below_quorum } = tally;
        if failed > 0 {
            let message = format!(
                "{} is not put as a set, because it would lack what failed ({}); its other files are shared",
                shown(order.directory),
                counted(failed, "entry").replace("entrys", "entries"),
            );
            return Err(CommandError::new(exit, message));
        }
        let (path, hash) = list.finish()?;
        let file = File::open(&path).map_err(|error| unwritten(&path, &error))?;
        let command = Command::Put { path, replicas: order.replicas, lifetime: order.lifetime };
        pipeline.send(&command, Some(file.as_fd()))?;
        drop(file);
        let (copies, replicas, quorum, kept_open) = loop {
            match pipeline.receive()? {
                None | Some((_, Response::Progress(_))) => {}
                Some((
                    _,
                    Response::Done(Reply::Put { hash: put, copies, replicas, quorum, kept_open, .. }),
                )) if put == hash => {
                    break (copies, replicas, quorum, kept_open);
                }
                Some((_, Response::Done(reply))) => return Err(context.unexpected(&reply)),
                Some((_, Response::Failed(failure))) => {
                    return Err(CommandError::new(failure.reason.into(), failure.message));
                }
                Some((_, Response::Content(_))) => {
                    return Err(CommandError::failed("the node sent content that was not asked for"));
                }
            }
        };
        drop(meter);
        let below_quorum = below_quorum + u64::from(!quorum);
        if context.output.json {
            context.output.object(&json!({
                "set": format!("{hash}/"), "hash": hash, "file": order.directory.to_string_lossy(), "files": files,
                "length": bytes, "directories": directories, "links": links, "left_out": left_out,
                "ignored": walk.ignored, "copies": copies, "replicas": replicas, "below_quorum": below_quorum,
            }))?;
        } else {
            context.output.line(&sum_line(&format!("{hash}/"), order.directory))?;
            let mut text =
                format!("{}: {}, {}", shown(order.directory), counted(files, "file"), format_size(bytes));
            for (count, what) in [(left_out, "left out"), (walk.ignored, "ignored")] {
                if count > 0 {
                    text += &format!(", {count} {what}");
                }
            }
            context.output.remark(&text);
        }
        if kept_open {
            context.output.warn(&format!(
                "{}: the node's user may not read the list of the set; it is shared until the node stops, and the set has to be \
                 put again then",
                shown(order.directory),
            ));
        }
        if below_quorum > 0 {
            exit = exit.or(Exit::BelowQuorum);
            context.output.warn(&format!(
                "{}: {below_quorum} of {} have fewer copies than a quorum so far; the node goes on trying (see `elver ls`)",
                shown(order.directory),
                counted(files + 1, "file"),
            ));
        }
        context.output.flush()?;
        Ok(exit)
    }
}

/// Why a file is not given to the node.
enum Refusal {
    /// The file's fault, for the user.
    File(String),
    /// The node is gone.
    Node(ClientError),
}

/// The number of the next try to read a file that changed, if there is one.
fn next_try(tries: u32) -> Result<u32, String> {
    match tries < TRIES_MAX {
        true => Ok(tries + 1),
        false => Err(format!(
            "it changed each of the {TRIES_MAX} times that it was read: stop what writes to it, or name it in .elverignore"
        )),
    }
}

fn cannot_put(path: &Path, why: &str) -> CommandError {
    CommandError::failed(format!("cannot put {}: {why}", shown(path)))
}

fn unwritten(path: &Path, error: &io::Error) -> CommandError {
    CommandError::write_failed(&shown(path), error)
}

/// The list while it is written: a temporary file, which is deleted unless it is finished.
struct ListFile {
    file: BufWriter<File>,
    path: PathBuf,
    encoder: Encoder,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl ListFile {
    /// Creates it in the node's directory or, when that belongs to another user, in the directory of this user's own node.
    fn create(context: &Context, times: bool) -> Result<Self, CommandError> {
        let own = config::directory(None, &config::environment).ok();
        let mut failed = None;
        for directory in core::iter::once(context.dir.clone()).chain(own) {
            let directory = std::path::absolute(&directory).unwrap_or(directory).join(LISTS);
            let path = directory.join(format!("{}.tmp", std::process::id()));
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&directory);
            match made.and_then(|()| File::create(&path)) {
                Ok(file) => {
                    let mut buffer = Vec::new();
                    let encoder = Encoder::begin(times, &mut buffer);
                    let (file, hasher) = (BufWriter::new(file), blake3::Hasher::new());
                    let mut list = ListFile { file, path, encoder, hasher, buffer };
                    list.write()?;
                    return Ok(list);
                }
                Err(error) => failed = failed.or(Some(unwritten(&path, &error))),
            }
        }
        Err(failed.unwrap_or_else(|| CommandError::failed("there is no directory for the list of the set")))
    }

    fn push(&mut self, record: &Record<'_>) -> Result<(), CommandError> {
        self.encoder.push(record, &mut self.buffer).map_err(|why| {
            CommandError::failed(format!("the directory is no set: {why}; put a part of it"))
        })?;
        self.write()
    }

    fn write(&mut self) -> Result<(), CommandError> {
        self.hasher.update(&self.buffer);
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| unwritten(&self.path, &error))
    }

    /// Gives it its name, which is its address.
    fn finish(mut self) -> Result<(PathBuf, Key), CommandError> {
        debug_assert!(self.encoder.is_over());
        let hash = Key(*self.hasher.finalize().as_bytes());
        let path = self.path.with_file_name(hash.to_string());
        self.file
            .flush()
            .and_then(|()| fs::rename(&self.path, &path))
            .map_err(|error| unwritten(&path, &error))?;
        Ok((path, hash))
    }
}

impl Drop for ListFile {
    fn drop(&mut self) {
        // Without effect after the rename.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeDaemon, Scratch};
    use crate::set::{Decoded, Decoder, HEAD_BYTES};

    fn order(directory: &Path) -> PutSet<'_> {
        PutSet { directory, replicas: None, lifetime: None, follow: false, times: true }
    }

    /// The answer of a node that reads the file now.
    fn answer_about(path: &Path) -> Response {
        let content = fs::read(path).unwrap();
        let (hash, length) = (Key(*blake3::hash(&content).as_bytes()), content.len() as u64);
        Response::Done(Reply::Put { hash, length, copies: 1, replicas: 0, quorum: true, kept_open: false })
    }

    /// Writes a file that looks as if it were written this many seconds ago.
    fn write(path: &Path, content: &str, ago: u64) -> SystemTime {
        fs::write(path, content).unwrap();
        let time = SystemTime::now() - Duration::from_secs(ago);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        time
    }

    /// The only file in the only list of a node's directory.
    fn listed(dir: &Path) -> SetFile {
        let list = fs::read_dir(dir.join(LISTS)).unwrap().next().unwrap().unwrap();
        let list = fs::read(list.path()).unwrap();
        let (mut decoder, mut at) = (Decoder::default(), 0);
        loop {
            match decoder.decode(&list[at..], true).unwrap() {
                Decoded::Record(Record::File { file, .. }, _) => return file,
                Decoded::Record(_, length) => at += length,
                Decoded::Head => at += HEAD_BYTES,
                _ => panic!("no file in the list"),
            }
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_put_is_put_again_and_listed_as_it_is_then() {
        let scratch = Scratch::new();
        let path = scratch.path().join("f");
        let old = write(&path, "old", 100);
        let daemon = FakeDaemon::answering_by({
            let (path, mut first) = (path.clone(), true);
            move |command| {
                let Command::Put { path: asked, .. } = command else { panic!("{command:?}") };
                let answer = answer_about(asked);
                if core::mem::take(&mut first) {
                    // The same length and the same time.
                    fs::write(&path, "new").unwrap();
                    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
                }
                answer
            }
        });
        let (mut context, ..) = daemon.context(false);
        assert_eq!(put(&mut context, &order(scratch.path())), Ok(Exit::Done));
        assert_eq!(daemon.heard().len(), 3, "the file twice, and the list");
        assert_eq!(listed(daemon.dir()).hash, Key(*blake3::hash(b"new").as_bytes()));
    }

    #[test]
    fn a_file_that_changes_all_the_time_fails() {
        let scratch = Scratch::new();
        write(&scratch.path().join("f"), "", 100);
        let daemon = FakeDaemon::answering_by(move |command| {
            let Command::Put { path, .. } = command else { panic!("{command:?}") };
            let answer = answer_about(path);
            write(path, &fs::read_to_string(path).unwrap().repeat(2), 50);
            answer
        });
        let (mut context, _, remarks) = daemon.context(false);
        assert_eq!(put(&mut context, &order(scratch.path())).unwrap_err().exit, Exit::Failed);
        assert_eq!(daemon.heard().len(), TRIES_MAX as usize);
        assert!(remarks.text().contains("/f: it changed each of the 3 times"), "{}", remarks.text());
    }

    #[test]
    fn a_file_that_was_just_written_is_read_when_a_write_gives_it_another_time() {
        let scratch = Scratch::new();
        let path = scratch.path().join("f");
        let written = write(&path, "x", 1);
        for (times, pause) in [(false, 0), (true, 2)] {
            let daemon = FakeDaemon::answering_by(move |command| {
                let Command::Put { path, .. } = command else { panic!("{command:?}") };
                let since = written.elapsed().unwrap();
                assert!(since >= Duration::from_secs(pause), "read after {since:?}");
                answer_about(path)
            });
            let (mut context, ..) = daemon.context(false);
            let order = PutSet { times, ..order(scratch.path()) };
            assert_eq!(put(&mut context, &order), Ok(Exit::Done));
        }
    }
}

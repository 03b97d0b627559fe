//! `put DIR`: shares every file of a directory, then the list.
//!
//! Files are given to the node in the order of the list, many at a time. Their entries wait in a queue until the node has told their
//! addresses, and then go into the list. The list is a file in `sets/` in the node's directory, and is shared from there.

use super::walk::{Found, Walk};
use crate::cli::Context;
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

/// Files given to the node at a time, before the earlier ones are done.
const UNDER_WAY_MAX: usize = 256;
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
    File { name: Vec<u8>, path: PathBuf, file: SetFile, answered: bool },
    End,
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
            Found::File { name, path, file, mode, modified } => {
                let PutSet { replicas, lifetime, times, .. } = *self.order;
                let command = Command::Put { path: path.clone(), replicas, lifetime };
                let id = self.pipeline.send(&command, file.as_ref().map(File::as_fd))?;
                self.under_way.insert(id, self.taken + self.queue.len() as u64);
                let modified = if times { modified } else { 0 };
                let file = SetFile { hash: Key([0; 32]), length: 0, modified, mode };
                Entry::File { name, path, file, answered: false }
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
                self.failed(context, &CommandError::failed(format!("cannot put {}: {why}", shown(&path))));
                return Ok(());
            }
        };
        self.queue.push_back(entry);
        Ok(())
    }

    /// Takes the node's next answer.
    fn hear(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let Some((id, response)) = self.pipeline.receive()? else { return Ok(()) };
        if matches!(response, Response::Progress(_)) {
            return Ok(());
        }
        let Some(place) = self.under_way.remove(&id) else { return Ok(()) };
        let index = usize::try_from(place - self.taken).unwrap_or(usize::MAX);
        let Some(Entry::File { file, path, answered, .. }) = self.queue.get_mut(index) else { return Ok(()) };
        *answered = true;
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
                Entry::File { answered: false, .. } => break,
                Entry::Directory { name, mode } => {
                    self.tally.directories += 1;
                    self.list.push(&Record::Directory { name, mode: *mode })?;
                }
                Entry::Link { name, target } => {
                    self.tally.links += 1;
                    self.list.push(&Record::Link { name, target })?;
                }
                Entry::File { name, file, .. } => self.list.push(&Record::File { name, file: *file })?,
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

//! `get SET -o DIR`: makes a directory what the set is.
//!
//! The whole list is fetched and checked first, into a file without a name in the directory; a list that breaks a rule changes
//! nothing. One pass over it makes directories and has the node fetch each file that differs. With `--delete`, directories with
//! content then give way to files of the set. A second pass, when all files are there, makes the symbolic links, deletes what the set
//! does not have if that is asked for, and gives directories their modes. So no file is ever written through a link of the set.
//! After a failure nothing is deleted.

use super::Address;
use super::compare::{Rules, Verdict};
use super::list::{Scope, each_record, stream};
use super::tree::{Tree, temporary};
use super::walk::{Inode, inode};
use crate::cli::Context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::output::{counted, shown};
use crate::cli::pipeline::Pipeline;
use crate::cli::progress::Meter;
use crate::config::units::format_size;
use crate::node::command::{Command, Reply, Response};
use crate::set::{Record, SetFile, stays_inside};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, openat, statat, unlinkat};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Files that the node fetches at a time for one command.
const UNDER_WAY_MAX: usize = 64;
/// The failures that are told one by one; more are counted.
const FAILURES_TOLD: u64 = 20;

/// What `get` was asked for.
pub(in crate::cli) struct GetSet<'a> {
    /// The set, or a directory in it.
    pub(in crate::cli) address: &'a Address,
    /// The directory to write into; it is made if only it is missing.
    pub(in crate::cli) directory: &'a Path,
    /// Whether what the set does not have is deleted.
    pub(in crate::cli) delete: bool,
    /// Whether every file is read, although its length and time are those of the set.
    pub(in crate::cli) checksum: bool,
    /// Seconds without progress after which a file is given up.
    pub(in crate::cli) timeout: Option<u32>,
}

/// Gets a set into a directory.
pub(in crate::cli) fn get(context: &mut Context, order: &GetSet<'_>) -> Result<Exit, CommandError> {
    let cannot = |error: io::Error| {
        CommandError::failed(format!("cannot get a set into {}: {error}", shown(order.directory)))
    };
    let made = match fs::create_dir(order.directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(cannot(error)),
    };
    let root = order.directory.canonicalize().map_err(cannot)?;
    if order.delete && holds_node(context, &root) {
        let message = format!("{} holds the node's own directory: leave --delete out", shown(&root));
        return Err(CommandError::new(Exit::Usage, message));
    }
    let tree = Tree::open(&root).map_err(cannot)?;
    let result = Spool::create(&tree).map_err(cannot).and_then(|spool| spool.fill(context, order));
    if result.is_err() && made {
        let _ = fs::remove_dir(order.directory);
    }
    let (spool, survey) = result?;
    let rules = Rules { times: survey.times, modes: spool.keeps_modes, checksum: order.checksum };
    let meter = Meter::new(context.progress(), &shown(order.directory));
    let mut run = Run {
        order,
        root,
        tree,
        place: PathBuf::new(),
        rules,
        pipeline: None,
        under_way: BTreeMap::new(),
        skipped: 0,
        in_the_way: Vec::new(),
        kept: Vec::new(),
        modes: Vec::new(),
        tally: Tally { files: survey.files, ..Tally::default() },
        exit: Exit::Done,
        meter,
    };
    run.begin(context)?;
    spool.each(order, |record| run.fetch(context, record))?;
    run.hear_all(context)?;
    run.replace_directories(context)?;
    run.hear_all(context)?;
    run.kept.push(HashSet::new());
    run.modes.push(None);
    spool.each(order, |record| run.settle(context, record))?;
    run.finish(context)
}

/// Whether the directory of this user's node, or that of the node that answers, is in `root`.
fn holds_node(context: &Context, root: &Path) -> bool {
    let mut directories = context.door.directories();
    directories.push(context.dir.clone());
    directories.iter().any(|own| own.canonicalize().is_ok_and(|own| own.starts_with(root)))
}

/// The list in a file without a name, in the directory that the set goes into.
struct Spool {
    file: File,
    /// Whether the file system takes names that differ only in case for the same.
    folds_case: bool,
    keeps_modes: bool,
}

/// What the whole list says.
#[derive(Default)]
struct Survey {
    times: bool,
    files: u64,
}

impl Spool {
    fn create(tree: &Tree) -> io::Result<Self> {
        let name = temporary("list");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(tree.here(), &name, flags, Mode::from_raw_mode(0o600)) {
            // A process with the same number was killed.
            Err(rustix::io::Errno::EXIST) => {
                unlinkat(tree.here(), &name, AtFlags::empty())?;
                openat(tree.here(), &name, flags, Mode::from_raw_mode(0o600))?
            }
            opened => opened?,
        };
        let upper = name.to_ascii_uppercase();
        let folds_case = statat(tree.here(), &upper, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let odd = Mode::from_raw_mode(0o614);
        let keeps_modes = fchmod(&file, odd).is_ok() && fstat(&file)?.st_mode & 0o777 == odd.as_raw_mode();
        unlinkat(tree.here(), &name, AtFlags::empty())?;
        Ok(Spool { file: file.into(), folds_case, keeps_modes })
    }

    /// Fetches the list, and checks all of it.
    fn fill(mut self, context: &Context, order: &GetSet<'_>) -> Result<(Self, Survey), CommandError> {
        let mut scope = Scope::new(order.address.path());
        let (mut survey, mut twins) = (Survey::default(), Twins::new(self.folds_case));
        let file = &mut self.file;
        let unwritten = |error: io::Error| CommandError::write_failed("the list of the set", &error);
        let hash = order.address.hash;
        let times = stream(
            context,
            hash,
            order.timeout,
            |bytes| file.write_all(bytes).map_err(unwritten),
            |directory, record| {
                if scope.contains(directory, &record) {
                    survey.files += u64::from(matches!(record, Record::File { .. }));
                    twins.check(directory, &record)?;
                }
                Ok(())
            },
        )?;
        survey.times = times;
        scope.check(order.address)?;
        Ok((self, survey))
    }

    /// Reads the requested part of the list.
    fn each(
        &self,
        order: &GetSet<'_>,
        mut take: impl FnMut(&Record<'_>) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut scope = Scope::new(order.address.path());
        each_record(
            &self.file,
            |directory, record| {
                if scope.contains(directory, &record) { take(&record) } else { Ok(()) }
            },
        )
    }
}

/// Finds names that differ only in case, on file systems where one would replace the other.
struct Twins(Option<Vec<HashSet<String>>>);

impl Twins {
    fn new(looks: bool) -> Self {
        Twins(looks.then(|| vec![HashSet::new()]))
    }

    fn check(&mut self, directory: &[u8], record: &Record<'_>) -> Result<(), CommandError> {
        let Some(levels) = &mut self.0 else { return Ok(()) };
        let name = match record {
            Record::End => {
                levels.pop();
                return Ok(());
            }
            Record::Directory { name, .. } | Record::File { name, .. } | Record::Link { name, .. } => name,
        };
        let folded = String::from_utf8_lossy(name).to_lowercase();
        if levels.last_mut().is_some_and(|names| !names.insert(folded)) {
            return Err(CommandError::failed(format!(
                "the set has names that differ only in case, which this file system takes for one ({} in {}): choose \
                 another directory; nothing was changed",
                shown(Path::new(OsStr::from_bytes(name))),
                shown(Path::new(OsStr::from_bytes(directory))),
            )));
        }
        if matches!(record, Record::Directory { .. }) {
            levels.push(HashSet::new());
        }
        Ok(())
    }
}

/// One `get` of a set.
struct Run<'a> {
    order: &'a GetSet<'a>,
    /// The real path of the directory.
    root: PathBuf,
    tree: Tree,
    /// The path of the present directory below the root.
    place: PathBuf,
    rules: Rules,
    pipeline: Option<Pipeline>,
    under_way: BTreeMap<u64, Job>,
    /// In a directory that cannot be entered: the directories to its end.
    skipped: usize,
    /// The files whose places are directories with content, which go only when all other files are there.
    in_the_way: Vec<(PathBuf, Vec<u8>, SetFile)>,
    /// In the second pass: the names of the set in each directory down to the present one, and the directories' modes.
    kept: Vec<HashSet<Vec<u8>>>,
    modes: Vec<Option<u16>>,
    tally: Tally,
    exit: Exit,
    meter: Meter,
}

enum Job {
    /// The list itself, so that this node becomes a source of the set.
    List,
    /// A file.
    File { place: PathBuf, length: u64 },
}

#[derive(Default)]
struct Tally {
    files: u64,
    looked_at: u64,
    fetched: u64,
    bytes: u64,
    mended: u64,
    /// The entries removed because of `--delete`.
    deleted: u64,
    /// The files, links and empty directories removed because an entry of the set has their place.
    gave_way: u64,
    left_out: u64,
    failed: u64,
}

impl Run<'_> {
    /// Connects, and asks the node to become a source of the list.
    fn begin(&mut self, context: &Context) -> Result<(), CommandError> {
        let mut pipeline = Pipeline::connect(&context.door)?;
        let (hash, timeout) = (self.order.address.hash, self.order.timeout);
        let id =
            pipeline.send(&Command::Get { hash, target: None, force: false, mode: None, timeout }, None)?;
        self.under_way.insert(id, Job::List);
        self.pipeline = Some(pipeline);
        Ok(())
    }

    /// The first pass.
    fn fetch(&mut self, context: &mut Context, record: &Record<'_>) -> Result<(), CommandError> {
        match *record {
            Record::Directory { name, mode } => self.enter(context, name, mode),
            Record::End => {
                self.leave();
            }
            Record::File { .. } if self.skipped > 0 => self.tally.failed += 1,
            Record::File { name, ref file } => {
                self.tally.looked_at += 1;
                match self.needs(name, file) {
                    Ok(None | Some(Verdict::Same)) => {}
                    Ok(Some(Verdict::Mended)) => self.tally.mended += 1,
                    Ok(Some(Verdict::Fetch)) => return self.ask(context, name, file),
                    Err(error) => {
                        self.failed(context, &self.path(name), &CommandError::failed(error.to_string()))
                    }
                }
                if self.tally.looked_at % 256 == 0 {
                    self.show();
                }
            }
            // They come in the second pass.
            Record::Link { .. } => {}
        }
        Ok(())
    }

    /// Whether a file differs. What is no file gives way to it; `None` if that is a directory with content, which waits.
    fn needs(&mut self, name: &[u8], file: &SetFile) -> io::Result<Option<Verdict>> {
        let verdict = self.rules.compare(&self.tree, name, file)?;
        let there = if verdict == Verdict::Fetch { self.tree.look(name)? } else { None };
        let kind = there.map(|there| FileType::from_raw_mode(there.st_mode));
        if matches!(kind, None | Some(FileType::RegularFile)) {
            return Ok(Some(verdict));
        }
        let Err(error) = self.tree.remove(name, false, &mut self.tally.gave_way) else {
            return Ok(Some(verdict));
        };
        let has_content = matches!(
            error.kind(),
            // POSIX allows both for rmdir(2).
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
        );
        match has_content {
            true if self.order.delete => {
                self.in_the_way.push((self.place.clone(), name.to_vec(), *file));
                Ok(None)
            }
            true => Err(io::Error::other(
                "it is a directory that is not empty, and a file of the set: --delete replaces it",
            )),
            false => Err(error),
        }
    }

    /// Asks for the files whose places are directories with content, and removes those. After a failure they stay.
    fn replace_directories(&mut self, context: &mut Context) -> Result<(), CommandError> {
        for (place, name, file) in core::mem::take(&mut self.in_the_way) {
            self.place = place;
            let removed = match self.exit {
                Exit::Done => self
                    .tree
                    .go(&self.place)
                    .and_then(|()| self.tree.remove(&name, true, &mut self.tally.deleted)),
                _ => Err(io::Error::other("it is a directory that is not empty, and stays after a failure")),
            };
            match removed {
                Ok(()) => self.ask(context, &name, &file)?,
                Err(error) => {
                    self.failed(context, &self.path(&name), &CommandError::failed(error.to_string()));
                }
            }
        }
        self.place = PathBuf::new();
        self.tree.go(Path::new("")).map_err(|error| CommandError::failed(error.to_string()))
    }

    /// Asks the node for a file.
    fn ask(&mut self, context: &mut Context, name: &[u8], file: &SetFile) -> Result<(), CommandError> {
        while self.under_way.len() >= UNDER_WAY_MAX || !self.pipeline.as_ref().is_none_or(Pipeline::has_room)
        {
            self.hear(context)?;
        }
        let place = self.place.join(OsStr::from_bytes(name));
        let command = Command::GetEntry {
            hash: file.hash,
            directory: self.root.clone(),
            place: place.clone(),
            mode: self.rules.modes.then_some(u32::from(file.mode)),
            modified: self.rules.times.then_some(file.modified),
            timeout: self.order.timeout,
        };
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let id = pipeline.send(&command, None)?;
        self.under_way.insert(id, Job::File { place, length: file.length });
        Ok(())
    }

    /// Takes the node's answers until all have come.
    fn hear_all(&mut self, context: &mut Context) -> Result<(), CommandError> {
        while !self.under_way.is_empty() {
            self.hear(context)?;
        }
        Ok(())
    }

    /// Takes the node's next answer.
    fn hear(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let Some((id, response)) = pipeline.receive()? else { return Ok(()) };
        if matches!(response, Response::Progress(_)) {
            return Ok(());
        }
        let Some(job) = self.under_way.remove(&id) else { return Ok(()) };
        match (job, response) {
            (Job::List, Response::Failed(failure)) => {
                // The files do not need it.
                log::info!("this node does not become a source of the list: {}", failure.message);
            }
            (Job::List, _) => {}
            (Job::File { length, .. }, Response::Done(Reply::Get { .. })) => {
                self.tally.fetched += 1;
                self.tally.bytes += length;
                self.show();
            }
            (_, Response::Done(reply)) => return Err(context.unexpected(&reply)),
            (Job::File { place, .. }, Response::Failed(failure)) => {
                let error = CommandError::new(failure.reason.into(), failure.message);
                self.failed(context, &place, &error);
            }
            (_, _) => return Err(CommandError::failed("the node sent content that was not asked for")),
        }
        Ok(())
    }

    /// The second pass.
    fn settle(&mut self, context: &mut Context, record: &Record<'_>) -> Result<(), CommandError> {
        if let Record::Directory { name, .. } | Record::File { name, .. } | Record::Link { name, .. } = record
        {
            if let Some(kept) = self.kept.last_mut().filter(|_| self.skipped == 0 && self.order.delete) {
                kept.insert(name.to_vec());
            }
        }
        match *record {
            Record::Directory { name, mode } => {
                self.enter(context, name, mode);
                if self.skipped == 0 {
                    self.kept.push(HashSet::new());
                    self.modes.push(Some(mode));
                }
            }
            Record::Link { name, target } if self.skipped == 0 => self.link(context, name, target),
            Record::End if self.skipped == 0 => {
                let kept = self.kept.pop().unwrap_or_default();
                // After a failure nothing is deleted: it may be what is missing.
                if self.order.delete && self.exit == Exit::Done {
                    self.delete_others(context, &kept);
                }
                if let Some(mode) = self.modes.pop().flatten().filter(|_| self.rules.modes) {
                    if let Err(error) = self.tree.permit(mode) {
                        self.failed(context, &self.place.clone(), &CommandError::failed(error.to_string()));
                    }
                }
                self.leave();
            }
            Record::End => self.leave(),
            Record::File { .. } | Record::Link { .. } => {}
        }
        Ok(())
    }

    fn link(&mut self, context: &mut Context, name: &[u8], target: &[u8]) {
        let path = self.path(name);
        if !stays_inside(target, self.tree.depth()) {
            // It stays in the set, and leaves the part that was asked for.
            self.tally.left_out += 1;
            let what =
                format!("{}: left out, because it leads out of the directory", shown(&self.root.join(path)));
            return self.meter.aside(|| context.output.warn(&what));
        }
        // After a failure only an empty directory gives way to it.
        let deletes = self.order.delete && self.exit == Exit::Done;
        let removed = if deletes { &mut self.tally.deleted } else { &mut self.tally.gave_way };
        match self.tree.link(name, target, deletes, removed) {
            Ok(made) => self.tally.mended += u64::from(made),
            Err(error) => self.failed(context, &path, &CommandError::failed(error.to_string())),
        }
    }

    fn delete_others(&mut self, context: &mut Context, kept: &HashSet<Vec<u8>>) {
        let names = match self.tree.names() {
            Ok(names) => names,
            Err(error) => {
                return self.failed(context, &self.place.clone(), &CommandError::failed(error.to_string()));
            }
        };
        let others: Vec<_> =
            names.into_iter().map(OsStringExt::into_vec).filter(|name| !kept.contains(name)).collect();
        if others.is_empty() {
            return;
        }
        // A file system that folds names may have an entry of the set under another name.
        let inodes: io::Result<HashSet<Inode>> =
            kept.iter().filter_map(|name| self.inode(name).transpose()).collect();
        let inodes = match inodes {
            Ok(inodes) => inodes,
            Err(error) => {
                return self.failed(context, &self.place.clone(), &CommandError::failed(error.to_string()));
            }
        };
        for name in others {
            if self.inode(&name).is_ok_and(|found| found.is_some_and(|inode| inodes.contains(&inode))) {
                continue;
            }
            if let Err(error) = self.tree.remove(&name, true, &mut self.tally.deleted) {
                let error = CommandError::failed(format!("cannot delete it: {error}"));
                self.failed(context, &self.path(&name), &error);
            }
        }
    }

    /// The device and the number of what has this name.
    fn inode(&self, name: &[u8]) -> io::Result<Option<Inode>> {
        Ok(self.tree.look(name)?.as_ref().map(inode))
    }

    fn enter(&mut self, context: &mut Context, name: &[u8], mode: u16) {
        if self.skipped > 0 {
            self.skipped += 1;
            return;
        }
        match self.tree.enter(name, mode, &mut self.tally.gave_way) {
            Ok(()) => self.place.push(OsStr::from_bytes(name)),
            Err(error) => {
                self.skipped = 1;
                self.failed(context, &self.path(name), &CommandError::failed(error.to_string()));
            }
        }
    }

    fn leave(&mut self) {
        if self.skipped > 0 {
            self.skipped -= 1;
        } else {
            self.tree.leave();
            self.place.pop();
        }
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.place.join(OsStr::from_bytes(name))
    }

    fn failed(&mut self, context: &mut Context, place: &Path, error: &CommandError) {
        self.tally.failed += 1;
        self.exit = self.exit.or(error.exit);
        if self.tally.failed <= FAILURES_TOLD {
            let message = format!("{}: {}", shown(&self.root.join(place)), error.message);
            self.meter.aside(|| context.output.error(&CommandError::new(error.exit, message)));
        }
    }

    fn show(&mut self) {
        let waiting = self.under_way.len() as u64;
        let (done, all) = (self.tally.looked_at.saturating_sub(waiting), self.tally.files);
        self.meter.show_files(
            usize::try_from(done).unwrap_or(usize::MAX),
            usize::try_from(all).unwrap_or(usize::MAX),
        );
    }

    fn finish(self, context: &mut Context) -> Result<Exit, CommandError> {
        let Run { order, root, tally, exit, meter, .. } = self;
        drop(meter);
        let Tally { files, fetched, bytes, mended, deleted, gave_way, left_out, failed, .. } = tally;
        if context.output.json {
            context.output.object(&json!({
                "hash": order.address.hash, "directory": root.to_string_lossy(), "files": files, "fetched": fetched,
                "length": bytes, "mended": mended, "deleted": deleted, "left_out": left_out, "failed": failed,
            }))?;
        } else {
            let mut text = format!(
                "{}: {fetched} of {} fetched, {}",
                shown(order.directory),
                counted(files, "file"),
                format_size(bytes)
            );
            for (count, what) in
                [(mended, "mended"), (deleted, "deleted"), (left_out, "left out"), (failed, "failed")]
            {
                if count > 0 {
                    text += &format!(", {count} {what}");
                }
            }
            context.output.remark(&text);
        }
        context.output.flush()?;
        if exit != Exit::Done {
            let none = if deleted == 0 && gave_way == 0 { "; nothing was deleted" } else { "" };
            context.output.remark(&format!(
                "{}: {}: the same command goes on from here{none}",
                shown(order.directory),
                counted(failed, "failure")
            ));
        }
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Door;
    use crate::cli::testing::{FakeDaemon, Scratch};
    use crate::id::Key;
    use std::os::unix::fs::symlink;

    const FILE: SetFile = SetFile { hash: Key([1; 32]), length: 3, modified: 5, mode: 0o644 };

    /// Carries out `act` as a `get` with `--delete` into a directory, without a node, and returns its tally, its exit code and what it
    /// says at the end.
    fn with_run(root: &Path, act: impl FnOnce(&mut Run<'_>, &mut Context)) -> (u64, Exit, String) {
        let daemon = FakeDaemon::answering(&[]);
        let (mut context, _, remarks) = daemon.context(false);
        let address: Address = format!("{}/", Key([7; 32])).parse().unwrap();
        let order =
            GetSet { address: &address, directory: root, delete: true, checksum: false, timeout: None };
        let mut run = Run {
            order: &order,
            root: root.to_owned(),
            tree: Tree::open(root).unwrap(),
            place: PathBuf::new(),
            rules: Rules { times: true, modes: false, checksum: false },
            pipeline: None,
            under_way: BTreeMap::new(),
            skipped: 0,
            in_the_way: Vec::new(),
            kept: vec![HashSet::new()],
            modes: vec![None],
            tally: Tally::default(),
            exit: Exit::Done,
            meter: Meter::new(context.progress(), ""),
        };
        act(&mut run, &mut context);
        let deleted = run.tally.deleted;
        let exit = run.finish(&mut context).unwrap();
        (deleted, exit, remarks.text())
    }

    /// A directory with a directory `d` in which `f` and `l` are directories with content.
    fn in_the_way() -> Scratch {
        let scratch = Scratch::new();
        for name in ["d/f/deep", "d/l/deep"] {
            fs::create_dir_all(scratch.path().join(name)).unwrap();
        }
        scratch
    }

    fn first_pass(run: &mut Run<'_>, context: &mut Context) {
        for record in [
            Record::Directory { name: b"d", mode: 0o755 },
            Record::File { name: b"f", file: FILE },
            Record::Link { name: b"l", target: b"f" },
            Record::End,
            Record::End,
        ] {
            run.fetch(context, &record).unwrap();
        }
    }

    fn second_pass(run: &mut Run<'_>, context: &mut Context) {
        for record in [
            Record::Directory { name: b"d", mode: 0o755 },
            Record::File { name: b"f", file: FILE },
            Record::Link { name: b"l", target: b"f" },
            Record::End,
            Record::End,
        ] {
            run.settle(context, &record).unwrap();
        }
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_or_a_link_goes_after_all_other_files_are_there() {
        let scratch = in_the_way();
        let (deleted, exit, told) = with_run(scratch.path(), |run, context| {
            first_pass(run, context);
            assert!(scratch.path().join("d/f/deep").exists(), "other files are still under way");
            run.replace_directories(context).unwrap();
            assert!(!scratch.path().join("d/f").exists());
            fs::write(scratch.path().join("d/f"), "new").unwrap();
            second_pass(run, context);
        });
        assert_eq!((deleted, exit), (4, Exit::Done), "{told}");
        assert_eq!(fs::read(scratch.path().join("d/l")).unwrap(), b"new");
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_or_a_link_stays_after_a_failure() {
        let scratch = in_the_way();
        let (deleted, exit, told) = with_run(scratch.path(), |run, context| {
            first_pass(run, context);
            run.failed(context, Path::new("other"), &CommandError::failed("no source"));
            run.replace_directories(context).unwrap();
            second_pass(run, context);
        });
        assert_eq!((deleted, exit), (0, Exit::Failed));
        assert!(scratch.path().join("d/f/deep").exists() && scratch.path().join("d/l/deep").exists());
        assert!(told.contains("stays after a failure") && told.contains("nothing was deleted"), "{told}");
    }

    #[test]
    fn nothing_is_said_to_be_left_when_something_was_deleted() {
        let scratch = Scratch::new();
        symlink("x", scratch.path().join("f")).unwrap();
        let (_, _, told) = with_run(scratch.path(), |run, context| {
            run.fetch(context, &Record::File { name: b"f", file: FILE }).unwrap();
            run.failed(context, Path::new("f"), &CommandError::failed("no source"));
        });
        assert!(!scratch.path().join("f").is_symlink());
        assert!(told.contains("1 failure") && !told.contains("nothing was deleted"), "{told}");
    }

    #[test]
    fn what_is_an_entry_of_the_set_under_another_name_is_not_deleted() {
        let scratch = Scratch::new();
        for name in ["README.md", "stray"] {
            fs::write(scratch.path().join(name), "new").unwrap();
        }
        // As on a file system that takes both names for one.
        fs::hard_link(scratch.path().join("README.md"), scratch.path().join("readme.md")).unwrap();
        let (deleted, ..) = with_run(scratch.path(), |run, context| {
            run.settle(context, &Record::File { name: b"README.md", file: FILE }).unwrap();
            run.settle(context, &Record::End).unwrap();
        });
        assert_eq!(deleted, 1);
        assert!(scratch.path().join("readme.md").exists() && !scratch.path().join("stray").exists());
    }

    #[test]
    fn the_directory_of_the_node_that_answers_is_not_deleted() {
        let (scratch, other) = (Scratch::new(), Scratch::new());
        let daemon = FakeDaemon::answering(&[]);
        let (mut context, ..) = daemon.context(false);
        let root = scratch.path().canonicalize().unwrap();
        assert!(!holds_node(&context, &root));
        context.door = Door::Socket(root.join("node.sock"));
        assert!(holds_node(&context, &root));
        context.door =
            Door::OwnOrSystem { own: other.path().to_owned(), system: scratch.path().join("node.sock") };
        assert!(holds_node(&context, &root));
        context.door = Door::OwnOrSystem { own: scratch.path().to_owned(), system: other.path().join("s") };
        assert!(holds_node(&context, &root));
    }
}

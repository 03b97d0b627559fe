//! `get`, `rm` and `ls`.

use super::Context;
use super::client::Client;
use super::exit::{CommandError, Exit};
use super::output::{Output, nodes, shown};
use super::progress::Meter;
use crate::config::units::{format_size, parse_duration, parse_size};
use crate::id::Key;
use crate::node::command::{Command, Part, Reply, Response, SharedFile};
use serde_json::json;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

pub(super) const GET_AFTER_HELP: &str = "\
An interrupted download goes on where it stopped when it is asked for again with the same output. A file that can be
executed where it was put can be executed where it arrives, by those who may read it.

Examples:
  elver get HASH                        into ./HASH
  elver get HASH -o music/              into music/HASH
  elver get HASH -o - | mpv -           to standard output, while it arrives
  elver get HASH --range 0-1023 -o -    the first 1024 bytes: both ends are counted, as with curl
  elver get HASH --range 4096- -o -     everything from byte 4096 on
  elver get HASH --range -500 -o tail   the last 500 bytes, into a file of 500 bytes
  elver get HASH --offset 4096 --length 100 -o -

Of a part, only the chunks that it lies in are fetched. They stay in the node's cache for a minute, for the next part.";

/// How much is read at a time when a download is streamed.
const COPY_BYTES: usize = 64 << 10;

#[derive(clap::Args, Debug)]
pub(super) struct GetArguments {
    /// The file's address: its BLAKE3 hash, as `elver put` and b3sum print it
    hash: Key,
    /// Where to: a file, a directory, or - for standard output [default: ./HASH]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Give up after so long without progress, such as 90s or 15m; 0 never does [default: the node's]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<u32>,
    /// Only these bytes, counted from 0: START-END (END is one of them), START- (to the end), -COUNT (the last ones)
    #[arg(long, value_name = "RANGE", value_parser = parse_range, allow_hyphen_values = true,
        conflicts_with_all = ["offset", "length"])]
    range: Option<Part>,
    /// Only what comes after so many bytes, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    offset: Option<u64>,
    /// Only so many bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    length: Option<u64>,
    /// Replace the output file if there is one
    #[arg(short, long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct RemoveArguments {
    /// The file's address
    hash: Key,
}

impl GetArguments {
    /// The part that is wanted; `None` is everything.
    fn part(&self) -> Option<Part> {
        let start = self.offset.unwrap_or(0);
        let end = self.length.map(|length| start.saturating_add(length));
        let named = self.offset.is_some() || self.length.is_some();
        self.range.or(named.then_some(Part::Between { start, end }))
    }
}

/// Reads a range as HTTP has them (RFC 9110, section 14.1.2), one at a time: both ends are counted.
fn parse_range(text: &str) -> Result<Part, String> {
    let wrong = || format!("`{text}` is no range: expected START-END, START- or -COUNT, such as 0-1023");
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match text.split_once('-').ok_or_else(wrong)? {
        ("", count) => number(count).map(Part::Last),
        (start, "") => Ok(Part::Between { start: number(start)?, end: None }),
        (start, last) => {
            let (start, last) = (number(start)?, number(last)?);
            match start <= last {
                true => Ok(Part::Between { start, end: Some(last.saturating_add(1)) }),
                false => Err(format!("`{text}` ends before it starts")),
            }
        }
    }
}

/// Gets a file into another, or to standard output.
pub(super) fn get(context: &mut Context, arguments: &GetArguments) -> Result<Exit, CommandError> {
    let GetArguments { hash, timeout, .. } = *arguments;
    let output = match arguments.output.as_deref() {
        Some(path) if path == Path::new("-") => return stream(context, hash, arguments.part(), timeout),
        Some(path) if special(path) => {
            let file = open_special(path)?;
            let output = Output::new(false, context.output.quiet, Box::new(file), Box::new(io::stderr()));
            let mut inner = Context { dir: context.dir.clone(), output };
            return stream(&mut inner, hash, arguments.part(), timeout);
        }
        Some(path) if path.is_dir() => path.join(hash.to_string()),
        Some(path) => path.to_owned(),
        None => PathBuf::from(hash.to_string()),
    };
    let target = target(&output)?;
    if let Some(part) = arguments.part() {
        if target.symlink_metadata().is_ok() && !arguments.force {
            let reason = "it exists; replace it with --force, or name another with -o";
            return Err(CommandError::failed(format!("cannot get into {}: {reason}", shown(&output))));
        }
        return part_into(context, hash, part, timeout, &target);
    }
    let command = Command::Get { hash, target: Some(target), force: arguments.force, timeout };
    let reply = context.request(&command, &shown(&output))?;
    let Reply::Get { hash, length, path, sources } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({
            "hash": hash, "file": path.to_string_lossy(), "length": length, "sources": sources,
        }))?;
    } else {
        let from = match sources {
            0 => "this node, which had all of it".to_owned(),
            sources => nodes(sources),
        };
        context.output.remark(&format!("{}: {} from {from}", shown(&output), format_size(length)));
    }
    Ok(Exit::Done)
}

/// The descriptor that a path names, such as /dev/stdout or /dev/fd/3.
fn descriptor(path: &Path) -> Option<u32> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"))?.parse().ok(),
    }
}

/// Whether a path is written to as it is and never replaced: a descriptor, a pipe, a terminal or another device.
fn special(path: &Path) -> bool {
    let device = |metadata: Metadata| metadata.file_type().is_fifo() || metadata.file_type().is_char_device();
    descriptor(path).is_some() || path.metadata().is_ok_and(device)
}

fn open_special(path: &Path) -> Result<File, CommandError> {
    let opened = match descriptor(path) {
        Some(1) => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some(2) => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        // What is in a file that was opened already is the user's to keep.
        Some(number) => File::options().append(true).open(format!("/proc/self/fd/{number}")),
        None => File::options().write(true).open(path),
    };
    opened.map_err(|error| CommandError::failed(format!("cannot write to {}: {error}", shown(path))))
}

/// The absolute path of a file that a download may have. What is there already is for the node to judge.
fn target(output: &Path) -> Result<PathBuf, CommandError> {
    let cannot = |reason: &str| CommandError::failed(format!("cannot get into {}: {reason}", shown(output)));
    let target = std::path::absolute(output).map_err(|error| cannot(&error.to_string()))?;
    if output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(cannot("there is no such directory"));
    }
    match target.parent() {
        Some(parent) if !parent.is_dir() => Err(cannot(&format!("there is no directory {}", shown(parent)))),
        _ => Ok(target),
    }
}

/// Gets a part of a file into a file of its own.
fn part_into(
    context: &mut Context,
    hash: Key,
    part: Part,
    timeout: Option<u32>,
    target: &Path,
) -> Result<Exit, CommandError> {
    let cannot = |error: io::Error| {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let exit = if full { Exit::NoSpace } else { Exit::Failed };
        CommandError::new(exit, format!("cannot write {}: {error}", shown(target)))
    };
    // The name is taken when everything is there.
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let file = File::create_new(&temporary).map_err(cannot)?;
    let output = Output::new(false, context.output.quiet, Box::new(file), Box::new(io::stderr()));
    let mut inner = Context { dir: context.dir.clone(), output };
    let result = stream(&mut inner, hash, Some(part), timeout);
    match result {
        Ok(exit) => std::fs::rename(&temporary, target).map(|()| exit).map_err(cannot),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Gets a file or a part of one into the node's cache and writes it to standard output as it arrives.
fn stream(
    context: &mut Context,
    hash: Key,
    part: Option<Part>,
    timeout: Option<u32>,
) -> Result<Exit, CommandError> {
    // The content has standard output for itself.
    context.output.json = false;
    let command = match part {
        Some(part) => Command::Read { hash, part, timeout },
        None => Command::Get { hash, target: None, force: false, timeout },
    };
    let visible = context.shows_progress() && !io::stdout().is_terminal();
    let mut meter = Meter::new(visible, &hash.to_string());
    let mut client = Client::connect(&context.dir)?;
    client.send(&command)?;
    let mut tail = Tail::new(part);
    loop {
        match client.receive()? {
            Response::Progress(progress) => {
                meter.show(&progress);
                if let Some(path) = progress.path.filter(|_| progress.prefix > 0) {
                    tail.begin(progress.total)?;
                    tail.copy(&path, progress.prefix, false, &mut context.output)?;
                }
            }
            Response::Done(Reply::Get { length, path, .. }) => {
                tail.begin(length)?;
                tail.copy(&path, length, true, &mut context.output)?;
                return tail.finish(hash, &mut context.output);
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            Response::Failed(failure) => {
                return Err(CommandError::new(failure.reason.into(), failure.message));
            }
        }
        if context.output.is_closed() {
            // Nobody reads on. Closing the connection takes the command back.
            return Ok(Exit::Done);
        }
    }
}

/// Follows a file that is being downloaded.
struct Tail {
    /// Kept open, so that it stays readable when the file is given its final name or evicted from the cache.
    file: Option<File>,
    /// The part that is wanted, and where it ends once the file's length is known.
    part: Option<Part>,
    end: Option<u64>,
    /// Up to where the file has been copied.
    copied: u64,
    /// The node has verified every byte that it speaks of. Between its disk and this program's output there are still a
    /// file that others could write to and this program, so what leaves is hashed again.
    hasher: blake3::Hasher,
}

impl Tail {
    fn new(part: Option<Part>) -> Self {
        Tail { file: None, part, end: None, copied: 0, hasher: blake3::Hasher::new() }
    }

    /// The file's length is known.
    fn begin(&mut self, length: u64) -> Result<(), CommandError> {
        if self.end.is_none() {
            let range = self.part.map_or(Some(0..length), |part| part.of(length)).ok_or_else(|| {
                CommandError::new(Exit::Usage, format!("there are no such bytes: the file has only {length}"))
            })?;
            (self.copied, self.end) = (range.start, Some(range.end));
        }
        Ok(())
    }

    /// Copies what is not yet copied of the first `end` bytes. A file that is not there is an error only at the `last`
    /// call: before that it may just have been renamed.
    fn copy(&mut self, path: &Path, end: u64, last: bool, output: &mut Output) -> Result<(), CommandError> {
        let cannot = |error: io::Error| CommandError::failed(format!("cannot read {}: {error}", shown(path)));
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(path) {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !last => return Ok(()),
                Err(error) => return Err(cannot(error)),
            },
        };
        let mut buffer = vec![0; COPY_BYTES];
        let end = end.min(self.end.unwrap_or(end));
        while self.copied < end && !output.is_closed() {
            let rest = usize::try_from(end - self.copied).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let read = match file.read_at(&mut buffer[..rest], self.copied) {
                Ok(0) => return Err(cannot(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cannot(error)),
            };
            self.hasher.update(&buffer[..read]);
            output.bytes(&buffer[..read])?;
            self.copied += read as u64;
        }
        output.flush()
    }

    fn finish(self, hash: Key, output: &mut Output) -> Result<Exit, CommandError> {
        // A part has no hash of its own; each of its chunks was verified by the node.
        if self.part.is_some()
            || output.is_closed()
            || self.hasher.finalize() == blake3::Hash::from_bytes(hash.0)
        {
            return Ok(Exit::Done);
        }
        Err(CommandError::new(
            Exit::Unverified,
            format!(
                "what was written is not {hash}: the file changed in the node's cache meanwhile; get it again"
            ),
        ))
    }
}

/// Stops sharing a file.
pub(super) fn remove(context: &mut Context, arguments: &RemoveArguments) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Remove { hash: arguments.hash }, "")?;
    let Reply::Remove { hash } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({ "hash": hash }))?;
    }
    Ok(Exit::Done)
}

/// Lists the shared files.
pub(super) fn list(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::List, "")?;
    let Reply::List { files } = reply else {
        return Err(context.unexpected(&reply));
    };
    for file in &files {
        if context.output.json {
            context.output.object(&json!({
                "hash": file.hash, "file": file.path.to_string_lossy(), "length": file.length,
                "copies": file.copies, "replicas": file.replicas, "have": file.have, "cached": file.cached,
                "kept_open": file.kept_open,
            }))?;
        } else {
            context.output.line(&list_line(file))?;
        }
    }
    Ok(Exit::Done)
}

fn list_line(file: &SharedFile) -> String {
    let copies = match file.replicas {
        0 => "-".to_owned(),
        replicas => format!("{}/{replicas}", file.copies),
    };
    let state = match file.cached {
        _ if file.have < file.length => {
            let percent = u128::from(file.have) * 100 / u128::from(file.length);
            format!("{percent} %")
        }
        true => "cached".to_owned(),
        false if file.kept_open => "shared while the node runs".to_owned(),
        false => "shared".to_owned(),
    };
    let size = format_size(file.length);
    format!("{}  {size:>10}  {copies:>5}  {state:<6}  {}", file.hash, shown(&file.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::{Kept, kept};
    use crate::cli::testing::{FakeDaemon, Scratch};
    use crate::node::command::{Failure, FailureReason, Progress, Stage};

    fn key(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    fn context(daemon: &FakeDaemon, json: bool) -> (Context, Kept, Kept) {
        let (output, results, remarks) = kept(json);
        (Context { dir: daemon.dir().to_owned(), output }, results, remarks)
    }

    fn get_arguments(hash: Key, output: &Path, force: bool) -> GetArguments {
        let output = Some(output.to_owned());
        GetArguments { hash, output, timeout: Some(9), range: None, offset: None, length: None, force }
    }

    #[test]
    fn get_goes_into_a_directory_under_the_hash() {
        let (hash, scratch) = (key(b"x"), Scratch::new());
        let path = scratch.path().join(hash.to_string());
        let reply = Reply::Get { hash, length: 1, path: path.clone(), sources: 1 };
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, remarks) = context(&daemon, false);
        assert_eq!(get(&mut context, &get_arguments(hash, scratch.path(), false)), Ok(Exit::Done));
        assert_eq!(results.text(), "");
        assert!(remarks.text().ends_with(": 1 B from 1 node\n"), "{}", remarks.text());
        assert_eq!(
            daemon.heard(),
            vec![Command::Get { hash, target: Some(path), force: false, timeout: Some(9) }]
        );
    }

    #[test]
    fn the_node_hears_whether_a_file_is_to_be_replaced_and_only_paths_that_could_be_files() {
        let (hash, scratch) = (key(b"x"), Scratch::new());
        let file = scratch.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        for (path, expected) in [
            (scratch.path().join("no/such"), "no directory"),
            (scratch.path().join("none/"), "no such directory"),
            (file.join("below"), "no directory"),
        ] {
            let message = target(&path).expect_err(expected).message;
            assert!(message.contains(expected), "{message}");
        }
        for force in [false, true] {
            let failure = Failure { reason: FailureReason::Failed, message: "it exists".to_owned() };
            let daemon = FakeDaemon::answering(&[Response::Failed(failure)]);
            let (mut context, ..) = context(&daemon, false);
            assert_eq!(get(&mut context, &get_arguments(hash, &file, force)).unwrap_err().exit, Exit::Failed);
            let target = Some(file.clone());
            assert_eq!(daemon.heard(), vec![Command::Get { hash, target, force, timeout: Some(9) }]);
        }
        let daemon = FakeDaemon::answering(&[]);
        let (mut context, ..) = context(&daemon, false);
        let part = GetArguments { length: Some(1), ..get_arguments(hash, &file, false) };
        assert!(get(&mut context, &part).unwrap_err().message.contains("--force"));
        assert_eq!(daemon.heard(), vec![]);
    }

    #[test]
    fn descriptors_and_devices_are_written_to_and_never_replaced() {
        for (path, number) in
            [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/7", 7), ("/proc/self/fd/9", 9)]
        {
            assert_eq!(descriptor(Path::new(path)), Some(number));
        }
        assert!(special(Path::new("/dev/null")) && !special(Path::new("/dev/fd/x")));
        let scratch = Scratch::new();
        let pipe = scratch.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(special(&pipe) && !special(scratch.path()) && !special(Path::new("Cargo.toml")));
    }

    fn downloading(path: &Path, prefix: u64) -> Response {
        let path = Some(path.to_owned());
        Response::Progress(Progress { stage: Stage::Downloading, done: prefix, total: 9, prefix, path })
    }

    /// What `get -o -` writes when the node's cache holds `content` and the node gives these answers.
    fn streamed(
        content: &[u8],
        hash: Key,
        answers: impl Fn(&Path) -> Vec<Response>,
    ) -> (Result<Exit, Exit>, String) {
        let scratch = Scratch::new();
        let cache = scratch.path().join("cache");
        std::fs::write(&cache, content).unwrap();
        let daemon = FakeDaemon::answering(&answers(&cache));
        let (mut context, results, _) = context(&daemon, true);
        let exit = get(&mut context, &get_arguments(hash, Path::new("-"), false)).map_err(|error| error.exit);
        assert_eq!(daemon.heard(), vec![Command::Get { hash, target: None, force: false, timeout: Some(9) }]);
        (exit, results.text())
    }

    #[test]
    fn standard_output_gets_the_content_and_nothing_else() {
        let hash = key(b"wonderful");
        let answers = |path: &Path| {
            let done = Reply::Get { hash, length: 9, path: path.to_owned(), sources: 2 };
            let renamed = path.with_extension("not-there-yet");
            vec![
                downloading(&renamed, 0),
                downloading(&renamed, 2),
                downloading(path, 6),
                downloading(path, 3),
                Response::Done(done),
            ]
        };
        assert_eq!(streamed(b"wonderful", hash, answers), (Ok(Exit::Done), "wonderful".to_owned()));
    }

    #[test]
    fn ranges_are_read_as_curl_does() {
        let between = |start, end| Ok(Part::Between { start, end });
        assert_eq!(parse_range("0-0"), between(0, Some(1)));
        assert_eq!(parse_range("5-9"), between(5, Some(10)));
        assert_eq!(parse_range("7-"), between(7, None));
        assert_eq!(parse_range("-3"), Ok(Part::Last(3)));
        assert_eq!(parse_range(&format!("1-{}", u64::MAX)), between(1, Some(u64::MAX)));
        for wrong in ["", "-", "5", "9-5", "a-b", "1-2-3", "--1", "0-1,3-4", "99999999999999999999-"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Part::Between { start: 3, end: Some(99) }.of(10), Some(3..10));
        assert_eq!(Part::Between { start: 10, end: None }.of(10), None);
        assert_eq!((Part::Last(3).of(10), Part::Last(30).of(10)), (Some(7..10), Some(0..10)));
    }

    #[test]
    fn a_part_goes_to_standard_output_or_into_a_file_and_nothing_else_does() {
        let (hash, scratch) = (key(b"wonderful"), Scratch::new());
        let cache = scratch.path().join("cache");
        std::fs::write(&cache, b"??nder???").unwrap();
        let done = Reply::Get { hash, length: 9, path: cache.clone(), sources: 1 };
        let answers = [downloading(&cache, 4), downloading(&cache, 6), Response::Done(done)];
        let part = Part::Between { start: 2, end: Some(6) };
        let range = Some(part);
        for output in ["-".into(), scratch.path().join("out")] {
            let daemon = FakeDaemon::answering(&answers);
            let (mut context, results, _) = context(&daemon, false);
            let arguments = GetArguments { range, ..get_arguments(hash, &output, false) };
            assert_eq!(get(&mut context, &arguments), Ok(Exit::Done));
            let expected = Command::Read { hash, part, timeout: Some(9) };
            assert_eq!(daemon.heard(), vec![expected]);
            match output == Path::new("-") {
                true => assert_eq!(results.text(), "nder"),
                false => assert_eq!(std::fs::read(&output).unwrap(), b"nder"),
            }
        }
        let daemon = FakeDaemon::answering(&answers);
        let (mut context, ..) = context(&daemon, false);
        let arguments = GetArguments { offset: Some(9), ..get_arguments(hash, Path::new("-"), false) };
        assert_eq!(get(&mut context, &arguments).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn wrong_bytes_never_leave_with_exit_0() {
        let hash = key(b"wonderful");
        let done = |path: &Path| {
            vec![Response::Done(Reply::Get { hash, length: 9, path: path.to_owned(), sources: 2 })]
        };
        assert_eq!(streamed(b"wanderful", hash, done).0, Err(Exit::Unverified));
        assert_eq!(streamed(b"wonder", hash, done).0, Err(Exit::Failed));
        let failed = |path: &Path| {
            let failure = Failure { reason: FailureReason::Unreachable, message: String::new() };
            vec![downloading(path, 6), Response::Failed(failure)]
        };
        assert_eq!(streamed(b"wonderful", hash, failed), (Err(Exit::Unreachable), "wonder".to_owned()));
        assert_eq!(streamed(b"wonderful", hash, |_| Vec::new()).0, Err(Exit::Unreachable));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_download_quietly() {
        struct Gone;
        impl io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let scratch = Scratch::new();
        let cache = scratch.path().join("cache");
        std::fs::write(&cache, b"wonderful").unwrap();
        let mut daemon = FakeDaemon::holding(&crate::cli::testing::lines(&[downloading(&cache, 6)]), b"");
        let (output, _, remarks) = kept(false);
        drop(output);
        let output = Output::new(false, false, Box::new(Gone), Box::new(remarks.clone()));
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        let arguments = get_arguments(key(b"wonderful"), Path::new("-"), false);
        assert_eq!(get(&mut context, &arguments), Ok(Exit::Done));
        assert_eq!(remarks.text(), "");
        daemon.release();
    }

    #[test]
    fn a_list_says_where_each_file_is_and_how_safe() {
        let mut file = SharedFile {
            hash: key(b"x"),
            length: 3 << 20,
            path: "/home/a b".into(),
            copies: 2,
            replicas: 3,
            have: 3 << 20,
            cached: false,
            kept_open: false,
        };
        assert_eq!(list_line(&file), format!("{}     3.0 MiB    2/3  shared  /home/a b", key(b"x")));
        (file.have, file.replicas) = (1 << 20, 0);
        assert_eq!(list_line(&file), format!("{}     3.0 MiB      -  33 %    /home/a b", key(b"x")));
    }
}

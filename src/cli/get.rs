//! `get`: files into files, several at a time, or to standard output, or a part of one.

use super::Context;
use super::client::Client;
use super::destination::{Temporary, cannot_write, is_special, open_special, target};
use super::exit::{CommandError, Exit};
use super::hook;
use super::output::{Output, counted, shown};
use super::progress::{Form, Meter};
use super::read::read;
use super::sets::{Address, Found, GetSet, find, get as get_set, is_list};
use crate::config::units::{format_size, parse_duration, parse_size};
use crate::id::Key;
use crate::node::command::{Command, Part, Reply, Response};
use serde_json::json;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) const GET_AFTER_HELP: &str = "\
An interrupted download goes on where it stopped when it is asked for again with the same output.

What arrives is the content. Of the file's mode only one thing comes with it: one that can be executed where it was put can be
executed where it arrives, by those who may read it. Owner, group, times and attributes are those of any new file (the node's
umask counts), a file that is replaced keeps its mode, and --mode decides otherwise. Nothing from the network sets a set-user-ID,
set-group-ID or sticky bit.

Examples:
  elver get HASH                        into ./HASH
  elver get HASH -o music/              into music/HASH
  elver get HASH HASH HASH -o music/    three files, into that directory
  elver get HASH -o - | mpv -           to standard output, while it arrives
  elver get HASH --range 0-1023 -o -    the first 1024 bytes: both ends are counted, as with curl
  elver get HASH --range 4096- -o -     everything from byte 4096 on
  elver get HASH --range -500 -o tail   the last 500 bytes, into a file of 500 bytes
  elver get HASH --offset 4096 --length 100 -o -
  elver get HASH -o fw.bin --on-complete 'sysupgrade \"$ELVER_FILE\"'
  elver get HASH/ -o photos             a set: what differs from it in the directory photos
  elver get HASH/2019/a.jpg -o -        a file of a set; HASH/2019 is a directory of it

Of a set only what differs is fetched: a file whose length and time of modification are those of the set counts as the same, unless
--checksum has every file read; one with another time is read. Files are replaced one by one, each when it is complete. Nothing is
deleted without --delete, and nothing after a failure. A set that was interrupted goes on when it is asked for again.

What goes to standard output, and a part of a file, passes through the node and is not kept: it needs no room for the whole
file. Of a part, only the chunks that it lies in are fetched. From a node that runs as another user, every file comes so, and is
written by this command: it begins anew when it is interrupted, and is not executable unless --mode says so. Such a node gets files
of a set, but no whole set.

With several files the exit code is that of the first one that failed.";

/// Files requested at a time: while the command waits for one, the next are being fetched.
const AHEAD: usize = 4;

#[derive(clap::Args, Clone, Debug)]
pub(super) struct GetArguments {
    /// The files' addresses: their BLAKE3 hashes, as `elver put` and b3sum print them; or one set, HASH/, or a path in it
    #[arg(required = true, value_name = "HASH")]
    hashes: Vec<Address>,
    /// The destination: a file, a directory, or - for standard output [default: ./HASH]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Give up after this time without progress, such as 90s or 15m; 0 never does [default: the node's]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<u32>,
    /// Only these bytes, counted from 0: START-END (END is one of them), START- (to the end), -COUNT (the last ones)
    #[arg(long, value_name = "RANGE", value_parser = parse_range, allow_hyphen_values = true,
        conflicts_with_all = ["offset", "length"])]
    range: Option<Part>,
    /// Skip this many bytes at the start of the file, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    offset: Option<u64>,
    /// Get at most this many bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    length: Option<u64>,
    /// Replace the output file if there is one
    #[arg(short, long)]
    force: bool,
    /// The mode that the file gets, such as 600 or 0755 [default: that of any new file, and executable when it was put so]
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    mode: Option<u32>,
    /// Of a set: delete from the directory what the set does not have
    #[arg(long)]
    delete: bool,
    /// Of a set: read every file, also those whose length and time are those of the set
    #[arg(long)]
    checksum: bool,
    /// Run this shell command after each file, which it finds in ELVER_FILE, ELVER_HASH and ELVER_LENGTH, and after a set, whose
    /// directory is in ELVER_FILE; its failure is one of `get`
    #[arg(long, value_name = "CMD")]
    on_complete: Option<OsString>,
}

impl GetArguments {
    /// The requested part; `None` is the whole file.
    fn part(&self) -> Option<Part> {
        let start = self.offset.unwrap_or(0);
        let end = self.length.map(|length| start.saturating_add(length));
        let named = self.offset.is_some() || self.length.is_some();
        self.range.or(named.then_some(Part::Between { start, end }))
    }

    /// Whether an address is that of a set or of something in it.
    fn is_of_set(&self, address: &Address) -> bool {
        address.path.is_some() || self.delete || self.checksum
    }

    /// The output file of a download.
    fn output_of(&self, hash: &Key) -> PathBuf {
        match self.output.as_deref() {
            Some(path) if path.is_dir() => path.join(hash.to_string()),
            Some(path) => path.to_owned(),
            None => PathBuf::from(hash.to_string()),
        }
    }
}

/// Parses permission bits as chmod does. A file from the network gets no other mode bits.
fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(digits, 8) {
        Ok(mode @ 0..=0o777) if plain => Ok(mode),
        Ok(_) if plain => {
            Err(format!("`{text}` has bits beyond 777, which no file gets that comes from elsewhere"))
        }
        _ => Err(format!("`{text}` is no mode: expected up to three octal digits, such as 644")),
    }
}

/// Parses one range in HTTP's form (RFC 9110, section 14.1.2). Both ends are part of the range.
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

/// Gets files into files, or one file to standard output, or a part of one file.
pub(super) fn get(context: &mut Context, arguments: &GetArguments) -> Result<Exit, CommandError> {
    let usage = |message: &str| Err(CommandError::new(Exit::Usage, message));
    let written_to = arguments.output.as_deref().filter(|path| *path == Path::new("-") || is_special(path));
    if written_to.is_some() && arguments.on_complete.is_some() {
        return usage("a stream leaves no file for --on-complete: name a file with -o");
    }
    if written_to.is_some() && arguments.mode.is_some() {
        return usage("a stream has no mode: leave --mode out, or name a file with -o");
    }
    if arguments.hashes.iter().any(|address| arguments.is_of_set(address)) {
        return get_of_set(context, arguments);
    }
    let hashes: Vec<Key> = arguments.hashes.iter().map(|address| address.hash).collect();
    match (&hashes[..], arguments.part()) {
        ([hash], part) if written_to.is_some() => {
            let path = written_to.unwrap_or(Path::new("-"));
            write_out(context, *hash, part, arguments.timeout, path)
        }
        ([hash], Some(part)) => match &arguments.output {
            // A fragment must not get the name of the whole.
            None => usage("a part of a file needs a name: give one with -o FILE, or write it out with -o -"),
            Some(_) => through_client(context, *hash, Some(part), arguments),
        },
        ([hash], None) => whole(context, arguments, *hash)?.finish(context, arguments),
        (_, Some(_)) => usage("a part is of one file: get one at a time"),
        _ if written_to.is_some() => {
            usage("several files cannot be told apart in one stream: get one at a time")
        }
        (hashes, None) => match arguments.output.as_deref() {
            Some(path) if !path.is_dir() => usage("several files need a directory: name one with -o"),
            _ => Ok(get_all(context, arguments, hashes)),
        },
    }
}

/// Gets a set, or a file or a directory of one.
fn get_of_set(context: &mut Context, arguments: &GetArguments) -> Result<Exit, CommandError> {
    let usage = |message: String| Err(CommandError::new(Exit::Usage, message));
    let [address] = &arguments.hashes[..] else {
        return usage("a set, or a file of one, comes by itself: get one at a time".to_owned());
    };
    if let Found::File(file) = find(context, address, arguments.timeout)? {
        if arguments.delete || arguments.checksum {
            return usage(format!("{address} is a file: --delete and --checksum are for sets"));
        }
        let name = address.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let output = match arguments.output.as_deref() {
            None => PathBuf::from(name),
            Some(path) if path.is_dir() => path.join(name),
            Some(path) => path.to_owned(),
        };
        let is_stream = output == Path::new("-") || is_special(&output);
        let mode = arguments.mode.or(Some(u32::from(file.mode)).filter(|_| !is_stream));
        let hashes = vec![file.hash.into()];
        return get(context, &GetArguments { hashes, output: Some(output), mode, ..arguments.clone() });
    }
    if arguments.part().is_some() || arguments.mode.is_some() {
        return usage(format!("{address} is a set: its files have modes, and parts are of one file"));
    }
    match arguments.output.as_deref() {
        Some(path) if path == Path::new("-") || is_special(path) => {
            usage(format!("{address} is a set, and goes into a directory: name one with -o"))
        }
        None => usage(format!("{address} is a set: name the directory that it goes into with -o")),
        Some(directory) => {
            let GetArguments { delete, checksum, timeout, .. } = *arguments;
            if Client::open(&context.door)?.is_of_other_user() {
                // It writes the files of a set itself, and would do so in that user's name.
                return Err(CommandError::failed(format!(
                    "cannot get a set into {}: the node runs as another user, who would write the files in your place; \
                     nothing was changed. Run a node of your own (`elver node --dir DIR --bootstrap HOST:PORT`) and get the \
                     set from that one with --dir DIR, run this command as the user of the node, or get file by file: \
                     `elver get {}/PATH -o FILE`",
                    shown(directory),
                    address.hash,
                )));
            }
            let exit = get_set(context, &GetSet { address, directory, delete, checksum, timeout })?;
            match &arguments.on_complete {
                Some(command) if exit == Exit::Done => {
                    hook::run(command, address.hash, directory, None).map(|()| exit)
                }
                _ => Ok(exit),
            }
        }
    }
}

/// Gets every file. A failed file does not stop the others.
fn get_all(context: &mut Context, arguments: &GetArguments, hashes: &[Key]) -> Exit {
    let (mut exit, mut under_way, mut hashes) = (Exit::Done, VecDeque::new(), hashes.iter());
    loop {
        let room = AHEAD - under_way.len();
        under_way.extend(hashes.by_ref().take(room).map(|hash| whole(context, arguments, *hash)));
        let Some(first) = under_way.pop_front() else { return exit };
        let result = first.and_then(|way| way.finish(context, arguments)).unwrap_or_else(|error| {
            context.output.error(&error);
            error.exit
        });
        exit = exit.or(result);
    }
}

/// The way of a whole file into the output.
enum Way {
    /// The node writes it, and goes on where an earlier download stopped.
    Node(Fetch),
    /// The node runs as another user, who may write less than this one, or more: the file comes through this process.
    Client(Key),
}

impl Way {
    fn finish(self, context: &mut Context, arguments: &GetArguments) -> Result<Exit, CommandError> {
        match self {
            Way::Node(fetch) => fetch.finish(context, arguments),
            Way::Client(hash) => through_client(context, hash, None, arguments),
        }
    }
}

/// Begins to get a whole file.
fn whole(context: &Context, arguments: &GetArguments, hash: Key) -> Result<Way, CommandError> {
    let client = Client::open(&context.door)?;
    match client.is_of_other_user() {
        true => Ok(Way::Client(hash)),
        false => Fetch::begin(client, arguments, hash).map(Way::Node),
    }
}

/// A download that the command has requested from the node.
struct Fetch {
    hash: Key,
    output: PathBuf,
    client: Client,
}

impl Fetch {
    fn begin(mut client: Client, arguments: &GetArguments, hash: Key) -> Result<Fetch, CommandError> {
        let output = arguments.output_of(&hash);
        let target = target(&output)?;
        let GetArguments { force, mode, timeout, .. } = *arguments;
        client.send(&Command::Get { hash, target: Some(target), force, mode, timeout })?;
        Ok(Fetch { hash, output, client })
    }

    /// Waits for the end of the download and prints the result.
    fn finish(mut self, context: &mut Context, arguments: &GetArguments) -> Result<Exit, CommandError> {
        let mut meter = Meter::new(context.progress(), &shown(&self.output));
        let (hash, length, path, sources) = loop {
            match self.client.receive()? {
                Response::Progress(progress) => meter.show(&progress),
                Response::Done(Reply::Get { hash, length, path, sources }) if hash == self.hash => {
                    break (hash, length, path, sources);
                }
                Response::Done(reply) => return Err(context.unexpected(&reply)),
                Response::Failed(failure) => {
                    return Err(CommandError::new(failure.reason.into(), failure.message));
                }
                Response::Content(content) => {
                    self.client.receive_content(content, |_| Ok::<(), CommandError>(()))?;
                }
            }
        };
        drop(meter);
        if fs::File::open(&path).is_ok_and(is_list) {
            context.output.warn(&format!(
                "{}: this is the list of a set; its files come with `elver get {hash}/ -o DIR`",
                shown(&self.output)
            ));
        }
        if context.output.json {
            context.output.object(&json!({
                "hash": hash, "file": path.to_string_lossy(), "length": length, "sources": sources,
            }))?;
        } else {
            let from = match sources {
                0 => "this node, which had all of it".to_owned(),
                sources => counted(sources, "node"),
            };
            context.output.remark(&format!("{}: {} from {from}", shown(&self.output), format_size(length)));
        }
        context.output.flush()?;
        match &arguments.on_complete {
            Some(command) => hook::run(command, hash, &path, Some(length)).map(|()| Exit::Done),
            None => Ok(Exit::Done),
        }
    }
}

/// Writes a file, or a part of one, to standard output or to the special file `path`, as the bytes arrive.
fn write_out(
    context: &mut Context,
    hash: Key,
    part: Option<Part>,
    timeout: Option<u32>,
    path: &Path,
) -> Result<Exit, CommandError> {
    if path != Path::new("-") {
        let mut output = Output::to_file(path, open_special(path)?);
        let meter = Meter::new(context.progress(), &hash.to_string());
        return read(context, hash, part, timeout, meter, &mut output).map(|_| Exit::Done);
    }
    let form = match context.progress() {
        // The content goes to the same terminal.
        Form::Bar if io::stdout().is_terminal() => Form::None,
        form => form,
    };
    let meter = Meter::new(form, &hash.to_string());
    // Standard output carries only the content.
    context.output.json = false;
    let none = Output::new(false, true, Box::new(io::sink()), Box::new(io::sink()));
    let mut output = core::mem::replace(&mut context.output, none);
    let result = read(context, hash, part, timeout, meter, &mut output);
    context.output = output;
    result.map(|_| Exit::Done)
}

/// Gets a file, or a part of one, into a temporary file of this process, which gets its name when every byte has arrived.
fn through_client(
    context: &mut Context,
    hash: Key,
    part: Option<Part>,
    arguments: &GetArguments,
) -> Result<Exit, CommandError> {
    let path = arguments.output_of(&hash);
    let target = target(&path)?;
    if target.symlink_metadata().is_ok() && !arguments.force {
        // Taking the name later would also fail, but only after the whole transfer.
        return Err(cannot_write(&target, &io::ErrorKind::AlreadyExists.into()));
    }
    let (file, temporary) = Temporary::beside(&target).map_err(|error| cannot_write(&target, &error))?;
    if let Some(mode) = arguments.mode {
        let set = file.set_permissions(fs::Permissions::from_mode(mode));
        set.map_err(|error| cannot_write(&target, &error))?;
    }
    let mut output = Output::to_file(&path, file);
    let meter = Meter::new(context.progress(), &shown(&path));
    let done = read(context, hash, part, arguments.timeout, meter, &mut output)?;
    drop(output);
    temporary.take_name(&target, arguments.force).map_err(|error| cannot_write(&target, &error))?;
    if let (true, Some(done)) = (context.output.json, done) {
        context.output.object(&json!({
            "hash": hash, "file": target.to_string_lossy(), "offset": done.start, "length": done.bytes,
            "sources": done.sources,
        }))?;
    } else if let Some(done) = done {
        context.output.remark(&format!("{}: {}", shown(&path), format_size(done.bytes)));
    }
    match (&arguments.on_complete, done) {
        (Some(command), Some(done)) => {
            hook::run(command, hash, &target, Some(done.bytes)).map(|()| Exit::Done)
        }
        _ => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Door;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::{FakeDaemon, Scratch, lines};
    use crate::node::command::{Content, Failure, FailureReason, Progress, Stage};

    fn key(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    fn arguments(hash: Key, output: &Path) -> GetArguments {
        GetArguments {
            hashes: vec![hash.into()],
            output: Some(output.to_owned()),
            timeout: Some(9),
            range: None,
            offset: None,
            length: None,
            force: false,
            mode: None,
            delete: false,
            checksum: false,
            on_complete: None,
        }
    }

    #[test]
    fn get_goes_into_a_directory_under_the_hash() {
        let (hash, scratch) = (key(b"x"), Scratch::new());
        let path = scratch.path().join(hash.to_string());
        let reply = Reply::Get { hash, length: 1, path: path.clone(), sources: 1 };
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, remarks) = daemon.context(false);
        assert_eq!(get(&mut context, &arguments(hash, scratch.path())), Ok(Exit::Done));
        assert_eq!(results.text(), "");
        assert!(remarks.text().ends_with(": 1 B from 1 node\n"), "{}", remarks.text());
        assert_eq!(
            daemon.heard(),
            vec![Command::Get { hash, target: Some(path), force: false, mode: None, timeout: Some(9) }]
        );
    }

    #[test]
    fn of_several_files_each_is_tried_and_the_first_failure_counts() {
        let (hash, scratch) = (key(b"x"), Scratch::new());
        let failure = Failure { reason: FailureReason::Busy, message: "too much".to_owned() };
        let daemon = FakeDaemon::answering(&[Response::Failed(failure)]);
        let (mut context, _, remarks) = daemon.context(false);
        let several = GetArguments {
            hashes: [hash, key(b"y"), hash, hash, hash, hash].map(Address::from).to_vec(),
            ..arguments(hash, scratch.path())
        };
        assert_eq!(get(&mut context, &several), Ok(Exit::Busy));
        assert_eq!(remarks.text().matches("too much").count(), 6, "{}", remarks.text());
    }

    #[test]
    fn what_would_mix_files_or_misname_a_part_is_a_usage_error() {
        let daemon = FakeDaemon::answering(&[]);
        let (mut context, ..) = daemon.context(false);
        let (hash, scratch) = (key(b"x"), Scratch::new());
        let hashes = vec![Address::from(hash), key(b"y").into()];
        for wrong in [
            GetArguments { length: Some(5), output: None, ..arguments(hash, scratch.path()) },
            GetArguments { length: Some(5), hashes: hashes.clone(), ..arguments(hash, scratch.path()) },
            GetArguments { hashes: hashes.clone(), ..arguments(hash, Path::new("-")) },
            GetArguments { hashes: hashes.clone(), ..arguments(hash, &scratch.path().join("none")) },
        ] {
            assert_eq!(get(&mut context, &wrong).map_err(|error| error.exit), Err(Exit::Usage), "{wrong:?}");
        }
        assert_eq!(daemon.heard(), vec![]);
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
        std::fs::create_dir(scratch.path().join("way")).unwrap();
        let real = scratch.path().canonicalize().unwrap().join("new");
        assert_eq!(target(&scratch.path().join("way/../new")), Ok(real));
        assert!(target(Path::new("/")).is_err());
        for force in [false, true] {
            let failure = Failure { reason: FailureReason::Failed, message: "it exists".to_owned() };
            let daemon = FakeDaemon::answering(&[Response::Failed(failure)]);
            let (mut context, ..) = daemon.context(false);
            assert_eq!(
                get(&mut context, &GetArguments { force, ..arguments(hash, &file) }).unwrap_err().exit,
                Exit::Failed
            );
            let target = Some(file.clone());
            assert_eq!(
                daemon.heard(),
                vec![Command::Get { hash, target, force, mode: None, timeout: Some(9) }]
            );
        }
        let daemon = FakeDaemon::answering(&[]);
        let (mut context, ..) = daemon.context(false);
        let part = GetArguments { length: Some(1), ..arguments(hash, &file) };
        assert!(get(&mut context, &part).unwrap_err().message.contains("--force"));
        assert_eq!(daemon.heard(), vec![]);
    }

    #[test]
    fn a_mode_is_up_to_three_octal_digits() {
        for (text, mode) in [("644", 0o644), ("0755", 0o755), ("0o600", 0o600), ("0", 0), ("777", 0o777)] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for wrong in ["", "0o", "8", "+7", "-1", "u+x", "4755", "1777", "77777777777777"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_node_hears_of_the_mode_and_a_part_gets_it_here() {
        let (hash, scratch) = (key(b"wonderful"), Scratch::new());
        let (path, part) = (scratch.path().join("part"), Part::Between { start: 2, end: Some(6) });
        let daemon = FakeDaemon::writing(&answers(&[(2, b"nder")], &done(2, 4)));
        let (mut context, ..) = daemon.context(false);
        let with_mode = GetArguments { mode: Some(0o640), ..arguments(hash, &path) };
        let of_part = GetArguments { range: Some(part), ..arguments(hash, &path) };
        let of_part = GetArguments { mode: Some(0o640), ..of_part };
        assert_eq!(get(&mut context, &of_part), Ok(Exit::Done));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        let _ = get(&mut context, &with_mode);
        let target = Some(path.clone());
        let whole = Command::Get { hash, target, force: false, mode: Some(0o640), timeout: Some(9) };
        assert_eq!(daemon.heard()[1], whole);
        let streamed = GetArguments { mode: Some(0o640), ..arguments(hash, Path::new("-")) };
        assert_eq!(get(&mut context, &streamed).unwrap_err().exit, Exit::Usage);
    }

    /// The node's answers about a file of nine bytes, part by part, and then `last`.
    fn answers(parts: &[(u64, &[u8])], last: &[Response]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, part) in parts {
            let content = Content { offset: *offset, length: part.len() as u32, file_length: 9 };
            let progress =
                Progress { stage: Stage::Downloading, done: *offset, total: 9, prefix: 0, path: None };
            bytes.extend(lines(&[Response::Progress(progress), Response::Content(content)]));
            bytes.extend_from_slice(part);
        }
        bytes.extend(lines(last));
        bytes
    }

    fn done(start: u64, bytes: u64) -> Vec<Response> {
        vec![Response::Done(Reply::Read { hash: key(b"wonderful"), length: 9, start, bytes, sources: 2 })]
    }

    /// The exit code and the output of `get -o -` when the node gives these answers.
    fn streamed(parts: &[(u64, &[u8])], last: &[Response]) -> (Result<Exit, Exit>, String) {
        let hash = key(b"wonderful");
        let daemon = FakeDaemon::writing(&answers(parts, last));
        let (mut context, results, _) = daemon.context(true);
        let exit = get(&mut context, &arguments(hash, Path::new("-"))).map_err(|error| error.exit);
        assert_eq!(daemon.heard(), vec![Command::Read { hash, part: None, timeout: Some(9) }]);
        (exit, results.text())
    }

    #[test]
    fn standard_output_gets_the_content_and_nothing_else() {
        let parts: [(u64, &[u8]); 2] = [(0, b"won\nd"), (5, b"rful")];
        let hash = key(b"won\ndrful");
        let daemon = FakeDaemon::writing(&answers(&parts, &done(0, 9)));
        let (mut context, results, _) = daemon.context(true);
        assert_eq!(get(&mut context, &arguments(hash, Path::new("-"))), Ok(Exit::Done));
        assert_eq!(results.text(), "won\ndrful");
    }

    #[test]
    fn wrong_bytes_never_leave_with_exit_0() {
        assert_eq!(streamed(&[(0, b"wonderful")], &done(0, 9)), (Ok(Exit::Done), "wonderful".to_owned()));
        assert_eq!(streamed(&[(0, b"wanderful")], &done(0, 9)).0, Err(Exit::Unverified));
        assert_eq!(streamed(&[(0, b"wonder")], &done(0, 9)).0, Err(Exit::Unverified));
        let failure = Failure { reason: FailureReason::Unreachable, message: String::new() };
        let failed = streamed(&[(0, b"wonder")], &[Response::Failed(failure)]);
        assert_eq!(failed, (Err(Exit::Unreachable), "wonder".to_owned()));
        assert_eq!(streamed(&[(0, b"wonder")], &[]).0, Err(Exit::Unreachable));
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
        let part = |start, end| Part::Between { start, end };
        assert_eq!(part(3, Some(99)).of(10), Some(3..10));
        assert_eq!(part(10, None).of(10), None);
        assert_eq!(part(10, Some(12)).of(10), None);
        assert_eq!(Part::Last(3).of(10), Some(7..10));
        assert_eq!(Part::Last(30).of(10), Some(0..10));
        assert_eq!(part(4, Some(4)).of(10), Some(4..4));
        assert_eq!(part(10, Some(10)).of(10), Some(10..10));
        assert_eq!(part(0, None).of(0), Some(0..0));
        assert_eq!(Part::Last(0).of(10), Some(10..10));
        assert_eq!(part(11, Some(11)).of(10), None);
    }

    #[test]
    fn a_part_goes_to_standard_output_or_into_a_file_and_nothing_else_does() {
        let (hash, scratch) = (key(b"wonderful"), Scratch::new());
        let part = Part::Between { start: 2, end: Some(6) };
        let bytes = answers(&[(2, b"nd"), (4, b"er")], &done(2, 4));
        for (output, json) in [("-".into(), false), (scratch.path().join("out"), true)] {
            let daemon = FakeDaemon::writing(&bytes);
            let (mut context, results, _) = daemon.context(json);
            let arguments = GetArguments { range: Some(part), ..arguments(hash, &output) };
            assert_eq!(get(&mut context, &arguments), Ok(Exit::Done));
            assert_eq!(daemon.heard(), vec![Command::Read { hash, part: Some(part), timeout: Some(9) }]);
            if !json {
                assert_eq!(results.text(), "nder");
                continue;
            }
            assert_eq!(std::fs::read(&output).unwrap(), b"nder");
            let object: serde_json::Value = serde_json::from_str(&results.text()).unwrap();
            let file = output.to_string_lossy();
            let expected = json!({"hash": hash, "file": file, "offset": 2, "length": 4, "sources": 2});
            assert_eq!(object, expected);
        }
        // One that fails leaves nothing.
        let daemon = FakeDaemon::writing(&answers(&[(2, b"nd")], &[]));
        let (mut context, ..) = daemon.context(false);
        let failing = GetArguments { range: Some(part), ..arguments(hash, &scratch.path().join("gone")) };
        assert_eq!(get(&mut context, &failing).unwrap_err().exit, Exit::Unreachable);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
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
        let mut daemon = FakeDaemon::holding(&answers(&[(0, b"wonder")], &[]), b"");
        let (output, _, remarks) = kept(false);
        drop(output);
        let output = Output::new(false, false, Box::new(Gone), Box::new(remarks.clone()));
        let mut context = Context {
            dir: daemon.dir().to_owned(),
            door: Door::Dir(daemon.dir().to_owned()),
            output,
            progress: None,
        };
        let arguments = arguments(key(b"wonderful"), Path::new("-"));
        assert_eq!(get(&mut context, &arguments), Ok(Exit::Done));
        assert_eq!(remarks.text(), "");
        daemon.release();
    }
}

//! `put`: the node shares the files that a user names.

use super::Context;
use super::client::Door;
use super::exit::{CommandError, Exit};
use super::opened::Opened;
use super::output::{shown, sum_line};
use super::pipeline::Pipeline;
use super::progress::Meter;
use super::sets::{PutSet, put as put_set};
use crate::config::units::parse_lifetime;
use crate::id::Key;
use crate::limits::quorum as quorum_of;
use crate::node::command::{Command, Reply, Response};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub(super) const AFTER_HELP: &str = "\
A file stays where it is, and is served from there until `elver rm`. When it changes, what it was is not served any more; put
it again to share what it is. A file that is missing for a while, because its medium is, is served again once it is back.

Examples:
  elver put holiday.tar                 as many copies as the node's default says
  elver put --replicas 5 --ttl 30d *    five copies of each, for thirty days
  elver put --replicas 0 huge.img       share it without copying it anywhere
  elver put photos                      a directory as a set; prints HASH/  photos

A set is the files of a directory and a list of them: names, permission bits, times of modification (whole seconds), empty
directories, symbolic links that stay inside. Equal directories are equal sets, and have one address. Owners, other mode bits,
sockets, pipes and devices are left out; so are links that lead out of the directory, unless --follow-symlinks puts what they lead
to. Lines of .elverignore leave entries out as those of .gitignore do (*, ?, **, /, !; no [...]).

Exit code 5 says that there are fewer copies than a quorum (more than half of those asked for) so far; the node goes on
making them. With several files it is the code of the first one that failed.";

#[derive(clap::Args, Debug)]
pub(super) struct PutArguments {
    /// The number of copies in the network, this node's own included; 0 only shares [default: the node's]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// How long the network keeps the copies, such as 30d or 12h [default: the node's]
    #[arg(long, value_name = "T", value_parser = parse_lifetime)]
    ttl: Option<u32>,
    /// Of a directory, put what its symbolic links lead to, in their place
    #[arg(long)]
    follow_symlinks: bool,
    /// Of a directory, leave out the times of modification: directories that differ only in them are then one set
    #[arg(long)]
    no_times: bool,
    /// The files and directories
    #[arg(required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
}

/// Files given to the daemon at a time, before the earlier ones are done.
const UNDER_WAY_MAX: usize = 256;

/// Puts every file and directory, and prints the results in the order of the arguments. A failure of one does not stop the others.
pub(super) fn run(context: &mut Context, arguments: &PutArguments) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    // Files in a row are put together, a directory by itself.
    for paths in arguments.files.chunk_by(|one, next| !one.is_dir() && !next.is_dir()) {
        let result = match paths {
            [directory] if directory.is_dir() => {
                let PutArguments { replicas, ttl: lifetime, follow_symlinks: follow, no_times, .. } =
                    *arguments;
                let set = PutSet { directory, replicas, lifetime, follow, times: !no_times };
                put_set(context, &set)
            }
            files => put_files(context, arguments, files),
        };
        exit = exit.or(match result {
            Err(error) if paths.len() < arguments.files.len() && error.exit != Exit::Unreachable => {
                context.output.error(&error);
                error.exit
            }
            result => result?,
        });
    }
    Ok(exit)
}

fn put_files(
    context: &mut Context,
    arguments: &PutArguments,
    files: &[PathBuf],
) -> Result<Exit, CommandError> {
    let mut run = Run::new(context, arguments, files);
    let mut next = 0;
    while run.told < files.len() {
        while next < files.len() && run.has_room() {
            run.begin(next)?;
            next += 1;
        }
        run.tell(context)?;
        if !run.under_way.is_empty() {
            run.hear(context)?;
        }
    }
    Ok(run.exit)
}

/// The files of one `put`.
struct Run<'a> {
    arguments: &'a PutArguments,
    files: &'a [PathBuf],
    door: Door,
    /// The connection, made for the first file that can be put.
    pipeline: Option<Pipeline>,
    /// The files that the daemon works on, by the numbers of their commands.
    under_way: BTreeMap<u64, usize>,
    /// The results of files that wait for an earlier file's result.
    done: BTreeMap<usize, Result<Stored, CommandError>>,
    /// The number of files whose results are printed, counted from the first.
    told: usize,
    exit: Exit,
    meter: Meter,
}

/// The daemon's answer about a file that it now shares.
struct Stored {
    hash: Key,
    length: u64,
    copies: u32,
    replicas: u8,
    quorum: bool,
    kept_open: bool,
}

impl<'a> Run<'a> {
    fn new(context: &Context, arguments: &'a PutArguments, files: &'a [PathBuf]) -> Self {
        let name = match files {
            [file] => shown(file),
            files => format!("{} files", files.len()),
        };
        Run {
            arguments,
            files,
            door: context.door.clone(),
            pipeline: None,
            under_way: BTreeMap::new(),
            done: BTreeMap::new(),
            told: 0,
            exit: Exit::Done,
            meter: Meter::new(context.progress(), &name),
        }
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < UNDER_WAY_MAX && self.pipeline.as_ref().is_none_or(Pipeline::has_room)
    }

    /// Opens a file and asks the daemon to share it.
    fn begin(&mut self, index: usize) -> Result<(), CommandError> {
        let file = &self.files[index];
        let cannot = |reason: String| CommandError::failed(format!("cannot put {}: {reason}", shown(file)));
        let Opened { file, path } = match Opened::open(file) {
            Ok(opened) => opened,
            Err(reason) => {
                self.done.insert(index, Err(cannot(reason)));
                return Ok(());
            }
        };
        let command = Command::Put { path, replicas: self.arguments.replicas, lifetime: self.arguments.ttl };
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            None => self.pipeline.insert(Pipeline::connect(&self.door)?),
        };
        let id = pipeline.send(&command, file.as_ref().map(File::as_fd))?;
        self.under_way.insert(id, index);
        Ok(())
    }

    /// Takes the daemon's next answer.
    fn hear(&mut self, context: &Context) -> Result<(), CommandError> {
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let Some((id, response)) = pipeline.receive()? else { return Ok(()) };
        let Some(&index) = self.under_way.get(&id) else { return Ok(()) };
        let result = match response {
            Response::Progress(progress) => {
                // Of many files, the number that is done says more.
                if self.files.len() == 1 {
                    self.meter.show(&progress);
                }
                return Ok(());
            }
            Response::Done(Reply::Put { hash, length, copies, replicas, quorum, kept_open }) => {
                Ok(Stored { hash, length, copies, replicas, quorum, kept_open })
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            Response::Failed(failure) => Err(CommandError::new(failure.reason.into(), failure.message)),
            Response::Content(_) => {
                return Err(CommandError::failed("the node sent content that was not asked for"));
            }
        };
        self.under_way.remove(&id);
        self.done.insert(index, result);
        Ok(())
    }

    /// Prints the results of the files whose turn it is.
    fn tell(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let before = self.told;
        if !self.done.contains_key(&before) {
            return Ok(());
        }
        while let Some(result) = self.done.remove(&self.told) {
            let file = &self.files[self.told];
            let exit = match result {
                Ok(stored) => self.meter.aside(|| stored.tell(file, context))?,
                Err(error) => {
                    self.meter.aside(|| context.output.error(&error));
                    error.exit
                }
            };
            self.exit = self.exit.or(exit);
            self.told += 1;
        }
        let files = self.files.len();
        if files > 1 {
            self.meter.show_files(self.told, files);
        }
        context.output.flush()
    }
}

impl Stored {
    fn tell(&self, file: &Path, context: &mut Context) -> Result<Exit, CommandError> {
        let Stored { hash, length, copies, replicas, quorum, kept_open } = *self;
        if context.output.json {
            context.output.object(&json!({
                "hash": hash, "file": file.to_string_lossy(), "length": length,
                "copies": copies, "replicas": replicas, "quorum": quorum, "kept_open": kept_open,
            }))?;
        } else {
            context.output.line(&sum_line(&hash, file))?;
        }
        if kept_open {
            context.output.warn(&format!(
                "{}: the node's user may not read it; it is shared until the node stops, and has to be put again then",
                shown(file),
            ));
        }
        if quorum {
            return Ok(Exit::Done);
        }
        context.output.warn(&format!(
            "{}: {copies} of {replicas} copies so far, fewer than a quorum of {}; the node goes on trying (see `elver ls`)",
            shown(file),
            quorum_of(replicas),
        ));
        Ok(Exit::BelowQuorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;

    fn key(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    fn stored(copies: u32, quorum: bool) -> Response {
        Response::Done(Reply::Put {
            hash: key(b"x"),
            length: 1,
            copies,
            replicas: 3,
            quorum,
            kept_open: false,
        })
    }

    fn put_arguments(files: &[&Path]) -> PutArguments {
        let files = files.iter().map(PathBuf::from).collect();
        PutArguments { replicas: Some(3), ttl: None, follow_symlinks: false, no_times: false, files }
    }

    #[test]
    fn put_prints_hash_and_name_and_asks_for_an_absolute_path() {
        let daemon = FakeDaemon::answering(&[stored(3, true)]);
        let (mut context, results, _) = daemon.context(false);
        // Tests run in the package's directory.
        assert_eq!(run(&mut context, &put_arguments(&[Path::new("Cargo.toml")])), Ok(Exit::Done));
        assert_eq!(results.text(), format!("{}  Cargo.toml\n", key(b"x")));
        let path = std::env::current_dir().unwrap().join("Cargo.toml");
        assert_eq!(daemon.heard(), vec![Command::Put { path, replicas: Some(3), lifetime: None }]);
    }

    #[test]
    fn fewer_copies_than_a_quorum_are_said_and_have_their_exit_code() {
        let daemon = FakeDaemon::answering(&[stored(1, false)]);
        let (mut context, results, remarks) = daemon.context(true);
        assert_eq!(run(&mut context, &put_arguments(&[Path::new("Cargo.toml")])), Ok(Exit::BelowQuorum));
        let object: serde_json::Value = serde_json::from_str(&results.text()).unwrap();
        let expected = json!({
            "hash": key(b"x"), "file": "Cargo.toml", "length": 1, "copies": 1, "replicas": 3, "quorum": false,
            "kept_open": false
        });
        assert_eq!(object, expected);
        assert!(
            remarks.text().contains("1 of 3 copies so far, fewer than a quorum of 2"),
            "{}",
            remarks.text()
        );
    }

    #[test]
    fn every_file_is_tried_and_the_first_failure_counts() {
        let daemon = FakeDaemon::answering_each(&stored(1, false));
        let (mut context, results, remarks) = daemon.context(false);
        let files = [
            Path::new("Cargo.toml"),
            Path::new("/nonexistent"),
            Path::new("/dev/null"),
            Path::new("Cargo.toml"),
        ];
        assert_eq!(run(&mut context, &put_arguments(&files)), Ok(Exit::BelowQuorum));
        assert_eq!(run(&mut context, &put_arguments(&files[1..])), Ok(Exit::Failed));
        assert_eq!(results.text().lines().count(), 3);
        assert!(
            remarks.text().contains("cannot put /dev/null: it is not a regular file"),
            "{}",
            remarks.text()
        );
    }

    #[test]
    fn many_files_are_given_before_the_first_is_done_and_told_in_their_order() {
        let daemon = FakeDaemon::answering_each(&stored(3, true));
        let (mut context, results, remarks) = daemon.context(false);
        let scratch = crate::cli::testing::Scratch::new();
        let names: Vec<PathBuf> = (0..600).map(|number| scratch.path().join(number.to_string())).collect();
        names.iter().for_each(|name| std::fs::write(name, "x").unwrap());
        std::fs::remove_file(&names[300]).unwrap();
        let files: Vec<&Path> = names.iter().map(PathBuf::as_path).collect();
        assert_eq!(run(&mut context, &put_arguments(&files)), Ok(Exit::Failed));
        let text = results.text();
        let told: Vec<&str> = text.lines().filter_map(|line| line.rsplit('/').next()).collect();
        let expected: Vec<String> = (0..600).filter(|number| *number != 300).map(|n| n.to_string()).collect();
        assert_eq!(told, expected);
        assert!(remarks.text().contains("No such file"), "{}", remarks.text());
        assert_eq!(daemon.heard().len(), 599);
    }

    #[test]
    fn a_daemon_that_goes_away_is_said_once_after_what_it_had_answered() {
        let daemon = FakeDaemon::answering(&[stored(3, true)]);
        let (mut context, results, _) = daemon.context(false);
        let files = [Path::new("Cargo.toml"), Path::new("README.md"), Path::new("Cargo.lock")];
        assert_eq!(run(&mut context, &put_arguments(&files)).unwrap_err().exit, Exit::Unreachable);
        assert_eq!(results.text(), format!("{}  Cargo.toml\n", key(b"x")));
    }
}

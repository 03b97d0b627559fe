//! `put`: the files that a user names become shares of the node's.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::{shown, sum_line};
use crate::config::units::parse_lifetime;
use crate::node::command::{Command, Reply};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(super) const AFTER_HELP: &str = "\
The file stays where it is, and is served from there. When it changes, it is not served any more until it is put again.

Examples:
  elver put holiday.tar                 as many copies as the node's default says
  elver put --replicas 5 --ttl 30d *    five copies of each, for thirty days
  elver put --replicas 0 huge.img       share it without copying it anywhere

Exit code 5 says that there are fewer copies than a quorum (more than half of those asked for) so far; the node goes on
making them. With several files it is the code of the first one that failed.";

#[derive(clap::Args, Debug)]
pub(super) struct PutArguments {
    /// How many copies the network is to keep, this node's own included; 0 only shares [default: the node's]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// How long the copies are to be kept, such as 30d or 12h [default: the node's]
    #[arg(long, value_name = "T", value_parser = parse_lifetime)]
    ttl: Option<u32>,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Puts every file, whatever becomes of the others.
pub(super) fn run(context: &mut Context, arguments: &PutArguments) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    for file in &arguments.files {
        let result = put_one(context, arguments, file).unwrap_or_else(|error| {
            context.output.error(&error);
            error.exit
        });
        exit = exit.or(result);
    }
    Ok(exit)
}

fn put_one(context: &mut Context, arguments: &PutArguments, file: &Path) -> Result<Exit, CommandError> {
    let cannot = |reason: &str| CommandError::failed(format!("cannot put {}: {reason}", shown(file)));
    let metadata = std::fs::metadata(file).map_err(|error| cannot(&error.to_string()))?;
    if metadata.is_dir() {
        return Err(cannot("it is a directory; put its files, or an archive of it"));
    }
    if !metadata.is_file() {
        return Err(cannot("it is not a regular file, so it could not be served from where it is"));
    }
    let path = std::path::absolute(file).map_err(|error| cannot(&error.to_string()))?;
    let command = Command::Put { path, replicas: arguments.replicas, lifetime: arguments.ttl };
    let reply = context.request(&command, &shown(file))?;
    let Reply::Put { hash, length, copies, replicas, quorum } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({
            "hash": hash, "file": file.to_string_lossy(), "length": length,
            "copies": copies, "replicas": replicas, "quorum": quorum,
        }))?;
    } else {
        context.output.line(&sum_line(&hash, file))?;
    }
    context.output.flush()?;
    if quorum {
        return Ok(Exit::Done);
    }
    context.output.warn(&format!(
        "{}: {copies} of {replicas} copies so far, fewer than a quorum of {}; the node goes on trying (see `elver ls`)",
        shown(file),
        replicas / 2 + 1,
    ));
    Ok(Exit::BelowQuorum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::{Kept, kept};
    use crate::cli::testing::FakeDaemon;
    use crate::id::Key;
    use crate::node::command::Response;

    fn key(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    fn context(daemon: &FakeDaemon, json: bool) -> (Context, Kept, Kept) {
        let (output, results, remarks) = kept(json);
        (Context { dir: daemon.dir().to_owned(), output }, results, remarks)
    }

    fn stored(copies: u32, quorum: bool) -> Response {
        Response::Done(Reply::Put { hash: key(b"x"), length: 1, copies, replicas: 3, quorum })
    }

    fn put_arguments(files: &[&Path]) -> PutArguments {
        PutArguments { replicas: Some(3), ttl: None, files: files.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn put_prints_hash_and_name_and_asks_for_an_absolute_path() {
        let daemon = FakeDaemon::answering(&[stored(3, true)]);
        let (mut context, results, _) = context(&daemon, false);
        // Tests run in the package's directory.
        assert_eq!(run(&mut context, &put_arguments(&[Path::new("Cargo.toml")])), Ok(Exit::Done));
        assert_eq!(results.text(), format!("{}  Cargo.toml\n", key(b"x")));
        let path = std::env::current_dir().unwrap().join("Cargo.toml");
        assert_eq!(daemon.heard(), vec![Command::Put { path, replicas: Some(3), lifetime: None }]);
    }

    #[test]
    fn fewer_copies_than_a_quorum_are_said_and_have_their_exit_code() {
        let daemon = FakeDaemon::answering(&[stored(1, false)]);
        let (mut context, results, remarks) = context(&daemon, true);
        assert_eq!(run(&mut context, &put_arguments(&[Path::new("Cargo.toml")])), Ok(Exit::BelowQuorum));
        let object: serde_json::Value = serde_json::from_str(&results.text()).unwrap();
        let expected = json!({
            "hash": key(b"x"), "file": "Cargo.toml", "length": 1, "copies": 1, "replicas": 3, "quorum": false
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
        let daemon = FakeDaemon::answering(&[stored(1, false)]);
        let (mut context, results, remarks) = context(&daemon, false);
        let files =
            [Path::new("Cargo.toml"), Path::new("/nonexistent"), Path::new("src"), Path::new("Cargo.toml")];
        assert_eq!(run(&mut context, &put_arguments(&files)), Ok(Exit::BelowQuorum));
        assert_eq!(run(&mut context, &put_arguments(&files[1..])), Ok(Exit::Failed));
        assert_eq!(results.text().lines().count(), 3);
        assert!(remarks.text().contains("cannot put src: it is a directory"), "{}", remarks.text());
    }
}

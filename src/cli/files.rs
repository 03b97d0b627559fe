//! `rm` and `ls`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::shown;
use super::pipeline::Pipeline;
use crate::config::units::format_size;
use crate::id::Key;
use crate::node::command::{Command, FileState, Listed, Reply, Response, SharedFile};
use serde_json::json;

/// Concurrent commands on the connection.
const UNDER_WAY_MAX: usize = 256;

#[derive(clap::Args, Debug)]
pub(super) struct RemoveArguments {
    /// The files' addresses
    #[arg(required = true, value_name = "HASH")]
    hashes: Vec<Key>,
}

/// Stops sharing files. A failure of one does not stop the others.
pub(super) fn remove(context: &mut Context, arguments: &RemoveArguments) -> Result<Exit, CommandError> {
    let mut pipeline = Pipeline::connect(&context.door)?;
    let mut left = arguments.hashes.iter();
    let mut under_way = 0;
    let mut exit = Exit::Done;
    loop {
        while under_way < UNDER_WAY_MAX && pipeline.has_room() {
            let Some(&hash) = left.next() else { break };
            pipeline.send(&Command::Remove { hash }, None)?;
            under_way += 1;
        }
        if under_way == 0 {
            context.output.flush()?;
            return Ok(exit);
        }
        match pipeline.receive()? {
            None | Some((_, Response::Progress(_))) => continue,
            Some((_, Response::Done(Reply::Remove { hash }))) => {
                if context.output.json {
                    context.output.object(&json!({ "hash": hash }))?;
                }
            }
            Some((_, Response::Done(reply))) => return Err(context.unexpected(&reply)),
            Some((_, Response::Failed(failure))) => {
                let error = CommandError::new(failure.reason.into(), failure.message);
                context.output.error(&error);
                exit = exit.or(error.exit);
            }
            Some((_, Response::Content(_))) => {
                return Err(CommandError::failed("the node sent content that the command did not ask for"));
            }
        }
        under_way -= 1;
    }
}

/// Lists the shared files.
pub(super) fn list(context: &mut Context) -> Result<Exit, CommandError> {
    let mut after = None;
    loop {
        let reply = context.request(&Command::List { after }, "")?;
        let Reply::List { files, more } = reply else {
            return Err(context.unexpected(&reply));
        };
        print(context, &files)?;
        after = files.last().filter(|_| more).map(|last| Listed { hash: last.hash, path: last.path.clone() });
        if after.is_none() {
            return Ok(Exit::Done);
        }
    }
}

fn print(context: &mut Context, files: &[SharedFile]) -> Result<(), CommandError> {
    for file in files {
        if context.output.json {
            context.output.object(&json!({
                "hash": file.hash, "file": file.path.to_string_lossy(), "length": file.length,
                "copies": file.copies, "replicas": file.replicas, "have": file.have, "cached": file.cached,
                "kept_open": file.kept_open,
                "state": file.state,
            }))?;
        } else {
            context.output.line(&list_line(file))?;
        }
    }
    Ok(())
}

fn list_line(file: &SharedFile) -> String {
    let copies = match file.replicas {
        0 => "-".to_owned(),
        replicas => format!("{}/{replicas}", file.copies),
    };
    let state = match file.state {
        FileState::Downloading => {
            let percent = u128::from(file.have) * 100 / u128::from(file.length.max(1));
            format!("{percent} %")
        }
        FileState::Shared if file.cached => "cached".to_owned(),
        FileState::Shared if file.kept_open => "shared while the node runs".to_owned(),
        FileState::Shared => "shared".to_owned(),
        FileState::Checking => "checking".to_owned(),
        FileState::Changed => "changed".to_owned(),
        FileState::Absent => "absent".to_owned(),
        FileState::Queued => "queued".to_owned(),
    };
    let size = format_size(file.length);
    format!("{}  {size:>10}  {copies:>5}  {state:<8}  {}", file.hash, shown(&file.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cli::testing::FakeDaemon;
    use crate::node::command::{Failure, FailureReason};

    #[test]
    fn many_files_are_removed_over_one_connection_and_the_first_failure_counts() {
        let hashes: Vec<Key> = (0..600u32).map(|number| key(&number.to_le_bytes())).collect();
        let removed = Response::Done(Reply::Remove { hash: hashes[0] });
        let failure = Failure { reason: FailureReason::NotFound, message: "not shared".to_owned() };
        let daemon = FakeDaemon::answering_in_turn(&[removed.clone(), Response::Failed(failure), removed]);
        let (mut context, _, remarks) = daemon.context(false);
        assert_eq!(remove(&mut context, &RemoveArguments { hashes: hashes.clone() }), Ok(Exit::NotFound));
        assert_eq!(remarks.text().matches("not shared").count(), 1);
        let asked: Vec<Command> = hashes.iter().map(|&hash| Command::Remove { hash }).collect();
        assert_eq!(daemon.heard(), asked);
    }

    #[test]
    fn ls_fetches_a_long_list_page_by_page() {
        let file = |byte: u8| SharedFile {
            hash: Key([byte; 32]),
            length: 1,
            path: format!("/{byte}").into(),
            copies: 1,
            replicas: 0,
            have: 1,
            cached: false,
            kept_open: false,
            state: FileState::Shared,
        };
        let page = |byte, more| Response::Done(Reply::List { files: vec![file(byte)], more });
        let daemon = FakeDaemon::answering_in_turn(&[page(1, true), page(2, false)]);
        let (mut context, results, _) = daemon.context(false);
        assert_eq!(list(&mut context), Ok(Exit::Done));
        assert_eq!(
            results.text().lines().filter(|line| line.ends_with("/1") || line.ends_with("/2")).count(),
            2
        );
        let after = Some(Listed { hash: Key([1; 32]), path: "/1".into() });
        assert_eq!(daemon.heard(), vec![Command::List { after: None }, Command::List { after }]);
    }

    fn key(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    #[test]
    fn a_line_shows_the_size_the_copies_the_state_and_the_path() {
        let mut file = SharedFile {
            hash: key(b"x"),
            length: 3 << 20,
            path: "/home/a b".into(),
            copies: 2,
            replicas: 3,
            have: 3 << 20,
            cached: false,
            kept_open: false,
            state: FileState::Shared,
        };
        assert_eq!(list_line(&file), format!("{}     3.0 MiB    2/3  shared    /home/a b", key(b"x")));
        file.state = FileState::Absent;
        assert_eq!(list_line(&file), format!("{}     3.0 MiB    2/3  absent    /home/a b", key(b"x")));
        (file.have, file.replicas, file.state) = (1 << 20, 0, FileState::Downloading);
        assert_eq!(list_line(&file), format!("{}     3.0 MiB      -  33 %      /home/a b", key(b"x")));
    }
}

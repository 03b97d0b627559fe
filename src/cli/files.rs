//! `rm` and `ls`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::shown;
use super::pipeline::Pipeline;
use super::sets::{self, Address, list_path};
use crate::config::units::format_size;
use crate::id::Key;
use crate::node::command::{Command, FailureReason, FileState, Listed, Reply, Response, SharedFile};
use serde_json::json;
use std::collections::BTreeMap;

/// Concurrent commands on the connection.
const UNDER_WAY_MAX: usize = 256;

#[derive(clap::Args, Debug)]
pub(super) struct RemoveArguments {
    /// The files' addresses; HASH/ is a set with all its files
    #[arg(required = true, value_name = "HASH")]
    hashes: Vec<Address>,
}

#[derive(clap::Args, Debug)]
pub(super) struct ListArguments {
    /// The address of a set, or of a directory in it [default: list what this node shares]
    #[arg(value_name = "SET")]
    set: Option<Address>,
}

/// Stops sharing files and sets. A failure of one does not stop the others.
pub(super) fn remove(context: &mut Context, arguments: &RemoveArguments) -> Result<Exit, CommandError> {
    let pipeline = Pipeline::connect(&context.door)?;
    let mut run = Removals { pipeline, under_way: BTreeMap::new(), exit: Exit::Done };
    for address in &arguments.hashes {
        match address.path() {
            _ if address.path.is_none() => run.remove(context, address.hash, false)?,
            b"" => {
                // The list is read to its end first: a set that is none ends nothing.
                let each = |run: &mut Removals, context: &mut Context| {
                    sets::each_file(context, address, |context, hash| run.remove(context, hash, true))
                };
                match each(&mut run, context) {
                    Ok(()) => run.remove(context, address.hash, false)?,
                    Err(error) => run.failed(context, &error),
                }
            }
            _ => {
                let why =
                    format!("{address}: a set is removed as a whole, or a file of it by its own address");
                run.failed(context, &CommandError::new(Exit::Usage, why));
            }
        }
    }
    while !run.under_way.is_empty() {
        run.hear(context)?;
    }
    context.output.flush()?;
    Ok(run.exit)
}

/// The removals of one command.
struct Removals {
    pipeline: Pipeline,
    /// The addresses, and whether it does not matter if the node shares them.
    under_way: BTreeMap<u64, (Key, bool)>,
    exit: Exit,
}

impl Removals {
    fn remove(&mut self, context: &mut Context, hash: Key, of_set: bool) -> Result<(), CommandError> {
        while self.under_way.len() >= UNDER_WAY_MAX || !self.pipeline.has_room() {
            self.hear(context)?;
        }
        let id = self.pipeline.send(&Command::Remove { hash }, None)?;
        self.under_way.insert(id, (hash, of_set));
        Ok(())
    }

    fn hear(&mut self, context: &mut Context) -> Result<(), CommandError> {
        let Some((id, response)) = self.pipeline.receive()? else { return Ok(()) };
        if matches!(response, Response::Progress(_)) {
            return Ok(());
        }
        let Some((hash, of_set)) = self.under_way.remove(&id) else { return Ok(()) };
        match response {
            Response::Done(Reply::Remove { hash }) => {
                // The list of a set that was put here lies in the node's directory.
                let _ = std::fs::remove_file(list_path(&context.dir, &hash));
                if context.output.json {
                    context.output.object(&json!({ "hash": hash }))?;
                }
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            // A set may have files that this node does not share, and one content twice.
            Response::Failed(failure) if of_set && failure.reason == FailureReason::NotFound => {
                log::debug!("{hash} is not shared");
            }
            Response::Failed(failure) => {
                self.failed(context, &CommandError::new(failure.reason.into(), failure.message));
            }
            _ => return Err(CommandError::failed("the node sent content that the command did not ask for")),
        }
        Ok(())
    }

    fn failed(&mut self, context: &mut Context, error: &CommandError) {
        context.output.error(error);
        self.exit = self.exit.or(error.exit);
    }
}

/// Lists a set, or the shared files.
pub(super) fn list(context: &mut Context, arguments: &ListArguments) -> Result<Exit, CommandError> {
    match &arguments.set {
        Some(set) => sets::list(context, set),
        None => list_shared(context),
    }
}

fn list_shared(context: &mut Context) -> Result<Exit, CommandError> {
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
        let arguments = RemoveArguments { hashes: hashes.iter().map(|&hash| hash.into()).collect() };
        assert_eq!(remove(&mut context, &arguments), Ok(Exit::NotFound));
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
        assert_eq!(list(&mut context, &ListArguments { set: None }), Ok(Exit::Done));
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

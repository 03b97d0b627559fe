//! `scrub`.

use super::Context;
use super::exit::{CommandError, Exit};
use crate::config::units::{format_duration, format_size};
use crate::node::command::{Command, Reply};
use serde_json::json;

pub(super) const AFTER_HELP: &str = "\
A node reads everything on disk again by itself, within 30 days unless --scrub of `elver node` says otherwise. This command starts
a round now, which goes as fast as the disk has nothing else to do. Interrupting the command does not end the round:
`elver status` shows how far it is.

Examples:
  elver scrub                 read everything, wait for the result
  elver scrub --background    start it and return";

#[derive(clap::Args, Debug)]
pub(super) struct ScrubArguments {
    /// Do not wait for the result
    #[arg(long)]
    background: bool,
}

/// Starts a round and shows what it found.
pub(super) fn run(context: &mut Context, arguments: &ScrubArguments) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Scrub { background: arguments.background }, "disk")?;
    let Reply::Scrub { running, report } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({ "running": running, "report": report }))?;
    } else if running {
        context.output.remark("everything on disk is being read; `elver status` shows how far it is");
    } else {
        context.output.line(&format!(
            "{} pieces and {} files, {}, read in {}: {} bad",
            report.pieces,
            report.files,
            format_size(report.bytes),
            format_duration(report.seconds),
            report.bad
        ))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::FakeDaemon;
    use crate::node::command::{Response, ScrubReport};

    #[test]
    fn a_round_that_is_over_shows_what_it_found_and_one_in_the_background_does_not() {
        let report = ScrubReport { pieces: 7, files: 2, bytes: 3 << 20, bad: 1, seconds: 5 };
        let daemon = FakeDaemon::answering(&[Response::Done(Reply::Scrub { running: false, report })]);
        let (output, results, _) = kept(false);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(run(&mut context, &ScrubArguments { background: false }), Ok(Exit::Done));
        assert_eq!(results.text(), "7 pieces and 2 files, 3.0 MiB, read in 5 s: 1 bad\n");
        let report = ScrubReport::default();
        let daemon = FakeDaemon::answering(&[Response::Done(Reply::Scrub { running: true, report })]);
        let (output, results, _) = kept(true);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(run(&mut context, &ScrubArguments { background: true }), Ok(Exit::Done));
        assert!(results.text().contains("\"running\":true"), "{}", results.text());
        assert_eq!(daemon.heard(), vec![Command::Scrub { background: true }]);
    }
}

//! `scrub`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::{format_duration, format_size};
use crate::node::command::{Command, Reply};
use serde_json::json;

pub(super) const AFTER_HELP: &str = "\
A node reads everything on disk by itself within 30 days, or within the time of `elver node --scrub`. This command starts a round
now. The round uses the disk's idle time and goes on when the command is interrupted; `elver status` shows its progress.

Examples:
  elver scrub                 start a round, wait for the result
  elver scrub --background    start a round and return";

#[derive(clap::Args, Debug)]
pub(super) struct ScrubArguments {
    /// Do not wait for the result
    #[arg(long)]
    background: bool,
}

/// Starts a round of scrub and shows its result.
pub(super) fn run(context: &mut Context, arguments: &ScrubArguments) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Scrub { background: arguments.background }, "disk")?;
    let Reply::Scrub { running, report } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({ "running": running, "report": report }))?;
    } else if running {
        context.output.remark("a round of scrub is running; `elver status` shows its progress");
    } else {
        context.output.line(&format!(
            "{} and {}, {}, read in {}: {} bad",
            counted(report.pieces, "piece"),
            counted(report.files, "file"),
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
    use crate::cli::testing::FakeDaemon;
    use crate::node::command::{Response, ScrubReport};

    #[test]
    fn the_command_shows_the_result_unless_the_round_runs_in_the_background() {
        let report = ScrubReport { pieces: 7, files: 2, bytes: 3 << 20, bad: 1, seconds: 5 };
        let daemon = FakeDaemon::answering(&[Response::Done(Reply::Scrub { running: false, report })]);
        let (mut context, results, _) = daemon.context(false);
        assert_eq!(run(&mut context, &ScrubArguments { background: false }), Ok(Exit::Done));
        assert_eq!(results.text(), "7 pieces and 2 files, 3.0 MiB, read in 5 s: 1 bad\n");
        let report = ScrubReport::default();
        let daemon = FakeDaemon::answering(&[Response::Done(Reply::Scrub { running: true, report })]);
        let (mut context, results, _) = daemon.context(true);
        assert_eq!(run(&mut context, &ScrubArguments { background: true }), Ok(Exit::Done));
        assert!(results.text().contains("\"running\":true"), "{}", results.text());
        assert_eq!(daemon.heard(), vec![Command::Scrub { background: true }]);
    }
}

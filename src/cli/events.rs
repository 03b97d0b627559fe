//! `events`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::{counted, shown};
use crate::config::units::format_size;
use crate::node::command::{Command, Event, Numbered, Reply};
use serde_json::json;

pub(super) const AFTER_HELP: &str = "\
The events are: downloaded, stored, removed (files, by commands of any client), joined, departed (members), lost (pieces that no longer
verified), alarm and alarm_over (what the first line of `elver status` says). The node keeps the last 256. When a reader is slower
than that, a line says how many it missed. The stream ends with the node.

Examples:
  elver events                       what happens from now on
  elver events --after 0 --json      from the first event that the node keeps, one object a line
  elver events --json | jq 'select(.event == \"alarm\")'";

#[derive(clap::Args, Debug)]
pub(super) struct EventsArguments {
    /// Begin after the event with this number; 0 is the first that the node keeps [default: what happens from now on]
    #[arg(long, value_name = "N")]
    after: Option<u64>,
}

/// Prints events until the node ends or the reader of the output is gone.
pub(super) fn run(context: &mut Context, arguments: &EventsArguments) -> Result<Exit, CommandError> {
    let mut after = arguments.after;
    while !context.output.is_closed() {
        let reply = context.request(&Command::Events { after }, "")?;
        let Reply::Events { events, missed } = reply else { return Err(context.unexpected(&reply)) };
        // A client that asks for the first event that is kept has missed none.
        if missed > 0 && after != Some(0) {
            match context.output.json {
                true => context.output.object(&json!({ "event": "missed", "count": missed }))?,
                false => context.output.line(&format!("missed      {}", counted(missed, "event")))?,
            }
        }
        for event in events {
            after = Some(event.number);
            match context.output.json {
                true => context.output.object(&event)?,
                false => context.output.line(&in_words(&event))?,
            }
        }
        context.output.flush()?;
    }
    Ok(Exit::Done)
}

fn in_words(Numbered { event, .. }: &Numbered) -> String {
    let (name, words) = match event {
        Event::Downloaded { hash, length, path, sources } => {
            let from = counted(*sources, "node");
            ("downloaded", format!("{hash}  {} ({} from {from})", shown(path), format_size(*length)))
        }
        Event::Stored { hash, copies, replicas, quorum, .. } => {
            let few = if *quorum { "" } else { ", fewer than a quorum" };
            ("stored", format!("{hash}  {copies} of {replicas} copies{few}"))
        }
        Event::Removed { hash } => ("removed", hash.to_string()),
        Event::Joined { id, address } => ("joined", format!("{id}  {address}")),
        Event::Departed { id, address, state } => {
            let state = serde_json::to_value(state).ok();
            let state = state.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
            ("departed", format!("{id}  {address} ({state})"))
        }
        Event::Lost { pieces } => ("lost", format!("{} no longer verified", counted(*pieces, "piece"))),
        Event::Alarm { message, .. } => ("alarm", message.clone()),
        Event::AlarmOver { kind } => {
            let kind = serde_json::to_value(kind).ok();
            ("alarm over", kind.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned())
        }
    };
    format!("{name:<10}  {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;
    use crate::id::Key;
    use crate::node::command::{Response, TroubleKind};

    #[test]
    fn events_are_lines_and_what_was_missed_is_counted() {
        let event = |number, event| Numbered { number, event };
        let reply = Reply::Events {
            events: vec![
                event(7, Event::Removed { hash: Key([0; 32]) }),
                event(8, Event::AlarmOver { kind: TroubleKind::DiskFull }),
            ],
            missed: 2,
        };
        for json in [false, true] {
            let daemon = FakeDaemon::leaving(&[Response::Done(reply.clone())]);
            let (mut context, results, _) = daemon.context(json);
            let ended = run(&mut context, &EventsArguments { after: Some(4) });
            assert_eq!(ended.unwrap_err().exit, Exit::Unreachable, "the node ended");
            assert_eq!(daemon.heard()[0], Command::Events { after: Some(4) });
            let text = results.text();
            let zero = "0".repeat(64);
            let expected = match json {
                false => format!("missed      2 events\nremoved     {zero}\nalarm over  disk_full\n"),
                true => format!(
                    "{}\n{}\n{}\n",
                    json!({"event": "missed", "count": 2}),
                    json!({"event": "removed", "hash": zero, "number": 7}),
                    json!({"event": "alarm_over", "kind": "disk_full", "number": 8})
                ),
            };
            assert_eq!(text, expected);
        }
    }
}

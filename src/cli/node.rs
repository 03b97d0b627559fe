//! `node` and `leave`.

use super::Context;
use super::client::{Client, ClientError};
use super::exit::{CommandError, Exit};
use super::logging::Log;
use super::progress::Meter;
use crate::config::units::parse_duration;
use crate::config::{self, Settings};
use crate::disk::Way;
use crate::net::Driver;
use crate::node::command::{Command, Reply, Response};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const AFTER_HELP: &str = "\
Every setting can be given as a flag, as an environment variable, as a key in the configuration file (elver.toml in the
node's directory), or not at all; the first of these counts. The keys are the flags' names, with _ for -:

  listen = \"[::]:3583\"
  bootstrap = [\"192.0.2.7:3583\", \"[2001:db8::7]:3583\"]
  replicas = 3
  quota = \"1GiB\"
  upload_rate = \"2MiB\"

The file alone (and variables such as ELVER_GOSSIP_INTERVAL) says how patient the node is with the silent, in seconds:

  [gossip]       interval = 5, peers = 3, view = 512
  [membership]   monitored = 10, silent = 15, unresponsive = 45, evicted = 900
  [repair]       urgent = 60, rank = 30, settle = 60, surplus = 3600, reconcile = 600, transfers = 5, rate = 0 (bytes),
                 cut_off_percent = 15, cut_off_wait = 900

SIGTERM, SIGINT and `elver leave` stop the node in order. After anything worse it comes back with everything that it
acknowledged.

Examples:
  elver node                                            the first node of a network
  elver node --bootstrap 192.0.2.7:3583                 join a network
  elver node --dir /tmp/second --listen 127.0.0.1:4000  another one on the same machine";

/// How long a node may take to stop after it has said that it does.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How often lines of the log that its reader did not take are offered again.
const LOG_RETRY: Duration = Duration::from_millis(250);

#[derive(clap::Args, Debug)]
pub(super) struct NodeArguments {
    #[command(flatten)]
    settings: Settings,
    /// The configuration file [env: ELVER_CONFIG] [default: elver.toml in the node's directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read and write what arrives, as where the kernel refuses to splice it: to measure the one beside the other
    #[arg(long, hide = true)]
    no_splice: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct LeaveArguments {
    /// Leave behind what could not be handed over in this time, such as 5m [default: 60s]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<u32>,
}

/// Runs a node until it is told to stop.
pub(super) fn run(
    context: &mut Context,
    arguments: NodeArguments,
    log: Option<&Log>,
) -> Result<Exit, CommandError> {
    let file = arguments
        .config
        .or_else(|| config::environment("ELVER_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from));
    let mut config =
        config::load(context.dir.clone(), arguments.settings, file.as_deref(), &config::environment)?;
    if arguments.no_splice {
        config.way = Way::Copied;
    }
    let mut driver = Driver::start(config).map_err(|error| {
        CommandError::failed(format!("cannot start a node in {}: {error}", context.dir.display()))
    })?;
    let (id, address) = (driver.id(), driver.local_addr());
    if context.output.json {
        context.output.object(&json!({
            "id": id, "listen": address, "dir": context.dir.to_string_lossy(),
        }))?;
        context.output.flush()?;
    }
    context.output.remark(&format!("node {id} listens on {address}, directory {}", context.dir.display()));
    let stopped = |error| CommandError::failed(format!("the node had to stop: {error}"));
    while !driver.is_stopping() {
        // Lines that were not taken are offered again, also when nothing else happens.
        let waits = log.is_some_and(Log::flush_waiting);
        driver.turn(waits.then_some(LOG_RETRY)).map_err(stopped)?;
    }
    driver.run().map_err(stopped)?;
    Ok(Exit::Done)
}

/// Has the node hand over what only it has and say goodbye, and waits until it has stopped.
pub(super) fn leave(context: &mut Context, arguments: &LeaveArguments) -> Result<Exit, CommandError> {
    let mut meter = Meter::new(context.shows_progress(), "leaving");
    let mut client = Client::connect(&context.dir)?;
    client.send(&Command::Leave { timeout: arguments.timeout })?;
    let (handed_over, left_behind) = loop {
        match client.receive() {
            Ok(Response::Progress(progress)) => meter.show(&progress),
            Ok(Response::Done(Reply::Leave { handed_over, left_behind })) => {
                break (handed_over, left_behind);
            }
            Ok(Response::Done(reply)) => return Err(context.unexpected(&reply)),
            Ok(Response::Failed(failure)) => return Err(ClientError::Refused(failure).into()),
            Ok(Response::Content(_)) => debug_assert!(false, "content that was not asked for"),
            Err(error) => return Err(error.into()),
        }
    };
    drop(meter);
    if !client.wait_until_closed(STOP_LIMIT) || !stops_listening(&context.dir) {
        return Err(CommandError::failed(format!(
            "the node has said goodbye, but has not stopped after {} s",
            STOP_LIMIT.as_secs()
        )));
    }
    if context.output.json {
        context.output.object(&json!({
            "left": true, "handed_over": handed_over, "left_behind": left_behind,
        }))?;
    } else if handed_over > 0 {
        context.output.remark(&format!("{handed_over} pieces were handed over to other nodes"));
    }
    if left_behind == 0 {
        return Ok(Exit::Done);
    }
    context.output.warn(&format!(
        "{left_behind} pieces have no copy elsewhere: they are out of reach until a node runs in {} again",
        context.dir.display()
    ));
    Ok(Exit::BelowQuorum)
}

/// Waits until nobody answers on the control socket any more, so that another node can be started there.
fn stops_listening(dir: &Path) -> bool {
    let start = Instant::now();
    while Client::connect(dir).is_ok() {
        if start.elapsed() > STOP_LIMIT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::FakeDaemon;
    use crate::node::command::{Progress, Stage};

    #[test]
    fn leave_ends_when_the_node_has_gone() {
        let daemon = FakeDaemon::leaving(&[left(0, 0)]);
        let (output, results, remarks) = kept(false);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(leave(&mut context, &LeaveArguments { timeout: None }), Ok(Exit::Done));
        assert_eq!((results.text(), remarks.text()), (String::new(), String::new()));
        assert_eq!(daemon.heard(), vec![Command::Leave { timeout: None }]);
    }

    fn left(handed_over: u32, left_behind: u32) -> Response {
        Response::Done(Reply::Leave { handed_over, left_behind })
    }

    #[test]
    fn what_was_handed_over_is_said_and_what_is_left_behind_has_its_exit_code() {
        let progress = Progress { stage: Stage::HandingOver, done: 1, total: 9, prefix: 0, path: None };
        for (json, left_behind, exit) in
            [(false, 0, Exit::Done), (false, 2, Exit::BelowQuorum), (true, 2, Exit::BelowQuorum)]
        {
            let daemon = FakeDaemon::leaving(&[Response::Progress(progress.clone()), left(7, left_behind)]);
            let (output, results, remarks) = kept(json);
            let mut context = Context { dir: daemon.dir().to_owned(), output };
            assert_eq!(leave(&mut context, &LeaveArguments { timeout: Some(5) }), Ok(exit));
            assert_eq!(daemon.heard(), vec![Command::Leave { timeout: Some(5) }]);
            let remarks = remarks.text();
            assert_eq!(remarks.contains("7 pieces were handed over"), !json, "{remarks}");
            assert_eq!(remarks.contains("warning: 2 pieces have no copy elsewhere"), left_behind > 0);
            if json {
                let object: serde_json::Value = serde_json::from_str(&results.text()).unwrap();
                assert_eq!(object, json!({ "left": true, "handed_over": 7, "left_behind": 2 }));
            }
        }
    }

    #[test]
    fn a_node_that_goes_without_a_goodbye_is_an_error() {
        let daemon = FakeDaemon::writing(b"");
        let (output, ..) = kept(false);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(
            leave(&mut context, &LeaveArguments { timeout: None }).unwrap_err().exit,
            Exit::Unreachable
        );
    }
}

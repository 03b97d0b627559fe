//! `node` and `leave`.

use super::Context;
use super::client::{Client, ClientError, Door};
use super::daemon::Daemon;
use super::exit::{CommandError, Exit};
use super::logging::Log;
use super::output::counted;
use super::progress::Meter;
use super::reload::Reload;
use crate::config::units::parse_duration;
use crate::config::{self, Places, Settings};
use crate::disk::Way;
use crate::net::Driver;
use crate::node::command::{Command, Reply, Response};
use crate::wire::network::Network;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) const AFTER_HELP: &str = "\
Each setting is a flag, an environment variable, and a key in the configuration file (elver.toml in the node's directory). A flag
overrides a variable, a variable overrides the file. The keys are the flags' names, with _ for -:

  listen = \"[::]:3583\"
  bootstrap = [\"192.0.2.7:3583\", \"[2001:db8::7]:3583\"]
  replicas = 3
  quota = \"1GiB\"
  upload_rate = \"2MiB\"

These timers and limits have no flag, but a key and a variable such as ELVER_GOSSIP_INTERVAL. Times are in seconds:

  [gossip]       interval = 5, peers = 3, view = 512
  [membership]   monitored = 10, silent = 15, unresponsive = 45, evicted = 900
  [repair]       urgent = 60, rank = 30, settle = 60, surplus = 3600, reconcile = 600, transfers = 5, rate = 0 (bytes),
                 cut_off_percent = 15, cut_off_wait = 900

SIGHUP makes the node read its configuration again: rates, streams and uploads change at once, other settings at the next start,
and the log says which. SIGTERM, SIGINT and `elver leave` stop the node in order. After a crash or a power cut it restarts with everything that it
acknowledged.

Examples:
  elver node                                            the first node of a network, or another on the same LAN
  elver node --bootstrap 192.0.2.7:3583                 join a network
  elver node --network-key museum.key                   join a network that only nodes with its key can join
  elver node --dir /tmp/second --listen 127.0.0.1:4000  another one on the same machine";

/// The time that a node has to stop after its reply to `leave`.
const STOP_LIMIT: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub(super) struct NodeArguments {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// The configuration file [env: ELVER_CONFIG] [default: elver.toml in the node's directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not look for the nodes of the same LAN: the same as --lan=false
    #[arg(long, conflicts_with = "lan")]
    no_lan: bool,
    /// Read and write arriving content instead of splicing it, to compare the two
    #[arg(long, hide = true)]
    no_splice: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct LeaveArguments {
    /// Stop after this time, such as 5m, even if pieces are not handed over [default: 60s]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<u32>,
}

/// Runs a node until it is told to stop.
pub(super) fn run(
    context: &mut Context,
    mut arguments: NodeArguments,
    log: Option<&Log>,
) -> Result<Exit, CommandError> {
    if arguments.no_lan {
        arguments.settings.lan = Some(false);
    }
    let file = arguments
        .config
        .or_else(|| config::environment("ELVER_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from));
    let places = Places { dir: context.dir.clone(), flags: arguments.settings, file };
    let (mut reload, mut config) = Reload::begin(places, &config::environment)?;
    if arguments.no_splice {
        config.way = Way::Copied;
    }
    match (&config.network_secret, config.network.as_str()) {
        (Some(_), name) => log::info!("this node belongs to the closed network `{name}`"),
        (None, Network::DEFAULT_NAME) => log::info!("this node belongs to the open network of all nodes"),
        (None, name) => log::warn!(
            "the network `{name}` is open: its name is no secret, and any node that knows it can join; \
             `elver network new` makes a network with a key"
        ),
    }
    let driver = Driver::start(config).map_err(|error| {
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
    Daemon::new(driver, log, &config::environment).run(&mut reload).map_err(|error| {
        CommandError::failed(format!("the node stopped because of an error of its loop: {error}"))
    })?;
    Ok(Exit::Done)
}

/// Tells the node to hand over the pieces that only it has, to say goodbye and to stop. Waits until it has stopped.
pub(super) fn leave(context: &mut Context, arguments: &LeaveArguments) -> Result<Exit, CommandError> {
    let mut meter = Meter::new(context.progress(), "leaving");
    // The system's node does not end because a user has none of their own.
    let door = context.door.without_system();
    let mut client = Client::open(&door)?;
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
    if !client.wait_until_closed(STOP_LIMIT) || !stops_listening(&door) {
        return Err(CommandError::failed(format!(
            "the node said goodbye, but it still runs after {} s; end its process if it does not stop",
            STOP_LIMIT.as_secs()
        )));
    }
    if context.output.json {
        context.output.object(&json!({
            "left": true, "handed_over": handed_over, "left_behind": left_behind,
        }))?;
    } else if handed_over > 0 {
        let were = if handed_over == 1 { "was" } else { "were" };
        context
            .output
            .remark(&format!("{} {were} handed over to other nodes", counted(handed_over, "piece")));
    }
    if left_behind == 0 {
        return Ok(Exit::Done);
    }
    context.output.warn(&format!(
        "{} {} no copy elsewhere: not available until a node runs in {} again",
        counted(left_behind, "piece"),
        if left_behind == 1 { "has" } else { "have" },
        context.dir.display()
    ));
    Ok(Exit::BelowQuorum)
}

/// Waits until no node answers on the control socket, so that another node can be started in the directory.
fn stops_listening(door: &Door) -> bool {
    let start = Instant::now();
    while door.open().is_ok() {
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
    use crate::cli::testing::FakeDaemon;
    use crate::node::command::{Progress, Stage};

    #[test]
    fn leave_waits_until_the_node_has_stopped() {
        let daemon = FakeDaemon::leaving(&[left(0, 0)]);
        let (mut context, results, remarks) = daemon.context(false);
        assert_eq!(leave(&mut context, &LeaveArguments { timeout: None }), Ok(Exit::Done));
        assert_eq!(results.text(), String::new());
        assert_eq!(remarks.text(), String::new());
        assert_eq!(daemon.heard(), vec![Command::Leave { timeout: None }]);
    }

    fn left(handed_over: u32, left_behind: u32) -> Response {
        Response::Done(Reply::Leave { handed_over, left_behind })
    }

    #[test]
    fn leave_reports_the_pieces_handed_over_and_left_behind() {
        let progress = Progress { stage: Stage::HandingOver, done: 1, total: 9, prefix: 0, path: None };
        for (json, left_behind, exit) in
            [(false, 0, Exit::Done), (false, 2, Exit::BelowQuorum), (true, 2, Exit::BelowQuorum)]
        {
            let daemon = FakeDaemon::leaving(&[Response::Progress(progress.clone()), left(7, left_behind)]);
            let (mut context, results, remarks) = daemon.context(json);
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
    fn a_node_that_stops_without_a_reply_is_an_error() {
        let daemon = FakeDaemon::writing(b"");
        let (mut context, ..) = daemon.context(false);
        assert_eq!(
            leave(&mut context, &LeaveArguments { timeout: None }).unwrap_err().exit,
            Exit::Unreachable
        );
    }
}

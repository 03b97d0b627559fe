//! `node` and `leave`.

use super::Context;
use super::client::{Client, ClientError};
use super::exit::{CommandError, Exit};
use crate::config::{self, Settings};
use crate::net::Driver;
use crate::node::command::{Command, Reply, Response};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const AFTER_HELP: &str = "\
Every setting can be given as a flag, as an environment variable, as a key in the configuration file (elver.toml in the
node's directory), or not at all; the first of these counts. The keys are the flags' names:

  listen = \"[::]:3583\"
  bootstrap = [\"192.0.2.7:3583\", \"[2001:db8::7]:3583\"]
  replicas = 3
  quota = \"1GiB\"

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

#[derive(clap::Args, Debug)]
pub(super) struct NodeArguments {
    #[command(flatten)]
    settings: Settings,
    /// The configuration file [env: ELVER_CONFIG] [default: elver.toml in the node's directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a node until it is told to stop.
pub(super) fn run(context: &mut Context, arguments: NodeArguments) -> Result<Exit, CommandError> {
    let file = arguments
        .config
        .or_else(|| config::environment("ELVER_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from));
    let config =
        config::load(context.dir.clone(), arguments.settings, file.as_deref(), &config::environment)?;
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
    driver.run().map_err(|error| CommandError::failed(format!("the node had to stop: {error}")))?;
    Ok(Exit::Done)
}

/// Has the node say goodbye, and waits until it has stopped.
pub(super) fn leave(context: &mut Context) -> Result<Exit, CommandError> {
    let mut client = Client::connect(&context.dir)?;
    client.send(&Command::Leave)?;
    loop {
        match client.receive() {
            Ok(Response::Progress(_)) => {}
            Ok(Response::Done(Reply::Leave)) => break,
            Ok(Response::Done(reply)) => return Err(context.unexpected(&reply)),
            Ok(Response::Failed(failure)) => return Err(ClientError::Refused(failure).into()),
            Err(error) => return Err(error.into()),
        }
    }
    if !client.wait_until_closed(STOP_LIMIT) || !stops_listening(&context.dir) {
        return Err(CommandError::failed(format!(
            "the node has said goodbye, but has not stopped after {} s",
            STOP_LIMIT.as_secs()
        )));
    }
    if context.output.json {
        context.output.object(&json!({ "left": true }))?;
    }
    Ok(Exit::Done)
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

    #[test]
    fn leave_ends_when_the_node_has_gone() {
        let daemon = FakeDaemon::leaving(&[Response::Done(Reply::Leave)]);
        let (output, results, remarks) = kept(false);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(leave(&mut context), Ok(Exit::Done));
        assert_eq!((results.text(), remarks.text()), (String::new(), String::new()));
        assert_eq!(daemon.heard(), vec![Command::Leave]);
    }

    #[test]
    fn a_node_that_goes_without_a_goodbye_is_an_error() {
        let daemon = FakeDaemon::writing(b"");
        let (output, ..) = kept(false);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        assert_eq!(leave(&mut context).unwrap_err().exit, Exit::Unreachable);
    }
}

//! The command line: `elver node` is the daemon, everything else is a client that talks to it over the control
//! socket in its directory.
//!
//! - [`client`]: the control socket's client.
//! - [`exit`]: exit codes and the errors that lead to them.
//! - [`output`]: results on standard output, remarks on standard error, text or JSON.
//! - [`process`]: nodes in processes of their own.
//! - [`progress`]: progress bars.
//! - `logging`: a log that never blocks the node on its reader; `stamp`: what stands before its lines; `visible`: what is escaped in
//!   them. `hook`: commands that are run for files that have arrived.
//! - `daemon`: the loop of `elver node`; `service`: what the service manager is told; `reload`: reading the configuration again.
//! - `put`, `get`, `sets`, `files`, `values`, `explain`, `peers`, `status`, `events`, `limit`, `configuration`, `network`, `node`,
//!   `demo`: the commands.

pub mod client;
pub mod exit;
pub mod output;
pub mod process;
pub mod progress;

mod configuration;
mod daemon;
mod demo;
mod destination;
mod events;
mod explain;
mod files;
mod get;
mod hook;
mod identity;
mod limit;
mod logging;
mod network;
mod node;
mod opened;
mod peers;
mod pipeline;
mod put;
mod read;
mod reload;
mod scrub;
mod service;
mod sets;
mod stamp;
mod status;
#[cfg(test)]
mod testing;
mod values;
mod visible;

use crate::config;
use crate::node::command::{Command, Reply};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use client::{Client, ClientError, Door, SYSTEM_SOCKET};
use exit::{CommandError, EXIT_CODES_HELP, Exit};
use logging::Log;
use output::Output;
use progress::{Form, Meter};
use stamp::Stamp;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use visible::visible;

/// A peer-to-peer node small enough for a router: put a file in at any node, get it at any other, verified
#[derive(Parser, Debug)]
#[command(name = "elver", version, after_help = after_help())]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// The node's directory [env: ELVER_DIR] [default: $XDG_STATE_HOME/elver, else ~/.local/state/elver]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The node's control socket [env: ELVER_SOCKET] [default: control.sock in the node's directory, else /run/elver/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print results and errors as JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Log more on standard error: -v what happens, -vv why, -vvv everything [env: ELVER_LOG]
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print only results, warnings and errors; no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// The form of progress on standard error [default: a bar on a terminal, lines elsewhere, none with --json]
    #[arg(long, global = true, value_enum, value_name = "FORM", conflicts_with = "quiet")]
    progress: Option<Form>,
}

#[derive(clap::Subcommand, Debug)]
enum Subcommand {
    /// Run a node until it is told to stop
    #[command(after_help = node::AFTER_HELP)]
    Node(Box<node::NodeArguments>),
    /// Share files and directories and copy them to other nodes; prints their addresses like b3sum
    #[command(after_help = put::AFTER_HELP)]
    Put(put::PutArguments),
    /// Fetch a file or a set by its address, every byte verified
    #[command(after_help = get::GET_AFTER_HELP)]
    Get(get::GetArguments),
    /// Stop sharing files; the files themselves stay
    Rm(files::RemoveArguments),
    /// List the files that this node shares, or what is in a set
    Ls(files::ListArguments),
    /// Publish a small value under this node's key; prints its address
    #[command(after_help = values::SET_AFTER_HELP)]
    Set(values::SetArguments),
    /// Stop publishing a value; other nodes drop it within its lifetime
    Unset(values::UnsetArguments),
    /// List the values that this node publishes
    Values,
    /// Find a value that any node has published
    #[command(after_help = values::LOOKUP_AFTER_HELP)]
    Lookup(values::LookupArguments),
    /// Show whether a file is safe: the copies of each piece, their holders, and what would be lost with which nodes
    #[command(after_help = explain::AFTER_HELP)]
    Explain(explain::ExplainArguments),
    /// List the known nodes, nearest first, or lift the bans of peers that sent wrong content
    Peers(peers::PeersArguments),
    /// Show the node's state and statistics
    Status,
    /// Print what happens at the node: downloads, departures, alarms
    #[command(after_help = events::AFTER_HELP)]
    Events(events::EventsArguments),
    /// Read everything on disk now, and drop damaged pieces so that repair replaces them
    #[command(after_help = scrub::AFTER_HELP)]
    Scrub(scrub::ScrubArguments),
    /// Show the limits of rates, streams and uploads, or change them until the node stops
    #[command(after_help = limit::AFTER_HELP)]
    Limit(limit::LimitArguments),
    /// Check the configuration file of a node, or print a sample of one
    #[command(after_help = configuration::AFTER_HELP)]
    Config(configuration::ConfigArguments),
    /// Make the key of a network that only nodes with the key can join
    #[command(after_help = network::AFTER_HELP)]
    Network(network::NetworkArguments),
    /// Print the node's id and public key, or give a node that does not run another identity
    #[command(after_help = identity::AFTER_HELP)]
    Id(identity::IdArguments),
    /// Hand over the pieces that only this node has, say goodbye to the network and stop the node
    Leave(node::LeaveArguments),
    /// Watch a swarm of nodes on this machine lose the publisher of a file, and still give the file back
    #[command(after_help = demo::AFTER_HELP)]
    Demo(demo::DemoArguments),
}

fn after_help() -> String {
    format!(
        "Examples:
  elver demo                                   watch it work, on this machine only
  elver node --bootstrap 192.0.2.7:3583        run a node and join a network
  elver put holiday.tar                        put a file in; prints HASH  FILE
  elver get HASH -o holiday.tar                get it at any other node
  elver get HASH -o - | tar t                  or list its content while it arrives
  elver put photos; elver get HASH/ -o photos  a directory: its address ends with a slash

{EXIT_CODES_HELP}"
    )
}

/// What every command needs: the node's directory, the way to the node, and the output.
struct Context {
    dir: PathBuf,
    door: Door,
    output: Output,
    /// The form of progress that was asked for.
    progress: Option<Form>,
}

impl Context {
    /// Sends a command to the daemon and waits for the reply. Shows progress meanwhile.
    fn request(&self, command: &Command, name: &str) -> Result<Reply, ClientError> {
        let mut meter = Meter::new(self.progress(), name);
        Client::open(&self.door)?.ask(command, |progress| meter.show(progress))
    }

    /// The form of progress.
    fn progress(&self) -> Form {
        match self.progress {
            Some(form) => form,
            None if self.output.json || self.output.quiet => Form::None,
            None if std::io::stderr().is_terminal() => Form::Bar,
            None => Form::Lines,
        }
    }

    fn unexpected(&self, reply: &Reply) -> CommandError {
        self.door.unexpected(reply).into()
    }
}

/// The declaration of the command line, from which manual pages and completions are made.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let exit = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => run(arguments),
        Err(error) => report_usage(&error, arguments.iter().any(|argument| argument == OsStr::new("--json"))),
    };
    exit.into()
}

/// Prints an error of the command line, or the help or version that the user asked for.
fn report_usage(error: &clap::Error, json: bool) -> Exit {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // A reader may close the pipe before the end of the help text, which is no failure.
    let _ = error.print();
    if asked_for {
        return Exit::Done;
    }
    if json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let mut output = Output::new(true, true, Box::new(std::io::stdout()), Box::new(std::io::sink()));
        output.error(&CommandError::new(Exit::Usage, message));
    }
    Exit::Usage
}

fn run(arguments: Arguments) -> Exit {
    let Global { dir, socket, json, verbose, quiet, progress } = arguments.global;
    // A node must not block on the reader of its log; any other command may.
    let log = matches!(arguments.command, Subcommand::Node(_)).then(Log::standard);
    start_log(log.as_ref(), verbose, quiet);
    let mut output = match &log {
        Some(log) => Output::new(json, quiet, Box::new(std::io::stdout()), Box::new(log.clone())),
        None => Output::standard(json, quiet),
    };
    let named = dir.is_some();
    let dir = match config::directory(dir, &config::environment) {
        Ok(dir) => std::path::absolute(&dir).unwrap_or(dir),
        Err(error) => {
            output.error(&error.into());
            return Exit::Usage;
        }
    };
    let door = door(&dir, named, socket, &config::environment);
    let mut context = Context { dir, door, output, progress };
    let result = match arguments.command {
        Subcommand::Node(arguments) => node::run(&mut context, *arguments, log.as_ref()),
        Subcommand::Put(arguments) => put::run(&mut context, &arguments),
        Subcommand::Get(arguments) => get::get(&mut context, &arguments),
        Subcommand::Rm(arguments) => files::remove(&mut context, &arguments),
        Subcommand::Ls(arguments) => files::list(&mut context, &arguments),
        Subcommand::Set(arguments) => values::set(&mut context, &arguments),
        Subcommand::Unset(arguments) => values::unset(&mut context, &arguments),
        Subcommand::Values => values::list(&mut context),
        Subcommand::Lookup(arguments) => values::lookup(&mut context, &arguments),
        Subcommand::Explain(arguments) => explain::explain(&mut context, &arguments),
        Subcommand::Peers(arguments) => peers::peers(&mut context, &arguments),
        Subcommand::Events(arguments) => events::run(&mut context, &arguments),
        Subcommand::Scrub(arguments) => scrub::run(&mut context, &arguments),
        Subcommand::Status => status::status(&mut context),
        Subcommand::Limit(arguments) => limit::run(&mut context, &arguments),
        Subcommand::Config(arguments) => configuration::run(&mut context, &arguments),
        Subcommand::Network(arguments) => network::run(&mut context, &arguments),
        Subcommand::Id(arguments) => identity::run(&mut context, &arguments),
        Subcommand::Leave(arguments) => node::leave(&mut context, &arguments),
        Subcommand::Demo(arguments) => demo::run(&mut context.output, &arguments),
    };
    let exit = result.and_then(|exit| context.output.flush().map(|()| exit)).unwrap_or_else(|error| {
        context.output.error(&error);
        error.exit
    });
    if let Some(log) = log {
        log.flush_last();
    }
    exit
}

/// The way to the node: by the flag `--socket` or `--dir`, else by the variable, else the user's own node or the system's.
fn door(dir: &Path, named: bool, socket: Option<PathBuf>, environment: config::Environment<'_>) -> Door {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match socket.or_else(|| variable("ELVER_SOCKET").filter(|_| !named)) {
        Some(socket) => Door::Socket(socket),
        None if named || variable("ELVER_DIR").is_some() => Door::Dir(dir.to_owned()),
        None => Door::OwnOrSystem { own: dir.to_owned(), system: SYSTEM_SOCKET.into() },
    }
}

/// Starts the log on standard error, by default with warnings and errors only.
fn start_log(log: Option<&Log>, verbose: u8, quiet: bool) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn);
    match (verbose, quiet) {
        (0, false) => drop(builder.parse_env("ELVER_LOG")),
        (0, true) => drop(builder.filter_level(log::LevelFilter::Error)),
        (1, _) => drop(builder.filter_level(log::LevelFilter::Info)),
        (2, _) => drop(builder.filter_level(log::LevelFilter::Debug)),
        _ => drop(builder.filter_level(log::LevelFilter::Trace)),
    }
    let stamp = match log {
        Some(log) => {
            builder.target(env_logger::Target::Pipe(Box::new(log.clone())));
            Stamp::of_node(&config::environment, std::io::stderr())
        }
        None => Stamp::Nothing,
    };
    builder.format(move |line, record| writeln!(line, "{}", log_line(&stamp, record)));
    // It fails only when the process has a logger already, which then takes the lines.
    let _ = builder.try_init();
}

/// A line of the log. A message may have names in it that other nodes chose.
fn log_line(stamp: &Stamp, record: &log::Record<'_>) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    format!("{}elver: {level}: {}", stamp.before(record.level()), visible(&record.args().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_log_neither_ends_the_line_nor_steers_the_terminal() {
        let record = |text: &core::fmt::Arguments<'_>| {
            log_line(&Stamp::Nothing, &log::Record::builder().level(log::Level::Info).args(*text).build())
        };
        let name = "a\n\u{1b}[2J\u{202e}b";
        assert_eq!(
            record(&format_args!("cannot write {name}")),
            "elver: info: cannot write a\\n\\u{1b}[2J\\u{202e}b"
        );
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn clap_accepts_the_definition_of_the_arguments() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_are_accepted_before_and_after_the_command() {
        for line in ["elver --json --dir d status", "elver status --json --dir d"] {
            let arguments = parse(line).unwrap();
            assert!(arguments.global.json, "{line}");
            assert_eq!(arguments.global.dir, Some(PathBuf::from("d")), "{line}");
        }
    }

    #[test]
    fn the_socket_is_named_to_clients_and_to_the_node_by_one_flag() {
        for line in ["elver --socket s node", "elver node --socket s"] {
            let arguments = parse(line).unwrap();
            let Subcommand::Node(node) = &arguments.command else { panic!("{line}") };
            assert_eq!(node.settings.socket, Some(PathBuf::from("s")), "{line}");
        }
        assert_eq!(parse("elver status --socket s").unwrap().global.socket, Some(PathBuf::from("s")));
    }

    #[test]
    fn a_client_takes_the_door_that_was_named_last_of_all_the_systems() {
        let variables = |socket: &'static str, dir: &'static str| {
            move |name: &str| match name {
                "ELVER_SOCKET" => Some(OsString::from(socket)),
                "ELVER_DIR" => Some(OsString::from(dir)),
                _ => None,
            }
        };
        let dir = Path::new("/d");
        let by_dir = Door::Dir("/d".into());
        assert_eq!(door(dir, true, Some("/f".into()), &variables("/s", "/d")), Door::Socket("/f".into()));
        assert_eq!(door(dir, true, None, &variables("/s", "")), by_dir);
        assert_eq!(door(dir, false, None, &variables("/s", "/d")), Door::Socket("/s".into()));
        assert_eq!(door(dir, false, None, &variables("", "/d")), by_dir);
        let system = SYSTEM_SOCKET.into();
        assert_eq!(
            door(dir, false, None, &variables("", "")),
            Door::OwnOrSystem { own: "/d".into(), system }
        );
    }

    #[test]
    fn invalid_arguments_are_a_usage_error() {
        let hash = "0".repeat(64);
        for line in [
            "elver",
            "elver explode",
            "elver get",
            "elver get 123",
            &format!("elver get {hash} --timeout soon"),
            &format!("elver get {hash} --range 5-4"),
            &format!("elver get {hash} --range -"),
            &format!("elver get {hash} --range 1-2 --offset 4"),
            &format!("elver get {hash} {hash} nothex"),
            &format!("elver get {hash}/../x"),
            "elver limit --upload 1",
            "elver limit --streams 2",
            "elver put",
            "elver explain",
            "elver explain 123",
            "elver leave --timeout soon",
            "elver put --replicas 256 x",
            "elver rm nothex",
            "elver set a/b value",
            "elver set name",
            "elver lookup name",
            &format!("elver lookup {hash}/"),
            "elver node --quota -1",
            "elver node --listen here",
            "elver node --leaf=perhaps",
            "elver -q -v status",
            "elver --progress loud status",
            "elver help nothing",
            "elver demo --nodes 3",
            "elver id --new --golden",
            "elver network",
            "elver network new",
            "elver network new a\u{7}b",
            "elver config",
            "elver node --socket-mode 60",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
        }
    }

    #[test]
    fn a_misspelt_command_or_option_is_answered_with_the_one_that_was_meant() {
        for (line, meant) in [("elver staus", "status"), ("elver get --ouput x", "--output")] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
        assert_eq!(parse("elver help put").unwrap_err().kind(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn every_command_has_a_help_text() {
        for command in Arguments::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
        let help = Arguments::command().render_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("elver demo"), "{help}");
    }
}

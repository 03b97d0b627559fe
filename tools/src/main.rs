//! Tools that measure and simulate Elver nodes, for developers and operators.
//!
//! Each tool is a command: `cargo run --release -p elver-tools -- COMMAND`. `tools/README.md` describes each, with results.

mod compare;
mod corpus;
mod hash;
mod http;
mod idle;
mod junk;
mod manual;
mod many;
mod node;
mod scrub;
mod sets;
mod shares;
mod sim;
mod story;
mod swarm;
mod transfer;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Elver nodes and runs networks of them, on loopback or simulated.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The elver binary. The default is the one beside this program.
    #[arg(long, global = true, env = "ELVER_BIN")]
    elver: Option<PathBuf>,
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Transfer(transfer::Arguments),
    Compare(compare::Arguments),
    Corpus(corpus::Arguments),
    Hash(hash::Arguments),
    Http(http::Arguments),
    Many(many::Arguments),
    Man(manual::ManArguments),
    Completions(manual::CompletionArguments),
    Idle(idle::Arguments),
    Junk(junk::Arguments),
    Scrub(scrub::Arguments),
    Sets(sets::Arguments),
    Shares(shares::Arguments),
    Swarm(swarm::Arguments),
    Sim(sim::Arguments),
    Story(story::Arguments),
}

/// The result of a tool, with any error.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Outcome<ExitCode> {
        let binary = || match arguments.elver.clone() {
            Some(path) => Ok(path),
            None => node::default_binary(),
        };
        match &arguments.tool {
            Tool::Transfer(arguments) => transfer::run(&binary()?, arguments)?,
            Tool::Corpus(arguments) => corpus::run(arguments)?,
            Tool::Compare(arguments) => compare::run(&binary()?, arguments)?,
            Tool::Man(arguments) => manual::man(arguments)?,
            Tool::Completions(arguments) => manual::completions(arguments)?,
            Tool::Many(arguments) => many::run(&binary()?, arguments)?,
            Tool::Hash(arguments) => hash::run(&binary()?, arguments)?,
            Tool::Http(arguments) => http::run(&binary()?, arguments)?,
            Tool::Scrub(arguments) => scrub::run(&binary()?, arguments)?,
            Tool::Sets(arguments) => sets::run(&binary()?, arguments)?,
            Tool::Shares(arguments) => shares::run(&binary()?, arguments)?,
            Tool::Idle(arguments) => idle::run(&binary()?, arguments)?,
            Tool::Junk(arguments) => junk::run(&binary()?, arguments)?,
            Tool::Swarm(arguments) => swarm::run(&binary()?, arguments)?,
            Tool::Story(arguments) => story::run(arguments)?,
            Tool::Sim(arguments) => return sim::run(arguments),
        }
        Ok(ExitCode::SUCCESS)
    };
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

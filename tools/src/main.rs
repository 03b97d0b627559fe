//! What developers and operators run around an Elver node.
//!
//! `cargo run --release -p elver-tools -- transfer --mib 1024` measures one node fetching a file from another;
//! `… -- idle` measures a node that does nothing; `… -- swarm` runs a network to play with.

mod idle;
mod node;
mod sim;
mod swarm;
mod transfer;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Elver nodes and runs networks of them, on loopback.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The elver binary; else the one beside this program.
    #[arg(long, global = true, env = "ELVER_BIN")]
    elver: Option<PathBuf>,
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Transfer(transfer::Arguments),
    Idle(idle::Arguments),
    Swarm(swarm::Arguments),
    Sim(sim::Arguments),
}

/// What every tool may fail with.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Outcome<()> {
        if let Tool::Sim(arguments) = &arguments.tool {
            return sim::run(arguments);
        }
        let binary = match arguments.elver {
            Some(path) => path,
            None => node::default_binary()?,
        };
        match arguments.tool {
            Tool::Transfer(arguments) => transfer::run(&binary, &arguments),
            Tool::Idle(arguments) => idle::run(&binary, &arguments),
            Tool::Swarm(arguments) => swarm::run(&binary, &arguments),
            Tool::Sim(_) => unreachable!(),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

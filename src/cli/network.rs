//! `network`: keys of closed networks.

use super::Context;
use super::exit::{CommandError, Exit};
use crate::config::network_key;
use crate::config::values::parse_network;
use serde_json::json;
use std::path::PathBuf;

pub(super) const AFTER_HELP: &str = "\
Without a key a network is open: its name is no secret, and any node that knows it can join. Copy the key to every node of the
network over a channel that you trust, and keep it readable by the node's user only (mode 0600). A node without the key gets no
answer, and can neither find out the network's name by trying names nor read its membership.

Examples:
  elver network new museum                              write museum.key
  elver node --network-key museum.key                   run a node of that network";

#[derive(clap::Args, Debug)]
pub(super) struct NetworkArguments {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(clap::Subcommand, Debug)]
enum NetworkCommand {
    /// Make the key of a new network, and write it to a file
    New(NewArguments),
}

#[derive(clap::Args, Debug)]
struct NewArguments {
    /// The network's name
    #[arg(value_name = "NAME", value_parser = parse_network)]
    name: String,
    /// The file to write, which must not exist yet [default: NAME.key]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs a command about networks. It needs no daemon.
pub(super) fn run(context: &mut Context, arguments: &NetworkArguments) -> Result<Exit, CommandError> {
    let NetworkCommand::New(NewArguments { name, output }) = &arguments.command;
    let path = match output {
        Some(path) => path.clone(),
        None if name.contains('/') || name.starts_with('.') => {
            let message = format!("`{name}.key` is no plain file name: give the key's file with --output");
            return Err(CommandError::new(Exit::Usage, message));
        }
        None => PathBuf::from(format!("{name}.key")),
    };
    network_key::create(&path, name).map_err(|error| {
        CommandError::failed(format!("cannot write the key of a new network to {}: {error}", path.display()))
    })?;
    if context.output.json {
        context.output.object(&json!({ "network": name, "key": path.to_string_lossy() }))?;
    } else {
        context.output.line(&path.to_string_lossy())?;
    }
    context
        .output
        .remark("copy this file to every node of the network, and start each with --network-key FILE");
    Ok(Exit::Done)
}

//! `config`.

use super::Context;
use super::exit::{CommandError, Exit};
use crate::config::{self, Places, Settings, sample};
use serde_json::json;
use std::path::PathBuf;

pub(super) const AFTER_HELP: &str = "\
A key that no setting has is left out with a warning, so that an older node starts with a newer node's file.

Examples:
  elver config check                           the file of the node in --dir
  elver config check /etc/elver/elver.toml     any file
  elver config check --strict new.toml         exit with 2 for an unknown key too
  elver config sample > elver.toml             every setting with its explanation";

#[derive(clap::Args, Debug)]
pub(super) struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ConfigCommand {
    /// Read a configuration file, and the environment, as a node would
    Check(CheckArguments),
    /// Print a configuration file with every setting explained
    Sample,
}

#[derive(clap::Args, Debug)]
struct CheckArguments {
    /// The file [env: ELVER_CONFIG] [default: elver.toml in the node's directory]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Exit with 2 when the file has a key that no setting has
    #[arg(long)]
    strict: bool,
}

/// Runs a command about the configuration. It needs no daemon.
pub(super) fn run(context: &mut Context, arguments: &ConfigArguments) -> Result<Exit, CommandError> {
    match &arguments.command {
        ConfigCommand::Check(arguments) => check(context, arguments, &config::environment),
        ConfigCommand::Sample => context.output.bytes(sample::sample().as_bytes()).map(|()| Exit::Done),
    }
}

fn check(
    context: &mut Context,
    arguments: &CheckArguments,
    environment: config::Environment<'_>,
) -> Result<Exit, CommandError> {
    let variable = || environment("ELVER_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let file = arguments.file.clone().or_else(variable);
    let places = Places { dir: context.dir.clone(), flags: Settings::default(), file };
    let path = places.path();
    let found = places.read(environment)?;
    let given = found.settings.differing(&Settings::default());
    found.settings.into_config(places.dir)?;
    let unknown: Vec<String> = found.unknown.messages().collect();
    if context.output.json {
        context.output.object(&json!({
            "file": path.to_string_lossy(), "settings": given, "unknown": unknown,
        }))?;
    } else {
        unknown.iter().for_each(|message| context.output.warn(message));
        let there = if path.exists() { "" } else { ", which does not exist" };
        let given = if given.is_empty() { "only defaults".to_owned() } else { given.join(", ") };
        context.output.line(&format!("{}{there}: {given}", path.display()))?;
    }
    match arguments.strict && !unknown.is_empty() {
        true => Ok(Exit::Usage),
        false => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Door;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::Scratch;

    fn checked(content: Option<&str>, strict: bool, json: bool) -> (Result<Exit, Exit>, String, String) {
        let scratch = Scratch::new();
        if let Some(content) = content {
            std::fs::write(scratch.path().join("elver.toml"), content).unwrap();
        }
        let (output, results, remarks) = kept(json);
        let dir = scratch.path().to_owned();
        let mut context = Context { door: Door::Dir(dir.clone()), dir, output, progress: None };
        let exit = check(&mut context, &CheckArguments { file: None, strict }, &|_| None);
        (exit.map_err(|error| error.exit), results.text(), remarks.text())
    }

    #[test]
    fn a_file_is_checked_as_a_node_reads_it() {
        let (exit, results, _) = checked(Some("quota = 7\n[gossip]\ninterval = 3"), true, false);
        assert_eq!(exit, Ok(Exit::Done));
        assert!(results.ends_with("elver.toml: quota, gossip.interval\n"), "{results}");
        for wrong in ["quota = 'lots'", "[membership]\nsilent = 50", "network_key = 'nowhere'"] {
            assert_eq!(checked(Some(wrong), false, false).0, Err(Exit::Usage), "{wrong}");
        }
        let (exit, results, _) = checked(None, true, false);
        assert_eq!(exit, Ok(Exit::Done));
        assert!(results.ends_with(", which does not exist: only defaults\n"), "{results}");
    }

    #[test]
    fn an_unknown_key_is_a_warning_and_with_strict_a_failure() {
        let (exit, _, remarks) = checked(Some("qouta = 7"), false, false);
        assert_eq!(exit, Ok(Exit::Done));
        assert!(remarks.contains("did you mean `quota`?"), "{remarks}");
        let (exit, results, _) = checked(Some("qouta = 7"), true, true);
        assert_eq!(exit, Ok(Exit::Usage));
        assert!(results.contains("\"unknown\":[\""), "{results}");
    }
}

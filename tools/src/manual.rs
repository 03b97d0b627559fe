//! Manual pages and completions of shells, made of the declaration of the command line. They are no part of the binary.

use crate::Outcome;
use clap_complete::Shell;
use std::fs;
use std::path::PathBuf;

/// Writes a manual page for each command into a directory
#[derive(clap::Args)]
pub(crate) struct ManArguments {
    /// The directory, which is made if it is missing
    dir: PathBuf,
}

/// Writes completions for bash, zsh and fish into a directory
#[derive(clap::Args)]
pub(crate) struct CompletionArguments {
    /// The directory, which is made if it is missing
    dir: PathBuf,
}

pub(crate) fn man(ManArguments { dir }: &ManArguments) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    Ok(clap_mangen::generate_to(elver::cli::command(), dir)?)
}

pub(crate) fn completions(CompletionArguments { dir }: &CompletionArguments) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut elver::cli::command(), "elver", dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed_in_every_shell() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        man(&ManArguments { dir: path.clone() }).unwrap();
        completions(&CompletionArguments { dir: path.clone() }).unwrap();
        let text = |name: &str| fs::read_to_string(path.join(name)).unwrap();
        let shells = ["elver.bash", "_elver", "elver.fish"].map(text);
        for command in elver::cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(text(&format!("elver-{name}.1")).contains(name), "{name}");
            assert!(shells.iter().all(|shell| shell.contains(name)), "{name}");
        }
        let page = text("elver-node.1");
        assert!(page.contains("socket\\-mode") && page.contains("Examples:"), "{page}");
    }
}

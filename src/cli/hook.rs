//! The command that `get --on-complete` runs after each file.

use super::exit::CommandError;
use super::output::shown;
use crate::id::Key;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Runs a shell command for a file, or for the directory of a set, that has arrived, and waits for its end. It finds the file in its
/// environment, where no name can be taken for a part of the command. A set has no `length`.
pub(super) fn run(command: &OsStr, hash: Key, file: &Path, length: Option<u64>) -> Result<(), CommandError> {
    let failed = |reason: String| {
        CommandError::failed(format!("{} has arrived, but the command for it {reason}", shown(file)))
    };
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let status = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env("ELVER_HASH", hash.to_string())
        .env("ELVER_FILE", &file)
        .envs(length.map(|length| ("ELVER_LENGTH", length.to_string())))
        .status()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("failed ({status})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;

    #[test]
    fn the_command_finds_the_file_in_its_environment_and_its_failure_is_one() {
        let scratch = Scratch::new();
        let (file, told) = (scratch.path().join("a $(b) 'c'"), scratch.path().join("told"));
        let command = format!("echo \"$ELVER_HASH $ELVER_LENGTH $ELVER_FILE\" > '{}'", told.display());
        run(OsStr::new(&command), Key([0xab; 32]), &file, Some(7)).unwrap();
        let expected = format!("{} 7 {}\n", "ab".repeat(32), file.display());
        assert_eq!(std::fs::read_to_string(told).unwrap(), expected);
        let error = run(OsStr::new("exit 3"), Key([0; 32]), &file, Some(7)).unwrap_err();
        assert!(error.message.contains("has arrived") && error.message.contains('3'), "{}", error.message);
    }
}

//! Exit codes, and the errors that cause them.

use super::client::ClientError;
use crate::config::ConfigError;
use crate::node::command::FailureReason;
use core::fmt;
use std::io;
use std::process::ExitCode;

/// How the program ends. The numbers are part of the command line and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// A failure without a code of its own.
    Failed = 1,
    /// The command line or the configuration is invalid.
    Usage = 2,
    /// No node has the file or the value.
    NotFound = 3,
    /// No daemon answers, or the daemon reaches no peer.
    Unreachable = 4,
    /// Stored, but on fewer nodes than a quorum.
    BelowQuorum = 5,
    /// The received content does not match its hash.
    Unverified = 6,
    /// The disk is full, or the quota is used up.
    NoSpace = 7,
    /// A limit on concurrent work is reached; a later attempt can succeed.
    Busy = 8,
    /// The daemon runs, but something is wrong with it: `status` says what.
    Unwell = 9,
}

/// The exit codes as `--help` shows them.
pub const EXIT_CODES_HELP: &str = "Exit codes:
  0  done
  1  failed
  2  the command line or the configuration is invalid
  3  not found
  4  no daemon runs, or no peer is reachable
  5  stored on fewer nodes than a quorum
  6  content does not verify
  7  no space on disk, or the quota is used up
  8  busy, try later
  9  the node runs, but is not well (`elver status`)";

impl Exit {
    /// The exit status.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its name in the output of `--json`.
    pub fn reason(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Unreachable => "unreachable",
            Exit::BelowQuorum => "below_quorum",
            Exit::Unverified => "unverified",
            Exit::NoSpace => "no_space",
            Exit::Busy => "busy",
            Exit::Unwell => "unwell",
        }
    }

    /// Combines two results in order: the first failure counts.
    pub fn or(self, other: Exit) -> Exit {
        match self {
            Exit::Done => other,
            failure => failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

impl From<FailureReason> for Exit {
    fn from(reason: FailureReason) -> Exit {
        match reason {
            FailureReason::Failed => Exit::Failed,
            FailureReason::Usage => Exit::Usage,
            FailureReason::NotFound => Exit::NotFound,
            FailureReason::Unreachable => Exit::Unreachable,
            FailureReason::Unverified => Exit::Unverified,
            FailureReason::NoSpace => Exit::NoSpace,
            FailureReason::Busy => Exit::Busy,
        }
    }
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// The exit code.
    pub exit: Exit,
    /// For the user: what failed, the cause, and the remedy.
    pub message: String,
}

impl CommandError {
    /// An error with this exit code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        CommandError { exit, message: message.into() }
    }

    /// A file, or standard output, that could not be written.
    pub fn write_failed(name: &str, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::NoSpace,
            _ => Exit::Failed,
        };
        CommandError::new(exit, format!("cannot write {name}: {error}"))
    }

    /// A failure without an exit code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        CommandError::new(Exit::Failed, message)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoDaemon { .. } | ClientError::Gone { .. } => Exit::Unreachable,
            ClientError::Refused(failure) => failure.reason.into(),
            ClientError::Command(_) | ClientError::Answer { .. } => Exit::Failed,
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable(..) => Exit::Failed,
            _ => Exit::Usage,
        };
        CommandError::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::BelowQuorum,
            Exit::Unverified,
            Exit::NoSpace,
            Exit::Busy,
            Exit::Unwell,
        ];
        for (index, (exit, line)) in all.into_iter().zip(EXIT_CODES_HELP.lines().skip(1)).enumerate() {
            assert_eq!(usize::from(exit.code()), index);
            assert!(line.trim_start().starts_with(&index.to_string()), "{line}");
        }
        assert_eq!(EXIT_CODES_HELP.lines().count(), all.len() + 1);
    }

    #[test]
    fn the_first_failure_counts() {
        assert_eq!(Exit::Done.or(Exit::NotFound).or(Exit::Failed).or(Exit::Done), Exit::NotFound);
    }
}

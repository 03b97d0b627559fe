//! Why there is no configuration. A message names the place, the setting, the value and the remedy.

use super::http_token::HttpTokenError;
use super::network_key::NetworkKeyError;
use crate::node::InvalidConfig;
use core::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// On a line of a file.
    Line(PathBuf, usize),
    /// In a variable of the environment.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{}, line {line}", file.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read, or it does not exist although the command names it.
    Unreadable(PathBuf, io::Error),
    /// The file is not TOML.
    Syntax(Origin, String),
    /// The value of a setting is not allowed.
    Value {
        /// The place of the value.
        origin: Origin,
        /// The name of the setting.
        key: String,
        /// The reason why the value is refused.
        reason: String,
    },
    /// The settings contradict each other.
    Contradiction(InvalidConfig),
    /// The network's key cannot be read from its file.
    NetworkKey(PathBuf, NetworkKeyError),
    /// The HTTP gateway's secret cannot be read from its file.
    HttpToken(PathBuf, HttpTokenError),
    /// The key belongs to another network than the settings name.
    OtherNetwork {
        /// The network that the settings name.
        name: String,
        /// The network that the key belongs to.
        of_key: String,
    },
    /// No setting or variable tells the node's directory.
    NoDirectory,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable(file, error) => write!(f, "cannot read {}: {error}", file.display()),
            ConfigError::Syntax(origin, reason) => write!(f, "{origin}: {reason}"),
            ConfigError::Value { origin, key, reason } => write!(f, "{origin}: `{key}`: {reason}"),
            ConfigError::Contradiction(error) => error.fmt(f),
            ConfigError::NetworkKey(file, error) => {
                write!(f, "the network's key in {}: {error}", file.display())
            }
            ConfigError::HttpToken(file, error) => {
                write!(f, "the HTTP gateway's token in {}: {error}", file.display())
            }
            ConfigError::OtherNetwork { name, of_key } => write!(
                f,
                "the key is of the network `{of_key}`, and the settings name the network `{name}`: leave the name out, \
                 or use the key of that network"
            ),
            ConfigError::NoDirectory => f.write_str(
                "no directory for the node: none of ELVER_DIR, XDG_STATE_HOME and HOME is set; give one with --dir",
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

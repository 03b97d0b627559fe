//! The configuration that a node starts with, and the places where it is given.
//!
//! Every setting of `elver node` can be given in four places, the first of which wins: a flag, an environment variable (`ELVER_`
//! and the flag's name in capitals), a key in `elver.toml`, the default. All of them go through the same readers, so a value
//! means the same everywhere, and each error names the place of the value.
//!
//! ```toml
//! listen = "[::]:3583"
//! bootstrap = ["192.0.2.7:3583", "[2001:db8::7]:3583"]
//! replicas = 3
//! quota = "1GiB"
//! leaf = false
//! network = "elver"
//! ttl = "365d"
//! upload_rate = "2MiB"
//! download_rate = 0
//! peer_upload_rate = 0
//! peer_download_rate = 0
//! streams = 64
//! uploads = 8
//! downloads = 8
//! shares = 100000
//! values = 4096
//!
//! [gossip]
//! interval = 5
//!
//! [membership]
//! evicted = "15m"
//!
//! [repair]
//! urgent = 60
//! ```
//!
//! The settings under a section have no flags. Their variables are named after section and key:
//! `ELVER_GOSSIP_INTERVAL`.
//!
//! - [`settings`]: the settings of one place; each is declared once, as a flag.
//! - `file`, `environment`: the places besides the command line.
//! - [`values`], [`units`]: how values are read.
//! - [`sections`]: the settings that have no flags.
//! - [`network_key`]: the key of a closed network, in its file.
//! - [`http_token`]: the secret of the HTTP gateway, in its file.
//! - [`error`]: why there is no configuration. [`unknown`]: keys that no setting has.
//! - [`sample`]: a file with every setting, explained.

pub mod error;
pub mod http_token;
pub mod network_key;
pub mod sample;
pub mod sections;
pub mod settings;
pub mod units;
pub mod unknown;
pub mod values;

mod environment;
mod file;

pub use environment::{Environment, environment};
pub use error::ConfigError;
pub use settings::Settings;
pub use unknown::UnknownKeys;

use crate::net;
use std::path::{Path, PathBuf};

/// The configuration file's name in the node's directory.
pub const CONFIG_FILE: &str = "elver.toml";

/// The places of one node's settings, besides the environment.
#[derive(Clone, Debug)]
pub struct Places {
    /// The node's directory.
    pub dir: PathBuf,
    /// The flags.
    pub flags: Settings,
    /// The file that the command names; without one it is `elver.toml` in `dir`, if that exists.
    pub file: Option<PathBuf>,
}

/// What the places give.
#[derive(Debug)]
pub struct Found {
    /// The settings of all places together.
    pub settings: Settings,
    /// The keys of the file that no setting has.
    pub unknown: UnknownKeys,
}

impl Places {
    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.dir.join(CONFIG_FILE))
    }

    /// Reads the settings: flags over environment over file.
    pub fn read(&self, environment: Environment<'_>) -> Result<Found, ConfigError> {
        let path = self.path();
        let (mut from_file, unknown) = file::read(&path, self.file.is_some())?;
        // A path in a file is relative to the file's directory, as the node may be started from anywhere.
        let paths = [&mut from_file.network_key, &mut from_file.http_token_file, &mut from_file.socket];
        if let Some(parent) = path.parent() {
            paths.into_iter().flatten().for_each(|named| *named = parent.join(&*named));
        }
        let settings = self.flags.clone().or(environment::read(environment)?).or(from_file);
        Ok(Found { settings, unknown })
    }
}

/// The configuration of a node in `dir`: flags over environment over file over defaults. `file` is the file that the command
/// names; without one it is `elver.toml` in `dir`, if that exists. Keys of the file that no setting has are left out.
pub fn load(
    dir: PathBuf,
    flags: Settings,
    file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<net::Config, ConfigError> {
    let places = Places { dir, flags, file: file.map(Path::to_owned) };
    places.read(environment)?.settings.into_config(places.dir)
}

/// The node's directory: `asked`, else `$ELVER_DIR`, else `$XDG_STATE_HOME/elver`, else `~/.local/state/elver`. An empty variable
/// counts as unset, and so does a relative `XDG_STATE_HOME` (XDG Base Directory Specification 0.8).
pub fn directory(asked: Option<PathBuf>, environment: Environment<'_>) -> Result<PathBuf, ConfigError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    asked
        .or_else(|| variable("ELVER_DIR"))
        .or_else(|| {
            variable("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("elver"))
        })
        .or_else(|| variable("HOME").map(|path| path.join(".local/state/elver")))
        .ok_or(ConfigError::NoDirectory)
}

/// Helpers for the tests of the places.
#[cfg(test)]
mod testing {
    use super::*;
    use std::ffi::OsString;

    /// The settings of a file with this content.
    pub(super) fn from_file(content: &str) -> Result<Settings, String> {
        file::parse(content, Path::new("/x/elver.toml"))
            .map(|(settings, _)| settings)
            .map_err(|error| error.to_string())
    }

    /// The settings of an environment with these variables only.
    pub(super) fn from_variables(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        environment::read(&variables(pairs)).map_err(|error| error.to_string())
    }

    pub(super) fn variables<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    /// The node's configuration that follows from the settings.
    pub(super) fn config(settings: Settings) -> net::Config {
        settings.into_config("/d".into()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::limits::Rates;
    use crate::time::Duration;

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let flags = Settings { replicas: Some(1), ..Settings::default() };
        let environment =
            from_variables(&[("ELVER_REPLICAS", "2"), ("ELVER_NETWORK", "two"), ("ELVER_TTL", "")]).unwrap();
        let file = from_file("replicas = 7\nnetwork = 'seven'\nquota = 7").unwrap();
        let config = config(flags.or(environment).or(file));
        assert_eq!(config.replicas, 1);
        assert_eq!(config.network, "two");
        assert_eq!(config.limits.quota_bytes, 7);
        assert_eq!(config.lifetime_seconds, 365 * 86_400);
        assert!(!config.leaf);
    }

    #[test]
    fn a_variable_beats_a_section_of_the_file_key_by_key() {
        let environment = from_variables(&[("ELVER_GOSSIP_INTERVAL", "2")]).unwrap();
        let gossip =
            config(environment.or(from_file("gossip.interval = 3\ngossip.peers = 4").unwrap())).gossip;
        assert_eq!(gossip.interval, Duration::from_secs(2));
        assert_eq!(gossip.fanout, 4);
    }

    #[test]
    fn limits_are_read_everywhere_alike() {
        let file = from_file("upload_rate = '1MiB/s'\npeer_download_rate = 65536\nstreams = 100").unwrap();
        let environment = from_variables(&[("ELVER_UPLOADS", "3"), ("ELVER_DOWNLOAD_RATE", "0")]).unwrap();
        let limits = config(environment.or(file)).limits;
        assert_eq!(limits.rates, Rates { upload: 1 << 20, peer_download: 65_536, ..Rates::default() });
        assert_eq!(limits.streams_max, 100);
        assert_eq!(limits.uploads_max, 3);
    }

    #[test]
    fn the_directory_is_looked_for_in_order() {
        let every = [("ELVER_DIR", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")];
        let found = |asked: Option<&str>, pairs: &[(&str, &str)]| {
            directory(asked.map(PathBuf::from), &variables(pairs)).ok()
        };
        assert_eq!(found(Some("here"), &every), Some("here".into()));
        assert_eq!(found(None, &every), Some("/a".into()));
        assert_eq!(found(None, &every[1..]), Some("/b/elver".into()));
        assert_eq!(found(None, &every[2..]), Some("/c/.local/state/elver".into()));
        assert_eq!(
            found(None, &[("ELVER_DIR", ""), ("XDG_STATE_HOME", "b"), ("HOME", "/c")]),
            found(None, &every[2..])
        );
        assert_eq!(found(None, &[]), None);
    }
}

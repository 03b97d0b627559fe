//! Reading the configuration again while the node runs (SIGHUP): limits that `elver limit` can change take effect at once, and
//! the log names the other settings that have changed. A configuration that is wrong changes nothing.

use crate::config::{ConfigError, Environment, Places, Settings};
use crate::net;
use crate::node::command::Command;

/// The settings that take effect at once.
const LIVE: [&str; 6] =
    ["upload_rate", "download_rate", "peer_upload_rate", "peer_download_rate", "streams", "uploads"];

/// The configuration of a running node.
pub(super) struct Reload {
    places: Places,
    /// The settings that the node was started with.
    started: Settings,
    /// The settings that were read last.
    read: Settings,
}

/// What has changed in the configuration.
#[derive(PartialEq, Debug)]
struct Change {
    /// The settings that take effect at once.
    live: Vec<String>,
    /// The settings that differ from those that the node was started with, and need a restart.
    at_restart: Vec<String>,
    /// The limits of the live settings.
    limits: Option<Command>,
}

impl Reload {
    /// Reads the configuration for the first time. Warns of unknown keys.
    pub(super) fn begin(
        places: Places,
        environment: Environment<'_>,
    ) -> Result<(Reload, net::Config), ConfigError> {
        let settings = read(&places, environment)?;
        let config = settings.clone().into_config(places.dir.clone())?;
        Ok((Reload { places, started: settings.clone(), read: settings }, config))
    }

    /// Reads the configuration again and says in the log what has changed. Returns the command that changes the limits.
    pub(super) fn again(&mut self, environment: Environment<'_>) -> Option<Command> {
        let Change { live, at_restart, limits } = match self.change(environment) {
            Ok(change) => change,
            Err(error) => {
                log::error!(
                    "the configuration is not read again: {error}; the node keeps the settings that it has"
                );
                return None;
            }
        };
        match live.is_empty() {
            true => log::info!("the configuration was read again: no limit has changed"),
            false => log::info!("the configuration was read again: changed at once: {}", live.join(", ")),
        }
        if !at_restart.is_empty() {
            log::warn!(
                "these settings have changed and count when the node is restarted: {}",
                at_restart.join(", ")
            );
        }
        limits
    }

    fn change(&mut self, environment: Environment<'_>) -> Result<Change, ConfigError> {
        let settings = read(&self.places, environment)?;
        let config = settings.clone().into_config(self.places.dir.clone())?;
        let is_live = |key: &String| LIVE.contains(&key.as_str());
        let live: Vec<String> = settings.differing(&self.read).into_iter().filter(is_live).collect();
        let at_restart = settings.differing(&self.started).into_iter().filter(|key| !is_live(key)).collect();
        let net::Config { limits, .. } = config;
        let changed = |key: &str| live.iter().any(|live| live == key);
        // What did not change here may have been changed by `elver limit`, and stays so.
        let command = Command::Limit {
            upload: changed("upload_rate").then_some(limits.rates.upload),
            download: changed("download_rate").then_some(limits.rates.download),
            peer_upload: changed("peer_upload_rate").then_some(limits.rates.peer_upload),
            peer_download: changed("peer_download_rate").then_some(limits.rates.peer_download),
            streams: changed("streams").then_some(limits.streams_max),
            uploads: changed("uploads").then_some(limits.uploads_max),
        };
        self.read = settings;
        let limits = (!live.is_empty()).then_some(command);
        Ok(Change { live, at_restart, limits })
    }
}

fn read(places: &Places, environment: Environment<'_>) -> Result<Settings, ConfigError> {
    let found = places.read(environment)?;
    found.unknown.messages().for_each(|message| log::warn!("{message}"));
    Ok(found.settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use std::fs;

    const NOTHING: Command = Command::Limit {
        upload: None,
        download: None,
        peer_upload: None,
        peer_download: None,
        streams: None,
        uploads: None,
    };

    fn begun(content: &str) -> (Scratch, Reload) {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("elver.toml"), content).unwrap();
        let flags = Settings { uploads: Some(5), ..Settings::default() };
        let places = Places { dir: scratch.path().to_owned(), flags, file: None };
        let (reload, config) = Reload::begin(places, &|_| None).unwrap();
        assert_eq!(config.limits.uploads_max, 5);
        (scratch, reload)
    }

    fn changed(scratch: &Scratch, reload: &mut Reload, content: &str) -> Change {
        fs::write(scratch.path().join("elver.toml"), content).unwrap();
        reload.change(&|_| None).unwrap()
    }

    #[test]
    fn limits_change_at_once_and_only_those_that_changed_in_the_file() {
        let (scratch, mut reload) = begun("upload_rate = '1MiB'\nstreams = 64");
        let change = changed(&scratch, &mut reload, "upload_rate = '2MiB'\nstreams = 64\nuploads = 9");
        let Command::Limit { download, peer_upload, peer_download, streams, uploads, .. } = NOTHING else {
            panic!("a limit")
        };
        let limits = Command::Limit {
            upload: Some(2 << 20),
            download,
            peer_upload,
            peer_download,
            streams,
            uploads, // the flag overrides the file
        };
        let live = vec!["upload_rate".to_owned()];
        assert_eq!(change, Change { live, at_restart: vec![], limits: Some(limits) });
        let same = reload.change(&|_| None).unwrap();
        assert_eq!(same, Change { live: vec![], at_restart: vec![], limits: None });
        // A setting that is gone has its default again.
        let change = changed(&scratch, &mut reload, "streams = 64");
        assert!(
            matches!(change.limits, Some(Command::Limit { upload: Some(0), streams: None, .. })),
            "{change:?}"
        );
    }

    #[test]
    fn what_needs_a_restart_is_named_until_there_is_one() {
        let (scratch, mut reload) = begun("quota = '1GiB'");
        for _ in 0..2 {
            let change = changed(&scratch, &mut reload, "quota = '2GiB'\n[gossip]\ninterval = 3");
            assert_eq!(change.at_restart, ["quota", "gossip.interval"]);
            assert_eq!(change.limits, None);
        }
        assert_eq!(changed(&scratch, &mut reload, "quota = '1GiB'").at_restart, Vec::<String>::new());
    }

    #[test]
    fn a_wrong_configuration_changes_nothing() {
        let (scratch, mut reload) = begun("upload_rate = '1MiB'");
        for wrong in ["upload_rate = 'fast'", "upload_rate = '2MiB'\n[gossip]\ninterval = 0", "["] {
            fs::write(scratch.path().join("elver.toml"), wrong).unwrap();
            assert!(reload.change(&|_| None).is_err(), "{wrong}");
            assert_eq!(reload.again(&|_| None), None);
        }
        let change = changed(&scratch, &mut reload, "upload_rate = '2MiB'");
        assert_eq!(change.live, ["upload_rate"]);
    }
}

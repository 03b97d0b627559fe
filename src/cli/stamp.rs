//! What stands before a line of the node's log: its level for the journal, which knows the time, and the time elsewhere.

use crate::config::Environment;
use log::Level;
use rustix::fs::fstat;
use std::os::fd::AsFd;
use std::time::SystemTime;

/// What stands before each line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stamp {
    /// Nothing: the line of a command that a user waits for.
    Nothing,
    /// The level as sd-daemon(3) writes it: `<6>`.
    Level,
    /// The time, in UTC.
    Time,
}

impl Stamp {
    /// The stamp of a node whose log goes to this file.
    pub(super) fn of_node(environment: Environment<'_>, log: impl AsFd) -> Self {
        // The journal says which file leads to it, since the file may have been replaced (systemd.exec(5)).
        let file = fstat(log).ok().map(|file| format!("{}:{}", file.st_dev, file.st_ino));
        let journal = environment("JOURNAL_STREAM").and_then(|name| name.into_string().ok());
        match journal.is_some() && journal == file {
            true => Stamp::Level,
            false => Stamp::Time,
        }
    }

    /// The text before a line of this level.
    pub(super) fn before(self, level: Level) -> String {
        match (self, level) {
            (Stamp::Nothing, _) => String::new(),
            (Stamp::Level, Level::Error) => "<3>".to_owned(),
            (Stamp::Level, Level::Warn) => "<4>".to_owned(),
            (Stamp::Level, Level::Info) => "<6>".to_owned(),
            (Stamp::Level, Level::Debug | Level::Trace) => "<7>".to_owned(),
            (Stamp::Time, _) => {
                format!("{} ", humantime::format_rfc3339_seconds(SystemTime::now()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_journal_gets_levels_and_every_other_file_times() {
        let (journal, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let metadata = journal.metadata().unwrap();
        let stream = OsString::from(format!("{}:{}", metadata.dev(), metadata.ino()));
        let environment = |name: &str| (name == "JOURNAL_STREAM").then(|| stream.clone());
        assert_eq!(Stamp::of_node(&environment, &journal), Stamp::Level);
        assert_eq!(Stamp::of_node(&environment, &other), Stamp::Time);
        assert_eq!(Stamp::of_node(&|_| None, &journal), Stamp::Time);
        assert_eq!(Stamp::Level.before(Level::Info), "<6>");
        assert_eq!(Stamp::Nothing.before(Level::Info), "");
        let time = Stamp::Time.before(Level::Error);
        assert!(humantime::parse_rfc3339(time.trim_end()).is_ok() && time.ends_with(' '), "{time:?}");
    }
}

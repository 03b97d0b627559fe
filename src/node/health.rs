//! The health of the disk that holds the node's directory, and since when it has been so.
//!
//! There are two kinds of evidence: errors of operations on the node's own files, and the driver's regular checks of the directory,
//! which include a small trial write while something is wrong. An error makes the disk unwell at once; only a check in which
//! everything works makes it well again. Each change is logged once.

use super::command::{DiskHealth, DiskStatus};
use crate::io::{DiskError, DiskErrorKind, DiskLook};
use crate::time::{Duration, Instant};

/// A full disk is well again when this many bytes are free: less would be used up by the next piece.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// The same for inodes.
const FREE_INODES_MIN: u64 = 64;
/// With fewer free bytes than this the disk is full, even before an operation fails.
const FREE_BYTES_NONE: u64 = 64 << 10;
/// The same for inodes.
const FREE_INODES_NONE: u64 = 4;
/// The time between two checks while the disk is well.
const LOOK: Duration = Duration::from_secs(10);
/// The time between two checks while it is not.
const LOOK_UNWELL: Duration = Duration::from_secs(2);

/// The health of the node's disk.
pub(super) struct Health {
    health: DiskHealth,
    since: Instant,
    /// The evidence, for messages.
    message: String,
    /// Operations on files that failed and that no command waited for.
    pub(super) errors: u64,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Health { health: DiskHealth::Well, since: now, message: String::new(), errors: 0 }
    }

    /// Whether the disk can take new content.
    pub(super) fn is_well(&self) -> bool {
        self.health == DiskHealth::Well
    }

    pub(super) fn health(&self) -> DiskHealth {
        self.health
    }

    pub(super) fn status(&self, now: Instant) -> DiskStatus {
        let seconds = now.since(self.since).as_secs();
        DiskStatus { health: self.health, seconds, message: self.message.clone() }
    }

    /// The time until the driver's next check.
    pub(super) fn look_interval(&self) -> Duration {
        if self.is_well() { LOOK } else { LOOK_UNWELL }
    }

    /// An operation on a file of the node's own failed, and no command waits for it.
    pub(super) fn own_file_failed(&mut self, now: Instant, error: &DiskError) {
        // A failing disk fails often: the first failure is a warning, later ones are for debugging.
        let level = if self.is_well() { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "{error}");
        self.errors += 1;
        self.note_error(now, error);
    }

    /// An operation on a file of the node's own failed.
    pub(super) fn note_error(&mut self, now: Instant, error: &DiskError) {
        let Some(health) = health_of(error.kind) else { return };
        // Only a worse finding replaces the present one. The next check shows the current state.
        if health > self.health {
            self.become_unwell(now, health, &error.message);
        }
    }

    /// The result of a check by the driver.
    pub(super) fn note_look(&mut self, now: Instant, look: Result<DiskLook, DiskError>) {
        match look {
            Err(error) => {
                let health = health_of(error.kind).unwrap_or(DiskHealth::Failing);
                if health != self.health {
                    self.become_unwell(now, health, &error.message);
                }
            }
            Ok(look) if look.free_bytes < FREE_BYTES_NONE || look.free_inodes < FREE_INODES_NONE => {
                if self.health != DiskHealth::Full {
                    self.become_unwell(
                        now,
                        DiskHealth::Full,
                        "no room is left on the file system of its directory",
                    );
                }
            }
            Ok(look) => {
                let room = look.free_bytes >= FREE_BYTES_MIN && look.free_inodes >= FREE_INODES_MIN;
                let over = look.tried && (self.health != DiskHealth::Full || room);
                if !self.is_well() && over {
                    let seconds = now.since(self.since).as_secs();
                    log::warn!(
                        "the disk is well again, after {seconds} s in which it was {}",
                        self.health.name()
                    );
                    *self = Health { errors: self.errors, ..Health::new(now) };
                }
            }
        }
    }

    fn become_unwell(&mut self, now: Instant, health: DiskHealth, message: &str) {
        log::warn!(
            "the disk is {}: {message}; the node takes nothing new until it is well again",
            health.name()
        );
        (self.health, self.message) = (health, message.to_owned());
        self.since = now;
    }
}

/// What an error says about the disk as a whole.
fn health_of(kind: DiskErrorKind) -> Option<DiskHealth> {
    match kind {
        DiskErrorKind::NoSpace => Some(DiskHealth::Full),
        DiskErrorKind::Denied => Some(DiskHealth::ReadOnly),
        DiskErrorKind::Failed => Some(DiskHealth::Failing),
        DiskErrorKind::Gone => Some(DiskHealth::Gone),
        DiskErrorKind::NotFound
        | DiskErrorKind::Changed
        | DiskErrorKind::Unsuitable
        | DiskErrorKind::Busy
        | DiskErrorKind::Locked
        | DiskErrorKind::Exists
        | DiskErrorKind::Lost => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn error(kind: DiskErrorKind) -> DiskError {
        DiskError { kind, message: format!("cannot write /d/x: {kind:?}") }
    }

    fn look(tried: bool, free_bytes: u64) -> Result<DiskLook, DiskError> {
        Ok(DiskLook { tried, free_bytes, free_inodes: u64::MAX })
    }

    #[test]
    fn an_error_makes_the_disk_unwell_at_once_and_only_a_check_makes_it_well() {
        let mut health = Health::new(at(0));
        assert_eq!(health.look_interval(), LOOK);
        health.note_error(at(10), &error(DiskErrorKind::Failed));
        assert_eq!(health.look_interval(), LOOK_UNWELL);
        health.note_look(at(12), look(false, u64::MAX));
        let status = health.status(at(15));
        assert_eq!(status.health, DiskHealth::Failing);
        assert_eq!(status.seconds, 5);
        assert!(status.message.contains("/d/x"));
        health.note_look(at(20), look(true, u64::MAX));
        let status = health.status(at(21));
        assert_eq!(status.health, DiskHealth::Well);
        assert_eq!(status.seconds, 1);
        assert_eq!(status.message.as_str(), "");
    }

    #[test]
    fn a_full_disk_is_well_again_when_there_is_room_for_more_than_a_trial() {
        let mut health = Health::new(at(0));
        health.note_error(at(1), &error(DiskErrorKind::NoSpace));
        health.note_look(at(2), look(true, FREE_BYTES_MIN - 1));
        assert_eq!(health.health(), DiskHealth::Full);
        health.note_look(at(3), look(true, FREE_BYTES_MIN));
        assert!(health.is_well());
        health.note_look(at(4), look(false, 0));
        assert_eq!(health.health(), DiskHealth::Full);
    }

    #[test]
    fn the_worst_error_counts_until_the_next_check() {
        let mut health = Health::new(at(0));
        for (kind, expected) in [
            (DiskErrorKind::NoSpace, DiskHealth::Full),
            (DiskErrorKind::Denied, DiskHealth::ReadOnly),
            (DiskErrorKind::NoSpace, DiskHealth::ReadOnly),
            (DiskErrorKind::Gone, DiskHealth::Gone),
            (DiskErrorKind::Failed, DiskHealth::Gone),
        ] {
            health.note_error(at(1), &error(kind));
            assert_eq!(health.health(), expected);
        }
        health.note_look(at(9), Err(error(DiskErrorKind::NoSpace)));
        assert_eq!(health.health(), DiskHealth::Full);
        assert_eq!(health.status(at(10)).seconds, 1);
    }

    #[test]
    fn errors_of_one_file_or_one_moment_do_not_make_the_disk_unwell() {
        let mut health = Health::new(at(0));
        for kind in
            [DiskErrorKind::NotFound, DiskErrorKind::Changed, DiskErrorKind::Unsuitable, DiskErrorKind::Busy]
        {
            health.note_error(at(1), &error(kind));
        }
        assert!(health.is_well());
    }
}

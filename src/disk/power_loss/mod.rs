//! Power cuts: recovery must give every acknowledged piece, share and promise, and nothing that was never written.
//!
//! A seeded random run drives the real [`Disk`](super::Disk) through what the core asks of it, and `record` notes every
//! change of its files. Power may go between any two changes. For each such crash point the check builds directories that
//! the medium could hold then (`medium` has the rules), runs the real recovery on each, and compares what it finds with
//! what had been acknowledged by then (`expected`). Recovery is itself recorded and cut, killed, and made to fail. Then
//! the run goes on from one of the directories.
//!
//! What is checked, of each directory:
//!
//! - every acknowledged piece, share and record is there, as it was acknowledged and with its content;
//! - no piece or share is there that never was whole;
//! - the secret stays, and starts are counted upward;
//! - a second recovery finds what the first did.
//!
//! And of each operation that met a full disk or a failed sync: it was answered with that error. What happens beside the
//! operations, such as writing the log of shares anew, has no operation to answer; its faults must only lose nothing.
//!
//! Not modelled: a medium that loses or alters what it said was synced; a page cache that gives other bytes than were
//! written after a failed sync, while power stays on; a process that starts again after a directory could not be synced,
//! while power stays on (real file systems refuse all further changes then); attributes other than length and time of
//! modification.

mod check;
mod drive;
mod expected;
mod medium;
pub(super) mod record;
mod scratch;
#[cfg(test)]
mod tests;

use crate::rng::Rng;
use check::Check;
use core::fmt;
use medium::Honesty;
use scratch::Scratch;
use std::path::Path;

/// What was tried, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Operations recorded.
    pub operations: u64,
    /// Points between two of them at which power went.
    pub crash_points: u64,
    /// Directories that recovery was run on.
    pub states: u64,
    /// Those of them that a recovery left which was cut itself.
    pub cut_recoveries: u64,
    /// Errors that operations and recoveries were made to meet.
    pub faults: u64,
    /// Recovered pieces whose content was compared.
    pub pieces: u64,
    /// Recovered shares whose content was compared.
    pub shares: u64,
}

/// A promise that did not hold, and how to see it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Power cuts that the run had gone through before.
    pub generation: u64,
    /// The number of recorded operations after which power went.
    pub crash_point: usize,
    /// The last of these operations, and the manner in which power went.
    pub after: String,
    /// The promise, and what was found instead.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, generation, crash_point, after, what } = self;
        write!(f, "seed {seed}, run {generation}, crash point {crash_point} ({after}): {what}")
    }
}

impl std::error::Error for Failure {}

/// Runs the store for about `operations` operations in a directory of its own under `dir`, and cuts the power at up to
/// `crash_points_max` points. A file system in memory makes it fast: `/dev/shm`. The same arguments give the same run.
pub fn run(seed: u64, operations: usize, crash_points_max: usize, dir: &Path) -> Result<Report, Failure> {
    run_on(Honesty { data: true, names: true }, seed, operations, crash_points_max, dir)
}

fn run_on(
    honesty: Honesty,
    seed: u64,
    operations: usize,
    crash_points_max: usize,
    dir: &Path,
) -> Result<Report, Failure> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let scratch = Scratch::new(dir).map_err(|error| Failure {
        seed,
        generation: 0,
        crash_point: 0,
        after: "the start".to_owned(),
        what: format!("cannot use {}: {error}", dir.display()),
    })?;
    Check::new(seed, Rng::new(key), scratch).play(honesty, operations, crash_points_max)
}

//! Power cuts: recovery must find every acknowledged piece, share and promise, and nothing that was never written.
//!
//! A seeded random run drives the real [`Disk`](super::Disk) with the core's operations, and `record` notes every
//! change of its files. The power may fail between any two changes. For each such crash point the check builds
//! directories that the medium could hold then (`medium` has the rules), runs the real recovery on each, and compares
//! the result with what had been acknowledged by then (`expected`). Recovery is itself recorded and cut, killed, and
//! made to fail. Then the run continues from one of the directories.
//!
//! What is checked, of each directory:
//!
//! - every acknowledged piece, share and record is there, as it was acknowledged and with its content;
//! - no piece or share is there that never was whole;
//! - the secret stays, and starts are counted upward;
//! - a second recovery finds what the first did.
//!
//! Each operation that meets a full disk or a failed sync must be answered with that error. Background work, such as
//! rewriting the log of shares, has no operation to answer; its faults must only lose nothing.
//!
//! Not modelled:
//!
//! - a medium that loses or alters data after it confirmed the sync;
//! - a page cache that returns other bytes than were written, after a failed sync and while the power stays on;
//! - a process that starts again after a failed directory sync, while the power stays on (real file systems then
//!   refuse all further changes);
//! - attributes other than length and time of modification.

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

/// The numbers of things that a check tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Operations recorded.
    pub operations: u64,
    /// Crash points: points between two operations at which the power failed.
    pub crash_points: u64,
    /// Directories on which recovery ran.
    pub states: u64,
    /// Those of them that a cut recovery left.
    pub cut_recoveries: u64,
    /// Faults injected into operations and recoveries.
    pub faults: u64,
    /// Recovered pieces whose content was compared.
    pub pieces: u64,
    /// Recovered shares whose content was compared.
    pub shares: u64,
}

/// A broken promise, and how to reproduce it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The number of power cuts that the run had survived before.
    pub generation: u64,
    /// The number of recorded operations before the power failed.
    pub crash_point: usize,
    /// The last of these operations, and the manner of the power cut.
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

/// Runs the store for about `operations` operations in a new directory under `dir`, and cuts the power at up to
/// `crash_points_max` points. A file system in memory, such as `/dev/shm`, makes it fast. The same arguments give the
/// same run.
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

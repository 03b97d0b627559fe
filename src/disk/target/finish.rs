//! Finishes a download: the target gets its final name when its content is what was verified.
//!
//! The order makes it safe. The node stops writing. It hashes the content again if another program may have written into the file.
//! It renames the file, and then checks its metadata once more. A change during the rename shows in that check: then the node
//! hashes the content again, and takes the name back if it is wrong.

use super::watch::Disturbance;
use super::{Target, Targets, name};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskReply, Place};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest wait until a further change would get another time of change.
const SETTLE: Duration = Duration::from_millis(100);
/// The number of times that a renamed file is hashed while another program keeps changing it.
const LOOKS_MAX: u32 = 3;

/// The task that gives a target its final name.
pub(in crate::disk) struct Finish {
    place: Place,
    target: Arc<Target>,
    stage: Stage,
    /// Whether the file is complete and keeps its name.
    complete: bool,
}

enum Stage {
    /// The file is suspect: its content is hashed.
    Checking(Pass),
    /// The content is right.
    Right,
    /// The file has its name, but may have been changed during the rename: its content is hashed. The number of attempts left.
    Named(Pass, u32),
}

/// One hashing of the whole file.
struct Pass {
    check: Check,
    /// The end of the wait until a further change would get another time of change: within the same tick it would not show.
    settles_until: Instant,
    /// Whether a change during the check shows in the time of change; `None` before the check.
    telling: Option<bool>,
}

impl Pass {
    fn new(target: &Target) -> Self {
        let (file, manifest) = (Arc::clone(&target.file), Arc::clone(&target.manifest));
        let check = Check::new(file, target.path.clone(), manifest, Holes::Zeros);
        Pass { check, settles_until: Instant::now() + SETTLE, telling: None }
    }

    /// For each chunk, whether it is good; and whether no other program wrote during the check. `None` when there is more to hash.
    fn advance(
        &mut self,
        target: &Target,
        slice: &mut Slice<'_>,
    ) -> Result<Option<(Vec<bool>, bool)>, DiskError> {
        if self.telling.is_none() {
            let settled = target.is_settled();
            if settled == Some(false) && Instant::now() < self.settles_until {
                slice.waits = true;
                return Ok(None);
            }
            self.telling = Some(settled == Some(true));
        }
        let Step::Done(good) = self.check.advance(slice)? else { return Ok(None) };
        let quiet = match target.take_changes()? {
            Disturbance::None => true,
            // A program that only reads the file does not disturb.
            Disturbance::Opened => self.telling == Some(true),
            Disturbance::Written => false,
        };
        Ok(Some((good, quiet)))
    }
}

impl Finish {
    /// Begins. The node writes no more into the file, unless chunks turn out to be spoiled.
    pub(in crate::disk) fn begin(place: Place, target: Arc<Target>) -> Result<Self, DiskError> {
        target.date()?;
        target.freeze(true);
        let stage = match target.take_suspicion()? {
            true => Stage::Checking(Pass::new(&target)),
            false => Stage::Right,
        };
        Ok(Finish { place, target, stage, complete: false })
    }

    /// Renames the file. Returns the answer, unless the file may have been changed during the rename.
    fn give_name(&mut self) -> Result<Option<DiskReply>, DiskError> {
        name::give(&self.target)?;
        match self.target.was_changed_with_name()? {
            true => {
                self.stage = Stage::Named(Pass::new(&self.target), LOOKS_MAX);
                Ok(None)
            }
            false => self.finished().map(Some),
        }
    }

    fn finished(&mut self) -> Result<DiskReply, DiskError> {
        let reply = name::finished(&self.target)?;
        self.complete = true;
        Ok(reply)
    }

    /// Reports the spoiled chunks, and lets the download write again.
    fn spoiled(&self, good: Vec<bool>) -> DiskReply {
        self.target.checked();
        self.target.freeze(false);
        DiskReply::Spoiled { good }
    }
}

impl Task for Finish {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        match &mut self.stage {
            Stage::Right => self.give_name(),
            Stage::Checking(pass) => {
                let Some((good, quiet)) = pass.advance(&self.target, slice)? else { return Ok(None) };
                match quiet && good.iter().all(|good| *good) {
                    true => self.give_name(),
                    false => Ok(Some(self.spoiled(good))),
                }
            }
            Stage::Named(pass, left) => {
                let Some((good, quiet)) = pass.advance(&self.target, slice)? else { return Ok(None) };
                let right = good.iter().all(|good| *good);
                if right && quiet {
                    return self.finished().map(Some);
                }
                *left -= 1;
                if right && *left > 0 {
                    *pass = Pass::new(&self.target);
                    return Ok(None);
                }
                name::take_back(&self.target)?;
                Ok(Some(self.spoiled(good)))
            }
        }
    }

    fn is_about(&self, place: &Place) -> bool {
        self.place == *place
    }

    fn keep(&mut self, targets: &mut Targets) -> Result<(), DiskError> {
        if self.complete {
            targets.finished(&self.place);
        }
        Ok(())
    }
}

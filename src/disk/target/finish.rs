//! Finishing a download: its file gets the final name when the content is what was verified.
//!
//! The order is what makes it safe. The node stops writing; the content is hashed again when another program may have written
//! into the file; the name is given; then it is looked once more. A change that came exactly with the name shows in that last
//! look: the content is hashed again, and when it is wrong the name is taken back.

use super::watch::Disturbance;
use super::{Target, Targets, name};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskReply, Place};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest wait for the time of the last change to pass.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a file that has its name is hashed while another program goes on changing it.
const LOOKS_MAX: u32 = 3;

/// Gives a file its final name.
pub(in crate::disk) struct Finish {
    place: Place,
    target: Arc<Target>,
    stage: Stage,
    /// It is complete and keeps its name.
    complete: bool,
}

enum Stage {
    /// Another program may have written into it: its content is hashed.
    Checking(Pass),
    /// Its content is right.
    Right,
    /// It has its name, and was changed with that: its content is hashed, for so many more times at most.
    Named(Pass, u32),
}

/// One hashing of the whole file.
struct Pass {
    check: Check,
    /// Until then at most the check waits for the time of the last change to pass: another change within the same tick would
    /// not show.
    settles_until: Instant,
    /// Whether a change during the check shows in the time of the last change; `None` before it has begun.
    telling: Option<bool>,
}

impl Pass {
    fn new(target: &Target) -> Self {
        let (file, manifest) = (Arc::clone(&target.file), Arc::clone(&target.manifest));
        let check = Check::new(file, target.path.clone(), manifest, Holes::Zeros);
        Pass { check, settles_until: Instant::now() + SETTLE, telling: None }
    }

    /// Which chunks are good, and whether they were all the time; `None` when it takes longer.
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
            // A program that only reads may open it as often as it likes.
            Disturbance::Opened => self.telling == Some(true),
            Disturbance::Written => false,
        };
        Ok(Some((good, quiet)))
    }
}

impl Finish {
    /// Begins. Nothing is written into the file any more, unless chunks turn out to be spoiled.
    pub(in crate::disk) fn begin(place: Place, target: Arc<Target>) -> Result<Self, DiskError> {
        target.freeze(true);
        let stage = match target.take_suspicion()? {
            true => Stage::Checking(Pass::new(&target)),
            false => Stage::Right,
        };
        Ok(Finish { place, target, stage, complete: false })
    }

    /// Gives the name. The answer, unless the file was changed meanwhile.
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

    /// The file is filled again where it is wrong.
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

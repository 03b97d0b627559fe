//! Finishing a download: its file gets the final name when the content is what was verified.

use super::{Target, Targets, name};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskReply, Mode, Place};
use std::sync::Arc;

/// Gives a file its final name, after every byte has been hashed again if another program may have written into it.
pub(in crate::disk) struct Finish {
    place: Place,
    mode: Mode,
    target: Arc<Target>,
    check: Option<Check>,
    named: bool,
}

impl Finish {
    /// Begins. Nothing is written into the file any more, unless chunks turn out to be spoiled.
    pub(in crate::disk) fn begin(place: Place, mode: Mode, target: Arc<Target>) -> Result<Self, DiskError> {
        target.freeze(true);
        let check = target.take_suspicion()?.then(|| {
            let (file, manifest) = (Arc::clone(&target.file), Arc::clone(&target.manifest));
            Check::new(file, target.path.clone(), manifest, Holes::Zeros)
        });
        Ok(Finish { place, mode, target, check, named: false })
    }
}

impl Task for Finish {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if let Some(check) = &mut self.check {
            let Step::Done(good) = check.advance(slice)? else { return Ok(None) };
            if !(self.target.is_quiet()? && good.iter().all(|good| *good)) {
                self.target.checked();
                self.target.freeze(false);
                return Ok(Some(DiskReply::Spoiled { good }));
            }
        }
        let reply = name::give(&self.target, self.mode)?;
        self.named = true;
        Ok(Some(reply))
    }

    fn is_about(&self, place: &Place) -> bool {
        self.place == *place
    }

    fn keep(&mut self, targets: &mut Targets) -> Result<(), DiskError> {
        if self.named {
            targets.finished(&self.place);
        }
        Ok(())
    }
}

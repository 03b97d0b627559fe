//! Finishing a download: its file gets the final name when the content is what was verified.

use super::{Target, Targets, name};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskReply, Mode, Place};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest wait for the time of the last change to pass.
const SETTLE: Duration = Duration::from_millis(100);

/// Gives a file its final name, after every byte has been hashed again if another program may have written into it.
pub(in crate::disk) struct Finish {
    place: Place,
    mode: Mode,
    target: Arc<Target>,
    check: Option<Check>,
    /// Until then at most the check waits for the time of the last change to pass: a change within the same tick would not
    /// show. Of a file that is watched it does.
    settles_until: Option<Instant>,
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
        let settles_until = target.watched.is_none().then(|| Instant::now() + SETTLE);
        Ok(Finish { place, mode, target, check, settles_until, named: false })
    }
}

impl Task for Finish {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if let Some(check) = &mut self.check {
            if self.settles_until.is_some_and(|until| Instant::now() < until) && self.target.is_fresh() {
                return Ok(None);
            }
            self.settles_until = None;
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

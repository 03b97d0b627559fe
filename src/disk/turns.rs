//! The turns of tasks: each reads a slice, then the next has its turn. Files that a task has hashed are synced in groups.
//!
//! Idle tasks run one after the other, and only when the loop has little else to do.

use super::kept::Kept;
use super::settling::Settling;
use super::target::Targets;
use super::tasks::{Slice, Task};
use crate::io::{DiskDone, DiskId, Place};
use std::collections::VecDeque;

/// The most bytes that a task reads before the next task has its turn.
const SLICE_BYTES: usize = 256 << 10;

/// The tasks that are running.
pub(super) struct Turns {
    running: VecDeque<(DiskId, Box<dyn Task>)>,
    idle: VecDeque<(DiskId, Box<dyn Task>)>,
    /// The number of running tasks that hash a file.
    hashing: usize,
    settling: Settling,
    /// Allocated when it is first needed.
    buffer: Vec<u8>,
}

/// What came of a slice of a task.
struct Stepped {
    read: u64,
    /// Whether the task waits for the medium.
    waits: bool,
    goes_on: bool,
}

impl Turns {
    /// No task is running.
    pub(super) fn new() -> Self {
        let (running, idle) = (VecDeque::new(), VecDeque::new());
        Turns { running, idle, hashing: 0, settling: Settling::new(), buffer: Vec::new() }
    }

    // Getters.

    /// Whether a task is running.
    pub(super) fn has_tasks(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether a task is running, or a hashed file waits to be synced.
    pub(super) fn has_work(&self) -> bool {
        self.has_tasks() || !self.settling.is_empty()
    }

    /// Whether an idle task is there.
    pub(super) fn has_idle_work(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The number of files that may be open to be hashed or synced.
    pub(super) fn open_max(&self) -> usize {
        self.settling.most()
    }

    /// Whether another file may be opened to be hashed.
    pub(super) fn has_room(&self) -> bool {
        self.settling.has_room(self.hashing)
    }

    /// The number of files that are open to be hashed or synced.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.settling.len() + self.hashing
    }

    // Tasks.

    /// Adds a task.
    pub(super) fn push(&mut self, id: DiskId, task: Box<dyn Task>) {
        self.hashing += usize::from(task.unsettled().is_some());
        self.running.push_back((id, task));
    }

    /// Adds an idle task.
    pub(super) fn push_idle(&mut self, id: DiskId, task: Box<dyn Task>) {
        self.idle.push_back((id, task));
    }

    /// Drops everything but the idle tasks.
    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.settling.clear();
        self.hashing = 0;
    }

    /// Drops the idle tasks.
    pub(super) fn clear_idle(&mut self) {
        self.idle.clear();
    }

    /// Drops the tasks on the target of a download, and returns their operations.
    pub(super) fn give_up(&mut self, place: &Place) -> impl Iterator<Item = DiskId> {
        let tasks = core::mem::take(&mut self.running).into_iter();
        let (over, others): (Vec<_>, Vec<_>) = tasks.partition(|(_, task)| task.is_about(place));
        self.running = others.into();
        over.into_iter().map(|(id, _)| id)
    }

    /// A buffer of one slice, for whatever reads between two turns.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.buffer.resize(SLICE_BYTES, 0);
        &mut self.buffer
    }

    // Turns.

    /// Gives the tasks a slice each in turn until `left` bytes are used up.
    pub(super) fn run(&mut self, mut left: u64, targets: &mut Targets, done: &mut VecDeque<DiskDone>) {
        while left > 0 {
            let Some((id, mut task)) = self.running.pop_front() else { return };
            let most = left.min(SLICE_BYTES as u64) as usize;
            let stepped = self.step(&mut task, most, id, targets, done);
            left = left.saturating_sub(if stepped.waits { SLICE_BYTES as u64 } else { stepped.read.max(1) });
            match stepped.goes_on {
                true => self.running.push_back((id, task)),
                false => self.hashing -= usize::from(task.unsettled().is_some()),
            }
        }
    }

    /// Runs a slice of the first idle task. Returns whether the medium has not answered yet, and whether the task goes on; `None`
    /// without an idle task.
    pub(super) fn run_idle(
        &mut self,
        targets: &mut Targets,
        done: &mut VecDeque<DiskDone>,
    ) -> Option<(bool, bool)> {
        let (id, mut task) = self.idle.pop_front()?;
        let Stepped { waits, goes_on, .. } = self.step(&mut task, SLICE_BYTES, id, targets, done);
        if goes_on {
            self.idle.push_front((id, task));
        }
        Some((waits, goes_on))
    }

    /// Syncs the hashed files, unless they wait for others to join. `unopened` files will be hashed soon.
    pub(super) fn settle(&mut self, unopened: usize, kept: &mut Kept, done: &mut VecDeque<DiskDone>) {
        self.settling.flush(self.hashing + unopened, kept, done);
    }

    /// Runs a step of a task, which reads at most `most` bytes.
    fn step(
        &mut self,
        task: &mut Box<dyn Task>,
        most: usize,
        id: DiskId,
        targets: &mut Targets,
        done: &mut VecDeque<DiskDone>,
    ) -> Stepped {
        let buffer = &mut self.buffer()[..most];
        let mut slice = Slice { buffer, read: 0, progress: None, waits: false };
        let result = task.step(&mut slice).transpose();
        let stepped = Stepped { read: slice.read as u64, waits: slice.waits, goes_on: result.is_none() };
        let progress = slice.progress.map(Ok);
        done.extend(progress.map(|result| DiskDone { id, result }));
        let result = result.map(|result| {
            let reply = result?;
            task.keep(targets).map(|()| reply)
        });
        match (result, task.unsettled()) {
            (None, _) => {}
            (Some(Ok(reply)), Some(source)) => self.settling.push(id, source, reply),
            (Some(result), _) => done.push_back(DiskDone { id, result }),
        }
        stepped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{DiskError, DiskReply};

    /// A task that reads this many bytes.
    struct Reads(usize);

    impl Task for Reads {
        fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
            slice.read = self.0.min(slice.buffer.len());
            self.0 -= slice.read;
            Ok((self.0 == 0).then_some(DiskReply::Done))
        }

        fn is_about(&self, place: &Place) -> bool {
            *place == Place::Incoming(self.0 as u64)
        }
    }

    /// The operations that a run of this many bytes ends, in order.
    fn ended(turns: &mut Turns, bytes: usize) -> Vec<u64> {
        let mut done = VecDeque::new();
        turns.run(bytes as u64, &mut Targets::default(), &mut done);
        done.iter().map(|done| done.id.0).collect()
    }

    #[test]
    fn a_long_task_does_not_hold_up_a_short_one() {
        let mut turns = Turns::new();
        turns.push(DiskId(1), Box::new(Reads(3 * SLICE_BYTES)));
        turns.push(DiskId(2), Box::new(Reads(SLICE_BYTES)));
        assert_eq!(ended(&mut turns, 2 * SLICE_BYTES), [2]);
        assert!(ended(&mut turns, SLICE_BYTES).is_empty());
        assert_eq!(ended(&mut turns, SLICE_BYTES), [1]);
        assert!(!turns.has_work());
    }

    #[test]
    fn an_idle_task_runs_only_when_it_is_asked_to() {
        let mut turns = Turns::new();
        turns.push_idle(DiskId(1), Box::new(Reads(2 * SLICE_BYTES)));
        assert!(ended(&mut turns, 9 * SLICE_BYTES).is_empty());
        let (mut targets, mut done) = (Targets::default(), VecDeque::new());
        assert_eq!(turns.run_idle(&mut targets, &mut done), Some((false, true)));
        assert_eq!(turns.run_idle(&mut targets, &mut done), Some((false, false)));
        assert_eq!(turns.run_idle(&mut targets, &mut done), None);
        assert_eq!(done.len(), 1);
    }

    #[test]
    fn a_target_that_is_closed_ends_the_tasks_about_it() {
        let mut turns = Turns::new();
        turns.push(DiskId(1), Box::new(Reads(10)));
        turns.push(DiskId(2), Box::new(Reads(20)));
        assert_eq!(turns.give_up(&Place::Incoming(10)).collect::<Vec<_>>(), [DiskId(1)]);
        assert_eq!(ended(&mut turns, SLICE_BYTES), [2]);
    }
}

//! One check: it records a run of the store, cuts the power at crash points of the run, and recovers each directory
//! that may be left.

use super::drive::{self, Drive};
use super::expected::{Change, Contents, Event, Expected};
use super::medium::{Honesty, Manner, Medium};
use super::record::{self, Fault, Operation};
use super::scratch::Scratch;
use super::{Failure, Report};
use crate::rng::Rng;
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Runs of the store in one check. Each later run starts from a directory that a power cut left of the run before it.
const GENERATIONS: u64 = 3;
/// Mixed states tried at a crash point, besides one state of every manner.
const MIXTURES: usize = 4;
/// One recovery in this many is itself cut.
const CUT_RECOVERY_EVERY: u64 = 24;
/// One recovery in this many meets a fault.
const FAULT_EVERY: u64 = 6;

/// The check's progress, for the report of a failure.
#[derive(Clone, Default)]
struct Place {
    seed: u64,
    generation: u64,
    crash_point: usize,
    after: String,
}

pub(super) struct Check {
    rng: Rng,
    scratch: Scratch,
    contents: Contents,
    report: Report,
    /// The number of times that the machine has started.
    machine_boots: u64,
    /// The states of this generation that the check has tried.
    tried: BTreeSet<(u64, usize)>,
    at: Place,
}

/// A run of the store: the medium before it, its operations, and the events from which the expectation follows.
struct Recording {
    base: Medium,
    operations: Vec<Operation>,
    events: Vec<(usize, Event)>,
}

impl Check {
    pub(super) fn new(seed: u64, rng: Rng, scratch: Scratch) -> Self {
        Check {
            rng,
            scratch,
            contents: Contents::new(),
            report: Report::default(),
            machine_boots: 0,
            tried: BTreeSet::new(),
            at: Place { seed, ..Place::default() },
        }
    }

    /// Runs the store for about `operations` operations and cuts the power at up to `crash_points_max` points.
    pub(super) fn play(
        mut self,
        honesty: Honesty,
        operations: usize,
        crash_points_max: usize,
    ) -> Result<Report, Failure> {
        record::reset_clock();
        let result = self.run(honesty, operations, crash_points_max);
        let _ = record::end();
        record::set_machine_boot(None);
        match result {
            Ok(()) => Ok(self.report),
            Err(what) => {
                let Place { seed, generation, crash_point, after } = self.at;
                Err(Failure { seed, generation, crash_point, after, what })
            }
        }
    }

    fn run(&mut self, honesty: Honesty, operations: usize, crash_points_max: usize) -> Result<(), String> {
        let (mut base, mut expected) = (Medium::new(honesty), Expected::new());
        for generation in 0..GENERATIONS {
            self.at = Place { generation, after: "the run itself".to_owned(), ..self.at };
            let steps = operations.div_ceil(GENERATIONS as usize);
            let recording = self.record(base, expected.clone(), steps)?;
            let most = crash_points_max.div_ceil(GENERATIONS as usize).max(1);
            (base, expected) = self.cut_everywhere(recording, expected, most)?;
        }
        Ok(())
    }

    fn start_machine(&mut self) {
        self.machine_boots += 1;
        self.set_machine_boot(self.machine_boots);
    }

    fn set_machine_boot(&self, number: u64) {
        let mut name = [0xff; 16];
        name[..8].copy_from_slice(&number.to_le_bytes());
        record::set_machine_boot(Some(name));
    }

    fn record(&mut self, base: Medium, expected: Expected, steps: usize) -> Result<Recording, String> {
        self.start_machine();
        self.scratch.show(&base).map_err(|error| error.to_string())?;
        record::begin(Some(&self.scratch.vault));
        let Check { rng, scratch, contents, report, .. } = self;
        let driven = caught(|| Drive::begin(&scratch.root, expected, contents, rng)?.run(steps));
        let operations = record::end();
        self.at.crash_point = operations.len();
        let (events, faults) = driven?;
        report.operations += operations.len() as u64;
        report.faults += faults;
        self.scratch.changed(&operations);
        Ok(Recording { base, operations, events })
    }

    /// Cuts the power at up to `most` points of a run. Returns one of the states that the cuts left, and what recovery
    /// must find in it.
    fn cut_everywhere(
        &mut self,
        recording: Recording,
        mut expected: Expected,
        most: usize,
    ) -> Result<(Medium, Expected), String> {
        let Recording { base: mut medium, operations, events } = recording;
        let machine_boot = self.machine_boots;
        let points = operations.len() + 1;
        let mut events = events.into_iter().peekable();
        let mut heard = 0;
        let mut left = most as u64;
        let mut kept = None;
        self.tried.clear();
        for point in 0..points {
            if let Some(operation) = point.checked_sub(1).map(|last| &operations[last]) {
                medium.apply(operation, &self.scratch.root);
            }
            while let Some((_, event)) = events.next_if(|(position, _)| *position <= point) {
                expected.apply(&event);
                heard += 1;
            }
            // A random choice that spreads at most `most` crash points evenly over the run.
            if self.rng.below((points - point) as u64) >= left {
                continue;
            }
            left -= 1;
            self.report.crash_points += 1;
            for manner in Manner::ALL.into_iter().chain([Manner::Mixed; MIXTURES]) {
                self.at.crash_point = point;
                self.at.after =
                    format!("{}, {manner:?}", described(point.checked_sub(1).map(|at| &operations[at])));
                let cut = medium.cut(manner, &mut self.rng);
                if self.tried.insert((cut.fingerprint(), heard)) {
                    self.try_state(&cut, &expected, machine_boot, manner == Manner::Everything)?;
                }
                if kept.is_none() || self.rng.below(1 + self.report.states) == 0 {
                    kept = Some((cut, expected.clone()));
                }
            }
        }
        Ok(kept.unwrap_or_else(|| (medium.cut(Manner::Everything, &mut self.rng), expected)))
    }

    /// Runs recovery on the state that a power cut left. If `everything` survived, the state may also be that of a
    /// process that ended while the power stayed on.
    fn try_state(
        &mut self,
        state: &Medium,
        expected: &Expected,
        machine_boot: u64,
        everything: bool,
    ) -> Result<(), String> {
        if everything && self.rng.below(2) == 0 {
            self.set_machine_boot(machine_boot);
        } else {
            self.start_machine();
        }
        let machine_boot = if everything { machine_boot } else { self.machine_boots };
        let (operations, result) = self.recover(state, expected);
        let result = result.and_then(|recovery| {
            let distrusted =
                |operation: &Operation| matches!(operation, Operation::Sync { succeeded: false, .. });
            if self.rng.below(CUT_RECOVERY_EVERY) == 0 && !operations.iter().any(distrusted) {
                self.cut_recovery(state, &operations[..recovery], expected, machine_boot)?;
            }
            Ok(())
        });
        self.scratch.forget(&operations).map_err(|error| error.to_string())?;
        result
    }

    /// Cuts the power after each operation of a recovery.
    fn cut_recovery(
        &mut self,
        state: &Medium,
        operations: &[Operation],
        expected: &Expected,
        machine_boot: u64,
    ) -> Result<(), String> {
        let mut medium = state.clone();
        let mut expected = expected.clone();
        expected.apply(&Event::Asked(Change::Clean(false)));
        for operation in operations {
            medium.apply(operation, &self.scratch.root);
            let manner = Manner::ALL[self.rng.below(Manner::ALL.len() as u64) as usize];
            let cut = medium.cut(manner, &mut self.rng);
            match manner {
                Manner::Everything => self.set_machine_boot(machine_boot),
                _ => self.start_machine(),
            }
            let after =
                format!("{}; recovery after {}, {manner:?}", self.at.after, described(Some(operation)));
            let outer = core::mem::replace(&mut self.at.after, after);
            let (made, result) = self.recover(&cut, &expected);
            self.scratch.forget(&made).map_err(|error| error.to_string())?;
            result?;
            self.report.cut_recoveries += 1;
            self.at.after = outer;
        }
        Ok(())
    }

    /// Recovers from a state and checks the result. Returns the operations of all recoveries, and the number of them
    /// that belong to the first successful recovery and the failed one before it.
    fn recover(&mut self, state: &Medium, expected: &Expected) -> (Vec<Operation>, Result<usize, String>) {
        if let Err(error) = self.scratch.show(state) {
            return (Vec::new(), Err(error.to_string()));
        }
        self.report.states += 1;
        record::begin(Some(&self.scratch.vault));
        let result = caught(|| self.recover_twice(expected));
        let operations = record::end();
        self.scratch.changed(&operations);
        (operations, result)
    }

    fn recover_twice(&mut self, expected: &Expected) -> Result<usize, String> {
        let mut expected = expected.clone();
        expected.apply(&Event::Asked(Change::Clean(false)));
        if self.rng.below(FAULT_EVERY) == 0 {
            self.fail_to_recover(&expected)?;
        }
        let (disk, found) = drive::open(&self.scratch.root)?;
        let seen = expected.check(&found, &disk, &self.contents)?;
        drop(disk);
        let first = record::position();
        self.report.pieces += seen.pieces;
        self.report.shares += seen.shares;
        if self.rng.below(2) == 0 {
            expected.apply(&Event::Opened(Box::new(found)));
            let (disk, found) = drive::open(&self.scratch.root)?;
            let again = expected.check(&found, &disk, &self.contents);
            let again = again.map_err(|what| format!("after a second recovery, {what}"))?;
            if again.pieces != seen.pieces {
                return Err("a second recovery found other pieces than the first".to_owned());
            }
        }
        Ok(first)
    }

    /// A recovery that is killed, or that meets a failing or full medium and continues.
    fn fail_to_recover(&mut self, expected: &Expected) -> Result<(), String> {
        let mut left = self.rng.below(24);
        let fault = match self.rng.below(3) {
            0 => Fault::Killed,
            1 => Fault::Fail(Errno::IO),
            _ => Fault::Full(self.rng.below(100) as usize),
        };
        let met = Rc::new(Cell::new(false));
        let noted = met.clone();
        record::plan(move |_| {
            left = left.saturating_sub(1);
            noted.set(noted.get() || left == 0);
            (left == 0).then_some(fault)
        });
        let opened = drive::open(&self.scratch.root);
        record::end_plan();
        self.report.faults += u64::from(met.get());
        match opened {
            // A start that continues on a failing medium must report the truth, too. A killed start reports nothing.
            Ok((disk, found)) if fault != Fault::Killed => {
                let seen = expected.check(&found, &disk, &self.contents);
                seen.map(|_| ()).map_err(|what| format!("in a start that met {fault:?}, {what}"))
            }
            _ => Ok(()),
        }
    }
}

/// Turns a panic into an error.
fn caught<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("of an unknown kind")))
    })
}

fn described(operation: Option<&Operation>) -> String {
    match operation {
        None => "nothing was done".to_owned(),
        Some(Operation::Write { file, offset, bytes, .. }) => {
            format!("a write of {} bytes at {offset} into file {file}", bytes.len())
        }
        Some(other) => format!("{other:?}"),
    }
}

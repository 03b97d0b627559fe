//! Makes a broken run smaller while it stays broken in the same way.

use super::case::Case;
use super::draw::{MINUTES_MIN, NODES_MIN};
use super::outcome::{Kind, Player};
use std::time::Duration;

/// The seeds that each step tries: the run's own, and the ones after it. A smaller network is another run, which may need another
/// seed to fail.
const SEEDS_PER_STEP: u64 = 3;

/// A broken run that was made smaller.
pub(crate) struct Shrunk {
    /// The smallest run found.
    pub(crate) case: Case,
    /// What the check found in it.
    pub(crate) found: String,
    /// The number of runs that were played for it.
    pub(crate) runs: u64,
}

/// Plays smaller runs until none of them breaks `kind`, or `runs_max` runs were played. A step that works is kept.
pub(crate) fn shrink(player: &dyn Player, case: &Case, kind: &Kind, found: &str, runs_max: u64) -> Shrunk {
    let mut best = Shrunk { case: case.clone(), found: found.to_owned(), runs: 0 };
    while step(player, &mut best, kind, runs_max) {}
    best
}

/// Tries every step from the smallest run so far. True when one of them worked.
fn step(player: &dyn Player, best: &mut Shrunk, kind: &Kind, runs_max: u64) -> bool {
    for smaller in steps(&best.case) {
        for offset in 0..SEEDS_PER_STEP {
            if best.runs >= runs_max || player.is_stopped() {
                return false;
            }
            let mut candidate = smaller.clone();
            candidate.options.seed = candidate.options.seed.wrapping_add(offset);
            best.runs += 1;
            let played = player.play(&candidate);
            if let Some(breach) = played.breaches.into_iter().find(|breach| breach.kind == *kind) {
                (best.case, best.found) = (candidate, breach.found);
                return true;
            }
        }
    }
    false
}

/// Runs that are smaller than this one in one respect. Those that save most come first.
fn steps(case: &Case) -> Vec<Case> {
    let mut steps = Vec::new();
    let mut add = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        steps.push(smaller);
    };
    let options = &case.options;
    let (nodes, minutes) = (options.nodes, options.duration.as_secs() / 60);
    let fewer = [nodes / 2, nodes * 3 / 4].map(|fewer| fewer.max(NODES_MIN));
    let shorter = [minutes / 2, minutes * 3 / 4].map(|shorter| shorter.max(MINUTES_MIN));
    if fewer[0] < nodes {
        add(&|case| case.options.nodes = fewer[0]);
    }
    if shorter[0] < minutes {
        add(&|case| case.options.duration = Duration::from_secs(60 * shorter[0]));
    }
    for index in 0..options.faults.len() {
        add(&|case| _ = case.options.faults.remove(index));
    }
    for index in 0..options.attacks.len() {
        add(&|case| _ = case.options.attacks.remove(index));
    }
    if options.loss > 0.0 {
        add(&|case| case.options.loss = 0.0);
    }
    if fewer[0] < fewer[1] && fewer[1] < nodes {
        add(&|case| case.options.nodes = fewer[1]);
    }
    if shorter[0] < shorter[1] && shorter[1] < minutes {
        add(&|case| case.options.duration = Duration::from_secs(60 * shorter[1]));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Breach, Played};
    use super::*;
    use elver::sim::faults::Fault;
    use elver::sim::scenario::named;
    use elver::sim::stage::Options;
    use std::cell::Cell;

    /// Breaks the invariant in the runs that `breaks` names.
    struct Fake<F> {
        breaks: F,
        runs: Cell<u64>,
    }

    impl<F: Fn(&Case) -> Option<u8>> Player for Fake<F> {
        fn play(&self, case: &Case) -> Played {
            self.runs.set(self.runs.get() + 1);
            let breaches = (self.breaks)(case).map(|invariant| breach(case, invariant)).into_iter().collect();
            Played { breaches, ..Played::default() }
        }

        fn is_stopped(&self) -> bool {
            false
        }
    }

    fn breach(case: &Case, invariant: u8) -> Breach {
        let kind = Kind { scenario: case.scenario, invariant, claim: "a claim".to_owned() };
        Breach { kind, found: format!("with {} nodes", case.options.nodes) }
    }

    fn large() -> Case {
        let mut options = Options::small(90, 60, 9);
        options.faults = vec![Fault::Pause, Fault::Sleep, Fault::Slow];
        options.loss = 0.05;
        Case::new(&named("churn").unwrap(), options)
    }

    fn shrunk(breaks: impl Fn(&Case) -> Option<u8>, runs_max: u64) -> (Shrunk, u64) {
        let fake = Fake { breaks, runs: Cell::new(0) };
        let kind = breach(&large(), 1).kind;
        let shrunk = shrink(&fake, &large(), &kind, "at first", runs_max);
        (shrunk, fake.runs.get())
    }

    #[test]
    fn what_the_defect_does_not_need_is_taken_away() {
        let (shrunk, runs) = shrunk(|case| case.options.faults.contains(&Fault::Sleep).then_some(1), 100);
        assert_eq!(shrunk.case.options.nodes, NODES_MIN);
        assert_eq!(shrunk.case.minutes(), MINUTES_MIN as f64);
        assert_eq!(shrunk.case.options.faults, [Fault::Sleep]);
        assert_eq!(shrunk.case.options.loss, 0.0);
        assert_eq!(shrunk.found, format!("with {NODES_MIN} nodes"));
        assert_eq!(shrunk.runs, runs);
    }

    #[test]
    fn a_size_below_which_the_defect_does_not_show_is_approached() {
        let (shrunk, _) =
            shrunk(|case| (case.options.nodes >= 40 && case.minutes() >= 20.0).then_some(1), 200);
        assert!((40..54).contains(&shrunk.case.options.nodes), "{} nodes", shrunk.case.options.nodes);
        assert!((20.0..27.0).contains(&shrunk.case.minutes()), "{} minutes", shrunk.case.minutes());
    }

    #[test]
    fn a_smaller_run_may_need_another_seed() {
        let (shrunk, _) =
            shrunk(|case| (case.options.seed % 2 == 1 || case.options.nodes == 90).then_some(1), 200);
        assert_eq!(shrunk.case.options.nodes, NODES_MIN);
        assert_eq!(shrunk.case.options.seed % 2, 1);
    }

    #[test]
    fn another_broken_invariant_is_not_the_same_defect() {
        let (shrunk, _) = shrunk(|case| Some(if case.options.nodes < 90 { 2 } else { 1 }), 200);
        assert_eq!(shrunk.case.options.nodes, 90);
        assert_eq!(shrunk.case.minutes(), MINUTES_MIN as f64);
    }

    #[test]
    fn a_defect_that_does_not_come_again_is_reported_as_it_was_found() {
        let (shrunk, runs) = shrunk(|_| None, 1000);
        assert_eq!(shrunk.case.command(), large().command());
        assert_eq!(shrunk.found, "at first");
        assert!(runs < 40, "{runs} runs");
    }

    #[test]
    fn no_more_runs_are_played_than_allowed() {
        for runs_max in [0, 1, 5] {
            let (shrunk, runs) = shrunk(|_| Some(1), runs_max);
            assert_eq!(runs, runs_max);
            assert_eq!(shrunk.runs, runs);
        }
    }
}

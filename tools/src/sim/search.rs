//! The search for broken invariants: plays runs until the time is over, shrinks the broken ones, and sums up.

use super::case::Case;
use super::outcome::{Breach, Kind, Played, Player};
use super::shrink::{Shrunk, shrink};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The most runs that are played to make a broken one smaller.
const SHRINK_RUNS_MAX: u64 = 40;

/// The findings of a search.
#[derive(Default)]
pub(crate) struct Findings {
    /// Runs that were played to their end, without those of shrinking.
    runs: u64,
    /// Runs of them that broke an invariant.
    broken: u64,
    /// Runs that were ended before they were over.
    cut_short: u64,
    /// Runs that were played to make broken ones smaller.
    shrinking: u64,
    /// Virtual hours of all nodes in the runs that were played to their end.
    node_hours: f64,
    /// For each kind: the runs that broke it, and the command of the smallest.
    kinds: BTreeMap<Kind, Found>,
}

/// The runs of one kind.
#[derive(Default)]
struct Found {
    runs: u64,
    command: String,
    found: String,
}

impl Findings {
    /// Enters a run. Returns the breaches of kinds that are new.
    fn note(&mut self, case: &Case, played: &Played) -> Vec<Breach> {
        if played.is_cut_short {
            self.cut_short += 1;
            return Vec::new();
        }
        self.runs += 1;
        self.node_hours += played.node_hours;
        self.broken += u64::from(!played.breaches.is_empty());
        let mut new = Vec::new();
        for breach in &played.breaches {
            let found = self.kinds.entry(breach.kind.clone()).or_insert_with(|| {
                new.push(breach.clone());
                Found { runs: 0, command: case.command(), found: breach.found.clone() }
            });
            found.runs += 1;
        }
        new
    }

    /// Enters the smallest run of a kind.
    fn note_shrunk(&mut self, kind: &Kind, shrunk: &Shrunk) {
        self.shrinking += shrunk.runs;
        if let Some(found) = self.kinds.get_mut(kind) {
            (found.command, found.found) = (shrunk.case.command(), shrunk.found.clone());
        }
    }

    /// Whether no invariant was broken.
    pub(crate) fn holds(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The summary in numbers, and each kind with its command.
    pub(crate) fn summary(&self, took: Duration) -> String {
        let mut text = format!(
            "{} runs, {} of them broken, {:.1} node-hours, {} kinds, in {:.0} s; {} runs to shrink, {} cut short\n",
            self.runs,
            self.broken,
            self.node_hours,
            self.kinds.len(),
            took.as_secs_f64(),
            self.shrinking,
            self.cut_short
        );
        for (kind, found) in &self.kinds {
            text += &describe(kind, &found.found, &format!("{} runs", found.runs), &found.command);
        }
        text
    }
}

fn describe(kind: &Kind, found: &str, note: &str, command: &str) -> String {
    let Kind { scenario, invariant, claim } = kind;
    format!("  [{invariant}] {scenario}: {claim} ({note}): {found}\n      {command}\n")
}

/// How a search is made.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    /// The number of runs at a time.
    pub(crate) jobs: usize,
    /// Whether to go on after a broken invariant.
    pub(crate) keep_going: bool,
    /// When no further run is drawn.
    pub(crate) until: Instant,
}

/// Plays the cases, several at a time, and shrinks the first run of each kind. `say` gets each kind when it was found.
pub(crate) fn search(
    player: &(dyn Player + Sync),
    cases: impl Iterator<Item = Case> + Send,
    method: Method,
    say: impl Fn(&str) + Sync,
) -> Findings {
    let (cases, findings) = (Mutex::new(cases), Mutex::new(Findings::default()));
    let work = || {
        let goes_on = || Instant::now() < method.until && !player.is_stopped();
        while goes_on() && (method.keep_going || lock(&findings).holds()) {
            let Some(case) = lock(&cases).next() else { return };
            let played = player.play(&case);
            let new = lock(&findings).note(&case, &played);
            for breach in new {
                say(&describe(&breach.kind, &breach.found, "found", &case.command()));
                let shrunk = shrink(player, &case, &breach.kind, &breach.found, SHRINK_RUNS_MAX);
                say(&describe(&breach.kind, &shrunk.found, "shrunk", &shrunk.case.command()));
                lock(&findings).note_shrunk(&breach.kind, &shrunk);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..method.jobs {
            scope.spawn(work);
        }
    });
    findings.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The content of a lock. A thread that panicked has ended the search anyway.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::sim::scenario::{SCENARIOS, named};
    use elver::sim::stage::Options;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Breaks invariant 8 in every run of flash-crowd, and may stop after a number of runs.
    struct Fake {
        runs: AtomicU64,
        runs_max: u64,
    }

    impl Fake {
        fn new(runs_max: u64) -> Fake {
            Fake { runs: AtomicU64::new(0), runs_max }
        }
    }

    impl Player for Fake {
        fn play(&self, case: &Case) -> Played {
            self.runs.fetch_add(1, Ordering::Relaxed);
            let kind =
                Kind { scenario: case.scenario, invariant: 8, claim: "everyone gets the file".to_owned() };
            let is_broken = case.scenario == "flash-crowd";
            let breaches =
                is_broken.then(|| Breach { kind, found: "3 of 4".to_owned() }).into_iter().collect();
            Played { breaches, node_hours: 0.5, is_cut_short: false }
        }

        fn is_stopped(&self) -> bool {
            self.runs.load(Ordering::Relaxed) >= self.runs_max
        }
    }

    fn method(jobs: usize, keep_going: bool) -> Method {
        Method { jobs, keep_going, until: Instant::now() + Duration::from_secs(3600) }
    }

    fn cases() -> impl Iterator<Item = Case> + Send {
        let crowd = named("flash-crowd").unwrap();
        let of = move |index: usize| if index % 4 == 3 { crowd } else { SCENARIOS[0] };
        (0..40).map(move |index| Case::new(&of(index), Options::small(12, 2, index as u64)))
    }

    #[test]
    fn a_search_stops_at_the_first_broken_invariant() {
        let findings = search(&Fake::new(1000), cases(), method(1, false), |_| ());
        assert_eq!(findings.runs, 4);
        assert_eq!(findings.broken, 1);
        assert!(!findings.holds());
    }

    #[test]
    fn a_search_that_keeps_going_plays_all_runs_and_shrinks_each_kind_once() {
        for jobs in [1, 3] {
            let said = AtomicU64::new(0);
            let say = |_: &str| _ = said.fetch_add(1, Ordering::Relaxed);
            let findings = search(&Fake::new(1000), cases(), method(jobs, true), say);
            assert_eq!(findings.runs, 40);
            assert_eq!(findings.broken, 10);
            assert_eq!(findings.kinds.len(), 1);
            assert_eq!(said.load(Ordering::Relaxed), 2, "found and shrunk");
            let summary = findings.summary(Duration::from_secs(9));
            assert!(
                summary.starts_with("40 runs, 10 of them broken, 20.0 node-hours, 1 kinds, in 9 s"),
                "{summary}"
            );
            assert!(
                summary.contains("[8] flash-crowd: everyone gets the file (10 runs): 3 of 4"),
                "{summary}"
            );
        }
    }

    #[test]
    fn a_search_that_is_stopped_begins_no_further_run() {
        let findings = search(&Fake::new(2), cases(), method(1, true), |_| ());
        assert_eq!(findings.runs, 2);
    }

    #[test]
    fn a_search_whose_time_is_over_begins_no_further_run() {
        let method = Method { until: Instant::now(), ..method(1, true) };
        assert_eq!(search(&Fake::new(1000), cases(), method, |_| ()).runs, 0);
    }

    #[test]
    fn a_run_that_was_cut_short_is_counted_apart() {
        let mut findings = Findings::default();
        let case = cases().next().unwrap();
        let new = findings.note(&case, &Played { is_cut_short: true, ..Played::default() });
        assert!(new.is_empty() && findings.holds());
        assert_eq!(findings.runs, 0);
        assert_eq!(findings.cut_short, 1);
    }
}

//! Plays several runs at a time, each on a thread of its own. A run depends on its options alone: those beside it do not change it.

use elver::sim::scenario::Scenario;
use elver::sim::stage::{Options, Outcome};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// A run that has ended.
pub(super) struct Played {
    pub(super) scenario: Scenario,
    pub(super) options: Options,
    pub(super) outcome: Outcome,
    /// The time that it took.
    pub(super) took: Duration,
}

/// Plays all runs, at most `jobs` at a time, and hands over the results in the order of the runs. No run begins after an error of
/// `done`.
pub(super) fn play<E>(
    runs: &[(Scenario, Options)],
    jobs: usize,
    mut done: impl FnMut(Played) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let (sender, results) = channel();
    thread::scope(|scope| {
        for _ in 0..jobs.min(runs.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((scenario, options)) = runs.get(index) else { break };
                    let began = Instant::now();
                    let outcome = (scenario.play)(options);
                    let (scenario, options) = (*scenario, options.clone());
                    let played = Played { scenario, options, outcome, took: began.elapsed() };
                    if sender.send((index, played)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut ended = BTreeMap::new();
        let mut turn = 0;
        for (index, played) in results {
            ended.insert(index, played);
            while let Some(played) = ended.remove(&turn) {
                if let Err(error) = done(played) {
                    next.store(runs.len(), Ordering::Relaxed);
                    return Err(error);
                }
                turn += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::sim::report::Report;

    fn named(name: &'static str, play: fn(&Options) -> Outcome) -> Scenario {
        Scenario { name, about: "", play }
    }

    fn quick(options: &Options) -> Outcome {
        // The first runs take longest, so that they end after later ones.
        thread::sleep(Duration::from_millis(20_u64.saturating_sub(4 * options.seed)));
        let report = Report { seed: options.seed, ..Report::default() };
        Outcome { report, history: Vec::new() }
    }

    fn runs() -> Vec<(Scenario, Options)> {
        (0..6).map(|seed| (named("quick", quick), Options::small(2, 1, seed))).collect()
    }

    #[test]
    fn results_come_in_the_order_of_the_runs() {
        for jobs in [1, 3, 9] {
            let mut seeds = Vec::new();
            let all = play(&runs(), jobs, |played| {
                assert_eq!(played.outcome.report.seed, played.options.seed);
                seeds.push(played.options.seed);
                Ok::<(), ()>(())
            });
            assert_eq!(all, Ok(()));
            assert_eq!(seeds, [0, 1, 2, 3, 4, 5], "{jobs} at a time");
        }
    }

    #[test]
    fn an_error_ends_the_runs() {
        let mut calls = 0;
        let all = play(&runs(), 1, |_| {
            calls += 1;
            if calls == 2 { Err("closed pipe") } else { Ok(()) }
        });
        assert_eq!(all, Err("closed pipe"));
        assert_eq!(calls, 2);
    }
}

//! What a run of a search came to, and the process that plays it.

use super::case::Case;
use serde::Deserialize;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest that one run may take. What takes longer is ended, and counts as cut short.
const RUN_MAX: Duration = Duration::from_secs(15 * 60);
/// The interval at which a run that goes on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A kind of defect: an invariant that breaks in a scenario.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Kind {
    /// The scenario.
    pub(crate) scenario: &'static str,
    /// The number of the invariant in the design, or 0 for a run that panics.
    pub(crate) invariant: u8,
    /// The statement of the invariant.
    pub(crate) claim: String,
}

/// An invariant that a run broke.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    /// The kind of defect.
    pub(crate) kind: Kind,
    /// What the check found.
    pub(crate) found: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    /// The broken invariants.
    pub(crate) breaches: Vec<Breach>,
    /// Virtual hours, summed over the nodes.
    pub(crate) node_hours: f64,
    /// Whether the run was ended before it was over.
    pub(crate) is_cut_short: bool,
}

/// Plays runs.
pub(crate) trait Player {
    /// Plays a run.
    fn play(&self, case: &Case) -> Played;

    /// Whether no further run shall begin.
    fn is_stopped(&self) -> bool;
}

/// Plays each run in a process of its own, so that a run that panics ends no other.
pub(crate) struct Processes<'a> {
    /// Ends the running processes.
    pub(crate) stop: &'a AtomicBool,
    /// When no further run shall begin.
    pub(crate) until: Instant,
}

impl Player for Processes<'_> {
    fn play(&self, case: &Case) -> Played {
        match self.output_of(case) {
            Ok(Some((text, errors))) => read(case, &text, &errors),
            Ok(None) => Played { is_cut_short: true, ..Played::default() },
            Err(error) => panicked(case, &format!("cannot run: {error}")),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

impl Processes<'_> {
    /// Standard output and standard error of a run, or `None` if it was ended.
    fn output_of(&self, case: &Case) -> std::io::Result<Option<(String, String)>> {
        // A run writes one line at its end, which fits into the pipes.
        let mut child = Command::new(std::env::current_exe()?)
            .args(["sim", "--json"])
            .args(case.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if self.stop.load(Ordering::Relaxed) || began.elapsed() > RUN_MAX {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        texts(&mut child).map(Some)
    }
}

fn texts(child: &mut Child) -> std::io::Result<(String, String)> {
    let (mut text, mut errors) = (String::new(), String::new());
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut errors)?;
    }
    Ok((text, errors))
}

/// The part of a report in JSON that a search needs.
#[derive(Deserialize)]
struct Report {
    nodes: f64,
    seconds: f64,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    invariant: u8,
    claim: String,
    verdict: String,
    found: String,
}

/// What a run printed. A run without a report panicked.
fn read(case: &Case, text: &str, errors: &str) -> Played {
    let Ok(report) = serde_json::from_str::<Report>(text) else { return panicked(case, errors) };
    let broken = report.checks.into_iter().filter(|check| check.verdict == "broken");
    let breaches = broken.map(|check| Breach {
        kind: Kind { scenario: case.scenario, invariant: check.invariant, claim: check.claim },
        found: check.found,
    });
    Played {
        breaches: breaches.collect(),
        node_hours: report.nodes * report.seconds / 3600.0,
        is_cut_short: false,
    }
}

/// A run that panicked. Its kind is the place of the panic.
fn panicked(case: &Case, errors: &str) -> Played {
    let said = errors.split_once("panicked at ").map_or(errors, |(_, said)| said);
    let mut lines = said.lines().filter(|line| !line.is_empty());
    let claim = format!("no panic at {}", lines.next().unwrap_or("an unknown place"));
    let kind = Kind { scenario: case.scenario, invariant: 0, claim };
    let found = lines.next().unwrap_or("the run ended without a report").to_owned();
    Played { breaches: vec![Breach { kind, found }], ..Played::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::sim::report::{Check as SimCheck, Report as SimReport};
    use elver::sim::scenario::SCENARIOS;
    use elver::sim::stage::Options;

    fn case() -> Case {
        Case::new(&SCENARIOS[0], Options::small(12, 2, 1))
    }

    #[test]
    fn a_report_in_json_tells_what_is_broken_and_how_long_the_nodes_ran() {
        let mut report = SimReport { nodes: 30, seconds: 1200, ..SimReport::default() };
        report.checks.push(SimCheck::new(1, "it holds", 5, true, "all of it"));
        report.checks.push(SimCheck::new(2, "it is unseen", 0, true, "none of it"));
        report.checks.push(SimCheck::new(8, "it is broken", 5, false, "two of five"));
        let played = read(&case(), &serde_json::to_string(&report).unwrap(), "");
        assert_eq!(played.node_hours, 10.0);
        assert_eq!(played.breaches.len(), 1);
        assert_eq!(played.breaches[0].kind.invariant, 8);
        assert_eq!(played.breaches[0].kind.claim, "it is broken");
        assert_eq!(played.breaches[0].found, "two of five");
    }

    #[test]
    fn a_run_without_a_report_is_a_kind_of_its_own() {
        let played =
            read(&case(), "", "\nthread 'main' (17) panicked at src/node/mod.rs:7:1:\nno such host\n");
        assert_eq!(played.breaches[0].kind.invariant, 0);
        assert_eq!(played.breaches[0].kind.claim, "no panic at src/node/mod.rs:7:1:");
        assert_eq!(played.breaches[0].found, "no such host");
    }
}

//! The runs of a search: drawn at random, or every scenario with every fault and every pair of faults.

use super::case::Case;
use elver::id::IdWork;
use elver::sim::attack::Attack;
use elver::sim::chance::Chance;
use elver::sim::faults::Fault;
use elver::sim::scenario::Scenario;
use elver::sim::stage::Options;
use std::time::Duration;

/// The fewest nodes of a run. With fewer, scenarios that put 20 accomplices around a key have too few honest nodes.
pub(crate) const NODES_MIN: usize = 12;
/// The fewest minutes of a run.
pub(crate) const MINUTES_MIN: u64 = 2;
/// The most faults of a run that is drawn.
const FAULTS_MAX: usize = 3;
/// The most attacks of a run that is drawn.
const ATTACKS_MAX: usize = 2;
/// The shares of lost datagrams. Half of all runs lose none.
const LOSSES: [f64; 6] = [0.0, 0.0, 0.0, 0.01, 0.05, 0.1];

/// What may be drawn.
pub(crate) struct Range {
    /// The scenarios.
    pub(crate) scenarios: Vec<Scenario>,
    /// The most nodes.
    pub(crate) nodes_max: usize,
    /// The most virtual minutes.
    pub(crate) minutes_max: u64,
    /// The faults of every run, instead of drawn ones.
    pub(crate) faults: Option<Vec<Fault>>,
    /// The attacks of every run, instead of drawn ones.
    pub(crate) attacks: Option<Vec<Attack>>,
    /// The loss of every run, instead of a drawn one.
    pub(crate) loss: Option<f64>,
    /// Whether every run has real signatures.
    pub(crate) real_signatures: bool,
}

/// Draws runs. The same seed draws the same runs.
pub(crate) struct Draw {
    range: Range,
    chance: Chance,
    /// The scenarios and faults that are still to come, the last one first; `None` to draw them too.
    plan: Option<Vec<(Scenario, Vec<Fault>)>>,
}

impl Draw {
    /// Draws everything at random, without end.
    pub(crate) fn random(range: Range, seed: u64) -> Draw {
        Draw { range, chance: Chance::new(seed, 0), plan: None }
    }

    /// Goes through every scenario without a fault, with every fault, and with every pair of faults. Size, duration, loss and seed
    /// are drawn.
    pub(crate) fn systematic(range: Range, seed: u64) -> Draw {
        let mut plan = Vec::new();
        for faults in combinations() {
            let scenarios = range.scenarios.iter();
            let takes = scenarios.filter(|scenario| faults.is_empty() || scenario.takes_faults());
            plan.extend(takes.map(|scenario| (*scenario, faults.clone())));
        }
        plan.reverse();
        Draw { range, chance: Chance::new(seed, 0), plan: Some(plan) }
    }

    fn faults(&mut self) -> Vec<Fault> {
        let count = self.chance.index(FAULTS_MAX + 1);
        let mut all: Vec<Fault> = Fault::ALL.iter().map(|(_, fault)| *fault).collect();
        self.chance.shuffle(&mut all);
        all.truncate(count);
        all.sort_unstable();
        all
    }

    fn attacks(&mut self) -> Vec<Attack> {
        let count = self.chance.index(ATTACKS_MAX + 1);
        let mut all: Vec<Attack> = Attack::ALL.iter().map(|(_, attack)| *attack).collect();
        self.chance.shuffle(&mut all);
        all.truncate(count);
        all.sort_unstable();
        all
    }

    /// A number from `least` to `most`. Each doubling of the number is as likely as the next.
    fn size(&mut self, least: u64, most: u64) -> u64 {
        let ratio = most.max(least) as f64 / least as f64;
        (least as f64 * ratio.powf(self.chance.unit())).round() as u64
    }
}

impl Iterator for Draw {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        let (scenario, faults) = match &mut self.plan {
            Some(plan) => plan.pop()?,
            None => {
                let count = self.range.scenarios.len();
                let scenario = *self.range.scenarios.get(self.chance.index(count))?;
                (scenario, if scenario.takes_faults() { self.faults() } else { Vec::new() })
            }
        };
        let attacks = match self.plan {
            None if scenario.takes_attacks() => self.attacks(),
            _ => Vec::new(),
        };
        let drawn = LOSSES[self.chance.index(LOSSES.len())];
        let options = Options {
            nodes: self.size(NODES_MIN as u64, self.range.nodes_max as u64) as usize,
            duration: Duration::from_secs(60 * self.size(MINUTES_MIN, self.range.minutes_max)),
            // Seeds of six digits are easy to type.
            seed: self.chance.below(1_000_000),
            loss: self.range.loss.unwrap_or(if scenario.takes_faults() { drawn } else { 0.0 }),
            faults: self.range.faults.clone().unwrap_or(faults),
            attacks: self.range.attacks.clone().unwrap_or(attacks),
            real_signatures: self.range.real_signatures,
            id_work: IdWork::NONE,
            warm: true,
        };
        Some(Case::new(&scenario, options))
    }
}

/// No fault, every fault, and every pair of faults.
fn combinations() -> Vec<Vec<Fault>> {
    let all = Fault::ALL.map(|(_, fault)| fault);
    let pairs = (0..all.len())
        .flat_map(|first| (first + 1..all.len()).map(move |second| vec![all[first], all[second]]));
    core::iter::once(Vec::new()).chain(all.iter().map(|fault| vec![*fault])).chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::sim::scenario::{SCENARIOS, named};
    use std::collections::BTreeSet;

    fn range() -> Range {
        Range {
            scenarios: SCENARIOS.to_vec(),
            nodes_max: 80,
            minutes_max: 30,
            faults: None,
            attacks: None,
            loss: None,
            real_signatures: false,
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_runs_and_another_draws_others() {
        let commands =
            |seed| Draw::random(range(), seed).take(20).map(|case| case.command()).collect::<Vec<_>>();
        assert_eq!(commands(1), commands(1));
        assert_ne!(commands(1), commands(2));
    }

    #[test]
    fn drawn_runs_cover_the_scenarios_and_faults_and_keep_to_the_range() {
        let cases: Vec<Case> = Draw::random(range(), 3).take(1000).collect();
        let scenarios: BTreeSet<&str> = cases.iter().map(|case| case.scenario).collect();
        assert_eq!(scenarios.len(), SCENARIOS.len());
        let counts: BTreeSet<usize> = cases.iter().map(|case| case.options.faults.len()).collect();
        assert_eq!(counts, (0..=FAULTS_MAX).collect());
        let faults: BTreeSet<Fault> = cases.iter().flat_map(|case| case.options.faults.clone()).collect();
        assert_eq!(faults.len(), Fault::ALL.len());
        let attacked: BTreeSet<&str> =
            cases.iter().filter(|case| !case.options.attacks.is_empty()).map(|case| case.scenario).collect();
        assert_eq!(attacked, BTreeSet::from(["churn", "steady"]));
        assert!(cases.iter().all(|case| (NODES_MIN..=80).contains(&case.options.nodes)));
        assert!(cases.iter().all(|case| (2.0..=30.0).contains(&case.minutes())));
        let far_apart = |least: f64, most: f64| least * 3.0 < most;
        let minutes = cases.iter().map(Case::minutes);
        assert!(far_apart(minutes.clone().fold(f64::MAX, f64::min), minutes.fold(0.0, f64::max)));
    }

    #[test]
    fn a_fault_or_a_loss_that_is_given_is_that_of_every_run() {
        let given = Range { faults: Some(vec![Fault::Slow]), loss: Some(0.2), ..range() };
        for case in Draw::random(given, 4).take(50) {
            assert_eq!(case.options.faults, [Fault::Slow]);
            assert_eq!(case.options.loss, 0.2);
        }
    }

    #[test]
    fn a_systematic_search_plays_each_scenario_with_each_fault_and_each_pair_once() {
        let scenarios = vec![named("steady").unwrap(), named("power-loss").unwrap()];
        let cases: Vec<Case> = Draw::systematic(Range { scenarios, ..range() }, 5).collect();
        let played: BTreeSet<(&str, Vec<Fault>)> =
            cases.iter().map(|case| (case.scenario, case.options.faults.clone())).collect();
        assert_eq!(played.len(), cases.len(), "none twice");
        let faults = Fault::ALL.len();
        // Real files know no links and no pauses.
        assert_eq!(cases.len(), 1 + faults + faults * (faults - 1) / 2 + 1);
    }
}

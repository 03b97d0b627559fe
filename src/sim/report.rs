//! The report of a run.

use serde::Serialize;

/// The outcome of one scenario with one seed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The name of the scenario.
    pub scenario: String,
    /// The seed of the run.
    pub seed: u64,
    /// Whether signatures were real.
    pub real_signatures: bool,
    /// The number of hosts.
    pub nodes: usize,
    /// The duration of the run, in virtual seconds.
    pub seconds: u64,
    /// Datagrams delivered.
    pub datagrams: u64,
    /// Events of all kinds.
    pub events: u64,
    /// The hash over all events, in hexadecimal.
    pub trace: String,
    /// The measurements, in display order.
    pub figures: Vec<Figure>,
    /// The results of the checks.
    pub checks: Vec<Check>,
}

/// A measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The name.
    pub name: String,
    /// The measured value.
    pub value: f64,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The invariant's number in the design; see [`invariants`](super::invariants).
    pub invariant: u8,
    /// The statement of the invariant.
    pub claim: &'static str,
    /// The number of cases checked. 0 means that nothing was checked, which is no success.
    pub count: u64,
    /// Whether the invariant held in all cases.
    pub verdict: Verdict,
    /// The findings, in words.
    pub found: String,
}

/// The verdict of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The invariant holds.
    Holds,
    /// The invariant is broken.
    Broken,
    /// The run cannot decide: it has too few cases, or the node does not tell yet.
    Unseen,
}

impl Report {
    /// Adds a measurement.
    pub fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push(Figure { name: name.into(), value });
    }

    /// Whether no invariant was broken.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Broken)
    }
}

impl Check {
    /// The result of a check of `count` cases. With no cases the verdict is [`Verdict::Unseen`], unless `holds` is false.
    pub fn new(
        invariant: u8,
        claim: &'static str,
        count: u64,
        holds: bool,
        found: impl Into<String>,
    ) -> Check {
        let verdict = match (count, holds) {
            (_, false) => Verdict::Broken,
            (0, true) => Verdict::Unseen,
            (_, true) => Verdict::Holds,
        };
        Check { invariant, claim, count, verdict, found: found.into() }
    }
}

/// The quantile `share` (0 to 1) of a sorted list, or 0 when the list is empty.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
}

/// The list in ascending order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_looked_at_is_neither_held_nor_broken() {
        assert_eq!(Check::new(1, "", 0, true, "").verdict, Verdict::Unseen);
        assert_eq!(Check::new(1, "", 0, false, "").verdict, Verdict::Broken);
        let values = sorted(vec![3.0, 1.0, 2.0]);
        assert_eq!([quantile(&values, 0.0), quantile(&values, 0.5), quantile(&values, 1.0)], [1.0, 2.0, 3.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}

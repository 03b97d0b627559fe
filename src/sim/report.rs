//! What a run found.

use serde::Serialize;

/// The outcome of one scenario with one seed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Which scenario.
    pub scenario: String,
    /// From which seed.
    pub seed: u64,
    /// Whether signatures were real.
    pub real_signatures: bool,
    /// Hosts in all.
    pub nodes: usize,
    /// Virtual seconds.
    pub seconds: u64,
    /// Datagrams delivered.
    pub datagrams: u64,
    /// Events of all kinds.
    pub events: u64,
    /// The hash over all of them, in hexadecimal.
    pub trace: String,
    /// What was measured, in the order in which it is shown.
    pub figures: Vec<Figure>,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Something measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much.
    pub value: f64,
}

/// Something checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The invariant's number in the design; see [`invariants`](super::invariants).
    pub invariant: u8,
    /// What it says.
    pub claim: &'static str,
    /// How many times it was looked at; 0 is "not at all", which is no success.
    pub count: u64,
    /// Whether it held each time that counts.
    pub verdict: Verdict,
    /// What was found, in words.
    pub found: String,
}

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Broken,
    /// Nothing in this run could show it: too few cases, or a node that does not tell yet.
    Unseen,
}

impl Report {
    /// Notes a measurement.
    pub fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push(Figure { name: name.into(), value });
    }

    /// Whether nothing was broken.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Broken)
    }
}

impl Check {
    /// A check of `count` cases. Without a case nothing is shown.
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

/// The value at a share (0 to 1) of a sorted list; 0 when that is empty.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
}

/// The same list in order.
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

//! Invariant 8.

use crate::sim::report::Check;
use crate::sim::workload::Tally;

/// Whether at least this share of the lookups of honest nodes found the published value.
pub fn check(claim: &'static str, tally: &Tally, share: f64) -> Check {
    let success = tally.success();
    let mut found = format!("{:.3} % of {}", success * 100.0, tally.answered());
    if let Some(first) = tally.messages.first() {
        found += &format!("; {first}");
    }
    Check::new(8, claim, tally.answered(), success >= share, found)
}

/// Whether at most this share of the lookups found an older version than the newest acknowledged before they began.
pub fn newest(claim: &'static str, tally: &Tally, share: f64) -> Check {
    let (stale, answered) = (tally.stale, tally.answered());
    let found = format!("{stale} of {answered} found an older one");
    Check::new(8, claim, answered, stale as f64 <= share * answered as f64, found)
}

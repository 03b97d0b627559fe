//! Invariant 1.

use crate::sim::ledger::Ledger;
use crate::sim::report::Check;

/// Whether every acknowledged piece kept a live copy, as the ledger saw it.
pub fn check(ledger: &Ledger) -> Check {
    let broken = ledger.broken.len();
    let found = match ledger.broken.first() {
        Some(first) => {
            format!("{broken} of {} pieces have no live copy, {first} first", ledger.acknowledged())
        }
        None => format!("{} pieces, unreadable for a while: {}", ledger.acknowledged(), ledger.unreadable),
    };
    let claim = "acknowledged pieces stay readable";
    Check::new(1, claim, if ledger.acknowledged() > 0 { ledger.looks } else { 0 }, broken == 0, found)
}

//! Invariant 7.
//!
//! The least possible is what somebody would copy who knows the future of a minute: each piece is always on the `replicas`
//! closest nodes, where a node counts as gone after it has been away for the urgent delay (60 s), and as there after it
//! has been up for as long. Copies that a node had once stay; a node that returns brings them back.

use crate::sim::ledger::Ledger;
use crate::sim::report::Check;

const FACTOR: f64 = 1.3;

/// What was copied against the least that had to be.
pub fn economy(ledger: &Ledger) -> Check {
    let (copied, least) = (ledger.copied, ledger.least);
    let found = format!("{copied} bytes copied, {least} necessary");
    // What is copied of a piece that is nearest to other nodes than it was put on is repair of the placement.
    let holds = copied as f64 <= least as f64 * FACTOR;
    Check::new(7, "repair copies at most 1.3 times the least", ledger.copies, holds, found)
}

/// Restarts of a minute move nothing: at most one copy in a hundred restarts of holders.
pub fn stillness(ledger: &Ledger, restarts: u64) -> Check {
    let found = format!("{} copies, {} bytes, in {restarts} restarts", ledger.copies, ledger.copied);
    Check::new(7, "restarts of a minute move nothing", restarts, ledger.copies * 100 <= restarts, found)
}

/// After the last change repair comes to rest: `copies_then` copies had been made when it should have.
pub fn rest(ledger: &Ledger, copies_then: u64) -> Check {
    let more = ledger.copies - copies_then;
    let looked = u64::from(ledger.copies > 0);
    Check::new(
        7,
        "repair is quiet after churn stops",
        looked,
        more == 0,
        format!("{more} copies after the end"),
    )
}

//! Invariant 7.
//!
//! The least is what a repair that knows the next minute would copy. Each piece is always on the `replicas` closest nodes.
//! A node counts as gone once it has been down or asleep for the urgent delay (60 s), and as there once it has been awake for as long.
//! A node keeps the copies it once had, and brings them back when it returns.

use crate::sim::ledger::Ledger;
use crate::sim::report::Check;
use crate::sim::world::World;
use crate::time::Duration;

const FACTOR: f64 = 1.3;
/// An absence that calls for no copy: it is noticed after 45 s, and urgent after 60 s more.
pub const ABSENCE: Duration = Duration::from_secs(105);

/// The bytes copied, against the least necessary.
pub fn economy(ledger: &Ledger) -> Check {
    let (copied, least) = (ledger.copied, ledger.least);
    let found = format!("{copied} bytes copied, {least} necessary");
    // A copy of a misplaced piece, to a closer node than its holders, counts as repair too.
    let holds = copied as f64 <= least as f64 * FACTOR;
    Check::new(7, "repair copies at most 1.3 times the least", ledger.copies, holds, found)
}

/// Restarts of a minute move nothing: at most one copy is made for a hundred restarts of holders. With other faults beside them, those
/// copies may be made, too, that hosts call for which are silent for longer than that ([`ABSENCE`]).
pub fn stillness(ledger: &Ledger, restarts: u64, other_faults: bool) -> Check {
    let (copies, bytes, least) = (ledger.copies, ledger.copied, ledger.least);
    let still = copies * 100 <= restarts;
    let called_for = other_faults && bytes as f64 <= least as f64 * FACTOR;
    let found = format!("{copies} copies, {bytes} bytes, in {restarts} restarts; {least} bytes necessary");
    Check::new(7, "restarts of a minute move nothing", restarts, still || called_for, found)
}

/// No piece is left with one live copy for longer than a silence takes to be noticed, a last copy to be urgent, and a copy to be made.
pub fn loneliness(ledger: &Ledger) -> Check {
    const LONGEST: Duration = Duration::from_secs(300);
    let longest = ledger.loneliest;
    let found = format!("{} s at most, {} s allowed", longest.as_secs(), LONGEST.as_secs());
    let claim = "a last copy is not left alone";
    Check::new(7, claim, ledger.looks, longest <= LONGEST, found)
}

/// After holders have returned, a piece has one copy more than was asked for at most.
pub fn restraint(ledger: &Ledger, world: &World) -> Check {
    const MOST: usize = 1;
    let most = ledger.overshoot(world);
    let found = format!("{most} copies more than were asked for, at most");
    let claim = "copies that return are not made again";
    Check::new(7, claim, ledger.looks, most <= MOST, found)
}

/// Repair is quiet after the last change. `copies_then` is the number of copies made when it should have ended.
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

//! Invariant 10.

use crate::sim::observe::{Observer, View};
use crate::sim::report::{Check, quantile, sorted};
use crate::sim::workload::Tally;
use crate::sim::world::World;

/// The least number of live members that an honest node sees, and the number that there are besides it.
pub fn seen(world: &World, observer: &Observer) -> (usize, usize) {
    let up: Vec<usize> = world.up().filter(|host| world.hosts[*host].is_honest()).collect();
    let seen = |host: usize| {
        let node = world.hosts[host].node();
        let is_live = |other: &&usize| {
            node.and_then(|node| (observer.view)(node, &world.id(**other))) == Some(View::Live)
        };
        up.iter().filter(is_live).count()
    };
    (up.iter().map(|host| seen(*host)).min().unwrap_or(0), up.len().saturating_sub(1))
}

/// Whether every node sees at least 99 % of the others. A bound on one party must not hide them.
pub fn sight(world: &World, observer: &Observer) -> Check {
    let (least, others) = seen(world, observer);
    let found = format!("each sees {least} of {others} or more");
    let claim = "nodes see each other";
    Check::new(10, claim, others as u64 + 1, least * 100 >= others * 99, found)
}

/// Whether every request since `before` succeeded.
pub fn unharmed(claim: &'static str, tally: &Tally, before: &Tally) -> Check {
    let answered = tally.answered() - before.answered();
    let done = tally.done - before.done;
    let mut found = format!("{done} of {answered}");
    if let Some(first) = tally.messages.get(before.messages.len()) {
        found += &format!("; {first}");
    }
    Check::new(10, claim, answered, done == answered, found)
}

/// Whether the median latency of requests since `before` is at most twice that of the requests until then.
pub fn latency(claim: &'static str, tally: &Tally, before: &Tally) -> Check {
    /// A median below this counts as this: a lookup whose answer is here already takes no time.
    const LEAST: f64 = 0.05;
    let (earlier, later) = tally.seconds.split_at(before.seconds.len());
    let median = |seconds: &[f64]| quantile(&sorted(seconds.to_vec()), 0.5);
    let (was, is) = (median(earlier), median(later));
    let found = format!("median {is:.3} s, {was:.3} s before");
    Check::new(10, claim, later.len() as u64, is <= 2.0 * was.max(LEAST), found)
}

/// Whether files reached a quorum of holders.
pub fn placed(tally: &Tally) -> Check {
    let stored = tally.done - tally.partial;
    let found = format!("{stored} of {} on a quorum", tally.answered());
    Check::new(10, "files are placed", tally.answered(), stored == tally.answered(), found)
}

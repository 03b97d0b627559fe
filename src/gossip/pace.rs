//! The pace of rounds: they come early while this node meets members, one for every few that it meets. So a node that joins, or a
//! network that starts, is soon in sight of itself, and what that costs is bounded by the members that are new. A liar has to
//! answer pings for every one.

use crate::time::{Duration, Instant};

/// Members met for which one round comes early.
const MET_A_ROUND: u32 = 4;
/// Members met that are saved up at most.
const MET_MAX: u32 = 64;
/// The first rounds of a node come early without that. This is their number.
const YOUNG_ROUNDS: u64 = 6;

/// When the next round is due.
#[derive(Default)]
pub(super) struct Pace {
    rounds: u64,
    last: Instant,
    met: u32,
    /// Whether members that were met have paid for the next round.
    early: bool,
}

impl Pace {
    /// The number of rounds so far.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// A round begins.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.last, self.early) = (now, false);
        self.rounds += 1;
    }

    /// This node met a member that it had room for.
    pub(super) fn met(&mut self) {
        self.met = (self.met + 1).min(MET_MAX);
    }

    /// The time of an early round, when enough members were met and the next round is not early already.
    pub(super) fn early(&mut self, interval: Duration) -> Option<Instant> {
        if self.early || self.met < MET_A_ROUND {
            return None;
        }
        (self.met, self.early) = (self.met - MET_A_ROUND, true);
        Some(self.last + interval / 8)
    }

    /// The time from the round that has just begun to the next, if that is not early.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        if self.rounds < YOUNG_ROUNDS { interval / 4 } else { interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(8);

    #[test]
    fn a_round_comes_early_for_every_four_members_met_and_for_no_fewer() {
        let mut pace = Pace::default();
        pace.begin(Instant::from_secs(100));
        (0..3).for_each(|_| pace.met());
        assert_eq!(pace.early(INTERVAL), None);
        (0..3).for_each(|_| pace.met());
        assert_eq!(pace.early(INTERVAL), Some(Instant::from_secs(101)));
        (0..2).for_each(|_| pace.met());
        assert_eq!(pace.early(INTERVAL), None, "the next round is early already");
        pace.begin(Instant::from_secs(101));
        assert_eq!(pace.early(INTERVAL), Some(Instant::from_secs(102)));
        pace.begin(Instant::from_secs(102));
        assert_eq!(pace.early(INTERVAL), None, "eight members pay for two rounds");
    }

    #[test]
    fn a_flood_of_members_is_saved_up_to_a_bound() {
        let mut pace = Pace::default();
        (0..10_000).for_each(|_| pace.met());
        let early = (0..100).filter(|_| {
            pace.begin(Instant::ZERO);
            pace.early(INTERVAL).is_some()
        });
        assert_eq!(early.count(), 16);
    }

    #[test]
    fn the_first_rounds_of_a_node_come_faster() {
        let mut pace = Pace::default();
        pace.begin(Instant::ZERO);
        assert_eq!(pace.pause(INTERVAL), INTERVAL / 4);
        (0..10).for_each(|_| pace.begin(Instant::ZERO));
        assert_eq!(pace.pause(INTERVAL), INTERVAL);
    }
}

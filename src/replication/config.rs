//! What the operator may set.

use crate::time::Duration;
use core::fmt;

/// How pieces are kept on as many nodes as was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationConfig {
    /// How long a piece has as few live copies as its quorum before the place of a silent holder is given away.
    pub urgent_after: Duration,
    /// How much longer each holder waits than the one nearer to the piece.
    pub rank_wait: Duration,
    /// How long a new node must have been live before it counts among the holders.
    pub settle: Duration,
    /// How long a piece that this node need not hold is kept after all its holders have it.
    pub surplus_after: Duration,
    /// The time between two full comparisons with one neighbour.
    pub reconcile_interval: Duration,
    /// Copies under way at a time.
    pub transfers_max: usize,
    /// Bytes of copies a second; 0 is a quarter of the uplink as observed, and no less than 1 MiB.
    pub bytes_per_second: u64,
    /// When more of the neighbourhood than this fell silent within [`cut_off_window`](ReplicationConfig::cut_off_window),
    /// and at least three nodes, this node takes itself for the one that is cut off, and repairs nothing.
    pub cut_off_percent: u8,
    /// The time within which nodes must fall silent to have done so at once. Their silence is not noticed at once.
    pub cut_off_window: Duration,
    /// How long repair is suspended for pieces of which only one live copy is known. The others wait four times as long.
    pub cut_off_wait: Duration,
    /// How many stored pieces are looked after.
    pub pieces_max: usize,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        ReplicationConfig {
            urgent_after: Duration::from_secs(60),
            rank_wait: Duration::from_secs(30),
            settle: Duration::from_secs(60),
            surplus_after: Duration::from_secs(3600),
            reconcile_interval: Duration::from_secs(600),
            transfers_max: 5,
            bytes_per_second: 0,
            cut_off_percent: 15,
            cut_off_window: Duration::from_secs(90),
            cut_off_wait: Duration::from_secs(900),
            pieces_max: 65_536,
        }
    }
}

/// A value that contradicts another, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidReplication(pub &'static str);

impl fmt::Display for InvalidReplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repair cannot be set so: {}", self.0)
    }
}

impl std::error::Error for InvalidReplication {}

impl ReplicationConfig {
    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), InvalidReplication> {
        let second = Duration::from_secs(1);
        let rules = [
            (
                self.rank_wait >= second,
                "holders that wait less than a second for each other copy all at once",
            ),
            (self.reconcile_interval >= second, "neighbours compare at most once a second"),
            (
                self.surplus_after >= self.settle,
                "a copy is surplus only after the nodes that replace it have settled",
            ),
            (self.transfers_max >= 1, "repair needs one copy at a time"),
            (self.transfers_max <= 64, "at most 64 copies are under way at a time"),
            (self.cut_off_percent <= 100, "no more than the whole neighbourhood can fall silent"),
            (self.pieces_max >= 1, "a table of no pieces looks after none"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(InvalidReplication(reason)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_contradictions_are_named() {
        assert_eq!(ReplicationConfig::default().validate(), Ok(()));
        let wrong = [
            ReplicationConfig { rank_wait: Duration::ZERO, ..Default::default() },
            ReplicationConfig { transfers_max: 0, ..Default::default() },
            ReplicationConfig { surplus_after: Duration::ZERO, ..Default::default() },
            ReplicationConfig { cut_off_percent: 101, ..Default::default() },
        ];
        assert!(wrong.iter().all(|config| config.validate().is_err()));
    }
}

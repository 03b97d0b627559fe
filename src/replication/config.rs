//! How long a repair waits, and what it may take.

use crate::time::Duration;
use core::fmt;

/// What replication is to keep to. The default is the design's; set small, a whole cycle from a lost holder to its
/// substitute fits into a minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationConfig {
    /// How long a piece must have had no more live copies than a quorum before it is repaired.
    pub urgent_after: Duration,
    /// The holder of rank i, by distance, waits i times this before it repairs.
    pub rank_wait: Duration,
    /// How long a newcomer must have been live before it counts as a holder.
    pub settle: Duration,
    /// How long a copy that is not needed here any more is kept all the same.
    pub surplus_after: Duration,
    /// Between two full checks of what is held with one neighbour.
    pub reconcile_interval: Duration,
    /// Copies under way at a time.
    pub transfers_max: usize,
    /// Bytes that repair may send in a second; 0 is a quarter of the uplink as observed.
    pub bytes_per_second: u64,
    /// When more of the neighbourhood than this, in percent, fall silent within one window, this node takes itself for the
    /// one that is cut off, and repairs nothing.
    pub cut_off_percent: u8,
    /// How long a node that takes itself for cut off waits until it repairs all the same: pieces of which only one live copy
    /// is known after this, the others after four times as long.
    pub cut_off_wait: Duration,
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
            cut_off_wait: Duration::from_secs(900),
        }
    }
}

/// Values of replication that contradict each other, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTiming(pub &'static str);

impl fmt::Display for InvalidTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings of [repair] contradict each other: {}", self.0)
    }
}

impl std::error::Error for InvalidTiming {}

impl ReplicationConfig {
    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), InvalidTiming> {
        let rules = [
            (!self.rank_wait.is_zero(), "without a wait by `rank` every holder makes the same copy"),
            (!self.reconcile_interval.is_zero(), "checking without a pause would never let the node rest"),
            (self.transfers_max >= 1, "a repair needs one transfer"),
            ((1..=100).contains(&self.cut_off_percent), "`cut_off_percent` is 1 to 100"),
            (
                self.surplus_after > self.settle,
                "a surplus copy must outlast the time in which a newcomer settles: `surplus` over `settle`",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(InvalidTiming(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_contradiction_is_named() {
        let default = ReplicationConfig::default();
        assert_eq!(default.validate(), Ok(()));
        for (wrong, expected) in [
            (ReplicationConfig { rank_wait: Duration::ZERO, ..default.clone() }, "`rank`"),
            (ReplicationConfig { transfers_max: 0, ..default.clone() }, "one transfer"),
            (ReplicationConfig { cut_off_percent: 101, ..default.clone() }, "1 to 100"),
            (ReplicationConfig { surplus_after: Duration::from_secs(60), ..default.clone() }, "`settle`"),
        ] {
            assert!(wrong.validate().unwrap_err().to_string().contains(expected), "{expected}");
        }
    }
}

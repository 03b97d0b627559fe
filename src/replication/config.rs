//! The configuration of replication.

use crate::peers::party::Parties;
use crate::time::Duration;
use core::fmt;

/// The configuration of replication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationConfig {
    /// How long a piece must have no more live copies than a quorum before a silent holder is replaced.
    pub urgent_after: Duration,
    /// How much longer each holder waits than the next nearer one.
    pub rank_wait: Duration,
    /// How long a new node must be live before it counts as a holder.
    pub settle: Duration,
    /// How long a surplus piece is kept after all its holders have it.
    pub surplus_after: Duration,
    /// The time between two full comparisons with one neighbour.
    pub reconcile_interval: Duration,
    /// Copies under way at a time.
    pub transfers_max: usize,
    /// The bandwidth of repair in bytes per second; 0 means a quarter of the measured uplink, and 1 MiB until it is measured.
    pub bytes_per_second: u64,
    /// When at least three nodes, and more than this percentage of the neighbourhood, fall silent within
    /// [`cut_off_window`](ReplicationConfig::cut_off_window), this node suspects that it is partitioned, and suspends repair.
    pub cut_off_percent: u8,
    /// The window in which silences count together. They are not all detected at the same moment.
    pub cut_off_window: Duration,
    /// How long repair is suspended for pieces with only one known live copy, unless most of the network answers: then they do not
    /// wait. For other pieces it is suspended four times as long.
    pub cut_off_wait: Duration,
    /// The largest number of pieces in the table.
    pub pieces_max: usize,
    /// How parties are told apart.
    pub parties: Parties,
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
            parties: Parties::default(),
        }
    }
}

/// A contradiction between values of the configuration, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidReplication(pub &'static str);

impl fmt::Display for InvalidReplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repair settings contradict each other: {}", self.0)
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
                "holders must wait at least a second for each other, or they all copy at once",
            ),
            (self.reconcile_interval >= second, "neighbours can compare at most once a second"),
            (
                self.surplus_after >= self.settle,
                "surplus copies must be kept at least until the nodes that replace them have settled",
            ),
            (self.transfers_max >= 1, "repair needs at least one copy at a time"),
            (self.transfers_max <= 64, "at most 64 copies can be under way at a time"),
            (
                self.cut_off_percent <= 100,
                "the share of the neighbourhood that falls silent is at most 100 percent",
            ),
            (self.pieces_max >= 1, "the table needs room for at least one piece"),
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

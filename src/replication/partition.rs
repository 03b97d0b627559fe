//! Partition suspicion: whether this node has lost the others, rather than the others their lives.
//!
//! When a large part of the neighbourhood is gone within one window, the likeliest cause is near: this node's own link. To
//! copy everything to the few that are left would be wrong twice: the copies exist, and the link is bad. So repair
//! waits, longest for pieces of which more than one live copy is known, and goes on as soon as enough came back.
//!
//! In a small network one node is a large part. Fewer than [`VANISHED_MIN`] never count as a partition, so that eight nodes
//! repair what the ninth held as usual.

use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// Fewer nodes than this never make a partition.
pub(super) const VANISHED_MIN: usize = 3;
/// How many vanished nodes are remembered.
const VANISHED_MAX: usize = 64;

/// The suspicion of a partition: the nodes that vanished lately, and since when repair is suspended.
pub(super) struct Partition {
    percent: usize,
    window: Duration,
    wait: Duration,
    vanished: Vec<(NodeId, Instant)>,
    since: Option<Instant>,
}

impl Partition {
    /// Nobody vanished yet.
    pub(super) fn new(percent: u8, window: Duration, wait: Duration) -> Self {
        Partition { percent: usize::from(percent), window, wait, vanished: Vec::new(), since: None }
    }

    /// A neighbour became unresponsive.
    pub(super) fn vanished(&mut self, now: Instant, id: NodeId) {
        self.vanished.retain(|(known, _)| *known != id);
        if self.vanished.len() < VANISHED_MAX {
            self.vanished.push((id, now));
        }
    }

    /// A node answers.
    pub(super) fn returned(&mut self, id: &NodeId) {
        self.vanished.retain(|(known, _)| known != id);
    }

    /// Looks at the whole: `neighbours` counts those that were there, silent ones included. Whether a partition begins.
    pub(super) fn judge(&mut self, now: Instant, neighbours: usize) -> bool {
        if self.since.is_none() {
            self.vanished.retain(|(_, at)| now.since(*at) < self.window);
        }
        let enough = self.vanished.len() >= VANISHED_MIN
            && self.vanished.len() * 100 > neighbours.max(self.vanished.len()) * self.percent;
        let over = self.since.is_some_and(|since| now >= since + self.wait * 4);
        if over {
            self.vanished.clear();
        }
        let begins = enough && self.since.is_none();
        match (enough && !over, self.since) {
            (true, None) => self.since = Some(now),
            (false, _) => self.since = None,
            _ => {}
        }
        begins
    }

    /// Since when this node suspects that it is partitioned.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Until when a piece with so many live copies is not repaired.
    pub(super) fn until(&self, live: u8) -> Option<Instant> {
        self.since.map(|since| since + if live <= 1 { self.wait } else { self.wait * 4 })
    }

    /// When [`judge`](Partition::judge) would end the suspension if nobody came back.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.since.map(|since| since + self.wait * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(15, Duration::from_secs(90), Duration::from_secs(900))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn one_or_two_nodes_are_no_partition_however_small_the_network() {
        let mut partition = partition();
        for number in 1..3 {
            partition.vanished(at(10), id(number));
            assert!(!partition.judge(at(10), 4));
        }
        partition.vanished(at(11), id(3));
        assert!(partition.judge(at(11), 7));
    }

    #[test]
    fn those_that_go_one_by_one_are_no_partition() {
        let mut partition = partition();
        for number in 0..30 {
            let now = at(100 * u64::from(number));
            partition.vanished(now, id(number));
            assert!(!partition.judge(now, 40));
        }
    }

    #[test]
    fn it_ends_when_enough_came_back_or_after_four_waits() {
        let mut partition = partition();
        (0..10).for_each(|number| partition.vanished(at(u64::from(number) * 5), id(number)));
        assert!(partition.judge(at(50), 40));
        assert!(!partition.judge(at(600), 40), "it begins once");
        assert_eq!((partition.until(1), partition.until(2)), (Some(at(950)), Some(at(3650))));
        (0..3).for_each(|number| partition.returned(&id(number)));
        partition.judge(at(610), 40);
        assert!(partition.since().is_some(), "7 of 40 are too many");
        partition.returned(&id(3));
        partition.judge(at(611), 40);
        assert_eq!(partition.since(), None, "6 of 40 are not");

        (0..10).for_each(|number| partition.vanished(at(1000), id(number)));
        assert!(partition.judge(at(1000), 40));
        partition.judge(at(4600), 40);
        assert_eq!(partition.since(), None);
        assert!(!partition.judge(at(4601), 40), "the same silence does not begin another");
    }
}

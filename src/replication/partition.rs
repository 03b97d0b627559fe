//! Partition suspicion: whether this node has lost its link, rather than its neighbours their lives.
//!
//! When a large part of the neighbourhood vanishes within one window, the likeliest cause is this node's own link. Then it would be
//! wrong to copy everything to the few neighbours left: the copies still exist, and the link is bad. So repair is suspended, longest
//! for pieces with more than one known live copy, and resumes soon after enough neighbours return.
//!
//! The neighbourhood alone does not tell a bad link from a disaster. So the caller surveys the whole network ([`survey`]). When most of
//! it answers, this node is not the one that was cut off. Then a last live copy does not wait, and any other piece does: one more copy
//! is cheap if the silent nodes return, and none is needed beyond that.
//!
//! [`survey`]: Partition::survey
//!
//! In a small network one node is a large part. Fewer than [`VANISHED_MIN`] nodes never count as a partition, so eight nodes repair
//! what a ninth held as usual.

use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// Fewer vanished nodes than this are never a partition.
pub(super) const VANISHED_MIN: usize = 3;
/// Vanished nodes that are remembered.
const VANISHED_MAX: usize = 64;

/// The suspicion of this node that it is partitioned, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspicion {
    /// Since when.
    pub since: Instant,
    /// The neighbours that fell silent at once and have not answered since.
    pub silent: usize,
    /// All neighbours, silent ones included.
    pub neighbours: usize,
    /// The suspicion ends when no more than this many of them are silent.
    pub tolerated: usize,
    /// When it ends even if no neighbour answers.
    pub ends_at: Instant,
}

/// The nodes that vanished recently, and since when repair is suspended.
pub(super) struct Partition {
    percent: usize,
    window: Duration,
    wait: Duration,
    vanished: Vec<(NodeId, Instant)>,
    since: Option<Instant>,
    /// Whether most of the network answers, although so many neighbours are silent.
    most_answer: bool,
    /// How long repair waits after enough neighbours have returned, and until when it does.
    calm: Duration,
    calm_until: Option<Instant>,
    /// The number of neighbours when the suspicion was last judged.
    neighbours: usize,
}

impl Partition {
    /// No suspicion, and no vanished nodes.
    ///
    /// `calm` is the time in which nodes that have returned settle and are compared with. Until then their copies do not count, and
    /// would be made once more.
    pub(super) fn new(percent: u8, window: Duration, wait: Duration, calm: Duration) -> Self {
        Partition {
            percent: usize::from(percent),
            window,
            wait,
            vanished: Vec::new(),
            since: None,
            most_answer: false,
            calm,
            calm_until: None,
            neighbours: 0,
        }
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

    /// Updates the suspicion. `neighbours` is the number of neighbours, silent ones included. Returns whether the suspicion begins.
    pub(super) fn judge(&mut self, now: Instant, neighbours: usize) -> bool {
        if self.since.is_none() {
            self.vanished.retain(|(_, at)| now.since(*at) < self.window);
        }
        self.neighbours = neighbours.max(self.vanished.len());
        let enough = self.vanished.len() > self.tolerated();
        let over = self.since.is_some_and(|since| now >= since + self.wait * 4);
        if over {
            self.vanished.clear();
        }
        let begins = enough && self.since.is_none();
        match (enough && !over, self.since) {
            (true, None) => (self.since, self.most_answer) = (Some(now), false),
            (false, Some(_)) => {
                self.since = None;
                self.calm_until = (!over).then_some(now + self.calm);
            }
            _ => {}
        }
        begins
    }

    /// A survey of the network has ended: whether most of those asked answered. It counts for the suspicion under way.
    pub(super) fn survey(&mut self, most_answer: bool) {
        self.most_answer = most_answer;
    }

    /// The most vanished nodes that are no partition.
    fn tolerated(&self) -> usize {
        (self.neighbours * self.percent / 100).max(VANISHED_MIN - 1)
    }

    /// The suspicion that this node is partitioned, if there is one.
    pub(super) fn suspicion(&self) -> Option<Suspicion> {
        let (silent, neighbours, tolerated) = (self.vanished.len(), self.neighbours, self.tolerated());
        let suspicion = |(since, ends_at)| Suspicion { since, silent, neighbours, tolerated, ends_at };
        self.since.zip(self.ends_at()).map(suspicion)
    }

    /// Until when a piece with `live` live copies is not repaired.
    pub(super) fn until(&self, live: u8) -> Option<Instant> {
        match self.since {
            Some(_) if live <= 1 && self.most_answer => None,
            Some(since) if live <= 1 => Some(since + self.wait),
            None if live <= 1 => None,
            _ => self.others_until(),
        }
    }

    /// Until when no piece is placed or dropped, and none with more than one live copy is repaired.
    pub(super) fn others_until(&self) -> Option<Instant> {
        self.ends_at().or(self.calm_until)
    }

    /// When [`judge`](Partition::judge) would end the suspicion even if no neighbour returned.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.since.map(|since| since + self.wait * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(15, Duration::from_secs(90), Duration::from_secs(900), Duration::from_secs(120))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn one_or_two_vanished_nodes_are_never_a_partition() {
        let mut partition = partition();
        for number in 1..3 {
            partition.vanished(at(10), id(number));
            assert!(!partition.judge(at(10), 4));
        }
        partition.vanished(at(11), id(3));
        assert!(partition.judge(at(11), 7));
    }

    #[test]
    fn nodes_that_vanish_one_by_one_are_no_partition() {
        let mut partition = partition();
        for number in 0..30 {
            let now = at(100 * u64::from(number));
            partition.vanished(now, id(number));
            assert!(!partition.judge(now, 40));
        }
    }

    #[test]
    fn the_suspicion_ends_when_enough_return_or_after_four_waits() {
        let mut partition = partition();
        (0..10).for_each(|number| partition.vanished(at(u64::from(number) * 5), id(number)));
        assert!(partition.judge(at(50), 40));
        assert!(!partition.judge(at(600), 40), "it begins once");
        assert_eq!(partition.until(1), Some(at(950)));
        assert_eq!(partition.until(2), Some(at(3650)));
        (0..3).for_each(|number| partition.returned(&id(number)));
        partition.judge(at(610), 40);
        assert!(partition.suspicion().is_some(), "7 of 40 are too many");
        partition.returned(&id(3));
        partition.judge(at(611), 40);
        assert_eq!(partition.suspicion(), None, "6 of 40 are not");

        (0..10).for_each(|number| partition.vanished(at(1000), id(number)));
        assert!(partition.judge(at(1000), 40));
        partition.judge(at(4600), 40);
        assert_eq!(partition.suspicion(), None);
        assert!(!partition.judge(at(4601), 40), "the same silence does not begin another");
    }

    #[test]
    fn a_last_copy_does_not_wait_while_most_of_the_network_answers() {
        let mut partition = partition();
        (0..10).for_each(|number| partition.vanished(at(50), id(number)));
        partition.judge(at(50), 40);
        assert_eq!(partition.until(1), Some(at(950)), "no survey has ended");
        partition.survey(true);
        assert_eq!(partition.until(1), None);
        assert_eq!(partition.until(2), Some(at(3650)));
        partition.survey(false);
        assert_eq!(partition.until(1), Some(at(950)));
        partition.survey(true);
        (0..10).for_each(|number| partition.returned(&id(number)));
        partition.judge(at(100), 40);
        (0..10).for_each(|number| partition.vanished(at(500), id(number)));
        partition.judge(at(500), 40);
        assert_eq!(partition.until(1), Some(at(1400)), "an earlier survey does not count");
    }

    #[test]
    fn after_enough_have_returned_only_a_last_copy_does_not_wait_for_them_to_settle() {
        let mut partition = partition();
        (0..10).for_each(|number| partition.vanished(at(50), id(number)));
        partition.judge(at(50), 40);
        (0..10).for_each(|number| partition.returned(&id(number)));
        partition.judge(at(600), 40);
        assert_eq!(partition.suspicion(), None);
        assert_eq!(partition.until(2), Some(at(720)));
        assert_eq!(partition.others_until(), Some(at(720)));
        assert_eq!(partition.until(1), None);
        partition.judge(at(700), 40);
        assert_eq!(partition.until(2), Some(at(720)), "it does not begin anew");
    }

    #[test]
    fn the_suspicion_tells_the_silent_neighbours_and_how_many_of_them_may_stay_silent() {
        let mut partition = partition();
        (0..6).for_each(|number| partition.vanished(at(10), id(number)));
        partition.judge(at(10), 20);
        let begun = Suspicion { since: at(10), silent: 6, neighbours: 20, tolerated: 3, ends_at: at(3610) };
        assert_eq!(partition.suspicion(), Some(begun));
        partition.returned(&id(0));
        partition.returned(&id(1));
        partition.judge(at(20), 19);
        assert_eq!(
            partition.suspicion(),
            Some(Suspicion { silent: 4, neighbours: 19, tolerated: 2, ..begun })
        );
        partition.returned(&id(2));
        partition.returned(&id(3));
        partition.judge(at(30), 19);
        assert_eq!(partition.suspicion(), None);
    }
}

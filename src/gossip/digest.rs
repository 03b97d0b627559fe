//! What a digest tells: which members its sender knows, and in which parts of the key space it knows no others.
//!
//! A digest names the nearest members of its sender without a gap, and then, in most rounds, a run of the others, also without a gap:
//! in the order of their distance, and from the farthest on again with the nearest. Runs follow each other through the whole
//! table, so a few rounds compare the whole tables of two nodes (anti-entropy), and a node learns of members that no rumour
//! told it of. A sender that has no room for more names that run backwards, which promises nothing about the gaps.

use crate::id::ShortId;
use crate::wire::gossip::GossipBody;
use crate::wire::state::StateMark;

/// The parts of the key space in which a digest names all members that its sender knows. Distances are those to the sender.
pub(super) struct Coverage<'a> {
    sender: u64,
    marks: &'a [StateMark],
    /// All members nearer than this are named.
    horizon: u64,
    /// The first and the last member of the run of others. The run goes over the farthest member when the last is nearer than the first.
    run: Option<(u64, u64)>,
}

impl<'a> Coverage<'a> {
    /// What the digest of `asked` covers, which `sender` sent.
    pub(super) fn of(sender: ShortId, asked: &GossipBody<'a>) -> Self {
        let sender = u64::from_be_bytes(sender);
        let distance = |mark: &StateMark| u64::from_be_bytes(mark.short) ^ sender;
        let (nearest, others) = asked.digest.split_at(usize::from(asked.nearest).min(asked.digest.len()));
        let horizon = match asked.whole {
            true => u64::MAX,
            false => nearest.iter().map(distance).max().unwrap_or(0),
        };
        let descents = others.windows(2).filter(|pair| distance(&pair[1]) <= distance(&pair[0])).count();
        let run = match others {
            [first, _, .., last] => Some((distance(first), distance(last))).filter(|(first, last)| {
                // One descent may be the step from the farthest member to the nearest.
                descents == 0 || descents == 1 && last < first
            }),
            _ => None,
        };
        Coverage { sender, marks: asked.digest, horizon, run }
    }

    /// The distance of a node to the sender.
    pub(super) fn distance(&self, short: ShortId) -> u64 {
        u64::from_be_bytes(short) ^ self.sender
    }

    /// The distance up to which the sender names all members that it knows.
    pub(super) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// Whether the sender lacks the node at this distance, and would count it among its nearest members.
    pub(super) fn lacks_near(&self, distance: u64) -> bool {
        distance != 0 && distance < self.horizon && !self.names(distance)
    }

    /// Whether the sender lacks the node at this distance, in the run of others.
    pub(super) fn lacks_far(&self, distance: u64) -> bool {
        let within = |(first, last): (u64, u64)| match first < last {
            true => first < distance && distance < last,
            false => first < distance || distance < last,
        };
        distance != 0 && distance >= self.horizon && self.run.is_some_and(within) && !self.names(distance)
    }

    fn names(&self, distance: u64) -> bool {
        self.marks.iter().any(|mark| self.distance(mark.short) == distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::gossip::Hops;
    use crate::wire::network::Network;
    use crate::wire::state::{About, NodeState};

    /// Whether the sender with id 0, which sends these distances, lacks the node at `distance`: among the nearest, among the others.
    fn lacks(distances: &[u64], nearest: u8, whole: bool, distance: u64) -> (bool, bool) {
        let identity = Identity::from_secret(&[1; 32]);
        let states = [NodeState::new(&Network::new("test"), &identity, &About::default(), 5)];
        let marks: Vec<StateMark> =
            distances.iter().map(|distance| StateMark::new(distance.to_be_bytes(), 1)).collect();
        let body = GossipBody {
            states: &states,
            digest: &marks,
            nearest,
            whole,
            hops: Hops::NO_NEWS,
            suspicions: &[],
        };
        let coverage = Coverage::of([0; 8], &body);
        (coverage.lacks_near(distance), coverage.lacks_far(distance))
    }

    #[test]
    fn a_node_nearer_than_the_last_of_the_nearest_is_lacking_unless_it_is_named() {
        assert_eq!(lacks(&[10, 20], 2, false, 15), (true, false));
        assert_eq!(lacks(&[10, 20], 2, false, 10), (false, false));
        assert_eq!(lacks(&[10, 20], 2, false, 30), (false, false));
        assert_eq!(lacks(&[10, 20], 2, true, 30), (true, false), "the digest is whole");
        assert_eq!(lacks(&[10, 20], 2, false, 0), (false, false), "the sender knows itself");
        assert_eq!(lacks(&[], 0, true, 30), (true, false), "the sender knows nobody");
    }

    #[test]
    fn a_node_between_two_of_a_run_is_lacking() {
        let run = [10, 20, 100, 200, 300];
        assert_eq!(lacks(&run, 2, false, 150), (false, true));
        assert_eq!(lacks(&run, 2, false, 200), (false, false));
        assert_eq!(lacks(&run, 2, false, 50), (false, false), "it is before the run");
        assert_eq!(lacks(&run, 2, false, 400), (false, false), "it is behind the run");
    }

    #[test]
    fn a_run_over_the_farthest_member_covers_what_is_farther_than_that() {
        let run = [10, 20, 200, 300, 100];
        assert_eq!(lacks(&run, 2, false, 400), (false, true));
        assert_eq!(lacks(&run, 2, false, 50), (false, true));
        assert_eq!(lacks(&run, 2, false, 250), (false, true));
        assert_eq!(lacks(&run, 2, false, 150), (false, false));
    }

    #[test]
    fn a_run_that_is_named_backwards_or_in_no_order_promises_nothing() {
        for run in [[10, 20, 300, 200, 100], [10, 20, 200, 100, 300], [10, 20, 200, 200, 200]] {
            for distance in [50, 150, 250, 400] {
                assert_eq!(lacks(&run, 2, false, distance), (false, false), "{run:?}");
            }
        }
    }
}

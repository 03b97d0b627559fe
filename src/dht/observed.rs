//! The address at which other nodes see this one.

use crate::id::NodeId;
use crate::peers::party::{Parties, Party};
use crate::wire::contact::{canonical, scope_of};
use core::net::SocketAddr;
use std::collections::VecDeque;

/// Observations that count: the latest ones.
const VOTES_MAX: usize = 16;
/// Parties that must agree against the address that the node was configured to listen at.
const VOTES_AGAINST_CONFIGURED: usize = 3;

/// One vote for each party: its latest. So the owner of a prefix cannot outvote others.
pub(super) struct Observed {
    configured: Option<SocketAddr>,
    parties: Parties,
    votes: VecDeque<(Party, SocketAddr)>,
    own: Option<SocketAddr>,
}

impl Observed {
    /// `listen` is the own address until others agree on another, unless its IP is unspecified or its port is 0.
    pub(super) fn new(listen: SocketAddr, parties: Parties) -> Self {
        let listen = canonical(listen);
        let configured = Some(listen).filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
        Observed { configured, parties, votes: VecDeque::with_capacity(VOTES_MAX), own: configured }
    }

    /// The observer `voter`, at `from`, sees this node at `addr`. Returns whether that changes the own address.
    pub(super) fn vote(&mut self, voter: NodeId, from: SocketAddr, addr: SocketAddr) -> bool {
        let voter = self.parties.of(&voter, from);
        self.votes.retain(|(earlier, _)| *earlier != voter);
        if self.votes.len() == VOTES_MAX {
            self.votes.pop_front();
        }
        self.votes.push_back((voter, canonical(addr)));
        let before = self.own;
        self.own = self.elect();
        self.own != before
    }

    /// Whether `addr` contradicts the agreement of several observers. The port does not matter: a NAT may give each its own.
    pub(super) fn contradicts(&self, addr: SocketAddr) -> bool {
        let agree = |own: SocketAddr| self.votes.iter().filter(|(_, vote)| vote.ip() == own.ip()).count();
        let near = scope_of(addr).is_some();
        self.own.is_some_and(|own| {
            !near && canonical(addr).ip() != own.ip() && agree(own) >= VOTES_AGAINST_CONFIGURED
        })
    }

    /// The vote of an observer, at `from`, for `addr` is discarded.
    pub(super) fn retract(&mut self, voter: NodeId, from: SocketAddr, addr: SocketAddr) {
        let vote = (self.parties.of(&voter, from), canonical(addr));
        self.votes.retain(|earlier| *earlier != vote);
    }

    /// Discards all votes. The own address stays until the next one.
    pub(super) fn forget(&mut self) {
        self.votes.clear();
    }

    /// The own address, if it is known.
    pub(super) fn own(&self) -> Option<SocketAddr> {
        self.own
    }

    /// Whether there are so few observers that another one is worth asking.
    pub(super) fn wants_votes(&self) -> bool {
        self.votes.len() <= VOTES_AGAINST_CONFIGURED
    }

    fn elect(&self) -> Option<SocketAddr> {
        let count = |addr: SocketAddr| self.votes.iter().filter(|(_, vote)| *vote == addr).count();
        // A link-local address is told to nodes of that link only, so it counts where no observer sees another.
        let far = self.votes.iter().any(|(_, vote)| scope_of(*vote).is_none());
        let counts = |addr: &SocketAddr| !far || scope_of(*addr).is_none();
        // The present address wins a tie, then the one that was observed first.
        let mut best = self.own.filter(counts).map(|own| (own, count(own)));
        for &(_, addr) in self.votes.iter().filter(|(_, vote)| counts(vote)) {
            let votes = count(addr);
            if best.is_none_or(|(_, most)| votes > most) {
                best = Some((addr, votes));
            }
        }
        let (addr, votes) = best?;
        match self.configured {
            Some(configured) if votes < VOTES_AGAINST_CONFIGURED => Some(configured),
            _ => Some(addr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_observer_is_enough_after_earlier_votes_were_discarded() {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 1));
        let mut observed = Observed::new(unspecified, Parties::ByNode);
        let vote = |observed: &mut Observed, voter, last| {
            observed.vote(NodeId([voter; 32]), addr(voter), addr(last))
        };
        (1..=5).for_each(|voter| _ = vote(&mut observed, voter, 7));
        assert!(!vote(&mut observed, 1, 8), "one against four");
        observed.forget();
        assert_eq!(observed.own(), Some(addr(7)));
        assert!(vote(&mut observed, 1, 8));
        assert_eq!(observed.own(), Some(addr(8)));
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, last], 1))
    }

    fn observer(net: u8) -> SocketAddr {
        SocketAddr::from(([8, 8, net, 1], 1))
    }

    #[test]
    fn the_first_observation_counts_and_the_majority_wins() {
        let mut observed = Observed::new(([0, 0, 0, 0], 3583).into(), Parties::ByAddress);
        assert_eq!(observed.own(), None);
        assert!(observed.vote(NodeId([1; 32]), observer(1), addr(1)));
        assert!(!observed.vote(NodeId([2; 32]), observer(2), addr(2)));
        assert!(observed.vote(NodeId([3; 32]), observer(3), addr(2)));
        assert_eq!(observed.own(), Some(addr(2)));
    }

    #[test]
    fn a_link_local_address_is_the_own_one_only_while_no_other_is_seen() {
        let near = |last: u8| -> SocketAddr { format!("[fe80::{last}%2]:1").parse().unwrap() };
        let mut observed = Observed::new(([0, 0, 0, 0], 3583).into(), Parties::ByNode);
        (1..4).for_each(|voter| _ = observed.vote(NodeId([voter; 32]), near(voter), near(9)));
        assert_eq!(observed.own(), Some(near(9)));
        assert!(observed.vote(NodeId([5; 32]), addr(5), addr(9)));
        assert_eq!(observed.own(), Some(addr(9)));
        assert!(!observed.vote(NodeId([6; 32]), near(6), near(9)));
    }

    #[test]
    fn only_another_ip_than_several_observers_see_is_a_contradiction() {
        let mut observed = Observed::new(([0, 0, 0, 0], 3583).into(), Parties::ByAddress);
        for voter in 1..3 {
            observed.vote(NodeId([voter; 32]), observer(voter), addr(1));
            assert!(!observed.contradicts(addr(2)), "{voter} observers");
        }
        observed.vote(NodeId([3; 32]), observer(3), addr(1));
        assert!(observed.contradicts(addr(2)));
        assert!(!observed.contradicts(SocketAddr::from(([9, 9, 9, 1], 4444))), "another port");
        observed.retract(NodeId([3; 32]), observer(3), addr(1));
        assert!(!observed.contradicts(addr(2)));
    }

    #[test]
    fn a_configured_address_yields_to_three_votes_and_a_prefix_has_one() {
        let mut observed = Observed::new(addr(5), Parties::ByAddress);
        for voter in 1..10 {
            assert!(!observed.vote(NodeId([voter; 32]), observer(1), addr(1)));
        }
        assert!(!observed.vote(NodeId([11; 32]), observer(2), addr(1)));
        assert!(observed.vote(NodeId([12; 32]), observer(3), addr(1)));
        assert_eq!(observed.own(), Some(addr(1)));
    }
}

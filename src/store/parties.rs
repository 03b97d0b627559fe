//! Parties in the store: which stored pieces give way when a piece of another party finds no room. Where all nodes have the network's
//! secret, none does.
//!
//! A node stores what any identity brings, so what is bounded is the part of a *party*. While there is room no piece is refused and
//! none gives way. In a full store a piece finds room at the expense of the party that has most: more than twice as much as the
//! newcomer's party would have then. That distance keeps a full store calm, since what gives way has to be copied anew elsewhere.
//!
//! A piece counts for the party of its publisher, where the publisher is a peer, and else for the party that brings it: a neighbour that
//! repairs the pieces of others does not fill the store with them.
//!
//! Room is made when the first bytes of a piece arrive, before they can be verified. What a party displaced with bytes that then failed
//! to verify, or never came, counts as brought by it for a day. So junk displaces no more than real pieces would.

use super::accounts::{Accounts, Group};
use crate::claim::PieceClaim;
use crate::id::NodeId;
use crate::io::Brought;
use crate::peers::contest::Holder;
use crate::peers::party::{Level, Party};
use crate::peers::rate::{Limiter, PartyLimiter, Rate};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// The pace of contests, of all parties and of one: what gives way has to be copied anew elsewhere.
const CONTESTS: Rate = Rate::every(Duration::from_millis(32), 32);
const CONTESTS_OF_PARTY: Rate = Rate::every(Duration::from_millis(250), 8);
/// The time for which displacing pieces with bytes that fail to verify counts.
const OWED: Duration = Duration::from_secs(24 * 3600);
/// Failed displacements that are remembered.
const OWED_MAX: usize = 1024;

/// A piece that contests a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    /// The holder that it would count for.
    pub(super) holder: Holder,
    /// The party that brings it.
    pub(super) from: Party,
}

/// The group whose pieces give way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yielding {
    pub(super) group: Group,
    /// The most bytes that may give way.
    pub(super) surplus: u64,
}

/// The bytes that count for each party, and who displaced what.
pub(super) struct Parties {
    pub(super) accounts: Accounts,
    /// Failed displacements: the party's site, the bytes, and when they are forgotten.
    owed: VecDeque<(Party, u64, Instant)>,
    contests: Limiter,
    contests_of: PartyLimiter,
    /// Whether any piece gives way.
    pub(super) contested: bool,
}

/// The holder that a stored piece counts for: the party that brought it, and in it the piece's publisher. A piece whose party is not
/// known was stored by an earlier version: its publisher counts as a party of its own.
pub(super) fn holder_of(brought: &Brought, claim: Option<&PieceClaim>) -> Holder {
    // The key tells publishers apart as well as its hash, which would cost more than the rest of a contest.
    let publisher = NodeId(claim.map_or([0; 32], |claim| claim.publisher().0));
    let identity = publisher.short();
    let party = match *brought == Brought::default() {
        true => Party::node(&publisher),
        false => Party::from_bytes(brought.0),
    };
    Holder { party, identity }
}

impl Parties {
    /// No pieces. `secret` hides which parties share a pace.
    pub(super) fn new(secret: u64) -> Self {
        let (contests, contests_of) = (Limiter::new(CONTESTS), PartyLimiter::new(CONTESTS_OF_PARTY, secret));
        let (accounts, owed) = (Accounts::default(), VecDeque::new());
        Parties { accounts, owed, contests, contests_of, contested: true }
    }

    /// Whether a piece that this party brings may contest a place now; then that counts. Contests must not come too often.
    pub(super) fn may_contest(&mut self, now: Instant, from: Party) -> bool {
        self.contested && self.contests_of.take(now, from) && self.contests.take(now)
    }

    /// Whose pieces give way to a newcomer that is going to take `cost` bytes: level by level the group with the most, as long as that has
    /// more than twice what the newcomer's group would have. `None` when there is no such group.
    pub(super) fn yielding(&self, now: Instant, newcomer: &Newcomer, cost: u64) -> Option<Yielding> {
        let from = newcomer.from.at(Level::Site);
        let owed = self.owed.iter().filter(|(party, _, until)| *party == from && *until > now);
        let more = owed.map(|(_, bytes, _)| bytes).sum::<u64>().saturating_add(cost);
        let yields = |group: Group, bytes: u64, own: u64| {
            let surplus = bytes.saturating_sub(own.saturating_add(more).saturating_mul(2));
            (surplus > 0).then_some(Yielding { group, surplus })
        };
        let (site, bytes) = self.accounts.largest_site()?;
        let holder = newcomer.holder;
        if site != holder.party.at(Level::Site) {
            let one = Holder { party: site, identity: [0; 8] };
            return yields(Group { one, level: Some(Level::Site) }, bytes, self.accounts.of_site(&holder));
        }
        // Inside the newcomer's own group the next level decides.
        let sum = |group: &[(Holder, u64)]| group.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut group: Vec<(Holder, u64)> = self.accounts.holders_of(site).collect();
        for level in [Some(Level::Home), Some(Level::Link), None] {
            let same = |a: &Holder, b: &Holder| a.is_one_with(b, level);
            let groups = || group.chunk_by(|a, b| same(&a.0, &b.0));
            let largest = groups().max_by_key(|group| sum(group))?;
            let (one, _) = *largest.first()?;
            if !same(&one, &holder) {
                let own = groups().find(|group| group.iter().any(|(other, _)| same(other, &holder)));
                return yields(Group { one, level }, sum(largest), own.map_or(0, sum));
            }
            group = largest.to_vec();
        }
        None
    }

    /// Bytes that this party brings begin to arrive in place of pieces that gave way. They count at once, whether or not they will verify.
    pub(super) fn displaces(&mut self, now: Instant, from: Party, bytes: u64) {
        self.owed.retain(|(_, _, until)| *until > now);
        if self.owed.len() >= OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back((from.at(Level::Site), bytes, now + OWED));
    }

    /// The piece that they belong to is stored, and counts as such.
    pub(super) fn settled(&mut self, from: Party, bytes: u64) {
        let site = from.at(Level::Site);
        let entry = self.owed.iter().position(|(party, owed, _)| *party == site && *owed == bytes);
        entry.and_then(|entry| self.owed.remove(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, PublicKey};
    use crate::io::{Mode, PieceMeta};
    use crate::manifest::Content;
    use crate::store::pieces::Pieces;
    use crate::store::room::Costs;

    const NOW: Instant = Instant::from_secs(1000);

    fn brought(ip: [u8; 4]) -> Brought {
        Brought(*Party::of(ip.into()).as_bytes())
    }

    fn newcomer(ip: [u8; 4]) -> Newcomer {
        let party = Party::of(ip.into());
        Newcomer { holder: Holder { party, identity: [9; 8] }, from: party }
    }

    /// A piece of 744 bytes, which takes 1,000 on disk, brought from an address and claimed by a publisher.
    fn piece(number: u8, ip: [u8; 4], publisher: Option<u8>) -> PieceMeta {
        let claim = publisher.map(|one| PieceClaim::unsigned(PublicKey([one; 32]), 3, 900, 1));
        let (content, mode, expires) = (Content::File, Mode::UNKNOWN, 5000 + u64::from(number));
        let (key, brought) = (Key([number; 32]), brought(ip));
        PieceMeta { key, content, length: 744, input_offset: 0, replicas: 3, mode, expires, claim, brought }
    }

    fn table(metas: impl IntoIterator<Item = PieceMeta>) -> Pieces {
        let mut pieces = Pieces::new(Costs::new(0), 7);
        metas.into_iter().for_each(|meta| pieces.insert(&meta));
        pieces
    }

    /// The pieces that are dropped for a newcomer of this many bytes.
    fn dropped(pieces: &mut Pieces, now: Instant, newcomer: &Newcomer, cost: u64) -> Option<Vec<Key>> {
        let given = pieces.give_way((now, 100), newcomer, (cost, cost));
        (!given.dropped.is_empty()).then_some(given.dropped)
    }

    fn victims(pieces: &mut Pieces, from: [u8; 4]) -> Option<Vec<u8>> {
        let chosen = dropped(pieces, NOW, &newcomer(from), 1000)?;
        Some(chosen.into_iter().map(|key| key.0[0]).collect())
    }

    #[test]
    fn the_party_that_brought_most_gives_way_to_one_that_brought_less_than_half() {
        let own = |number| piece(number, [8, 8, 8, 1], Some(1));
        let mut pieces = table((0..6).map(own).chain([piece(7, [9, 9, 9, 1], Some(2))]));
        assert_eq!(victims(&mut pieces, [7, 7, 7, 1]), Some(vec![5]), "the one that was to be kept longest");
        assert_eq!(victims(&mut pieces, [9, 9, 9, 2]), Some(vec![5]), "it would have 2,000 of 6,000");
        pieces.insert(&piece(8, [9, 9, 9, 1], Some(2)));
        assert_eq!(victims(&mut pieces, [9, 9, 9, 2]), None, "half as much as the largest");
    }

    #[test]
    fn in_a_network_with_a_secret_no_piece_gives_way() {
        let mut pieces = table((0..6).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        pieces.parties.contested = false;
        assert_eq!(victims(&mut pieces, [7, 7, 7, 1]), None);
    }

    #[test]
    fn of_the_largest_party_the_publisher_with_most_gives_way_and_what_is_unclaimed_first() {
        let mut pieces = table(
            (0..4)
                .map(|number| piece(number, [8, 8, 8, 1], Some(1)))
                .chain((4..6).map(|number| piece(number, [8, 8, 8, 2], Some(2)))),
        );
        assert_eq!(victims(&mut pieces, [7, 7, 7, 1]), Some(vec![3]));
        let mut pieces = table((0..4).map(|number| piece(number, [8, 8, 8, 1], None)));
        assert_eq!(victims(&mut pieces, [7, 7, 7, 1]), Some(vec![3]));
    }

    #[test]
    fn inside_one_party_publishers_share_what_there_is() {
        let mut pieces = table((0..5).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let mut own = newcomer([8, 8, 8, 1]);
        own.holder.identity = [1; 8];
        assert_eq!(dropped(&mut pieces, NOW, &own, 1000), None, "its own publisher has most");
        assert!(victims(&mut pieces, [8, 8, 8, 1]).is_some(), "another publisher of the same party");
    }

    #[test]
    fn junk_displaces_no_more_than_pieces_would() {
        let mut pieces = table((0..20).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let from = newcomer([7, 7, 7, 1]);
        let mut displaced = 0;
        for second in 0..40 {
            let now = NOW + Duration::from_secs(second);
            let Some(chosen) = dropped(&mut pieces, now, &from, 1000) else { continue };
            displaced += chosen.len();
            chosen.iter().for_each(|key| _ = pieces.remove(key));
            pieces.parties.displaces(now, from.from, 1000);
        }
        assert_eq!(displaced, 6, "fourteen are not more than twice seven");
        let later = NOW + OWED + Duration::from_secs(60);
        assert!(dropped(&mut pieces, later, &from, 1000).is_some(), "a day later it counts no more");
    }

    #[test]
    fn what_was_displaced_for_a_piece_that_came_counts_once() {
        let mut pieces = table((0..20).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let from = newcomer([7, 7, 7, 1]);
        let mut displaced = 0;
        for number in 100..140 {
            let now = NOW + Duration::from_secs(number);
            let Some(chosen) = dropped(&mut pieces, now, &from, 1000) else { continue };
            displaced += chosen.len();
            chosen.iter().for_each(|key| _ = pieces.remove(key));
            pieces.parties.displaces(now, from.from, 1000);
            pieces.insert(&piece(number as u8, [7, 7, 7, 1], Some(2)));
            pieces.parties.settled(from.from, 1000);
        }
        assert_eq!(displaced, 6, "as much as junk displaces");
    }

    #[test]
    fn many_publishers_of_one_party_give_way_together() {
        let mut pieces = table((0..40).map(|number| piece(number, [8, 8, 8, 1], Some(number))));
        let chosen = dropped(&mut pieces, NOW, &newcomer([7, 7, 7, 1]), 9000).unwrap();
        assert_eq!(chosen.len(), 9);
    }

    /// A claim of a publisher on a piece, for longer than [`piece`] is claimed.
    fn longer(publisher: u8) -> PieceClaim {
        PieceClaim::unsigned(PublicKey([publisher; 32]), 3, 9000, 1)
    }

    fn raise(pieces: &mut Pieces, number: u8, by: [u8; 4]) {
        assert!(pieces.claim(&Key([number; 32]), &longer(9), brought(by), 100).newer);
        pieces.raise(&Key([number; 32]), 20, 100_000 + u64::from(number), 100);
    }

    #[test]
    fn a_party_that_raised_the_pieces_of_others_gives_way_without_taking_them_along() {
        let own = |number: u8| piece(number, [number, 8, 8, 1], Some(number));
        let mut pieces = table((0..8).map(own).chain([piece(9, [6, 6, 6, 1], Some(9))]));
        (0..8).for_each(|number| raise(&mut pieces, number, [6, 6, 6, 1]));
        let given = pieces.give_way((NOW, 100), &newcomer([7, 7, 7, 1]), (1000, 1000));
        assert_eq!(given.fallen.len(), 8, "it holds nine pieces");
        assert_eq!(given.dropped, [], "now it holds one, like all others");
        for number in 0..8 {
            assert_eq!(pieces.get(&Key([number; 32])), Some(own(number)));
        }
        assert_eq!(pieces.next_expiry(), Some((5000, Key([0; 32]))));
    }

    #[test]
    fn pieces_that_are_here_only_because_they_were_raised_are_dropped() {
        let mut pieces = table((0..8).map(|number| piece(number, [number, 8, 8, 1], Some(number))));
        (0..8).for_each(|number| raise(&mut pieces, number, [6, 6, 6, 1]));
        let given = pieces.give_way((NOW, 9000), &newcomer([7, 7, 7, 1]), (1000, 1000));
        assert_eq!(given.dropped, [Key([7; 32])]);
        assert_eq!(given.fallen, []);
    }

    #[test]
    fn in_a_network_with_a_secret_a_raised_piece_counts_for_whom_it_counted_before() {
        let mut pieces = table([piece(1, [8, 8, 8, 1], Some(1))]);
        pieces.parties.contested = false;
        raise(&mut pieces, 1, [6, 6, 6, 1]);
        assert_eq!(pieces.get(&Key([1; 32])).map(|piece| piece.brought), Some(brought([8, 8, 8, 1])));
    }

    #[test]
    fn what_a_party_displaces_with_junk_counts_for_it_and_not_for_the_publisher() {
        let mut pieces = table((0..20).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let publisher = newcomer([7, 7, 7, 1]);
        let junk = Newcomer { from: Party::of([6, 6, 6, 1].into()), ..publisher };
        for second in 0..40 {
            if dropped(&mut pieces, NOW + Duration::from_secs(second), &junk, 1000).is_some() {
                pieces.parties.displaces(NOW, junk.from, 1000);
            }
        }
        assert_eq!(dropped(&mut pieces, NOW + Duration::from_secs(60), &junk, 1000), None);
        assert!(dropped(&mut pieces, NOW + Duration::from_secs(60), &publisher, 1000).is_some());
    }

    #[test]
    fn contests_are_paced() {
        let mut pieces = table((0..200).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let held = (0..40).filter(|_| victims(&mut pieces, [7, 7, 7, 1]).is_some()).count();
        assert_eq!(held, 8);
        assert!(victims(&mut pieces, [6, 6, 6, 1]).is_some(), "another party waits for its own only");
    }

    #[test]
    fn pieces_of_an_unknown_party_count_for_their_publishers() {
        let unknown =
            |number, publisher| PieceMeta { brought: Brought::default(), ..piece(number, [0; 4], publisher) };
        let mut pieces = table([
            unknown(1, Some(1)),
            unknown(2, Some(2)),
            unknown(3, Some(3)),
            unknown(4, Some(3)),
            unknown(5, Some(3)),
        ]);
        assert_eq!(victims(&mut pieces, [7, 7, 7, 1]), Some(vec![5]));
        pieces.remove(&Key([5; 32]));
        assert_eq!(
            victims(&mut pieces, [7, 7, 7, 1]),
            None,
            "no publisher has more than twice a newcomer's piece"
        );
    }
}

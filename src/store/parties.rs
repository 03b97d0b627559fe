//! Parties in the store: which stored pieces give way when a piece of another party finds no room. Where all nodes have the network's
//! secret, none does.
//!
//! A node stores what any identity brings, so what is bounded is the part of a *party*. While there is room no piece is refused and
//! none gives way. In a full store a piece finds room at the expense of the party that brought most: more than twice as much as the
//! newcomer's party would have then. That distance keeps a full store calm, since what gives way has to be copied anew elsewhere.
//!
//! Room is made when the first bytes of a piece arrive, before they can be verified. What a party displaced with bytes that then failed
//! to verify, or never came, counts as brought by it for a day. So junk displaces no more than real pieces would.

use crate::claim::PieceClaim;
use crate::id::NodeId;
use crate::io::Brought;
use crate::peers::contest::Holder;
use crate::peers::party::{Level, Party};
use crate::peers::rate::{Limiter, PartyLimiter, Rate};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// The pace of contests, of all parties and of one: each contest reads the whole table.
const CONTESTS: Rate = Rate::every(Duration::from_millis(32), 32);
const CONTESTS_OF_PARTY: Rate = Rate::every(Duration::from_millis(250), 8);
/// The time for which displacing pieces with bytes that fail to verify counts.
const OWED: Duration = Duration::from_secs(24 * 3600);
/// Failed displacements that are remembered.
const OWED_MAX: usize = 1024;

/// The group whose pieces give way.
pub(super) struct Yielding {
    /// Its holders, with the bytes of each.
    pub(super) holders: BTreeMap<Holder, u64>,
    /// The most bytes that may give way.
    pub(super) surplus: u64,
}

/// The bytes that each party brought.
pub(super) struct Parties {
    bytes: BTreeMap<Holder, u64>,
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
        Parties { bytes: BTreeMap::new(), owed: VecDeque::new(), contests, contests_of, contested: true }
    }

    /// A piece of this holder takes these bytes.
    pub(super) fn add(&mut self, holder: Holder, bytes: u64) {
        *self.bytes.entry(holder).or_default() += bytes;
    }

    /// A piece of this holder is gone.
    pub(super) fn remove(&mut self, holder: &Holder, bytes: u64) {
        let Some(held) = self.bytes.get_mut(holder) else {
            debug_assert!(false, "a piece that was never added");
            return;
        };
        *held = held.saturating_sub(bytes);
        if *held == 0 {
            self.bytes.remove(holder);
        }
    }

    /// Whose pieces give way to a newcomer that is going to take `cost` bytes: level by level the group with the most, as long as that has
    /// more than twice what the newcomer's group would have. `None` when there is no such group, or when contests come too often.
    pub(super) fn yielding(&mut self, now: Instant, newcomer: &Holder, cost: u64) -> Option<Yielding> {
        if !self.contested {
            return None;
        }
        if !self.contests_of.take(now, newcomer.party) || !self.contests.take(now) {
            return None;
        }
        let site = newcomer.party.at(Level::Site);
        let owed = self.owed.iter().filter(|(party, _, until)| *party == site && *until > now);
        let owed: u64 = owed.map(|(_, bytes, _)| bytes).sum();
        let sum = |group: &[(Holder, u64)]| group.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut group: Vec<(Holder, u64)> =
            self.bytes.iter().map(|(holder, bytes)| (*holder, *bytes)).collect();
        for level in [Some(Level::Site), Some(Level::Home), Some(Level::Link), None] {
            let same = |a: &Holder, b: &Holder| match level {
                Some(level) => a.party.at(level) == b.party.at(level),
                None => a == b,
            };
            let own: Vec<(Holder, u64)> =
                group.iter().filter(|(holder, _)| same(holder, newcomer)).copied().collect();
            let largest = group.chunk_by(|a, b| same(&a.0, &b.0)).max_by_key(|group| sum(group))?.to_vec();
            if largest.iter().any(|(holder, _)| same(holder, newcomer)) {
                // Inside the newcomer's own group the next level decides.
                group = largest;
                continue;
            }
            let own = sum(&own).saturating_add(owed).saturating_add(cost);
            let surplus = sum(&largest).saturating_sub(own.saturating_mul(2));
            return (surplus > 0).then(|| Yielding { holders: largest.into_iter().collect(), surplus });
        }
        None
    }

    /// A newcomer's bytes begin to arrive in place of pieces that gave way. They count at once, whether or not they will verify.
    pub(super) fn displaces(&mut self, now: Instant, newcomer: &Holder, bytes: u64) {
        self.owed.retain(|(_, _, until)| *until > now);
        if self.owed.len() >= OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back((newcomer.party.at(Level::Site), bytes, now + OWED));
    }

    /// The newcomer's piece is stored, and counts as such.
    pub(super) fn settled(&mut self, newcomer: &Holder, bytes: u64) {
        let site = newcomer.party.at(Level::Site);
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

    fn newcomer(ip: [u8; 4]) -> Holder {
        Holder { party: Party::of(ip.into()), identity: [9; 8] }
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

    fn victims(pieces: &mut Pieces, from: [u8; 4]) -> Option<Vec<u8>> {
        let chosen = pieces.give_way(NOW, &newcomer(from), (1000, 1000))?;
        Some(chosen.into_iter().map(|(key, _)| key.0[0]).collect())
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
        let own = Holder { identity: [1; 8], ..newcomer([8, 8, 8, 1]) };
        assert_eq!(pieces.give_way(NOW, &own, (1000, 1000)), None, "its own publisher has most");
        assert!(victims(&mut pieces, [8, 8, 8, 1]).is_some(), "another publisher of the same party");
    }

    #[test]
    fn junk_displaces_no_more_than_pieces_would() {
        let mut pieces = table((0..20).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let from = newcomer([7, 7, 7, 1]);
        let mut displaced = 0;
        for second in 0..40 {
            let now = NOW + Duration::from_secs(second);
            let Some(chosen) = pieces.give_way(now, &from, (1000, 1000)) else { continue };
            displaced += chosen.len();
            chosen.iter().for_each(|(key, _)| _ = pieces.remove(key));
            pieces.parties.displaces(now, &from, 1000);
        }
        assert_eq!(displaced, 6, "fourteen are not more than twice seven");
        let later = NOW + OWED + Duration::from_secs(60);
        assert!(pieces.give_way(later, &from, (1000, 1000)).is_some(), "a day later it counts no more");
    }

    #[test]
    fn what_was_displaced_for_a_piece_that_came_counts_once() {
        let mut pieces = table((0..20).map(|number| piece(number, [8, 8, 8, 1], Some(1))));
        let from = newcomer([7, 7, 7, 1]);
        let mut displaced = 0;
        for number in 100..140 {
            let now = NOW + Duration::from_secs(number);
            let Some(chosen) = pieces.give_way(now, &from, (1000, 1000)) else { continue };
            displaced += chosen.len();
            chosen.iter().for_each(|(key, _)| _ = pieces.remove(key));
            pieces.parties.displaces(now, &from, 1000);
            pieces.insert(&piece(number as u8, [7, 7, 7, 1], Some(2)));
            pieces.parties.settled(&from, 1000);
        }
        assert_eq!(displaced, 6, "as much as junk displaces");
    }

    #[test]
    fn many_publishers_of_one_party_give_way_together() {
        let mut pieces = table((0..40).map(|number| piece(number, [8, 8, 8, 1], Some(number))));
        let chosen = pieces.give_way(NOW, &newcomer([7, 7, 7, 1]), (9000, 9000)).unwrap();
        assert_eq!(chosen.len(), 9);
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

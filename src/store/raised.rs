//! Raised pieces: stored pieces that a publisher other than their own wants for longer, or in more copies.
//!
//! A claim costs its publisher a signature and no bytes. So a raised piece counts for the party of the claim, as if that had
//! brought the piece. When it has to give way in a full store, the piece falls back to what it was before, and counts for its
//! first party again. So no party keeps a full store full with the pieces of others, and none that raises a piece and then
//! gives way takes the piece with it.
//!
//! What a piece falls back to is kept in memory only, for a bounded number of pieces: the site that raised most gives way to others,
//! and raises nothing more while it has most. After a restart a raised piece counts for the party that brought it.

use super::accounts::{Accounts, Group};
use super::parties::holder_of;
use crate::claim::PieceClaim;
use crate::id::Key;
use crate::io::Brought;
use crate::peers::contest::Holder;
use crate::peers::party::Level;
use std::collections::{BTreeMap, BTreeSet};

/// The most raised pieces, about 350 bytes of memory each.
const RAISED_MAX: usize = 8192;

/// What a piece was before it was raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    pub(super) replicas: u8,
    /// In seconds of the node's age.
    pub(super) expires: u64,
    pub(super) claim: Option<PieceClaim>,
    pub(super) brought: Brought,
}

impl Base {
    /// Whether a claim that counts for the party `by` raises no piece of another: the piece's own publisher, or party, wants it.
    fn is_of(&self, claim: &PieceClaim, by: Brought) -> bool {
        by == self.brought || self.claim.is_some_and(|own| own.publisher() == claim.publisher())
    }
}

/// The raised pieces.
#[derive(Default)]
pub(super) struct Raised {
    /// What each was, and for whom it counts now.
    bases: BTreeMap<Key, (Base, Holder)>,
    by: BTreeSet<(Holder, Key)>,
    /// The number of pieces that each holder raised.
    counts: Accounts,
}

impl Raised {
    /// The raised piece that has to fall back before `by` may raise one more, when there is no room. `Err` when `by` itself raised most.
    pub(super) fn makes_room(&self, by: &Holder) -> Result<Option<Key>, ()> {
        if self.bases.len() < RAISED_MAX {
            return Ok(None);
        }
        let largest = self.counts.largest_site().map(|(site, _)| Group {
            one: Holder { party: site, identity: [0; 8] },
            level: Some(Level::Site),
        });
        match largest {
            Some(group) if !group.contains(by) => Ok(self.of(group).next()),
            _ => Err(()),
        }
    }

    /// Whether a claim that counts for the party `by` raises the piece of another, which was not raised before.
    pub(super) fn is_raise(&self, key: &Key, kept: &Base, claim: &PieceClaim, by: Brought) -> bool {
        !self.bases.contains_key(key) && !kept.is_of(claim, by)
    }

    /// A claim, which counts for the party `by`, takes the place of the one that the piece is `kept` for. Returns the party that the piece
    /// counts for then.
    pub(super) fn claimed(&mut self, key: &Key, kept: Base, claim: &PieceClaim, by: Brought) -> Brought {
        if kept.is_of(claim, by) {
            if let Some(base) = self.forget(key) {
                self.enter(key, base, holder_of(&kept.brought, Some(claim)));
            }
            return kept.brought;
        }
        let base = self.forget(key).unwrap_or(kept);
        if base.is_of(claim, by) {
            return base.brought;
        }
        self.enter(key, base, holder_of(&by, Some(claim)));
        by
    }

    /// The publisher of a piece that others raised renews its claim: the piece falls back to this one. `false` when it was not raised, or
    /// the claim is another publisher's, or no newer.
    pub(super) fn renew(&mut self, key: &Key, claim: &PieceClaim, replicas: u8, expires: u64) -> bool {
        let Some((base, _)) = self.bases.get_mut(key) else { return false };
        let renews = |own: PieceClaim| own.publisher() == claim.publisher() && claim.supersedes(&own);
        if !base.claim.is_some_and(renews) {
            return false;
        }
        base.claim = Some(*claim);
        base.replicas = base.replicas.max(replicas);
        base.expires = base.expires.max(expires);
        true
    }

    fn enter(&mut self, key: &Key, base: Base, holder: Holder) {
        self.bases.insert(*key, (base, holder));
        self.by.insert((holder, *key));
        self.counts.add(holder, 1);
    }

    /// The piece is gone, or raised no more. Returns what it was before, if it was raised.
    pub(super) fn forget(&mut self, key: &Key) -> Option<Base> {
        let (base, holder) = self.bases.remove(key)?;
        self.by.remove(&(holder, *key));
        self.counts.remove(&holder, 1);
        Some(base)
    }

    /// Raised pieces that count for this group.
    pub(super) fn of(&self, group: Group) -> impl Iterator<Item = Key> + '_ {
        let from = self.by.range((group.first(), Key([0; 32]))..);
        from.take_while(move |(holder, _)| group.contains(holder)).map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::peers::party::Party;

    const KEY: Key = Key([7; 32]);

    fn claim(publisher: u8) -> PieceClaim {
        PieceClaim::unsigned(PublicKey([publisher; 32]), 3, 100, 1)
    }

    fn party(net: u8) -> Brought {
        Brought(*Party::of([9, 9, net, 1].into()).as_bytes())
    }

    fn base(publisher: u8, net: u8) -> Base {
        Base { replicas: 3, expires: 50, claim: Some(claim(publisher)), brought: party(net) }
    }

    /// The raised pieces that count for a publisher of a party.
    fn of(raised: &Raised, publisher: u8, net: u8) -> Vec<Key> {
        let one = holder_of(&party(net), Some(&claim(publisher)));
        raised.of(Group { one, level: None }).collect()
    }

    #[test]
    fn another_publishers_claim_counts_for_the_party_of_the_claim() {
        let mut raised = Raised::default();
        assert_eq!(raised.claimed(&KEY, base(1, 1), &claim(1), party(2)), party(1));
        assert_eq!(raised.forget(&KEY), None, "a publisher renews its own claim from anywhere");
        assert_eq!(raised.claimed(&KEY, base(1, 1), &claim(2), party(2)), party(2));
        assert_eq!(of(&raised, 2, 2), [KEY]);
        assert_eq!(raised.forget(&KEY), Some(base(1, 1)));
        assert_eq!(of(&raised, 2, 2), []);
    }

    #[test]
    fn a_piece_falls_back_to_what_it_was_before_all_raises() {
        let mut raised = Raised::default();
        raised.claimed(&KEY, base(1, 1), &claim(2), party(2));
        assert_eq!(raised.claimed(&KEY, base(2, 2), &claim(3), party(3)), party(3));
        assert_eq!(raised.claimed(&KEY, base(3, 3), &claim(4), party(3)), party(3), "its raiser again");
        assert_eq!((of(&raised, 3, 3), of(&raised, 4, 3)), (vec![], vec![KEY]));
        assert_eq!(raised.forget(&KEY), Some(base(1, 1)));
    }

    #[test]
    fn its_own_publisher_takes_a_raised_piece_back() {
        let mut raised = Raised::default();
        raised.claimed(&KEY, base(1, 1), &claim(2), party(2));
        assert_eq!(raised.claimed(&KEY, base(2, 2), &claim(1), party(3)), party(1));
        assert_eq!(raised.forget(&KEY), None);
    }

    #[test]
    fn in_a_full_table_the_site_that_raised_most_gives_way() {
        let mut raised = Raised::default();
        let key = |number: usize| Key(*blake3::hash(&number.to_le_bytes()).as_bytes());
        for number in 0..RAISED_MAX {
            let net = if number % 4 == 0 { 3 } else { 2 };
            assert_eq!(raised.makes_room(&holder_of(&party(net), Some(&claim(2)))), Ok(None));
            raised.claimed(&key(number), base(1, 1), &claim(2), party(net));
        }
        assert_eq!(raised.makes_room(&holder_of(&party(2), Some(&claim(9)))), Err(()));
        let falls = raised.makes_room(&holder_of(&party(3), Some(&claim(2)))).unwrap().unwrap();
        assert!(of(&raised, 2, 2).contains(&falls));
    }
}

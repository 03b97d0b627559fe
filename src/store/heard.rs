//! Claims that this node has heard of before: their lifetimes began then, whatever has become of their pieces.
//!
//! A claim has no date, for nodes have no common clock: its lifetime begins when a holder first hears of it. So a claim that is
//! replayed must not begin anew, neither after its piece has expired or was dropped, nor after another claim took its place. The store
//! remembers the latest claim of each publisher on each piece that has left it, and the end of its lifetime. A claim that is older, or
//! whose lifetime is over, counts as none.

use crate::claim::PieceClaim;
use crate::id::Key;
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Claims that are remembered, about 50 bytes of memory each. The oldest is forgotten first.
const HEARD_MAX: usize = 8192;

/// The claims.
pub(super) struct Heard {
    /// A secret: no publisher can choose pieces whose claims are taken for each other.
    seed: u64,
    claims: BTreeMap<u64, Lifetime>,
    order: VecDeque<u64>,
}

/// The latest claim of one publisher on one piece.
#[derive(Clone, Copy)]
struct Lifetime {
    sequence: u64,
    /// When it ends, in seconds of the node's age.
    expires: u64,
}

impl Heard {
    /// No claims. `seed` must be a secret random number.
    pub(super) fn new(seed: u64) -> Self {
        Heard { seed, claims: BTreeMap::new(), order: VecDeque::new() }
    }

    /// A claim counts here no more: its piece is gone, or another claim took its place. Its lifetime ends at this age of the node.
    pub(super) fn note(&mut self, key: &Key, claim: &PieceClaim, expires: u64) {
        let (name, sequence) = (self.name(key, claim), claim.sequence());
        let new = Lifetime { sequence, expires };
        match self.claims.get_mut(&name) {
            Some(known) if known.sequence > sequence => {}
            Some(known) if known.sequence == sequence => known.expires = known.expires.min(expires),
            Some(known) => *known = new,
            None => {
                if self.order.len() >= HEARD_MAX {
                    let oldest = self.order.pop_front();
                    oldest.and_then(|oldest| self.claims.remove(&oldest));
                }
                self.claims.insert(name, new);
                self.order.push_back(name);
            }
        }
    }

    /// How long a claim counts that would end the piece's lifetime at `expires`, at this age of the node: no longer than when it was
    /// heard first. `None` when it counts no more.
    pub(super) fn limit(&self, key: &Key, claim: &PieceClaim, expires: u64, age: u64) -> Option<u64> {
        let Some(known) = self.claims.get(&self.name(key, claim)) else { return Some(expires) };
        match claim.sequence().cmp(&known.sequence) {
            core::cmp::Ordering::Greater => Some(expires),
            core::cmp::Ordering::Equal if known.expires > age => Some(expires.min(known.expires)),
            core::cmp::Ordering::Equal | core::cmp::Ordering::Less => None,
        }
    }

    fn name(&self, key: &Key, claim: &PieceClaim) -> u64 {
        let publisher = xxh3_64_with_seed(&claim.publisher().0, self.seed);
        xxh3_64_with_seed(&key.0, publisher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const KEY: Key = Key([7; 32]);

    fn claim(publisher: u8, sequence: u64) -> PieceClaim {
        PieceClaim::unsigned(PublicKey([publisher; 32]), 3, 100, sequence)
    }

    #[test]
    fn a_claim_ends_when_it_ended_at_first_and_older_ones_count_no_more() {
        let mut heard = Heard::new(1);
        assert_eq!(heard.limit(&KEY, &claim(1, 5), 300, 200), Some(300), "it was never heard of");
        heard.note(&KEY, &claim(1, 5), 250);
        assert_eq!(heard.limit(&KEY, &claim(1, 5), 300, 200), Some(250));
        assert_eq!(heard.limit(&KEY, &claim(1, 5), 350, 250), None, "it is over");
        assert_eq!(heard.limit(&KEY, &claim(1, 4), 300, 200), None, "an older one");
        assert_eq!(heard.limit(&KEY, &claim(1, 6), 300, 200), Some(300), "a newer one");
        assert_eq!(heard.limit(&KEY, &claim(2, 5), 300, 200), Some(300), "another publisher");
        assert_eq!(heard.limit(&Key([8; 32]), &claim(1, 5), 300, 200), Some(300), "another piece");
    }

    #[test]
    fn noting_again_never_prolongs() {
        let mut heard = Heard::new(1);
        heard.note(&KEY, &claim(1, 5), 250);
        heard.note(&KEY, &claim(1, 5), 900);
        heard.note(&KEY, &claim(1, 3), 900);
        assert_eq!(heard.limit(&KEY, &claim(1, 5), 999, 0), Some(250));
        heard.note(&KEY, &claim(1, 7), 400);
        assert_eq!(heard.limit(&KEY, &claim(1, 7), 999, 0), Some(400));
        assert_eq!(heard.limit(&KEY, &claim(1, 5), 999, 0), None);
    }

    #[test]
    fn the_oldest_claim_is_forgotten_first() {
        let mut heard = Heard::new(1);
        let key = |number: usize| Key(*blake3::hash(&number.to_le_bytes()).as_bytes());
        (0..HEARD_MAX + 3).for_each(|number| heard.note(&key(number), &claim(1, 1), 9));
        assert_eq!(heard.claims.len(), HEARD_MAX);
        assert_eq!(heard.limit(&key(2), &claim(1, 1), 99, 0), Some(99));
        assert_eq!(heard.limit(&key(3), &claim(1, 1), 99, 0), Some(9));
    }
}

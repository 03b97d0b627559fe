//! Proof of work on identities: in an open network it makes many identities cost something.
//!
//! An identity shows work when a hash of its public key begins with enough zero bits. It is another hash than the one that gives
//! the node's id, so ids stay evenly distributed, and a key near to a chosen point costs the work on top of the search for that point.

use super::PublicKey;
use core::fmt;

/// The domain of the hash.
const DOMAIN: &str = "elver 2026-11 work of an identity v1";

/// The work that each identity of a network has to show, in leading zero bits of the hash. The default asks for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct IdWork(u8);

impl IdWork {
    /// No work.
    pub const NONE: IdWork = IdWork(0);
    /// The most bits that a network can ask for. Finding such a key takes a core most of a year.
    pub const BITS_MAX: u8 = 40;

    /// The work of this many bits; `None` when that is more than [`BITS_MAX`](IdWork::BITS_MAX).
    pub const fn new(bits: u8) -> Option<IdWork> {
        if bits <= IdWork::BITS_MAX { Some(IdWork(bits)) } else { None }
    }

    /// The work that an identity shows, which may be more than a network can ask for.
    pub fn shown(public: &PublicKey) -> u32 {
        let hash = blake3::derive_key(DOMAIN, &public.0);
        let zeros = hash.iter().take_while(|byte| **byte == 0).count();
        8 * zeros as u32 + hash.get(zeros).map_or(0, |byte| byte.leading_zeros())
    }

    /// The number of leading zero bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether an identity shows enough work (about 0.2 µs; at once when none is asked for).
    pub fn is_shown_by(self, public: &PublicKey) -> bool {
        self.0 == 0 || IdWork::shown(public) >= u32::from(self.0)
    }

    /// The number of keys that have to be tried on average.
    pub fn keys(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Display for IdWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "bit" } else { "bits" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> PublicKey {
        PublicKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn one_key_in_as_many_as_the_bits_say_shows_the_work() {
        let work = IdWork::new(4).unwrap();
        let shown = (0..16_000).filter(|number| work.is_shown_by(&key(*number))).count() as u64;
        assert!((900..1100).contains(&shown), "{shown} of 1000");
        assert_eq!(work.keys(), 16);
    }

    #[test]
    fn more_work_than_a_network_asks_for_is_enough_and_none_is_enough_for_none() {
        let (most, public) = (0..4000)
            .map(|number| (IdWork::shown(&key(number)), key(number)))
            .max_by_key(|(bits, _)| *bits)
            .unwrap();
        assert!(most >= 8, "{most}");
        for bits in 0..=most as u8 {
            assert!(IdWork(bits).is_shown_by(&public), "{bits}");
        }
        assert!(!IdWork(most as u8 + 1).is_shown_by(&public));
        assert!((0..100).all(|number| IdWork::NONE.is_shown_by(&key(number))));
    }

    #[test]
    fn the_ids_of_keys_that_show_work_are_spread_like_others() {
        let work = IdWork::new(3).unwrap();
        let ids = (0..16_000).map(key).filter(|key| work.is_shown_by(key)).map(|key| key.node_id());
        let mut quarters = [0; 4];
        ids.for_each(|id| quarters[usize::from(id.0[0] >> 6)] += 1);
        assert!(quarters.iter().all(|count| (430..570).contains(count)), "{quarters:?}");
    }

    #[test]
    fn there_is_a_most_that_can_be_asked_for() {
        assert_eq!(IdWork::new(40).map(IdWork::bits), Some(40));
        assert_eq!(IdWork::new(41), None);
        assert_eq!(IdWork::new(1).unwrap().to_string(), "1 bit");
    }
}

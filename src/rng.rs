//! The generator of random numbers, seeded by the driver or the simulator. There is no other source of randomness.

use core::time::Duration;

/// BLAKE3's extendable output under a 32-byte seed. It is unpredictable without the seed, on which write tokens and transaction
/// ids depend, and the same for the same seed.
pub struct Rng {
    stream: blake3::OutputReader,
}

impl Rng {
    /// A generator for `seed`: entropy on a real machine, a number in a simulation.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("elver 2026-11 random generator");
        hasher.update(&seed);
        Rng { stream: hasher.finalize_xof() }
    }

    /// `N` fresh bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.fill(&mut bytes);
        bytes
    }

    /// A uniform 64-bit number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is under `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A duration from `low` up to, not including, `high` (`low` when the range is empty).
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos().min(u128::from(u64::MAX)) as u64;
        low + Duration::from_nanos(self.below(span))
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_different_seeds_different_ones() {
        let (mut a, mut b, mut c) = (Rng::new([1; 32]), Rng::new([1; 32]), Rng::new([2; 32]));
        assert_eq!(a.u64(), b.u64());
        assert_ne!(a.u64(), c.u64());
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut rng = Rng::new([3; 32]);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut rng = Rng::new([3; 32]);
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}

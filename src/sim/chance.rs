//! The world's random generator: fast and deterministic. Nodes use a different kind of generator.

use crate::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014). A run draws hundreds
/// of millions of numbers for packets, so a draw must cost about a nanosecond. Nothing here has to be unpredictable.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator for a seed. Different values of `stream` give different sequences.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Chance(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        chance.u64();
        chance
    }

    /// A uniform number.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something with `length` entries.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability. A probability of 0 draws no number.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// A duration below `bound`.
    pub fn duration(&mut self, bound: Duration) -> Duration {
        Duration::from_nanos(self.below(bound.as_nanos() as u64))
    }

    /// An exponentially distributed duration with this median, capped at a hundred medians.
    pub fn lifetime(&mut self, median: Duration) -> Duration {
        let halvings = -(1.0 - self.unit()).log2();
        Duration::from_secs_f64(median.as_secs_f64() * halvings.min(100.0))
    }

    /// 32 random bytes, the size of seeds and secrets.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.u64().to_le_bytes()));
        bytes
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_streams_give_numbers_of_their_own() {
        let first = |seed, stream| Chance::new(seed, stream).u64();
        assert_eq!(first(1, 1), first(1, 1));
        assert!(first(1, 1) != first(1, 2) && first(1, 1) != first(2, 1));
    }

    #[test]
    fn half_of_all_lifetimes_are_under_the_median() {
        let mut chance = Chance::new(7, 0);
        let median = Duration::from_secs(100);
        let short = (0..10_000).filter(|_| chance.lifetime(median) < median).count();
        assert!((4_800..5_200).contains(&short), "{short}");
    }
}

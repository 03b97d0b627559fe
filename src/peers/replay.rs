//! The replay window: which datagrams of one peer and epoch were received.
//!
//! A sliding window over sequence numbers, as in IPsec (RFC 4303 §3.4.3), kept as a ring of words (RFC 6479): moving on clears words
//! and never shifts bits. A number below the window counts as received.

/// Sequence numbers below the highest one that are remembered at least.
pub const WINDOW: u64 = 1024;

/// One word more than the window has, because the word of the highest number is filled only in part.
const WORDS: usize = WINDOW as usize / 64 + 1;

/// The numbers of one epoch that were received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit `n % 64` of word `n / 64 % WORDS` is set if `n` was received.
    received: [u64; WORDS],
}

impl ReplayWindow {
    /// The window of an epoch of which `first` is the first number to arrive. Lower numbers count as received: what was sent before
    /// this node knew the epoch could be a recording.
    pub fn starting_at(first: u64) -> Self {
        let mut received = [u64::MAX; WORDS];
        received[word(first)] = u64::MAX >> (63 - first % 64);
        ReplayWindow { highest: first, received }
    }

    /// Whether the datagram with this number is new; then it counts as received. Its sender must be authenticated.
    pub fn accept(&mut self, number: u64) -> bool {
        if number > self.highest {
            let ahead = (number / 64 - self.highest / 64).min(WORDS as u64);
            for step in 1..=ahead {
                self.received[word((self.highest / 64 + step) * 64)] = 0;
            }
            self.highest = number;
        } else if self.highest - number >= WINDOW {
            return false;
        }
        let (word, bit) = (&mut self.received[word(number)], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// The word of the ring that a number belongs to.
fn word(number: u64) -> usize {
    (number / 64 % WORDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_accepted_once_and_in_any_order_within_the_window() {
        let mut window = ReplayWindow::starting_at(1);
        assert!(!window.accept(1), "the first number was received with the window's start");
        for number in [100, 102, 101, 1100, 163, 1099] {
            assert!(window.accept(number), "{number}");
            assert!(!window.accept(number), "{number} again");
        }
        assert!(!window.accept(100), "a number that was received before the window moved");
        assert!(window.accept(1100 - WINDOW + 1), "the lowest number of the window");
        assert!(!window.accept(1100 - WINDOW), "the number below it");
    }

    #[test]
    fn numbers_before_the_first_one_count_as_received() {
        for first in [1, 63, 64, 65, 1000, 5000, u64::MAX - 64] {
            let mut window = ReplayWindow::starting_at(first);
            for before in 0..first.min(WINDOW + 70) {
                assert!(!window.accept(first - before), "{} before {first}", first - before);
            }
            assert!(window.accept(first + 1) && window.accept(first + 64));
        }
    }

    /// A plain model of the window, to compare its answers with.
    struct Model {
        highest: u64,
        received: std::collections::BTreeSet<u64>,
    }

    #[test]
    fn the_ring_answers_like_a_set_of_all_numbers() {
        let mut rng = crate::rng::Rng::new([3; 32]);
        let mut window = ReplayWindow::starting_at(2000);
        let mut model = Model { highest: 2000, received: (0..=2000).collect() };
        for step in 0..50_000 {
            let base = if rng.below(400) == 0 { model.highest + rng.below(3000) } else { model.highest };
            let number = (base + rng.below(8)).saturating_sub(rng.below(1100));
            let within = number > model.highest || model.highest - number < WINDOW;
            let expected = within && model.received.insert(number);
            model.highest = model.highest.max(number);
            assert_eq!(window.accept(number), expected, "number {number} at step {step}");
        }
    }
}

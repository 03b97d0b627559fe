//! Summaries of the pieces in a range of the key space.

use super::pieces::{Need, Piece, Pieces};
use crate::id::Key;
use crate::wire::reconcile::{Summary, number};

/// The pieces that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Select {
    /// Those of which both this node and the neighbour with this bit are holders.
    Shared(u64),
    /// Those that this node will not drop: it is a holder, it stands in for a silent one, or it keeps them in any case.
    Kept,
}

impl Select {
    pub(super) fn takes(self, piece: &Piece) -> bool {
        match self {
            Select::Shared(bit) => piece.own && piece.expected & bit != 0,
            Select::Kept => piece.own || piece.keep || !matches!(piece.need, Need::Surplus | Need::Stray),
        }
    }
}

/// The least and the greatest key of a range, given by the keys' first eight bytes.
pub(super) fn bounds(first: u64, last: u64) -> (Key, Key) {
    let (mut from, mut to) = ([0; 32], [0xff; 32]);
    from[..8].copy_from_slice(&first.to_be_bytes());
    to[..8].copy_from_slice(&last.to_be_bytes());
    (Key(from), Key(to))
}

/// A view of the pieces that counts visits.
pub(super) struct Comparison<'a> {
    pieces: &'a Pieces,
    select: Select,
    salt: u64,
    /// The number of visited pieces.
    pub(super) visits: u64,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(pieces: &'a Pieces, select: Select, salt: u64) -> Self {
        Comparison { pieces, select, salt, visits: 0 }
    }

    /// The summary of the pieces in a range, both ends included.
    pub(super) fn summary(&mut self, first: u64, last: u64) -> Summary {
        let (from, to) = bounds(first, last);
        let mut summary = Summary::default();
        for (key, piece) in self.pieces.range(&from, &to) {
            self.visits += 1;
            if self.select.takes(piece) {
                summary.add(key, self.salt);
            }
        }
        summary
    }

    /// Divides the range, which has `count` keys, into at most `parts` parts of about the same count. Returns the end and the summary
    /// of each.
    pub(super) fn split(&mut self, first: u64, last: u64, count: u32, parts: u32) -> Vec<(u64, Summary)> {
        let (from, to) = bounds(first, last);
        let share = count.div_ceil(parts.max(1)).max(1);
        let mut ends = Vec::with_capacity(parts as usize);
        let mut summary = Summary::default();
        let mut before = first;
        for (key, piece) in self.pieces.range(&from, &to) {
            self.visits += 1;
            if !self.select.takes(piece) {
                continue;
            }
            let number = number(key);
            // Keys with the same first eight bytes stay in one part.
            if summary.count >= share && number > before {
                ends.push((number - 1, core::mem::take(&mut summary)));
            }
            summary.add(key, self.salt);
            before = number;
        }
        ends.push((last, summary));
        ends
    }

    /// At most `most` keys of the range, ascending.
    pub(super) fn keys(&mut self, first: u64, last: u64, most: usize) -> Vec<Key> {
        let (from, to) = bounds(first, last);
        let select = self.select;
        self.visits += most as u64;
        let taken = self.pieces.range(&from, &to).filter(|(_, piece)| select.takes(piece));
        taken.take(most).map(|(key, _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::time::Instant;

    fn pieces(count: usize) -> Pieces {
        let (mut pieces, mut rng) = (Pieces::default(), Rng::new([5; 32]));
        for _ in 0..count {
            let key = Key(rng.bytes());
            pieces.insert(Instant::ZERO, key, 3, 1, false);
            pieces.get_mut(&key).expect("it was added").own = true;
        }
        pieces
    }

    #[test]
    fn parts_cover_the_range_and_add_up() {
        let pieces = pieces(1000);
        let mut comparison = Comparison::new(&pieces, Select::Kept, 3);
        let whole = comparison.summary(0, u64::MAX);
        let parts = comparison.split(0, u64::MAX, whole.count, 16);
        assert_eq!(parts.len(), 16);
        assert_eq!(parts[15].0, u64::MAX);
        let mut first = 0;
        for (last, summary) in &parts {
            assert_eq!(comparison.summary(first, *last), *summary);
            first = last.wrapping_add(1);
        }
        assert_eq!(parts.iter().map(|(_, summary)| summary.count).sum::<u32>(), 1000);
        assert!(parts.iter().all(|(_, summary)| summary.count >= 55));
    }

    #[test]
    fn keys_with_the_same_first_bytes_stay_together() {
        let mut pieces = Pieces::default();
        for last in 0..40 {
            let mut key = Key([9; 32]);
            key.0[31] = last;
            pieces.insert(Instant::ZERO, key, 3, 1, true);
        }
        let mut comparison = Comparison::new(&pieces, Select::Kept, 3);
        assert_eq!(comparison.split(0, u64::MAX, 40, 4).len(), 1);
        assert_eq!(comparison.keys(0, u64::MAX, 64).len(), 40);
    }
}

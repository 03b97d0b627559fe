//! Handing over pieces that exceed the limits, because the operator lowered them.
//!
//! Nothing durable is deleted at once. The pieces farthest from this node are offered to the nodes closest to their keys, a few at a
//! time. Each is dropped when enough of those nodes have it that it is safe without this one. A piece that too few nodes accept stays,
//! and is offered again later. Meanwhile the store takes nothing new.

use crate::id::{Key, NodeId};
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// Pieces that are handed over at a time.
const AT_A_TIME: usize = 2;
/// The pause after a start, until the node knows its neighbours; also the pause after a piece that too few nodes accepted.
const PAUSE: Duration = Duration::from_secs(3);
/// The pause after all pieces have been offered and the limits are still exceeded. Doubles each time.
const AGAIN_MIN: Duration = Duration::from_secs(15);
const AGAIN_MAX: Duration = Duration::from_secs(1800);

/// The handing over of pieces.
pub(in crate::node) struct Shrink {
    /// The pieces to hand over, the next one last; `None` before they have been listed.
    todo: Option<Vec<Key>>,
    under_way: BTreeSet<Key>,
    /// The earliest time of the next piece.
    not_before: Instant,
    again: Duration,
    /// Pieces handed over so far.
    pub(in crate::node) handed_over: u64,
}

impl Shrink {
    pub(in crate::node) fn new(now: Instant) -> Self {
        Shrink {
            todo: None,
            under_way: BTreeSet::new(),
            not_before: now + PAUSE,
            again: AGAIN_MIN,
            handed_over: 0,
        }
    }

    /// When [`next`](Shrink::next) returns a piece.
    pub(in crate::node) fn next_deadline(&self, machines: &Machines) -> Option<Instant> {
        let free = self.under_way.len() < AT_A_TIME
            && (self.under_way.is_empty() || self.todo.as_ref().is_some_and(|todo| !todo.is_empty()));
        (free && machines.store.is_over()).then_some(self.not_before)
    }

    /// The next piece to offer to the nodes closest to it.
    pub(in crate::node) fn next(&mut self, now: Instant, own: &NodeId, machines: &Machines) -> Option<Key> {
        if !machines.store.is_over() {
            self.todo = None;
            return None;
        }
        if now < self.not_before || self.under_way.len() >= AT_A_TIME {
            return None;
        }
        let todo = self.todo.get_or_insert_with(|| {
            let mut keys: Vec<Key> = machines.store.pieces().map(|piece| piece.key).collect();
            keys.sort_by_cached_key(|key| key.distance(&own.key()));
            keys
        });
        let next = todo.pop();
        match next {
            Some(key) => _ = self.under_way.insert(key),
            None if self.under_way.is_empty() => {
                self.todo = None;
                self.not_before = now + self.again;
                self.again = (self.again * 2).min(AGAIN_MAX);
            }
            None => {}
        }
        next
    }

    /// A piece was offered, and `copies` other nodes have it now. If these are enough, it is dropped.
    pub(in crate::node) fn placed(&mut self, now: Instant, key: &Key, copies: u8, machines: &mut Machines) {
        if !self.under_way.remove(key) {
            return;
        }
        let Some(piece) = machines.store.piece(key) else { return };
        if copies > piece.replicas / 2 {
            machines.store.remove_piece(key);
            self.handed_over += 1;
            self.again = AGAIN_MIN;
        } else {
            self.not_before = now + PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{PieceMeta, Recovered};
    use crate::limits::Limits;
    use crate::store::{PIECE_OVERHEAD_BYTES, Store};

    const START: Instant = Instant::from_secs(1000);
    const OWN: NodeId = NodeId([0; 32]);

    fn key(byte: u8) -> Key {
        Key([byte; 32])
    }

    /// A node with ten pieces, of which the quota has room for six.
    fn machines() -> Machines {
        let mut machines = Machines::alone(START);
        let piece = |byte| PieceMeta::file(key(byte), 1000 - PIECE_OVERHEAD_BYTES as u32);
        let recovered = Recovered { pieces: (1..=10).map(piece).collect(), ..Recovered::default() };
        let limits = Limits { quota_bytes: 6000, ..Limits::default() };
        machines.store = Store::new(&limits, &recovered, 1, START);
        machines
    }

    #[test]
    fn the_farthest_pieces_go_once_enough_others_have_them_and_no_more_than_need_be() {
        let (mut machines, mut shrink) = (machines(), Shrink::new(START));
        assert_eq!(shrink.next(START, &OWN, &machines), None, "first it finds its neighbours");
        let mut now = shrink.next_deadline(&machines).unwrap();
        let mut offered = Vec::new();
        while let Some(first) = shrink.next(now, &OWN, &machines) {
            let second = shrink.next(now, &OWN, &machines).unwrap();
            assert_eq!(shrink.next(now, &OWN, &machines), None, "two at a time");
            shrink.placed(now, &first, 2, &mut machines);
            shrink.placed(now, &second, 3, &mut machines);
            offered.extend([first, second]);
            now = now + Duration::from_secs(1);
        }
        assert_eq!(offered, [10, 9, 8, 7].map(key));
        assert_eq!(machines.store.stats().pieces, 6);
        assert_eq!(shrink.handed_over, 4);
        assert_eq!(shrink.next_deadline(&machines), None);
    }

    #[test]
    fn pieces_with_too_few_other_copies_stay_and_are_offered_again_with_growing_pauses() {
        let (mut machines, mut shrink) = (machines(), Shrink::new(START));
        let mut passes = Vec::new();
        let mut offered = 0;
        while offered < 40 {
            let now = shrink.next_deadline(&machines).unwrap();
            if let Some(key) = shrink.next(now, &OWN, &machines) {
                if offered % 10 == 0 {
                    passes.push(now);
                }
                offered += 1;
                shrink.placed(now, &key, 1, &mut machines);
            }
        }
        assert_eq!(machines.store.stats().pieces, 10);
        let gaps: Vec<u64> = passes.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
        assert!(gaps.is_sorted() && gaps[2] > gaps[0] + 30, "{gaps:?}");
    }
}

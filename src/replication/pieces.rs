//! The table of stored pieces, and the agenda: which of them is assessed when.

use crate::id::Key;
use crate::time::Instant;
use core::num::NonZeroU32;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// What a piece lacks, or whether it is surplus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(super) enum Need {
    /// Nothing.
    Whole,
    /// A holder that is live or suspect has no copy.
    Missing,
    /// There are no more live copies than a quorum, and a holder is silent.
    Urgent,
    /// All its holders have it, and this node is none of them.
    Surplus,
    /// Its holders are outside the part of the key space that this node knows.
    Stray,
}

impl Need {
    pub(super) const COUNT: usize = 5;

    /// Whether copies are needed.
    pub(super) fn is_short(self) -> bool {
        matches!(self, Need::Missing | Need::Urgent)
    }

    /// The queue in which a piece waits.
    pub(super) fn queue(self) -> Queue {
        match self {
            Need::Whole | Need::Missing | Need::Urgent => Queue::Copies,
            Need::Stray => Queue::Places,
            Need::Surplus => Queue::Drops,
        }
    }
}

/// The queues of pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Queue {
    /// To be copied.
    Copies,
    /// To be placed by a lookup.
    Places,
    /// To be dropped.
    Drops,
}

impl Queue {
    pub(super) const ALL: [Queue; 3] = [Queue::Copies, Queue::Places, Queue::Drops];
}

/// The state of a piece in the agenda.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Stand {
    /// Nothing is due.
    Idle,
    /// It is assessed at its due time.
    Waiting,
    /// It waits in a queue.
    Queued,
    /// A job is working on it.
    Busy,
}

/// What is known of a piece besides its key. Bit *i* of a set stands for the neighbour in slot *i*.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Since when it has had its present need.
    pub(super) since: Instant,
    /// Since when this node could act on the need: the wait by rank counts from here.
    pub(super) ready: Option<Ready>,
    /// When it is assessed, while it waits.
    due: Instant,
    /// The neighbours that should hold it.
    pub(super) expected: u64,
    /// The neighbours that are known to hold it.
    pub(super) confirmed: u64,
    pub(super) length: u32,
    pub(super) replicas: u8,
    pub(super) need: Need,
    stand: Stand,
    queued_live: u8,
    /// Whether it is never dropped.
    pub(super) keep: bool,
    /// Whether this node should hold it.
    pub(super) own: bool,
    /// Of a piece that is never dropped and whose holders are out of sight: whether one of them may have fallen silent, so that no other
    /// node is known to have it.
    pub(super) in_doubt: bool,
    /// If a stray piece was placed: the mark of the nodes that have it since. It is placed again before it is dropped.
    pub(super) placed: Option<NonZeroU32>,
}

/// An optional instant fits in eight bytes with this type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ready(core::num::NonZeroU64);

impl Ready {
    pub(super) fn at(instant: Instant) -> Self {
        Ready(core::num::NonZeroU64::new(instant.as_nanos()).unwrap_or(core::num::NonZeroU64::MIN))
    }

    pub(super) fn instant(self) -> Instant {
        Instant::from_nanos(self.0.get())
    }
}

impl Piece {
    /// The number of nodes that a placement is to find or to make holders. A piece in doubt needs one: that one sees to the others.
    pub(super) fn placed_on(&self) -> u8 {
        if self.in_doubt { 1 } else { self.replicas }
    }
}

const _: () = assert!(size_of::<Key>() + size_of::<Piece>() <= 100, "65,536 pieces must fit a router");

/// The pieces by their keys, with the agenda and the queues.
#[derive(Default)]
pub(super) struct Pieces {
    table: BTreeMap<Key, Piece>,
    agenda: BTreeSet<(Instant, Key)>,
    queues: [BTreeSet<(u8, Instant, Key)>; 3],
    needs: [usize; Need::COUNT],
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Piece> {
        self.table.get(key)
    }

    /// The piece. Change its need and state only through this table.
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Piece> {
        self.table.get_mut(key)
    }

    pub(super) fn range(&self, from: &Key, to: &Key) -> impl Iterator<Item = (&Key, &Piece)> {
        self.table.range(*from..=*to)
    }

    pub(super) fn range_mut(&mut self, from: &Key, to: &Key) -> impl Iterator<Item = (&Key, &mut Piece)> {
        self.table.range_mut(*from..=*to)
    }

    /// Up to `count` keys after `after`, or from `from` on if it is `None`, up to `to`.
    pub(super) fn some(&self, from: &Key, after: Option<&Key>, to: &Key, count: usize) -> Vec<Key> {
        let start = after.map_or(Bound::Included(*from), |after| Bound::Excluded(*after));
        if after.is_some_and(|after| after >= to) {
            return Vec::new();
        }
        self.table.range((start, Bound::Included(*to))).take(count).map(|(key, _)| *key).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Piece)> {
        self.table.iter()
    }

    /// The number of pieces with this need.
    pub(super) fn count(&self, need: Need) -> usize {
        self.needs[need as usize]
    }

    /// The number of pieces in a queue.
    pub(super) fn queued(&self, queue: Queue) -> usize {
        self.queues[queue as usize].len()
    }

    /// Adds a piece of which no other copy is known.
    pub(super) fn insert(&mut self, now: Instant, key: Key, replicas: u8, length: u32, keep: bool) {
        self.remove(&key);
        let piece = Piece {
            since: now,
            ready: None,
            due: now,
            expected: 0,
            confirmed: 0,
            length,
            replicas,
            need: Need::Whole,
            stand: Stand::Idle,
            queued_live: 0,
            keep,
            own: false,
            in_doubt: false,
            placed: None,
        };
        self.table.insert(key, piece);
        self.needs[Need::Whole as usize] += 1;
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Piece> {
        self.detach(key);
        let piece = self.table.remove(key)?;
        self.needs[piece.need as usize] -= 1;
        Some(piece)
    }

    /// The state of a piece in the agenda.
    pub(super) fn stand(&self, key: &Key) -> Stand {
        self.table.get(key).map_or(Stand::Idle, |piece| piece.stand)
    }

    /// Sets what a piece needs. A new need begins now.
    pub(super) fn set_need(&mut self, now: Instant, key: &Key, need: Need) {
        if self.table.get(key).is_none_or(|piece| piece.need == need) {
            return;
        }
        if self.stand(key) == Stand::Queued {
            self.detach(key);
        }
        let Some(piece) = self.table.get_mut(key) else { return };
        self.needs[piece.need as usize] -= 1;
        self.needs[need as usize] += 1;
        (piece.need, piece.since) = (need, now);
    }

    /// Nothing is due for this piece.
    pub(super) fn rest(&mut self, key: &Key) {
        self.detach(key);
    }

    /// The piece is assessed at `at`.
    pub(super) fn wait(&mut self, key: &Key, at: Instant) {
        let waits = |piece: &Piece| piece.stand == Stand::Waiting && piece.due == at;
        if self.table.get(key).is_some_and(waits) {
            return;
        }
        self.detach(key);
        let Some(piece) = self.table.get_mut(key) else { return };
        (piece.stand, piece.due) = (Stand::Waiting, at);
        self.agenda.insert((at, *key));
    }

    /// Queues the piece. Pieces with fewer live copies come first, then those that have needed it longer.
    pub(super) fn enqueue(&mut self, key: &Key, live: u8) {
        let queued = |piece: &Piece| piece.stand == Stand::Queued && piece.queued_live == live;
        if self.table.get(key).is_some_and(queued) {
            return;
        }
        self.detach(key);
        let Some(piece) = self.table.get_mut(key) else { return };
        (piece.stand, piece.queued_live) = (Stand::Queued, live);
        self.queues[piece.need.queue() as usize].insert((live, piece.since, *key));
    }

    /// A job takes the piece.
    pub(super) fn take_on(&mut self, key: &Key) {
        self.detach(key);
        if let Some(piece) = self.table.get_mut(key) {
            piece.stand = Stand::Busy;
        }
    }

    fn detach(&mut self, key: &Key) {
        let Some(piece) = self.table.get_mut(key) else { return };
        match piece.stand {
            Stand::Waiting => _ = self.agenda.remove(&(piece.due, *key)),
            Stand::Queued => {
                let queue = &mut self.queues[piece.need.queue() as usize];
                queue.remove(&(piece.queued_live, piece.since, *key));
            }
            Stand::Idle | Stand::Busy => {}
        }
        piece.stand = Stand::Idle;
    }

    /// When the next piece is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Takes the next piece that is due from the agenda.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let (at, key) = *self.agenda.first()?;
        if at > now {
            return None;
        }
        self.rest(&key);
        Some(key)
    }

    /// The first piece in a queue, and its number of live copies.
    pub(super) fn first(&self, queue: Queue) -> Option<(u8, Key)> {
        self.queues[queue as usize].first().map(|(live, _, key)| (*live, *key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_in_one_place_of_the_agenda_at_a_time() {
        let (key, now) = (Key([1; 32]), Instant::from_secs(1));
        let mut pieces = Pieces::default();
        pieces.insert(now, key, 3, 100, false);
        pieces.wait(&key, now);
        pieces.set_need(now, &key, Need::Missing);
        assert_eq!(pieces.next_due(), Some(now));
        assert_eq!(pieces.count(Need::Missing), 1);
        pieces.enqueue(&key, 2);
        assert_eq!(pieces.next_due(), None);
        assert_eq!(pieces.first(Queue::Copies), Some((2, key)));
        pieces.set_need(now, &key, Need::Surplus);
        assert_eq!(pieces.queued(Queue::Copies), 0);
        assert_eq!(pieces.stand(&key), Stand::Idle);
        pieces.enqueue(&key, 2);
        pieces.take_on(&key);
        assert_eq!(pieces.queued(Queue::Drops), 0);
        assert_eq!(pieces.stand(&key), Stand::Busy);
        pieces.wait(&key, now);
        assert_eq!(pieces.remove(&key).map(|piece| piece.length), Some(100));
        assert_eq!(pieces.len(), 0);
        assert_eq!(pieces.next_due(), None);
        assert_eq!(pieces.count(Need::Surplus), 0);
    }

    #[test]
    fn pieces_with_fewer_live_copies_come_first_then_those_that_wait_longer() {
        let mut pieces = Pieces::default();
        for (number, since, live) in [(1, 5, 2), (2, 9, 1), (3, 7, 1)] {
            pieces.insert(Instant::ZERO, Key([number; 32]), 3, 1, false);
            pieces.set_need(Instant::from_secs(since), &Key([number; 32]), Need::Missing);
            pieces.enqueue(&Key([number; 32]), live);
        }
        let mut order = Vec::new();
        while let Some((_, key)) = pieces.first(Queue::Copies) {
            pieces.take_on(&key);
            order.push(key.0[0]);
        }
        assert_eq!(order, [3, 2, 1]);
    }
}

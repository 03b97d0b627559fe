//! The event queue.

use crate::time::Instant;
use core::cmp::Ordering;
use std::collections::BinaryHeap;

/// A queue of events, ordered by time. Events of the same time keep the order in which they were pushed.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

struct Entry<T> {
    at: Instant,
    sequence: u64,
    event: T,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Queue { heap: BinaryHeap::new(), sequence: 0 }
    }

    pub(super) fn push(&mut self, at: Instant, event: T) {
        self.sequence += 1;
        self.heap.push(Entry { at, sequence: self.sequence, event });
    }

    /// Removes and returns the first event, if it is due at `until` or before.
    pub(super) fn pop(&mut self, until: Instant) -> Option<(Instant, T)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.heap.len()
    }
}

// `BinaryHeap` is a max-heap, so the order is reversed: the earliest entry is the greatest.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_their_order() {
        let mut queue = Queue::new();
        for (at, event) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c'), (9, 'z')] {
            queue.push(Instant::from_secs(at), event);
        }
        let until = Instant::from_secs(8);
        let order: String = core::iter::from_fn(|| queue.pop(until)).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.len(), 1);
    }
}

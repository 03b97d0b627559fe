//! Work for other nodes over their streams: copies to make, questions to ask, and challenges to prove a copy.
//!
//! Each item waits until there is a stream to its node. Without a stream the node is dialled. If the node is shunned or cannot be
//! reached, the items that wait for it end.

use crate::id::NodeId;
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::{Common, Timing};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;

/// An item for another node.
pub(super) trait Outgoing {
    /// The node.
    fn target(&self) -> Contact;

    /// Whether it waits for a stream.
    fn is_waiting(&self) -> bool;
}

/// What a question to another node waits for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// A stream to the node.
    Stream { since: Instant },
    /// The answer: the question was sent.
    Answer { since: Instant },
}

impl Wait {
    /// Whether the question was not sent yet.
    pub(super) fn is_for_stream(self) -> bool {
        matches!(self, Wait::Stream { .. })
    }

    /// When the question ends as unreachable or lost.
    pub(super) fn deadline(self, timing: &Timing) -> Instant {
        match self {
            Wait::Stream { since } => since + timing.push,
            Wait::Answer { since } => since + timing.answer,
        }
    }
}

/// The way to the node of a waiting item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// There is a stream.
    Stream(StreamId),
    /// The node is being dialled, or there is no room for a dial at the moment.
    Waits,
    /// The node is shunned: this node opens no stream to it.
    Shunned,
}

/// All items of one kind that are under way or wait for a stream, by number.
pub(super) struct Queue<Id, T> {
    under_way: BTreeMap<Id, T>,
    /// Whether something changed for waiting items.
    changed: bool,
}

impl<Id, T> Default for Queue<Id, T> {
    fn default() -> Self {
        Queue { under_way: BTreeMap::new(), changed: false }
    }
}

impl<Id: Copy + Ord, T: Outgoing> Queue<Id, T> {
    // Getters.

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.under_way.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.under_way.get_mut(&id)
    }

    /// All items, in the order of the numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.under_way.values()
    }

    /// All items, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.under_way.values_mut()
    }

    /// The numbers of the items for which a test holds.
    pub(super) fn ids(&self, which: impl Fn(&T) -> bool) -> Vec<Id> {
        self.under_way.iter().filter(|(_, item)| which(item)).map(|(id, _)| *id).collect()
    }

    /// The items that wait for a stream to this node.
    pub(super) fn waiting_for(&self, node: &NodeId) -> Vec<Id> {
        self.ids(|item| item.is_waiting() && item.target().id == *node)
    }

    // Inputs.

    /// Adds an item that waits for a stream. False when there are `max` already, or one with this number.
    pub(super) fn add(&mut self, id: Id, item: T, max: usize) -> bool {
        let added = self.under_way.len() < max && !self.under_way.contains_key(&id);
        if added {
            self.under_way.insert(id, item);
            self.changed = true;
        }
        added
    }

    /// Removes an item that ended.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.under_way.remove(&id)
    }

    /// Something changed that may let waiting items proceed.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    /// The items that wait for a stream, whose [`route`](Queue::route) is due. `None` when nothing has changed since the last call.
    pub(super) fn take_due(&mut self) -> Option<Vec<Id>> {
        core::mem::take(&mut self.changed).then(|| self.ids(T::is_waiting))
    }

    /// The way to the node of a waiting item. Dials the node if there is no stream.
    pub(super) fn route(&self, now: Instant, id: Id, common: &mut Common) -> Route {
        let Some(target) = self.get(id).map(T::target) else { return Route::Waits };
        match common.streams.to(&target.id) {
            Some(stream) => Route::Stream(stream),
            None if common.blame.is_shunned(now, &target.id) => Route::Shunned,
            None => {
                // Without room for a dial, the items continue to wait until there is room, or until their deadlines pass.
                common.dial(now, target);
                Route::Waits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::Transfer;
    use crate::transfer::testing::{NOW, connected, peer, stream};

    /// An item for a peer with this number.
    struct Letter {
        to: u8,
        waits: bool,
    }

    impl Outgoing for Letter {
        fn target(&self) -> Contact {
            peer(self.to)
        }

        fn is_waiting(&self) -> bool {
            self.waits
        }
    }

    fn queue(letters: &[(u64, u8, bool)]) -> Queue<u64, Letter> {
        let mut queue = Queue::default();
        letters.iter().for_each(|&(id, to, waits)| _ = queue.add(id, Letter { to, waits }, 10));
        queue
    }

    #[test]
    fn the_number_is_bounded_and_each_number_is_used_once() {
        let mut queue = queue(&[(1, 1, true)]);
        assert!(!queue.add(1, Letter { to: 2, waits: true }, 10));
        assert!(!queue.add(2, Letter { to: 2, waits: true }, 1));
        assert!(queue.add(2, Letter { to: 2, waits: true }, 2));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn only_what_waits_for_a_node_ends_with_it() {
        let queue = queue(&[(1, 1, true), (2, 1, false), (3, 2, true), (4, 1, true)]);
        assert_eq!(queue.waiting_for(&peer(1).id), [1, 4]);
    }

    #[test]
    fn waiting_items_are_due_once_for_each_change() {
        let mut queue = queue(&[(1, 1, true), (2, 1, false)]);
        assert_eq!(queue.take_due(), Some(vec![1]));
        assert_eq!(queue.take_due(), None);
        queue.note_change();
        assert_eq!(queue.take_due(), Some(vec![1]));
    }

    #[test]
    fn the_time_for_an_answer_begins_when_the_question_is_sent() {
        let Transfer { common, .. } = connected(1, Limits::default());
        let timing = &common.config.timing;
        assert_ne!(timing.push, timing.answer);
        let (queued, sent) = (Wait::Stream { since: NOW }, Wait::Answer { since: NOW });
        assert!(queued.is_for_stream() && !sent.is_for_stream());
        assert_eq!(queued.deadline(timing), NOW + timing.push);
        assert_eq!(sent.deadline(timing), NOW + timing.answer);
    }

    #[test]
    fn a_stream_is_used_and_a_node_without_one_is_dialled() {
        let Transfer { mut common, .. } = connected(1, Limits::default());
        let queue = queue(&[(1, 1, true), (2, 9, true)]);
        assert_eq!(queue.route(NOW, 1, &mut common), Route::Stream(stream(1)));
        assert_eq!(queue.route(NOW, 2, &mut common), Route::Waits);
        assert!(common.streams.is_dialling(&peer(9).id));
    }
}

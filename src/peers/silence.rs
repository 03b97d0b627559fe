//! Requests that nodes did not answer: one count for each node, whichever machine asked.
//!
//! A peer's count is in its entry of the [table](super::table). A node that never answered has no entry. Some of these are remembered
//! here, because others may go on to name them for long.

use crate::id::NodeId;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// How long a node that did not answer counts as silent.
const SILENT_FOR: Duration = Duration::from_secs(120);
/// Nodes without an entry in the table that are remembered.
pub(super) const STRANGERS_MAX: usize = 128;

/// The requests in a row that a node did not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    count: u8,
    /// When the last of them failed.
    last: Instant,
}

impl Silence {
    /// It owes no answer.
    pub(super) const NONE: Silence = Silence { count: 0, last: Instant::ZERO };

    pub(super) fn count(self) -> u8 {
        self.count
    }

    /// A request failed. Returns how many have in a row.
    pub(super) fn note(&mut self, now: Instant) -> u8 {
        *self = Silence { count: self.count.saturating_add(1), last: now };
        self.count
    }

    /// Whether it did not answer the last request, and that was lately.
    pub(super) fn is_lately(self, now: Instant) -> bool {
        self.count > 0 && now.since(self.last) < SILENT_FOR
    }
}

/// Silent nodes without an entry in the table. The one that has been silent for longest gives way.
#[derive(Default)]
pub(super) struct Strangers(BTreeMap<NodeId, Silence>);

impl Strangers {
    pub(super) fn get(&self, id: &NodeId) -> Silence {
        self.0.get(id).copied().unwrap_or(Silence::NONE)
    }

    /// A request to a node failed. Returns how many have in a row.
    pub(super) fn note(&mut self, now: Instant, id: NodeId) -> u8 {
        if self.0.len() >= STRANGERS_MAX && !self.0.contains_key(&id) {
            let first = self.0.iter().min_by_key(|(_, silence)| silence.last).map(|(id, _)| *id);
            first.and_then(|first| self.0.remove(&first));
        }
        self.0.entry(id).or_insert(Silence::NONE).note(now)
    }

    /// A node answered.
    pub(super) fn forget(&mut self, id: &NodeId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(100);

    fn id(number: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        NodeId(id)
    }

    #[test]
    fn a_node_is_silent_for_a_while_after_each_request_that_it_does_not_answer() {
        let mut silence = Silence::NONE;
        assert!(!silence.is_lately(START));
        assert_eq!(silence.note(START), 1);
        let later = START + SILENT_FOR;
        assert!(silence.is_lately(START) && !silence.is_lately(later));
        assert_eq!(silence.note(later), 2);
        assert!(silence.is_lately(later));
    }

    #[test]
    fn a_silent_stranger_is_remembered_until_it_answers_and_gives_way_to_later_ones() {
        let (mut strangers, later) = (Strangers::default(), START + Duration::from_secs(1));
        assert_eq!(strangers.note(START, id(0)), 1);
        assert_eq!(strangers.note(START, id(0)), 2);
        (1..=STRANGERS_MAX as u32).for_each(|number| _ = strangers.note(later, id(number)));
        assert_eq!(strangers.get(&id(0)).count(), 0, "the earliest gave way");
        assert_eq!(strangers.0.len(), STRANGERS_MAX);
        strangers.forget(&id(1));
        assert_eq!(strangers.get(&id(1)).count(), 0);
        assert_eq!(strangers.get(&id(2)).count(), 1);
    }
}

//! Observers that see this node elsewhere than the others do.
//!
//! A pong tells the address at which its sender sees this node. A single contradiction of the other observers is an accident: the
//! address may be changing, and the first observer of the new one is right. A node that continues to contradict the others is
//! wrong or lies, and its observations stop counting. Each observation that agrees with the others restores some of the trust.

use crate::id::NodeId;
use std::collections::VecDeque;

/// Contradictions, less agreements, after which the observations of a node do not count.
const DISTRUSTED: u8 = 3;
/// Nodes whose contradictions are remembered. The one that contradicted first gives way.
const REMEMBERED_MAX: usize = 64;

/// The nodes that have contradicted others lately, and how often.
#[derive(Default)]
pub(super) struct Contradictions {
    counts: VecDeque<(NodeId, u8)>,
}

impl Contradictions {
    /// A node's observation agrees with those of others, or contradicts them. Returns whether the node's observations count.
    pub(super) fn note(&mut self, observer: NodeId, contradicts: bool) -> bool {
        let place = self.counts.iter().position(|(known, _)| *known == observer);
        match (place, contradicts) {
            (Some(place), true) => {
                let count = &mut self.counts[place].1;
                *count = (*count + 1).min(DISTRUSTED);
                *count < DISTRUSTED
            }
            (Some(place), false) => {
                let count = &mut self.counts[place].1;
                *count -= 1;
                let trusted = *count + 1 < DISTRUSTED;
                if *count == 0 {
                    self.counts.remove(place);
                }
                trusted
            }
            (None, true) => {
                if self.counts.len() == REMEMBERED_MAX {
                    self.counts.pop_front();
                }
                self.counts.push_back((observer, 1));
                true
            }
            (None, false) => true,
        }
    }

    /// The agreement has changed: earlier contradictions may have been right.
    pub(super) fn forget(&mut self) {
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn a_node_is_believed_until_it_has_contradicted_three_times() {
        let mut contradictions = Contradictions::default();
        assert_eq!([(); 4].map(|()| contradictions.note(node(1), true)), [true, true, false, false]);
        assert!(contradictions.note(node(2), true), "another node is not concerned");
    }

    #[test]
    fn a_node_that_agrees_again_is_believed_again() {
        let mut contradictions = Contradictions::default();
        for _ in 0..10 {
            contradictions.note(node(1), true);
        }
        assert_eq!([(); 3].map(|()| contradictions.note(node(1), false)), [false, true, true]);
        assert!(contradictions.note(node(1), true), "it starts anew");
    }

    #[test]
    fn when_the_agreement_changes_all_start_anew() {
        let mut contradictions = Contradictions::default();
        for _ in 0..3 {
            contradictions.note(node(1), true);
        }
        contradictions.forget();
        assert!(contradictions.note(node(1), true));
    }

    #[test]
    fn the_number_of_remembered_nodes_is_bounded() {
        let mut contradictions = Contradictions::default();
        for number in 0..=255 {
            contradictions.note(node(number), true);
        }
        assert_eq!(contradictions.counts.len(), REMEMBERED_MAX);
    }
}

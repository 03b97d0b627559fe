//! Copies of pieces under way to other nodes, and what each is for.

use super::Node;
use crate::id::{Key, NodeId};
use crate::time::Instant;
use crate::transfer::{PushError, PushId, PushOutcome};
use std::collections::BTreeMap;

/// Copies under way to one node: one that has fallen silent must not hold all there may be.
const COPIES_PER_NODE_MAX: usize = 8;

/// What a copy is made for.
#[derive(Clone, Copy)]
pub(super) enum CopyFor {
    /// A piece of a file that a user put.
    File { file: Key, piece: usize },
    /// A piece of which a node lacks its copy.
    Repair { key: Key },
    /// A piece that belongs elsewhere.
    Relocation { key: Key },
}

/// Every copy under way.
#[derive(Default)]
pub(super) struct Copies {
    under_way: BTreeMap<PushId, (CopyFor, NodeId)>,
    numbered: u64,
}

impl Copies {
    /// A copy to `target` is about to begin: its number, which never comes again.
    pub(super) fn begin(&mut self, copy: CopyFor, target: NodeId) -> PushId {
        self.numbered += 1;
        let push = PushId(self.numbered);
        self.under_way.insert(push, (copy, target));
        push
    }

    /// A copy is over, or never began.
    pub(super) fn end(&mut self, push: PushId) -> Option<CopyFor> {
        self.under_way.remove(&push).map(|(copy, _)| copy)
    }

    /// A file's copies are of no interest any more.
    pub(super) fn forget_file(&mut self, hash: &Key) {
        self.under_way.retain(|_, (copy, _)| !matches!(copy, CopyFor::File { file, .. } if file == hash));
    }

    /// Whether one more may go to this node. There are few copies under way, so counting them is cheap.
    pub(super) fn is_free(&self, target: &NodeId) -> bool {
        self.under_way.values().filter(|(_, to)| to == target).count() < COPIES_PER_NODE_MAX
    }
}

impl Node {
    /// A copy was made, or not: whoever wanted it hears of it.
    pub(super) fn copied(
        &mut self,
        now: Instant,
        push: PushId,
        target: NodeId,
        result: Result<PushOutcome, PushError>,
    ) {
        match self.copies.end(push) {
            Some(CopyFor::File { file, piece }) => self.file_copied(now, (file, piece), target, result),
            Some(CopyFor::Repair { key }) => self.repaired(now, key, target, &result),
            Some(CopyFor::Relocation { key }) => self.relocation_copied(now, key, target, result.is_ok()),
            None => {}
        }
    }
}

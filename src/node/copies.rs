//! Copies of pieces under way to other nodes, and the purpose of each.

use super::Node;
use crate::id::{Key, NodeId};
use crate::time::Instant;
use crate::transfer::{PushError, PushId, PushOutcome};
use std::collections::BTreeMap;

/// Copies under way to one node: a silent node must not occupy all places.
const COPIES_PER_NODE_MAX: usize = 8;

/// The purpose of a copy.
#[derive(Clone, Copy)]
pub(super) enum CopyFor {
    /// Upload: a piece of a file that a user put.
    File { file: Key, piece: usize },
    /// Repair: a piece that a holder lacks.
    Repair { key: Key },
    /// A misplaced piece.
    Relocation { key: Key },
}

/// Every copy under way.
#[derive(Default)]
pub(super) struct Copies {
    under_way: BTreeMap<PushId, (CopyFor, NodeId)>,
    numbered: u64,
}

impl Copies {
    /// Enters a copy to `target`, and returns its number, which is never used again.
    pub(super) fn begin(&mut self, copy: CopyFor, target: NodeId) -> PushId {
        self.numbered += 1;
        let push = PushId(self.numbered);
        self.under_way.insert(push, (copy, target));
        push
    }

    /// Removes a copy that ended or never began. Returns its purpose.
    pub(super) fn end(&mut self, push: PushId) -> Option<CopyFor> {
        self.under_way.remove(&push).map(|(copy, _)| copy)
    }

    /// Removes the copies of a file that no longer matter.
    pub(super) fn forget_file(&mut self, hash: &Key) {
        self.under_way.retain(|_, (copy, _)| !matches!(copy, CopyFor::File { file, .. } if file == hash));
    }

    /// Whether another copy may go to this node. Few copies are under way, so counting them is cheap.
    pub(super) fn is_free(&self, target: &NodeId) -> bool {
        self.under_way.values().filter(|(_, to)| to == target).count() < COPIES_PER_NODE_MAX
    }
}

impl Node {
    /// A copy ended: passes the result to the operation that it was for.
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

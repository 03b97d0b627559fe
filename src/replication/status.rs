//! The status of the machine and of single pieces.

use super::neighbours::bits;
use super::partition::Suspicion;
use super::pieces::{Need, Queue};
use super::{Replication, ReplicationCounters};
use crate::id::{Key, NodeId};
use crate::peers::liveness::Liveness;
use crate::time::Instant;

/// The phase of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Healthy: all its holders have it, as far as is known.
    Whole,
    /// Under-replicated; repair waits for its time.
    Waiting,
    /// Under-replicated; a copy is under way or will begin soon.
    Copying,
    /// Under-replicated; repair is suspended because this node suspects that it is partitioned.
    CutOff,
}

/// The status of a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceStatus {
    /// The number of nodes that should hold it.
    pub replicas: u8,
    /// Known live copies, including this node's own.
    pub live: u8,
    /// The nodes that should hold it or are known to, including this node, nearest to the piece first: its id, whether it is known
    /// to hold the piece, and its liveness (`None` for this node).
    pub holders: Vec<(NodeId, bool, Option<Liveness>)>,
    /// Its phase.
    pub phase: Phase,
    /// Since when it has been under-replicated or surplus.
    pub since: Option<Instant>,
}

/// Statistics of replication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Pieces in the table.
    pub pieces: usize,
    /// Healthy pieces, without surplus ones.
    pub whole: usize,
    /// Under-replicated pieces.
    pub short: usize,
    /// Pieces with no more live copies than a quorum, and a silent holder.
    pub urgent: usize,
    /// Pieces that are queued to be copied.
    pub queued: usize,
    /// Copies under way.
    pub copying: usize,
    /// Surplus pieces: this node need not hold them.
    pub surplus: usize,
    /// Misplaced pieces whose holders are too far away to be known.
    pub stray: usize,
    /// The suspicion that this node is partitioned, which suspends repair.
    pub partition: Option<Suspicion>,
    /// The bandwidth of repair, in bytes per second.
    pub bytes_per_second: u64,
    /// The counters.
    pub counters: ReplicationCounters,
}

impl Replication {
    /// The status of a piece that this node holds.
    pub fn inspect(&self, key: &Key) -> Option<PieceStatus> {
        let piece = self.pieces.get(key)?;
        let found = self.assess(key, piece);
        let known = found.expected | (piece.confirmed & self.neighbours.masks.trusted);
        let mut holders: Vec<_> = bits(known)
            .filter_map(|index| {
                let slot = self.neighbours.get(index)?;
                let confirmed = piece.confirmed & self.neighbours.masks.trusted & (1 << index) != 0;
                Some((slot.contact.id, confirmed, Some(slot.liveness)))
            })
            .collect();
        holders.push((self.own, true, None));
        holders.sort_by_key(|(id, ..)| id.distance(key));
        // A silent holder counts as missing a copy, even while no step is due.
        let missed = found.need != Need::Stray && found.expected & self.neighbours.masks.silent != 0;
        let short = found.need.is_short() || missed;
        let phase = match short {
            _ if self.is_copying(key) => Phase::Copying,
            false if found.need == Need::Stray && piece.placed.is_none() => Phase::Waiting,
            false => Phase::Whole,
            true if self.partition.suspicion().is_some() => Phase::CutOff,
            true => Phase::Waiting,
        };
        let since = (piece.need != Need::Whole).then_some(piece.since);
        Some(PieceStatus { replicas: piece.replicas, live: found.live, holders, phase, since })
    }

    /// The pieces of which fewer than `min_elsewhere` live copies are known at other nodes, in the order of their keys: a node that
    /// leaves must hand these over.
    pub fn short_of(&self, min_elsewhere: u8) -> impl Iterator<Item = Key> + '_ {
        let believed = self.neighbours.masks.trusted & self.neighbours.masks.there;
        self.pieces
            .iter()
            .filter(move |(_, piece)| (piece.confirmed & believed).count_ones() < u32::from(min_elsewhere))
            .map(|(key, _)| *key)
    }

    /// Statistics of replication.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            pieces: self.pieces.len(),
            whole: self.pieces.count(Need::Whole),
            short: self.pieces.count(Need::Missing),
            urgent: self.pieces.count(Need::Urgent),
            queued: self.pieces.queued(Queue::Copies),
            copying: self.copying(),
            surplus: self.pieces.count(Need::Surplus),
            stray: self.pieces.count(Need::Stray),
            partition: self.partition.suspicion(),
            bytes_per_second: self.budget.rate(),
            counters: self.counters,
        }
    }
}

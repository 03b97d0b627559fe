//! What the machine can say about itself.

use super::neighbours::bits;
use super::pieces::{Need, Queue};
use super::{Liveness, Replication, ReplicationCounters};
use crate::id::{Key, NodeId};
use crate::time::Instant;

/// How a piece is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// There is nothing to do: all its holders have it, as far as is known.
    Whole,
    /// It has fewer live copies than it should, and repair waits for its time.
    Waiting,
    /// It is being copied, or about to be.
    Copying,
    /// It has fewer live copies than it should, and repair is suspended: this node may be cut off.
    CutOff,
}

/// What is known of a piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceStatus {
    /// How many nodes should hold it.
    pub replicas: u8,
    /// Live copies that are known, the own one included.
    pub live: u8,
    /// The nodes that should hold it or are known to, this node's own among them: who, whether it is known to hold the piece, and
    /// how it is doing, `None` for this node. Nearest to the piece first.
    pub holders: Vec<(NodeId, bool, Option<Liveness>)>,
    /// How it is doing.
    pub phase: Phase,
    /// Since when it is not as it should be, or too much.
    pub since: Option<Instant>,
}

/// How replication is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Pieces looked after.
    pub pieces: usize,
    /// Pieces that lack nothing, surplus ones not included.
    pub whole: usize,
    /// Pieces that a holder lacks.
    pub short: usize,
    /// Pieces with as few live copies as a quorum, a holder of which is silent.
    pub urgent: usize,
    /// Pieces whose copy has its turn but waits for room.
    pub queued: usize,
    /// Copies under way.
    pub copying: usize,
    /// Pieces that this node need not hold.
    pub surplus: usize,
    /// Pieces whose holders are too far away to be known.
    pub stray: usize,
    /// Since when this node takes itself for cut off.
    pub cut_off_since: Option<Instant>,
    /// Bytes a second that repair may use.
    pub bytes_per_second: u64,
    /// What was counted.
    pub counters: ReplicationCounters,
}

impl Replication {
    /// What is known of a piece that this node holds.
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
        // A holder that is silent is missed, even while nothing is to be done about it.
        let missed = found.need != Need::Stray && found.expected & self.neighbours.masks.silent != 0;
        let short = found.need.is_short() || missed;
        let phase = match short {
            _ if self.is_copying(key) => Phase::Copying,
            false if found.need == Need::Stray && !piece.placed => Phase::Waiting,
            false => Phase::Whole,
            true if self.partition.since().is_some() => Phase::CutOff,
            true => Phase::Waiting,
        };
        let since = (piece.need != Need::Whole).then_some(piece.since);
        Some(PieceStatus { replicas: piece.replicas, live: found.live, holders, phase, since })
    }

    /// The pieces of which fewer than `min_elsewhere` live copies are known at other nodes, in the order of their keys: what
    /// a node that leaves must hand over.
    pub fn short_of(&self, min_elsewhere: u8) -> impl Iterator<Item = Key> + '_ {
        let believed = self.neighbours.masks.trusted & self.neighbours.masks.there;
        self.pieces
            .iter()
            .filter(move |(_, piece)| (piece.confirmed & believed).count_ones() < u32::from(min_elsewhere))
            .map(|(key, _)| *key)
    }

    /// How replication is doing.
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
            cut_off_since: self.partition.since(),
            bytes_per_second: self.budget.rate(),
            counters: self.counters,
        }
    }
}

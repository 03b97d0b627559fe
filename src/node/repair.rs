//! Carrying out the decisions of replication: copies to neighbours, placement of misplaced pieces, removal of surplus.

use super::copies::CopyFor;
use super::{Node, Purpose};
use crate::id::{Key, NodeId};
use crate::io::{Extent, PieceMeta};
use crate::manifest::{Content, Manifest};
use crate::replication::{Action, CopyOutcome, Held, REPLICAS_MAX};
use crate::store::{PieceChange, Shared};
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::message::Want;
use std::collections::{BTreeMap, VecDeque};

/// The time between two samples of this node's upload rate.
const UPLINK_SAMPLE: Duration = Duration::from_secs(1);

/// Pieces that are being copied to the nodes closest to them, because this node is not one of those, or is leaving.
#[derive(Default)]
pub(super) struct Relocations {
    under_way: BTreeMap<Key, Relocation>,
}

/// A piece that is being copied to the nodes closest to its key.
struct Relocation {
    /// Nodes to offer it to, nearest first.
    candidates: VecDeque<Contact>,
    wanted: usize,
    in_flight: usize,
    /// The number of nodes that have it.
    copies: u8,
}

impl Relocations {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.under_way.contains_key(key)
    }
}

/// Samples of the bytes sent: a lower bound of the uplink's capacity.
pub(super) struct Uplink {
    sampled: Instant,
    uploaded: u64,
    best: u64,
}

impl Uplink {
    pub(super) fn new(now: Instant) -> Self {
        Uplink { sampled: now, uploaded: 0, best: 0 }
    }
}

impl Node {
    /// Tells replication about the pieces that were on disk at the start.
    pub(super) fn take_stock(&mut self, now: Instant) {
        for meta in self.machines.store.pieces() {
            self.machines.replication.piece_added(now, held(&meta));
        }
    }

    /// A file that was put here has all its copies: replication keeps its pieces from now on.
    pub(super) fn look_after(&mut self, now: Instant, shared: &Shared, manifest: &Manifest) {
        if shared.replicas == 0 || self.config.leaf {
            return;
        }
        for (key, length) in pieces_of(manifest) {
            let replicas = shared.replicas;
            self.machines.replication.piece_added(now, Held { key, replicas, length, keep: true });
        }
    }

    /// A file is no longer shared. Its pieces that are stored here, too, stay in replication.
    pub(super) fn look_after_no_more(&mut self, now: Instant, manifest: &Manifest) {
        for (key, _) in pieces_of(manifest) {
            self.machines.replication.piece_removed(&key);
            self.look_after_piece(now, &key);
        }
    }

    /// Updates a piece in replication: it is stored here, a part of a file that was put here, or both. A part of a file is never
    /// dropped, and remains when the stored piece goes.
    fn look_after_piece(&mut self, now: Instant, key: &Key) {
        let stored = self.machines.store.piece(key).map(|meta| held(&meta));
        let lasting = self.machines.store.lasting_share(key).map(|(shared, _)| *shared);
        let lasting = lasting.filter(|shared| shared.replicated && shared.replicas > 0);
        let replicas = lasting.filter(|_| !self.config.leaf).map(|shared| shared.replicas);
        let piece = match (stored, replicas) {
            (Some(stored), Some(replicas)) => {
                Some(Held { replicas: stored.replicas.max(replicas), keep: true, ..stored })
            }
            (Some(stored), None) => Some(stored),
            (None, Some(replicas)) => self.machines.store.locate(key).map(|(_, extent)| Held {
                key: *key,
                replicas,
                length: extent.length,
                keep: true,
            }),
            (None, None) => None,
        };
        if let Some(piece) = piece {
            self.machines.replication.piece_added(now, piece);
        }
    }

    /// Tells replication about new pieces, and carries out its actions. Returns whether there was anything to do.
    pub(super) fn repair(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some(change) = self.machines.store.poll_change() {
            match change {
                PieceChange::Kept(meta) => self.look_after_piece(now, &meta.key),
                PieceChange::Evicted(hash) => self.evicted(now, &hash),
                PieceChange::Dropped(key) => {
                    self.scrub.piece_dropped(&key);
                    self.machines.replication.piece_removed(&key);
                    self.look_after_piece(now, &key);
                }
            }
        }
        while let Some(action) = self.machines.replication.poll_action() {
            acted = true;
            match action {
                Action::Copy { key, target } => self.repair_copy(now, key, target),
                Action::Place { key } => self.relocate(now, key),
                Action::Drop { key } => _ = self.machines.store.remove_piece(&key),
            }
        }
        acted
    }

    fn repair_copy(&mut self, now: Instant, key: Key, target: Contact) {
        if !self.copy(now, CopyFor::Repair { key }, key, target) {
            self.machines.replication.copy_done(now, &key, &target.id, CopyOutcome::Busy);
        }
    }

    pub(super) fn repaired(
        &mut self,
        now: Instant,
        key: Key,
        target: NodeId,
        result: &Result<PushOutcome, PushError>,
    ) {
        let outcome = match result {
            Ok(PushOutcome::Stored) => CopyOutcome::Stored,
            Ok(PushOutcome::Had) => CopyOutcome::Had,
            Err(PushError::Refused(Refusal::Busy)) => CopyOutcome::Busy,
            Err(PushError::Refused(_)) => CopyOutcome::Refused,
            Err(PushError::Unreachable | PushError::Lost | PushError::Source(_)) => CopyOutcome::Failed,
        };
        self.machines.replication.copy_done(now, &key, &target, outcome);
    }

    /// Offers a piece that is here to another node. False when that is not possible now.
    fn copy(&mut self, now: Instant, copy: CopyFor, key: Key, target: Contact) -> bool {
        let Some((offer, extent)) = self.offer_of(now, &key) else { return false };
        let push = self.copies.begin(copy, target.id);
        let begun = self.machines.transfer.push(now, push, target, offer, extent);
        if !begun {
            self.copies.end(push);
        }
        begun
    }

    /// The offer of a piece that is here: as it was offered to this node, with the rest of its lifetime.
    fn offer_of(&self, now: Instant, key: &Key) -> Option<(Offer, Extent)> {
        let (_, extent) = self.machines.store.locate(key)?;
        if let Some(meta) = self.machines.store.piece(key) {
            let lifetime =
                u32::try_from(meta.expires.saturating_sub(self.machines.store.age(now))).ok()?.max(1);
            let (content, length, input_offset) = (meta.content, meta.length, meta.input_offset);
            let (replicas, mode) = (meta.replicas, meta.mode);
            let offer = Offer { key: *key, content, length, input_offset, replicas, mode, lifetime };
            return Some((offer, extent));
        }
        let (shared, _) = self.machines.store.lasting_share(key).filter(|(shared, _)| shared.replicas > 0)?;
        let (content, input_offset) = match self.machines.store.chunk_of(key) {
            Some(chunk) => (shared.layout.content(), shared.layout.chunk_offset(chunk)),
            None => (Content::Manifest, 0),
        };
        let (replicas, lifetime) = (shared.replicas, shared.lifetime);
        let (length, mode) = (extent.length, self.machines.store.mode(key));
        Some((Offer { key: *key, content, length, input_offset, replicas, mode, lifetime }, extent))
    }

    /// Hands on pieces that exceed the limits. Returns whether there was anything to do.
    pub(super) fn hand_on(&mut self, now: Instant) -> bool {
        let next = self.shrink.next(now, &self.id, &self.machines).filter(|_| !self.is_leaving());
        if let Some(key) = next {
            self.relocate(now, key);
        }
        next.is_some()
    }

    /// Copies a piece to the nodes closest to its key.
    pub(super) fn relocate(&mut self, now: Instant, key: Key) {
        let Some((offer, _)) = self.offer_of(now, &key) else {
            return self.relocated(now, key, 0);
        };
        let wanted = usize::from(offer.replicas.min(REPLICAS_MAX));
        if self.relocations.contains(&key) {
            return;
        }
        let begun = Relocation { candidates: VecDeque::new(), wanted, in_flight: 0, copies: 0 };
        self.relocations.under_way.insert(key, begun);
        if let Some(closest) = self.machines.dht.region(now, &key, wanted) {
            return self.relocation_looked_up(now, key, &closest);
        }
        match self.machines.dht.find(now, key, Want::Nodes, &mut self.machines.outbox) {
            Some(lookup) => _ = self.machines.lookups.insert(lookup, Purpose::Relocation(key)),
            None => self.relocation_over(now, key),
        }
    }

    pub(super) fn relocation_looked_up(&mut self, now: Instant, key: Key, closest: &[Contact]) {
        let closest = self.likeliest_first(closest);
        if let Some(relocation) = self.relocations.under_way.get_mut(&key) {
            relocation.candidates.extend(closest);
        }
        self.advance_relocation(now, key);
    }

    fn advance_relocation(&mut self, now: Instant, key: Key) {
        while let Some(relocation) = self.relocations.under_way.get_mut(&key) {
            let placed = usize::from(relocation.copies) + relocation.in_flight;
            let next = if placed < relocation.wanted { relocation.candidates.pop_front() } else { None };
            let Some(target) = next else { break };
            if self.copy(now, CopyFor::Relocation { key }, key, target) {
                // If the copy has failed already, the loop goes on with the next candidate.
                if let Some(relocation) = self.relocations.under_way.get_mut(&key) {
                    relocation.in_flight += 1;
                }
            }
        }
        if self.relocations.under_way.get(&key).is_some_and(|relocation| relocation.in_flight == 0) {
            self.relocation_over(now, key);
        }
    }

    pub(super) fn relocation_copied(&mut self, now: Instant, key: Key, target: NodeId, has_it: bool) {
        if has_it {
            self.machines.replication.confirmed(now, &key, &target);
        }
        if let Some(relocation) = self.relocations.under_way.get_mut(&key) {
            relocation.in_flight -= 1;
            relocation.copies += u8::from(has_it);
        }
        self.advance_relocation(now, key);
    }

    fn relocation_over(&mut self, now: Instant, key: Key) {
        if let Some(relocation) = self.relocations.under_way.remove(&key) {
            self.relocated(now, key, relocation.copies);
        }
    }

    fn relocated(&mut self, now: Instant, key: Key, copies: u8) {
        self.machines.replication.placed(now, &key, copies);
        self.shrink.placed(now, &key, copies, &mut self.machines);
        self.handed_over(&key, copies);
    }

    /// Tells replication the highest upload rate that was measured.
    pub(super) fn sample_uplink(&mut self, now: Instant) {
        let elapsed = now.since(self.uplink.sampled);
        if elapsed < UPLINK_SAMPLE {
            return;
        }
        let uploaded = self.machines.transfer.uploaded_bytes();
        let rate = (uploaded - self.uplink.uploaded) as f64 / elapsed.as_secs_f64();
        let best = self.uplink.best.max(rate as u64);
        if best > self.uplink.best {
            self.machines.replication.set_uplink(best);
        }
        self.uplink = Uplink { sampled: now, uploaded, best };
    }
}

/// A stored piece as replication sees it.
fn held(meta: &PieceMeta) -> Held {
    Held { key: meta.key, replicas: meta.replicas, length: meta.length, keep: false }
}

/// The pieces of a file: its chunks, and the manifest if there are several.
fn pieces_of(manifest: &Manifest) -> impl Iterator<Item = (Key, u32)> + '_ {
    let chunks = (0..).zip(manifest.keys()).map(|(chunk, key)| (*key, manifest.chunk_length(chunk)));
    let root = (!manifest.is_single()).then(|| (manifest.hash(), manifest.encoded_bytes() as u32));
    chunks.chain(root)
}

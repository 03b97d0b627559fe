//! Carrying out the decisions of replication: copies to neighbours, placement of misplaced pieces, removal of surplus.

use super::ops::place_piece::{Aim, PlaceFor, PlacePiece};
use super::{Copying, Node};
use crate::id::{Key, NodeId};
use crate::io::{Extent, PieceMeta};
use crate::manifest::{Content, Manifest};
use crate::replication::{Action, CopyOutcome, Held, REPLICAS_MAX};
use crate::store::{PieceChange, Shared};
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// The time between two samples of this node's upload rate.
const UPLINK_SAMPLE: Duration = Duration::from_secs(1);

/// Pieces that are being copied to the nodes closest to them, because this node is not one of those, or is leaving.
#[derive(Default)]
pub(super) struct Relocations {
    under_way: BTreeMap<Key, PlacePiece>,
}

impl Relocations {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.under_way.contains_key(key)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().filter_map(PlacePiece::next_deadline).min()
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
        let copy = self.offer_of(now, &key);
        let push = copy
            .and_then(|(offer, extent)| self.machines.push(now, Copying::Repair(key), target, offer, extent));
        if push.is_none() {
            self.machines.replication.copy_done(now, &key, &target.id, CopyOutcome::Busy);
        }
    }

    /// A copy to another node ended: passes the result to the operation that it was for.
    pub(super) fn copied(
        &mut self,
        now: Instant,
        push: PushId,
        target: NodeId,
        result: &Result<PushOutcome, PushError>,
    ) {
        // The operation of a copy may have been cancelled.
        match self.machines.pushes.remove(&push).map(|(copying, _)| copying) {
            Some(Copying::Place(PlaceFor::Upload { file, piece })) => {
                self.file_copied(now, (file, piece), push, target, result);
            }
            Some(Copying::Place(PlaceFor::Relocation { key })) => {
                self.relocation_copied(now, key, push, target, result);
            }
            Some(Copying::Repair(key)) => self.repaired(now, key, target, result),
            None => {}
        }
    }

    fn repaired(&mut self, now: Instant, key: Key, target: NodeId, result: &Result<PushOutcome, PushError>) {
        let outcome = match result {
            Ok(PushOutcome::Stored) => CopyOutcome::Stored,
            Ok(PushOutcome::Had) => CopyOutcome::Had,
            Err(PushError::Refused(Refusal::Busy)) => CopyOutcome::Busy,
            Err(PushError::Refused(_)) => CopyOutcome::Refused,
            Err(PushError::Unreachable | PushError::Lost | PushError::Source(_)) => CopyOutcome::Failed,
        };
        self.machines.replication.copy_done(now, &key, &target, outcome);
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
        let next = self.shrink.next(now, &self.id, &self.machines).filter(|_| !self.departure.is_under_way());
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
        // Holders must not depend on this node, which may be about to drop the piece.
        let aim =
            Aim { holders: wanted, counts_own: false, known_min: wanted, tried_max: REPLICAS_MAX.into() };
        let purpose = PlaceFor::Relocation { key };
        match PlacePiece::begin(now, purpose, offer, aim, &BTreeSet::new(), &mut self.machines) {
            Some(place) => {
                self.relocations.under_way.insert(key, place);
                self.review_relocation(now, key);
            }
            None => self.relocated(now, key, 0),
        }
    }

    pub(super) fn relocation_looked_up(&mut self, now: Instant, key: Key, closest: &[Contact]) {
        if let Some(place) = self.relocations.under_way.get_mut(&key) {
            place.handle_looked_up(now, closest, &BTreeSet::new(), &mut self.machines);
        }
        self.review_relocation(now, key);
    }

    fn relocation_copied(
        &mut self,
        now: Instant,
        key: Key,
        push: PushId,
        target: NodeId,
        result: &Result<PushOutcome, PushError>,
    ) {
        if let Some(place) = self.relocations.under_way.get_mut(&key) {
            place.handle_copied(now, push, &target, result, &mut self.machines);
        }
        self.review_relocation(now, key);
    }

    /// Goes on with the relocations that waited for room.
    pub(super) fn relocations_timeout(&mut self, now: Instant) {
        let due = |place: &PlacePiece| place.next_deadline().is_some_and(|at| at <= now);
        let waiting = self.relocations.under_way.iter().filter(|(_, place)| due(place));
        let waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            if let Some(place) = self.relocations.under_way.get_mut(&key) {
                place.advance(now, &mut self.machines);
            }
            self.review_relocation(now, key);
        }
    }

    /// Ends a relocation if nothing is left to do.
    fn review_relocation(&mut self, now: Instant, key: Key) {
        if self.relocations.under_way.get(&key).is_some_and(PlacePiece::is_over) {
            let copies = self.relocations.under_way.remove(&key).map_or(0, |place| place.copies());
            self.relocated(now, key, copies);
        }
    }

    fn relocated(&mut self, now: Instant, key: Key, copies: u8) {
        self.machines.replication.placed(now, &key, copies);
        self.shrink.placed(now, &key, copies, &mut self.machines);
        self.departure.placed(&key, copies, &mut self.machines);
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

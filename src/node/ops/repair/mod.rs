//! Repair: carrying out the decisions of replication. A copy goes to one neighbour; a misplaced piece is placed on the nodes closest to
//! it.
//!
//! Pieces that a leaving or shrinking node hands over are relocated in the same way. One piece is relocated once at a time, for
//! whichever reason, and each end of a relocation is reported to all that may have asked for it.

#[cfg(test)]
mod tests;
mod uplink;

use super::place_piece::{Aim, PlaceFor, PlacePiece};
use crate::id::{Key, NodeId};
use crate::io::Extent;
use crate::manifest::Content;
use crate::node::Copying;
use crate::node::machines::Machines;
use crate::replication::{Action, CopyOutcome, Placed, REPLICAS_MAX};
use crate::time::{Instant, earliest};
use crate::transfer::{ProofId, PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use uplink::Uplink;

/// The end of a relocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) struct Relocated {
    /// The piece.
    pub(in crate::node) key: Key,
    /// The number of other nodes among those closest to it that have it now.
    pub(in crate::node) copies: u8,
}

/// The copies and relocations of one node.
pub(in crate::node) struct Repair {
    relocations: BTreeMap<Key, PlacePiece>,
    /// Relocations that ended, for the operations that asked for them.
    relocated: VecDeque<Relocated>,
    /// Challenges under way: the piece, and the node that says that it has it.
    proofs: BTreeMap<ProofId, (Key, NodeId)>,
    uplink: Uplink,
}

impl Repair {
    /// Nothing to repair.
    pub(in crate::node) fn new(now: Instant) -> Self {
        Repair {
            relocations: BTreeMap::new(),
            relocated: VecDeque::new(),
            proofs: BTreeMap::new(),
            uplink: Uplink::new(now),
        }
    }

    /// When [`handle_timeout`](Repair::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self, machines: &Machines) -> Option<Instant> {
        let relocations = self.relocations.values().filter_map(PlacePiece::next_deadline).min();
        earliest(relocations, self.uplink.next_deadline(machines.transfer.is_sending()))
    }

    // Inputs.

    /// Carries out a decision of replication.
    pub(in crate::node) fn act(&mut self, now: Instant, action: Action, machines: &mut Machines) {
        match action {
            Action::Copy { key, target } => {
                let copy = offer_of(now, &key, machines);
                let begun = copy.and_then(|(offer, extent)| {
                    machines.push(now, Copying::Repair(key), target, offer, extent)
                });
                if begun.is_none() {
                    machines.replication.copy_done(now, &key, &target.id, CopyOutcome::Busy);
                }
            }
            Action::Prove { key, target } => self.prove(now, key, target, machines),
            Action::Place { key, copies } => self.place(now, key, copies, machines),
            Action::Drop { key } => _ = machines.store.remove_piece(&key),
        }
    }

    /// Challenges a node that says that it has a piece.
    fn prove(&mut self, now: Instant, key: Key, target: Contact, machines: &mut Machines) {
        let proof = ProofId(machines.fresh_id());
        let copy = machines.store.locate(&key);
        let begun = copy.is_some_and(|(_, extent)| machines.transfer.prove(now, proof, target, key, extent));
        match begun {
            true => _ = self.proofs.insert(proof, (key, target.id)),
            false => machines.replication.proven(now, &key, &target.id, false),
        }
    }

    /// A challenge ended.
    pub(in crate::node) fn handle_proven(
        &mut self,
        now: Instant,
        proof: ProofId,
        proven: bool,
        machines: &mut Machines,
    ) {
        let asked = self.proofs.remove(&proof);
        debug_assert!(asked.is_some(), "a challenge ends once");
        if let Some((key, target)) = asked {
            machines.replication.proven(now, &key, &target, proven);
        }
    }

    /// Copies a piece to the nodes closest to its key, as many as should hold it. [`poll_relocated`](Repair::poll_relocated) tells how
    /// it ended.
    pub(in crate::node) fn relocate(&mut self, now: Instant, key: Key, machines: &mut Machines) {
        self.place(now, key, REPLICAS_MAX, machines);
    }

    /// The same until `copies` nodes have it.
    fn place(&mut self, now: Instant, key: Key, copies: u8, machines: &mut Machines) {
        if self.relocations.contains_key(&key) {
            return;
        }
        let Some((offer, _)) = offer_of(now, &key, machines) else {
            return self.end(now, key, &[], machines);
        };
        let all = offer.replicas.min(REPLICAS_MAX);
        let (holders, known_min) = (usize::from(all.min(copies)), usize::from(all));
        // This node does not count as a holder: it may be about to drop the piece.
        let aim = Aim { holders, counts_own: false, known_min, tried_max: REPLICAS_MAX.into() };
        let purpose = PlaceFor::Relocation { key };
        match PlacePiece::begin(now, purpose, offer, aim, &BTreeSet::new(), machines) {
            Some(place) => {
                self.relocations.insert(key, place);
                self.review(now, key, machines);
            }
            None => self.end(now, key, &[], machines),
        }
    }

    /// The lookup for a relocation ended.
    pub(in crate::node) fn handle_looked_up(
        &mut self,
        now: Instant,
        key: Key,
        closest: &[Contact],
        machines: &mut Machines,
    ) {
        if let Some(place) = self.relocations.get_mut(&key) {
            place.handle_looked_up(now, closest, &BTreeSet::new(), machines);
        }
        self.review(now, key, machines);
    }

    /// A copy of a relocation succeeded or failed.
    pub(in crate::node) fn handle_placed(
        &mut self,
        now: Instant,
        (key, push): (Key, PushId),
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        if let Some(place) = self.relocations.get_mut(&key) {
            place.handle_copied(now, push, result, machines);
        }
        self.review(now, key, machines);
    }

    /// A copy to a neighbour succeeded or failed.
    pub(in crate::node) fn handle_copied(
        &mut self,
        now: Instant,
        key: &Key,
        target: &NodeId,
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        machines.replication.copy_done(now, key, target, outcome_of(result));
    }

    /// The deadline of [`next_deadline`](Repair::next_deadline) has come. It also measures the uplink.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let (uploaded, busy) = (machines.transfer.uploaded_bytes(), machines.transfer.is_sending());
        if let Some(rate) = self.uplink.sample(now, uploaded, busy) {
            machines.replication.set_uplink(rate);
        }
        let due = |place: &PlacePiece| place.next_deadline().is_some_and(|at| at <= now);
        let waiting = self.relocations.iter().filter(|(_, place)| due(place));
        let waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            if let Some(place) = self.relocations.get_mut(&key) {
                place.advance(now, machines);
            }
            self.review(now, key, machines);
        }
    }

    // Outputs.

    /// The next relocation that ended.
    pub(in crate::node) fn poll_relocated(&mut self) -> Option<Relocated> {
        self.relocated.pop_front()
    }

    /// Ends a relocation if nothing is left to do.
    fn review(&mut self, now: Instant, key: Key, machines: &mut Machines) {
        if self.relocations.get(&key).is_some_and(PlacePiece::is_over) {
            let placed = self.relocations.remove(&key);
            self.end(now, key, placed.as_ref().map_or(&[][..], PlacePiece::holders), machines);
        }
    }

    fn end(&mut self, now: Instant, key: Key, holders: &[Placed], machines: &mut Machines) {
        machines.replication.placed(now, &key, holders);
        let copies = u8::try_from(holders.len()).unwrap_or(u8::MAX);
        self.relocated.push_back(Relocated { key, copies });
    }
}

/// The outcome of a copy to a neighbour, as replication counts it.
fn outcome_of(result: &Result<PushOutcome, PushError>) -> CopyOutcome {
    match result {
        Ok(PushOutcome::Stored) => CopyOutcome::Stored,
        Ok(PushOutcome::Had) => CopyOutcome::Had,
        Err(PushError::Refused(Refusal::Busy)) => CopyOutcome::Busy,
        Err(PushError::Refused(_)) => CopyOutcome::Refused,
        Err(PushError::Unreachable | PushError::Lost | PushError::Unproven | PushError::Source(_)) => {
            CopyOutcome::Failed
        }
    }
}

/// The offer of a piece that is here. A stored piece is offered as its publisher claimed it, with the rest of its lifetime; a piece of
/// a file that was put here gets a new claim.
fn offer_of(now: Instant, key: &Key, machines: &mut Machines) -> Option<(Offer, Extent)> {
    let (_, extent) = machines.store.locate(key)?;
    if let Some(meta) = machines.store.piece(key) {
        let rest = meta.expires.saturating_sub(machines.store.age(now));
        let lifetime = u32::try_from(rest).ok()?.max(1);
        let (content, length, input_offset) = (meta.content, meta.length, meta.input_offset);
        let (mode, claim) = (meta.mode, meta.claim);
        let replicas = claim.map_or(meta.replicas, |claim| claim.replicas());
        let lifetime = claim.map_or(lifetime, |claim| lifetime.min(claim.lifetime()));
        let offer = Offer { key: *key, content, length, input_offset, replicas, mode, lifetime, claim };
        return Some((offer, extent));
    }
    let (shared, _) = machines.store.lasting_share(key).filter(|(shared, _)| shared.replicas > 0)?;
    let (content, input_offset) = match machines.store.chunk_of(key) {
        Some(chunk) => (shared.layout.content(), shared.layout.chunk_offset(chunk)),
        None => (Content::Manifest, 0),
    };
    let (replicas, lifetime) = (shared.replicas, shared.lifetime);
    let (length, mode) = (extent.length, machines.store.mode(key));
    let (key, claim) = (*key, None);
    let offer = Offer { key, content, length, input_offset, replicas, mode, lifetime, claim };
    Some((machines.claimed(offer), extent))
}

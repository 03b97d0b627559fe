//! Replication: pieces stay on as many nodes as was asked for, while nodes come and go.
//!
//! A piece belongs on the `replicas` nodes closest to its key. Each holder sees to that by itself: it knows its neighbourhood,
//! compares what it holds with the neighbours that should hold the same, copies what is missing, and drops what others have
//! taken over. There is no coordinator and no vote; who is nearest acts first, the others wait and look again.
//!
//! - Whom we share with: `neighbours` (slots, who is closest to a key, how far our sight reaches).
//! - What we hold: `pieces` (the table and what is due), `assess` (who should hold a piece, what it lacks).
//! - Comparing: `compare` (fingerprints), `reconcile` (asking), `serve` (answering), `exchange` (questions under way).
//! - Acting: `repair` (copies, placements, drops), `budget` (how fast), `partition` (when better not).
//!
//! What is known of a neighbour is believed until it has been unresponsive: when it returns it is compared with before
//! anything is copied, so that a copy that returns is kept and a reboot moves nothing.

mod assess;
mod budget;
mod compare;
mod config;
mod counters;
mod exchange;
mod neighbours;
mod partition;
mod pieces;
mod reconcile;
mod repair;
mod serve;
mod status;
#[cfg(test)]
mod tests;

pub use config::{InvalidReplication, ReplicationConfig};
pub use neighbours::{Liveness, Neighbour, SLOTS_MAX};
pub use status::{Phase, PieceStatus, Statistics};

use crate::id::{Key, NodeId};
use crate::rng::Rng;
use crate::time::{Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::Verified;
use crate::wire::header::{Kind, OVERHEAD_BYTES};
use crate::wire::message::Message;
use crate::wire::outbox::Outbox;
use crate::wire::reconcile::{Answers, WireRange};
use core::cell::Cell;
use core::net::SocketAddr;
pub use counters::ReplicationCounters;
use exchange::{Exchange, Purpose};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// On how many nodes a piece is kept at the most, whatever its offers ask for: those farther from it do not take it. An offer
/// costs a few bytes, and must not have the piece copied to everybody.
pub const REPLICAS_MAX: u8 = 20;

/// A stored piece, as far as replication is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its key.
    pub key: Key,
    /// How many nodes should hold it; more than [`REPLICAS_MAX`] are as many as that.
    pub replicas: u8,
    /// Its bytes.
    pub length: u32,
    /// Whether it is never dropped: it is a part of a file that is shared in place.
    pub keep: bool,
}

/// What the caller is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Offer this piece to this node, and tell [`copy_done`](Replication::copy_done), once.
    Copy {
        /// The piece.
        key: Key,
        /// Who gets it.
        target: Contact,
    },
    /// Look up who is closest to this piece, offer it to as many as should hold it, and tell
    /// [`placed`](Replication::placed), once.
    Place {
        /// The piece.
        key: Key,
    },
    /// Delete this stored piece: all its holders have it, and this node is none of them. It is no longer looked after.
    Drop {
        /// The piece.
        key: Key,
    },
}

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyOutcome {
    /// The other node wrote it to its disk.
    Stored,
    /// The other node has it on its disk already.
    Had,
    /// It is arriving there already, or there is no room for it at the moment.
    Busy,
    /// The other node does not want it: no space, not close enough.
    Refused,
    /// The other node could not be reached, or the transfer broke off.
    Failed,
}

/// One node's part of keeping pieces where they belong.
pub struct Replication {
    config: ReplicationConfig,
    own: NodeId,
    rng: Rng,
    /// Makes waits differ between nodes, and fingerprints of single pieces differ between runs.
    salt: u64,
    neighbours: neighbours::Neighbours,
    pieces: pieces::Pieces,
    sweep: Option<assess::Sweep>,
    sweep_due: Option<Instant>,
    jobs: BTreeMap<Key, repair::Job>,
    placing: BTreeSet<Key>,
    /// When the next lookup for a piece may begin.
    place_at: Instant,
    budget: budget::Budget,
    partition: partition::Partition,
    /// A node that has just started first finds out who its neighbours are.
    quiet_until: Instant,
    /// Something happened outside of a timeout that is to be acted upon.
    wake: Option<Instant>,
    /// The next deadline, until something happens. Whoever asks after every datagram must not pay for all the slots.
    deadline: Cell<Option<Option<Instant>>>,
    actions: VecDeque<Action>,
    counters: ReplicationCounters,
    /// Pieces looked at so far, in whatever way: what a call costs.
    work: u64,
}

impl Replication {
    /// The part of the node `own`, which knows no neighbour and holds nothing yet. For four times
    /// [`settle`](ReplicationConfig::settle) it copies and drops nothing: it may have come back while others are away for a
    /// moment, and those have to come back and settle as well.
    pub fn new(config: ReplicationConfig, own: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        Replication {
            own,
            salt: rng.u64(),
            rng,
            neighbours: neighbours::Neighbours::new(own, config.settle),
            pieces: pieces::Pieces::default(),
            sweep: None,
            sweep_due: None,
            jobs: BTreeMap::new(),
            placing: BTreeSet::new(),
            place_at: now,
            budget: budget::Budget::new(config.bytes_per_second, now),
            partition: partition::Partition::new(
                config.cut_off_percent,
                config.cut_off_window,
                config.cut_off_wait,
            ),
            quiet_until: now + config.settle * 4,
            wake: None,
            deadline: Cell::new(None),
            actions: VecDeque::new(),
            counters: ReplicationCounters::default(),
            work: 0,
            config,
        }
    }

    // Inputs.

    /// Takes the neighbourhood: the members nearest to this node, nearest first, at most [`SLOTS_MAX`]; `complete` when there
    /// are no others in the network. Cheap when nothing has changed.
    pub fn set_neighbourhood(&mut self, now: Instant, neighbours: &[Neighbour], complete: bool) {
        self.deadline.set(None);
        let counted = self.neighbours.counted();
        let changes = self.neighbours.set(now, neighbours, complete);
        for id in &changes.there {
            self.partition.returned(id);
        }
        for id in changes.vanished {
            self.partition.vanished(now, id);
        }
        if self.partition.judge(now, counted) {
            self.counters.cut_off += 1;
            log::warn!(
                "much of the neighbourhood is silent: this node may be cut off, and repairs nothing for now"
            );
        }
        if self.neighbours.take_change() {
            self.sweep_at(now);
        }
    }

    /// This node holds a piece durably. One that is known already is held for more replicas from now on, or kept. `false`
    /// when the table is full.
    pub fn piece_added(&mut self, now: Instant, piece: Held) -> bool {
        self.deadline.set(None);
        let replicas = piece.replicas.min(REPLICAS_MAX);
        if let Some(known) = self.pieces.get_mut(&piece.key) {
            known.replicas = replicas;
            known.keep = piece.keep;
            known.length = piece.length;
        } else {
            if self.pieces.len() >= self.config.pieces_max {
                self.counters.not_tracked += 1;
                return false;
            }
            self.pieces.insert(now, piece.key, replicas, piece.length, piece.keep);
            // Whoever brought it here is about to bring it to the others.
            self.put_off(&piece.key, now + self.config.rank_wait);
        }
        self.review(now, &piece.key);
        true
    }

    /// This node does not hold a piece any more.
    pub fn piece_removed(&mut self, key: &Key) {
        self.deadline.set(None);
        self.forget(key);
    }

    /// A node is known to hold a piece durably: a copy to it ended so, whoever made it.
    pub fn confirmed(&mut self, now: Instant, key: &Key, id: &NodeId) {
        self.deadline.set(None);
        let Some(slot) = self.neighbours.find(id) else { return };
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.confirmed |= 1 << slot;
        self.review(now, key);
    }

    /// What the uplink was seen to carry, in bytes a second.
    pub fn set_uplink(&mut self, bytes_per_second: u64) {
        self.deadline.set(None);
        self.budget.set_uplink(bytes_per_second);
    }

    /// Whether it is worth checking the signature of a datagram: answers must belong to a question that was sent there.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        match kind {
            Kind::Reconcile => true,
            Kind::Reconciled => self.asked(transaction, from).is_some(),
            _ => false,
        }
    }

    fn asked(&self, transaction: u64, from: SocketAddr) -> Option<usize> {
        let from = canonical(from);
        let fits = |exchange: &Exchange| exchange.transaction == transaction && exchange.to == from;
        self.neighbours
            .iter()
            .find(|(_, slot)| slot.exchange.as_ref().is_some_and(fits))
            .map(|(index, _)| index)
    }

    /// Takes a datagram: a question of a neighbour, or an answer of one. `proven` says that whoever sends from this address
    /// receives there as well; to others no more than three times the bytes of their question are sent.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        proven: bool,
        outbox: &mut Outbox,
    ) {
        self.deadline.set(None);
        let sender = Contact { id: datagram.id(), public: datagram.public(), addr: canonical(from) };
        match datagram.message() {
            Message::Reconcile { salt, ranges } => {
                self.answer(now, sender, datagram, (salt, ranges), proven, outbox);
            }
            Message::Reconciled { answers } => {
                self.take_answers(now, sender, datagram.transaction(), answers);
                self.drive(now, outbox);
            }
            _ => {}
        }
    }

    fn take_answers(&mut self, now: Instant, sender: Contact, transaction: u64, answers: Answers<'_>) {
        let from = |slot: &usize| self.neighbours.get(*slot).is_some_and(|slot| slot.contact.id == sender.id);
        let Some(slot) = self.asked(transaction, sender.addr).filter(from) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(exchange) = self.neighbours.get_mut(slot).and_then(|slot| slot.exchange.take()) else {
            return;
        };
        match &exchange.purpose {
            Purpose::Compare => self.compared(now, slot, &exchange, answers),
            Purpose::Look(keys) => self.looked(now, slot, keys, Some(answers)),
        }
    }

    /// Does what is due. One call looks at some hundred pieces at most, besides those that a comparison is about.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.deadline.set(None);
        self.wake = None;
        self.expire_exchanges(now, outbox);
        self.neighbours.refresh(now);
        if self.neighbours.take_change() {
            self.sweep_at(now);
        }
        if self.partition.ends_at().is_some_and(|at| at <= now) {
            self.partition.judge(now, self.neighbours.counted());
        }
        self.review_some(now);
        self.drive(now, outbox);
    }

    /// When [`handle_timeout`](Replication::handle_timeout) is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadline.get().unwrap_or_else(|| self.earliest_deadline());
        self.deadline.set(Some(deadline));
        deadline
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        let exchanges =
            self.neighbours.iter().filter_map(|(_, slot)| Some(slot.exchange.as_ref()?.due())).min();
        [
            self.wake,
            exchanges,
            self.neighbours.next_deadline(),
            self.partition.ends_at(),
            self.review_deadline(),
            self.reconcile_deadline(),
            self.repair_deadline(),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn drive(&mut self, now: Instant, outbox: &mut Outbox) {
        self.repair(now, outbox);
        self.reconcile(now, outbox);
        if self.neighbours.take_change() {
            self.sweep_at(now);
        }
    }

    fn wake_at(&mut self, now: Instant) {
        self.wake = Some(now);
    }

    fn expire_exchanges(&mut self, now: Instant, outbox: &mut Outbox) {
        for index in 0..SLOTS_MAX {
            let Some(slot) = self.neighbours.get_mut(index) else { continue };
            let Some(exchange) = slot.exchange.as_mut().filter(|exchange| exchange.due() <= now) else {
                continue;
            };
            if exchange.is_repeated(now) {
                let (transaction, salt, ranges) =
                    (exchange.transaction, exchange.salt, exchange.ranges.clone());
                // It may have moved meanwhile.
                exchange.to = slot.contact.addr;
                let to = slot.contact;
                self.send_ranges(to, transaction, salt, &ranges, outbox);
                continue;
            }
            let Some(exchange) = slot.exchange.take() else { continue };
            self.counters.unanswered += 1;
            match exchange.purpose {
                Purpose::Compare => self.session_failed(now, index),
                Purpose::Look(keys) => self.looked(now, index, &keys, None),
            }
        }
    }

    fn send_ranges(
        &mut self,
        to: Contact,
        transaction: u64,
        salt: u64,
        ranges: &[WireRange],
        outbox: &mut Outbox,
    ) {
        let message = Message::Reconcile { salt, ranges };
        if outbox.send(to.addr, Some(to.id), transaction, 0, &message) {
            let bytes = OVERHEAD_BYTES + size_of::<u64>() + size_of_val(ranges);
            self.counters.datagrams += 1;
            self.counters.datagram_bytes += bytes as u64;
        }
    }
}

//! Replication: keeping the desired number of copies of each piece while nodes come and go.
//!
//! A piece belongs on the `replicas` nodes closest to its key. Each holder acts on its own: it knows its neighbourhood, compares its
//! pieces with the neighbours that should hold the same ones, copies what is missing, and drops what others have taken over. There
//! is no coordinator and no vote: the nearest holder acts first, the others wait and check again.
//!
//! - The neighbourhood: `neighbours` (slots, the closest to a key, the part of the key space that this node knows completely).
//! - The pieces: `pieces` (the table and its agenda), `assess` (which nodes should hold a piece, and what it lacks).
//! - Comparisons: `compare` (fingerprints), `reconcile` (asking), `serve` (answering), `questions` (outstanding requests).
//! - Actions: `repair` (copies, placements, drops), `budget` (bandwidth), `partition` (when repair is suspended).
//!
//! What is known of a neighbour's pieces counts until the neighbour becomes unresponsive. When it returns, a comparison comes before
//! any copy. So a copy that returns is counted, and a reboot moves nothing.

mod assess;
mod budget;
mod compare;
mod config;
mod counters;
mod neighbours;
mod partition;
mod pieces;
mod questions;
mod reconcile;
mod repair;
mod serve;
mod status;
#[cfg(test)]
mod tests;

pub use config::{InvalidReplication, ReplicationConfig};
pub use neighbours::{Neighbour, SLOTS_MAX};
pub use partition::Suspicion;
pub use status::{Phase, PieceStatus, Statistics};

use crate::id::{Key, NodeId};
use crate::peers::outbox::{Ask, Attempt, Outbox};
use crate::peers::requests::{Challenge, Overdue};
use crate::rng::Rng;
use crate::time::{Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use crate::wire::reconcile::{Answers, number};
use core::cell::Cell;
use core::net::SocketAddr;
pub use counters::ReplicationCounters;
use questions::{Purpose, Requests};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most nodes that hold a piece, also when its offers ask for more: nodes farther away refuse it. An offer costs a few bytes,
/// and must not have the piece copied to the whole network.
pub const REPLICAS_MAX: u8 = 20;

/// A node holds pieces whose keys share their first bits with its id, as many as about this number of nodes share.
const NEAR_NODES: u64 = 16;

/// A stored piece, as replication sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its key.
    pub key: Key,
    /// The number of nodes that should hold it. A number above [`REPLICAS_MAX`] counts as [`REPLICAS_MAX`].
    pub replicas: u8,
    /// Its length in bytes.
    pub length: u32,
    /// Whether it is never dropped, because it is a part of a file that is shared in place.
    pub keep: bool,
}

/// An action for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Offer this piece to this node, and report the outcome with [`copy_done`](Replication::copy_done), once.
    Copy {
        /// The piece.
        key: Key,
        /// The node that receives it.
        target: Contact,
    },
    /// Challenge this node to prove that it has this piece on disk, and report the outcome with [`proven`](Replication::proven), once.
    Prove {
        /// The piece.
        key: Key,
        /// The node that says that it has it.
        target: Contact,
    },
    /// Look up the nodes closest to this piece, offer it to the nearest until as many as wanted have it, and report the result with
    /// [`placed`](Replication::placed), once.
    Place {
        /// The piece.
        key: Key,
        /// The number of nodes that are to have it.
        copies: u8,
    },
    /// Delete this stored piece: all its holders have proven that they have it, and this node is none of them. It has left the
    /// table.
    Drop {
        /// The piece.
        key: Key,
    },
}

/// A node that has a piece after an [`Action::Place`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The node.
    pub id: NodeId,
    /// Whether it had the piece before.
    pub had: bool,
}

/// The outcome of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyOutcome {
    /// The other node made it durable.
    Stored,
    /// The other node had it already, durable.
    Had,
    /// It is arriving at the other node already, or there is no room at the moment.
    Busy,
    /// The other node refused it: no space, or not close enough.
    Refused,
    /// The other node could not be reached, or the transfer broke off.
    Failed,
}

/// The replication machine of one node.
pub struct Replication {
    config: ReplicationConfig,
    own: NodeId,
    rng: Rng,
    /// A random number. It makes waits differ between nodes, and fingerprints differ between runs.
    salt: u64,
    neighbours: neighbours::Neighbours,
    pieces: pieces::Pieces,
    sweep: Option<assess::Sweep>,
    sweep_due: Option<Instant>,
    jobs: BTreeMap<Key, repair::Job>,
    placing: BTreeSet<Key>,
    /// When the next placement may begin.
    place_at: Instant,
    requests: Requests,
    budget: budget::Budget,
    partition: partition::Partition,
    /// The end of the quiet time after the start, in which the node learns its neighbourhood.
    quiet_until: Instant,
    /// When to act on an event outside of a timeout.
    wake: Option<Instant>,
    /// The cached next deadline, until something happens: computing it visits all slots.
    deadline: Cell<Option<Option<Instant>>>,
    actions: VecDeque<Action>,
    counters: ReplicationCounters,
    /// The number of pieces visited so far, for any reason: the cost of calls.
    work: u64,
}

impl Replication {
    /// The machine of the node `own`, which knows no neighbour and holds nothing yet. For four times
    /// [`settle`](ReplicationConfig::settle) it copies and drops nothing: other nodes may be restarting at the same time, and need
    /// time to return and settle.
    pub fn new(config: ReplicationConfig, own: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        Replication {
            own,
            salt: rng.u64(),
            rng,
            neighbours: neighbours::Neighbours::new(own, config.settle, config.parties),
            pieces: pieces::Pieces::default(),
            sweep: None,
            sweep_due: None,
            jobs: BTreeMap::new(),
            placing: BTreeSet::new(),
            place_at: now,
            requests: Requests::new(2 * SLOTS_MAX),
            budget: budget::Budget::new(config.bytes_per_second, now),
            partition: partition::Partition::new(
                config.cut_off_percent,
                config.cut_off_window,
                config.cut_off_wait,
                config.settle * 2,
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

    /// Sets the neighbourhood: the members nearest to this node, nearest first, at most [`SLOTS_MAX`]. `complete` tells that the
    /// network has no other members. Cheap if nothing has changed.
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
            if let Some(Suspicion { silent, neighbours, tolerated, .. }) = self.partition.suspicion() {
                log::warn!(
                    "this node suspects that it is partitioned: {silent} of {neighbours} neighbours fell silent at \
                     once; repair waits until at most {tolerated} of them are silent"
                );
            }
        }
        if self.neighbours.take_change() {
            self.sweep_at(now);
        }
    }

    /// Whether this node suspects that it is partitioned. Then the caller surveys the network: see [`surveyed`](Replication::surveyed).
    pub fn is_suspicious(&self) -> bool {
        self.partition.suspicion().is_some()
    }

    /// A survey has ended: members from everywhere in the network, not only neighbours, were pinged. `most_answer`: more than half of
    /// them answered.
    pub fn surveyed(&mut self, now: Instant, most_answer: bool) {
        self.deadline.set(None);
        self.partition.survey(most_answer);
        self.wake_at(now);
    }

    /// This node holds a piece durably. If the piece is in the table already, its values are updated. False when the table is full.
    pub fn piece_added(&mut self, now: Instant, piece: Held) -> bool {
        self.deadline.set(None);
        let replicas = piece.replicas.min(REPLICAS_MAX);
        if let Some(known) = self.pieces.get_mut(&piece.key) {
            known.replicas = replicas;
            known.keep = piece.keep;
            known.in_doubt &= piece.keep;
            known.length = piece.length;
        } else {
            if self.pieces.len() >= self.config.pieces_max {
                self.counters.not_tracked += 1;
                return false;
            }
            self.pieces.insert(now, piece.key, replicas, piece.length, piece.keep);
            // The node that sent it is about to send it to the other holders, too.
            self.put_off(&piece.key, now + self.config.rank_wait);
        }
        self.review(now, &piece.key);
        true
    }

    /// A member of the network fell silent, wherever it is. `nodes` is the estimated number of nodes.
    ///
    /// Holders see to the pieces in their neighbourhood. But when all holders of a piece fall silent at once, the only node left that
    /// can copy it is its publisher, which keeps it for good and may be far away. So the pieces near that member that are kept here for
    /// good, and whose holders are out of sight, are in doubt: this node soon looks whether their nearest node has them.
    pub fn member_silent(&mut self, now: Instant, id: &NodeId, nodes: u64) {
        self.deadline.set(None);
        let bits = (nodes / NEAR_NODES).max(1).ilog2();
        let rest = u64::MAX.checked_shr(bits).unwrap_or(0);
        let first = number(&id.key()) & !rest;
        let (from, to) = compare::bounds(first, first | rest);
        for (_, piece) in self.pieces.range_mut(&from, &to).filter(|(_, piece)| piece.keep) {
            piece.in_doubt = true;
        }
        self.sweep_at(now);
    }

    /// This node no longer holds a piece.
    pub fn piece_removed(&mut self, key: &Key) {
        self.deadline.set(None);
        self.forget(key);
    }

    /// Another node holds a piece durably: a copy by any node to it has succeeded.
    pub fn confirmed(&mut self, now: Instant, key: &Key, id: &NodeId) {
        self.deadline.set(None);
        let Some(slot) = self.neighbours.find(id) else { return };
        let Some(piece) = self.pieces.get_mut(key) else { return };
        piece.confirmed |= 1 << slot;
        self.review(now, key);
    }

    /// Sets the measured rate of the uplink, in bytes per second.
    pub fn set_uplink(&mut self, bytes_per_second: u64) {
        self.deadline.set(None);
        self.budget.set_uplink(bytes_per_second);
    }

    /// Whether the signature of a datagram is worth checking: an answer must match an outstanding request to its sender.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        match kind {
            Kind::Reconcile => true,
            Kind::Reconciled => self.requests.is_expected(kind, transaction, from),
            _ => false,
        }
    }

    /// The neighbour that owes the answer with this number.
    fn owing(&self, transaction: u64) -> Option<usize> {
        self.neighbours.iter().find(|(_, slot)| slot.asked == Some(transaction)).map(|(index, _)| index)
    }

    /// Forgets the questions to neighbours that are none any more.
    fn forget_unasked(&mut self) {
        let asked: Vec<u64> = self.neighbours.iter().filter_map(|(_, slot)| slot.asked).collect();
        self.requests.retain(|transaction| asked.contains(&transaction));
    }

    /// Takes a datagram: a request of a neighbour, or a neighbour's answer. `validated` says that `from` is a validated address;
    /// another address is sent at most three times the bytes of the request.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        validated: bool,
        outbox: &mut Outbox,
    ) {
        self.deadline.set(None);
        let sender = Contact { id: datagram.id(), public: datagram.public(), addr: canonical(from) };
        match datagram.message() {
            Message::Reconcile { salt, ranges } => {
                self.answer(now, sender, datagram, (salt, ranges), validated, outbox);
            }
            Message::Reconciled { answers } => {
                self.take_answers(now, from, datagram, answers, outbox);
                self.drive(now, outbox);
            }
            _ => {}
        }
    }

    fn take_answers(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        answers: Answers<'_>,
        outbox: &mut Outbox,
    ) {
        let request = self.requests.answered_by(now, from, datagram, outbox);
        let slot = self.owing(datagram.transaction());
        let (Some(request), Some(slot)) = (request, slot) else {
            self.counters.unexpected += 1;
            return;
        };
        if let Some(slot) = self.neighbours.get_mut(slot) {
            slot.asked = None;
        }
        let asked = request.question;
        match &asked.purpose {
            Purpose::Compare => self.compared(now, slot, &asked, answers),
            Purpose::Look(keys) => self.looked(now, slot, keys, Some(answers)),
        }
    }

    /// A challenge arrived. If it is to a request of this machine, the request is sent again, with a signature and the token.
    pub fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        if let Some(ask) = self.requests.challenged(challenge) {
            self.transmit(now, ask, outbox);
        }
    }

    /// Does everything that is due. One call visits some hundred pieces at most, apart from those in a comparison.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.deadline.set(None);
        self.wake = None;
        self.expire_requests(now, outbox);
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

    /// When [`handle_timeout`](Replication::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadline.get().unwrap_or_else(|| self.earliest_deadline());
        self.deadline.set(Some(deadline));
        deadline
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        [
            self.wake,
            self.requests.next_deadline(),
            self.neighbours.next_deadline(),
            self.partition.ends_at(),
            self.review_deadline(),
            self.reconcile_deadline(),
            self.repair_deadline(),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// The next action for the caller.
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

    /// Asks again what was not answered in time, or gives it up.
    fn expire_requests(&mut self, now: Instant, outbox: &mut Outbox) {
        for (transaction, overdue) in self.requests.overdue(now) {
            let Some(index) = self.owing(transaction) else {
                self.requests.remove(transaction);
                continue;
            };
            let Some(slot) = self.neighbours.get_mut(index) else { continue };
            if overdue == Overdue::Late {
                let to = slot.contact;
                let Some(request) = self.requests.get_mut(transaction) else { continue };
                // The neighbour may have moved meanwhile.
                request.ask_again(now, to.addr);
                if let Some(ask) = self.requests.ask_again(transaction, Attempt::Again) {
                    self.transmit(now, ask, outbox);
                }
                continue;
            }
            slot.asked = None;
            outbox.peers_mut().note_unanswered(now, &slot.contact.id);
            self.counters.unanswered += 1;
            match self.requests.remove(transaction).map(|request| request.question.purpose) {
                Some(Purpose::Compare) => self.session_failed(now, index),
                Some(Purpose::Look(keys)) => self.looked(now, index, &keys, None),
                None => {}
            }
        }
    }

    /// Writes a question into the outbox.
    fn transmit(&mut self, now: Instant, ask: Ask, outbox: &mut Outbox) {
        let Some(request) = self.requests.get(ask.transaction) else { return };
        let message = Message::Reconcile { salt: request.question.salt, ranges: &request.question.ranges };
        if let Some(bytes) = outbox.request(now, ask, &message) {
            self.counters.datagrams += 1;
            self.counters.datagram_bytes += bytes as u64;
        }
    }
}

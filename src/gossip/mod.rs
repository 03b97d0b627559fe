//! Membership: who is in the network, and whether they are there.
//!
//! Every node signs its own state. In rounds it tells a few others what it knows and hears what it does not, and it watches
//! those nearest to it in the key space. The caller hands in verified datagrams and the time, takes datagrams out of an
//! [`Outbox`] and events out of [`Gossip::poll_event`], and calls [`Gossip::handle_timeout`] when
//! [`Gossip::next_deadline`] has come.
//!
//! - Whom we know: `members` (the view), `self_state` (what this node says about itself), `rumours` (what is news).
//! - Telling: `round` (rounds, and both ends of a gossip), `merge` (what a datagram tells about its sender and about others).
//! - Watching: `detect` (who is silent, who is asked, what follows), `relay` (asking for others), `transactions` (who owes an
//!   answer), `rtt`, `pace` (what may be done only so often; how well this node itself is doing).
//!
//! The rules that keep liars harmless: only its subject can make a state, and the one with the higher number wins; nothing that
//! others say makes a member live, unresponsive, evicted or left, it only makes this node ask for itself; whoever has not
//! answered at an address is sent no more than three times what came from there.

mod config;
mod counters;
mod detect;
mod members;
mod merge;
mod pace;
mod relay;
mod round;
mod rtt;
mod rumours;
mod self_state;
#[cfg(test)]
mod tests;
mod transactions;

pub use config::{GossipConfig, InvalidGossipConfig};
pub use members::Liveness;
pub use self_state::OwnState;

use crate::id::{NodeId, PublicKey, ShortId};
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use crate::wire::outbox::Outbox;
use crate::wire::state::NodeState;
use core::net::SocketAddr;
pub use counters::GossipCounters;
use members::Members;
use pace::{Allowance, Health};
use rumours::Rumours;
use self_state::SelfState;
use std::collections::VecDeque;
use transactions::Transactions;

/// Events that wait to be polled. What would be one more is found out again in the next round.
const EVENTS_MAX: usize = 64;
/// Members that wait to be asked soon.
const QUEUE_MAX: usize = 32;

/// The worst local health; the best is 0 ([`Gossip::local_health`]).
pub const LOCAL_HEALTH_WORST: u8 = Health::WORST;

/// What the caller hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GossipEvent {
    /// A member answered for the first time.
    Met {
        /// Who and where.
        contact: Contact,
        /// The smoothed round-trip time, when one was measured.
        rtt: Option<Duration>,
    },
    /// A member is silent, and nobody who was asked to try got an answer.
    Suspected {
        /// Who and where.
        contact: Contact,
    },
    /// A suspect has been silent for long.
    Unresponsive {
        /// Who and where.
        contact: Contact,
    },
    /// A member has been silent for so long that it counts as gone.
    Evicted {
        /// Who and where.
        contact: Contact,
    },
    /// A member said goodbye.
    Left {
        /// Who and where.
        contact: Contact,
        /// Whether it does not mean to come back.
        for_good: bool,
    },
    /// A member that was suspected, unresponsive, evicted or had left is there again.
    Returned {
        /// Who and where.
        contact: Contact,
        /// The smoothed round-trip time, when one was measured.
        rtt: Option<Duration>,
    },
    /// A member answers at another address.
    Moved {
        /// Who, and where it is now.
        contact: Contact,
        /// Where it was.
        from: SocketAddr,
    },
}

/// A member as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who and where.
    pub contact: Contact,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Since when that is so.
    pub since: Instant,
    /// When the member itself was last heard from; `None` when it never was.
    pub heard: Option<Instant>,
    /// The smoothed round-trip time, when one was measured.
    pub rtt: Option<Duration>,
    /// What it says about itself, when that was heard.
    pub state: Option<NodeState>,
}

/// How membership is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Members in the view.
    pub members: usize,
    /// Of those, how many are live.
    pub live: usize,
    /// About how many nodes the network has.
    pub network_size: u64,
    /// How badly this node itself is doing, 0 to 8.
    pub local_health: u8,
    /// Rumours that are being told.
    pub rumours: usize,
    /// Requests that wait for an answer.
    pub transactions: usize,
    /// What was counted.
    pub counters: GossipCounters,
}

/// One node's membership: see the [module](self).
pub struct Gossip {
    config: GossipConfig,
    own_id: NodeId,
    leaf: bool,
    rng: Rng,
    own: SelfState,
    members: Members,
    rumours: Rumours,
    transactions: Transactions,
    health: Health,
    /// Whether anybody answered a round since the last one.
    round_answered: bool,
    counters: GossipCounters,
    events: VecDeque<GossipEvent>,
    rounds: u64,
    round_at: Option<Instant>,
    /// Where the next digest and the next round go on.
    cursors: round::Cursors,
    /// Members that are to be asked soon, and when the first of them.
    queue: VecDeque<ShortId>,
    queue_at: Instant,
    /// Other addresses at which members may be: tried when they do not answer at the one that is known.
    other_addrs: VecDeque<(ShortId, SocketAddr)>,
    /// Whether the next round asks everybody who is monitored.
    roll_call: bool,
    /// Since when this node has been awake without a break: nobody's silence is longer.
    awake: Instant,
    state_checks: Allowance,
    relays: Allowance,
    tellings: Allowance,
    refutations: Allowance,
    displacements: Allowance,
}

impl Gossip {
    /// The membership of the node with this key, which knows nobody yet. `sequence_base` is over every number that earlier
    /// runs gave to its states: the number of this run times 2^32.
    pub fn new(
        config: GossipConfig,
        public: PublicKey,
        leaf: bool,
        sequence_base: u64,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let own_id = public.node_id();
        let interval = config.interval;
        Gossip {
            own_id,
            leaf,
            own: SelfState::new(leaf, sequence_base, now),
            members: Members::new(&own_id, config.view_max, config.neighbours * 3 / 2),
            rumours: Rumours::new(rng.u64()),
            transactions: Transactions::new(),
            health: Health::default(),
            round_answered: false,
            counters: GossipCounters::default(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            rounds: 0,
            round_at: None,
            cursors: round::Cursors::default(),
            queue: VecDeque::with_capacity(QUEUE_MAX),
            queue_at: now,
            other_addrs: VecDeque::with_capacity(detect::OTHER_ADDRS_MAX),
            roll_call: false,
            awake: now,
            state_checks: Allowance::per_second(now, config.state_checks_per_second_max),
            relays: Allowance::per_second(now, config.relayed_probes_per_second_max),
            tellings: Allowance::new(now, 6, interval / 5),
            refutations: Allowance::new(now, 2, interval / 2),
            displacements: Allowance::new(now, 4, interval),
            rng,
            config,
        }
    }

    // Inputs.

    /// Whether it is worth checking the signature of a datagram: answers must belong to a request that was sent there.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        !kind.is_answer() || self.transactions.is_expected(kind, transaction, from)
    }

    /// Takes a gossip, a probe, or an answer to one of its own requests, pongs among them. `proven` says that whoever sends from
    /// this address receives there as well. Anything else is ignored.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        proven: bool,
        outbox: &mut Outbox,
    ) {
        if datagram.id() == self.own_id {
            return;
        }
        self.notice_sleep(now);
        let from = canonical(from);
        match datagram.message() {
            Message::Gossip(body) => self.handle_gossip(now, from, datagram, &body, proven, outbox),
            Message::Probe { target } => self.handle_probe(now, from, datagram, &target, outbox),
            Message::GossipReply(_) | Message::Pong { .. } | Message::ProbeReply { .. } => {
                self.handle_answer(now, from, datagram, outbox);
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.notice_lateness(now);
        self.notice_sleep(now);
        while let Some(request) = self.transactions.overdue(now) {
            self.failed(now, &request, outbox);
        }
        self.ask_queued(now, outbox);
        if self.round_at.is_some_and(|at| at <= now) {
            self.round(now, outbox);
        }
    }

    /// When [`handle_timeout`](Gossip::handle_timeout) is to be called; `None` while nobody is known.
    pub fn next_deadline(&self) -> Option<Instant> {
        let queue = (!self.queue.is_empty()).then_some(self.queue_at);
        earliest(earliest(self.round_at, queue), self.transactions.next_deadline())
    }

    /// Another machine had an authenticated exchange with a node there, a request or an answer, datagrams or a stream. The node
    /// is not a leaf. One that was not met yet is asked before it counts.
    pub fn note_contact(&mut self, now: Instant, contact: Contact) {
        self.notice_sleep(now);
        let Some((position, _)) = self.acquaint(now, &contact, false) else { return };
        let liveness = self.members.places()[position].liveness;
        let here = self.members.entry(position).addr() == contact.addr;
        match liveness {
            Liveness::Live | Liveness::Suspect | Liveness::Unresponsive if here => {
                self.alive(now, position, None);
            }
            _ if self.left_just_now(now, position) => {}
            _ => {
                if !here {
                    self.note_other_addr(contact.id.short(), contact.addr);
                }
                self.ask_soon(now, contact.id.short());
            }
        }
    }

    /// Another machine got an answer, in datagrams, from a node that is not a leaf.
    pub fn note_alive(&mut self, now: Instant, contact: Contact, rtt: Option<Duration>) {
        self.notice_sleep(now);
        let Some((position, _)) = self.acquaint(now, &contact, true) else { return };
        if self.left_just_now(now, position) {
            return;
        }
        if matches!(self.members.places()[position].liveness, Liveness::Left { .. }) {
            return self.ask_soon(now, contact.id.short());
        }
        if self.arrived(position, contact.addr) {
            self.alive(now, position, rtt);
        }
    }

    /// Another machine could not reach a node: it is asked soon.
    pub fn note_failed(&mut self, now: Instant, id: &NodeId) {
        self.notice_sleep(now);
        let Some(position) = self.position(id) else { return };
        if !self.members.places()[position].liveness.is_away() {
            self.ask_soon(now, id.short());
        }
    }

    /// A node said goodbye in a verified datagram with this number. An old goodbye means nothing to one that has come back.
    pub fn note_leave(&mut self, now: Instant, id: &NodeId, for_good: bool, sequence: u64) {
        self.notice_sleep(now);
        let Some(position) = self.position(id) else { return };
        // The upper half counts the runs of the node. What it said in an earlier one may be a replay, also where this node has
        // not heard it since.
        let run = |sequence: u64| sequence >> 32;
        let known = self.members.entry(position);
        if sequence <= known.sequence || run(sequence) < run(known.state.sequence()) {
            return;
        }
        let entry = self.members.entry_mut(position);
        (entry.sequence, entry.heard) = (sequence, now);
        if self.members.places()[position].liveness == Liveness::Unproven {
            self.members.remove(position);
        } else {
            self.left(now, position, for_good);
        }
    }

    /// Sets what this node says about itself. Others hear of it when the change is worth it.
    pub fn set_own(&mut self, now: Instant, state: OwnState) {
        self.leaf = state.leaf;
        self.own.set(&state);
        self.own.reconsider(now, self.config.tell_interval);
    }

    /// Tells some members, in a signed state, that this node is leaving, so that the others hear of it too.
    pub fn leave(&mut self, now: Instant, for_good: bool, outbox: &mut Outbox) {
        self.own.leave(for_good);
        self.own.reconsider(now, self.config.tell_interval);
        self.tell_neighbours(now, self.config.fanout, None, outbox);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GossipEvent> {
        self.events.pop_front()
    }

    // Getters.

    /// The neighbourhood, nearest first: of those members that were met and have neither been evicted nor left for good, the
    /// nearest to this node.
    pub fn neighbourhood(&self) -> impl Iterator<Item = Member> + '_ {
        self.members
            .nearest(self.config.neighbours, Liveness::is_neighbour)
            .map(|position| self.member_at(position))
    }

    /// Whether the neighbourhood is everybody: fewer members were met than it has room for.
    pub fn is_whole_network(&self) -> bool {
        self.members.nearest(self.config.neighbours, Liveness::is_neighbour).count() < self.config.neighbours
    }

    /// Everybody who is known, nearest first.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        (0..self.members.len()).map(|position| self.member_at(position))
    }

    /// A member.
    pub fn member(&self, id: &NodeId) -> Option<Member> {
        self.position(id).map(|position| self.member_at(position))
    }

    /// Grows with every change of the neighbourhood, of where its members are, and of whether they are there: what was read of it
    /// at the same number still holds.
    pub fn neighbourhood_generation(&self) -> u64 {
        self.members.generation()
    }

    /// How badly this node itself is doing: 0 is well, 8 is worst. The higher, the longer it waits before it believes that others
    /// are gone.
    pub fn local_health(&self) -> u8 {
        self.health.score()
    }

    /// The number of this node's present state.
    pub fn sequence(&self) -> u64 {
        self.own.sequence()
    }

    /// How membership is doing.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            members: self.members.len(),
            live: self.members.places().iter().filter(|place| place.liveness == Liveness::Live).count(),
            network_size: self.members.network_size(),
            local_health: self.health.score(),
            rumours: self.rumours.len(),
            transactions: self.transactions.len(),
            counters: self.counters,
        }
    }

    fn position(&self, id: &NodeId) -> Option<usize> {
        let position = self.members.find(id.short())?;
        (self.members.entry(position).contact().id == *id).then_some(position)
    }

    /// Whether a member has said goodbye so lately that what comes from it was on its way before: that is no return.
    fn left_just_now(&self, now: Instant, position: usize) -> bool {
        matches!(self.members.places()[position].liveness, Liveness::Left { .. })
            && now.since(self.members.entry(position).since) < self.config.silent_after
    }

    fn member_at(&self, position: usize) -> Member {
        let (liveness, entry) = (self.members.places()[position].liveness, self.members.entry(position));
        Member {
            contact: entry.contact(),
            liveness,
            since: entry.since,
            heard: (liveness != Liveness::Unproven).then_some(entry.heard),
            rtt: entry.rtt.smoothed(),
            state: (entry.state.sequence() > 0).then_some(entry.state),
        }
    }

    /// Whether there is room for one more event. What is found out by looking waits for the next round when there is not.
    fn can_raise(&self) -> bool {
        self.events.len() < EVENTS_MAX
    }

    fn raise(&mut self, event: GossipEvent) {
        if self.can_raise() {
            self.events.push_back(event);
        } else {
            self.counters.table_full += 1;
        }
    }
}

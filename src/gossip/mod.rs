//! Membership: which nodes are in the network, and whether they are alive.
//!
//! Every node signs its own state. In rounds it sends a few others what it knows and receives what it lacks, and it monitors the
//! members nearest to it in the key space. The caller hands in verified datagrams and the time, takes datagrams out of an
//! [`Outbox`] and events out of [`Gossip::poll_event`], and calls [`Gossip::handle_timeout`] when
//! [`Gossip::next_deadline`] has come.
//!
//! - The members: `members` (the view), `self_state` (this node's own state), `rumours` (states that are news).
//! - Dissemination: `round` (rounds, and both ends of a gossip), `pace` (when the next round is due), `digest` (what a member lacks),
//!   `merge` (merging what a datagram tells about members), `tellers` (each teller's share of the signature checks).
//! - Failure detection: `watch` (whose failure this node looks for), `probe` (pings, and their answers), `detect` (suspicion,
//!   eviction), `relay` (probing for others), `questions` (outstanding requests), `local_health` (how slow this node itself is).
//!
//! Rules against liars: Only its subject can sign a state, and the state with the highest number wins. What others say never makes
//! a member live, unresponsive, evicted or left; it only makes this node probe the member itself. An address that is not validated
//! is sent at most three times the bytes that came from it; an address that others merely named is sent bare pings within a budget. A
//! state is passed on only when this node has contacted its subject at an address in it, so that a false address spreads no further.

mod config;
mod counters;
mod detect;
mod digest;
mod local_health;
mod members;
mod merge;
mod pace;
mod probe;
mod questions;
mod relay;
mod round;
mod rumours;
mod self_state;
mod tellers;
#[cfg(test)]
mod tests;
mod watch;

pub use crate::peers::liveness::Liveness;
pub use config::{GossipConfig, InvalidGossipConfig};
pub use self_state::OwnState;

use crate::id::{NodeId, PublicKey, ShortId};
use crate::peers::outbox::{Asker, Outbox};
use crate::peers::rate::{Limiter, PartyLimiter, Rate};
use crate::peers::standing::Standing;
use crate::rng::Rng;
use crate::time::{Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::{Epoch, Verified};
use crate::wire::header::Kind;
use crate::wire::message::Message;
use crate::wire::state::NodeState;
use core::net::SocketAddr;
pub use counters::GossipCounters;
use local_health::LocalHealth;
use members::Members;
use questions::{REQUESTS_MAX, Requests};
use rumours::Rumours;
use self_state::SelfState;
use std::collections::VecDeque;

/// Events that wait to be polled. An event without room is noticed again in the next round.
const EVENTS_MAX: usize = 64;
/// Members that are queued for a probe.
const QUEUE_MAX: usize = 32;
/// Pings to addresses of one party that others named, when none was sent there for long. A site in one prefix must see itself soon.
const NAMED_BURST: u32 = 128;

/// The worst local health; the best is 0 ([`Statistics::local_health`]).
pub const LOCAL_HEALTH_WORST: u8 = LocalHealth::WORST;

/// An event of membership, for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GossipEvent {
    /// A member answered for the first time.
    Met {
        /// The member.
        contact: Contact,
    },
    /// A member is silent, and none of the relays that probed it got an answer.
    Suspected {
        /// The member.
        contact: Contact,
    },
    /// A suspect has been silent for [`GossipConfig::unresponsive_after`], or longer when local health is bad.
    Unresponsive {
        /// The member.
        contact: Contact,
    },
    /// A member has been silent for [`GossipConfig::evicted_after`]: it counts as gone.
    Evicted {
        /// The member.
        contact: Contact,
    },
    /// A member said goodbye.
    Left {
        /// The member.
        contact: Contact,
        /// Whether it will not come back.
        for_good: bool,
    },
    /// A member that was suspected, unresponsive, evicted or had left answers again.
    Returned {
        /// The member.
        contact: Contact,
    },
    /// A node has a state with this node's signature that this run did not sign, and its number is not below that of the present state.
    Outdone {
        /// The addresses in that state.
        addrs: [Option<SocketAddr>; 2],
    },
    /// A node at a validated address wants to be dialled back there. The answer is a [`Message::ProbeReply`] about it.
    DialBack {
        /// The node.
        contact: Contact,
        /// Its request.
        asker: Asker,
    },
    /// A member answers at another address.
    Moved {
        /// The member, at its new address.
        contact: Contact,
        /// Its old address.
        from: SocketAddr,
    },
}

/// A member as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id, key and address.
    pub contact: Contact,
    /// Its liveness.
    pub liveness: Liveness,
    /// Since when it has had this liveness.
    pub since: Instant,
    /// When this node last received something from the member itself; `None` when it never did.
    pub heard: Option<Instant>,
    /// Its newest known state; `None` when none is known.
    pub state: Option<NodeState>,
}

/// Statistics of membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Members in the view.
    pub members: usize,
    /// Of those, how many are live.
    pub live: usize,
    /// The estimated number of nodes in the network.
    pub network_size: u64,
    /// The local health of this node: 0 is well, 8 is worst.
    pub local_health: u8,
    /// Rumours that are being spread.
    pub rumours: usize,
    /// Outstanding requests.
    pub transactions: usize,
    /// The counters.
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
    transactions: Requests,
    health: LocalHealth,
    /// Whether a round was answered since the last one began.
    round_answered: bool,
    counters: GossipCounters,
    events: VecDeque<GossipEvent>,
    pace: pace::Pace,
    round_at: Option<Instant>,
    /// When the next members that others named are pinged outside of rounds.
    meet_at: Option<Instant>,
    /// The positions at which the next digest and the next round begin.
    cursors: round::Cursors,
    /// Members that are queued for a probe, and when the first of them is due.
    queue: VecDeque<ShortId>,
    queue_at: Instant,
    /// Other possible addresses of members, tried when a member does not answer at its known address.
    other_addrs: VecDeque<(ShortId, SocketAddr)>,
    /// Whether the next round probes every monitored member.
    roll_call: bool,
    /// Since when this node has run without a pause. A member's silence counts from here at the earliest.
    awake: Instant,
    state_checks: tellers::Tellers,
    /// Pings to addresses that others named.
    named: PartyLimiter,
    relays: Limiter,
    tellings: Limiter,
    /// The rate at which this node issues a state with a higher number than a foreign state under its key.
    outdoings: Limiter,
    refutations: Limiter,
    displacements: Limiter,
}

impl Gossip {
    /// The membership of the node with this key, which knows no other node yet. `sequence_base` must be above every number that
    /// earlier runs gave to this node's states: the number of this run times 2^32.
    pub fn new(
        config: GossipConfig,
        public: PublicKey,
        leaf: bool,
        sequence_base: u64,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let salt = seed.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
        let mut rng = Rng::new(seed);
        let own_id = public.node_id();
        let interval = config.interval;
        Gossip {
            own_id,
            leaf,
            own: SelfState::new(leaf, sequence_base, now),
            members: Members::new(&own_id, &config),
            rumours: Rumours::new(rng.u64()),
            transactions: Requests::new(REQUESTS_MAX),
            health: LocalHealth::default(),
            round_answered: false,
            counters: GossipCounters::default(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            pace: pace::Pace::default(),
            round_at: None,
            meet_at: None,
            cursors: round::Cursors::default(),
            queue: VecDeque::with_capacity(QUEUE_MAX),
            queue_at: now,
            other_addrs: VecDeque::with_capacity(probe::OTHER_ADDRS_MAX),
            roll_call: false,
            awake: now,
            state_checks: tellers::Tellers::new(config.state_checks_per_second_max, rng.u64()),
            named: PartyLimiter::new(Rate::every(interval / 16, NAMED_BURST), salt),
            relays: Limiter::new(Rate::per_second(config.relayed_probes_per_second_max)),
            tellings: Limiter::new(Rate::every(interval / 5, 6)),
            outdoings: Limiter::new(Rate::every(interval * 12, 3)),
            refutations: Limiter::new(Rate::every(interval / 2, 2)),
            displacements: Limiter::new(Rate::every(interval, 4)),
            rng,
            config,
        }
    }

    // Inputs.

    /// Whether the signature of a datagram is worth checking: an answer must match an outstanding request to its sender.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        !kind.is_answer() || self.transactions.is_expected(kind, transaction, from)
    }

    /// Takes a gossip, a probe, or an answer to one of this machine's requests, pongs included. Other messages are ignored.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
        outbox: &mut Outbox,
    ) {
        if datagram.id() == self.own_id {
            return;
        }
        self.notice_sleep(now);
        let from = canonical(from);
        match datagram.message() {
            Message::Gossip(body) => self.handle_gossip(now, from, datagram, &body, standing, outbox),
            Message::Probe { target } => self.handle_probe(now, from, datagram, &target, standing, outbox),
            Message::GossipReply(_) | Message::Pong { .. } | Message::ProbeReply { .. } => {
                self.handle_answer(now, from, datagram, outbox);
            }
            _ => {}
        }
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.notice_lateness(now);
        self.notice_sleep(now);
        for (transaction, _) in self.transactions.overdue(now) {
            if let Some(request) = self.transactions.remove(transaction) {
                self.failed(now, &request, outbox);
            }
        }
        self.ask_queued(now, outbox);
        if self.meet_at.is_some_and(|at| at <= now) {
            self.meet(now, outbox);
        }
        if self.round_at.is_some_and(|at| at <= now) {
            self.round(now, outbox);
        }
    }

    /// When [`handle_timeout`](Gossip::handle_timeout) is due; `None` while no member is known.
    pub fn next_deadline(&self) -> Option<Instant> {
        let queue = (!self.queue.is_empty()).then_some(self.queue_at);
        let members = earliest(self.round_at, self.meet_at);
        earliest(earliest(members, queue), self.transactions.next_deadline())
    }

    /// Another machine exchanged authenticated messages with a node at this address, over datagrams or a stream. The node is not
    /// a leaf. If this machine has not contacted it yet, it is probed before it counts as live.
    pub fn note_contact(&mut self, now: Instant, contact: Contact) {
        self.notice_sleep(now);
        let Some((position, _)) = self.acquaint(now, &contact, false) else { return };
        let liveness = self.members.places()[position].liveness;
        let here = self.members.entry(position).addr() == contact.addr;
        match liveness {
            Liveness::Live | Liveness::Suspect | Liveness::Unresponsive if here => {
                self.alive(now, position);
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

    /// Another machine got an answer in a datagram from a node that is not a leaf.
    pub fn note_alive(&mut self, now: Instant, contact: Contact) {
        self.notice_sleep(now);
        let Some((position, _)) = self.acquaint(now, &contact, true) else { return };
        if self.left_just_now(now, position) {
            return;
        }
        if matches!(self.members.places()[position].liveness, Liveness::Left { .. }) {
            return self.ask_soon(now, contact.id.short());
        }
        self.arrived(position, contact.addr);
        self.alive(now, position);
    }

    /// Another machine could not reach a node: it is probed soon.
    pub fn note_failed(&mut self, now: Instant, id: &NodeId) {
        self.notice_sleep(now);
        let Some(position) = self.position(id) else { return };
        if !self.members.places()[position].liveness.is_away() {
            self.ask_soon(now, id.short());
        }
    }

    /// A node said goodbye, in this epoch, in a verified datagram that is no recording. `sequence` is the number of its state that says
    /// so. A goodbye that is older than a known state is ignored.
    pub fn note_leave(&mut self, now: Instant, id: &NodeId, epoch: Epoch, for_good: bool, sequence: u64) {
        self.notice_sleep(now);
        let Some(position) = self.position(id) else { return };
        let entry = self.members.entry_mut(position);
        if sequence < entry.state.sequence() {
            return;
        }
        (entry.left_in, entry.heard) = (Some(epoch), now);
        if self.members.places()[position].liveness == Liveness::Unproven {
            self.members.remove(position);
        } else {
            self.left(now, position, for_good);
        }
    }

    /// Probes every monitored member at once, for example because this node has another address.
    pub fn call_roll(&mut self, now: Instant) {
        self.roll_call = true;
        self.round_at = self.round_at.map(|at| at.min(now));
    }

    /// Sets the content of this node's own state. A new state is signed when the change is worth spreading.
    pub fn set_own(&mut self, now: Instant, state: OwnState) {
        self.leaf = state.leaf;
        self.own.set(&state);
        self.own.reconsider(now, self.config.tell_interval);
    }

    /// Sends some members a signed state that says that this node is leaving. They spread it to the others.
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

    /// The neighbourhood, nearest first: the nearest members to this node that were contacted and have neither been evicted nor
    /// left for good.
    pub fn neighbourhood(&self) -> impl Iterator<Item = Member> + '_ {
        self.members
            .nearest(self.config.neighbours, Liveness::is_neighbour)
            .map(|position| self.member_at(position))
    }

    /// Whether the neighbourhood is the whole network: fewer members were contacted than it has room for.
    pub fn is_whole_network(&self) -> bool {
        self.members.nearest(self.config.neighbours, Liveness::is_neighbour).count() < self.config.neighbours
    }

    /// All known members, nearest first.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        (0..self.members.len()).map(|position| self.member_at(position))
    }

    /// A member.
    pub fn member(&self, id: &NodeId) -> Option<Member> {
        self.position(id).map(|position| self.member_at(position))
    }

    /// Whether a node is a live member.
    pub fn is_live(&self, id: &NodeId) -> bool {
        self.position(id).is_some_and(|position| self.members.places()[position].liveness == Liveness::Live)
    }

    /// Whether any member is live.
    pub fn has_live(&self) -> bool {
        self.members.places().iter().any(|place| place.liveness == Liveness::Live)
    }

    /// Grows with every change of the neighbourhood, of its members' addresses, and of their liveness. What was read of it at one
    /// number holds until the number changes.
    pub fn neighbourhood_generation(&self) -> u64 {
        self.members.generation()
    }

    /// The sequence number of this node's present state.
    pub fn sequence(&self) -> u64 {
        self.own.sequence()
    }

    /// Statistics of membership.
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

    /// Whether a member said goodbye so recently that its datagrams may have been sent before: they do not count as a return.
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
            state: (entry.state.sequence() > 0).then_some(entry.state),
        }
    }

    /// Whether there is room for one more event. An event without room is noticed again in the next round.
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

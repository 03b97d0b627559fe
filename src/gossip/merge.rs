//! Merging what datagrams tell: that their sender is alive, and new states of it and of others.

use super::members::{Newcomer, NoPlace};
use super::{Gossip, GossipEvent, Liveness};
use crate::id::{NodeId, ShortId};
use crate::peers::outbox::Outbox;
use crate::peers::party::as_told;
use crate::peers::standing::Standing;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::state::NodeState;
use core::net::SocketAddr;

impl Gossip {
    /// An authenticated request arrived. Returns the position of its sender's member, if it is one. The sender is alive; but only
    /// a sender at a validated address counts as contacted there.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
    ) -> Option<usize> {
        let contact = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        if datagram.is_leaf() {
            self.drop_leaf(&contact);
            return None;
        }
        let validated = standing.is_validated();
        let (position, is_new) = self.acquaint(now, &contact, validated)?;
        let entry = self.members.entry(position);
        if entry.left_in == Some(datagram.epoch()) {
            return Some(position);
        }
        let here = entry.addr() == from;
        if !standing.is_fresh() && !is_new {
            // Only an answer shows whether the member has restarted.
            if !here {
                self.note_other_addr(contact.id.short(), from);
            }
            self.ask_soon(now, contact.id.short());
            return Some(position);
        }
        let unproven = self.members.places()[position].liveness == Liveness::Unproven;
        if validated {
            self.arrived(position, from);
        }
        if validated || !unproven {
            self.alive(now, position);
        }
        if !validated && here && unproven {
            self.ask_soon(now, contact.id.short());
        }
        if !validated && !here {
            // The member is probed at its known address first, and at this one if the known one is silent.
            self.note_other_addr(contact.id.short(), from);
            self.ask_soon(now, contact.id.short());
        }
        Some(position)
    }

    /// Finds a node's member, or enters it if there is a place. Returns its position, and whether it is new.
    pub(super) fn acquaint(&mut self, now: Instant, contact: &Contact, met: bool) -> Option<(usize, bool)> {
        let short = contact.id.short();
        if contact.id == self.own_id {
            return None;
        }
        if let Some(position) = self.members.find(short) {
            let same = self.members.entry(position).state.public() == contact.public;
            return same.then_some((position, false));
        }
        let state = NodeState::unknown(contact.public);
        // The caller makes it live and raises the event.
        let position = self.enter(now, contact.id, state, contact.addr, met)?;
        Some((position, true))
    }

    /// A member is alive: it sent a datagram that is not a replay.
    pub(super) fn alive(&mut self, now: Instant, position: usize) {
        let old = self.members.places()[position].liveness;
        let entry = self.members.entry_mut(position);
        entry.heard = now;
        entry.tries = 0;
        entry.left_in = None;
        let contact = entry.contact();
        if let Some(hops) = entry.news.filter(|_| entry.is_where_it_says()) {
            entry.news = None;
            let state = entry.state;
            self.pass_on(&state, hops);
        }
        if old == Liveness::Live {
            return;
        }
        self.members.set_liveness(position, Liveness::Live, now);
        if old == Liveness::Unproven && self.members.has_room() {
            self.pace.met();
            self.hasten(now);
        }
        self.raise(match old {
            Liveness::Unproven => GossipEvent::Met { contact },
            _ => GossipEvent::Returned { contact },
        });
        self.wake_up(now);
    }

    /// A member answers at this address.
    pub(super) fn arrived(&mut self, position: usize, addr: SocketAddr) {
        let old = self.members.entry(position).addr();
        if old == addr {
            return;
        }
        self.members.set_addr(position, addr);
        if self.members.places()[position].liveness != Liveness::Unproven {
            let contact = self.members.entry(position).contact();
            self.raise(GossipEvent::Moved { contact, from: old });
        }
    }

    /// Merges a state, of `teller` itself or of another node. A state that came as news, over `hops` hops, is spread further.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        (teller, teller_addr): (NodeId, SocketAddr),
        state: &NodeState,
        hops: Option<u8>,
        outbox: &mut Outbox,
    ) {
        let id = state.public().node_id();
        let short = id.short();
        if id == self.own_id {
            // It was signed with this node's key: in an earlier run whose number is lost, or by another process that holds the key.
            if state.sequence() >= self.own.sequence()
                && !self.own.is(state)
                && self.check(now, (&teller, teller_addr), state, outbox)
            {
                let mut addrs = state.addrs();
                self.raise(GossipEvent::Outdone { addrs: [addrs.next(), addrs.next()] });
                // Two processes with one key would outdo each other without end.
                if self.outdoings.take(now) {
                    self.own.outdo(now, state.sequence());
                }
            }
            return;
        }
        let known = self.members.find(short);
        if known.is_some_and(|position| {
            let entry = self.members.entry(position);
            entry.state.public() != state.public() || entry.state.sequence() >= state.sequence()
        }) {
            return;
        }
        let seen = hops.is_none() || self.rumours.is_seen(short, state.sequence());
        // A newer state has passed here as news. This older one would never be updated, because no node spreads the same news twice.
        if self.rumours.is_outdated(short, state.sequence()) {
            return;
        }
        if !outbox.network().admits(&state.public()) {
            self.counters.without_work += 1;
            return;
        }
        let wanted = known.is_some() || self.is_wanted(short) && !state.is_leaf();
        if !wanted && (seen || state.is_leaf()) || !self.check(now, (&teller, teller_addr), state, outbox) {
            return;
        }
        self.counters.states_learned += 1;
        if let Some(position) = known.filter(|_| state.is_leaf()) {
            // It cannot be reached any more, or does not want to be. All who count on it must hear that.
            self.members.remove(position);
            if let Some(hops) = hops {
                self.pass_on(state, hops.saturating_add(1));
            }
            return;
        }
        let addr = best_addr(state, teller_addr);
        let member = match known {
            Some(position) => {
                self.renewed(now, position, state, addr);
                Some(position)
            }
            None => addr
                .filter(|_| !state.is_gone() && !state.is_away())
                .and_then(|addr| self.enter(now, id, *state, addr, false)),
        };
        let Some(hops) = hops.map(|hops| hops.saturating_add(1)) else { return };
        if let Some(position) = member {
            let liveness = self.members.places()[position].liveness;
            let entry = self.members.entry_mut(position);
            let validated = liveness != Liveness::Unproven && entry.is_where_it_says();
            if !validated && !state.is_gone() && !state.is_away() {
                entry.news = Some(hops);
                return;
            }
        }
        self.pass_on(state, hops);
    }

    /// Spreads a state that travelled this many hops, the hop to this node included.
    fn pass_on(&mut self, state: &NodeState, hops: u8) {
        if self.rumours.add(state.public().node_id().short(), state, hops) {
            self.counters.rumour_dropped += 1;
        }
    }

    /// A member has a new state.
    fn renewed(&mut self, now: Instant, position: usize, state: &NodeState, addr: Option<SocketAddr>) {
        let short = self.members.short(position);
        let liveness = self.members.places()[position].liveness;
        let entry = self.members.entry_mut(position);
        entry.state = *state;
        let elsewhere = addr.filter(|&addr| addr != entry.addr());
        match liveness {
            Liveness::Unproven => {
                entry.tries = 0;
                if let Some(addr) = elsewhere {
                    self.members.set_addr(position, addr);
                }
            }
            Liveness::Live if state.is_gone() || state.is_away() => self.ask_soon(now, short),
            Liveness::Live => {}
            // It was alive when it signed this state: worth a probe.
            _ => self.ask_soon(now, short),
        }
        if let Some(addr) = elsewhere {
            self.note_other_addr(short, addr);
        }
    }

    /// Checks a state's signature, within the teller's share of the checks of states and within the budget of all checks.
    fn check(
        &mut self,
        now: Instant,
        (teller, from): (&NodeId, SocketAddr),
        state: &NodeState,
        outbox: &mut Outbox,
    ) -> bool {
        let party = self.config.parties.of(teller, from);
        if !self.state_checks.take(now, teller, party) || !outbox.may_check(now, teller, from) {
            self.counters.state_over_budget += 1;
            return false;
        }
        let fits = state.verify(outbox.network()).is_ok();
        if !fits {
            self.counters.state_forged += 1;
        }
        fits
    }

    /// Whether an unknown node would be given a place for certain.
    fn is_wanted(&self, short: ShortId) -> bool {
        self.members.has_room() || self.members.is_near(self.members.distance(short))
    }

    fn enter(
        &mut self,
        now: Instant,
        id: NodeId,
        state: NodeState,
        addr: SocketAddr,
        met: bool,
    ) -> Option<usize> {
        // Of the nodes that would find no place, a few displace another at random, so that the sample changes slowly.
        let displaces = !self.is_wanted(id.short()) && self.rng.below(8) == 0 && self.displacements.take(now);
        let newcomer = Newcomer { id, state, addr, met, displaces };
        match self.members.insert(now, &newcomer, &mut self.rng) {
            Ok(position) => {
                self.wake_up(now);
                if !met {
                    self.meet_soon(now);
                }
                Some(position)
            }
            Err(why) => {
                match why {
                    NoPlace::View => self.counters.view_full += 1,
                    NoPlace::Impossible => {}
                }
                None
            }
        }
    }

    /// Removes a node that has become a leaf: leaves are no members.
    pub(super) fn drop_leaf(&mut self, contact: &Contact) {
        if let Some(position) = self.members.find_key(contact.id.short(), &contact.public) {
            self.members.remove(position);
        }
    }
}

/// The best address of the node that a state is about: one that is meaningful coming from `teller`, preferably of the address family
/// at which `teller` itself is reached.
fn best_addr(state: &NodeState, teller: SocketAddr) -> Option<SocketAddr> {
    let addrs = || state.addrs().filter_map(|addr| as_told(addr, teller));
    addrs().find(|addr| addr.is_ipv4() == teller.is_ipv4()).or_else(|| addrs().next())
}

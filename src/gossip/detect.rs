//! Failure detection: suspicion and eviction. `probe` sends the pings that they rest on.
//!
//! Silence → two pings → probes through relays → *suspect* → probed in every round → *unresponsive* → *evicted* (SWIM: Das, Gupta and
//! Motivala, 2002; Lifeguard: Dadgar, Phillips and Currey, 2018). Departures from those papers:
//! - What others say never changes a member's liveness. A suspicion only makes this node probe the member at once.
//! - The relays' word that a member answers delays suspicion and eviction, but only for a limited time, and one of them is not enough
//!   when most say that it is silent.
//! - Departed members are probed rarely for a long time, so that two halves of a partitioned network find each other.

use super::probe::RELAYS;
use super::questions::{Purpose, Request};
use super::{Gossip, GossipEvent, Liveness};
use crate::id::ShortId;
use crate::peers::outbox::Outbox;
use crate::time::{Duration, Instant};
use crate::wire::state::StateMark;

/// Unanswered pings after which an unproven member is removed.
const TRIES_MAX: u8 = 2;
/// The relays' word counts until the silence is this many times as long as [`GossipConfig::unresponsive_after`].
const VOUCHED_TIMES: u32 = 4;
/// An evicted member is remembered for this many times the eviction time: a day by default.
const FORGOTTEN_TIMES: u32 = 96;

impl Gossip {
    // Sleep.

    /// A timer that fires a little late is evidence of bad local health.
    pub(super) fn notice_lateness(&mut self, now: Instant) {
        let late = self.next_deadline().is_some_and(|due| now.since(due) > self.config.interval / 5);
        if late {
            self.health.worse();
        }
    }

    /// A timer fired much later than it was set: the process was stopped, or the machine asleep. No member's silence meanwhile
    /// counts, because this node was not receiving.
    pub(super) fn notice_sleep(&mut self, now: Instant) {
        if self.next_deadline().is_none_or(|due| now.since(due) <= self.config.interval) {
            return;
        }
        self.counters.asleep += 1;
        self.awake = now;
        self.transactions.clear();
        for position in 0..self.members.len() {
            self.members.entry_mut(position).probing = false;
        }
        self.queue.clear();
        self.meet_at = None;
        self.roll_call = true;
        self.round_at = Some(now);
    }

    // Failures.

    /// A request timed out.
    pub(super) fn failed(&mut self, now: Instant, request: &Request, outbox: &mut Outbox) {
        let Some(position) = self.members.find(request.question.about) else {
            return self.relay_failed(now, request, outbox);
        };
        let heard = self.members.entry(position).heard >= request.sent
            && self.members.places()[position].liveness != Liveness::Unproven;
        match request.question.purpose {
            Purpose::Gossip => {
                self.counters.unanswered += 1;
                if !heard {
                    self.gossip_failed(now, position, outbox);
                }
            }
            Purpose::Ping { .. } if heard => self.members.entry_mut(position).probing = false,
            Purpose::Ping { again: false } => {
                let wait = self.timeout(position, outbox) * 2;
                let other = self.other_addrs.iter().find(|(short, _)| *short == request.question.about);
                let to = other.map_or(request.to, |(_, addr)| *addr);
                if !self.ping(now, position, to, Purpose::Ping { again: true }, wait, outbox) {
                    self.members.entry_mut(position).probing = false;
                }
            }
            Purpose::Ping { again: true } => self.probe_failed(now, position, outbox),
            Purpose::Indirect => self.conclude_indirect(now, request.question.about, outbox),
            Purpose::Relay { asker, again: false } => {
                let again = Purpose::Relay { asker, again: true };
                let wait = self.relay_timeout(position, outbox) * 2;
                if !self.ping(now, position, request.to, again, wait, outbox) {
                    self.relay_failed(now, request, outbox);
                }
            }
            Purpose::Relay { .. } => self.relay_failed(now, request, outbox),
        }
    }

    fn gossip_failed(&mut self, now: Instant, position: usize, outbox: &mut Outbox) {
        match self.members.places()[position].liveness {
            Liveness::Live | Liveness::Suspect => self.start_probe(now, position, outbox),
            Liveness::Unproven => self.unproven_failed(position),
            _ => {
                let entry = self.members.entry_mut(position);
                entry.tries = entry.tries.saturating_add(1);
            }
        }
    }

    fn unproven_failed(&mut self, position: usize) {
        let entry = self.members.entry_mut(position);
        entry.tries += 1;
        entry.probing = false;
        if entry.tries >= TRIES_MAX {
            self.members.remove(position);
        }
    }

    /// Both pings of a probe timed out.
    fn probe_failed(&mut self, now: Instant, position: usize, outbox: &mut Outbox) {
        self.counters.probes_failed += 1;
        let id = self.members.entry(position).contact().id;
        outbox.peers_mut().note_unanswered(now, &id);
        match self.members.places()[position].liveness {
            Liveness::Unproven => self.unproven_failed(position),
            Liveness::Live => {
                if self.ask_relays(now, position, outbox) == 0 {
                    let live = self.members.nearest(2, |is| is == Liveness::Live).count();
                    if live > 1 {
                        // All other members are being probed, too: this node's own network may be at fault.
                        self.health.worse();
                    }
                    self.suspect_member(now, position, outbox);
                }
            }
            _ => {
                let entry = self.members.entry_mut(position);
                entry.tries = entry.tries.saturating_add(1);
                entry.probing = false;
                // Rounds may always find the member being probed. Its liveness is advanced here, between two probes.
                self.advance_member(now, position);
            }
        }
    }

    /// Makes a silent member a suspect when the last of its relays has answered or timed out.
    pub(super) fn conclude_indirect(&mut self, now: Instant, short: ShortId, outbox: &mut Outbox) {
        if self.transactions.is_waiting(short, |purpose| *purpose == Purpose::Indirect) {
            return;
        }
        let Some(position) = self.members.find(short) else { return };
        let entry = self.members.entry_mut(position);
        entry.probing = false;
        let (answers, helped) = (entry.heard >= entry.asked, entry.relays.is_any());
        let vouched = entry.relays.vouch();
        if vouched {
            entry.vouched = now;
        }
        let reached = vouched && self.may_be_vouched_for(now, position);
        if answers || reached || self.members.places()[position].liveness != Liveness::Live {
            return;
        }
        if !helped {
            // Not even the relays answered: this node's own network may be at fault.
            self.health.worse();
        }
        self.suspect_member(now, position, outbox);
    }

    fn suspect_member(&mut self, now: Instant, position: usize, outbox: &mut Outbox) {
        self.members.entry_mut(position).probing = false;
        if !self.can_raise() {
            return;
        }
        let entry = self.members.entry(position);
        let (contact, state) = (entry.contact(), entry.state);
        if state.is_gone() || state.is_away() {
            // It announced its departure in its state, and it does not answer.
            return self.left(now, position, state.is_gone());
        }
        self.members.set_liveness(position, Liveness::Suspect, now);
        self.raise(GossipEvent::Suspected { contact });
        self.tell_neighbours(now, RELAYS, Some(contact.id.short()), outbox);
    }

    pub(super) fn left(&mut self, now: Instant, position: usize, for_good: bool) {
        let left = Liveness::Left { for_good };
        if self.members.places()[position].liveness != left {
            self.members.set_liveness(position, left, now);
            let contact = self.members.entry(position).contact();
            self.raise(GossipEvent::Left { contact, for_good });
        }
    }

    // Time.

    /// How long a member has been silent while this node was running.
    pub(super) fn silence(&self, now: Instant, position: usize) -> Duration {
        now.since(self.members.entry(position).heard.max(self.awake))
    }

    /// Advances the liveness of members that have been silent for long enough.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.members.suspects() + self.members.away() == 0 {
            return;
        }
        for position in (0..self.members.len()).rev() {
            self.advance_member(now, position);
        }
    }

    /// Advances a member's liveness if it has been silent for long enough. A member that is forgotten is removed.
    fn advance_member(&mut self, now: Instant, position: usize) {
        let silence = || self.silence(now, position);
        let since = self.members.entry(position).since;
        match self.members.places()[position].liveness {
            Liveness::Suspect if self.is_unresponsive(now, position) => {
                self.move_on(now, position, Liveness::Unresponsive);
            }
            Liveness::Unresponsive | Liveness::Left { for_good: false }
                if silence() >= self.config.evicted_after =>
            {
                self.move_on(now, position, Liveness::Evicted);
            }
            Liveness::Evicted | Liveness::Left { for_good: true }
                if now.since(since) >= self.config.evicted_after * FORGOTTEN_TIMES =>
            {
                self.members.remove(position);
            }
            _ => {}
        }
    }

    /// Whether the relays' word that the member answers still counts: only for a limited time.
    fn may_be_vouched_for(&self, now: Instant, position: usize) -> bool {
        self.silence(now, position) < self.config.unresponsive_after * VOUCHED_TIMES
    }

    fn is_unresponsive(&self, now: Instant, position: usize) -> bool {
        let entry = self.members.entry(position);
        let patience = self.health.stretch(self.config.unresponsive_after);
        let suspected = (self.config.unresponsive_after - self.config.silent_after) / 3;
        let vouched = now.since(entry.vouched) < self.config.unresponsive_after
            && self.may_be_vouched_for(now, position);
        self.silence(now, position) >= patience
            && now.since(entry.since.max(self.awake)) >= suspected
            && !vouched
            && !entry.probing
    }

    fn move_on(&mut self, now: Instant, position: usize, liveness: Liveness) {
        if !self.can_raise() {
            return;
        }
        self.members.set_liveness(position, liveness, now);
        let contact = self.members.entry(position).contact();
        self.raise(match liveness {
            Liveness::Evicted => GossipEvent::Evicted { contact },
            _ => GossipEvent::Unresponsive { contact },
        });
    }

    // Hearsay.

    /// Another member suspects this node or a member.
    pub(super) fn hear_suspicion(&mut self, now: Instant, mark: &StateMark) {
        if mark.short == self.own_id.short() {
            if mark.sequence() == self.own.sequence() && self.refutations.take(now) {
                self.own.renew(now);
                self.health.doubted();
                self.counters.refuted += 1;
            }
            return;
        }
        let Some(position) = self.members.find(mark.short) else { return };
        if self.members.is_watched(position)
            && self.members.places()[position].liveness == Liveness::Live
            && self.members.entry(position).state.sequence() <= mark.sequence()
            && self.silence(now, position) >= self.config.interval
        {
            self.ask_soon(now, mark.short);
        }
    }

    /// Another member knows a member that is away in this node's view: it may be back.
    pub(super) fn hear_of_absent(&mut self, now: Instant, mark: &StateMark) {
        if self.members.away() == 0 {
            return;
        }
        let Some(position) = self.members.find(mark.short) else { return };
        let absent =
            matches!(self.members.places()[position].liveness, Liveness::Unresponsive | Liveness::Evicted);
        if absent && now.since(self.members.entry(position).asked) >= self.config.interval * 4 {
            self.ask_soon(now, mark.short);
        }
    }
}

//! Probes: pings of members that are silent or merely named, and the answers to all of this machine's requests.
//!
//! A probe is two pings, the second at another known address of the member, if there is one, and then probes through relays. An
//! address that others merely named gets one bare ping at a time, within a budget for each party: else a few states that name a
//! victim would make every member send there.

use super::questions::{Asked, Purpose, Request};
use super::relay::RelaysWord;
use super::watch::Watched;
use super::{Gossip, Liveness, QUEUE_MAX};
use crate::id::ShortId;
use crate::peers::contest::Holder;
use crate::peers::outbox::{Attempt, Outbox};
use crate::peers::party::Level;
use crate::peers::requests::Challenge;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::datagram::{Epoch, Verified};
use crate::wire::message::{Message, ProbeOutcome};
use core::net::SocketAddr;

/// Remembered addresses that are tried when a member does not answer at its known one.
pub(super) const OTHER_ADDRS_MAX: usize = 16;
/// Queued members that are probed at a time.
const QUEUE_BURST: usize = 4;
/// Members of one liveness that are probed in a round.
const ASKED_A_ROUND: usize = 4;
/// Relays: members that are asked to probe a silent one.
pub(super) const RELAYS: usize = 3;
/// Members of which the relays are chosen.
const CANDIDATES: usize = 8;
/// Of those, the members of one site, as long as there are others.
const OF_ONE_SITE: usize = 2;
/// Members that were merely named and are pinged at a time.
const MET_AT_ONCE: usize = 4;
/// The timeout before the first sample.
const TIMEOUT_FIRST: Duration = Duration::from_secs(1);

impl Gossip {
    // What is probed.

    /// Probes monitored members that are silent, suspects, and uncontacted neighbours.
    pub(super) fn watch(&mut self, now: Instant, asked: impl Fn(ShortId) -> bool, outbox: &mut Outbox) {
        if self.leaf {
            return;
        }
        let roll_call = core::mem::take(&mut self.roll_call);
        let watched = self.members.refresh_watch();
        let (mut neighbours, mut suspects, mut unproven) = (0, 0, 0);
        for position in 0..self.members.len() {
            // Nearer than the farthest neighbour, or than any that there is room for.
            let is_near = neighbours < watched || watched < self.config.neighbours;
            let place = self.members.places()[position];
            neighbours += usize::from(place.watched != Watched::No);
            let due = match place.liveness {
                Liveness::Live => {
                    place.watched == Watched::Monitored
                        && (roll_call || self.silence(now, position) >= self.config.silent_after)
                }
                Liveness::Suspect => {
                    suspects += 1;
                    suspects <= ASKED_A_ROUND
                }
                Liveness::Unproven if is_near && unproven < ASKED_A_ROUND => {
                    let due = now.since(self.members.entry(position).asked) >= self.config.interval / 2;
                    unproven += usize::from(due);
                    due
                }
                _ => false,
            };
            if due && !asked(self.members.short(position)) {
                self.start_probe(now, position, outbox);
            }
            if !is_near && self.members.suspects() <= suspects {
                break;
            }
        }
    }

    /// A member was named: it is pinged soon.
    pub(super) fn meet_soon(&mut self, now: Instant) {
        if !self.leaf && self.meet_at.is_none() {
            self.meet_at = Some(now + self.config.interval / 20);
        }
    }

    /// Pings some of the members that were merely named, in turn, and sees to the rest soon after.
    pub(super) fn meet(&mut self, now: Instant, outbox: &mut Outbox) {
        self.meet_at = None;
        if self.leaf {
            return;
        }
        let (length, start) = (self.members.len(), self.cursors.named as usize);
        let mut met = 0;
        for step in 0..length {
            let position = (start + step) % length;
            let entry = self.members.entry(position);
            let due = now.since(entry.asked) >= self.config.interval && !entry.probing;
            if due && self.members.places()[position].liveness == Liveness::Unproven {
                self.start_probe(now, position, outbox);
                self.cursors.named = position as u64 + 1;
                met += 1;
                if met == MET_AT_ONCE {
                    self.meet_soon(now);
                    break;
                }
            }
        }
    }

    // Requests.

    /// Queues a member for a probe.
    pub(super) fn ask_soon(&mut self, now: Instant, short: ShortId) {
        if self.queue.contains(&short) {
            return;
        }
        if self.queue.len() >= QUEUE_MAX {
            self.counters.table_full += 1;
            return;
        }
        if self.queue.is_empty() {
            self.queue_at = self.queue_at.max(now);
        }
        self.queue.push_back(short);
    }

    /// Probes some of the queued members.
    pub(super) fn ask_queued(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.queue.is_empty() || self.queue_at > now {
            return;
        }
        self.queue_at = now + self.config.interval / 20;
        for _ in 0..QUEUE_BURST {
            let Some(short) = self.queue.pop_front() else { break };
            // A member that has just left may still answer while it shuts down. If it said goodbye itself, its epoch tells.
            let ask = |position: &usize| {
                self.members.entry(*position).left_in.is_some() || !self.left_just_now(now, *position)
            };
            if let Some(position) = self.members.find(short).filter(ask) {
                self.start_probe(now, position, outbox);
            }
        }
    }

    /// Remembers another possible address of a member.
    pub(super) fn note_other_addr(&mut self, short: ShortId, addr: SocketAddr) {
        self.other_addrs.retain(|(other, _)| *other != short);
        if self.other_addrs.len() >= OTHER_ADDRS_MAX {
            self.other_addrs.pop_front();
        }
        self.other_addrs.push_back((short, addr));
    }

    /// The timeout of a request to a member.
    pub(super) fn timeout(&self, position: usize, outbox: &Outbox) -> Duration {
        let id = self.members.entry(position).contact().id;
        outbox.peers().timeout(&id, TIMEOUT_FIRST).min(self.config.silent_after / 5)
    }

    fn indirect_wait(&self) -> Duration {
        (self.config.silent_after / 5).min(Duration::from_secs(3))
    }

    /// The timeout of a ping for another member.
    pub(super) fn relay_timeout(&self, position: usize, outbox: &Outbox) -> Duration {
        self.timeout(position, outbox).min(self.indirect_wait() * 2 / 9)
    }

    pub(super) fn start_probe(&mut self, now: Instant, position: usize, outbox: &mut Outbox) {
        if self.members.entry(position).probing {
            return;
        }
        let (addr, wait) = (self.members.entry(position).addr(), self.timeout(position, outbox));
        let named = self.members.places()[position].liveness == Liveness::Unproven;
        if named
            && !self.named.take(now, self.config.parties.of(&self.members.entry(position).contact().id, addr))
        {
            self.counters.named_over_budget += 1;
            return;
        }
        // The second ping of a probe is the last one.
        if self.ping(now, position, addr, Purpose::Ping { again: named }, wait, outbox) {
            self.counters.probes += 1;
            let entry = self.members.entry_mut(position);
            (entry.probing, entry.asked, entry.relays) = (true, now, RelaysWord::default());
        }
    }

    /// Pings a member. False when too many requests are outstanding.
    pub(super) fn ping(
        &mut self,
        now: Instant,
        position: usize,
        to: SocketAddr,
        purpose: Purpose,
        wait: Duration,
        outbox: &mut Outbox,
    ) -> bool {
        if self.transactions.room() == 0 {
            self.counters.table_full += 1;
            return false;
        }
        let (about, id) = (self.members.short(position), self.members.entry(position).contact().id);
        let request = Request::new(now, to, Some(id), Asked { about, purpose }, wait);
        let again = matches!(purpose, Purpose::Ping { again: true } | Purpose::Relay { again: true, .. });
        let attempt = if again { Attempt::Again } else { Attempt::First };
        let ask = self.transactions.ask(&mut self.rng, request, attempt);
        outbox.request(now, ask, &Message::Ping { padding: 0 });
        true
    }

    /// A challenge arrived. If it is to a request of this machine, the request is sent again, with a signature and the token.
    pub fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        let Some(ask) = self.transactions.challenged(challenge) else { return };
        let Some(request) = self.transactions.get(challenge.transaction) else { return };
        let Asked { about, purpose } = request.question;
        match (purpose, self.members.find(about)) {
            (Purpose::Ping { .. } | Purpose::Relay { .. }, _) => {
                outbox.request(now, ask, &Message::Ping { padding: 0 });
            }
            (Purpose::Gossip, Some(position)) => _ = self.transmit_gossip(now, position, ask, outbox),
            (Purpose::Indirect, Some(position)) => {
                let target = self.members.entry(position).contact().id;
                outbox.request(now, ask, &Message::Probe { target });
            }
            (Purpose::Gossip | Purpose::Indirect, None) => {}
        }
    }

    /// Candidates for the relays to a member, and their number: the live members near it in the key space, which know it best. While there
    /// are others, no more than [`OF_ONE_SITE`] are of one site. Otherwise many ids of one owner around the member would be all its
    /// relays, and vouch for it after a crash.
    fn relay_candidates(&self, position: usize) -> ([usize; CANDIDATES], usize) {
        let (mut candidates, mut count) = ([0_usize; CANDIDATES], 0);
        let length = self.members.len();
        let site = |candidate: usize| {
            let contact = self.members.entry(candidate).contact();
            self.config.parties.of(&contact.id, contact.addr).at(Level::Site)
        };
        for of_one_site in [OF_ONE_SITE, CANDIDATES] {
            let around = |step| [position.checked_sub(step), Some(position + step).filter(|&p| p < length)];
            for candidate in (1..length).flat_map(around).flatten() {
                if count == CANDIDATES {
                    return (candidates, count);
                }
                let chosen = &candidates[..count];
                if self.members.places()[candidate].liveness == Liveness::Live
                    && !self.members.entry(candidate).probing
                    && !chosen.contains(&candidate)
                    && chosen.iter().filter(|&&other| site(other) == site(candidate)).count() < of_one_site
                {
                    candidates[count] = candidate;
                    count += 1;
                }
            }
        }
        (candidates, count)
    }

    /// Asks relays to probe a member. Returns how many. Of the candidates the parties come first of which none is asked yet.
    pub(super) fn ask_relays(&mut self, now: Instant, position: usize, outbox: &mut Outbox) -> usize {
        let (mut candidates, mut count) = self.relay_candidates(position);
        self.rng.shuffle(&mut candidates[..count]);
        let mut chosen: [Option<Holder>; RELAYS] = [None; RELAYS];
        let mut asked = 0;
        while asked < RELAYS && count > 0 {
            let holder = |relay: usize| {
                let contact = self.members.entry(relay).contact();
                Holder::node(self.config.parties, &contact.id, contact.addr)
            };
            let crowd = |relay: usize| holder(relay).crowd(chosen.iter().flatten().copied());
            let next = (0..count).min_by_key(|&index| crowd(candidates[index])).unwrap_or(0);
            let relay = candidates[next];
            chosen[asked] = Some(holder(relay));
            count -= 1;
            candidates.swap(next, count);
            if !self.ask_relay(now, position, relay, outbox) {
                break;
            }
            asked += 1;
        }
        asked
    }

    fn ask_relay(&mut self, now: Instant, position: usize, relay: usize, outbox: &mut Outbox) -> bool {
        if self.transactions.room() == 0 {
            return false;
        }
        let (contact, target) =
            (self.members.entry(relay).contact(), self.members.entry(position).contact().id);
        let asked = Asked { about: self.members.short(position), purpose: Purpose::Indirect };
        let request = Request::new(now, contact.addr, Some(contact.id), asked, self.indirect_wait());
        let ask = self.transactions.ask(&mut self.rng, request, Attempt::First);
        self.counters.probes_indirect += 1;
        outbox.request(now, ask, &Message::Probe { target });
        true
    }

    // Answers.

    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        outbox: &mut Outbox,
    ) {
        let message = datagram.message();
        let sender = datagram.id();
        let Some(request) = self.transactions.answered_by(now, from, datagram, outbox) else {
            self.counters.unexpected += 1;
            return;
        };
        let contact = Contact { id: sender, public: datagram.public(), addr: from };
        if datagram.is_leaf() {
            return self.drop_leaf(&contact);
        }
        self.answered(now, &contact, datagram.epoch(), request.sent);
        match (message, request.question.purpose) {
            (Message::GossipReply(body), _) => {
                self.round_answered = true;
                self.take_in(now, from, sender, &body, outbox);
            }
            (Message::ProbeReply { target, outcome }, _) if target == request.question.about => {
                self.relay_answered(now, &request, outcome, outbox);
            }
            (_, Purpose::Relay { asker, .. }) => {
                let answer =
                    Message::ProbeReply { target: request.question.about, outcome: ProbeOutcome::Answered };
                outbox.answer(now, asker, &answer);
            }
            (_, Purpose::Ping { again }) => {
                if let Some(position) = self.members.find(request.question.about) {
                    self.members.entry_mut(position).probing = false;
                }
                if !again {
                    self.health.better();
                }
            }
            _ => {}
        }
    }

    /// A member answered a request of the time `sent`, at the address that the request went to.
    fn answered(&mut self, now: Instant, contact: &Contact, epoch: Epoch, sent: Instant) {
        let Some((position, _)) = self.acquaint(now, contact, true) else { return };
        let left = matches!(self.members.places()[position].liveness, Liveness::Left { .. });
        let entry = self.members.entry(position);
        let before = entry.left_in.map_or(sent <= entry.since, |left_in| epoch == left_in);
        if left && before {
            // The answer may have been sent before the goodbye.
            return;
        }
        self.arrived(position, contact.addr);
        self.alive(now, position);
    }

    fn relay_answered(
        &mut self,
        now: Instant,
        request: &Request,
        outcome: ProbeOutcome,
        outbox: &mut Outbox,
    ) {
        let Some(position) = self.members.find(request.question.about) else { return };
        let entry = self.members.entry_mut(position);
        entry.relays.note(outcome);
        if outcome == ProbeOutcome::Answered {
            // Others reach the member, and this node does not: evidence of bad local health.
            self.health.doubted();
        }
        self.conclude_indirect(now, request.question.about, outbox);
    }
}

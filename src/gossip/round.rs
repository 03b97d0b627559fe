//! Gossip rounds, and both ends of a gossip.
//!
//! In a round this node sends some members its own state, a few rumours, a digest (which state of which member it knows), and its
//! suspicions. Each answers with states that this node lacks. An answer also shows that its sender is alive, so the neighbour that
//! has been silent longest is always among them. A round goes only to members that were contacted: a member that was merely named is
//! sent a ping, and nothing else until it answers (see `detect`).

use super::digest::Coverage;
use super::questions::{Asked, Purpose, Request};
use super::{Gossip, Liveness};
use crate::id::{NodeId, ShortId};
use crate::peers::outbox::{Ask, Asker, Attempt, Outbox};
use crate::peers::reply::ReplyBudget;
use crate::peers::standing::Standing;
use crate::time::{Duration, Instant};
use crate::wire::datagram::{PAYLOAD_BYTES_MAX, Verified};
use crate::wire::gossip::{GossipBody, GossipHead, Hops};
use crate::wire::header::OVERHEAD_BYTES;
use crate::wire::message::Message;
use crate::wire::state::{NodeState, StateMark};
use core::net::SocketAddr;

/// States in one datagram, including the sender's own.
const STATES_MAX: usize = 6;
/// Rumours in a request.
const RUMOURS_TOLD: usize = 3;
/// Rumours in a reply: few, so that states which the requester lacks have room.
const NEWS_ANSWERED: usize = 2;
/// Suspicions in one datagram.
pub(super) const SUSPICIONS_MAX: usize = 6;
/// Marks in a digest that names the neighbourhood.
const DIGEST_MAX: usize = 48;
/// Marks in any other digest: this many of the nearest members, and as many of the others, in turn.
const DIGEST_HALF: usize = 16;
/// One round in this many names the whole neighbourhood in its digest.
const WIDE_EVERY: u64 = 4;
/// The most members that one round goes to, whatever the fanout, and one that is away.
const PEERS_MAX: usize = 17;

const _: () = assert!(
    size_of::<GossipHead>() + STATES_MAX * size_of::<NodeState>() + SUSPICIONS_MAX * size_of::<StateMark>()
        <= PAYLOAD_BYTES_MAX
);

/// Whether digests name a member, so that others bring this node's knowledge of it up to date.
fn is_named(liveness: Liveness) -> bool {
    liveness.is_there() || liveness == Liveness::Unproven
}

/// The positions at which the next round and the next digest begin.
#[derive(Default)]
pub(super) struct Cursors {
    /// The distance of the member that the last digest named last.
    digest: u64,
    peer: u64,
    /// The next member to be met.
    pub(super) named: u64,
}

/// The members that a round has already gone to.
struct Peers {
    shorts: [ShortId; PEERS_MAX],
    count: usize,
}

impl Peers {
    fn contains(&self, short: ShortId) -> bool {
        self.shorts[..self.count].contains(&short)
    }
}

impl Gossip {
    /// A round. It also does all other periodic work, so that an idle node wakes up for one reason only.
    pub(super) fn round(&mut self, now: Instant, outbox: &mut Outbox) {
        self.pace.begin(now);
        self.round_at = None;
        self.own.reconsider(now, self.config.tell_interval);
        // While no member is silent there are no pings. Then answered rounds are the only evidence of good local health.
        if core::mem::take(&mut self.round_answered) {
            self.health.better();
        }
        self.advance(now);
        if self.members.len() == 0 {
            return;
        }
        let pause = self.pace.pause(self.config.interval);
        self.round_at = Some(now + self.rng.duration(pause * 9 / 10, pause * 11 / 10));
        self.hasten(now);
        self.counters.rounds += 1;
        let mut peers = Peers { shorts: [[0; 8]; PEERS_MAX], count: 0 };
        let fanout = if self.leaf { 1 } else { self.config.fanout.min(PEERS_MAX - 1) };
        for turn in 0..fanout {
            let peer = match turn {
                0 => self.silent_neighbour(&peers).or_else(|| self.random_peer(&peers)),
                1 => self.random_peer(&peers),
                2 => self.suspect(&peers).or_else(|| self.next_peer(&peers)),
                _ => self.random_peer(&peers),
            };
            self.gossip_with(now, peer, &mut peers, outbox);
        }
        let peer = self.away_peer(now);
        self.gossip_with(now, peer, &mut peers, outbox);
        self.watch(now, |short| peers.contains(short), outbox);
        self.meet(now, outbox);
    }

    /// Schedules the next round, if none is scheduled.
    pub(super) fn wake_up(&mut self, now: Instant) {
        if self.round_at.is_none() {
            self.round_at = Some(now + self.rng.duration(Duration::ZERO, self.config.interval / 8));
        }
    }

    /// Brings the next round forward, when enough members were met for that.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Some(early) = self.pace.early(self.config.interval) {
            let early = early.max(now) + self.rng.duration(Duration::ZERO, self.config.interval / 40);
            self.round_at = self.round_at.map(|at| at.min(early));
        }
    }

    /// Sends up to `count` live neighbours a gossip outside of rounds, as far as the rate limit allows.
    pub(super) fn tell_neighbours(
        &mut self,
        now: Instant,
        count: usize,
        besides: Option<ShortId>,
        outbox: &mut Outbox,
    ) {
        let mut peers = Peers { shorts: [[0; 8]; PEERS_MAX], count: 0 };
        if let Some(short) = besides {
            (peers.shorts[0], peers.count) = (short, 1);
        }
        self.members.refresh_watch();
        for _ in 0..count.min(PEERS_MAX - 1) {
            let neighbours = self.members.live_neighbours();
            let known = neighbours.filter(|&position| !peers.contains(self.members.short(position)));
            let known = known.count() as u64;
            if known == 0 || !self.tellings.take(now) {
                return;
            }
            let skipped = self.rng.below(known) as usize;
            let peer = self
                .members
                .live_neighbours()
                .filter(|&position| !peers.contains(self.members.short(position)))
                .nth(skipped);
            self.gossip_with(now, peer, &mut peers, outbox);
        }
    }

    fn gossip_with(&mut self, now: Instant, peer: Option<usize>, peers: &mut Peers, outbox: &mut Outbox) {
        let Some(position) = peer else { return };
        peers.shorts[peers.count] = self.members.short(position);
        peers.count += 1;
        self.send_gossip(now, position, outbox);
    }

    // The members that a round goes to.

    fn silent_neighbour(&mut self, peers: &Peers) -> Option<usize> {
        self.members.refresh_watch();
        let neighbours = self.members.live_neighbours();
        neighbours
            .filter(|&position| !peers.contains(self.members.short(position)))
            .min_by_key(|&position| self.last_exchange(position))
    }

    fn last_exchange(&self, position: usize) -> Instant {
        let entry = self.members.entry(position);
        entry.heard.max(entry.asked)
    }

    fn random_peer(&mut self, peers: &Peers) -> Option<usize> {
        let start = self.rng.below(self.members.len() as u64);
        self.peer_from(start, peers).map(|(position, _)| position)
    }

    fn next_peer(&mut self, peers: &Peers) -> Option<usize> {
        let (position, steps) = self.peer_from(self.cursors.peer, peers)?;
        self.cursors.peer += steps + 1;
        Some(position)
    }

    /// The first live member from `start` on, and the number of steps to it.
    fn peer_from(&self, start: u64, peers: &Peers) -> Option<(usize, u64)> {
        let length = self.members.len() as u64;
        let is_peer = |&(position, _): &(usize, u64)| {
            self.members.places()[position].liveness == Liveness::Live
                && !peers.contains(self.members.short(position))
        };
        (0..length).map(|step| (((start + step) % length) as usize, step)).find(is_peer)
    }

    fn suspect(&self, peers: &Peers) -> Option<usize> {
        if self.members.suspects() == 0 {
            return None;
        }
        let suspects = self.members.nearest(usize::MAX, |is| is == Liveness::Suspect);
        suspects
            .filter(|&position| !peers.contains(self.members.short(position)))
            .min_by_key(|&position| self.members.entry(position).asked)
    }

    /// A member that was alive once. If this node was partitioned, this is how it finds the other side.
    fn away_peer(&self, now: Instant) -> Option<usize> {
        const PAUSE_ROUNDS_MAX: u32 = 12;
        if self.members.away() == 0 {
            return None;
        }
        let is_due = |&position: &usize| {
            let entry = self.members.entry(position);
            let rounds = 1_u32.checked_shl(entry.tries.into()).unwrap_or(u32::MAX).min(PAUSE_ROUNDS_MAX);
            now.since(entry.asked) >= self.config.interval * rounds
        };
        let away = |is: Liveness| is.is_away() && is != Liveness::Left { for_good: true };
        let due = self.members.nearest(usize::MAX, away).filter(is_due);
        due.min_by_key(|&position| self.members.entry(position).asked)
    }

    // Requests.

    pub(super) fn send_gossip(&mut self, now: Instant, position: usize, outbox: &mut Outbox) -> bool {
        if self.transactions.room() == 0 {
            self.counters.table_full += 1;
            return false;
        }
        let short = self.members.short(position);
        let wait = self.timeout(position, outbox) * 2;
        let entry = self.members.entry_mut(position);
        entry.asked = now;
        let contact = entry.contact();
        let asked = Asked { about: short, purpose: Purpose::Gossip };
        let request = Request::new(now, contact.addr, Some(contact.id), asked, wait);
        let ask = self.transactions.ask(&mut self.rng, request, Attempt::First);
        self.counters.asked += 1;
        self.transmit_gossip(now, position, ask, outbox).is_some()
    }

    /// Writes the datagram of a gossip into the outbox.
    pub(super) fn transmit_gossip(
        &mut self,
        now: Instant,
        position: usize,
        ask: Ask,
        outbox: &mut Outbox,
    ) -> Option<usize> {
        let short = self.members.short(position);
        let mut states = [self.own.state(outbox); 1 + RUMOURS_TOLD];
        let limit = self.rumour_limit();
        let mut hops = self.own_hops(now);
        let count = 1 + self.rumours.tell(short, limit, &mut states[1..], &mut hops);
        let mut suspicions = [StateMark::new([0; 8], 0); SUSPICIONS_MAX];
        let suspected = self.suspicions(&mut suspicions);
        let mut digest = [StateMark::new([0; 8], 0); DIGEST_MAX];
        let taken =
            size_of::<GossipHead>() + count * size_of::<NodeState>() + suspected * size_of::<StateMark>();
        let room = (PAYLOAD_BYTES_MAX - taken) / size_of::<StateMark>();
        let (marks, nearest, whole) = self.digest(&mut digest[..room.min(DIGEST_MAX)]);
        let body = GossipBody {
            states: &states[..count],
            digest: &digest[..marks],
            nearest,
            whole,
            hops,
            suspicions: &suspicions[..suspected],
        };
        outbox.request(now, ask, &Message::Gossip(body))
    }

    /// The hops of a datagram's states. Only the first is set: the own state is news while it may not have reached every node.
    fn own_hops(&self, now: Instant) -> Hops {
        let mut hops = Hops::NO_NEWS;
        if now.since(self.own.news_at()) < self.config.interval * u32::from(self.rumour_limit()) {
            hops.set(0, 0);
        }
        hops
    }

    /// How often a rumour is sent: a multiple of the logarithm of the network's size, so that few nodes miss it (SWIM §4.1).
    fn rumour_limit(&self) -> u8 {
        (self.members.network_size().ilog2() + 4) as u8
    }

    fn suspicions(&self, out: &mut [StateMark]) -> usize {
        if self.members.suspects() == 0 {
            return 0;
        }
        let suspects = self.members.nearest(out.len(), |is| is == Liveness::Suspect);
        let mut count = 0;
        for (mark, position) in out.iter_mut().zip(suspects) {
            *mark = self.mark(position);
            count += 1;
        }
        count
    }

    fn mark(&self, position: usize) -> StateMark {
        StateMark::new(self.members.short(position), self.members.entry(position).state.sequence())
    }

    /// Fills `out` with marks of the states that this node knows: all of them when they fit, else those of the nearest members and,
    /// in most rounds, of a run of the others: backwards when this node has no room for more. Returns the number of marks, how many
    /// of them are of the nearest, and whether they are all.
    fn digest(&mut self, out: &mut [StateMark]) -> (usize, u8, bool) {
        let told = |gossip: &Gossip, most: usize| {
            let places = gossip.members.places().iter();
            places.filter(|place| is_named(place.liveness)).take(most).count()
        };
        let whole = told(self, out.len() + 1) <= out.len();
        let wide = whole || self.pace.rounds() % WIDE_EVERY == 0;
        let nearest = if wide { out.len() } else { DIGEST_HALF.min(out.len()) };
        let mut count = 0;
        let mut last = 0;
        for (mark, position) in out.iter_mut().zip(self.members.nearest(nearest, is_named)) {
            *mark = self.mark(position);
            (count, last) = (count + 1, position);
        }
        let nearest = count as u8;
        if !wide {
            let others = &self.members.places()[last + 1..];
            let start = others.partition_point(|place| place.distance < self.cursors.digest);
            // A run begins with the member that the last run ended with, so that no gap is between them.
            let run = (0..others.len()).map(|step| last + 1 + (start + step) % others.len());
            for position in run.filter(|&position| is_named(self.members.places()[position].liveness)) {
                if count == out.len().min(usize::from(nearest) + DIGEST_HALF) {
                    break;
                }
                out[count] = self.mark(position);
                self.cursors.digest = self.members.places()[position].distance;
                count += 1;
            }
            if !self.members.has_room() {
                out[usize::from(nearest)..count].reverse();
            }
        }
        (count, nearest, whole)
    }

    // Answers.

    pub(super) fn handle_gossip(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        body: &GossipBody<'_>,
        standing: Standing,
        outbox: &mut Outbox,
    ) {
        if datagram.is_leaf() {
            // While it still counts as a member, its state that says otherwise is news.
            self.take_in(now, from, datagram.id(), body, outbox);
        }
        let member = self.heard(now, from, datagram, standing);
        let validated = standing.is_validated()
            || member.is_some_and(|position| {
                self.members.places()[position].liveness != Liveness::Unproven
                    && self.members.entry(position).addr() == from
            });
        if !datagram.is_leaf() {
            self.take_in(now, from, datagram.id(), body, outbox);
        }
        let mut budget = ReplyBudget::new(datagram, validated);
        // The reply leaves room for a ping: it counts against the same bytes.
        budget.take(OVERHEAD_BYTES);
        self.reply(now, from, datagram, body, budget.room(), outbox);
    }

    /// Merges a gossip or a reply to one.
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sender: NodeId,
        body: &GossipBody<'_>,
        outbox: &mut Outbox,
    ) {
        for (index, state) in body.states.iter().take(STATES_MAX).enumerate() {
            self.learn(now, (sender, from), state, body.hops.get(index), outbox);
        }
        let trusted = self
            .members
            .find(sender.short())
            .is_some_and(|position| self.members.places()[position].liveness == Liveness::Live);
        if trusted {
            for mark in body.digest.iter().take(DIGEST_MAX) {
                self.hear_of_absent(now, mark);
            }
            for mark in body.suspicions.iter().take(SUSPICIONS_MAX) {
                self.hear_suspicion(now, mark);
            }
        }
    }

    fn reply(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        asked: &GossipBody<'_>,
        room: usize,
        outbox: &mut Outbox,
    ) {
        let requester = datagram.id().short();
        let mut suspicions = [StateMark::new([0; 8], 0); SUSPICIONS_MAX];
        let suspected = self.suspicions(&mut suspicions);
        let head = size_of::<GossipHead>() + suspected * size_of::<StateMark>();
        // The smallest gossip leaves room for the own state and three more.
        let most = (room.saturating_sub(head) / size_of::<NodeState>()).clamp(1, STATES_MAX);
        if most < STATES_MAX {
            self.counters.shortened += 1;
        }
        let mut states = [self.own.state(outbox); STATES_MAX];
        let limit = self.rumour_limit();
        // Rumours come first: a requester that lacks other states can ask again.
        let mut hops = self.own_hops(now);
        let told = &mut states[1..most.min(1 + NEWS_ANSWERED)];
        let mut count = 1 + self.rumours.tell(requester, limit, told, &mut hops);
        if let Some(newer) = self.newer_of_sender(requester, asked).filter(|_| count < most) {
            states[count] = *newer;
            count += 1;
        }
        for mark in asked.suspicions.iter().chain(asked.digest).take(DIGEST_MAX + SUSPICIONS_MAX) {
            if count == most {
                break;
            }
            if let Some(newer) = self.newer_than(mark).filter(|state| !states[..count].contains(state)) {
                states[count] = *newer;
                count += 1;
            }
        }
        count += self.missing(requester, asked, &mut states[count..most]);
        let body = GossipBody {
            states: &states[..count],
            digest: &[],
            nearest: 0,
            whole: false,
            hops,
            suspicions: &suspicions[..suspected],
        };
        self.counters.answered += 1;
        outbox.answer(now, Asker::of(from, datagram), &Message::GossipReply(body));
    }

    /// A state of the requester that is newer than the one that it sent: it has lost its number, or another process has its key.
    fn newer_of_sender(&self, requester: ShortId, asked: &GossipBody<'_>) -> Option<&NodeState> {
        let sent = asked.states.first()?;
        let state = &self.members.entry(self.members.find(requester)?).state;
        (state.public() == sent.public() && state.sequence() > sent.sequence()).then_some(state)
    }

    fn newer_than(&self, mark: &StateMark) -> Option<&NodeState> {
        let position = self.members.find(mark.short)?;
        let state = &self.members.entry(position).state;
        let told = self.members.places()[position].liveness.is_there();
        (told && state.sequence() > mark.sequence()).then_some(state)
    }

    /// Fills `out` with states of live members that the requester lacks: those nearest to it first, then any of the run of others.
    fn missing(&mut self, requester: ShortId, asked: &GossipBody<'_>, out: &mut [NodeState]) -> usize {
        let start = self.rng.below(self.members.len().max(1) as u64) as usize;
        let coverage = Coverage::of(requester, asked);
        let (most, mut count) = (out.len(), 0);
        let known = |position: &usize| {
            self.members.places()[*position].liveness == Liveness::Live
                && self.members.entry(*position).state.sequence() > 0
        };
        let distance = |position: &usize| coverage.distance(self.members.short(*position));
        let mut chosen = [(u64::MAX, 0_usize); STATES_MAX];
        for position in self.members.run(requester, coverage.horizon().leading_zeros()) {
            let distance = distance(&position);
            let is_nearer = count < most || count > 0 && distance < chosen[count - 1].0;
            if is_nearer && coverage.lacks_near(distance) && known(&position) {
                let place = chosen[..count].partition_point(|(other, _)| *other < distance);
                count = (count + 1).min(most);
                chosen[place..count].rotate_right(1);
                chosen[place] = (distance, position);
            }
        }
        let length = self.members.len();
        let others = (0..length).map(|step| (start + step) % length);
        let far = others.filter(|position| coverage.lacks_far(distance(position)) && known(position));
        for position in far.take(most - count) {
            chosen[count] = (u64::MAX, position);
            count += 1;
        }
        for (state, (_, position)) in out.iter_mut().zip(&chosen[..count]) {
            *state = self.members.entry(*position).state;
        }
        count
    }
}

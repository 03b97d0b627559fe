//! Comparing pieces with a neighbour: the asking side.
//!
//! A comparison begins with the whole key space as one range. Ranges that differ are divided until the neighbour lists its keys.
//! Both sides divide, so each round trip goes two levels down. A neighbour whose ranges are equal, or listed, is then known. One that
//! divides without end is given up after as many requests as an honest one could need.

use super::Replication;
use super::compare::{Comparison, Select, bounds};
use super::questions::{Asked, Purpose, Request, TIMEOUT_FIRST};
use crate::peers::outbox::{Attempt, Outbox};
use crate::time::{Duration, Instant};
use crate::wire::reconcile::{Answer, Answers, RANGES_MAX, Scope, Summary, WirePart, WireRange, prefix};

/// Comparisons under way at a time.
const SESSIONS_MAX: usize = 4;
/// Open ranges of one comparison.
const RANGES_OPEN_MAX: usize = 1024;
/// The least number of keys in a part of a divided range.
pub(super) const PART_KEYS_MIN: u32 = 8;
/// The most parts of a divided range.
pub(super) const PARTS: u32 = 16;
/// The least time between two comparisons with the same neighbour, so that many changes share one.
const PAUSE: Duration = Duration::from_secs(15);
/// The delay of a comparison that a change calls for; up to twice this.
const SOON: Duration = Duration::from_secs(3);
/// The pause after a neighbour answered that it has no work budget left for this node.
const LATER: Duration = Duration::from_secs(1);
/// The pause after a failed comparison. Doubles each time.
const RETRY: Duration = Duration::from_secs(15);

/// A comparison under way.
pub(super) struct Session {
    salt: u64,
    /// Ranges still to be compared. The last one is next.
    open: Vec<(u64, u64)>,
    /// How many ranges the last answer had room for.
    batch: usize,
    /// Requests that are left before the comparison is given up.
    left: u32,
    /// The earliest time of the next request.
    next_at: Instant,
    /// Whether it found anything that was not known.
    news: bool,
    /// The copies that it found, and those that it found missing although they were known.
    found: u32,
    lost: u32,
}

impl Replication {
    /// Schedules a comparison with neighbour `slot` soon.
    pub(super) fn reconcile_soon(&mut self, now: Instant, slot: usize) {
        let soon = now + self.rng.duration(SOON, SOON * 2);
        if let Some(slot) = self.neighbours.get_mut(slot) {
            let at = soon.max(slot.quiet_until);
            slot.reconcile_at = Some(slot.reconcile_at.map_or(at, |before| before.min(at)));
        }
    }

    fn sessions(&self) -> usize {
        self.neighbours.iter().filter(|(_, slot)| slot.session.is_some()).count()
    }

    /// When the next comparison begins or goes on.
    pub(super) fn reconcile_deadline(&self) -> Option<Instant> {
        let room = self.sessions() < SESSIONS_MAX;
        let live = self.neighbours.masks.live;
        let mut next = None;
        for (index, slot) in self.neighbours.iter() {
            let at = match &slot.session {
                Some(session) if slot.asked.is_none() => Some(session.next_at),
                None if room && !slot.stale && live & (1 << index) != 0 => slot.reconcile_at,
                _ => None,
            };
            next = crate::time::earliest(next, at);
        }
        next
    }

    /// Begins the comparisons that are due, and sends the requests that can be sent.
    pub(super) fn reconcile(&mut self, now: Instant, outbox: &mut Outbox) {
        // The first request covers every piece, so only one comparison begins in a turn.
        let mut begins = self.sessions() < SESSIONS_MAX;
        let live = self.neighbours.masks.live;
        for index in 0..super::SLOTS_MAX {
            let Some(slot) = self.neighbours.get_mut(index) else { continue };
            let due = slot.session.is_none() && !slot.stale && live & (1 << index) != 0;
            if due && begins && slot.reconcile_at.take_if(|at| *at <= now).is_some() {
                slot.grown = false;
                slot.session = Some(Session {
                    salt: self.rng.u64(),
                    open: vec![(0, u64::MAX)],
                    batch: RANGES_MAX,
                    left: 64 + slot.shared / 8,
                    next_at: now,
                    news: !slot.checked,
                    found: 0,
                    lost: 0,
                });
                begins = false;
            }
            self.ask_next(now, index, outbox);
        }
    }

    /// Sends the next request of a comparison, or ends the comparison.
    fn ask_next(&mut self, now: Instant, index: usize, outbox: &mut Outbox) {
        let Some(slot) = self.neighbours.get_mut(index) else { return };
        let Some(session) = &mut slot.session else { return };
        if slot.asked.is_some() || session.next_at > now {
            return;
        }
        let mut comparison = Comparison::new(&self.pieces, Select::Shared(1 << index), session.salt);
        let mut ranges = Vec::new();
        while ranges.len() < session.batch {
            let Some((first, last)) = session.open.pop() else { break };
            let summary = comparison.summary(first, last);
            // A range that is empty here is left to the other node's comparison.
            if summary.count > 0 {
                ranges.push(WireRange::new(first, last, Scope::Shared, summary));
            }
        }
        self.work += comparison.visits;
        if ranges.is_empty() {
            return self.session_done(now, index);
        }
        if session.left == 0 {
            return self.session_failed(now, index);
        }
        session.left -= 1;
        ranges.sort_unstable_by_key(WireRange::first);
        let salt = session.salt;
        self.ask(now, index, Purpose::Compare, salt, ranges, outbox);
    }

    /// Sends a request to a neighbour that owes no answer.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        index: usize,
        purpose: Purpose,
        salt: u64,
        ranges: Vec<WireRange>,
        outbox: &mut Outbox,
    ) {
        if self.requests.room() == 0 {
            self.forget_unasked();
        }
        let Some(slot) = self.neighbours.get_mut(index) else { return };
        let to = slot.contact;
        let first = outbox.peers().timeout(&to.id, TIMEOUT_FIRST);
        let request = Request::ask(now, &to, purpose, (salt, ranges), first);
        let ask = self.requests.ask(&mut self.rng, request, Attempt::First);
        slot.asked = Some(ask.transaction);
        self.transmit(now, ask, outbox);
    }

    /// Takes the answers to a request of a comparison.
    pub(super) fn compared(&mut self, now: Instant, index: usize, asked: &Asked, answers: Answers<'_>) {
        // An answer may arrive after its comparison ended.
        let same = |session: &mut Session| session.salt == asked.salt;
        let taken = self.neighbours.get_mut(index).and_then(|slot| slot.session.take_if(same));
        let Some(mut session) = taken else { return };
        let mut answered = 0;
        let mut refused = false;
        for (range, answer) in asked.ranges.iter().zip(answers.iter()) {
            match answer {
                Answer::Equal => self.found_equal(index, &mut session, range),
                Answer::Split(parts) => self.found_parts(index, &mut session, range, parts),
                Answer::Keys(keys) => {
                    let held = |key: &_| keys.binary_search(&prefix(key)).is_ok();
                    self.learn(index, &mut session, range.first(), range.last(), held);
                }
                Answer::Later => {
                    session.next_at = now + LATER;
                    break;
                }
                Answer::Refused => {
                    refused = true;
                    break;
                }
            }
            answered += 1;
        }
        for range in asked.ranges[answered..].iter().rev() {
            session.open.push((range.first(), range.last()));
        }
        session.batch = (answered + answered / 2 + 1).clamp(1, RANGES_MAX);
        let full = session.open.len() > RANGES_OPEN_MAX;
        if let Some(slot) = self.neighbours.get_mut(index) {
            slot.session = Some(session);
        }
        if refused {
            // It does not count this node among its neighbours, so they share no pieces. Offers will show what it has.
            self.session_done(now, index);
        } else if full {
            self.session_failed(now, index);
        }
    }

    fn found_equal(&mut self, index: usize, session: &mut Session, range: &WireRange) {
        let (first, last) = (range.first(), range.last());
        let mut comparison = Comparison::new(&self.pieces, Select::Shared(1 << index), session.salt);
        let same = comparison.summary(first, last) == range.summary();
        self.work += comparison.visits;
        if same {
            self.learn(index, session, first, last, |_| true);
        } else {
            // A piece came or went since the request.
            session.open.push((first, last));
        }
    }

    fn found_parts(&mut self, index: usize, session: &mut Session, range: &WireRange, parts: &[WirePart]) {
        let sound = parts.last().is_some_and(|part| part.last() == range.last())
            && parts.first().is_some_and(|part| part.last() >= range.first());
        if !sound {
            self.counters.unexpected += 1;
            return;
        }
        let mut first = range.first();
        for part in parts {
            let (theirs, last) = (part.summary(), part.last());
            let mut comparison = Comparison::new(&self.pieces, Select::Shared(1 << index), session.salt);
            let ours = comparison.summary(first, last);
            if ours == theirs {
                self.work += comparison.visits;
                self.learn(index, session, first, last, |_| true);
            } else if theirs == Summary::default() {
                self.work += comparison.visits;
                self.learn(index, session, first, last, |_| false);
            } else if ours.count > 0 {
                let parts = (ours.count / PART_KEYS_MIN).clamp(1, PARTS);
                let mut begin = first;
                for (end, _) in comparison.split(first, last, ours.count, parts) {
                    session.open.push((begin, end));
                    begin = end.saturating_add(1);
                }
                self.work += comparison.visits;
            }
            first = last.saturating_add(1);
        }
    }

    /// The keys that the neighbour has in a range are known.
    fn learn(
        &mut self,
        index: usize,
        session: &mut Session,
        first: u64,
        last: u64,
        held: impl Fn(&crate::id::Key) -> bool,
    ) {
        let (bit, (from, to)) = (1 << index, bounds(first, last));
        for (key, piece) in self.pieces.range_mut(&from, &to) {
            self.work += 1;
            if !Select::Shared(bit).takes(piece) {
                continue;
            }
            let (before, now) = (piece.confirmed & bit != 0, held(key));
            session.found += u32::from(now);
            if before != now {
                piece.confirmed ^= bit;
                session.news = true;
                if before {
                    session.lost += 1;
                    self.counters.lost += 1;
                }
            }
        }
    }

    fn session_done(&mut self, now: Instant, index: usize) {
        let interval = self.config.reconcile_interval;
        let next = now + interval + self.rng.duration(Duration::ZERO, interval / 8);
        let Some(slot) = self.neighbours.get_mut(index) else { return };
        let Some(session) = slot.session.take() else { return };
        (slot.checked, slot.failures) = (true, 0);
        // Few may be missing because holders have changed meanwhile.
        let had = core::mem::take(&mut slot.had).max(session.found + session.lost);
        let has_lost = session.found < had / 2;
        slot.quiet_until = now + PAUSE;
        slot.reconcile_at = Some(if slot.grown { slot.quiet_until } else { next });
        slot.grown = false;
        if has_lost {
            self.neighbours.lost(now, index, self.config.rank_wait);
        }
        self.counters.reconciled += 1;
        self.neighbours.refresh(now);
        if session.news {
            self.sweep_at(now);
        }
    }

    /// Ends a failed comparison. It is tried again later.
    pub(super) fn session_failed(&mut self, now: Instant, index: usize) {
        let interval = self.config.reconcile_interval;
        let Some(slot) = self.neighbours.get_mut(index) else { return };
        let Some(session) = slot.session.take() else { return };
        let delay = (RETRY * (1 << slot.failures.min(6))).min(interval);
        slot.failures += 1;
        slot.quiet_until = now + delay;
        slot.reconcile_at = Some(slot.quiet_until);
        self.counters.reconcile_failed += 1;
        if session.news {
            self.sweep_at(now);
        }
    }
}

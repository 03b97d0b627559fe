//! Copying what lacks copies, placing what lies elsewhere, dropping what is too much: one step at a time for each piece.
//!
//! Before anything is copied or dropped, the neighbours that it is about are asked whether they have the piece, whatever was
//! known of them: most causes of a repair are gone by then, or somebody nearer has seen to it.

use super::exchange::Purpose;
use super::neighbours::bits;
use super::pieces::{Need, Queue};
use super::{Action, CopyOutcome, Replication, SLOTS_MAX};
use crate::id::{Key, NodeId};
use crate::time::{Duration, Instant, earliest};
use crate::wire::outbox::Outbox;
use crate::wire::reconcile::{Answer, Answers, RANGES_MAX, Scope, Summary, WireRange, number, prefix};

/// Pieces that are being dealt with at a time.
const JOBS_MAX: usize = 64;
/// Of them, pieces that are about to be dropped.
const DROPS_MAX: usize = 16;
/// Actions that wait to be taken. More are not begun.
const ACTIONS_MAX: usize = 128;
/// Lookups for pieces whose holders are far away, at a time.
const PLACES_MAX: usize = 2;
/// The least time between two of those.
const PLACE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a neighbour said that it has answered enough.
const LATER: Duration = Duration::from_secs(1);
/// How many times in a row it may say so about one piece. Then others have their turn.
const LATER_MAX: u8 = 8;

/// How far a piece that is being dealt with has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The neighbour is to be asked whether it has it, not before then.
    Look(Instant),
    /// It has been asked.
    Looking,
    /// It has it not, or does not say: it is to be offered.
    Offer,
    /// The copy is under way.
    Copying,
}

/// A piece that is being dealt with.
pub(super) struct Job {
    slot: usize,
    target: NodeId,
    /// It is to be dropped once the target and these have it.
    drop: Option<u64>,
    step: Step,
    /// How many times the target wanted to be asked later.
    later: u8,
    /// Live copies when it began, and since when the piece needs something: who comes first.
    live: u8,
    since: Instant,
    length: u32,
}

impl Replication {
    /// Copies under way.
    pub(super) fn copying(&self) -> usize {
        self.jobs.values().filter(|job| job.step == Step::Copying).count()
    }

    /// Whether a piece is being copied, or about to be.
    pub(super) fn is_copying(&self, key: &Key) -> bool {
        self.jobs.get(key).is_some_and(|job| job.drop.is_none())
    }

    pub(super) fn repair_deadline(&self) -> Option<Instant> {
        let mut next = None;
        let room = self.copying() < self.config.transfers_max && self.actions.len() < ACTIONS_MAX;
        for job in self.jobs.values() {
            let at = match job.step {
                Step::Look(at) if self.is_idle(job.slot) => Some(at),
                Step::Offer if room => Some(self.budget.free_at()),
                _ => None,
            };
            next = earliest(next, at);
        }
        for queue in Queue::ALL {
            next = earliest(next, self.opens_at(queue));
        }
        next
    }

    /// Whether a neighbour owes no answer.
    fn is_idle(&self, slot: usize) -> bool {
        self.neighbours.get(slot).is_some_and(|slot| slot.exchange.is_none())
    }

    /// When the first in a queue may go on; `None` when that does not depend on time.
    fn opens_at(&self, queue: Queue) -> Option<Instant> {
        let (live, _) = self.pieces.first(queue)?;
        let drops = || self.jobs.values().filter(|job| job.drop.is_some()).count();
        let room = self.actions.len() < ACTIONS_MAX
            && match queue {
                Queue::Copies => self.jobs.len() < JOBS_MAX,
                Queue::Places => self.placing.len() < PLACES_MAX,
                Queue::Drops => self.jobs.len() < JOBS_MAX && drops() < DROPS_MAX,
            };
        if !room {
            return None;
        }
        let suspended = match queue {
            Queue::Copies => self.partition.until(live),
            Queue::Places | Queue::Drops => self.partition.ends_at(),
        };
        let opens = self.quiet_until.max(suspended.unwrap_or(Instant::ZERO));
        Some(if queue == Queue::Places { opens.max(self.place_at) } else { opens })
    }

    /// Does what may be done now.
    pub(super) fn repair(&mut self, now: Instant, outbox: &mut Outbox) {
        self.give_up_hopeless(now);
        for queue in Queue::ALL {
            // Each turn takes one out of the queue; some are put back to wait.
            for _ in 0..JOBS_MAX {
                if self.opens_at(queue).is_none_or(|at| at > now) {
                    break;
                }
                self.begin_next(now, queue);
            }
        }
        for slot in 0..SLOTS_MAX {
            self.look(now, slot, outbox);
        }
        self.offer(now);
    }

    /// Jobs whose target is gone are given up; while this node takes itself for cut off, all that are not under way.
    fn give_up_hopeless(&mut self, now: Instant) {
        let masks = self.neighbours.masks;
        let hopeless = |job: &Job| {
            let there = self.neighbours.get(job.slot).is_some_and(|slot| slot.contact.id == job.target);
            let usable = masks.live & masks.trusted & (1 << job.slot) != 0;
            let suspended = self.partition.until(job.live).is_some_and(|until| until > now);
            job.step != Step::Copying && (!there || !usable || suspended)
        };
        let given_up: Vec<Key> =
            self.jobs.iter().filter(|(_, job)| hopeless(job)).map(|(key, _)| *key).collect();
        for key in given_up {
            self.release(now, &key);
        }
    }

    /// A piece's turn is over; it is looked at anew.
    fn release(&mut self, now: Instant, key: &Key) {
        self.jobs.remove(key);
        self.pieces.rest(key);
        self.review(now, key);
    }

    /// The first in the queue goes on.
    fn begin_next(&mut self, now: Instant, queue: Queue) {
        let Some((live, key)) = self.pieces.first(queue) else { return };
        let Some(piece) = self.pieces.get(&key).copied() else { return };
        if self.jobs.contains_key(&key) || self.placing.contains(&key) {
            // It went and came back while its copy was under way.
            self.put_off(&key, now + self.config.rank_wait);
            self.pieces.rest(&key);
            return self.review(now, &key);
        }
        let found = self.assess(&key, &piece);
        if found.need.queue() != queue || found.need == Need::Whole {
            self.pieces.rest(&key);
            return self.review(now, &key);
        }
        let (targets, drop) = match found.need {
            Need::Stray => {
                self.pieces.take_on(&key);
                self.placing.insert(key);
                self.place_at = now + PLACE_PAUSE;
                return self.actions.push_back(Action::Place { key });
            }
            Need::Surplus => (found.expected, true),
            _ if now >= piece.since + self.config.urgent_after => (found.missing | found.substitutes, false),
            _ => (found.missing, false),
        };
        let held = |slot: &usize| self.neighbours.get(*slot).is_some_and(|slot| slot.held_until > now);
        let free = bits(targets).filter(|slot| !held(slot)).fold(0, |mask, slot| mask | 1 << slot);
        let Some(slot) = self.neighbours.nearest(&key, free) else {
            self.put_off(&key, now + self.config.rank_wait / 2);
            self.pieces.rest(&key);
            return self.review(now, &key);
        };
        let Some(target) = self.neighbours.get(slot).map(|slot| slot.contact.id) else { return };
        self.pieces.take_on(&key);
        let drop = drop.then_some(targets & !(1 << slot));
        let (step, since, length) = (Step::Look(now), piece.since, piece.length);
        self.jobs.insert(key, Job { slot, target, drop, step, later: 0, live, since, length });
    }

    /// Asks a neighbour about the pieces that are about to be copied there, or dropped because it has them.
    fn look(&mut self, now: Instant, slot: usize, outbox: &mut Outbox) {
        if !self.is_idle(slot) {
            return;
        }
        let salt = self.salt;
        let mut keys = Vec::new();
        let mut ranges: Vec<WireRange> = Vec::new();
        for (key, job) in &mut self.jobs {
            let due = matches!(job.step, Step::Look(at) if at <= now) && job.slot == slot;
            // Two pieces of one number are asked about one after the other.
            let apart = ranges.last().is_none_or(|last| last.last() < number(key));
            if !due || !apart || ranges.len() == RANGES_MAX {
                continue;
            }
            let mut summary = Summary::default();
            summary.add(key, salt);
            ranges.push(WireRange::new(number(key), number(key), Scope::Kept, summary));
            keys.push(*key);
            job.step = Step::Looking;
        }
        if !keys.is_empty() {
            self.ask(now, slot, Purpose::Look(keys), salt, ranges, outbox);
        }
    }

    /// A neighbour said which of the pieces it has; `None` when it said nothing.
    pub(super) fn looked(&mut self, now: Instant, slot: usize, keys: &[Key], answers: Option<Answers<'_>>) {
        let mut said = answers.iter().flat_map(|answers| answers.iter());
        let mut evades = false;
        for key in keys {
            let answer = said.next();
            let asked = |job: &&mut Job| job.slot == slot && job.step == Step::Looking;
            let Some(job) = self.jobs.get_mut(key).filter(asked) else { continue };
            match answer {
                Some(Answer::Equal) => self.has(now, key),
                Some(Answer::Keys(list)) if list.contains(&prefix(key)) => self.has(now, key),
                // It does not take this node for a neighbour: whether it has the piece is seen by offering it.
                Some(Answer::Refused) => job.step = Step::Offer,
                Some(Answer::Keys(_) | Answer::Split(_)) if job.drop.is_none() => job.step = Step::Offer,
                Some(Answer::Keys(_) | Answer::Split(_)) => {
                    if let Some(piece) = self.pieces.get_mut(key) {
                        piece.confirmed &= !(1 << slot);
                    }
                    self.release(now, key);
                }
                Some(Answer::Later) if job.later < LATER_MAX => {
                    job.later += 1;
                    job.step = Step::Look(now + LATER);
                }
                None if answers.is_some() => job.step = Step::Look(now),
                Some(Answer::Later) | None => {
                    evades = true;
                    self.put_off(key, now + self.config.rank_wait / 2);
                    self.release(now, key);
                }
            }
        }
        if evades {
            // What others lack must not wait together with what this one lacks.
            self.neighbours.hold(now, slot, self.config.rank_wait);
        }
    }

    /// The target of a job has the piece.
    fn has(&mut self, now: Instant, key: &Key) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        if let Some(piece) = self.pieces.get_mut(key) {
            piece.confirmed |= 1 << job.slot;
        }
        // That somebody else made the copy is seen when the piece is looked at anew.
        let Some(others) = job.drop else { return self.release(now, key) };
        if let Some(slot) = bits(others).next() {
            if let Some(target) = self.neighbours.get(slot).map(|slot| slot.contact.id) {
                let drop = Some(others & !(1 << slot));
                (job.slot, job.target, job.drop, job.step) = (slot, target, drop, Step::Look(now));
                job.later = 0;
                return;
            }
            return self.release(now, key);
        }
        self.jobs.remove(key);
        let surplus = self.pieces.get(key).is_some_and(|piece| self.assess(key, piece).need == Need::Surplus);
        if !surplus {
            return self.release(now, key);
        }
        self.forget(key);
        self.counters.dropped += 1;
        self.actions.push_back(Action::Drop { key: *key });
    }

    /// Begins as many copies as the budget and the number of transfers allow, fewest live copies first.
    fn offer(&mut self, now: Instant) {
        while self.copying() < self.config.transfers_max
            && self.actions.len() < ACTIONS_MAX
            && self.budget.free_at() <= now
        {
            let waiting = self.jobs.iter().filter(|(_, job)| job.step == Step::Offer);
            let first = waiting.min_by_key(|(key, job)| (job.live, job.since, **key)).map(|(key, _)| *key);
            let Some(key) = first else { return };
            let Some(job) = self.jobs.get_mut(&key) else { return };
            let Some(target) = self.neighbours.get(job.slot).map(|slot| slot.contact) else { return };
            job.step = Step::Copying;
            self.budget.spend(now, u64::from(job.length));
            self.actions.push_back(Action::Copy { key, target });
        }
    }

    /// What became of an [`Action::Copy`]. Each must be told of once.
    pub fn copy_done(&mut self, now: Instant, key: &Key, target: &NodeId, outcome: CopyOutcome) {
        self.deadline.set(None);
        let under_way = |job: &Job| job.step == Step::Copying && job.target == *target;
        if !self.jobs.get(key).is_some_and(under_way) {
            self.counters.unexpected += 1;
            return;
        }
        self.wake_at(now);
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (slot, length) = (self.neighbours.find(target), job.length);
        let (rank_wait, urgent_after) = (self.config.rank_wait, self.config.urgent_after);
        *match outcome {
            CopyOutcome::Stored => &mut self.counters.copied,
            CopyOutcome::Had => &mut self.counters.copy_had,
            CopyOutcome::Busy => &mut self.counters.copy_busy,
            CopyOutcome::Refused => &mut self.counters.copy_refused,
            CopyOutcome::Failed => &mut self.counters.copy_failed,
        } += 1;
        if outcome == CopyOutcome::Stored {
            self.counters.copied_bytes += u64::from(length);
        }
        if matches!(outcome, CopyOutcome::Had | CopyOutcome::Busy | CopyOutcome::Refused) {
            self.budget.give_back(u64::from(length));
        }
        let took = matches!(outcome, CopyOutcome::Stored | CopyOutcome::Had);
        match (slot, outcome) {
            (Some(slot), CopyOutcome::Stored | CopyOutcome::Had) => {
                self.neighbours.took(slot);
                if let Some(piece) = self.pieces.get_mut(key) {
                    piece.confirmed |= 1 << slot;
                    piece.ready = None;
                }
                if job.drop.is_some() && job.slot == slot {
                    return self.has(now, key);
                }
            }
            (Some(slot), CopyOutcome::Refused) => self.neighbours.pass_over(now, slot, urgent_after * 5),
            (Some(slot), CopyOutcome::Failed) => self.neighbours.hold(now, slot, rank_wait),
            (Some(slot), CopyOutcome::Busy) => self.neighbours.was_busy(now, slot, rank_wait),
            _ => {}
        }
        // Its turn comes again; somebody else's copy is waited for.
        if !took {
            self.put_off(key, now + rank_wait / 2);
        }
        self.release(now, key);
    }

    /// What became of an [`Action::Place`]: how many other nodes among those closest to the piece have it now. Each must be
    /// told of once.
    pub fn placed(&mut self, now: Instant, key: &Key, copies: u8) {
        self.deadline.set(None);
        if !self.placing.remove(key) {
            self.counters.unexpected += 1;
            return;
        }
        self.wake_at(now);
        self.counters.placed += 1;
        let (interval, surplus_after) = (self.config.reconcile_interval, self.config.surplus_after);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let enough = copies >= piece.replicas;
        if enough && piece.placed && piece.need == Need::Stray && !piece.keep {
            self.forget(key);
            self.counters.dropped += 1;
            self.actions.push_back(Action::Drop { key: *key });
            return;
        }
        piece.placed = enough;
        self.put_off(key, now + if enough { surplus_after } else { interval });
        self.pieces.rest(key);
        self.review(now, key);
    }

    /// Takes a piece out of the tables.
    pub(super) fn forget(&mut self, key: &Key) {
        if self.jobs.get(key).is_some_and(|job| job.step != Step::Copying) {
            self.jobs.remove(key);
        }
        let Some(piece) = self.pieces.remove(key) else { return };
        for index in bits(if piece.own { piece.expected } else { 0 }) {
            if let Some(slot) = self.neighbours.get_mut(index) {
                slot.shared = slot.shared.saturating_sub(1);
            }
        }
    }
}

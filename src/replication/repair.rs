//! Repair: copying under-replicated pieces, placing misplaced ones, dropping surplus ones, one step at a time for each piece.
//!
//! Before a piece is copied or dropped, the neighbours concerned are asked whether they have it, even if they are known to have
//! it or to lack it: by then the cause of most repairs is gone, or a nearer holder has made the copy. Before a piece is dropped,
//! each of them must also prove that it has the piece on disk: identities are free, and must not be able to remove copies by
//! claiming to have them.

use super::neighbours::bits;
use super::pieces::{Need, Queue};
use super::questions::Purpose;
use super::{Action, CopyOutcome, Placed, Replication, SLOTS_MAX};
use crate::id::{Key, NodeId};
use crate::peers::outbox::Outbox;
use crate::time::{Duration, Instant, earliest};
use crate::wire::reconcile::{Answer, Answers, RANGES_MAX, Scope, Summary, WireRange, number, prefix};
use core::num::NonZeroU32;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Pieces with a job at a time.
const JOBS_MAX: usize = 64;
/// Of these, pieces that are to be dropped.
const DROPS_MAX: usize = 16;
/// Queued actions. While there are more, no job begins.
const ACTIONS_MAX: usize = 128;
/// Placements under way at a time.
const PLACES_MAX: usize = 2;
/// The least time between the starts of two placements.
const PLACE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a neighbour answered that it has no work budget left for this node.
const LATER: Duration = Duration::from_secs(1);
/// How many times in a row it may answer so about one piece, before the job ends.
const LATER_MAX: u8 = 8;

/// The step of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The neighbour is asked whether it has the piece, at this time or later.
    Look(Instant),
    /// The neighbour has been asked.
    Looking,
    /// The neighbour does not have the piece, or does not say: the piece is offered to it.
    Offer,
    /// The copy is under way.
    Copying,
    /// The piece is to be dropped: the neighbour says that it has it, and is challenged to prove it.
    Proving,
}

/// A job: a piece that is being copied or dropped.
pub(super) struct Job {
    slot: usize,
    target: NodeId,
    /// If the piece is to be dropped: the neighbours that must still be asked after the target.
    drop: Option<u64>,
    /// The neighbours that have proven that they have it.
    proven: u64,
    step: Step,
    /// How many times the target put the question off.
    later: u8,
    /// The number of live copies at the start, and since when the piece has had its need: the order of offers.
    live: u8,
    since: Instant,
    length: u32,
}

impl Replication {
    /// The number of copies under way.
    pub(super) fn copying(&self) -> usize {
        self.jobs.values().filter(|job| job.step == Step::Copying).count()
    }

    /// Whether a piece is being copied, or will be soon.
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

    /// Whether no request to this neighbour is outstanding.
    fn is_idle(&self, slot: usize) -> bool {
        self.neighbours.get(slot).is_some_and(|slot| slot.asked.is_none())
    }

    /// When the first piece of a queue may proceed; `None` when that does not depend on time.
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
            // A piece in doubt may have its last copy here.
            Queue::Places if live == 0 => self.partition.until(live),
            Queue::Places | Queue::Drops => self.partition.others_until(),
        };
        let opens = self.quiet_until.max(suspended.unwrap_or(Instant::ZERO));
        Some(if queue == Queue::Places { opens.max(self.place_at) } else { opens })
    }

    /// Takes every step that is possible now.
    pub(super) fn repair(&mut self, now: Instant, outbox: &mut Outbox) {
        self.end_hopeless_jobs(now);
        for queue in Queue::ALL {
            // Each pass takes one piece out of the queue; some wait again.
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

    /// Ends jobs whose target is gone. While this node suspects a partition, also ends those that have not begun to copy.
    fn end_hopeless_jobs(&mut self, now: Instant) {
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

    /// Ends the job of a piece, and assesses the piece anew.
    fn release(&mut self, now: Instant, key: &Key) {
        self.jobs.remove(key);
        self.pieces.rest(key);
        self.review(now, key);
    }

    /// Begins a job, or a placement, for the first piece in the queue.
    fn begin_next(&mut self, now: Instant, queue: Queue) {
        let Some((live, key)) = self.pieces.first(queue) else { return };
        let Some(piece) = self.pieces.get(&key).copied() else { return };
        if self.jobs.contains_key(&key) || self.placing.contains(&key) {
            // The piece was removed and added again while its copy was under way.
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
                let copies = piece.placed_on();
                return self.actions.push_back(Action::Place { key, copies });
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
        let (proven, later) = (0, 0);
        self.jobs.insert(key, Job { slot, target, drop, proven, step, later, live, since, length });
    }

    /// Asks a neighbour about the pieces that are to be copied to it, or dropped because it has them.
    fn look(&mut self, now: Instant, slot: usize, outbox: &mut Outbox) {
        if !self.is_idle(slot) {
            return;
        }
        let salt = self.salt;
        let mut keys = Vec::new();
        let mut ranges: Vec<WireRange> = Vec::new();
        for (key, job) in &mut self.jobs {
            let due = matches!(job.step, Step::Look(at) if at <= now) && job.slot == slot;
            // Two pieces with the same first eight bytes are asked about one after the other.
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

    /// A neighbour answered which of the pieces it has; `None` when it did not answer.
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
                // It does not count this node among its neighbours. The offer itself will show whether it has the piece.
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
            // Copies to this neighbour wait, so that they do not delay copies to others.
            self.neighbours.hold(now, slot, self.config.rank_wait);
        }
    }

    /// The target of a job has the piece, as it says.
    fn has(&mut self, now: Instant, key: &Key) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        if let Some(piece) = self.pieces.get_mut(key) {
            piece.confirmed |= 1 << job.slot;
        }
        // The assessment will count the copy, whichever node made it.
        let target = self.neighbours.get(job.slot).map(|slot| slot.contact).filter(|_| job.drop.is_some());
        let Some(target) = target else { return self.release(now, key) };
        job.step = Step::Proving;
        self.actions.push_back(Action::Prove { key: *key, target });
    }

    /// Reports the outcome of an [`Action::Prove`]. Call it exactly once for each.
    pub fn proven(&mut self, now: Instant, key: &Key, target: &NodeId, proven: bool) {
        self.deadline.set(None);
        // The job may have ended meanwhile, because its target is gone.
        let asked = |job: &&mut Job| job.step == Step::Proving && job.target == *target;
        let Some(job) = self.jobs.get_mut(key).filter(asked) else { return };
        let (slot, others) = (job.slot, job.drop.unwrap_or_default());
        if proven {
            self.has_proven(now, key, others);
        } else {
            self.counters.unproven += 1;
            if let Some(piece) = self.pieces.get_mut(key) {
                piece.confirmed &= !(1 << slot);
            }
            self.put_off(key, now + self.config.rank_wait);
            self.release(now, key);
        }
        self.wake_at(now);
    }

    /// The target of a job has proven that it has the piece. The piece is dropped when no other is left to be asked.
    fn has_proven(&mut self, now: Instant, key: &Key, others: u64) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.proven |= 1 << job.slot;
        let proven = job.proven;
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
        if !self.may_drop(now, key, proven) {
            self.put_off(key, now + self.config.rank_wait);
            return self.release(now, key);
        }
        self.forget(key);
        self.counters.dropped += 1;
        self.actions.push_back(Action::Drop { key: *key });
    }

    /// Whether a surplus piece may be dropped now that these neighbours have proven that they have it. Who should hold it may have changed
    /// meanwhile: a newcomer counts for finding the piece at once, and for dropping it only once it is as old as surplus is kept.
    fn may_drop(&self, now: Instant, key: &Key, proven: u64) -> bool {
        let Some(piece) = self.pieces.get(key) else { return false };
        let found = self.assess(key, piece);
        let youngest = self.neighbours.youngest(found.expected).unwrap_or(now);
        found.need == Need::Surplus
            && found.expected & !proven == 0
            && now >= piece.since.max(youngest) + self.config.surplus_after
    }

    /// A job in which `target` is challenged last, after these neighbours have proven that they have the piece.
    #[cfg(test)]
    pub(super) fn challenge_last(&mut self, key: &Key, target: &NodeId, proven: &[NodeId]) {
        let slot_of = |id: &NodeId| self.neighbours.find(id).expect("a neighbour");
        let proven = proven.iter().fold(0, |mask, id| mask | 1 << slot_of(id));
        let (slot, target, drop, step) = (slot_of(target), *target, Some(0), Step::Proving);
        let since = self.pieces.get(key).map_or(Instant::ZERO, |piece| piece.since);
        self.pieces.take_on(key);
        self.jobs.insert(*key, Job { slot, target, drop, proven, step, later: 0, live: 4, since, length: 9 });
    }

    /// Begins as many copies as the budget and the number of transfers allow, those with the fewest live copies first.
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

    /// Reports the outcome of an [`Action::Copy`]. Call it exactly once for each.
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
        // The piece is queued again later, so that another holder may copy it first.
        if !took {
            self.put_off(key, now + rank_wait / 2);
        }
        self.release(now, key);
    }

    /// Reports the result of an [`Action::Place`]: the other nodes among those closest to the piece that have it now. Call it exactly
    /// once for each.
    pub fn placed(&mut self, now: Instant, key: &Key, holders: &[Placed]) {
        self.deadline.set(None);
        if !self.placing.remove(key) {
            self.counters.unexpected += 1;
            return;
        }
        self.wake_at(now);
        self.counters.placed += 1;
        let (interval, surplus_after) = (self.config.reconcile_interval, self.config.surplus_after);
        let mark = self.mark_of(holders);
        let Some(piece) = self.pieces.get_mut(key) else { return };
        let enough = holders.len() >= usize::from(piece.placed_on());
        // The very nodes that had it the last time have it still. Others, of which a lookup says that they are closest, must keep it for
        // as long first: whoever answers lookups must not be able to have copies dropped.
        let kept = enough && holders.iter().all(|holder| holder.had) && piece.placed == Some(mark);
        if kept && piece.need == Need::Stray && !piece.keep {
            self.forget(key);
            self.counters.dropped += 1;
            self.actions.push_back(Action::Drop { key: *key });
            return;
        }
        piece.placed = enough.then_some(mark);
        let pause = match (enough, piece.in_doubt) {
            (true, _) => surplus_after,
            (false, true) => self.config.rank_wait,
            (false, false) => interval,
        };
        piece.in_doubt &= !enough;
        self.put_off(key, now + pause);
        self.pieces.rest(key);
        self.review(now, key);
    }

    /// A number for a set of nodes, in any order. No node can choose ids for which it is the same.
    fn mark_of(&self, holders: &[Placed]) -> NonZeroU32 {
        let marks = holders.iter().map(|holder| xxh3_64_with_seed(&holder.id.0, self.salt) as u32);
        NonZeroU32::new(marks.fold(0, |all, one| all ^ one)).unwrap_or(NonZeroU32::MIN)
    }

    /// Removes a piece from the tables.
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

//! Assessing a piece: which nodes should hold it, what it lacks, and when this node acts.

use super::Replication;
use super::neighbours::bits;
use super::pieces::{Need, Piece, Ready, Stand};
use crate::id::Key;
use crate::limits::quorum;
use crate::time::Instant;
use crate::wire::reconcile::number;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Pieces visited in one turn of a sweep.
const SWEEP_SLICE: usize = 512;
/// Due pieces assessed in one turn.
const DUE_SLICE: usize = 256;

/// The result of assessing one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assessment {
    /// The neighbours that should hold it.
    pub(super) expected: u64,
    /// Whether this node should hold it.
    pub(super) own: bool,
    /// Known live copies, including this node's own.
    pub(super) live: u8,
    pub(super) need: Need,
    /// Neighbours that should hold it and do not: the holders copy it to them, in the order of their ranks.
    pub(super) missing: u64,
    /// The next closest neighbours, in place of silent holders. They get copies when the piece has been urgent for long enough.
    pub(super) substitutes: u64,
}

/// A sweep: a walk over all pieces, those nearest to this node first.
pub(super) struct Sweep {
    /// The present shell: keys that share exactly this many bits with this node's id.
    depth: u32,
    after: Option<Key>,
    /// Slots whose bits the sweep clears.
    clears: u64,
}

impl Replication {
    pub(super) fn assess(&self, key: &Key, piece: &Piece) -> Assessment {
        let masks = &self.neighbours.masks;
        let replicas = usize::from(piece.replicas);
        let chosen = self.neighbours.closest(key, replicas, masks.eligible);
        let confirmed = piece.confirmed & masks.trusted;
        let live = 1 + (confirmed & masks.there).count_ones() as u8;
        let quorum = quorum(piece.replicas);
        let mut found = Assessment {
            expected: chosen.mask,
            own: chosen.own,
            live,
            need: Need::Whole,
            missing: 0,
            substitutes: 0,
        };
        if !self.neighbours.is_certain(key, chosen, replicas) {
            found.need = if piece.keep && !piece.in_doubt { Need::Whole } else { Need::Stray };
            return found;
        }
        let urgent = live <= quorum && chosen.mask & masks.silent != 0;
        let lacking = chosen.mask & !confirmed & !masks.silent;
        let refusing = masks.passed & !confirmed;
        let able = masks.live & masks.trusted & !confirmed & !refusing;
        found.missing = chosen.mask & able;
        if urgent || chosen.mask & refusing != 0 {
            let silent = if urgent { masks.silent } else { 0 };
            let others = self.neighbours.closest(key, replicas, masks.eligible & !refusing & !silent);
            let next = others.mask & !chosen.mask & able;
            if urgent {
                found.substitutes = next;
            } else {
                found.missing |= next;
            }
        }
        let surplus = || {
            let held = chosen.mask & confirmed & masks.live;
            let all =
                !piece.keep && !chosen.own && held == chosen.mask && chosen.count() as usize >= replicas;
            // Identities are free, addresses less so: one party that claims all copies is not enough to drop this one, where there are
            // others.
            let parties = self.neighbours.parties(masks.live).min(usize::from(quorum));
            all && self.neighbours.parties(held) >= parties
        };
        found.need = if urgent {
            Need::Urgent
        } else if lacking != 0 {
            Need::Missing
        } else if surplus() {
            Need::Surplus
        } else {
            Need::Whole
        };
        found
    }

    /// Assesses one piece, and schedules its next step.
    pub(super) fn review(&mut self, now: Instant, key: &Key) {
        let Some(piece) = self.pieces.get(key) else { return };
        self.work += 1;
        let (found, before) = (self.assess(key, piece), *piece);
        self.expect(now, key, &before, &found);
        self.pieces.set_need(now, key, found.need);
        let stand = self.pieces.stand(key);
        let kept = before.need == found.need || (before.need.is_short() && found.need.is_short());
        let Some(piece) = self.pieces.get_mut(key) else { return };
        if !kept {
            (piece.ready, piece.placed) = (piece.ready.filter(|ready| ready.instant() > now), None);
        }
        if stand == Stand::Busy {
            // The job assesses it when it ends.
            return;
        }
        let turn = self.turn_of(now, key, &found);
        let still_short = found.need.is_short() && turn.is_some();
        if before.need.is_short() && before.ready.is_some() && !still_short {
            self.counters.abandoned += 1;
        }
        match turn {
            None => self.pieces.rest(key),
            // Whether a piece in doubt has any holder is not known, so it comes before all others.
            Some(at) if at <= now => self.pieces.enqueue(key, if before.in_doubt { 0 } else { found.live }),
            Some(at) => self.pieces.wait(key, at),
        }
    }

    /// Updates which nodes are expected to hold a piece.
    fn expect(&mut self, now: Instant, key: &Key, before: &Piece, found: &Assessment) {
        let shared = |own: bool, expected: u64| if own { expected } else { 0 };
        let (old, new) = (shared(before.own, before.expected), shared(found.own, found.expected));
        if let Some(piece) = self.pieces.get_mut(key) {
            (piece.own, piece.expected) = (found.own, found.expected);
        }
        for index in bits(old & !new) {
            if let Some(slot) = self.neighbours.get_mut(index) {
                slot.shared = slot.shared.saturating_sub(1);
            }
        }
        for index in bits(new & !old) {
            let Some(slot) = self.neighbours.get_mut(index) else { continue };
            slot.shared += 1;
            if before.confirmed & (1 << index) == 0 && slot.session.is_none() && !slot.stale && !slot.grown {
                slot.grown = true;
                self.reconcile_soon(now, index);
            }
        }
    }

    /// When it is this node's turn to act on a piece; `None` while there is nothing that it could do.
    fn turn_of(&mut self, now: Instant, key: &Key, found: &Assessment) -> Option<Instant> {
        let config = &self.config;
        let masks = &self.neighbours.masks;
        let (spread, rank_wait) = (self.spread(key), config.rank_wait);
        let (urgent_after, settle) = (config.urgent_after, config.settle);
        let (surplus_after, interval) = (config.surplus_after, config.reconcile_interval);
        let piece = self.pieces.get_mut(key)?;
        let since = piece.since;
        if found.need == Need::Whole || (found.need.is_short() && found.missing | found.substitutes == 0) {
            piece.ready = None;
            return None;
        }
        let ready = piece.ready.get_or_insert(Ready::at(now)).instant();
        Some(match found.need {
            Need::Whole => return None,
            Need::Missing | Need::Urgent => {
                let holders = piece.confirmed & masks.trusted & masks.there;
                let rank = self.neighbours.rank(key, holders);
                let base = if found.missing != 0 { ready } else { ready.max(since + urgent_after) };
                base + rank_wait * rank + rank_wait.mul_f64(spread / 3.0)
            }
            Need::Surplus => {
                // The holders that replace this copy must have been live for as long as it is kept: identities are free, and time
                // is not.
                let youngest = self.neighbours.youngest(found.expected).unwrap_or(since);
                ready.max(since.max(youngest) + surplus_after) + rank_wait.mul_f64(spread)
            }
            // The holders that are left act first.
            Need::Stray if piece.in_doubt => {
                ready.max(since + urgent_after + rank_wait * 2) + rank_wait.mul_f64(spread / 3.0)
            }
            Need::Stray => ready.max(since + settle) + interval.mul_f64(spread),
        })
    }

    /// A number from 0 to 1, constant for a piece at this node, and different at each node.
    fn spread(&self, key: &Key) -> f64 {
        (xxh3_64_with_seed(&key.0, self.salt) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Takes no step for a piece before `at`.
    pub(super) fn put_off(&mut self, key: &Key, at: Instant) {
        if let Some(piece) = self.pieces.get_mut(key) {
            piece.ready = Some(Ready::at(at));
        }
    }

    /// Schedules a sweep for `at`, or keeps an earlier one.
    pub(super) fn sweep_at(&mut self, at: Instant) {
        self.sweep_due = Some(self.sweep_due.map_or(at, |before| before.min(at)));
    }

    /// When the next piece is assessed.
    pub(super) fn review_deadline(&self) -> Option<Instant> {
        let sweep = if self.sweep.is_some() { Some(Instant::ZERO) } else { self.sweep_due };
        crate::time::earliest(sweep, self.pieces.next_due())
    }

    /// Assesses some of the due pieces, and continues a sweep.
    pub(super) fn review_some(&mut self, now: Instant) {
        for _ in 0..DUE_SLICE {
            let Some(key) = self.pieces.pop_due(now) else { break };
            self.review(now, &key);
        }
        if self.sweep.is_none() && self.sweep_due.take_if(|at| *at <= now).is_some() {
            self.sweep = Some(Sweep { depth: u64::BITS, after: None, clears: self.neighbours.to_clear() });
        }
        let Some(mut sweep) = self.sweep.take() else { return };
        let mut left = SWEEP_SLICE;
        loop {
            let (from, to) = shell(number(&self.own.key()), sweep.depth);
            let keys = self.pieces.some(&from, sweep.after.as_ref(), &to, left);
            for key in &keys {
                if let Some(piece) = self.pieces.get_mut(key) {
                    for index in bits(piece.confirmed & piece.expected & sweep.clears) {
                        if let Some(slot) = self.neighbours.get_mut(index).filter(|_| piece.own) {
                            slot.had += 1;
                        }
                    }
                    piece.confirmed &= !sweep.clears;
                }
                self.review(now, key);
            }
            left -= keys.len();
            if left == 0 {
                sweep.after = keys.last().copied().or(sweep.after);
                self.sweep = Some(sweep);
                return;
            }
            if sweep.depth == 0 {
                break;
            }
            (sweep.depth, sweep.after) = (sweep.depth - 1, None);
        }
        self.swept(now, sweep.clears);
    }

    /// A sweep ended: freed slots may be assigned again, and neighbours that came or returned are compared with.
    fn swept(&mut self, now: Instant, clears: u64) {
        let somebody_waits = self.neighbours.cleared(now, clears);
        for index in bits(clears) {
            let Some(slot) = self.neighbours.get_mut(index) else { continue };
            if slot.shared > 0 {
                self.reconcile_soon(now, index);
            } else {
                // There is nothing to compare: what is known is current.
                slot.checked = true;
            }
        }
        self.neighbours.refresh(now);
        if somebody_waits {
            let (given, complete) = self.neighbours.given();
            self.set_neighbourhood(now, &given, complete);
        }
    }
}

/// The keys that share exactly `depth` leading bits (up to 64) with a number.
fn shell(own: u64, depth: u32) -> (Key, Key) {
    if depth >= u64::BITS {
        return super::compare::bounds(own, own);
    }
    let bit = 1 << (u64::BITS - 1 - depth);
    let first = (own ^ bit) & !(bit - 1);
    super::compare::bounds(first, first | (bit - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_cover_the_key_space_once_nearest_first() {
        let own = 0x0123_4567_89ab_cdef;
        let mut all: u128 = 0;
        for depth in (0..=64).rev() {
            let (from, to) = shell(own, depth);
            let (first, last) = (number(&from), number(&to));
            all += u128::from(last - first) + 1;
            for inside in [first, last] {
                assert_eq!((inside ^ own).leading_zeros(), depth);
            }
        }
        assert_eq!(all, 1 << 64);
    }
}

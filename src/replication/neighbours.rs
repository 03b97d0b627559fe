//! The neighbours that share pieces with this node, each in one of 64 slots, and which of them are nearest to a key.
//!
//! A piece's sets of neighbours are bitmaps over the slots. When a slot is freed, its bits remain in the pieces until a sweep has
//! cleared them; only then is the slot assigned again.

use super::reconcile::Session;
use crate::id::{Key, NodeId};
use crate::peers::liveness::Liveness;
use crate::peers::party::Parties;
use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;

/// The largest number of neighbours.
pub const SLOTS_MAX: usize = 64;

/// A neighbour that has lost no copies for so long starts anew.
const LOSSES_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// One of the nearest members, as membership passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its id, key and address.
    pub contact: Contact,
    /// Its liveness, as membership sees it. One that was not contacted does not count.
    pub liveness: Liveness,
    /// Since when it has had this liveness.
    pub since: Instant,
}

/// The state of one neighbour.
pub(super) struct Slot {
    pub(super) contact: Contact,
    pub(super) liveness: Liveness,
    /// Since when it has had this liveness.
    since: Instant,
    /// Whether it has been live for long enough to count as a holder.
    settled: bool,
    /// Whether the pieces' bits for this slot are outdated. They are cleared before they count again.
    pub(super) stale: bool,
    /// Whether it has been compared with since it came, returned or settled, or no piece needed a comparison.
    pub(super) checked: bool,
    /// The number of pieces of which both it and this node are holders.
    pub(super) shared: u32,
    /// Whether pieces became shared recently and a comparison is scheduled for them.
    pub(super) grown: bool,
    /// When the next comparison is due.
    pub(super) reconcile_at: Option<Instant>,
    /// The earliest time of the next comparison.
    pub(super) quiet_until: Instant,
    /// Failed comparisons in a row.
    pub(super) failures: u32,
    pub(super) session: Option<Session>,
    /// The transaction number of the question that it has not answered.
    pub(super) asked: Option<u64>,
    /// Until when it is passed over, because it refused a copy: other nodes get copies in its place.
    passed_until: Option<Instant>,
    refusals: u32,
    /// Until when it gets no copies, because one broke off or it did not say whether it has a piece.
    pub(super) held_until: Instant,
    broken: u32,
    /// Offers in a row for which it had no room.
    busy: u32,
    /// The copies that it was known to have, when what was known of them was discarded.
    pub(super) had: u32,
    /// How often it has lost copies lately, and when it last did.
    losses: u32,
    lost_at: Instant,
    /// The work that it may still request, in visited pieces. One answer may cost more than is left: the debt is earned back before
    /// the next answer.
    credit: Bucket,
}

/// The neighbourhood as sets of slots, for decisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Masks {
    /// Members that count as holders.
    pub(super) eligible: u64,
    /// Live, without suspects.
    pub(super) live: u64,
    /// Live or suspect.
    pub(super) there: u64,
    /// Unresponsive.
    pub(super) silent: u64,
    /// Compared with, so that what is known of their pieces is current.
    pub(super) trusted: u64,
    /// Passed over: they refuse copies for now.
    pub(super) passed: u64,
    /// Inside the part of the key space that this node knows completely.
    ball: u64,
}

/// The nodes nearest to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chosen {
    /// The neighbours among them.
    pub(super) mask: u64,
    /// Whether this node is one of them.
    pub(super) own: bool,
}

impl Chosen {
    pub(super) fn count(&self) -> u32 {
        self.mask.count_ones() + u32::from(self.own)
    }
}

/// What a change of the neighbourhood shows.
#[derive(Default)]
pub(super) struct Changes {
    /// Neighbours that became unresponsive.
    pub(super) vanished: Vec<NodeId>,
    /// Neighbours that are live or suspect.
    pub(super) there: Vec<NodeId>,
}

/// The neighbourhood.
pub(super) struct Neighbours {
    own: NodeId,
    settle: Duration,
    told_apart: Parties,
    slots: Vec<Option<Slot>>,
    /// Freed slots whose bits have not been cleared yet.
    pub(super) dirty: u64,
    /// Whether neighbours wait for a slot.
    waiting: bool,
    given: Vec<Neighbour>,
    complete: bool,
    /// The part of the key space that this node knows completely: keys that share at least this many bits with its id.
    covered: u32,
    pub(super) masks: Masks,
    /// Whether holders may have changed since the last call of [`take_change`](Neighbours::take_change).
    changed: bool,
}

impl Neighbours {
    pub(super) fn new(own: NodeId, settle: Duration, told_apart: Parties) -> Self {
        Neighbours {
            own,
            settle,
            told_apart,
            slots: (0..SLOTS_MAX).map(|_| None).collect(),
            dirty: 0,
            waiting: false,
            given: Vec::new(),
            complete: false,
            covered: 257,
            masks: Masks::default(),
            changed: false,
        }
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Slot)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| Some((index, slot.as_mut()?)))
    }

    pub(super) fn find(&self, id: &NodeId) -> Option<usize> {
        self.iter().find(|(_, slot)| slot.contact.id == *id).map(|(index, _)| index)
    }

    /// The number of neighbours that count, silent ones included.
    pub(super) fn counted(&self) -> usize {
        self.iter().filter(|(_, slot)| slot.settled).count()
    }

    /// Sets the neighbourhood as membership sees it, nearest first.
    pub(super) fn set(&mut self, now: Instant, given: &[Neighbour], complete: bool) -> Changes {
        let mut changes = Changes::default();
        let as_before = self.given.as_slice() == given && self.complete == complete && !self.waiting;
        if as_before {
            return changes;
        }
        self.waiting = false;
        self.changed |= complete != self.complete;
        self.complete = complete;
        self.given.clear();
        let counts = |neighbour: &&Neighbour| neighbour.contact.id != self.own;
        self.given.extend(given.iter().filter(counts).take(SLOTS_MAX));
        self.drop_absent();
        for neighbour in core::mem::take(&mut self.given).iter() {
            self.given.push(*neighbour);
            if neighbour.liveness == Liveness::Unproven {
                continue;
            }
            match self.find(&neighbour.contact.id) {
                Some(index) => self.update(now, index, neighbour, &mut changes),
                None => self.admit(now, neighbour, &mut changes),
            }
        }
        let farthest = self.given.iter().map(|neighbour| neighbour.contact.id);
        let shared = farthest.map(|id| id.key().common_prefix(&self.own.key())).min();
        let covered = shared.map_or(257, |shared| shared + 1);
        self.changed |= covered != self.covered;
        self.covered = covered;
        self.refresh(now);
        changes
    }

    /// Frees the slots of neighbours that are not named any more.
    fn drop_absent(&mut self) {
        for index in 0..SLOTS_MAX {
            let Some(slot) = &self.slots[index] else { continue };
            let named = |neighbour: &Neighbour| {
                neighbour.contact.id == slot.contact.id && neighbour.liveness != Liveness::Unproven
            };
            if !self.given.iter().any(named) {
                self.slots[index] = None;
                self.dirty |= 1 << index;
                self.changed = true;
            }
        }
    }

    fn update(&mut self, now: Instant, index: usize, neighbour: &Neighbour, changes: &mut Changes) {
        let Some(slot) = &mut self.slots[index] else { return };
        slot.contact = neighbour.contact;
        let (before, after) = ((slot.liveness, slot.since), (neighbour.liveness, neighbour.since));
        if before == after {
            return;
        }
        self.changed = true;
        (slot.liveness, slot.since) = after;
        let ((was, from), (is, since)) = (before, after);
        if !is.is_there() {
            // Identities are free. Only a neighbour that stayed for a while says something about this node's own link.
            if was.is_there() && slot.settled {
                changes.vanished.push(slot.contact.id);
            }
            (slot.session, slot.reconcile_at) = (None, None);
            return;
        }
        changes.there.push(slot.contact.id);
        // It was away, or has restarted: what it said before may be outdated.
        let restarted = was == Liveness::Live && is == Liveness::Live && since > from;
        if !was.is_there() || restarted {
            (slot.stale, slot.checked, slot.session) = (true, false, None);
            slot.quiet_until = now;
        }
    }

    fn admit(&mut self, now: Instant, neighbour: &Neighbour, changes: &mut Changes) {
        let free = |index: &usize| self.slots[*index].is_none() && self.dirty & (1 << index) == 0;
        let Some(index) = (0..SLOTS_MAX).find(free) else {
            self.waiting = true;
            return;
        };
        self.changed = true;
        if neighbour.liveness.is_there() {
            changes.there.push(neighbour.contact.id);
        }
        self.slots[index] = Some(Slot {
            contact: neighbour.contact,
            liveness: neighbour.liveness,
            since: neighbour.since,
            settled: false,
            stale: true,
            checked: false,
            shared: 0,
            grown: false,
            reconcile_at: None,
            quiet_until: now,
            failures: 0,
            session: None,
            asked: None,
            passed_until: None,
            refusals: 0,
            held_until: now,
            broken: 0,
            busy: 0,
            had: 0,
            losses: 0,
            lost_at: now,
            credit: Bucket::FULL,
        });
    }

    /// A sweep has cleared the bits in `cleared`. Returns whether neighbours waited for a slot.
    pub(super) fn cleared(&mut self, now: Instant, cleared: u64) -> bool {
        self.dirty &= !cleared;
        for (index, slot) in self.iter_mut() {
            if cleared & (1 << index) != 0 {
                slot.stale = false;
            }
        }
        self.refresh(now);
        self.waiting
    }

    /// The neighbourhood as it was last set, to be set again.
    pub(super) fn given(&self) -> (Vec<Neighbour>, bool) {
        (self.given.clone(), self.complete)
    }

    /// The slots whose bits must be cleared.
    pub(super) fn to_clear(&self) -> u64 {
        self.iter().filter(|(_, slot)| slot.stale).fold(self.dirty, |mask, (index, _)| mask | 1 << index)
    }

    /// Applies the passage of time: newcomers settle, refusals end.
    pub(super) fn refresh(&mut self, now: Instant) {
        let (own, settle, covered) = (self.own.key(), self.settle, self.covered);
        let mut masks = Masks::default();
        let mut settled = false;
        for (index, slot) in self.iter_mut() {
            let bit = 1 << index;
            if !slot.settled && slot.liveness == Liveness::Live && now >= slot.since + settle {
                (slot.settled, slot.stale, slot.checked) = (true, true, false);
                settled = true;
            }
            if slot.passed_until.is_some_and(|until| until <= now) {
                slot.passed_until = None;
            }
            let set = |mask: &mut u64, when: bool| *mask |= if when { bit } else { 0 };
            set(&mut masks.eligible, slot.settled);
            set(&mut masks.live, slot.liveness == Liveness::Live);
            set(&mut masks.there, slot.liveness.is_there());
            set(&mut masks.silent, !slot.liveness.is_there());
            set(&mut masks.trusted, slot.checked && !slot.stale);
            set(&mut masks.passed, slot.passed_until.is_some());
            set(&mut masks.ball, slot.contact.id.key().common_prefix(&own) >= covered);
        }
        self.changed |= settled || masks != self.masks;
        self.masks = masks;
    }

    /// Whether holders may have changed since the last call.
    pub(super) fn take_change(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// When [`refresh`](Neighbours::refresh) will change something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let settling = |slot: &Slot| !slot.settled && slot.liveness == Liveness::Live;
        let settles =
            self.iter().filter(|(_, slot)| settling(slot)).map(|(_, slot)| slot.since + self.settle);
        settles.chain(self.iter().filter_map(|(_, slot)| slot.passed_until)).min()
    }

    /// It refused a copy: other nodes get copies in its place for `first`, longer after each refusal, up to twelve times as long.
    pub(super) fn pass_over(&mut self, now: Instant, slot: usize, first: Duration) {
        if let Some(slot) = self.get_mut(slot) {
            slot.passed_until = Some(now + first * (1 << slot.refusals.min(4)).min(12));
            slot.refusals += 1;
        }
        self.refresh(now);
    }

    /// A copy to it broke off, or it does not say whether it has a piece: it gets none for `first`, longer each time, up to eight
    /// times as long.
    pub(super) fn hold(&mut self, now: Instant, slot: usize, first: Duration) {
        if let Some(slot) = self.get_mut(slot) {
            slot.held_until = now + first * (1 << slot.broken.min(3));
            slot.broken += 1;
        }
    }

    /// It had no room for a copy. If that happens too often in a row, it gets none for `first`, longer each time, so that it does
    /// not delay copies to others.
    pub(super) fn was_busy(&mut self, now: Instant, slot: usize, first: Duration) {
        const BUSY_MAX: u32 = 8;
        let Some(known) = self.get_mut(slot) else { return };
        known.busy += 1;
        if known.busy >= BUSY_MAX {
            known.busy = 0;
            self.hold(now, slot, first);
        }
    }

    /// A comparison shows that it has lost copies. Once is an accident: disks fail, and it is refilled at once. After each further
    /// loss within [`LOSSES_FORGOTTEN`] it gets no copies for a while: for `first`, longer each time, up to 64 times as long. So a
    /// node whose storage does not last cannot use up the uplinks of its neighbourhood.
    pub(super) fn lost(&mut self, now: Instant, slot: usize, first: Duration) {
        let Some(slot) = self.get_mut(slot) else { return };
        if now >= slot.lost_at + LOSSES_FORGOTTEN {
            slot.losses = 0;
        }
        if let Some(more) = slot.losses.checked_sub(1) {
            slot.held_until = slot.held_until.max(now + first * (1 << more.min(6)));
        }
        (slot.losses, slot.lost_at) = (slot.losses.saturating_add(1), now);
    }

    /// It accepted a copy.
    pub(super) fn took(&mut self, slot: usize) {
        if let Some(slot) = self.get_mut(slot) {
            (slot.refusals, slot.broken, slot.busy) = (0, 0, 0);
        }
    }

    /// The `count` nearest to `key` among the slots in `mask` and this node.
    pub(super) fn closest(&self, key: &Key, count: usize, mask: u64) -> Chosen {
        let count = count.min(SLOTS_MAX + 1);
        let mut nearest = [(0, 0); SLOTS_MAX + 1];
        let mut length = 0;
        let mut left = mask;
        let mut next = Some(SLOTS_MAX);
        while let Some(index) = next {
            let distance = self.leading_distance(index, key);
            let before = |&(other, slot): &(u64, usize)| {
                other < distance
                    || (other == distance && self.id_at(slot).distance(key) < self.id_at(index).distance(key))
            };
            // Most are farther than all nodes kept so far.
            if length < count || nearest[..length].last().is_some_and(|last| !before(last)) {
                let place = nearest[..length].partition_point(before);
                length = (length + 1).min(count);
                if place < length {
                    nearest[place..length].rotate_right(1);
                    nearest[place] = (distance, index);
                }
            }
            next = (left != 0).then(|| left.trailing_zeros() as usize);
            left &= left.wrapping_sub(1);
        }
        let mut chosen = Chosen { mask: 0, own: false };
        for (_, index) in &nearest[..length] {
            match *index {
                SLOTS_MAX => chosen.own = true,
                index => chosen.mask |= 1 << index,
            }
        }
        chosen
    }

    /// The slot in `mask` that is nearest to `key`.
    pub(super) fn nearest(&self, key: &Key, mask: u64) -> Option<usize> {
        bits(mask).min_by_key(|index| self.id_at(*index).distance(key))
    }

    /// The number of neighbours in `mask` that are nearer to `key` than this node.
    pub(super) fn rank(&self, key: &Key, mask: u64) -> u32 {
        let own = self.own.distance(key);
        bits(mask).filter(|index| self.id_at(*index).distance(key) < own).count() as u32
    }

    /// Whether the nodes `chosen` as the `count` holders of `key` are certainly the nearest in the network. All nodes that share more
    /// bits with this one than its farthest neighbour does are known, and they are nearer than any other to a key that does so, too.
    pub(super) fn is_certain(&self, key: &Key, chosen: Chosen, count: usize) -> bool {
        let inside =
            key.common_prefix(&self.own.key()) >= self.covered && chosen.mask & !self.masks.ball == 0;
        self.complete || (inside && chosen.count() as usize == count)
    }

    /// Since when the one in `mask` is live that has been live for the shortest time.
    pub(super) fn youngest(&self, mask: u64) -> Option<Instant> {
        let live = bits(mask).filter_map(|index| self.get(index));
        live.filter(|slot| slot.liveness == Liveness::Live).map(|slot| slot.since).max()
    }

    /// The number of parties that the nodes in `mask` belong to.
    pub(super) fn parties(&self, mask: u64) -> usize {
        let slots = bits(mask).filter_map(|index| self.get(index));
        let mut parties: Vec<_> =
            slots.map(|slot| self.told_apart.of(&slot.contact.id, slot.contact.addr)).collect();
        parties.sort_unstable();
        parties.dedup();
        parties.len()
    }

    fn leading_distance(&self, slot: usize, key: &Key) -> u64 {
        let leading = |bytes: &[u8; 32]| bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        leading(&self.id_at(slot).0) ^ leading(&key.0)
    }

    fn id_at(&self, slot: usize) -> NodeId {
        self.get(slot).map_or(self.own, |slot| slot.contact.id)
    }

    /// Whether a neighbour may request more work, at this rate.
    pub(super) fn has_credit(&self, now: Instant, slot: usize, rate: &Rate) -> bool {
        self.get(slot).is_some_and(|slot| slot.credit.available(now, rate) > 0)
    }

    /// Charges work, in visited pieces, to a neighbour.
    pub(super) fn charge(&mut self, now: Instant, slot: usize, rate: &Rate, pieces: u64) {
        if let Some(slot) = self.get_mut(slot) {
            slot.credit.spend(now, rate, pieces);
        }
    }
}

/// The slots in a set.
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let index = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        index
    })
}

//! The rounds in which one record is stored at the nodes closest to its key: the progress of the present round, and the time of the
//! next. The record itself (a provider record, a value record) belongs to the caller.
//!
//! There is one placement for each announced file, so it is small: nodes of the latest round are known by 16-bit fingerprints. If
//! two nodes share a fingerprint, a round comes early or a copy counts as lost; the next round corrects both.

use crate::id::{Key, NodeId};
use crate::peers::party::{Level, Parties};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use core::num::NonZeroU32;

/// The number of nodes that keep a record: the closest to its key, including the publisher if it is one of them.
pub(super) const COPIES: usize = 8;
/// With fewer copies than this, a round comes before the next regular one.
const COPIES_FEW: u32 = COPIES as u32 / 2;
/// The pause after the first round. A new node knows little of the network, so its first rounds come quickly.
const FIRST_PAUSE: Duration = Duration::from_secs(600);
/// The pause after a first round in which too few nodes took the record.
const FAILED_PAUSE: Duration = Duration::from_secs(30);
/// The shortest pause between two rounds, however many nodes come and go.
const PAUSE_MIN: Duration = Duration::from_secs(15);

/// Whether one party has most of the `nearest` nodes to a key although `others`, known nodes anywhere, belong to other parties. Then
/// only a lookup tells which nodes are to keep a record under the key.
pub(super) fn is_crowded(
    nearest: &[Contact],
    mut others: impl Iterator<Item = Contact>,
    parties: Parties,
) -> bool {
    let site = |contact: &Contact| parties.of(&contact.id, contact.addr).at(Level::Site);
    let mut sites: Vec<_> = nearest.iter().map(site).collect();
    sites.sort_unstable();
    let most = sites.chunk_by(|a, b| a == b).max_by_key(|same| same.len());
    most.is_some_and(|same| 2 * same.len() > COPIES && others.any(|other| site(&other) != same[0]))
}

/// Ticks in a second.
const TICKS: u64 = 4;

/// An instant with a resolution of a quarter of a second, in four bytes. The last one is 34 years after the origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tick(NonZeroU32);

impl Tick {
    /// The first tick at or after an instant.
    pub(super) fn not_before(instant: Instant) -> Tick {
        Tick::numbered(instant.as_nanos().div_ceil(1_000_000_000 / TICKS))
    }

    /// The last tick at or before an instant: everything that is scheduled for it is due.
    pub(super) fn passed(instant: Instant) -> Tick {
        Tick::numbered(instant.as_nanos() / (1_000_000_000 / TICKS))
    }

    pub(super) fn instant(self) -> Instant {
        Instant::from_nanos(u64::from(self.0.get() - 1) * (1_000_000_000 / TICKS))
    }

    fn numbered(number: u64) -> Tick {
        let number = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        Tick(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
    }
}

/// The stage of a placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The next round is due at this time.
    Scheduled(Tick),
    /// The round is due, and waits for its turn.
    Due,
    /// The round waits for a lookup of the closest nodes.
    Looking,
    /// The round waits for answers.
    Sending,
}

/// The list that a record is on, of those that its owner keeps: what is to be done with it next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// Its round is due.
    Due,
    /// Its next round is due at this time.
    Scheduled(Tick),
    /// Its round has ended.
    Settled,
    /// It is on no list: it waits for a lookup or for answers.
    None,
}

/// The placement of one record.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) stage: Stage,
    /// The earliest time of the next round.
    not_before: Tick,
    /// When the next round is due because a node came or went during the present one.
    hastened: Option<Tick>,
    /// The distance of the farthest target of the latest round: its first word. The maximum when there are no targets.
    farthest: u64,
    /// The targets of the latest round, by their fingerprints.
    targets: [u16; COPIES],
    targeted: u8,
    /// One bit for each target that keeps the record.
    holders: u8,
    /// One bit for each target that has departed since.
    gone: u8,
    /// The number of outstanding answers.
    pending: u8,
    rounds: u8,
    failures: u8,
    /// Whether this node is one of the closest and keeps a copy itself.
    pub(super) here: bool,
    /// Whether the record has changed since the round began.
    again: bool,
    /// Whether the record was ever sent to a node.
    told: bool,
}

const _: () = assert!(size_of::<Placement>() <= 56, "there is one for each shared file");

impl Placement {
    /// A placement whose first round is due at `at`.
    pub(super) fn new(at: Instant) -> Self {
        Placement::at(Stage::Scheduled(Tick::not_before(at)))
    }

    /// A placement whose first round is due now.
    pub(super) fn due() -> Self {
        Placement::at(Stage::Due)
    }

    /// A placement at the given stage.
    pub(super) fn at(stage: Stage) -> Self {
        Placement {
            stage,
            not_before: Tick::passed(Instant::ZERO),
            hastened: None,
            farthest: u64::MAX,
            targets: [0; COPIES],
            targeted: 0,
            holders: 0,
            gone: 0,
            pending: 0,
            rounds: 0,
            failures: 0,
            here: false,
            again: false,
            told: false,
        }
    }

    /// The list that the record is on.
    pub(super) fn list(&self) -> List {
        match self.stage {
            Stage::Due => List::Due,
            Stage::Scheduled(at) => List::Scheduled(at),
            _ if self.is_settled() => List::Settled,
            Stage::Looking | Stage::Sending => List::None,
        }
    }

    /// The number of known copies.
    pub(super) fn copies(&self) -> u32 {
        self.holders.count_ones() + u32::from(self.here)
    }

    /// Whether a node was ever sent the record, so that a withdrawal must be sent.
    pub(super) fn was_told(&self) -> bool {
        self.told
    }

    /// When the next round becomes due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Scheduled(at) => Some(at.instant()),
            _ => None,
        }
    }

    /// Makes the round due if its time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.stage = Stage::Due;
        }
    }

    /// The record has changed: the next round is at `next`, or due after the present one.
    pub(super) fn changed(&mut self, next: Stage) {
        match self.stage {
            Stage::Scheduled(_) => self.stage = next,
            Stage::Sending => self.again = true,
            Stage::Due | Stage::Looking => {}
        }
    }

    /// A node is alive: a round is due `soon` if the node should keep a copy.
    pub(super) fn consider(&mut self, key: &Key, node: &NodeId, soon: Tick) {
        let there = self.targeted - self.gone.count_ones() as u8;
        let full = usize::from(there) + usize::from(self.here) >= COPIES;
        let near = node.distance(key).first_word() < self.farthest;
        if (!full || near) && self.position(node, !self.gone).is_none() {
            self.hasten(soon);
        }
    }

    /// A node departed: a round is due `soon` if too few copies remain.
    pub(super) fn lost(&mut self, node: &NodeId, soon: Tick) {
        let Some(position) = self.position(node, !self.gone) else { return };
        self.gone |= 1 << position;
        let kept = self.holders & 1 << position != 0;
        self.holders &= !(1 << position);
        if kept && self.copies() < COPIES_FEW {
            self.hasten(soon);
        }
    }

    /// The round goes to `targets`, nearest first. `here` tells whether this node keeps a copy itself.
    pub(super) fn begin(&mut self, key: &Key, targets: &[Contact], here: bool) {
        let targets = &targets[..targets.len().min(COPIES)];
        self.stage = Stage::Sending;
        self.here = here;
        self.farthest = targets.last().map_or(u64::MAX, |contact| contact.id.distance(key).first_word());
        for (target, contact) in self.targets.iter_mut().zip(targets) {
            *target = fingerprint(&contact.id);
        }
        self.targeted = targets.len() as u8;
        (self.holders, self.gone) = (0, 0);
        self.pending = self.targeted;
        self.told |= !targets.is_empty();
    }

    /// The record is withdrawn at `targets` nodes.
    pub(super) fn begin_withdrawal(&mut self, targets: usize) {
        self.stage = Stage::Sending;
        (self.here, self.targeted, self.holders, self.gone) = (false, 0, 0, 0);
        self.pending = u8::try_from(targets).unwrap_or(u8::MAX);
    }

    /// A target answered or failed. `kept` tells whether it keeps a copy. Returns whether the record has now, and had not before, as
    /// many copies as lookups need to find it: see [`is_findable`](Placement::is_findable).
    pub(super) fn settle(&mut self, node: &NodeId, kept: bool) -> bool {
        let before = self.is_findable();
        self.pending = self.pending.saturating_sub(1);
        if let Some(position) = self.position(node, !self.holders).filter(|_| kept) {
            self.holders |= 1 << position;
        }
        !before && self.is_findable()
    }

    /// Whether half of the nodes that should keep the record do so in the present round, other nodes among them. A lookup asks all of
    /// them, so it finds the record. The caller need not wait for silent ones.
    pub(super) fn is_findable(&self) -> bool {
        let keepers = u32::from(self.targeted) + u32::from(self.here);
        self.stage == Stage::Sending && !self.again && self.holders != 0 && 2 * self.copies() >= keepers
    }

    /// Whether a round has ended, successful or not, and the next has not begun.
    pub(super) fn has_ended_round(&self) -> bool {
        (self.rounds > 0 || self.failures > 0) && self.deadline().is_some()
    }

    /// Whether every target has answered or failed.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Sending && self.pending == 0
    }

    /// Ends the round and schedules the next, at most `pause_max` later. Returns whether it is due at once.
    pub(super) fn finish(&mut self, now: Instant, pause_max: Duration, rng: &mut Rng) -> bool {
        self.not_before = Tick::not_before(now + PAUSE_MIN);
        if core::mem::take(&mut self.again) {
            self.stage = Stage::Due;
            return true;
        }
        let pause = if self.holders.count_ones() < COPIES_FEW.min(u32::from(self.targeted).max(1)) {
            let pause = FAILED_PAUSE * (1 << self.failures.min(16));
            self.failures = self.failures.saturating_add(1);
            pause
        } else {
            let pause = FIRST_PAUSE * 4u32.pow(u32::from(self.rounds.min(8)));
            (self.failures, self.rounds) = (0, self.rounds.saturating_add(1));
            pause
        };
        let pause = pause.min(pause_max);
        self.stage = Stage::Scheduled(Tick::not_before(now + rng.duration(pause - pause / 10, pause)));
        if let Some(soon) = self.hastened.take() {
            self.hasten(soon);
        }
        false
    }

    fn hasten(&mut self, soon: Tick) {
        match &mut self.stage {
            Stage::Scheduled(at) => *at = (*at).min(soon.max(self.not_before)),
            _ => self.hastened = Some(soon),
        }
    }

    /// The first target with this node's fingerprint whose bit is set in `among`.
    fn position(&self, node: &NodeId, among: u8) -> Option<usize> {
        let wanted = fingerprint(node);
        let targets = &self.targets[..usize::from(self.targeted)];
        targets.iter().enumerate().position(|(index, target)| *target == wanted && among >> index & 1 == 1)
    }
}

/// The last two bytes of a node's id: the targets of one key share the first bytes.
fn fingerprint(node: &NodeId) -> u16 {
    u16::from_le_bytes([node.0[30], node.0[31]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const KEY: Key = Key([0; 32]);

    /// A contact at distance `place` of [`KEY`].
    fn contact(place: u8) -> Contact {
        Contact { id: NodeId([place; 32]), public: PublicKey([place; 32]), addr: ([127, 0, 0, 1], 1).into() }
    }

    fn placed(places: &[u8]) -> Placement {
        let mut placement = Placement::new(Instant::ZERO);
        placement.fire(Instant::ZERO);
        let targets: Vec<_> = places.iter().map(|&place| contact(place)).collect();
        placement.begin(&KEY, &targets, false);
        targets.iter().for_each(|target| _ = placement.settle(&target.id, true));
        assert!(placement.is_settled());
        placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
        placement
    }

    #[test]
    fn one_party_crowds_the_nearest_nodes_only_if_other_parties_exist() {
        let at = |number: u8, ip: [u8; 4]| Contact::new(PublicKey([number; 32]), (ip, 3583).into());
        let same = |count: u8| (1..=count).map(|number| at(number, [31, 1, 1, number]));
        let differing = |count: u8| (1..=count).map(|number| at(100 + number, [32, 1, number, 1]));
        let crowded = |same: Vec<Contact>, others: Vec<Contact>| {
            is_crowded(&same, same.iter().copied().chain(others), Parties::ByAddress)
        };
        assert!(crowded(same(8).collect(), differing(1).collect()));
        assert!(crowded(same(5).chain(differing(3)).collect(), vec![]));
        assert!(!crowded(same(4).chain(differing(4)).collect(), vec![]), "half of them is no majority");
        assert!(!crowded(same(8).collect(), vec![]), "a network of one party");
        let nearest: Vec<Contact> = same(8).collect();
        assert!(!is_crowded(&nearest, differing(9), Parties::ByNode), "each node is a party");
    }

    #[test]
    fn pauses_between_rounds_grow_up_to_the_regular_interval() {
        let mut placement = placed(&[1, 2, 3]);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let at = placement.deadline().unwrap();
            pauses.push(at.as_secs() / 60);
            placement.begin(&KEY, &[contact(1)], false);
            placement.settle(&contact(1).id, true);
            placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
        }
        assert!(
            (9..10).contains(&pauses[0]) && (36..40).contains(&pauses[1]) && (54..60).contains(&pauses[2])
        );
    }

    #[test]
    fn a_round_that_reached_few_nodes_comes_again_soon_and_ever_more_rarely_while_it_does_not_help() {
        let pause_after = |placement: &mut Placement, targets: u8, holders: u8| {
            let targets: Vec<_> = (1..=targets).map(contact).collect();
            placement.begin(&KEY, &targets, false);
            for (place, target) in (1..).zip(&targets) {
                placement.settle(&target.id, place <= holders);
            }
            placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
            placement.deadline().unwrap().as_secs()
        };
        let mut placement = Placement::due();
        assert!((27..=30).contains(&pause_after(&mut placement, 8, 3)));
        assert!((54..=60).contains(&pause_after(&mut placement, 8, 0)));
        assert!((540..=600).contains(&pause_after(&mut placement, 8, 4)), "four of eight are enough");
        assert!((27..=30).contains(&pause_after(&mut placement, 8, 1)));
        let mut small = Placement::due();
        assert!((540..=600).contains(&pause_after(&mut small, 2, 2)), "there are only two");
    }

    #[test]
    fn a_nearer_node_hastens_the_next_round_and_a_farther_one_does_not() {
        let mut placement = placed(&[1, 2, 3, 4, 5, 6, 7, 9]);
        let (regular, soon) = (placement.deadline(), Instant::from_secs(20));
        let tick = Tick::not_before(soon);
        placement.consider(&KEY, &contact(10).id, tick);
        placement.consider(&KEY, &contact(3).id, tick);
        assert_eq!(placement.deadline(), regular);
        placement.consider(&KEY, &contact(8).id, tick);
        assert_eq!(placement.deadline(), Some(soon));
    }

    #[test]
    fn losing_half_of_the_copies_hastens_the_next_round() {
        let mut placement = placed(&[1, 2, 3, 4, 5]);
        let (regular, soon) = (placement.deadline(), Instant::from_secs(20));
        let tick = Tick::not_before(soon);
        placement.lost(&contact(1).id, tick);
        placement.lost(&contact(1).id, tick);
        assert_eq!(placement.deadline(), regular, "four are enough, and a node is lost once");
        placement.lost(&contact(2).id, tick);
        assert_eq!(placement.deadline(), Some(soon));
        assert_eq!(placement.copies(), 3);
    }

    #[test]
    fn a_lost_node_that_returns_hastens_the_next_round() {
        let mut placement = placed(&[1, 2, 3, 4, 5, 6, 7, 9]);
        let soon = Tick::not_before(Instant::from_secs(20));
        placement.lost(&contact(3).id, soon);
        assert_eq!(placement.copies(), 7);
        placement.consider(&KEY, &contact(3).id, soon);
        assert_eq!(placement.deadline(), Some(soon.instant()));
    }

    #[test]
    fn a_tick_is_a_quarter_of_a_second_and_saturates() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        assert_eq!(Tick::not_before(at(1001)).instant(), at(1250));
        assert_eq!(Tick::not_before(at(1250)).instant(), at(1250));
        assert_eq!(Tick::passed(at(1249)).instant(), at(1000));
        let last = Tick::not_before(Instant::from_nanos(u64::MAX));
        assert!(
            last.instant() > Instant::from_secs(33 * 365 * 86_400) && last >= Tick::passed(last.instant())
        );
    }

    #[test]
    fn a_record_is_findable_when_half_of_its_keepers_have_it_and_is_so_once() {
        let targets: Vec<_> = (1..=7).map(contact).collect();
        let mut placement = Placement::due();
        placement.begin(&KEY, &targets, true);
        let findable: Vec<bool> = targets.iter().map(|target| placement.settle(&target.id, true)).collect();
        assert_eq!(findable, [false, false, true, false, false, false, false], "three others and this node");
        placement.begin(&KEY, &targets, false);
        assert!(!placement.is_findable(), "a round begins anew");
        targets[..3].iter().for_each(|target| _ = placement.settle(&target.id, true));
        assert!(!placement.settle(&targets[4].id, false), "it keeps nothing");
        assert!(placement.settle(&targets[3].id, true));
        placement.changed(Stage::Due);
        assert!(!placement.is_findable(), "the record that they have is out of date");
    }

    #[test]
    fn a_change_during_a_round_is_sent_in_the_next() {
        let mut placement = placed(&[1]);
        placement.begin(&KEY, &[contact(1)], true);
        placement.changed(Stage::Due);
        assert_eq!(placement.stage, Stage::Sending);
        placement.settle(&contact(1).id, true);
        placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
        assert_eq!(placement.stage, Stage::Due);
        assert_eq!(placement.copies(), 2);
    }
}

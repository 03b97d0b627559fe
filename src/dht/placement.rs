//! Where something that this node publishes is kept, and when it is to be published again. What is placed (a provider
//! record, a value record) is the caller's business.

use super::LookupId;
use crate::id::{Distance, Key, NodeId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;

/// How many nodes keep a record: the closest to its key, the publisher included when it is one of them.
pub(super) const COPIES: usize = 8;
/// Fewer copies than this are too few to wait for the next regular round.
const COPIES_FEW: usize = COPIES / 2;
/// Nodes that were told over time, so that they can be told otherwise.
const TOLD_MAX: usize = 3 * COPIES;
/// The pause after the first round. A young node knows little of the network, so its first rounds come quickly.
const FIRST_PAUSE: Duration = Duration::from_secs(600);
/// The pause after the first round in which nobody took it.
const FAILED_PAUSE: Duration = Duration::from_secs(30);
/// The least pause between two rounds, however many nodes come and go.
const PAUSE_MIN: Duration = Duration::from_secs(15);

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The next round is due at this time.
    Scheduled(Instant),
    /// It is due and waits for its turn.
    Due,
    /// It waits for this lookup to say where to.
    Looking(LookupId),
    /// It waits for answers.
    Sending,
}

/// The placement of one record.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) stage: Stage,
    /// Whether this node is one of the closest and keeps a copy itself.
    pub(super) here: bool,
    /// The nodes of the latest round and where the farthest of them lies.
    targets: Vec<NodeId>,
    farthest: Option<Distance>,
    /// Those of them that said they keep it.
    holders: Vec<NodeId>,
    told: Vec<Contact>,
    pending: usize,
    again: bool,
    /// Somebody came or went while a round was under way: the next is due then.
    hastened: Option<Instant>,
    rounds: u32,
    failures: u32,
    not_before: Instant,
}

impl Placement {
    /// A first round is due at `at`.
    pub(super) fn new(at: Instant) -> Self {
        Placement {
            stage: Stage::Scheduled(at),
            here: false,
            targets: Vec::new(),
            farthest: None,
            holders: Vec::new(),
            told: Vec::new(),
            pending: 0,
            again: false,
            hastened: None,
            rounds: 0,
            failures: 0,
            not_before: Instant::ZERO,
        }
    }

    /// Copies that are known to be kept.
    pub(super) fn copies(&self) -> u32 {
        (self.holders.len() + usize::from(self.here)) as u32
    }

    /// Everybody who was told.
    pub(super) fn told(&self) -> &[Contact] {
        &self.told
    }

    /// When a round becomes due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Scheduled(at) => Some(at),
            _ => None,
        }
    }

    /// Makes the round due when its time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.stage = Stage::Due;
        }
    }

    /// What is placed has changed: the next round is due at once, or after the present one.
    pub(super) fn changed(&mut self) {
        match self.stage {
            Stage::Scheduled(_) => self.stage = Stage::Due,
            Stage::Sending => self.again = true,
            Stage::Due | Stage::Looking(_) => {}
        }
    }

    /// A node is there: a round is due soon when it should keep a copy.
    pub(super) fn consider(&mut self, key: &Key, contact: &Contact, soon: Instant) {
        let full = self.targets.len() + usize::from(self.here) >= COPIES;
        let near = self.farthest.is_none_or(|farthest| contact.id.distance(key) < farthest);
        if (!full || near) && !self.targets.contains(&contact.id) {
            self.hasten(soon);
        }
    }

    /// A node is gone: a round is due soon when too few copies remain.
    pub(super) fn lost(&mut self, id: &NodeId, soon: Instant) {
        self.targets.retain(|target| target != id);
        let before = self.holders.len();
        self.holders.retain(|holder| holder != id);
        if self.holders.len() < before && self.holders.len() + usize::from(self.here) < COPIES_FEW {
            self.hasten(soon);
        }
    }

    /// The round goes to `targets`, nearest first; `here` when this node keeps a copy itself.
    pub(super) fn begin(&mut self, key: &Key, targets: &[Contact], here: bool) {
        self.stage = Stage::Sending;
        self.here = here;
        self.targets = targets.iter().map(|contact| contact.id).collect();
        self.farthest = targets.last().map(|contact| contact.id.distance(key));
        self.holders.clear();
        self.pending = targets.len();
        for contact in targets {
            self.told.retain(|told| told.id != contact.id);
            if self.told.len() == TOLD_MAX {
                self.told.remove(0);
            }
            self.told.push(*contact);
        }
    }

    /// What is placed is taken back: the round goes to everybody who was told. Of the present round `unsent` will not
    /// be sent.
    pub(super) fn begin_withdrawal(&mut self, unsent: usize) {
        let in_flight = if self.stage == Stage::Sending { self.pending.saturating_sub(unsent) } else { 0 };
        self.stage = Stage::Sending;
        self.here = false;
        self.again = false;
        self.holders.clear();
        self.pending = self.told.len() + in_flight;
    }

    /// A target has answered (`kept`: it keeps a copy) or failed.
    pub(super) fn settle(&mut self, id: &NodeId, kept: bool) {
        self.pending = self.pending.saturating_sub(1);
        if kept && !self.holders.contains(id) {
            self.holders.push(*id);
        }
    }

    /// Whether a round has ended, however it went, and the next is not under way.
    pub(super) fn has_ended_round(&self) -> bool {
        self.rounds + self.failures > 0 && self.deadline().is_some()
    }

    /// Whether every target has answered or failed.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Sending && self.pending == 0
    }

    /// Ends the round and schedules the next, at most `pause_max` away. True when it is due at once.
    pub(super) fn finish(&mut self, now: Instant, pause_max: Duration, rng: &mut Rng) -> bool {
        self.not_before = now + PAUSE_MIN;
        if core::mem::take(&mut self.again) {
            self.stage = Stage::Due;
            return true;
        }
        let pause = if self.holders.is_empty() {
            let pause = FAILED_PAUSE * (1 << self.failures.min(16));
            self.failures += 1;
            pause
        } else {
            let pause = FIRST_PAUSE * 4u32.pow(self.rounds.min(8));
            (self.failures, self.rounds) = (0, self.rounds + 1);
            pause
        };
        let pause = pause.min(pause_max);
        self.stage = Stage::Scheduled(now + rng.duration(pause - pause / 10, pause));
        if let Some(soon) = self.hastened.take() {
            self.hasten(soon);
        }
        false
    }

    fn hasten(&mut self, soon: Instant) {
        match &mut self.stage {
            Stage::Scheduled(at) => *at = (*at).min(soon.max(self.not_before)),
            _ => self.hastened = Some(soon),
        }
    }
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
        targets.iter().for_each(|target| placement.settle(&target.id, true));
        assert!(placement.is_settled());
        placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
        placement
    }

    #[test]
    fn rounds_get_rarer_up_to_the_regular_interval() {
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
    fn a_nearer_node_hastens_the_next_round_and_a_farther_one_does_not() {
        let mut placement = placed(&[1, 2, 3, 4, 5, 6, 7, 9]);
        let (regular, soon) = (placement.deadline(), Instant::from_secs(20));
        placement.consider(&KEY, &contact(10), soon);
        placement.consider(&KEY, &contact(3), soon);
        assert_eq!(placement.deadline(), regular);
        placement.consider(&KEY, &contact(8), soon);
        assert_eq!(placement.deadline(), Some(soon));
    }

    #[test]
    fn losing_half_of_the_copies_hastens_the_next_round() {
        let mut placement = placed(&[1, 2, 3, 4, 5]);
        let (regular, soon) = (placement.deadline(), Instant::from_secs(20));
        placement.lost(&contact(1).id, soon);
        assert_eq!(placement.deadline(), regular);
        placement.lost(&contact(2).id, soon);
        assert_eq!((placement.deadline(), placement.copies()), (Some(soon), 3));
    }

    #[test]
    fn a_change_while_sending_is_sent_afterwards() {
        let mut placement = placed(&[1]);
        placement.begin(&KEY, &[contact(1)], true);
        placement.changed();
        assert_eq!(placement.stage, Stage::Sending);
        placement.settle(&contact(1).id, true);
        placement.finish(Instant::ZERO, Duration::from_secs(3600), &mut Rng::new([0; 32]));
        assert_eq!((placement.stage, placement.copies()), (Stage::Due, 2));
    }
}

//! Invariant 6.

use crate::sim::observe::Observer;
use crate::sim::report::Check;
use crate::sim::world::World;
use crate::time::{Duration, Instant};

/// The share of live nodes that must know a state.
const SHARE: f64 = 0.999;

/// A state that spreads through the network.
pub struct Spread {
    subject: usize,
    sequence: u64,
    since: Instant,
    interval: Duration,
}

impl Spread {
    /// To be called when a host's state has just changed. `None` when its node does not run or shows no sequence number.
    /// `interval` is the time of one round.
    pub fn begin(world: &World, observer: &Observer, subject: usize, interval: Duration) -> Option<Spread> {
        let sequence = (observer.own_sequence)(world.hosts[subject].node()?)?;
        Some(Spread { subject, sequence, since: world.now(), interval })
    }

    /// Of the live nodes that keep any state of the subject, the share that knows this one. A view is bounded: in a larger
    /// network no node keeps the states of all others.
    pub fn share(&self, world: &World, observer: &Observer) -> f64 {
        let id = world.id(self.subject);
        let live = world.hosts.iter().filter_map(|host| host.node());
        let known = live.filter_map(|node| (observer.known_sequence)(node, &id));
        let (keep, know) = known
            .fold((0u64, 0u64), |(keep, know), known| (keep + 1, know + u64::from(known >= self.sequence)));
        know as f64 / keep.max(1) as f64
    }

    /// Rounds since the change.
    pub fn rounds(&self, world: &World) -> f64 {
        world.now().since(self.since).as_secs_f64() / self.interval.as_secs_f64()
    }

    /// Whether enough nodes know the state.
    pub fn is_over(&self, world: &World, observer: &Observer) -> bool {
        self.share(world, observer) >= SHARE
    }
}

/// The number of rounds allowed for a network of this size.
pub fn rounds_max(nodes: usize) -> f64 {
    (1.5 * (nodes.max(2) as f64).log2()).ceil()
}

/// The check of the rounds that each state took: infinity for a state that never arrived.
pub fn check(nodes: usize, rounds: &[f64]) -> Check {
    let most = rounds.iter().copied().fold(0.0, f64::max);
    let allowed = rounds_max(nodes);
    let found = format!("{most:.1} rounds at the most, {allowed} allowed");
    Check::new(6, "states reach 99.9 % of all nodes", rounds.len() as u64, most <= allowed, found)
}

//! Invariant 6: after an outage the network is connected again.

use crate::sim::observe::{Observer, View};
use crate::sim::report::Check;
use crate::sim::world::World;
use crate::time::{Duration, Instant};

/// The number of connected parts of the network of live nodes. An edge joins two nodes if one of them sees the other as live.
pub fn parts(world: &World, observer: &Observer) -> usize {
    let up: Vec<usize> = world.up().collect();
    let sees = |from: usize, to: usize| {
        let node = world.hosts[from].node();
        node.and_then(|node| (observer.view)(node, &world.id(to))) == Some(View::Live)
    };
    let mut waiting = up;
    let mut parts = 0;
    while let Some(first) = waiting.pop() {
        parts += 1;
        let mut reached = vec![first];
        while let Some(host) = reached.pop() {
            let (near, far) = waiting.into_iter().partition(|other| sees(host, *other) || sees(*other, host));
            waiting = far;
            reached.extend::<Vec<usize>>(near);
        }
    }
    parts
}

/// Measures the time until a network is one again.
pub struct Reunion {
    since: Instant,
    took: Option<Duration>,
}

impl Reunion {
    /// To be called when the outage has just ended.
    pub fn begin(world: &World) -> Self {
        Reunion { since: world.now(), took: None }
    }

    /// Notes the time when the network has become one.
    pub fn look(&mut self, world: &World, observer: &Observer) {
        if self.took.is_none() && parts(world, observer) == 1 {
            self.took = Some(world.now().since(self.since));
        }
    }

    /// Whether it was one network within `limit`.
    pub fn check(&self, limit: Duration) -> Check {
        let found = match self.took {
            Some(took) => format!("one network after {} s, {} s allowed", took.as_secs(), limit.as_secs()),
            None => "still in parts".to_owned(),
        };
        let holds = self.took.is_some_and(|took| took <= limit);
        Check::new(6, "the network is one again after an outage", 1, holds, found)
    }
}

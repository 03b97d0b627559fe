//! Invariant 4.

use crate::sim::report::Check;
use crate::sim::world::World;
use core::net::SocketAddr;

/// The effects of replayed packets.
#[derive(Clone, Debug, Default)]
pub struct Replays {
    /// Packets replayed.
    pub count: u64,
    /// Of those, packets that changed what a node knows.
    pub effects: u64,
    /// The first of these.
    pub first: Option<String>,
}

impl Replays {
    /// Replays a packet and notes whether it changes the number of peers, records or providers that the node knows.
    pub fn play(&mut self, world: &mut World, host: usize, from: SocketAddr, bytes: &[u8]) {
        let known = |world: &mut World| {
            world.status(host).map(|status| (status.peers, status.records, status.providers))
        };
        let before = known(world);
        world.inject(host, from, bytes);
        let after = known(world);
        if before.is_none() || after.is_none() {
            return;
        }
        self.count += 1;
        if before != after {
            self.effects += 1;
            let kind = bytes.get(1).copied().unwrap_or_default();
            self.first
                .get_or_insert_with(|| format!("kind {kind} at host {host}: {before:?} became {after:?}"));
        }
    }

    /// The check.
    pub fn check(&self) -> Check {
        let found = match &self.first {
            Some(first) => format!("{} had a second effect; {first}", self.effects),
            None => "no second effect".to_owned(),
        };
        Check::new(4, "no packet has two effects", self.count, self.effects == 0, found)
    }
}

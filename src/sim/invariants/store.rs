//! Invariant 9, at the level of disk operations.

use crate::sim::report::Check;
use crate::sim::world::World;

/// Whether as many pieces are on a node's disk as the node counts, on up to a hundred hosts.
pub fn check(world: &mut World) -> Check {
    let hosts = world.honest();
    let step = hosts.len().div_ceil(100).max(1);
    let (mut pieces, mut differing) = (0, Vec::new());
    for host in hosts.into_iter().step_by(step) {
        let Some(status) = world.status(host) else { continue };
        let there = world.hosts[host].disk.pieces().count();
        pieces += there as u64;
        // While a piece is being written or deleted, the node's count and the disk's differ.
        if world.hosts[host].disk.is_idle() && there != status.pieces as usize {
            differing.push((host, status.pieces, there));
        }
    }
    let found = match differing.first() {
        Some((host, counts, there)) => format!("host {host} counts {counts} pieces and has {there}"),
        None => format!("{pieces} pieces"),
    };
    Check::new(9, "what a node counts is on its disk", pieces, differing.is_empty(), found)
}

//! Invariant 2.

use crate::sim::report::Check;
use crate::sim::workload::Workload;
use crate::sim::world::World;

/// Checks every answer that a user got, and every piece on an honest host's disk.
pub fn check(world: &World, work: &Workload) -> Check {
    let answers = work.gets.done + work.gets.wrong + work.lookups.done + work.lookups.wrong + work.puts.done;
    let wrong = work.gets.wrong + work.lookups.wrong + work.puts.wrong;
    let (mut pieces, mut bad) = (0, 0);
    for host in world.hosts.iter().filter(|host| host.is_honest()) {
        let (looked, found) = host.disk.verify_pieces();
        (pieces, bad) = (pieces + looked, bad + found);
    }
    let found = format!("{answers} answers and {pieces} pieces on disks, {wrong} and {bad} of them wrong");
    Check::new(2, "only verified bytes are served", answers + pieces, wrong + bad == 0, found)
}

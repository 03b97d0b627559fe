//! Invariant 3.

use crate::sim::report::Check;
use crate::sim::watch::AMPLIFICATION_MAX;
use crate::sim::world::World;

/// The bytes that went to unvalidated addresses, and whether any node spun.
pub fn amplification(world: &World) -> Check {
    let watch = &world.watch;
    let most = watch.amplification_max as f64 / 1000.0;
    let found = match watch.violations.first() {
        Some(first) => format!("{} violations; {first}", watch.violation_count),
        None => format!("at most {most:.2} bytes for one"),
    };
    Check::new(3, "3 bytes for one to unproven addresses", watch.answers, watch.violation_count == 0, found)
}

/// Whether all hosts together sent at most 3 bytes to the counted address for each of the `bytes` that named it to them.
pub fn reflection(world: &World, bytes: u64) -> Check {
    let sent = world.watch.counted();
    let found = format!("{sent} bytes to the victim for {bytes}");
    Check::new(3, "3 bytes for one to addresses that were named", 1, sent <= bytes * AMPLIFICATION_MAX, found)
}

/// Whether tables stay within their bounds, on up to a hundred hosts.
pub fn tables(world: &mut World) -> Check {
    let hosts: Vec<usize> = world.honest();
    let step = hosts.len().div_ceil(100).max(1);
    let limits = world.plan.limits.clone();
    let (mut count, mut over, mut dropped, mut out) = (0, Vec::new(), 0, 0);
    for host in hosts.into_iter().step_by(step) {
        let Some(status) = world.status(host) else { continue };
        count += 1;
        dropped += status.counters.get("datagrams_dropped").copied().unwrap_or_default();
        out += status.counters.get("datagrams_out").copied().unwrap_or_default();
        let tables = [
            ("records", u64::from(status.records), limits.records_max as u64),
            ("providers", u64::from(status.providers), limits.providers_max as u64),
            ("streams", u64::from(status.streams), limits.streams_max as u64),
            ("pieces", u64::from(status.pieces), limits.pieces_max as u64),
            ("shares", u64::from(status.shares), limits.shares_max as u64),
            ("lookups", u64::from(status.lookups), limits.lookups_max as u64),
            ("stored bytes", status.stored_bytes, limits.quota_bytes),
        ];
        over.extend(
            tables.into_iter().filter(|(_, has, most)| has > most).map(|(name, has, _)| (host, name, has)),
        );
    }
    let found = match over.first() {
        Some((host, name, has)) => format!("host {host} has {has} {name}"),
        None => format!("{count} nodes; {dropped} of their {out} datagrams found no room in the outbox"),
    };
    Check::new(3, "tables keep to their bounds", count, over.is_empty(), found)
}

//! Outages of many nodes at once. Afterwards the nodes find each other without a bootstrap address.

use crate::sim::disk::Crash;
use crate::sim::invariants::{lookup, unity::Reunion};
use crate::sim::stage::{Options, Outcome, Stage};
use crate::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// The time within which the parts of a network must find each other.
const REUNION_MAX: Duration = MINUTE;

/// Runs the network for a minute and a half, and measures when it is one network again.
fn reunite(stage: &mut Stage) {
    let mut reunion = Reunion::begin(&stage.world);
    for _ in 0..90 {
        stage.run_for(Duration::from_secs(1));
        reunion.look(&stage.world, &stage.observer);
    }
    stage.report.checks.push(reunion.check(REUNION_MAX));
}

/// Half of the network is partitioned off for longer than silent members are kept, and each node restarts meanwhile without
/// a bootstrap address. The halves find each other through the contacts that the nodes saved in their last runs.
pub(super) fn long_partition(options: &Options) -> Outcome {
    const FAR: u8 = 1;
    let mut stage = Stage::new("long-partition", options, |_| ());
    stage.fill(4, 20);
    let mut hosts = stage.world.honest();
    stage.world.chance.shuffle(&mut hosts);
    for &host in &hosts[..hosts.len() / 2] {
        stage.world.links.port_mut(host).side = FAR;
    }
    let cut = |stage: &mut Stage, cut: bool| {
        stage.world.links.block(0, FAR, cut);
        stage.world.links.block(FAR, 0, cut);
    };
    cut(&mut stage, true);
    stage.run_for(MINUTE * 10);
    for &host in &hosts {
        stage.world.hosts[host].config.bootstrap.clear();
        stage.world.shut_down(host);
        stage.run_for(Duration::from_secs(5));
        stage.world.start(host, &[]);
    }
    stage.run_for(MINUTE * 20);
    cut(&mut stage, false);
    reunite(&mut stage);
    stage.run_for(MINUTE * 5);
    stage.each_tick = (8, 1);
    stage.run_for(options.duration.max(MINUTE * 10));
    let check = lookup::check("lookups succeed after the cut has healed", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

/// A site is switched on for the first time, and its power fails 20 s later. Then all nodes start again, in any order, some at
/// another address, and without a bootstrap address.
pub(super) fn site_power(options: &Options) -> Outcome {
    let mut stage = Stage::new("site-power", options, |_| ());
    let mut hosts = stage.world.honest();
    for &host in &hosts {
        stage.world.crash(host, Crash::Power);
        stage.world.wipe(host);
    }
    let first = stage.world.links.port(hosts[0]).addr;
    for &host in &hosts {
        stage.world.start(host, if host == hosts[0] { &[] } else { core::slice::from_ref(&first) });
        stage.run_for(Duration::from_secs(2) / hosts.len() as u32);
    }
    stage.run_for(Duration::from_secs(18));
    stage.world.chance.shuffle(&mut hosts);
    for &host in &hosts {
        stage.world.crash(host, Crash::Power);
        stage.world.hosts[host].config.bootstrap.clear();
    }
    stage.run_for(MINUTE);
    for &host in &hosts[..hosts.len() / 5] {
        let chance = &mut stage.world.chance;
        stage.world.links.rebind(host, chance);
    }
    stage.world.chance.shuffle(&mut hosts);
    for &host in &hosts {
        stage.world.start(host, &[]);
        stage.run_for(Duration::from_secs(10) / hosts.len() as u32);
    }
    reunite(&mut stage);
    stage.fill(4, 20);
    stage.each_tick = (8, 1);
    stage.run_for(options.duration.max(MINUTE * 10));
    let check = lookup::check("lookups succeed after the power failure", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

//! Outages of many nodes at once. Afterwards the nodes find each other without a bootstrap address.

use crate::sim::disk::Crash;
use crate::sim::hostile::{Hostility, corrupt};
use crate::sim::invariants::{lookup, unity::Reunion};
use crate::sim::observe::View;
use crate::sim::report::{Check, quantile, sorted};
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

/// The nodes of one LAN start for the first time, and none has an address to join through. Later the power fails, and each node
/// comes back at another address: what it remembers of the others is wrong.
pub(super) fn lan(options: &Options) -> Outcome {
    let mut stage = Stage::new("lan", options, |_| ());
    let mut hosts = stage.world.honest();
    for &host in &hosts {
        stage.world.crash(host, Crash::Power);
        stage.world.wipe(host);
        let config = stage.world.hosts[host].config_mut();
        (config.lan, config.bootstrap) = (true, Vec::new());
        stage.world.links.lans.insert(host, 0);
    }
    let start = |stage: &mut Stage, hosts: &[usize]| {
        for &host in hosts {
            stage.world.start(host, &[]);
            stage.run_for(Duration::from_secs(10) / hosts.len() as u32);
        }
        reunite(stage);
    };
    start(&mut stage, &hosts);
    for &host in &hosts {
        stage.world.crash(host, Crash::Power);
    }
    stage.run_for(MINUTE);
    for &host in &hosts {
        let mut addr = stage.world.links.port(host).addr;
        addr.set_ip(stage.world.links.plan.addressing.ip((stage.world.hosts.len() + host) as u32));
        stage.world.links.readdress(host, addr);
    }
    stage.world.chance.shuffle(&mut hosts);
    start(&mut stage, &hosts);
    stage.fill(4, 20);
    stage.each_tick = (8, 1);
    stage.run_for(options.duration);
    let check = lookup::check("lookups succeed after the power failure", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

/// The link of a node that downloads is down for a while. The download has one source, and goes on as soon as the link is back.
pub(super) fn broken_link(options: &Options) -> Outcome {
    const FAR: u8 = 1;
    const LENGTH: usize = 4 << 20;
    /// Slow enough for a download to be under way when its link fails.
    const BYTES_PER_SECOND: u64 = 160 << 10;
    /// More than a handshake, and half a second of content.
    const FLOWS_BYTES: u64 = 80 << 10;
    const SECONDS: [u64; 6] = [5, 10, 20, 30, 50, 100];
    /// The time within which content must flow again: a probe comes every second, and a full link may drop some of them.
    const FLOWS_WITHIN: f64 = 6.5;
    let mut stage = Stage::new("broken-link", options, |_| ());
    let mut pauses = Vec::new();
    let rounds = (options.duration.as_secs() as usize / 120).clamp(2, 60);
    for round in 0..rounds {
        let hosts = stage.world.honest();
        let (origin, reader) = (hosts[2 * round % hosts.len()], hosts[(2 * round + 1) % hosts.len()]);
        let up = core::mem::replace(&mut stage.world.links.port_mut(origin).up, BYTES_PER_SECOND);
        let file = stage.work.prepare(&mut stage.world, origin, LENGTH);
        stage.work.share(&mut stage.world, &file);
        stage.run_for(Duration::from_secs(15));
        stage.work.get(&mut stage.world, reader, &file);
        stage.run_for(Duration::from_secs(15));
        let cut = |stage: &mut Stage, cut: bool| {
            stage.world.links.port_mut(reader).side = if cut { FAR } else { 0 };
            stage.world.links.block(0, FAR, cut);
            stage.world.links.block(FAR, 0, cut);
        };
        cut(&mut stage, true);
        stage.run_for(Duration::from_secs(SECONDS[round % SECONDS.len()]));
        cut(&mut stage, false);
        let received = |stage: &Stage| stage.world.hosts[reader].traffic.stream_bytes_in;
        let (before, back) = (received(&stage), stage.world.now());
        while received(&stage) < before + FLOWS_BYTES && stage.world.now() < back + MINUTE {
            stage.run_for(Duration::from_millis(100));
        }
        pauses.push(stage.world.now().since(back).as_secs_f64());
        stage.world.links.port_mut(origin).up = up;
        stage.run_for(MINUTE);
    }
    let (pauses, count) = (sorted(pauses), rounds as u64);
    let (median, longest) = (quantile(&pauses, 0.5), quantile(&pauses, 1.0));
    let found = format!("{longest:.1} s after the link's return at most, {median:.1} s in the median");
    let claim = "a download goes on when its link is back";
    stage.report.checks.push(Check::new(8, claim, count, longest <= FLOWS_WITHIN, found));
    let gets = &stage.work.gets;
    let found = format!("{} of {} downloads{}", gets.done, rounds, gets.messages.first().map_or("", |it| it));
    let holds = gets.done == count;
    stage.report.checks.push(Check::new(8, "an outage ends no download", gets.answered(), holds, found));
    stage.finish()
}

/// A fifth of the nodes is behind NATs, and not configured as leaves. They find it out and take part as leaves, so that no other node
/// counts on them. Of the others 30 % connect to no node, and say so to each that asks to be dialled back: these convince none. When their NATs let connections in, they take part like any other.
pub(super) fn hidden(options: &Options) -> Outcome {
    const FOUND_WITHIN: Duration = Duration::from_secs(90);
    const BACK_WITHIN: Duration = Duration::from_secs(180);
    let mut stage = Stage::new("hidden", options, |_| ());
    let hosts = stage.world.honest();
    let (deniers, public) = hosts.split_at(hosts.len() * 3 / 10);
    corrupt(&mut stage.world, deniers, &[Hostility::Denier]);
    let first = stage.world.links.port(public[0]).addr;
    let hidden: Vec<usize> = (0..(public.len() / 4).max(1)).map(|_| stage.world.add_host(true)).collect();
    for &host in &hidden {
        stage.world.hosts[host].config_mut().leaf = false;
        stage.world.start(host, &[first]);
    }
    stage.run_for(FOUND_WITHIN);
    let is_leaf = |stage: &mut Stage, host: usize| stage.world.status(host).is_some_and(|status| status.leaf);
    let found = hidden.iter().filter(|host| is_leaf(&mut stage, **host)).count();
    let told = format!("{found} of {} take part as leaves", hidden.len());
    let claim = "nodes that no node can connect to find it out";
    stage.report.checks.push(Check::new(5, claim, hidden.len() as u64, found == hidden.len(), told));
    let sees = |stage: &Stage, from: usize, to: usize| {
        let node = stage.world.hosts[from].node();
        node.and_then(|node| (stage.observer.view)(node, &stage.world.id(to))) == Some(View::Live)
    };
    let mistaken = public.iter().filter(|from| hidden.iter().any(|to| sees(&stage, **from, *to))).count();
    let told = format!("{mistaken} of {} list one", public.len());
    stage.report.checks.push(Check::new(
        5,
        "no other node lists them",
        public.len() as u64,
        mistaken == 0,
        told,
    ));
    stage.fill(4, 20);
    stage.each_tick = (4, 2);
    stage.run_for(options.duration);
    let check = lookup::check("lookups succeed", &stage.work.lookups, 0.999);
    stage.report.checks.push(check);
    for &host in &hidden {
        stage.world.links.open(host);
    }
    stage.run_for(BACK_WITHIN);
    let left = hidden.iter().filter(|host| is_leaf(&mut stage, **host)).count();
    let told = format!("{left} of {} are leaves still", hidden.len());
    let claim = "nodes that can be connected to again are no leaves";
    stage.report.checks.push(Check::new(5, claim, hidden.len() as u64, left == 0, told));
    stage.finish()
}

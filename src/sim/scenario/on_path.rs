//! Adversaries on the path to honest nodes: what they read, drop and invent costs time, and nothing else.

use crate::sim::disk::Crash;
use crate::sim::host::Life;
use crate::sim::invariants::{fairness, lookup};
use crate::sim::on_path::{Downgrade, Swallow};
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
use crate::sim::world::World;
use crate::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A third of the hosts, chosen at random.
fn a_third(stage: &mut Stage) -> Vec<usize> {
    let mut hosts = stage.world.honest();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate(hosts.len().div_ceil(3));
    hosts
}

/// The sum of a counter over hosts.
pub(super) fn total(world: &mut World, hosts: &[usize], name: &str) -> u64 {
    let of = |host: &usize| Some(world.status(*host)?.counters.get(name).copied().unwrap_or_default());
    hosts.iter().filter_map(of).sum()
}

/// On the path to a third of the nodes, every offer and every record is swallowed and acknowledged. No node counts a copy that does
/// not exist: each file outlives its publisher if its publisher was told that it would, and each value is found.
pub(super) fn swallow(options: &Options) -> Outcome {
    let mut stage = Stage::new("swallow", options, |_| ());
    for host in a_third(&mut stage) {
        let node = stage.world.hosts[host].identity();
        stage.world.set_adversary(host, Box::new(Swallow::new(node)));
    }
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 2);
    let hosts = stage.world.honest();
    let told: u64 = stage.work.values.iter().map(|value| u64::from(value.copies)).sum();
    let kept: u64 = hosts.iter().filter_map(|host| Some(u64::from(stage.world.status(*host)?.records))).sum();
    let refused = total(&mut stage.world, &hosts, "datagrams_refused_mac")
        + total(&mut stage.world, &hosts, "frame_mac");
    let checks = [
        Check::new(10, "acknowledgements are forged", 1, refused > 0, format!("{refused} refused")),
        Check::new(
            10,
            "copies of values that are counted exist",
            told,
            told <= kept,
            format!("{told} of {kept}"),
        ),
    ];
    stage.report.checks.extend(checks);
    stage.each_tick = (10, 0);
    stage.run_for(options.duration);
    let mut certain = stage.work.files.clone();
    certain.retain(|file| stage.work.is_certain(&file.hash));
    for file in certain.into_iter().take(8) {
        if stage.world.hosts[file.origin].life() == Life::Up {
            stage.world.crash(file.origin, Crash::Power);
        }
        let up = stage.world.honest();
        let reader = up[stage.world.chance.index(up.len())];
        stage.work.get(&mut stage.world, reader, &file);
        stage.run_for(Duration::from_secs(20));
    }
    stage.run_for(MINUTE * 2);
    let checks = [
        fairness::unharmed("files outlive their publishers", &stage.work.gets, &Default::default()),
        lookup::check("values are found", &stage.work.lookups, 0.999),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// The share of received datagrams that hosts authenticated by a MAC in this time.
fn cheap(stage: &mut Stage, hosts: &[usize], duration: Duration) -> f64 {
    let counted = |stage: &mut Stage| {
        let macs = total(&mut stage.world, hosts, "macs_verified");
        (macs, total(&mut stage.world, hosts, "datagrams_in"))
    };
    let before = counted(stage);
    stage.run_for(duration);
    let after = counted(stage);
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

/// What challenges leave of that share when this part of all requests with a MAC meets them. An exchange on a clean path is two
/// received datagrams with a MAC: the request and its answer. A challenged one is five without: the challenge, the signed request, its
/// signed answer, and the two late challenges of the adversary. The request with the MAC does not arrive.
fn left_by_challenges(part: f64) -> f64 {
    let clean = 2.0 * (1.0 - part);
    clean / (clean + 5.0 * part)
}

/// On the path to a third of the nodes, every request with a MAC is challenged, so that its sender signs it. Users notice nothing, no
/// key is given up, and MACs are used again when the path is clean.
pub(super) fn downgrade(options: &Options) -> Outcome {
    const WATCHED: Duration = Duration::from_secs(180);
    let mut stage = Stage::new("downgrade", options, |_| ());
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 2);
    stage.each_tick = (10, 1);
    let hosts = stage.world.honest();
    let before = cheap(&mut stage, &hosts, WATCHED);
    let (lookups, gets) = (stage.work.lookups.clone(), stage.work.gets.clone());
    let victims = a_third(&mut stage);
    for &host in &victims {
        let node = stage.world.hosts[host].identity();
        stage.world.set_adversary(host, Box::new(Downgrade::new(node)));
    }
    let during = cheap(&mut stage, &hosts, WATCHED);
    stage.run_for(options.duration);
    let checks = [
        fairness::unharmed("lookups succeed on a path with challenges", &stage.work.lookups, &lookups),
        fairness::unharmed("files are found on a path with challenges", &stage.work.gets, &gets),
        fairness::latency("challenges at most double latencies", &stage.work.lookups, &lookups),
    ];
    stage.report.checks.extend(checks);
    victims.iter().for_each(|host| stage.world.clear_adversary(*host));
    let after = cheap(&mut stage, &hosts, WATCHED);
    // Requests go to all nodes alike.
    let left = before * left_by_challenges(victims.len() as f64 / hosts.len() as f64);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let found = format!(
        "{} cheap before, {} on that path where {} are expected, {} after",
        percent(before),
        percent(during),
        percent(left),
        percent(after)
    );
    let checks = [
        Check::new(
            10,
            "requests with a MAC are challenged",
            1,
            during < (before + left) / 2.0,
            found.clone(),
        ),
        Check::new(10, "challenges cost signatures, and no more", 1, during > left * 0.9, found.clone()),
        // The keys were there all the time: but for the exchanges under way when the path becomes clean, all is as it was.
        Check::new(10, "MACs are used again at once", 1, after > before * 0.98, found),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

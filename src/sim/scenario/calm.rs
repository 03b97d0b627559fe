//! Networks without churn: no node comes or goes.

use crate::gossip::GossipConfig;
use crate::sim::invariants::{detection::FalseEvictions, fairness, lookup};
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, SAMPLE, Stage};
use crate::sim::workload::Stored;
use crate::time::Duration;

/// Everyday use. The nodes soon see each other. Repair has nothing to copy, and no node is declared dead.
pub(super) fn steady(options: &Options) -> Outcome {
    let mut stage = Stage::new("steady", options, |_| ());
    if options.nodes <= GossipConfig::default().view_max {
        let sight = stage.come_in_sight(Duration::from_secs(30));
        stage.report.checks.push(sight);
    }
    stage.fill(options.nodes.clamp(8, 200) / 4, options.nodes.clamp(8, 200) / 4);
    (stage.each_tick, stage.changes_each_tick) = ((4, 1), 2);
    let steady = stage.world.honest();
    let mut evictions = FalseEvictions::default();
    let end = stage.world.now() + options.duration;
    while stage.world.now() < end {
        let pause = SAMPLE.min(end.since(stage.world.now()));
        stage.run_for(pause);
        evictions.look(&stage.world, &stage.observer, &steady);
    }
    let days = options.duration.as_secs_f64() / 86_400.0 * steady.len() as f64;
    stage.report.checks.push(evictions.check(days));
    stage.report.checks.push(lookup::check("lookups succeed", &stage.work.lookups, 0.999));
    stage.report.checks.push(lookup::newest("a lookup shows the newest value", &stage.work.lookups, 0.0));
    stage.finish()
}

/// Everyday use on flash memory whose syncs take two seconds. Files are stored all the same, and no node takes another for dead
/// because its disk is slow.
pub(super) fn slow_flash(options: &Options) -> Outcome {
    const SYNC: Duration = Duration::from_secs(2);
    const BYTES_PER_SECOND: u64 = 2 << 20;
    let mut stage = Stage::new("slow-flash", options, |plan| {
        (plan.disks.sync, plan.disks.bytes_per_second) = (SYNC, BYTES_PER_SECOND);
    });
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 4);
    stage.each_tick = (4, 1);
    let steady = stage.world.honest();
    let mut evictions = FalseEvictions::default();
    let end = stage.world.now() + options.duration;
    while stage.world.now() < end {
        let pause = SAMPLE.min(end.since(stage.world.now()));
        stage.run_for(pause);
        evictions.look(&stage.world, &stage.observer, &steady);
    }
    let days = options.duration.as_secs_f64() / 86_400.0 * steady.len() as f64;
    let checks = [
        evictions.check(days),
        fairness::placed(&stage.work.puts),
        lookup::check("lookups succeed", &stage.work.lookups, 0.999),
        lookup::check("files are found", &stage.work.gets, 0.99),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// All nodes fetch one file within a minute. They get it from each other: the origin sends fewer copies than are fetched. A user
/// whose fetch fails because of a fault tries again.
pub(super) fn flash_crowd(options: &Options) -> Outcome {
    const LENGTH: usize = 8 << 20;
    const PUTS_MAX: u64 = 8;
    let mut stage = Stage::new("flash-crowd", options, |_| ());
    let origin = 0;
    while stage.work.files.is_empty() && stage.work.puts.failed < PUTS_MAX {
        stage.work.put(&mut stage.world, origin, LENGTH, 0);
        stage.run_for(Duration::from_secs(60));
    }
    let before = stage.world.hosts[origin].traffic.stream_bytes_out;
    let hosts: Vec<usize> = (0..options.nodes).filter(|host| *host != origin).collect();
    let mut again = 0;
    if let Some(file) = stage.work.files.first().cloned() {
        let limit = options.duration.max(Duration::from_secs(1800));
        again = fetch_by_all(&mut stage, &file, &hosts, Duration::from_secs(60), limit);
    }
    let sent = (stage.world.hosts[origin].traffic.stream_bytes_out - before) as f64 / LENGTH as f64;
    stage.report.figure("copies sent by the origin", sent);
    stage.report.figure("fetches that were tried again", f64::from(again));
    let tally = &stage.work.gets;
    let found = format!(
        "{} of {} have it, {again} tried again{}",
        tally.done,
        hosts.len(),
        tally.messages.first().map_or(String::new(), |first| format!("; {first}"))
    );
    // Without faults the first try succeeds.
    let may_fail = !options.faults.is_empty() || options.loss > 0.0;
    let holds = tally.done as usize == hosts.len() && (again == 0 || may_fail);
    stage.report.checks.push(Check::new(8, "everyone gets the file", tally.answered(), holds, found));
    stage.finish()
}

/// These hosts fetch a file, one after the other within `spread`. A user whose fetch fails tries again, until `limit` is over. Returns how
/// many times one did.
pub(super) fn fetch_by_all(
    stage: &mut Stage,
    file: &Stored,
    hosts: &[usize],
    spread: Duration,
    limit: Duration,
) -> u32 {
    let pause = spread / hosts.len().max(1) as u32;
    for &host in hosts {
        stage.work.get(&mut stage.world, host, file);
        stage.run_for(pause);
    }
    let (limit, mut again) = (stage.world.now() + limit, 0);
    while stage.world.now() < limit {
        stage.run_for(Duration::from_secs(30));
        let lack = |host: &usize| !stage.work.has_fetched(*host, file);
        let lacking: Vec<usize> = hosts.iter().copied().filter(lack).collect();
        if lacking.is_empty() {
            break;
        }
        let idle = |host: &usize| !stage.work.is_pending_on(*host);
        for host in lacking.into_iter().filter(idle).collect::<Vec<_>>() {
            stage.work.get(&mut stage.world, host, file);
            again += 1;
        }
    }
    again
}

//! One party that puts more than all stores hold, and one that has others keep more than that.

use crate::sim::attack::{fetch, join_raisers};
use crate::sim::chance::Chance;
use crate::sim::invariants::fairness;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
use crate::sim::workload::Tally;
use crate::sim::world::World;
use crate::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// One host puts more than all stores hold. Then others put files: each is placed, at the expense of the first host's, and found.
pub(super) fn hoard(options: &Options) -> Outcome {
    const QUOTA: u64 = 1 << 20;
    const LENGTH: usize = 700_000;
    let nodes = options.nodes.min(60);
    let options = Options { nodes, ..options.clone() };
    let mut stage = Stage::new("hoard", &options, |plan| plan.limits.quota_bytes = QUOTA);
    let hoarder = stage.world.chance.index(nodes);
    let copies = nodes as u64 * QUOTA / LENGTH as u64;
    for _ in 0..copies.div_ceil(2).min(60) {
        stage.work.put(&mut stage.world, hoarder, LENGTH, 3);
        stage.run_for(Duration::from_secs(2));
    }
    stage.run_for(MINUTE * 5);
    let (full, refused) = (counted(&mut stage.world, "refused_over_quota"), stage.work.puts.partial);
    let before = stage.work.puts.clone();
    let others: Vec<usize> = stage.world.honest().into_iter().filter(|host| *host != hoarder).collect();
    let (placed, displaced) = others_put(&mut stage, &options, &others, &before);
    let checks = [
        Check::new(
            10,
            "the hoard fills the stores",
            full,
            full > 0 && refused > 0,
            format!("{full} offers refused"),
        ),
        placed,
        Check::new(10, "pieces give way", 1, displaced > 0, format!("{displaced} pieces")),
        fairness::unharmed("their files are found", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Nodes of one party claim every piece that others keep for 20 copies and a year, until the stores are full. Then others put files:
/// each is placed, and found; and what was kept before is there still.
pub(super) fn raise(options: &Options) -> Outcome {
    const QUOTA: u64 = 1 << 20;
    let nodes = options.nodes.min(60);
    let options = Options { nodes, ..options.clone() };
    let mut stage = Stage::new("raise", &options, |plan| plan.limits.quota_bytes = QUOTA);
    // A third of all space, with three copies of each.
    let count = (nodes as u64 * QUOTA / 3 / 3 / 60_000).max(1);
    for _ in 0..count {
        let host = stage.world.chance.index(nodes);
        stage.work.put(&mut stage.world, host, 60_000, 3);
        stage.run_for(Duration::from_secs(1));
    }
    stage.run_for(MINUTE);
    let (first, others) = (stage.work.files.clone(), stage.world.honest());
    let raisers = join_raisers(&mut stage.world, (nodes / 8).max(2));
    let mut chance = Chance::new(stage.world.chance.u64(), 9);
    for _ in 0..60 {
        for &host in &raisers {
            fetch(&mut stage.world, &stage.work, host, &mut chance);
        }
        stage.run_for(Duration::from_secs(20));
    }
    let honest = stage.world.hosts.iter().filter(|host| host.is_honest());
    let kept = honest.flat_map(|host| host.disk.pieces()).filter(|meta| meta.replicas > 3).count() as u64;
    let full = counted(&mut stage.world, "refused_over_quota");
    let before = stage.work.puts.clone();
    let (placed, displaced) = others_put(&mut stage, &options, &others, &before);
    for file in first.iter().take(20) {
        let host = others[stage.world.chance.index(others.len())];
        stage.work.read(&mut stage.world, host, file);
        stage.run_for(Duration::from_secs(1));
    }
    stage.run_for(MINUTE);
    let found = format!("{kept} copies of raised pieces, {full} offers refused, {displaced} pieces gave way");
    let checks = [
        Check::new(10, "raised pieces fill the stores", kept, kept > 0 && full > 0, found),
        placed,
        fairness::unharmed("all files are found", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Others put files in full stores, and fetch them from others. Returns the check that all were placed, and the pieces that gave way.
fn others_put(stage: &mut Stage, options: &Options, others: &[usize], before: &Tally) -> (Check, u64) {
    let mut files = Vec::new();
    for _ in 0..12 {
        let host = others[stage.world.chance.index(others.len())];
        let mut file = stage.work.prepare(&mut stage.world, host, 40_000);
        file.replicas = 3;
        stage.work.share(&mut stage.world, &file);
        files.push(file);
        stage.run_for(Duration::from_secs(5));
    }
    stage.run_for(options.duration.max(MINUTE * 3));
    let placed = stage.work.puts.done - before.done;
    let short = stage.work.puts.partial - before.partial;
    for file in &files {
        let host = others[stage.world.chance.index(others.len())];
        // Streamed: a full store has no room for a cache.
        stage.work.read(&mut stage.world, host, file);
        stage.run_for(Duration::from_secs(1));
    }
    stage.run_for(MINUTE);
    let found = format!("{placed} of {}, {short} of them short", files.len());
    let all = placed == files.len() as u64 && short == 0;
    let check = Check::new(10, "others are placed in full stores", placed, all, found);
    (check, counted(&mut stage.world, "pieces_displaced"))
}

/// The sum of a counter over all honest hosts.
fn counted(world: &mut World, name: &str) -> u64 {
    let honest = world.honest();
    let statuses = honest.into_iter().filter_map(|host| world.status(host));
    statuses.filter_map(|status| status.counters.get(name).copied()).sum()
}

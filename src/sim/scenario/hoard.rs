//! One party that puts more than all stores hold.

use crate::sim::invariants::fairness;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
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
    let displaced = counted(&mut stage.world, "pieces_displaced");
    let found = format!("{placed} of {}, {short} of them short; {displaced} pieces gave way", files.len());
    let checks = [
        Check::new(
            10,
            "the hoard fills the stores",
            full,
            full > 0 && refused > 0,
            format!("{full} offers refused"),
        ),
        Check::new(
            10,
            "others are placed in full stores",
            placed,
            placed == files.len() as u64 && short == 0 && displaced > 0,
            found,
        ),
        fairness::unharmed("their files are found", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// The sum of a counter over all honest hosts.
fn counted(world: &mut World, name: &str) -> u64 {
    let honest = world.honest();
    let statuses = honest.into_iter().filter_map(|host| world.status(host));
    statuses.filter_map(|status| status.counters.get(name).copied()).sum()
}

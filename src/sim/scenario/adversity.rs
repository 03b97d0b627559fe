//! Hostile nodes: they lie, forge, flood, inflate and replay.

use super::on_path::total;
use crate::claim::UNCLAIMED_SECONDS_MAX;
use crate::id::NodeId;
use crate::io::PieceMeta;
use crate::sim::hostile::{
    Hostility, Inflater, corrupt, flood_with_junk, lose_pieces, network_of, secret_near,
};
use crate::sim::invariants::{lookup, replay::Replays};
use crate::sim::population::bootstrap;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, SAMPLE, Stage};
use crate::sim::world::World;
use crate::time::Duration;
use crate::wire::record::record_key;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Three in ten of all nodes, chosen at random, are hostile. Honest nodes find what honest nodes publish.
pub(super) fn hostile(options: &Options) -> Outcome {
    let mut stage = Stage::new("hostile", options, |_| ());
    let mut hosts: Vec<usize> = stage.world.up().collect();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate(hosts.len() * 3 / 10);
    corrupt(&mut stage.world, &hosts, &Hostility::ALL);
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 2);
    stage.each_tick = (20, 1);
    stage.run_for(options.duration);
    let check = lookup::check("lookups succeed at 30 % hostile nodes", &stage.work.lookups, 0.999);
    stage.report.checks.push(check);
    stage.finish()
}

/// A tenth of all nodes flood the others with wrong signatures. A processor checks 400 signatures in a second.
/// Honest nodes find what honest nodes publish.
pub(super) fn junk(options: &Options) -> Outcome {
    const CHECKS_PER_SECOND: u32 = 400;
    let mut stage = Stage::new("junk", options, |_| ());
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 2);
    stage.world.calibrate(CHECKS_PER_SECOND);
    let mut hosts: Vec<usize> = stage.world.up().collect();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate((hosts.len() / 10).max(1));
    flood_with_junk(&mut stage.world, &hosts);
    stage.each_tick = (20, 1);
    stage.run_for(options.duration);
    let honest = stage.world.honest();
    let refused: u64 = honest.iter().map(|host| over_budget(&mut stage.world, *host)).sum();
    stage.report.figure("signature checks refused to the flood", refused as f64);
    let check = lookup::check("lookups succeed under a flood of junk", &stage.work.lookups, 0.999);
    stage.report.checks.push(check);
    stage.finish()
}

fn over_budget(world: &mut World, host: usize) -> u64 {
    let counters = world.status(host).map(|status| status.counters).unwrap_or_default();
    counters.into_iter().filter(|(name, _)| name == "datagrams_over_budget").map(|(_, count)| count).sum()
}

/// Forty accomplices have generated ids around one key, nearer than any honest node. The value under it was published
/// before they joined, and is published again every hour.
pub(super) fn eclipse(options: &Options) -> Outcome {
    const ACCOMPLICES: usize = 40;
    let mut stage = Stage::new("eclipse", options, |_| ());
    let publisher = stage.world.chance.index(options.nodes);
    stage.work.set_as(&mut stage.world, publisher, "target".to_owned());
    stage.run_for(Duration::from_secs(30));
    let key = record_key(&stage.world.contact(publisher).public, "target");
    // Nearer than the nearest honest node is expected to be, with two bits to spare.
    let bits = (options.nodes as f64).log2().ceil() as u32 + 2;
    let mut hosts = Vec::new();
    for _ in 0..ACCOMPLICES {
        let secret = secret_near(&key, bits, options.real_signatures, &mut stage.world.chance);
        hosts.push(stage.world.add_host_as(secret, false));
    }
    corrupt(&mut stage.world, &hosts, &[Hostility::Liar, Hostility::Forger]);
    for &host in &hosts {
        let others = bootstrap(&mut stage.world, 3);
        stage.world.start(host, &others);
        stage.run_for(Duration::from_secs(5));
    }
    let between = nearest_are_hostile(&stage.world, &hosts, &key);
    stage.report.figure("hostile among the 20 nearest to the key", between as f64);
    stage.each_tick = (10, 0);
    stage.run_for(options.duration);
    let check = lookup::check("lookups succeed against 40 ids around the key", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

/// A fifth of all nodes offer the pieces that others keep, without content, with more copies and a longer lifetime.
/// No piece is kept on more nodes, or for longer, than its publisher signed.
pub(super) fn inflate(options: &Options) -> Outcome {
    const COPIES: u8 = 3;
    let mut stage = Stage::new("inflate", options, |_| ());
    let mut hosts: Vec<usize> = stage.world.up().collect();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate((hosts.len() / 5).max(1));
    stage.fill(options.nodes.clamp(8, 100) / 4, 4);
    let targets: BTreeMap<_, _> =
        stage.world.hosts.iter().flat_map(|host| host.disk.pieces()).map(|meta| (meta.key, *meta)).collect();
    let targets: Rc<[PieceMeta]> = targets.into_values().collect();
    for &host in &hosts {
        let network = network_of(&stage.world, host);
        stage.world.set_adversary(host, Box::new(Inflater::new(network, Rc::clone(&targets))));
    }
    stage.each_tick = (2, 1);
    let end = stage.world.now() + options.duration;
    while stage.world.now() < end {
        let file = stage.world.chance.index(stage.work.files.len().max(1));
        if let Some(file) = stage.work.files.get(file).cloned() {
            hosts.iter().for_each(|&host| stage.work.get(&mut stage.world, host, &file));
        }
        stage.run_for(SAMPLE);
    }
    let honest = stage.world.hosts.iter().filter(|host| host.is_honest());
    let kept: Vec<PieceMeta> = honest.flat_map(|host| host.disk.pieces()).copied().collect();
    let raised = |meta: &&PieceMeta| {
        let lifetime = meta.claim.map_or(UNCLAIMED_SECONDS_MAX, |claim| claim.lifetime());
        meta.replicas > COPIES || meta.expires > stage.world.now().as_secs() + u64::from(lifetime)
    };
    let (looked, raised) = (kept.len() as u64, kept.iter().filter(raised).count());
    let claim = "offers raise nothing that the publisher did not sign";
    let found = format!("{looked} pieces, {raised} of them raised");
    stage.report.checks.push(Check::new(10, claim, looked, raised == 0, found));
    stage.finish()
}

/// Three free identities are nearer to a file than its holders. They take copies, prove that they have them, and lose them. Nothing is
/// dropped on their word: when the surplus time has passed, the file outlives its publisher.
pub(super) fn hollow(options: &Options) -> Outcome {
    const NEWCOMERS: usize = 3;
    const LOST_EVERY: Duration = Duration::from_secs(300);
    let mut stage = Stage::new("hollow", options, |_| ());
    let origin = stage.world.chance.index(options.nodes);
    stage.work.put(&mut stage.world, origin, 40_000, 3);
    stage.fill(4, 4);
    let Some(file) = stage.work.files.first().cloned() else { return stage.finish() };
    let holds = |stage: &Stage, host: usize| stage.world.hosts[host].disk.holds(&file.hash);
    let before: Vec<usize> = stage.world.honest().into_iter().filter(|host| holds(&stage, *host)).collect();
    let bits = (options.nodes as f64).log2().ceil() as u32 + 2;
    let mut hosts = Vec::new();
    for _ in 0..NEWCOMERS {
        let secret = secret_near(&file.hash, bits, options.real_signatures, &mut stage.world.chance);
        let host = stage.world.add_host_as(secret, false);
        let others = bootstrap(&mut stage.world, 3);
        stage.world.start(host, &others);
        hosts.push(host);
    }
    corrupt(&mut stage.world, &hosts, &[Hostility::Hollow]);
    let (mut taken, mut lost) = (0, 0);
    // A surplus copy is dropped an hour after the newcomers were first live, at the earliest.
    let end = stage.world.now() + options.duration.max(Duration::from_secs(3 * 3600));
    while stage.world.now() < end {
        stage.run_for(LOST_EVERY);
        taken += hosts.iter().filter(|host| holds(&stage, **host)).count();
        lose_pieces(&mut stage.world, &hosts);
        lost = lost.max(before.iter().filter(|host| !holds(&stage, **host)).count());
    }
    let honest = stage.world.honest();
    let unproven = total(&mut stage.world, &honest, "repair_unproven");
    let found = format!("{taken} times, {unproven} claims not proven");
    let checks = [
        Check::new(10, "newcomers take copies and lose them", 1, taken > 0, found),
        Check::new(
            10,
            "no holder drops its copy for them",
            before.len() as u64,
            lost == 0,
            format!("{lost} of {} did", before.len()),
        ),
    ];
    stage.report.checks.extend(checks);
    stage.world.crash(file.origin, crate::sim::disk::Crash::Power);
    let readers = stage.world.honest();
    for host in readers.into_iter().filter(|host| !before.contains(host)).take(4) {
        stage.work.get(&mut stage.world, host, &file);
        stage.run_for(Duration::from_secs(5));
    }
    stage.run_for(Duration::from_secs(120));
    let check = lookup::check("the file is found without its publisher", &stage.work.gets, 1.0);
    stage.report.checks.push(check);
    stage.finish()
}

fn nearest_are_hostile(world: &World, hostile: &[usize], key: &crate::id::Key) -> usize {
    let mut all: Vec<(usize, NodeId)> = world.up().map(|host| (host, world.id(host))).collect();
    all.sort_by_key(|(_, id)| id.distance(key));
    all.iter().take(20).filter(|(host, _)| hostile.contains(host)).count()
}

/// The packets that some hosts receive are recorded and replayed: at once, after a suspension, after a restart.
pub(super) fn replay(options: &Options) -> Outcome {
    const RECORDED: usize = 4096;
    let mut stage = Stage::new("replay", options, |_| ());
    stage.fill(8, options.nodes.clamp(8, 100));
    let mut replays = Replays::default();
    let rounds = (options.duration.as_secs() / 600).clamp(1, 48);
    for round in 0..rounds {
        stage.world.record(RECORDED);
        stage.each_tick = (10, 1);
        // Values are published again every hour, so once in six rounds.
        stage.run_for(Duration::from_secs(480));
        let recorded = stage.world.recorded();
        stage.each_tick = (0, 0);
        let victim = recorded.get(stage.world.chance.index(recorded.len())).map_or(0, |(host, ..)| *host);
        match round % 3 {
            0 => stage.run_for(Duration::from_secs(1)),
            1 => {
                stage.world.suspend(victim);
                stage.run_for(Duration::from_secs(300));
                stage.world.resume(victim);
            }
            _ => {
                stage.world.shut_down(victim);
                stage.run_for(Duration::from_secs(60));
                stage.world.start(victim, &[]);
                stage.run_for(Duration::from_secs(60));
            }
        }
        for (host, from, bytes) in recorded {
            let everyone = round % 3 == 0;
            if (everyone || host == victim) && stage.world.hosts[host].is_up() {
                replays.play(&mut stage.world, host, from, &bytes);
                stage.run_for(Duration::from_millis(20));
            }
        }
    }
    stage.report.checks.push(replays.check());
    stage.finish()
}

//! Honest nodes that fail.

use super::calm::fetch_by_all;
use crate::sim::disk::Crash;
use crate::sim::host::Life;
use crate::sim::invariants::{detection::Detection, lookup, repair};
use crate::sim::population::bootstrap;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
use crate::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn filled(name: &str, options: &Options) -> Stage {
    let mut stage = Stage::new(name, options, |_| ());
    stage.fill((options.nodes / 4).clamp(4, 100), 20);
    stage
}

/// Nodes come and go. Then, for half an hour, no node does, and none sleeps or changes its address. Ten crashes on the way are observed from the nearest nodes.
pub(super) fn churn(options: &Options) -> Outcome {
    let mut stage = filled("churn", options);
    (stage.each_tick, stage.changes_each_tick) = ((2, 0), 1);
    let hosts = stage.world.honest();
    stage.begin_churn(&hosts, MINUTE * 120, MINUTE * 30);
    let end = stage.world.now() + options.duration;
    let mut detection = Detection::default();
    let mut next = stage.world.now() + MINUTE * 5;
    while stage.world.now() < end {
        if stage.world.now() >= next {
            next = stage.world.now() + (options.duration / 10).max(MINUTE * 5);
            let up = stage.world.honest();
            if up.len() > 20 {
                let victim = up[stage.world.chance.index(up.len())];
                detection.crashed(&stage.world, victim);
                stage.world.crash(victim, Crash::Power);
            }
        }
        stage.run_for(Duration::from_secs(2));
        detection.look(&stage.world, &stage.observer);
    }
    stage.end_churn();
    stage.run_for(MINUTE * 30);
    let copies = stage.ledger.copies;
    stage.run_for(MINUTE * 10);
    stage.ledger.sample(&mut stage.world);
    let checks = [
        detection.check(),
        repair::economy(&stage.ledger),
        repair::rest(&stage.ledger, copies),
        lookup::check("lookups succeed while nodes come and go", &stage.work.lookups, 0.98),
        lookup::newest("a lookup shows the newest value", &stage.work.lookups, 0.002),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Of all nodes 30 % lose power at one moment; ten minutes later they come back. Meanwhile no piece is left with its last copy for
/// long, and when they have returned, there are not many more copies than were asked for.
pub(super) fn mass_crash(options: &Options) -> Outcome {
    let mut stage = filled("mass-crash", options);
    let mut hosts = stage.world.honest();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate(hosts.len() * 3 / 10);
    for &host in &hosts {
        stage.world.crash(host, Crash::Power);
    }
    stage.run_for(MINUTE * 10);
    stage.report.checks.push(repair::loneliness(&stage.ledger));
    stage.each_tick = (4, 0);
    for &host in &hosts {
        let others = bootstrap(&mut stage.world, 2);
        stage.world.start(host, &others);
        stage.run_for(Duration::from_millis(100));
    }
    let rest = options.duration.max(MINUTE * 30);
    stage.run_for(rest);
    stage.report.checks.push(repair::restraint(&stage.ledger, &stage.world));
    let check = lookup::check("lookups succeed after the crash", &stage.work.lookups, 0.98);
    stage.report.checks.push(check);
    stage.finish()
}

/// A third of the nodes is partitioned off for half an hour. Afterwards the network is one again: what was published on one
/// side is found from both.
pub(super) fn partition(options: &Options) -> Outcome {
    const FAR: u8 = 1;
    let mut stage = filled("partition", options);
    let mut hosts = stage.world.honest();
    stage.world.chance.shuffle(&mut hosts);
    hosts.truncate(hosts.len() / 3);
    for &host in &hosts {
        stage.world.links.port_mut(host).side = FAR;
    }
    let cut = |stage: &mut Stage, cut: bool| {
        stage.world.links.block(0, FAR, cut);
        stage.world.links.block(FAR, 0, cut);
    };
    cut(&mut stage, true);
    stage.run_for(MINUTE * 30);
    stage.report.figure("copies made while cut", stage.ledger.copies as f64);
    cut(&mut stage, false);
    stage.run_for(MINUTE * 20);
    stage.each_tick = (8, 1);
    stage.run_for(options.duration.max(MINUTE * 10));
    let check = lookup::check("lookups succeed after the cut has healed", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

/// Every node restarts once within an hour, and is down for a minute.
pub(super) fn rolling_reboot(options: &Options) -> Outcome {
    let mut stage = filled("rolling-reboot", options);
    settle(&mut stage);
    let hosts = stage.world.honest();
    let restarts = restart_in_turn(&mut stage, &hosts, &[]);
    stage.run_for(options.duration.max(MINUTE * 20));
    stage.ledger.sample(&mut stage.world);
    let other_faults = !options.faults.is_empty() || options.loss > 0.0;
    stage.report.checks.push(repair::stillness(&stage.ledger, restarts, other_faults));
    stage.finish()
}

/// A day of a fleet. In the night every node restarts, and one in fifty never returns. In the morning one node publishes a file, and all
/// others fetch it within ten minutes. Then the day goes on for the duration.
pub(super) fn fleet(options: &Options) -> Outcome {
    const LOST_EACH: usize = 50;
    const LENGTH: usize = 2 << 20;
    /// A user whose put fails because of a fault tries again.
    const PUTS_MAX: usize = 4;
    let mut stage = filled("fleet", options);
    settle(&mut stage);
    let mut hosts = stage.world.honest();
    stage.world.chance.shuffle(&mut hosts);
    let lost: Vec<usize> = hosts.iter().copied().step_by(LOST_EACH).collect();
    restart_in_turn(&mut stage, &hosts, &lost);
    stage.run_for(MINUTE * 30);
    hosts.retain(|host| !lost.contains(host));
    stage.work.forget_values_of(&lost);
    let origin = hosts[0];
    let mut file = None;
    for _ in 0..PUTS_MAX {
        let before = stage.work.files.len();
        stage.work.put(&mut stage.world, origin, LENGTH, 3);
        stage.run_for(MINUTE * 2);
        file = stage.work.files.get(before).cloned();
        if file.is_some() {
            break;
        }
    }
    let readers = &hosts[1..];
    if let Some(file) = &file {
        fetch_by_all(&mut stage, file, readers, MINUTE * 10, MINUTE * 10);
    }
    let has = |host: &&usize| file.as_ref().is_some_and(|file| stage.work.has_fetched(**host, file));
    let fetched = readers.iter().filter(has).count();
    let found = format!("{fetched} of {} have it", readers.len());
    let claim = "all get the file of the day";
    stage.report.checks.push(Check::new(8, claim, readers.len() as u64, fetched == readers.len(), found));
    stage.each_tick = (4, 1);
    stage.run_for(options.duration);
    let checks = [
        repair::economy(&stage.ledger),
        lookup::check("lookups succeed through the day", &stage.work.lookups, 0.99),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Waits until neighbours have compared what they hold, which they do every ten minutes: they may find that a piece is not on its closest
/// nodes. Then counts repairs.
fn settle(stage: &mut Stage) {
    stage.run_for(MINUTE * 25);
    stage.ledger.overlooked = repair::ABSENCE;
    stage.ledger.begin_repair();
}

/// Restarts these hosts one after the other within an hour. Each is down for a minute; the `lost` ones do not return. Returns the number
/// of restarts.
fn restart_in_turn(stage: &mut Stage, hosts: &[usize], lost: &[usize]) -> u64 {
    const RESTART: u64 = 1 << 20;
    for (index, &host) in hosts.iter().enumerate() {
        let at = stage.world.now() + MINUTE * 60 / hosts.len() as u32 * index as u32;
        stage.world.alarm(at, RESTART + host as u64);
    }
    let mut restarts = 0;
    let end = stage.world.now() + MINUTE * 65;
    stage.run_until(end, |stage, alarm| {
        let Some(host) = alarm.checked_sub(RESTART).map(|host| host as usize) else { return };
        match stage.world.hosts[host].life() {
            Life::Down if lost.contains(&host) => {}
            Life::Down => {
                restarts += 1;
                stage.world.start(host, &[]);
            }
            _ => {
                stage.world.shut_down(host);
                stage.world.alarm(stage.world.now() + MINUTE, alarm);
            }
        }
    });
    restarts
}

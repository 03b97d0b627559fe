//! Parties: networks in which all nodes belong to one party, and networks in which one party takes more than its share.

use super::on_path::total;
use crate::sim::attack::{fetch, outsider};
use crate::sim::chance::Chance;
use crate::sim::disk::Crash;
use crate::sim::hostile::{Hostility, corrupt, network_of, secret_near};
use crate::sim::invariants::{bounded, fairness, lookup};
use crate::sim::link::{Addressing, PORT};
use crate::sim::population::bootstrap;
use crate::sim::puppet;
use crate::sim::report::Check;
use crate::sim::reserve::Reserve;
use crate::sim::stage::{Options, Outcome, SAMPLE, Stage};
use crate::sim::world::World;
use crate::time::Duration;
use core::net::SocketAddr;

const MINUTE: Duration = Duration::from_secs(60);

/// All nodes are in one public /24.
pub(super) fn one_prefix(options: &Options) -> Outcome {
    one_party("one-prefix", Addressing::OnePrefix, options)
}

/// All nodes are in one /24 of the shared range.
pub(super) fn one_shared(options: &Options) -> Outcome {
    one_party("one-shared", Addressing::OneShared, options)
}

/// All nodes are in one IPv6 /64.
pub(super) fn one_link(options: &Options) -> Outcome {
    one_party("one-link", Addressing::OneLink, options)
}

/// The nodes see each other, place files, find them, and repair what is lost when one in twenty of them fails.
fn one_party(name: &str, addressing: Addressing, options: &Options) -> Outcome {
    let nodes = options.nodes.min(addressing.hosts_max());
    let options = Options { nodes, ..options.clone() };
    let mut stage = Stage::new(name, &options, |plan| plan.links.addressing = addressing);
    let sight = stage.come_in_sight(MINUTE / 2);
    stage.fill((nodes / 4).clamp(4, 50), (nodes / 4).clamp(4, 50));
    let checks = [sight, fairness::placed(&stage.work.puts)];
    stage.report.checks.extend(checks);
    let mut hosts: Vec<usize> = stage.world.up().collect();
    stage.world.chance.shuffle(&mut hosts);
    for &host in &hosts[..nodes.div_ceil(20)] {
        stage.world.crash(host, Crash::Power);
    }
    stage.each_tick = (4, 2);
    stage.run_for(options.duration.max(MINUTE * 25));
    let least = stage.history.last().map_or(0, |sample| sample.min);
    let checks = [
        Check::new(
            10,
            "what is lost with a node is copied",
            1,
            least >= 3,
            format!("{least} copies or more of each piece"),
        ),
        lookup::check("lookups succeed", &stage.work.lookups, 0.99),
        fairness::unharmed("files are found", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// One address with many identities floods the tables of all nodes with records, under keys near to them. The records of
/// other parties stay, and their new records are accepted.
pub(super) fn erase(options: &Options) -> Outcome {
    const IDENTITIES: usize = 8;
    const PROVIDERS: usize = 256;
    const RECORDS: usize = 64;
    let mut stage = Stage::new("erase", options, |plan| {
        (plan.limits.providers_max, plan.limits.records_max) = (PROVIDERS, RECORDS);
    });
    let publish = |stage: &mut Stage, count: usize| {
        for _ in 0..count {
            let honest = stage.world.honest();
            let host = honest[stage.world.chance.index(honest.len())];
            // Without copies, a file is found by the announcement of its origin only.
            stage.work.put(&mut stage.world, host, 4_000, 0);
            stage.work.set(&mut stage.world, host);
            stage.run_for(Duration::from_secs(1));
        }
        stage.run_for(MINUTE);
    };
    publish(&mut stage, 12);
    let victims = stage.world.honest();
    let flooder = outsider(&mut stage.world);
    let datagrams = (victims.len() * (PROVIDERS / 2 + RECORDS) * 2) as u32;
    let end = stage.world.now() + MINUTE * 2;
    // Each answer brings the next datagram, so a lost one ends an exchange. The flooder begins again until it has sent enough.
    while stage.world.now() < end {
        let left = datagrams.saturating_sub(stage.world.hosts[flooder].traffic.datagrams_out as u32);
        if left > datagrams / 4 {
            puppet::flood(&mut stage.world, flooder, &victims, IDENTITIES, left);
        }
        stage.run_for(Duration::from_secs(10));
    }
    publish(&mut stage, 8);
    stage.run_for(options.duration.max(MINUTE * 2));
    let flooded = stage.world.hosts[flooder].traffic.datagrams_out;
    stage.report.figure("datagrams of the flood", flooded as f64);
    for index in 0..stage.work.values.len() {
        let host = victims[stage.world.chance.index(victims.len())];
        stage.work.lookup(&mut stage.world, host, index);
        stage.run_for(Duration::from_secs(1));
    }
    for file in stage.work.files.clone() {
        let readers: Vec<usize> = victims.iter().copied().filter(|host| *host != file.origin).collect();
        let host = readers[stage.world.chance.index(readers.len())];
        stage.work.get(&mut stage.world, host, &file);
        stage.run_for(Duration::from_secs(1));
    }
    stage.run_for(MINUTE * 2);
    let checks = [
        Check::new(
            10,
            "the flood fills the tables",
            1,
            flooded > u64::from(datagrams) / 2,
            flooded.to_string(),
        ),
        fairness::unharmed("values stay under a flood", &stage.work.lookups, &Default::default()),
        fairness::unharmed("announcements stay under a flood", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Forty nodes of one /24 have ids nearer than any honest node: twenty around the address of a file, twenty around the key of
/// a value. They join before the two are published. They lie, and discard what they accept.
pub(super) fn sybil(options: &Options) -> Outcome {
    const ACCOMPLICES: usize = 20;
    let mut stage = Stage::new("sybil", options, |_| ());
    let origin = stage.world.chance.index(options.nodes);
    let file = stage.work.prepare(&mut stage.world, origin, 4_000);
    let name = "target".to_owned();
    let key = crate::wire::record::record_key(&stage.world.contact(origin).public, &name);
    let bits = (options.nodes as f64).log2().ceil() as u32 + 2;
    let mut hosts = Vec::new();
    for target in [file.hash, key] {
        for _ in 0..ACCOMPLICES {
            let secret = secret_near(&target, bits, options.real_signatures, &mut stage.world.chance);
            let host = stage.world.add_host_as(secret, false);
            let addr = SocketAddr::from(([31, 1, 1, 1 + hosts.len() as u8], PORT));
            stage.world.links.readdress(host, addr);
            hosts.push(host);
        }
    }
    corrupt(&mut stage.world, &hosts, &[Hostility::Liar, Hostility::Forger, Hostility::Dropper]);
    for &host in &hosts {
        let others = bootstrap(&mut stage.world, 3);
        stage.world.start(host, &others);
        stage.run_for(Duration::from_secs(2));
    }
    stage.run_for(MINUTE * 5);
    stage.work.share(&mut stage.world, &file);
    stage.work.set_as(&mut stage.world, origin, name);
    stage.run_for(MINUTE * 2);
    let honest = stage.world.honest();
    for host in honest.into_iter().filter(|host| *host != origin).take(40) {
        if !stage.work.values.is_empty() {
            stage.work.lookup(&mut stage.world, host, 0);
        }
        stage.work.get(&mut stage.world, host, &file);
        stage.run_for(Duration::from_secs(5));
    }
    stage.run_for(options.duration.max(MINUTE * 2));
    let checks = [
        fairness::unharmed("the value is published", &stage.work.sets, &Default::default()),
        lookup::check("the value is found among 20 ids of one party", &stage.work.lookups, 0.99),
        lookup::check("the file is found among 20 ids of one party", &stage.work.gets, 0.99),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// One host names invented nodes to the others, all of them at the address of a victim. The nodes send the victim at most
/// three bytes for each byte that the host sends.
pub(super) fn reflect(options: &Options) -> Outcome {
    let mut stage = Stage::new("reflect", options, |_| ());
    let victim = outsider(&mut stage.world);
    let addr = stage.world.links.port(victim).addr;
    let liar = outsider(&mut stage.world);
    stage.world.watch.count_to(addr);
    let honest = stage.world.honest();
    for round in 0..4 {
        // One node, then some, then all of them.
        let told = [1, honest.len() / 3, honest.len(), 1][round].max(1);
        puppet::reflect(&mut stage.world, liar, &honest[..told], addr);
        stage.run_for(MINUTE * 3);
        let sent = stage.world.hosts[liar].traffic.datagram_bytes_out;
        stage.report.checks.push(bounded::reflection(&stage.world, sent));
    }
    stage.each_tick = (4, 0);
    stage.run_for(options.duration);
    let sent = stage.world.hosts[liar].traffic.datagram_bytes_out;
    stage.report.checks.push(bounded::reflection(&stage.world, sent));
    stage.finish()
}

/// One address tells all nodes of invented nodes, half of them with wrong signatures, from several identities. A processor checks 400
/// signatures in a second. Users notice nothing, and a node that joins meanwhile is seen by all.
pub(super) fn states(options: &Options) -> Outcome {
    const CHECKS_PER_SECOND: u32 = 400;
    const IDENTITIES: usize = 8;
    let mut stage = Stage::new("states", options, |_| ());
    stage.fill(options.nodes.clamp(8, 100) / 4, options.nodes.clamp(8, 100) / 2);
    stage.world.calibrate(CHECKS_PER_SECOND);
    stage.each_tick = (10, 1);
    stage.run_for(MINUTE * 3);
    let (lookups, gets) = (stage.work.lookups.clone(), stage.work.gets.clone());
    let victims = stage.world.honest();
    let teller = outsider(&mut stage.world);
    for _ in 0..(options.duration.as_secs() / 60).max(2) {
        let gossips = victims.len() as u32 * 200;
        puppet::tell(&mut stage.world, teller, &victims, IDENTITIES, gossips);
        stage.run_for(MINUTE);
    }
    let newcomer = stage.world.add_host(false);
    let others = bootstrap(&mut stage.world, 2);
    stage.world.start(newcomer, &others);
    puppet::tell(&mut stage.world, teller, &victims, IDENTITIES, victims.len() as u32 * 2000);
    let sight = stage.come_in_sight(MINUTE * 2);
    let refused = total(&mut stage.world, &victims, "gossip_state_over_budget");
    let checks = [
        Check::new(
            10,
            "the flood exceeds the budget",
            1,
            refused > 0,
            format!("{refused} states not checked"),
        ),
        sight,
        fairness::unharmed("lookups succeed under a flood of states", &stage.work.lookups, &lookups),
        fairness::unharmed("files are found under a flood of states", &stage.work.gets, &gets),
        fairness::latency("a flood of states at most doubles latencies", &stage.work.lookups, &lookups),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Ten nodes of one /24 offer pieces that they do not have, and begin to send them. Others place their files all the same, and what is
/// stored stays.
pub(super) fn reserve(options: &Options) -> Outcome {
    const ACCOMPLICES: u8 = 10;
    const QUOTA: u64 = 8 << 20;
    let mut stage = Stage::new("reserve", options, |plan| plan.limits.quota_bytes = QUOTA);
    stage.fill(options.nodes.clamp(8, 100) / 4, 4);
    let victims = stage.world.honest();
    let mut hosts = Vec::new();
    for number in 1..=ACCOMPLICES {
        let host = stage.world.add_host(false);
        stage.world.links.readdress(host, SocketAddr::from(([31, 1, 1, number], PORT)));
        let others = bootstrap(&mut stage.world, 3);
        stage.world.start(host, &others);
        let chance = Chance::new(stage.world.chance.u64(), 10);
        let reserve = Reserve::new(network_of(&stage.world, host), chance);
        stage.world.set_adversary(host, Box::new(reserve));
        hosts.push(host);
    }
    stage.run_for(MINUTE);
    stage.each_tick = (2, 1);
    let mut most = 0;
    let end = stage.world.now() + options.duration.max(MINUTE * 5);
    while stage.world.now() < end {
        let mut chance = stage.world.chance.clone();
        for &host in &hosts {
            fetch(&mut stage.world, &stage.work, host, &mut chance);
        }
        stage.world.chance = chance;
        let publisher = victims[stage.world.chance.index(victims.len())];
        stage.work.put(&mut stage.world, publisher, 40_000, 3);
        stage.run_for(SAMPLE);
        most = most.max(reserved(&stage.world, &victims));
    }
    let found = format!("{} KiB at one node of {} KiB", most >> 10, QUOTA >> 10);
    let checks = [
        Check::new(10, "space is reserved and never used", 1, most > 0, found),
        fairness::placed(&stage.work.puts),
        fairness::unharmed("files are found beside reservations", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// The most bytes that one of the hosts reserves for pieces that are arriving.
fn reserved(world: &World, hosts: &[usize]) -> u64 {
    let nodes = hosts.iter().filter_map(|host| world.hosts[*host].node());
    nodes.map(|node| node.store().stats().reserved_bytes).max().unwrap_or(0)
}

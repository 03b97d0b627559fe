//! A network that asks identities for work.

use crate::id::{IdWork, NodeId};
use crate::identity::Identity;
use crate::sim::hostile::{Hostility, corrupt};
use crate::sim::invariants::{fairness, lookup};
use crate::sim::population::bootstrap;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
use crate::sim::world::World;
use crate::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// The work that the network asks for when the options say nothing.
const BITS: u8 = 8;

/// Forty hostile hosts join whose identities do not show the work that the network asks for. They answer as if they were nearest to
/// any key, forge values and discard pieces. They stay outside of every table of every honest node.
pub(super) fn id_work(options: &Options) -> Outcome {
    const OUTSIDERS: usize = 40;
    let asked = options.id_work.max(IdWork::new(BITS).unwrap_or_default());
    let options = Options { id_work: asked, ..options.clone() };
    let mut stage = Stage::new("id-work", &options, |_| ());
    let outsiders: Vec<usize> = (0..OUTSIDERS).map(|_| outsider(&mut stage.world, asked, &options)).collect();
    let kinds = [Hostility::Liar, Hostility::Forger, Hostility::Dropper];
    corrupt(&mut stage.world, &outsiders, &kinds);
    for &host in &outsiders {
        let others = bootstrap(&mut stage.world, 3);
        stage.world.start(host, &others);
        stage.run_for(Duration::from_secs(1));
    }
    stage.run_for(MINUTE * 3);
    stage.fill((options.nodes / 4).clamp(4, 20), (options.nodes / 4).clamp(4, 20));
    stage.each_tick = (4, 2);
    let (mut looks, mut inside) = (0, 0);
    for _ in 0..options.duration.as_secs().div_ceil(60).max(2) {
        stage.run_for(MINUTE);
        let found = count_inside(&stage.world, &outsiders);
        (looks, inside) = (looks + found.0, inside + found.1);
    }
    let refused: u64 =
        stage.world.honest().into_iter().map(|host| without_work(&mut stage.world, host)).sum();
    let found =
        format!("{inside} entries of {OUTSIDERS} nodes without work; they were refused {refused} times");
    let checks = [
        Check::new(10, "nodes without work enter no table", looks, inside == 0 && refused > 0, found),
        fairness::placed(&stage.work.puts),
        lookup::check("lookups succeed", &stage.work.lookups, 0.99),
        fairness::unharmed("files are found", &stage.work.gets, &Default::default()),
    ];
    stage.report.checks.extend(checks);
    stage.finish()
}

/// Attaches a host whose identity shows too little work.
fn outsider(world: &mut World, asked: IdWork, options: &Options) -> usize {
    loop {
        let secret = world.chance.bytes();
        let identity = match options.real_signatures {
            true => Identity::from_secret(&secret),
            false => Identity::stand_in(&secret),
        };
        if !asked.is_shown_by(&identity.public()) {
            return world.add_host_as(secret, false);
        }
    }
}

/// The number of tables that were looked at, and how often one of the outsiders is in one: the routing table, the members, or the peers
/// that share keys with the node.
fn count_inside(world: &World, outsiders: &[usize]) -> (u64, u64) {
    let ids: Vec<NodeId> = outsiders.iter().map(|host| world.id(*host)).collect();
    let (mut looks, mut inside) = (0, 0);
    for host in world.honest() {
        let Some(node) = world.hosts[host].node() else { continue };
        for id in &ids {
            let is_member = node.membership().member(id).is_some();
            let tables = [node.dht().is_contact(id), is_member, node.has_peer(id)];
            looks += tables.len() as u64;
            inside += tables.iter().filter(|is_in| **is_in).count() as u64;
        }
    }
    (looks, inside)
}

fn without_work(world: &mut World, host: usize) -> u64 {
    world.status(host).map_or(0, |status| status.without_work)
}

//! One identity on several machines.

use crate::sim::adversary::Adversary;
use crate::sim::invariants::lookup;
use crate::sim::population::bootstrap;
use crate::sim::report::Check;
use crate::sim::stage::{Options, Outcome, Stage};
use crate::time::Duration;
use core::net::SocketAddr;

/// Machines with one identity.
const CLONES: usize = 4;
/// The time within which each clone must notice another.
const NOTICED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Changes nothing that its node does. It only marks a machine as one that no user works at.
struct Copied;

impl Adversary for Copied {}

/// An image with an identity on it is started on several machines. Each of them reports the duplicate, with the address of
/// another. All other nodes find what was published.
pub(super) fn cloned_image(options: &Options) -> Outcome {
    let mut stage = Stage::new("cloned-image", options, |_| ());
    stage.fill(4, 20);
    let secret = stage.world.chance.bytes();
    let clones: Vec<usize> = (0..CLONES).map(|_| stage.world.add_host_as(secret, false)).collect();
    for &host in &clones {
        stage.world.set_adversary(host, Box::new(Copied));
        let others = bootstrap(&mut stage.world, 2);
        stage.world.start(host, &others);
        stage.run_for(Duration::from_secs(10));
    }
    stage.each_tick = (8, 1);
    stage.run_for(NOTICED_WITHIN);
    let addrs: Vec<SocketAddr> = clones.iter().map(|host| stage.world.links.port(*host).addr).collect();
    let mut noticed = 0;
    for (&host, own) in clones.iter().zip(&addrs) {
        let twice = stage.world.status(host).and_then(|status| status.identity_twice);
        noticed +=
            usize::from(twice.is_some_and(|twice| twice.address != *own && addrs.contains(&twice.address)));
    }
    let found = format!("{noticed} of {CLONES}");
    let claim = "each copy of an identity names another";
    stage.report.checks.push(Check::new(5, claim, CLONES as u64, noticed == CLONES, found));
    stage.run_for(options.duration);
    let honest = stage.world.honest();
    let mut alarms = 0;
    for &host in &honest {
        let status = stage.world.status(host);
        alarms += usize::from(status.is_some_and(|status| status.identity_twice.is_some()));
    }
    let claim = "no other node takes its identity for copied";
    let found = format!("{alarms} of {}", honest.len());
    stage.report.checks.push(Check::new(5, claim, honest.len() as u64, alarms == 0, found));
    let check = lookup::check("lookups succeed beside copies of a node", &stage.work.lookups, 0.99);
    stage.report.checks.push(check);
    stage.finish()
}

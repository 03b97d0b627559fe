//! Networks: how hosts are attached, join, leave and return.

use super::chance::Chance;
use super::disk::Crash;
use super::host::Life;
use super::world::World;
use crate::time::{Duration, Instant};
use crate::wire::contact::WireContact;
use core::net::SocketAddr;
use zerocopy::IntoBytes;

/// How the hosts of a network find each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joining {
    /// Hosts join one after the other over this time, each through a random earlier host.
    OneByOne(Duration),
    /// All hosts start within ten seconds, each with contacts on its disk as if from an earlier run.
    Remembered,
    /// All hosts start within two seconds for the first time, each through the first one.
    Together,
}

/// Attaches `count` hosts and lets them join. It returns a minute after the last one started.
pub fn build(world: &mut World, count: usize, joining: Joining) {
    start(world, count, joining);
    world.run_for(Duration::from_secs(60));
}

/// Attaches `count` hosts and starts them.
pub fn start(world: &mut World, count: usize, joining: Joining) {
    let first = world.hosts.len();
    for _ in 0..count {
        world.add_host(false);
    }
    match joining {
        Joining::OneByOne(over) => {
            let pause = over / count.max(1) as u32;
            for host in first..first + count {
                let earlier = world.chance.index(host);
                let bootstrap = if host == 0 { None } else { Some(world.links.port(earlier).addr) };
                world.start(host, bootstrap.as_slice());
                world.run_for(pause);
            }
        }
        Joining::Remembered => {
            remember(world);
            for host in first..first + count {
                world.start(host, &[]);
                world.run_for(Duration::from_secs(10) / count.max(1) as u32);
            }
        }
        Joining::Together => {
            let entrance = [world.links.port(first).addr];
            for host in first..first + count {
                let known: &[_] = if host == first { &[] } else { &entrance };
                world.start(host, known);
                world.run_for(Duration::from_secs(2) / count.max(1) as u32);
            }
        }
    }
}

/// Writes onto each disk the contacts that its node would remember: its nearest nodes in the key space, and some random ones.
fn remember(world: &mut World) {
    const NEAREST: usize = 24;
    const RANDOM: usize = 40;
    let mut order: Vec<usize> = (0..world.hosts.len()).collect();
    order.sort_by_key(|host| world.id(*host));
    let contacts: Vec<WireContact> =
        order.iter().map(|host| WireContact::new(&world.contact(*host), 0)).collect();
    for (rank, host) in order.iter().copied().enumerate() {
        let from = rank.saturating_sub(NEAREST / 2).min(order.len().saturating_sub(NEAREST));
        let near = (from..order.len()).take(NEAREST);
        let far = (0..RANDOM).map(|_| world.chance.index(order.len())).collect::<Vec<_>>();
        let mut chosen: Vec<usize> = near.chain(far).filter(|index| *index != rank).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let peers: Vec<WireContact> = chosen.into_iter().map(|index| contacts[index]).collect();
        world.hosts[host].disk.set_peers(peers.as_bytes().to_vec());
    }
}

/// Up to `count` addresses to join through, of random hosts whose nodes run.
pub fn bootstrap(world: &mut World, count: usize) -> Vec<SocketAddr> {
    let up: Vec<usize> = world.up().filter(|host| world.hosts[*host].node().is_some()).collect();
    (0..count.min(up.len())).map(|_| world.links.port(up[world.chance.index(up.len())]).addr).collect()
}

/// Hosts that come and go for the whole run. Sessions and absences are exponentially distributed, with the given medians.
pub struct Churn {
    /// The median session.
    pub session: Duration,
    /// The median absence.
    pub absence: Duration,
    /// The share of departing hosts that say goodbye. The others are killed or lose power.
    pub polite: f64,
    chance: Chance,
    base: u64,
}

impl Churn {
    /// Lets `hosts` come and go. The alarms from `base` on, one for each host of the world, are reserved for the churn.
    pub fn begin(
        world: &mut World,
        hosts: &[usize],
        session: Duration,
        absence: Duration,
        base: u64,
    ) -> Churn {
        let chance = Chance::new(world.chance.u64(), base);
        let mut churn = Churn { session, absence, polite: 0.3, chance, base };
        for &host in hosts {
            let stays = churn.chance.lifetime(session);
            world.alarm(world.now() + stays, base + host as u64);
        }
        churn
    }

    /// Handles an alarm. False when the alarm belongs to another component.
    pub fn take(&mut self, world: &mut World, alarm: u64) -> bool {
        let Some(host) =
            alarm.checked_sub(self.base).map(|host| host as usize).filter(|h| *h < world.hosts.len())
        else {
            return false;
        };
        let pause = match world.hosts[host].life() {
            Life::Down => {
                let others = bootstrap(world, 2);
                world.start(host, &others);
                self.chance.lifetime(self.session)
            }
            _ => {
                match (self.chance.happens(self.polite), self.chance.happens(0.5)) {
                    (true, _) => world.shut_down(host),
                    (false, true) => world.crash(host, Crash::Kill),
                    (false, false) => world.crash(host, Crash::Power),
                }
                self.chance.lifetime(self.absence)
            }
        };
        world.alarm(world.now() + pause, alarm);
        true
    }
}

/// Runs the world until `until`, with churn only.
pub fn run_with(world: &mut World, churn: &mut Churn, until: Instant) {
    while let Some(event) = world.next(until) {
        if let super::WorldEvent::Alarm(alarm) = event {
            churn.take(world, alarm);
        }
    }
}

//! Attacks that can be added to any scenario, as faults can.
//!
//! An attack begins when the stage has been filled. Most attacks come with hosts of their own: a tenth as many as there are honest
//! ones, or one host without a node. Attacks on the path afflict a tenth of the honest hosts. What honest nodes promise stays promised.

use super::chance::Chance;
use super::faults::named;
use super::hostile::{Hostility, Inflater, corrupt, flood_with_junk, lose_pieces, network_of, secret_near};
use super::link::PORT;
use super::on_path::{Downgrade, Swallow};
use super::population::bootstrap;
use super::puppet;
use super::reserve::Reserve;
use super::workload::Workload;
use super::world::World;
use crate::id::Key;
use crate::io::PieceMeta;
use crate::node::command::Command;
use crate::time::Duration;
use core::net::SocketAddr;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A kind of attack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Attack {
    /// Nodes name accomplices, and nodes that do not exist, as the nearest to any key.
    Lie,
    /// Nodes hand out records with a changed value.
    Forge,
    /// Nodes send content with one bit flipped.
    Corrupt,
    /// Nodes take pieces and keep none.
    Drop,
    /// Nodes report each piece that they receive as unverifiable.
    Complain,
    /// Nodes flood the others with wrong signatures.
    Junk,
    /// Nodes offer what others keep, for more copies and longer.
    Inflate,
    /// Nodes of one party sign claims on what others keep, for more copies and longer.
    Raise,
    /// Nodes offer pieces, and begin to send them and never end.
    Reserve,
    /// Three ids near a piece prove that they have it, and lose it.
    Hollow,
    /// Ids of one party around a file and a value, half as many as there are honest nodes and at most 40.
    Sybil,
    /// One address floods all tables with records.
    Erase,
    /// One address names a victim under invented identities.
    Reflect,
    /// One address tells all nodes of invented nodes.
    States,
    /// On the path to a tenth of the nodes, offers and records are swallowed and acknowledged.
    Swallow,
    /// On the path to a tenth of the nodes, each request with a MAC is challenged.
    Downgrade,
}

impl Attack {
    /// Every kind with its name.
    pub const ALL: [(&'static str, Attack); 16] = [
        ("lie", Attack::Lie),
        ("forge", Attack::Forge),
        ("corrupt", Attack::Corrupt),
        ("drop", Attack::Drop),
        ("complain", Attack::Complain),
        ("junk", Attack::Junk),
        ("inflate", Attack::Inflate),
        ("raise", Attack::Raise),
        ("reserve", Attack::Reserve),
        ("hollow", Attack::Hollow),
        ("sybil", Attack::Sybil),
        ("erase", Attack::Erase),
        ("reflect", Attack::Reflect),
        ("states", Attack::States),
        ("swallow", Attack::Swallow),
        ("downgrade", Attack::Downgrade),
    ];

    /// The name of the attack.
    pub fn name(self) -> &'static str {
        Attack::ALL.iter().find(|(_, attack)| *attack == self).map_or("", |(name, _)| name)
    }

    /// The kind of the hostile nodes, if they are all the attack takes.
    fn hostility(self) -> Option<Hostility> {
        match self {
            Attack::Lie => Some(Hostility::Liar),
            Attack::Forge => Some(Hostility::Forger),
            Attack::Corrupt => Some(Hostility::Corrupter),
            Attack::Drop => Some(Hostility::Dropper),
            Attack::Complain => Some(Hostility::Complainer),
            _ => None,
        }
    }
}

impl FromStr for Attack {
    type Err = String;

    fn from_str(name: &str) -> Result<Attack, String> {
        named(&Attack::ALL, "attack", name)
    }
}

/// The interval at which attacks that do not go on by themselves are made again.
const EVERY: Duration = Duration::from_secs(60);

/// The attacks of a run.
pub struct Attacks {
    bands: Vec<Band>,
    chance: Chance,
    alarm: u64,
}

/// The hosts of one attack.
struct Band {
    attack: Attack,
    hosts: Vec<usize>,
}

impl Attacks {
    /// Begins attacks on a network in use. The alarm of this name is reserved for them.
    pub fn begin(world: &mut World, work: &Workload, kinds: &[Attack], alarm: u64) -> Attacks {
        let mut attacks = Attacks { bands: Vec::new(), chance: Chance::new(world.chance.u64(), 9), alarm };
        for &attack in kinds {
            let hosts = attacks.band(world, work, attack);
            attacks.bands.push(Band { attack, hosts });
        }
        attacks.again(world, work);
        world.alarm(world.now() + EVERY, alarm);
        attacks
    }

    /// The number of hosts that take part, or that have an adversary on the path to them.
    pub fn hosts(&self) -> usize {
        self.bands.iter().map(|band| band.hosts.len()).sum()
    }

    /// Handles an alarm. False when the alarm belongs to another component.
    pub fn take(&mut self, world: &mut World, work: &Workload, alarm: u64) -> bool {
        if alarm != self.alarm {
            return false;
        }
        self.again(world, work);
        world.alarm(world.now() + EVERY, alarm);
        true
    }

    /// Makes the hosts of one attack ready.
    fn band(&mut self, world: &mut World, work: &Workload, attack: Attack) -> Vec<usize> {
        let tenth = world.honest().len().div_ceil(10).min(20);
        let real = world.plan.real_signatures;
        if let Some(hostility) = attack.hostility() {
            let hosts = join(world, tenth);
            corrupt(world, &hosts, &[hostility]);
            return hosts;
        }
        match attack {
            Attack::Junk => {
                let hosts = join(world, tenth);
                flood_with_junk(world, &hosts);
                hosts
            }
            Attack::Inflate => {
                let hosts = join(world, tenth);
                let targets = kept_pieces(world);
                for &host in &hosts {
                    let inflater = Inflater::new(network_of(world, host), Rc::clone(&targets));
                    world.set_adversary(host, Box::new(inflater));
                }
                hosts
            }
            Attack::Raise => join_raisers(world, tenth),
            Attack::Reserve => {
                let hosts = join(world, tenth);
                for &host in &hosts {
                    let chance = Chance::new(self.chance.u64(), 10);
                    world.set_adversary(host, Box::new(Reserve::new(network_of(world, host), chance)));
                }
                hosts
            }
            Attack::Hollow => {
                let near = work.files.first().map_or(Key([0; 32]), |file| file.hash);
                let hosts = join_near(world, &near, 3, real, None);
                corrupt(world, &hosts, &[Hostility::Hollow]);
                hosts
            }
            Attack::Sybil => {
                let file = work.files.first().map(|file| file.hash);
                let targets: Vec<Key> = file.into_iter().chain(work.record_key(0)).collect();
                let count = (world.honest().len() / 4).clamp(4, 20);
                let mut hosts = Vec::new();
                for target in targets {
                    hosts.extend(join_near(world, &target, count, real, Some(hosts.len() as u8)));
                }
                corrupt(world, &hosts, &[Hostility::Liar, Hostility::Forger, Hostility::Dropper]);
                hosts
            }
            Attack::Swallow | Attack::Downgrade => {
                let mut hosts = world.honest();
                hosts.retain(|host| world.hosts[*host].adversary.is_none());
                self.chance.shuffle(&mut hosts);
                hosts.truncate(tenth);
                for &host in &hosts {
                    let node = world.hosts[host].identity();
                    match attack {
                        Attack::Swallow => world.set_adversary(host, Box::new(Swallow::new(node))),
                        _ => world.set_adversary(host, Box::new(Downgrade::new(node))),
                    }
                }
                hosts
            }
            // The second host of a reflection is the victim, which does nothing.
            Attack::Reflect => vec![outsider(world), outsider(world)],
            _ => vec![outsider(world)],
        }
    }

    /// Makes the attacks again that need it.
    fn again(&mut self, world: &mut World, work: &Workload) {
        for Band { attack, hosts } in &self.bands {
            let victims = world.honest();
            match attack {
                Attack::Complain | Attack::Inflate | Attack::Raise | Attack::Reserve => {
                    for &host in hosts {
                        fetch(world, work, host, &mut self.chance);
                    }
                }
                Attack::Hollow => lose_pieces(world, hosts),
                Attack::Erase => puppet::flood(world, hosts[0], &victims, 4, victims.len() as u32 * 40),
                Attack::States => puppet::tell(world, hosts[0], &victims, 2, victims.len() as u32 * 40),
                Attack::Reflect => {
                    let victim = world.links.port(hosts[1]).addr;
                    puppet::reflect(world, hosts[0], &victims, victim);
                }
                _ => {}
            }
        }
    }
}

/// Attaches hosts whose nodes join the network. They turn hostile afterwards.
fn join(world: &mut World, count: usize) -> Vec<usize> {
    let hosts: Vec<usize> = (0..count).map(|_| world.add_host(false)).collect();
    hosts.iter().for_each(|host| start(world, *host));
    hosts
}

/// Attaches hosts with ids nearer to a key than any honest node is expected to be; all in one /24, if `first` is given: there, at
/// addresses from this number on.
fn join_near(world: &mut World, key: &Key, count: usize, real: bool, first: Option<u8>) -> Vec<usize> {
    let bits = (world.hosts.len() as f64).log2().ceil() as u32 + 2;
    let mut hosts = Vec::new();
    for number in 0..count as u8 {
        let secret = secret_near(key, bits, real, &mut world.chance);
        let host = world.add_host_as(secret, false);
        if let Some(first) = first {
            world.links.readdress(host, SocketAddr::from(([31, 1, 1, 1 + first + number], PORT)));
        }
        start(world, host);
        hosts.push(host);
    }
    hosts
}

/// Every piece that a host keeps.
fn kept_pieces(world: &World) -> Rc<[PieceMeta]> {
    let kept = world.hosts.iter().flat_map(|host| host.disk.pieces());
    let targets: BTreeMap<Key, PieceMeta> = kept.map(|meta| (meta.key, *meta)).collect();
    targets.into_values().collect()
}

/// Attaches hosts in one /24 that sign claims on all pieces that are kept now, each with its own key.
pub(super) fn join_raisers(world: &mut World, count: usize) -> Vec<usize> {
    let targets = kept_pieces(world);
    let mut hosts = Vec::new();
    for number in 0..count as u8 {
        let host = world.add_host(false);
        world.links.readdress(host, SocketAddr::from(([31, 1, 2, 1 + number], PORT)));
        start(world, host);
        let (network, publisher) = (network_of(world, host), world.hosts[host].identity());
        let raiser = Inflater::signing(network, Rc::clone(&targets), publisher);
        world.set_adversary(host, Box::new(raiser));
        hosts.push(host);
    }
    hosts
}

fn start(world: &mut World, host: usize) {
    let others = bootstrap(world, 3);
    world.start(host, &others);
}

/// Attaches a host that runs no node.
pub(super) fn outsider(world: &mut World) -> usize {
    world.add_host(false)
}

/// Has a hostile host fetch a random file again, over streams to its sources.
pub(super) fn fetch(world: &mut World, work: &Workload, host: usize, chance: &mut Chance) {
    if let Some(file) = work.files.get(chance.index(work.files.len())) {
        world.command(host, Command::Remove { hash: file.hash });
        let (hash, timeout) = (file.hash, Some(60));
        world.command(host, Command::Get { hash, target: None, force: false, mode: None, timeout });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_has_a_name_of_its_own() {
        for (name, attack) in Attack::ALL {
            assert_eq!(name.parse(), Ok(attack));
            assert_eq!(attack.name(), name);
        }
        let unknown = "bribe".parse::<Attack>().unwrap_err();
        assert!(unknown.starts_with("no attack is called bribe; there are lie, "), "{unknown}");
    }
}

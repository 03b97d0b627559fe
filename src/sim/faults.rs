//! Faults that can be added to any scenario.

use super::chance::Chance;
use super::world::{Plan, World};
use crate::time::{Duration, Instant};
use core::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// One packet in a hundred arrives twice.
    Duplicate,
    /// One packet in twenty is delayed, so that others can overtake it.
    Reorder,
    /// Processes pause for some seconds.
    Pause,
    /// Machines sleep for some minutes. Their clocks stop meanwhile.
    Sleep,
    /// NATs give hosts other ports.
    Rebind,
    /// A few hosts can send but not receive, for a minute.
    OneWay,
    /// One sync in a hundred fails.
    Disk,
    /// Disks are twenty times slower.
    Slow,
    /// Links have a fiftieth of their bandwidth.
    Narrow,
}

impl Fault {
    /// Every kind with its name.
    pub const ALL: [(&'static str, Fault); 9] = [
        ("duplicate", Fault::Duplicate),
        ("reorder", Fault::Reorder),
        ("pause", Fault::Pause),
        ("sleep", Fault::Sleep),
        ("rebind", Fault::Rebind),
        ("one-way", Fault::OneWay),
        ("disk", Fault::Disk),
        ("slow", Fault::Slow),
        ("narrow", Fault::Narrow),
    ];

    /// The name of the fault.
    pub fn name(self) -> &'static str {
        Fault::ALL.iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Fault, String> {
        named(&Fault::ALL, "fault", name)
    }
}

/// The item of this name, or what to tell the user, who takes it for a `kind`.
pub(super) fn named<T: Copy>(all: &[(&'static str, T)], kind: &str, name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, item)| *item).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!("no {kind} is called {name}; there are {}", names.join(", "))
    })
}

/// Applies the permanent faults to a plan.
pub fn apply(plan: &mut Plan, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Duplicate => plan.links.duplicate = 0.01,
            Fault::Reorder => plan.links.reorder = 0.05,
            Fault::Disk => plan.disks.sync_fails = 0.01,
            Fault::Slow => {
                plan.disks.sync *= 20;
                plan.disks.bytes_per_second /= 20;
            }
            Fault::Narrow => (plan.links.up, plan.links.down) = (plan.links.up / 50, plan.links.down / 50),
            Fault::Pause | Fault::Sleep | Fault::Rebind | Fault::OneWay => {}
        }
    }
}

/// The transient faults: each strikes a host and ends later, or is over at once.
pub struct Mischief {
    faults: Vec<Fault>,
    /// Until when no fault strikes.
    peace_until: Instant,
    chance: Chance,
    base: u64,
}

/// The interval between strikes. Each time, one strike is made for every hundred hosts.
const EVERY: Duration = Duration::from_secs(60);
/// The side of the network that can send but not receive.
const DEAF: u8 = 3;

impl Mischief {
    /// Starts the transient ones of `faults`. The alarms `base` to `base` + the number of hosts are reserved for them.
    pub fn begin(world: &mut World, faults: &[Fault], base: u64) -> Mischief {
        let comes =
            |fault: &&Fault| matches!(fault, Fault::Pause | Fault::Sleep | Fault::Rebind | Fault::OneWay);
        let faults: Vec<Fault> = faults.iter().filter(comes).copied().collect();
        if !faults.is_empty() {
            world.alarm(world.now() + EVERY, base);
        }
        (0..DEAF).for_each(|side| world.links.block(side, DEAF, true));
        Mischief { faults, peace_until: Instant::ZERO, chance: Chance::new(world.chance.u64(), base), base }
    }

    /// Until this time no fault strikes. Those that have struck end in their time.
    pub fn rest(&mut self, until: Instant) {
        self.peace_until = until;
    }

    /// Handles an alarm. False when the alarm belongs to another component.
    pub fn take(&mut self, world: &mut World, alarm: u64) -> bool {
        match alarm.checked_sub(self.base) {
            Some(0) => {
                for _ in 0..world.hosts.len().div_ceil(100) {
                    self.strike(world);
                }
                world.alarm(world.now() + EVERY, self.base);
            }
            Some(victim) if (victim as usize) <= world.hosts.len() => {
                let host = victim as usize - 1;
                world.resume(host);
                world.links.port_mut(host).side = 0;
            }
            _ => return false,
        }
        true
    }

    fn strike(&mut self, world: &mut World) {
        let host = self.chance.index(world.hosts.len());
        if !world.hosts[host].is_up() || world.now() < self.peace_until {
            return;
        }
        let lasts = match self.faults[self.chance.index(self.faults.len())] {
            Fault::Pause => {
                world.pause(host);
                Duration::from_secs(2) + self.chance.duration(Duration::from_secs(20))
            }
            Fault::Sleep => {
                world.suspend(host);
                Duration::from_secs(60) + self.chance.duration(Duration::from_secs(240))
            }
            Fault::OneWay => {
                const LASTS: Duration = Duration::from_secs(60);
                let now = world.now();
                let port = world.links.port_mut(host);
                (port.side, port.deaf) = (DEAF, (now, now + LASTS));
                LASTS
            }
            _ => return world.links.rebind(host, &mut self.chance),
        };
        world.alarm(world.now() + lasts, self.base + 1 + host as u64);
    }
}

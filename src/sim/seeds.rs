//! Runs that showed a defect when they were added. `sim --regressions` plays them all; the tests play the small ones.

use super::faults::Fault;
use super::scenario::{Scenario, named};
use super::stage::Options;

/// A regression run.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    name: &'static str,
    nodes: usize,
    minutes: u64,
    seed: u64,
    loss: f64,
    faults: &'static [Fault],
}

impl Regression {
    const fn new(name: &'static str, nodes: usize, minutes: u64, seed: u64) -> Regression {
        Regression { name, nodes, minutes, seed, loss: 0.0, faults: &[] }
    }

    /// The scenario of the run, or the message that there is none of that name.
    pub fn scenario(&self) -> Result<Scenario, String> {
        named(self.name).ok_or_else(|| format!("no scenario is called {}", self.name))
    }

    /// The options of the run.
    pub fn options(&self) -> Options {
        let faults = self.faults.to_vec();
        Options { loss: self.loss, faults, ..Options::small(self.nodes, self.minutes, self.seed) }
    }

    /// Whether the run is short enough for a test without optimisation.
    pub fn is_small(&self) -> bool {
        const NODE_MINUTES_MAX: u64 = 12;
        self.nodes as u64 * self.minutes <= NODE_MINUTES_MAX
    }
}

/// All regression runs.
pub const REGRESSIONS: &[Regression] = &[
    Regression::new("steady", 24, 10, 1),
    Regression::new("flash-crowd", 24, 10, 1),
    Regression::new("hostile", 40, 10, 1),
    Regression::new("replay", 24, 30, 1),
    Regression::new("inflate", 24, 10, 1),
    Regression::new("rolling-reboot", 40, 20, 1),
    // Two halves of a partition restarted and did not find each other again: nodes asked old contacts only while their routing
    // table was empty. A site that lost power in its first seconds remembered no contact.
    Regression::new("long-partition", 6, 10, 11),
    Regression::new("site-power", 12, 10, 11),
    // Nodes of one LAN find each other without an address.
    Regression::new("lan", 12, 1, 1),
    // A file was announced only to the nearest nodes from earlier lookups. All of them belonged to one party and kept nothing.
    Regression::new("sybil", 32, 2, 3),
    // A limit on nodes of one party made a site in one prefix lose sight of itself.
    Regression::new("one-prefix", 16, 25, 3),
    Regression::new("one-shared", 16, 25, 3),
    Regression::new("one-link", 16, 25, 3),
    // One party's reservations filled the nodes, and copies that were only claimed pulled real ones away.
    Regression::new("reserve", 12, 5, 3),
    Regression::new("hollow", 12, 2, 3),
    // A start counted on records of shares that a killed run had written and not synced, or did not count on one that a full
    // disk had refused and that came back.
    Regression::new("power-loss", 2, 2, 2034),
    Regression::new("power-loss", 2, 2, 2136),
    Regression::new("power-loss", 2, 3, 2080),
    Regression::new("power-loss", 2, 6, 2131),
    Regression::new("power-loss", 2, 30, 2188),
    // On a full disk the age was written over in a file whose name a failed sync of the directory had not made durable.
    Regression::new("power-loss", 2, 30, 7013),
    // All holders of a piece lost power at once. Its publisher, which had the file, was too far away to see it, and copied nothing.
    Regression::new("mass-crash", 60, 2, 16),
    // A copy that another fault beside the restarts called for counted as one for the restarts.
    Regression {
        faults: &[Fault::OneWay, Fault::Disk, Fault::Slow],
        ..Regression::new("rolling-reboot", 40, 20, 883263)
    },
    // Commands to paused hosts were lost, and a host that slept counted as there although others had to replace it.
    Regression {
        faults: &[Fault::Duplicate, Fault::Reorder, Fault::Pause],
        ..Regression::new("flash-crowd", 40, 20, 883006)
    },
    Regression {
        faults: &[Fault::Sleep, Fault::Rebind, Fault::Narrow],
        ..Regression::new("churn", 24, 20, 887142)
    },
    Regression { faults: &[Fault::Sleep], ..Regression::new("churn", 12, 2, 410986) },
    // A node that heard nothing said that nobody had a value, or showed the old one that it kept itself.
    Regression {
        faults: &[Fault::OneWay, Fault::Disk, Fault::Slow],
        ..Regression::new("steady", 40, 20, 883161)
    },
    Regression { faults: &[Fault::OneWay], ..Regression::new("churn", 12, 2, 623675) },
    Regression { faults: &[Fault::OneWay], ..Regression::new("site-power", 12, 2, 941716) },
    // A file was said to be nowhere while its only source was at an address that was no longer its own.
    Regression {
        faults: &[Fault::Sleep, Fault::Rebind, Fault::Narrow],
        ..Regression::new("flash-crowd", 24, 20, 887151)
    },
    Regression { faults: &[Fault::Rebind], ..Regression::new("one-prefix", 12, 2, 796187) },
    // A flood in which each answer brought the next datagram ended with the first lost ones, and tested little.
    Regression { loss: 0.05, ..Regression::new("erase", 12, 2, 624120) },
];

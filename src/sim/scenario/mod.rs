//! The scenarios, by name.
//!
//! Every scenario builds a network, uses it, makes the checks that every run makes (see [`stage`](super::stage)), and adds
//! its own. The outcome depends on the options alone.

mod adversity;
mod calm;
mod clones;
mod failures;
mod fairness;
mod hoard;
mod on_path;
mod outages;
mod work;

use super::report::{Check, Report};
use super::stage::{Options, Outcome};
use crate::disk::power_loss;
use std::path::PathBuf;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What happens in it, in one line.
    pub about: &'static str,
    /// Runs it.
    pub play: fn(&Options) -> Outcome,
}

/// The scenario of real files, which has no network.
const POWER_LOSS: &str = "power-loss";

impl Scenario {
    /// Whether what the scenario promises holds with loss and with faults of links, disks and machines on top, and these change the
    /// run. `broken-link` promises a time, which other faults lengthen.
    pub fn takes_faults(&self) -> bool {
        !matches!(self.name, POWER_LOSS | "broken-link" | "hidden")
    }

    /// Whether what the scenario promises holds with any attack on top.
    pub fn takes_attacks(&self) -> bool {
        matches!(self.name, "churn" | "steady")
    }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "steady",
        about: "people put, get, set and look up; nobody comes or goes",
        play: calm::steady,
    },
    Scenario {
        name: "flash-crowd",
        about: "one file of 8 MiB, and everyone wants it",
        play: calm::flash_crowd,
    },
    Scenario { name: "churn", about: "sessions of 2 hours, absences of half an hour", play: failures::churn },
    Scenario {
        name: "mass-crash",
        about: "30 % of the nodes lose power at once, and return after ten minutes",
        play: failures::mass_crash,
    },
    Scenario { name: "partition", about: "30 minutes cut in two, then healed", play: failures::partition },
    Scenario {
        name: "long-partition",
        about: "35 minutes cut in two, each node restarts meanwhile",
        play: outages::long_partition,
    },
    Scenario {
        name: "site-power",
        about: "all nodes lose power 20 s after their first start",
        play: outages::site_power,
    },
    Scenario {
        name: "lan",
        about: "one LAN without an address to join through; then its power fails, and all addresses change",
        play: outages::lan,
    },
    Scenario {
        name: "rolling-reboot",
        about: "everyone restarts within an hour, a minute each",
        play: failures::rolling_reboot,
    },
    Scenario {
        name: "fleet",
        about: "a night of restarts from which one in fifty does not return, then a file for all",
        play: failures::fleet,
    },
    Scenario { name: "slow-flash", about: "everyday use with syncs of two seconds", play: calm::slow_flash },
    Scenario {
        name: "broken-link",
        about: "downloads whose only link is down for 10 to 100 s",
        play: outages::broken_link,
    },
    Scenario { name: "hidden", about: "a fifth is behind NATs without knowing it", play: outages::hidden },
    Scenario { name: "hostile", about: "30 % lie, forge, corrupt or drop", play: adversity::hostile },
    Scenario { name: "eclipse", about: "40 ids placed around one key", play: adversity::eclipse },
    Scenario { name: "junk", about: "10 % flood the others with wrong signatures", play: adversity::junk },
    Scenario {
        name: "inflate",
        about: "a fifth offers what others keep, for more copies and longer",
        play: adversity::inflate,
    },
    Scenario { name: "replay", about: "recorded datagrams come again, later", play: adversity::replay },
    Scenario { name: "one-prefix", about: "all nodes are in one public /24", play: fairness::one_prefix },
    Scenario {
        name: "one-shared",
        about: "all nodes are in one /24 of the shared range",
        play: fairness::one_shared,
    },
    Scenario { name: "one-link", about: "all nodes are in one IPv6 /64", play: fairness::one_link },
    Scenario { name: "erase", about: "one address floods all tables with records", play: fairness::erase },
    Scenario { name: "sybil", about: "40 ids of one party around two keys", play: fairness::sybil },
    Scenario {
        name: "reflect",
        about: "a host names a victim under invented identities",
        play: fairness::reflect,
    },
    Scenario { name: "hoard", about: "one host puts more than all stores hold", play: hoard::hoard },
    Scenario {
        name: "raise",
        about: "a party claims what others keep for 20 copies and a year",
        play: hoard::raise,
    },
    Scenario {
        name: "reserve",
        about: "ten nodes of one party reserve space for nothing",
        play: fairness::reserve,
    },
    Scenario {
        name: "states",
        about: "one address tells everybody of invented nodes",
        play: fairness::states,
    },
    Scenario {
        name: "hollow",
        about: "three ids near a file take copies and lose them",
        play: adversity::hollow,
    },
    Scenario {
        name: "swallow",
        about: "relays before a third acknowledge what they drop",
        play: on_path::swallow,
    },
    Scenario {
        name: "downgrade",
        about: "a man in the middle before a third challenges every MAC",
        play: on_path::downgrade,
    },
    Scenario {
        name: "id-work",
        about: "40 ids without the work that the network asks for",
        play: work::id_work,
    },
    Scenario { name: "cloned-image", about: "four machines with one identity", play: clones::cloned_image },
    Scenario { name: POWER_LOSS, about: "crash points of real files", play: power_cuts },
];

/// The scenario of this name.
pub fn named(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().copied().find(|scenario| scenario.name == name)
}

/// Power fails between any two operations on real files. The number of nodes has no effect here. The duration determines
/// how many crash points are tried.
fn power_cuts(options: &Options) -> Outcome {
    const OPERATIONS: usize = 120;
    let crash_points = (options.duration.as_secs() as usize / 6).clamp(20, 100_000);
    let mut report = Report { scenario: POWER_LOSS.to_owned(), seed: options.seed, ..Report::default() };
    // Every state of the disk is built as real files. In memory that is fast.
    let memory = PathBuf::from("/dev/shm");
    let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let claim = "every crash point recovers";
    let check = match power_loss::run(options.seed, OPERATIONS, crash_points, &dir) {
        Ok(tried) => {
            report.figure("directories recovered", tried.states as f64);
            report.figure("faults met", tried.faults as f64);
            let found = format!("{} pieces and {} shares compared", tried.pieces, tried.shares);
            Check::new(9, claim, tried.crash_points, true, found)
        }
        Err(failure) => Check::new(9, claim, 1, false, failure.to_string()),
    };
    report.checks.push(check);
    Outcome { report, history: Vec::new() }
}

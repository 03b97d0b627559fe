//! The plays, by name.
//!
//! Every play builds a network, uses it, checks what is checked in every run (see [`stage`](super::stage)), and adds what
//! it is about. What its outcome says follows from the options alone.

mod adversity;
mod calm;
mod failures;

use super::report::{Check, Report};
use super::stage::{Options, Outcome};

/// A play.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// Plays it.
    pub play: fn(&Options) -> Outcome,
}

/// Every play.
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
        about: "half of all nodes lose power at once",
        play: failures::mass_crash,
    },
    Scenario { name: "partition", about: "30 minutes cut in two, then healed", play: failures::partition },
    Scenario {
        name: "rolling-reboot",
        about: "everyone restarts within an hour, a minute each",
        play: failures::rolling_reboot,
    },
    Scenario { name: "hostile", about: "30 % lie, forge, corrupt or drop", play: adversity::hostile },
    Scenario { name: "eclipse", about: "40 ids placed around one key", play: adversity::eclipse },
    Scenario { name: "replay", about: "recorded datagrams come again, later", play: adversity::replay },
    Scenario { name: "power-loss", about: "crash points of real files", play: power_loss },
];

/// The play of this name.
pub fn named(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().copied().find(|scenario| scenario.name == name)
}

/// The place of the play that cuts the power between any two operations on real files. Until it is here it shows nothing,
/// and says so.
fn power_loss(options: &Options) -> Outcome {
    let mut report = Report { scenario: "power-loss".to_owned(), seed: options.seed, ..Report::default() };
    report.checks.push(Check::new(9, "every crash point recovers", 0, true, "not a part of this build"));
    Outcome { report, history: Vec::new() }
}

//! Runs networks of real nodes in a simulated world.

mod case;
mod draw;
mod outcome;
mod play;
mod search;
mod shrink;

use crate::Outcome;
use case::Case;
use draw::{Draw, Range};
use elver::config::units::parse_time;
use elver::id::IdWork;
use elver::sim::attack::Attack;
use elver::sim::faults::Fault;
use elver::sim::picture;
use elver::sim::report::{Report, Verdict};
use elver::sim::scenario::{SCENARIOS, Scenario};
use elver::sim::seeds::REGRESSIONS;
use elver::sim::stage::Options;
use elver::sim::tables::{TABLES, Table, make};
use play::{Played, play};
use rustix::process::Signal;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The time that a search may go on shrinking after it has stopped drawing runs.
const SHRINK_MAX: Duration = Duration::from_secs(300);

/// Parses the number of nodes. One node has no peer; more than 100,000 exceed a machine's memory.
fn nodes(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is no number from 2 to 100000");
    text.parse().ok().filter(|count| (2..=100_000).contains(count)).ok_or_else(wrong)
}

/// Parses bits of work. Each host takes the time to find its identity, so they are few.
fn id_work(text: &str) -> Result<IdWork, String> {
    let bits = text.parse().ok().filter(|bits| *bits <= 16).and_then(IdWork::new);
    bits.ok_or_else(|| format!("`{text}` is no number from 0 to 16"))
}

/// Play scenarios in a simulated world and check the design's invariants. The same seed gives the same run.
///
/// Scenarios: steady, flash-crowd, churn, mass-crash, partition, long-partition, site-power, lan, rolling-reboot, broken-link,
/// hidden, hostile, eclipse, junk, inflate, replay, one-prefix, one-shared, one-link, erase, sybil, reflect, reserve, states,
/// hollow, swallow, downgrade, hoard, raise, id-work, cloned-image, power-loss, or "all". Tables: lookups, rounds, detection, idle,
/// repair, sight.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The scenario to play, or "all". Default: steady; in a search all.
    #[arg(long, conflicts_with = "table")]
    scenario: Option<String>,
    /// Make a table instead: lookups, rounds, detection, idle, repair or sight.
    #[arg(long)]
    table: Option<String>,
    /// The number of nodes; in a search the most; for a table, several numbers separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = nodes)]
    nodes: Vec<usize>,
    /// Duration in virtual hours; in a search the longest.
    #[arg(long)]
    hours: Option<f64>,
    /// Duration in virtual minutes; in a search the longest.
    #[arg(long, conflicts_with = "hours", default_value_t = 30.0)]
    minutes: f64,
    /// The seed, or the first of several; in a search the seed from which runs are drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of seeds to play, one after the other. The last of several is played with real signatures.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The share of datagrams that are lost: 0.05 is one in twenty. Default: none; a search draws it.
    #[arg(long)]
    loss: Option<f64>,
    /// Faults to add: duplicate, reorder, pause, sleep, rebind, one-way, disk, slow, narrow. Default: none; a search draws them.
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<Fault>>,
    /// Attacks to add when the network is in use: lie, forge, corrupt, drop, complain, junk, inflate, reserve, hollow, sybil, erase,
    /// reflect, states, swallow, downgrade. Default: none; a search draws them for churn and steady.
    #[arg(long, value_delimiter = ',')]
    adversary: Option<Vec<Attack>>,
    /// Use real signatures.
    #[arg(long)]
    real: bool,
    /// The bits of work that the network asks of each identity, up to 16. Hosts have such identities; most adversaries do not.
    #[arg(long, default_value = "0", value_parser = id_work)]
    id_work: IdWork,
    /// Nodes join one after the other over ten minutes, instead of starting with remembered contacts.
    #[arg(long)]
    join: bool,
    /// Play the runs that once showed a defect.
    #[arg(long)]
    regressions: bool,
    /// Draw runs at random, play them until one breaks an invariant, and make that run smaller. Ctrl-C prints the summary.
    #[arg(long, conflicts_with_all = ["table", "regressions", "seeds", "join", "picture", "json"])]
    search: bool,
    /// In a search: go through every scenario with no fault, every fault and every pair of faults.
    #[arg(long, requires = "search")]
    systematic: bool,
    /// In a search: go on after a broken invariant, and make the first run of each kind smaller.
    #[arg(long, requires = "search")]
    keep_going: bool,
    /// In a search: the time after which no further run begins, such as 30m.
    #[arg(long = "for", value_parser = parse_time, default_value = "30m", requires = "search")]
    time: Duration,
    /// The number of runs at a time. Reports come in the order of the runs; with several at a time they tell no memory.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), conflicts_with = "table")]
    jobs: u16,
    /// Draw live copies of all pieces over time into this SVG file.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Answer in JSON, one object for each run.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.hours.map_or(self.minutes * 60.0, |hours| hours * 3600.0))
    }

    fn options(&self, seed: u64, real_signatures: bool) -> Options {
        Options {
            nodes: self.nodes.first().copied().unwrap_or(100),
            duration: self.duration(),
            seed,
            loss: self.loss.unwrap_or(0.0),
            faults: self.faults.clone().unwrap_or_default(),
            attacks: self.adversary.clone().unwrap_or_default(),
            real_signatures,
            id_work: self.id_work,
            warm: !self.join,
        }
    }

    /// The scenarios to play, of which `unnamed` is the one without `--scenario`.
    fn scenarios(&self, unnamed: &str) -> Outcome<Vec<Scenario>> {
        let name = self.scenario.as_deref().unwrap_or(unnamed);
        let found: Vec<Scenario> =
            SCENARIOS.iter().filter(|scenario| name == "all" || scenario.name == name).copied().collect();
        if found.is_empty() {
            let names: Vec<String> = SCENARIOS.iter().map(|s| format!("{} ({})", s.name, s.about)).collect();
            return Err(format!("no scenario is called {name}; there are {}", names.join("; ")).into());
        }
        Ok(found)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    if let Some(name) = &arguments.table {
        let table = make(name, &arguments.nodes, &arguments.options(arguments.seed, arguments.real));
        let table =
            table.ok_or_else(|| format!("no table is called {name}; there are {}", TABLES.join(", ")))?;
        print_table(&table, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.search {
        return search(arguments);
    }
    let mut runs: Vec<(Scenario, Options)> = Vec::new();
    if arguments.regressions {
        for regression in REGRESSIONS {
            runs.push((regression.scenario()?, regression.options()));
        }
    } else {
        let scenarios = arguments.scenarios("steady")?;
        for seed in arguments.seed..arguments.seed + arguments.seeds {
            let real = arguments.real || arguments.seeds > 1 && seed + 1 == arguments.seed + arguments.seeds;
            runs.extend(scenarios.iter().map(|scenario| (*scenario, arguments.options(seed, real))));
        }
    }
    let mut broken = false;
    let jobs = usize::from(arguments.jobs);
    play(&runs, jobs, |Played { scenario, options, outcome, took }| -> Outcome<()> {
        let case = Case::new(&scenario, options);
        // With several runs in this process, nothing tells the memory of one.
        let memory = (jobs == 1).then(memory_bytes).flatten();
        print_report(&outcome.report, &case, took, memory, arguments.json)?;
        broken |= !outcome.report.holds();
        if let Some(path) = &arguments.picture {
            let title =
                format!("{}: {} nodes, seed {}", scenario.name, case.options.nodes, case.options.seed);
            std::fs::write(path, picture::draw(&title, &outcome.history))?;
        }
        Ok(())
    })?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Searches for broken invariants.
fn search(arguments: &Arguments) -> Outcome<ExitCode> {
    let range = Range {
        scenarios: arguments.scenarios("all")?,
        nodes_max: arguments.nodes.first().copied().unwrap_or(100),
        minutes_max: arguments.duration().as_secs() / 60,
        faults: arguments.faults.clone(),
        attacks: arguments.adversary.clone(),
        loss: arguments.loss,
        real_signatures: arguments.real,
    };
    let draw = match arguments.systematic {
        true => Draw::systematic(range, arguments.seed),
        false => Draw::random(range, arguments.seed),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [Signal::INT, Signal::TERM] {
        signal_hook::flag::register(signal.as_raw(), Arc::clone(&stop))?;
    }
    let began = Instant::now();
    let method = search::Method {
        jobs: usize::from(arguments.jobs),
        keep_going: arguments.keep_going,
        until: began + arguments.time,
    };
    let player = outcome::Processes { stop: &stop, until: method.until + SHRINK_MAX };
    // A closed pipe fails the summary too, which reports it.
    let say = |text: &str| _ = std::io::stdout().write_all(text.as_bytes());
    let findings = search::search(&player, draw, method, say);
    std::io::stdout().write_all(findings.summary(began.elapsed()).as_bytes())?;
    Ok(if findings.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(
    report: &Report,
    case: &Case,
    took: Duration,
    memory: Option<u64>,
    json: bool,
) -> Outcome<()> {
    let seconds = took.as_secs_f64();
    let rate = report.events as f64 / seconds.max(1e-9);
    let replay = case.command();
    if json {
        let mut value = serde_json::to_value(report)?;
        value["wall_seconds"] = seconds.into();
        value["events_per_second"] = rate.into();
        value["process_bytes"] = memory.into();
        value["replay"] = replay.into();
        println!("{value}");
        return Ok(());
    }
    let signatures = if report.real_signatures { "real signatures" } else { "stand-in signatures" };
    println!(
        "{}, seed {}: {} nodes, {} virtual seconds, {signatures}",
        report.scenario, report.seed, report.nodes, report.seconds
    );
    let per_node =
        |bytes: u64| format!("{} KiB of memory per node; ", bytes / 1024 / report.nodes.max(1) as u64);
    let memory = memory.map(per_node).unwrap_or_default();
    println!(
        "  {} datagrams, {} events in {seconds:.1} s: {rate:.0} events/s; {memory}trace {}",
        report.datagrams, report.events, report.trace
    );
    for figure in &report.figures {
        println!("  {:<45} {:>14.3}", figure.name, figure.value);
    }
    for check in &report.checks {
        let verdict = match check.verdict {
            Verdict::Holds => "holds ",
            Verdict::Broken => "BROKEN",
            Verdict::Unseen => "unseen",
        };
        println!(
            "  [{}] {verdict} {:<48} {:>9} looks  {}",
            check.invariant, check.claim, check.count, check.found
        );
    }
    if !report.holds() {
        println!("  again: {replay}");
    }
    Ok(())
}

fn print_table(table: &Table, json: bool) -> Outcome<()> {
    if json {
        println!("{}", serde_json::to_string(table)?);
        return Ok(());
    }
    println!("{}\n", table.title);
    println!("| {} |", table.columns.join(" | "));
    println!("|{}", "---:|".repeat(table.columns.len()));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|value| number(*value)).collect();
        println!("| {} |", cells.join(" | "));
    }
    Ok(())
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The resident memory of this process, in bytes.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

//! Runs networks of real nodes in a simulated world.

use crate::Outcome;
use elver::sim::faults::Fault;
use elver::sim::picture;
use elver::sim::report::{Report, Verdict};
use elver::sim::scenario::{SCENARIOS, Scenario, named};
use elver::sim::seeds::REGRESSIONS;
use elver::sim::stage::Options;
use elver::sim::tables::{TABLES, Table, make};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Parses the number of nodes. One node has no peer; more than 100,000 exceed a machine's memory.
fn nodes(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is no number from 2 to 100000");
    text.parse().ok().filter(|count| (2..=100_000).contains(count)).ok_or_else(wrong)
}

/// Play scenarios in a simulated world and check the design's invariants. The same seed gives the same run.
///
/// Scenarios: steady, flash-crowd, churn, mass-crash, partition, long-partition, site-power, rolling-reboot, hostile, eclipse,
/// junk, inflate, replay, one-prefix, one-shared, one-link, erase, sybil, reflect, cloned-image, power-loss, or "all". Tables:
/// lookups, rounds, detection, idle, repair.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The scenario to play, or "all".
    #[arg(long, default_value = "steady", conflicts_with = "table")]
    scenario: String,
    /// Make a table instead: lookups, rounds, detection, idle or repair.
    #[arg(long)]
    table: Option<String>,
    /// The number of nodes; for a table, several numbers separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = nodes)]
    nodes: Vec<usize>,
    /// Duration in virtual hours.
    #[arg(long)]
    hours: Option<f64>,
    /// Duration in virtual minutes.
    #[arg(long, conflicts_with = "hours", default_value_t = 30.0)]
    minutes: f64,
    /// The seed, or the first of several.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of seeds to play, one after the other. The last of several is played with real signatures.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The share of datagrams that are lost: 0.05 is one in twenty.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Faults to add: duplicate, reorder, pause, sleep, rebind, one-way, disk, slow, narrow.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Use real signatures.
    #[arg(long)]
    real: bool,
    /// Nodes join one after the other over ten minutes, instead of starting with remembered contacts.
    #[arg(long)]
    join: bool,
    /// Play the runs that once showed a defect.
    #[arg(long)]
    regressions: bool,
    /// Draw live copies of all pieces over time into this SVG file.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Answer in JSON, one object for each run.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let options = |seed: u64, real: bool| Options {
        nodes: arguments.nodes.first().copied().unwrap_or(100),
        duration: Duration::from_secs_f64(
            arguments.hours.map_or(arguments.minutes * 60.0, |hours| hours * 3600.0),
        ),
        seed,
        loss: arguments.loss,
        faults: arguments.faults.clone(),
        real_signatures: real,
        warm: !arguments.join,
    };
    if let Some(name) = &arguments.table {
        let table = make(name, &arguments.nodes, &options(arguments.seed, arguments.real));
        let table =
            table.ok_or_else(|| format!("no table is called {name}; there are {}", TABLES.join(", ")))?;
        print_table(&table, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut runs: Vec<(Scenario, Options)> = Vec::new();
    if arguments.regressions {
        for &(name, nodes, minutes, seed) in REGRESSIONS {
            let scenario = named(name).ok_or_else(|| format!("no scenario is called {name}"))?;
            runs.push((scenario, Options::small(nodes, minutes, seed)));
        }
    } else {
        for seed in arguments.seed..arguments.seed + arguments.seeds {
            let real = arguments.real || arguments.seeds > 1 && seed + 1 == arguments.seed + arguments.seeds;
            let found =
                SCENARIOS.iter().filter(|s| arguments.scenario == "all" || s.name == arguments.scenario);
            runs.extend(found.map(|scenario| (*scenario, options(seed, real))));
        }
    }
    if runs.is_empty() {
        let names: Vec<String> = SCENARIOS.iter().map(|s| format!("{} ({})", s.name, s.about)).collect();
        return Err(
            format!("no scenario is called {}; there are {}", arguments.scenario, names.join("; ")).into()
        );
    }
    let mut broken = false;
    for (scenario, options) in runs {
        let began = Instant::now();
        let outcome = (scenario.play)(&options);
        print_report(&outcome.report, &options, began.elapsed(), arguments.json)?;
        broken |= !outcome.report.holds();
        if let Some(path) = &arguments.picture {
            let title = format!("{}: {} nodes, seed {}", scenario.name, options.nodes, options.seed);
            std::fs::write(path, picture::draw(&title, &outcome.history))?;
        }
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The command that plays a run again.
fn replay_command(report: &Report, options: &Options) -> String {
    let mut command = format!(
        "cargo run --release -p elver-tools -- sim --scenario {} --nodes {} --minutes {} --seed {}",
        report.scenario,
        options.nodes,
        options.duration.as_secs_f64() / 60.0,
        report.seed
    );
    if options.loss > 0.0 {
        command += &format!(" --loss {}", options.loss);
    }
    if !options.faults.is_empty() {
        let names: Vec<&str> = options.faults.iter().map(|fault| fault.name()).collect();
        command += &format!(" --faults {}", names.join(","));
    }
    command += if options.real_signatures { " --real" } else { "" };
    command += if options.warm { "" } else { " --join" };
    command
}

fn print_report(report: &Report, options: &Options, took: Duration, json: bool) -> Outcome<()> {
    let seconds = took.as_secs_f64();
    let rate = report.events as f64 / seconds.max(1e-9);
    let memory = memory_bytes().unwrap_or_default();
    let replay = replay_command(report, options);
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
    println!(
        "  {} datagrams, {} events in {seconds:.1} s: {rate:.0} events/s; {} KiB of memory per node; trace {}",
        report.datagrams,
        report.events,
        memory / 1024 / report.nodes.max(1) as u64,
        report.trace
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

//! The speed of a scrub, and its cost to a transfer at the same time.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use crate::transfer::write_source;
use elver::node::command::{Command, Reply};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure the scrub: its MB/s alone, and the time of a transfer with and without a scrub, in turn.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Size of the file in MiB.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// The number of measurements of each.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The directory for files and nodes during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let source = work.join("source");
    write_source(&source, arguments.mib)?;
    let seed = Node::start(binary, work.join("seed"), None, &["--scrub", "0"])?;
    let reader = Node::start(binary, work.join("reader"), Some(seed.addr), &["--scrub", "0"])?;
    reader.wait_for_peers(1)?;
    let Reply::Put { hash, length, .. } =
        seed.request(&Command::Put { path: source, replicas: Some(0), lifetime: None })?
    else {
        return Err("put was answered with something else".into());
    };
    let mut fetched = 0;
    let mut fetch = || -> Outcome<f64> {
        fetched += 1;
        let target = work.join(format!("target{fetched}"));
        let began = Instant::now();
        reader.request(&Command::Get {
            hash,
            target: Some(target.clone()),
            force: false,
            mode: None,
            timeout: None,
        })?;
        let seconds = began.elapsed().as_secs_f64();
        reader.request(&Command::Remove { hash })?;
        fs::remove_file(&target)?;
        Ok(seconds)
    };
    let (mut alone, mut without, mut with) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let began = Instant::now();
        let Reply::Scrub { running: false, report } = seed.request(&Command::Scrub { background: false })?
        else {
            return Err("scrub was answered with something else".into());
        };
        if report.bad > 0 || report.bytes != length {
            return Err(format!("the scrub found {report:?}").into());
        }
        alone.push(length as f64 / 1e6 / began.elapsed().as_secs_f64());
        without.push(fetch()?);
        seed.request(&Command::Scrub { background: true })?;
        with.push(fetch()?);
        // Waits for the scrub to end. If it has ended already, this runs another round.
        seed.request(&Command::Scrub { background: false })?;
    }
    let (alone, without, with) = (median(&mut alone), median(&mut without), median(&mut with));
    let ratio = with / without;
    match arguments.json {
        true => println!(
            "{}",
            serde_json::json!({
                "mib": arguments.mib, "scrub_mb_per_s": alone, "get_s": without, "get_during_scrub_s": with,
                "ratio": ratio,
            })
        ),
        false => println!(
            "{} MiB: scrub alone {alone:.0} MB/s; get {without:.3} s, during a scrub {with:.3} s: {ratio:.2} times as long",
            arguments.mib
        ),
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

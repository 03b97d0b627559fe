//! One node fetches a file from another: how fast, and at what price.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use elver::node::command::{Command, Reply};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure one node fetching a file from another: MB/s, processor seconds and memory of both.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Size of the file in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// How often.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Where files and nodes are kept meanwhile: put it on the disk that is to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
    /// One JSON object a run.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let source = work.join("source");
    write_source(&source, arguments.mib)?;
    let gib = arguments.mib as f64 / 1024.0;
    for run in 0..arguments.runs {
        let seed = Node::start(binary, work.join("seed"), None, &[])?;
        let reader = Node::start(binary, work.join("reader"), Some(seed.addr), &[])?;
        reader.wait_for_peers(1)?;
        let began = Instant::now();
        let put = seed.request(&Command::Put { path: source.clone(), replicas: Some(0), lifetime: None })?;
        let put_seconds = began.elapsed().as_secs_f64();
        let Reply::Put { hash, length, .. } = put else {
            return Err("put was answered with something else".into());
        };
        let (put_usage, reader_before) = (seed.usage()?, reader.usage()?);
        let target = work.join("target");
        let began = Instant::now();
        reader.request(&Command::Get { hash, target: Some(target.clone()), force: false, timeout: None })?;
        let get_seconds = began.elapsed().as_secs_f64();
        let (seed_after, reader_after) = (seed.usage()?, reader.usage()?);
        if fs::metadata(&target)?.len() != length {
            return Err("the target is not as long as the source".into());
        }
        let rate = length as f64 / 1e6 / get_seconds;
        let put_rate = length as f64 / 1e6 / put_seconds;
        let cpu_seed = seed_after.cpu - put_usage.cpu;
        let cpu_reader = reader_after.cpu - reader_before.cpu;
        if arguments.json {
            let line = serde_json::json!({
                "mib": arguments.mib, "run": run, "put_s": put_seconds, "get_s": get_seconds, "get_mb_per_s": rate,
                "put_cpu_s": put_usage.cpu, "seed_cpu_s": cpu_seed, "reader_cpu_s": cpu_reader,
                "cpu_s_per_gib": (cpu_seed + cpu_reader) / gib,
                "seed_peak_kib": seed_after.peak, "reader_peak_kib": reader_after.peak,
                "seed_anonymous_kib": seed_after.anonymous, "reader_anonymous_kib": reader_after.anonymous,
            });
            println!("{line}");
        } else {
            println!(
                "{} MiB: put {put_seconds:.2} s ({put_rate:.0} MB/s), get {get_seconds:.2} s ({rate:.0} MB/s), \
                 processor seconds per GiB fetched {:.2} (seed {:.2}, reader {:.2}), \
                 peak memory seed {} KiB, reader {} KiB",
                arguments.mib,
                (cpu_seed + cpu_reader) / gib,
                cpu_seed / gib,
                cpu_reader / gib,
                seed_after.peak,
                reader_after.peak,
            );
        }
        drop((seed, reader));
        fs::remove_file(&target)?;
        fs::remove_dir_all(work.join("seed"))?;
        fs::remove_dir_all(work.join("reader"))?;
    }
    Ok(())
}

/// A file of bytes that nothing can compress, the same every time.
pub(crate) fn write_source(path: &Path, mib: u64) -> Outcome<()> {
    let mut stream = blake3::Hasher::new().update(b"elver-tools transfer").finalize_xof();
    let mut file = BufWriter::new(fs::File::create(path)?);
    let mut block = vec![0; 1 << 20];
    for _ in 0..mib {
        stream.fill(&mut block);
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}

//! One node fetches a file from another: the speed and the cost.

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
    /// The number of runs.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// The directory for files and nodes during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Measure `get -o -` at a node with a quota of 20 MiB, beside `get -o FILE` at another.
    #[arg(long)]
    stream: bool,
    /// Print one JSON object for each run.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let source = work.join("source");
    write_source(&source, arguments.mib)?;
    if arguments.stream {
        return (0..arguments.runs).try_for_each(|run| stream(binary, arguments, run, &work, &source));
    }
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
        reader.request(&Command::Get {
            hash,
            target: Some(target.clone()),
            force: false,
            mode: None,
            timeout: None,
        })?;
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

/// One run of `--stream`: a client writes the file to `/dev/null`, and another writes it to a file.
fn stream(binary: &Path, arguments: &Arguments, run: u32, work: &WorkDir, source: &Path) -> Outcome<()> {
    let seed = Node::start(binary, work.join("seed"), None, &[])?;
    let put = Command::Put { path: source.to_owned(), replicas: Some(0), lifetime: None };
    let Reply::Put { hash, length, .. } = seed.request(&put)? else {
        return Err("put was answered with something else".into());
    };
    let mut rates = Vec::new();
    for (name, output) in [("streamer", PathBuf::from("-")), ("reader", work.join("target"))] {
        let extra = if name == "streamer" { &["--quota", "20MiB"][..] } else { &[] };
        let reader = Node::start(binary, work.join(name), Some(seed.addr), extra)?;
        reader.wait_for_peers(1)?;
        let mut client = std::process::Command::new(binary);
        client.arg("--dir").arg(&reader.dir).args(["get", "-q", &hash.to_string(), "-o"]).arg(&output);
        let began = Instant::now();
        // The client hashes what it writes. Exit code 0 means that the hash was right.
        let mut client = client.stdout(std::process::Stdio::null()).spawn()?;
        let mut most = 0;
        let code = loop {
            if let Some(status) = client.try_wait()? {
                break status.code();
            }
            let files =
                fs::read_dir(reader.dir.join("incoming"))?.filter_map(|entry| entry.ok()?.metadata().ok());
            most = files.map(|metadata| metadata.len()).sum::<u64>().max(most);
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let seconds = began.elapsed().as_secs_f64();
        if code != Some(0) {
            return Err(format!("`elver get -o {}` ended with {code:?}", output.display()).into());
        }
        rates.push((length as f64 / 1e6 / seconds, seconds, reader.usage()?, most));
        drop(reader);
        fs::remove_dir_all(work.join(name))?;
    }
    let [(streamed, stream_s, streamer, window), (fetched, get_s, reader, _)] = rates[..] else {
        return Err("two ways were measured".into());
    };
    if arguments.json {
        let line = serde_json::json!({
            "mib": arguments.mib, "run": run, "stream_s": stream_s, "stream_mb_per_s": streamed,
            "get_s": get_s, "get_mb_per_s": fetched, "window_bytes": window,
            "streamer_peak_kib": streamer.peak, "streamer_anonymous_kib": streamer.anonymous,
            "streamer_cpu_s": streamer.cpu, "reader_peak_kib": reader.peak, "reader_cpu_s": reader.cpu,
        });
        println!("{line}");
    } else {
        println!(
            "{} MiB: -o - {stream_s:.2} s ({streamed:.0} MB/s), at most {window} bytes on disk, peak memory {} KiB; \
             -o FILE {get_s:.2} s ({fetched:.0} MB/s), peak memory {} KiB",
            arguments.mib, streamer.peak, reader.peak,
        );
    }
    let _ = fs::remove_file(work.join("target"));
    drop(seed);
    fs::remove_dir_all(work.join("seed"))?;
    Ok(())
}

/// Writes a file of incompressible bytes, the same in every run.
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

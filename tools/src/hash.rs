//! The cost of putting a file, beside that of hashing it.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use crate::transfer::write_source;
use elver::node::command::{Command, Reply};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure `put`, which hashes a file in place, beside the blake3 crate reading the same file in one thread.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Size of the file in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// The number of runs of each.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The directory for the file and the node during the run.
    #[arg(long)]
    work: Option<PathBuf>,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let source = work.join("source");
    write_source(&source, arguments.mib)?;
    let bytes = (arguments.mib << 20) as f64;
    let (mut of_blake3, mut of_put) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let began = Instant::now();
        let hash = blake3::Hasher::new().update_reader(fs::File::open(&source)?)?.finalize();
        of_blake3.push(began.elapsed().as_secs_f64());

        let dir = work.join("node");
        let node = Node::start(binary, dir.clone(), None, &[])?;
        let before = node.usage()?;
        let began = Instant::now();
        let reply =
            node.request(&Command::Put { path: source.clone(), replicas: Some(0), lifetime: None })?;
        of_put.push(began.elapsed().as_secs_f64());
        let cpu = node.usage()?.cpu - before.cpu;
        drop(node);
        fs::remove_dir_all(dir)?;
        let Reply::Put { hash: put, .. } = reply else {
            return Err("put was answered with something else".into());
        };
        if put.0 != *hash.as_bytes() {
            return Err("put and blake3 find different hashes".into());
        }
        println!(
            "blake3 {:.3} s, put {:.3} s and {cpu:.2} processor seconds",
            of_blake3.last().unwrap_or(&0.0),
            of_put.last().unwrap_or(&0.0),
        );
    }
    // The least of each: other load on the machine can only add time.
    let least = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let (blake3, put) = (least(&of_blake3), least(&of_put));
    println!(
        "{} MiB, the least of {} runs: blake3 {:.0} MB/s, put {:.0} MB/s, which is {:.2} of it",
        arguments.mib,
        arguments.runs,
        bytes / 1e6 / blake3,
        bytes / 1e6 / put,
        blake3 / put,
    );
    Ok(())
}

//! Many small files: the time to put them, to put them again, and to restart the node with them.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// Measure `elver put *` on many small files: the first time, again with nothing changed, and the node's start with them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The number of files.
    #[arg(long, default_value_t = 10_000)]
    files: u32,
    /// Bytes of each file.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// The number of nodes, including the one that the files are put into.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// The number of copies to ask for: 0 with one node.
    #[arg(long, default_value_t = 0)]
    replicas: u8,
    /// The directory for files and nodes during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let source = work.join("source");
    write_sources(&source, arguments)?;
    let others: Vec<Node> = (1..arguments.nodes)
        .scan(None, |first, index| {
            let node = Node::start(binary, work.join(format!("other{index}")), *first, &[]);
            *first = first.or(node.as_ref().ok().map(|node| node.addr));
            Some(node)
        })
        .collect::<Outcome<_>>()?;
    let bootstrap = others.first().map(|node| node.addr);
    let replicas = arguments.replicas.to_string();
    let start = || Node::start(binary, work.join("node"), bootstrap, &["--replicas", &replicas]);
    let node = start()?;
    node.wait_for_peers(arguments.nodes - 1)?;

    let first = put(binary, &node, &source, arguments.files)?;
    report("put", first, &node)?;
    let again = put(binary, &node, &source, arguments.files)?;
    report("put again, nothing changed", again, &node)?;

    drop(node);
    let began = Instant::now();
    let node = start()?;
    let listed = node.count_listed()?;
    if listed != arguments.files as usize {
        return Err(format!("{listed} of {} files are shared after a restart", arguments.files).into());
    }
    report("restart, until all are listed", began.elapsed().as_secs_f64(), &node)
}

/// Writes files. No two have the same content.
fn write_sources(source: &Path, arguments: &Arguments) -> Outcome<()> {
    fs::create_dir_all(source)?;
    let mut bytes = vec![0; arguments.bytes];
    for number in 0..arguments.files {
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        fs::write(source.join(format!("{number:06}")), &bytes)?;
    }
    rustix::fs::sync();
    Ok(())
}

/// Runs `elver put` on all files at once. Returns the seconds that it takes.
fn put(binary: &Path, node: &Node, source: &Path, files: u32) -> Outcome<f64> {
    let mut command = std::process::Command::new(binary);
    command.arg("--dir").arg(&node.dir).arg("put").current_dir(source);
    command.args((0..files).map(|number| format!("{number:06}")));
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let seconds = began.elapsed().as_secs_f64();
    let lines = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
    if lines != files as usize || !matches!(output.status.code(), Some(0 | 5)) {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or_default();
        return Err(format!("{lines} of {files} files were put ({}): {first}", output.status).into());
    }
    if !output.status.success() {
        println!("not every file has a quorum of its copies yet");
    }
    Ok(seconds)
}

fn report(what: &str, seconds: f64, node: &Node) -> Outcome<()> {
    let usage = node.usage()?;
    println!(
        "{what}: {seconds:.2} s; so far {:.2} processor seconds, {} KiB resident ({} KiB anonymous), {} KiB at the most",
        usage.cpu, usage.resident, usage.anonymous, usage.peak,
    );
    Ok(())
}

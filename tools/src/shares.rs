//! The cost of a share and of a piece: memory for each, and the time to put, list, recover at a start, and remove many.

use crate::Outcome;
use crate::node::{Node, Usage, WorkDir};
use elver::disk::Disk;
use elver::id::Key;
use elver::io::{Brought, DiskId, DiskOp, Mode, PieceMeta};
use elver::manifest::Content;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Instant;

/// Files in each directory of the tree.
const FILES_PER_DIRECTORY: u32 = 1000;
/// Files given to one run of `elver put` or `elver rm`.
const FILES_PER_COMMAND: u32 = 10_000;
/// Bytes that the disk processes in one turn while pieces are written.
const TURN_BYTES: u64 = 16 << 20;
/// Writes under way at a time.
const WRITES_MAX: usize = 256;

/// Measure the memory for each share and each piece, and the rates of put, ls, a restart and rm with many of them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The number of shared files.
    #[arg(long, default_value_t = 100_000)]
    files: u32,
    /// The number of pieces that a second node keeps for others.
    #[arg(long, default_value_t = 100_000)]
    pieces: u32,
    /// Bytes of each file, and of each piece.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// The directory for files and nodes during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let empty = Node::start(binary, work.join("empty"), None, &[])?.usage()?;
    println!("a node with nothing: {} KiB anonymous, {} KiB resident", empty.anonymous, empty.resident);
    if arguments.files > 0 {
        shares(binary, arguments, &work, &empty)?;
    }
    if arguments.pieces > 0 {
        pieces(binary, arguments, &empty)?;
    }
    Ok(())
}

/// Fills in the content of a file or a piece. Each number has its own content.
fn fill(bytes: &mut [u8], number: u32) {
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(bytes);
}

fn shares(binary: &Path, arguments: &Arguments, work: &WorkDir, empty: &Usage) -> Outcome<()> {
    let files = arguments.files;
    let source = work.join("source");
    let name = |number: u32| format!("{:04}/{number:07}", number / FILES_PER_DIRECTORY);
    let mut bytes = vec![0; arguments.bytes];
    for number in 0..files {
        let path = source.join(name(number));
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(path.parent().ok_or("a file lies in a directory")?)?;
        }
        fill(&mut bytes, number);
        fs::write(path, &bytes)?;
    }
    rustix::fs::sync();
    let start = || Node::start(binary, work.join("node"), None, &["--replicas", "0"]);
    let node = start()?;
    let report = |what: &str, seconds: f64, node: &Node| -> Outcome<()> {
        let (usage, status) = (node.usage()?, node.status()?);
        let each = (usage.anonymous.saturating_sub(empty.anonymous) * 1024) as f64 / f64::from(files);
        let slowest = status.counters.get("turn_micros_max").copied().unwrap_or(0);
        println!(
            "{what}: {seconds:.2} s ({:.0} files/s); {each:.0} bytes a share ({} KiB anonymous, {} KiB resident, \
             {} KiB at the most), {:.2} processor seconds, {} KiB written, slowest turn {} ms",
            f64::from(files) / seconds,
            usage.anonymous,
            usage.resident,
            usage.peak,
            usage.cpu,
            usage.written,
            slowest / 1000,
        );
        Ok(())
    };
    let commands = files.div_ceil(FILES_PER_COMMAND);
    let put = || -> Outcome<f64> {
        let began = Instant::now();
        for command in 0..commands {
            let first = command * FILES_PER_COMMAND;
            let names = (first..files.min(first + FILES_PER_COMMAND)).map(name);
            elver(binary, &node, &source, std::iter::once("put".to_owned()).chain(names))?;
        }
        Ok(began.elapsed().as_secs_f64())
    };
    report("put", put()?, &node)?;
    report("put again, nothing changed", put()?, &node)?;
    let (hashes, seconds) = list(binary, &node, &source, files)?;
    report("ls", seconds, &node)?;
    drop(node);
    let began = Instant::now();
    let node = start()?;
    report("restart, until it answers", began.elapsed().as_secs_f64(), &node)?;
    let (_, seconds) = list(binary, &node, &source, files)?;
    report("ls after the restart", seconds, &node)?;
    let began = Instant::now();
    for part in hashes.chunks(FILES_PER_COMMAND as usize) {
        elver(binary, &node, &source, std::iter::once("rm".to_owned()).chain(part.iter().cloned()))?;
    }
    report("rm", began.elapsed().as_secs_f64(), &node)?;
    match node.status()?.shares {
        0 => Ok(()),
        left => Err(format!("{left} files are still shared after rm").into()),
    }
}

/// Runs `elver ls`. Returns the addresses that it names, and the seconds that it takes.
fn list(binary: &Path, node: &Node, source: &Path, files: u32) -> Outcome<(Vec<String>, f64)> {
    let began = Instant::now();
    let output = elver(binary, node, source, std::iter::once("ls".to_owned()))?;
    let seconds = began.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout)?;
    let hashes: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    match hashes.len() == files as usize {
        true => Ok((hashes, seconds)),
        false => Err(format!("{} of {files} files are listed", hashes.len()).into()),
    }
}

fn elver(
    binary: &Path,
    node: &Node,
    directory: &Path,
    arguments: impl Iterator<Item = String>,
) -> Outcome<Output> {
    let mut command = std::process::Command::new(binary);
    command.arg("--dir").arg(&node.dir).args(arguments).current_dir(directory);
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("elver: {}: {}", output.status, said.lines().next().unwrap_or_default()).into());
    }
    Ok(output)
}

/// Writes pieces into a node's directory as the node does, and starts the node there. Each piece is synced: that takes minutes
/// on a disk, and no time in memory.
fn pieces(binary: &Path, arguments: &Arguments, empty: &Usage) -> Outcome<()> {
    let memory = Path::new("/dev/shm");
    let work = WorkDir::new(Some(memory).filter(|path| path.is_dir()).or(arguments.work.as_deref()))?;
    let dir = work.join("holder");
    let (mut disk, ..) = Disk::open(&dir)?;
    let mut bytes = vec![0; arguments.bytes];
    let mut waiting = 0;
    for number in 0..arguments.pieces {
        fill(&mut bytes, number);
        let meta = PieceMeta {
            key: Key(*blake3::hash(&bytes).as_bytes()),
            content: Content::File,
            length: arguments.bytes as u32,
            input_offset: 0,
            replicas: 3,
            mode: Mode::UNKNOWN,
            expires: 365 * 86_400,
            claim: None,
            brought: Brought::default(),
        };
        disk.submit(DiskId(u64::from(number)), DiskOp::WritePiece { meta, bytes: bytes.clone() });
        waiting += 1;
        while waiting >= WRITES_MAX || (number + 1 == arguments.pieces && waiting > 0) {
            disk.run(TURN_BYTES);
            while let Some(done) = disk.poll_done() {
                done.result?;
                waiting -= 1;
            }
        }
    }
    drop(disk);
    let began = Instant::now();
    let node = Node::start(binary, dir, None, &[])?;
    let (seconds, usage, kept) = (began.elapsed().as_secs_f64(), node.usage()?, node.status()?.pieces);
    if kept != arguments.pieces {
        return Err(format!("{kept} of {} pieces are kept", arguments.pieces).into());
    }
    let each = (usage.anonymous.saturating_sub(empty.anonymous) * 1024) as f64 / f64::from(kept);
    println!(
        "start with {kept} pieces of others: {seconds:.2} s; {each:.0} bytes a piece ({} KiB anonymous, {} KiB resident, \
         {} KiB at the most)",
        usage.anonymous, usage.resident, usage.peak
    );
    Ok(())
}

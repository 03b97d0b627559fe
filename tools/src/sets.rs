//! A directory of very many files as a set, beside rsync: put, get, get again, and get after a change.

use crate::Outcome;
use crate::compare::Process;
use crate::node::{Node, WorkDir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Files in each directory of the tree.
const FILES_PER_DIRECTORY: u32 = 1000;
/// One file in so many is changed.
const CHANGED: u32 = 1000;
/// The time between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);

/// Put a directory of many files as a set, get it at another node, get it again, and get it after a change; rsync -a does the same.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The number of files.
    #[arg(long, default_value_t = 100_000)]
    files: u32,
    /// Bytes of each file.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// The directory for files and nodes during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
    /// The rsync to compare with; without one it is left out.
    #[arg(long, default_value = "rsync")]
    rsync: PathBuf,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let (source, target, other) = (work.join("source"), work.join("target"), work.join("rsync"));
    for number in 0..arguments.files {
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(path(&source, number).parent().ok_or("a file lies in a directory")?)?;
        }
        write(&path(&source, number), number, arguments.bytes, 1_600_000_000)?;
    }
    rustix::fs::sync();
    let shares = (u64::from(arguments.files) + 10).to_string();
    let extra = ["--replicas", "0", "--shares", &shares];
    let a = Node::start(binary, work.join("a"), None, &extra)?;
    let b = Node::start(binary, work.join("b"), Some(a.addr), &extra)?;
    b.wait_for_peers(1)?;
    let elver = |what: &str, node: &Node, more: &[&str]| -> Outcome<String> {
        let mut command = Command::new(binary);
        command.arg("-q").arg("--dir").arg(&node.dir).args(more);
        let said = measured(what, &mut command, &work.join("."))?;
        for (name, node) in [("putting", &a), ("getting", &b)] {
            let usage = node.usage()?;
            println!(
                "    the {name} node: {} KiB anonymous, {} KiB at the most, {:.2} processor seconds so far",
                usage.anonymous, usage.peak, usage.cpu
            );
        }
        Ok(said)
    };
    let address = |said: &str| said.split_whitespace().next().map(str::to_owned).ok_or("no address");
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let rsync = |what: &str| -> Outcome<()> {
        let mut command = Command::new(&arguments.rsync);
        command.arg("-a").arg(format!("{}/", name(&source))).arg(format!("{}/", name(&other)));
        measured(what, &mut command, &work.join(".")).map(drop)
    };
    let has_rsync = Command::new(&arguments.rsync)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|it| it.success());
    let set = address(&elver("put", &a, &["put", &name(&source)])?)?;
    elver("get", &b, &["get", &set, "-o", &name(&target)])?;
    if has_rsync {
        rsync("rsync -a")?;
    }
    elver("get again, nothing differs", &b, &["get", &set, "-o", &name(&target)])?;
    if has_rsync {
        rsync("rsync -a again, nothing differs")?;
    }
    for number in (0..arguments.files).step_by(CHANGED as usize) {
        write(&path(&source, number), !number, arguments.bytes, 1_700_000_000)?;
    }
    let set = address(&elver("put, one in 1000 changed", &a, &["put", &name(&source)])?)?;
    elver("get, one in 1000 changed", &b, &["get", &set, "-o", &name(&target)])?;
    if has_rsync {
        rsync("rsync -a, one in 1000 changed")?;
    }
    let same = Command::new("diff").arg("-r").arg(&source).arg(&target).stdout(Stdio::null()).status()?;
    if same.success() { Ok(()) } else { Err("the directories differ".into()) }
}

fn path(root: &Path, number: u32) -> PathBuf {
    root.join(format!("{:04}/{number:07}", number / FILES_PER_DIRECTORY))
}

/// Each number has its own content.
fn write(path: &Path, number: u32, bytes: usize, seconds: u64) -> Outcome<()> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut content);
    fs::write(path, content)?;
    fs::File::options().write(true).open(path)?.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))?;
    Ok(())
}

/// Runs a command to its end, and prints what it used. Returns what it said.
fn measured(what: &str, command: &mut Command, dir: &Path) -> Outcome<String> {
    let began = Instant::now();
    let mut process = Process::start(command, dir, "command")?;
    while !process.has_ended()? {
        std::thread::sleep(LOOK);
    }
    let (seconds, used) = (began.elapsed().as_secs_f64(), process.sample());
    println!("{what}: {seconds:.2} s; {:.2} processor seconds, {} KiB at the most", used.cpu, used.peak);
    Ok(process.said())
}

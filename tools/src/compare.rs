//! Elver beside other programs: the same work, in turn, on the same machine.

mod dht;
mod process;
mod programs;
mod torrent;

use crate::Outcome;
use crate::node::WorkDir;
use crate::transfer::write_source;
pub(crate) use process::Process;
use process::Usage;
use programs::{Net, Program, Run, Tools};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Set for the run inside a network namespace of its own.
const INSIDE: &str = "ELVER_COMPARE_INSIDE";
/// The interval at which processes are checked for their end while the clock runs.
const LOOK: Duration = Duration::from_millis(2);
/// The interval at which their memory is sampled.
const SAMPLE: Duration = Duration::from_millis(20);

/// Measure Elver beside other programs: wall time, processor time, memory, and the bytes that the seed sends.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The cases to measure.
    #[arg(long, value_delimiter = ',', default_values = ["one", "cold", "swarm"])]
    cases: Vec<Case>,
    /// The programs, in the order of their turns. A program that is not installed is left out.
    #[arg(long, value_delimiter = ',', default_values = ["elver", "elver-cold", "aria2", "rqbit-one", "rqbit", "libtorrent", "sendme", "transmission", "nginx"])]
    programs: Vec<Program>,
    /// The number of runs of each program.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Size of the file in MiB, instead of each case's own.
    #[arg(long)]
    mib: Option<u64>,
    /// The directory of programs that are not on the PATH.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// The Python that has the module libtorrent.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The directory for files during the run, on the disk to be measured.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Seconds after which a run is given up.
    #[arg(long, default_value_t = 180)]
    timeout: u64,
    /// The number of nodes in the case dht.
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// The number of values in the case dht.
    #[arg(long, default_value_t = 500)]
    keys: usize,
    /// Gets at a time in the second phase of the case dht.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Also print one JSON object for each run, on standard error.
    #[arg(long)]
    json: bool,
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Case {
    /// 1 GiB from one node to another.
    One,
    /// 64 MiB from one node to another: the cost of start and end.
    Cold,
    /// 256 MiB from one node to seven that fetch it together.
    Swarm,
    /// Signed values in a network of small nodes, one at a time and many at a time. Elver and libtorrent.
    Dht,
}

impl Case {
    fn mib(self) -> u64 {
        match self {
            Case::One => 1024,
            Case::Cold => 64,
            Case::Swarm => 256,
            Case::Dht => 0,
        }
    }

    fn fetchers(self) -> usize {
        if self == Case::Swarm { 7 } else { 1 }
    }
}

/// The resources that one run took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    wall: f64,
    seed: Usage,
    /// Processor seconds of all fetchers, and memory of the one that used most.
    fetching: Usage,
    sent: Option<u64>,
}

pub(crate) fn run(elver: &Path, arguments: &Arguments) -> Outcome<()> {
    let Some(net) = enter_namespace()? else { return Ok(()) };
    let elver = elver.canonicalize()?;
    let (bin_dir, python) = (arguments.bin_dir.clone(), arguments.python.clone());
    let tools = Tools { elver, bin_dir, python, net };
    if arguments.cases.contains(&Case::Dht) {
        let work = dht::Work { nodes: arguments.nodes, keys: arguments.keys, in_flight: arguments.in_flight };
        dht::run(&tools, work, arguments.runs, arguments.json)?;
        if arguments.cases.len() == 1 {
            return Ok(());
        }
    }
    let mut programs = Vec::new();
    for &program in &arguments.programs {
        match tools.lacks(program) {
            None => programs.push(program),
            Some(why) => println!("{} is left out: {why}.", name(program)),
        }
    }
    let work = WorkDir::new(arguments.work.as_deref())?;
    for &case in arguments.cases.iter().filter(|case| **case != Case::Dht) {
        let mib = arguments.mib.unwrap_or(case.mib());
        let source = work.join(format!("source{mib}"));
        write_source(&source, mib)?;
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); programs.len()];
        for turn in 0..arguments.runs {
            // The first program changes with every turn: each program finds the page cache as its predecessor left it.
            for place in 0..programs.len() {
                let index = (place + turn) % programs.len();
                let (program, results) = (programs[index], &mut measured[index]);
                let dir = work.join(format!("{case:?}-{turn}-{}", name(program)));
                let limit = Duration::from_secs(arguments.timeout);
                match measure(
                    Run::new(program, &tools, &source, dir.clone(), case == Case::Swarm)?,
                    case,
                    &source,
                    limit,
                ) {
                    Ok(result) => {
                        if arguments.json {
                            eprintln!("{}", json(case, mib, program, &result));
                        }
                        results.push(result);
                    }
                    Err(error) => println!("{}: {error}", name(program)),
                }
                fs::remove_dir_all(&dir)?;
            }
        }
        print_table(case, mib, &programs, &measured);
        fs::remove_file(&source)?;
    }
    Ok(())
}

/// Continues in a child inside a network namespace of its own, where that is allowed. `None` when such a child did the work.
fn enter_namespace() -> Outcome<Option<Net>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(Some(Net::Own));
    }
    let set_up =
        "ip link set lo up && for i in $(seq 64); do ip addr add 10.9.0.$i/32 dev lo || exit 1; done";
    let tried = std::process::Command::new("unshare").args(["-n", "sh", "-c", set_up]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return Ok(Some(Net::Loopback));
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["-n", "sh", "-c", &format!("{set_up} && exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    match command.status()?.success() {
        true => Ok(None),
        false => Err("the comparison failed".into()),
    }
}

fn measure(mut run: Run<'_>, case: Case, source: &Path, limit: Duration) -> Outcome<Measured> {
    rustix::fs::sync();
    let mut seed = run.seed()?;
    let fetchers = 1..=case.fetchers();
    let mut sides: Vec<Vec<Process>> = Vec::new();
    for index in fetchers.clone() {
        sides.push(run.ahead(index)?.into_iter().collect());
    }
    let mib = fs::metadata(source)?.len() >> 20;
    touch_memory(run.work(), mib * case.fetchers() as u64)?;
    let seed_before = seed.sample();
    let before: f64 = sides.iter_mut().flatten().map(|process| process.sample().cpu).sum();
    let began = Instant::now();
    for (index, side) in fetchers.clone().zip(&mut sides) {
        side.extend(run.fetch(index, &seed)?);
    }
    let mut sampled = began;
    let mut done = vec![None; sides.len()];
    while done.contains(&None) {
        for ((index, side), done) in
            fetchers.clone().zip(&mut sides).zip(&mut done).filter(|(_, done)| done.is_none())
        {
            let last = side.last_mut().expect("each side has a process");
            let over = match run.mark(index) {
                Some(mark) => mark.exists() || last.has_ended()? && !mark.exists(),
                None => last.has_ended()?,
            };
            *done = over.then(|| began.elapsed());
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            seed.sample();
            sides.iter_mut().flatten().for_each(|process| _ = process.sample());
        }
        if began.elapsed() > limit {
            return Err("it took too long".into());
        }
        std::thread::sleep(LOOK);
    }
    let wall = done.iter().flatten().max().map_or(0.0, Duration::as_secs_f64);
    let mut fetching = Usage { cpu: -before, ..Usage::default() };
    for process in sides.iter_mut().flatten() {
        let used = process.sample();
        fetching.cpu += used.cpu;
        fetching.peak = fetching.peak.max(used.peak);
        fetching.anonymous = fetching.anonymous.max(used.anonymous);
    }
    let mut used = seed.sample();
    used.cpu -= seed_before.cpu;
    let sent = run.sent();
    drop(sides);
    seed.stop();
    for index in fetchers {
        if !same(source, &run.target(index))? {
            return Err("what was fetched is not what was offered".into());
        }
    }
    Ok(Measured { wall, seed: used, fetching, sent: sent.or_else(|| run.sent()) })
}

/// Fills as much of the page cache as the runs will write, and frees it. On a virtual machine, the first touch of memory that
/// was free for long costs the host more than the copy does. Without this, the first program would pay for all others.
fn touch_memory(work: &Path, mib: u64) -> Outcome<()> {
    let path = work.join("touched");
    let mut file = fs::File::create(&path)?;
    let block = vec![0; 1 << 20];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    fs::remove_file(&path)?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> Outcome<bool> {
    let hash = |path: &Path| -> Outcome<blake3::Hash> {
        let mut file = fs::File::open(path)?;
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finalize()),
                count => hasher.update(&buffer[..count]),
            };
        }
    };
    Ok(hash(one)? == hash(other)?)
}

fn name(program: Program) -> String {
    clap::ValueEnum::to_possible_value(&program).map_or_else(String::new, |value| value.get_name().to_owned())
}

fn json(case: Case, mib: u64, program: Program, measured: &Measured) -> serde_json::Value {
    let Measured { wall, seed, fetching, sent } = measured;
    serde_json::json!({
        "case": format!("{case:?}").to_lowercase(), "mib": mib, "program": name(program), "wall_s": wall,
        "fetch_cpu_s": fetching.cpu, "fetch_peak_kib": fetching.peak, "fetch_anonymous_kib": fetching.anonymous,
        "seed_cpu_s": seed.cpu, "seed_peak_kib": seed.peak, "seed_anonymous_kib": seed.anonymous, "seed_sent_bytes": sent,
    })
}

/// Prints the median of each column, and each program's ratios to the first in time and cost.
fn print_table(case: Case, mib: u64, programs: &[Program], measured: &[Vec<Measured>]) {
    println!("\n{mib} MiB, one to {}: medians, and ratios to the first line", case.fetchers());
    println!(
        "{:<13} {:>4} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>15} {:>15} {:>9}",
        "program",
        "runs",
        "wall s",
        "MB/s",
        "fetch CPU",
        "seed CPU",
        "wall ×",
        "CPU ×",
        "fetch MiB,anon",
        "seed MiB,anon",
        "sent"
    );
    let bytes = (mib << 20) as f64;
    let mut first = None;
    for (&program, results) in programs.iter().zip(measured).filter(|(_, results)| !results.is_empty()) {
        let of = |value: fn(&Measured) -> f64| median(results.iter().map(value).collect());
        let (wall, fetch, seed) = (of(|m| m.wall), of(|m| m.fetching.cpu), of(|m| m.seed.cpu));
        let cpu = of(|m| m.fetching.cpu + m.seed.cpu);
        let (first_wall, first_cpu) = *first.get_or_insert((wall, cpu));
        let memory = |peak: f64, anonymous: f64| format!("{:.1}, {:.1}", peak / 1024.0, anonymous / 1024.0);
        let sent: Vec<f64> = results.iter().filter_map(|m| m.sent).map(|sent| sent as f64).collect();
        let copies = if sent.is_empty() { "-".to_owned() } else { format!("{:.2}", median(sent) / bytes) };
        println!(
            "{:<13} {:>4} {wall:>8.3} {:>8.0} {fetch:>9.2} {seed:>9.2} {:>8.2} {:>8.2} {:>15} {:>15} {copies:>9}",
            name(program),
            results.len(),
            bytes / 1e6 / wall,
            wall / first_wall,
            cpu / first_cpu,
            memory(of(|m| m.fetching.peak as f64), of(|m| m.fetching.anonymous as f64)),
            memory(of(|m| m.seed.peak as f64), of(|m| m.seed.anonymous as f64)),
        );
    }
    println!(
        "CPU: processor seconds of each side. MiB, anon: peak resident memory of one process, and of that what is no file's."
    );
    println!("sent: copies of the file that the seed says it has sent.");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 0 => (values[count / 2 - 1] + values[count / 2]) / 2.0,
        count => values[count / 2],
    }
}

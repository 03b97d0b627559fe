//! Signed values in a network of small nodes: Elver beside libtorrent's DHT with mutable items (BEP 44).

use super::median;
use super::programs::{Net, Program, Tools};
use crate::Outcome;
use crate::node::{Node, WorkDir};
use elver::id::PublicKey;
use elver::identity::Identity;
use elver::net::connect_control;
use elver::node::command::Command;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest time to wait for one response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(60);
/// The most values being published at a time.
const SETS_IN_FLIGHT: usize = 4;
/// The time for the nodes to find each other, the same for both programs.
const SETTLING: Duration = Duration::from_secs(15);
/// The number of gets of each key in the second phase.
const ROUNDS: usize = 4;
const VALUE_BYTES: usize = 128;

/// The size of the network and of the workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) nodes: usize,
    pub(super) keys: usize,
    pub(super) in_flight: usize,
}

/// The gets of one phase.
#[derive(Clone, Debug, Deserialize)]
struct Phase {
    /// The seconds that each get took that found its value.
    latencies: Vec<f64>,
    /// When each of these gets ended, in seconds from the start of the phase.
    ended: Vec<f64>,
    /// The number of gets.
    asked: usize,
    /// Processor seconds of all nodes and of the client.
    processor: f64,
    /// Datagrams sent.
    datagrams: u64,
}

/// The columns of the table: one phase, or the medians of several.
#[derive(Clone, Copy)]
struct Figures {
    found: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    processor_ms: f64,
    datagrams: f64,
}

impl Phase {
    fn figures(&self) -> Figures {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted.get((sorted.len() as f64 * part) as usize).map_or(0.0, |s| s * 1e3);
        let gets = sorted.len().max(1) as f64;
        // The rate until 99 % of the gets were done: a single lost answer must not decide it.
        let most = (sorted.len() * 99).div_ceil(100);
        let seconds = self.ended.get(most.saturating_sub(1)).copied().unwrap_or(f64::INFINITY);
        Figures {
            found: sorted.len() as f64 / self.asked.max(1) as f64,
            per_second: most as f64 / seconds,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            processor_ms: self.processor * 1e3 / gets,
            datagrams: self.datagrams as f64 / gets,
        }
    }
}

/// Measures the programs in turn and prints a table.
pub(super) fn run(tools: &Tools, work: Work, runs: usize, json: bool) -> Outcome<()> {
    let mut programs = Vec::new();
    for program in [Program::Elver, Program::Libtorrent] {
        match tools.lacks(program) {
            None => programs.push(program),
            Some(why) => println!("{} is left out: {why}.", super::name(program)),
        }
    }
    if tools.net == Net::Loopback {
        println!("without a network namespace, datagrams of other programs on this machine count, too");
    }
    let dir = WorkDir::new(None)?;
    let mut measured: Vec<Vec<[Phase; 2]>> = vec![Vec::new(); programs.len()];
    for turn in 0..runs {
        for place in 0..programs.len() {
            let index = (place + turn) % programs.len();
            let dir = dir.join(format!("dht{turn}-{index}"));
            fs::create_dir_all(&dir)?;
            let result = match programs[index] {
                Program::Elver => elver(&tools.elver, &dir, work),
                _ => libtorrent(&tools.python, work),
            };
            match result {
                Ok(phases) => {
                    if json {
                        for (phase, in_flight) in phases.iter().zip([1, work.in_flight]) {
                            eprintln!("{}", to_json(programs[index], in_flight, &phase.figures()));
                        }
                    }
                    measured[index].push(phases);
                }
                Err(error) => println!("{}: {error}", super::name(programs[index])),
            }
            fs::remove_dir_all(&dir)?;
        }
    }
    print_table(work, &programs, &measured);
    Ok(())
}

fn to_json(program: Program, in_flight: usize, figures: &Figures) -> Value {
    serde_json::json!({
        "case": "dht", "program": super::name(program), "in_flight": in_flight, "found": figures.found,
        "gets_per_second": figures.per_second, "p50_ms": figures.p50_ms, "p99_ms": figures.p99_ms,
        "processor_ms_per_get": figures.processor_ms, "datagrams_per_get": figures.datagrams,
    })
}

/// A network of node processes. One more node serves the client, over a single connection.
fn elver(binary: &Path, dir: &Path, work: Work) -> Outcome<[Phase; 2]> {
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..=work.nodes {
        let bootstrap = nodes.first().map(|node: &Node| node.addr);
        nodes.push(Node::start(binary, dir.join(index.to_string()), bootstrap, &[])?);
    }
    let (publisher, client) = (&nodes[0], &nodes[work.nodes]);
    client.wait_for_peers(work.nodes.min(20) as u32)?;
    std::thread::sleep(SETTLING);
    let key = publisher.public()?;
    let mut connection = Connection::open(&publisher.dir)?;
    let sets = (0..work.keys).map(|number| Command::Set {
        name: format!("key {number}"),
        value: vec![b'x'; VALUE_BYTES],
        lifetime: None,
    });
    let (published, _) = connection.keep_busy(sets, SETS_IN_FLIGHT)?;
    if published.len() != work.keys {
        return Err(format!("{} of {} values were published", published.len(), work.keys).into());
    }
    let mut connection = Connection::open(&client.dir)?;
    let lookup =
        |number: usize| Command::Lookup { publisher: key, name: format!("key {number}"), fresh: true };
    let mut phase = |gets: usize, in_flight: usize| -> Outcome<Phase> {
        let before = (processor_of(&nodes)?, datagrams_sent()?);
        let (latencies, ended) =
            connection.keep_busy((0..gets).map(|get| lookup(get % work.keys)), in_flight)?;
        let (processor, datagrams) = (processor_of(&nodes)? - before.0, datagrams_sent()? - before.1);
        Ok(Phase { latencies, ended, asked: gets, processor, datagrams })
    };
    Ok([phase(work.keys, 1)?, phase(ROUNDS * work.keys, work.in_flight)?])
}

/// Processor seconds that the nodes have used. A node has one thread.
fn processor_of(nodes: &[Node]) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for node in nodes {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", node.process_id()))?;
        nanoseconds += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Datagrams sent in this network namespace.
fn datagrams_sent() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().into_iter().flatten(), lines.next().into_iter().flatten());
    let sent = names.zip(values).find(|(name, _)| *name == "OutDatagrams");
    Ok(sent.ok_or("/proc/net/snmp does not count datagrams")?.1.parse()?)
}

/// A connection to a node's control socket that carries many commands at a time.
struct Connection {
    socket: BufReader<UnixStream>,
}

impl Connection {
    fn open(dir: &Path) -> Outcome<Self> {
        let socket = connect_control(dir)?;
        socket.set_read_timeout(Some(RESPONSE_LIMIT))?;
        Ok(Connection { socket: BufReader::with_capacity(256 << 10, socket) })
    }

    /// Sends the commands, with `in_flight` at a time. Returns the seconds that each successful one took, and when it ended.
    fn keep_busy(
        &mut self,
        commands: impl Iterator<Item = Command>,
        in_flight: usize,
    ) -> Outcome<(Vec<f64>, Vec<f64>)> {
        let (mut commands, mut under_way) = (commands.enumerate(), BTreeMap::new());
        let (began, mut latencies, mut ended) = (Instant::now(), Vec::new(), Vec::new());
        loop {
            while under_way.len() < in_flight {
                let Some((number, command)) = commands.next() else { break };
                let mut line = serde_json::to_value(&command)?;
                line["id"] = number.into();
                self.socket.get_mut().write_all(format!("{line}\n").as_bytes())?;
                under_way.insert(number as u64, Instant::now());
            }
            if under_way.is_empty() {
                return Ok((latencies, ended));
            }
            let mut line = String::new();
            if self.socket.read_line(&mut line)? == 0 {
                return Err("the node closed the connection".into());
            }
            let answer: Value = serde_json::from_str(&line)?;
            let begun = answer["id"].as_u64().and_then(|number| under_way.remove(&number));
            match (begun, answer["event"].as_str()) {
                (Some(begun), Some("done")) => {
                    latencies.push(begun.elapsed().as_secs_f64());
                    ended.push(began.elapsed().as_secs_f64());
                }
                (Some(_), Some("failed")) => {}
                _ => return Err(format!("an unexpected answer: {line}").into()),
            }
        }
    }
}

/// A network of libtorrent sessions in one process, driven by a script.
fn libtorrent(python: &Path, work: Work) -> Outcome<[Phase; 2]> {
    let (secret, public) = key_pair();
    let numbers = [work.nodes, work.keys, work.in_flight].map(|number| number.to_string());
    let mut command = std::process::Command::new(python);
    command.args(["-c", include_str!("dht.py")]).args(numbers).args([secret, public.to_string()]);
    let output = command.output()?;
    let mut phases = output.stdout.split(|byte| *byte == b'\n').map(serde_json::from_slice::<Phase>);
    match (phases.next(), phases.next()) {
        (Some(Ok(one)), Some(Ok(many))) => Ok([one, many]),
        _ => Err(format!("the script failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// An Ed25519 secret in hexadecimal, and its public key.
fn key_pair() -> (String, PublicKey) {
    let secret = [7; 32];
    let text = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    (text, Identity::from_secret(&secret).public())
}

/// Prints the medians of the runs.
fn print_table(work: Work, programs: &[Program], measured: &[Vec<[Phase; 2]>]) {
    println!(
        "\n{} keys, signed values of {VALUE_BYTES} bytes, {} nodes and a client: medians of the runs",
        work.keys, work.nodes
    );
    println!(
        "{:<12} {:>9} {:>5} {:>7} {:>9} {:>9} {:>9} {:>11} {:>14}",
        "program", "in flight", "runs", "found", "gets/s", "p50 ms", "p99 ms", "CPU ms/get", "datagrams/get"
    );
    for (phase, in_flight) in [1, work.in_flight].into_iter().enumerate() {
        for (&program, runs) in programs.iter().zip(measured).filter(|(_, runs)| !runs.is_empty()) {
            let of = |value: fn(&Figures) -> f64| {
                median(runs.iter().map(|phases| value(&phases[phase].figures())).collect())
            };
            println!(
                "{:<12} {in_flight:>9} {:>5} {:>6.1}% {:>9.0} {:>9.2} {:>9.2} {:>11.3} {:>14.1}",
                super::name(program),
                runs.len(),
                of(|f| f.found) * 100.0,
                of(|f| f.per_second),
                of(|f| f.p50_ms),
                of(|f| f.p99_ms),
                of(|f| f.processor_ms),
                of(|f| f.datagrams),
            );
        }
    }
    println!(
        "gets/s: until 99 % were done. CPU: processor milliseconds of all nodes together; with libtorrent, of its client's script as well."
    );
    println!("datagrams: all that were sent meanwhile, answers and the nodes' own upkeep included.");
}

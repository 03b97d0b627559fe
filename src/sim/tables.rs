//! Measurements, by network size.

use super::adversary::{Adversary, Sent};
use super::disk::Crash;
use super::invariants::{convergence, detection::Detection, fairness};
use super::ledger::Ledger;
use super::link::Addressing;
use super::observe::Observer;
use super::population::{self, Joining};
use super::report::{quantile, sorted};
use super::stage::{Options, Stage};
use super::world::{Plan, World};
use crate::id::{NodeId, PublicKey};
use crate::identity::Identity;
use crate::time::{Duration, Instant};
use crate::wire::datagram::Unverified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use crate::wire::network::Network;
use core::cell::RefCell;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A table of measurements.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Table {
    /// The subject of the table.
    pub title: String,
    /// The columns' names.
    pub columns: Vec<&'static str>,
    /// One row for each size of the network.
    pub rows: Vec<Vec<f64>>,
}

/// The names of all tables.
pub const TABLES: [&str; 6] = ["lookups", "rounds", "detection", "idle", "repair", "sight"];

/// Makes a table for networks of these sizes. `None` when no table has that name.
pub fn make(name: &str, sizes: &[usize], options: &Options) -> Option<Table> {
    let (title, columns, row): (&str, _, Row) = match name {
        "lookups" => (
            "hops and messages of a lookup",
            vec![
                "nodes",
                "hops, mean",
                "hops, most",
                "asked, mean",
                "asked, p99",
                "seconds, median",
                "success %",
            ],
            lookups,
        ),
        "rounds" => (
            "rounds until 99.9 % of live nodes know a state",
            vec!["nodes", "mean", "most", "mean, 10 % loss", "most, 10 % loss", "allowed"],
            rounds,
        ),
        "detection" => (
            "seconds until the 20 nearest know of a crash",
            vec!["nodes", "p50", "p99", "observations"],
            detection,
        ),
        "idle" => (
            "datagrams that an idle node sends in a second, UDP and IP headers included",
            vec!["nodes", "datagrams", "bytes"],
            idle,
        ),
        "repair" => (
            "bytes copied after a tenth of all nodes is gone for good",
            vec!["nodes", "stored", "copied", "necessary", "ratio", "fewest copies"],
            repair,
        ),
        "sight" => (
            "live members that the node sees which sees fewest, after all have started together",
            vec![
                "nodes",
                "10 s",
                "30 s",
                "60 s",
                "120 s",
                "300 s",
                "all, s",
                "KB sent a node",
                "one /24: 30 s",
                "all, s",
                "KB sent a node",
            ],
            sight,
        ),
        _ => return None,
    };
    let rows = sizes.iter().map(|&nodes| row(&Options { nodes, ..options.clone() })).collect();
    Some(Table { title: title.to_owned(), columns, rows })
}

/// Measures one row, for one network size.
type Row = fn(&Options) -> Vec<f64>;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Measures the hops of one host's lookups. It changes no traffic.
struct Tap {
    network: Network,
    own: NodeId,
    hops: Rc<RefCell<Hops>>,
}

#[derive(Default)]
struct Hops {
    /// For each node that an answer named: the hops of the answer that first named it. A node that was known before the lookup
    /// may be absent.
    heard: BTreeMap<PublicKey, u32>,
    deepest: u32,
}

impl Adversary for Tap {
    fn incoming(&mut self, _: Instant, _: SocketAddr, bytes: &[u8], _: &mut Vec<Sent>) -> bool {
        let found =
            Unverified::parse(bytes, &self.network).ok().filter(|parsed| parsed.kind() == Kind::Found);
        if let Some(datagram) = found.and_then(|found| found.verify(&self.network, &self.own).ok()) {
            let mut hops = self.hops.borrow_mut();
            let depth = hops.heard.get(&datagram.public()).copied().unwrap_or(0) + 1;
            hops.deepest = hops.deepest.max(depth);
            if let Message::Found { contacts, .. } = datagram.message() {
                for contact in contacts {
                    hops.heard.entry(contact.public).or_insert(depth);
                }
            }
        }
        true
    }
}

fn lookups(options: &Options) -> Vec<f64> {
    const LOOKUPS: usize = 100;
    let mut stage = Stage::new("lookups", options, |_| ());
    stage.fill(0, 50);
    let mut depths = Vec::new();
    for _ in 0..LOOKUPS {
        let host = stage.world.chance.index(options.nodes);
        let identity: Identity = stage.world.hosts[host].identity();
        let hops = Rc::new(RefCell::new(Hops::default()));
        let network = Network::of("simulation", &identity);
        let tap = Tap { network, own: identity.id(), hops: Rc::clone(&hops) };
        stage.world.set_adversary(host, Box::new(tap));
        let index = stage.world.chance.index(stage.work.values.len());
        stage.work.lookup(&mut stage.world, host, index);
        stage.run_for(Duration::from_secs(10));
        stage.world.clear_adversary(host);
        depths.push(f64::from(hops.borrow().deepest));
    }
    let (depths, tally) = (sorted(depths), &stage.work.lookups);
    let (asked, seconds) = (sorted(tally.asked.clone()), sorted(tally.seconds.clone()));
    vec![
        options.nodes as f64,
        mean(&depths),
        quantile(&depths, 1.0),
        mean(&asked),
        quantile(&asked, 0.99),
        quantile(&seconds, 0.5),
        tally.success() * 100.0,
    ]
}

/// Restarts some hosts, one after the other. Each restart makes a new state, and the spread of that state is measured: first with
/// the links as configured, then with a tenth of all datagrams lost.
fn rounds(options: &Options) -> Vec<f64> {
    const STATES: usize = 5;
    const INTERVAL: Duration = Duration::from_secs(5);
    let mut stage = Stage::new("rounds", options, |_| ());
    stage.run_for(Duration::from_secs(600));
    let mut row = vec![options.nodes as f64];
    for loss in [options.loss, 0.1] {
        stage.world.links.plan.loss = loss;
        stage.run_for(Duration::from_secs(60));
        let mut rounds = Vec::new();
        for _ in 0..STATES {
            let host = stage.world.chance.index(options.nodes);
            stage.world.crash(host, Crash::Kill);
            stage.run_for(Duration::from_secs(2));
            stage.world.start(host, &[]);
            let Some(spread) = convergence::Spread::begin(&stage.world, &stage.observer, host, INTERVAL)
            else {
                continue;
            };
            let limit = stage.world.now() + INTERVAL * 100;
            while !spread.is_over(&stage.world, &stage.observer) && stage.world.now() < limit {
                stage.run_for(Duration::from_secs(1));
            }
            rounds.push(spread.rounds(&stage.world));
        }
        let rounds = sorted(rounds);
        row.extend([mean(&rounds), quantile(&rounds, 1.0)]);
    }
    row.push(convergence::rounds_max(options.nodes));
    row
}

fn detection(options: &Options) -> Vec<f64> {
    const CRASHES: usize = 20;
    let mut stage = Stage::new("detection", options, |_| ());
    stage.run_for(Duration::from_secs(600));
    let mut detection = Detection::default();
    for _ in 0..CRASHES {
        let up: Vec<usize> = stage.world.up().collect();
        let host = up[stage.world.chance.index(up.len())];
        detection.crashed(&stage.world, host);
        stage.world.crash(host, Crash::Power);
        for _ in 0..30 {
            stage.run_for(Duration::from_secs(1));
            detection.look(&stage.world, &stage.observer);
        }
    }
    for _ in 0..330 {
        stage.run_for(Duration::from_secs(1));
        detection.look(&stage.world, &stage.observer);
    }
    let (p50, p99, count) = detection.quantiles();
    vec![options.nodes as f64, p50, p99, count as f64]
}

fn idle(options: &Options) -> Vec<f64> {
    let mut stage = Stage::new("idle", options, |_| ());
    stage.run_for(Duration::from_secs(1800));
    let sum = |stage: &Stage| {
        let traffic = stage.world.hosts.iter().map(|host| host.traffic);
        traffic.fold((0, 0), |(n, bytes), t| (n + t.datagrams_out, bytes + t.datagram_bytes_out))
    };
    let (count, bytes) = sum(&stage);
    stage.run_for(options.duration);
    let (more, more_bytes) = sum(&stage);
    let per = options.nodes as f64 * options.duration.as_secs_f64();
    let datagrams = (more - count) as f64 / per;
    vec![options.nodes as f64, datagrams, (more_bytes - bytes) as f64 / per + datagrams * 28.0]
}

fn sight(options: &Options) -> Vec<f64> {
    let apart = look_around(options, Addressing::Apart, &[10, 30, 60, 120, 300]);
    let together = look_around(options, Addressing::OnePrefix, &[30]);
    [vec![options.nodes as f64], apart, together].concat()
}

/// Starts a network, and waits until each node sees all others. Returns the fewest live members that a node sees at each of the times
/// `at`, in seconds; the seconds until all see all, infinity for never; and the kilobytes of datagrams that a node has sent until then.
fn look_around(options: &Options, addressing: Addressing, at: &[u64]) -> Vec<f64> {
    const LIMIT: u64 = 900;
    let mut plan = Plan::new(options.seed);
    (plan.real_signatures, plan.links.loss) = (options.real_signatures, options.loss);
    plan.links.addressing = addressing;
    let mut world = World::new(plan);
    let nodes = options.nodes.min(addressing.hosts_max());
    population::start(&mut world, nodes, Joining::Together);
    let sent = |world: &World| world.hosts.iter().map(|host| host.traffic.datagram_bytes_out).sum::<u64>();
    let (mut row, mut took) = (Vec::new(), None);
    for second in 1..=LIMIT {
        world.run_for(Duration::from_secs(1));
        let (least, others) = fairness::seen(&world, &Observer::present());
        if at.contains(&second) {
            row.push(least as f64);
        }
        if least == others && took.is_none() {
            took = Some((second as f64, sent(&world)));
        }
        if took.is_some() && row.len() == at.len() {
            break;
        }
    }
    let (seconds, bytes) = took.unwrap_or_else(|| (f64::INFINITY, sent(&world)));
    row.extend([seconds, bytes as f64 / 1e3 / nodes as f64]);
    row
}

fn repair(options: &Options) -> Vec<f64> {
    let mut stage = Stage::new("repair", options, |_| ());
    stage.fill((options.nodes / 4).clamp(4, 100), 0);
    stage.run_for(Duration::from_secs(1200));
    let mut hosts: Vec<usize> = stage.world.up().collect();
    stage.world.chance.shuffle(&mut hosts);
    // Hosts crash one after the other. If all crashed at once, the other nodes would suspect a partition.
    for &host in hosts.iter().take(options.nodes / 10) {
        stage.world.crash(host, Crash::Power);
        stage.world.wipe(host);
        stage.run_for(Duration::from_secs(120));
    }
    stage.run_for(options.duration.max(Duration::from_secs(3600)));
    let fewest = stage.ledger.sample(&mut stage.world).min;
    let Ledger { copied, least, .. } = stage.ledger;
    let ratio = copied as f64 / least.max(1) as f64;
    let stored = stage.ledger.bytes() as f64;
    vec![options.nodes as f64, stored, copied as f64, least as f64, ratio, fewest as f64]
}

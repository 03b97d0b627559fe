//! Measurements, by network size.

use super::adversary::{Adversary, Sent};
use super::disk::Crash;
use super::invariants::{convergence, detection::Detection};
use super::ledger::Ledger;
use super::report::{quantile, sorted};
use super::stage::{Options, Stage};
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
pub const TABLES: [&str; 5] = ["lookups", "rounds", "detection", "idle", "repair"];

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

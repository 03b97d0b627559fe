//! The common base of scenarios: a world, a workload, faults, churn, and the checks that every run makes.

use super::attack::{Attack, Attacks};
use super::event::WorldEvent;
use super::faults::{self, Fault, Mischief};
use super::invariants;
use super::ledger::{Ledger, Sample};
use super::observe::Observer;
use super::population::{self, Churn, Joining};
use super::report::{Check, Report, Verdict, quantile, sorted};
use super::workload::Workload;
use super::world::{Plan, World};
use crate::id::IdWork;
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of hosts.
    pub nodes: usize,
    /// Virtual time after the network has been built.
    pub duration: Duration,
    /// The seed of all random choices.
    pub seed: u64,
    /// The probability that a datagram is lost.
    pub loss: f64,
    /// Faults besides the scenario's own.
    pub faults: Vec<Fault>,
    /// Attacks besides the scenario's own.
    pub attacks: Vec<Attack>,
    /// Whether nodes use real signatures.
    pub real_signatures: bool,
    /// The work that the network asks of identities.
    pub id_work: IdWork,
    /// Whether hosts start with remembered contacts instead of joining one by one.
    pub warm: bool,
}

impl Options {
    /// A small run, for tests.
    pub fn small(nodes: usize, minutes: u64, seed: u64) -> Options {
        Options {
            nodes,
            duration: Duration::from_secs(60 * minutes),
            seed,
            loss: 0.0,
            faults: Vec::new(),
            attacks: Vec::new(),
            real_signatures: false,
            id_work: IdWork::NONE,
            warm: true,
        }
    }
}

/// The outcome of a run.
pub struct Outcome {
    /// The report.
    pub report: Report,
    /// Copies over time.
    pub history: Vec<Sample>,
}

/// The interval at which copies are counted and new work is issued.
pub const SAMPLE: Duration = Duration::from_secs(30);

const TICK: u64 = 1 << 40;
const MISCHIEF: u64 = 1 << 41;
const CHURN: u64 = 1 << 42;
const ATTACKS: u64 = 1 << 43;

/// A world in use, with its workload and its checks.
pub struct Stage {
    /// The world.
    pub world: World,
    /// The commands that are given to nodes, and their results.
    pub work: Workload,
    /// The acknowledged pieces.
    pub ledger: Ledger,
    /// The report so far.
    pub report: Report,
    /// Copies over time.
    pub history: Vec<Sample>,
    /// Reads the state of nodes.
    pub observer: Observer,
    /// Hosts that took themselves for unreachable although others can connect to them.
    mistaken: BTreeSet<usize>,
    mischief: Mischief,
    churn: Option<Churn>,
    /// The attacks that the options add, and once the stage is filled, those attacks under way.
    added: Vec<Attack>,
    attacks: Option<Attacks>,
    /// The number of lookups and of downloads that start with each tick.
    pub each_tick: (usize, usize),
    /// The number of values of which a later version is published with each tick. Once enough copies are acknowledged, a random
    /// host looks the value up.
    pub changes_each_tick: usize,
}

impl Stage {
    /// A stage for `options` whose hosts have joined. `change` edits the plan before the world is created.
    pub fn new(scenario: &str, options: &Options, change: impl FnOnce(&mut Plan)) -> Stage {
        let mut plan = Plan::new(options.seed);
        plan.real_signatures = options.real_signatures;
        plan.id_work = options.id_work;
        plan.links.loss = options.loss;
        faults::apply(&mut plan, &options.faults);
        change(&mut plan);
        let mut world = World::new(plan);
        let joining = match options.warm {
            true => Joining::Remembered,
            false => Joining::OneByOne(Duration::from_secs(600)),
        };
        population::build(&mut world, options.nodes, joining);
        let mischief = Mischief::begin(&mut world, &options.faults, MISCHIEF);
        world.alarm(world.now() + SAMPLE, TICK);
        let report = Report {
            scenario: scenario.to_owned(),
            seed: options.seed,
            real_signatures: options.real_signatures,
            nodes: options.nodes,
            ..Report::default()
        };
        Stage {
            world,
            work: Workload::default(),
            ledger: Ledger::default(),
            report,
            history: Vec::new(),
            observer: Observer::present(),
            mistaken: BTreeSet::new(),
            mischief,
            churn: None,
            added: options.attacks.clone(),
            attacks: None,
            each_tick: (0, 0),
            changes_each_tick: 0,
        }
    }

    /// Runs the network in peace until every node sees the others, `limit` at most. The nodes of a network that has just been built
    /// have had a minute for that already.
    pub fn come_in_sight(&mut self, limit: Duration) -> Check {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let since = self.world.now();
        loop {
            let check = invariants::fairness::sight(&self.world, &self.observer);
            if check.verdict == Verdict::Holds || self.world.now() >= since + limit {
                let took = self.world.now().since(since).as_secs_f64();
                self.report.figure("seconds until the nodes saw each other", took);
                return check;
            }
            self.run_in_peace(LOOK_EVERY);
        }
    }

    /// Puts files and publishes values, waits up to 15 minutes for the answers, and begins to count repairs.
    pub fn fill(&mut self, files: usize, values: usize) {
        for index in 0..files {
            let honest = self.world.honest();
            let host = honest[self.world.chance.index(honest.len())];
            let length = [4_000, 40_000, 250_000, 700_000][index % 4];
            self.work.put(&mut self.world, host, length, 3);
            self.run_for(Duration::from_secs(1));
        }
        for _ in 0..values {
            let honest = self.world.honest();
            let host = honest[self.world.chance.index(honest.len())];
            self.work.set(&mut self.world, host);
            self.run_for(Duration::from_millis(300));
        }
        let limit = self.world.now() + Duration::from_secs(900);
        while self.work.pending() > 0 && self.world.now() < limit {
            self.run_for(Duration::from_secs(5));
        }
        self.run_for(Duration::from_secs(120));
        self.ledger.take(&mut self.world);
        self.ledger.begin_repair();
        self.begin_attacks();
    }

    fn begin_attacks(&mut self) {
        if !self.added.is_empty() && self.attacks.is_none() {
            let attacks = Attacks::begin(&mut self.world, &self.work, &self.added, ATTACKS);
            self.attacks = Some(attacks);
        }
    }

    /// Lets `hosts` come and go from now on.
    pub fn begin_churn(&mut self, hosts: &[usize], session: Duration, absence: Duration) {
        self.churn = Some(Churn::begin(&mut self.world, hosts, session, absence, CHURN));
    }

    /// Ends the churn and the faults that come and go. Hosts that are down start again.
    pub fn end_churn(&mut self) {
        self.churn = None;
        self.mischief.rest(Instant::from_secs(u64::MAX));
        for host in 0..self.world.hosts.len() {
            if self.world.hosts[host].life() == super::host::Life::Down {
                let others = population::bootstrap(&mut self.world, 2);
                self.world.start(host, &others);
            }
        }
    }

    /// Runs the stage for a duration.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.world.now() + duration, |_, _| ());
    }

    /// Runs the stage for a duration in which no further fault comes. The promises about what the network is like after a change are
    /// checked afterwards.
    pub fn run_in_peace(&mut self, duration: Duration) {
        self.mischief.rest(self.world.now() + duration);
        self.run_for(duration);
    }

    /// Runs the stage until a time. Alarms that neither the stage nor its churn and faults use go to `alarm`.
    pub fn run_until(&mut self, until: Instant, mut alarm: impl FnMut(&mut Stage, u64)) {
        while let Some(event) = self.world.next(until) {
            match event {
                WorldEvent::Alarm(TICK) => self.tick(),
                WorldEvent::Alarm(name) => {
                    let churned =
                        name >= CHURN && self.churn.as_mut().is_some_and(|c| c.take(&mut self.world, name));
                    let known = churned || name >= MISCHIEF && self.mischief.take(&mut self.world, name);
                    let attacks = self.attacks.as_mut().filter(|_| !known);
                    let known = known || attacks.is_some_and(|it| it.take(&mut self.world, &self.work, name));
                    if !known {
                        alarm(self, name);
                    }
                }
                answer @ (WorldEvent::Answer(..) | WorldEvent::Content(..)) => {
                    if let Some(stored) = self.work.take(&self.world, &answer) {
                        let manifest = stored.content.manifest();
                        self.ledger.acknowledge(&manifest, stored.origin, stored.replicas);
                    }
                    while let Some(index) = self.work.poll_changed() {
                        self.look_up(index);
                    }
                }
                WorldEvent::Stopped(host) => self.world.shut_down(host),
            }
        }
    }

    fn tick(&mut self) {
        self.world.alarm(self.world.now() + SAMPLE, TICK);
        self.work.forget_the_gone(&self.world);
        self.mistaken.extend(invariants::detection::mistaken(&self.world));
        let sample = self.ledger.sample(&mut self.world);
        self.history.push(sample);
        for _ in 0..self.changes_each_tick.min(self.work.values.len()) {
            let index = self.world.chance.index(self.work.values.len());
            self.work.change(&mut self.world, index);
        }
        let (lookups, gets) = self.each_tick;
        for _ in 0..lookups {
            self.look_up_something();
        }
        for _ in 0..gets {
            self.fetch_something();
        }
    }

    /// Has a random honest host look a random value up.
    pub fn look_up_something(&mut self) {
        if !self.work.values.is_empty() {
            let index = self.world.chance.index(self.work.values.len());
            self.look_up(index);
        }
    }

    /// Has a random honest host look this value up.
    fn look_up(&mut self, index: usize) {
        let honest = self.world.honest();
        if !honest.is_empty() {
            let host = honest[self.world.chance.index(honest.len())];
            self.work.lookup(&mut self.world, host, index);
        }
    }

    /// Has a random honest host fetch a random file.
    pub fn fetch_something(&mut self) {
        let honest = self.world.honest();
        if !honest.is_empty() && !self.work.files.is_empty() {
            let host = honest[self.world.chance.index(honest.len())];
            let file = self.work.files[self.world.chance.index(self.work.files.len())].clone();
            self.work.get(&mut self.world, host, &file);
        }
    }

    /// Waits up to five minutes for pending work, makes the checks of every run, and ends the run.
    pub fn finish(mut self) -> Outcome {
        (self.each_tick, self.changes_each_tick) = ((0, 0), 0);
        let limit = self.world.now() + Duration::from_secs(300);
        while self.work.pending() > 0 && self.world.now() < limit {
            self.run_for(Duration::from_secs(5));
            self.work.forget_the_gone(&self.world);
        }
        let checks = [
            invariants::durability::check(&self.ledger),
            invariants::integrity::check(&self.world, &self.work),
            invariants::bounded::amplification(&self.world),
            invariants::bounded::tables(&mut self.world),
            invariants::store::check(&mut self.world),
            invariants::detection::reachability(&self.world, &self.mistaken),
        ];
        self.report.checks.extend(checks);
        if !self.added.is_empty() {
            // Some scenarios are never filled, and then nothing attacks.
            let hosts = self.attacks.as_ref().map_or(0, Attacks::hosts);
            let names: Vec<&str> = self.added.iter().map(|attack| attack.name()).collect();
            let check = Check::new(10, "the added attacks took place", 1, hosts > 0, names.join(", "));
            self.report.checks.push(check);
        }
        self.note_figures();
        Outcome { report: self.report, history: self.history }
    }

    fn note_figures(&mut self) {
        let (datagrams, events) = self.world.counts();
        (self.report.datagrams, self.report.events) = (datagrams, events);
        self.report.seconds = self.world.now().as_secs();
        self.report.nodes = self.world.hosts.len();
        self.report.trace = format!("{:016x}", self.world.trace());
        let tallies = [
            ("put", &self.work.puts),
            ("get", &self.work.gets),
            ("set", &self.work.sets),
            ("lookup", &self.work.lookups),
        ];
        for (name, tally) in tallies.into_iter().filter(|(_, tally)| tally.answered() > 0) {
            let seconds = sorted(tally.seconds.clone());
            self.report.figure(format!("{name}: done"), tally.done as f64);
            self.report.figure(format!("{name}: failed"), tally.failed as f64);
            self.report.figure(format!("{name}: seconds, median"), quantile(&seconds, 0.5));
            self.report.figure(format!("{name}: seconds, p99"), quantile(&seconds, 0.99));
        }
        self.report.figure("copies made after those that were asked for", self.ledger.copies as f64);
        self.report.figure("bytes of them", self.ledger.copied as f64);
        self.report.figure("bytes necessary", self.ledger.least as f64);
        let hosts = self.world.hosts.len() as f64;
        let seconds = self.report.seconds.max(1) as f64;
        let sum = |value: fn(&super::host::Traffic) -> u64| {
            self.world.hosts.iter().map(|host| value(&host.traffic)).sum::<u64>() as f64
        };
        let (sent, bytes) = (sum(|t| t.datagrams_out), sum(|t| t.datagram_bytes_out));
        let streams = sum(|t| t.stream_bytes_out);
        self.report.figure("datagrams sent per node and second", sent / hosts / seconds);
        self.report.figure("datagram bytes sent per node and second", bytes / hosts / seconds);
        self.report.figure("stream bytes sent per node and second", streams / hosts / seconds);
        self.report.figure("datagrams lost to chance", self.world.links.lost[0] as f64);
        self.report.figure("datagrams lost to cuts", self.world.links.lost[1] as f64);
        self.report.figure("datagrams lost to full links", self.world.links.lost[2] as f64);
    }
}

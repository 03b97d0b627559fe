//! Two nodes with a fuzzed network between them: datagrams are dropped, repeated, delayed, cut and changed, and so are the bytes on
//! streams; nodes crash and return. What arrives verifies, or an error says so; and once the network is well again, all works.
//!
//! The first byte seeds the world. Then follow steps: a byte with the number of the step, and its fields.
//!
//! | number | step | fields |
//! |---|---|---|
//! | 0 | put | host, file, replicas |
//! | 1 | get | host, file |
//! | 2 | read | host, file, from which byte |
//! | 3 | set | host, name number, value |
//! | 4 | look up | host, name number |
//! | 5 | time | milliseconds by powers of two |
//! | 6 | fates of the next packets | fates, one byte each |
//! | 7 | a node crashes and returns | host, with or without power |
//! | 8 | one way between the hosts is cut, or all are open | direction |
#![no_main]

use elver::io::StreamId;
use elver::node::command::{Command, CommandId, Part, Reply, Response};
use elver::sim::WorldEvent;
use elver::sim::adversary::{Adversary, Sent};
use elver::sim::blob::{Blob, Slice};
use elver::sim::disk::Crash;
use elver::sim::world::{Plan, World};
use elver::time::{Duration, Instant};
use elver_fuzz::fixture::Fixture;
use elver_fuzz::host::fetched;
use elver_fuzz::stream::is_file;
use elver_fuzz::tape::Tape;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    let mut pair = Pair::new(tape.byte());
    for _ in 0..STEPS_MAX {
        if tape.is_over() {
            break;
        }
        pair.step(&mut tape);
    }
    pair.finish();
});

/// The most steps of one input.
const STEPS_MAX: usize = 64;
/// The most packets with a fate, over the whole input.
const FATES_MAX: usize = 4096;
/// The time after which every command has its answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);

/// The fates of the packets to come.
#[derive(Default)]
struct Weather {
    fates: VecDeque<u8>,
    /// Datagrams that arrive again or later: the host, the sender, the bytes.
    held: Vec<(usize, SocketAddr, Vec<u8>)>,
    fates_given: usize,
    /// Whether bytes on streams or content were changed, for which a node may blame the other.
    tampered: bool,
}

/// The network at one host.
struct Cable {
    host: usize,
    weather: Rc<RefCell<Weather>>,
}

fn change(bytes: &mut Vec<u8>, fate: u8) {
    let at = usize::from(fate) * 31 % bytes.len().max(1);
    match fate % 4 {
        0 => bytes.truncate(at),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= fate | 1),
    }
}

impl Adversary for Cable {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], _: &mut Vec<Sent>) -> bool {
        let mut weather = self.weather.borrow_mut();
        let Some(fate) = weather.fates.pop_front() else { return true };
        let mut copy = bytes.to_vec();
        match fate % 8 {
            0..=2 => return true,
            3 => return false,
            4 => {
                weather.held.push((self.host, from, copy));
                return true;
            }
            5 | 6 => {}
            _ => change(&mut copy, fate / 8),
        }
        weather.held.push((self.host, from, copy));
        false
    }

    fn heard(&mut self, _: StreamId, bytes: &mut Vec<u8>, back: &mut Vec<u8>) {
        let mut weather = self.weather.borrow_mut();
        let Some(fate) = weather.fates.pop_front() else { return };
        match fate % 8 {
            0..=4 => return,
            5 => back.extend_from_slice(&bytes[..bytes.len() / 2]),
            _ => change(bytes, fate / 8),
        }
        weather.tampered = true;
    }

    fn is_on_path(&self) -> bool {
        true
    }

    fn content(&mut self, content: Slice) -> Slice {
        let mut weather = self.weather.borrow_mut();
        let Some(fate) = weather.fates.pop_front().filter(|fate| fate % 8 > 4) else { return content };
        let mut bytes = content.bytes().to_vec();
        // The length stays: what is too short is as if the connection waited.
        bytes.iter_mut().skip(usize::from(fate) * 31).take(1).for_each(|byte| *byte ^= fate);
        weather.tampered = true;
        Slice::whole(Blob::new(bytes))
    }
}

struct Pair {
    world: World,
    weather: Rc<RefCell<Weather>>,
    fixture: Rc<Fixture>,
    /// Commands without a final answer, each with the end of the content it got.
    commands: BTreeMap<CommandId, (usize, Option<u64>)>,
    /// The values that were set, by host and name.
    values: BTreeSet<(usize, String, Vec<u8>)>,
    succeeded: BTreeSet<CommandId>,
    last_failure: String,
}

impl Pair {
    fn new(seed: u8) -> Pair {
        let mut world = World::new(Plan::new(u64::from(seed)));
        let fixture = Fixture::get();
        for _ in 0..2 {
            let host = world.add_host(false);
            for (index, file) in fixture.files.iter().enumerate() {
                world.hosts[host].disk.write_file(&Fixture::path(index), Rc::clone(file));
            }
        }
        let first = world.contact(0).addr;
        world.start(0, &[]);
        world.start(1, &[first]);
        world.run_for(Duration::from_secs(4));
        let weather = Rc::new(RefCell::new(Weather::default()));
        for host in 0..2 {
            world.set_adversary(host, Box::new(Cable { host, weather: Rc::clone(&weather) }));
        }
        Pair {
            world,
            weather,
            fixture,
            commands: BTreeMap::new(),
            values: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            last_failure: String::new(),
        }
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        let step = tape.choice(9);
        let host = if matches!(step, 5 | 6 | 8) { 0 } else { tape.choice(2) };
        match step {
            0 => {
                let path = Fixture::path(tape.choice(5));
                let replicas = Some(tape.byte() % 4);
                self.command(host, Command::Put { path, replicas, lifetime: None });
            }
            1 => {
                let hash = self.fixture.hash(tape.choice(5));
                self.command(host, get(hash));
            }
            2 => {
                let hash = self.fixture.hash(tape.choice(5));
                let part = Some(Part::Between { start: u64::from(tape.word()), end: None });
                self.command(host, Command::Read { hash, part, timeout: Some(20) });
            }
            3 => {
                let (name, value) = (tape.choice(3).to_string(), tape.bytes().to_vec());
                self.values.insert((host, name.clone(), value.clone()));
                self.command(host, Command::Set { name, value, lifetime: None });
            }
            4 => {
                let (name, publisher) = (tape.choice(3).to_string(), self.world.contact(1 - host).public);
                self.command(host, Command::Lookup { publisher, name, fresh: true });
            }
            5 => {
                let time = Duration::from_millis(1 << (tape.byte() % 17));
                self.pass(time);
            }
            6 => {
                let mut weather = self.weather.borrow_mut();
                let room = FATES_MAX - weather.fates_given;
                let fates = tape.bytes();
                let fates = &fates[..fates.len().min(room)];
                weather.fates_given += fates.len();
                weather.fates.extend(fates);
            }
            7 => {
                let crash = if tape.byte() & 1 == 0 { Crash::Kill } else { Crash::Power };
                if self.world.hosts[host].is_up() {
                    // Its answers so far have left.
                    while let Some(event) = self.world.next(self.world.now()) {
                        self.take(event);
                    }
                    self.world.crash(host, crash);
                    self.commands.retain(|_, (of, _)| *of != host);
                    self.world.start(host, &[]);
                }
            }
            _ => {
                let (side, way) = (1, tape.choice(4));
                self.world.links.port_mut(1).side = side;
                self.world.links.block(0, 1, way & 1 != 0);
                self.world.links.block(1, 0, way & 2 != 0);
            }
        }
    }

    fn command(&mut self, host: usize, command: Command) -> CommandId {
        let id = self.world.command(host, command);
        self.commands.insert(id, (host, None));
        id
    }

    fn pass(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.world.now() < until {
            let held = core::mem::take(&mut self.weather.borrow_mut().held);
            for (host, from, bytes) in held {
                self.world.inject(host, from, &bytes);
            }
            let part = (self.world.now() + Duration::from_millis(50)).min(until);
            // Long waits are not cut up: nothing is held then.
            let idle = self.weather.borrow().fates.is_empty();
            while let Some(event) = self.world.next(if idle { until } else { part }) {
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Answer(_, _, Response::Progress(_) | Response::Content(_)) => {}
            WorldEvent::Answer(host, id, response) => {
                let known = self.commands.remove(&id);
                assert!(known.is_some(), "a command gets no answer after its last");
                match response {
                    Response::Done(reply) => {
                        self.succeeded.insert(id);
                        self.check(host, &reply);
                    }
                    Response::Failed(failure) => self.last_failure = failure.message,
                    Response::Progress(_) | Response::Content(_) => {}
                }
            }
            WorldEvent::Content(_, id, content, bytes) => {
                let (_, end) = self.commands.get_mut(&id).expect("content goes to commands under way");
                assert!(end.is_none_or(|end| end == content.offset), "content comes in order");
                *end = Some(content.offset + u64::from(content.length));
                let bytes = bytes.expect("a window stays until it is sent");
                let fits = |file: &Rc<Blob>| {
                    let from = content.offset as usize;
                    file.bytes().get(from..from + bytes.len()) == Some(&bytes[..])
                };
                assert!(self.fixture.files.iter().any(fits), "no unverified byte reaches a client");
            }
            WorldEvent::Alarm(_) | WorldEvent::Stopped(_) => {}
        }
    }

    fn check(&self, host: usize, reply: &Reply) {
        match reply {
            Reply::Get { hash, path, .. } => {
                let disk = &self.world.hosts[host].disk;
                let file = fetched(disk, hash, path).expect("a fetched file is there");
                assert!(is_file(hash, file.bytes()), "a fetched file verifies");
            }
            Reply::Lookup { name, value, .. } => {
                let is_set = self.values.iter().any(|(_, set, to)| set == name && to == value);
                assert!(is_set, "a value that is found was set");
            }
            _ => {}
        }
    }

    /// The network is well again: every command has an answer in time, and what is put is fetched.
    fn finish(mut self) {
        self.weather.borrow_mut().fates.clear();
        self.world.links.block(0, 1, false);
        self.world.links.block(1, 0, false);
        self.pass(ANSWERED_WITHIN);
        assert!(self.commands.is_empty(), "every command has an answer in time: {:?}", self.commands);
        assert!(self.world.watch.violations.is_empty(), "{:?}", self.world.watch.violations);
        for host in 0..2 {
            assert_eq!(self.world.hosts[host].disk.verify_pieces().1, 0, "only verified pieces are stored");
        }
        if self.weather.borrow().tampered {
            return;
        }
        // A power cut tears what the user wrote and never synced.
        let file = Rc::clone(&self.fixture.files[2]);
        self.world.hosts[0].disk.write_file(&Fixture::path(2), file);
        let put = self.command(0, Command::Put { path: Fixture::path(2), replicas: Some(0), lifetime: None });
        self.pass(Duration::from_secs(60));
        let get = self.command(1, get(self.fixture.hash(2)));
        self.pass(Duration::from_secs(60));
        for command in [put, get] {
            let works = self.succeeded.contains(&command);
            assert!(works, "the network is well, and yet: {} (put {put:?}, get {get:?})", self.last_failure);
        }
    }
}

fn get(hash: elver::id::Key) -> Command {
    Command::Get { hash, target: None, force: false, mode: None, timeout: Some(20) }
}

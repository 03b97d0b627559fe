//! The workload: commands to nodes, and whether the answers are right.

use super::blob::Blob;
use super::event::WorldEvent;
use super::world::World;
use crate::id::{Key, PublicKey};
use crate::node::command::{Command, CommandId, Failure, FailureReason, Reply, Response};
use crate::time::{Duration, Instant};
use crate::wire::record::record_key;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

/// A file of the workload.
#[derive(Clone)]
pub struct Stored {
    /// The file's hash, its address in the network.
    pub hash: Key,
    /// The file's content.
    pub content: Rc<Blob>,
    /// The host that puts the file.
    pub origin: usize,
    /// The number of copies requested.
    pub replicas: u8,
    path: PathBuf,
}

/// A published value, with all its versions.
#[derive(Clone)]
pub struct Value {
    host: usize,
    publisher: PublicKey,
    name: String,
    versions: Vec<Vec<u8>>,
    /// The latest version that at least [`VALUE_COPIES_CERTAIN`] keepers acknowledged, or 0, the first.
    acknowledged: usize,
    /// Whether a publication is under way.
    changing: bool,
    /// The keepers that acknowledged the first version.
    pub copies: u32,
}

/// With at least this many copies of a value, every later lookup meets one.
const VALUE_COPIES_CERTAIN: u32 = 5;

enum Expected {
    Put(Stored),
    Get(Rc<Blob>),
    /// The content to be read, and the number of bytes that have arrived.
    Read(Rc<Blob>, usize),
    Set(Value),
    /// A later version of a value: the value's index, and the version.
    Change(usize, usize),
    /// A lookup: the value's index, and the earliest version that is right.
    Lookup(usize, usize),
}

/// The results of one kind of command.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Commands with a right answer.
    pub done: u64,
    /// Of those, files on fewer nodes than a quorum.
    pub partial: u64,
    /// Commands with a wrong answer. Each one is a defect.
    pub wrong: u64,
    /// Commands that failed.
    pub failed: u64,
    /// Commands that failed, or reached few, because their host could not receive. Failed ones are not among those answered.
    pub cut_off: u64,
    /// Of the failed ones, lookups that found an older version than the one acknowledged when they began.
    pub stale: u64,
    /// The seconds that each command with a right or a wrong answer took.
    pub seconds: Vec<f64>,
    /// For lookups of values: the number of nodes asked.
    pub asked: Vec<f64>,
    /// The messages of the first failures.
    pub messages: Vec<String>,
}

impl Tally {
    /// The share of the answered commands that had a right answer, or 1 when none was answered.
    pub fn success(&self) -> f64 {
        match self.answered() {
            0 => 1.0,
            answered => self.done as f64 / answered as f64,
        }
    }

    /// The number of answered commands.
    pub fn answered(&self) -> u64 {
        self.done + self.wrong + self.failed
    }

    fn fail(&mut self, what: String) {
        const KEPT: usize = 8;
        self.failed += 1;
        if self.messages.len() < KEPT {
            self.messages.push(what);
        }
    }
}

/// The pending commands, and the results so far.
#[derive(Default)]
pub struct Workload {
    pending: BTreeMap<CommandId, (usize, u32, Instant, Expected)>,
    /// Files whose `put` succeeded.
    pub files: Vec<Stored>,
    /// Those of them that are on a quorum of nodes.
    certain: BTreeSet<Key>,
    /// Published values.
    pub values: Vec<Value>,
    /// Puts of files.
    pub puts: Tally,
    /// Downloads.
    pub gets: Tally,
    /// Publications.
    pub sets: Tally,
    /// Lookups of published values.
    pub lookups: Tally,
    /// Values with a newly acknowledged later version, by index. [`poll_changed`](Workload::poll_changed) takes them.
    changed: Vec<usize>,
    named: u64,
    /// The hosts that have fetched each file.
    fetched: BTreeSet<(Key, usize)>,
}

impl Workload {
    /// Writes a new file of this length at a host and puts it.
    pub fn put(&mut self, world: &mut World, host: usize, length: usize, replicas: u8) {
        let stored = Stored { replicas, ..self.prepare(world, host, length) };
        self.share(world, &stored);
    }

    /// Writes a new file of this length at a host. The host does not share it yet. The file requests no copies.
    pub fn prepare(&mut self, world: &mut World, host: usize, length: usize) -> Stored {
        self.named += 1;
        let content = Blob::random(length, world.chance.u64());
        let path = PathBuf::from(format!("/data/{}", self.named));
        world.hosts[host].disk.write_file(&path, Rc::clone(&content));
        Stored { hash: content.manifest().hash(), content, origin: host, replicas: 0, path }
    }

    /// Puts a file at the host where it was written.
    pub fn share(&mut self, world: &mut World, file: &Stored) {
        let (path, replicas) = (file.path.clone(), Some(file.replicas));
        let command = Command::Put { path, replicas, lifetime: None };
        self.give(world, file.origin, command, Expected::Put(file.clone()));
    }

    /// Fetches a file into a host's cache.
    pub fn get(&mut self, world: &mut World, host: usize, file: &Stored) {
        let command =
            Command::Get { hash: file.hash, target: None, force: false, mode: None, timeout: Some(120) };
        self.give(world, host, command, Expected::Get(Rc::clone(&file.content)));
    }

    /// Streams a file to a client of a host.
    pub fn read(&mut self, world: &mut World, host: usize, file: &Stored) {
        let command = Command::Read { hash: file.hash, part: None, timeout: Some(120) };
        self.give(world, host, command, Expected::Read(Rc::clone(&file.content), 0));
    }

    /// Publishes a new random value at a host, under a new name.
    pub fn set(&mut self, world: &mut World, host: usize) {
        self.named += 1;
        let name = format!("name {}", self.named);
        self.set_as(world, host, name);
    }

    /// Publishes a new random value at a host, under this name.
    pub fn set_as(&mut self, world: &mut World, host: usize, name: String) {
        let value = world.chance.bytes().to_vec();
        let publisher = world.contact(host).public;
        let command = Command::Set { name: name.clone(), value: value.clone(), lifetime: None };
        let versions = vec![value];
        let value = Value { host, publisher, name, versions, acknowledged: 0, changing: false, copies: 0 };
        self.give(world, host, command, Expected::Set(value));
    }

    /// Publishes a later version of a value at its host, unless the host is down or is still publishing an earlier version.
    pub fn change(&mut self, world: &mut World, index: usize) {
        let value = &mut self.values[index];
        if value.changing || !world.hosts[value.host].is_up() {
            return;
        }
        let bytes = world.chance.bytes().to_vec();
        value.changing = true;
        value.versions.push(bytes.clone());
        let (host, version) = (value.host, value.versions.len() - 1);
        let command = Command::Set { name: value.name.clone(), value: bytes, lifetime: None };
        self.give(world, host, command, Expected::Change(index, version));
    }

    /// Takes the index of a value of which a later version was acknowledged, if there is one.
    pub fn poll_changed(&mut self) -> Option<usize> {
        self.changed.pop()
    }

    /// The key of a published value.
    pub fn record_key(&self, index: usize) -> Option<Key> {
        self.values.get(index).map(|value| record_key(&value.publisher, &value.name))
    }

    /// Looks a published value up.
    pub fn lookup(&mut self, world: &mut World, host: usize, index: usize) {
        let value = &self.values[index];
        let command = Command::Lookup { publisher: value.publisher, name: value.name.clone(), fresh: false };
        let expected = Expected::Lookup(index, value.acknowledged);
        self.give(world, host, command, expected);
    }

    /// These hosts never return: their values live as long as their publisher does, and are looked up no more. No publication or lookup
    /// may be under way.
    pub fn forget_values_of(&mut self, hosts: &[usize]) {
        debug_assert!(self.changed.is_empty());
        self.values.retain(|value| !hosts.contains(&value.host));
    }

    fn give(&mut self, world: &mut World, host: usize, command: Command, expected: Expected) {
        let run = world.hosts[host].run;
        let id = world.command(host, command);
        self.pending.insert(id, (host, run, world.now(), expected));
    }

    /// Handles an answer or content. Returns the file when a `put` reached its quorum. Ignores other events.
    pub fn take(&mut self, world: &World, event: &WorldEvent) -> Option<Stored> {
        if let WorldEvent::Content(_, id, content, bytes) = event {
            if let Some((.., Expected::Read(expected, came))) = self.pending.get_mut(id) {
                let (from, to) = (content.offset as usize, content.offset as usize + content.length as usize);
                let right =
                    bytes.as_ref().is_some_and(|bytes| Some(&bytes[..]) == expected.bytes().get(from..to));
                self.gets.wrong += u64::from(!right || from != *came);
                *came = to;
            }
            return None;
        }
        let WorldEvent::Answer(host, id, response) = event else { return None };
        let (_, _, since, expected) = self.pending.remove(id)?;
        let seconds = world.now().since(since).as_secs_f64();
        // A host that could not receive meanwhile is excused, and so is one that has only begun to find the others again. If it could
        // hear nothing at all, it must say so: it must not say that nobody has what was asked for, or that an old version is the newest.
        const RECOVERY: Duration = Duration::from_secs(60);
        let (deaf_since, deaf_until) = world.links.port(*host).deaf;
        let is_excused = |says_so: bool| {
            deaf_until + RECOVERY > since && (says_so || deaf_since > since) && deaf_until > Instant::ZERO
        };
        match (expected, response) {
            (Expected::Put(stored), Response::Done(Reply::Put { hash, quorum, .. })) => {
                self.puts.note(*hash == stored.hash, seconds);
                self.puts.partial += u64::from(!quorum);
                self.files.push(stored.clone());
                self.certain.extend(quorum.then_some(stored.hash));
                return quorum.then_some(stored);
            }
            (Expected::Get(content), Response::Done(Reply::Get { hash, .. })) => {
                let found = world.hosts[*host].disk.cached(hash);
                // A host that shares the file reads it from its own path, not from the cache.
                let right = found.is_none_or(|found| found.bytes() == content.bytes());
                self.gets.note(right && content.manifest().hash() == *hash, seconds);
                self.fetched.insert((*hash, *host));
            }
            (Expected::Read(content, came), Response::Done(Reply::Read { bytes, .. })) => {
                self.gets.note(came == content.bytes().len() && *bytes == came as u64, seconds);
            }
            (Expected::Set(value), Response::Done(Reply::Set { copies, .. })) => {
                self.sets.note(true, seconds);
                // The reply names the number of copies. With few, because the publisher was cut off, nothing is promised yet.
                match *copies < VALUE_COPIES_CERTAIN && is_excused(true) {
                    true => self.sets.cut_off += 1,
                    false => self.values.push(Value { copies: *copies, ..value }),
                }
            }
            (Expected::Change(index, version), Response::Done(Reply::Set { copies, .. })) => {
                self.sets.note(true, seconds);
                let value = &mut self.values[index];
                value.changing = false;
                if *copies >= VALUE_COPIES_CERTAIN {
                    value.acknowledged = version;
                    self.changed.push(index);
                }
            }
            (
                Expected::Lookup(index, least),
                Response::Done(Reply::Lookup { value: found, asked, from_memory, .. }),
            ) => {
                self.lookups.asked.push(f64::from(*asked));
                match self.values[index].versions.iter().rposition(|version| version == found) {
                    Some(version) if version < least && is_excused(*from_memory) => self.lookups.cut_off += 1,
                    Some(version) if version < least => {
                        self.lookups.stale += 1;
                        self.lookups.fail(format!("host {host} after {seconds:.0} s: an older version"));
                    }
                    version => self.lookups.note(version.is_some(), seconds),
                }
            }
            (expected, Response::Failed(Failure { reason, message })) => {
                let tally = match expected {
                    Expected::Put(_) => &mut self.puts,
                    Expected::Get(_) | Expected::Read(..) => &mut self.gets,
                    Expected::Set(_) => &mut self.sets,
                    Expected::Change(index, _) => {
                        self.values[index].changing = false;
                        &mut self.sets
                    }
                    Expected::Lookup(..) => &mut self.lookups,
                };
                if is_excused(*reason != FailureReason::NotFound) {
                    tally.cut_off += 1;
                    return None;
                }
                tally.wrong += u64::from(*reason == FailureReason::Usage);
                tally.fail(format!("host {host} after {seconds:.0} s: {message}"));
            }
            _ => {}
        }
        None
    }

    /// Drops pending commands of nodes that are gone.
    pub fn forget_the_gone(&mut self, world: &World) {
        let there =
            |host: usize, run: u32| world.hosts[host].run == run && world.hosts[host].node().is_some();
        self.pending.retain(|_, (host, run, _, expected)| {
            let there = there(*host, *run);
            if let (Expected::Change(index, _), false) = (expected, there) {
                self.values[*index].changing = false;
            }
            there
        });
    }

    /// Whether a `put` of this file was told that enough nodes have it.
    pub fn is_certain(&self, hash: &Key) -> bool {
        self.certain.contains(hash)
    }

    /// Whether a host has fetched a file.
    pub fn has_fetched(&self, host: usize, file: &Stored) -> bool {
        self.fetched.contains(&(file.hash, host))
    }

    /// Whether a host has a command without an answer.
    pub fn is_pending_on(&self, host: usize) -> bool {
        self.pending.values().any(|(on, ..)| *on == host)
    }

    /// The number of commands without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

impl Tally {
    fn note(&mut self, right: bool, seconds: f64) {
        match right {
            true => self.done += 1,
            false => self.wrong += 1,
        }
        self.seconds.push(seconds);
    }
}

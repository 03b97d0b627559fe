//! The reads under way, and those that wait for their turn.

use super::{Read, Step};
use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskReply, Place};
use crate::limits::Limits;
use crate::node::Purpose;
use crate::node::command::{CommandId, Part};
use crate::node::machines::Machines;
use crate::node::ops::queue::{Queue, Waits};
use crate::time::{Instant, earliest};
use crate::transfer::{DownloadId, Root};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;

/// A command to read a file or a part of one.
#[derive(Clone, Copy)]
pub(in crate::node) struct Order {
    pub(in crate::node) id: CommandId,
    pub(in crate::node) hash: Key,
    /// `None` is all of it.
    pub(in crate::node) part: Option<Part>,
    /// Seconds without progress after which it is given up; `None` is the node's default, 0 is never.
    pub(in crate::node) timeout: Option<u32>,
}

impl Waits for Order {
    fn command(&self) -> CommandId {
        self.id
    }
}

/// All reads of a node.
pub(in crate::node) struct Reads {
    max: usize,
    window_bytes: u64,
    pub(super) under_way: BTreeMap<DownloadId, Read>,
    queue: Queue<Order>,
}

impl Reads {
    /// None.
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        Reads {
            max: limits.reads_max,
            window_bytes: limits.read_window_bytes,
            under_way: BTreeMap::new(),
            queue: Queue::new(limits.downloads_queued_max),
        }
    }

    // Getters.

    /// How many are under way.
    pub(in crate::node) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// How many wait for their turn.
    pub(in crate::node) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether a download of the transfer's is a read.
    pub(in crate::node) fn contains(&self, id: DownloadId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// From where a chunk is being copied.
    pub(in crate::node) fn copied_from(&self, id: DownloadId, step: Step) -> Option<&Place> {
        let Step::Copy(index) = step else { return None };
        self.under_way.get(&id)?.copying.get(&index)
    }

    /// The key of a chunk that is being copied.
    pub(in crate::node) fn copied_key(&self, id: DownloadId, step: Step) -> Option<Key> {
        let Step::Copy(index) = step else { return None };
        let window = self.under_way.get(&id)?.window.as_ref()?;
        window.manifest().keys().get(index as usize).copied()
    }

    /// When [`handle_timeout`](Reads::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().map(Read::next_deadline).fold(None, earliest)
    }

    // Inputs.

    /// A command to read something: it begins, or waits for its turn.
    pub(in crate::node) fn start(&mut self, now: Instant, order: Order, machines: &mut Machines) {
        match self.under_way.len() < self.max {
            true => self.begin(now, order, machines),
            false => self.queue.push(order, machines),
        }
    }

    fn begin(&mut self, now: Instant, order: Order, machines: &mut Machines) {
        let id = DownloadId(machines.fresh_id());
        let read = Read::begin(now, id, &order, self.window_bytes, machines);
        if !read.is_over() {
            self.under_way.insert(id, read);
        }
    }

    /// A command is not waited for any more.
    pub(in crate::node) fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        if !self.queue.cancel(command) {
            self.with_command(now, command, machines, |read, machines| read.cancel(now, machines));
        }
    }

    /// Bytes of a command's content have left.
    pub(in crate::node) fn handle_sent(
        &mut self,
        now: Instant,
        command: CommandId,
        bytes: u64,
        machines: &mut Machines,
    ) {
        self.with_command(now, command, machines, |read, machines| read.handle_sent(now, bytes, machines));
    }

    /// A disk operation ended.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        id: DownloadId,
        step: Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| read.handle_disk(now, step, result, machines));
    }

    /// The root of a file is here.
    pub(in crate::node) fn handle_root(
        &mut self,
        now: Instant,
        id: DownloadId,
        root: Root,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| read.handle_root(now, root, machines));
    }

    /// A chunk is in its file and verified.
    pub(in crate::node) fn handle_chunk(
        &mut self,
        now: Instant,
        id: DownloadId,
        index: u32,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| read.handle_chunk(now, index, machines));
    }

    /// The network has given all that was asked of it, from this many nodes.
    pub(in crate::node) fn handle_complete(
        &mut self,
        now: Instant,
        id: DownloadId,
        sources: u32,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, _| read.handle_complete(sources));
    }

    /// What arrived could not be written.
    pub(in crate::node) fn handle_failed(
        &mut self,
        now: Instant,
        id: DownloadId,
        error: &DiskError,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| read.disk_failed(now, error, machines));
    }

    /// No known node has these chunks.
    pub(in crate::node) fn handle_sources_needed(
        &mut self,
        now: Instant,
        id: DownloadId,
        keys: &[Key],
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| read.handle_sources_needed(now, keys, machines));
    }

    /// A lookup found providers; `own` is this node.
    pub(in crate::node) fn handle_providers(
        &mut self,
        now: Instant,
        lookup: LookupId,
        own: NodeId,
        contacts: &[(Contact, bool)],
        machines: &mut Machines,
    ) {
        let Some(Purpose::Providers(id)) = machines.lookups.get(&lookup) else { return };
        self.with(now, *id, machines, |read, machines| {
            read.search.providers_found(now, own, contacts, machines)
        });
    }

    /// A lookup for providers ended.
    pub(in crate::node) fn handle_providers_looked_up(
        &mut self,
        now: Instant,
        id: DownloadId,
        closest: &[Contact],
        asked: u32,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| {
            read.search.providers_looked_up(now, closest, asked, machines)
        });
    }

    /// A lookup for the nodes closest to a chunk ended.
    pub(in crate::node) fn handle_holders_looked_up(
        &mut self,
        now: Instant,
        id: DownloadId,
        key: Key,
        closest: &[Contact],
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |read, machines| {
            read.search.holders_looked_up(now, key, closest, machines)
        });
    }

    /// The time that [`next_deadline`](Reads::next_deadline) named has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let due = |read: &Read| read.next_deadline().is_some_and(|at| at <= now);
        for id in self.ids(due) {
            self.with(now, id, machines, |read, machines| read.handle_timeout(now, machines));
        }
    }

    /// Ends the reads that no source is left for. To be called after each input.
    pub(in crate::node) fn review(&mut self, now: Instant, machines: &mut Machines) {
        for id in self.ids(|read| !read.search.is_looking() && read.search.lookups() > 0) {
            self.with(now, id, machines, |read, machines| read.review(now, machines));
        }
    }

    fn ids(&self, which: impl Fn(&Read) -> bool) -> Vec<DownloadId> {
        self.under_way.values().filter(|read| which(read)).map(|read| read.id).collect()
    }

    fn with_command(
        &mut self,
        now: Instant,
        command: CommandId,
        machines: &mut Machines,
        event: impl FnOnce(&mut Read, &mut Machines),
    ) {
        let id = self.under_way.values().find(|read| read.command == command).map(|read| read.id);
        if let Some(id) = id {
            self.with(now, id, machines, event);
        }
    }

    /// Hands an event to a read; what belongs to one that has ended meanwhile is dropped. When this one ends, the next
    /// begins.
    fn with(
        &mut self,
        now: Instant,
        id: DownloadId,
        machines: &mut Machines,
        event: impl FnOnce(&mut Read, &mut Machines),
    ) {
        let Some(read) = self.under_way.get_mut(&id) else { return };
        event(read, machines);
        if !read.is_over() {
            return;
        }
        self.under_way.remove(&id);
        while self.under_way.len() < self.max {
            let Some(order) = self.queue.pop(machines) else { return };
            self.begin(now, order, machines);
        }
    }
}

//! The downloads under way, and the commands that wait until another one is out of the way.

use super::{Download, Phase, Step};
use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskReply, Mode, Place};
use crate::limits::Limits;
use crate::node::Purpose;
use crate::node::command::{CommandId, FailureReason, FileState, SharedFile};
use crate::node::machines::Machines;
use crate::node::ops::queue::{Queue, Waits};
use crate::time::{Instant, earliest};
use crate::transfer::{DownloadId, Root};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A command to fetch a file.
pub(in crate::node) struct Order {
    pub(in crate::node) id: CommandId,
    pub(in crate::node) hash: Key,
    pub(in crate::node) target: Option<PathBuf>,
    /// Whether a file at the target is replaced.
    pub(in crate::node) force: bool,
    /// The permission bits that the file gets, when the command says.
    pub(in crate::node) mode: Option<u32>,
    pub(in crate::node) timeout: Option<u32>,
}

impl Waits for Order {
    fn command(&self) -> CommandId {
        self.id
    }
}

/// All downloads of a node.
pub(in crate::node) struct Downloads {
    max: usize,
    under_way: BTreeMap<DownloadId, Download>,
    /// Commands for a file that is being fetched into another target: they begin when that download has ended, in order.
    after: BTreeMap<DownloadId, Vec<Order>>,
    /// Commands that wait until there are fewer downloads.
    queue: Queue<Order>,
}

impl Downloads {
    /// None.
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        let queue = Queue::new(limits.downloads_queued_max);
        Downloads { max: limits.downloads_max, under_way: BTreeMap::new(), after: BTreeMap::new(), queue }
    }

    // Getters.

    /// How many are under way.
    pub(in crate::node) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// How many commands wait for their turn.
    pub(in crate::node) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// When [`handle_timeout`](Downloads::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().map(Download::next_deadline).fold(None, earliest)
    }

    /// The file that a download fetches.
    pub(in crate::node) fn hash_of(&self, id: DownloadId) -> Option<Key> {
        self.under_way.get(&id).map(|download| download.hash)
    }

    /// The entries in the list of files.
    pub(in crate::node) fn describe<'a>(
        &'a self,
        machines: &'a Machines,
    ) -> impl Iterator<Item = SharedFile> + 'a {
        let queued = self.queue.iter().map(|order| SharedFile {
            hash: order.hash,
            length: 0,
            path: order.target.clone().unwrap_or_else(|| machines.path_of(&Place::Cache(order.hash))),
            copies: 0,
            replicas: 0,
            have: 0,
            cached: order.target.is_none(),
            kept_open: false,
            state: FileState::Queued,
        });
        self.under_way.values().filter_map(|download| download.describe(machines)).chain(queued)
    }

    // Inputs.

    /// A command to fetch something.
    pub(in crate::node) fn start(&mut self, now: Instant, order: Order, machines: &mut Machines) {
        if order.target.as_ref().is_some_and(|path| !path.is_absolute()) {
            let why = "a path must be absolute: the node has a directory of its own";
            return machines.fail(order.id, FailureReason::Usage, why);
        }
        if order.mode.is_some_and(|mode| mode > 0o777) {
            let why = "a mode has the nine bits that say who may read, write and execute: at most 777";
            return machines.fail(order.id, FailureReason::Usage, why);
        }
        if let Some(same) = self.under_way.values_mut().find(|download| download.hash == order.hash) {
            match same.is_what(&order) {
                true => same.waiters.push(order.id),
                false => self.after.entry(same.id).or_default().push(order),
            }
            return;
        }
        if self.under_way.len() >= self.max {
            return self.queue.push(order, machines);
        }
        let mut others = self.under_way.values();
        if let Some(other) = others.find(|other| order.target.is_some() && other.target == order.target) {
            let message = format!("{} is being fetched into the same file: choose another", other.hash);
            return machines.fail(order.id, FailureReason::Failed, message);
        }
        let id = DownloadId(machines.fresh_id());
        let download = Download::begin(now, id, order, machines);
        self.under_way.insert(id, download);
        self.clear(now, id, machines);
    }

    /// A command is not waited for any more.
    pub(in crate::node) fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        if self.queue.cancel(command) {
            return;
        }
        for orders in self.after.values_mut() {
            orders.retain(|order| order.id != command);
        }
        self.after.retain(|_, orders| !orders.is_empty());
        let mut waited = self.under_way.values().filter(|download| download.waiters.contains(&command));
        if let Some(id) = waited.next().map(|download| download.id) {
            self.with(now, id, machines, |download, machines| download.cancel(now, command, machines));
        }
    }

    /// A disk operation ended, or has come some way.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        id: DownloadId,
        step: Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| download.handle_disk(now, step, result, machines));
    }

    /// The root of a file is here.
    pub(in crate::node) fn handle_root(
        &mut self,
        now: Instant,
        id: DownloadId,
        root: Root,
        mode: Mode,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| download.handle_root(now, root, mode, machines));
    }

    /// The mode of a file that is being fetched, as the source of its root says.
    pub(in crate::node) fn mode(&self, hash: &Key) -> Mode {
        self.under_way.values().find(|download| download.hash == *hash).map_or(Mode::UNKNOWN, |it| it.mode)
    }

    /// A chunk is in its place and verified.
    pub(in crate::node) fn handle_chunk(
        &mut self,
        now: Instant,
        id: DownloadId,
        index: u32,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| download.handle_chunk(now, index, machines));
    }

    /// All that is wanted is in its place, from this many nodes.
    pub(in crate::node) fn handle_complete(
        &mut self,
        now: Instant,
        id: DownloadId,
        sources: u32,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| download.handle_complete(sources, machines));
    }

    /// What arrived could not be written.
    pub(in crate::node) fn handle_failed(
        &mut self,
        now: Instant,
        id: DownloadId,
        error: &DiskError,
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| download.disk_failed(now, error, machines));
    }

    /// No known node has these chunks.
    pub(in crate::node) fn handle_sources_needed(
        &mut self,
        now: Instant,
        id: DownloadId,
        keys: &[Key],
        machines: &mut Machines,
    ) {
        self.with(now, id, machines, |download, machines| {
            download.handle_sources_needed(now, keys, machines)
        });
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
        self.with(now, *id, machines, |download, machines| {
            download.search.providers_found(now, own, contacts, machines)
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
        self.with(now, id, machines, |download, machines| {
            download.search.providers_looked_up(now, closest, asked, machines)
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
        self.with(now, id, machines, |download, machines| {
            download.search.holders_looked_up(now, key, closest, machines)
        });
    }

    /// The time that [`next_deadline`](Downloads::next_deadline) named has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let due = |download: &Download| download.next_deadline().is_some_and(|at| at <= now);
        for id in self.ids(due) {
            self.with(now, id, machines, |download, machines| download.handle_timeout(now, machines));
        }
    }

    /// Ends the downloads that no source is left for. To be called after each input.
    pub(in crate::node) fn review(&mut self, now: Instant, machines: &mut Machines) {
        for id in self.ids(|download| !download.search.is_looking() && download.search.lookups() > 0) {
            self.with(now, id, machines, |download, machines| download.review(now, machines));
        }
    }

    pub(super) fn ids(&self, which: impl Fn(&Download) -> bool) -> Vec<DownloadId> {
        self.under_way.values().filter(|download| which(download)).map(|download| download.id).collect()
    }

    /// Hands an event to a download; what belongs to one that has ended meanwhile is dropped.
    fn with(
        &mut self,
        now: Instant,
        id: DownloadId,
        machines: &mut Machines,
        event: impl FnOnce(&mut Download, &mut Machines),
    ) {
        if let Some(download) = self.under_way.get_mut(&id) {
            event(download, machines);
            self.clear(now, id, machines);
        }
    }

    /// Takes a download that is over out of the table. Commands that waited for that begin.
    fn clear(&mut self, now: Instant, id: DownloadId, machines: &mut Machines) {
        let Some(download) = self.under_way.get(&id) else { return };
        if download.phase != Phase::Over {
            return;
        }
        self.under_way.remove(&id);
        for order in self.after.remove(&id).unwrap_or_default() {
            self.start(now, order, machines);
        }
        while self.under_way.len() < self.max {
            let Some(order) = self.queue.pop(machines) else { return };
            self.start(now, order, machines);
        }
    }
}

//! The common part of downloads and reads: both take content from the network, and handle events of the transfer machine, the DHT
//! and the disk.

use super::download::sources::Search;
use super::table::{Operation, Table};
use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskReply, Mode};
use crate::node::Purpose;
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use crate::transfer::{DownloadId, Root};
use crate::wire::contact::Contact;

/// The time without progress after which an operation fails, unless the command says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// The allowed time without progress. `seconds` is the command's value; `None` is returned for no limit.
pub(in crate::node) fn patience(seconds: Option<u32>) -> Option<Duration> {
    match seconds {
        None => Some(TIMEOUT_DEFAULT),
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(u64::from(seconds))),
    }
}

/// An operation that takes content from the network.
pub(in crate::node) trait Fetch: Operation<Id = DownloadId> {
    /// The purpose of a disk operation.
    type Step;

    /// The search for its sources.
    fn search(&self) -> &Search;

    /// The search for its sources, to be changed.
    fn search_mut(&mut self) -> &mut Search;

    /// A disk operation ended, or made progress.
    fn handle_disk(
        &mut self,
        now: Instant,
        step: Self::Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    );

    /// The root arrived from the network.
    fn handle_root(&mut self, now: Instant, root: Root, mode: Mode, machines: &mut Machines);

    /// A chunk is verified and in its file.
    fn handle_chunk(&mut self, now: Instant, index: u32, machines: &mut Machines);

    /// All requested chunks have arrived, from this many nodes.
    fn handle_complete(&mut self, sources: u32, machines: &mut Machines);

    /// What arrived could not be written.
    fn handle_failed(&mut self, now: Instant, error: &DiskError, machines: &mut Machines);

    /// No known node has these chunks.
    fn handle_sources_needed(&mut self, now: Instant, keys: &[Key], machines: &mut Machines);

    /// Ends the operation if it is hopeless and no further event will come.
    fn review(&mut self, now: Instant, machines: &mut Machines);
}

impl<O: Fetch> Table<O> {
    /// A disk operation ended, or made progress.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        id: DownloadId,
        step: O::Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_disk(now, step, result, machines));
    }

    /// The root of a file has arrived, with the file's mode as its source reports it.
    pub(in crate::node) fn handle_root(
        &mut self,
        now: Instant,
        id: DownloadId,
        root: Root,
        mode: Mode,
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_root(now, root, mode, machines));
    }

    /// A chunk is verified and in its file.
    pub(in crate::node) fn handle_chunk(
        &mut self,
        now: Instant,
        id: DownloadId,
        index: u32,
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_chunk(now, index, machines));
    }

    /// All requested chunks have arrived, from this many nodes.
    pub(in crate::node) fn handle_complete(
        &mut self,
        now: Instant,
        id: DownloadId,
        sources: u32,
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_complete(sources, machines));
    }

    /// What arrived could not be written.
    pub(in crate::node) fn handle_failed(
        &mut self,
        now: Instant,
        id: DownloadId,
        error: &DiskError,
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_failed(now, error, machines));
    }

    /// No known node has these chunks.
    pub(in crate::node) fn handle_sources_needed(
        &mut self,
        now: Instant,
        id: DownloadId,
        keys: &[Key],
        machines: &mut Machines,
    ) {
        self.hand(now, id, machines, |fetch, machines| fetch.handle_sources_needed(now, keys, machines));
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
        self.hand(now, *id, machines, |fetch, machines| {
            fetch.search_mut().providers_found(now, own, contacts, machines);
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
        self.hand(now, id, machines, |fetch, machines| {
            fetch.search_mut().providers_looked_up(now, closest, asked, machines);
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
        self.hand(now, id, machines, |fetch, machines| {
            fetch.search_mut().holders_looked_up(now, key, closest, machines);
        });
    }

    /// Ends operations that have no source left. Call this after each input.
    pub(in crate::node) fn review(&mut self, now: Instant, machines: &mut Machines) {
        for id in self.ids(|fetch| !fetch.search().is_looking() && fetch.search().lookups() > 0) {
            self.hand(now, id, machines, |fetch, machines| fetch.review(now, machines));
        }
    }
}

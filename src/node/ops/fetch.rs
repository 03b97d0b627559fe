//! The common part of downloads and reads: both take content from the network.

use super::seek::Seek;
use super::table::Table;
use crate::id::Key;
use crate::io::{DiskError, DiskReply};
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use crate::transfer::DownloadId;

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
pub(in crate::node) trait Fetch: Seek {
    /// The purpose of a disk operation.
    type Step;

    /// A disk operation ended, or made progress.
    fn handle_disk(
        &mut self,
        now: Instant,
        step: Self::Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    );

    /// A chunk is verified and in its file.
    fn handle_chunk(&mut self, now: Instant, index: u32, machines: &mut Machines);

    /// All requested chunks have arrived, from this many nodes.
    fn handle_complete(&mut self, sources: u32, machines: &mut Machines);

    /// What arrived could not be written.
    fn handle_failed(&mut self, now: Instant, error: &DiskError, machines: &mut Machines);

    /// No known node has these chunks.
    fn handle_sources_needed(&mut self, now: Instant, keys: &[Key], machines: &mut Machines);
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
}

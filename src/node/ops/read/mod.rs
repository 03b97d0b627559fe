//! Reads: from an address to verified bytes, in order, on a client's connection, through a window of bounded size.
//!
//! The root is found as for a download. Then the chunks of the requested part pass through a [`window`]. Each chunk comes from a file or
//! a piece of this node, or from the network; it is verified, sent to the client, and removed when it has left. The window moves only
//! when bytes leave, so a client that does not read stops it and costs nothing more. Nothing that is read is kept, announced, or offered
//! to other nodes, and the quota does not limit it. The window is on disk for a moment, so it counts against the free space that is left
//! to the host.
//!
//! A [`Read`] is one command; [`Reads`] is the table of all, with those that wait for their turn.

#[cfg(test)]
mod tests;
mod window;

use super::fetch::{Awaited, Due, Fetch, Fetcher};
use super::queue::Waits;
use super::seek::Seek;
use super::seek::sources::Search;
use super::seek::verdict::Sought;
use super::table::{Entry, Operation, Table};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Mode, Place, Sink};
use crate::limits::Limits;
use crate::manifest::{Content as Kind, Manifest};
use crate::node::command::{CommandId, Failure, FailureReason, Part, Progress, Reply, Stage};
use crate::node::machines::Machines;
use crate::node::{Output, Waiting};
use crate::time::Instant;
use crate::transfer::DownloadId;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;
use window::Window;

/// Chunks that are copied from this node's own files at a time: more would only delay the first.
const COPIES_MAX: usize = 2;

/// A command to read a file or a part of one.
#[derive(Clone, Copy)]
pub(in crate::node) struct Order {
    pub(in crate::node) id: CommandId,
    pub(in crate::node) hash: Key,
    /// The part; `None` is the whole file.
    pub(in crate::node) part: Option<Part>,
    /// Seconds without progress after which it fails; `None` is the node's default, 0 is never.
    pub(in crate::node) timeout: Option<u32>,
}

impl Waits for Order {
    fn command(&self) -> CommandId {
        self.id
    }
}

/// All reads of a node.
pub(in crate::node) type Reads = Table<Read>;

impl Reads {
    /// An empty table.
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        Table::with(limits.reads_max, limits.downloads_queued_max, limits.read_window_bytes)
    }

    /// The file that a chunk is being copied from.
    pub(in crate::node) fn copied_from(&self, id: DownloadId, step: Step) -> Option<&Place> {
        let Step::Copy(index) = step else { return None };
        self.get(id)?.copying.get(&index)
    }

    /// The key of a chunk that is being copied.
    pub(in crate::node) fn copied_key(&self, id: DownloadId, step: Step) -> Option<Key> {
        let Step::Copy(index) = step else { return None };
        let window = self.get(id)?.window.as_ref()?;
        window.manifest().keys().get(index as usize).copied()
    }

    /// Bytes of a command's content have left.
    pub(in crate::node) fn handle_sent(
        &mut self,
        now: Instant,
        command: CommandId,
        bytes: u64,
        machines: &mut Machines,
    ) {
        self.hand_to(now, command, machines, |read, machines| read.handle_sent(now, bytes, machines));
    }
}

/// One read: a file, or a part of one, that is streamed to a client.
pub(in crate::node) struct Read {
    /// The number of its download in the transfer machine.
    id: DownloadId,
    command: CommandId,
    hash: Key,
    part: Option<Part>,
    window_bytes: u64,
    phase: Phase,
    /// The window, once the root is known.
    window: Option<Window>,
    /// For each chunk from the first of the part on: whether it is taken from this node's own files.
    local: Vec<bool>,
    /// The next of those to be copied.
    next_local: u32,
    /// The copies under way, and the file of each.
    copying: BTreeMap<u32, Place>,
    fetch: Fetch,
}

enum Phase {
    /// Looking for the root.
    Root,
    /// Requesting and sending chunks.
    Chunks,
    /// Failed: what was handed out leaves first, then the client is told.
    Ending(Failure),
    /// The command has been answered.
    Over,
}

/// The purpose of a disk operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Step {
    /// To copy the chunk with this index from another file here.
    Copy(u32),
    /// To write the content of a one-chunk file.
    Write,
}

impl Operation for Read {
    type Id = DownloadId;
    type Order = Order;
    /// The size of the window in bytes.
    type Settings = u64;

    fn id(number: u64) -> DownloadId {
        DownloadId(number)
    }

    fn admit<'a>(_: &Order, _: &u64, _: impl Iterator<Item = &'a Read>) -> Entry<DownloadId> {
        Entry::Begin
    }

    fn begin(
        now: Instant,
        id: DownloadId,
        order: Order,
        window_bytes: &u64,
        machines: &mut Machines,
    ) -> Self {
        let mut read = Read {
            id,
            command: order.id,
            hash: order.hash,
            part: order.part,
            window_bytes: *window_bytes,
            phase: Phase::Root,
            window: None,
            local: Vec::new(),
            next_local: 0,
            copying: BTreeMap::new(),
            fetch: Fetch::new(now, Search::windowed(id, order.hash), order.timeout),
        };
        read.find_root(now, machines);
        read
    }

    fn awaits(&self, command: CommandId) -> bool {
        self.command == command
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.fetch.next_deadline(self.awaited())
    }

    fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let missing = self.window.as_ref().map(|window| (window.missing() as usize, window.chunks().len()));
        match self.fetch.handle_timeout(now, self.awaited(), missing, machines) {
            Due::Nothing => {}
            Due::Tell => self.report(Stage::Waiting, machines),
            Due::Fail(reason, why) => self.give_up(now, reason, &why, machines),
        }
    }

    fn cancel(&mut self, now: Instant, _: CommandId, machines: &mut Machines) {
        machines.transfer.abort(now, self.id);
        let filed = self.window.as_ref().map(Window::filed);
        self.remove(filed.unwrap_or_default(), machines);
        self.end(machines);
    }
}

impl Seek for Read {
    fn search(&self) -> &Search {
        &self.fetch.search
    }

    fn search_mut(&mut self) -> &mut Search {
        &mut self.fetch.search
    }

    fn handle_stamp(&mut self, _: Instant, _: bool, _: &mut Machines) {
        debug_assert!(false, "what is copied from a shared file is verified, so its stamp is not checked");
    }

    fn handle_layout(
        &mut self,
        now: Instant,
        layout: Arc<Manifest>,
        content: Option<Vec<u8>>,
        _: Mode,
        machines: &mut Machines,
    ) {
        self.fetch.note_progress(now);
        if content.is_some() {
            machines.transfer.abort(now, self.id);
        }
        if !self.open_window(now, layout, machines) {
            return;
        }
        match content {
            Some(bytes) => {
                let place = Place::Window { window: self.id.0, chunk: 0 };
                self.disk(DiskOp::WriteTarget { place, offset: 0, bytes }, Step::Write, machines);
            }
            None => self.begin_chunks(now, machines),
        }
    }

    fn handle_reached(&mut self, now: Instant) {
        self.fetch.handle_reached(now);
    }

    fn sought(&self) -> Option<Sought> {
        self.awaited().sought()
    }

    /// Fails the read. What was handed out is verified, and leaves before the client is told.
    fn give_up(&mut self, now: Instant, reason: FailureReason, why: &str, machines: &mut Machines) {
        self.fetch.search.rest();
        let mut message = format!("{}: {why}", self.hash);
        let (mut unhanded, mut starved) = (0..0, true);
        if let Some(window) = &self.window {
            (unhanded, starved) = (window.unhanded(), window.is_starved());
            let good = window.handed_end();
            if good > window.bytes().start {
                message +=
                    &format!("; everything before byte {good} is good, --offset {good} goes on from there");
            }
        }
        machines.transfer.abort(now, self.id);
        self.remove(unhanded, machines);
        if starved {
            self.end(machines);
            machines.fail(self.command, reason, message);
        } else {
            self.phase = Phase::Ending(Failure { reason, message });
        }
    }
}

impl Fetcher for Read {
    fn handle_chunk(&mut self, now: Instant, index: u32, machines: &mut Machines) {
        self.fetch.note_flow(now);
        self.enter(now, index, machines);
    }

    fn handle_complete(&mut self, sources: u32, _: &mut Machines) {
        self.fetch.handle_complete(sources);
        self.fetch.search.rest();
    }
}

impl Read {
    // Getters.

    fn awaited(&self) -> Awaited {
        match (&self.phase, &self.window) {
            (Phase::Root, _) => Awaited::Root,
            (Phase::Chunks, Some(window)) if window.is_starved() && self.copying.is_empty() => {
                Awaited::Chunks
            }
            (Phase::Chunks, _) => Awaited::LaterChunks,
            (Phase::Ending(_) | Phase::Over, _) => Awaited::Nothing,
        }
    }

    // Inputs.

    /// A disk operation ended.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        step: Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        match (step, result) {
            (Step::Copy(index), result) => self.copied(now, index, result, machines),
            // The read has failed meanwhile.
            _ if matches!(self.phase, Phase::Ending(_)) => {}
            (Step::Write, Ok(_)) => self.enter(now, 0, machines),
            (Step::Write, Err(error)) => self.handle_failed(now, &error, machines),
        }
    }

    /// Bytes that were handed out have left.
    fn handle_sent(&mut self, now: Instant, bytes: u64, machines: &mut Machines) {
        self.fetch.note_progress(now);
        let Some(window) = &mut self.window else { return debug_assert!(false, "nothing was handed out") };
        let gone = window.leave(bytes);
        let moved = !gone.is_empty();
        self.remove(gone, machines);
        if moved {
            self.advance(now, machines);
        }
    }

    // From the root to the last chunk.

    /// The layout is known: opens the window. False when there is nothing to fetch.
    fn open_window(&mut self, now: Instant, manifest: Arc<Manifest>, machines: &mut Machines) -> bool {
        let length = manifest.length();
        let opened = Output::Opened { command: self.command, file_length: length };
        let file_bytes = manifest.chunk_bytes();
        let Some(mut window) = Window::new(manifest, self.id.0, self.part, self.window_bytes) else {
            machines.outputs.push_back(opened);
            let why = format!("there are no such bytes: the file has only {length}");
            self.give_up(now, FailureReason::Usage, &why, machines);
            return false;
        };
        let (most, least) = (window.bytes_max(), window.bytes_min());
        let room = (most > 0).then(|| machines.store.open_window(self.id.0, most, least, file_bytes));
        match room {
            None => {}
            Some(Ok(bytes)) => window.shrink(bytes),
            Some(Err(full)) => {
                let why = format!("what is streamed passes through the node's disk: {full}");
                self.give_up(now, FailureReason::NoSpace, &why, machines);
                return false;
            }
        }
        machines.outputs.push_back(opened);
        let is_over = window.is_over();
        self.phase = Phase::Chunks;
        self.next_local = window.chunks().start;
        self.window = Some(window);
        if is_over {
            self.finish(machines);
        }
        !is_over
    }

    fn begin_chunks(&mut self, now: Instant, machines: &mut Machines) {
        let Some(window) = &self.window else { return debug_assert!(false, "the root is known") };
        let manifest = Arc::clone(window.manifest());
        let is_local = |index: u32| {
            let found = machines.store.locate(&manifest.keys()[index as usize]);
            found.is_some_and(|(kind, extent)| {
                kind != Kind::Manifest && extent.length == manifest.chunk_length(index)
            })
        };
        self.local = window.chunks().map(is_local).collect();
        self.ask_network(now, machines);
        self.copy_local(machines);
        self.report(Stage::Downloading, machines);
    }

    /// Requests from the network the chunks that are not in this node's own files.
    fn ask_network(&mut self, now: Instant, machines: &mut Machines) {
        let Some(window) = &self.window else { return debug_assert!(false, "the root is known") };
        let have =
            |index: u32| !window.chunks().contains(&index) || window.has(index) || self.is_local(index);
        let have: Vec<bool> = (0..window.manifest().chunk_count()).map(have).collect();
        if have.iter().all(|have| *have) {
            return machines.transfer.abort(now, self.id);
        }
        let (manifest, edge) = (Arc::clone(window.manifest()), window.edge());
        machines.transfer.begin_window(now, self.id, manifest, self.id.0, &have, edge);
        self.fetch.ensure_lookup(now, machines);
    }

    fn is_local(&self, index: u32) -> bool {
        let first = self.window.as_ref().map_or(0, |window| window.chunks().start);
        index.checked_sub(first).and_then(|at| self.local.get(at as usize)).is_some_and(|local| *local)
    }

    /// Copies chunks that may enter the window from this node's own files. They are verified, because the files may have changed.
    fn copy_local(&mut self, machines: &mut Machines) {
        let Some(window) = &self.window else { return debug_assert!(false, "the root is known") };
        let mut begun = Vec::new();
        while self.copying.len() < COPIES_MAX && self.next_local < window.edge() {
            let index = self.next_local;
            self.next_local += 1;
            let manifest = window.manifest();
            if !self.is_local(index) {
                continue;
            }
            // The file may have been deleted since the read began: then the copy fails.
            let found = machines.store.locate(&manifest.keys()[index as usize]);
            let from = found.map(|(_, extent)| extent).unwrap_or_else(|| crate::io::Extent {
                place: Place::Piece(manifest.keys()[index as usize]),
                offset: 0,
                length: manifest.chunk_length(index),
                stamp: None,
            });
            let (length, hash_as) = (manifest.chunk_length(index), manifest.hash_as(index));
            let to = Sink { place: window.place(index), offset: 0, length, hash_as };
            self.copying.insert(index, from.place.clone());
            begun.push((index, DiskOp::Copy { from, to }));
        }
        for (index, op) in begun {
            self.disk(op, Step::Copy(index), machines);
        }
    }

    fn copied(
        &mut self,
        now: Instant,
        index: u32,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        self.copying.remove(&index);
        let Some(window) = self.window.as_ref().filter(|_| matches!(self.phase, Phase::Chunks)) else {
            return;
        };
        let key = window.manifest().keys()[index as usize];
        if matches!(result, Ok(DiskReply::Copied { key: copied }) if copied == key) {
            self.enter(now, index, machines);
        } else {
            // The chunk in this node's file has changed: the network may have it.
            let first = window.chunks().start;
            self.local[(index - first) as usize] = false;
            if !machines.transfer.want(now, self.id, index) {
                self.ask_network(now, machines);
            }
        }
        if matches!(self.phase, Phase::Chunks) {
            self.copy_local(machines);
        }
    }

    /// A verified chunk is in its file.
    fn enter(&mut self, now: Instant, index: u32, machines: &mut Machines) {
        self.fetch.note_progress(now);
        let Some(window) = &mut self.window else { return debug_assert!(false, "the root is known") };
        if !window.enter(index) {
            return;
        }
        while let Some((content, extent)) = window.next_content() {
            machines.outputs.push_back(Output::Content { command: self.command, content, extent });
        }
        self.report(Stage::Downloading, machines);
    }

    /// The window has moved.
    fn advance(&mut self, now: Instant, machines: &mut Machines) {
        let Some(window) = &self.window else { return debug_assert!(false, "bytes have left") };
        match &self.phase {
            Phase::Ending(failure) if window.is_starved() => {
                let Failure { reason, message } = failure.clone();
                self.end(machines);
                machines.fail(self.command, reason, message);
            }
            Phase::Chunks if window.is_over() => self.finish(machines),
            Phase::Chunks => {
                let edge = window.edge();
                machines.transfer.advance(now, self.id, edge);
                self.copy_local(machines);
            }
            _ => {}
        }
    }

    // The end.

    fn finish(&mut self, machines: &mut Machines) {
        let Some(window) = &self.window else { return debug_assert!(false, "everything has left") };
        let reply = Reply::Read {
            hash: self.hash,
            length: window.manifest().length(),
            start: window.bytes().start,
            bytes: window.sent(),
            sources: self.fetch.sources(),
        };
        self.end(machines);
        machines.done(self.command, reply);
    }

    /// Ends the read. None of its files stays on disk.
    fn end(&mut self, machines: &mut Machines) {
        self.phase = Phase::Over;
        machines.store.close_window(self.id.0);
    }

    // Helpers.

    fn remove(&self, chunks: Range<u32>, machines: &mut Machines) {
        for chunk in chunks {
            machines.disk(DiskOp::Remove(Place::Window { window: self.id.0, chunk }), Waiting::Nothing);
        }
    }

    fn disk(&self, op: DiskOp, step: Step, machines: &mut Machines) {
        machines.disk(op, Waiting::Read(self.id, step));
    }

    fn report(&self, stage: Stage, machines: &mut Machines) {
        let Some(window) = &self.window else { return };
        let bytes = window.bytes();
        let progress =
            Progress { stage, done: window.sent(), total: bytes.end - bytes.start, prefix: 0, path: None };
        machines.progress(self.command, progress);
    }
}

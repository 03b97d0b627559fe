//! Downloads: from an address to bytes on disk, every one of them verified.
//!
//! First comes the *root*, the piece whose key is the address itself: a manifest, or the content of a one-chunk file
//! ([`seek`](super::seek)). Then the target is opened, what an earlier attempt left there is verified, chunks that are elsewhere on this
//! node are copied ([`reuse`]), and the rest is requested from every source. Each verified chunk is offered to other nodes at once.
//!
//! A [`Download`] is one of them. [`Downloads`] is the table of all, with the orders that wait.

mod chunks;
mod order;
mod reuse;
#[cfg(test)]
mod tests;

pub(in crate::node) use order::Order;

use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskOp, DiskReply, FileStamp, Mode, Permissions, Place, Tree};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::node::command::{
    CommandId, Failure, FailureReason, FileState, Progress, Reply, SharedFile, Stage,
};
use crate::node::machines::Machines;
use crate::node::ops::fetch::{Awaited, Due, Fetch, Fetcher};
use crate::node::ops::seek::Seek;
use crate::node::ops::seek::sources::Search;
use crate::node::ops::seek::verdict::Sought;
use crate::node::ops::share;
use crate::node::ops::table::{Entry, Operation, Table};
use crate::node::{Looker, Waiting, status};
use crate::time::Instant;
use crate::transfer::DownloadId;
use chunks::Chunks;
use reuse::Reuse;
use std::path::PathBuf;
use std::sync::Arc;

/// How often a download fetches chunks again because another program changed the file.
const SPOILED_MAX: u32 = 3;

/// All downloads of a node.
pub(in crate::node) type Downloads = Table<Download>;

impl Downloads {
    /// None.
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        Table::with(limits.downloads_max, limits.downloads_queued_max, ())
    }

    /// The mode of a file that is being downloaded, as the source of its root reports it.
    pub(in crate::node) fn mode(&self, hash: &Key) -> Mode {
        self.iter().find(|download| download.hash == *hash).map_or(Mode::UNKNOWN, |it| it.mode)
    }

    /// The entries in the list of files.
    pub(in crate::node) fn describe<'a>(
        &'a self,
        machines: &'a Machines,
    ) -> impl Iterator<Item = SharedFile> + 'a {
        let queued = self.orders().map(|order| SharedFile {
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
        self.iter().filter_map(|download| download.describe(machines)).chain(queued)
    }
}

/// One download.
pub(in crate::node) struct Download {
    id: DownloadId,
    hash: Key,
    /// The commands to answer at the end.
    waiters: Vec<CommandId>,
    /// The path that the user gave; `None` is the node's cache.
    target: Option<PathBuf>,
    /// Whether a file at the target is replaced.
    force: bool,
    /// The permission bits of the file, if the user gives them.
    asked: Option<u32>,
    /// The tree that the target belongs to, if it is a file of a set.
    tree: Option<Tree>,
    place: Place,
    /// The file that holds the content until the download is complete.
    path: Option<PathBuf>,
    phase: Phase,
    /// The file's mode as the source of the root reports it.
    mode: Mode,
    /// The chunks, once the root is known.
    chunks: Option<Chunks>,
    announced: bool,
    /// The content of a one-chunk file, until the file has its name.
    content: Option<Vec<u8>>,
    reuse: Reuse,
    fetch: Fetch,
    /// How often another program changed the file.
    spoiled: u32,
}

/// The phase of a download.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Phase {
    /// Looking for the root.
    Root,
    /// Preparing the target on disk.
    Opening,
    /// Requesting chunks.
    Chunks,
    /// Complete; the file gets its name.
    Finishing,
    /// Over: the commands have been answered.
    Over,
}

/// The purpose of a disk operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Step {
    Open,
    /// To copy the chunk with this index from another file here.
    Copy(u32),
    /// To write the content of a one-chunk file.
    Write,
    Finish,
    Save,
}

impl Operation for Download {
    type Id = DownloadId;
    type Order = Order;
    type Settings = ();

    fn id(number: u64) -> DownloadId {
        DownloadId(number)
    }

    fn admit<'a>(order: &Order, (): &(), others: impl Iterator<Item = &'a Download>) -> Entry<DownloadId> {
        order.admit(others)
    }

    fn begin(now: Instant, id: DownloadId, order: Order, (): &(), machines: &mut Machines) -> Self {
        let Order { id: command, hash, target, force, mode: asked, tree, timeout } = order;
        let place = match &target {
            Some(path) => Place::Partial(Arc::from(path.as_path())),
            None => Place::Cache(hash),
        };
        let mut download = Download {
            id,
            hash,
            waiters: vec![command],
            target,
            force,
            asked,
            tree,
            place,
            path: None,
            phase: Phase::Root,
            mode: machines.store.mode(&hash),
            chunks: None,
            announced: false,
            content: None,
            reuse: Reuse::default(),
            fetch: Fetch::new(now, Search::new(id, hash), timeout),
            spoiled: 0,
        };
        match machines.store.source(&hash) {
            Some(claim) => {
                machines.look_at(claim.place(&hash), claim.stamp, Looker::Seeker(id));
            }
            None => download.find_root(now, machines),
        }
        download
    }

    fn join(&mut self, order: Order) {
        self.waiters.push(order.id);
    }

    fn awaits(&self, command: CommandId) -> bool {
        self.waiters.contains(&command)
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.fetch.next_deadline(self.awaited())
    }

    fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let missing = self.chunks.as_ref().map(|chunks| (chunks.missing(), chunks.have().len()));
        match self.fetch.handle_timeout(now, self.awaited(), missing, machines) {
            Due::Nothing => {}
            Due::Tell => self.report(Stage::Waiting, machines),
            Due::Fail(reason, why) => self.give_up(now, reason, &why, machines),
        }
    }

    /// The download ends with its last command, unless it is complete: then the file is kept.
    fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        let waited = self.waiters.len();
        self.waiters.retain(|id| *id != command);
        if waited > 0 && self.waiters.is_empty() && self.phase != Phase::Finishing {
            log::info!("a download that no client waits for any more was stopped");
            self.give_up(now, FailureReason::Failed, "cancelled", machines);
        }
    }
}

impl Seek for Download {
    fn search(&self) -> &Search {
        &self.fetch.search
    }

    fn search_mut(&mut self) -> &mut Search {
        &mut self.fetch.search
    }

    fn handle_stamp(&mut self, now: Instant, unchanged: bool, machines: &mut Machines) {
        let place = machines.store.source(&self.hash).map(|claim| claim.place(&self.hash));
        match place.filter(|_| unchanged && self.target.is_none()) {
            Some(place) => {
                let length = machines.store.shared(&self.hash).map_or(0, |shared| shared.layout.length());
                let path = machines.path_of(&place);
                self.end(Ok(Reply::Get { hash: self.hash, length, path, sources: 0 }), machines);
            }
            None => self.find_root(now, machines),
        }
    }

    fn handle_layout(
        &mut self,
        now: Instant,
        layout: Arc<Manifest>,
        content: Option<Vec<u8>>,
        mode: Mode,
        machines: &mut Machines,
    ) {
        self.fetch.note_progress(now);
        (self.mode, self.content) = (mode, content);
        if let Err(full) = machines.store.begin_partial(self.hash, Arc::clone(&layout), self.place.clone()) {
            let why = format!("{full}; or give a path with -o");
            return self.give_up(now, FailureReason::NoSpace, &why, machines);
        }
        self.chunks = Some(Chunks::new(Arc::clone(&layout)));
        self.phase = Phase::Opening;
        let (place, manifest, force, tree) = (self.place.clone(), layout, self.force, self.tree.clone());
        let permissions = match self.asked.filter(|_| self.target.is_some()) {
            Some(bits) => Permissions::Exact(Mode::of(bits)),
            None => Permissions::Usual(self.mode),
        };
        self.disk(DiskOp::OpenTarget { place, manifest, force, permissions, tree }, Step::Open, machines);
    }

    fn handle_reached(&mut self, now: Instant) {
        self.fetch.handle_reached(now);
    }

    fn sought(&self) -> Option<Sought> {
        self.awaited().sought()
    }

    fn give_up(&mut self, now: Instant, reason: FailureReason, why: &str, machines: &mut Machines) {
        let mut message = format!("{}: {why}", self.hash);
        let have = self.chunks.as_ref().map_or(0, Chunks::have_bytes);
        if let Some(path) = self.path.as_ref().filter(|_| have > 0) {
            message += &format!(
                "; {have} verified bytes are kept in {}, the same command goes on from there",
                path.display()
            );
        }
        machines.transfer.abort(now, self.id);
        machines.store.end_partial(&self.hash);
        if self.phase != Phase::Root {
            let close = DiskOp::CloseTarget { place: self.place.clone(), delete: have == 0 };
            machines.disk(close, self.unawaited());
        }
        self.end(Err(Failure { reason, message }), machines);
    }
}

impl Fetcher for Download {
    fn handle_chunk(&mut self, now: Instant, index: u32, machines: &mut Machines) {
        self.mark(index);
        self.fetch.note_flow(now);
        if !core::mem::replace(&mut self.announced, true) {
            machines.dht.provide(now, self.hash, true, &mut machines.outbox);
        }
        machines.store.chunk_done(&self.hash, index);
        self.report(Stage::Downloading, machines);
    }

    fn handle_complete(&mut self, sources: u32, machines: &mut Machines) {
        self.fetch.handle_complete(sources);
        self.phase = Phase::Finishing;
        self.disk(DiskOp::FinishTarget { place: self.place.clone() }, Step::Finish, machines);
    }

    fn handle_failed(&mut self, now: Instant, error: &DiskError, machines: &mut Machines) {
        if error.kind == DiskErrorKind::Lost {
            self.path = None;
        }
        self.give_up(now, status::failure_of(error), &error.to_string(), machines);
    }
}

impl Download {
    // Getters.

    fn awaited(&self) -> Awaited {
        match self.phase {
            Phase::Root => Awaited::Root,
            Phase::Chunks => Awaited::Chunks,
            Phase::Opening | Phase::Finishing | Phase::Over => Awaited::Nothing,
        }
    }

    /// The entry in the list of files, once the file's length is known.
    fn describe(&self, machines: &Machines) -> Option<SharedFile> {
        self.chunks.as_ref().map(|chunks| SharedFile {
            hash: self.hash,
            length: chunks.manifest().length(),
            path: self.path.clone().unwrap_or_else(|| machines.path_of(&self.place)),
            copies: 0,
            replicas: 0,
            have: chunks.have_bytes(),
            cached: self.target.is_none(),
            kept_open: false,
            state: FileState::Downloading,
        })
    }

    // Inputs.

    /// A disk operation ended, or made progress.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        step: Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        match (step, result) {
            (_, Ok(DiskReply::Progress { done, total })) => {
                let stage = Stage::Checking;
                self.tell(&Progress { stage, done, total, prefix: 0, path: None }, machines);
            }
            (Step::Open, Ok(DiskReply::Opened { path, good, old })) => {
                self.path = Some(path);
                self.opened(now, &good, &old, machines);
            }
            (Step::Copy(index), result) => self.copied(now, index, result, machines),
            (Step::Write, Ok(_)) => {
                self.mark(0);
                self.handle_complete(1, machines);
            }
            // The target is this file already.
            (Step::Open | Step::Finish, Ok(DiskReply::Finished { stamp, path })) => {
                self.finished(now, stamp, path, machines);
            }
            (Step::Finish, Ok(DiskReply::Spoiled { good })) => self.spoiled(now, &good, machines),
            (Step::Save, result) => {
                if let Err(error) = result {
                    // The file is complete and verified, but its share will not survive a restart.
                    log::warn!("{error}");
                }
                self.saved(now, machines);
            }
            (_, Err(error)) => self.handle_failed(now, &error, machines),
            (step, Ok(reply)) => debug_assert!(false, "the disk answered {step:?} with {reply:?}"),
        }
    }

    // From the root to the last chunk.

    /// The target is open. `good` tells which chunks are in it, `old` which are in the file that it will replace.
    fn opened(&mut self, now: Instant, good: &[bool], old: &[bool], machines: &mut Machines) {
        let Some(chunks) = &mut self.chunks else { return debug_assert!(false, "the root is known") };
        if self.content.is_some() {
            return self.write_content(machines);
        }
        (0..).zip(good).filter(|(_, good)| **good).for_each(|(index, _)| chunks.mark(index));
        self.reuse = Reuse::plan(self.target.as_deref(), old, chunks, machines);
        self.reuse_next(now, machines);
    }

    /// Writes the content of a one-chunk file, which came with the root.
    fn write_content(&self, machines: &mut Machines) {
        let bytes = self.content.clone().unwrap_or_default();
        self.disk(DiskOp::WriteTarget { place: self.place.clone(), offset: 0, bytes }, Step::Write, machines);
    }

    fn reuse_next(&mut self, now: Instant, machines: &mut Machines) {
        let next = self.chunks.as_ref().and_then(|chunks| self.reuse.next(chunks, &self.place));
        match next {
            Some((index, op)) => self.disk(op, Step::Copy(index), machines),
            None => self.begin_chunks(now, machines),
        }
    }

    fn copied(
        &mut self,
        now: Instant,
        index: u32,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let key = self.chunks.as_ref().and_then(|chunks| chunks.manifest().keys().get(index as usize));
        match result {
            Ok(DiskReply::Copied { key: copied }) if Some(&copied) == key => {
                self.mark(index);
                self.fetch.note_progress(now);
            }
            Ok(_) => {}
            Err(error) => log::info!("{error}"),
        }
        self.reuse_next(now, machines);
    }

    /// Everything that was found here is in the target: requests the rest from the network.
    fn begin_chunks(&mut self, now: Instant, machines: &mut Machines) {
        let Some(chunks) = &self.chunks else { return debug_assert!(false, "the root is known") };
        self.phase = Phase::Chunks;
        self.fetch.note_flow(now);
        for index in chunks.present() {
            machines.store.chunk_done(&self.hash, index);
        }
        if chunks.missing() == 0 {
            machines.transfer.abort(now, self.id);
            return self.handle_complete(0, machines);
        }
        let (manifest, have) = (Arc::clone(chunks.manifest()), chunks.have().to_vec());
        machines.transfer.begin(now, self.id, manifest, self.place.clone(), have);
        self.fetch.ensure_lookup(now, machines);
        self.report(Stage::Downloading, machines);
    }

    // The end.

    /// For a disk operation without a waiting step. The file is the node's own only in the cache.
    fn unawaited(&self) -> Waiting {
        if matches!(self.place, Place::Cache(_)) { Waiting::Nothing } else { Waiting::UsersFile }
    }

    /// Another program changed the file: chunks that no longer verify are fetched again.
    fn spoiled(&mut self, now: Instant, good: &[bool], machines: &mut Machines) {
        let Some(chunks) = &mut self.chunks else { return debug_assert!(false, "the root is known") };
        chunks.keep_only(good);
        self.spoiled += 1;
        let path = self.path.clone().unwrap_or_default();
        let missing = chunks.missing();
        log::warn!("another program wrote into {}: {missing} chunks are fetched again", path.display());
        if self.spoiled > SPOILED_MAX {
            let why = format!("another program keeps writing into {}", path.display());
            return self.give_up(now, FailureReason::Failed, &why, machines);
        }
        let manifest = Arc::clone(chunks.manifest());
        if let Err(full) = machines.store.begin_partial(self.hash, manifest, self.place.clone()) {
            let why = format!("{full}; or give a path with -o");
            return self.give_up(now, FailureReason::NoSpace, &why, machines);
        }
        match missing > 0 && self.content.is_some() {
            true => self.write_content(machines),
            false => self.begin_chunks(now, machines),
        }
    }

    /// The file has its name.
    fn finished(&mut self, now: Instant, stamp: FileStamp, path: PathBuf, machines: &mut Machines) {
        let Some(chunks) = &self.chunks else { return debug_assert!(false, "the root is known") };
        if self.target.is_some() {
            self.place = Place::File(Arc::from(path));
        }
        let place = self.place.clone();
        machines.store.end_partial(&self.hash);
        let manifest = Arc::clone(chunks.manifest());
        match share::fetched(&manifest, place, stamp, machines) {
            Some(op) => self.disk(op, Step::Save, machines),
            // It is shared from another path already, or there is no room for another share.
            None => self.saved(now, machines),
        }
    }

    fn saved(&mut self, now: Instant, machines: &mut Machines) {
        machines.transfer.abort(now, self.id);
        if self.announced && machines.store.source(&self.hash).is_none() {
            // Its chunks were announced during the download. That ends now.
            machines.dht.unprovide(now, &self.hash, &mut machines.outbox);
        }
        let reply = self.reply(machines);
        self.end(Ok(reply), machines);
    }

    fn reply(&self, machines: &Machines) -> Reply {
        let length = self.chunks.as_ref().map_or(0, |chunks| chunks.manifest().length());
        Reply::Get {
            hash: self.hash,
            length,
            path: machines.path_of(&self.place),
            sources: self.fetch.sources(),
        }
    }

    /// Answers the waiting commands.
    fn end(&mut self, result: Result<Reply, Failure>, machines: &mut Machines) {
        self.phase = Phase::Over;
        for command in core::mem::take(&mut self.waiters) {
            match result.clone() {
                Ok(reply) => machines.done(command, reply),
                Err(Failure { reason, message }) => machines.fail(command, reason, message),
            }
        }
    }

    // Helpers.

    fn mark(&mut self, index: u32) {
        match &mut self.chunks {
            Some(chunks) => chunks.mark(index),
            None => debug_assert!(false, "the root is known before chunks are"),
        }
    }

    fn disk(&self, op: DiskOp, step: Step, machines: &mut Machines) {
        machines.disk(op, Waiting::Download(self.id, step));
    }

    fn tell(&self, progress: &Progress, machines: &mut Machines) {
        for command in &self.waiters {
            machines.progress(*command, progress.clone());
        }
    }

    fn report(&self, stage: Stage, machines: &mut Machines) {
        let Some(chunks) = &self.chunks else { return debug_assert!(false, "the root is known") };
        let progress = Progress {
            stage,
            done: chunks.have_bytes(),
            total: chunks.manifest().length(),
            prefix: chunks.prefix_bytes(),
            path: Some(self.path.clone().unwrap_or_else(|| machines.path_of(&self.place))),
        };
        self.tell(&progress, machines);
    }
}

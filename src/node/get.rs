//! Fetching files: from an address to bytes on disk, every one of them verified.
//!
//! First the *root* is wanted, which is the piece whose key is the address itself: a manifest, or the content of a
//! one-chunk file. Who provides the file and who is near its hash is looked up, and those are asked. Then the target is
//! opened, what an earlier attempt left there is checked, what this node has of the file elsewhere is copied, and
//! the rest is taken from everybody who has it. Each verified chunk is offered to others at once.

use super::command::{CommandId, Failure, FailureReason, Part, Progress, Reply, Response, SharedFile, Stage};
use super::seek::Search;
use super::{Node, Waiting, status};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Extent, FileStamp, Place, Share, Sink};
use crate::manifest::Manifest;
use crate::time::{Duration, Instant, earliest};
use crate::transfer::{DownloadId, Root};
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A download that makes no progress for so long is given up, unless the command says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// What was fetched of a file of which only a part was wanted is kept for so long: whoever asked reads it, and perhaps
/// wants another part.
const KEPT: Duration = Duration::from_secs(60);

/// A command to fetch a file or a part of one.
pub(super) struct Order {
    pub(super) id: CommandId,
    pub(super) hash: Key,
    pub(super) target: Option<PathBuf>,
    pub(super) part: Option<Part>,
    pub(super) timeout: Option<u32>,
}

/// A file that is being fetched.
pub(super) struct Get {
    pub(super) hash: Key,
    waiters: Vec<CommandId>,
    /// Commands for the same file with another target: they begin when this one has ended.
    queued: Vec<Order>,
    target: Option<PathBuf>,
    /// The part of the file that is wanted; `None` is all of it.
    part: Option<Part>,
    /// The chunks of that part.
    wanted: Range<u32>,
    place: Place,
    timeout: Option<Duration>,
    pub(super) phase: Phase,
    manifest: Option<Arc<Manifest>>,
    have: Vec<bool>,
    have_bytes: u64,
    /// The chunks before this one that are wanted are all there.
    prefix: u32,
    announced: bool,
    /// Content of a one-chunk file on its way to the disk.
    content: Option<Vec<u8>>,
    /// Chunks that are here elsewhere, to be copied.
    copies: VecDeque<(u32, Extent)>,
    pub(super) search: Search,
    /// Nodes that content came from.
    sources: u32,
    pub(super) progress_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The root is wanted.
    Root,
    /// The disk prepares the target.
    Opening,
    /// Chunks are on their way.
    Chunks,
    /// The file is complete and gets its name.
    Finishing,
    /// The part that was wanted is there, and may be read for a while.
    Kept,
}

/// What a disk operation was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// To see whether a file that is shared here is still what it was.
    Shared,
    /// The root, from a piece or a manifest that is stored here.
    LocalRoot,
    Open,
    Check,
    /// To see which chunks are in the file that the download will replace.
    CheckOld,
    /// The chunk with this index, from another file here.
    Copy(u32),
    /// The content of a one-chunk file.
    Write,
    Finish,
    Save,
}

impl Get {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.search.look_again.filter(|_| self.phase != Phase::Kept), self.gives_up_at())
    }

    fn gives_up_at(&self) -> Option<Instant> {
        if self.phase == Phase::Kept {
            return Some(self.progress_at + KEPT);
        }
        // The disk takes the time it takes.
        let waits = matches!(self.phase, Phase::Root | Phase::Chunks);
        self.timeout.filter(|_| waits).map(|timeout| self.progress_at + timeout)
    }

    fn prefix_bytes(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.chunk_offset(self.prefix).min(manifest.length()))
    }

    fn mark(&mut self, index: u32) {
        if let (Some(have @ false), Some(manifest)) = (self.have.get_mut(index as usize), &self.manifest) {
            *have = true;
            self.have_bytes += u64::from(manifest.chunk_length(index));
        }
        while self.have.get(self.prefix as usize) == Some(&true) {
            self.prefix += 1;
        }
    }

    /// How many chunks that are wanted are missing.
    fn missing(&self) -> usize {
        self.wanted.clone().filter(|index| self.have.get(*index as usize) == Some(&false)).count()
    }

    /// The entry in the list of files, once the file's length is known.
    pub(super) fn describe(&self, cache_dir: &Path) -> Option<SharedFile> {
        self.manifest.as_ref().map(|manifest| SharedFile {
            hash: self.hash,
            length: manifest.length(),
            path: status::path_of(cache_dir, &self.place),
            copies: 0,
            replicas: 0,
            have: self.have_bytes,
            cached: self.target.is_none(),
        })
    }
}

impl Node {
    pub(super) fn get(&mut self, now: Instant, order: Order) {
        self.let_go_of_kept(&order);
        let Order { id, hash, target, part, timeout } = order;
        if target.as_ref().is_some_and(|path| !path.is_absolute()) {
            return self.machines.fail(
                id,
                FailureReason::Usage,
                "a path must be absolute: the node has a directory of its own",
            );
        }
        if let Some(get) = self.gets.values_mut().find(|get| get.hash == hash) {
            match get.target == target && get.part == part {
                true => get.waiters.push(id),
                false => get.queued.push(Order { id, hash, target, part, timeout }),
            }
            return;
        }
        if self.gets.len() >= self.config.limits.downloads_max {
            let message =
                format!("{} downloads are under way, and no more are allowed: try again", self.gets.len());
            return self.machines.fail(id, FailureReason::Failed, message);
        }
        if let Some(other) = self.gets.values().find(|get| target.is_some() && get.target == target) {
            let message = format!("{} is being fetched into the same file: choose another", other.hash);
            return self.machines.fail(id, FailureReason::Failed, message);
        }
        let place = match &target {
            Some(path) => Place::Partial(Arc::from(path.as_path())),
            None => Place::Cache(hash),
        };
        let timeout = match timeout {
            None => Some(TIMEOUT_DEFAULT),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(u64::from(seconds))),
        };
        let download = DownloadId(self.machines.fresh_id());
        let get = Get {
            hash,
            waiters: vec![id],
            queued: Vec::new(),
            target,
            part,
            wanted: 0..0,
            place,
            timeout,
            phase: Phase::Root,
            manifest: None,
            have: Vec::new(),
            have_bytes: 0,
            prefix: 0,
            announced: false,
            content: None,
            copies: VecDeque::new(),
            search: Search::default(),
            sources: 0,
            progress_at: now,
        };
        self.gets.insert(download, get);
        match self.machines.store.share(&hash) {
            Some(share) => {
                let (place, stamp) = (share.place.clone(), Some(share.stamp));
                let nothing = Extent { place, offset: 0, length: 0, stamp };
                self.machines.disk(DiskOp::Read(nothing), Waiting::Get(download, Step::Shared));
            }
            None => self.find_root(now, download),
        }
    }

    /// The whole file is here, unless somebody changed it.
    fn shared(&mut self, now: Instant, download: DownloadId, error: Option<DiskError>) {
        let Some(get) = self.gets.get(&download) else { return };
        let Some(share) = self.machines.store.share(&get.hash).cloned() else {
            return self.find_root(now, download);
        };
        match error {
            Some(error) => {
                self.send_failed(now, &share.place, &error);
                self.find_root(now, download);
            }
            None if get.target.is_some() => self.layout_known(now, download, Arc::clone(&share.manifest)),
            None => {
                let (hash, length) = (get.hash, share.manifest.length());
                let path = self.path_of(&share.place);
                self.end_get(download, Ok(Reply::Get { hash, length, path, sources: 0 }));
                self.begin_queued(now);
            }
        }
    }

    /// Takes the root from here when it is here.
    fn find_root(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get(&download) else { return };
        match self.machines.store.locate(&get.hash) {
            Some((_, extent)) => {
                self.machines.disk(DiskOp::Read(extent), Waiting::Get(download, Step::LocalRoot))
            }
            None => self.fetch_root(now, download),
        }
    }

    /// Asks the network for the root, or knows it already: a file of no bytes has one content only.
    fn fetch_root(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get(&download) else { return };
        let hash = get.hash;
        if hash == Key(*blake3::hash(&[]).as_bytes()) {
            return self.root_found(now, download, Root::File(Vec::new()));
        }
        self.machines.transfer.fetch(now, download, hash, &[]);
        self.look_up_providers(now, download);
    }

    // From the root to the last chunk.

    pub(super) fn root_found(&mut self, now: Instant, download: DownloadId, root: Root) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.progress_at = now;
        match root {
            Root::Manifest(manifest, _) => self.layout_known(now, download, manifest),
            Root::File(content) => {
                let manifest = Manifest::single(get.hash, content.len() as u64);
                get.content = Some(content);
                match manifest {
                    Some(manifest) => self.layout_known(now, download, Arc::new(manifest)),
                    None => self.give_up(
                        now,
                        download,
                        FailureReason::Unverified,
                        "a one-chunk file of several chunks",
                    ),
                }
            }
        }
    }

    fn layout_known(&mut self, now: Instant, download: DownloadId, manifest: Arc<Manifest>) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.wanted = 0..manifest.chunk_count();
        if let (Some(part), false) = (get.part, manifest.is_single()) {
            let Some(bytes) = part.of(manifest.length()) else {
                let why = format!("it has only {} bytes", manifest.length());
                return self.give_up(now, download, FailureReason::Usage, &why);
            };
            let chunk = manifest.chunk_bytes();
            get.wanted = (bytes.start / chunk) as u32..bytes.end.div_ceil(chunk) as u32;
        }
        get.prefix = get.wanted.start;
        if self.machines.store.begin_partial(get.hash, Arc::clone(&manifest), get.place.clone()).is_err() {
            let why = format!("{} bytes do not fit the node's quota: give a path with -o", manifest.length());
            return self.give_up(now, download, FailureReason::NoSpace, &why);
        }
        get.have = vec![false; manifest.chunk_count() as usize];
        get.phase = Phase::Opening;
        let op = DiskOp::OpenTarget { place: get.place.clone(), length: manifest.length() };
        get.manifest = Some(manifest);
        self.machines.disk(op, Waiting::Get(download, Step::Open));
    }

    pub(super) fn get_disk(
        &mut self,
        now: Instant,
        download: DownloadId,
        step: Step,
        result: Result<DiskReply, DiskError>,
    ) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        let manifest = get.manifest.clone();
        match (step, result, manifest) {
            (_, Ok(DiskReply::Progress { done, total }), _) => {
                let stage = Stage::Checking;
                self.tell(download, Progress { stage, done, total, prefix: 0, path: None });
            }
            (Step::Shared, result, _) => self.shared(now, download, result.err()),
            (Step::LocalRoot, Ok(DiskReply::Bytes(bytes)), _) => self.local_root(now, download, bytes),
            // What is stored here cannot be read: the network has it, perhaps.
            (Step::LocalRoot, _, _) => self.fetch_root(now, download),
            (Step::Open, Ok(DiskReply::Opened { partial }), Some(manifest)) => match get.content.take() {
                Some(bytes) => {
                    let op = DiskOp::WriteTarget { place: get.place.clone(), offset: 0, bytes };
                    self.machines.disk(op, Waiting::Get(download, Step::Write));
                }
                None if partial => {
                    let op = DiskOp::Check { place: get.place.clone(), manifest };
                    self.machines.disk(op, Waiting::Get(download, Step::Check));
                }
                None => self.check_old(now, download),
            },
            (Step::Check, Ok(DiskReply::Checked { good }), _) => {
                for (index, _) in good.iter().enumerate().filter(|(_, good)| **good) {
                    get.mark(index as u32);
                }
                self.check_old(now, download);
            }
            (Step::CheckOld, Ok(DiskReply::Checked { good }), _) => self.copy_local(now, download, &good),
            // Most often there is no such file.
            (Step::CheckOld, _, _) => self.copy_local(now, download, &[]),
            (Step::Copy(index), result, Some(manifest)) => {
                let key = manifest.keys().get(index as usize);
                if matches!(&result, Ok(DiskReply::Copied { key: copied }) if Some(copied) == key) {
                    get.mark(index);
                    get.progress_at = now;
                } else if let Err(error) = result {
                    log::info!("{error}");
                }
                self.copy_next(now, download);
            }
            (Step::Write, Ok(_), _) => {
                get.mark(0);
                self.chunks_complete(now, download, 1);
            }
            (Step::Finish, Ok(DiskReply::Finished { stamp }), Some(manifest)) => {
                self.finished(now, download, manifest, stamp);
            }
            (Step::Save, result, _) => self.saved(now, download, result.err()),
            (_, Err(error), _) => self.get_disk_failed(now, download, &error),
            (_, Ok(reply), _) => log::error!("the disk answered {step:?} with {reply:?}"),
        }
    }

    fn local_root(&mut self, now: Instant, download: DownloadId, bytes: Vec<u8>) {
        let Some(hash) = self.gets.get(&download).map(|get| get.hash) else { return };
        if let Ok(manifest) = Manifest::decode(&bytes, &hash) {
            let manifest = Arc::new(manifest);
            self.root_found(now, download, Root::Manifest(manifest, bytes));
        } else if *blake3::hash(&bytes).as_bytes() == hash.0 {
            self.root_found(now, download, Root::File(bytes));
        } else {
            self.machines.store.remove_piece(&hash);
            self.fetch_root(now, download);
        }
    }

    /// Looks for chunks in the file that the download will replace: an older version has most of them, perhaps.
    fn check_old(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get(&download) else { return };
        match (&get.target, &get.manifest) {
            (Some(target), Some(manifest)) if get.missing() > 0 => {
                let place = Place::File(Arc::from(target.as_path()));
                let op = DiskOp::Check { place, manifest: Arc::clone(manifest) };
                self.machines.disk(op, Waiting::Get(download, Step::CheckOld));
            }
            _ => self.copy_local(now, download, &[]),
        }
    }

    /// Takes what this node has of the file elsewhere, before the network is asked; `old` tells which chunks are in the
    /// file that the download will replace.
    fn copy_local(&mut self, now: Instant, download: DownloadId, old: &[bool]) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        let Some(manifest) = &get.manifest else { return };
        let mut sources: BTreeMap<u32, Extent> =
            self.machines.store.local_sources(manifest).into_iter().collect();
        if let Some(target) = &get.target {
            let place = Place::File(Arc::from(target.as_path()));
            for (index, _) in (0..manifest.chunk_count()).zip(old).filter(|(_, good)| **good) {
                let (offset, length) = (manifest.chunk_offset(index), manifest.chunk_length(index));
                let extent = Extent { place: place.clone(), offset, length, stamp: None };
                sources.entry(index).or_insert(extent);
            }
        }
        let lacks = |index: u32| get.wanted.contains(&index) && get.have.get(index as usize) == Some(&false);
        get.copies = sources.into_iter().filter(|(index, _)| lacks(*index)).collect();
        self.copy_next(now, download);
    }

    fn copy_next(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        let Some(manifest) = get.manifest.clone() else { return };
        let Some((index, from)) = get.copies.pop_front() else {
            return self.begin_chunks(now, download, manifest);
        };
        let to = Sink {
            place: get.place.clone(),
            offset: manifest.chunk_offset(index),
            length: manifest.chunk_length(index),
            hash_as: manifest.hash_as(index),
        };
        self.machines.disk(DiskOp::Copy { from, to }, Waiting::Get(download, Step::Copy(index)));
    }

    fn begin_chunks(&mut self, now: Instant, download: DownloadId, manifest: Arc<Manifest>) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        let (hash, place, have) = (get.hash, get.place.clone(), get.have.clone());
        (get.phase, get.progress_at) = (Phase::Chunks, now);
        get.search.begin_afresh();
        for (index, _) in have.iter().enumerate().filter(|(_, have)| **have) {
            self.machines.store.chunk_done(&hash, index as u32);
        }
        if get.missing() == 0 {
            self.machines.transfer.abort(now, download);
            return self.chunks_complete(now, download, 0);
        }
        let part = get.wanted.clone();
        self.machines.transfer.begin_part(now, download, manifest, place, have, part);
        // None was made when the root was here, and none while the disk was at work.
        if self.gets.get(&download).is_some_and(|get| get.search.look_again.is_none()) {
            self.look_up_providers(now, download);
        }
        self.report_get(download, Stage::Downloading);
    }

    pub(super) fn chunk_done(&mut self, now: Instant, download: DownloadId, index: u32) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.mark(index);
        get.progress_at = now;
        get.search.begin_afresh();
        let hash = get.hash;
        if !core::mem::replace(&mut get.announced, true) {
            self.machines.dht.provide(now, hash, true, &mut self.machines.outbox);
        }
        self.machines.store.chunk_done(&hash, index);
        self.report_get(download, Stage::Downloading);
    }

    pub(super) fn chunks_complete(&mut self, now: Instant, download: DownloadId, sources: u32) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        get.sources = sources;
        if get.have.iter().any(|have| !have) {
            return self.part_complete(now, download);
        }
        get.phase = Phase::Finishing;
        let op = DiskOp::FinishTarget { place: get.place.clone() };
        self.machines.disk(op, Waiting::Get(download, Step::Finish));
    }

    /// The part that was wanted is there. It is kept, and served, for a while.
    fn part_complete(&mut self, now: Instant, download: DownloadId) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        (get.phase, get.progress_at) = (Phase::Kept, now);
        let (hash, sources, queued) = (get.hash, get.sources, core::mem::take(&mut get.queued));
        let (waiters, place) = (core::mem::take(&mut get.waiters), get.place.clone());
        let length = get.manifest.as_ref().map_or(0, |manifest| manifest.length());
        let path = self.path_of(&place);
        for command in waiters {
            self.machines.done(command, Reply::Get { hash, length, path: path.clone(), sources });
        }
        self.queued_gets.extend(queued);
        self.begin_queued(now);
    }

    /// Makes room for a command: what is kept of the same file is taken up again when it lies where the command wants
    /// it, and what is kept longest goes when there are too many downloads.
    fn let_go_of_kept(&mut self, order: &Order) {
        let kept = self.gets.iter().filter(|(_, get)| get.phase == Phase::Kept);
        let mut over: Vec<(DownloadId, bool)> = kept
            .clone()
            .filter(|(_, get)| get.hash == order.hash)
            .map(|(download, _)| (*download, order.target.is_some()))
            .collect();
        if over.is_empty() && self.gets.len() >= self.config.limits.downloads_max {
            let oldest = kept.min_by_key(|(_, get)| get.progress_at);
            over.extend(oldest.map(|(download, _)| (*download, true)));
        }
        for (download, delete) in over {
            self.end_kept(download, delete);
        }
    }

    fn end_kept(&mut self, download: DownloadId, delete: bool) {
        let Some(get) = self.gets.remove(&download) else { return };
        self.machines.store.end_partial(&get.hash);
        if delete {
            self.machines.disk(DiskOp::Remove(get.place), Waiting::Nothing);
        }
    }

    fn finished(&mut self, now: Instant, download: DownloadId, manifest: Arc<Manifest>, stamp: FileStamp) {
        let Some(get) = self.gets.get_mut(&download) else { return };
        let place = match &get.target {
            Some(path) => Place::File(Arc::from(path.as_path())),
            None => get.place.clone(),
        };
        get.place = place.clone();
        self.machines.store.end_partial(&get.hash);
        let known = self.machines.store.share(&get.hash);
        let elsewhere = known.is_some_and(|known| known.place != place);
        let share = Arc::new(match known {
            // It has taken the place of the file that was shared there, and nobody has synced it.
            Some(known) => Share { stamp, synced: false, ..Share::clone(known) },
            None => Share {
                manifest,
                place,
                stamp,
                replicas: 0,
                lifetime: self.config.lifetime,
                replicated: true,
                synced: false,
            },
        });
        // A file that is shared already stays where it is shared.
        if elsewhere || self.machines.store.add_share(Arc::clone(&share)).is_err() {
            return self.saved(now, download, None);
        }
        self.machines.disk(DiskOp::SaveShare(share), Waiting::Get(download, Step::Save));
    }

    fn saved(&mut self, now: Instant, download: DownloadId, error: Option<DiskError>) {
        if let Some(error) = error {
            // The file is there and verified; only that it is shared will be forgotten at the next start.
            log::warn!("{error}");
        }
        let Some(get) = self.gets.get(&download) else { return };
        let (hash, sources) = (get.hash, get.sources);
        let (length, path) =
            (get.manifest.as_ref().map_or(0, |manifest| manifest.length()), self.path_of(&get.place));
        self.machines.transfer.abort(now, download);
        if self.machines.store.share(&hash).is_some() {
            self.machines.dht.provide(now, hash, false, &mut self.machines.outbox);
        }
        self.end_get(download, Ok(Reply::Get { hash, length, path, sources }));
        self.begin_queued(now);
    }

    // When it does not go well.

    pub(super) fn get_disk_failed(&mut self, now: Instant, download: DownloadId, error: &DiskError) {
        let reason = status::failure_of(error);
        self.give_up(now, download, reason, &error.to_string());
    }

    fn give_up(&mut self, now: Instant, download: DownloadId, reason: FailureReason, why: &str) {
        let Some(get) = self.gets.get(&download) else { return };
        let (hash, have) = (get.hash, get.have_bytes);
        let mut message = format!("{hash}: {why}");
        if have > 0 {
            let path = self.path_of(&get.place);
            message += &format!(
                "; {have} verified bytes are kept in {}, the same command goes on from there",
                path.display()
            );
        }
        self.machines.transfer.abort(now, download);
        self.machines.store.end_partial(&hash);
        self.end_get(download, Err(Failure { reason, message }));
        self.begin_queued(now);
    }

    /// Decides what nobody's message tells: that there is nobody left to ask.
    pub(super) fn review_gets(&mut self, now: Instant) {
        let waiting =
            self.gets.iter().filter(|(_, get)| get.search.lookup.is_none() && get.search.lookups > 0);
        let waiting: Vec<DownloadId> = waiting.map(|(download, _)| *download).collect();
        for download in waiting {
            let Some(get) = self.gets.get(&download) else { continue };
            let Some(state) = self.machines.transfer.download_state(download) else { continue };
            if !state.idle {
                continue;
            }
            let (asked, providers) = (get.search.asked, get.search.providers);
            match get.phase {
                Phase::Root if state.banned > 0 => {
                    let why = format!(
                        "{} nodes sent content that is not this file's, and no other has it",
                        state.banned
                    );
                    self.give_up(now, download, FailureReason::Unverified, &why);
                }
                Phase::Root if asked == 0 && state.not_found == 0 => {
                    let why = "this node could reach no other node to ask: see `elver peers`";
                    self.give_up(now, download, FailureReason::Unreachable, why);
                }
                Phase::Root if providers > 0 && state.not_found < providers && state.failed > 0 => {
                    let why =
                        format!("{} of the nodes that should have it could not be reached", state.failed);
                    self.give_up(now, download, FailureReason::Unreachable, &why);
                }
                Phase::Root => {
                    let why = format!("nobody has it; {}", status::asked(asked));
                    self.give_up(now, download, FailureReason::NotFound, &why);
                }
                Phase::Chunks if state.banned > 0 && state.connected == 0 && get.search.lookups > 1 => {
                    let why = format!(
                        "{} nodes sent content that is not this file's, and no other has the rest",
                        state.banned
                    );
                    self.give_up(now, download, FailureReason::Unverified, &why);
                }
                _ => {}
            }
        }
    }

    pub(super) fn gets_timeout(&mut self, now: Instant) {
        let due = self.gets.iter().filter(|(_, get)| get.next_deadline().is_some_and(|at| at <= now));
        let due: Vec<DownloadId> = due.map(|(download, _)| *download).collect();
        for download in due {
            let Some(get) = self.gets.get_mut(&download) else { continue };
            if get.phase == Phase::Kept {
                self.end_kept(download, true);
                continue;
            }
            // A chunk of 16 MiB takes long on a slow line: what has come of it is progress too.
            let state = self.machines.transfer.download_state(download).unwrap_or_default();
            get.progress_at = get.progress_at.max(state.last_progress);
            if get.gives_up_at().is_some_and(|at| at <= now) {
                let (missing, of) = (get.missing(), get.wanted.len());
                let (reason, cause) = match state.banned {
                    0 => (FailureReason::Unreachable, "nobody who has the rest can be reached"),
                    _ => (
                        FailureReason::Unverified,
                        "who offered the rest sent content that is not this file's",
                    ),
                };
                let why = match get.manifest {
                    Some(_) => format!("{missing} of {of} chunks are missing, and {cause}"),
                    None => format!("no answer in time, after asking {} nodes", get.search.asked),
                };
                self.give_up(now, download, reason, &why);
            } else if get.search.is_due(now) {
                self.look_again(now, download);
            }
        }
    }

    pub(super) fn cancel_get(&mut self, now: Instant, command: CommandId) {
        let mut over = None;
        for (download, get) in &mut self.gets {
            get.queued.retain(|order| order.id != command);
            let waited = get.waiters.len();
            get.waiters.retain(|id| *id != command);
            // One that is complete already takes its place: nothing is won by losing it.
            if waited > 0 && get.waiters.is_empty() && get.phase != Phase::Finishing {
                over = Some(*download);
            }
        }
        if let Some(download) = over {
            log::info!("a download that nobody waits for any more was stopped");
            self.give_up(now, download, FailureReason::Failed, "cancelled");
        }
    }

    /// Answers who waits. What waited for another target begins as soon as this one is out of the way.
    fn end_get(&mut self, download: DownloadId, result: Result<Reply, Failure>) {
        let Some(get) = self.gets.remove(&download) else { return };
        let response = match result {
            Ok(reply) => Response::Done(reply),
            Err(failure) => Response::Failed(failure),
        };
        for command in get.waiters {
            self.machines.respond(command, response.clone());
        }
        self.queued_gets.extend(get.queued);
    }

    fn begin_queued(&mut self, now: Instant) {
        for order in core::mem::take(&mut self.queued_gets) {
            self.get(now, order);
        }
    }

    fn tell(&mut self, download: DownloadId, progress: Progress) {
        let waiters = self.gets.get(&download).map(|get| get.waiters.clone()).unwrap_or_default();
        for command in waiters {
            self.machines.progress(command, progress.clone());
        }
    }

    pub(super) fn report_get(&mut self, download: DownloadId, stage: Stage) {
        let Some(get) = self.gets.get(&download) else { return };
        let total = get.manifest.as_ref().map_or(0, |manifest| manifest.length());
        let progress = Progress {
            stage,
            done: get.have_bytes,
            total,
            prefix: get.prefix_bytes(),
            path: Some(self.path_of(&get.place)),
        };
        self.tell(download, progress);
    }
}

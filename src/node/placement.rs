//! Uploads: copying a shared file's pieces to the nodes closest to each.
//!
//! A piece (a chunk, the manifest, or a file of one chunk) belongs on the `replicas` nodes closest to its key. A file counts as stored
//! when every piece has ⌊replicas/2⌋+1 synced copies, including the publisher's own. The waiting command is answered then. The rest
//! goes on in the background, and pieces that cannot be placed now are tried again later.

use super::command::{CommandId, FailureReason, Progress, Reply, Stage};
use super::copies::CopyFor;
use super::sharing::ManifestFor;
use super::{Node, Purpose, Waiting};
use crate::id::{Key, NodeId};
use crate::io::{DiskOp, Extent, Mode};
use crate::limits::quorum;
use crate::manifest::{Content, Manifest};
use crate::store::Shared;
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::Offer;
use crate::wire::message::Want;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Pieces with fewer copies than a quorum that are placed at a time.
const JOBS_MAX: usize = 16;
/// Pieces that are placed at a time in all: a piece that waits for a slow node must not delay others.
const JOBS_ALL_MAX: usize = 256;
/// Lookups for placements at a time.
const LOOKUPS_MAX: usize = 3;
/// Nodes that are tried beyond those that should hold the piece.
const SPARE_NODES: usize = 3;
/// The pause when too many lookups or copies are under way.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A command that waits for a file to be stored is answered at most this long after the last piece, even without an announcement.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(10);

/// Files that are placed at a time. The others wait in line, known only by their addresses.
const PLACEMENTS_MAX: usize = 64;
/// Files of several chunks that wait for another round with their state in memory.
const RESTING_MAX: usize = 64;

/// Files that wait for their placement.
#[derive(Default)]
pub(super) struct Line {
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    /// Files whose manifest is being read.
    opening: BTreeSet<Key>,
    /// Files that lack copies and are tried again later.
    resting: BTreeSet<(Instant, Key)>,
    /// The time of the next attempt of each, and the pause after it.
    rests: BTreeMap<Key, (Instant, Duration)>,
}

impl Line {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    fn push(&mut self, hash: Key) {
        if self.queued.insert(hash) {
            self.queue.push_back(hash);
        }
    }

    fn pop(&mut self) -> Option<Key> {
        let hash = self.queue.pop_front()?;
        self.queued.remove(&hash);
        Some(hash)
    }

    fn rest(&mut self, hash: Key, until: Instant, pause: Duration) {
        self.wake(&hash);
        self.resting.insert((until, hash));
        self.rests.insert(hash, (until, pause));
    }

    /// Ends the rest of a file. Returns the pause before the next attempt.
    fn wake(&mut self, hash: &Key) -> Option<Duration> {
        let (until, pause) = self.rests.remove(hash)?;
        self.resting.remove(&(until, *hash));
        Some(pause)
    }
}

/// The placement of one file.
pub(super) struct Placement {
    shared: Shared,
    /// The file's mode, which is sent with its root.
    mode: Mode,
    manifest: Arc<Manifest>,
    waiters: Vec<CommandId>,
    /// Known copies of each piece, including this node's own.
    copies: Vec<u8>,
    /// Pieces still to be placed in this round. The last one is next.
    todo: Vec<usize>,
    jobs: BTreeMap<usize, Job>,
    /// Pieces that got too few copies in this round.
    short: Vec<usize>,
    /// Nodes that broke off or fell silent in this round.
    avoided: BTreeSet<NodeId>,
    announced: bool,
    answer_by: Option<Instant>,
    /// When to try again, because there was no room for a lookup or a copy.
    room_at: Option<Instant>,
    /// When the next round begins, after this one has ended.
    retry_at: Option<Instant>,
    retry_delay: Duration,
}

/// A piece that is being placed.
#[derive(Default)]
struct Job {
    looking_up: bool,
    /// Nodes to try, nearest first.
    candidates: VecDeque<Contact>,
    /// Copies that are still needed, not counting those under way.
    wanted: usize,
    in_flight: usize,
}

impl Placement {
    /// The number of copies of each piece with which the file counts as stored.
    fn quorum(&self) -> u8 {
        quorum(self.shared.replicas)
    }

    /// The copies of the piece with the fewest.
    pub(super) fn copies(&self) -> u8 {
        self.copies.iter().copied().min().unwrap_or(0)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.room_at, self.retry_at, self.answer_by].into_iter().flatten().min()
    }

    fn is_round_over(&self) -> bool {
        self.todo.is_empty() && self.jobs.is_empty()
    }

    fn key(&self, piece: usize) -> (Key, Content) {
        let manifest = &self.manifest;
        match manifest.keys().get(piece) {
            Some(&key) if manifest.is_single() => (key, Content::File),
            Some(&key) => (key, Content::Chunk),
            None => (manifest.hash(), Content::Manifest),
        }
    }

    fn offer(&self, piece: usize, extent: &Extent) -> Offer {
        let (key, content) = self.key(piece);
        let input_offset =
            if content == Content::Chunk { self.manifest.chunk_offset(piece as u32) } else { 0 };
        let (replicas, lifetime) = (self.shared.replicas, self.shared.lifetime);
        let mode = if content == Content::Chunk { Mode::UNKNOWN } else { self.mode };
        let length = extent.length;
        Offer { key, content, length, input_offset, replicas, mode, lifetime }
    }
}

impl Node {
    /// Starts the placement of a file. If it has to wait for its turn, its manifest is read again then.
    pub(super) fn start_placement(&mut self, now: Instant, shared: &Shared, manifest: Arc<Manifest>) {
        let hash = shared.hash;
        let opened = self.line.opening.remove(&hash);
        let busy = self.placements.values().filter(|placement| placement.retry_at.is_none()).count();
        if !opened && busy + self.line.opening.len() >= PLACEMENTS_MAX && !self.placements.contains_key(&hash)
        {
            return self.line.push(hash);
        }
        // Commands that wait for an earlier `put` of the same file are answered together with this one.
        let mut waiters = self.placements.remove(&hash).map(|old| old.waiters).unwrap_or_default();
        waiters.extend(self.waiting_puts.remove(&hash).unwrap_or_default());
        self.copies.forget_file(&hash);
        let retry_delay = self.line.wake(&hash).unwrap_or(RETRY_MIN);
        let pieces = manifest.keys().len() + usize::from(!manifest.is_single());
        let todo = if shared.replicas == 0 { Vec::new() } else { (0..pieces).rev().collect() };
        let placement = Placement {
            shared: *shared,
            mode: self.machines.store.mode(&hash),
            manifest,
            waiters,
            copies: vec![1; pieces],
            todo,
            jobs: BTreeMap::new(),
            short: Vec::new(),
            avoided: BTreeSet::new(),
            announced: self.machines.dht.has_announced(&hash),
            answer_by: None,
            room_at: None,
            retry_at: None,
            retry_delay,
        };
        self.placements.insert(hash, placement);
        self.advance_placement(now, hash);
    }

    /// Lets a command wait for the placement of a file, if there is one or it is in line.
    pub(super) fn join_placement(
        &mut self,
        now: Instant,
        shared: &Shared,
        waiter: Option<CommandId>,
    ) -> bool {
        let hash = shared.hash;
        if let Some(placement) = self.placements.get_mut(&hash) {
            let aim = |shared: &Shared| (shared.replicas, shared.lifetime);
            if aim(&placement.shared) != aim(shared) {
                return false;
            }
            placement.waiters.extend(waiter);
            self.review_placement(now, hash);
            return true;
        }
        let resting = self.line.rests.contains_key(&hash);
        if resting && self.machines.dht.statistics().contacts == 0 {
            // There is still no node to copy it to.
            if let Some(command) = waiter {
                let (length, replicas) = (shared.layout.length(), shared.replicas);
                self.machines.done(
                    command,
                    Reply::Put { hash, length, copies: 1, replicas, quorum: false, kept_open: false },
                );
            }
            return true;
        }
        if self.line.queued.contains(&hash) || self.line.opening.contains(&hash) {
            self.waiting_puts.entry(hash).or_default().extend(waiter);
            return true;
        }
        false
    }

    /// Begins placements while there is room.
    fn fill_placements(&mut self, now: Instant) {
        for _ in 0..PLACEMENTS_MAX {
            let busy = self.placements.values().filter(|placement| placement.retry_at.is_none()).count();
            if busy + self.line.opening.len() >= PLACEMENTS_MAX {
                return;
            }
            let Some(hash) = self.line.pop() else { return };
            let served = self.machines.store.source(&hash).is_some();
            match self.machines.store.shared(&hash).filter(|shared| served && !shared.replicated) {
                Some(shared) => {
                    self.line.opening.insert(hash);
                    self.with_manifest(now, &shared, None, ManifestFor::Copies);
                }
                None => self.stop_placement(&hash, "its file is not there any more"),
            }
        }
    }

    pub(super) fn stop_placement(&mut self, hash: &Key, why: &str) {
        self.line.opening.remove(hash);
        self.line.wake(hash);
        let waiting = self.waiting_puts.remove(hash).unwrap_or_default();
        let waiters = self.placements.remove(hash).map(|placement| placement.waiters).unwrap_or_default();
        for command in waiters.into_iter().chain(waiting) {
            self.machines.fail(command, FailureReason::Failed, format!("copying {hash} was stopped: {why}"));
        }
        self.copies.forget_file(hash);
    }

    /// Starts placing pieces while there is room, and ends the round when none is left.
    fn advance_placement(&mut self, now: Instant, hash: Key) {
        loop {
            let Some(placement) = self.placements.get_mut(&hash) else { return };
            let looking_up = placement.jobs.values().filter(|job| job.looking_up).count();
            let quorum = placement.quorum();
            let urgent = placement.jobs.keys().filter(|piece| placement.copies[**piece] < quorum).count();
            if urgent >= JOBS_MAX || placement.jobs.len() >= JOBS_ALL_MAX || looking_up >= LOOKUPS_MAX {
                return;
            }
            let Some(piece) = placement.todo.pop() else { break };
            let (key, _) = placement.key(piece);
            let wanted = usize::from(placement.shared.replicas) + SPARE_NODES;
            if let Some(closest) = self.machines.dht.region(now, &key, wanted) {
                placement.jobs.insert(piece, Job { looking_up: true, ..Job::default() });
                self.place_piece(now, hash, piece, &closest);
                continue;
            }
            let Some(lookup) = self.machines.dht.find(now, key, Want::Nodes, &mut self.machines.outbox)
            else {
                // Too many lookups are under way: the round goes on after a pause.
                placement.todo.push(piece);
                placement.room_at = Some(now + NO_ROOM_WAIT);
                return;
            };
            placement.jobs.insert(piece, Job { looking_up: true, ..Job::default() });
            self.machines.lookups.insert(lookup, Purpose::Placement(hash, piece));
        }
        self.review_placement(now, hash);
    }

    /// A lookup for a piece ended: the piece is placed, and the next may be looked up.
    pub(super) fn placement_looked_up(&mut self, now: Instant, hash: Key, piece: usize, closest: &[Contact]) {
        self.place_piece(now, hash, piece, closest);
        self.advance_placement(now, hash);
    }

    /// The nodes closest to a piece are known: the first `replicas` get it, where this node counts as one of them.
    fn place_piece(&mut self, now: Instant, hash: Key, piece: usize, closest: &[Contact]) {
        let closest = self.likeliest_first(closest);
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        let (key, _) = placement.key(piece);
        let replicas = usize::from(placement.shared.replicas);
        let closer =
            closest.iter().filter(|contact| contact.id.distance(&key) < self.id.distance(&key)).count();
        let own_place = !self.config.leaf && closer < replicas;
        // A lookup may outlive its round.
        if let Some(job) = placement.jobs.get_mut(&piece).filter(|job| job.looking_up) {
            job.looking_up = false;
            job.candidates = closest.iter().copied().take(replicas + SPARE_NODES).collect();
            job.wanted = replicas - usize::from(own_place);
        }
        self.advance_job(now, hash, piece);
    }

    fn advance_job(&mut self, now: Instant, hash: Key, piece: usize) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        let (key, _) = placement.key(piece);
        let Some((_, extent)) = self.machines.store.locate(&key) else {
            return self.stop_placement(&hash, "its file is not what it was, or cannot be read");
        };
        let offer = placement.offer(piece, &extent);
        let Some(job) = placement.jobs.get_mut(&piece) else { return };
        job.candidates.retain(|contact| !placement.avoided.contains(&contact.id));
        while job.wanted > 0 && !job.candidates.is_empty() {
            // Only from the nodes that should hold it: a spare node replaces one that failed.
            let free =
                job.candidates.iter().take(job.wanted).position(|contact| self.copies.is_free(&contact.id));
            let Some(contact) = free.and_then(|position| job.candidates.remove(position)) else {
                placement.room_at.get_or_insert(now + NO_ROOM_WAIT);
                return;
            };
            let under_way = self.copies.begin(CopyFor::File { file: hash, piece }, contact.id);
            if !self.machines.transfer.push(now, under_way, contact, offer, extent.clone()) {
                // Too many copies are under way: goes on when one has ended.
                self.copies.end(under_way);
                job.candidates.push_front(contact);
                placement.room_at = Some(now + NO_ROOM_WAIT);
                return;
            }
            job.wanted -= 1;
            job.in_flight += 1;
        }
        if job.in_flight == 0 {
            if job.wanted > 0 {
                placement.short.push(piece);
            }
            placement.jobs.remove(&piece);
            self.review_placement(now, hash);
        }
    }

    /// A copy of a piece succeeded or failed.
    pub(super) fn file_copied(
        &mut self,
        now: Instant,
        (hash, piece): (Key, usize),
        target: NodeId,
        result: Result<PushOutcome, PushError>,
    ) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        if matches!(result, Err(PushError::Lost)) {
            placement.avoided.insert(target);
        }
        if let Some(job) = placement.jobs.get_mut(&piece) {
            job.in_flight -= 1;
            match result {
                Ok(_) => {
                    placement.copies[piece] = placement.copies[piece].saturating_add(1);
                    let (key, _) = placement.key(piece);
                    self.machines.replication.confirmed(now, &key, &target);
                }
                // A spare node takes the place of the one that failed.
                Err(_) => job.wanted += 1,
            }
        }
        self.advance_job(now, hash, piece);
        self.advance_waiting(now, hash, target);
        self.report_placement(hash);
        self.advance_placement(now, hash);
    }

    /// A copy to a node ended: a piece that waited for room there gets it.
    fn advance_waiting(&mut self, now: Instant, hash: Key, target: NodeId) {
        let Some(placement) = self.placements.get(&hash) else { return };
        let waits = |job: &Job| job.candidates.iter().take(job.wanted).any(|contact| contact.id == target);
        let waiting: Vec<usize> = match placement.avoided.contains(&target) {
            // The node was avoided meanwhile: spare nodes take its place.
            true => placement.jobs.iter().filter(|(_, job)| waits(job)).map(|(piece, _)| *piece).collect(),
            false => placement
                .jobs
                .iter()
                .find(|(_, job)| waits(job))
                .map(|(piece, _)| *piece)
                .into_iter()
                .collect(),
        };
        for piece in waiting {
            self.advance_job(now, hash, piece);
        }
    }

    pub(super) fn announced(&mut self, now: Instant, file: Key, copies: u32) {
        log::debug!("{file} is announced to {copies} nodes");
        if let Some(placement) = self.placements.get_mut(&file) {
            placement.announced = true;
            self.review_placement(now, file);
        }
    }

    fn report_placement(&mut self, hash: Key) {
        let Some(placement) = self.placements.get(&hash) else { return };
        let quorum = placement.quorum();
        let done = placement.copies.iter().filter(|copies| **copies >= quorum).count() as u64;
        let total = placement.copies.len() as u64;
        for command in placement.waiters.clone() {
            self.machines.progress(
                command,
                Progress { stage: Stage::Replicating, done, total, prefix: 0, path: None },
            );
        }
    }

    /// Answers the waiting commands, and ends the round when its last piece is placed or given up.
    fn review_placement(&mut self, now: Instant, hash: Key) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        let stored = placement.copies() >= placement.quorum();
        let answerable = stored || placement.is_round_over() || placement.answer_by.is_some();
        if answerable && !placement.waiters.is_empty() {
            let answer_by = *placement.answer_by.get_or_insert(now + ANNOUNCE_WAIT);
            if placement.announced || now >= answer_by {
                self.answer_put(hash);
            }
        }
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        if !placement.is_round_over() || placement.retry_at.is_some() {
            return;
        }
        if !placement.short.is_empty() {
            log::info!("{hash}: {} pieces have fewer copies than asked for", placement.short.len());
            let (until, pause) = (now + placement.retry_delay, (placement.retry_delay * 2).min(RETRY_MAX));
            (placement.retry_at, placement.retry_delay) = (Some(until), pause);
            let alone = placement.waiters.is_empty();
            let forgets = placement.manifest.is_single()
                || self.placements.values().filter(|other| other.retry_at.is_some()).count() > RESTING_MAX;
            if alone && forgets {
                self.placements.remove(&hash);
                self.copies.forget_file(&hash);
                self.line.rest(hash, until, pause);
            }
        } else if placement.waiters.is_empty() {
            if let Some(finished) = self.placements.remove(&hash) {
                self.replicated(now, &finished.shared, &finished.manifest);
            }
        }
        self.fill_placements(now);
    }

    fn answer_put(&mut self, hash: Key) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        placement.answer_by = None;
        let waiters = core::mem::take(&mut placement.waiters);
        let copies = placement.copies();
        let reply = Reply::Put {
            hash,
            length: placement.manifest.length(),
            copies: u32::from(copies),
            replicas: placement.shared.replicas,
            quorum: copies >= placement.quorum(),
            kept_open: false,
        };
        for command in waiters {
            self.machines.done(command, reply.clone());
        }
    }

    /// Every piece has its copies: saves that, so that the next run need not copy again.
    fn replicated(&mut self, now: Instant, placed: &Shared, manifest: &Manifest) {
        let hash = placed.hash;
        let Some(shared) = self.machines.store.shared(&hash) else { return };
        let same = (shared.replicas, shared.lifetime) == (placed.replicas, placed.lifetime);
        if shared.replicated || !same {
            return;
        }
        let shared = Shared { replicated: true, ..shared };
        self.machines.store.set_shared(shared);
        self.look_after(now, &shared, manifest);
        for share in self.machines.store.records(&hash) {
            self.machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
        }
    }

    /// The node has contacts now: pieces that could not be placed are tried again.
    pub(super) fn retry_placements(&mut self, now: Instant) {
        for placement in self.placements.values_mut().filter(|placement| placement.retry_at.is_some()) {
            (placement.retry_at, placement.retry_delay) = (Some(now), RETRY_MIN);
        }
        let resting: Vec<Key> = self.line.rests.keys().copied().collect();
        for hash in resting {
            self.line.wake(&hash);
            self.line.push(hash);
        }
        self.fill_placements(now);
    }

    pub(super) fn placements_timeout(&mut self, now: Instant) {
        while let Some((at, hash)) = self.line.resting.first().copied().filter(|(at, _)| *at <= now) {
            // The pause is kept until the file's turn.
            self.line.resting.remove(&(at, hash));
            self.line.push(hash);
        }
        self.fill_placements(now);
        let due: Vec<Key> = self
            .placements
            .iter()
            .filter(|(_, placement)| placement.next_deadline().is_some_and(|at| at <= now))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in due {
            let Some(placement) = self.placements.get_mut(&hash) else { continue };
            let due = |at: &mut Instant| *at <= now;
            let begins = placement.retry_at.take_if(due).is_some();
            if begins {
                placement.avoided.clear();
                for piece in core::mem::take(&mut placement.short) {
                    placement.copies[piece] = 1;
                    placement.todo.push(piece);
                }
            }
            if placement.room_at.take_if(due).is_some() || begins {
                let stuck: Vec<usize> = placement.jobs.keys().copied().collect();
                for piece in stuck {
                    if self
                        .placements
                        .get(&hash)
                        .is_some_and(|r| r.jobs.get(&piece).is_some_and(|job| !job.looking_up))
                    {
                        self.advance_job(now, hash, piece);
                    }
                }
                self.advance_placement(now, hash);
            }
            self.review_placement(now, hash);
        }
    }
}

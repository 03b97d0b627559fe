//! Uploads: copying a shared file's pieces to the nodes closest to each.
//!
//! A piece (a chunk, the manifest, or a file of one chunk) belongs on the `replicas` nodes closest to its key. A file counts as stored
//! when every piece has ⌊replicas/2⌋+1 synced copies, including the publisher's own. The waiting command is answered then. The rest
//! goes on in the background, and pieces that cannot be placed now are tried again later.

use super::command::{CommandId, FailureReason, Progress, Reply, Stage};
use super::ops::place_piece::{Aim, PlaceFor, PlacePiece};
use super::sharing::ManifestFor;
use super::{Node, Waiting};
use crate::id::{Key, NodeId};
use crate::io::{DiskOp, Extent, Mode};
use crate::limits::quorum;
use crate::manifest::{Content, Manifest};
use crate::store::Shared;
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::Offer;
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
/// The pause when too many lookups are under way.
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
    jobs: BTreeMap<usize, PlacePiece>,
    /// Pieces that got too few copies in this round.
    short: Vec<usize>,
    /// Nodes that broke off or fell silent in this round.
    avoided: BTreeSet<NodeId>,
    announced: bool,
    answer_by: Option<Instant>,
    /// When to try again, because there was no room for a lookup.
    room_at: Option<Instant>,
    /// When the next round begins, after this one has ended.
    retry_at: Option<Instant>,
    retry_delay: Duration,
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
        let own = [self.room_at, self.retry_at, self.answer_by].into_iter().flatten();
        own.chain(self.jobs.values().filter_map(PlacePiece::next_deadline)).min()
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
        let mut waiters = self.end_placement(&hash).map(|old| old.waiters).unwrap_or_default();
        waiters.extend(self.waiting_puts.remove(&hash).unwrap_or_default());
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
        let waiters = self.end_placement(hash).map(|placement| placement.waiters).unwrap_or_default();
        for command in waiters.into_iter().chain(waiting) {
            self.machines.fail(command, FailureReason::Failed, format!("copying {hash} was stopped: {why}"));
        }
    }

    /// Removes a placement, and cancels its copies.
    fn end_placement(&mut self, hash: &Key) -> Option<Placement> {
        let mut placement = self.placements.remove(hash)?;
        for (_, place) in core::mem::take(&mut placement.jobs) {
            place.cancel(&mut self.machines);
        }
        Some(placement)
    }

    /// Starts placing pieces while there is room, and ends the round when none is left.
    fn advance_placement(&mut self, now: Instant, hash: Key) {
        loop {
            let Some(placement) = self.placements.get_mut(&hash) else { return };
            let looking_up = placement.jobs.values().filter(|place| place.is_looking_up()).count();
            let quorum = placement.quorum();
            let urgent = placement.jobs.keys().filter(|piece| placement.copies[**piece] < quorum).count();
            if urgent >= JOBS_MAX || placement.jobs.len() >= JOBS_ALL_MAX || looking_up >= LOOKUPS_MAX {
                return;
            }
            let Some(piece) = placement.todo.pop() else { break };
            let (key, _) = placement.key(piece);
            let Some((_, extent)) = self.machines.store.locate(&key) else {
                return self.stop_placement(&hash, "its file is not what it was, or cannot be read");
            };
            let holders = usize::from(placement.shared.replicas);
            let tried_max = holders + SPARE_NODES;
            let aim = Aim { holders, counts_own: !self.config.leaf, known_min: tried_max, tried_max };
            let offer = placement.offer(piece, &extent);
            let purpose = PlaceFor::Upload { file: hash, piece };
            let place = PlacePiece::begin(now, purpose, offer, aim, &placement.avoided, &mut self.machines);
            let Some(place) = place else {
                // Too many lookups are under way: the round goes on after a pause.
                placement.todo.push(piece);
                placement.room_at = Some(now + NO_ROOM_WAIT);
                return;
            };
            placement.jobs.insert(piece, place);
            self.review_piece(now, hash, piece);
        }
        self.review_placement(now, hash);
    }

    /// A lookup for a piece ended: the piece is placed, and the next may be looked up.
    pub(super) fn placement_looked_up(&mut self, now: Instant, hash: Key, piece: usize, closest: &[Contact]) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        if let Some(place) = placement.jobs.get_mut(&piece) {
            place.handle_looked_up(now, closest, &placement.avoided, &mut self.machines);
        }
        self.review_piece(now, hash, piece);
        self.advance_placement(now, hash);
    }

    /// Ends the placement of a piece if it is over.
    fn review_piece(&mut self, now: Instant, hash: Key, piece: usize) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        let Some(place) = placement.jobs.get(&piece) else { return };
        if place.is_gone() {
            return self.stop_placement(&hash, "its file is not what it was, or cannot be read");
        }
        if place.is_over() {
            if place.is_short() {
                placement.short.push(piece);
            }
            placement.jobs.remove(&piece);
            self.review_placement(now, hash);
        }
    }

    fn advance_piece(&mut self, now: Instant, hash: Key, piece: usize) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        if let Some(place) = placement.jobs.get_mut(&piece) {
            place.advance(now, &mut self.machines);
        }
        self.review_piece(now, hash, piece);
    }

    /// A copy of a piece succeeded or failed.
    pub(super) fn file_copied(
        &mut self,
        now: Instant,
        (hash, piece): (Key, usize),
        push: PushId,
        target: NodeId,
        result: &Result<PushOutcome, PushError>,
    ) {
        let Some(placement) = self.placements.get_mut(&hash) else { return };
        let mut waiting = Vec::new();
        if matches!(result, Err(PushError::Lost)) {
            placement.avoided.insert(target);
            for (&piece, place) in &mut placement.jobs {
                if place.avoid(&target) {
                    waiting.push(piece);
                }
            }
        }
        if let Some(place) = placement.jobs.get_mut(&piece) {
            place.handle_copied(now, push, &target, result, &mut self.machines);
            placement.copies[piece] = placement.copies[piece].saturating_add(u8::from(result.is_ok()));
        }
        self.review_piece(now, hash, piece);
        // A copy to the node ended: the first piece that waited for room there gets it.
        let first = self.placements.get(&hash).and_then(|placement| {
            placement.jobs.iter().find(|(_, place)| place.waits_for(&target)).map(|(piece, _)| *piece)
        });
        for piece in waiting.into_iter().chain(first) {
            self.advance_piece(now, hash, piece);
        }
        self.report_placement(hash);
        self.advance_placement(now, hash);
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
                self.end_placement(&hash);
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
            let has_room = placement.room_at.take_if(due).is_some();
            let stuck =
                placement.jobs.iter().filter(|(_, place)| place.next_deadline().is_some_and(|at| at <= now));
            let stuck: Vec<usize> = stuck.map(|(piece, _)| *piece).collect();
            for piece in &stuck {
                self.advance_piece(now, hash, *piece);
            }
            if has_room || begins || !stuck.is_empty() {
                self.advance_placement(now, hash);
            }
            self.review_placement(now, hash);
        }
    }
}

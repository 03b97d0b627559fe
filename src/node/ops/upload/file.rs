//! The upload of one file, in rounds: each piece without enough copies is placed once a round.

use crate::id::{Key, NodeId};
use crate::io::{Extent, Mode};
use crate::limits::quorum;
use crate::manifest::{Content, Manifest};
use crate::node::command::{CommandId, Progress, Reply, Stage};
use crate::node::machines::Machines;
use crate::node::ops::place_piece::{Aim, PlaceFor, PlacePiece};
use crate::store::Shared;
use crate::time::{Duration, Instant};
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use crate::wire::frame::Offer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pieces with fewer copies than a quorum that are placed at a time.
const URGENT_MAX: usize = 16;
/// Pieces that are placed at a time in all: a piece that waits for a slow node must not delay others.
const PLACING_MAX: usize = 256;
/// Lookups of one upload at a time.
const LOOKUPS_MAX: usize = 3;
/// Nodes that are tried beyond those that should hold the piece.
const SPARE_NODES: usize = 3;
/// The pause when too many lookups are under way.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// The pause after a first round that left pieces with too few copies. Each further pause is twice as long.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A command that waits for a file to be stored is answered at most this long after the last piece, even without an announcement.
/// Nodes near the file's hash that have copies are found without it.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// The same for a file without copies on other nodes: only the announcement lets others find it.
const ANNOUNCE_WAIT_ALONE: Duration = Duration::from_secs(10);
/// How often targets are checked for silence while a piece has fewer copies than a quorum.
const SLOW_LOOK: Duration = Duration::from_secs(1);

/// The state of an upload after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Pieces are being placed, or commands wait for their answer.
    UnderWay,
    /// Pieces lack copies, and no command waits: the next round begins then, and `pause` is the pause after it.
    Resting { until: Instant, pause: Duration },
    /// Every piece has its copies, and no command waits.
    Complete,
    /// This node has lost the file.
    Gone,
}

/// The upload of one file.
pub(super) struct Upload {
    shared: Shared,
    /// The file's mode, which is sent with its root.
    mode: Mode,
    manifest: Arc<Manifest>,
    waiters: Vec<CommandId>,
    /// Known copies of each piece, including this node's own.
    copies: Vec<u8>,
    /// Pieces still to be placed in this round. The last one is next.
    todo: Vec<usize>,
    placing: BTreeMap<usize, PlacePiece>,
    /// Pieces that got too few copies in this round.
    short: Vec<usize>,
    /// Nodes that broke off or fell silent in this round.
    avoided: BTreeSet<NodeId>,
    announced: bool,
    answer_by: Option<Instant>,
    /// When to try again, because there was no room for a lookup.
    room_at: Option<Instant>,
    /// When to look for targets that are silent, while a command waits for a quorum.
    slow_at: Option<Instant>,
    /// When the next round begins, after this one has ended.
    retry_at: Option<Instant>,
    retry_delay: Duration,
    is_gone: bool,
}

impl Upload {
    /// Begins the upload of a shared file, for which these commands wait. `retry_delay` is the pause after a first round that leaves
    /// pieces with too few copies.
    pub(super) fn begin(
        now: Instant,
        shared: &Shared,
        manifest: Arc<Manifest>,
        waiters: Vec<CommandId>,
        retry_delay: Duration,
        machines: &mut Machines,
    ) -> Upload {
        let pieces = manifest.keys().len() + usize::from(!manifest.is_single());
        let mut upload = Upload {
            shared: *shared,
            mode: machines.store.mode(&shared.hash),
            manifest,
            waiters,
            copies: vec![1; pieces],
            todo: if shared.replicas == 0 { Vec::new() } else { (0..pieces).rev().collect() },
            placing: BTreeMap::new(),
            short: Vec::new(),
            avoided: BTreeSet::new(),
            announced: machines.dht.has_announced(&shared.hash),
            answer_by: None,
            room_at: None,
            slow_at: None,
            retry_at: None,
            retry_delay,
            is_gone: false,
        };
        upload.advance(now, machines);
        upload
    }

    // Getters.

    /// The file, with the number and the lifetime of the copies that are being made.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Its manifest.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The copies of the piece with the fewest.
    pub(super) fn copies(&self) -> u8 {
        self.copies.iter().copied().min().unwrap_or(0)
    }

    /// Whether the round is over and the next has not begun.
    pub(super) fn is_resting(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Whether the upload makes the copies that a share asks for.
    pub(super) fn does(&self, shared: &Shared) -> bool {
        (self.shared.replicas, self.shared.lifetime) == (shared.replicas, shared.lifetime)
    }

    pub(super) fn state(&self) -> State {
        if self.is_gone {
            return State::Gone;
        }
        if !self.is_round_over() || !self.waiters.is_empty() {
            return State::UnderWay;
        }
        match self.retry_at {
            Some(until) => State::Resting { until, pause: self.retry_delay },
            None => State::Complete,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let slow_at = self.slow_at.filter(|_| self.awaits_quorum());
        let own = [self.room_at, slow_at, self.retry_at, self.answer_by].into_iter().flatten();
        own.chain(self.placing.values().filter_map(PlacePiece::next_deadline)).min()
    }

    /// The number of copies of each piece with which the file counts as stored.
    fn quorum(&self) -> u8 {
        quorum(self.shared.replicas)
    }

    /// Whether a piece that is being placed has fewer copies than a quorum.
    fn awaits_quorum(&self) -> bool {
        let quorum = self.quorum();
        self.placing.keys().any(|piece| self.copies[*piece] < quorum)
    }

    fn is_round_over(&self) -> bool {
        self.todo.is_empty() && self.placing.is_empty()
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
        Offer { key, content, length, input_offset, replicas, mode, lifetime, claim: None }
    }

    // Inputs.

    /// Lets a command wait for the upload.
    pub(super) fn join(&mut self, now: Instant, waiter: Option<CommandId>, machines: &mut Machines) {
        self.waiters.extend(waiter);
        self.review(now, machines);
    }

    /// The next round is due at once, and the pause after it is short again: the node knows other nodes now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.retry_at.is_some() {
            (self.retry_at, self.retry_delay) = (Some(now), RETRY_MIN);
        }
    }

    /// The file is announced.
    pub(super) fn handle_announced(&mut self, now: Instant, machines: &mut Machines) {
        self.announced = true;
        self.review(now, machines);
    }

    /// The lookup for a piece ended: the piece is placed, and the next may be looked up.
    pub(super) fn handle_looked_up(
        &mut self,
        now: Instant,
        piece: usize,
        closest: &[Contact],
        machines: &mut Machines,
    ) {
        if let Some(place) = self.placing.get_mut(&piece) {
            place.handle_looked_up(now, closest, &self.avoided, machines);
        }
        self.conclude(now, piece, machines);
        self.advance(now, machines);
    }

    /// A copy of a piece succeeded or failed.
    pub(super) fn handle_copied(
        &mut self,
        now: Instant,
        (piece, push): (usize, PushId),
        target: &NodeId,
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        let mut waiting = Vec::new();
        if matches!(result, Err(PushError::Lost | PushError::Unproven)) {
            self.avoided.insert(*target);
            let placing = self.placing.iter_mut();
            waiting.extend(placing.filter_map(|(piece, place)| place.avoid(target).then_some(*piece)));
        }
        if let Some(place) = self.placing.get_mut(&piece) {
            place.handle_copied(now, push, result, machines);
            if let Some(copies) = self.copies.get_mut(piece) {
                *copies = copies.saturating_add(u8::from(result.is_ok()));
            }
        }
        self.conclude(now, piece, machines);
        // The first piece that waits for room at the node gets it.
        let first = self.placing.iter().find(|(_, place)| place.waits_for(target)).map(|(piece, _)| *piece);
        for piece in waiting.into_iter().chain(first) {
            self.advance_piece(now, piece, machines);
        }
        self.report(machines);
        self.advance(now, machines);
    }

    /// The deadline of [`next_deadline`](Upload::next_deadline) has come.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let due = |at: &mut Instant| *at <= now;
        let begins = self.retry_at.take_if(due).is_some();
        if begins {
            self.avoided.clear();
            for piece in core::mem::take(&mut self.short) {
                self.copies[piece] = 1;
                self.todo.push(piece);
            }
        }
        let has_room = self.room_at.take_if(due).is_some();
        if self.slow_at.take_if(due).is_some() {
            self.replace_slow(now, machines);
        }
        let waited = |place: &PlacePiece| place.next_deadline().is_some_and(|at| at <= now);
        let waiting = self.placing.iter().filter(|(_, place)| waited(place));
        let waiting: Vec<usize> = waiting.map(|(piece, _)| *piece).collect();
        for &piece in &waiting {
            self.advance_piece(now, piece, machines);
        }
        if begins || has_room || !waiting.is_empty() {
            self.advance(now, machines);
        }
        self.review(now, machines);
    }

    /// Cancels the upload. Returns the commands that wait for it.
    pub(super) fn cancel(self, machines: &mut Machines) -> Vec<CommandId> {
        self.placing.into_values().for_each(|place| place.cancel(machines));
        self.waiters
    }

    /// Starts placing pieces while there is room, and ends the round when none is left.
    fn advance(&mut self, now: Instant, machines: &mut Machines) {
        let aim = {
            let holders = usize::from(self.shared.replicas);
            let tried_max = holders + SPARE_NODES;
            Aim { holders, counts_own: !machines.outbox.is_leaf(), known_min: tried_max, tried_max }
        };
        while !self.is_gone {
            let looking_up = self.placing.values().filter(|place| place.is_looking_up()).count();
            let quorum = self.quorum();
            let urgent = self.placing.keys().filter(|piece| self.copies[**piece] < quorum).count();
            if urgent >= URGENT_MAX || self.placing.len() >= PLACING_MAX || looking_up >= LOOKUPS_MAX {
                return;
            }
            let Some(piece) = self.todo.pop() else { break };
            let Some((_, extent)) = machines.store.locate(&self.key(piece).0) else {
                self.is_gone = true;
                return;
            };
            let offer = machines.claimed(self.offer(piece, &extent));
            let purpose = PlaceFor::Upload { file: self.shared.hash, piece };
            let Some(place) = PlacePiece::begin(now, purpose, offer, aim, &self.avoided, machines) else {
                // Too many lookups are under way: the round goes on after a pause.
                self.todo.push(piece);
                self.room_at = Some(now + NO_ROOM_WAIT);
                return;
            };
            self.placing.insert(piece, place);
            self.plan_look(now);
            self.conclude(now, piece, machines);
        }
        self.review(now, machines);
    }

    /// Has further nodes take pieces that have fewer copies than a quorum, in place of targets that are silent: a command waits for
    /// the quorum, and enough other nodes may answer at once.
    fn replace_slow(&mut self, now: Instant, machines: &mut Machines) {
        let quorum = self.quorum();
        for (piece, place) in &mut self.placing {
            let needed = quorum.saturating_sub(self.copies[*piece]);
            place.replace_slow(now, needed.into(), machines);
        }
        self.plan_look(now);
    }

    /// Plans the next look for silent targets, if a piece waits for a quorum.
    fn plan_look(&mut self, now: Instant) {
        if self.awaits_quorum() {
            self.slow_at.get_or_insert(now + SLOW_LOOK);
        }
    }

    /// Makes the copies of a piece for which there is room.
    fn advance_piece(&mut self, now: Instant, piece: usize, machines: &mut Machines) {
        if let Some(place) = self.placing.get_mut(&piece) {
            place.advance(now, machines);
        }
        self.conclude(now, piece, machines);
    }

    /// Ends the placing of a piece if it is over.
    fn conclude(&mut self, now: Instant, piece: usize, machines: &mut Machines) {
        let Some(place) = self.placing.get(&piece) else { return };
        self.is_gone |= place.is_gone();
        if place.is_over() {
            if place.is_short() {
                self.short.push(piece);
            }
            self.placing.remove(&piece);
            self.review(now, machines);
        }
    }

    /// Tells the waiting commands the number of pieces with enough copies.
    fn report(&self, machines: &mut Machines) {
        let quorum = self.quorum();
        let done = self.copies.iter().filter(|copies| **copies >= quorum).count() as u64;
        let total = self.copies.len() as u64;
        for command in &self.waiters {
            let progress = Progress { stage: Stage::Replicating, done, total, prefix: 0, path: None };
            machines.progress(*command, progress);
        }
    }

    /// Answers the waiting commands when the file is stored, and ends the round when its last piece is placed or given up.
    fn review(&mut self, now: Instant, machines: &mut Machines) {
        if self.is_gone {
            return;
        }
        let stored = self.copies() >= self.quorum();
        let answerable = stored || self.is_round_over() || self.answer_by.is_some();
        if answerable && !self.waiters.is_empty() {
            let wait = if self.copies() > 1 { ANNOUNCE_WAIT } else { ANNOUNCE_WAIT_ALONE };
            let answer_by = *self.answer_by.get_or_insert(now + wait);
            if self.announced || now >= answer_by {
                self.answer(machines);
            }
        }
        if self.is_round_over() && self.retry_at.is_none() && !self.short.is_empty() {
            log::info!("{}: {} pieces have fewer copies than asked for", self.shared.hash, self.short.len());
            self.retry_at = Some(now + self.retry_delay);
            self.retry_delay = (self.retry_delay * 2).min(RETRY_MAX);
        }
    }

    fn answer(&mut self, machines: &mut Machines) {
        self.answer_by = None;
        let copies = self.copies();
        let reply = Reply::Put {
            hash: self.shared.hash,
            length: self.manifest.length(),
            copies: u32::from(copies),
            replicas: self.shared.replicas,
            quorum: copies >= self.quorum(),
            kept_open: false,
        };
        for command in core::mem::take(&mut self.waiters) {
            machines.done(command, reply.clone());
        }
    }
}

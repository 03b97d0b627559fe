//! What this node has: stored pieces, shared files, downloads under way, and the quota that they keep.
//!
//! The [`Store`] is an index. It moves no bytes and reads no file; it knows where each piece lies, decides what is
//! taken in and what has to go, and says so as [`DiskOp`]s for the driver. Its rules:
//!
//! - Space is reserved when the first bytes of a piece arrive, so the quota cannot be exceeded by what arrives at the same
//!   time. An offer alone takes nothing away from anybody.
//! - Space is counted as the file system takes it, in blocks, and some of it is left to the host (`room`). The windows of
//!   streams (`windows`) count against that alone: they need no quota.
//! - What is in the cache (files fetched without a name of the user's own) goes first, the longest unused before the
//!   others. Stored pieces never make room: they go when they expire. Those that a smaller quota has no room for stay until
//!   others have them: meanwhile nothing new is taken.
//! - Lifetimes are counted in the node's own age, the seconds that it has been running: a host whose clock jumps, or
//!   starts in 1970, keeps what it promised to keep.

mod files;
mod incoming;
mod index;
mod pieces;
mod room;
#[cfg(test)]
mod tests;
mod windows;

use crate::id::Key;
use crate::io::{
    DiskOp, Extent, FileAt, FileStamp, Mode, PieceAt, PieceMeta, Place, Recovered, Share, ShareState, Space,
};
use crate::limits::Limits;
use crate::manifest::{Content, Manifest};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Offer, Refusal};
use core::fmt;
use files::{Files, is_cached};
use incoming::Incoming;
use pieces::Pieces;
use room::{Costs, Room};
use std::collections::VecDeque;
use std::sync::Arc;
use windows::Windows;

pub use files::{Claim, Ended, Shared};
pub use pieces::PIECE_OVERHEAD_BYTES;

/// How many pieces one call of [`Store::handle_timeout`] lets expire.
const EXPIRED_PER_CALL_MAX: usize = 64;

/// The answer to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The piece is here and on disk.
    Have,
    /// The piece is here, and is kept longer or on more nodes than it was: it is had once the disk has written that down.
    /// See [`Store::not_raised`].
    Raise {
        /// How many nodes are to keep it.
        replicas: u8,
        /// When it expires, in seconds of the node's age.
        expires: u64,
    },
    /// There is room: the piece goes to [`Place::Incoming`] of this number. See [`Store::arrives`].
    Send {
        /// The number, which never comes again in this run.
        incoming: u64,
    },
    /// Not now, or never.
    Refuse(Refusal),
}

/// What became of a stored piece, or of a file in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceChange {
    /// It is kept from now on, or on more nodes than before.
    Kept(PieceMeta),
    /// It is not here any more.
    Dropped(Key),
    /// The file with this address made room for something else, and was shared from the cache alone.
    Evicted(Key),
}

/// There is no room: which bound is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// So many paths are shared, and no more may be.
    Shares(usize),
    /// So many downloads are under way, and no more may be.
    Downloads(usize),
    /// The quota, in bytes, is used up by what cannot be evicted.
    Quota {
        /// What was to be taken, in bytes.
        needed: u64,
        /// The quota.
        quota: u64,
    },
    /// The file system would have less left than is to be left to the host.
    Floor {
        /// What was to be taken, in bytes.
        needed: u64,
        /// What may be taken.
        room: u64,
        /// What is left to the host.
        floor: u64,
    },
    /// The file system would have fewer inodes left than are to be left to the host.
    Inodes,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Shares(most) => write!(
                f,
                "{most} paths are shared already (--shares): stop sharing some with `elver rm`, or allow more"
            ),
            Full::Downloads(most) => write!(f, "{most} downloads are under way already (--downloads)"),
            Full::Quota { needed, quota } => write!(
                f,
                "{needed} bytes more do not fit the node's quota of {quota} bytes (--quota)"
            ),
            Full::Floor { needed, room, floor } => write!(
                f,
                "{needed} bytes more do not fit the node's disk: {floor} bytes are left to the host (--keep-free), \
                 and {room} are free beyond them"
            ),
            Full::Inodes => f.write_str(
                "the node's disk has too few inodes left for another file: some are left to the host (--keep-free)",
            ),
        }
    }
}

impl std::error::Error for Full {}

/// What the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Stored pieces.
    pub pieces: u32,
    /// Shared files, cached ones included.
    pub shares: u32,
    /// Claims on them: one for each path, and one for each file in the cache.
    pub claims: u32,
    /// Bytes on disk of stored pieces.
    pub piece_bytes: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
    /// Bytes on disk of shares in the cache.
    pub cached_bytes: u64,
    /// Bytes kept free for pieces and cached files that are arriving.
    pub reserved_bytes: u64,
    /// Bytes kept free for the windows of streams, beside the quota.
    pub window_bytes: u64,
    /// Bytes of pieces that were admitted and have not begun to arrive.
    pub promised_bytes: u64,
    /// Bytes that the file system has free, and how many of them are left to others.
    pub free_bytes: u64,
    /// See [`free_bytes`](StoreStats::free_bytes).
    pub keep_free_bytes: u64,
    /// Bytes that may still be taken before the floor is reached.
    pub room_bytes: u64,
    /// Whether what is stored is more than the limits allow, so that it is handed over to other nodes.
    pub over: bool,
    /// Bytes that all three may take together.
    pub quota_bytes: u64,
    /// Cached files evicted so far.
    pub evicted: u64,
    /// Pieces expired so far.
    pub expired: u64,
    /// Pieces and files refused so far because the quota or the number of pieces is used up.
    pub refused_quota: u64,
    /// The same, because the file system has not enough left.
    pub refused_free: u64,
}

/// The index of what this node has.
pub struct Store {
    costs: Costs,
    room: Room,
    pieces_max: usize,
    shares_max: usize,
    partials_max: usize,
    incoming_max: usize,
    started: Instant,
    age_at_start: u64,
    pieces: Pieces,
    incoming: Incoming,
    windows: Windows,
    files: Files,
    ops: VecDeque<DiskOp>,
    changes: VecDeque<PieceChange>,
    evicted: u64,
    expired: u64,
    refused_quota: u64,
    refused_free: u64,
}

impl Store {
    /// A store of what was found on disk. What has expired meanwhile is dropped, and what of the cache no longer fits the
    /// limits, and [`poll_op`](Store::poll_op) tells the disk. `seed` is to be a
    /// number that nobody else knows.
    pub fn new(limits: &Limits, recovered: &Recovered, seed: u64, now: Instant) -> Self {
        let costs = Costs::new(recovered.space.block_bytes);
        let mut store = Store {
            costs,
            room: Room::new(limits.quota_bytes, limits.keep_free_bytes, recovered.space),
            pieces_max: limits.pieces_max,
            shares_max: limits.shares_max,
            partials_max: limits.downloads_max,
            incoming_max: limits.streams_max,
            started: now,
            age_at_start: recovered.ages.seconds,
            pieces: Pieces::new(costs),
            incoming: Incoming::default(),
            windows: Windows::default(),
            files: Files::new(seed),
            ops: VecDeque::new(),
            changes: VecDeque::new(),
            evicted: 0,
            expired: 0,
            refused_quota: 0,
            refused_free: 0,
        };
        store.take_pieces(&recovered.pieces);
        store.take_shares(recovered);
        store
    }

    fn take_pieces(&mut self, recovered: &[PieceMeta]) {
        for piece in recovered {
            if piece.expires > self.age_at_start {
                self.pieces.insert(piece);
            } else {
                self.ops.push_back(DiskOp::Remove(Place::Piece(piece.key)));
            }
        }
        if self.is_over() {
            log::warn!(
                "more is stored than the limits allow: nothing new is taken, and other nodes are asked to take it over"
            );
        }
    }

    fn take_shares(&mut self, recovered: &Recovered) {
        let mut refused = 0;
        // The cache comes last: it is what there is no room for.
        let (cached, put): (Vec<&Share>, Vec<&Share>) =
            recovered.shares.iter().partition(|share| is_cached(&share.place));
        for share in put.into_iter().chain(cached) {
            // What the user put is never dropped, however small the limits have become.
            let fits = !is_cached(&share.place)
                || self.files.claim_count() < self.shares_max
                    && self.used() + self.costs.cached(share.length, 1) <= self.room.quota;
            if fits {
                let manifest = recovered.manifests.get(&share.hash);
                self.files.claim(share, manifest.map(Arc::as_ref));
            } else {
                refused += 1;
                let last = self.files.shared(&share.hash).is_none();
                self.ops.push_back(DiskOp::RemoveShare { share: share.clone(), last });
            }
        }
        if refused > 0 {
            log::warn!("{refused} files in the cache are deleted: the limits have no room for them");
        }
    }

    /// The node's age in seconds: how long it has been running, all runs together.
    pub fn age(&self, now: Instant) -> u64 {
        self.age_at_start.saturating_add(now.since(self.started).as_secs())
    }

    /// When the node has this age in seconds, or this run's start when it was older then.
    pub fn at_age(&self, seconds: u64) -> Instant {
        self.started + Duration::from_secs(seconds.saturating_sub(self.age_at_start))
    }

    /// How many pieces and files there are.
    pub fn count(&self) -> usize {
        self.pieces.len() + self.files.file_count()
    }

    /// Bytes of content in stored pieces.
    pub fn content_bytes(&self) -> u64 {
        self.pieces.content_bytes()
    }

    /// What the store holds.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            pieces: self.pieces.len() as u32,
            shares: self.files.file_count() as u32,
            claims: self.files.claim_count() as u32,
            piece_bytes: self.pieces.bytes(),
            content_bytes: self.pieces.content_bytes(),
            cached_bytes: self.cached(),
            reserved_bytes: self.reserved(),
            window_bytes: self.windows.bytes(),
            promised_bytes: self.incoming.promised_bytes(),
            free_bytes: self.room.free_bytes(),
            keep_free_bytes: self.room.floor(),
            room_bytes: self.room.bytes_left(),
            over: self.is_over(),
            quota_bytes: self.room.quota,
            evicted: self.evicted,
            expired: self.expired,
            refused_quota: self.refused_quota,
            refused_free: self.refused_free,
        }
    }

    /// What a piece is and where its bytes lie: a stored piece, a share's manifest, a share's chunk (or the whole of a
    /// one-chunk file), or a verified chunk of a download.
    pub fn locate(&self, key: &Key) -> Option<(Content, Extent)> {
        match self.pieces.get(key) {
            Some(meta) => {
                let place = Place::Piece(*key);
                Some((meta.content, Extent { place, offset: 0, length: meta.length, stamp: None }))
            }
            None => self.files.locate(key),
        }
    }

    /// Whether a piece can be located.
    pub fn has(&self, key: &Key) -> bool {
        self.locate(key).is_some()
    }

    /// A stored piece.
    pub fn piece(&self, key: &Key) -> Option<PieceMeta> {
        self.pieces.get(key)
    }

    /// The mode of the file whose own hash this is, as far as it is known.
    pub fn mode(&self, key: &Key) -> Mode {
        match self.pieces.get(key) {
            Some(meta) => meta.mode,
            None => self.files.source(key).map_or(Mode::UNKNOWN, |claim| claim.stamp.mode),
        }
    }

    /// The stored pieces, in the order of their keys.
    pub fn pieces(&self) -> impl Iterator<Item = PieceMeta> + '_ {
        self.pieces.iter()
    }

    /// The first stored piece, or the first after this key, as it is verified.
    pub fn piece_after(&self, key: Option<&Key>) -> Option<PieceAt> {
        self.pieces.after(key).map(|meta| stored_at(&meta))
    }

    /// A stored piece as it is verified.
    pub fn stored_piece(&self, key: &Key) -> Option<PieceAt> {
        self.pieces.get(key).map(|meta| stored_at(&meta))
    }

    /// The first file that is shared where it lies, or the first after this hash, as it is verified.
    pub fn file_after(&self, hash: Option<&Key>) -> Option<FileAt> {
        let first = Key([0; 32]);
        let mut next =
            self.files.from(hash.unwrap_or(&first)).filter(|(shared, _)| Some(&shared.hash) != hash);
        next.find_map(|(shared, _)| {
            let claim = self.files.source(&shared.hash)?;
            let (hash, length) = (shared.hash, shared.layout.length());
            Some(FileAt { hash, length, place: claim.place(&hash), stamp: claim.stamp })
        })
    }

    /// Bytes of all files that are shared where they lie.
    pub fn files_bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// The chunks of a file that are already here in some other file or as stored pieces: their numbers and where they
    /// are. Chunks of a download of the same file are not among them.
    pub fn local_sources(&self, manifest: &Manifest) -> Vec<(u32, Extent)> {
        let target = self.files.partial(&manifest.hash()).map(|(_, place)| place.clone());
        let found = (0..).zip(manifest.keys()).filter_map(|(chunk, key)| {
            let (content, extent) = self.locate(key)?;
            let usable = content != Content::Manifest && Some(&extent.place) != target.as_ref();
            (usable && extent.length == manifest.chunk_length(chunk)).then_some((chunk, extent))
        });
        found.collect()
    }

    /// Decides on an offer. A piece that is here is kept as long and on as many nodes as the most demanding offer
    /// asked.
    pub fn admit(&mut self, now: Instant, offer: &Offer) -> Admission {
        if !offer.is_possible() {
            return Admission::Refuse(Refusal::Invalid);
        }
        let expires = self.age(now).saturating_add(u64::from(offer.lifetime));
        let before = self.pieces.get(&offer.key).map_or(0, |piece| piece.replicas);
        let age = self.age(now);
        if let Some(write) = self.pieces.raise(&offer.key, offer.replicas, expires, age) {
            let raised = self.pieces.get(&offer.key);
            self.changes.extend(raised.filter(|piece| piece.replicas > before).map(PieceChange::Kept));
            return match raised.filter(|_| write) {
                Some(PieceMeta { replicas, expires, .. }) => Admission::Raise { replicas, expires },
                None => Admission::Have,
            };
        }
        if self.is_published(&offer.key) {
            return Admission::Have;
        }
        if self.incoming.contains(&offer.key) || self.incoming.len() >= self.incoming_max {
            return Admission::Refuse(Refusal::Busy);
        }
        let cost = self.pieces.cost(&offer.key, offer.length);
        if self.pieces.len() + self.incoming.len() >= self.pieces_max {
            self.refused_quota += 1;
            return Admission::Refuse(Refusal::NoSpace);
        }
        // Other promises count, for all may be kept at once. What is in the cache does not: it goes first, once bytes come.
        let promises = self.incoming.len() - self.incoming.arriving_count();
        if self.fits(cost + self.incoming.promised_bytes(), 1 + promises).is_err() {
            return Admission::Refuse(Refusal::NoSpace);
        }
        let Offer { key, content, length, input_offset, replicas, mode, .. } = *offer;
        let meta = PieceMeta { key, content, length, input_offset, replicas, mode, expires };
        Admission::Send { incoming: self.incoming.promise(meta, cost) }
    }

    /// What an offer raised could not be written down.
    pub fn not_raised(&mut self, key: &Key) {
        self.pieces.not_written(key);
    }

    /// The first bytes of an admitted piece are here: from now on its space is reserved, at the cost of the cache if need be.
    /// `false` when there is no room any more: the caller refuses it and says that it is [discarded](Store::discarded).
    pub fn arrives(&mut self, incoming: u64) -> bool {
        let Some(cost) = self.incoming.cost_of_promise(incoming) else { return true };
        let room = self.make_room(cost).is_ok();
        if room {
            self.incoming.arrive(incoming);
        }
        room
    }

    /// What to commit an admitted piece with.
    pub fn meta_of(&self, incoming: u64) -> Option<PieceMeta> {
        self.incoming.get(incoming)
    }

    /// An admitted piece is on disk: from now on it is located and counted. `None` when there is no such admission.
    pub fn committed(&mut self, incoming: u64) -> Option<PieceMeta> {
        let meta = self.incoming.end(incoming)?;
        self.room.take(self.pieces.cost(&meta.key, meta.length));
        self.pieces.insert(&meta);
        self.changes.push_back(PieceChange::Kept(meta));
        Some(meta)
    }

    /// An admitted piece will not come, or was not what was offered: its space is free again, and what has arrived
    /// is deleted.
    pub fn discarded(&mut self, incoming: u64) {
        if self.incoming.end(incoming).is_some() {
            self.ops.push_back(DiskOp::Remove(Place::Incoming(incoming)));
        }
    }

    /// Drops a stored piece that turned out to be unreadable or altered. `false` when there is none.
    pub fn remove_piece(&mut self, key: &Key) -> bool {
        let removed = self.pieces.remove(key);
        let found = removed.is_some();
        if let Some(meta) = removed {
            self.room.free(self.costs.piece(meta.length));
            self.ops.push_back(DiskOp::Remove(Place::Piece(*key)));
            self.changes.push_back(PieceChange::Dropped(*key));
        }
        found
    }

    /// Why one more claim at `place` would be refused, before its file is read. What is claimed already is not.
    pub fn check_room(&self, place: &Place) -> Result<(), Full> {
        let evictable = self.files.oldest_cached().is_some();
        let full = self.files.claim_count() >= self.shares_max && !evictable;
        match full && self.files.claimed_at(place).is_none() {
            true => Err(Full::Shares(self.shares_max)),
            false => Ok(()),
        }
    }

    /// Adds a claim, or replaces what is known of it; what it says of copies holds for all claims on its address. The claim on
    /// another address that its place had ends and is returned: the disk knows. A download of the same file into the cache ends
    /// with a cached one. `manifest` is needed once for a file of several chunks. Fails when there are too many claims or a
    /// cached one is over the quota.
    pub fn claim(&mut self, share: &Share, manifest: Option<&Manifest>) -> Result<Option<Ended>, Full> {
        let cached = is_cached(&share.place);
        let known = self.files.claimed_at(&share.place).is_some();
        let counted =
            (cached && known) || self.files.partial(&share.hash).is_some_and(|(_, place)| is_cached(place));
        let table_full = !known && self.files.claim_count() >= self.shares_max;
        if table_full && !self.evict_one() {
            return Err(Full::Shares(self.shares_max));
        }
        if cached && !counted {
            self.make_room(self.costs.cached(share.length, 1))?;
        }
        if cached {
            self.files.end_partial(&share.hash);
        }
        let ended = self.files.claim(share, manifest);
        // A file that has a name of the user's needs no room in the cache.
        if !cached && share.state == ShareState::Present {
            if let Some(Ended { share, last }) = self.files.end(&share.hash, &Place::Cache(share.hash)) {
                self.ops.push_back(DiskOp::RemoveShare { share, last });
            }
        }
        Ok(ended)
    }

    /// Ends a claim. The caller tells the disk ([`DiskOp::RemoveShare`]), because it waits for the answer.
    pub fn end_claim(&mut self, hash: &Key, place: &Place) -> Option<Ended> {
        self.files.end(hash, place)
    }

    /// Says what became of a claimed file, and what it looks like. `false` when there is no such claim.
    pub fn settle_claim(&mut self, hash: &Key, place: &Place, state: ShareState, stamp: FileStamp) -> bool {
        self.files.settle(hash, place, state, stamp)
    }

    /// What all claims on an address have in common.
    pub fn shared(&self, hash: &Key) -> Option<Shared> {
        self.files.shared(hash).copied()
    }

    /// Changes that.
    pub fn set_shared(&mut self, shared: Shared) {
        self.files.set_shared(shared);
    }

    /// The claims on an address, in the order in which they were made.
    pub fn claims(&self, hash: &Key) -> &[Claim] {
        self.files.claims(hash)
    }

    /// The claim that a shared file is served by: the first whose file is there and unchanged.
    pub fn source(&self, hash: &Key) -> Option<&Claim> {
        self.files.source(hash)
    }

    /// Whether the manifest of a shared file is on disk; always for a file of one chunk.
    pub fn has_manifest(&self, hash: &Key) -> bool {
        self.files.has_manifest(hash)
    }

    /// The address that is claimed for a place.
    pub fn claimed_at(&self, place: &Place) -> Option<Key> {
        self.files.claimed_at(place)
    }

    /// A claim as it is to be written down.
    pub fn record(&self, hash: &Key, place: &Place) -> Option<Share> {
        self.files.record(hash, place)
    }

    /// All claims on an address as they are to be written down.
    pub fn records(&self, hash: &Key) -> Vec<Share> {
        self.files.records(hash)
    }

    /// The shared files, each with its claims, in no order that means anything.
    pub fn files(&self) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.files.all()
    }

    /// The shared files in the order of their addresses, each with its claims, from this address on.
    pub fn files_from(&self, hash: &Key) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.files.from(hash)
    }

    /// Whether any claim's file is not there and unchanged.
    pub fn has_unsettled(&self) -> bool {
        self.files.has_unsettled()
    }

    /// The first claim from a position on whose file is not there and unchanged, and the position after it. The first position
    /// is `(0, 0)`. In time linear in what is passed over.
    pub fn unsettled_from(&self, position: (u32, u32)) -> Option<(Share, (u32, u32))> {
        self.files.unsettled_from(position)
    }

    /// The file with this piece that is served from where it lies and known to be on disk: not what was merely fetched, for
    /// that may be gone tomorrow.
    pub fn lasting_share(&self, key: &Key) -> Option<(&Shared, &Claim)> {
        self.files.share_with(key).filter(|(_, claim)| claim.synced && !claim.is_cached())
    }

    /// The number of a chunk in the share that it is served from; `None` for a manifest too.
    pub fn chunk_of(&self, key: &Key) -> Option<u32> {
        self.files.chunk_of(key)
    }

    /// Notes that a file was used, so that it is not the next to be evicted. `key` is its hash or a chunk's key.
    pub fn touch(&mut self, key: &Key) {
        self.files.touch(key);
    }

    /// A download begins: its chunks can be located as they are [done](Store::chunk_done). One into the cache reserves its
    /// length. Fails when that is over the quota, or when there are too many downloads.
    pub fn begin_partial(&mut self, hash: Key, manifest: Arc<Manifest>, place: Place) -> Result<(), Full> {
        self.files.end_partial(&hash);
        if self.files.partial_count() >= self.partials_max {
            return Err(Full::Downloads(self.partials_max));
        }
        if is_cached(&place) {
            self.make_room(self.costs.cached(manifest.length(), 1))?;
        }
        self.files.begin_partial(hash, manifest, place);
        Ok(())
    }

    /// A chunk of a download is in its file and verified.
    pub fn chunk_done(&mut self, hash: &Key, chunk: u32) {
        self.files.chunk_done(hash, chunk);
    }

    /// A chunk of a download turned out not to be what it was: it is not located any more.
    pub fn chunk_lost(&mut self, key: &Key) {
        self.files.chunk_lost(key);
    }

    /// A download is over, one way or the other. What it left on disk is the caller's business.
    pub fn end_partial(&mut self, hash: &Key) {
        self.files.end_partial(hash);
    }

    /// The manifest of a download under way.
    pub fn partial(&self, hash: &Key) -> Option<&Arc<Manifest>> {
        self.files.partial(hash).map(|(manifest, _)| manifest)
    }

    /// A stream begins: room is kept for its window, of `bytes`, or of as many as there are, but no fewer than `least`, in
    /// files of `file_bytes`. How many bytes the window has. The cache makes room; the quota has no part in it.
    pub fn open_window(&mut self, window: u64, bytes: u64, least: u64, file_bytes: u64) -> Result<u64, Full> {
        let taken = self.reserved() + self.windows.bytes();
        let room = self.room.bytes_left().saturating_add(self.cached()).saturating_sub(taken);
        let granted = bytes.min(room.max(least));
        let files = granted.div_ceil(file_bytes.max(1));
        self.fits_disk(granted, files as usize)?;
        self.make_room_on_disk(granted);
        self.windows.open(window, granted, files);
        Ok(granted)
    }

    /// A stream has ended: its window needs no room any more.
    pub fn close_window(&mut self, window: u64) {
        self.windows.close(window);
    }

    /// When [`handle_timeout`](Store::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (expires, _) = self.pieces.next_expiry()?;
        Some(self.at_age(expires))
    }

    /// Lets pieces expire, a bounded number a call: the deadline stays in the past while more are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let age = self.age(now);
        for _ in 0..EXPIRED_PER_CALL_MAX {
            match self.pieces.next_expiry() {
                Some((expires, key)) if expires <= age => {
                    self.remove_piece(&key);
                    self.expired += 1;
                }
                _ => break,
            }
        }
    }

    /// The next thing that the disk is to do. Nobody waits for its answer, but it must be handed over before any operation
    /// that is decided later: a piece that has expired may be offered again.
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        self.ops.pop_front()
    }

    /// What became of a stored piece, in the order in which it happened. To be polled empty after each input; what was found
    /// on disk at the start is in [`pieces`](Store::pieces) alone.
    pub fn poll_change(&mut self) -> Option<PieceChange> {
        self.changes.pop_front()
    }

    /// The file system was looked at. When it has less left than is to be left to the host, a file of the cache goes.
    pub fn set_space(&mut self, space: Space) {
        self.room.set_space(space);
        if self.room.bytes_left() == 0 || self.room.files_left() == 0 {
            self.evict_one();
        }
    }

    /// Whether more is stored than the limits allow, because they were lowered. Then nothing new is taken.
    pub fn is_over(&self) -> bool {
        self.pieces.bytes() > self.room.quota || self.pieces.len() > self.pieces_max
    }

    /// What the cache takes.
    fn cached(&self) -> u64 {
        self.costs.cached(self.files.cached_bytes(), self.files.cached_count())
    }

    /// What is arriving takes, or will.
    fn reserved(&self) -> u64 {
        let files = self.costs.cached(self.files.arriving_bytes(), self.files.arriving_count());
        self.incoming.reserved_bytes() + files
    }

    /// Bytes that are taken or reserved.
    fn used(&self) -> u64 {
        self.pieces.bytes() + self.cached() + self.reserved()
    }

    /// Whether the node itself keeps this piece on the network's behalf as part of a file that its user put in. What
    /// was merely downloaded may be gone tomorrow and is no copy to count on.
    fn is_published(&self, key: &Key) -> bool {
        self.files.share_with(key).is_some_and(|(shared, claim)| shared.replicas > 0 && claim.synced)
    }

    /// Whether `bytes` more in so many files fit when nothing is left in the cache. What does not is counted.
    fn fits(&mut self, bytes: u64, files: usize) -> Result<(), Full> {
        let quota = self.room.quota;
        if (self.pieces.bytes() + self.reserved()).saturating_add(bytes) > quota {
            self.refused_quota += 1;
            return Err(Full::Quota { needed: bytes, quota });
        }
        self.fits_disk(bytes, files)
    }

    /// The same of the file system alone, whatever the quota says.
    fn fits_disk(&mut self, bytes: u64, files: usize) -> Result<(), Full> {
        let taken = self.reserved() + self.windows.bytes();
        let left = self.room.bytes_left().saturating_add(self.cached());
        if taken.saturating_add(bytes) > left {
            self.refused_free += 1;
            let (room, floor) = (left.saturating_sub(taken), self.room.floor());
            return Err(Full::Floor { needed: bytes, room, floor });
        }
        let files = (files + self.incoming.arriving_count()) as u64 + self.windows.files();
        if files > self.room.files_left().saturating_add(self.files.cached_count() as u64) {
            self.refused_free += 1;
            return Err(Full::Inodes);
        }
        Ok(())
    }

    /// Evicts cached shares until `bytes` more fit, in one file. When they cannot, nothing is evicted.
    fn make_room(&mut self, bytes: u64) -> Result<(), Full> {
        self.fits(bytes, 1)?;
        while self.used() + bytes > self.room.quota && self.evict_one() {}
        self.make_room_on_disk(bytes);
        Ok(())
    }

    fn make_room_on_disk(&mut self, bytes: u64) {
        let short = |store: &Store| {
            let taken = store.reserved() + store.windows.bytes();
            taken + bytes > store.room.bytes_left() || store.room.files_left() == 0
        };
        while short(self) && self.evict_one() {}
    }

    fn evict_one(&mut self) -> bool {
        let oldest = self.files.oldest_cached();
        let Some(Ended { share, last }) = oldest.and_then(|hash| self.files.end(&hash, &Place::Cache(hash)))
        else {
            return false;
        };
        self.evicted += 1;
        self.room.free(self.costs.cached(share.length, 1));
        if self.files.source(&share.hash).is_none() {
            self.changes.push_back(PieceChange::Evicted(share.hash));
        }
        self.ops.push_back(DiskOp::RemoveShare { share, last });
        true
    }
}

/// A stored piece as it is verified.
fn stored_at(meta: &PieceMeta) -> PieceAt {
    let PieceMeta { key, content, length, input_offset, .. } = *meta;
    let extent = Extent { place: Place::Piece(key), offset: 0, length, stamp: None };
    PieceAt { key, content, input_offset, extent }
}

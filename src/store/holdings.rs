//! What the node holds on its disk, what is on its way there, and the room for more.
//!
//! Everything that takes space is counted here: stored pieces, files in the cache, pieces and downloads that are arriving, and the
//! windows of streams. Where more is to come than fits, cached files are evicted for it. Whether stored pieces give way is a
//! question of admission (`admission`).

use super::files::{Files, is_cached};
use super::pieces::Pieces;
use super::room::{Costs, Room};
use super::windows::Windows;
use super::{Ended, Full, PieceChange, StoreStats};
use crate::claim::UNCLAIMED_SECONDS_MAX;
use crate::id::Key;
use crate::io::{DiskOp, PieceMeta, Place, Recovered, Share, ShareState, Space};
use crate::limits::Limits;
use crate::manifest::Manifest;
use std::collections::VecDeque;
use std::sync::Arc;

/// Pieces, files and windows, and the bounds over them.
pub(super) struct Holdings {
    costs: Costs,
    room: Room,
    pub(super) pieces: Pieces,
    pub(super) files: Files,
    /// The pieces that are arriving, and the bytes reserved for them.
    arriving: usize,
    arriving_bytes: u64,
    windows: Windows,
    pieces_max: usize,
    shares_max: usize,
    partials_max: usize,
    ops: VecDeque<DiskOp>,
    changes: VecDeque<PieceChange>,
    evicted: u64,
    refused_quota: u64,
    refused_free: u64,
}

impl Holdings {
    /// The recovered content at this age of the node. Drops expired pieces, and cached files above the limits. `seed` must be a
    /// secret random number.
    pub(super) fn new(limits: &Limits, recovered: &Recovered, seed: u64, age: u64) -> Self {
        let costs = Costs::new(recovered.space.block_bytes);
        let mut holdings = Holdings {
            costs,
            room: Room::new(limits.quota_bytes, limits.keep_free_bytes, recovered.space),
            pieces: Pieces::new(costs, seed),
            files: Files::new(seed),
            arriving: 0,
            arriving_bytes: 0,
            windows: Windows::default(),
            pieces_max: limits.pieces_max,
            shares_max: limits.shares_max,
            partials_max: limits.downloads_max,
            ops: VecDeque::new(),
            changes: VecDeque::new(),
            evicted: 0,
            refused_quota: 0,
            refused_free: 0,
        };
        holdings.take_pieces(&recovered.pieces, age);
        holdings.take_shares(recovered);
        holdings
    }

    fn take_pieces(&mut self, recovered: &[PieceMeta], age: u64) {
        for piece in recovered {
            if piece.expires > age {
                // A piece of an earlier version has no claim until one comes.
                let day = age.saturating_add(UNCLAIMED_SECONDS_MAX.into());
                let expires = if piece.claim.is_some() { piece.expires } else { piece.expires.min(day) };
                self.pieces.insert(&PieceMeta { expires, ..*piece });
            } else {
                self.ops.push_back(DiskOp::Remove(Place::Piece(piece.key)));
            }
        }
        if self.is_over() {
            log::warn!(
                "more is stored than the limits allow: the node stores nothing new, and hands pieces over to other nodes"
            );
        }
    }

    fn take_shares(&mut self, recovered: &Recovered) {
        let mut refused = 0;
        // The cache comes last, so that it is the part that does not fit.
        let (cached, put): (Vec<&Share>, Vec<&Share>) =
            recovered.shares.iter().partition(|share| is_cached(&share.place));
        for share in put.into_iter().chain(cached) {
            // A share of the user is never dropped, even when the limits were lowered.
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
        match refused {
            0 => {}
            1 => log::warn!("1 cached file is deleted: the limits have no room for it (--quota, --shares)"),
            _ => log::warn!(
                "{refused} cached files are deleted: the limits have no room for them (--quota, --shares)"
            ),
        }
    }

    /// The statistics, without those of admission and expiry.
    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            pieces: self.pieces.len() as u32,
            shares: self.files.file_count() as u32,
            claims: self.files.claim_count() as u32,
            piece_bytes: self.pieces.bytes(),
            content_bytes: self.pieces.content_bytes(),
            cached_bytes: self.cached(),
            reserved_bytes: self.reserved(),
            window_bytes: self.windows.bytes(),
            free_bytes: self.room.free_bytes(),
            keep_free_bytes: self.room.floor(),
            room_bytes: self.room.bytes_left(),
            over: self.is_over(),
            quota_bytes: self.room.quota,
            evicted: self.evicted,
            refused_quota: self.refused_quota,
            refused_free: self.refused_free,
            ..StoreStats::default()
        }
    }

    /// The next operation for the disk.
    pub(super) fn poll_op(&mut self) -> Option<DiskOp> {
        self.ops.pop_front()
    }

    /// The next change of a stored piece, or of a file in the cache.
    pub(super) fn poll_change(&mut self) -> Option<PieceChange> {
        self.changes.pop_front()
    }

    // What takes space.

    /// Whether the stored pieces exceed the limits, because these were lowered. Then the store admits nothing.
    pub(super) fn is_over(&self) -> bool {
        self.pieces.bytes() > self.room.quota || self.pieces.len() > self.pieces_max
    }

    /// Whether this node is a holder of the piece through a share of its user, on disk and with copies asked for. A file that was
    /// only downloaded is no copy.
    pub(super) fn is_published(&self, key: &Key) -> bool {
        self.files.share_with(key).is_some_and(|(shared, claim)| shared.replicas > 0 && claim.synced)
    }

    /// Whether the number of pieces is used up by those that are stored and arriving.
    pub(super) fn is_crowded(&self) -> bool {
        self.pieces.len() + self.arriving >= self.pieces_max
    }

    /// Bytes that the cache takes on disk.
    fn cached(&self) -> u64 {
        self.costs.cached(self.files.cached_bytes(), self.files.cached_count())
    }

    /// Bytes reserved for arriving pieces and downloads into the cache.
    fn reserved(&self) -> u64 {
        self.arriving_bytes + self.downloading()
    }

    /// Bytes reserved for downloads into the cache.
    fn downloading(&self) -> u64 {
        self.costs.cached(self.files.arriving_bytes(), self.files.arriving_count())
    }

    /// Bytes that are taken or reserved.
    fn used(&self) -> u64 {
        self.pieces.bytes() + self.cached() + self.reserved()
    }

    /// Bytes for pieces that are neither stored nor taken by something else. Arriving pieces take of them.
    pub(super) fn free_for_pieces(&self) -> u64 {
        let files = self.downloading();
        let quota = self.room.quota.saturating_sub(self.pieces.bytes() + files);
        let disk = self.room.bytes_left().saturating_add(self.cached());
        quota.min(disk.saturating_sub(files + self.windows.bytes()))
    }

    /// The bytes that are missing for `bytes` more, once the cache is evicted.
    pub(super) fn lacking(&self, bytes: u64) -> u64 {
        let quota = (self.pieces.bytes() + self.reserved()).saturating_add(bytes);
        let taken = (self.reserved() + self.windows.bytes()).saturating_add(bytes);
        let left = self.room.bytes_left().saturating_add(self.cached());
        quota.saturating_sub(self.room.quota).max(taken.saturating_sub(left))
    }

    // Room for more.

    /// Whether `bytes` more in `files` files fit once the cache is evicted. Counts a refusal.
    fn fits(&mut self, bytes: u64, files: usize) -> Result<(), Full> {
        let quota = self.room.quota;
        if (self.pieces.bytes() + self.reserved()).saturating_add(bytes) > quota {
            self.refused_quota += 1;
            return Err(Full::Quota { needed: bytes, quota });
        }
        self.fits_disk(bytes, files)
    }

    /// The same for the file system only, without the quota.
    fn fits_disk(&mut self, bytes: u64, files: usize) -> Result<(), Full> {
        let taken = self.reserved() + self.windows.bytes();
        let left = self.room.bytes_left().saturating_add(self.cached());
        if taken.saturating_add(bytes) > left {
            self.refused_free += 1;
            let (room, floor) = (left.saturating_sub(taken), self.room.floor());
            return Err(Full::Floor { needed: bytes, room, floor });
        }
        let files = (files + self.arriving) as u64 + self.windows.files();
        if files > self.room.files_left().saturating_add(self.files.cached_count() as u64) {
            self.refused_free += 1;
            return Err(Full::Inodes);
        }
        Ok(())
    }

    /// Whether there is room beside `coming` pieces for further ones, `bytes` in `files` files, once the cache is evicted. Counts a
    /// refusal.
    pub(super) fn has_room(&mut self, coming: usize, bytes: u64, files: usize) -> bool {
        if self.pieces.len() + coming >= self.pieces_max {
            self.refused_quota += 1;
            return false;
        }
        self.fits(bytes, files).is_ok()
    }

    /// Evicts cached files until `bytes` more fit, in one file. Evicts nothing when they cannot fit.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), Full> {
        self.fits(bytes, 1)?;
        while self.used() + bytes > self.room.quota && self.evict_one() {}
        self.make_room_on_disk(bytes);
        Ok(())
    }

    fn make_room_on_disk(&mut self, bytes: u64) {
        let short = |holdings: &Holdings| {
            let taken = holdings.reserved() + holdings.windows.bytes();
            taken + bytes > holdings.room.bytes_left() || holdings.room.files_left() == 0
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

    /// Updates the space of the file system. When it is below what is left to the host, one cached file is evicted.
    pub(super) fn set_space(&mut self, space: Space) {
        self.room.set_space(space);
        if self.room.bytes_left() == 0 || self.room.files_left() == 0 {
            self.evict_one();
        }
    }

    // What comes and goes.

    /// Reserves the space of a piece whose first bytes are here.
    pub(super) fn reserve(&mut self, cost: u64) {
        self.arriving += 1;
        self.arriving_bytes += cost;
    }

    /// Ends the reservation of a piece that is on disk, or that will not come.
    pub(super) fn release(&mut self, cost: u64) {
        self.arriving -= 1;
        self.arriving_bytes -= cost;
    }

    /// Adds a piece that is on disk.
    pub(super) fn keep(&mut self, meta: &PieceMeta) {
        self.room.take(self.pieces.cost(&meta.key, meta.length));
        self.pieces.insert(meta);
        self.changes.push_back(PieceChange::Kept(*meta));
    }

    /// A kept piece is to have another number of copies.
    pub(super) fn changed(&mut self, meta: PieceMeta) {
        self.changes.push_back(PieceChange::Kept(meta));
    }

    /// Drops a stored piece, and returns it.
    pub(super) fn drop_piece(&mut self, key: &Key) -> Option<PieceMeta> {
        let meta = self.pieces.remove(key)?;
        self.room.free(self.costs.piece(meta.length));
        self.ops.push_back(DiskOp::Remove(Place::Piece(*key)));
        self.changes.push_back(PieceChange::Dropped(*key));
        Some(meta)
    }

    /// Deletes the bytes of a piece that did not come, or did not verify.
    pub(super) fn drop_incoming(&mut self, incoming: u64) {
        self.ops.push_back(DiskOp::Remove(Place::Incoming(incoming)));
    }

    /// Whether there is room for a claim at `place`: see [`Store::check_room`](super::Store::check_room).
    pub(super) fn check_room(&self, place: &Place) -> Result<(), Full> {
        let evictable = self.files.oldest_cached().is_some();
        let full = self.files.claim_count() >= self.shares_max && !evictable;
        match full && self.files.claimed_at(place).is_none() {
            true => Err(Full::Shares(self.shares_max)),
            false => Ok(()),
        }
    }

    /// Adds or updates a claim on a file: see [`Store::claim`](super::Store::claim).
    pub(super) fn claim(
        &mut self,
        share: &Share,
        manifest: Option<&Manifest>,
    ) -> Result<Option<Ended>, Full> {
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
        // A file that the user has at a path needs no copy in the cache.
        if !cached && share.state == ShareState::Present {
            if let Some(Ended { share, last }) = self.files.end(&share.hash, &Place::Cache(share.hash)) {
                self.ops.push_back(DiskOp::RemoveShare { share, last });
            }
        }
        Ok(ended)
    }

    /// Begins a download: see [`Store::begin_partial`](super::Store::begin_partial).
    pub(super) fn begin_partial(
        &mut self,
        hash: Key,
        manifest: Arc<Manifest>,
        place: Place,
    ) -> Result<(), Full> {
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

    /// Reserves the window of a stream: see [`Store::open_window`](super::Store::open_window).
    pub(super) fn open_window(
        &mut self,
        window: u64,
        bytes: u64,
        least: u64,
        file_bytes: u64,
    ) -> Result<u64, Full> {
        let taken = self.reserved() + self.windows.bytes();
        let room = self.room.bytes_left().saturating_add(self.cached()).saturating_sub(taken);
        let granted = bytes.min(room.max(least));
        let files = granted.div_ceil(file_bytes.max(1));
        self.fits_disk(granted, files as usize)?;
        self.make_room_on_disk(granted);
        self.windows.open(window, granted, files);
        Ok(granted)
    }

    pub(super) fn close_window(&mut self, window: u64) {
        self.windows.close(window);
    }
}

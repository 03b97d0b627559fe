//! The index of this node's content: stored pieces, shared files and downloads, and the quota over them.
//!
//! The [`Store`] moves no bytes and reads no file. It knows the place of each piece, decides which pieces are admitted and which
//! are evicted, and outputs [`DiskOp`]s for the driver. It has two parts: `holdings` are the pieces, files and windows, and the room
//! for more; `admission` decides on what peers offer. The rules:
//!
//! - Space is reserved when the first bytes of a piece arrive, so concurrent arrivals cannot exceed the quota. An offer alone
//!   reserves nothing.
//! - Space is counted as the file system takes it, in blocks, and some of it is left to the host (`room`). The windows of streams
//!   (`windows`) count against the free space only, not against the quota.
//! - The cache (files fetched without a path of the user) is evicted first, the longest unused file before the others. Stored
//!   pieces expire. In a full store, those of the party that has most give way to one that has less than half (`parties`, `accounts`).
//!   After the quota was lowered, pieces above it stay until other nodes have copies; meanwhile the store admits nothing.
//! - What is arriving from one party at a time takes a quarter of the free space at most while other parties offer pieces, too, and
//!   leaves an eighth of it to them while they do not.
//! - A piece counts for the party of its publisher, if that is known, and else for the one that brought it. A piece that another
//!   publisher raises counts for that one's party, until that has to give way (`raised`).
//! - A claim counts from when the node first heard of it, whatever happens to its piece meanwhile (`heard`).
//! - Lifetimes are counted in the node's own age, the seconds that it has run: a clock that jumps, or starts in 1970, does not
//!   shorten them.

mod accounts;
mod admission;
mod files;
mod full;
mod heard;
mod holdings;
mod incoming;
mod index;
mod parties;
mod pieces;
mod raised;
mod room;
mod stats;
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
use crate::wire::frame::Offer;
use admission::{Admissions, Moment};
use holdings::Holdings;
use std::sync::Arc;

pub use admission::{Admission, Bringer};
pub use files::{Claim, Ended, Shared};
pub use full::Full;
pub use pieces::PIECE_OVERHEAD_BYTES;
pub use stats::StoreStats;

/// The most pieces that expire in one call of [`Store::handle_timeout`].
const EXPIRED_PER_CALL_MAX: usize = 64;

/// A change of a stored piece, or of a file in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceChange {
    /// The piece is new, or its number of copies has changed.
    Kept(PieceMeta),
    /// The piece is gone.
    Dropped(Key),
    /// The file with this address was evicted from the cache and has no other share.
    Evicted(Key),
}

/// The index of this node's content.
pub struct Store {
    holdings: Holdings,
    admissions: Admissions,
    started: Instant,
    age_at_start: u64,
    expired: u64,
}

impl Store {
    /// A store of the recovered content. It drops expired pieces, and cached files above the limits, by operations in
    /// [`poll_op`](Store::poll_op). `seed` must be a secret random number.
    pub fn new(limits: &Limits, recovered: &Recovered, seed: u64, now: Instant) -> Self {
        let age_at_start = recovered.ages.seconds;
        Store {
            holdings: Holdings::new(limits, recovered, seed, age_at_start),
            admissions: Admissions::new(limits, seed),
            started: now,
            age_at_start,
            expired: 0,
        }
    }

    /// The node's age in seconds: the time that it has run, over all runs.
    pub fn age(&self, now: Instant) -> u64 {
        self.age_at_start.saturating_add(now.since(self.started).as_secs())
    }

    /// The instant at which the node has this age in seconds; the start of this run if the node was older then.
    pub fn at_age(&self, seconds: u64) -> Instant {
        self.started + Duration::from_secs(seconds.saturating_sub(self.age_at_start))
    }

    /// The number of pieces and files.
    pub fn count(&self) -> usize {
        self.holdings.pieces.len() + self.holdings.files.file_count()
    }

    /// Bytes of content in stored pieces.
    pub fn content_bytes(&self) -> u64 {
        self.holdings.pieces.content_bytes()
    }

    /// The store's statistics.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            promised_bytes: self.admissions.promised_bytes(),
            expired: self.expired,
            displaced: self.admissions.displaced,
            refused_share: self.admissions.refused_share,
            ..self.holdings.stats()
        }
    }

    /// The kind of a piece and the place of its bytes. It may be a stored piece, a share's manifest, a share's chunk (or a whole
    /// file of one chunk), or a verified chunk of a download.
    pub fn locate(&self, key: &Key) -> Option<(Content, Extent)> {
        match self.holdings.pieces.get(key) {
            Some(meta) => {
                let place = Place::Piece(*key);
                Some((meta.content, Extent { place, offset: 0, length: meta.length, stamp: None }))
            }
            None => self.holdings.files.locate(key),
        }
    }

    /// Where a piece is that this node counts as a holder of: one that it stores, or that its user shares in place with copies. Its
    /// bytes are synced.
    pub fn kept(&self, key: &Key) -> Option<Extent> {
        let holds = self.holdings.pieces.get(key).is_some() || self.holdings.is_published(key);
        self.locate(key).filter(|_| holds).map(|(_, extent)| extent)
    }

    /// Whether a piece can be located.
    pub fn has(&self, key: &Key) -> bool {
        self.locate(key).is_some()
    }

    /// A stored piece.
    pub fn piece(&self, key: &Key) -> Option<PieceMeta> {
        self.holdings.pieces.get(key)
    }

    /// The mode of the file with this hash, if it is known.
    pub fn mode(&self, key: &Key) -> Mode {
        match self.holdings.pieces.get(key) {
            Some(meta) => meta.mode,
            None => self.holdings.files.source(key).map_or(Mode::UNKNOWN, |claim| claim.stamp.mode),
        }
    }

    /// The stored pieces, in the order of their keys.
    pub fn pieces(&self) -> impl Iterator<Item = PieceMeta> + '_ {
        self.holdings.pieces.iter()
    }

    /// The first stored piece, or the first after this key, with the data to verify it.
    pub fn piece_after(&self, key: Option<&Key>) -> Option<PieceAt> {
        self.holdings.pieces.after(key).map(|meta| stored_at(&meta))
    }

    /// The first shared file that can be served, or the first after this hash, with the data to verify it.
    pub fn file_after(&self, hash: Option<&Key>) -> Option<FileAt> {
        let first = Key([0; 32]);
        let mut next =
            self.holdings.files.from(hash.unwrap_or(&first)).filter(|(shared, _)| Some(&shared.hash) != hash);
        next.find_map(|(shared, _)| {
            let claim = self.holdings.files.source(&shared.hash)?;
            let (hash, length) = (shared.hash, shared.layout.length());
            Some(FileAt { hash, length, place: claim.place(&hash), stamp: claim.stamp })
        })
    }

    /// Bytes of all shared files.
    pub fn files_bytes(&self) -> u64 {
        self.holdings.files.bytes()
    }

    /// The chunks of a file that this node has in another file or as stored pieces: their indices and places. Chunks in the
    /// target of a download of the same file are not among them.
    pub fn local_sources(&self, manifest: &Manifest) -> Vec<(u32, Extent)> {
        let target = self.holdings.files.partial(&manifest.hash()).map(|(_, place)| place.clone());
        let found = (0..).zip(manifest.keys()).filter_map(|(chunk, key)| {
            let (content, extent) = self.locate(key)?;
            let usable = content != Content::Manifest && Some(&extent.place) != target.as_ref();
            (usable && extent.length == manifest.chunk_length(chunk)).then_some((chunk, extent))
        });
        found.collect()
    }

    /// Decides on an offer that `from` brings, whose claim verifies. A piece that is here already gets the highest number of copies and the
    /// longest lifetime of all claims.
    pub fn admit(&mut self, now: Instant, from: impl Into<Bringer>, offer: &Offer) -> Admission {
        let moment = Moment { now, age: self.age(now) };
        self.admissions.admit(moment, from.into(), offer, &mut self.holdings)
    }

    /// Notes that the disk could not save a raise.
    pub fn not_raised(&mut self, key: &Key) {
        self.holdings.pieces.not_written(key);
    }

    /// Sets whether stored pieces give way to those of other parties when the store is full. They do on an open network, where one
    /// party could fill every store. Where all nodes have the network's secret, what was acknowledged stays.
    pub fn set_contested(&mut self, contested: bool) {
        self.holdings.pieces.parties.contested = contested;
    }

    /// Reserves the space of an admitted piece when its first bytes are here, and evicts cached files for it if needed. `false`
    /// when there is no room left, or the promise has ended: the caller then refuses the piece and calls [`discarded`](Store::discarded).
    pub fn arrives(&mut self, now: Instant, incoming: u64) -> bool {
        let moment = Moment { now, age: self.age(now) };
        self.admissions.arrives(moment, incoming, &mut self.holdings)
    }

    /// The metadata of an admitted piece.
    pub fn meta_of(&self, incoming: u64) -> Option<PieceMeta> {
        self.admissions.meta_of(incoming)
    }

    /// Adds an admitted piece that is on disk now. `None` when there is no such admission.
    pub fn committed(&mut self, incoming: u64) -> Option<PieceMeta> {
        self.admissions.committed(incoming, &mut self.holdings)
    }

    /// Ends the admission of a piece that will not come, or that did not match its offer. Its reservation ends, and the bytes that
    /// have arrived are deleted.
    pub fn discarded(&mut self, incoming: u64) {
        self.admissions.discarded(incoming, &mut self.holdings);
    }

    /// Drops a stored piece that is unreadable or damaged. `false` when there is none.
    pub fn remove_piece(&mut self, key: &Key) -> bool {
        self.admissions.drop_piece(key, &mut self.holdings)
    }

    /// Whether there is room for a claim at `place`, to be asked before its file is hashed. A place that has a claim needs no room.
    pub fn check_room(&self, place: &Place) -> Result<(), Full> {
        self.holdings.check_room(place)
    }

    /// Adds or updates a claim. Its number of copies and lifetime hold for all claims on its address. A claim of the same place on
    /// another address ends and is returned; the disk has ended it already. A cached claim also ends a download of the same file
    /// into the cache. A file of several chunks needs its `manifest` once. Fails when there are too many claims, or when a cached
    /// file does not fit into the quota.
    pub fn claim(&mut self, share: &Share, manifest: Option<&Manifest>) -> Result<Option<Ended>, Full> {
        self.holdings.claim(share, manifest)
    }

    /// Ends a claim. The caller gives the disk the [`DiskOp::RemoveShare`], because it waits for the answer.
    pub fn end_claim(&mut self, hash: &Key, place: &Place) -> Option<Ended> {
        self.holdings.files.end(hash, place)
    }

    /// Updates the state and the stamp of a claimed file. `false` when there is no such claim.
    pub fn settle_claim(&mut self, hash: &Key, place: &Place, state: ShareState, stamp: FileStamp) -> bool {
        self.holdings.files.settle(hash, place, state, stamp)
    }

    /// The properties that all claims on an address have in common.
    pub fn shared(&self, hash: &Key) -> Option<Shared> {
        self.holdings.files.shared(hash).copied()
    }

    /// Changes the properties that all claims on an address have in common.
    pub fn set_shared(&mut self, shared: Shared) {
        self.holdings.files.set_shared(shared);
    }

    /// The claims on an address, in the order in which they were made.
    pub fn claims(&self, hash: &Key) -> &[Claim] {
        self.holdings.files.claims(hash)
    }

    /// The claim from which a shared file is served: the first whose file is present.
    pub fn source(&self, hash: &Key) -> Option<&Claim> {
        self.holdings.files.source(hash)
    }

    /// Whether the manifest of a shared file is on disk; always for a file of one chunk.
    pub fn has_manifest(&self, hash: &Key) -> bool {
        self.holdings.files.has_manifest(hash)
    }

    /// The address that a claim gives to the file at this place.
    pub fn claimed_at(&self, place: &Place) -> Option<Key> {
        self.holdings.files.claimed_at(place)
    }

    /// A claim in the form in which the disk saves it.
    pub fn record(&self, hash: &Key, place: &Place) -> Option<Share> {
        self.holdings.files.record(hash, place)
    }

    /// All claims on an address in the form in which the disk saves them.
    pub fn records(&self, hash: &Key) -> Vec<Share> {
        self.holdings.files.records(hash)
    }

    /// The shared files, each with its claims, in no particular order.
    pub fn files(&self) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.holdings.files.all()
    }

    /// The shared files in the order of their addresses, each with its claims, from this address on.
    pub fn files_from(&self, hash: &Key) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.holdings.files.from(hash)
    }

    /// Whether the file of a claim is not present.
    pub fn has_unsettled(&self) -> bool {
        self.holdings.files.has_unsettled()
    }

    /// The next claim from `position` on whose file is not present, and the position after it. The first position is `(0, 0)`. The
    /// time is linear in the claims in between.
    pub fn unsettled_from(&self, position: (u32, u32)) -> Option<(Share, (u32, u32))> {
        self.holdings.files.unsettled_from(position)
    }

    /// The share of the user that has this piece and is known to be on disk. A cached file is none: it may be evicted at any time.
    pub fn lasting_share(&self, key: &Key) -> Option<(&Shared, &Claim)> {
        self.holdings.files.share_with(key).filter(|(_, claim)| claim.synced && !claim.is_cached())
    }

    /// The index of a chunk in the file that it is served from; `None` also for a manifest.
    pub fn chunk_of(&self, key: &Key) -> Option<u32> {
        self.holdings.files.chunk_of(key)
    }

    /// Notes the use of a file, for the order of eviction. `key` is its hash or the key of one of its chunks.
    pub fn touch(&mut self, key: &Key) {
        self.holdings.files.touch(key);
    }

    /// Begins a download. Its chunks can be located when they are [done](Store::chunk_done). A download into the cache reserves
    /// its length. Fails when that does not fit into the quota, or when there are too many downloads.
    pub fn begin_partial(&mut self, hash: Key, manifest: Arc<Manifest>, place: Place) -> Result<(), Full> {
        self.holdings.begin_partial(hash, manifest, place)
    }

    /// Notes that a chunk of a download is in its target and verified.
    pub fn chunk_done(&mut self, hash: &Key, chunk: u32) {
        self.holdings.files.chunk_done(hash, chunk);
    }

    /// Notes that a chunk of a download no longer matches its key, so that it is not located any more.
    pub fn chunk_lost(&mut self, key: &Key) {
        self.holdings.files.chunk_lost(key);
    }

    /// Ends a download, complete or not. The caller deals with its file.
    pub fn end_partial(&mut self, hash: &Key) {
        self.holdings.files.end_partial(hash);
    }

    /// The manifest of a running download.
    pub fn partial(&self, hash: &Key) -> Option<&Arc<Manifest>> {
        self.holdings.files.partial(hash).map(|(manifest, _)| manifest)
    }

    /// Reserves the window of a stream and returns its size: `bytes`, or as many as are free, but at least `least`, in files of
    /// `file_bytes`. It evicts cached files if needed, and does not count against the quota.
    pub fn open_window(&mut self, window: u64, bytes: u64, least: u64, file_bytes: u64) -> Result<u64, Full> {
        self.holdings.open_window(window, bytes, least, file_bytes)
    }

    /// Ends the reservation of a stream's window.
    pub fn close_window(&mut self, window: u64) {
        self.holdings.close_window(window);
    }

    /// When [`handle_timeout`](Store::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (expires, _) = self.holdings.pieces.next_expiry()?;
        Some(self.at_age(expires))
    }

    /// Drops expired pieces, a bounded number in each call. The deadline stays in the past while more are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let age = self.age(now);
        for _ in 0..EXPIRED_PER_CALL_MAX {
            match self.holdings.pieces.next_expiry() {
                Some((expires, key)) if expires <= age => {
                    if self.admissions.outlives_raises(&key, age, &mut self.holdings) {
                        continue;
                    }
                    self.remove_piece(&key);
                    self.expired += 1;
                }
                _ => break,
            }
        }
    }

    /// The next operation for the disk. No machine waits for its answer. It must reach the disk before any later operation: an
    /// expired piece may be offered again.
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        self.holdings.poll_op()
    }

    /// The next change of a stored piece. The caller polls until empty after each input. Pieces recovered at the start cause no
    /// change: see [`pieces`](Store::pieces).
    pub fn poll_change(&mut self) -> Option<PieceChange> {
        self.holdings.poll_change()
    }

    /// Updates the space of the file system. When it is below what is left to the host, one cached file is evicted.
    pub fn set_space(&mut self, space: Space) {
        self.holdings.set_space(space);
    }

    /// Whether the stored pieces exceed the limits, because these were lowered. Then the store admits nothing.
    pub fn is_over(&self) -> bool {
        self.holdings.is_over()
    }
}

/// A stored piece as it is verified.
fn stored_at(meta: &PieceMeta) -> PieceAt {
    let PieceMeta { key, content, length, input_offset, .. } = *meta;
    let extent = Extent { place: Place::Piece(key), offset: 0, length, stamp: None };
    PieceAt { key, content, input_offset, extent }
}

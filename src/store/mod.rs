//! The index of this node's content: stored pieces, shared files and downloads, and the quota over them.
//!
//! The [`Store`] moves no bytes and reads no file. It knows the place of each piece, decides which pieces are admitted and which
//! are evicted, and outputs [`DiskOp`]s for the driver. Its rules:
//!
//! - Space is reserved when the first bytes of a piece arrive, so concurrent arrivals cannot exceed the quota. An offer alone
//!   reserves nothing.
//! - Space is counted as the file system takes it, in blocks, and some of it is left to the host (`room`). The windows of streams
//!   (`windows`) count against the free space only, not against the quota.
//! - The cache (files fetched without a path of the user) is evicted first, the longest unused file before the others. Stored
//!   pieces expire. In a full store, those of the party that brought most give way to one that brought less than half (`parties`).
//!   After the quota was lowered, pieces above it stay until other nodes have copies; meanwhile the store admits nothing.
//! - What is arriving from one party at a time takes a quarter of the free space at most while other parties offer pieces, too, and
//!   leaves an eighth of it to them while they do not.
//! - A claim counts from when the node first heard of it, whatever happens to its piece meanwhile (`heard`).
//! - Lifetimes are counted in the node's own age, the seconds that it has run: a clock that jumps, or starts in 1970, does not
//!   shorten them.

mod files;
mod full;
mod heard;
mod incoming;
mod index;
mod parties;
mod pieces;
mod room;
mod stats;
#[cfg(test)]
mod tests;
mod windows;

use crate::claim::{PieceClaim, UNCLAIMED_SECONDS_MAX};
use crate::id::Key;
use crate::io::{
    Brought, DiskOp, Extent, FileAt, FileStamp, Mode, PieceAt, PieceMeta, Place, Recovered, Share,
    ShareState, Space,
};
use crate::limits::Limits;
use crate::manifest::{Content, Manifest};
use crate::peers::contest::Holder;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Offer, Refusal};
use files::{Files, is_cached};
use heard::Heard;
use incoming::Incoming;
use parties::holder_of;
use pieces::Pieces;
use room::{Costs, Room};
use std::collections::VecDeque;
use std::sync::Arc;
use windows::Windows;

pub use files::{Claim, Ended, Shared};
pub use full::Full;
pub use pieces::PIECE_OVERHEAD_BYTES;
pub use stats::StoreStats;

/// The most pieces that expire in one call of [`Store::handle_timeout`].
const EXPIRED_PER_CALL_MAX: usize = 64;
/// The part of the free space that what is arriving from one party takes at most, while others offer pieces.
const ARRIVING_SHARE: u64 = 4;
/// The part of it that one party leaves to others while none of them offers anything.
const ARRIVING_LEFT: u64 = 8;

/// The answer to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The piece is on disk already.
    Have,
    /// The piece is on disk, and the offer raises its number of copies or its lifetime. It counts as accepted once the raise is
    /// durable. See [`Store::not_raised`].
    Raise {
        /// The new number of copies.
        replicas: u8,
        /// When it expires, in seconds of the node's age.
        expires: u64,
    },
    /// The piece is admitted: it goes to [`Place::Incoming`] with this number. See [`Store::arrives`].
    Send {
        /// The number, unique in this run.
        incoming: u64,
    },
    /// The offer is refused.
    Refuse(Refusal),
}

/// A change of a stored piece, or of a file in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceChange {
    /// The piece is new, or its number of copies was raised.
    Kept(PieceMeta),
    /// The piece is gone.
    Dropped(Key),
    /// The file with this address was evicted from the cache and has no other share.
    Evicted(Key),
}

/// The index of this node's content.
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
    heard: Heard,
    incoming: Incoming,
    windows: Windows,
    files: Files,
    ops: VecDeque<DiskOp>,
    changes: VecDeque<PieceChange>,
    evicted: u64,
    expired: u64,
    displaced: u64,
    refused_share: u64,
    refused_quota: u64,
    refused_free: u64,
}

impl Store {
    /// A store of the recovered content. It drops expired pieces, and cached files above the limits, by operations in
    /// [`poll_op`](Store::poll_op). `seed` must be a secret random number.
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
            pieces: Pieces::new(costs, seed),
            heard: Heard::new(seed),
            incoming: Incoming::default(),
            windows: Windows::default(),
            files: Files::new(seed),
            ops: VecDeque::new(),
            changes: VecDeque::new(),
            evicted: 0,
            expired: 0,
            displaced: 0,
            refused_share: 0,
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
                // A piece of an earlier version has no claim until one comes.
                let day = self.age_at_start.saturating_add(UNCLAIMED_SECONDS_MAX.into());
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
        self.pieces.len() + self.files.file_count()
    }

    /// Bytes of content in stored pieces.
    pub fn content_bytes(&self) -> u64 {
        self.pieces.content_bytes()
    }

    /// The store's statistics.
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
            displaced: self.displaced,
            refused_share: self.refused_share,
            refused_quota: self.refused_quota,
            refused_free: self.refused_free,
        }
    }

    /// The kind of a piece and the place of its bytes. It may be a stored piece, a share's manifest, a share's chunk (or a whole
    /// file of one chunk), or a verified chunk of a download.
    pub fn locate(&self, key: &Key) -> Option<(Content, Extent)> {
        match self.pieces.get(key) {
            Some(meta) => {
                let place = Place::Piece(*key);
                Some((meta.content, Extent { place, offset: 0, length: meta.length, stamp: None }))
            }
            None => self.files.locate(key),
        }
    }

    /// Where a piece is that this node counts as a holder of: one that it stores, or that its user shares in place with copies. Its
    /// bytes are synced.
    pub fn kept(&self, key: &Key) -> Option<Extent> {
        let holds = self.pieces.get(key).is_some() || self.is_published(key);
        self.locate(key).filter(|_| holds).map(|(_, extent)| extent)
    }

    /// Whether a piece can be located.
    pub fn has(&self, key: &Key) -> bool {
        self.locate(key).is_some()
    }

    /// A stored piece.
    pub fn piece(&self, key: &Key) -> Option<PieceMeta> {
        self.pieces.get(key)
    }

    /// The mode of the file with this hash, if it is known.
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

    /// The first stored piece, or the first after this key, with the data to verify it.
    pub fn piece_after(&self, key: Option<&Key>) -> Option<PieceAt> {
        self.pieces.after(key).map(|meta| stored_at(&meta))
    }

    /// The first shared file that can be served, or the first after this hash, with the data to verify it.
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

    /// Bytes of all shared files.
    pub fn files_bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// The chunks of a file that this node has in another file or as stored pieces: their indices and places. Chunks in the
    /// target of a download of the same file are not among them.
    pub fn local_sources(&self, manifest: &Manifest) -> Vec<(u32, Extent)> {
        let target = self.files.partial(&manifest.hash()).map(|(_, place)| place.clone());
        let found = (0..).zip(manifest.keys()).filter_map(|(chunk, key)| {
            let (content, extent) = self.locate(key)?;
            let usable = content != Content::Manifest && Some(&extent.place) != target.as_ref();
            (usable && extent.length == manifest.chunk_length(chunk)).then_some((chunk, extent))
        });
        found.collect()
    }

    /// Decides on an offer of the node `from`, whose claim verifies. A piece that is here already gets the highest number of copies and the
    /// longest lifetime of all claims.
    pub fn admit(&mut self, now: Instant, from: Holder, offer: &Offer) -> Admission {
        if !offer.is_possible() {
            return Admission::Refuse(Refusal::Invalid);
        }
        let (offer, expires) = self.as_heard(now, offer);
        if self.pieces.get(&offer.key).is_some() {
            return self.raise(now, &offer, expires);
        }
        if self.is_published(&offer.key) {
            return Admission::Have;
        }
        if self.incoming.contains(&offer.key) {
            return Admission::Refuse(Refusal::Busy);
        }
        let cost = self.pieces.cost(&offer.key, offer.length);
        let brought = Brought(*from.party.as_bytes());
        if let Some(refusal) = self.refuses(now, &from, holder_of(&brought, offer.claim.as_ref()), cost) {
            return Admission::Refuse(refusal);
        }
        if self.incoming.len() >= self.incoming_max && !self.incoming.make_room(from) {
            return Admission::Refuse(Refusal::Busy);
        }
        let Offer { key, content, length, input_offset, replicas, mode, claim, .. } = offer;
        let meta = PieceMeta { key, content, length, input_offset, replicas, mode, expires, claim, brought };
        Admission::Send { incoming: self.incoming.promise(meta, cost, from) }
    }

    /// The offer as it counts here, and when its piece would expire: a claim whose lifetime is over, or that is older than one that
    /// was heard of before, counts as none.
    fn as_heard(&self, now: Instant, offer: &Offer) -> (Offer, u64) {
        let age = self.age(now);
        let expires = age.saturating_add(u64::from(offer.lifetime));
        let limit = |claim: PieceClaim| self.heard.limit(&offer.key, &claim, expires, age);
        match offer.claim.map_or(Some(expires), limit) {
            Some(expires) => (*offer, expires),
            None => {
                let lifetime = offer.lifetime.min(UNCLAIMED_SECONDS_MAX);
                let unclaimed = Offer { claim: None, replicas: 1, lifetime, ..*offer };
                (unclaimed, age.saturating_add(u64::from(lifetime)))
            }
        }
    }

    /// An offer of a piece that is here: it is kept as its publisher claims. An offer without a new claim raises nothing.
    fn raise(&mut self, now: Instant, offer: &Offer, expires: u64) -> Admission {
        let Some(before) = self.pieces.get(&offer.key) else { return Admission::Have };
        if !offer.claim.is_some_and(|claim| self.pieces.claim(&offer.key, &claim)) {
            return Admission::Have;
        }
        let age = self.age(now);
        if let Some(claim) = before.claim {
            self.heard.note(&offer.key, &claim, before.expires);
        }
        let write = self.pieces.raise(&offer.key, offer.replicas, expires, age);
        let raised = self.pieces.get(&offer.key);
        self.changes.extend(raised.filter(|piece| piece.replicas > before.replicas).map(PieceChange::Kept));
        match raised.filter(|_| write == Some(true)) {
            Some(PieceMeta { replicas, expires, .. }) => Admission::Raise { replicas, expires },
            None => Admission::Have,
        }
    }

    /// Why there is no room for a piece of `cost` bytes that the node `from` offers, and that would count for `holder`.
    fn refuses(&mut self, now: Instant, from: &Holder, holder: Holder, cost: u64) -> Option<Refusal> {
        let (count, bytes, others) = self.incoming.load_of(from);
        // All promised pieces of a party may arrive, so they count; those of others must not keep it out. The cache does not count: it is
        // evicted when bytes arrive.
        let (promises, promised) = self.incoming.promised_to(from);
        let full = self.pieces.len() + self.incoming.len() >= self.pieces_max;
        if full || self.fits(cost + promised, 1 + promises).is_err() {
            self.refused_quota += u64::from(full);
            // Everything of its party that is promised or arriving may take room of another's.
            let yields = self.pieces.parties.yielding(now, &holder, bytes.saturating_add(cost));
            let yields = !self.is_over() && yields.is_some_and(|yields| yields.surplus >= cost);
            return (!yields).then_some(Refusal::NoSpace);
        }
        let free = self.free_for_pieces();
        let share = if others { free / ARRIVING_SHARE } else { free - free / ARRIVING_LEFT };
        // One piece at a time always fits.
        let crowds = count > 0 && bytes.saturating_add(cost) > share;
        self.refused_share += u64::from(crowds);
        crowds.then_some(Refusal::Busy)
    }

    /// Bytes for pieces that are neither stored nor taken by something else. Arriving pieces take of them.
    fn free_for_pieces(&self) -> u64 {
        let files = self.reserved() - self.incoming.reserved_bytes();
        let quota = self.room.quota.saturating_sub(self.pieces.bytes() + files);
        let disk = self.room.bytes_left().saturating_add(self.cached());
        quota.min(disk.saturating_sub(files + self.windows.bytes()))
    }

    /// Notes that the disk could not save a raise.
    pub fn not_raised(&mut self, key: &Key) {
        self.pieces.not_written(key);
    }

    /// Sets whether stored pieces give way to those of other parties when the store is full. They do on an open network, where one
    /// party could fill every store. Where all nodes have the network's secret, what was acknowledged stays.
    pub fn set_contested(&mut self, contested: bool) {
        self.pieces.parties.contested = contested;
    }

    /// Reserves the space of an admitted piece when its first bytes are here, and evicts cached files for it if needed. `false`
    /// when there is no room left, or the promise has ended: the caller then refuses the piece and calls [`discarded`](Store::discarded).
    pub fn arrives(&mut self, now: Instant, incoming: u64) -> bool {
        let Some((arrives, cost)) = self.incoming.cost_of(incoming) else { return false };
        let full = self.pieces.len() + self.incoming.arriving_count() >= self.pieces_max;
        let room = arrives
            || !full && self.make_room(cost).is_ok()
            || self.displace(now, incoming, cost) && self.make_room(cost).is_ok();
        if room {
            self.incoming.arrive(incoming);
        }
        room
    }

    /// Drops stored pieces of the party that brought most, to make room for an admitted piece. `false` when none gives way.
    fn displace(&mut self, now: Instant, incoming: u64, cost: u64) -> bool {
        let Some(meta) = self.incoming.get(incoming).filter(|_| !self.is_over()) else { return false };
        let newcomer = holder_of(&meta.brought, meta.claim.as_ref());
        let Some(victims) = self.pieces.give_way(now, &newcomer, (cost, self.lacking(cost))) else {
            return false;
        };
        for (key, _) in victims {
            self.remove_piece(&key);
            self.displaced += 1;
        }
        self.pieces.parties.displaces(now, &newcomer, cost);
        self.incoming.displaces(incoming);
        true
    }

    /// The bytes that are missing for `bytes` more, once the cache is evicted.
    fn lacking(&self, bytes: u64) -> u64 {
        let quota = (self.pieces.bytes() + self.reserved()).saturating_add(bytes);
        let taken = (self.reserved() + self.windows.bytes()).saturating_add(bytes);
        let left = self.room.bytes_left().saturating_add(self.cached());
        quota.saturating_sub(self.room.quota).max(taken.saturating_sub(left))
    }

    /// The metadata of an admitted piece.
    pub fn meta_of(&self, incoming: u64) -> Option<PieceMeta> {
        self.incoming.get(incoming)
    }

    /// Adds an admitted piece that is on disk now. `None` when there is no such admission.
    pub fn committed(&mut self, incoming: u64) -> Option<PieceMeta> {
        let displaced = self.incoming.has_displaced(incoming);
        let meta = self.incoming.end(incoming)?;
        if displaced {
            let cost = self.pieces.cost(&meta.key, meta.length);
            self.pieces.parties.settled(&holder_of(&meta.brought, meta.claim.as_ref()), cost);
        }
        self.room.take(self.pieces.cost(&meta.key, meta.length));
        self.pieces.insert(&meta);
        self.changes.push_back(PieceChange::Kept(meta));
        Some(meta)
    }

    /// Ends the admission of a piece that will not come, or that did not match its offer. Its reservation ends, and the bytes that
    /// have arrived are deleted.
    pub fn discarded(&mut self, incoming: u64) {
        if self.incoming.end(incoming).is_some() {
            self.ops.push_back(DiskOp::Remove(Place::Incoming(incoming)));
        }
    }

    /// Drops a stored piece that is unreadable or damaged. `false` when there is none.
    pub fn remove_piece(&mut self, key: &Key) -> bool {
        let removed = self.pieces.remove(key);
        let found = removed.is_some();
        if let Some(meta) = removed {
            if let Some(claim) = meta.claim {
                self.heard.note(key, &claim, meta.expires);
            }
            self.room.free(self.costs.piece(meta.length));
            self.ops.push_back(DiskOp::Remove(Place::Piece(*key)));
            self.changes.push_back(PieceChange::Dropped(*key));
        }
        found
    }

    /// Whether there is room for a claim at `place`, to be asked before its file is hashed. A place that has a claim needs no room.
    pub fn check_room(&self, place: &Place) -> Result<(), Full> {
        let evictable = self.files.oldest_cached().is_some();
        let full = self.files.claim_count() >= self.shares_max && !evictable;
        match full && self.files.claimed_at(place).is_none() {
            true => Err(Full::Shares(self.shares_max)),
            false => Ok(()),
        }
    }

    /// Adds or updates a claim. Its number of copies and lifetime hold for all claims on its address. A claim of the same place on
    /// another address ends and is returned; the disk has ended it already. A cached claim also ends a download of the same file
    /// into the cache. A file of several chunks needs its `manifest` once. Fails when there are too many claims, or when a cached
    /// file does not fit into the quota.
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
        // A file that the user has at a path needs no copy in the cache.
        if !cached && share.state == ShareState::Present {
            if let Some(Ended { share, last }) = self.files.end(&share.hash, &Place::Cache(share.hash)) {
                self.ops.push_back(DiskOp::RemoveShare { share, last });
            }
        }
        Ok(ended)
    }

    /// Ends a claim. The caller gives the disk the [`DiskOp::RemoveShare`], because it waits for the answer.
    pub fn end_claim(&mut self, hash: &Key, place: &Place) -> Option<Ended> {
        self.files.end(hash, place)
    }

    /// Updates the state and the stamp of a claimed file. `false` when there is no such claim.
    pub fn settle_claim(&mut self, hash: &Key, place: &Place, state: ShareState, stamp: FileStamp) -> bool {
        self.files.settle(hash, place, state, stamp)
    }

    /// The properties that all claims on an address have in common.
    pub fn shared(&self, hash: &Key) -> Option<Shared> {
        self.files.shared(hash).copied()
    }

    /// Changes the properties that all claims on an address have in common.
    pub fn set_shared(&mut self, shared: Shared) {
        self.files.set_shared(shared);
    }

    /// The claims on an address, in the order in which they were made.
    pub fn claims(&self, hash: &Key) -> &[Claim] {
        self.files.claims(hash)
    }

    /// The claim from which a shared file is served: the first whose file is present.
    pub fn source(&self, hash: &Key) -> Option<&Claim> {
        self.files.source(hash)
    }

    /// Whether the manifest of a shared file is on disk; always for a file of one chunk.
    pub fn has_manifest(&self, hash: &Key) -> bool {
        self.files.has_manifest(hash)
    }

    /// The address that a claim gives to the file at this place.
    pub fn claimed_at(&self, place: &Place) -> Option<Key> {
        self.files.claimed_at(place)
    }

    /// A claim in the form in which the disk saves it.
    pub fn record(&self, hash: &Key, place: &Place) -> Option<Share> {
        self.files.record(hash, place)
    }

    /// All claims on an address in the form in which the disk saves them.
    pub fn records(&self, hash: &Key) -> Vec<Share> {
        self.files.records(hash)
    }

    /// The shared files, each with its claims, in no particular order.
    pub fn files(&self) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.files.all()
    }

    /// The shared files in the order of their addresses, each with its claims, from this address on.
    pub fn files_from(&self, hash: &Key) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.files.from(hash)
    }

    /// Whether the file of a claim is not present.
    pub fn has_unsettled(&self) -> bool {
        self.files.has_unsettled()
    }

    /// The next claim from `position` on whose file is not present, and the position after it. The first position is `(0, 0)`. The
    /// time is linear in the claims in between.
    pub fn unsettled_from(&self, position: (u32, u32)) -> Option<(Share, (u32, u32))> {
        self.files.unsettled_from(position)
    }

    /// The share of the user that has this piece and is known to be on disk. A cached file is none: it may be evicted at any time.
    pub fn lasting_share(&self, key: &Key) -> Option<(&Shared, &Claim)> {
        self.files.share_with(key).filter(|(_, claim)| claim.synced && !claim.is_cached())
    }

    /// The index of a chunk in the file that it is served from; `None` also for a manifest.
    pub fn chunk_of(&self, key: &Key) -> Option<u32> {
        self.files.chunk_of(key)
    }

    /// Notes the use of a file, for the order of eviction. `key` is its hash or the key of one of its chunks.
    pub fn touch(&mut self, key: &Key) {
        self.files.touch(key);
    }

    /// Begins a download. Its chunks can be located when they are [done](Store::chunk_done). A download into the cache reserves
    /// its length. Fails when that does not fit into the quota, or when there are too many downloads.
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

    /// Notes that a chunk of a download is in its target and verified.
    pub fn chunk_done(&mut self, hash: &Key, chunk: u32) {
        self.files.chunk_done(hash, chunk);
    }

    /// Notes that a chunk of a download no longer matches its key, so that it is not located any more.
    pub fn chunk_lost(&mut self, key: &Key) {
        self.files.chunk_lost(key);
    }

    /// Ends a download, complete or not. The caller deals with its file.
    pub fn end_partial(&mut self, hash: &Key) {
        self.files.end_partial(hash);
    }

    /// The manifest of a running download.
    pub fn partial(&self, hash: &Key) -> Option<&Arc<Manifest>> {
        self.files.partial(hash).map(|(manifest, _)| manifest)
    }

    /// Reserves the window of a stream and returns its size: `bytes`, or as many as are free, but at least `least`, in files of
    /// `file_bytes`. It evicts cached files if needed, and does not count against the quota.
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

    /// Ends the reservation of a stream's window.
    pub fn close_window(&mut self, window: u64) {
        self.windows.close(window);
    }

    /// When [`handle_timeout`](Store::handle_timeout) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (expires, _) = self.pieces.next_expiry()?;
        Some(self.at_age(expires))
    }

    /// Drops expired pieces, a bounded number in each call. The deadline stays in the past while more are due.
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

    /// The next operation for the disk. No machine waits for its answer. It must reach the disk before any later operation: an
    /// expired piece may be offered again.
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        self.ops.pop_front()
    }

    /// The next change of a stored piece. The caller polls until empty after each input. Pieces recovered at the start cause no
    /// change: see [`pieces`](Store::pieces).
    pub fn poll_change(&mut self) -> Option<PieceChange> {
        self.changes.pop_front()
    }

    /// Updates the space of the file system. When it is below what is left to the host, one cached file is evicted.
    pub fn set_space(&mut self, space: Space) {
        self.room.set_space(space);
        if self.room.bytes_left() == 0 || self.room.files_left() == 0 {
            self.evict_one();
        }
    }

    /// Whether the stored pieces exceed the limits, because these were lowered. Then the store admits nothing.
    pub fn is_over(&self) -> bool {
        self.pieces.bytes() > self.room.quota || self.pieces.len() > self.pieces_max
    }

    /// Bytes that the cache takes on disk.
    fn cached(&self) -> u64 {
        self.costs.cached(self.files.cached_bytes(), self.files.cached_count())
    }

    /// Bytes reserved for arriving pieces and downloads into the cache.
    fn reserved(&self) -> u64 {
        let files = self.costs.cached(self.files.arriving_bytes(), self.files.arriving_count());
        self.incoming.reserved_bytes() + files
    }

    /// Bytes that are taken or reserved.
    fn used(&self) -> u64 {
        self.pieces.bytes() + self.cached() + self.reserved()
    }

    /// Whether this node is a holder of the piece through a share of its user, on disk and with copies asked for. A file that was
    /// only downloaded is no copy.
    fn is_published(&self, key: &Key) -> bool {
        self.files.share_with(key).is_some_and(|(shared, claim)| shared.replicas > 0 && claim.synced)
    }

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
        let files = (files + self.incoming.arriving_count()) as u64 + self.windows.files();
        if files > self.room.files_left().saturating_add(self.files.cached_count() as u64) {
            self.refused_free += 1;
            return Err(Full::Inodes);
        }
        Ok(())
    }

    /// Evicts cached files until `bytes` more fit, in one file. Evicts nothing when they cannot fit.
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

//! The index of files: shares, and downloads whose first chunks have arrived.
//!
//! A shared file takes about 200 bytes of memory and its path, and 16 bytes for each chunk if it has several. Its manifest stays
//! on disk.

mod claims;
mod slots;

use crate::id::Key;
use crate::io::{Extent, FileStamp, Place, Share, ShareState};
use crate::manifest::{Content, Layout, Manifest};
use claims::Claims;
use core::ops::Bound;
use slots::{Held, Partial, Slots, Whole};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use claims::{Claim, Ended, Shared};

/// Stands for a file's manifest in place of a chunk's index.
const MANIFEST: u32 = u32::MAX;

/// An eight-byte search key: the first bytes of an address, or the fingerprint of a path.
type Short = [u8; 8];

fn short(hash: &Key) -> Short {
    core::array::from_fn(|index| hash.0[index])
}

/// Shares and downloads, found by file hash, by chunk and by path.
pub(super) struct Files {
    slots: Slots,
    /// The slots of shared files, by the first bytes of their addresses.
    addresses: BTreeSet<(Short, u32)>,
    partials: BTreeMap<Key, u32>,
    seed: u64,
    /// The slots of claims, by a fingerprint of their paths.
    paths: BTreeSet<(Short, u32)>,
    /// The slots of files in the cache, the longest unused first.
    cached: BTreeMap<u64, u32>,
    files: usize,
    bytes: u64,
    claims: usize,
    /// The number of claims whose files are not present.
    unsettled: usize,
    uses: u64,
    cached_bytes: u64,
    arriving_bytes: u64,
}

/// Whether a place is in the node's cache and counts against the quota.
pub(super) fn is_cached(place: &Place) -> bool {
    matches!(place, Place::Cache(_))
}

fn cached_length(place: &Place, manifest: &Manifest) -> u64 {
    if is_cached(place) { manifest.length() } else { 0 }
}

impl Files {
    pub(super) fn new(seed: u64) -> Self {
        Files {
            slots: Slots::new(seed),
            addresses: BTreeSet::new(),
            partials: BTreeMap::new(),
            seed,
            paths: BTreeSet::new(),
            cached: BTreeMap::new(),
            files: 0,
            bytes: 0,
            claims: 0,
            unsettled: 0,
            uses: 0,
            cached_bytes: 0,
            arriving_bytes: 0,
        }
    }

    /// Bytes of shares in the cache.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Bytes of the files that are being downloaded into the cache, at their full lengths.
    pub(super) fn arriving_bytes(&self) -> u64 {
        self.arriving_bytes
    }

    /// The number of files in the cache.
    pub(super) fn cached_count(&self) -> usize {
        self.cached.len()
    }

    /// The number of downloads into the cache.
    pub(super) fn arriving_count(&self) -> usize {
        let partials = self.partials.keys().filter_map(|hash| self.partial(hash));
        partials.filter(|(_, place)| is_cached(place)).count()
    }

    /// The number of shared files.
    pub(super) fn file_count(&self) -> usize {
        self.files
    }

    /// Bytes of all shared files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of claims.
    pub(super) fn claim_count(&self) -> usize {
        self.claims
    }

    pub(super) fn partial_count(&self) -> usize {
        self.partials.len()
    }

    pub(super) fn shared(&self, hash: &Key) -> Option<&Shared> {
        self.slots.whole(self.slot_of(hash)?).map(|whole| &whole.shared)
    }

    pub(super) fn claims(&self, hash: &Key) -> &[Claim] {
        self.slot_of(hash).and_then(|slot| self.slots.whole(slot)).map_or(&[], Whole::claims)
    }

    /// The claim from which a file is served.
    pub(super) fn source(&self, hash: &Key) -> Option<&Claim> {
        self.slots.whole(self.slot_of(hash)?)?.source()
    }

    /// Whether the manifest of a shared file is on disk; always for a file of one chunk.
    pub(super) fn has_manifest(&self, hash: &Key) -> bool {
        self.slot_of(hash).and_then(|slot| self.slots.whole(slot)).is_some_and(|whole| whole.indexed)
    }

    /// The shared files, each with its claims.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Shared, &[Claim])> {
        self.slots.shares().map(|whole| (&whole.shared, whole.claims()))
    }

    /// The shared files in the order of their addresses, from this address on.
    pub(super) fn from(&self, hash: &Key) -> impl Iterator<Item = (&Shared, &[Claim])> {
        let first = short(hash);
        let mut same = Vec::new();
        let mut ahead = self.addresses.range((first, 0)..).peekable();
        // Files whose addresses share the first bytes are in the order of their slots.
        while let Some((_, slot)) = ahead.next_if(|(short, _)| *short == first) {
            same.extend(self.slots.whole(*slot).filter(|whole| whole.shared.hash >= *hash));
        }
        same.sort_by_key(|whole| whole.shared.hash);
        let after = (Bound::Excluded((first, u32::MAX)), Bound::Unbounded);
        let rest = self.addresses.range(after).filter_map(|(_, slot)| self.slots.whole(*slot));
        same.into_iter().chain(rest).map(|whole| (&whole.shared, whole.claims()))
    }

    /// Whether the file of a claim is not present.
    pub(super) fn has_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// The next claim whose file is not present, and the position after it. A position is a slot and the number of its claims that
    /// are skipped.
    pub(super) fn unsettled_from(&self, from: (u32, u32)) -> Option<(Share, (u32, u32))> {
        if self.unsettled == 0 {
            return None;
        }
        let (first, mut skip) = from;
        for slot in first..self.slots.len() {
            let Some(whole) = self.slots.whole(slot) else { continue };
            for (number, claim) in (0..).zip(whole.claims()).skip(skip as usize) {
                if claim.state != ShareState::Present {
                    return Some((whole.record(claim), (slot, number + 1)));
                }
            }
            skip = 0;
        }
        None
    }

    /// A claim in the form in which the disk saves it.
    pub(super) fn record(&self, hash: &Key, place: &Place) -> Option<Share> {
        let whole = self.slots.whole(self.slot_of(hash)?)?;
        whole.claims().iter().find(|claim| claim.is_at(place)).map(|claim| whole.record(claim))
    }

    /// All claims on an address in the form in which the disk saves them.
    pub(super) fn records(&self, hash: &Key) -> Vec<Share> {
        let whole = self.slot_of(hash).and_then(|slot| self.slots.whole(slot));
        whole.map_or_else(Vec::new, |whole| whole.claims().iter().map(|claim| whole.record(claim)).collect())
    }

    /// The address that a claim gives to the file at this place.
    pub(super) fn claimed_at(&self, place: &Place) -> Option<Key> {
        let path = match place {
            Place::File(path) => path,
            Place::Cache(hash) => {
                let whole = self.slots.whole(self.slot_of(hash)?)?;
                return whole.cached().map(|_| *hash);
            }
            _ => return None,
        };
        let fingerprint = self.path_fingerprint(path);
        let mut slots = self.paths.range((fingerprint, 0)..=(fingerprint, u32::MAX));
        slots.find_map(|(_, slot)| {
            let whole = self.slots.whole(*slot)?;
            whole.claims().iter().any(|claim| claim.is_at(place)).then_some(whole.shared.hash)
        })
    }

    /// Adds or updates a claim. Its number of copies and lifetime hold for all claims on its address. A claim of the same place on
    /// another address ends and is returned. A file of several chunks is not served before its `manifest` was given once.
    pub(super) fn claim(&mut self, share: &Share, manifest: Option<&Manifest>) -> Option<Ended> {
        let layout = Layout::of(share.length)?;
        let before = self.claimed_at(&share.place).filter(|hash| *hash != share.hash);
        let ended = before.and_then(|hash| self.end(&hash, &share.place));
        let Share { hash, replicas, lifetime, replicated, .. } = *share;
        let shared = Shared { hash, layout, replicas, lifetime, replicated };
        self.uses += 1;
        let used = self.uses;
        let slot = match self.slot_of(&hash) {
            Some(slot) => slot,
            None => {
                let claims = Claims::default();
                let slot = self.slots.occupy(Held::Whole(Whole { shared, claims, indexed: false, used }));
                self.addresses.insert((short(&hash), slot));
                self.files += 1;
                self.bytes += share.length;
                slot
            }
        };
        let fingerprint = match &share.place {
            Place::File(path) => Some(self.path_fingerprint(path)),
            _ => None,
        };
        let whole = self.slots.whole_mut(slot)?;
        whole.shared = shared;
        let before = whole.used;
        whole.used = used;
        let indexes = !whole.indexed && (layout.is_single() || manifest.is_some());
        whole.indexed |= indexes;
        let claim = Claim::of(share);
        let old = whole.claims.iter_mut().find(|claim| claim.is_at(&share.place));
        let (new, settled) = match old {
            Some(known) => (false, core::mem::replace(known, claim).state == ShareState::Present),
            None => {
                whole.claims.push(claim);
                (true, true)
            }
        };
        let cached = whole.cached().is_some();
        if let Some(manifest) = manifest.filter(|_| indexes && !layout.is_single()) {
            self.slots.index(slot, manifest);
        }
        self.count_unsettled(settled, share.state);
        if new {
            self.claims += 1;
            self.paths.extend(fingerprint.map(|fingerprint| (fingerprint, slot)));
            self.cached_bytes += if is_cached(&share.place) { layout.length() } else { 0 };
        }
        if cached {
            self.cached.remove(&before);
            self.cached.insert(used, slot);
        }
        ended
    }

    /// Ends the claim of a place on an address.
    pub(super) fn end(&mut self, hash: &Key, place: &Place) -> Option<Ended> {
        let slot = self.slot_of(hash)?;
        let fingerprint = match place {
            Place::File(path) => Some(self.path_fingerprint(path)),
            _ => None,
        };
        let whole = self.slots.whole_mut(slot)?;
        let at = whole.claims().iter().position(|claim| claim.is_at(place))?;
        let share = whole.record(&whole.claims()[at]);
        whole.claims.remove(at);
        let (last, used, length) = (whole.claims().is_empty(), whole.used, whole.shared.layout.length());
        self.claims -= 1;
        self.count_unsettled(share.state == ShareState::Present, ShareState::Present);
        if let Some(fingerprint) = fingerprint {
            self.paths.remove(&(fingerprint, slot));
        } else {
            self.cached.remove(&used);
            self.cached_bytes -= length;
        }
        if last {
            self.files -= 1;
            self.bytes -= length;
            self.addresses.remove(&(short(hash), slot));
            self.slots.vacate(slot);
        }
        Some(Ended { share, last })
    }

    /// Updates the state and the stamp of a claimed file. `false` when there is no such claim.
    pub(super) fn settle(&mut self, hash: &Key, place: &Place, state: ShareState, stamp: FileStamp) -> bool {
        let whole = self.slot_of(hash).and_then(|slot| self.slots.whole_mut(slot));
        let claim = whole.and_then(|whole| whole.claims.iter_mut().find(|claim| claim.is_at(place)));
        let Some(claim) = claim else { return false };
        let settled = claim.state == ShareState::Present;
        (claim.state, claim.stamp) = (state, stamp);
        self.count_unsettled(settled, state);
        true
    }

    fn count_unsettled(&mut self, was_settled: bool, state: ShareState) {
        self.unsettled -= usize::from(!was_settled);
        self.unsettled += usize::from(state != ShareState::Present);
    }

    /// Changes the properties that all claims on an address have in common.
    pub(super) fn set_shared(&mut self, shared: Shared) {
        if let Some(whole) = self.slot_of(&shared.hash).and_then(|slot| self.slots.whole_mut(slot)) {
            whole.shared = shared;
        }
    }

    /// The longest unused file in the cache.
    pub(super) fn oldest_cached(&self) -> Option<Key> {
        let slot = self.cached.first_key_value().map(|(_, slot)| *slot)?;
        self.slots.whole(slot).map(|whole| whole.shared.hash)
    }

    /// Notes the use of the file with this hash or chunk.
    pub(super) fn touch(&mut self, key: &Key) {
        self.uses += 1;
        let used = self.uses;
        let slot = self.slot_with(key);
        let Some((slot, whole)) = slot.and_then(|slot| Some((slot, self.slots.whole_mut(slot)?))) else {
            return;
        };
        let before = core::mem::replace(&mut whole.used, used);
        if whole.cached().is_some() {
            self.cached.remove(&before);
            self.cached.insert(used, slot);
        }
    }

    /// The shared file with this hash or chunk, and the claim from which it is served.
    pub(super) fn share_with(&self, key: &Key) -> Option<(&Shared, &Claim)> {
        let whole = self.slots.whole(self.slot_with(key)?)?;
        Some((&whole.shared, whole.source()?))
    }

    pub(super) fn begin_partial(&mut self, hash: Key, manifest: Arc<Manifest>, place: Place) {
        self.end_partial(&hash);
        self.arriving_bytes += cached_length(&place, &manifest);
        let partial = Partial::new(Arc::clone(&manifest), place);
        let slot = self.slots.occupy(Held::Partial(Box::new(partial)));
        self.slots.index(slot, &manifest);
        self.partials.insert(hash, slot);
    }

    pub(super) fn chunk_done(&mut self, hash: &Key, chunk: u32) {
        if let Some(partial) = self.partials.get(hash).and_then(|slot| self.slots.partial_mut(*slot)) {
            partial.done(chunk);
        }
    }

    /// Notes that a chunk in the targets of downloads no longer matches its key.
    pub(super) fn chunk_lost(&mut self, key: &Key) {
        self.slots.chunk_lost(key);
    }

    pub(super) fn end_partial(&mut self, hash: &Key) {
        let Some(slot) = self.partials.remove(hash) else {
            return;
        };
        if let Some(Held::Partial(partial)) = self.slots.vacate(slot) {
            self.arriving_bytes -= cached_length(&partial.place, &partial.manifest);
        }
    }

    /// The manifest and the target of a download.
    pub(super) fn partial(&self, hash: &Key) -> Option<(&Arc<Manifest>, &Place)> {
        let partial = self.slots.partial(*self.partials.get(hash)?)?;
        Some((&partial.manifest, &partial.place))
    }

    /// Locates a share's manifest, or a chunk (or a file of one chunk). Shares come before downloads.
    pub(super) fn locate(&self, key: &Key) -> Option<(Content, Extent)> {
        let (slot, chunk) = self.find(key)?;
        if chunk == MANIFEST {
            let length = self.slots.whole(slot)?.shared.layout.manifest_bytes();
            let place = Place::ShareManifest(*key);
            return Some((Content::Manifest, Extent { place, offset: 0, length, stamp: None }));
        }
        let (layout, place, stamp) = match self.slots.get(slot)? {
            Held::Whole(whole) => {
                let claim = whole.source()?;
                (whole.shared.layout, claim.place(&whole.shared.hash), Some(claim.stamp))
            }
            Held::Partial(partial) => (partial.manifest.layout(), partial.place.clone(), None),
        };
        let (offset, length) = (layout.chunk_offset(chunk), layout.chunk_length(chunk));
        Some((layout.content(), Extent { place, offset, length, stamp }))
    }

    /// The index of a chunk in the file that it is served from.
    pub(super) fn chunk_of(&self, key: &Key) -> Option<u32> {
        self.find(key).map(|(_, chunk)| chunk).filter(|chunk| *chunk != MANIFEST)
    }

    /// Finds a piece: its file's slot, and [`MANIFEST`] or the chunk's index. Shares come before downloads.
    fn find(&self, key: &Key) -> Option<(u32, u32)> {
        if let Some((slot, whole)) = self.slot_of(key).and_then(|slot| Some((slot, self.slots.whole(slot)?)))
        {
            if whole.source().is_some() {
                return Some((slot, if whole.shared.layout.is_single() { 0 } else { MANIFEST }));
            }
        }
        self.slots.with_chunk(key)
    }

    /// The slot of a shared file, whether or not it can be served now.
    fn slot_of(&self, hash: &Key) -> Option<u32> {
        let first = short(hash);
        let mut same = self.addresses.range((first, 0)..=(first, u32::MAX)).map(|(_, slot)| *slot);
        same.find(|slot| self.slots.whole(*slot).is_some_and(|whole| whole.shared.hash == *hash))
    }

    fn slot_with(&self, key: &Key) -> Option<u32> {
        self.slot_of(key).or_else(|| self.find(key).map(|(slot, _)| slot))
    }

    fn path_fingerprint(&self, path: &Path) -> Short {
        xxh3_64_with_seed(path.as_os_str().as_encoded_bytes(), self.seed).to_be_bytes()
    }
}

//! A simulated disk, at the level of what the core asks for: what is durable, what is not, and how long things take.
//!
//! Operations are carried out one after the other, each at the moment at which it ends, so a crash finds those that had not
//! ended undone. What real files do between two system calls is tested where real files are: see `power-loss`.

use super::blob::{Blob, Slice, joined};
use super::chance::Chance;
use crate::id::Key;
use crate::io::{
    Ages, DiskDone, DiskError, DiskErrorKind, DiskId, DiskOp, DiskReply, Extent, FileAt, FileStamp, Mode,
    Permissions, PieceAt, PieceMeta, Place, Recovered, Share, ShareState, Sink, Soundness, Space,
};
use crate::manifest::Manifest;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// How a disk behaves.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// How long a sync takes.
    pub sync: Duration,
    /// Bytes read or written in a second.
    pub bytes_per_second: u64,
    /// How often a sync fails with an input/output error.
    pub sync_fails: f64,
    /// Bytes that fit on it; more meet "no space".
    pub capacity: u64,
}

impl Default for DiskPlan {
    fn default() -> Self {
        DiskPlan {
            sync: Duration::from_millis(8),
            bytes_per_second: 100 << 20,
            sync_fails: 0.0,
            capacity: u64::MAX,
        }
    }
}

/// How a run ends that was not told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed: what it wrote is there.
    Kill,
    /// The machine loses power: what was not synced is lost, in whole or in part.
    Power,
}

/// A stored piece that came or went. The world keeps count of copies by these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is durable here.
    Stored(PieceMeta),
    /// It is not here any more.
    Gone(Key),
}

#[derive(Clone, Debug)]
struct File {
    parts: BTreeMap<u64, Slice>,
    length: u64,
    synced: bool,
    stamp: FileStamp,
}

/// The disk of one host.
pub struct Disk {
    plan: DiskPlan,
    user: BTreeMap<PathBuf, File>,
    partial: BTreeMap<PathBuf, File>,
    cache: BTreeMap<Key, File>,
    incoming: BTreeMap<u64, File>,
    windows: BTreeMap<(u64, u32), File>,
    pieces: BTreeMap<Key, (PieceMeta, Slice)>,
    /// Claims, by where their files lie, in the order in which they were made.
    shares: Vec<Share>,
    manifests: BTreeMap<Key, Arc<Manifest>>,
    peers: Vec<u8>,
    records: Vec<u8>,
    scrub: Vec<u8>,
    ages: Ages,
    under_way: VecDeque<(DiskId, DiskOp)>,
    busy_until: Instant,
    inodes: u64,
    used: u64,
    powered_off: bool,
    changes: Vec<Change>,
    syncs: u64,
    written: u64,
}

fn error(kind: DiskErrorKind, what: &str) -> DiskError {
    DiskError { kind, message: format!("the simulated disk: {what}") }
}

fn missing() -> DiskError {
    error(DiskErrorKind::NotFound, "there is no such file")
}

impl Disk {
    /// An empty disk.
    pub fn new(plan: DiskPlan) -> Disk {
        Disk {
            plan,
            user: BTreeMap::new(),
            partial: BTreeMap::new(),
            cache: BTreeMap::new(),
            incoming: BTreeMap::new(),
            windows: BTreeMap::new(),
            pieces: BTreeMap::new(),
            shares: Vec::new(),
            manifests: BTreeMap::new(),
            peers: Vec::new(),
            records: Vec::new(),
            scrub: Vec::new(),
            ages: Ages::default(),
            under_way: VecDeque::new(),
            busy_until: Instant::ZERO,
            inodes: 0,
            used: 0,
            powered_off: false,
            changes: Vec::new(),
            syncs: 0,
            written: 0,
        }
    }

    /// How it behaves from now on.
    pub fn plan_mut(&mut self) -> &mut DiskPlan {
        &mut self.plan
    }

    /// The user writes a file.
    pub fn write_file(&mut self, path: &Path, content: Rc<Blob>) {
        let slice = Slice::whole(content);
        let file = self.fresh(slice.len() as u64);
        self.user.insert(path.to_owned(), file);
        let file = self.user.get_mut(path).expect("it was just written");
        file.parts.insert(0, slice);
    }

    /// Some bits of a user's file turn, and nothing that the system tells of the file shows it.
    pub fn rot_file(&mut self, path: &Path) {
        for part in self.user.get_mut(path).into_iter().flat_map(|file| file.parts.values_mut()) {
            *part = part.damaged();
        }
    }

    /// A bit of a stored piece turns. False when it is not stored here.
    pub fn rot_piece(&mut self, key: &Key) -> bool {
        let Some((_, slice)) = self.pieces.get_mut(key) else { return false };
        *slice = slice.damaged();
        true
    }

    /// What a user finds in a file.
    pub fn file(&self, path: &Path) -> Option<Slice> {
        let file = self.user.get(path)?;
        read(file, 0, file.length as usize).ok().map(joined)
    }

    /// The whole of a file in the node's cache.
    pub fn cached(&self, hash: &Key) -> Option<Slice> {
        let file = self.cache.get(hash)?;
        read(file, 0, file.length as usize).ok().map(joined)
    }

    /// Whether a piece is stored here, or a shared file holds it.
    pub fn holds(&self, key: &Key) -> bool {
        self.pieces.contains_key(key)
            || self.shares.iter().any(|share| share.hash == *key || self.has_chunk(&share.hash, key))
    }

    fn has_chunk(&self, hash: &Key, chunk: &Key) -> bool {
        self.manifests.get(hash).is_some_and(|manifest| manifest.keys().contains(chunk))
    }

    /// The stored pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &PieceMeta> {
        self.pieces.values().map(|(meta, _)| meta)
    }

    /// Whether no operation is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How many stored pieces there are, and how many of them are not what their keys say.
    pub fn verify_pieces(&self) -> (u64, u64) {
        let wrong = |(meta, slice): &&(PieceMeta, Slice)| match meta.content.hash_as(meta.input_offset) {
            Some(hash_as) => slice.key(hash_as) != meta.key,
            None => Manifest::decode(slice.bytes(), &meta.key).is_err(),
        };
        (self.pieces.len() as u64, self.pieces.values().filter(wrong).count() as u64)
    }

    /// The contacts that the next run starts from, as the node encoded them.
    pub fn set_peers(&mut self, peers: Vec<u8>) {
        self.peers = peers;
    }

    /// Syncs so far, and bytes written.
    pub fn activity(&self) -> (u64, u64) {
        (self.syncs, self.written)
    }

    /// What came and went since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.changes)
    }

    /// Loses a stored piece, without telling anybody.
    pub(super) fn forget_pieces(&mut self) {
        let gone: Vec<Key> = self.pieces.keys().copied().collect();
        self.changes.extend(gone.into_iter().map(Change::Gone));
        self.pieces.clear();
    }

    /// How many chunks are in windows.
    pub fn in_windows(&self) -> usize {
        self.windows.len()
    }

    // Operations.

    /// Begins an operation; says when it will have ended.
    pub(super) fn submit(&mut self, now: Instant, id: DiskId, op: DiskOp) -> Instant {
        let (bytes, syncs) = self.cost(&op);
        let moving = Duration::from_secs_f64(bytes as f64 / self.plan.bytes_per_second as f64);
        let took = Duration::from_micros(50) + moving + self.plan.sync * syncs;
        self.busy_until = self.busy_until.max(now) + took;
        self.under_way.push_back((id, op));
        self.busy_until
    }

    fn cost(&self, op: &DiskOp) -> (u64, u32) {
        match op {
            DiskOp::Hash { place, .. } => (self.get(place).map_or(0, |file| file.length), 1),
            DiskOp::Check { manifest, .. } => (manifest.length(), 0),
            DiskOp::Copy { from, .. } => (u64::from(from.length) * 2, 0),
            DiskOp::Read(extent) => (u64::from(extent.length), 0),
            DiskOp::VerifyFile(file) => (file.length, 0),
            DiskOp::Raise { .. } => (64, 1),
            DiskOp::Verify { piece, .. } => (u64::from(piece.extent.length), 0),
            DiskOp::WriteTarget { bytes, .. } => (bytes.len() as u64, 0),
            DiskOp::WritePiece { bytes, .. } => (bytes.len() as u64, 2),
            DiskOp::Commit { meta, .. } => (u64::from(meta.length), 2),
            DiskOp::SaveShare { .. } | DiskOp::SaveRecords(_) | DiskOp::RemoveShare { .. } => (4096, 1),
            _ => (0, 0),
        }
    }

    /// Ends the operation that began first.
    pub(super) fn complete(&mut self, chance: &mut Chance) -> Option<DiskDone> {
        let (id, op) = self.under_way.pop_front()?;
        let (_, syncs) = self.cost(&op);
        self.syncs += u64::from(syncs);
        let fails = syncs > 0 && chance.happens(self.plan.sync_fails);
        let result = match fails {
            true => {
                if let DiskOp::Commit { incoming, .. } = op {
                    // What a failed sync covered is trusted by nobody.
                    self.incoming.remove(&incoming);
                }
                Err(error(DiskErrorKind::Failed, "input/output error on sync"))
            }
            false => self.carry_out(op),
        };
        Some(DiskDone { id, result })
    }

    fn carry_out(&mut self, op: DiskOp) -> Result<DiskReply, DiskError> {
        match op {
            DiskOp::Hash { place, .. } => return self.hash(&place),
            DiskOp::SaveShare { share, manifest } => {
                self.manifests.extend(manifest.map(|manifest| (share.hash, manifest)));
                match self.shares.iter_mut().find(|known| known.place == share.place) {
                    Some(known) => *known = share,
                    None => self.shares.push(share),
                }
            }
            DiskOp::RemoveShare { share, last } => {
                self.shares.retain(|known| known.place != share.place || known.hash != share.hash);
                if last {
                    self.manifests.remove(&share.hash);
                }
                if let Place::Cache(_) = share.place {
                    self.delete(&share.place)?;
                }
            }
            DiskOp::Read(extent) => {
                return Ok(DiskReply::Bytes(joined(self.read(&extent)?).bytes().to_vec()));
            }
            DiskOp::Raise { key, replicas, expires } => {
                let (meta, _) = self.pieces.get_mut(&key).ok_or_else(missing)?;
                meta.replicas = meta.replicas.max(replicas);
                meta.expires = meta.expires.max(expires);
            }
            DiskOp::VerifyFile(file) => {
                return self.verify_file(&file).map(|soundness| DiskReply::Verified { soundness });
            }
            DiskOp::Verify { piece, .. } => {
                return self.verify(&piece).map(|soundness| DiskReply::Verified { soundness });
            }
            DiskOp::OpenTarget { place, manifest, force, permissions } => {
                return self.open_target(&place, &manifest, force, permissions);
            }
            DiskOp::Check { place, manifest } => return self.check(&place, &manifest),
            DiskOp::WriteTarget { place, offset, bytes } => {
                self.make(&place, bytes.len() as u64);
                self.write(&place, offset, Slice::whole(Blob::new(bytes)))?;
            }
            DiskOp::Copy { from, to } => {
                let slice = joined(self.read(&from)?);
                let key = slice.key(to.hash_as);
                self.make(&to.place, u64::from(to.length));
                self.write(&to.place, to.offset, slice)?;
                return Ok(DiskReply::Copied { key });
            }
            DiskOp::FinishTarget { place } => return self.finish(&place),
            DiskOp::CloseTarget { place, delete } => {
                if delete {
                    self.delete(&place)?;
                }
            }
            DiskOp::Commit { incoming, meta } => {
                let file = self.incoming.remove(&incoming).ok_or_else(missing)?;
                self.used -= held(&file);
                let slice = joined(read(&file, 0, meta.length as usize)?);
                self.store(meta, slice)?;
            }
            DiskOp::WritePiece { meta, bytes } => self.store(meta, Slice::whole(Blob::new(bytes)))?,
            DiskOp::Remove(place) => self.delete(&place)?,
            DiskOp::SavePeers(peers) => self.peers = peers,
            DiskOp::SaveRecords(records) => self.records = records,
            DiskOp::SaveScrub(scrub) => self.scrub = scrub,
            DiskOp::SaveAges(ages) => self.ages = Ages { clean: false, ..ages },
        }
        Ok(DiskReply::Done)
    }

    fn verify(&self, piece: &PieceAt) -> Result<Soundness, DiskError> {
        let slice = match self.read(&piece.extent) {
            Ok(parts) => joined(parts),
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Soundness::Missing),
            Err(error) => return Err(error),
        };
        let good = match piece.content.hash_as(piece.input_offset) {
            Some(hash_as) => slice.key(hash_as) == piece.key,
            None => Manifest::decode(slice.bytes(), &piece.key).is_ok(),
        };
        Ok(if good { Soundness::Sound } else { Soundness::Rotten })
    }

    fn verify_file(&self, at: &FileAt) -> Result<Soundness, DiskError> {
        let file = self.get(&at.place).ok_or_else(missing)?;
        if file.stamp != at.stamp {
            return Err(error(DiskErrorKind::Changed, "the file is not what it was"));
        }
        let slice = joined(read(file, 0, file.length as usize)?);
        let good = slice.manifest().hash() == at.hash;
        Ok(if good { Soundness::Sound } else { Soundness::Rotten })
    }

    fn hash(&mut self, place: &Place) -> Result<DiskReply, DiskError> {
        let file = self.get_mut(place).ok_or_else(missing)?;
        file.synced = true;
        let (stamp, parts) = (file.stamp, read(file, 0, file.length as usize)?);
        let slice = joined(parts);
        Ok(DiskReply::Hashed { manifest: slice.manifest(), stamp, kept_open: false })
    }

    fn check(&self, place: &Place, manifest: &Manifest) -> Result<DiskReply, DiskError> {
        let file = self.get(place).ok_or_else(missing)?;
        Ok(DiskReply::Checked { good: good_chunks(file, manifest) })
    }

    fn open_target(
        &mut self,
        place: &Place,
        manifest: &Manifest,
        force: bool,
        permissions: Permissions,
    ) -> Result<DiskReply, DiskError> {
        let length = manifest.length();
        let mode = match permissions {
            Permissions::Usual(elsewhere) => Mode::of(elsewhere.applied_to(0o644)),
            Permissions::Exact(mode) => mode,
        };
        let (mut old, mut path) = (Vec::new(), PathBuf::new());
        if let Place::Partial(target) = place {
            path = target.to_path_buf();
            if let Some(file) = self.user.get(&path) {
                old = good_chunks(file, manifest);
                if file.length == length && old.iter().all(|good| *good) {
                    return Ok(DiskReply::Finished { stamp: file.stamp, path });
                }
                if !force {
                    return Err(error(DiskErrorKind::Exists, "another file has the name"));
                }
            }
        }
        if let Some(file) = self.get_mut(place) {
            file.stamp.mode = mode;
            let good = good_chunks(file, manifest);
            return Ok(DiskReply::Opened { path, good, old });
        }
        if self.used.saturating_add(length) > self.plan.capacity {
            return Err(error(DiskErrorKind::NoSpace, "no space left"));
        }
        let mut file = self.fresh(length);
        file.stamp.mode = mode;
        match place {
            Place::Partial(path) => drop(self.partial.insert(path.to_path_buf(), file)),
            Place::Cache(hash) => drop(self.cache.insert(*hash, file)),
            _ => return Err(error(DiskErrorKind::Unsuitable, "nothing that is downloaded into")),
        }
        Ok(DiskReply::Opened { path, good: Vec::new(), old })
    }

    fn finish(&mut self, place: &Place) -> Result<DiskReply, DiskError> {
        let stamp = self.get(place).ok_or_else(missing)?.stamp;
        match place {
            Place::Partial(path) => {
                let file = self.partial.remove(&**path).ok_or_else(missing)?;
                let path = path.to_path_buf();
                self.user.insert(path.clone(), file);
                Ok(DiskReply::Finished { stamp, path })
            }
            _ => Ok(DiskReply::Finished { stamp, path: PathBuf::new() }),
        }
    }

    fn store(&mut self, meta: PieceMeta, slice: Slice) -> Result<(), DiskError> {
        if self.used.saturating_add(slice.len() as u64) > self.plan.capacity {
            return Err(error(DiskErrorKind::NoSpace, "no space left"));
        }
        self.used += slice.len() as u64;
        self.written += slice.len() as u64;
        if let Some((_, old)) = self.pieces.insert(meta.key, (meta, slice)) {
            self.used -= old.len() as u64;
        }
        self.changes.push(Change::Stored(meta));
        Ok(())
    }

    fn delete(&mut self, place: &Place) -> Result<(), DiskError> {
        let file = match place {
            Place::Piece(key) => {
                if let Some((_, slice)) = self.pieces.remove(key) {
                    self.used -= slice.len() as u64;
                    self.changes.push(Change::Gone(*key));
                }
                None
            }
            Place::Incoming(number) => self.incoming.remove(number),
            Place::Window { window, chunk } => self.windows.remove(&(*window, *chunk)),
            Place::Partial(path) => self.partial.remove(&**path),
            Place::Cache(hash) => self.cache.remove(hash),
            Place::ShareManifest(hash) => {
                self.manifests.remove(hash);
                None
            }
            Place::File(_) => {
                return Err(error(DiskErrorKind::Unsuitable, "not a node's to delete"));
            }
        };
        self.used -= file.as_ref().map_or(0, held);
        Ok(())
    }

    // Content on its way from and to streams.

    /// The bytes of an extent, by reference.
    pub(super) fn read(&self, extent: &Extent) -> Result<Vec<Slice>, DiskError> {
        let (offset, length) = (extent.offset, extent.length as usize);
        match &extent.place {
            Place::Piece(key) => {
                let (_, slice) = self.pieces.get(key).ok_or_else(missing)?;
                match offset as usize + length <= slice.len() {
                    true => Ok(vec![slice.part(offset as usize, length)]),
                    false => Err(error(DiskErrorKind::Changed, "the piece is shorter")),
                }
            }
            Place::ShareManifest(hash) => {
                let manifest = self.manifests.get(hash).ok_or_else(missing)?;
                let encoded = Slice::whole(Blob::new(manifest.encode()));
                match offset as usize + length <= encoded.len() {
                    true => Ok(vec![encoded.part(offset as usize, length)]),
                    false => Err(error(DiskErrorKind::Changed, "the manifest is shorter")),
                }
            }
            place => {
                let file = self.get(place).ok_or_else(missing)?;
                if extent.stamp.is_some_and(|stamp| stamp != file.stamp) {
                    return Err(error(DiskErrorKind::Changed, "the file is not what it was"));
                }
                read(file, offset, length)
            }
        }
    }

    /// Whether a sink can be opened.
    pub(super) fn open_sink(&mut self, sink: &Sink) -> Result<(), DiskError> {
        self.make(&sink.place, u64::from(sink.length));
        self.get(&sink.place).map(drop).ok_or_else(missing)
    }

    /// Makes the file that a piece arrives in, when it is not there.
    fn make(&mut self, place: &Place, length: u64) {
        if self.get(place).is_some() {
            return;
        }
        let file = self.fresh(length);
        match place {
            Place::Incoming(number) => drop(self.incoming.insert(*number, file)),
            Place::Window { window, chunk } => drop(self.windows.insert((*window, *chunk), file)),
            _ => {}
        }
    }

    /// Writes into a file that is arriving or being downloaded. Nothing is synced.
    pub(super) fn write(&mut self, place: &Place, offset: u64, slice: Slice) -> Result<(), DiskError> {
        if self.used.saturating_add(slice.len() as u64) > self.plan.capacity {
            return Err(error(DiskErrorKind::NoSpace, "no space left"));
        }
        let length = slice.len() as u64;
        let file = self.get_mut(place).ok_or_else(missing)?;
        file.length = file.length.max(offset + length);
        file.stamp.length = file.length;
        let old = if length > 0 { file.parts.insert(offset, slice) } else { None };
        self.used = self.used + length - old.map_or(0, |old| old.len() as u64);
        self.written += length;
        Ok(())
    }

    // Life and death.

    /// The run ends in order.
    pub(super) fn shut_down(&mut self, ages: Ages, chance: &mut Chance) {
        while self.complete(chance).is_some() {}
        self.ages = Ages { clean: true, ..ages };
    }

    /// The run ends otherwise.
    pub(super) fn crash(&mut self, crash: Crash, chance: &mut Chance) {
        self.ages.clean = false;
        self.busy_until = Instant::ZERO;
        for (_, op) in core::mem::take(&mut self.under_way) {
            // What was about to be durable may have become so, without anybody being told.
            let commits = matches!(op, DiskOp::Commit { .. } | DiskOp::WritePiece { .. });
            if commits && chance.happens(0.5) {
                let _ = self.carry_out(op);
            }
        }
        if crash == Crash::Power {
            self.powered_off = true;
            let files =
                self.user.values_mut().chain(self.partial.values_mut()).chain(self.cache.values_mut());
            for file in files.filter(|file| !file.synced) {
                tear(file, chance);
            }
        }
    }

    /// The medium is destroyed with all that was on it.
    pub(super) fn wipe(&mut self) {
        let plan = self.plan.clone();
        let gone: Vec<Change> = self.pieces.keys().copied().map(Change::Gone).collect();
        *self = Disk::new(plan);
        self.changes = gone;
    }

    /// What the next run finds.
    pub(super) fn recover(&mut self) -> Recovered {
        let incoming = core::mem::take(&mut self.incoming).into_values();
        for file in incoming.chain(core::mem::take(&mut self.windows).into_values()) {
            self.used -= held(&file);
        }
        self.ages.boots += 1;
        let trusted = |share: &Share| share.synced || self.ages.clean || !self.powered_off;
        let mut shares = core::mem::take(&mut self.shares);
        shares.retain(|share| match share.place {
            Place::Cache(_) => trusted(share) && self.get(&share.place).is_some(),
            _ => true,
        });
        for share in &mut shares {
            if !trusted(share) {
                share.stamp = FileStamp::default();
            }
            share.state = match self.get(&share.place) {
                Some(file) if file.stamp != share.stamp => ShareState::Doubtful,
                None if share.state != ShareState::Changed => ShareState::Absent,
                _ => share.state,
            };
        }
        self.shares.clone_from(&shares);
        self.manifests.retain(|hash, _| shares.iter().any(|share| share.hash == *hash));
        let cached: Vec<Key> = shares
            .iter()
            .filter(|share| matches!(share.place, Place::Cache(_)))
            .map(|share| share.hash)
            .collect();
        let dropped: Vec<Key> = self.cache.keys().filter(|key| !cached.contains(key)).copied().collect();
        for key in dropped {
            self.used -= self.cache.remove(&key).as_ref().map_or(0, held);
        }
        let ages = Ages { clean: self.ages.clean, ..self.ages };
        (self.ages.clean, self.powered_off) = (false, false);
        Recovered {
            ages,
            pieces: self.pieces.values().map(|(meta, _)| *meta).collect(),
            shares,
            manifests: self.manifests.clone(),
            peers: self.peers.clone(),
            records: self.records.clone(),
            scrub: self.scrub.clone(),
            space: Space::default(),
        }
    }

    fn fresh(&mut self, length: u64) -> File {
        self.inodes += 1;
        let stamp = FileStamp { length, modified: self.inodes as i64, changed: 0, mode: Mode::of(0o644) };
        File { parts: BTreeMap::new(), length, synced: false, stamp }
    }

    fn get(&self, place: &Place) -> Option<&File> {
        match place {
            Place::File(path) => self.user.get(&**path),
            Place::Partial(path) => self.partial.get(&**path),
            Place::Cache(hash) => self.cache.get(hash),
            Place::Incoming(number) => self.incoming.get(number),
            Place::Window { window, chunk } => self.windows.get(&(*window, *chunk)),
            Place::Piece(_) | Place::ShareManifest(_) => None,
        }
    }

    fn get_mut(&mut self, place: &Place) -> Option<&mut File> {
        match place {
            Place::File(path) => self.user.get_mut(&**path),
            Place::Partial(path) => self.partial.get_mut(&**path),
            Place::Cache(hash) => self.cache.get_mut(hash),
            Place::Incoming(number) => self.incoming.get_mut(number),
            Place::Window { window, chunk } => self.windows.get_mut(&(*window, *chunk)),
            Place::Piece(_) | Place::ShareManifest(_) => None,
        }
    }
}

/// Which chunks of a file are what its manifest says. A chunk that is nothing but a hole was never written.
fn good_chunks(file: &File, manifest: &Manifest) -> Vec<bool> {
    let good = |index: u32| {
        let (from, length) = (manifest.chunk_offset(index), manifest.chunk_length(index) as usize);
        let whole = file.parts.range(from..from + length.max(1) as u64).next().is_some();
        let parts = if whole { read(file, from, length).ok() } else { None };
        parts.is_some_and(|parts| {
            joined(parts).key(manifest.hash_as(index)) == manifest.keys()[index as usize]
        })
    };
    (0..manifest.chunk_count()).map(good).collect()
}

fn held(file: &File) -> u64 {
    file.parts.values().map(|part| part.len() as u64).sum()
}

/// Each part that was not synced is lost with even chances.
fn tear(file: &mut File, chance: &mut Chance) {
    file.parts.retain(|_, _| chance.happens(0.5));
}

/// A run of a file; holes are zeros.
fn read(file: &File, offset: u64, length: usize) -> Result<Vec<Slice>, DiskError> {
    let end = offset + length as u64;
    if end > file.length {
        return Err(error(DiskErrorKind::Changed, "the file is shorter"));
    }
    let first = file.parts.range(..=offset).next_back().map_or(offset, |(at, _)| *at);
    let (mut at, mut parts) = (offset, Vec::new());
    let zeros = |count: u64| Slice::whole(Blob::new(vec![0; count as usize]));
    for (from, part) in file.parts.range(first..end) {
        let part_end = from + part.len() as u64;
        if part_end <= at {
            continue;
        }
        if *from > at {
            parts.push(zeros(from - at));
            at = *from;
        }
        let until = part_end.min(end);
        parts.push(part.part((at - from) as usize, (until - at) as usize));
        at = until;
    }
    if at < end {
        parts.push(zeros(end - at));
    }
    Ok(parts)
}

impl Slice {
    /// How the bytes are cut as a file.
    fn manifest(&self) -> Arc<Manifest> {
        match self.as_blob() {
            Some(blob) => blob.manifest(),
            None => Blob::new(self.bytes().to_vec()).manifest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Content, HashAs};

    fn stored(disk: &mut Disk, key: u8, crash: Option<Crash>, seed: u64) -> bool {
        let meta = PieceMeta {
            key: Key([key; 32]),
            content: Content::File,
            length: 3,
            input_offset: 0,
            replicas: 3,
            mode: Mode::UNKNOWN,
            expires: 1000,
        };
        let sink = Sink { place: Place::Incoming(1), offset: 0, length: 3, hash_as: HashAs::Root };
        disk.open_sink(&sink).unwrap();
        disk.write(&sink.place, 0, Slice::whole(Blob::new(vec![1, 2, 3]))).unwrap();
        disk.submit(Instant::ZERO, DiskId(1), DiskOp::Commit { incoming: 1, meta });
        let mut chance = Chance::new(seed, 1);
        match crash {
            None => disk.complete(&mut chance).unwrap().result.is_ok(),
            Some(crash) => {
                disk.crash(crash, &mut chance);
                false
            }
        }
    }

    #[test]
    fn a_crash_loses_what_was_not_synced_and_nothing_that_was_acknowledged() {
        let mut disk = Disk::new(DiskPlan::default());
        assert!(stored(&mut disk, 7, None, 1));
        let content = Slice::whole(Blob::random(1 << 20, 1));
        let (hash, manifest) = (Key([9; 32]), content.manifest());
        let permissions = Permissions::Usual(Mode::UNKNOWN);
        let open = DiskOp::OpenTarget { place: Place::Cache(hash), manifest, force: false, permissions };
        disk.submit(Instant::ZERO, DiskId(2), open);
        let mut chance = Chance::new(1, 1);
        assert!(disk.complete(&mut chance).unwrap().result.is_ok());
        for part in 0..16 {
            disk.write(&Place::Cache(hash), part << 16, content.part((part as usize) << 16, 1 << 16))
                .unwrap();
        }
        disk.crash(Crash::Kill, &mut chance);
        assert_eq!(
            disk.cached(&hash).unwrap().bytes(),
            content.bytes(),
            "a killed process loses nothing written"
        );
        disk.crash(Crash::Power, &mut chance);
        assert_ne!(
            disk.cached(&hash).unwrap().bytes(),
            content.bytes(),
            "a power cut tears what was not synced"
        );
        let recovered = disk.recover();
        assert_eq!(recovered.pieces.iter().map(|meta| meta.key).collect::<Vec<_>>(), [Key([7; 32])]);
        assert_eq!(recovered.ages.boots, 1);
        assert!(disk.cached(&hash).is_none(), "what nobody shares is cleared away");
    }

    #[test]
    fn a_commit_that_a_crash_interrupts_is_there_or_not_and_never_acknowledged() {
        let found = |seed: u64| {
            let mut disk = Disk::new(DiskPlan::default());
            assert!(!stored(&mut disk, 7, Some(Crash::Power), seed));
            assert!(disk.complete(&mut Chance::new(1, 1)).is_none(), "nothing is answered after a crash");
            disk.recover().pieces.len()
        };
        let counts: Vec<usize> = (0..32).map(found).collect();
        assert!(counts.contains(&0) && counts.contains(&1), "{counts:?}");
    }

    #[test]
    fn a_full_disk_and_a_failing_one_say_so() {
        let mut disk = Disk::new(DiskPlan { capacity: 2, ..DiskPlan::default() });
        let sink = Sink { place: Place::Incoming(1), offset: 0, length: 3, hash_as: HashAs::Root };
        disk.open_sink(&sink).unwrap();
        let full = disk.write(&sink.place, 0, Slice::whole(Blob::new(vec![1, 2, 3]))).unwrap_err();
        assert_eq!(full.kind, DiskErrorKind::NoSpace);
        let mut disk = Disk::new(DiskPlan { sync_fails: 1.0, ..DiskPlan::default() });
        assert!(!stored(&mut disk, 7, None, 1));
        assert!(disk.recover().pieces.is_empty());
    }
}

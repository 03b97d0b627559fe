//! A simulated disk, at the level of the core's disk operations: which content is durable, and how long operations take.
//!
//! Operations take effect one after the other, each at the moment at which it ends. A crash therefore leaves the unfinished
//! ones undone. Crashes between two system calls are tested on real files: see
//! [`disk::power_loss`](crate::disk::power_loss).

mod claims;
mod file;
mod files;
mod pieces;
mod room;

pub use pieces::Change;

use super::blob::{Blob, Slice, joined};
use super::chance::Chance;
use crate::id::Key;
use crate::io::{
    Ages, DiskDone, DiskError, DiskErrorKind, DiskId, DiskOp, DiskReply, Extent, FileAt, PieceAt, PieceMeta,
    Place, Recovered, Run, Sink, Soundness, Space,
};
use crate::manifest::Manifest;
use crate::time::{Duration, Instant};
use claims::Claims;
use file::File;
use files::Files;
use pieces::Pieces;
use room::Room;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// How a disk behaves.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The duration of a sync.
    pub sync: Duration,
    /// Bytes read or written in a second.
    pub bytes_per_second: u64,
    /// The share of syncs that fail with an input/output error.
    pub sync_fails: f64,
    /// Bytes that fit on the disk. Writing more fails with "no space left".
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

/// How a run ends without a shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed. Everything it wrote survives.
    Kill,
    /// The machine loses power. Content that was not synced is lost, in whole or in part.
    Power,
}

/// The disk of one host.
pub struct Disk {
    plan: DiskPlan,
    room: Room,
    files: Files,
    pieces: Pieces,
    claims: Claims,
    peers: Vec<u8>,
    records: Vec<u8>,
    scrub: Vec<u8>,
    ages: Ages,
    under_way: VecDeque<(DiskId, DiskOp)>,
    busy_until: Instant,
    powered_off: bool,
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
            room: Room::new(plan.capacity),
            plan,
            files: Files::default(),
            pieces: Pieces::default(),
            claims: Claims::default(),
            peers: Vec::new(),
            records: Vec::new(),
            scrub: Vec::new(),
            ages: Ages::default(),
            under_way: VecDeque::new(),
            busy_until: Instant::ZERO,
            powered_off: false,
        }
    }

    // Changes from outside the node.

    /// The user writes a file.
    pub fn write_file(&mut self, path: &Path, content: Rc<Blob>) {
        self.files.write_as_user(path, Slice::whole(content));
    }

    /// Some bits of a user's file flip. The file's stamp does not show it.
    pub fn rot_file(&mut self, path: &Path) {
        if let Some(file) = self.files.of_user_mut(path) {
            file.rot();
        }
    }

    /// A bit of a stored piece flips. False when the piece is not stored here.
    pub fn rot_piece(&mut self, key: &Key) -> bool {
        self.pieces.rot(key)
    }

    /// The contacts that the next run starts from, as the node encoded them.
    pub fn set_peers(&mut self, peers: Vec<u8>) {
        self.peers = peers;
    }

    /// Loses the stored pieces. The node is not told.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces.forget();
    }

    // Inspection.

    /// The content of a user's file.
    pub fn file(&self, path: &Path) -> Option<Slice> {
        self.files.of_user(path)?.content().ok()
    }

    /// The content of a file in the node's cache.
    pub fn cached(&self, hash: &Key) -> Option<Slice> {
        self.files.cached(hash)?.content().ok()
    }

    /// Whether a piece is stored here, or a shared file holds it.
    pub fn holds(&self, key: &Key) -> bool {
        self.pieces.holds(key) || self.claims.holds(key)
    }

    /// The stored pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &PieceMeta> {
        self.pieces.metas()
    }

    /// Whether no operation is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The number of stored pieces, and of those whose content does not match their key.
    pub fn verify_pieces(&self) -> (u64, u64) {
        (self.pieces.len() as u64, self.pieces.count_wrong() as u64)
    }

    /// The number of chunks in windows.
    pub fn in_windows(&self) -> usize {
        self.files.in_windows()
    }

    /// The pieces that were stored or removed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        self.pieces.take_changes()
    }

    // Operations.

    /// Begins an operation. Returns the time at which it ends.
    pub fn submit(&mut self, now: Instant, id: DiskId, op: DiskOp) -> Instant {
        let (bytes, syncs) = self.cost(&op);
        let moving = Duration::from_secs_f64(bytes as f64 / self.plan.bytes_per_second as f64);
        let took = Duration::from_micros(50) + moving + self.plan.sync * syncs;
        self.busy_until = self.busy_until.max(now) + took;
        self.under_way.push_back((id, op));
        self.busy_until
    }

    /// The bytes that an operation moves, and its syncs.
    fn cost(&self, op: &DiskOp) -> (u64, u32) {
        match op {
            DiskOp::Hash { place, .. } => (self.files.get(place).map_or(0, File::length), 1),
            DiskOp::Check { manifest, .. } => (manifest.length(), 0),
            DiskOp::Copy { from, .. } => (u64::from(from.length) * 2, 0),
            DiskOp::Read(extent) => (u64::from(extent.length), 0),
            DiskOp::VerifyFile(file) => (file.length, 0),
            DiskOp::Sample { runs, .. } => (runs.iter().map(|run| u64::from(run.length)).sum(), 0),
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
    pub fn complete(&mut self, chance: &mut Chance) -> Option<DiskDone> {
        let (id, op) = self.under_way.pop_front()?;
        let (_, syncs) = self.cost(&op);
        let fails = syncs > 0 && chance.happens(self.plan.sync_fails);
        let result = match fails {
            true => Err(self.fail(op)),
            false => self.carry_out(op),
        };
        Some(DiskDone { id, result })
    }

    /// The sync of an operation fails. The node does not trust the content that it covered.
    fn fail(&mut self, op: DiskOp) -> DiskError {
        if let DiskOp::Commit { incoming, .. } = op {
            let _ = self.files.remove(&Place::Incoming(incoming), &mut self.room);
        }
        error(DiskErrorKind::Failed, "input/output error on sync")
    }

    fn carry_out(&mut self, op: DiskOp) -> Result<DiskReply, DiskError> {
        match op {
            DiskOp::Hash { place, .. } => return self.hash(&place),
            DiskOp::SaveShare { share, manifest } => self.claims.save(share, manifest),
            DiskOp::RemoveShare { share, last } => {
                self.claims.remove(&share, last);
                if let Place::Cache(_) = share.place {
                    self.delete(&share.place)?;
                }
            }
            DiskOp::Read(extent) => {
                return Ok(DiskReply::Bytes(joined(self.read(&extent)?).bytes().to_vec()));
            }
            DiskOp::Sample { extent, runs } => {
                let whole = joined(self.read(&extent)?);
                let part = |run: &Run| whole.bytes()[run.offset as usize..][..run.length as usize].to_vec();
                return Ok(DiskReply::Bytes(runs.iter().flat_map(part).collect()));
            }
            DiskOp::Raise { key, replicas, expires, claim } => {
                self.pieces.raise(&key, replicas, expires, claim)?;
            }
            DiskOp::VerifyFile(file) => {
                return self.verify_file(&file).map(|soundness| DiskReply::Verified { soundness });
            }
            DiskOp::Verify { piece, .. } => {
                return self.verify(&piece).map(|soundness| DiskReply::Verified { soundness });
            }
            DiskOp::OpenTarget { place, manifest, force, permissions, tree: _ } => {
                return self.files.open_target(&place, &manifest, force, permissions, &self.room);
            }
            DiskOp::Check { place, manifest } => {
                let good = self.files.get(&place)?.good_chunks(&manifest);
                return Ok(DiskReply::Checked { good });
            }
            DiskOp::WriteTarget { place, offset, bytes } => {
                self.files.make(&place, bytes.len() as u64);
                self.write(&place, offset, Slice::whole(Blob::new(bytes)))?;
            }
            DiskOp::Copy { from, to } => {
                let slice = joined(self.read(&from)?);
                let key = slice.key(to.hash_as);
                self.files.make(&to.place, u64::from(to.length));
                self.write(&to.place, to.offset, slice)?;
                return Ok(DiskReply::Copied { key });
            }
            DiskOp::FinishTarget { place } => return self.files.finish_target(&place),
            DiskOp::CloseTarget { place, delete } => {
                if delete {
                    self.delete(&place)?;
                }
            }
            DiskOp::Commit { incoming, meta } => {
                let arrived = self.files.remove(&Place::Incoming(incoming), &mut self.room)?;
                let content = arrived.ok_or_else(missing)?.read(0, meta.length as usize)?;
                self.pieces.store(meta, joined(content), &mut self.room)?;
            }
            DiskOp::WritePiece { meta, bytes } => {
                self.pieces.store(meta, Slice::whole(Blob::new(bytes)), &mut self.room)?;
            }
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
        let file = self.files.get(&at.place)?;
        if file.stamp != at.stamp {
            return Err(error(DiskErrorKind::Changed, "the file is not what it was"));
        }
        let good = file.content()?.manifest().hash() == at.hash;
        Ok(if good { Soundness::Sound } else { Soundness::Rotten })
    }

    fn hash(&mut self, place: &Place) -> Result<DiskReply, DiskError> {
        let file = self.files.get_mut(place)?;
        file.synced = true;
        let (stamp, content) = (file.stamp, file.content()?);
        Ok(DiskReply::Hashed { manifest: content.manifest(), stamp, kept_open: false })
    }

    fn delete(&mut self, place: &Place) -> Result<(), DiskError> {
        match place {
            Place::Piece(key) => self.pieces.remove(key, &mut self.room),
            Place::ShareManifest(hash) => self.claims.remove_manifest(hash),
            place => _ = self.files.remove(place, &mut self.room)?,
        }
        Ok(())
    }

    // Content sent to streams and received from them.

    /// The bytes of an extent, by reference.
    pub fn read(&self, extent: &Extent) -> Result<Vec<Slice>, DiskError> {
        let (offset, length) = (extent.offset, extent.length as usize);
        let part = |whole: &Slice, what| match offset as usize + length <= whole.len() {
            true => Ok(vec![whole.part(offset as usize, length)]),
            false => Err(error(DiskErrorKind::Changed, what)),
        };
        match &extent.place {
            Place::Piece(key) => part(self.pieces.content(key)?, "the piece is shorter"),
            Place::ShareManifest(hash) => {
                let manifest = self.claims.manifest(hash).ok_or_else(missing)?;
                part(&Slice::whole(Blob::new(manifest.encode())), "the manifest is shorter")
            }
            place => {
                let file = self.files.get(place)?;
                if extent.stamp.is_some_and(|stamp| stamp != file.stamp) {
                    return Err(error(DiskErrorKind::Changed, "the file is not what it was"));
                }
                file.read(offset, length)
            }
        }
    }

    /// Opens the file of a sink. Makes the file if content arrives in one of its own.
    pub fn open_sink(&mut self, sink: &Sink) -> Result<(), DiskError> {
        self.files.make(&sink.place, u64::from(sink.length));
        self.files.get(&sink.place).map(drop)
    }

    /// Writes into a file that is arriving or being downloaded, without a sync.
    pub fn write(&mut self, place: &Place, offset: u64, slice: Slice) -> Result<(), DiskError> {
        self.files.write(place, offset, slice, &mut self.room)
    }

    // Shutdown, crash and start.

    /// The run shuts down cleanly.
    pub(super) fn shut_down(&mut self, ages: Ages, chance: &mut Chance) {
        while self.complete(chance).is_some() {}
        self.ages = Ages { clean: true, ..ages };
    }

    /// The run crashes.
    pub(super) fn crash(&mut self, crash: Crash, chance: &mut Chance) {
        self.ages.clean = false;
        self.busy_until = Instant::ZERO;
        for (_, op) in core::mem::take(&mut self.under_way) {
            // An operation under way may already be durable, although it is not acknowledged.
            let commits = matches!(op, DiskOp::Commit { .. } | DiskOp::WritePiece { .. });
            if commits && chance.happens(0.5) {
                let _ = self.carry_out(op);
            }
        }
        if crash == Crash::Power {
            self.powered_off = true;
            self.files.cut_power(chance);
        }
    }

    /// The medium is destroyed with all its content.
    pub(super) fn wipe(&mut self) {
        let mut pieces = core::mem::take(&mut self.pieces);
        pieces.forget();
        *self = Disk { pieces, ..Disk::new(self.plan.clone()) };
    }

    /// Starts the next run. Returns the content that it finds.
    pub fn recover(&mut self) -> Recovered {
        self.ages.boots += 1;
        self.claims.recover(&self.files, self.ages.clean || !self.powered_off);
        let claims = &self.claims;
        self.files.clear(|hash| claims.keeps_cached(hash), &mut self.room);
        let ages = self.ages;
        (self.ages.clean, self.powered_off) = (false, false);
        Recovered {
            ages,
            pieces: self.pieces.metas().copied().collect(),
            shares: self.claims.shares().to_vec(),
            manifests: self.claims.manifests().clone(),
            peers: self.peers.clone(),
            records: self.records.clone(),
            scrub: self.scrub.clone(),
            space: Space::default(),
        }
    }
}

impl Slice {
    /// The manifest of the bytes as a file.
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
    use crate::io::{Mode, Permissions};
    use crate::manifest::HashAs;

    fn stored(disk: &mut Disk, key: u8, crash: Option<Crash>, seed: u64) -> bool {
        let meta = PieceMeta { expires: 1000, ..PieceMeta::file(Key([key; 32]), 3) };
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
        let open =
            DiskOp::OpenTarget { place: Place::Cache(hash), manifest, force: false, permissions, tree: None };
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

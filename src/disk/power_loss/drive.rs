//! A random run of the store with the core's operations. The run records each operation and the expectation that
//! follows from it.

use super::expected::{Change, Claimed, Contents, Event, Expected, Found, claimed};
use super::record::{self, Fault, Kind};
use crate::claim::PieceClaim;
use crate::disk::{Disk, files};
use crate::id::{Key, PublicKey};
use crate::io::{
    Ages, Brought, DiskDone, DiskError, DiskErrorKind, DiskId, DiskOp, DiskReply, Mode, Permissions,
    PieceMeta, Place, Share, ShareState, Sink,
};
use crate::manifest::{Content, HashAs, Manifest};
use crate::rng::Rng;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Lengths of pieces: those around the borders of sectors and pages.
const LENGTHS: [usize; 12] = [8, 9, 100, 384, 511, 512, 513, 3000, 3968, 4096, 5000, 9000];
/// First bytes of keys. They are few, so that several pieces share a directory.
const FIRST_BYTES: [u8; 3] = [0x0a, 0x5c, 0xe1];
/// A file of several chunks.
const LONG_FILE: usize = 300_000;
/// The bytes that the store may read in a turn.
const BUDGET_BYTES: u64 = 64 << 10;
/// A bound on the turns of a batch. No batch takes as many.
const TURNS_MAX: u32 = 10_000;

const OPEN: &str = "the store is open";

/// An operation of a batch, and the changes that it makes.
type Ask = (DiskOp, Vec<Change>);

/// The faults that operations met.
#[derive(Clone, Default)]
struct Met {
    full: Rc<Cell<u64>>,
    failed: Rc<Cell<u64>>,
    /// Faults that no operation has to report: a full disk while the age is saved, which is then overwritten in place;
    /// and any fault while the log of shares is rewritten in the background.
    quiet: Rc<Cell<u64>>,
    /// Whether the sync of a directory failed.
    names: Rc<Cell<bool>>,
}

/// A run.
pub(super) struct Drive<'a> {
    rng: &'a mut Rng,
    root: PathBuf,
    contents: &'a mut Contents,
    now: Expected,
    events: Vec<(usize, Event)>,
    /// The store; `None` only between two starts.
    disk: Option<Disk>,
    ages: Ages,
    asked: u64,
    incoming: u64,
    files: u64,
    /// Shared downloads whose content is not synced. A power cut may take them until a run has ended in order.
    unsynced: BTreeMap<Claimed, Share>,
    /// Claims whose removal was requested. The core does not repeat the request, whatever the answer was.
    forgotten: BTreeSet<Claimed>,
    met: Met,
    /// The number of faults so far.
    pub(super) faults: u64,
}

/// Opens the store in `root` and returns it with what it found.
pub(super) fn open(root: &Path) -> Result<(Disk, Found), String> {
    let opened = Disk::open(&node_directory(root)).map_err(|error| error.to_string());
    opened.map(|(disk, recovered, secret)| (disk, Found { secret, recovered }))
}

/// Whether a file is being renamed to the log of shares.
fn replaces_log(attempt: &record::Attempt<'_>) -> bool {
    attempt.kind == Kind::Rename && attempt.path.ends_with("node/shares.log")
}

fn node_directory(root: &Path) -> PathBuf {
    root.join("var").join("node")
}

impl<'a> Drive<'a> {
    /// Opens the store and checks what is in it.
    pub(super) fn begin(
        root: &Path,
        expected: Expected,
        contents: &'a mut Contents,
        rng: &'a mut Rng,
    ) -> Result<Self, String> {
        let (disk, found) = open(root)?;
        let mut drive = Drive {
            rng,
            root: root.to_owned(),
            contents,
            now: expected,
            events: Vec::new(),
            disk: Some(disk),
            ages: found.recovered.ages,
            asked: 0,
            incoming: 0,
            files: 0,
            unsynced: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            met: Met::default(),
            faults: 0,
        };
        drive.events.push((0, Event::Asked(Change::Clean(false))));
        drive.opened(found)?;
        Ok(drive)
    }

    /// Runs `steps` steps. Returns the events, each with the position in the record from which it holds, and the
    /// number of faults.
    pub(super) fn run(mut self, steps: usize) -> Result<(Vec<(usize, Event)>, u64), String> {
        for _ in 0..steps {
            self.step()?;
        }
        Ok((self.events, self.faults))
    }

    fn disk(&mut self) -> &mut Disk {
        self.disk.as_mut().expect(OPEN)
    }

    fn tell(&mut self, event: Event) {
        self.now.apply(&event);
        self.events.push((record::position(), event));
    }

    fn opened(&mut self, found: Found) -> Result<(), String> {
        self.now.apply(&Event::Asked(Change::Clean(false)));
        self.now.check(&found, self.disk.as_ref().expect(OPEN), self.contents)?;
        self.ages = found.recovered.ages;
        self.incoming = 0;
        let there = |share: &&Share| !share.synced && share.state == ShareState::Present;
        let unsynced = found.recovered.shares.iter().filter(there);
        self.unsynced = unsynced.map(|share| (claimed(share), share.clone())).collect();
        self.tell(Event::Opened(Box::new(found)));
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(24) {
            0 => self.kill(),
            1 => self.end_in_order(),
            2..=4 => self.share_a_file(),
            5..=7 => self.download(),
            8 => self.forget_a_share(),
            _ => {
                let batch = self.batch();
                self.with_faults(|drive| {
                    let mut asks = Vec::new();
                    let mut errors = Vec::new();
                    for piece in 0..batch {
                        match drive.ask(piece) {
                            Ok(ask) => asks.push(ask),
                            Err(error) => errors.push(error),
                        }
                    }
                    errors.extend(drive.submit(asks).into_iter().filter_map(Result::err));
                    Ok(errors)
                })
            }
        }
    }

    fn batch(&mut self) -> u64 {
        // Some batches are larger than one group commit.
        if self.rng.below(12) == 0 { 20 } else { 1 + self.rng.below(6) }
    }

    /// One of the operations that may share a batch. A batch has at most one of the operations that replace each
    /// other.
    fn ask(&mut self, number: u64) -> Result<Ask, DiskError> {
        if number == 0 {
            match self.rng.below(10) {
                0 => return Ok(self.save_peers()),
                1 => return Ok(self.save_records()),
                2 => return Ok(self.save_age()),
                3 => {
                    if let Some(ask) = self.remove_a_piece() {
                        return Ok(ask);
                    }
                }
                5 | 6 => {
                    if let Some(ask) = self.raise_a_piece() {
                        return Ok(ask);
                    }
                }
                4 => {
                    if let Some(ask) = self.nothing() {
                        return Ok(ask);
                    }
                }
                _ => {}
            }
        }
        if self.rng.below(2) == 0 { self.receive_a_piece() } else { Ok(self.write_a_piece(number)) }
    }

    fn some_bytes(&mut self) -> Vec<u8> {
        let length = self.rng.below(3000) as usize;
        let mut bytes = vec![0; length + 8];
        bytes[..8].copy_from_slice(&self.rng.u64().to_le_bytes());
        let (head, tail) = bytes.split_at_mut(8);
        blake3::Hasher::new().update(head).finalize_xof().fill(tail);
        bytes
    }

    fn save_peers(&mut self) -> Ask {
        let bytes = self.some_bytes();
        (DiskOp::SavePeers(bytes.clone()), vec![Change::Peers(bytes)])
    }

    fn save_records(&mut self) -> Ask {
        let bytes = self.some_bytes();
        (DiskOp::SaveRecords(bytes.clone()), vec![Change::Records(bytes)])
    }

    fn save_age(&mut self) -> Ask {
        self.ages.seconds += 1 + self.rng.below(100);
        (DiskOp::SaveAges(self.ages), vec![Change::Seconds(self.ages.seconds)])
    }

    fn remove_a_piece(&mut self) -> Option<Ask> {
        let pieces = self.now.sure_pieces();
        let meta = pieces.get(self.rng.below(pieces.len() as u64) as usize)?;
        Some((DiskOp::Remove(Place::Piece(meta.key)), vec![Change::Piece(meta.key, None)]))
    }

    /// Raises the number of replicas and the lifetime of a piece.
    fn raise_a_piece(&mut self) -> Option<Ask> {
        let pieces = self.now.sure_pieces();
        let meta = *pieces.get(self.rng.below(pieces.len() as u64) as usize)?;
        let replicas = meta.replicas.saturating_add(self.rng.below(3) as u8);
        let expires = meta.expires.saturating_add(self.rng.below(100));
        // A later claim of the same publisher, or the first one.
        let publisher = meta.claim.map_or(PublicKey([4; 32]), |claim| claim.publisher());
        let sequence = meta.claim.map_or(1, |claim| claim.sequence().saturating_add(1));
        let raises = replicas > meta.replicas || expires > meta.expires;
        let claim = Some(PieceClaim::unsigned(publisher, 1, 60, sequence)).filter(|_| raises).or(meta.claim);
        let raised = PieceMeta { replicas, expires, claim, ..meta };
        let op = DiskOp::Raise { key: meta.key, replicas, expires, claim };
        Some((op, vec![Change::Piece(meta.key, Some(raised))]))
    }

    /// Fresh content, and the key that it has.
    fn content(&mut self, length: usize) -> (Key, Vec<u8>) {
        let mut bytes = vec![0; length];
        let seed = self.rng.u64();
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let long = length > 1 << 16;
        let key = loop {
            let key = Key(*blake3::hash(&bytes).as_bytes());
            if long || FIRST_BYTES.contains(&key.0[0]) {
                break key;
            }
            let nonce = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")).wrapping_add(1);
            bytes[..8].copy_from_slice(&nonce.to_le_bytes());
        };
        self.contents.insert(key, bytes.clone());
        (key, bytes)
    }

    fn length(&mut self) -> usize {
        LENGTHS[self.rng.below(LENGTHS.len() as u64) as usize]
    }

    fn describe(&mut self, key: Key, length: usize, content: Content) -> PieceMeta {
        let input_offset = if content == Content::Chunk { self.rng.below(9) << 20 } else { 0 };
        let (replicas, expires) = (self.rng.below(9) as u8, self.rng.u64());
        let (length, mode) = (length as u32, Mode::of(self.rng.below(0o1000) as u32));
        let claim = PieceClaim::unsigned(PublicKey(self.rng.bytes()), 1, 60, self.rng.u64() / 2);
        let claim = Some(claim).filter(|_| self.rng.below(4) > 0);
        PieceMeta {
            key,
            content,
            length,
            input_offset,
            replicas,
            mode,
            expires,
            claim,
            brought: Brought::default(),
        }
    }

    /// An empty piece. There is only one.
    fn nothing(&mut self) -> Option<Ask> {
        let key = Key(*blake3::hash(&[]).as_bytes());
        self.contents.insert(key, Vec::new());
        let meta = self.describe(key, 0, Content::File);
        let incoming = self.incoming;
        self.incoming += 1;
        let op = DiskOp::Commit { incoming, meta };
        (!self.now.may_have_piece(&key)).then(|| (op, vec![Change::Piece(key, Some(meta))]))
    }

    /// A piece arrives over a stream. The run commits it, drops it or leaves it unfinished.
    fn receive_a_piece(&mut self) -> Result<Ask, DiskError> {
        let length = self.length();
        let (key, bytes) = self.content(length);
        let number = self.incoming;
        self.incoming += 1;
        let missing = if self.rng.below(8) == 0 { self.rng.below(length as u64 + 1) as usize } else { 0 };
        let arrived = &bytes[..length - missing];
        let received = self.receive(Place::Incoming(number), 0, length, arrived);
        if received.is_err() || missing > 0 {
            if self.rng.below(2) == 0 {
                self.submit(vec![(DiskOp::Remove(Place::Incoming(number)), Vec::new())]);
            }
            received?;
            return Ok(self.write_a_piece(u64::MAX));
        }
        let meta = self.describe(key, length, Content::File);
        Ok((DiskOp::Commit { incoming: number, meta }, vec![Change::Piece(key, Some(meta))]))
    }

    fn receive(&mut self, place: Place, offset: u64, length: usize, arrived: &[u8]) -> Result<(), DiskError> {
        let sink = Sink { place, offset, length: length as u32, hash_as: HashAs::Root };
        let mut open = self.disk().open_sink(&sink)?;
        let part = 1 + self.rng.below(5000) as usize;
        for part in arrived.chunks(part) {
            open.write(part)?;
        }
        if open.remaining() == 0 {
            open.finish()?;
        }
        Ok(())
    }

    /// A piece from memory. Sometimes it is a removed one, which comes back with another description.
    fn write_a_piece(&mut self, number: u64) -> Ask {
        let unsure = self.now.unsure_pieces();
        let again = unsure.get(self.rng.below(unsure.len() as u64) as usize).copied();
        let (key, bytes) = match again.filter(|_| number == 1) {
            Some(key) => (key, self.contents[&key].clone()),
            None => {
                let length = self.length();
                self.content(length)
            }
        };
        let content =
            if self.rng.below(2) == 0 && !bytes.is_empty() { Content::Chunk } else { Content::Manifest };
        let meta = self.describe(key, bytes.len(), content);
        (DiskOp::WritePiece { meta, bytes }, vec![Change::Piece(key, Some(meta))])
    }

    /// Submits operations to the store and returns the answers.
    fn submit(&mut self, asks: Vec<Ask>) -> Vec<Result<DiskReply, DiskError>> {
        let first = self.asked;
        let mut changes = Vec::new();
        for (op, change) in asks {
            for change in &change {
                self.tell(Event::Asked(change.clone()));
            }
            let id = DiskId(self.asked);
            self.disk().submit(id, op);
            self.asked += 1;
            changes.push(change);
        }
        let mut results = Vec::new();
        for _ in 0..TURNS_MAX {
            while let Some(DiskDone { id, result }) = self.disk().poll_done() {
                if let Ok(DiskReply::Progress { .. }) = result {
                    continue;
                }
                for change in changes[(id.0 - first) as usize].drain(..).filter(|_| result.is_ok()) {
                    self.tell(Event::Answered(change));
                }
                results.push(result);
            }
            if !self.disk().has_work() && !self.disk().has_idle_work() {
                break;
            }
            self.disk().run(BUDGET_BYTES);
            self.disk().run_idle();
        }
        results
    }

    fn submit_one(&mut self, op: DiskOp, changes: Vec<Change>) -> Result<DiskReply, DiskError> {
        self.submit(vec![(op, changes)]).pop().unwrap_or_else(|| {
            let message = "an operation was never answered".to_owned();
            Err(DiskError { kind: DiskErrorKind::Unsuitable, message })
        })
    }

    /// Performs an operation, sometimes with a fault. Every fault must come out as an error.
    fn with_faults(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<Vec<DiskError>, String>,
    ) -> Result<(), String> {
        self.plan_a_fault();
        let (full, failed) = (self.met.full.get(), self.met.failed.get());
        let quiet = self.met.quiet.get();
        let errors = act(self)?;
        record::end_plan();
        let (full, failed) = (self.met.full.get() - full, self.met.failed.get() - failed);
        let quiet = self.met.quiet.get() - quiet;
        self.faults += full + failed + quiet;
        let told = |kind| errors.iter().any(|error| error.kind == kind);
        if full > 0 && !told(DiskErrorKind::NoSpace) {
            return Err(format!("the disk was full and no operation reported it: {errors:?}"));
        }
        if failed > 0 && !told(DiskErrorKind::Failed) {
            return Err(format!("a sync failed and no operation reported it: {errors:?}"));
        }
        if full + failed + quiet == 0 && !errors.is_empty() {
            return Err(format!("an operation failed without a reason: {errors:?}"));
        }
        Ok(())
    }

    fn plan_a_fault(&mut self) {
        let (mut wait, kind, short) = (self.rng.below(6), self.rng.below(8), self.rng.below(6000) as usize);
        if kind > 2 {
            return;
        }
        let met = self.met.clone();
        let mut last_replaced_log = false;
        record::plan(move |attempt| {
            let after_log = core::mem::replace(&mut last_replaced_log, replaces_log(attempt));
            let wanted = if kind == 0 { attempt.kind == Kind::Write } else { attempt.kind.is_sync() };
            if !wanted {
                return None;
            }
            wait = wait.checked_sub(1).unwrap_or(u64::MAX);
            if wait != u64::MAX {
                return None;
            }
            let fault = if kind == 0 { Fault::Full(short) } else { Fault::Fail(Errno::IO) };
            let names = attempt.kind == Kind::SyncDirectory;
            met.names.set(met.names.get() || names);
            let quiet = attempt.path.ends_with("node/ages.tmp") && kind == 0
                || attempt.path.ends_with("node/shares.log.tmp")
                || names && after_log;
            let count = match (quiet, kind) {
                (true, _) => &met.quiet,
                (false, 0) => &met.full,
                (false, _) => &met.failed,
            };
            count.set(count.get() + 1);
            Some(fault)
        });
    }

    /// A user writes a file and puts it.
    fn share_a_file(&mut self) -> Result<(), String> {
        let length = if self.rng.below(24) == 0 { LONG_FILE } else { self.length() };
        let (hash, bytes) = self.content(length);
        let path = self.root.join(format!("file-{hash}-{}", self.files));
        self.files += 1;
        write_as_user(&path, &bytes).map_err(|error| error.to_string())?;
        let replicas = self.rng.below(4) as u8;
        self.with_faults(|drive| {
            let place = Place::File(path.as_path().into());
            let op = DiskOp::Hash { place: place.clone(), passed: None, background: drive.rng.below(2) == 0 };
            let hashed = match drive.submit_one(op, Vec::new()) {
                Ok(DiskReply::Hashed { manifest, stamp, .. }) => (manifest, stamp),
                Ok(other) => return Err(format!("hashing was answered by {other:?}")),
                Err(error) => return Ok(vec![error]),
            };
            let (manifest, stamp) = hashed;
            let length = manifest.length();
            let (state, replicated, synced) = (ShareState::Present, false, true);
            let share =
                Share { hash, length, place, stamp, state, replicas, lifetime: 9, replicated, synced };
            let mut errors = Vec::from_iter(drive.save_share(share.clone(), Some(manifest)).err());
            if errors.is_empty() && replicas > 0 && drive.rng.below(2) == 0 {
                errors.extend(drive.save_share(Share { replicated: true, ..share }, None).err());
            }
            Ok(errors)
        })
    }

    fn save_share(&mut self, share: Share, manifest: Option<Arc<Manifest>>) -> Result<DiskReply, DiskError> {
        let place = claimed(&share);
        let change = Change::Share(place.clone(), Some(share.clone()));
        let saved = self.submit_one(DiskOp::SaveShare { share: share.clone(), manifest }, vec![change]);
        if saved.is_ok() && !share.synced {
            self.unsynced.insert(place, share);
        }
        saved
    }

    fn forget_a_share(&mut self) -> Result<(), String> {
        let mut shares = self.now.live_shares();
        shares.retain(|share| !self.forgotten.contains(&claimed(share)));
        let Some(share) = shares.get(self.rng.below(shares.len() as u64) as usize).cloned() else {
            return Ok(());
        };
        self.unsynced.remove(&claimed(&share));
        self.forgotten.insert(claimed(&share));
        self.with_faults(|drive| {
            let change = Change::Share(claimed(&share), None);
            let result = drive.submit_one(DiskOp::RemoveShare { share, last: true }, vec![change]);
            Ok(Vec::from_iter(result.err()))
        })
    }

    /// A file arrives from the network. It is not synced.
    fn download(&mut self) -> Result<(), String> {
        let length = self.length();
        let (hash, bytes) = self.content(length);
        let path: Arc<Path> = self.root.join(format!("download-{hash}-{}", self.files)).into();
        self.files += 1;
        let cached = self.rng.below(2) == 0;
        let place = if cached { Place::Cache(hash) } else { Place::Partial(Arc::clone(&path)) };
        let interrupted = self.rng.below(6) == 0;
        self.with_faults(|drive| {
            let result = drive.fetch(&place, &bytes, interrupted);
            let stamp = match result {
                Ok(Some(stamp)) => stamp,
                Ok(None) => return Ok(Vec::new()),
                Err(error) => return Ok(vec![error]),
            };
            let Some(manifest) = Manifest::single(hash, bytes.len() as u64).map(Arc::new) else {
                return Err("a short file has no manifest".to_owned());
            };
            let place = if cached { place } else { Place::File(path) };
            let (length, state) = (manifest.length(), ShareState::Present);
            let (replicas, lifetime, replicated, synced) = (0, 5, true, false);
            let share = Share { hash, length, place, stamp, state, replicas, lifetime, replicated, synced };
            Ok(Vec::from_iter(drive.save_share(share, Some(manifest)).err()))
        })
    }

    /// The stamp of a finished download; `None` when it was interrupted.
    fn fetch(
        &mut self,
        place: &Place,
        bytes: &[u8],
        interrupted: bool,
    ) -> Result<Option<crate::io::FileStamp>, DiskError> {
        let length = bytes.len() as u64;
        let hash = Key(*blake3::hash(bytes).as_bytes());
        let Some(manifest) = Manifest::single(hash, length).map(Arc::new) else { return Ok(None) };
        let permissions = Permissions::Usual(Mode::of(0o755));
        let open =
            DiskOp::OpenTarget { place: place.clone(), manifest, force: false, permissions, tree: None };
        self.submit_one(open, Vec::new())?;
        if self.rng.below(2) == 0 {
            let op = DiskOp::WriteTarget { place: place.clone(), offset: 0, bytes: bytes.to_vec() };
            self.submit_one(op, Vec::new())?;
        } else {
            // The end of the file comes before its start, because sources answer in any order.
            let middle = self.rng.below(length + 1) as usize;
            for (offset, part) in [(middle, &bytes[middle..]), (0, &bytes[..middle])] {
                self.receive(place.clone(), offset as u64, part.len(), part)?;
            }
        }
        if interrupted {
            self.submit_one(DiskOp::Remove(place.clone()), Vec::new())?;
            return Ok(None);
        }
        match self.submit_one(DiskOp::FinishTarget { place: place.clone() }, Vec::new())? {
            DiskReply::Finished { stamp, .. } => Ok(Some(stamp)),
            _ => Ok(None),
        }
    }

    /// The process is killed at any point while the power stays on, and starts again.
    fn kill(&mut self) -> Result<(), String> {
        if self.met.names.get() {
            // The names that a failed directory sync covered are in doubt until the next power cut: see the module.
            return Ok(());
        }
        let batch = self.batch();
        let asks: Vec<Ask> = (0..batch).filter_map(|number| self.ask(number).ok()).collect();
        let mut left = self.rng.below(12);
        record::plan(move |_| {
            left = left.saturating_sub(1);
            (left == 0).then_some(Fault::Killed)
        });
        self.submit(asks);
        record::end_plan();
        self.reopen()
    }

    fn end_in_order(&mut self) -> Result<(), String> {
        if self.met.names.get() {
            return Ok(());
        }
        self.ages.seconds += 1;
        self.tell(Event::Asked(Change::Clean(true)));
        self.tell(Event::Asked(Change::Seconds(self.ages.seconds)));
        let ages = self.ages;
        let unsynced = core::mem::take(&mut self.unsynced).into_iter();
        let synced =
            unsynced.map(|(place, share)| Change::Share(place, Some(Share { synced: true, ..share })));
        let synced: Vec<Change> = synced.collect();
        for change in &synced {
            self.tell(Event::Asked(change.clone()));
        }
        self.disk().clean_shutdown(ages).map_err(|error| error.to_string())?;
        for change in synced {
            self.tell(Event::Answered(change));
        }
        self.tell(Event::Answered(Change::Clean(true)));
        self.tell(Event::Answered(Change::Seconds(self.ages.seconds)));
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), String> {
        // Only one store may have the directory open, so the old one is dropped first.
        self.disk = None;
        self.events.push((record::position(), Event::Asked(Change::Clean(false))));
        let (disk, found) = open(&self.root)?;
        self.disk = Some(disk);
        self.opened(found)
    }
}

/// Writes a file as its user does: not through the driver, and not synced. The record contains the write, like every
/// change.
fn write_as_user(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = files::open(path, files::Open::Empty, 0o644, OFlags::empty())?;
    files::write_at(&file, path, bytes, 0)
}

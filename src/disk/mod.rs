//! The disk driver: carries out the core's [`DiskOp`]s on real files.
//!
//! All of it runs on the loop's only thread. Short operations are carried out in the order in which they were submitted. Commits
//! gather into groups that share a sync. Operations that read much are tasks, which take turns of a slice each. [`Disk::run`] does a
//! bounded amount of all three:
//!
//! 1. [`submit`](Disk::submit) the core's operations;
//! 2. while [`has_work`](Disk::has_work), call [`run`](Disk::run) once in each turn of the loop;
//! 3. pass the results of [`poll_done`](Disk::poll_done) to the core until there are none.
//!
//! Idle work, such as scrub, is separate: while [`has_idle_work`](Disk::has_idle_work), call [`run_idle`](Disk::run_idle) in turns
//! with little other work.
//!
//! Content between a file and a socket is no operation: the loop opens an [`OpenExtent`] or an [`OpenSink`], which moves the bytes.

mod ages;
mod check;
mod claims;
mod commit;
mod damaged;
mod durable;
mod error;
mod extent;
mod files;
mod identity;
mod intake;
mod kept;
mod layout;
mod lock;
mod outflow;
mod own;
mod piece_file;
#[cfg(any(test, feature = "sim"))]
pub mod power_loss;
mod raises;
mod recovery;
mod reserve;
mod settling;
mod share_v1;
mod shares;
mod sink;
mod source;
mod space;
mod state;
mod target;
mod targets;
mod tasks;
#[cfg(test)]
mod tests;
mod turns;
mod verify;
mod watch;

use crate::id::IdWork;
use crate::io::{
    Ages, DiskDone, DiskError, DiskErrorKind, DiskId, DiskLook, DiskOp, DiskReply, Extent, FileStamp,
    PassedId, Place, Recovered, Share, ShareState, Sink, Soundness, Space,
};
use crate::manifest::{HashAs, Manifest};
use ages::Diary;
use check::{Check, Holes};
use commit::Commits;
use damaged::Damaged;
use durable::Replace;
use error::failed;
use extent::open_regular;
use kept::Kept;
use layout::Layout;
use lock::Lock;
use own::Own;
use raises::Raises;
use recovery::Stock;
use reserve::Reserve;
use shares::{ShareLog, Subject};
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target::{Finish, Open, Targets, Wish};
use tasks::{Copy, Hash, Read, Sample, Task};
use turns::Turns;
use verify::{Begun, Verify};
use watch::Watch;

pub use error::OpenError;
pub use extent::OpenExtent;
#[cfg(feature = "cli")]
pub(crate) use files::rename_exclusively;
pub use identity::{Renewed, forget_identity, renew_identity};
pub use intake::{Intake, Way};
pub use outflow::Outflow;
pub use sink::OpenSink;

/// The free bytes from which on the node keeps its [`Reserve`].
const RESERVED_FROM_BYTES: u64 = 4 << 20;
/// The bytes that a short operation takes from a turn's budget.
const OPERATION_COST: u64 = 16 << 10;

/// The id of operations at the end of the run, to whose results no machine listens.
const AT_END: DiskId = DiskId(u64::MAX);

/// The files of one node.
pub struct Disk {
    layout: Layout,
    own: Own,
    diary: Diary,
    /// Whether every subdirectory exists.
    has_directories: bool,
    reserve: Reserve,
    lock: Lock,
    watch: Watch,
    /// Descriptors that clients passed and no operation has taken yet.
    passed: BTreeMap<PassedId, File>,
    kept: Kept,
    /// The open targets of downloads.
    targets: Targets,
    /// Operations that have not begun, in order.
    submitted: VecDeque<(DiskId, DiskOp)>,
    commits: Commits,
    raises: Raises,
    shares: ShareLog,
    turns: Turns,
    /// Files to be hashed that wait for a free descriptor: a file is open from its first byte until it is synced.
    unopened: VecDeque<(DiskId, DiskOp)>,
    done: VecDeque<DiskDone>,
    written: u64,
    /// Shares whose content may not be on the medium. There are at most as many as shares.
    unsynced: BTreeMap<Subject, Share>,
}

impl Disk {
    /// Opens a node's directory, or creates it: reads or makes the node's secret, counts this start, deletes what an earlier run
    /// left unfinished, and recovers the rest. No other `Disk` can open the directory while this one lives.
    pub fn open(dir: &Path) -> Result<(Disk, Recovered, [u8; 32]), OpenError> {
        Disk::open_with(dir, IdWork::NONE)
    }

    /// The same. A node that has no identity yet gets one that shows this work; how long the search takes is told by
    /// [`IdWork::keys`].
    pub fn open_with(dir: &Path, id_work: IdWork) -> Result<(Disk, Recovered, [u8; 32]), OpenError> {
        recovery::make_directory(dir)?;
        let layout = Layout::new(dir.canonicalize().map_err(OpenError::at(dir))?);
        let lock = Lock::take(layout.root(), &layout.file("lock"))?;
        let secret = state::secret(&layout)?;
        let damaged = Damaged::new(&layout);
        let last = ages::read(&layout, &damaged, secret.is_some());
        let ages = Ages { boots: last.ages.boots.saturating_add(1), ..last.ages };
        let mut logs = recovery::Logs::new(&layout);
        let stock = recovery::recover(&layout, &mut logs, &last, ages, &damaged);
        let Stock { recovered, cleared, has_directories } = stock;
        // Written only now: a start that fails or is killed during recovery must not count as one that has cleared up.
        let mut diary = Diary::new(ages::Record { ages: Ages { clean: false, ..ages }, cleared });
        diary.write(&layout);
        let secret = match secret {
            Some(secret) => secret,
            None => state::make_secret(&layout, id_work)?,
        };
        let reserve = Reserve::new(&layout);
        let watch = Watch::new(&layout, secret);
        let there = |share: &&Share| !share.synced && share.state == ShareState::Present;
        let unsynced = recovered.shares.iter().filter(there);
        let unsynced = unsynced.map(|share| (Subject::of(share), share.clone())).collect();
        let disk = Disk {
            own: Own::new(&layout),
            layout,
            diary,
            has_directories,
            reserve,
            lock,
            watch,
            passed: BTreeMap::new(),
            kept: Kept::default(),
            targets: Targets::default(),
            submitted: VecDeque::new(),
            commits: Commits::default(),
            raises: logs.raises,
            shares: logs.shares,
            turns: Turns::new(),
            unopened: VecDeque::new(),
            done: VecDeque::new(),
            written: 0,
            unsynced,
        };
        Ok((disk, recovered, secret))
    }

    /// The path of a place: absolute, unless the place itself has a relative path.
    pub fn path_of(&self, place: &Place) -> PathBuf {
        self.layout.path(place)
    }

    /// The space of the node's file system; `None` when the system does not report it.
    pub fn space(&self) -> Option<Space> {
        space::of(self.layout.root())
    }

    /// Opens an extent for sending. Fails when the file's stamp differs, or when the file is too short.
    pub fn open_extent(&self, extent: &Extent) -> Result<OpenExtent, DiskError> {
        let path = self.layout.path(&extent.place);
        let opened = self.open_file(&extent.place);
        let opened = opened.map_err(|error| self.watch.explain(&self.layout, &path, error))?;
        OpenExtent::new(opened, path, extent)
    }

    /// The regular file at a place, opened by its name; or the file that is kept open.
    fn open_file(&self, place: &Place) -> Result<(Arc<File>, Metadata), DiskError> {
        match self.targets.to_read(place).or_else(|| self.kept.open(place)) {
            Some(opened) => opened,
            None => open_regular(&self.layout.path(place)).map(|(file, metadata)| (Arc::new(file), metadata)),
        }
    }

    /// Takes the descriptor of a user's file, for a [`DiskOp::Hash`] with this id.
    pub fn pass(&mut self, id: PassedId, file: OwnedFd) {
        self.passed.insert(id, file.into());
    }

    /// Closes a passed descriptor that no operation has taken.
    pub fn drop_passed(&mut self, id: PassedId) {
        self.passed.remove(&id);
    }

    /// The number of further passed descriptors that may wait for their operations: at most `most` in all, and within the
    /// process's limit of descriptors.
    pub fn passed_room(&self, most: usize) -> usize {
        most.min(self.turns.open_max()).saturating_sub(self.passed.len())
    }

    /// The number of passed descriptors that wait for their operations.
    #[cfg(test)]
    fn passed_count(&self) -> usize {
        self.passed.len()
    }

    /// Whether a file of the user is served from its passed descriptor.
    pub fn keeps_open(&self, path: &Path) -> bool {
        self.kept.holds(path)
    }

    /// Sets the number of files that may be kept open because the node may not open them by their paths.
    pub fn keep_open_at_most(&mut self, files: usize) {
        self.kept.set_most(files);
    }

    /// Has the kernel read ahead an extent that will be sent soon. A hint only.
    pub fn announce(&self, extent: &Extent) {
        if let Ok(open) = self.open_extent(extent) {
            open.announce();
        }
    }

    /// Opens a part of a file for writing. The place is an incoming piece or the target of a download.
    pub fn open_sink(&self, sink: &Sink) -> Result<OpenSink, DiskError> {
        let opened = OpenSink::open(&self.layout, &self.targets, sink);
        opened.map_err(|error| self.watch.explain(&self.layout, &self.layout.path(&sink.place), error))
    }

    /// Submits an operation. It gets one final answer, after any number of reports of progress.
    pub fn submit(&mut self, id: DiskId, op: DiskOp) {
        self.submitted.push_back((id, op));
    }

    /// Whether [`run`](Disk::run) has something to do.
    pub fn has_work(&self) -> bool {
        let begun = self.commits.has_work() || self.raises.has_work() || self.shares.has_work();
        begun || self.turns.has_work() || !self.unopened.is_empty() || !self.submitted.is_empty()
    }

    /// Whether [`run_idle`](Disk::run_idle) has something to do, now or once the medium has answered.
    pub fn has_idle_work(&self) -> bool {
        self.turns.has_idle_work()
    }

    /// Runs a slice of the first idle task, without waiting for the medium. `false` when the medium has not answered yet, or when
    /// there is no idle task.
    pub fn run_idle(&mut self) -> bool {
        let Some((waits, goes_on)) = self.turns.run_idle(&mut self.targets, &mut self.done) else {
            return false;
        };
        if !goes_on {
            self.settle();
        }
        !waits
    }

    /// The next result.
    pub fn poll_done(&mut self) -> Option<DiskDone> {
        let mut done = self.done.pop_front()?;
        if let Err(error) = &mut done.result {
            if error.kind == DiskErrorKind::NotFound && !self.watch.is_present(&self.layout) {
                *error = self.watch.gone(&self.layout);
            }
        }
        Some(done)
    }

    /// Checks the node's directory. With `trying` it also writes and syncs a few bytes there.
    pub fn look(&mut self, trying: bool) -> Result<DiskLook, DiskError> {
        let look = self.watch.look(&self.layout, &mut self.lock, trying)?;
        if look.free_bytes >= RESERVED_FROM_BYTES {
            self.reserve.keep();
        }
        Ok(look)
    }

    /// Works for one turn of the loop. It reads at most `budget_bytes`, and syncs about as many and one piece more. New commits
    /// wait for a few turns at most, so that others can join their group.
    pub fn run(&mut self, budget_bytes: u64) {
        let mut left = budget_bytes;
        let more = !self.submitted.is_empty();
        self.begin_submitted(&mut left);
        self.raises.flush(&self.layout, &mut self.done);
        // A stream of commits leaves a quarter of the budget to tasks.
        let kept = if self.turns.has_tasks() { left / 4 } else { 0 };
        let rest = self.run_commits(left - kept, budget_bytes, more);
        self.shares.flush(more || self.turns.has_tasks(), &mut self.reserve, &mut self.done);
        self.shares.compact();
        self.turns.run(rest + kept, &mut self.targets, &mut self.done);
        self.settle();
    }

    /// Syncs the hashed files, unless they wait for others to join.
    fn settle(&mut self) {
        self.turns.settle(self.unopened.len(), &mut self.kept, &mut self.done);
    }

    /// Repeats what a full or failing disk refused. The driver calls it from time to time.
    pub fn tend(&mut self) {
        if !self.has_directories {
            self.has_directories = recovery::make_subdirectories(&self.layout);
        }
        if !self.diary.is_written() {
            self.diary.write(&self.layout);
        }
        for mended in [self.raises.settle(&self.layout), self.shares.mend()] {
            mended.unwrap_or_else(|error| log::debug!("{error}"));
        }
    }

    /// Finishes pending commits and saves, drops other work, syncs downloaded files, and records the clean shutdown.
    pub fn clean_shutdown(&mut self, ages: Ages) -> Result<(), DiskError> {
        while self.has_work() {
            let more = !self.submitted.is_empty();
            let mut left = u64::MAX;
            self.begin_submitted(&mut left);
            self.raises.flush(&self.layout, &mut self.done);
            self.turns.clear();
            self.unopened.clear();
            self.run_commits(u64::MAX, u64::MAX, more);
            self.shares.flush(more, &mut self.reserve, &mut self.done);
            self.shares.give_up_compaction();
        }
        self.turns.clear_idle();
        self.sync_downloads();
        let clean = self.settle_logs();
        self.save_ages(&Ages { clean, ..ages })
    }

    /// Makes both logs durable. The next start relies on what it reads there, so without that the shutdown is not clean.
    fn settle_logs(&mut self) -> bool {
        let settled = [self.raises.settle(&self.layout), self.shares.settle()];
        settled.iter().filter_map(|settled| settled.as_ref().err()).for_each(|error| log::warn!("{error}"));
        settled.iter().all(Result::is_ok)
    }

    /// Makes the shares durable whose content is not synced, so that they survive a power cut. The kernel would write the content
    /// within half a minute anyway.
    fn sync_downloads(&mut self) {
        for (subject, share) in core::mem::take(&mut self.unsynced) {
            match shares::sync_content(&self.layout, &share) {
                Ok(true) => self.save_at_end(&Share { synced: true, ..share }),
                // The next run checks it again.
                Ok(false) => {}
                Err(error) => {
                    log::warn!("{error}");
                    // After a failed sync the content is not trusted, whatever its stamp.
                    match subject {
                        Subject::Path(_) => self.save_at_end(&Share { stamp: FileStamp::default(), ..share }),
                        Subject::Cached(_) => self.shares.forget(AT_END, &share),
                    }
                }
            }
        }
        self.shares.flush(false, &mut self.reserve, &mut self.done);
        while let Some(done) = self.done.pop_front() {
            if let Err(error) = done.result {
                log::warn!("{error}");
            }
        }
    }

    fn save_at_end(&mut self, share: &Share) {
        if let Err(error) = self.shares.save(AT_END, share) {
            log::warn!("{error}");
        }
    }

    fn save_ages(&mut self, ages: &Ages) -> Result<(), DiskError> {
        self.diary.save(&self.layout, ages).map_err(|error| failed("write", &self.layout.file("ages"), error))
    }

    /// Carries out short operations, and begins the others.
    fn begin_submitted(&mut self, left: &mut u64) {
        while *left > 0 && self.turns.has_room() {
            let Some((id, op)) = self.unopened.pop_front() else { break };
            self.submitted.push_front((id, op));
            self.begin_next(left);
        }
        while *left > 0 {
            let waits = matches!(self.submitted.front(), Some((_, DiskOp::WritePiece { .. })));
            if waits && self.commits.is_full() {
                return;
            }
            if self.submitted.is_empty() {
                return;
            }
            self.begin_next(left);
        }
    }

    /// Begins the first submitted operation.
    fn begin_next(&mut self, left: &mut u64) {
        let Some((id, op)) = self.submitted.pop_front() else { return };
        *left = left.saturating_sub(OPERATION_COST);
        if let Some(result) = self.begin(id, op).transpose() {
            self.done.push_back(DiskDone { id, result });
        }
    }

    /// Begins an operation. Returns the answer of a short one.
    fn begin(&mut self, id: DiskId, op: DiskOp) -> Result<Option<DiskReply>, DiskError> {
        let layout = &self.layout;
        let task: Box<dyn Task> = match op {
            DiskOp::Hash { background: false, .. } if !self.turns.has_room() => {
                self.unopened.push_back((id, op));
                return Ok(None);
            }
            DiskOp::Hash { place, passed, background } => {
                let passed = passed.and_then(|id| self.passed.remove(&id)).or_else(|| self.kept.copy(&place));
                let source = Source::open(layout.path(&place), passed, &self.own)?;
                let task = Box::new(Hash::new(source)?);
                match background {
                    true => self.turns.push_idle(id, task),
                    false => self.turns.push(id, task),
                }
                return Ok(None);
            }
            DiskOp::SaveShare { share, manifest } => return self.save_share(id, share, manifest.as_deref()),
            DiskOp::RemoveShare { share, last } => {
                self.unsynced.remove(&Subject::of(&share));
                self.kept.forget(&share.place);
                self.shares.forget(id, &share);
                shares::remove_files(layout, &share, last);
                return Ok(None);
            }
            DiskOp::Check { place, manifest } => {
                let (file, _) = self.open_file(&place)?;
                Box::new(Check::new(file, layout.path(&place), manifest, Holes::Unwritten))
            }
            DiskOp::OpenTarget { place, manifest, force, permissions, tree } => {
                let name = match &place {
                    Place::Partial(target) => target.to_path_buf(),
                    other => layout.path(other),
                };
                let wish = Wish { place, manifest, force, name, permissions, tree };
                Box::new(Open::begin(wish, &self.own, &mut self.targets)?)
            }
            DiskOp::FinishTarget { place } => {
                let target = self.targets.to_fill(&place, &layout.path(&place))?;
                Box::new(Finish::begin(place, target)?)
            }
            DiskOp::Copy { from, to } => Box::new(Copy::new(self.open_extent(&from)?, self.open_sink(&to)?)),
            DiskOp::Read(extent) => {
                Box::new(Read::new(self.open_extent(&extent)?, &layout.path(&extent.place))?)
            }
            DiskOp::Sample { extent, runs } => Box::new(Sample::new(self.open_extent(&extent)?, runs)),
            DiskOp::Raise { key, replicas, expires, claim } => {
                return self.raises.push(layout, id, &key, (replicas, expires, claim));
            }
            DiskOp::VerifyFile(file) => {
                let task = Verify::open_file(layout.path(&file.place), &file)?;
                self.turns.push_idle(id, Box::new(task));
                return Ok(None);
            }
            DiskOp::Verify { piece, idle } => {
                let (opened, path) = (self.open_file(&piece.extent.place), layout.path(&piece.extent.place));
                match Verify::begin(layout, opened, path, piece, idle)? {
                    Begun::Over(Soundness::Missing) if !self.watch.is_present(layout) => {
                        return Err(self.watch.gone(layout));
                    }
                    Begun::Over(soundness) => return Ok(Some(DiskReply::Verified { soundness })),
                    Begun::Goes(task) if idle => self.turns.push_idle(id, Box::new(task)),
                    Begun::Goes(task) => self.turns.push(id, Box::new(task)),
                }
                return Ok(None);
            }
            DiskOp::Commit { incoming, meta } => {
                self.commits.push(layout, id, incoming, meta);
                return Ok(None);
            }
            DiskOp::WritePiece { meta, bytes } => {
                let path = layout.written(self.written);
                self.written += 1;
                self.commits.push_bytes(id, path, meta, &bytes)?;
                return Ok(None);
            }
            other => return self.carry_out(other).map(Some),
        };
        self.turns.push(id, task);
        Ok(None)
    }

    fn carry_out(&mut self, op: DiskOp) -> Result<DiskReply, DiskError> {
        let layout = &self.layout;
        let save = |name, bytes: &[u8], how| {
            let path = layout.file(name);
            state::save_sealed(&path, bytes, how).map_err(|error| failed("write", &path, error))
        };
        match op {
            DiskOp::SavePeers(bytes) => save("peers", &bytes, Replace::Lightly)?,
            DiskOp::SaveScrub(bytes) => save("scrub", &bytes, Replace::Lightly)?,
            DiskOp::SaveRecords(bytes) => save("records", &bytes, Replace::Durably)?,
            // Only `clean_shutdown` records a clean run; the core passes on the flag of the run before.
            DiskOp::SaveAges(ages) => self.save_ages(&Ages { clean: false, ..ages })?,
            DiskOp::WriteTarget { place: place @ Place::Window { .. }, offset, bytes } => {
                let sink = Sink { place, offset, length: bytes.len() as u32, hash_as: HashAs::Root };
                self.open_sink(&sink)?.write(&bytes)?;
            }
            DiskOp::WriteTarget { place, offset, bytes } => {
                let target = self.targets.to_fill(&place, &layout.path(&place))?;
                target.change(|file, path| {
                    files::write_at(file, path, &bytes, offset).map_err(|error| failed("write", path, error))
                })?;
            }
            DiskOp::CloseTarget { place, delete } => {
                self.give_up_tasks(&place);
                self.targets.close(&place, delete)?;
            }
            DiskOp::Remove(place) => {
                if !self.targets.close(&place, true)? {
                    return targets::delete(layout, &place);
                }
            }
            DiskOp::Hash { .. }
            | DiskOp::Check { .. }
            | DiskOp::OpenTarget { .. }
            | DiskOp::FinishTarget { .. }
            | DiskOp::Copy { .. }
            | DiskOp::Read(_)
            | DiskOp::Sample { .. }
            | DiskOp::Verify { .. }
            | DiskOp::VerifyFile(_)
            | DiskOp::Raise { .. }
            | DiskOp::SaveShare { .. }
            | DiskOp::RemoveShare { .. }
            | DiskOp::Commit { .. }
            | DiskOp::WritePiece { .. } => unreachable!("`begin` handles it"),
        }
        Ok(DiskReply::Done)
    }

    /// Ends the tasks on the target of a download.
    fn give_up_tasks(&mut self, place: &Place) {
        for id in self.turns.give_up(place) {
            let error = error::refused(DiskErrorKind::Lost, &self.layout.path(place), "is closed");
            self.done.push_back(DiskDone { id, result: Err(error) });
        }
    }

    /// Saves a share to the log, after its manifest, so that an acknowledged share can be served.
    fn save_share(
        &mut self,
        id: DiskId,
        share: Share,
        manifest: Option<&Manifest>,
    ) -> Result<Option<DiskReply>, DiskError> {
        if let Some(manifest) = manifest.filter(|manifest| !manifest.is_single()) {
            let how = if share.synced { Replace::Durably } else { Replace::Lightly };
            shares::save_manifest(&self.layout, manifest, how)?;
        }
        let saved = self.shares.save(id, &share)?;
        match share.synced {
            true => self.unsynced.remove(&Subject::of(&share)),
            false => self.unsynced.insert(Subject::of(&share), share),
        };
        Ok(saved)
    }

    /// Reads at most `left` bytes of pieces that are being committed, and syncs about `sync_bytes`. Returns the bytes left.
    fn run_commits(&mut self, mut left: u64, sync_bytes: u64, more: bool) -> u64 {
        if self.commits.has_work() {
            self.commits.read(self.turns.buffer(), &mut left, &mut self.done);
            let more = more || self.commits.is_reading();
            self.commits.flush(&self.layout, sync_bytes, more, &mut self.done);
        }
        left
    }
}

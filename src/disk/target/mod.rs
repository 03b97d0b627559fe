//! The target of a download: a file that is opened once, kept open, and trusted only if no other program has written into it.
//!
//! `open` chooses a name for it beside the final one, opens it exclusively and checks the content that an earlier attempt left.
//! From then on all access goes through the open file: arriving content, copies, and serving other nodes. `finish` gives it the
//! final name, after it has ensured that the content is what was verified: when another program may have written into the file, it
//! hashes every byte again.
//!
//! A target is suspect when one of these holds:
//!
//! - before a write of this node, its metadata (length, time of modification, time of change) differs from that after the last
//!   write;
//! - another program opened it meanwhile ([`watch`]), or the watch failed;
//! - it existed before, so that another program may have had it open;
//! - its file system is one that other hosts write to.

mod finish;
mod name;
mod open;
mod watch;

pub(super) use finish::Finish;
pub(super) use open::{Open, Wish};

use super::error::{failed, refused};
use super::files::{links, set_length};
use crate::io::{DiskError, DiskErrorKind, Permissions, Place};
use crate::manifest::Manifest;
use rustix::fs::{FlockOperation, flock, fstatfs};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use watch::{Disturbance, Watch, Watched};

/// Longer than a tick of any kernel's clock.
const TICK: Duration = Duration::from_millis(25);

/// File systems that may be written to past this kernel: NFS, SMB (three), FUSE, 9P, Ceph, AFS, GFS2, OCFS2, Lustre, Coda and
/// VirtualBox's. Their types are in `linux/magic.h` and in statfs(2).
const SHARED_FILE_SYSTEMS: [u32; 13] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
    0x7375_7245,
    0x786f_4256,
];

/// The metadata by which a write is detected: a write changes at least one field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn of(metadata: &Metadata) -> Look {
        Look {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// How far the content of an open file is trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Trust {
    /// Only this node has written into it.
    Own,
    /// Another program may have written into it.
    Suspect,
    /// Another program has changed it.
    Changed,
}

struct State {
    trust: Trust,
    /// The file's metadata after this node's last change.
    look: Look,
    /// Whether another program has opened the file, or could do so unseen: bytes read back may not be those written.
    others: bool,
    /// Whether this node writes no more into the file.
    closed: bool,
}

/// The open target of a download.
pub(super) struct Target {
    file: Arc<File>,
    /// Its path until it is complete.
    path: PathBuf,
    /// Its final path.
    name: PathBuf,
    /// Whether it may replace a file that has the final path.
    force: bool,
    permissions: Permissions,
    /// The time of modification that it gets, in seconds since 1970, if the download gives it one.
    modified: Option<i64>,
    manifest: Arc<Manifest>,
    watched: Option<Watched>,
    state: Mutex<State>,
}

/// The names, permissions and content of a target.
struct Purpose {
    path: PathBuf,
    name: PathBuf,
    force: bool,
    permissions: Permissions,
    modified: Option<i64>,
    manifest: Arc<Manifest>,
}

impl Target {
    /// A target whose file was just opened; `new` when this node has just created it.
    fn new(
        file: Arc<File>,
        purpose: Purpose,
        new: bool,
        watch: Option<&Arc<Watch>>,
    ) -> Result<Self, DiskError> {
        let Purpose { path, name, force, permissions, modified, manifest } = purpose;
        let watched = watch.and_then(|watch| watch.add(&file));
        let metadata = file.metadata().map_err(|error| failed("read", &path, error))?;
        let others = watched.is_none() || is_on_shared_file_system(&file);
        let trust = if new && !others { Trust::Own } else { Trust::Suspect };
        let state = Mutex::new(State { trust, look: Look::of(&metadata), others, closed: false });
        Ok(Target { file, path, name, force, permissions, modified, manifest, watched, state })
    }

    /// Its path until it is complete.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the file. Checks before that no other program has changed it, and notes its metadata afterwards.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&File, &Path) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut state = self.state();
        if state.closed {
            return Err(refused(DiskErrorKind::Lost, &self.path, "is closed: its download is over"));
        }
        self.look_at(&mut state)?;
        let result = change(&self.file, &self.path);
        if let Ok(metadata) = self.file.metadata() {
            state.look = Look::of(&metadata);
        }
        result
    }

    /// Gives the file its time of modification, if the download has one for it. It comes before the last look for changes of other
    /// programs, which would otherwise not show.
    fn date(&self) -> Result<(), DiskError> {
        let Some(modified) = self.modified else { return Ok(()) };
        self.change(|file, path| {
            name::date(file, path, modified);
            Ok(())
        })
    }

    /// Compares the file's metadata with that after this node's last change.
    fn look_at(&self, state: &mut State) -> Result<(), DiskError> {
        let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
        if links(&metadata) == 0 {
            let what = "was removed or replaced during the download";
            return Err(refused(DiskErrorKind::Lost, &self.path, what));
        }
        let look = Look::of(&metadata);
        if look != state.look {
            if state.trust < Trust::Changed {
                log::warn!(
                    "{} was changed by another program; it is hashed again at the end",
                    self.path.display()
                );
            }
            (state.trust, state.look, state.others) = (Trust::Changed, look, true);
        }
        Ok(())
    }

    /// Whether the file is suspect, so that every byte has to be hashed again. Starts to look for further changes.
    fn take_suspicion(&self) -> Result<bool, DiskError> {
        let mut state = self.state();
        self.look_at(&mut state)?;
        if state.look.length != self.manifest.length() {
            let length = self.manifest.length();
            set_length(&self.file, &self.path, length).map_err(|error| failed("write", &self.path, error))?;
            let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
            state.look = Look::of(&metadata);
        }
        // Last, so that this node's own change does not count as one of another program.
        self.look_for_others(&mut state);
        Ok(state.trust > Trust::Own)
    }

    fn look_for_others(&self, state: &mut State) {
        if self.watched.as_ref().is_some_and(|watched| watched.take_disturbance() > Disturbance::None) {
            (state.trust, state.others) = (state.trust.max(Trust::Suspect), true);
        }
    }

    /// Whether another program may write into the file. Then bytes read back may not be those written, and wrong ones do not prove
    /// that the peer sent wrong content.
    pub(super) fn has_others(&self) -> bool {
        let mut state = self.state();
        self.look_for_others(&mut state);
        state.others
    }

    /// The access of other programs to the file since the last call.
    fn take_changes(&self) -> Result<Disturbance, DiskError> {
        let mut state = self.state();
        let before = state.look;
        self.look_at(&mut state)?;
        let seen = self.watched.as_ref().map_or(Disturbance::None, Watched::take_disturbance);
        Ok(if state.look == before { seen } else { Disturbance::Written })
    }

    /// After the rename: whether another program may have changed the content since the last check. This node's own change of name
    /// and permissions shows only in the time of change.
    fn was_changed_with_name(&self) -> Result<bool, DiskError> {
        let mut state = self.state();
        let metadata = self.file.metadata().map_err(|error| failed("read", &self.name, error))?;
        let (was, is) = (state.look, Look::of(&metadata));
        state.look = is;
        let seen = self.watched.as_ref().map_or(Disturbance::None, Watched::take_disturbance);
        let same = (was.length, was.modified) == (is.length, is.modified) && seen == Disturbance::None;
        if !same {
            log::warn!("{} was opened or changed during its rename; it is hashed again", self.name.display());
        }
        Ok(!same)
    }

    /// Notes that every chunk that counts as good was just hashed, so that the file can be served.
    fn checked(&self) {
        let mut state = self.state();
        state.trust = state.trust.min(Trust::Suspect);
    }

    /// Notes that this node writes no more into the file, or, with `false`, that it does again.
    fn freeze(&self, frozen: bool) {
        self.state().closed = frozen;
        if let Some(watched) = &self.watched {
            watched.expect_no_writes(&self.file, frozen);
        }
    }

    /// Whether a further change would get another time of change than the last: file systems' clocks have ticks. `None` when the last
    /// time of change is in the future.
    fn is_settled(&self) -> Option<bool> {
        let changed = self.file.metadata().map_or((0, 0), |metadata| Look::of(&metadata).changed);
        let changed = UNIX_EPOCH + Duration::new(changed.0.max(0) as u64, changed.1 as u32);
        SystemTime::now().duration_since(changed).ok().map(|age| age >= TICK)
    }

    /// Ends this download's use of the file, and unlocks it for another download.
    pub(super) fn close(&self) {
        self.freeze(true);
        // A stream that is being closed may hold the file a moment longer.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    /// Whether this path still leads to the file.
    fn has_name(&self, path: &Path) -> bool {
        let ours = self.file.metadata();
        ours.is_ok_and(|ours| {
            path.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_on_shared_file_system(file: &File) -> bool {
    // An unknown file system may be shared.
    fstatfs(file).map_or(true, |system| SHARED_FILE_SYSTEMS.contains(&(system.f_type as u32)))
}

/// The open targets of all downloads: one descriptor for each download.
#[derive(Default)]
pub(super) struct Targets {
    open: HashMap<Place, Arc<Target>>,
    /// Created with the first download; the inner `None` when the system refuses one.
    watch: Option<Option<Arc<Watch>>>,
}

impl Targets {
    /// The file to read or serve from, if `place` is a target. A target that another program has changed is not served.
    pub(super) fn to_read(&self, place: &Place) -> Option<Result<(Arc<File>, Metadata), DiskError>> {
        let target = self.open.get(place)?;
        let metadata = match target.file.metadata() {
            Ok(metadata) => metadata,
            Err(error) => return Some(Err(failed("read", &target.path, error))),
        };
        if target.state().trust == Trust::Changed || metadata.len() < target.manifest.length() {
            let what = "was changed by another program while it was downloaded";
            return Some(Err(refused(DiskErrorKind::Changed, &target.path, what)));
        }
        Some(Ok((Arc::clone(&target.file), metadata)))
    }

    /// The target to write into. `path` is for the error.
    pub(super) fn to_fill(&self, place: &Place, path: &Path) -> Result<Arc<Target>, DiskError> {
        match self.open.get(place) {
            Some(target) => Ok(Arc::clone(target)),
            None => Err(refused(DiskErrorKind::Lost, path, "is not open")),
        }
    }

    fn insert(&mut self, place: Place, target: Arc<Target>) {
        self.open.insert(place, target);
    }

    fn watch(&mut self) -> Option<Arc<Watch>> {
        self.watch.get_or_insert_with(Watch::new).clone()
    }

    /// Closes the target of a download. Its file stays for a later attempt, unless `delete` is set. `false` when there is none.
    pub(super) fn close(&mut self, place: &Place, delete: bool) -> Result<bool, DiskError> {
        let Some(target) = self.open.remove(place) else { return Ok(false) };
        if delete && target.has_name(&target.path) {
            super::files::remove(&target.path).map_err(|error| failed("delete", &target.path, error))?;
        }
        target.close();
        Ok(true)
    }

    /// Closes a complete target.
    fn finished(&mut self, place: &Place) {
        self.open.remove(place);
    }
}

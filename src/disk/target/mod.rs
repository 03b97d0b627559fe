//! The file that a download fills: opened once, kept open, and trusted only as far as this node wrote it.
//!
//! `open` finds a name for it beside the final one, opens it exclusively and checks what an earlier attempt left there.
//! From then on everything goes through the open file: what arrives, what is copied, what is served to others. `finish`
//! gives it the final name, after it has made sure that the content is what was verified: when another program may have
//! written into the file, every byte is hashed again.
//!
//! What makes a file suspect:
//!
//! - it looks different before a write of this node from what it looked like after the last one (length, time of
//!   modification, time of change);
//! - another program opened it meanwhile ([`watch`]), or nobody can tell;
//! - it was there before, so that another program may have had it open;
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

/// File systems that others than this kernel write to: NFS, SMB (three), FUSE, 9P, Ceph, AFS, GFS2, OCFS2, Lustre, Coda and
/// VirtualBox's. Their numbers are in `linux/magic.h` and in statfs(2).
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

/// What tells one state of a file from another: a write changes one of these.
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
    /// What the file looked like after this node's last change.
    look: Look,
    /// Whether another program was seen at the file, or would not be seen: what is read back may not be what was written.
    others: bool,
    /// Nothing is written any more.
    closed: bool,
}

/// The open file of a download.
pub(super) struct Target {
    file: Arc<File>,
    /// Its name until it is complete.
    path: PathBuf,
    /// The name that it will have.
    name: PathBuf,
    /// Whether it may replace what has that name.
    force: bool,
    permissions: Permissions,
    manifest: Arc<Manifest>,
    watched: Option<Watched>,
    state: Mutex<State>,
}

/// What a file is called now, will be called, and is to become.
struct Purpose {
    path: PathBuf,
    name: PathBuf,
    force: bool,
    permissions: Permissions,
    manifest: Arc<Manifest>,
}

impl Target {
    /// A file that was just opened; `new` when this node has just made it.
    fn new(
        file: Arc<File>,
        purpose: Purpose,
        new: bool,
        watch: Option<&Arc<Watch>>,
    ) -> Result<Self, DiskError> {
        let Purpose { path, name, force, permissions, manifest } = purpose;
        let watched = watch.and_then(|watch| watch.add(&file));
        let metadata = file.metadata().map_err(|error| failed("read", &path, error))?;
        let others = watched.is_none() || is_on_shared_file_system(&file);
        let trust = if new && !others { Trust::Own } else { Trust::Suspect };
        let state = Mutex::new(State { trust, look: Look::of(&metadata), others, closed: false });
        Ok(Target { file, path, name, force, permissions, manifest, watched, state })
    }

    /// Its name until it is complete.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the file. It is checked before that no other program has changed it, and noted after what it looks like.
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

    /// Compares what the file looks like with what this node left.
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
                    "{} was changed by another program: it is checked again at the end",
                    self.path.display()
                );
            }
            (state.trust, state.look, state.others) = (Trust::Changed, look, true);
        }
        Ok(())
    }

    /// Whether every byte has to be hashed again before the content is what was verified. From here on further changes are
    /// looked for.
    fn take_suspicion(&self) -> Result<bool, DiskError> {
        let mut state = self.state();
        self.look_at(&mut state)?;
        if state.look.length != self.manifest.length() {
            let length = self.manifest.length();
            set_length(&self.file, &self.path, length).map_err(|error| failed("write", &self.path, error))?;
            let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
            state.look = Look::of(&metadata);
        }
        // Last, so that this node's own change is not taken for another program's later.
        self.look_for_others(&mut state);
        Ok(state.trust > Trust::Own)
    }

    fn look_for_others(&self, state: &mut State) {
        if self.watched.as_ref().is_some_and(|watched| watched.take_disturbance() > Disturbance::None) {
            (state.trust, state.others) = (state.trust.max(Trust::Suspect), true);
        }
    }

    /// Whether another program may be at the file: what is read back then may not be what was written, and says nothing of
    /// the peer that it came from.
    pub(super) fn has_others(&self) -> bool {
        let mut state = self.state();
        self.look_for_others(&mut state);
        state.others
    }

    /// What another program has done to the file since the last look at it.
    fn take_changes(&self) -> Result<Disturbance, DiskError> {
        let mut state = self.state();
        let before = state.look;
        self.look_at(&mut state)?;
        let seen = self.watched.as_ref().map_or(Disturbance::None, Watched::take_disturbance);
        Ok(if state.look == before { seen } else { Disturbance::Written })
    }

    /// Whether another program may have changed the content since the last look at it, now that the file has got its name. The
    /// name and the permissions are this node's own change, and show in the time of change alone.
    fn was_changed_with_name(&self) -> Result<bool, DiskError> {
        let mut state = self.state();
        let metadata = self.file.metadata().map_err(|error| failed("read", &self.name, error))?;
        let (was, is) = (state.look, Look::of(&metadata));
        state.look = is;
        let seen = self.watched.as_ref().map_or(Disturbance::None, Watched::take_disturbance);
        let same = (was.length, was.modified) == (is.length, is.modified) && seen == Disturbance::None;
        if !same {
            log::warn!(
                "{} was opened or changed as it got its name: it is hashed again",
                self.name.display()
            );
        }
        Ok(!same)
    }

    /// Every chunk that is counted as good was just hashed: what is there can be served.
    fn checked(&self) {
        let mut state = self.state();
        state.trust = state.trust.min(Trust::Suspect);
    }

    /// This node writes nothing into it any more (or does again): it has counted everything as good, or has given up.
    fn freeze(&self, frozen: bool) {
        self.state().closed = frozen;
        if let Some(watched) = &self.watched {
            watched.expect_no_writes(&self.file, frozen);
        }
    }

    /// Whether a further change would have another time than the last one: clocks of file systems tick. `None` when a time in
    /// the future tells nothing.
    fn is_settled(&self) -> Option<bool> {
        let changed = self.file.metadata().map_or((0, 0), |metadata| Look::of(&metadata).changed);
        let changed = UNIX_EPOCH + Duration::new(changed.0.max(0) as u64, changed.1 as u32);
        SystemTime::now().duration_since(changed).ok().map(|age| age >= TICK)
    }

    /// Gives it up. Another download may have the file from now on.
    pub(super) fn close(&self) {
        self.freeze(true);
        // A stream that is being cut off may hold the file for a moment longer.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    /// Whether the name still leads to this file.
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
    // One that does not say what it is may be anything.
    fstatfs(file).map_or(true, |system| SHARED_FILE_SYSTEMS.contains(&(system.f_type as u32)))
}

/// The open files of all downloads: one descriptor each, at most as many as there are downloads.
#[derive(Default)]
pub(super) struct Targets {
    open: HashMap<Place, Arc<Target>>,
    /// Made with the first download; `None` inside where there is none to be had.
    watch: Option<Option<Arc<Watch>>>,
}

impl Targets {
    /// The file to be read or served from, when `place` is a download's. Chunks of one that another program has changed are not
    /// served.
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

    /// The file to be written into. `path` is for the error.
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

    /// Gives a download's file up. It stays, to be gone on with, unless `delete` says otherwise. `false` when there is none.
    pub(super) fn close(&mut self, place: &Place, delete: bool) -> Result<bool, DiskError> {
        let Some(target) = self.open.remove(place) else { return Ok(false) };
        if delete && target.has_name(&target.path) {
            super::files::remove(&target.path).map_err(|error| failed("delete", &target.path, error))?;
        }
        target.close();
        Ok(true)
    }

    /// Lets go of a file that is complete.
    fn finished(&mut self, place: &Place) {
        self.open.remove(place);
    }
}

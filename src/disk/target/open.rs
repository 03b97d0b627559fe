//! Opening the file of a download: once, exclusively, and only one that is this user's own.

use super::name::{self, Final, OWNER_WRITES};
use super::watch::Watch;
use super::{Purpose, Target, Targets};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::error::{failed, refused};
use crate::disk::extent::{open_regular, stamp_of};
use crate::disk::files::{self, links, remove, set_length};
use crate::disk::own::Own;
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskErrorKind, DiskReply, Permissions, Place};
use crate::manifest::Manifest;
use rustix::fs::{FlockOperation, OFlags, SeekFrom, flock, fstatvfs, seek};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is there may be renamed away while it is opened: it is tried again this often.
const TRIES_MAX: usize = 4;

/// What a download wants opened.
pub(in crate::disk) struct Wish {
    pub(in crate::disk) place: Place,
    pub(in crate::disk) manifest: Arc<Manifest>,
    pub(in crate::disk) force: bool,
    /// The final name.
    pub(in crate::disk) name: PathBuf,
    pub(in crate::disk) permissions: Permissions,
}

impl Wish {
    /// Whether the file is to be the user's; otherwise it lies in the node's cache, under its final name from the start.
    fn is_users(&self) -> bool {
        matches!(self.place, Place::Partial(_))
    }
}

/// Opens the file of a download, a slice at a time: what an earlier attempt left is hashed.
pub(in crate::disk) struct Open {
    wish: Wish,
    watch: Option<Arc<Watch>>,
    /// The file at the final name, while it is hashed.
    existing: Option<Existing>,
    /// Which chunks are in that.
    old: Vec<bool>,
    /// Names that have not been tried.
    names: VecDeque<PathBuf>,
    /// What an earlier attempt left under a name, while it is hashed.
    leftover: Option<(Check, Arc<File>, PathBuf)>,
    /// The file, once it is ready.
    ready: Option<Arc<Target>>,
}

/// A file that has the final name.
struct Existing {
    check: Check,
    file: Arc<File>,
    /// What it looked like before it was hashed.
    before: Metadata,
}

/// What came of a name.
enum Tried {
    /// The file was made.
    New(Arc<File>),
    /// The file was there, is this user's, and is locked.
    Own(Arc<File>),
    /// What is there is not for this node to write into, or the name is too long.
    Unsuitable(&'static str),
}

impl Open {
    /// Begins. What can be known to fail at the end fails here.
    pub(in crate::disk) fn begin(
        mut wish: Wish,
        own: &Own,
        targets: &mut Targets,
    ) -> Result<Self, DiskError> {
        // An attempt of this node that has just ended has the file no longer.
        targets.close(&wish.place, false)?;
        let (mut existing, hash) = (None, wish.manifest.hash());
        let names = match wish.is_users() {
            true => {
                own.refuse_target(&wish.name)?;
                let Final { name, existing: there } = name::resolve(&wish.name, wish.force)?;
                wish.name = name;
                own.refuse_target(&wish.name)?;
                if let Some(there) = there {
                    existing = check_existing(&wish, there)?;
                }
                let [first, second] = name::candidates(&wish.name, &hash);
                let shorter = name::shorter(&wish.name, &hash);
                // What an earlier attempt had to take is taken again.
                match second.symlink_metadata() {
                    Ok(_) => VecDeque::from([second, first, shorter]),
                    Err(_) => VecDeque::from([first, second, shorter]),
                }
            }
            false => VecDeque::from([wish.name.clone()]),
        };
        let watch = targets.watch();
        Ok(Open { wish, watch, existing, old: Vec::new(), names, leftover: None, ready: None })
    }

    /// Hashes the file at the final name. It may be what is to be fetched.
    fn check_existing(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if let Some(Existing { check, file, before }) = &mut self.existing {
            let Step::Done(good) = check.advance(slice)? else { return Ok(None) };
            let unchanged = file.metadata().is_ok_and(|now| stamp_of(&now) == stamp_of(before));
            let whole =
                unchanged && before.len() == self.wish.manifest.length() && good.iter().all(|good| *good);
            if whole {
                let name = self.wish.name.clone();
                name::permit(file, &name, self.wish.permissions)?;
                let now = file.metadata().map_err(|error| failed("read", &name, error))?;
                return Ok(Some(DiskReply::Finished { stamp: stamp_of(&now), path: name }));
            }
            self.existing = None;
            if !self.wish.force {
                return Err(exists(&self.wish.name));
            }
            self.old = good;
        }
        Ok(None)
    }

    /// Hashes what is under a name. Only what belongs to the file to be fetched is gone on with.
    fn check_leftover(
        &mut self,
        (mut check, file, path): (Check, Arc<File>, PathBuf),
        slice: &mut Slice<'_>,
    ) -> Result<Option<DiskReply>, DiskError> {
        match check.advance(slice)? {
            Step::Goes => {
                self.leftover = Some((check, file, path));
                Ok(None)
            }
            Step::Done(good) if good.iter().any(|good| *good) => {
                self.opened(file, path, false, good).map(Some)
            }
            Step::Done(_) => self.replace_leftover(path),
        }
    }

    /// Tries the next name.
    fn try_next(&mut self) -> Result<Option<DiskReply>, DiskError> {
        let Some(path) = self.names.pop_front() else {
            let what = "cannot be fetched: the names that it could have until it is complete are taken";
            return Err(refused(DiskErrorKind::Unsuitable, &self.wish.name, what));
        };
        match self.try_name(&path)? {
            Tried::New(file) => self.opened(file, path, true, Vec::new()).map(Some),
            Tried::Own(file) if has_data(&file) => {
                let (manifest, shared) = (Arc::clone(&self.wish.manifest), Arc::clone(&file));
                let check = Check::new(shared, path.clone(), manifest, Holes::Unwritten);
                self.leftover = Some((check, file, path));
                Ok(None)
            }
            Tried::Own(file) => self.opened(file, path, false, Vec::new()).map(Some),
            Tried::Unsuitable(why) if self.names.is_empty() => {
                Err(refused(DiskErrorKind::Unsuitable, &path, why))
            }
            Tried::Unsuitable(why) => {
                log::info!("{} {why}: another name is taken", path.display());
                Ok(None)
            }
        }
    }

    /// Nothing of what is there belongs to this file. Under a name that only this file has it is deleted; under another it may
    /// be what another download left, or another program's, and is left alone.
    fn replace_leftover(&mut self, path: PathBuf) -> Result<Option<DiskReply>, DiskError> {
        let [first, _] = name::candidates(&self.wish.name, &self.wish.manifest.hash());
        if self.wish.is_users() && path == first {
            log::info!("{} holds nothing of this file: another name is taken", path.display());
            return Ok(None);
        }
        remove(&path).map_err(|error| failed("delete", &path, error))?;
        self.names.push_front(path);
        Ok(None)
    }

    fn try_name(&self, path: &Path) -> Result<Tried, DiskError> {
        let tried = |error: io::Error| failed("write", path, error);
        let mode = match self.wish.permissions {
            _ if !self.wish.is_users() => 0o600,
            // What only some may read is theirs alone from the first byte on.
            Permissions::Exact(mode) => mode.bits().unwrap_or(0) | OWNER_WRITES,
            Permissions::Usual(_) => 0o666,
        };
        for _ in 0..TRIES_MAX {
            match files::open(path, files::Open::New, mode, OFlags::NOFOLLOW) {
                Ok(file) => {
                    lock(&file, path)?;
                    return Ok(Tried::New(Arc::new(file)));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NAMETOOLONG) => {
                    return Ok(Tried::Unsuitable("is too long a name"));
                }
                Err(error) => return Err(tried(error)),
            }
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = match files::open(path, files::Open::Existing, mode, flags) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Ok(Tried::Unsuitable("is not this user's to write into")),
            };
            let metadata = file.metadata().map_err(tried)?;
            if !metadata.is_file() {
                return Ok(Tried::Unsuitable("is not a regular file"));
            }
            if metadata.uid() != geteuid().as_raw() {
                return Ok(Tried::Unsuitable("belongs to another user"));
            }
            if links(&metadata) > 1 {
                return Ok(Tried::Unsuitable("has several names"));
            }
            lock(&file, path)?;
            // The one that had it locked until now may have given it its final name.
            let named = path.symlink_metadata().is_ok_and(|there| there.ino() == metadata.ino());
            if named && there_is_no_other(&file) {
                return Ok(Tried::Own(Arc::new(file)));
            }
        }
        Ok(Tried::Unsuitable("is being written by another program"))
    }

    /// The file is this download's.
    fn opened(
        &mut self,
        file: Arc<File>,
        path: PathBuf,
        new: bool,
        good: Vec<bool>,
    ) -> Result<DiskReply, DiskError> {
        let length = self.wish.manifest.length();
        let ready = name::try_permissions(&file, &path, self.wish.permissions)
            .and_then(|()| make_room(&file, &path, length));
        if ready.is_err() && new {
            let _ = remove(&path);
        }
        ready?;
        let manifest = Arc::clone(&self.wish.manifest);
        let name = self.wish.name.clone();
        let Wish { force, permissions, .. } = self.wish;
        let purpose = Purpose { path: path.clone(), name, force, permissions, manifest };
        let target = Target::new(file, purpose, new, self.watch.as_ref())?;
        self.ready = Some(Arc::new(target));
        Ok(DiskReply::Opened { path, good, old: core::mem::take(&mut self.old) })
    }
}

impl Task for Open {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        match self.leftover.take() {
            _ if self.existing.is_some() => self.check_existing(slice),
            Some(leftover) => self.check_leftover(leftover, slice),
            None => self.try_next(),
        }
    }

    fn is_about(&self, place: &Place) -> bool {
        self.wish.place == *place
    }

    fn keep(&mut self, targets: &mut Targets) -> Result<(), DiskError> {
        if let Some(target) = self.ready.take() {
            targets.insert(self.wish.place.clone(), target);
        }
        Ok(())
    }
}

/// Prepares the hashing of the file that has the final name. `None` when that is not worth it.
fn check_existing(wish: &Wish, there: Metadata) -> Result<Option<Existing>, DiskError> {
    if !wish.force && there.len() != wish.manifest.length() {
        return Err(exists(&wish.name));
    }
    let (file, before) = match open_regular(&wish.name) {
        Ok(opened) => opened,
        // It can be replaced all the same.
        Err(_) if wish.force => return Ok(None),
        Err(_) => return Err(exists(&wish.name)),
    };
    if matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK)) {
        return Err(busy(&wish.name));
    }
    let _ = flock(&file, FlockOperation::Unlock);
    let (manifest, file) = (Arc::clone(&wish.manifest), Arc::new(file));
    let check = Check::new(Arc::clone(&file), wish.name.clone(), manifest, Holes::Zeros);
    Ok(Some(Existing { check, file, before }))
}

fn exists(name: &Path) -> DiskError {
    let what = "exists and is another file: replace it with --force, or name another with -o";
    refused(DiskErrorKind::Exists, name, what)
}

fn busy(path: &Path) -> DiskError {
    refused(DiskErrorKind::Locked, path, "is being written by another download")
}

/// Takes the file for this download alone. Where the file system knows no locks, it goes without.
fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(busy(path)),
        _ => Ok(()),
    }
}

/// Whether a file that was just locked still has its name only.
fn there_is_no_other(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| links(&metadata) == 1)
}

fn has_data(file: &File) -> bool {
    let there = file.metadata().map_or(0, |metadata| metadata.len());
    match seek(file, SeekFrom::Data(0)) {
        Ok(at) => at < there,
        Err(Errno::NXIO) => false,
        Err(_) => there > 0,
    }
}

/// Gives the file its length, if the file system has the space that it still lacks.
fn make_room(file: &File, path: &Path, length: u64) -> Result<(), DiskError> {
    let tried = |error: io::Error| failed("write", path, error);
    let metadata = file.metadata().map_err(tried)?;
    let lacking = length.saturating_sub(metadata.blocks().saturating_mul(512));
    let free = fstatvfs(file).map_or(u64::MAX, |system| system.f_bavail.saturating_mul(system.f_frsize));
    if lacking > free {
        let what =
            format_args!("needs {lacking} bytes more than it has, and {free} are free on its file system");
        return Err(refused(DiskErrorKind::NoSpace, path, what));
    }
    if metadata.len() != length {
        set_length(file, path, length).map_err(tried)?;
    }
    Ok(())
}

//! Opens the target of a download: once, exclusively, and only a file of this user.

use super::name::{self, Final, OWNER_WRITES};
use super::watch::Watch;
use super::{Purpose, Target, Targets};
use crate::disk::check::{Check, Holes, Step};
use crate::disk::error::{failed, refused};
use crate::disk::extent::{open_regular, stamp_of};
use crate::disk::files::{self, links, remove, set_length};
use crate::disk::own::Own;
use crate::disk::tasks::{Slice, Task};
use crate::io::{DiskError, DiskErrorKind, DiskReply, Permissions, Place, Tree};
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

/// The number of attempts: an existing file may be renamed away while it is opened.
const TRIES_MAX: usize = 4;

/// The target that a download asks for.
pub(in crate::disk) struct Wish {
    pub(in crate::disk) place: Place,
    pub(in crate::disk) manifest: Arc<Manifest>,
    pub(in crate::disk) force: bool,
    /// The final name.
    pub(in crate::disk) name: PathBuf,
    pub(in crate::disk) permissions: Permissions,
    /// The tree of a file that is one of a set.
    pub(in crate::disk) tree: Option<Tree>,
}

impl Wish {
    /// Whether the file is for the user. Otherwise it is in the node's cache, under its final name from the start.
    fn is_users(&self) -> bool {
        matches!(self.place, Place::Partial(_))
    }
}

/// Opens the target of a download as a task: it hashes the content that an earlier attempt left.
pub(in crate::disk) struct Open {
    wish: Wish,
    watch: Option<Arc<Watch>>,
    /// The file with the final name, while it is hashed.
    existing: Option<Existing>,
    /// For each chunk, whether that file has it.
    old: Vec<bool>,
    /// Names that have not been tried.
    names: VecDeque<PathBuf>,
    /// The file that an earlier attempt left, while it is hashed.
    leftover: Option<(Check, Arc<File>, PathBuf)>,
    /// The target, once it is open.
    ready: Option<Arc<Target>>,
}

/// A file that has the final name.
struct Existing {
    check: Check,
    file: Arc<File>,
    /// Its metadata before it was hashed.
    before: Metadata,
}

/// The result of trying a name.
enum Tried {
    /// The file was created.
    New(Arc<File>),
    /// The file existed, belongs to this user, and is locked now.
    Own(Arc<File>),
    /// This node may not write into the existing file, or the name is too long.
    Unsuitable(&'static str),
}

impl Open {
    /// Begins. Every foreseeable error of the final rename is returned here, before the download.
    pub(in crate::disk) fn begin(
        mut wish: Wish,
        own: &Own,
        targets: &mut Targets,
    ) -> Result<Self, DiskError> {
        // An earlier attempt of this node may not have closed its target yet.
        targets.close(&wish.place, false)?;
        let (mut existing, hash) = (None, wish.manifest.hash());
        let names = match wish.is_users() {
            true => {
                own.refuse_target(&wish.name)?;
                if let Some(tree) = &wish.tree {
                    name::stays_in(&tree.root, &wish.name)?;
                }
                let Final { name, existing: there } = name::resolve(&wish.name, wish.force)?;
                wish.name = name;
                own.refuse_target(&wish.name)?;
                if let Some(there) = there {
                    existing = check_existing(&wish, there)?;
                }
                let [first, second] = name::candidates(&wish.name, &hash);
                let shorter = name::shorter(&wish.name, &hash);
                // If an earlier attempt had to use the second name, it comes first.
                match second.symlink_metadata() {
                    // `NAME.part` may itself be a file of the set. The other names contain the hash.
                    _ if wish.tree.is_some() => VecDeque::from([second, shorter]),
                    Ok(_) => VecDeque::from([second, first, shorter]),
                    Err(_) => VecDeque::from([first, second, shorter]),
                }
            }
            false => VecDeque::from([wish.name.clone()]),
        };
        let watch = targets.watch();
        Ok(Open { wish, watch, existing, old: Vec::new(), names, leftover: None, ready: None })
    }

    /// Hashes the file with the final name, which may have the requested content already.
    fn check_existing(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if let Some(Existing { check, file, before }) = &mut self.existing {
            let Step::Done(good) = check.advance(slice)? else { return Ok(None) };
            let unchanged = file.metadata().is_ok_and(|now| stamp_of(&now) == stamp_of(before));
            let whole =
                unchanged && before.len() == self.wish.manifest.length() && good.iter().all(|good| *good);
            if whole {
                let name = self.wish.name.clone();
                name::permit(file, &name, self.wish.permissions)?;
                if let Some(modified) = self.wish.tree.as_ref().and_then(|tree| tree.modified) {
                    name::date(file, &name, modified);
                }
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

    /// Hashes the file that an earlier attempt left. It is used only if it has a chunk of the requested file.
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
            let what =
                "cannot be fetched: all its temporary names (.part) are taken by other files; remove them";
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
                log::info!("{} {why}: the download uses another name", path.display());
                Ok(None)
            }
        }
    }

    /// Handles a leftover without a chunk of the requested file. With a name that contains the file's hash it is deleted. With
    /// another name it may belong to another download or program, so it stays.
    fn replace_leftover(&mut self, path: PathBuf) -> Result<Option<DiskReply>, DiskError> {
        let [first, _] = name::candidates(&self.wish.name, &self.wish.manifest.hash());
        if self.wish.is_users() && path == first {
            log::info!("{} has no part of this file: the download uses another name", path.display());
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
            // A restricted file is restricted from its first byte on.
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
                    return Ok(Tried::Unsuitable("has a name that is too long"));
                }
                Err(error) => return Err(tried(error)),
            }
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = match files::open(path, files::Open::Existing, mode, flags) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Ok(Tried::Unsuitable("is not writable for this user")),
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
            // The download that had it locked may have renamed it meanwhile.
            let named = path.symlink_metadata().is_ok_and(|there| there.ino() == metadata.ino());
            if named && has_one_name(&file) {
                return Ok(Tried::Own(Arc::new(file)));
            }
        }
        Ok(Tried::Unsuitable("is being written by another program"))
    }

    /// Makes the opened file the target of this download.
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
        let modified = self.wish.tree.as_ref().and_then(|tree| tree.modified);
        let purpose = Purpose { path: path.clone(), name, force, permissions, modified, manifest };
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

/// Prepares the hashing of the file that has the final name. `None` when it cannot be read and is going to be replaced.
fn check_existing(wish: &Wish, there: Metadata) -> Result<Option<Existing>, DiskError> {
    if !wish.force && there.len() != wish.manifest.length() {
        return Err(exists(&wish.name));
    }
    let (file, before) = match open_regular(&wish.name) {
        Ok(opened) => opened,
        // An unreadable file can still be replaced.
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
    let what = "exists and is another file: replace it with --force, or choose another path with -o";
    refused(DiskErrorKind::Exists, name, what)
}

fn busy(path: &Path) -> DiskError {
    refused(DiskErrorKind::Locked, path, "is being written by another download")
}

/// Locks the file for this download. A file system without locks is accepted.
fn lock(file: &File, path: &Path) -> Result<(), DiskError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(busy(path)),
        _ => Ok(()),
    }
}

/// Whether a file that was just locked has only one name.
fn has_one_name(file: &File) -> bool {
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

/// Gives the file its final length, if the file system has enough free space.
fn make_room(file: &File, path: &Path, length: u64) -> Result<(), DiskError> {
    let tried = |error: io::Error| failed("write", path, error);
    let metadata = file.metadata().map_err(tried)?;
    let lacking = length.saturating_sub(metadata.blocks().saturating_mul(512));
    let free = fstatvfs(file).map_or(u64::MAX, |system| system.f_bavail.saturating_mul(system.f_frsize));
    if lacking > free {
        let what = format!("needs {lacking} more bytes, but only {free} are free on its file system");
        return Err(refused(DiskErrorKind::NoSpace, path, what));
    }
    if metadata.len() != length {
        set_length(file, path, length).map_err(tried)?;
    }
    Ok(())
}

//! The directory that a set goes into. Every step is by a name in an open directory and follows no symbolic link, so nothing that is
//! made, changed or deleted lies outside.

use super::walk::{open_directory, read_names};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, mkdirat, openat, readlinkat, renameat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a directory needs so that entries can be made in it.
const OWNER: u32 = 0o700;
/// The permission bits and the three special bits.
const ALL_BITS: u32 = 0o7777;

/// A path into the directory, each part of it open.
pub(super) struct Tree {
    root: OwnedFd,
    below: Vec<OwnedFd>,
}

impl Tree {
    /// Opens the directory.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = open_directory(CWD, root.as_os_str(), OFlags::empty())?;
        Ok(Tree { root, below: Vec::new() })
    }

    /// The present directory.
    pub(super) fn here(&self) -> &OwnedFd {
        self.below.last().unwrap_or(&self.root)
    }

    /// The number of directories below the root.
    pub(super) fn depth(&self) -> usize {
        self.below.len()
    }

    /// Goes into a directory. One that is not there is made. A file or a link with its name gives way.
    pub(super) fn enter(&mut self, name: &[u8], mode: u16) -> io::Result<()> {
        let (here, name) = (self.here(), OsStr::from_bytes(name));
        let mode = Mode::from_raw_mode(u32::from(mode) | OWNER);
        match look(here, name)? {
            Some(there) if is_directory(&there) => {}
            there => {
                if there.is_some() {
                    unlinkat(here, name, AtFlags::empty())?;
                }
                mkdirat(here, name, mode)?;
            }
        }
        let directory = match open_directory(here, name, OFlags::NOFOLLOW) {
            Err(Errno::ACCESS) => open_closed(here, name, mode)?,
            opened => opened?,
        };
        let has = fstat(&directory)?.st_mode;
        if has & OWNER != OWNER {
            // The last pass gives it the mode of the set. A directory of another user may be writable all the same.
            let _ = fchmod(&directory, Mode::from_raw_mode(has & ALL_BITS | OWNER));
        }
        self.below.push(directory);
        Ok(())
    }

    /// Goes back to the directory around the present one.
    pub(super) fn leave(&mut self) {
        self.below.pop();
    }

    /// What has this name.
    pub(super) fn look(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        Ok(look(self.here(), OsStr::from_bytes(name))?)
    }

    /// Removes what has this name, with `all` also a directory that is not empty. Returns the number of entries removed.
    pub(super) fn remove(&self, name: &[u8], all: bool) -> io::Result<u64> {
        Ok(remove(self.here(), OsStr::from_bytes(name), all)?)
    }

    /// Makes a symbolic link, and replaces what is there. Returns whether anything had to be changed.
    pub(super) fn link(&self, name: &[u8], target: &[u8], delete: bool) -> io::Result<bool> {
        let (here, name, target) = (self.here(), OsStr::from_bytes(name), OsStr::from_bytes(target));
        let there = look(here, name)?;
        let is_link =
            there.as_ref().is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Symlink);
        if is_link && readlinkat(here, name, Vec::new())?.as_bytes() == target.as_bytes() {
            return Ok(false);
        }
        if there.as_ref().is_some_and(is_directory) {
            remove(here, name, delete)?;
        }
        let temporary = temporary("link");
        match unlinkat(here, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        symlinkat(target, here, &temporary)?;
        if let Err(errno) = renameat(here, &temporary, here, name) {
            let _ = unlinkat(here, &temporary, AtFlags::empty());
            return Err(errno.into());
        }
        Ok(true)
    }

    /// The names in the present directory.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        read_names(self.here(), usize::MAX).map_err(io::Error::other)
    }

    /// Gives the present directory these permission bits. Its special bits stay: they are its owner's.
    pub(super) fn permit(&self, mode: u16) -> io::Result<()> {
        let has = fstat(self.here())?.st_mode & ALL_BITS;
        let wanted = has & !0o777 | u32::from(mode);
        if has == wanted { Ok(()) } else { Ok(fchmod(self.here(), Mode::from_raw_mode(wanted))?) }
    }
}

/// A name that this process alone uses.
pub(super) fn temporary(what: &str) -> String {
    format!(".elver-{}-{what}.part", std::process::id())
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn look(here: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory of this user whose mode does not let its owner in, and gives it this mode. Its name is followed once and leads
/// to no other place: another user may replace the directory by a symbolic link meanwhile.
fn open_closed(here: &OwnedFd, name: &OsStr, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(here, name, flags, Mode::empty()).map_err(|_| Errno::ACCESS)?;
    let there = fstat(&directory)?;
    if !is_directory(&there) || there.st_uid != geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    // fchmod(2) takes no descriptor that was opened with O_PATH.
    chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), mode).map_err(|_| Errno::ACCESS)?;
    open_directory(&directory, OsStr::new("."), OFlags::empty())
}

fn remove(here: &OwnedFd, name: &OsStr, all: bool) -> Result<u64, Errno> {
    let Some(there) = look(here, name)? else { return Ok(0) };
    if !is_directory(&there) {
        return unlinkat(here, name, AtFlags::empty()).map(|()| 1);
    }
    let mut removed = 1;
    if all {
        let directory = open_directory(here, name, OFlags::NOFOLLOW)?;
        for name in read_names(&directory, usize::MAX).map_err(|_| Errno::IO)? {
            removed += remove(&directory, &name, true)?;
        }
    }
    unlinkat(here, name, AtFlags::REMOVEDIR).map(|()| removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn no_step_follows_a_link_out_of_the_directory() {
        let (scratch, outside) = (Scratch::new(), Scratch::new());
        fs::write(outside.path().join("mine"), "x").unwrap();
        symlink(outside.path(), scratch.path().join("d")).unwrap();
        symlink(outside.path(), scratch.path().join("l")).unwrap();
        let mut tree = Tree::open(scratch.path()).unwrap();
        // What is removed is the link.
        assert_eq!(tree.remove(b"l", true).unwrap(), 1);
        tree.enter(b"d", 0o755).unwrap();
        assert!(scratch.path().join("d").symlink_metadata().unwrap().is_dir());
        assert!(tree.link(b"to", b"../x", false).unwrap() && !tree.link(b"to", b"../x", false).unwrap());
        assert!(tree.link(b"to", b"../y", false).unwrap());
        assert_eq!(fs::read_link(scratch.path().join("d/to")).unwrap(), Path::new("../y"));
        fs::create_dir(scratch.path().join("d/deep")).unwrap();
        symlink(outside.path(), scratch.path().join("d/deep/out")).unwrap();
        assert!(tree.remove(b"deep", false).is_err(), "it is not empty");
        assert_eq!(tree.remove(b"deep", true).unwrap(), 2);
        assert_eq!(fs::read(outside.path().join("mine")).unwrap(), b"x");
    }

    #[test]
    fn a_closed_directory_is_opened_and_a_link_in_its_place_is_not_followed() {
        let (scratch, outside) = (Scratch::new(), Scratch::new());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let theirs = outside.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&theirs, scratch.path().join("l")).unwrap();
        fs::create_dir(scratch.path().join("d")).unwrap();
        fs::set_permissions(scratch.path().join("d"), fs::Permissions::from_mode(0)).unwrap();
        let tree = Tree::open(scratch.path()).unwrap();
        let open = |name| open_closed(tree.here(), OsStr::new(name), Mode::from_raw_mode(0o750));
        assert_eq!(open("l").unwrap_err(), Errno::ACCESS);
        assert_eq!(mode(&theirs), 0o700);
        assert!(open("d").is_ok());
        assert_eq!(mode(&scratch.path().join("d")), 0o750);
    }

    #[test]
    fn a_directory_can_be_written_into_until_it_gets_its_mode() {
        let scratch = Scratch::new();
        let mode = || scratch.path().join("d").metadata().unwrap().permissions().mode() & 0o7777;
        for set in [0o2550_u32, 0o2000] {
            fs::create_dir_all(scratch.path().join("d")).unwrap();
            fs::set_permissions(scratch.path().join("d"), fs::Permissions::from_mode(set)).unwrap();
            let mut tree = Tree::open(scratch.path()).unwrap();
            tree.enter(b"d", 0o510).unwrap();
            assert_eq!(mode() & 0o700, 0o700);
            tree.permit(0o510).unwrap();
            assert_eq!(mode() & 0o777, 0o510);
            tree.leave();
            assert_eq!(tree.depth(), 0);
            fs::set_permissions(scratch.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}

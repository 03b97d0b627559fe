//! The directory that a set goes into. Every step is by a name in an open directory and follows no symbolic link, so nothing that is
//! made, changed or deleted lies outside.

use super::walk::{open_directory, read_names};
use crate::cli::output::shown;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, chmod, fchmod, fstat, mkdirat,
    openat, readlinkat, renameat, statat, statx, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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

    /// Goes into a directory. One that is not there is made. A file or a link with its name gives way, and is added to `gave_way`.
    pub(super) fn enter(&mut self, name: &[u8], mode: u16, gave_way: &mut u64) -> io::Result<()> {
        let (here, name) = (self.here(), OsStr::from_bytes(name));
        let mode = Mode::from_raw_mode(u32::from(mode) | OWNER);
        match look(here, name)? {
            Some(there) if is_directory(&there) => {}
            there => {
                if there.is_some() {
                    unlinkat(here, name, AtFlags::empty())?;
                    *gave_way += 1;
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

    /// Goes from the root to a directory that is there.
    pub(super) fn go(&mut self, place: &Path) -> io::Result<()> {
        self.below.clear();
        for name in place {
            let directory = open_directory(self.here(), name, OFlags::NOFOLLOW)?;
            self.below.push(directory);
        }
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

    /// Removes what has this name, with `all` also a directory that is not empty, unless a mount is in it. Adds the number of entries
    /// removed to `removed`, also when it fails.
    pub(super) fn remove(&self, name: &[u8], all: bool, removed: &mut u64) -> io::Result<()> {
        remove_checked(self.here(), OsStr::from_bytes(name), all, removed)
    }

    /// Makes a symbolic link, and replaces what is there, with `delete` also a directory that is not empty. Returns whether anything
    /// had to be changed, and adds the number of entries removed for it to `removed`.
    pub(super) fn link(
        &self,
        name: &[u8],
        target: &[u8],
        delete: bool,
        removed: &mut u64,
    ) -> io::Result<bool> {
        let (here, name, target) = (self.here(), OsStr::from_bytes(name), OsStr::from_bytes(target));
        let there = look(here, name)?;
        let is_link =
            there.as_ref().is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Symlink);
        if is_link && readlinkat(here, name, Vec::new())?.as_bytes() == target.as_bytes() {
            return Ok(false);
        }
        if there.as_ref().is_some_and(is_directory) {
            remove_checked(here, name, delete, removed)?;
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

/// Looks for mounts before it removes anything.
fn remove_checked(here: &OwnedFd, name: &OsStr, all: bool, removed: &mut u64) -> io::Result<()> {
    let device = fstat(here)?.st_dev;
    let mount = match all {
        true => find_mount(here, name, device, Path::new(name))?,
        false => is_mount_root(here, name).then(|| name.into()),
    };
    if let Some(mount) = mount {
        let what = "is a mount, or of another file system than the directory around it: unmount it first";
        return Err(io::Error::other(format!("{} {what}", shown(&mount))));
    }
    Ok(remove(here, name, device, all, removed)?)
}

/// The first mount among what has this name and all that is below; `device` is that of the directory around it. `path` is its path,
/// for messages.
fn find_mount(here: &OwnedFd, name: &OsStr, device: u64, path: &Path) -> Result<Option<PathBuf>, Errno> {
    let Some(there) = look(here, name)? else { return Ok(None) };
    let is_directory = is_directory(&there);
    if is_directory && there.st_dev != device || is_mount_root(here, name) {
        return Ok(Some(path.to_owned()));
    }
    if is_directory {
        let directory = open_directory(here, name, OFlags::NOFOLLOW)?;
        for name in read_names(&directory, usize::MAX).map_err(|_| Errno::IO)? {
            if let Some(mount) = find_mount(&directory, &name, device, &path.join(&name))? {
                return Ok(Some(mount));
            }
        }
    }
    Ok(None)
}

/// Whether something is mounted here, which may be from the same file system. Kernels before 5.8 do not tell.
fn is_mount_root(here: &OwnedFd, name: &OsStr) -> bool {
    statx(here, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn remove(here: &OwnedFd, name: &OsStr, device: u64, all: bool, removed: &mut u64) -> Result<(), Errno> {
    let Some(there) = look(here, name)? else { return Ok(()) };
    let mut flags = AtFlags::empty();
    if is_directory(&there) {
        flags = AtFlags::REMOVEDIR;
        if all {
            let directory = open_directory(here, name, OFlags::NOFOLLOW)?;
            // It was mounted since the check.
            if fstat(&directory)?.st_dev != device {
                return Err(Errno::XDEV);
            }
            for name in read_names(&directory, usize::MAX).map_err(|_| Errno::IO)? {
                remove(&directory, &name, device, true, removed)?;
            }
        }
    }
    unlinkat(here, name, flags)?;
    *removed += 1;
    Ok(())
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
        let (mut removed, mut gave_way) = (0, 0);
        tree.remove(b"l", true, &mut removed).unwrap();
        assert_eq!(removed, 1);
        tree.enter(b"d", 0o755, &mut gave_way).unwrap();
        assert_eq!(gave_way, 1);
        assert!(scratch.path().join("d").symlink_metadata().unwrap().is_dir());
        let mut link = |target| tree.link(b"to", target, false, &mut removed).unwrap();
        assert!(link(b"../x") && !link(b"../x") && link(b"../y"));
        assert_eq!(fs::read_link(scratch.path().join("d/to")).unwrap(), Path::new("../y"));
        fs::create_dir(scratch.path().join("d/deep")).unwrap();
        symlink(outside.path(), scratch.path().join("d/deep/out")).unwrap();
        assert!(tree.remove(b"deep", false, &mut removed).is_err(), "it is not empty");
        assert_eq!(removed, 1);
        tree.remove(b"deep", true, &mut removed).unwrap();
        assert_eq!(removed, 3);
        assert_eq!(fs::read(outside.path().join("mine")).unwrap(), b"x");
    }

    /// Mounts need a name space of their own: the test runs itself again in one, where that is allowed.
    #[test]
    fn nothing_is_removed_from_a_directory_with_a_mount_in_it() {
        const NAME: &str = "cli::sets::tree::tests::nothing_is_removed_from_a_directory_with_a_mount_in_it";
        const ROOT: &str = "ELVER_TEST_MOUNTS";
        if let Some(root) = std::env::var_os(ROOT) {
            return refuse_mounts(Path::new(&root));
        }
        let scratch = Scratch::new();
        for name in ["tmpfs/a", "tmpfs/m", "bind/a", "bind/m", "elsewhere"] {
            fs::create_dir_all(scratch.path().join(name)).unwrap();
        }
        fs::write(scratch.path().join("elsewhere/mine"), "x").unwrap();
        let mounts =
            "cd \"$0\" && mount -t tmpfs none tmpfs/m && touch tmpfs/m/mine && mount --bind elsewhere bind/m";
        let shell = |more: &str| {
            let mut command = std::process::Command::new("unshare");
            command.args(["--mount", "sh", "-c", &format!("{mounts}{more}")]).arg(scratch.path());
            command.arg(std::env::current_exe().unwrap()).args(["--exact", NAME]).env(ROOT, scratch.path());
            command.output()
        };
        if !shell("").is_ok_and(|output| output.status.success()) {
            return;
        }
        let output = shell(" && exec \"$@\"").unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{output:?}");
    }

    fn refuse_mounts(root: &Path) {
        let (tree, mut removed) = (Tree::open(root).unwrap(), 0);
        for name in ["tmpfs", "bind"] {
            let error = tree.remove(name.as_bytes(), true, &mut removed).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name}/m is a mount")), "{error}");
            assert!(root.join(name).join("m/mine").exists() && root.join(name).join("a").exists());
        }
        assert!(tree.link(b"tmpfs", b"x", true, &mut removed).is_err());
        let inside = Tree::open(&root.join("tmpfs")).unwrap();
        assert!(inside.remove(b"m", true, &mut removed).is_err());
        assert!(root.join("tmpfs/m/mine").exists());
        assert_eq!(removed, 0);
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
        fs::set_permissions(scratch.path().join("d"), fs::Permissions::from_mode(0o000)).unwrap();
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
            tree.enter(b"d", 0o510, &mut 0).unwrap();
            assert_eq!(mode() & 0o700, 0o700);
            tree.permit(0o510).unwrap();
            assert_eq!(mode() & 0o777, 0o510);
            tree.leave();
            assert_eq!(tree.depth(), 0);
            fs::set_permissions(scratch.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}

//! The entries of a directory, in the order of a list.
//!
//! Each directory is opened by its name in the one around it, so that a directory that is moved meanwhile does not lead elsewhere.

use super::ignore::Patterns;
use crate::set::{DEPTH_MAX, ENTRIES_MAX, TIME_MAX, stays_inside};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, stat, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The name of the file that says what is left out.
const IGNORE: &str = ".elverignore";

/// A directory or a file, whatever its name.
pub(super) type Inode = (u64, u64);

pub(super) fn inode(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// What the walk comes across.
#[derive(Debug)]
pub(super) enum Found {
    /// A directory; what follows up to its end is inside.
    Directory { name: Vec<u8>, mode: u16 },
    /// A regular file.
    File { path: PathBuf, source: Source, opened: Opened },
    /// A symbolic link that stays inside.
    Link { name: Vec<u8>, target: Vec<u8> },
    /// The end of a directory, at last of the first one.
    End,
    /// Something that a set does not contain.
    LeftOut { path: PathBuf, why: &'static str },
    /// Something that cannot be read.
    Failed { path: PathBuf, why: String },
}

/// The place of a file, where it is opened, and looked at again.
#[derive(Debug)]
pub(super) struct Source {
    directory: Rc<OwnedFd>,
    name: OsString,
    follow: bool,
}

/// A file that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// `None` when this user may not read it. The node may be allowed to.
    pub(super) file: Option<File>,
    /// The permission bits.
    pub(super) mode: u16,
    /// What the file was before its content was read.
    pub(super) stamp: Stamp,
}

/// What another content changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    inode: Inode,
    length: i64,
    /// In nanoseconds since 1970.
    modified: i128,
    changed: i128,
}

impl Source {
    /// Its name in its directory.
    pub(super) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// Opens the file. The error is for the user.
    pub(super) fn open(&self) -> Result<Opened, String> {
        let links = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = links | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // The attributes are those of the file that is open.
        let opened = match openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(file) => fstat(&file).map(|entry| (Some(File::from(file)), entry)),
            Err(Errno::ACCESS) => self.look().map(|entry| (None, entry)),
            Err(errno) => Err(errno),
        };
        let (file, entry) = opened.map_err(|errno| errno.to_string())?;
        if FileType::from_raw_mode(entry.st_mode) != FileType::RegularFile {
            return Err("it has become something else than a file meanwhile".to_owned());
        }
        Ok(Opened { file, mode: mode_of(&entry), stamp: Stamp::of(&entry) })
    }

    /// Whether the file is still what it was.
    pub(super) fn is_still(&self, stamp: Stamp) -> bool {
        self.look().is_ok_and(|entry| Stamp::of(&entry) == stamp)
    }

    fn look(&self) -> Result<Stat, Errno> {
        let links = if self.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        statat(&self.directory, &self.name, links)
    }
}

impl Stamp {
    fn of(entry: &Stat) -> Self {
        let time = |seconds: i64, rest: i128| i128::from(seconds) * 1_000_000_000 + rest;
        Stamp {
            inode: inode(entry),
            length: entry.st_size,
            modified: time(entry.st_mtime, i128::from(entry.st_mtime_nsec)),
            changed: time(entry.st_ctime, i128::from(entry.st_ctime_nsec)),
        }
    }

    /// The time of modification for the list, in seconds since 1970.
    pub(super) fn modified(self) -> i64 {
        let seconds = self.modified.div_euclid(1_000_000_000);
        i64::try_from(seconds).unwrap_or(i64::MAX).clamp(-TIME_MAX, TIME_MAX)
    }

    /// How long after `now` another content still could get this time of modification. Lists have whole seconds, and some file
    /// systems only every second one of them.
    pub(super) fn stays_fresh(self, now: SystemTime) -> Duration {
        const FRESH: i128 = 2_000_000_000;
        let now = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            // A clock that stands before 1970 is set later, and then far from all these times.
            Err(_) => return Duration::ZERO,
        };
        let left = self.modified.saturating_add(FRESH).saturating_sub(now);
        match left {
            // A time further ahead was set on purpose; a write gives the file another one.
            left if left > 2 * FRESH => Duration::ZERO,
            left => Duration::from_nanos(u64::try_from(left).unwrap_or(0)),
        }
    }
}

/// A walk through a directory.
pub(super) struct Walk {
    /// The directories from the first one to the present one; empty at the end.
    levels: Vec<Level>,
    follow: bool,
    /// The node's own directory, which is never part of a set.
    own: Option<Inode>,
    /// What the patterns left out.
    pub(super) ignored: u64,
}

struct Level {
    /// The files in it that are under way need it, too.
    directory: Rc<OwnedFd>,
    inode: Inode,
    path: PathBuf,
    /// Those of its `.elverignore`.
    patterns: Option<Patterns>,
    names: std::vec::IntoIter<OsString>,
}

impl Walk {
    /// Begins in the directory at the absolute path `root`. `follow` takes what symbolic links lead to; `own` is the directory of the
    /// node.
    pub(super) fn new(root: &Path, follow: bool, own: &Path) -> Result<Self, String> {
        let directory =
            open_directory(CWD, root.as_os_str(), OFlags::empty()).map_err(|errno| errno.to_string())?;
        let level = Level::new(directory, root.to_owned()).map_err(|error| error.1)?;
        Ok(Walk { levels: vec![level], follow, own: stat(own).ok().as_ref().map(inode), ignored: 0 })
    }

    /// The next entry; `None` after the end of the first directory.
    pub(super) fn next(&mut self) -> Option<Found> {
        loop {
            let depth = self.levels.len().checked_sub(1)?;
            let Some(name) = self.levels[depth].names.next() else {
                self.levels.pop();
                return Some(Found::End);
            };
            if let Some(found) = self.enter(depth, name) {
                return Some(found);
            }
        }
    }

    fn enter(&mut self, depth: usize, name: OsString) -> Option<Found> {
        let level = &self.levels[depth];
        let path = level.path.join(&name);
        let failed = |path: PathBuf, errno: Errno| Some(Found::Failed { path, why: errno.to_string() });
        let mut entry = match statat(&level.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(entry) => entry,
            Err(errno) => return failed(path, errno),
        };
        let left_out = |path, why| Some(Found::LeftOut { path, why });
        let mut kind = FileType::from_raw_mode(entry.st_mode);
        if self.is_left_out(&path, kind == FileType::Directory) {
            self.ignored += 1;
            return None;
        }
        if kind == FileType::Symlink {
            if !self.follow {
                return match readlinkat(&level.directory, &name, Vec::new()) {
                    Ok(target) if stays_inside(target.as_bytes(), depth) => {
                        Some(Found::Link { name: name.into_vec(), target: target.into_bytes() })
                    }
                    Ok(_) => left_out(path, "a symbolic link that leads out of the directory, or may do so"),
                    Err(errno) => failed(path, errno),
                };
            }
            match statat(&level.directory, &name, AtFlags::empty()) {
                Ok(there) => entry = there,
                Err(Errno::NOENT | Errno::LOOP) => {
                    return left_out(path, "a symbolic link that leads to nothing");
                }
                Err(errno) => return failed(path, errno),
            }
            kind = FileType::from_raw_mode(entry.st_mode);
            // A pattern for directories alone holds for what the link leads to, too.
            if self.is_left_out(&path, kind == FileType::Directory) {
                self.ignored += 1;
                return None;
            }
        }
        let links = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        match kind {
            FileType::Directory if Some(inode(&entry)) == self.own => {
                left_out(path, "the node's own directory")
            }
            FileType::Directory if self.levels.iter().any(|level| level.inode == inode(&entry)) => {
                left_out(path, "a symbolic link to a directory around it")
            }
            FileType::Directory if depth == DEPTH_MAX => {
                Some(Found::Failed { path, why: format!("it is deeper than {DEPTH_MAX} directories") })
            }
            FileType::Directory => {
                let opened = open_directory(&level.directory, &name, links);
                match opened
                    .map_err(|errno| (path.clone(), errno.to_string()))
                    .and_then(|d| Level::new(d, path))
                {
                    Ok(level) => {
                        self.levels.push(level);
                        Some(Found::Directory { name: name.into_vec(), mode: mode_of(&entry) })
                    }
                    Err((path, why)) => Some(Found::Failed { path, why }),
                }
            }
            FileType::RegularFile => {
                let source = Source { directory: Rc::clone(&level.directory), name, follow: self.follow };
                Some(match source.open() {
                    Ok(opened) => Found::File { path, source, opened },
                    Err(why) => Found::Failed { path, why },
                })
            }
            FileType::Fifo => left_out(path, "a pipe"),
            FileType::Socket => left_out(path, "a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => left_out(path, "a device"),
            _ => left_out(path, "neither a file, a directory nor a symbolic link"),
        }
    }

    /// Whether the patterns leave an entry out. Those of the deepest directory come first.
    fn is_left_out(&self, path: &Path, is_directory: bool) -> bool {
        let decided = self.levels.iter().rev().find_map(|level| {
            let below = path.strip_prefix(&level.path).ok()?;
            level.patterns.as_ref()?.decide(below.as_os_str().as_bytes(), is_directory)
        });
        decided.unwrap_or(false)
    }
}

impl Level {
    /// Reads the names in a directory. The error names what could not be read.
    fn new(directory: OwnedFd, path: PathBuf) -> Result<Self, (PathBuf, String)> {
        let names = read_names(&directory, usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX));
        let names = match names {
            Ok(names) => names.into_iter(),
            Err(why) => return Err((path, why)),
        };
        let inode = match fstat(&directory) {
            Ok(stat) => inode(&stat),
            Err(errno) => return Err((path, errno.to_string())),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let patterns = match openat(&directory, IGNORE, flags, Mode::empty()) {
            Ok(file) => match Patterns::read(File::from(file)) {
                Ok(patterns) => Some(patterns),
                Err(error) => return Err((path.join(IGNORE), error.to_string())),
            },
            Err(Errno::NOENT) => None,
            // Without its patterns, what the user wants to keep private would be shared.
            Err(errno) => return Err((path.join(IGNORE), errno.to_string())),
        };
        Ok(Level { directory: Rc::new(directory), inode, path, patterns, names })
    }
}

/// The names in a directory, as bytes in ascending order.
pub(super) fn read_names(directory: &OwnedFd, max: usize) -> Result<Vec<OsString>, String> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(|errno| errno.to_string())? {
        let entry = entry.map_err(|errno| errno.to_string())?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
        if names.len() > max {
            return Err(format!("it has more than {max} entries"));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory to read it.
pub(super) fn open_directory(at: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, name, flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The permission bits.
fn mode_of(stat: &Stat) -> u16 {
    (stat.st_mode & 0o777) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// The walk through a directory, one line an entry.
    fn walked(root: &Path, follow: bool) -> Vec<String> {
        let mut walk = Walk::new(root, follow, &root.join("node")).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        core::iter::from_fn(|| walk.next())
            .map(|found| match found {
                Found::Directory { name, .. } => text(name) + "/",
                Found::File { path, source, opened } => {
                    assert!(path.is_absolute() && path.is_file());
                    assert!(source.is_still(opened.stamp));
                    text(source.name().to_vec())
                }
                Found::Link { name, target } => format!("{} -> {}", text(name), text(target)),
                Found::End => "end".to_owned(),
                Found::LeftOut { path, why } => {
                    format!("{}: {why}", path.file_name().unwrap().to_string_lossy())
                }
                Found::Failed { path, why } => format!("{} failed: {why}", path.display()),
            })
            .collect()
    }

    #[test]
    fn entries_come_in_the_order_of_a_list_and_what_no_set_contains_is_said() {
        let scratch = Scratch::new();
        let root = scratch.path();
        for directory in ["a", "node", "empty"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        for file in ["a/x", "a-b", "a.c", "node/identity.key"] {
            fs::write(root.join(file), "x").unwrap();
        }
        symlink("a/x", root.join("in")).unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let out = "a symbolic link that leads out of the directory, or may do so";
        let expected = [
            "a/",
            "x",
            "end",
            "a-b",
            "a.c",
            "empty/",
            "end",
            "in -> a/x",
            "node: the node's own directory",
            &format!("out: {out}"),
            "socket: a socket",
            &format!("up: {out}"),
            "end",
        ];
        assert_eq!(walked(root, false), expected);
    }

    #[test]
    fn links_are_followed_when_asked_for_and_not_in_circles() {
        let scratch = Scratch::new();
        let root = scratch.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("f"), "x").unwrap();
        symlink("../f", root.join("d/file")).unwrap();
        symlink("..", root.join("d/e/round")).unwrap();
        symlink("none", root.join("d/none")).unwrap();
        let expected = [
            "d/",
            "e/",
            "round: a symbolic link to a directory around it",
            "end",
            "file",
            "none: a symbolic link that leads to nothing",
            "end",
            "f",
            "end",
        ];
        assert_eq!(walked(root, true), expected);
    }

    #[test]
    fn a_pattern_for_directories_leaves_a_followed_link_to_one_out() {
        let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
        let root = scratch.path();
        fs::write(elsewhere.path().join("key"), "x").unwrap();
        symlink(elsewhere.path(), root.join("secrets")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        symlink(elsewhere.path().join("key"), root.join("d/secrets")).unwrap();
        fs::write(root.join(IGNORE), "secrets/\n").unwrap();
        // In `d`, the link leads to a file.
        assert_eq!(walked(root, true), [IGNORE, "d/", "secrets", "end", "end"]);
    }

    #[test]
    fn a_time_is_fresh_for_two_seconds_and_one_far_ahead_never_is() {
        let stamp = |modified: i128| Stamp { inode: (0, 0), length: 0, modified, changed: 0 };
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let second = 1_000_000_000;
        for (ahead, fresh) in
            [(-3000, 0), (-2000, 0), (-1999, 1), (-500, 1500), (0, 2000), (1000, 3000), (9000, 0)]
        {
            let modified = 1_000_000 * second + ahead * 1_000_000;
            assert_eq!(stamp(modified).stays_fresh(now), Duration::from_millis(fresh), "{ahead} ms");
        }
        assert_eq!(stamp(-second / 2).modified(), -1);
        assert_eq!(stamp(second * 7 + 999_999_999).modified(), 7);
    }

    #[test]
    fn patterns_leave_entries_out_and_hold_for_what_is_below() {
        let scratch = Scratch::new();
        let root = scratch.path();
        fs::create_dir_all(root.join("d/build")).unwrap();
        fs::create_dir(root.join("build")).unwrap();
        for file in ["x.o", "d/x.o", "d/y.o", "d/build/z", "keep"] {
            fs::write(root.join(file), "x").unwrap();
        }
        fs::write(root.join(IGNORE), "*.o\n/build/\n").unwrap();
        fs::write(root.join("d").join(IGNORE), "!y.o\n").unwrap();
        let expected = [IGNORE, "d/", IGNORE, "build/", "z", "end", "y.o", "end", "keep", "end"];
        assert_eq!(walked(root, false), expected);
        // Patterns that cannot be read do not let everything through.
        fs::remove_file(root.join("d").join(IGNORE)).unwrap();
        fs::create_dir(root.join("d").join(IGNORE)).unwrap();
        assert!(walked(root, false).iter().any(|line| line.contains("failed")));
    }
}

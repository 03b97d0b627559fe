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
    /// A regular file. `file` is `None` when this user may not read it.
    File { name: Vec<u8>, path: PathBuf, file: Option<File>, mode: u16, modified: i64 },
    /// A symbolic link that stays inside.
    Link { name: Vec<u8>, target: Vec<u8> },
    /// The end of a directory, at last of the first one.
    End,
    /// Something that a set does not contain.
    LeftOut { path: PathBuf, why: &'static str },
    /// Something that cannot be read.
    Failed { path: PathBuf, why: String },
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
    directory: OwnedFd,
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
        let flags = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
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
                let opened = open_directory(&level.directory, &name, flags);
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
                let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let file = match openat(&level.directory, &name, flags, Mode::empty()) {
                    Ok(file) => Some(File::from(file)),
                    // The node may be allowed to.
                    Err(Errno::ACCESS) => None,
                    Err(errno) => return failed(path, errno),
                };
                // The attributes are those of the file that is open.
                let entry = file.as_ref().and_then(|file| fstat(file).ok()).unwrap_or(entry);
                let modified = entry.st_mtime.clamp(-TIME_MAX, TIME_MAX);
                Some(Found::File { name: name.into_vec(), path, file, mode: mode_of(&entry), modified })
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
        Ok(Level { directory, inode, path, patterns, names })
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
                Found::File { name, path, .. } => {
                    assert!(path.is_absolute() && path.is_file());
                    text(name)
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

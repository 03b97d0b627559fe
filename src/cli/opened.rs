//! Opens a file that the user named, before the node is asked: the node runs as another process and perhaps as another user, so
//! it may resolve the name to another file, or may not be allowed to read it.

use rustix::fs::{OFlags, statfs};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Symbolic links that a path may lead through: the limit of Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The type that statfs(2) returns for procfs (linux/magic.h).
const PROCFS: u32 = 0x9fa0;

/// An open regular file, and the path by which the node can find it.
#[derive(Debug)]
pub(super) struct Opened {
    /// `None` when this user may not read it; the node may still be allowed to.
    pub(super) file: Option<File>,
    /// The absolute path as the user named it. A path through a link whose target depends on the process (`/dev/fd/3`) is
    /// replaced by the real path.
    pub(super) path: PathBuf,
}

impl Opened {
    /// Opens a file. The error is the reason why it cannot be shared, for the user.
    pub(super) fn open(named: &Path) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(named);
        let (file, metadata) = match opened {
            Ok(file) => {
                let metadata = file.metadata().map_err(text)?;
                (Some(file), metadata)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (None, named.metadata().map_err(text)?)
            }
            // A socket file cannot be opened; `check_kind` names the reason.
            Err(error) => match named.metadata() {
                Ok(metadata) if !metadata.is_file() => (None, metadata),
                _ => return Err(text(error)),
            },
        };
        check_kind(&metadata)?;
        let path = std::path::absolute(named).map_err(text)?;
        let path = match through_processes(&path) {
            false => path,
            true => real_path(&path, &metadata)?,
        };
        Ok(Opened { file, path })
    }
}

/// The absolute path of a directory as the user named it, or its real path if the named one depends on the process.
pub(super) fn real_directory(named: &Path) -> Result<PathBuf, String> {
    let metadata = named.metadata().map_err(|error| error.to_string())?;
    let path = std::path::absolute(named).map_err(|error| error.to_string())?;
    match through_processes(&path) {
        false => Ok(path),
        true => real_path(&path, &metadata),
    }
}

/// Refuses what cannot be served from its place: anything but a regular file with a name.
fn check_kind(metadata: &Metadata) -> Result<(), String> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_dir() => return Err("it has become a directory meanwhile".to_owned()),
        () if kind.is_file() && metadata.nlink() == 0 => {
            "it has no name: it was deleted, or is in memory only, so the node cannot serve it from its place"
        }
        () if kind.is_file() => return Ok(()),
        () if kind.is_fifo() => {
            "it is a pipe and not a regular file, so the node cannot serve it from its place"
        }
        () if kind.is_socket() => {
            "it is a socket and not a regular file, so the node cannot serve it from its place"
        }
        () => "it is not a regular file, so the node cannot serve it from its place",
    };
    Err(format!("{what}; write its content to a file and put that file"))
}

/// The path, valid in every process, of a file that was opened through a link of this process.
fn real_path(path: &Path, opened: &Metadata) -> Result<PathBuf, String> {
    let real = path.canonicalize().ok();
    let is_same = |real: &PathBuf| {
        real.metadata().is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()))
    };
    real.filter(is_same)
        .ok_or_else(|| "its name leads to another file now; give the file's own path".to_owned())
}

/// Whether a path leads through a symbolic link of procfs, whose target depends on the process: `/proc/self`, `/proc/1/cwd`, and
/// the targets of `/dev/fd` and `/dev/stdin`. `false` for a path with too many links.
fn through_processes(path: &Path) -> bool {
    let mut here = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = components(path);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        // readlink(2) fails with EINVAL when it is no link.
        let Ok(target) = std::fs::read_link(&next) else {
            here = next;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return false;
        }
        if statfs(&here).is_ok_and(|system| system.f_type as u32 == PROCFS) {
            return true;
        }
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for name in components(&target).into_iter().rev() {
            ahead.push_front(name);
        }
    }
    false
}

fn components(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
    use std::os::unix::fs::symlink;

    fn fd_path(fd: BorrowedFd<'_>, form: &str) -> PathBuf {
        PathBuf::from(format!("{form}/{}", fd.as_raw_fd()))
    }

    #[test]
    fn a_path_with_links_stays_as_the_user_named_it() {
        let scratch = Scratch::new();
        std::fs::write(scratch.path().join("file"), "x").unwrap();
        symlink("file", scratch.path().join("link")).unwrap();
        let named = scratch.path().join("link");
        let opened = Opened::open(&named).unwrap();
        assert_eq!(&opened.path, &named);
        assert!(opened.file.is_some());
    }

    #[test]
    fn a_path_whose_target_depends_on_the_process_is_replaced_by_the_real_path() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let real = path.canonicalize().unwrap();
        let file = File::open(&path).unwrap();
        let own = format!("/proc/{}/fd", std::process::id());
        for form in ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", &own] {
            assert_eq!(Opened::open(&fd_path(file.as_fd(), form)).unwrap().path, real, "{form}");
        }
        let link = scratch.path().join("link");
        symlink(fd_path(file.as_fd(), "/dev/fd"), &link).unwrap();
        assert_eq!(Opened::open(&link).unwrap().path, real);
        let directory = File::open(scratch.path()).unwrap();
        let below = fd_path(directory.as_fd(), "/dev/fd").join("file");
        assert_eq!(Opened::open(&below).unwrap().path, real);
        let cwd = Opened::open(Path::new("/proc/self/cwd/Cargo.toml")).unwrap();
        assert_eq!(cwd.path, Path::new("Cargo.toml").canonicalize().unwrap());
    }

    #[test]
    fn a_file_without_a_name_and_anything_but_a_regular_file_are_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let (pipe, _end) = rustix::pipe::pipe().unwrap();
        for (fd, words) in [(file.as_fd(), "no name"), (memory.as_fd(), "no name"), (pipe.as_fd(), "a pipe")]
        {
            let refusal = Opened::open(&fd_path(fd, "/dev/fd")).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
        let socket = scratch.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, words) in [
            (scratch.path(), "directory"),
            (Path::new("/dev/null"), "not a regular file"),
            (&socket, "a socket"),
            (Path::new("/nonexistent"), "No such file"),
            (Path::new("/dev/fd/9999"), "No such file"),
        ] {
            let refusal = Opened::open(path).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn a_path_in_procfs_without_a_link_stays_as_the_user_named_it() {
        assert_eq!(Opened::open(Path::new("/proc/cpuinfo")).unwrap().path, Path::new("/proc/cpuinfo"));
        // The same file of this process has another name for the node.
        let status = Opened::open(Path::new("/proc/self/status")).unwrap();
        assert_eq!(status.path, PathBuf::from(format!("/proc/{}/status", std::process::id())));
    }
}

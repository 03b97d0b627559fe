//! Errors of the disk, with messages that name the file, the cause and the remedy.

use crate::io::{DiskError, DiskErrorKind};
use core::fmt;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why a node's directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// The directory cannot be created, or is not writable.
    NotWritable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another node runs in the directory.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, if the lock file names it.
        process: Option<u32>,
    },
    /// A file that the node needs exists and cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file that the node needs is damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The fault and the remedy.
        advice: &'static str,
    },
    /// The medium failed.
    Failed {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl OpenError {
    /// Classifies an error of the system.
    pub(super) fn new(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        let kind = kind_of(&error);
        let elsewhere = [Errno::NOTDIR, Errno::EXIST, Errno::NAMETOOLONG, Errno::LOOP];
        match Errno::from_io_error(&error) {
            Some(errno) if elsewhere.contains(&errno) => OpenError::NotWritable { path, error },
            _ if kind != DiskErrorKind::Failed => OpenError::NotWritable { path, error },
            _ => OpenError::Failed { path, error },
        }
    }

    /// The error for an existing file that cannot be read.
    pub(super) fn unreadable(path: &Path, error: io::Error) -> Self {
        OpenError::Unreadable { path: path.to_owned(), error }
    }

    /// Makes an error of the system into one about `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
        move |error| OpenError::new(path, error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotWritable { path, error } => {
                write!(f, "cannot write {}: {error}; ", path.display())?;
                match (kind_of(error), Errno::from_io_error(error)) {
                    (DiskErrorKind::NoSpace, _) => {
                        f.write_str("make room for a few kilobytes there, or choose a directory elsewhere with --dir")
                    }
                    (_, Some(Errno::ROFS)) => f.write_str(
                        "its file system is mounted read-only: mount it read-write, or choose another directory with --dir",
                    ),
                    _ => f.write_str("choose a directory that this user may write with --dir"),
                }
            }
            OpenError::Unreadable { path, error } => write!(
                f,
                "cannot read {}: {error}; let the user that the node runs as read it, or restore it from a backup",
                path.display()
            ),
            OpenError::InUse { path, process } => {
                write!(f, "the directory {} is in use by another node", path.display())?;
                if let Some(process) = process {
                    write!(f, " (process {process})")?;
                }
                f.write_str("; stop that one, or choose another directory with --dir")
            }
            OpenError::Corrupt { path, advice } => write!(f, "{} is damaged: {advice}", path.display()),
            OpenError::Failed { path, error } => {
                write!(f, "cannot use {}: {error}; the medium may be broken", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::NotWritable { error, .. }
            | OpenError::Unreadable { error, .. }
            | OpenError::Failed { error, .. } => Some(error),
            OpenError::InUse { .. } | OpenError::Corrupt { .. } => None,
        }
    }
}

/// The kind of an error of the system.
pub(super) fn kind_of(error: &io::Error) -> DiskErrorKind {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => DiskErrorKind::NoSpace,
        Some(Errno::NOENT | Errno::NOTDIR) => DiskErrorKind::NotFound,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => DiskErrorKind::Denied,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::INTR | Errno::AGAIN) => {
            DiskErrorKind::Busy
        }
        Some(Errno::ISDIR | Errno::FBIG | Errno::NAMETOOLONG | Errno::LOOP | Errno::NXIO) => {
            DiskErrorKind::Unsuitable
        }
        _ => DiskErrorKind::Failed,
    }
}

/// Whether the system refuses a call as such, so that another way may work: the kernel lacks it, a filter forbids it (seccomp
/// returns EPERM or EACCES in most containers), or it does not support files or sockets of this kind. If the cause is the file or
/// the socket itself, the other way fails too and returns that error.
pub(super) fn is_call_refused(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP)
}

/// Whether a call that was [refused](is_call_refused) would be refused for every other file as well.
pub(super) fn is_refused_for_all(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::ACCESS)
}

/// An error of the system about a file: `cannot read /some/file: No such file or directory (os error 2)`.
pub(super) fn failed(tried: &str, path: &Path, error: impl Into<io::Error>) -> DiskError {
    let error = error.into();
    let advice = match Errno::from_io_error(&error) {
        Some(Errno::MFILE) => {
            "; the node has reached its limit of open descriptors: raise it (`ulimit -n`, LimitNOFILE=)"
        }
        Some(Errno::NFILE) => {
            "; this machine has reached its limit of open files: raise it (sysctl fs.file-max)"
        }
        _ => "",
    };
    DiskError {
        kind: kind_of(&error),
        message: format!("cannot {tried} {}: {error}{advice}", path.display()),
    }
}

/// An error of the node itself about a file.
pub(super) fn refused(kind: DiskErrorKind, path: &Path, what: impl fmt::Display) -> DiskError {
    DiskError { kind, message: format!("{} {what}", path.display()) }
}

/// The error of the file, if an error of a transfer between a file and a socket is one.
pub(super) fn disk_error(error: &io::Error) -> Option<&DiskError> {
    error.get_ref()?.downcast_ref()
}

pub(super) fn changed(path: &Path) -> DiskError {
    refused(DiskErrorKind::Changed, path, "has changed since it was hashed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_that_a_person_can_act_on_has_its_kind() {
        let pairs = [
            (Errno::NOSPC, DiskErrorKind::NoSpace),
            (Errno::DQUOT, DiskErrorKind::NoSpace),
            (Errno::NOENT, DiskErrorKind::NotFound),
            (Errno::ACCESS, DiskErrorKind::Denied),
            (Errno::PERM, DiskErrorKind::Denied),
            (Errno::ROFS, DiskErrorKind::Denied),
            (Errno::ISDIR, DiskErrorKind::Unsuitable),
            (Errno::IO, DiskErrorKind::Failed),
            (Errno::MFILE, DiskErrorKind::Busy),
            (Errno::NOMEM, DiskErrorKind::Busy),
        ];
        for (errno, kind) in pairs {
            let error = failed("write", Path::new("/some/file"), errno);
            assert_eq!(error.kind, kind);
            assert!(error.message.starts_with("cannot write /some/file: "), "{error}");
        }
        assert_eq!(kind_of(&io::ErrorKind::UnexpectedEof.into()), DiskErrorKind::Failed);
    }

    #[test]
    fn the_error_for_a_shortage_of_descriptors_names_the_limit() {
        let error = failed("write", Path::new("/some/file"), Errno::MFILE);
        assert!(error.message.contains("descriptors") && error.message.contains("ulimit -n"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_used_says_what_to_do() {
        let full = OpenError::new(Path::new("/d/lock"), Errno::ROFS.into());
        assert!(full.to_string().contains("--dir"), "{full}");
        let full = OpenError::new(Path::new("/d/lock"), Errno::NOSPC.into());
        assert!(full.to_string().contains("make room"), "{full}");
        let used = OpenError::InUse { path: "/d".into(), process: Some(42) };
        assert!(used.to_string().contains("process 42"), "{used}");
        assert!(matches!(OpenError::new(Path::new("/d"), Errno::IO.into()), OpenError::Failed { .. }));
    }
}

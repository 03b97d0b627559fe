//! One node a directory.
//!
//! Two locks are taken: on the directory itself, which needs no file to be made in it, so that a node starts on a disk that is
//! full or can only be read; and on the file `lock`, which says to a person which process holds it. Either tells that another
//! node is there. Where a file system has no locks (NFS without a lock daemon), the node goes on with a warning.

use super::error::OpenError;
use super::files::{Open, open, set_length, write_at};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Holds the directory until it is dropped, or the process ends in whatever way.
pub(super) struct Lock {
    _directory: File,
    _file: Option<File>,
}

/// What came of an attempt to lock a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Locked {
    Yes,
    /// Another process holds it.
    Taken,
    /// This file system, or this file on it, cannot be locked.
    Impossible(Errno),
}

impl Lock {
    pub(super) fn take(root: &Path, path: &Path) -> Result<Lock, OpenError> {
        let directory = File::open(root).map_err(OpenError::at(root))?;
        let writable = open(path, Open::Keep, 0o600, OFlags::NOFOLLOW);
        if let Err(error) = &writable {
            log::warn!("cannot write {}: {error}; the node starts all the same", path.display());
        }
        // Kept open for reading alone, so that the file system can be made read-only while the node runs. NFS locks exclusively
        // only what is open for writing.
        let mut file = File::open(path).ok();
        let mut locks = [lock(&directory), file.as_ref().map_or(Locked::Impossible(Errno::NOENT), lock)];
        if let (Locked::Impossible(_), Ok(writable)) = (locks[1], &writable) {
            locks[1] = lock(writable);
            file = writable.try_clone().ok();
        }
        if locks.contains(&Locked::Taken) {
            return Err(OpenError::InUse { path: root.to_owned(), process: file.as_ref().and_then(holder) });
        }
        if let [Locked::Impossible(_), Locked::Impossible(errno)] = locks {
            log::warn!(
                "{} cannot be locked ({errno}): take care that no other node is started in it",
                root.display()
            );
        }
        if let Ok(writable) = &writable {
            // For the person who is told that the directory is in use. Nothing depends on it.
            let text = format!("{}\n", std::process::id());
            let _ = set_length(writable, path, 0).and_then(|()| write_at(writable, path, text.as_bytes(), 0));
        }
        Ok(Lock { _directory: directory, _file: file })
    }
}

fn lock(file: &File) -> Locked {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Locked::Yes,
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Locked::Taken,
            Err(errno) => return Locked::Impossible(errno),
        }
    }
}

/// The process that holds the lock, when it said so.
fn holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.by_ref().take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

//! The lock that admits only one node to a directory.
//!
//! The node takes two locks. The one on the directory itself needs no new file, so a node can start on a full or read-only disk.
//! The one on the file `lock` tells a person which process holds it. If another process holds either, the start fails. Where a file
//! system has no locks (NFS without a lock daemon), the node starts with a warning.

use super::error::OpenError;
use super::files::{Open, open, set_length, write_at};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Holds both locks until it is dropped or the process ends.
pub(super) struct Lock {
    _directory: File,
    _file: Option<File>,
}

/// The result of an attempt to lock a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Locked {
    Yes,
    /// Another process holds it.
    Taken,
    /// The file cannot be locked on this file system.
    Impossible(Errno),
}

impl Lock {
    pub(super) fn take(root: &Path, path: &Path) -> Result<Lock, OpenError> {
        let directory = File::open(root).map_err(OpenError::at(root))?;
        let writable = open(path, Open::Keep, 0o600, OFlags::NOFOLLOW);
        if let Err(error) = &writable {
            log::warn!("cannot write {}: {error}; the node starts without it", path.display());
        }
        // Kept open for reading only, so that the file system can be remounted read-only while the node runs. NFS gives exclusive
        // locks only to files open for writing.
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
                "{} cannot be locked ({errno}): make sure that no other node is started in it",
                root.display()
            );
        }
        if let Ok(writable) = &writable {
            // For the error message of another node that finds the lock taken. Nothing else depends on it.
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

/// The process that holds the lock, if the file names it.
fn holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.by_ref().take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

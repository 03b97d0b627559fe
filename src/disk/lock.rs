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
        let file = match open(path, Open::Keep, 0o600, OFlags::NOFOLLOW) {
            Ok(file) => Some((file, true)),
            // It cannot be written, or there is no room to make it: one that is there can be locked all the same.
            Err(error) => match File::open(path) {
                Ok(file) => Some((file, false)),
                Err(_) => {
                    log::warn!("cannot make {}: {error}; the node starts without it", path.display());
                    None
                }
            },
        };
        let locks = [
            lock(&directory),
            file.as_ref().map_or(Locked::Impossible(Errno::NOENT), |(file, _)| lock(file)),
        ];
        if locks.contains(&Locked::Taken) {
            let process = file.and_then(|(file, _)| holder(&file));
            return Err(OpenError::InUse { path: root.to_owned(), process });
        }
        if let [Locked::Impossible(_), Locked::Impossible(errno)] = locks {
            log::warn!(
                "{} cannot be locked ({errno}): take care that no other node is started in it",
                root.display()
            );
        }
        if let Some((file, true)) = &file {
            // For the person who is told that the directory is in use. Nothing depends on it.
            let text = format!("{}\n", std::process::id());
            let _ = set_length(file, path, 0).and_then(|()| write_at(file, path, text.as_bytes(), 0));
        }
        Ok(Lock { _directory: directory, _file: file.map(|(file, _)| file) })
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
fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

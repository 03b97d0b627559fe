//! One node a directory.

use super::error::OpenError;
use super::files::{Open, open, set_length, write_at};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Holds the directory until it is dropped, or the process ends in whatever way.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(root: &Path, path: &Path) -> Result<Lock, OpenError> {
        let file = open(path, Open::Keep, 0o600, OFlags::empty()).map_err(OpenError::at(path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&file).take(16).read_to_string(&mut text);
                return Err(OpenError::InUse { path: root.to_owned(), process: text.trim().parse().ok() });
            }
            Err(errno) => return Err(OpenError::Failed { path: path.to_owned(), error: errno.into() }),
        }
        // For the person who is told that the directory is in use. Nothing depends on it.
        let text = format!("{}\n", std::process::id());
        let _ = set_length(&file, path, 0).and_then(|()| write_at(&file, path, text.as_bytes(), 0));
        Ok(Lock { _file: file })
    }
}

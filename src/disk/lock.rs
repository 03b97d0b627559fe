//! One node a directory.

use super::error::OpenError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Holds the directory until it is dropped, or the process ends in whatever way.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(root: &Path, path: &Path) -> Result<Lock, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(OpenError::at(path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.take(16).read_to_string(&mut text);
                return Err(OpenError::InUse { path: root.to_owned(), process: text.trim().parse().ok() });
            }
            Err(errno) => return Err(OpenError::Failed { path: path.to_owned(), error: errno.into() }),
        }
        // For the person who is told that the directory is in use. Nothing depends on it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }
}

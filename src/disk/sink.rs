//! Writing: what arrives goes into its file and is hashed on the way.

use super::error::{failed, refused};
use super::files::{self, Open, write_at};
use super::layout::Layout;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, Place, Sink};
use crate::manifest::HashAs;
use rustix::fs::OFlags;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The part of a file that is being written.
pub struct OpenSink {
    file: File,
    path: PathBuf,
    offset: u64,
    remaining: u32,
    hash_as: HashAs,
    hasher: blake3::Hasher,
}

impl OpenSink {
    pub(super) fn open(layout: &Layout, sink: &Sink) -> Result<Self, DiskError> {
        let path = layout.path(&sink.place);
        let file = open_target(&sink.place, &path)?;
        let Sink { offset, length, hash_as, .. } = *sink;
        Ok(OpenSink { file, path, offset, remaining: length, hash_as, hasher: hash_as.hasher() })
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Writes and hashes the start of `bytes`, and returns how many it took: never more than are still to come.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, DiskError> {
        let taken = &bytes[..bytes.len().min(self.remaining as usize)];
        let written = write_at(&self.file, &self.path, taken, self.offset);
        written.map_err(|error| failed("write", &self.path, error))?;
        self.hasher.update(taken);
        self.offset += taken.len() as u64;
        self.remaining -= taken.len() as u32;
        Ok(taken.len())
    }

    /// What the bytes hashed to.
    ///
    /// # Panics
    /// When bytes are missing.
    pub fn finish(self) -> Result<Key, DiskError> {
        assert_eq!(self.remaining, 0, "bytes of {} are missing", self.path.display());
        Ok(self.hash_as.key(&self.hasher))
    }
}

/// Opens a file that the node is filling; it is created when it is not there.
pub(super) fn open_target(place: &Place, path: &Path) -> Result<File, DiskError> {
    let mode = match place {
        Place::Incoming(_) | Place::Cache(_) => 0o600,
        // It will be the user's: the umask decides.
        Place::Partial(_) => 0o666,
        _ => return Err(refused(DiskErrorKind::Unsuitable, path, "is nothing that a node writes into")),
    };
    let file = files::open(path, Open::Keep, mode, OFlags::NONBLOCK | OFlags::NOFOLLOW);
    let file = file.map_err(|error| failed("write", path, error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(refused(DiskErrorKind::Unsuitable, path, "is not a regular file")),
        Err(error) => Err(failed("write", path, error)),
    }
}

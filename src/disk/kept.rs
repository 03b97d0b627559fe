//! Files that this process may not open itself: their users passed descriptors, which stay open while it runs.

use super::error::{failed, refused};
use super::source::Source;
use crate::io::{DiskError, DiskErrorKind, Place};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that are served from passed descriptors, by their paths.
#[derive(Default)]
pub(super) struct Kept {
    files: BTreeMap<PathBuf, Arc<File>>,
    most: usize,
}

impl Kept {
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// A file was hashed: keeps it open when nothing but its descriptor reaches it, and lets go of an earlier descriptor
    /// when its path does.
    pub(super) fn hashed(&mut self, source: &Source) -> Result<(), DiskError> {
        if !source.only_passed {
            self.files.remove(&source.path);
            return Ok(());
        }
        if self.files.len() >= self.most && !self.files.contains_key(&source.path) {
            let what = format_args!(
                "may be read by you and not by the node, which keeps {} such files open already (`--kept-files`): \
                 let the node's user read it",
                self.files.len()
            );
            return Err(refused(DiskErrorKind::Denied, &source.path, what));
        }
        self.files.insert(source.path.clone(), Arc::clone(&source.file));
        Ok(())
    }

    /// The open file of a place and what it looks like now; `None` when none is kept of it.
    pub(super) fn open(&self, place: &Place) -> Option<Result<(Arc<File>, Metadata), DiskError>> {
        let Place::File(path) = place else { return None };
        self.files.get(&**path).map(|file| look_at(path, file))
    }

    /// Whether a file is kept open.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// The descriptor that is kept of a place, once more.
    pub(super) fn copy(&self, place: &Place) -> Option<File> {
        let Place::File(path) = place else { return None };
        self.files.get(&**path)?.try_clone().ok()
    }

    /// A place is not shared any more.
    pub(super) fn forget(&mut self, place: &Place) {
        if let Place::File(path) = place {
            self.files.remove(&**path);
        }
    }
}

fn look_at(path: &Path, file: &Arc<File>) -> Result<(Arc<File>, Metadata), DiskError> {
    let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
    match metadata.nlink() {
        0 => Err(refused(DiskErrorKind::NotFound, path, "was deleted")),
        _ => Ok((Arc::clone(file), metadata)),
    }
}

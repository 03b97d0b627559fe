//! Files that this process may not open itself. Clients passed descriptors of them, which stay open while the process runs.

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

    /// After a file was hashed: keeps its descriptor if the process cannot open the file by its path; else closes an earlier
    /// descriptor.
    pub(super) fn hashed(&mut self, source: &Source) -> Result<(), DiskError> {
        if !source.only_passed {
            self.files.remove(&source.path);
            return Ok(());
        }
        if self.files.len() >= self.most && !self.files.contains_key(&source.path) {
            let what = format!(
                "cannot be opened by the node, which keeps {} such files open already (--kept-files): let the node's user \
                 read it, or allow more",
                self.files.len()
            );
            return Err(refused(DiskErrorKind::Denied, &source.path, what));
        }
        self.files.insert(source.path.clone(), Arc::clone(&source.file));
        Ok(())
    }

    /// The file that is kept open for a place, with its metadata now; `None` when there is none.
    pub(super) fn open(&self, place: &Place) -> Option<Result<(Arc<File>, Metadata), DiskError>> {
        let Place::File(path) = place else { return None };
        self.files.get(&**path).map(|file| look_at(path, file))
    }

    /// Whether a file is kept open.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// A duplicate of the descriptor that is kept for a place.
    pub(super) fn copy(&self, place: &Place) -> Option<File> {
        let Place::File(path) = place else { return None };
        self.files.get(&**path)?.try_clone().ok()
    }

    /// Closes the descriptor of a place that is no longer shared.
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

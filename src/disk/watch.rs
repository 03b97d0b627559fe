//! Checks of the node's directory: whether it is present, has space, and is writable.

use super::durable::{Replace, replace};
use super::error::{failed, refused};
use super::files::remove;
use super::layout::Layout;
use super::lock::Lock;
use super::state;
use crate::io::{DiskError, DiskErrorKind, DiskLook};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name of the file that is written as a trial.
pub(super) const TRIAL: &str = "trial";

/// The directory in which the node was started. Its path may name another directory meanwhile.
pub(super) struct Watch {
    /// Its device and inode.
    directory: Option<(u64, u64)>,
    secret: [u8; 32],
}

impl Watch {
    pub(super) fn new(layout: &Layout, secret: [u8; 32]) -> Self {
        Watch { directory: directory_at(layout.root()), secret }
    }

    /// Whether the path still names the node's directory.
    pub(super) fn is_present(&self, layout: &Layout) -> bool {
        self.directory.is_some() && directory_at(layout.root()) == self.directory
    }

    /// The error for a missing file while the directory is gone: a piece that is not found then is not lost.
    pub(super) fn gone(&self, layout: &Layout) -> DiskError {
        let what = match directory_at(layout.root()) {
            Some(_) => "is not the directory in which the node was started",
            None => "is not there any more",
        };
        refused(DiskErrorKind::Gone, layout.root(), what)
    }

    /// Replaces the error about a missing file of the node by [`gone`](Watch::gone) if the directory is gone.
    pub(super) fn explain(&self, layout: &Layout, path: &Path, error: DiskError) -> DiskError {
        let missing = error.kind == DiskErrorKind::NotFound && path.starts_with(layout.root());
        if missing && !self.is_present(layout) { self.gone(layout) } else { error }
    }

    /// Checks the directory; with `trying` it also writes and syncs a few bytes. When the node's directory is back at the path, as
    /// after its medium was mounted again, the node uses it and takes `lock` again.
    pub(super) fn look(
        &mut self,
        layout: &Layout,
        lock: &mut Lock,
        trying: bool,
    ) -> Result<DiskLook, DiskError> {
        let root = layout.root();
        if !self.is_present(layout) {
            let found = directory_at(root)
                .filter(|_| state::secret(layout).is_ok_and(|secret| secret == Some(self.secret)));
            let anew = found.and_then(|_| Lock::take(root, &layout.file("lock")).ok());
            let Some(anew) = anew else { return Err(self.gone(layout)) };
            *lock = anew;
            self.directory = found;
        }
        let system = statvfs(root).map_err(|errno| failed("look at", root, errno))?;
        if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(refused(
                DiskErrorKind::Denied,
                root,
                "is on a file system that is mounted read-only",
            ));
        }
        if trying {
            let path = layout.file(TRIAL);
            replace(&path, &[b"a trial\n"], Replace::Durably)
                .map_err(|error| failed("write", &path, error))?;
            remove(&path).map_err(|error| failed("delete", &path, error))?;
        }
        Ok(DiskLook {
            tried: trying,
            free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
            free_inodes: if system.f_files == 0 { u64::MAX } else { system.f_favail },
        })
    }
}

fn directory_at(root: &Path) -> Option<(u64, u64)> {
    let metadata = root.metadata().ok().filter(|metadata| metadata.is_dir())?;
    Some((metadata.dev(), metadata.ino()))
}

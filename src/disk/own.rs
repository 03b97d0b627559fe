//! The node's own files: they are never shared, and no download is written among them.

use super::error::refused;
use super::layout::Layout;
use crate::io::{DiskError, DiskErrorKind};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The node's own directory, recognised by inodes and not by names, because a symbolic link, a hard link or a bind mount leads to
/// the same files.
#[derive(Clone, Debug)]
pub(super) struct Own {
    root: PathBuf,
    directories: Vec<PathBuf>,
    /// The lists of sets, which are shared from where they are.
    sets: PathBuf,
}

/// The device and inode of a file or a directory.
type Inode = (u64, u64);

impl Own {
    pub(super) fn new(layout: &Layout) -> Self {
        let directories = vec![
            layout.root().to_owned(),
            layout.pieces(),
            layout.incoming(),
            layout.shares(),
            layout.cache(),
        ];
        Own { root: layout.root().to_owned(), directories, sets: layout.sets() }
    }

    /// Refuses to share a file of the node. `metadata` is that of the open file.
    pub(super) fn refuse_source(&self, path: &Path, metadata: &Metadata) -> Result<(), DiskError> {
        let linked = self.is_key(metadata) || metadata.nlink() > 1 && self.names(metadata);
        let is_list =
            || path.parent().and_then(inode_at).is_some_and(|parent| inode_at(&self.sets) == Some(parent));
        let held = || path.parent().is_some_and(|parent| self.holds(parent)) && !is_list();
        match linked || held() || self.holds_link(path) {
            true => Err(self.refusal(path, "is one of the node's own files, which are never shared")),
            false => Ok(()),
        }
    }

    /// Refuses a download into the node's own directory.
    pub(super) fn refuse_target(&self, target: &Path) -> Result<(), DiskError> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        match self.holds(parent.unwrap_or(Path::new("."))) || self.holds_link(target) {
            true => Err(self.refusal(
                target,
                "is in the node's own directory, where no download may go: choose another path",
            )),
            false => Ok(()),
        }
    }

    fn refusal(&self, path: &Path, what: &str) -> DiskError {
        refused(
            DiskErrorKind::Unsuitable,
            path,
            format_args!("{what} (its directory is {})", self.root.display()),
        )
    }

    /// Whether a symbolic link at `path` leads into the node's directory.
    fn holds_link(&self, path: &Path) -> bool {
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        is_link
            && path.canonicalize().is_ok_and(|real| real.parent().is_some_and(|parent| self.holds(parent)))
    }

    /// Whether a directory is one of the node's, or is inside one. `false` if this process may not search it.
    fn holds(&self, directory: &Path) -> bool {
        let own: Vec<Inode> = self.directories.iter().filter_map(|path| inode_at(path)).collect();
        let real = directory.canonicalize();
        let real = real.as_deref().unwrap_or(directory);
        real.ancestors().filter_map(inode_at).any(|inode| own.contains(&inode))
    }

    /// Whether an open file is the node's secret, under any name.
    fn is_key(&self, metadata: &Metadata) -> bool {
        inode_at(&self.root.join("identity.key")) == Some(inode_of(metadata))
    }

    /// Whether an entry of the node's directory is a name of an open file.
    fn names(&self, metadata: &Metadata) -> bool {
        let entries = self.root.read_dir().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).any(|own| inode_of(&own) == inode_of(metadata))
    }
}

fn inode_of(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

fn inode_at(path: &Path) -> Option<Inode> {
    path.metadata().ok().as_ref().map(inode_of)
}

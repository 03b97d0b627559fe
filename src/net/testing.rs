//! What the driver's unit tests stand on: a directory that goes away again.

use crate::disk::Disk;
use std::path::PathBuf;
use tempfile::TempDir;

/// A directory of its own for one test.
pub(super) struct TestDir(TempDir);

impl TestDir {
    pub(super) fn new() -> Self {
        TestDir(TempDir::new().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file in it with this content.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The disk of a node whose directory is in it.
    pub(super) fn disk(&self) -> Disk {
        Disk::open(&self.path("node")).unwrap().0
    }
}

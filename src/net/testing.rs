//! A temporary directory for the driver's unit tests.

use crate::disk::Disk;
use std::path::PathBuf;
use tempfile::TempDir;

/// The directory of one test, removed with this value.
pub(super) struct TestDir(TempDir);

impl TestDir {
    pub(super) fn new() -> Self {
        TestDir(TempDir::new().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file with this content into the directory, and returns its path.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Opens the disk of a node in a subdirectory.
    pub(super) fn disk(&self) -> Disk {
        Disk::open(&self.path("node")).unwrap().0
    }
}

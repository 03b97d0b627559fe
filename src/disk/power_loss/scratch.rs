//! A directory that is set, again and again, to the state of a medium after a power cut.

use super::medium::{Entry, Inode, Medium};
use super::record::Operation;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::xxh3_64;

/// A directory that is removed on drop.
pub(super) struct Scratch {
    scratch: PathBuf,
    /// The directory that the store sees. Its path never changes, because shares name files by their paths.
    pub(super) root: PathBuf,
    /// Every file under its inode's number, so that a file keeps its inode through power cuts.
    pub(super) vault: PathBuf,
    /// The content of each file in the vault: checksum, length, time of modification.
    held: BTreeMap<Inode, (u64, u64, u64)>,
}

impl Scratch {
    pub(super) fn new(dir: &Path) -> io::Result<Scratch> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        fs::create_dir_all(dir)?;
        // The path has the same length in every run: files contain paths, and a file's length decides how a write may
        // be torn.
        let name = format!("elver-power-loss-{:010}-{number:06}", std::process::id());
        let scratch = dir.canonicalize()?.join(name);
        let (root, vault) = (scratch.join("world"), scratch.join("vault"));
        for path in [&scratch, &root, &vault] {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        Ok(Scratch { scratch, root, vault, held: BTreeMap::new() })
    }

    /// Sets the directory to the state of `medium`, on which everything is durable.
    pub(super) fn show(&mut self, medium: &Medium) -> io::Result<()> {
        fs::remove_dir_all(&self.root)?;
        DirBuilder::new().mode(0o700).create(&self.root)?;
        let mut open = vec![(medium.root(), self.root.clone())];
        while let Some((directory, path)) = open.pop() {
            for (name, entry) in medium.entries(directory) {
                let path = path.join(name);
                match entry {
                    Entry::Directory(inode) => {
                        DirBuilder::new().mode(0o700).create(&path)?;
                        open.push((inode, path));
                    }
                    Entry::File(inode, content, modified) => {
                        let kept = self.hold(inode, content, modified)?;
                        fs::hard_link(kept, path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes a file's content into the vault. Returns its path there.
    fn hold(&mut self, inode: Inode, content: &[u8], modified: u64) -> io::Result<PathBuf> {
        let path = self.vault.join(inode.to_string());
        let version = (xxh3_64(content), content.len() as u64, modified);
        if self.held.get(&inode) != Some(&version) {
            let mut file = File::options().write(true).truncate(true).open(&path)?;
            file.write_all(content)?;
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))?;
            self.held.insert(inode, version);
        }
        Ok(path)
    }

    /// Takes note of recorded changes to files in the vault.
    pub(super) fn changed(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Write { file, .. } | Operation::SetLength { file, .. } => {
                    self.held.remove(file);
                }
                _ => {}
            }
        }
    }

    /// Deletes the files that these operations created. No medium that is used again contains them.
    pub(super) fn forget(&mut self, operations: &[Operation]) -> io::Result<()> {
        for operation in operations {
            if let Operation::Create { file, .. } = operation {
                self.held.remove(file);
                fs::remove_file(self.vault.join(file.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

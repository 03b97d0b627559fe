//! Damaged files of the node: they are set aside and not deleted, so that a person can examine them.

use super::files::{Open, make_directory, open, remove, rename, sync_directory, write_at};
use super::layout::Layout;
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The number of files kept. The oldest are deleted first.
const KEPT_MAX: usize = 16;
/// Bytes copied at a time.
const COPIED_BYTES: usize = 64 << 10;

/// The directory `damaged`, created when first needed.
pub(super) struct Damaged {
    directory: PathBuf,
}

impl Damaged {
    pub(super) fn new(layout: &Layout) -> Self {
        Damaged { directory: layout.file("damaged") }
    }

    /// Moves a file to `damaged/NAME.17`, and logs it. If the move fails, the file stays.
    pub(super) fn set_aside(&self, path: &Path, why: &str) {
        match self.move_away(path) {
            Ok(to) => log::warn!(
                "{} is damaged ({why}); the node starts without it, and it is kept as {}",
                path.display(),
                to.display()
            ),
            Err(error) => log::warn!(
                "{} is damaged ({why}); the node starts without it, and it could not be set aside: {error}",
                path.display()
            ),
        }
    }

    /// Keeps a copy of a file that stays in use until it is replaced.
    pub(super) fn keep_copy(&self, path: &Path, why: &str) {
        match self.copy(path) {
            Ok(to) => log::warn!("{} is damaged ({why}); a copy is kept as {}", path.display(), to.display()),
            Err(error) => log::warn!("{} is damaged ({why}); no copy could be kept: {error}", path.display()),
        }
    }

    fn copy(&self, path: &Path) -> io::Result<PathBuf> {
        let to = self.next_name(path)?;
        let mut from = File::open(path)?;
        let file = open(&to, Open::Empty, 0o600, OFlags::empty())?;
        let (mut buffer, mut offset) = (vec![0; COPIED_BYTES], 0);
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(to);
            }
            write_at(&file, &to, &buffer[..read], offset)?;
            offset += read as u64;
        }
    }

    fn move_away(&self, path: &Path) -> io::Result<PathBuf> {
        let to = self.next_name(path)?;
        rename(path, &to)?;
        // Otherwise a power cut could bring the damaged file back, to be set aside again.
        sync_directory(&self.directory)?;
        Ok(to)
    }

    /// A free name in the directory. It deletes the oldest files if there are too many.
    fn next_name(&self, path: &Path) -> io::Result<PathBuf> {
        if !self.directory.is_dir() {
            make_directory(&self.directory)?;
        }
        let kept = self.kept();
        let number = kept.last().map_or(1, |(number, _)| number.saturating_add(1));
        for (_, old) in kept.iter().take((kept.len() + 1).saturating_sub(KEPT_MAX)) {
            remove(old)?;
        }
        let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(format!(".{number}"));
        Ok(self.directory.join(name))
    }

    /// The kept files, in the order in which they were set aside.
    fn kept(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut kept: Vec<(u64, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter_map(|path| Some((path.extension()?.to_str()?.parse().ok()?, path)))
            .collect();
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn what_is_set_aside_is_kept_and_the_oldest_goes_when_there_is_too_much() {
        let dir = TempDir::new().unwrap();
        let root = dir.path();
        let damaged = Damaged::new(&Layout::new(root.to_owned()));
        for number in 1..=20u8 {
            fs::write(root.join("ages"), [number]).unwrap();
            damaged.set_aside(&root.join("ages"), "a test");
            assert!(!root.join("ages").exists());
        }
        let kept: Vec<u64> = damaged.kept().into_iter().map(|(number, _)| number).collect();
        assert_eq!(kept, (5..=20).collect::<Vec<u64>>());
        assert_eq!(fs::read(root.join("damaged/ages.20")).unwrap(), [20]);
        damaged.set_aside(&root.join("absent"), "nothing there");
    }
}

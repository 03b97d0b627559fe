//! Files of the node's own that it cannot read: set aside, not deleted, in case a person wants to see what became of them.

use super::files::{make_directory, remove, rename, sync_directory};
use super::layout::Layout;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// How many are kept. The oldest go first.
const KEPT_MAX: usize = 16;

/// The directory `damaged`, made when it is first needed.
pub(super) struct Damaged {
    directory: PathBuf,
}

impl Damaged {
    pub(super) fn new(layout: &Layout) -> Self {
        Damaged { directory: layout.file("damaged") }
    }

    /// Moves a file away, as `damaged/NAME.17`. Where that is not possible it stays, and is logged all the same.
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

    fn move_away(&self, path: &Path) -> std::io::Result<PathBuf> {
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
        let to = self.directory.join(name);
        rename(path, &to)?;
        // Lest a power cut bring the damaged file back: then it is set aside once more.
        sync_directory(&self.directory)?;
        Ok(to)
    }

    /// What is kept, in the order in which it was set aside.
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

    #[test]
    fn what_is_set_aside_is_kept_and_the_oldest_goes_when_there_is_too_much() {
        let root = std::env::temp_dir().join(format!("elver-damaged-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let damaged = Damaged::new(&Layout::new(root.clone()));
        for number in 1..=20u8 {
            fs::write(root.join("ages"), [number]).unwrap();
            damaged.set_aside(&root.join("ages"), "a test");
            assert!(!root.join("ages").exists());
        }
        let kept: Vec<u64> = damaged.kept().into_iter().map(|(number, _)| number).collect();
        assert_eq!(kept, (5..=20).collect::<Vec<u64>>());
        assert_eq!(fs::read(root.join("damaged/ages.20")).unwrap(), [20]);
        damaged.set_aside(&root.join("absent"), "nothing there");
        fs::remove_dir_all(&root).unwrap();
    }
}

//! The files on a disk, stored pieces aside: the user's files, downloads, the cache, and arriving content.

use super::file::File;
use super::room::Room;
use super::{error, missing};
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Mode, Permissions, Place};
use crate::manifest::Manifest;
use crate::sim::blob::Slice;
use crate::sim::chance::Chance;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of one disk.
#[derive(Default)]
pub(super) struct Files {
    user: BTreeMap<PathBuf, File>,
    partial: BTreeMap<PathBuf, File>,
    cache: BTreeMap<Key, File>,
    incoming: BTreeMap<u64, File>,
    windows: BTreeMap<(u64, u32), File>,
    /// The number of files made so far. It gives each file its own stamp.
    made: u64,
}

impl Files {
    pub(super) fn get(&self, place: &Place) -> Result<&File, DiskError> {
        let file = match place {
            Place::File(path) => self.user.get(&**path),
            Place::Partial(path) => self.partial.get(&**path),
            Place::Cache(hash) => self.cache.get(hash),
            Place::Incoming(number) => self.incoming.get(number),
            Place::Window { window, chunk } => self.windows.get(&(*window, *chunk)),
            Place::Piece(_) | Place::ShareManifest(_) => None,
        };
        file.ok_or_else(missing)
    }

    pub(super) fn get_mut(&mut self, place: &Place) -> Result<&mut File, DiskError> {
        let file = match place {
            Place::File(path) => self.user.get_mut(&**path),
            Place::Partial(path) => self.partial.get_mut(&**path),
            Place::Cache(hash) => self.cache.get_mut(hash),
            Place::Incoming(number) => self.incoming.get_mut(number),
            Place::Window { window, chunk } => self.windows.get_mut(&(*window, *chunk)),
            Place::Piece(_) | Place::ShareManifest(_) => None,
        };
        file.ok_or_else(missing)
    }

    /// A user's file.
    pub(super) fn of_user(&self, path: &Path) -> Option<&File> {
        self.user.get(path)
    }

    /// A user's file, mutable.
    pub(super) fn of_user_mut(&mut self, path: &Path) -> Option<&mut File> {
        self.user.get_mut(path)
    }

    /// A file in the node's cache.
    pub(super) fn cached(&self, hash: &Key) -> Option<&File> {
        self.cache.get(hash)
    }

    /// The number of chunks in windows.
    pub(super) fn in_windows(&self) -> usize {
        self.windows.len()
    }

    /// The user writes a file. It takes no room from the node.
    pub(super) fn write_as_user(&mut self, path: &Path, content: Slice) {
        let mut file = self.fresh(content.len() as u64);
        file.write(0, content);
        self.user.insert(path.to_owned(), file);
    }

    /// Makes the file for arriving content, unless it exists.
    pub(super) fn make(&mut self, place: &Place, length: u64) {
        if self.get(place).is_ok() {
            return;
        }
        let file = self.fresh(length);
        match place {
            Place::Incoming(number) => _ = self.incoming.insert(*number, file),
            Place::Window { window, chunk } => _ = self.windows.insert((*window, *chunk), file),
            _ => {}
        }
    }

    fn fresh(&mut self, length: u64) -> File {
        self.made += 1;
        File::new(self.made, length)
    }

    /// Writes into a file that is arriving or being downloaded, without a sync.
    pub(super) fn write(
        &mut self,
        place: &Place,
        offset: u64,
        slice: Slice,
        room: &mut Room,
    ) -> Result<(), DiskError> {
        let length = slice.len() as u64;
        room.check(length)?;
        let old = self.get_mut(place)?.write(offset, slice);
        room.take(length);
        room.give(old);
        Ok(())
    }

    /// Deletes a file. A missing file is no error. A node must not delete a user's file.
    pub(super) fn remove(&mut self, place: &Place, room: &mut Room) -> Result<Option<File>, DiskError> {
        let file = match place {
            Place::Incoming(number) => self.incoming.remove(number),
            Place::Window { window, chunk } => self.windows.remove(&(*window, *chunk)),
            Place::Partial(path) => self.partial.remove(&**path),
            Place::Cache(hash) => self.cache.remove(hash),
            Place::File(_) => return Err(error(DiskErrorKind::Unsuitable, "not a node's to delete")),
            Place::Piece(_) | Place::ShareManifest(_) => None,
        };
        room.give(file.as_ref().map_or(0, File::held));
        Ok(file)
    }

    // Downloads.

    /// Opens the file that a download fills.
    pub(super) fn open_target(
        &mut self,
        place: &Place,
        manifest: &Manifest,
        force: bool,
        permissions: Permissions,
        room: &Room,
    ) -> Result<DiskReply, DiskError> {
        let length = manifest.length();
        let mode = match permissions {
            Permissions::Usual(elsewhere) => Mode::of(elsewhere.applied_to(0o644)),
            Permissions::Exact(mode) => mode,
        };
        let (mut old, mut path) = (Vec::new(), PathBuf::new());
        if let Place::Partial(target) = place {
            path = target.to_path_buf();
            if let Some(file) = self.user.get(&path) {
                old = file.good_chunks(manifest);
                if file.length() == length && old.iter().all(|good| *good) {
                    return Ok(DiskReply::Finished { stamp: file.stamp, path });
                }
                if !force {
                    return Err(error(DiskErrorKind::Exists, "another file has the name"));
                }
            }
        }
        if let Ok(file) = self.get_mut(place) {
            file.stamp.mode = mode;
            let good = file.good_chunks(manifest);
            return Ok(DiskReply::Opened { path, good, old });
        }
        room.check(length)?;
        let mut file = self.fresh(length);
        file.stamp.mode = mode;
        match place {
            Place::Partial(path) => _ = self.partial.insert(path.to_path_buf(), file),
            Place::Cache(hash) => _ = self.cache.insert(*hash, file),
            _ => return Err(error(DiskErrorKind::Unsuitable, "nothing that is downloaded into")),
        }
        Ok(DiskReply::Opened { path, good: Vec::new(), old })
    }

    /// Gives a complete download its final name.
    pub(super) fn finish_target(&mut self, place: &Place) -> Result<DiskReply, DiskError> {
        let stamp = self.get(place)?.stamp;
        match place {
            Place::Partial(path) => {
                let file = self.partial.remove(&**path).ok_or_else(missing)?;
                let path = path.to_path_buf();
                self.user.insert(path.clone(), file);
                Ok(DiskReply::Finished { stamp, path })
            }
            _ => Ok(DiskReply::Finished { stamp, path: PathBuf::new() }),
        }
    }

    // Power cut and start.

    /// A power cut tears the files that were not synced. It leaves out arriving content, which the next start deletes anyway.
    pub(super) fn cut_power(&mut self, chance: &mut Chance) {
        let files = self.user.values_mut().chain(self.partial.values_mut()).chain(self.cache.values_mut());
        files.for_each(|file| file.tear(chance));
    }

    /// At a start: deletes arriving content, and the cached files that are not shared. `keeps` says which are shared.
    pub(super) fn clear(&mut self, keeps: impl Fn(&Key) -> bool, room: &mut Room) {
        let incoming = core::mem::take(&mut self.incoming).into_values();
        let windows = core::mem::take(&mut self.windows).into_values();
        incoming.chain(windows).for_each(|file| room.give(file.held()));
        self.cache.retain(|hash, file| {
            let kept = keeps(hash);
            room.give(if kept { 0 } else { file.held() });
            kept
        });
    }
}

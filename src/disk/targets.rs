//! Downloads' files: made, finished, removed.

use super::error::{failed, refused};
use super::extent::{open_regular, stamp_of};
use super::files::{
    remove, rename, set_length, sync_all, sync_directory, sync_directory_of_others, write_at,
};
use super::layout::Layout;
use super::share_file;
use super::sink::open_target;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Place, Share};
use rustix::fs::{Access, SeekFrom, access, fstatvfs, seek};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Prepares the file of a download. What can be known to fail at the end fails here.
pub(super) fn open(layout: &Layout, place: &Place, length: u64) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    if let Place::Partial(target) = place {
        check_directory(target)?;
    }
    let existed = path.symlink_metadata().is_ok();
    let file = open_target(place, &path)?;
    let partial = existed && has_data(&file, length);
    let result = make_room(&file, &path, length);
    if result.is_err() && !existed {
        let _ = remove(&path);
    }
    result.map(|()| DiskReply::Opened { partial })
}

/// Whether a file can get this name.
fn check_directory(target: &Path) -> Result<(), DiskError> {
    if target.is_dir() {
        return Err(refused(DiskErrorKind::Unsuitable, target, "is a directory"));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(refused(DiskErrorKind::NotFound, parent, "is no directory that is there"));
    }
    access(parent, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| failed("write into", parent, errno))
}

fn has_data(file: &File, length: u64) -> bool {
    let there = file.metadata().map_or(0, |metadata| metadata.len());
    match seek(file, SeekFrom::Data(0)) {
        Ok(at) => at < there,
        // No data at all. An empty file lacks nothing.
        Err(rustix::io::Errno::NXIO) => length == 0,
        Err(_) => there > 0,
    }
}

/// Gives the file its length, if the file system has the space that it still lacks.
fn make_room(file: &File, path: &Path, length: u64) -> Result<(), DiskError> {
    let tried = |error: io::Error| failed("write", path, error);
    let metadata = file.metadata().map_err(tried)?;
    let lacking = length.saturating_sub(metadata.blocks().saturating_mul(512));
    let free = fstatvfs(file).map_or(u64::MAX, |system| system.f_bavail.saturating_mul(system.f_frsize));
    if lacking > free {
        let what =
            format_args!("needs {lacking} bytes more than it has, and {free} are free on its file system");
        return Err(refused(DiskErrorKind::NoSpace, path, what));
    }
    if metadata.len() != length {
        set_length(file, path, length).map_err(tried)?;
    }
    Ok(())
}

/// Writes bytes into the file of a download.
pub(super) fn write(
    layout: &Layout,
    place: &Place,
    offset: u64,
    bytes: &[u8],
) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    let file = open_target(place, &path)?;
    write_at(&file, &path, bytes, offset).map_err(|error| failed("write", &path, error))?;
    Ok(DiskReply::Done)
}

/// Gives a download its final name. It is not synced: whoever loses power meanwhile fetches it again.
pub(super) fn finish(layout: &Layout, place: &Place) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    let target: PathBuf = match place {
        Place::Partial(target) => {
            rename(&path, target).map_err(|error| failed("create", target, error))?;
            target.to_path_buf()
        }
        _ => path,
    };
    let metadata = target.metadata().map_err(|error| failed("read", &target, error))?;
    Ok(DiskReply::Finished { stamp: stamp_of(&metadata) })
}

/// Deletes a file of the node's own. A file of the user's is never deleted.
pub(super) fn delete(layout: &Layout, place: &Place) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    match place {
        Place::Piece(_) | Place::Incoming(_) | Place::Partial(_) | Place::Cache(_) => {
            remove(&path).map_err(|error| failed("delete", &path, error))?;
            Ok(DiskReply::Done)
        }
        Place::File(_) | Place::ShareManifest(_) => {
            Err(refused(DiskErrorKind::Unsuitable, &path, "is not a node's to delete"))
        }
    }
}

/// Makes a share durable whose content was not synced. One whose file is no longer what it was is left alone.
pub(super) fn sync(layout: &Layout, share: &Share) -> Result<(), DiskError> {
    let path = layout.path(&share.place);
    let file = match open_regular(&path) {
        Ok((file, metadata)) if stamp_of(&metadata) == share.stamp => file,
        _ => return Ok(()),
    };
    let synced = sync_all(&file, &path).and_then(|()| path.parent().map_or(Ok(()), sync_directory_of_others));
    synced.map_err(|error| failed("sync", &path, error))?;
    share_file::save(layout, &Share { synced: true, ..share.clone() })
}

/// Forgets a share, for good.
pub(super) fn forget(layout: &Layout, share: &Share) -> Result<DiskReply, DiskError> {
    let path = layout.share(&share.manifest.hash());
    let tried = |error: io::Error| failed("delete", &path, error);
    remove(&path).map_err(tried)?;
    sync_directory(&layout.shares()).map_err(tried)?;
    match &share.place {
        Place::Cache(_) => delete(layout, &share.place),
        _ => Ok(DiskReply::Done),
    }
}

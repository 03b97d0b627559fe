//! Files that go, and shares that become durable.

use super::error::{failed, refused};
use super::extent::{open_regular, stamp_of};
use super::files::{remove, sync_all, sync_directory, sync_directory_of_others};
use super::layout::Layout;
use super::share_file;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Place, Share};
use std::io;

/// Deletes a file of the node's own. A file of the user's is never deleted.
pub(super) fn delete(layout: &Layout, place: &Place) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    match place {
        Place::Piece(_) | Place::Incoming(_) | Place::Cache(_) | Place::Window { .. } => {
            remove(&path).map_err(|error| failed("delete", &path, error))?;
            Ok(DiskReply::Done)
        }
        // One of a download is given up by the download alone.
        Place::Partial(_) => Ok(DiskReply::Done),
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

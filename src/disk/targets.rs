//! Deleting files of the node.

use super::error::{failed, refused};
use super::files::remove;
use super::layout::Layout;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Place};

/// Deletes a file of the node. A file of the user is never deleted.
pub(super) fn delete(layout: &Layout, place: &Place) -> Result<DiskReply, DiskError> {
    let path = layout.path(place);
    match place {
        Place::Piece(_)
        | Place::Incoming(_)
        | Place::Cache(_)
        | Place::ShareManifest(_)
        | Place::Window { .. } => {
            remove(&path).map_err(|error| failed("delete", &path, error))?;
            Ok(DiskReply::Done)
        }
        // Only the download itself deletes its target.
        Place::Partial(_) => Ok(DiskReply::Done),
        Place::File(_) => {
            Err(refused(DiskErrorKind::Unsuitable, &path, "belongs to the user; the node does not delete it"))
        }
    }
}

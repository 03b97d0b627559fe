//! Files that go.

use super::error::{failed, refused};
use super::files::remove;
use super::layout::Layout;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Place};

/// Deletes a file of the node's own. A file of the user's is never deleted.
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
        // One of a download is given up by the download alone.
        Place::Partial(_) => Ok(DiskReply::Done),
        Place::File(_) => Err(refused(DiskErrorKind::Unsuitable, &path, "is not a node's to delete")),
    }
}

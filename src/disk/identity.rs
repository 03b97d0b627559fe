//! Changing the identity of a directory in which no node runs.

use super::durable::{Replace, replace};
use super::error::OpenError;
use super::files::{remove, sync_directory};
use super::layout::Layout;
use super::lock::Lock;
use super::state;
use crate::id::IdWork;
use std::io::ErrorKind;
use std::path::Path;

/// The identity before the present one, in the same form.
const OLD: &str = "identity.key.old";

/// The identities of a directory, as secrets.
pub struct Renewed {
    /// The one before, if there was one. It is kept in `identity.key.old`.
    pub old: Option<[u8; 32]>,
    /// The new one.
    pub new: [u8; 32],
}

/// Gives the node in `dir` a new identity, which shows this work. Its content stays. Fails while a node runs there.
pub fn renew_identity(dir: &Path, id_work: IdWork) -> Result<Renewed, OpenError> {
    let (layout, _lock) = lock(dir)?;
    let old = state::secret(&layout)?;
    if let Some(secret) = old {
        let path = layout.file(OLD);
        // The old key is safe before the new one takes its place.
        let text = state::secret_text(secret);
        replace(&path, &[text.as_bytes()], Replace::Durably).map_err(OpenError::at(&path))?;
    }
    Ok(Renewed { old, new: state::make_secret(&layout, id_work)? })
}

/// Removes the identity from `dir`, and the values that were published under it: the next node that starts there draws one of its own.
/// Returns whether there was one. Fails while a node runs there.
pub fn forget_identity(dir: &Path) -> Result<bool, OpenError> {
    let (layout, _lock) = lock(dir)?;
    let had_one = layout.file("identity.key").symlink_metadata().is_ok();
    // The key goes last: an attempt that was cut short is seen as such, and can be repeated.
    for name in ["records", OLD, "identity.key"] {
        let path = layout.file(name);
        match remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(OpenError::at(&path)(error)),
            _ => {}
        }
    }
    sync_directory(layout.root()).map_err(OpenError::at(layout.root()))?;
    Ok(had_one)
}

fn lock(dir: &Path) -> Result<(Layout, Lock), OpenError> {
    let layout = Layout::new(dir.canonicalize().map_err(OpenError::at(dir))?);
    let lock = Lock::take(layout.root(), &layout.file("lock"))?;
    Ok((layout, lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::identity::Identity;
    use std::fs;
    use tempfile::TempDir;

    fn secret(dir: &TempDir) -> [u8; 32] {
        let (_, _, secret) = Disk::open(dir.path()).unwrap();
        secret
    }

    #[test]
    fn a_new_identity_takes_the_place_of_the_old_one_which_is_kept() {
        let dir = TempDir::new().unwrap();
        let first = secret(&dir);
        let renewed = renew_identity(dir.path(), IdWork::NONE).unwrap();
        assert_eq!(renewed.old, Some(first));
        assert_ne!(renewed.new, first);
        assert_eq!(secret(&dir), renewed.new);
        fs::rename(dir.path().join(OLD), dir.path().join("identity.key")).unwrap();
        assert_eq!(secret(&dir), first, "the old one can be taken back");
    }

    #[test]
    fn a_directory_without_an_identity_draws_one_at_the_next_start() {
        let dir = TempDir::new().unwrap();
        let first = secret(&dir);
        renew_identity(dir.path(), IdWork::NONE).unwrap();
        assert!(forget_identity(dir.path()).unwrap());
        assert!(!forget_identity(dir.path()).unwrap(), "there is none any more");
        assert!(!dir.path().join(OLD).exists() && !dir.path().join("identity.key").exists());
        assert_ne!(secret(&dir), first);
    }

    #[test]
    fn the_identity_of_a_running_node_stays() {
        let dir = TempDir::new().unwrap();
        let (_disk, _, secret) = Disk::open(dir.path()).unwrap();
        let in_use = |error| matches!(error, OpenError::InUse { .. });
        assert!(renew_identity(dir.path(), IdWork::NONE).err().is_some_and(in_use));
        assert!(forget_identity(dir.path()).err().is_some_and(in_use));
        let text = fs::read_to_string(dir.path().join("identity.key")).unwrap();
        assert_eq!(text, state::secret_text(secret));
    }

    #[test]
    fn a_new_identity_and_a_first_one_show_the_work_that_is_asked_for() {
        let (dir, work) = (TempDir::new().unwrap(), IdWork::new(6).unwrap());
        let shows = |secret: &[u8; 32]| work.is_shown_by(&Identity::from_secret(secret).public());
        let (disk, _, first) = Disk::open_with(dir.path(), work).unwrap();
        assert!(shows(&first));
        drop(disk);
        let renewed = renew_identity(dir.path(), work).unwrap();
        assert!(shows(&renewed.new) && renewed.old == Some(first));
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("absent");
        assert!(renew_identity(&path, IdWork::NONE).is_err() && forget_identity(&path).is_err());
        assert!(!path.exists());
    }
}

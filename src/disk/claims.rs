//! Recovers the shares at a start: reads the log of shares, and checks the stamp of each shared file once.

use super::damaged::Damaged;
use super::extent::stamp_of;
use super::layout::{Layout, is_temporary};
use super::recovery::{Clearing, key_of};
use super::share_v1;
use super::shares::{Contents, ShareLog, Subject};
use super::state::read_small;
use crate::id::Key;
use crate::io::{FileStamp, Place, Share, ShareState};
use crate::manifest::{Layout as Cut, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Manifests by their files' addresses.
pub(super) type Manifests = BTreeMap<Key, Arc<Manifest>>;

/// The shares, in the order in which they were made, and the manifests of those of several chunks. `same_machine_boot` tells that
/// the machine has not restarted, so that writes without a sync are still there.
pub(super) fn recover(
    layout: &Layout,
    log: &mut ShareLog,
    clearing: &mut Clearing,
    damaged: &Damaged,
    (clean, same_machine_boot): (bool, bool),
) -> (Vec<Share>, Manifests) {
    let path = layout.file("shares.log");
    let mut contents = match log.read(damaged, clean) {
        Ok(contents) => contents,
        Err(error) => {
            clearing.failed("read", &path, &error);
            Contents::default()
        }
    };
    let imported = if contents.found { Vec::new() } else { import(layout, clearing, &mut contents) };
    let logged = contents.claims.len();
    let trusted = |share: &Share| share.synced || same_machine_boot;
    // A cached file may be dropped without the user; a share of the user may not.
    contents.claims.retain(|share| match &share.place {
        Place::Cache(_) => trusted(share) && layout.path(&share.place).is_file(),
        _ => true,
    });
    let dropped = logged - contents.claims.len();
    let mut distrusted = 0;
    for share in contents.claims.iter_mut().filter(|share| !trusted(share)) {
        let path = layout.path(&share.place);
        log::info!("{} was downloaded shortly before the power failed; it is hashed again", path.display());
        share.stamp = FileStamp::default();
        distrusted += 1;
    }
    match log.begin(&contents, dropped, imported.len() + distrusted, clean) {
        Ok(()) => imported.iter().for_each(|path| clearing.remove(path)),
        Err(error) => clearing.failed("write", &path, &error),
    }
    let mut shares = contents.claims;
    for share in &mut shares {
        share.state = state_of(&layout.path(&share.place), share);
    }
    let manifests = manifests(layout, clearing, &shares, contents.found);
    log_states(&shares);
    (shares, manifests)
}

/// The state of a shared file, by its stamp.
fn state_of(path: &Path, share: &Share) -> ShareState {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => match stamp_of(&metadata) == share.stamp {
            true => share.state,
            false => ShareState::Doubtful,
        },
        // The file is missing. That its content had changed before is still known.
        _ if share.state == ShareState::Changed => ShareState::Changed,
        _ => ShareState::Absent,
    }
}

fn log_states(shares: &[Share]) {
    let count = |state| shares.iter().filter(|share| share.state == state).count();
    let (doubtful, absent) = (count(ShareState::Doubtful), count(ShareState::Absent));
    match doubtful {
        0 => {}
        1 => log::info!("1 shared file may have changed; it is hashed again"),
        _ => log::info!("{doubtful} shared files may have changed; they are hashed again"),
    }
    match absent {
        0 => {}
        1 => log::warn!("1 shared file is missing; the node looks for it again (`elver ls` shows it)"),
        _ => log::warn!(
            "{absent} shared files are missing; the node looks for them again (`elver ls` shows them)"
        ),
    }
}

/// Imports the share files of the first version, one for each share. Returns the files that are no longer needed once the log has
/// their shares.
fn import(layout: &Layout, clearing: &mut Clearing, contents: &mut Contents) -> Vec<PathBuf> {
    let (mut subjects, mut over) = (BTreeSet::new(), Vec::new());
    for path in clearing.files_in(&layout.shares()) {
        let Some(hash) = key_of(&path) else { continue };
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        let bytes = if length <= share_v1::SHARE_BYTES_MAX { read_small(&path).ok() } else { None };
        let Some((share, manifest)) = bytes.and_then(|bytes| share_v1::parse(&bytes, &hash)) else {
            continue;
        };
        if subjects.insert(Subject::of(&share)) {
            contents.claims.push(share);
        }
        if manifest.is_single() {
            over.push(path);
        }
    }
    if !contents.claims.is_empty() {
        log::info!("imported the shares of an earlier version ({})", contents.claims.len());
    }
    over
}

/// The manifests of shared files of several chunks. An unreadable one is replaced when its file is hashed again. One without a share
/// is deleted, provided that the log was `found`.
fn manifests(layout: &Layout, clearing: &mut Clearing, shares: &[Share], found: bool) -> Manifests {
    let several = |share: &&Share| Cut::of(share.length).is_some_and(|cut| !cut.is_single());
    let claimed: BTreeMap<Key, u64> =
        shares.iter().filter(several).map(|share| (share.hash, share.length)).collect();
    let mut manifests = BTreeMap::new();
    for path in clearing.files_in(&layout.shares()) {
        let key = key_of(&path).filter(|key| claimed.contains_key(key));
        let Some(key) = key else {
            if found || is_temporary(&path) {
                clearing.remove(&path);
            } else {
                log::warn!("this version cannot read {}; the file stays as it is", path.display());
            }
            continue;
        };
        let length = Cut::of(claimed[&key]).map_or(0, |cut| cut.manifest_bytes() as usize);
        let bytes = read_small(&path).unwrap_or_default();
        match bytes.get(..length).and_then(|bytes| Manifest::decode(bytes, &key).ok()) {
            Some(manifest) => _ = manifests.insert(key, Arc::new(manifest)),
            None => log::warn!("{} is damaged: its file is hashed again", path.display()),
        }
    }
    manifests
}

//! What became of the claimed files since the last run: the log of shares is read, and each file looked at once.

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

/// The claims, in the order in which they were made, and the manifests of those of several chunks. `same_machine_boot` says
/// that what was written without being synced is still there.
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
    // What was fetched into the cache is the node's own affair.
    contents.claims.retain(|share| match &share.place {
        Place::Cache(_) => trusted(share) && layout.path(&share.place).is_file(),
        _ => true,
    });
    let dropped = logged - contents.claims.len();
    let mut distrusted = 0;
    for share in contents.claims.iter_mut().filter(|share| !trusted(share)) {
        let path = layout.path(&share.place);
        log::info!("{} was fetched shortly before the power went, and is hashed again", path.display());
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
    tell_of(&shares);
    (shares, manifests)
}

/// What became of a claimed file since it was hashed.
fn state_of(path: &Path, share: &Share) -> ShareState {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => match stamp_of(&metadata) == share.stamp {
            true => share.state,
            false => ShareState::Doubtful,
        },
        // That its content was another one is not forgotten.
        _ if share.state == ShareState::Changed => ShareState::Changed,
        _ => ShareState::Absent,
    }
}

fn tell_of(shares: &[Share]) {
    let count = |state| shares.iter().filter(|share| share.state == state).count();
    let (doubtful, absent) = (count(ShareState::Doubtful), count(ShareState::Absent));
    if doubtful > 0 {
        log::info!("{doubtful} shared files look different than they did, and are hashed again");
    }
    if absent > 0 {
        log::warn!("{absent} shared files are not there: they are looked for again (`elver ls`)");
    }
}

/// Takes up what the first version wrote, one file for each share. Which files are not needed any more once the log says it.
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
        log::info!("{} shares of an earlier version are taken up", contents.claims.len());
    }
    over
}

/// The manifests of shared files of several chunks. One that cannot be read is made again when the file is hashed again; one
/// that belongs to nothing is deleted when the log, which is `found`, says what there is.
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
                log::warn!("{} is no share that this version can read; it is left alone", path.display());
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

//! Sharing files: from a path to an address from which others can fetch, for as long as the user wants.
//!
//! A share is a claim about a path, kept until the user ends it. Putting a file hashes it, saves the claim, and then announces it
//! (`put`). A file that is put again with the same stamp is answered without reading it. A file whose stamp changed is hashed again in
//! the background: with the same content it is served again; with another content its claim is *changed*. A file that cannot be opened
//! is *absent*; it is tried again at growing intervals, and at once when a peer asks for it (`watch`). A claim ends on disk before it
//! ends in the table (`removal`).

pub(in crate::node) mod put;
pub(in crate::node) mod removal;
#[cfg(test)]
mod tests;
pub(in crate::node) mod watch;

use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Extent, FileStamp, Place, Share, ShareState};
use crate::manifest::Manifest;
use crate::node::command::CommandId;
use crate::node::machines::Machines;
use crate::node::{Waiting, status};
use crate::store::{Full, Shared};
use std::path::Path;
use std::sync::Arc;

/// Events of shares, for the rest of the node.
#[derive(Debug)]
pub(in crate::node) enum ShareEvent {
    /// A file is served.
    Served {
        /// Its address.
        hash: Key,
        /// Its manifest, if it is in memory.
        manifest: Option<Arc<Manifest>>,
        /// The command that waits for its copies.
        waiter: Option<CommandId>,
        /// Whether it was not served before.
        fresh: bool,
    },
    /// A file is no longer served from any path.
    Withdrawn {
        /// The file.
        shared: Shared,
        /// The cause, for messages.
        why: String,
        /// Its manifest, if it is in memory.
        manifest: Option<Arc<Manifest>>,
    },
}

/// A file was downloaded: it is shared in place. Returns the share that the disk must save. `None` when there is no room for it, or
/// when it is in the cache and shared from another path.
pub(in crate::node) fn fetched(
    manifest: &Arc<Manifest>,
    place: Place,
    stamp: FileStamp,
    machines: &mut Machines,
) -> Option<DiskOp> {
    let (hash, length) = (manifest.hash(), manifest.length());
    let known = machines.store.shared(&hash);
    let same = machines.store.record(&hash, &place);
    if same.is_some_and(|share| share.state == ShareState::Present && share.stamp == stamp) {
        return None;
    }
    let elsewhere = machines.store.claims(&hash).iter().any(|claim| claim.state == ShareState::Present);
    if elsewhere && matches!(place, Place::Cache(_)) {
        return None;
    }
    let (replicas, lifetime, replicated) = known
        .map_or((0, machines.lifetime, true), |known| (known.replicas, known.lifetime, known.replicated));
    let state = ShareState::Present;
    // The file may have replaced one that was shared from this path, and is not synced yet.
    let share = Share { hash, length, place, stamp, state, replicas, lifetime, replicated, synced: false };
    let unknown = !machines.store.has_manifest(&hash);
    if let Err(full) = claim(&share, manifest, None, machines) {
        log::warn!("{hash} was fetched and is not shared: {full}");
        return None;
    }
    Some(DiskOp::SaveShare { share, manifest: unknown.then(|| Arc::clone(manifest)) })
}

/// Enters a claim. A claim of its path on another address ends.
fn claim(
    share: &Share,
    manifest: &Arc<Manifest>,
    waiter: Option<CommandId>,
    machines: &mut Machines,
) -> Result<(), Full> {
    let before = machines.store.claimed_at(&share.place).filter(|hash| *hash != share.hash);
    let served = before.is_some_and(|before| machines.store.source(&before).is_some());
    let shared = before.and_then(|before| machines.store.shared(&before));
    let fresh = machines.store.source(&share.hash).is_none();
    let ended = machines.store.claim(share, Some(manifest))?;
    if let Some((ended, shared)) = ended.zip(shared) {
        let path = shown(&share.place);
        log::info!("{path} is shared as {} from now on, and not as {} any more", share.hash, shared.hash);
        let why = format!("{path} has other content now, and was put as {}", share.hash);
        not_any_more(served, shared, why, machines);
        if ended.last && !shared.layout.is_single() {
            machines.disk(DiskOp::Remove(Place::ShareManifest(shared.hash)), Waiting::Nothing);
        }
    }
    let manifest = Some(Arc::clone(manifest));
    machines.share_events.push_back(ShareEvent::Served { hash: share.hash, manifest, waiter, fresh });
    Ok(())
}

/// A file is no longer served: raises the event. Its manifest is still on disk.
fn not_any_more(served: bool, shared: Shared, why: String, machines: &mut Machines) {
    if !served || machines.store.source(&shared.hash).is_some() {
        return;
    }
    if shared.replicas > 0 && !shared.layout.is_single() {
        machines.disk(DiskOp::Read(manifest_of(&shared)), Waiting::Forget(shared));
    }
    machines.share_events.push_back(ShareEvent::Withdrawn { shared, why, manifest: None });
}

/// A shared file with another number of copies. Copies that exist are enough if the number is not higher.
fn aimed(shared: &Shared, replicas: u8, lifetime: u32) -> Shared {
    let enough = shared.replicated && replicas <= shared.replicas && lifetime <= shared.lifetime;
    Shared { replicas, lifetime, replicated: replicas == 0 || (enough && shared.replicas > 0), ..*shared }
}

/// The place of a shared file's manifest.
pub(in crate::node) fn manifest_of(shared: &Shared) -> Extent {
    let length = shared.layout.manifest_bytes();
    Extent { place: Place::ShareManifest(shared.hash), offset: 0, length, stamp: None }
}

/// A manifest that was read; `None` if it cannot be read, or is not the file's.
pub(in crate::node) fn decoded(hash: &Key, result: Result<DiskReply, DiskError>) -> Option<Manifest> {
    match result {
        Ok(DiskReply::Bytes(bytes)) => Manifest::decode(&bytes, hash).ok(),
        Ok(_) => None,
        Err(error) => {
            log::warn!("{error}");
            None
        }
    }
}

/// The files that are served at the start.
pub(in crate::node) fn served(machines: &Machines) -> Vec<Shared> {
    let files = machines.store.files().map(|(shared, _)| *shared);
    files.filter(|shared| machines.store.source(&shared.hash).is_some()).collect()
}

/// The path of a place, for messages.
fn shown(place: &Place) -> String {
    status::path_of(Path::new("the cache"), place).display().to_string()
}

//! Stock: the pieces of this node as replication sees them.
//!
//! A piece is stored here for the network, or is a part of a file that was put here, or both. Replication keeps the number of copies
//! of each. A part of a file is never dropped, and remains when the stored piece goes.

use super::share::{decoded, manifest_of};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, PieceMeta};
use crate::manifest::Manifest;
use crate::node::Waiting;
use crate::node::machines::Machines;
use crate::replication::Held;
use crate::store::Shared;
use crate::time::Instant;
use std::sync::Arc;

/// Tells replication about the pieces that were on disk at the start.
pub(in crate::node) fn take(now: Instant, machines: &mut Machines) {
    for meta in machines.store.pieces() {
        machines.replication.piece_added(now, held(&meta));
    }
}

/// A file is served that was not served before. If all its copies exist, replication keeps its pieces from now on.
pub(in crate::node) fn file_served(
    now: Instant,
    shared: &Shared,
    manifest: Option<Arc<Manifest>>,
    machines: &mut Machines,
) {
    if !shared.replicated || shared.replicas == 0 {
        return;
    }
    let single = || Manifest::single(shared.hash, shared.layout.length()).map(Arc::new);
    match manifest.or_else(single) {
        Some(manifest) => file_kept(now, shared, &manifest, machines),
        None => machines.disk(DiskOp::Read(manifest_of(shared)), Waiting::Stock(shared.hash)),
    }
}

/// The manifest of a served file was read. Returns false when it cannot be used: then the file must be hashed again.
pub(in crate::node) fn handle_manifest(
    now: Instant,
    hash: &Key,
    result: Result<DiskReply, DiskError>,
    machines: &mut Machines,
) -> bool {
    let Some(manifest) = decoded(hash, result) else { return false };
    let served = machines.store.source(hash).is_some();
    if let Some(shared) = machines.store.shared(hash).filter(|_| served) {
        file_kept(now, &shared, &manifest, machines);
    }
    true
}

/// A file that was put here has all its copies: replication keeps its pieces from now on.
pub(in crate::node) fn file_kept(
    now: Instant,
    shared: &Shared,
    manifest: &Manifest,
    machines: &mut Machines,
) {
    if shared.replicas == 0 || machines.outbox.is_leaf() {
        return;
    }
    for (key, length) in pieces_of(manifest) {
        let replicas = shared.replicas;
        machines.replication.piece_added(now, Held { key, replicas, length, keep: true });
    }
}

/// A file is no longer served: its pieces leave replication, at once if its manifest is in memory.
pub(in crate::node) fn file_withdrawn(
    now: Instant,
    shared: &Shared,
    manifest: Option<&Manifest>,
    machines: &mut Machines,
) {
    let single = Manifest::single(shared.hash, shared.layout.length());
    if let Some(manifest) = single.as_ref().or(manifest) {
        file_ended(now, manifest, machines);
    }
}

/// A file is no longer served. Its pieces that are stored here, too, stay in replication.
fn file_ended(now: Instant, manifest: &Manifest, machines: &mut Machines) {
    for (key, _) in pieces_of(manifest) {
        piece_removed(now, &key, machines);
    }
}

/// The manifest of a file that is no longer served was read: its pieces leave replication.
pub(in crate::node) fn handle_ended_manifest(
    now: Instant,
    shared: &Shared,
    result: Result<DiskReply, DiskError>,
    machines: &mut Machines,
) {
    let again = machines.store.source(&shared.hash).is_some();
    match decoded(&shared.hash, result) {
        Some(manifest) if !again => file_ended(now, &manifest, machines),
        Some(_) => {}
        None => {
            log::debug!("the manifest of {} is gone; its pieces are found missing one by one", shared.hash);
        }
    }
}

/// A stored piece, or its share, has gone: what is left of the piece stays in replication.
pub(in crate::node) fn piece_removed(now: Instant, key: &Key, machines: &mut Machines) {
    machines.replication.piece_removed(key);
    piece_changed(now, key, machines);
}

/// Updates a piece in replication.
pub(in crate::node) fn piece_changed(now: Instant, key: &Key, machines: &mut Machines) {
    let stored = machines.store.piece(key).map(|meta| held(&meta));
    let lasting = machines.store.lasting_share(key).map(|(shared, _)| *shared);
    let lasting = lasting.filter(|shared| shared.replicated && shared.replicas > 0);
    let replicas = lasting.filter(|_| !machines.outbox.is_leaf()).map(|shared| shared.replicas);
    let piece = match (stored, replicas) {
        (Some(stored), Some(replicas)) => {
            Some(Held { replicas: stored.replicas.max(replicas), keep: true, ..stored })
        }
        (Some(stored), None) => Some(stored),
        (None, Some(replicas)) => machines.store.locate(key).map(|(_, extent)| Held {
            key: *key,
            replicas,
            length: extent.length,
            keep: true,
        }),
        (None, None) => None,
    };
    if let Some(piece) = piece {
        machines.replication.piece_added(now, piece);
    }
}

/// A stored piece as replication sees it.
fn held(meta: &PieceMeta) -> Held {
    Held { key: meta.key, replicas: meta.replicas, length: meta.length, keep: false }
}

/// The pieces of a file: its chunks, and the manifest if there are several.
fn pieces_of(manifest: &Manifest) -> impl Iterator<Item = (Key, u32)> + '_ {
    let chunks = (0..).zip(manifest.keys()).map(|(chunk, key)| (*key, manifest.chunk_length(chunk)));
    let root = (!manifest.is_single()).then(|| (manifest.hash(), manifest.encoded_bytes() as u32));
    chunks.chain(root)
}

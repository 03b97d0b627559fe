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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{DiskErrorKind, FileStamp, Place, Recovered, Share, ShareState};
    use crate::limits::Limits;
    use crate::manifest::ManifestBuilder;
    use crate::store::Store;
    use std::path::Path;

    const START: Instant = Instant::from_secs(1000);

    fn file(length: usize) -> Arc<Manifest> {
        let mut builder = ManifestBuilder::new(length as u64).unwrap();
        builder.update(&vec![7; length]);
        Arc::new(builder.finish().unwrap())
    }

    /// A node that holds these keys as stored pieces, of which `replicas` copies were asked for.
    fn node(stored: &[Key], replicas: u8) -> Machines {
        let mut machines = Machines::alone(START);
        let piece = |key: &Key| PieceMeta { replicas, expires: u64::MAX >> 32, ..PieceMeta::file(*key, 100) };
        let recovered = Recovered { pieces: stored.iter().map(piece).collect(), ..Recovered::default() };
        machines.store = Store::new(&Limits::default(), &recovered, 1, START);
        machines
    }

    /// Shares a file of which all copies exist.
    fn share(manifest: &Manifest, replicas: u8, machines: &mut Machines) -> Shared {
        let share = Share {
            hash: manifest.hash(),
            length: manifest.length(),
            place: Place::File(Path::new("/u/a").into()),
            stamp: FileStamp::default(),
            state: ShareState::Present,
            replicas,
            lifetime: 1000,
            replicated: true,
            synced: true,
        };
        machines.store.claim(&share, Some(manifest)).expect("there is room");
        machines.store.shared(&manifest.hash()).expect("it is shared")
    }

    /// The number of copies that replication keeps of a piece; `None` when it does not know the piece.
    fn kept(key: &Key, machines: &Machines) -> Option<u8> {
        machines.replication.inspect(key).map(|piece| piece.replicas)
    }

    #[test]
    fn the_pieces_on_disk_at_the_start_are_kept() {
        let keys = [Key([1; 32]), Key([2; 32])];
        let mut machines = node(&keys, 4);
        take(START, &mut machines);
        assert_eq!(keys.map(|key| kept(&key, &machines)), [Some(4); 2]);
    }

    #[test]
    fn the_chunks_and_the_manifest_of_a_served_file_are_kept_when_its_copies_exist() {
        let (mut machines, manifest) = (node(&[], 0), file(600_000));
        let shared = share(&manifest, 3, &mut machines);
        let unfinished = Shared { replicated: false, ..shared };
        file_served(START, &unfinished, Some(Arc::clone(&manifest)), &mut machines);
        assert_eq!(kept(&manifest.hash(), &machines), None, "the upload makes its copies");
        file_served(START, &shared, Some(Arc::clone(&manifest)), &mut machines);
        assert_eq!(kept(&manifest.hash(), &machines), Some(3));
        assert!(manifest.keys().iter().all(|key| kept(key, &machines) == Some(3)));
    }

    #[test]
    fn a_manifest_that_is_not_in_memory_is_read_from_the_disk() {
        let (mut machines, manifest) = (node(&[], 0), file(600_000));
        let shared = share(&manifest, 3, &mut machines);
        file_served(START, &shared, None, &mut machines);
        let waiting = machines.disk_waiting.values().next();
        assert!(matches!(waiting, Some(Waiting::Stock(hash)) if *hash == manifest.hash()));
        let wrong = Err(DiskError { kind: DiskErrorKind::NotFound, message: String::new() });
        assert!(!handle_manifest(START, &manifest.hash(), wrong, &mut machines));
        assert_eq!(kept(&manifest.hash(), &machines), None);
        let read = Ok(DiskReply::Bytes(manifest.encode()));
        assert!(handle_manifest(START, &manifest.hash(), read, &mut machines));
        assert_eq!(kept(&manifest.hash(), &machines), Some(3));
    }

    #[test]
    fn a_piece_that_is_stored_and_shared_has_the_higher_number_of_copies_until_one_of_both_goes() {
        let manifest = file(100);
        let key = manifest.hash();
        let mut machines = node(&[key], 5);
        share(&manifest, 3, &mut machines);
        piece_changed(START, &key, &mut machines);
        assert_eq!(kept(&key, &machines), Some(5));
        machines.store.remove_piece(&key);
        piece_removed(START, &key, &mut machines);
        assert_eq!(kept(&key, &machines), Some(3), "its share is left");
    }

    #[test]
    fn a_withdrawn_file_leaves_replication_except_for_what_is_stored_here() {
        let manifest = file(100);
        let key = manifest.hash();
        for (stored, left) in [(vec![], None), (vec![key], Some(2))] {
            let mut machines = node(&stored, 2);
            let shared = share(&manifest, 3, &mut machines);
            file_served(START, &shared, None, &mut machines);
            assert_eq!(kept(&key, &machines), Some(3));
            let place = Place::File(Path::new("/u/a").into());
            machines.store.end_claim(&key, &place);
            file_withdrawn(START, &shared, None, &mut machines);
            assert_eq!(kept(&key, &machines), left);
        }
    }

    #[test]
    fn the_manifest_of_an_ended_file_is_of_no_use_when_the_file_is_served_again() {
        let (mut machines, manifest) = (node(&[], 0), file(600_000));
        let shared = share(&manifest, 3, &mut machines);
        file_kept(START, &shared, &manifest, &mut machines);
        let read = || Ok(DiskReply::Bytes(manifest.encode()));
        handle_ended_manifest(START, &shared, read(), &mut machines);
        assert_eq!(kept(&manifest.hash(), &machines), Some(3));
        machines.store.end_claim(&manifest.hash(), &Place::File(Path::new("/u/a").into()));
        handle_ended_manifest(START, &shared, read(), &mut machines);
        assert_eq!(kept(&manifest.hash(), &machines), None);
    }
}

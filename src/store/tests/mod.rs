mod admission;
mod files;
mod space;

use super::*;
use crate::claim::PieceClaim;
use crate::id::PublicKey;
use crate::io::{Ages, Brought, FileStamp, Mode};
use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
use crate::peers::contest::Holder;
use crate::peers::party::Party;
use crate::wire::frame::Refusal;
use std::path::Path;

const NOW: Instant = Instant::from_secs(1000);

fn limits(quota_bytes: u64) -> Limits {
    Limits { quota_bytes, ..Limits::default() }
}

fn store(quota_bytes: u64) -> Store {
    Store::new(&limits(quota_bytes), &Recovered::default(), 1, NOW)
}

fn key(byte: u8) -> Key {
    Key([byte; 32])
}

/// A node at an address of its own.
fn peer(number: u8) -> Holder {
    Holder { party: Party::of([9, 9, number, 1].into()), identity: [number; 8] }
}

fn offer(byte: u8, length: u32) -> Offer {
    let (content, mode) = (Content::File, Mode::UNKNOWN);
    Offer { key: key(byte), content, length, input_offset: 0, replicas: 3, mode, lifetime: 100, claim: None }
}

/// The offer with a claim of its publisher.
fn claimed(offer: Offer, (replicas, lifetime): (u8, u32), sequence: u64) -> Offer {
    let claim = PieceClaim::unsigned(PublicKey([5; 32]), replicas, lifetime, sequence);
    Offer { replicas, lifetime, claim: Some(claim), ..offer }
}

/// The party of the first peer, which brings most pieces.
fn brought() -> Brought {
    Brought(*peer(1).party.as_bytes())
}

fn meta(byte: u8, length: u32, expires: u64) -> PieceMeta {
    let (content, mode) = (Content::File, Mode::UNKNOWN);
    PieceMeta {
        key: key(byte),
        content,
        length,
        input_offset: 0,
        replicas: 3,
        mode,
        expires,
        claim: None,
        brought: brought(),
    }
}

fn manifest(fill: u8, length: u64) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new(length).unwrap();
    builder.update(&vec![fill; length as usize]);
    Arc::new(builder.finish().unwrap())
}

fn path(name: &str) -> Place {
    Place::File(Path::new(name).into())
}

fn share(manifest: &Arc<Manifest>, place: Place) -> Share {
    let (hash, length, state) = (manifest.hash(), manifest.length(), ShareState::Present);
    let stamp = FileStamp { length, modified: 5, changed: 6, mode: Mode::of(0o755) };
    let (replicas, lifetime) = (0, 60);
    Share { hash, length, place, stamp, state, replicas, lifetime, replicated: false, synced: true }
}

/// Shares a file from there.
fn add(store: &mut Store, manifest: &Arc<Manifest>, place: Place) -> Result<Option<Ended>, Full> {
    store.claim(&share(manifest, place), Some(manifest))
}

fn add_cached(store: &mut Store, manifest: &Arc<Manifest>) -> Result<Option<Ended>, Full> {
    add(store, manifest, Place::Cache(manifest.hash()))
}

/// The disk operation for a cached file that is evicted.
fn removal(manifest: &Arc<Manifest>) -> DiskOp {
    DiskOp::RemoveShare { share: cached(manifest), last: true }
}

fn cached(manifest: &Arc<Manifest>) -> Share {
    share(manifest, Place::Cache(manifest.hash()))
}

fn ops(store: &mut Store) -> Vec<DiskOp> {
    core::iter::from_fn(|| store.poll_op()).collect()
}

fn admit(store: &mut Store, offer: &Offer) -> u64 {
    match store.admit(NOW, peer(1), offer) {
        Admission::Send { incoming } => incoming,
        other => panic!("{other:?}"),
    }
}

fn keep(store: &mut Store, offer: &Offer) {
    let incoming = admit(store, offer);
    assert!(store.arrives(NOW, incoming));
    store.committed(incoming).unwrap();
}

#[test]
fn a_piece_is_located_only_after_it_is_committed() {
    let mut store = store(1 << 20);
    let incoming = admit(&mut store, &offer(1, 500));
    assert!(!store.has(&key(1)));
    assert_eq!(store.admit(NOW, peer(1), &offer(1, 500)), Admission::Refuse(Refusal::Busy));
    assert_eq!(store.meta_of(incoming), Some(meta(1, 500, 100)));
    assert_eq!(store.committed(incoming), Some(meta(1, 500, 100)));
    assert_eq!(store.committed(incoming), None);
    assert_eq!(store.meta_of(incoming), None);
    let extent = Extent { place: Place::Piece(key(1)), offset: 0, length: 500, stamp: None };
    assert_eq!(store.locate(&key(1)), Some((Content::File, extent)));
    assert_eq!(store.stats().piece_bytes, 500 + PIECE_OVERHEAD_BYTES);
    assert_eq!(store.stats().reserved_bytes, 0);
}

#[test]
fn a_piece_of_an_earlier_version_is_kept_for_a_day_after_the_update() {
    let week = 7 * 24 * 3600;
    let claim = claimed(offer(2, 9), (3, week as u32), 1).claim;
    let pieces = vec![meta(1, 9, week), PieceMeta { claim, ..meta(2, 9, week) }];
    let recovered = Recovered { pieces, ..Recovered::default() };
    let store = Store::new(&limits(1 << 20), &recovered, 1, NOW);
    assert_eq!(store.piece(&key(1)).unwrap().expires, 24 * 3600);
    assert_eq!(store.piece(&key(2)).unwrap().expires, week);
}

#[test]
fn pieces_expire_in_the_nodes_own_age_a_bounded_number_in_each_call() {
    let ages = Ages { boots: 3, seconds: 5000, clean: true };
    let pieces = (0..100).map(|byte| meta(byte, 10, 5010)).chain([meta(200, 10, 4999)]).collect();
    let recovered = Recovered { ages, pieces, ..Recovered::default() };
    let mut store = Store::new(&limits(1 << 20), &recovered, 1, NOW);
    assert_eq!(ops(&mut store), [DiskOp::Remove(Place::Piece(key(200)))]);
    assert_eq!(store.age(NOW), 5000);
    assert_eq!(store.next_deadline(), Some(NOW + Duration::from_secs(10)));
    store.handle_timeout(NOW + Duration::from_secs(9));
    assert_eq!(store.stats().pieces, 100);
    let due = NOW + Duration::from_secs(10);
    store.handle_timeout(due);
    assert_eq!(store.stats().pieces, 36);
    assert_eq!(ops(&mut store).len(), 64);
    assert_eq!(store.next_deadline(), Some(due));
    store.handle_timeout(due);
    assert_eq!(store.stats().pieces, 0);
    assert_eq!(ops(&mut store).len(), 36);
    assert_eq!(store.next_deadline(), None);
    assert_eq!(store.stats().expired, 100);
    assert_eq!(store.stats().piece_bytes, 0);
}

#[test]
fn each_change_of_a_stored_piece_is_reported_once() {
    let mut store = store(1 << 20);
    let wanted = |replicas| claimed(offer(1, 1000), (replicas, 100), replicas.into());
    let incoming = admit(&mut store, &wanted(3));
    assert_eq!(store.poll_change(), None, "it is not here yet");
    store.committed(incoming);
    assert!(matches!(store.poll_change(), Some(PieceChange::Kept(meta)) if meta.replicas == 3));
    assert_eq!(store.admit(NOW, peer(1), &wanted(2)), Admission::Have);
    assert_eq!(store.poll_change(), None, "the claim is older than the one that it is kept on");
    assert_eq!(store.admit(NOW, peer(1), &wanted(5)), Admission::Raise { replicas: 5, expires: 100 });
    assert!(matches!(store.poll_change(), Some(PieceChange::Kept(meta)) if meta.replicas == 5));
    assert!(store.remove_piece(&wanted(3).key) && !store.remove_piece(&wanted(3).key));
    assert_eq!(store.poll_change(), Some(PieceChange::Dropped(wanted(3).key)));
    assert_eq!(store.poll_change(), None);
}

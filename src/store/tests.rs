use super::*;
use crate::claim::PieceClaim;
use crate::id::PublicKey;
use crate::io::Mode;
use crate::io::{Ages, Brought, FileStamp};
use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
use crate::peers::party::Party;
use crate::rng::Rng;
use std::collections::BTreeMap;
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
fn an_offer_of_a_stored_piece_only_raises_its_copies_and_lifetime() {
    let mut store = store(1 << 20);
    keep(&mut store, &offer(1, 500));
    let short = Offer { mode: Mode::UNKNOWN, ..claimed(offer(1, 500), (7, 10), 2) };
    assert_eq!(store.admit(NOW, peer(1), &short), Admission::Raise { replicas: 7, expires: 100 });
    let kept = meta(1, 500, 100);
    assert_eq!(store.piece(&key(1)), Some(PieceMeta { replicas: 7, claim: short.claim, ..kept }));
    let later = NOW + Duration::from_secs(50);
    let long = claimed(offer(1, 500), (3, 100), 3);
    assert_eq!(store.admit(later, peer(1), &long), Admission::Raise { replicas: 7, expires: 150 });
    let kept = meta(1, 500, 150);
    assert_eq!(store.piece(&key(1)), Some(PieceMeta { replicas: 7, claim: long.claim, ..kept }));
}

#[test]
fn an_offer_without_a_newer_claim_raises_nothing() {
    let mut store = store(1 << 20);
    let first = claimed(offer(1, 500), (3, 100), 5);
    keep(&mut store, &first);
    let kept = store.piece(&key(1));
    let later = NOW + Duration::from_secs(50);
    let unclaimed = Offer { replicas: 20, lifetime: 1_000_000, ..offer(1, 500) };
    for again in [unclaimed, first, claimed(offer(1, 500), (20, 1_000_000), 4)] {
        assert_eq!(store.admit(later, peer(1), &again), Admission::Have);
        assert_eq!(store.piece(&key(1)), kept);
    }
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
fn a_discarded_piece_is_deleted_from_its_space() {
    let mut store = store(500 + PIECE_OVERHEAD_BYTES);
    let incoming = admit(&mut store, &offer(1, 500));
    assert_eq!(store.admit(NOW, peer(1), &offer(2, 0)), Admission::Refuse(Refusal::NoSpace));
    store.discarded(incoming);
    store.discarded(incoming);
    assert_eq!(ops(&mut store), [DiskOp::Remove(Place::Incoming(incoming))]);
    let next = admit(&mut store, &offer(2, 500));
    assert_ne!(next, incoming);
}

#[test]
fn impossible_offers_are_invalid_and_too_many_at_once_are_busy() {
    let mut store = store(1 << 30);
    assert_eq!(
        store.admit(NOW, peer(1), &Offer { replicas: 0, ..offer(1, 1) }),
        Admission::Refuse(Refusal::Invalid)
    );
    let most = Limits::default().streams_max as u8;
    (0..most).for_each(|byte| assert!(admit(&mut store, &offer(byte, 1)) == u64::from(byte)));
    assert_eq!(store.admit(NOW, peer(1), &offer(most, 1)), Admission::Refuse(Refusal::Busy));
}

#[test]
fn promises_of_one_party_do_not_keep_the_pieces_of_others_out() {
    let mut store = store(1 << 20);
    let crowd = |identity: u8| Holder { identity: [identity; 8], ..peer(1) };
    let most = Limits::default().streams_max as u8;
    let first = admit(&mut store, &offer(0, 1000));
    for byte in 1..most {
        assert!(matches!(store.admit(NOW, crowd(byte), &offer(byte, 12_000)), Admission::Send { .. }));
    }
    let busy = Admission::Refuse(Refusal::Busy);
    assert_eq!(store.admit(NOW, crowd(200), &offer(200, 200_000)), busy, "its party has promises enough");
    let Admission::Send { incoming } = store.admit(NOW, peer(2), &offer(201, 200_000)) else {
        panic!("another party has no place");
    };
    assert!(store.arrives(NOW, incoming));
    assert!(!store.arrives(NOW, first), "the oldest promise of the party that has most has ended");
    assert_eq!(store.meta_of(first), None);
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
fn a_lowered_quota_evicts_the_cache_admits_nothing_and_keeps_every_piece() {
    let one = manifest(1, 400);
    let recovered = Recovered {
        pieces: vec![meta(1, 400, 10), meta(2, 400, 30), meta(3, 400, 20)],
        shares: vec![cached(&one), share(&manifest(2, 9000), path("/a"))],
        ..Recovered::default()
    };
    let mut store = Store::new(&limits(2 * (400 + PIECE_OVERHEAD_BYTES) + 10), &recovered, 1, NOW);
    assert_eq!(store.stats().pieces, 3);
    assert_eq!(store.stats().shares, 1);
    assert_eq!(ops(&mut store), [removal(&one)]);
    assert!(store.stats().over);
    assert_eq!(store.admit(NOW, peer(1), &offer(9, 0)), Admission::Refuse(Refusal::NoSpace));
    assert!(matches!(add_cached(&mut store, &one), Err(Full::Quota { .. })));
    let longer = Admission::Raise { replicas: 3, expires: 100 };
    let claimed = claimed(offer(2, 400), (3, 100), 1);
    assert_eq!(store.admit(NOW, peer(1), &claimed), longer, "what is here is here");
    // Once other nodes have a copy the piece may be dropped, and there is room again.
    assert!(store.remove_piece(&key(1)) && !store.stats().over);
    let fewer = Limits { pieces_max: 2, ..limits(1 << 20) };
    let mut store = Store::new(&fewer, &recovered, 1, NOW);
    assert!(store.stats().over && store.stats().pieces == 3);
    assert_eq!(store.admit(NOW, peer(1), &offer(9, 0)), Admission::Refuse(Refusal::NoSpace));
}

#[test]
fn small_pieces_count_with_whole_blocks() {
    let space = Space { block_bytes: 4096, ..Space::default() };
    let recovered = Recovered { space, ..Recovered::default() };
    let mut store = Store::new(&limits(1 << 20), &recovered, 1, NOW);
    let mut kept = 0;
    for byte in 0..=255 {
        let incoming = match store.admit(NOW, peer(1), &offer(byte, 1)) {
            Admission::Send { incoming } => incoming,
            other => {
                assert_eq!(other, Admission::Refuse(Refusal::NoSpace));
                break;
            }
        };
        assert!(store.arrives(NOW, incoming));
        store.committed(incoming).unwrap();
        kept += 1;
    }
    // Each piece is in a directory of its own: two blocks, and their directory entries.
    assert_eq!(kept, (1 << 20) / (2 * (4096 + 512)));
    assert_eq!(store.stats().refused_quota, 1);
    assert_eq!(store.stats().refused_free, 0);
    for byte in 0..kept as u8 {
        store.remove_piece(&key(byte));
    }
    assert_eq!(store.stats().piece_bytes, 0);
}

#[test]
fn the_floor_stays_free_for_the_host_whatever_the_quota() {
    let space = |free_bytes, free_files| Space {
        block_bytes: 4096,
        total_bytes: 1 << 30,
        free_bytes,
        total_files: 1000,
        free_files,
    };
    let recovered = Recovered { space: space(110 << 20, 500), ..Recovered::default() };
    let mut store = Store::new(&limits(1 << 40), &recovered, 1, NOW);
    let chunk = |byte| Offer { content: Content::Chunk, input_offset: 1 << 24, ..offer(byte, 16 << 20) };
    // 46 MiB are left above the floor of 64: two pieces of 16 MiB fit, whether they are arriving or stored.
    let first = admit(&mut store, &chunk(1));
    let Admission::Send { incoming: second } = store.admit(NOW, peer(2), &chunk(2)) else {
        panic!("there is room for two")
    };
    let full = Admission::Refuse(Refusal::NoSpace);
    assert!(store.arrives(NOW, first) && store.arrives(NOW, second));
    assert_eq!(store.admit(NOW, peer(3), &chunk(3)), full);
    store.committed(first).unwrap();
    assert_eq!(store.admit(NOW, peer(3), &chunk(3)), full, "it is there, although nobody has looked again");
    store.discarded(second);
    store.set_space(space(94 << 20, 499));
    let second = admit(&mut store, &chunk(2));
    store.discarded(second);
    // Another program fills the disk: the cache is evicted, then the store admits nothing.
    let file = manifest(1, 100_000);
    add_cached(&mut store, &file).unwrap();
    ops(&mut store);
    store.set_space(space(10 << 20, 499));
    assert_eq!(ops(&mut store), [removal(&file)]);
    assert!(matches!(add_cached(&mut store, &file), Err(Full::Floor { .. })));
    assert_eq!(store.admit(NOW, peer(1), &offer(9, 0)), full);
    // The same holds for inodes: 50 are left to the host.
    store.set_space(space(1 << 29, 52));
    let (one, two) = (admit(&mut store, &offer(4, 0)), admit(&mut store, &offer(5, 0)));
    assert_eq!(store.admit(NOW, peer(1), &offer(6, 0)), full);
    assert!(store.arrives(NOW, one) && store.arrives(NOW, two));
    assert_eq!(store.stats().refused_quota, 0);
}

#[test]
fn windows_of_streams_count_only_against_the_floor() {
    const MIB: u64 = 1 << 20;
    let space = |free| Space {
        block_bytes: 4096,
        total_bytes: 1 << 30,
        free_bytes: free,
        total_files: 1000,
        free_files: 100,
    };
    // 50 inodes are free beyond those of the host, and no quota at all.
    let recovered = Recovered { space: space(80 * MIB), ..Recovered::default() };
    let mut store = Store::new(&Limits { keep_free_bytes: Some(64 * MIB), ..limits(0) }, &recovered, 1, NOW);
    assert_eq!(store.open_window(1, 8 * MIB, MIB, MIB), Ok(8 * MIB));
    // The next gets what there is, if that is enough for it.
    assert_eq!(store.open_window(2, 12 * MIB, MIB, MIB), Ok(8 * MIB));
    let refused = Full::Floor { needed: MIB, room: 0, floor: 64 * MIB };
    assert_eq!(store.open_window(3, 8 * MIB, MIB, MIB), Err(refused));
    assert!(refused.to_string().contains("--keep-free"), "{refused}");
    assert_eq!(store.stats().window_bytes, 16 * MIB);
    assert_eq!(store.stats().refused_free, 1);
    store.close_window(1);
    assert_eq!(store.open_window(3, 8 * MIB, MIB, MIB), Ok(8 * MIB));
    // So do inodes.
    store.set_space(space(1 << 30));
    store.close_window(2);
    store.close_window(3);
    assert_eq!(store.open_window(4, 8 * MIB, MIB, MIB / 8), Err(Full::Inodes));
    assert_eq!(store.open_window(4, 4 * MIB, MIB, MIB / 8), Ok(4 * MIB));
}

#[test]
fn a_window_leaves_no_room_for_what_arrives_and_the_cache_makes_room_for_it() {
    const MIB: u64 = 1 << 20;
    let space = |free| Space { total_bytes: 1 << 30, free_bytes: free, ..Space::default() };
    let recovered = Recovered { space: space(74 * MIB), ..Recovered::default() };
    let mut store =
        Store::new(&Limits { keep_free_bytes: Some(64 * MIB), ..limits(1 << 30) }, &recovered, 1, NOW);
    let file = manifest(1, 2 * MIB);
    add_cached(&mut store, &file).unwrap();
    store.set_space(space(72 * MIB));
    assert_eq!(store.open_window(1, 9 * MIB, MIB, MIB), Ok(9 * MIB));
    assert_eq!(ops(&mut store), [removal(&file)]);
    let chunk = |byte| Offer { length: 256 << 10, ..offer(byte, 0) };
    let mut arrives = |byte: &u8| match store.admit(NOW, peer(*byte), &chunk(*byte)) {
        Admission::Send { incoming } => store.arrives(NOW, incoming),
        _ => false,
    };
    let chunks = (1..=8).take_while(|byte| arrives(byte));
    assert_eq!(chunks.count(), 3, "a fourth would not fit the mebibyte that is left");
}

#[test]
fn a_located_piece_has_the_stamp_of_its_file() {
    let mut store = store(1 << 30);
    let (large, small) = (manifest(1, 2 * CHUNK_BYTES_MIN + 77), manifest(2, 300));
    let (first, second) = (share(&large, path("/large")), share(&small, path("/small")));
    store.claim(&first, Some(&large)).unwrap();
    store.claim(&second, None).unwrap();
    let (content, extent) = store.locate(&large.hash()).unwrap();
    assert_eq!(content, Content::Manifest);
    assert_eq!(&extent.place, &Place::ShareManifest(large.hash()));
    assert_eq!(extent.length as usize, large.encode().len());
    assert_eq!(extent.stamp, None);
    let stamp = Some(first.stamp);
    let last = Extent { place: path("/large"), offset: 2 * CHUNK_BYTES_MIN, length: 77, stamp };
    assert_eq!(store.locate(&large.keys()[2]), Some((Content::Chunk, last)));
    let whole = Extent { place: path("/small"), offset: 0, length: 300, stamp: Some(second.stamp) };
    assert_eq!(store.locate(&small.hash()), Some((Content::File, whole)));
    assert_eq!(store.end_claim(&large.hash(), &path("/large")), Some(Ended { share: first, last: true }));
    assert!(!store.has(&large.hash()) && !store.has(&large.keys()[0]) && store.has(&small.hash()));
}

#[test]
fn a_download_serves_only_chunks_that_are_done() {
    let mut store = store(1 << 30);
    let file = manifest(1, 70 * CHUNK_BYTES_MIN);
    let place = Place::Partial(Path::new("/target").into());
    store.begin_partial(file.hash(), file.clone(), place.clone()).unwrap();
    store.chunk_done(&file.hash(), 65);
    store.chunk_done(&file.hash(), 4000);
    store.chunk_done(&key(9), 0);
    let length = CHUNK_BYTES_MIN as u32;
    let extent = Extent { place, offset: 65 * CHUNK_BYTES_MIN, length, stamp: None };
    assert_eq!(store.locate(&file.keys()[65]), Some((Content::Chunk, extent)));
    assert!(!store.has(&file.keys()[64]) && !store.has(&file.hash()));
    assert_eq!(store.partial(&file.hash()), Some(&file));
    assert!(store.local_sources(&file).is_empty());
    store.end_partial(&file.hash());
    assert!(!store.has(&file.keys()[65]) && store.partial(&file.hash()).is_none());
}

#[test]
fn chunks_in_other_files_and_stored_pieces_are_local_sources() {
    let mut store = store(1 << 30);
    let (file, longer) = (manifest(1, 3 * CHUNK_BYTES_MIN), manifest(1, 5 * CHUNK_BYTES_MIN + 1));
    add(&mut store, &file, path("/short")).unwrap();
    let chunk = Offer {
        key: longer.keys()[4],
        content: Content::Chunk,
        length: CHUNK_BYTES_MIN as u32,
        input_offset: 4 * CHUNK_BYTES_MIN,
        ..offer(0, 0)
    };
    keep(&mut store, &chunk);
    let place = Place::Cache(longer.hash());
    store.begin_partial(longer.hash(), longer.clone(), place).unwrap();
    store.chunk_done(&longer.hash(), 5);
    let sources = store.local_sources(&longer);
    assert_eq!(sources.iter().map(|(chunk, _)| *chunk).collect::<Vec<_>>(), [0, 1, 2, 4]);
    assert_eq!(sources[0].1.place, path("/short"));
    assert_eq!(sources[3].1.place, Place::Piece(longer.keys()[4]));
}

#[test]
fn the_longest_unused_cached_file_is_evicted_first_and_pieces_never_are() {
    let mut store = store(3000 + PIECE_OVERHEAD_BYTES);
    let files: Vec<_> = (1..=3).map(|fill| manifest(fill, 800)).collect();
    files.iter().for_each(|file| _ = add_cached(&mut store, file).unwrap());
    keep(&mut store, &offer(1, 500));
    store.touch(&files[0].hash());
    // 2,400 of 3,000 bytes are cached, 500 a piece: 700 more need one file's place.
    let incoming = admit(&mut store, &offer(2, 700 - PIECE_OVERHEAD_BYTES as u32));
    assert_eq!(ops(&mut store), [], "a promise takes nothing away from anybody");
    assert!(store.arrives(NOW, incoming));
    assert_eq!(ops(&mut store), [removal(&files[1])]);
    store.committed(incoming).unwrap();
    // More than the whole cache can free: nothing is evicted.
    assert_eq!(store.admit(NOW, peer(1), &offer(3, 1800)), Admission::Refuse(Refusal::NoSpace));
    assert_eq!(ops(&mut store).len(), 0);
    assert_eq!(store.stats().shares, 2);
    let refused = Full::Quota { needed: 2500, quota: 3000 + PIECE_OVERHEAD_BYTES };
    assert_eq!(add_cached(&mut store, &manifest(9, 2500)), Err(refused));
    assert_eq!(store.stats().pieces, 2);
    assert_eq!(store.stats().evicted, 1);
}

#[test]
fn a_download_into_the_cache_becomes_a_share_in_the_place_of_its_reservation() {
    let mut store = store(1000);
    let (old, file) = (manifest(1, 600), manifest(2, 700));
    add_cached(&mut store, &old).unwrap();
    store.begin_partial(file.hash(), file.clone(), Place::Cache(file.hash())).unwrap();
    assert_eq!(ops(&mut store), [removal(&old)]);
    assert_eq!(store.admit(NOW, peer(1), &offer(1, 300)), Admission::Refuse(Refusal::NoSpace));
    add_cached(&mut store, &file).unwrap();
    let stats = store.stats();
    assert_eq!(stats.cached_bytes, 700);
    assert_eq!(stats.reserved_bytes, 0);
    let large = manifest(3, 1001);
    let refused = store.begin_partial(large.hash(), large.clone(), Place::Cache(large.hash()));
    assert_eq!(refused, Err(Full::Quota { needed: 1001, quota: 1000 }));
    assert_eq!(store.stats().shares, 1);
}

#[test]
fn a_file_at_two_paths_is_served_from_the_first_that_is_present() {
    let mut store = store(1000);
    let file = manifest(1, 600);
    add(&mut store, &file, path("/a")).unwrap();
    add(&mut store, &file, path("/b")).unwrap();
    assert_eq!(store.stats().shares, 1);
    assert_eq!(store.stats().claims, 2);
    let from = |store: &Store| store.locate(&file.hash()).map(|(_, extent)| extent.place);
    assert_eq!(from(&store), Some(path("/a")));
    let stamp = FileStamp::default();
    for state in [ShareState::Absent, ShareState::Changed, ShareState::Doubtful] {
        assert!(store.settle_claim(&file.hash(), &path("/a"), state, stamp));
        assert_eq!(from(&store), Some(path("/b")), "{state:?}");
        let (unsettled, after) = store.unsettled_from((0, 0)).unwrap();
        assert_eq!(unsettled.place, path("/a"));
        assert_eq!(unsettled.state, state);
        assert_eq!(store.unsettled_from(after), None);
    }
    let ended = store.end_claim(&file.hash(), &path("/b")).unwrap();
    assert!(!ended.last && from(&store).is_none() && store.shared(&file.hash()).is_some());
    store.settle_claim(&file.hash(), &path("/a"), ShareState::Present, stamp);
    assert_eq!(from(&store), Some(path("/a")));
    assert_eq!(store.unsettled_from((0, 0)), None);
    assert!(store.end_claim(&file.hash(), &path("/a")).unwrap().last);
    assert_eq!(store.stats().shares, 0);
    assert_eq!(store.stats().claims, 0);
}

#[test]
fn a_new_claim_at_a_path_ends_only_the_old_claim_there() {
    let mut store = store(1000);
    let (before, after) = (manifest(1, 600), manifest(2, 700));
    add(&mut store, &before, path("/a")).unwrap();
    add(&mut store, &before, path("/b")).unwrap();
    let ended = add(&mut store, &after, path("/a")).unwrap().unwrap();
    assert_eq!(ended.share.hash, before.hash());
    assert!(!ended.last);
    assert_eq!(store.claimed_at(&path("/a")), Some(after.hash()));
    assert!(store.has(&before.hash()) && store.has(&after.hash()));
    let ended = add(&mut store, &after, path("/b")).unwrap().unwrap();
    assert!(ended.last && !store.has(&before.hash()));
    assert_eq!(store.claims(&after.hash()).len(), 2);
}

#[test]
fn a_file_is_not_served_before_its_manifest_is_known() {
    let mut store = store(1000);
    let file = manifest(1, 3 * CHUNK_BYTES_MIN);
    let share = share(&file, path("/a"));
    store.claim(&share, None).unwrap();
    assert!(!store.has(&file.hash()) && !store.has(&file.keys()[1]) && !store.has_manifest(&file.hash()));
    assert_eq!(store.claimed_at(&path("/a")), Some(file.hash()));
    store.claim(&share, Some(&file)).unwrap();
    assert!(store.has(&file.hash()) && store.has(&file.keys()[1]) && store.has_manifest(&file.hash()));
    assert_eq!(store.chunk_of(&file.keys()[0]), Some(0));
    assert_eq!(store.chunk_of(&file.hash()), None);
}

#[test]
fn the_claims_are_bounded_and_a_cached_file_that_gets_a_path_leaves_the_cache() {
    let limits = Limits { shares_max: 2, ..limits(1 << 20) };
    let mut store = Store::new(&limits, &Recovered::default(), 1, NOW);
    let files: Vec<_> = (1..=3).map(|fill| manifest(fill, 800)).collect();
    add_cached(&mut store, &files[0]).unwrap();
    add(&mut store, &files[0], path("/0")).unwrap();
    assert_eq!(ops(&mut store), [DiskOp::RemoveShare { share: cached(&files[0]), last: false }]);
    add_cached(&mut store, &files[1]).unwrap();
    assert_eq!(store.check_room(&path("/2")), Ok(()), "the cache makes room");
    add(&mut store, &files[2], path("/2")).unwrap();
    assert_eq!(ops(&mut store), [removal(&files[1])]);
    assert_eq!(store.poll_change(), Some(PieceChange::Evicted(files[1].hash())));
    assert_eq!(store.check_room(&path("/1")), Err(Full::Shares(2)));
    assert_eq!(add(&mut store, &files[1], path("/1")), Err(Full::Shares(2)));
    assert_eq!(add(&mut store, &files[2], path("/2")), Ok(None), "what is claimed already fits");
    assert_eq!(store.stats().cached_bytes, 0);
    assert_eq!(store.stats().claims, 2);
}

#[test]
fn all_of_many_files_that_come_and_go_are_found() {
    let mut store = store(1 << 20);
    let hash = |number: u32| Key(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let claim = |number: u32| {
        let small = manifest(1, 1);
        Share { hash: hash(number), length: 5, ..share(&small, path(&format!("/{number}"))) }
    };
    for number in 0..5000 {
        store.claim(&claim(number), None).unwrap();
        if number >= 1000 {
            let place = claim(number - 1000).place;
            assert!(store.end_claim(&hash(number - 1000), &place).unwrap().last);
        }
    }
    assert!((0..5000).all(|number| store.has(&hash(number)) == (number >= 4000)));
    assert_eq!(store.stats().claims, 1000);
    assert_eq!(store.files().count(), 1000);
}

#[test]
fn a_published_file_counts_as_a_copy_and_a_downloaded_one_does_not() {
    let mut store = store(1 << 20);
    let file = manifest(1, 800);
    let offer = Offer { key: file.hash(), ..offer(1, 800) };
    let downloaded = Share { synced: false, ..share(&file, path("/a")) };
    store.claim(&downloaded, None).unwrap();
    let incoming = admit(&mut store, &offer);
    store.discarded(incoming);
    store.claim(&Share { synced: true, replicas: 3, ..downloaded }, None).unwrap();
    assert_eq!(store.admit(NOW, peer(1), &offer), Admission::Have);
}

fn cost(length: u32) -> u64 {
    Costs::new(0).piece(length)
}

/// The bytes on disk and on their way there, if the disk carries out each operation at once.
fn footprint(store: &Store, arriving: &BTreeMap<u64, u32>) -> u64 {
    let pieces: u64 = store.pieces().map(|piece| cost(piece.length)).sum();
    let cache = store.files().filter(|(_, claims)| claims.iter().any(Claim::is_cached));
    let cache: u64 = cache.map(|(shared, _)| shared.layout.length()).sum();
    pieces + cache + arriving.values().map(|length| cost(*length)).sum::<u64>()
}

#[test]
fn the_quota_is_never_exceeded_by_any_order_of_operations() {
    for seed in 0..20 {
        let mut rng = Rng::new([seed; 32]);
        let mut store = store(20_000);
        let mut now = NOW;
        let mut arriving: BTreeMap<u64, u32> = BTreeMap::new();
        let mut promised: Vec<(u64, u32)> = Vec::new();
        let files: Vec<_> = (0..10).map(|fill| manifest(fill, 1 + rng.below(6000))).collect();
        let mut durable = 0;
        for _ in 0..2000 {
            let length = rng.below(5000) as u32;
            match rng.below(8) {
                0..=2 => {
                    let lifetime = 1 + rng.below(300) as u32;
                    let offer = Offer { key: Key(rng.bytes()), lifetime, ..offer(0, length) };
                    let evicted = store.stats().evicted;
                    if let Admission::Send { incoming } = store.admit(now, peer(1), &offer) {
                        promised.push((incoming, length));
                    }
                    assert_eq!(store.stats().evicted, evicted, "seed {seed}: a promise evicts nothing");
                    if promised.len() > rng.below(4) as usize {
                        let (incoming, length) = promised.remove(0);
                        match store.arrives(NOW, incoming) {
                            true => _ = arriving.insert(incoming, length),
                            false => store.discarded(incoming),
                        }
                    }
                }
                3 | 4 => {
                    if let Some((incoming, _)) = arriving.pop_first() {
                        store.committed(incoming).unwrap();
                        durable += 1;
                    }
                }
                5 => {
                    if let Some((incoming, _)) = arriving.pop_last() {
                        store.discarded(incoming);
                    }
                }
                6 => {
                    let _ = add_cached(&mut store, &files[rng.below(10) as usize]);
                }
                _ => {
                    now = now + Duration::from_secs(rng.below(20));
                    let before = store.stats().pieces;
                    store.handle_timeout(now);
                    durable -= before - store.stats().pieces;
                }
            }
            let stats = store.stats();
            assert_eq!(stats.pieces, durable, "seed {seed}: only expiry takes a piece away");
            assert!(footprint(&store, &arriving) <= 20_000, "seed {seed}");
            let counted = stats.piece_bytes + stats.cached_bytes + stats.reserved_bytes;
            assert_eq!(counted, footprint(&store, &arriving), "seed {seed}");
            ops(&mut store);
        }
        assert!(store.stats().evicted > 0 && store.stats().expired > 0, "seed {seed} exercises everything");
    }
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

/// A piece of 744 bytes, which takes 1,000 on disk.
fn brick(byte: u8) -> Offer {
    claimed(offer(byte, 744), (3, 1000), 1)
}

/// Stores a piece that a peer brings, if the store takes it.
fn bring(store: &mut Store, now: Instant, from: u8, offer: &Offer) -> bool {
    let Admission::Send { incoming } = store.admit(now, peer(from), offer) else { return false };
    store.arrives(now, incoming) && store.committed(incoming).is_some()
}

/// The number of pieces that a peer brought.
fn brought_by(store: &Store, from: u8) -> usize {
    let brought = Brought(*peer(from).party.as_bytes());
    store.pieces().filter(|piece| piece.brought == brought).count()
}

#[test]
fn a_party_that_filled_the_store_gives_way_to_others_and_keeps_twice_as_much() {
    let mut store = store(30_000);
    let at = |second: u64| NOW + Duration::from_secs(second);
    let filled = (0..40).filter(|byte| bring(&mut store, at(u64::from(*byte)), 1, &brick(*byte))).count();
    assert_eq!(filled, 30, "while there is room nothing is refused");
    assert_eq!(store.stats().displaced, 0, "no party displaces its own");
    let taken = (100..140).filter(|byte| bring(&mut store, at(u64::from(*byte)), 2, &brick(*byte))).count();
    assert_eq!(taken, 10);
    assert_eq!(brought_by(&store, 1), 20);
    let more = (150..190).filter(|byte| bring(&mut store, at(u64::from(*byte)), 3, &brick(*byte))).count();
    assert_eq!(more, 6, "a third party has its part, too");
    let stats = store.stats();
    assert_eq!(stats.displaced as usize, taken + more);
    assert!(stats.piece_bytes <= 30_000, "the quota holds");
}

#[test]
fn bytes_that_do_not_verify_displace_no_more_than_pieces_do() {
    let mut store = store(30_000);
    (0..30).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    for byte in 100..200 {
        let now = NOW + Duration::from_secs(u64::from(byte));
        if let Admission::Send { incoming } = store.admit(now, peer(2), &brick(byte)) {
            store.arrives(now, incoming);
            store.discarded(incoming);
        }
    }
    assert!(brought_by(&store, 1) >= 20, "{} are left", brought_by(&store, 1));
}

#[test]
fn a_promise_displaces_nothing_and_the_quota_holds_while_pieces_arrive() {
    let mut store = store(10_000);
    (0..10).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    let at = |byte: u8| NOW + Duration::from_secs(u64::from(byte));
    let admitted = (100..120).filter_map(|byte| match store.admit(at(byte), peer(2), &brick(byte)) {
        Admission::Send { incoming } => Some(incoming),
        _ => None,
    });
    let admitted: Vec<u64> = admitted.collect();
    assert_eq!(admitted.len(), 4, "five would have half as much as the other party");
    assert_eq!(store.stats().pieces, 10);
    let incoming = admitted[0];
    assert!(store.arrives(at(150), incoming));
    let stats = store.stats();
    assert_eq!(stats.pieces, 9);
    assert_eq!(stats.reserved_bytes, 1000);
}

/// The pieces of `from` that arrive until one is refused.
fn arriving(store: &mut Store, from: Holder, first: u8) -> usize {
    let mut arriving = 0;
    while let Admission::Send { incoming } = store.admit(NOW, from, &brick(first + arriving)) {
        assert!(store.arrives(NOW, incoming));
        arriving += 1;
    }
    usize::from(arriving)
}

#[test]
fn what_is_arriving_from_one_party_leaves_an_eighth_to_others() {
    let mut store = store(40_000);
    assert_eq!(arriving(&mut store, peer(1), 0), 35);
    assert_eq!(store.stats().refused_share, 1);
    assert_eq!(store.admit(NOW, peer(1), &brick(99)), Admission::Refuse(Refusal::Busy));
    assert_eq!(arriving(&mut store, peer(2), 100), 5);
}

#[test]
fn what_is_arriving_from_one_party_beside_another_takes_a_quarter() {
    let mut store = store(40_000);
    let Admission::Send { .. } = store.admit(NOW, peer(2), &brick(100)) else { panic!("there is room") };
    assert_eq!(arriving(&mut store, peer(1), 0), 10);
    assert_eq!(store.admit(NOW, peer(1), &brick(99)), Admission::Refuse(Refusal::Busy));
}

#[test]
fn a_single_piece_arrives_however_little_room_there_is() {
    let mut store = store(1500);
    assert!(bring(&mut store, NOW, 1, &brick(1)));
}

#[test]
fn a_replayed_claim_does_not_begin_anew_after_its_piece_has_expired() {
    let mut store = store(1 << 20);
    let claimed = brick(1);
    assert!(bring(&mut store, NOW, 1, &claimed));
    let over = NOW + Duration::from_secs(1000);
    store.handle_timeout(over);
    assert!(store.piece(&key(1)).is_none());
    assert!(bring(&mut store, over, 2, &claimed), "its content is taken as that of an unclaimed piece");
    let kept = store.piece(&key(1)).unwrap();
    assert_eq!(kept.claim, None);
    assert_eq!(kept.replicas, 1, "it is not repaired");
    assert!(kept.expires <= 1000 + u64::from(UNCLAIMED_SECONDS_MAX));
    assert_eq!(store.admit(over, peer(2), &claimed), Admission::Have, "and raises nothing");
    assert_eq!(store.piece(&key(1)).unwrap(), kept);
    let again = self::claimed(offer(1, 744), (3, 1000), 2);
    assert!(
        matches!(store.admit(over, peer(2), &again), Admission::Raise { replicas: 3, .. }),
        "a new claim"
    );
}

#[test]
fn a_claim_goes_on_where_it_was_when_its_piece_returns() {
    let mut store = store(1 << 20);
    assert!(bring(&mut store, NOW, 1, &brick(1)));
    store.remove_piece(&key(1));
    assert!(bring(&mut store, NOW + Duration::from_secs(600), 2, &brick(1)));
    assert_eq!(store.piece(&key(1)).map(|piece| piece.expires), Some(1000), "as when it was first heard of");
}

#[test]
fn claims_that_are_replayed_in_turns_keep_a_piece_no_longer_than_their_lifetimes() {
    let mut store = store(1 << 20);
    let by = |publisher: u8, replicas, lifetime, sequence| {
        let claim = PieceClaim::unsigned(PublicKey([publisher; 32]), replicas, lifetime, sequence);
        Offer { replicas, lifetime, claim: Some(claim), ..offer(1, 744) }
    };
    // One of the two publishers shortened its claim, so that each of these replaces the one before.
    let claims = [by(1, 3, 900, 1), by(1, 3, 10, 2), by(2, 2, 100, 1)];
    assert!(bring(&mut store, NOW, 1, &claims[0]));
    for round in 0..300 {
        store.admit(NOW + Duration::from_secs(round * 10), peer(3), &claims[round as usize % 3]);
    }
    let expires = store.piece(&key(1)).map_or(0, |piece| piece.expires);
    assert!(expires <= 900 + 10 + 100, "{expires}");
}

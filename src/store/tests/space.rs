use super::*;
use crate::rng::Rng;
use crate::store::room::Costs;
use std::collections::BTreeMap;

#[test]
fn a_lowered_quota_costs_the_cache_but_no_piece() {
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

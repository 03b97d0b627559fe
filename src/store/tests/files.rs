use super::*;

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
fn a_cached_file_that_gets_a_path_leaves_the_cache() {
    let mut store = store(1 << 20);
    let file = manifest(1, 800);
    add_cached(&mut store, &file).unwrap();
    add(&mut store, &file, path("/0")).unwrap();
    assert_eq!(ops(&mut store), [DiskOp::RemoveShare { share: cached(&file), last: false }]);
    assert_eq!(store.stats().cached_bytes, 0);
    assert_eq!(store.stats().claims, 1);
}

#[test]
fn a_full_table_of_claims_has_room_only_while_a_cached_file_can_be_evicted() {
    let limits = Limits { shares_max: 2, ..limits(1 << 20) };
    let mut store = Store::new(&limits, &Recovered::default(), 1, NOW);
    let files: Vec<_> = (1..=3).map(|fill| manifest(fill, 800)).collect();
    add(&mut store, &files[0], path("/0")).unwrap();
    add_cached(&mut store, &files[1]).unwrap();
    assert_eq!(store.check_room(&path("/2")), Ok(()), "the cache makes room");
    add(&mut store, &files[2], path("/2")).unwrap();
    assert_eq!(ops(&mut store), [removal(&files[1])]);
    assert_eq!(store.poll_change(), Some(PieceChange::Evicted(files[1].hash())));
    assert_eq!(store.check_room(&path("/1")), Err(Full::Shares(2)));
    assert_eq!(add(&mut store, &files[1], path("/1")), Err(Full::Shares(2)));
    assert_eq!(add(&mut store, &files[2], path("/2")), Ok(None), "what is claimed already fits");
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

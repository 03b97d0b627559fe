use super::*;
use std::os::unix::fs::symlink;

fn target(dir: &TestDir, name: &str) -> Place {
    Place::Partial(dir.path(name).into())
}

fn open_target(disk: &mut Disk, place: &Place, length: u64) -> Result<bool, DiskError> {
    match ask(disk, DiskOp::OpenTarget { place: place.clone(), length })? {
        DiskReply::Opened { partial } => Ok(partial),
        other => panic!("{other:?}"),
    }
}

fn check(disk: &mut Disk, place: &Place, manifest: &Arc<Manifest>) -> Vec<bool> {
    match ask(disk, DiskOp::Check { place: place.clone(), manifest: manifest.clone() }) {
        Ok(DiskReply::Checked { good }) => good,
        other => panic!("{other:?}"),
    }
}

fn put_chunk(disk: &Disk, place: &Place, manifest: &Manifest, bytes: &[u8], chunk: u32) -> Key {
    let (offset, length) = (manifest.chunk_offset(chunk), manifest.chunk_length(chunk));
    let sink = Sink { place: place.clone(), offset, length, hash_as: manifest.hash_as(chunk) };
    receive(disk, &sink, &bytes[offset as usize..][..length as usize])
}

#[test]
fn a_download_grows_beside_its_final_path_and_takes_it_when_it_is_whole() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "file");
    assert!(!open_target(&mut disk, &place, manifest.length()).unwrap());
    for chunk in [2, 0, 1] {
        assert_eq!(put_chunk(&disk, &place, &manifest, &bytes, chunk), manifest.keys()[chunk as usize]);
    }
    assert!(dir.path("file.part").exists() && !dir.path("file").exists());
    let Ok(DiskReply::Finished { stamp }) = ask(&mut disk, DiskOp::FinishTarget { place }) else { panic!() };
    assert_eq!(fs::read(dir.path("file")).unwrap(), bytes);
    assert_eq!(stamp, extent::stamp_of(&dir.path("file").metadata().unwrap()));
    assert!(!dir.path("file.part").exists());
}

#[test]
fn a_sink_takes_no_byte_past_its_end() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let mut open = disk.open_sink(&incoming(1, b"abc")).unwrap();
    assert_eq!((open.write(b"ab").unwrap(), open.remaining()), (2, 1));
    assert_eq!((open.write(b"cdef").unwrap(), open.remaining()), (1, 0));
    assert_eq!(open.write(b"g").unwrap(), 0);
    assert_eq!(open.finish().unwrap(), key_of(b"abc"));
    let file = dir.file("users", b"mine");
    for place in [file, Place::Piece(Key([1; 32])), Place::ShareManifest(Key([1; 32]))] {
        let error = disk.open_sink(&Sink { place, ..incoming(1, b"abc") }).err().unwrap();
        assert_eq!(error.kind, DiskErrorKind::Unsuitable);
    }
}

#[test]
fn an_interrupted_download_knows_which_chunks_are_good() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let chunk = 256 << 10;
    // The third chunk is all zeros.
    let bytes = [content(1, 2 * chunk), vec![0; chunk], content(2, 2 * chunk + 5)].concat();
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "file");
    open_target(&mut disk, &place, manifest.length()).unwrap();
    assert_eq!(check(&mut disk, &place, &manifest), [false; 6]);
    put_chunk(&disk, &place, &manifest, &bytes, 1);
    put_chunk(&disk, &place, &manifest, &bytes, 5);
    let half = DiskOp::WriteTarget { place: place.clone(), offset: 3 << 18, bytes: vec![7; 1000] };
    assert_eq!(ask(&mut disk, half), Ok(DiskReply::Done));
    assert!(open_target(&mut disk, &place, manifest.length()).unwrap());
    assert_eq!(check(&mut disk, &place, &manifest), [false, true, false, false, false, true]);
    put_chunk(&disk, &place, &manifest, &bytes, 2);
    assert_eq!(check(&mut disk, &place, &manifest), [false, true, true, false, false, true]);
    // A remainder of some other, longer file.
    fs::write(dir.path("file.part"), [&bytes[..], &[9; 100_000]].concat()).unwrap();
    open_target(&mut disk, &place, manifest.length()).unwrap();
    assert_eq!(check(&mut disk, &place, &manifest), [true; 6]);
    // One that was cut off behind the node's back.
    fs::write(dir.path("file.part"), &bytes[..2 * chunk + 10]).unwrap();
    assert_eq!(check(&mut disk, &place, &manifest), [true, true, false, false, false, false]);
}

#[test]
fn small_files_are_checked_too() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    for length in [0, 1, 1000] {
        let bytes = content(1, length);
        let place = target(&dir, "small");
        open_target(&mut disk, &place, length as u64).unwrap();
        fs::write(dir.path("small.part"), &bytes).unwrap();
        assert!(open_target(&mut disk, &place, length as u64).unwrap());
        assert_eq!(check(&mut disk, &place, &manifest_of(&bytes)), [true]);
        assert!(check(&mut disk, &place, &manifest_of(&content(2, length + 5))) == [false]);
    }
}

#[test]
fn a_sparse_file_of_five_gibibytes_is_hashed_and_its_holes_are_not_read_on_resuming() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let length = 5 << 30;
    fs::File::create(dir.path("source")).unwrap().set_len(length).unwrap();
    let source = Place::File(dir.path("source").into());
    let Ok(DiskReply::Hashed { manifest, .. }) = ask(&mut disk, DiskOp::Hash { place: source, passed: None })
    else {
        panic!();
    };
    assert_eq!((manifest.length(), manifest.chunk_count()), (length, 2560));
    let place = target(&dir, "sparse");
    match open_target(&mut disk, &place, length) {
        Err(error) if error.kind == DiskErrorKind::NoSpace => return,
        result => assert!(!result.unwrap()),
    }
    for (chunk, byte) in [(7, 0), (2000, 1)] {
        let (offset, bytes) = (manifest.chunk_offset(chunk), vec![byte; 2 << 20]);
        ask(&mut disk, DiskOp::WriteTarget { place: place.clone(), offset, bytes }).unwrap();
    }
    disk.submit(DiskId(1), DiskOp::Check { place, manifest });
    let mut turns = 0;
    while disk.has_work() {
        disk.run(BUDGET);
        turns += 1;
    }
    let Ok(DiskReply::Checked { good }) = drain(&mut disk).remove(0).result else { panic!() };
    assert_eq!((good.iter().filter(|good| **good).count(), good[7]), (1, true));
    assert!(turns < 10, "4 MiB were read in {turns} turns of 1 MiB");
}

#[test]
fn a_target_that_cannot_be_written_fails_before_anything_is_fetched() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    fs::create_dir(dir.path("directory")).unwrap();
    dir.file("plain", b"");
    fs::create_dir(dir.path("blocked.part")).unwrap();
    let cases = [
        ("directory", DiskErrorKind::Unsuitable),
        ("nowhere/file", DiskErrorKind::NotFound),
        ("plain/file", DiskErrorKind::NotFound),
        ("blocked", DiskErrorKind::Unsuitable),
    ];
    for (name, kind) in cases {
        let error = open_target(&mut disk, &target(&dir, name), 10).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
    let error = open_target(&mut disk, &target(&dir, "enormous"), 1 << 60).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::NoSpace, "{error}");
    assert!(!dir.path("enormous.part").exists());
}

#[test]
fn a_target_that_is_a_link_is_replaced_and_what_it_points_to_stays() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    dir.file("outside", b"precious");
    symlink(dir.path("outside"), dir.path("link")).unwrap();
    let place = target(&dir, "link");
    open_target(&mut disk, &place, 3).unwrap();
    ask(&mut disk, DiskOp::WriteTarget { place: place.clone(), offset: 0, bytes: b"new".to_vec() }).unwrap();
    ask(&mut disk, DiskOp::FinishTarget { place }).unwrap();
    assert_eq!(fs::read(dir.path("link")).unwrap(), b"new");
    assert_eq!(fs::read(dir.path("outside")).unwrap(), b"precious");
}

#[test]
fn the_cache_is_filled_in_place_and_emptied_with_its_share() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300_000);
    let manifest = manifest_of(&bytes);
    let place = Place::Cache(manifest.hash());
    open_target(&mut disk, &place, manifest.length()).unwrap();
    (0..2).for_each(|chunk| assert!(put_chunk(&disk, &place, &manifest, &bytes, chunk) != Key([0; 32])));
    let path = disk.path_of(&place);
    let Ok(DiskReply::Finished { .. }) = ask(&mut disk, DiskOp::FinishTarget { place: place.clone() }) else {
        panic!();
    };
    let share = share_of(&bytes, &place, &disk);
    ask(&mut disk, DiskOp::SaveShare(Arc::new(share.clone()))).unwrap();
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.shares, std::slice::from_ref(&share));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    ask(&mut disk, DiskOp::RemoveShare { share: Arc::new(share) }).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_piece_is_copied_between_files_and_hashed() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let from = dir.file("from", &bytes);
    let stamp = Some(share_of(&bytes, &from, &disk).stamp);
    let place = target(&dir, "to");
    open_target(&mut disk, &place, manifest.length()).unwrap();
    let copy = |stamp| {
        let (offset, length) = (manifest.chunk_offset(1), manifest.chunk_length(1));
        let from = Extent { place: from.clone(), offset, length, stamp };
        let to = Sink { place: place.clone(), offset, length, hash_as: manifest.hash_as(1) };
        DiskOp::Copy { from, to }
    };
    assert_eq!(ask(&mut disk, copy(stamp)), Ok(DiskReply::Copied { key: manifest.keys()[1] }));
    assert_eq!(check(&mut disk, &place, &manifest), [false, true, false]);
    fs::write(dir.path("from"), content(2, 600_000)).unwrap();
    assert_eq!(kind(ask(&mut disk, copy(stamp))), DiskErrorKind::Changed);
}

#[test]
fn a_users_file_is_never_deleted() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let place = dir.file("mine", b"mine");
    assert_eq!(kind(ask(&mut disk, DiskOp::Remove(place))), DiskErrorKind::Unsuitable);
    let partial = target(&dir, "mine");
    open_target(&mut disk, &partial, 5).unwrap();
    assert_eq!(ask(&mut disk, DiskOp::Remove(partial)), Ok(DiskReply::Done));
    assert_eq!(fs::read(dir.path("mine")).unwrap(), b"mine");
    assert!(!dir.path("mine.part").exists());
}

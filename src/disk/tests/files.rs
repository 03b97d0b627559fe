use super::*;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn hash(disk: &mut Disk, place: &Place) -> Result<(Arc<Manifest>, FileStamp), DiskError> {
    match ask(disk, DiskOp::Hash { place: place.clone(), passed: None, background: false })? {
        DiskReply::Hashed { manifest, stamp, .. } => Ok((manifest, stamp)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_files_hash_is_blake3s_at_every_boundary() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let chunk = 256 << 10;
    for length in [0, 1, 1023, 1024, 1025, chunk - 1, chunk, chunk + 1, 2 * chunk + 1, 3 * chunk - 1] {
        let bytes = content(3, length);
        let place = dir.file("file", &bytes);
        let (manifest, stamp) = hash(&mut disk, &place).unwrap();
        assert_eq!(manifest.hash(), key_of(&bytes), "{length} bytes");
        assert_eq!(stamp.length, length as u64, "{length} bytes");
        assert_eq!(manifest, manifest_of(&bytes));
    }
}

#[test]
fn the_holes_of_a_file_are_hashed_as_zeros() {
    use std::os::unix::fs::FileExt;
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let mut bytes = vec![0; 5_000_000];
    let file = fs::File::create(dir.path("sparse")).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (at, length) in [(5000, 3), (1 << 20, 70_000), (3_999_999, 2)] {
        bytes[at..at + length].copy_from_slice(&content(1, length));
        file.write_all_at(&content(1, length), at as u64).unwrap();
    }
    let place = Place::File(dir.path("sparse").into());
    assert_eq!(hash(&mut disk, &place).unwrap().0, manifest_of(&bytes));
}

#[test]
fn a_long_hash_runs_in_small_steps_beside_other_work() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let file = fs::File::create(dir.path("sparse")).unwrap();
    file.set_len(40 << 20).unwrap();
    disk.submit(
        DiskId(1),
        DiskOp::Hash { place: Place::File(dir.path("sparse").into()), passed: None, background: false },
    );
    disk.submit(
        DiskId(2),
        DiskOp::Hash { place: dir.file("short", &content(1, 2 << 20)), passed: None, background: false },
    );
    let mut turns = 0;
    let mut ends = Vec::new();
    let mut reports = Vec::new();
    while disk.has_work() {
        if turns == 10 {
            let bytes = content(2, 1000);
            disk.submit(DiskId(3), DiskOp::WritePiece { meta: piece(&bytes), bytes });
        }
        disk.run(BUDGET);
        turns += 1;
        while let Some(done) = disk.poll_done() {
            match done.result.unwrap() {
                DiskReply::Progress { done, total } => reports.push((done >> 20, total >> 20)),
                _ => ends.push((done.id.0, turns)),
            }
        }
    }
    assert!(turns >= 42, "42 MiB in {turns} turns of 1 MiB");
    assert_eq!(reports, [(16, 40), (32, 40)]);
    assert_eq!(ends.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3, 1]);
    assert!(ends[1].1 <= 13, "the commit was done in turn {}", ends[1].1);
}

#[test]
fn what_cannot_be_hashed_says_why() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let place = |name: &str| Place::File(dir.path(name).into());
    fs::create_dir(dir.path("directory")).unwrap();
    fs::File::create(dir.path("huge")).unwrap().set_len((64 << 30) + 1).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let cases = [
        (place("nothing"), DiskErrorKind::NotFound),
        (place("directory"), DiskErrorKind::Unsuitable),
        (place("huge"), DiskErrorKind::Unsuitable),
        (place("pipe"), DiskErrorKind::Unsuitable),
    ];
    for (place, kind) in cases {
        let error = hash(&mut disk, &place).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let path = disk.path_of(&place);
        assert!(error.message.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_refused() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 1 << 20);
    let append = |path: &Path| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    };
    let shorten = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap();
    let replace = |path: &Path| {
        fs::write(path.with_extension("new"), content(2, 1 << 20)).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    for change in [&append as &dyn Fn(&Path), &shorten, &replace] {
        let place = dir.file("file", &bytes);
        disk.submit(DiskId(1), DiskOp::Hash { place, passed: None, background: false });
        disk.run(300_000);
        change(&dir.path("file"));
        let done = drain(&mut disk).remove(0);
        assert_eq!(kind(done.result), DiskErrorKind::Changed);
    }
}

#[test]
fn a_hash_in_the_background_waits_until_there_is_nothing_else_to_do() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let place = dir.file("idle", &content(1, 2 << 20));
    disk.submit(DiskId(1), DiskOp::Hash { place, passed: None, background: true });
    assert!(drain(&mut disk).is_empty() && disk.has_idle_work());
    while disk.has_idle_work() {
        assert!(disk.run_idle());
    }
    assert!(matches!(disk.poll_done().unwrap().result, Ok(DiskReply::Hashed { .. })));
}

#[test]
fn shares_come_back_with_everything_that_was_known_of_them() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd \xff name\n");
    let (large, small) = (content(1, 600_000), content(2, 10));
    fs::write(dir.0.path().join(odd), &large).unwrap();
    let other = Place::File(dir.path("other").into());
    fs::write(dir.path("other"), &large).unwrap();
    let shares = [
        share_of(&large, &Place::File(dir.0.path().join(odd).into()), &disk),
        Share { replicated: false, replicas: 0, ..share_of(&small, &dir.file("small", &small), &disk) },
        share_of(b"", &dir.file("empty", b""), &disk),
        // One content at two paths is two claims.
        share_of(&large, &other, &disk),
    ];
    for (share, bytes) in shares.iter().zip([&large[..], &small, b"", &large]) {
        save(&mut disk, share, bytes);
    }
    let encoded = manifest_of(&large).encode();
    let extent = whole(Place::ShareManifest(key_of(&large)), encoded.len(), None);
    assert_eq!(ask(&mut disk, DiskOp::Read(extent)), Ok(DiskReply::Bytes(encoded)));
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.shares, shares);
    assert_eq!(recovered.manifests.keys().collect::<Vec<_>>(), [&key_of(&large)]);
    let share = shares[1].clone();
    ask(&mut disk, DiskOp::RemoveShare { share: share.clone(), last: true }).unwrap();
    ask(&mut disk, DiskOp::RemoveShare { share, last: true }).unwrap();
    assert!(dir.path("small").exists());
    drop(disk);
    assert_eq!(dir.open().1.shares.len(), 3);
}

#[test]
fn a_claim_takes_the_place_of_the_one_that_its_path_had() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (first, second) = (content(1, 400_000), content(2, 500_000));
    let old = share_of(&first, &dir.file("file", &first), &disk);
    save(&mut disk, &old, &first);
    let new = share_of(&second, &dir.file("file", &second), &disk);
    save(&mut disk, &new, &second);
    // The end of what has been replaced comes late, and ends nothing.
    ask(&mut disk, DiskOp::RemoveShare { share: old, last: true }).unwrap();
    drop(disk);
    assert_eq!(dir.open().1.shares, [new]);
}

#[test]
fn a_share_that_a_start_cannot_trust_is_kept_and_not_served() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let names = ["kept", "changed", "gone", "torn", "touched"];
    for (seed, name) in (1..).zip(names) {
        let bytes = content(seed, 400_000);
        let share = share_of(&bytes, &dir.file(name, &bytes), &disk);
        save(&mut disk, &share, &bytes);
    }
    let torn = disk.path_of(&Place::ShareManifest(key_of(&content(4, 400_000))));
    drop(disk);
    fs::write(dir.path("changed"), b"other").unwrap();
    fs::remove_file(dir.path("gone")).unwrap();
    fs::File::open(dir.path("touched")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let mut bytes = fs::read(&torn).unwrap();
    bytes[100] ^= 1;
    fs::write(&torn, bytes).unwrap();
    let (_disk, recovered) = dir.open();
    let states: Vec<ShareState> = recovered.shares.iter().map(|share| share.state).collect();
    let (present, doubtful) = (ShareState::Present, ShareState::Doubtful);
    assert_eq!(states, [present, doubtful, ShareState::Absent, present, doubtful]);
    assert_eq!(recovered.manifests.len(), 4, "the damaged one is not trusted");
}

#[test]
fn what_an_earlier_version_wrote_is_taken_up_and_hashed_again() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let (large, small) = (content(1, 600_000), content(2, 10));
    let shares = [("large", &large[..]), ("small", &small)].map(|(name, bytes)| {
        let share = share_of(bytes, &dir.file(name, bytes), &disk);
        let file = disk.layout.share(&share.hash);
        fs::write(file, share_v1::encode(&share, &manifest_of(bytes))).unwrap();
        share
    });
    fs::write(disk.layout.share(&Key([9; 32])), [0; 300]).unwrap();
    drop(disk);
    for _ in 0..2 {
        let (disk, recovered) = dir.open();
        let hashes = |shares: &[Share]| {
            let mut hashes: Vec<Key> = shares.iter().map(|share| share.hash).collect();
            hashes.sort();
            hashes
        };
        assert_eq!(hashes(&recovered.shares), hashes(&shares));
        assert!(recovered.shares.iter().all(|share| share.state == ShareState::Doubtful));
        assert!(recovered.manifests.contains_key(&key_of(&large)));
        assert!(!disk.layout.share(&key_of(&small)).exists());
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_of_a_share_of_the_earlier_version_is_refused() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    for length in [5, 600_000] {
        let bytes = content(1, length);
        let share = share_of(&bytes, &dir.file("file", &bytes), &disk);
        let good = share_v1::encode(&share, &manifest_of(&bytes));
        let hash = share.hash;
        assert_eq!(share_v1::parse(&good, &hash).map(|(share, _)| share.place), Some(share.place));
        for index in 0..good.len() {
            let mut wrong = good.clone();
            wrong[index] ^= 4;
            assert!(share_v1::parse(&wrong, &hash).is_none(), "byte {index}");
            assert!(share_v1::parse(&good[..index], &hash).is_none(), "cut at {index}");
        }
    }
}

#[test]
fn a_damaged_log_costs_what_was_damaged_and_never_the_start() {
    let dir = TestDir::new();
    let log = dir.path("node/shares.log");
    let (mut disk, recovered) = dir.open();
    for name in ["a", "b", "c"] {
        let share = share_of(name.as_bytes(), &dir.file(name, name.as_bytes()), &disk);
        save(&mut disk, &share, name.as_bytes());
    }
    disk.clean_shutdown(recovered.ages).unwrap();
    drop(disk);
    let good = fs::read(&log).unwrap();
    let mut damaged = good.clone();
    let middle = good.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&log, &damaged).unwrap();
    let (disk, recovered) = dir.open();
    assert_eq!(recovered.shares.len(), 2);
    assert!(fs::read_dir(dir.path("node/damaged")).unwrap().count() == 1);
    drop(disk);
    assert_eq!(dir.open().1.shares.len(), 2, "it has been written anew");
    for nothing in [&[0; 400][..], b"", b"ELVER SHARES\x03\0\0\0"] {
        fs::write(&log, nothing).unwrap();
        let (mut disk, recovered) = dir.open();
        assert!(recovered.shares.is_empty());
        let kept = fs::read_dir(dir.path("node/damaged")).unwrap();
        let kept = kept.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        assert!(kept.into_iter().any(|bytes| bytes == nothing), "it is set aside");
        let share = share_of(b"a", &dir.file("a", b"a"), &disk);
        save(&mut disk, &share, b"a");
        drop(disk);
        assert_eq!(dir.open().1.shares.len(), 1);
    }
}

#[test]
fn claims_that_come_together_are_synced_together() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let shares: Vec<Share> = (0..100)
        .map(|number| {
            let bytes = content(number, 10);
            share_of(&bytes, &dir.file(&format!("file{number}"), &bytes), &disk)
        })
        .collect();
    record::begin(None);
    for (id, share) in (1..).zip(&shares) {
        disk.submit(DiskId(id), DiskOp::SaveShare { share: share.clone(), manifest: None });
    }
    let done = drain(&mut disk);
    let syncs = record::end().iter().filter(|made| matches!(made, record::Operation::Sync { .. })).count();
    assert!(done.len() == 100 && done.iter().all(|done| done.result == Ok(DiskReply::Done)));
    assert!(syncs <= 8, "{syncs} syncs for 100 claims");
    drop(disk);
    assert_eq!(dir.open().1.shares.len(), 100);
}

#[test]
fn what_was_fetched_survives_a_kill_but_is_not_trusted_after_a_power_cut() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (fetched, put) = (content(1, 100), content(2, 100));
    let fetched_share = Share { synced: false, ..share_of(&fetched, &dir.file("fetched", &fetched), &disk) };
    let put_share = share_of(&put, &dir.file("put", &put), &disk);
    save(&mut disk, &fetched_share, &fetched);
    save(&mut disk, &put_share, &put);
    let ages = Ages::default();
    let runs = [
        (ages::LastRun { ages, same_machine_boot: true }, ShareState::Present),
        // An orderly end syncs what was fetched, and says so in the share itself.
        (ages::LastRun { ages: Ages { clean: true, ..ages }, same_machine_boot: true }, ShareState::Present),
        (
            ages::LastRun { ages: Ages { clean: true, ..ages }, same_machine_boot: false },
            ShareState::Doubtful,
        ),
        // Once in doubt it is hashed before it is trusted again, however often the node starts.
        (ages::LastRun { ages, same_machine_boot: true }, ShareState::Doubtful),
    ];
    for (last, state) in runs {
        let mut logs = recovery::Logs::new(&disk.layout);
        let damaged = &Damaged::new(&disk.layout);
        let recovered = recovery::recover(&disk.layout, &mut logs, &last, ages, damaged).recovered;
        let states: Vec<ShareState> = recovered.shares.iter().map(|share| share.state).collect();
        assert_eq!(states, [state, ShareState::Present], "{last:?}");
    }
    let last = ages::read(&disk.layout, &Damaged::new(&disk.layout), true);
    let knows = Path::new("/proc/sys/kernel/random/boot_id").exists();
    assert!(!last.ages.clean);
    assert_eq!(last.same_machine_boot, knows);
}

/// Sends all of an extent into a socket and returns what comes out at the other end.
fn send_all(open: &mut OpenExtent) -> std::io::Result<Vec<u8>> {
    let (from, mut to) = UnixStream::pair().unwrap();
    from.set_nonblocking(true).unwrap();
    to.set_nonblocking(true).unwrap();
    let (mut received, mut outflow) = (Vec::new(), Outflow::default());
    let mut buffer = vec![0; 65_536];
    loop {
        match open.send(from.as_fd(), 100_000, &mut outflow) {
            Ok(0) => break,
            Ok(sent) => assert!(sent <= 100_000),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Ok(count) = to.read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(received)
}

#[test]
fn an_extent_is_sent_whole_and_not_a_byte_more() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let bytes = content(1, 1 << 20);
    let place = dir.file("file", &bytes);
    let stamp = Some(share_of(&bytes, &place, &disk).stamp);
    let extent = Extent { place, offset: 1000, length: 700_000, stamp };
    disk.announce(&extent);
    let mut open = disk.open_extent(&extent).unwrap();
    assert_eq!(send_all(&mut open).unwrap(), &bytes[1000..701_000]);
    assert_eq!(open.remaining(), 0);
}

#[test]
fn a_file_that_changes_is_not_sent_any_further() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let bytes = content(1, 1 << 20);
    let place = dir.file("file", &bytes);
    let extent = whole(place.clone(), bytes.len(), Some(share_of(&bytes, &place, &disk).stamp));
    let mut open = disk.open_extent(&extent).unwrap();
    let (to, _other) = UnixStream::pair().unwrap();
    assert_eq!(open.send(to.as_fd(), 1000, &mut Outflow::default()).unwrap(), 1000);
    fs::OpenOptions::new().write(true).open(dir.path("file")).unwrap().set_len(5000).unwrap();
    let error = open.send(to.as_fd(), 1000, &mut Outflow::default()).unwrap_err();
    assert_eq!(OpenExtent::disk_error(&error).unwrap().kind, DiskErrorKind::Changed);
    assert_eq!(disk.open_extent(&extent).err().unwrap().kind, DiskErrorKind::Changed);
}

#[test]
fn a_file_shorter_than_promised_is_an_error_and_never_a_spin() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 10_000);
    stored(&mut disk, &bytes).unwrap();
    let place = Place::Piece(key_of(&bytes));
    let path = disk.path_of(&place);
    let extent = whole(place, bytes.len(), None);
    let mut open = disk.open_extent(&extent).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = send_all(&mut open).unwrap_err();
    assert_eq!(OpenExtent::disk_error(&error).unwrap().kind, DiskErrorKind::Changed);
    assert_eq!(kind(ask(&mut disk, DiskOp::Read(extent.clone()))), DiskErrorKind::Changed);
    assert_eq!(disk.open_extent(&extent).err().unwrap().kind, DiskErrorKind::Changed);
    let (to, other) = UnixStream::pair().unwrap();
    drop(other);
    let mut open = disk.open_extent(&Extent { length: 100, ..extent }).unwrap();
    let error = open.send(to.as_fd(), 100, &mut Outflow::default()).unwrap_err();
    assert!(OpenExtent::disk_error(&error).is_none(), "a broken socket is not the file's fault");
}

#[test]
fn parts_of_a_piece_are_read_in_their_order_and_not_past_the_end_of_its_file() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300_000);
    stored(&mut disk, &bytes).unwrap();
    let place = Place::Piece(key_of(&bytes));
    let path = disk.path_of(&place);
    let extent = whole(place, bytes.len(), None);
    let runs = [(0, 10), (5000, 100_000), (299_990, 10)];
    let runs = runs.map(|(offset, length)| Run { offset, length }).to_vec();
    let expected = [&bytes[..10], &bytes[5000..105_000], &bytes[299_990..]].concat();
    let sample = DiskOp::Sample { extent: extent.clone(), runs };
    assert_eq!(ask(&mut disk, sample.clone()), Ok(DiskReply::Bytes(expected)));
    assert_eq!(ask(&mut disk, DiskOp::Sample { extent, runs: Vec::new() }), Ok(DiskReply::Bytes(Vec::new())));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200_000).unwrap();
    assert_eq!(kind(ask(&mut disk, sample)), DiskErrorKind::Changed);
}

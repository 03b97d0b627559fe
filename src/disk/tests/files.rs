use super::*;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn hash(disk: &mut Disk, place: &Place) -> Result<(Arc<Manifest>, FileStamp), DiskError> {
    match ask(disk, DiskOp::Hash { place: place.clone(), passed: None })? {
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
        assert_eq!((manifest.hash(), stamp.length), (key_of(&bytes), length as u64), "{length} bytes");
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
fn a_long_hash_reports_progress_keeps_its_budget_and_lets_commits_pass() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let file = fs::File::create(dir.path("sparse")).unwrap();
    file.set_len(40 << 20).unwrap();
    disk.submit(DiskId(1), DiskOp::Hash { place: Place::File(dir.path("sparse").into()), passed: None });
    disk.submit(DiskId(2), DiskOp::Hash { place: dir.file("short", &content(1, 2 << 20)), passed: None });
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
        disk.submit(DiskId(1), DiskOp::Hash { place, passed: None });
        disk.run(300_000);
        change(&dir.path("file"));
        let done = drain(&mut disk).remove(0);
        assert_eq!(kind(done.result), DiskErrorKind::Changed);
    }
}

#[test]
fn shares_come_back_with_everything_that_was_known_of_them() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd \xff name\n");
    let (large, small) = (content(1, 600_000), content(2, 10));
    fs::write(dir.0.join(odd), &large).unwrap();
    let shares = [
        share_of(&large, &Place::File(dir.0.join(odd).into()), &disk),
        Share { replicated: false, replicas: 0, ..share_of(&small, &dir.file("small", &small), &disk) },
        share_of(b"", &dir.file("empty", b""), &disk),
    ];
    for share in &shares {
        ask(&mut disk, DiskOp::SaveShare(Arc::new(share.clone()))).unwrap();
    }
    let encoded = shares[0].manifest.encode();
    let extent = whole(Place::ShareManifest(key_of(&large)), encoded.len(), None);
    assert_eq!(ask(&mut disk, DiskOp::Read(extent)), Ok(DiskReply::Bytes(encoded)));
    drop(disk);
    let (mut disk, mut recovered) = dir.open();
    recovered.shares.sort_by_key(|share| core::cmp::Reverse(share.stamp.length));
    assert_eq!(recovered.shares, shares);
    let share = Arc::new(shares[1].clone());
    ask(&mut disk, DiskOp::RemoveShare { share: share.clone() }).unwrap();
    ask(&mut disk, DiskOp::RemoveShare { share }).unwrap();
    assert!(dir.path("small").exists());
    drop(disk);
    assert_eq!(dir.open().1.shares.len(), 2);
}

#[test]
fn a_share_whose_file_changed_or_went_or_is_damaged_itself_is_dropped() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let names = ["kept", "changed", "gone", "torn"];
    let mut paths = Vec::new();
    for (seed, name) in (1..).zip(names) {
        let bytes = content(seed, 400_000);
        let share = share_of(&bytes, &dir.file(name, &bytes), &disk);
        paths.push(disk.path_of(&Place::ShareManifest(share.manifest.hash())));
        ask(&mut disk, DiskOp::SaveShare(Arc::new(share))).unwrap();
    }
    drop(disk);
    fs::write(dir.path("changed"), b"other").unwrap();
    fs::remove_file(dir.path("gone")).unwrap();
    let mut torn = fs::read(&paths[3]).unwrap();
    torn[100] ^= 1;
    fs::write(&paths[3], torn).unwrap();
    let (_disk, recovered) = dir.open();
    assert_eq!(recovered.shares.len(), 1);
    assert_eq!(recovered.shares[0].place, Place::File(dir.path("kept").into()));
    assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [true, false, false, false]);
}

#[test]
fn every_truncation_and_every_flipped_byte_of_a_share_is_refused() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    for length in [5, 600_000] {
        let bytes = content(1, length);
        let share = share_of(&bytes, &dir.file("file", &bytes), &disk);
        share_file::save(&disk.layout, &share).unwrap();
        let good = fs::read(disk.layout.share(&share.manifest.hash())).unwrap();
        let hash = share.manifest.hash();
        assert_eq!(share_file::parse(&good, &hash), Some(share));
        for index in 0..good.len() {
            let mut wrong = good.clone();
            wrong[index] ^= 4;
            assert_eq!(share_file::parse(&wrong, &hash), None, "byte {index}");
            assert_eq!(share_file::parse(&good[..index], &hash), None, "cut at {index}");
        }
    }
}

#[test]
fn what_was_fetched_survives_a_kill_but_is_not_trusted_after_a_power_cut() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (fetched, put) = (content(1, 100), content(2, 100));
    let fetched = Share { synced: false, ..share_of(&fetched, &dir.file("fetched", &fetched), &disk) };
    let put = share_of(&put, &dir.file("put", &put), &disk);
    for share in [&fetched, &put] {
        ask(&mut disk, DiskOp::SaveShare(Arc::new(share.clone()))).unwrap();
    }
    let ages = Ages::default();
    let runs = [
        (ages::LastRun { ages, same_machine_boot: true }, 2),
        // An orderly end syncs what was fetched, and says so in the share itself.
        (ages::LastRun { ages: Ages { clean: true, ..ages }, same_machine_boot: true }, 2),
        (ages::LastRun { ages: Ages { clean: true, ..ages }, same_machine_boot: false }, 1),
        (ages::LastRun { ages, same_machine_boot: false }, 1),
    ];
    for (last, count) in runs {
        let damaged = &Damaged::new(&disk.layout);
        let recovered = recovery::recover(&disk.layout, &last, ages, damaged).recovered;
        assert_eq!(recovered.shares.len(), count, "{last:?}");
    }
    let last = ages::read(&disk.layout, &Damaged::new(&disk.layout), true);
    let knows = Path::new("/proc/sys/kernel/random/boot_id").exists();
    assert_eq!((last.ages.clean, last.same_machine_boot), (false, knows));
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

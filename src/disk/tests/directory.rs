use super::power_loss::record::{self, Attempt, Fault, Kind};
use super::*;
use rustix::io::Errno;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn the_identity_is_made_once_and_kept_for_this_user_alone() {
    let dir = TestDir::new();
    let (disk, _, first) = Disk::open(&dir.path("node")).unwrap();
    drop(disk);
    let (_disk, _, second) = Disk::open(&dir.path("node")).unwrap();
    assert_eq!(first, second);
    assert_ne!(first, [0; 32]);
    let mode = |name: &str| dir.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("node"), 0o700);
    assert_eq!(mode("node/identity.key"), 0o600);
    let text = fs::read_to_string(dir.path("node/identity.key")).unwrap();
    assert_eq!(text.trim_end().len(), 64);
}

#[test]
fn a_damaged_identity_stops_the_node_and_is_left_alone() {
    let dir = TestDir::new();
    drop(dir.open());
    let path = dir.path("node").join("identity.key");
    let good = fs::read(&path).unwrap();
    for (bytes, advice) in [(&b"abc"[..], "64 hexadecimal digits"), (&[0xff; 64], "backup"), (b"", "empty")] {
        fs::write(&path, bytes).unwrap();
        let error = Disk::open(&dir.path("node")).err().unwrap();
        assert!(matches!(&error, OpenError::Corrupt { path: at, .. } if *at == path), "{error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, good).unwrap();
    drop(dir.open());
}

#[test]
fn damaged_helper_files_are_set_aside_and_the_node_starts() {
    let dir = TestDir::new();
    let (mut disk, recovered, secret) = Disk::open(&dir.path("node")).unwrap();
    let bytes = content(1, 300);
    stored(&mut disk, &bytes).unwrap();
    ask(&mut disk, DiskOp::SavePeers(vec![1; 56])).unwrap();
    ask(&mut disk, DiskOp::SaveRecords(vec![2; 100])).unwrap();
    drop(disk);
    let mut boots = recovered.ages.boots;
    for (minutes, damage) in (1..).zip([&[0; 64][..], b"", b"torn"]) {
        // A node is started less than once a second.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60 * minutes);
        fs::File::open(dir.path("node/identity.key")).unwrap().set_modified(later).unwrap();
        for name in ["ages", "ages.copy", "peers", "records"] {
            fs::write(dir.path("node").join(name), damage).unwrap();
        }
        let (disk, recovered, same) = Disk::open(&dir.path("node")).unwrap();
        assert_eq!(same, secret);
        assert_eq!(recovered.pieces.len(), 1);
        assert!(recovered.peers.is_empty() && recovered.records.is_empty());
        assert!(recovered.ages.boots > boots, "a number of an earlier start would be used again");
        boots = recovered.ages.boots;
        drop(disk);
    }
    let kept = fs::read_dir(dir.path("node/damaged")).unwrap().count();
    assert_eq!(kept, 12);
}

#[test]
fn a_disk_that_takes_nothing_does_not_keep_the_node_from_starting() {
    for errno in [Errno::NOSPC, Errno::ROFS, Errno::IO, Errno::ACCESS] {
        let dir = TestDir::new();
        let (mut disk, _, secret) = Disk::open(&dir.path("node")).unwrap();
        let (bytes, shared) = (content(1, 300), content(2, 300));
        stored(&mut disk, &bytes).unwrap();
        let share = share_of(&shared, &dir.file("shared", &shared), &disk);
        save(&mut disk, &share, &shared);
        receive(&disk, &incoming(3, &bytes), &bytes);
        drop(disk);
        // A room that a start made or that a user deleted.
        fs::remove_dir(dir.path("node/cache")).unwrap();
        record::plan(move |_| Some(Fault::Fail(errno)));
        let (mut disk, recovered, same) = Disk::open(&dir.path("node")).unwrap();
        assert_eq!(same, secret);
        assert_eq!(recovered.ages.boots, 2);
        assert_eq!(recovered.pieces.len(), 1);
        assert_eq!(recovered.shares.len(), 1);
        let piece = ask(&mut disk, DiskOp::Read(whole(Place::Piece(key_of(&bytes)), 300, None)));
        assert_eq!(piece, Ok(DiskReply::Bytes(bytes.clone())));
        assert!(stored(&mut disk, &content(3, 10)).is_err());
        record::end_plan();
        disk.tend();
        assert!(dir.path("node/cache").is_dir(), "made as soon as that is possible");
        stored(&mut disk, &content(3, 10)).unwrap();
        drop(disk);
        assert_eq!(dir.open().1.ages.boots, 3, "the start was written down later");
    }
}

#[test]
fn a_directory_is_one_nodes_until_that_is_gone() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let error = Disk::open(&dir.path("node")).err().unwrap();
    let OpenError::InUse { process, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*process, Some(std::process::id()));
    drop(disk);
    drop(dir.open());
}

#[test]
fn two_nodes_know_nothing_of_each_other() {
    let dir = TestDir::new();
    let (mut one, _, first) = Disk::open(&dir.path("one")).unwrap();
    let (two, _, second) = Disk::open(&dir.path("two")).unwrap();
    assert_ne!(first, second);
    let bytes = content(1, 100);
    stored(&mut one, &bytes).unwrap();
    let extent = whole(Place::Piece(key_of(&bytes)), 100, None);
    assert!(one.open_extent(&extent).is_ok());
    assert_eq!(two.open_extent(&extent).err().unwrap().kind, DiskErrorKind::NotFound);
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    let dir = TestDir::new();
    dir.file("plain", b"");
    let error = Disk::open(&dir.path("plain/node")).err().unwrap();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
    let error = Disk::open(&dir.path("plain")).err().unwrap();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

#[test]
fn starts_are_counted_and_only_an_orderly_end_is_clean() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.ages, Ages { boots: 1, seconds: 0, clean: false });
    let ages = Ages { seconds: 50, clean: true, ..recovered.ages };
    assert_eq!(ask(&mut disk, DiskOp::SaveAges(ages)), Ok(DiskReply::Done));
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.ages, Ages { boots: 2, seconds: 50, clean: false });
    disk.clean_shutdown(Ages { seconds: 60, ..recovered.ages }).unwrap();
    drop(disk);
    let (disk, recovered) = dir.open();
    assert_eq!(recovered.ages, Ages { boots: 3, seconds: 60, clean: true });
    drop(disk);
    assert!(!dir.open().1.ages.clean);
}

#[test]
fn peers_and_records_come_back_and_damaged_ones_do_not() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    assert!(recovered.peers.is_empty() && recovered.records.is_empty());
    ask(&mut disk, DiskOp::SavePeers(vec![1, 2, 3])).unwrap();
    ask(&mut disk, DiskOp::SaveRecords(vec![4; 5000])).unwrap();
    ask(&mut disk, DiskOp::SavePeers(vec![5, 6])).unwrap();
    drop(disk);
    let (disk, recovered) = dir.open();
    assert_eq!(recovered.peers, vec![5, 6]);
    assert_eq!(recovered.records, vec![4; 5000]);
    drop(disk);
    let path = dir.path("node/records");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::write(dir.path("node/peers"), b"").unwrap();
    let (_disk, recovered) = dir.open();
    assert!(recovered.peers.is_empty() && recovered.records.is_empty());
}

#[test]
fn an_orderly_end_commits_what_waits_and_abandons_what_takes_long() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let bytes = content(1, 1000);
    let large = fs::File::create(dir.path("large")).unwrap();
    large.set_len(60 << 30).unwrap();
    disk.submit(
        DiskId(1),
        DiskOp::Hash { place: Place::File(dir.path("large").into()), passed: None, background: false },
    );
    disk.submit(
        DiskId(3),
        DiskOp::Hash { place: Place::File(dir.path("large").into()), passed: None, background: true },
    );
    disk.submit(DiskId(2), DiskOp::WritePiece { meta: piece(&bytes), bytes });
    disk.clean_shutdown(recovered.ages).unwrap();
    drop(disk);
    assert_eq!(dir.open().1.pieces.len(), 1);
}

/// A file in the cache that is shared, and has not been synced.
fn downloaded(disk: &mut Disk, bytes: &[u8]) -> Share {
    let place = Place::Cache(key_of(bytes));
    ask(disk, open_target(&place, &manifest_of(bytes), false)).unwrap();
    ask(disk, DiskOp::WriteTarget { place: place.clone(), offset: 0, bytes: bytes.to_vec() }).unwrap();
    ask(disk, DiskOp::FinishTarget { place: place.clone() }).unwrap();
    let share = Share { synced: false, ..share_of(bytes, &place, disk) };
    save(disk, &share, bytes);
    share
}

#[test]
fn an_orderly_end_syncs_what_was_downloaded_and_forgets_what_cannot_be_synced() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let good = downloaded(&mut disk, &content(1, 1000));
    let bad = downloaded(&mut disk, &content(2, 1000));
    let damaged = disk.path_of(&bad.place);
    record::plan(move |attempt: &Attempt<'_>| {
        (attempt.kind == Kind::SyncAll && attempt.path == damaged).then_some(Fault::Fail(Errno::IO))
    });
    disk.clean_shutdown(recovered.ages).unwrap();
    record::end_plan();
    drop(disk);
    // Another run of the machine.
    record::set_machine_boot(Some([1; 16]));
    let (disk, recovered) = dir.open();
    record::set_machine_boot(None);
    assert_eq!(recovered.shares, [Share { synced: true, ..good }]);
    assert!(!disk.path_of(&bad.place).exists());
}

#[test]
fn a_start_that_fails_is_not_the_one_that_cleared_away_what_a_power_cut_left() {
    let dir = TestDir::new();
    record::set_machine_boot(Some([1; 16]));
    let (mut disk, _) = dir.open();
    let bytes = content(1, 1000);
    let share = downloaded(&mut disk, &bytes);
    // The power goes, and takes what had not been written.
    let path = disk.path_of(&share.place);
    drop(disk);
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    fs::File::open(&path).unwrap().set_modified(share_time(&share)).unwrap();
    record::set_machine_boot(Some([2; 16]));
    record::plan(|attempt| (attempt.kind == Kind::Remove).then_some(Fault::Fail(Errno::IO)));
    let (disk, recovered) = dir.open();
    assert!(recovered.shares.is_empty());
    record::end_plan();
    drop(disk);
    let (_disk, recovered) = dir.open();
    record::set_machine_boot(None);
    assert!(recovered.shares.is_empty(), "the share that could not be removed is not trusted either");
    assert_eq!(recovered.ages.boots, 3);
}

fn share_time(share: &Share) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_nanos(share.stamp.modified as u64)
}

#[test]
fn what_is_not_the_nodes_stays_and_no_link_is_followed() {
    let dir = TestDir::new();
    drop(dir.open());
    let Place::File(outside) = dir.file("outside", b"precious") else { unreachable!() };
    symlink(&outside, dir.path("node/incoming/7")).unwrap();
    symlink(&outside, dir.path("node/pieces/link")).unwrap();
    fs::create_dir(dir.path("node/incoming/directory")).unwrap();
    let (disk, recovered) = dir.open();
    assert!(recovered.pieces.is_empty());
    assert!(disk.open_sink(&incoming(7, b"x")).is_err());
    assert_eq!(fs::read(outside).unwrap(), b"precious");
    assert!(dir.path("node/incoming/directory").is_dir());
}

#[test]
fn a_disk_can_be_handed_to_the_thread_that_will_drive_it() {
    fn is_send<T: Send>() {}
    is_send::<(Disk, OpenExtent, OpenSink)>();
}

#[test]
fn a_directory_that_is_gone_makes_nothing_in_it_look_lost() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300);
    stored(&mut disk, &bytes).unwrap();
    let extent = whole(Place::Piece(key_of(&bytes)), 300, None);
    let absent = whole(Place::Piece(Key([7; 32])), 300, None);
    assert_eq!(disk.open_extent(&absent).err().unwrap().kind, DiskErrorKind::NotFound);
    assert!(disk.look(true).unwrap().tried);
    // The medium is taken away.
    fs::rename(dir.path("node"), dir.path("elsewhere")).unwrap();
    assert_eq!(disk.open_extent(&extent).err().unwrap().kind, DiskErrorKind::Gone);
    assert_eq!(kind(ask(&mut disk, DiskOp::Read(extent.clone()))), DiskErrorKind::Gone);
    assert_eq!(disk.open_sink(&incoming(1, b"x")).err().unwrap().kind, DiskErrorKind::Gone);
    assert_eq!(kind(stored(&mut disk, &content(2, 10))), DiskErrorKind::Gone);
    assert_eq!(disk.look(true).unwrap_err().kind, DiskErrorKind::Gone);
    // What lies in its place is another node's, or nothing.
    fs::create_dir(dir.path("node")).unwrap();
    assert_eq!(disk.look(false).unwrap_err().kind, DiskErrorKind::Gone);
    fs::remove_dir(dir.path("node")).unwrap();
    fs::rename(dir.path("elsewhere"), dir.path("node")).unwrap();
    assert!(disk.look(true).is_ok());
    assert!(disk.open_extent(&extent).is_ok());
    assert!(!dir.path("node/trial").exists());
}

#[test]
fn the_same_nodes_directory_on_another_medium_is_taken_up_and_locked() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    fs::rename(dir.path("node"), dir.path("old")).unwrap();
    fs::create_dir(dir.path("node")).unwrap();
    fs::copy(dir.path("old/identity.key"), dir.path("node/identity.key")).unwrap();
    assert!(disk.look(false).is_ok());
    assert!(matches!(Disk::open(&dir.path("node")), Err(OpenError::InUse { .. })));
    // The one that was left is free.
    drop(Disk::open(&dir.path("old")).unwrap());
}

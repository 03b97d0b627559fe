use super::power_loss::record::{self, Fault, Kind, Operation};
use super::*;
use crate::io::Mode;
use rustix::io::Errno;
use std::collections::BTreeSet;

#[test]
fn a_committed_piece_can_be_read_and_survives_a_restart() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    for length in [0, 1, 262_144, 300_000] {
        let bytes = content(length as u8, length);
        let meta = piece(&bytes);
        assert_eq!(receive(&disk, &incoming(5, &bytes), &bytes), meta.key);
        assert_eq!(ask(&mut disk, DiskOp::Commit { incoming: 5, meta }), Ok(DiskReply::Done));
        let read = ask(&mut disk, DiskOp::Read(whole(Place::Piece(meta.key), length, None)));
        assert_eq!(read, Ok(DiskReply::Bytes(bytes)));
    }
    drop(disk);
    let (mut disk, recovered) = dir.open();
    let lengths: BTreeSet<u32> = recovered.pieces.iter().map(|piece| piece.length).collect();
    assert_eq!(lengths, BTreeSet::from([0, 1, 262_144, 300_000]));
    assert!(recovered.pieces.contains(&piece(&content(1, 1))));
    for piece in &recovered.pieces {
        assert_eq!(ask(&mut disk, DiskOp::Remove(Place::Piece(piece.key))), Ok(DiskReply::Done));
    }
    drop(disk);
    assert!(dir.open().1.pieces.is_empty());
}

#[test]
fn everything_that_describes_a_piece_is_kept() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(9, 777);
    let meta = PieceMeta {
        content: Content::Chunk,
        input_offset: 7 << 20,
        replicas: 200,
        mode: Mode::UNKNOWN,
        expires: u64::MAX,
        ..piece(&bytes)
    };
    ask(&mut disk, DiskOp::WritePiece { meta, bytes }).unwrap();
    drop(disk);
    assert_eq!(dir.open().1.pieces, [meta]);
}

#[test]
fn a_piece_file_cut_off_anywhere_or_with_a_flipped_trailer_byte_is_dropped() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300);
    stored(&mut disk, &bytes).unwrap();
    let path = disk.path_of(&Place::Piece(key_of(&bytes)));
    drop(disk);
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), 556);
    assert_eq!(&good[..300], &bytes[..]);
    let layout = Layout::new(dir.path("node"));
    let (last, ages) = (ages::LastRun::default(), Ages::default());
    let attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut logs = recovery::Logs::new(&layout);
        let stock = recovery::recover(&layout, &mut logs, &last, ages, &Damaged::new(&layout));
        let recovered = stock.recovered;
        assert_eq!(path.exists(), !recovered.pieces.is_empty());
        recovered.pieces.len()
    };
    for length in 0..good.len() {
        assert_eq!(attempt(&good[..length]), 0, "cut at {length}");
    }
    assert_eq!(attempt(&[&good[..], &[0]].concat()), 0);
    for index in 300..556 {
        let mut wrong = good.clone();
        wrong[index] ^= 0x10;
        assert_eq!(attempt(&wrong), 0, "byte {index}");
    }
    assert_eq!(attempt(&good), 1);
}

#[test]
fn a_piece_under_anothers_name_is_dropped() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300);
    stored(&mut disk, &bytes).unwrap();
    let path = disk.path_of(&Place::Piece(key_of(&bytes)));
    drop(disk);
    let directory = path.parent().unwrap();
    fs::copy(&path, directory.join("notes.txt")).unwrap();
    fs::copy(&path, disk_path(&dir, Key([7; 32]))).unwrap();
    assert_eq!(dir.open().1.pieces, [piece(&bytes)]);
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
}

#[test]
fn a_piece_of_a_later_version_is_left_for_that() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300);
    stored(&mut disk, &bytes).unwrap();
    let path = disk.path_of(&Place::Piece(key_of(&bytes)));
    drop(disk);
    let mut file = fs::read(&path).unwrap();
    piece_file::make_newer(&mut file);
    fs::write(&path, &file).unwrap();
    let (mut disk, recovered) = dir.open();
    assert!(recovered.pieces.is_empty());
    assert_eq!(fs::read(&path).unwrap(), file);
    // It may be stored by this version too.
    stored(&mut disk, &bytes).unwrap();
    drop(disk);
    assert_eq!(dir.open().1.pieces, [piece(&bytes)]);
}

fn disk_path(dir: &TestDir, key: Key) -> PathBuf {
    let path = Layout::new(dir.path("node")).path(&Place::Piece(key));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[test]
fn what_was_not_committed_is_gone_after_a_restart() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let bytes = content(1, 5000);
    receive(&disk, &incoming(3, &bytes), &bytes);
    fs::write(dir.path("node/incoming/m0"), b"half").unwrap();
    fs::write(dir.path("node/shares/abc.tmp"), b"half").unwrap();
    fs::write(dir.path("node/ages.tmp"), b"half").unwrap();
    fs::write(dir.path("node/cache").join(key_of(&bytes).to_string()), &bytes).unwrap();
    drop(disk);
    let (_disk, recovered) = dir.open();
    assert!(recovered.pieces.is_empty() && recovered.shares.is_empty());
    for name in ["incoming", "shares", "cache"] {
        assert_eq!(fs::read_dir(dir.path("node").join(name)).unwrap().count(), 0, "{name}");
    }
    assert!(!dir.path("node/ages.tmp").exists());
}

#[test]
fn a_commit_of_what_did_not_arrive_whole_fails_and_leaves_nothing() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 5000);
    let meta = piece(&bytes);
    assert_eq!(kind(ask(&mut disk, DiskOp::Commit { incoming: 1, meta })), DiskErrorKind::NotFound);
    receive(&disk, &incoming(2, &bytes[..4999]), &bytes[..4999]);
    assert_eq!(kind(ask(&mut disk, DiskOp::Commit { incoming: 2, meta })), DiskErrorKind::Changed);
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    assert_eq!(ask(&mut disk, DiskOp::Remove(Place::Incoming(2))), Ok(DiskReply::Done));
}

#[test]
fn data_is_synced_before_names_and_names_before_anything_is_reported() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    record::begin(None);
    let pieces: Vec<_> = (0..5).map(|seed| content(seed, 1000)).collect();
    for (number, bytes) in (0..).zip(&pieces) {
        disk.submit(DiskId(number), DiskOp::WritePiece { meta: piece(bytes), bytes: bytes.clone() });
    }
    assert_eq!(drain(&mut disk).len(), 5);
    let mut steps = record::end();
    steps.retain(|step| matches!(step, Operation::Sync { .. } | Operation::Rename { .. }));
    let position = |wanted: &dyn Fn(&Operation) -> bool| steps.iter().position(wanted).unwrap();
    let sync_of =
        |wanted: &Path| position(&|step| matches!(step, Operation::Sync { path, .. } if path == wanted));
    let root = disk.path_of(&Place::Piece(key_of(&pieces[0])));
    let parent_synced = sync_of(root.parent().unwrap().parent().unwrap());
    for (number, bytes) in pieces.iter().enumerate() {
        let target = disk.path_of(&Place::Piece(key_of(bytes)));
        let source = dir.path(&format!("node/incoming/m{number}"));
        let renamed = Operation::Rename { from: source.clone(), to: target.clone() };
        let (data, directory) = (sync_of(&source), sync_of(target.parent().unwrap()));
        let name = position(&|step| *step == renamed);
        assert!(data < name && name < parent_synced && parent_synced < directory);
    }
    // As one group: all the data, all the names, each directory once.
    let is = |step: &Operation, wanted| matches!(step, Operation::Sync { kind, .. } if *kind == wanted);
    assert!(steps[..5].iter().all(|step| is(step, Kind::SyncData)));
    assert!(!steps[5..].iter().any(|step| is(step, Kind::SyncData)));
    assert!(steps.iter().filter(|step| is(step, Kind::SyncDirectory)).count() <= 6);
}

#[test]
fn commits_wait_for_others_only_while_others_come_and_never_for_long() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let submit = |disk: &mut Disk, seed: u8| {
        let bytes = content(seed, 100);
        disk.submit(DiskId(seed.into()), DiskOp::WritePiece { meta: piece(&bytes), bytes });
    };
    submit(&mut disk, 1);
    disk.run(BUDGET);
    assert!(disk.poll_done().is_none());
    disk.run(BUDGET);
    assert_eq!(disk.poll_done().unwrap().id, DiskId(1));
    for seed in 2..6 {
        assert!(disk.poll_done().is_none());
        submit(&mut disk, seed);
        disk.run(BUDGET);
    }
    assert_eq!(core::iter::from_fn(|| disk.poll_done()).count(), 4);
    (10..60).for_each(|seed| submit(&mut disk, seed));
    disk.run(BUDGET);
    assert_eq!(core::iter::from_fn(|| disk.poll_done()).count(), 16);
    assert_eq!(drain(&mut disk).len(), 34);
}

#[test]
fn after_a_failed_sync_nothing_that_it_covered_is_kept_or_reported_as_stored() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (good, bad) = (content(1, 1000), content(2, 2000));
    let submit = |disk: &mut Disk| {
        disk.submit(DiskId(1), DiskOp::WritePiece { meta: piece(&good), bytes: good.clone() });
        disk.submit(DiskId(2), DiskOp::WritePiece { meta: piece(&bad), bytes: bad.clone() });
    };
    let result = |done: &[DiskDone], id| {
        done.iter().find(|done| done.id == DiskId(id)).unwrap().result.clone().map_err(|error| error.kind)
    };
    // The data of one.
    record::plan(|attempt| {
        let wanted = attempt.kind == Kind::SyncData && attempt.path.ends_with("m1");
        wanted.then_some(Fault::Fail(Errno::IO))
    });
    submit(&mut disk);
    let done = drain(&mut disk);
    record::end_plan();
    assert_eq!(result(&done, 1), Ok(DiskReply::Done));
    assert_eq!(result(&done, 2), Err(DiskErrorKind::Failed));
    // The directory of the other.
    let directory = disk.path_of(&Place::Piece(key_of(&bad))).parent().unwrap().to_owned();
    record::plan(move |attempt| {
        let wanted = attempt.kind == Kind::SyncDirectory && attempt.path == directory;
        wanted.then_some(Fault::Fail(Errno::IO))
    });
    submit(&mut disk);
    let done = drain(&mut disk);
    record::end_plan();
    assert_eq!(result(&done, 1), Ok(DiskReply::Done));
    assert_eq!(result(&done, 2), Err(DiskErrorKind::Failed));
    assert!(!disk.path_of(&Place::Piece(key_of(&bad))).exists());
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    drop(disk);
    assert_eq!(dir.open().1.pieces, [piece(&good)]);
}

#[test]
fn a_disk_that_turns_out_to_be_full_is_told_apart_and_the_next_piece_may_fit() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    record::plan(|attempt| (attempt.kind == Kind::Write).then_some(Fault::Full(300)));
    assert_eq!(kind(stored(&mut disk, &content(1, 1000))), DiskErrorKind::NoSpace);
    record::end_plan();
    assert_eq!(stored(&mut disk, &content(2, 1000)), Ok(DiskReply::Done));
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    drop(disk);
    assert_eq!(dir.open().1.pieces, [piece(&content(2, 1000))]);
}

#[test]
fn a_directory_whose_name_could_not_be_synced_is_made_anew() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 1000);
    let directory = disk_path(&dir, key_of(&bytes)).parent().unwrap().to_owned();
    fs::remove_dir(&directory).unwrap();
    let pieces = directory.parent().unwrap().to_owned();
    record::plan(move |attempt| {
        let wanted = attempt.kind == Kind::SyncDirectory && attempt.path == pieces;
        wanted.then_some(Fault::Fail(Errno::IO))
    });
    assert_eq!(kind(stored(&mut disk, &bytes)), DiskErrorKind::Failed);
    record::end_plan();
    assert!(!directory.exists());
    record::begin(None);
    assert_eq!(stored(&mut disk, &bytes), Ok(DiskReply::Done));
    assert!(record::end().contains(&Operation::MakeDirectory { path: directory }));
}

use super::durable::script::{self, Step};
use super::*;
use crate::rng::Rng;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn a_piece_arrives_is_committed_and_is_there_after_a_restart() {
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
    assert_eq!((good.len(), &good[..300]), (428, &bytes[..]));
    let layout = Layout::new(dir.path("node"));
    let (last, ages) = (state::LastRun::default(), Ages::default());
    let attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let recovered = recovery::recover(&layout, &last, ages).unwrap();
        assert_eq!(path.exists(), !recovered.pieces.is_empty());
        recovered.pieces.len()
    };
    for length in 0..good.len() {
        assert_eq!(attempt(&good[..length]), 0, "cut at {length}");
    }
    assert_eq!(attempt(&[&good[..], &[0]].concat()), 0);
    for index in 300..428 {
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
    assert_eq!(kind(ask(&mut disk, DiskOp::Commit { incoming: 2, meta })), DiskErrorKind::Failed);
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    assert_eq!(ask(&mut disk, DiskOp::Remove(Place::Incoming(2))), Ok(DiskReply::Done));
}

#[test]
fn data_is_synced_before_names_and_names_before_anything_is_reported() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    script::begin(Errno::IO, |_, _| false);
    let pieces: Vec<_> = (0..5).map(|seed| content(seed, 1000)).collect();
    for (number, bytes) in (0..).zip(&pieces) {
        disk.submit(DiskId(number), DiskOp::WritePiece { meta: piece(bytes), bytes: bytes.clone() });
    }
    assert_eq!(drain(&mut disk).len(), 5);
    let steps = script::end();
    let position = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let root = disk.path_of(&Place::Piece(key_of(&pieces[0])));
    let parent = root.parent().unwrap().parent().unwrap().to_owned();
    let parent_synced = position(&|step| *step == Step::Directory(parent.clone()));
    for (number, bytes) in pieces.iter().enumerate() {
        let target = disk.path_of(&Place::Piece(key_of(bytes)));
        let source = dir.path(&format!("node/incoming/m{number}"));
        let data = position(&|step| *step == Step::Data(source.clone()));
        let name = position(&|step| *step == Step::Rename(source.clone(), target.clone()));
        let directory = position(&|step| *step == Step::Directory(target.parent().unwrap().to_owned()));
        assert!(data < name && name < parent_synced && parent_synced < directory);
    }
    // As one group: all the data, all the names, each directory once.
    let of = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
    assert_eq!(of(|step| matches!(step, Step::Data(_))), 5);
    assert!(steps[..5].iter().all(|step| matches!(step, Step::Data(_))));
    assert!(of(|step| matches!(step, Step::Directory(_))) <= 6);
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
    script::begin(Errno::IO, |_, step| matches!(step, Step::Data(path) if path.ends_with("m1")));
    submit(&mut disk);
    let done = drain(&mut disk);
    script::end();
    assert_eq!((result(&done, 1), result(&done, 2)), (Ok(DiskReply::Done), Err(DiskErrorKind::Failed)));
    // The directory of the other.
    let directory = disk.path_of(&Place::Piece(key_of(&bad))).parent().unwrap().to_owned();
    script::begin(Errno::IO, move |_, step| *step == Step::Directory(directory.clone()));
    submit(&mut disk);
    let done = drain(&mut disk);
    script::end();
    assert_eq!((result(&done, 1), result(&done, 2)), (Ok(DiskReply::Done), Err(DiskErrorKind::Failed)));
    assert!(!disk.path_of(&Place::Piece(key_of(&bad))).exists());
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    drop(disk);
    assert_eq!(dir.open().1.pieces, [piece(&good)]);
}

#[test]
fn a_disk_that_turns_out_to_be_full_is_told_apart_and_the_next_piece_may_fit() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    script::begin(Errno::NOSPC, |number, _| number == 0);
    assert_eq!(kind(stored(&mut disk, &content(1, 1000))), DiskErrorKind::NoSpace);
    script::begin(Errno::IO, |_, _| false);
    assert_eq!(stored(&mut disk, &content(2, 1000)), Ok(DiskReply::Done));
    script::end();
    assert_eq!(fs::read_dir(dir.path("node/incoming")).unwrap().count(), 0);
    drop(disk);
    assert_eq!(dir.open().1.pieces, [piece(&content(2, 1000))]);
}

/// What a power cut after these steps may leave behind: data that was not synced is torn, and names in directories that
/// were not synced are there or not.
fn cut_power(dir: &TestDir, steps: &[Step], rng: &mut Rng) {
    let synced = |path: &Path| steps.iter().any(|step| *step == Step::Data(path.to_owned()));
    for (at, step) in steps.iter().enumerate() {
        let Step::Rename(from, to) = step else {
            continue;
        };
        let directory = Step::Directory(to.parent().unwrap().to_owned());
        if !synced(from) {
            tear(to, rng);
        }
        if !steps[at..].contains(&directory) && rng.below(2) == 0 && to.exists() {
            fs::rename(to, from).unwrap();
        }
    }
    for entry in fs::read_dir(dir.path("node/incoming")).unwrap() {
        let path = entry.unwrap().path();
        if !synced(&path) {
            tear(&path, rng);
        }
    }
}

fn tear(path: &Path, rng: &mut Rng) {
    if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
        let length = file.metadata().unwrap().len();
        file.set_len(rng.below(length + 1)).unwrap();
    }
}

#[test]
fn from_every_crash_point_every_acknowledged_piece_comes_back_and_nothing_half_written() {
    let mut rng = Rng::new([5; 32]);
    for crash in 0..40 {
        let dir = TestDir::new();
        let (mut disk, _) = dir.open();
        script::begin(Errno::IO, move |number, _| number >= crash);
        let pieces: Vec<_> = (0..12).map(|seed| content(seed, 100 + usize::from(seed) * 50)).collect();
        let mut acknowledged = BTreeSet::new();
        for (number, bytes) in (0..).zip(&pieces) {
            disk.submit(DiskId(number), DiskOp::WritePiece { meta: piece(bytes), bytes: bytes.clone() });
            if number % 4 == 3 {
                for done in drain(&mut disk).into_iter().filter(|done| done.result.is_ok()) {
                    acknowledged.insert(key_of(&pieces[done.id.0 as usize]));
                }
            }
        }
        drop(disk);
        cut_power(&dir, &script::end(), &mut rng);
        let (mut disk, recovered) = dir.open();
        let found: BTreeSet<Key> = recovered.pieces.iter().map(|piece| piece.key).collect();
        assert!(found.is_superset(&acknowledged), "crash after {crash} steps");
        for meta in &recovered.pieces {
            let extent = whole(Place::Piece(meta.key), meta.length as usize, None);
            let Ok(DiskReply::Bytes(bytes)) = ask(&mut disk, DiskOp::Read(extent)) else {
                panic!("crash after {crash} steps: a piece cannot be read");
            };
            assert_eq!(key_of(&bytes), meta.key, "crash after {crash} steps");
        }
    }
}

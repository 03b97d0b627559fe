use super::*;
use power_loss::record::{Attempt, Fault, Kind, Operation};
use rustix::io::Errno;

/// The claims that a start finds, and what it changes on the way.
fn start(dir: &TestDir) -> (Vec<Share>, Vec<Operation>) {
    record::begin(None);
    let (disk, recovered) = dir.open();
    drop(disk);
    (recovered.shares, record::end())
}

/// Whether the log was written to another file, synced, named and its name synced, in this order.
fn is_written_anew(made: &[Operation], log: &Path) -> bool {
    let mut steps = 0;
    for operation in made {
        steps += u32::from(match operation {
            Operation::Sync { path, succeeded: true, .. } if steps == 0 => *path == layout::temporary(log),
            Operation::Rename { to, .. } if steps == 1 => to == log,
            Operation::Sync { path, succeeded: true, .. } if steps == 2 => Some(&**path) == log.parent(),
            _ => false,
        });
    }
    steps == 3
}

fn a_share(dir: &TestDir, disk: &Disk, name: &str) -> (Share, Vec<u8>) {
    let bytes = content(name.len() as u8, 100);
    (share_of(&bytes, &dir.file(name, &bytes), disk), bytes)
}

fn fails(planned: impl Fn(&Attempt<'_>) -> bool + 'static, fault: Fault) {
    record::plan(move |attempt| planned(attempt).then_some(fault));
}

#[test]
fn what_a_killed_run_left_in_the_log_is_on_the_medium_before_a_start_counts_on_it() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let (share, bytes) = a_share(&dir, &disk, "fetched");
    // Its record is written and not synced.
    save(&mut disk, &Share { synced: false, ..share }, &bytes);
    drop(disk);
    let log = dir.path("node/shares.log");
    let (shares, made) = start(&dir);
    assert_eq!(shares.len(), 1);
    assert!(is_written_anew(&made, &log), "{made:?}");
    let (mut disk, _) = dir.open();
    disk.clean_shutdown(recovered.ages).unwrap();
    drop(disk);
    let (_, made) = start(&dir);
    assert!(!is_written_anew(&made, &log), "after an orderly end it stays as it is");
}

#[test]
fn an_orderly_end_makes_durable_that_a_refused_record_was_cut_off() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let (share, bytes) = a_share(&dir, &disk, "file");
    save(&mut disk, &Share { replicated: false, ..share.clone() }, &bytes);
    // All of the record is written, and yet it is refused.
    fails(|attempt| attempt.kind == Kind::Write, Fault::Full(1000));
    let op = DiskOp::SaveShare { share, manifest: None };
    assert_eq!(kind(ask(&mut disk, op)), DiskErrorKind::NoSpace);
    record::end_plan();
    record::begin(None);
    disk.clean_shutdown(recovered.ages).unwrap();
    let made = record::end();
    let log = dir.path("node/shares.log");
    let synced = |operation: &Operation| matches!(operation, Operation::Sync { path, succeeded: true, .. } if *path == log);
    assert!(made.iter().any(synced), "{made:?}");
    drop(disk);
    assert!(!start(&dir).0[0].replicated);
}

#[test]
fn an_end_whose_log_cannot_be_synced_is_not_clean() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let (share, bytes) = a_share(&dir, &disk, "fetched");
    save(&mut disk, &Share { synced: false, ..share }, &bytes);
    fails(
        |attempt| attempt.kind.is_sync() && attempt.path.to_string_lossy().contains("shares.log"),
        Fault::Fail(Errno::IO),
    );
    disk.clean_shutdown(recovered.ages).unwrap();
    record::end_plan();
    drop(disk);
    let (_disk, recovered) = dir.open();
    assert!(!recovered.ages.clean);
    assert_eq!(recovered.shares.len(), 1);
}

#[test]
fn what_a_start_could_not_write_anew_survives_a_sync_that_fails_after_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let [(one, first), (two, second), (three, third)] =
        ["a", "bb", "ccc"].map(|name| a_share(&dir, &disk, name));
    save(&mut disk, &one, &first);
    drop(disk);
    fails(|_| true, Fault::Fail(Errno::NOSPC));
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.shares.len(), 1);
    let log = dir.path("node/shares.log");
    fails(move |attempt| attempt.kind == Kind::SyncData && attempt.path == log, Fault::Fail(Errno::IO));
    disk.submit(DiskId(1), DiskOp::SaveShare { share: two, manifest: Some(manifest_of(&second)) });
    drain(&mut disk);
    record::end_plan();
    save(&mut disk, &three, &third);
    drop(disk);
    assert_eq!(start(&dir).0.len(), 3);
}

#[test]
fn the_log_is_written_anew_as_soon_as_the_disk_takes_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (share, bytes) = a_share(&dir, &disk, "file");
    save(&mut disk, &share, &bytes);
    drop(disk);
    fails(|_| true, Fault::Fail(Errno::NOSPC));
    let (mut disk, _) = dir.open();
    record::end_plan();
    let log = dir.path("node/shares.log");
    for expected in [true, false] {
        record::begin(None);
        disk.tend();
        assert_eq!(is_written_anew(&record::end(), &log), expected);
    }
}

#[test]
fn a_log_that_could_not_be_read_is_read_before_another_takes_its_place() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let [(one, first), (two, second)] = ["a", "bb"].map(|name| a_share(&dir, &disk, name));
    save(&mut disk, &one, &first);
    drop(disk);
    let (log, aside) = (dir.path("node/shares.log"), dir.path("aside"));
    // A directory can be opened and not read, as a file on a failing medium.
    fs::rename(&log, &aside).unwrap();
    fs::create_dir(&log).unwrap();
    let (mut disk, recovered) = dir.open();
    assert!(recovered.shares.is_empty());
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    save(&mut disk, &two, &second);
    drop(disk);
    assert_eq!(start(&dir).0.len(), 2);
}

#[test]
fn a_claim_whose_files_cannot_be_deleted_ends_and_is_answered_once() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let share = share_of(&bytes, &dir.file("file", &bytes), &disk);
    save(&mut disk, &share, &bytes);
    fails(|attempt| attempt.kind == Kind::Remove, Fault::Fail(Errno::IO));
    let manifest = disk.path_of(&Place::ShareManifest(share.hash));
    assert_eq!(ask(&mut disk, DiskOp::RemoveShare { share, last: true }), Ok(DiskReply::Done));
    record::end_plan();
    drop(disk);
    assert!(manifest.exists());
    assert!(start(&dir).0.is_empty());
    assert!(!manifest.exists(), "the start deletes what belongs to no claim");
}

#[test]
fn a_log_that_has_grown_is_written_anew_while_the_node_runs() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let (share, _) = a_share(&dir, &disk, "file");
    let long = Place::File(Path::new(&format!("/{}", "x/".repeat(1500))).into());
    let log = dir.path("node/shares.log");
    let (mut longest, mut turns) = (0, 0);
    for round in 0..4 {
        for number in 0..500 {
            let stamp = FileStamp { modified: round * 1000 + number, ..share.stamp };
            let share = Share { place: long.clone(), stamp, ..share.clone() };
            disk.submit(DiskId(number as u64), DiskOp::SaveShare { share, manifest: None });
        }
        let mut answered = 0;
        while disk.has_work() {
            disk.run(1 << 20);
            while let Some(done) = disk.poll_done() {
                assert_eq!(done.result, Ok(DiskReply::Done));
                answered += 1;
            }
            longest = longest.max(log.metadata().map_or(0, |metadata| metadata.len()));
            turns += 1;
            assert!(turns < 100_000, "it works without end");
        }
        assert_eq!(answered, 500);
    }
    assert!(longest > 4 << 20, "{longest} bytes were no reason to write it anew");
    let length = log.metadata().unwrap().len();
    assert!(length < longest / 2, "{length} bytes of {longest} are left");
    disk.clean_shutdown(recovered.ages).unwrap();
    drop(disk);
    let (_, recovered) = dir.open();
    let stamps: Vec<i64> = recovered.shares.iter().map(|share| share.stamp.modified).collect();
    assert_eq!(stamps, [3499], "the last record counts");
}

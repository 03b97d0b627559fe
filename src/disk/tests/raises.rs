use super::*;

fn raise(disk: &mut Disk, bytes: &[u8], replicas: u8, expires: u64) -> Result<DiskReply, DiskError> {
    ask(disk, DiskOp::Raise { key: key_of(bytes), replicas, expires, claim: claim(expires) })
}

/// A claim that is the later the longer it raises.
fn claim(sequence: u64) -> Option<PieceClaim> {
    Some(PieceClaim::unsigned(PublicKey([5; 32]), 3, 2000, sequence))
}

fn promised(recovered: &Recovered, bytes: &[u8]) -> (u8, u64) {
    let found = recovered.pieces.iter().find(|piece| piece.key == key_of(bytes)).unwrap();
    (found.replicas, found.expires)
}

#[test]
fn what_was_raised_holds_after_a_restart_and_only_for_the_piece_that_it_was_raised_for() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (one, two) = (content(1, 100), content(2, 9000));
    // Both are stored with 3 copies until 1000.
    stored(&mut disk, &one).unwrap();
    stored(&mut disk, &two).unwrap();
    raise(&mut disk, &one, 5, 1000).unwrap();
    raise(&mut disk, &one, 4, 5000).unwrap();
    assert_eq!(kind(raise(&mut disk, b"never stored", 4, 5000)), DiskErrorKind::NotFound);
    let path = dir.path("node/raises");
    let mut log = fs::read(&path).unwrap();
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(promised(&recovered, &one), (5, 5000));
    assert_eq!(promised(&recovered, &two), (3, 1000));
    // A torn record at the end, and one with a flipped bit, damage no other.
    assert_eq!(log.len(), 384, "the start wrote it anew");
    assert_eq!(fs::metadata(&path).unwrap().len(), 192, "the start wrote it anew");
    log[192 + 50] ^= 1;
    log.extend_from_slice(&[7; 10]);
    fs::write(&path, &log).unwrap();
    raise(&mut disk, &two, 9, 1).unwrap();
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(promised(&recovered, &one), (5, 1000));
    assert_eq!(promised(&recovered, &two), (9, 1000));
    // It went, and came back as another offer described it.
    ask(&mut disk, DiskOp::Remove(Place::Piece(key_of(&two)))).unwrap();
    let other = PieceMeta { replicas: 2, expires: 70, ..piece(&two) };
    ask(&mut disk, DiskOp::WritePiece { meta: other, bytes: two.clone() }).unwrap();
    drop(disk);
    assert_eq!(promised(&dir.open().1, &two), (2, 70));
}

#[test]
fn the_log_is_written_anew_when_little_of_it_is_of_use() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 100);
    stored(&mut disk, &bytes).unwrap();
    for expires in 1001..1200 {
        disk.submit(
            DiskId(expires),
            DiskOp::Raise { key: key_of(&bytes), replicas: 3, expires, claim: claim(expires) },
        );
    }
    assert_eq!(drain(&mut disk).len(), 199);
    assert_eq!(raise(&mut disk, &bytes, 3, 1000), Ok(DiskReply::Done), "that is what it was stored with");
    drop(disk);
    let path = dir.path("node/raises");
    assert_eq!(fs::metadata(&path).unwrap().len(), 199 * 192);
    let (disk, recovered) = dir.open();
    assert_eq!(promised(&recovered, &bytes), (3, 1199));
    assert_eq!(recovered.pieces[0].claim, claim(1199), "the claim that raised it");
    drop(disk);
    assert_eq!(fs::metadata(&path).unwrap().len(), 192);
    assert_eq!(promised(&dir.open().1, &bytes), (3, 1199));
}

#[test]
fn a_raise_that_could_not_be_synced_is_not_acknowledged_and_the_next_one_is() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 100);
    stored(&mut disk, &bytes).unwrap();
    raise(&mut disk, &bytes, 4, 1000).unwrap();
    record::plan(|attempt| attempt.kind.is_sync().then_some(record::Fault::Fail(rustix::io::Errno::IO)));
    assert_eq!(kind(raise(&mut disk, &bytes, 7, 1000)), DiskErrorKind::Failed);
    record::end_plan();
    raise(&mut disk, &bytes, 5, 1000).unwrap();
    drop(disk);
    // The one that failed may hold or not. More copies than were acknowledged do no harm.
    assert!(promised(&dir.open().1, &bytes).0 >= 5);
}

#[test]
fn what_a_start_found_raised_and_could_not_write_anew_is_written_as_soon_as_the_disk_takes_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 100);
    stored(&mut disk, &bytes).unwrap();
    raise(&mut disk, &bytes, 4, 1000).unwrap();
    drop(disk);
    record::plan(|_| Some(record::Fault::Fail(rustix::io::Errno::NOSPC)));
    let (mut disk, recovered) = dir.open();
    record::end_plan();
    assert_eq!(promised(&recovered, &bytes), (4, 1000));
    let log = dir.path("node/raises");
    for expected in [true, false] {
        record::begin(None);
        disk.tend();
        let made = record::end();
        let named = |operation: &record::Operation| matches!(operation, record::Operation::Rename { to, .. } if *to == log);
        assert_eq!(made.iter().any(named), expected, "{made:?}");
    }
}

use super::*;
use crate::io::{PieceAt, Soundness};

fn at(meta: &PieceMeta) -> PieceAt {
    let PieceMeta { key, content, length, input_offset, .. } = *meta;
    let extent = whole(Place::Piece(key), length as usize, None);
    PieceAt { key, content, input_offset, extent }
}

/// Verifies at once and in idle time: both must come to the same.
fn verify(disk: &mut Disk, piece: &PieceAt) -> Result<Soundness, DiskErrorKind> {
    let soundness = |result: Result<DiskReply, DiskError>| match result {
        Ok(DiskReply::Verified { soundness }) => Ok(soundness),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.kind),
    };
    let now = soundness(ask(disk, DiskOp::Verify { piece: piece.clone(), idle: false }));
    disk.submit(DiskId(2), DiskOp::Verify { piece: piece.clone(), idle: true });
    disk.run(BUDGET);
    let mut turns = 0;
    while disk.has_idle_work() {
        disk.run_idle();
        turns += 1;
        assert!(turns < 100_000, "a verification never ends");
    }
    let later = soundness(disk.poll_done().expect("it is answered").result);
    assert_eq!(now, later);
    now
}

#[test]
fn a_flipped_bit_anywhere_in_a_piece_file_is_found() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(3, 700_000);
    let manifest = manifest_of(&bytes);
    let encoded = manifest.encode();
    let chunk = |index: u32| {
        let (from, length) = (manifest.chunk_offset(index), manifest.chunk_length(index));
        let bytes = bytes[from as usize..][..length as usize].to_vec();
        let key = manifest.keys()[index as usize];
        (
            PieceMeta {
                content: Content::Chunk,
                input_offset: from,
                expires: 9,
                ..PieceMeta::file(key, length)
            },
            bytes,
        )
    };
    let root = PieceMeta { content: Content::Manifest, ..piece(&encoded) };
    let pieces = [
        (piece(&content(1, 5)), content(1, 5)),
        (piece(b""), Vec::new()),
        chunk(0),
        chunk(2),
        (PieceMeta { key: manifest.hash(), ..root }, encoded.clone()),
    ];
    for (meta, bytes) in pieces {
        ask(&mut disk, DiskOp::WritePiece { meta, bytes: bytes.clone() }).unwrap();
        assert_eq!(verify(&mut disk, &at(&meta)), Ok(Soundness::Sound));
        let path = disk.path_of(&Place::Piece(meta.key));
        let good = fs::read(&path).unwrap();
        for position in [0, bytes.len() / 2, bytes.len().saturating_sub(1), bytes.len(), good.len() - 1] {
            let mut wrong = good.clone();
            wrong[position] ^= 4;
            fs::write(&path, &wrong).unwrap();
            assert_eq!(verify(&mut disk, &at(&meta)), Ok(Soundness::Rotten), "byte {position}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(verify(&mut disk, &at(&meta)), Ok(Soundness::Rotten));
        fs::remove_file(&path).unwrap();
        assert_eq!(verify(&mut disk, &at(&meta)), Ok(Soundness::Missing));
    }
}

#[test]
fn a_piece_of_another_node_under_a_good_checksum_is_found_out() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    // The checksums of the file are right. The content is not what its key says.
    let meta = PieceMeta { key: Key([7; 32]), ..piece(&content(1, 5000)) };
    ask(&mut disk, DiskOp::WritePiece { meta, bytes: content(1, 5000) }).unwrap();
    assert_eq!(verify(&mut disk, &at(&meta)), Ok(Soundness::Rotten));
    // What the index says of it is not what its file says.
    let stored = piece(&content(2, 5000));
    ask(&mut disk, DiskOp::WritePiece { meta: stored, bytes: content(2, 5000) }).unwrap();
    let elsewhere = PieceAt { content: Content::Chunk, input_offset: 1 << 20, ..at(&stored) };
    assert_eq!(verify(&mut disk, &elsewhere), Ok(Soundness::Rotten));
}

#[test]
fn a_chunk_of_a_shared_file_is_checked_where_it_lies() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(5, 600_000);
    let (place, manifest) = (dir.file("shared", &bytes), manifest_of(&bytes));
    let stamp = extent::stamp_of(&disk.path_of(&place).metadata().unwrap());
    let chunk = |index: u32| {
        let (offset, length) = (manifest.chunk_offset(index), manifest.chunk_length(index));
        let extent = Extent { place: place.clone(), offset, length, stamp: Some(stamp) };
        PieceAt {
            key: manifest.keys()[index as usize],
            content: Content::Chunk,
            input_offset: offset,
            extent,
        }
    };
    for index in 0..manifest.chunk_count() {
        assert_eq!(verify(&mut disk, &chunk(index)), Ok(Soundness::Sound));
    }
    let wrong = PieceAt { key: manifest.keys()[1], ..chunk(0) };
    assert_eq!(verify(&mut disk, &wrong), Ok(Soundness::Rotten));
    fs::write(dir.path("shared"), &bytes[..500_000]).unwrap();
    assert_eq!(verify(&mut disk, &chunk(0)), Err(DiskErrorKind::Changed));
    fs::remove_file(dir.path("shared")).unwrap();
    assert_eq!(verify(&mut disk, &chunk(0)), Ok(Soundness::Missing));
}

#[test]
fn what_can_wait_is_not_begun_by_the_ordinary_work_and_does_not_hold_up_the_end() {
    let dir = TestDir::new();
    let (mut disk, recovered) = dir.open();
    let meta = piece(&content(1, 100_000));
    ask(&mut disk, DiskOp::WritePiece { meta, bytes: content(1, 100_000) }).unwrap();
    disk.submit(DiskId(9), DiskOp::Verify { piece: at(&meta), idle: true });
    assert_eq!(drain(&mut disk), []);
    assert!(disk.has_idle_work() && !disk.has_work());
    disk.clean_shutdown(recovered.ages).unwrap();
    assert!(!disk.has_idle_work());
}

//! Content from sockets into files, both ways.

use super::*;
use crate::disk::intake::{Intake, Way};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

const WAYS: [Way; 2] = [Way::Spliced, Way::Copied];

/// Two ends of which neither blocks.
fn connected() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Sends `bytes` in parts of at most `part` and takes them in as they come, until the sink is full; what is left of them
/// then.
fn take<'a>(
    sink: &mut OpenSink,
    intake: &mut Intake,
    (near, far): &mut (UnixStream, UnixStream),
    bytes: &'a [u8],
    part: usize,
) -> &'a [u8] {
    let mut rest = bytes;
    while sink.remaining() > 0 {
        if let Ok(sent) = far.write(&rest[..rest.len().min(part)]) {
            rest = &rest[sent..];
        }
        match sink.receive(&*near, intake) {
            Ok(0) => panic!("the socket is open"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    rest
}

#[test]
fn content_arrives_whole_either_way_at_every_boundary() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let lengths = [1, 16_383, 16_384, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 600_000];
    for way in WAYS {
        let mut intake = Intake::new(way);
        let mut ends = connected();
        for (number, length) in (0..).zip(lengths) {
            for part in [1_448, 100_000] {
                let bytes = content(number, length);
                let sink = incoming(u64::from(number), &bytes);
                let mut open = disk.open_sink(&sink).unwrap();
                let rest = take(&mut open, &mut intake, &mut ends, &bytes, part);
                assert!(rest.is_empty());
                assert_eq!(open.finish().unwrap(), key_of(&bytes), "{way:?}, {length} by {part}");
                assert!(fs::read(disk.path_of(&sink.place)).unwrap() == bytes);
            }
        }
    }
}

#[test]
fn chunks_follow_each_other_in_one_file_and_none_takes_of_the_next() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(7, (3 << 18) + 12_345);
    let manifest = manifest_of(&bytes);
    for way in WAYS {
        let place = Place::Cache(Key([way as u8; 32]));
        ask(&mut disk, open_target(&place, &manifest, false)).unwrap();
        let mut intake = Intake::new(way);
        let mut ends = connected();
        let mut rest = &bytes[..];
        for index in 0..manifest.chunk_count() {
            let sink = Sink {
                place: place.clone(),
                offset: manifest.chunk_offset(index),
                length: manifest.chunk_length(index),
                hash_as: manifest.hash_as(index),
            };
            let mut open = disk.open_sink(&sink).unwrap();
            // A beginning that was read together with the frame before it.
            let sent = ends.1.write(rest).unwrap_or(0);
            rest = &rest[sent..];
            let mut early = [0; 40];
            ends.0.read_exact(&mut early).unwrap();
            assert_eq!(open.write(&early).unwrap(), early.len());
            rest = take(&mut open, &mut intake, &mut ends, rest, 1 << 20);
            assert_eq!(open.finish().unwrap(), manifest.keys()[index as usize], "{way:?}, chunk {index}");
        }
        assert!(rest.is_empty() && fs::read(disk.path_of(&place)).unwrap() == bytes);
    }
}

#[test]
fn a_socket_that_closes_in_the_middle_is_told_apart_from_one_that_has_nothing_yet() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let bytes = content(3, 100_000);
    for way in WAYS {
        let mut intake = Intake::new(way);
        let (near, mut far) = connected();
        let mut open = disk.open_sink(&incoming(1, &bytes)).unwrap();
        let error = open.receive(&near, &mut intake).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(OpenSink::disk_error(&error), None);
        far.write_all(&bytes[..30_000]).unwrap();
        drop(far);
        let mut taken = 0;
        loop {
            match open.receive(&near, &mut intake).unwrap() {
                0 => break,
                count => taken += count,
            }
        }
        assert_eq!(taken, 30_000);
        assert_eq!(open.remaining(), 70_000);
    }
}

#[test]
fn where_splicing_is_refused_content_arrives_all_the_same() {
    use crate::disk::power_loss::record::{self, Fault, Kind};
    use rustix::io::Errno;
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let bytes = content(9, 300_000);
    let refusals = [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP];
    for (number, errno) in (0..).zip(refusals) {
        for call in [Kind::Fill, Kind::Splice] {
            record::plan(move |attempt| (attempt.kind == call).then_some(Fault::Fail(errno)));
            let mut intake = Intake::new(Way::Spliced);
            let mut open = disk.open_sink(&incoming(number, &bytes)).unwrap();
            let rest = take(&mut open, &mut intake, &mut connected(), &bytes, 100_000);
            record::end_plan();
            assert!(rest.is_empty());
            assert_eq!(open.finish().unwrap(), key_of(&bytes), "{call:?} {errno}");
        }
    }
}

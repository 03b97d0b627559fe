use super::*;
use rustix::fs::OFlags;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;

pub(super) fn target(dir: &TestDir, name: &str) -> Place {
    Place::Partial(dir.path(name).into())
}

pub(super) fn open(
    disk: &mut Disk,
    place: &Place,
    manifest: &Arc<Manifest>,
    force: bool,
) -> Result<DiskReply, DiskError> {
    ask(disk, super::open_target(place, manifest, force))
}

/// Which chunks were there.
pub(super) fn open_target(
    disk: &mut Disk,
    place: &Place,
    manifest: &Arc<Manifest>,
) -> Result<Vec<bool>, DiskError> {
    match open(disk, place, manifest, false)? {
        DiskReply::Opened { good, .. } => Ok(good),
        other => panic!("{other:?}"),
    }
}

pub(super) fn close(disk: &mut Disk, place: &Place) {
    let close = DiskOp::CloseTarget { place: place.clone(), delete: false };
    assert_eq!(ask(disk, close), Ok(DiskReply::Done));
}

fn write(disk: &mut Disk, place: &Place, bytes: &[u8]) -> Result<DiskReply, DiskError> {
    ask(disk, DiskOp::WriteTarget { place: place.clone(), offset: 0, bytes: bytes.to_vec() })
}

pub(super) fn finish(disk: &mut Disk, place: &Place) -> Result<DiskReply, DiskError> {
    ask(disk, DiskOp::FinishTarget { place: place.clone() })
}

pub(super) fn finished(disk: &mut Disk, place: &Place) -> PathBuf {
    match finish(disk, place) {
        Ok(DiskReply::Finished { path, stamp }) => {
            assert_eq!(stamp, extent::stamp_of(&path.metadata().unwrap()));
            path
        }
        other => panic!("{other:?}"),
    }
}

fn check(disk: &mut Disk, place: &Place, manifest: &Arc<Manifest>) -> Vec<bool> {
    match ask(disk, DiskOp::Check { place: place.clone(), manifest: manifest.clone() }) {
        Ok(DiskReply::Checked { good }) => good,
        other => panic!("{other:?}"),
    }
}

pub(super) fn put_chunk(disk: &Disk, place: &Place, manifest: &Manifest, bytes: &[u8], chunk: u32) -> Key {
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
    assert_eq!(open_target(&mut disk, &place, &manifest), Ok(Vec::new()));
    for chunk in [2, 0, 1] {
        assert_eq!(put_chunk(&disk, &place, &manifest, &bytes, chunk), manifest.keys()[chunk as usize]);
    }
    assert!(dir.path("file.part").exists() && !dir.path("file").exists());
    assert_eq!(finished(&mut disk, &place), dir.path("file"));
    assert_eq!(fs::read(dir.path("file")).unwrap(), bytes);
    assert!(!dir.path("file.part").exists());
}

#[test]
fn a_sink_takes_no_byte_past_its_end() {
    let dir = TestDir::new();
    let (disk, _) = dir.open();
    let mut open = disk.open_sink(&incoming(1, b"abc")).unwrap();
    assert_eq!(open.write(b"ab").unwrap(), 2);
    assert_eq!(open.remaining(), 1);
    assert_eq!(open.write(b"cdef").unwrap(), 1);
    assert_eq!(open.remaining(), 0);
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
    open_target(&mut disk, &place, &manifest).unwrap();
    assert_eq!(check(&mut disk, &place, &manifest), [false; 6]);
    put_chunk(&disk, &place, &manifest, &bytes, 1);
    put_chunk(&disk, &place, &manifest, &bytes, 5);
    let half = DiskOp::WriteTarget { place: place.clone(), offset: 3 << 18, bytes: vec![7; 1000] };
    assert_eq!(ask(&mut disk, half), Ok(DiskReply::Done));
    close(&mut disk, &place);
    let good = open_target(&mut disk, &place, &manifest).unwrap();
    assert_eq!(good, [false, true, false, false, false, true]);
    // Zeros that were written are told from what was not, although they are a hole but for a page.
    put_chunk(&disk, &place, &manifest, &bytes, 2);
    close(&mut disk, &place);
    let good = open_target(&mut disk, &place, &manifest).unwrap();
    assert_eq!(good, [false, true, true, false, false, true]);
    close(&mut disk, &place);
    // A remainder of some other, longer file.
    fs::write(dir.path("file.part"), [&bytes[..], &[9; 100_000]].concat()).unwrap();
    assert_eq!(open_target(&mut disk, &place, &manifest).unwrap(), [true; 6]);
    assert_eq!(dir.path("file.part").metadata().unwrap().len(), bytes.len() as u64);
    close(&mut disk, &place);
    // One that was cut off behind the node's back.
    fs::write(dir.path("file.part"), &bytes[..2 * chunk + 10]).unwrap();
    let good = open_target(&mut disk, &place, &manifest).unwrap();
    assert_eq!(good, [true, true, false, false, false, false]);
}

#[test]
fn small_files_are_gone_on_with_too() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    for length in [1, 1000] {
        let bytes = content(1, length);
        let place = target(&dir, "small");
        fs::write(dir.path("small.part"), &bytes).unwrap();
        assert_eq!(open_target(&mut disk, &place, &manifest_of(&bytes)).unwrap(), [true]);
        assert_eq!(check(&mut disk, &place, &manifest_of(&content(2, length + 5))), [false]);
        close(&mut disk, &place);
    }
    let empty = target(&dir, "empty");
    assert_eq!(open_target(&mut disk, &empty, &manifest_of(b"")), Ok(Vec::new()));
    assert_eq!(fs::read(finished(&mut disk, &empty)).unwrap(), b"");
}

#[test]
fn a_sparse_file_of_five_gibibytes_is_hashed_and_its_holes_are_not_read_on_resuming() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let length = 5 << 30;
    fs::File::create(dir.path("source")).unwrap().set_len(length).unwrap();
    let source = Place::File(dir.path("source").into());
    let Ok(DiskReply::Hashed { manifest, .. }) =
        ask(&mut disk, DiskOp::Hash { place: source, passed: None, background: false })
    else {
        panic!();
    };
    assert_eq!(manifest.length(), length);
    assert_eq!(manifest.chunk_count(), 2560);
    let place = target(&dir, "sparse");
    let opened = open_target(&mut disk, &place, &manifest);
    assert_eq!(opened, Ok(Vec::new()), "the test takes 5 GiB of free space, but writes little of it");
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
    assert_eq!(good.iter().filter(|good| **good).count(), 1);
    assert!(good[7]);
    assert!(turns < 10, "4 MiB were read in {turns} turns of 1 MiB");
}

#[test]
fn a_target_that_cannot_be_written_fails_before_anything_is_fetched() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    fs::create_dir(dir.path("directory")).unwrap();
    dir.file("plain", b"");
    let cases = [
        ("directory", DiskErrorKind::Unsuitable),
        ("nowhere/file", DiskErrorKind::NotFound),
        ("plain/file", DiskErrorKind::NotFound),
    ];
    for (name, kind) in cases {
        let error = open_target(&mut disk, &target(&dir, name), &manifest_of(b"abc")).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[test]
fn a_different_file_at_the_target_is_replaced_only_by_force() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (old, new) = (content(1, 600_000), content(2, 600_000));
    let manifest = manifest_of(&new);
    let place = target(&dir, "file");
    for other in [&old[..], b"short"] {
        fs::write(dir.path("file"), other).unwrap();
        assert_eq!(open_target(&mut disk, &place, &manifest).unwrap_err().kind, DiskErrorKind::Exists);
        assert!(!dir.path("file.part").exists() && fs::read(dir.path("file")).unwrap() == other);
    }
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::write(dir.path("file"), [&new[..300_000], &old[300_000..]].concat()).unwrap();
    fs::set_permissions(dir.path("file"), mode(0o4750)).unwrap();
    let Ok(DiskReply::Opened { old, good, .. }) = open(&mut disk, &place, &manifest, true) else { panic!() };
    assert!(good.is_empty());
    assert_eq!(old, vec![true, false, false]);
    (0..3).for_each(|chunk| assert!(put_chunk(&disk, &place, &manifest, &new, chunk) != Key([0; 32])));
    assert_eq!(finished(&mut disk, &place), dir.path("file"));
    assert!(fs::read(dir.path("file")).unwrap() == new);
    assert_eq!(dir.path("file").metadata().unwrap().mode() & 0o7777, 0o750);
    for force in [false, true] {
        let there = open(&mut disk, &place, &manifest, force);
        assert!(matches!(there, Ok(DiskReply::Finished { .. })), "{there:?}");
    }
    assert!(!dir.path("file.part").exists());
}

#[test]
fn a_file_that_appears_at_the_target_is_not_replaced() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let place = target(&dir, "file");
    open_target(&mut disk, &place, &manifest_of(b"new")).unwrap();
    write(&mut disk, &place, b"new").unwrap();
    dir.file("file", b"mine");
    assert_eq!(kind(finish(&mut disk, &place)), DiskErrorKind::Exists);
    assert_eq!(fs::read(dir.path("file")).unwrap(), b"mine");
    assert_eq!(fs::read(dir.path("file.part")).unwrap(), b"new", "what came is kept");
}

#[test]
fn where_a_link_points_is_replaced_by_force_and_the_link_stays() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    fs::create_dir(dir.path("far")).unwrap();
    dir.file("far/outside", b"old");
    for (link, to) in [("link", "far/outside"), ("dangling", "far/new"), ("chain", "link")] {
        symlink(to, dir.path(link)).unwrap();
    }
    symlink("loop", dir.path("loop")).unwrap();
    let manifest = manifest_of(b"new");
    for (name, real) in [("link", "far/outside"), ("dangling", "far/new"), ("chain", "far/outside")] {
        let _ = fs::write(dir.path("far/outside"), b"old");
        let place = target(&dir, name);
        assert_eq!(open_target(&mut disk, &place, &manifest).unwrap_err().kind, DiskErrorKind::Exists);
        assert!(matches!(open(&mut disk, &place, &manifest, true), Ok(DiskReply::Opened { .. })));
        write(&mut disk, &place, b"new").unwrap();
        assert_eq!(finished(&mut disk, &place), dir.path(real));
        assert!(dir.path(name).symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(dir.path(name)).unwrap(), b"new");
    }
    let endless = open(&mut disk, &target(&dir, "loop"), &manifest, true);
    assert_eq!(kind(endless), DiskErrorKind::Unsuitable);
}

#[test]
fn two_downloads_do_not_write_into_one_file() {
    let dir = TestDir::new();
    let (mut first, _) = dir.open();
    let (mut second, ..) = Disk::open(&dir.path("other")).unwrap();
    let place = target(&dir, "file");
    open_target(&mut first, &place, &manifest_of(b"one")).unwrap();
    let error = open_target(&mut second, &place, &manifest_of(b"two")).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Locked);
    assert!(error.message.ends_with("file.part is being written by another download"), "{error}");
    let over = open(&mut second, &target(&dir, "file.part"), &manifest_of(b"two"), true);
    assert_eq!(kind(over), DiskErrorKind::Locked);
    write(&mut first, &place, b"one").unwrap();
    assert_eq!(fs::read(finished(&mut first, &place)).unwrap(), b"one");
    open_target(&mut second, &target(&dir, "else"), &manifest_of(b"two")).unwrap();
    close(&mut second, &target(&dir, "else"));
    open_target(&mut first, &target(&dir, "else"), &manifest_of(b"one")).unwrap();
}

#[test]
fn what_is_not_a_remainder_of_this_file_is_neither_adopted_nor_changed() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let foreign = content(9, 700_000);
    let other_name = format!("file.{}.part", &manifest.hash().to_string()[..16]);
    for what in ["another file's", "several names", "a link", "another owner's", "a pipe"] {
        let part = dir.path("file.part");
        let _ = fs::remove_file(&part);
        fs::write(dir.path("foreign"), &foreign).unwrap();
        match what {
            "another file's" => drop(fs::copy(dir.path("foreign"), &part).unwrap()),
            // They would be adopted but for this.
            "several names" | "a link" => {
                fs::write(dir.path("foreign"), &bytes).unwrap();
                match what {
                    "a link" => symlink(dir.path("foreign"), &part).unwrap(),
                    _ => fs::hard_link(dir.path("foreign"), &part).unwrap(),
                }
            }
            "a pipe" => {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                rustix::fs::mknodat(rustix::fs::CWD, &part, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            _ => {
                fs::write(&part, &bytes).unwrap();
                if std::os::unix::fs::chown(&part, Some(12_345), None).is_err() {
                    continue; // Only root gives files away.
                }
            }
        }
        let before = part.symlink_metadata().unwrap();
        let place = target(&dir, "file");
        assert_eq!(open_target(&mut disk, &place, &manifest), Ok(Vec::new()), "{what}");
        (0..3).for_each(|chunk| assert!(put_chunk(&disk, &place, &manifest, &bytes, chunk) != Key([0; 32])));
        assert!(dir.path(&other_name).exists(), "{what}");
        assert!(fs::read(finished(&mut disk, &place)).unwrap() == bytes, "{what}");
        let after = part.symlink_metadata().unwrap();
        assert_eq!(before.ino(), after.ino());
        assert_eq!(before.len(), after.len());
        assert_eq!(before.mtime(), after.mtime());
        fs::remove_file(dir.path("file")).unwrap();
    }
    // What is in the way of the other name, which is this file's alone, is of no use.
    fs::write(dir.path(&other_name), &foreign).unwrap();
    fs::remove_file(dir.path("file.part")).unwrap();
    fs::write(dir.path("file.part"), &foreign).unwrap();
    let place = target(&dir, "file");
    assert_eq!(open_target(&mut disk, &place, &manifest), Ok(Vec::new()));
    assert_eq!(dir.path(&other_name).metadata().unwrap().blocks(), 0);
}

/// A file of three chunks that has come, and what another program does to it before it gets its name.
fn spoil(act: impl FnOnce(&TestDir, &Path)) -> (TestDir, Disk, Place, Vec<u8>, Result<DiskReply, DiskError>) {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "file");
    open_target(&mut disk, &place, &manifest).unwrap();
    (0..3).for_each(|chunk| assert!(put_chunk(&disk, &place, &manifest, &bytes, chunk) != Key([0; 32])));
    act(&dir, &dir.path("file.part"));
    let result = finish(&mut disk, &place);
    (dir, disk, place, bytes, result)
}

#[test]
fn chunks_that_another_program_wrote_over_are_found_and_come_again() {
    let zeros = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0; 1000], 300_000).unwrap();
    };
    let (dir, mut disk, place, bytes, result) = spoil(|_, path| zeros(path));
    assert_eq!(result, Ok(DiskReply::Spoiled { good: vec![true, false, true] }));
    let manifest = manifest_of(&bytes);
    put_chunk(&disk, &place, &manifest, &bytes, 1);
    zeros(&dir.path("file.part"));
    assert_eq!(finish(&mut disk, &place), Ok(DiskReply::Spoiled { good: vec![true, false, true] }));
    put_chunk(&disk, &place, &manifest, &bytes, 1);
    assert!(fs::read(finished(&mut disk, &place)).unwrap() == bytes);
}

#[test]
fn a_target_that_was_cut_off_is_found_although_it_grew_again() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "file");
    open_target(&mut disk, &place, &manifest).unwrap();
    put_chunk(&disk, &place, &manifest, &bytes, 0);
    // By its name, so that the file is not opened.
    rustix::fs::open(dir.path("file.part"), OFlags::WRONLY | OFlags::TRUNC, rustix::fs::Mode::empty())
        .unwrap();
    let extent = Extent { place: place.clone(), offset: 0, length: 1000, stamp: None };
    assert!(disk.open_extent(&extent).is_err(), "it is too short to be served");
    put_chunk(&disk, &place, &manifest, &bytes, 1);
    put_chunk(&disk, &place, &manifest, &bytes, 2);
    assert!(disk.open_extent(&extent).is_err(), "what another program changed is not served");
    assert_eq!(finish(&mut disk, &place), Ok(DiskReply::Spoiled { good: vec![false, true, true] }));
    assert!(disk.open_extent(&extent).is_ok(), "only what was just hashed is counted as good");
    put_chunk(&disk, &place, &manifest, &bytes, 0);
    assert!(fs::read(finished(&mut disk, &place)).unwrap() == bytes);
}

#[test]
fn a_chunk_in_which_another_program_may_have_written_is_not_judged_by_what_the_file_has() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 100_000);
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "file");
    open_target(&mut disk, &place, &manifest).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let sink = Sink { place: place.clone(), offset: 0, length: 100_000, hash_as: manifest.hash_as(0) };
    let mut intake = Intake::new(Way::Spliced);
    let mut receive = |disk: &Disk, act: &dyn Fn()| {
        let mut open = disk.open_sink(&sink).unwrap();
        far.write_all(&bytes[..50_000]).unwrap();
        while open.remaining() > 50_000 {
            open.receive(&near, &mut intake).unwrap();
        }
        act();
        far.write_all(&bytes[50_000..]).unwrap();
        while open.remaining() > 0 {
            open.receive(&near, &mut intake).unwrap();
        }
        open.finish()
    };
    let wrong = || {
        let file = fs::OpenOptions::new().write(true).open(dir.path("file.part")).unwrap();
        file.write_all_at(&[7; 90_000], 1000).unwrap();
        file.set_len(10).unwrap();
    };
    assert_eq!(receive(&disk, &|| ()), Ok(manifest.hash()));
    assert_eq!(receive(&disk, &wrong).unwrap_err().kind, DiskErrorKind::Changed);
    // From now on it is hashed as it came, whatever the other program does.
    assert_eq!(receive(&disk, &wrong), Ok(manifest.hash()));
    assert_eq!(finish(&mut disk, &place), Ok(DiskReply::Spoiled { good: vec![false] }));
    assert_eq!(receive(&disk, &|| ()), Ok(manifest.hash()));
    assert!(fs::read(finished(&mut disk, &place)).unwrap() == bytes);
}

#[test]
fn a_mere_reader_costs_a_second_hashing_and_nothing_more() {
    let (_dir, _disk, _place, bytes, result) = spoil(|_, path| assert!(fs::read(path).is_ok()));
    let Ok(DiskReply::Finished { path, .. }) = result else { panic!("{result:?}") };
    assert!(fs::read(path).unwrap() == bytes);
}

#[test]
fn a_target_that_was_removed_or_replaced_never_gets_the_name() {
    let remove = |_: &TestDir, path: &Path| fs::remove_file(path).unwrap();
    let replace = |dir: &TestDir, path: &Path| {
        fs::write(dir.path("other"), content(2, 600_000)).unwrap();
        fs::rename(dir.path("other"), path).unwrap();
    };
    let move_away = |dir: &TestDir, path: &Path| fs::rename(path, dir.path("away")).unwrap();
    for act in [&remove as &dyn Fn(&TestDir, &Path), &replace, &move_away] {
        let (dir, mut disk, place, bytes, result) = spoil(act);
        let error = result.unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Lost);
        assert!(error.message.ends_with("file.part was removed or replaced during the download"), "{error}");
        assert!(!dir.path("file").exists());
        let left = dir.path("file.part").exists();
        ask(&mut disk, DiskOp::CloseTarget { place: place.clone(), delete: true }).unwrap();
        assert_eq!(dir.path("file.part").exists(), left, "it is another program's");
        assert_eq!(kind(write(&mut disk, &place, &bytes)), DiskErrorKind::Lost);
    }
    // While it is under way it is noticed with the next bytes, unless the file only moved.
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let place = target(&dir, "file");
    open_target(&mut disk, &place, &manifest_of(b"abc")).unwrap();
    fs::remove_file(dir.path("file.part")).unwrap();
    assert_eq!(kind(write(&mut disk, &place, b"abc")), DiskErrorKind::Lost);
}

#[test]
fn names_of_any_length_can_be_fetched() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    for length in [250, 251, 252, 255] {
        let name = "n".repeat(length);
        let place = target(&dir, &name);
        open_target(&mut disk, &place, &manifest_of(b"abc")).unwrap();
        write(&mut disk, &place, b"abc").unwrap();
        close(&mut disk, &place);
        assert_eq!(open_target(&mut disk, &place, &manifest_of(b"abc")), Ok(vec![true]), "{length}");
        assert_eq!(finished(&mut disk, &place), dir.path(&name));
    }
    let error = open_target(&mut disk, &target(&dir, &"n".repeat(256)), &manifest_of(b"abc")).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Unsuitable, "{error}");
}

#[test]
fn runs_of_zeros_become_holes() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let mut bytes = vec![0; 8 << 20];
    bytes[3 << 20..][..5000].copy_from_slice(&content(1, 5000));
    let manifest = manifest_of(&bytes);
    let place = target(&dir, "sparse");
    open_target(&mut disk, &place, &manifest).unwrap();
    for chunk in 0..manifest.chunk_count() {
        assert_eq!(put_chunk(&disk, &place, &manifest, &bytes, chunk), manifest.keys()[chunk as usize]);
    }
    let taken = dir.path("sparse.part").metadata().unwrap().blocks() * 512;
    assert!(fs::read(finished(&mut disk, &place)).unwrap() == bytes);
    assert!(taken < 1 << 20, "{taken} bytes are taken");
}

#[test]
fn the_cache_is_filled_in_place_and_emptied_with_its_share() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 300_000);
    let manifest = manifest_of(&bytes);
    let place = Place::Cache(manifest.hash());
    open_target(&mut disk, &place, &manifest).unwrap();
    (0..2).for_each(|chunk| assert!(put_chunk(&disk, &place, &manifest, &bytes, chunk) != Key([0; 32])));
    let path = disk.path_of(&place);
    assert_eq!(finished(&mut disk, &place), path);
    let share = share_of(&bytes, &place, &disk);
    save(&mut disk, &share, &bytes);
    drop(disk);
    let (mut disk, recovered) = dir.open();
    assert_eq!(recovered.shares, std::slice::from_ref(&share));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    ask(&mut disk, DiskOp::RemoveShare { share, last: true }).unwrap();
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
    open_target(&mut disk, &place, &manifest).unwrap();
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
    let opened = open(&mut disk, &partial, &manifest_of(b"other"), true);
    assert!(matches!(opened, Ok(DiskReply::Opened { .. })), "{opened:?}");
    assert_eq!(ask(&mut disk, DiskOp::Remove(partial)), Ok(DiskReply::Done));
    assert_eq!(fs::read(dir.path("mine")).unwrap(), b"mine");
    assert!(!dir.path("mine.part").exists());
}

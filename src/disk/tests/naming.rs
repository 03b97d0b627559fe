//! The moment at which a download gets its name: what other programs do to it just then, and what mode it has.

use super::power_loss::record::{self, Kind};
use super::targets::{close, finish, finished, open, open_target, put_chunk, target};
use super::*;
use std::cell::Cell;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

/// A file of three chunks that has come, and is to be called "file".
struct Come {
    dir: TestDir,
    disk: Disk,
    place: Place,
    bytes: Vec<u8>,
    manifest: Arc<Manifest>,
}

impl Come {
    fn new(force: bool) -> Come {
        let dir = TestDir::new();
        let (mut disk, _) = dir.open();
        let bytes = content(1, 600_000);
        let manifest = manifest_of(&bytes);
        let place = target(&dir, "file");
        open(&mut disk, &place, &manifest, force).unwrap();
        put_all(&disk, &place, &manifest, &bytes);
        Come { dir, disk, place, bytes, manifest }
    }

    /// Finishes it. `act` is done once, with the name that is given, when the first rename is about to be made, and `again` when the
    /// second is.
    fn finish_while(
        &mut self,
        act: impl Fn(&Path) + 'static,
        again: impl Fn(&Path) + 'static,
    ) -> Result<DiskReply, DiskError> {
        let renames = Cell::new(0);
        record::plan(move |attempt| {
            if attempt.kind == Kind::Rename {
                match renames.replace(renames.get() + 1) {
                    0 => act(attempt.path),
                    1 => again(attempt.path),
                    _ => {}
                }
            }
            None
        });
        let result = finish(&mut self.disk, &self.place);
        record::end_plan();
        result
    }
}

fn put_all(disk: &Disk, place: &Place, manifest: &Manifest, bytes: &[u8]) {
    for chunk in 0..manifest.chunk_count() {
        assert_eq!(put_chunk(disk, place, manifest, bytes, chunk), manifest.keys()[chunk as usize]);
    }
}

/// A program that has the file open, and writes zeros over some of the second chunk.
fn writer(dir: &TestDir) -> impl Fn(&Path) + 'static {
    let file = fs::OpenOptions::new().write(true).open(dir.path("file.part")).unwrap();
    move |_| file.write_all_at(&[0; 1000], 300_000).unwrap()
}

fn nothing(_: &Path) {}

#[test]
fn a_name_that_is_given_to_content_that_is_changed_just_then_is_taken_back() {
    let mut come = Come::new(false);
    let writer = writer(&come.dir);
    let result = come.finish_while(writer, nothing);
    assert_eq!(result, Ok(DiskReply::Spoiled { good: vec![true, false, true] }));
    assert!(!come.dir.path("file").exists());
    assert!(come.dir.path("file.part").exists());
    // What is wrong comes again, and then it gets its name for good.
    put_chunk(&come.disk, &come.place, &come.manifest, &come.bytes, 1);
    assert!(fs::read(finished(&mut come.disk, &come.place)).unwrap() == come.bytes);
    assert!(!come.dir.path("file.part").exists());
}

#[test]
fn a_program_that_reads_the_file_as_it_gets_its_name_changes_nothing() {
    let mut come = Come::new(false);
    let part = come.dir.path("file.part");
    let result = come.finish_while(move |_| assert!(fs::read(&part).is_ok()), nothing);
    assert!(matches!(result, Ok(DiskReply::Finished { .. })), "{result:?}");
    assert!(fs::read(come.dir.path("file")).unwrap() == come.bytes);
}

#[test]
fn a_name_that_cannot_be_taken_back_is_said_not_to_be_used() {
    let mut come = Come::new(false);
    let writer = writer(&come.dir);
    let error = come.finish_while(writer, |part| fs::write(part, "taken").unwrap()).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Lost);
    assert!(error.message.contains("has wrong content: do not use it"), "{error}");
    assert_eq!(fs::read(come.dir.path("file.part")).unwrap(), b"taken");
}

#[test]
fn of_two_names_the_final_one_goes_when_the_content_is_wrong() {
    let mut come = Come::new(true);
    let (writer, part) = (writer(&come.dir), come.dir.path("file.part"));
    let both = move |name: &Path| {
        writer(name);
        fs::hard_link(&part, name).unwrap();
    };
    let result = come.finish_while(both, nothing);
    assert_eq!(result, Ok(DiskReply::Spoiled { good: vec![true, false, true] }));
    assert!(!come.dir.path("file").exists());
    assert_eq!(come.dir.path("file.part").metadata().unwrap().nlink(), 1);
}

#[test]
fn a_second_name_that_a_download_has_already_is_its_only_one_in_the_end() {
    let mut come = Come::new(true);
    fs::hard_link(come.dir.path("file.part"), come.dir.path("file")).unwrap();
    assert_eq!(finished(&mut come.disk, &come.place), come.dir.path("file"));
    assert!(!come.dir.path("file.part").exists());
}

#[test]
fn a_file_in_the_cache_that_is_changed_at_the_end_is_filled_again() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let bytes = content(1, 600_000);
    let manifest = manifest_of(&bytes);
    let place = Place::Cache(manifest.hash());
    open_target(&mut disk, &place, &manifest).unwrap();
    put_all(&disk, &place, &manifest, &bytes);
    let path = disk.path_of(&place);
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0; 9], 0).unwrap();
    assert_eq!(finish(&mut disk, &place), Ok(DiskReply::Spoiled { good: vec![false, true, true] }));
    assert!(path.exists(), "it has no other name");
}

#[test]
fn a_program_that_opens_the_file_again_and_again_only_to_read_holds_nothing_up() {
    let mut come = Come::new(false);
    let part = come.dir.path("file.part");
    assert!(fs::read(&part).is_ok());
    come.disk.submit(DiskId(1), DiskOp::FinishTarget { place: come.place.clone() });
    let mut reads = 0;
    while come.disk.has_work() {
        come.disk.run(1);
        reads += u32::from(fs::File::open(&part).is_ok());
        assert!(reads < 1_000_000, "it never ends");
    }
    let done = drain(&mut come.disk).remove(0).result;
    assert!(matches!(done, Ok(DiskReply::Finished { .. })), "{done:?}");
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn open_with_mode(
    disk: &mut Disk,
    place: &Place,
    manifest: &Arc<Manifest>,
    bits: u32,
    force: bool,
) -> DiskReply {
    let (place, manifest, permissions) =
        (place.clone(), manifest.clone(), Permissions::Exact(Mode::of(bits)));
    ask(disk, DiskOp::OpenTarget { place, manifest, force, permissions, tree: None }).unwrap()
}

#[test]
fn a_file_has_the_mode_that_was_asked_for_and_its_owner_writes_until_then() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (bytes, place) = (content(1, 600_000), target(&dir, "file"));
    let manifest = manifest_of(&bytes);
    for bits in [0o600, 0o444, 0o777, 0o000] {
        let part = dir.path("file.part");
        open_with_mode(&mut disk, &place, &manifest, bits, false);
        assert_eq!(mode_of(&part), bits | 0o600, "{bits:o}");
        // Another attempt goes on.
        put_chunk(&disk, &place, &manifest, &bytes, 0);
        close(&mut disk, &place);
        let again = open_with_mode(&mut disk, &place, &manifest, bits, false);
        assert!(
            matches!(&again, DiskReply::Opened { good, .. } if good[..] == [true, false, false]),
            "{again:?}"
        );
        put_chunk(&disk, &place, &manifest, &bytes, 1);
        put_chunk(&disk, &place, &manifest, &bytes, 2);
        assert_eq!(mode_of(&finished(&mut disk, &place)), bits, "{bits:o}");
        fs::remove_file(dir.path("file")).unwrap();
    }
}

#[test]
fn the_mode_that_was_asked_for_holds_for_a_file_that_is_replaced_or_was_there() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (bytes, place) = (content(1, 600_000), target(&dir, "file"));
    let manifest = manifest_of(&bytes);
    fs::write(dir.path("file"), "old").unwrap();
    fs::set_permissions(dir.path("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    open_with_mode(&mut disk, &place, &manifest, 0o640, true);
    put_all(&disk, &place, &manifest, &bytes);
    assert_eq!(mode_of(&finished(&mut disk, &place)), 0o640);
    match open_with_mode(&mut disk, &place, &manifest, 0o400, false) {
        DiskReply::Finished { stamp, path } => {
            assert_eq!(mode_of(&path), 0o400);
            assert_eq!(stamp, extent::stamp_of(&path.metadata().unwrap()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_earlier_attempt_left_with_a_set_user_id_bit_loses_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (bytes, place) = (content(1, 100_000), target(&dir, "file"));
    fs::write(dir.path("file.part"), &bytes).unwrap();
    fs::set_permissions(dir.path("file.part"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(open_target(&mut disk, &place, &manifest_of(&bytes)), Ok(vec![true]));
    assert_eq!(mode_of(&finished(&mut disk, &place)), 0o755);
}

/// Opens the target at `name` below a root, as one of a set.
fn open_in_tree(
    come: (&TestDir, &mut Disk),
    name: &str,
    manifest: &Arc<Manifest>,
    modified: Option<i64>,
) -> Result<DiskReply, DiskError> {
    let (dir, disk) = come;
    let tree = Some(Tree { root: dir.path("root").into(), modified });
    let (place, manifest) = (target(dir, &format!("root/{name}")), manifest.clone());
    let permissions = Permissions::Exact(Mode::of(0o640));
    ask(disk, DiskOp::OpenTarget { place, manifest, force: true, permissions, tree })
}

#[test]
fn a_file_of_a_tree_is_not_written_through_a_link_out_of_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let manifest = manifest_of(&content(1, 600_000));
    fs::create_dir_all(dir.path("root/d/e")).unwrap();
    fs::create_dir(dir.path("outside")).unwrap();
    fs::write(dir.path("outside/file"), "mine").unwrap();
    symlink(dir.path("outside"), dir.path("root/d/out")).unwrap();
    symlink("e", dir.path("root/d/in")).unwrap();
    symlink(dir.path("outside/file"), dir.path("root/d/file")).unwrap();
    for name in ["d/out/new", "d/in/new", "d/file", "d/out"] {
        let refused = open_in_tree((&dir, &mut disk), name, &manifest, None).unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{name}: {refused}");
    }
    assert_eq!(kind(open_in_tree((&dir, &mut disk), "none/new", &manifest, None)), DiskErrorKind::NotFound);
    assert!(open_in_tree((&dir, &mut disk), "d/e/new", &manifest, None).is_ok());
    assert_eq!(fs::read(dir.path("outside/file")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(dir.path("outside")).unwrap().count(), 1);
}

#[test]
fn a_file_of_a_tree_leaves_the_file_alone_that_has_its_name_and_part() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (bytes, place) = (content(1, 600_000), target(&dir, "root/a"));
    let manifest = manifest_of(&bytes);
    fs::create_dir(dir.path("root")).unwrap();
    // Without data, and with data of the requested file.
    for other in [&b""[..], &bytes] {
        fs::write(dir.path("root/a"), "old").unwrap();
        fs::write(dir.path("root/a.part"), other).unwrap();
        let opened = open_in_tree((&dir, &mut disk), "a", &manifest, None).unwrap();
        assert!(matches!(opened, DiskReply::Opened { .. }));
        put_all(&disk, &place, &manifest, &bytes);
        finished(&mut disk, &place);
        assert!(fs::read(dir.path("root/a")).unwrap() == bytes);
        assert!(fs::read(dir.path("root/a.part")).unwrap() == other);
        assert_eq!(fs::read_dir(dir.path("root")).unwrap().count(), 2);
    }
}

#[test]
fn a_file_of_a_tree_gets_its_time_before_its_name_and_is_not_hashed_again_for_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let (bytes, place) = (content(1, 600_000), target(&dir, "root/file"));
    let manifest = manifest_of(&bytes);
    fs::create_dir(dir.path("root")).unwrap();
    open_in_tree((&dir, &mut disk), "file", &manifest, Some(-7)).unwrap();
    put_all(&disk, &place, &manifest, &bytes);
    disk.submit(DiskId(1), DiskOp::FinishTarget { place });
    let DiskReply::Finished { path, stamp } = drain(&mut disk).remove(0).result.unwrap() else { panic!() };
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec(), metadata.len()), (-7, 0, 600_000));
    assert_eq!(stamp, extent::stamp_of(&metadata));
    // The same content with another time.
    let again = open_in_tree((&dir, &mut disk), "file", &manifest, Some(1_000_000_000)).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.mtime(), 1_000_000_000);
    assert_eq!(again, DiskReply::Finished { stamp: extent::stamp_of(&metadata), path });
}

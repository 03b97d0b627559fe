//! Which files become shares, and which are refused.

use super::*;
use crate::io::PassedId;
use std::os::unix::fs::symlink;
use std::path::Path;

fn hash(disk: &mut Disk, path: &Path, passed: Option<u64>) -> Result<DiskReply, DiskError> {
    ask(
        disk,
        DiskOp::Hash { place: Place::File(path.into()), passed: passed.map(PassedId), background: false },
    )
}

#[track_caller]
fn refused(result: Result<DiskReply, DiskError>, kind: DiskErrorKind, words: &str) {
    let error = result.expect_err("it is refused");
    assert!(error.kind == kind && error.message.contains(words), "{error:?}");
}

#[test]
fn what_the_kernel_makes_up_is_refused_and_an_empty_file_is_not() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    for path in ["/proc/cpuinfo", "/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        if Path::new(path).exists() {
            refused(
                hash(&mut disk, Path::new(path), None),
                DiskErrorKind::Unsuitable,
                "copy it to a regular file",
            );
        }
    }
    dir.file("empty", b"");
    assert!(hash(&mut disk, &dir.path("empty"), None).is_ok());
}

#[test]
fn the_nodes_own_files_are_refused_under_every_name() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let key = dir.path("node/identity.key");
    fs::write(dir.path("node/pieces/stray"), "x").unwrap();
    symlink(&key, dir.path("link")).unwrap();
    symlink(dir.path("link"), dir.path("link to a link")).unwrap();
    symlink(dir.path("node"), dir.path("directory")).unwrap();
    fs::hard_link(&key, dir.path("hard")).unwrap();
    fs::hard_link(dir.path("node/ages"), dir.path("hard ages")).unwrap();
    for name in [
        "node/identity.key",
        "node/ages",
        "node/../node/identity.key",
        "node/pieces/stray",
        "link",
        "link to a link",
        "directory/identity.key",
        "directory/pieces/stray",
        "hard",
        "hard ages",
    ] {
        refused(
            hash(&mut disk, &dir.path(name), None),
            DiskErrorKind::Unsuitable,
            "one of the node's own files",
        );
    }
    dir.file("near the node", b"x");
    assert!(hash(&mut disk, &dir.path("near the node"), None).is_ok());
}

#[test]
fn no_download_goes_into_the_nodes_directory() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    symlink(dir.path("node"), dir.path("directory")).unwrap();
    symlink(dir.path("node/identity.key"), dir.path("link")).unwrap();
    for name in ["node/new", "node/identity.key", "node/cache/new", "directory/new", "link"] {
        let place = Place::Partial(dir.path(name).into());
        let result = ask(&mut disk, open_target(&place, &manifest_of(b"x"), true));
        refused(result, DiskErrorKind::Unsuitable, "the node's own directory");
    }
    assert!(!dir.path("node/new.part").exists());
}

#[test]
fn a_passed_descriptor_counts_when_the_path_leads_to_its_file() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    dir.file("a", b"a");
    dir.file("b", b"b");
    let pass = |disk: &mut Disk, number, name| {
        disk.pass(PassedId(number), fs::File::open(dir.path(name)).unwrap().into());
    };
    pass(&mut disk, 1, "a");
    let Ok(DiskReply::Hashed { manifest, kept_open, .. }) = hash(&mut disk, &dir.path("a"), Some(1)) else {
        panic!("it is the same file");
    };
    assert_eq!(manifest.hash(), key_of(b"a"));
    assert!(!kept_open);
    assert_eq!(disk.passed_count(), 0);

    pass(&mut disk, 2, "a");
    refused(hash(&mut disk, &dir.path("b"), Some(2)), DiskErrorKind::Unsuitable, "to another file than you");
    pass(&mut disk, 3, "a");
    refused(hash(&mut disk, &dir.path("none"), Some(3)), DiskErrorKind::NotFound, "No such file");
    pass(&mut disk, 4, "a");
    fs::remove_file(dir.path("a")).unwrap();
    refused(hash(&mut disk, &dir.path("a"), Some(4)), DiskErrorKind::NotFound, "no name");
    pass(&mut disk, 5, ".");
    refused(hash(&mut disk, &dir.path("."), Some(5)), DiskErrorKind::Unsuitable, "not a regular file");
    // A number that nothing was passed under is as good as none.
    assert!(hash(&mut disk, &dir.path("b"), Some(6)).is_ok());
    pass(&mut disk, 7, "b");
    disk.drop_passed(PassedId(7));
    assert_eq!(disk.passed_count(), 0);
}

#[test]
fn a_file_that_only_its_descriptor_reaches_is_served_from_that_up_to_the_bound() {
    let dir = TestDir::new();
    dir.file("a", b"a");
    dir.file("b", b"b");
    let source = |name: &str, only_passed| {
        let (path, own) = (dir.path(name), Own::new(&Layout::new(dir.path("node"))));
        let source = Source::open(path, None, &own).unwrap();
        Source { only_passed, ..source }
    };
    let mut kept = Kept::default();
    kept.set_most(1);
    kept.hashed(&source("a", true)).unwrap();
    let place = |name: &str| Place::File(dir.path(name).into());
    let (_, metadata) = kept.open(&place("a")).expect("it is kept").unwrap();
    assert_eq!(metadata.len(), 1);
    assert_eq!(kept.hashed(&source("b", true)).unwrap_err().kind, DiskErrorKind::Denied);
    assert!(kept.open(&place("b")).is_none());
    // Once more is not one more.
    kept.hashed(&source("a", true)).unwrap();
    fs::remove_file(dir.path("a")).unwrap();
    assert_eq!(kept.open(&place("a")).unwrap().unwrap_err().kind, DiskErrorKind::NotFound);
    kept.forget(&place("a"));
    assert!(kept.open(&place("a")).is_none());
    kept.hashed(&source("b", true)).unwrap();
    // The node may open it now.
    kept.hashed(&source("b", false)).unwrap();
    assert!(kept.open(&place("b")).is_none());
}

#[test]
fn many_files_are_open_a_few_at_a_time_and_each_is_answered_for_what_became_of_it() {
    let dir = TestDir::new();
    let (mut disk, _) = dir.open();
    let count = 400;
    for number in 0..count {
        dir.file(&number.to_string(), &content(number as u8, 100 + number as usize));
    }
    for number in 0..count {
        let place = Place::File(dir.path(&number.to_string()).into());
        disk.submit(DiskId(number), DiskOp::Hash { place, passed: None, background: false });
    }
    let (mut turns, mut ends) = (0, Vec::new());
    while disk.has_work() {
        disk.run(BUDGET);
        turns += 1;
        assert!(turns < 1000, "it never ends");
        assert!(disk.turns.open_count() <= 128);
        if turns == 1 {
            // It has been read, and not been answered for.
            fs::write(dir.path("0"), "changed").unwrap();
        }
        ends.extend(core::iter::from_fn(|| disk.poll_done()));
    }
    assert_eq!(ends.len() as u64, count);
    for DiskDone { id, result } in ends {
        match result {
            Ok(DiskReply::Hashed { manifest, .. }) => {
                assert_eq!(manifest.hash(), key_of(&content(id.0 as u8, 100 + id.0 as usize)));
            }
            Err(error) => assert!(id.0 == 0 && error.kind == DiskErrorKind::Changed, "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
}

//! Downloads: parts of files, from many sources at once, from sources that come and go, within limits.

use crate::network::{Node, Swarm, file, wait_for};
use crate::support::Scratch;
use elver::node::command::{Command, FailureReason, Reply, Response, Stage};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;

#[test]
fn a_part_of_a_file_comes_without_the_rest() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 40, 16 * MIB + 5);
    let bytes = fs::read(&source).unwrap();
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let reader = &swarm.nodes[1];
    let read = |arguments: &[&str]| reader.elver(&[&["get", &hash, "-o", "-"], arguments].concat());
    let first = read(&["--range", "262143-262144"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert_eq!(&first.stdout[..], &bytes[262_143..262_145], "{}", first.stderr);
    let last = read(&["--range", "-7"]);
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert_eq!(&last.stdout[..], &bytes[bytes.len() - 7..], "{}", last.stderr);
    let middle = read(&["--offset", "8MiB", "--length", "1"]);
    assert_eq!(middle.code, Some(0), "{}", middle.stderr);
    assert_eq!(&middle.stdout[..], &bytes[8 * MIB..8 * MIB + 1], "{}", middle.stderr);
    let beyond = read(&["--range", "99999999-"]);
    assert_eq!(beyond.code, Some(2), "{}", beyond.stderr);
    // Four chunks, and the manifest.
    let most = 4 * (256 << 10) + (64 << 10);
    assert!(reader.status().downloaded_bytes <= most, "{}", reader.status().downloaded_bytes);
    let target = swarm.dir.path().join("part");
    let (code, said) = reader.get(&hash, &target, &["--range", "10-19"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(&target).unwrap(), &bytes[10..20]);
    // The part that the node has does not prevent a fetch of the whole.
    let whole = swarm.dir.path().join("whole");
    let (code, said) = reader.get(&hash, &whole, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&whole).unwrap() == bytes);
}

#[test]
fn an_older_version_at_the_target_gives_what_has_not_changed() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 41, 8 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let target = swarm.dir.path().join("target");
    let mut older = fs::read(&source).unwrap();
    older[3 * MIB..3 * MIB + 100].fill(0);
    older.truncate(7 * MIB);
    fs::write(&target, older).unwrap();
    let (code, said) = swarm.nodes[1].get(&hash, &target, &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
    // One chunk differs, and four are missing.
    let came = swarm.nodes[1].status().downloaded_bytes;
    assert!(came < 6 * (256 << 10), "{came} bytes came");
}

#[test]
fn a_download_goes_on_when_its_only_source_comes_back() {
    let swarm = Swarm::start_with(2, &["--upload-rate", "8MiB"]);
    let source = file(&swarm.dir, "source", 42, 24 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]).parse().unwrap();
    let Swarm { mut nodes, dir } = swarm;
    let reader = nodes.pop().unwrap();
    let target = dir.path().join("target");
    let command =
        Command::Get { hash, target: Some(target.clone()), force: false, mode: None, timeout: None };
    let (addr, mut restarted, mut done) = (nodes[0].addr, None, false);
    reader.request_with(&command, |response| match response {
        Response::Progress(progress) => {
            if restarted.is_none() && progress.stage == Stage::Downloading && progress.done > MIB as u64 {
                nodes[0].kill();
                restarted = Some(Node::start_at(dir.path().join("n0"), addr, &[reader.addr], &[]));
            }
            true
        }
        Response::Done(Reply::Get { .. }) => {
            done = true;
            false
        }
        other => panic!("{other:?}"),
    });
    assert!(done && restarted.is_some(), "{}", reader.log());
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn seven_that_fetch_from_one_take_from_each_other() {
    let swarm = Swarm::start(8);
    let length = 64 * MIB;
    let source = file(&swarm.dir, "source", 43, length);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    std::thread::scope(|scope| {
        for node in &swarm.nodes[1..] {
            let (hash, target) = (&hash, node.dir.with_extension("target"));
            scope.spawn(move || {
                let (code, said) = node.get(hash, &target, &[]);
                assert_eq!(code, Some(0), "{said}");
            });
        }
    });
    let bytes = fs::read(&source).unwrap();
    for node in &swarm.nodes[1..] {
        assert!(fs::read(node.dir.with_extension("target")).unwrap() == bytes);
    }
    // Without exchange among the readers, the source would send seven times the length. The exact share depends on the load of
    // the machine.
    let sent = swarm.nodes[0].status().uploaded_bytes;
    assert!(sent < 3 * length as u64, "{sent} bytes of {length}");
}

#[test]
fn limits_hold_at_once_and_are_shown() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 44, 3 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let limited =
        swarm.nodes[0].elver(&["limit", "--upload", "1MiB", "--peer-upload", "16MiB", "--uploads", "2"]);
    assert_eq!(limited.code, Some(0), "{}", limited.stderr);
    assert!(
        limited.text().contains("1.0 MiB/s out") && limited.text().contains("2 uploads"),
        "{}",
        limited.text()
    );
    let status = swarm.nodes[0].status();
    assert_eq!(status.rates.upload, 1 << 20);
    assert_eq!(status.rates.download, 0);
    assert_eq!(status.uploads_max, 2);
    // Only the limit slows this download: in any period the source sends no more than the limit allows.
    let target = swarm.dir.path().join("target");
    let command = Command::Get {
        hash: hash.parse().unwrap(),
        target: Some(target.clone()),
        force: false,
        mode: None,
        timeout: None,
    };
    let began = std::time::Instant::now();
    let mut most = 0.0_f64;
    swarm.nodes[1].request_with(&command, |response| match response {
        Response::Progress(progress) => {
            most = most.max(progress.done as f64 - began.elapsed().as_secs_f64() * 1e6 * 1.05);
            true
        }
        other => {
            assert!(matches!(other, Response::Done(_)), "{other:?}");
            false
        }
    });
    assert!(most < 1e6, "{most} bytes more than the rate allows");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
    assert_eq!(swarm.nodes[0].elver(&["limit", "--streams", "33", "--upload", "0"]).code, Some(0));
    wait_for("the new limits", || swarm.nodes[0].status().streams_max == 33);
    assert_eq!(swarm.nodes[0].elver(&["limit", "--upload", "5"]).code, Some(2));
}

#[test]
fn a_full_disk_ends_a_download_that_goes_on_when_there_is_room() {
    let (dir, length) = (Scratch::new(), 32 * MIB);
    let source = file(&dir, "source", 47, length);
    let seed = Node::start(dir.path().join("seed"), &[], &["--upload-rate", "16MiB"]);
    let hash = seed.put(&source, &["--replicas", "0"]);
    let small = 40 * MIB as u64;
    let reader = Node::start_beside_small_disk(dir.path().join("reader"), small, &[seed.addr]);
    wait_for("the seed to be known", || reader.status().peers >= 1);
    let target = reader.dir.with_file_name("small").join("target");
    let seen = |path: &Path| PathBuf::from(format!("/proc/{}/root{}", reader.pid(), path.display()));
    let filler = seen(&reader.dir.with_file_name("small").join("filler"));
    let fill = |bytes: usize| {
        let mut filler = fs::File::options().create(true).append(true).open(&filler).unwrap();
        let block = vec![1; 64 << 10];
        (0..bytes / block.len()).take_while(|_| filler.write_all(&block).is_ok()).count() * block.len()
    };

    // The disk is full from the start: the node fetches no chunk.
    assert_eq!(fill(20 * MIB), 20 * MIB);
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(7), "{said}");
    assert!(reader.status().downloaded_bytes < 64 << 10, "more than the manifest: {said}");
    fs::remove_file(&filler).unwrap();

    // The disk fills up during the download.
    let command = Command::Get {
        hash: hash.parse().unwrap(),
        target: Some(target.clone()),
        force: false,
        mode: None,
        timeout: None,
    };
    let (mut filled, mut failed) = (false, None);
    reader.request_with(&command, |response| match response {
        Response::Progress(progress) => {
            if !filled && progress.stage == Stage::Downloading && progress.done > 2 * MIB as u64 {
                filled = fill(small as usize) > 0;
            }
            true
        }
        Response::Failed(failure) => {
            failed = Some(failure);
            false
        }
        other => panic!("{other:?}"),
    });
    let failure = failed.expect("the disk is full");
    assert_eq!(failure.reason, FailureReason::NoSpace, "{}", failure.message);
    assert!(!seen(&target).exists(), "what is not whole does not have the name");

    // The disk has room again: the node does not fetch a verified chunk twice.
    fs::remove_file(&filler).unwrap();
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(seen(&target)).unwrap() == fs::read(&source).unwrap());
    let came = reader.status().downloaded_bytes;
    assert!(came < (length + 8 * MIB) as u64, "{came} bytes came");
}

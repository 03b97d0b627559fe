//! A share lasts until the user ends it, even if its file changes or disappears meanwhile.

use crate::network::{MIB, Node, Swarm, content, file, wait_for};
use crate::support::Scratch;
use elver::node::command::{Command, FileState, Response};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The listed state of the share of `path` with this hash.
fn state(node: &Node, hash: &str, path: &Path) -> Option<FileState> {
    let files = node.files();
    let listed = files.iter().find(|file| file.path == path && file.hash.to_string() == hash);
    listed.map(|file| file.state)
}

fn wait_for_state(node: &Node, hash: &str, path: &Path, wanted: FileState) {
    wait_for(&format!("{} to be {wanted:?}", path.display()), || state(node, hash, path) == Some(wanted));
}

/// Fetches a file to another node, under a separate name, and retries until it succeeds.
fn fetch(node: &Node, hash: &str, dir: &Scratch) -> Vec<u8> {
    let target = dir.path().join(format!("fetched-{hash}"));
    let _ = fs::remove_file(&target);
    wait_for("the file to be fetched", || node.get(hash, &target, &["--timeout", "5s"]).0 == Some(0));
    let bytes = fs::read(&target).unwrap();
    fs::remove_file(target).unwrap();
    // The node shares what it fetched. End that share, so that it is no source for the next fetch.
    assert_eq!(node.elver(&["rm", hash]).code, Some(0));
    bytes
}

fn touch(path: &Path) {
    let at = SystemTime::now() - Duration::from_secs(1000);
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn a_touched_file_stays_shared_and_a_changed_one_is_said_to_be() {
    let swarm = Swarm::start(2);
    let bytes = content(40, MIB + 7);
    let source = file(&swarm.dir, "source", 40, MIB + 7);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    touch(&source);
    assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == bytes);
    wait_for_state(&swarm.nodes[0], &hash, &source, FileState::Shared);
    assert_eq!(swarm.nodes[0].counter("shares_changed"), 0);

    fs::write(&source, [&bytes[..], b"more"].concat()).unwrap();
    let (code, _) = swarm.nodes[1].get(&hash, &swarm.dir.path().join("none"), &["--timeout", "5s"]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}");
    wait_for_state(&swarm.nodes[0], &hash, &source, FileState::Changed);
    let listed = swarm.nodes[0].elver(&["ls"]).text();
    assert!(listed.contains("changed"), "{listed}");

    // With the content restored, the node shares the file again without another put.
    fs::write(&source, &bytes).unwrap();
    assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == bytes);
    wait_for_state(&swarm.nodes[0], &hash, &source, FileState::Shared);
}

#[test]
fn what_has_changed_is_remembered_over_a_restart_and_ended_by_rm() {
    let Swarm { mut nodes, dir } = Swarm::start(1);
    let source = file(&dir, "source", 41, 1000);
    let hash = nodes[0].put(&source, &["--replicas", "0"]);
    nodes[0].kill();
    fs::write(&source, b"another").unwrap();
    let mut node = Node::start(dir.path().join("n0"), &[], &[]);
    wait_for_state(&node, &hash, &source, FileState::Changed);
    node.kill();
    let mut node = Node::start(dir.path().join("n0"), &[], &[]);
    assert_eq!(state(&node, &hash, &source), Some(FileState::Changed));
    assert_eq!(node.elver(&["rm", &hash]).code, Some(0));
    assert_eq!(state(&node, &hash, &source), None);
    node.kill();
    let node = Node::start(dir.path().join("n0"), &[], &[]);
    assert!(node.files().is_empty());
}

#[test]
fn one_content_at_two_paths_is_shared_from_both_and_survives_either() {
    let swarm = Swarm::start(2);
    let bytes = content(42, 300_000);
    let (a, b) = (file(&swarm.dir, "a", 42, 300_000), file(&swarm.dir, "b", 42, 300_000));
    let hash = swarm.nodes[0].put(&a, &["--replicas", "0"]);
    assert_eq!(swarm.nodes[0].put(&b, &["--replicas", "0"]), hash);
    assert_eq!(swarm.nodes[0].files().len(), 2);
    fs::remove_file(&a).unwrap();
    assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == bytes);
    wait_for_state(&swarm.nodes[0], &hash, &a, FileState::Absent);
    assert_eq!(state(&swarm.nodes[0], &hash, &b), Some(FileState::Shared));
    fs::write(&a, &bytes).unwrap();
    fs::remove_file(&b).unwrap();
    assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == bytes);
    assert_eq!(swarm.nodes[0].elver(&["rm", &hash]).code, Some(0));
    assert!(swarm.nodes[0].files().is_empty());
}

#[test]
fn a_file_that_was_put_through_a_symlink_is_shared_under_that_name() {
    let swarm = Swarm::start(2);
    let bytes = content(43, 5000);
    let real = file(&swarm.dir, "real", 43, 5000);
    let link = swarm.dir.path().join("link");
    symlink(&real, &link).unwrap();
    let hash = swarm.nodes[0].put(&link, &["--replicas", "0"]);
    assert_eq!(state(&swarm.nodes[0], &hash, &link), Some(FileState::Shared));
    fs::remove_file(&link).unwrap();
    let (code, _) = swarm.nodes[1].get(&hash, &swarm.dir.path().join("none"), &["--timeout", "5s"]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}");
    wait_for_state(&swarm.nodes[0], &hash, &link, FileState::Absent);
    symlink(&real, &link).unwrap();
    assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == bytes);
    assert_eq!(state(&swarm.nodes[0], &hash, &link), Some(FileState::Shared));
}

/// A directory with two files in it that a node shares: a small one and one of several chunks.
fn medium(swarm: &Swarm) -> (PathBuf, [String; 2]) {
    let medium = swarm.dir.path().join("medium");
    fs::create_dir(&medium).unwrap();
    let hashes = [("small", 44, 3000), ("large", 45, 2 * MIB)].map(|(name, seed, length)| {
        fs::write(medium.join(name), content(seed, length)).unwrap();
        swarm.nodes[0].put(&medium.join(name), &["--replicas", "0"])
    });
    (medium, hashes)
}

#[test]
fn a_medium_that_is_missing_at_the_start_is_waited_for() {
    let swarm = Swarm::start(2);
    let (medium, hashes) = medium(&swarm);
    let Swarm { mut nodes, dir } = swarm;
    nodes[0].kill();
    let (away, addr) = (dir.path().join("away"), nodes[1].addr);
    fs::rename(&medium, &away).unwrap();
    let node = Node::start(dir.path().join("n0"), &[addr], &[]);
    for (hash, name) in hashes.iter().zip(["small", "large"]) {
        assert_eq!(state(&node, hash, &medium.join(name)), Some(FileState::Absent), "{}", node.log());
    }
    fs::rename(&away, &medium).unwrap();
    assert!(fetch(&nodes[1], &hashes[0], &dir) == content(44, 3000));
    assert!(fetch(&nodes[1], &hashes[1], &dir) == content(45, 2 * MIB));
    // The medium disappears while the node runs.
    fs::rename(&medium, &away).unwrap();
    let (code, _) = nodes[1].get(&hashes[1], &dir.path().join("none"), &["--timeout", "5s"]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}");
    wait_for_state(&node, &hashes[1], &medium.join("large"), FileState::Absent);
    fs::rename(&away, &medium).unwrap();
    assert!(fetch(&nodes[1], &hashes[1], &dir) == content(45, 2 * MIB));
}

#[test]
fn a_remount_that_gives_files_other_numbers_costs_a_hashing_and_no_share() {
    let swarm = Swarm::start(2);
    let (medium, hashes) = medium(&swarm);
    let Swarm { mut nodes, dir } = swarm;
    nodes[0].kill();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["small", "large"] {
        let modified = medium.join(name).metadata().unwrap().modified().unwrap();
        fs::copy(medium.join(name), copy.join(name)).unwrap();
        fs::File::options().write(true).open(copy.join(name)).unwrap().set_modified(modified).unwrap();
    }
    fs::remove_dir_all(&medium).unwrap();
    fs::rename(&copy, &medium).unwrap();
    let node = Node::start(dir.path().join("n0"), &[nodes[1].addr], &[]);
    for (hash, name) in hashes.iter().zip(["small", "large"]) {
        wait_for_state(&node, hash, &medium.join(name), FileState::Shared);
    }
    assert!(fetch(&nodes[1], &hashes[1], &dir) == content(45, 2 * MIB));
    assert_eq!(node.counter("shares_changed"), 0);
    assert_eq!(node.counter("shares_lost"), 0);
}

#[test]
fn a_path_that_is_put_again_ends_only_the_share_of_what_it_was() {
    let swarm = Swarm::start_with(2, &["--upload-rate", "64KiB"]);
    let firmware = file(&swarm.dir, "firmware", 46, 3 * MIB);
    let first = blake3::hash(&content(46, 3 * MIB)).to_hex().to_string();
    // The copies take a minute or more, so the put waits.
    let command = Command::Put { path: firmware.clone(), replicas: Some(2), lifetime: None };
    let node = &swarm.nodes[0];
    let ended = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.request(&command));
        wait_for_state(node, &first, &firmware, FileState::Shared);
        let second = content(47, 200_000);
        fs::write(swarm.dir.path().join("new"), &second).unwrap();
        fs::rename(swarm.dir.path().join("new"), &firmware).unwrap();
        let hash = node.put(&firmware, &["--replicas", "0"]);
        assert_eq!(hash, blake3::hash(&second).to_hex().as_str());
        let ended = waiting.join().unwrap();
        // A request for the old content does not affect the share of the new content.
        let (code, _) = swarm.nodes[1].get(&first, &swarm.dir.path().join("none"), &["--timeout", "3s"]);
        assert!(matches!(code, Some(3 | 4)), "{code:?}");
        assert_eq!(state(node, &hash, &firmware), Some(FileState::Shared));
        assert_eq!(node.files().len(), 1);
        assert!(fetch(&swarm.nodes[1], &hash, &swarm.dir) == second);
        ended
    });
    let Some(Response::Failed(failure)) = ended else { panic!("the first put ended with {ended:?}") };
    let true_words = ["has other content now", "looks different", "has changed since it was hashed"];
    assert!(true_words.iter().any(|words| failure.message.contains(words)), "{}", failure.message);
}

#[test]
fn what_is_shared_already_is_put_again_without_being_read() {
    let swarm = Swarm::start_with(2, &["--replicas", "2"]);
    let large = swarm.dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(33 * MIB as u64).unwrap();
    let node = &swarm.nodes[0];
    let hash = node.put(&large, &["--replicas", "0"]);
    let hashes = |stage_seen: &mut bool| {
        let command = Command::Put { path: large.clone(), replicas: None, lifetime: None };
        node.request_with(&command, |response| match response {
            Response::Progress(progress) => {
                *stage_seen |= progress.stage == elver::node::command::Stage::Hashing;
                true
            }
            _ => false,
        });
    };
    assert_eq!(node.put(&large, &["--replicas", "0"]), hash);
    let mut read = false;
    touch(&large);
    hashes(&mut read);
    assert!(read, "what looks different is read");
    swarm.wait_for_copies(0, &hash);
    read = false;
    hashes(&mut read);
    assert!(!read, "what looks as it did is not");
    assert_eq!(node.files()[0].replicas, 2, "the node's default was asked for");
}

#[test]
fn a_value_can_be_ended_and_makes_room_for_another() {
    let Swarm { mut nodes, dir } = Swarm::start_with(1, &["--values", "2"]);
    for name in ["a", "b"] {
        let set = nodes[0].elver(&["set", name, "value"]);
        assert_eq!(set.code, Some(0), "{}", set.stderr);
    }
    let refused = nodes[0].elver(&["set", "c", "value"]);
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    assert!(refused.stderr.contains("elver unset"), "{}", refused.stderr);
    assert_eq!(nodes[0].elver(&["unset", "a"]).code, Some(0));
    assert_eq!(nodes[0].elver(&["unset", "a"]).code, Some(3));
    assert_eq!(nodes[0].elver(&["set", "c", "value"]).code, Some(0));
    nodes[0].kill();
    let node = Node::start(dir.path().join("n0"), &[], &[]);
    let listed = node.elver(&["values"]).text();
    assert!(listed.lines().count() == 2 && listed.contains("/b ") && listed.contains("/c "), "{listed}");
}

#[test]
fn too_many_shares_are_refused_before_a_file_is_read() {
    let swarm = Swarm::start_with(1, &["--shares", "2"]);
    for seed in 0..2 {
        swarm.nodes[0].put(&file(&swarm.dir, &format!("file{seed}"), seed, 100), &["--replicas", "0"]);
    }
    let huge = swarm.dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(30 << 30).unwrap();
    let refused = swarm.nodes[0].elver(&["put", huge.to_str().unwrap(), "--replicas", "0"]);
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    assert!(refused.stderr.contains("--shares"), "{}", refused.stderr);
}

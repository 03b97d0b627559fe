//! Two nodes with one identity: both report it, and each can get its own identity.

use crate::network::{Node, file, wait_for};
use crate::support::{Scratch, finish, program};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Copies the files of a node's directory, as a disk image does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The directory of a node that ran and ended in order.
fn stopped(dir: PathBuf, bootstrap: &[SocketAddr]) -> PathBuf {
    let mut node = Node::start(dir.clone(), bootstrap, &[]);
    wait_for("the node to join", || bootstrap.is_empty() || node.status().peers > 0);
    assert!(node.terminate().success());
    dir
}

fn twin(node: &Node) -> Option<SocketAddr> {
    node.status().identity_twice.map(|twice| twice.address)
}

fn says_so(node: &Node) {
    assert!(node.log().contains("in use twice"), "{}", node.log());
    let status = node.elver(["status"]).expect(9).text();
    assert!(status.contains("IN USE TWICE"), "{status}");
    assert!(node.status_json()["identity_twice"]["address"].is_string());
}

#[test]
fn two_copies_that_meet_through_others_both_say_so_with_the_address_of_the_other() {
    let dir = Scratch::new();
    let seed = Node::start(dir.path().join("seed"), &[], &[]);
    let original = stopped(dir.path().join("a"), &[seed.addr]);
    copy(&original, &dir.path().join("b"));
    let first = Node::start(original, &[seed.addr], &[]);
    let second = Node::start(dir.path().join("b"), &[seed.addr], &[]);
    assert_eq!(first.status().id, second.status().id);
    wait_for("both to say so", || twin(&first) == Some(second.addr) && twin(&second) == Some(first.addr));
    says_so(&first);
    says_so(&second);
    assert_eq!(seed.status().identity_twice, None);
}

#[test]
fn two_copies_that_meet_each_other_both_say_so_and_an_identity_of_its_own_is_the_cure() {
    let dir = Scratch::new();
    let original = stopped(dir.path().join("a"), &[]);
    let copied = dir.path().join("b");
    copy(&original, &copied);
    let first = Node::start(original, &[], &[]);
    let mut second = Node::start(copied.clone(), &[first.addr], &[]);
    wait_for("both to say so", || twin(&first) == Some(second.addr) && twin(&second) == Some(first.addr));
    says_so(&first);
    says_so(&second);
    let old = second.status().id;
    let refused = second.elver(["id", "--new"]).expect(1);
    assert!(refused.stderr.contains("stop the node first"), "{}", refused.stderr);
    assert!(second.terminate().success());
    let renewed = finish(program().arg("--dir").arg(&copied).args(["id", "--new"])).expect(0);
    assert!(renewed.stderr.contains("identity.key.old"), "{}", renewed.stderr);
    let second = Node::start(copied, &[first.addr], &[]);
    assert_ne!(second.status().id, old);
    assert!(renewed.text().contains(&second.status().id));
    second.wait_for_peers(1);
    first.wait_for_peers(1);
    assert_eq!(twin(&second), None);
}

#[test]
fn four_boxes_from_one_golden_image_are_four_nodes() {
    let dir = Scratch::new();
    let seed = Node::start(dir.path().join("seed"), &[], &[]);
    let image = stopped(dir.path().join("image"), &[seed.addr]);
    finish(program().arg("--dir").arg(&image).args(["id", "--golden"])).expect(0);
    let boxes: Vec<Node> = (0..4)
        .map(|number| {
            let home = dir.path().join(format!("box{number}"));
            copy(&image, &home);
            Node::start(home, &[seed.addr], &[])
        })
        .collect();
    let ids: BTreeSet<String> = boxes.iter().map(|node| node.status().id).collect();
    assert_eq!(ids.len(), 4);
    wait_for("every box to know every other", || boxes.iter().all(|node| node.status().peers >= 4));
    let source = file(&dir, "source", 1, 100_000);
    let hash = boxes[0].put(&source, &["--replicas", "0"]);
    let target = dir.path().join("target");
    let (code, said) = boxes[3].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(boxes.iter().all(|node| twin(node).is_none()));
}

//! Closed networks: a key keeps out every node that does not have it.

use crate::network::{Node, wait_for};
use crate::support::{Ended, Scratch, finish, program};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes the key of a new network called `museum` to a file.
fn new_key(dir: &Path, file: &str) -> PathBuf {
    let path = dir.join(file);
    finish(program().args(["network", "new", "museum", "--output"]).arg(&path)).expect(0);
    path
}

fn with_key(key: &Path) -> [&str; 2] {
    ["--network-key", key.to_str().unwrap()]
}

#[test]
fn two_closed_networks_of_one_name_on_one_machine_do_not_see_each_other() {
    let dir = Scratch::new();
    let keys = ["first.key", "second.key"].map(|file| new_key(dir.path(), file));
    let start = |name: &str, key: &Path, known: &[&Node]| {
        let bootstrap: Vec<_> = known.iter().map(|node| node.addr).collect();
        Node::start(dir.path().join(name), &bootstrap, &with_key(key))
    };
    let first = start("a", &keys[0], &[]);
    let second = start("b", &keys[1], &[&first]);
    let friend = start("c", &keys[0], &[&first, &second]);
    let other = start("d", &keys[1], &[&second, &first]);
    wait_for("each network to find itself", || {
        [&first, &second, &friend, &other].iter().all(|node| node.status().peers == 1)
    });
    wait_for("strangers to be refused", || {
        first.counter("datagrams_refused_network") > 0 && second.counter("datagrams_refused_network") > 0
    });
    for node in [&first, &second, &friend, &other] {
        let status = node.status();
        assert_eq!(status.peers, 1);
        assert!(status.network_closed);
        assert_eq!(node.counter("datagrams_refused_signature"), 0, "a stranger got a signature check");
    }
    assert_eq!(first.status().network, friend.status().network);
    assert_ne!(first.status().network, second.status().network);
}

#[test]
fn a_stranger_that_knows_the_name_only_is_refused_before_its_message_is_read() {
    let dir = Scratch::new();
    let key = new_key(dir.path(), "museum.key");
    let member = Node::start(dir.path().join("member"), &[], &with_key(&key));
    let file = dir.file("exhibit", b"for members only");
    let hash = member.put(&file, &["--replicas", "0"]);
    let stranger = Node::start(dir.path().join("stranger"), &[member.addr], &["--network", "museum"]);
    assert!(stranger.log().contains("its name is no secret"), "{}", stranger.log());
    wait_for("the stranger to be refused", || member.counter("datagrams_refused_network") > 0);
    let (code, said) = stranger.get(&hash, &dir.path().join("stolen"), &["--timeout", "3s"]);
    assert_ne!(code, Some(0), "{said}");
    assert_eq!(member.counter("datagrams_in"), member.counter("datagrams_refused_network"));
    assert_eq!(member.status().peers, 0);
    assert_eq!(stranger.status().peers, 0);
}

/// Tries to start a node with a key file.
fn start_with(dir: &Scratch, extra: &[&str]) -> Ended {
    let home = dir.path().join("home");
    finish(program().arg("--dir").arg(home).args(["node", "--listen", "127.0.0.1:0"]).args(extra))
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let dir = Scratch::new();
    let key = new_key(dir.path(), "museum.key");
    let says = |extra: &[&str], expected: &str| {
        let ended = start_with(&dir, extra).expect(2);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    };
    says(&["--network-key", "/nonexistent/museum.key"], "No such file");
    says(&[&with_key(&key)[..], &["--network", "zoo"]].concat(), "the key is of the network `museum`");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    says(&with_key(&key), "chmod 600");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let text = fs::read(&key).unwrap();
    fs::write(&key, &text[..text.len() - 5]).unwrap();
    says(&with_key(&key), "cut off or changed");
    fs::write(&key, "network = 'museum'").unwrap();
    says(&with_key(&key), "this is no network key");
}

#[test]
fn a_key_is_found_beside_the_configuration_that_names_it_and_never_overwritten() {
    let dir = Scratch::new();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let key = new_key(&home, "museum.key");
    fs::write(home.join("elver.toml"), "network_key = 'museum.key'").unwrap();
    let node = Node::start(home, &[], &[]);
    assert!(node.status().network_closed);
    let before = fs::read(&key).unwrap();
    finish(program().args(["network", "new", "museum", "--output"]).arg(&key)).expect(1);
    assert_eq!(fs::read(&key).unwrap(), before);
}

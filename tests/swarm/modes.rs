//! An executable arrives as an executable, from any source.

use crate::network::{MIB, Node, Swarm, content};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A file with these permissions.
fn file(swarm: &Swarm, name: &str, seed: u64, length: usize, mode: u32) -> PathBuf {
    let path = swarm.dir.file(name, &content(seed, length));
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn fetched(node: &Node, hash: &str, target: PathBuf) -> u32 {
    let (code, said) = node.get(hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    mode(&target)
}

#[test]
fn a_script_is_executable_where_it_arrives_and_a_text_is_not() {
    let mut swarm = Swarm::start(4);
    let made = mode(&swarm.dir.file("made", b"as the umask has it"));
    // Every user that may read an executable may execute it. Set-user-id and the bits that the umask forbids do not arrive.
    let executable = made | (made >> 2) & 0o111;
    let files = [
        (file(&swarm, "script", 70, 5000, 0o755), executable),
        (file(&swarm, "program", 71, 2 * MIB + 5, 0o4755), executable),
        (file(&swarm, "own", 72, 5001, 0o700), executable),
        (file(&swarm, "text", 73, 5002, 0o666), made),
        (file(&swarm, "large text", 74, 2 * MIB + 6, 0o644), made),
    ];
    let put = |(path, _): &(PathBuf, u32)| swarm.nodes[0].put(path, &["--replicas", "3"]);
    let hashes: Vec<String> = files.iter().map(put).collect();
    hashes.iter().for_each(|hash| swarm.wait_for_copies(0, hash));
    let target = |name: &str, index: usize| swarm.dir.path().join(format!("{name}{index}"));
    // Only the publisher has this file, and remembers its mode over a restart.
    let shared = file(&swarm, "shared", 75, 300_000, 0o755);
    let only = swarm.nodes[0].put(&shared, &["--replicas", "0"]);
    assert!(swarm.nodes[0].terminate().success());
    swarm.nodes[0] = Node::start(swarm.nodes[0].dir.clone(), &[swarm.nodes[1].addr], &[]);
    let reader = Node::start(swarm.dir.path().join("reader"), &[swarm.nodes[1].addr], &["--leaf"]);
    assert_eq!(fetched(&reader, &only, swarm.dir.path().join("only")), executable);
    for (index, (hash, (_, expected))) in hashes.iter().zip(&files).enumerate() {
        assert_eq!(fetched(&reader, hash, target("from the publisher ", index)), *expected, "{index}");
    }

    // A replaced file keeps the permissions that its owner gave it.
    let replaced = swarm.dir.file("replaced", b"something");
    fs::set_permissions(&replaced, fs::Permissions::from_mode(0o640)).unwrap();
    let (code, said) = reader.get(&hashes[0], &replaced, &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(mode(&replaced), 0o640, "{said}");

    // The user's `--mode` wins, also for an existing file and for a part of a file.
    let own = swarm.dir.path().join("own mode");
    for asked in ["600", "0644"] {
        let (code, said) = reader.get(&hashes[0], &own, &["--mode", asked]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(mode(&own), u32::from_str_radix(asked, 8).unwrap());
    }
    let part = swarm.dir.path().join("own part");
    let (code, said) = reader.get(&hashes[1], &part, &["--mode", "400", "--range", "5-9"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(mode(&part), 0o400);
    let (code, said) = reader.get(&hashes[1], &own, &["--mode", "4755", "--force"]);
    assert_eq!(code, Some(2), "{said}");

    // Holders learn the mode from the publisher's offers and remember it over a restart.
    swarm.nodes[0].kill();
    drop(reader);
    for index in 1..4 {
        let dir = swarm.nodes[index].dir.clone();
        assert!(swarm.nodes[index].terminate().success());
        let others: Vec<_> = (index > 1).then(|| swarm.nodes[1].addr).into_iter().collect();
        swarm.nodes[index] = Node::start(dir, &others, &[]);
    }
    let reader = Node::start(swarm.dir.path().join("other"), &[swarm.nodes[1].addr], &["--leaf"]);
    for (index, (hash, (_, expected))) in hashes.iter().zip(&files).enumerate() {
        assert_eq!(fetched(&reader, hash, target("from a holder ", index)), *expected, "{index}");
    }
}

//! A scrub finds copies that rot on disk, and repair replaces them.

use crate::network::{MIB, Node, content, file, wait_for};
use crate::repair::{explained, start, wait_until_whole};
use elver::store::PIECE_OVERHEAD_BYTES;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Flips two bytes in the middle of a file, in place.
fn rot(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, middle).unwrap();
    file.write_all_at(&bytes.map(|byte| byte ^ 0x21), middle).unwrap();
}

fn sound(path: &Path) -> bool {
    // The file holds the content of a one-chunk file, then the trailer.
    let bytes = fs::read(path).unwrap_or_default();
    let Some(length) = bytes.len().checked_sub(PIECE_OVERHEAD_BYTES as usize) else { return false };
    blake3::hash(&bytes[..length]).to_hex().as_str() == path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn rotten_copies_are_dropped_by_a_scrub_and_copied_anew_from_the_good_one() {
    let mut swarm = start(5);
    let mut hashes = Vec::new();
    for seed in 0..6 {
        let source = file(&swarm.dir, &format!("source{seed}"), 900 + seed, 200_000);
        let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
        swarm.wait_for_copies(0, &hash);
        hashes.push(hash);
    }
    // The publisher leaves, so only stored pieces are left.
    let mut publisher = swarm.nodes.remove(0);
    let gone = publisher.elver(&["leave", "--timeout", "30s"]);
    gone.expect(0);
    publisher.kill();
    let nodes: Vec<&Node> = swarm.nodes.iter().collect();
    wait_for("three stored copies of each", || hashes.iter().all(|hash| copies_of(&nodes, hash).len() >= 3));
    wait_until_whole(&nodes);

    // Two of the three copies of one file rot, the same two bytes in each.
    let copies = copies_of(&nodes, &hashes[0]);
    let rotten: Vec<PathBuf> = copies.iter().take(copies.len() - 1).cloned().collect();
    rotten.iter().for_each(|path| rot(path));
    let mut bad = 0;
    for node in &nodes {
        let said = node.elver(&["scrub", "--json"]).expect(0).text();
        let told: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(told["running"], false, "{said}");
        bad += told["report"]["bad"].as_u64().unwrap();
        let status = node.status().scrub;
        assert!(status.last.is_some_and(|last| last.pieces > 0) && status.running.is_none(), "{status:?}");
    }
    assert_eq!(bad, rotten.len() as u64);
    assert_eq!(nodes.iter().map(|node| node.counter("pieces_rotten")).sum::<u64>(), bad);
    // A dropped copy does not count, and repair replaces it.
    wait_for("three sound copies", || {
        let copies = copies_of(&nodes, &hashes[0]);
        copies.len() >= 3 && copies.iter().all(|path| sound(path))
    });
    wait_until_whole(&nodes);
    let told = explained(nodes[0], &hashes[0]);
    assert!(told.copies_min >= 3, "{told:?}");
    for hash in &hashes {
        assert!(copies_of(&nodes, hash).iter().all(|path| sound(path)));
    }
    let shown = nodes[0].elver(&["status"]).expect(0).text();
    assert!(shown.contains("scrub") && shown.contains("within 30 d"), "{shown}");
}

fn copies_of(nodes: &[&Node], hash: &str) -> Vec<PathBuf> {
    let name = |path: &PathBuf| path.file_name().is_some_and(|name| name == hash);
    nodes.iter().flat_map(|node| node.piece_files()).filter(name).collect()
}

#[test]
fn a_scrub_goes_round_by_itself_over_shared_files_too() {
    let dir = crate::support::Scratch::new();
    let node = Node::start(dir.path().join("n0"), &[], &["--scrub", "2s"]);
    let source = dir.file("shared", &content(77, 2 * MIB));
    node.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
    wait_for("a round of its own accord", || {
        node.status().scrub.last.is_some_and(|last| last.files == 1 && last.bad == 0)
    });
    assert_eq!(node.files().len(), 1);
}

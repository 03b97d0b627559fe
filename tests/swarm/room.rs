//! A node whose limits are lowered.

use crate::network::{Node, file, wait_for};
use crate::repair::{start, wait_until_whole};

/// The number of nodes with a stored copy of each file. Looks at the last node first: a copy that it gave away before that is
/// seen at the others.
fn copies(nodes: &[Node], hashes: &[String]) -> Vec<usize> {
    let has = |node: &Node, hash: &String| {
        node.piece_files().iter().any(|path| path.file_name().is_some_and(|name| name == hash.as_str()))
    };
    hashes.iter().map(|hash| nodes.iter().rev().filter(|node| has(node, hash)).count()).collect()
}

#[test]
fn a_smaller_quota_deletes_nothing_before_others_have_it() {
    let mut swarm = start(5);
    let mut hashes = Vec::new();
    for seed in 0..8 {
        let source = file(&swarm.dir, &format!("source{seed}"), 700 + seed, 100_000);
        let hash = swarm.nodes[0].put(&source, &["--replicas", "2"]);
        swarm.wait_for_copies(0, &hash);
        hashes.push(hash);
    }
    // The publisher leaves, so only stored pieces are left.
    let publisher = swarm.nodes.remove(0);
    publisher.elver(&["leave", "--timeout", "30s"]).expect(0);
    drop(publisher);
    wait_for("two stored copies of each", || copies(&swarm.nodes, &hashes).iter().all(|copies| *copies >= 2));
    wait_until_whole(&swarm.nodes.iter().collect::<Vec<_>>());

    let fullest = (0..4).max_by_key(|&index| swarm.nodes[index].status().pieces).unwrap();
    let mut node = swarm.nodes.remove(fullest);
    let held = node.piece_files().len();
    assert!(held >= 3, "the fullest of four has {held} of 16 copies");
    let (dir, bootstrap) = (node.dir.clone(), swarm.nodes[0].addr);
    assert!(node.terminate().success());
    drop(node);
    // The new quota has room for one file.
    let node = Node::start(dir, &[bootstrap], &["--quota", "150KiB"]);
    let status = node.status();
    assert!(status.over_quota && status.stored_bytes > status.quota_bytes, "{status:?}");
    assert!(node.log().contains("more is stored than the limits allow"), "{}", node.log());
    swarm.nodes.push(node);
    wait_for("it to have handed over what is too much", || {
        let counts = copies(&swarm.nodes, &hashes);
        assert!(counts.iter().all(|copies| *copies >= 2), "a copy went before others had it: {counts:?}");
        !swarm.nodes[3].status().over_quota
    });
    assert!(swarm.nodes[3].piece_files().len() <= 1);
    assert!(swarm.nodes[3].counter("pieces_handed_over") >= held as u64 - 1);
}

//! `elver explain` on a node that neither shares nor holds the file.

use crate::network::{MIB, Node, Swarm, file};
use elver::node::command::{Command, Explanation, Reply, Response};

fn explained(node: &Node, hash: &str) -> Explanation {
    match node.request(&Command::Explain { hash: hash.parse().unwrap(), timeout: Some(20) }) {
        Some(Response::Done(Reply::Explain(told))) => *told,
        other => panic!("explain answered {other:?}"),
    }
}

#[test]
fn every_copy_is_told_with_its_holder_and_none_of_a_node_that_is_gone() {
    let mut swarm = Swarm::start(5);
    let source = file(&swarm.dir, "source", 40, 5 * MIB + 77);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    swarm.wait_for_copies(0, &hash);

    let told = explained(&swarm.nodes[2], &hash);
    assert_eq!(told.chunks, 21);
    assert_eq!(told.pieces, 22);
    assert_eq!(told.length, 5 * MIB as u64 + 77);
    assert_eq!(told.replicas, 3);
    assert_eq!(told.quorum, 2);
    assert_eq!(told.below_quorum, 0);
    assert_eq!(told.missing, 0);
    assert!(told.copies_min == 3 && told.complete, "{told:?}");
    assert_eq!(told.nodes_asked, 4);
    assert_eq!(told.nodes_answered, 4);
    for node in &swarm.nodes {
        let status = node.status();
        let told = told.nodes.iter().find(|told| told.id.to_string() == status.id);
        // The publisher has every piece in the shared file. The others have the pieces that were copied to them.
        let expected = if node.addr == swarm.nodes[0].addr { 22 } else { status.pieces };
        assert_eq!(told.map_or(0, |told| told.pieces), expected, "{told:?}");
        assert!(told.is_none_or(|told| told.addr == node.addr && told.answered));
    }
    let ended = swarm.nodes[2].elver(&["explain", &hash]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().contains("safe: every piece has as many copies"), "{}", ended.text());

    let publisher = swarm.nodes[0].status().id;
    swarm.nodes[0].kill();
    let told = explained(&swarm.nodes[2], &hash);
    assert_eq!(told.copies_min, 2);
    assert_eq!(told.replicas, 3);
    assert_eq!(told.quorum, 2);
    assert_eq!(told.below_quorum, 0);
    let gone = told.nodes.iter().find(|node| node.id.to_string() == publisher);
    assert!(gone.is_none_or(|gone| !gone.answered && gone.pieces == 0), "{told:?}");
    let ended = swarm.nodes[2].elver(&["explain", &hash, "--timeout", "20s"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().contains("min 2"), "{}", ended.text());
    assert!(ended.text().contains("3 asked for, quorum 2"), "{}", ended.text());

    swarm.nodes[1].kill();
    let ended = swarm.nodes[2].elver(&["explain", &hash, "--chunks"]);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(ended.text().contains("AT RISK: "), "{}", ended.text());
    let told = explained(&swarm.nodes[2], &hash);
    let worst = told.losses.first().expect("somebody has the only copy of something");
    assert_eq!(told.copies_min, 1);
    assert_eq!(worst.nodes.len(), 1);
}

#[test]
fn a_hash_that_nobody_knows_is_not_found() {
    let swarm = Swarm::start(3);
    let ended = swarm.nodes[1].elver(&["explain", &"07".repeat(32)]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
}

#[test]
fn a_lone_node_knows_its_own_copy_and_that_nobody_could_be_asked() {
    let swarm = Swarm::start(1);
    let source = file(&swarm.dir, "source", 41, MIB);
    let put = swarm.nodes[0].elver(&["put", "--replicas", "3", source.to_str().unwrap()]);
    let hash = put.text().split_whitespace().next().unwrap().to_owned();
    let told = explained(&swarm.nodes[0], &hash);
    assert_eq!(told.copies_min, 1);
    assert_eq!(told.copies_max, 1);
    assert_eq!(told.nodes_asked, 0);
    assert_eq!(swarm.nodes[0].elver(&["explain", &hash]).code, Some(4));
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    assert_eq!(swarm.nodes[0].elver(&["explain", &hash]).code, Some(0));
}

#[test]
fn explain_counts_only_copies_that_were_put_and_still_exist() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 42, MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    assert_eq!(swarm.nodes[1].get(&hash, &swarm.dir.path().join("target"), &[]).0, Some(0));
    let told = explained(&swarm.nodes[2], &hash);
    assert_eq!(told.replicas, 0);
    assert_eq!(told.copies_min, 1);
    assert_eq!(told.copies_max, 1);
    assert_eq!(told.below_quorum, 0);
    assert!(told.groups.iter().all(|group| group.cached.len() == 1), "{told:?}");
    std::fs::remove_file(&source).unwrap();
    let told = explained(&swarm.nodes[2], &hash);
    assert_eq!(told.copies_max, 0, "{told:?}");
    assert_eq!(told.missing, 5, "{told:?}");
    assert_eq!(swarm.nodes[2].elver(&["explain", &hash]).code, Some(5));
}

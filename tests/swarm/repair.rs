//! Whole cycles of failure and repair, with timers so short that a cycle fits into a test.

use crate::network::{MIB, Node, Swarm, file, wait_for};
use elver::node::command::{Command, CopiesOf, Explanation, MemberState, Peer, Reply, Response};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Timers of about a tenth of their defaults, except those by which a node notices a pause: a loaded machine pauses too.
const SHORT: &str = "
[gossip]
interval = 0.5
[membership]
silent = 1.5
unresponsive = 5
evicted = 15
[repair]
urgent = 3
rank = 1
settle = 3
surplus = 600
reconcile = 5
";

/// Starts nodes with short timers, and waits until each considers every other alive.
pub(crate) fn start(count: usize) -> Swarm {
    let dir = crate::support::Scratch::new();
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..count {
        let home = dir.path().join(format!("n{index}"));
        configure(&home);
        let bootstrap: Vec<_> = nodes.first().map(|first| first.addr).into_iter().collect();
        nodes.push(Node::start(home, &bootstrap, &[]));
    }
    let swarm = Swarm { nodes, dir };
    wait_for("every node to count on every other", || {
        swarm.nodes.iter().all(|node| live(node) as usize >= count - 1)
    });
    swarm
}

fn configure(home: &Path) {
    fs::create_dir_all(home).unwrap();
    fs::write(home.join("elver.toml"), SHORT).unwrap();
}

fn live(node: &Node) -> u32 {
    node.status().gossip.expect("it takes part in membership").live
}

fn copies_made(nodes: &[&Node]) -> u64 {
    nodes.iter().map(|node| node.status().repair.expect("it repairs").copies_made).sum()
}

fn peer(node: &Node, id: &str) -> Option<Peer> {
    match node.request(&Command::Peers) {
        Some(Response::Done(Reply::Peers { peers })) => {
            peers.into_iter().find(|peer| peer.id.to_string() == id)
        }
        other => panic!("peers answered {other:?}"),
    }
}

pub(crate) fn explained(node: &Node, hash: &str) -> Explanation {
    match node.request(&Command::Explain { hash: hash.parse().unwrap(), timeout: Some(20) }) {
        Some(Response::Done(Reply::Explain(told))) => *told,
        other => panic!("explain answered {other:?}"),
    }
}

pub(crate) fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), signal).unwrap();
}

/// The index of the node with the most pieces, the publisher aside.
fn fullest(swarm: &Swarm) -> usize {
    (1..swarm.nodes.len()).max_by_key(|&index| swarm.nodes[index].status().pieces).unwrap()
}

/// Waits until every holder knows that no copy is missing.
pub(crate) fn wait_until_whole(nodes: &[&Node]) {
    wait_for("nothing to be missing", || {
        nodes.iter().all(|node| {
            let repair = node.status().repair.unwrap();
            repair.short == 0 && repair.copying == 0
        })
    });
}

#[test]
fn copies_fall_when_a_holder_is_killed_and_return_on_others() {
    let mut swarm = start(8);
    let source = file(&swarm.dir, "source", 50, 5 * MIB + 77);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    swarm.wait_for_copies(0, &hash);
    let before = explained(&swarm.nodes[0], &hash);
    assert!(before.copies_min >= 3 && before.below_quorum == 0, "{before:?}");

    // The publisher is one of the holders of some pieces, and an extra source of the others. A piece of the first kind lacks a
    // copy once the victim is gone.
    let group =
        before.groups.iter().find(|group| group.copies == 3).expect("the publisher is a holder of something");
    let ids = |group: &CopiesOf| -> Vec<String> {
        group.holders.iter().map(|&holder| before.nodes[holder as usize].id.to_string()).collect()
    };
    let held_by = ids(group);
    let victim = (1..8).find(|&index| held_by.contains(&swarm.nodes[index].status().id)).unwrap();
    let id = swarm.nodes[victim].status().id;
    let held = swarm.nodes[victim].status().pieces;
    let missed: u32 = before
        .groups
        .iter()
        .filter(|group| group.copies == 3 && ids(group).contains(&id))
        .map(|group| group.pieces)
        .sum();
    swarm.nodes[victim].kill();
    let others: Vec<&Node> =
        (0..8).filter(|&index| index != victim).map(|index| &swarm.nodes[index]).collect();
    let copies =
        |told: &Explanation| -> u32 { told.groups.iter().map(|group| group.pieces * group.copies).sum() };
    // Explain shows the loss at once, on a node that knew the victim from an earlier explain and on one that knew it from peers.
    for node in [others[0], others[6]] {
        let told = explained(node, &hash);
        assert_eq!(told.copies_min, 2, "{told:?}");
        assert_eq!(copies(&told), copies(&before) - held, "{told:?}");
        let gone = told.nodes.iter().find(|node| node.id.to_string() == id);
        assert!(gone.is_none_or(|gone| !gone.answered && gone.pieces == 0), "{told:?}");
    }
    wait_for("a repair to be under way for a while", || {
        let told = explained(others[6], &hash);
        told.groups.iter().any(|group| group.repair.as_ref().is_some_and(|repair| repair.since_seconds > 0))
    });
    wait_for("the copies to return", || explained(others[6], &hash).copies_min >= 3);
    wait_until_whole(&others);
    let told = explained(others[0], &hash);
    assert!(told.nodes.iter().all(|node| node.id.to_string() != id || node.pieces == 0), "{told:?}");
    let shown = others[6].elver(&["explain", &hash]).expect(0).text();
    assert!(shown.contains("safe: every piece has as many copies"), "{shown}");
    assert!(copies_made(&others) >= u64::from(missed), "the copies were made by holders");
}

#[test]
fn a_node_that_pauses_for_a_moment_moves_nothing_and_gives_nobody_up() {
    let swarm = start(8);
    let source = file(&swarm.dir, "source", 51, 5 * MIB + 77);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    swarm.wait_for_copies(0, &hash);
    let nodes: Vec<&Node> = swarm.nodes.iter().collect();
    wait_until_whole(&nodes);
    let before: Vec<u32> = nodes.iter().map(|node| node.status().pieces).collect();

    let sleeper = fullest(&swarm);
    let id = nodes[sleeper].status().id;
    signal(nodes[sleeper], Signal::STOP);
    let stopped = Instant::now();
    wait_for("somebody to suspect it", || {
        let states = nodes.iter().enumerate().filter(|&(index, _)| index != sleeper);
        states.filter_map(|(_, node)| peer(node, &id)?.state).any(|state| state == MemberState::Suspect)
            // The node must wake before the others give its place to another node.
            || stopped.elapsed() > Duration::from_secs(3)
    });
    signal(nodes[sleeper], Signal::CONT);
    wait_for("everybody to count on everybody", || nodes.iter().all(|node| live(node) == 7));
    // The node stays awake for longer than a holder may be silent. In that time it would act on any wrong belief.
    let rounds = nodes[sleeper].status().gossip.unwrap().rounds;
    wait_for("many more rounds", || nodes[sleeper].status().gossip.unwrap().rounds >= rounds + 20);

    assert_eq!(nodes.iter().map(|node| node.status().pieces).collect::<Vec<_>>(), before);
    assert_eq!(copies_made(&nodes), 0);
    for node in &nodes {
        let counters = node.status().counters;
        assert_eq!(counters["members_evicted"], 0);
        assert_eq!(counters["members_unresponsive"], 0);
    }
}

#[test]
fn a_node_that_leaves_hands_over_the_only_copies() {
    let swarm = start(4);
    let source = file(&swarm.dir, "source", 52, MIB + 5);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "1"]);
    let only = explained(&swarm.nodes[1], &hash);
    assert!(only.copies_min >= 1, "{only:?}");
    let id = swarm.nodes[0].status().id;
    swarm.nodes[0].elver(&["leave", "--timeout", "30s"]).expect(0);
    for node in &swarm.nodes[1..] {
        wait_for("its goodbye", || peer(node, &id).is_none_or(|gone| gone.state == Some(MemberState::Left)));
        assert_eq!(node.counter("members_returned"), 0, "nobody took it for back");
    }
    let target = swarm.dir.path().join("target");
    let (code, said) = swarm.nodes[3].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

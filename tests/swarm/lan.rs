//! Nodes on one LAN that no one gave an address of another.

use crate::lab::{Lab, PORT};
use crate::network::{MIB, Node, content, file};
use crate::support::{LIMIT, wait_until};
use elver::node::command::{Command, Learned, Peer, Reply, Response};
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};

fn everywhere() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, PORT).into()
}

/// Starts a node on each machine of a laboratory, and waits until each knows all others.
fn started(lab: &Lab, machines: u8) -> Vec<Node> {
    let start = |machine| lab.node_at(machine, everywhere(), &[], &["--lan", "--network", "lan test"]);
    let nodes: Vec<Node> = (1..=machines).map(start).collect();
    // A here that was lost is followed by another after a minute.
    wait_until("every node to know every other", LIMIT * 3, || {
        nodes.iter().all(|node| node.status().peers + 1 >= u32::from(machines)).then_some(())
    });
    nodes
}

fn peers(node: &Node) -> Vec<Peer> {
    match node.request(&Command::Peers) {
        Some(Response::Done(Reply::Peers { peers })) => peers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_nodes_of_a_lan_find_each_other_and_again_at_new_addresses_after_power_failures() {
    let lab = Lab::start(3);
    let mut nodes = started(&lab, 3);
    let learned = nodes.iter().flat_map(peers).map(|peer| peer.learned);
    assert!(learned.into_iter().any(|learned| learned == Some(Learned::Lan)), "no peer was found on the LAN");
    let hash = nodes[0].put(&file(&lab.dir, "map", 1, MIB), &[]);
    let copy = lab.dir.path().join("copy");
    assert_eq!(nodes[2].get(&hash, &copy, &[]).0, Some(0));
    assert_eq!(fs::read(&copy).unwrap(), content(1, MIB));

    nodes.iter_mut().for_each(Node::kill);
    drop(nodes);
    for machine in 1..=3 {
        lab.run(&format!(
            "ip -n m{machine} addr flush dev eth scope global && ip -n m{machine} addr add 10.78.0.{machine}0/24 dev eth"
        ));
    }
    let mut nodes = started(&lab, 3);
    let copy = lab.dir.path().join("another copy");
    assert_eq!(nodes[1].get(&hash, &copy, &[]).0, Some(0));
    assert_eq!(fs::read(&copy).unwrap(), content(1, MIB));

    // No address is left but the link-local ones of IPv6, which mean something only with their interface.
    nodes.iter_mut().for_each(Node::kill);
    drop(nodes);
    (1..=3).for_each(|machine| lab.run(&format!("ip -n m{machine} addr flush dev eth scope global")));
    let nodes = started(&lab, 3);
    let found = peers(&nodes[0]);
    assert!(
        found.iter().all(|peer| matches!(peer.addr, SocketAddr::V6(addr) if addr.scope_id() > 0)),
        "{found:?}"
    );
    let copy = lab.dir.path().join("third copy");
    let hash = nodes[0].put(&file(&lab.dir, "another map", 2, MIB), &[]);
    assert_eq!(nodes[2].get(&hash, &copy, &[]).0, Some(0));
    assert_eq!(fs::read(&copy).unwrap(), content(2, MIB));
}

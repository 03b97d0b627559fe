//! Links that fail and come back, nodes that fall silent, and addresses that change.

use crate::lab::{Lab, PORT};
use crate::network::{MIB, file, wait_for};
use elver::node::command::{Command, Reply, Response, TroubleKind};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where a node's download goes: beside its directory, for nothing may be downloaded into it.
fn target(node: &crate::network::Node) -> PathBuf {
    node.dir.with_extension("file")
}

/// A download, by a command of its own thread. It ends with the thread.
fn get(node: &crate::network::Node, hash: &str, timeout: u32) -> std::thread::JoinHandle<Option<Response>> {
    let (hash, target) = (hash.parse().unwrap(), Some(target(node)));
    let command = Command::Get { hash, target, force: false, mode: None, timeout: Some(timeout) };
    let mut client = elver::cli::client::Client::connect(&node.dir).unwrap();
    client.send(&command).unwrap();
    std::thread::spawn(move || {
        loop {
            match client.receive() {
                Ok(Response::Progress(_)) => {}
                Ok(response) => return Some(response),
                Err(_) => return None,
            }
        }
    })
}

#[test]
fn a_download_goes_on_when_its_link_is_back_and_its_timeout_counts_no_time_before_that() {
    let lab = Lab::start(2);
    let source = lab.node(1, &[], &["--upload-rate", "1MiB"]);
    let reader = lab.node(2, &[&source], &[]);
    source.wait_for_peers(1);
    let path = file(&lab.dir, "source", 41, 12 * MIB);
    let hash = source.put(&path, &["--replicas", "0"]);
    let came = || reader.status().downloaded_bytes;
    // The outage takes the larger part of the time after which a download without content fails.
    let download = get(&reader, &hash, 45);
    wait_for("the first content, or an end without it", || came() > MIB as u64 || download.is_finished());
    assert!(!download.is_finished(), "{:?}", download.join());
    lab.plug(2, false);
    let (cut, before) = (Instant::now(), came());
    wait_for("the source to be given up", || {
        reader.counter("source_probes") >= 24 && cut.elapsed() > Duration::from_secs(28)
    });
    lab.plug(2, true);
    wait_for("content after the outage", || came() > before + MIB as u64);
    assert!(reader.counter("sources_returned") > 0);
    let ended = download.join().unwrap();
    assert!(matches!(ended, Some(Response::Done(Reply::Get { .. }))), "{ended:?}");
    assert!(fs::read(target(&reader)).unwrap() == fs::read(&path).unwrap());
}

#[test]
fn a_put_does_not_wait_for_a_node_that_has_fallen_silent() {
    let lab = Lab::start(5);
    let first = lab.node(1, &[], &[]);
    let others: Vec<_> = (2..=5).map(|machine| lab.node(machine, &[&first], &[])).collect();
    wait_for("every node to know every other", || {
        others.iter().chain([&first]).all(|node| node.status().gossip.is_some_and(|gossip| gossip.live >= 4))
    });
    // With streams to all others, only silence tells that one of them is gone.
    let warm = file(&lab.dir, "warm", 50, 4 * MIB);
    first.put(&warm, &["--replicas", "5"]);
    wait_for("streams to all others", || first.status().streams >= 4);
    lab.plug(2, false);
    for number in 0..6 {
        let path = file(&lab.dir, &format!("source{number}"), 51 + number, MIB / 2);
        first.put(&path, &["--replicas", "2"]);
    }
    assert_eq!(first.counter("push_silent"), 0, "no put waited until the node was given up");
}

#[test]
fn a_node_whose_address_changes_is_found_at_the_new_one() {
    let lab = Lab::start(3);
    let first = lab.node(1, &[], &[]);
    let reader = lab.node(2, &[&first], &[]);
    let everywhere = (std::net::Ipv4Addr::UNSPECIFIED, PORT).into();
    let mover = lab.node_at(3, everywhere, &[&first], &[]);
    wait_for("every node to know every other", || {
        [&first, &reader, &mover]
            .iter()
            .all(|node| node.status().gossip.is_some_and(|gossip| gossip.live >= 2))
    });
    let path = file(&lab.dir, "source", 60, MIB);
    let hash = mover.put(&path, &["--replicas", "0"]);
    lab.run("ip -n m3 addr del 10.77.0.3/24 dev eth && ip -n m3 addr add 10.77.0.33/24 dev eth");
    let new = std::net::SocketAddr::from(([10, 77, 0, 33], PORT));
    wait_for("the node to know its new address", || mover.status().address == Some(new));
    let target = lab.dir.path().join("target");
    wait_for("the file from there", || reader.get(&hash, &target, &["--timeout", "5s"]).0 == Some(0));
    assert!(mover.log().contains("10.77.0.33"), "{}", mover.log());
}

#[test]
fn a_node_waits_for_the_address_it_listens_on_says_that_it_is_gone_and_works_on_when_it_is_back() {
    let lab = Lab::start(2);
    let first = lab.node(1, &[], &[]);
    lab.run("ip -n m2 addr del 10.77.0.2/24 dev eth");
    let other = lab.node(2, &[&first], &[]);
    wait_for("the word", || other.status().troubles.iter().any(|t| t.kind == TroubleKind::AddressGone));
    assert!(
        other.log().contains("10.77.0.2 on which this node listens is not on this machine"),
        "{}",
        other.log()
    );
    lab.run("ip -n m2 addr add 10.77.0.2/24 dev eth");
    other.wait_for_peers(1);
    let path = file(&lab.dir, "source", 61, MIB);
    let hash = other.put(&path, &["--replicas", "0"]);
    lab.run("ip -n m2 addr del 10.77.0.2/24 dev eth");
    let kinds = || other.status().troubles.iter().map(|trouble| trouble.kind).collect::<Vec<_>>();
    wait_for("the word", || kinds().contains(&TroubleKind::AddressGone));
    let shown = other.elver(["status"]).expect(9);
    assert!(shown.text().starts_with("state         NOT WELL: the address 10.77.0.2 "), "{}", shown.text());
    assert!(other.log().contains("10.77.0.2 on which this node listens is gone"), "{}", other.log());
    lab.run("ip -n m2 addr add 10.77.0.2/24 dev eth");
    wait_for("the address to be back", || !kinds().contains(&TroubleKind::AddressGone));
    let (code, said) = first.get(&hash, &lab.dir.path().join("target"), &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_node_that_no_node_can_connect_to_finds_out_says_so_and_takes_part_as_a_leaf_until_it_can() {
    let lab = Lab::start(4);
    let first = lab.node(1, &[], &[]);
    let others: Vec<_> = (2..=3).map(|machine| lab.node(machine, &[&first], &[])).collect();
    // A firewall that lets no connection in. Datagrams pass, as they do through a NAT between nodes that have spoken.
    lab.run(
        "ip -n m4 rule add pref 10 lookup local && ip -n m4 rule del pref 0 && \
         ip -n m4 rule add pref 5 iif eth ipproto tcp dport 3583 blackhole",
    );
    let hidden = lab.node(4, &[&first], &[]);
    let kinds = || hidden.status().troubles.iter().map(|trouble| trouble.kind).collect::<Vec<_>>();
    wait_for("the node to find out", || kinds() == [TroubleKind::Unreachable]);
    assert!(hidden.status().leaf);
    assert!(hidden.log().contains("other nodes cannot connect to this one"), "{}", hidden.log());
    assert!(hidden.elver(["status"]).expect(9).text().contains("role          leaf"));
    let live = |node: &crate::network::Node| node.status().gossip.map_or(0, |gossip| gossip.live);
    wait_for("the others to count without it", || others.iter().chain([&first]).all(|node| live(node) == 2));
    let path = file(&lab.dir, "source", 70, MIB / 4);
    let hash = hidden.put(&path, &["--replicas", "0"]);
    let (code, said) = first.get(&hash, &lab.dir.path().join("target"), &[]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("behind a NAT or a firewall"), "{said}");
    lab.run("ip -n m4 rule del pref 5");
    wait_for("the node to be no leaf any more", || !hidden.status().leaf && kinds().is_empty());
    wait_for("the others to count with it", || live(&first) == 3);
    let (code, said) = first.get(&hash, &lab.dir.path().join("target"), &[]);
    assert_eq!(code, Some(0), "{said}");
}

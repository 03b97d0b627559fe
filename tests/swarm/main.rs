//! Several real nodes on loopback: what one node puts, another gets, despite failures in between.

#![allow(clippy::needless_borrows_for_generic_args, reason = "a client's arguments are a slice or an array")]

mod blame;
mod closed;
mod downloads;
mod explain;
mod http;
mod identity;
mod lab;
mod lan;
mod modes;
mod network;
mod outage;
mod parties;
mod put;
mod reads;
mod repair;
mod robust;
mod room;
mod scrub;
mod sets;
mod shares;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use elver::node::command::{Command, FileState, Reply, Response, Stage};
use network::{MIB, Node, Swarm, content, file, wait_for};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpStream, UdpSocket};
use support::Scratch;

#[test]
fn a_file_outlives_its_publisher_and_a_holder() {
    let mut swarm = Swarm::start(8);
    let source = file(&swarm.dir, "source", 1, 5 * MIB + 77);
    let hash = swarm.nodes[3].put(&source, &[]);
    assert_eq!(hash, blake3::hash(&fs::read(&source).unwrap()).to_hex().as_str());
    swarm.wait_for_copies(3, &hash);
    swarm.nodes[3].kill();
    let holder =
        swarm.nodes.iter_mut().find(|node| !node.piece_files().is_empty()).expect("somebody holds copies");
    holder.kill();
    let reader = swarm.nodes.iter().find(|node| node.try_status().is_some()).unwrap();
    let target = swarm.dir.path().join("target");
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn altered_copies_are_refused_and_the_file_comes_from_the_good_ones() {
    let mut swarm = Swarm::start(6);
    let source = file(&swarm.dir, "source", 2, 2 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "4"]);
    swarm.wait_for_copies(0, &hash);
    swarm.nodes[0].kill();
    let rotten = swarm.nodes[2].piece_files();
    assert!(!rotten.is_empty());
    rotten.iter().for_each(|path| alter(path));
    let reader = Node::start(swarm.dir.path().join("reader"), &[swarm.nodes[1].addr], &[]);
    let target = swarm.dir.path().join("target");
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}\n{}", reader.log());
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn content_that_does_not_verify_never_leaves_with_success() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 3, 3 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "2"]);
    swarm.wait_for_copies(0, &hash);
    let Swarm { mut nodes, dir } = swarm;
    nodes[0].kill();
    nodes[1].piece_files().iter().for_each(|path| alter(path));
    let reader = Node::start(dir.path().join("reader"), &[nodes[1].addr], &[]);
    let target = dir.path().join("target");
    let (code, said) = reader.get(&hash, &target, &["--timeout", "20s"]);
    assert_eq!(code, Some(6), "{said}");
    assert!(!target.exists());
    assert!(reader.counter("sources_bad") > 0);
}

/// Changes the first byte of a stored piece.
fn alter(path: &std::path::Path) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

#[test]
fn nodes_come_back_with_what_they_had() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 4, MIB + 1);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    swarm.wait_for_copies(0, &hash);
    let id = swarm.nodes[1].status().id;
    let Swarm { mut nodes, dir } = swarm;
    nodes.iter_mut().for_each(Node::kill);
    let (first, second) = (nodes[0].addr, nodes[1].addr);
    // Each node restarts at its former address, with the other one as its bootstrap.
    nodes.clear();
    let holder = Node::start_at(dir.path().join("n1"), second, &[first], &[]);
    assert_eq!(holder.status().id, id);
    assert_eq!(holder.status().boots, 2);
    assert!(holder.status().pieces > 0, "{}", holder.log());
    let publisher = Node::start_at(dir.path().join("n0"), first, &[second], &[]);
    assert_eq!(publisher.files().len(), 1);
    let reader = Node::start(dir.path().join("reader"), &[second], &[]);
    let target = dir.path().join("target");
    assert_eq!(reader.get(&hash, &target, &[]).0, Some(0));
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn a_node_that_was_told_to_end_remembers_its_peers() {
    let swarm = Swarm::start(3);
    let Swarm { mut nodes, dir } = swarm;
    assert!(nodes[2].terminate().success());
    let again = Node::start(dir.path().join("n2"), &[], &[]);
    wait_for("the remembered peers", || again.status().peers >= 2);
    assert!(!again.dir.join("control.sock.stale").exists());
}

#[test]
fn files_of_every_odd_size_go_through() {
    let swarm = Swarm::start(3);
    for (seed, length) in [0, 1, 1024, 256 << 10, (256 << 10) + 1, 512 << 10].into_iter().enumerate() {
        let source = file(&swarm.dir, &format!("source{length}"), seed as u64, length);
        let hash = swarm.nodes[0].put(&source, &["--replicas", "2"]);
        assert_eq!(hash, blake3::hash(&content(seed as u64, length)).to_hex().as_str());
        let target = swarm.dir.path().join(format!("target{length}"));
        let (code, said) = swarm.nodes[2].get(&hash, &target, &[]);
        assert_eq!(code, Some(0), "{length}: {said}");
        assert!(fs::read(&target).unwrap() == content(seed as u64, length), "{length}");
    }
}

#[test]
fn content_that_is_not_spliced_arrives_as_well() {
    let swarm = Swarm::start(1);
    let source = file(&swarm.dir, "source", 7, 9 * MIB + 5);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    for (name, extra) in [("spliced", &[][..]), ("copied", &["--no-splice"])] {
        let reader = Node::start(swarm.dir.path().join(name), &[swarm.nodes[0].addr], extra);
        let target = swarm.dir.path().join(format!("target-{name}"));
        let (code, said) = reader.get(&hash, &target, &[]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap(), "{name}");
    }
}

#[test]
fn a_large_sparse_file_goes_through_in_larger_chunks() {
    let swarm = Swarm::start(2);
    let path = swarm.dir.path().join("sparse");
    let mut source = fs::File::create(&path).unwrap();
    let length: u64 = (1 << 30) + 12_345;
    source.set_len(length).unwrap();
    for offset in [0, 300 << 20, length - 10] {
        source.seek(SeekFrom::Start(offset)).unwrap();
        source.write_all(b"not sparse").unwrap();
    }
    let hash = swarm.nodes[0].put(&path, &["--replicas", "0"]);
    let target = swarm.dir.path().join("target");
    let (code, said) = swarm.nodes[1].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(&target).unwrap()).unwrap();
    assert_eq!(hasher.finalize().to_hex().as_str(), hash);
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 5, 192 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let mut reader = Node::start(swarm.dir.path().join("reader"), &[swarm.nodes[0].addr], &[]);
    let target = swarm.dir.path().join("target");
    let command = Command::Get {
        hash: hash.parse().unwrap(),
        target: Some(target.clone()),
        force: false,
        mode: None,
        timeout: None,
    };
    let mut arrived = 0;
    reader.request_with(&command, |response| match response {
        Response::Progress(progress) if progress.stage == Stage::Downloading => {
            arrived = progress.done;
            arrived < 48 * MIB as u64
        }
        Response::Progress(_) => true,
        other => panic!("the download was not stopped in time: {other:?}"),
    });
    reader.kill();
    assert!(!target.exists());
    let reader = Node::start(swarm.dir.path().join("reader"), &[swarm.nodes[0].addr], &[]);
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
    let again = reader.status().downloaded_bytes;
    assert!(
        again <= 192 * MIB as u64 - arrived + 16 * MIB as u64,
        "{again} bytes came again, {arrived} were there"
    );
}

#[test]
fn a_file_that_changed_after_it_was_put_is_withdrawn() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 6, MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    fs::write(&source, content(7, MIB)).unwrap();
    let target = swarm.dir.path().join("target");
    let (code, said) = swarm.nodes[1].get(&hash, &target, &["--timeout", "5s"]);
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    assert!(!target.exists());
    wait_for("the change to be noticed", || swarm.nodes[0].counter("shares_changed") == 1);
    assert_eq!(swarm.nodes[0].files()[0].state, FileState::Changed);
}

#[test]
fn a_downloader_serves_what_it_has_and_the_file_spreads() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 8, 4 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let first = swarm.dir.path().join("first");
    assert_eq!(swarm.nodes[1].get(&hash, &first, &[]).0, Some(0));
    let Swarm { mut nodes, dir } = swarm;
    nodes[0].kill();
    let second = dir.path().join("second");
    let (code, said) = nodes[2].get(&hash, &second, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&second).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn rubbish_and_silence_on_every_socket_are_counted_and_change_nothing() {
    let swarm = Swarm::start(2);
    let addr = swarm.nodes[0].addr;
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 47, 48, 200, 1232, 1400] {
        udp.send_to(&content(length as u64, length), addr).unwrap();
    }
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut huge = TcpStream::connect(addr).unwrap();
    let _ = huge.write_all(&[[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0], [0; 8], [0; 8]].concat());
    let mut rubbish = TcpStream::connect(addr).unwrap();
    let _ = rubbish.write_all(&content(9, 10_000));
    wait_for("rubbish to be counted", || {
        let counters = swarm.nodes[0].status().counters;
        counters["datagrams_refused_length"] >= 3 && counters["datagrams_refused_version"] >= 1
    });
    let source = file(&swarm.dir, "source", 10, MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "2"]);
    let target = swarm.dir.path().join("target");
    let (code, said) = swarm.nodes[1].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    drop(silent);
}

#[test]
fn a_value_that_was_set_is_shown_at_every_node_at_once() {
    let swarm = Swarm::start(4);
    let mut address = String::new();
    for value in ["stable", "beta", "stable again"] {
        address = swarm.nodes[1].elver(&["set", "channel", value]).text().trim().to_owned();
        for (index, node) in swarm.nodes.iter().enumerate() {
            let found = node.elver(&["lookup", &address]);
            assert_eq!(found.text().trim(), value, "node {index}: {}", found.stderr);
        }
    }
    assert_eq!(swarm.nodes[3].elver(&["lookup", "--fresh", &address]).text().trim(), "stable again");
}

#[test]
fn a_value_that_no_node_has_any_more_is_shown_from_memory_unless_it_must_be_fresh() {
    let mut swarm = Swarm::start(2);
    let address = swarm.nodes[0].elver(&["set", "channel", "stable"]).text().trim().to_owned();
    let leaf = Node::start(swarm.dir.path().join("leaf"), &[swarm.nodes[0].addr], &["--leaf"]);
    wait_for("the leaf to know the others", || leaf.status().peers == 2);
    assert_eq!(leaf.elver(&["lookup", &address]).text().trim(), "stable");
    swarm.nodes.clear();
    let found = leaf.elver(&["lookup", &address]);
    assert_eq!(found.text().trim(), "stable", "{}", found.stderr);
    assert!(found.stderr.contains("within the last hour"), "{}", found.stderr);
    let fresh = leaf.elver(&["lookup", "--fresh", &address]);
    assert!(matches!(fresh.code, Some(3 | 4)), "{:?}: {}", fresh.code, fresh.stderr);
}

#[test]
fn a_node_waits_for_a_bootstrap_that_is_unreachable_at_its_start() {
    let dir = Scratch::new();
    let late = Node::start(dir.path().join("late"), &[], &[]);
    let addr = late.addr;
    drop(late);
    let early = Node::start(dir.path().join("early"), &[addr], &[]);
    wait_for("a word about the bootstrap", || early.log().contains("bootstrap"));
    assert_eq!(early.status().peers, 0);
    let late = Node::start_at(dir.path().join("late"), addr, &[], &[]);
    wait_for("the two to meet", || early.status().peers == 1 && late.status().peers == 1);
}

#[test]
fn a_leaf_fetches_and_shares_but_keeps_nothing_for_others() {
    let swarm = Swarm::start(2);
    let leaf = Node::start(swarm.dir.path().join("leaf"), &[swarm.nodes[0].addr], &["--leaf"]);
    wait_for("the leaf to know the others", || leaf.status().peers == 2);
    let source = file(&swarm.dir, "source", 11, MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    let target = swarm.dir.path().join("target");
    assert_eq!(leaf.get(&hash, &target, &[]).0, Some(0));
    let own = file(&swarm.dir, "own", 12, MIB);
    let hash = leaf.put(&own, &["--replicas", "2"]);
    assert_eq!(swarm.nodes[1].get(&hash, &swarm.dir.path().join("other"), &[]).0, Some(0));
    assert_eq!(leaf.status().pieces, 0);
    assert!(swarm.nodes.iter().all(|node| node.status().peers == 1));
}

#[test]
fn nodes_of_different_networks_do_not_hear_each_other() {
    let dir = Scratch::new();
    let one = Node::start(dir.path().join("one"), &[], &["--network", "shop"]);
    let other = Node::start(dir.path().join("other"), &[one.addr], &["--network", "museum"]);
    wait_for("the refusal", || one.counter("datagrams_refused_network") > 0);
    assert_eq!(other.status().peers, 0);
}

#[test]
fn ipv6_nodes_work_like_others() {
    let dir = Scratch::new();
    let listen = "[::1]:0".parse().unwrap();
    let one = Node::start_at(dir.path().join("one"), listen, &[], &[]);
    let other = Node::start_at(dir.path().join("other"), listen, &[one.addr], &[]);
    wait_for("the two to meet", || one.status().peers == 1 && other.status().peers == 1);
    let source = file(&dir, "source", 13, MIB);
    let hash = one.put(&source, &["--replicas", "2"]);
    assert_eq!(other.get(&hash, &dir.path().join("target"), &[]).0, Some(0));
}

#[test]
fn a_downloader_whose_source_died_gives_others_the_manifest_and_what_it_has() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 14, 256 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let Swarm { mut nodes, dir } = swarm;
    let first = dir.path().join("first");
    let mut command = support::program();
    command.arg("--dir").arg(&nodes[1].dir).args(["get", &hash, "-o", first.to_str().unwrap()]);
    let mut getting = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the first chunks", || nodes[1].files().iter().any(|file| file.have > 0));
    nodes[0].kill();
    let second = dir.path().join("second");
    let (code, said) = nodes[2].get(&hash, &second, &["--timeout", "8s"]);
    // The first download may complete before the kill.
    let complete = code == Some(0) && first.exists();
    assert!(complete || code == Some(4) && said.contains("verified bytes are kept"), "{code:?} {said}");
    let _ = getting.kill();
    let _ = getting.wait();
}

#[test]
fn a_lone_node_says_at_once_that_there_are_no_copies_and_makes_them_when_others_come() {
    let mut swarm = Swarm::start(1);
    let source = file(&swarm.dir, "source", 20, 9 * MIB);
    let ended = swarm.nodes[0].elver(&["put", "--replicas", "2", source.to_str().unwrap()]);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    let hash = blake3::hash(&fs::read(&source).unwrap()).to_hex().to_string();
    let second = Node::start(swarm.dir.path().join("n1"), &[swarm.nodes[0].addr], &[]);
    swarm.nodes.push(second);
    swarm.wait_for_copies(0, &hash);
}

#[test]
fn a_publisher_that_was_killed_goes_on_copying_as_soon_as_it_is_back() {
    let mut swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 21, 64 * MIB);
    let path = source.clone();
    swarm.nodes[2].request_with(
        &Command::Put { path, replicas: None, lifetime: None },
        |response| !matches!(response, Response::Progress(progress) if progress.stage == Stage::Replicating),
    );
    swarm.nodes[2].kill();
    swarm.nodes[2] = Node::start(swarm.dir.path().join("n2"), &[swarm.nodes[0].addr], &[]);
    let hash = blake3::hash(&fs::read(&source).unwrap()).to_hex().to_string();
    swarm.wait_for_copies(2, &hash);
}

#[test]
fn who_puts_a_file_twice_at_once_is_answered_twice() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 22, 32 * MIB);
    let put = Command::Put { path: source, replicas: None, lifetime: None };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| swarm.nodes[0].request(&put)));
        both.map(|one| one.join().unwrap()).into()
    });
    for answer in answers {
        assert!(matches!(answer, Some(Response::Done(Reply::Put { quorum: true, .. }))), "{answer:?}");
    }
}

#[test]
fn a_file_that_was_changed_or_deleted_here_is_fetched_anew() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 23, 3 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let target = swarm.dir.path().join("target");
    assert_eq!(swarm.nodes[1].get(&hash, &target, &[]).0, Some(0));
    fs::remove_file(&target).unwrap();
    assert_eq!(swarm.nodes[1].get(&hash, &target, &[]).0, Some(0), "deleted");
    assert_eq!(swarm.nodes[1].files().len(), 1);
    fs::write(&target, b"something else").unwrap();
    let streamed = swarm.nodes[1].elver(&["get", &hash, "-o", "-"]);
    assert_eq!(streamed.code, Some(0), "changed: {}", streamed.stderr);
}

#[test]
fn a_file_that_is_fetched_to_where_it_is_shared_stays_shared() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 24, 3 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let (code, said) = swarm.nodes[0].get(&hash, &source, &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = swarm.nodes[1].get(&hash, &swarm.dir.path().join("target"), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(swarm.nodes[0].counter("shares_changed"), 0);
}

#[test]
fn two_files_are_not_fetched_into_one() {
    let swarm = Swarm::start(2);
    let target = Some(swarm.dir.path().join("target"));
    let source = file(&swarm.dir, "source", 25, 192 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]).parse().unwrap();
    let slow = Command::Get { hash, target: target.clone(), force: false, mode: None, timeout: None };
    let second =
        Command::Get { hash: elver::id::Key([1; 32]), target, force: false, mode: None, timeout: None };
    swarm.nodes[1].request_with(&slow, |response| {
        if matches!(&response, Response::Progress(progress) if progress.stage == Stage::Downloading) {
            let refused = swarm.nodes[1].request(&second);
            assert!(
                matches!(&refused, Some(Response::Failed(failure)) if failure.message.contains("same file")),
                "{refused:?}"
            );
            return false;
        }
        true
    });
}

#[test]
fn a_download_ends_when_who_asked_for_it_goes_away() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 26, 192 * MIB);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]).parse().unwrap();
    for attempt in 0..4 {
        let target = swarm.dir.path().join(format!("target{attempt}"));
        let command =
            Command::Get { hash, target: Some(target.clone()), force: false, mode: None, timeout: None };
        swarm.nodes[1].request_with(
            &command,
            |response| !matches!(response, Response::Progress(progress) if progress.done > 8 * MIB as u64),
        );
        wait_for("the download to end", || swarm.nodes[1].status().downloads == 0);
        assert!(!target.exists(), "it went on for nobody");
    }
}

#[test]
fn a_holder_that_falls_silent_keeps_nobody_from_a_quorum() {
    let swarm = Swarm::start(3);
    let source = file(&swarm.dir, "source", 31, 48 * MIB);
    let pid = rustix::process::Pid::from_raw(swarm.nodes[2].pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let command = Command::Put { path: source, replicas: Some(3), lifetime: None };
    let mut stored = None;
    swarm.nodes[0].request_with(&command, |response| match response {
        Response::Progress(_) => true,
        Response::Done(Reply::Put { copies, quorum, .. }) => {
            stored = Some((copies, quorum));
            false
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(stored, Some((2, true)));
    assert_eq!(swarm.nodes[0].files()[0].copies, 2);
}

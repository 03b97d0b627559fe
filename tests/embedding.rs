//! A program that has a node inside, as the crate's front page shows it.

mod support;

use elver::net::{Config, Driver};
use elver::node::command::{Command, FailureReason, Reply, Response};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use support::{Node, Scratch, hold_address};

fn embedded(scratch: &Scratch, bootstrap: SocketAddr) -> Driver {
    let config = Config {
        dir: scratch.path().join("node"),
        listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
        bootstrap: vec![bootstrap],
        network: "elver test".to_owned(),
        handle_signals: false,
        ..Config::default()
    };
    Driver::start(config).expect("a node")
}

/// Fetches a file with the first command that the node gets.
fn fetch(driver: &mut Driver, hash: &str, target: PathBuf) -> Response {
    let hash = hash.parse().expect("a hash");
    let get = driver.command(Command::Get { hash, target: Some(target), force: false, timeout: Some(30) });
    loop {
        driver.turn(None).expect("a turn");
        while let Some((id, response)) = driver.poll_response() {
            if id == get && !matches!(response, Response::Progress(_)) {
                return response;
            }
        }
    }
}

#[test]
fn a_command_given_before_the_node_has_joined_waits_for_the_network() {
    let (a, scratch) = (Node::start(&[]), Scratch::new());
    let file = scratch.file("file", b"content");
    a.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = blake3::hash(b"content").to_string();
    let target = scratch.path().join("target");
    let response = fetch(&mut embedded(&scratch, a.address()), &hash, target.clone());
    assert!(matches!(response, Response::Done(Reply::Get { length: 7, .. })), "{response:?}");
    assert_eq!(std::fs::read(target).unwrap(), b"content");
}

#[test]
fn a_command_given_to_a_node_that_cannot_join_fails_and_says_so() {
    let scratch = Scratch::new();
    let mut driver = embedded(&scratch, hold_address().0);
    let response = fetch(&mut driver, &"01".repeat(32), scratch.path().join("target"));
    assert!(
        matches!(&response, Response::Failed(failure) if failure.reason == FailureReason::Unreachable),
        "{response:?}"
    );
}

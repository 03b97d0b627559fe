//! A program that embeds a node, as the crate's front page shows.

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
        bootstrap: vec![bootstrap.into()],
        network: "elver test".to_owned(),
        handle_signals: false,
        ..Config::default()
    };
    Driver::start(config).expect("a node")
}

/// Fetches a file with the first command that the node gets.
fn fetch(driver: &mut Driver, hash: &str, target: PathBuf) -> Response {
    let hash = hash.parse().expect("a hash");
    let get = driver.command(Command::Get {
        hash,
        target: Some(target),
        force: false,
        mode: None,
        timeout: Some(30),
    });
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
    let (a, scratch) = (Node::alone(&[]), Scratch::new());
    let file = scratch.file("file", b"content");
    a.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = blake3::hash(b"content").to_string();
    let target = scratch.path().join("target");
    let response = fetch(&mut embedded(&scratch, a.addr), &hash, target.clone());
    assert!(matches!(response, Response::Done(Reply::Get { length: 7, .. })), "{response:?}");
    assert_eq!(std::fs::read(target).unwrap(), b"content");
}

#[test]
fn a_program_reads_a_file_as_it_arrives_and_nothing_of_it_is_kept() {
    let (a, scratch) = (Node::alone(&[]), Scratch::new());
    let content: Vec<u8> = (0..12_000_000_u32).map(|number| (number / 5) as u8).collect();
    let file = scratch.file("file", &content);
    a.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = blake3::hash(&content).to_string().parse().expect("a hash");
    let mut driver = embedded(&scratch, a.addr);
    let read = driver.command(Command::Read { hash, part: None, timeout: Some(30) });
    let (mut came, mut announced, mut buffer) = (Vec::new(), 0, vec![0; 64 << 10]);
    let done = loop {
        driver.turn(None).expect("a turn");
        loop {
            match driver.read_content(read, &mut buffer).expect("content") {
                0 => break,
                length => came.extend_from_slice(&buffer[..length]),
            }
        }
        let mut last = None;
        while let Some((id, response)) = driver.poll_response() {
            match response {
                Response::Content(content) if id == read => {
                    assert_eq!(content.offset, announced, "content comes in order");
                    announced += u64::from(content.length);
                }
                Response::Content(_) | Response::Progress(_) => {}
                other => last = Some(other),
            }
        }
        if let Some(last) = last {
            break last;
        }
    };
    assert!(matches!(done, Response::Done(Reply::Read { bytes: 12_000_000, .. })), "{done:?}");
    assert!(came == content && announced == 12_000_000);
    // The disk removes the window, and needs turns of the driver for it.
    let incoming = scratch.path().join("node/incoming");
    support::wait_for("the window to be gone", || {
        driver.turn(Some(std::time::Duration::ZERO)).expect("a turn");
        (std::fs::read_dir(&incoming).unwrap().count() == 0).then_some(())
    });
    // A cancelled read ends too.
    let read = driver.command(Command::Read { hash, part: None, timeout: Some(30) });
    support::wait_for("content", || {
        driver.turn(Some(std::time::Duration::from_millis(10))).expect("a turn");
        (driver.read_content(read, &mut buffer[..1]).expect("content") == 1).then_some(())
    });
    driver.cancel(read);
    support::wait_for("the window to be gone", || {
        driver.turn(Some(std::time::Duration::ZERO)).expect("a turn");
        (std::fs::read_dir(&incoming).unwrap().count() == 0).then_some(())
    });
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

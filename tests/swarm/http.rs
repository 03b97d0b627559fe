//! The HTTP gateway: what one node put, a client without Elver fetches from another.

use crate::network::{MIB, Node, Swarm, file, wait_for};
use crate::support::program;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Sends one request on a connection of its own, and returns the status, the head and the body.
fn ask(addr: SocketAddr, request: &str) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    write!(socket, "{request}\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, answer[end..].to_vec())
}

fn get(addr: SocketAddr, path: &str) -> (u16, String, Vec<u8>) {
    ask(addr, &format!("GET {path} HTTP/1.1"))
}

#[test]
fn a_client_without_elver_streams_files_and_reads_the_nodes_state() {
    let swarm = Swarm::start(2);
    let gateway =
        Node::start(swarm.dir.path().join("gateway"), &[swarm.nodes[0].addr], &["--http", "127.0.0.1:0"]);
    let addr = gateway.status().http.expect("a gateway");
    wait_for("the gateway to know the others", || gateway.status().peers == 2);
    let length = 9 * MIB + 77;
    let source = file(&swarm.dir, "source", 70, length);
    let bytes = fs::read(&source).unwrap();
    let hash = swarm.nodes[1].put(&source, &["--replicas", "0"]);

    // A range alone costs the chunks that contain it.
    let before = gateway.status().downloaded_bytes;
    let (status, head, body) = ask(addr, &format!("GET /{hash} HTTP/1.1\r\nRange: bytes=5000000-5000099"));
    assert_eq!((status, &body[..]), (206, &bytes[5_000_000..5_000_100]), "{head}");
    assert!(head.contains(&format!("Content-Range: bytes 5000000-5000099/{length}\r\n")), "{head}");
    let fetched = gateway.status().downloaded_bytes - before;
    assert!(fetched < MIB as u64, "{fetched} bytes were fetched for a hundred");

    let (status, head, body) = get(addr, &format!("/{hash}/clip.mp4"));
    assert!(status == 200 && body == bytes, "{head}");
    assert!(head.contains(&format!("Content-Length: {length}\r\n")) && head.contains("video/mp4"), "{head}");
    assert_eq!(get(addr, &format!("/{}", "00".repeat(32))).0, 404);

    let (status, head, page) = get(addr, "/");
    assert!(
        status == 200 && head.contains("Content-Security-Policy") && page.ends_with(b"</html>\n"),
        "{head}"
    );
    let (status, _, json) = get(addr, "/api/status");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((status, json["id"].as_str()), (200, Some(&gateway.status().id[..])));
    let (status, _, metrics) = get(addr, "/metrics");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(status == 200 && metrics.contains("\nelver_peers 2\n"), "{metrics}");
    assert!(!metrics.contains(&hash) && !metrics.contains(&gateway.status().id));

    // Nothing of what was streamed is kept.
    assert!(gateway.files().is_empty());
    wait_for("the windows to go", || fs::read_dir(gateway.dir.join("incoming")).unwrap().count() == 0);
}

#[test]
fn a_gateway_that_other_machines_would_reach_needs_a_token() {
    let dir = crate::support::Scratch::new();
    let mut command = program();
    command.arg("--dir").arg(dir.path().join("node")).args([
        "node",
        "--http",
        "0.0.0.0:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    let ended = crate::support::finish(&mut command);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--http-token-file"), "{}", ended.stderr);
}

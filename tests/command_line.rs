//! The command line as users and scripts see it: every exit code, and the message with it.

mod support;

use rustix::process::Signal;
use serde_json::json;
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use support::{FakeDaemon, LIMIT, Node, Scratch, elver, finish, hold_address, program};

fn unknown() -> String {
    "0123456789abcdef".repeat(4)
}

/// The public key of a node: the publisher of its values.
fn public_key(node: &Node) -> String {
    let object = node.elver(["id", "--json"]).expect(0).objects().remove(0);
    object["public"].as_str().unwrap().to_owned()
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u64).flat_map(|index| (index * 0x9e37_79b9).to_le_bytes()).take(length).collect()
}

fn hash(content: &[u8]) -> String {
    blake3::hash(content).to_string()
}

// Without a daemon.

#[test]
fn help_and_version_are_asked_for_and_succeed() {
    let help = elver(["--help"]).expect(0);
    assert!(help.text().contains("Exit codes:"), "{}", help.text());
    let version = elver(["--version"]).expect(0);
    assert_eq!(version.text(), format!("elver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_daemon_every_client_exits_4_and_says_how_to_start_one() {
    let (scratch, unknown) = (Scratch::new(), unknown());
    let file = scratch.file("file", b"x");
    let address = format!("{unknown}/name");
    let commands: [&[&str]; 11] = [
        &["id"],
        &["status"],
        &["peers"],
        &["ls"],
        &["leave"],
        &["explain", &unknown],
        &["rm", &unknown],
        &["get", &unknown, "-o", "-"],
        &["set", "name", "value"],
        &["lookup", &address],
        &["put", file.to_str().unwrap()],
    ];
    for command in commands {
        let ended = finish(program().args(command).arg("--dir").arg(scratch.path())).expect(4);
        assert!(ended.stderr.contains("control.sock"), "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("elver node --dir"), "{command:?}: {}", ended.stderr);
        assert_eq!(ended.text(), "", "{command:?}");
    }
}

#[test]
fn with_json_an_error_is_an_object_on_standard_output_too() {
    let scratch = Scratch::new();
    let ended = finish(program().args(["id", "--json"]).env("ELVER_DIR", scratch.path())).expect(4);
    let error = &ended.objects()[0]["error"];
    assert_eq!(error["code"].as_u64(), Some(4));
    assert_eq!(error["reason"].as_str(), Some("unreachable"));
    assert!(ended.stderr.contains(error["message"].as_str().unwrap()), "{}", ended.stderr);
    let ended = elver(["get", "12", "--json"]).expect(2);
    assert_eq!(ended.objects()[0]["error"]["code"], 2);
}

#[test]
fn what_makes_no_sense_exits_2() {
    let unknown = unknown();
    let commands: [&[&str]; 11] = [
        &[],
        &["explode"],
        &["get"],
        &["get", "123"],
        &["get", &unknown[1..]],
        &["rm", "not a hash"],
        &["lookup", &unknown],
        &["set", "a/b", "value"],
        &["node", "--quota", "lots"],
        &["node", "--ttl", "0"],
        &["put", "--ttl", "366d", "file"],
    ];
    for command in commands {
        let ended = elver(command).expect(2);
        assert!(!ended.stderr.is_empty(), "{command:?}");
        assert_eq!(ended.text(), "", "{command:?}");
    }
}

#[test]
fn a_wrong_configuration_exits_2_and_names_the_place() {
    let scratch = Scratch::new();
    let file = scratch.file("elver.toml", b"replicas = 3\nquota = 'lots'\n");
    let place = format!("{}, line 2", file.display());
    let ended = finish(program().arg("node").arg("--dir").arg(scratch.path())).expect(2);
    assert!(ended.stderr.contains(&place) && ended.stderr.contains("`quota`"), "{}", ended.stderr);

    let other = scratch.file("other.toml", b"\nttl = 'forever'\n");
    let ended = finish(program().arg("node").arg("--config").arg(&other)).expect(2);
    assert!(ended.stderr.contains("other.toml, line 2: `ttl`"), "{}", ended.stderr);

    let empty = Scratch::new();
    let mut command = program();
    let ended =
        finish(command.arg("node").arg("--dir").arg(empty.path()).env("ELVER_LEAF", "perhaps")).expect(2);
    assert!(ended.stderr.contains("ELVER_LEAF"), "{}", ended.stderr);
}

#[test]
fn a_file_that_cannot_be_put_exits_1_without_asking_the_node() {
    let scratch = Scratch::new();
    let ended = finish(program().args(["put", "/nonexistent"]).arg("--dir").arg(scratch.path())).expect(1);
    assert!(ended.stderr.contains("/nonexistent"), "{}", ended.stderr);
}

#[test]
fn content_that_does_not_verify_exits_6() {
    let failure =
        json!({"event": "failed", "reason": "unverified", "message": "every source sent wrong bytes"});
    let ended = FakeDaemon::answering(&failure).elver(["get", &unknown(), "-o", "-"]).expect(6);
    assert!(ended.stderr.contains("every source sent wrong bytes"), "{}", ended.stderr);
    assert_eq!(ended.text(), "");

    let content = json!({"event": "content", "offset": 0, "length": 5, "file_length": 5});
    let done = json!({
        "event": "done", "reply": "read", "hash": unknown(), "length": 5, "start": 0, "bytes": 5, "sources": 1
    });
    let answer = format!("{content}\nwrong{done}\n").into_bytes();
    FakeDaemon::writing(answer).elver(["get", &unknown(), "-o", "-"]).expect(6);
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let file = json!({
        "hash": unknown(), "length": 1, "path": "/x", "copies": 1, "replicas": 1, "have": 1, "cached": false,
        "state": "shared"
    });
    let files = vec![file; 10_000];
    let daemon = FakeDaemon::answering(&json!({"event": "done", "reply": "list", "files": files}));
    for arguments in [&["ls"][..], &["ls", "--json"], &["--help"]] {
        let mut child = program()
            .args(arguments)
            .env("ELVER_DIR", daemon.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

// With the real daemon.

/// A node as a service manager runs it: it says when it is ready, listens for several users where it is told to, reads its
/// configuration again on SIGHUP, and says that it stops.
#[test]
fn a_node_under_a_service_manager() {
    let (scratch, (address, listener, socket)) = (Scratch::new(), hold_address());
    drop((listener, socket));
    let manager = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut lines = String::new();
    let mut heard = |expected: &str| {
        while !lines.contains(expected) {
            let mut buffer = [0; 4096];
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {expected}: {error}"));
            lines += std::str::from_utf8(&buffer[..length]).unwrap();
        }
        std::mem::take(&mut lines)
    };
    let (dir, control) = (scratch.path().join("node"), scratch.path().join("control"));
    let config = scratch
        .file("elver.toml", b"qouta = 7\nupload_rate = '1MiB'\nsocket = 'control'\nsocket_mode = 660\n");
    let command_line = ["--network", "elver test", "-v"];
    let mut command = program();
    command.env("NOTIFY_SOCKET", scratch.path().join("notify")).env("WATCHDOG_USEC", "1000000");
    command.env("ELVER_CONFIG", &config);
    let mut node = Node::start_as(command, dir, address, &[], &command_line);
    heard("READY=1\n");
    heard("STATUS=well; 0 peers, 0 files shared, 0 pieces stored for others\n");
    heard("WATCHDOG=1\n");
    assert!(node.log().contains("elver.toml, line 1: there is no setting `qouta`"), "{}", node.log());
    assert_eq!(control.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let limit = || {
        let ended = finish(program().arg("--socket").arg(&control).args(["limit", "--json"])).expect(0);
        ended.objects().remove(0)["rates"]["upload"].clone()
    };
    assert_eq!(limit(), 1 << 20);
    std::fs::write(&config, "quota = '2GiB'\nupload_rate = '2MiB'\nsocket = 'control'\nsocket_mode = 660\n")
        .unwrap();
    let file = scratch.file("file", b"content");
    finish(program().arg("--socket").arg(&control).args(["put", "--replicas", "0"]).arg(file)).expect(0);
    let mut events = program();
    events.arg("--socket").arg(&control).args(["events", "--json", "--after", "0"]).stdout(Stdio::piped());
    let mut events = events.spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(events.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _ = (events.kill(), events.wait());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["hash"], hash(b"content"), "{line}");
    node.signal(Signal::HUP);
    heard("RELOADING=1\n");
    heard("READY=1\n");
    assert_eq!(limit(), 2 << 20);
    let log = node.log();
    assert!(log.contains("changed at once: upload_rate") && log.contains("restarted: quota"), "{log}");
    node.signal(Signal::TERM);
    heard("STOPPING=1\n");
    assert_eq!(node.terminate().code(), Some(0));
    assert!(!control.exists());
}

#[test]
fn a_directory_that_cannot_be_written_exits_1() {
    let scratch = Scratch::new();
    // No user can make a directory below a file, not even root.
    let dir = scratch.file("file", b"").join("below");
    let ended = finish(program().arg("node").arg("--dir").arg(&dir)).expect(1);
    assert!(ended.stderr.contains(&dir.display().to_string()), "{}", ended.stderr);
}

#[test]
fn a_port_that_is_taken_exits_1() {
    let (scratch, (address, _listener, _socket)) = (Scratch::new(), hold_address());
    let mut command = program();
    command.args(["node", "--listen", &address.to_string(), "--dir"]).arg(scratch.path());
    let ended = finish(&mut command).expect(1);
    assert!(ended.stderr.contains(&address.to_string()), "{}", ended.stderr);
}

#[test]
fn a_directory_in_use_by_another_node_exits_1() {
    let node = Node::alone(&[]);
    let (address, ..) = hold_address();
    let ended = node.elver(["node", "--listen", &address.to_string()]).expect(1);
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
    node.elver(["id"]).expect(0);
}

#[test]
fn a_node_says_who_and_where_it_is() {
    let node = Node::alone(&[]);
    let object = node.elver(["id", "--json"]).expect(0).objects().remove(0);
    let (id, key) = (object["id"].as_str().unwrap(), object["public"].as_str().unwrap());
    assert_eq!(node.elver(["id"]).expect(0).text(), format!("id   {id}\nkey  {key}\n"));
    let line = node.log();
    assert!(line.contains(id) && line.contains(&node.addr.to_string()), "{line}");
    assert_eq!(node.status_json()["id"], id);
    assert_eq!(node.elver(["peers"]).expect(0).text(), "");
}

#[test]
fn a_file_is_put_listed_and_removed() {
    let (node, scratch, content) = (Node::alone(&[]), Scratch::new(), content(300_000));
    let file = scratch.file("a b", &content);
    let name = file.to_str().unwrap();
    let put = node.elver(["put", "--replicas", "0", name]).expect(0);
    assert_eq!(put.text(), format!("{}  {name}\n", hash(&content)));
    let listed = node.elver(["ls", "--json"]).expect(0).objects();
    assert_eq!(listed.len(), 1);
    assert_eq!(&listed[0]["hash"], &json!(hash(&content)));
    assert_eq!(&listed[0]["file"], &json!(name));
    assert_eq!(node.elver(["rm", &hash(&content)]).expect(0).text(), "");
    assert_eq!(node.elver(["ls"]).expect(0).text(), "");
    assert_eq!(std::fs::read(&file).unwrap(), content);
}

#[test]
fn a_file_with_a_newline_in_its_name_is_escaped_like_b3sum_does() {
    let (node, scratch) = (Node::alone(&[]), Scratch::new());
    let file = scratch.file("a\nb", b"");
    let put = node.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    assert_eq!(put.text(), format!("\\{}  {}\n", hash(b""), scratch.path().join("a\\nb").display()));
}

#[test]
fn a_file_is_got_at_another_node() {
    let a = Node::alone(&[]);
    let b = Node::join(&a, &[]);
    let (scratch, content) = (Scratch::new(), content(1_000_000));
    let file = scratch.file("file", &content);
    a.elver(["put", "--replicas", "2", file.to_str().unwrap()]).expect(0);
    let copy = scratch.path().join("copy");
    let arguments = ["get", &hash(&content), "-o", copy.to_str().unwrap()];
    assert_eq!(b.elver(arguments).expect(0).text(), "");
    assert_eq!(std::fs::read(&copy).unwrap(), content);
    // A target that already has the content succeeds. A target with other content is not replaced.
    b.elver(arguments).expect(0);
    std::fs::write(&copy, "mine").unwrap();
    let again = b.elver(arguments).expect(1);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(std::fs::read(&copy).unwrap(), b"mine");
    assert!(b.elver(["get", &hash(&content), "-o", "-"]).expect(0).stdout == content);
}

#[test]
fn a_value_is_found_at_another_node() {
    let a = Node::alone(&[]);
    let b = Node::join(&a, &[]);
    let address = a.elver(["set", "motd", "the river is rising"]).expect(0).text();
    let address = address.trim();
    assert_eq!(address, format!("{}/motd", public_key(&a)));
    assert_eq!(b.elver(["lookup", address]).expect(0).text(), "the river is rising");
    let object = b.elver(["lookup", "--json", "--fresh", address]).expect(0).objects().remove(0);
    assert_eq!(object["value"], "the river is rising");
}

#[test]
fn what_nobody_has_exits_3() {
    let a = Node::alone(&[]);
    let b = Node::join(&a, &[]);
    let nothing = b.elver(["get", &unknown(), "-o", "-"]).expect(3);
    assert_eq!(nothing.text(), "");
    assert!(nothing.stderr.contains("asked"), "{}", nothing.stderr);
    let key = public_key(&a);
    b.elver(["lookup", &format!("{key}/nothing")]).expect(3);
    b.elver(["rm", &unknown()]).expect(3);
}

#[test]
fn a_node_without_peers_exits_4_when_asked_for_what_it_does_not_have() {
    Node::alone(&[]).elver(["get", &unknown(), "-o", "-"]).expect(4);
}

#[test]
fn fewer_copies_than_a_quorum_exit_5_and_say_how_many_there_are() {
    let (node, scratch) = (Node::alone(&[]), Scratch::new());
    let file = scratch.file("file", b"alone");
    let put = node.elver(["put", "--json", file.to_str().unwrap()]).expect(5);
    let object = &put.objects()[0];
    assert_eq!(&object["copies"], &json!(1));
    assert_eq!(&object["replicas"], &json!(3));
    assert_eq!(&object["quorum"], &json!(false));
    assert!(put.stderr.contains("1 of 3"), "{}", put.stderr);
    assert_eq!(put.objects().len(), 1);
}

#[test]
fn a_quota_that_is_used_up_exits_7_and_is_not_in_the_way_of_what_is_streamed() {
    let a = Node::alone(&[]);
    let b = Node::join(&a, &["--quota", "64KiB"]);
    let (scratch, content) = (Scratch::new(), content(1_000_000));
    let file = scratch.file("file", &content);
    a.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    assert!(b.elver(["get", &hash(&content), "-o", "-"]).expect(0).stdout == content);
    let full = json!({"event": "failed", "reason": "no_space", "message": "it does not fit"});
    FakeDaemon::answering(&full).elver(["get", &hash(&content), "-o", "-"]).expect(7);
    // The quota limits the cache only, not a file that the user names.
    let copy = scratch.path().join("copy");
    b.elver(["get", &hash(&content), "-o", copy.to_str().unwrap()]).expect(0);
}

#[test]
fn leave_stops_the_node_and_frees_its_directory() {
    let node = Node::alone(&[]);
    let key = node.elver(["id"]).expect(0).text();
    node.elver(["leave"]).expect(0);
    let (code, scratch) = node.ended();
    assert_eq!(code, Some(0));
    let node = Node::start_in(scratch, &[]);
    assert_eq!(node.elver(["id"]).expect(0).text(), key);
}

#[test]
fn a_signal_stops_the_node_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::alone(&[]);
        node.signal(signal);
        assert_eq!(node.ended().0, Some(0), "{signal:?}");
    }
}

#[test]
fn the_demo_gives_the_file_back_and_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let ended = finish(program().args(["demo", "--json"]).env("TMPDIR", scratch.path())).expect(0);
    let steps: Vec<_> = ended.objects().iter().map(|object| object["step"].clone()).collect();
    assert_eq!(steps, ["started", "joined", "put", "copied", "killed", "got", "compared", "done"]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_file_whose_name_is_no_text_is_put_and_fetched() {
    let (a, scratch) = (Node::alone(&[]), Scratch::new());
    let b = Node::join(&a, &[]);
    let source = scratch.path().join(OsStr::from_bytes(b"source\xff"));
    let target = scratch.path().join(OsStr::from_bytes(b"target\xfe\n"));
    std::fs::write(&source, b"content").unwrap();
    a.elver([OsStr::new("put"), OsStr::new("--replicas"), OsStr::new("0"), source.as_os_str()]).expect(0);
    b.elver([OsStr::new("get"), OsStr::new(&hash(b"content")), OsStr::new("-o"), target.as_os_str()])
        .expect(0);
    assert_eq!(std::fs::read(&target).unwrap(), b"content");
    assert_eq!(b.elver(["ls"]).expect(0).text().lines().count(), 1);
}

#[test]
fn a_directory_too_deep_for_a_socket_exits_1_and_says_what_to_do() {
    let scratch = Scratch::new();
    let deep = scratch.path().join("deep".repeat(40));
    let mut command = program();
    let ended = finish(command.args(["node", "--listen", "127.0.0.1:0", "--dir"]).arg(deep)).expect(1);
    assert!(ended.stderr.contains("choose a directory with a shorter path"), "{}", ended.stderr);
}

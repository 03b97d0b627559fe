//! Streaming: files pass through a window smaller than the file, in parts, to clients that connect, pause and leave.

use crate::network::{MIB, Node, Swarm, content, file, wait_for};
use crate::support::{Scratch, program};
use elver::node::command::{Command, FileState, Response, SharedFile};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

/// A client that streams a file. The test decides when it reads.
struct Stream(Child);

impl Stream {
    fn start(node: &Node, hash: &str) -> Stream {
        let mut command = program();
        command.arg("--dir").arg(&node.dir).args(["get", hash, "-o", "-"]);
        Stream(command.stdout(Stdio::piped()).spawn().expect("the program starts"))
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.stdout.as_mut().expect("a pipe").read_exact(&mut bytes).expect("content");
        bytes
    }

    /// Reads the rest. Returns it with the exit code.
    fn finish(mut self) -> (Vec<u8>, Option<i32>) {
        let mut bytes = Vec::new();
        self.0.stdout.take().expect("a pipe").read_to_end(&mut bytes).expect("content");
        (bytes, self.0.wait().expect("an end").code())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The total size of the files that receive pieces and windows.
fn incoming_bytes(node: &Node) -> u64 {
    let files = fs::read_dir(node.dir.join("incoming")).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_file_larger_than_the_quota_is_streamed_and_a_reader_that_pauses_stops_the_window() {
    let dir = Scratch::new();
    let seed = Node::start(dir.path().join("seed"), &[], &[]);
    let reader = Node::start(dir.path().join("reader"), &[seed.addr], &["--quota", "16MiB"]);
    let length = 40 * MIB;
    let source = file(&dir, "source", 60, length);
    let bytes = fs::read(&source).unwrap();
    let hash = seed.put(&source, &["--replicas", "0"]);
    let mut stream = Stream::start(&reader, &hash);
    assert!(stream.read(MIB) == bytes[..MIB]);
    // The client stops reading: the window fills up and grows no further.
    let (window, chunk) = (8 * MIB as u64, 256 << 10);
    wait_for("a full window", || incoming_bytes(&reader) >= window - chunk);
    for _ in 0..10 {
        let status = reader.status();
        assert!(incoming_bytes(&reader) <= window, "{} bytes", incoming_bytes(&reader));
        assert!(status.downloaded_bytes < window + 4 * MIB as u64, "{} bytes came", status.downloaded_bytes);
        assert_eq!(status.reads, 1);
        assert_eq!(status.stored_bytes, 0);
    }
    let (rest, code) = stream.finish();
    assert_eq!(code, Some(0));
    assert_eq!(rest.len(), length - MIB);
    assert!(rest == bytes[MIB..]);
    wait_for("the window to be gone", || incoming_bytes(&reader) == 0);
    assert_eq!(reader.status().reads, 0);
}

#[test]
fn a_quota_full_of_what_others_stored_is_not_in_the_way() {
    let swarm = Swarm::start_with(3, &["--quota", "16MiB"]);
    let stored = file(&swarm.dir, "stored", 61, 15 * MIB);
    swarm.nodes[0].put(&stored, &["--replicas", "3"]);
    let reader = &swarm.nodes[2];
    wait_for("a full quota", || reader.status().stored_bytes > 14 * MIB as u64);
    let before = reader.status().stored_bytes;
    let source = file(&swarm.dir, "source", 62, 12 * MIB + 77);
    let hash = swarm.nodes[1].put(&source, &["--replicas", "0"]);
    let read = reader.elver(&["get", &hash, "-o", "-"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    assert!(read.stdout == fs::read(&source).unwrap());
    assert!(reader.status().stored_bytes >= before, "nothing of the others' was given up for it");
    // The same holds for a file of one chunk.
    let small = file(&swarm.dir, "small", 63, 1000);
    let hash = swarm.nodes[1].put(&small, &["--replicas", "0"]);
    let read = reader.elver(&["get", &hash, "-o", "-", "--range", "-10"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    assert_eq!(&read.stdout[..], &content(63, 1000)[990..], "{}", read.stderr);
}

#[test]
fn a_client_that_is_killed_leaves_nothing_behind_and_another_goes_on_from_there() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 64, 24 * MIB);
    let bytes = fs::read(&source).unwrap();
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let reader = &swarm.nodes[1];
    let mut stream = Stream::start(reader, &hash);
    let first = stream.read(3 * MIB + 5);
    drop(stream);
    wait_for("the window to be gone", || reader.status().reads == 0 && incoming_bytes(reader) == 0);
    assert!(first == bytes[..first.len()]);
    let rest = reader.elver(&["get", &hash, "-o", "-", "--offset", &first.len().to_string()]);
    assert_eq!(rest.code, Some(0), "{}", rest.stderr);
    assert!(rest.stdout == bytes[first.len()..]);
}

#[test]
fn a_stream_goes_on_when_its_only_source_comes_back() {
    let mut swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 65, 24 * MIB);
    let bytes = fs::read(&source).unwrap();
    let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
    let reader = swarm.nodes.pop().unwrap();
    let mut stream = Stream::start(&reader, &hash);
    let first = stream.read(MIB);
    wait_for("a full window", || incoming_bytes(&reader) >= 7 * MIB as u64);
    let addr = swarm.nodes[0].addr;
    swarm.nodes[0].kill();
    // The client can still read what is in the window.
    let more = stream.read(2 * MIB);
    let again = Node::start_at(swarm.dir.path().join("n0"), addr, &[reader.addr], &[]);
    let (rest, code) = stream.finish();
    assert_eq!(code, Some(0), "{}", reader.log());
    assert!([first, more, rest].concat() == bytes);
    drop(again);
}

#[test]
fn a_file_of_this_node_that_has_changed_is_not_passed_on() {
    let swarm = Swarm::start(2);
    let bytes = content(66, 6 * MIB);
    let (here, there) = (&swarm.nodes[1], &swarm.nodes[0]);
    let source = file(&swarm.dir, "source", 66, 6 * MIB);
    let copy = swarm.dir.file("copy", &bytes);
    let hash = here.put(&copy, &["--replicas", "0"]);
    assert_eq!(there.put(&source, &["--replicas", "0"]), hash);
    // The intact local file serves the read.
    let read = here.elver(&["get", &hash, "-o", "-"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    assert_eq!(here.status().downloaded_bytes, 0, "{}", read.stderr);
    assert!(read.stdout == bytes);
    // One byte changes, and the file's metadata stay the same.
    let modified = fs::metadata(&copy).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&copy).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[3 * MIB] ^ 1], 3 * MIB as u64).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let read = here.elver(&["get", &hash, "-o", "-"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    assert!(read.stdout == bytes, "what was wrong came from the other node");
}

#[test]
fn parts_are_named_by_their_user_and_no_bytes_are_a_part_too() {
    let swarm = Swarm::start(1);
    let (node, dir) = (&swarm.nodes[0], swarm.dir.path());
    let source = file(&swarm.dir, "source", 67, 3 * MIB);
    let hash = node.put(&source, &["--replicas", "0"]);
    let empty = node.put(&swarm.dir.file("empty", b""), &["--replicas", "0"]);
    let unnamed = node.elver(&["get", &hash, "--range", "0-9"]);
    assert_eq!(unnamed.code, Some(2), "{}", unnamed.stderr);
    assert!(unnamed.stderr.contains("-o FILE") && unnamed.stderr.contains("-o -"), "{}", unnamed.stderr);
    let target = dir.join("part");
    let arguments = ["get", &hash, "--range", "5-9", "-o", target.to_str().unwrap(), "--json"];
    let named = node.elver(&arguments).expect(0);
    let object = &named.objects()[0];
    assert_eq!(object["offset"].as_u64(), Some(5), "{object}");
    assert_eq!(object["length"].as_u64(), Some(5), "{object}");
    assert_eq!(object["hash"].as_str(), Some(&hash[..]));
    assert_eq!(fs::read(&target).unwrap(), &content(67, 3 * MIB)[5..10]);
    // The download does not replace an existing file.
    assert_eq!(node.elver(&arguments).code, Some(1));
    for (hash, arguments) in [
        (&hash, &["--length", "0"][..]),
        (&hash, &["--offset", "3MiB", "--length", "0"]),
        (&empty, &[]),
        (&empty, &["--length", "5"]),
    ] {
        let nothing = node.elver(&[&["get", hash, "-o", "-"], arguments].concat());
        assert_eq!(nothing.code, Some(0), "{arguments:?} {}", nothing.stderr);
        assert_eq!(nothing.stdout.len(), 0, "{arguments:?} {}", nothing.stderr);
    }
    let beyond = node.elver(&["get", &hash, "-o", "-", "--offset", "3MiB", "--length", "1"]);
    assert_eq!(beyond.code, Some(2), "{}", beyond.stderr);
    assert_eq!(beyond.stdout.len(), 0, "{}", beyond.stderr);
}

#[test]
fn downloads_that_find_no_room_wait_for_their_turn() {
    let swarm = Swarm::start(2);
    assert_eq!(swarm.nodes[0].elver(&["limit", "--upload", "4MiB"]).code, Some(0));
    let hashes: Vec<String> = (0..12)
        .map(|number| {
            let source = file(&swarm.dir, &format!("source{number}"), 70 + number, MIB);
            swarm.nodes[0].put(&source, &["--replicas", "0"])
        })
        .collect();
    let reader = &swarm.nodes[1];
    let most = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for (number, hash) in (0..).zip(&hashes) {
            let target = swarm.dir.path().join(format!("target{number}"));
            scope.spawn(move || {
                let (code, said) = reader.get(hash, &target, &[]);
                assert_eq!(code, Some(0), "{said}");
                assert!(fs::read(&target).unwrap() == content(70 + number, MIB));
            });
        }
        wait_for("downloads that wait", || {
            let status = reader.status();
            most.fetch_max(status.downloads, std::sync::atomic::Ordering::Relaxed);
            let queued = |file: &SharedFile| file.state == FileState::Queued;
            status.queued > 0 && reader.files().iter().any(queued)
        });
    });
    assert!(most.into_inner() <= 8);
    let status = reader.status();
    assert_eq!(status.downloads, 0);
    assert_eq!(status.queued, 0);
}

#[test]
fn of_several_files_each_is_fetched_and_the_first_failure_is_the_exit_code() {
    let swarm = Swarm::start(2);
    let hashes: Vec<String> = (0..20)
        .map(|number| {
            let source = file(&swarm.dir, &format!("source{number}"), 90 + number, 1000);
            swarm.nodes[0].put(&source, &["--replicas", "0"])
        })
        .collect();
    let target = swarm.dir.path().join("targets");
    fs::create_dir(&target).unwrap();
    let unknown = "01".repeat(32);
    let mut arguments = vec!["get", "-o", target.to_str().unwrap()];
    arguments.extend(hashes[..10].iter().map(String::as_str));
    arguments.push(&unknown);
    arguments.extend(hashes[10..].iter().map(String::as_str));
    let ended = swarm.nodes[1].elver(&arguments);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for (number, hash) in (0..).zip(&hashes) {
        assert!(fs::read(target.join(hash)).unwrap() == content(90 + number, 1000));
    }
}

#[test]
fn more_clients_than_are_served_at_a_time_are_served_one_after_another() {
    let swarm = Swarm::start(1);
    let socket = swarm.nodes[0].dir.join("control.sock");
    let command = serde_json::to_string(&Command::Id).unwrap() + "\n";
    let mut clients: Vec<UnixStream> = (0..300)
        .map(|_| {
            let mut client = UnixStream::connect(&socket).expect("the node takes or keeps waiting");
            client.write_all(command.as_bytes()).unwrap();
            client
        })
        .collect();
    for client in clients.drain(..) {
        client.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        assert!(matches!(serde_json::from_str(&line).unwrap(), Response::Done(_)), "{line}");
    }
}

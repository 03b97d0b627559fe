//! Nodes with a damaged or full directory, a blocked log, or too few descriptors.

use crate::network::{self, MIB, Node, Swarm, content, file};
use crate::support::{Ended, Scratch, finish, hold_address, program, wait_for};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A node with a command line of the test's choice and its log outside its directory.
struct Odd {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
    addr: SocketAddr,
    /// The first words of a client's command line.
    prefix: Vec<String>,
}

impl Odd {
    /// Starts a node with the words of `prefix` before its command line, and waits until it answers.
    fn start(prefix: &[&str], dir: &Path, log: &Path, addr: SocketAddr, bootstrap: &[SocketAddr]) -> Odd {
        Odd::start_with(prefix, dir, log, addr, bootstrap, &[])
    }

    fn start_with(
        prefix: &[&str],
        dir: &Path,
        log: &Path,
        addr: SocketAddr,
        bootstrap: &[SocketAddr],
        options: &[&str],
    ) -> Odd {
        let prefix: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        let mut command = prefixed(&prefix);
        command.arg("--dir").arg(dir).args(["node", "-v", "--listen", &addr.to_string()]);
        for other in bootstrap {
            command.args(["--bootstrap", &other.to_string()]);
        }
        command.args(options);
        let file = fs::File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let (dir, log) = (dir.to_owned(), log.to_owned());
        let mut node = Odd { child, dir, log, addr, prefix };
        wait_for("the node to answer", || {
            let ended = node.child.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended ({ended:?}): {}", node.log());
            is_answer(node.elver(&["status", "--json"]).code).then_some(())
        });
        node
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn elver(&self, args: &[&str]) -> Ended {
        finish(prefixed(&self.prefix).arg("--dir").arg(&self.dir).args(args))
    }

    fn disk(&self) -> String {
        let answer = self.elver(&["status", "--json"]);
        assert!(is_answer(answer.code), "{}", answer.stderr);
        let status = answer.objects().remove(0);
        status["disk"]["health"].as_str().unwrap().to_owned()
    }

    fn wait_for_disk(&self, health: &str) {
        wait_for(health, || (self.disk() == health).then_some(()));
    }

    /// Ends the node in order (SIGTERM).
    fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.addr, self.log());
        }
    }
}

/// Whether `status` ended as it does when the node answers: that it is well (0), or what is wrong (9).
fn is_answer(code: Option<i32>) -> bool {
    matches!(code, Some(0 | 9))
}

/// The program, with the words of `prefix` before its command line.
fn prefixed(prefix: &[String]) -> Command {
    let program = program();
    let Some((first, rest)) = prefix.split_first() else { return program };
    let mut command = Command::new(first);
    command.args(rest).arg(program.get_program()).stdin(Stdio::null());
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// A mount namespace with its own file system. It ends with the test.
struct Namespace(Child);

impl Namespace {
    /// A namespace with an in-memory file system at `at`.
    ///
    /// # Panics
    /// If this user may not make namespaces: a test that needs one then proves nothing.
    fn with_memory(at: &Path, options: &str) -> Namespace {
        Namespace::with("mount -t tmpfs -o \"$0\" none \"$1\"", options, at)
    }

    /// A namespace in which a shell runs `mount` with `options` as `$0` and `at` as `$1`.
    fn with(mount: &str, options: &str, at: &Path) -> Namespace {
        let script = format!("{mount} && echo mounted && exec sleep 600");
        let mut child = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script, options])
            .arg(at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 7];
        let mounted = child.stdout.take().unwrap().read_exact(&mut said);
        let namespace = Namespace(child);
        mounted.expect(
            "a mount namespace: user namespaces have to be allowed (sysctl user.max_user_namespaces)",
        );
        namespace
    }

    /// Runs a command on a path inside the namespace.
    fn run(&self, words: &[&str], path: &Path) -> Ended {
        let prefix = self.prefix();
        let (first, rest) = prefix.split_first().unwrap();
        finish(Command::new(first).args(rest).args(words).arg(path))
    }

    /// The words that start a program inside the namespace.
    fn prefix(&self) -> [String; 6] {
        let words = ["nsenter", "-U", "-m", "--preserve-credentials", "-t"].map(str::to_owned);
        let [a, b, c, d, e] = words;
        [a, b, c, d, e, self.0.id().to_string()]
    }

    /// The path by which the test reaches a path inside the namespace.
    fn path(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.0.id(), path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Turns a stored piece's file into one of a later version.
fn make_newer(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let trailer = bytes.len() - 128;
    bytes[trailer + 4] += 1;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[trailer..trailer + 120]);
    bytes[trailer + 120..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_helper_files_keep_a_node_neither_from_starting_nor_from_being_heard() {
    let swarm = Swarm::start(2);
    let source = file(&swarm.dir, "source", 1, 300_000);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "2"]);
    swarm.wait_for_copies(0, &hash);
    assert_eq!(swarm.nodes[1].elver(&["set", "name", "value"]).code, Some(0));
    let Swarm { mut nodes, dir } = swarm;
    let mut victim = nodes.pop().unwrap();
    let (home, addr, boots) = (victim.dir.clone(), victim.addr, victim.status().boots);
    let piece = victim.piece_files().into_iter().next().expect("a stored piece");
    victim.kill();
    make_newer(&piece);
    let newer = fs::read(&piece).unwrap();
    for (name, damage) in
        [("ages", &[0; 64][..]), ("ages.copy", b""), ("records", &[0; 200]), ("peers", b"torn")]
    {
        fs::write(home.join(name), damage).unwrap();
    }
    let again = Node::start_at(home.clone(), addr, &[nodes[0].addr], &[]);
    assert!(again.status().boots > boots);
    for name in ["ages.", "ages.copy.", "records.", "peers."] {
        let kept = fs::read_dir(home.join("damaged")).unwrap().flatten();
        assert!(
            kept.map(|entry| entry.file_name()).any(|kept| kept.to_string_lossy().starts_with(name)),
            "{name}"
        );
    }
    assert_eq!(fs::read(&piece).unwrap(), newer, "a later version finds its piece again");
    assert!(again.log().contains("later version"), "{}", again.log());
    // The other node accepts the restarted node's messages as new, because its start number was not used before.
    let own = file(&dir, "own", 2, 200_000);
    let own_hash = again.put(&own, &["--replicas", "0"]);
    let target = dir.path().join("target");
    let (code, said) = nodes[0].get(&own_hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_node_works_on_a_disk_without_a_free_byte_or_inode() {
    let scratch = Scratch::new();
    let (home, log) = (scratch.path().join("home"), scratch.path().join("log"));
    fs::create_dir(&home).unwrap();
    let namespace = Namespace::with_memory(&home, "size=16m,nr_inodes=600");
    let prefix = namespace.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let dir = home.join("node");
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let mut node = Odd::start(&prefix, &dir, &log, addr, &[]);
    let source = file(&scratch, "source", 3, 700_000);
    let put = node.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
    let hash = put.text().split_whitespace().next().unwrap().to_owned();
    node.kill();
    let (inside, filled) = (namespace.path(&dir), namespace.path(&home));
    fs::remove_file(inside.join("control.sock")).unwrap();
    fs::remove_file(inside.join("ages.copy")).unwrap();
    let mut filler = fs::File::create(filled.join("filler")).unwrap();
    while std::io::Write::write(&mut filler, &[7; 4096]).is_ok() {}
    let mut number = 0;
    while fs::File::create(filled.join(format!("inode-{number}"))).is_ok() {
        number += 1;
    }
    let node = Odd::start(&prefix, &dir, &log, addr, &[]);
    node.wait_for_disk("full");
    let reader = Node::start(scratch.path().join("reader"), &[addr], &[]);
    let target = scratch.path().join("target");
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == content(3, 700_000));
    node.elver(&["rm", &hash]).expect(0);
    assert!(!node.elver(&["ls"]).expect(0).text().contains(&hash));
    drop(filler);
    fs::remove_file(filled.join("filler")).unwrap();
    for number in 0..number {
        fs::remove_file(filled.join(format!("inode-{number}"))).unwrap();
    }
    node.wait_for_disk("well");
    let log = node.log();
    assert_eq!(log.matches("the disk is full").count(), 1, "{log}");
    assert_eq!(log.matches("the disk is well again").count(), 1, "{log}");
}

#[test]
fn a_node_whose_directory_is_deleted_says_so_and_goes_on() {
    let scratch = Scratch::new();
    let (dir, log) = (scratch.path().join("node"), scratch.path().join("log"));
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let node = Odd::start(&[], &dir, &log, addr, &[]);
    assert_eq!(node.disk(), "well");
    let source = file(&scratch, "source", 4, 100_000);
    let put = node.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
    let hash = put.text().split_whitespace().next().unwrap().to_owned();
    fs::remove_dir_all(&dir).unwrap();
    // The control socket is gone with the directory. Clients must still find the node.
    wait_for("the node to be found again", || {
        is_answer(node.elver(&["status", "--json"]).code).then_some(())
    });
    node.wait_for_disk("gone");
    let lines = node.elver(&["status"]).expect(9).text();
    assert!(lines.contains("is not there any more"), "{lines}");
    let reader = Node::start(scratch.path().join("reader"), &[addr], &[]);
    let target = scratch.path().join("target");
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "what lies elsewhere is served: {said}");
    assert_eq!(node.log().matches("the disk is gone").count(), 1, "{}", node.log());
    kill_process(Pid::from_child(&node.child), Signal::TERM).unwrap();
    let mut node = node;
    let ended = wait_for("its end", || node.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "{}", node.log());
}

#[test]
fn a_log_that_is_not_read_holds_nothing_up() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("node");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = program();
    command.arg("--dir").arg(&dir).args(["node", "-vvv", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    drop(command);
    let status = || {
        let mut elver = program();
        finish(elver.arg("--dir").arg(&dir).args(["status", "--json"])).code
    };
    wait_for("the node to answer", || (status() == Some(0)).then_some(()));
    // Each command writes a line to the log, and the pipe holds few lines.
    for _ in 0..80 {
        assert_eq!(status(), Some(0));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    let mut log = String::new();
    fs::File::from(reader).read_to_string(&mut log).unwrap();
    assert!(log.contains("elver: ") && log.len() <= 4096, "{log}");
}

#[test]
fn a_node_that_ran_out_of_descriptors_accepts_again() {
    let scratch = Scratch::new();
    let (dir, log) = (scratch.path().join("node"), scratch.path().join("log"));
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let few = ["sh", "-c", "ulimit -n 24 && exec \"$0\" \"$@\""];
    let node = Odd::start(&few, &dir, &log, addr, &[]);
    let source = file(&scratch, "source", 5, 2 * MIB);
    let put = node.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
    let hash = put.text().split_whitespace().next().unwrap().to_owned();
    for _ in 0..2 {
        let streams: Vec<TcpStream> = (0..60).filter_map(|_| TcpStream::connect(addr).ok()).collect();
        let socket = dir.join("control.sock");
        let clients: Vec<UnixStream> = (0..60).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
        network::wait_for("descriptors to run out", || {
            node.log().contains("turned away until descriptors are free")
        });
        drop((streams, clients));
        wait_for("the control socket to be served", || {
            is_answer(node.elver(&["status", "--json"]).code).then_some(())
        });
    }
    let reader = Node::start(scratch.path().join("reader"), &[addr], &[]);
    let target = scratch.path().join("target");
    let (code, said) = reader.get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == content(5, 2 * MIB));
    let listed = node.elver(&["ls"]).expect(0).text();
    assert!(listed.contains(&hash), "the shortage says nothing of the file: {listed}");
}

/// Streams a file through a node. Once `ready` returns true, the node can open no descriptor until its log contains `said`.
fn stream_through_a_shortage(rate: &str, length: usize, ready: impl Fn(&Path) -> bool, said: &str) {
    let scratch = Scratch::new();
    let publisher = Node::start(scratch.path().join("publisher"), &[], &["--upload-rate", rate]);
    let source = file(&scratch, "source", 7, length);
    let hash = publisher.put(&source, &["--replicas", "0"]);
    let (dir, log) = (scratch.path().join("node"), scratch.path().join("log"));
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let node = Odd::start(&[], &dir, &log, addr, &[publisher.addr]);
    let mut command = program();
    command.arg("--dir").arg(&dir).args(["get", &hash, "-o", "-"]);
    let mut client = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stream = client.stdout.take().unwrap();
    let mut bytes = vec![0; MIB];
    stream.read_exact(&mut bytes).unwrap();
    network::wait_for("the moment", || ready(&dir));
    let pid = Pid::from_child(&node.child);
    let none = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, none).unwrap();
    let rest = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    network::wait_for(said, || node.log().contains(said));
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    bytes.extend(rest.join().unwrap());
    assert_eq!(client.wait().unwrap().code(), Some(0), "{}", node.log());
    assert!(bytes == content(7, length));
}

#[test]
fn content_that_comes_waits_for_descriptors_and_goes_on() {
    stream_through_a_shortage("4MiB", 6 * MIB, |_| true, "content that comes waits for a descriptor");
}

#[test]
fn content_for_a_client_waits_for_descriptors_and_goes_on() {
    // The client does not read, so its window is full.
    let full = |dir: &Path| fs::read_dir(dir.join("incoming")).is_ok_and(|files| files.count() >= 28);
    stream_through_a_shortage("0", 24 * MIB, full, "content for a client waits for a descriptor");
}

#[test]
fn a_share_ends_only_when_the_disk_can_record_its_end() {
    let scratch = Scratch::new();
    let (home, log) = (scratch.path().join("home"), scratch.path().join("log"));
    fs::create_dir(&home).unwrap();
    let namespace = Namespace::with_memory(&home, "size=16m");
    let prefix = namespace.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let dir = home.join("node");
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let mut node = Odd::start(&prefix, &dir, &log, addr, &[]);
    let source = file(&scratch, "source", 8, 700_000);
    let put = node.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
    let hash = put.text().split_whitespace().next().unwrap().to_owned();
    let is_shared = |node: &Odd| node.elver(&["ls"]).expect(0).text().contains(&hash);
    // A node that has a log open for writing prevents a read-only remount, so restart the node first.
    node.terminate();
    let mut node = Odd::start(&prefix, &dir, &log, addr, &[]);
    network::wait_for("a disk that is read-only", || {
        namespace.run(&["mount", "-o", "remount,ro"], &home).code == Some(0)
    });
    let refused = node.elver(&["rm", &hash]).expect(1);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    assert!(refused.stderr.contains("is still shared from"), "{}", refused.stderr);
    assert!(is_shared(&node));
    let reader = Node::start(scratch.path().join("reader"), &[addr], &[]);
    let (code, said) = reader.get(&hash, &scratch.path().join("target"), &[]);
    assert_eq!(code, Some(0), "{said}");
    namespace.run(&["mount", "-o", "remount,rw"], &home).expect(0);
    node.elver(&["rm", &hash]).expect(0);
    node.kill();
    let node = Odd::start(&prefix, &dir, &log, addr, &[]);
    assert!(!is_shared(&node));
}

#[test]
fn what_is_to_be_left_to_the_host_is_left_by_pieces_downloads_and_streams() {
    let scratch = Scratch::new();
    let (home, log) = (scratch.path().join("home"), scratch.path().join("log"));
    fs::create_dir(&home).unwrap();
    let namespace = Namespace::with_memory(&home, "size=40m");
    let publisher = Node::start(scratch.path().join("publisher"), &[], &[]);
    let large = file(&scratch, "large", 9, 12 * MIB);
    let hash = publisher.put(&large, &["--replicas", "0"]);
    let prefix = namespace.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let (addr, listener, socket) = hold_address();
    drop((listener, socket));
    let options = ["--keep-free", "30MiB", "--quota", "1GiB"];
    let node = Odd::start_with(&prefix, &home.join("node"), &log, addr, &[publisher.addr], &options);
    // The node may use about 10 MiB. A window fits at first.
    let free = || {
        let status = node.elver(&["status", "--json"]).expect(0).objects().remove(0);
        status["free_bytes"].as_u64().unwrap()
    };
    assert!(free() < 40 << 20, "the file system is one of its own");
    assert!(node.elver(&["get", &hash, "-o", "-"]).expect(0).stdout == content(9, 12 * MIB));
    // Pieces of other nodes fill that room and no more.
    let pieces = file(&scratch, "pieces", 10, 24 * MIB);
    let put = publisher.elver(&["put", pieces.to_str().unwrap(), "--replicas", "2"]);
    assert!(matches!(put.code, Some(5 | 7)), "{:?} {}", put.code, put.stderr);
    network::wait_for("the floor to be reached", || {
        let status = node.elver(&["status", "--json"]).expect(0).objects().remove(0);
        status["counters"]["refused_keep_free"].as_u64().unwrap() > 0
    });
    assert!(free() >= 30 << 20, "{} bytes are left", free());
    // Without room for a window, the refusal names the setting.
    let streamed = node.elver(&["get", &hash, "-o", "-"]).expect(7);
    assert!(streamed.stderr.contains("--keep-free"), "{}", streamed.stderr);
    // The limit does not apply to a file at a path of the user's choice.
    let target = scratch.path().join("target");
    node.elver(&["get", &hash, "-o", target.to_str().unwrap()]).expect(0);
}

#[test]
fn a_node_goes_on_in_an_overlay_over_a_lower_layer_that_it_ran_in_before() {
    let scratch = Scratch::new();
    let (home, log) = (scratch.path().join("home"), scratch.path().join("log"));
    fs::create_dir(&home).unwrap();
    let layers = "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir lower upper merged && mount -t tmpfs none lower && \
                  mount -t tmpfs none upper && mkdir upper/files upper/work";
    let namespace = Namespace::with(layers, "", &home);
    let prefix = namespace.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let publisher = Node::start(scratch.path().join("publisher"), &[], &["--upload-rate", "8MiB"]);
    let hash = publisher.put(&file(&scratch, "large", 11, 12 * MIB), &["--replicas", "0"]);
    let start = |layer: &str| {
        let (addr, listener, socket) = hold_address();
        drop((listener, socket));
        Odd::start(&prefix, &home.join(layer).join("node"), &log, addr, &[publisher.addr])
    };
    let mut node = start("lower");
    let put = node.elver(&["put", file(&scratch, "own", 12, 700_000).to_str().unwrap()]).expect(0);
    let own = put.text().split_whitespace().next().unwrap().to_owned();
    // A download is interrupted.
    let mut getting = prefixed(&node.prefix);
    getting.arg("--dir").arg(&node.dir).args(["get", &hash, "-o"]).arg(home.join("lower/file"));
    let mut getting = getting.stderr(Stdio::null()).spawn().unwrap();
    let part = namespace.path(&home.join("lower/file.part"));
    network::wait_for("a part of the file", || part.metadata().is_ok_and(|part| part.blocks() > 2048));
    getting.kill().unwrap();
    getting.wait().unwrap();
    node.terminate();
    let merged = home.join("merged");
    let overlay =
        format!("lowerdir={0}/lower,upperdir={0}/upper/files,workdir={0}/upper/work", home.display());
    namespace.run(&["mount", "-t", "overlay", "overlay", "-o", &overlay], &merged).expect(0);

    let mut node = start("merged");
    assert_eq!(node.disk(), "well");
    assert!(node.elver(&["ls"]).expect(0).text().contains(&own));
    node.elver(&["get", &hash, "-o", merged.join("file").to_str().unwrap()]).expect(0);
    assert!(fs::read(namespace.path(&merged.join("file"))).unwrap() == content(11, 12 * MIB));
    let status = node.elver(&["status", "--json"]).expect(0).objects().remove(0);
    let came = status["downloaded_bytes"].as_u64().unwrap();
    assert!(came < 12 * MIB as u64, "{came} bytes came, as if nothing had been there");
    node.elver(&["rm", &own]).expect(0);
    // A second node finds the directory locked. The next run finds the state of this one.
    let mut second = prefixed(&node.prefix);
    let second = finish(second.arg("--dir").arg(&node.dir).args(["node", "--listen", "127.0.0.1:0"]));
    assert!(second.expect(1).stderr.contains("in use by another node"));
    node.kill();
    let node = start("merged");
    let listed = node.elver(&["ls"]).expect(0).text();
    assert!(listed.contains(&hash) && !listed.contains(&own), "{listed}");
}

/// splice, sendfile, copy_file_range, fallocate, renameat2, statx, fadvise64, inotify_init1, preadv2.
#[cfg(target_arch = "x86_64")]
const QUICK: &[i64] = &[275, 40, 326, 285, 316, 332, 221, 294, 327];
/// renameat2, link, linkat: without them, a node takes a name by creating an empty file.
#[cfg(target_arch = "x86_64")]
const NAMES: &[i64] = &[316, 86, 265];
/// flock: some file systems have no locks.
#[cfg(target_arch = "x86_64")]
const LOCKS: &[i64] = &[73];

/// Makes the kernel refuse calls with this error, on this thread and in every process that it starts.
#[cfg(target_arch = "x86_64")]
fn forbid(calls: &[i64], errno: rustix::io::Errno) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(errno.raw_os_error() as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Runs two nodes under a filter that refuses calls. The second fetches a file from the first and replaces no existing file.
/// Returns the log of the second.
#[cfg(target_arch = "x86_64")]
fn files_go_through_without(calls: &'static [i64], errno: rustix::io::Errno) -> String {
    let run = std::thread::spawn(move || {
        forbid(calls, errno);
        let scratch = Scratch::new();
        let start = |name: &str, bootstrap: &[SocketAddr]| {
            let (addr, listener, socket) = hold_address();
            drop((listener, socket));
            let log = scratch.path().join(format!("{name}.log"));
            Odd::start(&[], &scratch.path().join(name), &log, addr, bootstrap)
        };
        let publisher = start("publisher", &[]);
        let reader = start("reader", &[publisher.addr]);
        let source = file(&scratch, "source", 6, 3 * MIB);
        let put = publisher.elver(&["put", source.to_str().unwrap(), "--replicas", "0"]).expect(0);
        let hash = put.text().split_whitespace().next().unwrap().to_owned();
        let target = scratch.path().join("target");
        reader.elver(&["get", &hash, "-o", target.to_str().unwrap()]).expect(0);
        assert!(fs::read(&target).unwrap() == content(6, 3 * MIB), "{errno}");
        assert!(!scratch.path().join("target.part").exists(), "{errno}");
        let other = scratch.file("other", b"precious");
        reader.elver(&["get", &hash, "-o", other.to_str().unwrap()]).expect(1);
        let part = ["--range", "0-9", "-o", other.to_str().unwrap()];
        reader.elver(&[&["get", &hash][..], &part].concat()).expect(1);
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert_eq!(reader.elver(&["get", &hash, "-o", "-"]).expect(0).stdout, content(6, 3 * MIB));
        reader.log()
    });
    run.join().unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn where_a_filter_refuses_the_quick_calls_files_go_through_all_the_same() {
    use rustix::io::Errno;
    for errno in [Errno::PERM, Errno::ACCESS, Errno::INVAL] {
        files_go_through_without(QUICK, errno);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn where_there_is_neither_an_exclusive_rename_nor_a_second_name_files_get_their_names() {
    use rustix::io::Errno;
    for errno in [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP] {
        files_go_through_without(NAMES, errno);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn where_there_are_no_locks_files_go_through_all_the_same() {
    use rustix::io::Errno;
    for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP] {
        let log = files_go_through_without(LOCKS, errno);
        assert!(log.contains("cannot be locked"), "{log}");
    }
}

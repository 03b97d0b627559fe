//! The files that a user passes to `put`, as the user's client sees them and as the node sees them.

use crate::network::{Node, content, file, wait_for};
use crate::support::{Ended, Scratch, finish, program};
use elver::node::command::{Command, Failure, Reply, Response};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

/// An unprivileged user, for tests that run as root.
const NOBODY: u32 = 65_534;

fn alone(dir: &Scratch) -> Node {
    Node::start(dir.path().join("node"), &[], &["--replicas", "0"])
}

fn sum(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

/// Runs a client from a shell that prepares its descriptors: `$0` is the program, `$1` the node's directory.
fn shell(node: &Node, script: &str, files: &[&Path]) -> Ended {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(program().get_program()).arg(&node.dir).args(files);
    finish(command.stdin(Stdio::null()))
}

/// The node's answer to a command of a client that passes no descriptor.
fn answer(node: &Node, command: &Command) -> Response {
    node.request(command).expect("an answer")
}

fn put_by_path(node: &Node, path: &Path) -> Result<Reply, Failure> {
    match answer(node, &Command::Put { path: path.to_owned(), replicas: Some(0), lifetime: None }) {
        Response::Done(reply) => Ok(reply),
        Response::Failed(failure) => Err(failure),
        Response::Progress(_) | Response::Content(_) => panic!("that is not the end"),
    }
}

#[test]
fn a_descriptor_of_the_clients_is_what_is_shared_and_not_the_nodes() {
    let dir = Scratch::new();
    let node = alone(&dir);
    for (number, named) in ["/dev/fd/3", "/proc/self/fd/3", "/dev/stdin", "link"].iter().enumerate() {
        let source = file(&dir, &format!("source {number}"), number as u64, 4000 + number);
        let link = dir.path().join("link");
        let _ = fs::remove_file(&link);
        symlink("/dev/fd/3", &link).unwrap();
        let named = if *named == "link" { &link } else { Path::new(named) };
        let script = "exec \"$0\" --dir \"$1\" put \"$3\" 3<\"$2\" <\"$2\"";
        let ended = shell(&node, script, &[&source, named]).expect(0);
        assert_eq!(ended.text(), format!("{}  {}\n", sum(&source), named.display()));
        let real = source.canonicalize().unwrap();
        assert!(node.files().iter().any(|shared| shared.path == real), "{named:?}: {:?}", node.files());
    }
}

#[test]
fn what_has_no_name_for_the_node_is_refused() {
    let dir = Scratch::new();
    let node = alone(&dir);
    let source = file(&dir, "source", 1, 4000);
    let memory = rustix::fs::memfd_create("elver", rustix::fs::MemfdFlags::empty()).unwrap();
    let memory = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    for (script, words) in [
        ("echo x | exec \"$0\" --dir \"$1\" put /dev/stdin", "a pipe"),
        ("exec 3<\"$2\"; rm \"$2\"; exec \"$0\" --dir \"$1\" put /dev/fd/3", "no name"),
        ("exec \"$0\" --dir \"$1\" put \"$3\"", "no name"),
        ("exec \"$0\" --dir \"$1\" put -", "No such file"),
        ("exec \"$0\" --dir \"$1\" put /dev/null", "not a regular file"),
    ] {
        let ended = shell(&node, script, &[&source, Path::new(&memory)]).expect(1);
        assert!(ended.stderr.contains(words), "{script}: {}", ended.stderr);
    }
    assert!(node.files().is_empty());
}

#[test]
fn what_lies_about_its_length_is_refused_and_an_empty_file_is_not() {
    let dir = Scratch::new();
    let node = alone(&dir);
    for path in ["/proc/cpuinfo", "/proc/self/status"] {
        let ended = node.elver(&["put", path]).expect(1);
        assert!(ended.stderr.contains("does not tell its length: copy it"), "{}", ended.stderr);
    }
    let failure = put_by_path(&node, Path::new("/proc/cpuinfo")).unwrap_err();
    assert!(failure.message.contains("does not tell its length"), "{}", failure.message);
    let empty = dir.file("empty", b"");
    assert_eq!(node.put(&empty, &[]), blake3::hash(b"").to_hex().as_str());
}

#[test]
fn nothing_of_the_nodes_own_goes_out_and_no_download_goes_in() {
    let dir = Scratch::new();
    let node = alone(&dir);
    let key = node.dir.join("identity.key");
    let (link, hard, within) = (dir.path().join("link"), dir.path().join("hard"), dir.path().join("within"));
    symlink(&key, &link).unwrap();
    fs::hard_link(&key, &hard).unwrap();
    symlink(&node.dir, &within).unwrap();
    let log = node.dir.join("log");
    for path in [&key, &link, &hard, &within.join("identity.key"), &log] {
        let ended = node.elver(&["put", path.to_str().unwrap()]).expect(1);
        assert!(ended.stderr.contains("one of the node's own files"), "{}", ended.stderr);
        assert!(put_by_path(&node, path).is_err(), "{path:?}");
    }
    let source = file(&dir, "source", 1, 4000);
    let hash = node.put(&source, &[]);
    for target in [node.dir.join("new"), node.dir.join("pieces/new"), within.join("new")] {
        let (code, said) = node.get(&hash, &target, &[]);
        assert!(code == Some(1) && said.contains("the node's own directory"), "{code:?} {said}");
        assert!(!target.exists());
    }
}

#[test]
fn a_bind_mount_of_the_nodes_directory_is_its_directory() {
    let dir = Scratch::new();
    let (own, bound) = (dir.path().join("node"), dir.path().join("bound"));
    fs::create_dir_all(own.join("pieces")).unwrap();
    fs::create_dir_all(&bound).unwrap();
    let program = program();
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
    command.arg(&own).arg(&bound).arg(program.get_program());
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let node = Node::start_as(command, own, "127.0.0.1:0".parse().unwrap(), &[], &["--replicas", "0"]);
    let failure = put_by_path(&node, &bound.join("identity.key")).unwrap_err();
    assert!(failure.message.contains("one of the node's own files"), "{}", failure.message);
}

#[test]
fn a_file_that_only_its_user_may_read_is_shared_while_the_node_runs() {
    assert!(rustix::process::geteuid().is_root(), "only root can start nodes of a user with fewer rights");
    let dir = Scratch::new();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let start = |name: &str, bootstrap: &[std::net::SocketAddr]| {
        let own = dir.path().join(name);
        fs::create_dir_all(&own).unwrap();
        chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut program = program();
        program.uid(NOBODY).gid(NOBODY);
        Node::start_as(program, own, "127.0.0.1:0".parse().unwrap(), bootstrap, &["--replicas", "0"])
    };
    let mut node = start("node", &[]);
    let source = file(&dir, "source", 1, 3 << 20);
    fs::set_permissions(&source, PermissionsExt::from_mode(0o600)).unwrap();
    let private = dir.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(private.join("hidden"), content(2, 4000)).unwrap();

    assert!(put_by_path(&node, &source).unwrap_err().message.contains("Permission denied"));
    let ended = node.elver(&["put", source.to_str().unwrap(), "--json"]).expect(0);
    assert_eq!(ended.objects()[0]["kept_open"], true);
    assert!(ended.stderr.contains("shared until the node stops"), "{}", ended.stderr);
    let hash = ended.objects()[0]["hash"].as_str().unwrap().to_owned();
    let hidden = node.put(&private.join("hidden"), &[]);
    assert!(node.files().iter().all(|shared| shared.kept_open));
    assert!(node.elver(&["ls"]).text().contains("while the node runs"), "{}", node.elver(&["ls"]).text());

    let reader = start("reader", &[node.addr]);
    wait_for("the two to know each other", || reader.status().peers >= 1);
    for (hash, bytes) in [(&hash, content(1, 3 << 20)), (&hidden, content(2, 4000))] {
        let target = dir.path().join("reader").join("..").join(format!("target {hash}"));
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let (code, said) = reader.get(hash, &target, &[]);
        assert_eq!(code, Some(0), "{said}\n{}", node.log());
        assert!(fs::read(&target).unwrap() == bytes);
    }

    // With these permissions the node can open the file by its name, and needs no descriptor.
    fs::set_permissions(&source, PermissionsExt::from_mode(0o644)).unwrap();
    let ended = node.elver(&["put", source.to_str().unwrap(), "--json"]).expect(0);
    assert_eq!(ended.objects()[0]["kept_open"], false);
    node.kill();
}

#[test]
fn each_of_many_files_in_one_put_succeeds_or_fails_by_itself() {
    let dir = Scratch::new();
    let node = alone(&dir);
    let mut names = Vec::new();
    for number in 0..300 {
        let path = file(&dir, &format!("file {number:03}"), number, 1000 + number as usize);
        names.push(path.to_str().unwrap().to_owned());
    }
    fs::remove_file(&names[123]).unwrap();
    let arguments: Vec<&str> = ["put"].into_iter().chain(names.iter().map(String::as_str)).collect();
    for _ in 0..2 {
        let ended = node.elver(&arguments).expect(1);
        assert!(ended.stderr.contains("file 123: No such file"), "{}", ended.stderr);
        let lines: Vec<String> = ended.text().lines().map(str::to_owned).collect();
        let expected: Vec<String> = (0..300)
            .filter(|number| *number != 123)
            .map(|number| format!("{}  {}", sum(Path::new(&names[number])), names[number]))
            .collect();
        assert!(lines == expected, "{lines:?}");
    }
    assert_eq!(node.files().len(), 299);
}

#[test]
fn a_node_that_may_open_few_files_shares_many() {
    let dir = Scratch::new();
    let own = dir.path().join("node");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]).arg(program().get_program());
    let node = Node::start_as(command, own, "127.0.0.1:0".parse().unwrap(), &[], &["--replicas", "0"]);
    let names: Vec<String> = (0..300)
        .map(|number| file(&dir, &format!("file {number}"), number, 100).to_str().unwrap().to_owned())
        .collect();
    let arguments: Vec<&str> = ["put"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let ended = node.elver(&arguments).expect(0);
    assert_eq!(ended.text().lines().count(), 300);
}

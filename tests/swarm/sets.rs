//! Directories as sets: what is put at one node is the same at another, and nothing of a hostile list is used.

use crate::network::{Node, Swarm};
use crate::support::{Scratch, program};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// Everything in a directory: permissions, times of files, targets of links, content.
fn tree(root: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let (mode, time, content) = match () {
                () if metadata.is_dir() => {
                    directories.push(path);
                    (metadata.mode() & 0o7777, 0, Vec::new())
                }
                () if metadata.is_symlink() => {
                    (0, 0, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
                }
                () => (metadata.mode() & 0o7777, metadata.mtime(), fs::read(&path).unwrap()),
            };
            found.insert(name, (mode, time, content));
        }
    }
    found
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

/// Puts a directory and returns the address of the set.
fn put(node: &Node, directory: &Path) -> String {
    let put = node.elver(["put", "--replicas", "0", directory.to_str().unwrap()]).expect(0);
    put.text().split_whitespace().next().unwrap().to_owned()
}

/// Gets a set and returns what is told in JSON.
fn get(node: &Node, set: &str, directory: &Path, more: &[&str], code: i32) -> serde_json::Value {
    let arguments = [&["get", "--json", set, "-o", directory.to_str().unwrap()], more].concat();
    node.elver(arguments).expect(code).objects().pop().unwrap()
}

#[test]
fn a_directory_arrives_as_it_was_and_later_only_what_differs() {
    let swarm = Swarm::start(2);
    let [a, b] = &swarm.nodes[..] else { panic!() };
    let (source, target) = (swarm.dir.path().join("source"), swarm.dir.path().join("target"));
    write(&source.join("a/deep/x"), b"x", 0o640);
    write(&source.join("a/run"), b"run", 0o755);
    write(&source.join("a-b"), b"", 0o444);
    write(&source.join("big"), &vec![7; 700_000], 0o600);
    write(&source.join("skipped.o"), b"x", 0o644);
    write(&source.join(".elverignore"), b"*.o\n", 0o644);
    fs::create_dir(source.join("empty")).unwrap();
    fs::set_permissions(source.join("a/deep"), fs::Permissions::from_mode(0o550)).unwrap();
    symlink("../a-b", source.join("a/link")).unwrap();
    symlink("/etc/passwd", source.join("out")).unwrap();
    let told = a.elver(["put", "--replicas", "0", source.to_str().unwrap()]).expect(0);
    assert!(told.stderr.contains("out: left out: a symbolic link that leads out"), "{}", told.stderr);
    assert!(told.stderr.contains("5 files") && told.stderr.contains("1 ignored"), "{}", told.stderr);
    let set = told.text().split_whitespace().next().unwrap().to_owned();
    assert!(set.ends_with('/'), "{set}");
    fs::remove_file(source.join("out")).unwrap();
    fs::remove_file(source.join("skipped.o")).unwrap();
    // The same directory elsewhere is the same set.
    let copy = swarm.dir.path().join("copy");
    std::process::Command::new("cp").arg("-a").arg(&source).arg(&copy).status().unwrap();
    assert_eq!(put(b, &copy), set);
    assert_eq!(tree(&copy), tree(&source));

    let first = get(b, &set, &target, &[], 0);
    assert_eq!((&first["fetched"], &first["files"]), (&5.into(), &5.into()), "{first}");
    assert_eq!(tree(&target), tree(&source));
    assert_eq!(get(b, &set, &target, &[], 0)["fetched"], 0);
    let listed = b.elver(["ls", &set]).expect(0).text();
    assert_eq!(listed.lines().count(), 9, "{listed}");
    assert!(listed.contains("-rwxr-xr-x  2020-09-13T12:26:40Z  a/run"), "{listed}");
    assert!(listed.contains("a/link -> ../a-b"), "{listed}");
    let one = b.elver(["get", &format!("{set}a/run"), "-o", "-"]).expect(0);
    assert_eq!(one.stdout, b"run");
    b.elver(["get", &format!("{set}none"), "-o", "-"]).expect(3);
    let part = swarm.dir.path().join("part");
    assert_eq!(get(b, &format!("{set}a"), &part, &[], 0)["fetched"], 2);
    let parted: Vec<_> = tree(&part).into_keys().collect();
    assert_eq!(parted, ["deep", "deep/x", "run"], "the link would lead out of the part");

    // What differs: content, a time alone, a mode alone, a link in a directory's place, a directory in a file's place, a stray file.
    let outside = swarm.dir.path().join("outside");
    write(&outside.join("mine"), b"mine", 0o644);
    write(&target.join("a/run"), b"rum", 0o755);
    fs::File::options()
        .write(true)
        .open(target.join("a/run"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    fs::File::options()
        .write(true)
        .open(target.join("big"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    fs::set_permissions(target.join("a-b"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::remove_dir(target.join("empty")).unwrap();
    symlink(&outside, target.join("empty")).unwrap();
    fs::remove_file(target.join("a/link")).unwrap();
    fs::create_dir(target.join("a/link")).unwrap();
    write(&target.join("stray/file"), b"stray", 0o644);
    symlink(&outside, target.join("stray/outside")).unwrap();
    let second = get(b, &set, &target, &[], 0);
    assert_eq!((&second["fetched"], &second["deleted"]), (&1.into(), &0.into()), "{second}");
    let third = get(b, &set, &target, &["--delete"], 0);
    assert_eq!((&third["fetched"], &third["deleted"]), (&0.into(), &3.into()), "{third}");
    assert_eq!(tree(&target), tree(&source));
    assert_eq!(tree(&outside).len(), 1);
    // Other content of the same length and time shows only to those who read it.
    write(&target.join("a/run"), b"rum", 0o755);
    assert_eq!(get(b, &set, &target, &[], 0)["fetched"], 0);
    assert_eq!(get(b, &set, &target, &["--checksum"], 0)["fetched"], 1);
    assert_eq!(tree(&target), tree(&source));

    // The plain file is the list, which is said.
    let list = swarm.dir.path().join("list");
    let (code, said) = b.get(set.trim_end_matches('/'), &list, &[]);
    assert!(code == Some(0) && said.contains("list of a set"), "{said}");
    a.elver(["rm", &set]).expect(0);
    assert_eq!(a.files(), vec![]);
    assert_eq!(fs::read_dir(a.dir.join("sets")).unwrap().count(), 0);
    hostile_lists_change_nothing(a, b, swarm.dir.path());
}

/// A list of these records, of which each is written as it stands.
fn list(records: &[&[u8]]) -> Vec<u8> {
    [&b"elverset\x01\0\x01\0\0\0\0\0"[..], &records.concat()].concat()
}

/// The record of an empty file.
fn file(name: &[u8], mode: u16) -> Vec<u8> {
    let hash = *blake3::hash(b"").as_bytes();
    [&[2, name.len() as u8], &mode.to_le_bytes()[..], &[0; 16], &hash, name].concat()
}

fn hostile_lists_change_nothing(a: &Node, b: &Node, dir: &Path) {
    let empty = dir.join("empty");
    fs::write(&empty, b"").unwrap();
    a.put(&empty, &["--replicas", "0"]);
    let (target, outside) = (dir.join("hostile"), dir.join("victim"));
    fs::create_dir(&target).unwrap();
    fs::write(&outside, "mine").unwrap();
    let link = |name: &[u8], to: &[u8]| {
        [&[3, name.len() as u8], &(to.len() as u16).to_le_bytes()[..], name, to].concat()
    };
    for (what, list, words) in [
        ("..", list(&[&file(b"good", 0o644), &file(b"../victim", 0o644), b"\0"]), "slash"),
        ("absolute", list(&[&file(b"/tmp/x", 0o644), b"\0"]), "slash"),
        ("dots", list(&[b"\x01\x02\xed\x01..", &file(b"victim", 0o644), b"\0\0"]), "`..`"),
        ("out", list(&[&link(b"out", b".."), &file(b"out", 0o644), b"\0"]), "outside the set"),
        ("through", list(&[&link(b"in", b"x"), b"\x01\x02\xed\x01in", &file(b"f", 0o644), b"\0\0"]), "twice"),
        ("setuid", list(&[&file(b"s", 0o4755), b"\0"]), "777"),
        ("device", list(&[b"\x04\x03\xb6\x01sda", b"\0"]), "kind 4"),
        ("cut", list(&[&file(b"good", 0o644)]), "too early"),
        ("none", b"no list".to_vec(), "no set"),
    ] {
        let path = dir.join(format!("list-{what}"));
        fs::write(&path, &list).unwrap();
        let hash = a.put(&path, &["--replicas", "0"]);
        let (code, said) = b.get(&format!("{hash}/"), &target, &["--delete"]);
        assert!(code == Some(1) && said.contains(words), "{what}: {code:?} {said}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{what}");
    }
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
}

#[test]
fn a_node_of_another_user_gets_no_set_into_this_users_directory() {
    const NOBODY: u32 = 65_534;
    assert!(rustix::process::geteuid().is_root(), "only root can start nodes of a user with fewer rights");
    let dir = Scratch::new();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let own = dir.path().join("node");
    fs::create_dir_all(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut program = program();
    program.uid(NOBODY).gid(NOBODY);
    let node = Node::start_as(program, own, "127.0.0.1:0".parse().unwrap(), &[], &["--replicas", "0"]);
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    write(&source.join("x"), b"x", 0o644);
    let set = put(&node, &source);
    let ended = node.elver(["get", &set, "-o", target.to_str().unwrap()]).expect(1);
    assert!(
        ended.stderr.contains("the node runs as another user") && ended.stderr.contains("--dir"),
        "{}",
        ended.stderr
    );
    assert!(!target.exists());
    // A file of it passes through the command.
    node.elver(["get", &format!("{set}x"), "-o", target.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read(&target).unwrap(), b"x");
}

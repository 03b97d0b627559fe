//! A get exits with 0 only if the target has the right bytes, even if other programs change the file meanwhile.

use crate::network::{MIB, Node, Swarm, content, file, wait_for};
use elver::node::command::{Command, FailureReason, Reply, Response, Stage};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A slow source and a reader.
struct Slow {
    swarm: Swarm,
    hash: String,
    bytes: Vec<u8>,
}

impl Slow {
    fn start(seed: u64, length: usize) -> Slow {
        Slow::start_at("8MiB", seed, length)
    }

    fn start_at(rate: &str, seed: u64, length: usize) -> Slow {
        let swarm = Swarm::start_with(2, &["--upload-rate", rate]);
        let source = file(&swarm.dir, "source", seed, length);
        let hash = swarm.nodes[0].put(&source, &["--replicas", "0"]);
        Slow { swarm, hash, bytes: content(seed, length) }
    }

    fn reader(&self) -> &Node {
        &self.swarm.nodes[1]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.swarm.dir.path().join(name)
    }

    /// Fetches the file into `name`. Calls `act` on the partial file once `after` bytes have arrived.
    fn fetch(
        &self,
        name: &str,
        after: usize,
        act: impl FnOnce(&Path),
    ) -> Result<(), (FailureReason, String)> {
        let (mut act, mut result) = (Some(act), None);
        let target = Some(self.path(name));
        let command = Command::Get {
            hash: self.hash.parse().unwrap(),
            target,
            force: false,
            mode: None,
            timeout: None,
        };
        self.reader().request_with(&command, |response| match response {
            Response::Progress(progress) => {
                if progress.stage == Stage::Downloading && progress.done >= after as u64 {
                    if let Some(act) = act.take() {
                        act(&self.path(&format!("{name}.part")));
                    }
                }
                true
            }
            Response::Done(Reply::Get { .. }) => {
                result = Some(Ok(()));
                false
            }
            Response::Failed(failure) => {
                result = Some(Err((failure.reason, failure.message)));
                false
            }
            other => panic!("{other:?}"),
        });
        assert!(act.is_none(), "it was over before {after} bytes were there: {result:?}");
        result.expect("an answer")
    }

    /// Checks that the file is right, and ends the reader's share of it.
    fn take_right(&self, name: &str) {
        assert!(fs::read(self.path(name)).unwrap() == self.bytes, "{name} is not what was asked for");
        assert_eq!(self.reader().elver(&["rm", &self.hash]).code, Some(0));
    }
}

fn overwrite(path: &Path, length: usize) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0; length], 0).unwrap();
}

#[test]
fn whatever_happens_to_a_file_while_it_comes_it_is_right_or_there_is_none() {
    let slow = Slow::start(70, 12 * MIB);
    for (name, act) in [
        ("cut", &(|path: &Path| fs::File::create(path).map(drop).unwrap()) as &dyn Fn(&Path)),
        ("overwritten", &|path| overwrite(path, 5 * MIB)),
    ] {
        assert_eq!(slow.fetch(name, 6 * MIB, act), Ok(()), "{name}");
        slow.take_right(name);
    }
    let near_the_end = 12 * MIB - MIB / 2;
    assert_eq!(slow.fetch("zeroed", near_the_end, |path| overwrite(path, 11 * MIB)), Ok(()));
    slow.take_right("zeroed");

    let other = slow.path("other");
    for (name, act) in [
        ("removed", &(|path: &Path| fs::remove_file(path).unwrap()) as &dyn Fn(&Path)),
        ("replaced", &|path| {
            fs::write(&other, vec![7; 12 * MIB]).unwrap();
            fs::rename(&other, path).unwrap();
        }),
    ] {
        let (reason, said) = slow.fetch(name, 2 * MIB, act).unwrap_err();
        assert_eq!(reason, FailureReason::Failed, "{said}");
        assert!(said.contains(".part was removed or replaced during the download"), "{said}");
        assert!(!said.contains("are kept"), "{said}");
        assert!(!slow.path(name).exists() && slow.reader().files().is_empty(), "nothing wrong is shared");
    }
    assert!(fs::read(slow.path("replaced.part")).unwrap() == vec![7; 12 * MIB], "another program's stays");
}

#[test]
fn a_program_that_keeps_writing_into_the_file_ends_the_download() {
    // The file is so long that the writer gets its turn while the node hashes it.
    let slow = Slow::start_at("64MiB", 71, 64 * MIB);
    let over = Arc::new(AtomicBool::new(false));
    let mut writer = None;
    let result = slow.fetch("target", MIB, |path| {
        let (file, over) = (fs::OpenOptions::new().write(true).open(path).unwrap(), Arc::clone(&over));
        writer = Some(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                file.write_all_at(&[7; 1000], 300_000).unwrap();
            }
        }));
    });
    over.store(true, Ordering::Relaxed);
    writer.unwrap().join().unwrap();
    let (reason, said) = result.unwrap_err();
    assert_eq!(reason, FailureReason::Failed, "{said}");
    assert!(said.contains("another program keeps writing into"), "{said}");
    assert!(!slow.path("target").exists() && slow.reader().files().is_empty());
    // Without the writer, the node fetches the rest and finds the chunks that the writer overwrote.
    let (code, said) = slow.reader().get(&slow.hash, &slow.path("target"), &[]);
    assert_eq!(code, Some(0), "{said}");
    slow.take_right("target");
}

#[test]
fn two_nodes_do_not_fetch_into_one_path() {
    let slow = Slow::start(72, 8 * MIB);
    let second = &slow.swarm.nodes[0];
    let other = second.put(&file(&slow.swarm.dir, "other", 73, 100_000), &["--replicas", "0"]);
    let mut said = (None, String::new());
    let first = slow.fetch("target", MIB, |_| {
        said = second.get(&other, &slow.path("target"), &[]);
    });
    assert_eq!(first, Ok(()));
    assert_eq!(said.0, Some(1), "{}", said.1);
    assert!(said.1.contains("is being written by another download"), "{}", said.1);
    slow.take_right("target");
}

#[test]
fn a_file_at_the_target_is_replaced_only_by_force() {
    let slow = Slow::start(74, 4 * MIB);
    let appeared = slow.fetch("appears", MIB, |_| fs::write(slow.path("appears"), b"mine").unwrap());
    let (reason, said) = appeared.unwrap_err();
    assert_eq!(reason, FailureReason::Failed);
    assert!(said.contains("--force") && said.contains("verified bytes are kept in"), "{said}");
    assert_eq!(fs::read(slow.path("appears")).unwrap(), b"mine");
    // The node does not fetch verified bytes again. The replaced file's mode stays.
    fs::set_permissions(slow.path("appears"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = slow.reader().status().downloaded_bytes;
    let (code, said) = slow.reader().get(&slow.hash, &slow.path("appears"), &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(slow.reader().status().downloaded_bytes < before + MIB as u64);
    assert_eq!(slow.path("appears").metadata().unwrap().mode() & 0o777, 0o640);

    // The node itself refuses, over the control socket too. It does not refuse a target with the same content.
    let inode = slow.path("appears").metadata().unwrap().ino();
    let (code, said) = slow.reader().get(&slow.hash, &slow.path("appears"), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(slow.path("appears").metadata().unwrap().ino(), inode);
    slow.take_right("appears");
    fs::write(slow.path("mine"), vec![1; 4 * MIB]).unwrap();
    let command = |force| Command::Get {
        hash: slow.hash.parse().unwrap(),
        target: Some(slow.path("mine")),
        force,
        mode: None,
        timeout: None,
    };
    match slow.reader().request(&command(false)) {
        Some(Response::Failed(failure)) => assert!(failure.message.contains("exists"), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    assert!(fs::read(slow.path("mine")).unwrap() == vec![1; 4 * MIB]);

    // The file that a link points to is replaced.
    symlink(slow.path("mine"), slow.path("link")).unwrap();
    let (code, said) = slow.reader().get(&slow.hash, &slow.path("link"), &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(slow.path("link").symlink_metadata().unwrap().is_symlink());
    slow.take_right("mine");
}

#[test]
fn names_of_any_length_and_descriptors_are_targets() {
    let slow = Slow::start(75, MIB);
    for length in [252, 255] {
        let name = "n".repeat(length);
        let (code, said) = slow.reader().get(&slow.hash, &slow.path(&name), &[]);
        assert_eq!(code, Some(0), "{said}");
        slow.take_right(&name);
    }
    for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = slow.reader().elver(&["get", &slow.hash, "-o", path]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(output.stdout == slow.bytes, "{path}: {} bytes", output.stdout.len());
    }
    let pipe = slow.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let reading = pipe.clone();
    let reader = std::thread::spawn(move || fs::read(reading).unwrap());
    let (code, said) = slow.reader().get(&slow.hash, &pipe, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(reader.join().unwrap() == slow.bytes);
}

#[test]
fn the_remains_of_others_are_left_alone() {
    let slow = Slow::start(76, MIB);
    let part = slow.path("target.part");
    for what in ["another file's", "several names", "a link", "another owner's"] {
        let _ = fs::remove_file(&part);
        let outside = slow.path("outside");
        fs::write(&outside, if what == "another file's" { &b"precious"[..] } else { &slow.bytes }).unwrap();
        match what {
            "another file's" => drop(fs::copy(&outside, &part).unwrap()),
            "several names" => fs::hard_link(&outside, &part).unwrap(),
            "a link" => symlink(&outside, &part).unwrap(),
            _ => {
                fs::copy(&outside, &part).unwrap();
                if std::os::unix::fs::chown(&part, Some(12_345), None).is_err() {
                    continue; // Only root gives files away.
                }
            }
        }
        let before = part.symlink_metadata().unwrap();
        let (code, said) = slow.reader().get(&slow.hash, &slow.path("target"), &[]);
        assert_eq!(code, Some(0), "{what}: {said}");
        let (target, after) =
            (slow.path("target").symlink_metadata().unwrap(), part.symlink_metadata().unwrap());
        assert_eq!(before.ino(), after.ino());
        assert_eq!(before.len(), after.len());
        assert_eq!(before.uid(), after.uid());
        assert_eq!(target.nlink(), 1, "{what}");
        assert!(target.is_file(), "{what}");
        assert_ne!(target.uid(), 12_345);
        slow.take_right("target");
        fs::remove_file(slow.path("target")).unwrap();
    }
}

#[test]
fn holes_arrive_as_holes() {
    let swarm = Swarm::start(2);
    let path = swarm.dir.path().join("sparse");
    let source = fs::File::create(&path).unwrap();
    source.set_len(64 << 20).unwrap();
    source.write_all_at(&content(77, 100_000), 20 << 20).unwrap();
    let hash = swarm.nodes[0].put(&path, &["--replicas", "0"]);
    let target = swarm.dir.path().join("target");
    let (code, said) = swarm.nodes[1].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&path).unwrap());
    let taken = target.metadata().unwrap().blocks() * 512;
    assert!(
        taken < 3 << 20,
        "{taken} bytes are taken, the source's {}",
        source.metadata().unwrap().blocks() * 512
    );
}

#[test]
fn a_mount_point_is_refused_before_anything_is_fetched() {
    let swarm = Swarm::start(1);
    let hash = swarm.nodes[0].put(&file(&swarm.dir, "source", 78, 3 * MIB), &["--replicas", "0"]);
    let dir = swarm.dir.path().join("reader");
    // An in-memory file system in which one file is mounted over another.
    let reader = Node::start_beside_small_disk(dir.clone(), 8 << 20, &[swarm.nodes[0].addr]);
    let small = dir.with_file_name("small");
    let seen =
        |name: &str| PathBuf::from(format!("/proc/{}/root{}", reader.pid(), small.display())).join(name);
    fs::write(seen("file"), b"mine").unwrap();
    let pid = reader.pid().to_string();
    let (from, to) = (small.join("file"), small.join("mounted"));
    fs::write(seen("mounted"), b"").unwrap();
    let mounted = std::process::Command::new("nsenter")
        .args(["-t", &pid, "-U", "-m", "--preserve-credentials", "mount", "--bind"])
        .args([&from, &to])
        .output()
        .expect("nsenter");
    assert!(mounted.status.success(), "{mounted:?}");
    wait_for("the mount", || fs::read(seen("mounted")).is_ok_and(|bytes| bytes == b"mine"));
    let before = reader.status().downloaded_bytes;
    let (code, said) = reader.get(&hash, &to, &["--force"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is a mount point") && said.contains("-o -"), "{said}");
    assert!(reader.status().downloaded_bytes <= before + (64 << 10), "only the root is fetched");
    assert_eq!(fs::read(seen("mounted")).unwrap(), b"mine");
}

//! Tests on real files in a directory of their own.

mod commits;
mod directory;
mod files;
mod intake;
mod naming;
mod raises;
mod shares;
mod sources;
mod targets;
mod verify;

use super::*;
use crate::claim::PieceClaim;
use crate::id::{Key, PublicKey};
use crate::io::{DiskErrorKind, FileStamp, Mode, Permissions, PieceMeta, Run, Share, ShareState, Tree};
use crate::manifest::{Content, HashAs, Manifest, ManifestBuilder};
use power_loss::record;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// A directory that goes when the test does.
struct TestDir(TempDir);

impl TestDir {
    fn new() -> Self {
        // A node spells paths without symbolic links.
        TestDir(TempDir::new_in(std::env::temp_dir().canonicalize().unwrap()).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of the user's.
    fn file(&self, name: &str, bytes: &[u8]) -> Place {
        fs::write(self.path(name), bytes).unwrap();
        Place::File(self.path(name).into())
    }

    fn open(&self) -> (Disk, Recovered) {
        let (disk, recovered, _) = Disk::open(&self.path("node")).unwrap();
        (disk, recovered)
    }
}

const BUDGET: u64 = 1 << 20;

fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn key_of(bytes: &[u8]) -> Key {
    Key(*blake3::hash(bytes).as_bytes())
}

fn manifest_of(bytes: &[u8]) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
    builder.update(bytes);
    Arc::new(builder.finish().unwrap())
}

fn piece(bytes: &[u8]) -> PieceMeta {
    let claim = PieceClaim::unsigned(PublicKey([5; 32]), 3, 2000, 1);
    PieceMeta { expires: 1000, claim: Some(claim), ..PieceMeta::file(key_of(bytes), bytes.len() as u32) }
}

fn share_of(bytes: &[u8], place: &Place, disk: &Disk) -> Share {
    let stamp = extent::stamp_of(&disk.path_of(place).metadata().unwrap());
    let (hash, length, place) = (key_of(bytes), bytes.len() as u64, place.clone());
    let (state, replicas, lifetime) = (ShareState::Present, 2, 77);
    Share { hash, length, place, stamp, state, replicas, lifetime, replicated: true, synced: true }
}

/// Writes down that a file of this content is shared.
fn save(disk: &mut Disk, share: &Share, bytes: &[u8]) {
    let manifest = Some(manifest_of(bytes));
    ask(disk, DiskOp::SaveShare { share: share.clone(), manifest }).unwrap();
}

/// Runs until nothing is left to do; the answers without the reports of progress.
fn drain(disk: &mut Disk) -> Vec<DiskDone> {
    let mut turns = 0;
    while disk.has_work() {
        disk.run(BUDGET);
        turns += 1;
        assert!(turns < 100_000, "an operation never ends");
    }
    let done = core::iter::from_fn(|| disk.poll_done());
    done.filter(|done| !matches!(done.result, Ok(DiskReply::Progress { .. }))).collect()
}

/// The result of a single operation.
fn ask(disk: &mut Disk, op: DiskOp) -> Result<DiskReply, DiskError> {
    disk.submit(DiskId(1), op);
    let mut done = drain(disk);
    assert_eq!(done.len(), 1, "{done:?}");
    done.remove(0).result
}

fn open_target(place: &Place, manifest: &Arc<Manifest>, force: bool) -> DiskOp {
    let (place, manifest, permissions) = (place.clone(), manifest.clone(), Permissions::Usual(Mode::UNKNOWN));
    DiskOp::OpenTarget { place, manifest, force, permissions, tree: None }
}

fn kind(result: Result<DiskReply, DiskError>) -> DiskErrorKind {
    result.expect_err("it should have failed").kind
}

/// Writes what arrives and returns what it hashed to.
fn receive(disk: &Disk, sink: &Sink, bytes: &[u8]) -> Key {
    let mut open = disk.open_sink(sink).unwrap();
    for part in bytes.chunks(50_000) {
        assert_eq!(open.write(part).unwrap(), part.len());
    }
    open.finish().unwrap()
}

fn incoming(number: u64, bytes: &[u8]) -> Sink {
    let (place, length) = (Place::Incoming(number), bytes.len() as u32);
    Sink { place, offset: 0, length, hash_as: HashAs::Root }
}

fn stored(disk: &mut Disk, bytes: &[u8]) -> Result<DiskReply, DiskError> {
    ask(disk, DiskOp::WritePiece { meta: piece(bytes), bytes: bytes.to_vec() })
}

fn whole(place: Place, length: usize, stamp: Option<FileStamp>) -> Extent {
    Extent { place, offset: 0, length: length as u32, stamp }
}

//! The directory of a node as a medium, a user or another program may have left it: any bytes in any of its files. No start panics, and
//! only the file of the node's identity may keep a node from starting.
//!
//! The input is a sequence of files: a byte that names the file, a byte that says which checksums are made right, a length of two bytes,
//! and the content.
#![no_main]

use elver::disk::{Disk, OpenError};
use elver::id::Key;
use elver::identity::Identity;
use elver::limits::Limits;
use elver::node::command::{Command, CommandId};
use elver::node::{Node, Output};
use elver::time::{Duration, Instant};
use elver_fuzz::fixture::Fixture;
use elver_fuzz::host::config;
use elver_fuzz::tape::Tape;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

/// The most files of one input.
const FILES_MAX: usize = 24;
/// The turns of the disk and of the node in one run.
const TURNS_MAX: usize = 64;
/// The lengths of the node's records: see `disk/piece_file.rs`, `disk/raises.rs` and `disk/shares.rs`.
const TRAILER_BYTES: usize = 256;
const CLAIM_BLOCK_BYTES: usize = 128;
const RAISE_BYTES: usize = 192;
const SHARES_HEAD_BYTES: usize = 16;
const SHARE_BYTES: usize = 96;

fuzz_target!(|data: &[u8]| {
    let scratch = Path::new("/dev/shm");
    let dir = if scratch.is_dir() { TempDir::new_in(scratch) } else { TempDir::new() }.expect("a directory");
    let root = dir.path().join("node");
    for folder in ["pieces", "shares", "cache", "incoming", "damaged"] {
        fs::create_dir_all(root.join(folder)).expect("a directory");
    }
    let mut tape = Tape::new(data);
    let mut wrote_identity = false;
    for _ in 0..FILES_MAX {
        if tape.is_over() {
            break;
        }
        let (name, seal, bytes) = (tape.byte(), tape.byte(), tape.bytes());
        let path = root.join(name_of(name));
        wrote_identity |= path.ends_with("identity.key");
        let mut bytes = bytes.to_vec();
        mend(&mut bytes, seal, &path);
        let _ = fs::create_dir_all(path.parent().expect("it is in the directory"));
        let _ = fs::write(&path, &bytes);
    }
    let first = start(&root, wrote_identity);
    let second = start(&root, wrote_identity);
    if let (Some(first), Some(second)) = (first, second) {
        assert!(second > first || first == u64::MAX, "the number of starts goes up: {first}, {second}");
    }
});

/// The file that a byte names.
fn name_of(number: u8) -> PathBuf {
    let fixture = Fixture::get();
    let key = fixture.key(usize::from(number) / 16 % 8).to_string();
    match number % 16 {
        0 => "ages".into(),
        1 => "ages.copy".into(),
        2 => "peers".into(),
        3 => "records".into(),
        4 => "scrub".into(),
        5 => "raises".into(),
        6 => "shares.log".into(),
        7 => Path::new("shares").join(key),
        8 | 9 => Path::new("pieces").join(&key[..2]).join(key),
        10 => Path::new("cache").join(key),
        11 => Path::new("incoming").join(number.to_string()),
        12 => Path::new("damaged").join("ages.1"),
        13 => "identity.key".into(),
        14 => "shares.log.tmp".into(),
        _ => "reserve".into(),
    }
}

fn seal_at(bytes: &mut [u8], at: usize, over: core::ops::Range<usize>) {
    let sum = xxh3_64(&bytes[over]).to_le_bytes();
    bytes[at..at + 8].copy_from_slice(&sum);
}

/// Makes checksums right where the node expects them, so that what lies behind them is reached.
fn mend(bytes: &mut Vec<u8>, seal: u8, path: &Path) {
    let length = bytes.len();
    match seal % 6 {
        // A small file.
        1 => {
            let sum = xxh3_64(bytes);
            bytes.extend_from_slice(b"ELVS0001");
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        // The last eight bytes: the ages.
        2 if length >= 8 => seal_at(bytes, length - 8, 0..length - 8),
        // Raises.
        3 => {
            for record in bytes.chunks_exact_mut(RAISE_BYTES) {
                record[..5].copy_from_slice(b"ELVR\x02");
                seal_at(record, RAISE_BYTES - 8, 0..RAISE_BYTES - 8);
            }
        }
        // The trailer of a piece.
        4 if length >= TRAILER_BYTES => {
            let content = length - TRAILER_BYTES;
            let sum = xxh3_64(&bytes[..content]).to_le_bytes();
            let trailer = &mut bytes[content..];
            seal_at(trailer, CLAIM_BLOCK_BYTES - 8, 0..CLAIM_BLOCK_BYTES - 8);
            let end = &mut trailer[CLAIM_BLOCK_BYTES..];
            end[..5].copy_from_slice(b"ELVP\x02");
            end[8..12].copy_from_slice(&(content as u32).to_le_bytes());
            let key =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Key>().ok());
            end[32..64].copy_from_slice(&key.unwrap_or(Key([0; 32])).0);
            let last = end.len();
            end[last - 16..last - 8].copy_from_slice(&sum);
            seal_at(end, last - 8, 0..last - 8);
        }
        // The log of shares.
        5 => mend_shares(bytes),
        _ => {}
    }
}

fn mend_shares(bytes: &mut Vec<u8>) {
    bytes.splice(0..0, *b"ELVER SHARES\x02\0\0\0");
    let mut at = SHARES_HEAD_BYTES;
    while bytes.len() >= at + SHARE_BYTES {
        let wanted =
            u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
        let length = (SHARE_BYTES + wanted % 256).next_multiple_of(8).min((bytes.len() - at) / 8 * 8);
        let record = &mut bytes[at..at + length];
        record[..4].copy_from_slice(b"ELVC");
        record[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        let path = (length - SHARE_BYTES) as u32;
        let given = u32::from_le_bytes([record[88], record[89], record[90], record[91]]);
        if given > path {
            record[88..92].copy_from_slice(&path.to_le_bytes());
        }
        seal_at(record, 8, 16..length);
        at += length;
    }
}

/// Starts a node in the directory and lets it run for a while. Returns the number of the start.
fn start(root: &Path, wrote_identity: bool) -> Option<u64> {
    let (mut disk, recovered, secret) = match Disk::open(root) {
        Ok(opened) => opened,
        Err(error) => {
            let excused = wrote_identity && matches!(error, OpenError::Corrupt { .. });
            assert!(excused, "only a damaged identity keeps a node from starting: {error}");
            return None;
        }
    };
    let limits = Limits { pieces_max: 16, shares_max: 16, ..Limits::default() };
    let config = config(limits, root.join("cache"));
    let mut now = Instant::from_secs(1);
    let node = Node::new(config, Identity::stand_in(&secret), &recovered, [7; 32], now);
    let mut node = node.expect("valid limits");
    for (number, command) in
        [Command::Status, Command::List { after: None }, Command::Values].into_iter().enumerate()
    {
        node.handle_command(now, CommandId(number as u64), command);
    }
    for _ in 0..TURNS_MAX {
        while node.poll_datagram().is_some() {}
        while node.poll_stream().is_some() {}
        while let Some(output) = node.poll_output() {
            if let Output::Disk { id, op } = output {
                disk.submit(id, op);
            }
        }
        if disk.has_work() {
            disk.run(1 << 20);
        } else if disk.has_idle_work() {
            disk.run_idle();
        }
        while let Some(done) = disk.poll_done() {
            node.handle_disk(now, done);
        }
        now = now + Duration::from_secs(1);
        node.handle_timeout(now);
    }
    if secret[0] & 1 == 0 {
        node.shut_down(now);
        let _ = disk.clean_shutdown(node.ages(now));
    }
    Some(recovered.ages.boots)
}

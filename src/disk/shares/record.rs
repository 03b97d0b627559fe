//! The format of a record in the log of shares.

use crate::id::Key;
use crate::io::{FileStamp, Mode, Place, Share, ShareState};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The head of the file: a name, and the version of the records.
pub(super) const FILE_HEAD: [u8; 16] = *b"ELVER SHARES\x02\0\0\0";
const MAGIC: [u8; 4] = *b"ELVC";

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    pub(super) magic: [u8; 4],
    /// The length of the record in bytes, including this head and the padding: a multiple of 8.
    pub(super) record_length: U32,
    /// Over the rest of the record.
    checksum: U64,
    pub(super) kind: u8,
    flags: u8,
    replicas: u8,
    reserved: u8,
    lifetime: U32,
    pub(super) hash: Key,
    length: U64,
    stamp_length: U64,
    modified: I64,
    changed: I64,
    path_length: U32,
    mode: U16,
    reserved_half: [u8; 2],
}

pub(super) const HEAD_BYTES: usize = size_of::<Head>();
const COVERED_FROM: usize = 16;
const _: () = assert!(HEAD_BYTES == 96);

pub(super) const CLAIM: u8 = 1;
pub(super) const END: u8 = 2;
const REPLICATED: u8 = 2;
const SYNCED: u8 = 4;
const CHANGED: u8 = 8;

/// The longest path that Linux accepts, in bytes.
pub(in crate::disk) const PATH_BYTES_MAX: usize = 4096;
pub(super) const RECORD_BYTES_MAX: usize = HEAD_BYTES + PATH_BYTES_MAX;

/// An intact record.
pub(super) struct Record {
    pub(super) share: Share,
    pub(super) ends: bool,
    pub(super) length: usize,
}

/// Appends a record to `to`.
pub(super) fn encode(to: &mut Vec<u8>, share: &Share, kind: u8) {
    let path = match &share.place {
        Place::File(path) => path.as_os_str().as_bytes(),
        _ => &[],
    };
    let flag = |set, bit| if set { bit } else { 0 };
    let flags = flag(share.replicated, REPLICATED)
        | flag(share.synced, SYNCED)
        | flag(share.state == ShareState::Changed, CHANGED);
    let record_length = (HEAD_BYTES + path.len()).next_multiple_of(8);
    let mut head = Head {
        magic: MAGIC,
        record_length: U32::new(record_length as u32),
        checksum: U64::new(0),
        kind,
        flags,
        replicas: share.replicas,
        reserved: 0,
        lifetime: U32::new(share.lifetime),
        hash: share.hash,
        length: U64::new(share.length),
        stamp_length: U64::new(share.stamp.length),
        modified: I64::new(share.stamp.modified),
        changed: I64::new(share.stamp.changed),
        path_length: U32::new(path.len() as u32),
        mode: U16::new(share.stamp.mode.encode()),
        reserved_half: [0; 2],
    };
    let start = to.len();
    to.extend_from_slice(head.as_bytes());
    to.extend_from_slice(path);
    to.resize(start + record_length, 0);
    head.checksum = U64::new(xxh3_64(&to[start + COVERED_FROM..]));
    to[start..start + HEAD_BYTES].copy_from_slice(head.as_bytes());
}

/// The record that `bytes` begin with, and what follows on it; `None` when it is cut off or damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, _) = Head::ref_from_prefix(bytes).ok()?;
    let length = head.record_length.get() as usize;
    let path_length = head.path_length.get() as usize;
    if head.magic != MAGIC || length > RECORD_BYTES_MAX || path_length > PATH_BYTES_MAX {
        return None;
    }
    if length != (HEAD_BYTES + path_length).next_multiple_of(8) {
        return None;
    }
    let (record, rest) = bytes.split_at_checked(length)?;
    if xxh3_64(&record[COVERED_FROM..]) != head.checksum.get() || !matches!(head.kind, CLAIM | END) {
        return None;
    }
    let place = match &record[HEAD_BYTES..HEAD_BYTES + path_length] {
        [] => Place::Cache(head.hash),
        path => Place::File(Path::new(OsStr::from_bytes(path)).into()),
    };
    let share = Share {
        hash: head.hash,
        length: head.length.get(),
        place,
        stamp: FileStamp {
            length: head.stamp_length.get(),
            modified: head.modified.get(),
            changed: head.changed.get(),
            mode: Mode::decode(head.mode.get()).unwrap_or_default(),
        },
        state: if head.flags & CHANGED != 0 { ShareState::Changed } else { ShareState::Present },
        replicas: head.replicas,
        lifetime: head.lifetime.get(),
        replicated: head.flags & REPLICATED != 0,
        synced: head.flags & SYNCED != 0,
    };
    Some((Record { share, ends: head.kind == END, length }, rest))
}

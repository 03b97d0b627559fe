//! The share files of the first version, one for each share: the encoded manifest from offset 0 (empty for a file of one chunk), the
//! path, and a trailer with the rest. A start imports them into the log of shares.

use super::shares::PATH_BYTES_MAX;
use crate::id::Key;
use crate::io::{FileStamp, Mode, Place, Share, ShareState};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Trailer {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    replicas: u8,
    reserved: u8,
    manifest_length: U32,
    path_length: U32,
    lifetime: U32,
    /// The file's mode; zero when unknown.
    mode: U16,
    reserved_half: [u8; 2],
    length: U64,
    modified: I64,
    /// The inode number, no longer used.
    inode: U64,
    hash: Key,
    reserved_rest: [u8; 40],
    checksum: U64,
}

const TRAILER_BYTES: usize = size_of::<Trailer>();
const COVERED: usize = TRAILER_BYTES - 8;
const MAGIC: [u8; 4] = *b"ELVF";
const VERSION: u8 = 1;
const CACHED: u8 = 1;
const REPLICATED: u8 = 2;
const SYNCED: u8 = 4;

const _: () = assert!(TRAILER_BYTES == 128);

/// The longest share file, in bytes.
pub(super) const SHARE_BYTES_MAX: u64 = MANIFEST_BYTES_MAX as u64 + (PATH_BYTES_MAX + TRAILER_BYTES) as u64;

/// Parses the share file with this name; `None` when it is torn or damaged, or does not match its name. The stamp lacks the time of
/// change, so the shared file is hashed again.
pub(super) fn parse(bytes: &[u8], hash: &Key) -> Option<(Share, Manifest)> {
    let (rest, trailer) = Trailer::ref_from_suffix(bytes).ok()?;
    let (manifest_length, path_length) =
        (trailer.manifest_length.get() as usize, trailer.path_length.get() as usize);
    if rest.len() != manifest_length.checked_add(path_length)? {
        return None;
    }
    let (manifest, path) = rest.split_at(manifest_length);
    let known = trailer.magic == MAGIC && trailer.version == VERSION && trailer.hash == *hash;
    if !known || trailer.checksum.get() != checksum(manifest, path, trailer) {
        return None;
    }
    let length = trailer.length.get();
    let manifest = match manifest {
        [] => Manifest::single(*hash, length)?,
        encoded => Manifest::decode(encoded, hash).ok()?,
    };
    let place = match trailer.flags & CACHED != 0 {
        true => Place::Cache(*hash),
        false => Place::File(Path::new(OsStr::from_bytes(path)).into()),
    };
    let mode = Mode::decode(trailer.mode.get()).unwrap_or_default();
    let stamp = FileStamp { length, modified: trailer.modified.get(), changed: 0, mode };
    (manifest.length() == length).then(|| {
        let share = Share {
            hash: *hash,
            length,
            place,
            stamp,
            state: ShareState::Present,
            replicas: trailer.replicas,
            lifetime: trailer.lifetime.get(),
            replicated: trailer.flags & REPLICATED != 0,
            synced: trailer.flags & SYNCED != 0,
        };
        (share, manifest)
    })
}

fn checksum(manifest: &[u8], path: &[u8], trailer: &Trailer) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(manifest);
    hasher.update(path);
    hasher.update(&trailer.as_bytes()[..COVERED]);
    hasher.digest()
}

/// Encodes a share as a node of the first version did.
#[cfg(test)]
pub(super) fn encode(share: &Share, manifest: &Manifest) -> Vec<u8> {
    let Place::File(path) = &share.place else { panic!("only files are imported in tests") };
    let path = path.as_os_str().as_bytes();
    let manifest = if manifest.is_single() { Vec::new() } else { manifest.encode() };
    let mut trailer = Trailer {
        magic: MAGIC,
        version: VERSION,
        flags: if share.replicated { REPLICATED | SYNCED } else { SYNCED },
        replicas: share.replicas,
        reserved: 0,
        manifest_length: U32::new(manifest.len() as u32),
        path_length: U32::new(path.len() as u32),
        lifetime: U32::new(share.lifetime),
        mode: U16::new(share.stamp.mode.encode()),
        reserved_half: [0; 2],
        length: U64::new(share.length),
        modified: I64::new(share.stamp.modified),
        inode: U64::new(9),
        hash: share.hash,
        reserved_rest: [0; 40],
        checksum: U64::new(0),
    };
    trailer.checksum = U64::new(checksum(&manifest, path, &trailer));
    [&manifest, path, trailer.as_bytes()].concat()
}

//! The file of a share: the encoded manifest from offset 0, so that it is sent as it lies (nothing for a one-chunk file);
//! the path; then a trailer with the rest.

use super::durable::{Replace, replace};
use super::error::{failed, refused};
use super::layout::Layout;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, FileStamp, Mode, Place, Share};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
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
    /// Zero where nothing is known of it, as in files of versions that had none.
    mode: U16,
    reserved_half: [u8; 2],
    length: U64,
    modified: I64,
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

/// The longest path that Linux takes.
const PATH_BYTES_MAX: usize = 4096;
/// The longest file that can be a share.
pub(super) const SHARE_BYTES_MAX: u64 = MANIFEST_BYTES_MAX as u64 + (PATH_BYTES_MAX + TRAILER_BYTES) as u64;

/// Writes a share down: durably, when the content of its file is.
pub(super) fn save(layout: &Layout, share: &Share) -> Result<(), DiskError> {
    let hash = share.manifest.hash();
    let (path, cached) = match &share.place {
        Place::File(path) => (path.as_os_str().as_bytes(), 0),
        Place::Cache(key) if *key == hash => (&[][..], CACHED),
        other => panic!("a share lies in a file or in the cache, not in {other:?}"),
    };
    if path.len() > PATH_BYTES_MAX {
        let path = Path::new(OsStr::from_bytes(path));
        return Err(refused(DiskErrorKind::Unsuitable, path, "cannot be shared: the path is too long"));
    }
    let manifest = if share.manifest.is_single() { Vec::new() } else { share.manifest.encode() };
    let flag = |set, bit| if set { bit } else { 0 };
    let mut trailer = Trailer {
        magic: MAGIC,
        version: VERSION,
        flags: cached | flag(share.replicated, REPLICATED) | flag(share.synced, SYNCED),
        replicas: share.replicas,
        reserved: 0,
        manifest_length: U32::new(manifest.len() as u32),
        path_length: U32::new(path.len() as u32),
        lifetime: U32::new(share.lifetime),
        mode: U16::new(share.stamp.mode.encode()),
        reserved_half: [0; 2],
        length: U64::new(share.stamp.length),
        modified: I64::new(share.stamp.modified),
        inode: U64::new(share.stamp.inode),
        hash,
        reserved_rest: [0; 40],
        checksum: U64::new(0),
    };
    trailer.checksum = U64::new(checksum(&manifest, path, &trailer));
    let file = layout.share(&hash);
    // A sync here may have to wait for all that was just downloaded, and whether that survives a power cut nobody promised.
    let how = if share.synced { Replace::Durably } else { Replace::Lightly };
    replace(&file, &[&manifest, path, trailer.as_bytes()], how).map_err(|error| failed("write", &file, error))
}

/// Reads what a share's file of this name says; `None` when it is torn, damaged or not what its name says.
pub(super) fn parse(bytes: &[u8], hash: &Key) -> Option<Share> {
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
    let stamp = FileStamp { length, modified: trailer.modified.get(), inode: trailer.inode.get(), mode };
    (manifest.length() == length).then(|| Share {
        manifest: Arc::new(manifest),
        place,
        stamp,
        replicas: trailer.replicas,
        lifetime: trailer.lifetime.get(),
        replicated: trailer.flags & REPLICATED != 0,
        synced: trailer.flags & SYNCED != 0,
    })
}

fn checksum(manifest: &[u8], path: &[u8], trailer: &Trailer) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(manifest);
    hasher.update(path);
    hasher.update(&trailer.as_bytes()[..COVERED]);
    hasher.digest()
}

//! The small files: the node's secret, contacts and own records.

use super::damaged::Damaged;
use super::durable::{Replace, replace};
use super::error::OpenError;
use super::files::sync_directory_of_others;
use super::layout::Layout;
use crate::id::{IdWork, Key};
use crate::identity::Identity;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most bytes read from a small file.
const SMALL_BYTES_MAX: u64 = 16 << 20;

const DAMAGED_KEY: &str = "it should be 64 hexadecimal digits; restore it from a backup, or delete it and the \
    node starts over as a new one";
const EMPTY_KEY: &str = "it is empty; restore it from a backup, or, where the node never ran to its end, delete it and the \
    node starts over as a new one";

/// Reads the node's secret; `None` when there is none yet.
pub(super) fn secret(layout: &Layout) -> Result<Option<[u8; 32]>, OpenError> {
    let path = layout.file("identity.key");
    let text = match read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::unreadable(&path, error)),
    };
    let mode = fs::metadata(&path).map_err(OpenError::at(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        log::warn!("other users can read {} (mode {:o}); run chmod 600 on it", path.display(), mode & 0o777);
    }
    let digits = core::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse::<Key>().ok());
    match digits {
        Some(Key(secret)) => Ok(Some(secret)),
        None => {
            let advice = if text.is_empty() { EMPTY_KEY } else { DAMAGED_KEY };
            Err(OpenError::Corrupt { path, advice })
        }
    }
}

/// The search for a secret gives up after this many times the expected number of keys: a chance of less than 1 in 10^27.
const PATIENCE: u64 = 64;

/// Makes the node's secret, of an identity that shows this work. It is the last file of a new directory, so a node with a secret has
/// counted its first start.
pub(super) fn make_secret(layout: &Layout, id_work: IdWork) -> Result<[u8; 32], OpenError> {
    let path = &layout.file("identity.key");
    // This start, or an earlier one that was killed, may have created some of the directories above. They must be on the medium
    // before the secret is: all content depends on them.
    for directory in layout.root().ancestors().skip(1) {
        sync_directory_of_others(directory).map_err(OpenError::at(directory))?;
    }
    if id_work > IdWork::NONE {
        log::info!("looking for an identity that shows {id_work} of work: about {} keys", id_work.keys());
    }
    let secret = find_secret(id_work).map_err(|error| OpenError::Failed { path: path.clone(), error })?;
    replace(path, &[secret_text(secret).as_bytes()], Replace::Durably).map_err(OpenError::at(path))?;
    Ok(secret)
}

/// Draws secrets until one is of an identity that shows this work.
fn find_secret(id_work: IdWork) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    for _ in 0..id_work.keys().saturating_mul(PATIENCE) {
        fill_with_entropy(&mut secret)?;
        if id_work == IdWork::NONE || id_work.is_shown_by(&Identity::from_secret(&secret).public()) {
            return Ok(secret);
        }
    }
    Err(io::Error::other(format!("no identity that shows {id_work} of work was found")))
}

/// A secret as its file has it.
pub(super) fn secret_text(secret: [u8; 32]) -> String {
    format!("{}\n", Key(secret))
}

/// Fills `bytes` with entropy, from /dev/urandom where a system-call filter or an old kernel refuses getrandom(2).
fn fill_with_entropy(bytes: &mut [u8]) -> io::Result<()> {
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(filled) if filled == bytes.len() => Ok(()),
        _ => File::open("/dev/urandom")?.read_exact(bytes),
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Seal {
    magic: [u8; 8],
    checksum: U64,
}

const SEAL_MAGIC: [u8; 8] = *b"ELVS0001";

/// Writes bytes with a checksum.
pub(super) fn save_sealed(path: &Path, bytes: &[u8], how: Replace) -> io::Result<()> {
    let seal = Seal { magic: SEAL_MAGIC, checksum: U64::new(xxh3_64(bytes)) };
    replace(path, &[bytes, seal.as_bytes()], how)
}

/// Reads bytes that [`save_sealed`] wrote; none when the file is missing. A damaged file is set aside.
pub(super) fn read_sealed(path: &Path, damaged: &Damaged) -> Vec<u8> {
    let mut bytes = match read_small(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            log::warn!("cannot read {}: {error}; the node starts without it", path.display());
            return Vec::new();
        }
    };
    let whole = Seal::ref_from_suffix(&bytes).ok().and_then(|(content, seal)| {
        let whole = seal.magic == SEAL_MAGIC && seal.checksum.get() == xxh3_64(content);
        whole.then_some(content.len())
    });
    if whole.is_none() {
        damaged.set_aside(path, "its checksum is wrong");
    }
    bytes.truncate(whole.unwrap_or(0));
    bytes
}

pub(super) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

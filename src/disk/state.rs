//! The small files: the secret, the age, contacts and own records.

use super::durable::{Replace, replace};
use super::error::OpenError;
use super::files::sync_directory_of_others;
use super::layout::Layout;
use crate::id::Key;
use crate::io::Ages;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most bytes that are read of a small file.
const SMALL_BYTES_MAX: u64 = 16 << 20;

const DAMAGED_KEY: &str = "it should be 64 hexadecimal digits; restore it from a backup, or delete it and the \
    node starts over as a new one";
const DAMAGED_AGES: &str = "the checksum does not fit; delete it to start anyway (other nodes may not listen to \
    this one for a while)";

/// Reads the node's secret, or makes one.
pub(super) fn secret(layout: &Layout) -> Result<[u8; 32], OpenError> {
    let path = layout.file("identity.key");
    let text = match read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make_secret(layout, &path),
        Err(error) => return Err(OpenError::new(&path, error)),
    };
    let mode = fs::metadata(&path).map_err(OpenError::at(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        log::warn!("{} can be read by others (mode {:o}): chmod 600 it", path.display(), mode & 0o777);
    }
    let digits = core::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse::<Key>().ok());
    match digits {
        Some(Key(secret)) => Ok(secret),
        None => Err(OpenError::Corrupt { path, advice: DAMAGED_KEY }),
    }
}

fn make_secret(layout: &Layout, path: &Path) -> Result<[u8; 32], OpenError> {
    // Whatever is stored here is lost with any of the directories above, and this start may have made some of them, or
    // an earlier one that was killed. Where there is a secret, they are on the medium.
    for directory in layout.root().ancestors().skip(1) {
        sync_directory_of_others(directory).map_err(OpenError::at(directory))?;
    }
    let mut secret = [0; 32];
    let filled = getrandom(&mut secret[..], GetRandomFlags::empty());
    if filled != Ok(secret.len()) {
        let error = filled.err().map_or(io::ErrorKind::Other.into(), io::Error::from);
        return Err(OpenError::Failed { path: path.to_owned(), error });
    }
    let text = format!("{}\n", Key(secret));
    replace(path, &[text.as_bytes()], Replace::Durably).map_err(OpenError::at(path))?;
    Ok(secret)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AgesFile {
    magic: [u8; 4],
    version: u8,
    clean: u8,
    reserved: [u8; 2],
    boots: U64,
    seconds: U64,
    /// Which run of the machine it was written in; zero when that is not known.
    machine_boot: [u8; 16],
    reserved_rest: [u8; 16],
    checksum: U64,
}

const AGES_MAGIC: [u8; 4] = *b"ELVA";
const AGES_VERSION: u8 = 1;
const AGES_COVERED: usize = size_of::<AgesFile>() - 8;
const _: () = assert!(size_of::<AgesFile>() == 64);

/// What the last run wrote down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LastRun {
    pub(super) ages: Ages,
    /// Whether the machine has been running ever since, so that what was written without being synced is still
    /// there.
    pub(super) same_machine_boot: bool,
}

/// Reads the node's age. One that was never written is zero.
pub(super) fn read_ages(layout: &Layout) -> Result<LastRun, OpenError> {
    let path = layout.file("ages");
    let bytes = match read_small(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LastRun::default()),
        Err(error) => return Err(OpenError::new(&path, error)),
    };
    let whole = AgesFile::ref_from_bytes(&bytes).ok().filter(|file| {
        file.magic == AGES_MAGIC
            && file.version == AGES_VERSION
            && file.checksum.get() == xxh3_64(&file.as_bytes()[..AGES_COVERED])
    });
    let Some(file) = whole else {
        return Err(OpenError::Corrupt { path, advice: DAMAGED_AGES });
    };
    let ages = Ages { boots: file.boots.get(), seconds: file.seconds.get(), clean: file.clean == 1 };
    let same_machine_boot = file.machine_boot != [0; 16] && file.machine_boot == machine_boot();
    Ok(LastRun { ages, same_machine_boot })
}

/// Writes the node's age, durably.
pub(super) fn save_ages(layout: &Layout, ages: &Ages) -> io::Result<()> {
    let mut file = AgesFile {
        magic: AGES_MAGIC,
        version: AGES_VERSION,
        clean: u8::from(ages.clean),
        reserved: [0; 2],
        boots: U64::new(ages.boots),
        seconds: U64::new(ages.seconds),
        machine_boot: machine_boot(),
        reserved_rest: [0; 16],
        checksum: U64::new(0),
    };
    file.checksum = U64::new(xxh3_64(&file.as_bytes()[..AGES_COVERED]));
    replace(&layout.file("ages"), &[file.as_bytes()], Replace::Durably)
}

/// Names this run of the machine; zero where the kernel does not tell.
fn machine_boot() -> [u8; 16] {
    #[cfg(any(test, feature = "sim"))]
    if let Some(name) = super::record::machine_boot() {
        return name;
    }
    let text = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match text.is_empty() {
        true => [0; 16],
        false => core::array::from_fn(|index| blake3::hash(&text).as_bytes()[index]),
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Seal {
    magic: [u8; 8],
    checksum: U64,
}

const SEAL_MAGIC: [u8; 8] = *b"ELVS0001";

/// Writes bytes that are checked when they are read.
pub(super) fn save_sealed(path: &Path, bytes: &[u8], how: Replace) -> io::Result<()> {
    let seal = Seal { magic: SEAL_MAGIC, checksum: U64::new(xxh3_64(bytes)) };
    replace(path, &[bytes, seal.as_bytes()], how)
}

/// Reads what [`save_sealed`] wrote; nothing when it is not there, or damaged, which is logged.
pub(super) fn read_sealed(path: &Path) -> Vec<u8> {
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
        log::warn!("{} is damaged; the node starts without it", path.display());
    }
    bytes.truncate(whole.unwrap_or(0));
    bytes
}

pub(super) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

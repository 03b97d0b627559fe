//! Verifies a piece on disk again, to detect damage by the medium.
//!
//! One pass computes both checksums of a stored piece: BLAKE3 tells whether the content matches the key, XXH3 whether it is what was
//! written. An *idle* verification must not disturb other work. It never waits for the medium: it has the kernel read ahead, and
//! reads only what is in the page cache (`RWF_NOWAIT`). It drops the pages first, because the page cache may have good bytes that
//! the medium has lost. It drops them again afterwards if they were not cached before, so that a scrub of the whole disk does not
//! evict the pages of other programs.

use super::error::{changed, failed};
use super::extent::{open_regular, stamp_of};
use super::layout::Layout;
use super::piece_file::{self, Found};
use super::tasks::{Slice, Task};
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskReply, FileAt, FileStamp, PieceAt, Place, Soundness};
use crate::manifest::{HashAs, Manifest};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The bytes that the kernel reads ahead of an idle reader.
const AHEAD_BYTES: u64 = 1 << 20;
/// The number of attempts that find no bytes in the page cache, after which an idle reader waits for the medium.
const TRIES_MAX: u32 = 200;

/// The state of the check of a piece's bytes.
enum Sum {
    Hash {
        hash_as: HashAs,
        hasher: Box<blake3::Hasher>,
    },
    /// A manifest is collected and checked as a whole.
    Manifest {
        bytes: Vec<u8>,
    },
}

impl Sum {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Hash { hasher, .. } => _ = hasher.update(bytes),
            Sum::Manifest { bytes: collected } => collected.extend_from_slice(bytes),
        }
    }

    fn fits(&self, key: &Key) -> bool {
        match self {
            Sum::Hash { hash_as, hasher } => hash_as.key(hasher) == *key,
            Sum::Manifest { bytes } => Manifest::decode(bytes, key).is_ok(),
        }
    }
}

/// A running verification.
pub(super) struct Verify {
    file: Arc<File>,
    path: PathBuf,
    key: Key,
    /// The offset of the next byte in the file, and the number of bytes left.
    offset: u64,
    remaining: u64,
    stamp: Option<FileStamp>,
    sum: Sum,
    /// The XXH3 of the content so far, and the one in the trailer.
    stored: Option<(Box<Xxh3>, u64)>,
    pace: Option<Idle>,
}

/// The state of a reader that never waits for the medium.
#[derive(Default)]
struct Idle {
    /// The end of the read-ahead, and whether its pages were cached before.
    announced: u64,
    cached: bool,
    tries: u32,
}

/// The result of beginning a verification.
pub(super) enum Begun {
    Goes(Verify),
    Over(Soundness),
}

impl Verify {
    /// Begins a verification. `opened` is the piece's file, whose path is `path`.
    pub(super) fn begin(
        layout: &Layout,
        opened: Result<(Arc<File>, Metadata), DiskError>,
        path: PathBuf,
        piece: PieceAt,
        idle: bool,
    ) -> Result<Begun, DiskError> {
        let PieceAt { key, content, input_offset, extent } = piece;
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            // Without the directory of all pieces a missing file proves nothing.
            Err(error) if error.kind == DiskErrorKind::NotFound && layout.pieces().is_dir() => {
                return Ok(Begun::Over(Soundness::Missing));
            }
            Err(error) => return Err(error),
        };
        if extent.stamp.is_some_and(|stamp| stamp != stamp_of(&metadata)) {
            return Err(changed(&path));
        }
        let stored = match &extent.place {
            Place::Piece(key) => match piece_file::read(&file, key) {
                Ok(Found::Piece(meta, checksum))
                    if (meta.content, meta.length, meta.input_offset)
                        == (content, extent.length, input_offset) =>
                {
                    Some((Box::new(Xxh3::new()), checksum))
                }
                Ok(_) => return Ok(Begun::Over(Soundness::Rotten)),
                Err(error) => return unreadable(&path, error).map(Begun::Over),
            },
            _ => None,
        };
        if !content.fits(input_offset, extent.length) {
            return Ok(Begun::Over(Soundness::Rotten));
        }
        let sum = match content.hash_as(input_offset) {
            Some(hash_as) => Sum::Hash { hash_as, hasher: Box::new(hash_as.hasher()) },
            None => Sum::Manifest { bytes: Vec::with_capacity(extent.length as usize) },
        };
        let (offset, remaining, stamp) = (extent.offset, u64::from(extent.length), extent.stamp);
        let pace = idle.then(Idle::default);
        Ok(Begun::Goes(Verify { file, path, key, offset, remaining, stamp, sum, stored, pace }))
    }

    /// Begins the idle verification of a whole shared file.
    pub(super) fn open_file(path: PathBuf, at: &FileAt) -> Result<Verify, DiskError> {
        let (file, metadata) = open_regular(&path)?;
        if stamp_of(&metadata) != at.stamp || metadata.len() != at.length {
            return Err(changed(&path));
        }
        let hash_as = HashAs::Root;
        Ok(Verify {
            file: Arc::new(file),
            path,
            key: at.hash,
            offset: 0,
            remaining: at.length,
            stamp: Some(at.stamp),
            sum: Sum::Hash { hash_as, hasher: Box::new(hash_as.hasher()) },
            stored: None,
            pace: Some(Idle::default()),
        })
    }

    /// Reads the next bytes. `None` when the medium has not delivered them yet.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(idle) = &mut self.pace else {
            return self.file.read_at(buffer, self.offset).map(Some);
        };
        if self.offset >= idle.announced {
            let length = self.remaining.min(AHEAD_BYTES);
            idle.cached = !matches!(read_cached(&self.file, &mut [0], self.offset), Err(Errno::AGAIN));
            let _ = fadvise(&self.file, self.offset, NonZeroU64::new(length), Advice::DontNeed);
            let _ = fadvise(&self.file, self.offset, NonZeroU64::new(length), Advice::WillNeed);
            (idle.announced, idle.tries) = (self.offset + length, 0);
        }
        let most = (idle.announced - self.offset).min(buffer.len() as u64) as usize;
        let read = match read_cached(&self.file, &mut buffer[..most], self.offset) {
            Err(Errno::AGAIN) if idle.tries < TRIES_MAX => {
                idle.tries += 1;
                return Ok(None);
            }
            // For any other reason, such as a file system without `RWF_NOWAIT`, a plain read decides.
            Err(_) => self.file.read_at(&mut buffer[..most], self.offset)?,
            Ok(read) => read,
        };
        if !idle.cached {
            let _ = fadvise(&self.file, self.offset, NonZeroU64::new(read as u64), Advice::DontNeed);
        }
        Ok(Some(read))
    }

    fn finish(&self) -> Result<Soundness, DiskError> {
        if let Some(stamp) = self.stamp {
            let metadata = self.file.metadata().map_err(|error| failed("read", &self.path, error))?;
            if stamp_of(&metadata) != stamp {
                return Err(changed(&self.path));
            }
        }
        let as_stored = self.stored.as_ref().is_none_or(|(sum, checksum)| sum.digest() == *checksum);
        match as_stored && self.sum.fits(&self.key) {
            true => Ok(Soundness::Sound),
            false => Ok(Soundness::Rotten),
        }
    }
}

impl Task for Verify {
    fn step(&mut self, slice: &mut Slice<'_>) -> Result<Option<DiskReply>, DiskError> {
        if self.remaining > 0 {
            let most = self.remaining.min(slice.buffer.len() as u64) as usize;
            let read = match self.read(&mut slice.buffer[..most]) {
                Ok(Some(0)) if self.stamp.is_some() => return Err(changed(&self.path)),
                Ok(Some(0)) => return Ok(Some(DiskReply::Verified { soundness: Soundness::Rotten })),
                Ok(Some(read)) => read,
                Ok(None) => {
                    slice.waits = true;
                    return Ok(None);
                }
                Err(error) => {
                    return unreadable(&self.path, error)
                        .map(|soundness| Some(DiskReply::Verified { soundness }));
                }
            };
            slice.read = read;
            self.sum.update(&slice.buffer[..read]);
            if let Some((sum, _)) = &mut self.stored {
                sum.update(&slice.buffer[..read]);
            }
            self.offset += read as u64;
            self.remaining -= read as u64;
        }
        match self.remaining {
            0 => self.finish().map(|soundness| Some(DiskReply::Verified { soundness })),
            _ => Ok(None),
        }
    }
}

/// Reads from the page cache. The error is `AGAIN` when the bytes are not in it.
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
}

/// Classifies a failed read: the medium has lost the bytes, or the result is uncertain (an error).
fn unreadable(path: &std::path::Path, error: io::Error) -> Result<Soundness, DiskError> {
    // File systems with their own checksums return EBADMSG or EUCLEAN for a wrong one.
    let lost = [Errno::IO, Errno::BADMSG, Errno::UCLEAN];
    match Errno::from_io_error(&error) {
        Some(errno) if lost.contains(&errno) => {
            log::warn!("cannot read {}: {error}", path.display());
            Ok(Soundness::Unreadable)
        }
        // The file is too short.
        None if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Soundness::Rotten),
        _ => Err(failed("read", path, error)),
    }
}

//! Reading a piece again, to see whether the medium still has what was stored.
//!
//! One pass computes both checksums of a stored piece: BLAKE3 says whether the content is what the key says, XXH3 whether it is
//! what was written. An *idle* verification must not disturb what else is going on. It never waits for the medium: it
//! has the kernel read ahead, and reads what is there already (`RWF_NOWAIT`). It drops the pages first, because the
//! page cache may hold good bytes of which the medium has lost its copy, and drops them again afterwards when they had not
//! been cached, so that a scrub of the whole disk does not push out what other programs need.

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

/// How far ahead of an idle reader the kernel reads.
const AHEAD_BYTES: u64 = 1 << 20;
/// How often an idle reader finds that its bytes have not come from the medium before it waits for them.
const TRIES_MAX: u32 = 200;

/// What the bytes of a piece are collected into.
enum Sum {
    Hash {
        hash_as: HashAs,
        hasher: Box<blake3::Hasher>,
    },
    /// A manifest is checked as a whole. It is short.
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

/// A piece that is read again.
pub(super) struct Verify {
    file: Arc<File>,
    path: PathBuf,
    key: Key,
    /// Where the next byte lies in the file, and how many there are from there on.
    offset: u64,
    remaining: u64,
    stamp: Option<FileStamp>,
    sum: Sum,
    /// XXH3 of the content so far, and what the trailer says that it must come to.
    stored: Option<(Box<Xxh3>, u64)>,
    pace: Option<Idle>,
}

/// The state of a reader that never waits for the medium.
#[derive(Default)]
struct Idle {
    /// Up to where the kernel was told to read, and whether these pages were cached before.
    announced: u64,
    cached: bool,
    tries: u32,
}

/// A verification that has begun, or one that is over already.
pub(super) enum Begun {
    Goes(Verify),
    Over(Soundness),
}

impl Verify {
    /// `opened` is the piece's file, which lies at `path`.
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
            // As long as the directory of all pieces is there: without it nothing can be told.
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

    /// A shared file as a whole, in idle time.
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

    /// Reads the next bytes. `None` when they have not come from the medium.
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
            // Whatever keeps the file system from telling: a plain read does.
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

/// Reads what the page cache has. The error is `AGAIN` when that is nothing.
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
}

/// What a failed read says of the bytes: that the medium has lost them, or nothing at all.
fn unreadable(path: &std::path::Path, error: io::Error) -> Result<Soundness, DiskError> {
    // Where the file system keeps checksums of its own, a wrong one is EBADMSG or EUCLEAN.
    let lost = [Errno::IO, Errno::BADMSG, Errno::UCLEAN];
    match Errno::from_io_error(&error) {
        Some(errno) if lost.contains(&errno) => {
            log::warn!("cannot read {}: {error}", path.display());
            Ok(Soundness::Unreadable)
        }
        // A read past the end: the file is shorter than it was.
        None if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Soundness::Rotten),
        _ => Err(failed("read", path, error)),
    }
}

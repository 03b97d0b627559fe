//! The file of a stored piece: its content from offset 0, ready to be sent, and then a trailer.
//!
//! The trailer has the piece's metadata and checksums of both. It comes last, so a truncated file has none. XXH3 detects accidental
//! damage; only BLAKE3 decides whether the content matches its key.

use crate::id::Key;
use crate::io::{Mode, PieceMeta};
use crate::manifest::Content;
use crate::store::PIECE_OVERHEAD_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Trailer {
    magic: [u8; 4],
    version: u8,
    content: u8,
    replicas: u8,
    reserved: u8,
    length: U32,
    /// The file's mode; zero when unknown, as in files of earlier versions.
    mode: U16,
    reserved_half: [u8; 2],
    input_offset: U64,
    expires: U64,
    key: Key,
    reserved_rest: [u8; 48],
    content_checksum: U64,
    checksum: U64,
}

const TRAILER_BYTES: usize = size_of::<Trailer>();
const COVERED: usize = TRAILER_BYTES - 8;
const MAGIC: [u8; 4] = *b"ELVP";
const VERSION: u8 = 1;

const _: () = assert!(TRAILER_BYTES == 128 && TRAILER_BYTES as u64 == PIECE_OVERHEAD_BYTES);

impl Trailer {
    /// The trailer of a piece whose content has this XXH3-64.
    pub(super) fn new(meta: &PieceMeta, content_checksum: u64) -> Self {
        let mut trailer = Trailer {
            magic: MAGIC,
            version: VERSION,
            content: meta.content as u8,
            replicas: meta.replicas,
            reserved: 0,
            length: U32::new(meta.length),
            mode: U16::new(meta.mode.encode()),
            reserved_half: [0; 2],
            input_offset: U64::new(meta.input_offset),
            expires: U64::new(meta.expires),
            key: meta.key,
            reserved_rest: [0; 48],
            content_checksum: U64::new(content_checksum),
            checksum: U64::new(0),
        };
        trailer.checksum = U64::new(xxh3_64(&trailer.as_bytes()[..COVERED]));
        trailer
    }

    /// Whether a later version of the program wrote it. Magic, version and the checksum at the end keep their places in every
    /// version.
    fn is_newer(&self) -> bool {
        self.magic == MAGIC && self.version > VERSION && self.has_checksum()
    }

    fn has_checksum(&self) -> bool {
        self.checksum.get() == xxh3_64(&self.as_bytes()[..COVERED])
    }

    /// The metadata, if the trailer is intact and belongs to a file of `file_length` bytes with the name `key`.
    fn check(&self, file_length: u64, key: &Key) -> Option<PieceMeta> {
        let whole = self.magic == MAGIC
            && self.version == VERSION
            && self.has_checksum()
            && u64::from(self.length.get()) + PIECE_OVERHEAD_BYTES == file_length
            && self.key == *key;
        let content = Content::from_number(self.content).filter(|_| whole)?;
        Some(PieceMeta {
            key: self.key,
            content,
            length: self.length.get(),
            input_offset: self.input_offset.get(),
            replicas: self.replicas,
            mode: Mode::decode(self.mode.get()).unwrap_or_default(),
            expires: self.expires.get(),
        })
    }
}

/// The result of reading a piece's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A piece, with the XXH3-64 of its content when it was stored.
    Piece(PieceMeta, u64),
    /// A piece of a later version of the program.
    Newer,
    /// The file is torn or damaged, or its name does not match.
    Damaged,
}

/// Reads the trailer of a piece's file.
pub(super) fn read(file: &File, key: &Key) -> io::Result<Found> {
    let file_length = file.metadata()?.len();
    let Some(at) = file_length.checked_sub(PIECE_OVERHEAD_BYTES) else {
        return Ok(Found::Damaged);
    };
    let mut bytes = [0; TRAILER_BYTES];
    file.read_exact_at(&mut bytes, at)?;
    let trailer = Trailer::ref_from_bytes(&bytes).expect("as many bytes as a trailer has");
    Ok(match trailer.check(file_length, key) {
        Some(meta) => Found::Piece(meta, trailer.content_checksum.get()),
        None if trailer.is_newer() => Found::Newer,
        None => Found::Damaged,
    })
}

/// Turns the bytes of a piece's file into those of a later version.
#[cfg(test)]
pub(super) fn make_newer(bytes: &mut [u8]) {
    let at = bytes.len() - TRAILER_BYTES;
    let trailer = Trailer::mut_from_bytes(&mut bytes[at..]).unwrap();
    trailer.version += 1;
    trailer.reserved_rest = [5; 48];
    trailer.checksum = U64::new(xxh3_64(&trailer.as_bytes()[..COVERED]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_keeps_its_metadata_and_any_flipped_bit_is_detected() {
        let meta = PieceMeta {
            key: Key([7; 32]),
            content: Content::Chunk,
            length: 1000,
            input_offset: 1 << 20,
            replicas: 3,
            mode: Mode::of(0o755),
            expires: 99,
        };
        let trailer = Trailer::new(&meta, 5);
        assert_eq!(trailer.check(1128, &meta.key), Some(meta));
        assert_eq!(trailer.check(1129, &meta.key), None);
        assert_eq!(trailer.check(1128, &Key([8; 32])), None);
        for bit in 0..TRAILER_BYTES * 8 {
            let mut bytes: [u8; TRAILER_BYTES] = trailer.as_bytes().try_into().unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::ref_from_bytes(&bytes).unwrap().check(1128, &meta.key), None, "bit {bit}");
        }
    }
}

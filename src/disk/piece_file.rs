//! The file of a stored piece: its content from offset 0, ready to be sent, and then a trailer.
//!
//! The trailer has the piece's claim and its metadata, and checksums of all. It comes last, so a truncated file has none. XXH3
//! detects accidental damage; only BLAKE3 decides whether the content matches its key. Files of version 1 have no claim.

use crate::claim::{CLAIM_BYTES, PieceClaim};
use crate::id::Key;
use crate::io::{Brought, Mode, PieceMeta};
use crate::manifest::Content;
use crate::store::PIECE_OVERHEAD_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The claim on the piece.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ClaimBlock {
    claim: [u8; CLAIM_BYTES],
    reserved: [u8; 8],
    /// Over the bytes above.
    checksum: U64,
}

impl ClaimBlock {
    fn new(claim: Option<PieceClaim>) -> Self {
        let mut block =
            ClaimBlock { claim: PieceClaim::encode(claim), reserved: [0; 8], checksum: U64::new(0) };
        block.checksum = U64::new(block.sum());
        block
    }

    fn sum(&self) -> u64 {
        xxh3_64(&self.as_bytes()[..size_of::<Self>() - 8])
    }

    fn get(&self) -> Option<Option<PieceClaim>> {
        if self.checksum.get() == self.sum() { PieceClaim::decode(&self.claim) } else { None }
    }
}

/// What follows the content.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Trailer {
    claim: ClaimBlock,
    end: End,
}

/// The last bytes of the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct End {
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
    /// The party that brought the piece; zero in files of earlier versions.
    brought: [u8; 16],
    reserved_rest: [u8; 32],
    content_checksum: U64,
    checksum: U64,
}

const TRAILER_BYTES: usize = size_of::<Trailer>();
const END_BYTES: usize = size_of::<End>();
const COVERED: usize = END_BYTES - 8;
const MAGIC: [u8; 4] = *b"ELVP";
const VERSION: u8 = 2;
/// The version without a claim.
const VERSION_UNCLAIMED: u8 = 1;

const _: () =
    assert!(END_BYTES == 128 && TRAILER_BYTES == 256 && TRAILER_BYTES as u64 == PIECE_OVERHEAD_BYTES);

impl Trailer {
    /// The trailer of a piece whose content has this XXH3-64.
    pub(super) fn new(meta: &PieceMeta, content_checksum: u64) -> Self {
        let mut end = End {
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
            brought: meta.brought.0,
            reserved_rest: [0; 32],
            content_checksum: U64::new(content_checksum),
            checksum: U64::new(0),
        };
        end.checksum = U64::new(xxh3_64(&end.as_bytes()[..COVERED]));
        Trailer { claim: ClaimBlock::new(meta.claim), end }
    }
}

impl End {
    /// Whether a later version of the program wrote it. Magic, version and the checksum at the end keep their places in every
    /// version.
    fn is_newer(&self) -> bool {
        self.magic == MAGIC && self.version > VERSION && self.has_checksum()
    }

    fn has_checksum(&self) -> bool {
        self.checksum.get() == xxh3_64(&self.as_bytes()[..COVERED])
    }

    /// The metadata, if the trailer is intact and belongs to a file of `file_length` bytes with the name `key`.
    fn check(&self, before: Option<&ClaimBlock>, file_length: u64, key: &Key) -> Option<PieceMeta> {
        let (claim, overhead) = match (self.version, before) {
            (VERSION, Some(block)) => (block.get()?, TRAILER_BYTES),
            (VERSION_UNCLAIMED, _) => (None, END_BYTES),
            _ => return None,
        };
        let whole = self.magic == MAGIC
            && self.has_checksum()
            && u64::from(self.length.get()) + overhead as u64 == file_length
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
            claim,
            brought: Brought(self.brought),
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
    // The file of an empty piece of version 1 is shorter than a trailer of this version.
    let (mut trailer, taken) = (Trailer::new_zeroed(), file_length.min(TRAILER_BYTES as u64) as usize);
    if taken < END_BYTES {
        return Ok(Found::Damaged);
    }
    let bytes = &mut trailer.as_mut_bytes()[TRAILER_BYTES - taken..];
    file.read_exact_at(bytes, file_length - taken as u64)?;
    let (before, end) = ((taken == TRAILER_BYTES).then_some(&trailer.claim), &trailer.end);
    Ok(match end.check(before, file_length, key) {
        Some(meta) => Found::Piece(meta, end.content_checksum.get()),
        None if end.is_newer() => Found::Newer,
        None => Found::Damaged,
    })
}

/// Turns the bytes of a piece's file into those of a later version.
#[cfg(test)]
pub(super) fn make_newer(bytes: &mut [u8]) {
    let at = bytes.len() - END_BYTES;
    let trailer = End::mut_from_bytes(&mut bytes[at..]).unwrap();
    trailer.version += 1;
    trailer.reserved_rest = [5; 32];
    trailer.checksum = U64::new(xxh3_64(&trailer.as_bytes()[..COVERED]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

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
            claim: Some(PieceClaim::unsigned(PublicKey([9; 32]), 3, 60, 4)),
            brought: Brought([6; 16]),
        };
        let trailer = Trailer::new(&meta, 5);
        let check = |trailer: &Trailer, length, key| trailer.end.check(Some(&trailer.claim), length, key);
        assert_eq!(check(&trailer, 1256, &meta.key), Some(meta));
        assert_eq!(check(&trailer, 1257, &meta.key), None);
        assert_eq!(check(&trailer, 1256, &Key([8; 32])), None);
        for bit in 0..TRAILER_BYTES * 8 {
            let mut bytes: [u8; TRAILER_BYTES] = trailer.as_bytes().try_into().unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = Trailer::ref_from_bytes(&bytes).unwrap();
            assert_eq!(check(damaged, 1256, &meta.key), None, "bit {bit}");
        }
    }

    #[test]
    fn a_file_of_version_1_is_read_and_has_no_claim() {
        let meta = PieceMeta {
            key: Key([7; 32]),
            content: Content::File,
            length: 0,
            input_offset: 0,
            replicas: 3,
            mode: Mode::UNKNOWN,
            expires: 99,
            claim: None,
            brought: Brought::default(),
        };
        let mut end = Trailer::new(&meta, 5).end;
        end.version = VERSION_UNCLAIMED;
        end.checksum = U64::new(xxh3_64(&end.as_bytes()[..COVERED]));
        let path = std::env::temp_dir().join(format!("elver-piece-{}", std::process::id()));
        std::fs::write(&path, end.as_bytes()).unwrap();
        let found = read(&File::open(&path).unwrap(), &meta.key).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, Found::Piece(meta, 5));
    }
}

//! The chunks of a file, and the manifest, by which each chunk is verified on its own.
//!
//! A file's address is its BLAKE3 hash. BLAKE3 is a Merkle tree over 1 KiB leaves, so the chaining values of aligned
//! power-of-two subtrees merge into the hash of the whole file (`blake3::hazmat`). A manifest is the list of those chaining
//! values, one for each chunk. It needs no signature: its values merge to the requested hash, or it is refused.
//!
//! The values alone do not fix the length: a list of n values also fits a file of twice the size with chunks of twice the size.
//! So a manifest also carries the file's last leaf, and the chaining values left of it inside the last chunk. The value of a
//! leaf depends on its position and length, so the path from it to the root proves the file's length.

mod layout;

pub use layout::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_MAX, Content, FILE_BYTES_MAX, HashAs, Layout, chunk_bytes,
};

use crate::id::Key;
use blake3::Hasher;
use blake3::hazmat::{self, Mode};
use core::fmt;

/// The shortest encoded manifest, in bytes: head, two values, and a last leaf of one byte.
const MANIFEST_BYTES_MIN: u32 = (HEAD_BYTES + 2 * 32 + 1) as u32;
/// The longest encoded manifest, in bytes: head, values, siblings (16 MiB is 2^14 leaves), leaf.
pub const MANIFEST_BYTES_MAX: u32 = (HEAD_BYTES + CHUNKS_MAX as usize * 32 + 14 * 32 + LEAF_BYTES) as u32;

const LEAF_BYTES: usize = 1024;
const HEAD_BYTES: usize = 16;
const MAGIC: [u8; 4] = *b"ELVM";
const VERSION: u8 = 1;

const _: () = assert!(CHUNK_BYTES_MAX >> 14 == LEAF_BYTES as u64);

/// The layout of a file and the key of each of its chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    hash: Key,
    length: u64,
    chunk_bytes: u64,
    values: Vec<Key>,
    siblings: Vec<Key>,
    leaf: Vec<u8>,
}

/// Why bytes are not the requested manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// Its length contradicts its head, its version is unknown, or no file has its layout.
    Malformed,
    /// It is well-formed, but its values do not merge to the requested hash.
    Mismatch,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ManifestError::Malformed => "malformed manifest",
            ManifestError::Mismatch => "the manifest belongs to another hash",
        })
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// The manifest of a file of one chunk. The chunk's key is the file's hash, and the manifest has no encoding. `None` when
    /// `length` is over [`CHUNK_BYTES_MIN`].
    pub fn single(hash: Key, length: u64) -> Option<Manifest> {
        (length <= CHUNK_BYTES_MIN).then(|| Manifest {
            hash,
            length,
            chunk_bytes: CHUNK_BYTES_MIN,
            values: vec![hash],
            siblings: Vec::new(),
            leaf: Vec::new(),
        })
    }

    /// The file's address.
    pub fn hash(&self) -> Key {
        self.hash
    }

    /// The file's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of each chunk but the last.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// The number of chunks: 1 to 4,096. An empty file has one empty chunk.
    pub fn chunk_count(&self) -> u32 {
        self.values.len() as u32
    }

    /// Whether the file is a single chunk, kept and sent without a manifest.
    pub fn is_single(&self) -> bool {
        self.values.len() == 1
    }

    /// The keys of the chunks, in file order.
    pub fn keys(&self) -> &[Key] {
        &self.values
    }

    /// Where chunk `index` starts in the file.
    pub fn chunk_offset(&self, index: u32) -> u64 {
        u64::from(index) * self.chunk_bytes
    }

    /// The length of chunk `index` in bytes.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub fn chunk_length(&self, index: u32) -> u32 {
        self.layout().chunk_length(index)
    }

    /// How chunk `index` is hashed to be compared with its key.
    pub fn hash_as(&self, index: u32) -> HashAs {
        self.layout().hash_as(index)
    }

    /// The manifest as it is stored and sent.
    ///
    /// # Panics
    /// When the file is a single chunk: such a file has no manifest.
    pub fn encode(&self) -> Vec<u8> {
        assert!(!self.is_single(), "a one-chunk file has no manifest");
        let mut bytes =
            Vec::with_capacity(HEAD_BYTES + (self.values.len() + self.siblings.len()) * 32 + self.leaf.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        for key in self.values.iter().chain(&self.siblings) {
            bytes.extend_from_slice(&key.0);
        }
        bytes.extend_from_slice(&self.leaf);
        bytes
    }

    /// The length of the encoded manifest in bytes; 0 for a one-chunk file, which has none.
    pub fn encoded_bytes(&self) -> u64 {
        u64::from(self.layout().manifest_bytes())
    }

    /// The file's layout.
    pub fn layout(&self) -> Layout {
        Layout { length: self.length, chunk_bytes: self.chunk_bytes }
    }

    /// Parses a manifest and verifies it against `hash`: its values must merge to `hash`, and the path of its last leaf proves
    /// its length.
    pub fn decode(bytes: &[u8], hash: &Key) -> Result<Manifest, ManifestError> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(ManifestError::Malformed)?;
        if head[..4] != MAGIC || head[4..8] != [VERSION, 0, 0, 0] {
            return Err(ManifestError::Malformed);
        }
        let length = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        let chunk_bytes = chunk_bytes(length).ok_or(ManifestError::Malformed)?;
        let value_count = length.div_ceil(chunk_bytes) as usize;
        if value_count < 2 {
            return Err(ManifestError::Malformed);
        }
        let spine = spine(length, chunk_bytes);
        let (sibling_lengths, leaf_length) = (&spine[..spine.len() - 1], spine[spine.len() - 1] as usize);
        if rest.len() != (value_count + sibling_lengths.len()) * 32 + leaf_length {
            return Err(ManifestError::Malformed);
        }
        let (keys, leaf) = rest.split_at(rest.len() - leaf_length);
        let mut keys = keys.chunks_exact(32).map(|key| Key(key.try_into().expect("32 bytes")));
        let values: Vec<Key> = keys.by_ref().take(value_count).collect();
        let siblings: Vec<Key> = keys.collect();
        let leaf_value = HashAs::Subtree { input_offset: length - leaf_length as u64 };
        let mut hasher = leaf_value.hasher();
        hasher.update(leaf);
        let last = fold_spine(&siblings, leaf_value.key(&hasher));
        if values.last() != Some(&last) || merge_root(&values) != *hash {
            return Err(ManifestError::Mismatch);
        }
        Ok(Manifest { hash: *hash, length, chunk_bytes, values, siblings, leaf: leaf.to_vec() })
    }
}

/// The lengths of the subtrees that make up the last chunk, from left to right. The last one is the file's last leaf (1 to 1,024
/// bytes).
fn spine(length: u64, chunk_bytes: u64) -> Vec<u64> {
    let mut rest = length - (length - 1) / chunk_bytes * chunk_bytes;
    let mut pieces = Vec::new();
    while rest > LEAF_BYTES as u64 {
        let left = hazmat::left_subtree_len(rest);
        pieces.push(left);
        rest -= left;
    }
    pieces.push(rest);
    pieces
}

/// The chaining value of the last chunk, from the values left of its last leaf and that leaf's value.
fn fold_spine(siblings: &[Key], leaf: Key) -> Key {
    siblings
        .iter()
        .rev()
        .fold(leaf, |right, left| Key(hazmat::merge_subtrees_non_root(&left.0, &right.0, Mode::Hash)))
}

/// The hash of the file whose chunks have these values, at least two.
fn merge_root(values: &[Key]) -> Key {
    let (left, right) = values.split_at(left_count(values.len()));
    Key(*hazmat::merge_subtrees_root(&merge(left).0, &merge(right).0, Mode::Hash).as_bytes())
}

fn merge(values: &[Key]) -> Key {
    match values {
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left_count(values.len()));
            Key(hazmat::merge_subtrees_non_root(&merge(left).0, &merge(right).0, Mode::Hash))
        }
    }
}

/// The number of values in the left subtree of `count`: the largest power of two below `count` (BLAKE3, section 2.1).
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// Builds the [`Manifest`] of a file from its bytes in order, in slices of any size.
pub struct ManifestBuilder {
    length: u64,
    chunk_bytes: u64,
    position: u64,
    /// The lengths of the subtrees of the last chunk that are left, in reverse order.
    pieces: Vec<u64>,
    piece_rest: u64,
    hash_as: HashAs,
    hasher: Hasher,
    values: Vec<Key>,
    siblings: Vec<Key>,
    leaf: Vec<u8>,
}

impl ManifestBuilder {
    /// A builder for a file of exactly `length` bytes; `None` when that is over [`FILE_BYTES_MAX`].
    pub fn new(length: u64) -> Option<Self> {
        let chunk_bytes = chunk_bytes(length)?;
        let single = length <= chunk_bytes;
        let mut pieces = if single { vec![length] } else { spine(length, chunk_bytes) };
        pieces.reverse();
        let full_chunks = if single { 0 } else { (length - 1) / chunk_bytes };
        let hash_as = if single { HashAs::Root } else { HashAs::Subtree { input_offset: 0 } };
        let piece_rest =
            if full_chunks > 0 { chunk_bytes } else { pieces.pop().expect("at least one piece") };
        Some(ManifestBuilder {
            length,
            chunk_bytes,
            position: 0,
            pieces,
            piece_rest,
            hash_as,
            hasher: hash_as.hasher(),
            values: Vec::with_capacity(full_chunks as usize + 1),
            siblings: Vec::new(),
            leaf: Vec::new(),
        })
    }

    /// The number of bytes taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes of the file. Bytes past the announced length are ignored: the caller compares lengths.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.position < self.length {
            let (now, later) =
                bytes.split_at(bytes.len().min(usize::try_from(self.piece_rest).unwrap_or(usize::MAX)));
            self.hasher.update(now);
            if self.in_leaf() {
                self.leaf.extend_from_slice(now);
            }
            self.position += now.len() as u64;
            self.piece_rest -= now.len() as u64;
            if self.piece_rest == 0 && self.position < self.length {
                self.next_piece();
            }
            bytes = later;
        }
    }

    /// The manifest; `None` while bytes are missing.
    pub fn finish(mut self) -> Option<Manifest> {
        if self.position != self.length {
            return None;
        }
        let last = self.hash_as.key(&self.hasher);
        if self.hash_as == HashAs::Root {
            return Manifest::single(last, self.length);
        }
        self.values.push(fold_spine(&self.siblings, last));
        let (length, chunk_bytes) = (self.length, self.chunk_bytes);
        let hash = merge_root(&self.values);
        Some(Manifest {
            hash,
            length,
            chunk_bytes,
            values: self.values,
            siblings: self.siblings,
            leaf: self.leaf,
        })
    }

    /// Whether the current piece is the last leaf of a file with a manifest.
    fn in_leaf(&self) -> bool {
        self.hash_as != HashAs::Root && self.pieces.is_empty()
    }

    fn next_piece(&mut self) {
        let value = self.hash_as.key(&self.hasher);
        let last_chunk = (self.length - 1) / self.chunk_bytes * self.chunk_bytes;
        if self.position <= last_chunk {
            self.values.push(value);
        } else {
            self.siblings.push(value);
        }
        self.piece_rest = match self.position < last_chunk {
            true => self.chunk_bytes,
            false => self.pieces.pop().expect("pieces cover the last chunk"),
        };
        self.hash_as = HashAs::Subtree { input_offset: self.position };
        self.hasher = self.hash_as.hasher();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn build(bytes: &[u8], step: usize) -> Manifest {
        let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
        bytes.chunks(step).for_each(|piece| builder.update(piece));
        builder.finish().unwrap()
    }

    #[test]
    fn the_address_is_what_b3sum_prints_at_every_boundary() {
        let chunk = CHUNK_BYTES_MIN as usize;
        let lengths =
            [0, 1, 1023, 1024, 1025, chunk - 1, chunk, chunk + 1, chunk + 1024, chunk + 1025, chunk + 70_000];
        for length in lengths.into_iter().chain([2 * chunk, 2 * chunk + 1, 5 * chunk - 1, 7 * chunk + 12_345])
        {
            let bytes = content(length);
            for step in [1 << 20, 4096, 65_537] {
                let manifest = build(&bytes, step);
                assert_eq!(
                    manifest.hash(),
                    Key(*blake3::hash(&bytes).as_bytes()),
                    "{length} bytes by {step}"
                );
                assert_eq!(manifest.length(), length as u64);
                for index in 0..manifest.chunk_count() {
                    let from = manifest.chunk_offset(index) as usize;
                    let mut hasher = manifest.hash_as(index).hasher();
                    hasher.update(&bytes[from..from + manifest.chunk_length(index) as usize]);
                    assert_eq!(manifest.hash_as(index).key(&hasher), manifest.keys()[index as usize]);
                }
            }
        }
    }

    #[test]
    fn a_manifest_decodes_from_its_own_bytes_only() {
        for extra in [1, 1024, 1500, 100_000, CHUNK_BYTES_MIN as usize] {
            let manifest = build(&content(2 * CHUNK_BYTES_MIN as usize + extra), 1 << 16);
            let bytes = manifest.encode();
            assert!(bytes.len() <= MANIFEST_BYTES_MAX as usize);
            assert_eq!(bytes.len() as u32, Layout::of(manifest.length()).unwrap().manifest_bytes());
            assert_eq!(Manifest::decode(&bytes, &manifest.hash()), Ok(manifest.clone()));
            for index in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[index] ^= 1;
                assert!(Manifest::decode(&wrong, &manifest.hash()).is_err(), "byte {index}");
                assert!(Manifest::decode(&bytes[..index], &manifest.hash()).is_err(), "cut at {index}");
            }
        }
    }

    #[test]
    fn a_manifest_with_another_length_is_refused() {
        let manifest = build(&content(4 * CHUNK_BYTES_MIN as usize), 1 << 16);
        let mut bytes = manifest.encode();
        bytes[8..16].copy_from_slice(&(manifest.length() - 1).to_le_bytes());
        let shorter = [&bytes[..bytes.len() - LEAF_BYTES], &bytes[bytes.len() - LEAF_BYTES + 1..]].concat();
        assert_eq!(Manifest::decode(&shorter, &manifest.hash()), Err(ManifestError::Mismatch));
    }

    #[test]
    fn every_piece_that_fits_can_be_hashed() {
        let (min, max) = (CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let lengths = [0, 1, min - 1, min, min + 1, 2 * min, max - 1, max, max + 1, u64::from(u32::MAX)];
        let offsets =
            [0, 1, 1024, min, min + 1024, 2 * min, 3 * min, max, FILE_BYTES_MAX - min, FILE_BYTES_MAX];
        let block = vec![7; max as usize];
        for offset in offsets.into_iter().chain([1 << 63, u64::MAX - min + 1, u64::MAX]) {
            for length in lengths.map(|length| length as u32) {
                if Content::Chunk.fits(offset, length) {
                    let hash_as = Content::Chunk.hash_as(offset).expect("a chunk that fits can be hashed");
                    let mut hasher = hash_as.hasher();
                    hasher.update(&block[..length as usize]);
                    hash_as.key(&hasher);
                }
                let whole = offset == 0 && u64::from(length) <= min;
                assert_eq!(Content::File.fits(offset, length), whole);
            }
        }
        assert_eq!(Content::Chunk.hash_as(1), None);
    }

    /// Whether a file of `length` bytes has several chunks, and this one among them.
    fn has_chunk(length: u64, offset: u64, chunk_length: u32) -> bool {
        let layout = Layout::of(length).expect("a possible file length");
        let index = (offset / layout.chunk_bytes()) as u32;
        !layout.is_single()
            && index < layout.chunk_count()
            && layout.chunk_offset(index) == offset
            && layout.chunk_length(index) == chunk_length
    }

    #[test]
    fn a_chunk_fits_if_and_only_if_a_file_has_it() {
        let (min, max) = (CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let sizes: Vec<u64> = (0..=6).map(|doublings| min << doublings).collect();
        let around = |at: u64| [at.saturating_sub(min), at.saturating_sub(1), at, at + 1, at + min];
        let lengths = sizes.iter().flat_map(|size| around(*size)).filter(|length| *length <= max);
        let lengths: Vec<u32> = lengths.chain([1, 1024]).map(|length| length as u32).collect();
        // The longest file of each chunk size, and where files begin to have larger chunks.
        let ends: Vec<u64> = sizes.iter().map(|size| size * CHUNKS_MAX).collect();
        let offsets = sizes.iter().chain(&ends).flat_map(|at| around(*at)).chain([0, 3 * min, 5 * max]);
        for offset in offsets.filter(|offset| *offset < FILE_BYTES_MAX) {
            for &length in &lengths {
                // The last chunk of a file determines its length. Any other chunk is also in the longest file of its chunk size.
                let last = offset + u64::from(length);
                let files = ends.iter().copied().chain([last]).filter(|length| *length <= FILE_BYTES_MAX);
                let exists = files.into_iter().any(|file| has_chunk(file, offset, length));
                assert_eq!(Content::Chunk.fits(offset, length), exists, "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn the_shortest_pieces_of_each_kind_fit_and_shorter_ones_do_not() {
        assert!(!Content::Chunk.fits(0, 1), "one byte is a whole file, not the first chunk of several");
        assert!(Content::Chunk.fits(CHUNK_BYTES_MIN, 1) && !Content::Chunk.fits(CHUNK_BYTES_MIN, 0));
        assert!(Content::Chunk.fits(0, CHUNK_BYTES_MIN as u32));
        assert!(!Content::Chunk.fits(0, CHUNK_BYTES_MIN as u32 - 1));
        assert!(Content::File.fits(0, 0) && Content::File.fits(0, CHUNK_BYTES_MIN as u32));
        assert!(
            !Content::File.fits(0, CHUNK_BYTES_MIN as u32 + 1) && !Content::File.fits(CHUNK_BYTES_MIN, 1)
        );
        let shortest = build(&content(CHUNK_BYTES_MIN as usize + 1), 1 << 16).encode();
        assert_eq!(shortest.len() as u32, MANIFEST_BYTES_MIN);
        assert!(
            Content::Manifest.fits(0, MANIFEST_BYTES_MIN) && !Content::Manifest.fits(CHUNK_BYTES_MIN, 100)
        );
        assert!(!Content::Manifest.fits(0, MANIFEST_BYTES_MIN - 1) && !Content::Manifest.fits(0, 1));
        assert!(Content::Manifest.fits(0, MANIFEST_BYTES_MAX));
        assert!(!Content::Manifest.fits(0, MANIFEST_BYTES_MAX + 1));
    }

    #[test]
    fn chunk_sizes_are_the_smallest_that_give_4096_chunks() {
        assert_eq!(chunk_bytes(0), Some(CHUNK_BYTES_MIN));
        assert_eq!(chunk_bytes(1 << 30), Some(CHUNK_BYTES_MIN));
        assert_eq!(chunk_bytes((1 << 30) + 1), Some(512 << 10));
        assert_eq!(chunk_bytes(FILE_BYTES_MAX), Some(CHUNK_BYTES_MAX));
        assert_eq!(chunk_bytes(FILE_BYTES_MAX + 1), None);
        assert_eq!(chunk_bytes(u64::MAX), None);
    }
}

//! How a file is cut into chunks, and which pieces there can be.

use super::{HEAD_BYTES, MANIFEST_BYTES_MAX, MANIFEST_BYTES_MIN, spine};
use crate::id::Key;
use blake3::Hasher;
use blake3::hazmat::HasherExt;

/// The smallest chunk, in bytes.
pub const CHUNK_BYTES_MIN: u64 = 256 << 10;
/// The largest chunk, in bytes.
pub const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// The most chunks in one file.
pub const CHUNKS_MAX: u64 = 4096;
/// The largest file, in bytes: 64 GiB.
pub const FILE_BYTES_MAX: u64 = CHUNK_BYTES_MAX * CHUNKS_MAX;

const _: () = assert!(CHUNK_BYTES_MIN.is_power_of_two() && CHUNK_BYTES_MAX.is_power_of_two());

/// The chunk size of a file of `length` bytes: the smallest power of two from 256 KiB to 16 MiB that gives at most
/// 4,096 chunks. `None` for files over [`FILE_BYTES_MAX`].
pub fn chunk_bytes(length: u64) -> Option<u64> {
    let size = length.div_ceil(CHUNKS_MAX).next_power_of_two().max(CHUNK_BYTES_MIN);
    (size <= CHUNK_BYTES_MAX).then_some(size)
}

/// The kind of a piece. A *piece* is the unit of storage and transfer: content with a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Content {
    /// A chunk of a file of several; its key is a chaining value.
    Chunk = 0,
    /// A manifest; its key is the file's hash.
    Manifest = 1,
    /// A whole file of one chunk; its key is the file's hash.
    File = 2,
}

impl Content {
    /// The kind with this number on the wire and on disk; `None` for an unknown number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Content::Chunk, Content::Manifest, Content::File]
            .into_iter()
            .find(|content| *content as u8 == number)
    }

    /// The length of the longest piece of this kind, in bytes.
    pub fn bytes_max(self) -> u32 {
        match self {
            Content::Chunk => CHUNK_BYTES_MAX as u32,
            Content::Manifest => MANIFEST_BYTES_MAX,
            Content::File => CHUNK_BYTES_MIN as u32,
        }
    }

    /// Whether a piece of this kind can have `length` bytes, at any offset.
    pub fn has_length(self, length: u32) -> bool {
        let bytes_min = match self {
            Content::Chunk => 1,
            Content::Manifest => MANIFEST_BYTES_MIN,
            Content::File => 0,
        };
        (bytes_min..=self.bytes_max()).contains(&length)
    }

    /// Whether a file can have a piece of this kind and of `length` bytes at `input_offset`. BLAKE3 can hash every such piece and
    /// may panic on others, so numbers from a peer or from disk are tested here first.
    pub fn fits(self, input_offset: u64, length: u32) -> bool {
        self.has_length(length)
            && match self {
                Content::Chunk => is_chunk(input_offset, u64::from(length)),
                Content::Manifest | Content::File => input_offset == 0,
            }
    }

    /// How a piece at `input_offset` in its file is hashed. `None` for a manifest, whose values are merged instead, and for an
    /// offset that no chunk has. It does not test the length: see [`fits`](Content::fits).
    pub fn hash_as(self, input_offset: u64) -> Option<HashAs> {
        match self {
            Content::Chunk if input_offset % CHUNK_BYTES_MIN != 0 => None,
            Content::Chunk => Some(HashAs::Subtree { input_offset }),
            Content::File => Some(HashAs::Root),
            Content::Manifest => None,
        }
    }
}

/// Whether a file of several chunks can have a chunk of `length` bytes at `offset`. It is a whole chunk, or the shorter last one,
/// whose end is the file's length, which determines the size of its chunks.
fn is_chunk(offset: u64, length: u64) -> bool {
    let Some(end) = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX) else { return false };
    let is_whole = length.is_power_of_two() && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&length);
    if is_whole && offset % length == 0 && end <= length * CHUNKS_MAX {
        return true;
    }
    chunk_bytes(end).is_some_and(|size| offset > 0 && offset % size == 0 && length <= size)
}

/// How the key of a piece of a file is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashAs {
    /// The piece is a whole file: its key is an ordinary BLAKE3 hash.
    Root,
    /// The piece is a subtree that starts `input_offset` bytes into its file: its key is a chaining value.
    Subtree {
        /// The piece's offset in the file, a multiple of the chunk size.
        input_offset: u64,
    },
}

impl HashAs {
    /// A hasher for a piece of this form.
    ///
    /// # Panics
    /// When `input_offset` is no multiple of 1,024. The hasher itself panics when it gets more bytes than the largest subtree at
    /// that offset. [`Content::fits`] tests both beforehand.
    pub fn hasher(self) -> Hasher {
        let mut hasher = Hasher::new();
        if let HashAs::Subtree { input_offset } = self {
            hasher.set_input_offset(input_offset);
        }
        hasher
    }

    /// The key of the piece whose bytes `hasher` got. A subtree must not be empty.
    pub fn key(self, hasher: &Hasher) -> Key {
        Key(match self {
            HashAs::Root => *hasher.finalize().as_bytes(),
            HashAs::Subtree { .. } => hasher.finalize_non_root(),
        })
    }
}

/// The chunks of a file, which follow from its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub(super) length: u64,
    pub(super) chunk_bytes: u64,
}

impl Layout {
    /// The layout of a file of `length` bytes; `None` for files over [`FILE_BYTES_MAX`].
    pub fn of(length: u64) -> Option<Layout> {
        chunk_bytes(length).map(|chunk_bytes| Layout { length, chunk_bytes })
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
        self.length.div_ceil(self.chunk_bytes).max(1) as u32
    }

    /// Whether the file is a single chunk, kept and sent without a manifest.
    pub fn is_single(&self) -> bool {
        self.length <= self.chunk_bytes
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
        assert!(index < self.chunk_count(), "chunk {index} of {}", self.chunk_count());
        (self.length - self.chunk_offset(index)).min(self.chunk_bytes) as u32
    }

    /// How chunk `index` is hashed to be compared with its key.
    pub fn hash_as(&self, index: u32) -> HashAs {
        match self.is_single() {
            true => HashAs::Root,
            false => HashAs::Subtree { input_offset: self.chunk_offset(index) },
        }
    }

    /// The kind of its chunks.
    pub fn content(&self) -> Content {
        if self.is_single() { Content::File } else { Content::Chunk }
    }

    /// The length of the encoded manifest in bytes; 0 for a one-chunk file, which has none.
    pub fn manifest_bytes(&self) -> u32 {
        if self.is_single() {
            return 0;
        }
        let spine = spine(self.length, self.chunk_bytes);
        let (siblings, leaf) = (spine.len() - 1, spine[spine.len() - 1] as usize);
        (HEAD_BYTES + (self.chunk_count() as usize + siblings) * 32 + leaf) as u32
    }
}

//! Files whose content and keys both the fuzzed peers and the checks know.

use elver::id::Key;
use elver::manifest::{CHUNK_BYTES_MIN, Content};
use elver::sim::blob::Blob;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A piece of one of the files.
pub struct Piece {
    pub content: Content,
    pub input_offset: u64,
    pub bytes: Vec<u8>,
}

/// The files, and their pieces by key.
pub struct Fixture {
    pub files: Vec<Rc<Blob>>,
    pub pieces: BTreeMap<Key, Piece>,
    pub keys: Vec<Key>,
}

thread_local! {
    static FIXTURE: Rc<Fixture> = Rc::new(Fixture::make());
}

impl Fixture {
    /// The fixture of this thread: it is made once.
    pub fn get() -> Rc<Fixture> {
        FIXTURE.with(Rc::clone)
    }

    fn make() -> Fixture {
        let lengths = [0, 100, 5000, CHUNK_BYTES_MIN as usize + 40_000];
        let files: Vec<Rc<Blob>> =
            lengths.iter().enumerate().map(|(seed, length)| Blob::random(*length, seed as u64)).collect();
        let mut pieces = BTreeMap::new();
        for file in &files {
            let manifest = file.manifest();
            if manifest.is_single() {
                let piece = Piece { content: Content::File, input_offset: 0, bytes: file.bytes().to_vec() };
                pieces.insert(manifest.hash(), piece);
                continue;
            }
            let piece = Piece { content: Content::Manifest, input_offset: 0, bytes: manifest.encode() };
            pieces.insert(manifest.hash(), piece);
            for (index, key) in manifest.keys().iter().enumerate() {
                let offset = manifest.chunk_offset(index as u32);
                let length = manifest.chunk_length(index as u32) as usize;
                let bytes = file.bytes()[offset as usize..][..length].to_vec();
                pieces.insert(*key, Piece { content: Content::Chunk, input_offset: offset, bytes });
            }
        }
        let keys = pieces.keys().copied().collect();
        Fixture { files, pieces, keys }
    }

    /// The path where the user of the node has a file.
    pub fn path(index: usize) -> PathBuf {
        Path::new("/user").join(index.to_string())
    }

    /// The key with this number; a key that no piece has where there are fewer.
    pub fn key(&self, number: usize) -> Key {
        self.keys.get(number).copied().unwrap_or(Key([number as u8; 32]))
    }

    /// The hash of the file with this number; a hash that no file has where there are fewer.
    pub fn hash(&self, number: usize) -> Key {
        self.files.get(number).map_or(Key([number as u8; 32]), |file| file.manifest().hash())
    }
}

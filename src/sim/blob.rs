//! Content: created once, passed on by reference. Each part is hashed for real, once.

use super::chance::Chance;
use crate::id::Key;
use crate::manifest::{HashAs, Manifest, ManifestBuilder};
use core::cell::{OnceCell, RefCell};
use core::fmt;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A hashed part of a blob: its offset, its length, and, for a subtree, its offset in the file.
type Part = (usize, usize, Option<u64>);

/// Immutable bytes, with a cache of the hashes of their parts.
pub struct Blob {
    bytes: Vec<u8>,
    keys: RefCell<BTreeMap<Part, Key>>,
    manifest: OnceCell<Arc<Manifest>>,
}

impl Blob {
    /// A blob of these bytes.
    pub fn new(bytes: Vec<u8>) -> Rc<Blob> {
        Rc::new(Blob { bytes, keys: RefCell::default(), manifest: OnceCell::new() })
    }

    /// Random content, derived from the seed.
    pub fn random(length: usize, seed: u64) -> Rc<Blob> {
        let mut chance = Chance::new(seed, 0xB10B);
        let mut bytes = vec![0; length];
        bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&chance.u64().to_le_bytes()[..word.len()]));
        Blob::new(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The manifest of the bytes as a file.
    pub fn manifest(&self) -> Arc<Manifest> {
        let make = || {
            let mut builder = ManifestBuilder::new(self.bytes.len() as u64).expect("a blob is no giant");
            builder.update(&self.bytes);
            Arc::new(builder.finish().expect("every byte was fed"))
        };
        Arc::clone(self.manifest.get_or_init(make))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes.len())
    }
}

/// A part of a blob.
#[derive(Clone, Debug)]
pub struct Slice {
    blob: Rc<Blob>,
    from: usize,
    length: usize,
}

impl Slice {
    /// The slice that covers the whole blob.
    pub fn whole(blob: Rc<Blob>) -> Slice {
        let length = blob.bytes.len();
        Slice { blob, from: 0, length }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.blob.bytes[self.from..self.from + self.length]
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the slice has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of the slice.
    pub(super) fn part(&self, from: usize, length: usize) -> Slice {
        assert!(from + length <= self.length, "a part lies inside");
        Slice { blob: Rc::clone(&self.blob), from: self.from + from, length }
    }

    /// Removes the first `length` bytes from the slice and returns them.
    pub(super) fn take(&mut self, length: usize) -> Slice {
        let taken = self.part(0, length);
        *self = self.part(length, self.length - length);
        taken
    }

    /// Extends the slice by `next`. False, with no change, unless `next` follows the slice in the same blob.
    pub(super) fn join(&mut self, next: &Slice) -> bool {
        let follows = Rc::ptr_eq(&self.blob, &next.blob) && self.from + self.length == next.from;
        if follows {
            self.length += next.length;
        }
        follows
    }

    /// The key of the slice. It is computed once for each part of a blob.
    pub fn key(&self, hash_as: HashAs) -> Key {
        let form = match hash_as {
            HashAs::Root => None,
            HashAs::Subtree { input_offset } => Some(input_offset),
        };
        let hash = || {
            let mut hasher = hash_as.hasher();
            hasher.update(self.bytes());
            hash_as.key(&hasher)
        };
        *self.blob.keys.borrow_mut().entry((self.from, self.length, form)).or_insert_with(hash)
    }

    /// The blob, when the slice covers all of it.
    pub(super) fn as_blob(&self) -> Option<&Rc<Blob>> {
        (self.from == 0 && self.length == self.blob.bytes.len()).then_some(&self.blob)
    }

    /// Whether the slice is a part of this blob.
    pub(super) fn is_of(&self, blob: &Rc<Blob>) -> bool {
        Rc::ptr_eq(&self.blob, blob)
    }

    /// A copy with one bit flipped.
    pub(super) fn damaged(&self) -> Slice {
        let mut bytes = self.bytes().to_vec();
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 4);
        Slice::whole(Blob::new(bytes))
    }
}

/// Joins the parts into one slice. Bytes are copied only when the parts are not contiguous in one blob.
pub(super) fn joined(parts: Vec<Slice>) -> Slice {
    let mut joined: Vec<Slice> = Vec::new();
    for part in parts {
        if !joined.last_mut().is_some_and(|last| last.join(&part)) {
            joined.push(part);
        }
    }
    match joined.len() {
        1 => joined.swap_remove(0),
        _ => {
            let bytes = joined.iter().flat_map(|part| part.bytes()).copied().collect();
            Slice::whole(Blob::new(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_follow_each_other_become_one_without_copying() {
        let blob = Blob::random(1 << 19, 1);
        let mut whole = Slice::whole(Rc::clone(&blob));
        let first = whole.take(1000);
        let joined = joined(vec![first, whole]);
        assert!(Rc::ptr_eq(&joined.blob, &blob) && joined.len() == 1 << 19);
        let manifest = blob.manifest();
        let chunk = joined.part(1 << 18, 1 << 18);
        assert_eq!(chunk.key(manifest.hash_as(1)), manifest.keys()[1]);
    }

    #[test]
    fn one_flipped_bit_is_another_key() {
        let slice = Slice::whole(Blob::random(100, 1));
        assert_ne!(slice.key(HashAs::Root), slice.damaged().key(HashAs::Root));
        let mut bytes = slice.damaged().bytes().to_vec();
        bytes[50] ^= 4;
        assert_eq!(bytes, slice.bytes());
    }
}

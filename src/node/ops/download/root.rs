//! Finding a file's root: the piece whose key is the address itself, a manifest or the content of a one-chunk file.

use crate::id::Key;
use crate::io::DiskReply;
use crate::manifest::Manifest;
use crate::node::machines::Machines;
use crate::transfer::Root;
use std::sync::Arc;

/// Where the root is.
pub(in crate::node) enum Found {
    /// In memory.
    Root(Root),
    /// Perhaps in a piece that is stored here, which the disk has to read.
    Here(crate::io::Extent),
    /// Only in the network.
    Elsewhere,
}

/// Where the root of `hash` is.
pub(in crate::node) fn find(hash: &Key, machines: &Machines) -> Found {
    match machines.store.locate(hash) {
        Some((_, extent)) => Found::Here(extent),
        None => find_elsewhere(hash),
    }
}

/// The same, when the stored piece is unusable. The root of the empty file needs no source.
pub(in crate::node) fn find_elsewhere(hash: &Key) -> Found {
    match hash.0 == *blake3::hash(&[]).as_bytes() {
        true => Found::Root(Root::File(Vec::new())),
        false => Found::Elsewhere,
    }
}

/// The root, from what the disk read of a stored piece. A piece that does not verify is dropped.
pub(in crate::node) fn take_read(hash: &Key, reply: DiskReply, machines: &mut Machines) -> Found {
    let DiskReply::Bytes(bytes) = reply else { return find_elsewhere(hash) };
    if let Ok(manifest) = Manifest::decode(&bytes, hash) {
        return Found::Root(Root::Manifest(Arc::new(manifest), bytes));
    }
    if *blake3::hash(&bytes).as_bytes() == hash.0 {
        return Found::Root(Root::File(bytes));
    }
    machines.store.remove_piece(hash);
    find_elsewhere(hash)
}

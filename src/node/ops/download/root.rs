//! Finding a file's root: the piece whose key is the address itself, a manifest or the content of a one-chunk file.

use crate::id::Key;
use crate::io::DiskReply;
use crate::manifest::Manifest;
use crate::node::machines::Machines;
use crate::transfer::Root;
use std::sync::Arc;

/// Where a root is found.
pub(in crate::node) enum Found {
    /// It is known.
    Root(Root),
    /// A piece that is stored here may be it: the disk reads it.
    Here(crate::io::Extent),
    /// The network has to be asked.
    Elsewhere,
}

/// Where the root of `hash` can be taken from.
pub(in crate::node) fn find(hash: &Key, machines: &Machines) -> Found {
    match machines.store.locate(hash) {
        Some((_, extent)) => Found::Here(extent),
        None => find_elsewhere(hash),
    }
}

/// The same, when what is stored here is no good. A file of no bytes has one content only.
pub(in crate::node) fn find_elsewhere(hash: &Key) -> Found {
    match hash.0 == *blake3::hash(&[]).as_bytes() {
        true => Found::Root(Root::File(Vec::new())),
        false => Found::Elsewhere,
    }
}

/// What the disk read of a stored piece. One that is not what its key says is dropped.
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

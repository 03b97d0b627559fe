//! Finding a file's root: the piece whose key is the address itself, a manifest or the content of a one-chunk file.

use super::sources::Search;
use crate::io::{DiskError, DiskOp, DiskReply};
use crate::manifest::{Content, Manifest};
use crate::node::Waiting;
use crate::node::machines::Machines;
use crate::time::Instant;
use crate::transfer::Root;
use std::sync::Arc;

/// The state of the search for a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) enum Found {
    /// The root.
    Root(Root),
    /// The disk is reading it, or the network is asked for it: an event follows.
    Later,
    /// There is no room for another download.
    NoRoom,
}

/// Begins: has the disk read the root if it is stored here, and else asks the network.
pub(in crate::node) fn find(now: Instant, search: &mut Search, machines: &mut Machines) -> Found {
    match machines.store.locate(&search.hash()) {
        Some((Content::Manifest | Content::File, extent)) => {
            machines.disk(DiskOp::Read(extent), Waiting::Root(search.download()));
            Found::Later
        }
        // A chunk is no root, although its key looks like an address.
        Some((Content::Chunk, _)) | None => find_elsewhere(now, search, machines),
    }
}

/// The disk read the stored piece. One that does not verify is dropped, and the network may have a good one.
pub(in crate::node) fn handle_read(
    now: Instant,
    result: Result<DiskReply, DiskError>,
    search: &mut Search,
    machines: &mut Machines,
) -> Found {
    let Ok(DiskReply::Bytes(bytes)) = result else {
        return find_elsewhere(now, search, machines);
    };
    let hash = search.hash();
    if let Ok(manifest) = Manifest::decode(&bytes, &hash) {
        return Found::Root(Root::Manifest(Arc::new(manifest), bytes));
    }
    if *blake3::hash(&bytes).as_bytes() == hash.0 {
        return Found::Root(Root::File(bytes));
    }
    machines.store.remove_piece(&hash);
    find_elsewhere(now, search, machines)
}

/// The root is not here. That of the empty file needs no source.
fn find_elsewhere(now: Instant, search: &mut Search, machines: &mut Machines) -> Found {
    let (download, hash) = (search.download(), search.hash());
    if hash.0 == *blake3::hash(&[]).as_bytes() {
        return Found::Root(Root::File(Vec::new()));
    }
    let fetches = match search.is_windowed() {
        true => machines.transfer.fetch_windowed(now, download, hash),
        false => machines.transfer.fetch(now, download, hash, &[]),
    };
    if !fetches {
        return Found::NoRoom;
    }
    search.begin(now, machines);
    Found::Later
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::io::{DiskErrorKind, PieceMeta, Recovered};
    use crate::limits::Limits;
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
    use crate::node::Output;
    use crate::store::Store;
    use crate::transfer::DownloadId;

    const START: Instant = Instant::from_secs(100);
    const ID: DownloadId = DownloadId(7);

    struct Bench {
        machines: Machines,
        search: Search,
    }

    impl Bench {
        /// A node that stores this piece and looks for the root of `hash`.
        fn new(hash: Key, stored: Option<(Content, u32)>) -> Bench {
            let mut machines = Machines::alone(START);
            let piece = |(content, length)| PieceMeta { content, ..PieceMeta::file(hash, length) };
            let recovered =
                Recovered { pieces: stored.map(piece).into_iter().collect(), ..Recovered::default() };
            machines.store = Store::new(&Limits::default(), &recovered, 1, START);
            Bench { machines, search: Search::new(ID, hash) }
        }

        fn find(&mut self) -> Found {
            find(START, &mut self.search, &mut self.machines)
        }

        fn read(&mut self, result: Result<DiskReply, DiskError>) -> Found {
            handle_read(START, result, &mut self.search, &mut self.machines)
        }

        fn is_reading(&self) -> bool {
            let reads = |output: &Output| matches!(output, Output::Disk { op: DiskOp::Read(_), .. });
            self.machines.outputs.iter().any(reads)
        }

        fn is_fetching(&self) -> bool {
            self.machines.transfer.download_state(ID).is_some()
        }
    }

    fn manifest() -> Manifest {
        let bytes = vec![7; 3 * CHUNK_BYTES_MIN as usize];
        let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
        builder.update(&bytes);
        builder.finish().unwrap()
    }

    fn hash_of(bytes: &[u8]) -> Key {
        Key(*blake3::hash(bytes).as_bytes())
    }

    #[test]
    fn a_stored_manifest_is_read_without_asking_the_network() {
        let manifest = manifest();
        let bytes = manifest.encode();
        let mut bench = Bench::new(manifest.hash(), Some((Content::Manifest, bytes.len() as u32)));
        assert_eq!(bench.find(), Found::Later);
        assert!(bench.is_reading());
        let found = bench.read(Ok(DiskReply::Bytes(bytes.clone())));
        assert_eq!(found, Found::Root(Root::Manifest(Arc::new(manifest), bytes)));
        assert!(!bench.is_fetching());
    }

    #[test]
    fn a_fetched_root_replaces_a_stored_one_that_does_not_verify() {
        let mut bench = Bench::new(hash_of(b"good"), Some((Content::File, 4)));
        bench.find();
        assert_eq!(bench.read(Ok(DiskReply::Bytes(b"evil".to_vec()))), Found::Later);
        assert!(bench.is_fetching());
        assert!(bench.machines.store.piece(&hash_of(b"good")).is_none());
    }

    #[test]
    fn a_stored_root_that_cannot_be_read_now_stays_although_it_is_fetched() {
        let mut bench = Bench::new(hash_of(b"good"), Some((Content::File, 4)));
        bench.find();
        let error = DiskError { kind: DiskErrorKind::Failed, message: String::new() };
        assert_eq!(bench.read(Err(error)), Found::Later);
        assert!(bench.is_fetching());
        assert!(bench.machines.store.piece(&hash_of(b"good")).is_some());
    }

    #[test]
    fn a_stored_chunk_is_neither_read_as_a_root_nor_dropped() {
        let key = manifest().keys()[1];
        let mut bench = Bench::new(key, Some((Content::Chunk, CHUNK_BYTES_MIN as u32)));
        assert_eq!(bench.find(), Found::Later);
        assert!(!bench.is_reading());
        assert!(bench.is_fetching());
        assert!(bench.machines.store.piece(&key).is_some());
    }

    #[test]
    fn the_empty_file_needs_no_source() {
        let mut bench = Bench::new(hash_of(b""), None);
        assert_eq!(bench.find(), Found::Root(Root::File(Vec::new())));
        assert!(!bench.is_fetching());
        assert!(!bench.search.is_looking());
    }

    #[test]
    fn a_root_is_not_fetched_when_too_many_downloads_are_under_way() {
        let mut bench = Bench::new(Key([1; 32]), None);
        let mut under_way = 0;
        while bench.machines.transfer.fetch(START, DownloadId(100 + under_way), Key([2; 32]), &[]) {
            under_way += 1;
        }
        assert_eq!(bench.find(), Found::NoRoom);
        assert!(!bench.search.is_looking());
    }
}

//! What a node says of itself.

use super::Node;
use super::command::{FailureReason, Peer, SharedFile, Status};
use crate::io::{DiskError, DiskErrorKind, Place};
use crate::time::Instant;
use crate::wire::Refused;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the node itself counts; the machines have counters of their own.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) datagrams_in: u64,
    pub(super) datagrams_out: u64,
    pub(super) refused: [u64; Refused::COUNT],
    pub(super) unexpected_answers: u64,
    pub(super) over_budget: u64,
    pub(super) replayed: u64,
    pub(super) disk_errors: u64,
    pub(super) bad_sources: u64,
    pub(super) withdrawn: u64,
}

impl Counters {
    fn named(&self) -> BTreeMap<String, u64> {
        let own = [
            ("datagrams_in", self.datagrams_in),
            ("datagrams_out", self.datagrams_out),
            ("datagrams_unexpected", self.unexpected_answers),
            ("datagrams_over_budget", self.over_budget),
            ("datagrams_replayed", self.replayed),
            ("disk_errors", self.disk_errors),
            ("sources_bad", self.bad_sources),
            ("files_withdrawn", self.withdrawn),
        ];
        let refused =
            Refused::NAMES.iter().zip(self.refused).map(|(name, n)| (format!("datagrams_refused_{name}"), n));
        own.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(refused).collect()
    }
}

impl Node {
    pub(super) fn status(&self, now: Instant) -> Status {
        let (dht, store) = (self.dht.statistics(), self.store.stats());
        let mut counters = self.counters.named();
        counters.insert("datagrams_dropped".to_owned(), self.outbox.dropped());
        counters.extend(dht.counters.iter().map(|(name, n)| ((*name).to_owned(), *n)));
        counters.extend(self.transfer.counters().iter().map(|(name, n)| ((*name).to_owned(), *n)));
        counters.insert("cache_evicted".to_owned(), store.evicted);
        counters.insert("pieces_expired".to_owned(), store.expired);
        Status {
            id: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.config.listen.to_string(),
            address: self.dht.own_addr(),
            leaf: self.config.leaf,
            network: self.network.id(),
            uptime_seconds: now.since(self.started).as_secs(),
            boots: self.boots,
            peers: dht.contacts as u32,
            lookups: dht.lookups as u32,
            streams: self.transfer.streams() as u32,
            downloads: self.gets.len() as u32,
            records: dht.records as u32,
            providers: dht.providers as u32,
            shares: store.shares,
            pieces: store.pieces,
            stored_bytes: store.piece_bytes + store.cached_bytes,
            quota_bytes: self.config.limits.quota_bytes,
            downloaded_bytes: self.transfer.downloaded_bytes(),
            uploaded_bytes: self.transfer.uploaded_bytes(),
            gossip: None,
            repair: None,
            counters,
        }
    }

    pub(super) fn peers(&self, now: Instant) -> Vec<Peer> {
        let peers = self.dht.peers(now);
        peers
            .into_iter()
            .map(|peer| Peer {
                id: peer.contact.id,
                public: peer.contact.public,
                addr: peer.contact.addr,
                good: peer.good,
                last_seen_seconds: peer.silent_for.as_secs(),
                rtt_micros: peer.rtt.map(|rtt| rtt.as_micros() as u64),
                state: None,
                load: None,
                chunks: None,
                free_bytes: None,
                version: None,
                role: None,
                sequence: None,
            })
            .collect()
    }

    /// Shared files and downloads, in the order of their addresses.
    pub(super) fn shared_files(&self) -> Vec<SharedFile> {
        let mut files: Vec<SharedFile> = self
            .store
            .shares()
            .map(|share| {
                let hash = share.manifest.hash();
                let copies = match self.placements.get(&hash) {
                    Some(placement) => placement.copies(),
                    None if share.replicated => share.replicas.max(1),
                    None => 1,
                };
                SharedFile {
                    hash,
                    length: share.manifest.length(),
                    path: self.path_of(&share.place),
                    copies: u32::from(copies),
                    replicas: share.replicas,
                    have: share.manifest.length(),
                    cached: matches!(share.place, Place::Cache(_)),
                }
            })
            .collect();
        files.extend(self.gets.values().filter_map(|get| get.describe(&self.config.cache_dir)));
        files.sort_by_key(|file| file.hash);
        files
    }
}

/// Where a file lies, for a person to read; empty for places that are nobody's business.
pub(super) fn path_of(cache_dir: &Path, place: &Place) -> PathBuf {
    match place {
        Place::File(path) => path.to_path_buf(),
        Place::Partial(path) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".part");
            PathBuf::from(name)
        }
        Place::Cache(hash) => cache_dir.join(hash.to_string()),
        Place::Piece(_) | Place::Incoming(_) | Place::ShareManifest(_) => PathBuf::new(),
    }
}

/// How many nodes were asked, in words.
pub(super) fn asked(count: u32) -> String {
    if count == 1 { "1 node was asked".to_owned() } else { format!("{count} nodes were asked") }
}

/// How a person is told of a disk error.
pub(super) fn failure_of(error: &DiskError) -> FailureReason {
    match error.kind {
        DiskErrorKind::NoSpace => FailureReason::NoSpace,
        _ => FailureReason::Failed,
    }
}

//! The consequences of a file being served or not: announcement, placement and replication begin or end.

use super::command::{CommandId, Reply};
use super::ops::share::{ShareEvent, manifest_of};
use super::{Node, Waiting};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Recovered, ShareState};
use crate::manifest::Manifest;
use crate::store::Shared;
use crate::time::Instant;
use std::sync::Arc;

/// The purpose of reading a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ManifestFor {
    /// Replication of its pieces.
    Care,
    /// Placement of its pieces.
    Copies,
}

impl Node {
    /// After a start: announces shared files again, adds them to replication, and continues unfinished placements.
    pub(super) fn resume_shares(&mut self, now: Instant, recovered: &Recovered) {
        let served = self
            .machines
            .store
            .files()
            .filter(|(_, claims)| claims.iter().any(|claim| claim.state == ShareState::Present));
        let served: Vec<Shared> = served.map(|(shared, _)| *shared).collect();
        for shared in served {
            if self.machines.store.source(&shared.hash).is_some() {
                let manifest = recovered.manifests.get(&shared.hash).cloned();
                self.machines.dht.provide_again(now, shared.hash);
                self.copied_and_looked_after(now, &shared, manifest, None, true);
            }
        }
    }

    pub(super) fn share_event(&mut self, now: Instant, event: ShareEvent) {
        match event {
            ShareEvent::Served { hash, manifest, waiter, fresh } => {
                self.served(now, hash, manifest, waiter, fresh);
            }
            ShareEvent::Withdrawn { shared, why, manifest } => {
                self.withdrawn(now, &shared, manifest.as_deref(), &why);
            }
        }
    }

    fn served(
        &mut self,
        now: Instant,
        hash: Key,
        manifest: Option<Arc<Manifest>>,
        waiter: Option<CommandId>,
        fresh: bool,
    ) {
        let Some(shared) = self.machines.store.shared(&hash) else { return };
        self.machines.dht.provide(now, hash, false, &mut self.machines.outbox);
        self.copied_and_looked_after(now, &shared, manifest, waiter, fresh);
    }

    /// A file is served: starts its placement, for which `waiter` waits.
    fn copied_and_looked_after(
        &mut self,
        now: Instant,
        shared: &Shared,
        manifest: Option<Arc<Manifest>>,
        waiter: Option<CommandId>,
        fresh: bool,
    ) {
        let hash = shared.hash;
        if self.join_placement(now, shared, waiter) {
            return;
        }
        if shared.replicated && fresh && shared.replicas > 0 {
            self.with_manifest(now, shared, manifest.clone(), ManifestFor::Care);
        }
        match waiter {
            // All requested copies exist already.
            Some(command) if shared.replicated && !(fresh && shared.replicas == 0) => {
                let copies = u32::from(shared.replicas.max(1));
                let (length, replicas) = (shared.layout.length(), shared.replicas);
                let (quorum, kept_open) = (true, false);
                let reply = Reply::Put { hash, length, copies, replicas, quorum, kept_open };
                self.machines.done(command, reply);
            }
            None if shared.replicated => {}
            _ => {
                self.waiting_puts.entry(hash).or_default().extend(waiter);
                self.with_manifest(now, shared, manifest, ManifestFor::Copies);
            }
        }
    }

    /// Ends the announcement, the placement and the replication of a file.
    fn withdrawn(&mut self, now: Instant, shared: &Shared, manifest: Option<&Manifest>, why: &str) {
        if self.machines.store.source(&shared.hash).is_some() {
            return;
        }
        let single = Manifest::single(shared.hash, shared.layout.length());
        if let Some(manifest) = single.as_ref().or(manifest) {
            self.look_after_no_more(now, manifest);
        }
        self.machines.dht.unprovide(now, &shared.hash, &mut self.machines.outbox);
        self.stop_placement(&shared.hash, why);
    }

    /// A file was evicted from the cache.
    pub(super) fn evicted(&mut self, now: Instant, hash: &Key) {
        self.machines.dht.unprovide(now, hash, &mut self.machines.outbox);
        self.stop_placement(hash, "its file was in the cache, and made room");
    }

    /// Does what a manifest is needed for: at once if it is in memory, else after reading it.
    pub(super) fn with_manifest(
        &mut self,
        now: Instant,
        shared: &Shared,
        manifest: Option<Arc<Manifest>>,
        purpose: ManifestFor,
    ) {
        let single = || Manifest::single(shared.hash, shared.layout.length()).map(Arc::new);
        match manifest.or_else(single) {
            Some(manifest) => self.manifest_known(now, manifest, purpose),
            None => {
                let op = DiskOp::Read(manifest_of(shared));
                self.machines.disk(op, Waiting::Manifest(shared.hash, purpose));
            }
        }
    }

    fn manifest_known(&mut self, now: Instant, manifest: Arc<Manifest>, purpose: ManifestFor) {
        let hash = manifest.hash();
        let served = self.machines.store.source(&hash).is_some();
        let shared = self.machines.store.shared(&hash).filter(|_| served);
        match (purpose, shared) {
            (ManifestFor::Care, Some(shared)) => self.look_after(now, &shared, &manifest),
            (ManifestFor::Copies, Some(shared)) => self.start_placement(now, &shared, manifest),
            (ManifestFor::Care, None) => {}
            (ManifestFor::Copies, None) => self.stop_placement(&hash, "its file is not there any more"),
        }
    }

    pub(super) fn manifest_read(
        &mut self,
        now: Instant,
        hash: Key,
        purpose: ManifestFor,
        result: Result<DiskReply, DiskError>,
    ) {
        match decoded(&hash, result) {
            Some(manifest) => self.manifest_known(now, Arc::new(manifest), purpose),
            None => {
                // The manifest is written again when the file has been hashed again.
                self.stop_placement(&hash, "its manifest cannot be read: the file is hashed again");
                self.watch.distrust(now, &hash, &mut self.machines);
            }
        }
    }

    /// The manifest of a file that is no longer served has been read: its pieces leave replication.
    pub(super) fn forget_pieces(
        &mut self,
        now: Instant,
        shared: &Shared,
        result: Result<DiskReply, DiskError>,
    ) {
        let again = self.machines.store.source(&shared.hash).is_some();
        match decoded(&shared.hash, result) {
            Some(manifest) if !again => self.look_after_no_more(now, &manifest),
            Some(_) => {}
            None => log::debug!(
                "the manifest of {} is gone; its pieces are found missing one by one",
                shared.hash
            ),
        }
    }
}

fn decoded(hash: &Key, result: Result<DiskReply, DiskError>) -> Option<Manifest> {
    match result {
        Ok(DiskReply::Bytes(bytes)) => Manifest::decode(&bytes, hash).ok(),
        Ok(_) => None,
        Err(error) => {
            log::warn!("{error}");
            None
        }
    }
}

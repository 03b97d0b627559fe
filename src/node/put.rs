//! Sharing files: from a path to an address that others can fetch.

use super::command::{CommandId, FailureReason, Progress, Reply, Stage};
use super::{Node, Waiting};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, FileStamp, PassedId, Place, Share};
use crate::manifest::Manifest;
use crate::time::Instant;
use crate::transfer::LIFETIME_SECONDS_MAX;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that is being shared.
pub(super) struct Put {
    place: Place,
    replicas: u8,
    lifetime: u32,
    /// What is being written down; `None` while the file is hashed.
    share: Option<Arc<Share>>,
}

impl Node {
    pub(super) fn put(&mut self, id: CommandId, path: PathBuf, replicas: Option<u8>, lifetime: Option<u32>) {
        if !path.is_absolute() {
            return self.machines.fail(
                id,
                FailureReason::Usage,
                "a path must be absolute: the node has a directory of its own",
            );
        }
        if self.puts.len() >= self.config.limits.commands_max {
            return self.machines.fail(
                id,
                FailureReason::Busy,
                "too many files are being put at once; try later",
            );
        }
        let replicas = replicas.unwrap_or(self.config.replicas);
        let lifetime = lifetime.unwrap_or(self.config.lifetime);
        if replicas != 0 && !(1..=LIFETIME_SECONDS_MAX).contains(&lifetime) {
            let message = format!("copies are kept for 1 to {LIFETIME_SECONDS_MAX} seconds (365 days)");
            return self.machines.fail(id, FailureReason::Usage, message);
        }
        let place = Place::File(Arc::from(path));
        self.puts.insert(id, Put { place: place.clone(), replicas, lifetime, share: None });
        self.machines.disk(DiskOp::Hash { place, passed: Some(PassedId(id.0)) }, Waiting::Put(id));
    }

    pub(super) fn put_disk(&mut self, now: Instant, id: CommandId, result: Result<DiskReply, DiskError>) {
        match result {
            Ok(DiskReply::Progress { done, total }) => {
                self.machines
                    .progress(id, Progress { stage: Stage::Hashing, done, total, prefix: 0, path: None });
            }
            Ok(DiskReply::Hashed { manifest, stamp, .. }) => self.put_hashed(id, manifest, stamp),
            Ok(_) => self.put_saved(now, id),
            Err(error) => {
                self.puts.remove(&id);
                self.machines.disk_failed(id, &error);
            }
        }
    }

    fn put_hashed(&mut self, id: CommandId, manifest: Arc<Manifest>, stamp: FileStamp) {
        let Some(put) = self.puts.get_mut(&id) else { return };
        let share = Arc::new(Share {
            manifest,
            place: put.place.clone(),
            stamp,
            replicas: put.replicas,
            lifetime: put.lifetime,
            replicated: put.replicas == 0,
            synced: true,
        });
        put.share = Some(Arc::clone(&share));
        self.machines.disk(DiskOp::SaveShare(share), Waiting::Put(id));
    }

    /// It is written down: from here on it survives a restart, and others may know.
    fn put_saved(&mut self, now: Instant, id: CommandId) {
        let Some(share) = self.puts.remove(&id).and_then(|put| put.share) else { return };
        if self.machines.store.add_share(Arc::clone(&share)).is_err() {
            self.machines.disk(DiskOp::RemoveShare { share }, Waiting::Nothing);
            let message = format!(
                "{} files are shared already: stop sharing some with `elver rm`",
                self.config.limits.shares_max
            );
            return self.machines.fail(id, FailureReason::NoSpace, message);
        }
        self.machines.dht.provide(now, share.manifest.hash(), false, &mut self.machines.outbox);
        self.start_placement(now, share, Some(id));
    }

    /// After a start: shared files are announced again, and unfinished copying goes on.
    pub(super) fn resume_shares(&mut self, now: Instant) {
        let shares: Vec<Arc<Share>> = self.machines.store.shares().cloned().collect();
        for share in shares {
            self.machines.dht.provide(now, share.manifest.hash(), false, &mut self.machines.outbox);
            if !share.replicated {
                self.start_placement(now, share, None);
            }
        }
    }

    pub(super) fn remove(&mut self, now: Instant, id: CommandId, hash: &Key) {
        match self.machines.store.remove_share(hash) {
            Some(share) => {
                self.forget(now, &share);
                self.machines
                    .disk(DiskOp::RemoveShare { share }, Waiting::Record(id, Reply::Remove { hash: *hash }));
            }
            None => {
                let message = format!("this node does not share {hash}: `elver ls` shows what it shares");
                self.machines.fail(id, FailureReason::NotFound, message);
            }
        }
    }

    /// Where a file lies, for a person to read.
    pub(super) fn path_of(&self, place: &Place) -> PathBuf {
        self.machines.path_of(place)
    }
}

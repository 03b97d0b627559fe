//! Claims: the shared files, and the manifests of their content.

use super::files::Files;
use crate::id::Key;
use crate::io::{FileStamp, Place, Share, ShareState};
use crate::manifest::Manifest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The claims of one disk.
#[derive(Default)]
pub(super) struct Claims {
    /// In the order in which the claims were made. Each place has at most one.
    shares: Vec<Share>,
    manifests: BTreeMap<Key, Arc<Manifest>>,
}

impl Claims {
    pub(super) fn save(&mut self, share: Share, manifest: Option<Arc<Manifest>>) {
        self.manifests.extend(manifest.map(|manifest| (share.hash, manifest)));
        match self.shares.iter_mut().find(|known| known.place == share.place) {
            Some(known) => *known = share,
            None => self.shares.push(share),
        }
    }

    /// Ends a claim. `last`: it was the last one on its content.
    pub(super) fn remove(&mut self, share: &Share, last: bool) {
        self.shares.retain(|known| known.place != share.place || known.hash != share.hash);
        if last {
            self.manifests.remove(&share.hash);
        }
    }

    pub(super) fn remove_manifest(&mut self, hash: &Key) {
        self.manifests.remove(hash);
    }

    pub(super) fn manifest(&self, hash: &Key) -> Option<&Arc<Manifest>> {
        self.manifests.get(hash)
    }

    pub(super) fn manifests(&self) -> &BTreeMap<Key, Arc<Manifest>> {
        &self.manifests
    }

    pub(super) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Whether a shared file, or a chunk of one, has this key.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let has_chunk = |hash| self.manifest(hash).is_some_and(|manifest| manifest.keys().contains(key));
        self.shares.iter().any(|share| share.hash == *key || has_chunk(&share.hash))
    }

    /// Whether a claim is on a file in the cache.
    pub(super) fn keeps_cached(&self, hash: &Key) -> bool {
        self.shares.iter().any(|share| share.hash == *hash && matches!(share.place, Place::Cache(_)))
    }

    /// Checks each shared file when the node starts. `trusts_unsynced`: no power cut can have torn content that was not synced.
    pub(super) fn recover(&mut self, files: &Files, trusts_unsynced: bool) {
        let trusted = |share: &Share| share.synced || trusts_unsynced;
        self.shares.retain(|share| match share.place {
            Place::Cache(_) => trusted(share) && files.get(&share.place).is_ok(),
            _ => true,
        });
        for share in &mut self.shares {
            if !trusted(share) {
                share.stamp = FileStamp::default();
            }
            share.state = match files.get(&share.place) {
                Ok(file) if file.stamp != share.stamp => ShareState::Doubtful,
                Err(_) if share.state != ShareState::Changed => ShareState::Absent,
                _ => share.state,
            };
        }
        let shares = &self.shares;
        self.manifests.retain(|hash, _| shares.iter().any(|share| share.hash == *hash));
    }
}

//! The shelf: what transfer is told about the pieces of this node.

use super::Node;
use super::machines::Machines;
use super::ops::download::Downloads;
use super::ops::recheck::Rechecks;
use crate::id::Key;
use crate::identity::Identity;
use crate::manifest::Content;
use crate::store::Store;
use crate::time::Instant;
use crate::transfer::{Bytes, Located, Pieces, Transfer};
use crate::wire::frame::Refusal;

/// The pieces that this node serves: those that the store has, and the manifests of downloads.
pub(super) struct Shelf<'a> {
    store: &'a mut Store,
    rechecks: &'a Rechecks,
    downloads: &'a Downloads,
    /// Pieces that were requested and are not here.
    missed: Vec<Key>,
}

impl Pieces for Shelf<'_> {
    fn locate(&mut self, key: &Key) -> Result<Located, Refusal> {
        if self.rechecks.is_running(key) {
            return Err(Refusal::Busy);
        }
        let found = self.store.locate(key);
        match self.store.partial(key) {
            // No file holds the manifest of a download until that is complete.
            Some(manifest) if found.is_none() && !manifest.is_single() => {
                let bytes = Bytes::Memory(manifest.encode());
                Ok(Located { content: Content::Manifest, mode: self.downloads.mode(key), bytes })
            }
            _ => {
                let Some((content, extent)) = found else {
                    self.missed.push(*key);
                    return Err(Refusal::NotFound);
                };
                self.store.touch(key);
                Ok(Located { content, mode: self.store.mode(key), bytes: Bytes::File(extent) })
            }
        }
    }

    fn has(&self, key: &Key) -> bool {
        is_served(self.store, key)
    }
}

/// Whether a piece can be served: it is on disk, or it is the manifest of a download.
pub(super) fn is_served(store: &Store, key: &Key) -> bool {
    store.has(key) || store.partial(key).is_some_and(|manifest| !manifest.is_single())
}

impl Node {
    /// Gives transfer an input together with the shelf, from which it answers peers at once.
    pub(super) fn at_the_shelf<T>(
        &mut self,
        now: Instant,
        input: impl FnOnce(&mut Transfer, &Identity, &mut Shelf<'_>) -> T,
    ) -> T {
        let Machines { transfer, store, outbox, .. } = &mut self.machines;
        let (rechecks, downloads) = (&self.rechecks, &self.downloads);
        let mut shelf = Shelf { store, rechecks, downloads, missed: Vec::new() };
        let result = input(transfer, outbox.identity(), &mut shelf);
        for key in shelf.missed {
            self.watch.asked_for(now, &key, &mut self.machines);
        }
        result
    }
}

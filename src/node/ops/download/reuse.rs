//! Content of a file that is on this node already: left by an earlier attempt, in the file that the download will replace, or in
//! pieces and files of this node. None of it is requested from the network.

use super::chunks::Chunks;
use crate::io::{DiskOp, Extent, Place};
use crate::node::machines::Machines;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// Chunks that are elsewhere on this node, to be copied one after another.
#[derive(Default)]
pub(super) struct Reuse {
    copies: VecDeque<(u32, Extent)>,
}

impl Reuse {
    /// Plans the copies of missing chunks. `old` tells which chunks are in the file at `target`.
    pub(super) fn plan(target: Option<&Path>, old: &[bool], chunks: &Chunks, machines: &Machines) -> Self {
        let mut sources: BTreeMap<u32, Extent> =
            machines.store.local_sources(chunks.manifest()).into_iter().collect();
        if let Some(target) = target {
            let place = Place::File(Arc::from(target));
            for (index, _) in (0..chunks.manifest().chunk_count()).zip(old).filter(|(_, good)| **good) {
                sources.entry(index).or_insert_with(|| chunks.extent(index, place.clone()));
            }
        }
        Reuse { copies: sources.into_iter().filter(|(index, _)| chunks.lacks(*index)).collect() }
    }

    /// The next chunk to copy into `place`.
    pub(super) fn next(&mut self, chunks: &Chunks, place: &Place) -> Option<(u32, DiskOp)> {
        let (index, from) = self.copies.pop_front()?;
        Some((index, DiskOp::Copy { from, to: chunks.sink(index, place.clone()) }))
    }
}

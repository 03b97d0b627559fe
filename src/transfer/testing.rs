//! Helpers for the unit tests of the wings: a machine with authenticated peers, whose parts a test uses one by one.

pub(super) use super::tests::hostile::{NOW, OnePiece};

use super::common::Common;
use super::tests::hostile::{Puppet, machine_with};
use super::{StreamOutput, Transfer, TransferEvent};
use crate::identity::Identity;
use crate::io::StreamId;
use crate::limits::Limits;
use crate::manifest::{CHUNK_BYTES_MIN, Manifest, ManifestBuilder};
use crate::wire::contact::Contact;
use std::sync::Arc;

/// The machine of a node that peers have connected to: [`peer`] 1 over [`stream`] 1, and so on.
pub(super) fn connected(peers: u8, limits: Limits) -> Transfer {
    let mut machine = machine_with(limits);
    for seed in 1..=peers {
        Puppet::authenticated(seed, &mut machine);
    }
    while machine.0.poll_event().is_some() {}
    machine.0
}

pub(super) fn peer(seed: u8) -> Contact {
    Contact::new(Identity::from_secret(&[seed; 32]).public(), ([10, 1, 1, seed], 5).into())
}

pub(super) fn stream(seed: u8) -> StreamId {
    StreamId(seed.into())
}

/// The manifest of a file of `chunks` chunks.
pub(super) fn manifest(chunks: u64) -> Arc<Manifest> {
    let bytes = vec![7; (chunks * CHUNK_BYTES_MIN) as usize];
    let mut builder = ManifestBuilder::new(bytes.len() as u64).expect("a possible length");
    builder.update(&bytes);
    Arc::new(builder.finish().expect("all bytes"))
}

impl Common {
    /// Takes the outputs since the last call.
    pub(super) fn outputs(&mut self) -> Vec<StreamOutput> {
        self.out.outputs.drain(..).collect()
    }

    /// Takes the events since the last call.
    pub(super) fn events(&mut self) -> Vec<TransferEvent> {
        self.out.events.drain(..).collect()
    }
}

//! The transfer machine: streams between nodes, and the pieces that go over them.
//!
//! It moves no content itself. It tells the driver which part of which file goes to which stream
//! ([`StreamOutput::SendFile`]) and where arriving content goes ([`StreamOutput::Sink`]). The driver tells it what arrived and
//! which hash it has. The machine collects only manifests and files of one chunk in memory, because it parses or returns them.
//!
//! One stream to a peer serves both directions and every purpose. Both ends may request pieces, ask which pieces the other has,
//! and offer pieces, all at once. Each request, question and offer has a number and gets exactly one answer.
//!
//! [`Transfer`] passes each input to the wing that it is for (`dispatch`). It has four wings, and beside them what they share:
//!
//! - `streams`: how streams authenticate, which may be open, and the state of each.
//! - `downloads`: which piece to request from which source, and the verification of what arrives.
//! - `uploads`: requests of peers, and which peer is sent content first.
//! - `replicas`: copies to other nodes and from them, questions about copies, and proofs that they are there.
//! - `common`: what every wing works with, among it the streams, the [bans](crate::peers::blame) of peers and the outputs. `reports`:
//!   reports between peers that a piece does not verify.
//! - `pieces`: what the machine asks about this node's pieces. `config`: bounds and timeouts. `events`: the outputs. `counters`:
//!   what is counted.
//!
//! # Order
//! After each input, poll outputs and events until both are empty. The driver carries outputs out in their order. After a
//! [`StreamOutput::Sink`] it gives that stream's next raw bytes to the sink until the sink is full, calls
//! [`Transfer::handle_sunk`], and goes on with [`Transfer::handle_bytes`]. After a long turn it hands in what has arrived before
//! it calls [`Transfer::handle_timeout`]; otherwise the machine would blame peers for this node's own delay.

mod common;
mod config;
mod counters;
mod dispatch;
mod downloads;
mod events;
mod pieces;
mod replicas;
mod reports;
mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod uploads;

pub use crate::peers::blame::Ban;
pub use config::{Timing, TransferConfig};
pub use counters::TransferCounters;
pub use events::{
    DialId, DownloadError, DownloadId, DownloadState, InspectError, InspectId, ProofId, PushError, PushId,
    PushOutcome, Root, SampleId, SilentSource, StreamOutput, TransferEvent,
};
pub use pieces::{Bytes, Located, Pieces, Verdict};
pub use replicas::possession::INSPECTIONS_MAX;

use crate::id::{Key, NodeId};
use crate::io::{DiskError, Extent, Place, StreamId};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::time::{Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::InspectEntry;
use crate::wire::network::Network;
use common::{Common, Out};
use downloads::table::Downloads;
use replicas::inbound;
use replicas::possession::{self, Inspections};
use replicas::proof::{For, Proofs};
use replicas::push::Pushes;
use std::sync::Arc;
use streams::close::CloseReason;
use uploads::serve::Uploads;

/// The transfer machine of one node.
pub struct Transfer {
    common: Common,
    downloads: Downloads,
    uploads: Uploads,
    pushes: Pushes,
    inspections: Inspections,
    proofs: Proofs,
}

/// Getters.
impl Transfer {
    /// A machine without streams. `seed` is 32 bytes of entropy, or a fixed number in a simulation.
    pub fn new(config: TransferConfig, network: Network, seed: [u8; 32]) -> Transfer {
        Transfer {
            uploads: Uploads::with_rate(config.limits.rates.upload),
            common: Common::new(config, network, seed),
            downloads: Downloads::default(),
            pushes: Pushes::default(),
            inspections: Inspections::default(),
            proofs: Proofs::default(),
        }
    }

    /// Applies new limits on streams, on concurrent uploads, and on rates; the other limits stay. Idle streams beyond the new
    /// limit are closed; busy ones end by themselves.
    pub fn set_limits(&mut self, now: Instant, limits: &Limits) {
        self.common.config.limits.streams_max = limits.streams_max;
        self.common.config.limits.uploads_max = limits.uploads_max;
        self.common.config.limits.rates = limits.rates;
        self.uploads.set_rate(limits.rates.upload);
        while self.common.streams.is_over_full(limits.streams_max) && self.make_room(now) {}
        self.common.unsettled.streams = true;
        self.uploads.take_turns(now, &mut self.common);
        self.settle(now);
    }

    /// The number of open streams, authenticated or not.
    pub fn streams(&self) -> usize {
        self.common.streams.len()
    }

    /// The number of streams that may be open.
    pub fn streams_max(&self) -> usize {
        self.common.config.limits.streams_max
    }

    /// Bytes of content received, verified or not.
    pub fn downloaded_bytes(&self) -> u64 {
        self.common.out.downloaded
    }

    /// Whether content waits to leave on some stream.
    pub fn is_sending(&self) -> bool {
        self.common.streams.values().any(|session| !session.outgoing.sending.is_empty())
    }

    /// Bytes of content sent.
    pub fn uploaded_bytes(&self) -> u64 {
        self.common.out.uploaded
    }

    /// The counters.
    pub fn counters(&self) -> &TransferCounters {
        &self.common.out.counters
    }

    /// Whether a peer is shunned: it sent wrong content of several files, and this node neither dials nor accepts it for a while.
    pub fn is_shunned(&self, now: Instant, peer: &NodeId) -> bool {
        self.common.blame.is_shunned(now, peer)
    }

    /// The bans that are in force, in the order of the peers' ids.
    pub fn bans(&self, now: Instant) -> Vec<Ban> {
        self.common.blame.bans(now).collect()
    }

    /// The state of a download's sources; `None` when there is no such download (any more).
    pub fn download_state(&self, download: DownloadId) -> Option<DownloadState> {
        self.downloads.state(download, &self.common)
    }

    /// Whether nothing is heard from the target of a copy that should have answered: see `Pushes::is_slow`.
    pub fn is_push_slow(&self, now: Instant, push: PushId) -> bool {
        self.pushes.is_slow(now, push, &self.common)
    }

    /// Whether a copy to this node is slow.
    pub fn is_target_slow(&self, now: Instant, target: &NodeId) -> bool {
        self.pushes.is_target_slow(now, target, &self.common)
    }

    /// Whether a download is under way.
    pub fn is_downloading(&self) -> bool {
        !self.downloads.is_empty()
    }

    /// Sources that downloads need, have met, and hear nothing from: at most `most`. Their first sign of life is to be reported
    /// with [`source_returned`](Transfer::source_returned).
    pub fn silent_sources(&self, now: Instant, most: usize) -> Vec<SilentSource> {
        self.downloads.silent_sources(now, most, &self.common)
    }

    /// How many of these sources of a download were given up because they could not be reached.
    pub fn unreached(&self, download: DownloadId, sources: &[Contact]) -> u32 {
        self.downloads.unreached(download, sources, &self.common)
    }

    /// When [`handle_timeout`](Transfer::handle_timeout) is due; `None` when nothing is awaited.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timing = &self.common.config.timing;
        let streams = self.common.streams.next_deadline(timing);
        let downloads = self.downloads.next_deadline();
        let pushes = self.pushes.next_deadline();
        let inspections = self.inspections.next_deadline(timing);
        let proofs = self.proofs.next_deadline(timing);
        // The end of a ban matters to downloads only.
        let ban = self.common.blame.next_end().filter(|_| !self.downloads.is_empty());
        let uploads = self.uploads.next_deadline(&self.common);
        [streams, downloads, uploads, pushes, inspections, proofs, ban].into_iter().fold(None, earliest)
    }
}

/// Outputs.
impl Transfer {
    /// The next output for the driver.
    pub fn poll_output(&mut self) -> Option<StreamOutput> {
        self.common.out.outputs.pop_front()
    }

    /// The next event for the node.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.common.out.events.pop_front()
    }
}

/// Downloads.
impl Transfer {
    /// Starts a download with the piece under the file's own hash: its manifest, or the file itself when it is one chunk. False
    /// when there are too many downloads, or one with this number.
    pub fn fetch(&mut self, now: Instant, download: DownloadId, hash: Key, sources: &[Contact]) -> bool {
        let added = self.downloads.fetch(now, download, hash, true, &mut self.common);
        if added {
            self.add_sources(now, download, sources);
        }
        added
    }

    /// Like [`fetch`](Transfer::fetch), for a file that will pass through a window: it is not announced to peers.
    pub fn fetch_windowed(&mut self, now: Instant, download: DownloadId, hash: Key) -> bool {
        let added = self.downloads.fetch(now, download, hash, false, &mut self.common);
        self.settle(now);
        added
    }

    /// Adds nodes that may have some of the file. Banned nodes are counted, but not asked. False when there was no room for all:
    /// places become free as sources turn out to have nothing (more) to give.
    pub fn add_sources(&mut self, now: Instant, download: DownloadId, sources: &[Contact]) -> bool {
        let mut room = true;
        for contact in sources {
            room &= self.downloads.add_source(now, download, *contact, None, &mut self.common);
        }
        self.settle(now);
        room
    }

    /// Goes on with the chunks of a file, each to its place in `place`. `have` tells which chunks are there already. This may also
    /// start a download without [`fetch`](Transfer::fetch); then add sources with [`add_sources`](Transfer::add_sources). False
    /// when there are too many downloads.
    pub fn begin(
        &mut self,
        now: Instant,
        download: DownloadId,
        manifest: Arc<Manifest>,
        place: Place,
        have: Vec<bool>,
    ) -> bool {
        let begun = self.downloads.begin(now, download, manifest, (place, &have), &mut self.common);
        self.settle(now);
        begun
    }

    /// Goes on with the chunks of a file that `have` lacks, in order, each into a file of its own ([`Place::Window`]). Chunks from
    /// `edge` on are requested only after [`advance`](Transfer::advance) moves the edge. The reader removes the files. The download
    /// is neither served nor announced to peers. False when there are too many downloads.
    pub fn begin_window(
        &mut self,
        now: Instant,
        download: DownloadId,
        manifest: Arc<Manifest>,
        window: u64,
        have: &[bool],
        edge: u32,
    ) -> bool {
        let window = (window, have, edge);
        let begun = self.downloads.begin_window(now, download, manifest, window, &mut self.common);
        self.settle(now);
        begun
    }

    /// The window moved: its chunks before `edge` may be requested.
    pub fn advance(&mut self, now: Instant, download: DownloadId, edge: u32) {
        self.downloads.advance(download, edge);
        self.settle(now);
    }

    /// A chunk that `have` contained is missing after all. False when there is no such download (any more): then begin a new one
    /// with [`begin_window`](Transfer::begin_window).
    pub fn want(&mut self, now: Instant, download: DownloadId, index: u32) -> bool {
        let known = self.downloads.want(download, index);
        self.settle(now);
        known
    }

    /// A silent source gave a sign of life. It is dialled at once, over a new stream if the present one makes no progress: after
    /// an outage TCP repeats what was lost only after a long pause. Returns the downloads that it is a source of.
    pub fn source_returned(&mut self, now: Instant, peer: &Contact) -> Vec<DownloadId> {
        for stream in self.downloads.stalled_streams(now, &peer.id, &self.common) {
            self.drop_stream(now, stream, CloseReason::Stalled);
        }
        let back = self.downloads.source_returned(now, &peer.id);
        if !back.is_empty() {
            self.common.dial_again(now, *peer);
        }
        self.settle(now);
        back
    }

    /// Aborts a download. Nothing more is written to its target.
    pub fn abort(&mut self, now: Instant, download: DownloadId) {
        self.downloads.abort(download, &mut self.common);
        self.settle(now);
    }

    /// Tries whether a connection to a node is possible, from a fresh port, and closes it at once.
    /// [`TransferEvent::Tried`] tells the result. `None` when there is no room for a stream.
    pub fn try_dial(&mut self, now: Instant, contact: Contact) -> Option<DialId> {
        self.common.streams.try_dial(now, contact, &self.common.config, &mut self.common.out)
    }

    /// Whether this node tells others that it is a leaf.
    pub fn set_leaf(&mut self, leaf: bool) {
        self.common.config.leaf = leaf;
    }

    /// Lifts the bans of one peer, or of all, and forgets the offences. Returns the number of bans lifted.
    pub fn forgive(&mut self, now: Instant, peer: Option<&NodeId>) -> usize {
        let lifted = self.common.blame.forgive(now, peer);
        self.downloads.review_bans(now, &mut self.common);
        self.settle(now);
        lifted
    }
}

/// Copies from other nodes.
impl Transfer {
    /// The verdict on an offered piece, if [`Pieces::admit`] has not given one.
    pub fn admit(&mut self, now: Instant, stream: StreamId, request: u32, verdict: Verdict) {
        inbound::admit(now, stream, request, verdict, &mut self.common);
        self.settle(now);
    }

    /// The node made the piece of a [`TransferEvent::Arrived`] durable, or refuses it.
    pub fn stored(&mut self, now: Instant, stream: StreamId, request: u32, result: Result<(), Refusal>) {
        inbound::stored(now, stream, request, result, &mut self.common);
        self.settle(now);
    }
}

/// What peers ask.
impl Transfer {
    /// Whether requests of peers wait for [`look_up`](Transfer::look_up).
    pub fn has_lookups(&self) -> bool {
        self.uploads.has_lookups()
    }

    /// Answers the requests of peers that became due other than by [`handle_bytes`](Transfer::handle_bytes) or
    /// [`handle_drained`](Transfer::handle_drained): a slot became free with time, or with another peer's stream.
    pub fn look_up(&mut self, now: Instant, pieces: &mut dyn Pieces) {
        self.uploads.look_up(now, pieces, &mut self.common);
        self.settle(now);
    }

    /// The answer to a question about copies, if [`Pieces::inspect`] has not given one: one entry for each piece, in the order of the
    /// question.
    ///
    /// # Panics
    /// When there are more than [`INSPECT_KEYS_MAX`](crate::wire::inspect::INSPECT_KEYS_MAX) entries.
    pub fn inspected(&mut self, now: Instant, stream: StreamId, question: u32, entries: &[InspectEntry]) {
        possession::answer(stream, question, entries, &mut self.common);
        self.settle(now);
    }
}

/// Copies to other nodes, and questions about their copies.
impl Transfer {
    /// Copies a piece, all of which is in `extent`, to a node. False when too many copies are under way, or one with this number;
    /// else [`TransferEvent::PushDone`] tells how it ended.
    pub fn push(
        &mut self,
        now: Instant,
        push: PushId,
        target: Contact,
        offer: Offer,
        extent: Extent,
    ) -> bool {
        debug_assert_eq!(offer.length, extent.length, "a piece is offered and sent whole");
        let queued = self.pushes.queue(now, push, target, (offer, extent), &self.common);
        if queued {
            self.settle(now);
        }
        queued
    }

    /// Asks a node about its copies of up to [`INSPECT_KEYS_MAX`](crate::wire::inspect::INSPECT_KEYS_MAX) pieces, and about the
    /// copies that it knows elsewhere. False when too many inspections are under way, or one with this number, or when `keys` is
    /// empty; else [`TransferEvent::Inspected`] tells how it ended.
    pub fn inspect(&mut self, now: Instant, inspection: InspectId, target: Contact, keys: Vec<Key>) -> bool {
        let queued = self.inspections.queue(now, inspection, target, keys);
        if queued {
            self.settle(now);
        }
        queued
    }

    /// Challenges a node to prove that it has a piece on disk, of which all of this node's copy is in `extent`. False when too many
    /// challenges are under way; else [`TransferEvent::Proven`] tells how it ended.
    pub fn prove(&mut self, now: Instant, proof: ProofId, target: Contact, key: Key, extent: Extent) -> bool {
        let room = self.proofs.has_room();
        if room {
            self.proofs.begin(now, For::Node(proof), target, (key, extent), &mut self.common);
            self.settle(now);
        }
        room
    }

    /// The parts of a [`TransferEvent::SampleNeeded`] were read, or cannot be.
    pub fn sampled(&mut self, now: Instant, sample: SampleId, result: Result<Vec<u8>, DiskError>) {
        self.proofs.sampled(sample, result, &mut self.pushes, &mut self.common);
        self.settle(now);
    }

    /// Ends an inspection without an event.
    pub fn forget_inspection(&mut self, inspection: InspectId) {
        self.inspections.forget(inspection);
    }
}

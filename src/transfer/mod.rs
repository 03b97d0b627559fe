//! The transfer machine: streams between nodes, and the pieces that go over them.
//!
//! It moves no content itself. It tells the driver which part of which file goes to which stream
//! ([`StreamOutput::SendFile`]) and where arriving content goes ([`StreamOutput::Sink`]). The driver tells it what arrived and
//! which hash it has. The machine collects only manifests and files of one chunk in memory, because it parses or returns them.
//!
//! One stream to a peer serves both directions and every purpose. Both ends may request pieces, ask which pieces the other has,
//! and offer pieces, all at once. Each request, question and offer has a number and gets exactly one answer.
//!
//! It has four wings, and beside them what they share:
//!
//! - `streams`: how streams open, authenticate and close, and the state of each.
//! - `downloads`: which piece to request from which source, and what comes of it.
//! - `uploads`: requests of peers, and which peer is sent content first.
//! - `replicas`: copies to other nodes and from them, and questions about copies.
//! - `blame`: bans of peers that sent content which does not verify; `reports`: reports between peers that a piece does not verify.
//! - `pieces`: what the machine asks about this node's pieces; `events`: the outputs; `counters`: what is counted.
//!
//! # Order
//! After each input, poll outputs and events until both are empty. The driver carries outputs out in their order. After a
//! [`StreamOutput::Sink`] it gives that stream's next raw bytes to the sink until the sink is full, calls
//! [`Transfer::handle_sunk`], and goes on with [`Transfer::handle_bytes`]. After a long turn it hands in what has arrived before
//! it calls [`Transfer::handle_timeout`]; otherwise the machine would blame peers for this node's own delay.

mod blame;
mod counters;
mod downloads;
mod events;
mod pieces;
mod replicas;
mod reports;
mod streams;
#[cfg(test)]
mod tests;
mod uploads;

pub use blame::Ban;
pub use counters::TransferCounters;
pub use events::{
    DialId, DownloadError, DownloadId, DownloadState, InspectError, InspectId, PushError, PushId,
    PushOutcome, Root, StreamOutput, TransferEvent, Verdict,
};
pub use pieces::{Bytes, Located, Pieces};
pub use replicas::possession::INSPECTIONS_MAX;

use crate::id::{Key, NodeId};
use crate::io::{Extent, StreamId};
use crate::limits::Limits;
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::frame::{Frame, Offer};
use crate::wire::inspect::InspectEntry;
use crate::wire::network::Network;
use blame::Blame;
use downloads::download::Download;
use replicas::possession::Inspections;
use replicas::push::Pushes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use streams::session::Session;
use streams::table::Streams;
use uploads::serve::Uploads;

/// The configuration of a [`Transfer`].
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// Every bound.
    pub limits: Limits,
    /// Whether this node is a leaf.
    pub leaf: bool,
    /// The port that this node listens on.
    pub port: u16,
    /// The timeouts.
    pub timing: Timing,
}

/// Timeouts, one for each thing that can be awaited.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For a connection. The driver enforces it: [`StreamOutput::Connect`] carries the deadline.
    pub dial: Duration,
    /// For the other end to prove its identity.
    pub handshake: Duration,
    /// For progress on a requested piece, before the stream is closed.
    pub stall: Duration,
    /// For any activity on a stream, before it is closed.
    pub idle: Duration,
    /// For the answer to an offer, for the content of an accepted offer, and for the message that it is durable.
    pub answer: Duration,
    /// For a stream to the target of a copy.
    pub push: Duration,
    /// For progress on a requested piece, before an idle source is asked for it, too.
    pub patience: Duration,
    /// Between two rounds of questions to a source that has nothing to give. Doubles while the answers bring nothing new.
    pub ask_again: Duration,
    /// The upper bound of [`ask_again`](Timing::ask_again).
    pub ask_again_max: Duration,
    /// How long a peer's request waits for a slot before this node answers that it is busy.
    pub choke: Duration,
    /// How long a source is not asked after it answered that it is busy.
    pub pause: Duration,
    /// Before a source is dialled a second time.
    pub retry_first: Duration,
    /// Before a source is dialled a third time.
    pub retry_second: Duration,
    /// Before a source that was given up may be tried again, if it is added again.
    pub forgive: Duration,
    /// Between two [`TransferEvent::SourcesNeeded`] for one download.
    pub needed: Duration,
    /// How long a download waits for a source that has not been reached yet, before it asks for others.
    pub hope: Duration,
    /// The first ban of a peer from a file of which it sent wrong content. Doubles with each offence.
    pub ban_first: Duration,
    /// The longest such ban.
    pub ban_max: Duration,
    /// How long offences are remembered after a ban. Offences for several files within this time count together.
    pub ban_window: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing {
            dial: seconds(5),
            handshake: seconds(5),
            stall: seconds(10),
            idle: seconds(60),
            answer: seconds(45),
            push: seconds(60),
            patience: seconds(3),
            ask_again: seconds(5),
            ask_again_max: seconds(40),
            choke: seconds(2),
            pause: seconds(1),
            retry_first: seconds(1),
            retry_second: seconds(5),
            forgive: seconds(60),
            needed: Duration::from_millis(500),
            hope: seconds(1),
            ban_first: seconds(120),
            ban_max: seconds(3600),
            ban_window: seconds(3600),
        }
    }
}

impl TransferConfig {
    /// The configuration with the default timeouts.
    pub fn new(limits: Limits, leaf: bool, port: u16) -> Self {
        TransferConfig { limits, leaf, port, timing: Timing::default() }
    }
}

/// The transfer machine of one node.
pub struct Transfer {
    common: Common,
    downloads: BTreeMap<DownloadId, Download>,
    /// Downloads to be pumped, because something changed for them.
    changed: BTreeSet<DownloadId>,
    uploads: Uploads,
    pushes: Pushes,
    inspections: Inspections,
}

/// What every wing works with. A wing gets it with each event, so the compiler shows that it touches no other wing.
struct Common {
    config: TransferConfig,
    rng: Rng,
    streams: Streams,
    blame: Blame,
    out: Out,
}

impl Common {
    fn new(config: TransferConfig, network: Network, seed: [u8; 32]) -> Common {
        Common {
            rng: Rng::new(seed),
            streams: Streams::new(network),
            blame: Blame::new(config.limits.blamed_peers_max),
            out: Out::default(),
            config,
        }
    }

    /// Connects to a node unless a stream to it exists or is being dialled. False when there is no room.
    fn dial(&mut self, now: Instant, contact: Contact) -> bool {
        self.streams.dial(now, contact, &self.config, &mut self.out)
    }
}

/// The outputs and events that wait to be polled, and the counters.
#[derive(Default)]
struct Out {
    outputs: VecDeque<StreamOutput>,
    events: VecDeque<TransferEvent>,
    counters: TransferCounters,
    downloaded: u64,
    uploaded: u64,
}

impl Out {
    fn event(&mut self, event: TransferEvent) {
        self.events.push_back(event);
    }

    fn write(&mut self, stream: StreamId, session: &mut Session, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        session.unread += bytes.len();
        self.outputs.push_back(StreamOutput::Write { stream, bytes });
    }
}

/// Getters.
impl Transfer {
    /// A machine without streams. `seed` is 32 bytes of entropy, or a fixed number in a simulation.
    pub fn new(config: TransferConfig, network: Network, seed: [u8; 32]) -> Transfer {
        Transfer {
            uploads: Uploads::with_rate(config.limits.rates.upload),
            common: Common::new(config, network, seed),
            downloads: BTreeMap::new(),
            changed: BTreeSet::new(),
            pushes: Pushes::default(),
            inspections: Inspections::default(),
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
        self.everything_changed();
        self.uploads.take_turns(now, &mut self.common);
        self.settle(now);
    }

    /// The number of open streams, authenticated or not.
    pub fn streams(&self) -> usize {
        self.common.streams.len()
    }

    /// Bytes of content received, verified or not.
    pub fn downloaded_bytes(&self) -> u64 {
        self.common.out.downloaded
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
        let download = self.downloads.get(&download)?;
        Some(download.state(|id| self.common.streams.is_connected(id)))
    }

    /// When [`handle_timeout`](Transfer::handle_timeout) is due; `None` when nothing is awaited.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timing = &self.common.config.timing;
        let streams = self.common.streams.next_deadline(timing);
        let downloads = self.downloads.values().filter_map(|download| download.wake);
        let pushes = self.pushes.next_deadline();
        let inspections = self.inspections.next_deadline(timing);
        // The end of a ban matters to downloads only.
        let ban = self.common.blame.next_end().filter(|_| !self.downloads.is_empty());
        let own = downloads
            .chain(pushes)
            .chain(inspections)
            .chain(self.uploads.next_deadline(&self.common))
            .chain(ban);
        streams.into_iter().chain(own).map(Some).fold(None, earliest)
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

    /// Answers a [`TransferEvent::InspectAsked`], with one entry for each piece in the order of the question.
    ///
    /// # Panics
    /// When there are more than [`INSPECT_KEYS_MAX`](crate::wire::inspect::INSPECT_KEYS_MAX) entries.
    pub fn inspected(&mut self, now: Instant, stream: StreamId, question: u32, entries: &[InspectEntry]) {
        replicas::possession::answer(stream, question, entries, &mut self.common);
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

    /// Ends an inspection without an event.
    pub fn forget_inspection(&mut self, inspection: InspectId) {
        self.inspections.forget(inspection);
    }
}

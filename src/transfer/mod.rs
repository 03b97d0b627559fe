//! The transfer machine: streams between nodes, and the pieces that go over them.
//!
//! It moves no content itself. It says which part of which file goes to which stream ([`StreamOutput::SendFile`])
//! and where the content that arrives goes ([`StreamOutput::Sink`]), and hears what arrived and what it hashed to. Only
//! what is small and has to be looked into, manifests and files of one chunk, is collected in memory.
//!
//! One stream to a peer serves both directions and every purpose. Both ends may ask for pieces, ask which pieces the
//! other has, and offer pieces, all at once; each request, question and offer has a number and gets one answer.
//!
//! - `streams`: how streams come and go; `handshake`: the proof of identity; `close`: why a stream is closed.
//! - `session`: one stream: what each end has asked of the other, and how long it is waited for.
//! - `chunks`, `download`: one download as data: pieces and sources.
//! - `fetch`: downloads: whom to connect to, what to ask of whom.
//! - `receive`: what came: answers, content, whether it is what it should be.
//! - `swarm`: what nodes that fetch the same file tell each other.
//! - `serve`: what others ask for; `slots`: whom it is sent to first.
//! - `push`: copies to other nodes; `arrivals`: copies from them.
//! - `inspect`: how safe pieces are, asked and answered.
//! - `blame`: which peers sent content that does not verify, and until when they are not asked.
//! - `reports`: telling a peer that a piece of it does not verify, and hearing that of pieces of this node.
//!
//! # Order
//! After each input, poll outputs and events until both are empty. Outputs are carried out in their order. After a
//! [`StreamOutput::Sink`] the driver gives that stream's next raw bytes to the sink until it is full, tells
//! [`Transfer::handle_sunk`], and goes on with [`Transfer::handle_bytes`]. After a turn that took long, what has arrived
//! is handed in before [`Transfer::handle_timeout`] is called, or peers are blamed for this node's own silence.

mod arrivals;
mod blame;
mod chunks;
mod close;
mod counters;
mod download;
mod events;
mod fetch;
mod handshake;
mod inspect;
mod push;
mod receive;
mod reports;
mod serve;
mod session;
mod slots;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;

pub use blame::Ban;
pub use counters::TransferCounters;
pub use events::{
    DialId, DownloadError, DownloadId, DownloadProgress, DownloadState, InspectError, InspectId, PushError,
    PushId, PushOutcome, Root, StreamOutput, TransferEvent, Verdict,
};
pub use inspect::INSPECTIONS_MAX;

use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::limits::Limits;
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::network::Network;
use blame::Blame;
use download::Download;
use inspect::Inspection;
use push::Push;
use session::Session;
use slots::Slots;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a [`Transfer`] is to keep to.
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// Every bound.
    pub limits: Limits,
    /// Whether this node is a leaf.
    pub leaf: bool,
    /// The port that this node listens on.
    pub port: u16,
    /// How long what is waited for.
    pub timing: Timing,
}

/// How long what is waited for.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For a connection. The driver keeps this one: [`StreamOutput::Connect`] says until when.
    pub dial: Duration,
    /// For the other end to prove who it is.
    pub handshake: Duration,
    /// For a piece that was asked for and makes no progress.
    pub stall: Duration,
    /// For anything at all on a stream, before it is closed.
    pub idle: Duration,
    /// For the answer to an offer, for the content of an accepted one, for the word that it is durable.
    pub answer: Duration,
    /// For a stream to the target of a copy.
    pub push: Duration,
    /// For a piece that makes no progress, before it is asked of another source that has nothing else to do.
    pub patience: Duration,
    /// Between two rounds of questions to a source that has nothing to take. Doubles while nothing is new.
    pub ask_again: Duration,
    /// The longest such wait.
    pub ask_again_max: Duration,
    /// For a piece that a peer wants and nobody has time to send, before the peer is told so.
    pub choke: Duration,
    /// After a busy source said so.
    pub pause: Duration,
    /// Before a source is dialled a second time.
    pub retry_first: Duration,
    /// Before a source is dialled a third time.
    pub retry_second: Duration,
    /// Before a source that was given up may be tried again, when it is named again.
    pub forgive: Duration,
    /// Between two calls for more sources for one download.
    pub needed: Duration,
    /// For a source that has not been reached, before others are looked for.
    pub hope: Duration,
    /// How long a peer is not asked for a file of which it sent wrong content, the first time. Doubles with each offence.
    pub ban_first: Duration,
    /// The longest such ban.
    pub ban_max: Duration,
    /// How long offences are remembered after a ban, and within how long those for several files are counted together.
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
    /// The configuration with the usual timing.
    pub fn new(limits: Limits, leaf: bool, port: u16) -> Self {
        TransferConfig { limits, leaf, port, timing: Timing::default() }
    }
}

/// The transfer machine of one node.
pub struct Transfer {
    config: TransferConfig,
    network: Network,
    /// Who this node is, once a stream has told.
    own: Option<NodeId>,
    rng: Rng,
    streams: BTreeMap<StreamId, Session>,
    /// Proven streams by peer, the oldest first.
    peers: BTreeMap<NodeId, Vec<StreamId>>,
    /// Attempts to connect. The driver ends each of them in time.
    dials: BTreeMap<DialId, Contact>,
    next_dial: u64,
    downloads: BTreeMap<DownloadId, Download>,
    pushes: BTreeMap<PushId, Push>,
    inspections: BTreeMap<InspectId, Inspection>,
    blame: Blame,
    /// Downloads that something has changed for.
    changed: BTreeSet<DownloadId>,
    /// Something has changed for the pushes that wait for a stream.
    pushes_changed: bool,
    /// Something has changed for the inspections that wait for a stream.
    inspections_changed: bool,
    /// A dial found no room, and waits for a stream that can be closed.
    crowded: bool,
    slots: Slots,
    out: Out,
}

/// What waits to be taken, and what was counted.
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
    /// A machine without streams. `seed` is entropy, or a number in a simulation.
    pub fn new(config: TransferConfig, network: Network, seed: [u8; 32]) -> Transfer {
        let slots = Slots::with_rate(config.limits.rates.upload);
        let blame = Blame::new(config.limits.blamed_peers_max);
        Transfer {
            config,
            network,
            own: None,
            rng: Rng::new(seed),
            streams: BTreeMap::new(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            downloads: BTreeMap::new(),
            pushes: BTreeMap::new(),
            inspections: BTreeMap::new(),
            blame,
            changed: BTreeSet::new(),
            pushes_changed: false,
            inspections_changed: false,
            crowded: false,
            slots,
            out: Out::default(),
        }
    }

    /// Keeps to other limits from now on: those on streams, on who is sent content at a time, and on rates. Streams on which
    /// nothing is going on are closed when there are too many; others end by themselves.
    pub fn set_limits(&mut self, now: Instant, limits: &Limits) {
        self.config.limits.streams_max = limits.streams_max;
        self.config.limits.uploads_max = limits.uploads_max;
        self.config.limits.rates = limits.rates;
        self.slots.rate = limits.rates.upload;
        while self.is_over_full() && self.make_room(now) {}
        self.everything_changed();
        self.take_turns(now);
        self.settle(now);
    }

    /// How many streams are open, proven or not.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many downloads are under way.
    pub fn downloads(&self) -> usize {
        self.downloads.len()
    }

    /// How many copies to other nodes are under way or wait.
    pub fn pushes(&self) -> usize {
        self.pushes.len()
    }

    /// How many questions about copies wait for a stream or for their answer.
    pub fn inspections(&self) -> usize {
        self.inspections.len()
    }

    /// Bytes of content received, verified or not.
    pub fn downloaded_bytes(&self) -> u64 {
        self.out.downloaded
    }

    /// Bytes of content sent.
    pub fn uploaded_bytes(&self) -> u64 {
        self.out.uploaded
    }

    /// What was counted.
    pub fn counters(&self) -> &TransferCounters {
        &self.out.counters
    }

    /// Whether a peer is not asked for a file, because it sent wrong content of it, or of several files.
    pub fn is_banned(&self, now: Instant, peer: &NodeId, file: &Key) -> bool {
        self.blame.is_banned(now, peer, file)
    }

    /// Whether a peer sent wrong content of several files and is neither connected to nor listened to for a while.
    pub fn is_shunned(&self, now: Instant, peer: &NodeId) -> bool {
        self.blame.is_shunned(now, peer)
    }

    /// The peers that are not asked for a file, or not for anything, in the order of their ids.
    pub fn bans(&self, now: Instant) -> Vec<Ban> {
        self.blame.bans(now).collect()
    }

    /// The peers that sent wrong content of a download's file and are not asked for it now.
    pub fn download_banned(&self, download: DownloadId) -> Vec<NodeId> {
        let Some(download) = self.downloads.get(&download) else { return Vec::new() };
        download.sources.values().filter(|source| source.banned).map(|source| source.contact.id).collect()
    }

    /// How a download's sources are doing; `None` when there is no such download (any more).
    pub fn download_state(&self, download: DownloadId) -> Option<DownloadState> {
        let download = self.downloads.get(&download)?;
        Some(download.state(|id| self.peers.contains_key(id)))
    }

    /// How far a download has come; `None` when there is no such download (any more).
    pub fn download_progress(&self, download: DownloadId) -> Option<DownloadProgress> {
        self.downloads.get(&download).map(Download::progress)
    }

    /// Up to `max` pieces that a download misses: chunks, or the file's hash while its root is missing.
    pub fn download_missing(&self, download: DownloadId, max: usize) -> Vec<Key> {
        match self.downloads.get(&download) {
            Some(download) => match download.chunks() {
                Some(chunks) => chunks.missing_keys().take(max).collect(),
                None => vec![download.hash],
            },
            None => Vec::new(),
        }
    }

    /// Whether a chunk of a download is in its place and verified.
    pub fn download_has(&self, download: DownloadId, index: u32) -> bool {
        let chunks = self.downloads.get(&download).and_then(Download::chunks);
        chunks.is_some_and(|chunks| index < chunks.count() && !chunks.is_missing(index))
    }

    /// When [`handle_timeout`](Transfer::handle_timeout) is due; `None` when nothing is waited for.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timing = &self.config.timing;
        let streams = self.streams.values().map(|session| session.deadline(timing).0);
        let downloads = self.downloads.values().filter_map(|download| download.wake);
        let pushes = self.pushes.values().filter_map(Push::deadline);
        let inspections = self.inspections.values().map(|inspection| inspection.deadline(timing));
        let room = self.streams.values().filter(|session| self.crowded && session.is_displaceable());
        let room = room.map(|session| session.last_active + streams::UNUSED);
        // The end of a ban gives only downloads something to do.
        let ban = self.blame.next_end().filter(|_| !self.downloads.is_empty());
        let own = downloads.chain(pushes).chain(inspections).chain(self.next_turn()).chain(ban);
        streams.chain(room).chain(own).map(Some).fold(None, earliest)
    }
}

/// Outputs.
impl Transfer {
    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<StreamOutput> {
        self.out.outputs.pop_front()
    }

    /// The next thing for the node to know.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.out.events.pop_front()
    }
}

//! A world of machines: bytes move between them in parts of any size, files are in a map, sinks compute real hashes.

use crate::id::Key;
use crate::identity::Identity;
use crate::io::Mode;
use crate::io::{DiskError, DiskErrorKind, Extent, Place, Run, Sink, StreamId};
use crate::limits::Limits;
use crate::manifest::{Content, Manifest, ManifestBuilder};
use crate::time::{Duration, Instant};
use crate::transfer::*;
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::{Held, InspectEntry};
use crate::wire::network::Network;
use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Maps each end of each stream to the other end.
    links: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    /// Bytes that one end has sent and the other has not taken.
    wires: BTreeMap<(usize, StreamId), Vec<u8>>,
    next_stream: u64,
    /// The most bytes that move at a time; 0 is any number.
    pub(super) step: usize,
}

pub(super) struct Node {
    pub(super) transfer: Transfer,
    pub(super) identity: Identity,
    pub(super) contact: Contact,
    pub(super) files: HashMap<Place, Vec<u8>>,
    pub(super) pieces: BTreeMap<Key, (Content, Extent)>,
    pub(super) events: Vec<TransferEvent>,
    /// Its answer to every offer, and the number of offers.
    pub(super) verdict: Verdict,
    pub(super) offered: u32,
    /// Whether it has room for what it accepted.
    pub(super) has_room: bool,
    pub(super) reachable: bool,
    /// Whether everything that it sends is lost.
    pub(super) mute: bool,
    /// The number of further blocks of content before it falls mute.
    pub(super) blocks_before_mute: Option<u32>,
    /// Whether one bit of what it sends from files is flipped.
    pub(super) corrupt: bool,
    pub(super) unreadable: bool,
    pub(super) disk_full: bool,
    /// Whether its disk does not answer when parts of a piece are to be read.
    pub(super) reads_nothing: bool,
    /// Whether it keeps the copies that it acknowledges.
    pub(super) keeps: bool,
    /// The error that the next full sink returns instead of its hash.
    pub(super) sink_error: Option<DiskError>,
    pub(super) blocks_sent: u32,
    manifests: BTreeMap<DownloadId, Arc<Manifest>>,
    sinks: HashMap<StreamId, (Sink, Vec<u8>)>,
    inboxes: HashMap<StreamId, Vec<u8>>,
}

/// The pieces of a node of this world, and its answer to every offer.
struct Shelf<'a> {
    pieces: &'a BTreeMap<Key, (Content, Extent)>,
    verdict: Verdict,
    has_room: bool,
    offered: &'a mut u32,
}

impl Pieces for Shelf<'_> {
    fn locate(&mut self, key: &Key) -> Result<Located, Refusal> {
        let (content, extent) = self.pieces.get(key).cloned().ok_or(Refusal::NotFound)?;
        let mode = if content == Content::Chunk { Mode::UNKNOWN } else { Mode::of(0o755) };
        Ok(Located { content, mode, bytes: Bytes::File(extent) })
    }

    fn has(&self, key: &Key) -> bool {
        self.pieces.contains_key(key)
    }

    fn admit(&mut self, _: StreamId, _: u32, _: &Offer, _: &Contact) -> Option<Verdict> {
        *self.offered += 1;
        Some(self.verdict)
    }

    fn make_room(&mut self, _: u64) -> bool {
        self.has_room
    }

    fn kept(&self, key: &Key) -> Option<Extent> {
        self.pieces.get(key).map(|(_, extent)| extent.clone())
    }

    fn inspect(&mut self, _: StreamId, _: u32, keys: &[Key]) -> Option<Vec<InspectEntry>> {
        let held = |key| if self.pieces.contains_key(key) { Held::Shared } else { Held::Nothing };
        Some(keys.iter().map(|key| InspectEntry { held: held(key), ..InspectEntry::default() }).collect())
    }
}

pub(super) fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

pub(super) fn manifest(bytes: &[u8]) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
    builder.update(bytes);
    Arc::new(builder.finish().unwrap())
}

pub(super) fn target() -> Place {
    Place::Partial(Path::new("/target").into())
}

pub(super) fn disk_error(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, message: "disk".into() }
}

impl World {
    pub(super) fn new(count: usize) -> World {
        World::with(count, Limits::default())
    }

    pub(super) fn with(count: usize, limits: Limits) -> World {
        let node = |index: usize| {
            let seed = [index as u8 + 1; 32];
            let identity = Identity::from_secret(&seed);
            let addr = SocketAddr::from(([10, 0, 0, index as u8 + 1], 3583));
            let config = TransferConfig::new(limits.clone(), false, 3583);
            Node {
                transfer: Transfer::new(config, Network::new("test"), seed),
                contact: Contact::new(identity.public(), addr),
                identity,
                files: HashMap::new(),
                pieces: BTreeMap::new(),
                events: Vec::new(),
                verdict: Verdict::Send { incoming: 1 },
                offered: 0,
                has_room: true,
                reachable: true,
                mute: false,
                blocks_before_mute: None,
                corrupt: false,
                unreadable: false,
                disk_full: false,
                reads_nothing: false,
                keeps: true,
                sink_error: None,
                blocks_sent: 0,
                manifests: BTreeMap::new(),
                sinks: HashMap::new(),
                inboxes: HashMap::new(),
            }
        };
        World {
            now: Instant::from_secs(100),
            nodes: (0..count).map(node).collect(),
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            next_stream: 0,
            step: 0,
        }
    }

    pub(super) fn contacts(&self, nodes: &[usize]) -> Vec<Contact> {
        nodes.iter().map(|&node| self.nodes[node].contact).collect()
    }

    pub(super) fn fetch(&mut self, node: usize, download: u64, hash: Key, sources: &[usize]) {
        let sources = self.contacts(sources);
        assert!(self.nodes[node].transfer.fetch(self.now, DownloadId(download), hash, &sources));
    }

    /// Moves bytes and events until none is left, without advancing the time.
    pub(super) fn settle(&mut self) {
        while self.turn() {}
    }

    /// Advances the time from deadline to deadline until `done` holds. False when no deadline is left, or after `seconds`.
    pub(super) fn run(&mut self, seconds: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let next = self.nodes.iter().filter_map(|node| node.transfer.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { return false };
            assert!(next > self.now, "a deadline that fired is armed again");
            self.now = next;
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| node.transfer.handle_timeout(now));
        }
    }

    /// Advances the time by `moment`. Each node sends at most the rate of its uplink, in bytes per second, shared by
    /// its streams.
    pub(super) fn tick(&mut self, moment: Duration, uplinks: &[u64]) {
        self.now = self.now + moment;
        let now = self.now;
        for node in &mut self.nodes {
            if node.transfer.next_deadline().is_some_and(|at| at <= now) {
                node.transfer.handle_timeout(now);
                assert!(node.transfer.next_deadline().is_none_or(|at| at > now), "a deadline that stays");
            }
        }
        let share = |uplink: &u64| (u128::from(*uplink) * moment.as_micros() / 1_000_000) as usize;
        let mut budgets: Vec<usize> = uplinks.iter().map(share).collect();
        loop {
            self.react_all();
            let mut moved = false;
            let ends: Vec<_> = self.wires.keys().copied().collect();
            for end in ends {
                let most = budgets[end.0].min(64 << 10);
                let before = self.wires.get(&end).map_or(0, Vec::len);
                if most > 0 && before > 0 && self.deliver_some(end, most) {
                    budgets[end.0] -= most.min(before);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    pub(super) fn has_event(&self, node: usize, test: impl Fn(&TransferEvent) -> bool) -> bool {
        self.nodes[node].events.iter().any(test)
    }

    pub(super) fn is_complete(&self, node: usize, id: u64) -> bool {
        self.has_event(
            node,
            |event| matches!(event, TransferEvent::Complete { download, .. } if download.0 == id),
        )
    }

    pub(super) fn counters(&self, node: usize) -> &TransferCounters {
        self.nodes[node].transfer.counters()
    }

    /// Removes a node: its streams break, and it accepts none.
    pub(super) fn vanish(&mut self, node: usize) {
        self.nodes[node].reachable = false;
        let ends: Vec<_> = self.links.keys().filter(|(owner, _)| *owner == node).copied().collect();
        for end in ends {
            self.close(end);
            let now = self.now;
            self.nodes[node].transfer.handle_closed(now, end.1);
        }
    }

    pub(super) fn turn(&mut self) -> bool {
        let mut moved = self.react_all();
        let ends: Vec<_> = self.wires.keys().copied().collect();
        for end in ends {
            moved |= self.deliver(end);
        }
        moved
    }

    fn react_all(&mut self) -> bool {
        let mut moved = false;
        for node in 0..self.nodes.len() {
            while let Some(output) = self.nodes[node].transfer.poll_output() {
                self.perform(node, output);
                moved = true;
            }
            if self.nodes[node].transfer.has_lookups() {
                let now = self.now;
                self.nodes[node].at_the_shelf(|transfer, _, shelf| transfer.look_up(now, shelf));
                moved = true;
            }
            while let Some(event) = self.nodes[node].transfer.poll_event() {
                let now = self.now;
                self.nodes[node].react(now, event);
                moved = true;
            }
        }
        moved
    }

    fn perform(&mut self, node: usize, output: StreamOutput) {
        let now = self.now;
        match output {
            StreamOutput::Connect { dial, contact, .. } => self.connect(node, dial, contact),
            StreamOutput::Write { stream, bytes } => self.send(node, stream, &bytes),
            StreamOutput::SendFile { stream, extent } => {
                let this = &mut self.nodes[node];
                if this.unreadable {
                    this.transfer.handle_send_failed(now, stream, &disk_error(DiskErrorKind::Changed));
                    return;
                }
                let from = extent.offset as usize;
                let mut bytes = this.files[&extent.place][from..from + extent.length as usize].to_vec();
                if this.corrupt {
                    bytes[extent.length as usize / 2] ^= 4;
                }
                this.blocks_sent += 1;
                if let Some(rest) = &mut this.blocks_before_mute {
                    match rest.checked_sub(1) {
                        Some(less) => *rest = less,
                        None => {
                            bytes.truncate(bytes.len() / 2);
                            self.send(node, stream, &bytes);
                            self.nodes[node].mute = true;
                            self.nodes[node].blocks_before_mute = None;
                            return self.flush(node, stream);
                        }
                    }
                }
                self.send(node, stream, &bytes);
            }
            StreamOutput::Sink { stream, sink } => {
                let replaced = self.nodes[node].sinks.insert(stream, (sink.clone(), Vec::new()));
                assert!(replaced.is_none(), "two sinks on one stream");
                let same = self.nodes[node].sinks.values().filter(|(other, _)| {
                    other.place == sink.place && other.offset == sink.offset && sink.place == target()
                });
                assert_eq!(same.count(), 1, "two sinks in one place");
            }
            StreamOutput::Close { stream } => self.close((node, stream)),
        }
    }

    /// Delivers what a node sent before it fell mute.
    fn flush(&mut self, node: usize, stream: StreamId) {
        self.nodes[node].mute = false;
        while self.deliver((node, stream)) {}
        self.nodes[node].mute = true;
    }

    fn connect(&mut self, node: usize, dial: DialId, contact: Contact) {
        let now = self.now;
        let found = self.nodes.iter().position(|other| other.contact.addr == contact.addr && other.reachable);
        let Some(other) = found else { return self.nodes[node].transfer.handle_dial_failed(now, dial) };
        self.next_stream += 2;
        let (ours, theirs) = (StreamId(self.next_stream), StreamId(self.next_stream + 1));
        self.links.insert((node, ours), (other, theirs));
        self.links.insert((other, theirs), (node, ours));
        self.wires.insert((node, ours), Vec::new());
        self.wires.insert((other, theirs), Vec::new());
        let this = &mut self.nodes[node];
        this.transfer.handle_connected(now, dial, ours, &this.identity);
        let remote = SocketAddr::new(this.contact.addr.ip(), 40_000);
        let that = &mut self.nodes[other];
        that.transfer.handle_accepted(now, theirs, remote, &that.identity);
    }

    fn send(&mut self, node: usize, stream: StreamId, bytes: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&(node, stream)) {
            wire.extend_from_slice(bytes);
        }
    }

    /// Moves bytes from one end of a stream to the other.
    fn deliver(&mut self, end: (usize, StreamId)) -> bool {
        self.deliver_some(end, if self.step == 0 { usize::MAX } else { self.step })
    }

    fn deliver_some(&mut self, end: (usize, StreamId), most: usize) -> bool {
        let now = self.now;
        let (node, stream) = end;
        let (Some(&(other, theirs)), Some(wire)) = (self.links.get(&end), self.wires.get_mut(&end)) else {
            return false;
        };
        if wire.is_empty() || self.nodes[node].mute {
            return false;
        }
        let most = most.min(wire.len());
        let moved: Vec<u8> = wire.drain(..most).collect();
        let drained = wire.is_empty();
        if drained {
            self.nodes[node].at_the_shelf(|transfer, _, shelf| transfer.handle_drained(now, stream, shelf));
        } else {
            self.nodes[node].transfer.handle_sent(now, stream, moved.len() as u64);
        }
        self.nodes[other].receive(now, theirs, &moved);
        true
    }

    fn close(&mut self, end: (usize, StreamId)) {
        let now = self.now;
        self.wires.remove(&end);
        self.nodes[end.0].forget(end.1);
        if let Some(other) = self.links.remove(&end) {
            while self.wires.get(&other).is_some_and(|wire| !wire.is_empty()) && self.deliver(other) {}
            self.links.remove(&other);
            self.wires.remove(&other);
            self.nodes[other.0].forget(other.1);
            self.nodes[other.0].transfer.handle_closed(now, other.1);
        }
    }
}

impl Node {
    /// Serves a file where it lies; returns its manifest.
    pub(super) fn share(&mut self, bytes: &[u8]) -> Arc<Manifest> {
        let manifest = manifest(bytes);
        let place = Place::File(Path::new(&format!("/{}", manifest.hash())).into());
        self.files.insert(place.clone(), bytes.to_vec());
        (0..manifest.chunk_count()).for_each(|index| self.share_chunk(&manifest, index, place.clone()));
        self.share_manifest(&manifest);
        manifest
    }

    pub(super) fn share_manifest(&mut self, manifest: &Manifest) {
        if !manifest.is_single() {
            let place = Place::ShareManifest(manifest.hash());
            let encoded = manifest.encode();
            let extent =
                Extent { place: place.clone(), offset: 0, length: encoded.len() as u32, stamp: None };
            self.files.insert(place, encoded);
            self.pieces.insert(manifest.hash(), (Content::Manifest, extent));
        }
    }

    pub(super) fn share_chunk(&mut self, manifest: &Manifest, index: u32, place: Place) {
        let content = if manifest.is_single() { Content::File } else { Content::Chunk };
        let (offset, length) = (manifest.chunk_offset(index), manifest.chunk_length(index));
        let extent = Extent { place, offset, length, stamp: None };
        self.pieces.insert(manifest.keys()[index as usize], (content, extent));
    }

    fn at_the_shelf<T>(&mut self, input: impl FnOnce(&mut Transfer, &Identity, &mut Shelf<'_>) -> T) -> T {
        let Node { pieces, verdict, has_room, offered, transfer, identity, .. } = self;
        input(transfer, identity, &mut Shelf { pieces, verdict: *verdict, has_room: *has_room, offered })
    }

    fn forget(&mut self, stream: StreamId) {
        self.sinks.remove(&stream);
        self.inboxes.remove(&stream);
    }

    fn receive(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        let mut inbox = self.inboxes.remove(&stream).unwrap_or_default();
        inbox.extend_from_slice(bytes);
        let mut at = 0;
        while at < inbox.len() {
            // A sink takes the bytes that follow it.
            let sink = self.take_sink(stream);
            let used = match sink {
                Some((sink, mut collected)) => {
                    let used = (sink.length as usize - collected.len()).min(inbox.len() - at);
                    collected.extend_from_slice(&inbox[at..at + used]);
                    self.transfer.handle_progress(now, stream, used as u64);
                    self.fill(now, stream, sink, collected);
                    used
                }
                None => {
                    let rest = &inbox[at..];
                    self.at_the_shelf(|transfer, identity, shelf| {
                        transfer.handle_bytes(now, stream, rest, identity, shelf)
                    })
                }
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        inbox.drain(..at);
        self.inboxes.insert(stream, inbox);
    }

    fn take_sink(&mut self, stream: StreamId) -> Option<(Sink, Vec<u8>)> {
        // The world carries the other outputs out, in their order.
        let mut others = Vec::new();
        while let Some(output) = self.transfer.poll_output() {
            match output {
                StreamOutput::Sink { stream, sink } => {
                    let replaced = self.sinks.insert(stream, (sink, Vec::new()));
                    assert!(replaced.is_none(), "two sinks on one stream");
                }
                other => others.push(other),
            }
        }
        self.transfer.common.out.outputs.extend(others);
        self.sinks.remove(&stream)
    }

    fn fill(&mut self, now: Instant, stream: StreamId, sink: Sink, collected: Vec<u8>) {
        if self.disk_full {
            let error = disk_error(DiskErrorKind::NoSpace);
            return self.transfer.handle_sunk(now, stream, Err(error));
        }
        if collected.len() < sink.length as usize {
            self.sinks.insert(stream, (sink, collected));
            return;
        }
        if let Some(error) = self.sink_error.take() {
            return self.transfer.handle_sunk(now, stream, Err(error));
        }
        let mut hasher = sink.hash_as.hasher();
        hasher.update(&collected);
        let file = self.files.entry(sink.place).or_default();
        let (from, to) = (sink.offset as usize, sink.offset as usize + collected.len());
        file.resize(file.len().max(to), 0);
        file[from..to].copy_from_slice(&collected);
        self.transfer.handle_sunk(now, stream, Ok(sink.hash_as.key(&hasher)));
    }

    /// The node's reaction to an event.
    fn react(&mut self, now: Instant, event: TransferEvent) {
        match &event {
            TransferEvent::Arrived { stream, request, offer, incoming, bytes } => {
                let place = Place::Incoming(*incoming);
                if let Some(bytes) = bytes {
                    self.files.insert(place.clone(), bytes.clone());
                }
                if self.keeps {
                    let extent = Extent { place, offset: 0, length: offer.length, stamp: None };
                    self.pieces.insert(offer.key, (offer.content, extent));
                }
                self.transfer.stored(now, *stream, *request, Ok(()));
            }
            TransferEvent::SampleNeeded { .. } if self.reads_nothing => {}
            TransferEvent::SampleNeeded { sample, extent, runs } => {
                let read = |run: &Run| {
                    let from = extent.offset as usize + run.offset as usize;
                    self.files[&extent.place].get(from..from + run.length as usize)
                };
                let read: Option<Vec<&[u8]>> = runs.iter().map(read).collect();
                let result = read.filter(|_| !self.unreadable).map(|parts| parts.concat());
                let result = result.ok_or_else(|| disk_error(DiskErrorKind::Failed));
                self.transfer.sampled(now, *sample, result);
            }
            TransferEvent::Root { download, root: Root::Manifest(manifest, _), .. } => {
                let have = vec![false; manifest.chunk_count() as usize];
                self.share_manifest(manifest);
                self.manifests.insert(*download, manifest.clone());
                assert!(self.transfer.begin(now, *download, manifest.clone(), target(), have));
            }
            TransferEvent::ChunkDone { download, index } => {
                if let Some(manifest) = self.manifests.get(download).cloned() {
                    self.share_chunk(&manifest, *index, target());
                }
            }
            _ => {}
        }
        self.events.push(event);
    }
}

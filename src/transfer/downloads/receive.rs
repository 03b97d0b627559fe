//! Content and refusals from peers, and the verification of content.

use super::download::{Download, Phase};
use super::endgame::may_be_overtaken;
use super::requests::{cancel_owner, withdraw};
use super::sources::RootState;
use super::swarm;
use super::table::Downloads;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, Mode, StreamId};
use crate::manifest::{Content, Manifest};
use crate::time::Instant;
use crate::transfer::common::Common;
use crate::transfer::events::{DownloadId, Root, TransferEvent};
use crate::transfer::reports;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Part, Purpose, Receiving, Request};
use crate::wire::contact::Contact;
use crate::wire::frame::Refusal;
use std::sync::Arc;

/// The piece that a peer announces in answer to a request.
#[derive(Clone, Copy)]
pub(in crate::transfer) struct Announced {
    /// The number of the request.
    pub(in crate::transfer) request: u32,
    pub(in crate::transfer) content: Content,
    pub(in crate::transfer) length: u32,
    pub(in crate::transfer) mode: Mode,
}

/// Frames from peers.
impl Downloads {
    /// A peer refuses a request.
    pub(in crate::transfer) fn on_refuse(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        reason: Refusal,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        let busy_with = match session.receiving {
            Receiving::Memory { purpose, .. } | Receiving::Sink { purpose, .. } => Some(purpose),
            _ => None,
        };
        debug_assert_ne!(busy_with, Some(Purpose::Request(number)), "content has no frames in it");
        let (Some(request), Some(peer)) = (session.requests.remove(&number), session.peer_id()) else {
            return Err(CloseReason::Unexpected);
        };
        session.request_answered(now);
        self.note_change();
        if request.cancelled {
            return Ok(());
        }
        match reason {
            Refusal::Busy => common.out.counters.source_busy += 1,
            _ => common.out.counters.source_refused += 1,
        }
        let timing = &common.config.timing;
        let Some(download) = self.under_way.get_mut(&request.download) else { return Ok(()) };
        if let (Part::Chunk(index), Phase::Chunks(chunks)) = (request.part, &mut download.phase) {
            chunks.release(index, stream, number);
            if reason != Refusal::Busy {
                download.note_holding(&peer, index, false);
                if let Some(source) = download.sources.get_mut(&peer) {
                    source.denied += 1;
                }
            }
        }
        let Some(source) = download.sources.get_mut(&peer) else { return Ok(()) };
        match (request.part, reason) {
            (Part::Root, Refusal::Busy) => source.root = RootState::Unasked,
            (Part::Root, _) => source.root_not_found(now, timing),
            (Part::Chunk(_), _) => {}
        }
        if reason == Refusal::Busy {
            source.pause = now + timing.pause;
        }
        Ok(())
    }

    /// A requested piece begins to arrive.
    pub(in crate::transfer) fn on_block(
        &mut self,
        now: Instant,
        stream: StreamId,
        block: Announced,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        session.request_answered(now);
        let Announced { request: number, content, length, mode } = block;
        let request = session.requests.get(&number).copied().ok_or(CloseReason::Unexpected)?;
        let is_wanted = self.under_way.contains_key(&request.download) && !request.cancelled;
        match request.part {
            _ if !is_wanted => self.discard(now, stream, &block, common),
            Part::Root if content == Content::Chunk => return Err(CloseReason::Unexpected),
            Part::Root if length == 0 => {
                self.root_collected(now, stream, number, (content, mode), Vec::new(), common)
            }
            Part::Root => {
                let (purpose, bytes) = (Purpose::Request(number), Vec::new());
                session.receiving = Receiving::Memory { purpose, content, mode, rest: length, bytes };
            }
            Part::Chunk(index) => {
                return self.on_chunk(now, stream, (request.download, index), &block, common);
            }
        }
        Ok(())
    }

    /// The content of a chunk begins to arrive. Two streams never write to the same place. If another stream is writing this chunk
    /// and makes progress, this content is discarded; if the other makes none, it is closed.
    fn on_chunk(
        &mut self,
        now: Instant,
        stream: StreamId,
        (id, index): (DownloadId, u32),
        block: &Announced,
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let number = block.request;
        let chunks = self.under_way.get_mut(&id).and_then(Download::chunks_mut);
        let Some(chunks) = chunks.filter(|chunks| chunks.is_missing(index)) else {
            self.discard(now, stream, block, common);
            return Ok(());
        };
        if block.content != chunks.content() || block.length != chunks.manifest.chunk_length(index) {
            return Err(CloseReason::Unexpected);
        }
        let others: Vec<_> = chunks.owners(index).iter().copied().filter(|o| o.stream != stream).collect();
        if let Some(other) = others.iter().find(|owner| owner.receiving) {
            if !may_be_overtaken(now, other, stream, common) {
                chunks.release(index, stream, number);
                self.discard(now, stream, block, common);
                return Ok(());
            }
            common.close(other.stream, CloseReason::Overtaken);
        }
        for other in others {
            if !other.receiving {
                cancel_owner(&other, common);
            }
            chunks.release(index, other.stream, other.request);
        }
        chunks.owners(index).iter_mut().for_each(|owner| owner.receiving = true);
        let sink = chunks.sink(index);
        if block.length == 0 {
            // A file of no bytes: there is nothing to write.
            let key = sink.hash_as.key(&sink.hash_as.hasher());
            self.sunk(now, stream, number, Ok(key), common);
        } else {
            common.start_sink(now, stream, Purpose::Request(number), sink);
        }
        Ok(())
    }

    /// Content that is not needed begins to arrive.
    fn discard(&mut self, now: Instant, stream: StreamId, block: &Announced, common: &mut Common) {
        let Some(session) = common.streams.heard_on(stream) else { return };
        session.requests.remove(&block.request);
        common.out.counters.block_unneeded += 1;
        if block.length > 0 {
            session.receiving = Receiving::Discard { rest: block.length };
        }
        session.last_active = now;
        self.note_change();
    }
}

/// Content that has arrived.
impl Downloads {
    /// The root of a file has been collected in memory.
    pub(in crate::transfer) fn root_collected(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        (content, mode): (Content, Mode),
        bytes: Vec<u8>,
        common: &mut Common,
    ) {
        let Some((request, contact)) = take_request(stream, number, common) else { return };
        self.note_change();
        let id = request.download;
        let Some(download) = self.under_way.get_mut(&id).filter(|_| !request.cancelled) else { return };
        if !matches!(download.phase, Phase::Root) {
            return;
        }
        let Some(root) = verified(&download.hash, content, bytes) else {
            let key = download.hash;
            return reports::source_bad(now, stream, contact, (key, key), common);
        };
        download.root_came(now, &contact);
        // The other sources of the root need not send it.
        withdraw(id, common);
        if let Root::File(_) = root {
            self.forget(id, common);
        }
        common.out.event(TransferEvent::Root { download: id, root, mode });
    }

    /// A chunk has been written to its place.
    pub(in crate::transfer) fn sunk(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        result: Result<Key, DiskError>,
        common: &mut Common,
    ) {
        let Some((request, contact)) = take_request(stream, number, common) else { return };
        self.note_change();
        let (id, Part::Chunk(index)) = (request.download, request.part) else {
            return debug_assert!(false, "a root is collected in memory");
        };
        let chunks = self.under_way.get_mut(&id).and_then(Download::chunks_mut);
        let key = match result {
            Ok(key) => key,
            // Another program may have changed the file while it was written. The content is doubtful, through no fault of the peer.
            Err(error) if error.kind == DiskErrorKind::Changed => {
                log::info!("{error}: the chunk is requested again");
                common.out.counters.chunk_doubtful += 1;
                return chunks.map_or((), |chunks| chunks.release(index, stream, number));
            }
            Err(error) => {
                // An unknown part of the content is still on the stream.
                common.close(stream, CloseReason::SinkFailed);
                return self.fail(id, error, common);
            }
        };
        let Some(chunks) = chunks else { return };
        chunks.release(index, stream, number);
        let file = chunks.manifest.hash();
        match chunks.key(index) {
            Some(expected) if expected != key => {
                return reports::source_bad(now, stream, contact, (file, expected), common);
            }
            Some(_) if !request.cancelled => {}
            _ => return,
        }
        for owner in chunks.done(index) {
            cancel_owner(&owner, common);
        }
        let Some(download) = self.under_way.get_mut(&id) else {
            return debug_assert!(false, "its chunk was entered just now");
        };
        download.chunk_came(now, &contact);
        if download.is_shared {
            swarm::tell_gained(&download.hash, index, common);
        }
        common.out.counters.chunk_received += 1;
        common.out.event(TransferEvent::ChunkDone { download: id, index });
    }
}

/// Takes a request out of the table: its content is here.
fn take_request(stream: StreamId, number: u32, common: &mut Common) -> Option<(Request, Contact)> {
    let session = common.streams.get_mut(&stream)?;
    Some((session.requests.remove(&number)?, session.peer?))
}

/// The root of a file, if this is its root.
fn verified(hash: &Key, content: Content, bytes: Vec<u8>) -> Option<Root> {
    match content {
        Content::Manifest => {
            let manifest = Manifest::decode(&bytes, hash).ok()?;
            Some(Root::Manifest(Arc::new(manifest), bytes))
        }
        Content::File => (blake3::hash(&bytes) == hash.0).then_some(Root::File(bytes)),
        Content::Chunk => None,
    }
}

impl Download {
    /// The root came from this source, and verifies: the node prepares the target.
    fn root_came(&mut self, now: Instant, from: &Contact) {
        self.contributors.insert(from.id);
        self.last_progress = now;
        self.phase = Phase::Prepare;
        self.sources.values_mut().for_each(|source| source.root = RootState::Unasked);
        if let Some(source) = self.sources.get_mut(&from.id) {
            source.failures = 0;
        }
    }

    /// A chunk came from this source, and verifies.
    fn chunk_came(&mut self, now: Instant, from: &Contact) {
        self.contributors.insert(from.id);
        self.last_progress = now;
        if let Some(source) = self.sources.get_mut(&from.id) {
            (source.failures, source.denied) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::requests::request_chunk;
    use super::super::testing::{ID, fetching, first_request, requests};
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::testing::{NOW, connected, peer, stream};
    use crate::transfer::{StreamOutput, Transfer};

    const FILE: Key = Key([1; 32]);

    /// A download whose root was requested from peer 1.
    fn asking_for_the_root() -> (Downloads, Common) {
        let Transfer { mut downloads, mut common, .. } = connected(1, Limits::default());
        assert!(downloads.fetch(NOW, ID, FILE, true, &mut common));
        assert!(downloads.add_source(NOW, ID, peer(1), None, &mut common));
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 1).len(), 1);
        (downloads, common)
    }

    /// The announcement of a whole chunk in answer to the first request over a peer's stream.
    fn chunk(downloads: &mut Downloads, common: &Common, seed: u8) -> Announced {
        let length = downloads.the_one().chunks().unwrap().manifest.chunk_length(0);
        let request = first_request(common, seed);
        Announced { request, content: Content::Chunk, length, mode: Mode::UNKNOWN }
    }

    fn sinks(common: &mut Common) -> Vec<StreamId> {
        let sink = |output| match output {
            StreamOutput::Sink { stream, .. } => Some(stream),
            _ => None,
        };
        common.outputs().into_iter().filter_map(sink).collect()
    }

    fn refuse(downloads: &mut Downloads, reason: Refusal, common: &mut Common) {
        let number = first_request(common, 1);
        assert_eq!(downloads.on_refuse(NOW, stream(1), number, reason, common), Ok(()));
    }

    #[test]
    fn a_busy_source_of_the_root_is_asked_again_after_a_pause() {
        let (mut downloads, mut common) = asking_for_the_root();
        refuse(&mut downloads, Refusal::Busy, &mut common);
        downloads.pump_all(NOW, &mut common);
        assert!(requests(&common, 1).is_empty());
        downloads.pump_all(NOW + common.config.timing.pause, &mut common);
        assert_eq!(requests(&common, 1).len(), 1);
    }

    #[test]
    fn a_source_without_the_root_is_asked_again_at_growing_intervals() {
        let (mut downloads, mut common) = asking_for_the_root();
        refuse(&mut downloads, Refusal::NotFound, &mut common);
        let first = NOW + common.config.timing.ask_again;
        assert_eq!(downloads.the_one().sources[&peer(1).id].root, RootState::NotFound { again: first });
        downloads.pump_all(first, &mut common);
        refuse(&mut downloads, Refusal::NotFound, &mut common);
        let second = NOW + common.config.timing.ask_again * 2;
        assert_eq!(downloads.the_one().sources[&peer(1).id].root, RootState::NotFound { again: second });
    }

    #[test]
    fn an_answer_to_no_request_is_a_violation() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let unknown = Announced { request: 999, ..chunk(&mut downloads, &common, 1) };
        let block = downloads.on_block(NOW, stream(1), unknown, &mut common);
        assert_eq!(block, Err(CloseReason::Unexpected));
        let refusal = downloads.on_refuse(NOW, stream(1), 999, Refusal::Busy, &mut common);
        assert_eq!(refusal, Err(CloseReason::Unexpected));
    }

    #[test]
    fn a_refused_chunk_is_requested_from_another_source() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        downloads.has_all(2);
        refuse(&mut downloads, Refusal::NotFound, &mut common);
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 1).len(), 1);
        assert_eq!(requests(&common, 2).len(), 1);
        assert_eq!(downloads.the_one().sources[&peer(1).id].denied, 1);
    }

    #[test]
    fn a_chunk_of_another_length_or_kind_is_a_violation() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let good = chunk(&mut downloads, &common, 1);
        let shorter = Announced { length: good.length - 1, ..good };
        assert_eq!(downloads.on_block(NOW, stream(1), shorter, &mut common), Err(CloseReason::Unexpected));
        let file = Announced { content: Content::File, ..good };
        assert_eq!(downloads.on_block(NOW, stream(1), file, &mut common), Err(CloseReason::Unexpected));
        assert_eq!(downloads.on_block(NOW, stream(1), good, &mut common), Ok(()));
        assert_eq!(sinks(&mut common), [stream(1)]);
    }

    #[test]
    fn the_content_of_a_cancelled_request_is_discarded() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let block = chunk(&mut downloads, &common, 1);
        downloads.abort(ID, &mut common);
        assert_eq!(downloads.on_block(NOW, stream(1), block, &mut common), Ok(()));
        assert_eq!(sinks(&mut common), []);
        let receiving = &common.streams.get(&stream(1)).unwrap().receiving;
        assert!(matches!(receiving, Receiving::Discard { rest } if *rest == block.length));
    }

    /// Peer 1 is sending the first chunk, and peer 2 begins to send it, too, `later`.
    fn second_sender(later: crate::time::Duration) -> Common {
        let (mut downloads, mut common) = fetching(2, &[1, 2]);
        for seed in 1..=2 {
            let chunks = downloads.the_one().chunks_mut().unwrap();
            request_chunk(NOW, ID, chunks, (0, stream(seed)), &mut common);
            let block = chunk(&mut downloads, &common, seed);
            let now = if seed == 1 { NOW } else { NOW + later };
            assert_eq!(downloads.on_block(now, stream(seed), block, &mut common), Ok(()));
        }
        common
    }

    #[test]
    fn a_chunk_that_another_stream_is_writing_is_discarded() {
        let mut common = second_sender(crate::time::Duration::ZERO);
        assert_eq!(sinks(&mut common), [stream(1)]);
        assert_eq!(common.out.counters.block_unneeded, 1);
    }

    #[test]
    fn a_stream_that_writes_a_chunk_without_progress_is_closed_for_one_that_sends_it_too() {
        let mut common = second_sender(crate::transfer::Timing::default().patience);
        assert_eq!(common.out.counters.stream_overtaken, 1);
        assert!(common.streams.get(&stream(1)).is_none());
        assert_eq!(sinks(&mut common), [stream(1), stream(2)]);
    }

    #[test]
    fn the_source_of_a_chunk_that_does_not_verify_is_banned_from_the_file() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let number = first_request(&common, 1);
        downloads.sunk(NOW, stream(1), number, Ok(Key([9; 32])), &mut common);
        let file = downloads.the_one().hash;
        assert!(common.blame.is_banned(NOW, &peer(1).id, &file));
        assert_eq!(common.out.counters.source_bad, 1);
        assert_eq!(downloads.have(ID), 0);
        assert_eq!(downloads.in_flight(ID), 1, "the other one is still to come");
    }

    #[test]
    fn a_chunk_whose_file_was_changed_meanwhile_is_requested_again_without_blame() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let error = DiskError { kind: DiskErrorKind::Changed, message: "changed".into() };
        downloads.sunk(NOW, stream(1), first_request(&common, 1), Err(error), &mut common);
        assert_eq!(common.out.counters.chunk_doubtful, 1);
        assert_eq!(common.unsettled.bans.len(), 0);
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 1).len(), 2);
    }

    #[test]
    fn a_full_disk_ends_the_download_together_with_the_stream_that_brings_it() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        common.events();
        let error = DiskError { kind: DiskErrorKind::NoSpace, message: "full".into() };
        downloads.sunk(NOW, stream(1), first_request(&common, 1), Err(error.clone()), &mut common);
        let error = crate::transfer::DownloadError::NoSpace(error);
        assert_eq!(common.events(), [TransferEvent::DownloadFailed { download: ID, error }]);
        assert!(downloads.is_empty());
        assert_eq!(common.out.counters.sink_failed, 1);
    }
}

//! Answers and content from peers, and the verification of content.

use super::download::{Download, Phase};
use super::sources::RootState;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, Mode, Sink, StreamId};
use crate::manifest::{Content, HashAs, Manifest};
use crate::time::Instant;
use crate::transfer::Transfer;
use crate::transfer::events::{DownloadError, DownloadId, Root, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Part, Purpose, Receiving, Request, answered_chunks};
use crate::wire::contact::Contact;
use crate::wire::frame::Refusal;
use std::sync::Arc;

/// Inputs from the driver about content.
impl Transfer {
    /// Content arrived on a stream and went into its sink.
    pub fn handle_progress(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.progress(now, bytes);
        if let Some(peer) = session.peer_id() {
            self.uploads.given(now, peer, bytes);
        }
        if let Some(download) = session.downloading().and_then(|id| self.downloads.get_mut(&id)) {
            download.last_progress = now;
        }
    }

    /// Content from a file left on a stream. This is no progress on what the other end owes.
    pub fn handle_sent(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        if let Some(session) = self.common.streams.get_mut(&stream) {
            session.sent(now, bytes);
            if let Some(peer) = session.peer_id() {
                self.uploads.taken(now, peer, bytes);
            }
        }
    }

    /// A sink is full, and its content has this hash; or writing failed.
    pub fn handle_sunk(&mut self, now: Instant, stream: StreamId, result: Result<Key, DiskError>) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some((purpose, length)) = session.end_sink(now) else { return };
        self.common.out.downloaded += u64::from(length);
        match purpose {
            Purpose::Request(number) => self.chunk_sunk(now, stream, number, result),
            Purpose::Arrival(number) => self.arrival_sunk(now, stream, number, result),
        }
        self.settle(now);
    }
}

impl Transfer {
    pub(in crate::transfer) fn on_have(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        bitmap: &[u8; 16],
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.answered(now);
        let (Some(question), Some(peer)) = (session.questions.remove(&question), session.peer_id()) else {
            return self.violated(now, stream);
        };
        if question.chunks.is_empty() {
            return;
        }
        let Some(answers) = answered_chunks(&question.chunks, bitmap) else {
            return self.violated(now, stream);
        };
        let Some(download) = self.downloads.get_mut(&question.download) else { return };
        for (index, has) in answers {
            if has {
                download.note_holding(&peer, index, true);
            }
        }
        if let Some(source) = download.sources.get_mut(&peer) {
            source.questions = source.questions.saturating_sub(1);
            if source.cursor.is_none() && source.questions == 0 {
                source.end_round(now, &self.common.config.timing);
            }
        }
        self.changed.extend(self.downloads.keys());
    }

    pub(in crate::transfer) fn on_refuse(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        reason: Refusal,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        if session.pushes.contains_key(&number) {
            let answered = self.pushes.on_refuse(now, stream, number, reason, &mut self.common);
            return self.conclude(now, stream, answered);
        }
        let busy_with = match session.receiving {
            Receiving::Memory { purpose, .. } | Receiving::Sink { purpose, .. } => Some(purpose),
            _ => None,
        };
        debug_assert_ne!(busy_with, Some(Purpose::Request(number)), "content has no frames in it");
        let (Some(request), Some(peer)) = (session.requests.remove(&number), session.peer_id()) else {
            return self.violated(now, stream);
        };
        session.request_answered(now);
        self.changed.extend(self.downloads.keys());
        if request.cancelled {
            return;
        }
        match reason {
            Refusal::Busy => self.common.out.counters.source_busy += 1,
            _ => self.common.out.counters.source_refused += 1,
        }
        let timing = &self.common.config.timing;
        let Some(download) = self.downloads.get_mut(&request.download) else { return };
        if let (Part::Chunk(index), Phase::Chunks(chunks)) = (request.part, &mut download.phase) {
            chunks.release(index, stream, number);
            if reason != Refusal::Busy {
                download.note_holding(&peer, index, false);
                if let Some(source) = download.sources.get_mut(&peer) {
                    source.denied += 1;
                }
            }
        }
        let Some(source) = download.sources.get_mut(&peer) else { return };
        match (request.part, reason) {
            (Part::Root, Refusal::Busy) => source.root = RootState::Unasked,
            (Part::Root, _) => source.root_not_found(now, timing),
            (Part::Chunk(_), _) => {}
        }
        if reason == Refusal::Busy {
            source.pause = now + timing.pause;
        }
    }

    pub(in crate::transfer) fn on_block(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        (content, length): (Content, u32),
        mode: Mode,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.request_answered(now);
        let Some(request) = session.requests.get(&number).copied() else {
            return self.violated(now, stream);
        };
        let wanted = self.downloads.get(&request.download).is_some_and(|_| !request.cancelled);
        match request.part {
            _ if !wanted => self.discard(now, stream, number, length),
            Part::Root if content == Content::Chunk => self.violated(now, stream),
            Part::Root => {
                let Some(session) = self.common.streams.get_mut(&stream) else { return };
                let purpose = Purpose::Request(number);
                let (rest, bytes) = (length, Vec::new());
                session.receiving = Receiving::Memory { purpose, content, mode, rest, bytes };
                if length == 0 {
                    self.piece_collected(now, stream);
                }
            }
            Part::Chunk(index) => self.on_chunk(now, stream, number, &request, index, (content, length)),
        }
    }

    /// The content of a chunk begins to arrive. Two streams never write to the same place. If another stream is writing this chunk
    /// and makes progress, this content is discarded; if the other makes none, it is closed.
    fn on_chunk(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        request: &Request,
        index: u32,
        (content, length): (Content, u32),
    ) {
        let chunks = self.downloads.get_mut(&request.download).and_then(Download::chunks_mut);
        let Some(chunks) = chunks.filter(|chunks| chunks.is_missing(index)) else {
            return self.discard(now, stream, number, length);
        };
        if content != chunks.content() || length != chunks.manifest.chunk_length(index) {
            return self.violated(now, stream);
        }
        let others: Vec<_> = chunks.owners(index).iter().copied().filter(|o| o.stream != stream).collect();
        if let Some(other) = others.iter().find(|owner| owner.receiving) {
            if !self.may_be_overtaken(now, other, stream) {
                if let Some(chunks) = self.downloads.get_mut(&request.download).and_then(Download::chunks_mut)
                {
                    chunks.release(index, stream, number);
                }
                return self.discard(now, stream, number, length);
            }
            self.drop_stream(now, other.stream, CloseReason::Overtaken);
        }
        for other in others.iter().filter(|owner| !owner.receiving) {
            self.cancel(other.stream, other.request);
        }
        let Some(download) = self.downloads.get_mut(&request.download) else { return };
        let Phase::Chunks(chunks) = &mut download.phase else { return };
        for other in others {
            chunks.release(index, other.stream, other.request);
        }
        chunks.owners(index).iter_mut().for_each(|owner| owner.receiving = true);
        let sink = chunks.sink(index);
        if length == 0 {
            // A file of no bytes: there is nothing to write.
            let key = sink.hash_as.key(&sink.hash_as.hasher());
            return self.chunk_sunk(now, stream, number, Ok(key));
        }
        self.start_sink(now, stream, Purpose::Request(number), sink);
    }

    pub(in crate::transfer) fn start_sink(
        &mut self,
        now: Instant,
        stream: StreamId,
        purpose: Purpose,
        sink: Sink,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.receiving = Receiving::Sink { purpose, length: sink.length, begun: now, received: 0 };
        self.common.out.outputs.push_back(crate::transfer::StreamOutput::Sink { stream, sink });
    }

    /// Content that is not needed begins to arrive.
    fn discard(&mut self, now: Instant, stream: StreamId, number: u32, length: u32) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.requests.remove(&number);
        self.common.out.counters.block_unneeded += 1;
        if length > 0 {
            session.receiving = Receiving::Discard { rest: length };
        }
        session.last_active = now;
        self.changed.extend(self.downloads.keys());
    }

    /// A piece that is collected in memory is complete.
    pub(in crate::transfer) fn piece_collected(&mut self, now: Instant, stream: StreamId) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.answered(now);
        let received = core::mem::replace(&mut session.receiving, Receiving::Frames);
        let Receiving::Memory { purpose, content, mode, bytes, .. } = received else { return };
        match purpose {
            Purpose::Request(number) => self.root_collected(now, stream, number, (content, mode), bytes),
            Purpose::Arrival(number) => self.arrival_collected(now, stream, number, bytes),
        }
    }

    fn root_collected(
        &mut self,
        now: Instant,
        stream: StreamId,
        number: u32,
        (content, mode): (Content, Mode),
        bytes: Vec<u8>,
    ) {
        let Some((request, contact)) = self.take_request(stream, number) else { return };
        let peer = contact.id;
        self.changed.extend(self.downloads.keys());
        let id = request.download;
        let Some(download) = self.downloads.get_mut(&id).filter(|_| !request.cancelled) else { return };
        if !matches!(download.phase, Phase::Root) {
            return;
        }
        let root = match content {
            Content::Manifest => Manifest::decode(&bytes, &download.hash)
                .ok()
                .map(|manifest| Root::Manifest(Arc::new(manifest), bytes)),
            Content::File => (blake3::hash(&bytes) == download.hash.0).then_some(Root::File(bytes)),
            Content::Chunk => None,
        };
        let Some(root) = root else {
            let key = download.hash;
            return self.source_bad(now, stream, contact, key, key);
        };
        download.contributors.insert(peer);
        download.last_progress = now;
        download.phase = Phase::Prepare;
        for source in download.sources.values_mut() {
            source.root = RootState::Unasked;
        }
        if let Some(source) = download.sources.get_mut(&peer) {
            source.failures = 0;
        }
        // The other sources of the root need not send it.
        self.withdraw(now, id);
        if let Root::File(_) = root {
            if let Some(download) = self.downloads.remove(&id) {
                self.unfollow(&download);
            }
        }
        self.common.out.event(TransferEvent::Root { download: id, root, mode });
    }

    fn chunk_sunk(&mut self, now: Instant, stream: StreamId, number: u32, result: Result<Key, DiskError>) {
        let Some((request, contact)) = self.take_request(stream, number) else { return };
        let peer = contact.id;
        self.changed.extend(self.downloads.keys());
        let (id, Part::Chunk(index)) = (request.download, request.part) else { return };
        let key = match result {
            Ok(key) => key,
            // Another program may have changed the file while it was written. The content is doubtful, through no fault of the peer.
            Err(error) if error.kind == DiskErrorKind::Changed => {
                log::info!("{error}: the chunk is requested again");
                self.common.out.counters.chunk_doubtful += 1;
                let chunks = self.downloads.get_mut(&id).and_then(Download::chunks_mut);
                return chunks.map_or((), |chunks| chunks.release(index, stream, number));
            }
            Err(error) => {
                // An unknown part of the content is still on the stream.
                self.drop_stream(now, stream, CloseReason::SinkFailed);
                return self.fail_download(now, id, error);
            }
        };
        let Some(chunks) = self.downloads.get_mut(&id).and_then(Download::chunks_mut) else { return };
        chunks.release(index, stream, number);
        let file = chunks.manifest.hash();
        match chunks.key(index) {
            Some(expected) if expected != key => {
                return self.source_bad(now, stream, contact, file, expected);
            }
            Some(_) if !request.cancelled => {}
            _ => return,
        }
        for owner in chunks.done(index) {
            self.cancel(owner.stream, owner.request);
        }
        let Some(download) = self.downloads.get_mut(&id) else { return };
        download.contributors.insert(peer);
        download.last_progress = now;
        if let Some(source) = download.sources.get_mut(&peer) {
            (source.failures, source.denied) = (0, 0);
        }
        if download.is_shared {
            let file = download.hash;
            self.tell_gained(&file, index);
        }
        self.common.out.counters.chunk_received += 1;
        self.common.out.event(TransferEvent::ChunkDone { download: id, index });
    }

    fn take_request(&mut self, stream: StreamId, number: u32) -> Option<(Request, Contact)> {
        let session = self.common.streams.get_mut(&stream)?;
        Some((session.requests.remove(&number)?, session.peer?))
    }

    fn fail_download(&mut self, now: Instant, id: DownloadId, error: DiskError) {
        self.withdraw(now, id);
        if let Some(download) = self.downloads.remove(&id) {
            self.unfollow(&download);
            let error = match error.kind {
                DiskErrorKind::NoSpace => DownloadError::NoSpace(error),
                _ => DownloadError::Disk(error),
            };
            self.common.out.event(TransferEvent::DownloadFailed { download: id, error });
        }
    }
}

/// The hash of a piece in memory.
pub(in crate::transfer) fn hash(hash_as: HashAs, bytes: &[u8]) -> Key {
    let mut hasher = hash_as.hasher();
    hasher.update(bytes);
    hash_as.key(&hasher)
}

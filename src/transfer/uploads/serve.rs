//! Requests of peers: pieces, one after the other, and questions which pieces are here.

use crate::id::Key;
use crate::io::{DiskError, Extent, Mode, StreamId};
use crate::manifest::Content;
use crate::time::Instant;
use crate::transfer::Transfer;
use crate::transfer::events::{PushError, StreamOutput, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Item, Lookup, QUESTIONS_MAX, Sending};
use crate::wire::frame::{Frame, Refusal};

/// The node's answers to [`TransferEvent::Wanted`] and [`TransferEvent::Asked`], and inputs from the driver about sent content.
impl Transfer {
    /// Answers a request: the extent that holds the whole piece, or the refusal. `mode` is the mode of the file whose hash is the
    /// piece's key.
    pub fn serve(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        found: Result<(Content, Extent), Refusal>,
        mode: Mode,
    ) {
        self.found(now, stream, request, found.map(|(content, extent)| Lookup::Found(content, mode, extent)));
    }

    /// Answers a request for a piece that is in no file, with its content.
    pub fn serve_from_memory(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        (content, mode): (Content, Mode),
        bytes: Vec<u8>,
    ) {
        self.found(now, stream, request, Ok(Lookup::InMemory(content, mode, bytes)));
    }

    /// Answers a question: bit `i` (of byte `i / 8`, lowest bit first) tells whether piece `i` is here.
    pub fn answer(&mut self, now: Instant, stream: StreamId, question: u32, bitmap: [u8; 16]) {
        if let Some(session) = self.streams.get_mut(&stream) {
            if session.asked.remove(&question) {
                self.out.write(stream, session, &Frame::Have { question, bitmap });
            }
        }
        self.settle(now);
    }

    /// All bytes that were written to the stream have left.
    pub fn handle_drained(&mut self, now: Instant, stream: StreamId) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        if session.ending {
            self.drop_stream(now, stream, CloseReason::Shunned);
            return self.settle(now);
        }
        session.last_active = now;
        session.unread = 0;
        for sending in session.sending.drain(..) {
            self.out.uploaded += u64::from(sending.length);
            if let Some(push) = sending.push.and_then(|push| self.pushes.get_mut(&push)) {
                push.wait(now, &self.config.timing);
            }
        }
        self.send_next(now, stream);
        self.tell_more(stream);
        self.take_turns(now);
        self.settle(now);
    }

    /// The driver could not read content that it was told to send. Its length was announced, so the stream is closed.
    pub fn handle_send_failed(&mut self, now: Instant, stream: StreamId, error: &DiskError) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let sending = core::mem::take(&mut session.sending);
        let pushes: Vec<_> = sending.iter().filter_map(|sending| sending.push).collect();
        session.pushes.retain(|_, push| !pushes.contains(push));
        for push in pushes {
            self.push_done(push, Err(PushError::Source(error.clone())));
        }
        if let Some(place) = sending.into_iter().find_map(|sending| sending.place) {
            self.out.event(TransferEvent::SendFailed { place, error: error.clone() });
        }
        self.drop_stream(now, stream, CloseReason::SendFailed);
        self.settle(now);
    }
}

impl Transfer {
    fn found(&mut self, now: Instant, stream: StreamId, request: u32, found: Result<Lookup, Refusal>) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let Some(position) = session.wanted(request) else { return };
        match (found, session.queue.get_mut(position)) {
            (Ok(found), Some(Item::Wanted { lookup, .. })) => *lookup = found,
            (Ok(_), _) => {}
            (Err(reason), _) => {
                session.queue.remove(position);
                self.out.counters.request_refused += 1;
                self.out.write(stream, session, &Frame::Refuse { request, reason });
            }
        }
        self.send_next(now, stream);
        self.settle(now);
    }

    pub(in crate::transfer) fn on_request(&mut self, now: Instant, stream: StreamId, request: u32, key: Key) {
        let most = self.config.limits.requests_per_stream_max;
        let Some(session) = self.streams.get_mut(&stream) else { return };
        if session.wanted(request).is_some() {
            return self.violated(now, stream);
        }
        if session.requests_waiting() >= most {
            self.out.counters.request_busy += 1;
            return self.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Busy });
        }
        session.queue.push_back(Item::Wanted { request, key, lookup: Lookup::Waiting });
        self.send_next(now, stream);
    }

    /// A cancelled request is answered, too, so that both ends agree on what is still to come. If its block is on the way, that is
    /// the answer.
    pub(in crate::transfer) fn on_cancel(&mut self, now: Instant, stream: StreamId, request: u32) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        if let Some(position) = session.wanted(request) {
            session.queue.remove(position);
            self.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::NotFound });
            self.send_next(now, stream);
        }
    }

    pub(in crate::transfer) fn on_which(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        keys: &[Key],
    ) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        if keys.is_empty() || session.asked.len() >= QUESTIONS_MAX || !session.asked.insert(question) {
            return self.violated(now, stream);
        }
        self.out.event(TransferEvent::Asked { stream, question, keys: keys.to_vec() });
    }

    /// Hands the driver the next content for a stream while the driver has fewer than two blocks of it and the stream has a slot.
    /// Asks the node to look the following pieces up.
    pub(in crate::transfer) fn send_next(&mut self, now: Instant, stream: StreamId) {
        let turn = self.has_turn(now, stream);
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let mut handed = 0;
        while let Some(item) = if turn { session.next_item() } else { None } {
            session.last_active = now;
            handed += item.length();
            let (frame, extent, push) = match item {
                Item::Wanted { request, key, lookup: Lookup::Found(content, mode, extent) } => {
                    session.sent.push(key);
                    (Frame::Block { request, content, length: extent.length, mode }, extent, None)
                }
                Item::Wanted { request, lookup: Lookup::InMemory(content, mode, bytes), .. } => {
                    let length = bytes.len() as u32;
                    self.out.write(stream, session, &Frame::Block { request, content, length, mode });
                    session.send(now, Sending { place: None, length, push: None });
                    self.out.outputs.push_back(StreamOutput::Write { stream, bytes });
                    continue;
                }
                Item::Wanted { .. } => unreachable!("only what was found is next"),
                Item::Push { request, push, extent } => {
                    (Frame::StoreData { request, length: extent.length }, extent, Some(push))
                }
            };
            self.out.write(stream, session, &frame);
            session.send(now, Sending { place: Some(extent.place.clone()), length: extent.length, push });
            if extent.length > 0 {
                self.out.outputs.push_back(StreamOutput::SendFile { stream, extent });
            }
        }
        let Some(from) = session.peer_id() else { return };
        for (request, key) in session.lookups() {
            self.out.event(TransferEvent::Wanted { stream, request, key, from });
        }
        if handed > 0 {
            self.charge(now, stream, handed);
        }
    }
}

//! Copies of pieces from other nodes: offered, accepted when the node wants them, acknowledged when they are durable.

use crate::id::Key;
use crate::io::{DiskError, Place, Sink, StreamId};
use crate::manifest::{Content, HashAs, Manifest};
use crate::time::Instant;
use crate::transfer::downloads::receive::hash;
use crate::transfer::events::{TransferEvent, Verdict};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Arrival, ArrivalStage, Purpose, Receiving};
use crate::transfer::{StreamOutput, Transfer};
use crate::wire::frame::{Frame, Offer, Refusal};

/// Offers of one peer that are under way at a time. All peers share the places for arriving pieces; an honest peer makes four
/// offers ahead.
const OFFERS_PER_STREAM_MAX: usize = 16;

/// The node's answers to [`TransferEvent::Offered`], [`TransferEvent::Arriving`] and [`TransferEvent::Arrived`].
impl Transfer {
    /// The node's verdict on an offered piece.
    pub fn admit(&mut self, now: Instant, stream: StreamId, request: u32, verdict: Verdict) {
        let arrival = self.common.streams.get_mut(&stream).and_then(|session| {
            let arrival = session.arrivals.get_mut(&request)?;
            (arrival.stage == ArrivalStage::Asked).then_some(())?;
            if let Verdict::Send { incoming } = verdict {
                arrival.stage = ArrivalStage::Accepted { incoming, since: now };
            }
            Some(session)
        });
        match (arrival, verdict) {
            (Some(session), Verdict::Send { .. }) => {
                self.common.out.write(stream, session, &Frame::Accept { request, have: false });
            }
            (Some(session), Verdict::Have) => {
                session.arrivals.remove(&request);
                self.common.out.write(stream, session, &Frame::Accept { request, have: true });
            }
            (Some(session), Verdict::Refuse(reason)) => {
                session.arrivals.remove(&request);
                self.common.out.counters.offer_refused += 1;
                self.common.out.write(stream, session, &Frame::Refuse { request, reason });
            }
            // The peer's stream closed meanwhile, so the piece will not arrive.
            (None, Verdict::Send { incoming }) => {
                self.common.out.event(TransferEvent::ArrivalFailed { incoming })
            }
            (None, _) => {}
        }
        self.settle(now);
    }

    /// There is no room for the piece of a [`TransferEvent::Arriving`]: its bytes are discarded. Call this directly after that
    /// event, before polling any output.
    pub fn refuse_arriving(&mut self, now: Instant, stream: StreamId, request: u32, reason: Refusal) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let receiving = |arrival: &Arrival| matches!(arrival.stage, ArrivalStage::Receiving { .. });
        if !session.arrivals.get(&request).is_some_and(receiving) {
            return;
        }
        let rest = match session.receiving {
            Receiving::Sink { purpose: Purpose::Arrival(number), length, .. } if number == request => length,
            Receiving::Memory { purpose: Purpose::Arrival(number), rest, .. } if number == request => rest,
            // The whole piece is here already. The node refuses it when it answers `Arrived`.
            _ => return,
        };
        session.receiving = Receiving::Discard { rest };
        session.arrivals.remove(&request);
        let its =
            |output: &StreamOutput| matches!(output, StreamOutput::Sink { stream: to, .. } if *to == stream);
        self.common.out.outputs.retain(|output| !its(output));
        self.common.out.counters.offer_refused += 1;
        self.common.out.write(stream, session, &Frame::Refuse { request, reason });
        self.settle(now);
    }

    /// The node made an arrived piece durable, or refuses it.
    pub fn stored(&mut self, now: Instant, stream: StreamId, request: u32, result: Result<(), Refusal>) {
        if let Some(session) = self.common.streams.get_mut(&stream) {
            let committing = |arrival: &Arrival| arrival.stage == ArrivalStage::Committing;
            if session.arrivals.get(&request).is_some_and(committing) {
                session.arrivals.remove(&request);
                session.last_active = now;
                let frame = match result {
                    Ok(()) => Frame::Stored { request },
                    Err(reason) => Frame::Refuse { request, reason },
                };
                self.common.out.write(stream, session, &frame);
            }
        }
        self.settle(now);
    }
}

impl Transfer {
    pub(in crate::transfer) fn on_store(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        offer: &Offer,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some(from) = session.peer else { return };
        if session.arrivals.contains_key(&request) {
            return self.violated(now, stream);
        }
        let refusal = if !offer.is_possible() {
            self.common.out.counters.offer_invalid += 1;
            Some(Refusal::Invalid)
        } else if self.common.blame.is_banned(now, &from.id, &offer.key) {
            // The peer last sent other content for this piece: its own copy is suspect.
            self.common.out.counters.offer_banned += 1;
            Some(Refusal::Mismatch)
        } else if session.arrivals.len() >= OFFERS_PER_STREAM_MAX {
            self.common.out.counters.offer_busy += 1;
            Some(Refusal::Busy)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.common.out.write(stream, session, &Frame::Refuse { request, reason });
        }
        let offer = *offer;
        session.arrivals.insert(request, Arrival { offer, stage: ArrivalStage::Asked });
        self.common.out.event(TransferEvent::Offered { stream, request, offer, from });
    }

    pub(in crate::transfer) fn on_store_data(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        length: u32,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        session.answered(now);
        let Some(arrival) = session.arrivals.get_mut(&request) else { return self.violated(now, stream) };
        let ArrivalStage::Accepted { incoming, .. } = arrival.stage else {
            return self.violated(now, stream);
        };
        let offer = arrival.offer;
        if length != offer.length {
            return self.violated(now, stream);
        }
        arrival.stage = ArrivalStage::Receiving { incoming };
        self.common.out.event(TransferEvent::Arriving { stream, request, incoming });
        let purpose = Purpose::Arrival(request);
        match offer.content.hash_as(offer.input_offset) {
            Some(hash_as) if length > 0 => {
                let sink = Sink { place: Place::Incoming(incoming), offset: 0, length, hash_as };
                self.start_sink(now, stream, purpose, sink);
            }
            _ => {
                let (content, mode, bytes) = (offer.content, offer.mode, Vec::new());
                session.receiving = Receiving::Memory { purpose, content, mode, rest: length, bytes };
                if length == 0 {
                    self.piece_collected(now, stream);
                }
            }
        }
    }

    /// An offered piece has been written to its file.
    pub(in crate::transfer) fn arrival_sunk(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        result: Result<Key, DiskError>,
    ) {
        let Some(offer) = self.offer_of(stream, request) else { return };
        match result {
            Ok(key) => self.arrived(now, stream, request, key == offer.key, None),
            // An unknown part of the content is still on the stream.
            Err(error) => {
                self.common.out.event(TransferEvent::ArrivalUnwritten { error });
                self.drop_stream(now, stream, CloseReason::SinkFailed);
            }
        }
    }

    /// An offered piece has been collected in memory.
    pub(in crate::transfer) fn arrival_collected(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        bytes: Vec<u8>,
    ) {
        let Some(offer) = self.offer_of(stream, request) else { return };
        let genuine = match offer.content {
            Content::Manifest => Manifest::decode(&bytes, &offer.key).is_ok(),
            Content::File => hash(HashAs::Root, &bytes) == offer.key,
            Content::Chunk => false,
        };
        self.arrived(now, stream, request, genuine, Some(bytes));
    }

    fn arrived(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: u32,
        genuine: bool,
        bytes: Option<Vec<u8>>,
    ) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some(arrival) = session.arrivals.get_mut(&request) else { return };
        let ArrivalStage::Receiving { incoming } = arrival.stage else { return };
        if genuine {
            let offer = arrival.offer;
            arrival.stage = ArrivalStage::Committing;
            self.common.out.counters.offer_arrived += 1;
            self.common.out.event(TransferEvent::Arrived { stream, request, offer, incoming, bytes });
            return;
        }
        let key = arrival.offer.key;
        session.arrivals.remove(&request);
        self.common.out.counters.offer_mismatch += 1;
        // The refusal tells the peer that its disk holds other content than it offered.
        self.common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Mismatch });
        let peer = session.peer;
        self.common.out.event(TransferEvent::ArrivalFailed { incoming });
        if let Some(peer) = peer {
            // Blame counts by file. An offered piece counts as a file of its own.
            self.ban_for(now, peer, key, key);
        }
    }

    fn offer_of(&self, stream: StreamId, request: u32) -> Option<Offer> {
        Some(self.common.streams.get(&stream)?.arrivals.get(&request)?.offer)
    }
}

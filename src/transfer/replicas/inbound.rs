//! Copies of pieces from other nodes: offered, accepted when the node wants them, acknowledged when they are durable.

use crate::id::Key;
use crate::io::{DiskError, Place, Sink, StreamId};
use crate::manifest::{Content, Manifest};
use crate::time::Instant;
use crate::transfer::common::{Common, Out};
use crate::transfer::events::TransferEvent;
use crate::transfer::pieces::{Pieces, Verdict};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Arrival, ArrivalStage, Purpose, Receiving, Session};
use crate::wire::frame::{Frame, Offer, Refusal};

/// Offers of one peer that are under way at a time. All peers share the places for arriving pieces; an honest peer makes four
/// offers ahead.
const OFFERS_PER_STREAM_MAX: usize = 16;

/// Answers an offer.
pub(in crate::transfer) fn admit(
    now: Instant,
    stream: StreamId,
    request: u32,
    verdict: Verdict,
    common: &mut Common,
) {
    let arrival = common.streams.get_mut(&stream).and_then(|session| {
        let arrival = session.arrivals.get_mut(&request)?;
        (arrival.stage == ArrivalStage::Asked).then_some(())?;
        if let Verdict::Send { incoming } = verdict {
            arrival.stage = ArrivalStage::Accepted { incoming, since: now };
        }
        Some(session)
    });
    match (arrival, verdict) {
        (Some(session), Verdict::Send { .. }) => {
            common.out.write(stream, session, &Frame::Accept { request, have: false });
        }
        (Some(session), Verdict::Have) => {
            session.arrivals.remove(&request);
            common.out.write(stream, session, &Frame::Accept { request, have: true });
        }
        (Some(session), Verdict::Refuse(reason)) => {
            session.arrivals.remove(&request);
            common.out.counters.offer_refused += 1;
            common.out.write(stream, session, &Frame::Refuse { request, reason });
        }
        // The peer's stream closed meanwhile, so the piece will not arrive.
        (None, Verdict::Send { incoming }) => common.out.event(TransferEvent::ArrivalFailed { incoming }),
        (None, _) => {}
    }
}

/// The node made an arrived piece durable, or refuses it.
pub(in crate::transfer) fn stored(
    now: Instant,
    stream: StreamId,
    request: u32,
    result: Result<(), Refusal>,
    common: &mut Common,
) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    let committing = |arrival: &Arrival| arrival.stage == ArrivalStage::Committing;
    if session.arrivals.get(&request).is_some_and(committing) {
        session.arrivals.remove(&request);
        session.last_active = now;
        let frame = match result {
            Ok(()) => Frame::Stored { request },
            Err(reason) => Frame::Refuse { request, reason },
        };
        common.out.write(stream, session, &frame);
    }
}

/// A peer offers a piece.
pub(in crate::transfer) fn on_store(
    now: Instant,
    stream: StreamId,
    request: u32,
    offer: &Offer,
    pieces: &mut dyn Pieces,
    common: &mut Common,
) -> Result<(), CloseReason> {
    let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
    let Some(from) = session.peer else { return Ok(()) };
    if session.arrivals.contains_key(&request) {
        return Err(CloseReason::Unexpected);
    }
    let refusal = if !offer.is_possible() {
        common.out.counters.offer_invalid += 1;
        Some(Refusal::Invalid)
    } else if common.blame.is_banned(now, &from.id, &offer.key) {
        // The peer last sent other content for this piece: its own copy is suspect.
        common.out.counters.offer_banned += 1;
        Some(Refusal::Mismatch)
    } else if session.arrivals.len() >= OFFERS_PER_STREAM_MAX {
        common.out.counters.offer_busy += 1;
        Some(Refusal::Busy)
    } else {
        None
    };
    if let Some(reason) = refusal {
        common.out.write(stream, session, &Frame::Refuse { request, reason });
        return Ok(());
    }
    session.arrivals.insert(request, Arrival { offer: *offer, stage: ArrivalStage::Asked });
    if let Some(verdict) = pieces.admit(stream, request, offer) {
        admit(now, stream, request, verdict, common);
    }
    Ok(())
}

/// The content of an accepted offer begins to arrive.
pub(in crate::transfer) fn on_store_data(
    now: Instant,
    stream: StreamId,
    request: u32,
    length: u32,
    pieces: &mut dyn Pieces,
    common: &mut Common,
) -> Result<(), CloseReason> {
    let Some(session) = common.streams.get_mut(&stream) else { return Ok(()) };
    session.answered(now);
    let arrival = session.arrivals.get_mut(&request).ok_or(CloseReason::Unexpected)?;
    let ArrivalStage::Accepted { incoming, .. } = arrival.stage else {
        return Err(CloseReason::Unexpected);
    };
    let offer = arrival.offer;
    if length != offer.length {
        return Err(CloseReason::Unexpected);
    }
    if !pieces.make_room(incoming) {
        session.arrivals.remove(&request);
        if length > 0 {
            session.receiving = Receiving::Discard { rest: length };
        }
        common.out.counters.offer_refused += 1;
        common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::NoSpace });
        return Ok(());
    }
    arrival.stage = ArrivalStage::Receiving { incoming };
    let purpose = Purpose::Arrival(request);
    match offer.content.hash_as(offer.input_offset) {
        Some(hash_as) if length > 0 => {
            let sink = Sink { place: Place::Incoming(incoming), offset: 0, length, hash_as };
            common.start_sink(now, stream, purpose, sink);
        }
        _ if length == 0 => collected(now, stream, request, Vec::new(), common),
        _ => {
            let (content, mode, bytes) = (offer.content, offer.mode, Vec::new());
            session.receiving = Receiving::Memory { purpose, content, mode, rest: length, bytes };
        }
    }
    Ok(())
}

/// An offered piece has been written to its file.
pub(in crate::transfer) fn sunk(
    now: Instant,
    stream: StreamId,
    request: u32,
    result: Result<Key, DiskError>,
    common: &mut Common,
) {
    let Some(offer) = offer_of(stream, request, common) else { return };
    match result {
        Ok(key) => arrived(now, stream, request, (key == offer.key, None), common),
        // An unknown part of the content is still on the stream.
        Err(error) => {
            common.out.event(TransferEvent::ArrivalUnwritten { error });
            common.close(stream, CloseReason::SinkFailed);
        }
    }
}

/// An offered piece has been collected in memory.
pub(in crate::transfer) fn collected(
    now: Instant,
    stream: StreamId,
    request: u32,
    bytes: Vec<u8>,
    common: &mut Common,
) {
    let Some(offer) = offer_of(stream, request, common) else { return };
    let is_genuine = match offer.content {
        Content::Manifest => Manifest::decode(&bytes, &offer.key).is_ok(),
        Content::File => blake3::hash(&bytes) == offer.key.0,
        Content::Chunk => false,
    };
    arrived(now, stream, request, (is_genuine, Some(bytes)), common);
}

fn arrived(
    now: Instant,
    stream: StreamId,
    request: u32,
    (is_genuine, bytes): (bool, Option<Vec<u8>>),
    common: &mut Common,
) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    let Some(arrival) = session.arrivals.get_mut(&request) else { return };
    let ArrivalStage::Receiving { incoming } = arrival.stage else { return };
    let offer = arrival.offer;
    if is_genuine {
        arrival.stage = ArrivalStage::Committing;
        common.out.counters.offer_arrived += 1;
        common.out.event(TransferEvent::Arrived { stream, request, offer, incoming, bytes });
        return;
    }
    session.arrivals.remove(&request);
    common.out.counters.offer_mismatch += 1;
    // The refusal tells the peer that its disk holds other content than it offered.
    common.out.write(stream, session, &Frame::Refuse { request, reason: Refusal::Mismatch });
    let peer = session.peer;
    common.out.event(TransferEvent::ArrivalFailed { incoming });
    if let Some(peer) = peer {
        // Blame counts by file. An offered piece counts as a file of its own.
        common.ban(now, peer, offer.key, offer.key);
    }
}

fn offer_of(stream: StreamId, request: u32, common: &Common) -> Option<Offer> {
    Some(common.streams.get(&stream)?.arrivals.get(&request)?.offer)
}

/// A stream closed: the pieces that were to arrive over it will not.
pub(in crate::transfer) fn lost(session: &Session, out: &mut Out) {
    for arrival in session.arrivals.values() {
        if let ArrivalStage::Accepted { incoming, .. } | ArrivalStage::Receiving { incoming } = arrival.stage
        {
            out.event(TransferEvent::ArrivalFailed { incoming });
        }
    }
}

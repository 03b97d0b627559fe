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
    let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
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
    if let Some(verdict) = pieces.admit(stream, request, offer, &from) {
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
    let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Mode;
    use crate::limits::Limits;
    use crate::transfer::Located;
    use crate::transfer::testing::{NOW, connected, peer, stream};
    use crate::wire::contact::Contact;
    use crate::wire::inspect::InspectEntry;

    const KEY: Key = Key([1; 32]);

    /// The pieces of a node that gives this answer to every offer.
    struct Answering(Option<Verdict>);

    impl Pieces for Answering {
        fn locate(&mut self, _: &Key) -> Result<Located, Refusal> {
            Err(Refusal::NotFound)
        }

        fn has(&self, _: &Key) -> bool {
            false
        }

        fn kept(&self, _: &Key) -> Option<crate::io::Extent> {
            None
        }

        fn admit(&mut self, _: StreamId, _: u32, _: &Offer, _: &Contact) -> Option<Verdict> {
            self.0
        }

        fn make_room(&mut self, _: u64) -> bool {
            true
        }

        fn inspect(&mut self, _: StreamId, _: u32, _: &[Key]) -> Option<Vec<InspectEntry>> {
            None
        }
    }

    const LATER: Answering = Answering(None);
    const SEND: Answering = Answering(Some(Verdict::Send { incoming: 8 }));

    fn common() -> Common {
        connected(1, Limits::default()).common
    }

    fn offer(length: u32) -> Offer {
        let (content, mode) = (Content::File, Mode::UNKNOWN);
        Offer { key: KEY, content, length, input_offset: 0, replicas: 3, mode, lifetime: 60, claim: None }
    }

    fn under_way(common: &Common) -> usize {
        common.streams.get(&stream(1)).unwrap().arrivals.len()
    }

    #[test]
    fn content_before_the_answer_or_of_another_length_is_a_violation() {
        let mut common = common();
        assert_eq!(on_store(NOW, stream(1), 1, &offer(5), &mut { LATER }, &mut common), Ok(()));
        let early = on_store_data(NOW, stream(1), 1, 5, &mut { LATER }, &mut common);
        assert_eq!(early, Err(CloseReason::Unexpected));
        admit(NOW, stream(1), 1, Verdict::Send { incoming: 8 }, &mut common);
        let longer = on_store_data(NOW, stream(1), 1, 6, &mut { LATER }, &mut common);
        assert_eq!(longer, Err(CloseReason::Unexpected));
        assert_eq!(on_store_data(NOW, stream(1), 1, 5, &mut { LATER }, &mut common), Ok(()));
    }

    #[test]
    fn a_piece_is_for_the_node_to_store_when_all_of_it_is_here_and_verifies() {
        let mut common = common();
        let bytes = b"hello".to_vec();
        let offer = Offer { key: Key(*blake3::hash(&bytes).as_bytes()), ..offer(5) };
        assert_eq!(on_store(NOW, stream(1), 1, &offer, &mut { SEND }, &mut common), Ok(()));
        assert_eq!(on_store_data(NOW, stream(1), 1, 5, &mut { SEND }, &mut common), Ok(()));
        sunk(NOW, stream(1), 1, Ok(offer.key), &mut common);
        let arrived =
            TransferEvent::Arrived { stream: stream(1), request: 1, offer, incoming: 8, bytes: None };
        assert_eq!(common.events(), [arrived]);
        assert_eq!(under_way(&common), 1, "it is not durable yet");
        stored(NOW, stream(1), 1, Ok(()), &mut common);
        assert_eq!(under_way(&common), 0);
    }

    #[test]
    fn a_peer_is_banned_from_a_piece_for_which_it_sent_other_content() {
        let mut common = common();
        assert_eq!(on_store(NOW, stream(1), 1, &offer(5), &mut { SEND }, &mut common), Ok(()));
        assert_eq!(on_store_data(NOW, stream(1), 1, 5, &mut { SEND }, &mut common), Ok(()));
        sunk(NOW, stream(1), 1, Ok(Key([2; 32])), &mut common);
        assert!(common.events().contains(&TransferEvent::ArrivalFailed { incoming: 8 }));
        assert_eq!(on_store(NOW, stream(1), 2, &offer(5), &mut { SEND }, &mut common), Ok(()));
        assert_eq!(common.out.counters.offer_mismatch, 1);
        assert_eq!(common.out.counters.offer_banned, 1);
        assert_eq!(under_way(&common), 0);
        assert!(common.blame.is_banned(NOW, &peer(1).id, &KEY));
    }

    #[test]
    fn offers_of_a_peer_are_bounded_and_each_number_is_open_once() {
        let mut common = common();
        for request in 0..OFFERS_PER_STREAM_MAX as u32 + 3 {
            assert_eq!(on_store(NOW, stream(1), request, &offer(5), &mut { LATER }, &mut common), Ok(()));
        }
        assert_eq!(common.out.counters.offer_busy, 3);
        assert_eq!(under_way(&common), OFFERS_PER_STREAM_MAX);
        let again = on_store(NOW, stream(1), 0, &offer(5), &mut { LATER }, &mut common);
        assert_eq!(again, Err(CloseReason::Unexpected));
    }

    #[test]
    fn a_place_that_was_given_after_the_stream_closed_is_given_back() {
        let mut common = common();
        admit(NOW, stream(77), 1, Verdict::Send { incoming: 8 }, &mut common);
        admit(NOW, stream(77), 1, Verdict::Have, &mut common);
        assert_eq!(common.events(), [TransferEvent::ArrivalFailed { incoming: 8 }]);
    }

    #[test]
    fn the_places_of_pieces_that_were_to_arrive_are_given_back_when_the_stream_closes() {
        let mut common = common();
        assert_eq!(on_store(NOW, stream(1), 1, &offer(5), &mut { SEND }, &mut common), Ok(()));
        assert_eq!(on_store(NOW, stream(1), 2, &offer(5), &mut { LATER }, &mut common), Ok(()));
        common.broke(stream(1));
        let closed = common.unsettled.closed.pop_front().unwrap();
        lost(&closed.session, &mut common.out);
        assert_eq!(common.events(), [TransferEvent::ArrivalFailed { incoming: 8 }]);
    }

    #[test]
    fn a_stream_whose_content_cannot_be_written_is_closed_without_blame() {
        let mut common = common();
        assert_eq!(on_store(NOW, stream(1), 1, &offer(5), &mut { SEND }, &mut common), Ok(()));
        assert_eq!(on_store_data(NOW, stream(1), 1, 5, &mut { SEND }, &mut common), Ok(()));
        let error = DiskError { kind: crate::io::DiskErrorKind::NoSpace, message: "disk".into() };
        sunk(NOW, stream(1), 1, Err(error.clone()), &mut common);
        assert_eq!(common.events(), [TransferEvent::ArrivalUnwritten { error }]);
        assert_eq!(common.out.counters.sink_failed, 1);
        assert!(!common.unsettled.closed[0].blames_peer);
    }
}

//! The state of one stream: the node at its other end, what is being received, and what each end has asked of the other.

use super::close::CloseReason;
use super::handshake::Handshake;
use super::outgoing::{Outgoing, Sending};
use super::pace::{Flow, pace};
use crate::id::{Key, NodeId};
use crate::io::Mode;
use crate::manifest::Content;
use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};
use crate::transfer::events::{DownloadId, InspectId, PushId, SampleId};
use crate::transfer::reports::RecentKeys;
use crate::wire::Refused;
use crate::wire::contact::Contact;
use crate::wire::frame::{Frame, Offer, Parsed, StreamKeys};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer bytes than this between two checks do not count as progress: a peer that trickles must not hold up a download.
pub(in crate::transfer) const PROGRESS_BYTES: u64 = 4096;
/// The least average rate of a piece, in bytes per second. A stream that is slower is closed, even if it makes progress.
pub(super) const BYTES_PER_SECOND_MIN: u64 = 2048;
/// How many times as fast another source must be to take over a piece that is arriving. On a slow line all are slow.
const OUTPACED: u64 = 8;
/// The assumed rate of a source that has shown none yet, in bytes per second.
const PACE_UNTRIED: u64 = 64 << 10;
/// Files that a peer may follow over one stream.
pub(in crate::transfer) const FOLLOWS_MAX: usize = 16;
/// Changes of the followed files. A change makes this node divide the file among co-downloaders anew and tell them, so a peer
/// that changes all the time exceeds its budget and is ignored.
const FOLLOW_CHANGES: Rate = Rate::every(Duration::from_millis(250), 2 * FOLLOWS_MAX as u32);
/// Bytes of frames that a peer may leave unread: several times the answers to everything that it may ask at once.
pub(in crate::transfer) const UNREAD_BYTES_MAX: usize = 64 << 10;
/// Questions of a peer that may wait here for an answer.
pub(in crate::transfer) const QUESTIONS_MAX: usize = 16;
/// Bytes that may be requested from one peer ahead of their arrival, when that is more than two pieces. The target is twice the
/// bandwidth-delay product: with just the product in flight the measured rate could never grow. On short paths it is
/// `AHEAD_BYTES`, but no more than one second of the peer's rate; on no path is it more than `AHEAD_BYTES_MAX`.
const AHEAD_BYTES: u64 = 2 << 20;
const AHEAD_BYTES_MAX: u64 = 16 << 20;

/// One stream.
pub(in crate::transfer) struct Session {
    /// The node that was dialled; `None` when the other end connected.
    pub(in crate::transfer) dialled: Option<Contact>,
    /// The address of the other end.
    pub(in crate::transfer) remote: SocketAddr,
    /// Since when the stream is open.
    pub(in crate::transfer) opened: Instant,
    /// The handshake, until the other end has authenticated itself.
    pub(in crate::transfer) handshake: Option<Handshake>,
    /// The keys of the frames after the handshake.
    pub(in crate::transfer) keys: Option<StreamKeys>,
    /// The other end, once it is authenticated.
    pub(in crate::transfer) peer: Option<Contact>,
    /// What the next bytes are part of.
    pub(in crate::transfer) receiving: Receiving,
    /// When a frame or content last moved, in either direction.
    pub(in crate::transfer) last_active: Instant,
    /// When content or an answer last arrived.
    pub(in crate::transfer) received_at: Instant,
    received_bytes: u64,
    /// The number of pieces that have arrived.
    pieces: usize,
    /// The measured rate of long pieces.
    flow: Flow,
    /// The shortest round-trip time of a request that had no other request before it.
    round_trip: Option<Duration>,
    /// When such a request was sent, while its answer is awaited.
    asked_alone: Option<Instant>,
    /// When the rate measurement of the current piece began. The wait for a piece counts as part of its time.
    pace_since: Instant,
    /// Bytes of frames written since the stream was last drained.
    pub(in crate::transfer) unread: usize,
    next_number: u32,
    /// The pieces that this end has requested.
    pub(in crate::transfer) requests: BTreeMap<u32, Request>,
    /// The questions of this end: which chunks the other end has.
    pub(in crate::transfer) questions: BTreeMap<u32, Question>,
    /// The inspections of this end that are not answered, awaited or given up.
    pub(in crate::transfer) inspections: BTreeMap<u32, InspectId>,
    /// The inspections of the other end that are not answered.
    pub(in crate::transfer) inspected: BTreeSet<u32>,
    /// The challenges of this end that are not answered, awaited or given up.
    pub(in crate::transfer) challenges: BTreeMap<u32, SampleId>,
    /// The challenges of the other end that are not answered.
    pub(in crate::transfer) challenged: BTreeSet<u32>,
    /// The offers of this end.
    pub(in crate::transfer) pushes: BTreeMap<u32, PushId>,
    /// The offers of this end that were accepted and are not done.
    pub(in crate::transfer) accepted: BTreeSet<u32>,
    /// The files that the other end follows.
    pub(in crate::transfer) follows: BTreeMap<Key, Follow>,
    /// The budget for changes of `follows`.
    follow_changes: Bucket,
    /// The files that this end follows.
    pub(in crate::transfer) following: BTreeSet<Key>,
    /// The offers of the other end.
    pub(in crate::transfer) arrivals: BTreeMap<u32, Arrival>,
    /// Whether the stream takes no more input, and is closed when the other end has read the reason.
    pub(in crate::transfer) ending: bool,
    /// The pieces that were last handed to the driver. The other end may report each of them.
    pub(in crate::transfer) sent: RecentKeys,
    /// Reports of this end that a piece does not verify, and reports of the other end.
    pub(in crate::transfer) reports_sent: u32,
    pub(in crate::transfer) reports_received: u32,
    /// Content for the other end.
    pub(in crate::transfer) outgoing: Outgoing,
}

/// What the next bytes of a stream are part of.
pub(in crate::transfer) enum Receiving {
    /// A frame.
    Frames,
    /// Content that is collected in memory.
    Memory { purpose: Purpose, content: Content, mode: Mode, rest: u32, bytes: Vec<u8> },
    /// Content that is not needed any more.
    Discard { rest: u32 },
    /// Content that the driver writes to a file.
    Sink { purpose: Purpose, length: u32, begun: Instant, received: u64 },
}

/// Content that was collected in memory.
pub(in crate::transfer) struct Collected {
    pub(in crate::transfer) purpose: Purpose,
    pub(in crate::transfer) content: Content,
    pub(in crate::transfer) mode: Mode,
    pub(in crate::transfer) bytes: Vec<u8>,
}

/// The purpose of content: a request of this end, or an offer of the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum Purpose {
    Request(u32),
    Arrival(u32),
}

/// A requested piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) struct Request {
    pub(in crate::transfer) download: DownloadId,
    pub(in crate::transfer) part: Part,
    /// An upper bound of its length in bytes.
    pub(in crate::transfer) length: u32,
    /// Whether it is not needed any more. It stays in the table until the peer answers it: each request gets one answer.
    pub(in crate::transfer) cancelled: bool,
}

/// Which part of a download a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum Part {
    Root,
    Chunk(u32),
}

/// A question which of these chunks the other end has.
pub(in crate::transfer) struct Question {
    pub(in crate::transfer) download: DownloadId,
    pub(in crate::transfer) chunks: Vec<u32>,
}

/// A file that the other end follows.
#[derive(Default)]
pub(in crate::transfer) struct Follow {
    /// The chunks that this node has gained and has not announced to the other end yet.
    pub(in crate::transfer) news: Vec<u32>,
}

/// A piece that the other end offers.
pub(in crate::transfer) struct Arrival {
    pub(in crate::transfer) offer: Offer,
    pub(in crate::transfer) stage: ArrivalStage,
}

/// The stage of an offered piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transfer) enum ArrivalStage {
    /// The node has not answered the offer.
    Asked,
    /// The node accepted it; the content has not begun to arrive.
    Accepted { incoming: u64, since: Instant },
    /// The content is arriving.
    Receiving { incoming: u64 },
    /// The node is making it durable.
    Committing,
}

impl Session {
    pub(in crate::transfer) fn new(
        now: Instant,
        remote: SocketAddr,
        dialled: Option<Contact>,
        handshake: Handshake,
    ) -> Self {
        Session {
            dialled,
            remote,
            opened: now,
            handshake: Some(handshake),
            keys: None,
            peer: None,
            receiving: Receiving::Frames,
            last_active: now,
            received_at: now,
            received_bytes: 0,
            pieces: 0,
            flow: Flow::default(),
            round_trip: None,
            asked_alone: None,
            pace_since: now,
            unread: 0,
            next_number: 0,
            requests: BTreeMap::new(),
            questions: BTreeMap::new(),
            inspections: BTreeMap::new(),
            inspected: BTreeSet::new(),
            challenges: BTreeMap::new(),
            challenged: BTreeSet::new(),
            pushes: BTreeMap::new(),
            accepted: BTreeSet::new(),
            follows: BTreeMap::new(),
            follow_changes: Bucket::FULL,
            following: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            ending: false,
            sent: RecentKeys::default(),
            reports_sent: 0,
            reports_received: 0,
            outgoing: Outgoing::new(now),
        }
    }

    /// The id of the other end, once it is authenticated.
    pub(in crate::transfer) fn peer_id(&self) -> Option<NodeId> {
        self.peer.map(|peer| peer.id)
    }

    /// Parses the frame at the start of `bytes`. After the handshake it must be the one that the other end sealed next.
    pub(in crate::transfer) fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Refused> {
        match &mut self.keys {
            Some(keys) => Frame::open(bytes, &mut keys.theirs),
            None => Frame::parse(bytes),
        }
    }

    /// The bytes of this end's next frame. After the handshake it is sealed.
    pub(in crate::transfer) fn write(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &mut self.keys {
            Some(keys) => frame.write_sealed(&mut bytes, &mut keys.ours),
            None => frame.write(&mut bytes),
        }
        self.unread += bytes.len();
        bytes
    }

    /// Whether the other end may follow one more file, or unfollow one. If so, the change is charged to its budget.
    pub(in crate::transfer) fn may_change_follows(&mut self, now: Instant) -> bool {
        self.follow_changes.take(now, &FOLLOW_CHANGES)
    }

    /// A new number for a request, a question or an offer of this end.
    pub(in crate::transfer) fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// Takes arrived bytes of content that is collected in memory, or not needed any more. Returns the number of bytes taken, and the
    /// content once it is complete. `None` when a frame is next.
    pub(in crate::transfer) fn collect(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Option<(usize, Option<Collected>)> {
        let (used, rest) = match &mut self.receiving {
            Receiving::Frames => return None,
            // The driver gives these bytes to the sink.
            Receiving::Sink { .. } => return Some((0, None)),
            Receiving::Memory { rest, bytes: collected, .. } => {
                let used = bytes.len().min(*rest as usize);
                collected.extend_from_slice(&bytes[..used]);
                (used, rest)
            }
            Receiving::Discard { rest } => (bytes.len().min(*rest as usize), rest),
        };
        *rest -= used as u32;
        let is_complete = *rest == 0;
        self.progress(now, used as u64);
        if !is_complete {
            return Some((used, None));
        }
        let received = core::mem::replace(&mut self.receiving, Receiving::Frames);
        let Receiving::Memory { purpose, content, mode, bytes, .. } = received else {
            return Some((used, None));
        };
        self.answered(now);
        Some((used, Some(Collected { purpose, content, mode, bytes })))
    }

    /// Counts `bytes` of content that arrived.
    pub(in crate::transfer) fn progress(&mut self, now: Instant, bytes: u64) {
        if let Receiving::Sink { received, .. } = &mut self.receiving {
            *received += bytes;
        }
        self.received_bytes = self.received_bytes.saturating_add(bytes);
        if self.received_bytes >= PROGRESS_BYTES {
            self.answered(now);
        }
        self.last_active = now;
    }

    /// Counts `bytes` of content that left.
    pub(in crate::transfer) fn sent(&mut self, now: Instant, bytes: u64) {
        self.outgoing.sent(now, bytes);
        self.last_active = now;
    }

    /// Hands content to the driver.
    pub(in crate::transfer) fn send(&mut self, now: Instant, sending: Sending) {
        self.outgoing.send(now, sending);
        self.last_active = now;
    }

    /// The other end made progress on what it owes: the stall timer starts anew.
    pub(in crate::transfer) fn answered(&mut self, now: Instant) {
        (self.received_at, self.received_bytes) = (now, 0);
    }

    /// Ends a piece that went to a file. Returns its purpose and its length.
    pub(in crate::transfer) fn end_sink(&mut self, now: Instant) -> Option<(Purpose, u32)> {
        let Receiving::Sink { purpose, length, .. } = self.receiving else { return None };
        // A shorter piece measures latency, not rate.
        if u64::from(length) >= PACE_UNTRIED {
            self.flow.add(u64::from(length), now.since(self.pace_since));
        }
        self.pace_since = now;
        self.pieces = self.pieces.saturating_add(1);
        self.receiving = Receiving::Frames;
        self.answered(now);
        self.last_active = now;
        Some((purpose, length))
    }

    /// Whether the arriving piece has been arriving for `long`, at a fraction of the rate that `other` has shown.
    pub(in crate::transfer) fn is_outpaced_by(&self, other: &Session, now: Instant, long: Duration) -> bool {
        let Receiving::Sink { begun, received, .. } = self.receiving else { return false };
        let present = pace(received, now.since(begun));
        begun + long <= now && present.saturating_mul(OUTPACED) < other.flow.pace().unwrap_or(PACE_UNTRIED)
    }

    /// Enters a request. If the other end owed nothing before, its stall timer starts now.
    pub(in crate::transfer) fn request(&mut self, now: Instant, request: Request) -> u32 {
        if !self.is_expecting() {
            self.answered(now);
            (self.pace_since, self.asked_alone) = (now, Some(now));
        }
        let number = self.number();
        self.requests.insert(number, request);
        number
    }

    /// A request was answered, or its content begins to arrive.
    pub(in crate::transfer) fn request_answered(&mut self, now: Instant) {
        self.answered(now);
        if let Some(took) = self.asked_alone.take().map(|at| now.since(at)) {
            self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
        }
    }

    /// Whether one more piece of `length` bytes may be requested for `download`. `downloads` is the number of downloads that
    /// share the stream.
    pub(in crate::transfer) fn has_room(
        &self,
        download: DownloadId,
        length: u32,
        requests_max: usize,
        downloads: usize,
    ) -> bool {
        let bytes = |(count, sum): (u64, u64), it: &Request| (count + 1, sum + u64::from(it.length));
        let (all, all_bytes) = self.requests.values().fold((0, 0), bytes);
        let own = self.requests.values().filter(|it| it.download == download);
        let (own, own_bytes) = own.fold((0, 0), bytes);
        let (length, most, downloads) = (u64::from(length), self.ahead_bytes(), downloads.max(1) as u64);
        // The window grows by one with each piece that arrives: at first the other requesters of the same chunks are unknown.
        let requests_max = requests_max.min(self.pieces.saturating_add(2)) as u64;
        let few = own == 0 || all < 2 && downloads == 1;
        let fits = all_bytes + length <= most && own_bytes + length <= most / downloads;
        all < requests_max && (few || fits)
    }

    /// How many bytes may be requested ahead of their arrival.
    fn ahead_bytes(&self) -> u64 {
        let Some(pace) = self.flow.pace() else { return AHEAD_BYTES };
        let trip = self.round_trip.map_or(0, |trip| trip.as_micros());
        let on_the_way = u64::try_from(u128::from(pace) * trip / 1_000_000).unwrap_or(u64::MAX);
        on_the_way.saturating_mul(2).max(pace.min(AHEAD_BYTES)).min(AHEAD_BYTES_MAX)
    }

    /// The rate that the other end has shown, in bytes per second. `None` before it has shown one, and while a request of this
    /// end has made no progress for `long`.
    pub(in crate::transfer) fn pace(&self, now: Instant, long: Duration) -> Option<u64> {
        self.flow.pace().filter(|_| self.requests.is_empty() || now < self.received_at + long)
    }

    /// The number of live requests before this one; `None` when there is no such live request.
    pub(in crate::transfer) fn waits_behind(&self, number: u32) -> Option<usize> {
        let live = |(_, request): &(&u32, &Request)| !request.cancelled;
        self.requests.get(&number).filter(|request| !request.cancelled)?;
        Some(self.requests.range(..number).filter(live).count())
    }

    /// The number of pieces that the other end requests or offers.
    pub(in crate::transfer) fn requests_waiting(&self) -> usize {
        self.outgoing.wanted_count() + self.arrivals.len()
    }

    /// Whether neither end waits for anything.
    pub(in crate::transfer) fn is_idle(&self) -> bool {
        !self.is_expecting()
            && self.questions.is_empty()
            && self.inspections.is_empty()
            && self.inspected.is_empty()
            && self.challenges.is_empty()
            && self.challenged.is_empty()
            && self.pushes.is_empty()
            && self.arrivals.is_empty()
            && self.outgoing.is_empty()
    }

    /// The download that the arriving content is for.
    pub(in crate::transfer) fn downloading(&self) -> Option<DownloadId> {
        match self.receiving {
            Receiving::Sink { purpose: Purpose::Request(number), .. } => {
                self.requests.get(&number).map(|request| request.download)
            }
            _ => None,
        }
    }

    /// Whether the stream may be closed to make room for another.
    pub(in crate::transfer) fn is_displaceable(&self) -> bool {
        self.handshake.is_none() && self.is_idle()
    }

    fn is_expecting(&self) -> bool {
        !matches!(self.receiving, Receiving::Frames) || !self.requests.is_empty()
    }

    /// When the stream is closed unless something happens, and for which reason.
    pub(in crate::transfer) fn deadline(&self, timing: &crate::transfer::Timing) -> (Instant, CloseReason) {
        if self.handshake.is_some() {
            return (self.opened + timing.handshake, CloseReason::HandshakeSilent);
        }
        let mut first = (self.last_active + timing.idle, CloseReason::Idle);
        let mut earlier = |at: Instant, reason| {
            if at < first.0 {
                first = (at, reason);
            }
        };
        if self.is_expecting() {
            earlier(self.received_at + timing.stall, CloseReason::Stalled);
        }
        if let Receiving::Sink { length, begun, .. } = self.receiving {
            let slowest = Duration::from_secs(u64::from(length) / BYTES_PER_SECOND_MIN);
            earlier(begun + timing.stall + slowest, CloseReason::Slow);
        }
        if let Some((at, reason)) = self.outgoing.deadline(timing.idle) {
            earlier(at, reason);
        }
        for arrival in self.arrivals.values() {
            if let ArrivalStage::Accepted { since, .. } = arrival.stage {
                earlier(since.max(self.received_at) + timing.answer, CloseReason::OfferSilent);
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::frame::{Ephemeral, Hello};
    use crate::wire::network::Network;
    use std::collections::VecDeque;

    const START: Instant = Instant::from_secs(9);
    const PIECE: u32 = 256 << 10;

    fn session() -> Session {
        let (network, public) = (Network::new("test"), Identity::from_secret(&[1; 32]).public());
        let ephemeral = Ephemeral::new(&network, [1; 32]);
        let hello = Hello::new(network.id(), public, ephemeral.public(), 5, false);
        let handshake = Handshake::new(true, ephemeral, hello);
        Session::new(START, SocketAddr::from(([10, 0, 0, 1], 1)), None, handshake)
    }

    /// The number of pieces in flight for each of `downloads` downloads in steady state, over one line of `rate` bytes per
    /// second with a round-trip time of `trip`.
    fn under_way(rate: u64, trip: Duration, downloads: u64) -> Vec<usize> {
        let (mut session, mut now) = (session(), START);
        let piece_time = Duration::from_nanos(u64::from(PIECE) * 1_000_000_000 / rate);
        let mut arrivals: VecDeque<(Instant, u32)> = VecDeque::new();
        for _ in 0..400 {
            for download in (1..=downloads).map(DownloadId) {
                let request = Request { download, part: Part::Chunk(0), length: PIECE, cancelled: false };
                while session.has_room(download, PIECE, 64, downloads as usize) {
                    let number = session.request(now, request);
                    let free = arrivals.back().map_or(now, |(at, _)| *at).max(now + trip);
                    arrivals.push_back((free + piece_time, number));
                }
            }
            let (at, number) = arrivals.pop_front().expect("one piece is always asked for");
            let begun = now.max(at - piece_time);
            session.request_answered(begun);
            let purpose = Purpose::Request(number);
            session.receiving = Receiving::Sink { purpose, length: PIECE, begun, received: 0 };
            now = at;
            session.end_sink(now);
            session.requests.remove(&number);
        }
        let count = |id: u64| session.requests.values().filter(|it| it.download == DownloadId(id)).count();
        (1..=downloads).map(count).collect()
    }

    #[test]
    fn content_is_collected_up_to_its_length_and_a_frame_follows() {
        let mut session = session();
        assert!(session.collect(START, b"a frame").is_none());
        session.receiving = Receiving::Memory {
            purpose: Purpose::Request(7),
            content: Content::File,
            mode: Mode::UNKNOWN,
            rest: 5,
            bytes: Vec::new(),
        };
        let now = START + Duration::from_secs(1);
        let (used, piece) = session.collect(now, b"con").expect("content is next");
        assert_eq!(used, 3);
        assert!(piece.is_none());
        assert_eq!(session.received_at, START, "the piece is still owed");
        let (used, piece) = session.collect(now, b"tent and more").expect("content is next");
        assert_eq!(used, 2);
        let piece = piece.expect("it is complete");
        assert_eq!(piece.purpose, Purpose::Request(7));
        assert_eq!(piece.bytes, b"conte");
        assert_eq!(session.received_at, now);
        assert!(session.collect(now, b"nt and more").is_none());
    }

    #[test]
    fn content_that_is_not_needed_is_dropped() {
        let mut session = session();
        session.receiving = Receiving::Discard { rest: 5 };
        assert!(matches!(session.collect(START, b"con"), Some((3, None))));
        assert!(matches!(session.collect(START, b"tent"), Some((2, None))));
        assert!(session.collect(START, b"nt").is_none());
    }

    #[test]
    fn content_for_a_file_is_left_to_the_driver() {
        let mut session = session();
        let purpose = Purpose::Request(7);
        session.receiving = Receiving::Sink { purpose, length: PIECE, begun: START, received: 0 };
        assert!(matches!(session.collect(START, b"content"), Some((0, None))));
    }

    #[test]
    fn the_pieces_in_flight_just_fill_the_line() {
        let millis = Duration::from_millis;
        assert_eq!(under_way(1 << 30, millis(0), 1), [7], "next door");
        let far = under_way(50 << 20, millis(100), 1)[0];
        assert!((20..=42).contains(&far), "{far} pieces, where 20 are on the way");
        assert_eq!(under_way(1 << 30, millis(300), 1), [63], "16 MiB and no more");
        assert_eq!(under_way(64 << 10, millis(50), 1), [1], "a slow line");
        assert_eq!(under_way(1 << 30, millis(0), 2).iter().sum::<usize>(), 7, "two downloads");
    }
}

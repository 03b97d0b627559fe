//! The table of streams: which are open, to which peer, and which nodes are being dialled.
//!
//! It decides whether there is room for one more stream, and which stream gives its place up when there is none. It closes
//! nothing itself: what a stream was used for is released by `dispatch`.

use super::close::{CloseReason, HandshakeError};
use super::handshake::{Handshake, Step};
use super::session::Session;
use crate::id::NodeId;
use crate::identity::Identity;
use crate::io::{DialId, StreamId};
use crate::peers::contest::{Holder, gives_way};
use crate::time::{Duration, Instant};
use crate::transfer::events::StreamOutput;
use crate::transfer::{Out, Timing, TransferConfig};
use crate::wire::contact::Contact;
use crate::wire::frame::{Ephemeral, Frame, Hello, StreamKeys};
use crate::wire::network::Network;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Streams to one peer. Two nodes that dial each other at the same time have two.
const STREAMS_PER_PEER_MAX: usize = 2;
/// How long a stream must be idle before it may be closed to make room. Short, because a file that is copied to hundreds of
/// nodes goes through all of them; long enough for the other end to send its next request.
const UNUSED: Duration = Duration::from_millis(250);

/// The streams of this node.
pub(in crate::transfer) struct Streams {
    network: Network,
    /// This node's id; `None` until the first stream opens.
    own: Option<NodeId>,
    sessions: BTreeMap<StreamId, Session>,
    /// Authenticated streams by peer, the oldest first.
    by_peer: BTreeMap<NodeId, Vec<StreamId>>,
    /// Attempts to connect. The driver ends each of them by its deadline.
    dials: BTreeMap<DialId, Contact>,
    next_dial: u64,
    /// Attempts to connect that only try whether it is possible.
    tries: BTreeSet<DialId>,
    /// Whether a dial found no room: then the next idle stream is closed for it.
    pub(in crate::transfer) crowded: bool,
}

/// Sessions.
impl Streams {
    pub(in crate::transfer) fn new(network: Network) -> Streams {
        Streams {
            network,
            own: None,
            sessions: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            tries: BTreeSet::new(),
            crowded: false,
        }
    }

    /// The network of the streams.
    pub(in crate::transfer) fn network(&self) -> &Network {
        &self.network
    }

    /// This node's id; `None` until the first stream opens.
    pub(in crate::transfer) fn own(&self) -> Option<NodeId> {
        self.own
    }

    /// The number of open streams, authenticated or not.
    pub(in crate::transfer) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(in crate::transfer) fn get(&self, stream: &StreamId) -> Option<&Session> {
        self.sessions.get(stream)
    }

    pub(in crate::transfer) fn get_mut(&mut self, stream: &StreamId) -> Option<&mut Session> {
        self.sessions.get_mut(stream)
    }

    /// The session of a stream on which a frame or content has just arrived. Such a stream is open.
    pub(in crate::transfer) fn heard_on(&mut self, stream: StreamId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&stream);
        debug_assert!(session.is_some(), "nothing arrives on a stream that is closed");
        session
    }

    pub(in crate::transfer) fn values(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    pub(in crate::transfer) fn iter(&self) -> impl Iterator<Item = (&StreamId, &Session)> {
        self.sessions.iter()
    }

    pub(in crate::transfer) fn iter_mut(&mut self) -> impl Iterator<Item = (&StreamId, &mut Session)> {
        self.sessions.iter_mut()
    }

    /// Opens a stream with a hello, whose ephemeral key is that of `secret`. Returns the session that it replaces, if the driver broke its contract and used a number twice.
    pub(in crate::transfer) fn open(
        &mut self,
        now: Instant,
        stream: StreamId,
        (remote, dialled): (SocketAddr, Option<Contact>),
        (identity, secret): (&Identity, [u8; 32]),
        config: &TransferConfig,
        out: &mut Out,
    ) -> Option<Session> {
        match dialled {
            Some(_) => out.counters.stream_connected += 1,
            None => out.counters.stream_accepted += 1,
        }
        self.own = Some(identity.id());
        let ephemeral = Ephemeral::new(&self.network, secret);
        let (id, public) = (self.network.id(), identity.public());
        let hello = Hello::new(id, public, ephemeral.public(), config.port, config.leaf);
        let handshake = Handshake::new(dialled.is_some(), ephemeral, hello);
        let mut session = Session::new(now, remote, dialled, handshake);
        out.write(stream, &mut session, &Frame::Hello(&hello));
        self.sessions.insert(stream, session)
    }

    /// Takes the next frame of a handshake. Returns the other end's hello and the stream's keys once that end is authenticated.
    pub(in crate::transfer) fn shake_hands(
        &mut self,
        stream: StreamId,
        frame: &Frame<'_>,
        identity: &Identity,
        out: &mut Out,
    ) -> Result<Option<(Hello, StreamKeys)>, HandshakeError> {
        let Some(session) = self.sessions.get_mut(&stream) else { return Ok(None) };
        let expected = session.dialled.map(|contact| contact.id);
        let Some(handshake) = &mut session.handshake else { return Err(HandshakeError::Order) };
        match handshake.handle(frame, &self.network, identity, expected.as_ref())? {
            Step::Prove(signature) => {
                out.write(stream, session, &Frame::Proof { signature: &signature });
                Ok(None)
            }
            Step::Authenticated(hello, keys) => Ok(Some((hello, keys))),
        }
    }

    /// Removes a stream.
    pub(in crate::transfer) fn remove(&mut self, stream: StreamId) -> Option<Session> {
        let session = self.sessions.remove(&stream)?;
        if let Some(peer) = session.peer_id() {
            self.disown(&peer, stream);
        }
        Some(session)
    }
}

/// Peers.
impl Streams {
    /// The stream that is used for a peer: the one that was authenticated first.
    pub(in crate::transfer) fn to(&self, peer: &NodeId) -> Option<StreamId> {
        self.all_to(peer).first().copied()
    }

    /// The session of the stream that is used for a peer.
    pub(in crate::transfer) fn session_to(&self, peer: &NodeId) -> Option<&Session> {
        self.to(peer).and_then(|stream| self.sessions.get(&stream))
    }

    /// The stream that is used for a peer, with its session, to be changed.
    pub(in crate::transfer) fn session_to_mut(&mut self, peer: &NodeId) -> Option<(StreamId, &mut Session)> {
        let stream = self.to(peer)?;
        Some((stream, self.sessions.get_mut(&stream)?))
    }

    /// The authenticated streams to a peer, the oldest first.
    pub(in crate::transfer) fn all_to(&self, peer: &NodeId) -> &[StreamId] {
        self.by_peer.get(peer).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is an authenticated stream to a peer.
    pub(in crate::transfer) fn is_connected(&self, peer: &NodeId) -> bool {
        self.by_peer.contains_key(peer)
    }

    /// The stream that a peer gives up for a further one: the least active, once it has as many as it may have. It may have lost
    /// its end of the older ones, so the newest stays.
    pub(in crate::transfer) fn surplus_of(&self, peer: &NodeId) -> Option<StreamId> {
        let streams = self.all_to(peer);
        let active = |stream: &&StreamId| self.sessions.get(stream).map(|session| session.last_active);
        streams.iter().min_by_key(active).copied().filter(|_| streams.len() >= STREAMS_PER_PEER_MAX)
    }

    /// The other end of a stream has authenticated itself: further frames are sealed with these keys. Returns its contact.
    pub(in crate::transfer) fn authenticate(
        &mut self,
        stream: StreamId,
        hello: &Hello,
        keys: StreamKeys,
    ) -> Option<Contact> {
        let session = self.sessions.get_mut(&stream)?;
        // A dialled node listens where it was dialled. One that connected says in its hello on which port it listens.
        let addr = session.dialled.map(|contact| contact.addr);
        let addr = addr.unwrap_or_else(|| {
            let mut addr = session.remote;
            addr.set_port(hello.port.get());
            addr
        });
        let contact = Contact::new(hello.public, addr);
        (session.handshake, session.peer, session.keys) = (None, Some(contact), Some(keys));
        self.by_peer.entry(contact.id).or_default().push(stream);
        Some(contact)
    }

    /// A stream is not one to this peer any more.
    fn disown(&mut self, peer: &NodeId, stream: StreamId) {
        if let Some(streams) = self.by_peer.get_mut(peer) {
            streams.retain(|other| *other != stream);
            if streams.is_empty() {
                self.by_peer.remove(peer);
            }
        }
    }

    /// None of the streams to a peer is used any more. Returns them.
    pub(in crate::transfer) fn disown_all(&mut self, peer: &NodeId) -> Vec<StreamId> {
        self.by_peer.remove(peer).unwrap_or_default()
    }
}

/// Dials.
impl Streams {
    /// Whether a stream to this peer is being dialled, or dialled and not authenticated yet.
    pub(in crate::transfer) fn is_dialling(&self, peer: &NodeId) -> bool {
        self.dials_to(peer).next().is_some()
    }

    /// The dials of a peer under way, those over which it has not authenticated itself yet included.
    fn dials_to(&self, peer: &NodeId) -> impl Iterator<Item = Contact> {
        let expected = |session: &Session| session.handshake.is_some().then_some(session.dialled).flatten();
        let dialled = self.sessions.values().filter_map(expected);
        self.dials.values().copied().chain(dialled).filter(move |contact| contact.id == *peer)
    }

    /// Connects to a node unless a stream to it exists or is being dialled. False when there is no room.
    pub(in crate::transfer) fn dial(
        &mut self,
        now: Instant,
        contact: Contact,
        config: &TransferConfig,
        out: &mut Out,
    ) -> bool {
        if self.is_connected(&contact.id) || self.is_dialling(&contact.id) {
            return true;
        }
        if self.is_full(config.limits.streams_max) {
            self.crowded = true;
            return false;
        }
        self.begin_dial(now, contact, config, out);
        true
    }

    /// Connects to a node once more while one dial of it is under way, if there is room. The packets of that dial may have been lost
    /// in an outage, and TCP repeats them only after a pause.
    pub(in crate::transfer) fn dial_again(
        &mut self,
        now: Instant,
        contact: Contact,
        config: &TransferConfig,
        out: &mut Out,
    ) {
        let under_way = self.dials_to(&contact.id).count();
        let may = 0 < under_way && under_way < STREAMS_PER_PEER_MAX && !self.is_connected(&contact.id);
        if may && !self.is_full(config.limits.streams_max) {
            self.begin_dial(now, contact, config, out);
        }
    }

    /// Tries whether a node can be connected to. `None` when there is no room.
    pub(in crate::transfer) fn try_dial(
        &mut self,
        now: Instant,
        contact: Contact,
        config: &TransferConfig,
        out: &mut Out,
    ) -> Option<DialId> {
        if self.is_full(config.limits.streams_max) {
            return None;
        }
        self.next_dial += 1;
        let dial = DialId(self.next_dial);
        self.tries.insert(dial);
        let until = now + config.timing.dial;
        out.outputs.push_back(StreamOutput::Connect { dial, contact, until });
        Some(dial)
    }

    /// An attempt to connect ended. Returns whether it was only to try.
    pub(in crate::transfer) fn tried(&mut self, dial: DialId) -> bool {
        self.tries.remove(&dial)
    }

    fn begin_dial(&mut self, now: Instant, contact: Contact, config: &TransferConfig, out: &mut Out) {
        self.next_dial += 1;
        let dial = DialId(self.next_dial);
        self.dials.insert(dial, contact);
        let until = now + config.timing.dial;
        out.outputs.push_back(StreamOutput::Connect { dial, contact, until });
    }

    /// An attempt to connect ended. Returns the node that was dialled; `None` when there was no such attempt.
    pub(in crate::transfer) fn dialled(&mut self, dial: DialId) -> Option<Contact> {
        self.dials.remove(&dial)
    }
}

/// Room.
impl Streams {
    /// Whether there are more streams and dials than `most`.
    pub(in crate::transfer) fn is_over_full(&self, most: usize) -> bool {
        self.sessions.len() + self.dials.len() + self.tries.len() > most
    }

    fn is_full(&self, most: usize) -> bool {
        self.sessions.len() + self.dials.len() + self.tries.len() >= most
    }

    /// Whether accepted streams have all their places. A quarter of all places is kept for the streams that this node dials.
    pub(in crate::transfer) fn is_full_of_accepted(&self, most: usize) -> bool {
        let accepted = self.sessions.values().filter(|session| session.dialled.is_none()).count();
        self.is_full(most) || accepted >= most - most / 4
    }

    /// The stream that gives its place up when `most` accepted streams are not authenticated: the oldest of the party that has
    /// most of them.
    pub(in crate::transfer) fn unauthenticated_beyond(&self, most: usize) -> Option<StreamId> {
        let unauthenticated = |session: &&Session| session.handshake.is_some() && session.dialled.is_none();
        let (streams, places): (Vec<StreamId>, Vec<(Holder, Instant)>) = self
            .sessions
            .iter()
            .filter(|(_, session)| unauthenticated(session))
            .map(|(&id, session)| (id, (Holder::host(session.remote.ip()), session.opened)))
            .unzip();
        let loser = gives_way(&places).filter(|_| places.len() >= most)?;
        streams.get(loser).copied()
    }

    /// The stream that gives its place up for one from `remote` when every place is taken: the party with the most accepted
    /// streams loses its least active one, unless the newcomer's party would then have more than it.
    pub(in crate::transfer) fn crowding_out(&self, remote: SocketAddr) -> Option<StreamId> {
        let accepted = self.sessions.iter().filter(|(_, session)| session.dialled.is_none());
        let (streams, mut places): (Vec<StreamId>, Vec<(Holder, Option<Instant>)>) = accepted
            .map(|(&id, session)| (id, (Holder::host(session.remote.ip()), Some(session.last_active))))
            .unzip();
        places.push((Holder::host(remote.ip()), None));
        streams.get(gives_way(&places)?).copied()
    }

    /// The authenticated stream that has been idle longest, if that is at least [`UNUSED`].
    pub(in crate::transfer) fn longest_unused(&self, now: Instant) -> Option<StreamId> {
        let unused = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_displaceable() && session.last_active + UNUSED <= now);
        unused.min_by_key(|(_, session)| session.last_active).map(|(&id, _)| id)
    }
}

/// Deadlines.
impl Streams {
    /// The streams that are to be closed now, and why.
    pub(in crate::transfer) fn late(&self, now: Instant, timing: &Timing) -> Vec<(StreamId, CloseReason)> {
        let late = |(&id, session): (&StreamId, &Session)| {
            let (at, reason) = session.deadline(timing);
            (at <= now).then_some((id, reason))
        };
        self.sessions.iter().filter_map(late).collect()
    }

    /// When the next stream is to be closed: it is late, or idle while a dial needs its place.
    pub(in crate::transfer) fn next_deadline(&self, timing: &Timing) -> Option<Instant> {
        let deadlines = self.sessions.values().map(|session| session.deadline(timing).0);
        let room = self.sessions.values().filter(|session| self.crowded && session.is_displaceable());
        deadlines.chain(room.map(|session| session.last_active + UNUSED)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    const NOW: Instant = Instant::from_secs(100);
    const IDENTITY: [u8; 32] = [9; 32];

    fn peer(seed: u8) -> Identity {
        Identity::from_secret(&[seed; 32])
    }

    fn address(party: u8) -> SocketAddr {
        SocketAddr::from(([10, party, 1, 1], 7))
    }

    fn contact(seed: u8) -> Contact {
        Contact::new(peer(seed).public(), address(seed))
    }

    fn config(streams_max: usize) -> TransferConfig {
        TransferConfig::new(Limits { streams_max, ..Limits::default() }, false, 1)
    }

    fn accept(streams: &mut Streams, number: u64, remote: SocketAddr, at: Instant) {
        let own = Identity::from_secret(&IDENTITY);
        let (config, mut out) = (config(8), Out::default());
        let replaced = streams.open(at, StreamId(number), (remote, None), (&own, [0; 32]), &config, &mut out);
        assert!(replaced.is_none());
    }

    fn authenticate(streams: &mut Streams, number: u64, seed: u8) {
        let ephemeral = Ephemeral::new(&streams.network, [seed; 32]);
        let hello = Hello::new(streams.network.id(), peer(seed).public(), ephemeral.public(), 5, false);
        let keys = ephemeral.agree(&streams.network, true, &hello, &hello).unwrap();
        assert!(streams.authenticate(StreamId(number), &hello, keys).is_some());
    }

    fn table() -> Streams {
        Streams::new(Network::new("test"))
    }

    #[test]
    fn a_node_is_dialled_once_until_the_attempt_ends() {
        let (mut streams, config, mut out) = (table(), config(8), Out::default());
        assert!(streams.dial(NOW, contact(1), &config, &mut out));
        assert!(streams.dial(NOW, contact(1), &config, &mut out));
        assert_eq!(out.outputs.len(), 1, "one attempt");
        assert!(streams.is_dialling(&contact(1).id));
        assert_eq!(streams.dialled(DialId(1)), Some(contact(1)));
        assert!(!streams.is_dialling(&contact(1).id));
    }

    #[test]
    fn a_dial_without_room_marks_the_table_as_crowded_so_that_an_idle_stream_ends() {
        let (mut streams, config, mut out) = (table(), config(1), Out::default());
        accept(&mut streams, 1, address(1), NOW);
        authenticate(&mut streams, 1, 1);
        let patient = streams.next_deadline(&config.timing);
        assert!(!streams.dial(NOW, contact(2), &config, &mut out) && streams.crowded);
        assert!(streams.next_deadline(&config.timing) < patient);
        assert_eq!(streams.longest_unused(NOW), None, "it may be about to be used");
        assert_eq!(streams.longest_unused(NOW + UNUSED), Some(StreamId(1)));
    }

    #[test]
    fn a_peer_gives_up_its_least_active_stream_for_a_third_one() {
        let mut streams = table();
        for (number, at) in [(1, NOW + UNUSED), (2, NOW)] {
            accept(&mut streams, number, address(1), at);
            assert_eq!(streams.surplus_of(&contact(1).id), None);
            authenticate(&mut streams, number, 1);
        }
        assert_eq!(streams.to(&contact(1).id), Some(StreamId(1)), "the one that was authenticated first");
        assert_eq!(streams.surplus_of(&contact(1).id), Some(StreamId(2)));
        streams.disown(&contact(1).id, StreamId(1));
        assert_eq!(streams.to(&contact(1).id), Some(StreamId(2)));
    }

    #[test]
    fn the_party_with_most_streams_makes_room_for_others_but_not_for_itself() {
        let mut streams = table();
        for number in 1..=3 {
            accept(&mut streams, number, address(1), NOW + UNUSED * number as u32);
        }
        accept(&mut streams, 4, address(2), NOW);
        assert_eq!(streams.crowding_out(address(3)), Some(StreamId(1)), "its oldest stream");
        assert_eq!(streams.crowding_out(address(2)), Some(StreamId(1)));
        assert_eq!(streams.crowding_out(address(1)), None);
        assert_eq!(streams.unauthenticated_beyond(5), None);
        assert_eq!(streams.unauthenticated_beyond(4), Some(StreamId(1)));
    }

    #[test]
    fn of_one_prefix_the_host_with_most_streams_makes_room() {
        let mut streams = table();
        let host = |last: u8| SocketAddr::from(([8, 8, 8, last], 7));
        for (number, last) in [(1, 1), (2, 2), (3, 2)] {
            accept(&mut streams, number, host(last), NOW);
        }
        assert_eq!(streams.crowding_out(host(1)), None);
        assert_eq!(streams.crowding_out(host(3)).map(|stream| stream.0 > 1), Some(true));
    }

    #[test]
    fn accepted_streams_leave_a_quarter_of_the_places_to_dialled_ones() {
        let mut streams = table();
        for number in 1..=6 {
            assert!(!streams.is_full_of_accepted(8), "{number}");
            accept(&mut streams, number, address(1), NOW);
        }
        assert!(streams.is_full_of_accepted(8) && !streams.is_full(8));
    }
}

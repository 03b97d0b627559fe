//! The state of one peer as a neighbour: its run, the keys of the hop, the numbers that arrived, its address.

use super::hop::{End, Root};
use super::replay::ReplayWindow;
use super::rtt::Rtt;
use super::silence::Silence;
use super::standing::Standing;
use super::tokens::TOKEN_PERIOD;
use crate::id::{NodeId, PublicKey};
use crate::time::{Duration, Instant};
use crate::wire::datagram::{Epoch, MacKey};
use crate::wire::network::Network;
use core::net::SocketAddr;

/// One entry of the [table](super::table::Peers).
///
/// Its epoch changes only by [`Peer::restarted`], after the caller made sure that the datagram cannot be a recording.
pub(super) struct Peer {
    public: PublicKey,
    id: NodeId,
    /// The peer's present run, and the one before.
    epoch: Epoch,
    previous: Option<Epoch>,
    window: ReplayWindow,
    keys: Option<Keys>,
    /// Whether the peer can check a MAC of this node: it has this node's key and epoch.
    is_keyed: bool,
    /// Whether a signed request with the peer's token was sent since its epoch began: the peer may have taken the key from it.
    has_presented: bool,
    /// The address that was last validated, and when.
    addr: SocketAddr,
    validated: Instant,
    heard: Instant,
    /// The round-trip time to that address.
    rtt: Rtt,
    silence: Silence,
    /// The token that the peer last gave; zero is none.
    token: u64,
    token_at: Instant,
}

/// The keys of a hop in the present epochs of both ends.
struct Keys {
    root: Root,
    /// For datagrams to the peer, and from it.
    outbound: MacKey,
    inbound: MacKey,
}

impl Peer {
    /// A peer whose datagram with the number `sequence` came from `addr`, a validated address.
    pub(super) fn new(
        now: Instant,
        public: PublicKey,
        id: NodeId,
        epoch: Epoch,
        sequence: u64,
        addr: SocketAddr,
    ) -> Self {
        Peer {
            public,
            id,
            epoch,
            previous: None,
            window: ReplayWindow::starting_at(sequence),
            keys: None,
            is_keyed: false,
            has_presented: false,
            addr,
            validated: now,
            heard: now,
            rtt: Rtt::default(),
            silence: Silence::NONE,
            token: 0,
            token_at: now,
        }
    }

    // Getters.

    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// The address that was last validated.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn rtt(&self) -> Rtt {
        self.rtt
    }

    /// The requests in a row that it did not answer.
    pub(super) fn silence(&self) -> Silence {
        self.silence
    }

    /// Whether `epoch` is the run before the present one.
    pub(super) fn is_previous(&self, epoch: Epoch) -> bool {
        self.previous == Some(epoch)
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// The key of datagrams from the peer.
    pub(super) fn inbound(&self) -> Option<&MacKey> {
        self.keys.as_ref().map(|keys| &keys.inbound)
    }

    /// The key of answers to the peer: a datagram with a MAC came from it, so it has both epochs.
    pub(super) fn outbound(&self) -> Option<&MacKey> {
        self.keys.as_ref().map(|keys| &keys.outbound)
    }

    /// The key of requests to the peer; `None` while the peer may not be able to check it.
    pub(super) fn request_key(&self) -> Option<&MacKey> {
        self.outbound().filter(|_| self.is_keyed)
    }

    /// The standing of a new datagram of the present epoch from `addr`. The address counts as validated for as long as a token.
    pub(super) fn standing_at(&self, now: Instant, addr: SocketAddr) -> Standing {
        let validated = self.addr == addr && now.since(self.validated) < TOKEN_PERIOD * 2;
        if validated { Standing::Validated } else { Standing::Fresh }
    }

    /// Whether the peer has shown that so recently that it need not show it again.
    pub(super) fn is_freshly_validated_at(&self, now: Instant, addr: SocketAddr) -> bool {
        self.addr == addr && now.since(self.validated) < TOKEN_PERIOD
    }

    /// The token that the peer gave, while it may be valid; else zero.
    pub(super) fn token(&self, now: Instant) -> u64 {
        if now.since(self.token_at) < TOKEN_PERIOD * 2 { self.token } else { 0 }
    }

    /// Whether the peer's token must be valid.
    pub(super) fn has_fresh_token(&self, now: Instant) -> bool {
        self.token != 0 && now.since(self.token_at) < TOKEN_PERIOD
    }

    // What happens.

    /// An authenticated datagram of the present epoch arrived; false for a replay, which changes nothing.
    pub(super) fn accept(&mut self, now: Instant, sequence: u64) -> bool {
        let is_new = self.window.accept(sequence);
        if is_new {
            self.heard = now;
        }
        is_new
    }

    /// The peer has shown that it receives at this address. What was measured on the way to another address says nothing about the
    /// way to this one: with its short timeout, every request would be repeated, and a repeated request measures nothing.
    pub(super) fn note_validated(&mut self, now: Instant, addr: SocketAddr) {
        if self.addr != addr {
            self.rtt = Rtt::default();
        }
        (self.addr, self.validated) = (addr, now);
    }

    /// It answered a request of a machine: after the time `rtt`, if that is a round-trip time.
    pub(super) fn note_answer(&mut self, rtt: Option<Duration>) {
        self.silence = Silence::NONE;
        if let Some(sample) = rtt {
            self.rtt.sample(sample);
        }
    }

    /// It did not answer a request. Returns how many in a row.
    pub(super) fn note_unanswered(&mut self, now: Instant) -> u8 {
        self.silence.note(now)
    }

    /// It was reached in another way than by datagrams.
    pub(super) fn note_reached(&mut self, now: Instant) {
        (self.heard, self.silence) = (now, Silence::NONE);
    }

    /// The peer gave a token; zero is none.
    pub(super) fn note_token(&mut self, now: Instant, token: u64) {
        if token != 0 {
            (self.token, self.token_at) = (token, now);
        }
    }

    /// A signed request with the peer's token is sent.
    pub(super) fn note_presented(&mut self) {
        self.has_presented = true;
    }

    /// The peer answered a request. If that or an earlier one was signed and carried a valid token, the peer took the key from it.
    pub(super) fn note_answered(&mut self) {
        self.is_keyed |= self.has_presented;
    }

    /// The peer has this node's key and epoch.
    pub(super) fn note_keyed(&mut self) {
        self.is_keyed = true;
    }

    /// The peer runs in a new epoch, of which a datagram with this number has arrived. Its tokens are gone with the old one.
    pub(super) fn restarted(
        &mut self,
        now: Instant,
        epoch: Epoch,
        sequence: u64,
        own: End,
        network: &Network,
    ) {
        self.previous = Some(self.epoch);
        self.epoch = epoch;
        self.window = ReplayWindow::starting_at(sequence);
        (self.is_keyed, self.has_presented, self.token, self.heard) = (false, false, 0, now);
        if let Some(keys) = self.keys.take() {
            self.set_root(keys.root, own, network);
        }
    }

    /// Derives the keys of the present epochs from the root.
    pub(super) fn set_root(&mut self, root: Root, own: End, network: &Network) {
        let peer = End { id: self.id, epoch: self.epoch };
        let (outbound, inbound) = (root.key(network, own, peer), root.key(network, peer, own));
        self.keys = Some(Keys { root, outbound, inbound });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const NOW: Instant = Instant::from_secs(1000);

    fn addr(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 3583).into()
    }

    fn peer() -> Peer {
        let public = Identity::from_secret(&[2; 32]).public();
        Peer::new(NOW, public, public.node_id(), Epoch::new(5), 1, addr(1))
    }

    #[test]
    fn requests_have_a_mac_only_once_the_peer_can_check_it() {
        let (network, ours) = (Network::new("test"), Identity::from_secret(&[1; 32]));
        let own = End { id: ours.id(), epoch: Epoch::new(9) };
        let mut peer = peer();
        peer.set_root(Root::of(&network, &ours, &peer.public()).unwrap(), own, &network);
        assert!(peer.request_key().is_none(), "the peer has not got this node's epoch");
        peer.note_answered();
        assert!(peer.request_key().is_none(), "the request that it answered had no token");
        peer.note_presented();
        peer.note_answered();
        let key = *peer.request_key().expect("the peer took the key from a signed request");
        peer.restarted(NOW, Epoch::new(6), 1, own, &network);
        assert!(peer.request_key().is_none(), "its next run has not");
        assert!(peer.outbound().is_some_and(|next| *next != key), "the keys are those of the new epoch");
        assert!(peer.is_previous(Epoch::new(5)));
    }

    #[test]
    fn an_address_and_a_token_count_for_two_periods() {
        let mut peer = peer();
        peer.note_token(NOW, 7);
        peer.note_token(NOW, 0);
        let later = |periods: u32| NOW + TOKEN_PERIOD * periods;
        assert_eq!(peer.token(NOW), 7);
        assert_eq!(peer.token(later(2)), 0);
        assert!(peer.has_fresh_token(NOW) && !peer.has_fresh_token(later(1)));
        assert_eq!(peer.standing_at(later(1), addr(1)), Standing::Validated);
        assert_eq!(peer.standing_at(later(1), addr(2)), Standing::Fresh, "another address");
        assert_eq!(peer.standing_at(later(2), addr(1)), Standing::Fresh, "it has not shown that for long");
        peer.note_validated(later(2), addr(2));
        assert_eq!(peer.standing_at(later(2), addr(2)), Standing::Validated);
    }

    #[test]
    fn the_round_trip_time_is_that_to_the_validated_address() {
        let mut peer = peer();
        peer.note_answer(Some(Duration::from_millis(3)));
        peer.note_validated(NOW, addr(1));
        assert_eq!(peer.rtt().smoothed(), Some(Duration::from_millis(3)));
        peer.note_validated(NOW, addr(2));
        assert_eq!(peer.rtt().smoothed(), None);
    }

    #[test]
    fn a_restart_of_the_peer_makes_its_tokens_and_its_numbers_start_anew() {
        let (network, mut peer) = (Network::new("test"), peer());
        peer.note_token(NOW, 7);
        assert!(peer.accept(NOW, 50) && !peer.accept(NOW, 50));
        let own = End { id: NodeId([1; 32]), epoch: Epoch::new(9) };
        peer.restarted(NOW, Epoch::new(6), 3, own, &network);
        assert_eq!(peer.token(NOW), 0);
        assert!(peer.accept(NOW, 4) && !peer.accept(NOW, 3) && peer.accept(NOW, 50));
    }
}

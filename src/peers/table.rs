//! The table of peers: the sender of a datagram, whether the datagram is new, and how this node authenticates its own datagrams.
//!
//! A node enters with a verified signature that carried a valid token or answered a request of this node: nothing that could have
//! been recorded earlier enters a node or changes its epoch. From then on the two authenticate datagrams under
//! [hop keys](super::hop), for a hundredth of the cost of a signature. Three cases need no memory of their own:
//!
//! - A peer that restarts signs its first request, gets a signed answer with a token, and signs the next request with that token,
//!   from which this node takes the new epoch.
//! - A request whose MAC this node cannot check (it lost the peer, or restarted itself) is answered by a *challenge*, which makes the
//!   peer sign that request.
//! - A peer that finds no room is served, always by signatures.
//!
//! The table also holds what every machine must know of a peer: the round-trip time, when it was last heard from, and how many
//! requests in a row it has not answered. Each machine's requests count, and each machine asks. Whether a member is alive is the
//! decision of one machine, membership: see [`Liveness`](super::liveness::Liveness).

use super::checks::Claim;
use super::hop::{End, Root};
use super::peer::Peer;
use super::rate::{Bucket, Limiter, Rate};
use super::sets::Sets;
use super::silence::{Silence, Strangers};
use super::standing::Standing;
use super::tokens::TokenMint;
use crate::counters::counters;
use crate::id::NodeId;
use crate::identity::Identity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::datagram::{MacKey, Unverified, Verified};
use crate::wire::header::Auth;
use crate::wire::network::Network;
#[cfg(test)]
use crate::wire::{contact::Contact, datagram::Epoch};
use core::net::{IpAddr, SocketAddr};

pub use super::sets::{Hold, PEERS_MAX};

/// Diffie–Hellman computations, about 50 µs each on a desktop.
const AGREEMENTS_PER_SECOND: u32 = 50;
/// Challenges in a second, to all addresses together.
const CHALLENGES_PER_SECOND: u32 = 100;
/// Challenges to one address.
const CHALLENGE_EACH: Rate = Rate::every(Duration::from_secs(1), 1);
/// Buckets of challenged addresses. Two addresses may share one; which ones is secret.
const CHALLENGED: usize = 1024;

counters! {
    /// The counters of the table.
    pub struct PeerCounters {
        /// Datagrams that were authenticated by a MAC.
        macs_verified = "macs_verified",
        /// Challenges sent.
        challenges = "challenges",
        /// Challenges not sent, because too many were due.
        challenges_over_budget = "challenges_over_budget",
        /// Peers with which hop keys were agreed on.
        agreed = "hop_keys_agreed",
        /// Agreements put off, because too many were due.
        put_off = "hop_keys_put_off",
        /// Changes of peers' epochs.
        restarts = "peers_restarted",
        /// Peers that found no room.
        no_room = "peers_no_room",
    }
}

/// A datagram whose sender is authenticated, and which is no replay.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The datagram.
    pub datagram: Verified<'a>,
    /// Whether it is fresh, and its address validated.
    pub standing: Standing,
}

/// A datagram's MAC is not valid under any key that this node has for its sender and epoch. A request is worth a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unknown;

/// What a request to a peer is authenticated by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Credentials {
    /// The key of the MAC; `None` to sign.
    pub(super) key: Option<MacKey>,
    /// The token that the peer gave; zero is none.
    pub(super) token: u64,
}

/// The peers of one node: see the [module](self).
pub struct Peers {
    network: Network,
    own: End,
    sets: Sets,
    /// Nodes that have no place, and do not answer.
    strangers: Strangers,
    mint: TokenMint,
    agreements: Limiter,
    challenges: Limiter,
    challenged: Vec<Bucket>,
    secret: u64,
    counters: PeerCounters,
}

impl Peers {
    /// The table of the node `own`, which knows no peer yet. `seed` is entropy, or fixed in a simulation.
    pub fn new(network: Network, own: End, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        Peers {
            network,
            own,
            sets: Sets::new(rng.u64()),
            strangers: Strangers::default(),
            mint: TokenMint::new(rng.bytes()),
            agreements: Limiter::new(Rate::per_second(AGREEMENTS_PER_SECOND)),
            challenges: Limiter::new(Rate::per_second(CHALLENGES_PER_SECOND)),
            challenged: vec![Bucket::FULL; CHALLENGED],
            secret: rng.u64(),
            counters: PeerCounters::default(),
        }
    }

    // Getters.

    /// The number of peers.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    pub fn counters(&self) -> &PeerCounters {
        &self.counters
    }

    /// Whether requests to this node carry a MAC.
    pub fn is_keyed(&self, id: &NodeId) -> bool {
        self.sets.get(id).is_some_and(|peer| peer.request_key().is_some())
    }

    /// The address of `id` that was last validated; `None` for a node that is not in the table.
    pub fn addr(&self, id: &NodeId) -> Option<SocketAddr> {
        self.sets.get(id).map(Peer::addr)
    }

    /// When `id` was last heard from; `None` for a node that is not in the table.
    pub fn heard(&self, id: &NodeId) -> Option<Instant> {
        self.sets.get(id).map(Peer::heard)
    }

    /// The number of requests in a row that `id` did not answer, whichever machine sent them.
    pub fn unanswered(&self, id: &NodeId) -> u8 {
        self.silence(id).count()
    }

    /// Whether `id` did not answer the last request, and that was within two minutes.
    pub fn is_silent(&self, now: Instant, id: &NodeId) -> bool {
        self.silence(id).is_lately(now)
    }

    fn silence(&self, id: &NodeId) -> Silence {
        self.sets.get(id).map_or_else(|| self.strangers.get(id), Peer::silence)
    }

    /// The smoothed round-trip time to `id`; `None` before the first sample.
    pub fn rtt(&self, id: &NodeId) -> Option<Duration> {
        self.sets.get(id)?.rtt().smoothed()
    }

    /// The timeout of a request to `id`; `first` before the first sample, and for a node that is not in the table.
    pub fn timeout(&self, id: &NodeId, first: Duration) -> Duration {
        self.sets.get(id).map_or(first, |peer| peer.rtt().timeout(first))
    }

    /// Whether `id` gave a token so recently that it must be valid.
    pub fn has_fresh_token(&self, now: Instant, id: &NodeId) -> bool {
        self.sets.get(id).is_some_and(|peer| peer.has_fresh_token(now))
    }

    /// The token that validates `addr` for the node `id`.
    pub fn token_for(&self, now: Instant, addr: SocketAddr, id: &NodeId) -> u64 {
        self.mint.token(now, addr, id.short())
    }

    /// What a signed datagram shows before its signature is checked. `answers`: whether it answers a request of this node.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Unverified<'_>,
        answers: bool,
    ) -> Claim {
        let sender = datagram.sender();
        if answers {
            Claim::Answer
        } else if !self.mint.is_valid(now, from, sender, datagram.token()) {
            Claim::None
        } else if self.sets.with_short(sender).next().is_some() {
            Claim::Known(sender)
        } else {
            Claim::Token
        }
    }

    // Datagrams that arrive.

    /// Authenticates a datagram by its MAC (about 0.5 µs). `answers`: whether it answers a request of this node. `None` when it was
    /// received before.
    pub(super) fn authenticate<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: Unverified<'a>,
        answers: bool,
    ) -> Result<Option<Received<'a>>, Unknown> {
        let Peers { network, sets, mint, counters, .. } = self;
        for peer in sets.with_short(datagram.sender()).filter(|peer| peer.epoch() == datagram.epoch()) {
            let Some(key) = peer.inbound() else { continue };
            let Ok(verified) = datagram.authenticate(network, key, &peer.public(), &peer.id()) else {
                continue;
            };
            if !peer.accept(now, verified.sequence()) {
                return Ok(None);
            }
            counters.macs_verified += 1;
            peer.note_keyed();
            if answers {
                peer.note_token(now, verified.token());
            }
            // A token is looked at only when the address has to be shown again.
            let shown = answers
                || !peer.is_freshly_validated_at(now, from)
                    && mint.is_valid(now, from, datagram.sender(), datagram.token());
            if shown {
                peer.note_validated(now, from);
            }
            return Ok(Some(Received { datagram: verified, standing: peer.standing_at(now, from) }));
        }
        Err(Unknown)
    }

    /// Takes a datagram with a verified signature into account, and its sender into the table. `claim` is what it showed before. `None`
    /// when it was received before. `hold` tells how firmly a peer keeps its place.
    pub(super) fn admit<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        identity: &Identity,
        datagram: Verified<'a>,
        claim: Claim,
        hold: impl Fn(&NodeId) -> Hold,
    ) -> Option<Received<'a>> {
        debug_assert!(datagram.auth() == Auth::Signed, "a MAC is checked by the key of a peer");
        let (id, epoch, sequence) = (datagram.id(), datagram.epoch(), datagram.sequence());
        let answers = claim == Claim::Answer;
        let peer = match self.sets.get_mut(&id) {
            Some(peer) if peer.epoch() == epoch => {
                if !peer.accept(now, sequence) {
                    return None;
                }
                Some(peer)
            }
            // A token shows that a datagram is not older than the token. That does not exclude the run before the present one; an
            // answer does.
            Some(peer) if answers || claim.is_proof() && !peer.is_previous(epoch) => {
                peer.restarted(now, epoch, sequence, self.own, &self.network);
                self.counters.restarts += 1;
                Some(peer)
            }
            None if claim.is_proof() => {
                let peer = Peer::new(now, datagram.public(), id, epoch, sequence, from);
                let entered = self.sets.enter(peer, hold);
                self.counters.no_room += u64::from(entered.is_none());
                entered
            }
            _ => return Some(Received { datagram, standing: Standing::Unproven }),
        };
        let Some(peer) = peer else { return Some(Received { datagram, standing: Standing::Validated }) };
        if claim.is_proof() {
            peer.note_validated(now, from);
        }
        if claim.is_proof() && !peer.has_keys() {
            match self.agreements.take(now).then(|| Root::of(&self.network, identity, &datagram.public())) {
                Some(Some(root)) => {
                    peer.set_root(root, self.own, &self.network);
                    self.counters.agreed += 1;
                }
                Some(None) => {}
                None => self.counters.put_off += 1,
            }
        }
        if answers {
            peer.note_token(now, datagram.token());
            peer.note_answered();
        } else if claim.is_proof() {
            // The peer got the token in a signed answer, and this node's epoch with it.
            peer.note_keyed();
        }
        Some(Received { datagram, standing: peer.standing_at(now, from) })
    }

    /// The node `id` answered a request of a machine: after the time `rtt`, if that is a round-trip time.
    pub(super) fn note_answer(&mut self, id: &NodeId, rtt: Option<Duration>) {
        self.strangers.forget(id);
        if let Some(peer) = self.sets.get_mut(id) {
            peer.note_answer(rtt);
        }
    }

    /// The node `id` did not answer a request of a machine, and will not be asked again at once. Returns how many in a row.
    pub fn note_unanswered(&mut self, now: Instant, id: &NodeId) -> u8 {
        match self.sets.get_mut(id) {
            Some(peer) => peer.note_unanswered(now),
            None => self.strangers.note(now, *id),
        }
    }

    /// The node `id` was reached in another way than by a request: over a stream.
    pub fn note_reached(&mut self, now: Instant, id: &NodeId) {
        self.strangers.forget(id);
        if let Some(peer) = self.sets.get_mut(id) {
            peer.note_reached(now);
        }
    }

    /// The token of the challenge that answers a request with a MAC which this node could not check. `None` when too many challenges
    /// are due, to all addresses or to this one.
    pub(super) fn challenge(
        &mut self,
        now: Instant,
        from: SocketAddr,
        request: &Unverified<'_>,
    ) -> Option<u64> {
        let slot = self.challenged_slot(from);
        if !self.challenged[slot].take(now, &CHALLENGE_EACH) || !self.challenges.take(now) {
            self.counters.challenges_over_budget += 1;
            return None;
        }
        self.counters.challenges += 1;
        Some(self.mint.token(now, from, request.sender()))
    }

    /// The bucket of an address, whatever sender its datagrams name.
    fn challenged_slot(&self, addr: SocketAddr) -> usize {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let seed = self.secret ^ u64::from(addr.port());
        xxhash_rust::xxh3::xxh3_64_with_seed(&ip.octets(), seed) as usize % CHALLENGED
    }

    // Datagrams to be sent.

    /// Enters a peer that was heard from now.
    #[cfg(test)]
    pub(crate) fn meet(&mut self, now: Instant, contact: &Contact) {
        let Contact { id, public, addr } = *contact;
        let entered = self.sets.enter(Peer::new(now, public, id, Epoch::new(1), 1, addr), |_| Hold::Loose);
        assert!(entered.is_some());
    }

    /// What a request to the node `id` is authenticated by. With `sign` it is signed in any case.
    pub(super) fn credentials(&mut self, now: Instant, id: &NodeId, sign: bool) -> Credentials {
        let Some(peer) = self.sets.get_mut(id) else { return Credentials { key: None, token: 0 } };
        let credentials =
            Credentials { key: peer.request_key().copied().filter(|_| !sign), token: peer.token(now) };
        if credentials.key.is_none() && peer.has_fresh_token(now) {
            peer.note_presented();
        }
        credentials
    }

    /// The key of the MAC of an answer to the node `id`, whose request had a MAC.
    pub(super) fn answer_key(&self, id: &NodeId) -> Option<MacKey> {
        self.sets.get(id)?.outbound().copied()
    }
}

#[cfg(test)]
mod tests;

//! The queue of outgoing datagrams. Machines compose datagrams here, which are authenticated as the recipient can check it; the
//! driver sends them.
//!
//! A request has a MAC if the recipient has this node's key, else a signature. An answer is authenticated like its request,
//! because a signed request may come from a peer that has lost the key. A goodbye is always signed.
//!
//! A quarter of the ring is reserved for answers, so that bulk requests never displace answers that other nodes wait for.

use super::checks::{Checks, Claim};
use super::hop::End;
use super::table::{Credentials, Peers};
use crate::id::NodeId;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::contact::canonical;
use crate::wire::datagram::{
    DATAGRAM_BYTES_MAX, Envelope, Epoch, MacKey, Unverified, Verified, write, write_challenge, write_mac,
};
use crate::wire::header::Auth;
use crate::wire::message::Message;
use crate::wire::network::Network;
use core::net::SocketAddr;

/// A bounded ring of datagrams, allocated once at the start, and the peers that they go to.
pub struct Outbox {
    pub(super) network: Network,
    pub(super) identity: Identity,
    leaf: bool,
    epoch: Epoch,
    /// The number of the next datagram.
    sequence: u64,
    slots: Vec<Datagram>,
    first: usize,
    length: usize,
    dropped: u64,
    pub(super) peers: Peers,
    pub(super) checks: Checks,
}

/// An outgoing datagram.
pub struct Datagram {
    to: SocketAddr,
    length: usize,
    bytes: [u8; DATAGRAM_BYTES_MAX],
}

impl Datagram {
    /// The destination.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// The UDP payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A request that is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Its destination.
    pub to: SocketAddr,
    /// The node that is to answer; `None` when the node at that address is unknown.
    pub recipient: Option<NodeId>,
    /// Its transaction number.
    pub transaction: u64,
    /// How it is sent.
    pub attempt: Attempt,
}

/// How a request is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// With a MAC, if the recipient can check it.
    First,
    /// Again, with a signature: perhaps the recipient has lost the key, and its challenge was lost.
    Again,
    /// Again, with a signature and the token of a challenge, which validates this node's address.
    Challenged(u64),
}

/// The recipient of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The address that the request came from.
    pub addr: SocketAddr,
    /// The node.
    pub id: NodeId,
    /// The request's transaction number.
    pub transaction: u64,
    /// How the request was authenticated.
    pub auth: Auth,
}

impl Asker {
    /// The sender of a request.
    pub fn of(from: SocketAddr, request: &Verified<'_>) -> Self {
        let (id, transaction, auth) = (request.id(), request.transaction(), request.auth());
        Asker { addr: canonical(from), id, transaction, auth }
    }
}

impl Outbox {
    /// An empty ring. No other run of this identity may use the same `epoch`. `seed` is entropy, or fixed
    /// in a simulation.
    pub fn new(
        network: Network,
        identity: Identity,
        leaf: bool,
        epoch: Epoch,
        limits: &Limits,
        seed: [u8; 32],
    ) -> Self {
        let empty = || Datagram {
            to: SocketAddr::from(([0, 0, 0, 0], 0)),
            length: 0,
            bytes: [0; DATAGRAM_BYTES_MAX],
        };
        let slots = core::iter::repeat_with(empty).take(limits.datagrams_queued_max.max(1)).collect();
        let mut rng = Rng::new(seed);
        let peers = Peers::new(network.clone(), End { id: identity.id(), epoch }, rng.bytes());
        let checks = Checks::new(limits.signature_checks_per_second_max, rng.u64());
        let (sequence, first, length, dropped) = (1, 0, 0, 0);
        Outbox { network, identity, leaf, epoch, sequence, slots, first, length, dropped, peers, checks }
    }

    // Getters.

    /// The network of the datagrams.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The identity that signs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// This node's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this node is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.leaf
    }

    /// Sets whether this node is a leaf, which every datagram says.
    pub fn set_leaf(&mut self, leaf: bool) {
        self.leaf = leaf;
    }

    /// The number of queued datagrams.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number of datagrams dropped because the ring was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The peers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The peers, to be told what happened.
    pub fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// Sets how many signature checks this processor manages in a second: see [`Checks::calibrate`].
    pub fn calibrate(&mut self, checks_per_second: u32) {
        self.checks.calibrate(checks_per_second);
    }

    /// Whether a further signature is checked that came in an authenticated datagram of the node `teller` at this address: see
    /// [`Checks::admit_inner`].
    pub fn may_check(&mut self, now: Instant, teller: &NodeId, from: SocketAddr) -> bool {
        self.checks.admit_inner(now, teller.short(), canonical(from))
    }

    /// Checks a signature that the node `teller` handed on in an answer to this node: whether it is genuine, or `None` when the
    /// teller has used up its share of checks. A wrong one costs the teller that share.
    pub fn check_told(
        &mut self,
        now: Instant,
        teller: &NodeId,
        verify: impl FnOnce(&Network) -> bool,
    ) -> Option<bool> {
        let (teller, nowhere) = (teller.short(), SocketAddr::from(([0, 0, 0, 0], 0)));
        let genuine = self.checks.admit_told(now, teller).then(|| verify(&self.network));
        if genuine == Some(false) {
            self.checks.note_wrong(now, nowhere, Claim::Known(teller));
        }
        genuine
    }

    // Sending. Each of these returns the length of the datagram in bytes; `None` when it is dropped and counted because the ring is
    // full, as if the network had lost it, when it does not fit, and when every recipient would refuse it (see [`write()`]).

    /// Queues a request, with the token that the recipient gave.
    pub fn request(&mut self, now: Instant, ask: Ask, message: &Message<'_>) -> Option<usize> {
        let Ask { to, recipient, transaction, attempt } = ask;
        let sign = attempt != Attempt::First;
        let nothing = Credentials { key: None, token: 0 };
        let known = recipient.map(|id| self.peers.credentials(now, &id, sign));
        let Credentials { key, token } = known.unwrap_or(nothing);
        let token = if let Attempt::Challenged(token) = attempt { token } else { token };
        self.put(to, recipient, transaction, token, key, message)
    }

    /// Queues an answer, with a new token for its recipient.
    pub fn answer(&mut self, now: Instant, asker: Asker, message: &Message<'_>) -> Option<usize> {
        let Asker { addr, id, transaction, auth } = asker;
        let key = if auth == Auth::Mac { self.peers.answer_key(&id) } else { None };
        let token = self.peers.token_for(now, addr, &id);
        self.put(addr, Some(id), transaction, token, key, message)
    }

    /// Queues a goodbye, signed.
    pub fn goodbye(
        &mut self,
        now: Instant,
        to: SocketAddr,
        recipient: NodeId,
        message: &Message<'_>,
    ) -> Option<usize> {
        let Credentials { token, .. } = self.peers.credentials(now, &recipient, true);
        // No answer will name its transaction.
        self.put(to, Some(recipient), 0, token, None, message)
    }

    /// Writes the datagram that tells the nodes of a link that this one is there. It is not queued, because it goes to a group on
    /// several interfaces.
    pub fn here(&mut self) -> Option<Vec<u8>> {
        let Outbox { leaf, epoch, sequence, .. } = *self;
        let mark = self.network.presence_mark(&self.identity.id().short(), epoch, sequence);
        let envelope = Envelope { recipient: None, leaf, epoch, sequence, transaction: 0, token: 0 };
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let message = Message::Here { mark };
        let length = write(&mut bytes, &self.network, &self.identity, &envelope, &message)?;
        self.sequence = self.sequence.saturating_add(1);
        Some(bytes[..length].to_vec())
    }

    /// Queues a challenge to a request with a MAC that this node cannot check, within the bounds on challenges.
    pub fn challenge(&mut self, now: Instant, from: SocketAddr, request: &Unverified<'_>) -> Option<usize> {
        let from = canonical(from);
        let token = self.peers.challenge(now, from, request)?;
        let left = self.slots.len() / 4;
        let slot = free(&mut self.slots, self.first, self.length, left, &mut self.dropped)?;
        let (network, identity) = (&self.network, &self.identity);
        slot.length = write_challenge(&mut slot.bytes, network, identity, self.epoch, token, request)?;
        slot.to = from;
        self.length += 1;
        Some(slot.length)
    }

    fn put(
        &mut self,
        to: SocketAddr,
        recipient: Option<NodeId>,
        transaction: u64,
        token: u64,
        key: Option<MacKey>,
        message: &Message<'_>,
    ) -> Option<usize> {
        let Outbox { leaf, epoch, sequence, .. } = *self;
        let left = if message.kind().is_answer() { 0 } else { self.slots.len() / 4 };
        let slot = free(&mut self.slots, self.first, self.length, left, &mut self.dropped)?;
        let envelope = Envelope { recipient, leaf, epoch, sequence, transaction, token };
        let (out, network, identity) = (&mut slot.bytes, &self.network, &self.identity);
        slot.length = match key {
            Some(key) => write_mac(out, network, identity, &key, &envelope, message),
            None => write(out, network, identity, &envelope, message),
        }?;
        slot.to = to;
        self.sequence = self.sequence.saturating_add(1);
        self.length += 1;
        Some(slot.length)
    }

    /// The queued datagrams, oldest first.
    pub fn queued(&self) -> impl Iterator<Item = &Datagram> {
        (0..self.length).map(|place| &self.slots[(self.first + place) % self.slots.len()])
    }

    /// Removes the `count` oldest datagrams, which were sent.
    pub fn remove(&mut self, count: usize) {
        let count = count.min(self.length);
        self.first = (self.first + count) % self.slots.len();
        self.length -= count;
    }

    /// Takes the oldest datagram.
    pub fn poll(&mut self) -> Option<&Datagram> {
        if self.length == 0 {
            return None;
        }
        let index = self.first;
        self.first = (self.first + 1) % self.slots.len();
        self.length -= 1;
        Some(&self.slots[index])
    }
}

/// The slot for the next datagram, if more than `left` are free; when there is none, that is counted.
fn free<'a>(
    slots: &'a mut [Datagram],
    first: usize,
    length: usize,
    left: usize,
    dropped: &mut u64,
) -> Option<&'a mut Datagram> {
    if length + left >= slots.len() {
        *dropped += 1;
        return None;
    }
    let index = (first + length) % slots.len();
    slots.get_mut(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(100);

    fn outbox(datagrams_queued_max: usize) -> Outbox {
        let limits = Limits { datagrams_queued_max, ..Limits::default() };
        let identity = Identity::from_secret(&[1; 32]);
        Outbox::new(Network::new("test"), identity, false, Epoch::new(1), &limits, [3; 32])
    }

    fn ask(outbox: &mut Outbox) -> bool {
        let to = ([127, 0, 0, 1], 1).into();
        let ask = Ask { to, recipient: None, transaction: 1, attempt: Attempt::First };
        outbox.request(NOW, ask, &Message::Ping { padding: 0 }).is_some()
    }

    fn answer(outbox: &mut Outbox, transaction: u64) -> bool {
        let addr = ([127, 0, 0, 1], 1).into();
        let asker = Asker { addr, id: NodeId([9; 32]), transaction, auth: Auth::Signed };
        outbox.answer(NOW, asker, &Message::Pong { observed: addr }).is_some()
    }

    #[test]
    fn requests_in_bulk_leave_room_for_answers() {
        let mut outbox = outbox(8);
        let requests = (0..20).filter(|_| ask(&mut outbox)).count();
        let answers = (0..20).filter(|transaction| answer(&mut outbox, *transaction)).count();
        assert_eq!(requests, 6);
        assert_eq!(answers, 2);
        assert_eq!(outbox.dropped(), 32);
    }

    #[test]
    fn datagrams_are_removed_from_the_front_across_the_end_of_the_ring() {
        let mut outbox = outbox(4);
        (1..=4).for_each(|transaction| assert!(answer(&mut outbox, transaction)));
        let third = outbox.queued().nth(2).unwrap().bytes().to_vec();
        outbox.remove(2);
        assert!(answer(&mut outbox, 5));
        assert_eq!(outbox.queued().count(), 3);
        assert_eq!(outbox.poll().unwrap().bytes(), third);
        outbox.remove(9);
        assert!(outbox.is_empty());
    }
}

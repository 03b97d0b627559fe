//! The queue of outgoing datagrams. Machines compose and sign them here; the driver sends them.

use super::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, write};
use super::message::Message;
use super::network::Network;
use crate::id::NodeId;
use crate::identity::Identity;
use core::net::SocketAddr;

/// A bounded ring of datagrams, allocated once at the start.
pub struct Outbox {
    network: Network,
    identity: Identity,
    leaf: bool,
    epoch: Epoch,
    /// The number of the next datagram.
    sequence: u64,
    slots: Vec<Datagram>,
    first: usize,
    length: usize,
    dropped: u64,
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

impl Outbox {
    /// An empty ring for `capacity` datagrams. No other run of this identity may use the same `epoch`.
    pub fn new(network: Network, identity: Identity, leaf: bool, epoch: Epoch, capacity: usize) -> Self {
        let empty = || Datagram {
            to: SocketAddr::from(([0, 0, 0, 0], 0)),
            length: 0,
            bytes: [0; DATAGRAM_BYTES_MAX],
        };
        let slots = core::iter::repeat_with(empty).take(capacity.max(1)).collect();
        Outbox { network, identity, leaf, epoch, sequence: 1, slots, first: 0, length: 0, dropped: 0 }
    }

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

    /// Composes, signs and queues a datagram. When the ring is full the datagram is dropped and counted, as if the network had
    /// lost it. `false` when it was dropped, does not fit a datagram, or would be refused by every recipient (see [`write()`]).
    pub fn send(
        &mut self,
        to: SocketAddr,
        recipient: Option<NodeId>,
        transaction: u64,
        token: u64,
        message: &Message<'_>,
    ) -> bool {
        if self.length == self.slots.len() {
            self.dropped += 1;
            return false;
        }
        let Outbox { leaf, epoch, sequence, .. } = *self;
        let index = (self.first + self.length) % self.slots.len();
        let slot = &mut self.slots[index];
        let envelope = Envelope { recipient, leaf, epoch, sequence, transaction, token };
        let Some(length) = write(&mut slot.bytes, &self.network, &self.identity, &envelope, message) else {
            return false;
        };
        (slot.to, slot.length) = (to, length);
        self.sequence = self.sequence.saturating_add(1);
        self.length += 1;
        true
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

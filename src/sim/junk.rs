//! An adversary that wastes other nodes' processor time: it sends datagrams whose wrong signatures have to be checked.

use super::Peeked;
use super::adversary::{Adversary, Sent};
use super::chance::Chance;
use crate::id::{Key, NodeId};
use crate::identity::{Identity, Scheme};
use crate::time::Instant;
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, write};
use crate::wire::message::{ANNOUNCEMENTS_MAX, Announcement, Message};
use crate::wire::network::Network;
use crate::wire::provider::ProviderRecord;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The number of junk datagrams that the adversary sends for each datagram it receives.
const JUNK: usize = 48;
/// The transaction of the adversary's own requests. Its node never sees their answers.
const TRANSACTION: u64 = 0x6a75_6e6b;

/// Floods each node that sends it a datagram: as unknown identities, from a validated address, and with announcements.
pub struct Junk {
    network: Network,
    /// The identity of the flood. The node at the same address has another identity and is honest.
    identity: Identity,
    addr: SocketAddr,
    ids: Rc<BTreeMap<SocketAddr, NodeId>>,
    tokens: BTreeMap<SocketAddr, u64>,
    sequence: u64,
    chance: Chance,
}

impl Junk {
    /// The adversary at `addr`, which knows the ids of all nodes.
    pub fn new(
        network: Network,
        addr: SocketAddr,
        ids: Rc<BTreeMap<SocketAddr, NodeId>>,
        mut chance: Chance,
    ) -> Self {
        let identity = fresh(network.scheme(), &mut chance);
        Junk { network, identity, addr, ids, tokens: BTreeMap::new(), sequence: 0, chance }
    }

    fn compose(
        &mut self,
        to: SocketAddr,
        signer: Option<&Identity>,
        message: &Message<'_>,
    ) -> Option<Vec<u8>> {
        self.sequence += 1;
        let token = if signer.is_some() { 0 } else { self.tokens.get(&to).copied().unwrap_or(0) };
        let envelope = Envelope {
            recipient: Some(*self.ids.get(&to)?),
            leaf: true,
            epoch: Epoch::new(9),
            sequence: self.sequence,
            transaction: TRANSACTION,
            token,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let signer = signer.unwrap_or(&self.identity);
        let length = write(&mut out, &self.network, signer, &envelope, message)?;
        Some(out[..length].to_vec())
    }

    /// A ping with a wrong signature, from the flood's identity or from a new one.
    fn wrong_ping(&mut self, to: SocketAddr, stranger: bool) -> Option<Vec<u8>> {
        let signer = stranger.then(|| fresh(self.network.scheme(), &mut self.chance));
        let mut bytes = self.compose(to, signer.as_ref(), &Message::Ping { padding: 0 })?;
        bytes.last_mut().into_iter().for_each(|last| *last ^= 1);
        Some(bytes)
    }

    /// A valid announcement datagram with invalid provider records.
    fn wrong_announcement(&mut self, to: SocketAddr) -> Option<Vec<u8>> {
        let announcement = |_| {
            let (file, signed) = (Key(self.chance.bytes()), Key([0; 32]));
            let provider =
                ProviderRecord::new(&self.network, &self.identity, &signed, self.addr, false, 3600, 1);
            Announcement { file, provider }
        };
        let announcements: Vec<Announcement> = (0..ANNOUNCEMENTS_MAX).map(announcement).collect();
        self.compose(to, None, &Message::Announce { announcements: &announcements })
    }
}

impl Adversary for Junk {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        let Some(peeked) = Peeked::of(bytes) else { return true };
        if peeked.transaction == TRANSACTION {
            self.tokens.insert(from, peeked.token);
            return false;
        }
        let known = self.tokens.contains_key(&from);
        if !known {
            let ping = self.compose(from, None, &Message::Ping { padding: 0 });
            out.extend(ping.map(|ping| (from, ping)));
        }
        for number in 0..JUNK {
            let junk = match number % 3 {
                1 if known => self.wrong_ping(from, false),
                2 if known => self.wrong_announcement(from),
                _ => self.wrong_ping(from, true),
            };
            out.extend(junk.map(|junk| (from, junk)));
        }
        true
    }
}

/// A new identity of this scheme.
pub(super) fn fresh(scheme: Scheme, chance: &mut Chance) -> Identity {
    match scheme {
        Scheme::Ed25519 => Identity::from_secret(&chance.bytes()),
        Scheme::StandIn => Identity::stand_in(&chance.bytes()),
    }
}

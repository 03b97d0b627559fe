//! Adversaries on the path to an honest node: they read, drop and invent what goes to it, and know none of its secrets.

use super::Peeked;
use super::adversary::{Adversary, Sent};
use crate::identity::Identity;
use crate::io::StreamId;
use crate::time::{Duration, Instant};
use crate::wire::datagram::{
    DATAGRAM_BYTES_MAX, Envelope, Epoch, MacKey, Unverified, write_challenge, write_mac,
};
use crate::wire::frame::{FRAME_HEAD_BYTES, Frame, Parsed};
use crate::wire::header::{Auth, Header, Kind};
use crate::wire::message::{Message, NotStored};
use crate::wire::network::Network;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// The most streams for which a swallower keeps an inbox.
const STREAMS: usize = 256;
/// The most challenges that a downgrader keeps, to send them again later.
const CHALLENGES: usize = 64;
/// The first byte of the transaction in a header.
const TRANSACTION_AT: usize = core::mem::offset_of!(Header, transaction);
/// How long a downgrader keeps a challenge before it sends it again.
const LATE: Duration = Duration::from_secs(30);

/// Swallows every offer of a piece and every record for the host's node, and acknowledges it in the node's name.
pub struct Swallow {
    network: Network,
    /// The node. Only its id is used: that is public.
    node: Identity,
    /// The epoch of the node's last datagram.
    epoch: Epoch,
    sequence: u64,
    inboxes: BTreeMap<StreamId, Vec<u8>>,
}

impl Swallow {
    /// An adversary on the path to `node`.
    pub fn new(node: Identity) -> Self {
        let network = Network::of("simulation", &node);
        Swallow { network, node, epoch: Epoch::new(1), sequence: 1 << 40, inboxes: BTreeMap::new() }
    }

    /// The next complete frame in the inbox: as received, and with its tag zeroed. An adversary on the path can read a frame but not
    /// seal one.
    fn next(inbox: &mut Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
        let length = u32::from_le_bytes(*inbox.first_chunk()?) as usize;
        let whole = inbox.get(..FRAME_HEAD_BYTES.checked_add(length)?)?.to_vec();
        inbox.drain(..whole.len());
        let mut bare = whole.clone();
        bare[8..FRAME_HEAD_BYTES].fill(0);
        Some((whole, bare))
    }

    /// An acknowledgement of a request for records, under a key that is not the node's.
    fn acknowledge(&mut self, request: &Unverified<'_>, accepted: u8) -> Option<Vec<u8>> {
        self.sequence += 1;
        let envelope = Envelope {
            // A MAC covers no recipient: any will do.
            recipient: Some(self.node.id()),
            leaf: false,
            epoch: self.epoch,
            sequence: self.sequence,
            transaction: request.transaction(),
            token: request.token(),
        };
        let message = Message::Stored { accepted, reason: NotStored::Nothing };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write_mac(&mut out, &self.network, &self.node, &MacKey([7; 32]), &envelope, &message)?;
        Some(out[..length].to_vec())
    }
}

impl Adversary for Swallow {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        let network = self.network.clone();
        let Ok(request) = Unverified::parse(bytes, &network) else { return true };
        let records = match request.kind() {
            Kind::StoreRecord => 1,
            Kind::Announce => crate::wire::message::ANNOUNCEMENTS_MAX as u8,
            _ => return true,
        };
        // The asker knows how many records it sent. One of these numbers is it.
        for accepted in [1, records] {
            out.extend(self.acknowledge(&request, accepted).map(|answer| (from, answer)));
        }
        false
    }

    fn outgoing(&mut self, _: Instant, _: SocketAddr, bytes: &mut Vec<u8>) -> bool {
        self.epoch = Peeked::of(bytes).map_or(self.epoch, |peeked| peeked.epoch);
        true
    }

    fn heard(&mut self, stream: StreamId, bytes: &mut Vec<u8>, back: &mut Vec<u8>) {
        if self.inboxes.len() == STREAMS {
            self.inboxes.pop_first();
        }
        let inbox = self.inboxes.entry(stream).or_default();
        inbox.append(bytes);
        while let Some((whole, bare)) = Swallow::next(inbox) {
            match Frame::parse(&bare) {
                Ok(Parsed::Frame(Frame::Store { request, .. }, _)) => {
                    Frame::Accept { request, have: true }.write(back);
                }
                _ => bytes.extend(whole),
            }
        }
    }

    fn is_on_path(&self) -> bool {
        true
    }
}

/// Answers every request with a MAC by a challenge, so that its sender signs it, and sends the challenges again when it is too late
/// for them, and for a request that there never was. Datagrams with a signature pass.
pub struct Downgrade {
    network: Network,
    /// The node. Only its id is used: that is public.
    node: Identity,
    epoch: Epoch,
    /// The last token that the node gave to each address: they are sent in clear.
    tokens: BTreeMap<SocketAddr, u64>,
    /// Challenges that were sent, to be sent again.
    sent: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl Downgrade {
    /// An adversary on the path to `node`.
    pub fn new(node: Identity) -> Self {
        let network = Network::of("simulation", &node);
        let (epoch, tokens, sent) = (Epoch::new(1), BTreeMap::new(), VecDeque::new());
        Downgrade { network, node, epoch, tokens, sent }
    }

    fn challenge(&self, to: SocketAddr, request: &Unverified<'_>) -> Option<Vec<u8>> {
        let token = self.tokens.get(&to).copied().unwrap_or(0);
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write_challenge(&mut out, &self.network, &self.node, self.epoch, token, request)?;
        Some(out[..length].to_vec())
    }
}

impl Adversary for Downgrade {
    fn incoming(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        while self.sent.front().is_some_and(|(at, ..)| now.since(*at) > LATE) {
            let Some((_, to, late)) = self.sent.pop_front() else { break };
            let mut forged = late.clone();
            forged[TRANSACTION_AT] ^= 1;
            out.extend([(to, late), (to, forged)]);
        }
        let Ok(request) = Unverified::parse(bytes, &self.network) else { return true };
        if request.auth() != Auth::Mac || request.kind().is_answer() {
            return true;
        }
        if let Some(challenge) = self.challenge(from, &request) {
            if self.sent.len() == CHALLENGES {
                self.sent.pop_front();
            }
            self.sent.push_back((now, from, challenge.clone()));
            out.push((from, challenge));
        }
        false
    }

    fn outgoing(&mut self, _: Instant, to: SocketAddr, bytes: &mut Vec<u8>) -> bool {
        let Some(peeked) = Peeked::of(bytes) else { return true };
        self.epoch = peeked.epoch;
        if peeked.kind.is_answer() {
            self.tokens.insert(to, peeked.token);
        }
        true
    }

    fn is_on_path(&self) -> bool {
        true
    }
}

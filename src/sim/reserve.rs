//! An adversary that reserves other nodes' space: it offers pieces that it does not have, and begins to send them.

use super::adversary::Adversary;
use super::chance::Chance;
use super::reseal::Reseal;
use super::streams::is_dialled;
use crate::id::Key;
use crate::io::{Mode, StreamId};
use crate::manifest::Content;
use crate::wire::frame::{Frame, Offer};
use crate::wire::network::Network;
use std::collections::BTreeMap;

/// The length of each invented piece.
const LENGTH: u32 = 1 << 20;
/// The offers that the adversary makes on a stream.
const OFFERS: u32 = 16;
/// The first number of its offers. Its node's own requests have lower ones.
const REQUESTS: u32 = 1 << 30;
/// The most streams that it remembers.
const STREAMS: usize = 256;

/// Takes over each stream of its node when the handshake is over: it offers `OFFERS` invented pieces of 1 MiB, sends
/// the first byte of the first one that is accepted, and then nothing.
pub struct Reserve {
    network: Network,
    chance: Chance,
    streams: BTreeMap<StreamId, Hold>,
}

/// A stream that the adversary holds.
struct Hold {
    reseal: Reseal,
    offered: bool,
    /// Whether the content of a piece has begun. No frame may follow until it has ended, which it never does.
    begun: bool,
}

impl Reserve {
    /// An adversary in this network.
    pub fn new(network: Network, chance: Chance) -> Self {
        Reserve { network, chance, streams: BTreeMap::new() }
    }

    fn hold(&mut self, stream: StreamId) -> &mut Hold {
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&stream) {
            self.streams.pop_first();
        }
        let network = &self.network;
        self.streams.entry(stream).or_insert_with(|| Hold {
            reseal: Reseal::new(network, is_dialled(stream)),
            offered: false,
            begun: false,
        })
    }
}

impl Adversary for Reserve {
    fn said(&mut self, stream: StreamId, frame: &mut Vec<u8>) {
        let keys: Vec<Key> = (0..OFFERS).map(|_| Key(self.chance.bytes())).collect();
        let hold = self.hold(stream);
        if hold.offered {
            // The node's own frames would not be in order.
            return frame.clear();
        }
        if hold.reseal.said(frame).is_none() {
            return;
        }
        frame.clear();
        for (request, key) in (REQUESTS..).zip(keys) {
            let offer = Offer {
                key,
                content: Content::Chunk,
                length: LENGTH,
                input_offset: 0,
                replicas: 3,
                mode: Mode::UNKNOWN,
                lifetime: 86_400,
                claim: None,
            };
            hold.reseal.seal(&Frame::Store { request, offer }, frame);
        }
        hold.offered = true;
    }

    fn heard(&mut self, stream: StreamId, bytes: &mut Vec<u8>, back: &mut Vec<u8>) {
        let hold = self.hold(stream);
        let mut accepted = None;
        hold.reseal.open(bytes, |frame| match frame {
            Frame::Accept { request, have: false } if request >= REQUESTS => accepted = Some(request),
            _ => {}
        });
        if let Some(request) = accepted.filter(|_| !hold.begun) {
            hold.begun = true;
            hold.reseal.seal(&Frame::StoreData { request, length: LENGTH }, back);
            back.push(0);
        }
        if hold.offered {
            // Its node did not make these offers, and hears nothing of the answers.
            bytes.clear();
        }
    }
}

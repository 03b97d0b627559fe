//! The peer's end of a connection: the handshake, seals, and what flows in both directions.

use crate::fixture::Fixture;
use crate::peer;
use elver::id::{Key, NodeId};
use elver::identity::Identity;
use elver::io::{Mode, Sink};
use elver::manifest::{Content, Manifest, ManifestBuilder};
use elver::wire::frame::{Ephemeral, Frame, Hello, Parsed, Refusal, StreamKeys};
use elver::wire::network::Network;
use elver::wire::possession::{Nonce, proof, selected};
use std::collections::{BTreeMap, VecDeque};
use zerocopy::IntoBytes;

/// The most frames of the node that wait for the fuzzer to answer them.
const ASKED_MAX: usize = 32;

/// A frame of the node that an honest peer answers.
#[derive(Clone, Debug)]
pub enum Asked {
    Piece {
        request: u32,
        key: Key,
    },
    Which {
        question: u32,
        keys: Vec<Key>,
    },
    Offer {
        request: u32,
        key: Key,
    },
    Arrived {
        request: u32,
        key: Key,
    },
    Inspect {
        question: u32,
        count: usize,
    },
    Challenge {
        question: u32,
        key: Key,
        nonce: Nonce,
    },
    /// The node accepts what the peer offered.
    Accepted {
        request: u32,
    },
}

/// Content that the node announced.
struct Announced {
    request: u32,
    left: usize,
    key: Option<Key>,
    /// Whether it is a piece that the node offered, rather than the answer to a request.
    offered: bool,
    bytes: Vec<u8>,
}

/// A connection as its peer sees it.
pub struct Stream {
    pub peer: usize,
    network: Network,
    identity: Identity,
    ephemeral: Ephemeral,
    /// Whether the node dialled.
    dialled: bool,
    ours: Hello,
    keys: Option<StreamKeys>,
    /// Whether the node has sent its proof: from then on it seals.
    is_proven: bool,
    heard: Vec<u8>,
    announced: Option<Announced>,
    /// Pieces that the peer requested, and those that it offered, by their numbers.
    requested: BTreeMap<u32, Key>,
    offered: BTreeMap<u32, Key>,
    arrived: BTreeMap<u32, Key>,
    asked: VecDeque<Asked>,
    /// Bytes on their way to the node.
    pub pipe: Vec<u8>,
    /// The node's sink, and what it took.
    pub sinking: Option<(Sink, Vec<u8>)>,
    /// Whether the peer reads nothing.
    pub stalled: bool,
    /// The bytes of files that left for the peer and were not reported to the node.
    pub unreported: u64,
    /// Whether the node wrote since it was told that all is sent.
    pub undrained: bool,
}

impl Stream {
    /// A new connection; the peer sends its hello. `dialled`: the node connected.
    pub fn new(peer: usize, dialled: bool, number: u64) -> Stream {
        let identity = peer::identity(peer);
        let network = Network::of(peer::NETWORK, &identity);
        let mut random = [peer as u8 + 1; 32];
        random[..8].copy_from_slice(&number.to_le_bytes());
        let ephemeral = Ephemeral::new(&network, random);
        let port = peer::address(peer).port();
        let ours = Hello::new(network.id(), identity.public(), ephemeral.public(), port, false);
        let mut pipe = Vec::new();
        Frame::Hello(&ours).write(&mut pipe);
        Stream {
            peer,
            network,
            identity,
            ephemeral,
            dialled,
            ours,
            keys: None,
            is_proven: false,
            heard: Vec::new(),
            announced: None,
            requested: BTreeMap::new(),
            offered: BTreeMap::new(),
            arrived: BTreeMap::new(),
            asked: VecDeque::new(),
            pipe,
            sinking: None,
            stalled: false,
            unreported: 0,
            undrained: false,
        }
    }

    /// The node wrote bytes.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.undrained = true;
        self.heard.extend_from_slice(bytes);
        while self.take_frame() {}
    }

    /// The node sent a part of a file.
    pub fn hear_file(&mut self, bytes: &[u8]) {
        self.undrained = true;
        self.unreported += bytes.len() as u64;
        assert!(self.heard.is_empty(), "files follow whole frames");
        let announced = self.announced.as_mut().expect("a file follows a frame that announces it");
        assert!(bytes.len() <= announced.left, "no more bytes than were announced");
        announced.left -= bytes.len();
        announced.bytes.extend_from_slice(bytes);
        self.finish_announced();
    }

    /// Takes one frame, or announced content, off what the node wrote.
    fn take_frame(&mut self) -> bool {
        if let Some(announced) = &mut self.announced {
            let length = announced.left.min(self.heard.len());
            announced.left -= length;
            announced.bytes.extend(self.heard.drain(..length));
            return self.finish_announced() && !self.heard.is_empty();
        }
        let heard = core::mem::take(&mut self.heard);
        let parsed = match &mut self.keys {
            Some(keys) if self.is_proven => Frame::open(&heard, &mut keys.theirs),
            _ => Frame::parse(&heard),
        };
        let length = match parsed.expect("the node writes frames that its peer accepts") {
            Parsed::Frame(frame, length) => {
                self.obey(&frame);
                length
            }
            Parsed::Incomplete => 0,
        };
        self.heard = heard[length..].to_vec();
        length > 0
    }

    /// Whether the announced content is complete. It must be what was announced.
    fn finish_announced(&mut self) -> bool {
        if self.announced.as_ref().is_none_or(|announced| announced.left > 0) {
            return false;
        }
        let Some(Announced { request, key, offered, bytes, .. }) = self.announced.take() else {
            return false;
        };
        if let Some(key) = key {
            assert!(verifies(&key, &bytes), "the node serves only what verifies");
            if offered {
                self.ask(Asked::Arrived { request, key });
            }
        }
        true
    }

    fn obey(&mut self, frame: &Frame<'_>) {
        match *frame {
            Frame::Hello(theirs) => {
                let (first, second) = if self.dialled { (theirs, &self.ours) } else { (&self.ours, theirs) };
                // The peer dialled if the node did not.
                let digest =
                    self.network.handshake_digest(!self.dialled, first.as_bytes(), second.as_bytes());
                Frame::Proof { signature: &self.identity.sign(&digest) }.write(&mut self.pipe);
                self.keys = self.ephemeral.agree(&self.network, !self.dialled, &self.ours, theirs);
            }
            Frame::Proof { .. } => self.is_proven = true,
            Frame::Request { request, key } => self.ask(Asked::Piece { request, key }),
            Frame::Which { question, keys } => self.ask(Asked::Which { question, keys: keys.to_vec() }),
            Frame::Store { request, offer } => {
                self.arrived.insert(request, offer.key);
                self.ask(Asked::Offer { request, key: offer.key });
            }
            Frame::Inspect { question, keys } => self.ask(Asked::Inspect { question, count: keys.len() }),
            Frame::Challenge { question, key, nonce } => self.ask(Asked::Challenge { question, key, nonce }),
            Frame::Accept { request, have: false } => self.ask(Asked::Accepted { request }),
            Frame::Block { request, length, .. } => {
                let key = self.requested.get(&request).copied();
                self.announce(Announced {
                    request,
                    left: length as usize,
                    key,
                    offered: false,
                    bytes: vec![],
                });
            }
            Frame::StoreData { request, length } => {
                let key = self.arrived.get(&request).copied();
                self.announce(Announced {
                    request,
                    left: length as usize,
                    key,
                    offered: true,
                    bytes: vec![],
                });
            }
            _ => {}
        }
    }

    fn announce(&mut self, announced: Announced) {
        self.announced = Some(announced);
        self.finish_announced();
    }

    fn ask(&mut self, asked: Asked) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push_back(asked);
        }
    }

    /// Seals a frame and puts it on the way to the node; before the handshake is over it goes without a seal.
    pub fn say(&mut self, frame: &Frame<'_>) {
        match *frame {
            Frame::Request { request, key } => _ = self.requested.insert(request, key),
            Frame::Store { request, offer } => _ = self.offered.insert(request, offer.key),
            _ => {}
        }
        match &mut self.keys {
            Some(keys) => frame.write_sealed(&mut self.pipe, &mut keys.ours),
            None => frame.write(&mut self.pipe),
        }
    }

    /// Answers the node's oldest frame that has no answer, as an honest peer would, but for the bits of `twist`: 1 refuses, 2 changes
    /// a byte of content, 4 sends less.
    pub fn answer(&mut self, node: &NodeId, fixture: &Fixture, twist: u8) {
        let Some(asked) = self.asked.pop_front() else { return };
        let refuses = twist & 1 != 0;
        match asked {
            Asked::Piece { request, key } => match fixture.pieces.get(&key).filter(|_| !refuses) {
                Some(piece) => {
                    let (content, length) = (piece.content, piece.bytes.len() as u32);
                    self.say(&Frame::Block { request, content, length, mode: Mode::UNKNOWN });
                    self.pour(&piece.bytes, twist);
                }
                None => self.say(&Frame::Refuse { request, reason: Refusal::NotFound }),
            },
            Asked::Which { question, keys } => {
                let mut bitmap = [0; 16];
                let has = |key: &Key| !refuses && fixture.pieces.contains_key(key);
                (0..keys.len()).filter(|&i| has(&keys[i])).for_each(|i| bitmap[i / 8] |= 1 << (i % 8));
                self.say(&Frame::Have { question, bitmap });
            }
            Asked::Offer { request, .. } => match refuses {
                true => self.say(&Frame::Refuse { request, reason: Refusal::Busy }),
                false => self.say(&Frame::Accept { request, have: twist & 2 != 0 }),
            },
            Asked::Arrived { request, .. } => self.say(&Frame::Stored { request }),
            Asked::Inspect { question, count } => {
                let entries: Vec<_> = (0..count)
                    .map(|_| elver::wire::inspect::WireInspectEntry::new(&Default::default()))
                    .collect();
                self.say(&Frame::Inspected { question, entries: &entries });
            }
            Asked::Challenge { question, key, nonce } => {
                let piece = fixture.pieces.get(&key).filter(|_| !refuses);
                let proof = piece.map(|piece| {
                    let runs = selected(&nonce, piece.bytes.len() as u32);
                    let sample: Vec<u8> = runs
                        .iter()
                        .flat_map(|run| piece.bytes[run.offset as usize..][..run.length as usize].iter())
                        .copied()
                        .collect();
                    proof(&nonce, &self.identity.id(), node, &key, &sample)
                });
                self.say(&Frame::Possession { question, proof });
            }
            Asked::Accepted { request } => {
                let key = self.offered.get(&request).copied();
                if let Some(piece) = key.and_then(|key| fixture.pieces.get(&key)) {
                    self.say(&Frame::StoreData { request, length: piece.bytes.len() as u32 });
                    self.pour(&piece.bytes, twist);
                }
            }
        }
    }

    fn pour(&mut self, bytes: &[u8], twist: u8) {
        let from = self.pipe.len();
        let length = if twist & 4 != 0 { bytes.len() / 2 } else { bytes.len() };
        self.pipe.extend_from_slice(&bytes[..length]);
        if twist & 2 != 0 && length > 0 {
            self.pipe[from + length / 2] ^= 1;
        }
    }
}

/// Whether bytes are the piece with this key: one of the fixture, else a file or a manifest.
pub fn verifies(key: &Key, bytes: &[u8]) -> bool {
    match Fixture::get().pieces.get(key) {
        Some(piece) => piece.bytes == bytes,
        None => is_file(key, bytes) || Manifest::decode(bytes, key).is_ok(),
    }
}

/// Whether bytes are the file with this hash.
pub fn is_file(hash: &Key, bytes: &[u8]) -> bool {
    let whole = ManifestBuilder::new(bytes.len() as u64).and_then(|mut builder| {
        builder.update(bytes);
        builder.finish()
    });
    whole.is_some_and(|manifest| manifest.hash() == *hash)
}

/// The offer of a piece.
pub fn offer(fixture: &Fixture, key: Key, replicas: u8, lifetime: u32) -> elver::wire::frame::Offer {
    let piece = fixture.pieces.get(&key);
    elver::wire::frame::Offer {
        key,
        content: piece.map_or(Content::File, |piece| piece.content),
        length: piece.map_or(7, |piece| piece.bytes.len() as u32),
        input_offset: piece.map_or(0, |piece| piece.input_offset),
        replicas,
        mode: Mode::UNKNOWN,
        lifetime,
        claim: None,
    }
}

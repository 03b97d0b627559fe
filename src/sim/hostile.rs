//! Adversaries, by kind. Each hostile host runs a real node with an [`Adversary`] in front of it.

use super::Peeked;
use super::adversary::{Adversary, Sent};
use super::blob::{Blob, Slice};
use super::chance::Chance;
use super::junk::Junk;
use super::on_path::Swallow;
use super::reseal::Reseal;
use super::streams::is_dialled;
use super::world::World;
use crate::claim::PieceClaim;
use crate::dht::closest;
use crate::id::{Key, NodeId, PublicKey};
use crate::identity::Identity;
use crate::io::{PieceMeta, StreamId};
use crate::limits::LIFETIME_SECONDS_MAX;
use crate::replication::REPLICAS_MAX;
use crate::time::Instant;
use crate::wire::claim::sign_claim;
use crate::wire::contact::{Contact, WireContact};
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write, write_challenge};
use crate::wire::frame::{Frame, Offer};
use crate::wire::header::{Auth, Kind};
use crate::wire::message::Message;
use crate::wire::network::Network;
use crate::wire::record::Record;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// The kind of an adversary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hostility {
    /// Names accomplices, and nodes that do not exist, as the nearest to any key.
    Liar,
    /// Hands out records with a changed value and a higher sequence number.
    Forger,
    /// Sends content with one bit flipped.
    Corrupter,
    /// Takes pieces and acknowledges them, keeps none, and answers pings only.
    Dropper,
    /// Reports each piece that it receives as unverifiable.
    Complainer,
    /// A man in the middle before a node: it forwards pings and handshakes, swallows offers and records, and acknowledges them in
    /// the node's name.
    Relay,
    /// Connects to no node, and tells each that asks to be dialled back that it could not be.
    Denier,
    /// Proves that it has the pieces that it takes, and loses them as soon as they have been proven.
    Hollow,
}

impl Hostility {
    /// Every kind.
    pub const ALL: [Hostility; 6] = [
        Hostility::Liar,
        Hostility::Forger,
        Hostility::Corrupter,
        Hostility::Dropper,
        Hostility::Complainer,
        Hostility::Relay,
    ];
}

/// Makes hosts hostile. The kinds are assigned in turn. The hosts know each other's contacts.
pub fn corrupt(world: &mut World, hosts: &[usize], kinds: &[Hostility]) {
    let accomplices: Rc<[Contact]> = hosts.iter().map(|host| world.contact(*host)).collect();
    for (&host, &kind) in hosts.iter().zip(kinds.iter().cycle()) {
        let adversary: Box<dyn Adversary> = match kind {
            Hostility::Liar | Hostility::Forger => Box::new(Liar {
                network: network_of(world, host),
                identity: world.hosts[host].identity(),
                accomplices: Rc::clone(&accomplices),
                forges: kind == Hostility::Forger,
                asked: VecDeque::new(),
                tokens: VecDeque::new(),
                chance: Chance::new(world.chance.u64(), 5),
            }),
            Hostility::Corrupter => Box::new(Corrupter),
            Hostility::Dropper => Box::new(Dropper),
            Hostility::Denier => Box::new(Denier),
            Hostility::Hollow => Box::new(Hollow),
            Hostility::Relay => Box::new(Swallow::new(world.hosts[host].identity())),
            Hostility::Complainer => Box::new(Complainer::new(network_of(world, host))),
        };
        world.set_adversary(host, adversary);
    }
}

/// The network of all simulated nodes, as a host's node sees it.
pub(super) fn network_of(world: &World, host: usize) -> Network {
    Network::of("simulation", &world.hosts[host].identity())
}

/// Turns hosts into sources of [`Junk`].
pub fn flood_with_junk(world: &mut World, hosts: &[usize]) {
    let contacts = (0..world.hosts.len()).map(|host| world.contact(host));
    let ids: Rc<BTreeMap<SocketAddr, NodeId>> =
        Rc::new(contacts.map(|contact| (contact.addr, contact.id)).collect());
    for &host in hosts {
        let network = network_of(world, host);
        let chance = Chance::new(world.chance.u64(), 5);
        let junk = Junk::new(network, world.contact(host).addr, Rc::clone(&ids), chance);
        world.set_adversary(host, Box::new(junk));
    }
}

/// Its node's dials fail.
struct Denier;

impl Adversary for Denier {
    fn dials(&self) -> bool {
        false
    }
}

/// Rewrites its node's answers.
struct Liar {
    network: Network,
    identity: Identity,
    accomplices: Rc<[Contact]>,
    forges: bool,
    /// Requests that its node has not answered yet: transaction, asker, target.
    asked: VecDeque<(u64, NodeId, Key)>,
    /// The tokens that its node gave to askers, by address.
    tokens: VecDeque<(SocketAddr, u64)>,
    chance: Chance,
}

/// The most requests that a liar remembers until its node answers them.
const ASKED: usize = 64;
/// The most contacts in a lie.
const LIES: usize = 16;

impl Liar {
    fn lies(&mut self, target: &Key) -> Vec<WireContact> {
        let near = closest(self.accomplices.iter(), target, LIES - 4);
        let invented = (0..4).map(|_| {
            let ip = 0x1000_0001 + (self.chance.below(1 << 16) << 8) as u32;
            Contact::new(PublicKey(self.chance.bytes()), (ip.to_be_bytes(), 3583).into())
        });
        near.into_iter().chain(invented).map(|contact| WireContact::new(&contact, 0)).collect()
    }

    fn rewrite(&mut self, recipient: NodeId, target: Key, bytes: &[u8]) -> Option<Vec<u8>> {
        let peeked = Peeked::of(bytes)?;
        let datagram =
            Unverified::parse(bytes, &self.network).ok()?.verify(&self.network, &recipient).ok()?;
        let Message::Found { contacts, record, .. } = datagram.message() else { return None };
        let mut lies = self.lies(&target);
        lies.truncate(contacts.len().max(2));
        let forged = record.filter(|_| self.forges).map(|record| {
            let mut bytes = record.bytes().to_vec();
            bytes[32] = bytes[32].wrapping_add(1);
            bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
            bytes
        });
        let record = forged.as_ref().and_then(|bytes| Record::parse(bytes).ok());
        let message = Message::Found { contacts: &lies, providers: &[], record };
        let envelope = Envelope {
            recipient: Some(recipient),
            leaf: false,
            epoch: peeked.epoch,
            sequence: peeked.sequence,
            transaction: peeked.transaction,
            token: peeked.token,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &self.network, &self.identity, &envelope, &message)?;
        Some(out[..length].to_vec())
    }
}

impl Adversary for Liar {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        let Ok(parsed) = Unverified::parse(bytes, &self.network) else { return true };
        if parsed.kind() == Kind::Find && parsed.auth() == Auth::Mac {
            // The adversary does not know its node's MAC key. A challenge makes the asker sign the request.
            let token = self.tokens.iter().find(|(addr, _)| *addr == from).map_or(0, |(_, token)| *token);
            let mut challenge = [0; DATAGRAM_BYTES_MAX];
            let epoch = Epoch::new(1);
            let length =
                write_challenge(&mut challenge, &self.network, &self.identity, epoch, token, &parsed);
            out.extend(length.map(|length| (from, challenge[..length].to_vec())));
            return false;
        }
        if let Ok(datagram) = parsed.verify(&self.network, &self.identity.id()) {
            if let Message::Find { target, .. } = datagram.message() {
                if self.asked.len() == ASKED {
                    self.asked.pop_front();
                }
                self.asked.push_back((datagram.transaction(), datagram.id(), target));
            }
        }
        true
    }

    fn outgoing(&mut self, _: Instant, to: SocketAddr, bytes: &mut Vec<u8>) -> bool {
        let Some(peeked) = Peeked::of(bytes).filter(|peeked| peeked.kind == Kind::Found) else { return true };
        self.tokens.retain(|(addr, _)| *addr != to);
        if self.tokens.len() == ASKED {
            self.tokens.pop_front();
        }
        self.tokens.push_back((to, peeked.token));
        let index = self.asked.iter().position(|(transaction, ..)| *transaction == peeked.transaction);
        if let Some((_, asker, target)) = index.and_then(|index| self.asked.remove(index)) {
            if let Some(lie) = self.rewrite(asker, target, bytes) {
                *bytes = lie;
            }
        }
        true
    }
}

struct Corrupter;

impl Adversary for Corrupter {
    fn content(&mut self, content: Slice) -> Slice {
        content.damaged()
    }
}

/// Corrupts the content of one file. Other content stays as it is.
pub struct Rotten {
    /// The file.
    pub file: Rc<Blob>,
}

impl Adversary for Rotten {
    fn content(&mut self, content: Slice) -> Slice {
        if content.is_of(&self.file) { content.damaged() } else { content }
    }
}

/// The most pieces that a complainer remembers for one stream until its next frame there.
const COMPLAINTS: usize = 64;

/// Before each frame of its node, complains of the pieces that the node requested on that stream since its previous frame.
struct Complainer {
    network: Network,
    asked: BTreeMap<StreamId, (Reseal, Vec<Key>)>,
}

impl Complainer {
    fn new(network: Network) -> Self {
        Complainer { network, asked: BTreeMap::new() }
    }

    fn stream(&mut self, stream: StreamId) -> &mut (Reseal, Vec<Key>) {
        let new = || (Reseal::new(&self.network, is_dialled(stream)), Vec::new());
        self.asked.entry(stream).or_insert_with(new)
    }
}

impl Adversary for Complainer {
    fn said(&mut self, stream: StreamId, frame: &mut Vec<u8>) {
        let (reseal, asked) = self.stream(stream);
        // Content is not a frame, and during the handshake no piece has been requested.
        let Some(said) = reseal.said(frame) else { return };
        let mut complaints = Vec::new();
        asked.drain(..).for_each(|key| reseal.seal(&Frame::Unverified { key }, &mut complaints));
        reseal.seal(&said, &mut complaints);
        if let Frame::Request { key, .. } = said {
            asked.push(key);
        }
        asked.truncate(COMPLAINTS);
        *frame = complaints;
    }

    fn heard(&mut self, stream: StreamId, bytes: &mut Vec<u8>, _: &mut Vec<u8>) {
        self.stream(stream).0.heard(bytes);
    }
}

/// The number of offers that an inflater puts before a frame of its node.
const OFFERS_AT_ONCE: usize = 8;

/// Offers pieces that other nodes keep, without content, with the most replicas and the longest lifetime that an offer can ask
/// for. Every other offer has a claim that the publisher did not sign; the rest have none.
pub struct Inflater {
    network: Network,
    /// The pieces to inflate.
    targets: Rc<[PieceMeta]>,
    /// Signs claims of its own. Without it the claims are forged.
    signer: Option<Identity>,
    offered: u32,
    streams: BTreeMap<StreamId, Reseal>,
}

impl Inflater {
    /// An adversary in this network that inflates `targets`.
    pub fn new(network: Network, targets: Rc<[PieceMeta]>) -> Self {
        Inflater { network, targets, signer: None, offered: 0, streams: BTreeMap::new() }
    }

    /// The same with claims that this publisher signs: others must take them.
    pub fn signing(network: Network, targets: Rc<[PieceMeta]>, publisher: Identity) -> Self {
        Inflater { signer: Some(publisher), ..Inflater::new(network, targets) }
    }

    fn stream(&mut self, stream: StreamId) -> &mut Reseal {
        let network = &self.network;
        self.streams.entry(stream).or_insert_with(|| Reseal::new(network, is_dialled(stream)))
    }

    fn offer(&self, target: &PieceMeta) -> Offer {
        let PieceMeta { key, content, length, input_offset, mode, .. } = *target;
        let (replicas, lifetime) = (REPLICAS_MAX, LIFETIME_SECONDS_MAX);
        let publisher = target.claim.map_or(PublicKey([1; 32]), |claim| claim.publisher());
        let forged = PieceClaim::unsigned(publisher, replicas, lifetime, u64::MAX);
        let claim = match &self.signer {
            Some(signer) => Some(sign_claim(&self.network, signer, &key, (replicas, lifetime), 1)),
            None => Some(forged).filter(|_| self.offered % 2 == 1),
        };
        Offer { key, content, length, input_offset, replicas, mode, lifetime, claim }
    }
}

impl Adversary for Inflater {
    fn said(&mut self, stream: StreamId, frame: &mut Vec<u8>) {
        let Some(said) = self.stream(stream).said(frame) else { return };
        let mut bytes = Vec::new();
        if matches!(said, Frame::Request { .. } | Frame::Which { .. }) && !self.targets.is_empty() {
            for _ in 0..OFFERS_AT_ONCE {
                let target = self.targets[self.offered as usize / 2 % self.targets.len()];
                let offer = self.offer(&target);
                self.offered += 1;
                let offer = Frame::Store { request: 1 << 30 | self.offered, offer };
                self.stream(stream).seal(&offer, &mut bytes);
            }
        }
        self.stream(stream).seal(&said, &mut bytes);
        *frame = bytes;
    }

    fn heard(&mut self, stream: StreamId, bytes: &mut Vec<u8>, _: &mut Vec<u8>) {
        self.stream(stream).heard(bytes);
    }
}

struct Dropper;

impl Adversary for Dropper {
    fn incoming(&mut self, _: Instant, _: SocketAddr, bytes: &[u8], _: &mut Vec<Sent>) -> bool {
        Peeked::of(bytes).is_some_and(|peeked| peeked.kind == Kind::Ping || peeked.kind.is_answer())
    }

    fn keeps_pieces(&self) -> bool {
        false
    }
}

/// Does what an honest host does. [`lose_pieces`] empties its disk behind its node's back.
struct Hollow;

impl Adversary for Hollow {}

/// These hosts lose all pieces. Their nodes are not told: they go on to claim that they have them.
pub fn lose_pieces(world: &mut World, hosts: &[usize]) {
    for &host in hosts {
        world.hosts[host].disk.forget_pieces();
    }
}

/// A secret whose node id shares a prefix of at least `bits` bits with `key`. The search takes about 2^bits attempts.
pub fn secret_near(key: &Key, bits: u32, real: bool, chance: &mut Chance) -> [u8; 32] {
    loop {
        let secret = chance.bytes();
        let identity = if real { Identity::from_secret(&secret) } else { Identity::stand_in(&secret) };
        if identity.id().key().common_prefix(key) >= bits {
            return secret;
        }
    }
}

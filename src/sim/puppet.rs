//! Hosts without a node: adversaries that speak the protocol themselves, with any number of identities.

use super::adversary::{Adversary, Sent};
use super::chance::Chance;
use super::junk::fresh;
use super::world::World;
use crate::id::{Key, NodeId};
use crate::identity::Identity;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write};
use crate::wire::gossip::{GossipBody, Hops};
use crate::wire::message::{Announcement, Message};
use crate::wire::network::Network;
use crate::wire::provider::ProviderRecord;
use crate::wire::record::sign_record;
use crate::wire::state::{About, NodeState};
use core::net::SocketAddr;
use zerocopy::IntoBytes;

/// An identity of a puppet, and the sequence number of its last datagram.
struct Mask {
    identity: Identity,
    sequence: u64,
}

/// The masks of one puppet.
struct Masks {
    network: Network,
    masks: Vec<Mask>,
}

impl Masks {
    fn new(count: usize, real: bool, chance: &mut Chance) -> Masks {
        let identity = |secret: [u8; 32]| match real {
            true => Identity::from_secret(&secret),
            false => Identity::stand_in(&secret),
        };
        let masks: Vec<Mask> =
            (0..count).map(|_| Mask { identity: identity(chance.bytes()), sequence: 0 }).collect();
        Masks { network: Network::of("simulation", &masks[0].identity), masks }
    }

    /// A datagram from one mask. Its transaction encodes the mask, so that the answer names the mask.
    fn compose(&mut self, mask: usize, to: NodeId, token: u64, message: &Message<'_>) -> Vec<u8> {
        let speaker = &mut self.masks[mask];
        speaker.sequence += 1;
        let envelope = Envelope {
            recipient: Some(to),
            leaf: false,
            epoch: Epoch::new(1),
            sequence: speaker.sequence,
            transaction: mask as u64 + 1,
            token,
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &self.network, &speaker.identity, &envelope, message);
        out[..length.unwrap_or(0)].to_vec()
    }

    /// For an answer: the mask that it is addressed to, the node that sent it, and its token.
    fn answered(&self, bytes: &[u8]) -> Option<(usize, NodeId, u64)> {
        let parsed =
            Unverified::parse(bytes, &self.network).ok().filter(|parsed| parsed.kind().is_answer())?;
        let mask = parsed.transaction().checked_sub(1)? as usize;
        let verified = parsed.verify(&self.network, &self.masks.get(mask)?.identity.id()).ok()?;
        Some((mask, verified.id(), verified.token()))
    }
}

/// For each answer, sends the answering node a datagram of records: a value, or providers under keys near that node.
struct Flooder {
    masks: Masks,
    own: SocketAddr,
    chance: Chance,
    /// The number of datagrams that the flooder still sends.
    left: u32,
}

impl Flooder {
    /// A key that shares its first 16 bits with a node's id.
    fn key_near(&mut self, node: &NodeId) -> Key {
        let mut key = Key(self.chance.bytes());
        key.0[..2].copy_from_slice(&node.0[..2]);
        key
    }

    fn flood(&mut self, mask: usize, to: NodeId, token: u64) -> Vec<u8> {
        let network = self.masks.network.clone();
        if self.chance.happens(0.5) {
            let files: Vec<Key> = (0..5).map(|_| self.key_near(&to)).collect();
            let identity = &self.masks.masks[mask].identity;
            let announcements: Vec<Announcement> = files
                .into_iter()
                .map(|file| {
                    let provider =
                        ProviderRecord::new(&network, identity, &file, self.own, false, 48 * 3600, 1);
                    Announcement { file, provider }
                })
                .collect();
            return self.masks.compose(mask, to, token, &Message::Announce { announcements: &announcements });
        }
        let name = format!("{:x}", self.chance.u64());
        let identity = &self.masks.masks[mask].identity;
        let bytes = sign_record(&network, identity, &name, b"junk", 48 * 3600, 1).unwrap_or_default();
        match crate::wire::record::Record::parse(&bytes) {
            Ok(record) => self.masks.compose(mask, to, token, &Message::StoreRecord { record }),
            Err(_) => Vec::new(),
        }
    }
}

impl Adversary for Flooder {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        if let Some((mask, node, token)) = self.masks.answered(bytes).filter(|_| self.left > 0) {
            self.left -= 1;
            let datagram = self.flood(mask, node, token);
            out.push((from, datagram));
        }
        false
    }
}

/// Makes a host flood `victims` with `datagrams` datagrams of records, with `identities` identities at its one address.
pub fn flood(world: &mut World, host: usize, victims: &[usize], identities: usize, datagrams: u32) {
    let mut chance = Chance::new(world.chance.u64(), 6);
    let masks = Masks::new(identities, world.plan.real_signatures, &mut chance);
    let own = world.links.port(host).addr;
    let flooder = Flooder { masks, own, chance, left: datagrams };
    begin(world, host, victims, identities, flooder, |flooder| &mut flooder.masks);
}

/// The number of states in one gossip.
const STATES: usize = 6;
/// The gossips that a teller sends for each answer.
const GOSSIPS: u32 = 4;

/// For each answer, sends the answering node gossips with states of invented nodes. Every other state has a wrong signature.
struct Teller {
    masks: Masks,
    own: SocketAddr,
    chance: Chance,
    /// The number of gossips that the teller still sends.
    left: u32,
}

impl Teller {
    fn gossip(&mut self, mask: usize, to: NodeId, token: u64) -> Vec<u8> {
        let network = self.masks.network.clone();
        let scheme = network.scheme();
        let state = |identity: &Identity, addr: SocketAddr| {
            NodeState::new(
                &network,
                identity,
                &About { addrs: [Some(addr), None], ..About::default() },
                1 << 33,
            )
        };
        let mut states = vec![state(&self.masks.masks[mask].identity, self.own)];
        for number in 1..STATES {
            let invented = fresh(scheme, &mut self.chance);
            let ip = 0x3000_0001 + (self.chance.below(1 << 16) << 8) as u32;
            let mut told = state(&invented, (ip.to_be_bytes(), 3583).into());
            if number % 2 == 0 {
                told.as_mut_bytes().iter_mut().last().into_iter().for_each(|last| *last ^= 1);
            }
            states.push(told);
        }
        let mut hops = Hops::NO_NEWS;
        (0..STATES).for_each(|index| hops.set(index, 0));
        let body =
            GossipBody { states: &states, digest: &[], nearest: 0, whole: true, hops, suspicions: &[] };
        self.masks.compose(mask, to, token, &Message::Gossip(body))
    }
}

impl Adversary for Teller {
    fn incoming(&mut self, _: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Sent>) -> bool {
        let Some((mask, node, token)) = self.masks.answered(bytes) else { return false };
        for _ in 0..GOSSIPS.min(self.left) {
            self.left -= 1;
            let gossip = self.gossip(mask, node, token);
            out.push((from, gossip));
        }
        false
    }
}

/// Makes a host tell each of `victims` about invented nodes, `gossips` times in all, with `identities` identities at its one address,
/// which it validates first.
pub fn tell(world: &mut World, host: usize, victims: &[usize], identities: usize, gossips: u32) {
    let mut chance = Chance::new(world.chance.u64(), 8);
    let masks = Masks::new(identities, world.plan.real_signatures, &mut chance);
    let own = world.links.port(host).addr;
    let teller = Teller { masks, own, chance, left: gossips };
    begin(world, host, victims, identities, teller, |teller| &mut teller.masks);
}

/// Starts a puppet that reacts to answers: each of its masks pings each of `victims`.
fn begin<P: Adversary + 'static>(
    world: &mut World,
    host: usize,
    victims: &[usize],
    identities: usize,
    mut puppet: P,
    masks: impl Fn(&mut P) -> &mut Masks,
) {
    let mut first = Vec::new();
    for &victim in victims {
        for mask in 0..identities {
            let ping = masks(&mut puppet).compose(mask, world.id(victim), 0, &Message::Ping { padding: 0 });
            first.push((world.contact(victim).addr, ping));
        }
    }
    world.start_puppet(host, Box::new(puppet));
    for (to, bytes) in first {
        world.send_from(host, to, &bytes);
    }
}

/// The puppet of [`reflect`]. It ignores every datagram.
struct Reflector;

impl Adversary for Reflector {
    fn incoming(&mut self, _: Instant, _: SocketAddr, _: &[u8], _: &mut Vec<Sent>) -> bool {
        false
    }
}

/// Makes a host send each of `told` one datagram with rumours of invented nodes, all at the address `victim`.
pub fn reflect(world: &mut World, host: usize, told: &[usize], victim: SocketAddr) {
    let mut chance = Chance::new(world.chance.u64(), 7);
    world.start_puppet(host, Box::new(Reflector));
    for &target in told {
        let mut masks = Masks::new(STATES, world.plan.real_signatures, &mut chance);
        let network = masks.network.clone();
        let about = About { addrs: [Some(victim), None], ..About::default() };
        let states: Vec<NodeState> = masks
            .masks
            .iter()
            .map(|mask| NodeState::new(&network, &mask.identity, &about, 1 << 33))
            .collect();
        let mut hops = Hops::NO_NEWS;
        (0..STATES).for_each(|index| hops.set(index, 0));
        let body =
            GossipBody { states: &states, digest: &[], nearest: 0, whole: true, hops, suspicions: &[] };
        let bytes = masks.compose(0, world.id(target), 0, &Message::Gossip(body));
        let to: Contact = world.contact(target);
        world.send_from(host, to.addr, &bytes);
    }
}

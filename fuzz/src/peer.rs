//! A peer of the node under test. The fuzzer chooses what it says; the library seals it, so that it reaches the machines.

use elver::id::NodeId;
use elver::id::PublicKey;
use elver::identity::Identity;
use elver::limits::Limits;
use elver::peers::inbox;
use elver::peers::outbox::{Ask, Asker, Attempt, Outbox};
use elver::peers::table::Hold;
use elver::time::Instant;
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{Epoch, Unverified};
use elver::wire::gossip::{GossipBody, Hops};
use elver::wire::header::Kind;
use elver::wire::message::{Message, NotStored, ProbeOutcome, Want};
use elver::wire::network::Network;
use elver::wire::provider::ProviderRecord;
use elver::wire::state::{About, NodeState};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The network of the simulator, so that recorded messages are valid here.
pub const NETWORK: &str = "simulation";
/// The most requests of the node that a peer remembers.
const ASKED_MAX: usize = 16;

/// The secret of a peer.
fn secret(index: usize) -> [u8; 32] {
    [index as u8 + 10; 32]
}

/// The identity of a peer.
pub fn identity(index: usize) -> Identity {
    Identity::stand_in(&secret(index))
}

/// The address of a peer.
pub fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, index as u8 + 1, 0, 1], 3583))
}

/// A request of the node that has no answer yet.
#[derive(Clone, Copy)]
pub struct Asked {
    asker: Asker,
    kind: Kind,
    /// What a find looks for.
    want: Option<(elver::id::Key, Want)>,
    /// The member of a probe, or the number of announced files.
    target: Option<NodeId>,
    count: u8,
}

/// One peer.
pub struct Peer {
    pub index: usize,
    pub addr: SocketAddr,
    pub public: PublicKey,
    outbox: Outbox,
    asked: VecDeque<Asked>,
    transaction: u64,
    challenge: Option<u64>,
    sequence: u64,
}

impl Peer {
    /// A peer in its first run.
    pub fn new(index: usize) -> Peer {
        let identity = identity(index);
        let public = identity.public();
        Peer {
            index,
            addr: address(index),
            public,
            outbox: outbox(identity, 1),
            asked: VecDeque::new(),
            transaction: 1,
            challenge: None,
            sequence: 1 << 32,
        }
    }

    /// Starts another run: the peer has forgotten all keys.
    pub fn restart(&mut self, epoch: u64) {
        self.outbox = outbox(identity(self.index), epoch);
        self.asked.clear();
        self.challenge = None;
    }

    /// The peer's contact.
    pub fn contact(&self) -> Contact {
        Contact::new(self.public, self.addr)
    }

    /// A datagram of the node arrives.
    pub fn hear(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let network = self.outbox.network().clone();
        let datagram = Unverified::parse(bytes, &network).expect("the node sends what it would accept");
        if datagram.challenged().is_some() {
            self.challenge = Some(datagram.token());
            return;
        }
        let kind = datagram.kind();
        let Ok(received) =
            inbox::receive(&mut self.outbox, now, from, datagram, kind.is_answer(), |_| Hold::Contact)
        else {
            return;
        };
        if kind.is_answer() || kind == Kind::Leave {
            return;
        }
        let request = received.datagram;
        let (mut want, mut target, mut count) = (None, None, 1);
        match request.message() {
            Message::Find { target: key, want: wanted, .. } => want = Some((key, wanted)),
            Message::Probe { target: member } => target = Some(member),
            Message::Announce { announcements } => count = announcements.len() as u8,
            _ => {}
        }
        if self.asked.len() == ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { asker: Asker::of(from, &request), kind, want, target, count });
    }

    /// Sends a request.
    pub fn request(&mut self, now: Instant, node: (SocketAddr, NodeId), attempt: u8, message: &Message<'_>) {
        self.transaction += 1;
        let attempt = match (attempt % 4, self.challenge) {
            (0 | 1, _) => Attempt::First,
            (2, Some(token)) => Attempt::Challenged(token),
            _ => Attempt::Again,
        };
        let ask = Ask { to: node.0, recipient: Some(node.1), transaction: self.transaction, attempt };
        self.outbox.request(now, ask, message);
    }

    /// Says goodbye.
    pub fn leave(&mut self, now: Instant, node: (SocketAddr, NodeId), message: &Message<'_>) {
        self.outbox.goodbye(now, node.0, node.1, message);
    }

    /// Answers a request of the node with any message.
    pub fn answer(&mut self, now: Instant, which: usize, message: &Message<'_>) {
        if let Some(asked) = self.asked.remove(which % self.asked.len().max(1)) {
            self.outbox.answer(now, asked.asker, message);
        }
    }

    /// Answers a request of the node as an honest peer does that knows `contacts`, and may claim to provide every file.
    pub fn answer_honestly(&mut self, now: Instant, which: usize, contacts: &[Contact], provides: bool) {
        let Some(asked) = self.asked.remove(which % self.asked.len().max(1)) else { return };
        let wire: Vec<WireContact> = contacts.iter().map(|contact| WireContact::new(contact, 0)).collect();
        let state = [self.state(&About::default())];
        let provider =
            asked.want.filter(|(_, want)| provides && *want == Want::Providers).map(|(file, _)| {
                let (network, own) = (self.outbox.network(), self.outbox.identity());
                ProviderRecord::new(network, own, &file, self.addr, false, 3600, 1)
            });
        let message = match asked.kind {
            Kind::Ping => Message::Pong { observed: asked.asker.addr },
            Kind::Find => Message::Found { contacts: &wire, providers: provider.as_slice(), record: None },
            Kind::StoreRecord | Kind::Announce => {
                Message::Stored { accepted: asked.count, reason: NotStored::Nothing }
            }
            Kind::Gossip => Message::GossipReply(gossip(&state)),
            Kind::Probe => {
                let target = asked.target.unwrap_or(asked.asker.id).short();
                Message::ProbeReply { target, outcome: ProbeOutcome::Answered }
            }
            _ => return,
        };
        self.outbox.answer(now, asked.asker, &message);
    }

    /// A newer signed state of the peer, at its address.
    pub fn state(&mut self, about: &About) -> NodeState {
        self.sequence += 1;
        let mut about = *about;
        about.addrs[0].get_or_insert(self.addr);
        NodeState::new(self.outbox.network(), self.outbox.identity(), &about, self.sequence)
    }

    /// What the peer has to send: the bytes of its datagrams.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.outbox.poll().map(|datagram| datagram.bytes().to_vec())).collect()
    }

    /// The peer's network.
    pub fn network(&self) -> &Network {
        self.outbox.network()
    }

    /// The number of requests without an answer.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }
}

/// A gossip of states that are all rumours.
pub fn gossip(states: &[NodeState]) -> GossipBody<'_> {
    let mut hops = Hops::NO_NEWS;
    (0..states.len().min(Hops::STATES_MAX)).for_each(|index| hops.set(index, 0));
    GossipBody { states, digest: &[], nearest: 0, whole: false, hops, suspicions: &[] }
}

fn outbox(identity: Identity, epoch: u64) -> Outbox {
    let network = Network::of(NETWORK, &identity);
    let limits = Limits { datagrams_queued_max: 8, ..Limits::default() };
    Outbox::new(network, identity, false, Epoch::new(epoch), &limits, [epoch as u8; 32])
}

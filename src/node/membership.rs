//! The exchange between membership and the other machines.
//!
//! A node that sends an authenticated message is alive, whichever machine the message is for. A node that does not answer one machine
//! is probed by membership. Changes of liveness go to all machines: the routing table drops silent nodes, lookups and downloads turn
//! to others, and replication learns which holders are left.

use super::Node;
use crate::dht::BootstrapRound;
use crate::gossip::{Gossip, GossipEvent, Liveness, Member, OwnState};
use crate::replication::Neighbour;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use core::net::SocketAddr;

/// The last message to replication about the neighbourhood.
#[derive(Default)]
pub(super) struct Told {
    /// The generation of the neighbourhood.
    generation: Option<u64>,
    /// When the same generation must be told again, because a grace period ends.
    until: Option<Instant>,
}

impl Node {
    /// The membership machine.
    pub fn membership(&self) -> &Gossip {
        &self.machines.gossip
    }

    /// An authenticated datagram came from a node: tells membership that the node is alive.
    pub(super) fn sender_is_there(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        validated: bool,
    ) {
        let contact = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        let kind = datagram.message().kind();
        match kind {
            // Membership handles these itself.
            Kind::Gossip | Kind::Probe => {}
            _ if datagram.is_leaf() => {}
            _ if kind.is_answer() => self.machines.gossip.note_alive(now, contact),
            // A node at an unvalidated address must not make this node send datagrams there.
            _ if validated => self.machines.gossip.note_contact(now, contact),
            _ => {}
        }
    }

    /// A peer authenticated itself on a stream, or could not be reached.
    pub(super) fn stream_told(&mut self, now: Instant, contact: Contact, leaf: bool, alive: bool) {
        if !alive {
            self.unreachable(now, &contact);
            self.machines.gossip.note_failed(now, &contact.id);
        } else if !leaf {
            self.reached(now, contact);
            self.machines.gossip.note_contact(now, contact);
        }
    }

    /// A node that is not a leaf was reached: tells the DHT.
    fn reached(&mut self, now: Instant, contact: Contact) {
        self.machines.dht.note_alive(now, contact, self.machines.outbox.peers_mut());
    }

    /// A node could not be reached: tells the DHT.
    fn unreachable(&mut self, now: Instant, contact: &Contact) {
        self.machines.dht.note_unreachable(now, &contact.id, self.machines.outbox.peers_mut());
    }

    /// This node has joined the network.
    pub(super) fn joined(&mut self, now: Instant, contacts: u32) {
        log::info!("joined the network: {contacts} contacts");
        self.ops.uploads.handle_joined(now, &mut self.machines);
    }

    /// No node answered in a round of bootstrapping.
    pub(super) fn bootstrap_failed(&self, retry_in: Duration, round: BootstrapRound) {
        let asked = match (round.addresses, round.contacts) {
            (0, 0) if round.out_of_reach > 0 => format!(
                "no bootstrap address and no remembered contact can be reached from {}: they are of the other IP family",
                self.config.listen
            ),
            (0, 0) => "no bootstrap address and no remembered contact could be asked".into(),
            (1, 0) => "the bootstrap address does not answer".into(),
            (addresses, 0) => format!("none of {addresses} bootstrap addresses answers"),
            (0, contacts) => format!(
                "none of {contacts} remembered contacts answers at its last address; if their addresses have changed, \
                 start with --bootstrap"
            ),
            (addresses, contacts) => {
                format!("none of {addresses} bootstrap addresses and {contacts} remembered contacts answers")
            }
        };
        log::warn!("{asked}; trying again in {} s", retry_in.as_secs().max(1));
    }

    /// Handles an event of membership.
    pub(super) fn gossip_event(&mut self, now: Instant, event: GossipEvent) {
        match event {
            GossipEvent::Suspected { .. } => self.counters.suspected += 1,
            GossipEvent::Unresponsive { .. } => self.counters.unresponsive += 1,
            GossipEvent::Evicted { .. } => self.counters.evicted += 1,
            GossipEvent::Left { .. } => self.counters.left += 1,
            GossipEvent::Returned { .. } => self.counters.returned += 1,
            GossipEvent::Outdone { .. } => self.counters.outdone += 1,
            GossipEvent::Met { .. } | GossipEvent::Moved { .. } => {}
        }
        match event {
            GossipEvent::Met { contact }
            | GossipEvent::Returned { contact }
            | GossipEvent::Moved { contact, .. } => self.reached(now, contact),
            GossipEvent::Suspected { .. } => {}
            GossipEvent::Outdone { addrs } => self.twin.told(now, addrs, self.machines.dht.own_addr()),
            GossipEvent::Unresponsive { contact } => self.unreachable(now, &contact),
            GossipEvent::Evicted { contact } | GossipEvent::Left { contact, .. } => {
                self.machines.dht.forget(now, &contact.id);
            }
        }
    }

    /// Tells replication the neighbourhood, if it has changed. A member that said that it will return counts for as long as one that
    /// falls silent: an orderly reboot must not cost more copies than a crash.
    pub(super) fn tell_neighbourhood(&mut self, now: Instant) {
        let generation = self.machines.gossip.neighbourhood_generation();
        let told = &self.neighbourhood_told;
        if told.generation == Some(generation) && told.until.is_none_or(|until| now < until) {
            return;
        }
        let patience = self.config.gossip.unresponsive_after;
        let mut until: Option<Instant> = None;
        let neighbour = |member: Member| {
            let since = member.since;
            let liveness = match member.liveness {
                liveness @ (Liveness::Live | Liveness::Suspect) => liveness,
                Liveness::Left { for_good: false } if now < since + patience => {
                    until = earliest(until, Some(since + patience));
                    Liveness::Suspect
                }
                Liveness::Unresponsive | Liveness::Left { for_good: false } => Liveness::Unresponsive,
                Liveness::Unproven | Liveness::Evicted | Liveness::Left { for_good: true } => return None,
            };
            Some(Neighbour { contact: member.contact, liveness, since })
        };
        let neighbours: Vec<Neighbour> = self.machines.gossip.neighbourhood().filter_map(neighbour).collect();
        self.neighbourhood_told = Told { generation: Some(generation), until };
        self.machines.replication.set_neighbourhood(
            now,
            &neighbours,
            self.machines.gossip.is_whole_network(),
        );
    }

    /// Updates this node's own state, which the next rounds of gossip spread.
    pub(super) fn update_own_state(&mut self, now: Instant) {
        let store = self.machines.store.stats();
        let streams = self.machines.transfer.streams() as u64;
        let streams_max = self.config.limits.streams_max.max(1) as u64;
        let own = OwnState {
            addrs: [self.machines.dht.own_addr(), None],
            chunks: store.pieces,
            load: (streams * 1000 / streams_max).min(1000) as u16,
            free_bytes: store
                .quota_bytes
                .saturating_sub(store.piece_bytes + store.reserved_bytes)
                .min(store.room_bytes.saturating_sub(store.reserved_bytes)),
            version: version(),
            leaf: self.config.leaf,
        };
        self.machines.gossip.set_own(now, own);
    }
}

/// The program's version, as other nodes see it.
fn version() -> [u8; 4] {
    const fn number(text: &str) -> u8 {
        let (bytes, mut value, mut index) = (text.as_bytes(), 0, 0);
        while index < bytes.len() {
            value = value * 10 + (bytes[index] - b'0');
            index += 1;
        }
        value
    }
    const VERSION: [u8; 4] = [
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
        0,
    ];
    VERSION
}

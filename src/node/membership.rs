//! What membership and the other machines tell each other.
//!
//! Whoever speaks to this node is alive, whatever it speaks about; whoever does not answer one machine is looked after by
//! membership, and what membership finds out everybody hears: the table of contacts drops the silent, lookups and
//! downloads turn to those who answer, and replication learns who is there to keep copies.

use super::Node;
use crate::gossip::{Gossip, GossipEvent, Liveness, Member, OwnState};
use crate::id::NodeId;
use crate::replication::{self, Neighbour};
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use core::net::SocketAddr;

/// What replication was told of the neighbourhood last.
#[derive(Default)]
pub(super) struct Told {
    /// The state of the membership that it was told.
    generation: Option<u64>,
    /// When the same state means something else.
    until: Option<Instant>,
}

impl Node {
    /// What this node knows of the others, for whoever looks at it from outside.
    pub fn membership(&self) -> &Gossip {
        &self.machines.gossip
    }

    /// A datagram came from this node: membership hears that it is there.
    pub(super) fn sender_is_there(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        proven: bool,
    ) {
        let contact = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        let kind = datagram.message().kind();
        match kind {
            // Membership reads these itself.
            Kind::Gossip | Kind::Probe => {}
            _ if datagram.is_leaf() => {}
            _ if kind.is_answer() => self.machines.gossip.note_alive(now, contact, None),
            // An unvalidated address must not make this node send there unasked.
            _ if proven => self.machines.gossip.note_contact(now, contact),
            _ => {}
        }
    }

    /// A peer's stream proved its identity, or the peer could not be reached.
    pub(super) fn stream_told(&mut self, now: Instant, contact: Contact, leaf: bool, alive: bool) {
        if !alive {
            self.machines.dht.note_unreachable(now, &contact.id);
            self.machines.gossip.note_failed(now, &contact.id);
        } else if !leaf {
            self.machines.dht.note_alive(now, contact, None);
            self.machines.gossip.note_contact(now, contact);
        }
    }

    /// This node has found its place in the network.
    pub(super) fn joined(&mut self, now: Instant, contacts: u32) {
        log::info!("joined the network: {contacts} contacts");
        self.retry_placements(now);
    }

    /// No node answered at any bootstrap address.
    pub(super) fn bootstrap_failed(&self, retry_in: Duration, tried: u32) {
        let seconds = retry_in.as_secs().max(1);
        match tried {
            0 => log::warn!(
                "no bootstrap address can be reached from {}: is one of them IPv6 and the other IPv4? \
                 trying again in {seconds} s",
                self.config.listen
            ),
            1 => log::warn!("the bootstrap address does not answer; trying again in {seconds} s"),
            _ => log::warn!("none of the {tried} bootstrap addresses answers; trying again in {seconds} s"),
        }
    }

    /// Membership found something out: the table of contacts hears of it.
    pub(super) fn gossip_event(&mut self, now: Instant, event: GossipEvent) {
        match event {
            GossipEvent::Suspected { .. } => self.counters.suspected += 1,
            GossipEvent::Unresponsive { .. } => self.counters.unresponsive += 1,
            GossipEvent::Evicted { .. } => self.counters.evicted += 1,
            GossipEvent::Left { .. } => self.counters.left += 1,
            GossipEvent::Returned { .. } => self.counters.returned += 1,
            GossipEvent::Met { .. } | GossipEvent::Moved { .. } => {}
        }
        match event {
            GossipEvent::Met { contact, rtt } | GossipEvent::Returned { contact, rtt } => {
                self.machines.dht.note_alive(now, contact, rtt);
            }
            GossipEvent::Moved { contact, .. } => self.machines.dht.note_alive(now, contact, None),
            GossipEvent::Suspected { .. } => {}
            GossipEvent::Unresponsive { contact } => self.machines.dht.note_unreachable(now, &contact.id),
            GossipEvent::Evicted { contact } | GossipEvent::Left { contact, .. } => {
                self.machines.dht.forget(now, &contact.id);
            }
        }
    }

    /// Tells replication who is near, when that has changed. Who said that it will be back is given as long as who just falls
    /// silent: a reboot in order must not cost more copies than one without a word.
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
                Liveness::Live => replication::Liveness::Live { since },
                Liveness::Suspect => replication::Liveness::Suspect,
                Liveness::Left { for_good: false } if now < since + patience => {
                    until = earliest(until, Some(since + patience));
                    replication::Liveness::Suspect
                }
                Liveness::Unresponsive | Liveness::Left { for_good: false } => {
                    replication::Liveness::Unresponsive { since }
                }
                Liveness::Unproven | Liveness::Evicted | Liveness::Left { for_good: true } => return None,
            };
            Some(Neighbour { contact: member.contact, liveness })
        };
        let neighbours: Vec<Neighbour> = self.machines.gossip.neighbourhood().filter_map(neighbour).collect();
        self.neighbourhood_told = Told { generation: Some(generation), until };
        self.machines.replication.set_neighbourhood(
            now,
            &neighbours,
            self.machines.gossip.is_whole_network(),
        );
    }

    /// What this node says of itself in the next rounds.
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

    /// The same nodes, those of whom nothing bad is known first.
    pub(super) fn likeliest_first(&self, contacts: &[Contact]) -> Vec<Contact> {
        let mut sorted = contacts.to_vec();
        sorted.sort_by_key(|contact| self.is_silent(&contact.id));
        sorted
    }

    fn is_silent(&self, id: &NodeId) -> bool {
        use Liveness::{Evicted, Left, Unresponsive};
        let liveness = self.machines.gossip.member(id).map(|member| member.liveness);
        matches!(liveness, Some(Unresponsive | Evicted | Left { .. }))
    }
}

/// The program's version, as it is told to others.
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

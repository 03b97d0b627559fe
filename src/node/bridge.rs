//! The bridge between membership and the other machines.
//!
//! A node that sends an authenticated message is alive, whichever machine the message is for. A node that does not answer one machine
//! is probed by membership. Changes of liveness go to all machines: the routing table drops silent nodes, lookups and downloads turn
//! to others, and replication learns which holders are left.

use super::machines::Machines;
use crate::counters::counters;
use crate::gossip::{GossipEvent, Liveness, Member, OwnState};
use crate::replication::Neighbour;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;

counters! {
    /// Counts of changes in membership.
    pub(super) struct BridgeCounters {
        /// Members that became suspect.
        suspected = "members_suspected",
        /// Suspects that became unresponsive.
        unresponsive = "members_unresponsive",
        /// Members that were evicted.
        evicted = "members_evicted",
        /// Members that said goodbye.
        left = "members_left",
        /// Members that returned.
        returned = "members_returned",
        /// States under this node's key that this run did not sign, with a number as high as the present one.
        outdone = "states_outdone",
    }
}

/// The exchange between membership and the other machines.
pub(super) struct Bridge {
    /// How long a member that will return counts as one that falls silent.
    patience: Duration,
    /// The generation of the neighbourhood that replication was told last.
    told: Option<u64>,
    /// When replication must be told the same generation again, because a grace period ends.
    told_until: Option<Instant>,
    pub(super) counters: BridgeCounters,
}

impl Bridge {
    /// Replication knows no neighbourhood yet. `unresponsive_after` is how long a suspect counts as a holder.
    pub(super) fn new(unresponsive_after: Duration) -> Bridge {
        let counters = BridgeCounters::default();
        Bridge { patience: unresponsive_after, told: None, told_until: None, counters }
    }

    /// Handles an event of membership.
    pub(super) fn handle_event(&mut self, now: Instant, event: &GossipEvent, machines: &mut Machines) {
        match event {
            GossipEvent::Suspected { .. } => self.counters.suspected += 1,
            GossipEvent::Unresponsive { .. } => self.counters.unresponsive += 1,
            GossipEvent::Evicted { .. } => self.counters.evicted += 1,
            GossipEvent::Left { .. } => self.counters.left += 1,
            GossipEvent::Returned { .. } => self.counters.returned += 1,
            GossipEvent::Outdone { .. } => self.counters.outdone += 1,
            GossipEvent::Met { .. } | GossipEvent::Moved { .. } | GossipEvent::DialBack { .. } => {}
        }
        match event {
            GossipEvent::Met { contact }
            | GossipEvent::Returned { contact }
            | GossipEvent::Moved { contact, .. } => reached(now, *contact, machines),
            GossipEvent::Suspected { .. } | GossipEvent::Outdone { .. } | GossipEvent::DialBack { .. } => {}
            GossipEvent::Unresponsive { contact } => {
                unreachable(now, contact, machines);
                let nodes = machines.gossip.statistics().network_size;
                machines.replication.member_silent(now, &contact.id, nodes);
            }
            GossipEvent::Evicted { contact } | GossipEvent::Left { contact, .. } => {
                machines.dht.forget(now, &contact.id);
            }
        }
    }

    /// Tells replication the neighbourhood, if it has changed. A member that said that it will return counts for as long as one that
    /// falls silent: an orderly reboot must not cost more copies than a crash.
    pub(super) fn tell_neighbourhood(&mut self, now: Instant, machines: &mut Machines) {
        let generation = machines.gossip.neighbourhood_generation();
        if self.told == Some(generation) && self.told_until.is_none_or(|until| now < until) {
            return;
        }
        let patience = self.patience;
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
        let neighbours: Vec<Neighbour> = machines.gossip.neighbourhood().filter_map(neighbour).collect();
        (self.told, self.told_until) = (Some(generation), until);
        let is_whole = machines.gossip.is_whole_network();
        machines.replication.set_neighbourhood(now, &neighbours, is_whole);
    }
}

/// An authenticated datagram came from a node: tells membership that the node is alive.
pub(super) fn sender_is_there(
    now: Instant,
    sender: Contact,
    datagram: &Verified<'_>,
    validated: bool,
    machines: &mut Machines,
) {
    let kind = datagram.message().kind();
    match kind {
        // Membership handles these itself.
        Kind::Gossip | Kind::Probe => {}
        _ if datagram.is_leaf() => {}
        _ if kind.is_answer() => machines.gossip.note_alive(now, sender),
        // A node at an unvalidated address must not make this node send datagrams there.
        _ if validated => machines.gossip.note_contact(now, sender),
        _ => {}
    }
}

/// A peer authenticated itself on a stream, or could not be reached.
pub(super) fn stream_told(now: Instant, contact: Contact, leaf: bool, alive: bool, machines: &mut Machines) {
    if !alive {
        unreachable(now, &contact, machines);
        machines.gossip.note_failed(now, &contact.id);
    } else if !leaf {
        reached(now, contact, machines);
        machines.gossip.note_contact(now, contact);
    }
}

/// A node that is not a leaf was reached: tells the DHT.
fn reached(now: Instant, contact: Contact, machines: &mut Machines) {
    machines.dht.note_alive(now, contact, machines.outbox.peers_mut());
}

/// A node could not be reached: tells the DHT.
fn unreachable(now: Instant, contact: &Contact, machines: &mut Machines) {
    machines.dht.note_unreachable(now, &contact.id, machines.outbox.peers_mut());
}

/// Updates this node's own state, which the next rounds of gossip spread.
pub(super) fn update_own_state(now: Instant, machines: &mut Machines) {
    let own = own_state(machines);
    machines.gossip.set_own(now, own);
}

fn own_state(machines: &Machines) -> OwnState {
    let store = machines.store.stats();
    let streams = machines.transfer.streams() as u64;
    let streams_max = machines.transfer.streams_max().max(1) as u64;
    OwnState {
        addrs: [machines.dht.own_addr(), None],
        chunks: store.pieces,
        load: (streams * 1000 / streams_max).min(1000) as u16,
        free_bytes: store
            .quota_bytes
            .saturating_sub(store.piece_bytes + store.reserved_bytes)
            .min(store.room_bytes.saturating_sub(store.reserved_bytes)),
        version: version(),
        leaf: machines.outbox.is_leaf(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const NOW: Instant = Instant::from_secs(100);

    fn peer() -> Contact {
        Contact::new(PublicKey([8; 32]), ([9, 9, 9, 9], 1).into())
    }

    #[test]
    fn a_peer_that_authenticates_itself_on_a_stream_becomes_a_member_unless_it_is_a_leaf() {
        for leaf in [false, true] {
            let mut machines = Machines::alone(NOW);
            stream_told(NOW, peer(), leaf, true, &mut machines);
            assert_eq!(machines.gossip.member(&peer().id).is_some(), !leaf, "a leaf: {leaf}");
        }
    }

    #[test]
    fn a_stranger_that_cannot_be_reached_becomes_no_member() {
        let mut machines = Machines::alone(NOW);
        stream_told(NOW, peer(), false, false, &mut machines);
        assert_eq!(machines.gossip.member(&peer().id), None);
    }

    #[test]
    fn a_neighbourhood_is_told_again_only_when_it_has_changed() {
        let (mut bridge, mut machines) = (Bridge::new(Duration::from_secs(60)), Machines::alone(NOW));
        bridge.tell_neighbourhood(NOW, &mut machines);
        let first = bridge.told.expect("replication was told");
        bridge.tell_neighbourhood(NOW, &mut machines);
        assert_eq!(bridge.told, Some(first));
        machines.gossip.note_alive(NOW, peer());
        bridge.tell_neighbourhood(NOW, &mut machines);
        assert_ne!(bridge.told, Some(first), "a member came");
    }

    #[test]
    fn each_change_of_a_member_is_counted() {
        let (mut bridge, mut machines) = (Bridge::new(Duration::from_secs(60)), Machines::alone(NOW));
        let contact = peer();
        bridge.handle_event(NOW, &GossipEvent::Suspected { contact }, &mut machines);
        bridge.handle_event(NOW, &GossipEvent::Returned { contact }, &mut machines);
        bridge.handle_event(NOW, &GossipEvent::Met { contact }, &mut machines);
        let counted = BridgeCounters { suspected: 1, returned: 1, ..BridgeCounters::default() };
        assert_eq!(bridge.counters, counted);
    }

    #[test]
    fn an_own_state_names_the_version_of_the_program() {
        let [major, minor, patch, _] = own_state(&Machines::alone(NOW)).version;
        assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION"));
    }
}

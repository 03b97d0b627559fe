//! Presence: what this node knows about its own place in the network.
//!
//! | file | the question |
//! |---|---|
//! | `addresses` | at which addresses is this machine? |
//! | `company` | is any other node there? |
//! | `reachability`, `dial_backs` | can others connect to this node? Dials tell others the same |
//! | `twin` | does another process run with this node's key? |

mod addresses;
mod company;
mod dial_backs;
mod reachability;
mod twin;

use super::command::{AddressGone, IdentityTwice, Unreachable};
use super::config::NodeConfig;
use super::machines::Machines;
use crate::dht::Dht;
use crate::gossip::GossipEvent;
use crate::io::DialId;
use crate::peers::inbox::Rejected;
use crate::peers::outbox::Outbox;
use crate::peers::requests::Challenge;
use crate::rng::Rng;
use crate::time::{Instant, earliest};
use crate::wire::datagram::{Unverified, Verified};
use crate::wire::header::Kind;
use addresses::Addresses;
use company::Company;
use core::net::{IpAddr, SocketAddr};
use dial_backs::DialBacks;
use reachability::Reachability;
use std::collections::BTreeSet;
use twin::Twin;

/// What this node knows about its own place in the network.
pub(super) struct Presence {
    addresses: Addresses,
    company: Company,
    reachability: Reachability,
    dial_backs: DialBacks,
    twin: Twin,
}

/// The same for the node's status.
pub(super) struct PresenceStatus {
    /// The address that the node listens on is gone.
    pub(super) address_gone: Option<AddressGone>,
    /// The seconds without any other node, if these are many.
    pub(super) alone_seconds: Option<u64>,
    /// No other node can connect to this one.
    pub(super) unreachable: Option<Unreachable>,
    /// Dials that this node made for others.
    pub(super) dialled_back: u64,
    /// Another process runs with this node's key.
    pub(super) identity_twice: Option<IdentityTwice>,
}

impl Presence {
    /// Nothing is known yet.
    pub(super) fn new(now: Instant, config: &NodeConfig, rng: &mut Rng) -> Self {
        Presence {
            twin: Twin::new(rng.bytes()),
            addresses: Addresses::new(config.listen),
            company: Company::new(now),
            reachability: Reachability::new(now, config.listen, config.leaf, rng.bytes()),
            dial_backs: DialBacks::new(rng.u64()),
        }
    }

    // Getters.

    /// Whether no other node can connect to this one, although it is not configured as a leaf.
    pub(super) fn is_unreachable(&self) -> bool {
        self.reachability.is_unreachable()
    }

    /// For the node's status. `own` is the address at which others see the node.
    pub(super) fn status(&self, now: Instant, own: Option<SocketAddr>) -> PresenceStatus {
        PresenceStatus {
            address_gone: self.addresses.status(now),
            alone_seconds: self.company.alone_seconds(now),
            unreachable: self.reachability.status(now, own),
            dialled_back: self.dial_backs.made(),
            identity_twice: self.twin.status(now),
        }
    }

    /// When [`handle_timeout`](Presence::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.twin.next_deadline(), self.addresses.next_deadline(), self.reachability.next_deadline()];
        deadlines.into_iter().fold(None, earliest)
    }

    /// Whether an answer matches an outstanding question to another node.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.reachability.is_expected(kind, transaction, from)
    }

    /// Whether a datagram under this node's own key is no answer, or answers an outstanding question.
    pub(super) fn is_own_expected(&self, now: Instant, from: SocketAddr, datagram: &Unverified<'_>) -> bool {
        let kind = datagram.kind();
        !kind.is_answer() || kind == Kind::Pong && self.twin.is_expected(now, from, datagram.transaction())
    }

    // Inputs.

    /// The machine has these addresses now. Returns whether it had others before.
    pub(super) fn handle_addresses(
        &mut self,
        now: Instant,
        addresses: &BTreeSet<IpAddr>,
        machines: &mut Machines,
    ) -> bool {
        let changed = self.addresses.handle(now, addresses);
        self.announce(now, machines);
        changed
    }

    /// A connection came in.
    pub(super) fn handle_accepted(&mut self, now: Instant, remote: SocketAddr, dht: &Dht) {
        self.reachability.handle_accepted(now, remote, dht);
    }

    /// Handles an event of membership.
    pub(super) fn handle_event(&mut self, now: Instant, event: &GossipEvent, machines: &mut Machines) {
        match *event {
            GossipEvent::DialBack { contact, asker } => {
                self.dial_backs.handle_request(now, contact, asker, machines);
            }
            GossipEvent::Outdone { addrs } => self.twin.told(now, addrs, machines.dht.own_addr()),
            _ => {}
        }
    }

    /// A dial has ended that was made for another node.
    pub(super) fn handle_tried(
        &mut self,
        now: Instant,
        dial: DialId,
        connected: bool,
        machines: &mut Machines,
    ) {
        self.dial_backs.handle_tried(now, dial, connected, machines);
    }

    /// A challenge arrived. If it is to a question, the question is sent again, with a signature.
    pub(super) fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        self.reachability.handle_challenge(now, challenge, outbox);
    }

    /// An [expected](Presence::is_expected) answer arrived.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        machines: &mut Machines,
    ) {
        self.reachability.handle_answer(now, from, datagram, machines);
    }

    /// An [expected](Presence::is_own_expected) datagram arrived that claims to be of this node.
    pub(super) fn handle_own(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: Unverified<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), Rejected> {
        self.twin.handle_datagram(now, from, datagram, outbox)
    }

    /// Does everything that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.twin.handle_timeout(now);
        self.announce(now, machines);
        self.reachability.handle_timeout(now, machines);
        self.company.look(now, machines);
    }

    /// Sends the questions that inputs have raised. The caller does so at the end of each input.
    pub(super) fn send_questions(&mut self, now: Instant, outbox: &mut Outbox) {
        self.twin.send_questions(now, outbox);
    }

    /// Asks others how they see this node, and soon whether they can connect to it, if its addresses have changed.
    fn announce(&mut self, now: Instant, machines: &mut Machines) {
        if self.addresses.handle_timeout(now, machines) {
            self.reachability.hurry(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_node_whose_address_changes_soon_asks_whether_it_can_be_reached() {
        let start = Instant::from_secs(100);
        let mut machines = Machines::alone(start);
        let config = NodeConfig::of_a_test(([0, 0, 0, 0], 3583).into(), &[]);
        let mut presence = Presence::new(start, &config, &mut Rng::new([1; 32]));
        let address = |last| BTreeSet::from([IpAddr::from([10, 0, 0, last])]);
        presence.handle_addresses(start, &address(1), &mut machines);
        presence.handle_accepted(start, ([10, 0, 0, 9], 1).into(), &machines.dht);
        let calm = presence.reachability.next_deadline().expect("rounds go on");
        assert!(calm > start + Duration::from_secs(60), "a connection came in");
        presence.handle_addresses(start, &address(2), &mut machines);
        let hurried = presence.reachability.next_deadline().expect("rounds go on");
        assert!(hurried < start + Duration::from_secs(60));
    }
}

//! What follows when a silent source gives a sign of life, and when the addresses of this machine change.

use super::machines::Machines;
use super::source_probes::Return;
use super::{Node, bridge};
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use core::net::SocketAddr;

impl Node {
    /// Whether any other node is there. A leaf is no member, and knows others only as contacts.
    pub(super) fn has_company(&self) -> bool {
        let Machines { dht, gossip, .. } = &self.machines;
        gossip.has_live() || self.config.leaf && dht.statistics().contacts > 0
    }

    /// Asks other nodes how they see this one, if the addresses of this machine have changed. The questions come from the new address
    /// and so announce it.
    pub(super) fn tell_address(&mut self, now: Instant) {
        if self.addresses.handle_timeout(now) {
            let Machines { dht, gossip, outbox, .. } = &mut self.machines;
            dht.ask_observers(now, outbox.peers());
            gossip.call_roll(now);
            bridge::update_own_state(now, &mut self.machines);
        }
    }

    /// Probes sources of downloads that fell silent.
    pub(super) fn probe_sources(&mut self, now: Instant) {
        let Machines { transfer, outbox, .. } = &mut self.machines;
        self.counters.source_probes += self.source_probes.handle_timeout(now, transfer, outbox);
    }

    /// An authenticated datagram came from a node. If the node is a silent source of a download, the download goes on.
    pub(super) fn source_is_there(&mut self, now: Instant, from: SocketAddr, datagram: &Verified<'_>) {
        let id = datagram.id();
        let Some(returns) = self.source_probes.heard(now, &id) else { return };
        self.counters.sources_returned += 1;
        let contact = Contact { id, public: datagram.public(), addr: from };
        for download in self.machines.transfer.source_returned(now, &contact) {
            if returns == Return::AfterOutage {
                let machines = &mut self.machines;
                self.ops.seekers.hand(now, download, machines, |seeker, _| seeker.handle_reached(now));
            }
        }
    }
}

//! Probing members for others that cannot reach them. A node that asks for a probe of itself wants to be dialled back.

use super::questions::{Purpose, Request};
use super::{Gossip, GossipEvent, Liveness};
use crate::id::NodeId;
use crate::peers::outbox::{Asker, Outbox};
use crate::peers::standing::Standing;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::message::{Message, ProbeOutcome};
use core::net::SocketAddr;

/// Probes for others that are outstanding at a time.
const RELAYED_MAX: usize = 8;

/// What the relays of one probe said about its member.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RelaysWord {
    answered: u8,
    silent: u8,
    refused: u8,
}

impl RelaysWord {
    /// A relay said this.
    pub(super) fn note(&mut self, outcome: ProbeOutcome) {
        let count = match outcome {
            ProbeOutcome::Answered => &mut self.answered,
            ProbeOutcome::Silent => &mut self.silent,
            ProbeOutcome::Unknown => &mut self.refused,
        };
        *count = count.saturating_add(1);
    }

    /// Whether any relay said something.
    pub(super) fn is_any(self) -> bool {
        self.answered > 0 || self.silent > 0 || self.refused > 0
    }

    /// Whether the relays vouch for the member: at least as many got an answer as got none.
    pub(super) fn vouch(self) -> bool {
        self.answered > 0 && self.answered >= self.silent
    }
}

impl Gossip {
    /// Probes a member for another: only a contacted one, only at the address where it answered, and within a rate limit.
    pub(super) fn handle_probe(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        target: &NodeId,
        standing: Standing,
        outbox: &mut Outbox,
    ) {
        self.heard(now, from, datagram, standing);
        let asker = Asker::of(from, datagram);
        if asker.id == *target && standing.is_validated() && self.can_raise() {
            // It wants to know whether others can connect to it.
            let contact = Contact { id: datagram.id(), public: datagram.public(), addr: from };
            return self.raise(GossipEvent::DialBack { contact, asker });
        }
        let met = |position: &usize| self.members.places()[*position].liveness != Liveness::Unproven;
        let position = self.position(target).filter(met);
        let asked = position.filter(|_| !datagram.is_leaf() && asker.id != *target).is_some_and(|position| {
            let may = self.transactions.relayed() < RELAYED_MAX && self.relays.take(now);
            let (to, wait) = (self.members.entry(position).addr(), self.relay_timeout(position, outbox));
            let purpose = Purpose::Relay { asker, again: false };
            may && self.ping(now, position, to, purpose, wait, outbox)
        });
        if asked {
            self.counters.probes_relayed += 1;
        } else {
            self.counters.probes_refused += 1;
            let answer = Message::ProbeReply { target: target.short(), outcome: ProbeOutcome::Unknown };
            outbox.answer(now, asker, &answer);
        }
    }

    /// A ping for another node timed out, or its target is no member any more.
    pub(super) fn relay_failed(&self, now: Instant, request: &Request, outbox: &mut Outbox) {
        if let Purpose::Relay { asker, .. } = request.question.purpose {
            let answer =
                Message::ProbeReply { target: request.question.about, outcome: ProbeOutcome::Silent };
            outbox.answer(now, asker, &answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProbeOutcome::{Answered, Silent, Unknown};

    #[test]
    fn one_relay_does_not_vouch_against_two() {
        let vouch = |said: &[ProbeOutcome]| {
            let mut word = RelaysWord::default();
            said.iter().for_each(|outcome| word.note(*outcome));
            word.vouch()
        };
        assert!(!vouch(&[]));
        assert!(!vouch(&[Silent]));
        assert!(!vouch(&[Answered, Silent, Silent]));
        assert!(vouch(&[Answered, Silent]));
        assert!(vouch(&[Answered, Unknown, Unknown]), "a relay that refused knows nothing");
    }
}

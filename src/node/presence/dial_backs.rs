//! Dials that this node makes for others, so that they learn whether they can be reached.
//!
//! A dial is a few small packets, to an address whose node has proven with a token that it receives there, and from which it asks. So
//! no node is dialled on the word of another. The number of dials is limited for each party and for all together.

use crate::io::DialId;
use crate::node::machines::Machines;
use crate::peers::outbox::Asker;
use crate::peers::party::Party;
use crate::peers::rate::{Limiter, PartyLimiter, Rate};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::message::{Message, ProbeOutcome};
use std::collections::BTreeMap;

/// Dials under way at a time.
const DIALS_MAX: usize = 8;

/// The dials that are under way for others.
pub(super) struct DialBacks {
    under_way: BTreeMap<DialId, Asker>,
    all: Limiter,
    parties: PartyLimiter,
    made: u64,
}

impl DialBacks {
    /// No dial is under way. `secret` is entropy, or fixed in a simulation.
    pub(super) fn new(secret: u64) -> Self {
        DialBacks {
            under_way: BTreeMap::new(),
            all: Limiter::new(Rate::every(Duration::from_millis(250), 16)),
            parties: PartyLimiter::new(Rate::every(Duration::from_secs(10), 4), secret),
            made: 0,
        }
    }

    /// The number of dials so far.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// A node at a validated address wants to know whether others can connect to it.
    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        contact: Contact,
        asker: Asker,
        machines: &mut Machines,
    ) {
        let party = machines.dht.parties().of(&contact.id, contact.addr);
        let admitted = self.admit(now, party);
        match admitted.then(|| machines.transfer.try_dial(now, contact)).flatten() {
            Some(dial) => {
                self.made += 1;
                self.under_way.insert(dial, asker);
            }
            None => answer(now, asker, ProbeOutcome::Unknown, machines),
        }
    }

    /// A dial has ended.
    pub(super) fn handle_tried(
        &mut self,
        now: Instant,
        dial: DialId,
        connected: bool,
        machines: &mut Machines,
    ) {
        let outcome = if connected { ProbeOutcome::Answered } else { ProbeOutcome::Silent };
        if let Some(asker) = self.under_way.remove(&dial) {
            answer(now, asker, outcome, machines);
        }
    }

    /// Whether there is room for another dial, for this party.
    fn admit(&mut self, now: Instant, party: Party) -> bool {
        self.under_way.len() < DIALS_MAX && self.parties.take(now, party) && self.all.take(now)
    }
}

fn answer(now: Instant, asker: Asker, outcome: ProbeOutcome, machines: &mut Machines) {
    let answer = Message::ProbeReply { target: asker.id.short(), outcome };
    machines.outbox.answer(now, asker, &answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::transfer::StreamOutput;
    use crate::wire::header::Auth;

    const START: Instant = Instant::from_secs(100);

    fn contact(net: u8) -> Contact {
        Contact::new(PublicKey([net; 32]), ([31, net, 1, 1], 3583).into())
    }

    struct Bench {
        backs: DialBacks,
        machines: Machines,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { backs: DialBacks::new(1), machines: Machines::alone(START) }
        }

        /// The dials that the requests of these nodes lead to. All other requests are answered.
        fn ask(&mut self, askers: &[Contact]) -> Vec<DialId> {
            let answered = self.machines.outbox.len();
            for contact in askers {
                let asker = Asker { addr: contact.addr, id: contact.id, transaction: 7, auth: Auth::Signed };
                self.backs.handle_request(START, *contact, asker, &mut self.machines);
            }
            let outputs = core::iter::from_fn(|| self.machines.transfer.poll_output());
            let dials = outputs.filter_map(|output| match output {
                StreamOutput::Connect { dial, contact, .. } => {
                    assert!(askers.contains(&contact), "only an asker is dialled");
                    Some(dial)
                }
                _ => None,
            });
            let dials: Vec<DialId> = dials.collect();
            assert_eq!(dials.len() + self.machines.outbox.len() - answered, askers.len());
            dials
        }
    }

    #[test]
    fn dials_for_others_are_limited_for_each_party_and_in_all() {
        let mut bench = Bench::new();
        assert_eq!(bench.ask(&[contact(1); 10]).len(), 4, "for one party");
        let others: Vec<Contact> = (2..30).map(contact).collect();
        assert_eq!(bench.ask(&others).len(), DIALS_MAX - 4, "in all");
    }

    #[test]
    fn a_dial_that_ended_is_answered_once_and_makes_room() {
        let mut bench = Bench::new();
        let askers: Vec<Contact> = (1..=8).map(contact).collect();
        let under_way = bench.ask(&askers);
        assert_eq!(under_way.len(), DIALS_MAX);
        assert!(bench.ask(&[contact(9)]).is_empty());
        let answered = bench.machines.outbox.len();
        for connected in [true, false] {
            bench.backs.handle_tried(START, under_way[0], connected, &mut bench.machines);
        }
        assert_eq!(bench.machines.outbox.len(), answered + 1);
        assert_eq!(bench.ask(&[contact(9)]).len(), 1);
    }
}

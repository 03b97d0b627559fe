//! Surveys of the network, while this node suspects that it is partitioned.
//!
//! When many neighbours fall silent at once, this node may have lost its link, or they their lives. Members from all over the network
//! tell which: while most of them answer, this node is on the larger side of whatever happened. So the node pings a random sample of
//! its members, whether they are thought to be alive or not, and tells replication how many answered. What a survey finds decides
//! only how long a last live copy waits. So members that lie gain or cost one copy, and a vote for each party is not worth its price.

use super::machines::Machines;
use crate::gossip::Liveness;
use crate::peers::outbox::{Attempt, Outbox};
use crate::peers::requests::{Challenge, Overdue, Question, Request, Requests};
use crate::replication::Replication;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;

/// Members that are pinged in a survey.
const ASKED: usize = 16;
/// A ping is repeated once after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// A member that has not answered by then is silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The pause between two surveys while the suspicion lasts.
const PAUSE: Duration = Duration::from_secs(60);

/// A ping.
struct Call;

impl Question for Call {
    fn answer(&self) -> Kind {
        Kind::Pong
    }
}

/// The survey under way, and the time of the next one.
pub(super) struct Survey {
    outstanding: Requests<Call>,
    /// The number of members asked, and of those that answered, in the survey under way.
    under_way: Option<(usize, usize)>,
    next_at: Instant,
    rng: Rng,
}

impl Survey {
    /// No survey is under way. `seed` is entropy, or fixed in a simulation.
    pub(super) fn new(now: Instant, seed: [u8; 32]) -> Self {
        Survey { outstanding: Requests::new(ASKED), under_way: None, next_at: now, rng: Rng::new(seed) }
    }

    // Getters.

    /// When [`handle_timeout`](Survey::handle_timeout) is due.
    pub(super) fn next_deadline(&self, replication: &Replication) -> Option<Instant> {
        match self.under_way {
            Some(_) => self.outstanding.next_deadline(),
            None => replication.is_suspicious().then_some(self.next_at),
        }
    }

    /// Whether an answer matches an outstanding ping.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.outstanding.is_expected(kind, transaction, from)
    }

    // Inputs.

    /// Begins a survey if this node suspects that it is partitioned, or goes on with the one under way.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        for (transaction, overdue) in self.outstanding.overdue(now) {
            match overdue {
                Overdue::Late => {
                    if let Some(ask) = self.outstanding.ask_again(transaction, Attempt::Again) {
                        machines.outbox.request(now, ask, &Message::Ping { padding: 0 });
                    }
                }
                Overdue::GivenUp | Overdue::Failed => _ = self.outstanding.remove(transaction),
            }
        }
        if self.under_way.is_some() {
            self.conclude(now, machines);
        } else if !machines.replication.is_suspicious() {
            self.next_at = now;
        } else if now >= self.next_at {
            self.begin(now, machines);
        }
    }

    fn begin(&mut self, now: Instant, machines: &mut Machines) {
        self.next_at = now + PAUSE;
        let contacted =
            |liveness| matches!(liveness, Liveness::Live | Liveness::Suspect | Liveness::Unresponsive);
        let members = machines.gossip.members().filter(|member| contacted(member.liveness));
        let mut members: Vec<Contact> = members.map(|member| member.contact).collect();
        self.rng.shuffle(&mut members);
        members.truncate(ASKED);
        self.under_way = Some((members.len(), 0));
        for contact in &members {
            let mut request = Request::new(now, contact.addr, Some(contact.id), Call, ANSWER_WITHIN);
            request.repeat_at(Some(now + REPEAT_AFTER));
            let ask = self.outstanding.ask(&mut self.rng, request, Attempt::First);
            machines.outbox.request(now, ask, &Message::Ping { padding: 0 });
        }
        self.conclude(now, machines);
    }

    /// A challenge arrived. If it is to a ping, the ping is sent again, with a signature.
    pub(super) fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        self.outstanding.sign_again(now, challenge, &Message::Ping { padding: 0 }, outbox);
    }

    /// A member answered a ping.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        machines: &mut Machines,
    ) {
        if self.outstanding.answered_by(now, from, datagram, &mut machines.outbox).is_some() {
            if let Some((_, answered)) = &mut self.under_way {
                *answered += 1;
            }
            self.conclude(now, machines);
        }
    }

    /// Ends the survey when no further answer can come.
    fn conclude(&mut self, now: Instant, machines: &mut Machines) {
        if !self.outstanding.is_empty() {
            return;
        }
        if let Some((asked, answered)) = self.under_way.take() {
            let most = answered * 2 > asked;
            log::info!(
                "{answered} of {asked} members all over the network answer: last copies {}",
                if most { "are doubled at once" } else { "wait" }
            );
            machines.replication.surveyed(now, most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::replication::Neighbour;

    const START: Instant = Instant::from_secs(1000);

    fn contact(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([31, number, 1, 1], 3583).into())
    }

    /// The machines of a node with 20 members, of which 8 have just fallen silent.
    fn machines() -> (Machines, Instant) {
        let mut machines = Machines::alone(START);
        for number in 1..=20 {
            machines.gossip.note_alive(START, contact(number));
        }
        let neighbours = |silent: u8, since: Instant| -> Vec<Neighbour> {
            let neighbour = |number: u8| match number <= silent {
                true => Neighbour { contact: contact(number), liveness: Liveness::Unresponsive, since },
                false => Neighbour { contact: contact(number), liveness: Liveness::Live, since: START },
            };
            (1..=20).map(neighbour).collect()
        };
        let later = START + Duration::from_secs(300);
        machines.replication.set_neighbourhood(START, &neighbours(0, START), true);
        let Machines { replication, outbox, .. } = &mut machines;
        replication.handle_timeout(later, outbox);
        replication.set_neighbourhood(later, &neighbours(8, later), true);
        assert!(replication.is_suspicious());
        (machines, later)
    }

    fn sent(machines: &mut Machines) -> usize {
        core::iter::from_fn(|| machines.outbox.poll().map(|_| ())).count()
    }

    #[test]
    fn a_node_that_suspects_a_partition_pings_members_twice_and_again_after_a_pause() {
        let (mut machines, now) = machines();
        let mut survey = Survey::new(START, [1; 32]);
        sent(&mut machines);
        assert_eq!(survey.next_deadline(&machines.replication), Some(START));
        survey.handle_timeout(now, &mut machines);
        assert_eq!(sent(&mut machines), ASKED);
        survey.handle_timeout(now + REPEAT_AFTER, &mut machines);
        assert_eq!(sent(&mut machines), ASKED);
        survey.handle_timeout(now + ANSWER_WITHIN, &mut machines);
        assert!(survey.under_way.is_none(), "none answered");
        assert_eq!(sent(&mut machines), 0);
        assert_eq!(survey.next_deadline(&machines.replication), Some(now + PAUSE));
    }

    #[test]
    fn a_node_that_suspects_nothing_asks_nothing() {
        let mut machines = Machines::alone(START);
        machines.gossip.note_alive(START, contact(1));
        let mut survey = Survey::new(START, [1; 32]);
        sent(&mut machines);
        assert_eq!(survey.next_deadline(&machines.replication), None);
        survey.handle_timeout(START, &mut machines);
        assert_eq!(sent(&mut machines), 0);
    }
}

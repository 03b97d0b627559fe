//! Finding the nodes of the same link, without an address to join through.
//!
//! A node tells each of its links that it is there ([`Kind::Here`](crate::wire::header::Kind::Here)): when it starts, when the addresses
//! of its machine change, then every five minutes, or every minute at first and while it knows no other node. A node that hears it pings the
//! address that it came from, as it pings a node that sent it a request. The rest is joining as through any other contact.
//!
//! A here is bounded everywhere: at most one a minute leaves a node. The recipient checks its mark before its signature, signatures
//! out of the budget for strangers, answers each sender once a minute, and pings only so many newcomers a second. In a crowd only some
//! answer: a newcomer needs a few contacts, not two hundred.

use super::Output;
use super::machines::Machines;
use crate::counters::counters;
use crate::id::ShortId;
use crate::peers::rate::{Limiter, Rate};
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Epoch;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// The least time between two heres, and between two answers to one sender.
const LEAST: Duration = Duration::from_secs(60);
/// The time between two heres of a node that knows others.
const EVERY: Duration = Duration::from_secs(300);
/// Heres that follow the first one after the least time, whoever is known: a datagram to a group may be lost, above all on Wi-Fi.
const REPEATS: u8 = 2;
/// The first here leaves within this time: the machines of a site start together.
const FIRST_WITHIN: Duration = Duration::from_millis(300);
/// An answer leaves within this time, because all nodes of a link hear a newcomer at once.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// The time for which commands wait for the answers to the first here.
const FIRST_WAIT: Duration = Duration::from_millis(1200);
/// Senders that are remembered.
const SENDERS_MAX: usize = 256;
/// A sender that was not heard for this long is forgotten. It has missed two heres.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);
/// Nodes of a link that are to answer a newcomer, on average.
const ANSWERS_WANTED: u64 = 16;
/// Newcomers that are answered: a whole rack at once, and then some each second.
const ANSWERS: Rate = Rate::every(Duration::from_millis(250), 64);

counters! {
    /// What happened on the links.
    pub(super) struct LanCounters {
        /// Heres sent, however many links they went to.
        told = "lan_told",
        /// Heres of other nodes that were authenticated.
        heard = "lan_heard",
        /// Nodes that were pinged because they told this link that they are there.
        answered = "lan_answered",
        /// Heres whose mark was wrong: their sender does not know the network's secret.
        unmarked = "lan_unmarked",
        /// Heres that came too often, or that there was no budget for.
        over_budget = "lan_over_budget",
    }
}

/// One here: the datagram's number, the address that it came from, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
    pub(super) addr: SocketAddr,
    pub(super) at: Instant,
}

/// Discovery on the links of this machine.
pub(super) struct Lan {
    /// When the next here is due; `None` when discovery is off.
    due: Option<Instant>,
    /// When the last one left.
    told: Option<Instant>,
    /// Repetitions of the first one that are still to leave.
    repeats: u8,
    /// Until when the answers to the first here are waited for.
    first_until: Option<Instant>,
    /// What was last heard of each sender.
    senders: BTreeMap<ShortId, Heard>,
    answers: Limiter,
    rng: Rng,
    pub(super) counters: LanCounters,
}

impl Lan {
    /// Discovery, if it is `on`. The first here is due within a second.
    pub(super) fn new(now: Instant, on: bool, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        let first = now + rng.duration(Duration::ZERO, FIRST_WITHIN);
        Lan {
            due: on.then_some(first),
            told: None,
            repeats: REPEATS,
            first_until: on.then_some(now + FIRST_WAIT),
            senders: BTreeMap::new(),
            answers: Limiter::new(ANSWERS),
            rng,
            counters: LanCounters::default(),
        }
    }

    // Getters.

    /// Whether the first here may still be answered, so that the node may join soon.
    pub(super) fn is_awaited(&self) -> bool {
        self.first_until.is_some()
    }

    /// When [`handle_timeout`](Lan::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.due, self.first_until)
    }

    // Inputs.

    /// Tells the links that this node is there, if that is due. `lonely`: it knows no other node.
    pub(super) fn handle_timeout(&mut self, now: Instant, lonely: bool, machines: &mut Machines) {
        self.first_until = self.first_until.filter(|until| now < *until && lonely);
        if let Some(told) = self.told.filter(|_| lonely) {
            self.hurry(told + LEAST);
        }
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let soon = lonely || self.repeats > 0;
        let pause = if soon { LEAST } else { self.rng.duration(EVERY * 9 / 10, EVERY) };
        self.repeats = self.repeats.saturating_sub(1);
        (self.due, self.told) = (Some(now + pause), Some(now));
        self.senders.retain(|_, heard| now < heard.at + FORGOTTEN_AFTER);
        if let Some(bytes) = machines.outbox.here() {
            self.counters.told += 1;
            machines.outputs.push_back(Output::Here { bytes });
        }
    }

    /// The addresses of this machine changed, or no other node answers: the links are told soon.
    pub(super) fn tell_soon(&mut self, now: Instant) {
        let soon = now + self.rng.duration(Duration::ZERO, FIRST_WITHIN);
        self.hurry(self.told.map_or(soon, |told| soon.max(told + LEAST)));
    }

    fn hurry(&mut self, at: Instant) {
        self.due = self.due.map(|due| due.min(at));
    }

    /// The last here left on no link.
    pub(super) fn here_was_lost(&mut self) {
        self.told = None;
    }

    /// Whether the here of a sender is not worth a check of its signature: it may be a recording, or comes too soon after the one before.
    /// A recording that is sent from another address must not keep the sender's own next here from being heard.
    pub(super) fn is_old(&self, sender: &ShortId, heard: &Heard) -> bool {
        self.senders.get(sender).is_some_and(|before| {
            let newer = heard.epoch == before.epoch && heard.sequence > before.sequence;
            let soon = heard.at < before.at + LEAST;
            if heard.epoch == before.epoch { !newer || soon && heard.addr == before.addr } else { soon }
        })
    }

    /// An authenticated node told a link of this machine that it is there. If it is worth an answer, the DHT pings it.
    pub(super) fn handle_here(
        &mut self,
        now: Instant,
        sender: Contact,
        heard: Heard,
        machines: &mut Machines,
    ) {
        self.counters.heard += 1;
        self.remember(sender.id.short(), heard);
        if machines.dht.note_on_link(&sender) {
            return;
        }
        let crowd = self.senders.len() as u64;
        if machines.dht.statistics().contacts > 0 && self.rng.below(crowd) >= ANSWERS_WANTED {
            return;
        }
        if !self.answers.take(now) {
            self.counters.over_budget += 1;
            return;
        }
        let at = now + self.rng.duration(Duration::ZERO, ANSWER_WITHIN);
        if machines.dht.check_on_link(at, sender, machines.outbox.peers()) {
            self.counters.answered += 1;
        }
    }

    /// Remembers a sender. With a full table, the one that was heard longest ago is forgotten.
    fn remember(&mut self, sender: ShortId, heard: Heard) {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&sender) {
            let oldest = self.senders.iter().min_by_key(|(_, heard)| heard.at).map(|(id, _)| *id);
            oldest.map(|id| self.senders.remove(&id));
        }
        self.senders.insert(sender, heard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);

    fn contact(number: u16) -> Contact {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_le_bytes());
        let [low, high] = number.to_le_bytes();
        Contact::new(PublicKey(key), ([10, 0, high, low], 3583).into())
    }

    /// When heres leave up to this time.
    fn told(lan: &mut Lan, until: Instant, lonely: bool, machines: &mut Machines) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(at) = lan.next_deadline().filter(|at| *at <= until) {
            lan.handle_timeout(at, lonely, machines);
            times.extend(machines.outputs.drain(..).map(|output| match output {
                Output::Here { .. } => at.since(START).as_secs(),
                other => panic!("{other:?}"),
            }));
            if lan.next_deadline() == Some(at) {
                break;
            }
        }
        times
    }

    fn lan() -> (Lan, Machines) {
        (Lan::new(START, true, [3; 32]), Machines::alone(START))
    }

    #[test]
    fn a_node_tells_its_links_at_the_start_then_each_minute_while_it_is_alone_and_else_rarely() {
        let (mut lan, mut machines) = lan();
        assert_eq!(told(&mut lan, START + Duration::from_secs(200), true, &mut machines), [0, 60, 120, 180]);
        let rarely = told(&mut lan, START + Duration::from_secs(1200), false, &mut machines);
        assert!(rarely.len() <= 4 && rarely.windows(2).all(|two| two[1] - two[0] >= 270), "{rarely:?}");
    }

    #[test]
    fn a_change_of_addresses_is_told_soon_but_never_twice_a_minute() {
        let (mut lan, mut machines) = lan();
        told(&mut lan, START + Duration::from_secs(10), false, &mut machines);
        for second in 10..50 {
            lan.tell_soon(START + Duration::from_secs(second));
        }
        let times = told(&mut lan, START + Duration::from_secs(199), false, &mut machines);
        assert!(matches!(times[..], [60 | 61, 120 | 121]), "{times:?}");
        lan.tell_soon(START + Duration::from_secs(200));
        let times = told(&mut lan, START + Duration::from_secs(250), false, &mut machines);
        assert!(matches!(times[..], [200 | 201]), "{times:?}");
    }

    #[test]
    fn discovery_that_is_off_tells_nothing() {
        let mut machines = Machines::alone(START);
        let mut lan = Lan::new(START, false, [3; 32]);
        lan.tell_soon(START);
        lan.handle_timeout(START + EVERY, true, &mut machines);
        assert!(machines.outputs.is_empty() && lan.next_deadline().is_none() && !lan.is_awaited());
    }

    fn heard(epoch: u64, sequence: u64, port: u16, second: u64) -> Heard {
        let (addr, at) = (([10, 0, 0, 1], port).into(), START + Duration::from_secs(second));
        Heard { epoch: Epoch::new(epoch), sequence, addr, at }
    }

    #[test]
    fn a_sender_is_answered_once_a_minute() {
        let (mut lan, mut machines) = lan();
        lan.handle_here(START, contact(1), heard(5, 1, 1, 0), &mut machines);
        assert_eq!(lan.counters.answered, 1);
        assert!(lan.is_old(&contact(1).id.short(), &heard(5, 2, 1, 59)));
        assert!(lan.is_old(&contact(1).id.short(), &heard(6, 2, 1, 59)));
        assert!(!lan.is_old(&contact(1).id.short(), &heard(5, 2, 1, 60)));
        assert!(!lan.is_old(&contact(2).id.short(), &heard(5, 1, 1, 0)));
    }

    #[test]
    fn a_recording_from_another_address_is_answered_once_and_does_not_hide_its_sender() {
        let (mut lan, mut machines) = lan();
        let id = contact(1).id.short();
        lan.handle_here(START, contact(1), heard(5, 1, 666, 0), &mut machines);
        assert!(lan.is_old(&id, &heard(5, 1, 667, 1000)), "the recording again, however late");
        assert!(!lan.is_old(&id, &heard(5, 2, 1, 1)), "the sender itself");
    }

    #[test]
    fn a_here_that_left_on_no_link_is_followed_by_one_as_soon_as_there_is_a_link() {
        let (mut lan, mut machines) = lan();
        assert_eq!(told(&mut lan, START + Duration::from_secs(1), true, &mut machines), [0]);
        lan.here_was_lost();
        lan.tell_soon(START + Duration::from_secs(3));
        assert_eq!(told(&mut lan, START + Duration::from_secs(10), true, &mut machines), [3]);
    }

    #[test]
    fn a_flood_of_identities_costs_a_bounded_number_of_answers_and_bounded_memory() {
        let (mut lan, mut machines) = lan();
        for number in 0..2000 {
            lan.handle_here(START, contact(number), heard(5, 1, 1, 0), &mut machines);
        }
        assert!(lan.counters.answered <= 64, "{}", lan.counters.answered);
        assert_eq!(lan.senders.len(), SENDERS_MAX);
        assert!(lan.counters.over_budget > 1000);
    }

    #[test]
    fn a_node_waits_a_moment_for_the_answers_to_its_first_here() {
        let (mut lan, mut machines) = lan();
        lan.handle_timeout(START + FIRST_WITHIN, true, &mut machines);
        assert!(lan.is_awaited());
        assert_eq!(lan.next_deadline(), Some(START + FIRST_WAIT));
        lan.handle_timeout(START + FIRST_WAIT, true, &mut machines);
        assert!(!lan.is_awaited());
        assert!(lan.next_deadline().is_some_and(|at| at > START + FIRST_WAIT));
    }
}

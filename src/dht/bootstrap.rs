//! Joining the network, and joining again when the routing table has become empty.
//!
//! A round asks the bootstrap addresses and former contacts. The pause between rounds without an answer doubles.

use super::former::FormerContacts;
use super::questions::Purpose;
use super::{Dht, DhtConfig, DhtEvent};
use crate::peers::outbox::Outbox;
use crate::peers::party::as_told;
use crate::time::{Duration, Instant};
use crate::wire::contact::{Contact, WireContact, canonical};
use core::net::SocketAddr;

/// The pause after the first round without an answer. Each further pause is twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause between two rounds.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A round without an answer has failed after this time.
const ROUND: Duration = Duration::from_secs(2);
/// Addresses that one round asks, and as many former contacts.
const ASKED_MAX: usize = 16;
/// Nodes named in the first answer that are asked, if the node that answered cannot enter the table.
const NAMED_MAX: usize = 8;

/// The way into the network.
pub(super) struct Bootstrap {
    state: State,
    backoff: Duration,
    latest: BootstrapRound,
    addresses: Vec<SocketAddr>,
    pub(super) former: FormerContacts,
    /// Whether the caller has heard that the node joined.
    joined: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The table has contacts, or there is no node to ask.
    Idle,
    /// A round waits for its first answer.
    Trying(Instant),
    /// The next round begins then.
    Waiting(Instant),
}

/// The numbers of addresses that a round of bootstrapping asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootstrapRound {
    /// Bootstrap addresses that were asked.
    pub addresses: u32,
    /// Contacts of earlier times that were asked.
    pub contacts: u32,
    /// Addresses of both kinds that this node's socket cannot send to, because they are of the other IP family.
    pub out_of_reach: u32,
}

impl Bootstrap {
    pub(super) fn new(now: Instant, config: &DhtConfig) -> Self {
        Bootstrap {
            state: State::Waiting(now),
            backoff: BACKOFF_MIN,
            latest: BootstrapRound::default(),
            addresses: distinct(config.bootstrap.iter().copied()),
            former: FormerContacts::new(&config.remembered),
            joined: false,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle => self.former.next_deadline(),
            State::Trying(at) | State::Waiting(at) => Some(at),
        }
    }

    /// The bootstrap addresses.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// This machine's addresses changed: a node whose table is empty tries again at once, if no round is under way.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Waiting(at) = self.state {
            self.state = State::Waiting(at.min(now));
        }
    }

    /// Replaces the addresses. A node whose table `is_empty` asks them at once if they are new and no round is under way.
    pub(super) fn set_addresses(
        &mut self,
        now: Instant,
        addresses: impl Iterator<Item = SocketAddr>,
        is_empty: bool,
    ) {
        let before = core::mem::replace(&mut self.addresses, distinct(addresses));
        let has_new = self.addresses.iter().any(|address| !before.contains(address));
        if has_new && is_empty && !matches!(self.state, State::Trying(_)) {
            self.state = State::Waiting(now);
        }
    }

    /// Whether the first attempt to join is under way: there are nodes to join through, and none has answered yet.
    pub(super) fn is_joining(&self) -> bool {
        let under_way = self.state != State::Idle && self.backoff == BACKOFF_MIN;
        under_way && self.has_nodes_to_ask()
    }

    fn has_nodes_to_ask(&self) -> bool {
        self.addresses.len() + self.former.len() > 0
    }

    /// The table has its first contact.
    pub(super) fn succeeded(&mut self, now: Instant) {
        (self.state, self.backoff) = (State::Idle, BACKOFF_MIN);
        self.former.begin(now);
    }

    /// The table is empty.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.state = State::Waiting(now + BACKOFF_MIN);
        self.former.stop();
    }
}

/// The addresses in canonical form, each once.
fn distinct(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses.map(canonical) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

impl Dht {
    /// Begins a round of bootstrapping, or ends one without an answer, when that is due.
    pub(super) fn bootstrap(&mut self, now: Instant, outbox: &mut Outbox) {
        match self.bootstrap.state {
            State::Trying(at) if at <= now => {
                let pause = self.bootstrap.backoff;
                let retry_in = self.rng.duration(pause * 3 / 4, pause * 5 / 4);
                self.bootstrap.state = State::Waiting(now + retry_in);
                self.bootstrap.backoff = (pause * 2).min(BACKOFF_MAX);
                self.counters.bootstrap_failed += 1;
                self.events.push_back(DhtEvent::BootstrapFailed { retry_in, round: self.bootstrap.latest });
            }
            State::Waiting(at) if at <= now => {
                self.bootstrap.latest = self.ask_bootstrap_nodes(now, outbox);
                self.bootstrap.state = match self.bootstrap.has_nodes_to_ask() {
                    true => State::Trying(now + ROUND),
                    false => State::Idle,
                };
            }
            State::Idle => {
                if let Some(contact) = self.bootstrap.former.due(now) {
                    self.check(now, contact, outbox);
                }
            }
            State::Trying(_) | State::Waiting(_) => {}
        }
    }

    /// Asks bootstrap addresses and former contacts.
    fn ask_bootstrap_nodes(&mut self, now: Instant, outbox: &mut Outbox) -> BootstrapRound {
        let mut round = BootstrapRound::default();
        for _ in 0..self.bootstrap.addresses.len().min(ASKED_MAX) {
            // In rotation, if there are more than one round asks.
            self.bootstrap.addresses.rotate_left(1);
            let Some(&address) = self.bootstrap.addresses.last() else { break };
            match self.reach.contains(address) {
                true => {
                    round.addresses += u32::from(self.ask(now, address, None, Purpose::Bootstrap, outbox))
                }
                false => round.out_of_reach += 1,
            }
        }
        for _ in 0..self.bootstrap.former.len().min(ASKED_MAX) {
            let Some(contact) = self.bootstrap.former.next() else { break };
            if !self.reach.contains(contact.addr) {
                round.out_of_reach += 1;
            } else if contact.id != self.own {
                // A question of the round before may still wait for its answer.
                let asking = self.transactions.is_asking(&contact.id, contact.addr);
                let asked = asking || self.ask(now, contact.addr, Some(contact), Purpose::Check, outbox);
                round.contacts += u32::from(asked);
            }
        }
        round
    }

    /// A bootstrap address answered. If the node there cannot enter the table, the nodes that it names may.
    pub(super) fn handle_bootstrap(
        &mut self,
        now: Instant,
        from: SocketAddr,
        contacts: &[WireContact],
        outbox: &mut Outbox,
    ) {
        if !self.table.is_empty() {
            return;
        }
        for contact in contacts.iter().filter_map(WireContact::get).take(NAMED_MAX) {
            if !outbox.network().admits(&contact.public) {
                self.counters.without_work += 1;
            } else if let Some(addr) = as_told(contact.addr, from).filter(|_| contact.id != self.own) {
                self.check(now, Contact { addr, ..contact }, outbox);
            }
        }
    }

    /// The lookup of the own neighbourhood ended.
    pub(super) fn found_neighbourhood(&mut self) {
        if !self.bootstrap.joined && !self.table.is_empty() {
            self.bootstrap.joined = true;
            self.events.push_back(DhtEvent::Joined { contacts: self.table.len() as u32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);

    fn contact(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([10, 0, 0, number], 3583).into())
    }

    fn bootstrap(addresses: &[&str], remembered: Vec<Contact>) -> Bootstrap {
        let bootstrap = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Bootstrap::new(START, &DhtConfig { bootstrap, remembered, ..DhtConfig::default() })
    }

    #[test]
    fn an_address_that_is_given_twice_is_asked_once() {
        let bootstrap = bootstrap(&["10.0.0.1:5", "[::ffff:10.0.0.1]:5", "10.0.0.2:5"], Vec::new());
        assert_eq!(bootstrap.addresses().len(), 2);
    }

    #[test]
    fn new_addresses_are_asked_at_once_by_a_node_that_knows_no_other() {
        let mut bootstrap = bootstrap(&[], Vec::new());
        bootstrap.state = State::Idle;
        let (address, later) = ("10.0.0.1:5".parse().unwrap(), START + ROUND);
        bootstrap.set_addresses(later, [address, address].into_iter(), false);
        assert_eq!(bootstrap.state, State::Idle, "the node has contacts");
        bootstrap.set_addresses(later, core::iter::empty(), true);
        assert_eq!(bootstrap.state, State::Idle, "no address to ask");
        bootstrap.set_addresses(later, [address, address].into_iter(), true);
        assert_eq!(bootstrap.state, State::Waiting(later));
        assert_eq!(bootstrap.addresses(), [address]);
        assert!(bootstrap.is_joining());
        bootstrap.state = State::Waiting(later + BACKOFF_MIN);
        bootstrap.set_addresses(later, [address].into_iter(), true);
        assert_eq!(bootstrap.state, State::Waiting(later + BACKOFF_MIN), "nothing new");
    }

    #[test]
    fn a_node_is_joining_until_its_first_contact_and_not_without_a_bootstrap_node() {
        assert!(!bootstrap(&[], Vec::new()).is_joining());
        assert!(bootstrap(&[], vec![contact(1)]).is_joining(), "contacts of the last run are nodes to ask");
        let mut bootstrap = bootstrap(&["10.0.0.1:5"], Vec::new());
        assert!(bootstrap.is_joining() && bootstrap.next_deadline() == Some(START));
        bootstrap.succeeded(START);
        assert!(!bootstrap.is_joining() && bootstrap.next_deadline().is_none());
        bootstrap.start_over(START);
        assert_eq!(bootstrap.next_deadline(), Some(START + BACKOFF_MIN));
    }
}

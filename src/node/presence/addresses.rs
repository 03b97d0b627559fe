//! This machine's addresses, and the one that the node listens on.
//!
//! When the addresses change, the node asks others at once how they see it. So it announces itself and its files at the new address
//! before anyone has looked for it at the old one in vain. A node that listens on one address hears nothing when that address has
//! gone. It then says so, because only its operator can help.

use crate::node::bridge;
use crate::node::command::AddressGone;
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use crate::wire::contact::canonical;
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

/// How often, and in which steps, others are asked after a change. The first answers bring the tokens that validate the new
/// address, so that only the second questions prove it to those that are asked.
const ASKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(700), Duration::from_secs(3)];

/// The addresses of this machine.
pub(super) struct Addresses {
    listen: IpAddr,
    known: Option<BTreeSet<IpAddr>>,
    /// Since when the address that the node listens on has been gone.
    gone: Option<Instant>,
    /// Questions to others that are still to be asked, the next one last.
    asks: Vec<Instant>,
}

impl Addresses {
    /// No address is known yet.
    pub(super) fn new(listen: SocketAddr) -> Self {
        Addresses { listen: canonical(listen).ip(), known: None, gone: None, asks: Vec::new() }
    }

    // Getters.

    /// The address that the node listens on, if it has gone.
    pub(super) fn status(&self, now: Instant) -> Option<AddressGone> {
        let seconds = now.since(self.gone?).as_secs();
        Some(AddressGone { address: self.listen, seconds })
    }

    /// When [`handle_timeout`](Addresses::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.asks.last().copied()
    }

    // Inputs.

    /// The machine has these addresses now. Returns whether it had others before.
    pub(super) fn handle(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) -> bool {
        let addresses: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        let Some(before) = self.known.replace(addresses.clone()) else {
            self.note_first(now, &addresses);
            return false;
        };
        if self.listen.is_unspecified() {
            self.note_change(now, &usable(&before), &usable(&addresses));
            return before != addresses;
        }
        match (before.contains(&self.listen), addresses.contains(&self.listen)) {
            (true, false) => {
                self.gone = Some(now);
                self.asks.clear();
                log::warn!(
                    "the address {} on which this node listens is gone from this machine: no node reaches it until the address \
                     is back, or until it is started with another --listen (without one it listens on every address)",
                    self.listen
                );
            }
            (false, true) => {
                if let Some(gone) = self.gone.take() {
                    let seconds = now.since(gone).as_secs();
                    log::warn!("the address {} is on this machine now, after {seconds} s", self.listen);
                    self.ask(now);
                }
            }
            _ => {}
        }
        before != addresses
    }

    /// The first look at the addresses. The one to listen on may come later; all of 127.0.0.0/8 is there without being listed.
    fn note_first(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) {
        let listen = self.listen;
        if !listen.is_unspecified() && !listen.is_loopback() && !addresses.contains(&listen) {
            self.gone = Some(now);
            log::warn!(
                "the address {listen} on which this node listens is not on this machine: no node reaches it until the address is \
                 there, or until it is started with another --listen (without one it listens on every address)"
            );
        }
    }

    /// Other addresses than before, of a node that listens on all.
    fn note_change(&mut self, now: Instant, before: &BTreeSet<IpAddr>, addresses: &BTreeSet<IpAddr>) {
        if before == addresses {
            return;
        }
        let words = |of: &BTreeSet<IpAddr>, than: &BTreeSet<IpAddr>| {
            let words: Vec<String> = of.difference(than).map(IpAddr::to_string).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let (new, gone) = (words(addresses, before), words(before, addresses));
        log::info!("the addresses of this machine changed (new: {new}; gone: {gone}): other nodes are told");
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        self.asks = ASKS.iter().rev().map(|after| now + *after).collect();
    }

    /// Asks others how they see this node, if that is due. The questions come from the new address and so announce it. Returns
    /// whether it asked.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) -> bool {
        if self.asks.last().is_none_or(|at| now < *at) {
            return false;
        }
        self.asks.pop();
        machines.dht.ask_observers(now, machines.outbox.peers());
        machines.gossip.call_roll(now);
        bridge::update_own_state(now, machines);
        true
    }
}

/// Those of some addresses at which other machines may see this one. Each new interface, such as a container's, brings a link-local
/// address of IPv6, which concerns no other node.
fn usable(addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let is_usable = |ip: &&IpAddr| match ip {
        IpAddr::V4(_) => !ip.is_loopback(),
        IpAddr::V6(v6) => !ip.is_loopback() && !v6.is_unicast_link_local(),
    };
    addresses.iter().filter(is_usable).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(100);

    fn set(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    fn addresses(listen: [u8; 4]) -> Addresses {
        let mut addresses = Addresses::new((listen, 3583).into());
        addresses.handle(START, &set(&[1]));
        assert_eq!(addresses.next_deadline(), None, "the first are no change");
        addresses
    }

    /// How often others are asked from now on.
    fn asked(addresses: &mut Addresses) -> usize {
        let mut machines = Machines::alone(START);
        let deadlines = core::iter::from_fn(|| {
            let at = addresses.next_deadline()?;
            addresses.handle_timeout(at - Duration::from_nanos(1), &mut machines);
            assert_eq!(addresses.next_deadline(), Some(at), "it is not due");
            addresses.handle_timeout(at, &mut machines);
            assert_ne!(addresses.next_deadline(), Some(at), "it is done once");
            Some(())
        });
        deadlines.count()
    }

    #[test]
    fn a_node_that_listens_everywhere_asks_how_it_is_seen_when_addresses_change() {
        let mut addresses = addresses([0, 0, 0, 0]);
        addresses.handle(START, &set(&[2]));
        assert_eq!(addresses.next_deadline(), Some(START));
        assert_eq!(asked(&mut addresses), ASKS.len());
        assert_eq!(addresses.status(START), None);
    }

    #[test]
    fn a_link_local_address_of_a_new_interface_concerns_no_other_node() {
        let mut addresses = addresses([0, 0, 0, 0]);
        let mut more = set(&[1]);
        more.insert("fe80::1".parse().unwrap());
        addresses.handle(START, &more);
        assert_eq!(addresses.next_deadline(), None);
    }

    #[test]
    fn the_address_that_a_node_listens_on_goes_and_comes_back() {
        let mut addresses = addresses([10, 0, 0, 1]);
        addresses.handle(START, &set(&[2]));
        assert_eq!(addresses.next_deadline(), None, "it could send nothing");
        let later = START + Duration::from_secs(9);
        let gone = AddressGone { address: [10, 0, 0, 1].into(), seconds: 9 };
        assert_eq!(addresses.status(later), Some(gone));
        addresses.handle(later, &set(&[1, 2]));
        assert_eq!(addresses.status(later), None);
        assert_eq!(asked(&mut addresses), ASKS.len());
    }

    #[test]
    fn other_addresses_do_not_matter_to_a_node_that_listens_on_one() {
        let mut addresses = addresses([10, 0, 0, 1]);
        addresses.handle(START, &set(&[1, 2]));
        addresses.handle(START, &set(&[1]));
        assert_eq!(addresses.next_deadline(), None);
        assert_eq!(addresses.status(START), None);
    }

    #[test]
    fn an_address_that_is_not_there_at_the_start_is_waited_for() {
        let mut addresses = Addresses::new(([10, 0, 0, 9], 3583).into());
        addresses.handle(START, &set(&[1]));
        let later = START + Duration::from_secs(9);
        let gone = AddressGone { address: [10, 0, 0, 9].into(), seconds: 9 };
        assert_eq!(addresses.status(later), Some(gone));
        addresses.handle(later, &set(&[1, 9]));
        assert_eq!(addresses.status(later), None);
        assert_eq!(asked(&mut addresses), ASKS.len());
    }

    #[test]
    fn an_address_that_the_machine_never_listed_does_not_go() {
        let mut addresses = addresses([127, 0, 0, 9]);
        addresses.handle(START, &set(&[2]));
        assert_eq!(addresses.status(START), None, "all of 127.0.0.0/8 is there without being listed");
    }
}

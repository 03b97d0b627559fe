//! Checks with every event: nodes send little to unvalidated addresses, and no node spins.

use super::peek::Peeked;
use crate::time::Instant;
use crate::wire::header::Kind;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most bytes that a node may send to an unvalidated address for each byte received from it.
pub const AMPLIFICATION_MAX: u64 = 3;
/// A node that is due this many times in a row at one moment spins. Fewer times are normal: nodes expire items in steps.
const SPINS_MAX: u32 = 64;

/// The state of the checks.
#[derive(Default)]
pub struct Watch {
    /// For each host: the addresses that its node received datagrams from.
    hosts: Vec<Addresses>,
    spinning: (Instant, usize, u32),
    /// The number of measured answers to unvalidated addresses.
    pub answers: u64,
    /// The largest ratio of bytes sent to bytes received for an unvalidated address, in thousandths.
    pub amplification_max: u64,
    /// Descriptions of the first violations.
    pub violations: Vec<String>,
    /// The number of all violations.
    pub violation_count: u64,
    /// Datagrams sent, by the number of their kind.
    pub kinds: [u64; 32],
    /// The address to count for, and the bytes that nodes have sent to it.
    counted: Option<(SocketAddr, u64)>,
}

/// The addresses that one run of one node receives datagrams from.
#[derive(Default)]
struct Addresses {
    /// Validated addresses: they answered the node, or sent back a token.
    proven: BTreeSet<SocketAddr>,
    /// Unvalidated addresses, each with the bytes received from it and sent in answer.
    unproven: BTreeMap<SocketAddr, Account>,
    /// The unvalidated addresses in the order of their first datagrams. Some have been validated since.
    order: VecDeque<SocketAddr>,
}

impl Addresses {
    /// The account of an unvalidated address. To make room for a new one, the oldest ends.
    fn account(&mut self, addr: SocketAddr) -> &mut Account {
        if !self.unproven.contains_key(&addr) {
            while self.order.len() >= ACCOUNTS_MAX {
                let oldest = self.order.pop_front();
                oldest.and_then(|oldest| self.unproven.remove(&oldest));
            }
            self.order.push_back(addr);
        }
        self.unproven.entry(addr).or_default()
    }
}

#[derive(Clone, Copy, Default)]
struct Account {
    into: u64,
    out: u64,
}

/// The most unvalidated addresses whose accounts are kept. At the limit, the oldest account ends.
const ACCOUNTS_MAX: usize = 1 << 12;

impl Watch {
    /// Notes a datagram that a host receives.
    #[inline]
    pub(super) fn received(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        let Some(peeked) = Peeked::of(bytes) else { return };
        if self.hosts.len() <= host {
            self.hosts.resize_with(host + 1, Addresses::default);
        }
        let addresses = &mut self.hosts[host];
        // A challenge is not authenticated, so it does not validate its source address.
        if peeked.kind.is_answer() || peeked.token != 0 && peeked.kind != Kind::Challenge {
            if addresses.proven.insert(from) {
                addresses.unproven.remove(&from);
            }
        } else if !addresses.proven.contains(&from) {
            addresses.account(from).into += bytes.len() as u64;
        }
    }

    /// Notes a datagram that a host sends.
    #[inline]
    pub(super) fn sent(&mut self, host: usize, to: SocketAddr, bytes: &[u8]) {
        if let Some((_, count)) = self.counted.as_mut().filter(|(addr, _)| *addr == to) {
            *count += bytes.len() as u64;
        }
        let Some(peeked) = Peeked::of(bytes) else { return };
        self.kinds[peeked.kind as usize % 32] += 1;
        // A request is not an answer. A peer that sends more cannot make the node send more requests.
        if !peeked.kind.is_answer() && peeked.kind != Kind::Challenge {
            return;
        }
        let Some(account) = self.hosts.get_mut(host).and_then(|host| host.unproven.get_mut(&to)) else {
            return;
        };
        account.out += bytes.len() as u64;
        let account = *account;
        self.answers += 1;
        self.amplification_max = self.amplification_max.max(account.out * 1000 / account.into.max(1));
        if account.out > account.into * AMPLIFICATION_MAX {
            let Account { into, out } = account;
            self.violation(format!(
                "host {host} sent {out} bytes to {to}, which sent {into} and proved nothing, kind {} last",
                peeked.kind as u8
            ));
        }
    }

    /// Checks for a spin after a node's deadline fired. `next` is the node's next deadline.
    pub(super) fn spin(&mut self, at: Instant, host: usize, next: Option<Instant>, now: Instant) {
        if next.is_none_or(|next| next > now) {
            return;
        }
        let (last, who, count) = self.spinning;
        self.spinning = if (last, who) == (at, host) { (at, host, count + 1) } else { (at, host, 1) };
        if self.spinning.2 == SPINS_MAX {
            self.violation(format!("host {host} is due again and again at {} ns", now.as_nanos()));
        }
        assert!(self.spinning.2 < SPINS_MAX * 64, "host {host} spins, and time stands still");
    }

    /// Forgets the addresses of a host whose node ended.
    pub(super) fn forget(&mut self, host: usize) {
        if let Some(addresses) = self.hosts.get_mut(host) {
            *addresses = Addresses::default();
        }
    }

    fn violation(&mut self, what: String) {
        const KEPT: usize = 16;
        self.violation_count += 1;
        if self.violations.len() < KEPT {
            self.violations.push(what);
        }
    }

    /// Counts the bytes that nodes send to an address from now on.
    pub fn count_to(&mut self, addr: SocketAddr) {
        self.counted = Some((addr, 0));
    }

    /// The bytes sent to the address of the last [`count_to`](Watch::count_to).
    pub fn counted(&self) -> u64 {
        self.counted.map_or(0, |(_, bytes)| bytes)
    }

    /// The number of datagrams of a kind that nodes sent.
    pub fn sent_of(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize % 32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, write};
    use crate::wire::message::Message;
    use crate::wire::network::Network;

    fn datagram(message: &Message<'_>) -> Vec<u8> {
        let identity = Identity::stand_in(&[1; 32]);
        let network = Network::of("test", &identity);
        let envelope = Envelope {
            recipient: Some(Identity::stand_in(&[2; 32]).id()),
            leaf: false,
            epoch: Epoch::new(1),
            sequence: 1,
            transaction: 2,
            token: 0,
        };
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut bytes, &network, &identity, &envelope, message).unwrap();
        bytes[..length].to_vec()
    }

    #[test]
    fn more_than_three_bytes_for_one_are_seen_until_the_address_has_answered() {
        let addr = SocketAddr::from(([16, 0, 0, 1], 3583));
        let (ping, found) = (
            datagram(&Message::Ping { padding: 0 }),
            datagram(&Message::Found { contacts: &[], providers: &[], record: None }),
        );
        let pong = datagram(&Message::Pong { observed: addr });
        let mut watch = Watch::default();
        watch.received(0, addr, &ping);
        (0..2).for_each(|_| watch.sent(0, addr, &found));
        assert!(watch.violations.is_empty() && watch.answers == 2);
        (0..2).for_each(|_| watch.sent(0, addr, &found));
        assert_eq!(
            watch.violation_count, 2,
            "the third answer to one request is too much, and so is the fourth"
        );
        watch.received(0, addr, &pong);
        watch.received(0, addr, &ping);
        watch.sent(0, addr, &found);
        assert_eq!(watch.violation_count, 2);
    }

    #[test]
    fn at_the_limit_the_oldest_account_ends_whatever_its_address() {
        let addr = |number: u32| SocketAddr::from((number.to_be_bytes(), 3583));
        let mut addresses = Addresses::default();
        let most = ACCOUNTS_MAX as u32;
        // Addresses fall, so the newest one is the lowest.
        for number in (0..=most).rev() {
            addresses.account(addr(number)).into += 7;
        }
        assert_eq!(addresses.unproven.len(), ACCOUNTS_MAX);
        assert!(!addresses.unproven.contains_key(&addr(most)), "the oldest");
        assert_eq!(addresses.account(addr(0)).into, 7, "the newest");
        assert_eq!(addresses.order.len(), ACCOUNTS_MAX);
    }
}

//! Admission: the budget of signature checks, and the replay windows.

use crate::id::NodeId;
use crate::peers::party::Party;
use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};
use core::net::IpAddr;

/// The budget of signature checks. All unvalidated addresses share one bucket, and those of one site a smaller one, so that the flood
/// of one site leaves checks for the others. Each validated address has a bucket of its own: a token is easy to get, and must not buy
/// all of this node's time.
pub(super) struct CheckBudget {
    /// The rate for all unvalidated addresses together, and for one validated address.
    all: Rate,
    /// The rate of one site.
    site: Rate,
    strangers: Bucket,
    sites: Vec<Bucket>,
    validated: Vec<Bucket>,
    secret: u64,
}

/// Buckets of sites, and of validated addresses. Two may share a bucket; which ones is secret.
const BUCKETS: usize = 256;

impl CheckBudget {
    pub(super) fn new(per_second: u32, secret: u64) -> Self {
        let per_second = per_second.max(1);
        let site = Rate::every(Duration::from_secs(4) / per_second, (per_second / 4).max(1));
        CheckBudget {
            all: Rate::per_second(per_second),
            site,
            strangers: Bucket::FULL,
            sites: vec![Bucket::FULL; BUCKETS],
            validated: vec![Bucket::FULL; BUCKETS],
            secret,
        }
    }

    /// Whether a datagram from `ip`, an unvalidated address, gets a signature check.
    pub(super) fn admit_stranger(&mut self, now: Instant, ip: IpAddr) -> bool {
        let slot = self.slot(Party::site(ip));
        self.sites[slot].take(now, &self.site) && self.strangers.take(now, &self.all)
    }

    /// Whether a datagram from `ip`, a validated address, gets a signature check.
    pub(super) fn admit_validated(&mut self, now: Instant, ip: IpAddr) -> bool {
        let slot = self.slot(Party::host(ip));
        self.validated[slot].take(now, &self.all)
    }

    fn slot(&self, party: Party) -> usize {
        xxhash_rust::xxh3::xxh3_64_with_seed(party.as_bytes(), self.secret) as usize % BUCKETS
    }
}

/// Replay windows: which datagrams of each peer were received, as a sliding window over its sequence numbers, as in IPsec (RFC 4303
/// §3.4.3). The table has a fixed size. The window of a peer that was displaced or silent starts anew; an attacker can then replay
/// only requests without a valid token.
pub(super) struct ReplayWindows {
    entries: Vec<Window>,
}

#[derive(Clone, Copy)]
struct Window {
    id: NodeId,
    highest: u64,
    /// Bit `i` is set if `highest - i` was received.
    received: u64,
    used: Instant,
}

const WINDOWS: usize = 1024;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

impl ReplayWindows {
    pub(super) fn new() -> Self {
        let empty = Window { id: NodeId([0; 32]), highest: 0, received: 0, used: Instant::ZERO };
        ReplayWindows { entries: vec![empty; WINDOWS] }
    }

    /// Whether the datagram with this number is new. Its sender is authenticated.
    pub(super) fn accept(&mut self, now: Instant, id: NodeId, sequence: u64) -> bool {
        let slot = usize::from(u16::from_le_bytes([id.0[8], id.0[9]])) % WINDOWS;
        let window = &mut self.entries[slot];
        if window.id != id || now.since(window.used) > FORGOTTEN_AFTER {
            *window = Window { id, highest: sequence, received: 1, used: now };
            return true;
        }
        if sequence > window.highest {
            let ahead = sequence - window.highest;
            window.received = if ahead < 64 { window.received << ahead | 1 } else { 1 };
            (window.highest, window.used) = (sequence, now);
            return true;
        }
        let behind = window.highest - sequence;
        let fresh = behind < 64 && window.received & (1 << behind) == 0;
        if fresh {
            window.received |= 1 << behind;
            window.used = now;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_site_leaves_checks_for_others() {
        let now = Instant::from_secs(1);
        let mut budget = CheckBudget::new(100, 7);
        let flooded = (0..1000).filter(|_| budget.admit_stranger(now, [10, 0, 0, 1].into())).count();
        assert_eq!(flooded, 25);
        let others = (1..=20u8).filter(|i| budget.admit_stranger(now, [192, 0, *i, 1].into())).count();
        assert!(others >= 15, "{others}");
        assert!(budget.admit_stranger(now + Duration::from_secs(1), [10, 0, 0, 1].into()));
    }

    #[test]
    fn a_validated_address_gets_a_share_of_the_checks_and_not_all_of_them() {
        let now = Instant::from_secs(1);
        let mut budget = CheckBudget::new(100, 7);
        let flooded = (0..1000).filter(|_| budget.admit_validated(now, [10, 0, 0, 1].into())).count();
        assert_eq!(flooded, 100);
        assert!(budget.admit_validated(now, [10, 0, 0, 2].into()));
        assert!(budget.admit_stranger(now, [10, 0, 0, 1].into()));
    }

    #[test]
    fn a_sequence_number_is_accepted_once_and_in_any_order_within_the_window() {
        let (now, id) = (Instant::from_secs(1), NodeId([1; 32]));
        let mut windows = ReplayWindows::new();
        for sequence in [100, 102, 101, 163] {
            assert!(windows.accept(now, id, sequence), "{sequence}");
            assert!(!windows.accept(now, id, sequence), "{sequence} again");
        }
        assert!(!windows.accept(now, id, 99), "the number is below the window");
        assert!(!windows.accept(now, id, 102) && windows.accept(now, id, 103));
        assert!(windows.accept(now, NodeId([2; 32]), 1), "peers have windows of their own");
        assert!(windows.accept(now + FORGOTTEN_AFTER * 2, id, 5), "the window of a silent peer starts anew");
    }
}

//! Admission: the budget of signature checks, and the replay windows.

use crate::id::NodeId;
use crate::peers::party::Party;
use crate::peers::rate::{Bucket, Rate};
use crate::peers::standing::Standing;
use crate::time::{Duration, Instant};
use crate::wire::datagram::{Epoch, Verified};
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

/// Replay windows: which datagrams of each peer's present epoch were received, as a sliding window over their numbers, as in IPsec
/// (RFC 4303 §3.4.3). The table has a fixed size. The window of a peer that was displaced starts anew with the next datagram that
/// proves to be fresh.
pub(super) struct ReplayWindows {
    entries: Vec<Option<Window>>,
}

/// What shows that a datagram is no recording of an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// Nothing but its number in an epoch that is known.
    None,
    /// A valid token. The sender may have used it in an earlier epoch, too.
    Token,
    /// It answers an outstanding request.
    Answer,
}

#[derive(Clone, Copy)]
struct Window {
    id: NodeId,
    epoch: Epoch,
    /// The epoch before.
    previous: Option<Epoch>,
    highest: u64,
    /// Bit `i` is set if `highest - i` was received.
    received: u64,
}

const WINDOWS: usize = 1024;

impl ReplayWindows {
    pub(super) fn new() -> Self {
        ReplayWindows { entries: vec![None; WINDOWS] }
    }

    /// The standing of an authenticated datagram; `None` when it was received before, or belongs to a run that has ended.
    pub(super) fn accept(&mut self, datagram: &Verified<'_>, proof: Proof) -> Option<Standing> {
        let (id, epoch, sequence) = (datagram.id(), datagram.epoch(), datagram.sequence());
        let slot = usize::from(u16::from_le_bytes([id.0[8], id.0[9]])) % WINDOWS;
        let entry = &mut self.entries[slot];
        let known = entry.as_mut().filter(|window| window.id == id);
        let previous = match known {
            Some(window) if window.epoch == epoch => {
                let fresh = if proof == Proof::None { Standing::Fresh } else { Standing::Validated };
                return window.accept(sequence).then_some(fresh);
            }
            Some(window) if window.previous == Some(epoch) => {
                // Only an answer shows that another process with the same identity still runs. It moves no window.
                return (proof == Proof::Answer).then_some(Standing::Validated);
            }
            Some(window) => Some(window.epoch),
            None => None,
        };
        if proof == Proof::None {
            return Some(Standing::Unproven);
        }
        *entry = Some(Window { id, epoch, previous, highest: sequence, received: 1 });
        Some(Standing::Validated)
    }
}

impl Window {
    /// Whether the datagram with this number is new.
    fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.received = if ahead < 64 { self.received << ahead | 1 } else { 1 };
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        let fresh = behind < 64 && self.received & (1 << behind) == 0;
        if fresh {
            self.received |= 1 << behind;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Unverified, write};
    use crate::wire::message::Message;
    use crate::wire::network::Network;

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

    /// Has the windows judge a ping of the node with this secret.
    fn accept(
        windows: &mut ReplayWindows,
        (secret, epoch): (u8, u64),
        sequence: u64,
        proof: Proof,
    ) -> Option<Standing> {
        let (network, sender, node) =
            (Network::new("test"), Identity::from_secret(&[secret; 32]), NodeId([7; 32]));
        let epoch = Epoch::new(epoch);
        let envelope =
            Envelope { recipient: Some(node), leaf: false, epoch, sequence, transaction: 1, token: 0 };
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut bytes, &network, &sender, &envelope, &Message::Ping { padding: 0 }).unwrap();
        let datagram =
            Unverified::parse(&bytes[..length], &network).unwrap().verify(&network, &node).unwrap();
        windows.accept(&datagram, proof)
    }

    const PEER: (u8, u64) = (1, 5);
    const RESTARTED: (u8, u64) = (1, 6);

    #[test]
    fn a_number_is_accepted_once_and_in_any_order_within_the_window() {
        let mut windows = ReplayWindows::new();
        assert_eq!(accept(&mut windows, PEER, 100, Proof::Answer), Some(Standing::Validated));
        for sequence in [102, 101, 163] {
            assert_eq!(
                accept(&mut windows, PEER, sequence, Proof::None),
                Some(Standing::Fresh),
                "{sequence}"
            );
            assert_eq!(accept(&mut windows, PEER, sequence, Proof::Token), None, "{sequence} again");
        }
        assert_eq!(accept(&mut windows, PEER, 99, Proof::None), None, "the number is below the window");
        assert_eq!(accept(&mut windows, PEER, 103, Proof::None), Some(Standing::Fresh));
    }

    #[test]
    fn an_epoch_begins_with_a_token_or_an_answer_and_not_with_a_mere_request() {
        for proof in [Proof::Token, Proof::Answer] {
            let mut windows = ReplayWindows::new();
            assert_eq!(accept(&mut windows, PEER, 9, Proof::None), Some(Standing::Unproven));
            assert_eq!(accept(&mut windows, PEER, 9, proof), Some(Standing::Validated));
            assert_eq!(accept(&mut windows, PEER, 10, Proof::None), Some(Standing::Fresh));
            assert_eq!(accept(&mut windows, RESTARTED, 1, Proof::None), Some(Standing::Unproven));
            assert_eq!(
                accept(&mut windows, PEER, 11, Proof::None),
                Some(Standing::Fresh),
                "nothing has changed"
            );
            assert_eq!(accept(&mut windows, RESTARTED, 2, proof), Some(Standing::Validated));
            assert_eq!(accept(&mut windows, RESTARTED, 1, Proof::None), None, "below the window's start");
        }
    }

    #[test]
    fn the_epoch_before_comes_back_with_an_answer_only() {
        let mut windows = ReplayWindows::new();
        accept(&mut windows, PEER, 9, Proof::Answer);
        accept(&mut windows, RESTARTED, 1, Proof::Answer);
        assert_eq!(accept(&mut windows, PEER, 10, Proof::None), None);
        assert_eq!(accept(&mut windows, PEER, 10, Proof::Token), None);
        assert_eq!(accept(&mut windows, PEER, 10, Proof::Answer), Some(Standing::Validated));
        assert_eq!(accept(&mut windows, RESTARTED, 2, Proof::None), Some(Standing::Fresh));
    }
}

//! The budget of signature checks: one for the whole node, because there is one processor.
//!
//! A check takes about 50 µs on a desktop and a millisecond on a router, and every node may ask for one. All checks come out of
//! one bucket. Its rate is half of what this processor manages. Each kind of datagram has a level below which it is refused, so
//! strangers are refused first and answers to this node's own requests last. Within a kind, no party gets more than its share; a
//! party of known peers is held to its share only while the bucket is less than half full, so that a network of one party is
//! served like any other.
//!
//! | a datagram with | may lower the bucket to |
//! |---|---|
//! | an answer to this node's request | any level, below zero too |
//! | a valid token of a known peer | an eighth full |
//! | a valid token | a quarter full |
//! | nothing | half full |

use super::party::Party;
use super::rate::{Bucket, Rate};
use crate::id::ShortId;
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};

/// Checks in a second on a processor whose speed was not measured: those of a desktop.
pub const CHECKS_PER_SECOND: u32 = 20_000;
/// One host, or one known peer, gets 1/`SHARES` of all checks.
const SHARES: u32 = 8;
/// One site gets 1/`SITE_SHARES` of the checks of strangers.
const SITE_SHARES: u32 = 4;
/// Buckets of each kind. Two parties may share a bucket; which ones is secret.
const BUCKETS: usize = 256;

/// What a datagram shows before its signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It answers an outstanding request.
    Answer,
    /// Its token validates its address for a known peer.
    Known(ShortId),
    /// Its token validates its address for another node.
    Token,
    /// Nothing.
    None,
}

impl Claim {
    /// Whether the datagram is no older than the token or the request.
    pub fn is_proof(self) -> bool {
        self != Claim::None
    }
}

/// The budget.
pub struct Checks {
    /// The rate of all checks, of one host or known peer, of all strangers, and of the strangers of one site.
    all: Rate,
    share: Rate,
    strangers: Rate,
    site: Rate,
    /// The checks that are left, of all and of strangers.
    left: Bucket,
    left_for_strangers: Bucket,
    sites: Vec<Bucket>,
    hosts: Vec<Bucket>,
    peers: Vec<Bucket>,
    /// Of the sites of known peers, while checks are scarce.
    scarce: Vec<Bucket>,
    /// The size of the whole bucket.
    burst: u64,
    strangers_max: u32,
    secret: u64,
}

impl Checks {
    /// The budget of a processor that manages [`CHECKS_PER_SECOND`]. Strangers get a quarter of the budget and at most
    /// `strangers_max` checks a second.
    pub fn new(strangers_max: u32, secret: u64) -> Self {
        let full = || vec![Bucket::FULL; BUCKETS];
        let any = Rate::per_second(1);
        let mut checks = Checks {
            all: any,
            share: any,
            strangers: any,
            site: any,
            left: Bucket::FULL,
            left_for_strangers: Bucket::FULL,
            sites: full(),
            hosts: full(),
            peers: full(),
            scarce: full(),
            burst: 0,
            strangers_max,
            secret,
        };
        checks.calibrate(CHECKS_PER_SECOND);
        checks
    }

    /// Sets how many checks this processor manages in a second. Half of them are the budget.
    pub fn calibrate(&mut self, per_second: u32) {
        let all = (per_second / 2).max(SHARES * SITE_SHARES);
        let strangers = (all / 4).min(self.strangers_max).max(SITE_SHARES);
        self.burst = u64::from(all);
        self.all = Rate::per_second(all);
        self.share = Rate::per_second(all / SHARES);
        self.strangers = Rate::per_second(strangers);
        self.site = Rate::per_second(strangers / SITE_SHARES);
    }

    /// Whether a datagram from `from` that shows this gets a signature check, which is then charged.
    pub fn admit(&mut self, now: Instant, from: SocketAddr, claim: Claim) -> bool {
        match claim {
            // Never refused: the number of outstanding requests bounds them.
            Claim::Answer => self.left.spend(now, &self.all, 1),
            Claim::Known(peer) => {
                let (slot, site) = (self.slot(&peer), self.slot(Party::site(from.ip()).as_bytes()));
                return self.leaves(now, 8)
                    && self.peers[slot].available(now, &self.share) > 0
                    && (self.leaves(now, 2) || self.scarce[site].take(now, &self.share))
                    && self.peers[slot].take(now, &self.share)
                    && self.charge(now);
            }
            Claim::Token => {
                let slot = self.slot(Party::host(from.ip()).as_bytes());
                return self.leaves(now, 4) && self.hosts[slot].take(now, &self.share) && self.charge(now);
            }
            Claim::None => return self.admit_stranger(now, from.ip()),
        }
        true
    }

    fn admit_stranger(&mut self, now: Instant, ip: IpAddr) -> bool {
        let slot = self.slot(Party::site(ip).as_bytes());
        self.leaves(now, 2)
            && self.sites[slot].take(now, &self.site)
            && self.left_for_strangers.take(now, &self.strangers)
            && self.charge(now)
    }

    /// Whether another signature of an authenticated datagram of this peer at this address, that of a record or of a member's state,
    /// gets a check. The check is charged to the peer.
    pub fn admit_inner(&mut self, now: Instant, teller: ShortId, from: SocketAddr) -> bool {
        self.admit(now, from, Claim::Known(teller))
    }

    /// The same for a signature in an answer to this node's request. Only the teller's own share bounds it: the bucket is charged,
    /// and may fall below zero.
    pub fn admit_told(&mut self, now: Instant, teller: ShortId) -> bool {
        let slot = self.slot(&teller);
        self.peers[slot].take(now, &self.share) && self.charge(now)
    }

    /// A signature was wrong. A sender whose datagram shows a token has made the datagram itself, so its address has spent its
    /// share.
    pub fn note_wrong(&mut self, now: Instant, from: SocketAddr, claim: Claim) {
        match claim {
            Claim::Known(peer) => {
                let slot = self.slot(&peer);
                self.peers[slot] = Bucket::empty(now, &self.share);
            }
            Claim::Token => {
                let slot = self.slot(Party::host(from.ip()).as_bytes());
                self.hosts[slot] = Bucket::empty(now, &self.share);
            }
            Claim::Answer | Claim::None => {}
        }
    }

    /// Whether one check leaves `1/part` of the whole bucket.
    fn leaves(&self, now: Instant, part: u64) -> bool {
        self.left.available(now, &self.all) > self.burst / part
    }

    fn charge(&mut self, now: Instant) -> bool {
        self.left.spend(now, &self.all, 1);
        true
    }

    fn slot(&self, party: &[u8]) -> usize {
        xxhash_rust::xxh3::xxh3_64_with_seed(party, self.secret) as usize % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    /// The time in which an emptied bucket is full again.
    const REFILL: Duration = Duration::from_secs(1);
    const NOW: Instant = Instant::from_secs(100);

    fn addr(site: u8, host: u8) -> SocketAddr {
        ([192, 0, site, host], 3583).into()
    }

    /// A budget of 1,000 checks a second.
    fn checks() -> Checks {
        let mut checks = Checks::new(1000, 7);
        checks.calibrate(2000);
        checks
    }

    /// How many of many datagrams get a check.
    fn flood(checks: &mut Checks, claim: impl Fn(u32) -> (SocketAddr, Claim)) -> u32 {
        (0..5000)
            .filter(|number| {
                let (from, claim) = claim(*number);
                checks.admit(NOW, from, claim)
            })
            .count() as u32
    }

    #[test]
    fn a_flood_from_one_site_leaves_checks_for_others() {
        let mut checks = checks();
        let flooded = flood(&mut checks, |_| (addr(1, 1), Claim::None));
        assert_eq!(flooded, 250 / SITE_SHARES);
        let others = (2..=40).filter(|site| checks.admit(NOW, addr(*site, 1), Claim::None)).count();
        assert!(others >= 30, "{others}");
    }

    #[test]
    fn strangers_go_without_first_and_answers_never() {
        let mut checks = checks();
        // Sixteen known peers, hosts and sites use up what each kind may use.
        let known = flood(&mut checks, |number| {
            let peer = (number % 16) as u8;
            (addr(peer, 1), Claim::Known([peer; 8]))
        });
        assert!((800..=875).contains(&known), "{known}");
        let admitted = |checks: &mut Checks, claim| checks.admit(NOW, addr(9, 9), claim);
        assert!(!admitted(&mut checks, Claim::None), "a stranger");
        assert!(!admitted(&mut checks, Claim::Token), "a validated address");
        assert!(!admitted(&mut checks, Claim::Known([99; 8])), "a known peer");
        assert!(admitted(&mut checks, Claim::Answer), "an answer");
        let later = NOW + REFILL;
        assert!(checks.admit(later, addr(9, 9), Claim::None), "all of it is there again a second later");
    }

    #[test]
    fn many_hosts_with_tokens_leave_checks_for_known_peers() {
        let mut checks = checks();
        let tokens = flood(&mut checks, |number| (addr((number % 100) as u8, 1), Claim::Token));
        assert!(tokens <= 750, "{tokens}");
        assert!(checks.admit(NOW, addr(200, 1), Claim::Known([1; 8])));
    }

    #[test]
    fn one_host_or_peer_gets_a_share_and_a_wrong_signature_costs_all_of_it() {
        let mut checks = checks();
        assert_eq!(flood(&mut checks, |_| (addr(1, 1), Claim::Token)), 1000 / SHARES);
        assert_eq!(flood(&mut checks, |_| (addr(1, 1), Claim::Known([1; 8]))), 1000 / SHARES);
        for claim in [Claim::Token, Claim::Known([2; 8])] {
            let mut checks = self::checks();
            assert!(checks.admit(NOW, addr(2, 1), claim));
            checks.note_wrong(NOW, addr(2, 1), claim);
            assert!(!checks.admit(NOW, addr(2, 1), claim), "{claim:?}");
            assert!(checks.admit(NOW + REFILL, addr(2, 1), claim), "{claim:?}");
        }
    }

    #[test]
    fn known_peers_of_one_site_leave_half_of_the_checks_to_other_sites() {
        let mut checks = checks();
        let crowd = flood(&mut checks, |number| (addr(1, number as u8), Claim::Known([number as u8; 8])));
        assert!((500..=500 + 1000 / SHARES).contains(&crowd), "{crowd}");
        let others =
            (2..=40).filter(|site| checks.admit(NOW, addr(*site, 1), Claim::Known([200 + *site; 8])));
        assert!(others.count() >= 36, "hardly any of them shares a bucket with the crowd");
    }

    #[test]
    fn a_network_of_one_site_gets_every_check_that_there_is() {
        let mut checks = checks();
        let mut admitted = 0;
        // Ten seconds, and twice as many datagrams as there are checks.
        for millis in 0..10_000 {
            let now = NOW + Duration::from_millis(millis);
            for number in 0..2 {
                let peer = ((millis * 2 + number) % 64) as u8;
                admitted += u32::from(checks.admit(now, addr(1, peer), Claim::Known([peer; 8])));
            }
        }
        assert!(admitted >= 10_000, "{admitted}");
    }

    #[test]
    fn what_answers_carry_is_charged_to_the_teller_and_never_refused_for_the_others_sake() {
        let mut checks = checks();
        // Seven known peers use up what known peers may use.
        flood(&mut checks, |number| (addr((number % 7) as u8, 1), Claim::Known([(number % 7) as u8; 8])));
        assert!(!checks.admit(NOW, addr(1, 1), Claim::Known([251; 8])), "nothing is left for requests");
        let told = (0..5000).filter(|_| checks.admit_told(NOW, [252; 8])).count();
        assert_eq!(told as u32, 1000 / SHARES);
        checks.note_wrong(NOW, addr(1, 1), Claim::Known([253; 8]));
        assert!(!checks.admit_told(NOW, [253; 8]), "a wrong signature costs the teller its share");
    }

    #[test]
    fn a_slow_processor_gives_each_kind_its_share_of_few_checks() {
        let mut checks = Checks::new(1000, 7);
        checks.calibrate(100);
        let strangers = flood(&mut checks, |number| (addr((number % 100) as u8, 1), Claim::None));
        assert!((4..=25).contains(&strangers), "{strangers}");
        assert!(checks.admit(NOW, addr(1, 1), Claim::Token) && checks.admit(NOW, addr(1, 1), Claim::Answer));
    }
}

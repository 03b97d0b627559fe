//! Outstanding requests.
//!
//! A request has three deadlines. After one round-trip timeout it is repeated, once, and its slot in a lookup is free. After three of
//! them the lookup goes on without it. After five seconds it has failed.

use super::rtt::TIMEOUT_FIRST;
use super::{LookupId, Want};
use crate::id::{Key, NodeId};
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::{Contact, canonical};
use crate::wire::header::Kind;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// The time after which a request has failed.
pub(super) const FAILED_AFTER: Duration = Duration::from_secs(5);
/// The least time before a lookup goes on without an answer.
const GIVEN_UP_AFTER_MIN: Duration = Duration::from_secs(1);

/// The purpose of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To find a node at an address.
    Bootstrap,
    /// To check whether a node is alive.
    Check,
    /// A step of a lookup. It contains what it asks for, because it may outlive the lookup.
    Lookup(LookupId, Key, Want),
    /// To announce files, or to withdraw announcements.
    Announce(Vec<Key>),
    /// To store the own record with this key and sequence number.
    Store(Key, u64),
}

impl Purpose {
    /// The kind of message that answers it.
    pub(super) fn answer(&self) -> Kind {
        match self {
            Purpose::Check => Kind::Pong,
            Purpose::Bootstrap | Purpose::Lookup(..) => Kind::Found,
            Purpose::Announce(_) | Purpose::Store(..) => Kind::Stored,
        }
    }
}

/// An outstanding request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The address that it was sent to.
    pub(super) to: SocketAddr,
    /// The node that must answer; `None` when bootstrapping.
    pub(super) contact: Option<Contact>,
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// When it was first sent.
    pub(super) sent: Instant,
    /// Whether it was repeated, so that the delay of its answer is no round-trip time.
    pub(super) repeated: bool,
    /// Whether it is the second attempt after a token was refused.
    pub(super) token_retried: bool,
    /// Whether it is never repeated.
    once: bool,
    late: Option<Instant>,
    given_up: Option<Instant>,
    failed: Instant,
}

impl Request {
    /// A request sent now, whose answer should take at most `timeout`.
    pub(super) fn new(now: Instant, to: SocketAddr, contact: Option<Contact>, purpose: Purpose) -> Self {
        let mut request = Request {
            to: canonical(to),
            contact,
            purpose,
            sent: now,
            repeated: false,
            token_retried: false,
            once: false,
            late: None,
            given_up: None,
            failed: now + FAILED_AFTER,
        };
        request.expect_within(TIMEOUT_FIRST);
        request
    }

    /// The same request, never repeated: bytes to an unvalidated address are limited.
    pub(super) fn once(self) -> Self {
        Request { once: true, late: None, ..self }
    }

    /// Sets the round-trip timeout.
    pub(super) fn expect_within(&mut self, timeout: Duration) {
        self.late = (!self.once).then(|| self.sent + timeout);
        self.given_up = Some(self.sent + (timeout * 3).clamp(GIVEN_UP_AFTER_MIN, FAILED_AFTER));
    }

    fn deadline(&self) -> Instant {
        let soon = earliest(self.late, self.given_up);
        soon.map_or(self.failed, |soon| soon.min(self.failed))
    }
}

/// A deadline that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Overdue {
    /// The round-trip timeout: repeat the request.
    Late,
    /// The lookup goes on without the answer.
    GivenUp,
    /// The request has failed.
    Failed,
}

/// The outstanding requests by their transaction numbers, bounded.
pub(super) struct Transactions {
    requests: BTreeMap<u64, Request>,
    capacity: usize,
}

impl Transactions {
    /// Room for `capacity` requests.
    pub(super) fn new(capacity: usize) -> Self {
        Transactions { requests: BTreeMap::new(), capacity }
    }

    /// The number of requests that can be added.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.requests.len())
    }

    /// Adds a request.
    pub(super) fn insert(&mut self, transaction: u64, request: Request) {
        debug_assert!(self.room() > 0);
        self.requests.insert(transaction, request);
    }

    /// The request with this number.
    pub(super) fn get(&self, transaction: u64) -> Option<&Request> {
        self.requests.get(&transaction)
    }

    /// Removes and returns a request.
    pub(super) fn remove(&mut self, transaction: u64) -> Option<Request> {
        self.requests.remove(&transaction)
    }

    /// Whether a datagram from `from` could answer a request.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        let fits = |request: &Request| request.to == canonical(from) && request.purpose.answer() == kind;
        self.get(transaction).is_some_and(fits)
    }

    /// The number of outstanding checks.
    pub(super) fn checks(&self) -> usize {
        self.requests.values().filter(|request| request.purpose == Purpose::Check).count()
    }

    /// Whether a request to this node at this address is outstanding.
    pub(super) fn is_asking(&self, id: &NodeId, addr: SocketAddr) -> bool {
        let same = |request: &Request| request.contact.is_some_and(|c| c.id == *id && c.addr == addr);
        self.requests.values().any(same)
    }

    /// The requests of which a deadline has passed, one deadline each. That deadline is disarmed. A failed request must be removed.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(u64, Overdue)> {
        let mut overdue = Vec::new();
        for (&transaction, request) in &mut self.requests {
            if request.failed <= now {
                overdue.push((transaction, Overdue::Failed));
            } else if request.given_up.is_some_and(|at| at <= now) {
                (request.given_up, request.late) = (None, None);
                overdue.push((transaction, Overdue::GivenUp));
            } else if request.late.is_some_and(|at| at <= now) {
                request.late = None;
                request.repeated = true;
                overdue.push((transaction, Overdue::Late));
            }
        }
        overdue
    }

    /// When the next deadline passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.values().map(Request::deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    #[test]
    fn an_answer_must_come_from_where_the_request_went() {
        let mut transactions = Transactions::new(4);
        let contact = Contact::new(PublicKey([1; 32]), ([10, 0, 0, 1], 5).into());
        transactions.insert(7, Request::new(Instant::ZERO, contact.addr, Some(contact), Purpose::Check));
        assert!(transactions.is_expected(Kind::Pong, 7, "[::ffff:10.0.0.1]:5".parse().unwrap()));
        assert!(!transactions.is_expected(Kind::Pong, 7, ([10, 0, 0, 2], 5).into()));
        assert!(!transactions.is_expected(Kind::Found, 7, contact.addr));
        assert!(!transactions.is_expected(Kind::Pong, 8, contact.addr));
        assert_eq!((transactions.room(), transactions.checks()), (3, 1));
        assert!(transactions.is_asking(&contact.id, contact.addr));
    }

    #[test]
    fn each_deadline_fires_once() {
        let mut transactions = Transactions::new(4);
        let request = Request::new(Instant::ZERO, ([10, 0, 0, 1], 5).into(), None, Purpose::Bootstrap);
        transactions.insert(1, request);
        let mut fired = Vec::new();
        while let Some(at) = transactions.next_deadline() {
            for (transaction, overdue) in transactions.overdue(at) {
                fired.push((at.as_nanos() / 1_000_000, overdue));
                if overdue == Overdue::Failed {
                    transactions.remove(transaction);
                }
            }
        }
        assert_eq!(fired, [(700, Overdue::Late), (2100, Overdue::GivenUp), (5000, Overdue::Failed)]);
    }
}

//! Questions to other nodes, and their deadlines.
//!
//! After one round-trip timeout a request is repeated, once, and its slot in a lookup is free. After three timeouts the lookup
//! continues without the answer. After five seconds the request has failed.

use super::{LookupId, Origin, Want};
use crate::id::{Key, NodeId};
use crate::peers::requests::{self, Question};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::header::Kind;
use core::net::SocketAddr;

/// The timeout before the first sample.
pub(super) const TIMEOUT_FIRST: Duration = Duration::from_millis(700);
/// The time after which a request has failed.
const FAILED_AFTER: Duration = Duration::from_secs(5);
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

/// A question to a node.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The node that must answer; `None` when bootstrapping.
    pub(super) contact: Option<Contact>,
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// Whether it is the second attempt after a token was refused.
    pub(super) token_retried: bool,
    /// How this node learned of the node.
    pub(super) origin: Origin,
    /// Whether it is never repeated.
    once: bool,
}

impl Question for Asked {
    fn answer(&self) -> Kind {
        match &self.purpose {
            Purpose::Check => Kind::Pong,
            Purpose::Bootstrap | Purpose::Lookup(..) => Kind::Found,
            Purpose::Announce(_) | Purpose::Store(..) => Kind::Stored,
        }
    }
}

/// An outstanding question.
pub(super) type Request = requests::Request<Asked>;
/// The outstanding questions.
pub(super) type Requests = requests::Requests<Asked>;

impl Request {
    /// A question that is asked now.
    pub(super) fn ask(now: Instant, to: SocketAddr, contact: Option<Contact>, purpose: Purpose) -> Self {
        let origin = if purpose == Purpose::Bootstrap { Origin::Bootstrap } else { Origin::Told };
        let asked = Asked { contact, purpose, token_retried: false, origin, once: false };
        let mut request = Request::new(now, to, contact.map(|contact| contact.id), asked, FAILED_AFTER);
        request.expect_within(TIMEOUT_FIRST);
        request
    }

    /// The same request to a node that was learned of in this way.
    pub(super) fn of(mut self, origin: Origin) -> Self {
        self.question.origin = origin;
        self
    }

    /// The same request, never repeated: bytes to an unvalidated address are limited.
    pub(super) fn once(mut self) -> Self {
        self.question.once = true;
        self.repeat_at(None);
        self
    }

    /// Sets the round-trip timeout.
    pub(super) fn expect_within(&mut self, timeout: Duration) {
        let late = self.sent + timeout;
        self.repeat_at(Some(late).filter(|_| !self.question.once));
        self.give_up_at(self.sent + (timeout * 3).clamp(GIVEN_UP_AFTER_MIN, FAILED_AFTER));
    }
}

impl Requests {
    /// The number of requests that check whether a node is alive.
    pub(super) fn checks(&self) -> usize {
        self.iter().filter(|(_, request)| request.question.purpose == Purpose::Check).count()
    }

    /// Whether a request to this node at this address waits for an answer.
    pub(super) fn is_asking(&self, id: &NodeId, addr: SocketAddr) -> bool {
        let same = |contact: Contact| contact.id == *id && contact.addr == addr;
        self.iter().any(|(_, request)| request.question.contact.is_some_and(same))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::peers::requests::Overdue;
    use crate::rng::Rng;

    fn contact() -> Contact {
        Contact::new(PublicKey([1; 32]), ([10, 0, 0, 1], 5).into())
    }

    /// When the deadlines of a request pass, in milliseconds after it was sent.
    fn deadlines(request: Request) -> Vec<(u128, Overdue)> {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let sent = request.sent;
        requests.insert(&mut rng, request);
        let mut fired = Vec::new();
        while let Some(at) = requests.next_deadline() {
            for (transaction, overdue) in requests.overdue(at) {
                fired.push((at.since(sent).as_millis(), overdue));
                if overdue == Overdue::Failed {
                    requests.remove(transaction);
                }
            }
        }
        fired
    }

    #[test]
    fn a_question_is_repeated_then_given_up_then_failed_and_sooner_to_a_near_node() {
        let ask = || Request::ask(Instant::ZERO, contact().addr, Some(contact()), Purpose::Check);
        use Overdue::{Failed, GivenUp, Late};
        assert_eq!(deadlines(ask()), [(700, Late), (2100, GivenUp), (5000, Failed)]);
        let mut near = ask();
        near.expect_within(Duration::from_millis(150));
        assert_eq!(deadlines(near), [(150, Late), (1000, GivenUp), (5000, Failed)]);
        let mut once = ask().once();
        once.expect_within(Duration::from_millis(150));
        assert_eq!(deadlines(once), [(1000, GivenUp), (5000, Failed)]);
    }

    #[test]
    fn checks_are_counted_and_a_node_is_asked_where_it_was_asked() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let contact = contact();
        requests.insert(&mut rng, Request::ask(Instant::ZERO, contact.addr, Some(contact), Purpose::Check));
        requests.insert(&mut rng, Request::ask(Instant::ZERO, contact.addr, None, Purpose::Bootstrap));
        assert_eq!(requests.checks(), 1);
        assert!(requests.is_asking(&contact.id, contact.addr));
        assert!(!requests.is_asking(&contact.id, ([10, 0, 0, 2], 5).into()));
    }
}

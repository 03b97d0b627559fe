//! Outstanding requests: a short table whose memory is allocated at the start.

use crate::id::{NodeId, ShortId};
use crate::time::Instant;
use crate::wire::contact::canonical;
use crate::wire::header::Kind;
use core::net::SocketAddr;

/// Outstanding requests.
pub(super) const TRANSACTIONS_MAX: usize = 64;

/// The purpose of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A gossip.
    Gossip,
    /// A ping of a member, the first or the second of a probe.
    Ping {
        /// Whether it is the second.
        again: bool,
    },
    /// A probe of the member through a relay.
    Indirect,
    /// A ping of the member for another node, which waits for the result.
    Relay {
        /// The other node's address.
        to: SocketAddr,
        /// The other node.
        asker: NodeId,
        /// The transaction number of its probe.
        transaction: u64,
        /// Whether it is the second.
        again: bool,
    },
}

impl Purpose {
    /// The kind of message that answers it.
    pub(super) fn answer(&self) -> Kind {
        match self {
            Purpose::Gossip => Kind::GossipReply,
            Purpose::Ping { .. } | Purpose::Relay { .. } => Kind::Pong,
            Purpose::Indirect => Kind::ProbeReply,
        }
    }
}

/// An outstanding request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Its transaction number.
    pub(super) transaction: u64,
    /// The address that it was sent to.
    pub(super) to: SocketAddr,
    /// The node that answers it.
    pub(super) recipient: ShortId,
    /// The member that it is about.
    pub(super) about: ShortId,
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// When it was sent.
    pub(super) sent: Instant,
    /// When it times out.
    pub(super) deadline: Instant,
}

/// The outstanding requests.
pub(super) struct Transactions(Vec<Request>);

impl Transactions {
    /// An empty table.
    pub(super) fn new() -> Self {
        Transactions(Vec::with_capacity(TRANSACTIONS_MAX))
    }

    /// The number of outstanding requests.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of requests that can be added.
    pub(super) fn room(&self) -> usize {
        TRANSACTIONS_MAX - self.0.len()
    }

    /// Adds a request, for which there must be room.
    pub(super) fn insert(&mut self, request: Request) {
        debug_assert!(self.room() > 0);
        self.0.push(request);
    }

    /// Whether a datagram from `from` could answer a request.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.position(kind, transaction, canonical(from)).is_some()
    }

    /// Removes and returns the request that this datagram answers.
    pub(super) fn answered(
        &mut self,
        kind: Kind,
        transaction: u64,
        from: SocketAddr,
        sender: ShortId,
    ) -> Option<Request> {
        let position = self.position(kind, transaction, from)?;
        (self.0[position].recipient == sender).then(|| self.0.swap_remove(position))
    }

    /// Removes and returns a request that has timed out.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Request> {
        let position = self.0.iter().position(|request| request.deadline <= now)?;
        Some(self.0.swap_remove(position))
    }

    /// Whether a request with this purpose about this member is outstanding.
    pub(super) fn is_waiting(&self, about: ShortId, purpose: impl Fn(&Purpose) -> bool) -> bool {
        self.0.iter().any(|request| request.about == about && purpose(&request.purpose))
    }

    /// The number of probes for others that are outstanding.
    pub(super) fn relayed(&self) -> usize {
        self.0.iter().filter(|request| matches!(request.purpose, Purpose::Relay { .. })).count()
    }

    /// Removes all requests.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next request times out.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|request| request.deadline).min()
    }

    fn position(&self, kind: Kind, transaction: u64, from: SocketAddr) -> Option<usize> {
        let fits = |request: &Request| {
            request.transaction == transaction && request.to == from && request.purpose.answer() == kind
        };
        self.0.iter().position(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_come_from_the_address_of_the_request_and_counts_once() {
        let mut transactions = Transactions::new();
        let (to, other) = (SocketAddr::from(([10, 0, 0, 1], 5)), SocketAddr::from(([10, 0, 0, 2], 5)));
        let request = |transaction, purpose, deadline| Request {
            transaction,
            to,
            recipient: [1; 8],
            about: [1; 8],
            purpose,
            sent: Instant::ZERO,
            deadline: Instant::from_secs(deadline),
        };
        transactions.insert(request(7, Purpose::Ping { again: false }, 2));
        transactions.insert(request(8, Purpose::Gossip, 1));
        assert!(transactions.is_expected(Kind::Pong, 7, "[::ffff:10.0.0.1]:5".parse().unwrap()));
        assert!(!transactions.is_expected(Kind::Pong, 7, other));
        assert!(!transactions.is_expected(Kind::Pong, 8, to));
        assert!(transactions.answered(Kind::Pong, 7, to, [2; 8]).is_none());
        assert!(transactions.answered(Kind::Pong, 7, to, [1; 8]).is_some());
        assert!(transactions.answered(Kind::Pong, 7, to, [1; 8]).is_none());
        assert_eq!(transactions.next_deadline(), Some(Instant::from_secs(1)));
        assert!(transactions.overdue(Instant::ZERO).is_none());
        assert_eq!(transactions.overdue(Instant::from_secs(1)).unwrap().transaction, 8);
        assert_eq!(transactions.next_deadline(), None);
    }
}

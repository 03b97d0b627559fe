//! Requests that wait for an answer: a short table whose memory is there from the start.

use crate::id::{NodeId, ShortId};
use crate::time::Instant;
use crate::wire::contact::canonical;
use crate::wire::header::Kind;
use core::net::SocketAddr;

/// Requests that wait at a time.
pub(super) const TRANSACTIONS_MAX: usize = 64;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A gossip.
    Gossip,
    /// A ping of a member, the first or the second.
    Ping {
        /// Whether it is the second.
        again: bool,
    },
    /// A probe of the member through another.
    Indirect,
    /// A ping of the member for another, which is waiting for the outcome.
    Relay {
        /// Where the other is.
        to: SocketAddr,
        /// Who it is.
        asker: NodeId,
        /// The number of its probe.
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

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Its number.
    pub(super) transaction: u64,
    /// Where it went.
    pub(super) to: SocketAddr,
    /// Who answers it.
    pub(super) recipient: ShortId,
    /// The member that it is about.
    pub(super) about: ShortId,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// When it was sent.
    pub(super) sent: Instant,
    /// When it has failed.
    pub(super) deadline: Instant,
}

/// The requests that wait.
pub(super) struct Transactions(Vec<Request>);

impl Transactions {
    /// None.
    pub(super) fn new() -> Self {
        Transactions(Vec::with_capacity(TRANSACTIONS_MAX))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many more can be added.
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

    /// Takes out the request that this datagram answers.
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

    /// Takes out a request whose time is over.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Request> {
        let position = self.0.iter().position(|request| request.deadline <= now)?;
        Some(self.0.swap_remove(position))
    }

    /// Whether a request for this purpose about this member waits.
    pub(super) fn is_waiting(&self, about: ShortId, purpose: impl Fn(&Purpose) -> bool) -> bool {
        self.0.iter().any(|request| request.about == about && purpose(&request.purpose))
    }

    /// How many probes for others are under way.
    pub(super) fn relayed(&self) -> usize {
        self.0.iter().filter(|request| matches!(request.purpose, Purpose::Relay { .. })).count()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next one has failed.
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
    fn an_answer_must_come_from_where_the_request_went_and_counts_once() {
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

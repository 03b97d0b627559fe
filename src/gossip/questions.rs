//! Questions to members.

use crate::id::ShortId;
use crate::peers::outbox::Asker;
use crate::peers::requests::{self, Question};
use crate::wire::header::Kind;

/// Outstanding requests.
pub(super) const REQUESTS_MAX: usize = 64;

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
        /// The other node.
        asker: Asker,
        /// Whether it is the second.
        again: bool,
    },
}

/// A question to a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The member that it is about.
    pub(super) about: ShortId,
    /// Its purpose.
    pub(super) purpose: Purpose,
}

impl Question for Asked {
    fn answer(&self) -> Kind {
        match self.purpose {
            Purpose::Gossip => Kind::GossipReply,
            Purpose::Ping { .. } | Purpose::Relay { .. } => Kind::Pong,
            Purpose::Indirect => Kind::ProbeReply,
        }
    }

    fn is_answered_at_once(&self) -> bool {
        // A relay asks the member first.
        self.purpose != Purpose::Indirect
    }
}

/// An outstanding question.
pub(super) type Request = requests::Request<Asked>;
/// The outstanding questions.
pub(super) type Requests = requests::Requests<Asked>;

impl Requests {
    /// Whether a request for this purpose about this member waits.
    pub(super) fn is_waiting(&self, about: ShortId, purpose: impl Fn(&Purpose) -> bool) -> bool {
        self.iter().any(|(_, request)| request.question.about == about && purpose(&request.question.purpose))
    }

    /// The number of probes for others that are under way.
    pub(super) fn relayed(&self) -> usize {
        self.iter().filter(|(_, request)| matches!(request.question.purpose, Purpose::Relay { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::rng::Rng;
    use crate::time::{Duration, Instant};
    use crate::wire::header::Auth;
    use core::net::SocketAddr;

    #[test]
    fn probes_for_others_are_counted_and_a_question_is_known_by_member_and_purpose() {
        let (mut requests, mut rng) = (Requests::new(REQUESTS_MAX), Rng::new([1; 32]));
        let to = SocketAddr::from(([10, 0, 0, 1], 5));
        let asker = Asker { addr: to, id: NodeId([3; 32]), transaction: 7, auth: Auth::Mac };
        let relay = Purpose::Relay { asker, again: false };
        for (about, purpose) in [([1; 8], Purpose::Gossip), ([2; 8], relay), ([2; 8], Purpose::Indirect)] {
            let asked = Asked { about, purpose };
            requests.insert(&mut rng, Request::new(Instant::ZERO, to, None, asked, Duration::from_secs(1)));
        }
        assert_eq!(requests.relayed(), 1);
        assert!(requests.is_waiting([2; 8], |purpose| *purpose == Purpose::Indirect));
        assert!(!requests.is_waiting([1; 8], |purpose| *purpose == Purpose::Indirect));
    }
}

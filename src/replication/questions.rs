//! Questions to neighbours: at most one to each neighbour at a time, asked again ever more patiently.

use crate::id::Key;
use crate::peers::requests::{self, Question};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::header::Kind;
use crate::wire::reconcile::WireRange;
use core::net::SocketAddr;

/// How long the first answer is awaited; each further one is awaited twice as long as the one before.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most times that a question is sent.
const TRIES_MAX: u32 = 4;
/// An instant that no clock reaches.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The purpose of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A step of a comparison.
    Compare,
    /// To see whether the neighbour has these pieces, one for each range.
    Look(Vec<Key>),
}

/// A question to a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) purpose: Purpose,
    pub(super) salt: u64,
    pub(super) ranges: Vec<WireRange>,
    tries: u32,
}

impl Question for Asked {
    fn answer(&self) -> Kind {
        Kind::Reconciled
    }
}

/// An outstanding question.
pub(super) type Request = requests::Request<Asked>;
/// The outstanding questions.
pub(super) type Requests = requests::Requests<Asked>;

impl Request {
    /// A question that is asked now.
    pub(super) fn ask(
        now: Instant,
        to: &Contact,
        purpose: Purpose,
        salt: u64,
        ranges: Vec<WireRange>,
    ) -> Self {
        let asked = Asked { purpose, salt, ranges, tries: 1 };
        let mut request = Request::new(now, to.addr, Some(to.id), asked, TIMEOUT);
        request.wait(now);
        request
    }

    /// The question is asked again now, where the neighbour is meanwhile.
    pub(super) fn ask_again(&mut self, now: Instant, to: SocketAddr) {
        self.to = to;
        self.question.tries += 1;
        self.wait(now);
    }

    fn wait(&mut self, now: Instant) {
        let until = now + TIMEOUT * (1 << (self.question.tries - 1));
        let last = self.question.tries >= TRIES_MAX;
        self.repeat_at(Some(until).filter(|_| !last));
        self.fail_at(if last { until } else { NEVER });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::peers::requests::Overdue;
    use crate::rng::Rng;

    #[test]
    fn a_question_is_asked_four_times_ever_more_patiently_and_then_fails() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let contact = Contact::new(PublicKey([1; 32]), ([10, 0, 0, 1], 5).into());
        let request = Request::ask(Instant::ZERO, &contact, Purpose::Compare, 7, Vec::new());
        let transaction = requests.insert(&mut rng, request);
        let moved = SocketAddr::from(([10, 0, 0, 2], 5));
        let mut seconds = Vec::new();
        loop {
            let at = requests.next_deadline().expect("it waits");
            seconds.push(at.as_secs());
            match requests.overdue(at)[..] {
                [(_, Overdue::Late)] => requests.get_mut(transaction).unwrap().ask_again(at, moved),
                [(_, Overdue::Failed)] => break,
                ref other => panic!("{other:?}"),
            }
        }
        assert_eq!(seconds, [1, 3, 7, 15]);
        assert!(requests.is_expected(Kind::Reconciled, transaction, moved), "it went where the neighbour is");
    }
}

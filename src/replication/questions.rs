//! Questions to neighbours: at most one to each neighbour at a time, asked again ever more patiently.

use crate::id::Key;
use crate::peers::requests::{self, Question};
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::header::Kind;
use crate::wire::reconcile::WireRange;
use core::net::SocketAddr;

/// How long the first answer is awaited before the first sample of the round-trip time.
pub(super) const TIMEOUT_FIRST: Duration = Duration::from_secs(1);
/// How long the second answer is awaited; each further one is awaited twice as long as the one before.
const TIMEOUT_SECOND: Duration = Duration::from_secs(2);
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
    /// How long the first answer is awaited.
    first: Duration,
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
    /// A question that is asked now, whose first answer is awaited for the time `first`.
    pub(super) fn ask(
        now: Instant,
        to: &Contact,
        purpose: Purpose,
        (salt, ranges): (u64, Vec<WireRange>),
        first: Duration,
    ) -> Self {
        let asked = Asked { purpose, salt, ranges, tries: 1, first };
        let mut request = Request::new(now, to.addr, Some(to.id), asked, first);
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
        // A datagram that was lost is made up for soon. A neighbour that is silent has the same time in any case.
        let timeout = match self.question.tries {
            1 => self.question.first,
            tries => TIMEOUT_SECOND * (1 << (tries - 2)),
        };
        let until = now + timeout;
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

    /// When a question is asked again, and when it fails, in milliseconds. The neighbour moves to `moved` at once.
    fn deadlines(first: Duration, moved: SocketAddr) -> Vec<u128> {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let contact = Contact::new(PublicKey([1; 32]), ([10, 0, 0, 1], 5).into());
        let request = Request::ask(Instant::ZERO, &contact, Purpose::Compare, (7, Vec::new()), first);
        let transaction = requests.insert(&mut rng, request);
        let mut deadlines = Vec::new();
        loop {
            let at = requests.next_deadline().expect("it waits");
            deadlines.push(at.since(Instant::ZERO).as_millis());
            match requests.overdue(at)[..] {
                [(_, Overdue::Late)] => requests.get_mut(transaction).unwrap().ask_again(at, moved),
                [(_, Overdue::Failed)] => break,
                ref other => panic!("{other:?}"),
            }
        }
        assert!(requests.is_expected(Kind::Reconciled, transaction, moved), "it went where the neighbour is");
        deadlines
    }

    #[test]
    fn a_question_is_asked_four_times_ever_more_patiently_and_the_first_time_as_the_round_trip_demands() {
        let moved = SocketAddr::from(([10, 0, 0, 2], 5));
        assert_eq!(deadlines(TIMEOUT_FIRST, moved), [1000, 3000, 7000, 15000]);
        assert_eq!(deadlines(Duration::from_millis(150), moved), [150, 2150, 6150, 14150]);
    }
}

//! Outstanding requests.
//!
//! An answer is accepted once, and only if its transaction number, kind, source address and sender match the request. A request
//! has up to three deadlines: *late* (to be repeated), *given up* (the caller goes on without the answer, which may still arrive) and
//! *failed*. A deadline that fired is disarmed before it is acted upon.

use super::outbox::{Ask, Attempt, Outbox};
use crate::id::NodeId;
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::canonical;
use crate::wire::datagram::{Unverified, Verified};
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;

/// Requests for which there is memory from the start.
const PREPARED: usize = 64;

/// The purpose of a request.
pub trait Question {
    /// The kind of message that answers it.
    fn answer(&self) -> Kind;

    /// Whether it is answered at once, so that the delay of the answer is a round-trip time.
    fn is_answered_at_once(&self) -> bool {
        true
    }
}

/// A challenge to a request: the node at the address of the request asks for a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// The address that the challenge came from.
    pub from: SocketAddr,
    /// The number of the request.
    pub transaction: u64,
    /// The token that the signed request must show.
    pub token: u64,
}

impl Challenge {
    /// The challenge that is in a datagram from this address.
    pub fn new(from: SocketAddr, datagram: &Unverified<'_>) -> Challenge {
        Challenge { from: canonical(from), transaction: datagram.transaction(), token: datagram.token() }
    }
}

/// An outstanding request.
#[derive(Clone, Debug)]
pub struct Request<Q> {
    /// The address that it was sent to.
    pub to: SocketAddr,
    /// The node that must answer; `None` accepts any node at that address.
    pub recipient: Option<NodeId>,
    /// Its purpose.
    pub question: Q,
    /// When it was first sent.
    pub sent: Instant,
    /// Whether it was repeated, so that the delay of its answer is no round-trip time.
    pub repeated: bool,
    /// Whether its recipient challenged it, so that it was sent again with a signature.
    challenged: bool,
    late: Option<Instant>,
    given_up: Option<Instant>,
    failed: Instant,
}

impl<Q> Request<Q> {
    /// A request sent now that fails after `fails_after`.
    pub fn new(
        now: Instant,
        to: SocketAddr,
        recipient: Option<NodeId>,
        question: Q,
        fails_after: Duration,
    ) -> Self {
        let (to, failed) = (canonical(to), now + fails_after);
        let (repeated, challenged) = (false, false);
        Request {
            to,
            recipient,
            question,
            sent: now,
            repeated,
            challenged,
            late: None,
            given_up: None,
            failed,
        }
    }

    /// Sets when it is late; `None` is never.
    pub fn repeat_at(&mut self, at: Option<Instant>) {
        self.late = at;
    }

    /// Sets when it is given up.
    pub fn give_up_at(&mut self, at: Instant) {
        self.given_up = Some(at);
    }

    /// Sets when it has failed.
    pub fn fail_at(&mut self, at: Instant) {
        self.failed = at;
    }

    fn deadline(&self) -> Instant {
        let soon = earliest(self.late, self.given_up);
        soon.map_or(self.failed, |soon| soon.min(self.failed))
    }

    /// The deadline that has passed, which is disarmed; a failed request can only be removed.
    fn fire(&mut self, now: Instant) -> Option<Overdue> {
        if self.failed <= now {
            Some(Overdue::Failed)
        } else if self.given_up.is_some_and(|at| at <= now) {
            (self.given_up, self.late) = (None, None);
            Some(Overdue::GivenUp)
        } else if self.late.is_some_and(|at| at <= now) {
            (self.late, self.repeated) = (None, true);
            Some(Overdue::Late)
        } else {
            None
        }
    }
}

/// A deadline that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// Repeat the request.
    Late,
    /// Go on without the answer.
    GivenUp,
    /// The request has failed: remove it.
    Failed,
}

/// A bounded table of requests, in the order of their transaction numbers.
pub struct Requests<Q> {
    table: Vec<(u64, Request<Q>)>,
    capacity: usize,
}

impl<Q: Question> Requests<Q> {
    /// Room for `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Requests { table: Vec::with_capacity(capacity.min(PREPARED)), capacity }
    }

    /// The number of outstanding requests.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no request is outstanding.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The number of requests that can be added.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.table.len())
    }

    /// Every request with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Request<Q>)> {
        self.table.iter().map(|(transaction, request)| (*transaction, request))
    }

    /// Adds a request, for which there must be room, under a random number.
    pub fn insert(&mut self, rng: &mut Rng, request: Request<Q>) -> u64 {
        debug_assert!(self.room() > 0, "a request too many");
        loop {
            let transaction = rng.u64();
            if let Err(place) = self.position(transaction) {
                self.table.insert(place, (transaction, request));
                return transaction;
            }
        }
    }

    /// Adds a request, for which there must be room. It is sent as the result says.
    pub fn ask(&mut self, rng: &mut Rng, request: Request<Q>, attempt: Attempt) -> Ask {
        let (to, recipient) = (request.to, request.recipient);
        Ask { to, recipient, transaction: self.insert(rng, request), attempt }
    }

    /// How a request is sent again.
    pub fn ask_again(&self, transaction: u64, attempt: Attempt) -> Option<Ask> {
        let request = self.get(transaction)?;
        Some(Ask { to: request.to, recipient: request.recipient, transaction, attempt })
    }

    /// The request with this number.
    pub fn get(&self, transaction: u64) -> Option<&Request<Q>> {
        self.position(transaction).ok().map(|place| &self.table[place].1)
    }

    /// The request with this number.
    pub fn get_mut(&mut self, transaction: u64) -> Option<&mut Request<Q>> {
        self.position(transaction).ok().map(|place| &mut self.table[place].1)
    }

    /// Takes a request out.
    pub fn remove(&mut self, transaction: u64) -> Option<Request<Q>> {
        self.position(transaction).ok().map(|place| self.table.remove(place).1)
    }

    /// Keeps the requests whose numbers `wanted` accepts.
    pub fn retain(&mut self, mut wanted: impl FnMut(u64) -> bool) {
        self.table.retain(|(transaction, _)| wanted(*transaction));
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    /// Whether a datagram from `from` could answer a request, so that its signature is worth checking.
    pub fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        let fits = |request: &Request<Q>| request.to == canonical(from) && request.question.answer() == kind;
        self.get(transaction).is_some_and(fits)
    }

    /// Takes out the request that a datagram answers. The table of peers learns that its sender answered, and how soon.
    pub fn answered_by(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        outbox: &mut Outbox,
    ) -> Option<Request<Q>> {
        let (kind, sender) = (datagram.message().kind(), datagram.id());
        let request = self.answered(kind, datagram.transaction(), from, &sender)?;
        let measures = !request.repeated && request.question.is_answered_at_once();
        outbox.peers.note_answer(&sender, measures.then(|| now.since(request.sent)));
        Some(request)
    }

    /// Takes out the request that a datagram of this sender answers.
    fn answered(
        &mut self,
        kind: Kind,
        transaction: u64,
        from: SocketAddr,
        sender: &NodeId,
    ) -> Option<Request<Q>> {
        let is_sender = |request: &Request<Q>| request.recipient.is_none_or(|recipient| recipient == *sender);
        let expected = self.is_expected(kind, transaction, from);
        if expected && self.get(transaction).is_some_and(is_sender) { self.remove(transaction) } else { None }
    }

    /// A challenge arrived. If it is to a request of these, returns how the request is sent again, with a signature. A challenge is
    /// not authenticated. So it counts once for each request, and only from the address that the request went to, and it changes
    /// nothing else.
    pub fn challenged(&mut self, challenge: &Challenge) -> Option<Ask> {
        let Challenge { from, transaction, token } = *challenge;
        let request = self.get_mut(transaction).filter(|request| request.to == from)?;
        request.repeated = true;
        if core::mem::replace(&mut request.challenged, true) {
            return None;
        }
        self.ask_again(transaction, Attempt::Challenged(token))
    }

    /// A challenge arrived. If it is to one of these requests, which all have this message, that is sent again, with a signature.
    pub fn sign_again(
        &mut self,
        now: Instant,
        challenge: &Challenge,
        message: &Message<'_>,
        outbox: &mut Outbox,
    ) {
        if let Some(ask) = self.challenged(challenge) {
            outbox.request(now, ask, message);
        }
    }

    /// The requests of which a deadline has passed, in the order of their numbers: one deadline each, which is disarmed.
    pub fn overdue(&mut self, now: Instant) -> Vec<(u64, Overdue)> {
        let fired = self.table.iter_mut().map(|(transaction, request)| (*transaction, request.fire(now)));
        fired.filter_map(|(transaction, overdue)| Some((transaction, overdue?))).collect()
    }

    /// When the next deadline passes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.table.iter().map(|(_, request)| request.deadline()).min()
    }

    fn position(&self, transaction: u64) -> Result<usize, usize> {
        self.table.binary_search_by_key(&transaction, |(transaction, _)| *transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::peers::outbox::Asker;
    use crate::peers::testing;
    use crate::wire::datagram::Unverified;
    use crate::wire::header::Auth;
    use crate::wire::message::{Message, ProbeOutcome};
    use crate::wire::network::Network;

    /// A question that is answered by a message of this kind.
    struct Of(Kind);

    impl Question for Of {
        fn answer(&self) -> Kind {
            self.0
        }

        fn is_answered_at_once(&self) -> bool {
            self.0 != Kind::ProbeReply
        }
    }

    const START: Instant = Instant::from_secs(10);
    const FAILS_AFTER: Duration = Duration::from_secs(5);

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn request(recipient: Option<NodeId>, kind: Kind) -> Request<Of> {
        Request::new(START, addr("10.0.0.1:5"), recipient, Of(kind), FAILS_AFTER)
    }

    #[test]
    fn an_answer_must_come_from_where_the_request_went_and_counts_once() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let (here, other, meant, stranger) =
            (addr("10.0.0.1:5"), addr("10.0.0.2:5"), NodeId([1; 32]), NodeId([2; 32]));
        let ping = requests.insert(&mut rng, request(Some(meant), Kind::Pong));
        let find = requests.insert(&mut rng, request(None, Kind::Found));
        assert!(requests.is_expected(Kind::Pong, ping, addr("[::ffff:10.0.0.1]:5")));
        assert!(!requests.is_expected(Kind::Pong, ping, other), "another address");
        assert!(!requests.is_expected(Kind::Found, ping, here), "another kind");
        assert!(!requests.is_expected(Kind::Pong, ping ^ find, here), "another number");
        assert!(requests.answered(Kind::Pong, ping, here, &stranger).is_none(), "another sender");
        assert!(requests.answered(Kind::Pong, ping, here, &meant).is_some());
        assert!(requests.answered(Kind::Pong, ping, here, &meant).is_none(), "a second time");
        assert!(requests.answered(Kind::Found, find, here, &stranger).is_some(), "any node may answer");
        assert!(requests.is_empty() && requests.next_deadline().is_none());
    }

    /// The round-trip time to a node that has answered a request after 30 ms.
    fn round_trip(answer: &Message<'_>, repeated: bool) -> Option<Duration> {
        let (network, here, there) = (Network::new("test"), addr("10.0.0.2:5"), addr("10.0.0.1:5"));
        let [mut ours, mut theirs] = [1, 2].map(|seed: u8| {
            testing::outbox(&network, Identity::from_secret(&[seed; 32]), false, u64::from(seed))
        });
        let (us, them) = (ours.identity().id(), theirs.identity().id());
        let mut request = request(Some(them), answer.kind());
        request.repeated = repeated;
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let transaction = requests.ask(&mut rng, request, Attempt::First).transaction;
        let asker = Asker { addr: here, id: us, transaction, auth: Auth::Signed };
        theirs.answer(START, asker, answer).expect("it fits");
        let bytes = theirs.poll().expect("an answer").bytes().to_vec();
        let datagram = Unverified::parse(&bytes, &network).expect("sound");
        let later = START + Duration::from_millis(30);
        let received = testing::receive(&mut ours, later, there, datagram).expect("it is authentic");
        assert!(requests.answered_by(later, there, &received.datagram, &mut ours).is_some());
        ours.peers().rtt(&them)
    }

    #[test]
    fn an_answer_measures_the_round_trip_unless_its_request_was_repeated_or_it_waited_for_a_third_node() {
        let pong = Message::Pong { observed: addr("10.0.0.2:5") };
        assert_eq!(round_trip(&pong, false), Some(Duration::from_millis(30)));
        assert_eq!(round_trip(&pong, true), None);
        let relayed = Message::ProbeReply { target: [3; 8], outcome: ProbeOutcome::Answered };
        assert_eq!(round_trip(&relayed, false), None);
    }

    #[test]
    fn a_challenge_counts_once_and_only_from_where_the_request_went() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let ping = requests.insert(&mut rng, request(None, Kind::Pong));
        let challenge = Challenge { from: addr("10.0.0.1:5"), transaction: ping, token: 7 };
        let elsewhere = Challenge { from: addr("10.0.0.2:5"), ..challenge };
        assert_eq!(requests.challenged(&elsewhere), None, "another address");
        let other = Challenge { transaction: ping ^ 1, ..challenge };
        assert_eq!(requests.challenged(&other), None, "another number");
        assert!(requests.get(ping).is_some_and(|request| !request.repeated));
        let again = requests.challenged(&challenge).expect("it is sent again");
        assert_eq!(again.transaction, ping);
        assert_eq!(again.attempt, Attempt::Challenged(7));
        assert_eq!(requests.challenged(&challenge), None, "a second time");
        assert!(
            requests.get(ping).is_some_and(|request| request.repeated),
            "its answer measures no round trip"
        );
    }

    #[test]
    fn each_deadline_fires_once_and_the_last_one_until_the_request_is_removed() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let after = |millis| START + Duration::from_millis(millis);
        let mut patient = request(None, Kind::Found);
        patient.repeat_at(Some(after(700)));
        patient.give_up_at(after(2100));
        requests.insert(&mut rng, patient);
        let mut fired = Vec::new();
        while let Some(at) = requests.next_deadline() {
            for (transaction, overdue) in requests.overdue(at) {
                fired.push((at.since(START).as_millis(), overdue));
                assert!(requests.get(transaction).is_some_and(|request| request.repeated));
                if overdue == Overdue::Failed {
                    requests.remove(transaction);
                }
            }
        }
        assert_eq!(fired, [(700, Overdue::Late), (2100, Overdue::GivenUp), (5000, Overdue::Failed)]);
    }

    #[test]
    fn a_request_that_is_given_up_is_not_sent_again_and_may_still_be_answered() {
        let (mut requests, mut rng) = (Requests::new(4), Rng::new([1; 32]));
        let mut both = request(None, Kind::Found);
        both.repeat_at(Some(START));
        both.give_up_at(START);
        let transaction = requests.insert(&mut rng, both);
        assert_eq!(requests.overdue(START), [(transaction, Overdue::GivenUp)]);
        assert_eq!(requests.overdue(START), []);
        assert_eq!(requests.next_deadline(), Some(START + FAILS_AFTER));
        let answered = requests.answered(Kind::Found, transaction, addr("10.0.0.1:5"), &NodeId([3; 32]));
        assert!(answered.is_some_and(|request| !request.repeated));
    }

    #[test]
    fn the_room_shrinks_with_each_request_and_many_are_found_by_their_numbers() {
        let (mut requests, mut rng) = (Requests::new(100), Rng::new([1; 32]));
        let numbers: Vec<u64> =
            (0..100).map(|_| requests.insert(&mut rng, request(None, Kind::Pong))).collect();
        assert_eq!(requests.len(), 100);
        assert_eq!(requests.room(), 0);
        assert!(requests.iter().map(|(transaction, _)| transaction).is_sorted());
        assert!(numbers.iter().all(|number| requests.get(*number).is_some()));
        requests.retain(|transaction| numbers[..10].contains(&transaction));
        assert_eq!(requests.len(), 10);
        assert_eq!(requests.room(), 90);
        assert!(requests.remove(numbers[50]).is_none() && requests.remove(numbers[5]).is_some());
        requests.clear();
        assert_eq!(requests.room(), 100);
    }
}
